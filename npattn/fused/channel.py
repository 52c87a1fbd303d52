"""Channel attention: x is read once, and dx written once.

X (n, C, P·b)   w1 (R, C)   w2 (C, R)      P = H·W, a group of n images, or one of b side by side (layout.py)

forward                                                                            reads      writes
  CA.1, CA.2   s_avg = (1/P) Σ_pixels X, s_max and its first pixel i               x
  CA.3–CA.6    g, through the shared MLP, both descriptors in one product          (2, n, C)

backward
  CA.6–CA.3    ds_avg, ds_max, dw1, dw2, the sums over both uses in one product    (2, n, C)
  CA.1, CA.2   dX = ds_avg / P everywhere, plus ds_max at pixel i                             dx
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.attention.channel import Params
from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import check_takes, layout, maps, mlp, needed, threads, tiles
from npattn.fused.threads import add_up
from npattn.grad_mode import keeps_cache
from npattn.ops.pooling import some_pixels
from npattn.ops.sigmoid import Cache as SigmoidCache

__all__ = ["Cache", "Params", "backward", "forward"]


class Group(NamedTuple):
    place: Array | None  # (n, C, b), of the first pixel that is largest, in X read as one row
    fc: mlp.Cache  # of s (2, n·b, C): s_avg, s_max
    g: Array  # (n, C, b)


class Cache(NamedTuple):
    groups: list[Group]
    gate: SigmoidCache  # the gate (N, C)
    shape: tuple[int, int, int, int]  # of x
    b: int  # images side by side


def gate_forward(X: Array, params: Params, b: int, keep: bool) -> Group:
    """CA.1 to CA.6 for a group X (n, C, P·b); `keep` the places of the maxima for a backward."""
    s = np.empty((2, *X.shape[:2], b), dtype=X.dtype)
    place = maps.pixel_mean_max(X, b, s[0], s[1], keep)  # CA.1, CA.2
    (a_avg, a_max), fc = mlp.forward(layout.by_image(s), *params)  # CA.3, CA.4
    g = maps.sigmoid(a_avg + a_max)  # CA.5, CA.6
    return Group(place, fc, layout.by_plane(g, b))


def gate_backward(dg: Array, group: Group) -> tuple[Array, Params]:
    """ds (2, n, C, b), of the average and of the maximum, and the gradients (dw1, dw2) for dg (n, C, b)."""
    b = dg.shape[2]
    # CA.6 was g = sigmoid(a), CA.5 a sum: each term receives all of da
    da = np.empty((2, *dg.shape), dtype=dg.dtype)
    da[:] = dg * group.g * (1 - group.g)  # CA.6, CA.5
    # CA.4 and CA.3 used the same w1 and w2: the product over the rows of both adds the gradients of both uses
    ds, *grads = mlp.backward(layout.by_image(da), group.fc)  # CA.4, CA.3
    return layout.by_plane(ds, b), Params(*grads)


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The channel gate of x, as `npattn.attention.channel.forward` gives it, and with its errors."""
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, C = shaped("w1", w1, "R C")
    shaped("w2", w2, "C R", C=C, R=R)
    shaped("x", x, "N C H W", C=C)
    N, C, H, W = some_pixels(x)
    check_takes(x=x)

    X, b, keep = layout.planes(x), layout.beside(x), keeps_cache()
    groups = tiles.images(N // b, C * H * W * b * x.itemsize)
    caches = threads.in_parallel(lambda index: gate_forward(X[groups[index]], params, b, keep), len(groups))
    g = layout.by_image(np.concatenate([group.g for group in caches]))
    return g[:, :, None, None], Cache(caches, SigmoidCache(g.copy()), (N, C, H, W), b)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2), as `npattn.attention.channel.backward` does, and with its errors."""
    caches, (g,), (N, C, H, W), b = cache
    floating(dg=dg, g=g)
    same_shape("dg", dg, (N, C, 1, 1), "the output gate")

    P = H * W
    dG = layout.by_plane(dg.reshape(N, C), b)
    dx = layout.output((N, C, H, W), dg.dtype, b)
    dX = layout.planes(dx)
    groups = tiles.images(N // b, C * P * b * dx.itemsize)

    def group(index: int) -> Params:
        n = groups[index]
        (ds_avg, ds_max), grads = gate_backward(dG[n], caches[index])  # CA.6 to CA.3
        layout.pixels(dX[n], b)[...] = ds_avg[:, :, None] / P  # CA.1: all pixels receive the same share
        maps.add_at(dX[n], needed(caches[index].place), ds_max)  # CA.2: one pixel receives everything
        return grads

    dw1, dw2 = add_up(threads.in_parallel(group, len(groups)))
    return dx, Params(dw1, dw2)
