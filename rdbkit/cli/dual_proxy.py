"""`rdbkit dual-proxy`."""

from __future__ import annotations

import ipaddress
import ssl
import sys
from typing import Any, Final

import click

from rdbkit.cli.files import EXISTING, OutputPath
from rdbkit.cli.render import printable, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, cache_pair_options, password_file
from rdbkit.cli.verification_options import duration_option

_MOST_PROCESSES: Final = 256


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:6379", ctx=ctx, param=param)
    return host.removeprefix("[").removesuffix("]"), int(port)


@click.command("dual-proxy", cls=SecretsCommand)
@click.argument("old", type=SERVER_URL)
@click.argument("new", type=SERVER_URL)
@click.option(
    "--listen", default="127.0.0.1:6379", show_default=True, callback=_address, metavar="HOST:PORT",
    help="Where clients connect to. Other hosts than this one can connect only if HOST is an address that they reach.",
)  # fmt: skip
@click.option("--tls-cert", type=EXISTING, metavar="FILE", help="Clients connect with TLS: the proxy's certificate (PEM).")
@click.option("--tls-key", type=EXISTING, metavar="FILE", help="The key of --tls-cert, if it is in a file of its own.")
@click.option(
    "--log-in", is_flag=True,
    help="Log in to both servers with the passwords or tokens given here. Without it, clients' own AUTH is passed on to both.",
)  # fmt: skip
@click.option(
    "--client-password-file", "client_password", callback=password_file, metavar="FILE",
    help="With --log-in: clients must log in with the password in the first line of FILE.",
)  # fmt: skip
@click.option(
    "--begin", type=click.Choice(["old", "shadow", "new"]), default="shadow", show_default=True,
    help="The state to begin with: old: use OLD alone; shadow: bring what is written to NEW, too; new: the other way round.",
)  # fmt: skip
@click.option(
    "--state", type=OutputPath(gzip=False), metavar="FILE",
    help="Keep the state in FILE, so that a proxy that is started again goes on with it instead of --begin.",
)  # fmt: skip
@click.option(
    "--control", type=OutputPath(gzip=False), metavar="SOCKET", help="Listen on SOCKET for rdbkit dual-switch --control SOCKET."
)
@click.option("--metrics", callback=_address, metavar="HOST:PORT", help="Serve metrics for Prometheus at http://HOST:PORT/metrics.")
@click.option(
    "--processes", type=click.IntRange(1, _MOST_PROCESSES), default=1, show_default=True, metavar="N",
    help="Share the connections between N processes; one serves about 20,000 requests a second that come one by one.",
)  # fmt: skip
@duration_option("--pause-limit", "2s", "Undo a switch that would keep clients waiting for longer.")
@click.option(
    "--most-marks", type=click.IntRange(min=1), default=1_000_000, show_default=True, metavar="N",
    help="Remember up to N keys that the other server has not got yet; beyond that, rdbkit sync is needed.",
)  # fmt: skip
@click.option("--hide-keys", is_flag=True, help="Show no names of keys in what the control socket tells.")
@cache_pair_options
def dual_proxy(
    old: str,
    new: str,
    old_login: Login,
    new_login: Login,
    listen: tuple[str, int],
    tls_cert: str | None,
    tls_key: str | None,
    log_in: bool,
    client_password: str | None,
    begin: str,
    state: str | None,
    control: str | None,
    metrics: tuple[str, int] | None,
    processes: int,
    most_marks: int,
    hide_keys: bool,
    **times: int,
) -> int:
    """Move an application in any language: a proxy for its connections, which brings what it writes to both servers.

    OLD and NEW are redis://USER@HOST:PORT, or rediss:// for TLS; neither can be a cluster. Let the application connect to the
    proxy. What it writes to OLD is brought to NEW; rdbkit copy brings what was there before.

    Then rdbkit dual-switch new --control SOCKET lets all connections go on at NEW at one moment. Clients wait, for --pause-limit at
    most; if anything fails, all go on at OLD. From then on what is written to NEW is brought to OLD, so that dual-switch shadow
    can go back.

    It runs until SIGTERM or Ctrl-C. Exit code 0 if all that was written is on both servers then, 4 if a server fails.
    """
    if client_password is not None and not log_in:
        raise click.UsageError("--client-password-file goes with --log-in")
    if log_in and client_password is None and not _is_loopback(listen[0]):
        raise click.UsageError("whoever can connect could read and write everything: --log-in needs --client-password-file here")
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key goes with --tls-cert")
    if sys.platform == "win32" and (processes > 1 or control is not None):
        raise click.UsageError("--processes and --control need a system with fork and sockets in files, as Linux or macOS")
    from rdbkit.dual.service import Settings, serve
    from rdbkit.dual.states import State

    settings = Settings(
        lambda: old_login.connect(old), lambda: new_login.connect(new), *listen, state=State(begin), state_file=state,
        processes=processes, control=control, metrics=metrics, tls=_tls(tls_cert, tls_key), log_in=log_in,
        client_password=client_password, pause_limit_s=times["pause_limit"] / 1000, most_marks=most_marks, hide_keys=hide_keys,
    )  # fmt: skip
    with usage_errors():
        serve(settings, lambda address: click.echo(f"rdbkit: clients can connect to {printable(address)}", err=True))
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What clients are welcomed with. Raises: click.UsageError where that cannot be read."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password="")  # without it OpenSSL asks for one at the terminal
    except (ssl.SSLError, OSError) as e:
        reason: Any = getattr(e, "reason", None) or e
        raise click.UsageError(f"no certificate with its key, without a password, can be read: {reason}") from None
    return context
