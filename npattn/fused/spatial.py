"""Spatial attention in two passes over x, and one for dx.

    X (n, C, P)   w (1, 2, k, k)   p = k // 2        a tile: some pixels of all channels

    forward                                                                            reads       writes
      tile   SA.1, SA.2   m_avg = (1/C) Σ_c X, m_max and its first channel i           x           two maps
      maps   SA.4, SA.5   a = w ∗ [m_avg, m_max], g = sigmoid(a)                       two maps    a map

    backward
      maps   SA.5, SA.4   da = dg · g (1 − g); dw and [dm_avg, dm_max] through w       maps        maps
      tile   SA.2, SA.1   dX = dm_avg / C, plus dm_max at channel i                                dx

The convolution of the maps (SA.4) unfolds along the width only: k shifted copies, where a full unfolding has k².

    Ū[(j, c), (h, v)] = m̄[c, h, v + j]             (2k, (H + 2p) W)    m̄: m with p zeros on every side
    R[i, (h, v)] = Σ_{j,c} w[c, i, j] Ū[(j, c), (h, v)]   (k, (H + 2p) W)   one product
    a[h, v] = Σ_i R[i, (h + i, v)]                                      k rows, each shifted by i rows of the image

Backward, one unfolded map V, that of da, serves both gradients: dm = (w flipped) ∗ da, and dw, flipped, is m times V:

    dw[c, k − 1 − i, k − 1 − j] = Σ_{h,v} m[c, h, v] V[j, (h + i, v)]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.attention.spatial import Params
from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape
from npattn.fused import contiguous, maps, taken, threads, tiles
from npattn.fused.memory import output
from npattn.ops.activation import SigmoidCache
from npattn.ops.pooling import some_pixels

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    m: Array  # (N, 2, H, W), the maps
    i: Array  # (N, P), the first channel that is largest
    w: Array  # (1, 2, k, k)
    sigmoid: SigmoidCache  # the gate (N, 1, H, W)
    shape: tuple[int, int, int, int]  # of x


def unfold_width(m: Array, k: int, rows: slice) -> Array:
    """Ū of maps m (n, C, H, W), (n, k·C, (h + 2p)·W): what the h output rows `rows` see."""
    n, C, H, W = m.shape
    p, h = k // 2, rows.stop - rows.start
    U = threads.scratch("unfold", (n, k, C, h + 2 * p, W), m.dtype)
    above, below = max(0, p - rows.start), max(0, rows.stop + p - H)
    U[:, :, :, :above] = 0
    U[:, :, :, h + 2 * p - below :] = 0
    seen = m[:, :, rows.start - p + above : rows.stop + p - below]
    inner = U[:, :, :, above : h + 2 * p - below]
    for j in range(k):
        left, right = min(max(0, p - j), W), min(max(0, j - p), W)  # how far the copy sticks out of the image
        inner[:, j, :, :, :left] = 0
        inner[:, j, :, :, W - right :] = 0
        inner[:, j, :, :, left : W - right] = seen[:, :, :, right : W - left]
    return U.reshape(n, k * C, (h + 2 * p) * W)


def correlate(U: Array, w: Array, h: int, W: int, out: Array) -> None:
    """Write h rows of w ∗ m, (n, M, h·W), from their Ū; w (M, C, k, k)."""
    n, (M, C, k, _) = U.shape[0], w.shape
    kernel = np.ascontiguousarray(w.transpose(2, 0, 3, 1)).reshape(k * M, k * C)  # (i, m) by (j, c)
    R = np.matmul(kernel, U, out=threads.scratch("rows", (n, k * M, U.shape[2]), U.dtype)).reshape(n, k, M, -1)
    out[...] = R[:, 0, :, : h * W]
    for i in range(1, k):
        out += R[:, i, :, i * W : (i + h) * W]


def row_blocks(m: Array, k: int) -> list[slice]:
    """Cut the rows of maps m (n, C, H, W) so that the Ū of a block is a tile."""
    n, C, H, W = m.shape
    return tiles.rows(H, n * k * C * W * m.itemsize)


def gate_forward(m: Array, w: Array) -> Array:
    """SA.4 and SA.5 for maps m (n, 2, H, W): the gate (n, P)."""
    n, _, H, W = m.shape
    k = w.shape[3]
    a = np.empty((n, 1, H * W), dtype=m.dtype)
    blocks = row_blocks(m, k)

    def block(b: int) -> None:
        h = blocks[b]
        correlate(unfold_width(m, k, h), w, h.stop - h.start, W, out=a[:, :, h.start * W : h.stop * W])  # SA.4

    threads.spread(block, len(blocks))
    return maps.sigmoid(a[:, 0])  # SA.5


def gate_backward(dg: Array, g: Array, m: Array, w: Array) -> tuple[Array, Array]:
    """dm (n, 2, P) and dw (1, 2, k, k) for dg (n, P)."""
    n, _, H, W = m.shape
    k = w.shape[3]
    # SA.5 was g = sigmoid(a)
    da = dg * g * (1 - g)  # SA.5

    # SA.4 was a = w ∗ m. A pixel of m was seen through every place of the kernel: dm = w flipped ∗ da. The same
    # unfolded da, V, has beside each pixel of m what that pixel met in each place: its product with m is dw, flipped
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    dm = np.empty((n, 2, H * W), dtype=m.dtype)
    blocks = row_blocks(da.reshape(n, 1, H, W), k)

    def block(b: int) -> Array:
        h, here = blocks[b], slice(blocks[b].start * W, blocks[b].stop * W)
        length = here.stop - here.start
        V = unfold_width(da.reshape(n, 1, H, W), k, h)
        correlate(V, flipped, h.stop - h.start, W, out=dm[:, :, here])  # SA.4
        seen = m.reshape(n, 2, H * W)[:, :, here]
        return np.stack([(seen @ V[:, :, i * W : i * W + length].mT).sum(axis=0) for i in range(k)], axis=1)  # SA.4

    dw = sum(threads.spread(block, len(blocks)))  # (2, k, k)
    return dm, dw[None, :, ::-1, ::-1].copy()


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x, as `npattn.attention.spatial.forward` gives it, and with its errors."""
    (w,) = params
    floating(x=x, w=w)
    odd_kernel("w", w, "1 2 k k", **{"1": 1, "2": 2})
    N, C, H, W = some_pixels(x)
    taken(x=x)

    X = x.reshape(N, C, H * W)
    m = np.empty((N, 2, H * W), dtype=x.dtype)
    i = np.empty((N, H * W), dtype=np.intp)
    g = np.empty((N, 1, H, W), dtype=x.dtype)
    groups = tiles.images(N, C * H * W * x.itemsize)
    columns = tiles.pixels(H * W, C * x.itemsize)

    def group(index: int) -> None:
        n = groups[index]

        def tile(t: int) -> None:
            q = columns[t]
            maps.channel_mean_max(X[n, :, q], m[n, 0, q], m[n, 1, q], i[n, q])  # SA.1, SA.2, SA.3

        threads.spread(tile, len(columns))
        maps_of_group = m[n].reshape(-1, 2, H, W)
        g[n] = gate_forward(maps_of_group, w).reshape(-1, 1, H, W)  # SA.4, SA.5

    threads.spread(group, len(groups))
    return g, Cache(m.reshape(N, 2, H, W), i, w, SigmoidCache(g.copy()), (N, C, H, W))


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,), as `npattn.attention.spatial.backward` does, and with its errors."""
    m, i, w, (g,), (N, C, H, W) = cache
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
            maps.add_at_channel(dx[n], i[n, q], dm[:, 1, q], q.start)  # SA.2: one channel receives everything

        threads.spread(tile, len(columns))
        return dw

    dw = sum(threads.spread(group, len(groups)))
    return dx.reshape(N, C, H, W), Params(dw)
