"""What rounding may excuse, and what it may not: large numbers beside small ones, inputs far from 0, fast waves."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import gradcheck
from npattn.checker.numeric import differences
from tests.checker.false_alarms import cases, random_point

X = np.random.default_rng(0).standard_normal((4, 5))
MASK = np.zeros((4, 5))
MASK[0, 3] = MASK[2, 2] = -1


def by_differences(forward):
    """The same forward, which takes no complex numbers."""

    def real(*inputs):
        return forward(*(np.array(x, dtype=np.float64) for x in inputs))

    return real


# Large numbers in y


def with_mask(size):
    """Scores, of which two are masked out."""

    def forward(x, w):
        return np.tanh(x) * w + size * MASK, (x, w)

    def backward(dy, cache, off=1.0):
        x, w = cache
        return off * dy * w * (1 - np.tanh(x) ** 2), (dy * np.tanh(x)).sum(axis=0)

    return forward, backward, (X, np.full(5, 0.7))


def with_one_large(size):
    """A loss beside the scores, say, that depends on nothing."""

    def forward(x):
        return np.append(np.tanh(x).reshape(-1), size), x

    def backward(dy, x, off=1.0):
        return off * dy[:-1].reshape(x.shape) * (1 - np.tanh(x) ** 2)

    return forward, backward, (X,)


def with_some_that_move(size):
    def forward(x, w):
        return np.append(np.tanh(x).reshape(-1), size * w), (x, w)

    def backward(dy, cache, off=1.0):
        x, _ = cache
        return off * dy[:-3].reshape(x.shape) * (1 - np.tanh(x) ** 2), size * dy[-3:]

    return forward, backward, (X, np.ones(3))


LARGE = [with_mask, with_one_large, with_some_that_move]


@pytest.mark.parametrize("size", [1e9, 1e12, 1e16, 1e30])
@pytest.mark.parametrize("how", LARGE)
@pytest.mark.parametrize("off", [1 + 1e-5, 1.5, -1.0])
@pytest.mark.parametrize("plain", [False, True], ids=["complex", "differences"])
def test_large_numbers_in_y_make_nothing_green(size, how, off, plain):
    forward, backward, inputs = how(size)
    pair = by_differences(forward) if plain else forward, lambda dy, cache: backward(dy, cache, off)
    assert gradcheck(pair, *inputs, raise_exception=False).status != 0


@pytest.mark.parametrize("size", [1e9, 1e12])
@pytest.mark.parametrize("how", LARGE)
def test_beside_large_numbers_the_complex_step_still_tells_right_from_wrong(size, how):
    forward, backward, inputs = how(size)
    assert gradcheck((forward, backward), *inputs).status == 0
    report = gradcheck((forward, lambda dy, cache: backward(dy, cache, 1.5)), *inputs, raise_exception=False)
    assert report.status == 1


def test_what_rounding_hides_is_told_with_the_reason():
    forward, backward, inputs = with_mask(1e9)
    report = gradcheck((by_differences(forward), backward), *inputs, raise_exception=False)
    assert report.status == 3
    assert "entries could be compared only to within" in report.rows[0].untested
    forward, backward, inputs = with_some_that_move(1e30)
    report = gradcheck((forward, backward), *inputs, raise_exception=False)
    assert "x: untested: no number of it is beyond what the rounding of y hides" in str(report)


def test_in_float32_large_numbers_hide_nothing_either():
    forward, backward, inputs = with_mask(1e6)
    pair = forward, lambda dy, cache: backward(dy, cache, 1.3)
    assert gradcheck(pair, *inputs, dtype="float32", raise_exception=False).status != 0


def test_a_small_output_beside_a_large_one_counts_as_influence():
    """x has a gradient of 0 on both sides where it is; elsewhere y moves by 1 beside 1e9."""

    def forward(x, b):
        return np.append((np.maximum(x, 0) + 0 * b).reshape(-1), 1e9 + b[0, 0]), (x, b)

    def backward(dy, cache):
        x, b = cache
        db = np.zeros_like(b)
        db[0, 0] = dy[-1]
        return 0 * x, db

    x = -np.abs(X)
    report = gradcheck((forward, backward), x, X, raise_exception=False)
    assert report.status != 0


# Inputs far from 0


def norm(x):
    """A layer norm."""
    centred = x - x.mean(axis=-1, keepdims=True)
    s = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / s, (centred / s, s)


def norm_by_squares(x):
    """The same, by the difference of two large numbers."""
    mean = x.mean(axis=-1, keepdims=True)
    s = np.sqrt((x * x).mean(axis=-1, keepdims=True) - mean**2 + 1e-5)
    return (x - mean) / s, ((x - mean) / s, s)


def norm_backward(dy, cache):
    n, s = cache
    return (dy - dy.mean(axis=-1, keepdims=True) - n * (dy * n).mean(axis=-1, keepdims=True)) / s


class Normed:
    """The same as an object."""

    def __init__(self):
        self.params, self.grads = {"g": np.ones(5)}, {}

    def forward(self, x):
        self.n, (_, self.s) = norm(x)
        return self.n * self.params["g"]

    def backward(self, dy):
        self.grads["g"] = (dy * self.n).sum(axis=0)
        return norm_backward(dy * self.params["g"], (self.n, self.s))


@pytest.mark.parametrize("far", [1e2, 1e4, 1e5, 1e6, 1e7])
@pytest.mark.parametrize("seed", range(4))
def test_a_layer_norm_far_from_0_is_right(far, seed):
    x = np.random.default_rng(seed).standard_normal((4, 5)) + far
    for target in ((norm, norm_backward), (by_differences(norm), norm_backward), Normed()):
        assert gradcheck(target, x, seed=seed).status == 0


@pytest.mark.parametrize("far", [1e8, 1e9, 1e10, 1e12])
def test_still_further_it_is_not_called_wrong_nor_rounded_inside(far):
    x = np.random.default_rng(0).standard_normal((4, 5)) + far
    for target in ((norm, norm_backward), (by_differences(norm), norm_backward), Normed()):
        report = gradcheck(target, x, raise_exception=False)
        assert not report.wrong
        assert "rounds inside" not in report.no_verdict
        if far == 1e12:
            assert "what it hangs on lies in the last digits of float64" in report.no_verdict


@pytest.mark.parametrize("far", [1e2, 1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("seed", range(3))
def test_a_variance_by_squares_is_not_called_wrong_where_it_is_rounding(far, seed):
    x = np.random.default_rng(seed).standard_normal((4, 5)) + far
    for forward in (norm_by_squares, by_differences(norm_by_squares)):
        report = gradcheck((forward, norm_backward), x, seed=seed, raise_exception=False)
        assert not report.wrong
        assert "rounds inside" not in report.no_verdict


@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_a_wrong_one_is_still_found_there(far):
    def without_variance(dy, cache):
        return (dy - dy.mean(axis=-1, keepdims=True)) / cache[1]

    for forward in (norm, by_differences(norm)):
        assert gradcheck((forward, without_variance), X + far, raise_exception=False).status == 1


# Fast waves


@pytest.mark.parametrize("waves", [1e3, 1e6, 1e7, 1e9, 1e10])
def test_fast_waves_are_neither_wrong_nor_steps(waves):
    def forward(x):
        return np.sin(waves * x), x

    def backward(dy, x):
        return waves * dy * np.cos(waves * x)

    for f in (forward, by_differences(forward)):
        report = gradcheck((f, backward), X, raise_exception=False)
        assert not report.wrong
        assert not report.no_verdict
        if waves < 1e10:
            assert report.status == 0
        assert gradcheck((f, lambda dy, x: 2 * backward(dy, x)), X, raise_exception=False).status != 0


def test_waves_that_float64_cannot_follow_get_no_verdict_and_the_true_reason():
    report = gradcheck(
        (lambda x: (np.sin(1e12 * x), x), lambda dy, x: 1e12 * dy * np.cos(1e12 * x)), X, raise_exception=False
    )
    assert "no verdict: y jumps from point to point" in str(report)
    assert "rounds inside" not in str(report)


def test_steps_beyond_a_waves_length_are_not_believed():
    """They agree on a slope that is none, and so do some of the smaller ones."""
    at, waves = 0.3, 1e7
    found = differences(
        lambda t: np.array([np.sin(waves * (at + t))]), np.ones(1), np.array([np.sin(waves * at)]), 2.0**-5, 0.0,
        noise=lambda: np.array([2e-9]),
    )  # fmt: skip
    assert found.middle == pytest.approx(waves * np.cos(waves * at), rel=1e-5)


def test_a_kink_and_a_curve_together_are_no_steps():
    case = cases()["spatial-norm, eval"]
    report = gradcheck((case.forward, case.backward), *random_point(case, 7017), strict=True, raise_exception=False)
    assert not report.no_verdict
    assert not report.wrong


# Next to nothing


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_numbers_with_few_digits_left_are_not_called_nonlinear(dtype):
    """Shut gates' slopes may be subnormal numbers, of a digit or two: no map of those is linear to the last."""
    shut = {"float64": 1e-320, "float32": 1e-43}[dtype]

    def forward(x):
        return x * x.dtype.type(shut), x

    def backward(dy, x):
        return dy * x.dtype.type(shut)

    report = gradcheck((forward, backward), X, dtype=dtype, raise_exception=False)
    assert not report.wrong
    assert "not linear" not in str(report)
    bent = gradcheck((forward, lambda dy, x: backward(dy, x) + 1e3 * shut), X, dtype=dtype, raise_exception=False)
    assert "not 0 for dy = 0" in str(bent)


@pytest.mark.parametrize(("name", "seed"), [("srm, eval", 100019), ("coordinate, train", 100035)])
def test_a_shut_gate_raises_no_alarm(name, seed):
    case = cases()[name]
    report = gradcheck((case.forward, case.backward), *random_point(case, seed), strict=True, raise_exception=False)
    assert not report.wrong
