"""The rows of value types: what their columns may hold."""

from __future__ import annotations

from rdbkit.format import constants as c
from rdbkit.format.readers import READERS


def rows() -> list[c.ValueType]:
    """Every value type of every flavour."""
    versions = [("redis", c.NEWEST_REDIS), *(("valkey", version) for version in c.VALKEY_VERSIONS)]
    found = {t for flavour, version in versions for t in c.value_types(flavour, version).values()}
    return sorted(found, key=lambda t: (t.id, t.name))


def test_every_shape_is_explained_and_used() -> None:
    assert {t.shape for t in rows()} <= set(c.SHAPES)
    assert all(c.SHAPES.values())


def test_only_packed_values_name_a_packed_encoding() -> None:
    for t in rows():
        assert bool(t.packed) == (t.shape in ("packed", "packed-nodes", "nodes")), t.name
        assert not t.packed or t.packed in {reader.name for reader in READERS}, t.name


def test_elements_that_expire_have_one_call_more() -> None:
    expiring = {t.name: t.arity for t in rows() if t.expires}
    assert expiring
    assert all(arity in (2, 3) for arity in expiring.values()), expiring
