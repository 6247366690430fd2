"""Tests that need real servers are collected only where RDBKIT_SERVERS names the folder that fixtures/servers.sh filled.

Hypothesis has no time limit for an example, since how long one takes says how busy the machine is. HYPOTHESIS_PROFILE=ci, which
.ci/run sets, takes the same examples in every run; HYPOTHESIS_PROFILE=few takes ten, for which lines run.

Of the parameters of a test with the marker `one_in(n)`, the first and every n-th after it are in each run; the others are
exhaustive.

A loss of a kind that policy/losses.toml does not have ends a test.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.losses import loss_kinds

collect_ignore = [] if os.environ.get("RDBKIT_SERVERS") else ["servers"]

settings.register_profile("rdbkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("rdbkit"), derandomize=True)
settings.register_profile("few", settings.get_profile("ci"), max_examples=10)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rdbkit"))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("one_in")
        if marker is None or item.get_closest_marker("exhaustive") is not None:
            continue
        test = item.nodeid.partition("[")[0]
        if seen[test] % marker.args[0]:
            item.add_marker(pytest.mark.exhaustive)
        seen[test] += 1


_add = Ledger.add


def _add_known(self: Ledger, loss: Loss, forbidden: bool = False) -> None:
    assert loss.kind in loss_kinds(), f"losses.toml has no kind {loss.kind!r}"
    _add(self, loss, forbidden)


@pytest.fixture(autouse=True)
def _known_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "add", _add_known)
