"""Convolution as products of large matrices, with the unfolding kept in a cache and made of long rows.

    x (N, C, H, W)   w (M, C, k, k)   p = k // 2   V = W + p: the length of a padded row   K = C·k·k

Rows are laid one after the other with p zeros between them: what sticks out at the right of a row are the zeros, and
what sticks out at the left are those of the row above. So moving the whole image by one place in the kernel is moving
one long row of numbers, and the copies of CONV.2 are of whole images instead of rows.

    CONV.1   x̄[c, n, (h, v)]                     (C, n, (H + 2p) V + 2p)
    CONV.2   u[(c, i, j), n, l] = x̄[c, n, i V + j + l]       (K, n·L)   L = H·V, for a group of n images
    CONV.3   y = w u                              (M, n·L)   one product; the p numbers between the rows are left out
    CONV.4   y = y + b

Backward, for the same groups: u is made again, which costs less than keeping it; dw = dy uᵀ and du = wᵀ dy are one
product each, with zeros in dy between the rows; and du's k² long rows are added up where they came from.
Groups, and blocks of rows of large images, are cut so that u fits the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape, shaped
from npattn.fused import contiguous, taken, threads, tiles
from npattn.fused.memory import output
from npattn.ops.conv2d import Params

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    params: Params


def padded(x: Array, p: int) -> Array:
    """CONV.1 for a group x (n, C, H, W): (C, n, (H + 2p)·V + 2p), rows of length V = W + p."""
    n, C, H, W = x.shape
    V = W + p
    x_bar = threads.scratch("padded", (C, n, (H + 2 * p) * V + 2 * p), x.dtype)
    x_bar[:, :, : p * V + p] = 0
    x_bar[:, :, (H + p) * V + p :] = 0
    image = x_bar[:, :, p * V + p : (H + p) * V + p].reshape(C, n, H, V)
    image[:, :, :, :W] = x.transpose(1, 0, 2, 3)
    image[:, :, :, W:] = 0
    return x_bar


def unfold(x_bar: Array, k: int, V: int, rows: slice) -> Array:
    """CONV.2 for the output rows `rows` of a group: u (K, n·L)."""
    C, n, _ = x_bar.shape
    L, start = (rows.stop - rows.start) * V, rows.start * V
    u = threads.scratch("unfolded", (C, k, k, n, L), x_bar.dtype)
    for i in range(k):
        for j in range(k):
            u[:, i, j] = x_bar[:, :, start + i * V + j : start + i * V + j + L]
    return u.reshape(C * k * k, n * L)


def cut(shape: tuple[int, ...], k: int, itemsize: int) -> tuple[list[slice], list[slice]]:
    """Groups of images, and blocks of rows, so that u fits a tile."""
    N, C, H, W = shape
    row_bytes = C * k * k * (W + k // 2) * itemsize
    return tiles.images(N, H * row_bytes // 2), tiles.rows(H, row_bytes)


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Slide the kernel over every image, as `npattn.ops.conv2d.forward` does, and with its errors."""
    w, b = params
    floating(x=x, w=w, b=b)
    M, C, k, _ = odd_kernel("w", w, "M C k k")
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if b is not None:
        shaped("b", b, "M", M=M)
    taken(x=x)

    V = W + k // 2
    y = output((N, M, H, W), x.dtype)
    groups, blocks = cut(x.shape, k, x.itemsize)
    w_rows = w.reshape(M, C * k * k)

    def group(index: int) -> None:
        x_bar = padded(x[groups[index]], k // 2)  # CONV.1
        for rows in blocks:
            u = unfold(x_bar, k, V, rows)  # CONV.2
            y_rows = np.matmul(w_rows, u, out=threads.scratch("product", (M, u.shape[1]), x.dtype))  # CONV.3
            y_rows = y_rows.reshape(M, -1, rows.stop - rows.start, V)[:, :, :, :W].transpose(1, 0, 2, 3)
            if b is None:
                y[groups[index], :, rows] = y_rows
            else:
                np.add(y_rows, b[:, None, None], out=y[groups[index], :, rows])  # CONV.4

    threads.spread(group, len(groups))
    return y, Cache(x, params)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, db), as `npattn.ops.conv2d.backward` does, and with its errors."""
    x, (w, b) = cache
    floating(dy=dy, x=x)
    N, C, H, W = x.shape
    M, _, k, _ = w.shape
    same_shape("dy", dy, (N, M, H, W), "the output y")

    dy = contiguous(dy)
    p, V = k // 2, W + k // 2
    dx = output(x.shape, x.dtype)
    groups, blocks = cut(x.shape, k, x.itemsize)
    w_rows = w.reshape(M, C * k * k)

    def group(index: int) -> tuple[Array, Array]:
        n = groups[index]
        x_bar = padded(x[n], p)  # CONV.1
        dx_bar = threads.scratch("d padded", x_bar.shape, x.dtype)
        dx_bar[...] = 0
        dw, db = np.zeros((M, C * k * k), dtype=x.dtype), np.zeros(M, dtype=x.dtype)
        for rows in blocks:
            u = unfold(x_bar, k, V, rows)  # CONV.2
            dy_rows = threads.scratch("dy", (M, x[n].shape[0], rows.stop - rows.start, V), x.dtype)
            dy_rows[:, :, :, :W] = dy[n, :, rows].transpose(1, 0, 2, 3)
            dy_rows[:, :, :, W:] = 0
            dy_rows = dy_rows.reshape(M, -1)

            # CONV.4 broadcast b over images and pixels: its gradient is the sum over both
            if b is not None:
                db += dy_rows @ np.ones(dy_rows.shape[1], dtype=x.dtype)  # CONV.4

            # CONV.3 was y = w u: each factor receives dy times the other
            dw += dy_rows @ u.T  # CONV.3
            du = np.matmul(
                w_rows.T, dy_rows, out=threads.scratch("unfolded", u.shape, x.dtype)
            )  # CONV.3, u is done with

            # CONV.2 copied x̄ once for each place in the kernel: the copies' gradients add up where they came from
            L, start = (rows.stop - rows.start) * V, rows.start * V
            du = du.reshape(C, k, k, -1, L)
            for i in range(k):
                for j in range(k):
                    dx_bar[:, :, start + i * V + j : start + i * V + j + L] += du[:, i, j]  # CONV.2

        # CONV.1 put zeros around x: what arrived at them is nobody's
        image = dx_bar[:, :, p * V + p : (H + p) * V + p].reshape(C, -1, H, V)
        dx[n] = image[:, :, :, :W].transpose(1, 0, 2, 3)  # CONV.1
        return dw, db

    dw, db = threads.add_up(threads.spread(group, len(groups)))
    return dx, Params(dw.reshape(w.shape), None if b is None else db)
