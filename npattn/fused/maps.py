"""What the blocks reduce x to: numbers per channel, and maps over the pixels.

X (n, C, P)   a group of n images, P = H·W pixels        a tile U (n, C, T): some pixels of all their channels

GAP.1, GMP.1, GMP.2       pixel_mean, pixel_mean_max     one pass over X, a few channels at a time
CMEAN.1, CMAX.1, CMAX.2   channel_mean_max               a tile, read from cache three times
SIG.2                     sigmoid
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator

import numpy as np

from npattn.backend import Array
from npattn.fused import threads, tiles


@contextlib.contextmanager
def long_rows(P: int) -> Iterator[None]:
    """Within, a factor that is the same along rows of P numbers is used as it is.

    NumPy writes it out in full first, as far as its buffer of 8192 numbers reaches, to compute with several rows in
    one loop. For rows of 512 and more that takes longer than the loops that it saves: with rows of 1024, ten times.
    """
    if P < 512:
        yield
        return
    with np.errstate():  # which takes the buffer's size back at its end
        np.setbufsize(512)
        yield


def beside(v: Array, P: int) -> Array:
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
    total = sums(*of_pieces).sum(axis=1)
    return total if cut == P else total + sums(X[..., cut:], D[..., cut:])


def sums(X: Array, D: Array) -> Array:
    """Σ over the last axis of X · D: as one product where D has one row, which reads it once, else row by row."""
    return (X @ D.mT)[..., 0] if D.shape[-2] == 1 else np.vecdot(X, D)


def pixel_sum(X: Array) -> Array:
    """Σ over the pixels, (n, C): a product with ones reads X at the speed of memory, np.sum does not."""
    return pixel_dot(X, np.ones((1, 1, X.shape[2]), dtype=X.dtype))


def pixel_mean(X: Array) -> Array:
    """GAP.1: the mean over the pixels, (n, C)."""
    return pixel_sum(X) / X.shape[2]


def add_pixel_dot(total: Array, X: Array, D: Array) -> None:
    """total (n, C) += Σ over the pixels of X · D, a few channels at a time, by several threads if X is a lone group."""
    blocks = tiles.rows(X.shape[1], X[:, 0].nbytes)

    def block(b: int) -> None:
        total[:, blocks[b]] += pixel_dot(X[:, blocks[b]], D)

    threads.spread(block, len(blocks))


def pixel_mean_max(X: Array, mean: Array, top: Array) -> Array:
    """Write the mean over the pixels and the maximum, each (n, C), in one pass.

    Returns the place of the first pixel that has the maximum, in X (n, C, P) read as one row.
    """
    n, C, P = X.shape
    place = np.empty((n, C), dtype=np.intp)
    blocks = tiles.rows(C, n * P * X.itemsize)

    def block(b: int) -> None:
        c = blocks[b]
        mean[:, c] = pixel_mean(X[:, c])  # GAP.1, while the block is on its way into the cache
        np.argmax(X[:, c], axis=2, out=place[:, c])  # GMP.1, from the cache

    threads.spread(block, len(blocks))
    place += np.arange(0, n * C * P, P).reshape(n, C)
    top[...] = X.reshape(-1)[place]  # GMP.2
    return place


def channel_mean_max(U: Array, mean: Array, top: Array, first: Array | None) -> None:
    """Write the mean over the channels, the maximum, and the first channel that has it, each (n, T), for a tile.

    None for the last one leaves it out: only a backward needs it, and it takes a third of the time.

    An argmax across rows is slow in NumPy. Instead the tile is compared with its maximum, each hit in channel c is
    written as C − 1 − c, in one byte where C ≤ 256, and the largest number at a pixel names the first channel.
    """
    C = U.shape[1]
    np.matmul(np.full(C, 1 / C, dtype=U.dtype), U, out=mean)  # CMEAN.1
    np.maximum.reduce(U, axis=1, out=top)  # CMAX.2: a NaN counts as largest
    if first is None:
        return
    hit = np.equal(U, top[:, None], out=threads.scratch("hit", U.shape, np.bool_))
    if math.isnan(np.maximum.reduce(top, axis=None)):  # NaN equals nothing, itself included
        hit |= np.isnan(U)
    left = np.arange(C - 1, -1, -1, dtype=np.min_scalar_type(C - 1))
    code = hit.view(np.uint8)
    code = np.multiply(code, left[:, None], out=code if C <= 256 else None)
    np.subtract(C - 1, np.maximum.reduce(code, axis=1), out=first, dtype=first.dtype)  # CMAX.1


def places(i: Array, C: int, P: int, start: int) -> Array:
    """Where in an array (n, C, P), read as one row, the channels i (n, T) of the pixels from `start` on lie."""
    n, T = i.shape
    place = i * P
    place += np.arange(n)[:, None] * (C * P) + np.arange(start, start + T)
    return place


def add_at(D: Array, places: Array, d: Array) -> None:
    """Add d to the contiguous D at those places, no two the same: the backward of GMP.2 and of CMAX.2.

    np.add.at is as fast, but keeps the interpreter's lock.
    """
    D.reshape(-1)[places] += d


def sum_at_channel(i: Array, d: Array, C: int) -> Array:
    """Σ of d (n, P) over the pixels whose channel is c, (n, C): the backward of CMAX.2 and a sum over the pixels."""
    n = i.shape[0]
    flat = i + np.arange(0, n * C, C)[:, None] if n > 1 else i
    return np.bincount(flat.reshape(-1), d.reshape(-1), n * C).reshape(n, C).astype(d.dtype)


def sigmoid(a: Array) -> Array:
    """SIG.2 with the textbook's formula, in fewer arrays: 1 / (1 + exp(−|a|)), times exp(−|a|) where a < 0."""
    e = np.abs(a)
    np.negative(e, out=e)
    np.exp(e, out=e)  # SIG.1
    y = np.maximum(e, a >= 0)  # e ≤ 1: the larger one is 1 where a ≥ 0 and e elsewhere
    e += 1
    y /= e
    return y


def unless(blocked: Array, d: Array, out: Array) -> None:
    """out = d, but 0 where `blocked`, whatever d is there: d's bits masked by blocked − 1, 0 or all ones."""
    bits = np.dtype(f"i{d.itemsize}")
    mask = threads.scratch("mask", d.shape, bits)
    mask[...] = blocked.view(np.int8) - np.int8(1)
    np.bitwise_and(mask, d.view(bits), out=out.view(bits))
