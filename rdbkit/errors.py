"""Every error that rdbkit raises, one class per reaction.

    RdbError
    ├── TruncatedError           the file ends too early: fetch it again
    ├── CorruptError             the bytes are no valid RDB (or no RDB at all)
    ├── ChecksumError            read to the end, but the CRC-64 differs
    ├── ChangedError             the file is another than when it was first read: run this again
    ├── UnsupportedVersionError  an RDB version that this release does not know
    ├── UnsupportedTypeError     a value type or opcode that this release does not know
    ├── LimitError               larger than `rdbkit.Limits` allows
    ├── LossError                a policy says that data must not be lost, and it would be
    └── TargetError              a remote service refused or failed

No other exception leaves the library because of what input bytes say; `OSError` from the operating system passes as it is.
"""

from __future__ import annotations

from typing import Any, Final


class RdbError(Exception):
    """Root of all errors of the library.

    Attributes: `message` (what is wrong), `source` (name of the file), `offset` (byte in the decompressed file), `db`,
    `key` (bytes), `reading` (what was being read) and `rule` (the name of the rule of the format that is broken, as
    `rdbkit.verify` tells it); each None where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        offset: int | None = None,
        db: int | None = None,
        key: bytes | None = None,
        reading: str | None = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.offset = offset
        self.db = db
        self.key = key
        self.reading = reading
        self.rule = rule

    def __str__(self) -> str:
        where = []
        if self.offset is not None:
            where.append(f"at byte {self.offset}")
        if self.key is not None:
            shown = repr(self.key[:80])[2:-1] + ("..." if len(self.key) > 80 else "")
            where.append(f"in db {self.db}, key '{shown}'" if self.db is not None else f"in key '{shown}'")
        elif self.db is not None:
            where.append(f"in db {self.db}")
        if self.reading is not None:
            where.append(f"reading {self.reading}")
        text = self.message
        if where:
            text += f" ({', '.join(where)})"
        return f"{self.source}: {text}" if self.source is not None else text


class TruncatedError(RdbError):
    """The input ends inside something that it announced."""


class CorruptError(RdbError):
    """The bytes break a rule of the format, or are no RDB at all."""


class ChecksumError(RdbError):
    """The CRC-64 at the end of the file is not that of its content."""


class ChangedError(RdbError):
    """A file that is read more than once was changed or replaced meanwhile."""


class UnsupportedVersionError(RdbError):
    """The header names an RDB version newer than any that this release reads."""


class UnsupportedTypeError(RdbError):
    """A value type or opcode that is unknown in this version of the format.

    Attributes: `what` it is, as far as that is known, and its number; `remedy`, what to do about it.
    """

    what: str = ""
    remedy: str = "a newer rdbkit may know it"


class LimitError(RdbError):
    """Something is larger than the `Limits` in force."""


class LossError(RdbError):
    """Data would be lost, and the policy in force forbids it.

    Attributes:
        report: of `rdbkit.convert`, the `Conversion` with all that would be lost; of `rdbkit.split`, what is behind which files, as
            `Split.behind`; otherwise None.
    """

    report: Any = None


class TargetError(RdbError):
    """A remote service refused or failed."""


#: What says nothing of a file's content: it cannot be read any more, or is another one now. No file is damaged because of these.
NOT_READ: Final = (ChangedError, TargetError)
