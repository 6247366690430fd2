"""`rdbkit dual-proxy` as it is run: in several processes, asked over its socket, watched over HTTP, ended by signals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client
from rdbkit.dual.control import ask
from rdbkit.errors import TargetError

from ..processes import GUARD, heeding_signals, until
from ..rdb import rarely
from .test_verify_copy import said, two

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@contextmanager
def proxy(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command, and the port at which it serves."""
    command = heeding_signals([sys.executable, "-m", "rdbkit", "dual-proxy", *arguments, "--listen", "127.0.0.1:0"])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(r"rdbkit: clients can connect to 127\.0\.0\.1:(\d+)\n", line)
            assert found, line + process.stderr.read()
            yield process, int(found[1])
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(how)
    code = process.wait(GUARD)
    assert process.stderr is not None
    return code, process.stderr.read()


@pytest.mark.parametrize("processes", ["3", *rarely("1")])
def test_a_move_there_and_back(processes: str, tmp_path: Path) -> None:
    control = str(tmp_path / "s")
    with (
        two("redis-7.0", "valkey-9.1") as (old, new, one, other),
        proxy(one, other, "--control", control, "--processes", processes, "--pause-limit", "60s") as (process, port),
    ):
        clients = [Client(port) for _ in range(8)]
        for number, client in enumerate(clients):
            client.pipeline([("INCR", f"c{number}"), ("RPUSH", "l", number)])
        code, out, _ = said("dual-switch", "new", "--control", control, "--compare", "0", "--json")
        answer = json.loads(out)
        assert (code, answer["state"], answer["connections"], answer["closed"]) == (0, "new", 8, {})
        assert answer["compared"] <= 9  # those that were not compared before, as far as one comes in a tenth of a second
        for number, client in enumerate(clients):
            assert client.integer("INCR", f"c{number}") == 2
        assert new.integer("LLEN", "l") == 8
        assert ask(control, "status")["connections"] == 8
        code, out, _ = said("dual-switch", "shadow", "--control", control)
        assert code == 0
        assert "the proxy is in the state shadow" in out
        for number, client in enumerate(clients):
            assert client.integer("INCR", f"c{number}") == 3
        with closing(Client(port)) as late:
            assert late.integer("RPUSH", "l", 8) == 9
        assert said("dual-switch", "done", "--control", control)[0] != 0
        for client in clients:
            client.close()
        assert ended(process) == (0, "")
        for server in (old, new):  # what was written last came over at the end
            assert [server.call("GET", f"c{number}") for number in range(8)] == [b"3"] * 8
            assert server.integer("LLEN", "l") == 9
    with pytest.raises(TargetError, match="no proxy listens"):
        ask(control, "status")


def test_metrics_and_flushes(tmp_path: Path) -> None:
    control = str(tmp_path / "s")
    with (
        two() as (_, _, one, other),
        closing(socket.socket()) as free,
    ):
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        with proxy(one, other, "--control", control, "--metrics", place, "--processes", "2") as (process, port):
            with closing(Client(port)) as client:
                client.call("SET", "a", 1)
                client.call("FLUSHDB")
                until(lambda: ask(control, "status")["needs_sync"])
                with urllib.request.urlopen(f"http://{place}/metrics") as answer:
                    text = answer.read().decode()
                assert 'rdbkit_dual_needs_sync_total{why="flush"} 1' in text
                assert "rdbkit_proxy_connections 1" in text
                assert 'rdbkit_proxy_state{state="shadow"} 1' in text
                code, _, errors = said("dual-switch", "new", "--control", control, "--compare", "0")
                assert code == 4
                assert "rdbkit sync" in errors
                assert said("dual-switch", "new", "--control", control, "--compare", "0", "--synced")[0] == 0
            assert ended(process, signal.SIGINT) == (0, "")


def test_a_state_has_one_proxy(tmp_path: Path) -> None:
    """Two would part with the first switch, and each acknowledge writes that the other replaces."""
    state = str(tmp_path / "state")
    with two() as (_, _, one, other):
        with proxy(one, other, "--state", state) as (process, _):
            code, _, errors = said("dual-proxy", one, other, "--listen", "127.0.0.1:0", "--state", state)
            assert (code, "another proxy has this state" in errors) == (4, True)
            assert ended(process) == (0, "")
        assert not list(tmp_path.glob("*.lock"))
        with proxy(one, other, "--state", state) as (process, _):  # a killed one has left its lock's file, and nobody locks it
            process.kill()
            process.wait(GUARD)
        assert list(tmp_path.glob("*.lock"))
        with proxy(one, other, "--state", state) as (process, _):
            assert ended(process) == (0, "")


def test_a_process_that_is_killed_ends_the_proxy(tmp_path: Path) -> None:
    control = str(tmp_path / "s")
    with (
        two() as (_, _, one, other),
        proxy(one, other, "--control", control, "--processes", "2") as (process, port),
        closing(Client(port)) as client,
    ):
        client.call("SET", "a", 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        code = process.wait(GUARD)
        assert process.stderr is not None
        assert code == 4
        assert "a process of the proxy has ended" in process.stderr.read()


def test_what_cannot_be(tmp_path: Path) -> None:
    with two() as (_, _, one, other):
        code, _, errors = said("dual-proxy", one, one, "--listen", "127.0.0.1:0")
        assert code == 4
        assert "are the same" in errors
        code, _, errors = said("dual-proxy", one, other, "--listen", one.removeprefix("redis://"), "--processes", "2")
        assert code != 0
        assert "in use" in errors
        code, _, errors = said("dual-proxy", one, other, "--log-in", "--listen", "0.0.0.0:0")
        assert code == 2
        assert "--client-password-file" in errors
        assert said("dual-proxy", one, other, "--listen", "6379")[0] == 2
    code, _, errors = said("dual-switch", "new", "--control", str(tmp_path / "s"))
    assert code == 4
    assert "no proxy listens" in errors
