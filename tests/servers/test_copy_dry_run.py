"""What `copy --dry-run` says of logins and of a sample of the keys, without writing anything."""

from __future__ import annotations

from pathlib import Path

from rdbkit.live.copy import copy
from rdbkit.policy.rules import Policies

from ..rdb import FIXTURES
from .test_copy import fill, run, url
from .test_transfer import pair


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path) -> None:
    with pair("redis-8.0", "redis-6.0") as (a, b):
        fill(a, 50)
        a.pipeline([("HSET", "h", "f", "v"), ("HEXPIRE", "h", "1000", "FIELDS", "1", "f"), ("SELECT", "3"), ("SET", "in 3", "v")])
        b.call("SET", "key:7", "other")
        b.call("ACL", "SETUSER", "default", "-renamenx")
        done = run(a, b, "--dry-run", "--state", str(tmp_path / "state"))
        assert done.returncode == 1
        for line in (
            "In a sample of 52 keys of 52",
            "would lose data    1",
            "already on TARGET  1",
            "already on TARGET: key:7 (db 0)",
            "TARGET  writing",
        ):
            assert line in done.stdout, done.stdout
        assert "TARGET, large values in parts: RENAMENX: NOPERM" in done.stdout
        assert "rdbkit: nothing was written" in done.stderr
        assert b.items("KEYS", "*") == [b"key:7"]
        assert not (tmp_path / "state").exists()
        found = copy(url(a), url(b), dry_run=True, policies=Policies(loss="drop"), on_exists="skip")
        assert found.complete
        assert found.sample is not None
        assert (found.sample.keys, found.sample.existing, found.sample.lost) == (52, 1, 0)
        files = [each for each in (FIXTURES / "rich").glob("redis-6.0*.rdb") if "mod" not in each.name]
        found = copy(files[0], url(b), dry_run=True)
        assert found.complete
        assert b.items("KEYS", "*") == [b"key:7"]
