"""Apply a gate: x times the gate that an attention layer makes from x.

    x (N, C, H, W)   g (N, C, 1, 1) or (N, 1, H, W)

    GATE.1   g = attention(x)
    GATE.2   y = x · g            g is broadcast along its axes of length 1

ChannelAttention and SpatialAttention return their gate alone, as the article's classes do. This is how a network uses
one of them by itself; CBAM has its own two multiplications. Derivation: docs/blocks/gate.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from npattn.attention.channel import ChannelAttention
from npattn.attention.spatial import SpatialAttention
from npattn.backend import Array
from npattn.block import Block, Card, Form, Place
from npattn.checks import floating, same_shape, shaped
from npattn.layer import Layer
from npattn.nested import Nested
from npattn.samples import Draw


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # broadcasts to the shape of x


def forward(x: Array, g: Array) -> tuple[Array, Cache]:
    """Multiply x by its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    g
        Of four axes, each as long as that of x or 1.

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
    floating(x=x, g=g)
    full, size = shaped("x", x, "N C H W"), shaped("g", g, "...")
    if len(size) != 4 or any(s not in (1, f) for s, f in zip(size, full, strict=True)):
        raise ValueError(f"g: expected a shape that broadcasts to {full}, got {size}")
    y = x * g  # GATE.2
    return y, Cache(x, g)


def backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """Return the direct part of dx, and dg.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
        The direct part.
    dg : the shape of g

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # GATE.2 was y = x · g: each factor receives dy times the other, and g, where it was broadcast, the sum
    dx_direct = dy * g  # GATE.2
    broadcast = tuple(axis for axis, size in enumerate(g.shape) if size == 1)
    dg = xp.sum(dy * x, axis=broadcast, keepdims=True)  # GATE.2
    return dx_direct, dg


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of the forward, by the name of the case."""
    return {"gate": (draw.x(), draw.w("N C 1 1"))}


class Gated(Nested):
    """Multiply x (N, C, H, W) by the gate that `attention` makes from it.

    Parameters
    ----------
    attention
        A layer that returns a gate: `ChannelAttention` or `SpatialAttention`. Its parameters keep their keys.

    Raises
    ------
    TypeError
        If attention is no layer.
    """

    card = Card(
        "gated",
        "a gate applied to its own input",
        asks="what the gate asks",
        gives="x · g",
        source="Woo et al., ECCV 2018, equation 1",
        page="blocks/gate",
        seed=4,
        group=None,
        forms=(Form("gated-spatial", "a spatial gate applied to its own input", {"attention": SpatialAttention}),),
    )

    def __init__(self, attention: Layer) -> None:
        super().__init__({"attention": attention})
        self.input_axes, self.sizes = attention.input_axes, attention.sizes
        self.params, self.buffers = attention.params, attention.buffers

    @classmethod
    def fitting(cls, place: Place, attention: type[Block] = ChannelAttention, **options: Any) -> Self:
        """As `Block.fitting`, for a gate of that class."""
        return cls(attention.fitting(place, **options))

    def by_field(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return self.layers["attention"].by_field(arrays)

    def run(self, x: Array) -> tuple[Array, Cache]:
        attention = self.layers["attention"]
        g = attention.forward(x)  # GATE.1
        self._after_run()
        self._gates = dict(attention._gates)
        return forward(x, g)

    def undo(self, dy: Array, cache: Cache) -> tuple[Array, dict[str, Array]]:
        dx_direct, dg = backward(dy, cache)

        # GATE.1 made g from x, the second way on which x reached y
        dx_gate = self.layers["attention"].backward(dg)  # GATE.1
        dx = dx_direct + dx_gate
        return dx, dict(self.layers["attention"].grads)

    def __repr__(self) -> str:
        return f"Gated({self.layers['attention']!r})"
