"""Keys and values as text: the four ways in which rdbtools escapes bytes."""

from __future__ import annotations

import base64
import codecs
from typing import Final

#: Bytes as they are, as Latin-1 where text is wanted.
STRING_ESCAPE_RAW: Final = "raw"
#: What is no printable ASCII as `\xNN`.
STRING_ESCAPE_PRINT: Final = "print"
#: UTF-8, with what is none of it as `\xNN`.
STRING_ESCAPE_UTF8: Final = "utf8"
#: Base64.
STRING_ESCAPE_BASE64: Final = "base64"
ESCAPE_CHOICES: Final = [STRING_ESCAPE_RAW, STRING_ESCAPE_PRINT, STRING_ESCAPE_UTF8, STRING_ESCAPE_BASE64]

_HANDLER: Final = "rdbkit-hexadecimal"
#: What `str.translate` makes of Latin-1.
_PRINTED: Final = {code: f"\\x{code:02X}" for code in range(256) if not 0x20 <= code <= 0x7E}


def _hexadecimal(error: UnicodeError) -> tuple[str, int]:
    """What stands for bytes that are not UTF-8."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1").translate(_PRINTED), error.end


codecs.register_error(_HANDLER, _hexadecimal)


def bytes_to_unicode(byte_data: bytes | int | float, escape: str, skip_printable: bool = False) -> str:
    r"""A key or value as text.

    Args:
        byte_data: what a callback was given: bytes, or a number.
        escape: one of `ESCAPE_CHOICES`.
        skip_printable: leave numbers, and bytes that are all printable ASCII, as they are.

    Raises: ValueError for another `escape`; TypeError for what is neither bytes nor a number.

    >>> bytes_to_unicode(b"caf\xc3\xa9\xff", "utf8"), bytes_to_unicode(b"a\n", "print"), bytes_to_unicode(7, "base64")
    ('café\\xFF', 'a\\x0A', 'Nw==')
    """
    if isinstance(byte_data, bytes):
        if skip_printable and byte_data.isascii() and (text := byte_data.decode()).isprintable():
            return text
    elif isinstance(byte_data, int | float):
        text = str(byte_data)
        if skip_printable:
            return text
        byte_data = text.encode()
    else:
        raise TypeError(f"neither bytes nor a number: {byte_data!r}")
    if escape == STRING_ESCAPE_RAW:
        return byte_data.decode("latin-1")
    if escape == STRING_ESCAPE_PRINT:
        return byte_data.decode("latin-1").translate(_PRINTED)
    if escape == STRING_ESCAPE_UTF8:
        return byte_data.decode("utf-8", _HANDLER)
    if escape == STRING_ESCAPE_BASE64:
        return base64.b64encode(byte_data).decode()
    raise ValueError(f"no way to escape: {escape!r}; there are {', '.join(ESCAPE_CHOICES)}")


def apply_escape_bytes(byte_data: bytes | int | float, escape: str, skip_printable: bool = False) -> bytes:
    """The same as bytes: those of `bytes_to_unicode`, and with "raw" the bytes as they are.

    >>> apply_escape_bytes(b"a\\xff", "raw"), apply_escape_bytes(1.5, "print")
    (b'a\\xff', b'1.5')
    """
    if escape == STRING_ESCAPE_RAW and isinstance(byte_data, bytes):
        return byte_data
    return bytes_to_unicode(byte_data, escape, skip_printable).encode()
