"""What `rdbkit export` does: every record in another form."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from rdbkit.errors import NOT_READ, ChecksumError, CorruptError, LossError, RdbError
from rdbkit.format.budget import Budget
from rdbkit.format.constants import MEMBER_EXPIRY
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import LargeRecord, Record
from rdbkit.format.scan import NO_EXPIRY, Scanner
from rdbkit.model import Aux, Event, KeyMetadata
from rdbkit.operations.arguments import Source, opened
from rdbkit.operations.commands import RespWriter
from rdbkit.operations.value_json import value_pieces
from rdbkit.passes.json_text import json_text
from rdbkit.passes.jsonl import JsonLines
from rdbkit.policy.ledger import Loss
from rdbkit.selection import Selection
from rdbkit.snapshot.large import Spool, has_wanted_size
from rdbkit.snapshot.reader import Block, Limits, Snapshot
from rdbkit.storage.output import handle_of, leave_room, open_output
from rdbkit.targets.target import Target

if TYPE_CHECKING:
    from rdbkit.parallel.pool import Answer, Work

Progress = Callable[[int], None]
#: Values up to this size are decoded as one piece, which is faster.
_WHOLE_BYTES = 4 << 20


@dataclass
class Export:
    """What an export did.

    Attributes:
        written: keys; those that were left out, also as a loss, are none of them.
        skipped: what was wrong with the values that were left out, each with its key.
        checksum: the error of the file's checksum, where damage is to be passed over.
        functions: names of the function libraries, which JSON lines do not hold; none where keys were selected.
        losses: what the target of a command stream does not support; the first thousand.
        loss_counts: how many there are of each kind.
    """

    written: int = 0
    skipped: list[RdbError] = field(default_factory=list)
    checksum: ChecksumError | None = None
    functions: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    loss_counts: dict[str, int] = field(default_factory=dict)


def export(
    src: Source,
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    format: Literal["jsonl", "resp"] = "jsonl",  # noqa: A002 (what the command line calls it)
    target: Target | str | None = None,
    on_loss: str = "fail",
    selection: Selection | None = None,
    on_error: str = "stop",
    jobs: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write every key in another form.

    Args:
        src: a path, a file of bytes, or a snapshot that was just opened.
        dst: a path, whose file appears when it is whole (`.gz` compresses), or anything with `write`.
        format: "jsonl" for one JSON object a line, "resp" for commands that `redis-cli --pipe` takes.
        target: of "resp", the server or service that will take them, as a `Target` or its name; None for the newest Redis.
        on_loss: of "resp", "fail" at what the target does not support, or "drop" it.
        selection: which keys; None for all.
        on_error: "stop", or "skip" to go on behind a damaged value where the file's framing is intact.
        jobs: of "jsonl", processes that decode; a script that asks for more than one needs the guard
            `if __name__ == "__main__":`.
        force: replace a file that exists.
        progress: called with bytes of the file read so far.

    Raises: LossError, RdbError; ValueError for an unknown format or target, and for what is of the other format; TypeError for what
        is no source or no target; FileExistsError and other OSError of a file.

    >>> import io
    >>> out = io.BytesIO()
    >>> export("fixtures/rich/redis-2.4.18.rdb", out, format="resp", target="azure-premium").written
    25
    """
    if format not in ("jsonl", "resp"):
        raise ValueError(f"format is 'jsonl' or 'resp', not {format!r}")
    if format == "jsonl" and (target is not None or on_loss != "fail"):
        raise ValueError("target and on_loss are for format='resp'")
    if format == "resp" and jobs > 1:
        raise ValueError("jobs is for format='jsonl'")
    with ExitStack() as stack:
        snapshot = stack.enter_context(opened(src))
        # of what has no path it is not known who may read it, as of standard input
        out = stack.enter_context(open_output(dst, force, [snapshot.path or "-"])) if isinstance(dst, str | os.PathLike) else dst
        if format == "jsonl":
            return export_jsonl(snapshot, out, selection=selection, on_error=on_error, jobs=jobs, progress=progress)
        return export_resp(snapshot, out, target=target, on_loss=on_loss, selection=selection, on_error=on_error, progress=progress)


def export_jsonl(
    snapshot: Snapshot,
    out: BinaryIO,
    *,
    selection: Selection | None = None,
    on_error: str = "stop",
    jobs: int = 1,
    progress: Progress | None = None,
) -> Export:
    """Write every key as one JSON object a line, in file order.

    Args:
        snapshot: just opened.
        out: where the lines go, as bytes.
        selection: which keys; None for all.
        on_error: "stop", or "skip" to go on behind a damaged value where the file's framing is intact.
        jobs: processes that decode; what is written does not depend on it. They are spawned, so that a script that asks for
            them needs the guard `if __name__ == "__main__":`.
        progress: called with bytes of the file read so far.

    Raises: RdbError; OSError of `out`.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> with rdbkit.open("fixtures/rich/redis-2.4.18.rdb") as snapshot:
    ...     export_jsonl(snapshot, out, selection=rdbkit.Selection(keys=b"i8")).written
    1
    >>> print(out.getvalue().decode(), end="")
    {"db":0,"key":"i8","type":"string","encoding":"int","value":"12"}
    """
    wanted = selection if selection else None
    limit = snapshot.limits.item_bytes
    lines = JsonLines(snapshot.file_types, limit, wanted.filter_for(snapshot.types, limit) if wanted else None, on_error == "skip")
    lines.spill = out.write
    report = Export()
    # what is said of templates in front of the keys that use them would have to go to all processes: RDB 15 alone has them
    parallel = jobs > 1 and snapshot.header.version != 15
    try:
        for item in _parts(snapshot, jobs, wanted, lines.skip, out) if parallel else snapshot.scan(lines):
            if item is None or isinstance(item, Record):
                out.write(lines.take())
                if item is not None and not item.is_module_data:
                    _export_large(item, lines, wanted, out)
            else:
                _export_part(item, lines, out)
            if progress is not None:
                progress(snapshot.position)
    except ChecksumError as e:
        if on_error != "skip":
            raise
        report.checksum = e  # of the damage that was passed over, most likely
    finally:
        # what is sound before the damage; the file of a failed export is thrown away, but a pipe's reader has it
        lines.end_line()
        out.write(lines.take())
    report.written = int(lines.written)
    report.skipped = lines.skipped
    report.functions = [] if wanted else [f.name for f in snapshot.functions]
    return report


class _Part(NamedTuple):
    """What became of a piece as JSON lines: its lines, where they are not written by that process, and what JsonLines says of them.

    `early`: expiries of members of the record before the piece, which is larger than a block; see `JsonLines`.
    """

    text: bytes
    early: tuple[list[bytes], list[int]]
    written: int
    skipped: list[RdbError]
    warnings: list[CorruptError]
    error: RdbError | None


def _parts(
    snapshot: Snapshot, jobs: int, selection: Selection | None, skip: bool, out: BinaryIO
) -> Iterator[Answer[_Part] | LargeRecord]:
    """The parts of a snapshot as JSON lines, made by several processes; see `in_order`."""
    from rdbkit.parallel.pool import in_order  # what it takes to start processes is not needed for most runs

    output = handle_of(out)
    settings = (*snapshot.header, snapshot.limits, snapshot.name, selection, skip, output is not None)
    return in_order(snapshot, jobs, _worker, settings, output=output)


def _worker(
    flavour: str, version: int, limits: Limits, source: str, selection: Selection | None, skip: bool, writes: bool
) -> Work[_Part]:
    """What a process does with each piece; `writes`: it puts the lines into the output itself."""
    file_types = FileTypes(flavour, version, limits.string_bytes, source, Budget(limits.held_bytes))
    wanted = selection.filter_for(file_types.types, limits.item_bytes) if selection else None

    def render(block: Block) -> tuple[_Part, list[bytes]]:
        file_types.budget = Budget(limits.held_bytes)
        lines = JsonLines(file_types, limits.item_bytes, wanted, skip)
        lines.base = block.offset
        lines.db = block.db
        lines.database()
        error = None
        try:
            Scanner(flavour, version, limits.item_bytes, file_types.budget).scan(block.data, 0, len(block.data), lines)
        except RdbError as e:
            error = e
        early = (lines.early_members, lines.early_times) if lines.begun else (lines.members, lines.times)
        lines.end_line()
        warnings, file_types.warnings = file_types.warnings, []
        text = lines.take()
        part = _Part(b"" if writes else text, early, int(lines.written), lines.skipped, warnings, error)
        return part, [text] if writes else []

    return render


def _export_part(answer: Answer[_Part], lines: JsonLines, out: BinaryIO) -> None:
    """Write what another process made of a piece of the file."""
    part = answer.result
    if lines.open:
        lines.members += part.early[0]
        lines.times += part.early[1]
    lines.end_line()
    out.write(lines.take())
    out.write(part.text)
    answer.places = [leave_room(out, size) for size in answer.sizes]
    lines.written += part.written
    lines.skipped += map(lines.budget.keep, part.skipped)
    lines.file_types.warnings += part.warnings
    lines.file_types.warned += len(part.warnings)
    if part.error is not None:
        raise part.error


def export_resp(
    snapshot: Snapshot,
    out: BinaryIO,
    *,
    target: Target | str | None = None,
    on_loss: str = "fail",
    selection: Selection | None = None,
    on_error: str = "stop",
    progress: Progress | None = None,
) -> Export:
    """Write commands that make a server hold the same data; `redis-cli --pipe` takes them.

    Args:
        target: the server or service that will take them, as a `Target` or its name; None for the newest Redis.
        on_loss: "fail" at what the target does not support, or "drop" it.
        snapshot, out, selection, on_error, progress: as for `export_jsonl`.

    Raises: LossError, RdbError; ValueError for an unknown target; OSError of `out`.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> with rdbkit.open("fixtures/rich/redis-2.4.18.rdb") as snapshot:
    ...     export_resp(snapshot, out, target="redis-6.0", selection=rdbkit.Selection(keys=b"i8")).written
    1
    >>> out.getvalue().split()
    [b'*2', b'$6', b'SELECT', b'$1', b'0', b'*3', b'$3', b'SET', b'$2', b'i8', b'$2', b'12']
    """
    writer = RespWriter(target, on_loss)
    report = Export(losses=writer.losses, loss_counts=writer.loss_counts)
    wanted = selection if selection else None
    metadata: KeyMetadata | None = None  # of the next record
    left_out = False  # the last record, and with it what the file says behind it
    try:
        for item in _wanted_items(snapshot, wanted, progress):
            if isinstance(item, KeyMetadata):
                metadata = item
                continue
            if isinstance(item, Record):
                if metadata is not None:
                    out.writelines(writer.commands(metadata))
                    metadata = None
                left_out = not _export_commands(snapshot, item, writer, wanted, on_error == "skip", out, report)
                report.written += not left_out
            # functions and the like are no keys; some AUX belong to one
            elif not left_out if isinstance(item, Aux) and item.key.startswith(MEMBER_EXPIRY) else wanted is None:
                out.writelines(writer.commands(item))
    except ChecksumError as e:
        if on_error != "skip":
            raise
        report.checksum = e
    return report


def _wanted_items(snapshot: Snapshot, wanted: Selection | None, progress: Progress | None) -> Iterator[Event | Record]:
    """The records that are wanted, but for the size of those larger than a block, with what the file says besides."""
    sieve = None if wanted is None else wanted.filter_for(snapshot.types, snapshot.limits.item_bytes)
    for batch in snapshot.sift(sieve, events=True):
        yield from batch
        if progress is not None:
            progress(snapshot.position)


def _export_commands(
    snapshot: Snapshot, record: Record, writer: RespWriter, selection: Selection | None, skip: bool, out: BinaryIO, report: Export
) -> bool:
    """Write a record's commands; in one go unless it may yet prove to be unwanted or damaged.

    False where there are none: it is unwanted, damaged or lost.
    """
    if not skip and (record.size is not None or selection is None or not selection.needs_size):
        commands = writer.commands(record)
        first = next(commands, None)
        if first is None:
            return False
        out.write(first)
        out.writelines(commands)
        return True
    db = writer.db
    with Spool() as spool:
        try:
            for piece in writer.commands(record):
                spool.write(piece)
        except (LossError, *NOT_READ):
            raise
        except RdbError as e:
            if not skip:
                raise
            report.skipped.append(snapshot.budget.keep(e))
            writer.db = db  # for SELECT is thrown away with the rest
            return False
        if not has_wanted_size(record, selection):
            writer.db = db
            return False
        out.writelines(spool.pieces())
        return spool.size > 0


def _export_large(record: Record, lines: JsonLines, selection: Selection | None, out: BinaryIO) -> None:
    """Write a record larger than a block, in bounded memory; nothing of it where it proves to be damaged."""
    if not lines.begun:
        lines.begin()
    lines.end_line()  # whether or not this one is wanted, what the file says next is not said of the last
    if selection is not None and not selection.wants(record.db, record.key, record.type, None, record.expire_ms):
        return
    lines.about(record.db, record.idle_s, record.freq)
    expire_ms = NO_EXPIRY if record.expire_ms is None else record.expire_ms
    chunks = record.chunks()
    begun = []
    size = 0
    for chunk in chunks:
        begun.append(chunk)
        size += len(chunk)
        if size > _WHOLE_BYTES:
            break
    with Spool() as spool:
        try:
            if size <= _WHOLE_BYTES:
                if has_wanted_size(record, selection):
                    lines.whole(record.type_code, record.key, b"".join(begun), expire_ms)
                return
            out.write(lines.take())
            lines.out.write(lines.head + json_text(record.key))
            lines.attributes(record.type_code, expire_ms)
            spool.write(lines.take())
            for piece in value_pieces(record, chain(begun, chunks)):
                spool.write(piece)
        except NOT_READ:
            raise
        except RdbError as e:
            record.add_location(e)
            if not lines.skip:
                raise
            lines.skipped.append(lines.budget.keep(e))
            return
        if has_wanted_size(record, selection):
            out.writelines(spool.pieces())
            lines.written += 1
            lines.open = True
