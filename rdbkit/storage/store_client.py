"""What all stores have in common: how long is waited for one, whom is trusted, and what its errors mean."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rdbkit.errors import ChangedError, RdbError, TargetError
from rdbkit.text import first_line

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_INSTALL: Final = "pip install 'rdbkit[remote]'"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_STATUS: Final = re.compile(r"status code: (\d+)")
#: What services say where an object is not the one that was asked for.
_CHANGED: Final = ("ConditionNotMet", "PreconditionFailed")
_UNKNOWN_HOST: Final = re.compile(r"dns error|failed to lookup address|Name or service not known|No such host", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)")
#: What is the matter with a certificate, by how the reason begins.
_REASONS: Final = {
    "Expired": "it has expired",
    "NotValidYet": "it is not valid yet; is the clock right",
    "NotValidForName": "it is of another host",
    "UnknownIssuer": "its issuer is not known; REQUESTS_CA_BUNDLE names a file of authorities to trust",
}
_TIMED_OUT: Final = re.compile(r"TimedOut|timed out|deadline has elapsed", re.IGNORECASE)
#: A request, with its answer, is given up after this and sent again.
_TIMEOUT: Final = "120s"
_CONNECT_TIMEOUT: Final = "10s"
#: Variables that name a file of certificates to trust; the packages of Azure obey them, too.
_AUTHORITIES: Final = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
#: Seconds after which no request is sent again, once an object is open and before.
_PATIENCE: Final = 600
_SECONDS: Final = 15


def check_package(url: str) -> None:
    """Raise TargetError where the package is missing."""
    try:
        import obstore.store  # noqa: F401 (it may fail)
    except ImportError:
        raise TargetError(f"to read it over the network takes a package: {_INSTALL}", source=url) from None


def check_key(key: str, url: str) -> None:
    """Raise TargetError for a name that the library does not take, or takes for another one, as it does with a slash in front."""
    if any(part in ("", ".", "..") for part in key.split("/")) or _CONTROL.search(key):
        raise TargetError(
            "an object whose name begins with a slash, or has an empty part (//), one of dots alone, or control characters, "
            "cannot be read",
            source=url,
        )


def retry_config(*, patient: bool) -> RetryConfig:
    """How often a request is sent again.

    Args:
        patient: wait up to ten minutes for a service that does not answer; otherwise some seconds, as a name may be wrong.
    """
    return {
        "max_retries": 60 if patient else 3,
        "retry_timeout": datetime.timedelta(seconds=_PATIENCE if patient else _SECONDS),
        "backoff": {
            "init_backoff": datetime.timedelta(milliseconds=500),
            "max_backoff": datetime.timedelta(seconds=5),
            "base": 2,
        },
    }


def client_options(*, allow_http: bool) -> ClientConfig:
    """How a connection is made, and whom it trusts."""
    options: ClientConfig = {"allow_http": allow_http, "timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT}
    for name in _AUTHORITIES:
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                options["root_certificate"] = file.read()
            break
    return options


def code_of(e: Exception) -> str:
    """The service's own code in an error of a store; empty where it has none."""
    found = _CODE.search(str(e))
    return found[1] if found else ""


def status_of(e: Exception) -> str:
    """The status of HTTP in an error of a store; empty where there was no answer."""
    found = _STATUS.search(str(e))
    return found[1] if found else ""


def translated(e: Exception, url: str, meanings: Mapping[str, str], default: Mapping[str, str]) -> RdbError:
    """An error of a store, in words.

    Args:
        url: of the object, without a secret.
        meanings: what the service's codes mean.
        default: what a status of HTTP means, where the code is not known.
    """
    code, status = code_of(e), status_of(e)
    if code or status:
        known = meanings.get(code) or default.get(status)
        shown = " ".join(part for part in (status, code) if part)
        is_changed = code in _CHANGED or (status == "412" and not code)
        kind = ChangedError if is_changed else TargetError
        return kind(f"{known} ({shown})" if known else f"the service refuses it ({shown})", source=url)
    return TargetError(_unreached(str(e), url), source=url)


def _unreached(said: str, url: str) -> str:
    """Why there is no answer."""
    if _UNKNOWN_HOST.search(said):
        host = urlsplit(url).hostname
        return f"the host {host} cannot be found; check the account's name, and whether this machine finds others"
    found = _CERTIFICATE.search(said)
    if found:
        why = next((text for name, text in _REASONS.items() if found[1].startswith(name)), found[1])
        return f"the certificate of the service is not accepted: {why}"
    if _TIMED_OUT.search(said):
        return "the service cannot be reached: it took too long"
    if "onnection refused" in said:
        return "the service cannot be reached: connection refused"
    if "External Azure credential provider: " in said:
        return f"there is no token for it: {first_line(Exception(said.partition('provider: ')[2]))}"
    if "Interrupted" in said or "UnexpectedEof" in said:
        return "the service cannot be reached: the connection broke"
    return f"the service cannot be reached: {first_line(Exception(said))}"
