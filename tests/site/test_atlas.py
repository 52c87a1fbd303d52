"""The atlas: every block is on it, its pictures are of the block's own code, and its table is sorted and searched."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from npattn.blocks import blocks
from npattn.dialects import DIALECTS
from npattn.dialects.table import TABLE
from tests.site.conftest import SITE, until

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = SITE / "atlas.html"
BUILT = pytest.mark.skipif(not PAGE.exists(), reason=f"no atlas at {PAGE}: build the site first")
KINDS = {"x", "pool", "linear", "norm", "act", "function", "gate", "softmax", "join", "resize", "product", "sum", "dot"}


@pytest.fixture(scope="module", autouse=True)
def of_docs():
    """The modules that the pages are made by."""
    sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]
    yield
    del sys.path[:2]


# Pictures


@pytest.mark.parametrize("name", blocks())
def test_a_block_is_drawn_from_what_it_does(name: str):
    """Boxes of known kinds, each from x or from what is before it; no two in one place; all words in the SVG."""
    from _atlas_graph import boxes
    from _atlas_picture import Layout, described, draw

    found = boxes(blocks()[name])
    assert {box.kind for box in found} <= KINDS, found
    assert found[0].kind == "x"
    assert all(box.sources and max(box.sources) < i for i, box in enumerate(found) if i)
    used = {source for box in found for source in box.sources}
    assert used == set(range(len(found) - 1)), "a box that leads nowhere"
    layout = Layout(found)
    places = [layout.centre(i) for i in range(len(found))]
    assert len(set(places)) == len(places)
    assert all(layout.rows[source] < layout.rows[i] for i, box in enumerate(found) for source in box.sources)
    svg = ET.fromstring(draw(found, name))
    width, height = (float(svg.get(side)) for side in ("width", "height"))
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert svg.get("aria-label") == f"{name}: {described(found)}"


def told(name: str) -> list[tuple[str, str, tuple[int, ...]]]:
    from _atlas_graph import boxes

    return [(box.kind, f"{box.label} {box.over}".strip(), box.sources) for box in boxes(blocks()[name])]


def test_pictures_by_hand():
    """What is written out as arithmetic is one box: a norm, a 1×1 convolution, a spread; and a gate is a gate."""
    assert told("se") == [
        ("x", "x", ()), ("pool", "mean over H×W", (0,)), ("linear", "FC", (1,)), ("act", "ReLU", (2,)),
        ("linear", "FC", (3,)), ("gate", "sigmoid", (4,)), ("product", "×", (0, 5)),
    ]  # fmt: skip
    assert told("sge") == [
        ("x", "x", ()), ("pool", "mean over H×W", (0,)), ("dot", "Σ× over C", (0, 1)), ("norm", "norm over H×W", (2,)),
        ("linear", "w · a", (3,)), ("gate", "sigmoid", (4,)), ("product", "×", (0, 5)),
    ]  # fmt: skip
    assert ("linear", "conv 1×1", (0,)) in told("scse")
    assert ("pool", "spread over H×W", (0,)) in told("srm")
    assert ("pool", "length over H×W", (0,)) in told("gated-channel")
    assert ("norm", "÷ length over C", (2,)) in told("gated-channel")
    assert told("simam")[2:5] == [("sum", "−", (0, 1)), ("function", "( )²", (2,)), ("norm", "÷ mean over H×W", (3,))]
    *_, (kind, words, sources) = told("triplet")
    assert (kind, words, len(sources)) == ("sum", "+", 3)
    assert ("gate", "1 + sigmoid") in [step[:2] for step in told("bam")]
    assert told("gaussian-context")[-2] == ("gate", "exp", (3,))
    assert [kind for kind, _, _ in told("non-local")].count("softmax") == 1
    assert [kind for kind, _, _ in told("danet-channel")][1:4] == ["dot", "softmax", "dot"]


def test_what_is_alike_stands_in_the_same_place():
    """Pool, gate and product of all blocks with one gate, whatever is between."""
    from _atlas_graph import boxes
    from _atlas_picture import Layout

    for name in ("se", "eca", "lct", "gated-channel", "srm", "squeeze", "conv-gate"):
        found = boxes(blocks()[name])
        layout = Layout(found)
        rows = {box.kind: layout.rows[i] for i, box in enumerate(found)}
        assert rows["product"] == 7, name
        assert rows.get("pool", 1) == 1, name
        assert rows.get("gate", 6) == 6, name


# What the rows are made of


def test_every_class_of_a_dialect_is_some_blocks():
    from _atlas import codebases

    found = {(dialect, one) for of in codebases().values() for dialect, classes in of.items() for one in classes}
    assert found == {(dialect, row.name) for dialect in DIALECTS for row in TABLE[dialect].values()}
    assert codebases()["cbam"]["official"] == ["CBAM"]
    assert codebases()["channel"]["official"] == codebases()["variants.channel"]["official"] == ["ChannelGate"]
    assert "CBAM" not in {one for classes in codebases()["spatial"].values() for one in classes}


def test_where_they_differ_is_a_place_that_there_is():
    from _atlas import differs

    for entry in blocks().values():
        page, _, place = differs(entry).partition("#")
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-")
            for line in text.splitlines()
            if line[:3] == "## "
        ]
        assert place in headings, (entry.name, place)


def test_what_the_ablation_found_is_read_as_it_stands():
    from _atlas import trained

    found = trained()
    assert found["conv-gate"] == (97.26, 0.23, 0.68, 0.21, 5)
    assert found["eca"] == (96.46, 0.21, -0.22, 0.44, 5)
    assert set(blocks()) & set(found) >= {"se", "cbam", "coordinate", "psa", "spatial-max"}
    assert "none" not in found


def test_the_order_is_the_start_pages():
    from _atlas import in_order

    names = [entry.name for entry in in_order()]
    assert sorted(names) == sorted(blocks())
    assert names[:4] == ["se", "se-r2", "se-r4", "se-r16"]
    cards = [entry.card.page for entry in in_order()]
    assert cards.index("blocks/channel") < cards.index("blocks/cbam") < cards.index("variants")


def test_the_work_is_of_the_first_stage_that_a_block_may_stand_at():
    from _atlas import STAGES, cost

    assert STAGES == ((256, 56), (512, 28), (1024, 14), (2048, 7))
    found = cost(blocks()["simam"])
    assert (found.C, found.side, found.least) == (256, 56, (2, 5))
    assert found.multiplications == pytest.approx(5 * 256 * 56 * 56, rel=0.01)  # d², twice; its scale; σ; x · g


def test_times_are_shown_as_they_were_measured():
    pytest.importorskip("sphinx", reason="Sphinx is not installed")
    import npattn_atlas

    row = type("Row", (), {})()
    row.time = {
        "textbook": {"seconds": [0.2, 0.1, 0.4], "beside": [0.1, 0.1, 0.1]},
        "fused": {"seconds": [3.0], "beside": [2.0]},
    }
    assert npattn_atlas.time_of(row) == (2.0, "2.00 <small>200 ms; fused 1.50 of fused SE</small>")
    row.time = {"shape": [32, 64, 7, 7], "textbook": {"seconds": [0.2], "beside": [0.1]}}
    assert npattn_atlas.time_of(row) == (2.0, "2.00 <small>200 ms for 32×64×7×7</small>")
    row.time = {"why": "too little memory"}
    assert npattn_atlas.time_of(row) == (None, "<small>not measured: too little memory</small>")
    row.time = None
    assert npattn_atlas.time_of(row) == (None, "<small>not measured</small>")


# The built page


@BUILT
def test_every_block_has_its_row_and_its_picture():
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r'<tr data-name="([^"]+)"', text)) == sorted(blocks())
    pictured = [name for names in re.findall(r'data-names="([^"]+)"', text) for name in names.split()]
    assert sorted(pictured) == sorted(blocks())
    article = text.split("<article")[1].split("</article>")[0]
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", article)
    for address in re.findall(r'<a class="reference internal" href="([^"#]+)', text.split("atlas-legend")[1]):
        assert (PAGE.parent / address).exists(), address


@BUILT
def test_the_numbers_of_se_are_on_it():
    row = PAGE.read_text(encoding="utf-8").split('<tr data-name="se"')[1].split("</tr>")[0]
    for number in ("8,192", "32,768", "131,072", "524,288", 'data-sort="2514944"', "96.46", "no difference", "timm"):
        assert number in row, number


@pytest.fixture
def opened(browser: Any) -> Any:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(PAGE.as_uri())
    until(lambda: browser.execute_script("return document.querySelector('.atlas-search') !== null"))
    return browser


def shown(browser: Any, what: str = "tr[data-name]") -> list[str]:
    script = f"return [...document.querySelectorAll('{what}')].filter(one => one.getClientRects().length)"
    return browser.execute_script(f"{script}.map(one => one.dataset.name ?? one.dataset.names)")


def sort(browser: Any, column: str) -> None:
    browser.execute_script(f"document.querySelector('th[data-column={column}] button').click()")


@BUILT
def test_it_is_sorted(opened: Any):
    by_parameters = "return [...document.querySelectorAll('tr[data-name]')].map(row => row.cells[2].dataset.sort)"
    sort(opened, "parameters")
    found = [int(value) for value in opened.execute_script(by_parameters)]
    assert found == sorted(found)
    sort(opened, "parameters")
    assert [int(value) for value in opened.execute_script(by_parameters)] == sorted(found, reverse=True)
    head = "return document.querySelector('th[data-column=parameters]').getAttribute('aria-sort')"
    assert opened.execute_script(head) == "descending"
    sort(opened, "accuracy")  # those that were not trained come last, whichever way
    for _ in range(2):
        values = opened.execute_script(by_parameters.replace("cells[2]", "cells[6]"))
        empty = [value == "" for value in values]
        assert empty == sorted(empty)
        assert True in empty
        assert False in empty
        sort(opened, "accuracy")
    sort(opened, "block")
    titles = opened.execute_script(by_parameters.replace("cells[2]", "cells[0]"))
    assert titles[0].lower() < titles[-1].lower()


@BUILT
def test_it_is_searched(opened: Any):
    from selenium.webdriver.common.by import By

    cards = [entry.name for entry in blocks().values() if entry.name == entry.card.name]
    whole = [name for name in cards if not name.startswith("variants.")]
    assert sorted(shown(opened)) == sorted(whole)
    field = opened.find_element(By.CSS_SELECTOR, ".atlas-search input[type=search]")
    field.send_keys("STYLE recal")
    until(lambda: shown(opened) == ["srm"])
    assert shown(opened, "figure[data-names]") == ["srm"]
    status = "return document.querySelector('.atlas-search [role=status]').textContent"
    assert opened.execute_script(status) == f"1 of {len(whole)} blocks"
    field.clear()
    field.send_keys("nothing of the kind")
    until(lambda: not shown(opened))
    assert not shown(opened, ".atlas-group")
    field.clear()
    field.send_keys(" ")
    opened.execute_script("document.querySelector('.atlas-search [type=checkbox]').click()")
    until(lambda: sorted(shown(opened)) == sorted(blocks()))
    field.send_keys("se-r2")
    until(lambda: shown(opened) == ["se-r2"])


@BUILT
def test_without_a_script_it_is_a_plain_table(browser: Any):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(PAGE.as_uri())
    assert len(browser.find_elements("css selector", "tr[data-name]")) == len(blocks())
    assert all(row.is_displayed() for row in browser.find_elements("css selector", "tr[data-name]"))
    assert not browser.find_elements("css selector", ".atlas-search")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@BUILT
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(opened: Any, scheme: str):
    """Nothing is wider than the screen, each cell says its column, words are at least 12 pixels high."""
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened.refresh()
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
    wide = "return [...document.querySelectorAll('.atlas-table td, .atlas-picture')].filter(one => "
    wide += "one.getClientRects().length && one.getBoundingClientRect().right > 390).map(one => one.textContent)"
    assert opened.execute_script(wide) == []
    cell = "document.querySelector('tr[data-name=se] td[data-label=parameters]')"
    assert opened.execute_script(f"return getComputedStyle({cell}, '::before').content") == '"parameters"'
    assert float(opened.execute_script(f"return parseFloat(getComputedStyle({cell}).fontSize)")) >= 12
    opened.execute_script(
        "const one = document.querySelector('.atlas-order select'); one.value = '2';"
        "one.dispatchEvent(new Event('change'))"
    )
    first = opened.execute_script("return document.querySelector('tr[data-name]').cells[2].dataset.sort")
    assert int(first) == 0


@BUILT
def test_it_asks_for_nothing_elsewhere(browser: Any):
    browser.get_log("performance")
    browser.get(PAGE.as_uri())
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert any(address.endswith(("atlas.js", "atlas.css")) or "atlas.js" in address for address in addresses)
    assert all(address.startswith(("file:", "data:")) for address in addresses), addresses
