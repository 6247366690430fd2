"""`rdbkit upload`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from rdbkit.azure.abort_upload import abort_upload, check_is_free
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.sas import LEAST_HOURS, MOST_HOURS, Signer
from rdbkit.azure.upload import BLOCK_BYTES, CONCURRENCY, Upload, upload_converted
from rdbkit.azure.upload import upload as bring
from rdbkit.cli.append_only import lacks_newer_data
from rdbkit.cli.clouds import chosen_cloud, cloud_option
from rdbkit.cli.conversion_options import check_rereadable, conversion_options, given_options, show_damage, warn_if_none_is_chosen
from rdbkit.cli.files import KeptPath, OutputPath, force_option
from rdbkit.cli.losses import extracted_files, extracting_options, ledger_of_files, ledger_option, report_losses
from rdbkit.cli.options import optional_service_options
from rdbkit.cli.remembered import remembered
from rdbkit.cli.render import Output, output, printable, progress, size, usage_errors
from rdbkit.cli.scrubbing import without_secrets
from rdbkit.cli.secrets import FiniteRange, SecretsCommand
from rdbkit.cli.status import status
from rdbkit.cli.store_options import remember_http
from rdbkit.clouds import Cloud
from rdbkit.errors import LossError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion
from rdbkit.selection import parse_bytes
from rdbkit.storage.blob_url import BlobUrl, parse_place
from rdbkit.storage.location import exists, file_size, is_file
from rdbkit.storage.output import open_output
from rdbkit.storage.remote import base_name, is_remote
from rdbkit.storage.source import standard_input
from rdbkit.storage.temporary import PRIVATE
from rdbkit.targets.target import Target
from rdbkit.text import count, path_word

C = TypeVar("C", bound=Callable[..., Any])

#: What AzCopy does: look whether the blob is there, and make it.
_HANDED_OVER = "rcw"


def _block_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    try:
        return BLOCK_BYTES if value is None else parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def sending_options(command: C) -> C:
    """Give a click command what says how blobs are sent; it takes `overwrite`, `block_size`, `concurrency` and `cap_mbps`."""
    for decorate in (
        click.option("--cap-mbps", type=FiniteRange(0.01), metavar="N", help="Send at most N megabits a second."),
        click.option(
            "--concurrency", type=click.IntRange(1, 256), default=CONCURRENCY, show_default=True, metavar="N",
            help="Send N blocks at a time.",
        ),
        click.option("--block-size", callback=_block_bytes, metavar="SIZE", help="Size of a block of a blob.  [default: 8MiB]"),
        click.option("--overwrite", is_flag=True, help="Replace blobs that exist."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def place_options(command: C) -> C:
    """Give a click command `--allow-http`, which `read_place` looks at."""
    return click.option(
        "--allow-http", is_flag=True, is_eager=True, expose_value=False, callback=remember_http,
        help="Allow http:// for hosts other than this machine.",
    )(command)  # fmt: skip


def read_place(url: str) -> BlobUrl:
    """The place that a URL names. Raises: ValueError."""
    return parse_place(url, bool(remembered("allow_http")))


def secret_option(name: str, what: str) -> Callable[[Any], Any]:
    """An option whose value is a secret, or @FILE that has it; never shown, not even as a default."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None or not value.startswith("@"):
            return value
        try:
            with open(value[1:], encoding="utf-8") as file:
                return file.read().strip()
        except (OSError, ValueError) as e:
            why = getattr(e, "strerror", None) or "it is no text"
            raise click.BadParameter(f"{printable(value[1:])} cannot be read: {why}", ctx=ctx, param=param) from None

    return click.option(name, callback=read, metavar="TEXT|@FILE", help=what)


def quiet() -> None:
    """Let the packages of Azure log nothing, unless somebody has asked for it: what goes wrong is said in one line."""
    import logging

    logging.getLogger("azure").addHandler(logging.NullHandler())
    logging.getLogger("azure").propagate = False


@click.command(cls=SecretsCommand)
@click.argument("files", metavar="FILE...", nargs=-1, type=KeptPath(allow_dash=True))
@click.argument("url", metavar="URL", required=False)
@sending_options
@place_options
@click.option("--abort", is_flag=True, help="Send nothing: drop what an upload that broke off has left. FILE can be left out.")
@click.option(
    "--sas-out", type=OutputPath(gzip=False), metavar="OUT",
    help="Send nothing: write URL with a SAS to OUT, for you alone, and print the azcopy command that sends FILE.",
)  # fmt: skip
@click.option(
    "--sas-hours", type=FiniteRange(LEAST_HOURS, MOST_HOURS), default=24, show_default=True, metavar="N",
    help="Hours for which the SAS is valid.",
)  # fmt: skip
@click.option("--page-blob", is_flag=True, help="Make a page blob, filled up with zeros; it is not resumed.")
@secret_option("--connection-string", "Connection string of the storage account.  [default: AZURE_STORAGE_CONNECTION_STRING]")
@secret_option("--sas", "SAS for the storage account.  [default: that of URL, or AZURE_STORAGE_SAS_TOKEN]")
@cloud_option()
@optional_service_options("no conversion")
@conversion_options
@ledger_option
@force_option
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def upload(
    files: tuple[str, ...],
    url: str | None,
    overwrite: bool,
    abort: bool,
    sas_out: str | None,
    sas_hours: float,
    page_blob: bool,
    block_size: int,
    concurrency: int,
    cap_mbps: float | None,
    connection_string: str | None,
    sas: str | None,
    cloud: Cloud | None,
    target: Target | None,
    as_json: bool,
    conversion: ConversionOptions,
    extracts: dict[str, Any],
    strict: bool,
    ledger: str | None,
    force: bool,
) -> int:
    """Bring files into a storage account, from where Azure imports them.

    FILE is a path, - for standard input, or the URL of another blob. URL is that of a blob,
    https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB, or of a container or folder, with a slash at its end; blobs then are
    called as the FILEs. A blob appears when all of it is there; an upload that breaks goes on where it was when it is run again.
    With --target, FILE is converted on its way, with the options of rdbkit convert.

    Besides the options, AZURE_STORAGE_KEY and what azure-identity finds (az login, a managed identity, ...) are credentials. Exit
    code 0 if all is there, without what options allow to be lost, 1 if a FILE was not sent since something of it would be lost, 3
    if FILE cannot be read, 4 if the service refuses or fails. With --strict, 1 also if something was lost.
    """
    names = list(files)
    if url is None or (not names and not abort):
        raise click.UsageError("name at least one FILE, and the URL behind it")
    _refuse_urls(names)
    _refuse_beside(abort, sas_out)
    if target is None:
        _refuse_options()
    elif lacks_newer_data(names):
        click.echo("rdbkit: nothing was sent, since a FILE lacks newer data; --allow-base sends it without", err=True)
        return 1
    check_rereadable(conversion, names)
    quiet()
    places = _places(url, names)
    credentials = Credentials(connection_string=connection_string, sas=sas, cloud=chosen_cloud(cloud, [places[0].cloud]))
    if abort:
        return _abort(places, credentials, as_json)
    if sas_out is not None:
        return _hand_over(names, places, sas_out, Signer(credentials, sas_hours), overwrite, as_json)
    settings: dict[str, Any] = {
        "credentials": credentials,
        "page_blob": page_blob, "block_bytes": block_size, "concurrency": concurrency, "overwrite": overwrite, "cap_mbps": cap_mbps,
    }  # fmt: skip
    if extracting_options(extracts) and len(names) > 1:
        raise click.UsageError(f"{extracting_options(extracts)[0]} extract=FILE is for one FILE")
    done: list[Upload] = []
    lost = False
    try:
        with _file_errors(names), usage_errors(), interrupts_told(), ledger_of_files(ledger, force, names) as loss_callback:
            for name, blob in zip(names, places, strict=True):
                if target is None:
                    _send(name, blob, settings, done)
                    continue
                settings["loss_callback"] = None if loss_callback is None else partial(loss_callback, name)
                try:
                    with extracted_files(extracts, [name], force) as write_extracted:
                        report = _send_converted(name, blob, target, conversion, settings, done)
                        write_extracted(report)
                except LossError as e:
                    if e.report is None:
                        raise
                    _show_unsent(name, e, len(done), target)
                    return 1
                show_damage(report.skipped, report.checksum)
                report_losses(report.ledger, None, False, target=target)
                warn_if_none_is_chosen(conversion, report)
                lost = lost or bool(report.ledger.counts or report.skipped or report.checksum)
    finally:
        # what is there is reported, whatever becomes of the FILEs after it
        if done and as_json:
            click.echo(json.dumps({"blobs": [each.to_dict() for each in done]}))
        elif done:
            _show(done, output())
    return status(lost=lost, strict=strict)


def _refuse_urls(names: list[str]) -> None:
    """Raise click.UsageError for a FILE that is a URL of something else than a blob."""
    for name in names:
        if "://" in name and not exists(name):
            raise click.UsageError(f"{printable(name)} is a URL, where a file is wanted: FILEs come first, and one URL behind them")


def _places(url: str, names: list[str]) -> list[BlobUrl]:
    """The blob that each FILE becomes."""
    with usage_errors():
        place = read_place(url)
        places = [_place(place, name, len(names)) for name in names] or [place]
    if len({each.url for each in places}) < len(places):
        raise click.UsageError("several FILEs would become one blob")
    return places


@contextmanager
def interrupts_told() -> Iterator[None]:
    """Say what an upload that is interrupted has left."""
    try:
        yield
    except KeyboardInterrupt as e:
        for note in getattr(e, "__notes__", ()):
            click.echo(f"\nrdbkit: {note}", err=True)
        raise


@contextmanager
def _file_errors(names: list[str]) -> Iterator[None]:
    """Let an error of the file system name what was given, but no secret of it."""
    try:
        yield
    except FileExistsError as e:
        raise click.UsageError(f"{printable(os.fsdecode(e.filename))} exists; --force replaces it") from None
    except OSError as e:
        if e.filename is not None:
            e.filename = without_secrets(os.fsdecode(e.filename), names)
        raise


def _show_unsent(name: str, e: LossError, done: int, target: Target | None) -> None:
    """What would be lost of a FILE, which was not sent for that; `done` have been before it."""
    assert e.report is not None
    before = f"; of {count(done, 'FILE')} before it, all was" if done else ""
    undone = f"nothing of {printable(name)} was sent{before}"
    show_damage(e.report.skipped, e.report.checksum)
    report_losses(e.report.ledger, e, False, target=target, undone=undone)


def _send(name: str, blob: BlobUrl, settings: dict[str, Any], done: list[Upload]) -> None:
    """Bring one FILE as it is, and add it to those that are done."""
    with progress(name, file_size(name)) as update:
        src: Any = standard_input() if name == "-" else name
        done.append(bring(src, blob, progress=update, **settings))


def _send_converted(
    name: str, blob: BlobUrl, target: Target, conversion: ConversionOptions, settings: dict[str, Any], done: list[Upload]
) -> Conversion:
    """Bring one FILE converted, and add it to those that are done."""
    with progress(name, file_size(name)) as update:
        report, sent = upload_converted(name, blob, target=target, conversion=conversion, progress=update, **settings)
        done.append(sent)
        return report


def _refuse_beside(abort: bool, sas_out: str | None) -> None:
    """Raise click.UsageError for options that say how to send, where nothing is sent."""
    if not abort and sas_out is None:
        return
    this = "--abort" if abort else "--sas-out"
    others = ["target", "page_blob", "cap_mbps", "concurrency", "block_size"]
    others += ["overwrite", "sas_out", "sas_hours"] if abort else []
    context = click.get_current_context()
    for name in others:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{this} sends nothing, so that --{name.replace('_', '-')} has nothing to say")


def _abort(places: list[BlobUrl], credentials: Credentials, as_json: bool) -> int:
    """Drop what uploads have left."""
    with usage_errors():
        done = [abort_upload(place, credentials=credentials) for place in places]
    if as_json:
        click.echo(json.dumps({"blobs": [each.to_dict() for each in done]}))
        return 0
    out = output()
    for each in done:
        out.heading(printable(each.url))
        dropped = f"{count(each.blocks, 'block')}, {size(each.bytes)}" if each.blocks else "nothing was left"
        out.facts([("dropped", dropped), ("blob", "as it was" if each.kept else "none")])
    return 0


def _hand_over(
    names: list[str], places: list[BlobUrl], path: str, signer: Signer, overwrite: bool, as_json: bool
) -> int:  # fmt: skip
    """Write a URL with a SAS, and print the command by which AzCopy sends the FILE there."""
    if len(names) > 1 or names == ["-"] or is_remote(names[0]):
        raise click.UsageError("--sas-out is for one FILE, which is on this machine")
    (name,), (place,) = names, places
    if "*" in name:
        raise click.UsageError(f"AzCopy takes {printable(name)} for a pattern: give the file a name without *")
    if not is_file(name):
        raise click.UsageError(f"{printable(name)} is no file, or not there")
    if exists(path):  # a terminal or pipe, too: the address would stand there, and the command would read it from there
        raise click.UsageError(f"{printable(path)} exists")
    with usage_errors():
        check_is_free(place, signer.credentials, overwrite=overwrite)
        signed = signer.sign(place, _HANDED_OVER)
    try:
        with open_output(path, sources=[PRIVATE]) as out:
            out.write(f"{signed.secret_url}\n".encode())
    except FileExistsError:
        raise click.UsageError(f"{printable(path)} exists") from None
    command = (
        f'azcopy copy {path_word(name)} "$(cat {path_word(path)})" --from-to=LocalBlob --blob-type=BlockBlob '
        f"--content-type=application/octet-stream --put-md5 --overwrite={'true' if overwrite else 'false'}"
    )
    if as_json:
        expires = signed.expires.isoformat() if signed.expires is not None else None
        click.echo(json.dumps({"url": place.url, "sas_out": path, "access": signed.kind, "expires": expires, "command": command}))
        return 0
    until = f" until {signed.expires:%Y-%m-%d %H:%M} UTC" if signed.expires is not None else ""
    click.echo(
        f"{printable(path)} has the address with a SAS{until}: whoever has it can write the blob, so delete it afterwards", err=True
    )
    click.echo(command)
    return 0


def _refuse_options() -> None:
    """Raise click.UsageError where an option was given that says how to convert."""
    context = click.get_current_context()
    given = given_options(context)
    for name in ("targets_file", "undocumented", "ledger", "force"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            given.append(f"--{name.replace('_', '-')}")
    if given:
        raise click.UsageError(f"{given[0]} is for a conversion, which takes --target")


def _place(place: BlobUrl, name: str, count: int) -> BlobUrl:
    if not place.is_folder:
        if count > 1:
            raise ValueError("several FILEs need a container or a folder: end the URL with a slash")
        return place
    if name == "-":
        raise ValueError("standard input has no name: the URL has to name the blob")
    return place.file(base_name(name))


def _show(done: list[Upload], out: Output) -> None:
    for each in done:
        out.heading(printable(each.url))
        if each.present:
            out.facts([
                ("size", size(each.bytes)),
                ("MD5", f"{each.md5}, as the blob has it"),
                ("sent", "nothing: the blob was there, and is this"),
            ])  # fmt: skip
            continue
        rate = each.sent_bytes / each.seconds / 1e6 if each.seconds else 0.0
        rows = [
            ("size", f"{size(each.bytes)} in {count(each.blocks, 'block')}"),
            ("MD5", f"{each.md5}, as the blob has it"),
            ("sent", f"{size(each.sent_bytes)} in {each.seconds:.1f} s, {rate:.1f} MB/s"),
        ]
        if each.kept:
            rows.append(("resumed", f"{count(each.kept, 'block')} had arrived before, by an upload that broke"))
        out.facts(rows)
