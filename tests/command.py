"""The command line in this process, without the second that a process and its imports take.

What is of a process itself - signals, pipes, terminals, standard input - has one of its own: processes.py.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO
from unittest import mock

import pytest

from rdbkit.cli import main


def run(*arguments: str | Path, cwd: str | Path = ".", environment: Mapping[str, str] | None = None) -> CompletedProcess[bytes]:
    """What `rdbkit ARGUMENTS` says, and its exit code; standard input is empty.

    Args:
        cwd: the folder in which it runs.
        environment: all of it; the one of the tests by default.
    """
    given = dict(os.environ if environment is None else environment)
    args = [os.fspath(argument) for argument in arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, mock.patch.dict(os.environ, given, clear=True):
        with contextlib.chdir(cwd), _usual_collection(), _streams(out, err), pytest.raises(SystemExit) as ended:
            main(args)
        assert isinstance(ended.value.code, int)
        return CompletedProcess(args, ended.value.code, _read(out), _read(err))


@contextlib.contextmanager
def _usual_collection() -> Iterator[None]:
    """The command line sets how often cycles are looked for, of its process."""
    before = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _streams(out: IO[bytes], err: IO[bytes]) -> Iterator[None]:
    """The files as standard output and error, as a process has them: with a number, and buffered."""
    before = sys.stdin, sys.stdout, sys.stderr
    with (
        open(os.devnull, encoding="utf-8") as nothing,
        io.TextIOWrapper(os.fdopen(os.dup(out.fileno()), "wb"), encoding="utf-8") as stdout,
        io.TextIOWrapper(os.fdopen(os.dup(err.fileno()), "wb"), encoding="utf-8", errors="backslashreplace") as stderr,
    ):
        sys.stdin, sys.stdout, sys.stderr = nothing, stdout, stderr
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
