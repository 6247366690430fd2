"""A cache in Azure: what its resource id names, what ARM says of it, and operations on it that take their time.

ARM is the Azure Resource Manager, the interface through which services are looked at and changed. An operation that takes long is
begun with one request, and its status is asked for at a URL that the answer has. Each answer has the URL of the next question. The
newest is all that another process needs to go on waiting. It is signed by ARM (`t`, `c`, `s`, `h`), and answers nobody without a
bearer token; it is kept in private files, and never shown.

The continuation tokens of azure-core are not used for it: before Azure/azure-sdk-for-python#44574 (January 2026) they were the
pickled first answer, and with it the request, which has the SAS in its body and the bearer token in its headers.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from rdbkit.azure.errors import REQUEST_IDS, failure_in, missing_package, translating_errors
from rdbkit.clouds import Cloud, find_cloud
from rdbkit.errors import TargetError
from rdbkit.storage.identity import default_credential
from rdbkit.text import scrub

__all__ = ["PREMIUM", "REDIS_ENTERPRISE", "Arm", "CacheState", "Call", "ResourceId", "Status", "parse_resource_id"]

PREMIUM: Final = "Microsoft.Cache/redis"
REDIS_ENTERPRISE: Final = "Microsoft.Cache/redisEnterprise"
#: Source: the default versions of azure-mgmt-redis 14.5.0 and azure-mgmt-redisenterprise 3.1.0.
_API: Final = {PREMIUM: "2024-11-01", REDIS_ENTERPRISE: "2025-07-01"}
#: What a host consists of, so that every library reads the same one: at a backslash it ends for some of them.
_HOST: Final = re.compile(r"[a-z0-9.-]+|[0-9a-f:.]+", re.IGNORECASE)
_ID: Final = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/Microsoft\.Cache/"
    r"(?:redis/(?P<premium>[^/]+)|redisEnterprise/(?P<cluster>[^/]+)(?:/databases/(?P<database>[^/]+))?)/?",
    re.IGNORECASE,
)
#: A request to begin an operation is repeated for this answer alone: after any other, it may have begun.
_TOO_MANY: Final = 429
#: Answers to a question about an operation that say nothing about it: who may ask, and what may be otherwise later.
_NOT_ALLOWED: Final = (401, 403)
_LATER: Final = (408, _TOO_MANY)
_GONE: Final = 404
_ACCEPTED: Final = 202
_HTTPS: Final = 443
_TRIES: Final = 5
_LONGEST_WAIT: Final = 60.0
#: Seconds from one look at an operation to the next, where the service does not say.
_POLL: Final = 15.0
_ENDED: Final = ("succeeded", "failed", "canceled", "cancelled")


@dataclass(frozen=True)
class ResourceId:
    """What names a cache in Azure.

    Attributes:
        provider: `PREMIUM`, which Basic and Standard have, too, or `REDIS_ENTERPRISE`, which Azure Managed Redis has, too.
        database: of the latter, which has one.
    """

    subscription: str
    resource_group: str
    provider: str
    name: str
    database: str = "default"

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}/providers/{self.provider}/{quote(self.name)}"
        )


def parse_resource_id(text: str) -> ResourceId:
    """The cache that a resource id names; `az redis show` and `az redisenterprise show` print it as `id`.

    Raises: ValueError.

    >>> parse_resource_id("/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/Redis/c").provider
    'Microsoft.Cache/redis'
    """
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            "a cache's resource id is /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.Cache/redis/NAME, "
            "or with redisEnterprise/NAME at its end"
        )
    subscription, group = match["subscription"], match["group"]
    if match["premium"]:
        return ResourceId(subscription, group, PREMIUM, match["premium"])
    return ResourceId(subscription, group, REDIS_ENTERPRISE, match["cluster"], match["database"] or "default")


@dataclass(frozen=True)
class CacheState:
    """What ARM says of a cache.

    Attributes:
        id: its resource id.
        provider: as of `ResourceId`.
        state: "Running" where it can be used, otherwise the service's word for what it is doing.
        redis_version: of its engine, such as "6.0" or "7.4.3".
        sku: the size as the service calls it, such as "P1" or "Balanced_B10".
        tier: "Premium", or what the size's name begins with, such as "Balanced".
        clustering: "none", "N shards" or the policy of clustering.
        shards: as chosen, of Premium; 0 where that has no clustering, and where nobody chooses them.
        databases: how many it has.
        modules: by name, such as "RediSearch".
        geo_replication: the caches that it is linked with.
        access: how clients reach it, in words.
        endpoint: the address for clients.
        identities: kinds of its managed identity, such as "SystemAssigned".
    """

    id: str
    name: str
    provider: str
    location: str
    state: str
    redis_version: str
    sku: str
    tier: str
    clustering: str
    shards: int
    databases: int
    modules: list[str]
    geo_replication: list[str]
    access: str
    endpoint: str
    identities: list[str] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether it can begin something."""
        return self.state == "Running"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Call:
    """A request that changes something.

    Attributes:
        verb: "import" or "export".
        url: to which it is sent with POST.
        body: what is sent, with secrets.
    """

    verb: str
    url: str
    body: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without secrets."""
        return {"method": "POST", "url": self.url, "body": json.loads(scrub(json.dumps(self.body)))}


@dataclass(frozen=True)
class Status:
    """How an operation stands.

    Attributes:
        word: of the service: "InProgress", "Succeeded", "Failed", "Canceled" or another while it goes on.
        percent: how much of it is done, None where the service does not say.
        code, message: why it failed.
        wait: seconds until the next look.
        url: where to look next; empty for where this was found.
        request_id: of a failure, by which the service's support finds it; empty where the answer has none.
    """

    word: str
    percent: float | None = None
    code: str = ""
    message: str = ""
    wait: float = _POLL
    url: str = field(default="", repr=False)
    request_id: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens."""
        return self.word.lower() in _ENDED

    @property
    def has_succeeded(self) -> bool:
        """Whether it has done what was asked for."""
        return self.word.lower() == "succeeded"


class Arm:
    """One cache, through ARM."""

    def __init__(
        self, cache: ResourceId, *, cloud: str | Cloud = "public", endpoint: str | None = None, credential: Any = None
    ) -> None:
        """Connects with the first request.

        Args:
            cache: of `parse_resource_id`.
            cloud: where it is: "public", "usgovernment", "china", or the name that `az cloud list` has.
            endpoint: of ARM, instead of that of the cloud.
            credential: of the class that azure-identity has; by default DefaultAzureCredential.

        Raises: TargetError where the packages are missing; ValueError for an endpoint that is none, and an unknown cloud.
        """
        self.cloud = find_cloud(cloud) if isinstance(cloud, str) else cloud
        self.cache = cache
        self.endpoint = _checked(self.cloud.resource_manager if endpoint is None else endpoint)
        # The packages warn of every credential that they tried; what matters of it is in the error.
        for name in ("azure", "msal"):
            logging.getLogger(name).addHandler(logging.NullHandler())
        if credential is None:
            credential = default_credential(self.cloud)
        self._credential = credential
        try:
            settings: dict[str, Any] = {
                "base_url": self.endpoint,
                "credential_scopes": [self.cloud.resource_manager_scope if endpoint is None else f"{self.endpoint}/.default"],
                "api_version": _API[cache.provider],
                # ARM has none, and neither token nor body must go to where somebody else's points
                "permit_redirects": False,
                "retry_policy": _patience(),
            }
            self._client: Any
            if cache.provider == PREMIUM:
                from azure.mgmt.redis import RedisManagementClient

                self._client = RedisManagementClient(credential, cache.subscription, **settings)
            else:
                from azure.mgmt.redisenterprise import RedisEnterpriseManagementClient

                self._client = RedisEnterpriseManagementClient(credential, cache.subscription, **settings)
        except ImportError as e:
            raise missing_package(e) from None

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
        if hasattr(self._credential, "close"):
            self._credential.close()

    def __enter__(self) -> Arm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it is

    def read(self) -> CacheState:
        """Ask what the cache is.

        Raises: TargetError.
        """
        with translating_errors(self.cache.name, self.cloud):
            try:
                return self._read_premium() if self.cache.provider == PREMIUM else self._read_enterprise()
            except (ValueError, TypeError, AttributeError) as e:
                # of the SDK for what is of another type than it should be, and of this for what is missing
                raise TargetError(
                    f"the answer about the cache has another form than its interface says ({type(e).__name__}): something on the "
                    "way may have answered, such as a proxy, or rdbkit and its packages are too old",
                    source=self.cache.name,
                ) from e

    def _read_premium(self) -> CacheState:
        group, name = self.cache.resource_group, self.cache.name
        found = self._client.redis.get(group, name)
        linked = list(self._client.linked_server.list(group, name))
        shards = found.shard_count or 0
        settings = getattr(found.redis_configuration, "additional_properties", None) or {}
        kind = found.identity.type if found.identity is not None else None
        return CacheState(
            id=str(self.cache),
            name=found.name or name,
            provider=PREMIUM,
            location=found.location or "",
            state=_state(found.provisioning_state),
            redis_version=found.redis_version or "",
            sku=f"{found.sku.family}{found.sku.capacity}",
            tier=_word(found.sku.name),
            clustering=f"{shards} shard{'s' * (shards != 1)}" if shards else "none",
            shards=shards,
            # Source of the default: the fact `default_databases` of azure-premium.
            databases=1 if shards else int(settings.get("databases") or 16),
            modules=[],
            geo_replication=[_last(each.linked_redis_cache_id) for each in linked],
            access="a virtual network" if found.subnet_id else _access(found),
            endpoint=f"{found.host_name}:{found.ssl_port}",
            identities=[each.strip() for each in _word(kind).split(",") if each.strip() not in ("", "None")],
        )

    def _read_enterprise(self) -> CacheState:
        group, name = self.cache.resource_group, self.cache.name
        cluster = self._client.redis_enterprise.get(group, name)
        found = self._client.databases.get(group, name, self.cache.database)
        states = [_state(each.resource_state or each.provisioning_state) for each in (cluster, found)]
        sku = _word(cluster.sku.name)
        return CacheState(
            id=str(self.cache),
            name=cluster.name or name,
            provider=REDIS_ENTERPRISE,
            location=cluster.location or "",
            state=next((state for state in states if state != "Running"), "Running"),
            redis_version=found.redis_version or cluster.redis_version or "",
            sku=sku,
            tier=sku.partition("_")[0],
            clustering=_word(found.clustering_policy) or "OSSCluster",
            shards=0,
            databases=1,
            modules=[each.name for each in found.modules or ()],
            geo_replication=_others_in_group(found.geo_replication, name),
            access=_access(cluster),
            endpoint=f"{cluster.host_name}:{found.port}",
        )

    def list_all(self, path: str) -> list[dict[str, Any]]:
        """The resources that ARM lists at a path with its query, of all pages.

        Raises: azure.core's exceptions; TargetError for a page that is not of ARM, or of another host.
        """
        from azure.core.rest import HttpRequest

        found: list[dict[str, Any]] = []
        seen = set()
        url = f"{self.endpoint}{path}"
        while url and url not in seen:
            if not self.is_ours(url):
                raise TargetError(
                    f"the list goes on at another host than {self.endpoint}, which gets no token", source=self.cache.name
                )
            seen.add(url)
            response: Any = self._client._send_request(HttpRequest("GET", url))
            response.raise_for_status()
            page = _object_in(response)
            rows = None if page is None else page.get("value") or []
            if page is None or not isinstance(rows, list) or _is_redirect(response):
                raise self._none_of_arm(response)
            found += [row for row in rows if isinstance(row, dict)]
            url = str(page.get("nextLink") or "")
        return found

    # -- what is done to it

    def import_call(self, urls: list[str], *, auth: str = "SAS", storage_subscription: str = "") -> Call:
        """The request that imports blobs.

        Args:
            urls: of the blobs, with their SAS.
            auth, storage_subscription: "SAS" or "ManagedIdentity", and where the blobs are; both of Premium alone.
        """
        if self.cache.provider != PREMIUM:
            return self._call("import", {"sasUris": urls})
        return self._call("import", {"files": urls, "format": "RDB"} | _authentication(auth, storage_subscription))

    def export_call(self, url: str, prefix: str, *, auth: str = "SAS", storage_subscription: str = "") -> Call:
        """The request that exports into a container.

        Args:
            url: of the container, with its SAS.
            prefix: what the names of the blobs begin with, of Premium alone.
            auth, storage_subscription: as of `import_call`.
        """
        if self.cache.provider != PREMIUM:
            return self._call("export", {"sasUri": url})
        body = {"prefix": prefix, "container": url, "format": "RDB"}
        return self._call("export", body | _authentication(auth, storage_subscription))

    def _call(self, verb: str, body: dict[str, Any]) -> Call:
        database = "" if self.cache.provider == PREMIUM else f"/databases/{self.cache.database}"
        return Call(verb, f"{self.endpoint}{self.cache}{database}/{verb}?api-version={_API[self.cache.provider]}", body)

    def begin(self, call: Call) -> str | None:
        """Send `call`, and give the URL at which the operation's status is asked for.

        Returns: empty where it has ended well already; None where the answer does not say how it stands.
        Raises: azure.core's exceptions, from which the caller sees whether it can have begun.
        """
        from azure.core.exceptions import HttpResponseError

        group, name = self.cache.resource_group, self.cache.name
        if self.cache.provider == PREMIUM:
            send, where = {
                "import": self._client.redis.begin_import_data,
                "export": self._client.redis.begin_export_data,
            }[call.verb], [group, name]  # fmt: skip
        else:
            send, where = {
                "import": self._client.databases.begin_import_method,
                "export": self._client.databases.begin_export,
            }[call.verb], [group, name, self.cache.database]  # fmt: skip
        for tries in range(_TRIES):
            body = io.BytesIO(json.dumps(call.body).encode())
            try:
                poller = send(*where, body, polling=False, retry_total=0, cls=lambda response, *_: response.http_response)
                break
            except HttpResponseError as e:
                if e.status_code != _TOO_MANY or tries == _TRIES - 1:
                    raise
                time.sleep(_seconds(getattr(e.response, "headers", None) or {}, 5.0))
        response = poller.result()
        given = _status_urls(response.headers)
        if given:
            return next(filter(self.is_ours, given), given[0])
        answer = _object_in(response)
        found = self._status_in(response, answer) if _is_of_arm(response, answer) else None
        return "" if found is not None and found.has_succeeded else None

    def status(self, url: str) -> Status | None:
        """How an operation stands; None where the service does not know it any more.

        An answer that says nothing about the operation, since the service is busy or has a fault, is waited out for some minutes.

        Args:
            url: as `begin` gave it, or the last status, where that had one.

        Raises: TargetError where it cannot be asked; the operation may go on all the same.
        """
        from azure.core.rest import HttpRequest

        self._check_is_ours(url)
        for tries in range(1, _TRIES + 1):
            with translating_errors(self.cache.name, self.cloud):
                response = self._asked(HttpRequest("GET", url))
                body = _object_in(response)
                is_of_arm = _is_of_arm(response, body)
                if response.status_code == _GONE and is_of_arm:
                    return None
                found = self._status_in(response, body) if is_of_arm or _is_redirect(response) else None
                if found is not None:
                    return found
                if response.status_code in _NOT_ALLOWED or tries == _TRIES:
                    says_nothing = not response.content and response.status_code in (*_NOT_ALLOWED, *_LATER)
                    if is_of_arm or says_nothing or response.status_code >= 500:
                        response.raise_for_status()
                    break
            time.sleep(_seconds(response.headers, min(_POLL * 2**tries, _LONGEST_WAIT)))
        raise self._none_of_arm(response)

    def _none_of_arm(self, response: Any) -> TargetError:
        said = f"the answer ({response.status_code}) is none of ARM: something on the way may have answered, such as a proxy"
        return TargetError(said, source=self.cache.name)

    def _asked(self, request: Any) -> Any:
        """The answer to a request, whatever it is; the SDK has an error for JSON that is none."""
        from azure.core.exceptions import DecodeError

        try:
            return self._client._send_request(request, retry_status=0)
        except DecodeError as e:
            if e.response is None:
                raise
            return e.response

    def _check_is_ours(self, url: str) -> None:
        """Raise TargetError for another host: the token must not go to whomever a state file or an answer names."""
        if not self.is_ours(url):
            raise TargetError(f"the operation is not one of {self.endpoint}", source=self.cache.name)

    def is_ours(self, url: str) -> bool:
        """Whether a URL is one of the endpoint, or of a host below it, so that its answer may be asked for with a token."""
        if not url.isascii() or not url.isprintable() or " " in url:
            return False
        try:
            parts, ours = urlsplit(url), urlsplit(self.endpoint)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        is_same = _HOST.fullmatch(host) is not None and (host == ours.hostname or host.endswith(f".{ours.hostname}"))
        return parts.scheme == "https" and is_same and "@" not in parts.netloc and (port or _HTTPS) == (ours.port or _HTTPS)

    def _status_in(self, response: Any, body: dict[str, Any] | None) -> Status | None:
        """What an answer says of its operation; None where it says nothing about it. `body`: as `_object_in` has it."""
        code = response.status_code
        if code in _NOT_ALLOWED or code in _LATER or code >= 500:
            return None
        url, wait = next(filter(self.is_ours, _status_urls(response.headers)), ""), _seconds(response.headers, _POLL)
        if _is_redirect(response):
            return Status("InProgress", url=url, wait=wait) if url else None
        if code >= 400:
            failure = failure_in(body, response.headers)
            return Status("Failed", None, failure.code or f"HTTP {code}", failure.message, request_id=failure.request_id)
        if body is None:
            return None
        # the status resource says how it stands; where there is only a Location, the code of the answer does
        by_code = "InProgress" if code == _ACCEPTED else "Failed" if body.get("error") else "" if "status" in body else "Succeeded"
        word = body.get("status") or by_code
        if not isinstance(word, str) or not word:
            return None
        failure = failure_in(body, response.headers)
        percent = body.get("percentComplete")
        done = float(percent) if isinstance(percent, int | float) and 0 <= percent <= 100 else None
        return Status(word, done, failure.code, failure.message, wait, url, failure.request_id)


def _patience() -> Any:
    """How often ARM is asked again, and after which time: it may name hours, for which nobody would know why nothing happens."""
    from azure.core.pipeline.policies import RetryPolicy

    class Patience(RetryPolicy[Any, Any]):
        def get_retry_after(self, response: Any) -> float | None:
            found = super().get_retry_after(response)
            return None if found is None else min(found, _LONGEST_WAIT)

    return Patience(retry_total=_TRIES)


def _checked(endpoint: str) -> str:
    """An endpoint without a path. Raises: ValueError for what is none."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the endpoint's host or port cannot be read") from None
    if parts.scheme != "https" or not host or not _HOST.fullmatch(host) or "@" in parts.netloc:
        raise ValueError("the endpoint of ARM begins with https:// and its host")
    return f"https://{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}"


def _object_in(response: Any) -> dict[str, Any] | None:
    """The JSON of an answer, {} for an empty one; None for anything else, as the page of a proxy."""
    try:
        body = response.json() if response.content else {}
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _is_of_arm(response: Any, body: dict[str, Any] | None) -> bool:
    """Whether ARM has answered, and nothing on the way: with an object, or at least with the id of the request or where to ask.

    Args:
        body: as `_object_in` has it.
    """
    has_object = body is not None and bool(response.content)
    return has_object or any(response.headers.get(name) for name in REQUEST_IDS) or bool(_status_urls(response.headers))


def _is_redirect(response: Any) -> bool:
    return 300 <= int(response.status_code) < 400


def _status_urls(headers: Any) -> list[str]:
    """Where an answer says that the status of its operation is; the first of them says more."""
    return [str(headers[name]) for name in ("Azure-AsyncOperation", "Location") if headers.get(name)]


def _authentication(auth: str, storage_subscription: str) -> dict[str, str]:
    found = {"preferred-data-archive-auth-method": auth}
    return found | {"storage-subscription-id": storage_subscription} if storage_subscription and auth != "SAS" else found


def _word(value: Any) -> str:
    """An enumeration's value, or the text of one that this release of the SDK does not know."""
    return str(getattr(value, "value", value) or "")


def _state(value: Any) -> str:
    word = _word(value)
    return "Running" if word in ("Succeeded", "Running") else word or "unknown"


def _access(found: Any) -> str:
    """From where a cache is reached."""
    return "public network" if found.public_network_access != "Disabled" else "private endpoints alone"


def _others_in_group(geo_replication: Any, name: str) -> list[str]:
    """The caches beside this one in its group of active geo-replication, which is None for none."""
    linked = (geo_replication.linked_databases if geo_replication is not None else None) or []
    caches = [_last(str(each.id).partition("/databases/")[0]) for each in linked]
    return [each for each in caches if each.lower() != name.lower()] if len(caches) > 1 else []


def _last(resource: str | None) -> str:
    return (resource or "").rstrip("/").rpartition("/")[2]


def _seconds(headers: Any, default: float) -> float:
    """How long to wait, by a header; not less than a second, lest a service is asked without pause."""
    text = headers.get("Retry-After") or ""
    return min(max(float(text), 1.0), _LONGEST_WAIT) if text.isascii() and text.isdigit() else default
