"""What becomes of the answers to DUMP: RESTORE commands or records of an RDB; compiled, since it runs once a key.

Values stay bytes in the buffers that they came in: they are cut out and pasted, and no object is made of a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anycrc
from librt.strings import BytesWriter, write_i64_le

from rdbkit.errors import ChecksumError, CorruptError
from rdbkit.format import constants as c
from rdbkit.format.encode import write_length
from rdbkit.format.replies import Incoming, line_end, read_number, refusal
from rdbkit.passes.pages import Layout, Page
from rdbkit.passes.restores import HEADS, TAILS, Router
from rdbkit.resp import bulk

if TYPE_CHECKING:
    from mypy_extensions import i64

_CRC64: Final = anycrc.Model("CRC64-REDIS")
#: What stands behind a value: the version in two bytes, the checksum in eight.
_FOOTER: Final = 10
_NO_REPLY: Final = "not a Redis server: invalid reply"
#: So far may a time to live that was asked for twice have gone on, in milliseconds, where nobody else has set it.
_MOVED_ON_MS: Final = 1000

#: What became of a key, as `Answers.fates` has it, one byte a key.
FOUND: Final = 1
GONE: Final = 2  # it is not there
CHANGED: Final = 3  # its expiry was changed while it was read
FAILED: Final = 4  # see `Answers.failures`
OTHER_VERSION: Final = 5  # its payload has another version than those before
OTHER_WAY: Final = 6  # its type is one that is not taken as it stands


class Answers(Incoming):
    """The replies to `questions`: each value is handed to `take` with its name.

    Args:
        page, layout: what was asked.
        version: RDB version of payloads so far; 0 for not known yet.

    Attributes:
        fates: what became of each key of the page, one byte each.
        failures: the error replies, by the number of the key in the page.
        version: of the payloads.
        now_ms: the server's clock of the last TIME.
        odd: one byte a type code: 1 where such values are not taken here.
        found: how many values came.
        value_bytes: how many bytes these have.
    """

    def __init__(self, page: Page, layout: Layout, version: int, now_ms: int = 0) -> None:
        super().__init__()
        self.names: bytes = page.names
        self.name_at: i64 = 0
        self.left: i64 = page.count
        self.group: i64 = layout.group
        self.absolute: bool = layout.absolute
        self.version: i64 = version
        self.now_ms: i64 = now_ms
        self.odd: bytes = bytes(256)
        self.fates: BytesWriter = BytesWriter()
        self.failures: dict[int, Any] = {}
        self.found: i64 = 0
        self.value_bytes: i64 = 0
        # of the MULTI at hand
        self.in_group: i64 = 0  # keys of it whose values are still to come
        self.expiries: list[int] = []  # of its keys, as `expiry` has them
        self.expiries_left: i64 = 0
        self.heads: i64 = 0  # replies +OK and +QUEUED to come before the answer to EXEC
        self.refused: Any = None  # the error that ended it
        self.refused_expiry: Any = None  # the last error of those that ask for an expiry
        self.wants_exec: bool = False
        self.wants_time: bool = False
        self.done = page.count == 0

    def read(self) -> i64:
        pos: i64 = 0
        next_pos: i64
        while self.left > 0:
            if self.group > 0 and self.in_group == 0:
                self.begin_group()
            if self.heads > 0 or self.wants_exec:
                next_pos = self.read_head(pos)
                if next_pos < 0:
                    return pos
                pos = next_pos
                continue
            if self.wants_time:
                next_pos = self.read_time(pos)
                if next_pos < 0:
                    return pos
                pos = next_pos
                continue
            if self.expiries_left > 0:
                next_pos = self.reply_end(pos)
                if next_pos < 0:
                    return pos
                self.expiries.append(int(self.expiry(pos, next_pos)))
                self.expiries_left -= 1
                pos = next_pos
                continue
            next_pos = self.read_key(pos) if self.group > 0 else self.read_key_alone(pos)
            if next_pos < 0:
                return pos
            pos = next_pos
            if self.in_group > 0:
                self.in_group -= 1
        self.done = True
        return pos

    def begin_group(self) -> None:
        self.in_group = self.left if self.left < self.group else self.group
        self.heads = 1 + 2 * self.in_group + (0 if self.absolute else 1)
        self.wants_exec = True
        self.wants_time = not self.absolute
        self.expiries = []
        self.expiries_left = self.in_group
        self.refused = None

    def read_head(self, pos: i64) -> i64:
        """One reply before those of the keys; -1 where it has not come."""
        buf = self.buf
        end: i64 = line_end(buf, pos)
        if end < 0:
            return -1
        kind: i64 = buf[pos]
        if self.heads > 0:
            if kind == 0x2D:
                if self.refused is None:
                    self.refused = refusal(buf[pos + 1 : end - 2])
            elif kind != 0x2B:
                raise CorruptError(_NO_REPLY)
            self.heads -= 1
            return end
        self.wants_exec = False
        if kind == 0x2A and read_number(buf, pos + 1, end - 2) > 0:
            return end
        if kind != 0x2D and kind != 0x2A:
            raise CorruptError(_NO_REPLY)
        if self.refused is None:
            self.refused = refusal(buf[pos + 1 : end - 2]) if kind == 0x2D else refusal(b"EXECABORT the transaction was not run")
        self.wants_time = False
        self.expiries_left = 0
        while self.in_group > 0:
            self.fail(self.refused)
            self.in_group -= 1
        return end

    def read_time(self, pos: i64) -> i64:
        buf = self.buf
        end: i64 = line_end(buf, pos)
        if end < 0:
            return -1
        if buf[pos] != 0x2A:  # refused within the MULTI, or by a proxy
            self.wants_time = False
            return end
        seconds_end = self.reply_end(end)
        if seconds_end < 0:
            return -1
        micros_end = self.reply_end(seconds_end)
        if micros_end < 0:
            return -1
        seconds_at: i64 = line_end(buf, end)
        micros_at: i64 = line_end(buf, seconds_end)
        self.now_ms = read_number(buf, seconds_at, seconds_end - 2) * 1000
        self.now_ms += read_number(buf, micros_at, micros_end - 2) // 1000
        self.wants_time = False
        return micros_end

    def read_key_alone(self, pos: i64) -> i64:
        """The replies about a key whose expiry stands before and behind its value; -1 where they have not all come."""
        dump_at: i64 = self.reply_end(pos)
        if dump_at < 0:
            return -1
        dump_end: i64 = self.reply_end(dump_at)
        if dump_end < 0:
            return -1
        end: i64 = self.reply_end(dump_end)
        if end < 0:
            return -1
        before: i64 = self.expiry(pos, dump_at)
        behind: i64 = self.expiry(dump_end, end)
        if self.buf[dump_at] == 0x24 and behind >= -1 and not self.is_same_expiry(before, behind):
            self.skip(CHANGED)
        else:
            self.value(dump_at, dump_end, behind)
        return end

    def read_key(self, pos: i64) -> i64:
        """The value of the next key of a group; -1 where it has not all come."""
        end: i64 = self.reply_end(pos)
        if end < 0:
            return -1
        self.value(pos, end, self.expiries[len(self.expiries) - self.in_group])
        return end

    def value(self, pos: i64, dump_end: i64, expire_ms: i64) -> None:
        """A value, or what is answered instead, and its expiry."""
        buf = self.buf
        if buf[pos] == 0x2D:
            self.fail(refusal(buf[pos + 1 : dump_end - 2]))
            return
        if expire_ms == -3:
            self.fail(self.refused_expiry)
            return
        if buf[pos] != 0x24 and buf[pos] != 0x5F:
            raise CorruptError(_NO_REPLY)
        head_end: i64 = line_end(buf, pos)
        size: i64 = dump_end - 2 - head_end
        if size < 0 or head_end == dump_end or expire_ms == -2:
            self.skip(GONE)
            return
        if size <= _FOOTER:
            raise CorruptError("a payload of DUMP that is too short")
        version: i64 = buf[dump_end - 2 - _FOOTER] | buf[dump_end - 1 - _FOOTER] << 8
        if version != self.version:
            if self.version != 0:
                self.skip(OTHER_VERSION)
                return
            self.version = version
        if not self.absolute and expire_ms >= 0:
            expire_ms += self.now_ms
        if self.odd[buf[head_end]]:
            self.skip(OTHER_WAY)
            return
        self.found += 1
        self.value_bytes += size
        at: i64 = self.name_at
        name_end = self.skip(FOUND)
        self.take(at, name_end, pos, head_end, dump_end, expire_ms)

    def is_same_expiry(self, before: i64, behind: i64) -> bool:
        """Whether a key's expiry is the same before its value was read and after that."""
        if self.absolute or before < 0 or behind < 0:
            return before == behind
        return behind <= before <= behind + _MOVED_ON_MS

    def expiry(self, pos: i64, end: i64) -> i64:
        """An expiry, -1 for none, -2 for no key, -3 for an error."""
        if self.buf[pos] == 0x2D:
            self.refused_expiry = refusal(self.buf[pos + 1 : end - 2])
            return -3
        if self.buf[pos] != 0x3A:
            raise CorruptError(_NO_REPLY)
        return read_number(self.buf, pos + 1, end - 2)

    def skip(self, fate: int) -> i64:
        """The key at hand has this fate; go on to the next. Returns where its name ends."""
        self.fates.append(fate)
        at: i64 = line_end(self.names, self.name_at)
        self.name_at = at + read_number(self.names, self.name_at + 1, at - 2) + 2
        self.left -= 1
        return self.name_at

    def fail(self, why: Any) -> None:
        self.failures[len(self.fates)] = why
        self.skip(FAILED)

    def take(self, name_at: i64, name_end: i64, value_at: i64, payload_at: i64, value_end: i64, expire_ms: i64) -> None:
        """A key that was found.

        Args:
            name_at, name_end: its name in `names`, as a bulk string.
            value_at, value_end: its payload in `buf`, as a bulk string; its first byte stands at `payload_at`.
            expire_ms: absolute, in Unix milliseconds; -1 for none.
        """
        raise NotImplementedError


class Weaver(Answers):
    """Weaves the replies to DUMP into RESTORE commands as they stand, checksum and all.

    Args:
        replace: whether keys that the target has are replaced.
    """

    def __init__(self, page: Page, layout: Layout, version: int, router: Router, replace: bool, now_ms: int = 0) -> None:
        super().__init__(page, layout, version, now_ms)
        self.router: Router = router
        self.head: bytes = HEADS[1 if replace else 0]
        self.tail: bytes = TAILS[1 if replace else 0]

    def take(self, name_at: i64, name_end: i64, value_at: i64, payload_at: i64, value_end: i64, expire_ms: i64) -> None:
        names = self.names
        box = self.router.boxes[0]
        if self.router.is_cluster:
            box = self.router.box_of(names, line_end(names, name_at), name_end - 2)
        out = box.out
        out.write(self.head)
        out.write(names[name_at:name_end])
        if expire_ms < 0:
            out.write(b"$1\r\n0\r\n")
        else:
            out.write(bulk(b"%d" % int(expire_ms)))
        out.write(self.buf[value_at:value_end])
        out.write(self.tail)
        box.count += 1


class Gatherer(Answers):
    """Makes records of an RDB of the replies to DUMP, as they would stand in a file of the source's version.

    Attributes:
        out: the records.
    """

    def __init__(self, page: Page, layout: Layout, version: int, now_ms: int = 0) -> None:
        super().__init__(page, layout, version, now_ms)
        self.out: BytesWriter = BytesWriter()

    def take(self, name_at: i64, name_end: i64, value_at: i64, payload_at: i64, value_end: i64, expire_ms: i64) -> None:
        buf = self.buf
        names = self.names
        out = self.out
        body_end: i64 = value_end - 2 - _FOOTER
        crc: int = _CRC64.calc(buf[payload_at : body_end + 2])
        if crc.to_bytes(8, "little") != buf[body_end + 2 : value_end - 2] and buf[body_end + 2 : value_end - 2] != bytes(8):
            raise ChecksumError("the checksum of a payload is not that of its content")
        if expire_ms >= 0:
            out.append(c.EXPIRETIME_MS)
            write_i64_le(out, expire_ms)
        out.append(buf[payload_at])
        at: i64 = line_end(names, name_at)
        write_length(out, name_end - 2 - at)
        out.write(names[at : name_end - 2])
        out.write(buf[payload_at + 1 : body_end])
