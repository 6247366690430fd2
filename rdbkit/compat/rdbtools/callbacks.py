"""The callbacks of rdbtools that write: JSON, commands, and lines that `sort` and `diff` take."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring_ascii
from typing import Any, BinaryIO, Final

from rdbkit.compat.rdbtools.base import Element, Info, Key, RdbCallback
from rdbkit.compat.rdbtools.encodehelpers import STRING_ESCAPE_PRINT, STRING_ESCAPE_UTF8, apply_escape_bytes, bytes_to_unicode

#: What module data outside of keys is called.
_DATA_OF_MODULES: Final = b"__aux__"


class _Rows(RdbCallback):
    """Writes a row for each key, and its elements behind it, with what stands between as a subclass has it."""

    _to_value = b""
    _opens: tuple[bytes, bytes] = (b"", b"")  # of lists and sets, and of what has names
    _closes: tuple[bytes, bytes] = (b"", b"")

    def __init__(self, out: BinaryIO, string_escape: str | None = None) -> None:
        super().__init__(string_escape)
        self._out = out
        self._is_first_key = True
        self._is_first_element = True
        self._named = 0

    def _start_key(self, key: Key) -> None:
        self._out.write((b"\r\n" if self._is_first_key else b",\r\n") + self.encode_key(key) + self._to_value)
        self._is_first_key = False

    def _start(self, key: Key, named: int) -> None:
        self._start_key(key)
        self._out.write(self._opens[named])
        self._is_first_element = True
        self._named = named

    def _element(self, text: bytes) -> None:
        if not self._is_first_element:
            text = b"," + text
        self._is_first_element = False
        self._out.write(text)

    def _end(self) -> None:
        self._out.write(self._closes[self._named])

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        self._start_key(key)
        self._out.write(self.encode_value(value))

    def start_hash(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._start(key, 1)

    def hset(self, key: Key, field: Element, value: Element) -> None:
        self._element(self.encode_key(field) + self._to_value + self.encode_value(value))

    def end_hash(self, key: Key) -> None:
        self._end()

    def start_set(self, key: Key, cardinality: int, expiry: datetime | None, info: Info) -> None:
        self._start(key, 0)

    def sadd(self, key: Key, member: Element) -> None:
        self._element(self.encode_value(member))

    def end_set(self, key: Key) -> None:
        self._end()

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        self._start(key, 0)

    def rpush(self, key: Key, value: Element) -> None:
        self._element(self.encode_value(value))

    def end_list(self, key: Key, info: Info) -> None:
        self._end()

    def start_sorted_set(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._start(key, 1)

    def zadd(self, key: Key, score: float, member: Element) -> None:
        self._element(self.encode_key(member) + self._to_value + self.encode_value(score))

    def end_sorted_set(self, key: Key) -> None:
        self._end()

    def start_stream(self, key: Key, listpacks_count: int, expiry: datetime | None, info: Info) -> None:
        self._start(key, 1)

    def end_stream(self, key: Key, items: int, last_entry_id: str, cgroups: list[dict[str, Any]]) -> None:
        self._end()


class JSONCallback(_Rows):
    """Writes a list with an object for each database; streams and modules are empty objects, as rdbtools has them.

    Args:
        out: where bytes go.
        string_escape: how bytes become text, "utf8" by default.
    """

    _to_value = b":"
    _opens = (b"[", b"{")
    _closes = (b"]", b"}")

    def __init__(self, out: BinaryIO, string_escape: str | None = None) -> None:
        super().__init__(out, STRING_ESCAPE_UTF8 if string_escape is None else string_escape)
        self._has_databases = False

    def encode_key(self, key: Key) -> bytes:
        """A key as a JSON string."""
        return encode_basestring_ascii(bytes_to_unicode(key, self._escape, True)).encode()

    def encode_value(self, val: Element) -> bytes:
        """A value as a JSON string, numbers too."""
        return encode_basestring_ascii(bytes_to_unicode(val, self._escape)).encode()

    def start_rdb(self) -> None:
        self._out.write(b"[")

    def start_database(self, db_number: int) -> None:
        self._out.write(b"},{" if self._has_databases else b"{")
        self._has_databases = True
        self._is_first_key = True

    def end_rdb(self) -> None:
        self._out.write(b"}]" if self._has_databases else b"]")

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        if key is not None:
            self._start(key, 1)
        return False

    def end_module(self, key: Key | None, buffer_size: int, buffer: bytes | None = None) -> None:
        if key is not None:
            self._end()


class KeyValsOnlyCallback(_Rows):
    """Writes keys with their values and elements, without braces."""

    _to_value = b" "

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        if key is not None:
            self._start(key, 1)
        return False


class KeysOnlyCallback(RdbCallback):
    """Writes the name of each key, once, on a line of its own."""

    def __init__(self, out: BinaryIO, string_escape: str | None = None) -> None:
        super().__init__(string_escape)
        self._out = out

    def _key(self, key: Key) -> None:
        self._out.write(self.encode_key(key) + b"\n")

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_hash(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_set(self, key: Key, cardinality: int, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_sorted_set(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_stream(self, key: Key, listpacks_count: int, expiry: datetime | None, info: Info) -> None:
        self._key(key)

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        if key is not None:
            self._key(key)
        return False


class DiffCallback(RdbCallback):
    """Writes a line for each element, which tells its database and key, so that `sort` and `diff` compare files.

    Args:
        out: where bytes go.
        string_escape: how bytes are written, "print" by default.
    """

    def __init__(self, out: BinaryIO, string_escape: str | None = None) -> None:
        super().__init__(STRING_ESCAPE_PRINT if string_escape is None else string_escape)
        self._out = out
        self._dbnum = 0
        self._index = 0

    def _line(self, key: Key, text: bytes) -> None:
        self._out.write(b"db=%d %b%b\r\n" % (self._dbnum, self.encode_key(key), text))

    def start_database(self, db_number: int) -> None:
        self._dbnum = db_number

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        self._line(key, b" -> " + self.encode_value(value))

    def hset(self, key: Key, field: Element, value: Element) -> None:
        self._line(key, b" . " + self.encode_key(field) + b" -> " + self.encode_value(value))

    def sadd(self, key: Key, member: Element) -> None:
        self._line(key, b" { " + self.encode_value(member) + b" }")

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        self._index = 0

    def rpush(self, key: Key, value: Element) -> None:
        self._line(key, b"[%d] -> %b" % (self._index, self.encode_value(value)))
        self._index += 1

    def zadd(self, key: Key, score: float, member: Element) -> None:
        self._line(key, b" -> {" + self.encode_key(member) + b", score=" + self.encode_value(score) + b"}")

    def end_stream(self, key: Key, items: int, last_entry_id: str, cgroups: list[dict[str, Any]]) -> None:
        self._line(key, b" -> stream-items=%d" % items)

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        self._line(_DATA_OF_MODULES if key is None else key, b" -> module-name=" + module_name.encode())
        return False


class ProtocolCallback(RdbCallback):
    """Writes commands that `redis-cli --pipe` takes.

    Streams, values of modules and expiries of members of sets have no commands here, as in rdbtools: a warning tells of the first
    that is left out. `rdbkit export --format resp` writes them.

    Args:
        out: where bytes go.
        string_escape: how bytes are written, as they are by default.
        emit_expire: False to leave expiries out.
        amend_expire: seconds to add to each.
    """

    def __init__(self, out: BinaryIO, string_escape: str | None = None, emit_expire: bool = True, amend_expire: int = 0) -> None:
        super().__init__(string_escape)
        self._out = out
        self._emit_expire = emit_expire
        self._amend = timedelta(seconds=amend_expire)
        self._expiry: datetime | None = None
        self._warned = False

    def emit(self, *args: Element) -> None:
        """Write a command."""
        parts = [b"*%d\r\n" % len(args)]
        for arg in args:
            text = apply_escape_bytes(arg, self._escape)
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
        self._out.write(b"".join(parts))

    def select(self, db_number: int) -> None:
        """Write the command that goes to a database."""
        self.emit(b"SELECT", db_number)

    def expireat(self, key: Key, timestamp: int) -> None:
        """Write the command that lets a key expire, in Unix seconds."""
        self.emit(b"EXPIREAT", key, timestamp)

    def _start(self, expiry: datetime | None) -> None:
        self._expiry = expiry

    def _end(self, key: Key) -> None:
        if self._expiry is not None and self._emit_expire:
            self.expireat(key, int((self._expiry + self._amend).replace(tzinfo=UTC).timestamp() // 1))
        self._expiry = None

    def _leave_out(self, key: Key, what: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{what} {key!r} is left out, and what is like it: rdbtools has no commands for it; rdbkit export writes them",
                stacklevel=7,  # of who has called `parse`
            )

    def start_database(self, db_number: int) -> None:
        self.select(db_number)

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        self._start(expiry)
        self.emit(b"SET", key, value)
        self._end(key)

    def start_hash(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._start(expiry)

    def hset(self, key: Key, field: Element, value: Element) -> None:
        self.emit(b"HSET", key, field, value)

    def expire_member(self, key: Key, member: Element, expiry: datetime) -> None:
        if not self._emit_expire:
            return
        if self._in_set:
            self._leave_out(key, "the expiry of a member of the set")
            return
        when = (expiry + self._amend).replace(tzinfo=UTC)
        self.emit(b"HPEXPIREAT", key, round(when.timestamp() * 1000), b"FIELDS", 1, member)

    def end_hash(self, key: Key) -> None:
        self._end(key)

    _in_set = False

    def start_set(self, key: Key, cardinality: int, expiry: datetime | None, info: Info) -> None:
        self._in_set = True
        self._start(expiry)

    def sadd(self, key: Key, member: Element) -> None:
        self.emit(b"SADD", key, member)

    def end_set(self, key: Key) -> None:
        self._in_set = False
        self._end(key)

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        self._start(expiry)

    def rpush(self, key: Key, value: Element) -> None:
        self.emit(b"RPUSH", key, value)

    def end_list(self, key: Key, info: Info) -> None:
        self._end(key)

    def start_sorted_set(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._start(expiry)

    def zadd(self, key: Key, score: float, member: Element) -> None:
        self.emit(b"ZADD", key, score, member)

    def end_sorted_set(self, key: Key) -> None:
        self._end(key)

    def start_stream(self, key: Key, listpacks_count: int, expiry: datetime | None, info: Info) -> None:
        self._leave_out(key, "the stream")

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        self._leave_out(module_name if key is None else key, "the data of the module" if key is None else f"the {module_name}")
        return False

    def function_library(self, name: str, code: bytes) -> None:
        self.emit(b"FUNCTION", b"LOAD", code)
