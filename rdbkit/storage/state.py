"""The file by which a run goes on where an earlier one has ended: a JSON object that is there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from rdbkit.storage.output import open_output

__all__ = ["StateFile"]

#: More than any run leaves; what is larger is something else, and is not read.
_MOST_BYTES: Final = 1 << 30
_FORMAT: Final = "format"


class StateFile:
    """A JSON object in a file, with the version of its form as `format`.

    Args:
        path: of the file. It is followed where it is a link; it does not end in `.gz`, for it is plain text.
        owner: whose state it is, for messages: "rdbkit migrate".
        version: of the form of what is in it; a file of another version is refused.
        sources: what it is made from, as for `rdbkit.storage.output.open_output`: who may not read them all may not read it.
        former: what `format` was called in files of earlier releases, where it had another name.
        older: forms of earlier releases that are read too; what they lack, whoever loads them knows.

    Raises: ValueError for a path that is none.
    """

    def __init__(
        self, path: str, owner: str, version: int, sources: Sequence[object], former: str = _FORMAT, older: Sequence[int] = ()
    ) -> None:
        if path == "-" or path.endswith(".gz"):
            raise ValueError(f"a state is kept in a file of plain text, which {path} does not name")
        self.path = path
        self.owner = owner
        self.version = version
        self.sources = sources
        self.former = former
        self.older = older

    def load(self) -> dict[str, Any] | None:
        """What was saved, without its `format`; None where there is no file.

        Raises: ValueError, of one line, where it is anything else than such a state; OSError where it cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                text = file.read(1)
                if text == b"{":  # or it would be read in vain, however large it is
                    text += file.read(_MOST_BYTES)
        except FileNotFoundError:
            return None
        with self.reading():
            if len(text) > _MOST_BYTES:
                raise ValueError("too large")
            found = json.loads(text.decode())
            version = found.pop(_FORMAT if _FORMAT in found else self.former)
            if type(version) is not int or version not in (self.version, *self.older):
                raise ValueError("another version")
            return dict(found)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever is wrong with what was loaded, when it is taken over, is that the file is no such state.

        Raises: ValueError, of one line.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise ValueError(f"{self.path} is no state of {self.owner}; name another state file, or delete it") from None

    def save(self, values: Mapping[str, Any]) -> None:
        """Write it, over what was there. Raises: OSError, with the name of the file."""
        text = json.dumps({_FORMAT: self.version, **values}, indent=1)
        with open_output(self.path, True, self.sources) as out:
            out.write(text.encode())

    def remove(self) -> None:
        """Remove it, where it is there: nothing is left to continue."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
