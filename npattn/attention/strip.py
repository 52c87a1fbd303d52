"""Strip attention: a channel's rows and columns are looked at with their neighbours, and add up to a gate a pixel.

    x (N, C, H, W)   w_h (C, 1, k, 1)   w_w (C, 1, 1, k)   k odd, both or neither   b_h, b_w (C) or none

    STRIP.1   s_h = mean over the columns of x          (N, C, H, 1)   a strip for every row
    STRIP.2   s_w = mean over the rows of x             (N, C, 1, W)   a strip for every column
    STRIP.3   a_h = w_h ∗ s_h + b_h, or s_h             (N, C, H, 1)   each channel has a kernel of its own
    STRIP.4   a_w = w_w ∗ s_w + b_w, or s_w             (N, C, 1, W)
    STRIP.5   g = sigmoid(a_h + a_w)                    (N, C, H, W)   a row's number and a column's meet
    STRIP.6   y = x · g                                 (N, C, H, W)

x is used three times, in STRIP.1, STRIP.2 and STRIP.6. No channel hears of another. No paper has it: it is timm's
StripAttn, after the strips of Hou et al., Strip Pooling, CVPR 2020. Derivation: docs/blocks/strip.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, odd, same_shape, shaped, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import general_conv, sigmoid
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w_h: Array | None = None  # (C, 1, k, 1)
    w_w: Array | None = None  # (C, 1, 1, k)
    b_h: Array | None = None  # (C)
    b_w: Array | None = None  # (C)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    g: Array  # (N, C, H, W)
    rows: general_conv.Cache | None
    columns: general_conv.Cache | None
    gate: sigmoid.Cache


def along_forward(
    s: Array, w: Array | None, b: Array | None, padding: tuple[int, int]
) -> tuple[Array, general_conv.Cache | None]:
    """A strip with its neighbours, each channel by itself; as it is where there is no kernel."""
    if w is None:
        return s, None
    return general_conv.forward(s, general_conv.Params(w, b), padding=padding, groups=w.shape[0])


def along_backward(da: Array, cache: general_conv.Cache | None) -> tuple[Array, Array | None, Array | None]:
    """Return ds, dw and db."""
    if cache is None:
        return da, None, None
    ds, (dw, db) = general_conv.backward(da, cache)
    return ds, dw, db


def forward(
    x: Array,
    params: Params = Params(),  # noqa: B008  # it has nothing that could be changed
) -> tuple[Array, Cache]:
    """Scale every pixel of each channel of x by a gate that its row and its column make, each with its neighbours.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_h (C, 1, k, 1) and w_w (C, 1, 1, k) with k odd, or neither; with them b_h and b_w (C), or None.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match, an even k, or one of w_h and w_w without the other.
    """
    w_h, w_w, b_h, b_w = params
    xp = floating(x=x, **params._asdict())
    if (w_h is None) != (w_w is None):
        raise ValueError("params: expected w_h and w_w both, or neither")
    C = some_pixels(x)[1]
    k = 1
    if w_h is not None:
        k = shaped("w_h", w_h, "C 1 k 1", C=C)[2]
        shaped("w_w", w_w, "C 1 1 k", C=C, k=odd("w_h (its third axis)", k))
    shaped_params(params, {"C": C}, b_h="C", b_w="C")
    q = k // 2

    s_h = xp.mean(x, axis=3, keepdims=True)  # STRIP.1
    s_w = xp.mean(x, axis=2, keepdims=True)  # STRIP.2
    a_h, rows = along_forward(s_h, w_h, b_h, (q, 0))  # STRIP.3
    a_w, columns = along_forward(s_w, w_w, b_w, (0, q))  # STRIP.4
    g, gate = sigmoid.forward(a_h + a_w)  # STRIP.5
    y = x * g  # STRIP.6
    return y, Cache(x, g, rows, columns, gate)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw_h, dw_w, db_h, db_w).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_h, dw_w, db_h and db_w; None in place of what was None.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, g, rows, columns, gate = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    H, W = x.shape[2:]

    # STRIP.6 was y = x · g: each factor receives dy times the other
    dx_direct = dy * g  # STRIP.6
    dg = dy * x  # STRIP.6

    # STRIP.5 was a sigmoid of a sum: a_h was broadcast over the columns and a_w over the rows
    da = sigmoid.backward(dg, gate)  # STRIP.5
    da_h, da_w = xp.sum(da, axis=3, keepdims=True), xp.sum(da, axis=2, keepdims=True)  # STRIP.5

    # STRIP.4 and STRIP.3 were convolutions, 1×k along the columns and k×1 along the rows, each channel by itself
    ds_w, dw_w, db_w = along_backward(da_w, columns)  # STRIP.4
    ds_h, dw_h, db_h = along_backward(da_h, rows)  # STRIP.3

    # STRIP.2 and STRIP.1 were means, of H and of W numbers: each of these has the same share
    dx_columns = ds_w / H  # STRIP.2
    dx_rows = ds_h / W  # STRIP.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the shares over rows and columns
    dx = dx_direct + dx_rows + dx_columns
    return dx, Params(dw_h, dw_w, db_h, db_w)


class StripAttention(Block):
    """Strip attention as a layer: x (N, C, H, W) to x times its gates, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    kernel_size
        k, odd, of both kernels.
    bias
        Whether there are b_h and b_w.
    convolve
        Whether there are kernels at all; without them nothing is learnt, and there is no bias.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv_h.weight" (C, 1, k, 1), "conv_w.weight" (C, 1, 1, k), and if asked for "conv_h.bias", "conv_w.bias" (C,).
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If channel is no whole number of at least 1, kernel_size is even, or bias or convolve no bool.
    """

    input_axes = "N C H W"
    state = (
        Weight("conv_h.weight", "w_h", "C 1 k 1"),
        Weight("conv_h.bias", "b_h", "C", fan_in="k"),
        Weight("conv_w.weight", "w_w", "C 1 1 k"),
        Weight("conv_w.bias", "b_w", "C", fan_in="k"),
    )
    gates = {"pixel": ("g", "N C H W")}
    arguments = {"channel": "C"}
    card = Card(
        "strip",
        "strip attention",
        asks="where, by the row and the column, with their neighbours?",
        gives="x · g",
        source="timm's StripAttn, after Hou et al., CVPR 2020",
        page="blocks/strip",
        size=(1, 2, 2, 3),
        seed=22,
        forms=(
            Form("strip-bias", "strip attention with biases", {"bias": True}),
            Form("strip-plain", "strip attention without convolutions", {"convolve": False}),
        ),
    )

    def __init__(
        self,
        channel: int,
        kernel_size: int = 3,
        *,
        bias: bool = False,
        convolve: bool = True,
        **options: Unpack[Options],
    ) -> None:
        C, k = whole_number("channel", channel), odd("kernel_size", kernel_size)
        without: tuple[str, ...] = () if true_or_false("bias", bias) else ("b_h", "b_w")
        if not true_or_false("convolve", convolve):
            without = ("w_h", "w_w", "b_h", "b_w")
        super().__init__({"C": C, "k": k}, without=without, **options)
