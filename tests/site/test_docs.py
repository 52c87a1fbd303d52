"""The pages' sources, and the built site: complete, and nothing fetched from elsewhere.

The site is looked at where it has been built: `sphinx-build -W docs docs/_build/html`, or any folder that the
environment variable NPATTN_SITE names. In a browser it needs selenium, chromium and chromedriver.
"""

from __future__ import annotations

import html
import json
import re
import runpy
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import npattn
from npattn.blocks import blocks
from tests.site.conftest import SITE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
# The article's four: their example is told line by line between the equations
BLOCK_PAGES = ["blocks/se.md", "blocks/channel.md", "blocks/spatial.md", "blocks/cbam.md"]
PAGES_OF_CARDS = sorted(
    {f"{entry.card.page}.md" for entry in blocks().values() if entry.card.page.startswith("blocks/")}
)


@pytest.mark.parametrize("page", PAGES_OF_CARDS)
def test_the_page_of_a_card_has_what_a_reader_looks_for(page: str):
    text = SOURCES[page]
    for part in (
        ":::{drawing}", ":::{forward}", ":::{backward}", "{literalinclude}", "(#reading-code)", ":::{worked}",
        "## Exercises",
    ):  # fmt: skip
        assert part in text, part
    exercises = text.split("## Exercises")[1]
    assert len(re.findall(r"^\*\*\d+\.\*\*", exercises, re.MULTILINE)) == exercises.count(":::{answer}") > 0


@pytest.mark.parametrize("page", BLOCK_PAGES)
def test_a_block_page_has_all_its_parts(page: str):
    text = SOURCES[page]
    for part in (
        ":::{drawing}", "## Forward", "## Backward", "## The code", ":pyobject: forward", ":pyobject: backward",
        ":part: given", ":part: forward", ":part: backward", ":part: check", "## Exercises", ":::{answer}", "etters",
        "(#reading-code)",
    ):  # fmt: skip
        assert part in text, part
    exercises = text.split("## Exercises")[1]
    assert len(re.findall(r"^\*\*\d+\.\*\*", exercises, re.MULTILINE)) == exercises.count(":::{answer}")


def test_every_block_has_a_page_that_the_index_leads_to():
    """The index has its table from the cards, and its list of pages names each or takes all that are in blocks/."""
    assert ":::{blocks}" in SOURCES["index.md"]
    listed = re.findall(r"^[\w/*]+$", SOURCES["index.md"], re.MULTILINE)
    for entry in blocks().values():
        assert f"{entry.card.page}.md" in SOURCES, entry.name
        assert any(fnmatch(entry.card.page, page) for page in listed), entry.card.page


OP_PAGES = [page for page in SOURCES if page.startswith("ops/")]


@pytest.mark.parametrize("page", OP_PAGES)
def test_an_op_page_has_all_its_parts(page: str):
    text = SOURCES[page]
    for part in (
        ":::{forward}", ":::{backward}", "{literalinclude}", ":::{worked}", "## Exercises", ":::{answer}", "*Letters.*",
        "(#reading-code)",
    ):  # fmt: skip
        assert part in text, part
    assert re.search(r"^##+ .*code", text, re.MULTILINE | re.IGNORECASE), "no heading for the code"
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    assert len(headings) == len(set(headings)), "two headings alike"


def test_the_place_of_a_maximum_has_a_letter_of_its_own():
    """i is a row of a kernel. (docs/notation.md)"""
    for page, text in SOURCES.items():
        assert not re.search(r"\bi_\{n|= i\]|\bi_p\b", text), page


def test_source_is_included_and_never_pasted():
    """No line of a pair stands in a page as text; pages show it by literalinclude."""
    lines = {
        line.strip()
        for package in ("ops", "attention", "variants")
        for path in (ROOT / "npattn" / package).glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"  # [A-Z]+\d?\.\d", line)
    }
    for page, text in SOURCES.items():
        assert not [line for line in lines if line in text], page


def test_every_question_is_answered_and_met_elsewhere():
    questions = re.findall(r"^\((q-[a-z-]+)\)=$", SOURCES["questions.md"], re.MULTILINE)
    assert len(questions) == len(set(questions)) >= 19
    for question in questions:
        where = [page for page, text in SOURCES.items() if f"(#{question})" in text and page != "questions.md"]
        assert where, f"{question}: no page leads to it"


@pytest.mark.parametrize("name", ["se_by_hand", "check_by_hand"])
def test_notebooks_run(name: str, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    assert capsys.readouterr().out


def test_the_notebook_that_trains_runs(monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    found = runpy.run_path(str(ROOT / "examples" / "train_and_look.py"))
    assert found["losses"][-1] < found["losses"][0]


# The built site


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    if not (SITE / "index.html").exists():
        pytest.skip(f"no site at {SITE}: build it first")
    found = [path for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts]
    assert len(found) > 20
    return found


LOADED = re.compile(
    r"<(?:link|script|img|iframe|source|video|audio|object|embed)\b[^>]*?(?:href|src|data)=\"([^\"]+)\""
)


def test_nothing_is_loaded_from_elsewhere(pages: list[Path]):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = LOADED.findall(text)
        assert loaded, page
        for address in loaded:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{page.name} loads {address}"
        assert "katex-error" not in text, page
    for sheet in SITE.rglob("*.css"):
        for address in re.findall(r"url\(([^)]+)\)|@import\s+([^;]+)", sheet.read_text(encoding="utf-8")):
            assert "//" not in "".join(address).split("data:")[0], f"{sheet.name} loads {address}"


def test_every_equation_is_a_target(pages: list[Path]):
    equation = re.compile(r"^:::\{(forward|backward)\} (.+)$", re.MULTILINE)
    for name, text in SOURCES.items():
        found = [(way, tag) for way, tags in equation.findall(text) for tag in tags.split(", ")]
        if found:
            built = (SITE / name).with_suffix(".html").read_text(encoding="utf-8")
            for way, tag in found:
                assert f'id="{tag}{"" if way == "forward" else "-back"}"' in built, (name, way, tag)


def test_the_index_shows_every_card(pages: list[Path]):
    """Title, with a link to its page, name, what it asks and gives, source."""
    table = (SITE / "index.html").read_text(encoding="utf-8").split("<tbody>")[1].split("</tbody>")[0]
    rows = [html.unescape(row).replace("’", "'") for row in table.split("<tr")[1:]]
    cards = {entry.card.name: entry.card for entry in blocks().values()}
    assert len(rows) == len(cards)
    for card in cards.values():
        (row,) = [row for row in rows if f">{card.name}<" in row]
        assert f'href="{card.page}.html"' in row, card.name
        for text in (card.title, card.asks, card.gives, card.source):
            assert text in row, (card.name, text)


def test_the_reference_has_every_public_name(pages: list[Path]):
    text = "".join(page.read_text(encoding="utf-8") for page in sorted((SITE / "reference").glob("*.html")))
    for package in (npattn, npattn.variants):
        for name in package.__all__:
            assert text.count(f'id="{package.__name__}.{name}"') == 1, name


# Pages whose formulas were broken so that they fit a phone; on the others a long one scrolls in itself
FITTING = {
    "se",
    "channel",
    "spatial",
    "gate",
    "cbam",
    "tools",
    "notation",
    "fused",
    "split-attention",
    "selective-kernel",
} | {Path(page).stem for page in OP_PAGES}
TOO_WIDE = """
const wide = [], stuck = [];
for (const box of document.querySelectorAll("div.math")) {
  if (box.closest("details:not([open])")) continue;
  const right = Math.max(0, ...[...box.querySelectorAll(".base")].map(part => part.getBoundingClientRect().right));
  if (right <= box.getBoundingClientRect().right + 2) continue;
  const source = box.querySelector("annotation").textContent;
  if (getComputedStyle(box).overflowX !== "auto") stuck.push(source);
  if (!box.closest(".worked")) wide.push(source);
}
return [wide, stuck];
"""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(browser: Any, pages: list[Path], width: int, scheme: str):
    """No request leaves the machine, all that is asked for is there, and no page scrolls sideways."""
    command = browser.execute_cdp_cmd
    metrics = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 600}
    command("Emulation.setDeviceMetricsOverride", metrics)
    command("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    with_mathematics = 0
    for page in pages:
        if "_modules" in page.parts and page.stem not in ("index", "se"):
            continue  # the code of the package, one page like the other
        browser.get(page.as_uri())
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{page.name}: {wide} pixels wide on a screen of {width}"
        if browser.execute_script("return document.querySelector('.katex') !== null"):
            ready = browser.execute_async_script("document.fonts.ready.then(() => arguments[0](true))")
            assert ready
            assert browser.execute_script("return document.fonts.check('16px KaTeX_Main')"), f"{page.name}: no font"
            with_mathematics += 1
            wide_ones, stuck = browser.execute_script(TOO_WIDE)
            assert not stuck, f"{page.name}: wider than a screen of {width} and does not scroll: {stuck}"
            assert page.stem not in FITTING or not wide_ones, f"{page.name}: wider than {width}: {wide_ones}"
    assert with_mathematics > 10
    requests = 0
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            assert address.startswith(("file:", "data:")), f"a request to {address}"
            requests += 1
        assert message["method"] != "Network.loadingFailed", message["params"]
    assert requests > with_mathematics


def test_the_search_works_without_a_server(browser: Any, pages: list[Path]):
    browser.get((SITE / "search.html").as_uri() + "?q=sigmoid")
    for _ in range(50):
        found = browser.execute_script("return [...document.querySelectorAll('#search-results a')].map(a => a.href)")
        if any("activation" in address for address in found):
            break
        time.sleep(0.1)
    assert any("ops/activation.html" in address for address in found), found
