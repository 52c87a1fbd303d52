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
with so few rows, unless they are taken one by one, as products of a vector and a matrix. For C ≤ 2, as in the
convolution of the two maps, and back, that is the fastest.

Where C is smaller still, k·k·C ≤ k·C + M, as in a network's first layer, it is cheapest to move all that the k·k places
see, unless an image has fewer pixels than that is rows. The product then makes y where it is to lie, image by image:

    CONV.2, CONV.3   U[ν, (c, i, j), (h, v)] = x[ν, c, h + i − p, v + j − p], else 0        y[ν] = w U[ν] + b

Backward, with Z and the same of dy, D. A pixel of x was seen through every place of the kernel, so dx is dy convolved
with the kernel flipped and its two channel axes exchanged. dw is what the places saw times dy, a product for each row:

    CONV.3, CONV.2   dw[m, c, i, j] = Σ_h Σ_t Z[h + i, c, t + j] D[h + p, m, t + p]

where D's zeros leave out all t that belong to no image. These products too take k moved copies, one product a row
instead of k: of Z, or where D has fewer channels, or fewer than 8, of D:

    CONV.3, CONV.2   dw[m, c, 2p − i, 2p − j] = Σ_h Σ_t D[h + i, m, t + j] Z[h + p, c, t + p]

(of one image, x's own rows do for the middle of Z). Where there is U, dw = Σ_ν dy[ν] U[ν]ᵀ.

b images side by side (layout.py) are one image here whose pixels are b numbers each: a step to the next pixel is one of
b numbers, and W and p along a row are W·b and p·b. Nothing else changes. Of 64 images, rows of 7 pixels become rows of
448 numbers, without zeros between images. Moving is cheap there: the k copies are made where C = M as well.

Groups, and blocks of rows, are cut so that R, or U, is a quarter of a tile; within a group of another block's, half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, odd_kernel, same_shape, shaped
from npattn.fused import check_takes, layout, maps, scratch, threads, tiles
from npattn.fused.blas import blas_held
from npattn.fused.memory import output
from npattn.ops.conv2d import Params

__all__ = ["Cache", "Params", "backward", "backward_params", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    params: Params


# In what follows x, y and their gradients have rows of W numbers, of b side by side each pixel: W is W·b there.


def view(a: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The numbers of a contiguous array under another shape and other strides, which may overlap."""
    return np.ndarray(shape, a.dtype, buffer=a, strides=strides)


def product(A: Array, B: Array, out: Array) -> None:
    """out (h, K, L) = A (K, I) times each B (h, I, L): row by row of A if these are few."""
    if len(A) >= 8:
        np.matmul(A, B, out=out)
    else:
        np.matmul(A[:, None, None], B, out=out[:, :, None].swapaxes(0, 1))


def padded(x: Array, k: int, rows: slice, name: str, b: int) -> Array:
    """CONV.1 for a group x (n, C, H, W): what the output rows `rows`, h of them, see. Z (h + 2p, C, n·V + p)."""
    n, C, H, W = x.shape
    p, h = k // 2, rows.stop - rows.start
    above, below, edge = max(0, p - rows.start), max(0, rows.stop + p - H), p * b
    Z = scratch.get(name, (h + 2 * p, C, n * (W + edge) + edge), x.dtype)
    inner = Z[above : h + 2 * p - below]
    images = inner[:, :, edge:].reshape(-1, C, n, W + edge)
    if C <= 2:  # little: one call takes less time than four
        Z[...] = 0
    else:
        Z[:above] = Z[h + 2 * p - below :] = 0
        inner[:, :, :edge] = 0
        images[..., W:] = 0
    seen = x[:, :, rows.start - p + above : rows.stop + p].transpose(2, 1, 0, 3)
    maps.whole_rows(images[..., :W])[...] = maps.whole_rows(seen)
    return Z


def moved(Z: Array, k: int, b: int) -> Array:
    """CONV.2 as a matrix for each output row, (h, k·k·C, n·V − p): what the places (i, j, c) of the kernel see.

    Only the k copies that j takes are made; the rows that i takes turns through are read where they lie.
    """
    rows, C, T = Z.shape
    L = T - 2 * (k // 2) * b
    row, channel, number = Z.strides
    copies = scratch.get("product", (rows, k, C, L), Z.dtype)
    copies[...] = view(Z, copies.shape, (row, b * number, channel, number))
    row, _, channel, number = copies.strides
    return view(copies, (rows - k + 1, k * k * C, L), (row, channel, number))


def middle(Z: Array, k: int, b: int) -> Array:
    """Of Z (h + 2p, C, n·V + p) the rows and columns that the middle of the kernel sees, (h, C, n·V − p)."""
    p = k // 2
    return Z[p : len(Z) - p, :, p * b : Z.shape[2] - p * b]


def moves(C: int, M: int, b: int) -> bool:
    """Whether the rows of C channels are moved before the product, k·C of them, and not those of M after it."""
    return (C < M or (C == M and b > 1)) if M >= 8 else C <= 2


def few(C: int, M: int, k: int, P: int) -> bool:
    """Whether U is to be made: its k·k·C rows are no more than k·C moved ones of Z and the M of y, moved at the end.

    Nor more than the P numbers of an image's channel: dw is made for each image first. With k = 1 there is nothing to
    move.
    """
    return k > 1 and k * k * C <= min(k * C + M, P)


def columns(x: Array, k: int, rows: slice, b: int) -> Array:
    """U for the output rows `rows`, h of them, of a group x (n, C, H, W): (n, C·k·k, h·W)."""
    n, C, H, W = x.shape
    p, h = k // 2, rows.stop - rows.start
    above, below, edge = max(0, p - rows.start), max(0, rows.stop + p - H), p * b
    framed = scratch.get("padded", (n, C, h + 2 * p, W + 2 * edge), x.dtype)
    framed[:, :, :above] = framed[:, :, h + 2 * p - below :] = 0
    framed[..., :edge] = framed[..., W + edge :] = 0
    framed[:, :, above : h + 2 * p - below, edge : W + edge] = x[:, :, rows.start - p + above : rows.stop + p - below]
    image, channel, row, number = framed.strides
    whole_row = maps.void(W * number)
    U = scratch.get("product", (n, C, k, k, h), whole_row)
    U[...] = np.ndarray(U.shape, whole_row, buffer=framed, strides=(image, channel, row, b * number, row))
    return U.view(x.dtype).reshape(n, C * k * k, h * W)


def correlate(Z: Array, w: Array, y: Array, b: int, S: Array | None = None) -> None:
    """CONV.2 and CONV.3: y (n, M, h, W) = w ∗ x, for Z (h + 2p, C, n·V + p); S, if they are there, its moved copies."""
    (M, C, k, _), (n, _, h, W) = w.shape, y.shape
    T, V = Z.shape[2], W + k // 2 * b
    L = T - 2 * (k // 2) * b  # after the last column that belongs to an image
    out = y[0].swapaxes(0, 1) if n == 1 else scratch.get("sum", (h, M, n * V), Z.dtype)
    if moves(C, M, b):
        kernel = np.ascontiguousarray(w.transpose(0, 2, 3, 1)).reshape(M, k * k * C)  # m by (i, j, c)
        product(kernel, moved(Z, k, b) if S is None else S, out=out[:, :, :L])
    else:
        kernel = np.ascontiguousarray(w.transpose(3, 0, 2, 1)).reshape(k * M, k * C)  # (j, m) by (i, c)
        seen = view(Z, (h, k * C, T), Z.strides)
        R = np.matmul(kernel, seen, out=scratch.get("product", (h, k * M, T), Z.dtype))
        row, part, number = R.strides
        shifted = view(R, (h, k, M, L), (row, M * part + b * number, part, number))  # a part, a place
        if M < 8 or k == 1:
            np.add.reduce(shifted, axis=1, out=out[:, :, :L])
        else:  # faster one after the other
            np.add(shifted[:, 0], shifted[:, 1], out=out[:, :, :L])
            for j in range(2, k):
                out[:, :, :L] += shifted[:, j]
    if n > 1:
        maps.whole_rows(y)[...] = maps.whole_rows(out.reshape(h, M, n, V)[..., :W].transpose(2, 1, 0, 3))


def gradient(x: Array, dy: Array, rows: slice, k: int, b: int, D: Array | None = None, S: Array | None = None) -> Array:
    """CONV.3 and CONV.2 back: dw (M, C, k, k) for the rows of a group, from U, or from Z and D.

    D and its moved copies S are made here if they are not there.
    """
    (n, C, H, W), M = x.shape, dy.shape[1]
    if few(C, M, k, H * W):
        dY = dy.reshape(n, M, H * W)[:, :, rows.start * W : rows.stop * W]
        return np.matmul(dY, columns(x, k, rows, b).mT).sum(axis=0).reshape(M, C, k, k)
    D = padded(dy, k, rows, "d padded", b) if D is None else D
    if M >= 8 and M >= C:
        seen = moved(padded(x, k, rows, "padded", b), k, b)
        dw = np.matmul(seen, middle(D, k, b).mT).sum(axis=0).reshape(k, k, C, M)  # (i, j, c) by m
        return np.ascontiguousarray(dw.transpose(3, 2, 0, 1))
    S = moved(D, k, b) if S is None else S
    X = x[0, :, rows].swapaxes(0, 1) if n == 1 else middle(padded(x, k, rows, "padded", b), k, b)
    if C <= 2:  # row by row
        dw = np.matmul(S, X.swapaxes(0, 1)[..., None]).sum(axis=1).reshape(C, k, k, M)  # c by (i, j, m)
        return np.ascontiguousarray(dw[:, ::-1, ::-1].transpose(3, 0, 1, 2))
    dw = np.matmul(S, X.mT).sum(axis=0).reshape(k, k, M, C)  # (i, j, m) by c
    return np.ascontiguousarray(dw[::-1, ::-1].transpose(2, 3, 0, 1))


def settled(dw: Array, x: Array, dy: Array, b: int) -> Array:
    """dw, or if not all of it is finite, made anew in the textbook's way, place by place of the kernel.

    Where x is infinite or NaN, the zeros of D, beside the images of a row, had made NaN of places that do not see it.
    What is not finite for another reason comes out as it was.
    """
    if np.isfinite(dw).all():
        return dw
    M, C, k, _ = dw.shape
    N, _, H, W = x.shape
    p, edge = k // 2, k // 2 * b
    framed = np.pad(x, ((0, 0), (0, 0), (p, p), (edge, edge)))
    for i, j in np.ndindex(k, k):
        seen = framed[:, :, i : i + H, j * b : j * b + W].reshape(N, C, -1)
        dw[:, :, i, j] = np.matmul(dy.reshape(N, M, -1), seen.mT).sum(axis=0)
    return dw


def cut(x: Array, w: Array, apart: bool, b: int) -> list[tuple[slice, slice]]:
    """Groups of images, and blocks of rows of large images, so that R, or U, fits a quarter of a tile.

    Within a group of a block's (not `apart`) the work is one thread's already: as few parts as fit half a tile.
    """
    (N, C, H, W), (M, _, k, _) = x.shape, w.shape
    row_bytes = k * max(M, C, k * C if few(C, M, k, H * W) else 0) * (W + k // 2 * b) * x.itemsize
    images = tiles.images(N, 2 * H * row_bytes) if apart else tiles.rows(N, 2 * H * row_bytes)
    return [(n, rows) for n in images for rows in tiles.rows(H, 4 * row_bytes if apart else 2 * row_bytes)]


def convolve(x: Array, w: Array, b: int, bias: Array | None = None, apart: bool = False) -> Array:
    """`forward` without its checks: the blocks that have convolutions call it for a group."""
    (N, C, H, W), (M, _, k, _) = x.shape, w.shape
    y = output((N, M, H, W), x.dtype)
    parts = cut(x, w, apart, b)
    Y = y.reshape(N, M, H * W)

    def part(index: int) -> None:
        n, rows = parts[index]
        if few(C, M, k, H * W):
            y_rows = Y[n, :, rows.start * W : rows.stop * W]
            np.matmul(w.reshape(M, -1), columns(x[n], k, rows, b), out=y_rows)  # CONV.1 to CONV.3
        else:
            correlate(padded(x[n], k, rows, "padded", b), w, y[n, :, rows], b)  # CONV.1 to CONV.3
        if bias is not None:
            y[n, :, rows] += bias[:, None, None]  # CONV.4

    threads.in_parallel(part, len(parts))
    return y


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Slide the kernel over every image, as `npattn.ops.conv2d.forward` does, and with its errors."""
    w, bias = params
    floating(x=x, w=w, b=bias)
    M, C, _, _ = odd_kernel("w", w, "M C k k")
    N, C, H, W = shaped("x", x, "N C H W", C=C)
    if bias is not None:
        shaped("b", bias, "M", M=M)
    check_takes(x=x)

    b = layout.beside(x)
    y = convolve(in_rows(x, b), w, b, bias, apart=True)
    return layout.images(y, (N, M, H, W), b), Cache(x, params)


def convolve_back(dy: Array, x: Array, w: Array, b: int, apart: bool = False) -> tuple[Array, Array]:
    """dx and dw: `backward` without its checks and without the bias, for a contiguous dy."""
    M, C, k, _ = w.shape
    dx = output(x.shape, x.dtype)
    parts = cut(x, w, apart, b)
    flipped = w[:, :, ::-1, ::-1].swapaxes(0, 1)

    def part(index: int) -> Array:
        n, rows = parts[index]
        D = padded(dy[n], k, rows, "d padded", b)
        S = moved(D, k, b) if moves(M, C, b) else None

        # CONV.3 was y = w u, and u (CONV.2) the pixels in each place of the kernel: each factor receives dy times the
        # other. CONV.1 put zeros around x: what would arrive at them is not computed
        correlate(D, flipped, dx[n, :, rows], b, S)  # CONV.3, CONV.2, CONV.1
        return gradient(x[n], dy[n], rows, k, b, D, S)  # CONV.3, CONV.2

    return dx, settled(sum(threads.in_parallel(part, len(parts))), x, dy, b)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, db), as `npattn.ops.conv2d.backward` does, and with its errors."""
    x, (w, bias) = cache
    b, dy = layout.beside(x), checked(dy, cache)
    dx, dw = convolve_back(in_rows(dy, b), in_rows(x, b), w, b, apart=True)
    return layout.images(dx, x.shape, b), Params(dw, bias_gradient(dy, bias))


def backward_params(dy: Array, cache: Cache) -> Params:
    """The gradients (dw, db) alone, with the errors of `backward`."""
    x, (w, bias) = cache
    b, dy = layout.beside(x), checked(dy, cache)
    x_rows, dy_rows, k = in_rows(x, b), in_rows(dy, b), w.shape[3]
    parts = cut(x_rows, w, apart=True, b=b)

    def part(index: int) -> Array:
        n, rows = parts[index]
        return gradient(x_rows[n], dy_rows[n], rows, k, b)  # CONV.3, CONV.2

    dw = settled(sum(threads.in_parallel(part, len(parts))), x_rows, dy_rows, b)
    return Params(dw, bias_gradient(dy, bias))


def checked(dy: Array, cache: Cache) -> Array:
    """dy, its elements in order. Raises as `backward` says."""
    x, (w, _) = cache
    floating(dy=dy, x=x)
    N, _, H, W = x.shape
    same_shape("dy", dy, (N, w.shape[0], H, W), "the output y")
    return layout.alike(dy, layout.beside(x))


def in_rows(x: Array, b: int) -> Array:
    """x (N, C, H, W), b of its images side by side, as (a, C, H, W·b), a view."""
    return layout.planes(x).reshape(len(x) // b, *x.shape[1:3], -1)


def bias_gradient(dy: Array, bias: Array | None) -> Array | None:
    """CONV.4 broadcast the bias over images and pixels: its gradient is the sum over both."""
    if bias is None:
        return None
    with blas_held:  # how BLAS would share a sum among its threads decides the last bits
        return maps.pixel_sum(layout.planes(dy)).sum(axis=0)  # CONV.4
