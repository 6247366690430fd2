"""Append-only files: what they are made of, and up to where the commands in one are whole.

What the commands mean is for a server to say: here only their frame is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format.scan import Visitor
from rdbkit.model import TRAILING_DATA, AofBase
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.location import is_file, is_folder
from rdbkit.storage.manifest import SUFFIX, Manifest, find_manifest, folder_of, folders_in, read_manifest
from rdbkit.storage.source import open_source

_SNAPSHOT: Final = (b"REDIS", b"VALKEY")
#: How a file of commands begins: a command, or a time.
_COMMANDS: Final = (b"*", b"#TS:")
#: Bytes of a line, which are fewer than servers take.
_LINE: Final = 128
_ANNOTATION: Final = 1024
#: AUX fields, and bytes that have all those of a server that wrote it.
_PREAMBLE: Final = b"aof-preamble"
_BASE: Final = b"aof-base"
_HEAD: Final = 4096
_NEWLINE: Final = b"\r\n"


@dataclass(frozen=True)
class AppendOnly:
    """An append-only file.

    Attributes:
        path: what the user calls it: a folder, its manifest, or one file.
        files: paths of what a server loads, in this order.
        manifest: of a folder; None for one file.
    """

    path: str
    files: list[str]
    manifest: Manifest | None

    @property
    def everything(self) -> list[str]:
        """Paths of all files that are read, the manifest as well."""
        return [*self.files, *([] if self.manifest is None else [self.manifest.path])]


@dataclass(frozen=True)
class Damage:
    """Where commands cease to be whole: byte of the file, and what is wrong there."""

    offset: int
    what: str


def find_append_only(path: str) -> AppendOnly | None:
    """What a path is of, if it is an append-only file: a folder, its manifest, commands, or a snapshot with commands behind it.

    Returns:
        None for anything else, such as a snapshot, and what is not there. A snapshot that is damaged is left to who reads it.

    Raises: CorruptError where the manifest breaks a rule, and for a single file out of a folder; FileNotFoundError where a file is
        missing that the manifest names; OSError.
    """
    manifest_path = find_manifest(path)
    if manifest_path is not None:
        manifest = read_manifest(manifest_path)
        for missing in manifest.missing():
            raise FileNotFoundError(2, f"{manifest_path} names it, and there is no such file", missing)
        return AppendOnly(path, manifest.files, manifest)
    head = _head(path)
    if head.startswith(_COMMANDS):
        folder = folder_of(path)
        if folder is not None:
            raise CorruptError(f"it is one file of an append-only folder: name the folder, {folder}", source=path)
        return AppendOnly(path, [path], None)
    if head.startswith(_SNAPSHOT) and (_PREAMBLE in head or _BASE in head) and _goes_on(path):
        return AppendOnly(path, [path], None)
    return None


def _head(path: str) -> bytes:
    """The first bytes of a file; none of what is no file, or cannot be read: who reads it will say so."""
    if not is_file(path):
        return b""
    try:
        source = open_source(path)
        try:
            return source.refill(b"", 0, _HEAD)
        finally:
            source.close()
    except (RdbError, OSError):
        return b""


def base_of_folder(path: str) -> AofBase | None:
    """`Snapshot.aof_base` of the snapshot at a path; None where there is none. Raises: OSError."""
    if _BASE not in _head(path):
        return None
    try:
        with open_snapshot(path, relaxed=True, damaged=True) as snapshot:
            return snapshot.aof_base
    except RdbError:
        return None


def what_is_missing(path: str) -> str:
    """Why `find_append_only` has found nothing, in words. Raises: RdbError for a damaged snapshot, of which nothing is known."""
    if is_folder(path):
        inside = folders_in(path)
        hint = f", but {inside[0]} has one" if inside else ""
        return f"no append-only folder: it has no file *{SUFFIX}{hint}"
    if not is_file(path):
        return "it is read several times, and has to be a file or a folder"
    if _head(path).startswith(_SNAPSHOT):
        _end_of_snapshot(path)
        return "no append-only file: it is a snapshot, and no commands follow it"
    return "no append-only file: it begins with no command"


def _goes_on(path: str) -> bool:
    """Whether something follows the snapshot that begins an append-only file."""
    try:
        with open_snapshot(path, verify_checksum=False) as snapshot:
            if "1" not in (snapshot.aux.get("aof-preamble"), snapshot.aux.get("aof-base")):
                return False
            for _ in snapshot.scan(Visitor()):
                pass
            return snapshot.trailer is not None and snapshot.trailer.kind in TRAILING_DATA
    except RdbError:
        return False


def find_damage(path: str) -> Damage | None:
    """Where the commands of a file that is not compressed cease to be whole; None where they are whole to its end.

    Raises: RdbError where the snapshot that the file begins with is damaged.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        if file.read(len(_SNAPSHOT[1])).startswith(_SNAPSHOT):
            file.seek(_end_of_snapshot(path))
        else:
            file.seek(0)
        return _find_damage(file)


def _end_of_snapshot(path: str) -> int:
    with open_snapshot(path) as snapshot:
        for _ in snapshot.scan(Visitor()):
            pass
        return snapshot.rdb_size


class _Damaged(Exception):
    """What is wrong with a command."""


def _find_damage(file: BinaryIO) -> Damage | None:
    whole = file.tell()  # up to here all is whole
    end = file.seek(0, 2)
    file.seek(whole)
    in_multi = False
    while True:
        begin = file.tell()
        try:
            name = _read_command(file, end)
        except _Damaged as e:
            return Damage(whole, f"{e} at byte {begin}, in a transaction that begins here" if whole != begin else str(e))
        if name is None:
            return Damage(whole, "a transaction (MULTI) does not end") if in_multi else None
        if name == b"MULTI":
            in_multi = True
        elif name == b"EXEC":
            in_multi = False
        if not in_multi:
            whole = file.tell()


def _read_command(file: BinaryIO, end: int) -> bytes | None:
    """Pass over a command; returns its name, none for an annotation, and None at the end of the file."""
    line = file.readline(_LINE)
    if not line:
        return None
    if line.startswith(b"#"):
        if not line.endswith(b"\n"):
            line += file.readline(_ANNOTATION)
        if not line.endswith(b"\n"):
            raise _Damaged("a line that begins with # does not end")
        return b""
    if not line.strip(b"\0"):
        raise _Damaged("zeros stand where a command begins, as after a power cut")
    arguments = _number(line, b"*")
    if arguments < 1:
        raise _Damaged("a command has no arguments")
    name = b""
    for number in range(arguments):
        size = _number(file.readline(_LINE), b"$")
        if size > end - file.tell() - len(_NEWLINE):
            raise _Damaged("the file ends inside a command")
        if number == 0:
            name = file.read(min(size, _LINE)).upper()
            size -= min(size, _LINE)
        file.seek(size, 1)
        if file.read(len(_NEWLINE)) != _NEWLINE:
            raise _Damaged("an argument does not end where its length says")
    return name


def _number(line: bytes, sign: bytes) -> int:
    if not line.endswith(b"\n") and len(line) < _LINE:
        raise _Damaged("the file ends inside a command")
    digits = line[1:].rstrip(b"\r\n")
    if line[:1] == sign and digits.isdigit() and line.endswith(b"\n") and line != sign + digits + _NEWLINE:
        raise _Damaged("the ends of lines are not those of a server, as after a transfer in text mode")
    if line[:1] != sign or not digits.isdigit() or len(digits) > 18:
        what = "a command" if sign == b"*" else "an argument"
        raise _Damaged(f"{what} begins with {line[:20]!r}, not with {sign.decode()} and a number")
    return int(digits)
