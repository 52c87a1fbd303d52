"""The numbers that the training's functions take: finite, in range, of the right type, or an error that names them."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn import models
from npattn.explain import figures
from npattn.optimizer import AdamW, one_cycle
from npattn.training import TrainConfig, evaluate, jittered, prepared

NAN, INF = float("nan"), float("inf")
IMAGES = np.zeros((4, 28, 28), np.uint8)
LABELS = np.arange(4)
NOTHING = (TypeError, ValueError)


def params() -> dict[str, np.ndarray]:
    return {"w": np.ones((2, 2), np.float32)}


@pytest.mark.parametrize("bad", [NAN, INF, -1.0, "0.1", True, None])
@pytest.mark.parametrize("name", ["decay", "beta1", "beta2", "eps"])
def test_the_optimiser(name: str, bad):
    with pytest.raises(NOTHING, match=f"^{name}: expected a"):
        AdamW(params(), **{name: bad})


def test_more_of_the_optimiser():
    for name, bad in (("beta1", 1.0), ("beta2", 1.5), ("eps", 0.0)):  # which divide by 0
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number"):
            AdamW(params(), **{name: bad})
    for bad in (None, [], "w", {"w": np.ones(2)}.items()):
        with pytest.raises(TypeError, match=r"^params: expected a"):
            AdamW(bad)
    optimizer = AdamW(params())
    for bad in (NAN, INF, -0.1, "0.1", True):
        with pytest.raises(NOTHING, match=r"^rate: expected a"):
            optimizer.step(params(), bad)
    with pytest.raises(KeyError, match="grads: expected keys out of"):
        optimizer.step({**params(), "v": np.ones(2)}, 0.1)
    assert optimizer.steps == 0
    assert optimizer.params["w"].tolist() == [[1, 1], [1, 1]]
    optimizer.step(params(), 0.0)
    assert optimizer.steps == 1


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ((-1, 10, 0.1), "step"), ((11, 10, 0.1), "step"), ((1.5, 10, 0.1), "step"), ((True, 10, 0.1), "step"),
        ((0, 0, 0.1), "steps"), ((0, NAN, 0.1), "steps"), ((0, "9", 0.1), "steps"),
        ((0, 10, NAN), "peak"), ((0, 10, INF), "peak"), ((0, 10, -1), "peak"), ((0, 10, "1"), "peak"),
        ((0, 10, 0.1, 1.5), "warmup"), ((0, 10, 0.1, NAN), "warmup"),
        ((0, 10, 0.1, 0.2, -0.1), "floor"), ((0, 10, 0.1, 0.2, True), "floor"),
    ],
)  # fmt: skip
def test_the_rate(given, name: str):
    with pytest.raises(NOTHING, match=f"^{name}: expected a"):
        one_cycle(*given)


def test_the_rate_from_end_to_end():
    rates = [one_cycle(step, 10, 0.1) for step in range(11)]
    assert max(rates) == 0.1 == rates[2]
    assert rates[0] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        *(({"batch_size": bad}, "batch_size") for bad in (0, -1, 1.5, True, NAN, "8", None)),
        *(({"images": bad}, "images") for bad in (None, [], IMAGES[0], "digits")),
        *(({"labels": bad}, "labels") for bad in (None, LABELS[:3], LABELS + 9, LABELS - 1, LABELS + 0.5)),
        ({"model": None}, "model"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images"),
    ],
)  # fmt: skip
def test_evaluating(changes, name: str):
    given = {"model": models.digits("none", rng=0), "images": IMAGES, "labels": LABELS, **changes}
    with pytest.raises(NOTHING, match=f"^{name}: expected"):
        evaluate(**given)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        *(({name: bad}, name) for name in ("shift", "turn", "zoom") for bad in (NAN, INF, -1, True, "1", None, 1e9)),
        *(({"rng": bad}, "rng") for bad in (None, 0, "seed", np.random.RandomState(0))),
        *(({"images": bad}, "images") for bad in (None, [], IMAGES[0])),
    ],
)
def test_moving(changes, name: str):
    given = {"images": IMAGES, "shift": 1, "turn": 1, "zoom": 0.1, "rng": np.random.default_rng(0), **changes}
    with pytest.raises(NOTHING, match=f"^{name}: expected"):
        jittered(**given)


@pytest.mark.parametrize("bad", [None, [], IMAGES[0], IMAGES[None]])
def test_preparing(bad):
    with pytest.raises(NOTHING, match=r"^images: expected"):
        prepared(bad)


@pytest.mark.parametrize("bad", [None, 5, "", "SE", ["se"], True])
@pytest.mark.parametrize("build", [models.digits, models.se_resnet])
def test_networks(build, bad):
    with pytest.raises(NOTHING, match=r"^attention: expected one of"):
        build(bad)


def test_a_network_in_a_config_has_a_name():
    with pytest.raises(TypeError, match="model: expected a name, got Sequential"):
        TrainConfig(model=models.digits(rng=0))
    with pytest.raises(ValueError, match="attention: expected one of"):
        npattn.TrainConfig(attention="")


# What the figures are drawn from

NUMBERS = {"mean": 0.5, "spread": 0.1, "over_images": 0.1, "saturated": 0.0, "half": 0.2}


def rows(**first) -> list[dict]:
    row = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "rate": 0.1, "seconds": 1.0}
    return [{**row, **first}, {**row, "epoch": 2}]


@pytest.mark.parametrize("name", ["a.$\\frac{", "channel", "\\\n" + "x" * 5000])
def test_names_of_gates_are_text(tmp_path, name: str):
    assert figures.gates(rows(gates={name: NUMBERS}), tmp_path / "gates.png")
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")


def test_titles():
    assert figures.title("stage2.attention.spatial") == "stage 2, spatial"
    assert figures.title("channel") == "channel"
    assert figures.title("") == ""
    assert figures.title("a.$x") == r"a, \$x"
    assert figures.title("\\.a\nb") == "/, a?b"
    assert len(figures.title("x" * 500)) == 60


def test_gates_that_come_and_go(tmp_path):
    history = rows(gates={"a.x": NUMBERS})
    history[1]["gates"] = {"b.x": NUMBERS}
    assert figures.gates(history, tmp_path / "gates.png")


@pytest.mark.parametrize(
    "numbers",
    [None, [], {}, {"mean": 0.5}, {**NUMBERS, "spread": NAN}, {**NUMBERS, "half": "1"}, {**NUMBERS, "more": 1.0}],
)
def test_numbers_of_gates_that_are_none(tmp_path, numbers):
    with pytest.raises(NOTHING, match=r"^history\[0\]\['gates'\]\['a.x'\]"):
        figures.gates(rows(gates={"a.x": numbers}), tmp_path / "gates.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("loss", "accuracy"), [(0.0, 1.0), (1e-320, 1 - 1e-16), (1e60, 0.0)])
def test_curves_of_any_size(tmp_path, loss: float, accuracy: float):
    """All digits right is no line that a logarithm can show, and no reason for a warning."""
    row = {"epoch": 1, "loss": loss, "accuracy": accuracy, "test_loss": loss, "test_accuracy": accuracy}
    figures.curves([row, {**row, "epoch": 2}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
