"""The help of long verbs has headings, and every option stands under one of them."""

from __future__ import annotations

import click
import pytest

from rdbkit.cli import cli
from rdbkit.cli.headings import grouped

from .. import command_line

VERBS = cli.list_commands(click.Context(cli))


def test_migrate_has_what_must_be_given_first_and_the_rest_under_headings() -> None:
    text = command_line.run("migrate", "--help", environment={"COLUMNS": "80"}).stdout.decode()
    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Options", "Access to Azure", "Upload", "FILE and OUT that are URLs",
        "Data that the target does not support", "Changes to keys",
        "Reading and converting",
        "Which keys (options combine with and, a repeated option with or)",
    ]  # fmt: skip
    own = text.partition("\nOptions:\n")[2].partition("\nAccess to Azure:\n")[0]
    assert [line.split()[0] for line in own.splitlines() if line.startswith("  -")][:3] == [
        "--target",
        "--resource-id",
        "--container",
    ]
    assert "FILE..." not in own  # that is an argument


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_listed_once(verb: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, verb)
    assert command is not None
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    listed = [option for _, group in grouped(options) for option in group]
    assert len(listed) == len(options)
    assert {option.name for option in listed} == {option.name for option in options}
