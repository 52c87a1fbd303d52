"""Convolution as products of large matrices that read rows of the padded images where they lie.

    x (N, C, H, W)   w (M, C, k, k)   p = k // 2   V = W + p   a group of n images

    CONV.1   Z[h, c, p + ν V + v] = x[ν, c, h − p, v], else 0     (H + 2p, C, n·V + p)

The images of a group stand beside each other, with p zeros between their rows: what sticks out of an image at the left
or at the right are zeros. The rows of the channels take turns, so that all that an output row sees, k rows of each
channel, is one matrix in memory, Z[h : h + k] read as (k·C, n·V + p). One product a row takes the kernel's rows
together (i); its columns (j) are k shifted rows:

    CONV.2, CONV.3   R[h, (j, m), t] = Σ_{i,c} w[m, c, i, j] Z[h + i, c, t]    (k·M × k·C) times (k·C × n·V + p)
    CONV.3, CONV.4   y[ν, m, h, v]   = Σ_j R[h, (j, m), ν V + v + j] + b[m]

Where C < M it is cheaper to move before the product: the k moved copies of Z's rows stand as k·C rows more, one product
(M × k·k·C) times (k·k·C × n·V − p) takes the whole kernel, and nothing is left to add. Not so for M < 8: BLAS is slow
with so few rows.

Backward, with Z and the same of dy, D. A pixel of x was seen through every place of the kernel, so dx is dy convolved
with the kernel flipped and its two channel axes exchanged. dw is what the places saw times dy, a product for each row:

    CONV.3, CONV.2   dw[m, c, i, j] = Σ_h Σ_t Z[h + i, c, t + j] D[h + p, m, t + p]

where D's zeros leave out all t that belong to no image. Groups, and blocks of rows, are cut so that R is a quarter of a
tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape, shaped
from npattn.fused import contiguous, maps, taken, threads, tiles
from npattn.fused.memory import output
from npattn.ops.conv2d import Params

__all__ = ["Cache", "Params", "backward", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    params: Params


def view(a: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The numbers of a contiguous array under another shape and other strides, which may overlap."""
    return np.ndarray(shape, a.dtype, buffer=a, strides=strides)


def padded(x: Array, k: int, rows: slice, name: str) -> Array:
    """CONV.1 for a group x (n, C, H, W): what the output rows `rows`, h of them, see. Z (h + 2p, C, n·V + p)."""
    n, C, H, W = x.shape
    p, h = k // 2, rows.stop - rows.start
    above, below = max(0, p - rows.start), max(0, rows.stop + p - H)
    Z = threads.scratch(name, (h + 2 * p, C, n * (W + p) + p), x.dtype)
    Z[:above] = Z[h + 2 * p - below :] = 0
    inner = Z[above : h + 2 * p - below]
    inner[:, :, :p] = 0
    images = inner[:, :, p:].reshape(-1, C, n, W + p)
    images[..., W:] = 0
    seen = x[:, :, rows.start - p + above : rows.stop + p].transpose(2, 1, 0, 3)
    maps.whole_rows(images[..., :W])[...] = maps.whole_rows(seen)
    return Z


def correlate(Z: Array, w: Array, n: int, W: int) -> Array:
    """CONV.2 and CONV.3: w ∗ x, (h, M, n, W), for Z (h + 2p, C, n·V + p); the next call takes its memory."""
    M, C, k, _ = w.shape
    h, T, V = Z.shape[0] - k + 1, Z.shape[2], W + k // 2
    L = T - 2 * (k // 2)  # after the last column that belongs to an image
    y = threads.scratch("sum", (h, M, n * V), Z.dtype)
    if C < M and M >= 8:  # fewer rows to move before the product than after it
        moved = threads.scratch("product", (Z.shape[0], k, C, L), Z.dtype)
        for j in range(k):
            moved[:, j] = Z[:, :, j : j + L]
        kernel = np.ascontiguousarray(w.transpose(0, 2, 3, 1)).reshape(M, k * k * C)  # m by (i, j, c)
        seen = view(moved, (h, k * k * C, L), (moved.strides[0], *moved.strides[2:]))
        np.matmul(kernel, seen, out=y[:, :, :L])
    else:
        kernel = np.ascontiguousarray(w.transpose(3, 0, 2, 1)).reshape(k * M, k * C)  # (j, m) by (i, c)
        seen = view(Z, (h, k * C, T), Z.strides)
        R = np.matmul(kernel, seen, out=threads.scratch("product", (h, k * M, T), Z.dtype))
        row, part, place = R.strides
        moved = view(R, (h, k, M, L), (row, M * part + place, part, place))  # a part, a place
        np.add.reduce(moved, axis=1, out=y[:, :, :L])
    return y.reshape(h, M, n, V)[..., :W]


def kernel_gradient(Z: Array, D: Array, k: int) -> Array:
    """CONV.3 and CONV.2 back: dw (M, C, k, k) from Z (h + 2p, C, n·V + p) and D (h + 2p, M, n·V + p)."""
    p, C, M = k // 2, Z.shape[1], D.shape[1]
    h, L = Z.shape[0] - 2 * p, Z.shape[2] - 2 * p
    row, channel, place = Z.strides
    seen = view(Z, (h, k, k * C, L), (row, place, channel, place))  # j, (i, c), t
    dw = np.matmul(seen, D[p : p + h, None, :, p : p + L].mT).sum(axis=0)
    return np.ascontiguousarray(dw.reshape(k, k, C, M).transpose(3, 2, 1, 0))


def cut(x: Array, w: Array, apart: bool) -> list[tuple[slice, slice]]:
    """Groups of images, and blocks of rows of large images, so that R fits a quarter of a tile.

    Within a group of a block's (not `apart`) the work is one thread's already: no more parts than that needs.
    """
    (N, C, H, W), (M, _, k, _) = x.shape, w.shape
    row_bytes = k * max(M, C) * (W + k // 2) * x.itemsize
    images = tiles.images(N, 2 * H * row_bytes) if apart else tiles.rows(N, 4 * H * row_bytes)
    return [(n, rows) for n in images for rows in tiles.rows(H, 4 * row_bytes)]


def convolve(x: Array, w: Array, b: Array | None = None, apart: bool = False) -> Array:
    """`forward` without its checks: the blocks that have convolutions call it for a group."""
    (N, _, H, W), (M, _, k, _) = x.shape, w.shape
    y = output((N, M, H, W), x.dtype)
    parts = cut(x, w, apart)

    def part(index: int) -> None:
        n, rows = parts[index]
        Z = padded(x[n], k, rows, "padded")  # CONV.1
        y_rows = correlate(Z, w, n.stop - n.start, W).transpose(2, 1, 0, 3)  # CONV.2, CONV.3
        if b is None:
            maps.whole_rows(y[n, :, rows])[...] = maps.whole_rows(y_rows)
        else:
            np.add(y_rows, b[:, None, None], out=y[n, :, rows])  # CONV.4

    threads.spread(part, len(parts))
    return y


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Slide the kernel over every image, as `npattn.ops.conv2d.forward` does, and with its errors."""
    w, b = params
    floating(x=x, w=w, b=b)
    M, C, _, _ = odd_kernel("w", w, "M C k k")
    shaped("x", x, "N C H W", C=C)
    if b is not None:
        shaped("b", b, "M", M=M)
    taken(x=x)

    return convolve(x, w, b, apart=True), Cache(x, params)


def convolve_back(
    dy: Array, x: Array, w: Array, b: Array | None = None, apart: bool = False
) -> tuple[Array, Array, Array | None]:
    """dx, dw and db: `backward` without its checks, for a contiguous dy."""
    W, k = x.shape[3], w.shape[3]
    dx = output(x.shape, x.dtype)
    parts = cut(x, w, apart)
    flipped = w[:, :, ::-1, ::-1].swapaxes(0, 1)

    def part(index: int) -> tuple[Array, ...]:
        n, rows = parts[index]
        D = padded(dy[n], k, rows, "d padded")

        # CONV.3 was y = w u, and u (CONV.2) the pixels in each place of the kernel: each factor receives dy times the
        # other. CONV.1 put zeros around x: what would arrive at them is not computed
        dw = kernel_gradient(padded(x[n], k, rows, "padded"), D, k)  # CONV.3, CONV.2
        dx_rows = correlate(D, flipped, n.stop - n.start, W).transpose(2, 1, 0, 3)  # CONV.3, CONV.2, CONV.1
        maps.whole_rows(dx[n, :, rows])[...] = maps.whole_rows(dx_rows)

        # CONV.4 broadcast b over images and pixels: its gradient is the sum over both
        return (dw,) if b is None else (dw, dy[n, :, rows].sum(axis=(0, 2, 3)))  # CONV.4

    dw, *db = threads.add_up(threads.spread(part, len(parts)))
    return dx, dw, db[0] if db else None


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, db), as `npattn.ops.conv2d.backward` does, and with its errors."""
    x, (w, b) = cache
    floating(dy=dy, x=x)
    N, _, H, W = x.shape
    same_shape("dy", dy, (N, w.shape[0], H, W), "the output y")
    dx, dw, db = convolve_back(contiguous(dy), x, w, b, apart=True)
    return dx, Params(dw, db)
