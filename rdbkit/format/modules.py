"""Module values: a type's id, and what the module wrote as a row of framed values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.primitives import read_length, read_string, read_uint64, skip_length, skip_string
from rdbkit.model import module_name
from rdbkit.values import ModuleValue

if TYPE_CHECKING:
    from mypy_extensions import i64

_END: Final = 0
_SIGNED: Final = 1
_UNSIGNED: Final = 2
_FLOAT: Final = 3
_DOUBLE: Final = 4
_STRING: Final = 5
_LARGEST: Final = 1 << 48


def read_module(buf: bytes, pos: i64) -> tuple[ModuleValue, i64]:
    """`(value, end)` of the module value whose type's id stands at `pos`.

    Raises: CorruptError; IndexError where `buf` ends first.
    """
    number, pos = read_uint64(buf, pos)
    start: i64 = pos
    while True:
        opcode, pos = read_length(buf, pos)
        if opcode == _END:
            break
        if opcode <= _UNSIGNED:
            pos = skip_length(buf, pos)
        elif opcode == _FLOAT:
            pos += 4
        elif opcode == _DOUBLE:
            pos += 8
        elif opcode == _STRING:
            pos = skip_string(buf, pos)
        else:
            raise CorruptError(f"a module value has opcode {opcode}, where 0 to 5 is allowed", rule="module-opcode")
    if pos > len(buf):
        raise IndexError
    return ModuleValue(module_name(number), number & 1023, buf[start:pos]), pos


def module_values(raw: bytes) -> Iterator[int | float | bytes]:
    """What a module wrote, one value after the other.

    Args:
        raw: framed values up to and with their end mark, as `ModuleValue.raw` has them.

    Raises: CorruptError.

    >>> list(module_values(bytes([2, 3, 5, 2, 104, 105, 0])))
    [3, b'hi']
    """
    pos: i64 = 0
    try:
        while True:
            opcode, pos = read_length(raw, pos)
            if opcode == _END:
                return
            if opcode in (_SIGNED, _UNSIGNED):
                number, pos = read_uint64(raw, pos)
                yield number - (1 << 64) if opcode == _SIGNED and number >> 63 else number
            elif opcode == _FLOAT:
                yield struct.unpack_from("<f", raw, pos)[0]
                pos += 4
            elif opcode == _DOUBLE:
                yield struct.unpack_from("<d", raw, pos)[0]
                pos += 8
            elif opcode == _STRING:
                text, pos = read_string(raw, pos, _LARGEST)
                yield text
            else:
                raise CorruptError(f"a module value has opcode {opcode}, where 0 to 5 is allowed", rule="module-opcode")
    except (IndexError, struct.error):
        raise CorruptError("a module value ends too early", rule="module-opcode") from None
