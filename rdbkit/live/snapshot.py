"""`rdbkit snapshot`: what a server or cluster has, as a file, as a target takes it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Generic, Literal, TypeAlias, TypeVar

from rdbkit.errors import RdbError, TargetError
from rdbkit.live.connection import Address, Lost
from rdbkit.live.replica import Replica
from rdbkit.live.server import Server
from rdbkit.model import Header, aux_number
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, convert, is_read_twice
from rdbkit.operations.info import info
from rdbkit.operations.merge import Merge, merge
from rdbkit.policy.ledger import Loss
from rdbkit.policy.rules import FAIL, Edits, Policies
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.location import is_folder, is_taken
from rdbkit.storage.output import Nowhere, open_output
from rdbkit.storage.temporary import PRIVATE, Permissions, give_name, make_folders, temporary_folder
from rdbkit.targets.target import Target, target_of
from rdbkit.text import count

__all__ = ["NodeSnapshot", "ServerSnapshot", "Via", "snapshot_server"]

R = TypeVar("R")
Via: TypeAlias = Literal["auto", "replication"]
VIA: Final[tuple[Via, ...]] = ("auto", "replication")
_STEP_S: Final = 0.2
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
        bytes: that it sent.
        taken_s: the moment that the snapshot is of, by the node's clock, in Unix seconds; None where it does not tell.
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
        via: how its data came: "replication".
        nodes: by node; one where it is no cluster.
        header: of what was written, the highest of several files.
        keys: written.
        left_out: keys that the selection, an edit or a policy left out.
        seconds: that it took.
        merged: of a cluster in one file, what `merge` did.
        conversion: of one file that was converted, what `convert` did.
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
    """Write what a server has to a file, of one moment.

    The server is asked as a replica asks it, and only read. Where nothing is to be changed, the file has its bytes as they are. Of
    a cluster, all nodes are asked at once, and what they send is merged; each is of one moment, and the report says how far these
    are apart.

    Args:
        server: of `rdbkit.connect`.
        dst: as for `rdbkit.create`; with `per_node` a folder.
        target: for whom the file is, as for `rdbkit.convert`; None to leave it as the server writes it.
        via: "replication"; "auto" is the same.
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
    work = _Work(server, options, target, deep, loss_callback, waiting, progress)
    begin = time.monotonic()
    if per_node:
        found = _write_folder(work, os.fspath(_path(dst)), converts, force)
    elif len(server.masters()) > 1:
        found = _write_merged(work, dst, converts, force)
    else:
        found = _write_one(work, dst, converts, force)
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
    ) -> None:
        self.server = server
        self.options = options
        self.target = target
        self.deep = deep
        self.loss_callback = loss_callback
        self.waiting = waiting
        self.progress = progress
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

    def report(self, nodes: list[NodeSnapshot], header: Header) -> ServerSnapshot:
        """What is known of the server, and what its nodes sent."""
        return ServerSnapshot(str(self.server.url), self.server.version, "replication", nodes, header)


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
            raise TargetError("stopped", source=self.name)
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
        found = info(snapshot)
        return _node(address, snapshot, replica, {each.db: each.keys for each in found.databases})


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
        report = work.report([node], node.header)
        report.keys = sum(node.keys.values())
        return report
    if work.is_read_twice:
        with _spooled(work) as (nodes, files), open_snapshot(files[0], **work.settings) as snapshot:
            return _converted(work, nodes, work.convert(snapshot, dst, force))
    with _opened(work, address, Nowhere()) as (snapshot, replica):
        done = work.convert(snapshot, dst, force)
        node = _node(address, snapshot, replica, {})
    return _converted(work, [node], done)


def _converted(work: _Work, nodes: list[NodeSnapshot], done: Conversion) -> ServerSnapshot:
    report = work.report(nodes, done.header)
    report.conversion, report.keys, report.left_out = done, done.written, done.left_out
    return report


# -- several


def _write_merged(work: _Work, dst: str | os.PathLike[str] | BinaryIO, converts: bool, force: bool) -> ServerSnapshot:
    if isinstance(dst, str | os.PathLike) and dst != "-" and is_taken(dst) and not force:
        raise FileExistsError(17, "File exists", os.fspath(dst))
    with _spooled(work) as (nodes, files), ExitStack() as stack:
        if not converts:
            merged = merge(files, dst, force=force, **work.settings)
            report = work.report(nodes, merged.header)
            report.keys = merged.keys
        else:
            folder = stack.enter_context(temporary_folder(tempfile.gettempdir()))
            whole = os.path.join(folder, "merged.rdb")
            merged = merge(files, whole, **work.settings)
            snapshot = stack.enter_context(open_snapshot(whole, **work.settings))
            report = _converted(work, nodes, work.convert(snapshot, dst, force))
        report.merged = merged
        return report


def _write_folder(work: _Work, folder: str, converts: bool, force: bool) -> ServerSnapshot:
    names = {address: os.path.join(folder, _file_name(address)) for address in work.server.masters()}
    if is_taken(folder) and not is_folder(folder):
        raise NotADirectoryError(20, "Not a directory", folder)
    for name in names.values():
        if is_taken(name) and not force:
            raise FileExistsError(17, "File exists", name)
    permissions = Permissions([PRIVATE])
    made = make_folders(folder, permissions)
    try:
        with ExitStack() as stack:
            nodes, files = stack.enter_context(_spooled(work, folder))
            if converts:
                for number, (node, file) in enumerate(zip(nodes, files, strict=True)):
                    files[number] = f"{file}.converted"
                    with open_snapshot(file, **work.settings) as snapshot:
                        node.conversion = work.convert(snapshot, files[number], False)
            for node, file, name in zip(nodes, files, names.values(), strict=True):
                give_name(file, name, permissions)
                node.file = name
    except BaseException:
        for each in made:
            try:
                os.rmdir(each)
            except OSError:
                break
        raise
    done = [node.conversion for node in nodes if node.conversion is not None]
    report = work.report(nodes, max((each.header for each in done or nodes), key=lambda header: header.version))
    report.keys = sum(each.written for each in done) if converts else sum(sum(node.keys.values()) for node in nodes)
    report.left_out = sum(each.left_out for each in done)
    return report


def _file_name(address: Address) -> str:
    host, port = address
    return f"{host.replace(':', '-').replace('/', '-')}-{port}.rdb"


@contextmanager
def _spooled(work: _Work, folder: str | None = None) -> Iterator[tuple[list[NodeSnapshot], list[str]]]:
    """What all nodes send, each as it is in a temporary file; they are asked at once.

    Raises: TargetError, also where slots have moved between nodes.
    """
    masters = work.server.masters()
    with temporary_folder(folder or tempfile.gettempdir()) as spool:
        files = [os.path.join(spool, _file_name(address)) for address in masters]
        before = _slots(work.server)
        nodes = _at_once([_Task(_spool, work, address, file) for address, file in zip(masters, files, strict=True)], work)
        moved = before.differing(_slots(work.server))
        if moved:
            raise TargetError(
                f"{count(moved, 'slot')} moved between nodes while they were read, so that keys may be missing: run this again "
                "when the cluster is at rest",
                source=str(work.server.url),
            )
        yield nodes, files


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
    return _Slots(tuple(server.slots()), frozenset(moving))


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


def _at_once(tasks: Sequence[_Task[R]], work: _Work) -> list[R]:
    """What comes of each. Raises: the first error, once all have stopped."""
    try:
        for task in tasks:
            task.thread.start()
        while not all(task.done.wait(_STEP_S) for task in tasks):
            if any(task.error is not None for task in tasks):
                break
    finally:
        work.stopped.set()
        end = time.monotonic() + _LAST_WAIT_S
        for task in tasks:
            task.done.wait(max(end - time.monotonic(), 0))
    failed = [task.error for task in tasks if task.error is not None]
    if failed:
        raise next((e for e in failed if isinstance(e, RdbError) and str(e) != "stopped"), failed[0])
    return [task.result[0] for task in tasks]
