"""Build step that compiles the hot modules with mypyc. Everything else about the package stands in pyproject.toml.

The sources are ordinary Python and run as they are. A wheel built where a C compiler is found holds them compiled, with
the `.py` beside each; it holds them plain

- when the environment has RDBKIT_PURE=1,
- for an editable install, so that no stale extension shadows a `.py` that is being edited,
- when mypyc cannot be imported, or fails, or any of its modules does not build.

It is all or nothing: a half-built set of extensions cannot be imported, so it is never installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The rooms whose code runs once a record or element (docs/architecture.md). Data alone (constants.py) gains nothing from it.
COMPILED = sorted(
    path.replace(os.sep, "/")
    for room in ("format", "passes")
    for path in glob(f"rdbkit/{room}/*.py")
    if os.path.basename(path) not in {"__init__.py", "constants.py"}
)

# The commands that end in a wheel or in an install from one. Metadata, sdist and editable builds need no extension.
COMPILING_COMMANDS = {"bdist_wheel", "build", "build_ext", "install"}
PLAIN_COMMANDS = {"editable_wheel", "develop"}

# mypyc's own reading of the sources. The strict check is CI's; here the project's dependencies are not installed, and
# what matters is only the types inside the compiled modules. A cache would leave files behind and go stale.
MYPY_OPTIONS = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={os.devnull}"]


class BuildAllOrNothing(build_ext):
    """build_ext that takes every extension away again when one of them did not build."""

    def build_extensions(self) -> None:
        super().build_extensions()
        built = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        if not all(path.exists() for path in built):
            for path in built:
                path.unlink(missing_ok=True)
            self.extensions.clear()
            self.warn("rdbkit is installed as plain Python: its compiled modules did not build")


def native_extensions() -> list[Extension]:
    """The extensions to build in this run: none where the plain form is wanted, or the only one possible."""
    commands = set(sys.argv[1:])
    if not commands & COMPILING_COMMANDS or commands & PLAIN_COMMANDS:
        return []
    # A module deleted since the last build would otherwise be installed from there.
    shutil.rmtree("build", ignore_errors=True)
    if os.environ.get("RDBKIT_PURE") == "1":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    try:
        # The group's name puts the shared part inside the package: rdbkit/_native__mypyc.*.so
        extensions = mypycify([*MYPY_OPTIONS, *COMPILED], opt_level="3", separate=[(COMPILED, "rdbkit._native")])
    except (Exception, SystemExit) as error:  # mypyc exits on an error in the sources
        print(f"rdbkit is installed as plain Python: mypyc failed ({error!r})", file=sys.stderr)
        return []
    for extension in extensions:
        extension.optional = True
        # A newer C compiler's new warning is no reason to install the slow form.
        extension.extra_compile_args = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
    return extensions


setup(ext_modules=native_extensions(), cmdclass={"build_ext": BuildAllOrNothing})
