"""LZF against a decompressor that copies byte by byte, by the letter of the format."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.errors import CorruptError
from rdbkit.format import lzf
from rdbkit.format.lzf import lzf_decompress

Instruction = tuple[bytes, int, int]


def pack(instructions: list[Instruction]) -> tuple[bytes, bytes]:
    """The LZF of instructions (literal, copy length, distance), and what they unpack to."""
    packed, plain = bytearray(), bytearray()
    for literal, size, distance in instructions:
        packed += bytes([len(literal) - 1]) + literal
        plain += literal
        if size:
            distance = min(distance, len(plain))
            high, low = divmod(distance - 1, 256)
            size -= 2
            packed += bytes([size << 5 | high, low]) if size < 7 else bytes([7 << 5 | high, size - 7, low])
            for _ in range(size + 2):
                plain.append(plain[-distance])
    return bytes(packed), bytes(plain)


INSTRUCTIONS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=32), st.sampled_from([0, 3, 8, 9, 264]), st.integers(1, 8192)), min_size=1, max_size=40
)


@pytest.fixture(params=["own", "extra"])
def decompressor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Without the extra both are the same; where it is installed, the C function is tried first."""
    if request.param == "own" and not lzf.__file__.endswith(".so"):
        monkeypatch.setattr(lzf, "_NATIVE", None)
    return str(request.param)


@given(INSTRUCTIONS)
def test_instructions_unpack_to_what_they_say(instructions: list[Instruction]) -> None:
    packed, plain = pack(instructions)
    assert lzf_decompress(packed, len(plain)) == plain


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (b"\x04abc", 5),
        (b"\x00a\x20", 4),
        (b"\x00a\xe0\x00", 10),
        (b"\x00a\x20\x01", 4),
        (b"\x20\x00", 3),
        (b"\x02abc", 2),
        (b"\x02abc", 4),
        (b"", 1),
        (b"\x00a\xe0\xff\x00" * 4, 20),
    ],
)
def test_damaged_data_is_an_error(packed: bytes, size: int, decompressor: str) -> None:
    with pytest.raises(CorruptError):
        lzf_decompress(packed, size)


@given(st.binary(max_size=300), st.integers(0, 5000))
def test_noise_gives_the_size_or_an_error(noise: bytes, size: int) -> None:
    with contextlib.suppress(CorruptError):
        assert len(lzf_decompress(noise, size)) == size
