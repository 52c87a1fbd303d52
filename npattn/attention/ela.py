"""Efficient local attention (ELA): a channel's gate of a row is made from its rows near by, and of a column likewise.

    x (N, C, H, W)   w_h (C, 1, k, 1)   w_w (C, 1, 1, k)   k odd   norm_h, norm_w: gamma, beta (C)   G groups

    ELA.1   x_h, x_w = the means of x's rows, of its columns        (N, C, H, 1), (N, C, 1, W)
    ELA.2   z_h, z_w = w_h along x_h, w_w along x_w                 (N, C, H, 1), (N, C, 1, W)   each channel by itself
    ELA.3   u_h, u_w = group norm of z_h, of z_w                    (N, C, H, 1), (N, C, 1, W)
    ELA.4   f_h, f_w = u_h, u_w, or silu(u_h), silu(u_w)            (N, C, H, 1), (N, C, 1, W)   silu: in timm
    ELA.5   g_h, g_w = sigmoid(f_h), sigmoid(f_w)                   (N, C, H, 1), (N, C, 1, W)   the gates
    ELA.6   y = x · g_h · g_w                                       (N, C, H, W)

Of coordinate attention's matrices none is left: a kernel slides along a channel's own rows, with zeros beyond the ends,
and channels meet in the statistics of their group only. x is used three times, in ELA.1 twice and in ELA.6.
Xu and Wan, ELA: Efficient Local Attention for Deep Convolutional Neural Networks, 2024, section 3.
Derivation: docs/blocks/ela.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Further, Weight
from npattn.checks import floating, multiple_of, odd, one_of, same_shape, shaped, whole_number
from npattn.layer import Options
from npattn.ops import general_conv, group_norm, sigmoid, silu
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w_h: Array  # (C, 1, k, 1)
    norm_h: group_norm.Params  # gamma, beta (C)
    w_w: Array  # (C, 1, 1, k)
    norm_w: group_norm.Params  # gamma, beta (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_h: Array  # (N, C, H, 1)
    g_w: Array  # (N, C, 1, W)
    conv_h: general_conv.Cache
    conv_w: general_conv.Cache
    norm_h: group_norm.Cache
    norm_w: group_norm.Cache
    silu_h: silu.Cache | None
    silu_w: silu.Cache | None
    gate_h: sigmoid.Cache
    gate_w: sigmoid.Cache


def forward(x: Array, params: Params, groups: int = 1, act: str | None = None) -> tuple[Array, Cache]:
    """Scale every row and every column of each channel of x by its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_h (C, 1, k, 1) and w_w (C, 1, 1, k), k odd; norm_h and norm_w, gamma and beta (C).
    groups
        G, a divisor of C.
    act
        None, or "silu": before each gate.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match, an even k, or another act.
    """
    w_h, norm_h, w_w, norm_w = params
    xp = floating(x=x, w_h=w_h, w_w=w_w)
    C, _, k, _ = shaped("w_h", w_h, "C 1 k 1")
    shaped("w_w", w_w, "C 1 1 k", C=C, k=odd("w_h (its third axis)", k))
    some_pixels(x, C=C)
    activated = act is not None and one_of("act", act, ("silu",)) == "silu"

    x_h, x_w = xp.mean(x, axis=3, keepdims=True), xp.mean(x, axis=2, keepdims=True)  # ELA.1
    z_h, conv_h = general_conv.forward(x_h, general_conv.Params(w_h), padding=(k // 2, 0), groups=C)  # ELA.2
    z_w, conv_w = general_conv.forward(x_w, general_conv.Params(w_w), padding=(0, k // 2), groups=C)  # ELA.2
    u_h, of_norm_h = group_norm.forward(z_h, norm_h, groups)  # ELA.3
    u_w, of_norm_w = group_norm.forward(z_w, norm_w, groups)  # ELA.3
    f_h, silu_h = silu.forward(u_h) if activated else (u_h, None)  # ELA.4
    f_w, silu_w = silu.forward(u_w) if activated else (u_w, None)  # ELA.4
    g_h, gate_h = sigmoid.forward(f_h)  # ELA.5
    g_w, gate_w = sigmoid.forward(f_w)  # ELA.5
    y = x * g_h * g_w  # ELA.6
    return y, Cache(x, g_h, g_w, conv_h, conv_w, of_norm_h, of_norm_w, silu_h, silu_w, gate_h, gate_w)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw_h, dnorm_h, dw_w, dnorm_w).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_h, dnorm_h, dw_w and dnorm_w.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g_h, g_w, conv_h, conv_w, norm_h, norm_w, silu_h, silu_w, gate_h, gate_w = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    H, W = x.shape[2:]

    # ELA.6 was y = x · g_h · g_w: each factor receives dy times the others; g_h was broadcast over the columns and g_w
    # over the rows, so that their gradients are sums over these
    dx_direct = dy * g_h * g_w  # ELA.6
    dg_h = xp.sum(dy * x * g_w, axis=3, keepdims=True)  # ELA.6
    dg_w = xp.sum(dy * x * g_h, axis=2, keepdims=True)  # ELA.6

    # ELA.5 was a sigmoid for the rows and one for the columns
    df_w = sigmoid.backward(dg_w, gate_w)  # ELA.5
    df_h = sigmoid.backward(dg_h, gate_h)  # ELA.5

    # ELA.4 was a SiLU for each, if it was there
    du_w = df_w if silu_w is None else silu.backward(df_w, silu_w)  # ELA.4
    du_h = df_h if silu_h is None else silu.backward(df_h, silu_h)  # ELA.4

    # ELA.3 was a normalisation, by statistics that all places of all channels of a group had a hand in
    dz_w, dnorm_w = group_norm.backward(du_w, norm_w)  # ELA.3
    dz_h, dnorm_h = group_norm.backward(du_h, norm_h)  # ELA.3

    # ELA.2 slid a kernel along the columns, and one along the rows
    dx_w, (dw_w, _) = general_conv.backward(dz_w, conv_w)  # ELA.2
    dx_h, (dw_h, _) = general_conv.backward(dz_h, conv_h)  # ELA.2

    # ELA.1 was a mean of H and a mean of W numbers: each of these has the same share
    dx_rows, dx_columns = dx_h / W, dx_w / H  # ELA.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the shares over rows and columns
    dx = dx_direct + dx_rows + dx_columns
    return dx, Params(dw_h, dnorm_h, dw_w, dnorm_w)


def declared(name: str, axes: str) -> tuple[Weight, ...]:
    """The parameters of the rows' way, "h", or of the columns', "w"."""
    return (
        Weight(f"conv_{name}.weight", f"w_{name}", axes),
        Weight(f"norm_{name}.weight", f"norm_{name}.gamma", "C", start=1),
        Weight(f"norm_{name}.bias", f"norm_{name}.beta", "C", start=0),
    )


class EfficientLocalAttention(Block):
    """Efficient local attention as a layer: x (N, C, H, W) to x times its gates of rows and columns, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    kernel_size
        k, odd: 7 or 5 in the paper.
    groups
        G of the norm, at least 1, a divisor of C: 16 or 32 in the paper, 1 in timm.
    act
        None, or "silu": before each gate, as timm has it.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv_h.weight" (C, 1, k, 1), "norm_h.weight" and "norm_h.bias" (C,), "conv_w.weight" (C, 1, 1, k),
        "norm_w.weight" and "norm_w.bias" (C,).
    attention
        "rows" (N, C, H, 1) and "columns" (N, C, 1, W).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, kernel_size is even, the channels do not fall into so many groups, or act is
        another.
    """

    input_axes = "N C H W"
    state = (*declared("h", "C 1 k 1"), *declared("w", "C 1 1 k"))
    gates = {"rows": ("g_h", "N C H 1"), "columns": ("g_w", "N C 1 W")}
    arguments = {"channel": "C", "kernel_size": "k", "groups": "G"}
    card = Card(
        "ela",
        "efficient local attention (ELA)",
        asks="where, row by row and column by column, from near by?",
        gives="x · g_h · g_w",
        source="Xu and Wan, 2024, section 3",
        page="blocks/ela",
        what="efficient local attention (ELA)",
        size=(1, 2, 2, 3),
        seed=5,
        forms=(Form("ela-silu", "ELA of one group with a SiLU before its gates", {"groups": 1, "act": "silu"}),),
        further=(Further({"groups": 2}, 2),),
    )

    def __init__(
        self,
        channel: int,
        kernel_size: int = 7,
        *,
        groups: int = 16,
        act: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        C, k, G = whole_number("channel", channel), odd("kernel_size", kernel_size), whole_number("groups", groups)
        multiple_of("channel", C, "groups", G)
        if act is not None:
            one_of("act", act, ("silu",))
        super().__init__({"C": C, "k": k}, settings={"groups": G, "act": act}, **options)
