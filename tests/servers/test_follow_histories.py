"""Random histories of writers on both sides: what is promised holds, and would not without the order in which it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.server import Client
from rdbkit.live.follow import Follower
from rdbkit.live.mover import Mover

from ..live.oracle import content, differences
from .test_follow import follower_of, pair, url

NAMES = [f"k{i}" for i in range(4)]
NAME = st.sampled_from(NAMES)
VALUE = st.integers(0, 9)
#: What somebody does with the source; nothing of it depends on time.
CHANGE = st.one_of(
    st.tuples(st.just("SET"), NAME, VALUE),
    st.tuples(st.just("DEL"), NAME),
    st.tuples(st.just("APPEND"), NAME, VALUE),
    st.tuples(st.just("RPUSH"), NAME, VALUE),
    st.tuples(st.just("LPOP"), NAME),
    st.tuples(st.just("HSET"), NAME, VALUE, VALUE),
    st.tuples(st.just("SADD"), NAME, VALUE),
    st.tuples(st.just("SPOP"), NAME),
    st.tuples(st.just("RENAME"), NAME, NAME),
    st.tuples(st.just("PEXPIRE"), NAME, st.sampled_from([-1, 3_600_000])),
    st.tuples(st.just("PERSIST"), NAME),
    st.tuples(st.just("EVAL"), st.just("redis.call('SET', KEYS[1], 'lua'); redis.call('DEL', KEYS[2])"), st.just(2), NAME, NAME),
    st.tuples(st.just("FLUSHALL")),
)
#: What somebody else writes on the target.
FOREIGN = st.tuples(st.just("SET"), NAME, st.just("theirs"))
#: Steps: a change of the source, before or while the follower copies something, a write on the target, or work of the follower.
STEP = st.one_of(
    st.tuples(st.sampled_from(["source", "source", "during"]), CHANGE),
    st.tuples(st.just("target"), FOREIGN),
    st.tuples(st.just("follow"), st.none()),
)
HISTORY = st.lists(STEP, max_size=25)
FEW = settings(max_examples=60)


class InterruptedMover(Mover):
    """What is to be done on the source meanwhile is done when keys were read and written, and nothing was concluded from that."""

    meanwhile: ClassVar[list[Any]] = []
    client: ClassVar[Client]

    def move(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> dict[bytes, str]:
        fates = super().move(db, names, replace=replace)
        self.client.answers(self.meanwhile)
        self.meanwhile.clear()
        return fates


class MarksTakenLate(Follower):
    """Wrong: a mark is taken out when its key has been copied."""

    def step(self) -> bool:
        take = self.changes.take
        self.changes.take = lambda: {db: dict(names) for db, names in self.peek().items()}  # type: ignore[method-assign]
        worked = super().step()
        self.changes.take = take  # type: ignore[method-assign]
        if worked and not self.has_work_taken():
            self.changes.confirm()
            take()
        return worked

    def peek(self) -> dict[int, dict[bytes, float]]:
        found: dict[int, dict[bytes, float]] = {}
        for feed in self.changes._feeds.values():
            for db, names in feed._waiting.names.items():
                found.setdefault(db, {}).update(names)
        return found

    def has_work_taken(self) -> bool:
        return bool(self._taken.batches)


class KeepsWhatIsGone(Follower):
    """Wrong: a key that is gone on the source stays on the target."""

    def _remove(self, db: int, names: list[bytes], hashes: dict[bytes, int]) -> None:
        return


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Client, Client]]:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        yield a, b


def play(servers: tuple[Client, Client], history: Sequence[tuple[str, Any]], **options: Any) -> None:
    """Play a history in one thread: what the follower does between two steps is decided by the history alone."""
    a, b = servers
    a.call("FLUSHALL")
    b.call("FLUSHALL")
    InterruptedMover.client = a
    InterruptedMover.meanwhile.clear()
    theirs: set[str] = set()
    with follower_of(url(a), url(b), "redis-7.0", settle_s=0.0, make=InterruptedMover, **options) as follower:
        follower.begin()
        for side, command in history:
            if side == "follow":
                follower.changes.confirm()
                follower.step()
            elif side == "source":
                a.answers([command])
            elif side == "during":
                InterruptedMover.meanwhile.append(command)
            else:
                theirs.add(command[1])
                b.call(*command)
        a.answers(InterruptedMover.meanwhile)
        InterruptedMover.meanwhile.clear()
        while not follower.is_drained():
            follower.step()
    one, other = content(a), content(b)
    named = {(0, name.encode()) for name in theirs}
    kept = [{key: row for key, row in rows.items() if key not in named} for rows in (one, other)]
    said = differences(kept[0], kept[1], 1000)
    assert not said, "the two differ"
    assert all(key in other and other[key].value == "theirs" for key in named), "what others have written was touched"


@FEW
@given(history=HISTORY)
def test_at_the_end_both_are_equal_but_for_what_others_wrote(servers: tuple[Client, Client], history: list[Any]) -> None:
    play(servers, history)


SET: Any = [("source", ("SET", "k0", 1)), ("follow", None), ("follow", None)]
LATE: Any = [*SET, ("source", ("SET", "k0", 2)), ("during", ("SET", "k0", 3)), ("follow", None)]
GONE: Any = [*SET, ("source", ("DEL", "k0")), ("follow", None)]
WRITTEN: Any = [*SET, ("target", ("SET", "k0", "theirs")), ("source", ("SET", "k0", 2)), ("follow", None)]


@pytest.mark.parametrize(
    ("options", "history"),
    [({"kind": MarksTakenLate}, LATE), ({"kind": KeepsWhatIsGone}, GONE), ({"watches": False}, WRITTEN)],
    ids=["late", "keeps", "blind"],
)
def test_a_follower_that_does_it_otherwise_is_found_out(
    servers: tuple[Client, Client], options: dict[str, Any], history: list[Any]
) -> None:
    play(servers, history)
    with pytest.raises(AssertionError, match=r"the two differ|was touched"):
        play(servers, history, **options)
