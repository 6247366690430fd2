"""The report of `rdbkit memory` as one page of HTML with charts, which needs no network.

Names of keys are bytes from strangers. All of them pass `_safe`, and stand in text alone, never in an attribute or in code: the
charts are JSON that is read as text. The page's policy lets nothing run but the two scripts whose hashes it names.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from html import escape
from typing import Any, BinaryIO, Final

from rdbkit.operations.memory import Memory, Prefix, distinct_prefixes
from rdbkit.text import size, when

__all__ = ["write_page"]

_WIDTH: Final = 80  # letters of a name
_NODES: Final = 500  # of the treemap
_ROWS: Final = 50  # of prefixes
_KEYS: Final = 100  # of the biggest
_TYPES: Final = 12  # bars, the one of all others included
_TICKS: Final = 4  # of an axis, about

_BLUE: Final = "#4270b3"
_GREY: Final = "#8794a3"
_GREEN: Final = "#2a8a57"

Chart = dict[str, Any]


def write_page(report: Memory, out: BinaryIO) -> None:
    """Write a report as a page that holds all it needs: text, charts and the library that draws them.

    Args:
        report: of `rdbkit.operations.memory.memory`.
        out: where UTF-8 bytes go.

    Raises: ImportError without plotly (extra `html`).
    """
    from plotly.offline import get_plotlyjs

    scripts = [get_plotlyjs(), _DRAW] if report.keys else []
    charts = _charts(report) if report.keys else {}
    for part in _head(report, scripts), *_body(report, charts), *_scripts(charts, scripts), "</body>\n</html>\n":
        out.write(part.encode())


def _safe(name: bytes | str, *, width: int = _WIDTH, line: int = 1000) -> str:
    """A name as text of HTML and of plotly's labels, which know some of its tags: cut, what cannot be seen as escapes.

    Plotly does not know `&quot;`, so quotes stay, and this is not for attributes. Lines break after `line` letters.

    >>> _safe(b"<b>\\x1b\\xff"), _safe(b"")
    ('&lt;b&gt;\\\\x1b\\\\xff', '(empty)')
    """
    if isinstance(name, bytes):
        name = name[: 4 * (width + 1)].decode("utf-8", "backslashreplace")
    shown = "".join(ch if ch.isprintable() else ascii(ch)[1:-1] for ch in name[: width + 1])
    if len(shown) > width:
        shown = shown[: width - 1] + "…"
    return "<br>".join(escape(shown[at : at + line], quote=False) for at in range(0, len(shown), line)) or "(empty)"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _form(type_name: str, encoding: str) -> str:
    return type_name if type_name == encoding else f"{type_name} {encoding}"


def _hover(name: bytes | str, keys: int, taken: int, *more: str) -> str:
    return "<br>".join([_safe(name, line=40), _count(keys, "key"), f"{taken:,} bytes ({size(taken)})", *more])


# charts, as plotly's JSON


def _charts(report: Memory) -> dict[str, Chart]:
    charts = {"prefixes": _prefixes(report), "types": _types(report)}
    if report.expiring:
        charts["expiry"] = _expiry(report)
    return charts


def _chart(data: list[Chart], height: int, **layout: Any) -> Chart:
    base = {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "hoverlabel": {"align": "left"},
    }
    return {"data": data, "layout": base | layout}


def _axis(**more: Any) -> Chart:
    return {"automargin": True, "fixedrange": True, "zeroline": False, "gridcolor": "rgba(128,128,128,0.25)", **more}


def _round_axis(largest: int, unit: int, text: Callable[[int], str], **more: Any) -> Chart:
    """An axis from 0 with few round numbers; plotly's own are not round in units of 1024, and have halves of keys."""
    base = 1
    while base * unit <= largest:
        base *= unit
    steps = (base * factor // 4 or 1 for factor in (1, 2, 4, 8, 20, 40, 80, 200, 400, 800, 2000))
    step = next(step for step in steps if largest // step <= _TICKS)
    ticks = range(0, largest + 1, step)
    return _axis(tickmode="array", tickvals=list(ticks), ticktext=[text(tick) for tick in ticks], **more)


def _byte_axis(largest: int, **more: Any) -> Chart:
    return _round_axis(largest, 1024, lambda n: size(n).replace(".0 ", " "), **more)


def _prefixes(report: Memory) -> Chart:
    nodes = _nodes(report.prefixes)
    rows = [row for row, *_ in nodes]
    treemap = {
        "type": "treemap",
        "branchvalues": "total",
        "ids": ["all", *(node for _, node, _, _ in nodes)],
        "parents": ["", *(parent for _, _, parent, _ in nodes)],
        "labels": ["all keys", *(_safe(name) for _, _, _, name in nodes)],
        "values": [report.keys_bytes, *(row.bytes for row in rows)],
        "text": [size(report.keys_bytes), *(f"{size(row.bytes)}, {row.share:.1%}" for row in rows)],
        "textinfo": "label+text",
        "hoverinfo": "text",
        "hovertext": [
            _hover("all keys", report.keys, report.keys_bytes),
            *(_hover(row.prefix, row.keys, row.bytes, f"{row.expiring:,} expire, {row.expiring_bytes:,} bytes") for row in rows),
        ],
        "marker": {
            "colors": [_GREY, *(_mix(row.expiring_bytes / row.bytes) for row in rows)],
            "line": {"width": 1, "color": "rgba(255,255,255,0.6)"},
            "pad": {"t": 22, "l": 3, "r": 3, "b": 3},
        },
        "pathbar": {"thickness": 22},
        "tiling": {"pad": 2},
    }  # fmt: skip
    return _chart([treemap], 520, uniformtext={"minsize": 10, "mode": "hide"})


def _nodes(prefixes: Sequence[Prefix]) -> list[tuple[Prefix, str, str, bytes]]:
    """The largest of those that tell something, each with its id, that of the one above it, and its name below that."""
    kept = {id(row) for row in distinct_prefixes(prefixes)}
    nodes = []
    path = [("all", b"")]
    for i, row in enumerate(prefixes):
        parent, before = path[row.depth - 1]
        del path[row.depth :]
        if id(row) in kept:
            nodes.append((row, str(i), parent, row.prefix[len(before) :]))
            path.append((str(i), row.prefix))
        else:
            path.append((parent, before))  # those below stand in its place
    # none is larger than the one above it, or stands before it, so none of the largest loses that
    return sorted(nodes, key=lambda node: -node[0].bytes)[:_NODES]


def _mix(share: float) -> str:
    """A colour between that of keys that stay and that of keys that expire."""
    pairs = ((int(_BLUE[i : i + 2], 16), int(_GREEN[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _types(report: Memory) -> Chart:
    rows = [(_form(t.type, t.encoding), t.keys, t.bytes) for t in report.types]
    if len(rows) > _TYPES:
        others = rows[_TYPES - 1 :]
        rows[_TYPES - 1 :] = [("others", sum(keys for _, keys, _ in others), sum(size for *_, size in others))]
    places = list(range(len(rows)))
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [size for *_, size in rows],
        "y": places,
        "text": [f"{size / report.keys_bytes:.1%}" for *_, size in rows],
        "textposition": "auto",
        "textangle": 0,
        "cliponaxis": False,
        "hoverinfo": "text",
        "hovertext": [_hover(*row) for row in rows],
        "marker": {"color": _BLUE},
    }
    largest = max(size for *_, size in rows)
    # names of types are no positions: two may look alike once they are cut
    names = _axis(tickmode="array", tickvals=places, ticktext=[_safe(name) + " " for name, *_ in rows], autorange="reversed")
    return _chart([bars], 72 + 24 * len(rows), xaxis=_byte_axis(largest, range=[0, largest * 1.12]), yaxis=names, bargap=0.3)


def _expiry(report: Memory) -> Chart:
    """Memory above keys, over the same columns."""
    rows = report.expiry
    columns: Chart = {
        "type": "bar",
        "x": [row.left for row in rows],
        "hoverinfo": "text",
        "hovertext": [_hover(row.left, row.keys, row.bytes) for row in rows],
        "marker": {"color": [_BLUE if row.left == "never" else _GREEN for row in rows]},
    }
    keys, sizes = [row.keys for row in rows], [row.bytes for row in rows]
    title = {"x": 0, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return _chart(
        [columns | {"y": sizes}, columns | {"y": keys, "yaxis": "y2"}],
        380,
        xaxis=_axis(type="category", anchor="y2", showgrid=False),
        yaxis=_byte_axis(max(sizes), domain=[0.54, 0.94]),
        yaxis2=_round_axis(max(keys), 1000, "{:,}".format, domain=[0, 0.4]),
        annotations=[title | {"text": "memory", "y": 0.94}, title | {"text": "keys", "y": 0.4}],
        hovermode="x",
        bargap=0.2,
    )


# the page


def _head(report: Memory, scripts: Iterable[str]) -> str:
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts) or "'none'"
    others = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src {hashes}; {others}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_safe(report.file)}: memory</title>
<style>{_STYLE}</style>
</head>
"""


def _body(report: Memory, charts: dict[str, Chart]) -> Iterable[str]:
    measured = f", measured on {_safe(report.layout_measured)}" if report.layout_measured else ""
    yield f"<body>\n<header>\n<h1>{_safe(report.file)}</h1>\n"
    yield f"<p>Memory of its keys in {_safe(report.target)}, by the layout of {_safe(report.layout)}{measured}.</p>\n</header>\n"
    yield f"<dl>{''.join(_figure(*figure) for figure in _figures(report))}</dl>\n"
    yield from (f"<p class=note>{note}</p>\n" for note in _notes(report))
    if not report.keys:
        yield "<p>There are no keys in the report, so there is nothing to show of them.</p>\n"
        return
    yield "<section><h2>Prefixes</h2>\n<p>Area is memory. <i class=stay></i>\u00a0none of the keys expires, "
    yield "<i class=go></i>\u00a0all do. A click goes deeper.</p>\n"
    yield "<div class=chart id=prefixes></div></section>\n<div class=pair>\n"
    yield "<section><h2>Types</h2>\n<p>Memory by type and encoding in the file.</p>\n<div class=chart id=types></div></section>\n"
    yield f"<section><h2>Time left</h2>\n<p>{_expiring(report)}</p>\n"
    yield "<div class=chart id=expiry></div></section>\n" if "expiry" in charts else "</section>\n"
    yield "</div>\n"
    yield from _biggest(report)
    yield from _largest(report)


def _figures(report: Memory) -> Iterable[tuple[str, str, str]]:
    """Name, value and explanation."""
    yield "keys", f"{report.keys:,}", f"{report.expiring:,} expire" if report.expiring else "none expires"
    sizes = [
        ("memory of keys", report.keys_bytes, "as MEMORY USAGE adds up"),
        ("dataset", report.dataset_bytes, "as INFO counts it"),
        ("tables of keys", report.overhead_bytes, "and of expiries"),
        ("needed in all", report.total_bytes, "without clients, replicas and fragmentation"),
        ("file", report.file_bytes, "uncompressed"),
    ]
    if report.used_memory is not None:
        sizes.append(("saved with", report.used_memory, "in use by the server that wrote it"))
    for name, taken, note in sizes:
        yield name, size(taken), note


def _figure(name: str, value: str, note: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd><dd class=note>{note}</dd></div>"


def _notes(report: Memory) -> Iterable[str]:
    if report.selected:
        yield "Only the keys that the options choose are counted."
    if report.estimated_keys:
        estimated = f"{_count(report.estimated_keys, 'key')}, {size(report.estimated_bytes)}"
        yield f"An estimate: modules and the like are taken to need the bytes they have in the file ({estimated})."
    if report.prefixes_closed:
        yield "There are too many prefixes to tell all apart: what came late counts as *."
    if report.layout_note:
        yield f"Layout: {_safe(report.layout_note, width=1000)}"


def _expiring(report: Memory) -> str:
    if not report.expiring:
        return "No key expires."
    taken = sum(row.bytes for row in report.expiry if row.left != "never")
    last = "" if report.last_expiry_ms is None else f", the last {when(report.last_expiry_ms)} UTC"
    return (
        f"Expiring: {_count(report.expiring, 'key')} of {size(taken)}{last}. Time left is counted from {when(report.now_ms)} UTC."
    )


def _biggest(report: Memory) -> Iterable[str]:
    rows = report.biggest[:_KEYS]
    if rows:
        yield "<section><h2>Biggest keys</h2>\n"
        yield from _table(
            ("key", "type", "db", "elements", "memory"),
            [
                (
                    _safe(k.key),
                    _safe(_form(k.type, k.encoding)),
                    str(k.db),
                    "" if k.elements is None else f"{k.elements:,}",
                    size(k.bytes),
                )
                for k in rows
            ],
            left={0, 1},
        )
        yield "</section>\n"


def _largest(report: Memory) -> Iterable[str]:
    rows = sorted(distinct_prefixes(report.prefixes), key=lambda row: -row.bytes)
    yield "<section><h2>Largest prefixes</h2>\n"
    if len(rows) > _ROWS:
        yield f"<p>{_ROWS} of {len(rows):,}.</p>\n"
    yield from _table(
        ("prefix", "keys", "memory", "share", "expiring"),
        [
            (_safe(p.prefix), f"{p.keys:,}", size(p.bytes), f"{p.share:.1%}", f"{p.expiring / p.keys:.0%}" if p.expiring else "")
            for p in rows[:_ROWS]
        ],
        left={0},
    )
    yield "</section>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: set[int]) -> Iterable[str]:
    """A table of safe cells, numbers to the right; `left` are the columns that hold none."""

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["<{} class=left>" if i in left else "<{}>" for i in range(len(cells))]
        return "<tr>" + "".join(side.format(tag) + cell + f"</{tag}>" for side, cell in zip(sides, cells, strict=True)) + "</tr>\n"

    yield "<div class=wide><table>\n" + line("th", head)
    for row in rows:
        yield line("td", row)
    yield "</table></div>\n"


def _scripts(charts: dict[str, Chart], scripts: Iterable[str]) -> Iterable[str]:
    """The charts as text, in which no tag can begin, and what draws them."""
    if not charts:
        return
    text = json.dumps(charts, separators=(",", ":")).replace("<", "\\u003c")
    yield f'<script type="application/json" id="charts">{text}</script>\n'
    yield from (f"<script>{script}</script>\n" for script in scripts)


_DRAW: Final = """
const charts = JSON.parse(document.getElementById("charts").textContent);
function draw() {
  const color = getComputedStyle(document.body).color;
  for (const [id, {data, layout}] of Object.entries(charts))
    Plotly.react(id, data, {...layout, font: {...layout.font, color}}, {displayModeBar: false, responsive: true});
}
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
"""

_STYLE: Final = f"""
:root {{ --back: #fff; --text: #1d242c; --faint: #5f6b78; --line: #dfe3e8; --card: #f6f7f9 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #15191e; --text: #e3e7ec; --faint: #9aa5b1; --line: #313942; --card: #1d232a }}
}}
body {{ margin: 0 auto; padding: 24px; max-width: 1200px; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif }}
h1 {{ margin: 0; font-size: 24px; overflow-wrap: anywhere }}
h2 {{ margin: 32px 0 4px; font-size: 18px }}
p {{ margin: 4px 0 12px; color: var(--faint) }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); gap: 12px; margin: 20px 0 }}
dl div {{ padding: 10px 14px; background: var(--card); border-radius: 8px }}
dt, dd.note {{ color: var(--faint); font-size: 13px }}
dd {{ margin: 0; font-size: 20px; font-variant-numeric: tabular-nums }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 0 32px }}
section {{ min-width: 0 }}
.chart {{ overflow: hidden }}
i {{ display: inline-block; width: 10px; height: 10px; border-radius: 2px }}
i.stay {{ background: {_BLUE} }}
i.go {{ background: {_GREEN} }}
.wide {{ overflow-x: auto }}
table {{ width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }}
th, td {{ padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: top }}
th {{ color: var(--faint); font-weight: 500 }}
.left {{ text-align: left }}
td.left {{ white-space: normal }}
td:first-child.left {{ min-width: 110px; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  font-family: ui-monospace, monospace; font-size: 13px }}
@media (max-width: 600px) {{ body {{ padding: 14px }} table {{ font-size: 13px }} th, td {{ padding: 5px 4px }} dl {{ gap: 8px }} }}
"""
