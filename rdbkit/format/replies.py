"""Replies of a server in RESP, versions 2 and 3: where each ends, and what it says; compiled, since it runs once a reply.

Source: the protocol as redis.io describes it (redis/docs, content/develop/reference/protocol-spec.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rdbkit.errors import CorruptError

if TYPE_CHECKING:
    from mypy_extensions import i64

#: No reply is whole yet.
NOTHING: Final = object()
#: No line of a reply is longer, but that of an error.
_LONGEST_LINE: Final = 1 << 16
#: No reply is larger: twice what a server takes as one argument (proto-max-bulk-len).
_LARGEST: Final = 1 << 30
_DEEPEST: Final = 64


class Refusal(NamedTuple):
    """An error reply: the word it begins with ("ERR" where it has none), and the rest."""

    code: str
    text: str

    def __str__(self) -> str:
        return self.text if self.code == "ERR" else f"{self.code} {self.text}"


class Push(NamedTuple):
    """What a server sends without being asked (RESP3): its kind, as b"invalidate", and the rest."""

    kind: bytes
    content: list[Any]


class Replies:
    """Makes objects of replies that come in pieces, cut anywhere.

    Strings are bytes, numbers int (doubles stay their text), errors `Refusal`, arrays and sets lists, maps flat lists as RESP2
    has them, nothing None.

    >>> replies = Replies()
    >>> replies.feed(b"+OK\\r\\n*2\\r\\n:1\\r\\n$3\\r\\nab")
    >>> replies.take(), replies.take() is NOTHING
    (b'OK', True)
    >>> replies.feed(b"c\\r\\n")
    >>> replies.take()
    [1, b'abc']
    """

    def __init__(self) -> None:
        self.buf: bytes = b""
        self.pos: i64 = 0
        self.parts: list[bytes] = []  # what has come behind `buf`
        self.have: i64 = 0  # bytes from `pos` on, `parts` included
        self.need: i64 = 0  # so many of them before anything more can be told
        self.read: i64 = 0  # bytes of the reply at hand
        self.lists: list[list[Any]] = []  # that are not whole yet, the outermost first
        self.missing: list[int] = []  # how many elements of each
        self.kinds: list[int] = []  # the first byte of each

    def feed(self, data: bytes) -> None:
        """More bytes have come."""
        self.parts.append(data)
        self.have += len(data)

    def is_between(self) -> bool:
        """Whether no reply is half read."""
        return self.have == 0 and not self.lists

    def rest(self) -> bytes:
        """What has come and was not taken; it is no longer here. Between two replies alone."""
        data = self.buf[self.pos :] + b"".join(self.parts)
        self.buf = b""
        self.pos = self.have = self.need = 0
        self.parts = []
        return data

    def take(self) -> Any:
        """The next reply; NOTHING where it is not whole.

        Raises: CorruptError where this is no reply.
        """
        if self.have < self.need:
            return NOTHING
        if self.parts:
            self.buf = self.buf[self.pos :] + b"".join(self.parts) if self.pos < len(self.buf) else b"".join(self.parts)
            self.parts = []
            self.pos = 0
        while True:
            begin = self.pos
            value = self.element()
            self.have -= self.pos - begin
            if value is NOTHING:
                return NOTHING
            self.read = self.read + (self.pos - begin) if self.lists else 0
            if self.read > _LARGEST:
                raise too_large(self.read)
            if value is self:  # an array has begun
                continue
            while True:
                if not self.lists:
                    return value
                self.lists[-1].append(value)
                self.missing[-1] -= 1
                if self.missing[-1] > 0:
                    break
                value = self.whole()
                if value is NOTHING:
                    break

    def whole(self) -> Any:
        """The innermost list, which is complete; NOTHING for what belongs to the next reply."""
        found: Any = self.lists.pop()
        self.missing.pop()
        kind = self.kinds.pop()
        if kind == 0x3E:
            name = found[0]
            return Push(name if isinstance(name, bytes) else b"", found[1:])
        return NOTHING if kind == 0x7C else found

    def element(self) -> Any:
        """The next value, `self` where an array begins, NOTHING where it is not whole."""
        buf = self.buf
        at = self.pos
        end = buf.find(b"\r\n", at)
        if end < 0:
            self.need = self.have + 1
            if self.have > _LONGEST_LINE:
                raise CorruptError("not a Redis server: invalid reply (line too long)")
            return NOTHING
        kind: i64 = buf[at]
        line = buf[at + 1 : end]
        if kind == 0x24 or kind == 0x3D or kind == 0x21:  # $ = !
            size = self.number(line)
            if size > _LARGEST:
                raise too_large(size)
            if size < 0:
                self.pos = end + 2
                return None
            stop = end + 2 + size
            if stop + 2 > len(buf):
                self.need = stop + 2 - at
                return NOTHING
            if buf[stop : stop + 2] != b"\r\n":
                raise CorruptError("not a Redis server: invalid reply (string without an end)")
            self.pos = stop + 2
            self.need = 0
            text = buf[end + 2 : stop]
            if kind == 0x21:
                return refusal(text)
            return text[4:] if kind == 0x3D else text
        self.need = 0
        if kind == 0x2A or kind == 0x7E or kind == 0x3E or kind == 0x25 or kind == 0x7C:  # * ~ > % |
            n = self.number(line)
            self.pos = end + 2
            if n < 0:
                return None
            if kind == 0x25 or kind == 0x7C:
                n *= 2
            if n == 0:
                return [] if kind != 0x7C else self
            if len(self.lists) >= _DEEPEST:
                raise CorruptError("not a Redis server: invalid reply (arrays nested too deep)")
            self.lists.append([])
            self.missing.append(n)
            self.kinds.append(int(kind))
            return self
        self.pos = end + 2
        if kind == 0x2B or kind == 0x2C or kind == 0x28:  # + , (
            return line
        if kind == 0x3A:  # :
            return self.number(line)
        if kind == 0x2D:  # -
            return refusal(line)
        if kind == 0x5F:  # _
            return None
        if kind == 0x23:  # #
            return 1 if line == b"t" else 0
        raise CorruptError("not a Redis server: invalid reply")

    def number(self, line: bytes) -> int:
        try:
            return int(line)
        except ValueError:
            raise CorruptError("not a Redis server: invalid reply (not a number)") from None


def refusal(line: bytes) -> Refusal:
    """What an error reply says.

    >>> refusal(b"WRONGTYPE Operation against a key"), refusal(b"ERR no"), refusal(b"Command disallowed").code
    (Refusal(code='WRONGTYPE', text='Operation against a key'), Refusal(code='ERR', text='no'), 'ERR')
    """
    text = line.decode("utf-8", "replace")
    word, _, rest = text.partition(" ")
    if word.isupper() and word.isalpha():
        return Refusal(word, rest)
    return Refusal("ERR", text)


def too_large(size: i64) -> CorruptError:
    """The error for a reply that is not worth its memory."""
    return CorruptError(
        f"a reply of {int(size)} bytes or more is too large (at most {_LARGEST}); --big reads large values in parts"
    )


def line_end(buf: bytes, pos: i64) -> i64:
    """Where the line that begins at `pos` ends, its CR LF included; -1 where that has not come."""
    end: i64 = buf.find(b"\n", pos)
    return end + 1 if end >= 0 else -1


def read_number(buf: bytes, pos: i64, end: i64) -> i64:
    """The number whose text is `buf[pos:end]`.

    Raises: CorruptError where it is none.
    """
    negative = pos < end and buf[pos] == 0x2D
    if negative:
        pos += 1
    n: i64 = 0
    if pos >= end or end - pos > 19:
        raise CorruptError("not a Redis server: invalid reply (not a number)")
    while pos < end:
        digit: i64 = buf[pos] - 0x30
        if digit < 0 or digit > 9:
            raise CorruptError("not a Redis server: invalid reply (not a number)")
        n = n * 10 + digit
        pos += 1
    return -n if negative else n


def run_of_ok(buf: bytes, pos: i64, most: i64) -> i64:
    """How many replies `+OK` follow each other from `pos` on, up to `most`."""
    n: i64 = 0
    end: i64 = len(buf)
    while n < most and pos + 5 <= end:
        if buf[pos] != 0x2B or buf[pos + 1] != 0x4F or buf[pos + 2] != 0x4B or buf[pos + 3] != 13 or buf[pos + 4] != 10:
            break
        pos += 5
        n += 1
    return n


class Incoming:
    """Replies that come in pieces: what is whole is read, the rest waits for more."""

    def __init__(self) -> None:
        self.buf: bytes = b""
        self.parts: list[bytes] = []
        self.have: i64 = 0
        self.need: i64 = 0
        self.done: bool = False

    def feed(self, data: bytes) -> bool:
        """More bytes have come; returns whether all replies have.

        Raises: CorruptError where these are no replies.
        """
        self.parts.append(data)
        self.have += len(data)
        if self.have < self.need:
            return self.done
        if len(self.parts) > 1:
            self.buf = b"".join(self.parts)
        else:
            self.buf = self.parts[0]
        self.need = 0
        pos = self.read()
        if self.need > 0:
            self.need -= pos
        rest = self.buf[pos:] if pos < len(self.buf) else b""
        self.buf = b""
        self.parts = [rest] if rest else []
        self.have -= pos
        return self.done

    def read(self) -> i64:
        """Read what is whole of `buf`; returns where the rest begins. Sets `done` and, where more is known to come, `need`."""
        raise NotImplementedError

    def rest(self) -> bytes:
        """What came behind the last reply."""
        rest = b"".join(self.parts)
        self.parts = []
        self.have = 0
        return rest

    def reply_end(self, pos: i64) -> i64:
        """Where the reply at `pos` ends, one that is no array; -1 where it has not come."""
        buf = self.buf
        end: i64 = line_end(buf, pos)
        if end < 0:
            return -1
        kind: i64 = buf[pos]
        if kind == 0x24:
            size = read_number(buf, pos + 1, end - 2)
            if size >= 0:
                if size > _LARGEST:
                    raise too_large(size)
                end += size + 2
                if end > len(buf):
                    self.need = end
                    return -1
            return end
        if kind == 0x3A or kind == 0x2B or kind == 0x2D or kind == 0x5F:
            return end
        raise CorruptError("not a Redis server: invalid reply")
