"""Names of temporary keys: each lies in the slot of its key, is known as ours, and stands in the state before it is made."""

from __future__ import annotations

from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.live.copy_state import CopyState, Part
from rdbkit.live.parts import PartNames, slot_tag
from rdbkit.passes.restores import commands_in
from rdbkit.resp import command


def test_every_slot_has_a_short_tag() -> None:
    tags = [slot_tag(slot) for slot in range(SLOTS)]
    assert [key_slot(b"{%b}x" % tag) for tag in tags] == list(range(SLOTS))
    assert max(map(len, tags)) <= 3


def test_names_lie_in_the_slots_of_their_keys_and_are_in_the_state() -> None:
    keys = [b"key", b"{tag}key", b"{}key", b"", b"a{b}c{d}", bytes(range(256))]
    with CopyState(None, {}) as state:
        names = PartNames("0123abcdef", state)
        found = names.begin(3, keys)
        assert [key_slot(name) for name in found] == [key_slot(key) for key in keys]
        assert len(set(found + names.begin(3, keys))) == 2 * len(keys)
        assert Part(found[0], 3, b"key") in state.parts()
        names.end(found)
        assert not set(found) & {part.name for part in state.parts()}


def test_commands_are_counted_whatever_they_hold() -> None:
    several = [command(b"PING"), command(b"SET", b"", b"*1\r\n$4\r\nPING\r\n"), command(*[b"x"] * 300)]
    assert commands_in(b"".join(several)) == 3
    assert commands_in(b"") == 0
