"""DUMP and RESTORE of real servers, and the payloads that `rdbkit.format.payload` reads and writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.server import running
from rdbkit.format.payload import decode_payload, encode_payload

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@pytest.mark.parametrize(("line", "version"), [("redis-6.0", 9), ("redis-7.0", 10), ("redis-8.0", 12), ("valkey-8.1", 11)])
def test_a_payload_is_what_dump_answers_and_restore_takes(line: str, version: int) -> None:
    with running(next((SERVERS / line).glob("*-server"))) as (client, _):
        client.call("SET", "string", "a" * 100)
        client.call("RPUSH", "list", "a", "1", "-70000")
        client.call("HSET", "hash", "field", "value")
        client.call("XADD", "stream", "1-1", "field", "value")
        for key in ("string", "list", "hash", "stream"):
            answer = client.call("DUMP", key)
            assert isinstance(answer, bytes)
            payload = decode_payload(answer)
            assert payload.version == version
            assert encode_payload(payload) == answer
            client.call("RESTORE", f"{key} again", "0", encode_payload(payload))
            assert client.call("DUMP", f"{key} again") == answer
