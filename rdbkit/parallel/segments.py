"""What several processes make of a snapshot, for the one file that they write together."""

from __future__ import annotations

from typing import Final, NamedTuple

import anycrc

from rdbkit.passes.convert import Segment

__all__ = ["Segments", "set_apart"]

_CRC64: Final = anycrc.Model("CRC64-REDIS")


class Segments(NamedTuple):
    """Segments of a piece of the file.

    Of those that have keys, another process may write the data itself: then there is a checksum of each, and the data is empty.
    """

    segments: list[Segment]
    checksums: list[int]


def set_apart(segments: list[Segment], writes: bool) -> tuple[Segments, list[bytes]]:
    """What is told of segments, and the data that their own process writes, if it `writes`."""
    if not writes:
        return Segments(segments, []), []
    data = [segment.data for segment in segments if segment.keys]
    told = [segment._replace(data=b"") if segment.keys else segment for segment in segments]
    return Segments(told, [_CRC64.calc(each) for each in data]), data
