"""Where replies end, and which are errors: counted as they pass, nothing is made of them; compiled, since it runs once a reply.

Source: as `replies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.replies import read_number

if TYPE_CHECKING:
    from mypy_extensions import i64

#: No line of a reply is longer, but that of an error.
_LONGEST_LINE: Final = 1 << 16
_LONGEST_WORD: Final = 16
_DEEPEST: Final = 64
#: What a subscriber is sent without having asked, by RESP2.
_MESSAGES: Final = (b"message", b"pmessage", b"smessage")
_NO_SERVER: Final = "not a Redis server"


class ReplyEnds:
    """Counts the replies in bytes that come in pieces, cut anywhere. What is sent unasked is not counted.

    Attributes:
        count: how many replies are whole.
        failed: numbers of those that are errors, until the user takes them out.
        subscribed: whether arrays that are messages come unasked, as by RESP2 to a client that has subscribed.
        pushed, line, word: of the frame that `step` has read: whether it was sent unasked, its first line without the line's end,
            and the first string where it is an array.

    >>> replies = ReplyEnds()
    >>> replies.feed(b"+OK\\r\\n-ERR no\\r\\n*2\\r\\n:1\\r\\n$3\\r\\nab")
    >>> replies.pass_to(10)
    >>> replies.count, replies.failed
    (2, [1])
    >>> replies.feed(b"c\\r\\n")
    >>> replies.step(), replies.count, replies.line
    (True, 3, b'*2')
    """

    def __init__(self) -> None:
        self.count: i64 = 0
        self.failed: list[int] = []
        self.subscribed: bool = False
        self.pushed: bool = False
        self.line: bytes = b""
        self.word: bytes = b""
        self.buf: bytes = b""
        self.pos: i64 = 0
        self.end: i64 = 0  # where the last frame ends, in the last piece
        self.tail: i64 = 0  # bytes of `buf` that came before the last piece
        self.skip: i64 = 0  # bytes of a string that are still to come
        self.within: bool = False  # whether a frame has begun
        self.missing: list[int] = []  # how many elements each array still has, the outermost first
        self.first: bool = False  # whether the next element is the first of the outermost array

    def feed(self, data: bytes) -> None:
        """More bytes have come; what came before was read as far as it goes."""
        if self.pos < len(self.buf):
            rest = self.buf[self.pos :]
            self.tail = len(rest)
            self.buf = rest + data
        else:
            self.tail = 0
            self.buf = data
        self.pos = 0
        self.end = 0

    def is_between(self) -> bool:
        """Whether no frame is half read."""
        return not self.within and self.pos >= len(self.buf)

    def pass_to(self, number: i64) -> None:
        """Count replies, up to that number and not further.

        Raises: CorruptError where these are no replies.
        """
        while self.count < number:
            if not self.within:
                # strings, states and numbers that are here as a whole
                buf = self.buf
                size: i64 = len(buf)
                pos = self.pos
                while self.count < number and pos < size:
                    kind: i64 = buf[pos]
                    if kind == 0x24:
                        end: i64 = pos + 1
                        n: i64 = 0
                        while end < size:
                            digit: i64 = buf[end] - 0x30
                            if digit < 0 or digit > 9:
                                break
                            n = n * 10 + digit
                            end += 1
                        if end - pos > 12 or end == pos + 1 or end + n + 4 > size or buf[end] != 13:
                            break
                        pos = end + n + 4
                    elif kind == 0x2B or kind == 0x3A:
                        stop: i64 = buf.find(b"\r\n", pos)
                        if stop < 0:
                            break
                        pos = stop + 2
                    else:
                        break
                    self.count += 1
                if pos > self.pos:
                    self.pos = pos
                    self.end = pos - self.tail
                if self.count >= number:
                    return
            if not self.step():
                return

    def step(self) -> bool:
        """Read one frame, a reply or what is sent unasked; whether it is whole. `count` and `failed` have it then.

        Raises: as `pass_to`.
        """
        while True:
            buf = self.buf
            pos = self.pos
            if self.skip > 0:
                have: i64 = len(buf) - pos
                if have < self.skip:
                    self.skip -= have
                    self.pos = len(buf)
                    return False
                pos += self.skip
                self.skip = 0
                self.pos = pos
            else:
                end: i64 = buf.find(b"\n", pos)
                if end < 0:
                    if len(buf) - pos > _LONGEST_LINE:
                        raise CorruptError(f"{_NO_SERVER}: a line without an end")
                    return False
                stop = end - 1
                if stop <= pos or buf[stop] != 13:
                    raise CorruptError(_NO_SERVER)
                kind: i64 = buf[pos]
                outermost = not self.within
                if outermost:
                    self.within = True
                    self.line = buf[pos:stop]
                    self.word = b""
                    self.pushed = kind == 0x3E
                self.pos = end + 1
                first = self.first
                self.first = False
                if kind == 0x24 or kind == 0x3D or kind == 0x21:  # $ = !
                    size = read_number(buf, pos + 1, stop)
                    if size >= 0:
                        if first and size <= _LONGEST_WORD:
                            if end + 3 + size > len(buf):
                                self.pos = pos
                                self.first = True
                                return False
                            self.word = buf[end + 1 : end + 1 + size]
                        self.skip = size + 2
                        continue
                elif kind == 0x2A or kind == 0x7E or kind == 0x3E or kind == 0x25 or kind == 0x7C:  # * ~ > % |
                    n = read_number(buf, pos + 1, stop)
                    if kind == 0x25 or kind == 0x7C:
                        n *= 2
                    if kind == 0x7C:  # attributes stand in front of what they are about
                        if outermost:
                            self.pushed = True
                        else:
                            n += 1
                    if n > 0:
                        if len(self.missing) >= _DEEPEST:
                            raise CorruptError(f"{_NO_SERVER}: arrays in arrays without an end")
                        self.missing.append(int(n))
                        self.first = outermost
                        continue
                elif (
                    kind == 0x2B or kind == 0x3A or kind == 0x2D or kind == 0x2C or kind == 0x28 or kind == 0x5F or kind == 0x23
                ):  # + : - , ( _ #
                    pass
                else:
                    raise CorruptError(_NO_SERVER)
            # an element is whole
            while self.missing:
                self.missing[-1] -= 1
                if self.missing[-1] > 0:
                    break
                self.missing.pop()
            if self.missing:
                continue
            self.within = False
            self.end = self.pos - self.tail
            if not self.pushed and self.subscribed and self.word in _MESSAGES:
                self.pushed = True
            if not self.pushed:
                if self.line[0] == 0x2D or self.line[0] == 0x21:
                    self.failed.append(int(self.count))
                self.count += 1
            return True
