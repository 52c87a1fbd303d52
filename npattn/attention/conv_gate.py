"""SE by a convolution: no squeeze. The gate of a pixel knows its neighbours and nothing else.

    x (N, C, H, W)   w (C, C, k, k), k odd

    CG.1     a = w ∗ x                         (N, C, H, W)   zero padding k//2, no bias
    CG.2     g = sigmoid(a)                    (N, C, H, W)   a gate for every pixel of every channel
    CG.3     y = x · g                         (N, C, H, W)

x is used twice: its gradient is the sum of a direct path and one through the gate. Derivation: docs/blocks/wrong.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, odd, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import conv2d, sigmoid


class Params(NamedTuple):
    w: Array  # (C, C, k, k)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C, H, W)
    conv: conv2d.Cache
    gate: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every pixel of every channel by a gate that a convolution makes from its neighbourhood.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (C, C, k, k) with k odd.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match or an even k.
    """
    (w,) = params
    floating(x=x, w=w)
    _, C, _, _ = shaped("x", x, "N C H W")
    shaped("w", w, "M C k k", M=C, C=C)

    a, conv = conv2d.forward(x, conv2d.Params(w))  # CG.1
    g, gate = sigmoid.forward(a)  # CG.2
    y = x * g  # CG.3
    return y, Cache(x, g, conv, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradient (dw,).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g, conv, gate = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, x.shape, "the output y")

    # CG.3 was y = x · g: each factor receives dy times the other. Nothing was broadcast, so nothing is summed
    dx_direct = dy * g  # CG.3
    dg = dy * x  # CG.3

    # CG.2 was g = sigmoid(a)
    da = sigmoid.backward(dg, gate)  # CG.2

    # CG.1 was a = w ∗ x, the second way on which x reached y: it leads back to the neighbours only
    dx_gate, (dw, _) = conv2d.backward(da, conv)  # CG.1
    dx = dx_direct + dx_gate
    return dx, Params(dw)


class ConvGate(Block):
    """SE with a convolution for squeeze and FC, as a layer: x (N, C, H, W) times a gate of its own shape.

    Parameters
    ----------
    channel
        C, at least 1.
    kernel_size
        k, odd.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "conv.weight" (C, C, k, k).
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If channel is no whole number of at least 1, or kernel_size is even.
    """

    input_axes = "N C H W"
    state = (Weight("conv.weight", "w", "C C k k"),)
    gates = {"pixel": ("g", "N C H W")}
    arguments = {"channel": "C"}
    card = Card(
        "conv-gate",
        "SE by a convolution",
        asks="what matters here?",
        gives="x · g",
        source="the article, figure 2, middle",
        page="blocks/wrong",
        size=(1, 2, 3, 3),
        group="wrong structures",
        what="a gate by a 3×3 convolution",
    )

    def __init__(self, channel: int, kernel_size: int = 3, **options: Unpack[Options]) -> None:
        super().__init__({"C": whole_number("channel", channel), "k": odd("kernel_size", kernel_size)}, **options)
