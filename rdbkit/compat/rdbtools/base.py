"""The callback that the others are made of: what the parser calls, in the order of the file."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from rdbkit.compat.rdbtools.encodehelpers import STRING_ESCAPE_RAW, apply_escape_bytes

#: A key as rdbtools gives it: bytes, or an int where servers store the name as a number.
Key = Any
#: An element as rdbtools gives it: bytes, or an int where the file has a number.
Element = Any
Info = dict[str, Any]


class RdbCallback:
    """What the parser calls for each part of a file; every method does nothing, to be overridden.

    Bytes come as bytes. What the file has as a number comes as an int: a string such as "12", a member of an intset, and a key
    that is the text of a number of 32 bits. An expiry is a `datetime` of UTC without a time zone, None where a key does not
    expire. `info` has `encoding`, `idle` and `freq` (None where the file does not say), and of packed collections `sizeof_value`,
    their bytes.

    What a callback does not override is not decoded: a callback of strings alone passes over hashes.

    Args:
        string_escape: how `encode_key` and `encode_value` escape: one of `encodehelpers.ESCAPE_CHOICES`, None for "raw".
    """

    _escape: str = STRING_ESCAPE_RAW  # also of subclasses that do not call `__init__`

    def __init__(self, string_escape: str | None = None) -> None:
        self._escape = STRING_ESCAPE_RAW if string_escape is None else string_escape

    def encode_key(self, key: Key) -> bytes:
        """A key, escaped unless all of it is printable ASCII."""
        return apply_escape_bytes(key, self._escape, skip_printable=True)

    def encode_value(self, val: Element) -> bytes:
        """A value, escaped."""
        return apply_escape_bytes(val, self._escape)

    def start_rdb(self) -> None:
        """The file has the header of a snapshot."""

    def aux_field(self, key: bytes, value: bytes | int) -> Any:
        """What the file says of itself, such as `redis-ver`. Reading ends where this returns what is true."""

    def start_database(self, db_number: int) -> None:
        """The keys that follow are in this database."""

    def db_size(self, db_size: int, expires_size: int) -> None:
        """How many keys, and keys that expire, the database has: a hint."""

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        """A string."""

    def start_hash(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        """A hash of `length` fields begins."""

    def hset(self, key: Key, field: Element, value: Element) -> None:
        """A field of it."""

    def end_hash(self, key: Key) -> None:
        """All of its fields have come."""

    def start_set(self, key: Key, cardinality: int, expiry: datetime | None, info: Info) -> None:
        """A set of `cardinality` members begins."""

    def sadd(self, key: Key, member: Element) -> None:
        """A member of it."""

    def end_set(self, key: Key) -> None:
        """All of its members have come."""

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        """A list begins; `info["zips"]` is the number of a quicklist's nodes."""

    def rpush(self, key: Key, value: Element) -> None:
        """An element of it, from head to tail."""

    def end_list(self, key: Key, info: Info) -> None:
        """All of its elements have come."""

    def start_sorted_set(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        """A sorted set of `length` members begins."""

    def zadd(self, key: Key, score: float, member: Element) -> None:
        """A member of it; the score is an int where the file has it so."""

    def end_sorted_set(self, key: Key) -> None:
        """All of its members have come."""

    def start_stream(self, key: Key, listpacks_count: int, expiry: datetime | None, info: Info) -> None:
        """A stream of so many nodes begins."""

    def stream_listpack(self, key: Key, entry_id: bytes, data: bytes) -> None:
        """A node of it: the id of its first entry as 16 bytes, the greater first, and a listpack with its entries."""

    def end_stream(self, key: Key, items: int, last_entry_id: str, cgroups: list[dict[str, Any]]) -> None:
        """All of its nodes have come.

        A group has `name`, `last_entry_id`, `pending` (a list of `id`, `delivery_time`, `delivery_count`) and `consumers` (of
        `name`, `seen_time` and `pending`).
        """

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        """The value of a module begins; without a key it is module data outside of keys.

        Returns: whether `end_module` is to have the value's bytes.
        """
        return False

    def handle_module_data(self, key: Key | None, opcode: int, data: Any) -> None:
        """A number or string that the module wrote."""

    def end_module(self, key: Key | None, buffer_size: int, buffer: bytes | None = None) -> None:
        """The value has ended: how many bytes it takes, and these, behind the byte of its type, where they are wanted."""

    def end_database(self, db_number: int) -> None:
        """All keys of this database have come."""

    def end_rdb(self) -> None:
        """All of the file has come."""

    # -- what rdbtools never knew

    def expire_member(self, key: Key, member: Element, expiry: datetime) -> None:
        """A field of a hash, or a member of a set, which has just come, expires. Not of rdbtools."""

    def function_library(self, name: str, code: bytes) -> None:
        """A function library stands in the file, with this code. Not of rdbtools."""


#: Methods that rdbtools has not, so that callbacks made for it need not have them.
ADDED: Final = ("expire_member", "function_library")
