"""The one table of losses: the code, the command line and the documents name what it has, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import click

import rdbkit
import rdbkit.policy.losses
from rdbkit.cli import cli
from rdbkit.format.filter import TYPES
from rdbkit.operations.check import SEVERITIES
from rdbkit.policy.losses import loss_kinds, policies, remedy_of
from rdbkit.policy.rules import Edits, Policies

PACKAGE = Path(rdbkit.__file__ or "").parent
DOCS = Path(__file__).resolve().parents[2] / "docs"


def literals(node: ast.expr) -> list[str]:
    """What an argument is for certain, or may be."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def losses_in_the_code() -> Iterator[tuple[str, str, str]]:
    """The file, kind and policy (empty where none is named) of every place that enters a loss or note by its name."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("Loss", "ValueLoss", "lose", "_lose", "note") and len(node.args) > 1:
                policy = literals(node.args[3]) if name == "lose" and len(node.args) > 3 else []
                for kind in literals(node.args[0]):
                    yield path.name, kind, "".join(policy)
            elif name == "keeps_document":
                for kind in literals(node.args[0]):
                    yield path.name, kind, ""


def test_the_code_enters_the_kinds_of_the_table_and_no_others() -> None:
    found = list(losses_in_the_code())
    assert len(found) > 40
    for file, kind, policy in found:
        assert kind in loss_kinds(), f"{file}: {kind}"
        assert not policy or policy == loss_kinds()[kind].policy, f"{file}: {kind} is decided by {policy}"
    # what is left is entered by the name of the key's type
    assert loss_kinds().keys() - {kind for _, kind, _ in found} <= set(TYPES)


def test_codes_are_told_apart() -> None:
    codes = [kind.code for kind in loss_kinds().values() if kind.code]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)
    assert all(re.fullmatch(r"RDB[2349]\d\d", code) for code in codes)


def test_each_kind_is_described() -> None:
    for name, kind in loss_kinds().items():
        assert kind.name == name
        assert kind.severity in SEVERITIES
        assert kind.one
        assert kind.many
        assert kind.why
        assert not kind.why.endswith(".")
        assert kind.policy in policies()
        # what helps is an option of convert with one of its words
        assert bool(kind.fix) == (kind.severity in ("loss", "blocker")), name
        if kind.fix:
            assert_is_option(kind.fix)
        if kind.fix.startswith("--on-") and kind.policy != "loss":
            assert kind.fix.split()[0] == policies()[kind.policy].option


def assert_is_option(text: str) -> None:
    """`text` can be given to `rdbkit convert`."""
    convert = cli.get_command(click.Context(cli), "convert")
    assert convert is not None
    option, *words = text.split()
    (param,) = (param for param in convert.params if option in param.opts)
    if words:
        param.type.convert(words[0], param, click.Context(convert))


def test_remedies_name_options() -> None:
    convert = cli.get_command(click.Context(cli), "convert")
    assert convert is not None
    options = {name for param in convert.params for name in param.opts}
    for kind in loss_kinds():
        named = re.findall(r"--[a-z-]+", remedy_of(kind))
        assert named
        assert set(named) <= options, kind


def test_policies_are_the_fields_of_policies_and_options_of_every_converting_verb() -> None:
    fields = {field.name for field in dataclasses.fields(Policies)}
    assert fields - {"owner"} == policies().keys()
    for verb in ("convert", "merge", "migrate", "upload"):
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        options = {name: param for param in command.params for name in param.opts}
        for name, policy in policies().items():
            assert options[policy.option].name == f"on_{name}"
    for name, policy in policies().items():
        assert policy.drop in policy.choices
        for choice in policy.choices:
            owner = b"c" if choice == "assign" else None
            assert Policies(**{name: choice, "owner": owner}).chosen(name) == choice  # type: ignore[arg-type]
        assert Policies().chosen(name) == (policy.default or "fail")
        assert Policies(loss="drop").chosen(name) == ("drop" if name == "loss" else policy.drop)
    assert not {field.name for field in dataclasses.fields(Edits)} & policies().keys()


def test_the_page_of_check_has_every_finding() -> None:
    page = (DOCS / "check.md").read_text()
    rows = {row[1]: row for row in re.findall(r"^(\| `(RDB\d+)` \| (\w+) \| (.*?) \| (.*?) \|)$", page, re.MULTILINE)}
    for kind in loss_kinds().values():
        if kind.code:
            _, code, severity, what, helps = rows[kind.code]
            assert (code, severity) == (kind.code, kind.severity)
            assert what.startswith(kind.many), code
            assert helps.startswith(f"`{kind.fix.split()[0]}" if kind.fix else ""), code


def test_the_page_of_convert_has_every_loss() -> None:
    page = (DOCS / "convert.md").read_text()
    for kind in loss_kinds().values():
        assert re.search(rf"`{kind.name}`", page), kind.name
    for policy in policies().values():
        assert policy.option in page


def test_examples_in_docstrings_hold() -> None:
    result = doctest.testmod(rdbkit.policy.losses)
    assert result.failed == 0
    assert result.attempted >= 3
