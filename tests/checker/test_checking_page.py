"""The page about checking shows what its example prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from npattn.cli import main

ROOT = Path(__file__).resolve().parents[2]


def rounded(text: str) -> str:
    """Without the digits of rounding errors, which differ from one machine to the next."""
    return re.sub(r"\b\d(\.\d)?e-1\d\b", "tiny", text)


def test_the_page_shows_what_the_example_prints():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "examples/check_your_own_layer.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=True)
    page = rounded((ROOT / "docs" / "checking.md").read_text(encoding="utf-8"))
    blocks = [block.partition("\n") for block in done.stdout.split("# ")[1:]]
    assert len(blocks) == 3
    for title, _, printed in blocks:
        assert rounded(f"```text\n{printed.strip()}\n```") in page, title


def test_the_page_shows_what_its_command_prints(monkeypatch, capsys):
    page = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    command = "npattn gradcheck examples.check_your_own_layer:make_layer --shape 2,3,4,5"
    assert f"    {command}\n" in page
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(command.split()[1:]) == 0
    assert rounded(f"```text\n{capsys.readouterr().out.strip()}\n```") in rounded(page)


def test_the_page_tells_what_every_fallback_means():
    """Each reason that the checker gives for differences stands in the page's table."""
    source = (ROOT / "npattn" / "checker" / "compare.py").read_text(encoding="utf-8")
    reasons = re.findall(r'f?"differences: ([a-z ]+)', source)
    page = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    assert len(reasons) >= 5
    for reason in reasons:
        assert reason.removesuffix(" with them along ").strip() in page, reason
