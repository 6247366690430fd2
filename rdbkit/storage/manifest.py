"""Append-only folders: which files make one up, in the order in which a server loads them.

Since 7.0 a server keeps its append-only file as a folder: a base, the increments that were written after it, and a manifest,
which has a line for each of them:

    file appendonly.aof.2.base.rdb seq 2 type b
    file appendonly.aof.2.incr.aof seq 2 type i

Type `h` is history, which the server is about to delete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from rdbkit.errors import CorruptError
from rdbkit.storage.compression import without_suffix
from rdbkit.storage.location import is_file, is_folder, is_local

SUFFIX: Final = ".manifest"
#: Bytes of a manifest. A server has one increment, and after failed rewrites some more.
_LARGEST: Final = 1 << 20
#: A word of a line: quoted as servers write names with blanks and the like, or bare.
_WORD: Final = re.compile(rb"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\')*)'|([^\s"']+))(?=\s|$)""", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_NUMBER: Final = re.compile(rb"[0-9]{1,18}")
#: `appendonly.aof.2.base.rdb`, and what the increments beside it are called.
_BASE: Final = re.compile(r"(.+)\.[0-9]+\.base\.(?:rdb|aof)", re.DOTALL)
_INCREMENT: Final = r"\.[0-9]+\.incr\.aof"


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        path: of the manifest.
        base: path of the base; None where there is none yet.
        increments: paths of what was written after it, the oldest first.
    """

    path: str
    base: str | None
    increments: list[str]

    @property
    def files(self) -> list[str]:
        """All that a server loads, in this order."""
        return [*([] if self.base is None else [self.base]), *self.increments]

    @property
    def folder(self) -> str:
        """The folder that has the files."""
        return os.path.dirname(self.path) or os.curdir

    def missing(self) -> list[str]:
        """The files that are not there."""
        return [path for path in self.files if not is_file(path)]


def find_manifest(path: str) -> str | None:
    """The path of the manifest where `path` is an append-only folder or a manifest; None where it is neither.

    Raises: CorruptError where the folder has several.
    """
    if is_folder(path):
        names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIX))
        found = [each for each in (os.path.join(path, name) for name in names) if is_file(each)]
        if len(found) > 1:
            raise CorruptError(
                f"the folder has several manifests: {', '.join(map(os.path.basename, found))}; name one", source=path
            )
        return found[0] if found else None
    return path if path.endswith(SUFFIX) and is_local(path) else None


def read_manifest(path: str) -> Manifest:
    """Read a manifest as servers do, and as strictly.

    Raises: CorruptError where it breaks a rule, and where a name is not one of a file beside it; OSError.
    """
    with open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise CorruptError(f"no manifest: it has more than {_LARGEST:,} bytes", source=path)
    base: str | None = None
    increments: list[str] = []
    last = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.startswith(b"#") or (not line and number > data.count(b"\n")):
            continue
        try:
            name, sequence, kind = _entry(line)
            if kind == b"b" and base is not None:
                raise CorruptError("it names two bases")
            if kind == b"i" and sequence <= last:
                raise CorruptError("the increments are not in their order")
        except CorruptError as e:
            raise CorruptError(f"line {number} of the manifest: {e.message}", source=path) from None
        where = os.path.join(os.path.dirname(path), name)
        if kind == b"b":
            base = where
        elif kind == b"i":
            increments.append(where)
            last = sequence
    if base is None and not increments:
        raise CorruptError("the manifest names no files", source=path)
    return Manifest(path, base, increments)


def _entry(line: bytes) -> tuple[str, int, bytes]:
    """Name, sequence number and type of a line. Raises: CorruptError."""
    words = _words(line.strip())
    if len(words) < 6 or len(words) % 2:
        raise CorruptError("it does not have the form: file NAME seq N type b|i|h")
    fields = {key.lower(): value for key, value in zip(words[::2], words[1::2], strict=True)}
    name, sequence, kind = fields.get(b"file", b""), fields.get(b"seq", b""), fields.get(b"type", b"")[:1]
    if not name or not _NUMBER.fullmatch(sequence) or not int(sequence):
        raise CorruptError("it does not have the form: file NAME seq N type b|i|h")
    if b"/" in name or b"\\" in name or b"\0" in name or name in (b".", b".."):
        raise CorruptError(f"{os.fsdecode(name)!r} is not the name of a file beside it")
    if kind not in (b"b", b"i", b"h"):
        raise CorruptError(f"no type of file is called {os.fsdecode(kind)!r}")
    return os.fsdecode(name), int(sequence), kind


def _words(line: bytes) -> list[bytes]:
    """A line split as a server splits its configuration. Raises: CorruptError where a quote does not end."""
    found = []
    at = 0
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None:
            raise CorruptError("a quote in it does not end")
        double, single, bare = match.groups()
        if double is not None:
            found.append(_ESCAPE.sub(_unescaped, double))
        else:
            found.append(single.replace(b"\\'", b"'") if single is not None else bare)
        at = match.end()
    return found


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits, letter = match.groups()
    return bytes.fromhex(digits.decode()) if digits else _ESCAPES.get(letter, letter)


def folder_of(path: str) -> str | None:
    """The append-only folder that a file belongs to: its folder, if a manifest there names it; None otherwise."""
    real = os.path.realpath(path)
    if any(real in manifest.files for manifest in _readable(os.path.dirname(real))):
        return os.path.dirname(path) or os.curdir
    return None


def folders_in(folder: str) -> list[str]:
    """The append-only folders in a folder: a server's working folder has one."""
    inside = [os.path.join(folder, name) for name in sorted(_names(folder))]
    return [path for path in inside if is_folder(path) and any(name.endswith(SUFFIX) for name in _names(path))]


def newer_beside(path: str) -> tuple[str, ...] | None:
    """What stands beside the base of an append-only folder and is newer: names of files that are not empty.

    Args:
        path: of the base, as it was or compressed since.

    Returns:
        None where nothing beside it belongs to an append-only folder, so that nothing is known.
    """
    real = without_suffix(os.path.realpath(path))
    folder = os.path.dirname(real)
    match = _BASE.fullmatch(os.path.basename(real))
    prefix = match[1] if match is not None else ""
    for manifest in _readable(folder):
        if real in manifest.files:
            return _with_data(manifest.increments)
        if os.path.basename(manifest.path) == prefix + SUFFIX:  # of a later base: this one is history
            return _with_data(manifest.files)
    pattern = re.compile(re.escape(prefix) + _INCREMENT, re.DOTALL)
    there = sorted(name for name in _names(folder) if prefix and pattern.fullmatch(name))
    return _with_data([os.path.join(folder, name) for name in there]) if there else None


def _with_data(paths: list[str]) -> tuple[str, ...]:
    """The names of files that are not empty, or that are missing."""
    return tuple(os.path.basename(path) for path in paths if not is_file(path) or os.path.getsize(path))


def _readable(folder: str) -> Iterator[Manifest]:
    """The manifests in a folder that keep the rules."""
    for name in sorted(_names(folder)):
        if name.endswith(SUFFIX):
            with suppress(CorruptError, OSError):
                yield read_manifest(os.path.join(folder, name))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
