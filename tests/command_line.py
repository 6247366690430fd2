"""The command line in this process, without the time that a process and its imports take.

What is of a process itself - signals, closed streams, terminals, threads that are left - has one of its own: processes.py.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO
from unittest import mock

import pytest

from rdbkit.cli import main


def run(
    *arguments: str | Path, data: bytes = b"", cwd: str | Path | None = None, environment: Mapping[str, str] | None = None
) -> CompletedProcess[bytes]:
    """What `rdbkit ARGUMENTS` says, and its exit code.

    Args:
        data: what comes from standard input.
        cwd: the folder in which it runs; the one of the tests by default.
        environment: all of it; the one of the tests by default.
    """
    given = dict(os.environ if environment is None else environment)
    args = [os.fspath(argument) for argument in arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with _process(given, cwd or "."), _streams(data, out, err), pytest.raises(SystemExit) as ended:
            main(args)
        assert isinstance(ended.value.code, int)
        return CompletedProcess(args, ended.value.code, _read(out), _read(err))


def run_text(
    *arguments: str | Path, data: bytes = b"", cwd: str | Path | None = None, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """The same with output as text."""
    done = run(*arguments, data=data, cwd=cwd, environment=environment)
    return CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def _process(environment: dict[str, str], cwd: str | Path) -> Iterator[None]:
    """What belongs to a process, of which the command line sets how often cycles are looked for."""
    before = gc.get_threshold()
    try:
        with mock.patch.dict(os.environ, environment, clear=True), contextlib.chdir(cwd):
            yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _streams(data: bytes, out: IO[bytes], err: IO[bytes]) -> Iterator[None]:
    """A pipe as standard input, and the files as output and error, as a process has them: with a number, and buffered."""
    before = sys.stdin, sys.stdout, sys.stderr
    with (
        _pipe_with(data) as stdin,
        io.TextIOWrapper(os.fdopen(os.dup(out.fileno()), "wb"), encoding="utf-8") as stdout,
        io.TextIOWrapper(os.fdopen(os.dup(err.fileno()), "wb"), encoding="utf-8", errors="backslashreplace") as stderr,
    ):
        sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _pipe_with(data: bytes) -> Iterator[io.TextIOWrapper]:
    reader, writer = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with os.fdopen(reader, encoding="utf-8") as file:
            yield file
    finally:
        thread.join()


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
