"""How a command reaches servers: the options of a login, for one server, or for a source and a target.

Of two servers each option can be given for both or for one. What is said of one, by its own option, its URL or its variable, counts
before what is said of both.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from rdbkit.cli.clouds import chosen_cloud, cloud_option
from rdbkit.cli.files import EXISTING
from rdbkit.clouds import Cloud, cloud_of_host
from rdbkit.selection import parse_bytes, parse_duration
from rdbkit.storage.remote import is_server_url

if TYPE_CHECKING:
    from rdbkit.live.login import Credentials
    from rdbkit.live.server import Cluster, Server
    from rdbkit.live.server_url import ServerUrl

C = TypeVar("C", bound=Callable[..., Any])

__all__ = [
    "SERVER_URL",
    "Login",
    "byte_size",
    "cache_pair_options",
    "is_server_url",
    "latency",
    "password_file",
    "server_options",
    "server_pair_options",
]

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]  # which older versions of click do not know to be generic
else:
    _ParamType = click.ParamType


class _ServerUrlType(_ParamType):
    """The URL of a server, which is said to be malformed without being shown."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from rdbkit.live.server_url import parse_url

        try:
            parse_url(value)
        except ValueError as e:
            self.fail(str(e), param, ctx)
        return str(value)


#: The type of a parameter that takes the URL of a server.
SERVER_URL: Final = _ServerUrlType()


@dataclass(frozen=True)
class Login:
    """What the options say of the way to a server.

    Attributes:
        side: "source" or "target", "old" or "new"; None where there is one server.
        password: of its file; in no text.
        entra: whether the Entra ID identity that is at hand logs in.
        cloud: that was given.
        ca_cert: a file of certificate authorities.
        client_cert: a file with this client's certificate and its key.
        verify_tls: whether certificates are verified.
        cluster: what was said of it.
        shared: what was said of both servers, where that counts after what is said of this one.
    """

    side: str | None = None
    password: str | None = field(default=None, repr=False)
    entra: bool = False
    cloud: Cloud | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    verify_tls: bool = True
    cluster: Cluster | None = None
    shared: Login | None = None

    def connect(self, url: str, ways: str | None = None) -> Server:
        """A connection to the server.

        Args:
            ways: how a password can be given, where that is not by the options.

        Raises: click.UsageError for options that do not go with the URL or with each other; TargetError as `connect`.
        """
        from rdbkit.live.login import entra_credentials
        from rdbkit.live.server import connect
        from rdbkit.live.server_url import parse_url

        place = parse_url(url)
        if not place.tls and (self.ca_cert or self.client_cert or not self.verify_tls):
            names = (self._option(name) for name in ("ca-cert", "client-cert"))
            raise click.UsageError(f"{', '.join(names)} and {self._option('no-verify-tls')} are for rediss://")
        login = self._effective(place)
        if ways is None and self.side is not None:
            ways = f"--{self.side}-password-file or {_variable(self.side)}, or --{self.side}-entra"
        if not login.verify_tls and place.tls:
            click.echo(
                f"rdbkit: {place}: certificates are not verified: whoever is in between can read and change everything", err=True
            )
        credentials: Credentials | None = (
            entra_credentials(chosen_cloud(login.cloud, [cloud_of_host(place.host)])) if login.entra else None
        )
        return connect(
            url, password=login.password, credentials=credentials, ca_cert=login.ca_cert, client_cert=login.client_cert,
            verify_tls=login.verify_tls, cluster=login.cluster or "auto", **({} if ways is None else {"ways": ways}),
        )  # fmt: skip

    @property
    def is_given(self) -> bool:
        """Whether anything was said of this server alone, on the command line."""
        return self != Login(self.side, cloud=self.cloud, shared=self.shared)

    def _option(self, name: str) -> str:
        return f"--{self.side}-{name}" if self.side is not None else f"--{name}"

    def _effective(self, place: ServerUrl) -> Login:
        """The login after all that counts has been put together."""
        own = self._checked(place)
        shared = self.shared
        if shared is None:
            return own
        assert self.side is not None
        password, entra = own.password, own.entra
        if password is None and not entra and place.password is None:
            password = os.environ.get(_variable(self.side))
            if password is None:
                shared._checked(place)
                password, entra = shared.password, shared.entra
        return Login(
            self.side, password, entra, self.cloud, own.ca_cert or shared.ca_cert, own.client_cert or shared.client_cert,
            own.verify_tls and shared.verify_tls, own.cluster or shared.cluster,
        )  # fmt: skip

    def _checked(self, place: ServerUrl) -> Login:
        """This login. Raises: click.UsageError where it does not go with the URL, or contradicts itself."""
        option = self._option("entra")
        if self.entra and not place.tls:
            raise click.UsageError(f"{option} sends a token, which needs TLS: write rediss://")
        if self.entra and (self.password or place.password):
            raise click.UsageError(f"{option} and a password exclude each other")
        return self


def byte_size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """The callback of `--big`: bytes, 0 for none."""
    try:
        return 0 if value == "0" else parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def latency(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    """The callback of `--max-latency`: milliseconds, None for no limit."""
    try:
        return None if value == "0" else float(parse_duration(value))
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def server_options(command: C) -> C:
    """Give a click command the options of a login to one server; it takes them as `login: Login`."""

    @functools.wraps(command)
    def with_login(*args: Any, cloud: Cloud | None, **given: Any) -> Any:
        return command(*args, login=_login(None, given, cloud), **given)

    return cast(C, _with_options(with_login, (*_own_options(None), cloud_option())))


def server_pair_options(command: C) -> C:
    """Give a click command the options of logins to two servers; it takes them as `source_login` and `target_login`."""
    return _with_pair(command, ("source", "target"))


def cache_pair_options(command: C) -> C:
    """The same for two caches of an application; the command takes `old_login` and `new_login`."""
    return _with_pair(command, ("old", "new"))


def _with_pair(command: C, sides: tuple[str, str]) -> C:
    @functools.wraps(command)
    def with_logins(*args: Any, cloud: Cloud | None, **given: Any) -> Any:
        shared = _login(None, given, cloud)
        logins = {f"{side}_login": _login(side, given, cloud, shared) for side in sides}
        return command(*args, **logins, **given)

    options = [*_own_options(None, both=True), cloud_option("the cloud of each URL")]
    return cast(C, _with_options(with_logins, (*options, *(each for side in sides for each in _own_options(side)))))


def _variable(side: str) -> str:
    """The environment variable with the password of one of two servers; `connect` reads the one for all, RDBKIT_REDIS_PASSWORD."""
    return f"RDBKIT_{side.upper()}_PASSWORD"


_NAMES: Final = ("password", "entra", "ca_cert", "client_cert", "no_verify_tls", "cluster")


def _login(side: str | None, given: dict[str, Any], cloud: Cloud | None, shared: Login | None = None) -> Login:
    """The login of one side, whose options are taken out of `given`."""
    values = (given.pop(name if side is None else f"{side}_{name}") for name in _NAMES)
    password, entra, ca_cert, client_cert, no_verify_tls, cluster = values
    return Login(side, password, entra, cloud, ca_cert, client_cert, not no_verify_tls, cluster, shared)


def _with_options(command: Callable[..., Any], options: tuple[Callable[[Any], Any], ...]) -> Any:
    for decorate in reversed(options):
        command = decorate(command)
    return command


def _own_options(side: str | None, both: bool = False) -> tuple[Callable[[Any], Any], ...]:
    """The options of one side, or without a side those of the one server, or of both."""
    lead = "--" if side is None else f"--{side}-"
    name = "" if side is None else f"{side}_"
    if side is not None:
        of = f"for {side.upper()} only"
        helps = (
            f"The password {of}; without it, from the variable {_variable(side)}.", f"--entra {of}.", f"--ca-cert {of}.",
            f"--client-cert {of}.", f"--no-verify-tls {of}.", f"--cluster {of}.",
        )  # fmt: skip
    else:
        helps = (
            "Read the password from the first line of FILE; without it, from the URL or the variable RDBKIT_REDIS_PASSWORD.",
            "Log in with Entra ID, as the identity that is signed in here.",
            "Trust the certificate authorities in FILE (PEM) instead of the system's.",
            "Client certificate and its key in one PEM file, if the server wants one.",
            "Do not verify certificates: whoever is in between can read the password.",
            "Whether the server is a cluster; auto asks it.  [default: auto]",
        )
        if both:
            helps = (
                "Read the password of both servers from the first line of FILE; without it, from the variable "
                "RDBKIT_REDIS_PASSWORD. What one server's options or URL say counts first.",
                *helps[1:],
            )
    return (
        click.option(f"{lead}password-file", f"{name}password", callback=password_file, metavar="FILE", help=helps[0]),
        click.option(f"{lead}entra", is_flag=True, help=helps[1]),
        click.option(f"{lead}ca-cert", type=EXISTING, metavar="FILE", help=helps[2]),
        click.option(f"{lead}client-cert", type=EXISTING, metavar="FILE", help=helps[3]),
        click.option(f"{lead}no-verify-tls", is_flag=True, help=helps[4]),
        click.option(f"{lead}cluster", type=click.Choice(["auto", "yes", "no"]), help=helps[5]),
    )


def password_file(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of a password: the first line of the file, whose name is in no message, since it may be the password."""
    if value is None:
        return None
    try:
        with click.open_file(value, encoding="utf-8") as file:
            found = str(file.readline()).rstrip("\r\n")
    except UnicodeDecodeError:
        found = ""
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or "no name of a file"
        raise click.BadParameter(f"the file cannot be read: {reason}", ctx=ctx, param=param) from None
    if not found:
        raise click.BadParameter("there is no password in the first line of the file", ctx=ctx, param=param)
    return found
