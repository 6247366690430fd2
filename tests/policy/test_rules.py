"""What `Policies` and `Edits` take: names as str or bytes, and a TypeError for what is neither."""

from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from rdbkit.policy.losses import policies
from rdbkit.policy.rules import Edits, Policies

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


@pytest.mark.parametrize(("name", "kept"), [("caf\u00e9", b"caf\xc3\xa9"), ("\udcff", b"\xff"), (b"\xff", b"\xff")])
def test_a_name_is_str_or_bytes(name: str | bytes, kept: bytes) -> None:
    given = Policies(pending_unowned="assign", owner=name)
    assert given.owner == kept
    assert given == Policies(pending_unowned="assign", owner=kept) == pickle.loads(pickle.dumps(given))
    edits = Edits(rename_prefix=[(name, "new:")], on_conflict="rename", rename_pattern="{key}-2")
    assert edits.key_of(kept + b"1") == b"new:1"
    assert edits.key_of(b"other") == b"other"
    same = Edits(rename_prefix=((kept, b"new:"),), on_conflict="rename", rename_pattern=b"{key}-2")
    assert edits == same == pickle.loads(pickle.dumps(edits)) == dataclasses.replace(same, drop_expired=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rename_prefix": [("a", 1)]}, "a prefix is str or bytes, not int"),
        ({"rename_prefix": "ab"}, "rename_prefix is pairs of an old and a new prefix, not str"),
        ({"rename_prefix": {"ab": "c"}}, "rename_prefix is pairs of an old and a new prefix, not dict"),
        ({"rename_prefix": ["ab"]}, "one of them is 'ab'"),
        ({"rename_prefix": [("a", "b", "c")]}, "one of them is ('a', 'b', 'c')"),
        ({"rename_prefix": 3}, "not int"),
        ({"rename_pattern": 3}, "rename_pattern is str or bytes, not int"),
        ({"map_db": {"0": 1}}, "map_db has whole numbers, not '0'"),
        ({"map_db": [(0, 1)]}, "map_db is a dict of databases by database, not list"),
        ({"shift_ttl_ms": 1.5}, "shift_ttl_ms has whole numbers, not 1.5"),
        ({"set_ttl_ms": "1d"}, "set_ttl_ms has whole numbers, not '1d'"),
        ({"script": "record.py"}, "script is a function, not str"),
    ],
)
def test_what_edits_do_not_take_is_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=re.escape(told)):
        Edits(**arguments)


def test_an_owner_that_is_no_name_is_told() -> None:
    with pytest.raises(TypeError, match="owner is str or bytes, not int"):
        Policies(pending_unowned="assign", owner=3)  # type: ignore[arg-type]


def test_the_page_has_every_argument_and_its_default() -> None:
    """A row has the argument, its type, its default and what it means."""
    lines = [line.removeprefix("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = {cells[0]: cells for cells in lines if len(cells) == 4}
    for of in (Policies, Edits):
        for field in dataclasses.fields(of):
            default = field.default if field.default is not dataclasses.MISSING else {}
            assert f"`{field.name}`" in rows, field.name
            assert rows[f"`{field.name}`"][2] == f"`{default!r}`".replace("'", '"'), field.name
    for policy in policies().values():
        for choice in set(policy.choices) - {"fail"}:
            assert f'"{choice}"' in rows[f"`{policy.name}`"][3], (policy.name, choice)
