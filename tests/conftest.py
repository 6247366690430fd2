"""Tests that need real servers are collected only where RDBKIT_SERVERS names the folder that fixtures/servers.sh filled.

Hypothesis has no time limit for an example, since how long one takes says how busy the machine is. HYPOTHESIS_PROFILE=ci, which
.ci/run sets, takes the same examples in every run; HYPOTHESIS_PROFILE=few takes ten, for which lines run.

A loss of a kind that policy/losses.toml does not have ends a test.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.losses import loss_kinds

collect_ignore = [] if os.environ.get("RDBKIT_SERVERS") else ["servers"]

settings.register_profile("rdbkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("rdbkit"), derandomize=True)
settings.register_profile("few", settings.get_profile("ci"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rdbkit"))

_add = Ledger.add


def _add_known(self: Ledger, loss: Loss, forbidden: bool = False) -> None:
    assert loss.kind in loss_kinds(), f"losses.toml has no kind {loss.kind!r}"
    _add(self, loss, forbidden)


@pytest.fixture(autouse=True)
def _known_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "add", _add_known)
