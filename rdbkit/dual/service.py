"""`rdbkit dual-proxy`: the proxy as a service, in one process or several, with its mirror, its state and what asks it to switch."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rdbkit.dual.control import Control
from rdbkit.dual.cutover import Cutover, NotSwitched
from rdbkit.dual.engine import ServerOpener
from rdbkit.dual.exporter import Exporter
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.mirror import Mirror
from rdbkit.dual.proxy import Proxy
from rdbkit.dual.state_store import FileStore, FunctionStore
from rdbkit.dual.states import BEGINNING, Setting, Side, State, mirrored, primary
from rdbkit.dual.switch import dual_switch
from rdbkit.dual.workers import Process, ToParent, WholeWorker, fork, obey
from rdbkit.errors import RdbError, TargetError
from rdbkit.live.processes import same_data
from rdbkit.live.server import Server
from rdbkit.storage.lock import locked
from rdbkit.text import count

__all__ = ["Service", "Settings", "serve"]

#: The steps that a proxy can take; DIAL is for clients that choose by key.
_STEPS: Final[dict[State, tuple[State, ...]]] = {
    State.OLD: (State.SHADOW,),
    State.SHADOW: (State.OLD, State.NEW),
    State.NEW: (State.SHADOW, State.DONE),
    State.DONE: (),
}
_COMPARED: Final = 10_000
#: Seconds for which what is marked is brought over at the end.
_END_S: Final = 10.0


@dataclass(frozen=True)
class Settings:
    """How a proxy runs.

    Attributes:
        old, new: connect to the servers.
        host, port: where clients come; port 0 for any.
        state: what it begins with.
        state_file: where its state is kept, so that one that is started again goes on with it; None for nowhere.
        processes: how many.
        control: path of the control socket; None for none.
        metrics: host and port of the metrics; None for none.
        tls: certificate and key for clients that come with TLS; None for plain connections.
        log_in, client_password: as `Proxy` takes them.
        pause_limit_s: a switch that would keep clients waiting for longer is undone.
        most_marks: so many keys may wait for the other side.
        hide_keys: samples have no names of keys.
    """

    old: ServerOpener
    new: ServerOpener
    host: str = "127.0.0.1"
    port: int = 6379
    state: State = State.SHADOW
    state_file: str | None = None
    processes: int = 1
    control: str | None = None
    metrics: tuple[str, int] | None = None
    tls: ssl.SSLContext | None = None
    log_in: bool = False
    client_password: str | None = None
    pause_limit_s: float = 2.0
    most_marks: int = 1_000_000
    hide_keys: bool = False

    def sides(self) -> dict[Side, ServerOpener]:
        """What connects to each side."""
        return {"old": self.old, "new": self.new}


class Service:
    """What there is once, however many processes have the connections: mirror, state, switch.

    Args:
        settings: how the proxy runs.
        workers: have the connections.
        mirror: brings over what they mark.
        metrics: where everything is counted.
        setting: the state to begin with.
    """

    def __init__(self, settings: Settings, workers: list[Any], mirror: Mirror, metrics: Metrics, setting: Setting) -> None:
        self._settings = settings
        self._workers: list[WholeWorker] = workers
        self._mirror = mirror
        self._metrics = metrics
        self._setting = setting
        self._cutover = Cutover(self._workers, mirror, settings.pause_limit_s)
        self._one = asyncio.Lock()

    async def switch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Go to another state: {"to": "new", "accept_missing": 0, "compare": 10000}.

        Raises: ValueError for a step that cannot be; NotSwitched where it is not safe, or was undone.
        """
        to = State(str(request.get("to")))
        if self._one.locked():
            raise NotSwitched("another switch is under way")
        async with self._one:
            now = self._setting.state
            if to is now:
                return {"state": str(now), "switched": False}
            if to not in _STEPS[now]:
                steps = _STEPS[now]
                nearest = f"the next step is {' or '.join(steps)}" if steps else "what is written is not mirrored any more"
                raise ValueError(f"from {now} one cannot go to {to}: {nearest}")
            wanted = Setting(to, 0.0, time.time_ns() // 1_000_000, self._setting.epoch + 1, str(request.get("by", "")))
            found: dict[str, Any] = {"state": str(to), "switched": True}
            if primary(to) == primary(now):
                await self._turn(wanted)
            else:
                if to is State.NEW:
                    await asyncio.to_thread(self._prove, request.get("accept_missing", 0), request.get("compare", _COMPARED))
                done = await self._cutover.switch(primary(to), partial(self._remember, wanted))
                found |= {
                    "pause_ms": done.pause_ms, "connections": done.connections, "compared": done.checked, "closed": done.closed,
                    "steps_ms": done.steps_ms,
                }  # fmt: skip
            self._setting = wanted
            return found

    async def status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """The state, how much waits for the other side, and what was counted."""
        return {
            "state": str(self._setting.state), "by": self._setting.by, "waiting": len(self._mirror.marks),
            "behind_s": round(self._mirror.is_behind_s, 3), "needs_sync": self._mirror.needs_sync, "processes": len(self._workers),
            **await self._counted(), "counts": self._metrics.report(),
        }  # fmt: skip

    async def synced(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """What was missing on the other side is there: `sync` was run."""
        self._mirror.synced()
        return {"needs_sync": self._mirror.needs_sync}

    async def text(self) -> str:
        """What was counted, for Prometheus."""
        lines = [self._metrics.text()]
        for name, number in (await self._counted()).items():
            lines.append(f"# TYPE rdbkit_proxy_{name} gauge\nrdbkit_proxy_{name} {number}\n")
        lines += [
            "# HELP rdbkit_proxy_state The state of the move.\n# TYPE rdbkit_proxy_state gauge\n",
            *(f'rdbkit_proxy_state{{state="{each}"}} {int(each is self._setting.state)}\n' for each in _STEPS),
        ]
        return "".join(lines)

    async def _counted(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for each in list(self._workers):
            with suppress(RdbError):
                for name, number in (await each.report()).items():
                    total[name] = total.get(name, 0) + number
        return total

    async def _turn(self, wanted: Setting) -> None:
        """A step in which clients stay where they are."""
        on = mirrored(wanted.state) is not None
        await asyncio.to_thread(self._remember, wanted)
        if on:
            await asyncio.to_thread(self._mirror.turn, wanted.state)
        for each in list(self._workers):
            await each.turn(wanted.state)
        if not on:
            await asyncio.to_thread(self._mirror.turn, wanted.state)

    def _remember(self, setting: Setting) -> None:
        if self._settings.state_file is not None:
            FileStore(self._settings.state_file).write(setting)

    def _prove(self, accept_missing: float, compare: int | None) -> None:
        """All keys are on the new server. Raises: NotSwitched where they are not; TargetError."""
        found = dual_switch(
            self._settings.old, self._settings.new, State.NEW, store=FunctionStore(lambda: State.DIAL),
            accept_missing=accept_missing, compare=compare, dry_run=True,
        )  # fmt: skip
        if found.reasons:
            raise NotSwitched("it is not safe yet: " + "; ".join(found.reasons))


class _Local:
    """The connections of this process, and what else is asked of it."""

    def __init__(self, proxy: Proxy, marks: Any) -> None:
        self._proxy = proxy
        self._marks = marks
        worker = proxy.worker
        self.open, self.pause, self.prepare, self.undo = worker.open, worker.pause, worker.prepare, worker.undo
        self.commit = worker.commit

    async def turn(self, state: State) -> None:
        self._proxy.marks = self._marks if mirrored(state) is not None else None

    async def report(self) -> dict[str, int]:
        return {"connections": len(self._proxy.connections)}

    async def close(self) -> None:
        await self._proxy.close()


def serve(settings: Settings, begun: Callable[[str], object] = lambda _: None) -> None:
    """Serve until a signal (SIGTERM, SIGINT) says that this is the end; then what is marked is brought over.

    Args:
        settings: how.
        begun: called with the address once clients can come.

    Raises: TargetError where a server cannot be reached, a process has ended, or another proxy has the state; OSError where nothing
        can listen there.
    """
    with suppress(ImportError):  # which says what to install where it is needed
        import redis.connection  # noqa: F401 -- two threads that import it at the same time find half of it
    with ExitStack() as stack:
        if settings.state_file is not None:
            try:
                stack.enter_context(locked(settings.state_file))
            except BlockingIOError:
                # it would not hear of a switch, and go on at a server that the other has left
                why = "another proxy has this state; --processes gives one more"
                raise TargetError(why, source=settings.state_file) from None
        _serve(settings, _setting(settings), begun)


def _serve(settings: Settings, setting: Setting, begun: Callable[[str], object]) -> None:
    """Serve, from a state on. Raises: as `serve`."""
    if settings.processes == 1:
        _run(_alone(settings, setting, begun))
        return
    with _reserved(settings) as (port, reserved):
        processes = fork(settings.processes, partial(_child, settings, setting, port, reserved))
        _run(_parent(settings, setting, processes, f"{settings.host}:{port}", begun))


def _setting(settings: Settings) -> Setting:
    """The state that a proxy before this one had, or the one to begin with. Raises: TargetError for a state of another move."""
    kept = FileStore(settings.state_file).look().settings if settings.state_file is not None else []
    if not kept:
        return BEGINNING._replace(state=settings.state)
    if kept[-1].state not in _STEPS:
        raise TargetError(f"a proxy cannot be in the state {kept[-1].state}", source=settings.state_file)
    return kept[-1]


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run it in the fastest event loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def _opened(settings: Settings, setting: Setting, marks: Any, metrics: Any) -> Proxy:
    """The proxy, connected to both servers, or to the new one alone where the old one may be gone. Raises: TargetError."""
    wanted = [settings.new] if setting.state is State.DONE else [settings.old, settings.new]
    servers: list[Server] = list(await asyncio.gather(*map(asyncio.to_thread, wanted)))
    if len(servers) == 2 and await asyncio.to_thread(same_data, *servers):
        raise TargetError("the old and the new server are the same, or one is a replica of the other", source=str(servers[1].url))
    return Proxy(
        servers[0], servers[-1], primary(setting.state), None if mirrored(setting.state) is None else marks, metrics,
        log_in=settings.log_in, client_password=settings.client_password,
    )  # fmt: skip


async def _alone(settings: Settings, setting: Setting, begun: Callable[[str], object]) -> None:
    """All in this process."""
    metrics = Metrics(settings.hide_keys)
    mirror = Mirror(settings.sides(), metrics, settings.most_marks)
    proxy = await _opened(settings, setting, mirror.marks, metrics)
    mirror.turn(setting.state)
    try:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(proxy.close)
            port = await proxy.listen(settings.host, settings.port, tls=settings.tls)
            service = Service(settings, [_Local(proxy, mirror.marks)], mirror, metrics, setting)
            await _offered(stack, settings, service)
            end = _at_signal(asyncio.Event())
            begun(f"{settings.host}:{port}")
            await end.wait()
    finally:
        await _finish(mirror)


async def _parent(
    settings: Settings, setting: Setting, forked: list[tuple[int, socket.socket]], address: str, begun: Callable[[str], object]
) -> None:
    """What there is beside the processes that have the connections."""
    metrics = Metrics(settings.hide_keys)
    mirror = Mirror(settings.sides(), metrics, settings.most_marks)
    processes: list[Process] = []
    end = _at_signal(asyncio.Event())

    def ended(process: Process) -> None:
        processes.remove(process)
        end.set()

    mirror.turn(setting.state)
    is_over = False
    try:
        async with AsyncExitStack() as stack:
            for pid, sock in forked:
                process = Process(pid, sock, mirror.marks, metrics, ended)
                processes.append(process)
                await process.start()
                stack.push_async_callback(process.close)
            for process in list(processes):
                await process.ready()
            await _offered(stack, settings, Service(settings, processes, mirror, metrics, setting))
            begun(address)
            await end.wait()
            is_over = len(processes) == len(forked)
    finally:
        for pid, _ in forked:
            os.waitpid(pid, 0)
        await _finish(mirror)
    if not is_over:
        raise TargetError(
            "a process of the proxy has ended: what was written through it in its last moments may be missing on the other side; "
            "make that equal with `rdbkit sync`, and start the proxy again"
        )


def _child(settings: Settings, setting: Setting, port: int, reserved: socket.socket, parent: socket.socket) -> None:
    """One of the processes that have the connections."""
    reserved.close()

    async def made(to_parent: ToParent) -> WholeWorker:
        proxy = await _opened(settings, setting, to_parent, to_parent)
        await proxy.listen(settings.host, port, tls=settings.tls, reuse_port=True)
        return _Local(proxy, to_parent)

    _run(obey(parent, made))


async def _offered(stack: AsyncExitStack, settings: Settings, service: Service) -> None:
    """Begin to listen to what asks for the state and for metrics. Raises: TargetError; OSError."""
    if settings.control is not None:
        control = Control(settings.control, {"status": service.status, "switch": service.switch, "synced": service.synced})
        await control.start()
        stack.push_async_callback(control.close)
    if settings.metrics is not None:
        exporter = Exporter(service.text)
        await exporter.start(*settings.metrics)
        stack.push_async_callback(exporter.close)


def _at_signal(end: asyncio.Event) -> asyncio.Event:
    """Set when somebody says that this is the end."""
    with suppress(NotImplementedError):  # Windows: there it is KeyboardInterrupt
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, end.set)
    return end


async def _finish(mirror: Mirror) -> None:
    """Bring over what is marked. Raises: TargetError where that does not succeed."""
    if not await asyncio.to_thread(mirror.close, _END_S) and sys.exc_info()[0] is None:
        raise TargetError(
            f"{count(len(mirror.marks), 'key')} that were written are not on the other side; make it equal with `rdbkit sync`"
        )


@contextmanager
def _reserved(settings: Settings) -> Iterator[tuple[int, socket.socket]]:
    """A port that several processes can listen on, and nobody does yet. Raises: OSError."""
    family, kind, protocol, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(place)  # where another listens, this fails; it would not with SO_REUSEPORT
        place = alone.getsockname()
    with socket.socket(family, kind, protocol) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(place)
        yield int(place[1]), reserved
