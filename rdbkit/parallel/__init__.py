"""One file on several cores."""
