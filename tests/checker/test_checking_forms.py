"""The page's "From your layer to a check": each block of code runs as it is pasted, alone, and can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import npattn

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "checking.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## From your layer to a check")[2].partition("\n## ")[0]
FORMS = re.findall(r"\*\*([^*]+?)\.?\*\*[^*]*?```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.parametrize("code", [pytest.param(code, id=title) for title, code in FORMS])
def test_each_form_runs_as_it_stands(code, monkeypatch):
    for library in ("torch", "jax"):
        if f"import {library}\n" in code:
            pytest.importorskip(library, reason=f"{library} is not installed")
    reports = []
    check = npattn.gradcheck

    def watched(*args, **kwargs):
        reports.append(check(*args, **kwargs))

    watched.wrap = check.wrap
    monkeypatch.setattr(npattn, "gradcheck", watched)
    exec(compile(code, "the page", "exec"), {"__name__": "page"})
    assert reports
    for report in reports:
        assert not report.wrong
        assert report.rows
        assert all(row.error is not None for row in report.rows)


def test_there_are_the_forms_that_people_have():
    assert len(FORMS) >= 10
    assert SECTION.count("```python") == len(FORMS)
