"""What a server's allocator gives for keys, values, tables and trees, by their lengths and counts.

Compiled, since `footprint.py` asks it once a record, and once an element of what is not packed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rdbkit.format.entry_sizes import LISTPACK_ENDS, ZIPLIST_ENDS

if TYPE_CHECKING:
    from mypy_extensions import i64

_OBJECT: Final = 16
_BUCKET: Final = 64
SHORT: Final = 512  # lengths up to this have their sizes in tables
_LEVELS: Final = 24  # of a skip list that count
_PAGE: Final = 4096
_LARGE: Final = 8 * _PAGE  # from here on sizes are whole pages, where there are no large size classes
ID_SIZE: Final = 16  # bytes of a stream's id
_VECTOR: Final = 127  # most fields in a list of an expiry set
_DIVIDED: Final = 96  # and on average, since a full one is divided
_MOMENTS: Final = 1 << 15  # of 16 ms, that are told apart


def size_class(n: i64, quantum: i64) -> i64:
    """What jemalloc gives for `n` bytes. Source: jemalloc(3), size classes.

    >>> [size_class(n, 8) for n in (1, 17, 65, 129, 1000)], size_class(17, 16)
    ([8, 24, 80, 160, 1024], 32)
    """
    if n <= 8:
        return 8
    if n <= 64:
        return (n + quantum - 1) // quantum * quantum
    step: i64 = 16
    top: i64 = 128
    while n > top:
        top += top
        step += step
    return (n + step - 1) // step * step


def page_class(n: i64, quantum: i64) -> i64:
    """The same where the allocator gives whole pages instead of large size classes.

    Source: sz_s2u_compute in include/jemalloc/internal/sz.h of jemalloc 5.3.1.

    >>> [page_class(n, 16) for n in (1000, 33_000)]
    [1024, 36864]
    """
    return size_class(n, quantum) if n <= _LARGE else (n + _PAGE - 1) // _PAGE * _PAGE


def string_header(n: i64) -> i64:
    """Bytes of a string of `n` bytes beside its content: its header and a zero. Source: sdsReqType in src/sds.c."""
    if n < 32:
        return 2
    if n < 256:
        return 4
    return 6 if n < 65536 else 10 if n < 1 << 32 else 18


def power_of_two(n: i64) -> i64:
    """The smallest one from `n` on, 4 at least."""
    size: i64 = 4
    while size < n:
        size += size
    return size


class AllocationModel:
    """Sizes of what servers of one line make of keys and values.

    Args:
        sizes: of a `rdbkit.targets.memory.Layout`.
        quantum: of the allocator, 8 or 16 bytes.
        pages: it gives large pieces in whole pages.

    Sizes are what MEMORY USAGE counts; `hidden` sums what is allocated beyond that.
    """

    def __init__(self, sizes: dict[str, int], quantum: int, pages: bool = False) -> None:
        self.quantum: i64 = quantum
        self.pages: bool = pages
        self.hidden: i64 = 0
        self.hash_entries: i64 = sizes["hash_entries"]
        self.hash_value: i64 = sizes["hash_value"]
        self.zset_entries: i64 = sizes["zset_entries"]
        self.zset_value: i64 = sizes["zset_value"]
        self.set_ints: i64 = sizes["set_ints"]
        self.set_entries: i64 = sizes["set_entries"]
        self.set_value: i64 = sizes["set_value"]
        self.list_node: i64 = sizes["list_node"]
        self.list_packed: bool = sizes["list_packed"] != 0
        self.list_plain: bool = sizes["list_plain"] != 0
        self.ziplists: bool = sizes["ziplists"] != 0
        self.ends: i64 = ZIPLIST_ENDS if self.ziplists else LISTPACK_ENDS
        self.buckets: bool = sizes["buckets"] != 0
        self.embedded: bool = sizes["embedded"] != 0
        self.embed_string: i64 = sizes["embed_string"]
        self.embedding: i64 = sizes["embedding"]
        self.embed_rough: bool = sizes["embed_rough"] != 0
        self.embed_pair: i64 = sizes["embed_pair"]
        self.counts_key: bool = sizes["counts_key"] != 0
        self.counts_used: bool = sizes["counts_used"] != 0
        self.entry: i64 = sizes["entry"]
        self.entry_without_value: i64 = sizes["entry_without_value"]
        self.table: i64 = sizes["table"]
        self.table_of_fields: i64 = sizes["table_of_fields"]
        self.table_grows: bool = sizes["table_grows"] != 0
        self.hash_grows: bool = sizes["hash_grows"] != 0
        self.zset_grows: bool = sizes["zset_grows"] != 0
        self.expiry_set: bool = sizes["expiry_set"] != 0
        self.field_expiring: i64 = sizes["field_expiring"]
        self.packed_expiring: i64 = sizes["packed_expiring"]
        self.zset: i64 = sizes["zset"]
        self.skiplist: i64 = sizes["skiplist"]
        self.skiplist_head: i64 = sizes["skiplist_head"]
        self.skiplist_node: i64 = sizes["skiplist_node"]
        self.skiplist_embeds: bool = sizes["skiplist_embeds"] != 0
        self.quicklist: i64 = sizes["quicklist"]
        self.quicklist_node: i64 = sizes["quicklist_node"]
        self.stream: i64 = sizes["stream"]
        self.group: i64 = sizes["group"]
        self.consumer: i64 = sizes["consumer"]
        self.pending: i64 = sizes["pending"]
        self.radix: i64 = sizes["radix"]
        self.radix_node: i64 = sizes["radix_node"]
        # what is allocated for an entry of a table and for a table, beyond their size
        self.entry_beyond: i64 = self.allocated(self.entry) - self.entry if self.entry > 0 else 0
        self.table_beyond: i64 = self.allocated(self.table) - self.table
        self.children: dict[int, float] = {}
        self.turned_slots: dict[int, int] = {}
        # by length: a string, a member of a set, a field, a member of a sorted set (in 1/16)
        self.strings: list[int] = [int(self.allocated(n + string_header(n))) for n in range(SHORT)]
        self.members: list[int] = [int(self.entry) + size for size in self.strings]
        self.scored: list[int] = [int(self.scored_member(n)) for n in range(SHORT)]
        self.values: list[int] = [int(self.value(n)) for n in range(SHORT)]
        self.beyond: list[int] = [int(self.allocated(_OBJECT + n + 4)) - _OBJECT - n - 2 for n in range(SHORT)]
        self.pairs: list[int] = [int(self.allocated(n)) for n in range(SHORT)]

    def allocated(self, n: i64) -> i64:
        return page_class(n, self.quantum) if self.pages else size_class(n, self.quantum)

    def string(self, n: i64) -> i64:
        """A string of its own."""
        return self.strings[n] if n < SHORT else self.allocated(n + string_header(n))

    def member(self, n: i64) -> i64:
        """A member of a set, with its entry."""
        return self.members[n] if n < SHORT else self.entry + self.string(n)

    def pair(self, field: i64, value: i64) -> i64:
        """A field and its value, with their entry."""
        if self.embed_pair == 0:
            return self.member(field) + self.string(value)
        whole: i64 = field + string_header(field) + value + (4 if value < 256 else string_header(value))
        if whole <= self.embed_pair:
            return self.pairs[whole]
        return self.allocated(8 + field + (4 if field < 256 else string_header(field))) + self.string(value)

    def expiring_pair(self, field: i64, value: i64) -> i64:
        """The same of a field that expires."""
        # Source: hfieldNew and mstrNewWithMeta in Redis's src/t_hash.c and src/mstr.c, entryReqSize in Valkey's src/entry.c
        if self.embed_pair == 0:
            return self.entry + self.allocated(field + string_header(field) + self.field_expiring) + self.string(value)
        own: i64 = field + (4 if field < 256 else string_header(field)) + self.field_expiring
        whole: i64 = own + value + (4 if value < 256 else string_header(value))
        if whole <= self.embed_pair:
            return self.pairs[whole]
        return self.allocated(8 + own) + self.string(value)

    def scored_member(self, n: i64) -> i64:
        """A member of a sorted set with its entry and its node, whose height is the mean; in 1/16 byte."""
        # Source: zslRandomLevel in src/t_zset.c: a node is one level higher with a chance of 1/4.
        inside: i64 = n + string_header(n) if self.skiplist_embeds else 0
        mean = 0.0
        share = 0.75
        for level in range(1, _LEVELS):
            mean += share * int(self.allocated(self.skiplist_node + 16 * level + inside))
            share /= 4
        rest: i64 = self.entry if self.skiplist_embeds else self.entry + self.allocated(n + string_header(n))
        return rest * 16 + int(mean * 16 + 0.5)

    def slots(self, n: i64) -> i64:
        """The slots of a table of `n` entries, or its buckets, those included that are added to full ones."""
        if not self.buckets:
            return power_of_two(n) * 8
        if n <= 0:
            return 0
        # Source: BUCKET_FACTOR and BUCKET_DIVISOR in Valkey's src/hashtable.c
        count: i64 = 1
        while count * 32 < n * 5:
            count += count
        return (count + int(self.more_buckets(n, count) + 0.5)) * _BUCKET

    def grown(self, n: i64) -> i64:
        """The slots of a table that grew as its `n` entries came."""
        # Source: dictRehash in src/dict.c: an entry that is added empties a slot of the table before, of which 1 - 1/e are in use
        # when it is full; until then both are there
        size: i64 = power_of_two(n)
        before: i64 = size // 2
        if before >= 4 and n < before + int(int(before) * (1.0 - math.exp(-1.0))):
            size += before
        return size * 8

    def turned(self, before: i64, n: i64, expires: bool) -> i64:
        """The slots of a hash of `n` fields that was packed until a long one came, behind the first `before`."""
        # Source: RDB_TYPE_HASH in src/rdb.c, which makes room for the fields that are left, not for all
        if self.buckets:
            return self.slots(n)
        key = int(before) << 11 | int(n) << 1 | expires
        slots = self.turned_slots.get(key)
        if slots is None:
            table = Slots()
            if not self.ziplists:
                table.expand(before)
            table.add(before if expires else before + 1)
            left: i64 = n - before - 1
            if left > 4:
                table.expand(left)
            table.add(n - table.used)
            slots = int(table.size + table.old) * 8
            self.turned_slots[key] = slots
        return slots

    def more_buckets(self, n: i64, count: i64) -> float:
        """How many further buckets `n` entries need on average that chance spreads over `count`: the eighth needs one."""
        if n <= 7:
            return 0.0
        # memory does not grow with the number of different loads: 1/64 is exact enough
        load: i64 = (n * 64 + count - 1) // count
        found = self.children.get(load)
        if found is None:
            mean = int(load) / 64
            chance = math.exp(-mean)
            found = 0.0
            for k in range(1, 64):
                chance *= mean / k
                if k > 7:
                    found += chance * ((k - 7 + 5) // 6)
            self.children[load] = found
        return found * int(count)

    def tabled(self, n: i64, table: i64) -> i64:
        """A table of `n` entries without them."""
        self.hidden += self.entry_beyond * n + self.table_beyond
        return table + self.slots(n)

    def without_values(self, n: i64) -> None:
        """Notes that entries of a set's table are allocated only where two members share a slot."""
        # Source: dictEntryNoValue in src/dict.c, since Redis 7.2; MEMORY USAGE counts an entry for each.
        if self.entry_without_value > 0 and n > 0:
            members = int(n)
            size = int(power_of_two(n))
            beside = members - size * (1.0 - math.exp(-members / size))
            self.hidden += int(beside * int(self.entry_without_value)) - n * self.allocated(self.entry)

    def packed(self, n: i64) -> i64:
        """A packed value of `n` bytes, without its object."""
        size: i64 = self.allocated(n)
        if self.counts_used:
            self.hidden += size - n
            return n
        return size

    def object(self, key: i64, expires: bool) -> i64:
        """The object in which a key of `key` bytes lies, where keys are embedded."""
        # Source: createObjectWithKeyAndExpire in Valkey's src/object.c
        return self.allocated(_OBJECT + 1 + key + string_header(key) + (8 if expires or key >= 128 else 0))

    def key(self, key: i64, expires: bool) -> i64:
        """What a key of `key` bytes takes beside its value, objects included."""
        if not self.embedded:
            return self.members[key] + _OBJECT if key < SHORT else self.string(key) + self.entry + _OBJECT
        size: i64 = self.object(key, expires)
        if self.counts_key:
            return size
        self.hidden += size - _OBJECT
        return _OBJECT

    def string_key(self, key: i64, value: i64, is_number: bool, expires: bool) -> i64:
        """A key of `key` bytes and its string of `value` bytes."""
        if is_number:
            return self.key(key, expires)
        if not self.embedded:
            if self.counts_used and value <= self.embed_string:
                self.hidden += self.allocated(_OBJECT + value + 4) - _OBJECT - value - 2
            return self.key(key, expires) + (self.values[value] if value < SHORT else self.string(value))
        # Source: createStringObjectWithKeyAndExpire in Valkey's src/object.c
        if value < 4 and self.embedding < _OBJECT:
            value = 4  # there is room for a pointer, which it may become
        rest: i64 = self.embedding + 1 + key + value + 4 + (8 if expires else 0)
        size: i64 = rest + string_header(key)
        if (rest + 2 if self.embed_rough else size) <= self.embed_string:
            return self.allocated(size)
        return self.key(key, expires) + self.string(value)

    def value(self, n: i64) -> i64:
        """What a string of `n` bytes takes beside its object, where keys are not embedded."""
        if n > self.embed_string:
            return self.strings[n]
        # Source: createEmbeddedStringObject in src/object.c: a header of 3 bytes, and a zero
        return n + 2 if self.counts_used else self.allocated(_OBJECT + n + 4) - _OBJECT

    def allocated_keys(self, keys: i64, expiring: i64) -> i64:
        """What is allocated for the entries of so many keys beyond their size."""
        return 0 if self.embedded else (keys + expiring) * self.entry_beyond

    def main_tables(self, keys: i64, expiring: i64) -> i64:
        """The tables of a database's keys and expiries, as MEMORY STATS has them: objects of keys belong there."""
        if keys == 0:
            return 0
        if self.embedded:
            return _OBJECT * keys + self.slots(keys) + (self.slots(expiring) if expiring > 0 else 0)
        entries: i64 = (self.entry + _OBJECT) * keys + self.entry * expiring
        return entries + self.slots(keys) + (self.slots(expiring) if expiring > 0 else 0)

    def keys_outside(self, keys: i64) -> i64:
        """What of `key` counts as a database's table, and not as its data."""
        return keys * (_OBJECT if self.embedded else _OBJECT + self.entry)

    def quick(self, nodes: i64) -> i64:
        """A list of so many nodes, without their content."""
        self.hidden += self.allocated(self.quicklist) - self.quicklist
        return self.quicklist + nodes * self.quicklist_node

    def radix_tree(self, keys: i64, nodes: i64, taken: i64) -> i64:
        """A radix tree of so many keys and nodes, which take so many bytes."""
        taken += self.allocated(self.radix)
        if self.radix_node == 0:
            return taken
        # Source: streamRadixTreeMemoryUsage in src/object.c, which counts 240 bytes a node that nobody allocates
        counted: i64 = nodes * self.radix_node + keys * ID_SIZE
        self.hidden += taken - counted
        return counted

    def times(self, n: i64) -> i64:
        """A list of `n` fields that expire close to each other, in an expiry set."""
        # Source: insertToBucket_SINGLE, pvMakeRoomFor in Valkey's src/vset.c
        return 0 if n <= 1 else 24 if n == 2 else self.allocated(8 + 8 * n)


class Slots:
    """Follows a table of slots, which is moved to a larger one slot by slot as entries come. Source: src/dict.c."""

    def __init__(self) -> None:
        self.used: i64 = 0
        self.size: i64 = 4
        self.old: i64 = 0  # of the table that is being left
        self.full: i64 = 0  # its slots that are still in use

    def expand(self, n: i64) -> None:
        """Make room for `n`, where the table is not being moved."""
        size: i64 = power_of_two(n)
        if self.old > 0 or self.used > n or size == self.size:
            return
        if self.used > 0:
            self.old = self.size
            share: float = 1.0 - math.exp(-int(self.used) / int(self.size))
            self.full = int(int(self.size) * share + 0.5)
        self.size = size

    def add(self, n: i64) -> None:
        """`n` entries come."""
        while n > 0:
            if self.old > 0:
                self.full -= 1
                if self.full <= 0:
                    self.old = 0
            if self.old == 0 and self.used >= self.size:
                self.expand(self.used + 1)
            self.used += 1
            n -= 1


class RadixTree:
    """Counts the nodes of a radix tree, whose keys are of one length and come in their order.

    Keys share nodes as far as they are alike. Where they part there is a node that branches; what only one branch has is a node;
    and a key ends in one of its own. Source: src/rax.c.

    Args:
        model: of the server.
        length: of a key, in bytes.

    Attributes:
        keys: so far.
    """

    def __init__(self, model: AllocationModel, length: i64) -> None:
        self.model: AllocationModel = model
        self.length: i64 = length
        self.leaf: i64 = model.allocated(16)
        self.chains: list[int] = [int(model.allocated(self.node(n, 1))) for n in range(length + 1)]
        self.begin()

    def begin(self) -> None:
        """Make ready for a tree."""
        self.keys: i64 = 0
        self.nodes: i64 = 0
        self.taken: i64 = 0
        self.last: bytes = b""
        self.alike: i64 = -1  # bytes that the last key shares with the one before it
        self.points: list[int] = []  # at how many bytes the last key's path branches
        self.branches: list[int] = []  # into how many

    def node(self, letters: i64, pointers: i64) -> i64:
        """Bytes of a node."""
        return (4 + letters + 7) // 8 * 8 + 8 * pointers

    def add(self, buf: bytes, pos: i64) -> None:
        """The key that is next. Raises: IndexError where `buf` does not have all of it."""
        length: i64 = self.length
        buf[pos + length - 1]
        key = buf[pos : pos + length]
        if self.keys > 0:
            last = self.last
            n: i64 = 0
            while n < length and key[n] == last[n]:
                n += 1
            if n == length:
                return
            self.end(n)
            if self.points and self.points[-1] == n:
                self.branches[-1] += 1
            else:
                self.points.append(int(n))
                self.branches.append(2)
            self.alike = n
        self.last = key
        self.keys += 1

    def end(self, n: i64) -> None:
        """The last key's path is known, but for the first `n` bytes."""
        self.nodes += 1
        self.taken += self.leaf
        self.chain((n if n > self.alike else self.alike), self.length)
        while self.points and self.points[-1] > n:
            at: i64 = self.points.pop()
            branches: i64 = self.branches.pop()
            self.nodes += 1
            self.taken += self.model.allocated(self.node(branches, branches))
            above: i64 = self.points[-1] if self.points else -1
            self.chain((n if n > above else above), at)

    def chain(self, above: i64, below: i64) -> None:
        """What is between two places where the path branches."""
        letters: i64 = below - above - 1
        if letters > 0:
            self.nodes += 1
            self.taken += self.chains[letters]

    def finish(self) -> i64:
        """What the tree takes."""
        if self.keys > 0:
            self.end(-1)
        else:
            self.nodes = 1
            self.taken = self.model.allocated(8)
        return self.model.radix_tree(self.keys, self.nodes, self.taken)


class ExpirySet:
    """The set in which a hash of Valkey 9 has the fields that expire, by time.

    Source: src/vset.c. Up to 127 fields are one list. More are a radix tree of lists, each for 8,192 ms or less: a full list is
    divided, and what expires within 16 ms and does not fit into one is a table. A field alone in its time has no list.
    """

    def __init__(self, model: AllocationModel) -> None:
        self.model: AllocationModel = model
        self.tree: RadixTree = RadixTree(model, 8)
        self.begin()

    def begin(self) -> None:
        self.moments: dict[int, int] = {}  # fields by 16 ms
        self.counted: i64 = 0  # fields in them
        self.fields: i64 = 0

    def add(self, ms: i64) -> None:
        """A field that expires then."""
        self.fields += 1
        moment = int(ms >> 4)
        known = self.moments.get(moment)
        if known is not None:
            self.moments[moment] = known + 1
            self.counted += 1
        elif len(self.moments) < _MOMENTS:
            self.moments[moment] = 1
            self.counted += 1

    def finish(self) -> i64:
        """What the set takes."""
        model = self.model
        if self.fields <= _VECTOR:
            return model.times(self.fields)
        tree = self.tree
        tree.begin()
        taken: i64 = 0
        window: i64 = -1
        listed: i64 = 0  # fields in the last list
        last = 0
        for moment in sorted(self.moments):
            n: i64 = self.moments[moment]
            if listed > 0 and (moment >> 9 != window or listed + n > _DIVIDED):
                taken += model.times(listed)
                self.key(last if moment >> 9 == window else last | 511)
                listed = 0
            window = moment >> 9
            if n > _VECTOR:
                taken += model.table + model.slots(n) * 4 // 3  # it grows, and has both tables half of the time; so measured
                self.key(moment)
            else:
                listed += n
            last = moment
        if listed > 0:
            taken += model.times(listed)
            self.key(last | 511)
        # of more moments than are told apart, those that are stand for all
        return (taken + tree.finish()) * self.fields // self.counted

    def key(self, moment: int) -> None:
        """A key of the tree: the end of a list's time."""
        self.tree.add(((moment + 1) << 4 & (1 << 64) - 1).to_bytes(8, "big"), 0)
