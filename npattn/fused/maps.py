"""What the blocks reduce x to: numbers per channel, and maps over the pixels.

X (n, C, P)   a group of n images, P = H·W pixels        a tile U (n, C, T): some pixels of all their channels

GAP.1, GMP.1, GMP.2       pixel_mean, pixel_mean_max     one pass over X, a few channels at a time
CMEAN.1, CMAX.1, CMAX.2   channel_mean_max               a tile, read from cache three times
SIG.2                     sigmoid
"""

from __future__ import annotations

import math

import numpy as np

from npattn.backend import Array
from npattn.fused import threads, tiles


def beside(v: Array, P: int) -> Array:
    """v (C) to stand beside X (n, C, P): repeated along short rows, so that one inner loop takes a whole image."""
    return np.repeat(v, P).reshape(-1, P) if P < 1024 else v[:, None]


def whole_rows(a: Array) -> Array:
    """a (..., W), each row one element of W numbers: copied as such, in half the time for short rows."""
    return a.view(np.dtype((np.void, a.shape[-1] * a.itemsize)))[..., 0]


def pixel_sum(X: Array) -> Array:
    """Σ over the pixels, (n, C), by BLAS: a product with ones reads X at the speed of memory, np.sum does not."""
    return X @ np.ones(X.shape[2], dtype=X.dtype)


def pixel_mean(X: Array) -> Array:
    """GAP.1: the mean over the pixels, (n, C)."""
    return pixel_sum(X) / X.shape[2]


def pixel_dot(X: Array, d: Array) -> Array:
    """Σ over the pixels of X (n, C, P) times d (n, P): (n, C)."""
    n, C, P = X.shape
    out = np.empty((n, C, 1), dtype=X.dtype)
    blocks = tiles.rows(C, n * P * X.itemsize)
    threads.spread(lambda b: np.matmul(X[:, blocks[b]], d[:, :, None], out=out[:, blocks[b]]), len(blocks))
    return out[:, :, 0]


def pixel_mean_max(X: Array, mean: Array, top: Array) -> Array:
    """Write the mean over the pixels and the maximum, each (n, C); return the first pixel that has it. One pass."""
    n, C, P = X.shape
    first = np.empty((n, C), dtype=np.intp)
    blocks = tiles.rows(C, n * P * X.itemsize)

    def block(b: int) -> None:
        c = blocks[b]
        mean[:, c] = pixel_mean(X[:, c])  # GAP.1, while the block is on its way into the cache
        np.argmax(X[:, c], axis=2, out=first[:, c])  # GMP.1, from the cache
        top[:, c] = np.take_along_axis(X[:, c], first[:, c, None], axis=2)[:, :, 0]  # GMP.2

    threads.spread(block, len(blocks))
    return first


def channel_mean_max(U: Array, mean: Array, top: Array, first: Array) -> None:
    """Write the mean over the channels, the maximum, and the first channel that has it, each (n, T), for a tile.

    An argmax across rows is slow in NumPy. Instead the tile is compared with its maximum, each hit in channel c is
    written as C − c, one byte each, and the largest number at a pixel names the first channel.
    """
    C = U.shape[1]
    np.matmul(np.full(C, 1 / C, dtype=U.dtype), U, out=mean)  # CMEAN.1
    np.maximum.reduce(U, axis=1, out=top)  # CMAX.2: a NaN counts as largest
    nan = math.isnan(np.maximum.reduce(top, axis=None))
    if C > 255:
        first[...] = 0
    for start in range((C - 1) // 255 * 255, -1, -255):  # a byte counts to 255; the first block has the last word
        block = U[:, start : start + 255]
        hit = np.equal(block, top[:, None], out=threads.scratch("hit", block.shape, np.bool_))
        if nan:  # NaN equals nothing, itself included
            hit |= np.isnan(block)
        left = np.arange(block.shape[1], 0, -1, dtype=np.uint8)  # C − c
        code = hit.view(np.uint8)
        code *= left[:, None]
        best = np.maximum.reduce(code, axis=1)
        if C <= 255:
            np.subtract(C, best, out=first, dtype=first.dtype)  # CMAX.1
        else:
            np.copyto(first, (start + block.shape[1]) - best.astype(first.dtype), where=best > 0)  # CMAX.1


def places(i: Array, C: int, P: int, start: int) -> Array:
    """Where in an array (n, C, P), read as one row, the channels i (n, T) of the pixels from `start` on lie."""
    n, T = i.shape
    place = i * P
    place += np.arange(n)[:, None] * (C * P) + np.arange(start, start + T)
    return place


def add_at(D: Array, places: Array, d: Array) -> None:
    """Add d (n, T) to the contiguous D at those places: the backward of CMAX.2."""
    np.add.at(D.reshape(-1), places.reshape(-1), d.reshape(-1))


def sum_at_channel(i: Array, d: Array, C: int) -> Array:
    """Σ of d (n, P) over the pixels whose channel is c, (n, C): the backward of CMAX.2 and a sum over the pixels."""
    n = i.shape[0]
    flat = i + np.arange(0, n * C, C)[:, None] if n > 1 else i
    return np.bincount(flat.reshape(-1), d.reshape(-1), n * C).reshape(n, C).astype(d.dtype)


def add_at_pixel(D: Array, i: Array, d: Array) -> None:
    """D[n, c, i[n, c]] += d[n, c]: the backward of GMP.2. D (n, C, P), d and i (n, C)."""
    place = i[:, :, None]
    np.put_along_axis(D, place, np.take_along_axis(D, place, axis=2) + d[:, :, None], axis=2)


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
    mask = blocked.view(np.int8).astype(bits)
    mask -= 1
    np.bitwise_and(mask, d.view(bits), out=out.view(bits))
