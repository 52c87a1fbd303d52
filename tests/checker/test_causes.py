"""Causes: the right one where its whole pattern is there, and none where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import gradcheck


def cause(forward, backward, x):
    """The cause that a check names for a gradient of one input."""
    (row,) = gradcheck((lambda x: (forward(x), x), backward), x, raise_exception=False).rows
    assert row.wrong
    return row.cause


CURVES = {
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "square": (np.square, lambda x: 2 * x),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "x sin x": (lambda x: x * np.sin(x), lambda x: np.sin(x) + x * np.cos(x)),
}
SHAPES = [(5,), (4, 5), (1, 6), (2, 3, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("c", [1.5, 0.9, 0.75, 1.1, 1.01, 0.02, -2.5])
def test_a_constant_factor_is_called_so(shape, curve, c):
    f, slope = CURVES[curve]
    told = cause(f, lambda dy, x: c * dy * slope(x), np.random.default_rng(1).standard_normal(shape))
    assert told.startswith(f"a constant factor of {c:.6g}")


def test_a_factor_is_written_as_a_fraction_where_that_is_all_of_it():
    x = np.random.default_rng(1).standard_normal((4, 5))
    assert cause(lambda x: x**3, lambda dy, x: 2 * dy * x**2, x) == "a constant factor of 2/3"
    assert cause(lambda x: x**3, lambda dy, x: -dy * x**2, x) == "a constant factor of -1/3"
    assert cause(np.square, lambda dy, x: dy * x, x) == "a constant factor of 0.5"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda g, x: 0.85648 * g,
        lambda g, x: 1.23457 * g,
        lambda g, x: g * (1 + 0.1 * np.tanh(x)),
        lambda g, x: g + 0.1 * np.cos(3 * x),
        lambda g, x: x * g + 0.1,
        lambda g, x: np.sqrt(np.abs(g)),
    ],
)
def test_what_has_no_pattern_gets_no_cause(shape, curve, wrong):
    f, slope = CURVES[curve]
    assert cause(f, lambda dy, x: dy * wrong(slope(x), x), np.random.default_rng(1).standard_normal(shape)) == ""


def test_what_varies_along_an_axis_is_still_said():
    x = np.random.default_rng(1).standard_normal((4, 5))
    scale = np.linspace(1.5, 2, 5)
    told = cause(lambda x: np.tanh(x) * scale, lambda dy, x: dy * (1 - np.tanh(x) ** 2), x)
    assert told.startswith("a factor that varies along axis 1 alone")


def two_outputs(x):
    return np.tanh(x), x**2, x


def first_alone(da, db, x):
    return da * (1 - np.tanh(x) ** 2)


def second_alone(da, db, x):
    return db * 2 * x


def without_third(dy, cache):
    x, w = cache
    return dy[0] * w + dy[1] * 2 * x, (dy[0] * x).sum(axis=0)


@pytest.mark.parametrize(("backward", "told"), [(first_alone, "output 0 of y"), (second_alone, "output 1 of y")])
def test_an_output_whose_share_alone_is_there_is_named(backward, told):
    x = np.random.default_rng(1).standard_normal((4, 5))
    (row,) = gradcheck((two_outputs, backward), x, raise_exception=False).rows
    assert row.cause == f"one path's share alone: what comes back from {told}"


def test_an_output_whose_share_is_missing_is_named():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((4, 5)), rng.standard_normal(5)
    forward = lambda x, w: (x * w, x**2, np.tanh(x), (x, w))  # noqa: E731
    report = gradcheck((forward, without_third), x, w, raise_exception=False)
    assert report.rows[0].cause == "another path's share is missing: what comes back from output 2 of y"
    assert report.rows[1].verdict == "ok"
