"""What files have and a payload of RESTORE has no place for is a loss that is told before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdbkit.errors import LossError
from rdbkit.live.copy_files import check_files
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.rules import Policies
from rdbkit.targets.target import find_target

from ..rdb import key, rdb, string


@pytest.mark.parametrize("jobs", [1, 2])
def test_metadata_of_a_key_is_lost(tmp_path: Path, jobs: int) -> None:
    metadata = b"\xf3\x01" + b"\x01\x02\x03\x04" + b"\x02\x05\0"
    path = tmp_path / "metadata.rdb"
    path.write_bytes(rdb(metadata + key(b"k", 0, string(b"v")), magic=b"REDIS0013"))
    ledger = Ledger()
    with pytest.raises(LossError):
        check_files([str(path)], find_target("rdb-13"), ConversionOptions(jobs=jobs), ledger)
    assert ledger.forbidden == {"key-metadata": 1}
    ledger = Ledger()
    check_files([str(path)], find_target("rdb-13"), ConversionOptions(Policies(key_metadata="drop"), jobs=jobs), ledger)
    assert (ledger.counts, ledger.forbidden) == ({"key-metadata": 1}, {})
