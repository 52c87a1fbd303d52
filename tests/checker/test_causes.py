"""Causes: the right one where its whole pattern is there, and none where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import gradcheck
from npattn.checker.causes import border
from tests.checker import zoo_states


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


def shares_of(a, axis):
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def whole(dy, y, axis):
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


JACOBIANS = {
    "without its outer product": lambda dy, y, axis: y * dy,
    "outer product with the wrong sign": lambda dy, y, axis: y * (dy + (dy * y).sum(axis=axis, keepdims=True)),
    "its diagonal": lambda dy, y, axis: dy * y * (1 - y),
    "along the other axis": lambda dy, y, axis: whole(dy, y, 1 - axis),
}
FOUR_BY_SIX = np.random.default_rng(3).standard_normal((4, 6))


def rows_by_bias(x, b):
    """A softmax along each row of x² + b, with one b for all."""
    y = shares_of(x**2 + b, 1)
    return y * x, (x, y)


def by_bias(jacobian):
    def backward(dy, cache):
        x, y = cache
        da = jacobian(dy * x, y, 1)
        return dy * y + 2 * x * da, np.array([da.sum()])

    return backward


def columns_by_weights(x, w):
    """Shares of two branches of three channels, six scores a row, by which two values are weighed."""
    a = x @ w
    g = shares_of(a.reshape(-1, 2, 3), 1)
    return g * VALUES, (x, w, g)


VALUES = np.random.default_rng(4).standard_normal((4, 2, 3))


def by_weights(jacobian, factor=1.0):
    def backward(dy, cache):
        x, w, g = cache
        dg = dy * VALUES * factor
        both = [jacobian(dg[i], g[i], 0) for i in range(len(g))]
        da = np.array(both).reshape(len(x), -1)
        return da @ w.T, x.T @ da

    return backward


@pytest.mark.parametrize("wrong", JACOBIANS)
def test_a_softmax_undone_wrongly_inside_a_block_shows_in_a_bias_that_has_no_effect(wrong):
    check = gradcheck((rows_by_bias, by_bias(JACOBIANS[wrong])), FOUR_BY_SIX, np.array([0.3]), raise_exception=False)
    x, b = check.rows
    assert b.cause.startswith("the forward uses it, and y does not depend on it: what all numbers share is taken")
    assert x.wrong
    assert not x.cause


@pytest.mark.parametrize("wrong", JACOBIANS)
def test_a_softmax_undone_wrongly_inside_a_block_shows_in_what_adds_up_to_0(wrong):
    w = np.random.default_rng(5).standard_normal((6, 6))
    check = gradcheck((columns_by_weights, by_weights(JACOBIANS[wrong])), FOUR_BY_SIX, w, raise_exception=False)
    x, of_w = check.rows
    assert of_w.cause.startswith(
        "the numeric gradient adds up to 0 over each 2 numbers of axis 1 that are 3 apart, the"
    )
    assert "the outer product in a softmax's Jacobian" in of_w.cause
    assert x.wrong
    assert not x.cause


def test_what_is_shuffled_after_a_softmax_was_undone_rightly_is_called_so():
    """Branches and channels taken for one another: no number of it is there for the softmax's term to be missing."""

    def backward(dy, cache):
        dx, dw = by_weights(whole)(dy, cache)
        return dx, 2 * dw.reshape(6, 2, 3).swapaxes(1, 2).reshape(6, 6)

    w = np.random.default_rng(5).standard_normal((6, 6))
    row = gradcheck((columns_by_weights, backward), FOUR_BY_SIX, w, raise_exception=False).rows[1]
    assert "the analytic one over each 2 numbers of axis 1 that are 1 apart: what comes back through" in row.cause
    assert "is put in another order" in row.cause


def test_a_softmax_that_is_undone_rightly_is_not_blamed():
    w, factor = np.random.default_rng(5).standard_normal((6, 6)), 1 + VALUES**2
    for case in (
        gradcheck((columns_by_weights, by_weights(whole, factor)), FOUR_BY_SIX, w, raise_exception=False),
        gradcheck((rows_by_bias, lambda dy, cache: (dy, by_bias(whole)(dy, cache)[1])), FOUR_BY_SIX, np.array([0.3]),
                  raise_exception=False),
    ):  # fmt: skip
        assert case.wrong
        assert not any("softmax" in row.cause for row in case.rows)


def test_a_bias_before_a_norm_shows_a_mean_that_was_taken_for_a_constant():
    def norm(x, b):
        z = x**3 + b
        centred = z - z.mean(axis=0)
        rho = 1 / np.sqrt((centred**2).mean(axis=0) + 1e-5)
        return centred * rho, (x, rho)

    def backward(dy, cache):
        x, rho = cache
        return 3 * x**2 * dy * rho, (dy * rho).sum(axis=0)

    row = gradcheck((norm, backward), FOUR_BY_SIX, np.arange(6.0), raise_exception=False).rows[1]
    assert row.cause.startswith("the forward uses it, and y does not depend on it")
    assert "a normalisation's mean" in row.cause


def test_a_softmax_is_not_the_only_thing_that_takes_out_what_all_numbers_share():
    """A margin between scores does, and a difference of neighbours: theirs is the missing term, and no softmax's."""
    labels, w = np.array([0, 2, 1, 3]), np.random.default_rng(5).standard_normal((6, 4))

    def hinge(x, w):
        s = x @ w
        over = np.maximum(0, s - s[np.arange(4), labels][:, None] + 1)
        over[np.arange(4), labels] = 0
        return over.sum(), (x, w, over)

    def without_the_labels_own(dy, cache):
        x, w, over = cache
        ds = dy * (over > 0)
        return ds @ w.T, x.T @ ds

    def steps(x):
        return np.diff(x, axis=1) ** 2 / 2, np.diff(x, axis=1)

    def of_another_sign(dy, d):
        return np.pad(dy * d, ((0, 0), (1, 0))) + np.pad(dy * d, ((0, 0), (0, 1)))

    def along_the_other_axis(dy, x):
        d = dy * np.diff(x, axis=0)
        return np.pad(d, ((1, 0), (0, 0))) - np.pad(d, ((0, 1), (0, 0)))

    for case in (
        gradcheck((hinge, without_the_labels_own), FOUR_BY_SIX, w, raise_exception=False).rows[1],
        gradcheck((steps, of_another_sign), FOUR_BY_SIX, raise_exception=False).rows[0],
        gradcheck((lambda x: (steps(x)[0].sum(), x), along_the_other_axis), FOUR_BY_SIX, raise_exception=False).rows[0],
    ):
        assert case.cause.startswith("the numeric gradient adds up to 0 along axis 1, the analytic one")
        assert "a softmax, a normalisation or a difference" in case.cause


def test_a_bias_that_a_softmax_takes_out_does_not_blame_the_softmax_alone():
    """ds @ q for dsᵀ @ q: the softmax is undone rightly, and what comes back through it is put in another order."""
    x, v = np.random.default_rng(6).standard_normal((2, 5, 5))

    def forward(k, b):
        p = shares_of(x @ (k + b).T, 1)
        return p @ v, p

    def not_transposed(dy, p):
        dk = whole(dy @ v.T, p, 1) @ x
        return dk, dk.sum(axis=0)

    k, b = np.random.default_rng(7).standard_normal((2, 5, 5))
    row = gradcheck((forward, not_transposed), k, b[0], raise_exception=False).rows[1]
    assert row.cause.startswith("the forward uses it, and y does not depend on it")
    assert "what comes back through it is put in another order" in row.cause


def test_what_comes_back_from_later_steps_may_be_there_and_wrong():
    """A recurrent weight that is not transposed on the way back."""

    def forward(x, u):
        h = [np.zeros(x.shape[1:])]
        for step in x:
            h.append(np.tanh(step + h[-1] @ u))
        return np.array(h[1:]), (h, u)

    def not_transposed(dy, cache):
        h, u = cache
        back, dx, du = np.zeros_like(h[0]), np.zeros_like(dy), np.zeros_like(u)
        for step in reversed(range(len(dy))):
            dx[step] = (dy[step] + back) * (1 - h[step + 1] ** 2)
            du += h[step].T @ dx[step]
            back = dx[step] @ u
        return dx, du

    x, u = np.random.default_rng(0).standard_normal((2, 4, 3, 3))
    row = gradcheck((forward, not_transposed), x, u[0], raise_exception=False).rows[0]
    assert row.cause == "right at the last step along axis 0 only: what comes back from later steps is missing or wrong"


@pytest.mark.parametrize("forward", [lambda x, b: x**3, lambda x, b: x**3 + np.maximum(b, 0)], ids=["unused", "masked"])
def test_what_the_forward_leaves_aside_or_a_mask_hides_is_told_from_it(forward):
    pair = (lambda x, b: (forward(x, b), x), lambda dy, x: (3 * x**2 * dy, dy.sum(axis=0)))
    row = gradcheck(pair, FOUR_BY_SIX, -1 - np.arange(6.0), raise_exception=False).rows[1]
    assert row.cause.startswith("y does not depend on it here: a mask is missing, or it is not the array")


@pytest.mark.parametrize("seed", [7000, 7001, 7004, 7020])
def test_a_pattern_that_is_there_by_chance_is_no_cause(seed):
    """With two hidden units and two images, a wrong mask looks like a lost image, a border or a path at one point."""
    inputs = zoo_states.FOR_GATE(np.random.default_rng(seed))
    pair = (zoo_states.gate_of_two_runs, zoo_states.mask_of_the_mean_run_for_both)
    check = gradcheck(pair, *inputs, seed=seed, raise_exception=False)
    assert [row.name for row in check.rows if row.wrong] == ["x", "w1"]
    assert [row.cause for row in check.rows] == ["", "", ""]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("by", [2, 1 + 1e-6])
def test_a_cause_is_looked_for_without_a_warning_where_the_gradient_is_0(by):
    """A ReLU that is open at the given point and shut at another one, and a mask is missing besides."""
    v, w = np.random.default_rng(1).standard_normal((2, 3, 4))
    named = []
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal((3, 4))

        def forward(x, w):
            return np.maximum((v * x).sum(), 0) * w, (x, w)

        def without_a_mask(dy, cache):
            x, w = cache
            return by * v * (dy * w).sum(), dy * np.maximum((v * x).sum(), 0)

        inputs = np.sign((v * x).sum()) * x, w[0]
        row = gradcheck((forward, without_a_mask), *inputs, raise_exception=False).rows[0]
        assert row.wrong
        named.append(row.cause)
    assert "" in named  # where it was shut


def test_a_cause_of_some_entries_is_confirmed_at_some_of_them():
    """400 of 6000 are looked at. To look at all of these at two points more would take three times as long."""
    calls = []

    def forward(x):
        calls.append(x)
        return np.sin(x), x

    x = np.random.default_rng(0).standard_normal((60, 100))
    row = gradcheck((forward, lambda dy, x: 2 * dy * np.cos(x)), x, raise_exception=False).rows[0]
    assert row.cause == "a constant factor of 2"
    assert row.checked.endswith("of 6000 entries")
    assert len(calls) < 1500


def wrong_at(*places):
    """A gradient of an image that is wrong there."""
    n = np.random.default_rng(1).standard_normal((2, 3, 5, 6))
    a = n.copy()
    for place in places:
        a[0, 1, *place] += 1
    return a, n


def test_a_few_places_at_the_border_are_no_pattern():
    assert not border(*wrong_at((0, 1), (4, 4), (2, 0)), None)
    assert border(*wrong_at(*((0, column) for column in range(6))), None)
    many = ((row, column) for row in (0, 4) for column in range(1, 5))
    assert border(*wrong_at(*many, (1, 0), (2, 5), (3, 0), (3, 5), (1, 5), (2, 0)), None)
    assert not border(*wrong_at((2, 2), *((0, column) for column in range(6))), None)
