"""Whether a compressed string unpacks, in memory that does not depend on its size; `lzf.py` describes the format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdbkit.format.lzf import damaged_lzf
from rdbkit.format.primitives import read_length

if TYPE_CHECKING:
    from mypy_extensions import i64


class LzfChecker:
    """Tells whether a compressed string unpacks, without unpacking it; goes on where its input ends, as `Decoder` does.

    Attributes:
        done: its end has been reached.
        need: always 0, for what feeds a decoder.
    """

    def __init__(self) -> None:
        self.done: bool = False
        self.need: i64 = 0
        self.paused: bool = False  # never, which decoders that hold what they read may be
        self.left: i64 = -1  # bytes of instructions; -1 where the head has not been read
        self.size: i64 = 0
        self.written: i64 = 0

    def begin(self) -> None:
        """Make ready for a string, which begins with 0xC3."""
        self.done = False
        self.left = -1
        self.written = 0

    def feed(self, buf: bytes, pos: i64, sink: object) -> i64:
        """Check what lies whole in `buf` from `pos` on; return where the first instruction begins that does not.

        Raises: CorruptError.
        """
        size: i64
        step: i64
        try:
            if self.left < 0:
                packed, at = read_length(buf, pos + 1)
                self.size, pos = read_length(buf, at)
                self.left = packed
            end: i64 = len(buf)
            while self.left > 0:
                control: i64 = buf[pos]
                if control < 32:
                    size = control + 1
                    step = size + 1
                    if step > self.left:
                        raise damaged_lzf(self.size)
                    if pos + step > end:
                        break
                else:
                    size = (control >> 5) + 2
                    step = 2
                    if size == 9:
                        size += buf[pos + 1]
                        step = 3
                    if ((control & 31) << 8 | buf[pos + step - 1]) + 1 > self.written:
                        raise damaged_lzf(self.size)
                self.written += size
                self.left -= step
                pos += step
                if self.left < 0:
                    raise damaged_lzf(self.size)
        except IndexError:
            return pos
        if self.left == 0:
            if self.written != self.size:
                raise damaged_lzf(self.size)
            self.done = True
        return pos
