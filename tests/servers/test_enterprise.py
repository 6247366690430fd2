"""Files of Redis Enterprise: other servers refuse them, and load what convert makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import RELEASES, Refused, running
from fixtures.server import truth as answers

from ..operations.test_enterprise import CONTENT, FILE, MADE, WANTED

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
FILES = {"ram-lru.rdb": (FILE.read_bytes(), CONTENT), **{name: (data, WANTED) for name, data in MADE.items()}}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("line", RELEASES)
def test_servers_refuse_the_file_and_load_what_is_made_of_it(line: str, name: str, tmp_path: Path) -> None:
    data, wanted = FILES[name]
    binary = next((SERVERS / line).glob("*-server"))
    path = tmp_path / "in.rdb"
    path.write_bytes(data)
    with pytest.raises(Refused), running(binary, path):
        pass
    rdbkit.convert(path, tmp_path / "out.rdb", target=line)
    with running(binary, tmp_path / "out.rdb") as (client, _):
        found = {row["key"].encode(): str(row["value"]).encode() for row in answers(client)}
    assert found == wanted
