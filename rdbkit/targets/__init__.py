"""What servers and services load, which commands they have, how they lay data out in memory: TOML files with a loader each."""
