"""`upload --sas-out`: what AzCopy is handed, run by a shell with an `azcopy` that notes its arguments."""

from __future__ import annotations

import datetime
import json
import os
import stat
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest

from .. import command_line
from ..arm import Cloud
from ..azurite import ACCOUNT, KEY, needs_azurite
from .shell import Shell

pytestmark = needs_azurite

FLAGS = ["--from-to=LocalBlob", "--blob-type=BlockBlob", "--content-type=application/octet-stream", "--put-md5"]


def upload(shell: Shell, *args: str) -> tuple[int, str, str]:
    """`rdbkit upload`, whose output is looked through for secrets."""
    done = command_line.run_text("upload", *args, cwd=shell.folder, environment=shell.environment)
    for text in (done.stdout, done.stderr):
        assert "sig=" not in text
        assert KEY[:20] not in text
    return done.returncode, done.stdout, done.stderr


def by_a_shell(shell: Shell, text: str) -> list[str]:
    """The arguments of `azcopy` where the printed text is run by sh."""
    folder = shell.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "azcopy"
    program.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\0" "$each"; done >> arguments\n')
    program.chmod(0o755)
    environment = shell.environment | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", "-c", text], cwd=shell.folder, env=environment, check=True)
    arguments = (shell.folder / "arguments").read_text()
    (shell.folder / "arguments").unlink()
    return arguments.removesuffix("\0").split("\0")


def put(azure: Cloud, url: str, data: bytes) -> int:
    """Make the blob as AzCopy does, with nothing but the address; the status of the answer."""
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2025-11-05", "If-None-Match": "*"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT"), context=azure.trust) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


@pytest.mark.parametrize(("name", "out"), [("dump.rdb", "sas.txt"), ("a 'b' $(c).rdb", "it's $HOME.txt"), ("-x.rdb", "-o.txt")])
def test_the_printed_command_sends_the_file_to_where_the_address_is(azure: Cloud, shell: Shell, name: str, out: str) -> None:
    place = azure.blob("dumps") + "/"
    (shell.folder / name).write_bytes(b"REDIS0009")
    code, text, err = upload(shell, f"--sas-out={out}", "--", name, place)
    assert code == 0, err
    path = shell.folder / out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address = path.read_text().rstrip("\n")
    verb, file, url, *flags = by_a_shell(shell, text)
    assert (verb, url, flags) == ("copy", address, [*FLAGS, "--overwrite=false"])
    assert (shell.folder / file).read_bytes() == b"REDIS0009"
    assert not file.startswith("-")
    assert "whoever has it can write the blob, so delete it afterwards" in err
    assert put(azure, url, b"REDIS0009") == 201
    assert put(azure, url.replace("sp=rcw", "sp=rcwd"), b"other") == 403


def test_what_is_handed_over_is_told_as_json(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps") + "/by-json.rdb"
    (shell.folder / "dump.rdb").write_bytes(b"REDIS0009")
    code, text, err = upload(shell, "dump.rdb", url, "--sas-out", "sas.txt", "--sas-hours", "48", "--overwrite", "--json")
    assert (code, err) == (0, "")
    told: dict[str, Any] = json.loads(text)
    assert (told["url"], told["sas_out"], told["access"]) == (url, "sas.txt", "user delegation")
    assert by_a_shell(shell, told["command"])[-1] == "--overwrite=true"
    code, _, err = upload(shell, "dump.rdb", url, "--sas-out", "sas.txt")
    assert code == 2
    assert "sas.txt exists" in err


def test_what_azcopy_cannot_do_is_said_before(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps") + "/not-by-azcopy.rdb"
    for name in ("dump.rdb", "b.rdb", "a*.rdb"):
        (shell.folder / name).write_bytes(b"REDIS0009")
    folder = url.rpartition("/")[0] + "/"
    for arguments, words in (
        (["dump.rdb", "b.rdb", folder], "--sas-out is for one FILE"),
        (["-", url], "--sas-out is for one FILE"),
        (["a*.rdb", url], "AzCopy takes a*.rdb for a pattern"),
        (["none.rdb", url], "none.rdb is no file, or not there"),
        (["dump.rdb", url, "--page-blob"], "--sas-out sends nothing, so that --page-blob has nothing to say"),
        (["dump.rdb", url, "--target", "azure-premium"], "--sas-out sends nothing, so that --target has nothing to say"),
    ):
        code, text, err = upload(shell, *arguments, "--sas-out", "sas.txt")
        assert (code, text) == (2, ""), (arguments, err)
        assert words in " ".join(err.split())
        assert not (shell.folder / "sas.txt").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("sas.gz", "leave out the .gz"),
        ("/dev/stdout", "/dev/stdout exists"),
        ("/dev/null", "/dev/null exists"),
        ("pipe", "pipe exists"),
    ],
)
def test_what_the_command_could_not_read_the_address_from(azure: Cloud, shell: Shell, out: str, words: str) -> None:
    (shell.folder / "dump.rdb").write_bytes(b"REDIS0009")
    os.mkfifo(shell.folder / "pipe")
    asked = len(azure.calls)
    code, text, err = upload(shell, "dump.rdb", azure.blob("dumps") + "/unread.rdb", "--sas-out", out)
    assert (code, text) == (2, "")
    assert words in " ".join(err.split())
    assert len(azure.calls) == asked


def test_the_address_of_another_blob_is_not_handed_over_with_its_sas(azure: Cloud, shell: Shell, blobs: str) -> None:
    from azure.storage.blob import generate_blob_sas

    azure.blob("dumps/from.rdb", b"REDIS0009")
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    sas = generate_blob_sas(ACCOUNT, "dumps", "from.rdb", account_key=KEY, permission="r", expiry=end)
    code, text, err = upload(shell, f"{blobs}/dumps/from.rdb?{sas}", f"{azure.account}/dumps/to.rdb", "--sas-out", "sas.txt")
    assert (code, text) == (2, ""), err
    assert "--sas-out is for one FILE, which is on this machine" in " ".join(err.split())


def test_blocks_in_the_way_of_azcopy_are_told(azure: Cloud, shell: Shell, blobs: str) -> None:
    from ..azurite import service

    url = azure.blob("dumps") + "/left.rdb"
    service(blobs).get_blob_client("dumps", "left.rdb").stage_block("x", b"left")
    (shell.folder / "dump.rdb").write_bytes(b"REDIS0009")
    code, _, err = upload(shell, "dump.rdb", url, "--sas-out", "sas.txt")
    assert code == 4
    assert "an upload that broke off has left 1 block, in the way of other programs: rdbkit upload --abort URL drops them" in err
    assert not (shell.folder / "sas.txt").exists()


def test_a_blob_that_is_there_is_told_since_azcopy_passes_it_over(azure: Cloud, shell: Shell) -> None:
    (shell.folder / "dump.rdb").write_bytes(b"REDIS0009")
    url = azure.blob("dumps/here.rdb", b"REDIS0009")
    code, text, err = upload(shell, "dump.rdb", url, "--sas-out", "sas.txt")
    assert (code, text) == (4, "")
    assert "the blob exists; --overwrite replaces it" in err
    assert upload(shell, "dump.rdb", url, "--sas-out", "sas.txt", "--overwrite")[0] == 0
    url = azure.blob("dumps/page.rdb", bytes(512), "PageBlob")
    code, text, err = upload(shell, "dump.rdb", url, "--sas-out", "page.txt", "--overwrite")
    assert (code, text) == (4, "")
    assert "of another type; delete it first" in err


def test_a_sas_that_is_given_is_passed_on(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps") + "/given.rdb"
    (shell.folder / "dump.rdb").write_bytes(b"REDIS0009")
    sas = "sv=2025-11-05&sr=b&sp=r&se=2999-01-01T00:00:00Z&sig=c2VjcmV0"
    code, _, err = upload(shell, "dump.rdb", f"{url}?{sas}", "--sas-out", "sas.txt")
    assert code == 4
    assert not (shell.folder / "sas.txt").exists()
    assert err.count("given.rdb") == 1
