"""The residual unit: x, plus what a branch makes of x.

    x (N, C, H, W)   b (N, C', H', W')   s of the shape of b

    RES.1   b = branch(x)        the residual: what to add to x. An attention may be its last layer
    RES.2   s = x                or s = skip(x), a 1×1 convolution say, where the branch changes the shape
    RES.3   y = s + b

x is used twice, and this time the plus stands in the forward too. Forward two terms are added; backward each of them
receives all of dy, and where they started, at x, the two gradients are added.
SE and CBAM stand at the end of the branch, before the sum: there the gate decides how much is added, and x itself has
a way around it. He et al., Deep Residual Learning, CVPR 2016, equations 1 and 2; Hu et al., Squeeze-and-Excitation
Networks, CVPR 2018, figure 3. Derivation: docs/blocks/residual.md
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple, Self

from npattn.attention.se import SELayer
from npattn.backend import Array, copied
from npattn.block import Card, Form, Place
from npattn.checks import floating, same_shape, shaped
from npattn.layer import Layer
from npattn.nested import Joined, Nested, Sequential
from npattn.ops.conv2d import Conv2d
from npattn.samples import Draw


class Cache(NamedTuple):
    shape: tuple[int, ...]  # of y; no slope depends on a number


def forward(s: Array, b: Array) -> tuple[Array, Cache]:
    """Add the skip path and the branch.

    Parameters
    ----------
    s : (N, C, H, W)
    b : (N, C, H, W)

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    floating(s=s, b=b)
    same_shape("b", b, shaped("s", s, "..."), "the skip path s, to which it is added")
    y = s + b  # RES.3
    return y, Cache(tuple(y.shape))


def backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """Return ds and db.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    ds : (N, C, H, W)
    db : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    floating(dy=dy)
    same_shape("dy", dy, cache.shape, "the output y")

    # RES.3 was a sum: each term receives all of dy, not half of it
    ds, db = copied(dy), copied(dy)  # RES.3
    return ds, db


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of the forward, by the name of the case."""
    return {"residual sum": (draw.x(), draw.x())}


class Residual(Nested):
    """A residual unit: x (N, C, H, W) plus what `branch` makes of it.

    Parameters
    ----------
    branch
        A layer, mostly a `Sequential`.
    skip
        A layer for the other way, which brings x to the shape that the branch gives it. None lets x through as it is.

    Attributes
    ----------
    params
        "branch." and the branch's own keys, "skip." and the skip's.
    attention
        Likewise.

    Raises
    ------
    TypeError
        If one is no layer, or the two differ in array module or dtype.
    ValueError
        In a forward, if the two ways end in different shapes.
    """

    input_axes = "N C H W"
    card = Card(
        "residual",
        "the residual unit",
        asks="what to add to x?",
        gives="x + branch(x)",
        source="He et al., CVPR 2016, equations 1 and 2",
        page="blocks/residual",
        seed=4,
        group=None,
        forms=(Form("residual-skip", "a residual unit with a convolution on both ways", {"change": True}),),
    )

    def __init__(self, branch: Layer, skip: Layer | None = None) -> None:
        super().__init__({"branch": branch} | ({} if skip is None else {"skip": skip}))

    @classmethod
    def fitting(cls, place: Place, change: bool = False, **options: Any) -> Self:
        """As `Block.fitting`, with SE for a branch; or behind a convolution, and with one to skip by."""
        if not change:
            return cls(SELayer.fitting(place, **options))
        C = place.C
        branch = Sequential(Conv2d(C, C, 3, **options), SELayer.fitting(place, **options))
        return cls(branch, skip=Conv2d(C, C, 1, **options))

    def run(self, x: Array) -> tuple[Array, Cache]:
        b = self.layers["branch"].forward(x)  # RES.1
        s = self.layers["skip"].forward(x) if "skip" in self.layers else x  # RES.2
        self._after_run()
        return forward(s, b)

    def undo(self, dy: Array, cache: Cache) -> tuple[Array, MutableMapping[str, Array]]:
        ds, db = backward(dy, cache)

        # RES.2 was x itself, or a layer of its own
        dx_skip = self.layers["skip"].backward(ds) if "skip" in self.layers else ds  # RES.2

        # RES.1 made b from x, the second way on which x reached y
        dx_branch = self.layers["branch"].backward(db)  # RES.1
        dx = dx_skip + dx_branch
        return dx, Joined(self.layers, "grads")
