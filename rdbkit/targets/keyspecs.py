"""What a command does and which keys it writes: the loader of keyspecs.toml, which servers wrote, and keyspecs_documented.toml."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol


class Written(NamedTuple):
    """What a command does.

    Attributes:
        keys: the keys that it may write, in the database in use. A key is among them too where it depends on its value or on
            the options whether it is written, as with GETEX.
        kind: "read"; "write"; "blocking-write", which may have to wait first, as BLPOP; "script", whose keys are the KEYS that it
            was given, though it may write others (EVAL, FCALL); "definition", of scripts, functions and indexes (SCRIPT LOAD);
            "publish"; "flush", of whole databases or of keys that are not named (FLUSHALL, SWAPDB, FT.DROPINDEX ... DD); "other",
            which writes no key and is no plain read (CONFIG, MULTI, and XREAD, which may have to wait); or "unknown".
        elsewhere: further keys that it may write, each with its database: those of MOVE and of COPY with the option DB.
    """

    keys: tuple[bytes, ...]
    kind: str
    elsewhere: tuple[tuple[int, bytes], ...] = ()


class CommandTable:
    """What commands do, by their names.

    >>> TABLE.written([b"set", b"k", b"v"])
    Written(keys=(b'k',), kind='write', elsewhere=())
    >>> TABLE.written([b"ZUNIONSTORE", b"sum", b"2", b"a", b"b"]).keys
    (b'sum',)
    >>> TABLE.written([b"GET", b"k"]), TABLE.reads([b"GET", b"k"])
    (Written(keys=(), kind='read', elsewhere=()), (b'k',))
    >>> TABLE.written([b"X.NEW", b"k"]).kind
    'unknown'
    """

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """A table of commands, as the files have them: "XGROUP CREATE" = { kind = "write", writes = [[2]] }."""
        self._named: dict[bytes, _Command] = {}
        for name, row in rows.items():
            self._add(name.encode(), row)

    def written(self, args: Sequence[bytes]) -> Written:
        """What a command does, and to which keys. Never raises: a command that the server would refuse gets some answer.

        Args:
            args: the name, in upper or lower case, then its arguments. Name and subcommand may be one: b"XGROUP CREATE".
        """
        command = self._named.get(args[0]) if args else _UNKNOWN
        if command is None or command.within is not None:
            command, args = self._find(args)
        if command.always is not None:
            return command.always
        at = command.only_key
        if at and at < len(args):
            return Written((args[at],), command.kind)
        return command.written(args)

    def reads(self, args: Sequence[bytes]) -> tuple[bytes, ...]:
        """The keys on whose values the reply to a command of the kind "read" depends.

        None for a command of another kind, and none where the reply does not depend on certain keys alone: for SCAN, KEYS and
        SORT_RO, and for HSCAN and its like, whose cursors are one server's.
        """
        command = self._named.get(args[0]) if args else _UNKNOWN
        if command is None or command.within is not None:
            command, args = self._find(args)
        return _keys(command.reads, args)

    def only_keys(self) -> dict[bytes, int]:
        """Names that alone tell what is written, each with the place of the one key, or 0 for none; the others have to be asked."""
        found = {}
        for name, command in self._named.items():
            if command.within is None:
                if command.kind == "write" and command.only_key:
                    found[name] = command.only_key
                elif command.always is not None and command.kind in ("read", "other", "publish"):
                    found[name] = 0
        return found

    def plain(self, name: bytes) -> tuple[str, int] | None:
        """The kind of a command, and which argument is the one key that it writes; None where the arguments decide.

        That is 0 for none, and -1 where all arguments are keys that it writes.

        >>> TABLE.plain(b"SET"), TABLE.plain(b"GET"), TABLE.plain(b"DEL"), TABLE.plain(b"EVAL")
        (('write', 1), ('read', 0), ('write', -1), None)
        """
        command, _ = self._find([name])
        if command is _UNKNOWN or command.within is not None:
            return None
        if command.writes == (_Range(1, -1),) and not command.more:
            return command.kind, -1
        return None if command.always is None and not command.only_key else (command.kind, command.only_key)

    def learn(self, name: bytes, info: object) -> None:
        """Take over what a server says of a command that the table lacks; what cannot be understood is left out.

        Args:
            name: as it was asked for. A server may have given another name to a command that the table knows.
            info: what COMMAND INFO answers for that name, which is one element of its reply; RESP2 or RESP3, in bytes or str.
        """
        if name.upper() in self._named:
            return
        try:
            rows = list(command_rows(info))
            origin, row = rows[0]
            known = self._named.get(origin.split(" ")[0].encode())
            if known is not None:
                self._named[name.upper()] = self._named[name.lower()] = known
                return
            for full, row in rows:
                self._add(b" ".join([name, *full.encode().split()[1:]]), row)
        except (TypeError, ValueError, LookupError, AttributeError):
            return

    def _add(self, name: bytes, row: Mapping[str, Any]) -> None:
        first, _, rest = name.upper().partition(b" ")
        command = _Command(first, row)
        if rest:
            of = self._named.get(first)
            if of is None:
                of = self._named[first] = self._named[first.lower()] = _Command(first, {"kind": "other"})
            if of.within is None:
                of.within = {}
            of.within[rest] = command
        else:
            self._named[first] = self._named[first.lower()] = command

    def _find(self, args: Sequence[bytes]) -> tuple[_Command, Sequence[bytes]]:
        """The command, and its arguments with one word in each."""
        if b" " in args[0]:
            args = [*args[0].split(), *args[1:]]
            if not args:
                return _UNKNOWN, args
        command = self._named.get(args[0].upper(), _UNKNOWN)
        if command.within is not None:
            command = command.within.get(args[1].upper(), _UNKNOWN) if len(args) > 1 else _OTHER
        return command, args


class _Rule(Protocol):
    """Which arguments are keys."""

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]: ...


@dataclass(frozen=True, slots=True)
class _Range:
    """[first, last, step] in the files: argument `first` and each `step`th up to `last`, from the end where that is negative."""

    first: int
    last: int
    step: int = 1

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        end = self.last + 1 if self.last >= 0 else len(args) + self.last + 1
        return args[self.first : end : self.step]


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many keys there are is said by argument `count`; they begin with `first`."""

    count: int
    first: int
    step: int = 1

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        said = args[self.count] if self.count < len(args) else b""
        if not said.isdigit() or len(said) > _DIGITS:
            return ()
        end = self.first + (int(said) - 1) * self.step + 1
        return args[self.first : end : self.step] if end <= len(args) else ()


@dataclass(frozen=True, slots=True)
class _Keyword:
    """Keys stand behind a word at argument `from_` or later; they are the first `limit`th part of what follows, for 2 one half."""

    word: bytes
    from_: int
    last: int
    limit: int

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        for at in range(self.from_, len(args)):
            if args[at].upper() == self.word:
                first = at + 1
                return args[first : first + (len(args) - first) // max(self.limit, 1) + self.last + 1]
        return ()


@dataclass(frozen=True, slots=True)
class _Options:
    """One key behind each of some words, at argument `from_` or later. Without any, nothing is written."""

    words: tuple[bytes, ...]
    from_: int

    def keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        return [args[at + 1] for at in range(self.from_, len(args) - 1) if args[at].upper() in self.words]


#: No request has more arguments than ten digits say.
_DIGITS: Final = 10


def _rule(row: Any) -> _Rule:
    """A rule out of the files."""
    if isinstance(row, list):
        return _Range(row[0], row[1] if len(row) > 1 else row[0], row[2] if len(row) > 2 else 1)
    if "count" in row:
        return _Counted(row["count"], row["first"], row.get("step", 1))
    if "after" in row:
        return _Keyword(row["after"].upper().encode(), row["from"], row["last"], row["limit"])
    return _Options(tuple(word.encode() for word in row["options"]), row["from"])


def _keys(rules: tuple[_Rule, ...], args: Sequence[bytes]) -> tuple[bytes, ...]:
    if len(rules) == 1:
        return tuple(rules[0].keys(args))
    return tuple(key for rule in rules for key in rule.keys(args))


class _Command:
    """A row of the table."""

    __slots__ = ("always", "kind", "more", "only_key", "reads", "within", "writes")

    def __init__(self, name: bytes, row: Mapping[str, Any]) -> None:
        self.kind: str = row["kind"]
        self.writes = tuple(map(_rule, row.get("writes", ())))
        self.reads = tuple(map(_rule, row.get("reads", ())))
        self.more = _MORE.get(name)
        #: What it does whatever its arguments are.
        self.always = None if self.writes or self.more else Written((), self.kind)
        #: Its one key's place, 0 where it may have several.
        self.only_key = 0
        if (
            len(self.writes) == 1
            and isinstance(self.writes[0], _Range)
            and self.writes[0].first == self.writes[0].last
            and not self.more
        ):
            self.only_key = self.writes[0].first
        self.within: dict[bytes, _Command] | None = None

    def written(self, args: Sequence[bytes]) -> Written:
        """What it does, where that takes more than one look."""
        if self.more is not None:
            return self.more(args)
        keys = _keys(self.writes, args)
        if not keys and isinstance(self.writes[0], _Options):
            return _ONLY_READS
        return Written(keys, self.kind)


def _copy(args: Sequence[bytes]) -> Written:
    """COPY source destination [DB number] [REPLACE]"""
    for at in range(3, len(args) - 1):
        if args[at].upper() == b"DB":
            return Written((), "write", _elsewhere(args[at + 1], args[2]))
    return Written(tuple(args[2:3]), "write")


def _move(args: Sequence[bytes]) -> Written:
    """MOVE key number"""
    return Written(tuple(args[1:2]), "write", _elsewhere(args[2], args[1]) if len(args) > 2 else ())


def _migrate(args: Sequence[bytes]) -> Written:
    """MIGRATE host port key|"" number timeout [COPY] [REPLACE] [AUTH password] [AUTH2 name password] [KEYS key ...]"""
    if len(args) > 3 and args[3]:
        return Written((args[3],), "write")
    at = 6
    while at < len(args):
        word = args[at].upper()
        if word == b"KEYS":
            return Written(tuple(args[at + 1 :]), "write")
        at += {b"AUTH": 2, b"AUTH2": 3}.get(word, 1)
    return Written((), "write")


def _drop_index(args: Sequence[bytes]) -> Written:
    """FT.DROPINDEX index [DD]"""
    return Written((), "flush" if any(each.upper() == b"DD" for each in args[2:]) else "definition")


def _elsewhere(number: bytes, key: bytes) -> tuple[tuple[int, bytes], ...]:
    return ((int(number), key),) if number.isdigit() and len(number) < _DIGITS else ()


#: Commands of which no rule tells what they do.
_MORE: Final = {b"COPY": _copy, b"FT.DROPINDEX": _drop_index, b"MIGRATE": _migrate, b"MOVE": _move}
_ONLY_READS: Final = Written((), "read")
_UNKNOWN: Final = _Command(b"", {"kind": "unknown"})
_OTHER: Final = _Command(b"", {"kind": "other"})


def command_rows(info: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and row, as the files have it, of a command and of its subcommands; `info` is what COMMAND says of it.

    Raises: TypeError, ValueError, LookupError or AttributeError where it is something else.
    """
    parts = _items(info)
    within = _items(parts[9]) if len(parts) > 9 else []
    if within:
        for each in within:
            yield from command_rows(each)
        return
    flags = {_text(each) for each in _items(parts[2])}
    written, read, whole = _key_rules(parts, "write" in flags)
    row: dict[str, Any] = {}
    if "readonly" in flags:
        row["kind"] = "other" if "blocking" in flags else "read"
        if row["kind"] == "read" and whole and written + read:
            row["reads"] = written + read
    else:
        if not whole:
            row["kind"] = "unknown"
        elif "write" in flags:
            row["kind"] = "blocking-write" if "blocking" in flags else "write"
        else:
            row["kind"] = "script" if written else "other"  # a script may write what it is given; no flag says so
        if written:
            row["writes"] = written
    yield _text(parts[0]).upper().replace("|", " "), row


def _key_rules(parts: list[Any], writes: bool) -> tuple[list[Any], list[Any], bool]:
    """Rules for what is written and for what is only read, and whether they tell all keys."""
    if len(parts) < 9:  # before Redis 7.0
        first, last, step = (int(each) for each in parts[3:6])
        rules: list[Any] = [_range(first, last, step)] if first else []
        return rules if writes else [], [] if writes else rules, "movablekeys" not in {_text(each) for each in _items(parts[2])}
    written: list[Any] = []
    read: list[Any] = []
    whole = True
    for each in _items(parts[8]):
        spec = _record(each)
        flags = {_text(flag) for flag in _items(spec["flags"])}
        if "not_key" in flags:
            continue
        begin, find = _record(spec["begin_search"]), _record(spec["find_keys"])
        where, which = _record(begin["spec"]), _record(find["spec"])
        rules = read if "RO" in flags else written
        whole = whole and "incomplete" not in flags
        match _text(begin["type"]), _text(find["type"]):
            case "index", "range" if not which["limit"]:
                first, last = where["index"], which["lastkey"]
                rules.append(_range(first, first + last if last >= 0 else last, which["keystep"]))
            case "index", "keynum":
                rule = {"count": where["index"] + which["keynumidx"], "first": where["index"] + which["firstkey"]}
                rules.append(rule if which["keystep"] == 1 else rule | {"step": which["keystep"]})
            case "keyword", "range":
                word, start = _text(where["keyword"]), where["startfrom"]
                rules.append({"after": word, "from": start, "last": which["lastkey"], "limit": which["limit"]})
            case _:
                whole = False
    return written, read, whole


def _range(first: int, last: int, step: int) -> list[int]:
    return [first] if last == first else [first, last] if step == 1 else [first, last, step]


def _record(reply: object) -> dict[str, Any]:
    """A map: of RESP3, or as RESP2 has it."""
    if isinstance(reply, Mapping):
        return {_text(name): value for name, value in reply.items()}
    flat = _items(reply)
    return {_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _items(reply: object) -> list[Any]:
    if not isinstance(reply, (list, tuple, set, frozenset)):
        raise TypeError(f"not an array: {reply!r}")
    return list(reply)


def _text(reply: object) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _files() -> dict[str, dict[str, Any]]:
    import tomllib

    rows: dict[str, dict[str, Any]] = {}
    for name in ("keyspecs.toml", "keyspecs_documented.toml"):
        with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
            rows.update(tomllib.load(file)["commands"])
    return rows


TABLE: Final = CommandTable(_files())
"""What is known without asking a server."""
