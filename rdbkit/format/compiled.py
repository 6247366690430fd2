"""Whether this package runs compiled; compiled itself, so that its own file tells."""

from __future__ import annotations

from typing import Final

#: What is fastest interpreted is seldom fastest compiled; the hottest loops have both.
COMPILED: Final = not __file__.endswith(".py")
