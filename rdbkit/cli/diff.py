"""`rdbkit diff`."""

from __future__ import annotations

import json
import os

import click

from rdbkit.cli.render import Output, output, printable, progress, when
from rdbkit.operations.diff import Diff, Difference
from rdbkit.operations.diff import diff as compare
from rdbkit.selection import parse_duration

_WORDS = {
    "missing": "only in the first",
    "extra": "only in the second",
    "type": "another type",
    "value": "another value",
    "expire": "another expiry",
}


def _tolerance(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_duration(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command()
@click.argument("first", metavar="A", type=click.Path(exists=True, dir_okay=False))
@click.argument("second", metavar="B", type=click.Path(exists=True, dir_okay=False))
@click.option("--only-keys", is_flag=True, help="Compare names alone.")
@click.option("--ignore-expiry", is_flag=True, help="Do not compare when keys and fields expire.")
@click.option(
    "--ttl-tolerance", default="0ms", callback=_tolerance, metavar="TIME", help="Expiries may be so far apart: 1s, 500ms."
)
@click.option("--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N", help="Name N differences.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of A and B.")
def diff(
    first: str,
    second: str,
    only_keys: bool,
    ignore_expiry: bool,
    ttl_tolerance: int,
    samples: int,
    as_json: bool,
    relaxed: bool,
    no_checksum: bool,
) -> int:
    """Whether two snapshots have the same keys, values and expiries.

    The order of keys and of elements does not matter where they have none, nor do versions and encodings. Keys that have expired
    and are in one of them alone are no difference. Exit code 0 if they have the same data, 1 if not, 3 if one cannot be read or is
    damaged.
    """
    with progress("diff", os.path.getsize(first) + os.path.getsize(second)) as update:
        found = compare(
            first, second, only_keys=only_keys, ignore_expiry=ignore_expiry, ttl_tolerance_ms=ttl_tolerance, samples=samples,
            relaxed=relaxed, verify_checksum=not no_checksum, progress=update,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _show(found, output())
    return 0 if found.same else 1


def _show(found: Diff, out: Output) -> None:
    first, second = (printable(name) for name in found.files)
    out.heading(f"{first} and {second} have {'the same data' if found.same else 'different data'}")
    rows = [("keys", f"{found.keys[0]:,} and {found.keys[1]:,}"), ("equal", f"{found.equal:,}")]
    counts = (
        ("only in the first", found.missing), ("only in the second", found.extra), ("another value", found.changed),
        ("another expiry", found.expiry), ("expired", found.expired),
    )  # fmt: skip
    out.facts([*rows, *((name, f"{n:,}") for name, n in counts if n)])
    for each in found.samples:
        out.line(f"\n{_WORDS[each.what]}: {printable(each.key, 60)} (db {each.db})")
        out.facts([*_facts(each), *(("differs", printable(line, 120)) for line in each.details)])
    more = found.missing + found.extra + found.changed + found.expiry - len(found.samples)
    if more > 0:
        out.line(f"\n... and {more:,} more")


def _facts(each: Difference) -> list[tuple[str, str]]:
    rows = [("at byte", " and ".join(f"{offset:,}" for offset in each.offsets if offset is not None))]
    if each.what == "type":
        rows.append(("type", f"{each.types[0]} and {each.types[1]}"))
    if each.expire_ms[0] != each.expire_ms[1] and each.what in ("expire", "value"):
        rows.append(("expires", " and ".join("never" if ms is None else when(ms) for ms in each.expire_ms)))
    return rows
