"""Opcodes in places where no server writes them: real servers have the keys where the reader says they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import RELEASES, running
from fixtures.server import truth as answers
from rdbkit.operations.split import Division

from ..operations.test_odd_places import OPCODES, PLACES, Case
from ..rdb import rdb

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
#: What servers load without a module, a cluster or a file of their own fork, and since which version of the format.
EVERYWHERE = (
    "selectdb", "selectdb-back", "resizedb", "aux", "expiry", "expiry-seconds", "idle", "freq", "idle-and-freq",
)  # fmt: skip
SINCE_7 = ("function",)
SINCE_8 = ("slot-info",)
#: Of Redis Enterprise: no other server loads them, and what rdbkit writes has none of them.
ENTERPRISE = ("enterprise-lru", "enterprise-slot", "enterprise-hints")


def opcodes_of(line: str) -> list[str]:
    found = [*EVERYWHERE, *ENTERPRISE]
    if line != "redis-6.0":
        found += SINCE_7
    if line == "redis-8.0":
        found += SINCE_8
    return found


def key_of(row: tuple[int, bytes, int | None]) -> tuple[int, bytes]:
    return row[:2]


@pytest.mark.parametrize("line", RELEASES)
def test_servers_have_the_keys_where_the_reader_says(line: str, tmp_path: Path) -> None:
    conf = [] if line == "redis-6.0" else ["enable-debug-command yes"]
    first = tmp_path / "first.rdb"
    first.write_bytes(rdb())
    with running(next((SERVERS / line).glob("*-server")), first, conf) as (client, folder):

        def reload(data: bytes) -> list[tuple[int, bytes, int | None]]:
            (folder / "dump.rdb").write_bytes(data)
            if line != "redis-6.0":
                client.call("FUNCTION", "FLUSH")
            client.call("DEBUG", "RELOAD", "NOSAVE")
            found = []
            for row in answers(client):
                at = row["expire_ms"]
                found.append((row["db"], row["key"].encode(), at if at is None or isinstance(at, int) else -1))
            return sorted(found, key=key_of)

        for opcode in opcodes_of(line):
            magic = b"REDIS0009" if opcode in (*EVERYWHERE, *ENTERPRISE) else OPCODES[opcode][0]
            if opcode in SINCE_7:
                magic = b"REDIS0010"
            for place in PLACES:
                if opcode == "function" and place.startswith("twice"):
                    continue
                data = Case(opcode, place, "small", magic).data
                path = tmp_path / "in.rdb"
                path.write_bytes(data)
                with rdbkit.open(path) as snapshot:
                    wanted = sorted([(r.db, r.key, r.expire_ms) for r in snapshot], key=key_of)
                rdbkit.convert(path, tmp_path / "out.rdb", target=line, force=True)
                rdbkit.split([str(path)], str(tmp_path / "parts"), Division(parts=1), force=True)
                written = [tmp_path / "out.rdb", tmp_path / "parts" / "0001.rdb"]
                for file in written if opcode in ENTERPRISE else [path, *written]:
                    found = reload(file.read_bytes())
                    assert [key_of(row) for row in found] == [key_of(row) for row in wanted], (opcode, place, file.name)
                    for one, other in zip(found, wanted, strict=True):
                        if line != "redis-6.0":
                            assert one[2] == other[2], (opcode, place, file.name)
                        else:  # it tells only the time that is left
                            assert (one[2] is None) == (other[2] is None), (opcode, place, file.name)
