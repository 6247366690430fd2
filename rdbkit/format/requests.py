"""Requests in the bytes that a client sends: where each ends, what it is called, and the arguments of those that are wanted.

Source: the protocol as redis.io describes it (redis/docs, content/develop/reference/protocol-spec.md), and what servers take
besides: lines of words (processInlineBuffer and sdssplitargs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

#: What a name means to whoever reads the requests. It changes no key: it is counted.
PASSED: Final = 0
#: It writes the key behind its name, and no other: it is counted, and the key noted.
ONE_KEY: Final = 1
#: Its arguments are wanted. So are those of names that are not known.
WANTED: Final = 2

#: Stands for an argument that is too large to be kept.
LEFT_OUT: Final = b"(left out)"
#: No argument that is kept is larger; no request that is not whole is held back if it is larger.
LARGEST_KEPT: Final = 1 << 16
#: Bytes of one request's arguments that are kept together, and how many there may be.
_MOST_KEPT: Final = 16 << 20
_MOST_ARGUMENTS: Final = 1 << 20
_MOST_ANNOUNCED: Final = (1 << 31) - 1
_LARGEST_ARGUMENT: Final = 1 << 40
#: No line of numbers is longer.
_LONGEST_NUMBER: Final = 24


class Requests:
    """Finds requests in bytes that come in pieces, cut anywhere.

    Args:
        names: what each name means, written as clients write it, so in both cases: PASSED, ONE_KEY or WANTED.

    Attributes:
        count: how many requests are whole, but for empty lines, which no server answers.
        at, keys: the numbers of those that write one key, and the keys.
        begin, end: where in the last piece the request begins that `take` gave, and ends; of None, the one that is not whole yet.
        left_out: how many keys of ONE_KEY were too large to be kept.
        each: give every request, those that are not wanted without arguments.
        broken: this is no request of Redis: whatever follows is not read.

    >>> requests = Requests({b"GET": PASSED, b"SET": ONE_KEY})
    >>> requests.feed(b"*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\na\\r\\n*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\nb\\r\\n$1\\r\\n1\\r\\n")
    >>> requests.take()
    >>> requests.feed(b"SELECT 1\\r\\n*1")
    >>> requests.take(), requests.take()
    ([b'SELECT', b'1'], None)
    >>> requests.count, requests.at, requests.keys
    (3, [1], [b'b'])
    """

    def __init__(self, names: dict[bytes, int]) -> None:
        self.names = names
        self.count: i64 = 0
        self.at: list[int] = []
        self.keys: list[bytes] = []
        self.begin: i64 = 0
        self.end: i64 = 0
        self.left_out: i64 = 0
        self.each: bool = False
        self.broken: bool = False
        self.buf: bytes = b""
        self.pos: i64 = 0
        self.tail: i64 = 0  # bytes of `buf` that came before the last piece
        self.missing: i64 = 0  # arguments of the request at hand that are still to come
        self.skip: i64 = 0  # bytes of its argument at hand that are, the line's end included
        self.code: i64 = -1  # what its name means; -1 before that is known
        self.arguments: list[bytes] = []
        self.kept: i64 = 0  # bytes of them
        self.parts: list[bytes] = []  # of the argument at hand
        self.keep: bool = False  # whether that is wanted

    def feed(self, data: bytes) -> None:
        """More bytes have come; `take` has given None for what came before."""
        rest = self.buf[self.pos :] if self.pos < len(self.buf) else b""
        self.tail = len(rest)
        self.buf = rest + data if rest else data
        self.pos = 0
        self.begin = self.end = 0

    def rewind(self) -> None:
        """Forget the request that is not whole: it is fed again from its beginning on."""
        self.buf = b""
        self.pos = 0
        self.missing = self.skip = 0
        self.drop_arguments()

    def is_between(self) -> bool:
        """Whether no request was read by half, but for its first line."""
        return self.missing == 0

    def take(self) -> list[bytes] | None:
        """The arguments of the next request that is wanted, its name first; None where no more is whole."""
        buf = self.buf
        size: i64 = len(buf)
        pos = self.pos
        if self.broken:
            self.pos = size
            return None
        if self.missing == 0:
            self.begin = pos - self.tail
        while True:
            if self.skip > 0:
                have = size - pos
                if have > self.skip:
                    have = self.skip
                if self.keep:
                    self.parts.append(buf[pos : pos + have])
                pos += have
                self.skip -= have
                if self.skip > 0:
                    self.pos = pos
                    return None
                if self.keep:
                    text = b"".join(self.parts)
                    self.parts = []
                    self.take_argument(text[: len(text) - 2])
                self.missing -= 1
            elif self.missing == 0:
                self.begin = self.end = pos - self.tail
                if pos >= size:
                    self.pos = pos
                    return None
                if buf[pos] != 0x2A:
                    stop: i64 = buf.find(b"\n", pos)
                    if stop < 0:
                        if size - pos > LARGEST_KEPT:
                            self.broken = True
                        self.pos = pos
                        return None
                    words = split_words(buf[pos:stop])
                    pos = stop + 1
                    if words is None:
                        self.broken = True
                        self.pos = pos
                        return None
                    if words:
                        self.pos = pos
                        self.end = pos - self.tail
                        self.count += 1
                        return words
                    continue
                number, after = line_number(buf, pos + 1, size)
                if after <= 0:
                    self.broken = after < 0
                    self.pos = pos
                    return None
                pos = after
                if number <= 0:
                    continue
                if number > _MOST_ANNOUNCED:
                    self.broken = True
                    self.pos = pos
                    return None
                self.missing = number
                self.code = -1
                self.drop_arguments()
                continue
            else:
                if pos >= size:
                    self.pos = pos
                    return None
                if buf[pos] != 0x24:
                    self.broken = True
                    self.pos = pos
                    return None
                number, after = line_number(buf, pos + 1, size)
                if after > 0 and (number < 0 or number > _LARGEST_ARGUMENT):
                    after = -1
                if after <= 0:
                    self.broken = after < 0
                    self.pos = pos
                    return None
                pos = after
                wanted = self.code < 0 or self.code == WANTED or (self.code == ONE_KEY and len(self.arguments) == 1)
                if wanted and (number > LARGEST_KEPT or self.kept + number > _MOST_KEPT):
                    wanted = False
                    self.take_argument(LEFT_OUT)
                if pos + number + 2 > size:
                    self.keep = wanted
                    self.skip = number + 2
                    continue
                if wanted:
                    self.take_argument(buf[pos : pos + number])
                pos += number + 2
                self.missing -= 1
            if self.missing == 0:
                # the request is whole
                if self.code == ONE_KEY:
                    if len(self.arguments) > 1:
                        if self.arguments[1] is LEFT_OUT:
                            self.left_out += 1
                        else:
                            self.at.append(int(self.count))
                            self.keys.append(self.arguments[1])
                elif self.code == WANTED:
                    self.count += 1
                    self.pos = pos
                    self.end = pos - self.tail
                    arguments = self.arguments
                    self.arguments = []
                    return arguments
                self.count += 1
                if self.each:
                    self.pos = pos
                    self.end = pos - self.tail
                    return []

    def take_argument(self, text: bytes) -> None:
        """An argument is there: the name, or one that is wanted."""
        if self.code < 0:
            self.code = self.names.get(text, WANTED)
            if self.code == PASSED:
                return
        if len(self.arguments) < _MOST_ARGUMENTS:
            self.arguments.append(text)
            self.kept += len(text)

    def drop_arguments(self) -> None:
        """Forget what was read of a request."""
        if self.arguments:
            self.arguments = []
        if self.parts:
            self.parts = []
        self.kept = 0


def line_number(buf: bytes, pos: i64, size: i64) -> tuple[i64, i64]:
    """The number on the line from `pos` on, and where the next line begins: 0 where the line is not whole, -1 for no number."""
    begin = pos
    negative = pos < size and buf[pos] == 0x2D
    if negative:
        pos += 1
    n: i64 = 0
    while pos < size:
        digit: i64 = buf[pos] - 0x30
        if digit < 0 or digit > 9:
            break
        n = n * 10 + digit
        pos += 1
        if pos - begin > 18:
            return 0, -1
    if pos >= size:
        return 0, 0
    if buf[pos] != 13 or pos == begin:
        return 0, -1
    if pos + 1 >= size:
        return 0, 0
    if buf[pos + 1] != 10:
        return 0, -1
    return (-n if negative else n), pos + 2


_SPACES: Final = b" \n\r\t\x0b\x0c\x00"
_ESCAPES: Final = {0x6E: 10, 0x72: 13, 0x74: 9, 0x62: 8, 0x61: 7}  # \n \r \t \b \a


def split_words(line: bytes) -> list[bytes] | None:
    r"""The words of a line as a server reads one that is typed; None where its quotes do not match.

    >>> split_words(b'SET "a b" "\\x00\\n"')
    [b'SET', b'a b', b'\x00\n']
    """
    if b'"' not in line and b"'" not in line:
        return line.translate(None, b"\x00").split() if b"\x00" not in line else line.split(b"\x00", 1)[0].split()
    words: list[bytes] = []
    pos = 0
    size = len(line)
    while True:
        while pos < size and line[pos] in _SPACES:
            pos += 1
        if pos >= size:
            return words
        word = bytearray()
        quote = 0
        while True:
            byte = line[pos] if pos < size else -1
            if quote:
                if byte < 0:
                    return None
                if quote == 0x22 and byte == 0x5C and pos + 1 < size:
                    pos += 1
                    if line[pos] == 0x78 and pos + 2 < size and is_hex(line[pos + 1]) and is_hex(line[pos + 2]):
                        word.append(int(line[pos + 1 : pos + 3], 16))
                        pos += 2
                    else:
                        word.append(_ESCAPES.get(line[pos], line[pos]))
                elif quote == 0x27 and line[pos : pos + 2] == b"\\'":
                    word.append(0x27)
                    pos += 1
                elif byte == quote:
                    if pos + 1 < size and line[pos + 1] not in _SPACES:
                        return None
                    pos += 1
                    break
                else:
                    word.append(byte)
            elif byte < 0 or byte in _SPACES:
                break
            elif byte == 0x22 or byte == 0x27:
                quote = byte
            else:
                word.append(byte)
            pos += 1
        words.append(bytes(word))


def is_hex(byte: int) -> bool:
    """Whether this is a digit of a number in base 16."""
    return 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x46 or 0x61 <= byte <= 0x66
