"""Errors of a file that is no snapshot, or of a version that is not known: rdbkit's, with what rdbtools has in `args`."""

from __future__ import annotations

from typing import Any

from rdbkit.errors import CorruptError, RdbError, UnsupportedVersionError


class InvalidFileError(CorruptError):
    """The file is no snapshot. `args` is `("verify_magic_string", "Invalid File Format")`, as many programs ask for."""

    # a property, so that the error still goes from one process to another, for which its class is called with its message
    @property
    def args(self) -> Any:  # type: ignore[override]
        return ("verify_magic_string", "Invalid File Format")


class InvalidVersionError(UnsupportedVersionError):
    """The RDB version is newer than any that rdbkit reads. `args` begins with "verify_version"."""

    @property
    def args(self) -> Any:  # type: ignore[override]
        return ("verify_version", self.message)


def as_rdbtools_raises(e: RdbError) -> RdbError:
    """An error about the first bytes of a file, with what rdbtools has in `args`."""
    kind = InvalidVersionError if isinstance(e, UnsupportedVersionError) else InvalidFileError
    return kind(e.message, source=e.source, offset=e.offset, reading=e.reading)
