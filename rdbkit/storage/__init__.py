"""Bytes in and out: where a snapshot is read from and written to, and how fast."""
