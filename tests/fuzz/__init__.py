"""Inputs that break rules on purpose, real servers that say what they do with them, and the loop that looks for more."""
