"""A file as a sequence of records."""
