"""The keys of what a conversion would write, which is written nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, cast

from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import convert
from rdbkit.operations.duplicates import Met
from rdbkit.passes.names import Keys
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.pipe import Pipe
from rdbkit.targets.target import Target

__all__ = ["scan_converted_keys"]


def scan_converted_keys(
    file: str, target: Target, conversion: ConversionOptions, met: Met, *, write_callback: Callable[[bytes], object] | None = None
) -> None:
    """Call `met` with database, name, offset and expiry (-1 for none) of every key that a file has when it is converted.

    Args:
        file: its path.
        target, conversion: as of `convert`, which opens every value here, as before an import.
        write_callback: called with each piece of what would be written, in another thread.

    Raises: as `convert`.
    """
    pipe = Pipe(write_callback)

    thread = pipe.fill(
        lambda: convert(file, cast(BinaryIO, pipe), target=target, deep=True, progress=pipe.check, **conversion.arguments())
    )
    try:
        with open_snapshot(pipe, relaxed=conversion.relaxed, verify_checksum=False) as snapshot:
            for _ in snapshot.scan(Keys(snapshot.limits.item_bytes, met)):
                pass
    finally:
        pipe.break_off()
        thread.join()
