"""How many bytes a key takes in a server's memory, from the lengths that the file says: nothing is decoded or unpacked.

What MEMORY USAGE would answer, with the expected height of skip lists in place of the one that the server draws. Compiled, since it
runs once a record, and once an element of what is not packed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError, LimitError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.constants import ValueType, check_rows
from rdbkit.format.counts import count_rule, element_count
from rdbkit.format.entry_sizes import LISTPACK_ENDS, ZIPLIST_ENDS, as_listpack, entry_of, entry_of_number
from rdbkit.format.packed import PackedReader
from rdbkit.format.primitives import read_integer, read_length, read_string, skip_length, skip_string
from rdbkit.format.readers import READERS, reader_number
from rdbkit.format.scan import STRING_INT, STRING_LZF, TYPE_CODES
from rdbkit.format.sink import Sink
from rdbkit.format.skip import (
    BATCH,
    OP_BYTES,
    OP_COUNT,
    OP_END,
    OP_LENGTH,
    OP_LOOP,
    OP_NEXT,
    OP_NODES,
    OP_STRING,
    OP_TEXT_DOUBLE,
    SAME,
    compile_layout,
    skip_container,
)
from rdbkit.passes.allocation import ID_SIZE, SHORT, AllocationModel, ExpirySet, RadixTree

if TYPE_CHECKING:
    from mypy_extensions import i64

_BY_TIME: Final = 130  # of a hash of which fields expire: how they are found by time; so measured
_IN_TIME: Final = 6  # and of such a field
_WHOLE: Final = 16 << 20  # bytes in the file of a packed value whose entries are looked at
_UNPACKED: Final = 64 << 20  # and in memory

# How the value of a type is measured.
_OTHER: Final = 0
_STRING: Final = 1
_PACKED: Final = 2
_ELEMENTWISE: Final = 3  # from here on: what stands in the file one by one
_LIST: Final = 3
_SET: Final = 4
_HASH: Final = 5
_ZSET: Final = 6
_NODES: Final = 7
_STREAM: Final = 8

_COLLECTION: Final = 9  # by its type: one of _LIST to _ZSET
_COLLECTIONS: Final = {"list": _LIST, "set": _SET, "hash": _HASH, "zset": _ZSET}
_STRUCTURES: Final = {
    "string": _STRING,
    "strings": _COLLECTION,
    "scored": _COLLECTION,
    "text-scored": _COLLECTION,
    "nodes": _NODES,
    "packed-nodes": _NODES,
    "packed": _PACKED,
    "expiry-first": _COLLECTION,
    "expiry-last": _COLLECTION,
    "expiry-text": _OTHER,
    "stream": _STREAM,
    "array": _OTHER,
    "module": _OTHER,
    "cron": _OTHER,
    "number": _OTHER,
    "named-listpack": _OTHER,
    "named": _OTHER,
    "template-listpack": _OTHER,
    "template": _OTHER,
}
check_rows("shape", _STRUCTURES, "nothing says what memory it takes for shape")

# What stands at a place of a layout's program.
_PASSED: Final = 0
_MEMBER: Final = 1
_FIELD: Final = 2
_VALUE: Final = 3
_EXPIRY: Final = 4
_SCORE: Final = 5
_NODE: Final = 6
_COUNT: Final = 7
_NODE_COUNT: Final = 8
_GROUPS: Final = 9
_CONSUMERS: Final = 10
_PENDING: Final = 11
_NODE_ID: Final = 12
_CONSUMER: Final = 13
_PENDING_ID: Final = 14

_DOUBLE: Final = struct.Struct("<d").unpack_from
_INT64: Final = struct.Struct("<q").unpack_from


def _structure_of(value_type: ValueType) -> int:
    """How values of this type are measured."""
    structure = _STRUCTURES[value_type.shape]
    if structure == _COLLECTION:
        return _COLLECTIONS[value_type.type]
    if structure == _STRING and value_type.type != "string":
        return _OTHER
    if value_type.shape == "expiry-text" and value_type.type == "set":
        return _SET
    return structure


def _places(structure: int, program: bytes) -> bytes:
    """What stands at each instruction of a program."""
    places = bytearray(len(program))
    texts = {_LIST: [_MEMBER], _SET: [_MEMBER], _HASH: [_FIELD, _VALUE], _ZSET: [_MEMBER], _NODES: [_NODE]}
    counts = [_COUNT]
    ids: list[int] = []
    if structure == _STREAM:  # of nodes id and listpack; names of a group and of a consumer; ids of what is pending in them
        texts[structure] = [_NODE_ID, _NODE, _PASSED, _CONSUMER]
        counts = [_NODE_COUNT, _GROUPS, _PENDING, _CONSUMERS, _PENDING]
        ids = [_PENDING_ID, _PENDING_ID]
    of_texts = list(texts[structure])
    inside = False
    for at in range(0, len(program), 2):
        operation = program[at]
        if operation == OP_LOOP:
            inside = True
        elif operation == OP_STRING and of_texts:
            places[at] = of_texts.pop(0)
        elif operation == OP_COUNT and counts:
            places[at] = counts.pop(0)
        elif operation == OP_BYTES and program[at + 1] == ID_SIZE and ids:
            places[at] = ids.pop(0)
        elif inside and structure in (_HASH, _ZSET) and operation in (OP_LENGTH, OP_BYTES, OP_TEXT_DOUBLE):
            places[at] = _EXPIRY if structure == _HASH else _SCORE
    return bytes(places)


def text_length(buf: bytes, pos: i64) -> i64:
    """How long the string at `pos` is once it is unpacked; that of a number is the length of its decimal text."""
    first: i64 = buf[pos]
    if first < 0x40:
        return first
    n: i64
    if first < 0xC0:
        n, _ = read_length(buf, pos)
        return n
    if first == 0xC3:
        _, pos = read_length(buf, pos + 1)
        n, _ = read_length(buf, pos)
        return n
    return len(str(read_integer(buf, pos)))


class Loose(Sink):
    """Weighs the entries of a packed value that becomes a table, or another packed form.

    Attributes:
        cost: of the elements with their entries; those of sorted sets in 1/16.
        packed: bytes of the entries where they are packed again.
        most: bytes of the longest.
    """

    def __init__(self, model: AllocationModel) -> None:
        self.model: AllocationModel = model
        self.begin(0, 1)

    def begin(self, structure: i64, texts: i64) -> None:
        """Make ready for a value whose elements have so many entries."""
        self.structure: i64 = structure
        self.texts: i64 = texts
        self.nth: i64 = 0
        self.field: i64 = 0
        self.value: i64 = 0
        self.cost: i64 = 0
        self.packed: i64 = 0
        self.most: i64 = 0
        self.before: i64 = 0
        self.expiring: i64 = 0

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        n: i64 = end - start
        if 0 < n <= 20 and buf[end - 1] < 0x3A and is_long(buf[start:end]):
            self.entry(n, entry_of_number(int(buf[start:end]), self.model.ziplists), True)
        else:
            self.entry(n, entry_of(n, self.model.ziplists), True)

    def integer(self, n: i64) -> None:
        self.entry(len(str(n)), entry_of_number(n, self.model.ziplists), n != 0)

    def entry(self, n: i64, size: i64, expires: bool) -> None:
        """An entry of `n` bytes, which takes `size` bytes when it is packed."""
        model = self.model
        if model.ziplists and self.before >= 254:
            size += 4
        self.before = size
        self.packed += size
        nth: i64 = self.nth
        self.nth = nth + 1 if nth + 1 < self.texts else 0
        if n > self.most:
            self.most = n
        if self.structure == _SET:
            self.cost += model.member(n)
        elif self.structure == _ZSET:
            if nth == 0:
                self.cost += model.scored[n] if n < SHORT else model.scored_member(n)
        elif nth == 0:
            self.field = n
        elif nth == 1:
            self.value = n
            if self.texts == 2:
                self.cost += model.pair(self.field, n)
        elif expires:
            self.expiring += 1
            self.cost += model.expiring_pair(self.field, self.value)
        else:
            self.cost += model.pair(self.field, self.value)


class ValueSizer:
    """Measures values, without key and object: `whole` one that lies in a block; `begin`, `piece` and `finish` a larger one.

    Attributes:
        elements: how many the value has that was measured last, -1 where that was not needed to know.
    """

    def __init__(self, types: dict[int, ValueType], model: AllocationModel) -> None:
        self.model: AllocationModel = model
        structures = bytearray(TYPE_CODES)
        self.rules: list[int] = [0] * TYPE_CODES
        self.programs: list[bytes] = [b""] * TYPE_CODES
        self.places_of: list[bytes] = [b""] * TYPE_CODES
        self.turns: list[int] = [0] * TYPE_CODES  # what a packed value is otherwise
        self.ahead: list[int] = [0] * TYPE_CODES  # bytes before a packed value
        self.fields_expire: list[bool] = [False] * TYPE_CODES
        self.of_ziplists: list[bool] = [False] * TYPE_CODES
        self.last_expiries: list[bool] = [False] * TYPE_CODES
        self.readers: list[PackedReader] = [READERS[0]] * TYPE_CODES
        self.are_ints: list[bool] = [False] * TYPE_CODES
        self.are_zipmaps: list[bool] = [False] * TYPE_CODES
        self.are_ziplists: list[bool] = [False] * TYPE_CODES
        self.are_listpacks: list[bool] = [False] * TYPE_CODES
        for type_code, value_type in types.items():
            structure = _structure_of(value_type)
            structures[type_code] = structure
            self.rules[type_code] = count_rule(value_type)
            self.turns[type_code] = _COLLECTIONS.get(value_type.type, 0)
            self.ahead[type_code] = value_type.head
            self.of_ziplists[type_code] = structure == _NODES and value_type.packed == "ziplist"
            self.last_expiries[type_code] = value_type.shape == "expiry-last"
            self.fields_expire[type_code] = value_type.expires
            self.readers[type_code] = READERS[reader_number(value_type)]
            self.are_ints[type_code] = value_type.packed == "intset"
            self.are_zipmaps[type_code] = value_type.packed == "zipmap"
            self.are_ziplists[type_code] = value_type.packed == "ziplist"
            self.are_listpacks[type_code] = value_type.packed == "listpack"
            if structure >= _ELEMENTWISE:
                self.programs[type_code] = compile_layout(value_type.layout, runs=False)
                self.places_of[type_code] = _places(structure, self.programs[type_code])
        structures[STRING_INT] = _STRING
        structures[STRING_LZF] = _STRING
        self.structures: bytes = bytes(structures)
        self.loose: Loose = Loose(model)
        self.tree: RadixTree = RadixTree(model, ID_SIZE)
        self.expiries: ExpirySet = ExpirySet(model)
        self.entries: list[int] = [int(entry_of(n, model.ziplists)) for n in range(0x40)]
        self.type_code: i64 = 0
        self.structure: i64 = 0
        self.program: bytes = b""
        self.places: bytes = b""
        self.elements: i64 = -1
        self.begin(0)

    def needs_reading(self, type_code: i64) -> bool:
        """Whether a value of this type has to be read to be measured."""
        return self.structures[type_code] != _STRING

    def guesses(self, type_code: i64) -> bool:
        """Whether nothing but the bytes in the file is known of values of this type."""
        return self.structures[type_code] == _OTHER

    # -- a value that lies in a block

    def whole(self, type_code: i64, buf: bytes, pos: i64, end: i64) -> i64:
        """What the value in `buf[pos:end]` takes. Raises: CorruptError, with `offset` relative to `buf`."""
        structure: i64 = self.structures[type_code]
        if structure == _PACKED:
            return self.blob(type_code, buf, pos, end, True)
        if structure < _ELEMENTWISE:
            self.elements = -1
            return self.model.allocated(end - pos)
        self.begin(type_code)
        self.feed(buf, pos)
        if not self.done:
            raise CorruptError("its parts do not end where the value ends", offset=int(pos))
        return self.measured()

    def blob(self, type_code: i64, buf: bytes, pos: i64, end: i64, whole: bool) -> i64:
        """A packed value, of which `buf` has the first bytes at least; or what it becomes where it has too many elements."""
        model = self.model
        self.elements = -1
        n: i64 = text_length(buf, pos + self.ahead[type_code])
        if self.are_ziplists[type_code] and not model.ziplists:
            n = self.repacked(buf, pos, n)
        elif self.are_listpacks[type_code] and model.ziplists:
            n += ZIPLIST_ENDS - LISTPACK_ENDS
        structure: i64 = self.turns[type_code]
        if structure == _LIST:
            return self.nodes_of(n, element_count(self.rules[type_code], buf, pos, end, False) if n > model.list_node else -1)
        ints: bool = self.are_ints[type_code]
        texts: i64 = 1 if structure == _SET else 2
        limit: i64 = model.hash_entries
        if structure == _ZSET:
            limit = model.zset_entries
        elif structure == _SET:
            limit = model.set_ints if ints else model.set_entries
        expires: bool = self.fields_expire[type_code]
        tabled: bool = expires and model.embed_pair > 0
        zipmap: bool = self.are_zipmaps[type_code]
        beyond: i64 = model.packed_expiring if expires else 0
        if n <= limit * texts * 2 and not tabled and not zipmap:
            return model.packed(n) + beyond
        count: i64 = element_count(self.rules[type_code], buf, pos, end, whole)
        if count < 0:  # more than the header holds, and not all of the value is here; a zipmap had at most 512 pairs
            count = limit if zipmap else n // (16 * texts)
        self.elements = count
        if count <= limit and not tabled and not zipmap:
            return model.packed(n) + beyond
        if whole and self.unpacked(type_code, buf, pos, 3 if expires else texts):
            loose = self.loose
            if zipmap and count <= limit and loose.most <= model.hash_value:
                return model.packed(model.ends + loose.packed)
            return self.table_of(structure, count, loose.cost, loose.expiring)
        if zipmap and count <= limit:
            return model.packed(n + model.ends - 2 + count)
        mean: i64 = max(0, (n - model.ends) // max(1, count * texts) - 2)
        if ints:
            mean = 4 if n <= 8 + 2 * count else 8 if n <= 8 + 4 * count else 14
        cost: i64 = model.member(mean)
        if structure == _HASH:
            cost = model.pair(mean, mean)
        elif structure == _ZSET:
            cost = model.scored_member(mean)
        return self.table_of(structure, count, cost * count, 0)

    def unpacked(self, type_code: i64, buf: bytes, pos: i64, texts: i64) -> bool:
        """Weighs the entries of a packed value; False where it is damaged, or unpacked too large."""
        loose = self.loose
        loose.begin(self.turns[type_code], texts)
        try:
            data, _ = read_string(buf, pos + self.ahead[type_code], _UNPACKED)
            self.readers[type_code].read(data, 0, len(data), loose)
        except (CorruptError, LimitError, IndexError):
            return False
        return True

    def table_of(self, structure: i64, n: i64, cost: i64, expiring: i64) -> i64:
        """What was packed and is too large for that: `n` elements that take `cost` bytes with their entries."""
        model = self.model
        more: i64 = 0
        if structure == _ZSET:
            if model.zset_grows:
                more = model.grown(n) - model.slots(n)
            return self.sorted_set(n, cost) + more
        if structure == _SET:
            model.without_values(n)
            return cost + model.tabled(n, model.table)
        if model.hash_grows:
            more = model.grown(n) - model.slots(n)
        if expiring > 0:
            model.hidden += _BY_TIME + _IN_TIME * expiring
        return cost + model.tabled(n, model.table_of_fields) + more

    def repacked(self, buf: bytes, pos: i64, n: i64) -> i64:
        """Bytes of the listpack that the ziplist at `pos` becomes, which has `n` bytes."""
        first: i64 = buf[pos]
        if first >= 0xC0:  # compressed: it is not looked into
            return max(0, n - ZIPLIST_ENDS) + LISTPACK_ENDS
        return as_listpack(buf, pos + (1 if first < 0x40 else 2 if first < 0x80 else 5 if first == 0x80 else 9), n)

    def nodes_of(self, n: i64, count: i64) -> i64:
        """A list that was one ziplist of `n` bytes and is taken apart into nodes.

        Args:
            count: of its elements, -1 where that is not known.
        """
        # Source: RDB_TYPE_LIST_ZIPLIST in src/rdb.c: however short it is, it is no listpack afterwards
        model = self.model
        if n <= model.list_node:
            return model.quick(1) + model.packed(n)
        n -= model.ends
        room: i64 = model.list_node - model.ends
        size: i64 = room
        if count > 0:
            mean: i64 = max(1, n // count)
            size = mean * max(1, room // mean)  # whole elements
        full: i64 = n // size
        rest: i64 = n % size
        cost: i64 = full * model.packed(size + model.ends)
        if rest > 0:
            cost += model.packed(rest + model.ends)
            full += 1
        return model.quick(full) + cost

    def sorted_set(self, n: i64, members: i64) -> i64:
        """A sorted set with a skip list, whose members take so many 1/16 bytes."""
        model = self.model
        head: i64 = model.allocated(model.skiplist_head) if model.skiplist_head > 0 else 0
        return model.zset + model.skiplist + head + model.tabled(n, model.table) + (members + 15) // 16

    # -- a value in pieces

    def begin(self, type_code: i64) -> None:
        """Make ready for a value of this type."""
        self.type_code = type_code
        self.structure = self.structures[type_code]
        self.program = self.programs[type_code]
        self.places = self.places_of[type_code]
        self.repacks: bool = self.of_ziplists[type_code] and not self.model.ziplists
        self.expiry_last: bool = self.last_expiries[type_code]
        self.of_group: i64 = self.places.find(_PENDING)
        self.elements = -1
        self.done: bool = False
        self.rest: bytes = b""
        self.pieces: list[bytes] = []
        self.skip: i64 = 0
        self.at: i64 = 0
        self.count: i64 = 0
        self.rounds: list[int] = []
        self.bytes: i64 = 0  # of the value in the file
        self.careful: bool = False  # few elements, which may become a packed value
        self.ints: bool = True
        self.most: i64 = 0
        self.packed: i64 = 0  # bytes of the elements as entries of a listpack
        self.cost: i64 = 0  # what they take one by one; those of sorted sets in 1/16
        self.field: i64 = 0
        self.expiring: i64 = 0
        self.nodes: i64 = 0
        self.plain: bool = False
        self.filled: i64 = 0  # bytes of a list's last node
        self.previous: i64 = 0  # and of the element that was the last in it
        self.before: i64 = -1  # fields of a hash before the first that is too long to be packed
        self.expires: bool = False  # the field that is next, or in a layout of Valkey the one before
        self.value: i64 = 0
        self.grows: bool = False  # a tree of ids is being read
        if self.expiries.fields > 0:
            self.expiries.begin()

    def piece(self, data: bytes) -> None:
        """Continue with the next piece. Raises: CorruptError without a place."""
        self.bytes += len(data)
        if self.done:
            return
        if self.structure < _ELEMENTWISE:
            if self.structure == _PACKED and self.bytes <= _WHOLE:
                self.pieces.append(data)
            else:
                self.done = True
            return
        if self.skip >= len(data):
            self.skip -= len(data)
            return
        if self.skip > 0:
            data = data[self.skip :]
            self.skip = 0
        buf = self.rest + data if self.rest else data
        pos: i64
        try:
            pos = self.feed(buf, 0)
        except CorruptError as e:
            e.offset = None
            raise
        if pos > len(buf):
            self.skip = pos - len(buf)
            self.rest = b""
        else:
            self.rest = buf[pos:]

    def finish(self) -> i64:
        """What the value takes whose last piece has come. Raises: CorruptError without a place."""
        if self.structure == _PACKED:
            try:
                buf = b"".join(self.pieces)
                self.pieces = []
                return self.blob(self.type_code, buf, 0, len(buf), not self.done)
            except CorruptError as e:
                e.offset = None
                raise
            except IndexError:
                raise CorruptError("the value ends before its count") from None
        if self.structure < _ELEMENTWISE:
            return self.model.allocated(self.bytes)
        if not self.done:
            raise CorruptError("its parts do not end where the value ends")
        return self.measured()

    def feed(self, buf: bytes, pos: i64) -> i64:
        """Go on at `pos`; returns where what is needed next begins, which may be beyond `buf`."""
        model = self.model
        program = self.program
        places = self.places
        place: i64
        n: i64
        end: i64
        try:
            while True:
                operation: i64 = program[self.at]
                place = places[self.at]
                if operation == OP_STRING:
                    end = skip_string(buf, pos)
                    if place != _PASSED:
                        self.text(place, buf, pos, end)
                    pos = end
                    self.at += 2
                elif operation == OP_NEXT:
                    n = self.rounds[-1] - 1
                    if n > 0:
                        self.rounds[-1] = n
                        self.at = program[self.at + 1]
                        if self.structure <= _ZSET:
                            pos = self.run_careful(buf, pos) if self.careful else self.run(buf, pos)
                    else:
                        self.rounds.pop()
                        self.at += 2
                elif operation == OP_COUNT:
                    n, pos = read_length(buf, pos)
                    self.count = n
                    self.counted(place, n)
                    self.at += 2
                elif operation == OP_LOOP:
                    if self.count > 0:
                        self.rounds.append(self.count)
                        self.at += 2
                        if self.structure <= _ZSET:
                            pos = self.run_careful(buf, pos) if self.careful else self.run(buf, pos)
                    else:
                        self.at = program[self.at + 1]
                elif operation == OP_END:
                    self.done = True
                    return pos
                elif operation == OP_BYTES:
                    if place != _PASSED:
                        self.number(place, buf, pos)
                    pos += program[self.at + 1]
                    self.at += 2
                elif operation == OP_LENGTH:
                    end = skip_length(buf, pos)
                    if place == _EXPIRY:
                        self.expires = buf[pos] != 0
                        if self.expires:
                            self.expiring += 1
                    pos = end
                    self.at += 2
                elif operation == OP_NODES:
                    pos = self.run_nodes(buf, pos)
                    if self.count > 0:
                        return pos
                    self.at += 2
                else:  # a score as text
                    n = buf[pos]
                    self.packed += entry_of(n, model.ziplists) if n < 253 else 5
                    pos += n + 1 if n < 253 else 1
                    self.at += 2
        except IndexError:
            return pos

    def counted(self, place: i64, n: i64) -> None:
        """A count has been read."""
        model = self.model
        if place == _COUNT:
            self.elements = n
            limit: i64 = 1 << 62
            if self.structure == _SET:
                limit = max(model.set_ints, model.set_entries)
            elif self.structure == _HASH:
                limit = model.hash_entries
            elif self.structure == _ZSET:
                limit = model.zset_entries
            self.careful = n <= limit
            if self.structure == _NODES:
                self.nodes = n
                self.elements = -1
            if self.structure == _LIST:
                self.cost = 0
        elif place == _NODE_COUNT:
            self.cost += model.stream
            self.tree.begin()
            self.grows = True
        elif place == _GROUPS:
            self.trees()
            self.cost += model.group * n
            model.hidden += 85 * n  # names, and what a tree has of them; so measured
        elif place == _CONSUMERS:
            self.trees()
            self.cost += model.consumer * n
            model.hidden += 50 * n
        elif place == _PENDING:  # of a group, and then of each consumer, who share the entries
            self.trees()
            if self.at == self.of_group:
                self.cost += model.pending * n
                model.hidden += (model.allocated(model.pending) - model.pending) * n
            self.tree.begin()
            self.grows = True

    def trees(self) -> None:
        """The tree of ids that was read is at its end."""
        if self.grows:
            self.cost += self.tree.finish()
            self.grows = False

    def text(self, place: i64, buf: bytes, pos: i64, end: i64) -> None:
        """A string of which `buf[pos:]` has the beginning."""
        model = self.model
        n: i64 = text_length(buf, pos)
        if place >= _NODE:
            if place == _NODE:
                self.node(self.repacked(buf, pos, n) if self.repacks else n)
            elif place == _CONSUMER:
                self.cost += n
            elif n == ID_SIZE and buf[pos] == ID_SIZE:
                self.tree.add(buf, pos + 1)
            return
        first: i64 = buf[pos]
        size: i64
        if first >= 0xC0 and first != 0xC3:
            size = entry_of_number(read_integer(buf, pos), model.ziplists)
        else:
            size = entry_of(n, model.ziplists)
            if self.careful:
                if 0 < n <= 20 and first < 0xC0 and buf[end - 1] < 0x3A and is_long(buf[end - n : end]):
                    size = entry_of_number(int(buf[end - n : end]), model.ziplists)
                else:
                    self.ints = False
        if self.structure == _LIST:
            self.push(n, size)
            return
        self.packed += size
        if n > self.most:
            self.most = n
            if self.before < 0 and n > model.hash_value and self.structure == _HASH:
                self.before = self.elements - self.rounds[-1]
        if place == _FIELD:
            self.field = n
        elif place == _VALUE:
            if self.expiry_last:
                self.value = n
            else:
                self.pair(n)
        elif self.structure == _ZSET:
            self.cost += model.scored[n] if n < SHORT else model.scored_member(n)
        elif self.structure == _SET:
            self.cost += model.member(n)

    def pair(self, value: i64) -> None:
        """A field and its value."""
        model = self.model
        self.cost += model.expiring_pair(self.field, value) if self.expires else model.pair(self.field, value)

    def push(self, n: i64, size: i64) -> None:
        """An element of `n` bytes at the end of a list, which takes `size` bytes as an entry."""
        # Source: quicklistPushTail and _quicklistNodeAllowInsert in src/quicklist.c
        model = self.model
        if model.list_plain and n > model.list_node:
            self.close()
            self.cost += model.packed(n)
            self.nodes += 1
            self.plain = True
            return
        more: i64 = 8
        if model.ziplists:
            more = (1 if n < 254 else 5) + (1 if n < 64 else 2 if n < 16384 else 5)
            if self.filled > 0 and self.previous >= 254:
                size += 4  # it says how long the one before it is
            self.previous = size
        if self.filled > 0 and self.filled + n + more <= model.list_node:
            self.filled += size
        else:
            self.close()
            self.filled = model.ends + size

    def close(self) -> None:
        """A list's node gets no more elements."""
        if self.filled > 0:
            self.cost += self.model.packed(self.filled)
            self.nodes += 1
            self.filled = 0

    def node(self, n: i64) -> None:
        """A node of a list or stream."""
        self.most = max(self.most, n)
        self.cost += self.model.allocated(n) if self.plain else self.model.packed(n)

    def number(self, place: i64, buf: bytes, pos: i64) -> None:
        """A score, a field's expiry, or an id."""
        if place == _PENDING_ID:
            self.tree.add(buf, pos)
            return
        buf[pos + 7]
        value: float = _DOUBLE(buf, pos)[0]
        if place == _EXPIRY:
            self.expires = buf[pos + 7] != 0xFF  # else -1: none
            if self.expires:
                self.expiring += 1
                if self.model.expiry_set:
                    self.expiries.add(_INT64(buf, pos)[0])
            self.pair(self.value)
        elif value == value and abs(value) < 1e15 and value == int(value):
            self.packed += entry_of_number(int(value), self.model.ziplists)
        else:
            self.packed += len(repr(value)) + 2

    def run(self, buf: bytes, pos: i64) -> i64:
        """As many whole elements as are there and plain; counts them off the innermost loop, but the last."""
        model = self.model
        left: i64 = self.rounds[-1] - 1
        behind: i64 = 8 if self.structure == _ZSET else 0
        if self.program[self.at] != OP_STRING or self.program[self.at + 2] == OP_TEXT_DOUBLE:
            return pos
        members = model.scored if self.structure == _ZSET else model.members
        cost: i64 = 0
        a: i64
        b: i64
        at: i64
        if self.structure == _HASH:
            if self.program[self.at + 4] != OP_NEXT:
                return pos
            strings = model.strings
            apart: bool = model.embed_pair == 0
            try:
                while left > 0:
                    a = buf[pos]
                    at = pos + 1 + a
                    if a >= 0x40:
                        break
                    b = buf[at]
                    at += 1
                    if b >= 0x40:
                        if b >= 0x80:
                            break
                        b = (b & 0x3F) << 8 | buf[at]
                        at += 1
                        if b >= SHORT:
                            break
                    cost += members[a] + strings[b] if apart else model.pair(a, b)
                    pos = at + b
                    left -= 1
            except IndexError:
                pass
        else:
            try:
                while left > 0:
                    a = buf[pos]
                    if a >= 0x40:
                        if a >= 0x80:
                            break
                        b = (a & 0x3F) << 8 | buf[pos + 1]
                        if b >= SHORT:
                            break
                        cost += members[b]
                        pos += 2 + b + behind
                    elif not COMPILED and left > BATCH and same_length(buf, pos, behind):
                        cost += members[a] * BATCH
                        pos += BATCH * (1 + a + behind)
                        left -= BATCH
                        continue
                    else:
                        cost += members[a]
                        pos += 1 + a + behind
                    left -= 1
            except IndexError:
                pass
        self.cost += cost
        self.rounds[-1] = left + 1
        return pos

    def run_careful(self, buf: bytes, pos: i64) -> i64:
        """`run` for the few elements of a set or hash that may become a packed value."""
        model = self.model
        left: i64 = self.rounds[-1] - 1
        if self.structure == _ZSET or self.program[self.at] != OP_STRING:
            return pos
        if self.structure == _LIST:
            return self.run_list(buf, pos)
        pairs: bool = self.structure == _HASH
        if pairs and self.program[self.at + 4] != OP_NEXT:
            return pos
        members = model.members
        strings = model.strings
        entries = self.entries
        apart: bool = model.embed_pair == 0
        most: i64 = self.most
        packed: i64 = 0
        cost: i64 = 0
        a: i64
        b: i64 = 0
        at: i64
        try:
            while left > 0:
                a = buf[pos]
                if a >= 0x40:
                    break
                at = pos + 1 + a
                if 0 < a <= 20 and buf[pos + 1] < 0x3A:
                    buf[at]  # all of it is there
                    if is_long(buf[pos + 1 : at]):
                        break
                if pairs:
                    b = buf[at]
                    at += 1
                    if b >= 0x40:
                        if b >= 0x80:
                            break
                        b = (b & 0x3F) << 8 | buf[at]
                        at += 1
                        if b >= SHORT or (b > model.hash_value and self.before < 0):
                            break
                        packed += entry_of(b, model.ziplists)
                    else:
                        if 0 < b <= 20 and buf[at] < 0x3A:
                            buf[at + b - 1]
                            if is_long(buf[at : at + b]):
                                break
                        packed += entries[b]
                    at += b
                    cost += members[a] + strings[b] if apart else model.pair(a, b)
                    if b > most:
                        most = b
                else:
                    self.ints = False
                    cost += members[a]
                packed += entries[a]
                if a > most:
                    most = a
                pos = at
                left -= 1
        except IndexError:
            pass
        self.most = most
        self.packed += packed
        self.cost += cost
        self.rounds[-1] = left + 1
        return pos

    def run_list(self, buf: bytes, pos: i64) -> i64:
        """`run` for a list."""
        left: i64 = self.rounds[-1] - 1
        entries = self.entries
        a: i64
        try:
            while left > 0:
                a = buf[pos]
                if a >= 0x40:
                    break
                if 0 < a <= 20 and buf[pos + 1] < 0x3A:
                    buf[pos + a]
                    if is_long(buf[pos + 1 : pos + 1 + a]):
                        break
                self.push(a, entries[a])
                pos += 1 + a
                left -= 1
        except IndexError:
            pass
        self.rounds[-1] = left + 1
        return pos

    def run_nodes(self, buf: bytes, pos: i64) -> i64:
        """The nodes of a list; `count` is what is left of them."""
        end: i64
        try:
            while self.count > 0:
                at = skip_container(buf, pos)
                end = skip_string(buf, at)
                n: i64 = text_length(buf, at)
                self.plain = buf[pos] == 1
                if self.model.ziplists and not self.plain:
                    n += ZIPLIST_ENDS - LISTPACK_ENDS
                self.node(n)
                self.count -= 1
                pos = end
        except IndexError:
            pass
        return pos

    def measured(self) -> i64:
        """What the value that has been read takes."""
        model = self.model
        structure: i64 = self.structure
        n: i64 = self.elements
        if structure == _STREAM:
            self.trees()
            return self.cost
        if structure == _NODES:
            if self.nodes == 1 and model.list_packed and not self.plain and self.most <= model.list_node:
                return self.cost
            return model.quick(self.nodes) + self.cost
        if structure == _LIST:
            self.close()
            if self.nodes == 1 and model.list_packed and not self.plain:
                return self.cost
            return model.quick(self.nodes) + self.cost
        if structure == _SET:
            if n <= model.set_ints and self.ints and self.careful:
                return model.packed(8 + n * (2 if self.most < 5 else 4 if self.most < 10 else 8))
            if n <= model.set_entries and self.most <= model.set_value:
                return model.packed(model.ends + self.packed)
            model.without_values(n)
            return self.cost + model.tabled(n, model.table)
        if structure == _HASH:
            small: bool = n <= model.hash_entries and self.most <= model.hash_value
            if self.expiring == 0:
                if small:
                    return model.packed(model.ends + self.packed)
                table: i64 = model.tabled(n, model.table_of_fields)
                if self.careful:
                    table += model.turned(self.before, n, False) - model.slots(n)
                return self.cost + table
            if small and model.embed_pair == 0:
                return (
                    model.packed(LISTPACK_ENDS + self.packed + 10 * self.expiring + 2 * (n - self.expiring)) + model.packed_expiring
                )
            table = model.tabled(n, model.table_of_fields)
            if model.table_grows:
                table += (model.turned(self.before, n, True) if self.careful else model.grown(n)) - model.slots(n)
            if model.expiry_set:
                table += self.expiries.finish()
            else:
                model.hidden += _BY_TIME + _IN_TIME * self.expiring
            return self.cost + table
        if n <= model.zset_entries and self.most <= model.zset_value:
            return model.packed(model.ends + self.packed)
        return self.sorted_set(n, self.cost)


def same_length(buf: bytes, pos: int, behind: int) -> bool:
    """Whether the next 256 strings, with `behind` bytes behind each, are of one length, as ids often are."""
    first = buf[pos]
    stride = first + 1 + behind
    return buf[pos : pos + BATCH * stride : stride] == SAME[first]


def is_long(text: bytes) -> bool:
    """Whether a server keeps a string as a number of 64 bits. Source: string2ll in src/util.c."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[0] == 0x30 and len(text) > 1):
        return False
    return -(1 << 63) <= int(text) < 1 << 63
