"""A cloud of the tests' own: the resource manager, identities, and the front of a storage account whose back is Azurite.

It speaks HTTPS with a certificate that is made for one run, so that nothing inside of rdbkit is replaced: the command line gets
the address and the certificate. Bodies, headers and error texts are those of facts that the documentation names, and of the
packages azure-mgmt-redis 14.5.0 and azure-mgmt-redisenterprise 3.1.0.

Azurite does not know how signatures of user delegation are made today, so the front looks at these itself: it makes the same
signature with the key that it gave, and asks Azurite with the account's key then.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import http.client
import ipaddress
import json
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from .azurite import ACCOUNT, KEY

SUBSCRIPTION = "6b6a8b6e-0000-4000-8000-000000000001"
GROUP = "shop"
TENANT = "ab1f708d-50f6-404c-a006-d71b2ac7a606"
SAS_TEXT = (
    "One of the SAS URIs provided could not be used for the following reason: The SAS token end time (se) must be at least 1 hour "
    "from now and the start time (st), if given, must be at least 15 minutes in the past."
)
BUSY_TEXT = "The resource '{}' is busy processing a previous update request or is undergoing system maintenance."


@dataclass
class Cache:
    """One cache: what ARM says of it, and how its next operation goes.

    Attributes:
        answers: of GET, by the end of the path.
        refuse: status, code and message of the next requests to begin something, first in, first out.
        fail: code and message with which the operation ends; None for success.
        fail_status: of the answer that says so: 200 with "Failed" in it, or an error of HTTP as 400 and 409.
        polls: how often it is in progress before.
        renews: every answer has the URL of the next question, with a signature of its own, as ARM has it.
        said: status, body and headers of the next answers about an operation, first in, first out, instead of the truth.
        said_first: the same of the answer to a request that has begun something.
        data: what it has; an import empties it.
        load: called with the files of an import.
    """

    path: str
    answers: dict[str, dict[str, Any]]
    refuse: list[tuple[int, str, str]] = field(default_factory=list)
    fail: tuple[str, str] | None = None
    fail_status: int = 200
    polls: int = 2
    renews: bool = True
    said: list[tuple[int, bytes, dict[str, str]]] = field(default_factory=list)
    data: list[bytes] = field(default_factory=lambda: [b"what was there"])
    load: Callable[[list[bytes]], None] | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url_of_begin: str = ""
    by_location: bool = False
    said_first: tuple[int, bytes, dict[str, str]] | None = None
    on_begin: Callable[[], None] | None = None


@dataclass
class Cloud:
    """The servers; `caches` by their paths in small letters."""

    folder: Path
    azurite: str = ""
    caches: dict[str, Cache] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    #: questions about operations whose URL was not signed for them, or had been renewed.
    refused: list[str] = field(default_factory=list)
    keys: list[tuple[str, str, str]] = field(default_factory=list)
    #: what tokens were asked for.
    audiences: list[str] = field(default_factory=list)
    #: the storage accounts, as ARM lists them, by subscription; of another, nothing may be listed.
    accounts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    #: instead of a page of these, where it is there.
    accounts_page: dict[str, Any] | None = None
    #: called with method and path of a request to storage: code of an error, "cut" for a connection that breaks, or "".
    fault: Callable[[str, str], str] = lambda method, path: ""
    #: the same for ARM.
    arm_fault: Callable[[str, str], str] = lambda method, path: ""
    #: seconds after which ARM wants to be asked again.
    retry_after: int = 1
    port: int = 0
    identity_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"

    @contextmanager
    def operations_going_on(self, cache: Cache) -> Iterator[None]:
        """What is begun on the cache meanwhile ends only afterwards, however long that is."""
        before, cache.polls = cache.polls, 1 << 60
        try:
            yield
        finally:
            cache.polls = before
            for operation in self.operations.values():
                if operation["cache"] is cache:
                    operation["polls"] = min(operation["polls"], before)

    @property
    def account(self) -> str:
        """The blob service, as a URL."""
        return f"{self.endpoint}/{ACCOUNT}"

    def storage_account(self, name: str = ACCOUNT, subscription: str = SUBSCRIPTION, **changes: Any) -> dict[str, Any]:
        """A storage account as ARM shows it, which nothing is the matter with; `changes` are properties, `kind` and `location`."""
        whole = {"kind": changes.pop("kind", "StorageV2"), "location": changes.pop("location", "westeurope")}
        address = f"{self.endpoint}/{name}/" if name == ACCOUNT else f"https://{name}.blob.core.windows.net/"
        properties = {
            "provisioningState": "Succeeded", "primaryEndpoints": {"blob": address}, "supportsHttpsTrafficOnly": True,
            "networkAcls": {"bypass": "AzureServices", "virtualNetworkRules": [], "ipRules": [], "defaultAction": "Allow"},
        } | changes  # fmt: skip
        path = f"/subscriptions/{subscription}/resourceGroups/{GROUP}/providers/Microsoft.Storage/storageAccounts/{name}"
        return {"id": path, "name": name, "type": "Microsoft.Storage/storageAccounts", **whole, "properties": properties}

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be an identity of this cloud and to trust it."""
        certificate = str(self.folder / "cert.pem")
        return {
            "REQUESTS_CA_BUNDLE": certificate,
            "SSL_CERT_FILE": certificate,
            "IDENTITY_ENDPOINT": f"http://localhost:{self.identity_port}/token",
            "IDENTITY_HEADER": "secret-of-the-identity",
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        }

    def premium(self, name: str = "shop-cache", **changes: Any) -> Cache:
        """A cache of Premium, P1 without shards; `changes` are properties in ARM's words."""
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Cache/redis/{name}"
        linked = changes.pop("linked", [])
        identity = changes.pop("identity", None)
        properties = {
            "provisioningState": "Succeeded", "redisVersion": "6.0", "sku": {"name": "Premium", "family": "P", "capacity": 1},
            "hostName": f"{name}.redis.cache.windows.net", "port": 6379, "sslPort": 6380, "publicNetworkAccess": "Enabled",
            "redisConfiguration": {"maxmemory-reserved": "642", "maxmemory-policy": "volatile-lru"}, "linkedServers": [],
        } | changes  # fmt: skip
        answer: dict[str, Any] = {"id": path, "name": name, "location": "West Europe", "properties": properties}
        if identity is not None:
            answer["identity"] = identity
        links = [
            {"id": f"{path}/linkedServers/{other}", "name": other, "properties": {
                "linkedRedisCacheId": path.replace(name, other), "linkedRedisCacheLocation": "North Europe",
                "serverRole": "Secondary", "provisioningState": "Succeeded"}}
            for other in linked
        ]  # fmt: skip
        return self._add(Cache(path, {"": answer, "/linkedservers": {"value": links}}))

    def managed(self, name: str = "shop-amr", sku: str = "Balanced_B5", cluster: Any = None, **changes: Any) -> Cache:
        """A cache of Azure Managed Redis; `changes` are properties of its database, `cluster` those of the cache."""
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Cache/redisEnterprise/{name}"
        whole = {
            "provisioningState": "Succeeded", "resourceState": "Running", "redisVersion": "7.4",
            "hostName": f"{name}.westeurope.redis.azure.net", "publicNetworkAccess": "Enabled",
        } | (cluster or {})  # fmt: skip
        database = {
            "provisioningState": "Succeeded", "resourceState": "Running", "redisVersion": "7.4", "port": 10000,
            "clusteringPolicy": "OSSCluster", "evictionPolicy": "VolatileLRU", "modules": [],
        } | changes  # fmt: skip
        answers = {
            "": {"id": path, "name": name, "location": "West Europe", "sku": {"name": sku}, "kind": "v2", "properties": whole},
            "/databases/default": {"id": f"{path}/databases/default", "name": "default", "properties": database},
        }
        return self._add(Cache(path, answers))

    def _add(self, cache: Cache) -> Cache:
        self.caches[cache.path.lower()] = cache
        return cache

    # -- blobs

    def blob(self, path: str, data: bytes | None = None, kind: str = "BlockBlob", **headers: str) -> str:
        """Put a blob, and its container where there is none; the URL, without a signature."""
        container = path.partition("/")[0]
        self.back("PUT", f"/{ACCOUNT}/{container}?restype=container", b"", {})
        if data is not None:
            more = {"x-ms-blob-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
            if kind == "PageBlob":
                more["x-ms-blob-content-length"] = str(len(data))
            body = data if kind == "BlockBlob" else b""
            status, _, text = self.back("PUT", f"/{ACCOUNT}/{quote(path)}", body, more)
            assert status == 201, text
            if kind == "PageBlob":
                page = {"x-ms-page-write": "update", "x-ms-range": f"bytes=0-{len(data) - 1}"}
                status, _, text = self.back("PUT", f"/{ACCOUNT}/{quote(path)}?comp=page", data, page)
                assert status == 201, text
        return f"{self.account}/{quote(path)}"

    def back(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Ask Azurite, with a signature of the account's key."""
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        sas = generate_account_sas(
            ACCOUNT, KEY, ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True), end,
        )  # fmt: skip
        return self.ask(method, f"{path}{'&' if '?' in path else '?'}{sas}", body, headers)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Ask Azurite as it is."""
        connection = http.client.HTTPConnection(urlsplit(self.azurite).netloc, timeout=600)
        try:
            connection.request(method, path, body, {"x-ms-version": "2025-11-05", **headers})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    # -- what the service does

    def fetch(self, url: str, bearer: bool) -> bytes:
        """A blob, as the service gets at it."""
        headers = {"x-ms-version": "2025-11-05"}
        if bearer:
            headers["Authorization"] = f"Bearer {token('https://storage.azure.com')}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=self.trust) as answer:
            return bytes(answer.read())

    def put(self, url: str, data: bytes) -> None:
        request = urllib.request.Request(url, data, {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2025-11-05"}, method="PUT")
        urllib.request.urlopen(request, context=self.trust).close()

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "cert.pem"))

    def run(self, cache: Cache, verb: str, body: dict[str, Any]) -> tuple[str, str] | None:
        """Do what an operation is about; code and message where it fails."""
        if cache.fail is not None:
            return cache.fail
        bearer = body.get("preferred-data-archive-auth-method") == "ManagedIdentity"
        try:
            if verb == "import":
                files = [self.fetch(url, bearer) for url in body.get("files") or body["sasUris"]]
                if cache.load is not None:
                    cache.load(files)
                cache.data = files
            else:
                url, _, query = (body.get("container") or body["sasUri"]).partition("?")
                name = f"{body['prefix']}.rdb" if "prefix" in body else "default.rdb.gz"
                data = b"".join(cache.data)
                self.put(f"{url}/{name}?{query}", data if "prefix" in body else gzip.compress(data))
        except (urllib.error.URLError, OSError):
            return "OperationFailed", "The operation failed."
        return None


def token(audience: str) -> str:
    """A bearer token for `audience`, with no more of a signature than Azurite looks at."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"aud": audience, "iss": f"https://sts.windows.net/{TENANT}/", "iat": now - 9, "nbf": now - 9, "exp": now + 3600}
    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.c2ln"


def signed_query(number: str, issue: int) -> str:
    """What ARM puts behind the URL of an operation: time, certificate, signature and hash, which are shown to nobody."""
    value = base64.urlsafe_b64encode(f"signed:{number}:{issue}".encode()).decode().rstrip("=")
    return f"t={issue}&c=MIIsigned&s={value}&h=signed-{issue}"


def _audience(header: str | None) -> str:
    try:
        text = (header or "").removeprefix("Bearer ").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["aud"])
    except (IndexError, ValueError, KeyError):
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def reply(self, status: int, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        given = {name.lower(): value for name, value in (headers or {}).items()}
        sent = {"content-type": "application/json", "content-length": str(len(data))} | given
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"error": {"code": code, "message": message}}, headers)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def cut(self) -> None:
        """Break the connection without an answer."""
        self.close_connection = True
        self.connection.close()

    def answer(self) -> None:
        body = self.body()
        self.cloud.calls.append((self.command, self.path))
        if self.path.startswith("/subscriptions/"):
            self.arm(body)
        else:
            self.storage(body)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    # -- the resource manager

    def arm(self, body: bytes) -> None:
        cloud = self.cloud
        fault = cloud.arm_fault(self.command, self.path)
        if fault == "cut":
            return self.cut()
        if _audience(self.headers.get("Authorization")) != cloud.endpoint:
            return self.error(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if fault == "TooManyRequests":
            return self.error(429, fault, "The request was throttled.", {"Retry-After": "86400"})
        if fault == "AuthorizationFailed":
            return self.error(403, fault, "The client does not have authorization to perform action 'x' over scope 'y'.")
        path = urlsplit(self.path).path.lower()
        operation = re.fullmatch(r".*/(?:asyncoperations|operationresults)/(\w+)", path)
        if operation:
            return self.operation(operation[1])
        listed = re.fullmatch(r"/subscriptions/([^/]+)/providers/microsoft\.storage/storageaccounts", path)
        if listed:
            return self.list_accounts(listed[1])
        for prefix, cache in cloud.caches.items():
            rest = path.removeprefix(prefix)
            if rest == path or not (rest == "" or rest.startswith("/")):
                continue
            if self.command == "GET" and rest in cache.answers:
                return self.reply(200, cache.answers[rest])
            verb = rest.rpartition("/")[2]
            if self.command == "POST" and verb in ("import", "export"):
                return self.begin(cache, verb, json.loads(body))
        return self.error(404, "ResourceNotFound", f"The Resource '{path}' under resource group '{GROUP}' was not found.")

    def list_accounts(self, subscription: str) -> None:
        """A page of storage accounts, which has one."""
        if self.cloud.accounts_page is not None:
            return self.reply(200, self.cloud.accounts_page)
        accounts = self.cloud.accounts.get(subscription)
        if accounts is None:
            return self.error(403, "AuthorizationFailed", "The client does not have authorization to perform action 'x'.")
        page = int(parse_qs(urlsplit(self.path).query).get("page", ["0"])[0])
        link = (
            {"nextLink": f"{self.cloud.endpoint}{self.path.partition('&')[0]}&page={page + 1}"} if page + 1 < len(accounts) else {}
        )
        return self.reply(200, {"value": accounts[page : page + 1]} | link)

    @property
    def later(self) -> dict[str, str]:
        return {"Retry-After": str(self.cloud.retry_after)}

    def begin(self, cache: Cache, verb: str, body: dict[str, Any]) -> None:
        cache.url_of_begin = f"{self.cloud.endpoint}{self.path}"
        if cache.refuse:
            status, code, message = cache.refuse.pop(0)
            elsewhere = {"Location": f"https://127.0.0.1:{self.cloud.port}{self.path}"}
            return self.error(status, code, message, self.later if status == 429 else elsewhere if status == 307 else {})
        for url in body.get("files") or body.get("sasUris") or ():
            if not _takes(url):
                return self.error(400, "BadRequest", f"{SAS_TEXT} {url}")
        cache.bodies.append(body)
        if verb == "import":
            cache.data = []
        number = f"op{len(self.cloud.operations)}"
        self.cloud.operations[number] = {
            "cache": cache, "verb": verb, "body": body, "polls": cache.polls, "issued": 0, "asked": Counter(),
        }  # fmt: skip
        if cache.on_begin is not None:
            cache.on_begin()
        if cache.said_first is not None:
            return self.reply(*cache.said_first)
        return self.reply(202, b"", self.urls(number, 0) | self.later)

    def urls(self, number: str, issue: int) -> dict[str, str]:
        """Where to ask next for an operation, in headers; the signature is of this issue of the URL."""
        where = f"{self.cloud.endpoint}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Cache/locations/West%20US"
        query = f"api-version=2024-11-01&{signed_query(number, issue)}"
        headers = {"Location": f"{where}/operationresults/{number}?{query}"}
        if not self.cloud.operations[number]["cache"].by_location:
            headers["Azure-AsyncOperation"] = f"{where}/asyncOperations/{number}?{query}"
        return headers

    def operation(self, number: str) -> None:
        found = self.cloud.operations.get(number)
        if found is None:
            return self.error(404, "NotFound", "The operation was not found.")
        cache = found["cache"]
        query = parse_qs(urlsplit(self.path).query)
        issue = int(query.get("t", ["0"])[0])
        if cache.said:
            return self.reply(*cache.said.pop(0))
        # a URL that has been renewed answers once more, since a process may have been killed before it knew the new one
        found["asked"][issue] += 1
        if (cache.renews and found["asked"][issue] > 2) or signed_query(number, issue) not in self.path:
            self.cloud.refused.append(self.path)
            return self.error(400, "InvalidAsyncOperationUrl", "The signature of the URL is not valid any more.")
        renewed: dict[str, str] = {}
        if cache.renews:
            found["issued"] += 1
            renewed = self.urls(number, found["issued"])
        if found["polls"] > 0:
            found["polls"] -= 1
            if cache.by_location:
                return self.reply(202, b"", renewed | self.later | {"x-ms-request-id": "1e1d"})
            return self.reply(202, {"name": number, "status": "InProgress", "percentComplete": 50}, renewed | self.later)
        if "failed" not in found:
            found["failed"] = self.cloud.run(cache, found["verb"], found["body"])
        if found["failed"] is not None:
            code, message = found["failed"]
            error: dict[str, Any] = {"code": code, "message": message}
            if cache.fail_status != 200:
                return self.reply(cache.fail_status, {"error": error}, {"x-ms-request-id": "5e1f0000-of-the-question"})
            if "redisEnterprise" in cache.path:  # of its models, OperationStatus.error is an ErrorResponse, which has an error
                error = {"error": error}
            return self.reply(200, {"name": number, "status": "Failed", "error": error})
        return (
            self.reply(204, b"", {"x-ms-request-id": "1e1d"})
            if cache.by_location
            else self.reply(200, {"name": number, "status": "Succeeded"})
        )

    # -- the front of the storage account

    def storage(self, body: bytes) -> None:
        cloud = self.cloud
        fault = cloud.fault(self.command, self.path)
        if fault == "cut":
            return self.cut()
        if fault and fault != "half":
            return self.denied(fault)
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if query.get("comp") == "userdelegationkey":
            return self.delegate(body)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "content-length")}
        path = self.path
        if "skoid" in query or "spr" in query:  # Azurite is not reached over HTTPS
            if not self.is_signed(unquote(parts.path), query):
                return self.denied("AuthenticationFailed")
            rest = {k: v for k, v in query.items() if k not in _SAS}
            path = parts.path + (f"?{urlencode(rest)}" if rest else "")
            status, answers, data = cloud.back(self.command, path, body, headers)
        elif "Authorization" in self.headers and self.headers["Authorization"].startswith("Bearer"):
            if _audience(self.headers["Authorization"]) != "https://storage.azure.com":
                return self.denied("AuthenticationFailed")
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            status, answers, data = cloud.back(self.command, path, body, headers)
        else:
            status, answers, data = cloud.ask(self.command, path, body, headers)
        answers = {k: v for k, v in answers.items() if k.lower() not in ("connection", "transfer-encoding", "keep-alive")}
        if fault == "half" and len(data) > 100:
            self.send_response(status)
            for name, value in answers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return self.cut()
        return self.reply(status, data, answers)

    def denied(self, code: str) -> None:
        text = f"This request is not authorized to perform this operation. {self.path}".replace("&", "&amp;")
        body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
        self.reply(403, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})

    def delegate(self, body: bytes) -> None:
        if _audience(self.headers.get("Authorization")) != "https://storage.azure.com":
            return self.denied("AuthenticationFailed")
        text = body.decode()
        start, end = (re.findall(f"<{name}>(.*?)</{name}>", text)[0] for name in ("Start", "Expiry"))
        value = base64.b64encode(os.urandom(32)).decode()
        self.cloud.keys.append((start, end, value))
        fields = {
            "SignedOid": TENANT, "SignedTid": TENANT, "SignedStart": start, "SignedExpiry": end, "SignedService": "b",
            "SignedVersion": "2025-11-05", "Value": value,
        }  # fmt: skip
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        xml = f'<?xml version="1.0" encoding="utf-8"?><UserDelegationKey>{inside}</UserDelegationKey>'
        return self.reply(200, xml.encode(), {"Content-Type": "application/xml"})

    def is_signed(self, path: str, query: dict[str, str]) -> bool:
        """Whether the signature is one of ours, for this blob or container, this moment and this verb."""
        from azure.storage.blob import UserDelegationKey, generate_blob_sas, generate_container_sas

        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        needed = {"GET": "l" if query.get("comp") == "list" else "r", "HEAD": "r", "PUT": "w"}[self.command]
        if not (query.get("st", "") <= now < query["se"]) or needed not in query["sp"]:
            return False
        _, account, container, *blob = path.split("/")
        given: dict[str, Any] = {
            "permission": query["sp"],
            "start": query.get("st"),
            "expiry": query["se"],
            "protocol": query["spr"],
        }
        signers: list[dict[str, Any]] = [] if "skoid" in query else [{"account_key": KEY}]
        for start, end, value in self.cloud.keys if "skoid" in query else ():
            key: Any = UserDelegationKey()  # type: ignore[no-untyped-call]
            key.signed_oid = key.signed_tid = TENANT
            key.signed_start, key.signed_expiry, key.signed_service = start, end, "b"
            key.signed_version, key.value = "2025-11-05", value
            signers.append({"user_delegation_key": key})
        for signer in signers:
            if query["sr"] == "b":
                made = generate_blob_sas(account, container, "/".join(blob), **signer, **given)
            else:
                made = generate_container_sas(account, container, **signer, **given)
            if parse_qs(made)["sig"][0] == query["sig"]:
                return True
        return False


_SAS = {"st", "se", "sp", "spr", "sv", "sr", "skoid", "sktid", "skt", "ske", "sks", "skv", "sig"}


def _takes(url: str) -> bool:
    """The service's rule for the times of a SAS."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    now = datetime.datetime.now(datetime.UTC)
    times = {name: datetime.datetime.fromisoformat(query[name]) for name in ("st", "se") if name in query}
    return not (
        ("se" in times and times["se"] < now + datetime.timedelta(hours=1))
        or ("st" in times and times["st"] > now - datetime.timedelta(minutes=15))
    )


class _Identity(BaseHTTPRequestHandler):
    """The managed identity of an App Service: a token for whoever knows the header."""

    cloud: Cloud

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        resource = parse_qs(urlsplit(self.path).query).get("resource", [""])[0]
        self.cloud.audiences.append(resource)
        known = self.headers.get("X-IDENTITY-HEADER") == "secret-of-the-identity"
        answer = {"access_token": token(resource), "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer"}
        data = json.dumps(answer if known else {}).encode()
        self.send_response(200 if known else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def certify(folder: Path) -> None:
    """cert.pem and key.pem for this machine and a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    (folder / "key.pem").write_bytes(private)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is none of ours."""


@contextmanager
def cloud(folder: Path, azurite: str) -> Iterator[Cloud]:
    """A cloud on the loopback interface.

    Args:
        folder: for its certificate.
        azurite: the URL of Azurite's blob service, over plain HTTP.
    """
    certify(folder)
    made = Cloud(folder, azurite)
    handler = type("Handler", (_Handler,), {"cloud": made})
    identity = type("Identity", (_Identity,), {"cloud": made})
    servers = [_Server(("127.0.0.1", 0), handler), _Server(("127.0.0.1", 0), identity)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    # a client that is killed as it connects keeps nobody waiting: not for the handshake, nor for a connection that is gone again
    servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        server.socket.settimeout(1.0)
    made.port, made.identity_port = (server.server_address[1] for server in servers)
    made.accounts = {SUBSCRIPTION: [made.storage_account()]}
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
