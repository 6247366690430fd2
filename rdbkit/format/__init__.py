"""The bytes of the format: no files, no policy, no printing."""
