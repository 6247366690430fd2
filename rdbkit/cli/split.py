"""`rdbkit split`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

import click

from rdbkit.cli.files import EXISTING, READ_TWICE, OutputFolder, Verb, force_option, written
from rdbkit.cli.options import separators_option
from rdbkit.cli.render import Output, output, printable, progress, size, usage_errors
from rdbkit.cli.status import status, strict_option
from rdbkit.errors import LossError
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.operations.split import MANIFEST, By, Division, Part, Split, parse_nodes, parse_slot_parts
from rdbkit.operations.split import split as split_files
from rdbkit.selection import parse_bytes
from rdbkit.storage.location import total_size
from rdbkit.text import count

_SHOWN = 30
#: What follows the end mark of a file, by `Split.behind`, and what can be done about it.
_MERGE: Final = "To keep one of each, run rdbkit merge FILE... -o OUT --on-duplicate first, then split OUT."
_NOT_IN_PARTS: Final = {
    "aof": "commands behind the snapshot, which change it, are in no part: have a server load the file and save it again",
    "replication": "commands of a replication behind the snapshot, which change it, are in no part: a newer snapshot has them",
    "snapshot": "another snapshot behind the first is in no part: divide the file, and give both as FILE",
    "unknown": "bytes behind the snapshot that are none of it are in no part",
}


@click.command(cls=Verb, options_metavar="[OPTIONS] -o DIR")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ_TWICE)
@click.option(
    "-o", "--output", "--into", "into", required=True, type=OutputFolder(MANIFEST), metavar="DIR",
    help="The folder for the parts.",
)  # fmt: skip
@click.option("--size", "size_", metavar="SIZE", help="Parts of at most SIZE, all of about the same: 2GiB, 500MB.")
@click.option("--parts", type=click.IntRange(1), metavar="N", help="N parts of about the same bytes.")
@click.option("--slots", metavar="RANGES", help="A part for each range of cluster slots: 0-5460,5461-10922,10923-16383.")
@click.option("--nodes", type=EXISTING, metavar="FILE", help="A part for each master in a nodes.conf.")
@click.option("--by", type=click.Choice(["db", "prefix", "type", "hash-tag"]), help="A part for each of them.")
@separators_option("Each ends a prefix.")
@click.option("--one-key-per-file", is_flag=True, help="A part for each key; up to 10,000.")
@click.option(
    "--functions", type=click.Choice(["first", "all"]), default="first", show_default=True,
    help="Which parts get the function libraries, and modules' data outside of keys.",
)  # fmt: skip
@click.option("--no-digests", is_flag=True, help="No MD5 and SHA-256 of the parts, which take longer than the split itself.")
@click.option(
    "--on-loss", type=click.Choice(["fail", "drop"]), default="fail", show_default=True,
    help="Commands or a snapshot behind the end of a FILE: list them and write nothing, or leave them out.",
)  # fmt: skip
@strict_option
@force_option
@click.option("--json", "as_json", is_flag=True, help="What manifest.json says, on standard output.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILE.")
def split(
    files: tuple[str, ...],
    into: str,
    size_: str | None,
    parts: int | None,
    slots: str | None,
    nodes: str | None,
    by: By | None,
    separators: bytes,
    one_key_per_file: bool,
    functions: Literal["first", "all"],
    no_digests: bool,
    on_loss: Literal["fail", "drop"],
    strict: bool,
    force: bool,
    as_json: bool,
    relaxed: bool,
    no_checksum: bool,
) -> int:
    """The keys of snapshots in several files, each of them whole.

    Several FILEs are of one version. By size, slots and hash tag, keys with one hash tag stay together. The parts, and
    manifest.json with their keys and checksums, appear when all is written. Exit code 1 if a part is larger than SIZE, since keys,
    hash tags and scripts are not divided, or if nothing was written because a FILE has data after its end mark or a key
    comes twice; 3 if a FILE cannot be read or is damaged. With --strict, 1 also if --on-loss drop left such data out.
    """
    choices = {
        "--size": size_, "--parts": parts, "--slots": slots, "--nodes": nodes, "--by": by, "--one-key-per-file": one_key_per_file,
    }  # fmt: skip
    given = [name for name, value in choices.items() if value]
    if len(given) != 1:
        ask = f"say how to split: {', '.join(choices)}"
        raise click.UsageError(f"{' and '.join(given)} exclude each other" if given else ask)
    try:
        layout = Division(
            size=None if size_ is None else parse_bytes(size_),
            parts=parts,
            slots=_slots(slots, nodes),
            by="key" if one_key_per_file else by,
            separators=separators,
        )
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint=given[0]) from None
    with written(into), progress("split", total_size(files)) as update:
        try:
            with usage_errors():
                done = split_files(
                    files,
                    into,
                    layout,
                    functions=functions,
                    digests=not no_digests,
                    on_loss=on_loss,
                    force=force,
                    relaxed=relaxed,
                    verify_checksum=not no_checksum,
                    progress=update,
                )
        except DuplicateError as e:
            click.echo(f"rdbkit: {printable(e.message)}; nothing was written. {_MERGE}", err=True)
            return 1
        except LossError as e:
            _show_behind(e.report)
            click.echo("rdbkit: nothing was written. To write the parts all the same: --on-loss drop", err=True)
            return status(lost=True, strict=strict, found=True)
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    else:
        _show(done, into, output())
    large = [part for part in done.parts if layout.size is not None and part.bytes > layout.size]
    if large:
        _show_large(large, size_)
    _show_behind(done.behind)
    return status(lost=not done.whole, strict=strict, found=large)


def _slots(ranges: str | None, nodes: str | None) -> tuple[tuple[str, tuple[range, ...]], ...] | None:
    """The parts of --slots or --nodes. Raises: ValueError."""
    if ranges:
        return parse_slot_parts(ranges)
    return parse_nodes(Path(nodes).read_text(errors="replace")) if nodes else None


def _show_large(large: list[Part], most: str | None) -> None:
    """The parts that are larger than was asked for, on standard error."""
    names = ", ".join(part.file for part in large[:10])
    more = f" and {len(large) - 10:,} more" if len(large) > 10 else ""
    click.echo(f"rdbkit: larger than {most}, since keys, hash tags and scripts are not divided: {names}{more}", err=True)


def _show_behind(found: list[tuple[str, str]]) -> None:
    """What is in no part, on standard error."""
    for file, what in found:
        click.echo(f"rdbkit: {printable(file)}: {_NOT_IN_PARTS[what]}", err=True)


def _show(done: Split, into: str, out: Output) -> None:
    out.heading(f"{done.keys:,} key{'s' * (done.keys != 1)} in {count(len(done.parts), 'part')} of {done.header}")
    out.table(
        printable(into),
        ("file", "keys", "expiring", "bytes", "of"),
        [(p.file, f"{p.keys:,}", f"{p.expires:,}", size(p.bytes), printable(p.label, 30)) for p in done.parts[:_SHOWN]],
    )
    if len(done.parts) > _SHOWN:
        out.line(f"  ... and {count(len(done.parts) - _SHOWN, 'part')} more")
    if "slot-import" in done.notes:
        out.line("\nA slot import that was going on is in no part.")
    out.line(f"\n{MANIFEST} has {'their checksums' if done.parts[0].md5 else 'what is in them'}.")
