"""Which keys: conditions that are decided before a value is looked at, and the text forms in which they are written.

`Selection` reads what a user says into clauses, which `rdbkit.format.filter` asks of records. The `parse_*` functions read what a
command line or a configuration file gives, and raise ValueError with one line that says what is wrong.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final, Literal, TypeAlias, TypeVar

from rdbkit.format.constants import ValueType
from rdbkit.format.filter import TYPES, Clause, Filter
from rdbkit.format.record import Record
from rdbkit.format.slots import SLOTS
from rdbkit.text import as_bytes

#: From and to, both included; None for an open end.
Bounds: TypeAlias = tuple[int | None, int | None]
Expiry: TypeAlias = Literal["expired", "not-expired", "no-ttl"]
T = TypeVar("T")

#: Beyond every time that a file can hold.
_EVER: Final = 1 << 64
#: What a glob has that is more than a name.
_SIGNS: Final = b"*?[\\"


class Selection:
    """Which keys are wanted. Immutable; without arguments, every key.

    Several values of one argument are alternatives: any of them will do. Different arguments must all hold, and so must both
    sides of `a & b`. Where an argument takes several values, a single one may be given as it is. Names and patterns of keys are
    bytes, or str, which is taken as UTF-8.

    Args:
        keys: globs of the whole key, as Redis' KEYS has them: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, `\\` before a character that
            is meant literally.
        regexes: regular expressions that match anywhere in the key (`re.search`).
        prefixes: what the key begins with, literally.
        not_keys: globs of keys that are not wanted.
        types: as `Record.type` has them: string, list, set, zset, hash, stream, module, array, ...
        dbs: database numbers, or ranges of them (a Python range, without its end).
        size: bytes that a record takes in the file, from and to.
        ttl: time left at `now_ms`, from and to, in milliseconds. A key without expiry has no such time, nor has one that has
            expired, so neither is selected.
        expires: Unix time of expiry, from and to, in milliseconds. A key without expiry is not selected.
        expiry: `expired` for keys that expired before `now_ms`, `not-expired` for all others, `no-ttl` for keys that never
            expire.
        slots: cluster slots, or ranges of them, 0 to 16383.
        sample: `(n, m)` keeps about n keys of m, decided by the key alone (its 64-bit BLAKE2b as a big-endian number, modulo m,
            is less than n): the same keys in every run, on every machine and in every file.
        now_ms: the present as Unix time in milliseconds; the clock's time at construction where it is not given.

    Raises: ValueError, with one line, for what can select nothing: a malformed pattern, an unknown type, numbers out of range.

    >>> import rdbkit
    >>> wanted = Selection(keys=b"s_*", types="set") & Selection(size=(None, 100))
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     print([r.key for r in filter(wanted, snapshot)])
    [b's_i32', b's_i16', b's_lp', b's_i64']
    """

    __slots__ = ("_clauses", "_filter")

    def __init__(
        self,
        *,
        keys: str | bytes | Iterable[str | bytes] = (),
        regexes: str | bytes | Iterable[str | bytes] = (),
        prefixes: str | bytes | Iterable[str | bytes] = (),
        not_keys: str | bytes | Iterable[str | bytes] = (),
        types: str | Iterable[str] = (),
        dbs: int | range | Iterable[int | range] = (),
        size: Bounds | None = None,
        ttl: Bounds | None = None,
        expires: Bounds | None = None,
        expiry: Expiry | None = None,
        slots: int | range | Iterable[int | range] = (),
        sample: tuple[int, int] | None = None,
        now_ms: int | None = None,
    ) -> None:
        keys, regexes = _names(keys, "keys"), _names(regexes, "regexes")
        prefixes, not_keys = _names(prefixes, "prefixes"), _names(not_keys, "not_keys")
        types, dbs, slots = _several(types, str), _ranges(dbs), _ranges(slots)
        size = None if size == (None, None) else size
        options: dict[str, Any] = {
            "keys": keys, "regexes": regexes, "prefixes": prefixes, "not_keys": not_keys, "types": types, "dbs": dbs, "size": size,
            "ttl": ttl, "expires": expires, "expiry": expiry, "slots": slots, "sample": sample,
        }  # fmt: skip
        _check_types(types)
        _check_ranges(dbs, None, "databases are numbered from 0 on")
        _check_ranges(slots, SLOTS, f"slots are numbered 0 to {SLOTS - 1}")
        _check_bounds(size, ttl, expires)
        _check_sample(sample)

        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        first, last = _window(ttl, expires, expiry, now)
        # a glob that is a name, or the beginning of one and a star, is tested as such, which is cheaper
        exact, begun, not_begun = _exact(keys), _beginnings(keys), _beginnings(not_keys)
        clause = Clause(
            given={name: value for name, value in options.items() if value} | _own_time(ttl, expiry, now_ms),
            types=frozenset(types) or None,
            dbs=dbs,
            size=size or (None, None),
            first_ms=first,
            last_ms=last,
            never_expiring=_takes_never_expiring(ttl, expires, expiry),
            names=exact,
            beginnings=tuple(group for group in (prefixes, begun) if group),
            not_beginnings=not_begun,
            globs=None if exact or begun else _any_glob(keys),
            not_globs=None if not_begun else _any_glob(not_keys),
            regexes=tuple(_regex(pattern) for pattern in regexes),
            slots=frozenset(chain.from_iterable(slots)) or None,
            sample=sample,
        )
        self._clauses: tuple[Clause, ...] = (clause,)
        self._filter: Filter = Filter(self._clauses)

    def wants(self, db: int, key: bytes, type: str, size: int | None, expire_ms: int | None) -> bool:  # noqa: A002 (as Record has it)
        """Whether this key is wanted.

        Args:
            size: bytes that the record takes in the file; None where that is not known yet: it is then left to `wants_size`.
            expire_ms: Unix time of its expiry in milliseconds, None for none.
        """
        return self._filter.wants_key(db, key, type, size, expire_ms)

    def __call__(self, record: Record) -> bool:
        """Whether this record is wanted, for `filter(selection, snapshot)`.

        The `size` of a record larger than a block is None until it has been read: it is then left to `wants_size`.
        """
        return self._filter.wants_record(record)

    def wants_size(self, size: int) -> bool:
        """Whether a record of so many bytes in the file is wanted, all else aside."""
        return self._filter.wants_size(size)

    def at(self, now_ms: int) -> Selection:
        """The same conditions at another present; one that was made with `now_ms` keeps its own.

        >>> Selection(ttl=(0, 1000)).at(5000).wants(0, b"key", "string", None, 5500)
        True
        """
        made = [Selection(**{"now_ms": now_ms, **clause.given})._clauses[0] for clause in self._clauses]
        return _of_clauses(tuple(new._replace(given=old.given) for new, old in zip(made, self._clauses, strict=True)))

    def filter_for(self, types: dict[int, ValueType], limit: int) -> Filter:
        """What tests the records of one snapshot while it is scanned.

        Args:
            types: `Snapshot.types`.
            limit: most bytes of a key's name.
        """
        return Filter(self._clauses, types, limit)

    @property
    def size(self) -> Bounds:
        """Bytes that a record may take in the file, from and to."""
        lows = [clause.size[0] for clause in self._clauses if clause.size[0] is not None]
        highs = [clause.size[1] for clause in self._clauses if clause.size[1] is not None]
        return max(lows, default=None), min(highs, default=None)

    @property
    def needs_size(self) -> bool:
        """Whether the answer depends on the record's size."""
        return self.size != (None, None)

    @property
    def is_everything(self) -> bool:
        """Whether no condition is set."""
        return not self

    def __bool__(self) -> bool:
        """Whether any condition is set."""
        return any(clause.given for clause in self._clauses)

    def __and__(self, other: Selection) -> Selection:
        """What both want."""
        return _of_clauses(self._clauses + other._clauses)

    def __repr__(self) -> str:
        return " & ".join(
            f"Selection({', '.join(f'{name}={value!r}' for name, value in clause.given.items())})" for clause in self._clauses
        )

    def __reduce__(self) -> tuple[Callable[[tuple[Clause, ...]], Selection], tuple[tuple[Clause, ...]]]:
        return _of_clauses, (self._clauses,)


def _of_clauses(clauses: tuple[Clause, ...]) -> Selection:
    selection = Selection.__new__(Selection)
    selection._clauses = clauses
    selection._filter = Filter(clauses)
    return selection


def _own_time(ttl: Bounds | None, expiry: Expiry | None, now_ms: int | None) -> dict[str, Any]:
    """The present, as one of the conditions, where it was given and they depend on it."""
    return {} if now_ms is None or (ttl is None and expiry not in ("expired", "not-expired")) else {"now_ms": now_ms}


def _window(ttl: Bounds | None, expires: Bounds | None, expiry: Expiry | None, now: int) -> tuple[int, int]:
    """What is said of expiry comes down to one window of time, beside the keys that never expire."""
    first, last = -_EVER, _EVER
    if ttl is not None:
        first, last = now + max(ttl[0] or 0, 0), _EVER if ttl[1] is None else now + ttl[1]
    if expires is not None:
        first = first if expires[0] is None else max(first, expires[0])
        last = last if expires[1] is None else min(last, expires[1])
    if expiry == "expired":
        last = min(last, now - 1)
    elif expiry == "not-expired":
        first = max(first, now)
    elif expiry == "no-ttl":
        first, last = _EVER, -_EVER
    elif expiry is not None:
        raise ValueError(f"expiry is expired, not-expired or no-ttl, not {expiry!r}")
    return first, last


def _takes_never_expiring(ttl: Bounds | None, expires: Bounds | None, expiry: Expiry | None) -> bool:
    """Whether keys are wanted that never expire."""
    return ttl is None and expires is None and expiry != "expired"


def _names(values: str | bytes | Iterable[str | bytes], argument: str) -> tuple[bytes, ...]:
    """Names and patterns of keys; a str is its bytes in UTF-8."""
    several = (values,) if isinstance(values, str | bytes) else tuple(values)
    return tuple(as_bytes(value, f"each of {argument}") for value in several)


def _several(values: T | Iterable[T], kind: type[T]) -> tuple[T, ...]:
    several = (values,) if isinstance(values, kind) else tuple(values)  # type: ignore[arg-type]
    for value in several:
        if not isinstance(value, kind):
            raise TypeError(f"{kind.__name__} is needed here, not {value!r}")
    return several


def _ranges(values: int | range | Iterable[int | range]) -> tuple[range, ...]:
    several = (values,) if isinstance(values, int | range) else values
    return tuple(v if isinstance(v, range) else range(v, v + 1) for v in several)


def _shown_range(r: range) -> str:
    return str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" if r else "an empty range"


def _check_types(names: tuple[str, ...]) -> None:
    """Raise ValueError for what no type is called."""
    for name in names:
        if name not in TYPES:
            raise ValueError(f"no type is called {name!r}; there are {', '.join(TYPES)}")


def _check_ranges(ranges: tuple[range, ...], end: int | None, numbered: str) -> None:
    """Raise ValueError for an empty range, and for one that is not within 0 and `end`; `numbered` says how it should be."""
    for r in ranges:
        if not r or min(r[0], r[-1]) < 0 or (end is not None and max(r[0], r[-1]) >= end):
            raise ValueError(f"{numbered}, not {_shown_range(r)}")


def _check_bounds(*several: Bounds | None) -> None:
    """Raise ValueError for bounds that nothing is between."""
    for bounds in several:
        if bounds is not None and _is_reversed(bounds):
            raise ValueError(f"a range from {bounds[0]} to {bounds[1]} ends before it begins")


def _is_reversed(bounds: Bounds) -> bool:
    low, high = bounds
    return low is not None and high is not None and low > high


def _check_sample(sample: tuple[int, int] | None) -> None:
    """Raise ValueError for a sample of no keys, or of more than there are."""
    if sample is not None and not 1 <= sample[0] <= sample[1]:
        raise ValueError(f"a sample is 1 to m keys of m, not {sample[0]} of {sample[1]}")


# -- patterns


def _regex(pattern: bytes) -> re.Pattern[bytes]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ValueError(f"regular expression {_shown(pattern)}: {e.msg} at byte {e.pos}") from None
    except (ValueError, OverflowError, RecursionError) as e:
        raise ValueError(f"regular expression {_shown(pattern)}: {e}") from None


def _exact(patterns: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What the names must be, where each of the patterns is one; otherwise nothing."""
    return () if any(sign in pattern for pattern in patterns for sign in _SIGNS) else patterns


def _beginnings(patterns: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What the names must begin with, where each of the patterns says no more; otherwise nothing."""
    if all(pattern[-1:] == b"*" and not any(sign in pattern[:-1] for sign in _SIGNS) for pattern in patterns):
        return tuple(pattern[:-1] for pattern in patterns)
    return ()


def _any_glob(patterns: tuple[bytes, ...]) -> re.Pattern[bytes] | None:
    return re.compile(b"|".join(map(_glob, patterns)), re.DOTALL) if patterns else None


def _glob(pattern: bytes) -> bytes:
    """The regular expression that matches all of a key where a Redis glob does.

    Source: stringmatchlen_impl in Redis' src/util.c, whose classes have their ways: a first `]` closes one, and what follows
    a dash is a range's end whatever it is. An unclosed class is refused here; the server closes it at the pattern's end.
    """
    pieces = [b""]
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append(b"")
        elif char == b"?":
            pieces[-1] += b"."
        elif char == b"[":
            piece, at = _glob_class(pattern, at + 1)
            pieces[-1] += piece
            continue
        else:
            if char == b"\\" and at + 1 < len(pattern):
                at += 1
            pieces[-1] += re.escape(pattern[at : at + 1])
        at += 1
    if len(pieces) == 1:
        return pieces[0]
    # Every piece between stars matches a fixed number of bytes, so the first place where it fits leaves the most to the pieces
    # after it: no other needs to be tried, which is what an atomic group says. Without it time is exponential in the stars.
    first, *middle, last = pieces
    return first + b"".join(b"(?>.*?%b)" % piece for piece in middle) + b".*" + last


def _glob_class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The regular expression of the class whose inside begins at `at`, and the place after its `]`."""
    begin = at
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members = b""
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            low = high = pattern[at + 1]
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            at += 3
        else:
            low = high = pattern[at]
            at += 1
        members += b"\\x%02x-\\x%02x" % (low, high)
    if at >= len(pattern):
        raise ValueError(f"glob {_shown(pattern)}: the [ at byte {begin - 1} is not closed; \\[ means the character itself")
    if not members:
        return b"." if negated else b"(?!)", at + 1
    return b"[%b%b]" % (b"^" if negated else b"", members), at + 1


def _shown(pattern: bytes) -> str:
    return repr(pattern)[1:]


# -- text forms

_BYTES: Final = {
    "": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_size(text: str) -> Bounds:
    """Bytes, from and to: `1KB~10MB`, `~10MB`, `1.5GB~`, or one exact size.

    Units are B, KB, MB, GB and TB, of 1024 each, in any case; a number alone is bytes.

    Raises: ValueError.

    >>> parse_size("1KB~10MB"), parse_size("~500"), parse_size("22")
    ((1024, 10485760), (None, 500), (22, 22))
    """
    if "~" not in text:
        exact = parse_bytes(text)
        return exact, exact
    return _bounds(text, "~", parse_bytes)


def parse_ttl(text: str) -> Bounds:
    """Milliseconds left, from and to: `1h~7d`, `~30m`, `1d~`, or `~` for any.

    Units are ms, s, m, h, d and w.

    Raises: ValueError.

    >>> parse_ttl("90s~1h"), parse_ttl("1d~")
    ((90000, 3600000), (86400000, None))
    """
    return _bounds(text, "~", parse_duration)


def parse_expires(text: str) -> Bounds:
    """Unix milliseconds, from and to: `2026-01-01..2026-02-01`, `..2026-01-31T12:00:00+01:00`, `1767225600000..`, or `..`.

    A time is a date (its midnight), an ISO 8601 date and time (UTC where it names no zone), or a number of Unix milliseconds.

    Raises: ValueError.

    >>> parse_expires("1970-01-02..1970-01-02T00:00:01"), parse_expires("..1970-01-02T00:00+01:00")
    ((86400000, 86401000), (None, 82800000))
    """
    return _bounds(text, "..", parse_time)


def parse_dbs(text: str) -> tuple[range, ...]:
    """Database numbers and ranges of them, with both ends, as `Selection` takes them.

    Raises: ValueError.

    >>> parse_dbs("0,2-4")
    (range(0, 1), range(2, 5))
    """
    return tuple(_int_range(part, "database") for part in text.split(","))


def parse_slots(text: str) -> tuple[range, ...]:
    """Cluster slots and ranges of them, with both ends, as `Selection` takes them.

    Raises: ValueError.

    >>> parse_slots("0-5460,16383")
    (range(0, 5461), range(16383, 16384))
    """
    slots = tuple(_int_range(part, "slot") for part in text.split(","))
    if any(r.stop > SLOTS for r in slots):
        raise ValueError(f"{text!r}: slots are numbered 0 to {SLOTS - 1}")
    return slots


def parse_sample(text: str) -> tuple[int, int]:
    """`n/m`: n keys of m.

    Raises: ValueError.

    >>> parse_sample("1/100")
    (1, 100)
    """
    match = re.fullmatch(r"\s*(\d{1,18})\s*/\s*(\d{1,18})\s*", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is no sample: write 1/100 for one key of a hundred")
    return int(match[1]), int(match[2])


def _bounds(text: str, separator: str, parse: Callable[[str], int]) -> Bounds:
    low, found, high = text.partition(separator)
    if not found:
        raise ValueError(f"{text!r} is no range: write from{separator}to, and leave out either for an open end")
    bounds = parse(low) if low.strip() else None, parse(high) if high.strip() else None
    if _is_reversed(bounds):
        raise ValueError(f"{text!r} ends before it begins")
    return bounds


def _quantity(text: str, units: dict[str, int]) -> int | None:
    match = re.fullmatch(r"(\d{1,15})(\.\d{1,9})?\s*([a-z]*)", text.strip().lower(), re.ASCII)
    if match is None or match[3] not in units:
        return None
    unit = units[match[3]]
    return int(match[1]) * unit + round(float(match[2] or 0) * unit)


def parse_bytes(text: str) -> int:
    """Bytes of a size; units are of 1024 each, with or without an i.

    Raises: ValueError.

    >>> parse_bytes("2GiB") == parse_bytes("2GB") == 2 << 30
    True
    """
    n = _quantity(text, _BYTES)
    if n is None:
        raise ValueError(f"{text!r} is no size: write 500, 10KB, 1.5MB, 2GB or 1TB")
    return n


def parse_duration(text: str) -> int:
    """Milliseconds of a duration.

    >>> parse_duration("1.5h")
    5400000
    """
    n = _quantity(text, _MS)
    if n is None:
        raise ValueError(f"{text!r} is no duration: write 500ms, 90s, 5m, 1.5h, 7d or 2w")
    return n


def parse_time(text: str) -> int:
    """Unix milliseconds of a time.

    Raises: ValueError where it is none.

    >>> parse_time("2026-01-31T12:00:00+01:00"), parse_time("1769857200000")
    (1769857200000, 1769857200000)
    """
    text = text.strip()
    # fewer digits are a date: 20260131
    if re.fullmatch(r"\d{9,18}", text, re.ASCII):
        return int(text)
    from datetime import UTC, datetime, timedelta  # late: most runs need no dates

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00:00, 2026-01-31T12:00:00+01:00 or Unix milliseconds"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _int_range(text: str, what: str) -> range:
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no {what}: write 5, 0-3, or several with commas between")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise ValueError(f"{text!r} ends before it begins")
    return range(first, last + 1)
