"""Reference encoders: every value type of every flavour, written by the letter of the format and without any code of rdbkit's
that reads it.

Where the format leaves a choice (the width of a number, LZF or not, how many nodes, deleted entries), the encoder takes one by
chance, so that the reader meets forms that no single server writes side by side. Chance comes from a `Random` whose seed
hypothesis draws.

The shapes of the values are those of `rdbkit.values`, but for three, whose equality would not see all of the value: a hash is
`{field: (value, expire_ms or None)}`, an array `(insert_index, {index: value})` and a set whose members can expire
`{member: expire_ms or None}`; see `comparable`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from rdbkit.values import (
    Array,
    CronJob,
    Hash,
    ModuleValue,
    PendingEntry,
    Set,
    Stream,
    StreamConsumer,
    StreamDedup,
    StreamEntry,
    StreamGroup,
    StreamId,
    StreamTail,
)

from .rdb import length

U64 = (1 << 64) - 1
I64_MIN, I64_MAX = -(1 << 63), (1 << 63) - 1
MAX_FIELD_EXPIRY = (1 << 48) - 1
MODULE_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

FieldsWithExpiry = dict[bytes, tuple[bytes, int | None]]
ArrayValue = tuple[int | None, dict[int, "bytes | int | float"]]


# Numbers and strings (2.1, 2.2)


def number(n: int, rng: Random) -> bytes:
    """A length in the shortest form, or at times in a longer one, which loaders take too."""
    if rng.random() < 0.9 or n >= 1 << 32:
        return length(n)
    return b"\x80" + n.to_bytes(4, "big") if n >= 1 << 14 or rng.random() < 0.5 else bytes([0x40 | n >> 8, n & 255])


def integer(data: bytes) -> int | None:
    """The 64-bit number whose text `data` is, None where a number would not give the same text back."""
    if not data or len(data) > 20 or not data.lstrip(b"-").isdigit():
        return None
    n = int(data)
    return n if str(n).encode() == data and I64_MIN <= n <= I64_MAX else None


def signed(n: int, width: int) -> bytes:
    return n.to_bytes(width, "little", signed=True)


def fits(n: int, width: int) -> bool:
    return -(1 << 8 * width - 1) <= n < 1 << 8 * width - 1


def lzf(data: bytes) -> bytes:
    """LZF by looking for the last place where the next three bytes stood."""
    out, literal = bytearray(), bytearray()
    seen: dict[bytes, int] = {}
    at = 0

    def flush() -> None:
        for i in range(0, len(literal), 32):
            run = literal[i : i + 32]
            out.append(len(run) - 1)
            out.extend(run)
        literal.clear()

    while at < len(data):
        start = seen.get(data[at : at + 3], -1) if at + 3 <= len(data) else -1
        seen[data[at : at + 3]] = at
        if start < 0 or at - start > 8192:
            literal.append(data[at])
            at += 1
            continue
        size = 3
        while size < 264 and at + size < len(data) and data[start + size] == data[at + size]:
            size += 1
        flush()
        high, low = divmod(at - start - 1, 256)
        out.extend((size - 2 << 5 | high, low) if size < 9 else (7 << 5 | high, size - 9, low))
        at += size
    flush()
    return bytes(out)


def lzf_string(data: bytes, rng: Random) -> bytes:
    packed = lzf(data)
    return b"\xc3" + number(len(packed), rng) + number(len(data), rng) + packed


def text(data: bytes, rng: Random) -> bytes:
    """A string in any of its forms."""
    forms = [number(len(data), rng) + data] * 4
    n = integer(data)
    if n is not None:
        forms += [bytes([0xC0 | k]) + signed(n, 1 << k) for k in range(3) if fits(n, 1 << k)] * 4
    if 0 < len(data) < 1 << 17:  # more would take this compressor seconds
        forms.append(lzf_string(data, rng))
    return rng.choice(forms)


def texts(items: Iterable[bytes], rng: Random) -> bytes:
    return b"".join(text(item, rng) for item in items)


def counted(items: Sequence[bytes], rng: Random) -> bytes:
    return number(len(items), rng) + texts(items, rng)


# Packed encodings (2.5)


def listpack_int(n: int, rng: Random) -> bytes:
    forms = [code + signed(n, width) for code, width in ((b"\xf1", 2), (b"\xf2", 3), (b"\xf3", 4), (b"\xf4", 8)) if fits(n, width)]
    if 0 <= n < 128:
        forms.append(bytes([n]))
    if -4096 <= n < 4096:
        forms.append((0xC000 | n & 0x1FFF).to_bytes(2, "big"))
    return rng.choice(forms)


def listpack_str(data: bytes, rng: Random) -> bytes:
    forms = [b"\xf0" + len(data).to_bytes(4, "little") + data]
    if len(data) < 64:
        forms.append(bytes([0x80 | len(data)]) + data)
    if len(data) < 4096:
        forms.append((0xE000 | len(data)).to_bytes(2, "big") + data)
    return rng.choice(forms)


def backlen(size: int) -> bytes:
    """The size of an entry, for walking backwards; 16383, 2097151 and so on take the next width though they would fit."""
    width = 1 if size <= 127 else 2 if size < 16383 else 3 if size < 2097151 else 4 if size < 268435455 else 5
    groups = [size >> 7 * i & 127 for i in reversed(range(width))]
    return bytes([groups[0], *(g | 128 for g in groups[1:])])


def listpack_entry(item: bytes | int, rng: Random) -> bytes:
    """One entry; bytes that are a number's text may be stored as that number."""
    n = item if isinstance(item, int) else integer(item)
    if n is not None and (isinstance(item, int) or rng.random() < 0.8):
        body = listpack_int(n, rng)
    else:
        assert isinstance(item, bytes)
        body = listpack_str(item, rng)
    return body + backlen(len(body))


def listpack_of(entries: Sequence[bytes], *, size: int | None = None, count: int | None = None, end: bytes = b"\xff") -> bytes:
    """A listpack of entries that are already encoded; the keywords say something else than the truth in its header."""
    body = b"".join(entries) + end
    size = len(body) + 6 if size is None else size
    count = min(len(entries), 65535) if count is None else count
    return struct.pack("<IH", size, count) + body


def listpack(items: Sequence[bytes | int], rng: Random) -> bytes:
    # A listpack that once was longer than 65534 entries keeps 65535, for "count them".
    return listpack_of([listpack_entry(i, rng) for i in items], count=65535 if rng.random() < 0.1 else None)


def ziplist_body(item: bytes, rng: Random) -> bytes:
    n = integer(item)
    if n is not None and rng.random() < 0.8:
        codes = ((b"\xfe", 1), (b"\xc0", 2), (b"\xf0", 3), (b"\xd0", 4), (b"\xe0", 8))
        forms = [code + signed(n, width) for code, width in codes if fits(n, width)]
        if 0 <= n <= 12:
            forms.append(bytes([0xF1 + n]))
        return rng.choice(forms)
    forms = [b"\x80" + len(item).to_bytes(4, "big") + item]
    if len(item) < 64:
        forms.append(bytes([len(item)]) + item)
    if len(item) < 1 << 14:
        forms.append((0x4000 | len(item)).to_bytes(2, "big") + item)
    return rng.choice(forms)


def prevlen(size: int, rng: Random) -> bytes:
    if size < 254 and rng.random() < 0.9:
        return bytes([size])
    return b"\xfe" + size.to_bytes(4, "little")  # an entry that shrank leaves the long form behind


def ziplist_of(
    entries: Sequence[bytes], *, size: int | None = None, tail: int | None = None, count: int | None = None, end: bytes = b"\xff"
) -> bytes:
    """A ziplist of whole entries, as `listpack_of`."""
    body = b"".join(entries) + end
    size = len(body) + 10 if size is None else size
    tail = 10 + len(b"".join(entries[:-1])) if tail is None else tail
    count = min(len(entries), 65535) if count is None else count
    return struct.pack("<IIH", size, tail, count) + body


def ziplist(items: Sequence[bytes], rng: Random) -> bytes:
    entries: list[bytes] = []
    for item in items:
        entries.append(prevlen(len(entries[-1]) if entries else 0, rng) + ziplist_body(item, rng))
    return ziplist_of(entries, count=65535 if rng.random() < 0.1 else None)


def intset(numbers: Iterable[int], rng: Random) -> bytes:
    members = sorted(numbers)
    width = rng.choice([w for w in (2, 4, 8) if all(fits(n, w) for n in members)])  # stays wide when the widest is gone
    return struct.pack("<II", width, len(members)) + b"".join(signed(n, width) for n in members)


def zipmap(pairs: dict[bytes, bytes], rng: Random) -> bytes:
    def size(n: int) -> bytes:
        return bytes([n]) if n < 254 else b"\xfe" + n.to_bytes(4, "little")

    count = len(pairs) if len(pairs) < 254 and rng.random() < 0.8 else 254
    out = bytes([count])
    for key, value in pairs.items():
        free = rng.choice([0, 0, 0, 1, 4])
        junk = rng.choice([b"\0", b"\xff", b"x"]) * free
        out += size(len(key)) + key + size(len(value)) + bytes([free]) + value + junk
    return out + b"\xff"


def nodes(items: Sequence[Any], rng: Random) -> list[Sequence[Any]]:
    """The items cut into runs of any length, none empty."""
    cuts = sorted({0, *(rng.randrange(1, len(items)) for _ in range(rng.randrange(4)) if len(items) > 1)})
    return [items[a:b] for a, b in zip(cuts, [*cuts[1:], len(items)], strict=True) if b > a]


# Values


def pairs(value: dict[bytes, bytes]) -> list[bytes]:
    return [part for pair in value.items() for part in pair]


def score_text(score: float, rng: Random) -> bytes:
    """A score as text: as printf's %.17g, as the shortest text that reads back, or as a whole number."""
    if math.isinf(score):
        return b"inf" if score > 0 else b"-inf"
    forms = [b"%.17g" % score, repr(score).encode()]
    if score.is_integer() and abs(score) < 1 << 53 and (score or math.copysign(1, score) > 0):
        forms += [b"%d" % score] * 3
    return rng.choice(forms)


def scores_in_order(value: dict[bytes, float], rng: Random) -> list[bytes]:
    ordered = sorted(value.items(), key=lambda pair: (pair[1], pair[0]))
    return [part for member, score in ordered for part in (member, score_text(score, rng))]


def text_double(score: float) -> bytes:
    if math.isinf(score):
        return b"\xfe" if score > 0 else b"\xff"
    return bytes([len(b"%.17g" % score)]) + b"%.17g" % score


def zset_text(value: dict[bytes, float], rng: Random) -> bytes:
    return number(len(value), rng) + b"".join(text(m, rng) + text_double(s) for m, s in value.items())


def zset_binary(value: dict[bytes, float], rng: Random) -> bytes:
    items = sorted(value.items(), key=lambda pair: -pair[1]) if rng.random() < 0.5 else list(value.items())
    return number(len(value), rng) + b"".join(text(m, rng) + struct.pack("<d", s) for m, s in items)


def quicklist(value: list[bytes], rng: Random) -> bytes:
    return counted([ziplist(run, rng) for run in nodes(value, rng)], rng)


def quicklist2(value: list[bytes], rng: Random) -> bytes:
    found = [b""] if rng.random() < 0.1 else []  # stands for an empty packed node, which loaders pass
    out = b"".join(b"\x02" + text(listpack([], rng), rng) for _ in found)
    for run in nodes(value, rng):
        plain = rng.random() < 0.3
        for part in [[item] for item in run] if plain else [run]:
            # a plain node of no bytes is refused
            out += b"\x01" + text(part[0], rng) if plain and part[0] else b"\x02" + text(listpack(part, rng), rng)
            found.append(b"")
    return number(len(found), rng) + out


def hash_rc(value: FieldsWithExpiry, rng: Random) -> bytes:
    return number(len(value), rng) + b"".join(number(t or 0, rng) + text(f, rng) + text(v, rng) for f, (v, t) in value.items())


def hash_valkey(value: FieldsWithExpiry, rng: Random) -> bytes:
    items = (text(f, rng) + text(v, rng) + signed(-1 if t is None else t, 8) for f, (v, t) in value.items())
    return number(len(value), rng) + b"".join(items)


def hash_expiring(value: FieldsWithExpiry, rng: Random) -> bytes:
    """Times are stored as the distance from the smallest, plus one."""
    least = min((t for _, t in value.values() if t is not None), default=0)
    out = signed(least, 8) + number(len(value), rng)
    for field, (data, t) in value.items():
        out += number(0 if t is None else t - least + 1, rng) + text(field, rng) + text(data, rng)
    return out


def triples(value: FieldsWithExpiry, rng: Random) -> bytes:
    """Fields in the order of their times, those without one last."""
    ordered = sorted(value.items(), key=lambda item: item[1][1] or 1 << 60)
    return listpack([part for field, (data, t) in ordered for part in (field, data, t or 0)], rng)


def hash_expiring_listpack(value: FieldsWithExpiry, rng: Random) -> bytes:
    least = min((t for _, t in value.values() if t is not None), default=0)
    return signed(least, 8) + text(triples(value, rng), rng)


def array(value: ArrayValue, rng: Random) -> bytes:
    insert_index, items = value
    out = number(len(items), rng) + (b"\0" if insert_index is None else b"\1" + number(insert_index, rng))
    for index in sorted(items):
        item = items[index]
        out += number(index, rng)
        if isinstance(item, float):
            out += b"\x02" + struct.pack("<d", item)
        elif isinstance(item, int):
            out += b"\x01" + signed(item, 8)
        else:
            out += bytes([rng.choice([0, 3]) if len(item) <= 7 else 0]) + text(item, rng)
    return out


def module(value: ModuleValue, rng: Random) -> bytes:
    name = 0
    for letter in value.module:
        name = name << 6 | MODULE_LETTERS.index(letter)
    return b"\x81" + (name << 10 | value.version).to_bytes(8, "big") + value.raw


def frames(values: list[tuple[int, Any]]) -> bytes:
    """The framed values of a module: opcode, then what it announces."""
    out = b""
    for opcode, item in values:
        out += length(opcode)
        if opcode <= 2:
            out += length(item)
        elif opcode <= 4:
            out += struct.pack("<f" if opcode == 3 else "<d", item)
        else:
            out += length(len(item)) + item
    return out + b"\0"


def cron(value: CronJob, rng: Random) -> bytes:
    times = struct.pack("<qq", value.start_ms, value.interval_ms)
    return text(value.script, rng) + times + counted(value.keys, rng) + counted(value.args, rng)


def seconds(expiry: int | None) -> bytes:
    return b"-1" if expiry is None else b"%d" % (expiry // 1000)


def hash_dragonfly(value: FieldsWithExpiry, rng: Random) -> bytes:
    items = (texts((f, v, seconds(t)), rng) for f, (v, t) in value.items())
    return number(len(value), rng) + b"".join(items)


def set_dragonfly(value: dict[bytes, int | None], rng: Random) -> bytes:
    return number(len(value), rng) + b"".join(texts((m, seconds(t)), rng) for m, t in value.items())


# Hash templates (RDB 15)

TEMPLATE_IDS = (1, 77, 1 << 20)


def in_template_order(fields: Iterable[bytes]) -> list[bytes]:
    return sorted(fields, key=lambda name: (len(name), name))


def template(value: dict[bytes, bytes], rng: Random) -> bytes:
    """The opcodes before the first database: the template of `value` and another one, whose fields are others."""
    out = b""
    for number_of, fields in ((TEMPLATE_IDS[0], [b"other", b"fields"]), (TEMPLATE_IDS[1 + len(value) % 2], list(value))):
        out += b"\xf2" + number(number_of, rng) + counted(in_template_order(fields), rng)
    return out


def template_id(value: dict[bytes, bytes]) -> int:
    return TEMPLATE_IDS[1 + len(value) % 2]


def fieldset(value: dict[bytes, bytes], rng: Random) -> bytes:
    names = in_template_order(value)
    return b"\0" + text(listpack(names, rng), rng) if rng.random() < 0.5 else b"\1" + counted(names, rng)


def values_of(value: dict[bytes, bytes]) -> list[bytes]:
    return [value[name] for name in in_template_order(value)]


def hash_fields_listpack(value: dict[bytes, bytes], rng: Random) -> bytes:
    return fieldset(value, rng) + text(listpack([rng.randrange(1000), *values_of(value)], rng), rng)


def hash_template_listpack(value: dict[bytes, bytes], rng: Random) -> bytes:
    return text(listpack([template_id(value), *values_of(value)], rng), rng)


def hash_fields(value: dict[bytes, bytes], rng: Random) -> bytes:
    return fieldset(value, rng) + texts(values_of(value), rng)


def hash_template(value: dict[bytes, bytes], rng: Random) -> bytes:
    return number(template_id(value), rng) + texts(values_of(value), rng)


# Streams (2.4)


def raw_id(an_id: StreamId) -> bytes:
    return struct.pack(">QQ", *an_id)


def delta(n: int, base: int) -> int:
    """A distance as the listpack has it: 64 bits, signed."""
    return (n - base + (1 << 63)) % (1 << 64) - (1 << 63)


def node(entries: Sequence[StreamEntry], after: StreamId, rng: Random) -> bytes:
    """A node's key and its listpack, with deleted entries strewn in, whose ids lie behind `after`."""
    fields = [name for name, _ in rng.choice([entries[0], rng.choice(entries)]).fields]
    rows: list[tuple[int, StreamEntry]] = []
    for entry in entries:
        before = StreamId(entry.id.ms, entry.id.seq - 1)
        if before.seq >= 0 and (rows[-1][1].id if rows else after) < before and rng.random() < 0.3:
            names = fields if rng.random() < 0.5 else [b"gone"]
            rows.append((1, StreamEntry(before, [(name, b"%d" % rng.randrange(10)) for name in names])))
        rows.append((0, entry))
    base = rows[0][1].id
    deleted = sum(flag for flag, _ in rows)
    items: list[bytes | int] = [len(rows) - deleted, deleted, len(fields), *fields, 0]
    for flag, entry in rows:
        same = [name for name, _ in entry.fields] == fields and rng.random() < 0.9
        items += [flag | 2 * same, delta(entry.id.ms, base.ms), delta(entry.id.seq, base.seq)]
        if same:
            items += [value for _, value in entry.fields]
        else:
            items += [len(entry.fields), *(part for pair in entry.fields for part in pair)]
        items.append(len(fields) + 3 if same else 2 * len(entry.fields) + 4)
    return text(raw_id(base), rng) + text(listpack(items, rng), rng)


def group(value: StreamGroup, version: int, rng: Random) -> bytes:
    out = text(value.name, rng) + number(value.last_id.ms, rng) + number(value.last_id.seq, rng)
    if version >= 2:
        assert value.entries_read is not None
        out += number(value.entries_read & U64, rng)
    out += number(len(value.pending), rng)
    for p in value.pending:
        out += raw_id(p.id) + signed(p.delivery_ms, 8) + number(p.delivery_count, rng)
    out += number(len(value.consumers), rng)
    for consumer in value.consumers:
        owned = [p.id for p in value.pending if p.consumer == consumer.name]
        out += text(consumer.name, rng) + signed(consumer.seen_ms, 8)
        if version >= 3:
            assert consumer.active_ms is not None
            out += signed(consumer.active_ms, 8)
        out += number(len(owned), rng) + b"".join(raw_id(i) for i in owned)
    if version >= 5:
        out += number(len(value.nacked), rng) + b"".join(raw_id(i) for i in value.nacked)
    return out


def dedup(value: StreamDedup, rng: Random) -> bytes:
    out = b"".join(number(n, rng) for n in (value.duration_s, value.max_entries, len(value.producers)))
    for producer, ids in value.producers:
        out += text(producer, rng) + number(len(ids), rng)
        out += b"".join(text(name, rng) + number(i.ms, rng) + number(i.seq, rng) for name, i in ids)
    return out + number(value.added, rng) + number(value.duplicates, rng)


def stream(version: int) -> Callable[[Stream, Random], bytes]:
    def encode(value: Stream, rng: Random) -> bytes:
        runs = nodes(value.entries, rng)
        out = number(len(runs), rng) + b"".join(
            node(run, runs[i - 1][-1].id if i else StreamId(0, 0), rng) for i, run in enumerate(runs)
        )
        numbers = [value.length, *value.last_id]
        if version >= 2:
            assert value.first_id is not None
            assert value.max_deleted_id is not None
            assert value.entries_added is not None
            numbers += [*value.first_id, *value.max_deleted_id, value.entries_added]
        out += b"".join(number(n, rng) for n in [*numbers, len(value.groups)])
        out += b"".join(group(g, version, rng) for g in value.groups)
        if version >= 4:
            assert value.dedup is not None
            out += dedup(value.dedup, rng)
        return out

    return encode


# Strategies

NUMBERS = [b"%d" % n for e in (0, 3, 7, 12, 15, 23, 31, 63) for n in (-(1 << e) - 1, -(1 << e), (1 << e) - 1, 1 << e)]
NOT_NUMBERS = [b"", b"-", b"-0", b"00", b"01", b"+1", b" 1", b"1.0", b"1e3", b"9223372036854775808", b"\xff", b"\0", b"inf"]
LONG = [bytes([65 + n % 26]) * n for n in (20, 62, 63, 64, 65, 125, 126, 127, 252, 253, 254, 255, 256, 300)]
LONG += [bytes(range(256)) * 17, bytes(random_byte for random_byte in Random(1).randbytes(5000))]
TEXT = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(NOT_NUMBERS + LONG), st.binary(max_size=8))


def many(rng_seed: int, n: int) -> list[bytes]:
    """Distinct strings, more than any small block holds."""
    rng = Random(rng_seed)
    forms = [b"%d", b"name:%d", b"\xff%d"]
    return list({rng.choice(forms) % rng.randrange(-(1 << rng.randrange(1, 40)), 1 << 20) for _ in range(n)})


MANY = st.builds(many, st.integers(0, 1 << 16), st.integers(1, 400))
LISTS = st.one_of(st.lists(TEXT, min_size=1, max_size=8), MANY)
SETS = LISTS.map(set)
INTEGERS = st.one_of(st.sampled_from([int(n) for n in NUMBERS if integer(n) is not None]), st.integers(I64_MIN, I64_MAX))
INT_SETS = st.one_of(*(st.sets(st.integers(-(1 << bits), (1 << bits) - 1), min_size=1, max_size=20) for bits in (5, 15, 31, 63)))
HASHES = st.one_of(
    st.dictionaries(TEXT, TEXT, min_size=1, max_size=8),
    st.builds(lambda names: dict(zip(names, reversed(names), strict=True)), MANY),
)
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 1e300, 5e-324, 1.7976931348623157e308, 2.0**53, math.inf, -math.inf, 3.0e15]),
    st.floats(allow_nan=False),
    st.integers(-(1 << 53), 1 << 53).map(float),
)
ZSETS = st.one_of(
    st.dictionaries(TEXT, SCORES, min_size=1, max_size=8),
    st.builds(lambda names: {name: i / 4 for i, name in enumerate(names)}, MANY),
)
TIMES = st.one_of(
    st.none(), st.sampled_from([1, 4_102_444_800_123, 4_102_444_800_124, (1 << 46) - 1, MAX_FIELD_EXPIRY]), st.integers(1, 1 << 43)
)


def with_times(fields: dict[bytes, bytes], times: list[int | None]) -> FieldsWithExpiry:
    return {f: (v, times[i % len(times)]) for i, (f, v) in enumerate(fields.items())}


EXPIRING = st.builds(with_times, HASHES, st.lists(TIMES, min_size=1, max_size=8))
SECONDS = st.one_of(st.none(), st.integers(1, 1 << 33).map(lambda s: s * 1000))
EXPIRING_SECONDS = st.builds(with_times, HASHES, st.lists(SECONDS, min_size=1, max_size=8))
EXPIRING_MEMBERS = EXPIRING_SECONDS.map(lambda fields: {member: t for member, (_, t) in fields.items()})
INDEXES = st.one_of(st.integers(0, 300), st.sampled_from([1 << 14, 1 << 32, (1 << 63) + 1, U64 - 1]))
ARRAY_ITEMS = st.one_of(TEXT, INTEGERS, st.floats(allow_nan=False))
ARRAYS = st.tuples(st.one_of(st.none(), INDEXES), st.dictionaries(INDEXES, ARRAY_ITEMS, min_size=1, max_size=12))
UNSIGNED = st.one_of(st.integers(0, 70), st.integers(0, U64))
MODULES = st.builds(
    ModuleValue,
    st.one_of(st.text(MODULE_LETTERS, min_size=9, max_size=9), st.sampled_from(["ReJSON-RL", "vectorset"])),
    st.integers(0, 1023),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([1, 2]), UNSIGNED),
            st.tuples(st.just(3), st.floats(width=32)),
            st.tuples(st.just(4), st.floats()),
            st.tuples(st.just(5), TEXT),
        ),
        max_size=8,
    ).map(frames),
)
SIGNED = st.one_of(st.integers(0, 1 << 42), st.integers(I64_MIN, I64_MAX))
CRONS = st.builds(CronJob, TEXT, SIGNED, SIGNED, st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=4))


@st.composite
def streams(draw: st.DrawFn, version: int) -> Stream:
    """A stream and its groups; most of it from one drawn seed, since drawing each number would take most of the tests' time."""
    entry_count, group_count = draw(st.integers(0, 40)), draw(st.integers(0, 3))
    pool = draw(st.lists(TEXT, min_size=2, max_size=6, unique=True))
    rng = Random(draw(st.integers(0, 1 << 32)))
    ids = {a_stream_id(rng) for _ in range(entry_count)}
    shape = [rng.choice(pool) for _ in range(rng.randrange(1, 5))]
    value = Stream()
    for i in sorted(ids):
        names = shape if rng.random() < 0.7 else [rng.choice(pool) for _ in range(rng.randrange(1, 4))]
        value.entries.append(StreamEntry(i, [(name, rng.choice(pool)) for name in names]))
    value.length = len(value.entries)
    value.last_id = max([a_stream_id(rng), *ids])
    if version >= 2:
        value.first_id = value.entries[0].id if value.entries else StreamId(0, 0)
        value.max_deleted_id = rng.choice([StreamId(0, 0), a_stream_id(rng)])
        value.entries_added = len(value.entries) + rng.choice([0, 5, 1 << 40])
    value.groups = [a_group(b"g%d" % n + rng.choice(pool), version, pool, rng, value.entries_added) for n in range(group_count)]
    if version >= 4:
        value.dedup = StreamDedup(
            rng.choice([1, 100, 86400]),
            rng.choice([1, 100, 10000]),
            [(b"p%d" % p, [(b"i%d" % i, a_stream_id(rng)) for i in range(rng.randrange(4))]) for p in range(rng.randrange(3))],
            rng.choice([0, 7, 1 << 40]),
            rng.choice([0, 3]),
        )
    return value


def a_stream_id(rng: Random) -> StreamId:
    ms = rng.choice([rng.randrange(3), 1_700_000_000_000 + rng.randrange(100), U64 if rng.random() < 0.05 else 5])
    return StreamId(ms, rng.choice([0, 1, rng.randrange(70_000), U64 if rng.random() < 0.05 else 2]))


def a_group(name: bytes, version: int, pool: list[bytes], rng: Random, added: int | None) -> StreamGroup:
    when = 1_700_000_000_000 + rng.randrange(1 << 20)
    consumers = [
        StreamConsumer(b"c%d" % n + rng.choice(pool), when, None if version < 3 else rng.choice([-1, when + 1]))
        for n in range(rng.randrange(3))
    ]
    owners: list[bytes | None] = [c.name for c in consumers]
    if version >= 5:
        owners.append(None)
    ids = sorted({a_stream_id(rng) for _ in range(rng.randrange(20))}) if owners else []
    pending = [PendingEntry(i, rng.choice(owners), when - rng.randrange(100), rng.choice([0, 1, 300])) for i in ids]
    nacked = [p.id for p in pending if p.consumer is None]
    rng.shuffle(nacked)
    entries_read = None if version < 2 else min(rng.choice([-1, 0, 5, 1 << 40]), added or 0)
    return StreamGroup(name, a_stream_id(rng), entries_read, pending, consumers, nacked)


# The table


class Encoder(NamedTuple):
    """How one value type of one flavour and version is written.

    `preamble` gives what must stand before the first database for the value to be read.
    """

    name: str
    magic: bytes
    type_code: int
    values: st.SearchStrategy[Any]
    encode: Callable[[Any, Random], bytes]
    preamble: Callable[[Any, Random], bytes] = lambda value, rng: b""

    def __repr__(self) -> str:
        return self.name


def blob(pack: Callable[[Any, Random], bytes], shape: Callable[[Any], Any] = lambda value: value) -> Callable[[Any, Random], bytes]:
    """An encoder of a value that is one packed string."""
    return lambda value, rng: text(pack(shape(value), rng), rng)


def numbers_of(value: set[bytes]) -> set[int]:
    return {int(member) for member in value}


NUMBER_TEXTS = INT_SETS.map(lambda numbers: {b"%d" % n for n in numbers})

ENCODERS = [
    Encoder("string", b"REDIS0001", 0, TEXT, text),
    Encoder("long string", b"REDIS0009", 0, MANY.map(b",".join), text),
    Encoder("list", b"REDIS0001", 1, LISTS, counted),
    Encoder("set", b"REDIS0003", 2, SETS, lambda value, rng: counted(list(value), rng)),
    Encoder("zset", b"REDIS0003", 3, ZSETS, zset_text),
    Encoder("hash", b"REDIS0003", 4, HASHES, lambda value, rng: number(len(value), rng) + texts(pairs(value), rng)),
    Encoder("zset 2", b"REDIS0008", 5, ZSETS, zset_binary),
    Encoder("module", b"REDIS0008", 7, MODULES, module),
    Encoder("zipmap", b"REDIS0003", 9, HASHES, blob(zipmap)),
    Encoder("list ziplist", b"REDIS0006", 10, LISTS, blob(ziplist)),
    Encoder("intset", b"REDIS0003", 11, NUMBER_TEXTS, blob(intset, numbers_of)),
    Encoder("zset ziplist", b"REDIS0006", 12, ZSETS, lambda value, rng: text(ziplist(scores_in_order(value, rng), rng), rng)),
    Encoder("hash ziplist", b"REDIS0006", 13, HASHES, blob(ziplist, pairs)),
    Encoder("quicklist", b"REDIS0007", 14, LISTS, quicklist),
    Encoder("hash listpack", b"REDIS0010", 16, HASHES, blob(listpack, pairs)),
    Encoder("zset listpack", b"REDIS0010", 17, ZSETS, lambda value, rng: text(listpack(scores_in_order(value, rng), rng), rng)),
    Encoder("quicklist 2", b"REDIS0010", 18, LISTS, quicklist2),
    Encoder("set listpack", b"REDIS0011", 20, SETS, blob(listpack, list)),
    Encoder("stream", b"REDIS0009", 15, streams(1), stream(1)),
    Encoder("stream 2", b"REDIS0010", 19, streams(2), stream(2)),
    Encoder("stream 3", b"REDIS0011", 21, streams(3), stream(3)),
    Encoder("stream 4", b"REDIS0013", 26, streams(4), stream(4)),
    Encoder("stream 5", b"REDIS0014", 27, streams(5), stream(5)),
    Encoder("hash with expiry, 7.4 RC", b"REDIS0012", 22, EXPIRING, hash_rc),
    Encoder("hash with expiry, Valkey", b"VALKEY080", 22, EXPIRING, hash_valkey),
    Encoder("listpack with expiry, 7.4 RC", b"REDIS0012", 23, EXPIRING, blob(triples)),
    Encoder("hash with expiry", b"REDIS0012", 24, EXPIRING, hash_expiring),
    Encoder("listpack with expiry", b"REDIS0012", 25, EXPIRING, hash_expiring_listpack),
    Encoder("array", b"REDIS0014", 28, ARRAYS, array),
    Encoder("gcra, 8.8", b"REDIS0014", 29, UNSIGNED, number),
    Encoder("fields, listpack", b"REDIS0015", 29, HASHES, hash_fields_listpack),
    Encoder("template, listpack", b"REDIS0015", 30, HASHES, hash_template_listpack, template),
    Encoder("fields", b"REDIS0015", 31, HASHES, hash_fields),
    Encoder("template", b"REDIS0015", 32, HASHES, hash_template, template),
    Encoder("gcra", b"REDIS0015", 33, UNSIGNED, number),
    Encoder("cron, KeyDB", b"REDIS0009", 64, CRONS, cron),
    Encoder("json, Dragonfly", b"REDIS0009", 30, TEXT, text),
    Encoder("hash with expiry, Dragonfly", b"REDIS0009", 31, EXPIRING_SECONDS, hash_dragonfly),
    Encoder("set with expiry, Dragonfly", b"REDIS0009", 32, EXPIRING_MEMBERS, set_dragonfly),
]


# What is read, in the shapes of the table


def exact(value: Any) -> Any:
    """A number with its type and every bit, for -0.0 == 0 == 0.0."""
    return ("float", struct.pack("<d", value)) if isinstance(value, float) else (type(value).__name__, value)


def comparable(value: Any) -> Any:
    """The value in a form whose equality sees all of it; what the table holds and what is read give the same."""
    if isinstance(value, Hash):
        assert value.field_expire_ms.keys() <= value.keys()
        return {field: (data, value.field_expire_ms.get(field)) for field, data in value.items()}
    if isinstance(value, Set) and value.member_expire_ms:
        assert value.member_expire_ms.keys() <= value
        return {member: value.member_expire_ms.get(member) for member in value}
    if isinstance(value, Array):
        return value.insert_index, {index: exact(item) for index, item in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        return value[0], {index: exact(item) for index, item in value[1].items()}
    if isinstance(value, dict):
        first = next(iter(value.values()), None)
        if value and all(expiry is None for expiry in value.values()):
            return set(value)
        if isinstance(first, bytes):
            return {field: (data, None) for field, data in value.items()}
        return {key: exact(item) if isinstance(item, float) else item for key, item in value.items()}
    return value


def joined(type_name: str, items: list[Any]) -> Any:
    """The value that a row of elements makes up, in the form of `comparable`. An array's elements leave out where the next
    insertion goes."""
    if type_name == "list":
        return items
    if type_name == "set":
        assert len(set(items)) == len(items)
        return set(items)
    if type_name == "zset":
        assert len(dict(items)) == len(items)
        return {member: exact(score) for member, score in items}
    if type_name == "hash":
        assert len({field for field, _, _ in items}) == len(items)
        return {field: (data, expiry) for field, data, expiry in items}
    if type_name == "array":
        return {index: exact(item) for index, item in items}
    if type_name == "stream":
        return joined_stream(items)
    (value,) = items
    return value


def joined_stream(items: list[Any]) -> Stream:
    at = next(i for i, item in enumerate(items) if isinstance(item, StreamTail))
    tail = items[at]
    groups = [item for item in items[at + 1 :] if isinstance(item, StreamGroup)]
    rest = items[at + 1 + len(groups) :]
    assert len(groups) == tail.groups
    assert len(rest) <= 1
    return Stream(
        entries=items[:at],
        length=tail.length,
        last_id=tail.last_id,
        first_id=tail.first_id,
        max_deleted_id=tail.max_deleted_id,
        entries_added=tail.entries_added,
        groups=groups,
        dedup=rest[0] if rest else None,
    )
