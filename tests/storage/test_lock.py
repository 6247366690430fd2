"""A file that one process has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rdbkit.storage.lock import locked


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")
def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    for _ in range(2):
        with locked(path):
            with pytest.raises(BlockingIOError), locked(path):
                pass
            with locked(path + "2"):
                pass
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "state.lock").touch()  # of one that was killed
    with locked(path):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), locked(str(tmp_path / "no" / "state")):
        pass
