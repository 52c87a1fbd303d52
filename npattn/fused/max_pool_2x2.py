"""2×2 maxima, by whole images moved by one pixel.

    x (N, C, H, W), a group of n images at a time, their pixels in one row f (n·C·H·W)

    MAX2.1, MAX2.2   pairs[t] = max(f[t], f[t + 1])                                    reads x
                     fours[t] = max(pairs[t], pairs[t + W])
                     y = fours where a window begins: even rows, even columns                       writes y
                     blocked: a byte a pixel, 0 at the first maximum of its window                  a byte each
    back             dx = dy, repeated over its window, where not blocked              a byte, dy   dx

Three of four numbers in `fours` are of no window, and still all are computed: one long loop over numbers that lie side
by side takes a third of the time of many short ones over every second number. An odd last row or column is left out
first, so that W is even.

The right one of a pair is the maximum where f[t + 1] > f[t], the lower pair where pairs[t + W] > pairs[t]: a tie stays
with the first. Both answers are bytes, and what is done with them is done to two columns at a time, as one number of 16
bits: BOTH is 1 in either byte, RIGHT in that of the right column.

Of images side by side (layout.py) a window's four pixels are four rows of b numbers, x (C, h, 2, v, 2, b): all loops
are long without more ado, and the bytes are made place by place.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checks import floating, same_shape, shaped
from npattn.fused import check_takes, layout, maps, needed, scratch, threads, tiles
from npattn.grad_mode import keeps_cache

BOTH = np.uint16(257)
RIGHT, LEFT_BIT = (np.uint16(256), np.uint16(0)) if sys.byteorder == "little" else (np.uint16(1), np.uint16(8))


class Cache(NamedTuple):
    blocked: Array | None  # bool, (N, C, 2·(H//2), 2·(W//2)), in the order of x: False at each window's first maximum
    shape: tuple[int, ...]  # of x
    b: int  # images side by side


def in_windows(x: Array) -> Array:
    """x (n, C, H, W) without an odd last row or column, its elements in order: x itself, or a copy in scratch."""
    even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
    if even.shape == x.shape:
        return x
    copy = scratch.get("in windows", even.shape, x.dtype)
    copy[...] = even
    return copy


def larger(one: Array, other: Array, nan: bool, out: Array) -> None:
    """Write a byte each: 1 where `one` is larger, or the only NaN of the two, which counts as largest."""
    np.greater(one, other, out=out)
    if nan:
        out |= np.isnan(one) & ~np.isnan(other)


def of_the_left(flags: Array) -> Array:
    """BOTH where the byte of the left of two columns is 1, else 0; in the memory of `flags`, two of them a number."""
    two = flags.view(np.uint16)
    two >>= LEFT_BIT
    two &= np.uint16(1)
    two *= BOTH
    return two


def doubled(a: Array) -> Array:
    """Every column of a (n, C, h, v) twice, in scratch: (n, C, h, 2v)."""
    wide = scratch.get("wide", (*a.shape[:3], 2 * a.shape[3]), a.dtype)
    flat = wide.reshape(-1)
    flat[0::2] = flat[1::2] = a.reshape(-1)
    return wide


def forward(x: Array) -> tuple[Array, Cache]:
    """Maximum over 2×2 windows, as `npattn.ops.max_pool_2x2.forward` does, and with its errors."""
    floating(x=x)
    N, C, H, W = shaped("x", x, "N C H W")
    if H < 2 or W < 2:
        raise ValueError(f"x: expected H and W of at least 2 for a 2×2 window, got {(N, C, H, W)}")
    check_takes(x=x)
    if layout.side_by_side(x):
        return windows_side_by_side(x)
    h, v = H // 2, W // 2
    y = np.empty((N, C, h, v), dtype=x.dtype)
    blocked = np.empty((N, C, h, 2, v), dtype=np.uint16) if keeps_cache() else None  # two columns each
    turned = np.zeros((C, h, 2, v), dtype=np.uint16)
    turned[:, :, 1] = BOTH
    groups = tiles.images(N, C * H * W * x.itemsize)

    def group(index: int) -> None:
        n = groups[index]
        f, W = in_windows(x[n]).reshape(-1), 2 * v  # WIN.1: a window is t, t + 1, t + W, t + W + 1
        pairs, fours = scratch.get("pairs", f.shape, x.dtype), scratch.get("fours", f.shape, x.dtype)
        np.maximum(f[:-1], f[1:], out=pairs[:-1])
        np.maximum(pairs[: -W - 1], pairs[W:-1], out=fours[: -W - 1])
        y[n] = fours.reshape(-1, C, h, 2, v, 2)[:, :, :, 0, :, 0]  # MAX2.2
        if blocked is None:
            return

        nan = bool(np.isnan(y[n]).any())
        right, lower = scratch.get("right", f.shape, np.bool_), scratch.get("lower", f.shape, np.bool_)
        larger(f[1:], f[:-1], nan, out=right[:-1])
        larger(pairs[W:-1], pairs[: -W - 1], nan, out=lower[: -W - 1])
        columns = of_the_left(right)
        columns ^= RIGHT  # where the right one is larger the left one is blocked, else the right one
        rows = of_the_left(lower).reshape(-1, C, h, 2, v)
        maps.whole_rows(rows[:, :, :, 1])[...] = maps.whole_rows(rows[:, :, :, 0])
        rows ^= turned  # where the lower one is larger the upper one is blocked, else the lower one
        np.bitwise_or(columns.reshape(rows.shape), rows, out=blocked[n])  # MAX2.1

    threads.in_parallel(group, len(groups))
    flags = None if blocked is None else blocked.view(np.bool_).reshape(N, C, 2 * h, 2 * v)
    return y, Cache(flags, (N, C, H, W), 1)


def in_places(x: Array) -> Array:
    """WIN.1: images side by side without an odd last row or column, as (C, h, 2, v, 2, b), a view."""
    N, C, H, W = x.shape
    return layout.flat(x).reshape(C, H, W, N)[:, : H // 2 * 2, : W // 2 * 2].reshape(C, H // 2, 2, W // 2, 2, N)


def windows_side_by_side(x: Array) -> tuple[Array, Cache]:
    """`forward` for images that lie so."""
    N, C, H, W = x.shape
    h, v = H // 2, W // 2
    U, Y = in_places(x), np.empty((C, h, v, N), dtype=x.dtype)
    blocked = np.empty(U.shape, dtype=np.bool_) if keeps_cache() else None
    groups = tiles.images(C, H * W * N * x.itemsize)

    def group(index: int) -> None:
        c = groups[index]
        left, right = U[c, ..., 0, :], U[c, ..., 1, :]
        pairs = np.maximum(left, right, out=scratch.get("pairs", left.shape, x.dtype))
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        np.maximum(upper, lower, out=Y[c])  # MAX2.2
        if blocked is None:
            return

        nan = bool(np.isnan(Y[c]).any())
        on_right = scratch.get("right", left.shape, np.bool_)
        below = scratch.get("lower", upper.shape, np.bool_)
        larger(right, left, nan, out=on_right)
        larger(lower, upper, nan, out=below)
        for row in (0, 1):
            np.logical_or(on_right[:, :, row], below, out=blocked[c, :, row, :, 0])  # MAX2.1
            np.less_equal(on_right[:, :, row], below, out=blocked[c, :, row, :, 1])  # MAX2.1: not right, or other row
            np.logical_not(below, out=below)

    threads.in_parallel(group, len(groups))
    flags = None if blocked is None else layout.images(blocked, (N, C, 2 * h, 2 * v), N)
    return layout.images(Y, (N, C, h, v), N), Cache(flags, (N, C, H, W), N)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx, as `npattn.ops.max_pool_2x2.backward` does, and with its errors."""
    floating(dy=dy)
    (N, C, H, W), b = cache.shape, cache.b
    h, v = H // 2, W // 2
    same_shape("dy", dy, (N, C, h, v), "the output y")
    dy, dx, blocked = layout.alike(dy, b), layout.output((N, C, H, W), dy.dtype, b), needed(cache.blocked)
    dx[:, :, 2 * h :] = 0  # an odd last row or column belongs to no window
    dx[:, :, :, 2 * v :] = 0
    if b > 1:
        places, flags = in_places(dx), in_places(blocked)
        wide = layout.flat(dy).reshape(C, h, 1, v, 1, N)
        channels = tiles.images(C, H * W * N * dy.itemsize)

        def some_channels(index: int) -> None:
            c = channels[index]
            maps.unless(flags[c], wide[c], places[c])  # MAX2.2, MAX2.1, WIN.1

        threads.in_parallel(some_channels, len(channels))
        return dx

    groups = tiles.images(N, C * H * W * dy.itemsize)

    def group(index: int) -> None:
        n = groups[index]
        inside, wide = in_windows(dx[n]), maps.whole_rows(doubled(dy[n]))
        rows = maps.whole_rows(inside.reshape(-1, C, h, 2, 2 * v))  # WIN.1
        rows[:, :, :, 0] = rows[:, :, :, 1] = wide
        maps.unless(blocked[n], inside, inside)  # MAX2.2, MAX2.1
        if inside.shape != dx[n].shape:
            dx[n, :, : 2 * h, : 2 * v] = inside

    threads.in_parallel(group, len(groups))
    return dx
