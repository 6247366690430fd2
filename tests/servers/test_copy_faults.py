"""What goes wrong on the way: connections that break at any byte, targets that are full or closed, processes that are killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, Process, running
from fixtures.shapes import commands
from rdbkit.errors import TargetError
from rdbkit.live import restoring

from ..command_line import run_text
from ..live.acl import PASSWORD, add_users, url_of
from ..live.copying import copied
from ..live.cutting_front import CuttingFront
from ..live.oracle import content, differences
from ..live.tls import Certificates
from ..processes import until
from ..rdb import exhaustive
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
BINARY = SERVERS / "redis-7.0" / "redis-server"


def url(client: Client) -> str:
    return f"redis://127.0.0.1:{port_of(client)}"


@contextmanager
def served(*conf: str) -> Iterator[Client]:
    with running(BINARY, conf=conf) as (client, _):
        yield client


@pytest.fixture(scope="module")
def source() -> Iterator[Client]:
    with served() as client:
        client.pipeline(commands(11, 60, most=300))
        client.pipeline([("SELECT", 2), ("SET", "other", 1), ("SELECT", 0)])
        yield client


@pytest.fixture(scope="module")
def target() -> Iterator[Client]:
    with served() as client:
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for minutes gives up after the first waits."""
    monkeypatch.setattr(restoring.Patience.__init__, "__defaults__", (0.3, 0.3))


# -- the network


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=exhaustive) for number in range(1, 20))])
@pytest.mark.parametrize("way", ["sent", "received"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_connection_may_break_at_any_byte(side: str, way: str, number: int, source: Client, target: Client) -> None:
    expected = content(source)

    def through(front: CuttingFront) -> None:
        target.call("FLUSHALL")
        urls = {"source": url(source), "target": url(target)} | {side: front.url}
        done = copied(urls["source"], urls["target"], batch=7)
        assert done.complete
        assert not done.samples
        # what was written before the break, and whose answer was lost, is known for one's own
        assert done.counts.written + done.counts.equal >= len(expected)
        assert differences(expected, content(target)) == []

    with CuttingFront(int(port_of(source if side == "source" else target)), piece=500) as front:
        through(front)
        total, opening = getattr(front, way), 300
    noise = random.Random(f"{side} {way} {number}")
    cuts = sorted(noise.sample(range(opening, total), 3))
    with CuttingFront(int(port_of(source if side == "source" else target)), piece=500, **{f"cut_{way}": cuts}) as front:  # type: ignore[arg-type]
        through(front)
        assert front.cuts_left < 3


def test_a_network_that_stands_still_for_a_while_is_waited_for(source: Client, target: Client) -> None:
    target.call("FLUSHALL")
    with CuttingFront(int(port_of(target)), latency=0.002, piece=4000) as front:

        def stand_still() -> None:
            front.stall()
            threading.Timer(0.5, front.go_on).start()

        front.on_cut = stand_still
        front.cut_after(received=5000)
        assert copied(url(source), front.url, batch=10).complete
    assert differences(content(source), content(target)) == []


# -- the target


@pytest.mark.usefixtures("impatient")
def test_a_target_that_is_full_stops_the_copy_and_it_goes_on_later(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with served() as a, served("maxmemory-policy noeviction") as b:
        a.pipeline([("SET", f"k{i}", "x" * 1000) for i in range(3000)])
        used = int(b.text("INFO", "memory").partition("used_memory:")[2].split()[0])
        b.call("CONFIG", "SET", "maxmemory", used + 2_000_000)
        with pytest.raises(TargetError, match=r"the target has no memory left .*give it more, or free some, and run this again"):
            copied(url(a), url(b), state=state, batch=100)
        assert 0 < b.integer("DBSIZE") < 3000
        b.call("CONFIG", "SET", "maxmemory", 0)
        done = copied(url(a), url(b), state=state, batch=100)
        assert done.resumed
        assert done.complete
        assert differences(content(a), content(b)) == []


def test_keys_that_a_target_evicts_are_told() -> None:
    with served() as a, served("maxmemory-policy allkeys-random") as b:
        a.pipeline([("SET", f"k{i}", "x" * 1000) for i in range(3000)])
        used = int(b.text("INFO", "memory").partition("used_memory:")[2].split()[0])
        b.call("CONFIG", "SET", "maxmemory", used + 2_000_000)
        done = run_text("copy", url(a), url(b), "--batch", "100")
        assert done.returncode == 1
        assert "the target evicts keys when its memory is full (maxmemory-policy allkeys-random)" in done.stdout
        assert "not all keys are on TARGET" in done.stdout
        (evicted,) = re.findall(r"evicted +([0-9,]+)  \(TARGET's memory is full", done.stdout)
        assert 0 < int(evicted.replace(",", "")) <= 3000 - b.integer("DBSIZE")


@pytest.mark.usefixtures("impatient")
def test_a_replica_takes_no_keys(source: Client) -> None:
    with served() as master, served() as b:
        b.call("REPLICAOF", "127.0.0.1", port_of(master))
        until(lambda: "master_link_status:up" in b.text("INFO", "replication"))
        with pytest.raises(TargetError, match=r"(?i)read.?only"):
            copied(url(source), url(b))
        assert b.integer("DBSIZE") == 0
        b.call("REPLICAOF", "NO", "ONE")  # what fails over while it is waited for
        assert copied(url(source), url(b)).complete


def test_a_target_that_is_loading_is_waited_for(source: Client, tmp_path: Path) -> None:
    with served() as filled:
        filled.pipeline([("SET", f"there{i}", i) for i in range(3000)])
        filled.call("SAVE")
        folder = Path(filled.items("CONFIG", "GET", "dir")[1].decode())  # type: ignore[union-attr]
        (tmp_path / "dump.rdb").write_bytes((folder / "dump.rdb").read_bytes())
    # for each key it sleeps, and hears others now and then
    slow = Process(BINARY, tmp_path, ["key-load-delay 500", "loading-process-events-interval-bytes 1024"])
    slow.begin()
    try:
        place = f"redis://127.0.0.1:{slow.port}"
        until(lambda: answers(slow.port))
        done = copied(url(source), place)
        assert done.complete
        with_client = slow.client()
        assert with_client.integer("DBSIZE") == 3000 + source.integer("DBSIZE")
        with_client.close()
    finally:
        slow.kill()


def answers(port: int) -> bool:
    try:
        Client(port).close()
    except OSError:
        return False
    return True


def test_a_server_that_takes_no_more_clients_says_so(source: Client) -> None:
    with served("maxclients 1") as b:
        done = run_text("copy", url(source), url(b))
        assert done.returncode == 4
        assert "the server takes no more clients (maxclients); close some, or try again later" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_cannot_be_written_to_disk_is_told(source: Client) -> None:
    """A server whose last save failed takes no writes (MISCONF)."""
    with served("save 3600 1", "stop-writes-on-bgsave-error yes", "dbfilename a-folder") as b:
        folder = Path(b.items("CONFIG", "GET", "dir")[1].decode())  # type: ignore[union-attr]
        (folder / "a-folder").mkdir()  # which no file can replace
        b.call("SET", "there", 1)
        b.call("BGSAVE")
        until(lambda: "rdb_last_bgsave_status:err" in b.text("INFO", "persistence"))
        done = copied(url(source), url(b))
        assert not done.complete
        assert done.counts.refused + done.counts.lost == len(content(source))
        assert all("MISCONF" in each.detail for each in done.samples)


# -- who may


def test_wrong_logins_and_wrong_ports_are_one_line_with_the_remedy(source: Client, tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    port, lines = certificates.listen()
    with served(*lines) as b:
        add_users(b)
        ca = ("--target-ca-cert", str(certificates.authority.cert))
        tls = f"rediss://localhost:{port}"
        for place, options, said in (
            (url(b).replace("//", "//:wr0ng@"), (), "does not let this user in"),
            (url(b).replace("//", "//owner:wr0ng@"), (), "does not let this user in"),
            (f"redis://localhost:{port}", (), "the port may want TLS: write rediss://"),
            (tls, (), "certificate is not trusted"),
            (tls.replace("localhost", "127.0.0.1"), ca, "certificate is not trusted"),
            (url_of(url(b), "contributor"), ("--as", "restore"), "cannot write to it"),
            (url_of(url(b), "reader"), (), "cannot write to it"),
        ):
            done = run_text("copy", url(source), place, *options)
            assert done.returncode == 4, (place, done.stdout, done.stderr)
            assert said in done.stderr, (place, done.stderr)
            assert len(done.stderr.splitlines()) == 1
            for secret in ("wr0ng", PASSWORD, "p%40ss"):
                assert secret not in done.stdout + done.stderr
        assert b.integer("DBSIZE") == 0
        done = run_text("copy", url(source), url_of(tls, "owner"), *ca, "--json")
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert "p%40ss" not in done.stdout + done.stderr
        assert differences(content(source), content(b)) == []


# -- killed


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=exhaustive) for seed in range(1, 50))])
def test_what_was_killed_goes_on_and_nothing_is_half_or_twice(seed: int, tmp_path: Path) -> None:
    state = tmp_path / "state"
    noise = random.Random(seed)
    with served() as a, served() as b:
        a.call("CONFIG", "SET", "requirepass", "s3cret")
        a.call("AUTH", "s3cret")
        a.pipeline([("SET", f"k{i}", i) if i % 2 else ("RPUSH", f"k{i}", i, "x" * 50) for i in range(8000)])
        b.pipeline([("SET", "k1", "mine"), ("SET", "k2", "mine")])
        place = url(a).replace("//", "//:s3cret@")
        command = [sys.executable, "-m", "rdbkit", "copy", place, url(b), "--state", str(state), "--on-exists", "skip", "--json"]
        for _ in range(noise.randrange(1, 4)):
            least = b.integer("DBSIZE") + noise.randrange(0, 2500)
            with subprocess.Popen([*command, "--rate", "8000"], stdout=subprocess.DEVNULL) as process:
                until(lambda least=least, process=process: process.poll() is not None or b.integer("DBSIZE") >= least)  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
            if state.exists():
                assert b"s3cret" not in b"".join(path.read_bytes() for path in tmp_path.glob("state*"))
                assert state.stat().st_mode & 0o077 == 0
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        report = json.loads(done.stdout)
        assert report["keys"]["existing"] == 2
        assert not [*tmp_path.iterdir()]
        expected = content(a)
        expected[0, b"k1"] = expected[0, b"k1"]._replace(value="mine")
        expected[0, b"k2"] = content(b)[0, b"k2"]
        assert expected[0, b"k2"].value == "mine"
        assert differences(expected, content(b)) == []
