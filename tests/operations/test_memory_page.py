"""The page of `rdbkit memory --html` in a real browser: charts are drawn, nothing is fetched, and names of keys are but text."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.memory import Memory, memory
from rdbkit.operations.memory_page import write_page
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES, aux, key, rdb, string

NOW = 1_800_000_000_000
HOUR = 3_600_000
DB = b"\xfe\x00"

#: Names, and how they are shown.
HOSTILE = {
    b"<script>document.title='pwned'</script>": "<script>document.title='pwned'</script>",
    b"</script><script>document.title='pwned'</script>": "</script><script>document.title='pwned'</script>",
    b"--><!--<script>document.title='pwned'</script>": "--><!--<script>document.title='pwned'</script>",
    b"</title></style><svg onload=document.title='pwned'>": "</title></style><svg onload=document.title='pwned'>",
    b"<img src=x onerror=\"document.title='pwned'\">": "<img src=x onerror=\"document.title='pwned'\">",
    b"<a href=javascript:alert(1)>x</a>:a": "<a href=javascript:alert(1)>x</a>:a",
    b"<b>bold</b><br><sub>low</sub>": "<b>bold</b><br><sub>low</sub>",
    b"&lt;b&gt; &amp;lt; &#60; &quot;": "&lt;b&gt; &amp;lt; &#60; &quot;",
    b"{{x*x}} ${x} %{label} %s {x}": "{{x*x}} ${x} %{label} %s {x}",
    b"\xe2\x80\xae evil": "\\u202e evil",
    b"\xe2\x80\xa8line": "\\u2028line",
    b"\x00\x1b[m\r\n\t": "\\x00\\x1b[m\\r\\n\\t",
    b"\xff\xfeno text": "\\xff\\xfeno text",
    "\N{LATIN SMALL LETTER E WITH ACUTE}té".encode(): "été",
    b"": "(empty)",
    b"long" * 1000: "long" * 19 + "lon…",
}

#: Moves the mouse over all sectors and columns, and writes down what it sees.
DRIVER = """
const seen = {violations: [], errors: [], hovers: []};
addEventListener("securitypolicyviolation", e => seen.violations.push(e.violatedDirective + " " + e.blockedURI));
addEventListener("error", e => seen.errors.push(String(e.message)));
addEventListener("load", () => setTimeout(() => {
  const text = node => [...node.querySelectorAll("text")].map(t =>
    [...t.querySelectorAll("tspan.line")].map(line => line.textContent).join("\\n") || t.textContent).join("\\n");
  for (const sector of document.querySelectorAll("#prefixes g.slice")) {
    sector.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const layer = document.querySelector("#prefixes .hoverlayer");
    seen.hovers.push(text(layer));
    sector.dispatchEvent(new MouseEvent("mouseout", {bubbles: true}));
  }
  seen.fetched = performance.getEntriesByType("resource").length;
  seen.labels = [...document.querySelectorAll("#prefixes text.slicetext")].map(text_ => {
    const lines = [...text_.querySelectorAll("tspan.line")].map(line => line.textContent);
    return lines.length ? lines[0] : text_.textContent;
  });
  seen.bars = Object.fromEntries(["types", "expiry"].map(id =>
    [id, [...document.querySelectorAll("#" + id + " .trace.bars")].map(t => t.querySelectorAll(".point path").length)]));
  seen.rows = [...document.querySelectorAll("#types .ytick text")].map(t => t.textContent.trim());
  const pre = document.createElement("pre");
  pre.id = "seen";
  pre.textContent = JSON.stringify(seen);
  document.body.append(pre);
}, 500));
"""


class Page(HTMLParser):
    """Tags with their attributes, and the text that is shown; what stands in scripts and styles apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.cells: list[str] = []
        self.inside = ""
        self.feed(text)
        self.close()
        self.count = Counter(tag for tag, _ in self.tags)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "td":
            self.cells.append("")
        if tag == "script":
            self.inside = "json" if ("type", "application/json") in attrs else tag
        if ("id", "seen") in attrs:
            self.inside = "seen"

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.inside, []).append(data)
        if self.inside == "td":
            self.cells[-1] += data

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads("".join(self.texts["seen"]))
        return found


def report_of(data: bytes | Path, target: str = "redis-7.0", **options: Any) -> Memory:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source) as snapshot:
        return memory(snapshot, find_target(target), now_ms=NOW, **options)


def page_of(report: Memory) -> str:
    out = io.BytesIO()
    write_page(report, out)
    return out.getvalue().decode()


def library() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def opened(page: str, folder: Path) -> Page:
    """What a browser makes of a page; the driver is let in by its hash, so the page's policy stays in force."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        reason = f"no browser: none of {', '.join(names)} in PATH"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    digest = b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    page = page.replace("script-src 'sha256-", f"script-src 'sha256-{digest}' 'sha256-", 1)
    page = page.replace('<meta name="viewport"', f'<script>{DRIVER}</script>\n<meta name="viewport"', 1)
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8", newline="")
    result = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--window-size=1280,2200",
            f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, timeout=600,
    )  # fmt: skip
    dom = result.stdout.decode()
    assert 'id="seen"' in dom, result.stderr.decode(errors="replace")[-2000:]
    return Page(dom)


def assert_quiet(page: Page) -> None:
    """Nothing ran or was asked for but the page's own scripts."""
    seen = page.seen
    assert (seen["violations"], seen["errors"], seen["fetched"]) == ([], [], 0)
    assert page.count["script"] == 4  # charts, plotly.js, what draws them, and the driver
    assert not any(page.count[tag] for tag in ("img", "iframe", "link", "object", "embed", "form", "base", "b", "sub"))
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert not any("href" in name and str(value)[:1] != "#" for name, value in attributes.items()), (tag, attributes)


def test_charts_of_a_fixture_are_drawn(tmp_path: Path) -> None:
    report = report_of(FIXTURES / "rich" / "redis-8.8-dev.rdb", "redis-8.0")
    assert len(report.types) > 12
    page = opened(page_of(report), tmp_path)
    seen = page.seen
    assert_quiet(page)
    assert len(seen["labels"]) == 1 + len(report.prefixes)
    assert {"all keys", "l_big", "s_ht", "i{id}", "(empty)"} <= set(seen["labels"])
    big = report.biggest[0]
    assert big.key == b"l_big"
    size = f"{big.bytes / 1024:.1f} KB"
    assert f"l_big\n1 key\n{big.bytes:,} bytes ({size})\n0 expire, 0 bytes" in seen["hovers"]
    assert seen["bars"] == {"types": [12], "expiry": [12, 12]}
    assert seen["rows"][0] == "list quicklist"
    assert seen["rows"][-1] == "others"
    text = " ".join(" ".join(page.texts[tag]) for tag in ("dt", "dd", "p"))
    for part in (f"{report.keys} ", f"{report.keys_bytes / 1024:.1f} KB", "needed in all", "saved with", "Expiring: 1 key of 64 B"):
        assert part in text
    assert page.cells[:5] == ["l_big", "list quicklist", "0", "3,000", size]


def test_names_are_nothing_but_text(tmp_path: Path) -> None:
    value = string(b"v" * 5000)
    records = [key(name, 0, value, None if i % 2 else NOW + i * HOUR) for i, name in enumerate(HOSTILE)]
    records += [key(b"<i>:<u>" + end, 0, value, NOW - 1) for end in (b"a", b"b")]
    report = report_of(rdb(aux(b"used-mem", b"1000000"), DB, *records), top=100)
    report.file = "<script>document.title='pwned'</script>\udcff\u202e.rdb"
    report.layout = report.layout_note = "</style><script>document.title='pwned'</script>"
    page = opened(page_of(report), tmp_path)
    seen = page.seen
    assert_quiet(page)
    assert page.texts["title"] == ["<script>document.title='pwned'</script>\\udcff\\u202e.rdb: memory"]
    assert page.texts["h1"] == ["<script>document.title='pwned'</script>\\udcff\\u202e.rdb"]
    assert page.count["a"] == 0
    shown = set(HOSTILE.values())
    assert shown <= set(page.cells)
    # digits are folded to {id} in a prefix, and a part ends behind its separator
    prefixes = {name for name in shown if not re.search("[0-9:]", name)} | {"&lt;b&gt; &amp;lt; &#{id}; &quot;", "<i>:"}
    assert prefixes <= set(page.cells)
    assert prefixes <= set(seen["labels"])
    assert {"<u>a", "<u>b", "<a href=javascript:alert({id})>x</a>:a"} <= set(seen["labels"])
    hovers = ["".join(text.split("\n")[:-3]) for text in seen["hovers"]]  # names are broken there
    assert prefixes <= set(hovers)
    (pair,) = (p for p in report.prefixes if p.prefix == b"<i>:")
    assert f"<i>:\n2 keys\n{pair.bytes:,} bytes ({pair.bytes / 1024:.1f} KB)\n2 expire, {pair.bytes:,} bytes" in seen["hovers"]


@pytest.fixture(scope="module")
def forest() -> Memory:
    """20,000 prefixes with long names."""
    letters = [a + b for a in "abcdefghijklmnopqrst" for b in "abcdefghij"]
    words = [f"{word}<{'x' * 60}>" for word in letters]
    parts = [key(f"{one}:{two}".encode(), 0, string(b"v")) for one in words for two in words[:100]]
    return report_of(rdb(DB, *parts), top=1000)


def test_the_size_of_a_page_is_bounded(forest: Memory, tmp_path: Path) -> None:
    assert len(forest.prefixes) > 19_000
    assert forest.prefixes_closed
    assert len(forest.biggest) == 1000
    text = page_of(forest)
    assert len(text.encode()) - len(library().encode()) < 400_000
    page = opened(text, tmp_path)
    assert_quiet(page)
    assert len(page.seen["labels"]) == 501
    assert page.seen["bars"] == {"types": [1], "expiry": []}
    assert "No key expires." in page.texts["p"]
    charts = json.loads("".join(page.texts["json"]))
    (tree,) = charts["prefixes"]["data"]
    assert set(tree["parents"]) <= {"", *tree["ids"]}


def test_no_sector_is_larger_than_the_one_it_is_in(forest: Memory) -> None:
    for report in (forest, report_of(FIXTURES / "random" / "redis-7.0.15.rdb", depth=9)):
        charts = json.loads("".join(Page(page_of(report)).texts["json"]))
        (tree,) = charts["prefixes"]["data"]
        below: Counter[str] = Counter()
        for parent, value in zip(tree["parents"], tree["values"], strict=True):
            below[parent] += value
        sizes = dict(zip(tree["ids"], tree["values"], strict=True))
        assert sizes["all"] == report.keys_bytes
        assert below.pop("") == report.keys_bytes
        assert all(value <= sizes[parent] for parent, value in below.items())


def test_a_prefix_with_all_its_keys_in_one_below_gives_way_to_that() -> None:
    names = [b"a:b:c", b"a:b:d", b"a:e", b"f:g:h", b"f:g:i", b"j:k:l"]
    charts = json.loads("".join(Page(page_of(report_of(rdb(DB, *(key(n, 0, string(b"v")) for n in names))))).texts["json"]))
    (tree,) = charts["prefixes"]["data"]
    labels = dict(zip(tree["ids"], tree["labels"], strict=True))
    pairs = {(labels.get(parent, ""), label) for parent, label in zip(tree["parents"], tree["labels"], strict=True)}
    assert pairs == {
        ("", "all keys"), ("all keys", "a:"), ("a:", "b:"), ("b:", "c"), ("b:", "d"), ("a:", "e"),
        ("all keys", "f:g:"), ("f:g:", "h"), ("f:g:", "i"), ("all keys", "j:k:l"),
    }  # fmt: skip


def test_the_page_stands_alone() -> None:
    text = page_of(report_of(FIXTURES / "rich" / "redis-7.0.15.rdb"))
    assert text.count(library()) == 1
    own = text.replace(library(), "")
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\(|<link|<iframe|\bsrc=|\bhref=", own)
    policy = next(a["content"] for tag, a in Page(text).tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_a_report_says_what_is_not_exact() -> None:
    report = report_of(rdb(DB, key(b"k", 0, string(b"v"))))
    notes = ("options choose", "An estimate", "too many prefixes", "is like redis")
    page = page_of(report)
    assert not any(note in page.replace(library(), "") for note in notes)
    report.selected = report.prefixes_closed = True
    report.estimated_keys, report.estimated_bytes, report.layout_note = 1, 10, "is like redis"
    page = page_of(report).replace(library(), "")
    assert all(note in page for note in notes)
    assert "(1 key, 10 B)" in page


def test_times_that_no_calendar_has() -> None:
    report = report_of(rdb(DB, key(b"k", 0, string(b"v"), 2**62)))
    assert "Expiring: 1 key of 64 B, the last " in page_of(report)  # a year of nine digits, or milliseconds, as the system has it


def test_an_empty_snapshot() -> None:
    report = report_of(rdb())
    report.file = "empty <1>.rdb"
    text = page_of(report)
    assert len(text) < 10_000
    assert "There are no keys" in text
    assert escape(report.file) in text
    assert "<script" not in text
    assert "script-src 'none'" in text


def test_without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plotly", "plotly.offline"):
        monkeypatch.setitem(sys.modules, name, None)
    out = io.BytesIO()
    with pytest.raises(ImportError, match="plotly"):
        write_page(report_of(rdb()), out)
    assert out.getvalue() == b""
