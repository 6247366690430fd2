"""Benchmarks of rdbkit; not installed with it."""
