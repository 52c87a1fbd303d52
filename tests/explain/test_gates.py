"""Statistics of gates: five numbers, each from a gate made so that they are known; and the attentions' names."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn import models
from npattn.explain import gate_statistics


def of(gate: np.ndarray) -> dict[str, float]:
    return gate_statistics({"g": gate.astype(np.float32)})["g"]


def test_gates_that_never_learnt():
    assert of(np.full((3, 1, 4, 5), 0.5)) == {"mean": 0.5, "spread": 0, "over_images": 0, "saturated": 0, "half": 1}


def test_collapsed_gates():
    gate = np.ones((3, 8, 1, 1))
    gate[:, ::2] = 0
    assert of(gate) == {"mean": 0.5, "spread": 0.5, "over_images": 0, "saturated": 1, "half": 0}


def test_gates_that_look_at_the_image():
    gate = np.zeros((2, 3, 1, 1))
    gate[0], gate[1] = 0.2, 0.6
    found = of(gate)
    assert found == pytest.approx({"mean": 0.4, "spread": 0.2, "over_images": 0.2, "saturated": 0, "half": 0})
    gate[:, 1] = 0.4  # one channel the same for both images: the mean of 0.2, 0 and 0.2
    assert of(gate)["over_images"] == pytest.approx(0.4 / 3)


@pytest.mark.parametrize(
    ("value", "saturated", "half"),
    [(0.04, 1, 0), (0.06, 0, 0), (0.94, 0, 0), (0.96, 1, 0), (0.44, 0, 0), (0.46, 0, 1), (0.54, 0, 1), (0.56, 0, 0)],
)
def test_the_bounds(value: float, saturated: float, half: float):
    found = of(np.full((2, 2, 1, 1), value))
    assert (found["saturated"], found["half"]) == (saturated, half)


def test_what_is_no_gate():
    assert gate_statistics({}) == {}
    with pytest.raises(TypeError, match=r"gates\['g'\]: .*list"):
        gate_statistics({"g": [0.5]})


def test_a_network_gives_every_gate_by_name():
    x = np.zeros((2, 1, 28, 28), np.float32)
    for network, names in (
        (
            models.digits("cbam", rng=0),
            [f"stage{n}.attention.{kind}" for n in (2, 3) for kind in ("channel", "spatial")],
        ),
        (models.se_resnet(rng=0), [f"unit{n}.branch.attention.channel" for n in (1, 2, 3)]),
    ):
        with npattn.no_grad():
            network.eval()(x)
        assert list(gate_statistics(network.attention)) == names


def test_the_table_goes_into_the_units():
    network = models.se_resnet(rng=0).eval()
    rows = models.table(network, np.zeros((2, 1, 28, 28), np.float32))
    assert sum(count for *_, count in rows) == network.count()
    shapes = {name: shape for name, _, shape, _ in rows}
    assert shapes["unit2"] == shapes["unit2.skip.bn"] == shapes["unit2.branch.attention"] == (2, 32, 7, 7)
    assert shapes["head"] == (2, 10)
