"""`rdbkit redact`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import click

from rdbkit.cli.files import EXISTING, READ_ONCE, Verb, refuse_terminal, snapshot_options, written
from rdbkit.cli.options import MOST_JOBS, selection_options, warn_if_none
from rdbkit.cli.render import output, printable, progress, size
from rdbkit.cli.status import status, strict_option
from rdbkit.operations.redact import Redaction
from rdbkit.operations.redact import redact as redact_snapshot
from rdbkit.selection import Selection
from rdbkit.storage.location import file_size
from rdbkit.text import count, valid_text

_VARIABLE: Final = "RDBKIT_SECRET"
_RANDOM_BYTES: Final = 32
#: How what is left out is called, one of it and several.
_WORDS: Final = {
    "aux": ("AUX field", "AUX fields"),
    "behind": ("another snapshot behind this one", ""),
    "commands": ("the commands behind the snapshot", ""),
    "cron": ("key of type cron", "keys of type cron"),
    "enterprise-hint": ("hint of Redis Enterprise about a key", "hints of Redis Enterprise about keys"),
    "function": ("function library", "function libraries"),
    "hash-template": ("hash template", "hash templates"),
    "json": ("JSON document of Dragonfly", "JSON documents of Dragonfly"),
    "key-metadata": ("key's metadata of modules", "keys' metadata of modules"),
    "member-expiry": ("expiry of a member", "expiries of members"),
    "module": ("value of a module", "values of modules"),
    "module-aux": ("piece of module data outside of keys", "pieces of module data outside of keys"),
    "script": ("Lua script", "Lua scripts"),
    "slot-import": ("slot import that was going on", "slot imports that were going on"),
    "slot-info": ("note about a slot", "notes about slots"),
    "template-hash": ("hash that uses a template", "hashes that use templates"),
    "trailer": ("bytes behind the snapshot that are none of it", ""),
}


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@snapshot_options
@click.option(
    "--secret-file", type=EXISTING, metavar="PATH",
    help=f"Where the secret is; otherwise it is the variable {_VARIABLE}, or random.",
)  # fmt: skip
@click.option("--random", "random_", is_flag=True, help=f"A random secret, which is forgotten, whatever {_VARIABLE} says.")
@click.option("--keep-prefixes", is_flag=True, help="Keep names up to and with the last separator.")
@click.option("--separator", default=":", show_default=True, metavar="TEXT", help="Of --keep-prefixes: what ends a prefix.")
@click.option("--keep-modules", is_flag=True, help="Copy values of modules as they are; otherwise they are left out.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option(
    "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, metavar="N",
    help="Scramble in N processes.",
)  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILE.")
@strict_option
@selection_options
def redact(
    file: str,
    out: str,
    secret_file: str | None,
    random_: bool,
    keep_prefixes: bool,
    separator: str,
    keep_modules: bool,
    force: bool,
    as_json: bool,
    jobs: int,
    relaxed: bool,
    no_checksum: bool,
    strict: bool,
    selection: Selection,
) -> int:
    """The same structure with names and values scrambled, to be shown to others.

    FILE is a path or - for standard input, compressed or not. OUT is a path, which appears when it is whole, or - for standard
    output; .gz compresses. It has the types, encodings, lengths, counts and expiries of FILE.

    Lengths, punctuation, scores and times can still be seen, and which strings are equal. What cannot be scrambled, such as
    values of modules, is left out and listed. Exit code 0 if OUT was written, 3 if FILE cannot be read or is damaged. With
    --strict, 1 if something is left out.
    """
    if out == "-" and as_json:
        raise click.UsageError("--json and OUT would both go to standard output")
    secret = _secret(secret_file, random_)
    begin = time.monotonic()
    refuse_terminal(out)
    with written(out), progress(file, file_size(file)) as update:
        try:
            report = redact_snapshot(
                file, out, secret=secret or os.urandom(_RANDOM_BYTES), keep_prefixes=keep_prefixes,
                separator=os.fsencode(separator), keep_modules=keep_modules, selection=selection, force=force, relaxed=relaxed,
                verify_checksum=not no_checksum, jobs=jobs, progress=update,
            )  # fmt: skip
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
    if as_json:
        click.echo(json.dumps(_as_json(report, out), ensure_ascii=False))
    else:
        _show(report, out, time.monotonic() - begin)
    warn_if_none(selection, report.keys - report.left_out)
    if secret is None:
        click.echo("rdbkit: the secret was random and is forgotten, so that no other run gives the same names", err=True)
    for kind, n in report.dropped.items():
        one, several = _WORDS[kind]
        click.echo(f"rdbkit: left out: {f'{n:,} {one if n == 1 else several}' if several else one}", err=True)
    return status(lost=not report.is_complete, strict=strict)


def _secret(path: str | None, is_random: bool) -> bytes | None:
    """The secret; None for a random one."""
    if path is not None and is_random:
        raise click.UsageError("--secret-file and --random exclude each other")
    if path is not None:
        secret = Path(path).read_bytes().removesuffix(b"\n").removesuffix(b"\r")
        if not secret:
            raise click.BadParameter(f"{printable(path)} is empty", param_hint="--secret-file")
        return secret
    if is_random:
        return None
    told = os.environb.get(_VARIABLE.encode())
    if told == b"":  # as of a variable in a script that is not set: nobody has asked for a random one
        raise click.UsageError(f"{_VARIABLE} is empty: set it, unset it, or take --random")
    return told


def _as_json(report: Redaction, out: str) -> dict[str, Any]:
    return {
        "destination": {"file": valid_text(out), "header": str(report.source), "bytes": file_size(out) or 0},
        "keys": report.keys,
        "written": report.written,
        "left_out": report.left_out,
        "dropped": report.dropped,
        "complete": report.is_complete,
    }


def _show(report: Redaction, out: str, seconds: float) -> None:
    """What was done, on standard output unless the file goes there."""
    name = "standard output" if out == "-" else printable(out)
    heading = f"{name}: {report.source} with names and values scrambled"
    if out == "-":
        click.echo(heading, err=True)
        click.echo(f"{count(report.written, 'key')} written, {seconds:.1f} s", err=True)
        return
    rows = [("keys", f"{report.keys:,}"), ("written", f"{report.written:,}")]
    if report.left_out:
        rows.append(("not selected", f"{report.left_out:,}"))
    rows += [("bytes", size(file_size(out) or 0)), ("time", f"{seconds:.1f} s")]
    shown = output()
    shown.heading(heading)
    shown.facts(rows)
