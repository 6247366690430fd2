"""Numbers and strings as JSON text, once a row or element."""

from __future__ import annotations

from binascii import b2a_base64
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.format.compiled import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Indexed, since appending is one machine instruction for a byte out of bytes, and a call for any other number.
DIGITS: Final = b"0123456789"


def json_text(data: bytes) -> bytes:
    """A JSON string where `data` is UTF-8, otherwise an object that has it as base64.

    >>> json_text(b'say "hi"'), json_text(b"\\xff")
    (b'"say \\\\"hi\\\\""', b'{"base64":"/w=="}')
    """
    try:
        return encode_basestring(data.decode()).encode()
    except UnicodeDecodeError:
        return b'{"base64":"' + b2a_base64(data, newline=False) + b'"}'


def number_text(value: int | float) -> bytes:
    """A number in as few letters as tell it exactly.

    >>> number_text(3.0), number_text(0.1), number_text(float("-inf")), number_text(7)
    (b'3', b'0.1', b'-inf', b'7')
    """
    text = repr(value)
    return (text[:-2] if text.endswith(".0") else text).encode()


def write_number(out: BytesWriter, n: i64) -> None:
    """The decimal text of `n`, its digits by hand: formatting would make two objects."""
    if not COMPILED or n < 0:
        out.write(b"%d" % n)
        return
    if n >= 1000:
        write_number(out, n // 1000)
        n = n % 1000
        out.append(DIGITS[n // 100])
        out.append(DIGITS[n // 10 % 10])
    elif n >= 100:
        out.append(DIGITS[n // 100])
        out.append(DIGITS[n // 10 % 10])
    elif n >= 10:
        out.append(DIGITS[n // 10])
    out.append(DIGITS[n % 10])
