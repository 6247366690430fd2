"""Words for people, shells and JSON: what a terminal may show, what a shell takes, numbers with their units."""

from __future__ import annotations

import re
import shlex
import time
from binascii import b2a_base64
from collections.abc import Iterable
from typing import Any, Final

#: Signatures and keys of a storage account, as they stand in URLs, connection strings and headers.
_SIGNATURE: Final = re.compile(
    r"(?i)(sig(?:=|%3D)|AccountKey=|SharedAccessSignature=|Signature=|Authorization:?\s*(?:SharedKey|Bearer)\s+)([^&;\s'\"<>]+)"
)
#: A login in a URL; of one without a colon, nobody knows whether it is a user or a password. A server's password is often not
#: escaped, so it may have any sign in it; elsewhere the login ends before the first slash, and what follows may have an "@".
_LOGIN: Final = re.compile(
    r"(?i)(rediss?://)(?:([^:@/\s]*:).*@|[^:@/\s]+@)|([a-z][a-z0-9+.-]*://)(?:([^:@/\s]*:)[^/\s]*@|[^:@/\s]+@)"
)
_LONGEST_LINE: Final = 300


def shell_word(text: str) -> str:
    """A word of a command of any POSIX shell, whatever is in it; what cannot be printed as escapes.

    >>> print(shell_word("a b"), shell_word("a\\nb"))
    'a b' "$(printf 'a\\012b')"
    """
    if text.isprintable():
        # zsh takes what begins with = for the name of a command
        return f"'{text}'" if text.startswith("=") and shlex.quote(text) == text else shlex.quote(text)
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


def as_bytes(text: str | bytes, argument: str) -> bytes:
    """A name or other text that is given as an argument: bytes as they are, a str in UTF-8.

    Surrogates, which Python has for bytes that are not UTF-8, become those bytes.

    Args:
        argument: what it is called.

    Raises: TypeError for what is neither; ValueError for a str that is no text.

    >>> as_bytes(chr(233), "key"), as_bytes(b"a", "key")
    (b'\\xc3\\xa9', b'a')
    """
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8", "surrogateescape")
    raise TypeError(f"{argument} is str or bytes, not {type(text).__name__}")


def json_object(pairs: Iterable[tuple[str, str]]) -> dict[str, Any] | list[list[Any]]:
    """Names and values with bytes as surrogate escapes, as JSON: an object; where a name is not UTF-8, pairs of name and value.

    >>> json_object([("a", "\\udcff")]), json_object([("\\udcff", "b")])
    ({'a': {'base64': '/w=='}}, [[{'base64': '/w=='}, 'b']])
    """
    both = [(json_bytes(as_bytes(name, "name")), json_bytes(as_bytes(value, "value"))) for name, value in pairs]
    if all(isinstance(name, str) for name, _ in both):
        return {str(name): value for name, value in both}
    return [[name, value] for name, value in both]


def printable(text: bytes | str, width: int = 0) -> str:
    """Text from a file, safe for a terminal: control and non-printing characters as escapes; cut to `width` where given.

    Bytes that are not UTF-8 are shown as `\\xff`, also where they are surrogate escapes of a text.

    >>> printable(b"a\\x1b[31m"), printable("\\udcff") == printable(b"\\xff")
    ('a\\\\x1b[31m', True)
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = text if text.isprintable() else "".join(ch if ch.isprintable() else _escaped(ch) for ch in text)
    return shown[: width - 3] + "..." if width and len(shown) > width else shown


def _escaped(ch: str) -> str:
    """A character that cannot be printed; a byte that is not UTF-8, which text has as a surrogate, as that byte."""
    return f"\\x{ord(ch) - 0xDC00:02x}" if "\udc80" <= ch <= "\udcff" else ascii(ch)[1:-1]


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


def when(ms: int, seconds: bool = False) -> str:
    """A time in Unix milliseconds as date and time (UTC), to the minute or to the second.

    >>> when(4_102_444_800_000), when(4_102_444_800_000, seconds=True)
    ('2100-01-01 00:00', '2100-01-01 00:00:00')
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M", time.gmtime(ms / 1000))
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "key"), count(2000, "hash")
    ('1 key', '2,000 hashes')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}{'es' if noun.endswith('sh') else 's'}"


def scrub(text: str) -> str:
    """The text without secrets: the signatures and keys of a storage account, and the logins of URLs.

    >>> scrub("https://a.blob.core.windows.net/c/b?sv=1&sig=abc%3D&se=2")
    'https://a.blob.core.windows.net/c/b?sv=1&sig=***&se=2'
    >>> scrub("cannot reach redis://app:s3cret@host:6379")
    'cannot reach redis://app:***@host:6379'
    """
    return _LOGIN.sub(r"\1\2\3\4***@", _SIGNATURE.sub(r"\1***", text))


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without secrets; the name of its class where it says nothing."""
    text = scrub(str(error)).strip()
    return text.splitlines()[0][:_LONGEST_LINE] if text else type(error).__name__
