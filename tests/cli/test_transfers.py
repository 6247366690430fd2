"""Every verb that reads a file says in one line what has become of it, prints and leaves nothing of it, and ends with 3."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ..command_line import run_text
from ..rdb import FIXTURES

TRANSFERS = FIXTURES / "transfers"
DUMP = (FIXTURES / "rich" / "redis-7.0.15.rdb").read_bytes()
NO_FILE = {
    "lfs": ((TRANSFERS / "lfs-pointer.rdb").read_bytes(), "git lfs pull"),
    "header": ((TRANSFERS / "header-stripped.rdb").read_bytes(), "`REDIS` is missing in front of `0009`"),
    "bom": (b"\xef\xbb\xbf" + DUMP, "byte order mark"),
    "utf-16": (b"\xff\xfe" + DUMP.decode("latin-1").encode("utf-16-le"), "UTF-16"),
    "html": (b"<!DOCTYPE html><html></html>", "a page of HTML"),
    "refused": (b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required"),
    "zeros": (bytes(1000), "zeros to the end of the file (1,000 bytes)"),
    "gzip": (gzip.compress(gzip.compress(gzip.compress(gzip.compress(DUMP)))), "compressed more than 3 times over"),
}
CHANGED = {
    "zero-tail": ((TRANSFERS / "zero-tail.rdb").read_bytes(), "zeros to the end of the file (1,000 bytes)"),
    "replaced": ((TRANSFERS / "text-mangled-utf8.rdb").read_bytes(), "EF BF BD"),
    "crlf": (DUMP.replace(b"\n", b"\r\n"), "CR LF of every line feed"),
}
#: `{}` is the file, `{out}` what is written.
VERBS = {
    "info": "info {}",
    "check": "check {} --target azure-premium",
    "verify": "verify {} --deep",
    "memory": "memory {} --target redis-7.0",
    "plan": "plan {} --target azure-managed",
    "keys": "keys {}",
    "get": "get {} no-such-key",
    "export": "export {}",
    "export-resp": "export {} --format resp --target redis-7.0 -o {out}",
    "export-file": "export {} -o {out}",
    "convert": "convert {} {out} --target redis-6.0",
    "redact": "redact {} {out} --random",
    "split": "split {} --into {out} --parts 2",
    "merge": "merge {} -o {out}",
    "diff": "diff {} {good}",
    "salvage": "salvage {} {out}",
}
FINDINGS = ("check", "verify", "salvage")  # these say more than that it cannot be read


def run(verb: str, data: bytes, tmp_path: Path) -> tuple[int, str, str]:
    folder = tmp_path / "folder"
    folder.mkdir()
    path, good = tmp_path / "dump.rdb", tmp_path / "good.rdb"
    path.write_bytes(data)
    good.write_bytes(DUMP)
    words = [word.format(path, out=folder / "out", good=good) for word in VERBS[verb].split(" ")]
    done = run_text(*words, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    if verb != "salvage" or done.returncode:
        assert list(folder.iterdir()) == []
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", NO_FILE)
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_snapshot_is_named_in_one_line(verb: str, kind: str, tmp_path: Path) -> None:
    data, words = NO_FILE[kind]
    code, out, err = run(verb, data, tmp_path)
    assert code == 3
    assert (out if verb not in ("keys",) else out.count("\n") * "") == ""
    assert err.count("\n") == 1
    assert err.startswith("rdbkit: ")
    assert words in err


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.parametrize("verb", VERBS)
def test_what_was_changed_is_named_in_one_line(verb: str, kind: str, tmp_path: Path) -> None:
    data, words = CHANGED[kind]
    code, out, err = run(verb, data, tmp_path)
    assert "newer rdbkit" not in out + err
    if verb in FINDINGS and code != 3:
        assert code in (0, 1) if verb == "salvage" else code == 1
        assert words in out or verb == "salvage"
        return
    assert code == 3
    assert err.count("\n") == 1
    assert words in err
    if verb == "keys":
        assert all(row.startswith(("db,", "0,pre", "0,post")) for row in out.splitlines())
    if verb == "export":
        assert all('"key":"p' in row for row in out.splitlines())
    if kind == "zero-tail" and verb in ("keys", "export"):
        assert "post4" in out
        assert "post5" not in out
