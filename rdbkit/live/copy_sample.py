"""What a copy would meet, by some of its keys: which the target has already, and what they would lose. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Address, Lost, Refused
from rdbkit.live.restoring import Refused as RefusedKey
from rdbkit.live.restoring import Restoring
from rdbkit.live.transfer import Transfer, Way
from rdbkit.passes.pages import page_of
from rdbkit.passes.restores import Sent
from rdbkit.policy.ledger import Ledger
from rdbkit.resp import command

__all__ = ["Sample", "sample"]

#: Keys of each database of each node, about.
_KEYS: Final = 1000


@dataclass
class Sample:
    """What was found of some keys.

    Attributes:
        keys: how many were read.
        existing: how many of them the target has already, with whatever value.
        names: the first of these, with their databases on the target.
        lost: how many would lose what no policy allows.
    """

    keys: int = 0
    existing: int = 0
    names: list[tuple[int, bytes]] = field(default_factory=list)
    lost: int = 0


class _Nowhere(Restoring):
    """Takes commands, and looks whether the target has their keys."""

    def __init__(self, way: Way, found: Sample, most: int) -> None:
        super().__init__(way.target)
        self._found = found
        self._most = most

    def flush(self) -> None:
        for node in self._nodes.values():
            if not len(node.box.out):
                continue
            sent = Sent(*node.box.take())
            keys = [sent.command(number)[0] for number in range(sent.count)]
            replies = self.server.ask(node.db, [(key, [command(b"EXISTS", key)]) for key in keys])
            there = [key for key, (reply,) in zip(keys, replies, strict=True) if reply == 1]
            self._found.existing += len(there)
            self._found.names += [(node.db, key) for key in there[: self._most - len(self._found.names)]]

    def collect(self) -> list[RefusedKey]:
        return []


def sample(way: Way, databases: list[int], big: int, ledger: Ledger, most: int) -> Sample:
    """Read some keys of each database of each node of a source, and see what would become of them; none for a login without DUMP.

    Args:
        big: larger values are not read; 0 for whatever their size.
        ledger: takes what they would lose.
        most: names of keys to keep.

    Raises: TargetError where a server cannot be reached, or the keys not be listed.
    """
    found = Sample()
    for address in [] if way.without_dump else way.source.masters():
        try:
            _read(way, address, databases, big, ledger, found, most)
        except (Lost, Refused) as e:
            raise TargetError(f"its keys cannot be read: {e}", source=str(way.source.url)) from None
    return found


def _read(way: Way, address: Address, databases: list[int], big: int, ledger: Ledger, found: Sample, most: int) -> None:
    connection = way.source.dial(address)
    transfer = Transfer(way, connection, ledger, restoring=_Nowhere(way, found, most))
    try:
        for db in databases:
            connection.select(db)
            reply = connection.ask(command(b"SCAN", b"0", b"COUNT", b"%d" % _KEYS))[0]
            if isinstance(reply, Refusal):
                raise TargetError(f"its keys cannot be listed: {reply}", source=str(way.source.url), db=db)
            names = reply[1]
            if big:
                names = transfer.sized(db, page_of(names), big)[0].keys()
            transfer.move(db, names)
    finally:
        found.keys += transfer.counts.read
        found.lost += transfer.counts.lost
        transfer.close()
