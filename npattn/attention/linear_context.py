"""Linear context transform (LCT): a gate is its channel's mean, seen against those of its group, times a number.

    x (N, C, H, W)   G groups of D = C / G channels   w, b (C)   ε > 0

    LCT.1   s = mean over the pixels of x                 (N, C)
    LCT.2   ŝ = layer norm of s in each group             (N, G, D)     mean 0, variance 1; nothing learnt
    LCT.3   a = w · ŝ + b                                 (N, C)        each channel for itself
    LCT.4   g = sigmoid(a)                                (N, C)
    LCT.5   y = x · g                                     (N, C, H, W)

SE's two matrices are gone: channels meet in the mean and the variance of their group only. LCT.2 and LCT.3 together
are a group norm. x is used twice, in LCT.1 and in LCT.5.
Ruan et al., Linear Context Transform Block, AAAI 2020, the section on the block. Derivation: docs/blocks/lct.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Further, Weight
from npattn.checks import floating, multiple_of, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, layer_norm, sigmoid


class Params(NamedTuple):
    w: Array  # (C)
    b: Array  # (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    s_hat: Array  # (N, C)
    g: Array  # (N, C)
    w: Array  # (C)
    squeeze: global_avg_pool.Cache
    norm: layer_norm.Cache
    gate: sigmoid.Cache


def forward(x: Array, params: Params, groups: int = 1, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that its mean decides, seen against those of its group.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w and b (C).
    groups
        A divisor of C.
    eps
        Above 0.

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
    w, b = params
    xp = floating(x=x, w=w, b=b)
    (C,) = shaped("w", w, "C")
    shaped("b", b, "C", C=C)
    multiple_of("x (its channels)", C, "groups", whole_number("groups", groups))
    N = shaped("x", x, "N C H W", C=C)[0]

    s, squeeze = global_avg_pool.forward(x)  # LCT.1
    grouped, norm = layer_norm.forward(xp.reshape(s, (N, groups, C // groups)), eps=eps)  # LCT.2
    s_hat = xp.reshape(grouped, (N, C))
    a = w * s_hat + b  # LCT.3
    g, gate = sigmoid.forward(a)  # LCT.4
    y = x * g[:, :, None, None]  # LCT.5
    return y, Cache(x, s_hat, g, w, squeeze, norm, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, db).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw and db.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s_hat, g, w, squeeze, norm, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    # LCT.5 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # LCT.5
    dg = xp.sum(dy * x, axis=(2, 3))  # LCT.5

    # LCT.4 was g = sigmoid(a)
    da = sigmoid.backward(dg, gate)  # LCT.4

    # LCT.3 was a = w · ŝ + b, one w and one b for all images
    ds_hat = da * w  # LCT.3
    dw = xp.sum(da * s_hat, axis=0)  # LCT.3
    db = xp.sum(da, axis=0)  # LCT.3

    # LCT.2 was a layer norm of each group
    dgrouped = xp.reshape(ds_hat, tuple(norm.x_hat.shape))
    ds, _ = layer_norm.backward(dgrouped, norm)  # LCT.2

    # LCT.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool.backward(xp.reshape(ds, tuple(s_hat.shape)), squeeze)  # LCT.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dw, db)


class LinearContext(Block):
    """The linear context transform as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channels
        C, at least 1.
    groups
        G, at least 1, a divisor of C.
    eps
        ε, above 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "w" and "b" (C,), 1 and 0 at first.
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or the channels do not fall into so many groups.
    """

    input_axes = "N C H W"
    state = (Weight("w", "w", "C", start=1), Weight("b", "b", "C", start=0))
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channels": "C", "groups": "G"}
    card = Card(
        "lct",
        "linear context transform (LCT)",
        asks="what matters, against its group?",
        gives="x · g",
        source="Ruan et al., AAAI 2020, the section on the block",
        page="blocks/lct",
        what="linear context transform (LCT)",
        size=(1, 6, 1, 2),
        seed=28,
        further=(Further({"groups": 2}, 2),),
    )

    def __init__(self, channels: int, groups: int, *, eps: float = 1e-5, **options: Unpack[Options]) -> None:
        C, G = whole_number("channels", channels), whole_number("groups", groups)
        multiple_of("channels", C, "groups", G)
        eps = real_number("eps", eps, least=layer_norm.SMALLEST)
        super().__init__({"C": C}, settings={"groups": G, "eps": eps}, **options)
