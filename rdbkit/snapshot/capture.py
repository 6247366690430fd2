"""What a replica is sent around a snapshot: its frame, and the commands that follow.

A server that is asked for its data by SYNC or PSYNC answers with lines, then newlines while it saves, then the snapshot: behind its
length where it was saved to disk first (`$<bytes>`), or between two marks of 40 bytes where it was not (`$EOF:<mark>`). Commands
follow. A capture of that, as of a socket, is read as the snapshot that is in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple

from rdbkit.errors import CorruptError, TruncatedError
from rdbkit.snapshot.other_formats import FRONT_BYTES, HEAD_BYTES, TEXT_MODE, describe, describe_front
from rdbkit.storage.compression import compression_of

MARK_BYTES: Final = 40
_EOF: Final = b"$EOF:"
_PIECE: Final = 1 << 12
_LINE: Final = 512  # bytes of a line at most
_MOST_SHOWN: Final = 120
_LENGTH_LINE: Final = 22  # bytes of a line that says how many follow, at most
#: Lines before the frame: what servers answer to PSYNC and the commands before it. The last is of an RDB channel of Valkey.
_ANSWERS: Final = (b"+FULLRESYNC ", b"+CONTINUE", b"+OK", b"+PONG", b"-", b"$ENDOFF:")
_BEGINNINGS: Final = (b"\n", b"+", b"-", b"$")
_REFUSAL: Final = re.compile(rb"-[A-Z]+( [\x20-\x7e]*)?")
_TEXT: Final = re.compile(rb"[\x20-\x7e]*")
#: The mark where nothing in front of the snapshot says which it is: servers draw it from these.
_ANY_MARK: Final = re.compile(rb"[0-9a-f]{40}")
#: Another snapshot, in a frame or not.
_SNAPSHOT: Final = re.compile(rb"\n*(REDIS0|VALKEY0|\+FULLRESYNC |\$EOF:|\$[0-9]+\r\n(REDIS|VALKEY))")
#: Commands that a master sends its replicas and that change no key.
_IDLE: Final = (b"PING", b"SELECT", b"REPLCONF", b"PUBLISH", b"SPUBLISH")
_HEAD: Final = re.compile(rb"\*([1-9][0-9]{0,9})\r\n\$([0-9]{1,10})\r\n")
_LENGTH: Final = re.compile(rb"\$([0-9]{1,19})\r\n")
_CUT_LENGTH: Final = re.compile(rb"(\$[0-9]*\r?)?")


class Window(NamedTuple):
    """The input from where it is read on.

    Attributes:
        peek: the next bytes, fewer than asked for only at the end of the input.
        skip: skip so many bytes; returns how many were there.
    """

    peek: Callable[[int], bytes]
    skip: Callable[[int], int]


def window_of(file: BinaryIO) -> Window:
    """A file from where it stands; it stands where the window has come to."""

    def peek(n: int) -> bytes:
        at = file.tell()
        piece = file.read(n)
        file.seek(at)
        return piece

    def skip(n: int) -> int:
        at = file.tell()
        to = min(at + n, file.seek(0, os.SEEK_END))
        file.seek(to)
        return to - at

    return Window(peek, skip)


class Frame(NamedTuple):
    """What precedes a snapshot.

    Attributes:
        kind: "eof-mark", "bulk" or None for no frame.
        mark: what follows the snapshot again, where the frame is "eof-mark".
        announced: bytes of the snapshot, where the frame is "bulk", otherwise -1.
    """

    kind: str | None = None
    mark: bytes = b""
    announced: int = -1


def frame_of(line: bytes) -> Frame | None:
    """What a line says of the snapshot that begins behind it, given without its end; None where it says nothing of one.

    >>> frame_of(b"$207")
    Frame(kind='bulk', mark=b'', announced=207)
    """
    if line.startswith(_EOF) and len(line) == len(_EOF) + MARK_BYTES:
        return Frame("eof-mark", line[len(_EOF) :])
    found = _LENGTH.fullmatch(line + b"\r\n")
    return None if found is None else Frame("bulk", announced=int(found[1]))


def read_frame(window: Window) -> Frame:
    """Go on to where a snapshot begins. Errors count from where the window is.

    Raises: TruncatedError where the input ends inside of a frame; CorruptError where it has no snapshot.
    """
    if window.peek(1) not in _BEGINNINGS:
        return Frame()
    front = window.peek(FRONT_BYTES)
    last, skipped = _skip_lines(window)
    head = window.peek(len(_EOF) + MARK_BYTES + 2)
    if head.startswith(b"$"):
        line, end, _ = head.partition(b"\r\n")
        frame = frame_of(line) if end else None
        if frame is not None:
            window.skip(len(line) + len(end))
            _expect_more(window)
            return frame
        if head.startswith(_EOF):
            if len(head) < len(_EOF) + MARK_BYTES + 2:
                raise TruncatedError("the replication capture ends inside its first mark", offset=len(head))
            what = TEXT_MODE if head.endswith(b"\r\r") else "the first mark of a replication capture is damaged"
            raise CorruptError(what, offset=0)
        if len(head) < _LENGTH_LINE and re.fullmatch(rb"\$([0-9]*\r?|E|EN|EO|EOF)", head):
            raise TruncatedError("the replication capture ends inside its frame", offset=len(head))
    elif last is not None:
        if what := TEXT_MODE if last.endswith(b"\r") else describe_front(head, skipped, front):
            raise CorruptError(what)
        raise _without_snapshot(last, head if last else window.peek(HEAD_BYTES))
    return Frame()


def _skip_lines(window: Window) -> tuple[bytes | None, int]:
    """Skip the lines before a frame; returns the last, None where there is none, and how many bytes they take."""
    last = None
    skipped = 0
    while True:
        head = window.peek(_LINE)
        if head.startswith(b"\n"):
            skipped += window.skip(len(head) - len(head.lstrip(b"\n")))
            last = last or b""
            continue
        word = next((each for each in _ANSWERS if head and (head.startswith(each) or each.startswith(head))), None)
        if word is None or (word == b"$ENDOFF:" and not head.startswith(b"$END")):
            return last, skipped
        line, end, _ = head.partition(b"\r\n")
        rule = _REFUSAL if word == b"-" else _TEXT
        if rule.fullmatch(line.removesuffix(b"\r")) is None:
            return last, skipped
        if not end:
            if len(head) == _LINE:
                return last, skipped
            if word == b"-" and last is None and b" " in line:
                raise _without_snapshot(line.strip(), b"")
            raise TruncatedError("the replication capture ends before the snapshot", offset=len(head))
        skipped += window.skip(len(line) + 2)
        last = line


def _expect_more(window: Window) -> None:
    if not window.peek(1):
        raise TruncatedError("the replication capture ends before the snapshot", offset=0)


def _without_snapshot(last: bytes, head: bytes) -> CorruptError | TruncatedError:
    """Why there is no snapshot behind lines, the last of which is given."""
    said = last[:_MOST_SHOWN].decode("ascii") + ("..." if len(last) > _MOST_SHOWN else "")
    if last.startswith(b"+CONTINUE"):
        return CorruptError(f"no RDB file: a replication goes on here ({said}), and no snapshot is sent: ask with PSYNC ? -1")
    if last.startswith(b"-"):
        return CorruptError(f"no RDB file: the server sent no snapshot, but said {said}")
    if not head:
        return TruncatedError("the replication capture ends before the snapshot", offset=0)
    if not said and (what := describe(head)):
        return CorruptError(what)
    behind = f"{said} of a replication" if said else "newlines"
    return CorruptError(f"no RDB file: what follows {behind} begins with {head[:9]!r}, not with $ and a length or mark")


def skip_mark(window: Window, frame: Frame) -> bool:
    """Skip the mark that follows a snapshot; returns whether there is one.

    Raises: TruncatedError or CorruptError where it is not that of the frame.
    """
    found = window.peek(MARK_BYTES)
    if frame.mark and found != frame.mark:
        if frame.mark.startswith(found):
            raise TruncatedError("the replication capture ends before the end of its second mark", offset=len(found))
        raise CorruptError("the second mark of a replication capture differs from its first", offset=0)
    # redis-cli --rdb - leaves out the first one
    is_mark = bool(frame.mark) or (frame.kind is None and _ANY_MARK.fullmatch(found) is not None)
    if is_mark:
        window.skip(MARK_BYTES)
    return is_mark


def without_mark(tail: bytes, frame: Frame) -> bytes | None:
    """The last bytes of a snapshot out of the last of a file; None where its mark is not among them."""
    if frame.mark:
        at = tail.rfind(frame.mark)
        return tail[:at] if at >= 0 else None
    has_mark = frame.kind is None and _ANY_MARK.fullmatch(tail[-MARK_BYTES:]) is not None
    return tail[:-MARK_BYTES] if has_mark else tail


def frame_end(file: BinaryIO, begin: int, frame: Frame, size: int) -> int:
    """Where a snapshot ends by what stands around it, as far as that can be believed of a damaged file; -1 where it is not known.

    Args:
        begin: where the snapshot begins.
        size: bytes of the file, without zeros at its end.
    """
    end = -1
    if frame.mark:
        end = _find(file, begin, frame.mark)
    elif frame.kind == "bulk":
        end = begin + frame.announced if begin + frame.announced <= size else -1
    elif size - MARK_BYTES > begin:
        file.seek(size - MARK_BYTES)
        end = size - MARK_BYTES if _ANY_MARK.fullmatch(file.read(MARK_BYTES)) else -1
    if end < 0 or frame.mark:
        return end
    file.seek(max(end - 9, begin))
    return end if file.read(1) == b"\xff" else -1


def _find(file: BinaryIO, at: int, text: bytes) -> int:
    """Where a text stands first at `at` or behind it; -1 where it does not."""
    file.seek(at)
    piece = b""
    while more := file.read(_PIECE << 8):
        piece = piece[1 - len(text) :] + more
        found = piece.find(text)
        if found >= 0:
            return file.tell() - len(piece) + found
    return -1


def read_trailer(window: Window, is_capture: bool) -> tuple[str, bool]:
    """What follows a snapshot and its mark, by `rdbkit.Trailer.kind`; and whether it was read to its end."""
    kind = "none"
    while head := window.peek(_PIECE):
        if begins_snapshot(head):
            return "snapshot", False
        if is_capture and head.startswith(b"\n"):
            window.skip(len(head) - len(head.lstrip(b"\n")))
            kind = "pings"
        elif head.startswith(b"*"):
            if not is_capture or not _skip_idle(window):
                return "replication" if is_capture else "aof", False
            kind = "pings"
        elif head.startswith(b"\0") and not (head := _skip_zeros(window)):
            return "padding" if kind == "none" else kind, True
        elif begins_snapshot(head):
            return "snapshot", False
        else:
            return "unknown" if kind == "none" else "replication", False
    return kind, True


def begins_snapshot(head: bytes) -> bool:
    """Whether what stands behind a snapshot is another: as it is, in a frame, or compressed."""
    return _SNAPSHOT.match(head) is not None or compression_of(head) is not None


def _skip_zeros(window: Window) -> bytes:
    """Skip all zeros; returns what begins behind them."""
    while (piece := window.peek(_PIECE * 16)).startswith(b"\0"):
        window.skip(len(piece) - len(piece.lstrip(b"\0")))
    return piece


def _skip_idle(window: Window) -> bool:
    """Skip one command; False where it may change data. It may be cut by the end of the input behind its name."""
    found = _HEAD.match(window.peek(32))
    if found is None:
        return False
    size = int(found[2])
    if size > max(map(len, _IDLE)):
        return False
    window.skip(found.end())
    if window.peek(size).upper() not in _IDLE:
        return False
    window.skip(size)
    if not _skip_line_end(window):
        return False
    for _ in range(int(found[1]) - 1):
        line = window.peek(_LENGTH_LINE)
        length = _LENGTH.match(line)
        if length is None:
            window.skip(len(line))
            return len(line) < _LENGTH_LINE and _CUT_LENGTH.fullmatch(line) is not None
        window.skip(length.end())
        window.skip(int(length[1]))
        if not _skip_line_end(window):
            return False
    return True


def _skip_line_end(window: Window) -> bool:
    """Skip the end of a line, of which the end of the input may have left nothing; False for anything else."""
    end = window.peek(2)
    return b"\r\n".startswith(end) and window.skip(len(end)) == len(end)
