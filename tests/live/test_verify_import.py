"""What `verify-import` does before a server is asked: options, passwords, and the file of its state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rdbkit.cli import cli
from rdbkit.live.verify_import import ImportDifference, ImportedDatabase, ImportProof, _State, verify_import
from rdbkit.storage.location import fingerprint

from ..rdb import FIXTURES

FILE = str(FIXTURES / "rich" / "redis-7.0.15.rdb")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ca-cert", FILE, "redis://h"], "are for rediss://"),
        (["--no-verify-tls", "redis://h"], "are for rediss://"),
        (["--entra", "redis://h"], "write rediss://"),
        (["--entra", "rediss://u:p@h"], "exclude each other"),
        (["--pick", "0", "redis://h"], "neither a number of keys nor a share"),
        (["--pick", "100%", "redis://h"], "neither a number of keys nor a share"),
        (["--map-db", "1", "redis://h"], "no pair of databases"),
        (["--map-db", "1=0,1=2", "redis://h"], "there twice"),
        (["--ttl-tolerance", "soon", "redis://h"], "no duration"),
        (["--rate", "0", "redis://h"], "not in the range"),
        (["--rate", "1e-300", "redis://h"], "not in the range"),
        (["--rate", "inf", "redis://h"], "no number that can be worked with"),
        (["--rate", "nan", "redis://h"], "no number that can be worked with"),
        (["--pick", "nan%", "redis://h"], "neither a number of keys nor a share"),
        (["--pick", "9" * 400, "redis://h"], "neither a number of keys nor a share"),
    ],
)
def test_wrong_usage(options: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["verify-import", FILE, *options])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_what_is_no_server_and_no_path_is_told() -> None:
    with pytest.raises(TypeError, match="a server is a URL, as in redis://localhost:6379, or what connect gives, not int"):
        verify_import(FILE, 6379)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a path, str or PathLike.*, not int"):
        verify_import([3], "redis://localhost")  # type: ignore[list-item]
    with pytest.raises(ValueError, match="redis://"):
        verify_import(FILE, "localhost:6379")


def test_an_empty_password_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    result = CliRunner().invoke(cli, ["verify-import", FILE, "redis://h", "--password-file", str(tmp_path / "password")])
    assert result.exit_code == 2
    assert "no password" in result.output


def test_a_state_is_kept_whole_and_belongs_to_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.verify_import._SAVE_S", 0)
    data = tmp_path / "a.rdb"
    data.write_bytes(Path(FILE).read_bytes())
    path = str(tmp_path / "state.json")

    def state(**other: Any) -> _State:
        return _State(path, {"files": [fingerprint(str(data))], "server": ["h", 1, None], "options": []} | other, [])

    assert state().load() is None
    state().save(lambda: {"place": [0, 3]})
    assert state().load() == {"place": [0, 3]}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".rdbkit")] == []
    with pytest.raises(ValueError, match="another server"):
        state(server=["other", 1, None]).load()
    with pytest.raises(ValueError, match="other options"):
        state(options=[1]).load()
    with data.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="has changed"):
        state().load()
    for text in ("nonsense", "[]", "{}", "[" * 100_000):
        Path(path).write_text(text)
        with pytest.raises(ValueError, match="no state of rdbkit verify-import"):
            state().load()
    state().file.remove()
    state().file.remove()
    assert not Path(path).exists()


def is_same(proof: ImportProof) -> bool:
    return proof.same


def test_what_is_the_same() -> None:
    proof = ImportProof("redis://h:1", "standalone", None, ["a.rdb"])
    proof.databases = [ImportedDatabase(0, keys=10, expired=2, server=8)]
    assert is_same(proof)
    proof.databases[0].server = 7
    assert proof.databases[0].fewer == 1
    assert not is_same(proof)
    proof.counted = False
    assert is_same(proof)
    for name in ("missing", "type", "value", "expire", "refused", "extra"):
        setattr(proof, name, 1)
        assert not is_same(proof)
        setattr(proof, name, 0)
    row = ImportedDatabase(0, keys=10, expired=2, server=13, missing=1)
    assert (row.more, row.unclear, row.fewer) == (4, 0, 0)
    assert ImportedDatabase(0, keys=10, expired=2, server=9).unclear == 1
    proof.samples = [ImportDifference("extra", 0, b"\xff"), ImportDifference("missing", 0, b"k", file="a\udcff.rdb", offset=3)]
    shown = json.loads(json.dumps(proof.to_dict()))
    assert [row["key"] for row in shown["samples"]] == [{"base64": "/w=="}, "k"]
    assert shown["databases"][0]["fewer"] == 1
    assert shown["same"] is True
