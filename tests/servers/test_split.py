"""Parts of a split load in real servers, those of slots in a cluster's nodes, and a merge of them has all again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, running
from fixtures.server import truth as answers
from rdbkit.operations.merge import merge
from rdbkit.operations.split import Division, parse_slot_parts, split

from ..rdb import FIXTURES, truth
from .test_commands import plain, same_expiry

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
WAYS = {
    "parts": Division(parts=3),
    "slots": Division(slots=parse_slot_parts("0-5460,5461-10922,10923-16383")),
    "db": Division(by="db"),
    "type": Division(by="type"),
    "prefix": Division(by="prefix"),
    "hash-tag": Division(by="hash-tag"),
}


def asked(line: str, path: Path, conf: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What a server of the line answers of every key of a file."""
    binary = next((SERVERS / line).glob("*-server"))
    with running(binary, path, list(conf)) as (client, _):
        return [dict(row) for row in answers(client)]


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    def by_name(row: dict[str, Any]) -> tuple[int, str]:
        return row["db"], row["key"]

    found, wanted = sorted(found, key=by_name), sorted(wanted, key=by_name)
    assert [plain(row) for row in found] == [plain(row) for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert same_expiry(one["expire_ms"], other["expire_ms"]), (one, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line", RELEASES)
def test_parts_answer_what_the_source_did(line: str, way: str, tmp_path: Path) -> None:
    path = FIXTURES / "random" / f"{RELEASES[line]}.rdb"
    wanted = truth(path)
    assert wanted is not None
    done = split([str(path)], str(tmp_path / "parts"), WAYS[way])
    files = [tmp_path / "parts" / part.file for part in done.parts]
    found = []
    for part, file in zip(done.parts, files, strict=True):
        rows = asked(line, file)
        assert len(rows) == part.keys
        found += rows
    assert_same(found, wanted)
    merge([str(file) for file in files], tmp_path / "together.rdb")
    assert_same(asked(line, tmp_path / "together.rdb"), wanted)


@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1"])
def test_parts_of_slots_load_in_the_nodes_that_own_them(line: str, tmp_path: Path) -> None:
    source = FIXTURES / "random" / f"{RELEASES[line]}.rdb"
    databases = split([str(source)], str(tmp_path / "databases"), Division(by="db"))
    first = next(part for part in databases.parts if part.label == b"0")  # a cluster has database 0 alone
    done = split([str(tmp_path / "databases" / first.file)], str(tmp_path / "parts"), WAYS["slots"])
    found = []
    binary = next((SERVERS / line).glob("*-server"))
    for part in done.parts:
        # the node knows its slots before it loads the file, as one of a running cluster does
        assert part.slots is not None
        owned = " ".join(f"{begin}-{end}" for begin, end in part.slots)
        nodes = tmp_path / "nodes.conf"
        nodes.write_text(f"{'ab' * 20} :0@0 myself,master - 0 0 1 connected {owned}\nvars currentEpoch 1 lastVoteEpoch 0\n")
        conf = ["cluster-enabled yes", f"cluster-config-file {nodes}", "cluster-require-full-coverage no"]
        with running(binary, tmp_path / "parts" / part.file, conf) as (client, _):
            for _ in range(300):  # it looks for others first
                if "cluster_state:ok" in client.text("CLUSTER", "INFO"):
                    break
                time.sleep(0.1)
            rows = [dict(row) for row in answers(client)]
            assert len(rows) == part.keys
            slots = client.items("CLUSTER", "SLOTS")
            ranges = [(row[0], row[1]) for row in slots if isinstance(row, list)]
            assert ranges == part.slots
            found += rows
    wanted = [row for row in truth(source) or () if row["db"] == 0]
    assert_same(found, wanted)
