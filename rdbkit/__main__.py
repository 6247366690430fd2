"""`python -m rdbkit`."""

from rdbkit.cli import main

main()
