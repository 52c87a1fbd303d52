"""The formulas of docs/variants.md, index by index, against what the general pairs compute."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from npattn.attention.options import ChannelForm, SpatialForm
from npattn.variants import channel, eca, pooling, spatial
from tests.test_derivations import filled, same, sigmoid

N, C, H, W, R, k, q = 2, 3, 2, 4, 2, 3, 1
P = H * W
RNG = np.random.default_rng(6)
X = RNG.standard_normal((N, C, H, W))
XP = X.reshape(N, C, P)
POOLED = {
    "avg": filled((N, C), lambda n, c: sum(XP[n, c, p] for p in range(P)) / P),
    "max": filled((N, C), lambda n, c: max(XP[n, c, p] for p in range(P))),
    "lp": filled((N, C), lambda n, c: math.sqrt(sum(XP[n, c, p] ** 2 for p in range(P)))),
    "lse": filled((N, C), lambda n, c: math.log(sum(math.exp(XP[n, c, p]) for p in range(P)))),
}
MAPPED = {
    "mean": filled((N, H, W), lambda n, h, v: sum(X[n, c, h, v] for c in range(C)) / C),
    "max": filled((N, H, W), lambda n, h, v: max(X[n, c, h, v] for c in range(C))),
}
GATE = {"sigmoid": sigmoid, "hard_sigmoid": lambda a: min(max(a / 6 + 0.5, 0), 1)}


def test_lp_and_lse():
    for name, forward, backward in (
        ("lp", pooling.lp_pool_forward, pooling.lp_pool_backward),
        ("lse", pooling.lse_pool_forward, pooling.lse_pool_backward),
    ):
        y, cache = forward(X)
        same(y, POOLED[name], name)
        dy = RNG.standard_normal((N, C))
        share = {
            "lp": lambda n, c, p: XP[n, c, p] / POOLED["lp"][n, c],
            "lse": lambda n, c, p: math.exp(XP[n, c, p]) / sum(math.exp(XP[n, c, j]) for j in range(P)),
        }[name]
        dx = filled((N, C, P), lambda n, c, p: dy[n, c] * share(n, c, p))  # noqa: B023
        same(backward(dy, cache).reshape(N, C, P), dx, name)


@pytest.mark.parametrize("gate", GATE)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("mix", ["after", "before", "concat"])
@pytest.mark.parametrize("pools", [("lse", "avg"), ("max", "lp", "avg")], ids=str)
def test_channel_gate(pools: tuple[str, ...], mix: str, layers: int, gate: str):
    count = len(pools)
    K, M = C * count if mix == "concat" else C, R if layers == 2 else C
    w1, b1 = RNG.standard_normal((M, K)), RNG.standard_normal(M)
    w2, b2 = (RNG.standard_normal((C, R)), RNG.standard_normal(C)) if layers == 2 else (None, None)
    g, _ = channel.forward(X, channel.Params(w1, b1, w2, b2), ChannelForm(pools, mix, gate))

    s = [POOLED[name] for name in pools]
    read = {
        "after": s,
        "before": [filled((N, C), lambda n, c: sum(one[n, c] for one in s) / count)],
        "concat": [filled((N, K), lambda n, m: s[m // C][n, m % C])],
    }[mix]
    a = np.zeros((N, C))
    for t in read:
        z = filled((N, M), lambda n, r: sum(t[n, m] * w1[r, m] for m in range(K)) + b1[r])  # noqa: B023
        run = z
        if layers == 2:
            h = filled((N, R), lambda n, r: max(z[n, r], 0))  # noqa: B023
            run = filled((N, C), lambda n, c: sum(h[n, r] * w2[c, r] for r in range(R)) + b2[c])  # noqa: B023
        a += run
    same(g[:, :, 0, 0], filled((N, C), lambda n, c: GATE[gate](a[n, c])), "VCA.5")


@pytest.mark.parametrize("running", [None, (0.3, 1.7)], ids=["train", "eval"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("mix", ["concat", "mean"])
@pytest.mark.parametrize("maps", [("mean", "max"), ("max", "mean"), ("max",)], ids=str)
def test_spatial_gate(maps: tuple[str, ...], mix: str, norm: bool, running: tuple[float, float] | None):
    count = len(maps) if mix == "concat" else 1
    w, b = RNG.standard_normal((1, count, k, k)), RNG.standard_normal(1)
    gamma, beta = RNG.standard_normal(1), RNG.standard_normal(1)
    params = spatial.Params(w, b, spatial.batch_norm.Params(gamma, beta) if norm else None)
    statistics = None if running is None else spatial.batch_norm.Running(*map(np.atleast_1d, running))
    g, _ = spatial.forward(X, params, SpatialForm(maps, mix), statistics)

    m = [MAPPED[name] for name in maps]
    if mix == "mean":
        m = [filled((N, H, W), lambda n, h, v: sum(MAPPED[name][n, h, v] for name in maps) / len(maps))]

    def under_the_kernel(n, h, v):
        total = b[0]
        for one, i, j in product(range(count), range(k), range(k)):
            row, column = h + i - q, v + j - q
            if 0 <= row < H and 0 <= column < W:
                total += w[0, one, i, j] * m[one][n, row, column]
        return total

    a = c = filled((N, H, W), under_the_kernel)
    if norm:
        mean, var = (c.mean(), c.var()) if running is None else running
        a = filled((N, H, W), lambda n, h, v: gamma[0] * (c[n, h, v] - mean) / math.sqrt(var + 1e-5) + beta[0])
    same(g[:, 0], filled((N, H, W), lambda n, h, v: sigmoid(a[n, h, v])), "VSA.5")


def test_eca():
    w, dy = RNG.standard_normal(k), RNG.standard_normal(X.shape)
    y, cache = eca.forward(X, eca.Params(w))
    dx, (dw,) = eca.backward(dy, cache)

    s = POOLED["avg"]
    s_bar = filled((N, C + 2 * q), lambda n, c: s[n, c - q] if 0 <= c - q < C else 0)
    g = filled((N, C), lambda n, c: sigmoid(sum(w[j] * s_bar[n, c + j] for j in range(k))))
    same(y, filled(X.shape, lambda n, c, h, v: X[n, c, h, v] * g[n, c]), "ECA.5")
    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * X[n, c, h, v] for h in range(H) for v in range(W)))
    da = filled((N, C), lambda n, c: dg[n, c] * g[n, c] * (1 - g[n, c]))
    same(dw, filled((k,), lambda j: sum(da[n, c] * s_bar[n, c + j] for n in range(N) for c in range(C))), "ECA.3, dw")
    ds_bar = filled(s_bar.shape, lambda n, c: sum(w[j] * da[n, c - j] for j in range(k) if 0 <= c - j < C))
    same(dx, filled(X.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + ds_bar[n, c + q] / P), "ECA.1")
