"""Draw a digit: the weights give the accuracy that is told, and a 3 drawn with the mouse is a 3, at once."""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npattn import data, models
from npattn.training import evaluate
from tests.site.conftest import LIVE, STARTS, until

STATIC = Path(__file__).resolve().parents[2] / "docs" / "_static" / "live"
BUILT = pytest.mark.skipif(not (LIVE / "draw.js").exists(), reason="no site to work in")
THREE = [(80, 60), (140, 40), (195, 75), (190, 110), (135, 135), (195, 160), (200, 210), (145, 240), (80, 220)]
ONE = [(140, 40), (140, 240)]


def test_the_weights_give_the_accuracy_that_the_demo_has():
    model = models.digits().load(STATIC / "digits.npz").eval()
    digits = data.load()
    _, accuracy, _ = evaluate(model, digits.test_images, digits.test_labels)
    assert accuracy == pytest.approx(0.9891, abs=0.0002)


def test_what_the_page_computes_is_the_networks_own():
    draw = runpy.run_path(str(STATIC / "draw.py"))
    draw["draw"].__globals__["WEIGHTS"] = str(STATIC / "digits.npz")
    bar = np.zeros((20, 4))
    bar[:, 1:3] = 255
    found = json.loads(draw["draw"](json.dumps(bar.tolist())))
    assert found["best"][0] == 1
    assert np.sum(found["p"]) == pytest.approx(1)
    assert np.shape(found["cam"]) == (2, 28, 28)
    assert {np.shape(gate) for gate in found["spatial"].values()} == {(14, 14), (7, 7)}
    assert {np.shape(gate) for gate in found["channel"].values()} == {(32,), (64,)}


@pytest.fixture
def paper(browser: Any, address: str) -> Callable[[list[tuple[int, int]]], Any]:
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{address}draw.html")
    browser.execute_script("document.querySelector('[data-begin]').click()")
    ready = "return document.querySelector('section.look').dataset.ready"
    until(lambda: browser.execute_script(ready), STARTS)

    def drawn(points: list[tuple[int, int]]) -> Any:
        from selenium.webdriver import ActionChains

        canvas = browser.execute_script("return document.querySelector('.paper')")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
        pen = ActionChains(browser, duration=30)
        pen.move_to_element_with_offset(canvas, points[0][0] - 140, points[0][1] - 140).click_and_hold()
        for before, after in itertools.pairwise(points):
            pen.move_by_offset(after[0] - before[0], after[1] - before[1])
        pen.release().perform()
        return browser

    return drawn


@BUILT
@pytest.mark.parametrize(("points", "digit"), [(THREE, "3"), (ONE, "1")])
def test_a_digit_drawn_with_the_mouse_is_known(paper, points: list[tuple[int, int]], digit: str):
    browser = paper(points)
    until(lambda: browser.execute_script("return document.querySelector('section.look').dataset.answer") == digit, 10)
    assert f"It is a {digit}" in browser.execute_script("return document.querySelector('.summary').textContent")
    assert browser.execute_script("return document.querySelectorAll('.small-map').length") == 6
    took = int(browser.execute_script("return document.querySelector('section.look').dataset.took"))
    assert took < 100, took
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


@BUILT
def test_the_keyboard_draws_too(paper):
    from selenium.webdriver import ActionChains, Keys

    browser = paper(ONE)
    browser.execute_script("[...document.querySelectorAll('button')].find(one => one.textContent === 'Clear').click()")
    browser.execute_script("document.querySelector('.paper').focus()")
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_DOWN * 10).key_up(Keys.SHIFT).perform()
    until(lambda: browser.execute_script("return document.querySelector('section.look').dataset.answer") == "1", 10)
