"""How far one file of a migration has come: what a run notes of it, so that the next one knows what is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rdbkit.format.slots import SLOTS
from rdbkit.operations.convert import Conversion
from rdbkit.text import valid_text

__all__ = ["FileProgress"]

#: How many damaged keys are named.
_MOST_DAMAGE: Final = 20


@dataclass
class FileProgress:
    """How far one file has come.

    Attributes:
        file, size, version: by which it is known that it has not changed: its path or URL, bytes, and time of change or ETag.
        header: its version, and that of what is sent.
        verdict: of `rdbkit.check`, "lossy" where that is "cannot" and damage is passed over; empty where that was left out.
        keys, written: that it has, and that are sent.
        losses: what is lost on the way, counted by kind, as policies allow; keys that are left out since they are damaged are
            "damaged", and `damage` says of the first what is wrong with them.
        checksum: what is wrong with that of the file, where damage is passed over.
        identical: what is sent is the file as it is.
        digest: MD5 of what a script made of it when it was rehearsed, in hexadecimal; empty where there is no script.
        blobs: what it is sent as: `name` in the container and, of a part, the `part` on this disk; and behind its upload `url`,
            `etag`, `bytes`, `md5`, `sent_bytes` and `seconds`.
        now_ms: what counts as the present for all that becomes of it, in Unix milliseconds, so that each run makes the same bytes.
        terms: cache, container and options. What else is noted is valid for these only.
        earlier: etags, by URL, of blobs that this file was sent as when it, or the terms, were others: they may be replaced.
        slots: the hash slots that its keys are in, each a bit, as a hexadecimal number; empty where that was not looked at.
        expired: keys of it that had expired when it was rehearsed.
    """

    file: str
    size: int
    version: int | str
    header: str = ""
    sent_header: str = ""
    verdict: str = ""
    keys: int = 0
    written: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    checksum: str = ""
    identical: bool = False
    digest: str = ""
    now_ms: int = 0
    blobs: list[dict[str, Any]] = field(default_factory=list)
    terms: str = ""
    earlier: dict[str, str] = field(default_factory=dict)
    slots: str = ""
    expired: int = 0

    def check_types(self) -> None:
        """Raise ValueError where a file had something else than what is noted."""
        numbers = [self.size, self.now_ms, self.keys, self.written, self.expired, *self.losses.values()]
        texts = [
            self.file,
            self.header,
            self.sent_header,
            self.verdict,
            self.terms,
            self.digest,
            self.checksum,
            *self.damage,
            *self.losses,
            *self.earlier,
            *self.earlier.values(),
        ]
        for blob in self.blobs:
            texts += [blob["name"], *(blob[name] for name in ("part", "url", "etag") if name in blob)]
            numbers += [blob.get("bytes", 0)]
        is_right = type(self.version) in (int, str)
        if not is_right or not all(type(n) is int for n in numbers) or not all(isinstance(text, str) for text in texts):
            raise ValueError
        if self.occupied >> SLOTS:
            raise ValueError

    @property
    def occupied(self) -> int:
        """`slots` as a number."""
        return int(self.slots or "0", 16)

    def take(self, done: Conversion) -> None:
        """Note what a conversion has made of it."""
        self.header, self.sent_header = str(done.source), str(done.header)
        self.keys, self.written, self.losses = done.keys, done.written, dict(done.ledger.counts)
        if done.skipped:
            self.losses["damaged"] = len(done.skipped)
        self.damage = [valid_text(str(error)) for error in done.skipped[:_MOST_DAMAGE]]
        self.checksum = "" if done.checksum is None else valid_text(str(done.checksum))

    @property
    def is_sent(self) -> bool:
        """Whether all of it has been uploaded."""
        return bool(self.blobs) and all("etag" in blob for blob in self.blobs)
