"""Layers of other people's shapes are checked as they are: no adapter, the right ones green, the wrong ones red."""

from __future__ import annotations

import pytest

from npattn import gradcheck
from tests.checker.styles import STYLES, Style

EACH = pytest.mark.parametrize("style", STYLES, ids=repr)


@EACH
def test_a_right_one_is_right(style: Style):
    report = gradcheck(style.make(False), *style.inputs, **style.options, raise_exception=False)
    assert report.status == 0, str(report)
    compared = [row.name for row in report.rows if row.error is not None]
    assert sorted(compared) == sorted(style.tensors), str(report)


@EACH
def test_a_wrong_one_is_wrong_at_its_tensor(style: Style):
    report = gradcheck(style.make(True), *style.inputs, **style.options, raise_exception=False)
    assert report.status == 1
    assert [row.name for row in report.rows if row.wrong] == [style.at], str(report)


def test_there_are_enough():
    assert len({style.name for style in STYLES}) == len(STYLES) >= 30
