"""Bringing snapshots into Azure; the one room that imports its packages (extra `azure`), and only inside of functions."""
