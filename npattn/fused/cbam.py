"""CBAM in three passes over memory, and three back.

    X (n, C, P·b)   Y, U, dY, dX as X   g_c (n, C, b)   g_s (n, P·b)
    P = H·W, a group of n images, or one of b side by side (layout.py)
    a tile: some pixels of all channels; what is formed of a tile stays in the cache

    forward                                                                           reads       writes
      rows   CBAM.1          g_c, from the means and maxima over the pixels           x
      tile   CBAM.2          U = X · g_c, where Y will be                             x           u
             CBAM.3 (SA.1–2) m_avg, m_max and its first channel i                                 two maps
      maps   CBAM.3 (SA.4–5) g_s, through the convolution                             maps        a map
      tile   CBAM.4          Y = U · g_s                                              u           y

    backward
      tile   CBAM.4          dg_s = Σ_c g_c · (X · dY)                                x, dy
      maps   CBAM.3 (SA.5–4) dm_avg, dm_max, dw, through the convolution              maps        maps
      tile   CBAM.4, CBAM.3  dU = dY · g_s + dm_avg / C, plus dm_max at channel i,
                             where dX will be                                         dy          du
             CBAM.2          dg_c = Σ_pixels X · dU                                   x
             CBAM.1 (CA.6–3) ds_avg, ds_max, dw1, dw2, through the MLP                (n, C)
      tile   CBAM.2, CBAM.1  dX = dU · g_c + ds_avg / P                               du          dx
             CBAM.1 (CA.2)   plus ds_max at the largest pixel of each channel

Neither U nor dU takes memory of its own; X · dY is never more than a tile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from npattn.attention.cbam import Params
from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape, shaped
from npattn.fused import channel, check_takes, layout, maps, needed, scratch, spatial, threads, tiles
from npattn.fused.threads import add_up
from npattn.grad_mode import keeps_cache
from npattn.ops.pooling import some_pixels

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_c: Array  # (N, C, 1, 1)
    g_s: Array  # (N, 1, H, W)
    m: Array  # (a, 2, P·b), the maps of u
    i: Array | None  # (a, P·b), the first channel of u that is largest, in a byte if that is enough
    w: Array  # (1, 2, k, k)
    ca: list[channel.Group]


def cut(X: Array, b: int, arrays: int) -> tuple[list[slice], list[slice]]:
    """Groups of images, and within a group tiles of whole pixels, shared by so many arrays of X's shape."""
    a, C, L = X.shape
    tiles_of_pixels = tiles.pixels(L // b, arrays * C * b * X.itemsize, multiple=math.ceil(64 / b))
    return tiles.images(a, C * L * X.itemsize), [slice(q.start * b, q.stop * b) for q in tiles_of_pixels]


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale x by its two gates, as `npattn.attention.cbam.forward` does, and with its errors."""
    (w1, w2), (w,) = params
    floating(x=x, w1=w1, w2=w2, w=w)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    shaped("x", x, "N C H W", C=C)
    N, C, H, W = some_pixels(x)
    odd_kernel("w", w, "1 2 k k")
    check_takes(x=x)

    b, y = layout.beside(x), layout.output(x.shape, x.dtype, layout.beside(x))
    X, Y = layout.planes(x), layout.planes(y)
    a, _, L = X.shape
    g_c, g_s = np.empty((a, C, b), dtype=x.dtype), np.empty((a, L), dtype=x.dtype)
    m = np.empty((a, 2, L), dtype=x.dtype)
    keep = keeps_cache()
    i = np.empty((a, L), dtype=np.min_scalar_type(C - 1)) if keep else None
    groups, columns = cut(X, b, arrays=2)  # x, u

    def group(index: int) -> channel.Group:
        n = groups[index]
        ca = channel.gate_forward(X[n], params.ca, b, keep)  # CBAM.1
        g_c[n] = ca.g

        def attend(t: int) -> None:
            q = columns[t]
            U = Y[n, :, q]
            np.multiply(layout.pixels(X[n, :, q], b), g_c[n, :, None], out=layout.pixels(U, b))  # CBAM.2
            maps.channel_mean_max(U, m[n, 0, q], m[n, 1, q], None if i is None else i[n, q])  # CBAM.3

        threads.in_parallel(attend, len(columns))
        g_s[n] = spatial.gate_forward(m[n], w, H, b)  # CBAM.3

        def scale(t: int) -> None:
            q = columns[-1 - t]  # backwards: what was read last is still in the cache
            maps.each_channel(np.multiply, Y[n, :, q], g_s[n, q], out=Y[n, :, q])  # CBAM.4

        threads.in_parallel(scale, len(columns))
        return ca

    with maps.long_rows(H * W, b):
        caches = threads.in_parallel(group, len(groups))
    gates = layout.by_image(g_c)[:, :, None, None], layout.images(g_s, (N, 1, H, W), b)
    return y, Cache(x, *gates, m, i, w, caches)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dca, dsa), as `npattn.attention.cbam.backward` does, and with its errors."""
    x, g_c, g_s, m, i, w, caches = cache
    i = needed(i)
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    N, C, H, W = x.shape
    b, dx = layout.beside(x), layout.output(x.shape, x.dtype, layout.beside(x))
    X, dY, dX = layout.planes(x), layout.planes(layout.alike(dy, b)), layout.planes(dx)
    a, _, L = X.shape
    G_c, G_s = layout.by_plane(g_c.reshape(N, C), b), layout.flat(g_s).reshape(a, L)
    groups, columns = cut(X, b, arrays=3)  # x, dy, x·dy; x, dy, du

    def group(index: int) -> tuple[Array, Array, Array]:
        n = groups[index]
        dg_s = np.empty_like(G_s[n])

        # CBAM.4 was y = u · g_s, with CBAM.2's u = x · g_c: a pixel's gate receives dy · u from all channels
        def gate(t: int) -> None:
            q = columns[t]
            x_q = X[n, :, q]
            XdY = np.multiply(x_q, dY[n, :, q], out=scratch.get("product", x_q.shape, x_q.dtype))
            maps.channel_dot(XdY, G_c[n], b, out=dg_s[:, q])  # CBAM.4

        threads.in_parallel(gate, len(columns))

        # CBAM.3 made g_s from u, the second way on which u reached y
        dm, dw = spatial.gate_backward(dg_s, G_s[n], m[n], w, H, b)  # CBAM.3
        dm[:, 0] /= C
        places = maps.places(i[n], C, L, 0)

        # CBAM.2 was u = x · g_c: each factor receives du times the other
        def attended(t: int) -> Array:
            q = columns[-1 - t]  # backwards, here too
            dU = dX[n, :, q]
            maps.each_channel(np.multiply, dY[n, :, q], G_s[n, q], out=dU)  # CBAM.4
            maps.each_channel(np.add, dU, dm[:, 0, q], out=dU)  # CBAM.3
            maps.add_at(dX[n], places[:, q], dm[:, 1, q])  # CBAM.3
            return maps.image_dot(X[n, :, q], dU, b)  # CBAM.2

        dg_c = maps.sum_of_pieces(iter(threads.in_parallel(attended, len(columns))))

        # CBAM.1 made g_c from x, the second way on which x reached u
        (ds_avg, ds_max), dca = channel.gate_backward(dg_c, caches[index])  # CBAM.1
        share = ds_avg / (H * W)

        def tile(t: int) -> None:
            dU = layout.pixels(dX[n, :, columns[t]], b)
            dU *= G_c[n, :, None]  # CBAM.2
            dU += share[:, :, None]  # CBAM.1

        threads.in_parallel(tile, len(columns))
        maps.add_at(dX[n], needed(caches[index].place), ds_max)  # CBAM.1
        return dca.w1, dca.w2, dw

    with maps.long_rows(H * W, b):
        dw1, dw2, dw = add_up(threads.in_parallel(group, len(groups)))
    return dx, Params(channel.Params(dw1, dw2), spatial.Params(dw))
