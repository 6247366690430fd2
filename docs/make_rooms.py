"""Draws the rooms of the package, and lists the modules of each: docs/rooms.svg, and the table in docs/architecture.md.

`python docs/make_rooms.py` writes both; with `--check` it exits with 1 if one of them is out of date. What is said of a room or
module is the first sentence of its docstring, and an arrow is an import that the code has.
"""

from __future__ import annotations

import ast
import difflib
import html
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rdbkit

DOCS = Path(__file__).parent
PACKAGE = Path(rdbkit.__file__).parent
PICTURE = DOCS / "rooms.svg"
PAGE = DOCS / "architecture.md"
BEGIN, END = "<!-- modules: written by docs/make_rooms.py -->\n", "<!-- end of modules -->\n"
#: Compiled by mypyc: setup.py takes all that stands in them.
COMPILED = ("format", "passes")

_WIDTH, _BOX, _HEIGHT, _ROW, _MARGIN = 1000, 226, 58, 96, 16


@dataclass
class Room:
    """A folder of the package, or a module that stands alone in it."""

    name: str
    about: str
    modules: dict[str, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)


def rooms() -> dict[str, Room]:
    """All rooms by name; `modules` have the first sentence of each, in the order of their names."""
    found: dict[str, Room] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        *folder, name = path.relative_to(PACKAGE).with_suffix("").parts
        if not folder and name in ("__init__", "__main__", "loading"):
            continue  # the public names, which import from every room, and what comes before all
        tree = ast.parse(path.read_text("utf-8"))
        about = first_sentence(ast.get_docstring(tree) or "")
        room = found.setdefault(folder[0] if folder else name, Room(folder[0] if folder else name, about))
        if name == "__init__" and len(folder) == 1:
            room.about = about
        if name != "__init__" or len(tree.body) > 1:
            room.modules["/".join([*folder, f"{name}.py"])] = about
        room.imports |= {each for each in imported(tree) if each != room.name}
    for room in found.values():
        room.imports &= found.keys()
    return found


def first_sentence(docstring: str) -> str:
    """Its first sentence, on one line, without the full stop."""
    text = " ".join(docstring.split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def imported(tree: ast.Module) -> Iterator[str]:
    """The rooms that a module imports from, inside of functions too; not what is for type checking alone."""
    aside = {
        id(n)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for n in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in aside:
            parts = node.module.split(".")
            if parts[0] == "rdbkit":
                yield from parts[1:2] or [alias.name for alias in node.names]


def levels(found: dict[str, Room]) -> dict[str, int]:
    """How far each room stands above the ground: one more than the highest of those that it imports from."""
    known: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((level(each) for each in found[name].imports), default=-1)
        return known[name]

    for name in found:
        level(name)
    return known


def direct(found: dict[str, Room], name: str) -> set[str]:
    """The imports of a room that do not follow from those of the others that it imports from."""

    def below(start: str) -> set[str]:
        return found[start].imports | {each for child in found[start].imports for each in below(child)}

    return {each for each in found[name].imports if not any(each in below(other) for other in found[name].imports if other != each)}


def picture(found: dict[str, Room]) -> str:
    """The rooms as an SVG: what imports stands above what it imports from."""
    heights = levels(found)
    top = max(heights.values())
    places: dict[str, tuple[float, float]] = {}
    for level in range(top + 1):
        names = [name for name in found if heights[name] == level]
        gap = _WIDTH / len(names)
        for number, name in enumerate(names):
            places[name] = (gap * (number + 0.5), _MARGIN + _HEIGHT / 2 + (top - level) * _ROW)
    height = 2 * _MARGIN + _HEIGHT + top * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" font-family="Helvetica, Arial, sans-serif">',
        "<title>The rooms of rdbkit: each imports from those that its arrows lead to, and from what these import from</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#888"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>',
    ]
    for name in found:
        x, y = places[name]
        for other in sorted(direct(found, name)):
            to_x, to_y = places[other]
            from_y, end_y = y + _HEIGHT / 2, to_y - _HEIGHT / 2
            bend = (end_y - from_y) / 2
            parts.append(
                f'<path d="M{x:.0f} {from_y:.0f}C{x:.0f} {from_y + bend:.0f} {to_x:.0f} {end_y - bend:.0f} {to_x:.0f} {end_y:.0f}" '
                'fill="none" stroke="#888" marker-end="url(#tip)"/>'
            )
    for name, room in found.items():
        x, y = places[name]
        fill = "#fde9d0" if name in COMPILED else "#eef3f8"
        parts += [
            f'<rect x="{x - _BOX / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{_BOX}" height="{_HEIGHT}" rx="5" '
            f'fill="{fill}" stroke="#667"/>',
            f'<g text-anchor="middle"><text x="{x:.0f}" y="{y - 9:.0f}" font-size="15" font-weight="bold">{name}</text>',
        ]
        about = textwrap.wrap(room.about.split(": ")[0].split(";")[0], 36, max_lines=2, placeholder=" ...")
        parts += [
            f'<text x="{x:.0f}" y="{y + 8 + 14 * number:.0f}" font-size="11" fill="#333">{html.escape(line)}</text>'
            for number, line in enumerate(about)
        ]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def table(found: dict[str, Room]) -> str:
    """Every module with what it is for, rooms from the ground up."""
    heights = levels(found)
    lines = ["| module | what it is for |", "|---|---|"]
    for room in sorted(found.values(), key=lambda room: (heights[room.name], room.name)):
        if list(room.modules) != [f"{room.name}.py"]:
            lines.append(f"| **`{room.name}/`** | **{room.about}**{', compiled' if room.name in COMPILED else ''} |")
        lines += [f"| `{module}` | {about} |" for module, about in room.modules.items()]
    return "\n".join([*lines, ""])


def page(found: dict[str, Room]) -> str:
    """docs/architecture.md with the table of today."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{after}"


def main() -> int:
    """Write or check both."""
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = rooms()
    status = 0
    for path, new in ((PICTURE, picture(found)), (PAGE, page(found))):
        if not sys.argv[1:]:
            path.write_text(new, "utf-8")
            continue
        old = path.read_text("utf-8") if path.exists() else ""
        if old != new:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), path.name, "the code"))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
