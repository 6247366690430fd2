"""A selection asked for every record of a file; compiled, since it is.

What a block tells of a record is tested where it stands. Only a glob, a regular expression, a slot or a sample needs the key as
an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rdbkit.format.constants import ValueType
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import KINDS, NO_EXPIRY, STRING_INT
from rdbkit.selection import Part, Selection

if TYPE_CHECKING:
    from mypy_extensions import i64

_FAR: Final = 1 << 62


class Clause:
    """One of a selection's parts."""

    def __init__(self, part: Part, types: dict[int, ValueType]) -> None:
        mask = bytearray(KINDS)
        for kind in range(KINDS):
            t = types.get(0 if kind >= STRING_INT else kind)
            mask[kind] = t is not None and (part.types is None or t.type in part.types)
        self.kinds: bytes = bytes(mask)
        self.dbs: Any = part.dbs
        self.db_wanted: bool = True
        low, high = part.size
        self.low: i64 = 0 if low is None else min(low, _FAR)
        self.high: i64 = _FAR if high is None else min(high, _FAR)
        self.first_ms: i64 = max(-_FAR, min(part.first_ms, _FAR))
        self.last_ms: i64 = max(-_FAR, min(part.last_ms, _FAR))
        self.never: bool = part.never_expiring
        self.beginnings: list[list[bytes]] = [list(group) for group in part.beginnings]
        self.not_beginnings: list[bytes] = list(part.not_beginnings)
        self.rest: Any = part.wants_rest_of_key

    def wants_key(self, buf: bytes, start: i64, end: i64) -> bool:
        for group in self.beginnings:
            if not begins(buf, start, end, group):
                return False
        if self.not_beginnings and begins(buf, start, end, self.not_beginnings):
            return False
        if self.rest is None:
            return True
        wanted: bool = self.rest(buf[start:end])
        return wanted


def begins(buf: bytes, start: i64, end: i64, beginnings: list[bytes]) -> bool:
    """Whether `buf[start:end]` begins with one of these."""
    for beginning in beginnings:
        size: i64 = len(beginning)
        if size == 0 or (end - start >= size and buf[start] == beginning[0] and buf[start : start + size] == beginning):
            return True
    return False


class Filter:
    """A selection for the records of one snapshot.

    Args:
        types: of the snapshot.
        limit: most bytes of a key's name.
    """

    def __init__(self, selection: Selection, types: dict[int, ValueType], limit: int) -> None:
        self.meshes: list[Clause] = [Clause(part, types) for part in selection.parts()]
        self.limit: i64 = limit

    def database(self, db: int) -> None:
        """The records that follow are in this database."""
        for mesh in self.meshes:
            mesh.db_wanted = not mesh.dbs or any(db in numbers for numbers in mesh.dbs)

    def wants(self, buf: bytes, key_at: i64, kind: i64, size: i64, expire_ms: i64) -> bool:
        """Whether a record is wanted, as `Selection.wants`; its key's name stands in `buf` at `key_at`."""
        start: i64 = -1
        end: i64 = 0
        name = buf
        for mesh in self.meshes:
            if not mesh.kinds[kind] or not mesh.db_wanted or size < mesh.low or size > mesh.high:
                return False
            if expire_ms == NO_EXPIRY:
                if not mesh.never:
                    return False
            elif expire_ms < mesh.first_ms or expire_ms > mesh.last_ms:
                return False
            if mesh.beginnings or mesh.not_beginnings or mesh.rest is not None:
                if start < 0:
                    if buf[key_at] < 0x40:
                        start = key_at + 1
                        end = start + buf[key_at]
                    else:
                        name, _ = read_string(buf, key_at, self.limit)
                        start = 0
                        end = len(name)
                if not mesh.wants_key(name, start, end):
                    return False
        return True
