"""S3, Google Cloud Storage and servers of HTTP as stores that objects are read from and written to, and what their errors mean."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import RdbError, TargetError
from rdbkit.storage.object_url import ObjectUrl
from rdbkit.storage.store_client import check_key, check_package, client_options, retry_config, status_of, translated
from rdbkit.storage.store_settings import StoreSettings, check_endpoint

if TYPE_CHECKING:
    from obstore.store import GCSStore, HTTPStore, S3Store

#: What says where S3 is, the first of them that there is.
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
#: What the service's codes mean.
_MEANINGS: Final = {
    "NoSuchBucket": "there is no such bucket; check the URL",
    "NoSuchKey": "there is no such object; check the URL",
    "AccessDenied": "the credentials may not do this: reading takes s3:GetObject, writing s3:PutObject, a pattern s3:ListBucket",
    "InvalidAccessKeyId": "the access key is not known to the service",
    "SignatureDoesNotMatch": "the secret key or the signature is not accepted",
    "ExpiredToken": "the credentials have expired: sign in again",
    "InvalidToken": "the session token is not accepted",
    "TokenRefreshRequired": "the credentials have expired: sign in again",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "InvalidObjectState": "the object is archived, where nobody can read it; restore it first",
    "PermanentRedirect": "the bucket is in another region: name it with --region, or in AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: name it with --region, or in AWS_REGION",
    "PreconditionFailed": "the object was changed or replaced while it was read; run this again",
    "SlowDown": "the service is busy; run this again later",
}
_BY_STATUS: Final = {
    "401": "the service wants credentials",
    "403": "the request is not allowed: missing credentials, missing rights, or a signature that has expired",
    "404": "there is no such object; check the URL",
    "412": "the object was changed or replaced while it was read; run this again",
    "429": "the service is busy; run this again later",
}
#: Where machines of a provider ask who they are: whoever is sent there has found nothing else.
_MACHINES: Final = ("169.254.", "metadata.google.internal", "metadata/computeMetadata", "fd00:ec2::254")
_SIGN_IN: Final = {
    "s3": "no credentials are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (which takes pip install "
    "boto3); --anonymous reads what is public",
    "gs": "no credentials are found: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS; --anonymous reads "
    "what is public",
}


class StoredObject:
    """An object, and how its store is reached.

    Attributes:
        place: where it is.
        name: by which it is known.
        key: its name in the store.
        base_name: the last part of that.
        settings: how its store is reached.
    """

    noun: Final = "object"

    def __init__(self, place: ObjectUrl, settings: StoreSettings, name: str) -> None:
        self.place = place
        self.name = name
        self.key = "" if place.is_http else place.key
        self.base_name = place.base_name
        self.settings = settings

    def open(self, *, patient: bool) -> S3Store | GCSStore | HTTPStore:
        """Its store; nothing is asked yet. Raises: TargetError where that cannot be, or the settings are not those of a store."""
        place = self.place
        check_package(self.name)
        if not place.is_http:
            check_key(place.key, self.name)
        try:
            if place.is_http:
                return self._http(patient)
            return self._s3(patient) if place.scheme == "s3" else self._gcs(patient)
        except (ValueError, RdbError):
            raise
        except Exception as e:
            raise self.translated(e) from None

    def _http(self, patient: bool) -> HTTPStore:
        from obstore.store import HTTPStore

        place = self.place
        return HTTPStore(
            f"{place.url}?{place.query}" if place.query else place.url,
            client_options=client_options(allow_http=place.scheme == "http"),
            retry_config=retry_config(patient=patient),
        )

    def _s3(self, patient: bool) -> S3Store:
        from obstore.store import S3Store

        settings = self.settings
        endpoint = settings.endpoint or next((value for name in _ENDPOINTS if (value := os.environ.get(name))), "")
        config: dict[str, Any] = {"skip_signature": True} if settings.anonymous else {}
        if endpoint:
            self._check(endpoint)
            config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
        if settings.region:
            config["region"] = settings.region
        return S3Store(
            self.place.bucket,
            config={**config, **settings.options},  # type: ignore[arg-type]  # the names are a user's
            client_options=client_options(allow_http=endpoint.startswith("http:")),
            retry_config=retry_config(patient=patient),
            credential_provider=None if settings.anonymous or settings.options else _profile(),
        )

    def _gcs(self, patient: bool) -> GCSStore:
        from obstore.store import GCSStore

        settings = self.settings
        config: dict[str, Any] = {"skip_signature": True} if settings.anonymous else {}
        if settings.endpoint:
            self._check(settings.endpoint)
            config["base_url"] = settings.endpoint
        return GCSStore(
            self.place.bucket,
            config={**config, **settings.options},  # type: ignore[arg-type]
            client_options=client_options(allow_http=settings.endpoint.startswith("http:")),
            retry_config=retry_config(patient=patient),
        )

    def _check(self, endpoint: str) -> None:
        try:
            check_endpoint(endpoint, self.settings.allow_http)
        except ValueError as e:
            raise TargetError(str(e), source=self.name) from None

    def forget(self) -> None:
        """Nothing is kept of what was chosen to open it."""

    def reached(self, settings: StoreSettings) -> StoredObject:
        """The same object, whose store is reached in another way."""
        return StoredObject(self.place, settings, self.name)

    def is_empty(self, e: Exception) -> bool:
        """Whether an error says that a range is behind the end, as every range of an empty object is."""
        return status_of(e) == "416" or "bytes 0--1/0" in str(e)

    def meta(self, store: Any) -> Any:
        """What the service knows of the object. Raises: as the store."""
        import obstore

        if self.place.is_http:  # a signature may be for GET alone
            return obstore.get(store, self.key).meta
        return obstore.head(store, self.key)

    def translated(self, e: Exception) -> RdbError:
        """An error of the store, in words and without what is secret."""
        said, url = str(e), self.name
        name = type(e).__name__
        if name in ("UnknownConfigurationKeyError", "InvalidConfigurationError"):
            key = said.partition("key: '")[2].partition("'")[0]
            return TargetError(f"the store has no option {key!r}", source=url)
        if "RangeNotSupported" in said:
            return TargetError(
                "the server does not send parts of a file: fetch all of it, and read that, as with curl URL | rdbkit info -",
                source=url,
            )
        if "without LOCATION" in said:
            return TargetError(_MEANINGS["PermanentRedirect"], source=url)
        if self.place.scheme in _SIGN_IN and any(each in said for each in _MACHINES):
            return TargetError(_SIGN_IN[self.place.scheme], source=url)
        if self.place.query:  # which the library quotes
            e = Exception(said.replace(self.place.query, "..."))
        return translated(e, url, _MEANINGS, _BY_STATUS)


def _profile() -> Any:
    """What boto3 finds, where the environment says that it is wanted; otherwise the store looks for itself."""
    if not os.environ.get("AWS_PROFILE") or find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider()
