"""The headings under which the help of a verb lists its options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click

__all__ = ["SELECTS", "grouped"]

#: The parameters of a verb that belong to its selection begin so, lest they meet the verb's own.
SELECTS: Final = "select_"
_OWN: Final = "Options"
_SELECTION: Final = "Which keys (options combine with and, a repeated option with or)"
#: By heading, the parameters that stand under it, whatever the verb. All others are the verb's own.
_HEADINGS: Final = {
    "Access to Azure": (
        "auth", "sas_hours", "storage_subscription", "no_storage_check", "connection_string", "sas", "allow_http", "cloud",
        "arm_endpoint",
    ),
    "Logins": tuple(
        f"{side}{name}"
        for side in ("", "source_", "target_")
        for name in ("password", "entra", "ca_cert", "client_cert", "no_verify_tls", "cluster", "cloud")
    ),
    "Upload": ("overwrite", "block_size", "concurrency", "cap_mbps", "split_size", "page_blob"),
    "FILE and OUT that are URLs": ("endpoint", "region", "anonymous", "storage_option", "allow_http"),
    "Data that the target does not support": (
        "on_loss", "on_field_ttl", "on_function", "on_lua_script", "on_module", "on_stream_extras", "on_pending_unowned",
        "on_array", "on_key_metadata", "on_oversize", "strict", "ledger",
    ),
    "Changes to keys": (
        "map_db", "collapse_dbs", "on_duplicate", "on_conflict", "drop_expired", "set_ttl", "shift_ttl", "rename_prefix", "script",
    ),
    "Reading and converting": (
        "compress", "on_error", "jobs", "relaxed", "no_checksum", "max_memory", "server", "download", "allow_base",
    ),
}  # fmt: skip
#: Fewer than this stay with the verb's own.
_LEAST: Final = 3


def grouped(params: Iterable[click.Parameter]) -> list[tuple[str, list[click.Option]]]:
    """Parameters by heading: first the verb's own, with those in front that have to be given, and last the selection."""
    found = [param for param in params if isinstance(param, click.Option)]
    groups: dict[str, list[click.Option]] = {}
    for heading, names in _HEADINGS.items():
        under = [param for param in found if param.name in names and all(param not in group for group in groups.values())]
        if len(under) >= _LEAST:
            groups[heading] = under
    groups[_SELECTION] = [param for param in found if (param.name or "").startswith(SELECTS)]
    elsewhere = [param for group in groups.values() for param in group]
    own = sorted((param for param in found if param not in elsewhere), key=lambda param: not param.required)
    return [(heading, group) for heading, group in ((_OWN, own), *groups.items()) if group]
