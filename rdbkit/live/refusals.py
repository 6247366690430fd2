"""Keys that a target did not take: those that it has already, with the same value or with another, and those that it refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from rdbkit.errors import RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import Collector, Record
from rdbkit.format.replies import line_end, read_number
from rdbkit.format.scan import Scanner
from rdbkit.live.compare import Comparer, Outcome
from rdbkit.live.converter import header_of
from rdbkit.live.restoring import Refused
from rdbkit.live.server import Server
from rdbkit.passes.compare_dumps import OTHER_TYPE, OTHER_VALUE, SAME, UNDECIDED, Comparison
from rdbkit.resp import bulk, command
from rdbkit.snapshot.reader import usual_limits

__all__ = ["Existing", "Written", "difference_of", "record_of", "replaces", "written"]

_FOOTER: Final = 10
_AT_A_TIME: Final = 100
#: Bytes of payloads that are asked for at a time, about.
_MOST_BYTES: Final = 4 << 20
_WORDS: Final = {
    "type": "the target has another type there", "value": "the target has another value there",
    "expire": "the target has another expiry there", "not-compared": "the target has a value there that cannot be compared",
    "missing": "it was there and is gone now", "expired": "it was there and has expired",
}  # fmt: skip
#: Of so many keys that differ it is looked up which of their elements do; more are not read by anybody.
_MOST_EXPLAINED: Final = 1000
_DECIDED: Final = {OTHER_TYPE: "type", OTHER_VALUE: "value"}


class Written(NamedTuple):
    """What a RESTORE command writes: an expiry in Unix milliseconds, 0 for none, and the payload."""

    expire_ms: int
    payload: bytes


class Existing:
    """Compares what is on a target with what RESTORE commands would have written there.

    Args:
        target: the server.
        tolerance_ms: so much may expiries be apart.
    """

    def __init__(self, target: Server, tolerance_ms: int = 1000) -> None:
        self._target = target
        self._tolerance_ms = tolerance_ms
        self._comparer = Comparer(target, tolerance_ms)
        self._explained = 0
        self._values = Comparison(usual_limits().string_bytes)

    def differences(self, refused: Sequence[Refused]) -> list[str]:
        """For each key that was refused since it exists: what differs, in words; empty where nothing does.

        Raises: TargetError where the target cannot be reached for some time.
        """
        found = [""] * len(refused)
        for some in _batches(refused):
            self._differences([(i, refused[i]) for i in some], found)
        return found

    def _differences(self, some: list[tuple[int, Refused]], found: list[str]) -> None:
        by_db: dict[int, list[tuple[int, Refused, Written]]] = defaultdict(list)
        for i, each in some:
            by_db[each.db].append((i, each, written(each.command)))
        for db, keys in by_db.items():
            # most that are the same show it in what DUMP answers; of the others each element is asked for
            asked = [(each.key, [command(b"DUMP", each.key), command(b"PTTL", each.key)]) for _, each, _ in keys]
            now_ms = self._target.now_ms()
            rest = []
            for (i, each, wanted), (dump, left) in zip(keys, self._target.ask(db, asked), strict=True):
                verdict = self._verdict(wanted.payload, dump) if isinstance(dump, bytes) else UNDECIDED
                if verdict == SAME and isinstance(left, int) and self._is_near(wanted.expire_ms, left, now_ms):
                    continue
                if verdict in _DECIDED and self._explained >= _MOST_EXPLAINED:
                    found[i] = _WORDS[_DECIDED[verdict]]
                    continue
                self._explained += 1
                rest.append((i, each, wanted))
            if rest:
                self._compare(db, rest, found)

    def _verdict(self, payload: bytes, other: bytes) -> int:
        """Whether two payloads have one value, by their bytes or by a form that does not depend on the encoding."""
        values = self._values
        if len(payload) == len(other) and values.same_value(payload, 0, len(payload), other, 0):
            return SAME
        return int(values.compare_values(payload, other))

    def _is_near(self, expire_ms: int, left: int, now_ms: int) -> bool:
        if expire_ms == 0 or left < 0:
            return expire_ms == 0 and left == -1
        return abs(now_ms + left - expire_ms) < self._tolerance_ms

    def _compare(self, db: int, keys: list[tuple[int, Refused, Written]], found: list[str]) -> None:
        """By their elements: a set or a hash has no order, and servers have several encodings for a value."""
        try:
            records = [record_of(each.key, wanted) for _, each, wanted in keys]
        except RdbError as e:  # which the source has, and the target might not have taken
            records, outcomes = [], [Outcome("not-compared", details=[str(e)])] * len(keys)
        if records:
            outcomes = self._comparer.compare(db, records)
        for (i, _, _), outcome in zip(keys, outcomes, strict=True):
            found[i] = difference_of(outcome)


def difference_of(outcome: Outcome) -> str:
    """What differs, in words; empty where nothing does."""
    if outcome.what == "equal":
        return ""
    detail = f": {outcome.details[0]}" if outcome.details else ""
    return f"{_WORDS.get(outcome.what, 'the target does not show what it has there')}{detail}"


def written(data: bytes) -> Written:
    r"""What a RESTORE command writes.

    >>> from rdbkit.resp import bulk, command
    >>> written(command(b"RESTORE", b"key", b"0", b"payload", b"ABSTTL"))
    Written(expire_ms=0, payload=b'payload')
    """
    arguments: list[bytes] = []
    pos = line_end(data, 0)
    while len(arguments) < 4:
        at = line_end(data, pos)
        end = at + read_number(data, pos + 1, at - 2)
        arguments.append(data[at:end])
        pos = end + 2
    return Written(int(arguments[2]), arguments[3])


def replaces(data: bytes) -> bool:
    """Whether a RESTORE command replaces a key that exists."""
    return data.endswith(bulk(b"REPLACE"))


def record_of(key: bytes, wanted: Written) -> Record:
    """What RESTORE writes, as a record. Raises: RdbError where it is damaged."""
    payload = wanted.payload
    limits = usual_limits()
    budget = Budget(limits.held_bytes)
    header = header_of(int.from_bytes(payload[-_FOOTER : 2 - _FOOTER], "little"))
    collector = Collector(FileTypes(*header, limits.string_bytes, "the source", budget), False)
    expiry = bytes([c.EXPIRETIME_MS]) + wanted.expire_ms.to_bytes(8, "little", signed=True) if wanted.expire_ms else b""
    name = b"\x80" + len(key).to_bytes(4, "big") + key
    block = expiry + payload[:1] + name + payload[1:-_FOOTER]
    Scanner(*header, limits.item_bytes, budget).scan(block, 0, len(block), collector)
    (found,) = collector.take()
    assert isinstance(found, Record)
    return found


def _batches(refused: Sequence[Refused]) -> list[range]:
    """Stretches of keys to be asked for together."""
    found = []
    begin = size = 0
    for i, each in enumerate(refused):
        if i > begin and (i - begin >= _AT_A_TIME or size + len(each.command) > _MOST_BYTES):
            found.append(range(begin, i))
            begin, size = i, 0
        size += len(each.command)
    if begin < len(refused):
        found.append(range(begin, len(refused)))
    return found
