"""Spatial attention in one pass over x, and one for dx.

    X (n, C, P)   w (1, 2, k, k)   p = k // 2        a tile: some pixels of all channels
    or (1, C, P·b), b images side by side (layout.py): one image of more pixels, until the convolution

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
from npattn.fused import check_takes, conv2d, layout, maps, needed, scratch, threads, tiles
from npattn.grad_mode import keeps_cache
from npattn.ops.pooling import some_pixels
from npattn.ops.sigmoid import Cache as SigmoidCache

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    m: Array  # (a, 2, P·b), the maps
    i: Array | None  # (a, P·b), the first channel that is largest, in a byte if that is enough
    w: Array  # (1, 2, k, k)
    gate: SigmoidCache  # the gate (N, 1, H, W)
    shape: tuple[int, int, int, int]  # of x
    b: int  # images side by side


def gate_forward(m: Array, w: Array, H: int, b: int) -> Array:
    """SA.4 and SA.5 for maps m (n, 2, P·b) of H rows: the gate (n, P·b)."""
    n = m.shape[0]
    a = conv2d.convolve(m.reshape(n, 2, H, -1), w, b)  # SA.4
    return maps.sigmoid(a.reshape(n, -1))  # SA.5


def gate_backward(dg: Array, g: Array, m: Array, w: Array, H: int, b: int) -> tuple[Array, Array]:
    """dm (n, 2, P·b) and dw (1, 2, k, k) for dg (n, P·b)."""
    n = m.shape[0]
    # SA.5 was g = sigmoid(a)
    da = dg * g  # SA.5
    da *= np.subtract(1, g, out=scratch.get("sigmoid", g.shape, g.dtype))  # SA.5
    # SA.4 was a = w ∗ m
    dm, dw = conv2d.convolve_back(da.reshape(n, 1, H, -1), m.reshape(n, 2, H, -1), w, b)  # SA.4
    return dm.reshape(n, 2, -1), dw


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x, as `npattn.attention.spatial.forward` gives it, and with its errors."""
    (w,) = params
    floating(x=x, w=w)
    odd_kernel("w", w, "1 2 k k")
    N, C, H, W = some_pixels(x)
    check_takes(x=x)

    X, b = layout.planes(x), layout.beside(x)
    a, _, L = X.shape
    m, g = np.empty((a, 2, L), dtype=x.dtype), np.empty((a, L), dtype=x.dtype)
    i = np.empty((a, L), dtype=np.min_scalar_type(C - 1)) if keeps_cache() else None
    groups, columns = tiles.images(a, C * L * x.itemsize), tiles.pixels(L, C * x.itemsize)

    def group(index: int) -> None:
        n = groups[index]

        def tile(t: int) -> None:
            q = columns[t]
            first = None if i is None else i[n, q]
            maps.channel_mean_max(X[n, :, q], m[n, 0, q], m[n, 1, q], first)  # SA.1, SA.2, SA.3

        threads.in_parallel(tile, len(columns))
        g[n] = gate_forward(m[n], w, H, b)  # SA.4, SA.5

    threads.in_parallel(group, len(groups))
    gate, kept_gate = (layout.images(numbers, (N, 1, H, W), b) for numbers in (g, g.copy()))
    return gate, Cache(m, i, w, SigmoidCache(kept_gate), (N, C, H, W), b)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,), as `npattn.attention.spatial.backward` does, and with its errors."""
    m, i, w, (g,), (N, C, H, W), b = cache
    i = needed(i)
    floating(dg=dg, g=g)
    same_shape("dg", dg, g.shape, "the output gate")

    a, _, L = m.shape
    dx = layout.output((N, C, H, W), dg.dtype, b)
    dG, G, dX = layout.flat(layout.alike(dg, b)).reshape(a, L), layout.flat(g).reshape(a, L), layout.planes(dx)
    groups, columns = tiles.images(a, C * L * dx.itemsize), tiles.pixels(L, C * dx.itemsize)

    def group(index: int) -> Array:
        n = groups[index]
        dm, dw = gate_backward(dG[n], G[n], m[n], w, H, b)  # SA.5, SA.4, SA.3
        dm[:, 0] /= C

        def tile(t: int) -> None:
            q = columns[t]
            dX[n, :, q] = dm[:, 0:1, q]  # SA.1: all channels receive the same share
            places = maps.places(i[n, q], C, L, q.start)
            maps.add_at(dX[n], places, dm[:, 1, q])  # SA.2: one channel receives everything

        threads.in_parallel(tile, len(columns))
        return dw

    dw = sum(threads.in_parallel(group, len(groups)))
    return dx, Params(dw)
