"""Squeeze-and-excitation in two passes over x, and two more back.

    X (n, C, P·b)   dY, dX as X   w1 (R, C)   w2 (C, R)
    P = H·W, a group of n images, or one of b side by side (layout.py)

    forward                                                                     reads      writes
      SE.1         s = (1/P) Σ_pixels X, by BLAS                                x
      SE.2–SE.5    g, through the two FC                                        (n, C)
      SE.6         Y = X · g                                                    x          y

    backward
      SE.6         dg = Σ_pixels dY · X, row by row, by BLAS                    x, dy
      SE.5–SE.2    ds, dw1, dw2                                                 (n, C)
      SE.6, SE.1   dX = dY · g, and ds / P added while it is near               dy         dx

The second pass over an image follows the first at once, so that it finds the image in L3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.attention.se import Params
from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import check_takes, layout, maps, mlp, threads, tiles
from npattn.fused.threads import add_up
from npattn.ops.pooling import some_pixels

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C)
    fc: list[mlp.Cache]  # a group each


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every channel of x by its gate, as `npattn.attention.se.forward` does, and with its errors."""
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    some_pixels(x)
    check_takes(x=x)

    P, b = H * W, layout.beside(x)
    X, y, g = layout.planes(x), layout.output(x.shape, x.dtype, b), np.empty((N // b, C, b), dtype=x.dtype)
    Y, groups = layout.planes(y), tiles.images(N // b, C * P * b * x.itemsize)

    def group(index: int) -> mlp.Cache:
        n = groups[index]
        blocks = tiles.rows(C, X[n, 0].nbytes)
        s = np.empty_like(g[n])

        def squeeze(t: int) -> None:
            s[:, blocks[t]] = maps.image_sum(X[n, blocks[t]], b) / P  # SE.1

        threads.in_parallel(squeeze, len(blocks))
        a, fc = mlp.forward(layout.by_image(s), w1, w2)  # SE.2, SE.3, SE.4
        g[n] = layout.by_plane(maps.sigmoid(a), b)  # SE.5

        def scale(t: int) -> None:
            c = blocks[-1 - t]  # backwards: the last block read is still in the cache
            np.multiply(layout.pixels(X[n, c], b), g[n, c, None], out=layout.pixels(Y[n, c], b))  # SE.6

        threads.in_parallel(scale, len(blocks))
        return fc

    with maps.long_rows(P, b):
        caches = threads.in_parallel(group, len(groups))
    return y, Cache(x, layout.by_image(g), caches)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2), as `npattn.attention.se.backward` does, and with its errors."""
    x, g, caches = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    N, C, H, W = x.shape
    P, b = H * W, layout.beside(x)
    dx, g = layout.output(x.shape, x.dtype, b), layout.by_plane(g, b)
    X, dY, dX = layout.planes(x), layout.planes(layout.alike(dy, b)), layout.planes(dx)
    groups = tiles.images(N // b, C * P * b * x.itemsize)

    def group(index: int) -> tuple[Array, Array]:
        n = groups[index]
        blocks = tiles.rows(C, 4 * X[n, 0].nbytes)  # dX is written and added to: no more of it than stays near
        dg = np.empty_like(g[n])

        def gate(t: int) -> None:
            dg[:, blocks[t]] = maps.image_dot(X[n, blocks[t]], dY[n, blocks[t]], b)  # SE.6

        threads.in_parallel(gate, len(blocks))
        da = dg * g[n] * (1 - g[n])  # SE.5
        ds, dw1, dw2 = mlp.backward(layout.by_image(da), caches[index])  # SE.4, SE.3, SE.2
        share = layout.by_plane(ds, b) / P

        def both(t: int) -> None:
            c = blocks[-1 - t]
            dX_c = layout.pixels(dX[n, c], b)
            np.multiply(layout.pixels(dY[n, c], b), g[n, c, None], out=dX_c)  # SE.6
            dX_c += share[:, c, None]  # SE.1

        threads.in_parallel(both, len(blocks))
        return dw1, dw2

    with maps.long_rows(P, b):
        dw1, dw2 = add_up(threads.in_parallel(group, len(groups)))
    return dx, Params(dw1, dw2)
