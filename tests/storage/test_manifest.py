"""Manifests of append-only folders, as servers write them and as others may."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

import rdbkit
from rdbkit.storage.manifest import find_manifest, folder_of, newer_beside, read_manifest

from ..rdb import FIXTURES

FOLDER = FIXTURES / "aof" / "appendonlydir"


def manifest(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "appendonly.aof.manifest"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_files_in_the_order_in_which_they_are_loaded() -> None:
    found = read_manifest(str(FOLDER / "appendonly.aof.manifest"))
    assert [os.path.basename(path) for path in found.files] == ["appendonly.aof.2.base.rdb", "appendonly.aof.2.incr.aof"]
    assert found.folder == str(FOLDER)
    assert found.missing() == []
    assert find_manifest(str(FOLDER)) == find_manifest(found.path) == found.path
    assert find_manifest(str(FIXTURES)) is find_manifest(str(FOLDER / "appendonly.aof.2.base.rdb")) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("file a.1.base.rdb seq 1 type b\nfile b seq 1 type i\nfile a.2.incr.aof seq 2 type i\n", "a.1.base.rdb b a.2.incr.aof"),
        ("file a.2.incr.aof seq 2 type i\nfile a.9.base.aof seq 9 type b\nfile old seq 1 type h\n", "a.9.base.aof a.2.incr.aof"),
        ("# a comment\nFILE a SEQ 1 TYPE base startoffset 5 endoffset 9\n", "a"),
        ("type i seq 3 file a", "a"),
        ('file "a \\"b\\" \\x41\\n\\t" seq 1 type i\n', 'a "b" A\n\t'),
        ("file 'a\\'b' seq 1 type i\r\n", "a'b"),
        (b"file \xff\xfe seq 1 type b\n", "\udcff\udcfe"),
    ],
)  # fmt: skip
def test_what_servers_read(text: str | bytes, names: str, tmp_path: Path) -> None:
    found = read_manifest(str(manifest(tmp_path, text)))
    wanted = [names] if names[0] == "a" and names[1:2] in (" ", "'") and "incr" not in names else names.split(" ")
    assert [os.path.relpath(path, tmp_path) for path in found.files] == wanted
    assert found.missing() == found.files


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the manifest names no files"),
        ("file old seq 1 type h\n", "the manifest names no files"),
        ("file a seq 1 type b\n\nfile b seq 1 type i\n", "line 2 of the manifest: it does not have the form"),
        ("file a seq 1\n", "line 1 of the manifest: it does not have the form"),
        ("file a seq 1 type\n", "it does not have the form"),
        ("file a seq 0 type b\n", "it does not have the form"),
        ("file a seq -1 type b\n", "it does not have the form"),
        ("file a seq x type b\n", "it does not have the form"),
        ("file '' seq 1 type b\n", "it does not have the form"),
        ("file a seq 1 type x\n", "no type of file is called 'x'"),
        ('file "a seq 1 type b\n', "a quote in it does not end"),
        ('file "a"b seq 1 type b\n', "a quote in it does not end"),
        ("file a seq 1 type b\nfile b seq 2 type b\n", "line 2 of the manifest: it names two bases"),
        ("file a seq 2 type i\nfile b seq 2 type i\n", "the increments are not in their order"),
        ("file ../a seq 1 type b\n", "'../a' is not the name of a file beside it"),
        ("file /etc/passwd seq 1 type b\n", "'/etc/passwd' is not the name of a file beside it"),
        ('file "\\x2fetc" seq 1 type b\n', "'/etc' is not the name of a file beside it"),
        ("file a\\b seq 1 type b\n", "is not the name of a file beside it"),
        ("file .. seq 1 type b\n", "'..' is not the name of a file beside it"),
        ('file "a\\x00" seq 1 type b\n', "is not the name of a file beside it"),
        ("#" * (1 << 20) + "\n", "no manifest: it has more than 1,048,576 bytes"),
    ],
)
def test_what_breaks_a_rule(text: str, why: str, tmp_path: Path) -> None:
    path = manifest(tmp_path, text)
    with pytest.raises(rdbkit.CorruptError) as e:
        read_manifest(str(path))
    assert why in str(e.value)
    assert e.value.source == str(path)


def test_a_folder_with_two_manifests(tmp_path: Path) -> None:
    manifest(tmp_path, "file a seq 1 type b\n")
    (tmp_path / "other.manifest").write_text("file b seq 1 type b\n")
    with pytest.raises(rdbkit.CorruptError, match=r"several manifests: appendonly.aof.manifest, other.manifest; name one"):
        find_manifest(str(tmp_path))


def test_what_is_newer_than_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "a.aof.2.base.rdb"
    base.write_bytes(b"REDIS0010")
    assert newer_beside(str(base)) is None
    (tmp_path / "a.aof.2.incr.aof").write_bytes(b"")
    assert newer_beside(str(base)) == ()
    (tmp_path / "a.aof.3.incr.aof").write_bytes(b"*1\r\n")
    (tmp_path / "b.aof.3.incr.aof").write_bytes(b"*1\r\n")
    assert newer_beside(str(base)) == ("a.aof.3.incr.aof",)
    (tmp_path / "a.aof.manifest").write_text("file a.aof.2.base.rdb seq 2 type b\nfile a.aof.2.incr.aof seq 2 type i\n")
    assert newer_beside(str(base)) == ()
    (tmp_path / "a.aof.2.incr.aof").write_bytes(b"*1\r\n")
    assert newer_beside(str(base)) == ("a.aof.2.incr.aof",)
    monkeypatch.chdir(tmp_path)
    assert newer_beside(base.name) == ("a.aof.2.incr.aof",)
    packed = tmp_path / "a.aof.2.base.rdb.gz"
    packed.write_bytes(gzip.compress(b"REDIS0010"))
    assert newer_beside(str(packed)) == ("a.aof.2.incr.aof",)
    (tmp_path / "link").symlink_to(base)
    assert newer_beside("link") == ("a.aof.2.incr.aof",)
    (tmp_path / "a.aof.manifest").write_text("file a.aof.3.base.rdb seq 3 type b\nfile a.aof.2.incr.aof seq 2 type h\n")
    assert newer_beside(base.name) == ("a.aof.3.base.rdb",)  # a later one, which is missing
    assert newer_beside(str(FIXTURES / "rich" / "redis-7.0.15.rdb")) is None
    assert newer_beside("nowhere/a.aof.2.base.rdb") is None


def test_the_folder_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_of(str(FOLDER / "appendonly.aof.2.incr.aof")) == str(FOLDER)
    assert folder_of(str(FIXTURES / "aof" / "preamble-tail.aof")) is None
    monkeypatch.chdir(FOLDER)
    assert folder_of("appendonly.aof.2.base.rdb") == "."
