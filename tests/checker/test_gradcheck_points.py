"""What the check has not seen: several points, what is untested, what has no influence, what a forward asks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import npattn
from npattn import gradcheck
from npattn.checker import UntestedWarning
from npattn.checker.points import FREE, NEAR, WIDE, WITHIN, drawn
from npattn.checker.seen import slices, words
from tests.checker.zoo_found import WORDS
from tests.checker.zoo_states import FOR_GATE, gate_backward, gate_of_two_runs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(4, 5)
W1, W2 = normal(3, 5, seed=1), normal(5, 3, seed=2)


def gated(x, w1, w2):
    """An SE of vectors: x times a gate, whose hidden units can be dead."""
    h = np.maximum(x @ w1.T, 0)
    g = 1 / (1 + np.exp(-h @ w2.T))
    return x * g, (x, w1, w2, h, g)


def right(dy, cache, path=True):
    x, w1, w2, h, g = cache
    dz = dy * x * g * (1 - g)
    da = (dz @ w2) * (h > 0)
    return dy * g + (da @ w1 if path else 0), da.T @ x, dz.T @ h


def direct(dy, cache):
    return right(dy, cache, path=False)


DEAD = np.abs(X), -np.abs(W1), W2  # every hidden unit is blocked by its ReLU


def test_at_one_point_that_is_dead_nothing_is_seen_and_the_first_line_says_so():
    report = gradcheck((gated, direct), *DEAD, points=1, raise_exception=False)
    assert str(report).splitlines()[0].endswith("gated: nothing wrong, but untested in w1, w2")
    assert [row.verdict for row in report.rows] == ["ok", "untested", "untested"]
    assert (report.points, report.status) == (1, 3)
    assert "\nw1: untested: all 15 entries are 0 on both sides at the one point looked at" in str(report)


def test_at_several_points_the_missing_path_is_found():
    report = gradcheck((gated, direct), *DEAD, raise_exception=False)
    assert report.status == 1
    (wrong,) = [row for row in report.rows if row.wrong]
    assert (wrong.name, "at a point drawn anew" in wrong.wrong) == ("x", True)
    assert "direct path" in wrong.cause
    assert set(wrong.at) == {"x", "w1", "w2"}
    again = gradcheck((gated, direct), *wrong.at.values(), points=1, raise_exception=False)
    assert again.rows[0].verdict == "WRONG"


def test_what_is_right_is_seen_to_be_so_at_several_points():
    report = gradcheck((gated, right), *DEAD)
    assert report.status == 0
    assert report.points > 8  # more than asked for, since something was always 0
    assert report.seconds > 0
    assert str(report).splitlines()[0].endswith("gated: passed")


@pytest.mark.parametrize("kwargs", [{"path": False}, {"path": False, "scale": 0.5}, {"shared_mask": True}])
def test_no_seed_hides_a_mistake_behind_dead_units(kwargs):
    """C = 4, r = 2, N = 2: at single points these were green in 8 of 60 seeds."""
    pair = gate_of_two_runs, lambda dy, cache: gate_backward(dy, cache, **kwargs)
    for seed in range(12):
        assert not gradcheck(pair, *FOR_GATE(np.random.default_rng(seed)), seed=seed, raise_exception=False)
    assert gradcheck((gate_of_two_runs, gate_backward), *FOR_GATE(np.random.default_rng(0))).status == 0


@pytest.mark.parametrize("seed", range(6))
def test_biases_that_hold_a_relu_open_are_drawn_smaller(seed):
    """They may keep their sign, for that may be asked of them; not their size."""

    def forward(x, w, b):
        return np.tanh(np.maximum(x * w + b, 0)), (x, w, b)

    def without_mask(dy, cache):
        x, w, b = cache
        d = dy * (1 - np.tanh(np.maximum(x * w + b, 0)) ** 2)
        return d * w, (d * x).sum(axis=0), d.sum(axis=0)

    w, b = np.full(5, 0.1), np.random.default_rng(seed).uniform(1.5, 2.5, 5)
    assert gradcheck((forward, without_mask), X, w, b, seed=seed, raise_exception=False).status == 1


def test_untested_is_a_warning_where_nobody_looks_at_the_report():
    with pytest.warns(UntestedWarning, match="nothing wrong, but untested in w1, w2"):
        gradcheck((gated, direct), *DEAD, points=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradcheck((gated, direct), *DEAD, points=1, raise_exception=False)


def test_single_images_rows_and_columns_are_named():
    w1 = np.abs(W1)
    w1[1] *= -1
    report = gradcheck((gated, right), np.abs(X), w1, W2, points=1, raise_exception=False)
    assert "slice 1 of axis 0 is" in report.rows[1].untested
    assert "slice 1 of axis 1 is" in report.rows[2].untested
    x = X.copy()
    x[2] = -np.abs(x[2])
    report = gradcheck(
        (lambda x: (np.maximum(x, 0), x), lambda dy, x: dy * (x > 0)), x, points=1, raise_exception=False
    )
    assert report.rows[0].untested == "slice 2 of axis 0 is 0 on both sides at the one point looked at"


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.array([True, False, True]), "entries 0, 2 are"),
        (np.array([[True, True], [False, True]]), "slice 0 of axis 0 and slice 1 of axis 1 are"),
        (np.ones((2, 3), dtype=bool), "all 6 entries are"),
        (np.array(True), "the number is"),
        (np.arange(9) < 8, "entries 0, 1, 2, 3, 4, 5, … are"),
    ],
)
def test_words_for_slices(mask, told):
    assert words(mask) == told
    assert bool(slices(mask))


def test_no_slice_is_no_words():
    assert not slices(np.eye(3, dtype=bool))
    assert not slices(np.zeros((0, 3), dtype=bool))


# What has no influence


def centred(x, b):
    """A bias before a norm: it is taken out again."""
    z = x + b
    return z - z.mean(axis=0), None


def test_a_bias_before_a_norm_has_no_influence_and_is_right():
    def backward(dy, cache):
        dz = dy - dy.mean(axis=0)
        return dz, dz.sum(axis=0)

    report = gradcheck((centred, backward), X, normal(5))
    assert report.status == 0
    told = "no influence on y was seen, by changes of up to 10,000 times its size"
    assert report.remarks == (f"b: {told}: all 5 entries are 0 on both sides, which is right then",)
    assert str(report).splitlines()[0].endswith("centred: passed, 1 remark")
    assert "remark: b: no influence" in str(report)


@pytest.mark.parametrize("kink", [5, 100, 1000])
def test_a_unit_that_is_dead_until_far_away_is_untested(kink):
    def forward(x, b):
        return np.maximum(x - kink, 0) + np.tanh(b), (x, b)

    def backward(dy, cache):
        _, b = cache
        return dy * 0, dy * (1 - np.tanh(b) ** 2)

    for seed in range(3):
        report = gradcheck((forward, backward), 0.1 * X, X, seed=seed, raise_exception=False)
        assert report.status != 0


def test_words_that_do_not_come_up_have_no_influence():
    def backward(dy, shape):
        table = np.zeros(shape)
        np.add.at(table, WORDS, dy)
        return table

    report = gradcheck((lambda table: (table[WORDS], table.shape), backward), normal(6, 3))
    assert report.status == 0
    assert "slices 4, 5 of axis 0 are" in report.remarks[0]


def test_a_kernel_beyond_the_image_has_none_either():
    assert gradcheck(npattn.Conv2d(2, 2, kernel_size=5, rng=0), normal(2, 2, 1, 4), strict=True).status == 0


def test_where_nothing_at_all_moves_it_is_untested():
    report = gradcheck((lambda x: (np.ones_like(x), x), lambda dy, x: 0 * dy), X, raise_exception=False)
    assert report.status == 3
    assert report.rows[0].verdict == "untested"


# What a forward asks of its inputs holds at other points too


def entropy(p):
    return -(p * np.log(p)).sum(axis=1), p


def entropy_backward(dy, p):
    return -dy[:, None] * (np.log(p) + 1)


def normalised_only(p):
    if not np.allclose(p.sum(axis=1), 1):
        raise ValueError("rows of sum 1, please")
    return entropy(p)


def ascending(t):
    if np.any(np.diff(t) <= 0):
        raise ValueError("ascending, please")
    return np.diff(t) ** 2, t


def ascending_backward(dy, t):
    d = 2 * dy * np.diff(t)
    return np.append(0, d) - np.append(d, 0)


def clipped(p):
    """Right for probabilities only: the backward does not know of the clip."""
    return np.log(np.maximum(p, 1e-12)), p


POSITIVE = np.random.default_rng(1).uniform(0.05, 0.95, (4, 5))


@pytest.mark.parametrize(
    ("pair", "x"),
    [
        ((lambda x: (np.log(x), x), lambda dy, x: dy / x), POSITIVE),
        ((lambda x: (np.sqrt(x), x), lambda dy, x: dy / (2 * np.sqrt(x))), POSITIVE),
        ((clipped, lambda dy, p: dy / p), POSITIVE),
        ((entropy, entropy_backward), POSITIVE / POSITIVE.sum(axis=1, keepdims=True)),
        ((lambda x: (np.arctanh(x), x), lambda dy, x: dy / (1 - x**2)), 2 * POSITIVE - 1),
        ((lambda p: (np.log(p / (1 - p)), p), lambda dy, p: dy / (p * (1 - p))), POSITIVE),
        ((ascending, ascending_backward), np.array([-1.0, 0.2, 0.3, 2.0, 2.5])),
        ((lambda x: (np.log(-x), x), lambda dy, x: dy / x), -POSITIVE),
        ((lambda x: (x**1.5, x), lambda dy, x: 1.5 * dy * x**0.5), POSITIVE[0, 0]),
    ],
    ids=["log", "root", "clip", "probabilities", "arctanh", "logit", "ascending", "negative", "one number"],
)
def test_no_alarm_outside_of_the_domain(pair, x):
    for seed in range(3):
        assert gradcheck(pair, np.atleast_1d(x), seed=seed).status == 0


def test_points_that_a_forward_refuses_are_left_out_and_told():
    def guarded(x):
        if np.max(np.abs(x)) > 1.5 * np.max(np.abs(X)) or not np.isfinite(x).all():
            raise ValueError("too large")
        return np.where(np.abs(x) < 4, x * np.sqrt(np.maximum(0.1, 1 - 0.1 * x**2)), np.nan), x

    def backward(dy, x):
        root = np.sqrt(1 - 0.1 * x**2)
        return dy * (root - 0.1 * x**2 / root)

    report = gradcheck((guarded, backward), X, points=30, raise_exception=False)
    assert not report.wrong
    assert report.points > 1

    def only_here(x):
        if not np.allclose(x, X, atol=1e-3, rtol=0.3):
            raise ValueError("elsewhere")
        return x**2, x

    report = gradcheck((only_here, lambda dy, x: 2 * dy * x), X, raise_exception=False)
    assert not report.wrong
    assert any("points drawn anew left out: forward raised ValueError" in note for note in report.notes)


def one_sided(x):
    return np.where(x > 0, x, 2 * x), x


def of_another_shape(dy, x):
    dx = dy * np.where(x > 0, 1.0, 2.0)
    return dx if np.allclose(x, X, atol=1e-3, rtol=0.3) else dx[0]


def not_a_number(dy, x):
    dx = dy * np.where(x > 0, 1.0, 2.0)
    return dx if np.allclose(x, X, atol=1e-3, rtol=0.3) else np.where(x < 0, np.nan, dx)


def none_at_all(dy, x):
    return dy * np.where(x > 0, 1.0, 2.0) if np.allclose(x, X, atol=1e-3, rtol=0.3) else None


@pytest.mark.parametrize(
    ("backward", "told"),
    [
        (of_another_shape, "expected a gradient of shape (4, 5), got (5,)"),
        (not_a_number, "entries are NaN or infinite"),
        (none_at_all, "expected a gradient, got None"),
    ],
)
def test_a_gradient_that_is_none_at_another_point_is_wrong(backward, told):
    report = gradcheck((one_sided, backward), X, raise_exception=False)
    assert report.status == 1
    assert "at a point drawn anew (1), where y has a derivative: " in report.rows[0].wrong
    assert told in report.rows[0].wrong
    assert set(report.rows[0].at) == {"x"}


def test_what_a_backward_does_where_it_is_alive_is_seen():
    """At the given point all is dead, and a step of the optimiser moves nothing."""

    def forward(x, w):
        return np.maximum(x * w, 0), (x, w)

    def stepping(dy, cache):
        x, w = cache
        d = dy * (x * w > 0)
        dx, dw = d * w, (d * x).sum(axis=0)
        w -= 0.1 * dw
        return dx, dw

    x, w = -np.abs(X), np.ones(5)
    report = gradcheck((forward, stepping), x, w, raise_exception=False)
    assert report.status == 1
    assert "another gradient the second time, for the same dy" in str(report)
    assert "w: mutated by backward" in str(report)

    def clipping(dy, cache):
        x, kept = cache
        np.clip(x, np.min(X), np.max(X), out=x)
        return 2 * dy * kept

    pair = (lambda x: (x**2, (x, x.copy()))), clipping
    report = gradcheck(pair, X)
    assert report.status == 0
    assert report.remarks == ("x: mutated by backward",)
    assert gradcheck(pair, X, strict=True, raise_exception=False).status == 1


def test_a_forward_that_refuses_to_be_moved_gets_no_verdict():
    p = POSITIVE / POSITIVE.sum(axis=1, keepdims=True)
    report = gradcheck((normalised_only, entropy_backward), p, raise_exception=False)
    assert report.status == 3
    assert "no verdict: the forward raises ValueError where the inputs are moved by little" in str(report)


def test_ways_to_draw():
    rng = np.random.default_rng(0)
    values = {"signed": X, "positive": POSITIVE, "bias": np.zeros(4), "gamma": np.ones(4), "after": np.maximum(X, 0)}
    for way in (FREE, WITHIN, *WIDE, NEAR):
        new = drawn(values, way, rng, {})
        assert all(new[key].shape == value.shape for key, value in values.items())
        assert np.all(new["positive"] > 0)
        assert np.max(new["positive"]) < 1.2
        assert np.all(new["gamma"] > 0)
        assert np.all(new["bias"] != 0)
        assert not np.array_equal(new["signed"], X)
        assert np.any(np.sign(new["signed"]) != np.sign(X)) or way == NEAR
        assert np.all(new["after"] >= 0)
    freed = drawn(values, FREE, rng, {"positive": np.ones_like(POSITIVE, dtype=bool)})
    assert np.any(freed["positive"] < 0)
    symmetric = drawn({"s": X[:4, :4] + X[:4, :4].T}, FREE, rng, {})["s"]
    assert np.array_equal(symmetric, symmetric.T)
    assert drawn({"empty": np.zeros((0, 3))}, FREE, rng, {})["empty"].shape == (0, 3)


def test_constants_stay_as_they_are():
    mask = (normal(4, 5, seed=3) > 0).astype(float)
    seen = []

    def forward(x, m):
        seen.append(np.array(m.real))
        return x * m, m

    report = gradcheck((forward, lambda dy, m: (dy * m, None)), X, mask)
    assert (report.status, report.points) == (0, 8)
    assert all(np.all(m[mask == 0] == 0) for m in seen)  # drawn anew they would be somewhere between
