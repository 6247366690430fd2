"""What an input may be compressed with: how each format is known by its first bytes, and what unpacks it in bounded memory."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from rdbkit.errors import CorruptError, LimitError, RdbError

#: No decompressor takes more memory than this for what it may have to repeat: `xz -9` and `zstd --ultra -22` get along with it.
_WINDOW_LOG: Final = 27
_MEMORY: Final = 1 << _WINDOW_LOG
#: Bytes that a decompressor is given at a time, and at the end of what is there: if there is damage in them, what they unpack to
#: before it is lost with the error.
_STEP: Final = 1 << 12
_LAST_STEP: Final = 1 << 2
#: Bytes that the first bytes of a format are known by.
HEAD_BYTES: Final = 6


class Decompressor(Protocol):
    """One member (stream, frame) of compressed data, unpacked as it comes: what `bz2.BZ2Decompressor` and its like are."""

    @property
    def eof(self) -> bool:
        """Whether the member's end has been met."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out before something is put in."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was put in and stands behind the end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Put `data` in, and get up to `max_length` bytes out."""
        ...


class Compression(NamedTuple):
    """A format of compressed data.

    Attributes:
        name: as people know it.
        magics: what it begins with, one of them.
        begin: makes what unpacks a member. Raises: RdbError where a package is missing.
        error: what its decompressor raises for data that is damaged.
        suffix: of files.
    """

    name: str
    magics: tuple[bytes, ...]
    begin: Callable[[], Decompressor]
    error: Callable[[], type[Exception]]
    suffix: str

    def starts(self, rest: bytes) -> bool:
        """Whether an input of which `rest` is left, or the first `HEAD_BYTES` of it, goes on in this format, be it cut."""
        return rest.startswith(self.magics) or (len(rest) < HEAD_BYTES and any(magic.startswith(rest) for magic in self.magics))

    def explain(self, e: Exception) -> RdbError:
        """The error of the library for one of the decompressor's."""
        said = str(e).split(": ")[-1]
        if "emory" in said:  # "Memory usage limit exceeded", "Frame requires too much memory for decoding"
            most = _MEMORY >> 20
            return LimitError(f"to unpack the {self.name} data takes more than {most} MiB of memory; unpack it by other means")
        return CorruptError(f"the {self.name} data is damaged: {said[:1].lower()}{said[1:]}")


class _Gzip:
    """Gzip, whose decompressor in the standard library is of another kind, and can be copied: so nothing is lost before damage."""

    def __init__(self) -> None:
        self._unpacker = zlib.decompressobj(31)
        self._left = b""

    @property
    def eof(self) -> bool:
        """See `Decompressor`."""
        return self._unpacker.eof

    @property
    def needs_input(self) -> bool:
        """See `Decompressor`."""
        return not self._left and not self.eof

    @property
    def unused_data(self) -> bytes:
        """See `Decompressor`."""
        return self._left

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """See `Decompressor`."""
        data = self._left + data if self._left else data
        size = len(data)
        while True:
            before = self._unpacker.copy()
            try:
                piece = self._unpacker.decompress(data[:size], max_length)
            except zlib.error:
                # What was unpacked before the damage is lost with the error; less of the input may end before the damage.
                self._unpacker = before
                size //= 2
                if not size:
                    raise
                continue
            left = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
            self._left = left + data[size:]
            return piece


class _InSteps:
    """A decompressor of the standard library, given little at a time, so that little is lost before damage."""

    def __init__(self, decompressor: Decompressor) -> None:
        self._decompressor = decompressor
        self._left = b""

    @property
    def eof(self) -> bool:
        """See `Decompressor`."""
        return self._decompressor.eof

    @property
    def needs_input(self) -> bool:
        """See `Decompressor`."""
        return not self._left and self._decompressor.needs_input

    @property
    def unused_data(self) -> bytes:
        """See `Decompressor`."""
        return self._decompressor.unused_data + self._left

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """See `Decompressor`."""
        self._left += data
        while True:
            piece = b""
            if self._decompressor.needs_input:
                size = _STEP if len(self._left) >= _STEP else _LAST_STEP
                piece, self._left = self._left[:size], self._left[size:]
            unpacked = self._decompressor.decompress(piece, max_length)
            if unpacked or self.eof or not self._left:
                return unpacked


def _begin_bzip2() -> Decompressor:
    import bz2

    return _InSteps(bz2.BZ2Decompressor())


def _begin_xz() -> Decompressor:
    import lzma

    return _InSteps(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY + (1 << 20)))  # and what it takes besides


def _xz_error() -> type[Exception]:
    import lzma

    return lzma.LZMAError


def _begin_zstd() -> Decompressor:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        how = "pip install 'rdbkit[zstd]', or unpack it with zstd -d first"
        raise RdbError(f"it is compressed with zstd, which takes a package: {how}") from None
    return _InSteps(zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}))


def _zstd_error() -> type[Exception]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdError


#: Frames of zstd that have no data, as pzstd puts one in front.
_SKIPPABLE: Final = tuple(b"%c\x2a\x4d\x18" % n for n in range(0x50, 0x60))
#: With the size of its blocks, and the first byte of a block, or of the end of one that has none.
_BZIP2: Final = tuple(b"BZh%d%c" % (n, first) for n in range(1, 10) for first in b"\x31\x17")
_COMPRESSIONS: Final = (
    Compression("gzip", (b"\x1f\x8b",), _Gzip, lambda: zlib.error, ".gz"),
    Compression("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), _begin_zstd, _zstd_error, ".zst"),
    Compression("xz", (b"\xfd7zXZ\0",), _begin_xz, _xz_error, ".xz"),
    Compression("bzip2", _BZIP2, _begin_bzip2, lambda: OSError, ".bz2"),
)


def compression_of(head: bytes) -> Compression | None:
    """The format of what begins with `head`, None where it is none that is known.

    >>> print(compression_of(b"REDIS0009"), compression_of(b"\\x1f\\x8b\\x08").name)
    None gzip
    """
    return next((form for form in _COMPRESSIONS if head.startswith(form.magics)), None)


def without_suffix(name: str) -> str:
    """A file's name without what a compression adds to it.

    >>> without_suffix("dump.rdb.zst"), without_suffix("dump.rdb")
    ('dump.rdb', 'dump.rdb')
    """
    suffix = next((form.suffix for form in _COMPRESSIONS if name.endswith(form.suffix)), "")
    return name.removesuffix(suffix)
