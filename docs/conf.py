"""Sphinx settings. Build with `sphinx-build -n -W --keep-going docs OUTPUT`."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = _project["name"]
release = version = _project["version"]
author = "the rdbkit authors"
copyright = "2026, the rdbkit authors"  # noqa: A001 (the name that Sphinx reads)

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {"description": _project["description"], "page_width": "1160px"}
html_show_sourcelink = False
