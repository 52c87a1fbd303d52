"""Double attention (A²): what an image has is gathered into a few descriptors, and each pixel takes what it needs.

    x (N, C, H, W)   P = H·W pixels   M features   K descriptors
    w_a (M, C)   b_a (M)   w_b (K, C)   b_b (K) or none   w_v (K, C)   b_v (K)   w_o (C, M)   b_o (C)

    A2.1   t = x, a pixel a row                   (N, P, C)
    A2.2   a = t w_aᵀ + b_a                       (N, P, M)      a pixel's features
    A2.3   β = softmax of (t w_bᵀ + b_b)ᵀ         (N, K, P)      over the pixels: a descriptor's share in each
    A2.4   ν = softmax of (t w_vᵀ + b_v)ᵀ         (N, K, P)      over the descriptors: a pixel's share of each
    A2.5   G = β a                                (N, K, M)      gather: K weighted means of the features
    A2.6   z = νᵀ G                               (N, P, M)      distribute: of these a mean for each pixel
    A2.7   y = x + z w_oᵀ + b_o                   (N, C, H, W)   without the x in two codebases

x is used four times, in A2.2, A2.3, A2.4 and A2.7.
Chen et al., A²-Nets: Double Attention Networks, NeurIPS 2018, section "The Double Attention Block".
Derivation: docs/blocks/double-attention.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, hidden_width, one_of, same_shape, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import linear, softmax
from npattn.ops.pooling import some_pixels

AXES = {"pixels": 2, "descriptors": 1}  # of (N, K, P)


class Params(NamedTuple):
    w_a: Array  # (M, C)
    b_a: Array  # (M)
    w_b: Array  # (K, C)
    w_v: Array  # (K, C)
    b_v: Array  # (K)
    w_o: Array  # (C, M)
    b_o: Array  # (C)
    b_b: Array | None = None  # (K)


class Cache(NamedTuple):
    a: Array  # (N, P, M)
    beta: Array  # (N, K, P)
    nu: Array  # (N, K, P)
    G: Array  # (N, K, M)
    features: linear.Cache
    gather: linear.Cache
    shares: softmax.Cache
    distribute: linear.Cache
    among: softmax.Cache
    out: linear.Cache
    shape: tuple[int, int, int, int]  # of x
    residual: bool


def forward(x: Array, params: Params, over: str = "pixels", residual: bool = True) -> tuple[Array, Cache]:
    """Give every pixel its own mean of a few descriptors of the image.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_a (M, C), b_a (M), w_b and w_v (K, C), b_v and, or not, b_b (K), w_o (C, M), b_o (C).
    over
        What the first softmax runs over: the "pixels", or the "descriptors".
    residual
        Whether x is added at the end.

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
    w_a, b_a, w_b, w_v, b_v, w_o, b_o, b_b = params
    xp = floating(x=x, **params._asdict())
    axis = AXES[one_of("over", over, tuple(AXES))]
    sizes = shaped_params(params, w_a="M C", b_a="M", w_b="K C", w_v="K C", b_v="K", w_o="C M", b_o="C", b_b="K")
    N, C, H, W = some_pixels(x, **sizes)

    t = xp.reshape(x, (N, C, H * W)).mT  # A2.1
    a, features = linear.forward(t, linear.Params(w_a, b_a))  # A2.2
    scores, gather = linear.forward(t, linear.Params(w_b, b_b))  # A2.3
    beta, shares = softmax.forward(scores.mT, axis)  # A2.3
    needs, distribute = linear.forward(t, linear.Params(w_v, b_v))  # A2.4
    nu, among = softmax.forward(needs.mT, 1)  # A2.4
    G = beta @ a  # A2.5
    z = nu.mT @ G  # A2.6
    rows, out = linear.forward(z, linear.Params(w_o, b_o))  # A2.7
    y = xp.reshape((t + rows if residual else rows).mT, (N, C, H, W))  # A2.7
    cache = Cache(a, beta, nu, G, features, gather, shares, distribute, among, out, (N, C, H, W), residual)
    return y, cache


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of all weights, None where b_b was.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_a, db_a, dw_b, dw_v, db_v, dw_o, db_o and db_b.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    a, beta, nu, G, features, gather, shares, distribute, among, out, (N, C, H, W), residual = cache
    xp = floating(dy=dy)  # linear.backward compares it with what the cache holds
    same_shape("dy", dy, (N, C, H, W), "the output y")

    # A2.7 was y = x + z w_oᵀ + b_o
    dy_rows = xp.reshape(dy, (N, C, H * W)).mT
    dz, (dw_o, db_o) = linear.backward(dy_rows, out)  # A2.7

    # A2.6 was z = νᵀ G: each factor receives dz times the other
    dG = nu @ dz  # A2.6
    dnu = G @ dz.mT  # A2.6

    # A2.5 was G = β a: the same again
    da = beta.mT @ dG  # A2.5
    dbeta = dG @ a.mT  # A2.5

    # A2.4 and A2.3 were two softmaxes of two products, along different axes
    dneeds = softmax.backward(dnu, among).mT  # A2.4
    dt_v, (dw_v, db_v) = linear.backward(dneeds, distribute)  # A2.4
    dscores = softmax.backward(dbeta, shares).mT  # A2.3
    dt_b, (dw_b, db_b) = linear.backward(dscores, gather)  # A2.3

    # A2.2 was a = t w_aᵀ + b_a
    dt_a, (dw_a, db_a) = linear.backward(da, features)  # A2.2

    # t was used three times, and x by itself: its gradient comes back from four
    dt = dt_a + dt_b + dt_v
    if residual:
        dt = dt + dy_rows

    # A2.1 only moved numbers
    dx = xp.reshape(dt.mT, (N, C, H, W))  # A2.1
    return dx, Params(dw_a, db_a, dw_b, dw_v, db_v, dw_o, db_o, db_b)


class DoubleAttention(Block):
    """Double attention as a layer: x (N, C, H, W) to the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: there are C // r features and C // r descriptors, so 1 ≤ r ≤ C.
    features, descriptors
        M and K themselves, at least 1. The ratio has no say then.
    over
        What the first softmax runs over: the "pixels", as in the paper, or the "descriptors".
    residual
        Whether x is added at the end, as in the paper.
    bias
        Whether there is a b_b. Over the pixels it has no effect.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "features.weight" (M, C, 1, 1), "features.bias" (M,), "gather.weight" (K, C, 1, 1), "gather.bias" (K,) if asked
        for, "distribute.weight" (K, C, 1, 1), "distribute.bias" (K,), "out.weight" (C, M, 1, 1), "out.bias" (C,).
    attention
        "gather" and "distribute" (N, K, H, W), a map for each descriptor: the first add up to 1 over the pixels (or
        the descriptors), the second over the descriptors.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, reduction > channel, over not among those named, or an option no bool.
    """

    input_axes = "N C H W"
    state = (
        Weight("features.weight", "w_a", "M C", stored="M C 1 1"),
        Weight("features.bias", "b_a", "M", fan_in="C"),
        Weight("gather.weight", "w_b", "K C", stored="K C 1 1"),
        Weight("gather.bias", "b_b", "K", fan_in="C"),
        Weight("distribute.weight", "w_v", "K C", stored="K C 1 1"),
        Weight("distribute.bias", "b_v", "K", fan_in="C"),
        Weight("out.weight", "w_o", "C M", stored="C M 1 1"),
        Weight("out.bias", "b_o", "C", fan_in="M"),
    )
    gates = {"gather": ("beta", "N K H W"), "distribute": ("nu", "N K H W")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "double-attention",
        "double attention (A²)",
        asks="what has the image, and which of it does a pixel need?",
        gives="x + w z",
        source="Chen et al., NeurIPS 2018, the double attention block",
        page="blocks/double-attention",
        what="double attention (A²)",
        size=(1, 2, 1, 3),
        seed=1,
        forms=(
            Form("double-attention-alone", "double attention without the sum", {"residual": False}),
            Form(
                "double-attention-descriptors",
                "double attention, two softmaxes over the descriptors",
                {"over": "descriptors", "bias": True, "residual": False},
            ),
        ),
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 4,
        *,
        features: int | None = None,
        descriptors: int | None = None,
        over: str = "pixels",
        residual: bool = True,
        bias: bool = False,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("channel", channel)
        R = hidden_width("channel", C, "reduction", reduction) if None in (features, descriptors) else 1
        M = R if features is None else whole_number("features", features)
        K = R if descriptors is None else whole_number("descriptors", descriptors)
        settings = {"over": one_of("over", over, tuple(AXES)), "residual": true_or_false("residual", residual)}
        without = () if true_or_false("bias", bias) else ("b_b",)
        super().__init__({"C": C, "M": M, "K": K}, without=without, settings=settings, **options)
