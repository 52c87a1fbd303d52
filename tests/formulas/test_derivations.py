"""The formulas of docs/ops/, written out index by index once more, against what the ops compute.

The loops are the sums of the pages, letter by letter. Those of the blocks are in their proofs, tests/blocks/.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from npattn.ops import (
    batch_norm,
    channel_max,
    channel_mean,
    conv2d,
    dot_product_attention,
    general_conv,
    global_avg_pool,
    global_max_pool,
    group_norm,
    layer_norm,
    linear,
    loss,
    lp_pool,
    lse_pool,
    softmax,
)
from npattn.ops.sigmoid import forward as sigmoid_forward
from tests.support.by_index import at, filled, normal, normal_back, same


@pytest.fixture
def sympy():
    return pytest.importorskip("sympy", reason="sympy is not installed")


def test_slope_of_the_sigmoid(sympy):
    a = sympy.symbols("a", real=True)
    g = 1 / (1 + sympy.exp(-a))
    assert sympy.simplify(sympy.diff(g, a) - g * (1 - g)) == 0
    e = sympy.exp(-sympy.Abs(a))
    for x in (-3.5, 0.0, 2.25):  # SIG.2 in its two forms
        form = e / (1 + e) if x < 0 else 1 / (1 + e)
        assert abs(float(form.subs(a, x)) - sigmoid_forward(np.array([x]))[0][0]) < 1e-15


def test_batch_norm_by_sympy(sympy):
    """The three ways through batch normalisation, added, are the derivative: exactly, for three numbers."""
    n = 3
    x, d = sympy.symbols(f"x:{n}", real=True), sympy.symbols(f"d:{n}", real=True)
    eps = sympy.Rational(1, 7)
    mean = sum(x) / n
    rho = 1 / sympy.sqrt(sum((v - mean) ** 2 for v in x) / n + eps)
    x_hat = [(v - mean) * rho for v in x]
    at = dict(zip((*x, *d), map(sympy.Rational, ("3/2", "-1/3", "2", "1", "-5/4", "1/2")), strict=True))
    along = sum(dk * xk for dk, xk in zip(d, x_hat, strict=True)) / n
    level = sum(d) / n
    for j in range(n):
        wanted = sum(d[k] * sympy.diff(x_hat[k], x[j]) for k in range(n))
        page = rho * (d[j] - x_hat[j] * along - level)
        assert sympy.simplify((wanted - page).subs(at)) == 0
    # "that way will turn out to be closed": ρ does not move with μ
    mu = sympy.symbols("mu", real=True)
    rho_of_mu = 1 / sympy.sqrt(sum((v - mu) ** 2 for v in x) / n + eps)
    assert sympy.simplify(sympy.diff(rho_of_mu, mu).subs(mu, mean)) == 0


def test_batch_norm_is_a_projection():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 2, 2, 3))
    _, cache = batch_norm.train_forward(x, batch_norm.Params(np.ones(2), np.zeros(2)), eps=1e-14)
    dx, _ = batch_norm.train_backward(rng.standard_normal(x.shape), cache)
    assert np.max(np.abs(dx.sum(axis=(0, 2, 3)))) < 1e-12
    assert np.max(np.abs((dx * cache.x_hat).sum(axis=(0, 2, 3)))) < 1e-10


def test_layer_norm_index_by_index():
    """And its rows are those of a batch norm with rows for channels, where nothing is learnt."""
    rng = np.random.default_rng(11)
    x, dy, gamma, beta = (rng.standard_normal(shape) for shape in ((2, 3, 4), (2, 3, 4), (4,), (4,)))
    rows, K, eps = 6, 4, 0.25
    flat, dflat = x.reshape(rows, K), dy.reshape(rows, K)
    y, cache = layer_norm.forward(x, layer_norm.Params(gamma, beta), eps)
    dx, grads = layer_norm.backward(dy, cache)
    x_hat, rho = normal(flat, eps)
    same(y.reshape(rows, K), filled((rows, K), lambda n, k: gamma[k] * x_hat[n, k] + beta[k]), "LN.4")
    dx_hat = filled((rows, K), lambda n, k: dflat[n, k] * gamma[k])
    same(dx.reshape(rows, K), normal_back(dx_hat, x_hat, rho), "LN.1")
    same(grads.gamma, filled((K,), lambda k: sum(dflat[n, k] * x_hat[n, k] for n in range(rows))), "LN.4, gamma")
    same(grads.beta, filled((K,), lambda k: sum(dflat[n, k] for n in range(rows))), "LN.4, beta")

    y, cache = layer_norm.forward(x, eps=eps)
    ones = batch_norm.Params(np.ones(rows), np.zeros(rows))
    turned, cache_of_batch = batch_norm.train_forward(flat[None, :, :, None], ones, eps)
    same(y.reshape(rows, K), turned[0, :, :, 0], "as a batch norm")
    dx, grads = layer_norm.backward(dy, cache)
    same(dx.reshape(rows, K), batch_norm.train_backward(dflat[None, :, :, None], cache_of_batch)[0][0, :, :, 0], "dx")
    assert grads is None


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_index_by_index(groups: int):
    """And with as many groups as channels it is a batch norm of each image alone."""
    rng = np.random.default_rng(13)
    N, C, H, W = shape = (2, 4, 2, 3)
    x, dy, gamma, beta = (rng.standard_normal(each) for each in (shape, shape, (C,), (C,)))
    params, eps, D = group_norm.Params(gamma, beta), 0.25, C // groups
    y, cache = group_norm.forward(x, params, groups, eps)
    dx, grads = group_norm.backward(dy, cache)
    dx_hat = filled(shape, lambda n, c, h, v: gamma[c] * dy[n, c, h, v])
    for n, g in product(range(N), range(groups)):
        of_group = slice(g * D, (g + 1) * D)
        x_hat, rho = normal(x[n, of_group].reshape(1, -1), eps)
        dx_of_group = normal_back(dx_hat[n, of_group].reshape(1, -1), x_hat, rho)
        same(cache.x_hat[n, of_group], x_hat.reshape(D, H, W), "GN.1")
        same(dx[n, of_group], dx_of_group.reshape(D, H, W), "←GN.1")
    x_hat, places = cache.x_hat, list(product(range(N), range(H), range(W)))
    same(y, filled(shape, lambda n, c, h, v: gamma[c] * x_hat[n, c, h, v] + beta[c]), "GN.2")
    same(grads.gamma, filled((C,), lambda c: sum(dy[n, c, h, v] * x_hat[n, c, h, v] for n, h, v in places)), "gamma")
    same(grads.beta, filled((C,), lambda c: sum(dy[n, c, h, v] for n, h, v in places)), "beta")
    if groups == C:
        for n in range(N):
            alone, of_one = batch_norm.train_forward(x[n : n + 1], batch_norm.Params(gamma, beta), eps)
            same(y[n], alone[0], "as a batch norm")
            same(dx[n], batch_norm.train_backward(dy[n : n + 1], of_one)[0][0], "as a batch norm's dx")


def test_cross_entropy_by_sympy(sympy):
    z = sympy.symbols("z:3", real=True)
    p = [sympy.exp(v) / sum(map(sympy.exp, z)) for v in z]
    for k in range(3):
        slope = sympy.diff(-sympy.log(p[1]), z[k])
        assert sympy.simplify(slope - (p[k] - (1 if k == 1 else 0))) == 0
    values = np.array([[0.3, -1.0, 2.0]])
    _, cache = loss.forward(values, np.array([1]))
    exact = [float(v.subs(dict(zip(z, values[0], strict=True)))) for v in p]
    same(loss.backward(np.array(1.0), cache)[0], np.array(exact) - [0, 1, 0], "(p − onehot) / N")


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_softmax_index_by_index(axis: int):
    rng = np.random.default_rng(12)
    x, dy = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 4))
    y, cache = softmax.forward(x, axis)
    dx = softmax.backward(dy, cache)
    rows, drows = (np.moveaxis(a, axis, -1).reshape(-1, x.shape[axis]) for a in (x, dy))
    K = rows.shape[1]
    shares = filled(rows.shape, lambda n, k: math.exp(rows[n, k]) / sum(math.exp(rows[n, j]) for j in range(K)))
    same(np.moveaxis(y, axis, -1).reshape(-1, K), shares, "SOFT.2")
    jacobian = filled((len(rows), K, K), lambda n, j, k: shares[n, j] * ((j == k) - shares[n, k]))
    wanted = filled(rows.shape, lambda n, k: sum(jacobian[n, j, k] * drows[n, j] for j in range(K)))
    same(np.moveaxis(dx, axis, -1).reshape(-1, K), wanted, "SOFT.1")
    same(np.sum(y, axis=axis), np.ones(np.sum(y, axis=axis).shape), "shares")
    assert np.abs(np.sum(dx, axis=axis)).max() < 1e-15
    same(softmax.forward(x + 800, axis)[0], y, "shifted, and beyond what an exponential can hold")


def test_softmax_of_two_is_the_sigmoid_of_their_difference():
    x = np.random.default_rng(13).standard_normal((5, 2))
    same(softmax.forward(x)[0][:, 0], sigmoid_forward(x[:, 0] - x[:, 1])[0], "K = 2")
    with pytest.raises(ValueError, match="axis: expected a whole number of at most 1, got 2"):
        softmax.forward(x, 2)
    with pytest.raises(ValueError, match="x: expected at least one number along axis 1"):
        softmax.forward(x[:, :0], 1)
    with pytest.raises(ValueError, match=r"x: expected shape \(..., K\), got \(\)"):
        softmax.forward(np.array(1.0))


@pytest.mark.parametrize("scale", [None, 1.0, -0.5])
def test_dot_product_attention_index_by_index(scale: float | None):
    rng = np.random.default_rng(14)
    N, P, K, R, M = 2, 3, 5, 4, 2
    q, k, v, dy = (rng.standard_normal((N, *shape)) for shape in ((P, R), (K, R), (K, M), (P, M)))
    y, cache = dot_product_attention.forward(q, k, v, scale)
    dq, dk, dv = dot_product_attention.backward(dy, cache)
    by = 0.5 if scale is None else scale  # 1/√4
    s = filled((N, P, K), lambda n, i, j: by * sum(q[n, i, r] * k[n, j, r] for r in range(R)))
    a = filled((N, P, K), lambda n, i, j: math.exp(s[n, i, j]) / sum(math.exp(s[n, i, m]) for m in range(K)))
    same(cache.shares.y, a, "ATT.2")
    same(y, filled((N, P, M), lambda n, i, m: sum(a[n, i, j] * v[n, j, m] for j in range(K))), "ATT.3")
    same(dv, filled((N, K, M), lambda n, j, m: sum(a[n, i, j] * dy[n, i, m] for i in range(P))), "ATT.3")
    # the softmax's mean of the cotangent is dy · y: a score wants the value's distance from the answer, along dy
    ds = filled((N, P, K), lambda n, i, j: a[n, i, j] * sum(dy[n, i, m] * (v[n, j, m] - y[n, i, m]) for m in range(M)))
    same(dq, filled((N, P, R), lambda n, i, r: by * sum(ds[n, i, j] * k[n, j, r] for j in range(K))), "ATT.1")
    same(dk, filled((N, K, R), lambda n, j, r: by * sum(ds[n, i, j] * q[n, i, r] for i in range(P))), "ATT.1")


def test_dot_product_attention_says_what_does_not_fit():
    q, k, v = np.zeros((2, 3, 4)), np.zeros((2, 5, 4)), np.zeros((2, 5, 6))
    with pytest.raises(ValueError, match=r"k: expected shape \(N=2, K, R=4\), got \(2, 5, 3\)"):
        dot_product_attention.forward(q, k[:, :, :3], v)
    with pytest.raises(ValueError, match=r"v: expected shape \(N=2, K=5, M\), got \(2, 4, 6\)"):
        dot_product_attention.forward(q, k, v[:, :4])
    with pytest.raises(ValueError, match=r"k: expected at least one key, got shape \(2, 0, 4\)"):
        dot_product_attention.forward(q, k[:, :0], v[:, :0])
    with pytest.raises(ValueError, match=r"q: expected a last axis of at least 1 for the scale 1/√R, got shape"):
        dot_product_attention.forward(q[:, :, :0], k[:, :, :0], v)
    with pytest.raises(ValueError, match="scale: expected a finite number"):
        dot_product_attention.forward(q, k, v, math.inf)


def test_fc_index_by_index():
    rng = np.random.default_rng(8)
    x, w, b, dy = (rng.standard_normal(shape) for shape in ((4, 3), (2, 3), (2,), (4, 2)))
    y, cache = linear.forward(x, linear.Params(w, b))
    same(y, filled((4, 2), lambda p, m: sum(x[p, k] * w[m, k] for k in range(3)) + b[m]), "FC.1, FC.2")
    dx, grads = linear.backward(dy, cache)
    same(dx, filled((4, 3), lambda p, k: sum(dy[p, m] * w[m, k] for m in range(2))), "FC.1, x")
    same(grads.w, filled((2, 3), lambda m, k: sum(dy[p, m] * x[p, k] for p in range(4))), "FC.1, w")
    same(grads.b, filled((2,), lambda m: sum(dy[p, m] for p in range(4))), "FC.2")


def test_convolution_in_one_line_scattered_and_flipped():
    rng = np.random.default_rng(9)
    N, C, M, H, W, k = 2, 2, 3, 3, 4, 3
    q = k // 2
    x, w, b = rng.standard_normal((N, C, H, W)), rng.standard_normal((M, C, k, k)), rng.standard_normal(M)
    padded = np.pad(x, ((0, 0), (0, 0), (q, q), (q, q)))
    y, cache = conv2d.forward(x, conv2d.Params(w, b))
    same(
        y,
        filled((N, M, H, W), lambda n, m, h, v: b[m] + np.sum(w[m] * padded[n, :, h : h + k, v : v + k])),
        "the whole in one line",
    )
    dy = rng.standard_normal(y.shape)
    dx, grads = conv2d.backward(dy, cache)

    dpadded = np.zeros_like(padded)
    for n, m, h, v, c, i, j in product(*map(range, (N, M, H, W, C, k, k))):
        dpadded[n, c, h + i, v + j] += w[m, c, i, j] * dy[n, m, h, v]
    same(dx, dpadded[:, :, q : q + H, q : q + W], "scatter, then crop")
    same(
        dx,
        filled(
            (N, C, H, W),
            lambda n, c, h, v: sum(
                w[m, c, k - 1 - i, k - 1 - j] * at(dy[n, m], h + i - q, v + j - q)
                for m, i, j in product(range(M), range(k), range(k))
            ),
        ),
        "the flip",
    )
    same(
        grads.w,
        filled((M, C, k, k), lambda m, c, i, j: np.sum(dy[:, m] * padded[:, c, i : i + H, j : j + W])),
        "the kernel's gradient",
    )


@pytest.mark.parametrize(
    ("C", "M", "G", "kernel", "s", "q", "d", "size"),
    [
        (4, 6, 2, (3, 2), (2, 1), (1, 0), (1, 3), (6, 7)),  # a row that no output reads
        (3, 3, 3, (1, 5), (1, 1), (0, 2), (1, 1), (2, 3)),  # depthwise along the columns
        (2, 1, 1, (2, 2), (3, 3), (2, 2), (4, 4), (1, 1)),  # one pixel
    ],
)
def test_general_convolution_in_one_line_and_scattered(C, M, G, kernel, s, q, d, size):
    rng = np.random.default_rng(29)
    N, D, E, (k_h, k_v), (H, W) = 2, C // G, M // G, kernel, size
    x, w, b = rng.standard_normal((N, C, H, W)), rng.standard_normal((M, D, *kernel)), rng.standard_normal(M)
    y, cache = general_conv.forward(x, general_conv.Params(w, b), s, q, d, G)
    H_out, W_out = (
        sum(o * s[a] + d[a] * (kernel[a] - 1) < size[a] + 2 * q[a] for o in range(99)) for a in (0, 1)
    )  # those that end within the padded image

    def read(n, m, h, v, c, i, j):
        """The number of x that an output reads there."""
        return (n, m // E * D + c, s[0] * h + d[0] * i - q[0], s[1] * v + d[1] * j - q[1])

    def number(n, c, row, column):
        return at(x[n, c], row, column)

    places = list(product(range(D), range(k_h), range(k_v)))
    same(
        y,
        filled(
            (N, M, H_out, W_out),
            lambda n, m, h, v: b[m] + sum(w[m, c, i, j] * number(*read(n, m, h, v, c, i, j)) for c, i, j in places),
        ),
        "the whole in one line",
    )
    dy = rng.standard_normal(y.shape)
    dx, grads = general_conv.backward(dy, cache)
    scattered, dw = np.zeros_like(x), np.zeros_like(w)
    for (n, m, h, v), (c, i, j) in product(np.ndindex(y.shape), places):
        *image, row, column = read(n, m, h, v, c, i, j)
        if 0 <= row < H and 0 <= column < W:
            scattered[(*image, row, column)] += w[m, c, i, j] * dy[n, m, h, v]
            dw[m, c, i, j] += x[(*image, row, column)] * dy[n, m, h, v]
    same(dx, scattered, "GCONV.2, GCONV.1")
    same(grads.w, dw, "GCONV.3")
    same(grads.b, dy.sum(axis=(0, 2, 3)), "GCONV.4")


def test_sums_of_pooled_gradients():
    """docs/ops/pooling.md, exercise 1: for a mean and for a maximum all of dx adds up to dy."""
    rng = np.random.default_rng(10)
    x = rng.integers(0, 2, (2, 3, 4, 4)).astype(float)  # many ties
    for forward, backward, axes in (
        (global_avg_pool.forward, global_avg_pool.backward, (2, 3)),
        (global_max_pool.forward, global_max_pool.backward, (2, 3)),
        (channel_mean.forward, channel_mean.backward, (1,)),
        (channel_max.forward, channel_max.backward, (1,)),
    ):
        y, cache = forward(x)
        dy = rng.standard_normal(y.shape)
        same(backward(dy, cache).sum(axis=axes).ravel(), dy.ravel(), forward.__name__)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_value_used_n_times(sympy, n: int):
    """L = v·v·…·v: n factors, each with the gradient v^(n−1), and their sum is the derivative."""
    v = sympy.symbols("v")
    factors = sympy.symbols(f"f:{n}")
    each = [sympy.diff(sympy.prod(factors), f).subs(dict.fromkeys(factors, v)) for f in factors]
    assert sympy.simplify(sum(each) - sympy.diff(v**n, v)) == 0


def test_lp_and_lse():
    rng = np.random.default_rng(6)
    N, C, H, W = 2, 3, 2, 4
    P = H * W
    x = rng.standard_normal((N, C, H, W))
    xp = x.reshape(N, C, P)
    length = filled((N, C), lambda n, c: math.sqrt(sum(xp[n, c, p] ** 2 for p in range(P))))
    total = filled((N, C), lambda n, c: sum(math.exp(xp[n, c, p]) for p in range(P)))
    for name, pair, pooled, share in (
        ("lp", lp_pool, length, lambda n, c, p: xp[n, c, p] / length[n, c]),
        ("lse", lse_pool, np.log(total), lambda n, c, p: math.exp(xp[n, c, p]) / total[n, c]),
    ):
        y, cache = pair.forward(x)
        same(y, pooled, name)
        dy = rng.standard_normal((N, C))
        dx = filled((N, C, P), lambda n, c, p: dy[n, c] * share(n, c, p))  # noqa: B023
        same(pair.backward(dy, cache).reshape(N, C, P), dx, name)
