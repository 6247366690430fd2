"""Numbers and strings as JSON text, once a row or element."""

from __future__ import annotations

from binascii import b2a_base64
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le

from rdbkit.format.compiled import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Indexed, since appending is one machine instruction for a byte out of bytes, and a call for any other number.
DIGITS: Final = b"0123456789"
#: Bytes that stand in a JSON string as they are.
SAFE: Final = bytes(i for i in range(0x20, 0x80) if i not in (0x22, 0x5C))
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
#: A byte of 1 eight times. Times another byte it is that one eight times: constants above 2^62 are objects to mypyc.
_ONES: Final = 0x0101010101010101
#: The highest bits of bytes, but for that of the last of eight, which makes a number negative.
_HIGHEST: Final = 0x0080808080808080


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


def write_text(out: BytesWriter, buf: bytes, start: i64, end: i64) -> bool:
    """Write `buf[start:end]` as `json_text` renders it; False where that is no JSON string."""
    if COMPILED:
        at: i64 = start
        stop: i64
        ones: i64 = _ONES
        mark = len(out)
        out.append(_QUOTE)
        while at < end:
            stop = end
            if end - at >= 8:
                # eight letters at a time: in each term a byte has its highest bit where it is no such letter, or follows one
                word: i64 = read_i64_le(buf, at)
                if word >= 0:
                    odd: i64 = word | (word - ones * 0x20) | ((word ^ ones * _QUOTE) - ones) | ((word ^ ones * _BACKSLASH) - ones)
                    if odd >= 0 and odd & _HIGHEST == 0:
                        write_i64_le(out, word)
                        at += 8
                        continue
                stop = at + 8
            while at < stop:
                byte = buf[at]
                if byte < 0x20 or byte >= 0x80:
                    out.truncate(mark)
                    text = json_text(buf[start:end])
                    out.write(text)
                    return text[0] == _QUOTE
                if byte in (_QUOTE, _BACKSLASH):
                    out.append(_BACKSLASH)
                out.append(byte)
                at += 1
        out.append(_QUOTE)
        return True
    data = buf[start:end]
    if data.translate(None, SAFE):
        text = json_text(data)
        out.write(text)
        return text[0] == _QUOTE
    out.write(b'"%b"' % data)
    return True


def are_plain(items: list[bytes]) -> bool:
    """Whether all stand in a JSON string as they are: nothing but the line breaks between them is left."""
    return len(b"\n".join(items).translate(None, SAFE)) == len(items) - 1


def pairs_body(names: list[bytes], values: list[bytes]) -> bytes:
    """The same as pairs of an array."""
    return b",".join([b"[%b,%b]" % (json_text(n), json_text(v)) for n, v in zip(names, values, strict=True)])
