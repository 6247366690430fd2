"""Records as lines of JSON; compiled, since it runs once an element.

There are two ways to the same bytes. The plain one collects a value's elements and renders them together, which is the fastest
that an interpreter can do. The compiled form writes streams, and sorted sets, hashes, lists and sets of ordinary text, element by
element, without an object for any; what it cannot write so, it leaves to the plain way.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format.budget import OBJECT
from rdbkit.format.compiled import COMPILED
from rdbkit.format.constants import MEMBER_EXPIRY
from rdbkit.format.decode import Decoder, FileTypes, score_of
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_integer, read_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, Visitor
from rdbkit.format.sink import Items, Sink
from rdbkit.model import Aux, Event
from rdbkit.passes.json_streams import StreamWriter, stream_value
from rdbkit.passes.json_text import DIGITS, SAFE, are_plain, json_text, pairs_body, write_number, write_text
from rdbkit.values import CronJob, ModuleValue

if TYPE_CHECKING:
    from mypy_extensions import i64

_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
#: Up to here a double has each integer, and is rendered as one.
_EXACT: Final = 1 << 53
#: Bytes of unpacked content from which on a value is written in batches; of a string, a multiple of three.
_BATCH: Final = 1 << 20
_SLICE: Final = 3 << 18
#: Bytes of text that are handed on in the middle of a block.
_SPILLED: Final = 4 << 20

# Shapes that the compiled form writes element by element.
_LIST: Final = 1
_HASH: Final = 2
_ZSET: Final = 3
_STREAM: Final = 4
_JSON_SHAPES: Final = {"list": _LIST, "set": _LIST, "hash": _HASH, "zset": _ZSET}
#: Shapes of values that `Decoder` reports in that way, where their elements cannot expire. All others are rendered whole.
_ELEMENTS: Final = ("strings", "scored", "text-scored", "nodes", "packed-nodes", "packed")


# -- text


def json_score(score: float) -> bytes:
    """A JSON number, or inf and -inf as strings, which JSON has no numbers for.

    >>> json_score(5.0), json_score(0.1), json_score(float("inf"))
    (b'5', b'0.1', b'"inf"')
    """
    if score - score != 0:
        return b'"inf"' if score > 0 else b'"-inf"'
    text = repr(score)
    if text.endswith(".0") and text != "-0.0":
        text = text[:-2]
    return text.encode()


def json_scores(stored: list[Any]) -> list[bytes]:
    """What `json_score` renders of each, read as `score_of` does; the usual ones together, at a third of the price.

    >>> json_scores([b"1", b"2.5"]), json_scores([1.0, float("inf")])
    ([b'1', b'2.5'], [b'1', b'"inf"'])
    """
    kinds = set(map(type, stored))
    if kinds == {bytes} and not b",".join(stored).translate(None, b"0123456789.,-+e"):
        try:
            stored = list(map(float, stored))
            kinds = {float}
        except ValueError:
            pass
    if kinds == {float}:
        text = repr(stored)[1:-1] + ", "
        if "n" not in text and "-0.0, " not in text:  # neither inf nor nan, nor what is no integer without its point
            return text.encode().replace(b".0, ", b", ")[:-2].split(b", ")
    return [json_score(score_of(s)) for s in stored]


def write_score(out: BytesWriter, score: float) -> None:
    """Write what `json_score` renders.

    Numbers with up to three places, which most scores are, are written as the integer that they are thousandths of: ten times
    faster than looking for the shortest text, and the same text, since decimals of 15 digits never meet in one double.
    """
    if COMPILED and 0.0 <= score < 1e11:
        thousandths: i64 = int(score * 1000.0 + 0.5)
        if float(thousandths) / 1000.0 == score and (thousandths > 0 or str(score) == "0.0"):
            write_number(out, thousandths // 1000)
            rest: i64 = thousandths % 1000
            if rest:
                out.append(0x2E)
                out.append(DIGITS[rest // 100])
                if rest % 100:
                    out.append(DIGITS[rest // 10 % 10])
                    if rest % 10:
                        out.append(DIGITS[rest % 10])
            return
    out.write(json_score(score))


# -- many elements at a time


def list_body(items: list[bytes]) -> bytes:
    """Elements of a JSON array, without its brackets.

    >>> list_body([b"a", b"b"])
    b'"a","b"'
    """
    if not items:
        return b""
    if are_plain(items):
        return b'"' + b'","'.join(items) + b'"'
    return b",".join([json_text(x) for x in items])


def object_body(names: list[bytes], values: list[bytes]) -> bytes | None:
    """Members of a JSON object, without its braces; None where a name is not UTF-8."""
    if not names:
        return b""
    if are_plain(names + values):
        return b'"' + b'","'.join(map(b'":"'.join, zip(names, values, strict=True))) + b'"'
    texts = [json_text(x) for x in names]
    if not all(text[0] == _QUOTE for text in texts):
        return None
    return b",".join(map(b":".join, zip(texts, [json_text(x) for x in values], strict=True)))


def scores_body(members: list[bytes], stored: list[Any]) -> bytes:
    """Pairs of member and score."""
    if not members:
        return b""
    scores = json_scores(stored)
    if are_plain(members):
        return b'["' + b'],["'.join(map(b'",'.join, zip(members, scores, strict=True))) + b"]"
    return b",".join([b"[%b,%b]" % (json_text(m), s) for m, s in zip(members, scores, strict=True)])


def are_text(names: list[bytes]) -> bool:
    """Whether all can be members' names of an object."""
    return all(json_text(name)[0] == _QUOTE for name in names)


def expiries_body(names: list[bytes], times: list[int], as_object: bool) -> bytes:
    """The names that expire, with their Unix milliseconds."""
    form = b"%b:%d" if as_object else b"[%b,%d]"
    return b",".join([form % (json_text(n), ms) for n, ms in zip(names, times, strict=True) if ms])


def is_text(data: bytes) -> bool:
    """Whether all of it is UTF-8, looked at in slices."""
    at = 0
    while at < len(data):
        stop = min(at + _SLICE, len(data))
        while at < stop < len(data) and data[stop] & 0xC0 == 0x80:  # in the middle of a letter
            stop -= 1
        try:
            data[at:stop].decode()
        except UnicodeDecodeError:
            return False
        if stop == at:
            return False
        at = stop
    return True


def other_value(value: object) -> bytes:
    """A value of a rare type."""
    if isinstance(value, bytes):
        return json_text(value)
    if isinstance(value, ModuleValue):
        return b'{"module":%b,"version":%d,"base64":"%b"}' % (
            json_text(value.module.encode()), value.version, base64.b64encode(value.raw),
        )  # fmt: skip
    if isinstance(value, CronJob):
        return b'{"script":%b,"start_ms":%d,"interval_ms":%d,"keys":[%b],"args":[%b]}' % (
            json_text(value.script), value.start_ms, value.interval_ms, list_body(value.keys), list_body(value.args),
        )  # fmt: skip
    return str(value).encode()


def array_body(pairs: list[Any]) -> bytes:
    """Pairs of index and value; floats keep their point, and those that JSON has no numbers for are text."""
    return b",".join([b"[%d,%b]" % (i, _float(v) if isinstance(v, float) else other_value(v)) for i, v in pairs])


def _float(x: float) -> bytes:
    return repr(x).encode() if x - x == 0 else b'"%b"' % repr(x).encode()


def value_and_more(type_name: str, arity: int, items: list[Any], insert_index: int | None) -> tuple[bytes, bytes]:
    """A whole value, and the members that stand beside it in the record's object, each after a comma.

    Raises: CorruptError for a score that is no number.
    """
    if type_name == "hash":
        names, values = items[::arity], items[1::arity]
        body = object_body(names, values)
        as_object = body is not None
        text = b"[%b]" % pairs_body(names, values) if body is None else b"{%b}" % body
        expiries = expiries_body(names, items[2::3], as_object) if arity == 3 else b""
        form = b',"field_expire_ms":{%b}' if as_object else b',"field_expire_ms":[%b]'
        return text, form % expiries if expiries else b""
    if type_name == "list":
        return b"[%b]" % list_body(items), b""
    if type_name == "set":
        return b"[%b]" % list_body(items[::arity]), member_expiries(items[::2], items[1::2]) if arity == 2 else b""
    if type_name == "zset":
        return b"[%b]" % scores_body(items[::2], items[1::2]), b""
    if type_name == "stream":
        return stream_value(items), b""
    if type_name == "array":
        return b"[%b]" % array_body(items), b"" if insert_index is None else b',"insert_index":%d' % insert_index
    return other_value(items[0]), b""


def member_expiries(members: list[bytes], times: list[int]) -> bytes:
    """Expiries that members have of their own, as one more member of the record's object."""
    as_object = are_text([m for m, ms in zip(members, times, strict=True) if ms])
    body = expiries_body(members, times, as_object)
    if not body:
        return b""
    return (b',"member_expire_ms":{%b}' if as_object else b',"member_expire_ms":[%b]') % body


# -- one element at a time


_AS_IT_STANDS: Final = 2
_DECIMAL: Final = 1


def _decimal(buf: bytes, start: i64, end: i64) -> i64:
    """Whether a stored score is a plain decimal, and even as `json_score` would render it: at most 15 digits, none idle."""
    at: i64 = start
    if at < end and buf[at] == 0x2D:
        at += 1
    if at >= end or buf[at] == 0x30 or end - at > 30:
        return 0
    begin: i64 = at
    while at < end and 0x30 <= buf[at] <= 0x39:
        at += 1
    if at == begin:
        return 0
    if at < end:
        if buf[at] != 0x2E or buf[end - 1] == 0x30:
            return 0
        at += 1
        if at == end:
            return 0
        while at < end and 0x30 <= buf[at] <= 0x39:
            at += 1
    if at < end:
        return 0
    return _AS_IT_STANDS if end - begin < 16 else _DECIMAL


class ElementWriter(Sink):
    """Writes elements as they come; `failed` where a value must go the plain way."""

    def __init__(self, out: BytesWriter) -> None:
        self.out: BytesWriter = out
        self.shape: i64 = _LIST
        self.count: i64 = 0
        self.failed: bool = False

    def begin(self, shape: i64) -> None:
        self.shape = shape
        self.count = 0
        self.failed = False

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        out = self.out
        if self.before():
            form = _decimal(buf, start, end)
            if form == _AS_IT_STANDS:
                out.write(buf[start:end])
            else:
                stored = buf[start:end]
                write_score(out, float(stored) if form == _DECIMAL else score_of(stored))
        elif not write_text(out, buf, start, end) and self.shape == _HASH and self.count & 1:
            self.failed = True  # a field's name that is not UTF-8
        self.after()

    def integer(self, n: i64) -> None:
        out = self.out
        if self.before():
            if -_EXACT <= n <= _EXACT:
                write_number(out, n)
            else:
                write_score(out, float(n))
        else:
            out.append(_QUOTE)
            write_number(out, n)
            out.append(_QUOTE)
        self.after()

    def double(self, x: float) -> None:
        self.before()
        write_score(self.out, x)
        self.after()

    def attribute(self, n: i64) -> None:
        self.failed = True

    def part(self, part: object) -> None:
        self.failed = True

    def before(self) -> bool:
        """Write what stands before an element; true where it is a score."""
        out = self.out
        n = self.count
        self.count += 1
        if self.shape == _LIST:
            if n > 0:
                out.append(_COMMA)
            return False
        if n & 1:
            out.append(0x3A if self.shape == _HASH else _COMMA)
            return self.shape == _ZSET
        if n > 0:
            out.append(_COMMA)
        if self.shape == _ZSET:
            out.append(0x5B)
        return False

    def after(self) -> None:
        if self.shape == _ZSET and not self.count & 1:
            self.out.append(0x5D)


class JsonLines(Visitor):
    """Writes each record as one line.

    Args:
        file_types: of the snapshot.
        limit: most bytes of a key's name.
        wanted: which keys; None for all.
        skip: go on behind a value that is damaged.

    Attributes:
        spill: takes what has been written where it becomes much; None where all of it is to wait for `take`.
        written: lines so far.
        skipped: what was wrong with the values left out.
        open: the last line may get more members, and its end is not written.
        members, times: expiries of members of that line's record.
        early_members, early_times: those that came before any record, where lines begin in the middle of a file.
    """

    def __init__(self, file_types: FileTypes, limit: int, wanted: Filter | None, skip: bool) -> None:
        super().__init__()
        self.out: BytesWriter = BytesWriter()
        self.spill: Any = None
        self.file_types: FileTypes = file_types
        self.limit: i64 = limit
        self.filter: Filter | None = wanted
        self.skip: bool = skip
        self.written: i64 = 0
        self.skipped: list[RdbError] = []
        self.decoder: Decoder = Decoder(file_types)
        self.decoder.most = _BATCH
        self.items: Items = Items()
        self.elements: ElementWriter = ElementWriter(self.out)
        self.stream: StreamWriter = StreamWriter(self.out)
        self.open: bool = False
        self.member: bytes = b""
        self.members: list[bytes] = []
        self.times: list[int] = []
        self.members_bytes: i64 = 0  # that these take
        self.begun: bool = False
        self.early_members: list[bytes] = []
        self.early_times: list[int] = []
        self.head: bytes = b""
        self.database()
        self.middles: list[bytes] = [b""] * 258
        self.shapes: list[int] = [0] * 258
        for t in file_types.types.values():
            self.middles[t.id] = self.middle(t.type, t.encoding)
            if COMPILED and t.shape in _ELEMENTS and not t.expires:
                self.shapes[t.id] = _JSON_SHAPES[t.type]
            elif COMPILED and t.shape == "stream":
                self.shapes[t.id] = _STREAM
        self.middles[STRING_INT] = self.middle("string", "int")
        self.middles[STRING_LZF] = self.middle("string", "lzf")

    def middle(self, type_name: str, encoding: str) -> bytes:
        return f',"type":"{type_name}","encoding":"{encoding}"'.encode()

    def take(self) -> bytes:
        """What has been written since the last call; the last line is still open, since the file may say more of its record."""
        data = self.out.getvalue()
        self.out.truncate(0)
        return data

    def begin(self) -> None:
        """Begin at the first record: what came before it concerns none of these lines."""
        self.begun = True
        self.early_members = self.members
        self.early_times = self.times
        self.members = []
        self.times = []

    def end_line(self) -> None:
        """End the record's line; only now is it known that the file says no more of it."""
        if not self.open:
            return
        self.open = False
        if self.members:
            self.out.write(member_expiries(self.members, self.times))
            self.members = []
            self.times = []
            self.budget.give_back(self.members_bytes)
            self.members_bytes = 0
        self.out.write(b"}\n")

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        out = self.out
        first: i64 = buf[key_at]
        if not self.begun:
            self.begin()
        if (
            not COMPILED
            and (type_code == 0 or type_code == STRING_INT)
            and first < 0x40
            and self.filter is None
            and self.short_string(type_code, key_at, value_at, end, expire_ms)
        ):
            return
        if self.open:
            if self.members:
                self.end_line()
            else:
                out.write(b"}\n")
                self.open = False
        mark: i64 = len(out)
        try:
            if self.filter is not None and not self.filter.wants(buf, key_at, type_code, end - start, expire_ms):
                return
            out.write(self.head)
            if first < 0x40:
                write_text(out, buf, key_at + 1, key_at + 1 + first)
            else:
                name, _ = read_string(buf, key_at, self.limit)
                write_text(out, name, 0, len(name))
            self.attributes(type_code, expire_ms)
            self.value(type_code, value_at, end)
            if self.decoder.doubts:
                name, _ = read_string(buf, key_at, self.limit)
                self.file_types.warn(self.decoder.doubts, type_code, int(self.db), name, int(self.base + start))
                self.decoder.doubts = []
        except RdbError as e:
            out.truncate(mark)
            e.source = self.file_types.source
            e.offset = int(self.base + start)
            e.db = int(self.db)
            e.reading = f"a {self.file_types.types[0 if type_code >= STRING_INT else type_code].name}"
            try:
                e.key, _ = read_string(buf, key_at, self.limit)
            except RdbError:
                e.key = None
            if not self.skip:
                raise
            self.skipped.append(self.budget.keep(e))
            return
        self.written += 1
        self.open = True
        if self.spill is not None and len(out) > _SPILLED:
            self.spill(self.take())

    def database(self) -> None:
        if self.filter is not None:
            self.filter.database(int(self.db))
        self.head = f'{{"db":{self.db},"key":'.encode()

    def short_string(self, type_code: int, key_at: int, value_at: int, end: int, expire_ms: int) -> bool:
        """A string in one step, for the interpreter; False where it is not an ordinary one."""
        buf = self.buf
        first = buf[value_at]
        if self.members or self.idle_s >= 0 or self.freq >= 0 or 0x80 <= first < 0xC0:
            return False
        key = buf[key_at + 1 : value_at]
        value = b"%d" % read_integer(buf, value_at) if type_code == STRING_INT else buf[value_at + (1 if first < 0x40 else 2) : end]
        middle = self.middles[type_code]
        if expire_ms != NO_EXPIRY:
            middle += b',"expire_ms":%d' % expire_ms
        if (key + value).translate(None, SAFE):
            line = b'%b%b%b,"value":%b' % (self.head, json_text(key), middle, json_text(value))
        else:
            line = b'%b"%b"%b,"value":"%b"' % (self.head, key, middle, value)
        self.out.write(b"}\n" + line if self.open else line)
        self.open = True
        self.written += 1
        return True

    def attributes(self, type_code: i64, expire_ms: i64) -> None:
        """The line between key and value."""
        out = self.out
        out.write(self.middles[type_code])
        if expire_ms != NO_EXPIRY:
            out.write(b',"expire_ms":')
            write_number(out, expire_ms)
        if self.idle_s >= 0:
            out.write(b',"idle_s":')
            write_number(out, self.idle_s)
        if self.freq >= 0:
            out.write(b',"freq":')
            write_number(out, self.freq)
        out.write(b',"value":')

    def value(self, type_code: i64, value_at: i64, end: i64) -> None:
        buf = self.buf
        out = self.out
        first: i64 = buf[value_at]
        if type_code == 0 and first < 0x80:
            write_text(out, buf, value_at + 1 if first < 0x40 else value_at + 2, end)
            return
        if type_code == STRING_INT:
            out.append(_QUOTE)
            write_number(out, read_integer(buf, value_at))
            out.append(_QUOTE)
            return
        decoder = self.decoder
        decoder.begin(type_code)
        stop: i64
        shape = 0 if type_code >= STRING_INT else self.shapes[type_code]
        mark: i64 = len(out)
        if shape == _STREAM:
            self.stream.begin()
            stop = decoder.feed(buf, value_at, self.stream)
            if decoder.paused:
                out.truncate(mark)
                self.big_value(type_code, value_at, end)
                return
            if not decoder.done or stop != end:
                raise CorruptError("its parts do not end where the value ends")
            self.stream.finish()
            return
        if shape:
            elements = self.elements
            elements.begin(shape)
            out.append(0x7B if shape == _HASH else 0x5B)
            stop = decoder.feed(buf, value_at, elements)
            out.append(0x7D if shape == _HASH else 0x5D)
            if not elements.failed and decoder.done and stop == end:
                return
            out.truncate(mark)
            if decoder.paused:
                self.big_value(type_code, value_at, end)
                return
            decoder.begin(type_code)
        items = self.items
        items.items = []
        stop = decoder.feed(buf, value_at, items)
        if decoder.paused or decoder.spent > _BATCH:
            self.big_value(type_code, value_at, end)
            return
        if not decoder.done or stop != end:
            raise CorruptError("its parts do not end where the value ends")
        type_name = self.file_types.types[0 if type_code >= STRING_INT else type_code].type
        value, more = value_and_more(type_name, decoder.arity, items.items, decoder.insert_index)
        out.write(value)
        out.write(more)

    def big_value(self, type_code: i64, value_at: i64, end: i64) -> None:
        """A value that becomes much when it is unpacked, in batches; nothing is handed on before all of it is known to be sound."""
        name = self.file_types.types[0 if type_code >= STRING_INT else type_code].type
        if name == "string":
            self.big_string(read_string(self.buf, value_at, self.file_types.limit)[0])
        elif name in ("list", "zset") or (name in ("set", "hash") and self.decoder.arity == (1 if name == "set" else 2)):
            as_object = self.batches(type_code, name, value_at, end, name == "hash", False)
            self.batches(type_code, name, value_at, end, as_object, True)
        else:
            decoder = self.decoder
            items = Items()
            decoder.begin(type_code)
            stop = decoder.feed(self.buf, value_at, items)
            size: i64 = decoder.spent
            while decoder.paused:
                self.budget.check("parts of a value", size + len(items.items) * OBJECT)
                stop = decoder.feed(self.buf, stop, items)
                size += decoder.spent
            if not decoder.done or stop != end:
                raise CorruptError("its parts do not end where the value ends")
            value, more = value_and_more(name, decoder.arity, items.items, decoder.insert_index)
            self.out.write(value)
            self.out.write(more)

    def batches(self, type_code: i64, name: str, value_at: i64, end: i64, as_object: bool, write: bool) -> bool:
        """Render a collection batch by batch, and write it where wanted; returns whether a hash can be an object."""
        out = self.out
        decoder = self.decoder
        items = Items()
        decoder.begin(type_code)
        begun = False
        stop: i64 = value_at
        if write:
            out.append(0x7B if as_object else 0x5B)
        going = True
        while going:
            stop = decoder.feed(self.buf, stop, items)
            going = decoder.paused
            found: list[Any] = items.take(decoder.arity)
            body: bytes | None = b""
            if name == "zset":
                body = scores_body(found[::2], found[1::2])
            elif name != "hash":
                body = list_body(found)
            elif as_object:
                body = object_body(found[::2], found[1::2])
                as_object = body is not None
            elif write:
                body = pairs_body(found[::2], found[1::2])
            if write and body:
                if begun:
                    out.append(_COMMA)
                begun = True
                out.write(body)
                self.overflow()
        if not decoder.done or stop != end:
            raise CorruptError("its parts do not end where the value ends")
        if write:
            out.append(0x7D if as_object else 0x5D)
        return as_object

    def big_string(self, data: bytes) -> None:
        """A string of any length: text where all of it is UTF-8, otherwise base64."""
        out = self.out
        at: i64
        if is_text(data):
            out.append(_QUOTE)
            at = 0
            while at < len(data):
                stop: i64 = min(at + _SLICE, len(data))
                while stop < len(data) and data[stop] & 0xC0 == 0x80:  # in the middle of a letter
                    stop -= 1
                out.write(json_text(data[at:stop])[1:-1])
                at = stop
                self.overflow()
            out.append(_QUOTE)
            return
        out.write(b'{"base64":"')
        for at in range(0, len(data), _SLICE):
            out.write(base64.b64encode(data[at : at + _SLICE]))
            self.overflow()
        out.write(b'"}')

    def overflow(self) -> None:
        """Hand on what has been written where it is much."""
        if self.spill is not None and len(self.out) > _SPILLED:
            self.spill(self.take())

    def about(self, db: int, idle_s: int | None, freq: int | None) -> None:
        """What is known of a large record that comes next, which a scan for other processes has not told."""
        if db != self.db:
            self.db = db
            self.database()
        self.idle_s = -1 if idle_s is None else idle_s
        self.freq = -1 if freq is None else freq

    def whole(self, type_code: i64, key: bytes, value: bytes, expire_ms: i64) -> None:
        """A record whose value is at hand as one piece; the filter has been asked."""
        self.end_line()
        mark: i64 = len(self.out)
        self.out.write(self.head)
        self.out.write(json_text(key))
        self.attributes(type_code, expire_ms)
        self.buf = value
        try:
            self.value(type_code, 0, len(value))
        except RdbError:
            self.out.truncate(mark)
            raise
        if self.decoder.doubts:
            self.file_types.warn(self.decoder.doubts, type_code, int(self.db), key, int(self.base))
            self.decoder.doubts = []
        self.written += 1
        self.open = True

    def event(self, event: Event) -> None:
        if isinstance(event, Aux) and event.key.startswith(MEMBER_EXPIRY):
            if event.key.endswith(b"-key"):
                self.member = event.value
            elif event.value.isdigit() and (self.open or not self.begun):  # else of a record that was left out
                size: i64 = len(self.member) + OBJECT
                self.budget.spend("expiries of members", size)
                self.members_bytes += size
                self.members.append(self.member)
                self.times.append(int(event.value))
