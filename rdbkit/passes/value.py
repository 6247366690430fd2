"""A value as a target takes it: one encoded value in, what the target loads instead and what that loses out.

Nothing here knows of a file, a block or a key. Who asks gives the losses a key, and writes what precedes a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, cast

from librt.strings import BytesWriter, write_i64_le

from rdbkit.errors import CorruptError, LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.counts import count_rule, element_count
from rdbkit.format.decode import Decoder, FileTypes
from rdbkit.format.encode import encode_value, write_length, write_string
from rdbkit.format.primitives import read_uint64, skip_string
from rdbkit.format.record import Feeder, feed_pieces
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, TYPE_CODES
from rdbkit.format.sink import Items
from rdbkit.format.streams import level_of, type_of
from rdbkit.format.transcode import DROP_FIELDS, HASH, HASH_EXPIRING, HASH_VALKEY, KEEP_FIELDS, Transcoder
from rdbkit.format.transcode_stream import StreamTranscoder
from rdbkit.model import module_name
from rdbkit.passes.json_text import number_text
from rdbkit.passes.value_checker import EMPTY, ORDER, TWICE, ElementNames, ValueChecker
from rdbkit.policy.ledger import Loss
from rdbkit.policy.losses import policies as known_policies
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.products import described
from rdbkit.values import Hash

if TYPE_CHECKING:
    from mypy_extensions import i64

# What becomes of a value, by its type.
COPY: Final = 0
COLLECTION: Final = 1
FIELDS: Final = 2  # a hash whose fields can expire
STREAM: Final = 3
ARRAY: Final = 4
MODULE: Final = 5
JSON: Final = 6  # Dragonfly's documents
LOST: Final = 7
# The same of a value in which elements come twice, of which one is kept.
COLLECTION_ONCE: Final = 8
FIELDS_ONCE: Final = 9

#: Instead of a type code: the value stays as it is.
AS_IT_IS: Final = -1
#: Instead of a type code or an action: the key is left out.
LEFT_OUT: Final = -2

# What has to be seen of a value before it can be copied, by its type code.
OPEN: Final = 1  # its value
IF_EMPTY: Final = 2  # whether it has elements
IMPOSSIBLE: Final = 4  # the file's version has no such type
#: No collection without elements takes more bytes, if it has one node at most.
EMPTY_BYTES: Final = 24

_LENGTH_RULE: Final = "stream-length"
_DEAD_RULE: Final = "stream-node-live"
#: Rules whose breach is corrected when a stream is written.
_MENDED: Final = (_LENGTH_RULE, "stream-no-node", "stream-added", "group-read", _DEAD_RULE)
_REFUSED: Final = (_LENGTH_RULE, "stream-added", "group-read", _DEAD_RULE)
_COLLECTIONS: Final = ("list", "set", "zset", "hash")
_NEVER_EMPTY: Final = ("zipmap", "intset")  # packed encodings that are refused without elements
_EMPTY_SINCE: Final = 10  # servers that load this version skip keys without elements

STRING: Final = 0
_MODULE_TYPE: Final = 7
_JSON_MODULE: Final = "ReJSON-RL"
_JSON_VERSIONS: Final = (2, 3)  # of its encodings, those that begin with the document as text
_MODULE_STRING: Final = 5
#: A module value's id, the frame of its first value and that one's length take no more.
_MODULE_HEAD: Final = 64
_BAD_END: Final = "its parts do not end where the value ends"


class ValueLoss:
    """What a value loses, as a `Loss` without database and key; `forbidden` where the policies in force do not allow it."""

    def __init__(self, kind: str, what: str, count: int, note: bool, forbidden: bool) -> None:
        self.kind: str = kind
        self.what: str = what
        self.count: int = count
        self.note: bool = note
        self.forbidden: bool = forbidden

    def of(self, db: int, key: bytes) -> Loss:
        """The loss of a key."""
        return Loss(self.kind, self.what, self.count, db, key, self.note)


class ValueConverter:
    """Makes of one encoded value after the other what a target takes.

    Args:
        file_types: of the file that the values are from; after a DUMP, of the server.
        rules: what to do.

    Attributes:
        losses: of the values so far, for who asks to take out.
        expire_ms: when the key of the last value expires, which a policy for fields that expire can change.
        front: what stands between the type code and what `write_pieces` has written.
        opened: values that were looked into.
        actions: by type code, what becomes of a value.
        looks: by type code, what has to be seen of a value; 0 where `inspect` would say no more than `actions`.
        on: the word of each policy.
        modules: names of the module types that the target has; None for any.
        version: RDB version of the target, the newest that a flavour of its own is based on.
        mends: of elements that come twice, one is kept.
    """

    def __init__(self, file_types: FileTypes, rules: Rules) -> None:
        target, header, policies, known = rules.target, rules.header, rules.policies, rules.known
        self.file_types: FileTypes = file_types
        self.rules: Rules = rules
        self.losses: list[ValueLoss] = []
        self.expire_ms: i64 = NO_EXPIRY
        self.front: bytes = b""
        self.opened: i64 = 0
        self.version: i64 = header.version if header.flavour == c.REDIS else c.NEWEST_REDIS
        self.on: dict[str, str] = {name: policies.chosen(name) for name in known_policies()}
        # a version of the format says nothing of what a server has loaded
        keeps_all = policies.chosen("module") == "keep" or (target.exact and policies.module is None)
        self.modules: Any = target.module_types if _MODULE_TYPE in known else frozenset()
        if keeps_all and _MODULE_TYPE in known:
            self.modules = None
        hash_code = HASH_EXPIRING if HASH_EXPIRING in known else HASH
        if header.flavour == c.VALKEY and HASH_VALKEY in known:
            hash_code = HASH_VALKEY
        policy = DROP_FIELDS if self.on["field_ttl"] == "drop-field" else KEEP_FIELDS
        self.transcoder: Transcoder = Transcoder(
            file_types, hash_code, policy, rules.now_ms, self.version < 8, rules.compress, ElementNames()
        )
        level = max([level_of(number) for number in known] + [0])
        self.streams: StreamTranscoder = StreamTranscoder(
            level, cast("bytes | None", policies.owner), _DEAD_RULE in rules.tolerated
        )
        self.streams.budget = file_types.budget
        self.becomes: list[int] = self.transcoder.becomes
        self.actions: list[int] = [LOST] * TYPE_CODES
        for t in file_types.types.values():
            self.actions[t.id] = self.action_of(t, level > 0)
        self.actions[STRING_INT] = COPY
        self.actions[STRING_LZF] = COPY
        self.mends: bool = rules.edits.on_duplicate != FAIL
        self.keeps_last: bool = rules.edits.on_duplicate == "last"
        mended = {*_MENDED, ORDER, TWICE} if self.mends else {*_MENDED, ORDER}
        self.checker: ValueChecker = ValueChecker(file_types, rules.tolerated | mended)
        self.drops_empty: bool = target.rdb < _EMPTY_SINCE
        self.looks: bytes = self.what_to_look_at()

    def action_of(self, t: c.ValueType, has_streams: bool) -> int:
        """What becomes of values of a type."""
        if t.type == "module":
            return COPY if self.modules is None else MODULE
        if self.rules.known.get(t.id) == t:
            return COPY
        if t.type == "stream":
            return STREAM if has_streams else LOST
        if t.type == "array":
            return ARRAY
        if t.type == "json":
            return JSON
        if self.file_types.arities[t.id] == 3:
            return FIELDS
        return COLLECTION if t.type in _COLLECTIONS else LOST

    def what_to_look_at(self) -> bytes:
        """By type code, what has to be seen of a value before it can be copied."""
        looks = bytearray(TYPE_CODES)
        opens = self.checker.opens
        rules = self.rules
        for number in c.newer_types(rules.source.flavour, rules.source.version):
            looks[number] |= IMPOSSIBLE
        refuses_some = any(rule not in rules.tolerated for rule in _REFUSED)
        for t in self.file_types.types.values():
            # of the streams that are written, nodes are never decoded otherwise
            in_doubt = t.type == "stream" and (self.actions[t.id] == STREAM or refuses_some)
            if rules.deep or in_doubt:
                looks[t.id] |= OPEN if opens[t.id] else 0
            elif t.type in _COLLECTIONS and (self.drops_empty or t.packed in _NEVER_EMPTY):
                looks[t.id] |= IF_EMPTY
        if rules.deep:
            looks[STRING_LZF] = OPEN
        return bytes(looks)

    def close(self) -> None:
        """Remove the temporary files."""
        self.checker.close()
        self.transcoder.names.close()

    # -- one value at once

    def convert(self, type_code: i64, buf: bytes, start: i64, end: i64, expire_ms: i64, out: BytesWriter) -> i64:
        """Write what the target takes instead of the value `buf[start:end]`.

        Args:
            type_code: as `Record` has it.
            expire_ms: when the value's key expires, `NO_EXPIRY` for never; `expire_ms` then says when it does.
            out: where the encoded value goes, without a type code.

        Returns: the type code of what was written; AS_IT_IS, with nothing written, where the value needs no change, and LEFT_OUT
            where the target cannot have the key. `losses` says what is lost either way.

        Raises: RdbError without a place, and with nothing written, where the value is damaged so that the target refuses it.
        """
        action: i64 = self.actions[type_code]
        if self.looks[type_code]:
            action = self.inspect(type_code, buf, start, end)
        return self.write(type_code, action, buf, start, end, expire_ms, out)

    def inspect(self, type_code: i64, buf: bytes, start: i64, end: i64) -> i64:
        """See whether the target loads the value; returns what is to become of it, or LEFT_OUT.

        Raises: RdbError without a place where it does not.
        """
        looks: i64 = self.looks[type_code]
        action: i64 = self.actions[type_code]
        if looks & IMPOSSIBLE:
            raise self.impossible(type_code)
        try:
            if looks & OPEN:
                self.opened += 1
                self.checker.check(type_code, buf, start, end)
                return self.weigh(type_code, action) if self.checker.doubts else action
            if end - start <= EMPTY_BYTES and action == COPY and is_empty(self.file_types, type_code, buf, start, end):
                raise CorruptError("it has no elements", rule=EMPTY)
        except RdbError as e:
            if e.rule != EMPTY:
                raise
            self.note_empty()
            stays = not self.drops_empty and action == COPY and self.file_types.types[type_code].packed not in _NEVER_EMPTY
            return action if stays else LEFT_OUT
        return action

    def impossible(self, type_code: i64) -> CorruptError:
        """The error for a type that the file's version does not have."""
        t = self.file_types.types[type_code]
        return CorruptError(f"type {t.id} ({t.name}) cannot be in RDB {self.rules.source.version}", rule="type-version")

    def weigh(self, type_code: i64, action: i64) -> i64:
        """What becomes of the value that the checker has faults of, all of which are tolerated or can be mended."""
        for e in self.checker.doubts:
            rule = e.rule or ""
            if rule == TWICE:  # which is reported when one is left out
                action = FIELDS_ONCE if self.file_types.arities[type_code] == 3 else COLLECTION_ONCE
                continue
            if rule not in _MENDED and rule != ORDER:
                self.note("fault", f"{e.message}; {self.rules.target.title} loads it all the same")
                continue
            self.note("corrected", e.message)
            if rule != ORDER:
                action = STREAM
            elif action != COLLECTION_ONCE:
                action = COLLECTION  # in which order does not matter
        return action

    def write(self, type_code: i64, action: i64, buf: bytes, start: i64, end: i64, expire_ms: i64, out: BytesWriter) -> i64:
        """As `convert`, for an action that `actions` or, where it is to be asked, `inspect` gave."""
        self.expire_ms = expire_ms
        if action == COPY:
            return AS_IT_IS
        mark: i64 = len(out)
        try:
            if action in (COLLECTION, COLLECTION_ONCE):
                return self.collection(type_code, action == COLLECTION_ONCE, buf, start, end, out)
            if action in (FIELDS, FIELDS_ONCE):
                return self.fields(type_code, action == FIELDS_ONCE, buf, start, end, out)
            if action == STREAM:
                return self.stream(buf, start, end, out)
            if action == ARRAY:
                return self.array(type_code, buf, start, end, out)
            if action == MODULE:
                return self.module(buf, start, out)
            if action == JSON:
                return self.document(buf, start, end, out)
        except RdbError:
            out.truncate(mark)
            raise
        if action == LOST:
            self.lose_whole(type_code)
        return LEFT_OUT

    def collection(self, type_code: i64, once: bool, buf: bytes, start: i64, end: i64, out: BytesWriter) -> i64:
        """Write a collection in an encoding that the target knows."""
        transcoder = self.transcoder
        mark: i64 = len(out)
        try:
            if once:
                self.lose_twice(transcoder.write_once(type_code, buf, start, end, out, self.keeps_last))
            else:
                transcoder.write(type_code, buf, start, end, out)
        except RdbError as e:
            if once or not self.mends or e.rule != TWICE:
                raise
            out.truncate(mark)
            self.lose_twice(transcoder.write_once(type_code, buf, start, end, out, self.keeps_last))
        if transcoder.is_empty:
            out.truncate(mark)
            self.note_empty()
            return LEFT_OUT
        if transcoder.sink.expiring > 0:
            self.lose("member-expiry", "the expiry of members", transcoder.sink.expiring, "loss")
        return self.becomes[type_code]

    def fields(self, type_code: i64, once: bool, buf: bytes, start: i64, end: i64, out: BytesWriter) -> i64:
        """Write a hash whose fields can expire."""
        transcoder = self.transcoder
        try:
            self.lose_twice(transcoder.read_fields(type_code, buf, start, end, once, self.keeps_last))
        except RdbError as e:
            if once or not self.mends or e.rule != TWICE:
                raise
            self.lose_twice(transcoder.read_fields(type_code, buf, start, end, True, self.keeps_last))
        return self.end_fields(out)

    def end_fields(self, out: BytesWriter) -> i64:
        """Write a hash whose fields can expire, which has been read."""
        fields = self.transcoder.fields
        self.judge_fields()
        if fields.count == 0:
            return LEFT_OUT
        if fields.form == HASH_EXPIRING:
            write_i64_le(out, fields.base)
        write_length(out, fields.count // 2)
        out.write(self.transcoder.body.getvalue())
        return fields.form

    def stream(self, buf: bytes, start: i64, end: i64, out: BytesWriter) -> i64:
        """Write a stream, which the checker has read."""
        streams = self.streams
        ahead = self.checker.decoder.stream
        assert ahead is not None
        streams.begin(ahead, True)
        stop = streams.feed(buf, start, out)
        if not streams.done or stop != end:
            raise CorruptError(_BAD_END)
        self.judge_stream()
        return type_of(streams.to)

    def array(self, type_code: i64, buf: bytes, start: i64, end: i64, out: BytesWriter) -> i64:
        """Write an array as a hash, where the policy says so."""
        if self.loses_array():
            return LEFT_OUT
        items = Items()
        decoder = self.transcoder.decoder
        decoder.begin(type_code)
        self.transcoder.end_at(decoder.feed(buf, start, items), end)
        write_length(out, len(items.items))
        write_elements(out, items.items, self.rules.compress)
        self.judge_array(decoder)
        return HASH

    def module(self, buf: bytes, start: i64, out: BytesWriter) -> i64:
        """Write the document of a value of a module that the target does not have, where there is one."""
        number, at = read_uint64(buf, start)
        if self.has_module(number):
            return AS_IT_IS
        text_at = document_at(number, buf, at)
        if text_at < 0:
            self.lose_module(module_name(number))
        elif self.keeps_document("module"):
            out.write(buf[text_at : skip_string(buf, text_at)])
            return STRING
        return LEFT_OUT

    def document(self, buf: bytes, start: i64, end: i64, out: BytesWriter) -> i64:
        """Write one of Dragonfly's documents as a string, where the policy says so."""
        if not self.keeps_document("json"):
            return LEFT_OUT
        out.write(buf[start:end])
        return STRING

    def encode(self, value: object, expire_ms: i64, out: BytesWriter) -> i64:
        """Write a Python value, as `rdbkit.values` says what these are; otherwise as `convert`."""
        self.expire_ms = expire_ms
        fields = self.transcoder.fields
        if isinstance(value, Hash) and value.field_expire_ms and fields.type_code == HASH:
            self.transcoder.body.truncate(0)
            fields.out = self.transcoder.body
            fields.begin()
            fields.count = 0
            fields.expiring = 0
            for name, content in value.items():
                fields.add(name, content, value.field_expire_ms.get(name, 0))
            return self.end_fields(out)
        mark: i64 = len(out)
        try:
            header = self.rules.header
            type_code = encode_value(out, value, header.flavour, header.version, self.rules.compress)
            if type_code not in self.rules.known:
                raise LossError("the target does not support the value that the script gives it")
        except LossError as e:
            out.truncate(mark)
            self.lose("value", e.message, 1, "loss")
            return LEFT_OUT
        return type_code

    # -- one value in pieces

    def open_pieces(self, type_code: int, chunks: Iterator[bytes]) -> tuple[int, Iterator[bytes]]:
        """What becomes of a value that comes in pieces, and the pieces, each of which is looked into as it goes by.

        Raises: RdbError without a place; so do the pieces, at the latest behind the last, where the target does not load the value.
        """
        if self.looks[type_code] & IMPOSSIBLE:
            raise self.impossible(type_code)
        action = self.actions[type_code]
        if self.looks[type_code] & OPEN:
            if action == COPY and level_of(type_code) > 0:
                action = STREAM  # it may have to be corrected
            chunks = self.checked(type_code, action, chunks)
        return action, chunks

    def checked(self, type_code: int, action: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces of a value, each of which has been looked into before it is handed on."""
        checker = self.checker
        self.opened += 1
        checker.begin(type_code)
        feeder = Feeder(checker, None)
        for chunk in chunks:
            feeder.push(chunk)
            yield chunk
        feeder.end()
        try:
            checker.finish()
        except CorruptError as e:
            if e.rule != EMPTY or self.drops_empty:
                raise
            self.note_empty()
        if self.weigh(type_code, action) != action:
            raise self.first_unmended()

    def first_unmended(self) -> CorruptError:
        """What is wrong with a value that cannot be mended, since it has gone by."""
        for e in self.checker.doubts:
            if e.rule == TWICE or e.rule == ORDER:
                return e
        raise AssertionError

    def copy_pieces(self, type_code: int, action: int, chunks: Iterator[bytes]) -> tuple[int, Iterator[bytes]]:
        """Of a value whose action is COPY, JSON or MODULE: its new type code, and those pieces of it that are to be written.

        AS_IT_IS or LEFT_OUT, as for `convert`, instead of the type code.
        """
        if action == JSON:
            return (STRING if self.keeps_document("json") else LEFT_OUT), chunks
        if action == COPY:
            return AS_IT_IS, chunks
        begun = b""
        for chunk in chunks:
            begun += chunk
            if len(begun) >= _MODULE_HEAD:
                break
        number, start = read_uint64(begun, 0)
        if self.has_module(number):
            return AS_IT_IS, chain([begun], chunks)
        text_at = document_at(number, begun, start)
        if text_at < 0:
            self.lose_module(module_name(number))
        elif self.keeps_document("module"):
            return STRING, _first(skip_string(begun, text_at) - text_at, chain([begun[text_at:]], chunks))
        return LEFT_OUT, chunks

    def write_pieces(
        self, type_code: int, action: int, chunks: Iterator[bytes], expire_ms: int, write: Callable[[bytes], object]
    ) -> int:
        """Write what becomes of a value of any other action; `front` is what precedes it. Otherwise as `write`."""
        self.expire_ms = expire_ms
        self.front = b""
        self.transcoder.body.truncate(0)
        if action == STREAM:
            return self.stream_pieces(chunks, write)
        if action == ARRAY:
            return self.array_pieces(type_code, chunks, write)
        if action not in (COLLECTION, FIELDS):
            self.lose_whole(type_code)
            return LEFT_OUT
        transcoder = self.transcoder
        transcoder.begin(type_code, transcoder.body)
        for _ in feed_pieces(transcoder.decoder, transcoder.sink, chunks):
            self.spill(write)
        self.spill(write)
        transcoder.names.finish()
        sink = transcoder.sink
        if action == FIELDS:
            self.judge_fields()
            return self.counted(int(transcoder.fields.form), sink.count // 2) if sink.count else LEFT_OUT
        if sink.count == 0:
            self.note_empty()
            return LEFT_OUT
        if sink.expiring:
            self.lose("member-expiry", "the expiry of members", sink.expiring, "loss")
        return self.counted(self.becomes[type_code], sink.count // transcoder.members)

    def spill(self, write: Callable[[bytes], object]) -> None:
        """Hand on what has been encoded so far."""
        body = self.transcoder.body
        write(body.getvalue())
        body.truncate(0)

    def counted(self, type_code: int, count: i64) -> int:
        """Set what precedes a collection of so many elements."""
        front = BytesWriter()
        if type_code == HASH_EXPIRING:
            write_i64_le(front, self.transcoder.fields.base)
        write_length(front, count)
        self.front = front.getvalue()
        return type_code

    def stream_pieces(self, chunks: Iterator[bytes], write: Callable[[bytes], object]) -> int:
        """Write a stream, of which the checker has seen each piece."""
        streams = self.streams
        feeder: Feeder | None = None
        for chunk in chunks:
            if feeder is None:
                ahead = self.checker.decoder.stream
                assert ahead is not None
                streams.begin(ahead, False)
                feeder = Feeder(streams, self.transcoder.body)
            feeder.push(chunk)
            self.spill(write)
        assert feeder is not None
        feeder.end()
        self.spill(write)
        self.judge_stream()
        return self.counted(type_of(streams.to), streams.nodes)

    def array_pieces(self, type_code: int, chunks: Iterator[bytes], write: Callable[[bytes], object]) -> int:
        """Write an array as a hash, where the policy says so."""
        if self.loses_array():
            return LEFT_OUT
        decoder = self.transcoder.decoder
        items = Items()
        decoder.begin(type_code)
        count = 0
        for _ in chain(feed_pieces(decoder, items, chunks), [None]):
            found = items.take()
            count += len(found)
            write_elements(self.transcoder.body, found, self.rules.compress)
            self.spill(write)
        self.judge_array(decoder)
        return self.counted(HASH, count)

    # -- what is lost

    def lose(self, kind: str, what: str, count: i64, policy: str) -> None:
        """Report a loss, which `policy` allows or does not."""
        self.losses.append(ValueLoss(kind, what, int(count), False, self.on[policy] == FAIL))

    def note(self, kind: str, what: str, count: i64 = 1) -> None:
        """Report what is no loss of data."""
        self.losses.append(ValueLoss(kind, what, int(count), True, False))

    def note_empty(self) -> None:
        """Report a value without elements."""
        self.note("empty", "a key without elements, which servers since 7.0 skip and older ones trip over")

    def lose_twice(self, count: i64) -> None:
        """Report elements that were left out since others have their name."""
        if count > 0:
            self.losses.append(ValueLoss("duplicate", "fields or members that come twice", int(count), False, False))

    def lose_whole(self, type_code: i64) -> None:
        """Report a value whose type the target does not have."""
        name = self.file_types.types[type_code].type
        self.lose(name, f"a key of type {name}", 1, "loss")

    def judge_fields(self) -> None:
        """What became of the fields of a hash that expire: losses, and an expiry of the whole key."""
        fields = self.transcoder.fields
        if fields.beyond > 0:
            self.lose("field-expiry", "an expiry of fields that is later than the target can hold", fields.beyond, "field_ttl")
        if fields.type_code != HASH:
            return
        if fields.past > 0:
            self.note("expired-field", "fields that have expired", fields.past)
        lost = fields.expiring - fields.past
        if lost == 0:
            return
        chosen = self.on["field_ttl"]
        what = "the expiry of fields"
        at: i64 = NO_EXPIRY
        if chosen == "drop-field":
            what = "fields that expire"
        elif chosen == "key-min":
            at = fields.earliest
        elif chosen == "key-max" and fields.count // 2 == lost:
            at = fields.latest
        if at != NO_EXPIRY and (self.expire_ms == NO_EXPIRY or at < self.expire_ms):
            self.expire_ms = at
            what += f"; the key now expires at {at} ms"
        self.lose("field-expiry", what, lost, "field_ttl")

    def judge_stream(self) -> None:
        """What a stream had that its older form has not."""
        streams = self.streams
        if streams.to == streams.level:
            return  # only corrected
        if streams.counters:
            if self.on["stream_extras"] == FAIL:
                self.lose("stream-counters", "counters, which the target recomputes", 1, "stream_extras")
            else:
                self.note("stream-counters", "counters, which the target recomputes")
        if streams.dedup_ids > 0:
            self.lose("dedup", "ids by which it knows an entry that is sent twice", streams.dedup_ids, "loss")
        elif streams.configured:
            self.lose("dedup", "for how long it remembers its producers", 1, "loss")
        if streams.unowned > 0 and streams.to < 5:
            chosen = self.on["pending_unowned"]
            what = "pending entries that belong to no consumer"
            if chosen == "assign":
                what += f"; they now belong to {(streams.owner or b'').decode('utf-8', 'backslashreplace')}"
            self.lose("nacked", what, streams.unowned, "pending_unowned")

    def loses_array(self) -> bool:
        """Whether an array is left out, which is then reported."""
        if self.on["array"] == "hash":
            return False
        self.lose("array", "a key of type array", 1, "array")
        return True

    def judge_array(self, decoder: Decoder) -> None:
        """What an array had that a hash has not."""
        self.lose("array", "an array, which is a hash now", 1, "array")
        if decoder.insert_index is not None:
            self.lose("array-cursor", "where an array is inserted into next", 1, "array")

    def lose_module(self, name: str) -> None:
        """Report a value of a module."""
        self.lose("module", f"a value of {described(name)}", 1, self.module_policy())

    def module_policy(self) -> str:
        """The policy for a module that cannot be kept: to keep all, or to make strings of documents, says nothing of it."""
        return "loss" if self.on["module"] in ("json-as-string", "keep") else "module"

    def has_module(self, number: int) -> bool:
        """Whether the target has the module type of this id."""
        found: bool = self.modules is None or module_name(number) in self.modules
        return found

    def keeps_document(self, kind: str) -> bool:
        """A JSON document, which can become a string; False where it is left out."""
        becomes_string = self.on["module"] == "json-as-string"
        if becomes_string:
            self.lose(kind, "a JSON document, which is a string now", 1, "module")
        else:
            self.lose(kind, "a JSON document", 1, self.module_policy())
        return becomes_string


def is_empty(file_types: FileTypes, type_code: i64, buf: bytes, pos: i64, end: i64) -> bool:
    """Whether the collection in `buf[pos:end]`, which is short, has no elements, as far as its headers say."""
    rule: i64 = count_rule(file_types.types[type_code])
    try:
        return element_count(rule, buf, pos, end) == 0
    except RdbError:
        return False


def document_at(number: int, buf: bytes, start: i64) -> i64:
    """Where the string with a document stands in a module value that begins behind its id at `start`; -1 where it has none.

    Source: rdb_load of RedisJSON, whose encodings 2 and 3 begin with the document's text.
    """
    if module_name(number) == _JSON_MODULE and number & 1023 in _JSON_VERSIONS and buf[start] == _MODULE_STRING:
        return start + 1
    return -1


def write_elements(out: BytesWriter, elements: list[Any], compress: bool) -> None:
    """Elements of an array as fields of a hash."""
    for index, value in elements:
        write_string(out, b"%d" % index)
        write_string(out, value if isinstance(value, bytes) else number_text(value), compress)


def _first(size: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The first `size` bytes; the rest is read and dropped."""
    for chunk in chunks:
        yield chunk[:size]
        size = max(size - len(chunk), 0)
