"""DANet's position attention: every pixel receives a mean over all pixels, times one number that is learnt.

    x (N, C, H, W)   P = H·W pixels   w_q, w_k (R, C)   w_v (C, C)   each with a b, or none   alpha (1)

    DAP.1   t = x, a pixel a row                   (N, P, C)
    DAP.2   q = t w_qᵀ + b_q, and so k and v       (N, P, R), of v (N, P, C)
    DAP.3   z = softmax(q kᵀ) v                    (N, P, C)      all pixels against all, with no scale
    DAP.4   y = x + alpha z, in rows and columns   (N, C, H, W)

x is used four times: for queries, keys and values, and by itself. alpha begins at 0, so that at first y is x.
Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, equations 1 and 2. Derivation: docs/blocks/danet.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import dot_product_attention, linear
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w_q: Array  # (R, C)
    w_k: Array  # (R, C)
    w_v: Array  # (C, C)
    alpha: Array  # (1)
    b_q: Array | None = None  # (R)
    b_k: Array | None = None  # (R)
    b_v: Array | None = None  # (C)


class Cache(NamedTuple):
    queries: linear.Cache
    keys: linear.Cache
    values: linear.Cache
    attended: dot_product_attention.Cache
    z: Array  # (N, P, C)
    alpha: Array  # (1)
    shape: tuple[int, int, int, int]  # of x


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Add to every pixel what it receives from all.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_q and w_k (R, C), w_v (C, C), alpha (1), and their biases or None.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache
        It holds the shares of all pairs: N (H W)² numbers.

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    MemoryError
        If the pairs take more memory than there is.
    """
    w_q, w_k, w_v, alpha, b_q, b_k, b_v = params
    xp = floating(x=x, **params._asdict())
    sizes = shaped_params(params, w_q="R C", w_k="R C", w_v="C C", alpha="1", b_q="R", b_k="R", b_v="C")
    N, C, H, W = some_pixels(x, **sizes)
    dot_product_attention.room_for_pairs("x", x, N, H * W, H * W)

    t = xp.reshape(x, (N, C, H * W)).mT  # DAP.1
    q, queries = linear.forward(t, linear.Params(w_q, b_q))  # DAP.2
    k, keys = linear.forward(t, linear.Params(w_k, b_k))  # DAP.2
    v, values = linear.forward(t, linear.Params(w_v, b_v))  # DAP.2
    z, attended = dot_product_attention.forward(q, k, v, scale=1)  # DAP.3
    y = x + xp.reshape((alpha * z).mT, (N, C, H, W))  # DAP.4
    return y, Cache(queries, keys, values, attended, z, alpha, (N, C, H, W))


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of the weights, of alpha and of the biases.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_q, dw_k, dw_v, dalpha, and those of the biases, None where these were.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    queries, keys, values, attended, z, alpha, (N, C, H, W) = cache
    xp = floating(dy=dy, z=z)
    same_shape("dy", dy, (N, C, H, W), "the output y")

    # DAP.4 was y = x + alpha z: x receives dy, z alpha times that, and alpha, one number for all, what all say of it
    dx_direct = dy  # DAP.4
    dy_rows = xp.reshape(dy, (N, C, H * W)).mT
    dz = alpha * dy_rows  # DAP.4
    dalpha = xp.reshape(xp.sum(dy_rows * z), (1,))  # DAP.4

    # DAP.3 was an attention of all pixels to all
    dq, dk, dv = dot_product_attention.backward(dz, attended)  # DAP.3

    # DAP.2 made all three of t
    dt_v, (dw_v, db_v) = linear.backward(dv, values)  # DAP.2
    dt_k, (dw_k, db_k) = linear.backward(dk, keys)  # DAP.2
    dt_q, (dw_q, db_q) = linear.backward(dq, queries)  # DAP.2

    # DAP.1 only moved numbers. t was used three times, and x once more: its gradient comes back four ways
    dx_pixels = xp.reshape((dt_q + dt_k + dt_v).mT, (N, C, H, W))  # DAP.1
    dx = dx_direct + dx_pixels
    return dx, Params(dw_q, dw_k, dw_v, dalpha, db_q, db_k, db_v)


class DANetPosition(Block):
    """DANet's position attention as a layer: x (N, C, H, W) to x and what comes from all pixels, the same shape.

    Memory and time grow with (H W)².

    Parameters
    ----------
    in_dim
        C, at least 1.
    ratio
        Queries and keys have R = C // ratio numbers, so 1 ≤ ratio ≤ C: 8 in the authors' code, 1 in the paper. Values
        have C.
    bias
        Whether the three maps have one, as in the authors' code. That of the keys has no effect.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "query_conv.weight" and "key_conv.weight" (R, C, 1, 1), "value_conv.weight" (C, C, 1, 1), "gamma" (1,), 0 at
        first, the paper's α; with biases "query_conv.bias", "key_conv.bias" (R,) and "value_conv.bias" (C,).
    attention
        "pairs" (N, H, W, H, W): the share that the first pixel gives to the second one; of each first pixel they add up
        to 1.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or ratio > in_dim.
    MemoryError
        In forward, if the pairs take more memory than there is.
    """

    input_axes = "N C H W"
    state = (
        Weight("gamma", "alpha", "1", start=0),
        Weight("query_conv.weight", "w_q", "R C", stored="R C 1 1"),
        Weight("query_conv.bias", "b_q", "R", fan_in="C"),
        Weight("key_conv.weight", "w_k", "R C", stored="R C 1 1"),
        Weight("key_conv.bias", "b_k", "R", fan_in="C"),
        Weight("value_conv.weight", "w_v", "C C", stored="C C 1 1"),
        Weight("value_conv.bias", "b_v", "C", fan_in="C"),
    )
    gates = {"pairs": ("attended.shares.y", "N H W H W")}
    arguments = {"in_dim": "C", "ratio": "r"}
    card = Card(
        "danet-position",
        "DANet's position attention",
        asks="which pixel matters to which, by content?",
        gives="x + α z, z = softmax(q kᵀ) v",
        source="Fu et al., CVPR 2019, equations 1 and 2",
        page="blocks/danet",
        size=(1, 2, 1, 3),
        seed=140,
        most_pixels=196,  # the shares of all pairs grow with the square of it
    )

    def __init__(self, in_dim: int, ratio: int = 8, *, bias: bool = False, **options: Unpack[Options]) -> None:
        C = whole_number("in_dim", in_dim)
        sizes = {"C": C, "R": hidden_width("in_dim", C, "ratio", ratio)}
        super().__init__(sizes, without=() if true_or_false("bias", bias) else ("b_q", "b_k", "b_v"), **options)
