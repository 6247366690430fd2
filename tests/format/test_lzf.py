"""LZF against a decompressor that copies byte by byte, by the letter of the format."""

from __future__ import annotations

import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.errors import CorruptError
from rdbkit.format import lzf
from rdbkit.format.lzf import lzf_compress, lzf_decompress

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


# -- packing


def unpack(packed: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """What LZF says, copied byte by byte as Redis' src/lzf_d.c does, and the length and distance of each copy."""
    out = bytearray()
    copies = []
    rest = iter(packed)
    for control in rest:
        if control < 32:
            out += bytes(next(rest) for _ in range(control + 1))
            continue
        size = control >> 5
        if size == 7:
            size += next(rest)
        distance = ((control & 31) << 8 | next(rest)) + 1
        assert distance <= len(out)
        copies.append((size + 2, distance))
        for _ in range(size + 2):
            out.append(out[-distance])
    return bytes(out), copies


def packed_both_ways(plain: bytes) -> list[bytes]:
    """By what is installed, and by rdbkit's own code."""
    ways = [lzf_compress(plain), lzf._pack(plain, len(plain) - 4)]
    for packed in ways:
        if packed:
            assert len(packed) <= len(plain) - 4
            assert unpack(packed)[0] == plain
            assert lzf_decompress(packed, len(plain)) == plain
    return ways


#: Pieces that repeat, near and far.
PIECES = st.lists(st.tuples(st.binary(min_size=1, max_size=12), st.integers(1, 300)), min_size=1, max_size=30)


@given(PIECES, st.lists(st.integers(0, 29), max_size=60))
def test_what_is_packed_unpacks_to_itself(pieces: list[tuple[bytes, int]], order: list[int]) -> None:
    packed_both_ways(b"".join(piece * times for piece, times in pieces))
    packed_both_ways(b"".join(pieces[i % len(pieces)][0] for i in order))


@given(st.binary(max_size=400))
def test_noise_packs_to_itself_or_to_nothing(noise: bytes) -> None:
    packed_both_ways(noise)
    packed_both_ways(noise.translate(bytes(i % 4 for i in range(256))))


@pytest.mark.parametrize("size", [*range(12), 31, 32, 33, 64, 65, 1000, 100_000])
def test_what_does_not_get_smaller_gives_nothing(size: int) -> None:
    assert packed_both_ways(Random(size).randbytes(size)) == [b"", b""]


def test_four_bytes_must_be_saved() -> None:
    assert [lzf._pack(b"a" * n, n - 4) for n in (6, 7)] == [b"", b""]
    assert [lzf._pack(b"a" * n, n - 4) for n in (8, 9)] == [b"\0a\xa0\0", b"\0a\xc0\0"]
    assert lzf._pack(b"a" * 10, 6) == b"\0a\xe0\0\0"


@pytest.mark.parametrize("size", [264, 265, 266, 267, 268, 529, 530, 1000, 10_000, 1 << 20])
def test_runs_are_copies_of_up_to_264_bytes(size: int) -> None:
    for packed in packed_both_ways(b"a" * size):
        # the C code does without the last bytes
        longest = max(length for length, _ in unpack(packed)[1])
        assert min(264, size - 5) <= longest <= min(264, size - 1)
        assert len(packed) < 16 + size // 80
    assert unpack(lzf._pack(b"a" * size, size))[1][0] == (min(264, size - 1), 1)


@pytest.mark.parametrize("distance", [1, 2, 255, 256, 257, 8190, 8191, 8192, 8193, 9000])
def test_copies_reach_back_up_to_8192_bytes(distance: int) -> None:
    """What stands between the two is noise in which no three bytes repeat."""
    rng = Random(1)
    again = b"0123456789abcdefghijklmnopqrstuvwxyz"[: max(3, min(distance, 36))]
    noise = bytes(rng.randrange(128, 256) for _ in range(distance - len(again)))
    if distance < 3:
        again, noise = b"xy"[:distance] * 20, b""
    packed = lzf._pack(again + noise + again, 1 << 20)
    plain, copies = unpack(packed)
    assert plain == again + noise + again
    assert all(1 <= far <= 8192 for _, far in copies)
    assert any(far == distance for _, far in copies) == (distance <= 8192)


def test_noise_does_not_hide_what_repeats_behind_it() -> None:
    """The growing steps over what does not repeat are taken back."""
    text = b"".join(b"%d bottles of beer on the wall, " % n for n in range(99, 0, -1))
    alone = len(lzf._pack(text, 1 << 20))
    noise = Random(1).randbytes(20_000)
    assert len(lzf._pack(noise + text, 1 << 20)) < len(noise) * 33 / 32 + alone + 200
