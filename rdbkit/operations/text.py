"""Numbers and names as text, for all that writes it; compiled, since much of it runs once a row or element."""

from __future__ import annotations

import shlex
import time
from binascii import b2a_base64
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.format.form import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Indexed, since appending is one machine instruction for a byte out of bytes, and a call for any other number.
DIGITS: Final = b"0123456789"


def shell_word(text: str) -> str:
    """A word of a command of any POSIX shell, whatever is in it; what cannot be printed as escapes.

    >>> print(shell_word("a b"), shell_word("a\\nb"))
    'a b' "$(printf 'a\\012b')"
    """
    if text.isprintable():
        return shlex.quote(text)
    # $'...' would be shorter, but older shells (dash 0.5.12, which is sh in Debian) do not know it
    body = text.rstrip("\n")
    plain = b"".join(
        b"%c" % byte if 0x20 <= byte < 0x7F and byte not in b"\\'\"%$`!" else b"\\%03o" % byte
        for byte in body.encode("utf-8", "surrogateescape")
    )
    if plain.startswith(b"-"):
        plain = b"\\055" + plain[1:]
    word = f"\"$(printf '{plain.decode()}')\"" if body else ""
    # a substitution drops line ends at its end
    return word if body == text else f"{word}'{text[len(body) :]}'"


def path_word(path: str) -> str:
    """A path as a word of a command, which no program takes for an option, nor for standard input or output."""
    return shell_word(f"./{path}" if path.startswith("-") else path)


def json_text(data: bytes) -> bytes:
    """A JSON string where `data` is UTF-8, otherwise an object that has it as base64.

    >>> json_text(b'say "hi"'), json_text(b"\\xff")
    (b'"say \\\\"hi\\\\""', b'{"base64":"/w=="}')
    """
    try:
        return encode_basestring(data.decode()).encode()
    except UnicodeDecodeError:
        return b'{"base64":"' + b2a_base64(data, newline=False) + b'"}'


def valid_text(text: str) -> str:
    """Text that can be UTF-8: a name of a file whose bytes are none, which Python has as surrogates, gets backslash escapes.

    >>> valid_text("caf\\udce9.rdb")
    'caf\\\\xe9.rdb'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def json_bytes(value: bytes) -> str | dict[str, str]:
    """UTF-8 as text, anything else as `{"base64": "..."}`."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b2a_base64(value, newline=False).decode()}


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


def printable(text: bytes | str, width: int = 0) -> str:
    """Text from a file, safe for a terminal: control and non-printing characters as escapes; cut to `width` where given.

    >>> printable(b"a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in text)
    return shown[: width - 3] + "..." if width and len(shown) > width else shown


def size(n: int) -> str:
    """Bytes for humans.

    >>> size(999), size(1536), size(5 * 2**30)
    ('999 B', '1.5 KB', '5.0 GB')
    """
    value, units = float(n), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{n} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def when(ms: int) -> str:
    """A time in Unix milliseconds as date and time (UTC).

    >>> when(4_102_444_800_000)
    '2100-01-01 00:00'
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
