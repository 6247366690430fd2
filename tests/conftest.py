"""Tests that need real servers are collected only where RDBKIT_SERVERS names the folder that fixtures/servers.sh filled."""

import os

collect_ignore = [] if os.environ.get("RDBKIT_SERVERS") else ["servers"]
