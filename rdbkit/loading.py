"""Which form of the compiled modules runs: the extensions, or their sources where those cannot be loaded.

Extensions hold to the C interface of the librt that they were built for: another one, of a later release, is refused when they are
loaded (mypyc, lib-rt/strings/librt_strings_api.c). A newer librt, which any other package may bring, shall not end rdbkit.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Final

_PACKAGE: Final = "rdbkit"
#: A module that uses librt, whose extension therefore checks it.
_CHECKS: Final = f"{_PACKAGE}.format.primitives"
_RANGE: Final = "librt>=0.16,<1"


class _Sources(MetaPathFinder):
    """Finds the `.py` beside each extension of this package."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        for folder in path or ():
            found = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)
            if found is not None:
                return found
        return None


def _choose_form() -> None:
    """Load the extensions, where there are any, or see to it that the sources are loaded, with a warning.

    Raises: ImportError where librt is missing, or has not what the sources use.
    """
    before = set(sys.modules)
    try:
        importlib.import_module(_CHECKS)
    except (ImportError, ValueError, AttributeError) as e:
        for name in set(sys.modules) - before:
            if name.startswith(f"{_PACKAGE}."):
                del sys.modules[name]
        sys.meta_path.insert(0, _Sources())
        try:
            importlib.import_module(_CHECKS)
        except ImportError as other:
            raise ImportError(f"rdbkit needs another librt ({other}): pip install '{_RANGE}'", name="librt") from None
        # Not of a line of code. A process that another one has started to share its work says nothing: that one has.
        if "--multiprocessing-fork" not in sys.orig_argv:
            message = f"slow: the compiled form does not load ({e}); pip install '{_RANGE}', or a newer rdbkit"
            warnings.warn_explicit(message, RuntimeWarning, _PACKAGE, 1)


_choose_form()
