"""`rdbkit verify-import`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from rdbkit.cli.files import EXISTING_SNAPSHOT, OutputPath
from rdbkit.cli.options import selection_options, warn_if_none
from rdbkit.cli.render import Output, key_name, libraries, output, printable, progress, show_functions
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, server_options
from rdbkit.cli.verification_options import functions_option, verification_options
from rdbkit.operations.diff_elements import expiries
from rdbkit.selection import Selection
from rdbkit.storage.location import total_size
from rdbkit.text import count

if TYPE_CHECKING:
    from rdbkit.live.verify_import import ImportDifference, ImportProof

_WORDS: Final = {
    "missing": "missing",
    "type": "another type",
    "value": "another value",
    "expire": "another expiry",
    "refused": "refused",
    "extra": "in no file",
    "changed": "another source",
}


@click.command("verify-import", cls=SecretsCommand)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=EXISTING_SNAPSHOT)
@click.argument("url", metavar="URL", type=SERVER_URL)
@server_options
@verification_options("server", "List the server's keys, and name those that are in no FILE.", 256)
@functions_option("Do not compare function libraries, as where a conversion has dropped them.")
@click.option(
    "--state", type=OutputPath("json", gzip=False), metavar="FILE",
    help="Save progress to FILE, so that the same command goes on from there; removed at the end.",
)  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILEs.")
@selection_options
def verify_import(
    files: tuple[str, ...],
    url: str,
    login: Login,
    map_db: dict[int, int],
    ttl_tolerance: int,
    pick: float | int | None,
    seed: int,
    find_extra: bool,
    ignore: tuple[str, ...],
    rate: float | None,
    batch: int,
    state: str | None,
    samples: int,
    as_json: bool,
    relaxed: bool,
    no_checksum: bool,
    selection: Selection,
) -> int:
    """Whether a live server has what was in snapshots: every key with its type, value and expiry, and functions.

    URL is redis://USER@HOST:PORT, or rediss:// for TLS; with /N all keys are looked for in database N. Several FILEs are the shards
    of one cluster. Only commands that read are sent. Exit code 0 if the server has the same data, 1 if not, 3 if a FILE cannot be
    read or is damaged, 4 if the server cannot be reached.
    """
    from rdbkit.live.verify_import import verify_import as compare

    with ExitStack() as stack:
        server = stack.enter_context(login.connect(url))
        update = stack.enter_context(progress("verify-import", total_size(files)))
        try:
            found = compare(
                files, server, selection=selection, pick=pick, seed=seed, ttl_tolerance_ms=ttl_tolerance, db_map=map_db,
                find_extra=find_extra, ignore_functions="functions" in ignore, batch=batch, rate=rate, state=state,
                samples=samples, relaxed=relaxed, verify_checksum=not no_checksum, progress=update,
            )  # fmt: skip
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
    warn_if_none(selection, found.keys)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _show(found, output(), find_extra)
    return 0 if found.same else 1


def _show(found: ImportProof, out: Output, extra_named: bool) -> None:
    files = printable(found.files[0]) if len(found.files) == 1 else count(len(found.files), "file")
    partly = "" if found.checked == found.keys else "what was looked for of "
    out.heading(f"{printable(found.server)} {'has' if found.same else 'does not have'} {partly}{files}")
    rows = [
        ("server", f"{printable(found.version or 'unknown version')}, {found.kind}"),
        ("keys", f"{found.keys:,}"),
        *([("looked for", f"{found.checked:,}")] if partly else []),
        ("equal", f"{found.equal:,}"),
    ]
    counts = (
        ("expired since", found.expired), ("not compared", found.not_compared), ("missing", found.missing),
        ("another type", found.type), ("another value", found.value), ("another expiry", found.expire), ("refused", found.refused),
        ("in no file", found.extra), ("other functions", len(found.functions)),
    )  # fmt: skip
    if found.libraries:
        rows.append(("functions", libraries(found.libraries)))
    out.facts([*rows, *((name, f"{n:,}") for name, n in counts if n)])
    out.table(
        "Databases",
        ("db", "keys in files", "of them expired", "keys on server"),
        [
            (str(row.db), f"{row.keys:,}", f"{row.expired:,}", "not told" if row.server is None else f"{row.server:,}")
            for row in found.databases
        ],
    )
    show_functions(out, found.functions, _WORDS)
    for note in found.notes:
        out.line(f"\nnote: {printable(note)}")
    for each in found.samples:
        out.line(f"\n{_WORDS[each.what]}: {key_name(each.key)} (db {each.db})")
        out.facts(_facts(each, len(found.files) > 1))
    more = found.different + found.extra * extra_named - len(found.samples)
    if more > 0:
        out.line(f"\n... and {more:,} more")


def _facts(each: ImportDifference, several: bool) -> list[tuple[str, str]]:
    rows = []
    if each.offset is not None:
        rows.append(("at byte", f"{each.offset:,}{f' of {printable(each.file or str())}' if several else ''}"))
    if each.what == "type":
        rows.append(("type", f"{each.types[0]} and {each.types[1]}"))
    if each.what == "expire":
        rows.append(("expires", expiries(each.expire_ms)))
    return [*rows, *(("server says" if each.what == "refused" else "differs", printable(line, 160)) for line in each.details)]
