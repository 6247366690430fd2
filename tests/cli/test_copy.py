"""What `rdbkit copy` prints at its end."""

from __future__ import annotations

import pytest

from rdbkit.cli.copy import _show
from rdbkit.cli.render import output
from rdbkit.live.copy import Copied, Preparation, Side
from rdbkit.live.reading import Counts
from rdbkit.targets.target import find_target


def test_keys_of_earlier_runs_do_not_make_a_copy_faster(capsys: pytest.CaptureFixture[str]) -> None:
    side = Side("redis://h", None, "standalone", 1, None, None, None, [])
    prepared = Preparation(side, side, find_target("redis-7.0"), [0], 0, [])
    done = Copied(prepared, counts=Counts(read=1_000_500, written=1_000_500), resumed=True, earlier=1_000_000, seconds=2.0)
    _show(done, output())
    assert "all keys are on TARGET: 2.0 s, 250 keys a second" in capsys.readouterr().out
