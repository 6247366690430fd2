"""Build step that compiles the hot modules with mypyc. Everything else about the package stands in pyproject.toml.

The sources are ordinary Python and run as they are. A wheel built where a C compiler is found holds them compiled, with
the `.py` beside each; it holds them plain

- when the environment has RDBKIT_PURE=1,
- for an editable install, so that no stale extension shadows a `.py` that is being edited,
- when mypyc cannot be imported, or fails, or any of its modules does not build.

It is all or nothing: a half-built set of extensions cannot be imported, so it is never installed.

mypyc writes one C file a module, and as many compilers run as there are processors. Every build has a folder of its own, gone at
its end: two at the same time do not meet, and nothing of an earlier one is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.install_lib import install_lib
from setuptools.errors import SetupError

# The rooms whose code runs once a record or element (docs/architecture.md). Data alone (constants.py) gains nothing from it.
COMPILED = sorted(
    path.replace(os.sep, "/")
    for room in ("format", "passes")
    for path in glob(f"rdbkit/{room}/*.py")
    if os.path.basename(path) not in {"__init__.py", "constants.py"}
)

# The commands that end in a wheel or in an install from one, and those whose result is the build folder itself. Metadata, sdist and
# editable builds need no extension.
INSTALLING_COMMANDS = {"bdist_wheel", "install"}
BUILDING_COMMANDS = {"build", "build_ext"}
PLAIN_COMMANDS = {"editable_wheel", "develop"}

# mypyc's own reading of the sources. The strict check is CI's; here the project's dependencies are not installed, and
# what matters is only the types inside the compiled modules. A cache would leave files behind and go stale.
MYPY_OPTIONS = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", f"--cache-dir={os.devnull}"]

# A compiler takes up to 150 MB. More of them gain little: the largest file takes a tenth of the time of all.
MOST_COMPILERS = 8


class BuildAllOrNothing(build_ext):
    """build_ext that compiles several C files at a time, and takes every extension away again when one of them did not build."""

    def build_extensions(self) -> None:
        # The number may be given: `build_ext --parallel 4`. Other compilers than those of Unix are not known to bear it.
        self.parallel = self.parallel or (processors() if self.compiler.compiler_type == "unix" else 1)
        with ThreadPoolExecutor(self.parallel) as pool:
            compile_in_series = self.compiler.compile

            def compile_in_parallel(sources: Sequence[str], **options: Any) -> list[str]:
                # The largest first: none is left over for the end, when the other processors have nothing to do.
                largest_first = sorted(sources, key=os.path.getsize, reverse=True)
                objects = pool.map(lambda source: compile_in_series([source], **options), largest_first)
                return [path for paths in objects for path in paths]

            self.compiler.compile = compile_in_parallel
            super().build_extensions()
        built = [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]
        if not all(path.exists() for path in built):
            for path in built:
                path.unlink(missing_ok=True)
            self.extensions = []
            self.warn("rdbkit is installed as plain Python: its compiled modules did not build")


class InstallWhole(install_lib):
    """install_lib that ends the build when a module is missing; setuptools itself makes a wheel without it."""

    def run(self) -> None:
        super().run()
        files = self.get_outputs()
        missing = [os.path.normpath(path) for path in files if not os.path.exists(path)]
        if missing:
            raise SetupError(f"nothing is installed: {len(missing)} of {len(files)} files are missing, {missing[0]} among them")


def processors() -> int:
    """How many compilers to run at a time."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MOST_COMPILERS)


def native_extensions(folder: str) -> list[Extension]:
    """The extensions to build in `folder`, their C files written: none where the plain form is wanted, or the only one possible."""
    if os.environ.get("RDBKIT_PURE") == "1":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    try:
        # The group's name puts the shared part inside the package: rdbkit/_native__mypyc.*.so
        extensions = mypycify(
            [*MYPY_OPTIONS, *COMPILED],
            separate=[(COMPILED, "rdbkit._native")],
            multi_file=True,
            opt_level="3",
            debug_level="0",
            target_dir=folder,
        )
    except (Exception, SystemExit) as error:  # mypyc exits on an error in the sources
        print(f"rdbkit is installed as plain Python: mypyc failed ({error!r})", file=sys.stderr)
        return []
    for extension in extensions:
        extension.optional = True
        # A newer C compiler's new warning is no reason to install the slow form.
        extension.extra_compile_args = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
        if os.name == "posix":
            # Calls from one C file to another go straight, and within one may be inlined: nothing else calls into this library.
            extension.extra_compile_args.append("-fvisibility=hidden")
        # mypyc writes the header of a group with a dot in its name there, and looks for it in `folder`.
        extension.include_dirs.append(os.path.join(folder, "rdbkit"))
    return extensions


def run_setup(folder: str, **options: dict[str, str]) -> None:
    """setup() with the extensions, and `folder` for all that is built; `options` are further ones of commands."""
    setup(
        ext_modules=native_extensions(folder),
        cmdclass={"build_ext": BuildAllOrNothing, "install_lib": InstallWhole},
        options={"build": {"build_base": folder}, **options},
    )


commands = set(sys.argv[1:])
if commands & PLAIN_COMMANDS or not commands & (INSTALLING_COMMANDS | BUILDING_COMMANDS):
    setup()
elif commands & INSTALLING_COMMANDS:
    with TemporaryDirectory(prefix="rdbkit-build-") as temporary:
        run_setup(temporary, egg_info={"egg_base": temporary})
else:
    # A module deleted since the last build would otherwise be found there.
    shutil.rmtree("build", ignore_errors=True)
    run_setup("build")
