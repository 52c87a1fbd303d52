"""A map laid over the image that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from npattn.arguments import explained
from npattn.backend import named_module, to_numpy
from npattn.checks import real_number, same_shape, shaped, shown

FOR, AGAINST = (0.84, 0.15, 0.24), (0.13, 0.36, 0.75)  # red and blue, as RGB between 0 and 1


@explained
def overlay(
    images: np.ndarray,
    maps: np.ndarray,
    *,
    strength: float = 0.7,
    positive: Sequence[float] = FOR,
    negative: Sequence[float] = AGAINST,
) -> np.ndarray:
    """Lay maps over grey images: the larger a map's absolute value, the more of its colour and the less of the grey.

    Parameters
    ----------
    images
        (N, H, W), grey: uint8, or floats between 0 (black) and 1 (white).
    maps
        (N, H, W), between −1 and 1, as `class_activation_map` with `normalise` and `upsample` gives them.
    strength
        The share of the colour where the map is ±1, between 0 and 1.
    positive, negative
        The colours of the two signs, red, green and blue between 0 and 1.

    Returns
    -------
    numpy.ndarray
        (N, H, W, 3), colours between 0 and 1, which matplotlib's `imshow` takes.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ or a value is outside its range.
    """
    images, maps = grid("images", images, "uint8", "float32", "float64"), grid("maps", maps, "float32", "float64")
    same_shape("maps", maps, shaped("images", images, "N H W"), "images")
    colours = colour("positive", positive), colour("negative", negative)
    share = real_number("strength", strength, least=0, most=1) * np.abs(maps)[..., None]
    grey = np.repeat((images / 255 if images.dtype == np.uint8 else images)[..., None], 3, axis=-1)
    for name, array in (("images", grey), ("maps", np.abs(maps))):
        if not np.all((array >= 0) & (array <= 1 + 1e-6)):
            limits = "from 0 to 1" if name == "images" else "from −1 to 1"
            raise ValueError(f"{name}: expected numbers {limits}, got some outside, or NaN")
    blend: np.ndarray = np.clip((1 - share) * grey + share * np.where(maps[..., None] > 0, *colours), 0, 1)
    return blend


def grid(name: str, array: Any, *dtypes: str) -> np.ndarray:
    """An array of one of these dtypes, as NumPy's. Raises TypeError or ValueError."""
    named_module({name: array})  # an array, and no masked one
    values = to_numpy(array)
    if values.dtype.name not in dtypes:
        raise TypeError(f"{name}: expected dtype {' or '.join(dtypes)}, got {values.dtype}")
    return values


def colour(name: str, value: Sequence[float]) -> np.ndarray:
    """Red, green and blue, after checking that there are three, between 0 and 1. Raises TypeError or ValueError."""
    if isinstance(value, str | bytes) or not hasattr(value, "__len__") or len(value) != 3:
        raise ValueError(f"{name}: expected three numbers, red, green and blue, got {shown(value)}")
    return np.array([real_number(name, part, least=0, most=1) for part in value])
