"""`rdbkit get`."""

from __future__ import annotations

import os
from typing import Final

import click

import rdbkit
from rdbkit.cli.files import READ_ONCE, Verb, output_options, writing
from rdbkit.cli.render import printable, warn
from rdbkit.operations.get import find_key
from rdbkit.operations.value_json import value_json
from rdbkit.storage.location import is_rereadable

_MAY_GO_ON: Final = "what stands behind the key is not read; commands of an append-only file there may have changed it"


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@click.argument("key", metavar="KEY")
@click.option("--db", type=click.IntRange(0), metavar="N", help="The database to look in (default: the first that has the key).")
@output_options
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
def get(file: str, key: str, db: int | None, output: str, force: bool, relaxed: bool) -> int:
    """The value of one key: a string's bytes as they are, anything else as JSON.

    FILE is a path or - for standard input, compressed or not. Reading stops as soon as the key is found, so that what follows
    it, the checksum too, is not looked at. Exit code 1 if there is no such key, 3 if the file cannot be read or is damaged.
    """
    name = os.fsencode(key)
    with rdbkit.open(file, relaxed=relaxed, verify_checksum=False) as snapshot:
        record = find_key(snapshot, name, db)
        if record is not None:
            with writing(output, [file], force) as out:
                if record.type == "string":
                    out.writelines(record.content())
                else:
                    out.writelines(value_json(record))
                    out.write(b"\n")
            warn(snapshot)
            # of a file it is known that nothing follows
            if snapshot.aux.get("aof-preamble") == "1" and not is_rereadable(file):
                click.echo(f"rdbkit: warning: {printable(snapshot.name)}: {_MAY_GO_ON}", err=True)
            return 0
    warn(snapshot)
    where = "" if db is None else f" in db {db}"
    click.echo(f"rdbkit: {printable(file)}: no key {printable(name, 200)}{where}", err=True)
    return 1
