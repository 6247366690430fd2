"""What a service's refusals mean, and what to do about them; secrets are taken out of everything that is passed on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from rdbkit.clouds import Cloud
from rdbkit.errors import TargetError
from rdbkit.storage.blob_errors import MEANINGS
from rdbkit.storage.identity import missing_package as missing_package
from rdbkit.storage.identity import without_identity
from rdbkit.text import first_line, scrub

_NO_REASON: Final = (
    "the service gives no reason; known ones: it cannot reach the storage account (a firewall, no public network access), a "
    "file that it does not read (rdbkit check), a key beyond 2 GB, too little memory"
)
#: The same of the resource manager.
_OF_ARM: Final = {
    "ResourceNotFound": "there is no such cache; check subscription, group, kind and name in the resource id (az resource list)",
    "ResourceGroupNotFound": "there is no such resource group; check the resource id",
    "SubscriptionNotFound": "there is no such subscription, or the identity is of another tenant (az account show)",
    "InvalidSubscriptionId": "the subscription in the resource id is none",
    "InvalidAuthenticationToken": "the identity is not accepted; sign in again (az login), in the tenant of the subscription",
    "InvalidAuthenticationTokenTenant": "the identity is of another tenant than the subscription (az login --tenant)",
    "ExpiredAuthenticationToken": "the sign-in has expired (az login)",
    "AuthorizationFailed": (
        "the identity may not do this; it takes the role Contributor on the cache, or one with Microsoft.Cache/redis/read, "
        "import/action and export/action (of redisEnterprise and its databases for Azure Managed Redis)"
    ),
    "TooManyRequests": "the service has had too many requests; run this again in some minutes",
    "OperationFailed": _NO_REASON,
    "Conflict": (
        "another operation or maintenance is going on, or the service cannot read a file; look at the cache, then run this again"
    ),
}
#: By words of the message, where one code stands for several things. Sources: Azure docs, redis/how-to-import-export-data,
#: 2026-04-24; Azure/azure-cli#30408; techcommunity.microsoft.com, azurepaasblog 3601792.
_WORDS: Final = (
    (
        re.compile(r"SAS token end time|start time \(st\)"),
        "the service does not accept the times of the SAS; give the URL without one, and it gets one that ends in 4 hours",
    ),
    (
        re.compile(r"busy processing|undergoing system maintenance"),
        "the cache is busy with another operation or with maintenance; run this again in some minutes",
    ),
    (re.compile(r"does not have authorization to perform action"), _OF_ARM["AuthorizationFailed"]),
    (
        re.compile(r"not authorized to perform this operation"),
        "the storage account refuses the cache: let public networks reach it, or, of Premium, let it read with a managed identity",
    ),
    (re.compile(r"(?i:\bout ?of ?memory)|\bOOM\b"), "the data does not fit; take a larger size (rdbkit plan)"),
    (re.compile(r"RDB format version"), "the engine does not read this version; rdbkit convert writes an older one"),
)


#: Of answers of the resource manager that have no code which is known.
_OF_STATUS: Final = {
    401: _OF_ARM["InvalidAuthenticationToken"],
    408: "the service took too long; run this again in some minutes",
    429: _OF_ARM["TooManyRequests"],
}
_FAULT: Final = "the service has a fault of its own; run this again in some minutes"
#: By which support finds a request; behind the message, or instead of one.
_REQUEST_ID: Final = re.compile(r"[\s:]*\bRequest ?ID\s*[=:]\s*([0-9a-z-]{1,64})\b", re.IGNORECASE)
#: Headers of every answer of the resource manager, which have it, too.
REQUEST_IDS: Final = ("x-ms-request-id", "x-ms-correlation-request-id")
#: Of a message that is looked at.
_MOST: Final = 2000
_ID: Final = re.compile(r"[0-9a-z-]{1,64}", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why an operation failed, as the service says it.

    Attributes:
        code, message: without secrets, and without the id of the request.
        request_id: by which the service's support finds it; empty where nothing has one.
    """

    code: str
    message: str
    request_id: str


def failure_in(body: Any, headers: Any) -> Failure:
    """What an answer says of a failure, in whichever of its forms.

    Args:
        body: as JSON; what is no object says nothing.
        headers: of the answer.

    >>> failure_in({"error": {"code": "Conflict", "message": ": \\r\\nRequestID=1f-2"}}, {})
    Failure(code='Conflict', message='', request_id='1f-2')
    """
    error = body
    while isinstance(error, dict) and error.get("error"):  # some have it twice
        error = error["error"]
    if not isinstance(error, dict):
        error = {} if error is None or isinstance(error, list) else {"message": error}
    details = error.get("details")
    inner = details[0] if isinstance(details, list) and details and isinstance(details[0], dict) else {}
    code, text = str(error.get("code") or inner.get("code") or ""), str(error.get("message") or inner.get("message") or "")[:_MOST]
    found = _REQUEST_ID.search(text)
    given = next((headers[name] for name in REQUEST_IDS if headers.get(name)), "")
    request_id = found[1] if found else given if _ID.fullmatch(given) else ""
    message = scrub(_REQUEST_ID.sub("", text)).strip(" :\r\n")
    return Failure(" ".join(scrub(code).split())[:100], message, request_id)


def meaning(code: str, message: str) -> str | None:
    """What an error of the resource manager means and what helps; None for one that is not known."""
    return next((text for words, text in _WORDS if words.search(message)), None) or _OF_ARM.get(code)


def meaning_of_failure(code: str, message: str) -> str | None:
    """The same of an operation that had begun, where a conflict without a word is none with another operation."""
    is_silent = not message and (code == "Conflict" or code not in _OF_ARM)
    return _NO_REASON if is_silent else meaning(code, message)


@contextmanager
def translating_errors(where: str, cloud: Cloud | None = None) -> Iterator[None]:
    """Errors of the SDK, in words.

    Args:
        where: what the request was about, without secrets.
        cloud: in which it is, where that is known.

    Raises: TargetError.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError

    try:
        yield
    except HttpResponseError as e:
        if isinstance(e, ClientAuthenticationError) and e.response is None:  # no credential could be had at all
            raise TargetError(_without_credential(e, where, cloud), source=where) from None
        if e.response is None:  # it came in part
            raise TargetError(f"the connection broke: {_reason(e)}; run this again to go on", source=where) from None
        raise TargetError(_of_response(e), source=where) from None
    except ServiceRequestError as e:
        raise TargetError(_unreached(e, where), source=where) from None
    except AzureError as e:
        raise TargetError(f"the connection broke: {_reason(e)}; run this again to go on", source=where) from None


def _without_credential(e: Any, where: str, cloud: Cloud | None) -> str:
    if type(e).__name__ == "AzureSigningError":  # the SDK does not tell it to others
        return "the account key cannot sign: it is no base64"
    return without_identity(e, cloud, is_storage=where.startswith("http"))


def _unreached(e: Any, where: str) -> str:
    """Why there is no connection."""
    import ssl

    for each in _chain(e):
        found = re.search(r"Failed to resolve '([^']+)'", str(each))
        if found:
            name = "the account's name" if found[1] == urlsplit(where).hostname else "its name"
            return f"the host {found[1]} cannot be found; check {name}, and whether this machine finds others"
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"the certificate of the service is not accepted: {each.verify_message}; REQUESTS_CA_BUNDLE names a file of "
                "authorities that are"
            )
    return f"the service cannot be reached: {_reason(e)}; run this again to go on"


def _chain(e: BaseException | None) -> Iterator[BaseException]:
    """An error and what is behind it; each library packs that of another in its own way."""
    seen: set[int] = set()
    while e is not None and id(e) not in seen:
        seen.add(id(e))
        yield e
        packed = [getattr(e, "inner_exception", None), getattr(e, "reason", None), *e.args, e.__cause__, e.__context__]
        e = next((each for each in packed if isinstance(each, BaseException) and id(each) not in seen), None)


def _reason(e: BaseException) -> str:
    """What is at the bottom of an error of a connection."""
    *_, last = _chain(e)
    if isinstance(last, TimeoutError):
        return "it took too long"
    return first_line(last)


def _of_response(e: Any) -> str:
    found = getattr(e, "error_code", None) or getattr(getattr(e, "error", None), "code", None) or ""
    code = str(getattr(found, "value", found))
    status = f"{e.status_code} {code}".strip() if e.status_code else code
    known = MEANINGS.get(code)
    if known is None and not _is_of_storage(e):
        message = str(e.message or "")
        known = meaning(code, message) or _OF_STATUS.get(e.status_code) or (_FAULT if (e.status_code or 0) >= 500 else None)
        found = _REQUEST_ID.search(message)
        status += f", RequestID {found[1]}" if found else ""
    if known is None and e.status_code == 403:
        known = "the request is not allowed: a firewall, a missing role, or an expired SAS"
    return f"{known} ({status})" if known else f"{first_line(e)} ({status})"


def _is_of_storage(e: Any) -> bool:
    """Whether it is the blob service that has answered, which means other things by the same words."""
    return "x-ms-version" in e.response.headers
