"""Look inside: what the page computes is the library's own, and its maps follow what one changes."""

from __future__ import annotations

import json
import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.site.conftest import LIVE, STARTS, until

LOOK = runpy.run_path(str(Path(__file__).resolve().parents[2] / "docs" / "_static" / "live" / "look.py"))
BOTH = pytest.mark.parametrize("block", ["se", "cbam"])


def numbers(seed: int) -> tuple[str, str]:
    rng = np.random.default_rng(seed)
    x, dy = (json.dumps(rng.standard_normal(50).round(2).tolist()) for _ in range(2))
    return x, dy


@BOTH
def test_the_ways_are_all_of_dx(block: str):
    module, parameters, ways = LOOK["BLOCKS"][block]
    x, dy = LOOK["arrays"](*numbers(1))
    _, cache = module.forward(x, parameters(3))
    found = ways(dy, cache)
    np.testing.assert_allclose(sum(found.values()), module.backward(dy, cache)[0], rtol=1e-12, atol=1e-14)
    drawn = json.loads(LOOK["look"](block, 3, *numbers(1), "[]"))
    np.testing.assert_allclose(drawn["maps"]["dx"], sum(found.values()).ravel(), rtol=1e-12, atol=1e-14)
    assert drawn["ways"] == list(found)


@BOTH
def test_without_a_way_the_check_says_so(block: str):
    given = next(
        numbers(seed) for seed in range(20)
        if not json.loads(LOOK["look_check"](block, 3, *numbers(seed), "[]"))["problems"]
    )  # fmt: skip
    assert json.loads(LOOK["look_check"](block, 3, *given, "[]"))["solved"]
    for way in json.loads(LOOK["look"](block, 3, *given, "[]"))["ways"]:
        found = json.loads(LOOK["look_check"](block, 3, *given, json.dumps([way])))
        assert not found["solved"]
        assert found["rows"][0]["wrong"]
        assert all(row["passed"] for row in found["rows"][1:])


def test_where_both_units_are_shut_a_wrong_backward_passes_and_is_called_untested():
    given = next(
        numbers(seed) for seed in range(50)
        if max(json.loads(LOOK["look"]("se", 3, *numbers(seed), "[]"))["hidden"]["of the mean"]) < 0
    )  # fmt: skip
    found = json.loads(LOOK["look_check"]("se", 3, *given, json.dumps(["through the gate"])))
    assert found["rows"][0]["passed"]
    assert not found["solved"]
    assert "cannot be seen" in found["summary"]


# In the browser


@pytest.fixture
def opened(browser: Any, address: str) -> Any:
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{address}look.html")
    return browser


def section(name: str) -> str:
    return f"document.querySelector('[data-look={name}]')"


def begun(browser: Any, name: str) -> None:
    browser.execute_script(f"{section(name)}.querySelector('[data-begin]').click()")
    until(lambda: browser.execute_script(f"return {section(name)}.querySelector('.ways input') !== null"), STARTS)


def cells(browser: Any, name: str, label: str) -> list[str]:
    script = (
        f"return [...{section(name)}.querySelectorAll('[aria-label=\"{label}\"] .cell')].map(one => one.textContent)"
    )
    return browser.execute_script(script)


BUILT = pytest.mark.skipif(not (LIVE / "look.js").exists(), reason="no site to work in")


@BUILT
def test_a_number_is_changed_and_all_maps_follow(opened: Any):
    from selenium.webdriver import ActionChains, Keys

    begun(opened, "cbam")
    labels = ("x, channel 0", "channel gate", "spatial gate", "y, channel 0", "dx, channel 1")
    before = {label: cells(opened, "cbam", label) for label in labels}
    opened.execute_script(f"{section('cbam')}.querySelector('[role=slider]').focus({{preventScroll: false}})")
    ActionChains(opened).send_keys(Keys.PAGE_UP, Keys.PAGE_UP, Keys.PAGE_UP).perform()
    until(lambda: all(cells(opened, "cbam", label) != before[label] for label in labels), 10)
    cell = opened.execute_script(f"return {section('cbam')}.querySelectorAll('[role=slider]')[7]")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", cell)
    value = cell.text
    ActionChains(opened).click_and_hold(cell).move_by_offset(0, -60).release().perform()
    until(lambda: cell.text != value)
    verdict = f"return {section('cbam')}.querySelector('.verdict').innerText"
    until(lambda: "every gradient is right" in opened.execute_script(verdict), 20)
    opened.execute_script(f"{section('cbam')}.querySelectorAll('.ways input')[1].click()")
    until(lambda: "not right" in opened.execute_script(verdict), 20)


@BUILT
def test_the_maps_follow_within_a_tenth_of_a_second(opened: Any):
    begun(opened, "cbam")
    call = "const done = arguments[arguments.length - 1]; const began = performance.now();"
    call += "const drawn = window.npattn.call('look', 'cbam', 3, arguments[0], arguments[1], '[]');"
    call += "drawn.then(() => done(performance.now() - began))"
    times = []
    for seed in range(8):
        times.append(opened.execute_async_script(call, *numbers(seed)))
        time.sleep(0.05)
    assert sorted(times)[len(times) // 2] < 100, times


@BUILT
def test_the_kernel_needs_nothing(opened: Any):
    told = f"{section('kernel')}.querySelector('[role=status]').textContent"
    opened.execute_script(f"{section('kernel')}.querySelector('[data-begin]').click()")
    assert "gathers w(1, 5) · x(2, 6)" in opened.execute_script(f"return {told}")
    opened.execute_script(f"{section('kernel')}.querySelector('[aria-label=\"w 0, 0\"]').click()")
    opened.execute_script(f"{section('kernel')}.querySelector('[aria-label=\"y 0, 0\"]').click()")
    assert "padding" in opened.execute_script(f"return {told}")


@BUILT
def test_on_a_phone(opened: Any):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.refresh()
    for name in ("se", "cbam"):
        begun(opened, name)
    opened.execute_script(f"{section('kernel')}.querySelector('[data-begin]').click()")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
