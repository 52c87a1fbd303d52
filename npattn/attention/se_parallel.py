"""SE beside a transformation F: the gate looks at what goes into F and scales what comes out of it.

    x (N, B, H, W)   u = F(x) (N, C, H', W')   w1 (R, B)   w2 (C, R)

    PAR.1    u = F(x)                          (N, C, H', W')
    PAR.2    s = mean over the pixels of x     (N, B)         of x, not of u
    PAR.3    a = mlp(s)                        (N, C)         FC w1, ReLU, FC w2: CBAM's MLP
    PAR.4    g = sigmoid(a)                    (N, C)
    PAR.5    y = u · g                         (N, C, H', W')

x is used twice, in PAR.1 and in PAR.2. The pair is the gate's, PAR.2 to PAR.4; F is a layer, so the rest is done by
one. Derivation: docs/blocks/wrong.md
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple, Self, Unpack

from npattn.attention import channel, gate
from npattn.backend import Array
from npattn.block import Block, Card, Place, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped, whole_number
from npattn.layer import Layer, Options
from npattn.nested import Joined, Nested
from npattn.ops import global_avg_pool, sigmoid
from npattn.ops.conv2d import Conv2d

Params = channel.Params


class Cache(NamedTuple):
    squeeze: global_avg_pool.Cache
    mlp: channel.MlpCache
    gate: sigmoid.Cache


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """The gate of SE alone, for as many channels as w2 has rows.

    Parameters
    ----------
    x : (N, B, H, W)
    params
        w1 (R, B) and w2 (C, R).

    Returns
    -------
    g : (N, C, 1, 1)
        In [0, 1].
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    """
    w1, w2 = params
    floating(x=x, w1=w1, w2=w2)
    R, B = shaped("w1", w1, "R B")
    shaped("w2", w2, "C R", R=R)
    shaped("x", x, "N B H W", B=B)

    s, squeeze = global_avg_pool.forward(x)  # PAR.2
    a, mlp = channel.mlp_forward(s, params)  # PAR.3
    g, gated = sigmoid.forward(a)  # PAR.4
    return g[:, :, None, None], Cache(squeeze, mlp, gated)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw2).

    Parameters
    ----------
    dg : (N, C, 1, 1)
    cache : Cache

    Returns
    -------
    dx : (N, B, H, W)
    grads : Params
        dw1 and dw2.

    Raises
    ------
    TypeError, ValueError
        If dg does not match the gate.
    """
    squeeze, mlp, gated = cache
    floating(dg=dg)
    same_shape("dg", dg, (*gated.y.shape, 1, 1), "the output gate")

    # PAR.4 was g = sigmoid(a)
    da = sigmoid.backward(dg[:, :, 0, 0], gated)  # PAR.4

    # PAR.3 was two FC with a ReLU between
    ds, grads = channel.mlp_backward(da, mlp)  # PAR.3

    # PAR.2 was a mean: every pixel has the same share in it
    dx = global_avg_pool.backward(ds, squeeze)  # PAR.2
    return dx, grads


class SEGate(Block):
    """The gate of squeeze-and-excitation as a layer: x (N, B, H, W) to a gate (N, C, 1, 1) for other maps.

    Parameters
    ----------
    in_planes
        B, the channels of x, at least 1.
    channel
        C, the channels that the gate is for, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    dtype, rng, xp, fused
        As in `npattn.Layer`.

    Attributes
    ----------
    params
        "fc.0.weight" (C//r, B) and "fc.2.weight" (C, C//r).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or reduction > channel.
    """

    input_axes = "N B H W"
    state = (
        Weight("fc.0.weight", "w1", "R B"),
        Weight("fc.2.weight", "w2", "C R"),
    )
    gates = {"channel": ("gate.y", "N C 1 1")}
    arguments = {"in_planes": "B", "channel": "C", "reduction": "r"}
    card = Card(
        "se-gate",
        "SE's gate alone, for other maps",
        asks="what matters?",
        gives="g (N, C, 1, 1)",
        source="the article, figure 2, below",
        page="blocks/wrong",
        seed=4,
        gate=True,
        group=None,
    )

    def __init__(self, in_planes: int, channel: int, reduction: int = 16, **options: Unpack[Options]) -> None:
        B, R = whole_number("in_planes", in_planes), hidden_width("channel", channel, "reduction", reduction)
        super().__init__({"B": B, "C": channel, "R": R}, **options)


class ParallelSE(Nested):
    """SE beside a transformation F instead of behind it: x (N, B, H, W) to F(x) times a gate made from x.

    Parameters
    ----------
    transform
        F: a layer from B channels to C, a `Sequential` say.
    gate
        `SEGate(B, C)`, or any other layer from x to a gate for F(x).

    Attributes
    ----------
    params
        "transform." and the transformation's own keys, "gate." and the gate's.
    attention
        Likewise.

    Raises
    ------
    TypeError
        If one is no layer, or they differ in array module or dtype.
    """

    input_axes = "N C H W"
    card = Card(
        "se-parallel",
        "SE beside a transformation",
        asks="what matters?",
        gives="F(x) · g",
        source="the article, figure 2, below",
        page="blocks/wrong",
        size=(1, 2, 3, 3),
        beside=True,
        group="wrong structures",
        what="the gate made from the stage's input",
    )

    def __init__(self, transform: Layer, gate: Layer) -> None:
        super().__init__({"transform": transform, "gate": gate})

    @classmethod
    def fitting(cls, place: Place, transform: Layer | None = None, **options: Any) -> Self:
        """As `Block.fitting`; F is a convolution unless one is given."""
        F = Conv2d(place["B"], place.C, 3, **options) if transform is None else transform
        return cls(F, SEGate.fitting(place, **options))

    def run(self, x: Array) -> tuple[Array, gate.Cache]:
        u = self.layers["transform"].forward(x)  # PAR.1
        g = self.layers["gate"].forward(x)
        self._after_run()
        y, cache = gate.forward(u, g)  # PAR.5
        return y, cache

    def undo(self, dy: Array, cache: gate.Cache) -> tuple[Array, MutableMapping[str, Array]]:
        # PAR.5 was y = u · g
        du, dg = gate.backward(dy, cache)  # PAR.5

        # x went two ways, into the gate and into F. Nothing of the gate's way goes through F
        dx_gate = self.layers["gate"].backward(dg)
        dx_transform = self.layers["transform"].backward(du)  # PAR.1
        dx = dx_transform + dx_gate
        return dx, Joined(self.layers, "grads")
