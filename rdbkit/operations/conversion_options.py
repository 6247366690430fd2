"""The options of a conversion as one value: what `convert` is told besides its source, its target and where it writes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from rdbkit.policy.rules import Edits, Policies
from rdbkit.selection import Selection

__all__ = ["ConversionOptions"]


@dataclass(frozen=True)
class ConversionOptions:
    """What becomes of the keys of a snapshot besides what its target asks for.

    Args:
        policies, edits, selection, compress, jobs, on_error, relaxed, verify_checksum: as of `rdbkit.convert`.
        now_ms: what counts as expired, and what times to live begin at, in Unix milliseconds; None for the clock of each
            conversion. It counts for the selection, too, unless that was made with a time of its own.
    """

    policies: Policies = field(default_factory=Policies)
    edits: Edits = field(default_factory=Edits)
    selection: Selection | None = None
    compress: bool = False
    jobs: int = 1
    on_error: str = "stop"
    relaxed: bool = False
    verify_checksum: bool = True
    now_ms: int | None = None

    def at(self, now_ms: int) -> ConversionOptions:
        """The same at another time: two conversions at one time write the same bytes."""
        return replace(self, now_ms=now_ms, selection=None if self.selection is None else self.selection.at(now_ms))

    def arguments(self) -> dict[str, Any]:
        """As arguments of `rdbkit.convert`."""
        return {
            "policies": self.policies, "edits": self.edits, "selection": self.selection, "compress": self.compress,
            "jobs": self.jobs, "on_error": self.on_error, "relaxed": self.relaxed, "verify_checksum": self.verify_checksum,
            "now_ms": self.now_ms,
        }  # fmt: skip

    @property
    def changes_keys(self) -> bool:
        """Whether something may become of keys that a target takes as they are."""
        return bool(self.selection) or self.edits != Edits()

    @property
    def may_name(self) -> bool:
        """Whether a key may get a name, or come to a database, that it did not have."""
        return self.edits.moves_keys or self.edits.script is not None

    @property
    def keeps_expiries(self) -> bool:
        """Whether keys that have expired are taken along, and expire when they did."""
        edits = self.edits
        return not (edits.drop_expired or edits.shift_ttl_ms) and edits.set_ttl_ms is None and edits.script is None

    @property
    def passes_over_damage(self) -> bool:
        """Whether a file may be taken whose checksum or values are wrong."""
        return self.on_error == "skip" or not self.verify_checksum

    @property
    def terms(self) -> str:
        """All that decides what is written, but the time, as text: another run with the same terms writes the same.

        A script is known by its attribute `digest`, a str, as the command line has it of its file. One without it is known to
        nobody: each time that it is asked for, its terms are others.
        """
        script = self.edits.script
        named = "" if script is None else getattr(script, "digest", None) or secrets.token_hex(16)
        edits = replace(self.edits, script=None)
        rest = (self.compress, self.on_error, self.relaxed, self.verify_checksum)
        return f"{self.policies} {edits} {named} {self.selection or None} {rest}"
