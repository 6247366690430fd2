"""Tests that need real servers are collected only where RDBKIT_SERVERS names the folder that fixtures/servers.sh filled.

Hypothesis has no time limit for an example, since how long one takes says how busy the machine is. HYPOTHESIS_PROFILE=ci, which
.ci/run sets, takes the same examples in every run.
"""

import os

from hypothesis import HealthCheck, settings

collect_ignore = [] if os.environ.get("RDBKIT_SERVERS") else ["servers"]

settings.register_profile("rdbkit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("rdbkit"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rdbkit"))
