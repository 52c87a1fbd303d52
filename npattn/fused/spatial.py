"""Spatial attention in two passes over x, and one for dx.

    X (n, C, P)   w (1, 2, k, k)   p = k // 2        a tile: some pixels of all channels

    forward                                                                            reads       writes
      tile   SA.1, SA.2   m_avg = (1/C) Σ_c X, m_max and its first channel i           x           two maps
      maps   SA.4, SA.5   a = w ∗ [m_avg, m_max], g = sigmoid(a)                       two maps    a map

    backward
      maps   SA.5, SA.4   da = dg · g (1 − g); dw and [dm_avg, dm_max] through w       maps        maps
      tile   SA.2, SA.1   dX = dm_avg / C, plus dm_max at channel i                                dx

The convolution of the maps (SA.4) unfolds nothing. Z holds the maps with p zeros on every side, their rows in turns, so
that the k rows of every map which an output row sees lie in memory as one matrix, (k·C, W + 2p). One product a row takes
the kernel's rows together, and its columns are k shifted rows:

    R[h, j, v] = Σ_{i,c} w[c, i, j] Z[h + i, c, v]       (k × k·C) times (k·C × W + 2p), for every h
    a[h, v]    = Σ_j R[h, j, v + j]

Backward, one Z, that of da, serves both gradients. dm = (w flipped) ∗ da is the same again. dw, flipped, is m times Z:

    dw[c, k − 1 − i, k − 1 − j] = Σ_v Σ_h m[c, h, v] Z[h + i, v + j]

and the sum over h is a product of two matrices. In a band of 8 columns v it is G[v', v] = Σ_h Z[h + i, v'] m[c, h, v],
(8 + 2p × H) times (H × 8); the pairs v' = v + j lie on the diagonals of G, one diagonal for each j.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from npattn.attention.spatial import Params
from npattn.backend import Array
from npattn.checks import floating, odd, same_shape, shaped
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


BAND = 8  # columns


def padded(m: Array, k: int) -> Array:
    """Z of maps m (n, C, H, W): (n, H + 2p, C, W + 2p)."""
    n, C, H, W = m.shape
    p = k // 2
    Z = threads.scratch("padded", (n, H + 2 * p, C, W + 2 * p), m.dtype)
    Z[:, :p] = Z[:, p + H :] = 0
    inner = Z[:, p : p + H]
    inner[..., :p] = inner[..., p + W :] = 0
    inner[..., p : p + W] = m.swapaxes(1, 2)
    return Z


def correlate(Z: Array, w: Array, out: Array) -> None:
    """Write the rows of w ∗ m that the rows of Z are enough for; w (C, k, k), out (n, h, W), Z of h + 2p rows."""
    (C, k, _), (n, h, W) = w.shape, out.shape
    kernel = np.ascontiguousarray(w.transpose(2, 1, 0)).reshape(k, k * C)  # j by (i, c)
    seen = as_strided(Z, (n, h, k * C, Z.shape[3]), Z.strides, writeable=False)  # from row h on: k rows of each map
    R = np.matmul(kernel, seen, out=threads.scratch("rows", (n, h, k, Z.shape[3]), Z.dtype))
    out[...] = R[:, :, 0, :W]
    for j in range(1, k):
        out += R[:, :, j, j : j + W]


def diagonals(Z: Array, m: Array, k: int) -> Array:
    """Σ_{n,h,v} m[n, c, h, v] Z[n, h + i, v + j] for every c, i, j: (C, k, k). m (n, C, h, W), Z (n, h + 2p, W + 2p)."""
    n, C, h, W = m.shape
    (z, zh, zv), (s, sc, sh, sv) = Z.strides, m.strides
    total = np.zeros((C, k, k), dtype=m.dtype)
    whole = W - W % BAND
    for start, bands, b in ((0, whole // BAND, BAND), (whole, 1, W - whole)):  # the last band is what is left
        if not bands or not b:
            continue
        shape, strides = (n, 1, k, bands, b + k - 1, h), (z, 0, zh, zv * b, zv, zh)
        left = as_strided(Z[:, :, start:], shape, strides, writeable=False)  # for i and a band: v' by h
        right = as_strided(m[..., start:], (n, C, 1, bands, h, b), (s, sc, 0, sv * b, sh, sv), writeable=False)
        G = np.matmul(left, right).sum(axis=(0, 3))  # (C, k, v', v)
        g = G.strides
        total += as_strided(G, (C, k, k, b), (g[0], g[1], g[2], g[2] + g[3]), writeable=False).sum(axis=3)
    return total


def row_blocks(n: int, H: int, W: int, k: int, itemsize: int) -> list[slice]:
    """Cut the rows of maps so that R of a block is a tile."""
    return tiles.rows(H, n * k * (W + k - 1) * itemsize)


def gate_forward(m: Array, w: Array) -> Array:
    """SA.4 and SA.5 for maps m (n, 2, H, W): the gate (n, P)."""
    n, _, H, W = m.shape
    k = w.shape[3]
    a = np.empty((n, H, W), dtype=m.dtype)
    blocks, Z = row_blocks(n, H, W, k, m.itemsize), padded(m, k)

    def block(b: int) -> None:
        h = blocks[b]
        correlate(Z[:, h.start : h.stop + k - 1], w[0], out=a[:, h])  # SA.4

    threads.spread(block, len(blocks))
    return maps.sigmoid(a.reshape(n, H * W))  # SA.5


def gate_backward(dg: Array, g: Array, m: Array, w: Array) -> tuple[Array, Array]:
    """dm (n, 2, P) and dw (1, 2, k, k) for dg (n, P)."""
    n, _, H, W = m.shape
    k = w.shape[3]
    # SA.5 was g = sigmoid(a)
    da = (dg * g * (1 - g)).reshape(n, 1, H, W)  # SA.5

    # SA.4 was a = w ∗ m. A pixel of m was seen through every place of the kernel: dm = w flipped ∗ da. The same padded
    # da has around each pixel of m what that pixel met in each place: its product with m is dw, flipped
    flipped = w[0, :, None, ::-1, ::-1]
    dm = np.empty((n, 2, H, W), dtype=m.dtype)
    blocks, Z = row_blocks(n, H, W, k, m.itemsize), padded(da, k)

    def block(b: int) -> Array:
        h = blocks[b]
        here = Z[:, h.start : h.stop + k - 1]
        for c in range(2):
            correlate(here, flipped[c], out=dm[:, c, h])  # SA.4
        return diagonals(here[:, :, 0], m[:, :, h], k)  # SA.4

    dw = sum(threads.spread(block, len(blocks)))  # (2, k, k)
    return dm.reshape(n, 2, H * W), dw[None, :, ::-1, ::-1].copy()


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The spatial gate of x, as `npattn.attention.spatial.forward` gives it, and with its errors."""
    (w,) = params
    floating(x=x, w=w)
    shaped("w", w, "1 2 k k", **{"1": 1, "2": 2, "k": odd("w (its last axis)", w.shape[-1])})
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
