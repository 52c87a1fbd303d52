"""The simple form of coordinate attention: rows and columns add up to one gate a pixel, and nothing is normalised.

    x (N, C, H, W)   R = C // reduction   w1 (R, C)   b1 (R)   w_h, w_w (C, R)   b_h, b_w (C)

    SCOORD.1   x_h = mean over the columns of x                     (N, C, H)       a number for every row
    SCOORD.2   x_w = mean over the rows of x                        (N, C, W)       a number for every column
    SCOORD.3   z_h = w1 x_h + b1,  z_w = w1 x_w + b1                (N, R, H), (N, R, W)   the same w1, b1 for both
    SCOORD.4   f_h = silu(z_h),  f_w = silu(z_w)                    (N, R, H), (N, R, W)
    SCOORD.5   a_h = w_h f_h + b_h,  a_w = w_w f_w + b_w            (N, C, H), (N, C, W)
    SCOORD.6   g = sigmoid(a_h + a_w)                               (N, C, H, W)    a row's number and a column's meet
    SCOORD.7   y = x · g                                            (N, C, H, W)

w1 and b1 are used twice, and x three times, in SCOORD.1, SCOORD.2 and SCOORD.7. No paper has it: it is timm's
SimpleCoordAttn, after Hou et al., Coordinate Attention for Efficient Mobile Network Design, CVPR 2021.
Derivation: docs/blocks/simple-coordinate.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import sigmoid, silu
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w1: Array  # (R, C)
    w_h: Array  # (C, R)
    w_w: Array  # (C, R)
    b1: Array | None = None  # (R)
    b_h: Array | None = None  # (C)
    b_w: Array | None = None  # (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    x_h: Array  # (N, C, H)
    x_w: Array  # (N, C, W)
    f_h: Array  # (N, R, H)
    f_w: Array  # (N, R, W)
    g: Array  # (N, C, H, W)
    params: Params
    rows: silu.Cache
    columns: silu.Cache
    gate: sigmoid.Cache


def mixed(w: Array, s: Array, b: Array | None) -> Array:
    """w s + b at each place, (N, M, E) of s (N, K, E)."""
    return w @ s if b is None else w @ s + b[:, None]


def forward(x: Array, params: Params) -> tuple[Array, Cache]:
    """Scale every pixel of each channel of x by a gate that its row and its column make.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, C), w_h and w_w (C, R); b1 (R), b_h and b_w (C), or None in place of any of these three.

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
    w1, w_h, w_w, b1, b_h, b_w = params
    xp = floating(x=x, **params._asdict())
    sizes = shaped_params(params, w1="R C", w_h="C R", w_w="C R", b1="R", b_h="C", b_w="C")
    some_pixels(x, **sizes)

    x_h = xp.mean(x, axis=3)  # SCOORD.1
    x_w = xp.mean(x, axis=2)  # SCOORD.2
    z_h, z_w = mixed(w1, x_h, b1), mixed(w1, x_w, b1)  # SCOORD.3
    f_h, rows = silu.forward(z_h)  # SCOORD.4
    f_w, columns = silu.forward(z_w)  # SCOORD.4
    a_h, a_w = mixed(w_h, f_h, b_h), mixed(w_w, f_w, b_w)  # SCOORD.5
    g, gate = sigmoid.forward(a_h[:, :, :, None] + a_w[:, :, None, :])  # SCOORD.6
    y = x * g  # SCOORD.7
    return y, Cache(x, x_h, x_w, f_h, f_w, g, params, rows, columns, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dw_h, dw_w, db1, db_h, db_w).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw1, dw_h, dw_w, db1, db_h and db_w; None in place of a bias that was.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, x_h, x_w, f_h, f_w, g, (w1, w_h, w_w, b1, b_h, b_w), rows, columns, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    H, W = x.shape[2:]

    # SCOORD.7 was y = x · g: each factor receives dy times the other
    dx_direct = dy * g  # SCOORD.7
    dg = dy * x  # SCOORD.7

    # SCOORD.6 was a sigmoid of a sum: a_h was broadcast over the columns and a_w over the rows
    da = sigmoid.backward(dg, gate)  # SCOORD.6
    da_h, da_w = xp.sum(da, axis=3), xp.sum(da, axis=2)  # SCOORD.6

    # SCOORD.5 was a = w f + b, for rows and for columns: a weight and a bias were used at every place of every image
    db_h = None if b_h is None else xp.sum(da_h, axis=(0, 2))  # SCOORD.5
    db_w = None if b_w is None else xp.sum(da_w, axis=(0, 2))  # SCOORD.5
    dw_h, dw_w = xp.sum(da_h @ f_h.mT, axis=0), xp.sum(da_w @ f_w.mT, axis=0)  # SCOORD.5
    df_h, df_w = w_h.T @ da_h, w_w.T @ da_w  # SCOORD.5

    # SCOORD.4 was a SiLU for the rows and one for the columns
    dz_w = silu.backward(df_w, columns)  # SCOORD.4
    dz_h = silu.backward(df_h, rows)  # SCOORD.4

    # SCOORD.3 was z = w1 s + b1 with one w1 and one b1 for rows and columns: what comes back from the two is added
    db1 = None if b1 is None else xp.sum(dz_h, axis=(0, 2)) + xp.sum(dz_w, axis=(0, 2))  # SCOORD.3
    dw1 = xp.sum(dz_h @ x_h.mT, axis=0) + xp.sum(dz_w @ x_w.mT, axis=0)  # SCOORD.3
    dx_h, dx_w = w1.T @ dz_h, w1.T @ dz_w  # SCOORD.3

    # SCOORD.2 and SCOORD.1 were means, of H and of W numbers: each of these has the same share
    dx_columns = dx_w[:, :, None, :] / H  # SCOORD.2
    dx_rows = dx_h[:, :, :, None] / W  # SCOORD.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the shares over rows and columns
    dx = dx_direct + dx_rows + dx_columns
    return dx, Params(dw1, dw_h, dw_w, db1, db_h, db_w)


class SimpleCoordinateAttention(Block):
    """The simple form of coordinate attention as a layer: x (N, C, H, W) to x times its gates, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    hidden
        The hidden width itself. The reduction has no say then.
    bias
        Whether there are b1, b_h and b_w.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "fc1.weight" (R, C), "fc1.bias" (R,), "fc_h.weight" and "fc_w.weight" (C, R), "fc_h.bias" and "fc_w.bias" (C,),
        R the hidden width.
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, reduction > channel with hidden=None, or bias no bool.
    """

    input_axes = "N C H W"
    state = (
        Weight("fc1.weight", "w1", "R C"),
        Weight("fc1.bias", "b1", "R", fan_in="C"),
        Weight("fc_h.weight", "w_h", "C R"),
        Weight("fc_h.bias", "b_h", "C", fan_in="R"),
        Weight("fc_w.weight", "w_w", "C R"),
        Weight("fc_w.bias", "b_w", "C", fan_in="R"),
    )
    gates = {"pixel": ("g", "N C H W")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "simple-coordinate",
        "coordinate attention, simple form",
        asks="what and where, by the row and the column together?",
        gives="x · g",
        source="timm's SimpleCoordAttn, after Hou et al., CVPR 2021",
        page="blocks/simple-coordinate",
        size=(1, 2, 2, 3),
        seed=29,
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 6,
        *,
        hidden: int | None = None,
        bias: bool = True,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("channel", channel)
        R = hidden_width("channel", C, "reduction", reduction) if hidden is None else whole_number("hidden", hidden)
        without = () if true_or_false("bias", bias) else ("b1", "b_h", "b_w")
        super().__init__({"C": C, "R": R}, without=without, **options)
