"""Every backward against derivatives taken without calculus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npattn.ops import channel_max, conv2d, global_max_pool, linear, max_pool_2x2, relu, sigmoid
from tests.support.cases import BLOCKS, CASES, Case
from tests.support.numerical import central_difference, complex_step, distance
from tests.support.trees import cast, leaves, mapped

sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


def checked(case: Case, inputs: tuple, rng: np.random.Generator, numeric=complex_step, within: float = 1e-9) -> None:
    """Compare all gradients of the case at the inputs, for a random signed cotangent."""
    y, cache = case.forward(*inputs)
    dy = np.asarray(rng.standard_normal(y.shape))
    wanted = numeric(case.forward, inputs, dy)
    found = dict(leaves(case.gradients(dy, cache)))
    scale = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
    for name, gradient in found.items():
        assert gradient.shape == wanted[name].shape, name
        error = float(np.linalg.norm(gradient - wanted[name]))
        allowed = within * max(float(np.linalg.norm(wanted[name])), 1e-3 * scale) + 1e-15
        assert error <= allowed, f"{name}: off by {error}"
    assert found, "nothing was checked"


@pytest.mark.parametrize("case", CASES, ids=repr)  # and the variants in all their forms: test_variants.py
@given(size=sizes, ratio=st.integers(1, 6), k=st.sampled_from([1, 3, 5, 7]), seed=st.integers(0, 2**32 - 1))
@example(size=(1, 1, 1, 1), ratio=1, k=7, seed=0)
@example(size=(2, 4, 1, 5), ratio=2, k=3, seed=1)
@example(size=(3, 6, 5, 2), ratio=6, k=5, seed=2)
def test_backward_is_the_derivative(case: Case, size, ratio, k, seed):
    rng = np.random.default_rng(seed)
    size = (*size[:2], *(max(length, case.smallest) for length in size[2:]))
    checked(case, case.draw(rng, size, ratio, k), rng)


@pytest.mark.parametrize("case", BLOCKS, ids=repr)
def test_finite_differences_agree(case: Case):
    rng = np.random.default_rng(14)
    checked(case, case.draw(rng, (2, 4, 3, 4), 2, 3), rng, numeric=central_difference, within=1e-7)


NO_VARIANTS = [case for case in CASES if not (case in BLOCKS and case.module.__name__.startswith("npattn.variants."))]


@pytest.mark.parametrize("case", NO_VARIANTS, ids=repr)  # the variants in all their forms: test_variants.py
@given(size=sizes, ratio=st.integers(1, 6), k=st.sampled_from([1, 3, 7]), seed=st.integers(0, 2**32 - 1))
def test_float32_follows_float64(case: Case, size, ratio, k, seed):
    rng = np.random.default_rng(seed)
    size = (*size[:2], *(max(length, case.smallest) for length in size[2:]))
    small = cast(case.draw(rng, size, ratio, k), np.float32)
    large = cast(small, np.float64)
    y, cache = case.forward(*small)
    y64, cache64 = case.forward(*large)
    dy = np.asarray(rng.standard_normal(y.shape), np.float32)
    found, wanted = case.gradients(dy, cache), case.gradients(dy.astype(np.float64), cache64)
    assert y.dtype == np.float32
    assert distance(y, y64) < 1e-4
    scale = max(float(np.linalg.norm(gradient)) for _, gradient in leaves(wanted))
    rounded = 1e-6 * float(np.linalg.norm(dy))  # 1 − g of a gate near 1 is off by eps, whatever is left of it
    for (name, gradient), (_, exact) in zip(leaves(found), leaves(wanted), strict=True):
        assert gradient.dtype == np.float32, name
        apart, size = np.linalg.norm(gradient - exact), max(float(np.linalg.norm(exact)), 1e-2 * scale)
        assert apart <= 2e-3 * size + rounded, name


def with_weights(change, inputs: tuple) -> tuple:
    """The inputs with other parameters; x and running statistics stay."""
    x, *rest = inputs
    return (x, *(mapped(change, params) for params in rest[:1]), *rest[1:])


@pytest.mark.parametrize("case", BLOCKS, ids=repr)
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_gates(case: Case, sign: int):
    """Weights of hundreds push the gates to 0 and 1: gradients are tiny there, and still right, and nothing warns."""
    rng = np.random.default_rng(4)  # where 1 − g is not all rounding, which weights of hundreds would enlarge
    inputs = with_weights(lambda w: sign * 300 * np.abs(w), case.draw(rng, (2, 4, 3, 5), 2, 3))
    assert np.all(np.isfinite(case.forward(*inputs)[0]))
    checked(case, inputs, rng)


@pytest.mark.parametrize("case", BLOCKS, ids=repr)
def test_small_weights(case: Case):
    """At 0.01-scale weights the path through the gate is a millionth of dx. It has to be there all the same."""
    rng = np.random.default_rng(4)
    inputs = with_weights(lambda w: 0.01 * w, case.draw(rng, (2, 4, 3, 5), 2, 3))
    checked(case, inputs, rng, within=1e-11)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_all_zero_input(case: Case):
    """Zeros are all ties and all kinks: what comes out is finite, and zero cotangents give zero gradients."""
    rng = np.random.default_rng(5)
    x, *rest = case.draw(rng, (2, 4, 4, 3), 2, 3)
    y, cache = case.forward(np.zeros_like(x), *rest)
    dy = np.asarray(rng.standard_normal(y.shape))
    for name, gradient in leaves(case.gradients(dy, cache)):
        assert np.all(np.isfinite(gradient)), name
    for name, gradient in leaves(case.gradients(np.zeros_like(dy), cache)):
        assert np.all(gradient == 0), name


def views(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers, laid out in other ways."""
    if x.ndim == 0:
        return dict.fromkeys(("every second", "reversed", "Fortran order", "read-only"), x)
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    return {
        "every second": wide[tuple(slice(None, None, 2) for _ in x.shape)],
        "reversed": np.flip(np.flip(x).copy()),
        "Fortran order": np.asfortranarray(x),
        "read-only": frozen,
    }


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_memory_layout_does_not_matter(case: Case):
    rng = np.random.default_rng(6)
    inputs = case.draw(rng, (2, 4, 3, 5), 2, 3)
    y, cache = case.forward(*inputs)
    dy = np.asarray(rng.standard_normal(y.shape))
    wanted = case.gradients(dy, cache)
    for layout in views(inputs[0]):
        moved = mapped(lambda a: views(a)[layout], inputs)  # noqa: B023
        y_moved, cache = case.forward(*moved)
        np.testing.assert_allclose(y_moved, y, rtol=1e-13, atol=1e-13, err_msg=layout)
        found = case.gradients(views(dy)[layout], cache)
        for (name, gradient), (_, other) in zip(leaves(found), leaves(wanted), strict=True):
            np.testing.assert_allclose(gradient, other, rtol=1e-12, atol=1e-12, err_msg=f"{layout}: {name}")


def test_one_by_one_convolution_is_a_linear_layer():
    """A 1×1 kernel maps every pixel's channels as FC does: the same numbers, forward and backward."""
    rng = np.random.default_rng(7)
    x, w, b = rng.standard_normal((2, 5, 3, 4)), rng.standard_normal((6, 5)), rng.standard_normal(6)
    y, conv_cache = conv2d.forward(x, conv2d.Params(w[:, :, None, None], b))
    y_fc, fc_cache = linear.forward(np.moveaxis(x, 1, -1), linear.Params(w, b))
    np.testing.assert_allclose(y, np.moveaxis(y_fc, -1, 1), rtol=1e-13)

    dy = rng.standard_normal(y.shape)
    dx, (dw, db) = conv2d.backward(dy, conv_cache)
    dx_fc, (dw_fc, db_fc) = linear.backward(np.moveaxis(dy, 1, -1), fc_cache)
    np.testing.assert_allclose(dx, np.moveaxis(dx_fc, -1, 1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dw[:, :, 0, 0], dw_fc, rtol=1e-12)
    np.testing.assert_allclose(db, db_fc, rtol=1e-12)


@pytest.mark.parametrize(("H", "W", "k"), [(6, 5, 3), (4, 7, 7), (1, 1, 5)])
def test_convolution_by_scipy(H: int, W: int, k: int):
    """Cross-correlation, no flip, zeros around: SciPy's, map by map. dx is the convolution, flipped."""
    from scipy.signal import convolve2d, correlate2d

    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 3, H, W)), rng.standard_normal((4, 3, k, k))
    y, cache = conv2d.forward(x, conv2d.Params(w))

    def whole(one, kernel, map2d):  # SciPy's "same" follows the larger of the two; ours always follows the image
        if map2d is convolve2d:
            return whole(one, kernel[::-1, ::-1], correlate2d)
        return correlate2d(np.pad(one, k // 2), kernel, mode="valid")

    wanted = [[sum(whole(x[n, c], w[m, c], correlate2d) for c in range(3)) for m in range(4)] for n in range(2)]
    np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-11)
    dy = rng.standard_normal(y.shape)
    dx, _ = conv2d.backward(dy, cache)
    wanted = [[sum(whole(dy[n, m], w[m, c], convolve2d) for m in range(4)) for c in range(3)] for n in range(2)]
    np.testing.assert_allclose(dx, wanted, rtol=1e-11, atol=1e-11)


def test_sigmoid_far_out():
    """Exact to the last digits on both sides, where 1 + tanh would have rounded to 0."""
    from scipy.special import expit

    x = np.array([-708.0, -700.0, -100.0, -40.0, -1.0, 0.0, 1.0, 40.0, 100.0, 708.0])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = sigmoid.forward(x)
    np.testing.assert_allclose(y, expit(x), rtol=4e-16)
    assert sigmoid.backward(np.ones_like(x), cache)[3] > 0


def test_relu_at_zero():
    y, cache = relu.forward(np.array([-1.0, -0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(y, [0, 0, 0, 1])
    np.testing.assert_array_equal(relu.backward(np.full(4, 5.0), cache), [0, 0, 0, 5])


def first_by_loop(x: np.ndarray, groups) -> tuple[list[float], list[tuple[int, ...]]]:
    """Maximum and place of the first maximum of each group of indices, found by looking at one after the other."""
    values, places = [], []
    for group in groups:
        best = group[0]
        for index in group[1:]:
            if x[index] > x[best]:
                best = index
        values.append(x[best])
        places.append(best)
    return values, places


@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 3))
@example(seed=0, levels=1)
def test_first_maximum_gets_the_gradient(seed: int, levels: int):
    """Few different values make many ties; the winner is the first in reading order, found by a plain loop."""
    rng = np.random.default_rng(seed)
    N, C, H, W = rng.integers(2, 5, 4)
    x = rng.integers(0, levels, (N, C, H, W)).astype(float)
    spatial = [[(n, c, h, w) for h in range(H) for w in range(W)] for n in range(N) for c in range(C)]
    channels = [[(n, c, h, w) for c in range(C)] for n in range(N) for h in range(H) for w in range(W)]
    windows = [
        [(n, c, 2 * h + i, 2 * w + j) for i in (0, 1) for j in (0, 1)]
        for n in range(N) for c in range(C) for h in range(H // 2) for w in range(W // 2)
    ]  # fmt: skip
    for forward, backward, groups in (
        (global_max_pool.forward, global_max_pool.backward, spatial),
        (channel_max.forward, channel_max.backward, channels),
        (max_pool_2x2.forward, max_pool_2x2.backward, windows),
    ):
        y, cache = forward(x)
        values, places = first_by_loop(x, groups)
        np.testing.assert_array_equal(y.ravel(), values)
        dy = rng.standard_normal(y.shape)
        wanted = np.zeros_like(x)
        for place, gradient in zip(places, dy.ravel(), strict=True):
            wanted[place] += gradient
        np.testing.assert_array_equal(backward(dy, cache), wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_the_output(value: float):
    x = np.zeros((1, 3, 4, 4))
    x[0, 1, 2, 2] = value
    for forward in (global_max_pool.forward, channel_max.forward, max_pool_2x2.forward):
        y = forward(x)[0]
        assert np.isnan(y).any() if np.isnan(value) else y.max() == max(value, 0)
    y = relu.forward(x)[0]
    assert np.isnan(y).any() if np.isnan(value) else y.max() == max(value, 0)
