"""An operation that was begun, or was about to be: what a process leaves to the next one, which then knows what to wait for."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rdbkit.azure.resources import ResourceId
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.state import StateFile
from rdbkit.storage.temporary import PRIVATE

__all__ = ["PendingOperation", "when"]

_FORMAT: Final = 1
_MOST_BYTES: Final = 1 << 63
#: Unix seconds that have a date of four digits.
_LAST_SECOND: Final = 250_000_000_000


@dataclass
class PendingOperation:
    """An operation that was begun, or was about to be; no secret is in it.

    Attributes:
        path: of the file.
        verb: "import" or "export".
        blobs: `url`, `etag` and `bytes` of each; of an export, the blobs that were there before.
        operation: the URL of its status, as the last answer had it; empty as long as the service has not answered.
        begun: when it was sent, in Unix seconds.
        place: the container of an export, without its signature.
        keep: called with what is to be noted, and with None where nothing is any more; None for a file of its own.
    """

    path: str
    verb: str
    resource_id: str
    blobs: list[dict[str, Any]]
    operation: str = field(default="", repr=False)
    begun: float = 0.0
    place: str = ""
    keep: Callable[[dict[str, Any] | None], object] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls, path: str, noted: Mapping[str, Any], keep: Callable[[dict[str, Any] | None], object] | None = None
    ) -> PendingOperation:
        """What `to_dict` has made of one. Raises: ValueError, TypeError or LookupError for something else."""
        left = cls(path, **noted)
        left._look_at_types()
        left.keep = keep
        return left

    @classmethod
    def read(cls, path: str) -> PendingOperation | None:
        """What the last run has left there; None for nothing.

        Raises: ValueError where the file is something else; OSError.
        """
        state = _state_file(path)
        found = state.load()
        if found is None:
            return None
        with state.reading():
            return cls.of(path, found)

    @classmethod
    def read_of(cls, path: str, verb: str, cache: ResourceId) -> PendingOperation | None:
        """What the last run of a verb on a cache has left there; None for nothing.

        Raises: ValueError where the file is of another cache or verb, or something else; OSError.
        """
        left = cls.read(path)
        if left is not None and (left.verb != verb or left.resource_id.lower() != str(cache).lower()):
            raise ValueError(f"{path} is of another cache or verb: name another state file")
        return left

    def check_is_of(self, places: Sequence[BlobUrl]) -> None:
        """Raise ValueError where an import is of other blobs."""
        if [blob["url"] for blob in self.blobs] != [place.url for place in places]:
            raise ValueError(
                f"an import of other blobs was begun on {when(self.begun)}: run that command again to wait for it, or "
                f"delete {self.path}"
            )

    @property
    def doubt(self) -> str:
        """What is to be known before the same is begun again, where it is not known whether this has begun."""
        return (
            f"an earlier run asked the service to begin, on {when(self.begun)}, and got no answer that says how it stands; whether "
            "that has begun is not known"
        )

    def _look_at_types(self) -> None:
        """Raise ValueError, TypeError or LookupError where something else stands in the file than `save` writes."""
        texts = [self.verb, self.resource_id, self.operation, self.place]
        texts += [text for blob in self.blobs for text in (blob["url"], blob["etag"])]
        sizes = [blob["bytes"] for blob in self.blobs]
        is_right = all(isinstance(text, str) for text in texts)
        is_right &= all(isinstance(number, int) and 0 <= number < _MOST_BYTES for number in sizes) and self.keep is None
        begun: Any = self.begun
        if not is_right or not isinstance(begun, int | float) or not 0 <= begun < _LAST_SECOND:
            raise ValueError

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without the file and how it is kept."""
        names = ("verb", "resource_id", "blobs", "operation", "begun", "place")
        return {name: getattr(self, name) for name in names}

    def check_alone(self) -> None:
        """Raise TargetError where another run has begun something since this one looked, by the file that both have."""
        other = None if self.keep is not None else PendingOperation.read(self.path)
        if other is not None and other.operation:
            raise TargetError(
                f"another run has begun an {other.verb} since this one looked, and this one begins none: run this again to wait "
                "for it",
                source=self.resource_id.rpartition("/")[2],
            )

    def save(self) -> None:
        """Write it, so that it is there whole or not at all, and for its owner alone."""
        if self.keep is not None:
            self.keep(self.to_dict())
        else:
            _state_file(self.path).save(self.to_dict())

    def forget(self) -> None:
        """Delete it: it has ended."""
        if self.keep is not None:
            self.keep(None)
        else:
            _state_file(self.path).remove()


def _state_file(path: str) -> StateFile:
    return StateFile(path, "rdbkit", _FORMAT, [PRIVATE])


def when(seconds: float) -> str:
    """A point in time, in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
