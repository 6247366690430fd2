"""Certificates that OpenSSL makes for a test, and what a server needs to use them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures.server import free_port


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it has signed.

    Attributes:
        authority: its own certificate, which clients and servers trust.
        server: for the name localhost and no other.
        other_name: for the name elsewhere.example, at which nobody is.
        address: for the address 127.0.0.1.
        client: for a client that has to show one.
        stranger: of a client, signed by an authority that nobody trusts.
    """

    authority: Certificate
    server: Certificate
    other_name: Certificate
    address: Certificate
    client: Certificate
    stranger: Certificate

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them in a folder."""
        authority = _authority(folder, "authority")
        return cls(
            authority,
            _signed(folder, "server", authority, "DNS:localhost"),
            _signed(folder, "other-name", authority, "DNS:elsewhere.example"),
            _signed(folder, "address", authority, "IP:127.0.0.1"),
            _signed(folder, "client", authority),
            _signed(folder, "stranger", _authority(folder, "other-authority")),
        )

    def listen(self, server: Certificate | None = None, mutual: bool = False, more: Sequence[str] = ()) -> tuple[int, list[str]]:
        """A port for TLS, and the lines of a server's configuration that make it listen there, besides its plain port.

        Args:
            server: the certificate that it shows; the one for localhost by default.
            mutual: whether clients have to show a certificate.
            more: further lines.
        """
        port = free_port()
        shown = server or self.server
        return port, [
            f"tls-port {port}",
            f"tls-cert-file {shown.cert}",
            f"tls-key-file {shown.key}",
            f"tls-ca-cert-file {self.authority.cert}",
            f"tls-auth-clients {'yes' if mutual else 'no'}",
            *more,
        ]


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _authority(folder: Path, name: str) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(made.cert))
    return made


def _signed(folder: Path, name: str, by: Certificate, names: str = "") -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    _openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(request))
    extensions.write_text(f"subjectAltName={names}\n" if names else "extendedKeyUsage=clientAuth\n")
    signing = ("-CA", str(by.cert), "-CAkey", str(by.key), "-CAcreateserial", "-days", "2", "-extfile", str(extensions))
    _openssl("x509", "-req", "-in", str(request), *signing, "-out", str(made.cert))
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
