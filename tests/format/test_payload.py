"""DUMP's payloads: what Redis answered, byte by byte, and what is not one."""

from __future__ import annotations

import pytest

from rdbkit.errors import ChecksumError, CorruptError
from rdbkit.format.listpack import encode_listpack
from rdbkit.format.payload import Payload, decode_payload, encode_payload, payload_pieces

#: As the pages of DUMP and RESTORE on redis.io have them: a string of Redis 5, and a list of Redis 2.6.
_LIST = b"\x17\x17\0\0\0\x12\0\0\0\x03\0\0\xc0\x01\0\x04\xc0\x02\0\x04\xc0\x03\0\xff"
ANSWERS = {
    b"\x00\xc0\n\t\x00\xbem\x06\x89Z(\x00\n": Payload(0, b"\xc0\n", 9),
    b"\n" + _LIST + b"\x04\x00u#<\xc0;.\xe9\xdd": Payload(10, _LIST, 4),
}


@pytest.mark.parametrize(("answer", "payload"), ANSWERS.items())
def test_what_servers_answer(answer: bytes, payload: Payload) -> None:
    assert decode_payload(answer) == payload
    assert encode_payload(payload) == answer


@pytest.mark.parametrize("at", range(13))
def test_a_changed_byte_is_found(at: int) -> None:
    answer = bytearray(next(iter(ANSWERS)))
    answer[at] ^= 1
    with pytest.raises(ChecksumError):
        decode_payload(bytes(answer))


@pytest.mark.parametrize("size", range(11))
def test_what_is_too_short_is_none(size: int) -> None:
    with pytest.raises(CorruptError, match=f"a payload of {size} bytes"):
        decode_payload(bytes(size))


def test_a_value_in_pieces_is_the_same() -> None:
    value = encode_listpack([b"a", b"1", b"b", b"2"])
    whole = encode_payload(Payload(16, value, 12))
    assert b"".join(payload_pieces(16, (value[at : at + 1] for at in range(len(value))), 12)) == whole
