"""A browser for the tests of the built site."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from npattn.commands.docs import server

SITE = Path(os.environ.get("NPATTN_SITE", Path(__file__).resolve().parents[2] / "docs" / "_build" / "html"))
LIVE = SITE / "_static" / "live"
STARTS = 90.0  # seconds that Python may take to start in a page, on a busy machine


def chromium(profile: Path, *flags: str) -> Any:
    """A headless Chromium that asks for nothing by itself; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no chromium or chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={profile}", *flags,
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    opened = chromium(tmp_path_factory.mktemp("profile"))
    opened.get("about:blank")
    opened.get_log("performance")  # the browser's own start page
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server(SITE) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What a function gives as soon as it is true."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {seconds} s")
