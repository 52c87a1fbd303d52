"""Squeeze-and-excitation with options: x times the channel gate of `npattn.variants.channel`.

    x (N, C, H, W)

    VSE.1   g = channel gate of x      (N, C, 1, 1)
    VSE.2   y = x · g                  (N, C, H, W)

With the average, two FC without bias and the sigmoid these are SE.1 to SE.6. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, same_shape
from npattn.layer import Options
from npattn.variants import channel
from npattn.variants.channel import Params, Settings, checked_settings, left_out, widths

__all__ = ["Cache", "Params", "SELayer", "backward", "forward"]


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C, 1, 1)
    gate: channel.Cache


def forward(x: Array, params: Params, settings: Settings = Settings(("avg",))) -> tuple[Array, Cache]:  # noqa: B008
    """Scale every channel of x by its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    params, settings
        As in `npattn.variants.channel.forward`.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        As in `npattn.variants.channel.forward`.
    """
    g, gate = channel.forward(x, params, settings)  # VSE.1
    y = x * g  # VSE.2
    return y, Cache(x, g, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients, None where there is no parameter.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # VSE.2 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g  # VSE.2
    dg = xp.sum(dy * x, axis=(2, 3), keepdims=True)  # VSE.2

    # VSE.1 made g from x, the second way on which x reached y
    dx_gate, grads = channel.backward(dg, gate)  # VSE.1
    dx = dx_direct + dx_gate
    return dx, grads


class SELayer(Block):
    """Squeeze-and-excitation with options as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    hidden, bias, pools, mix, layers, gate, max_tie, act
        As in `npattn.variants.ChannelAttention`; `pools` is ("avg",) here.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "fc.0.weight" (C//r, C) and "fc.2.weight" (C, C//r), with biases "fc.0.bias" and "fc.2.bias".
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, reduction > channel, an option is not among those named, bias no
        bool, or `hidden` is given with layers=1.

    Notes
    -----
    Derivation: docs/variants.md
    """

    input_axes = "N C H W"
    state = (
        Weight("fc.0.weight", "w1", "R C"),
        Weight("fc.0.bias", "b1", "R", fan_in="C"),
        Weight("fc.2.weight", "w2", "C R"),
        Weight("fc.2.bias", "b2", "C", fan_in="R"),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "variants.se",
        "squeeze-and-excitation with options",
        asks="what matters?",
        gives="x · g",
        source="Hu et al., CVPR 2018, and the codebases that vary it",
        page="variants",
        seed=4,
        group=None,
        forms=(
            Form("se-bias", "squeeze-and-excitation, FC with biases", {"bias": True}),
            Form("se-silu", "squeeze-and-excitation, SiLU and biases", {"bias": True, "act": "silu"}),
            Form("se-effective", "one FC and a hard sigmoid", {"layers": 1, "bias": True, "gate": "hard_sigmoid"}),
        ),
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 16,
        *,
        hidden: int | None = None,
        bias: bool = False,
        pools: Sequence[str] = ("avg",),
        mix: str = "after",
        layers: int = 2,
        gate: str = "sigmoid",
        max_tie: str = "first",
        act: str = "relu",
        **options: Unpack[Options],
    ) -> None:
        settings = {"settings": checked_settings(pools, mix, gate, max_tie, act)}
        sizes = widths(("channel", channel), ("reduction", reduction), hidden, layers)
        super().__init__(sizes, without=left_out(bias, layers), settings=settings, **options)
