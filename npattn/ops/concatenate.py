"""Concatenation: arrays are laid side by side along an axis. Its backward is the split, and the split's is it.

    x_0, x_1, …   alike but along the axis, where they have K_0, K_1, … entries

    CAT.1     y = [x_0, x_1, …]          K_0 + K_1 + … entries along the axis
    SPLIT.1   y_0, y_1, … = x, cut behind K_0, behind K_0 + K_1, …

Nothing is computed, and every number goes back to where it came from. Derivation: docs/ops/concatenate.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from npattn.backend import Array, copied
from npattn.checks import floating, same_shape, shaped, whole_number, whole_numbers
from npattn.samples import Draw


class Cache(NamedTuple):
    shapes: tuple[tuple[int, ...], ...]  # of the parts, or the pieces
    axis: int


def forward(parts: Sequence[Array], axis: int = 1) -> tuple[Array, Cache]:
    """Lay arrays side by side.

    Parameters
    ----------
    parts
        At least one array; alike but along the axis.
    axis
        Which one, counted from the end where it is negative.

    Returns
    -------
    y : the shape of the parts, but along the axis
    cache : Cache

    Raises
    ------
    TypeError
        If the parts are no float arrays of one dtype.
    ValueError
        If there is none, or shapes do not fit.
    """
    if hasattr(parts, "shape") or not isinstance(parts, Sequence):
        raise TypeError(f"parts: expected a sequence of arrays, got {type(parts).__name__}")
    if not parts:
        raise ValueError("parts: expected at least one array, got none")
    named = {f"parts[{number}]": part for number, part in enumerate(parts)}
    xp = floating(**named)
    shapes = tuple(shaped(name, part, "... K") for name, part in named.items())
    axis = whole_number("axis", axis, least=-len(shapes[0]), most=len(shapes[0]) - 1) % len(shapes[0])
    wanted = ", ".join("K" if place == axis else str(n) for place, n in enumerate(shapes[0]))
    for name, shape in zip(named, shapes, strict=True):
        if len(shape) != len(shapes[0]) or any(n != shapes[0][at] for at, n in enumerate(shape) if at != axis):
            raise ValueError(f"{name}: expected shape ({wanted}), as parts[0] has it, got {shape}")

    y = xp.concat(list(parts), axis=axis)  # CAT.1
    return y, Cache(shapes, axis)


def backward(dy: Array, cache: Cache) -> tuple[Array, ...]:
    """Return the gradient of each part.

    Parameters
    ----------
    dy : the shape of y
    cache : Cache

    Returns
    -------
    dparts : the shapes of the parts

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    shapes, axis = cache
    lengths = [shape[axis] for shape in shapes]
    floating(dy=dy)
    same_shape("dy", dy, (*shapes[0][:axis], sum(lengths), *shapes[0][axis + 1 :]), "the output y")

    # CAT.1 laid the parts side by side: each takes its own entries back
    dparts = pieces(dy, lengths, axis)  # CAT.1
    return dparts


def split_forward(x: Array, lengths: Sequence[int], axis: int = 1) -> tuple[tuple[Array, ...], Cache]:
    """Cut an array into pieces.

    Parameters
    ----------
    x
        Of one axis or more.
    lengths
        Of the pieces along the axis; they add up to its length.
    axis
        Which one, counted from the end where it is negative.

    Returns
    -------
    parts
        The pieces.
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.
    ValueError
        If there is no such axis, or the lengths do not add up to it.
    """
    floating(x=x)
    axes = len(shaped("x", x, "... K"))
    axis = whole_number("axis", axis, least=-axes, most=axes - 1) % axes
    count = max(1, len(lengths)) if isinstance(lengths, Sequence) else 1
    lengths = whole_numbers("lengths", lengths, count, least=0)
    if sum(lengths) != x.shape[axis]:
        raise ValueError(f"lengths: expected a sum of {x.shape[axis]}, which x has along axis {axis}, got {lengths}")

    parts = pieces(x, lengths, axis)  # SPLIT.1
    return parts, Cache(tuple(tuple(part.shape) for part in parts), axis)


def split_backward(dparts: Sequence[Array], cache: Cache) -> Array:
    """Return dx.

    Parameters
    ----------
    dparts
        The gradient of each piece.
    cache : Cache

    Returns
    -------
    dx : the shape of x

    Raises
    ------
    TypeError, ValueError
        If the gradients do not match the pieces.
    """
    shapes, axis = cache
    if len(dparts) != len(shapes):
        raise ValueError(f"dparts: expected a gradient for each of {len(shapes)} pieces, got {len(dparts)}")
    named = {f"dparts[{number}]": dpart for number, dpart in enumerate(dparts)}
    xp = floating(**named)
    for (name, dpart), shape in zip(named.items(), shapes, strict=True):
        same_shape(name, dpart, shape, "that piece")

    # SPLIT.1 cut x in pieces: their gradients lie side by side again
    dx = xp.concat(list(dparts), axis=axis)  # SPLIT.1
    return dx


def pieces(x: Array, lengths: Sequence[int], axis: int) -> tuple[Array, ...]:
    """x cut along an axis into pieces of these lengths, each in memory of its own."""
    before = (slice(None),) * axis
    ends = accumulate(lengths)
    return tuple(copied(x[(*before, slice(end - n, end), ...)]) for end, n in zip(ends, lengths, strict=True))


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {
        "concatenate": (draw.x(), draw.x("N M H W")),
        "concatenate along the columns": (draw.x("... W"), draw.x("... W")),
    }


SETTINGS = {"concatenate": {"axis": 1}, "concatenate along the columns": {"axis": -1}}
TOGETHER = True  # forward takes the inputs of an example as one tuple
PAGE = {"N": 1, "C": 1, "H": 1, "W": 2, "M": 2}  # the sizes of the docs' worked example
