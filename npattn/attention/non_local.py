"""Non-local attention: every pixel receives a mean over all pixels, weighted by how well their contents fit its own.

    x (N, C, H, W)   P = H·W pixels   w_q, w_k, w_v (R, C)   w_o (C, R)   each with a b, or none   norm: gamma, beta (C)

    NL.1   t = x, a pixel a row                         (N, P, C)
    NL.2   q = t w_qᵀ + b_q, and so k and v             (N, P, R)      what a pixel asks, offers, and gives
    NL.3   z = softmax(scale · q kᵀ) v                  (N, P, R)      all pixels against all
    NL.4   o = z w_oᵀ + b_o, in rows and columns        (N, C, H, W)
    NL.5   u = batch norm of o                          (N, C, H, W)
    NL.6   y = x + u                                    (N, C, H, W)

x is used four times: for queries, keys and values, and by itself. gamma begins at 0, so that at first y is x.
Wang et al., Non-local Neural Networks, CVPR 2018, equations 1 to 6, the embedded Gaussian form; in the paper q, k, v
and o are θ, φ, g and W_z. Derivation: docs/blocks/non-local.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, real_number, same_shape, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import batch_norm, dot_product_attention, linear
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w_q: Array  # (R, C)
    w_k: Array  # (R, C)
    w_v: Array  # (R, C)
    w_o: Array  # (C, R)
    norm: batch_norm.Params  # gamma, beta (C)
    b_q: Array | None = None  # (R)
    b_k: Array | None = None  # (R)
    b_v: Array | None = None  # (R)
    b_o: Array | None = None  # (C)


class Running(NamedTuple):
    norm: batch_norm.Running  # mean, var (C)


class Cache(NamedTuple):
    queries: linear.Cache
    keys: linear.Cache
    values: linear.Cache
    attended: dot_product_attention.Cache
    outward: linear.Cache
    norm: batch_norm.Cache


def forward(
    x: Array, params: Params, running: Running | None = None, scale: float | None = None
) -> tuple[Array, Cache]:
    """Add to every pixel what it receives from all.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_q, w_k and w_v (R, C), w_o (C, R), their biases or None, and norm with gamma and beta (C).
    running
        The statistics to normalise by, mean and variance (C), or None for those of the batch.
    scale
        What the scores are multiplied by. None is 1/√R.

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
    w_q, w_k, w_v, w_o, of_norm, b_q, b_k, b_v, b_o = params
    xp = floating(x=x, w_q=w_q, w_k=w_k, w_v=w_v, w_o=w_o, b_q=b_q, b_k=b_k, b_v=b_v, b_o=b_o, **of_norm._asdict())
    sizes = shaped_params(params, w_o="C R", w_q="R C", w_k="R C", w_v="R C", b_q="R", b_k="R", b_v="R", b_o="C")
    N, C, H, W = some_pixels(x, **sizes)
    dot_product_attention.room_for_pairs("x", x, N, H * W, H * W)

    t = xp.reshape(x, (N, C, H * W)).mT  # NL.1
    q, queries = linear.forward(t, linear.Params(w_q, b_q))  # NL.2
    k, keys = linear.forward(t, linear.Params(w_k, b_k))  # NL.2
    v, values = linear.forward(t, linear.Params(w_v, b_v))  # NL.2
    z, attended = dot_product_attention.forward(q, k, v, scale)  # NL.3
    rows, outward = linear.forward(z, linear.Params(w_o, b_o))  # NL.4
    o = xp.reshape(rows.mT, (N, C, H, W))  # NL.4
    u, norm = batch_norm.forward(o, of_norm, None if running is None else running.norm)  # NL.5
    y = x + u  # NL.6
    return y, Cache(queries, keys, values, attended, outward, norm)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients of the weights, of the norm and of the biases.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_q, dw_k, dw_v, dw_o, dnorm, and those of the biases, None where these were.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    queries, keys, values, attended, outward, norm = cache
    N, C, H, W = norm.x_hat.shape
    xp = floating(dy=dy)  # batch_norm.backward compares it with what the cache holds
    same_shape("dy", dy, (N, C, H, W), "the output y")

    # NL.6 was y = x + u: both receive dy
    dx_direct, du = dy, dy  # NL.6

    # NL.5 was a normalisation, by statistics that the whole batch had a hand in, or by constants
    do, dnorm = batch_norm.backward(du, norm)  # NL.5

    # NL.4 was o = z w_oᵀ + b_o
    dz, (dw_o, db_o) = linear.backward(xp.reshape(do, (N, C, H * W)).mT, outward)  # NL.4

    # NL.3 was an attention of all pixels to all
    dq, dk, dv = dot_product_attention.backward(dz, attended)  # NL.3

    # NL.2 made all three of t
    dt_v, (dw_v, db_v) = linear.backward(dv, values)  # NL.2
    dt_k, (dw_k, db_k) = linear.backward(dk, keys)  # NL.2
    dt_q, (dw_q, db_q) = linear.backward(dq, queries)  # NL.2

    # NL.1 only moved numbers. t was used three times, and x once more: its gradient comes back four ways
    dx_pixels = xp.reshape((dt_q + dt_k + dt_v).mT, (N, C, H, W))  # NL.1
    dx = dx_direct + dx_pixels
    return dx, Params(dw_q, dw_k, dw_v, dw_o, dnorm, db_q, db_k, db_v, db_o)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    return Running(batch_norm.updated(running.norm, cache.norm, momentum))


class NonLocal(Block):
    """Non-local attention as a layer: x (N, C, H, W) to x and what comes from all pixels, the same shape.

    Memory and time grow with (H W)².

    Parameters
    ----------
    in_channels
        C, at least 1.
    ratio
        The hidden width is C // ratio, so 1 ≤ ratio ≤ C: 2 in the paper.
    hidden
        The hidden width R itself. The ratio has no say then.
    scale
        What the scores are multiplied by. None is 1/√R, as in the authors' code; 1 is the paper's formula.
    bias
        Whether the four maps have one. That of the keys has no effect; in training only that of the queries has.
    momentum
        The share of a batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "theta.weight", "phi.weight" and "g.weight" (R, C, 1, 1), "out.weight" (C, R, 1, 1), "bn.weight", 0 at first,
        and "bn.bias" (C,); with biases "theta.bias", "phi.bias", "g.bias" (R,) and "out.bias" (C,).
    buffers
        "bn.running_mean" and "bn.running_var" (C,); `num_batches_tracked` counts their moves.
    attention
        "pairs" (N, H, W, H, W): the share that the first pixel gives to the second one; of each first pixel they add up
        to 1.

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or ratio > in_channels with hidden=None.
    MemoryError
        In forward, if the pairs take more memory than there is.
    """

    input_axes = "N C H W"
    state = (
        Weight("theta.weight", "w_q", "R C", stored="R C 1 1"),
        Weight("theta.bias", "b_q", "R", fan_in="C"),
        Weight("phi.weight", "w_k", "R C", stored="R C 1 1"),
        Weight("phi.bias", "b_k", "R", fan_in="C"),
        Weight("g.weight", "w_v", "R C", stored="R C 1 1"),
        Weight("g.bias", "b_v", "R", fan_in="C"),
        Weight("out.weight", "w_o", "C R", stored="C R 1 1"),
        Weight("out.bias", "b_o", "C", fan_in="R"),
        *batch_norm.declared("bn", "norm", "C", start=0),
    )
    gates = {"pairs": ("attended.shares.y", "N H W H W")}
    arguments = {"in_channels": "C", "ratio": "r"}
    card = Card(
        "non-local",
        "non-local attention",
        asks="which pixel matters to which, by content?",
        gives="x + norm(w_o z), z = softmax(q kᵀ) v",
        source="Wang et al., CVPR 2018, equations 1 to 6",
        page="blocks/non-local",
        size=(1, 2, 1, 3),
        seed=367,
        most_pixels=196,  # the shares of all pairs grow with the square of it
    )

    def __init__(
        self,
        in_channels: int,
        ratio: int = 2,
        *,
        hidden: int | None = None,
        scale: float | None = None,
        bias: bool = False,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("in_channels", in_channels)
        R = hidden_width("in_channels", C, "ratio", ratio) if hidden is None else whole_number("hidden", hidden)
        without = () if true_or_false("bias", bias) else ("b_q", "b_k", "b_v", "b_o")
        settings = {"scale": scale if scale is None else real_number("scale", scale)}
        super().__init__({"C": C, "R": R}, without=without, settings=settings, momentum=momentum, **options)
