"""What is known of a file without opening it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from rdbkit.storage.location import (
    Identity,
    check_distinct,
    exists,
    file_id,
    file_size,
    fingerprint,
    folder_size,
    is_file,
    is_folder,
    is_link,
    is_rereadable,
    is_same_file,
    is_taken,
    real_path,
    revision,
    total_size,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file, a hard link, a symbolic link, one to nothing, and a named pipe; the names are those of the current folder."""
    (tmp_path / "file").write_bytes(b"REDIS0011" + bytes(30))
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    (tmp_path / "soft").symlink_to("file")
    (tmp_path / "loose").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "-").write_bytes(b"not standard input")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_there(folder: Path) -> None:
    names = ["file", "soft", "loose", "pipe", ".", "none"]
    assert [exists(name) for name in names] == [True, True, False, True, True, False]
    assert [is_taken(name) for name in names] == [True, True, True, True, True, False]
    assert [is_file(name) for name in names] == [True, True, False, False, False, False]
    assert [is_folder(name) for name in names] == [False, False, False, False, True, False]
    assert [is_link(name) for name in names] == [False, True, True, False, False, False]
    assert real_path("soft") == real_path(folder / "file")


def test_what_can_be_read_again_and_its_size(folder: Path) -> None:
    for name in ("file", "soft", folder / "hard"):
        assert is_rereadable(name)
        assert file_size(name) == 39
    for src in ("-", "pipe", ".", "none", "loose", io.BytesIO(b"x"), None):
        assert not is_rereadable(src)
        assert file_size(src) is None
    assert total_size(["file", "-", "pipe", "hard", "none"]) == 78
    assert total_size([]) == 0
    assert folder_size(".") == 39 + 39 + 18


def test_which_file_it_is(folder: Path) -> None:
    assert is_same_file("file", "hard")
    assert is_same_file("file", folder / "soft")
    for one, other in (("file", "-"), ("file", "none"), ("none", "none"), ("pipe", "pipe"), (io.BytesIO(), "file"), ("-", "-")):
        assert not is_same_file(one, other)
    assert file_id("file") == file_id("hard") == file_id("soft") != file_id("-")
    check_distinct(["file", "pipe", "-", "-"])
    with pytest.raises(ValueError, match="soft and file are the same file"):
        check_distinct(["file", "soft"])
    with pytest.raises(FileNotFoundError):
        check_distinct(["none"])


def test_whether_it_has_changed(folder: Path) -> None:
    before, known, printed = revision("file"), Identity.of("file"), fingerprint("soft")
    assert before == (39, (folder / "file").stat().st_mtime_ns)
    assert printed == ["soft", *before, (b"REDIS0011" + bytes(7)).hex(), bytes(16).hex()]
    (folder / "file").write_bytes(b"REDIS0012")
    os.utime("file", ns=(1, 1))
    assert revision("file") == (9, 1)
    assert known is not None
    assert known.is_changed_in(Identity.of("file"))
    assert fingerprint("file") == ["file", 9, 1, b"REDIS0012".hex(), b"REDIS0012".hex()]
    assert Identity.of("pipe") is None
    with pytest.raises(FileNotFoundError):
        revision("none")
