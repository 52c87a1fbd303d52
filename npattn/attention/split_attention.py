"""Split attention: a convolution makes several branches, and a softmax over them says how much each has in the output.

    x (N, C, H, W)   J branches, each of M channels on H'·W' pixels   G groups   R hidden units
    w (JM, C/JG, k, k)   b (JM) or none   w1 (R, M/G)   b1 (R)   w2 (JM, R/G)   b2 (JM)

    SPLIT.1    z = w ∗ x + b                        (N, JM, H', W')      in J·G groups: branch j sees a J-th of x
    SPLIT.2    v = relu(z), a branch by itself      (N, J, M, H', W')
    SPLIT.3    u = Σ_j v_j                          (N, M, H', W')
    SPLIT.4    s = mean over the pixels of u        (N, M)
    SPLIT.5    q = w1 s + b1                        (N, R)               in G groups
    SPLIT.6    h = relu(q)                          (N, R)
    SPLIT.7    a = w2 h + b2                        (N, JM)              in G groups: those are in front
    SPLIT.8    t = a turned, the branches in front  (N, J, M)
    SPLIT.9    g = softmax over the branches of t   (N, J, M)            of one branch, the sigmoid
    SPLIT.10   y = Σ_j v_j · g_j                    (N, M, H', W')

v is used twice, in SPLIT.3 and SPLIT.10, and x once: all of y has gone through the convolution. J is called the radix,
and G the cardinality. Zhang et al., ResNeSt, 2020, section 3.1. Derivation: docs/blocks/split-attention.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Further, Weight
from npattn.checks import floating, hidden_width, multiple_of, odd, same_shape, shaped, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import general_conv, global_avg_pool, relu, sigmoid, softmax


class Params(NamedTuple):
    w: Array  # (JM, C/JG, k, k)
    w1: Array  # (R, M/G)
    b1: Array  # (R)
    w2: Array  # (JM, R/G)
    b2: Array  # (JM)
    b: Array | None = None  # (JM)


class Cache(NamedTuple):
    v: Array  # (N, J, M, H', W')
    g: Array  # (N, J, M)
    groups: int
    conv: general_conv.Cache
    rectified: relu.Cache
    squeeze: global_avg_pool.Cache
    fc1: general_conv.Cache
    hidden: relu.Cache
    fc2: general_conv.Cache
    gate: softmax.Cache | sigmoid.Cache


def fc_forward(x: Array, w: Array, b: Array, groups: int) -> tuple[Array, general_conv.Cache]:
    """A fully connected layer in groups, x (N, K) to (N, L): the convolution of maps of one pixel."""
    of_pixel = general_conv.Params(w[:, :, None, None], b)
    y, cache = general_conv.forward(x[:, :, None, None], of_pixel, groups=groups)
    return y[:, :, 0, 0], cache


def fc_backward(dy: Array, cache: general_conv.Cache) -> tuple[Array, Array, Array]:
    """Return its dx, dw and db."""
    dx, (dw, db) = general_conv.backward(dy[:, :, None, None], cache)
    return dx[:, :, 0, 0], dw[:, :, 0, 0], db


def forward(
    x: Array, params: Params, stride: int = 1, padding: int = 1, dilation: int = 1, groups: int = 1
) -> tuple[Array, Cache]:
    """Make branches of x by a convolution, and of the branches a sum, each channel of each with a weight of its own.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (JM, C/JG, k, k), b (JM) or None, w1 (R, M/G), b1 (R), w2 (JM, R/G), b2 (JM).
    stride, padding, dilation
        Of the convolution.
    groups
        G.

    Returns
    -------
    y : (N, M, H', W')
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape or a number that does not fit.
    """
    w, w1, b1, w2, b2, b = params
    xp = floating(x=x, **params._asdict())
    G = whole_number("groups", groups)
    R, M_of_group = shaped("w1", w1, "R M/G")
    M = M_of_group * G
    JM, _, _, _ = shaped("w", w, "JM C/JG k k")
    multiple_of("w (its first axis)", JM, "M", M)
    J = JM // M
    multiple_of("w1 (its first axis)", R, "groups", G)
    shaped("b1", b1, "R", R=R)
    shaped("w2", w2, "JM R/G", **{"JM": JM, "R/G": R // G})
    shaped("b2", b2, "JM", JM=JM)

    z, conv = general_conv.forward(x, general_conv.Params(w, b), stride, padding, dilation, J * G)  # SPLIT.1
    N, _, H, W = z.shape  # those of y
    r, rectified = relu.forward(z)  # SPLIT.2
    v = xp.reshape(r, (N, J, M, H, W))  # SPLIT.2
    u = xp.sum(v, axis=1)  # SPLIT.3
    s, squeeze = global_avg_pool.forward(u)  # SPLIT.4
    q, fc1 = fc_forward(s, w1, b1, G)  # SPLIT.5
    h, hidden = relu.forward(q)  # SPLIT.6
    a, fc2 = fc_forward(h, w2, b2, G)  # SPLIT.7
    turned = xp.permute_dims(xp.reshape(a, (N, G, J, M // G)), (0, 2, 1, 3))  # SPLIT.8
    t = xp.reshape(turned, (N, J, M))  # SPLIT.8
    g, gate = softmax.forward(t, axis=1) if J > 1 else sigmoid.forward(t)  # SPLIT.9
    y = xp.sum(v * g[:, :, :, None, None], axis=1)  # SPLIT.10
    return y, Cache(v, g, G, conv, rectified, squeeze, fc1, hidden, fc2, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, dw1, db1, dw2, db2, db).

    Parameters
    ----------
    dy : (N, M, H', W')
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw, dw1, db1, dw2, db2, db.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    v, g, G, conv, rectified, squeeze, fc1, hidden, fc2, gate = cache
    xp = floating(dy=dy, v=v)
    N, J, M, H, W = v.shape
    same_shape("dy", dy, (N, M, H, W), "the output y")

    # SPLIT.10 was y = Σ_j v_j · g_j: a branch receives dy times its gate, and a gate, broadcast over pixels, their sum
    dv_direct = dy[:, None, :, :, :] * g[:, :, :, None, None]  # SPLIT.10
    dg = xp.sum(dy[:, None, :, :, :] * v, axis=(3, 4))  # SPLIT.10

    # SPLIT.9 was a softmax over the branches: what one gains, the others lose. Of one branch it was a sigmoid
    dt = softmax.backward(dg, gate) if isinstance(gate, softmax.Cache) else sigmoid.backward(dg, gate)  # SPLIT.9

    # SPLIT.8 turned (groups, branches) to (branches, groups)
    dturned = xp.permute_dims(xp.reshape(dt, (N, J, G, M // G)), (0, 2, 1, 3))  # SPLIT.8
    da = xp.reshape(dturned, (N, J * M))  # SPLIT.8

    # SPLIT.7 was a = w2 h + b2
    dh, dw2, db2 = fc_backward(da, fc2)  # SPLIT.7

    # SPLIT.6 let through what was positive
    dq = relu.backward(dh, hidden)  # SPLIT.6

    # SPLIT.5 was q = w1 s + b1
    ds, dw1, db1 = fc_backward(dq, fc1)  # SPLIT.5

    # SPLIT.4 was a mean: every pixel has the same share in it
    du = global_avg_pool.backward(ds, squeeze)  # SPLIT.4

    # SPLIT.3 was a sum over the branches: each receives all of du
    dv_gate = du[:, None, :, :, :]  # SPLIT.3

    # v went two ways, so its gradient comes back from two; the plus broadcasts du over the branches
    dv = dv_direct + dv_gate

    # SPLIT.2 let through what was positive
    dz = relu.backward(xp.reshape(dv, (N, J * M, H, W)), rectified)  # SPLIT.2

    # SPLIT.1 was z = w ∗ x + b
    dx, (dw, db) = general_conv.backward(dz, conv)  # SPLIT.1
    return dx, Params(dw, dw1, db1, dw2, db2, db)


class SplitAttention(Block):
    """Split attention as a layer: x (N, C, H, W) to y (N, M, H', W'), a convolution and the choice among its branches.

    Parameters
    ----------
    channel
        C, a multiple of radix · groups.
    out_channels
        M, a multiple of groups; None for C.
    kernel_size
        k of the convolution, odd.
    stride
        Of the convolution, at least 1. A stride of 1 keeps H and W, with the padding's default.
    padding
        Zeros on every side; None for dilation · (k // 2).
    dilation
        Of the convolution, at least 1.
    groups
        G, the cardinality: of each branch's convolution, and of the two 1×1 convolutions.
    radix
        J, how many branches. Of a single one the gate is a sigmoid's.
    reduction
        The hidden width is C · J // reduction.
    hidden
        The hidden width itself, a multiple of groups. The reduction has no say then.
    bias
        Whether the convolution has one.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv.weight" (JM, C/JG, k, k), "conv.bias" (JM,) if asked for, "fc1.weight" (R, M/G, 1, 1), "fc1.bias" (R,),
        "fc2.weight" (JM, R/G, 1, 1), "fc2.bias" (JM,), R the hidden width.
    attention
        "branches" (N, J, M).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range or no multiple of what it has to be.
    """

    input_axes = "N C H W"
    state = (
        Weight("conv.weight", "w", "JM C/JG k k"),
        Weight("conv.bias", "b", "JM", fan_in="C/JG k k"),
        Weight("fc1.weight", "w1", "R M/G", stored="R M/G 1 1"),
        Weight("fc1.bias", "b1", "R", fan_in="M/G"),
        Weight("fc2.weight", "w2", "JM R/G", stored="JM R/G 1 1"),
        Weight("fc2.bias", "b2", "JM", fan_in="R/G"),
    )
    gates = {"branches": ("g", "N J M")}
    arguments = {"channel": "C", "reduction": "r", "radix": "J"}
    card = Card(
        "split-attention",
        "split attention",
        asks="which branch, channel by channel?",
        gives="Σ_j v_j · g_j, v_j the branches of a convolution",
        source="Zhang et al., ResNeSt, 2020, section 3.1",
        page="blocks/split-attention",
        size=(1, 2, 2, 2),
        seed=3,
        forms=(Form("split-attention-1", "split attention with one branch", {"radix": 1}, "blocks"),),
        further=(Further({"groups": 2, "stride": 2, "dilation": 2, "hidden": 6}, 4),),
    )

    def __init__(
        self,
        channel: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        radix: int = 2,
        reduction: int = 4,
        hidden: int | None = None,
        bias: bool = False,
        **options: Unpack[Options],
    ) -> None:
        C, J, G = whole_number("channel", channel), whole_number("radix", radix), whole_number("groups", groups)
        M = C if out_channels is None else whole_number("out_channels", out_channels)
        k, d = odd("kernel_size", kernel_size), whole_number("dilation", dilation)
        q = d * (k // 2) if padding is None else whole_number("padding", padding, least=0)
        multiple_of("channel", C, "radix · groups", J * G)
        multiple_of("out_channels", M, "groups", G)
        by_ratio = hidden_width("channel · radix", C * J, "reduction", reduction) if hidden is None else hidden
        R = whole_number("hidden", by_ratio)
        multiple_of("hidden", R, "groups", G)
        sizes = {"C": C, "JM": J * M, "C/JG": C // (J * G), "k": k, "R": R, "M/G": M // G, "R/G": R // G}
        settings = {
            "stride": whole_number("stride", stride), "padding": q, "dilation": d, "groups": G,
        }  # fmt: skip
        without = () if true_or_false("bias", bias) else ("b",)
        super().__init__(sizes, without=without, settings=settings, **options)
