"""ECA, efficient channel attention: a channel's gate is decided by its neighbours, by one small convolution.

    x (N, C, H, W)   w (R, k), k odd   q = k // 2   R = 1, and no b, w1, b1, unless there is a hidden layer
    with one: R hidden units a channel, w1, b1 (R), b (1)

    ECA.1   s = mean over the pixels of x                      (N, C)
    ECA.2   f = s, or relu(w1 s + b1)                          (N, R, C)       every channel for itself
    ECA.3   f̄ = f with q more at both ends                     (N, R, C + 2q)  zeros, or what stands at the other end
    ECA.4   a_c = Σ_r Σ_j w_rj f̄_{r, c + j} + b                (N, C)          j = 0 … k − 1
    ECA.5   g = gate(a)                                        (N, C)
    ECA.6   y = x · g                                          (N, C, H, W)

There is no bottleneck, and k numbers take the place of two matrices. x is used twice, in ECA.1 and in ECA.6.
Wang et al., ECA-Net, CVPR 2020, equations 9 and 12. Derivation: docs/blocks/eca.md
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

from npattn.backend import Array, copied, device
from npattn.block import Block, Card, Form, Weight
from npattn.checks import absent, floating, odd, one_of, real_number, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import global_avg_pool, relu
from npattn.ops.gate_functions import GATES

ENDS = ("zeros", "ring")


class Params(NamedTuple):
    w: Array  # (R, k)
    b: Array | None = None  # (1)
    w1: Array | None = None  # (R)
    b1: Array | None = None  # (R)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    s: Array  # (N, C)
    g: Array  # (N, C)
    squeeze: global_avg_pool.Cache
    hidden: relu.Cache | None  # None without a hidden layer
    shifts: Array  # (N, R, C, k)
    params: Params
    gate: str  # which gate
    gated: Any  # its cache
    ends: str


def forward(x: Array, params: Params, gate: str = "sigmoid", ends: str = "zeros") -> tuple[Array, Cache]:
    """Scale every channel of x by a gate that its neighbours decide.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (R, k) with k odd, and with a hidden layer b (1), w1 and b1 (R).
    gate
        "sigmoid" or "hard_sigmoid".
    ends
        "zeros", or "ring": the last channel is a neighbour of the first.

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
    w, b, w1, b1 = params
    xp = floating(x=x, w=w, b=b, w1=w1, b1=b1)
    one_of("gate", gate, tuple(GATES))
    one_of("ends", ends, ENDS)
    R, k = shaped("w", w, "R k")
    odd("w (its last axis)", k)
    N, C, _, _ = shaped("x", x, "N C H W")
    q = k // 2
    if ends == "ring" and q > C:
        raise ValueError(f"w (its last axis): expected at most 2 C + 1 = {2 * C + 1} for a ring of C = {C}, got {k}")
    if w1 is None:
        shaped("w", w, "R k", R=1)
        absent("b", b, "without w1")
        absent("b1", b1, "without w1")
    else:
        for name, value, axis in (("b", b, "1"), ("w1", w1, "R"), ("b1", b1, "R")):
            shaped(name, value, axis, R=R)

    s, squeeze = global_avg_pool.forward(x)  # ECA.1
    if w1 is None or b1 is None:
        f, hidden = s[:, None, :], None  # ECA.2
    else:
        f, hidden = relu.forward(w1[:, None] * s[:, None, :] + b1[:, None])  # ECA.2
    zeros = xp.zeros((N, R, q), dtype=s.dtype, device=device(s))
    before, behind = (f[:, :, C - q :], f[:, :, :q]) if ends == "ring" else (zeros, zeros)
    padded = xp.concat([before, f, behind], axis=2)  # ECA.3
    shifts = xp.stack([padded[:, :, j : j + C] for j in range(k)], axis=3)
    a = xp.sum(shifts * w[:, None, :], axis=(1, 3))  # ECA.4
    if b is not None:
        a = a + b  # ECA.4
    g, gated = GATES[gate].forward(a)  # ECA.5
    y = x * g[:, :, None, None]  # ECA.6
    return y, Cache(x, s, g, squeeze, hidden, shifts, params, gate, gated, ends)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, db, dw1, db1), None where the parameter was.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw, db, dw1 and db1, None where the parameter was.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s, g, squeeze, hidden, shifts, (w, b, w1, _), gate, gated, ends = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    N, R, C, k = shifts.shape
    q = k // 2

    # ECA.6 was y = x · g: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    dx_direct = dy * g[:, :, None, None]  # ECA.6
    dg = xp.sum(dy * x, axis=(2, 3))  # ECA.6

    # ECA.5 was g = gate(a)
    da = GATES[gate].backward(dg, gated)  # ECA.5

    # ECA.4 read every number of f̄ up to k times, each time with another weight: what comes back adds
    dw = xp.sum(shifts * da[:, None, :, None], axis=(0, 2))  # ECA.4
    db = None
    if b is not None:
        db = xp.reshape(xp.sum(da), (1,))  # ECA.4
    dpadded = xp.zeros((N, R, C + 2 * q), dtype=dy.dtype, device=device(dy))
    for j in range(k):
        dpadded[:, :, j : j + C] += da[:, None, :] * w[:, j][:, None]  # ECA.4

    # ECA.3 put zeros at the ends, which are constants, or numbers that stand at the other end as well
    df = copied(dpadded[:, :, q : q + C])  # ECA.3
    if ends == "ring":
        df[:, :, C - q :] += dpadded[:, :, :q]  # ECA.3
        df[:, :, :q] += dpadded[:, :, q + C :]  # ECA.3

    # ECA.2 was f = s, or relu(w1 s + b1) with the same w1 and b1 for all channels
    if hidden is None or w1 is None:
        dw1 = db1 = None
        ds = df[:, 0, :]  # ECA.2
    else:
        dz = relu.backward(df, hidden)  # ECA.2
        ds = xp.sum(dz * w1[:, None], axis=1)  # ECA.2
        dw1 = xp.sum(dz * s[:, None, :], axis=(0, 2))  # ECA.2
        db1 = xp.sum(dz, axis=(0, 2))  # ECA.2

    # ECA.1 was a mean: every pixel has the same share in it
    dx_gate = global_avg_pool.backward(ds, squeeze)  # ECA.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx, Params(dw, db, dw1, db1)


def adaptive_kernel(channel: int, gamma: float = 2, beta: float = 1) -> int:
    """The kernel size for C channels, |log2(C)/γ + β/γ| cut to a whole number, and one more if that is even.

    Source: Wang et al. 2020, equation 12, rounded as the authors' code does.
    """
    t = int(abs(math.log2(channel) + beta) / gamma)
    return t if t % 2 else t + 1


class ECA(Block):
    """Efficient channel attention as a layer: x (N, C, H, W) to x times its channel gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1; it decides the kernel size where that is None. None with a kernel size takes any C.
    kernel_size
        k, odd, or None for `adaptive_kernel(channel, gamma, beta)`.
    gamma, beta
        γ > 0 and β of that rule: 2 and 1 in the paper.
    hidden
        R ≥ 1: so many hidden units a channel, with biases, before the convolution (timm's MLP form). None for none.
    ends
        "zeros", or "ring": the channels stand in a circle (CECA), and k is at most 2 C + 1.
    gate
        "sigmoid", or "hard_sigmoid": a/6 + 1/2 between 0 and 1.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv.weight" (1, 1, k). With a hidden layer "conv.weight" (1, R, k), "conv.bias" (1,), "fc.weight" and
        "fc.bias" (R,).
    attention
        "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, the kernel size even, or both channel and kernel_size None.
    """

    input_axes = "N C H W"
    state = (
        Weight("conv.weight", "w", "R k", stored="1 R k"),
        Weight("conv.bias", "b", "1", fan_in="R k"),
        Weight("fc.weight", "w1", "R"),
        Weight("fc.bias", "b1", "R"),
    )
    gates = {"channel": ("g", "N C 1 1")}
    arguments = {"channel": "C"}
    card = Card(
        "eca",
        "efficient channel attention (ECA)",
        asks="what matters?",
        gives="x · g",
        source="Wang et al., CVPR 2020, equations 9 and 12",
        page="blocks/eca",
        what="efficient channel attention",
        size=(1, 8, 1, 2),
        forms=(
            Form("eca-hard-sigmoid", "efficient channel attention, hard sigmoid", {"gate": "hard_sigmoid"}),
            Form("eca-k5", "efficient channel attention of five neighbours", {"kernel_size": 5}),
            Form("eca-mlp", "efficient channel attention with a hidden layer", {"hidden": 4}, "blocks"),
            Form("ceca", "circular efficient channel attention (CECA)", {"ends": "ring"}, "blocks"),
        ),
    )

    def __init__(
        self,
        channel: int | None = None,
        kernel_size: int | None = None,
        *,
        gamma: float = 2,
        beta: float = 1,
        hidden: int | None = None,
        ends: str = "zeros",
        gate: str = "sigmoid",
        **options: Unpack[Options],
    ) -> None:
        if channel is None and kernel_size is None:
            raise ValueError("channel, kernel_size: expected at least one of them, got None twice")
        sizes = {} if channel is None else {"C": whole_number("channel", channel)}
        gamma, beta = real_number("gamma", gamma, least=1e-6), real_number("beta", beta)
        sizes["k"] = (
            adaptive_kernel(sizes["C"], gamma, beta) if kernel_size is None else odd("kernel_size", kernel_size)
        )
        sizes["R"] = 1 if hidden is None else whole_number("hidden", hidden)
        settings = {"gate": one_of("gate", gate, tuple(GATES)), "ends": one_of("ends", ends, ENDS)}
        without = ("b", "w1", "b1") if hidden is None else ()
        super().__init__(sizes, settings=settings, without=without, **options)
