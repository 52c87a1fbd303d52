"""How a batch lies in memory: image after image (NCHW) or side by side (CHWN). Its axes are N, C, H, W either way.

Side by side, the same pixel of all images follow one another. A step to the next pixel is a step of N numbers, so that
even the rows of small images are long; and all images of a channel follow one another, so that whatever treats pixels
alike sees one image of P·N pixels. The fused pairs know one form for both, a images, each of b side by side:

    planes (a, C, P·b)        NCHW: a = N, b = 1        CHWN: a = 1, b = N        P = H·W

What a fused pair gives lies as its x does. Arrays are NCHW unless someone lays them side by side, as a training does
(npattn/training/batches.py): its images are small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.fused import memory


def side_by_side(x: Array) -> bool:
    """Whether the images x (N, C, H, W) lie so. An array that lies both ways, one image say, counts as NCHW."""
    return not x.flags.c_contiguous and x.ndim == 4 and x.transpose(1, 2, 3, 0).flags.c_contiguous


def laid_side_by_side(x: Array) -> Array:
    """x (N, C, H, W), or a copy of it, that lies so, and aligned."""
    return np.require(x.transpose(1, 2, 3, 0), requirements=["C", "A"]).transpose(3, 0, 1, 2)


def beside(x: Array) -> int:
    """b: how many images lie side by side."""
    return x.shape[0] if side_by_side(x) else 1


def flat(x: Array) -> Array:
    """The numbers of x in the order of memory, as a view."""
    return (x.transpose(1, 2, 3, 0) if side_by_side(x) else x).reshape(-1)


def planes(x: Array) -> Array:
    """x (N, C, H, W) as (a, C, P·b), a view."""
    N, C, H, W = x.shape
    if x.flags.c_contiguous:
        return x.reshape(N, C, H * W)
    return x.transpose(1, 2, 3, 0).reshape(1, C, H * W * N)


def images(numbers: Array, shape: tuple[int, ...], b: int) -> Array:
    """The numbers in the order of memory as an array of that shape, b of its images side by side; a view."""
    if b == 1:
        return numbers.reshape(shape)
    N, C, H, W = shape
    return numbers.reshape(C, H, W, N).transpose(3, 0, 1, 2)


def output(shape: tuple[int, ...], dtype: Any, b: int) -> Array:
    """An array (N, C, H, W) with anything in it, b of its images side by side, for a result that is handed out."""
    if b == 1:
        return memory.output(shape, dtype)
    N, C, H, W = shape
    return memory.output((C, H, W, N), dtype).transpose(3, 0, 1, 2)


def alike(dy: Array, b: int) -> Array:
    """dy (N, C, H, W), or a copy of it, with b images side by side."""
    if b > 1:
        return laid_side_by_side(dy)
    return np.require(dy, requirements=["C", "A"])


def by_image(v: Array) -> Array:
    """Numbers of the channels, (…, a, C, b), as rows (…, N, C): a copy if b > 1."""
    *others, a, C, b = v.shape
    return np.ascontiguousarray(v.swapaxes(-1, -2)).reshape(*others, a * b, C)


def by_plane(rows: Array, b: int) -> Array:
    """Rows (…, N, C) as numbers of the channels, (…, a, C, b)."""
    *others, N, C = rows.shape
    return np.ascontiguousarray(rows.reshape(*others, N // b, b, C).swapaxes(-1, -2))


def pixels(planes: Array, b: int) -> Array:
    """Planes (a, C, p·b), or a tile of them, as (a, C, p, b): what numbers (a, C, 1, b) of the channels fit."""
    return planes.reshape(*planes.shape[:-1], -1, b)
