"""CBAM's channel attention with options: which poolings, mixed where, which FC and gate.

    x (N, C, H, W)   n poolings   R hidden units   w1 (R, C)   b1 (R) or none   w2 (C, R)   b2 (C) or none
    one FC only: w1 (C, C), b1 (C) or none

    VCA.1   s_i = pooling i of x                   (N, C)   for i = 1 … n
    VCA.2   t = what the MLP reads:
            "after"    t_i = s_i                   (N, C)   n of them: the MLP runs n times
            "before"   t = (s_1 + … + s_n) / n     (N, C)   one
    VCA.3   a_j = mlp(t_j)                         (N, C)   the same weights for every j
    VCA.4   a = a_1 + a_2 + …                      (N, C)
    VCA.5   g = gate(a)                            (N, C)   returned as (N, C, 1, 1)

    the MLP, for a descriptor t
    VMLP.1  z = t w1ᵀ + b1                         (N, R)   with one FC this is a already
    VMLP.2  h = act(z)                             (N, R)   relu unless told
    VMLP.3  a = h w2ᵀ + b2                         (N, C)

With average and maximum, "after", two FC, no bias and the sigmoid these are CA.1 to CA.6. The descriptors side by side
are another block, npattn.ConcatAttention. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import (
    absent,
    floating,
    hidden_width,
    names_of,
    one_of,
    same_shape,
    shaped,
    true_or_false,
    whole_number,
)  # fmt: skip
from npattn.layer import Options
from npattn.ops import global_avg_pool, global_even_max, global_max_pool, linear, lp_pool, lse_pool
from npattn.ops.gate_functions import GATES, HIDDEN

NAMES = ("avg", "max", "lp", "lse")
POOLS: dict[str, Any] = {
    "avg": global_avg_pool,
    "max, first": global_max_pool,
    "max, even": global_even_max,
    "lp": lp_pool,
    "lse": lse_pool,
}


class Settings(NamedTuple):
    """Those options that the parameters do not show."""

    pools: tuple[str, ...] = ("avg", "max")
    mix: str = "after"
    gate: str = "sigmoid"
    max_tie: str = "first"
    act: str = "relu"

    def pairs(self) -> list[Any]:
        """The pooling pairs, in order."""
        return [POOLS[f"max, {self.max_tie}" if name == "max" else name] for name in self.pools]


class Params(NamedTuple):
    w1: Array  # (R, C), with one FC (C, C)
    b1: Array | None = None  # (R), with one FC (C)
    w2: Array | None = None  # (C, R); None: there is one FC
    b2: Array | None = None  # (C)


class MlpCache(NamedTuple):
    fc1: linear.Cache
    hidden: Any = None
    fc2: linear.Cache | None = None


class Cache(NamedTuple):
    settings: Settings
    pools: tuple[Any, ...]  # one cache a pooling
    runs: tuple[MlpCache, ...]  # one a run of the MLP
    gate: Any
    g: Array  # (N, C)


def mlp_forward(t: Array, params: Params, act: str = "relu") -> tuple[Array, MlpCache]:
    """Two FC with `act` between, or one FC: t (N, C) to a (N, C)."""
    w1, b1, w2, b2 = params
    z, fc1 = linear.forward(t, linear.Params(w1, b1))  # VMLP.1
    if w2 is None:
        return z, MlpCache(fc1)
    h, hidden = HIDDEN[act].forward(z)  # VMLP.2
    a, fc2 = linear.forward(h, linear.Params(w2, b2))  # VMLP.3
    return a, MlpCache(fc1, hidden, fc2)


def mlp_backward(da: Array, cache: MlpCache, act: str = "relu") -> tuple[Array, Params]:
    """Return dt (N, C) and the gradients of this one use of the weights."""
    dz, dw2, db2 = da, None, None
    if cache.fc2 is not None:
        # VMLP.3 was a = h w2ᵀ + b2
        dh, (dw2, db2) = linear.backward(da, cache.fc2)  # VMLP.3
        # VMLP.2 was h = act(z), number by number
        dz = HIDDEN[act].backward(dh, cache.hidden)  # VMLP.2
    # VMLP.1 was z = t w1ᵀ + b1
    dt, (dw1, db1) = linear.backward(dz, cache.fc1)  # VMLP.1
    return dt, Params(dw1, db1, dw2, db2)


def forward(x: Array, params: Params, settings: Settings = Settings()) -> tuple[Array, Cache]:  # noqa: B008
    """The channel gate of x.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 and, if there are, b1, w2, b2.
    settings
        What is pooled, mixed and gated how.

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
    w1, b1, w2, b2 = params
    floating(x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    settings = checked_settings(*settings)
    _, C, _, _ = shaped("x", x, "N C H W")
    R, _ = shaped("w1", w1, "R C", C=C)
    if w2 is None:
        shaped("w1", w1, "C C", C=C)
        absent("b2", b2, "without w2")
    else:
        shaped("w2", w2, "C R", C=C, R=R)
    for name, b, size in (("b1", b1, R), ("b2", b2, C)):
        if b is not None:
            shaped(name, b, "n", n=size)

    s, pools = zip(*(pool.forward(x) for pool in settings.pairs()), strict=True)  # VCA.1
    t = [reduce(add, s) / len(s)] if settings.mix == "before" else s  # VCA.2
    runs = [mlp_forward(t_j, params, settings.act) for t_j in t]  # VCA.3
    a = reduce(add, [a_j for a_j, _ in runs])  # VCA.4
    g, gate = GATES[settings.gate].forward(a)  # VCA.5
    return g[:, :, None, None], Cache(settings, pools, tuple(mlp for _, mlp in runs), gate, g + 0)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients, None where there is no parameter.

    Parameters
    ----------
    dg : (N, C, 1, 1)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params

    Raises
    ------
    TypeError, ValueError
        If dg does not match the gate.
    """
    settings, pools, runs, gate, g = cache
    floating(dg=dg, g=g)
    same_shape("dg", dg, (*g.shape, 1, 1), "the output gate")

    # VCA.5 was g = gate(a)
    da = GATES[settings.gate].backward(dg[:, :, 0, 0], gate)  # VCA.5

    # VCA.4 was a sum: each of its terms receives all of da
    da_runs = [da for _ in runs]  # VCA.4

    # VCA.3 used the same weights in every run: a gradient from each use, and their sum
    undone = [mlp_backward(da_j, run, settings.act) for da_j, run in zip(da_runs, runs, strict=True)]  # VCA.3
    grads = reduce(added, [from_run for _, from_run in undone])

    # VCA.2 gave the descriptors as they are, or their mean, of which each has the same share
    dt = [dt_j for dt_j, _ in undone]
    ds = [dt[0] / len(pools)] * len(pools) if settings.mix == "before" else dt  # VCA.2

    # VCA.1 pooled x n times: its gradient comes back from all of them
    dx = [
        pool.backward(ds_i, cache_i) for pool, ds_i, cache_i in zip(settings.pairs(), ds, pools, strict=True)
    ]  # VCA.1
    return reduce(add, dx), grads


def added(one: Params, other: Params) -> Params:
    """The gradients of two uses of the same weights, together."""
    return Params(*(None if p is None else p + q for p, q in zip(one, other, strict=True)))


def checked_settings(pools: Sequence[str], mix: str, gate: str, max_tie: str, act: str) -> Settings:
    """The settings of these options, after checking each. Raises TypeError or ValueError for one that is unknown."""
    return Settings(
        names_of("pools", pools, NAMES),
        one_of("mix", mix, ("after", "before")),
        one_of("gate", gate, tuple(GATES)),
        one_of("max_tie", max_tie, ("first", "even")),
        one_of("act", act, tuple(HIDDEN)),
    )


def widths(channels: tuple[str, int], ratio: tuple[str, int], hidden: int | None, layers: int) -> dict[str, int]:
    """C, and R, the rows of the first FC, from arguments that come with their names.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or a hidden width is given where there is no hidden layer.
    """
    C = whole_number(*channels)
    whole_number(*ratio)
    if whole_number("layers", layers) > 2:
        raise ValueError(f"layers: expected 1 (one FC) or 2 (FC, ReLU, FC), got {layers}")
    if layers == 1:
        if hidden is not None:
            wanted = "expected None where layers=1, since one FC has no hidden units"
            raise ValueError(f"hidden: {wanted}, got {hidden!r}")
        return {"C": C, "R": C}
    return {"C": C, "R": hidden_width(*channels, *ratio) if hidden is None else whole_number("hidden", hidden)}


def left_out(bias: bool, layers: int) -> tuple[str, ...]:
    """The fields of Params that are not there. Raises TypeError if bias is no bool."""
    return (() if true_or_false("bias", bias) else ("b1", "b2")) + (() if layers == 2 else ("w2", "b2"))


class ChannelAttention(Block):
    """Channel attention with options as a layer: x (N, C, H, W) to its gate (N, C, 1, 1).

    Parameters
    ----------
    in_planes
        C, at least 1.
    ratio
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    hidden
        The hidden width itself. The ratio has no say then.
    bias
        Whether the FC have biases.
    pools
        What describes a channel: a tuple of "avg", "max", "lp" (its length, √Σx²), "lse" (log Σ exp x), none twice.
    mix
        "after": every descriptor through the MLP, then the sum. "before": the mean of the descriptors through the MLP.
    layers
        2: FC, ReLU, FC. 1: one FC, C to C, with no hidden width.
    gate
        "sigmoid", or "hard_sigmoid": a/6 + 1/2 between 0 and 1; with other slopes "hard_sigmoid_5" (1/5),
        "paddle_hard_sigmoid" (0.1666667) and "torch_hard_sigmoid" (its gradient only, 1/6 rounded to float32).
    max_tie
        Which of several equal maxima gets the gradient: the "first", or all an "even" part.
    act
        What stands between the two FC: "relu" or "silu". With layers=1 there is nothing between.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "fc1.weight" (C//r, C, 1, 1) and "fc2.weight" (C, C//r, 1, 1), with biases "fc1.bias" (C//r,) and "fc2.bias"
        (C,).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, ratio > in_planes, an option is not among those named, bias no
        bool, or `hidden` is given with layers=1.

    Notes
    -----
    Derivation: docs/variants.md
    """

    input_axes = "N C H W"
    state = (
        Weight("fc1.weight", "w1", "R C", stored="R C 1 1"),
        Weight("fc1.bias", "b1", "R", fan_in="C"),
        Weight("fc2.weight", "w2", "C R", stored="C R 1 1"),
        Weight("fc2.bias", "b2", "C", fan_in="R"),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"in_planes": "C", "ratio": "r"}
    card = Card(
        "variants.channel",
        "channel attention with options",
        asks="what matters?",
        gives="g (N, C, 1, 1)",
        source="Woo et al., ECCV 2018, section 3.1, and the codebases that vary it",
        page="variants",
        seed=4,
        gate=True,
        group=None,
        forms=(
            Form("channel-avg", "channel attention from the average only", {"pools": ("avg",)}, "poolings"),
            Form("channel-max", "channel attention from the maximum only", {"pools": ("max",)}, "poolings"),
            Form("channel-bias", "channel attention, FC with biases", {"bias": True}),
            Form("channel-lp", "channel attention, lp", {"pools": ("lp",)}),
            Form("channel-lse", "channel attention, lse", {"pools": ("lse",)}),
            Form("channel-all-pools", "channel attention, four pools", {"pools": NAMES, "bias": True}),
            Form("channel-before", "channel attention, poolings averaged", {"pools": NAMES, "mix": "before"}),
            Form("channel-one-fc", "channel attention by one FC", {"layers": 1, "bias": True}),
            Form("channel-hard-sigmoid", "channel attention, hard sigmoid", {"gate": "hard_sigmoid"}),
            Form("channel-silu", "channel attention, SiLU", {"act": "silu"}),
            Form("channel-even-ties", "channel attention, even ties", {"max_tie": "even"}),
        ),
    )  # fmt: skip

    def __init__(
        self,
        in_planes: int,
        ratio: int = 16,
        *,
        hidden: int | None = None,
        bias: bool = False,
        pools: Sequence[str] = ("avg", "max"),
        mix: str = "after",
        layers: int = 2,
        gate: str = "sigmoid",
        max_tie: str = "first",
        act: str = "relu",
        **options: Unpack[Options],
    ) -> None:
        settings = {"settings": checked_settings(pools, mix, gate, max_tie, act)}
        sizes = widths(("in_planes", in_planes), ("ratio", ratio), hidden, layers)
        super().__init__(sizes, without=left_out(bias, layers), settings=settings, **options)
