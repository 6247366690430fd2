"""How much memory may be taken by what has to be held of one file, however small the file is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import LimitError, RdbError

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Bytes that may be held of one file unless said otherwise; the default of `rdbkit.Limits`.
HELD_BYTES: Final = 64 << 20
#: And for each byte that was read of the file, as it is on disk: pending entries take eleven times what they take there. A
#: small file that unpacks to much gets no more.
_FOR_EACH_BYTE: Final = 16
_MOST_HELD: Final = 1 << 30
#: Bytes that an object takes besides its content, roughly, with its place in a list, set or dictionary.
OBJECT: Final = 200
#: The same of a name, of which there are many.
NAME: Final = 80
#: Bytes that are kept of a database: counts, and where it stands.
DATABASE: Final = 1600
#: The `rule` of an error about what is held, which says nothing against the file.
HELD: Final = "held"
#: What the errors about limits end with.
HOW_TO_RAISE: Final = "--max-memory or rdbkit.Limits allows more"


class Budget:
    """What is held of one file, all together.

    Args:
        limit: bytes that may be held.

    Attributes:
        held: bytes so far, with what objects take besides their content.
    """

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self.limit: i64 = limit
        self.held: i64 = 0

    def grow(self, read: i64) -> None:
        """So many bytes of the file, compressed where it is, were read: more may be held of a large file than of a small one."""
        self.limit = max(self.limit, min(HELD_BYTES + _FOR_EACH_BYTE * read, _MOST_HELD))

    def spend(self, what: str, size: i64) -> None:
        """Something that takes `size` bytes is going to be held.

        Args:
            what: of what there is too much when the limit is reached, in the plural.

        Raises: LimitError.

        >>> budget = Budget(1000)
        >>> budget.spend("names", 600)
        >>> budget.held
        600
        """
        self.held += size
        if self.held > self.limit:
            self.held -= size
            raise LimitError(f"{what} take more than the {self.limit} bytes that may be held of a file; {HOW_TO_RAISE}", rule=HELD)

    def check(self, what: str, size: i64) -> None:
        """Raise as `spend` does where `size` bytes more cannot be held; they are not counted."""
        self.spend(what, size)
        self.held -= size

    def give_back(self, size: i64) -> None:
        """Something of `size` bytes is held no more."""
        self.held -= size

    def keep(self, e: RdbError) -> RdbError:
        """An error that is reported later; where it was raised, which may lead to whole blocks of the file, is forgotten.

        Raises: LimitError.
        """
        size: i64 = 5 * OBJECT + len(e.message)
        if e.key is not None:
            size += len(e.key)
        self.spend("errors", size)
        e.__traceback__ = None
        e.__context__ = None
        return e
