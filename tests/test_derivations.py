"""The formulas of docs/, written out index by index once more, against what the code computes line by line.

The loops are the sums of the pages, letter by letter. The values beside them are those that the running block assigned
(`npattn.explain.trace` reads them), so a page that says something else than the code is found at its equation.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn.attention import cbam, channel, gate, residual, se, spatial
from npattn.explain import trace as tracing
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling


@pytest.fixture
def sympy():
    return pytest.importorskip("sympy", reason="sympy is not installed")


def same(found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13, err_msg=what)


def filled(shape: tuple[int, ...], entry) -> np.ndarray:
    """The array whose entry at an index is what the formula says there."""
    out = np.zeros(shape)
    for index in np.ndindex(shape):
        out[index] = entry(*index)
    return out


def sigmoid(a: float) -> float:
    return 1 / (1 + np.exp(-a))


def inputs(block: str, shape=(2, 3, 2, 4)):
    """A random example that is no trace's default: several images, H ≠ W, R ≠ C, O(1) weights."""
    rng = np.random.default_rng(5)
    C, R, k = shape[1], 2, 3
    x = rng.standard_normal(shape)
    w1, w2, w = rng.standard_normal((R, C)), rng.standard_normal((C, R)), rng.standard_normal((1, 2, k, k))
    params = {
        "se": se.Params(w1, w2),
        "channel": channel.Params(w1, w2),
        "spatial": spatial.Params(w),
        "cbam": cbam.Params(channel.Params(w1, w2), spatial.Params(w)),
    }[block]
    module = tracing.BLOCKS[block].module
    (y, cache), forward = tracing.watched(module.forward, x, params)
    dy = rng.standard_normal(y.shape)
    (dx, grads), backward = tracing.watched(module.backward, dy, cache)
    return x, params, y, dy, dx, grads, list(tracing.walked(forward)), list(tracing.walked(backward))


def value(steps: list[tracing.Step], name: str, tag: str, nth: int = 0) -> np.ndarray:
    """What the nth line with the tag assigned to the name."""
    return [step.values[name] for step in steps if step.line.tag == tag and name in step.values][nth]


def test_se_step_by_step():
    x, (w1, w2), y, dy, dx, grads, there, back = inputs("se")
    N, C, H, W = x.shape
    R, P = len(w1), H * W
    xp, yp, dyp = (array.reshape(N, C, P) for array in (x, y, dy))

    s = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    z = filled((N, R), lambda n, r: sum(s[n, c] * w1[r, c] for c in range(C)))
    h = filled((N, R), lambda n, r: max(z[n, r], 0))
    a = filled((N, C), lambda n, c: sum(h[n, r] * w2[c, r] for r in range(R)))
    g = filled((N, C), lambda n, c: sigmoid(a[n, c]))
    for name, tag, wanted in (("s", "SE.1", s), ("z", "SE.2", z), ("h", "SE.3", h), ("a", "SE.4", a), ("g", "SE.5", g)):
        same(value(there, name, tag), wanted, tag)
    same(yp, filled((N, C, P), lambda n, c, p: xp[n, c, p] * g[n, c]), "SE.6")

    direct = filled((N, C, P), lambda n, c, p: dyp[n, c, p] * g[n, c])
    dg = filled((N, C), lambda n, c: sum(dyp[n, c, p] * xp[n, c, p] for p in range(P)))
    da = filled((N, C), lambda n, c: dg[n, c] * g[n, c] * (1 - g[n, c]))
    dh = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)))
    dw2 = filled((C, R), lambda c, r: sum(da[n, c] * h[n, r] for n in range(N)))
    dz = filled((N, R), lambda n, r: dh[n, r] if z[n, r] > 0 else 0)
    ds = filled((N, C), lambda n, c: sum(dz[n, r] * w1[r, c] for r in range(R)))
    dw1 = filled((R, C), lambda r, c: sum(dz[n, r] * s[n, c] for n in range(N)))
    through = filled((N, C, P), lambda n, c, p: ds[n, c] / P)
    assert np.any(dz == 0), "no unit is blocked: SE.3 is not tried"
    assert np.any(dz != 0), "every unit is blocked: nothing is tried"
    same(value(back, "dx_direct", "SE.6").reshape(N, C, P), direct, "SE.6, the factor x")
    for name, tag, wanted in (
        ("dg", "SE.6", dg), ("da", "SE.5", da), ("dh", "SE.4", dh), ("dw2", "SE.4", dw2), ("dz", "SE.3", dz),
        ("ds", "SE.2", ds), ("dw1", "SE.2", dw1),
    ):  # fmt: skip
        same(value(back, name, tag), wanted, f"{tag}, {name}")
    same(value(back, "dx_gate", "SE.1").reshape(N, C, P), through, "SE.1")
    same(dx.reshape(N, C, P), direct + through, "the two ways meet")
    same(grads.w1, dw1, "dw1")
    same(grads.w2, dw2, "dw2")


def channel_by_index(x, w1, w2, dg=None):
    """Channel attention as docs/blocks/channel.md has it. Returns g, or (dx, dw1, dw2) for a cotangent dg (N, C)."""
    N, C, H, W = x.shape
    R, P = len(w1), H * W
    xp = x.reshape(N, C, P)
    first = filled((N, C), lambda n, c: next(p for p in range(P) if xp[n, c, p] == max(xp[n, c]))).astype(int)
    s = {
        "avg": filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P),
        "max": filled((N, C), lambda n, c: xp[n, c, first[n, c]]),
    }
    z = {u: filled((N, R), lambda n, r, u=u: sum(s[u][n, c] * w1[r, c] for c in range(C))) for u in s}
    h = {u: np.maximum(z[u], 0) for u in s}
    a = {u: filled((N, C), lambda n, c, u=u: sum(h[u][n, r] * w2[c, r] for r in range(R))) for u in s}
    g = filled((N, C), lambda n, c: sigmoid(a["avg"][n, c] + a["max"][n, c]))
    if dg is None:
        return g
    da = dg * g * (1 - g)  # CA.6; by CA.5 each of the two terms receives all of it
    ds, dw1, dw2 = {}, np.zeros_like(w1), np.zeros_like(w2)
    for u in s:  # CA.4 and CA.3, each by MLP.3 to MLP.1; the weights' gradients add
        dh = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)))
        dz = filled((N, R), lambda n, r, u=u, dh=dh: dh[n, r] if z[u][n, r] > 0 else 0)
        ds[u] = filled((N, C), lambda n, c, dz=dz: sum(dz[n, r] * w1[r, c] for r in range(R)))
        dw2 += filled((C, R), lambda c, r, u=u: sum(da[n, c] * h[u][n, r] for n in range(N)))
        dw1 += filled((R, C), lambda r, c, u=u, dz=dz: sum(dz[n, r] * s[u][n, c] for n in range(N)))
    dx = filled(
        (N, C, P), lambda n, c, p: (ds["max"][n, c] if p == first[n, c] else 0) + ds["avg"][n, c] / P
    )  # CA.2 and CA.1
    return dx.reshape(x.shape), dw1, dw2


def spatial_by_index(x, w, dg=None):
    """Spatial attention as docs/blocks/spatial.md has it. Returns g (N, H, W), or (dx, dw) for a cotangent dg."""
    N, C, H, W = x.shape
    k = w.shape[-1]
    q = k // 2
    first = filled((N, H, W), lambda n, h, v: next(c for c in range(C) if x[n, c, h, v] == max(x[n, :, h, v]))).astype(
        int
    )
    m = filled((N, 2, H, W), lambda n, b, h, v: sum(x[n, :, h, v]) / C if b == 0 else x[n, first[n, h, v], h, v])

    def at(array, h, v):  # outside of the image there are zeros
        return array[h, v] if 0 <= h < H and 0 <= v < W else 0.0

    places = list(product(range(k), range(k)))
    a = filled(
        (N, H, W),
        lambda n, h, v: sum(w[0, b, i, j] * at(m[n, b], h + i - q, v + j - q) for b in (0, 1) for i, j in places),
    )
    g = sigmoid(a)
    if dg is None:
        return g
    da = dg * g * (1 - g)  # SA.5
    dm = filled(
        m.shape,
        lambda n, b, h, v: sum(w[0, b, i, j] * at(da[n], h - i + q, v - j + q) for i, j in places),
    )
    dw = filled(
        w.shape,
        lambda _, b, i, j: sum(
            da[n, h, v] * at(m[n, b], h + i - q, v + j - q) for n, h, v in product(range(N), range(H), range(W))
        ),
    )
    dx = filled(
        x.shape,
        lambda n, c, h, v: (dm[n, 1, h, v] if c == first[n, h, v] else 0) + dm[n, 0, h, v] / C,
    )
    return dx, dw


def test_channel_attention_index_by_index():
    x, (w1, w2), g, dg, dx, grads, _, back = inputs("channel")
    same(g[:, :, 0, 0], channel_by_index(x, w1, w2), "CA.6")
    wanted = channel_by_index(x, w1, w2, dg[:, :, 0, 0])
    for found, expected, name in zip((dx, *grads), wanted, ("dx", "dw1", "dw2"), strict=True):
        same(found, expected, name)
    # CA.5: a sum is no budget, both terms receive all
    same(value(back, "da_avg", "CA.5"), value(back, "da_max", "CA.5"), "CA.5")


def test_spatial_attention_index_by_index():
    x, (w,), g, dg, dx, grads, _, _ = inputs("spatial", (2, 3, 4, 5))
    same(g[:, 0], spatial_by_index(x, w), "SA.5")
    wanted = spatial_by_index(x, w, dg[:, 0])
    same(dx, wanted[0], "dx")
    same(grads.w, wanted[1], "dw")


def test_cbam_is_its_four_ways():
    x, params, y, dy, dx, grads, _, back = inputs("cbam")
    (w1, w2), (w,) = params
    g_c = channel_by_index(x, w1, w2)[:, :, None, None]  # CBAM.1
    u = x * g_c  # CBAM.2
    g_s = spatial_by_index(u, w)[:, None]  # CBAM.3
    same(y, u * g_s, "CBAM.4")

    dg_s = np.sum(dy * u, axis=1)
    du_gate, dw = spatial_by_index(u, w, dg_s)
    du = dy * g_s + du_gate
    dg_c = np.sum(du * x, axis=(2, 3))
    dx_gate, dw1, dw2 = channel_by_index(x, w1, w2, dg_c)
    same(value(back, "du_gate", "CBAM.3"), du_gate, "CBAM.3")
    same(value(back, "du", "+"), du, "the first meeting")
    same(value(back, "dg_c", "CBAM.2")[:, :, 0, 0], dg_c, "CBAM.2")
    same(dx, du * g_c + dx_gate, "the second meeting")
    same(grads.sa.w, dw, "dw")
    same(grads.ca.w1, dw1, "dw1")
    same(grads.ca.w2, dw2, "dw2")

    def ca_back(cotangent):
        return channel_by_index(x, w1, w2, np.sum(cotangent * x, axis=(2, 3)))[0]

    ways = [dy * g_s * g_c, du_gate * g_c, ca_back(dy * g_s), ca_back(du_gate)]
    same(dx, sum(ways), "four ways")
    assert all(np.linalg.norm(way) > 1e-3 * np.linalg.norm(dx) for way in ways), "a way that is nothing proves nothing"


def test_gate():
    rng = np.random.default_rng(6)
    x, dy = rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((2, 3, 2, 4))
    for shape, summed in (((2, 3, 1, 1), "nchv->nc"), ((2, 1, 2, 4), "nchv->nhv")):
        g = rng.standard_normal(shape)
        _, cache = gate.forward(x, g)
        direct, dg = gate.backward(dy, cache)
        same(direct, dy * g, "GATE.2, the factor x")
        same(dg.ravel(), np.einsum(summed, dy * x).ravel(), "GATE.2, the factor g")


def test_residual_unit():
    rng = np.random.default_rng(11)
    x, s, b, dy = (rng.standard_normal((2, 3, 2, 4)) for _ in range(4))
    y, cache = residual.forward(s, b)
    same(y, s + b, "RES.3")
    for found, name in zip(residual.backward(dy, cache), ("ds", "db"), strict=True):
        same(found, dy, f"RES.3, {name}: each term receives all")
    w, v = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    for skip, matrix in ((None, np.eye(3)), (npattn.Conv2d(3, 3, 1, bias=False, dtype="float64"), v)):
        layer = npattn.Residual(npattn.Conv2d(3, 3, 1, bias=False, dtype="float64"), skip)
        state = {"branch.weight": w} | ({} if skip is None else {"skip.weight": v})
        layer.load_state_dict({key: kernel[:, :, None, None] for key, kernel in state.items()})
        same(layer(x), np.einsum("mc,nchv->nmhv", w + matrix, x), "RES.1 to RES.3")
        same(layer.backward(dy), np.einsum("mc,nmhv->nchv", w + matrix, dy), "the two ways meet")
        same(layer.grads["branch.weight"][:, :, 0, 0], np.einsum("nmhv,nchv->mc", dy, x), "RES.1")


def test_through_many_residual_units():
    """docs/blocks/residual.md: with branches of slope w the gradient is (1 + w)ᵈ, not wᵈ."""
    depth, w = 20, 0.1
    for residual_units, wanted in ((True, (1 + w) ** depth), (False, w**depth)):
        layers = []
        for _ in range(depth):
            branch = npattn.Conv2d(1, 1, 1, bias=False, dtype="float64")
            branch.load_state_dict({"weight": np.full((1, 1, 1, 1), w)})
            layers.append(npattn.Residual(branch) if residual_units else branch)
        model = npattn.Sequential(*layers)
        one = np.ones((1, 1, 1, 1))
        model(one)
        np.testing.assert_allclose(model.backward(one).item(), wanted, rtol=1e-12)


# Claims of single pages


def test_slope_of_the_sigmoid(sympy):
    a = sympy.symbols("a", real=True)
    g = 1 / (1 + sympy.exp(-a))
    assert sympy.simplify(sympy.diff(g, a) - g * (1 - g)) == 0
    e = sympy.exp(-sympy.Abs(a))
    for x in (-3.5, 0.0, 2.25):  # SIG.2 in its two forms
        form = e / (1 + e) if x < 0 else 1 / (1 + e)
        assert abs(float(form.subs(a, x)) - activation.sigmoid_forward(np.array([x]))[0][0]) < 1e-15


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


def test_fc_index_by_index():
    rng = np.random.default_rng(8)
    x, w, b, dy = (rng.standard_normal(shape) for shape in ((4, 3), (2, 3), (2,), (4, 2)))
    y, cache = linear.forward(x, linear.Params(w, b))
    same(y, filled((4, 2), lambda p, m: sum(x[p, k] * w[m, k] for k in range(3)) + b[m]), "FC.1, FC.2")
    dx, grads = linear.backward(dy, cache)
    same(dx, filled((4, 3), lambda p, k: sum(dy[p, m] * w[m, k] for m in range(2))), "FC.1, x")
    same(grads.w, filled((2, 3), lambda m, k: sum(dy[p, m] * x[p, k] for p in range(4))), "FC.1, w")
    same(grads.b, filled((2,), lambda m: sum(dy[p, m] for p in range(4))), "FC.2")


def test_convolution_in_one_line_and_flipped():
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

    def dy_at(n, m, h, v):
        return dy[n, m, h, v] if 0 <= h < H and 0 <= v < W else 0.0

    same(
        dx,
        filled(
            (N, C, H, W),
            lambda n, c, h, v: sum(
                w[m, c, k - 1 - i, k - 1 - j] * dy_at(n, m, h + i - q, v + j - q)
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


def test_sums_of_pooled_gradients():
    """docs/ops/pooling.md, exercise 1: for a mean and for a maximum all of dx adds up to dy."""
    rng = np.random.default_rng(10)
    x = rng.integers(0, 2, (2, 3, 4, 4)).astype(float)  # many ties
    for forward, backward, axes in (
        (pooling.global_avg_pool_forward, pooling.global_avg_pool_backward, (2, 3)),
        (pooling.global_max_pool_forward, pooling.global_max_pool_backward, (2, 3)),
        (pooling.channel_mean_forward, pooling.channel_mean_backward, (1,)),
        (pooling.channel_max_forward, pooling.channel_max_backward, (1,)),
    ):
        y, cache = forward(x)
        dy = rng.standard_normal(y.shape)
        same(backward(dy, cache).sum(axis=axes).ravel(), dy.ravel(), forward.__name__)


def test_parameters_of_se_in_resnet_50():
    """Hu et al. 2018: 2.5 million parameters more, and to the last one 2,514,944."""
    stages = [(256, 3), (512, 4), (1024, 6), (2048, 3)]
    built = sum(blocks * npattn.SELayer(C, reduction=16).count() for C, blocks in stages)
    assert built == sum(blocks * 2 * C * C // 16 for C, blocks in stages) == 2_514_944


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_value_used_n_times(sympy, n: int):
    """L = v·v·…·v: n factors, each with the gradient v^(n−1), and their sum is the derivative."""
    v = sympy.symbols("v")
    factors = sympy.symbols(f"f:{n}")
    each = [sympy.diff(sympy.prod(factors), f).subs(dict.fromkeys(factors, v)) for f in factors]
    assert sympy.simplify(sum(each) - sympy.diff(v**n, v)) == 0
