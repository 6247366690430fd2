"""What DUMP answers and RESTORE takes: one value outside of a file, with its type in front and a checksum behind.

A type byte, the value as it stands in a file, the RDB version in two bytes, and CRC-64 over all that in eight; numbers begin with
their lowest byte. Source: createDumpPayload and verifyDumpPayload in src/cluster.c of Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple

import anycrc

from rdbkit.errors import ChecksumError, CorruptError

_CRC64: Final = anycrc.Model("CRC64-REDIS")
_FOOTER: Final = 10


class Payload(NamedTuple):
    """A value as DUMP gives it.

    Attributes:
        type_code: its type byte, which means what it does in a file of this version.
        value: its bytes, from behind the key in a file.
        version: the RDB version of the server that wrote it; one that knows it and `type_code` restores it.
    """

    type_code: int
    value: bytes
    version: int


def payload_pieces(type_code: int, chunks: Iterable[bytes], version: int) -> Iterator[bytes]:
    """The payload of a value that comes in pieces, in pieces."""
    crc = 0
    for piece in chain([bytes([type_code])], chunks, [version.to_bytes(2, "little")]):
        crc = _CRC64.calc(piece, crc)
        yield piece
    yield crc.to_bytes(8, "little")


def encode_payload(payload: Payload) -> bytes:
    r"""The bytes that RESTORE takes.

    >>> encode_payload(Payload(0, b"\xc0\n", 9))
    b'\x00\xc0\n\t\x00\xbem\x06\x89Z(\x00\n'
    """
    return b"".join(payload_pieces(payload.type_code, [payload.value], payload.version))


def decode_payload(data: bytes) -> Payload:
    r"""The payload that DUMP answered.

    Raises: CorruptError where it is too short to be one, ChecksumError where the checksum is not that of its content.

    >>> decode_payload(b"\x00\xc0\n\t\x00\xbem\x06\x89Z(\x00\n")
    Payload(type_code=0, value=b'\xc0\n', version=9)
    """
    end = len(data) - _FOOTER
    if end < 1:
        raise CorruptError(f"a payload of {len(data)} bytes, where the shortest has {_FOOTER + 1}")
    if _CRC64.calc(data[:-8]) != int.from_bytes(data[-8:], "little"):
        raise ChecksumError("the checksum of a payload is not that of its content")
    return Payload(data[0], data[1:end], int.from_bytes(data[end : end + 2], "little"))
