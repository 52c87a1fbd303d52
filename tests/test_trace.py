"""The worked example: complete, right, and the code's own numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from npattn.cli import main
from npattn.explain.trace import BLOCKS, tagged_lines, trace, walked
from npattn.explain.trace_ops import OPS, trace_op
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
        wanted = {tag for _, way, tag in tagged(Path(own.__file__)) if way == direction}
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


def hidden(found) -> np.ndarray:
    """z of every run of the bottleneck: (runs, units)."""
    return np.concatenate([step.values["z"] for step in walked(found.forward) if "z" in step.values])


def test_the_docs_examples_show_what_the_pages_say():
    for block in ("se", "channel", "cbam"):
        z = hidden(trace(block))
        assert np.any(z < 0), f"{block}: the ReLU blocks nothing"
        assert np.all(np.any(z > 0, axis=1)), f"{block}: a run in which everything is blocked"
    for block in ("channel", "spatial", "cbam"):
        for check in trace(block).checks:
            assert np.all(np.abs(check.analytic) > 0.01), f"{block}, {check.name}: an entry that shows nothing"
    blocked, opened = trace("se"), trace("se", seed=19)  # the seed that the page names
    assert [np.count_nonzero(check.analytic) for check in blocked.checks] == [8, 2, 2]
    assert hidden(blocked)[0, 1] < 0 < np.min(hidden(opened))
    assert all(np.all(check.analytic != 0) for check in opened.checks)


@pytest.mark.parametrize("op", list(OPS))
@pytest.mark.parametrize("seed", [None, 0, 3])
def test_an_op_by_itself(op: str, seed):
    found = trace_op(op, seed)
    for check in found.checks:
        assert check.analytic.shape == check.numeric.shape
        assert check.difference < 1e-9, check.name
    module, pair, *_ = OPS[op]
    for way, steps in (("forward", found.forward), ("backward", found.backward)):
        wanted = {tag for name, _, tag in tagged(Path(module.__file__)) if name == pair + way}
        assert wanted, "no line has a tag"
        assert {tag for step in steps for tag in step.line.tag.split(", ")} == wanted
        assert all(step.values for step in steps), "a line without numbers"
    assert [name for name in found.params if name != "t"] == [check.name[1:] for check in found.checks[1:]]


def test_a_line_of_a_loop_is_shown_once_and_complete():
    found = trace_op("conv2d")
    steps = [step for step in found.backward if step.line.tag == "CONV.2"]
    assert len(steps) == 1
    np.testing.assert_array_equal(steps[0].values["dpadded"][:, :, 1:-1, 1:-1], found.checks[0].analytic)


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
    assert main(["trace", "loss", "--seed", "2"]) == 0
    text = capsys.readouterr().out
    for piece in ("t (2,) = ", "CE.4 ", "loss () = ", "dz[1, 2]"):
        assert piece in text
    assert main(["trace", "loss", "--shape", "1", "2", "2", "2"]) == 1
    assert "--shape: is for a block" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_example():
    np.testing.assert_array_equal(trace("se", seed=4).x, trace("se", seed=4).x)
    assert not np.array_equal(trace("se", seed=4).x, trace("se", seed=5).x)
