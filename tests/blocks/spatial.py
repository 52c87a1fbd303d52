"""CBAM's spatial attention, docs/blocks/spatial.md."""

from __future__ import annotations

from itertools import product

import numpy as np

from npattn.attention import spatial
from npattn.ops import conv2d, sigmoid
from tests.support.by_index import filled, same
from tests.support.by_index import sigmoid as sigmoid_of
from tests.support.mistakes import image, mistake


def reference(x, w):
    import torch
    import torch.nn.functional as F

    kernel = w["conv1.weight"]
    maps = torch.cat([x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True).values], dim=1)
    return F.conv2d(maps, kernel, padding=kernel.shape[-1] // 2).sigmoid()


def by_index(x, w, dg=None):
    """Spatial attention as docs/blocks/spatial.md has it. Returns g (N, H, W), or (dx, dw) for a cotangent dg."""
    N, C, H, W = x.shape
    k = w.shape[-1]
    q = k // 2
    first = filled((N, H, W), lambda n, h, v: next(c for c in range(C) if x[n, c, h, v] == max(x[n, :, h, v]))).astype(
        int
    )
    m = filled((N, 2, H, W), lambda n, b, h, v: sum(x[n, :, h, v]) / C if b == 0 else x[n, first[n, h, v], h, v])
    m_bar = np.pad(m, ((0, 0), (0, 0), (q, q), (q, q)))
    places = list(product(range(2), range(k), range(k)))
    a = filled((N, H, W), lambda n, h, v: sum(w[0, b, i, j] * m_bar[n, b, h + i, v + j] for b, i, j in places))
    g = sigmoid_of(a)
    if dg is None:
        return g
    da = dg * g * (1 - g)  # SA.5
    dm_bar = np.zeros_like(m_bar)
    for n, h, v, (b, i, j) in product(range(N), range(H), range(W), places):
        dm_bar[n, b, h + i, v + j] += w[0, b, i, j] * da[n, h, v]
    dm = dm_bar[:, :, q : q + H, q : q + W]
    dw = filled(
        w.shape,
        lambda _, b, i, j: sum(
            da[n, h, v] * m_bar[n, b, h + i, v + j] for n, h, v in product(range(N), range(H), range(W))
        ),
    )
    dx = filled(
        x.shape,
        lambda n, c, h, v: (dm[n, 1, h, v] if c == first[n, h, v] else 0) + dm[n, 0, h, v] / C,
    )
    return dx, dw


def derivation():
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((1, 2, 3, 3))
    g, cache = spatial.forward(x, spatial.Params(w))
    dg = rng.standard_normal(g.shape)
    dx, grads = spatial.backward(dg, cache)
    same(g[:, 0], by_index(x, w), "SA.5")
    wanted = by_index(x, w, dg[:, 0])
    same(dx, wanted[0], "dx")
    same(grads.w, wanted[1], "dw")


def inputs(rng):
    return image(rng), spatial.Params(rng.standard_normal((1, 2, 3, 3)))


@mistake(spatial.forward, inputs, "params.w", "reverse order along axis 1")
def spatial_maps_swapped(dy, cache):
    dx, (dw,) = spatial.backward(dy, cache)
    return dx, spatial.Params(dw[:, ::-1].copy())


@mistake(spatial.forward, inputs, "x", "same along axes (1,)")
def spatial_mean_not_divided(dy, cache):
    dx, grads = spatial.backward(dy, cache)
    da = sigmoid.backward(dy, cache.gate)
    dm, _ = conv2d.backward(da, cache.conv)
    return dx + dm[:, :1] * (1 - 1 / dx.shape[1]), grads
