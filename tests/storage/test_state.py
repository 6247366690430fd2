"""Files by which a run goes on where another has ended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rdbkit.azure.pending_operation import PendingOperation
from rdbkit.live.verify_import import _State
from rdbkit.storage.state import StateFile
from rdbkit.storage.temporary import PRIVATE


def state(path: Path, **other: Any) -> StateFile:
    return StateFile(str(path), "rdbkit x", 3, [], **other)


def test_what_is_saved_is_loaded_and_removed(tmp_path: Path) -> None:
    kept = state(tmp_path / "s.json")
    assert kept.load() is None
    kept.save({"done": [1, 2]})
    kept.save({"done": [1, 2, 3], "name": "caf\udce9"})
    assert json.loads((tmp_path / "s.json").read_bytes())["format"] == 3
    assert state(tmp_path / "s.json").load() == {"done": [1, 2, 3], "name": "caf\udce9"}
    assert os.listdir(tmp_path) == ["s.json"]
    kept.remove()
    kept.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"REDIS0011", b"{", b"[]", b"null", b"3", b'{"format": 3', b"{}", b'{"format": 2}', b'{"format": "3"}',
        b'{"format": true}', b'{"format": 3.0}', b'{"format": [3]}', b'{"format": 3, "a": "\xff"}', b'{"a":' * 100_000,
        b'{"a":' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"format": 3}',
        '{"format": 3}'.encode("utf-16"), b'{"format": 3} {}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_state_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no state of rdbkit x; name another state file, or delete it") as e:
        state(path).load()
    assert str(e.value) == f"{path} is no state of rdbkit x; name another state file, or delete it"
    assert e.value.__suppress_context__
    assert path.read_bytes() == content


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.storage.state._MOST_BYTES", 20)
    path = tmp_path / "s.json"
    path.write_text('{"format": 3, "a":1}')
    assert state(path).load() == {"a": 1}
    path.write_text('{"format": 3, "a":12}')
    with pytest.raises(ValueError, match="is no state"):
        state(path).load()


def test_what_is_wrong_with_the_content_is_told_in_the_same_words(tmp_path: Path) -> None:
    kept = state(tmp_path / "s.json")
    for wrong in (ValueError(), TypeError(), KeyError("a"), IndexError(), AttributeError(), RecursionError()):
        with pytest.raises(ValueError, match="is no state of rdbkit x"), kept.reading():
            raise wrong
    with pytest.raises(OSError, match="disk"), kept.reading():
        raise OSError("disk")


def test_errors_of_the_system_name_the_file(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "Is a directory"), (tmp_path / "none" / "s.json", "No such file")):
        with pytest.raises(OSError, match=said) as e:
            state(path).save({})
        assert e.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        state(tmp_path).load()
    for name in ("-", "s.json.gz"):
        with pytest.raises(ValueError, match="plain text"):
            StateFile(name, "rdbkit x", 3, [])


def test_a_run_that_fails_to_write_leaves_the_last_state(tmp_path: Path) -> None:
    kept = state(tmp_path / "s.json")
    kept.save({"done": 1})
    with pytest.raises(TypeError):
        kept.save({"done": object()})
    assert kept.load() == {"done": 1}
    assert os.listdir(tmp_path) == ["s.json"]


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_nobody_reads_it_who_may_not_read_its_sources(tmp_path: Path) -> None:
    source = tmp_path / "s.rdb"
    source.write_bytes(b"")
    source.chmod(0o600)
    path = tmp_path / "s.json"
    for sources in ([str(source)], [PRIVATE]):
        StateFile(str(path), "rdbkit x", 3, sources).save({})
        assert path.stat().st_mode & 0o777 == 0o600
        path.unlink()
    path.write_text("{}")
    path.chmod(0o600)
    state(path).save({})
    assert path.stat().st_mode & 0o777 == 0o600, "nor that of a file that was there"


def test_states_of_earlier_releases_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    identity = {"files": [], "server": ["h", 1, None], "options": []}
    path.write_text(json.dumps({"rdbkit-verify-import": 1, **identity, "saved": {"place": [0, 3]}}))
    kept = _State(str(path), identity, [])
    assert kept.load() == {"place": [0, 3]}
    old = {"format": 1, "verb": "import", "resource_id": "/x", "blobs": [], "operation": "https://x", "begun": 1.0, "place": ""}
    path.write_text(json.dumps(old, indent=1))
    left = PendingOperation.read(str(path))
    assert left is not None
    assert (left.verb, left.operation) == ("import", "https://x")
    left.save()
    assert json.loads(path.read_bytes()) == old
    with pytest.raises(ValueError, match="no state of rdbkit verify-import"):
        kept.load()
