"""The gradient checker's parts: targets, methods, kinks, directions, what it reports, and its command."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pytest

import npattn
from npattn import GradcheckError, cli, gradcheck
from npattn.attention import channel, se
from npattn.checker.numeric import complex_step, differences
from npattn.ops import channel_max, linear, relu, sigmoid


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


IMAGE = normal(2, 4, 3, 5)
SE = se.Params(normal(2, 4, seed=1), normal(4, 2, seed=2))


# What can be checked


def test_report_is_true_and_prints_a_table():
    report = gradcheck(se, IMAGE, SE)
    assert report
    assert report.passed
    lines = str(report).splitlines()
    assert lines[0] == "npattn.attention.se: passed"
    assert lines[1].split() == ["name", "shape", "method", "checked", "worst", "error", "verdict"]
    assert [line.split()[0] for line in lines[2:]] == ["x", "params.w1", "params.w2"]
    assert all(line.endswith("  ok") for line in lines[2:])
    assert all(row.method == "complex step" and row.error < 1e-13 for row in report.rows)
    assert report.message() == ""


def test_failure_raises_or_is_returned():
    wrong = (sigmoid.forward, lambda dy, cache: 2 * sigmoid.backward(dy, cache))
    with pytest.raises(GradcheckError, match="x: 120 of 120 entries are wrong") as caught:
        gradcheck(wrong, IMAGE)
    report = gradcheck(wrong, IMAGE, raise_exception=False)
    assert not report
    assert str(caught.value) == report.message()
    assert "constant factor of 2" in report.rows[0].cause
    (a, n, error) = (
        float(report.rows[0].wrong.split(word)[1].split(",")[0]) for word in ("analytic ", "numeric ", "error ")
    )
    assert a == pytest.approx(2 * n)
    assert error == pytest.approx(abs(n), rel=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_is_checked_in_float64_and_left_alone(dtype):
    layer = npattn.Sequential(
        npattn.Conv2d(4, 3, rng=0, dtype=dtype),
        npattn.BatchNorm2d(3, dtype=dtype),
        npattn.CBAM(3, 3, 3, rng=0, dtype=dtype),
    )
    before = layer.state_dict()
    dx = layer.backward(layer.forward(IMAGE.astype(dtype)))
    grads, state = dict(layer.grads), layer.state_dict()
    report = gradcheck(layer, IMAGE)
    assert [row.name for row in report.rows] == ["x", *layer.params]
    assert all(row.shape == layer.params[row.name].shape for row in report.rows[1:])
    assert all(np.array_equal(value, state[key]) and value.dtype == dtype for key, value in layer.state_dict().items())
    assert all(layer.grads[key] is value for key, value in grads.items())
    assert not np.array_equal(before["1.running_mean"], state["1.running_mean"])
    assert dx.dtype == dtype


def test_a_wrong_layer_is_found_through_its_parameter():
    class Wrong(npattn.Linear):
        def undo(self, dy, cache):
            dx, grads = super().undo(dy, cache)
            return dx, grads | {"weight": -grads["weight"]}

    with pytest.raises(
        GradcheckError, match=r"\nweight: 15 of 15 entries are wrong[^\n]*\n  likely cause: the wrong sign$"
    ):
        gradcheck(Wrong(5, 3, rng=0), normal(4, 5))


class Affine:
    """Somebody's own layer: y = x W + b, its arrays kept both as attributes and in params."""

    def __init__(self, dtype, forgetful=False):
        generator = np.random.default_rng(1)
        self.W, self.b = generator.standard_normal((5, 3)).astype(dtype), generator.standard_normal(3).astype(dtype)
        self.params, self.grads = {"W": self.W, "b": self.b}, {}
        self.forgetful = forgetful

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.grads = {"W": self.x.T @ dy} | ({} if self.forgetful else {"b": dy.sum(axis=0)})
        return dy @ self.W.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_object_with_params_and_grads(dtype):
    mine = Affine(dtype)
    report = gradcheck(mine, normal(4, 5))
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    assert mine.W.dtype == dtype
    assert not mine.grads
    assert {row.method for row in report.rows} == {"complex step"}


def test_an_object_without_one_of_its_gradients():
    with pytest.raises(GradcheckError, match=r"\nb: expected a gradient, got None$"):
        gradcheck(Affine(np.float64, forgetful=True), normal(4, 5))


def test_an_object_whose_params_are_not_what_it_uses():
    mine = Affine(np.float64)
    mine.params["b"] = mine.b.copy()
    with pytest.raises(
        GradcheckError, match=r"\nb: .*\n  likely cause: y does not depend on it here: .* not the array"
    ):
        gradcheck(mine, normal(4, 5))


class Pair(NamedTuple):
    left: np.ndarray
    right: np.ndarray | None


def nested_forward(tree, pair, few, scale):
    return tree["a"] * pair.left + few[0] * few[1] * scale, (tree, pair, few, scale)


def nested_backward(dy, cache):
    tree, pair, few, scale = cache
    return {"a": dy * pair.left}, Pair(dy * tree["a"], None), (dy * few[1] * scale, dy * few[0] * scale), None


def test_dicts_tuples_and_numbers_as_inputs():
    a, b, c, d = normal(4, 2, 3)
    report = gradcheck((nested_forward, nested_backward), {"a": a}, Pair(b, None), (c, d), 1.5)
    assert [row.name for row in report.rows] == ["tree.a", "pair.left", "few.0", "few.1"]
    with pytest.raises(
        GradcheckError, match=r"\nbackward: expected a gradient for each of the 2 inputs \(x, y\).* got 3"
    ):
        gradcheck((lambda x, y: (x * y, (x, y)), lambda dy, cache: (dy, dy, dy)), a, b)


def test_an_input_without_a_gradient_is_said_to_be_unchecked():
    report = gradcheck((lambda x, m: (x * m, m), lambda dy, m: (dy * m, None)), IMAGE, IMAGE)
    assert report
    assert (report.rows[1].verdict, report.rows[1].checked) == ("-", "no gradient given")
    with pytest.raises(GradcheckError, match="no gradient at all"):
        gradcheck((lambda x: (x * 2, None), lambda dy, cache: (None,)), IMAGE)


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        (3, (IMAGE,), r"target: expected a layer, .* got 3"),
        (se, (), "expected at least one float array"),
        ((abs, abs), (np.arange(3),), "expected at least one float array"),
        ((abs, abs), (IMAGE + 1j,), r"expected a real array, got dtype complex128"),
        ((lambda x: x, lambda dy, cache: dy), (IMAGE,), r"forward: expected it to return \(y, cache\), got ndarray"),
        (
            (lambda x: (x > 0, 0), lambda dy, cache: dy),
            (IMAGE,),
            "y: expected a float array, got ndarray of dtype bool",
        ),
        (npattn.ReLU(), (np.arange(3),), "x: expected a float array, got int64"),
    ],
)
def test_misuse_is_a_type_error(target, inputs, message):
    with pytest.raises(TypeError, match=message):
        gradcheck(target, *inputs)


def test_a_layer_takes_one_input():
    with pytest.raises(ValueError, match="inputs: expected the one input x of the layer, got 2"):
        gradcheck(npattn.ReLU(), IMAGE, IMAGE)


# The numeric side


def along(f, x):
    return lambda t: np.atleast_1d(f(x + t))


@pytest.mark.parametrize(
    ("f", "x", "slope"),
    [(np.sin, 1.0, np.cos(1.0)), (np.exp, -3.0, np.exp(-3.0)), (lambda t: t**5, 0.3, 5 * 0.3**4),
     (np.tanh, 9.0, 1 - np.tanh(9.0) ** 2)],
)  # fmt: skip
def test_differences_know_their_error(f, x, slope):
    dy = np.array([-1.5])
    found = differences(along(f, x), dy, np.atleast_1d(f(x)), h=1 / 32, goal=1e-12)
    assert not found.kink
    assert abs(found.middle - dy[0] * slope) <= 3 * found.error + 1e-16
    assert found.error < 1e-9 * max(1, abs(slope))
    assert complex_step(along(f, x), dy).middle == pytest.approx(dy[0] * slope, rel=1e-12)


def test_a_kink_is_found_at_any_step_and_beside_it_there_is_none():
    dy = np.array([2.0])
    for method in (complex_step, lambda f, dy: differences(f, dy, f(0.0), h=1 / 32, goal=1e-11)):
        at = method(along(lambda t: np.maximum(t, 0.25 * t), 0.0), dy)
        assert at.kink
        assert (at.low, at.high) == (pytest.approx(0.5), pytest.approx(2.0))
        for distance in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
            for side, slope in ((1, 2.0), (-1, 0.5)):
                beside = method(along(lambda t: np.maximum(t, 0.25 * t), side * distance), dy)
                assert not beside.kink, distance
                assert beside.middle == pytest.approx(slope, rel=1e-6), distance


def test_a_jump_of_the_second_derivative_is_no_kink_but_an_error():
    dy = np.array([1.0])
    found = differences(along(lambda t: t + 100 * np.maximum(t, 0) * t, 0.0), dy, np.zeros(1), h=1 / 32, goal=1e-12)
    assert abs(found.middle - 1) <= 3 * found.error


def calls(f, dy, y, goal, share=0.0):
    """How often the ladder asks the function."""
    count = [0]

    def counted(t):
        count[0] += 1
        return f(t)

    return differences(counted, dy, y, 1 / 32, goal, share), count[0]


def test_the_ladder_is_short_where_the_function_is_smooth():
    """Six calls: and where the backward gives 0, what the first steps show says how exact is exact enough."""
    x, dy = normal(40), normal(40, seed=1)
    f = along(np.sin, x)
    exact = float(np.sum(dy * np.cos(x)))
    for goal, share in ((1e-8, 0.0), (0.0, 1e-9)):
        found, count = calls(f, dy, f(0.0), goal, share)
        assert found.middle == pytest.approx(exact, rel=1e-9)
        assert count == 6
    endless, count = calls(f, dy, f(0.0), 0.0)  # no goal at all: it stops where rounding alone is the larger error
    assert endless.middle == pytest.approx(exact, rel=1e-9)
    assert 6 < count < 30
    still, count = calls(lambda t: np.ones(40), dy, np.ones(40), 0.0)
    assert (still.middle, count) == (0, 6)


def test_a_wrong_zero_is_found_as_fast_as_anything_else():
    """A backward that gives 0 leaves no size to be exact to."""
    seen = []

    def forward(x, w):
        seen.append(1)
        return np.tanh(x @ w).real, (x, w)  # real: no complex step

    def backward(dy, cache, forgotten):
        x, w = cache
        d = dy * (1 - np.tanh(x @ w) ** 2)
        return d @ w.T, (0 if forgotten else 1) * x.T @ d

    counts = []
    for forgotten in (False, True):
        seen.clear()
        pair = forward, functools.partial(backward, forgotten=forgotten)
        gradcheck(pair, normal(3, 4), normal(4, 5), points=1, raise_exception=False)
        counts.append(len(seen))
    assert counts[1] < 2.5 * counts[0]


def test_where_complex_numbers_mislead_differences_decide():
    """abs is no function of complex numbers that has a derivative: it must not be measured by the complex step."""

    def forward(x):
        return np.abs(x) * x, x

    report = gradcheck((forward, lambda dy, x: 2 * dy * np.abs(x)), IMAGE)
    assert report.rows[0].method == "differences"
    assert any("the complex step disagrees" in note or "other values" in note for note in report.notes)
    with pytest.raises(GradcheckError):
        gradcheck((forward, lambda dy, x: dy * np.abs(x)), IMAGE)


def real_only(forward):
    """The forward, refusing complex numbers."""

    def refusing(x, *params):
        if np.iscomplexobj(x):
            raise TypeError("real numbers only")
        return forward(x, *params)

    return refusing


def test_differences_are_as_sharp():
    """At 0.01-scale weights the path through SE's gate is a few millionths of dx."""
    small = se.Params(0.01 * SE.w1, 0.01 * SE.w2)
    pair = real_only(se.forward), se.backward
    report = gradcheck(pair, IMAGE, small)
    assert {row.method for row in report.rows} == {"differences"}
    direct = (pair[0], lambda dy, cache: (dy * cache.g[:, :, None, None], se.backward(dy, cache)[1]))
    with pytest.raises(GradcheckError, match="direct path"):
        gradcheck(direct, IMAGE, small)


@pytest.mark.parametrize("scale", [1e-2, 1e-4])
def test_sharp_at_small_weights(scale):
    small = se.Params(scale * SE.w1, scale * SE.w2)
    direct = (se.forward, lambda dy, cache: (dy * cache.g[:, :, None, None], se.backward(dy, cache)[1]))
    report = gradcheck(direct, IMAGE, small, raise_exception=False)
    assert [row.verdict for row in report.rows] == ["WRONG", "ok", "ok"]
    assert report.rows[0].error < 5e-5  # a check that allows 1e-4 would have passed it


def test_rtol_and_atol_allow_more():
    off = (sigmoid.forward, lambda dy, cache: sigmoid.backward(dy, cache) * (1 + 1e-6))
    assert not gradcheck(off, IMAGE, raise_exception=False)
    assert gradcheck(off, IMAGE, rtol=1e-5)
    assert gradcheck(off, IMAGE, atol=1e-5)


def test_the_same_seed_gives_the_same_report():
    assert str(gradcheck(se, IMAGE, SE, seed=3)) == str(gradcheck(se, IMAGE, SE, seed=3))


# Kinks


def max_forward(x):
    return x.max(axis=1, keepdims=True), x


def shared(dy, x):
    winners = x == x.max(axis=1, keepdims=True)
    return dy * winners / winners.sum(axis=1, keepdims=True)


def last(dy, x):
    return channel_max.backward(dy, channel_max.forward(x[:, ::-1])[1])[:, ::-1].copy()


def first(dy, x):
    return channel_max.backward(dy, channel_max.forward(x)[1])


TIED = np.random.default_rng(6).integers(0, 2, (2, 4, 3, 5)).astype(float)


@pytest.mark.parametrize("forward", [max_forward, real_only(max_forward)], ids=["complex step", "differences"])
@pytest.mark.parametrize("backward", [first, last, shared])
def test_any_subgradient_of_a_tie_is_accepted_and_reported(forward, backward):
    report = gradcheck((forward, backward), TIED)
    assert report.rows[0].kinks > 20
    assert any(f"{report.rows[0].kinks} entries at a kink, skipped" in note for note in report.notes)


@pytest.mark.parametrize("forward", [max_forward, real_only(max_forward)], ids=["complex step", "differences"])
@pytest.mark.parametrize(
    ("backward", "word"),
    [
        (lambda dy, x: dy * (x == x.max(axis=1, keepdims=True)), "a gradient on all ties"),
        (lambda dy, x: 1.5 * first(dy, x), "entries are wrong"),
        (lambda dy, x: -first(dy, x), "entries are wrong"),
        (lambda dy, x: dy * (x == 0) * 0.25, "entries are wrong"),
    ],
)
def test_no_mistake_hides_behind_a_tie(forward, backward, word):
    with pytest.raises(GradcheckError, match=word):
        gradcheck((forward, backward), TIED)


def test_all_ones_is_all_ties_and_still_checked():
    ones = np.ones((2, 4, 3, 5))
    assert gradcheck((max_forward, first), ones)
    with pytest.raises(GradcheckError, match="a gradient on all ties"):
        gradcheck((max_forward, lambda dy, x: np.broadcast_to(dy, x.shape).copy()), ones)


def test_where_several_kinks_meet():
    """All zeros: every pixel is a maximum, every hidden unit a ReLU at 0. What is right passes, and is said apart."""
    params = channel.Params(*SE)
    report = gradcheck(channel, np.zeros_like(IMAGE), params)
    assert report.rows[0].meeting + report.rows[0].kinks == IMAGE.size
    assert "several kinks meet" in str(report) or "at a kink" in str(report)

    def far_off(dy, cache):
        dx, grads = channel.backward(dy, cache)
        return dx + 10, grads

    with pytest.raises(GradcheckError, match="x: "):
        gradcheck((channel.forward, far_off), np.zeros_like(IMAGE), params)


@pytest.mark.parametrize("forward", [relu.forward, real_only(relu.forward)])
def test_relu_close_to_zero_is_neither_skipped_nor_an_alarm(forward):
    x = np.array([1e-3, -1e-3, 1e-5, -1e-5, 1e-6, -1e-6, 1.0, -1.0])
    report = gradcheck((forward, relu.backward), x)
    assert report.rows[0].kinks == 0
    with pytest.raises(GradcheckError, match="4 of 8 entries are wrong"):
        gradcheck((forward, lambda dy, cache: dy * 1.0), x)


# Large tensors


def test_large_tensors_are_checked_along_directions_and_it_says_how_sure():
    x = normal(2, 8, 40, 40)
    params = se.Params(normal(2, 8, seed=1), normal(8, 2, seed=2))
    report = gradcheck(se, x, params)
    assert [row.checked for row in report.rows] == ["8 directions", "all 16 entries", "all 16 entries"]
    (note,) = report.notes
    assert float(note.rpartition(" ")[2]) < 1e-20


@pytest.mark.parametrize("forward", [sigmoid.forward, real_only(sigmoid.forward)])
def test_one_wrong_entry_among_many_is_found(forward):
    x = normal(50, 60)

    def backward(dy, cache):
        dx = sigmoid.backward(dy, cache)
        dx[37, 21] *= 1.01
        return dx

    assert gradcheck((forward, sigmoid.backward), x)
    report = gradcheck((forward, backward), x, raise_exception=False)
    assert not report
    assert "the worst at [37, 21]" in report.rows[0].wrong
    assert report.rows[0].checked.startswith("8 directions, 4")


def test_the_cause_is_guessed_from_some_entries_too():
    x = normal(2, 8, 30, 30)
    params = se.Params(normal(2, 8, seed=1), normal(8, 2, seed=2))
    direct = (se.forward, lambda dy, cache: (dy * cache.g[:, :, None, None], se.backward(dy, cache)[1]))
    with pytest.raises(GradcheckError, match="direct path"):
        gradcheck(direct, x, params)


def test_large_tied_tensors_are_looked_at_by_entries():
    x = np.random.default_rng(7).integers(0, 2, (4, 4, 20, 20)).astype(float)
    report = gradcheck((max_forward, first), x)
    assert "entries" in report.rows[0].checked
    with pytest.raises(GradcheckError, match="a gradient on all ties"):
        gradcheck((max_forward, lambda dy, x: dy * (x == x.max(axis=1, keepdims=True))), x)


# What is not about numbers


def test_randomness_in_the_forward():
    noise = np.random.default_rng(8)
    with pytest.raises(GradcheckError, match="another y for the same input"):
        gradcheck((lambda x: (x + noise.standard_normal(x.shape), None), lambda dy, cache: dy.copy()), IMAGE)


def test_y_that_is_not_finite():
    with pytest.raises(GradcheckError, match="y: 2 of 4 numbers are NaN or infinite"):
        gradcheck((lambda x: (np.log(x), x), lambda dy, x: dy / x), np.array([1.0, -1.0, 2.0, -2.0]))


def test_a_backward_that_raises():
    def backward(dy, cache):
        raise IndexError("no such axis")

    with pytest.raises(GradcheckError, match="backward: raised IndexError: no such axis"):
        gradcheck((relu.forward, backward), IMAGE)


def test_a_forward_that_mutates_and_y_that_shares():
    def forward(x):
        x *= 1.0 + 1e-3
        return x[...], None

    with pytest.raises(GradcheckError, match=r"(?s)x: mutated by forward.*y: shares memory with x"):
        gradcheck((forward, lambda dy, cache: dy * (1 + 1e-3)), IMAGE, strict=True)
    reshape = (lambda x: (x.reshape(2, -1), x.shape), lambda dy, shape: dy.reshape(shape))
    with pytest.raises(GradcheckError, match="y: shares memory with x"):
        gradcheck(reshape, IMAGE, strict=True)
    assert gradcheck(reshape, IMAGE, strict=True, allow_sharing=True)


def test_gradients_that_share_with_each_other():
    def backward(dy, cache):
        dx = dy + 0.0
        return dx, dx

    with pytest.raises(GradcheckError, match="gradient of x: shares memory with the gradient of y"):
        gradcheck((lambda x, y: (x + y, None), backward), IMAGE, IMAGE, strict=True)


def test_buffers_that_are_used_again():
    out, back = np.empty_like(IMAGE), np.empty_like(IMAGE)

    def forward(x):
        return np.multiply(x, 3, out=out if x.dtype == out.dtype else None), None

    def backward(dy, cache):
        return np.multiply(dy, 3, out=back if dy.dtype == back.dtype else None)

    with pytest.raises(GradcheckError, match="y: overwritten by a later forward"):
        gradcheck((forward, lambda dy, cache: dy * 3), IMAGE, strict=True)
    with pytest.raises(GradcheckError, match="gradient of x: overwritten by a later backward"):
        gradcheck((lambda x: (x * 3, None), backward), IMAGE, strict=True)


def test_the_callers_arrays_are_not_written_to():
    x, w = IMAGE.copy(), linear.Params(normal(3, 5), normal(3))
    for array in (x, *w):
        array.setflags(write=False)
    assert gradcheck(linear, x, w)
    assert gradcheck(npattn.ReLU(), np.asfortranarray(x)[:, ::2])


# The command


def test_command_on_the_library(capsys):
    assert cli.main(["gradcheck"]) == 0
    printed = capsys.readouterr().out
    assert ", 0 wrong, " in printed
    for name in (
        "\nse\n",
        "\ncbam\n",
        "\ncbam, fused\n",
        "\ncbam, textbook\n",
        "conv2d",
        "cross-entropy",
        "\nBatchNorm2d, textbook\n",
    ):
        assert name in printed


def test_command_on_a_layer_of_ones_own(capsys):
    assert cli.main(["gradcheck", "tests.checker.targets:make_layer", "--shape", "2,8,5,5"]) == 0
    assert "fc1.weight  (2, 8, 1, 1)" in capsys.readouterr().out
    assert cli.main(["gradcheck", "tests.checker.targets:make_wrong", "--shape", "2,3", "--ties"]) == 1
    assert "likely cause: the wrong sign" in capsys.readouterr().out
    assert cli.main(["gradcheck", "npattn.ops.relu:ReLU", "--shape", "2,3"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tests.checker.targets:nothing", "--shape", "2,3"], "nothing"),
        (["no.such.module:f", "--shape", "2,3"], "No module named"),
        (["tests.checker.targets", "--shape", "2,3"], "expected package.module:name"),
        (["tests.checker.targets:make_layer"], "--shape"),
        (["tests.checker.targets:make_layer", "--shape", "2,x"], "2,x"),
        (["tests.checker.targets:make_layer", "--shape", "2,3,4,4"], "C=8"),
        (["--shape", "2,3"], "--shape is for a target of your own"),
    ],
)
def test_command_says_what_it_cannot_do(arguments, message, capsys):
    assert cli.main(["gradcheck", *arguments]) == 2
    assert message in capsys.readouterr().err
