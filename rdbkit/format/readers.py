"""The packed encodings that can be read. A new one is a module with its `PackedReader`, and a line here."""

from __future__ import annotations

from typing import Final

from rdbkit.format.constants import ValueType, check_rows
from rdbkit.format.intset import IntsetReader
from rdbkit.format.listpack import ListpackReader
from rdbkit.format.packed import PackedReader
from rdbkit.format.ziplist import ZiplistReader
from rdbkit.format.zipmap import ZipmapReader

#: By their numbers. Where nothing is packed, the first stands in, and is not asked.
READERS: Final[list[PackedReader]] = [ListpackReader(), ZiplistReader(), IntsetReader(), ZipmapReader()]
_NAMES: Final[list[str]] = [reader.name for reader in READERS]

check_rows("packed", {"", *_NAMES}, "no reader for packed encoding")
#: The number of the reader that other encodings use, too.
LISTPACK: Final = 0


def reader_number(value_type: ValueType) -> int:
    """Which of `READERS` reads the packed values of a type, or its nodes; 0 where none are packed."""
    return _NAMES.index(value_type.packed) if value_type.packed else 0
