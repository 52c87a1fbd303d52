"""The pages that one can work in, done in Chromium as a person does it: open, press, type, be judged.

It needs a built site (tests/site/test_docs.py says where), selenium, chromium and chromedriver.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from npattn.exercises import exercise, exercises
from tests.site.conftest import LIVE, SITE, STARTS, chromium, until

pytestmark = pytest.mark.skipif(not (LIVE / "files.json").exists(), reason=f"no site to work in at {SITE}")


class Page:
    """An exercise on its page."""

    def __init__(self, browser: Any, address: str, name: str) -> None:
        self.browser, self.name = browser, name
        browser.get(f"{address}{exercise(name).page}.html")

    def script(self, body: str, *arguments: Any) -> Any:
        head = f"const section = document.querySelector('[data-exercise=\"{self.name}\"]');"
        return self.browser.execute_script(head + body, *arguments)

    def press(self, text: str) -> None:
        pressed = self.script(
            "return [...section.querySelectorAll('button')].find(one => one.textContent.startsWith(arguments[0]))", text
        )
        assert pressed is not None, text
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", pressed)
        pressed.click()

    def begin(self) -> None:
        self.press("Work on it here")
        until(lambda: self.script("return section.querySelector('.cm-content') !== null"))

    def write(self, text: str) -> None:
        """Put a text into the editor as a paste does."""
        from selenium.webdriver import Keys

        field = self.script("return section.querySelector('.cm-content')")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.CONTROL, Keys.NULL)
        paste = "const data = new DataTransfer(); data.setData('text/plain', arguments[1]);"
        paste += "const how = {clipboardData: data, bubbles: true, cancelable: true};"
        paste += "arguments[0].dispatchEvent(new ClipboardEvent('paste', how))"
        self.browser.execute_script(paste, field, text)

    def text(self) -> str:
        return self.script("return [...section.querySelectorAll('.cm-line')].map(one => one.textContent).join('\\n')")

    def verdict(self) -> str:
        return self.script("return section.querySelector('.verdict').innerText")

    def judged(self, text: str | None = None) -> str:
        """The verdict on a text."""
        if text is not None:
            self.write(text)
        self.press("Check")
        until(lambda: self.script("return !section.querySelector('[title=Ctrl-Enter]').disabled"), STARTS)
        return self.verdict()


@pytest.fixture
def on(browser: Any, address: str) -> Iterator[Callable[[str], Page]]:
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(f"{address}index.html")
    browser.execute_script("localStorage.clear()")
    yield lambda name: Page(browser, address, name)
    browser.get("about:blank")


def requests(browser: Any) -> list[str]:
    found = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [one for one in found if not one.startswith(("data:", "blob:", "about:"))]


def test_nothing_is_asked_for_before_the_button_and_nothing_elsewhere(browser: Any, address: str, on):
    requests(browser)
    page = on("product")
    before = requests(browser)
    heavy = [one for one in before if "/live/" in one and not one.split("?")[0].endswith(("live.js", "live.css"))]
    assert not heavy
    time.sleep(1)
    late = requests(browser)
    assert all(one.endswith(".woff2") for one in late), late  # a font is fetched when something is first drawn with it
    page.begin()
    assert page.judged(exercise("product").answer).startswith("solved")
    after = requests(browser)
    assert any(one.endswith("editor.js") for one in after)
    assert all(one.startswith(address) for one in [*before, *late, *after]), [*before, *late, *after]


def test_no_request_leaves_the_machine_from_the_worker_either(address: str, tmp_path: Path):
    """Chromium's own log of the network has what every part of it asked for."""
    log = tmp_path / "net.json"
    browser = chromium(tmp_path / "profile", f"log-net-log={log}")
    try:
        page = Page(browser, address, "product")
        page.begin()
        assert page.judged(exercise("product").answer).startswith("solved")
    finally:
        browser.quit()
    found = until(lambda: whole(log))
    kind = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    began = [event["params"] for event in found["events"] if event["type"] == kind and "params" in event]
    # Chromium asks for things of its own, the time of day; what our pages and workers ask for has them as initiator
    asked = [one["url"] for one in began if f"{one.get('initiator', '')}/" == address and "url" in one]
    assert any(one.endswith("pyodide.asm.wasm") for one in asked)
    assert any(one.endswith("npattn.zip") for one in asked)
    elsewhere = [one for one in asked if one.startswith(("http", "ws")) and not one.startswith(address)]
    assert not elsewhere, elsewhere


def whole(log: Path) -> Any:
    """The log, as soon as Chromium has written its end."""
    try:
        return json.loads(log.read_text(encoding="utf-8"))
    except ValueError:
        return None


def test_right_is_solved_and_wrong_is_rejected_with_its_cause(on):
    page, one = on("se"), exercise("se")
    page.begin()
    assert "still to be written" in page.judged()
    assert page.judged(one.file(one.answer)).startswith("solved: every gradient is right")
    assert page.script("return !section.querySelector('.exercise-mark').hidden")
    for right, wrong, says in (
        ("dx = dx_direct + dx_gate", "dx = dx_direct", "the path through the gate is missing"),
        ("dx = dx_direct + dx_gate", "dx = dx_gate", "only the path through the gate is there"),
        ("return dx, Params(dw1, dw2)", "return dx, Params(2 * dw1, dw2)", "a constant factor of 2"),
        ("return dx, Params(dw1, dw2)", "return dx, Params(dw1, -dw2)", "the wrong sign"),
        ("return dx, Params(dw1, dw2)", "return dx, Params(dw1, 0 * dw2)", "0 everywhere"),
        ("return dx, Params(dw1, dw2)", "return dx", "params"),
    ):
        assert right in one.answer
        told = page.judged(one.file(one.answer.replace(right, wrong)))
        assert not told.startswith("solved")
        assert says in told, told
    told = page.judged(one.file(one.answer.replace("dx = dx_direct + dx_gate", "dx = dx_direct")))
    assert "right in params.w1, params.w2" in told
    assert page.script("return section.querySelectorAll('.verdict tr.is-right').length") == 2
    assert page.script("return section.querySelectorAll('.verdict tr.why .worst').length") == 1


def test_an_endless_loop_is_stopped_and_the_page_goes_on(on):
    page, one = on("product"), exercise("product")
    page.begin()
    assert page.judged(one.answer).startswith("solved")
    page.write(one.answer.replace("    a, b = cache\n", "    a, b = cache\n    while True:\n        pass\n"))
    page.press("Check")
    until(lambda: "checking" in page.verdict())
    time.sleep(2)
    assert "checking" in page.verdict()
    page.press("Stop")
    until(lambda: "stopped" in page.verdict())
    assert page.judged(one.answer).startswith("solved")


def test_what_was_typed_survives_a_reload_until_reset(on):
    page, one = on("product"), exercise("product")
    page.begin()
    mine = one.start.replace("import numpy as np", "import numpy as np  # mine")
    page.write(mine)
    page = on("product")
    page.begin()
    assert "# mine" in page.text()
    page.press("Reset")
    assert "# mine" not in page.text()
    page = on("product")
    page.begin()
    assert "# mine" not in page.text()


def test_hints_one_at_a_time_and_the_answer_last(on):
    page, one = on("product"), exercise("product")
    page.begin()
    answering = "return [...section.querySelectorAll('button')].find(one => one.textContent === 'Answer').disabled"
    for number, hint in enumerate(one.hints, 1):
        assert page.script(answering)
        page.press(f"Hint {number}")
        shown = page.script("return [...section.querySelectorAll('.hints li')].map(one => one.textContent)")
        assert shown[-1] == hint
        assert len(shown) == number
    assert not page.script(answering)
    page.press("Answer")
    assert "da = dy * b" in page.script("return section.querySelector('details pre').textContent")


def test_progress_is_told(browser: Any, address: str, on):
    page = on("product")
    page.begin()
    assert page.judged(exercise("product").answer).startswith("solved")
    browser.get(f"{address}exercises.html")
    assert f"1 of {len(exercises())}" in browser.execute_script(
        "return document.querySelector('.progress-told').innerText"
    )
    row = "return document.querySelector('[data-progress=product] .progress-mark').innerText"
    assert "solved" in browser.execute_script(row)


def test_the_keyboard_alone(browser: Any, on):
    from selenium.webdriver import ActionChains, Keys

    page = on("product")
    focused = "return document.activeElement === arguments[0]"
    target = page.script("return section.querySelector('[data-begin]')")
    for _ in range(300):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script(focused, target):
            break
    assert browser.execute_script(focused, target)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    until(lambda: browser.execute_script("return document.activeElement.classList.contains('cm-content')"))
    start = exercise("product").start
    line = 'raise NotImplementedError("backward is still to be written")'
    assert line in start
    keys = ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.END).key_up(Keys.CONTROL)
    keys.send_keys(Keys.ARROW_UP, Keys.ARROW_UP, Keys.END).key_down(Keys.SHIFT).send_keys(Keys.HOME).key_up(Keys.SHIFT)
    keys.send_keys("da = dy * b", Keys.ENTER, "db = dy * a").perform()
    assert "    da = dy * b\n    db = dy * a\n    return da, db" in page.text(), page.text()
    ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    until(lambda: "solved" in page.verdict(), STARTS)
    ActionChains(browser).send_keys(Keys.TAB).perform()
    assert not browser.execute_script("return document.activeElement.classList.contains('cm-content')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, on, scheme: str):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page, one = on("se"), exercise("se")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.begin()
    page.judged(one.file(one.answer.replace("dx = dx_direct + dx_gate", "dx = dx_direct")))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    for name in ("Check", "Stop", "Reset"):
        box = page.script(
            "const one = [...section.querySelectorAll('button')].find(one => one.textContent === arguments[0]);"
            "const at = one.getBoundingClientRect(); return [at.left, at.right, at.height]", name,
        )  # fmt: skip
        assert box[0] >= 0
        assert box[1] <= 390
        assert box[2] >= 32


def test_opened_as_a_file_it_says_what_to_type(browser: Any):
    browser.get((SITE / "tools.html").as_uri())
    page = "document.querySelector('[data-exercise=product]')"
    browser.execute_script(f"{page}.querySelector('button').click()")
    told = until(lambda: browser.execute_script(f"return {page}.querySelector('.as-file')?.innerText"))
    assert "npattn docs" in told


@pytest.mark.slow
def test_every_answer_passes_and_every_start_fails_here_too(browser: Any, address: str, on):
    page = on("product")
    page.begin()
    assert page.judged().startswith("could not be run")
    judged = """
const done = arguments[arguments.length - 1];
const answer = window.npattn.call("check", arguments[0], arguments[1]);
answer.then(done, (error) => done({ error: String(error) }));
"""
    browser.set_script_timeout(120)
    for name, one in exercises().items():
        answer = browser.execute_async_script(judged, name, one.file(one.answer))
        assert answer["result"]["solved"], (name, answer)
        start = browser.execute_async_script(judged, name, one.file())
        assert not start["result"]["solved"], (name, start)
