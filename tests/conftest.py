"""Tests that need real servers are collected only where RDBKIT_SERVERS names the folder that fixtures/servers.sh filled."""

import os

collect_ignore_glob = [] if os.environ.get("RDBKIT_SERVERS") else ["*test_servers.py", "*_servers.py"]
