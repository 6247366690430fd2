"""A librt that the compiled form does not take: the sources run instead, and one line says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rdbkit.format.compiled import COMPILED

from .rdb import FIXTURES

DUMP = str(FIXTURES / "rich" / "redis-7.0.15.rdb")

#: Lets the first attempt to load the module fail as its extension does.
REFUSING = """
import importlib.abc, sys
class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "rdbkit.format.primitives":
            raise {error}
sys.meta_path.insert(0, Refusing())
"""
#: A librt whose interface of C has another version; what it offers to Python is the same.
OTHER_LIBRT = """
import ctypes, importlib.util, os, sys
here = os.path.dirname(os.path.abspath(__file__))
for folder in sys.path:
    folder = os.path.join(folder, "librt")
    for name in os.listdir(folder) if folder != here and os.path.isdir(folder) else ():
        if name.startswith("strings.") and name.endswith((".so", ".pyd")):
            spec = importlib.util.spec_from_file_location("librt.strings", os.path.join(folder, name))
            real = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(real)
globals().update({name: value for name, value in vars(real).items() if not name.startswith("__")})
version = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 999)
table = (ctypes.c_void_p * 64)(*[ctypes.cast(version, ctypes.c_void_p)] * 64)
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_C_API = new(table, b"librt.strings._C_API", None)
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | environment
    )  # fmt: skip


def warned(text: str) -> bool:
    return (
        re.fullmatch(r"rdbkit:1: RuntimeWarning: slow: the compiled form does not load \(.*\); pip install 'librt.*\n", text)
        is not None
    )


def test_what_is_refused_runs_from_its_source() -> None:
    error = 'ValueError("ABI version conflict for librt.strings, expected 1, found 2")'
    code = REFUSING.format(error=error) + (
        "import rdbkit, rdbkit.format.compiled, rdbkit.passes.convert\n"
        "print(rdbkit.format.compiled.COMPILED, rdbkit.passes.convert.__file__[-3:], rdbkit.format.record.__file__[-3:])\n"
        "from rdbkit.cli import main\nmain(['info', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", code, DUMP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False .py .py\n")
    assert "27" in done.stdout
    assert warned(done.stderr)
    assert "ABI version conflict" in done.stderr


def test_other_processes_say_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        REFUSING.format(error='ImportError("no")')
        + "import rdbkit\nif __name__ == '__main__':\n"
        + f"    rdbkit.convert({DUMP!r}, {str(tmp_path / 'out.rdb')!r}, target='redis-7.2', jobs=2, block_size=4096)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, env=os.environ | {
        "PYTHONPATH": os.getcwd()
    })  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert warned(done.stderr)


def test_a_librt_of_another_interface(tmp_path: Path) -> None:
    """The real check, in the compiled form; the sources ask for none."""
    (tmp_path / "librt").mkdir()
    (tmp_path / "librt" / "__init__.py").write_text("")
    (tmp_path / "librt" / "strings.py").write_text(OTHER_LIBRT)
    done = run(
        "import rdbkit\nfrom rdbkit.format.compiled import COMPILED\n"
        f"print(COMPILED)\nprint(rdbkit.verify({DUMP!r}, deep=True).sound)",
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\nTrue\n"
    if COMPILED:
        assert warned(done.stderr)
        assert "999" in done.stderr
    else:
        assert done.stderr == ""


def test_no_librt_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "librt.py").write_text("raise ImportError('there is none')")
    done = run("import rdbkit", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert done.stderr.splitlines()[-1].startswith("ImportError: rdbkit needs another librt (")
    assert done.stderr.splitlines()[-1].endswith("): pip install 'librt>=0.16,<1'")


def test_the_usual_librt_says_nothing() -> None:
    done = run("import rdbkit, rdbkit.format.compiled; print(rdbkit.format.compiled.COMPILED)")
    assert (done.stdout, done.stderr) == (f"{COMPILED}\n", "")


def test_the_dependency_is_what_the_message_says() -> None:
    from rdbkit.loading import _RANGE

    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if pyproject.exists():
        assert f'"{_RANGE}"' in pyproject.read_text()
