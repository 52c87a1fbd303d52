"""Colours and text of the figures: on any ground, and in grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from npattn import data
from npattn.explain import overlay, sheet, style
from npattn.explain.style import ACCENT, GOLD, INK, PALE, PURPLE, QUIET, contrast, readable_on, relative_luminance


@pytest.mark.parametrize("grey", np.linspace(0, 1, 12))
def test_text_stands_out_from_any_ground(grey: float):
    for ground in ((grey, grey, grey), (1, grey, grey), (grey, 0, 0), (0, grey, 0.5)):
        assert contrast(readable_on(ground), ground) >= 4.5


def test_contrast_is_wcags():
    assert contrast("white", "black") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.01)
    assert relative_luminance("#ff0000") == pytest.approx(0.2126)


def lightness(colour: str) -> float:
    """L* of CIELAB."""
    return 116 * relative_luminance(colour) ** (1 / 3) - 16


@pytest.mark.parametrize("together", [(INK, ACCENT, QUIET), (QUIET, ACCENT), (PURPLE, GOLD), (INK, PALE)])
def test_grey_tells_colours_of_one_axis_apart(together: tuple[str, ...]):
    levels = sorted(lightness(colour) for colour in together)
    assert min(np.diff(levels)) >= 20


@pytest.mark.parametrize("colour", [INK, ACCENT, QUIET, PURPLE, GOLD])
def test_lines_stand_out_from_paper(colour: str):
    assert contrast(colour, "white") >= 3


def test_gates_grow_lighter_as_they_open():
    colours = style.gate_colours()(np.linspace(0, 1, 101))
    light = np.array([relative_luminance(colour[:3]) for colour in colours])
    assert np.all(np.diff(light) > 0)
    assert light[0] < 0.02
    assert light[-1] > 0.9


def test_against_is_hatched_and_for_is_not():
    """Red and blue are alike in grey; the hatching tells them apart."""
    axes = style.new_figure().subplots()
    values = np.linspace(-1, 1, 28)[None, :].repeat(28, 0)
    sheet.draw_map(axes, np.ones((28, 28)), values)
    (area,) = axes.collections
    assert any(area.hatches)
    (path,) = [path for path in area.get_paths() if len(path.vertices)]
    assert path.vertices[:, 0].min() == -0.5  # out to the edge
    assert path.vertices[:, 0].max() < np.argmax(values[0] > -sheet.FAINT) + 0.01
    np.testing.assert_allclose(axes.images[0].get_array(), overlay(np.ones((1, 28, 28)), values[None])[0])
    empty = style.new_figure().subplots()
    sheet.draw_map(empty, np.ones((28, 28)), np.abs(values))
    assert len(empty.collections) == 0


def test_an_outline_needs_ink():
    axes = style.new_figure().subplots()
    style.outline(axes, np.zeros((28, 28), np.uint8))
    assert len(axes.collections) == 0
    style.outline(axes, data.read(data.EMBEDDED, data.TEST_IMAGES)[0])
    (line,) = axes.collections
    assert line.get_path_effects()


def test_the_pages_gradients_are_slanted_too():
    """In the drawings of docs/_figures.py blue and red would be alike in grey."""
    css = Path(__file__).parents[2].joinpath("docs", "_static", "npattn.css").read_text(encoding="utf-8")
    rules = {line.partition("{")[0].strip(): line for line in css.splitlines() if line.startswith(".drawing")}
    assert "font-style: italic" in rules[".drawing text.bwd"]
    assert "stroke-dasharray" in rules[".drawing .wire.bwd"]
    assert "font-style" not in rules[".drawing text.fwd"]
