"""Random histories of two processes that write into two caches at once: these are equal at the end, and would not be otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from fixtures.server import Client, ServerError
from rdbkit.dual import Redis, Setting, State
from rdbkit.dual import engine as engine_module
from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.live.mover import Mover
from rdbkit.live.server import connect
from rdbkit.targets.keyspecs import TABLE

from ..live.oracle import content, differences
from ..live.writers import meanwhile, random_commands
from ..processes import until
from .test_follow import pair, the_same, url

NAME = st.sampled_from([f"k{i}" for i in range(4)])
VALUE = st.integers(0, 9)
#: What an application does; nothing of it depends on time.
CHANGE = st.one_of(
    st.tuples(st.just("SET"), NAME, VALUE),
    st.tuples(st.just("DEL"), NAME),
    st.tuples(st.just("INCR"), NAME),
    st.tuples(st.just("APPEND"), NAME, VALUE),
    st.tuples(st.just("RPUSH"), NAME, VALUE),
    st.tuples(st.just("LPOP"), NAME),
    st.tuples(st.just("HSET"), NAME, VALUE, VALUE),
    st.tuples(st.just("SADD"), NAME, VALUE),
    st.tuples(st.just("SPOP"), NAME),
    st.tuples(st.just("XADD"), NAME, st.just("*"), st.just("f"), VALUE),
    st.tuples(st.just("XGROUP"), st.just("CREATE"), NAME, st.just("g"), st.just("0"), st.just("MKSTREAM")),
    st.tuples(st.just("XREADGROUP"), st.just("GROUP"), st.just("g"), st.just("c"), st.just("STREAMS"), NAME, st.just(">")),
    st.tuples(st.just("RENAME"), NAME, NAME),
    st.tuples(st.just("PEXPIRE"), NAME, st.sampled_from([-1, 3_600_000])),
    st.tuples(st.just("PERSIST"), NAME),
    st.tuples(st.just("EVAL"), st.just("redis.call('SET', KEYS[1], 'lua'); redis.call('DEL', KEYS[2])"), st.just(2), NAME, NAME),
)
WHO = st.integers(0, 1)
#: Steps: a process writes; its engine works; it is interrupted between reading and writing by the other process, which writes, and
#: whose engine may then work; or a key is copied that may have been there before.
STEP = st.one_of(
    st.tuples(st.just("write"), WHO, CHANGE),
    st.tuples(st.sampled_from(["during", "overtaken"]), WHO, CHANGE),
    st.tuples(st.just("work"), WHO, st.none()),
    st.tuples(st.just("backfill"), WHO, NAME),
)
HISTORY = st.lists(STEP, max_size=25)
FEW = settings(max_examples=60)


class Interrupted(Engine):
    """Something is done by others between reading keys and writing them."""

    meanwhile: Callable[[], object] | None = None

    def _connected(self) -> Mover:
        mover = super()._connected()
        restoring = mover._restoring
        if "flush" not in vars(restoring):
            flush = restoring.flush

            def late() -> None:
                meanwhile, self.meanwhile = self.meanwhile, None
                if meanwhile is not None:
                    meanwhile()
                flush()

            restoring.flush = late  # type: ignore[method-assign]
        return mover


class NeverCompares(Interrupted):
    """Wrong: what was written is not looked at again."""

    def _compare_later(self, db: int, keys: object) -> None:
        return


class Process:
    """One that writes on the source and has an engine."""

    def __init__(self, a: Client, b: Client, kind: type[Interrupted]) -> None:
        self.client = a
        self.marks = Marks()
        self.engine = kind(lambda: connect(url(a)), lambda: connect(url(b)), self.marks, Metrics(), recheck=1_000_000_000)

    def write(self, change: Sequence[Any]) -> None:
        """Do as the clients do: keys are marked once there is an answer, unless that says that nothing was done."""
        arguments = [str(each).encode() for each in change]
        (answer,) = self.client.answers([arguments])
        keys, kind, _ = TABLE.written(arguments)
        if kind == "script" or not isinstance(answer, ServerError):
            self.marks.add_many(0, keys)

    def close(self) -> None:
        self.engine._disconnect()


class Replaying(Process):
    """Wrong: commands are sent to both sides."""

    def __init__(self, a: Client, b: Client) -> None:
        super().__init__(a, b, Interrupted)
        self.other = b

    def write(self, change: Sequence[Any]) -> None:
        self.client.answers([change])
        self.other.answers([change])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Client, Client]]:
    with pair("redis-7.0", "redis-7.0") as (a, b), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "_RECHECK_S", 0.0)
        yield a, b


@pytest.fixture(scope="module")
def processes(servers: tuple[Client, Client]) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Process(*servers, Interrupted))) for _ in range(2)]


def play(servers: tuple[Client, Client], processes: Sequence[Process], history: Sequence[tuple[str, int, Any]]) -> None:
    """Play a history in one thread: what happens between two steps is decided by the history alone."""
    a, b = servers
    a.call("FLUSHALL")
    finish(processes)
    b.call("FLUSHALL")
    for number in range(4):
        a.call("SET", f"k{number}", "before")  # was there before anything was marked
    for what, who, how in history:
        process, other = processes[who], processes[1 - who]
        if what == "write":
            process.write(how)
        elif what in ("during", "overtaken"):
            process.engine.meanwhile = _writes(other, how, works=what == "overtaken")
        elif what == "work":
            process.engine.step()
        else:
            backfill(process, [how])
    finish(processes)
    backfill(processes[0], [f"k{number}" for number in range(4)])
    assert not differences(content(a), content(b), 1000), "the two differ"


def _writes(process: Process, change: Any, works: bool) -> Callable[[], object]:
    def act() -> None:
        process.write(change)
        if works:
            process.engine.step()

    return act


def backfill(process: Process, names: Sequence[str]) -> None:
    """Copy keys that the other side does not have."""
    meanwhile, process.engine.meanwhile = process.engine.meanwhile, None
    process.engine._connected().move(0, [name.encode() for name in names], replace=False)
    process.engine.meanwhile = meanwhile


def finish(processes: Sequence[Process]) -> None:
    """Have the engines do all that there is to do."""
    worked = True
    while worked:
        worked = any([process.engine.step() for process in processes])  # noqa: C419  each works, whether or not another has
    for process in processes:
        process.engine.meanwhile = None  # nothing came that it could have interrupted


@FEW
@given(history=HISTORY)
def test_at_the_end_both_are_equal(servers: tuple[Client, Client], processes: list[Process], history: list[Any]) -> None:
    play(servers, processes, history)


#: A process reads a key, and writes what it has read when the other has written what is newer.
OVERTAKEN: Any = [
    ("write", 0, ("SET", "k0", 1)), ("overtaken", 0, ("SET", "k0", 2)), ("work", 0, None), ("work", 1, None)
]  # fmt: skip
#: A key that the other side does not have yet becomes a part of a key there.
PARTLY: Any = [("write", 0, ("APPEND", "k0", 1)), ("backfill", 0, "k0")]


@pytest.mark.parametrize(
    ("history", "make"),
    [(OVERTAKEN, lambda a, b: Process(a, b, NeverCompares)), (PARTLY, Replaying)],
    ids=["never-compares", "replays"],
)
def test_what_does_it_otherwise_is_found_out(
    servers: tuple[Client, Client], processes: list[Process], history: list[Any], make: Callable[[Client, Client], Process]
) -> None:
    play(servers, processes, history)
    with closing(make(*servers)) as one, closing(make(*servers)) as other, pytest.raises(AssertionError, match="the two differ"):
        play(servers, [one, other], history)


def test_threads_write_whatever_they_like_while_a_move_goes_on_and_back(servers: tuple[Client, Client], tmp_path: Path) -> None:
    a, b = servers
    a.call("FLUSHALL")
    b.call("FLUSHALL")
    setting = Setting(State.SHADOW)
    with (
        Redis.from_urls(url(a), url(b), state=lambda: setting, look_s=0.01, journal=tmp_path / "marks") as client,
        ExitStack() as stack,
    ):
        for seed in range(3):
            rng = random.Random(seed)
            stack.enter_context(meanwhile(lambda _, rng=rng: _send(client, random_commands(rng, 10))))  # type: ignore[misc]
        for state in (State.DIAL, State.NEW, State.DIAL, State.SHADOW, State.DIAL, State.NEW):
            setting = Setting(state, 50.0)
            until(lambda state=state: client.dual.setting.state is state)  # type: ignore[misc]
            written = client.dual.metrics.total("transfers")
            until(lambda written=written: client.dual.metrics.total("transfers") > written + 20)  # type: ignore[misc]
            toward = "old" if state is State.NEW else "new"
            assert {each.name.split(".")[0] for each in tmp_path.iterdir()} == {f"marks-to-{toward}"}
        stack.close()
        assert client.dual.drain(60)
        the_same(b, a, "redis-7.0")
        client.dual.close()
    assert a.integer("DBSIZE")
    assert list(tmp_path.iterdir()) == []


def _send(client: Redis, commands: list[Any]) -> None:
    """Send commands, those of a transaction as one; what servers refuse is refused."""
    queue = iter(commands)
    for each in queue:
        with suppress(ResponseError):
            if each[0] != "MULTI":
                client.execute_command(*each)
                continue
            with client.pipeline() as pipeline:
                for queued in takewhile(lambda command: command[0] != "EXEC", queue):
                    pipeline.execute_command(*queued)  # type: ignore[no-untyped-call]
                pipeline.execute()
