"""Coordinate attention: a channel has a gate for each of its rows and a gate for each of its columns.

    x (N, C, H, W)   R = C // reduction   w1 (R, C)   norm: gamma, beta (R)   w_h, w_w (C, R)

    COORD.1    x_h = mean over the columns of x                     (N, C, H)       a number for every row
    COORD.2    x_w = mean over the rows of x                        (N, C, W)       a number for every column
    COORD.3    s = [x_h, x_w]                                       (N, C, H + W)   the places, rows first
    COORD.4    z = w1 s                                             (N, R, H + W, 1)   a 1×1 convolution
    COORD.5    u = batch norm of z                                  (N, R, H + W, 1)
    COORD.6    f = hard swish of u                                  (N, R, H + W, 1)
    COORD.7    f_h, f_w = f cut in two, behind the rows             (N, R, H), (N, R, W)
    COORD.8    a_h = w_h f_h,  a_w = w_w f_w                        (N, C, H), (N, C, W)
    COORD.9    g_h = sigmoid(a_h),  g_w = sigmoid(a_w)              (N, C, H), (N, C, W)   the gates
    COORD.10   y = x · g_h · g_w                                    (N, C, H, W)

Rows and columns share w1 and the norm, whose statistics are over both. x is used three times, in COORD.1, COORD.2 and
COORD.10. Hou et al., Coordinate Attention for Efficient Mobile Network Design, CVPR 2021, equations 4 to 9.
Derivation: docs/blocks/coordinate.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Weight
from npattn.checks import floating, hidden_width, same_shape, shaped_params, whole_number
from npattn.layer import Options
from npattn.ops import batch_norm, hard_swish, sigmoid
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    w1: Array  # (R, C)
    norm: batch_norm.Params  # gamma, beta (R)
    w_h: Array  # (C, R)
    w_w: Array  # (C, R)


class Running(NamedTuple):
    norm: batch_norm.Running  # mean, var (R)


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    s: Array  # (N, C, H + W)
    f_h: Array  # (N, R, H)
    f_w: Array  # (N, R, W)
    g_h: Array  # (N, C, H)
    g_w: Array  # (N, C, W)
    params: Params
    norm: batch_norm.Cache
    hidden: hard_swish.Cache
    rows: sigmoid.Cache
    columns: sigmoid.Cache


def forward(x: Array, params: Params, running: Running | None = None) -> tuple[Array, Cache]:
    """Scale every row and every column of each channel of x by its gate.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w1 (R, C), norm with gamma and beta (R), w_h and w_w (C, R).
    running
        The statistics to normalise by, mean and variance (R), or None for those of the batch.

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
    w1, of_norm, w_h, w_w = params
    xp = floating(x=x, w1=w1, w_h=w_h, w_w=w_w, **of_norm._asdict())
    sizes = shaped_params(params, w1="R C", w_h="C R", w_w="C R")
    shaped_params(of_norm, sizes, gamma="R", beta="R")
    _, _, H, _ = some_pixels(x, **sizes)

    x_h = xp.mean(x, axis=3)  # COORD.1
    x_w = xp.mean(x, axis=2)  # COORD.2
    s = xp.concat([x_h, x_w], axis=2)  # COORD.3
    z = (w1 @ s)[:, :, :, None]  # COORD.4
    u, norm = batch_norm.forward(z, of_norm, None if running is None else running.norm)  # COORD.5
    f, hidden = hard_swish.forward(u)  # COORD.6
    f_h, f_w = f[:, :, :H, 0], f[:, :, H:, 0]  # COORD.7
    a_h, a_w = w_h @ f_h, w_w @ f_w  # COORD.8
    g_h, rows = sigmoid.forward(a_h)  # COORD.9
    g_w, columns = sigmoid.forward(a_w)  # COORD.9
    y = x * g_h[:, :, :, None] * g_w[:, :, None, :]  # COORD.10
    return y, Cache(x, s, f_h, f_w, g_h, g_w, params, norm, hidden, rows, columns)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw1, dnorm, dw_h, dw_w).

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw1, dnorm, dw_h and dw_w.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, s, f_h, f_w, g_h, g_w, (w1, _, w_h, w_w), norm, hidden, rows, columns = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    H, W = x.shape[2:]

    # COORD.10 was y = x · g_h · g_w: each factor receives dy times the others; g_h was broadcast over the columns and
    # g_w over the rows, so that their gradients are sums over these
    dx_direct = dy * g_h[:, :, :, None] * g_w[:, :, None, :]  # COORD.10
    dg_h = xp.sum(dy * x * g_w[:, :, None, :], axis=3)  # COORD.10
    dg_w = xp.sum(dy * x * g_h[:, :, :, None], axis=2)  # COORD.10

    # COORD.9 was a sigmoid for the rows and one for the columns
    da_w = sigmoid.backward(dg_w, columns)  # COORD.9
    da_h = sigmoid.backward(dg_h, rows)  # COORD.9

    # COORD.8 was a_h = w_h f_h and a_w = w_w f_w: a weight was used at every place of every image
    df_h, df_w = w_h.T @ da_h, w_w.T @ da_w  # COORD.8
    dw_h = xp.sum(da_h @ f_h.mT, axis=0)  # COORD.8
    dw_w = xp.sum(da_w @ f_w.mT, axis=0)  # COORD.8

    # COORD.7 cut f in two: the two gradients lie side by side again
    df = xp.concat([df_h, df_w], axis=2)[:, :, :, None]  # COORD.7

    # COORD.6 was the hard swish
    du = hard_swish.backward(df, hidden)  # COORD.6

    # COORD.5 was a normalisation, by statistics that all rows, columns and images had a hand in, or by constants
    dz, dnorm = batch_norm.backward(du, norm)  # COORD.5

    # COORD.4 was z = w1 s, at every place of every image
    ds = w1.T @ dz[:, :, :, 0]  # COORD.4
    dw1 = xp.sum(dz[:, :, :, 0] @ s.mT, axis=0)  # COORD.4

    # COORD.3 laid rows and columns side by side: each takes its own part back
    dx_h, dx_w = ds[:, :, :H], ds[:, :, H:]  # COORD.3

    # COORD.2 and COORD.1 were means, of H and of W numbers: each of these has the same share
    dx_columns = dx_w[:, :, None, :] / H  # COORD.2
    dx_rows = dx_h[:, :, :, None] / W  # COORD.1

    # x went three ways, so its gradient comes back from three; the plus broadcasts the shares over rows and columns
    dx = dx_direct + dx_rows + dx_columns
    return dx, Params(dw1, dnorm, dw_h, dw_w)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    return Running(batch_norm.updated(running.norm, cache.norm, momentum))


class CoordinateAttention(Block):
    """Coordinate attention as a layer: x (N, C, H, W) to x times its gates of rows and columns, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C.
    hidden
        The hidden width itself. The reduction has no say then.
    momentum
        Of the running statistics, 0 to 1.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv1.weight" (R, C, 1, 1), "bn1.weight" and "bn1.bias" (R,), "conv_h.weight" and "conv_w.weight" (C, R, 1, 1),
        R the hidden width.
    buffers
        "bn1.running_mean" and "bn1.running_var" (R,); `num_batches_tracked` counts their moves.
    attention
        "rows" (N, C, H, 1) and "columns" (N, C, 1, W).

    Raises
    ------
    TypeError, ValueError
        If a number is no whole number of at least 1, or reduction > channel with hidden=None, or momentum is outside
        its range.
    """

    input_axes = "N C H W"
    state = (
        Weight("conv1.weight", "w1", "R C", stored="R C 1 1"),
        *batch_norm.declared("bn1", "norm", "R"),
        Weight("conv_h.weight", "w_h", "C R", stored="C R 1 1"),
        Weight("conv_w.weight", "w_w", "C R", stored="C R 1 1"),
    )
    gates = {"rows": ("g_h", "N C H 1"), "columns": ("g_w", "N C 1 W")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "coordinate",
        "coordinate attention",
        asks="what and where, row by row and column by column?",
        gives="x · g_h · g_w",
        source="Hou et al., CVPR 2021, equations 4 to 9",
        page="blocks/coordinate",
        size=(1, 2, 2, 3),
        seed=249,
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 32,
        *,
        hidden: int | None = None,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("channel", channel)
        R = hidden_width("channel", C, "reduction", reduction) if hidden is None else whole_number("hidden", hidden)
        super().__init__({"C": C, "R": R}, momentum=momentum, **options)
