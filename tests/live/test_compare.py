"""Records compared with a server that is played here: what each answer means."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest

import rdbkit
from rdbkit.format.replies import Refusal
from rdbkit.live.compare import OUTCOMES, Comparer, Outcome, hashes_not_in
from rdbkit.live.server import Server
from rdbkit.passes.hashes import NameHashes, name_hash

from ..rdb import key, rdb, string

NOW = 1_700_000_000_000
WRONGTYPE = Refusal("WRONGTYPE", "Operation against a key holding the wrong kind of value")


class Played:
    """A server with these answers, one list for each round of questions."""

    features = frozenset({"PEXPIRETIME"})

    def __init__(self, *rounds: list[Any]) -> None:
        self.rounds = list(rounds)
        self.asked: list[bytes] = []

    def now_ms(self) -> int:
        return NOW

    def ask(self, db: int, requests: list[tuple[bytes, list[bytes]]]) -> list[list[Any]]:
        ((_, commands),) = requests
        self.asked += commands
        return [self.rounds.pop(0)]


@pytest.mark.parametrize(
    ("expire_ms", "rounds", "wanted"),
    [
        (None, [[-1, b"hello"]], Outcome("equal")),
        (NOW + 5000, [[NOW + 5900, b"hello"]], Outcome("equal")),
        (NOW + 5000, [[NOW + 6100, b"hello"]], Outcome("expire", None, NOW + 6100)),
        (NOW + 5000, [[-1, b"hello"]], Outcome("expire")),
        (None, [[-2, b""]], Outcome("missing")),
        (NOW + 900, [[-2, b""]], Outcome("expired")),
        (NOW + 1100, [[-2, b""]], Outcome("missing")),
        (None, [[Refusal("NOPERM", "no"), b""]], Outcome("refused", details=["NOPERM no"])),
        (None, [[-1, Refusal("NOPERM", "no")]], Outcome("refused", details=["NOPERM no"])),
        (None, [[-1, WRONGTYPE], [b"list"]], Outcome("type", "list")),
        (None, [[-1, b"help"], [4]], Outcome("value", None, None, ["byte 3 of 5 and 4: b'lo' and b'p'"])),
    ],
)
def test_what_became_of_a_key(expire_ms: int | None, rounds: list[list[Any]], wanted: Outcome) -> None:
    server = Played(*rounds)
    with rdbkit.open(io.BytesIO(rdb(key(b"k", 0, string(b"hello"), expire_ms)))) as snapshot:
        (found,) = Comparer(cast(Server, server), 1000).compare(0, list(snapshot))
    assert found == wanted
    assert found.what in OUTCOMES
    assert server.rounds == []
    assert b"PEXPIRETIME" in server.asked[0]


def test_hashes_that_are_new() -> None:
    ours, theirs = NameHashes(), NameHashes()
    for name in (b"a", b"b"):
        ours.add(0, name)
    for name in (b"b", b"c", b"c", b"d"):
        theirs.add(0, name)
    theirs.add(1, b"a")
    assert set(hashes_not_in(ours, theirs)) == {name_hash(0, b"c"), name_hash(0, b"d"), name_hash(1, b"a")}
    assert len(list(hashes_not_in(ours, theirs))) == 3
    ours.close()
    theirs.close()
