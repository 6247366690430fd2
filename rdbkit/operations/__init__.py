"""One module a verb: open snapshots in, typed reports out."""
