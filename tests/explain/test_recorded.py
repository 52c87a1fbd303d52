"""What a layer does, recorded: the steps that its file has, the work by hand, and nothing left changed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from npattn.backend import numpy_module
from npattn.block import Place
from npattn.blocks import block, blocks
from npattn.explain.recorded import MADE, kept, recorded, recording

PLACE = Place(24, 5, 9, r=4)


def made(name: str, place: Place = PLACE, images: int = 3, dtype: str = "float64"):
    layer = block(name).layer(place, rng=0, dtype=dtype, fused=False)
    x = np.random.default_rng(0).standard_normal((images, place.C, place.H, place.W)).astype(dtype)
    return layer, x


def test_the_steps_of_se_are_the_lines_of_its_file():
    layer, x = made("se")
    found = recorded(layer, x)
    steps = [(step.name, step.sources, step.weights, step.shape) for step in found.steps[1:]]
    assert steps == [
        ("global_avg_pool", ((0,),), (), (3, 24)),
        ("linear", ((1,), ()), ("fc.0.weight",), (3, 6)),
        ("relu", ((2,),), (), (3, 6)),
        ("linear", ((3,), ()), ("fc.2.weight",), (3, 24)),
        ("sigmoid", ((4,),), (), (3, 24)),
        ("multiply", ((0,), (5,)), (), (3, 24, 5, 9)),
    ]
    assert (found.gates, found.last) == ({5: "channel"}, {6})


def test_what_is_no_step_of_its_own_is_shown_by_what_it_does():
    layer, x = made("se")
    names = [step.name for step in recorded(layer, x, whole=lambda op: op != "global_avg_pool").steps]
    assert names == ["x", "mean", "linear", "relu", "linear", "sigmoid", "multiply"]


def test_the_multiplications_by_hand():
    N, C, H, W, R, k = 3, 24, 5, 9, 6, 7
    gates = {"se": N * C, "scse": N * C + N * H * W, "spatial": N * H * W, "conv-gate": N * C * H * W}
    by_hand = {
        "se": N * (2 * C * R + C * H * W),
        "scse": N * (2 * C * R + C * H * W + 2 * C * H * W),  # a 1×1 convolution, and two products
        "spatial": N * 2 * k * k * H * W,
        "conv-gate": N * (9 * C * C * H * W + C * H * W),
    }
    for name, count in by_hand.items():
        assert recorded(*made(name)).forward.multiplications == count + gates[name], name  # a sigmoid has one division


def test_the_passes_of_se_by_hand():
    """Forward: the mean reads x, the product reads x and writes y. Backward: 2, 3, 1, 3 and 3, as its lines say."""
    layer, x = made("se", Place(16, 56, 56), 2, "float32")
    found = recorded(layer, x)
    assert found.forward.moved / x.nbytes == pytest.approx(3, abs=0.02)
    assert found.backward.moved / x.nbytes == pytest.approx(2 + 3 + 1 + 3 + 3, abs=0.02)


@pytest.mark.parametrize("name", blocks())
def test_every_block_is_recorded_and_computes_the_same(name: str):
    """To the last bit; each gate is made by a step, y is the last of a chain from x, and all weights are on the way."""
    layer, x = made(name)
    plain, _ = made(name)
    expected = plain.forward(x)
    with recording(lambda op: True) as recorder:
        recorder.steps.append(None)  # x
        y = layer.forward(kept(x, frozenset({0})))
    np.testing.assert_array_equal(np.asarray(y), expected)
    again, _ = made(name)
    found = recorded(again, x)
    gates, other = plain.attention, np.random.default_rng(1).standard_normal(x.shape)
    plain.forward(other)
    for gate in set(gates) - set(found.gates.values()):  # a constant: the shares of a plain mean
        np.testing.assert_array_equal(gates[gate], plain.attention[gate], gate)
    reached, front = set(), list(found.last)
    while front:
        i = front.pop()
        if i not in reached:
            reached.add(i)
            front += [source for sources in found.steps[i].sources for source in sources]
    assert 0 in reached
    assert {key for i in reached for key in found.steps[i].weights} == set(plain.params), "a weight without a step"
    assert found.backward.moved > found.forward.moved / 3 > 0


def test_all_is_as_before():
    xp, profile = numpy_module(), sys.getprofile()
    before = {name: getattr(xp, name) for name in MADE}
    layer, x = made("cbam")
    recorded(layer, x)
    with pytest.raises(ValueError, match="x: expected shape"):
        recorded(made("cbam")[0], x[:, :3])
    assert sys.getprofile() is profile
    assert all(getattr(xp, name) is function for name, function in before.items())
