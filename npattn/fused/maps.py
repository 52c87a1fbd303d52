"""What the blocks reduce x to: numbers per channel, and maps over the pixels.

X (n, C, P·b)   a group of n images, or one of b side by side (layout.py), P = H·W pixels
a tile U        some pixels of all their channels

GAP.1, GMP.1, GMP.2       image_sum, pixel_mean_max      one pass over X, a few channels at a time
CMEAN.1, CMAX.1, CMAX.2   channel_mean_max               a tile, read from cache three times
SIG.2                     sigmoid
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.fused import layout, scratch, threads, tiles


@contextlib.contextmanager
def long_rows(P: int, b: int = 1) -> Iterator[None]:
    """Within, a factor that is the same along rows of P numbers, or along those of `fold`, is used as it is.

    Of b images side by side a channel's factor differs along the row, from image to image: nothing is to be done.

    NumPy writes it out in full first, as far as its buffer of 8192 numbers reaches, to compute with several rows in
    one loop. For rows of 512 and more that takes longer than the loops that it saves: with rows of 1024, ten times.
    Shorter rows are left to a buffer that is too short for folded ones.
    """
    if b > 1:
        yield
        return
    with np.errstate():  # which takes the buffer's size back at its end
        np.setbufsize(512 if P >= 512 else 1024)
        yield


FOLDED = 4096
"""Numbers in a row of several channels, at most: NumPy's loops over longer ones are no faster."""


def fold(U: Array) -> int:
    """How many channels of U (n, C, T) to read as one row: U as (n, C / f, f·T).

    What differs from pixel to pixel only, a map, goes row by row, and NumPy begins each row anew: with rows of 49
    numbers, two to five times the time. The map is then written f times side by side (`beside_itself`).
    """
    return channels_a_row(*U.shape[1:]) if U.flags.c_contiguous else 1


@functools.lru_cache(maxsize=256)
def channels_a_row(C: int, T: int) -> int:
    """The largest divisor of C, up to 32, so that a row is no longer than `FOLDED`."""
    return max(f for f in range(1, 33) if C % f == 0 and f * T <= max(FOLDED, T))


def beside_itself(v: Array, f: int, name: str) -> Array:
    """The map v (n, T) for rows of f channels: (n, 1, f·T), in this thread's scratch of that name."""
    n, T = v.shape
    if f == 1:
        return v[:, None]
    rows = scratch.get(name, (n, f, T), v.dtype)
    rows[...] = v[:, None]
    return rows.reshape(n, 1, f * T)


def each_channel(operation: np.ufunc, U: Array, v: Array, out: Array) -> None:
    """out = operation(U, v) for a map v (n, T) that is the same for all channels of U (n, C, T)."""
    (n, C, T), f = U.shape, fold(out)
    rows = (n, C // f, f * T)
    operation(U.reshape(rows), beside_itself(v, f, "sum"), out=out.reshape(rows))


def repeated(v: Array, P: int) -> Array:
    """v (C) to stand beside X (n, C, P): repeated along short rows, so that one inner loop takes a whole image."""
    return np.repeat(v, P).reshape(-1, P) if P < 1024 else v[:, None]


def whole_rows(a: Array) -> Array:
    """a (..., W), each row one element of W numbers: copied as such, in half the time for short rows."""
    return a.view(void(a.shape[-1] * a.itemsize))[..., 0]


@functools.cache
def void(size: int) -> np.dtype[np.void]:
    """Elements of that many bytes, to be moved only."""
    return np.dtype((np.void, size))


LOCKED = 512
"""NumPy keeps the interpreter's lock during a product of about 500 results or fewer, however long its sums are."""


def pixel_dot(X: Array, D: Array) -> Array:
    """Σ over the pixels of X · D, (n, C), by BLAS; D (n, C, P), or (n, 1, P) for the same factors in all channels.

    Few and long sums are each made of pieces, so that there are enough results for other threads to go on meanwhile.
    """
    n, C, P = X.shape
    pieces = min(math.ceil(LOCKED / (n * C)), P // 512)  # what is shorter is soon over
    if pieces <= 1:
        return sums(X, D)
    cut = P // pieces * pieces
    of_pieces = (A[..., :cut].reshape(*A.shape[:2], pieces, -1).swapaxes(1, 2) for A in (X, D))
    total = sums(*of_pieces).sum(axis=1, dtype=np.float64)  # one after another: float32 would lose digits
    if cut < P:
        total += sums(X[..., cut:], D[..., cut:])
    return total.astype(X.dtype, copy=False)


def sums(X: Array, D: Array) -> Array:
    """Σ over the last axis of X · D: as one product where D has one row, which reads it once, else row by row."""
    return (X @ D.mT)[..., 0] if D.shape[-2] == 1 else np.vecdot(X, D)


def pixel_sum(X: Array) -> Array:
    """Σ over the pixels, (n, C): a product with ones reads X at the speed of memory, np.sum does not."""
    return pixel_dot(X, np.ones((1, 1, X.shape[2]), dtype=X.dtype))


PIECE = 256
"""Pixels of an image that are added one after another in float32: the error grows with them."""


def image_sum(X: Array, b: int) -> Array:
    """Σ over the pixels of each image, (n, C, b)."""
    if b == 1:
        return pixel_sum(X)[..., None]
    X = layout.pixels(X, b)
    return sum_of_pieces(
        (np.ones((1, q.stop - q.start), dtype=X.dtype) @ X[:, :, q])[:, :, 0] for q in tiles.even(X.shape[2], PIECE)
    )


def image_dot(X: Array, D: Array, b: int) -> Array:
    """Σ over the pixels of X · D for each image, (n, C, b); D (n, C, P·b), or (n, 1, P·b) for all channels."""
    if b == 1:
        return pixel_dot(X, D)[..., None]
    X, D = layout.pixels(X, b), layout.pixels(D, b)
    return sum_of_pieces(np.einsum("ncpb,ncpb->ncb", X[:, :, q], D[:, :, q]) for q in tiles.even(X.shape[2], PIECE))


def sum_of_pieces(pieces: Iterator[Array]) -> Array:
    """A sum that was made in pieces, arrays of one shape: several are added in float64."""
    total = next(pieces)
    dtype = total.dtype
    for piece in pieces:
        total = np.add(total, piece, dtype=np.float64)
    return total.astype(dtype, copy=False)


def channel_dot(X: Array, g: Array, b: int, out: Array) -> None:
    """out (n, P·b) = Σ over the channels of X · g, g (n, C, b)."""
    if b == 1:
        np.matmul(g.mT, X, out=out[:, None])
    else:
        np.einsum("ncpb,ncb->npb", layout.pixels(X, b), g, out=layout.pixels(out, b))


def pixel_mean_max(X: Array, b: int, mean: Array, top: Array, keep: bool) -> Array | None:
    """Write the mean over the pixels and the maximum, each (n, C, b), in one pass.

    Returns the place of the first pixel that has the maximum, in X (n, C, P·b) read as one row: what a backward needs.
    None if it is not to be kept.
    """
    n, C, L = X.shape
    place = np.empty((n, C, b), dtype=np.intp)
    blocks = tiles.rows(C, n * L * X.itemsize)

    def block(index: int) -> None:
        c = blocks[index]
        mean[:, c] = image_sum(X[:, c], b) / (L // b)  # GAP.1, while the block is on its way into the cache
        if b > 1:
            U = X[:, c].reshape(-1, L // b, b)
            top[:, c] = largest(U).reshape(n, -1, b)  # GMP.2
            if keep:
                place[:, c] = first_largest(U, top[:, c].reshape(-1, b)).reshape(n, -1, b)  # GMP.1
        elif keep and L >= SHORT:
            np.argmax(X[:, c], axis=2, out=place[:, c, 0])  # GMP.1, from the cache
        else:
            top[:, c, 0] = row_max(X[:, c], mean[:, c, 0])  # GMP.2
            if keep:
                place[:, c, 0] = first_in_row(X[:, c], top[:, c])  # GMP.1

    threads.in_parallel(block, len(blocks))
    if not keep:
        return None
    if b > 1:
        place *= b
        place += np.arange(b)
    place += np.arange(0, n * C * L, L).reshape(n, C, 1)
    if b == 1 and L >= SHORT:
        top[...] = X.reshape(-1)[place]  # GMP.2
    return place


SHORT = 128
"""Rows of fewer numbers: an argmax that compares numbers spends most of its time on beginning each row."""


def row_max(X: Array, mean: Array) -> Array:
    """The largest number of each row of X (n, C, P), (n, C); `mean`, of each row, tells whether there is a NaN.

    Floats of which one is at least 0 are ordered as their bits are, read as a whole number: the largest of these is
    found in half the time, since no NaN is to be looked for.
    """
    if not X.flags.c_contiguous:
        return np.maximum.reduce(X, axis=2)
    n, C, P = X.shape
    starts, row = np.arange(0, X.size, P), X.reshape(-1)
    bits = np.maximum.reduceat(row.view(f"i{X.itemsize}"), starts)
    if bits.min() < 0 or math.isnan(np.add.reduce(mean, axis=None)):
        return np.maximum.reduceat(row, starts).reshape(n, C)
    return bits.view(X.dtype).reshape(n, C)


def first_in_row(X: Array, top: Array) -> Array:
    """Which number of each row of X (n, C, P) is the first that is `top` (n, C, 1), the largest of the row."""
    hit = np.equal(X, top, out=scratch.get("product", X.shape, np.bool_))
    if math.isnan(np.maximum.reduce(top, axis=None)):  # NaN equals nothing, itself included
        hit |= np.isnan(X)
    return np.argmax(hit, axis=2)


@functools.lru_cache(maxsize=64)
def equal_shares(C: int, dtype: np.dtype[Any]) -> Array:
    """1/C, C times."""
    return np.full(C, 1 / C, dtype=dtype)


def channel_mean_max(U: Array, mean: Array, top: Array, first: Array | None) -> None:
    """Write the mean over the channels, the maximum, and the first channel that has it, each (n, T), for a tile.

    None for the last one leaves it out: only a backward needs it, and it takes a third of the time.
    """
    np.matmul(equal_shares(U.shape[1], U.dtype), U, out=mean)  # CMEAN.1
    largest(U, out=top)  # CMAX.2
    if first is not None:
        first[...] = first_largest(U, top)  # CMAX.1


def largest(U: Array, out: Array | None = None) -> Array:
    """The largest of the K numbers of U (n, K, T), (n, T): a NaN counts as largest."""
    (n, K, T), f = U.shape, fold(U)
    of_every_fth = np.maximum.reduce(U.reshape(n, K // f, f * T), axis=1)
    return np.maximum.reduce(of_every_fth.reshape(n, f, T), axis=1, out=out)


def first_largest(U: Array, top: Array) -> Array:
    """Which of the K numbers of U (n, K, T) is the first that is `top` (n, T), the largest of them.

    An argmax across rows is slow in NumPy. Instead U is compared with the maxima, each hit in row r of R is written as
    R − 1 − r, in one byte where that is enough, and the largest number names the first one.

    If a row has f numbers of K side by side, k = r·f + j, the first of each j is found, then the first of these. A j
    may have no hit: then it is R − r that is written.
    """
    (n, K, T), f = U.shape, fold(U)
    R, none = K // f, int(f > 1)
    rows = U.reshape(n, R, f * T)
    hit = np.equal(rows, beside_itself(top, f, "sum"), out=scratch.get("product", rows.shape, np.bool_))
    if math.isnan(np.maximum.reduce(top, axis=None)):  # NaN equals nothing, itself included
        hit |= np.isnan(rows)
    left = np.arange(R - 1, -1, -1, dtype=np.min_scalar_type(R - 1 + none))[:, None] + none
    code = hit.view(np.uint8)
    code = np.multiply(code, left, out=code if left.dtype == code.dtype else None)
    last = np.maximum.reduce(code, axis=1)
    if f == 1:
        return np.subtract(left[0], last, out=last)
    found = last.reshape(n, f, T).astype(np.int32)
    found *= f
    found -= np.arange(f, dtype=np.int32)[:, None]
    return np.subtract(K, np.maximum.reduce(found, axis=1))


def places(i: Array, C: int, P: int, start: int) -> Array:
    """Where in an array (n, C, P), read as one row, the channels i (n, T) of the pixels from `start` on lie."""
    n, T = i.shape
    place = np.multiply(i, P, dtype=np.intp)
    place += pixels_of(n, C * P, start, T)
    return place


@functools.lru_cache(maxsize=8)
def pixels_of(n: int, image: int, start: int, T: int) -> Array:
    """Where the pixels from `start` on of the first channels of n images lie, (n, T): remembered, they are many."""
    return np.arange(n)[:, None] * image + np.arange(start, start + T)


def add_at(D: Array, places: Array, d: Array) -> None:
    """Add d to the contiguous D at those places, no two the same: the backward of GMP.2 and of CMAX.2.

    np.add.at is as fast, but keeps the interpreter's lock.
    """
    D.reshape(-1)[places] += d


def sigmoid(a: Array) -> Array:
    """SIG.2 with the textbook's formula, in fewer arrays: 1 / (1 + exp(−|a|)), times exp(−|a|) where a < 0."""
    e = np.abs(a, out=scratch.get("sigmoid", a.shape, a.dtype))
    np.negative(e, out=e)
    np.exp(e, out=e)  # SIG.1
    y = np.maximum(e, a >= 0)  # e ≤ 1: the larger one is 1 where a ≥ 0 and e elsewhere
    e += 1
    y /= e
    return y


def unless(blocked: Array, d: Array, out: Array) -> None:
    """out = d, but 0 where `blocked`, whatever d is there: d's bits masked by blocked − 1, 0 or all ones."""
    bits = np.dtype(f"i{d.itemsize}")
    mask = scratch.get("mask", blocked.shape, bits)
    mask[...] = blocked.view(np.int8) - np.int8(1)
    np.bitwise_and(mask, d.view(bits), out=out.view(bits))
