"""Shared access signatures that a service accepts, for one blob or one container each."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import missing_package, translating_errors
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl

__all__ = ["EXPORT_PERMISSIONS", "LEAST_HOURS", "MOST_HOURS", "Signed", "Signer", "check_window", "patience"]

#: What the services want: an end at least an hour ahead, and a start at least 15 minutes back. Source: the text of their error, in
#: Azure docs, redis/how-to-import-export-data, 2026-04-24; the facts `sas_hours_ahead` and `sas_minutes_back`.
_AHEAD: Final = datetime.timedelta(hours=1)
_BACK: Final = datetime.timedelta(minutes=15)
#: What ours have, so that a clock may be wrong and an import may take long.
_OUR_BACK: Final = datetime.timedelta(minutes=20)
LEAST_HOURS: Final = 4
_TRIES: Final = 3
#: A key of user delegation lives seven days. Source: REST reference, Get User Delegation Key.
MOST_HOURS: Final = 167
#: In the order that a SAS wants. Source: Azure docs, redis/how-to-import-export-data: read add create write delete tag move; list
#: is ours, to see what has come.
EXPORT_PERMISSIONS: Final = {"Microsoft.Cache/redis": "racwdl", "Microsoft.Cache/redisEnterprise": "racwdltm"}


@dataclass(frozen=True)
class Signed:
    """A place with its signature.

    Attributes:
        query: the SAS, never to be shown.
        kind: "user delegation", "account key" or "given".
        expires: when it ends, None where the SAS does not say (a stored access policy does).
    """

    place: BlobUrl
    query: str = field(repr=False)
    kind: str = ""
    expires: datetime.datetime | None = None

    @property
    def secret_url(self) -> str:
        """The address with the signature."""
        return f"{self.place.url}?{self.query}"


def patience() -> dict[str, Any]:
    """How often a storage account is asked again, as settings of its clients: for seconds, where theirs are for more than a minute.

    Raises: TargetError where the packages are missing.
    """
    try:
        from azure.storage.blob import ExponentialRetry
    except ImportError as e:
        raise missing_package(e) from None
    return {"retry_policy": ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=_TRIES)}


@dataclass
class Signer:
    """Makes signatures with what there is, or takes the one that is given.

    Attributes:
        hours: from now until ours end, at least `LEAST_HOURS`.
    """

    credentials: Credentials = field(default_factory=Credentials)
    hours: float = LEAST_HOURS
    _services: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.hours <= MOST_HOURS:  # what is no number is not, either
            raise ValueError(f"a SAS that is made lasts {LEAST_HOURS} to {MOST_HOURS} hours")

    def given(self, place: BlobUrl) -> str:
        """The SAS that comes with the place or the credentials, empty for none."""
        has_key = self.credentials.key or self.credentials.connection_string or self.credentials.token
        key = has_key or os.environ.get("AZURE_STORAGE_KEY") or os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
        sas = place.sas or self.credentials.sas or ("" if key else os.environ.get("AZURE_STORAGE_SAS_TOKEN")) or ""
        return sas.lstrip("?")

    def sign(self, place: BlobUrl, permissions: str = "r") -> Signed:
        """A signature for `place`, a blob or a container.

        Args:
            permissions: letters of the service; of a given SAS, only that they are there is looked at.

        Raises: TargetError for a given SAS that the service would not take, and where none can be made; ValueError as of
            `Credentials.service`.
        """
        given = self.given(place)
        if given:
            return Signed(place, given, "given", check_window(given, place, permissions))
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        start, end = now - _OUR_BACK, now + datetime.timedelta(hours=max(self.hours, LEAST_HOURS))
        service, key = self._service(place, start, end)
        from azure.storage.blob import generate_blob_sas, generate_container_sas

        options: dict[str, Any] = {"permission": permissions, "start": start, "expiry": end, **key}
        if place.account.startswith("https:"):
            options["protocol"] = "https"
        make: Callable[..., str] = generate_blob_sas if place.blob else generate_container_sas
        names = (place.container, place.blob) if place.blob else (place.container,)
        kind = "account key" if "account_key" in key else "user delegation"
        return Signed(place, make(service.account_name, *names, **options), kind, end)

    def signs_with_key(self, place: BlobUrl) -> bool:
        """Whether a key of the account signs for `place`, or has signed the SAS that is given, and no identity.

        Raises: as `Credentials.service`.
        """
        given = self.given(place)
        if given:
            return "skoid" not in parse_qs(given)  # the object that a key of user delegation is of
        return bool(getattr(self._known(place)[0].credential, "account_key", None))

    def _known(self, place: BlobUrl) -> tuple[Any, Any]:
        """A client of the account, and the key of user delegation with its end, None where there is none yet."""
        if place.account not in self._services:
            self._services[place.account] = (self.credentials.service(place, **patience()), None)
        return self._services[place.account]

    def _service(self, place: BlobUrl, start: datetime.datetime, end: datetime.datetime) -> tuple[Any, dict[str, Any]]:
        """A client of the account, and what signs."""
        service, known = self._known(place)
        credential = service.credential
        if not service.account_name:
            raise TargetError("the account's name is not in the URL: give a URL with a SAS", source=place.url)
        if getattr(credential, "account_key", None):
            return service, {"account_key": credential.account_key}
        if not hasattr(credential, "get_token"):
            raise TargetError(
                "these credentials are a SAS of the account, which cannot sign another for the service: give a SAS, apart or "
                "behind the URL, a connection string with the account's key, or none, so that an identity signs (az login)",
                source=place.url,
            )
        if known is None or known[0] < end - datetime.timedelta(minutes=5):
            with translating_errors(place.account):
                known = (end, service.get_user_delegation_key(start, end))
            self._services[place.account] = (service, known)
        return service, {"user_delegation_key": known[1]}


def check_window(query: str, place: BlobUrl, permissions: str) -> datetime.datetime | None:
    """Whether a service takes a SAS that was given; its end.

    Args:
        query: the SAS.
        permissions: letters that have to be among its own.

    Raises: TargetError.
    """
    values = {name: found[0] for name, found in parse_qs(query).items()}
    if "sig" not in values:
        raise TargetError("what follows the question mark is no SAS; leave it out, and one is made", source=place.url)
    now = datetime.datetime.now(datetime.UTC)
    start, end = (_time(values.get(name), place) for name in ("st", "se"))
    why_not = _window_fault(start, end, now) or _rights_fault(values, place, permissions)
    if why_not:
        raise TargetError(why_not, source=place.url)
    return end


def _window_fault(start: datetime.datetime | None, end: datetime.datetime | None, now: datetime.datetime) -> str:
    """Why a service does not take a SAS of this time, empty where it does; what is None, a stored access policy says."""
    if end is not None and end <= now:
        return f"the SAS has expired on {_shown(end)}; make a new one, or leave it out"
    if end is not None and end < now + _AHEAD:
        left = int((end - now).total_seconds() // 60)
        return (
            f"the SAS ends in {left} minutes, on {_shown(end)}: the service wants an hour at least; make a longer one, or leave it "
            "out"
        )
    if start is not None and start > now - _BACK:
        return (
            f"the SAS begins on {_shown(start)}: the service wants 15 minutes ago at least; let it begin earlier, or leave it out"
        )
    return ""


def _rights_fault(values: dict[str, str], place: BlobUrl, permissions: str) -> str:
    """Why a SAS with these values is not enough for a place, empty where it is."""
    missing = [letter for letter in permissions if letter not in values["sp"]] if "sp" in values else []
    if missing:
        return f"the SAS allows {values['sp']}, and {''.join(missing)} is missing; make one with it, or leave it out"
    if not place.blob and values.get("sr", "c") != "c":
        return "the SAS is not of a container; make one with sr=c, or leave it out"
    return ""


def _time(text: str | None, place: BlobUrl) -> datetime.datetime | None:
    if text is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
        return found.replace(tzinfo=datetime.UTC) if found.tzinfo is None else found.astimezone(datetime.UTC)
    except (ValueError, OverflowError):  # the latter for a time of another zone at either end of the calendar
        raise TargetError("the times in the SAS cannot be read; make a new one, or leave it out", source=place.url) from None


def _shown(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
