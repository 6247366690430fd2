"""What a cluster's nodes save is known for shards of it, and one that is not given is missed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import RELEASES, running
from rdbkit.format.slots import key_slot

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
SHARDS = ((0, 5460), (5461, 10922), (10923, 16383))
KEYS = 200_000


@pytest.mark.parametrize("line", RELEASES)
def test_a_node_that_is_not_given_is_missed(line: str, tmp_path: Path) -> None:
    binary = next((SERVERS / line).glob("*-server"))
    by_slot: list[list[bytes]] = [[] for _ in range(16384)]
    for number in range(KEYS):
        name = b"user:%d:cart" % number
        by_slot[key_slot(name)].append(name)
    files = []
    for first, last in SHARDS:
        nodes = tmp_path / "nodes.conf"
        nodes.write_text(f"{'ab' * 20} :0@0 myself,master - 0 0 1 connected {first}-{last}\nvars currentEpoch 1 lastVoteEpoch 0\n")
        conf = ["cluster-enabled yes", f"cluster-config-file {nodes}", "cluster-require-full-coverage no"]
        with running(binary, None, conf) as (client, folder):
            for _ in range(300):
                if "cluster_state:ok" in client.text("CLUSTER", "INFO"):
                    break
                time.sleep(0.05)
            client.pipeline(("SET", name, b"v") for slot in range(first, last + 1) for name in by_slot[slot])
            client.call("SAVE")
            file = tmp_path / f"{first}.rdb"
            file.write_bytes((folder / "dump.rdb").read_bytes())
        files.append(file)
    reports = [rdbkit.check(file, "azure-managed") for file in files]
    assert sum(report.keys for report in reports) == KEYS
    assert [report.slots for report in reports] == [[shard] for shard in SHARDS]
    assert rdbkit.check_shards(reports) == []
    for missing, (first, last) in enumerate(SHARDS):
        (finding,) = rdbkit.check_shards(reports[:missing] + reports[missing + 1 :])
        assert (finding.code, finding.severity) == ("RDB308", "warning")
        assert finding.title == f"no key of slots {first}-{last} in any file: whole shards may be missing"
