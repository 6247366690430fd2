"""`rdbkit plan`."""

from __future__ import annotations

import json
import os
import re
import textwrap
from typing import Final

import click

from rdbkit.cli.clouds import cloud_option
from rdbkit.cli.files import EXISTING_SNAPSHOT, OutputPath, Verb, force_option, writing
from rdbkit.cli.options import target_options
from rdbkit.cli.render import Output, output, printable, progress, size
from rdbkit.clouds import Cloud
from rdbkit.operations.plan import GB, Plan
from rdbkit.operations.plan import plan as make_plan
from rdbkit.operations.plan_bicep import bicep
from rdbkit.operations.plan_steps import Step
from rdbkit.operations.plan_terraform import terraform
from rdbkit.operations.resource_names import Names
from rdbkit.storage.location import exists, total_size
from rdbkit.targets.target import Sku, Target
from rdbkit.text import count, path_word, shell_word

_PERCENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%?")
#: What a command's line may end behind: all up to the next option that is not inside of quotes.
_UNTIL_OPTION: Final = re.compile(r"""(?:[^'"]|'[^']*'|"[^"]*")+?(?= --[a-z]|\Z)""")
_WIDTH: Final = 72
_FAR: Final = 100 * 366  # days, from where on their number says nothing
_MOST_GROWTH: Final = 10_000.0
#: Days of dual writing to name.
_DAYS: Final = ("1d", "7d", "30d", "90d", "1y")


def _growth(ctx: click.Context, param: click.Parameter, value: str) -> float:
    match = _PERCENT.fullmatch(value.strip())
    if match is None or float(match[1]) > _MOST_GROWTH:
        raise click.BadParameter(f"{value!r} is no share, as in 20%", ctx=ctx, param=param)
    return float(match[1]) / 100


@click.command(cls=Verb)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=EXISTING_SNAPSHOT)
@target_options
@click.option("--growth", default="20%", show_default=True, callback=_growth, metavar="N%", help="Room for the data to grow.")
@click.option("--ha/--no-ha", default=True, show_default=True, help="Whether the cache is to have a replica.")
@click.option("--name", default="", metavar="NAME", help="Name of the new cache, in the commands.")
@click.option("--resource-group", default="", metavar="NAME", help="Resource group of the cache.")
@click.option("--location", default="", metavar="REGION", help="Region of the cache, as westeurope.")
@click.option("--storage-account", default="", metavar="NAME", help="Storage account to which the files are uploaded.")
@click.option("--container", default="", metavar="NAME", help="Container in the storage account.")
@click.option(
    "--source-cache",
    default="",
    metavar="ID",
    help="Resource ID of the Azure cache that the files come from: its host name will lead to the new cache.",
)
@click.option("--clustering", metavar="POLICY", help="OSSCluster, EnterpriseCluster or NoCluster, instead of what fits the data.")
@click.option("--access-keys", is_flag=True, help="Let clients log in with access keys, instead of by Entra ID.")
@cloud_option("public")
@click.option(
    "--bicep", "bicep_file", type=OutputPath("bicep", gzip=False), metavar="FILE", help="Write cache and storage as a Bicep file."
)
@click.option(
    "--terraform",
    "terraform_file",
    type=OutputPath("terraform", gzip=False),
    metavar="FILE",
    help="Write cache and storage as a Terraform file.",
)
@click.option("--private-endpoint", is_flag=True, help="In these files, let the cache be reached from one network alone.")
@force_option
@click.option("--json", "as_json", is_flag=True, help="The plan as one JSON object.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
def plan(
    files: tuple[str, ...],
    target: Target,
    sku: Sku | None,
    growth: float,
    ha: bool,
    name: str,
    resource_group: str,
    location: str,
    storage_account: str,
    container: str,
    source_cache: str,
    clustering: str | None,
    access_keys: bool,
    cloud: Cloud | None,
    bicep_file: str | None,
    terraform_file: str | None,
    private_endpoint: bool,
    force: bool,
    as_json: bool,
    relaxed: bool,
) -> int:
    """The size to buy for snapshots, and every step to bring them there.

    TARGET is azure-managed, azure-premium or azure-enterprise. Several FILEs are the shards of one source. Exit code 0 if all data
    gets there; 1 if some would be lost, or no size holds it; 3 if FILE cannot be read or is damaged.
    """
    if not target.skus:
        raise click.BadParameter(
            f"{target.name} is not sold in sizes; azure-managed, azure-premium and azure-enterprise are", param_hint="--target"
        )
    templates = {"--bicep": (bicep_file, bicep), "--terraform": (terraform_file, terraform)}
    outputs = {option: (file, write) for option, (file, write) in templates.items() if file is not None}
    for file, _ in outputs.values():
        if exists(file) and not force:
            raise click.UsageError(f"{printable(file)} exists; --force replaces it")
    if private_endpoint and not outputs:
        raise click.UsageError("--private-endpoint is for --bicep and --terraform")
    names = Names(name, resource_group, location, storage_account, container, source_cache)
    try:
        with progress("plan", 2 * total_size(files)) as update:
            found = make_plan(
                files, target, sku=sku, growth=growth, high_availability=ha, names=names, clustering=clustering,
                access_keys=access_keys, cloud=cloud or "public", relaxed=relaxed, progress=update,
            )  # fmt: skip
    except ValueError as e:
        raise click.UsageError(str(e)) from None
    texts = []
    for option, (file, write) in outputs.items():
        try:
            texts.append((file, write(found, private_endpoint=private_endpoint)))
        except ValueError as e:
            raise click.UsageError(f"{option}: {e}") from None
    for file, text in texts:
        with writing(file, files, force) as out:
            out.write(text.encode())
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _show(found, _deployments(found, bicep_file, terraform_file), private_endpoint, output())
    return 0 if found.feasible else 1


def _show(found: Plan, deployments: list[str], private_endpoint: bool, out: Output) -> None:
    files = printable(found.files[0].file) if len(found.files) == 1 else f"{len(found.files)} files"
    out.heading(f"{files} to {found.title}")
    out.facts(_facts(found))
    _show_sentences([printable(text) for text in found.shards], out)
    _show_sentences(found.said, out)
    _show_files(found, out)
    if found.sizes:
        out.table(
            "Smallest sizes that hold it",
            ("size", "tier", "shards", "for data", "free then", ""),
            [
                (s.sku, s.tier, str(s.shards), f"{s.usable_bytes / GB:,.1f} GB", f"{s.headroom:.0%}", _remark(s.preview, s.note))
                for s in found.sizes
            ],
        )
    _show_sentences(found.notes, out)
    for number, step in enumerate(found.steps, 1):
        _show_step(number, step, out)
    if deployments:
        out.line("\nInstead of creating the cache step by step, deploy the file. It has the storage account and the rights, too.")
        if private_endpoint:
            out.line("Only the subnet of the private endpoint reaches the cache then: run verify-import there.")
        _show_commands(deployments)
    _show_dual_writing(found, out)


def _deployments(found: Plan, bicep_file: str | None, terraform_file: str | None) -> list[str]:
    """The commands that create what the files describe."""
    commands = []
    if bicep_file is not None:
        group = shell_word(found.names.resource_group) if found.names.resource_group else '"$RESOURCE_GROUP"'
        commands.append(f"az deployment group create --resource-group {group} --template-file {path_word(bicep_file)}")
    if terraform_file is not None:
        folder = path_word(os.path.dirname(terraform_file) or os.curdir)
        commands += [f"terraform -chdir={folder} init", f"terraform -chdir={folder} apply"]
    return commands


def _show_sentences(texts: list[str], out: Output) -> None:
    for text in texts:
        out.line(f"\n{_sentence(text)}")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _show_files(found: Plan, out: Output) -> None:
    """All files, where there are several, and what is to be said of one."""
    if len(found.files) > 1:
        rows = [(printable(f.file, 40), f"{f.keys:,}", size(f.memory_bytes), f.verdict) for f in found.files]
        out.table("Files", ("file", "keys", "memory", "verdict"), rows)
    for file in found.files:
        if file.verdict != "as-it-is" or file.findings:
            out.line(f"\n{printable(file.file)}: {file.summary}" + (":" if file.findings else "."))
            for finding in file.findings:
                out.line(f"  {printable(finding)}")


def _show_step(number: int, step: Step, out: Output) -> None:
    out.line(f"\n{number}. {step.title}")
    # as comments, so that whoever pastes the whole step runs none of it
    for line in textwrap.wrap(_sentence(step.note), _WIDTH) if step.note else ():
        click.echo(f"   # {line}")
    _show_commands(step.commands)


def _show_commands(commands: list[str]) -> None:
    for command in commands:
        for line in _folded(command):  # whose words have nothing in them that is not printable
            click.echo(f"   {line}")  # never cut, so that it can be copied whatever the terminal's width


def _folded(command: str) -> list[str]:
    """A command of the shell in lines of about 72 columns, each but the last ending in a backslash; words are left whole."""
    lines = [""]
    for part in _UNTIL_OPTION.findall(command):
        if lines[-1] and len(lines[-1]) + len(part) > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"  {part.lstrip(' ')}")
        else:
            lines[-1] += part
    return lines


def _remark(preview: bool, note: str) -> str:
    return "; ".join(text for text in ("preview" if preview else "", note) if text)


def _facts(found: Plan) -> list[tuple[str, str]]:
    databases = ", ".join(map(str, found.databases[:8])) + (", ..." if len(found.databases) > 8 else "")
    rows = [
        ("keys", f"{found.keys:,}" + (f" in databases {databases}" if len(found.databases) > 1 else "")),
        ("memory", f"{size(found.data_bytes)} for the data that has not expired"),
        ("needed", f"{size(found.needed_bytes)} with room to grow by {found.growth:.0%}"),
    ]
    if found.used_memory is not None:
        rows.append(("saved with", f"{size(found.used_memory)} in use at the source"))
    if found.chosen is not None:
        shards = f", {found.chosen.shards} shards" if found.chosen.shards > 1 else ""
        replica = ""
        if found.clustering not in ("none", "cluster"):  # of other services that is not chosen
            replica = ", with a replica" if found.high_availability else ", without a replica"
        rows.append(("planned for", f"{found.chosen.name}{shards}{replica}"))
    if found.modules:
        rows.append(("modules", ", ".join(found.modules)))
    return rows


def _show_dual_writing(found: Plan, out: Output) -> None:
    dual = found.dual_writing
    if not found.keys:
        return
    out.heading("\nWithout an import: what writing to both caches takes")
    rows = []
    if dual.expiring:
        when = f", the last on {dual.last_expiry}" if dual.days else ", all of which have expired"
        when += f", in {count(round(dual.days), 'day')}" if dual.days and dual.days < _FAR else ""
        keys = f"{dual.expiring:,} key{'s' * (dual.expiring != 1)}"
        rows.append(("expiring", keys + when))
        after = [f"{_WORDS[name]} {dual.gone[name]:.0%}" for name in _DAYS if name in dual.gone]
        rows.append(("renewed or gone", ", ".join(after)))
    if dual.lasting:
        keys = f"{dual.lasting:,} key{'s' * (dual.lasting != 1)}"
        rows.append(("never expire", f"{keys}, {size(dual.lasting_bytes)}, which have to be copied"))
    else:
        rows.append(("never expire", "none: writing to both caches is enough"))
    out.facts(rows)
    if dual.lasting:
        out.table(
            "Keys to copy, by prefix",
            ("prefix", "keys", "memory", "share"),
            [(printable(p.prefix, 40), f"{p.keys:,}", size(p.bytes), f"{p.share:.1%}") for p in dual.prefixes],
        )


_WORDS: Final = {"1d": "1 day", "7d": "7 days", "30d": "30 days", "90d": "90 days", "1y": "1 year"}
