"""The options of every verb that converts: which keys to take, how to change them, and which losses to allow."""

from __future__ import annotations

import functools
import os
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from rdbkit.cli.files import EXISTING, WithArgument
from rdbkit.cli.losses import MOST_SHOWN, policy_options, read_policies
from rdbkit.cli.options import MOST_JOBS, database_pairs, selection_options, warn_if_none
from rdbkit.cli.render import complain, printable
from rdbkit.errors import ChecksumError, RdbError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, is_read_twice
from rdbkit.policy.rules import Edits
from rdbkit.policy.script import ScriptRecord
from rdbkit.selection import Selection, parse_duration
from rdbkit.storage.location import is_rereadable
from rdbkit.text import count

R = TypeVar("R")

__all__ = ["check_rereadable", "conversion_options", "given_options", "show_damage", "warn_if_none_is_chosen"]

_NEVER: Final = "never"


def _prefixes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[bytes, bytes], ...]:
    found = []
    for pair in values:
        old, sign, new = pair.partition("=")
        if not sign or not old:
            raise click.BadParameter(f"{pair!r} is no pair of prefixes, as in old:=new:", ctx=ctx, param=param)
        found.append((os.fsencode(old), os.fsencode(new)))
    return tuple(found)


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if param.name == "set_ttl" and value == _NEVER:
        return -1
    sign = -1 if value.startswith("-") else 1
    if sign < 0 and param.name == "set_ttl":
        raise click.BadParameter("a time to live is not negative", ctx=ctx, param=param)
    try:
        return sign * parse_duration(value.lstrip("+-"))
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    policy_options,
    click.option("--map-db", multiple=True, callback=database_pairs, metavar="N=M,...", help="Move the keys of database N to M."),
    click.option("--collapse-dbs", is_flag=True, help="Move all keys to database 0."),
    click.option(
        "--on-duplicate", type=click.Choice(["fail", "first", "last"]), default="fail", show_default=True,
        help="Keys that come twice in one database, and fields and members that come twice in one value: list them, or keep one.",
    ),
    click.option(
        "--on-conflict", type=WithArgument("fail", "first", "last", takes="rename"), metavar="fail|first|last|rename=PATTERN",
        help="Keys that would have one name: list them, keep one, or rename the later ones, as in {key}:db{db}.",
    ),
    click.option("--drop-expired", is_flag=True, help="Leave out keys that have expired."),
    click.option("--set-ttl", callback=_duration, metavar="TIME|never", help="Every key expires TIME from now, as 7d or 12h."),
    click.option("--shift-ttl", callback=_duration, metavar="TIME", help="Move expiries by TIME: +1h, -30m."),
    click.option(
        "--rename-prefix", multiple=True, callback=_prefixes, metavar="OLD=NEW", help="Keys that begin with OLD begin with NEW."
    ),
    click.option(
        "--script", type=EXISTING, metavar="FILE",
        help="Python whose record(r) returns each key, changed or not, or None to leave it out.",
    ),
    click.option("--compress", is_flag=True, help="Compress strings that are re-encoded (LZF): a smaller file, but slower."),
    click.option(
        "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
        help="At a damaged value, or one that TARGET refuses: stop, or leave the key out and list it.",
    ),
    click.option(
        "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, metavar="N",
        help="Convert values in N processes.",
    ),
    click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows."),
    click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILE."),
    selection_options,
)  # fmt: skip
#: Parameters that are no part of the value: where libraries and scripts are extracted to, and what the exit code is.
_BESIDE: Final = ("on_function", "on_lua_script")


def conversion_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a click command the options of a conversion.

    It takes `conversion: ConversionOptions`, `strict: bool`, and `extracts: dict[str, Any]`, which is for `extracted_files`.
    Options that exclude each other are a usage error.
    """

    @functools.wraps(command)
    def with_options(*args: Any, selection: Selection, **given: Any) -> R:
        options = {name: given.pop(name) for name in _names() if name in given}
        extracts = {name: options[name] for name in _BESIDE}
        conversion = _conversion(options, selection)
        return command(*args, **given, conversion=conversion, extracts=extracts)

    result: Callable[..., R] = with_options
    for decorate in reversed(_OPTIONS):
        result = decorate(result)
    return result


@functools.cache
def _parameters() -> tuple[click.Parameter, ...]:
    """Of all options of a conversion."""

    def none() -> None: ...

    for decorate in reversed(_OPTIONS):
        none = decorate(none)
    found: list[click.Parameter] = none.__click_params__  # type: ignore[attr-defined]
    return tuple(found)


def _names() -> frozenset[str]:
    """Of the parameters that `conversion_options` reads."""
    return frozenset(param.name or "" for param in _parameters()) - {"strict"}


def given_options(ctx: click.Context) -> list[str]:
    """Which options of a conversion the user has given."""
    names = {param.name: param.opts[0] for param in _parameters()}
    return [option for name, option in names.items() if name and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]


def _conversion(options: dict[str, Any], selection: Selection) -> ConversionOptions:
    if options["script"] and options["jobs"] > 1:
        raise click.UsageError("--script runs in one process: leave out --jobs")
    try:
        return ConversionOptions(
            policies=read_policies(options),
            edits=_edits(options),
            selection=selection or None,
            compress=options["compress"],
            jobs=options["jobs"],
            on_error=options["on_error"],
            relaxed=options["relaxed"],
            verify_checksum=not options["no_checksum"],
        )
    except ValueError as e:
        raise click.UsageError(str(e)) from None


def check_rereadable(conversion: ConversionOptions, files: Iterable[str]) -> None:
    """Raise click.UsageError for a FILE that cannot be read twice, where that is needed."""
    edits = conversion.edits
    if not is_read_twice(edits, conversion.selection) and edits.on_duplicate == "fail":
        return
    if not all(map(is_rereadable, files)):
        raise click.UsageError("to find keys that have one name FILE is read twice: it has to be a file")


def _edits(options: Mapping[str, Any]) -> Edits:
    conflict = options["on_conflict"] or ("fail", "")
    more: dict[str, Any] = {"rename_pattern": conflict[1]} if conflict[0] == "rename" else {}
    return Edits(
        map_db=options["map_db"],
        collapse_dbs=options["collapse_dbs"],
        on_duplicate=options["on_duplicate"],
        on_conflict=conflict[0],
        drop_expired=options["drop_expired"],
        set_ttl_ms=options["set_ttl"],
        shift_ttl_ms=options["shift_ttl"] or 0,
        rename_prefix=options["rename_prefix"],
        script=_ScriptFile(options["script"]) if options["script"] else None,
        **more,
    )


class _ScriptFile:
    """The function `record` of a user's file; what goes wrong in it becomes one line that names file and line.

    Attributes:
        digest: of the file's bytes, by which another run knows the script again.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self.digest = sha256(file.read()).hexdigest()
            function = runpy.run_path(path).get("record")
        except KeyboardInterrupt:
            raise
        except BaseException as e:
            raise self._complaint(e) from None
        if not callable(function):
            raise click.UsageError(f"{printable(path)} has no function record(r)")
        self._function: Callable[[ScriptRecord], Any] = function

    def __call__(self, script_record: ScriptRecord) -> ScriptRecord | None:
        """What the function makes of a key."""
        try:
            result = self._function(script_record)
        except (KeyboardInterrupt, RdbError):  # of a value that is damaged; it knows its place
            raise
        except BaseException as e:
            raise self._complaint(e) from None
        if result is not None and not isinstance(result, ScriptRecord):
            raise click.ClickException(f"{printable(self.path)}: record(r) returns r or None, not {type(result).__name__}")
        return result

    def _complaint(self, e: BaseException) -> click.ClickException:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == self.path]
        where = f"{self.path}:{lines[-1]}" if lines else self.path
        try:
            said = str(e)
        except Exception:  # an error of the script's own
            said = ""
        return click.ClickException(printable(f"{where}: {type(e).__name__}{': ' if said else ''}{said}"))


def warn_if_none_is_chosen(conversion: ConversionOptions, report: Conversion) -> None:
    """`warn_if_none`, unless keys may have been left out that the selection takes."""
    edits = conversion.edits
    of_keys = any(loss.key is not None for loss in report.ledger.losses) or "empty" in report.ledger.notes
    if conversion.selection is None or of_keys or report.skipped or edits.drop_expired or edits.script is not None:
        return
    warn_if_none(conversion.selection, report.written)


def show_damage(skipped: list[RdbError], checksum: ChecksumError | None) -> None:
    """What was left out because it is damaged, or passed over, on standard error."""
    for error in skipped[:MOST_SHOWN]:
        click.echo(f"rdbkit: left out: {printable(str(error))}", err=True)
    if len(skipped) > MOST_SHOWN:
        click.echo(f"rdbkit: {count(len(skipped), 'damaged key')} left out in all", err=True)
    if checksum is not None:
        complain(checksum)
