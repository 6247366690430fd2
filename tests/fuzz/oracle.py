"""What a real server does with a file: load and serve it, leave keys out, refuse it, crash.

A server stays up and loads file after file by `DEBUG RELOAD NOSAVE`, which runs the code that it runs when it starts; where a file
ends it, another one is started. So thousands of files take minutes. `fresh` starts a server with the file instead, and the tests
compare the two.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from fixtures.server import Client, Reply, ServerError, items, text

LINES: Final = ("redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3")
WAIT: Final = 300.0  # seconds for a reply or a start, on however busy a machine
CPU: Final = 3  # seconds of work for one file; none takes a tenth of one, unless it has sent the server round in circles
MEMORY: Final = 1 << 30  # bytes of address space; a length that lies can ask for any number of them
DATABASES: Final = 16

LOADS: Final = "loads"
SKIPS: Final = "skips"  # loads, but leaves keys out because they have no elements
EMPTY: Final = "empty"  # loads, and has keys without elements
BREAKS: Final = "breaks"  # loads, but ends or answers nonsense when keys are read
WRITES: Final = "writes"  # loads and answers, but ends when a key is written to
REFUSES: Final = "refuses"
CRASHES: Final = "crashes"  # while it loads
HANGS: Final = "hangs"


class Verdict(NamedTuple):
    """What a server does with a file.

    Attributes:
        state: one of the constants above.
        reason: why, in the server's words where it has some.
        keys: that it has then.
        elements: all that its keys have together.
    """

    state: str
    reason: str = ""
    keys: int = 0
    elements: int = 0

    @property
    def good(self) -> bool:
        """It loads the file and serves it; keys without elements may be left out."""
        return self.state in (LOADS, SKIPS)


class _Nonsense(Exception):
    """A reply that no sound key gives."""


class Server:
    """One server that loads files one after another; a context manager.

    Args:
        binary: `redis-server` of that line.
        settings: further lines of its configuration.
    """

    def __init__(self, binary: Path, settings: Sequence[str] = ()) -> None:
        self.binary = binary
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="rdbkit-oracle-"))
        self.process: subprocess.Popen[bytes] | None = None
        self.client: Client | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def stop(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None
        if self.process is not None:
            self.process.kill()  # nothing of it is kept
            self.process.wait()
            self.process = None

    def ask(self, data: bytes) -> Verdict:
        """What it does with a file; loaded in place of what it has."""
        used = self.client is not None
        said = self._asked(data)
        if used and said.state in (CRASHES, BREAKS, WRITES, HANGS):
            said = self.fresh(data)  # it may have been an earlier file that did the harm
            self.stop()
        return said

    def _asked(self, data: bytes) -> Verdict:
        if self.client is None:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
            self._start()
        (self.folder / "dump.rdb").write_bytes(data)
        begin = (self.folder / "log").stat().st_size
        return self._judged(begin, self._reload)

    def fresh(self, data: bytes) -> Verdict:
        """What it does with a file with which it starts."""
        self.stop()
        (self.folder / "dump.rdb").write_bytes(data)
        return self._judged(0, self._start)

    def _judged(self, begin: int, load: Callable[[], object]) -> Verdict:
        step = CRASHES
        try:
            load()
            step = BREAKS
            keys, elements, names = self._read()
            step = WRITES
            self._write(names)
        except ServerError as e:
            said = self._log(begin)
            if step != CRASHES:
                self.stop()  # what it has now may trouble it later
                return Verdict(step, str(e))
            self._forget()
            return Verdict(REFUSES, _reason(said) or str(e))
        except _Nonsense as e:
            self.stop()
            return Verdict(EMPTY if str(e) == EMPTY else BREAKS, "a key without elements" if str(e) == EMPTY else str(e))
        except TimeoutError:
            raise
        except OSError:
            assert self.process is not None
            self.process.wait()
            said = self._log(begin)
            status = self.process.returncode
            self.stop()
            if status == -signal.SIGXCPU:
                return Verdict(HANGS, f"no answer after {CPU} s of work, {step}")
            crash = status < 0 or "BUG REPORT START" in said or "Guru Meditation" in said
            if step == CRASHES and not crash:
                step = REFUSES
            return Verdict(step, _reason(said) or f"it ended with status {status}")
        said = self._log(begin)
        skipped = re.search(r"empty keys skipped: (\d+)", said)
        if (skipped is not None and int(skipped[1])) or "skipping empty key" in said.lower():
            return Verdict(SKIPS, "keys without elements are left out", keys, elements)
        return Verdict(LOADS, "", keys, elements)

    def _forget(self) -> None:
        """Remove what a refused file has left."""
        assert self.client is not None
        try:
            self.client.call("FLUSHALL")
        except (ServerError, OSError):
            self.stop()

    def _start(self) -> None:
        """Start it with what is in its folder.

        Raises: ConnectionError where it ends before it serves, TimeoutError.
        """
        place = self.folder / "socket"
        place.unlink(missing_ok=True)
        name = self.binary.parent.name
        lines = ["port 0", f"unixsocket {place}", 'save ""', f"dir {self.folder}", "stop-writes-on-bgsave-error no"]
        lines += ["loglevel verbose"]  # at which a reload gives its reasons
        if name != "redis-6.0":
            lines += ["enable-debug-command local", "crash-log-enabled no"]  # the report may wait for a lock for ever
        (self.folder / "server.conf").write_text("".join(f"{line}\n" for line in [*lines, *self.settings]))
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen([self.binary.resolve(), self.folder / "server.conf"], stdout=log, stderr=log)
        self._limit()
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ConnectionError("it ended")
            try:
                client = Client(place, WAIT)
            except OSError:
                time.sleep(0.002)
                continue
            try:
                client.call("GET", "")
            except (ServerError, OSError):  # it loads, or has ended meanwhile
                client.close()
                time.sleep(0.002)
                continue
            self.client = client
            return
        raise TimeoutError("it did not start")

    def _limit(self) -> None:
        """Let it work for some seconds from now on."""
        assert self.process is not None
        ticks = (Path("/proc") / str(self.process.pid) / "stat").read_text().rsplit(")", 1)[1].split()
        used = (int(ticks[11]) + int(ticks[12])) // os.sysconf("SC_CLK_TCK")
        resource.prlimit(self.process.pid, resource.RLIMIT_CPU, (used + CPU, resource.RLIM_INFINITY))
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))

    def _reload(self) -> None:
        assert self.client is not None
        self._limit()
        self.client.call("DEBUG", "RELOAD", "NOSAVE")

    def _log(self, begin: int) -> str:
        with (self.folder / "log").open("rb") as log:
            log.seek(begin)
            return log.read(1 << 20).decode(errors="replace")

    def _read(self) -> tuple[int, int, list[tuple[int, bytes, str]]]:
        """Read every key in every way; how many keys and elements there are, and the names.

        Raises: ServerError and OSError as the client, _Nonsense where a reply cannot be.
        """
        client = self.client
        assert client is not None
        elements = 0
        names: list[tuple[int, bytes, str]] = []
        numbers = sorted(int(n) for n in re.findall(r"\bdb(\d+):keys", client.text("INFO", "keyspace")))
        for db in numbers:
            client.call("SELECT", db)
            found = [name for name in client.items("KEYS", "*") if isinstance(name, bytes)]
            kinds = [text(kind) for kind in client.answers([("TYPE", name) for name in found])]
            for name, kind in zip(found, kinds, strict=True):
                names.append((db, name, kind))
                elements += _elements(client, name, kind)
        client.call("SELECT", 0)
        client.call("DEBUG", "DIGEST")
        client.call("SAVE")
        return len(names), elements, names

    def _write(self, names: list[tuple[int, bytes, str]]) -> None:
        """Write to every key so that its encoding changes, and remove it."""
        client = self.client
        assert client is not None
        long = b"L" * 3000
        for db, name, kind in names:
            commands: list[tuple[bytes | str | int, ...]] = [("SELECT", db)]
            match kind:
                case "string":
                    commands += [("APPEND", name, "x")]
                case "list":
                    commands += [("LPUSH", name, "x"), ("RPUSH", name, long), ("LREM", name, 0, "nothing"), ("LTRIM", name, 1, -2)]
                case "set":
                    commands += [("SADD", name, "x"), ("SADD", name, long), ("SPOP", name), ("SREM", name, long)]
                case "zset":
                    commands += [
                        ("ZADD", name, "5.5", "x"),
                        ("ZADD", name, 1, long),
                        ("ZPOPMIN", name),
                        ("ZREMRANGEBYRANK", name, 0, 0),
                    ]
                case "hash":
                    commands += [("HSET", name, "x", "y"), ("HSET", name, "x", long), ("HDEL", name, "x")]
                case "stream":
                    commands += [("XADD", name, "MAXLEN", "1000", "18446744073709551614-*", "f", "v")]
                    for group in _groups(client, db, name):
                        commands += [("XREADGROUP", "GROUP", group, "a new one", "STREAMS", name, ">")]
                        commands += [("XREADGROUP", "GROUP", group, "a new one", "STREAMS", name, "0")]
                        commands += [
                            ("XAUTOCLAIM", name, group, "a new one", 0, "0", "COUNT", 100),
                            ("XGROUP", "DESTROY", name, group),
                        ]
                    commands += [("XTRIM", name, "MAXLEN", 1), ("XDEL", name, "1-0")]
            # an error reply, such as of an id that is too small, is an answer
            client.answers([*commands, ("DEL", name)])


def _groups(client: Client, db: int, name: bytes) -> list[bytes]:
    client.call("SELECT", db)
    try:
        found = items(client.call("XINFO", "GROUPS", name))
    except ServerError:
        return []
    return [group for row in found if isinstance(group := items(row)[1], bytes)]


def _elements(client: Client, name: bytes, kind: str) -> int:
    """Read a key; how many elements it has."""
    commands: list[tuple[bytes | str | int, ...]] = []
    size = 1
    match kind:
        case "string":
            commands = [("GET", name), ("STRLEN", name)]
        case "list":
            size = client.integer("LLEN", name)
            commands = [("LRANGE", name, 0, -1), ("LINDEX", name, -1), ("LINDEX", name, 0), ("LRANGE", name, -3, -2)]
        case "set":
            size = client.integer("SCARD", name)
            commands = [("SMEMBERS", name), ("SISMEMBER", name, "nothing"), ("SRANDMEMBER", name, 3), ("SSCAN", name, 0)]
        case "zset":
            size = client.integer("ZCARD", name)
            commands = [("ZRANGE", name, 0, -1, "WITHSCORES"), ("ZREVRANGE", name, 0, -1), ("ZRANGEBYSCORE", name, "-inf", "+inf")]
            commands += [("ZSCORE", name, "nothing"), ("ZCOUNT", name, "(1", "5"), ("ZRANK", name, "nothing"), ("ZSCAN", name, 0)]
        case "hash":
            size = client.integer("HLEN", name)
            commands = [("HGETALL", name), ("HKEYS", name), ("HVALS", name), ("HGET", name, "nothing"), ("HSCAN", name, 0)]
        case "stream":
            size = client.integer("XLEN", name)
            commands = [("XRANGE", name, "-", "+"), ("XREVRANGE", name, "+", "-"), ("XREVRANGE", name, "+", "-", "COUNT", 1)]
            commands += [("XINFO", "STREAM", name), ("XINFO", "STREAM", name, "FULL", "COUNT", 0), ("XINFO", "GROUPS", name)]
            for group in [text(items(row)[1]).encode("latin-1") for row in client.items("XINFO", "GROUPS", name)]:
                commands += [
                    ("XINFO", "CONSUMERS", name, group),
                    ("XPENDING", name, group),
                    ("XPENDING", name, group, "-", "+", 1000),
                ]
    commands += [
        ("OBJECT", "ENCODING", name),
        ("MEMORY", "USAGE", name, "SAMPLES", 0),
        ("DUMP", name),
        ("DEBUG", "DIGEST-VALUE", name),
    ]
    replies = client.answers(commands)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, ServerError):
            raise ServerError(f"{command[0]!r}: {reply}")
    if kind == "hash":
        _field_expiries(client, name, replies[1])
    whole = replies[0]
    if isinstance(whole, list) and kind not in ("string",):
        told = len(whole) // (2 if kind in ("hash", "zset") else 1)
        # fields that have expired are counted for a while, and the length of a stream is what the file says
        if told != size and not (kind == "hash" and told < size) and kind != "stream":
            raise _Nonsense(f"a {kind} says that it has {size} elements and gives {told}")
        if kind in ("set", "zset", "hash"):
            firsts = whole if kind == "set" else whole[::2]
            if len({first for first in firsts if isinstance(first, bytes)}) != told:
                raise _Nonsense(f"a {kind} gives an element twice")
        if kind == "zset" and any(isinstance(score, bytes) and b"nan" in score for score in whole[1::2]):
            raise _Nonsense("a score that is not a number")
    if size == 0 and kind != "stream":
        raise _Nonsense(EMPTY)
    return size


def _field_expiries(client: Client, name: bytes, fields: Reply) -> None:
    found = [field for field in items(fields) if isinstance(field, bytes)]
    if found:
        reply = client.answers([("HPEXPIRETIME", name, "FIELDS", len(found), *found)])[0]
        if isinstance(reply, ServerError) and "unknown command" not in str(reply):
            raise reply


_REASONS: Final = (
    r"Internal error in RDB reading[^>]*-> (.*)",
    r"(\*\*\* .* detected \*\*\*)",
    r"# (Failed loading library[^\n]*|.*already exists[^\n]*)",
    r"(Can't handle RDB format version \S+)",
    r"(Wrong signature[^\n]*)",
    r"(Wrong RDB checksum)[^\n]*",
    r"=== ASSERTION FAILED.*?==> ([^\n]*)",
    r"Guru Meditation: (.*?) #",
    r"# (FATAL[^\n]*)",
    r"(?:Bad data format|Short read)[^\n]*",
    r"(Unexpected EOF reading RDB file)",
    r"(The RDB file contains[^\n]*)",
    r"(Can't load[^\n]*)",
    r"(crashed by signal: \d+)",
    r"(Out Of Memory allocating \d+ bytes)",
)


def _reason(log: str) -> str:
    """Why a file was refused, by the log."""
    for pattern in _REASONS:
        found = re.search(pattern, log, re.DOTALL if "ASSERTION" in pattern else 0)
        if found is not None:
            return (found[1] if found.lastindex else found[0]).strip()
    lines = [line for line in log.splitlines() if " # " in line and "WARNING" not in line and "Server initialized" not in line]
    return lines[0].split(" # ", 1)[1] if lines else ""
