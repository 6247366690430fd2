"""The command line, used on caches of the tests' own cloud."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .. import command_line
from ..arm import Cache, Cloud
from ..azurite import KEY
from ..processes import GUARD, heeding_signals


class Shell:
    """Runs the command line in a folder, and looks for secrets in all that it says and leaves."""

    def __init__(self, azure: Cloud, folder: Path) -> None:
        self.azure = azure
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "IDENTITY"))}
        self.environment = kept | azure.environment

    def run(self, *args: str) -> tuple[int, str, str]:
        """Exit code, and what is said on standard output and error; in this process, where nobody waits."""
        done = command_line.run(*args, "--arm-endpoint", self.azure.endpoint, cwd=self.folder, environment=self.environment)
        return self._shown(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """The same as a process."""
        return subprocess.Popen(
            heeding_signals([sys.executable, "-m", "rdbkit", *args, "--arm-endpoint", self.azure.endpoint]),
            env=self.environment, cwd=self.folder, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Wait for a process that was started."""
        out, err = process.communicate(timeout=GUARD)
        assert "Traceback" not in err, err
        return self._shown(process.returncode, out, err)

    def _shown(self, code: int, out: str, err: str) -> tuple[int, str, str]:
        left = [path.read_text() for path in self.folder.glob("rdbkit-*.json")]
        for text in (out, err):
            assert "MIIsigned" not in text, text
        for text in (out, err, *left):
            assert not re.search(r"sig=(?!\*\*\*)|Bearer|secret-of-the-identity|\.c2ln|" + re.escape(KEY[:20]), text), text
        return code, out, err

    def imports(self, cache: Cache, *args: str, target: str = "") -> tuple[int, str, str]:
        """With the cache's name as `--yes`."""
        return self.run(*self.command(cache, *args, target=target), "--yes", cache.path.rpartition("/")[2])

    def command(self, cache: Cache, *args: str, target: str = "") -> list[str]:
        kind = target or ("azure-premium" if "/redis/" in cache.path else "azure-managed")
        return ["import", "--target", kind, "--resource-id", cache.path, *args]

    def exports(self, cache: Cache, *args: str) -> tuple[int, str, str]:
        kind = "azure-premium" if "/redis/" in cache.path else "azure-managed"
        return self.run("export-cache", "--target", kind, "--resource-id", cache.path, *args)

    @property
    def states(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))


def posts(azure: Cloud) -> list[str]:
    """The requests that begin operations."""
    return [path for method, path in azure.calls if method == "POST" and path.startswith("/subscriptions/")]
