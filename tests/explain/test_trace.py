"""The worked example: complete, right, and the code's own numbers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn.attention import cbam
from npattn.block import Place
from npattn.blocks import Entry, blocks, modules
from npattn.cli import main
from npattn.explain.trace import Trace, ops, trace, trace_op
from npattn.explain.watch import Step, tagged_lines, walked, watched
from tests.support.tags import tagged

SHAPES = [(1, 2, 2, 2), (1, 2, 3, 3), (2, 3, 4, 2), (1, 1, 1, 1), (1, 4, 1, 5)]
NAMES = list(blocks())  # every block with a card, and every form


def refused(entry: Entry, shape: tuple[int, ...], message: str) -> bool:
    layer = entry.layer(Place(*shape[1:], r=1, k=3), dtype="float64", rng=0)
    try:
        layer(np.ones(shape))
    except ValueError as error:
        return bool(layer.buffers) and message in str(error)
    return False


def has_no_variance(entry: Entry, shape: tuple[int, ...]) -> bool:
    """Whether it normalises, and would do so by a single number a channel."""
    return refused(entry, shape, "expected at least 2 numbers a channel")


def has_one_image_too_few(entry: Entry, shape: tuple[int, ...]) -> bool:
    """Whether it normalises over the images, of which there is one."""
    return refused(entry, shape, "expected at least 2 images")


@pytest.mark.parametrize("block", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_gradient_agrees_with_its_difference(block: str, shape):
    if shape == (1, 1, 1, 1) and has_no_variance(blocks()[block], shape):
        with pytest.raises(ValueError, match="expected at least 2 numbers a channel"):
            trace(block, shape, seed=3)
        return
    if shape[0] < 2 and has_one_image_too_few(blocks()[block], shape):
        with pytest.raises(ValueError, match="expected at least 2 images to normalise over"):
            trace(block, shape, seed=3)
        shape = (3, *shape[1:])
    found = trace(block, shape, seed=3)
    assert [check.name for check in found.checks] == [f"d{name}" for name in ("x", *found.params)]
    for check in found.checks:
        assert check.analytic.shape == check.numeric.shape
        assert check.difference < 1e-8, check.name


def file_of(entry: Entry) -> Path:
    """The file with the block's pair, or with what joins its layers."""
    return Path(str(sys.modules[entry.kind.__module__].__file__))


def shown(steps: list[Step]) -> set[str]:
    return {tag for step in walked(steps) for tag in step.line.tag.split(", ")}


def of_file(path: Path, direction: str) -> set[str]:
    return {tag for _, way, tag in tagged(path) if way == direction}


@pytest.mark.parametrize("block", NAMES)
def test_every_tagged_line_is_shown(block: str):
    """All of the file where the block is the only one in it; in a form with options, each tag that the forward took is
    undone, and no line is without numbers. What the options take in turns, the next test adds up."""
    entry, found = blocks()[block], trace(block)
    path = file_of(entry)
    tags = {}
    for direction, steps in (("forward", found.forward), ("backward", found.backward)):
        tags[direction] = shown(steps) & of_file(path, direction)
        assert tags[direction], "no line of its own pair"
        assert all(step.values for step in steps), "a line without numbers"
        assert all(step.values for step in walked(steps)), "a line within without numbers"
    assert tags["forward"] == tags["backward"]
    alone = [other.kind for other in blocks().values() if file_of(other) == path and other.name == other.card.name]
    if path.parent.name == "attention" and len(alone) == 1 and not entry.arguments:
        assert tags["forward"] == of_file(path, "forward")
        assert tags["backward"] == of_file(path, "backward")


def test_every_tag_of_every_file_is_shown_by_some_form():
    """Of each file of attention/ and variants/, in both directions."""
    for direction in ("forward", "backward"):
        seen = {block: shown(getattr(trace(block), direction)) for block in NAMES}
        for package in ("attention", "variants"):
            for module in modules(package):
                path = Path(str(module.__file__))
                here = [seen[entry.name] for entry in blocks().values() if file_of(entry) == path]
                assert here, f"{path.name}: no block with a card"
                assert set().union(*here) >= of_file(path, direction), path.name


@pytest.mark.parametrize("block", NAMES)
def test_no_path_of_the_example_is_dead(block: str):
    """Every array that a tagged line of the backward assigns, those within included, has an entry that is not 0."""
    for step in walked(trace(block).backward):
        for name, value in step.values.items():
            assert np.any(value), f"{step.line.tag}: {name} is 0 everywhere"


def from_last_step(block: str, found: Trace) -> np.ndarray:
    """dx from the backward's last step: it, or its summands, which the line after that adds without a tag."""
    last = found.backward[-1].values
    terms = [value for name, value in last.items() if re.fullmatch(r"dx(\[\d+\])?|du", name)]
    assert terms, "the last line assigns no part of dx"
    if "du" in last and blocks()[block].arguments.get("residual"):
        terms.append(found.dy)  # VCB.6
    return sum(terms[1:], start=terms[0])


@pytest.mark.parametrize("block", NAMES)
def test_the_numbers_are_those_of_the_block(block: str):
    found = trace(block)
    last = found.forward[-1].values
    y = next(iter(last.values()))
    np.testing.assert_array_equal(y.ravel(), found.y.ravel())
    dx = from_last_step(block, found)  # in groups of channels, it may be
    np.testing.assert_array_equal(dx.ravel(), found.checks[0].analytic.ravel())
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace()), f"{block}: the hook was left behind"


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


@pytest.mark.parametrize("op", list(ops()))
@pytest.mark.parametrize("seed", [None, 0, 3])
def test_an_op_by_itself(op: str, seed):
    found = trace_op(op, seed)
    assert found.block == op
    for check in found.checks:
        assert check.analytic.shape == check.numeric.shape
        assert check.difference < 1e-9, check.name
    path = Path(str(ops()[op].__file__))
    for way, steps in (("forward", found.forward), ("backward", found.backward)):
        wanted = {tag for name, _, tag in tagged(path) if name in (way, f"train_{way}")}  # batch norm's other is eval_
        assert wanted, "no line has a tag"
        assert {tag for step in steps for tag in step.line.tag.split(", ")} == wanted
        assert all(step.values for step in steps), "a line without numbers"
    assert [name for name in found.params if name != "t"] == [check.name[1:] for check in found.checks[1:]]


def test_what_an_op_takes_is_called_as_it_calls_it():
    assert list(trace_op("loss").given) == ["z", "t"]
    assert list(trace_op("linear").given) == ["x", "w", "b"]
    attention = trace_op("dot_product_attention")
    assert list(attention.given) == ["q", "k", "v"]
    assert [check.name for check in attention.checks] == ["dq", "dk", "dv"]


def test_the_ops_that_the_pages_work_through_are_there():
    assert set(ops()) >= {
        "relu", "sigmoid", "linear", "global_avg_pool", "global_max_pool", "channel_mean", "channel_max",
        "avg_pool_2x2", "max_pool_2x2", "conv2d", "batch_norm", "loss",
    }  # fmt: skip


def test_a_line_of_a_loop_is_shown_once_and_complete():
    found = trace_op("conv2d")
    steps = [step for step in found.backward if step.line.tag == "CONV.2"]
    assert len(steps) == 1
    np.testing.assert_array_equal(steps[0].values["dpadded"][:, :, 1:-1, 1:-1], found.checks[0].analytic)


def test_a_line_that_calls_a_block_several_times_shows_each_call():
    """A comprehension over runs: the runs stand beside each other within its line, not within each other."""
    found = trace("channel-all-pools")
    (undone,) = [step for step in found.backward if step.line.tag == "VCA.3"]
    assert [step.line.tag for step in undone.inside] == ["VMLP.3", "VMLP.2", "VMLP.1"] * 4
    assert not any(step.inside for step in undone.inside)
    (last,) = [step for step in found.backward if step.line.tag == "VCA.1"]  # a statement on several lines
    assert list(last.values) == [f"dx[{i}]" for i in range(4)]
    assert last.line.code.startswith("dx = [pool.backward(ds_i, cache_i) for ")


def test_a_call_without_a_tag_stands_by_itself():
    """The gate's own lines, which ParallelSE's untagged call of it leads to, belong to no other line."""
    found = trace("se-parallel")
    assert [step.line.tag for step in found.forward] == ["PAR.1", "PAR.2", "PAR.3", "PAR.4", "PAR.5"]
    assert [step.line.tag for step in found.backward] == ["PAR.5", "PAR.4", "PAR.3", "PAR.2", "PAR.1", "+"]


def test_lines_with_a_meeting_are_among_them():
    lines = tagged_lines(cbam)
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
    with pytest.raises(ValueError, match="the output y"):
        watched(cbam.backward, np.ones((1, 1, 1, 2)), cbam_cache())
    assert sys.gettrace() is before


def cbam_cache() -> cbam.Cache:
    layer = npattn.CBAM(1, 1, 1, dtype="float64", rng=0, fused=False)
    layer.forward(np.ones((1, 1, 1, 1)))
    return layer._last.kept.cache


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "sa"}, f"name: expected one of {str(NAMES)[1:-1]}, got 'sa'"),
        ({"name": "se", "shape": (1, 2, 2)}, "shape: expected 4 whole numbers"),
        ({"name": "se", "shape": (1, 64, 64, 64)}, "shape: expected at most 4096 numbers"),
        ({"name": "se", "seed": -1}, "seed: expected a whole number of at least 0"),
        ({"name": "spatial", "kernel_size": 4}, "kernel_size: expected an odd"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        trace(**arguments)


def test_on_the_terminal(capsys):
    assert main(["trace", "cbam", "--shape", "1", "2", "2", "3", "--seed", "4"]) == 0
    text = capsys.readouterr().out
    for piece in ("CBAM.1 ", "CA.6 ", "MLP.3 ", "SA.4 ", "dx[0, 1, 1, 2]", "dsa.w[0, 1, 2, 2]", "largest difference"):
        assert piece in text
    assert not any(line != line.rstrip() for line in text.splitlines())
    with pytest.raises(SystemExit, match="2"):
        main(["trace", "se", "--shape", "1", "2", "0", "2"])
    assert "--shape: expected a shape, four whole numbers (N, C, H, W) from 1" in capsys.readouterr().err
    assert main(["trace", "loss", "--seed", "2"]) == 0
    text = capsys.readouterr().out
    for piece in ("t (2,) = ", "CE.4 ", "loss () = ", "dz[1, 2]"):
        assert piece in text
    assert main(["trace", "loss", "--shape", "1", "2", "2", "2"]) == 2
    assert "--shape has no effect on loss, an op" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_example():
    np.testing.assert_array_equal(trace("se", seed=4).x, trace("se", seed=4).x)
    assert not np.array_equal(trace("se", seed=4).x, trace("se", seed=5).x)


@pytest.mark.parametrize("block", NAMES)
def test_what_is_shown_are_variables_and_no_caches(block: str):
    """Every number belongs to a name that the line assigns, a gradient of weights by its field."""
    for step in walked([*trace(block).forward, *trace(block).backward]):
        caches = {"squeeze", "fc1", "fc2", "hidden", "gate", "conv", "avg_pool", "max_pool", "mlp", "norm", "cache"}
        assert not {name.partition("[")[0].partition(".")[0] for name in step.values} & caches, step.line.code


def test_gradients_of_weights_inside_a_block_have_their_fields():
    shown = {name for step in walked(trace("coordinate").backward) for name in step.values}
    assert {"dnorm.gamma", "dnorm.beta", "dw1"} <= shown
