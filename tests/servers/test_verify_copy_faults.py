"""`verify-copy` and `sync` over networks that break, with servers that restart, and when they are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdbkit.errors import TargetError
from rdbkit.live.connection import Connection
from rdbkit.live.sync import sync
from rdbkit.live.verify_copy import verify_copy

from ..live.cutting_front import CuttingFront
from .test_verify_copy import compared, found, two
from .test_verify_copy_clusters import keys

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


def port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def test_connections_that_break_anywhere() -> None:
    noise = random.Random(5)
    with two("redis-6.0", "redis-8.0") as (first, second, source, target):
        first.pipeline(keys(300))
        for side in range(2):
            for _ in range(12):
                second.call("FLUSHALL")
                second.pipeline(keys(300))
                second.pipeline([("SET", "s7", "y"), ("DEL", "s8")])
                received = sorted(noise.randrange(60_000) for _ in range(3))
                sent = sorted(noise.randrange(40_000) for _ in range(2))
                upstream = port((source, target)[side])
                with CuttingFront(upstream, cut_sent=sent, cut_received=received, piece=noise.choice([50, 1000, 60_000])) as front:
                    urls = [front.url if side == number else url for number, url in enumerate((source, target))]
                    try:
                        proof = compared(*urls, batch=100, rounds=2)
                    except TargetError:
                        continue  # before anything was known of the server
                    assert found(proof) == {"s7": "value", "s8": "missing"}
                    assert proof.keys == proof.checked == proof.equal + 2 == 600
                    done = sync(*urls, batch=100, wait_s=0, samples=0)
                    assert done.clean, done
                assert compared(source, target, find_extra=True).same


def test_a_source_that_restarts_while_its_keys_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with two() as (first, _, source, target):
        first.pipeline(keys(500))
        real = Connection.ask
        processes = iter([b"run_id:1\r\n", b"run_id:2\r\n"])

        def ask(self: Connection, *commands: bytes) -> list[object]:
            if commands and b"server" in commands[0] and b"INFO" in commands[0]:
                return [next(processes)]
            return real(self, *commands)

        with CuttingFront(port(source)) as front:
            monkeypatch.setattr(Connection, "ask", ask)
            with pytest.raises(TargetError, match="restarted"):
                verify_copy(front.url, target, batch=50, rounds=1, progress=lambda count: front.cut_all())


@pytest.mark.one_in(9)
@pytest.mark.parametrize("seed", range(9))
def test_killed_at_any_moment(seed: int) -> None:
    noise = random.Random(seed)
    with two("redis-7.0", "redis-8.0") as (first, second, source, target):
        first.pipeline(keys(4000))
        second.pipeline([("SET", "s1", "theirs"), ("SET", "mine", 1)])
        command = [sys.executable, "-m", "rdbkit", "sync", source, target, "--yes", "--wait", "0s"]
        for _ in range(6):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(noise.random() * 1.5)
            process.send_signal(signal.SIGKILL)
            process.wait()
            second.pipeline([("DEL", f"s{noise.randrange(4000)}") for _ in range(10)])
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert found(compared(source, target, find_extra=True)) == {"mine": "extra"}
