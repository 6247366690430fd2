"""What an input is that is no snapshot, or what a transfer has made of one: shown by its bytes, with what to do next."""

from __future__ import annotations

import codecs
import re
from typing import Final

from rdbkit.text import count

#: Bytes from the beginning that are looked at.
HEAD_BYTES: Final = 4096
#: Bytes that are shown of what stands in front of a snapshot.
FRONT_BYTES: Final = 40
_SHOWN: Final = 100  # bytes of a text that are shown
_BOM: Final = codecs.BOM_UTF8
_REPLACED: Final = b"\xef\xbf\xbd"  # U+FFFD, which stands for bytes that are no UTF-8
#: A header with the first byte behind it, an opcode, which no text has.
_HEADER: Final = re.compile(rb"(?:REDIS[0-9]{4}|VALKEY[0-9]{3})(?=[\xf2-\xff])")
#: What is left of a header whose beginning is missing.
_CUT_HEADER: Final = re.compile(rb"(?:(EDIS|DIS|IS|S|)([0-9]{4})|(ALKEY|LKEY|KEY|EY|Y|)([0-9]{3}))(?=[\xf2-\xff])")
_WITHOUT_HEADER: Final = (b"\xfa\x09redis-ver", b"\xfa\x0avalkey-ver", b"\xfe\x00\xfb")
#: Line feeds of which each has got a carriage return, in a field that stands near the beginning of every file since Redis 3.2.
_MANGLED_FIELD: Final = re.compile(rb"\xfa\r\n(?:redis-bits|valkey-ver)")
_FEWEST_LINES: Final = 4
#: Commands, which may follow a snapshot, and whose lines end so.
_COMMAND: Final = re.compile(rb"\*[0-9]+\r\n\$[0-9]+\r\n")
_HEADER_BYTES: Final = 9
_ENOUGH: Final = 64  # bytes in which there is one above 127
#: What becomes of an opcode where bytes above 127 are replaced, or lose a bit.
_ASCII_OPCODES: Final = b"?" + bytes(range(0x72, 0x80))
_AGAIN: Final = "transfer it again in binary mode"
_CR_LF: Final = "it looks as if a transfer in text mode made CR LF of every line feed"
#: What is said of an input in which every line feed is CR LF now.
TEXT_MODE: Final = f"{_CR_LF}: {_AGAIN}, or undo it with `sed 's/\\r$//' FILE > NEW`"

#: What files of other kinds begin with.
_KINDS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: run `git lfs pull`"),
    (b"*", "an append-only file of commands, of which rdbkit fold makes a snapshot"),
    (b"#TS:", "an append-only file of commands, of which rdbkit fold makes a snapshot"),
    (b"file ", "the manifest of an append-only folder, of which rdbkit fold makes a snapshot"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a rar archive: unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: unpack it first"),
    (b"\x1f\x9d", "compressed with compress: unpack it first"),
    (b"\xff\x06\0\0sNaPpY", "compressed with snappy: unpack it first"),
    (b"\x5d\0\0", "compressed with lzma: unpack it first"),
    (b"Salted__", "encrypted with openssl: decrypt it first"),
    (b"age-encryption.org/", "encrypted with age: decrypt it first"),
    (b"-----BEGIN PGP MESSAGE", "encrypted with PGP: decrypt it first"),
    (b"SQLite format 3\0", "a database of SQLite"),
    (b"PAR1", "a Parquet file"),
    (b"\x7fELF", "a program"),
    (b"%PDF-", "a PDF document"),
    (b"UkVESVM", "in base64: decode it first, as `base64 -d` does"),
    (b"VkFMS0VZ", "in base64: decode it first, as `base64 -d` does"),
    (b"KLUv/", "in base64: decode it first, as `base64 -d` does"),
    (b"/Td6WFoA", "in base64: decode it first, as `base64 -d` does"),
    (b"QlpoO", "in base64: decode it first, as `base64 -d` does"),
    (b"H4sI", "in base64: decode it first, as `base64 -d` does"),
    (b"5245444953", "in hexadecimal: decode it first, as `xxd -r -p` does"),
    (b"56414c4b4559", "in hexadecimal: decode it first, as `xxd -r -p` does"),
    (b"00000000: ", "what xxd has printed: decode it first, as `xxd -r` does"),
)  # fmt: skip
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff", b"R\0E\0", b"\0R\0E", b"V\0A\0", b"\0V\0A")
_ERROR: Final = re.compile(rb"(?:\(error\) |-)?((?:ERR|NOAUTH|NOPERM|WRONGPASS|LOADING|MASTERDOWN|MISCONF|DENIED) [\x20-\x7e]*)")
_MARKUP: Final = re.compile(rb"<(?:!doctype|html|head|body|\?xml|error)", re.IGNORECASE)
_XML_CODE: Final = re.compile(rb"<code>([\w.-]+)</code>", re.IGNORECASE)
_JSON: Final = re.compile(rb'[\[{]\s*["\[{}\]]')
_JSON_CODE: Final = re.compile(rb'"(?:code|error)"\s*:\s*"([\w.-]+)"')
_EXPORTED: Final = re.compile(rb'\{"db":[0-9]+,"key":')


def describe(head: bytes) -> str:
    """What an input is whose first `HEAD_BYTES` bytes are no header of a snapshot, as an error says it; "" where that is not known.

    >>> describe(b"version https://git-lfs.github.com/spec/v1")
    'no RDB file: this is a pointer of Git LFS, not the file itself: run `git lfs pull`'
    >>> describe(b"0009\\xfa\\x09redis-ver")
    'no RDB file as it is: `REDIS` is missing in front of `0009`; put it there: (printf REDIS; cat FILE) > NEW'
    """
    text = head.removeprefix(_BOM).lstrip()
    return _what_a_tool_has_done(head) or _what_it_is(head, text)


def _what_a_tool_has_done(head: bytes) -> str:
    """Where it has been a snapshot."""
    if head.startswith(_UTF_16):
        how = "redis-cli writes the file itself where --rdb is given its name"
        return f"no RDB file: this is text in UTF-16, as PowerShell's > makes it of any output, which cannot be undone; {how}"
    if _REPLACED in head and _is_utf8(head):
        return f"no RDB file any more: {_converted(head)}"
    cut = _CUT_HEADER.match(head)
    if cut is not None:
        left = cut[0].decode()
        lost = "REDIS".removesuffix(cut[1].decode()) if cut[2] else "VALKEY".removesuffix(cut[3].decode())
        return f"no RDB file as it is: `{lost}` is missing in front of `{left}`; put it there: (printf {lost}; cat FILE) > NEW"
    if head.startswith(_WITHOUT_HEADER):
        return "no RDB file as it is: its header is missing, which is REDIS or VALKEY and a version; fetch the file again"
    found = _HEADER.search(head)
    if found is None or not found.start():
        return ""
    return describe_front(head[found.start() :], found.start(), head)


def describe_front(head: bytes, size: int, front: bytes) -> str:
    """What stands in front of a snapshot and is to be taken out; "" where no snapshot begins with `head`.

    Args:
        size: bytes of what stands in front of it.
        front: what they begin with, `FRONT_BYTES` at least or all of them.

    >>> describe_front(b"REDIS0009\\xfa", 1, b" ")
    "no RDB file as it is: 1 byte (b' ') in front of `REDIS0009`; take it out: tail -c +2 FILE > NEW"
    """
    found = _HEADER.match(head)
    if found is None:
        return ""
    what, them = f"{count(size, 'byte')} ({front[: min(size, FRONT_BYTES)]!r})", "it" if size == 1 else "them"
    if front[:size] == _BOM:
        what, them = "a byte order mark, as text tools put it there,", "it"
    return f"no RDB file as it is: {what} in front of `{found[0].decode()}`; take {them} out: tail -c +{size + 1} FILE > NEW"


def _what_it_is(head: bytes, text: bytes) -> str:
    """Where it has been something else from the beginning; `text` is without what may precede a text."""
    for start, kind in _KINDS:
        if text.startswith(start) or head.startswith(start):
            return f"no RDB file: this is {kind}"
    if head[257:262] == b"ustar":
        return "no RDB file: this is a tar archive: unpack it first"
    error = _ERROR.match(text)
    if error is not None:
        said = error[1][:_SHOWN].decode("ascii")
        return f"no RDB file: a server answered with an error, and that is all there is: {said}"
    if _MARKUP.match(text):
        code = _XML_CODE.search(text)
        if code is not None:
            return (
                f"no RDB file: this is the error that a service answered instead of the file: {code[1].decode('utf-8', 'replace')}"
            )
        return "no RDB file: this is a page of HTML or XML, which a service answered instead of the file: see what it says"
    if _EXPORTED.match(text):
        return "no RDB file: these are JSON lines; `rdbkit build` makes a snapshot of them"
    if _JSON.match(text):
        code = _JSON_CODE.search(text)
        if code is not None:
            return (
                f"no RDB file: this is the error that a service answered instead of the file: {code[1].decode('utf-8', 'replace')}"
            )
        return "no RDB file: this is JSON, as services answer it instead of a file: see what it says"
    return ""


def describe_damage(head: bytes, block: bytes) -> str:
    """What a transfer has done to a snapshot, where its bytes show that, otherwise "".

    Args:
        head: from the header on, up to `HEAD_BYTES`.
        block: where it could not be read on.
    """
    # Opcodes precede the first key, and none of them can be in UTF-8.
    first = head[_HEADER_BYTES : _HEADER_BYTES + 1]
    if first and _is_utf8(head) and (not head.isascii() or (first in _ASCII_OPCODES and len(head) >= _ENOUGH)):
        return _converted(head)
    command = _COMMAND.search(block)
    block = block[: command.start()] if command is not None else block
    is_of_lines = _has_no_bare_line_feed(head) and _has_no_bare_line_feed(block) and block.count(b"\n") >= _FEWEST_LINES
    if is_of_lines or _MANGLED_FIELD.search(head):
        return TEXT_MODE
    return ""


def _converted(head: bytes) -> str:
    """What a conversion to text has done to a snapshot that is UTF-8 now."""
    if _REPLACED in head:
        return f"bytes were replaced as by a conversion to UTF-8 text (EF BF BD), which cannot be undone: {_AGAIN}"
    if head.isascii():
        return f"it looks as if a conversion to text has changed all bytes above 127, which cannot be undone: {_AGAIN}"
    undo = "or undo it with `iconv -f UTF-8 -t ISO-8859-1 FILE > NEW`"
    return f"it looks as if its bytes were converted to UTF-8 text: {_AGAIN}, {undo}"


def _has_no_bare_line_feed(data: bytes) -> bool:
    return data.count(b"\n") == data.count(b"\r\n")


def _is_utf8(head: bytes) -> bool:
    """Whether it is UTF-8 as far as it goes: a character may be cut at its end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
