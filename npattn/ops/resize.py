"""Resizing to the nearest neighbour: each new pixel is a copy of the one that lies where it lies.

    x (N, C, H, W)   to H' rows and W' columns   α(h) = ⌊h · H / H'⌋   β(v) = ⌊v · W / W'⌋

    RESIZE.1   t[n, c, h, v] = x[n, c, α(h), v]      (N, C, H', W)   the rows
    RESIZE.2   y[n, c, h, v] = t[n, c, h, β(v)]      (N, C, H', W')   the columns

A pixel that was copied several times has the sum of what comes back, one that was skipped has none. α and β are
computed as PyTorch's "nearest" does, in float32, so that the same pixels are taken. Derivation: docs/ops/resize.md
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, device
from npattn.block import Block
from npattn.checks import floating, same_shape
from npattn.layer import Options
from npattn.ops.pooling import some_pixels
from npattn.ops.sliding import rows_and_columns
from npattn.samples import Draw


class Cache(NamedTuple):
    rows: Array  # α, (H')
    columns: Array  # β, (W')
    shape: tuple[int, int, int, int]  # of x


def sources(old: int, new: int, x: Array) -> Array:
    """For each of `new` places the one of the `old` that it copies. They never fall. An array where x is."""
    xp = floating(x=x)
    places = xp.floor(xp.arange(new, dtype=xp.float32, device=device(x)) * (old / new))
    return xp.clip(xp.astype(places, xp.int32), 0, old - 1)  # an index on 32-bit machines too, as a browser's


def runs(sources: Array, old: int) -> list[slice]:
    """For each of the `old` places those that copied it, which lie side by side."""
    found = [int(source) for source in sources]
    starts = [bisect_left(found, place) for place in range(old + 1)]
    return [slice(first, behind) for first, behind in pairwise(starts)]


def forward(x: Array, size: int | tuple[int, int]) -> tuple[Array, Cache]:
    """Give every image another size.

    Parameters
    ----------
    x : (N, C, H, W)
    size
        Rows and columns (H', W'), at least 1; one number is for both.

    Returns
    -------
    y : (N, C, H', W')
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        If x is no float array of 4 axes with a pixel, or size out of range.
    """
    xp = floating(x=x)
    N, C, H, W = some_pixels(x)
    H_new, W_new = rows_and_columns("size", size)
    rows, columns = sources(H, H_new, x), sources(W, W_new, x)

    t = xp.take(x, rows, axis=2)  # RESIZE.1
    y = xp.take(t, columns, axis=3)  # RESIZE.2
    return y, Cache(rows, columns, (N, C, H, W))


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx (N, C, H, W).

    Parameters
    ----------
    dy : (N, C, H', W')
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    rows, columns, (N, C, H, W) = cache
    xp = floating(dy=dy)
    same_shape("dy", dy, (N, C, rows.shape[0], columns.shape[0]), "the output y")

    # RESIZE.2 copied columns, which then lie side by side: what comes back from the copies adds up
    dt = xp.stack([xp.sum(dy[:, :, :, run], axis=3) for run in runs(columns, W)], axis=3)  # RESIZE.2
    # RESIZE.1 copied rows
    dx = xp.stack([xp.sum(dt[:, :, run, :], axis=2) for run in runs(rows, H)], axis=2)  # RESIZE.1
    return dx


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"resize": (draw.x(),), "resize, coarser": (draw.x(),)}


SETTINGS = {"resize": {"size": (3, 7)}, "resize, coarser": {"size": 2}}
PAGE = {"N": 1, "C": 1, "H": 2, "W": 3}  # the sizes of the docs' worked example


class Resize(Block):
    """Resizing to the nearest neighbour as a layer: (N, C, H, W) to (N, C, H', W').

    Parameters
    ----------
    size
        Rows and columns (H', W'), at least 1; one number is for both.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Raises
    ------
    TypeError, ValueError
        If size is no whole number and no pair of them, or one is below 1.
    """

    input_axes = "N C H W"
    arguments = {"size": "k"}

    def __init__(self, size: int | tuple[int, int], **options: Unpack[Options]) -> None:
        super().__init__(settings={"size": rows_and_columns("size", size)}, **options)
