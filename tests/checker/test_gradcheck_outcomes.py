"""Right; right, but; wrong; and no verdict at all. What is asked of the arguments, and what is handed in unseen."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

import npattn
from npattn import GradcheckError, gradcheck
from npattn.ops import sigmoid
from tests.checker.zoo_found import recurrent, recurrent_backward
from tests.checker.zoo_states import Held

X = np.random.default_rng(0).standard_normal((4, 5))
IMAGE = np.random.default_rng(1).standard_normal((2, 3, 4, 5))


# Right, but


class Buffered(Held):
    """Its buffers are used again and again."""

    def __init__(self, rng):
        super().__init__(rng)
        self.dw = np.zeros((5, 5))

    def backward(self, dy):
        dx = super().backward(dy)
        self.dw[...] = self.grads["w"]
        self.grads["w"] = self.dw
        return dx


def in_place(dy, y):
    dy *= y * (1 - y)
    return dy


def mutating(x):
    y = np.array(x)
    x[x < 0] = 0
    return np.maximum(y, 0), y


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Buffered(np.random.default_rng(0)), "gradient of w: overwritten by a later backward"),
        ((lambda x: (sigmoid.forward(x)[0], sigmoid.forward(x)[0]), in_place), "dy: mutated by backward"),
        ((mutating, lambda dy, x: dy * (x > 0)), "x: mutated by forward"),
        ((lambda x: (x.reshape(-1), x.shape), lambda dy, shape: dy.reshape(shape)), "y: shares memory with x"),
        (
            (lambda x: (np.tanh(x), x), lambda dy, x: (dy * (1 - np.tanh(x) ** 2)).astype(np.float32)),
            "gradient of x: rounded to float32, and compared only so far",
        ),
        (
            (lambda x: (np.tanh(x), x), lambda dy, x: (dy * (1 - np.tanh(x) ** 2)).astype("f4").astype("f8")),
            "gradient of x: rounded to float32, and compared only so far",
        ),
    ],
    ids=["buffer", "dy", "x", "reshape", "float32", "rounded"],
)
def test_the_houses_rules_are_remarks_and_strictly_they_are_mistakes(target, told):
    report = gradcheck(target, X)
    assert told in report.remarks
    assert report.status == 0
    assert ": passed, " in str(report).splitlines()[0]
    assert f"\nremark: {told}" in str(report)
    strict = gradcheck(target, X, strict=True, raise_exception=False)
    assert strict.status == 1
    assert not strict.remarks


def test_a_rounded_gradient_must_still_be_right():
    wrong = (lambda x: (np.tanh(x), x), lambda dy, x: (1.0001 * dy * (1 - np.tanh(x) ** 2)).astype(np.float32))
    with pytest.raises(GradcheckError, match="x: 20 of 20 entries are wrong"):
        gradcheck(wrong, X)


class Forgetful(Held):
    """Right but for a remark, and wrong in w."""

    def backward(self, dy):
        dx = super().backward(dy)
        dy *= 0
        self.grads["w"] = 1.5 * self.grads["w"]
        return dx


def test_the_errors_have_the_remarks_too():
    layer = Forgetful(np.random.default_rng(0))
    with pytest.raises(GradcheckError, match=r"w: 25 of 25 entries are wrong(.|\n)*dy: mutated by backward"):
        gradcheck(layer, X)
    pair = (lambda x: (x.reshape(-1) * 1.0, x), lambda dy, x: 2 * dy.reshape(x.shape))
    shares = (lambda x: (x.reshape(-1), x.shape), lambda dy, shape: 2 * dy.reshape(shape))
    for check in (gradcheck, gradcheck.assert_right):
        with pytest.raises(GradcheckError, match="remark: y: shares memory with x") as caught:
            check(shares, X)
        assert str(caught.value).count("shares memory") == 1
        with pytest.raises(GradcheckError) as caught:
            check(pair, X)
        assert "remark:" not in str(caught.value)


def test_a_house_rule_ends_no_check_before_its_points():
    """At the given point all is dead: it would stand there as untested, at the one point looked at."""

    def backward(dy, x):
        dx = dy * (x > 0)
        dy[...] = 0
        return dx

    report = gradcheck((lambda x: (np.maximum(x, 0), x), backward), -np.abs(X), strict=True, raise_exception=False)
    assert report.status == 1
    assert report.points >= 8
    assert "at the one point" not in str(report)
    assert report.rows[0].verdict == "ok"


# No verdict


def single(a):
    return np.asarray(a).astype(np.float32).astype(np.float64)


def windows(x):
    """Neighbours side by side in a buffer of float32, as an im2col has it."""
    out = np.zeros((x.shape[0], x.shape[1] - 1, 2), np.float32)
    out[..., 0], out[..., 1] = x[:, :-1], x[:, 1:]
    return out.astype(np.float64)


def windows_backward(dy, cache):
    x, w = cache
    dx = np.zeros_like(x)
    dx[:, :-1] += dy * w[0]
    dx[:, 1:] += dy * w[1]
    return dx, np.einsum("ni,nij->j", dy, windows(x))


def with_mean_of_float32(x):
    s = single(x.mean(axis=1, keepdims=True))
    return x * np.tanh(s), (x, s)


def with_mean_backward(dy, cache):
    x, s = cache
    return dy * np.tanh(s) + ((dy * x).sum(axis=1, keepdims=True) * (1 - np.tanh(s) ** 2)) / x.shape[1]


def of_tanh(dy, x):
    return dy * (1 - np.tanh(x) ** 2)


STEPS = {
    "inside": ((lambda x: (single(np.tanh(single(x))), x), of_tanh), X),
    "at the end": ((lambda x: (single(np.tanh(x)), x), of_tanh), X),
    "float16": ((lambda x: (np.tanh(x.astype(np.float16)).astype(np.float64), x), of_tanh), X),
    "windows": ((lambda x, w: (windows(x) @ w, (x, w)), windows_backward), X, np.array([0.7, -1.3])),
    "mean": ((with_mean_of_float32, with_mean_backward), X),
    "quantised": ((lambda x: (np.round(x * 256) / 256, x), lambda dy, x: 1.0 * dy), X),
    "quantised, then mixed": ((lambda x: (np.round(x * 16) @ np.ones((5, 3)) / 16, x),
                               lambda dy, x: dy @ np.ones((3, 5))), X),
    "decimals": ((lambda x: (np.round(np.exp(x), 6), x), lambda dy, x: dy * np.exp(x)), X),
}  # fmt: skip


@pytest.mark.parametrize("target", STEPS.values(), ids=STEPS)
def test_a_forward_that_rounds_inside_gets_no_verdict_but_that(target):
    report = gradcheck(*target, raise_exception=False)
    assert report.status == 3
    assert not report
    assert "no verdict: y moves in steps" in str(report)
    assert len(str(report).splitlines()) == 1
    assert {row.verdict for row in report.rows} == {"untested"}
    with pytest.raises(GradcheckError, match="no verdict: y moves in steps"):
        gradcheck(*target)


@pytest.mark.parametrize("name", ["inside", "at the end", "windows", "mean"])
def test_in_float32_it_can_be_checked(name):
    pair, *inputs = STEPS[name]
    assert gradcheck(pair, *inputs, dtype="float32").status == 0

    def off(dy, cache):
        answer = pair[1](dy, cache)
        return tuple(1.01 * g for g in answer) if isinstance(answer, tuple) else 1.01 * answer

    assert gradcheck((pair[0], off), *inputs, dtype="float32", raise_exception=False).status == 1


def test_a_layer_of_float32_says_so_in_one_line():
    class Float32(Held):
        def forward(self, x):
            y = super().forward(x)
            out = np.empty(y.shape, dtype="f")
            out[...] = y
            return out

    layer = Float32(np.random.default_rng(0))
    report = gradcheck(layer, X, raise_exception=False)
    assert str(report).startswith("Float32: no verdict: it computes in float32")
    assert len(str(report).splitlines()) == 1
    assert [row.name for row in report.rows] == ["x", "w"]
    assert gradcheck(layer, X, dtype="float32").status == 0


@pytest.mark.parametrize(
    ("pair", "x"),
    [
        ((lambda x: (np.maximum(x, 0), x), lambda dy, x: dy * (x > 0)), X),
        ((lambda x: (x * (x > 0.5), x), lambda dy, x: dy * (x > 0.5)), X),  # it jumps, and is right beside the jump
        ((lambda x: (x * np.sign(x), x), lambda dy, x: dy * np.sign(x)), X),
        ((lambda x: (x.max(axis=1), x), lambda dy, x: dy[:, None] * (x == x.max(axis=1, keepdims=True))), X),
        ((lambda x: (0.5 + 1e-9 * np.tanh(x), x), lambda dy, x: 1e-9 * of_tanh(dy, x)), X),  # moves by hardly anything
        ((lambda x: (np.tanh(x), x), of_tanh), 1e-12 * X),
        ((lambda x: (x**3, x), lambda dy, x: 3 * dy * x**2), 1e12 * X),
        ((lambda x: (np.tanh(x), x), of_tanh), 1e3 + X),
    ],
    ids=["relu", "threshold", "abs", "max", "flat", "small", "large", "saturated"],
)
def test_what_is_no_rounding_is_not_taken_for_it(pair, x):
    report = gradcheck(pair, x, raise_exception=False)
    assert not report.no_verdict
    assert not report.wrong


# One object twice


def test_our_own_layer_used_twice_is_named():
    shared = npattn.ReLU()

    class Mine:
        def __init__(self):
            self.relu, self.params, self.grads = shared, {}, {}

        def forward(self, x):
            return self.relu.forward(self.relu.forward(x) - 0.5)

        def backward(self, dy):
            return self.relu.backward(self.relu.backward(dy))

    report = gradcheck(Mine(), X, raise_exception=False)
    assert report.status == 1
    assert "one layer object is used twice in a forward (relu, a ReLU, 2 times)" in report.message()


# Where to look, and how long it took


def test_a_long_check_says_how_long_it_took():
    report = gradcheck(sigmoid, X)
    assert report.seconds > 0
    assert "checked at" not in str(replace(report, seconds=1.0))
    assert "\nchecked at 8 points in 12.3 s" in str(replace(report, seconds=12.34))
    assert "\nchecked at 1 point in 12.3 s" in str(replace(report, seconds=12.34, points=1))


def test_which_gradients_are_right_tells_where_to_look():
    def backward(dy, cache):
        dx, dw, du = recurrent_backward(dy, cache)
        return 2 * dx, dw, du

    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 5)), rng.standard_normal((5, 5))
    report = gradcheck((recurrent, backward), *inputs, raise_exception=False)
    assert (
        report.hint
        == "w and u are right, x is wrong: the fault lies on the way back to x, after it has left the way to w and u"
    )
    assert report.hint in report.message()


# Arguments


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        *(("rtol", value, ValueError) for value in (np.nan, np.inf, -np.inf, -1e-9, 0.9, 10**400)),
        *(("atol", value, ValueError) for value in (np.nan, np.inf, -1.0)),
        *((name, value, TypeError) for name in ("rtol", "atol") for value in (None, "1e-9", True, 1j)),
        *((name, value, ValueError) for name in ("directions", "points") for value in (0, -1, 2**63)),
        *(("entries", value, ValueError) for value in (0, -1)),
        *((name, value, TypeError) for name in ("entries", "directions", "points") for value in (1.5, "8", True, None)),
        ("seed", -1, ValueError),
        *(("seed", value, TypeError) for value in (1.5, "3", True, None)),
        *((name, value, TypeError) for name in ("raise_exception", "allow_sharing", "strict")
          for value in ("no", 0, None, 1.0)),
        *(("dtype", value, TypeError) for value in (None, "junk.float32", "float16", int, "float32 ", 7)),
    ],
)  # fmt: skip
def test_arguments_are_refused_by_name(argument, value, error):
    with pytest.raises(error, match=rf"^{argument}: expected "):
        gradcheck(sigmoid, X, **{argument: value})


def test_arguments_that_are_fine():
    assert gradcheck(sigmoid, X, rtol=0, atol=np.float32(0), seed=np.int64(3), strict=np.True_, dtype=np.float64)
    assert set(inspect.signature(gradcheck).parameters) >= {"points", "strict", "dtype"}


def test_many_directions_of_a_large_tensor_do_not_fill_the_memory():
    assert gradcheck(sigmoid, np.ones((50, 60)), directions=200, points=1).rows[0].checked == "200 directions"


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    ("strange", "what"),
    [
        (np.ma.masked_array([1.0, 2.0], [True, False]), "a masked one"),
        (np.array([1.0, 2.0], dtype=object), "objects"),
        (np.array([(1.0, 2)], dtype=[("a", "f8"), ("b", "i4")]), "dtype"),
        (np.array(["a", "b"]), "dtype"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype"),
    ],
    ids=["masked", "objects", "records", "texts", "dates"],
)
def test_strange_arrays_are_refused_by_name(strange, what):
    pair = (lambda x, w: (x * 1.0, None), lambda dy, cache: (dy * 1.0, None))
    with pytest.raises(TypeError, match=rf"^w: expected .*{what}"):
        gradcheck(pair, X, strange)
    with pytest.raises(TypeError, match=rf"^w\.inner: expected .*{what}"):
        gradcheck(pair, X, {"inner": strange})


def test_a_matrix_is_refused():
    with pytest.warns(PendingDeprecationWarning), pytest.raises(TypeError, match=r"^x: expected .* numpy.matrix"):
        gradcheck((lambda x: (2.0 * x, None), lambda dy, cache: 3.0 * dy), np.matrix([[1.0, 2.0]]))


def test_what_has_no_gradient_is_mentioned():
    def pick(x, labels, scale, mode, few):
        return scale * x[np.arange(4), labels], (x.shape, labels, scale)

    def backward(dy, cache):
        shape, labels, scale = cache
        dx = np.zeros(shape)
        dx[np.arange(4), labels] = scale * dy
        return dx, None, None, None, None

    report = gradcheck((pick, backward), X, np.array([0, 1, 4, 2]), 1.5, "plain", [1.0, 2.0], raise_exception=False)
    assert not report.wrong
    told = "passed on, and not checked: labels (int64 array), scale (float), mode (str), few.0 (float), few.1 (float)"
    assert told in report.notes
