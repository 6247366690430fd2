"""The users and certificates that tests of live servers use are what they are said to be."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest

from fixtures.server import Client, ServerError, running

from ..live.acl import PASSWORD, POLICIES, add_users, url_of
from ..live.tls import Certificate, Certificates

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ("redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1")


@pytest.mark.parametrize("line", LINES)
def test_each_policy_of_azure_allows_what_it_does(line: str) -> None:
    with running(SERVERS / line / "redis-server") as (client, _):
        client.call("SET", "a", 1)
        value = client.call("DUMP", "a")
        assert isinstance(value, bytes)
        port = int(client.items("CONFIG", "GET", "port")[1])  # type: ignore[arg-type]
        add_users(client)
        refused = {}
        for user in POLICIES:
            login = Client(port)
            login.call("AUTH", user, PASSWORD)
            asked: list[tuple[str | bytes, ...]] = [
                ("DUMP", "a"), ("SCAN", "0"), ("RESTORE", "b", "0", value, "REPLACE"), ("SET", "c", "1"), ("INFO", "server"),
                ("MULTI",), ("SELECT", "0"), ("CONFIG", "GET", "port"),
            ]  # fmt: skip
            answers = login.answers(asked)
            refused[user] = {str(words[0]) for words, answer in zip(asked, answers, strict=True) if isinstance(answer, ServerError)}
            assert all(str(answer).startswith("NOPERM") for answer in answers if isinstance(answer, ServerError))
            login.close()
        assert refused["owner"] == set()
        assert refused["contributor"] == {"RESTORE", "INFO", "CONFIG"}
        assert {"RESTORE", "SET", "INFO", "MULTI", "CONFIG"} <= refused["reader"]
        assert not {"DUMP", "SCAN"} & refused["reader"]


def test_a_url_has_the_password_quoted() -> None:
    assert url_of("rediss://localhost:1", "reader") == "rediss://reader:p%40ss%2Fw%3Ard@localhost:1"


def shake_hands(port: int, certificates: Certificates, name: str, shown: Certificate | None = None) -> bytes:
    context = ssl.create_default_context(cafile=str(certificates.authority.cert))
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(b"PING\r\n")
        return connection.recv(100)


def test_certificates_are_for_whom_they_are_said_to_be(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    for shown, name, fits in (
        (certificates.server, "localhost", True),
        (certificates.server, "127.0.0.1", False),
        (certificates.other_name, "localhost", False),
        (certificates.address, "127.0.0.1", True),
    ):
        port, lines = certificates.listen(shown)
        with running(SERVERS / "redis-7.0" / "redis-server", conf=lines):
            if fits:
                assert shake_hands(port, certificates, name) == b"+PONG\r\n"
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    shake_hands(port, certificates, name)


@pytest.mark.parametrize("line", LINES)
def test_a_server_may_want_to_see_a_certificate(line: str, tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    port, lines = certificates.listen(mutual=True)
    with running(SERVERS / line / "redis-server", conf=lines):
        assert shake_hands(port, certificates, "localhost", certificates.client) == b"+PONG\r\n"
        for shown in (None, certificates.stranger):
            answer = b""
            with contextlib.suppress(OSError):  # the alert comes when one reads, or the connection is gone by then
                answer = shake_hands(port, certificates, "localhost", shown)
            assert answer == b""
