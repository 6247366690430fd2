"""`rdbkit snapshot`: what a server or cluster has, as a file, as a target takes it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar

from rdbkit.errors import TargetError
from rdbkit.live.abilities import Abilities, abilities
from rdbkit.live.connection import Address, Lost
from rdbkit.live.coverage import Coverage
from rdbkit.live.functions import Libraries, libraries_of
from rdbkit.live.recording import MissingKey, Recording, Stopped, Terms, record
from rdbkit.live.replica import Replica, ReplicationRefused
from rdbkit.live.server import Server
from rdbkit.model import Header, aux_number
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, convert, is_read_twice
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.operations.merge import Merge, merge
from rdbkit.passes.info import InfoTally
from rdbkit.policy.ledger import Loss
from rdbkit.policy.rules import FAIL, Edits, Policies
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.location import file_size, is_folder, is_taken, open_file
from rdbkit.storage.output import Nowhere, open_output
from rdbkit.storage.temporary import PRIVATE, Permissions, give_name, make_folders, temporary_folder
from rdbkit.targets.target import Target, target_of
from rdbkit.text import count

__all__ = ["NodeSnapshot", "ServerSnapshot", "Via", "snapshot_server"]

R = TypeVar("R")
Via: TypeAlias = Literal["auto", "replication", "scan"]
_STEP_S: Final = 0.2
#: How often slots are looked at while keys are listed, in seconds.
_LOOK_S: Final = 2.0
#: How often slots that have moved are read again.
_ROUNDS: Final = 30
_COPIED: Final = 1 << 20
#: Seconds that threads get to end, once one has failed: a server may be silent for longer.
_LAST_WAIT_S: Final = 2.0


@dataclass
class NodeSnapshot:
    """What one node sent.

    Attributes:
        node: its host and port.
        file: what was made of it, where each node has a file of its own.
        header: of what it sent.
        keys: that it sent, by database.
        bytes: that it sent, as a file.
        taken_s: the moment that the snapshot is of, by the node's clock, in Unix seconds; None where it does not tell, or is of no
            single moment.
        conversion: what became of it on the way; None where its bytes were kept as they are.
    """

    node: str
    file: str | None
    header: Header
    keys: dict[int, int]
    bytes: int
    taken_s: int | None
    conversion: Conversion | None = None


@dataclass
class ServerSnapshot:
    """What became of a server's data.

    Attributes:
        server: its URL, without secrets.
        version: what it calls itself; None where it does not say.
        via: how its data came: "replication" or "scan".
        refusal: why it did not come by replication, where that was tried.
        nodes: by node; one where it is no cluster.
        header: of what was written, the highest of several files.
        keys: written.
        left_out: keys that the selection, an edit or a policy left out.
        seconds: that it took.
        merged: of a cluster in one file, what `merge` did.
        conversion: of one file that was converted, what `convert` did.
        read_ms: where keys were read one by one, from when to when, by the server's clock, in Unix milliseconds.
        missing: the first of the keys that are not in the file although they may be there: the server refused them.
        missing_keys: how many those are.
        notes: what may be on the server and is not in the file.
    """

    server: str
    version: str | None
    via: str
    nodes: list[NodeSnapshot]
    header: Header
    keys: int = 0
    left_out: int = 0
    seconds: float = 0.0
    merged: Merge | None = None
    conversion: Conversion | None = None
    refusal: str | None = None
    read_ms: tuple[int, int] | None = None
    missing: list[MissingKey] = field(default_factory=list)
    missing_keys: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def conversions(self) -> list[Conversion]:
        """All that was converted: one for each file, at most."""
        found = [self.conversion, *(node.conversion for node in self.nodes)]
        return [each for each in found if each is not None]

    @property
    def apart_s(self) -> int:
        """Of a cluster, the seconds between the first and the last node's moment, by their clocks."""
        moments = [node.taken_s for node in self.nodes if node.taken_s is not None]
        return max(moments) - min(moments) if moments else 0


def snapshot_server(
    server: Server,
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    target: str | Target | None = None,
    via: Via = "auto",
    per_node: bool = False,
    batch: int = 1000,
    big: int = 32 << 20,
    max_latency_ms: float | None = 2.0,
    policies: Policies | None = None,
    edits: Edits | None = None,
    selection: Selection | None = None,
    compress: bool = False,
    jobs: int = 1,
    on_error: str = "stop",
    deep: bool = False,
    force: bool = False,
    relaxed: bool = False,
    verify_checksum: bool = True,
    now_ms: int | None = None,
    loss_callback: Callable[[Loss], object] | None = None,
    waiting: Callable[[], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> ServerSnapshot:
    """Write what a server has to a file.

    The server is asked as a replica asks it, and only read. Where nothing is to be changed, the file has its bytes as they are, of
    one moment. Of a cluster, all nodes are asked at once, and what they send is merged; each is of one moment, and the report says
    how far these are apart. A server that lets nobody replicate is read key by key: that is of no single moment.

    Args:
        server: of `rdbkit.connect`.
        dst: as for `rdbkit.create`; with `per_node` a folder.
        target: for whom the file is, as for `rdbkit.convert`; None to leave it as the server writes it.
        via: "replication"; "scan" lists the keys, and reads them one by one; "auto" does so where replication is refused.
        batch: with "scan", how many keys to ask for at a time, at most.
        big: with "scan", how many bytes a key may take on the server to be read whole; larger ones are read in pieces, by
            commands. 0 reads all whole.
        max_latency_ms: with "scan", how long others may wait for a node meanwhile, before fewer keys are asked for at a time; None
            for any time.
        per_node: each node gets a file of its own in the folder `dst`, called by its host and port.
        policies, edits, selection, compress, jobs, on_error, deep, relaxed, verify_checksum, now_ms: as for `rdbkit.convert`.
        force: replace files that exist.
        loss_callback: called with each loss as it is found.
        waiting: called each time that the server says that it has not finished preparing.
        progress: called with the bytes that have come so far.

    Raises: TargetError where the server sends nothing, or ends in the middle, or slots move between nodes meanwhile; LossError as
        `rdbkit.convert`; other RdbError for data that is damaged; ValueError; OSError. Whatever it is, no file appears.
    """
    options = ConversionOptions(
        policies or Policies(), edits or Edits(), selection or None, compress, jobs, on_error, relaxed, verify_checksum, now_ms
    )
    converts = target is not None or options.changes_keys or deep or _extracts(options.policies)
    begin = time.monotonic()

    def write(by_scan: bool) -> ServerSnapshot:
        work = _Work(server, options, target, deep, loss_callback, waiting, progress, by_scan, batch, big, max_latency_ms)
        if per_node:
            return _write_folder(work, os.fspath(_path(dst)), converts, force)
        if by_scan or len(server.masters()) > 1:
            return _write_merged(work, dst, converts, force)
        return _write_one(work, dst, converts, force)

    try:
        found = write(via == "scan")
    except ReplicationRefused as e:
        if via != "auto":
            raise
        try:
            found = write(by_scan=True)
        except TargetError as also:
            also.message = f"{e.message}; and {also.message}"
            raise
        found.refusal = e.message
    found.seconds = time.monotonic() - begin
    return found


def _extracts(policies: Policies) -> bool:
    """Whether libraries or scripts are to be told apart, although the target has them."""
    return "extract" in (policies.function, policies.lua_script)


def _path(dst: object) -> str | os.PathLike[str]:
    if not isinstance(dst, str | os.PathLike):
        raise TypeError("with per_node, dst is a folder")
    return dst


class _Work:
    """What all nodes have in common.

    Attributes:
        stopped: nobody wants what they send any more.
    """

    def __init__(
        self,
        server: Server,
        options: ConversionOptions,
        target: str | Target | None,
        deep: bool,
        loss_callback: Callable[[Loss], object] | None,
        waiting: Callable[[], object] | None,
        progress: Callable[[int], object] | None,
        by_scan: bool,
        batch: int,
        big: int,
        max_latency_ms: float | None,
    ) -> None:
        self.server = server
        self.options = options
        self.target = target
        self.deep = deep
        self.loss_callback = loss_callback
        self.waiting = waiting
        self.progress = progress
        self.by_scan = by_scan
        self.batch = batch
        self.big = big
        self.max_latency_ms = max_latency_ms
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._came: dict[Address, int] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """As arguments of `open_snapshot` and `merge`."""
        return {"relaxed": self.options.relaxed, "verify_checksum": self.options.verify_checksum}

    @property
    def is_read_twice(self) -> bool:
        """Whether what is to become of the keys needs a file that can be read again."""
        edits = self.options.edits
        return edits.on_duplicate != FAIL or is_read_twice(edits, self.options.selection)

    def begin(self, address: Address) -> Replica:
        """A node's snapshot, to be read."""
        name = str(self.server.url)
        try:
            link = self.server.dial(address)
        except Lost as e:
            raise TargetError(f"a node cannot be reached: {e}", source=name) from None
        return Replica(link, name, self.waiting)

    def came(self, address: Address, size: int) -> None:
        """So many bytes have come of a node."""
        with self._lock:
            self._came[address] = size
            if self.progress is not None:
                self.progress(sum(self._came.values()))

    def convert(self, source: Snapshot, dst: str | os.PathLike[str] | BinaryIO, force: bool) -> Conversion:
        """Write a snapshot as it is wanted."""
        target = target_of(source.header) if self.target is None else self.target
        return convert(
            source, dst, target=target, deep=self.deep, force=force, loss_callback=self.loss_callback, **self.options.arguments()
        )

    def report(self, spooled: _Spooled, header: Header) -> ServerSnapshot:
        """What is known of the server, and what its nodes sent."""
        return ServerSnapshot(
            str(self.server.url), self.server.version, "scan" if self.by_scan else "replication", spooled.nodes, header,
            read_ms=spooled.read_ms, missing=spooled.missing, missing_keys=spooled.missing_keys, notes=spooled.notes,
        )  # fmt: skip


@dataclass
class _Spooled:
    """What all nodes have sent.

    Attributes:
        nodes, read_ms, missing, missing_keys, notes: as of `ServerSnapshot`.
        files: of each node; where it was read several times, the later ones behind.
    """

    nodes: list[NodeSnapshot]
    files: list[list[str]] = field(default_factory=list)
    read_ms: tuple[int, int] | None = None
    missing: list[MissingKey] = field(default_factory=list)
    missing_keys: int = 0
    notes: list[str] = field(default_factory=list)


class _Stream:
    """What a node sends, as it is read, and written somewhere too."""

    def __init__(self, replica: Replica, address: Address, out: BinaryIO, work: _Work) -> None:
        self.name = replica.name
        self._replica = replica
        self._address = address
        self._out = out
        self._work = work

    def read(self, n: int, /) -> bytes:
        """Up to `n` bytes. Raises: TargetError where it breaks off, or another node has."""
        if self._work.stopped.is_set():
            raise Stopped("stopped", source=self.name)
        piece = self._replica.read(n)
        self._out.write(piece)
        self._work.came(self._address, self._replica.received)
        return piece


@contextmanager
def _opened(work: _Work, address: Address, out: BinaryIO) -> Iterator[tuple[Snapshot, Replica]]:
    """The snapshot that a node sends; what is read of it is written to `out` as well."""
    with work.begin(address) as replica:
        stream = _Stream(replica, address, out, work)
        with open_snapshot(stream, **work.settings) as snapshot:
            yield snapshot, replica


def _node(address: Address, snapshot: Snapshot, replica: Replica, keys: dict[int, int]) -> NodeSnapshot:
    taken = aux_number(snapshot.aux["ctime"].encode()) if "ctime" in snapshot.aux else None
    return NodeSnapshot(_name(address), None, snapshot.header, keys, replica.received, taken)


def _copy(work: _Work, address: Address, out: BinaryIO) -> NodeSnapshot:
    """Write what a node sends as it is, once it has been read to its end and found whole."""
    with _opened(work, address, out) as (snapshot, replica):
        tally = InfoTally(0, 0, snapshot.limits.item_bytes)
        for large in snapshot.scan(tally):
            if large is not None:
                for _ in large.chunks():
                    pass
        tally.sum_up()
        keys = {db: sum(n for n, _ in each.totals.values()) for db, each in tally.databases.items()}
        return _node(address, snapshot, replica, {db: n for db, n in keys.items() if n})


def _name(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- one node


def _write_one(work: _Work, dst: str | os.PathLike[str] | BinaryIO, converts: bool, force: bool) -> ServerSnapshot:
    (address,) = work.server.masters()
    if not converts:
        with ExitStack() as stack:
            out = stack.enter_context(open_output(dst, force, [PRIVATE])) if isinstance(dst, str | os.PathLike) else dst
            node = _copy(work, address, out)
        report = work.report(_Spooled([node]), node.header)
        report.keys = sum(node.keys.values())
        return report
    if work.is_read_twice:
        with _spooled(work) as spooled, open_snapshot(spooled.files[0][0], **work.settings) as snapshot:
            return _converted(work, spooled, work.convert(snapshot, dst, force))
    with _opened(work, address, Nowhere()) as (snapshot, replica):
        done = work.convert(snapshot, dst, force)
        node = _node(address, snapshot, replica, {})
    return _converted(work, _Spooled([node]), done)


def _converted(work: _Work, spooled: _Spooled, done: Conversion) -> ServerSnapshot:
    report = work.report(spooled, done.header)
    report.conversion, report.keys, report.left_out = done, done.written, done.left_out
    return report


# -- several


def _write_merged(work: _Work, dst: str | os.PathLike[str] | BinaryIO, converts: bool, force: bool) -> ServerSnapshot:
    if isinstance(dst, str | os.PathLike) and dst != "-" and is_taken(dst) and not force:
        raise FileExistsError(17, "File exists", os.fspath(dst))
    with _spooled(work) as spooled, temporary_folder(tempfile.gettempdir()) as folder:
        files = [file for each in spooled.files for file in each]
        whole = os.path.join(folder, "merged.rdb")
        is_passed_on = converts or work.by_scan
        merged = _merge(work, files, whole) if is_passed_on else merge(files, dst, force=force, **work.settings)
        if converts:
            with open_snapshot(whole, **work.settings) as snapshot:
                report = _converted(work, spooled, work.convert(snapshot, dst, force))
        else:
            if work.by_scan:
                _copy_file(whole, dst, force)
            report = work.report(spooled, merged.header)
            report.keys = merged.keys
        report.merged = merged
        return report


def _merge(work: _Work, files: list[str], to: str) -> Merge:
    """One file of several. Of keys that were listed twice, the later record counts; a node's own snapshot has none such."""
    try:
        return merge(files, to, **work.settings)
    except DuplicateError as e:
        if not work.by_scan or e.key is None:
            raise
        return merge(files, to, on_duplicate="last", force=True, **work.settings)


def _copy_file(source: str, dst: str | os.PathLike[str] | BinaryIO, force: bool) -> None:
    with ExitStack() as stack:
        out = stack.enter_context(open_output(dst, force, [PRIVATE])) if isinstance(dst, str | os.PathLike) else dst
        with open_file(source) as file:
            while piece := file.read(_COPIED):
                out.write(piece)


def _write_folder(work: _Work, folder: str, converts: bool, force: bool) -> ServerSnapshot:
    names = [os.path.join(folder, _file_name(address)) for address in work.server.masters()]
    if is_taken(folder) and not is_folder(folder):
        raise NotADirectoryError(20, "Not a directory", folder)
    for name in names:
        if is_taken(name) and not force:
            raise FileExistsError(17, "File exists", name)
    permissions = Permissions([PRIVATE])
    made = make_folders(folder, permissions)
    try:
        with _spooled(work, folder) as spooled:
            made_files = [_node_file(work, *each, converts) for each in zip(spooled.nodes, spooled.files, strict=True)]
            for node, file, name in zip(spooled.nodes, made_files, names, strict=True):
                give_name(file, name, permissions)
                node.file = name
    except BaseException:
        for each in made:
            with suppress(OSError):
                os.rmdir(each)
        raise
    nodes = spooled.nodes
    done = [node.conversion for node in nodes if node.conversion is not None]
    report = work.report(spooled, max((each.header for each in done or nodes), key=lambda header: header.version))
    report.keys = sum(each.written for each in done) if converts else sum(sum(node.keys.values()) for node in nodes)
    report.left_out = sum(each.left_out for each in done)
    return report


def _node_file(work: _Work, node: NodeSnapshot, files: list[str], converts: bool) -> str:
    """What a node gets of its own, in a temporary file."""
    file = files[0]
    if work.by_scan:
        file = f"{files[0]}.merged"
        node.keys = dict(_merge(work, files, file).written)
    if not converts:
        return file
    made = f"{file}.converted"
    with open_snapshot(file, **work.settings) as snapshot:
        node.conversion = work.convert(snapshot, made, False)
    return made


def _file_name(address: Address) -> str:
    host, port = address
    return f"{host.replace(':', '-').replace('/', '-')}-{port}.rdb"


@contextmanager
def _spooled(work: _Work, folder: str | None = None) -> Iterator[_Spooled]:
    """What all nodes send, each as it is in temporary files; they are asked at once.

    Raises: TargetError, also where slots have moved between nodes.
    """
    with temporary_folder(folder or tempfile.gettempdir()) as spool:
        yield _listed(work, spool, is_for_nodes=folder is not None) if work.by_scan else _replicated(work, spool)


def _replicated(work: _Work, spool: str) -> _Spooled:
    masters = work.server.masters()
    files = [os.path.join(spool, _file_name(address)) for address in masters]
    before = _slots(work.server)
    nodes = _at_once([_Task(_spool, work, address, file) for address, file in zip(masters, files, strict=True)], work)
    moved = before.differing(_slots(work.server))
    if moved:
        raise _moved(work, moved)
    return _Spooled(nodes, [[file] for file in files])


def _moved(work: _Work, slots: int) -> TargetError:
    what = f"{count(slots, 'slot')} moved between nodes while they were read, so that keys may be missing"
    return TargetError(f"{what}: run this again when no slots move", source=str(work.server.url))


def _spool(work: _Work, address: Address, file: str) -> NodeSnapshot:
    with open_output(file, sources=[PRIVATE]) as out:
        return _copy(work, address, out)


@dataclass(frozen=True)
class _Slots:
    """Which node has which slots, and which slots are on their way."""

    owners: tuple[Address | None, ...]
    moving: frozenset[bytes] = field(default_factory=frozenset)

    def differing(self, later: _Slots) -> int:
        """How many slots have moved since, or are on their way."""
        if len(later.owners) != len(self.owners):
            return max(len(self.owners), len(later.owners))
        moved = sum(one != other for one, other in zip(self.owners, later.owners, strict=True))
        return max(moved, len(self.moving | later.moving))


def _slots(server: Server) -> _Slots:
    """Ask a cluster for its slots."""
    if not server.slots():
        return _Slots(())
    server.read_slots()
    moving: set[bytes] = set()
    for replies in server.ask_each_node(0, [command(b"CLUSTER", b"NODES")]):
        for line in replies[0].splitlines() if isinstance(replies[0], bytes) else ():
            moving.update(word[1:].split(b"-")[0] for word in line.split()[8:] if word.startswith(b"["))
    owners = tuple(server.slots())
    _check_owners(server, owners.count(None))
    return _Slots(owners, frozenset(moving))


def _check_owners(server: Server, without: int) -> None:
    """Raise TargetError for slots that no node has: what is in them cannot be had."""
    if without:
        raise TargetError(
            f"no node has {count(without, 'slot')} now: run this again when the cluster is whole", source=str(server.url)
        )


# -- by SCAN


def _listed(work: _Work, spool: str, is_for_nodes: bool) -> _Spooled:
    """The keys of all nodes; slots that move meanwhile are read again where they have come to."""
    server = work.server
    found = abilities(server)
    if found.value.use is None:
        raise TargetError(f"cannot read its values: {found.value.why}", source=str(server.url))
    libraries = libraries_of(server)
    terms = Terms(server, found, list(libraries.sources.values()), work.batch, work.big, work.max_latency_ms, work.stopped.is_set)
    coverage = Coverage(server)
    masters = server.masters()
    made: dict[Address, list[Recording]] = {address: [] for address in masters}
    for number in range(_ROUNDS):
        missing = coverage.missing()
        if not missing:
            break
        if number and is_for_nodes:
            raise _moved(work, sum(len(slots or ()) for slots in missing.values()))

        def read(address: Address, slots: frozenset[int] | None, number: int = number) -> Recording:
            file = os.path.join(spool, f"{number}-{_file_name(address)}")
            coverage.begin(address, slots)
            found = record(terms, address, file, slots, lambda size: work.came(address, size))
            try:
                coverage.end(address)
            except Lost as e:
                raise TargetError(f"it does not say which node has which slots: {e}", source=str(server.url)) from None
            return found

        tasks = [_Task(read, address, slots) for address, slots in missing.items()]
        for address, each in zip(missing, _at_once(tasks, work, coverage.look), strict=True):
            made.setdefault(address, []).append(each)
        work.stopped.clear()
    _check_owners(server, coverage.unowned())
    if missing := coverage.missing():
        raise _moved(work, sum(len(slots or ()) for slots in missing.values()))
    notes = _notes(found, libraries)
    return _of_recordings(made, notes)


def _notes(found: Abilities, libraries: Libraries) -> list[str]:
    """What may be on the server and was not read."""
    notes = []
    if found.databases.use == "one" and found.databases.why:
        notes.append("only database 0 was read: the login may use neither INFO nor SELECT")
    if libraries.refusal:
        notes.append(f"function libraries are not in the file ({libraries.refusal})")
    if libraries.differing:
        notes.append(
            f"function libraries differ between nodes, and one version of each was taken: {', '.join(libraries.differing)}"
        )
    return notes


def _of_recordings(made: dict[Address, list[Recording]], notes: list[str]) -> _Spooled:
    nodes = []
    for address, each in made.items():
        keys: dict[int, int] = {}
        for db, n in ((db, n) for one in each for db, n in one.keys.items()):
            keys[db] = keys.get(db, 0) + n
        header = max((one.header for one in each), key=lambda header: header.version)
        nodes.append(NodeSnapshot(_name(address), None, header, keys, sum(file_size(one.file) or 0 for one in each), None))
    all_ = [one for each in made.values() for one in each]
    notes = [*notes, *(f"large values were read by commands, which do not tell {what}" for one in all_ for what in one.lacking)]
    return _Spooled(
        nodes,
        [[one.file for one in each] for each in made.values()],
        (min(one.began_ms for one in all_), max(one.ended_ms for one in all_)),
        [key for one in all_ for key in one.missing],
        sum(one.counts.refused + one.counts.changed for one in all_),
        notes,
    )


# -- at once


class _Task(Generic[R]):
    """Something that a thread of its own does. The thread does not hold up the end of the process."""

    def __init__(self, work: Callable[..., R], *arguments: Any) -> None:
        self._work = work
        self._arguments = arguments
        self.result: list[R] = []
        self.error: BaseException | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.result.append(self._work(*self._arguments))
        except BaseException as e:
            self.error = e
        finally:
            self.done.set()


def _at_once(tasks: Sequence[_Task[R]], work: _Work, look: Callable[[], object] = lambda: None) -> list[R]:
    """What comes of each. Raises: the first error, once all have stopped.

    Args:
        look: called now and then meanwhile.
    """
    try:
        for task in tasks:
            task.thread.start()
        looked = time.monotonic()
        while not all(task.done.wait(_STEP_S) for task in tasks):
            if any(task.error is not None for task in tasks):
                break
            if time.monotonic() - looked > _LOOK_S:
                look()
                looked = time.monotonic()
    finally:
        work.stopped.set()
        end = time.monotonic() + _LAST_WAIT_S
        for task in tasks:
            task.done.wait(max(end - time.monotonic(), 0))
    failed = [task.error for task in tasks if task.error is not None]
    if failed:
        raise next((e for e in failed if not isinstance(e, Stopped)), failed[0])
    return [task.result[0] for task in tasks]
