"""Keys as a user's script sees and changes them."""

from __future__ import annotations

from typing import Any

from librt.strings import BytesWriter

from rdbkit.errors import LossError, RdbError
from rdbkit.format.constants import NEWEST_REDIS, REDIS
from rdbkit.format.encode import encode_value
from rdbkit.format.record import Record


class ScriptError(ValueError):
    """What a script made of a key cannot be written."""


class ScriptRecord:
    """A key that a script may change: `def record(r): ... return r`, or `return None` to leave it out.

    Attributes:
        db: database that it will be in.
        key: its name, bytes.
        expire_ms: absolute expiry in Unix milliseconds, None for never.
        value: the value, as `Record.value` has it; reading it costs decoding, and memory for all of it. It may be changed in
            place or set.
        type, encoding, size, idle_s, freq: of the key in the source, as `Record` has them; they cannot be changed.
    """

    __slots__ = ("_given", "_is_new", "_record", "_value", "_was_read", "_was_set", "db", "expire_ms", "key")

    def __init__(self, record: Record, db: int, key: bytes, expire_ms: int | None) -> None:
        self.db = db
        self.key = key
        self.expire_ms = expire_ms
        self._given = expire_ms
        self._is_new = False
        self._record = record
        self._value: Any = None
        self._was_read = False
        self._was_set = False

    @property
    def type(self) -> str:
        """The type as `TYPE` answers it."""
        return self._record.type

    @property
    def encoding(self) -> str:
        """The encoding in the file."""
        return self._record.encoding

    @property
    def size(self) -> int | None:
        """Bytes of the record in the file; None while a record larger than a block is read."""
        return self._record.size

    @property
    def idle_s(self) -> int | None:
        """Seconds since the last access, where the file has them."""
        return self._record.idle_s

    @property
    def freq(self) -> int | None:
        """The LFU counter, 0 to 255, where the file has it."""
        return self._record.freq

    @property
    def value(self) -> Any:
        """The decoded value; see `rdbkit.values`. Assign to it to change it."""
        if not self._was_read and not self._was_set:
            self._value = self._record.value
            self._was_read = True
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value
        self._was_set = True

    def check(self) -> None:
        """Raise ScriptError, in the words of the script's author, where what it has changed cannot be written so.

        What it leaves as it is may be whatever the source has.
        """
        record = self._record
        try:
            what = self._what_is_wrong()
        except AttributeError as e:
            what = f"key lacks something, as after del: {e}"
        if what:
            raise ScriptError(f"the script's {what} (in db {record.db}, key {record.key!r})")

    def _what_is_wrong(self) -> str:
        key: object = self.key  # whatever a script may have put there
        if not isinstance(key, bytes):
            return f"key is bytes, not {type(key).__name__}"
        if type(self.db) is not int or not 0 <= self.db < 1 << 31:
            return f"db is the number of a database, not {_shown(self.db)}"
        at = self.expire_ms
        if at is not None and (type(at) is not int or (at != self._given and not 0 <= at < 1 << 63)):
            return f"expire_ms is Unix milliseconds or None, not {_shown(at)}"
        if not self._was_set and not self._was_read:
            return ""
        try:
            self._is_new = self._was_set or self._has_changed()
        except RdbError:
            raise
        except Exception as e:  # whatever a script may have put there
            return f"value cannot be compared with what it was: {type(e).__name__}"
        return self._what_is_wrong_with_value() if self._is_new else ""

    def _what_is_wrong_with_value(self) -> str:
        value = self._value
        try:
            if isinstance(value, (list, set, frozenset, dict)) and not value:
                return "value is empty, which no key can be: return None to leave it out"
            encode_value(BytesWriter(), value, REDIS, NEWEST_REDIS)
        except LossError:
            return ""  # no matter here: the target will be asked
        except (TypeError, ValueError, OverflowError) as e:
            return f"value cannot be written: {e}"
        except Exception as e:  # of an object that only looks like a value
            return f"value cannot be written: {type(e).__name__}"
        return ""

    def has_new_value(self) -> bool:
        """Whether the value was set, or changed in place, as `check` has found."""
        return self._is_new

    def _has_changed(self) -> bool:
        before = self._record.value
        beside = ("field_expire_ms", "member_expire_ms", "insert_index")
        return bool(before != self._value) or any(getattr(before, n, None) != getattr(self._value, n, None) for n in beside)


def _shown(thing: object) -> str:
    """What a script put in the place of a number, in few words."""
    try:
        text = repr(thing)
    except Exception:  # of a number of too many digits, or an object that cannot say what it is
        return f"this {type(thing).__name__}"
    return text if len(text) <= 64 else f"{text[:64]}..."
