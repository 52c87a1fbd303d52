"""The worked example: complete, right, and the code's own numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from npattn.cli import main
from npattn.explain.trace import BLOCKS, tagged_lines, trace, walked
from tests.test_tags import tagged

SHAPES = [(1, 2, 2, 2), (1, 2, 3, 3), (2, 3, 4, 2), (1, 1, 1, 1), (1, 4, 1, 5)]


@pytest.mark.parametrize("block", list(BLOCKS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_gradient_agrees_with_its_difference(block: str, shape):
    found = trace(block, shape, seed=3)
    assert [check.name for check in found.checks] == [f"d{name}" for name in ("x", *found.params)]
    for check in found.checks:
        assert check.analytic.shape == check.numeric.shape
        assert check.difference < 1e-8, check.name


@pytest.mark.parametrize("block", list(BLOCKS))
def test_every_tagged_line_is_shown(block: str):
    found = trace(block)
    own = BLOCKS[block].module
    for direction, steps in (("forward", found.forward), ("backward", found.backward)):
        shown = {tag for step in walked(steps) for tag in step.line.tag.split(", ")}
        wanted = {tag for _, way, tag in tagged(__import__("pathlib").Path(own.__file__)) if way == direction}
        assert wanted <= shown
        assert all(step.values for step in steps), "a line without numbers"


@pytest.mark.parametrize("block", list(BLOCKS))
def test_the_numbers_are_those_of_the_block(block: str):
    found = trace(block)
    module = BLOCKS[block].module
    last = found.forward[-1].values
    y = next(iter(last.values()))
    np.testing.assert_array_equal(y.ravel(), found.y.ravel())
    dx = [step.values["dx"] for step in found.backward if "dx" in step.values][-1]
    np.testing.assert_array_equal(dx, found.checks[0].analytic)
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace()), f"{module.__name__}: the hook was left behind"


def test_the_docs_example_has_a_unit_open_and_one_shut():
    """The pages say so."""
    for block in ("se", "channel", "cbam"):
        z = np.concatenate([s.values["z"].ravel() for s in walked(trace(block).forward) if "z" in s.values])
        assert np.any(z > 0), block
        assert np.any(z < 0), block


def test_lines_with_a_meeting_are_among_them():
    lines = tagged_lines(BLOCKS["cbam"].module)
    assert [line.code for line in lines.values() if line.tag == "+"] == [
        "du = du_direct + du_gate",
        "dx = dx_direct + dx_gate",
    ]


def test_the_hook_is_put_back_after_an_error():
    before = sys.gettrace()
    with pytest.raises(ValueError, match="shape"):
        trace("se", (0, 1, 1, 1))
    with pytest.raises(ValueError, match="ratio"):
        trace("se", (1, 2, 2, 2), ratio=3)
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "sa"}, "block: expected one of se, channel, spatial, cbam, got 'sa'"),
        ({"block": "se", "shape": (1, 2, 2)}, "shape: expected four numbers N C H W"),
        ({"block": "se", "shape": (1, 64, 64, 64)}, "shape: expected at most 4096 numbers"),
        ({"block": "se", "seed": -1}, "seed: expected a whole number of at least 0"),
        ({"block": "spatial", "kernel_size": 4}, "kernel_size: expected an odd"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        trace(**arguments)


def test_on_the_terminal(capsys):
    assert main(["trace", "cbam", "--shape", "1", "2", "2", "3", "--seed", "4"]) == 0
    text = capsys.readouterr().out
    for piece in ("CBAM.1 ", "CA.6 ", "MLP.3 ", "SA.4 ", "dx[0, 1, 1, 2]", "dsa.w[0, 1, 2, 2]", "largest difference"):
        assert piece in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert main(["trace", "se", "--shape", "1", "2", "0", "2"]) == 1
    assert "shape: expected a whole number of at least 1" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_example():
    np.testing.assert_array_equal(trace("se", seed=4).x, trace("se", seed=4).x)
    assert not np.array_equal(trace("se", seed=4).x, trace("se", seed=5).x)
