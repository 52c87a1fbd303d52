"""Spatial attention in one pass over x, and one for dx.

    X (n, C, P)   w (1, 2, k, k)   p = k // 2        a tile: some pixels of all channels

    forward                                                                            reads       writes
      tile   SA.1, SA.2   m_avg = (1/C) Σ_c X, m_max and its first channel i           x           two maps
      maps   SA.4, SA.5   a = w ∗ [m_avg, m_max], g = sigmoid(a)                       two maps    a map

    backward
      maps   SA.5, SA.4   da = dg · g (1 − g); dw and [dm_avg, dm_max] through w       maps        maps
      tile   SA.2, SA.1   dX = dm_avg / C, plus dm_max at channel i                                dx

The convolution of the maps is that of fused/conv2d.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.attention.spatial import Params
from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape
from npattn.fused import contiguous, conv2d, kept, maps, taken, threads, tiles
from npattn.fused.memory import output
from npattn.layer import keeps_cache
from npattn.ops.activation import SigmoidCache
from npattn.ops.pooling import some_pixels

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    m: Array  # (N, 2, H, W), the maps
    i: Array | None  # (N, P), the first channel that is largest
    w: Array  # (1, 2, k, k)
    sigmoid: SigmoidCache  # the gate (N, 1, H, W)
    shape: tuple[int, int, int, int]  # of x


def gate_forward(m: Array, w: Array) -> Array:
    """SA.4 and SA.5 for maps m (n, 2, H, W): the gate (n, P)."""
    a = conv2d.convolve(m, w)  # SA.4
    return maps.sigmoid(a.reshape(a.shape[0], -1))  # SA.5


def gate_backward(dg: Array, g: Array, m: Array, w: Array) -> tuple[Array, Array]:
    """dm (n, 2, P) and dw (1, 2, k, k) for dg (n, P)."""
    n, _, H, W = m.shape
    # SA.5 was g = sigmoid(a)
    da = dg * g * (1 - g)  # SA.5
    # SA.4 was a = w ∗ m
    dm, dw = conv2d.convolve_back(da.reshape(n, 1, H, W), m, w)  # SA.4
    return dm.reshape(n, 2, H * W), dw


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x, as `npattn.attention.spatial.forward` gives it, and with its errors."""
    (w,) = params
    floating(x=x, w=w)
    odd_kernel("w", w, "1 2 k k", **{"1": 1, "2": 2})
    N, C, H, W = some_pixels(x)
    taken(x=x)

    X = x.reshape(N, C, H * W)
    m = np.empty((N, 2, H * W), dtype=x.dtype)
    i = np.empty((N, H * W), dtype=np.intp) if keeps_cache() else None
    g = np.empty((N, 1, H, W), dtype=x.dtype)
    groups = tiles.images(N, C * H * W * x.itemsize)
    columns = tiles.pixels(H * W, C * x.itemsize)

    def group(index: int) -> None:
        n = groups[index]

        def tile(t: int) -> None:
            q = columns[t]
            first = None if i is None else i[n, q]
            maps.channel_mean_max(X[n, :, q], m[n, 0, q], m[n, 1, q], first)  # SA.1, SA.2, SA.3

        threads.spread(tile, len(columns))
        maps_of_group = m[n].reshape(-1, 2, H, W)
        g[n] = gate_forward(maps_of_group, w).reshape(-1, 1, H, W)  # SA.4, SA.5

    threads.spread(group, len(groups))
    return g, Cache(m.reshape(N, 2, H, W), i, w, SigmoidCache(g.copy()), (N, C, H, W))


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,), as `npattn.attention.spatial.backward` does, and with its errors."""
    m, i, w, (g,), (N, C, H, W) = cache
    i = kept(i)
    floating(dg=dg, g=g)
    same_shape("dg", dg, g.shape, "the output gate")

    P = H * W
    dG, G = contiguous(dg).reshape(N, P), g.reshape(N, P)
    dx = output((N, C, P), dg.dtype)
    groups = tiles.images(N, C * P * dx.itemsize)
    columns = tiles.pixels(P, C * dx.itemsize)

    def group(index: int) -> Array:
        n = groups[index]
        dm, dw = gate_backward(dG[n], G[n], m[n], w)  # SA.5, SA.4, SA.3
        dm[:, 0] /= C

        def tile(t: int) -> None:
            q = columns[t]
            dx[n, :, q] = dm[:, 0:1, q]  # SA.1: all channels receive the same share
            maps.add_at(
                dx[n], maps.places(i[n, q], C, P, q.start), dm[:, 1, q]
            )  # SA.2: one channel receives everything

        threads.spread(tile, len(columns))
        return dw

    dw = sum(threads.spread(group, len(groups)))
    return dx.reshape(N, C, H, W), Params(dw)
