"""Operations that ARM says how they stand: renewed URLs, failures in each form, answers that say nothing, and what is kept then."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.azure.errors import Failure, failure_in
from rdbkit.azure.pending_operation import PendingOperation
from rdbkit.azure.resources import Status

from ..arm import Cache, Cloud
from ..azurite import needs_azurite
from ..processes import until
from ..rdb import key, rdb, string
from .shell import Shell, posts

#: ARM's own answers have it, whatever they say.
OF_ARM = {"x-ms-request-id": "1e1d"}
SMALL = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"hello")))
Run = tuple[int, str, str]


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


class Verb:
    """One of the commands that begin an operation, ready to be run on a cache as often as one likes."""

    def __init__(self, name: str, azure: Cloud, shell: Shell, cache: Cache | None = None) -> None:
        self.name, self.azure, self.shell = name, azure, shell
        self.cache = cache or azure.premium()
        cache_name = self.cache.path.rpartition("/")[2]
        kind = "azure-premium" if "/redis/" in self.cache.path else "azure-managed"
        path = shell.folder / "shop.rdb"
        path.write_bytes(SMALL)
        folder = f"{re.sub('[^a-z0-9]+', '-', str(shell.folder.name).lower())}"
        self.url = {
            "import": azure.blob(f"dumps/{folder}.rdb", SMALL),
            "export-cache": azure.blob("exports/"),
            "migrate": azure.blob(f"dumps/{folder}/"),
        }[name]
        place = [str(path), "--container", self.url] if name == "migrate" else [self.url]
        yes = [] if name == "export-cache" else ["--yes", cache_name]
        self.args = [name, "--target", kind, "--resource-id", self.cache.path, *place, *yes]
        self.state = shell.folder / f"rdbkit-{name.partition('-')[0]}-{cache_name}.json"

    def run(self, *more: str) -> Run:
        return self.shell.run(*self.args, *more)

    @property
    def operation(self) -> str:
        """The URL that is kept; empty where nothing is waited for."""
        if not self.state.exists():
            return ""
        kept = json.loads(self.state.read_text())
        return str(((kept["import"] or {}) if self.name == "migrate" else kept).get("operation", ""))

    @property
    def issue(self) -> int:
        """How often that URL has been renewed."""
        found = re.search(r"[?&]t=(\d+)", self.operation)
        return int(found[1]) if found else 0

    def has_done_its_work(self) -> bool:
        if self.name == "export-cache":
            return self.cache.data == [b"what was there"]
        return self.cache.data == [SMALL]


@pytest.fixture(params=["import", "export-cache", "migrate"])
def verb(request: pytest.FixtureRequest, azure: Cloud, shell: Shell) -> Verb:
    return Verb(request.param, azure, shell)


# -- renewed URLs


@needs_azurite
def test_a_run_that_is_killed_between_two_questions_is_gone_on_with_at_the_newest_url(verb: Verb, azure: Cloud) -> None:
    cache = verb.cache
    with azure.operations_going_on(cache):
        process = verb.shell.start(*verb.args)
        until(lambda: verb.issue > 1, process)
        process.kill()
        verb.shell.end(process)
    kept = verb.operation
    assert verb.state.stat().st_mode & 0o777 == 0o600
    asked = len(azure.calls)
    code, _, err = verb.run()
    assert code == 0, err
    questions = [path for _, path in azure.calls[asked:] if "asyncOperations" in path]
    assert f"{azure.endpoint}{questions[0]}" == kept
    assert len(set(questions)) == len(questions) > 1, "each at a URL of its own"
    assert (len(posts(azure)), verb.has_done_its_work(), verb.state.exists()) == (1, True, False)


@needs_azurite
@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("renews", [False, True])
def test_a_url_that_is_renewed_or_is_not(azure: Cloud, shell: Shell, by_location: bool, renews: bool) -> None:
    verb = Verb("import", azure, shell)
    verb.cache.by_location, verb.cache.renews, verb.cache.polls = by_location, renews, 5
    assert verb.run()[0] == 0
    questions = [path for method, path in azure.calls if "/op0" in path]
    assert (len(questions), len(set(questions))) == (6, 6 if renews else 1)
    assert all(("operationresults" in path) is by_location for path in questions)


@needs_azurite
def test_a_url_that_is_too_old_is_told(azure: Cloud, shell: Shell) -> None:
    """As where a state is of a backup."""
    verb = Verb("import", azure, shell)
    with azure.operations_going_on(verb.cache):
        process = shell.start(*verb.args)
        until(lambda: verb.issue >= 1, process)
        old, issue = verb.state.read_text(), verb.issue
        until(lambda: verb.issue > issue + 1, process)
        process.kill()
        shell.end(process)
    verb.state.write_text(old)
    assert verb.run()[0] == 0, "it may be asked once more"
    verb.state.write_text(old)
    code, _, err = verb.run()
    assert (code, verb.state.exists()) == (4, False)
    assert "what the cache holds now is unknown" in last_line(err)
    assert len(azure.refused) == 1
    azure.refused.clear()


# -- how it fails

REQUEST = "5e1f0001-aaaa-bbbb-cccc-000000000001"
FAILURES: list[Any] = [
    pytest.param(200, ("OperationFailed", "The operation failed."), "(OperationFailed: The operation failed.)", "", id="failed"),
    pytest.param(200, ("Odd", f"something. RequestID={REQUEST}"), "failed: Odd: something.", REQUEST, id="failed-id"),
    pytest.param(
        409, ("Conflict", f": \r\nRequestID={REQUEST}"), "the service gives no reason; known ones", REQUEST, id="conflict"
    ),
    pytest.param(400, ("BadRequest", "it is no RDB"), "failed: BadRequest: it is no RDB", "5e1f0000-of-the-question", id="bad"),
    pytest.param(410, ("", ""), "the service gives no reason", "5e1f0000-of-the-question", id="gone"),
]


@needs_azurite
@pytest.mark.parametrize("service", ["premium", "managed"])
@pytest.mark.parametrize(("status", "failure", "text", "request_id"), FAILURES)
@pytest.mark.parametrize("name", ["import", "export-cache", "migrate"])
@pytest.mark.one_in(7)
def test_an_operation_that_fails_is_forgotten(
    azure: Cloud, shell: Shell, name: str, service: str, status: int, failure: tuple[str, str], text: str, request_id: str
) -> None:
    verb = Verb(name, azure, shell, getattr(azure, service)())
    verb.cache.fail, verb.cache.fail_status = failure, status
    code, out, err = verb.run()
    assert code == 4
    said = last_line(err)
    assert re.match(rf"rdbkit: [a-z-]+: the {'export' if name == 'export-cache' else 'import'} failed: ", said)
    assert text in said
    assert said.endswith(f"; Azure's support finds it by RequestID {request_id}") if request_id else "RequestID" not in said
    imports = name != "export-cache"
    assert ("what the cache holds now is unknown, for an import deletes first" in said) is imports
    after = "look at the cache, check the file (rdbkit check), and import again" if imports else "look at the storage account"
    assert after in said
    assert "imported" not in out
    assert verb.operation == ""
    assert sorted(path.name for path in shell.folder.glob("rdbkit-*")) == ([verb.state.name] if name == "migrate" else [])
    verb.cache.fail = None
    code, out, err = verb.run()  # the next run waits for nothing that is dead
    assert (code, len(posts(azure)), verb.has_done_its_work(), verb.state.exists()) == (0, 2, True, False), err
    assert "Warning" not in out + err


@needs_azurite
def test_an_operation_that_is_canceled(verb: Verb) -> None:
    verb.cache.said = [(200, b'{"status": "Canceled"}', {})]
    code, _, err = verb.run()
    assert (code, verb.operation) == (4, "")
    assert " was canceled; " in last_line(err)


@needs_azurite
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((200, b'{"status": "Failed", "error": null}', {}), "the import failed: the service gives no reason"),
        ((200, b'{"status": "failed", "error": "no room"}', {}), "the import failed: no room;"),
        ((200, b'{"status": "FAILED", "error": {"error": {"error": {"code": "X", "message": "y"}}}}', {}), "failed: X: y;"),
        ((202, b'{"status": "Failed", "error": {"code": "X", "details": [{"message": "inside"}]}}', {}), "failed: X: inside;"),
        ((200, b'{"error": {"code": "X", "message": "no status"}}', {}), "the import failed: X: no status;"),
        ((400, b'{"code": "X", "message": "flat"}', {}), "the import failed: X: flat;"),
        ((422, b"<html>", {"x-ms-correlation-request-id": "c-1"}), "support finds it by RequestID c-1"),
        ((409, b"", {"x-ms-request-id": "two words\tand?sig=x"}), "and import again"),
        ((400, b'{"error": {"code": "X", "message": "see https://a/b?sig=secret&se=1"}}', {}), "https://a/b?sig=***&se=1"),
    ],
)
@pytest.mark.one_in(3)
def test_failures_in_each_form(azure: Cloud, shell: Shell, answer: tuple[int, bytes, dict[str, str]], text: str) -> None:
    verb = Verb("import", azure, shell)
    verb.cache.said = [answer]
    code, _, err = verb.run()
    assert (code, verb.state.exists()) == (4, False)
    assert text in last_line(err)
    assert len(err.strip().splitlines()) == err.strip().count("\n") + 1
    assert "two words" not in err


def test_what_an_answer_says_of_a_failure() -> None:
    assert failure_in({"error": {"code": "Conflict", "message": ": \r\nRequestID=1-a"}}, {}) == Failure("Conflict", "", "1-a")
    assert failure_in({"error": {"message": "No.\r\nRequestID=1-a"}}, {"x-ms-request-id": "2"}) == Failure("", "No.", "1-a")
    nothings: list[Any] = [None, [], {}, {"error": []}, {"error": {}}]
    for nothing in nothings:
        assert failure_in(nothing, {"x-ms-request-id": "2"}) == Failure("", "", "2")
    assert failure_in("text", {}) == Failure("", "text", "")


# -- answers that say nothing about it


@needs_azurite
def test_what_passes_is_waited_out(verb: Verb, azure: Cloud, waits: list[float]) -> None:
    verb.cache.said = [
        (503, b"", {"Retry-After": "7"}), (429, b"{}", {"Retry-After": "9"}), (408, b"", {}), (500, b"<html>", {}),
        (202, b"", OF_ARM | {"Retry-After": "3"}), (200, b"<!DOCTYPE html><html>sign in</html>", {"Content-Type": "text/html"}),
    ]  # fmt: skip
    code, _, err = verb.run()
    assert code == 0, err
    assert waits[:6] == [7, 9, 60, 60, 3, 30]
    assert (len(posts(azure)), verb.has_done_its_work(), verb.state.exists()) == (1, True, False)


@needs_azurite
@pytest.mark.parametrize(
    ("answer", "times", "text"),
    [
        ((503, b"", {}), 5, "the service has a fault of its own; run this again in some minutes (503)"),
        (
            (501, b'{"error": {"code": "Odd", "message": "x"}}', {}),
            5,
            "a fault of its own; run this again in some minutes (501 Odd)",
        ),
        ((429, b"", {}), 5, "has had too many requests; run this again in some minutes (429)"),
        ((408, b"", {}), 5, "took too long; run this again in some minutes (408)"),
        ((401, b"", {}), 1, "sign in again (az login), in the tenant of the subscription (401)"),
        ((403, b'{"error": {"code": "AuthorizationFailed", "message": "x"}}', {}), 1, "the role Contributor on the cache"),
        (
            (200, b"<!DOCTYPE html>", {}),
            5,
            "the answer (200) is none of ARM: something on the way may have answered, such as a proxy",
        ),
        ((200, b"[]", {}), 5, "the answer (200) is none of ARM"),
        ((200, b"", {}), 5, "the answer (200) is none of ARM"),
        ((204, b"", {}), 5, "the answer (204) is none of ARM"),
        ((400, b"", {}), 5, "the answer (400) is none of ARM"),
        ((404, b"", {}), 5, "the answer (404) is none of ARM"),
        ((200, b'{"status": null}', {}), 5, "the answer (200) is none of ARM"),
        ((200, b'{"status": ""}', {}), 5, "the answer (200) is none of ARM"),
        ((200, b'{"status": {"is": 1}}', {}), 5, "the answer (200) is none of ARM"),
        ((302, b"", {}), 5, "the answer (302) is none of ARM"),
        ((400, b"<h2>Bad Request</h2>", {}), 5, "the answer (400) is none of ARM"),
        ((404, b"<!DOCTYPE html>", {"Content-Type": "text/html"}), 5, "the answer (404) is none of ARM"),
        ((403, b"<!DOCTYPE html>", {"Content-Type": "text/html"}), 1, "the answer (403) is none of ARM"),
    ],
)
@pytest.mark.one_in(4)
def test_what_does_not_pass_leaves_the_operation_going_on(
    verb: Verb, azure: Cloud, answer: tuple[int, bytes, dict[str, str]], times: int, text: str
) -> None:
    verb.cache.renews = False
    verb.cache.said = [answer] * times
    code, out, err = verb.run()
    assert code == 4
    assert text in last_line(err)
    what = "export" if verb.name == "export-cache" else "import"
    assert last_line(err).endswith(f"; the {what} may still be going on: the same command waits for it")
    assert "has imported" not in out
    assert (verb.cache.said, verb.operation != "") == ([], True)
    code, _, err = verb.run()
    assert (code, len(posts(azure)), verb.has_done_its_work(), verb.state.exists()) == (0, 1, True, False), err
    assert "going on to wait for the" in err


@needs_azurite
@pytest.mark.parametrize(
    "answer",
    [
        (204, b""),
        (200, b""),
        (200, b"{}"),
        (200, b'{"status": "succeeded", "percentComplete": 1e999}'),
        (202, b'{"status": "Succeeded"}'),
    ],
)
@pytest.mark.one_in(3)
def test_answers_that_say_that_it_is_done(azure: Cloud, shell: Shell, answer: tuple[int, bytes]) -> None:
    verb = Verb("import", azure, shell)
    verb.cache.said = [(*answer, OF_ARM)]
    code, _, err = verb.run()
    assert (code, verb.state.exists()) == (0, False), err


# -- where the token goes


@needs_azurite
@pytest.mark.parametrize("status", [202, 302, 307])
@pytest.mark.one_in(3)
def test_no_url_of_another_host_is_asked(azure: Cloud, shell: Shell, status: int) -> None:
    verb = Verb("import", azure, shell)
    verb.cache.renews = False
    asked: list[str] = []

    def look(method: str, path: str) -> str:
        asked.append(path)
        return ""

    azure.arm_fault = look
    for other in (
        f"https://127.0.0.1:{azure.port}/subscriptions/elsewhere", f"https://localhost:{azure.port + 1}/subscriptions/elsewhere",
        f"http://localhost:{azure.port}/subscriptions/elsewhere", f"https://me@localhost:{azure.port}/subscriptions/elsewhere",
        "/subscriptions/elsewhere",
    ):  # fmt: skip
        verb.cache.said.append((status, b"", {"Location": other, "Azure-AsyncOperation": other}))
        assert verb.run()[0] == 0
    assert not [path for path in asked if "elsewhere" in path]


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("https://management.azure.com/x", True),
        ("https://eastus.Management.Azure.com:443/x", True),
        # what some take for a host ends at the backslash
        ("https://evil.example\\.management.azure.com/x", False),
        ("https://evil.example%2f.management.azure.com/x", False),
        ("https://evil.example;.management.azure.com/x", False),
        ("https://management.azure.com.evil.example/x", False),
        ("https://evilmanagement.azure.com/x", False),
        ("https://management.azure.com./x", False),
        ("https://management.azure.com:8443/x", False),
    ],
)
def test_which_host_is_one_of_arm(url: str, is_ours: bool) -> None:
    cache = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/redis/c"
    with rdbkit.Arm(rdbkit.parse_resource_id(cache), credential=object()) as arm:
        assert arm.is_ours(url) is is_ours
    with pytest.raises(ValueError, match="begins with https"):
        rdbkit.Arm(rdbkit.parse_resource_id(cache), endpoint="https://a.example\\.b.example", credential=object())


@needs_azurite
def test_a_redirect_to_arm_itself_is_followed(azure: Cloud, shell: Shell) -> None:
    verb = Verb("import", azure, shell)
    verb.cache.renews = False
    verb.cache.said = [(303, b"", {"Location": f"{azure.endpoint}/subscriptions/asyncOperations/op0?{azure_query(0)}"})]
    assert verb.run()[0] == 0
    assert [path for _, path in azure.calls if path.startswith("/subscriptions/asyncOperations/op0?")]


def azure_query(issue: int) -> str:
    from ..arm import signed_query

    return signed_query("op0", issue)


@needs_azurite
def test_a_redirect_of_the_request_sends_its_signature_nowhere(verb: Verb, azure: Cloud) -> None:
    verb.cache.refuse = [(307, "Redirect", "elsewhere")]
    code, _, err = verb.run()
    assert (code, len(posts(azure)), verb.operation, verb.cache.data) == (4, 1, "", [b"what was there"])
    assert last_line(err).endswith("; nothing has begun")


@needs_azurite
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((202, b"", {}), "does not say where to ask for the {}: look at the cache"),
        ((200, b"", {}), "does not say where to ask for the {}: look at the cache"),
        ((200, b"<!DOCTYPE html>", {"Content-Type": "text/html"}), "does not say where to ask for the {}: look at the cache"),
        ((202, b"<!DOCTYPE html>", {}), "does not say where to ask for the {}: look at the cache"),
        ((500, b"", {}), "whether the {} has begun is not known"),
        ((408, b"", {}), "whether the {} has begun is not known"),
    ],
)
@pytest.mark.one_in(5)
def test_an_answer_that_does_not_say_how_it_stands(verb: Verb, answer: tuple[int, bytes, dict[str, str]], text: str) -> None:
    verb.cache.said_first = answer
    code, out, err = verb.run()
    assert code == 4
    assert text.format("export" if verb.name == "export-cache" else "import") in last_line(err)
    assert "imported" not in out
    assert verb.state.exists()
    verb.cache.said_first = None
    code, out, err = verb.run()
    assert (code, verb.state.exists()) == (0, False)
    assert "whether that has begun is not known" in out


@needs_azurite
def test_a_service_that_wants_a_day_of_patience_is_told(verb: Verb, azure: Cloud, pauses: list[float]) -> None:
    azure.arm_fault = lambda method, path: "TooManyRequests"
    code, _, err = verb.run()
    assert (code, posts(azure)) == (4, [])
    assert "the service has had too many requests; run this again in some minutes (429 TooManyRequests)" in last_line(err)
    assert 1 < len(pauses) < 10
    assert max(pauses) == 60


@needs_azurite
@pytest.mark.parametrize(
    ("name", "odd"), [("sku", None), ("sku", {"capacity": "x"}), ("linkedServers", 5), ("redisConfiguration", {"databases": "x"})]
)
@pytest.mark.one_in(2)
def test_a_cache_of_another_form_is_told(azure: Cloud, shell: Shell, name: str, odd: Any) -> None:
    cache = azure.premium()
    cache.answers[""]["properties"][name] = odd
    code, _, err = shell.imports(cache, azure.blob("dumps/odd.rdb", SMALL))
    assert (code, posts(azure)) == (4, [])
    assert "the answer about the cache has another form than its interface says" in last_line(err)


@needs_azurite
def test_an_operation_that_has_ended_at_once(verb: Verb) -> None:
    verb.cache.said_first = (200, b"", OF_ARM)
    assert verb.run()[0] == 0
    assert not verb.state.exists()


@needs_azurite
@pytest.mark.parametrize("when", ["begun", "renewed"])
def test_a_url_that_cannot_be_noted_is_told_as_what_goes_on(azure: Cloud, shell: Shell, when: str) -> None:
    verb = Verb("import", azure, shell)
    place = shell.folder / "states"
    place.mkdir()
    if when == "begun":
        verb.cache.on_begin = lambda: shutil.rmtree(place)
    else:

        def remove(method: str, path: str) -> str:
            if "asyncOperations" in path:
                shutil.rmtree(place, ignore_errors=True)
            return ""

        azure.arm_fault = remove
    code, _, err = verb.run("--state", str(place / "s.json"))
    assert code == 4
    assert "the import has begun, and where to ask for it cannot be noted in " in last_line(err)
    assert last_line(err).endswith("(No such file or directory): look at the cache")


@needs_azurite
@pytest.mark.one_in(2)
def test_an_operation_that_the_service_has_forgotten(verb: Verb, azure: Cloud) -> None:
    verb.cache.said = [(202, b"", {}), (404, b"", OF_ARM)]
    code, _, err = verb.run()
    assert (code, verb.operation) == (4, "")
    assert "no longer knows the " in last_line(err)
    assert verb.run()[0] == 0
    assert len(posts(azure)) == 2


@needs_azurite
def test_a_dry_run_says_what_is_waited_for(verb: Verb, azure: Cloud) -> None:
    verb.cache.said = [(401, b"", {})]
    assert verb.run()[0] == 4
    code, out, _ = verb.run("--dry-run")
    assert (code, len(posts(azure)), verb.operation != "") == (0, 1, True)
    assert f"Warning: an {'export' if verb.name == 'export-cache' else 'import'} that was begun on " in out


@needs_azurite
def test_after_a_failure_nothing_is_sent_again(azure: Cloud, shell: Shell) -> None:
    verb = Verb("migrate", azure, shell)
    verb.cache.fail, verb.cache.fail_status = ("Conflict", ": \r\nRequestID=1"), 409
    assert verb.run()[0] == 4
    asked = len(azure.calls)
    verb.cache.fail = None
    code, out, err = verb.run()
    assert code == 0, err
    assert "which is done" in out
    assert not [path for method, path in azure.calls[asked:] if method == "PUT"]


@needs_azurite
def test_an_operation_of_another_endpoint(azure: Cloud, shell: Shell) -> None:
    verb = Verb("import", azure, shell)
    blob = {"url": verb.url, "etag": "", "bytes": 1}
    PendingOperation(str(verb.state), "import", verb.cache.path, [blob], "https://management.usgovcloudapi.net/x", 1.0).save()
    code, _, err = verb.run()
    assert (code, verb.state.exists()) == (4, True)
    assert "name the endpoint by which the import was begun, or delete rdbkit-import-shop-cache.json if it has ended" in last_line(
        err
    )


# -- what earlier releases have left


def of_an_earlier_release(verb: Verb) -> Path:
    """The state of a migration whose import was begun, in the two files that it had once; the second."""
    kept = json.loads(verb.state.read_text())
    begun = kept.pop("import")
    for row in kept["files"]:
        row["mtime_ns"] = row.pop("version")
    verb.state.write_text(json.dumps(kept | {"format": 2}))
    former = Path(f"{verb.state}.import")
    former.write_text(json.dumps({"format": 1, **begun}))
    return former


def begun(verb: Verb) -> Path:
    with verb.azure.operations_going_on(verb.cache):
        process = verb.shell.start(*verb.args)
        until(lambda: verb.operation, process)
        process.kill()
        verb.shell.end(process)
    return of_an_earlier_release(verb)


@needs_azurite
def test_an_import_that_an_earlier_release_has_begun_is_waited_for(azure: Cloud, shell: Shell) -> None:
    verb = Verb("migrate", azure, shell)
    former = begun(verb)
    before = verb.state.read_text(), former.read_text()
    code, out, _ = verb.run("--dry-run")
    assert (code, verb.state.read_text(), former.read_text()) == (0, *before)
    assert "Warning: an import that was begun on " in out
    verb.cache.said = [(503, b"", {})] * 5
    assert verb.run()[0] == 4
    assert (former.exists(), verb.operation != "") == (False, True), "both are in one file now"
    code, out, err = verb.run("--json")
    assert code == 0, err
    assert json.loads(out)["import"]["resumed"] is True
    assert (len(posts(azure)), list(shell.folder.glob("rdbkit-*"))) == (1, [])


@needs_azurite
@pytest.mark.parametrize("leaves", ["nothing", "other terms"])
def test_an_import_of_an_earlier_release_whose_files_are_not_known_to_be_these(azure: Cloud, shell: Shell, leaves: str) -> None:
    verb = Verb("migrate", azure, shell)
    begun(verb)
    kept = json.loads(verb.state.read_text())
    verb.state.unlink()
    if leaves == "other terms":  # as that release wrote them
        names = (
            "file",
            "size",
            "mtime_ns",
            "header",
            "sent_header",
            "verdict",
            "keys",
            "written",
            "losses",
            "identical",
            "blobs",
            "earlier",
        )
        rows = [{name: row[name] for name in names} | {"terms": "azure-premium 6.0 9"} for row in kept["files"]]
        verb.state.write_text(json.dumps(kept | {"files": rows}))
    code, _, err = verb.run()
    assert code == 0, err
    assert "waiting for the end of an import of other files" in err
    assert (len(posts(azure)), list(shell.folder.glob("rdbkit-*"))) == (2, [])


@needs_azurite
def test_an_import_of_an_earlier_release_is_not_forgotten_for_one_of_this(azure: Cloud, shell: Shell) -> None:
    verb = Verb("migrate", azure, shell)
    former = begun(verb)
    left = former.read_text()
    verb.cache.said = [(401, b"", {})]
    assert verb.run()[0] == 4
    former.write_text(left)  # as where that release has run again meanwhile
    code, _, err = verb.run()
    assert (code, former.exists(), verb.state.exists()) == (0, True, False), err
    azure.operations["op0"]["asked"].clear()
    code, _, err = verb.run("--overwrite")
    assert (code, former.exists()) == (0, False), err
    assert "waiting for the end of an import" in err


@needs_azurite
def test_a_file_of_an_earlier_release_that_does_not_fit_is_refused(azure: Cloud, shell: Shell) -> None:
    verb = Verb("migrate", azure, shell)
    former = begun(verb)
    kept = json.loads(former.read_text())
    for text, said in (
        (
            json.dumps(kept | {"resource_id": "/other"}),
            "an earlier release has left, is of an import into another cache; name another",
        ),
        ("{}", "json.import is no state of rdbkit; name another state file, or delete it"),
    ):
        former.write_text(text)
        code, _, err = verb.run()
        assert (code, former.exists(), len(posts(azure))) == (2, True, 1)
        assert said in last_line(err)


@needs_azurite
@pytest.mark.parametrize(
    "change", [{"keep": 1}, {"path": "x"}, {"resource_id": "/other"}, {"operation": 5}, {"blobs": 5}, {"begun": "x"}]
)
@pytest.mark.one_in(3)
def test_an_import_of_another_shape_in_the_state_is_refused(azure: Cloud, shell: Shell, change: dict[str, Any]) -> None:
    verb = Verb("migrate", azure, shell)
    assert verb.run("--skip", "import")[0] == 0
    kept = json.loads(verb.state.read_text())
    assert kept["import"] is None
    whole = {"verb": "import", "resource_id": verb.cache.path, "blobs": [], "operation": "", "begun": 1.0, "place": ""}
    verb.state.write_text(json.dumps(kept | {"import": whole}))
    assert verb.run("--dry-run")[0] == 0
    wrongs: list[Any] = [whole | change, 5, [], "x"]
    for wrong in wrongs:
        verb.state.write_text(json.dumps(kept | {"import": wrong}))
        code, _, err = verb.run()
        assert (code, posts(azure)) == (2, [])
        assert "is no state of rdbkit migrate; name another state file, or delete it" in last_line(err)


# -- as functions


@needs_azurite
@pytest.mark.parametrize("name", ["import", "export-cache", "migrate"])
@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.one_in(3)
def test_the_functions_do_the_same(azure: Cloud, shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, status: int) -> None:
    monkeypatch.chdir(shell.folder)
    for variable, value in azure.environment.items():
        monkeypatch.setenv(variable, value)
    verb = Verb(name, azure, shell)
    cache, url = verb.cache, verb.url
    arm = rdbkit.Arm(rdbkit.parse_resource_id(cache.path), endpoint=azure.endpoint)
    call: Callable[[], object] = {
        "import": lambda: rdbkit.import_(url, arm, target="azure-premium"),
        "export-cache": lambda: rdbkit.export_cache(arm, url, target="azure-premium"),
        "migrate": lambda: rdbkit.migrate("shop.rdb", arm, target="azure-premium", container=url),
    }[name]
    with arm:
        cache.fail, cache.fail_status = ("Conflict", f": \r\nRequestID={REQUEST}"), status
        with pytest.raises(rdbkit.TargetError, match=f"failed: the service gives no reason.*; Azure's support.* {REQUEST}$"):
            call()
        assert verb.operation == ""
        cache.fail = None
        cache.said = [(401, b"", {})]
        with pytest.raises(rdbkit.TargetError, match=r"sign in again .* may still be going on"):
            call()
        assert verb.operation
        call()
    assert (len(posts(azure)), verb.has_done_its_work(), list(shell.folder.glob("rdbkit-*"))) == (2, True, [])


def test_the_signed_url_is_in_no_repr() -> None:
    url = "https://management.azure.com/x?s=signed"
    shown = [repr(PendingOperation("x.json", "import", "/x", [], url)), repr(Status("InProgress", url=url))]
    assert not any("signed" in text for text in shown)
