"""Gather–excite: numbers are gathered from around each place, and excite or damp what is there, channel by channel.

    x (N, C, H, W)   e the extent: how far is gathered, 0 for the whole map   H'·W' places of what is gathered
    nothing learnt, or w (C, k_h, k_v) and norm: gamma, beta (C); or w1 (R, C), b1 (R), w2 (C, R), b2 (C); or both

    GE.1   s = means of x over windows of 2e − 1, e apart, or a depthwise convolution w ∗ x     (N, C, H', W')
    GE.2   n = batch norm of s where it was convolved, else s                                   (N, C, H', W')
    GE.3   a = w2 relu(w1 n + b1) + b2 at every place, or n                                     (N, C, H', W')
    GE.4   g = sigmoid(a)                                                                       (N, C, H', W')
    GE.5   r = g, resized to the nearest neighbour                                              (N, C, H, W)
    GE.6   y = x · r                                                                            (N, C, H, W)

x is used twice, in GE.1 and in GE.6. A window counts its pixels within the image only; of the whole map s is the mean.
Hu et al., Gather-Excite, NeurIPS 2018, sections 2 and 3. Derivation: docs/blocks/gather-excite.md
"""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, one_of, same_shape, shaped, shaped_params, true_or_false, whole_number
from npattn.layer import Options
from npattn.ops import (
    batch_norm,
    general_conv,
    global_avg_pool,
    global_even_max,
    linear,
    relu,
    resize,
    sigmoid,
    window_avg_pool,
    window_max_pool,
)
from npattn.ops.pooling import some_pixels


class Mlp(NamedTuple):
    w1: Array  # (R, C)
    b1: Array  # (R)
    w2: Array  # (C, R)
    b2: Array  # (C)


class Params(NamedTuple):
    w: Array | None = None  # (C, k_h, k_v)
    norm: batch_norm.Params | None = None  # gamma, beta (C)
    mlp: Mlp | None = None


class Running(NamedTuple):
    norm: batch_norm.Running  # mean, var (C)


class MeansCache(NamedTuple):
    extent: int
    caches: list[Any]  # of the pool of means, and if there is one, that of maxima
    shape: tuple[int, ...]  # of what each gives


class MlpCache(NamedTuple):
    fc1: linear.Cache
    hidden: relu.Cache
    fc2: linear.Cache


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    r: Array  # (N, C, H, W)
    gathered: Any  # MeansCache, or that of the convolution
    norm: batch_norm.Cache | None
    mlp: MlpCache | None
    gate: sigmoid.Cache
    resized: resize.Cache


POOLS: dict[bool, Any] = {False: (global_avg_pool, global_even_max), True: (window_avg_pool, window_max_pool)}


def means_forward(x: Array, extent: int, maximum: bool) -> tuple[Array, MeansCache]:
    """What is gathered without parameters (N, C, H', W'): the mean, or half of it and half the maximum."""
    around = {"window": 2 * extent - 1, "stride": extent, "padding": extent - 1} if extent else {}
    within = {"count_padding": False} if extent else {}
    pool, pool_max = POOLS[extent > 0]
    found = [pool.forward(x, **around, **within)] + ([pool_max.forward(x, **around)] if maximum else [])
    s = sum(y / len(found) for y, _ in found)  # GE.1
    return s if extent else s[:, :, None, None], MeansCache(extent, [cache for _, cache in found], tuple(s.shape))


def means_backward(ds: Array, cache: MeansCache) -> Array:
    """dx (N, C, H, W): what comes back through each pool."""
    extent, caches, shape = cache
    share = floating(ds=ds).reshape(ds, shape) / len(caches)
    dx = sum(pool.backward(share, each) for pool, each in zip(POOLS[extent > 0], caches, strict=False))  # GE.1
    return dx


def mlp_forward(n: Array, params: Mlp) -> tuple[Array, MlpCache]:
    """A hidden layer at every place: n (N, C, H', W') to a, the same shape."""
    w1, b1, w2, b2 = params
    xp = floating(n=n)
    N, C, H, W = n.shape
    rows = xp.reshape(n, (N, C, H * W)).mT  # a place a row, (N, H'·W', C)
    z, fc1 = linear.forward(rows, linear.Params(w1, b1))  # GE.3
    h, hidden = relu.forward(z)  # GE.3
    a, fc2 = linear.forward(h, linear.Params(w2, b2))  # GE.3
    return xp.reshape(a.mT, (N, C, H, W)), MlpCache(fc1, hidden, fc2)


def mlp_backward(da: Array, cache: MlpCache) -> tuple[Array, Mlp]:
    """dn and the gradients of the hidden layer."""
    fc1, hidden, fc2 = cache
    xp = floating(da=da)
    N, C, H, W = da.shape
    da_rows = xp.reshape(da, (N, C, H * W)).mT

    # GE.3 was z = w1 n + b1, h = relu(z) and a = w2 h + b2, with the same weights at every place of every image
    dh, (dw2, db2) = linear.backward(da_rows, fc2)  # GE.3
    dz = relu.backward(dh, hidden)  # GE.3
    dn_rows, (dw1, db1) = linear.backward(dz, fc1)  # GE.3
    return xp.reshape(dn_rows.mT, (N, C, H, W)), Mlp(dw1, db1, dw2, db2)


def forward(
    x: Array,
    params: Params = Params(),  # noqa: B008  # it has nothing that could be changed
    running: Running | None = None,
    extent: int = 0,
    padding: int = 0,
    maximum: bool = False,
) -> tuple[Array, Cache]:
    """Scale x, place by place and channel by channel, by a gate that what is around the place decides.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w (C, k_h, k_v) with norm, gamma and beta (C), for a convolution that gathers; mlp, w1 (R, C), b1 (R), w2 (C, R)
        and b2 (C), for a hidden layer; either may be absent, or both.
    running
        Mean and variance (C) to normalise by, or None for those of the batch.
    extent
        e, at least 0; 0 for the whole map. With a convolution 2 has stride 2 and padding 1.
    padding
        Of the convolution with extent 0.
    maximum
        Whether half the maximum and half the mean are gathered.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError, ValueError
        For a dtype or library that does not match, a shape or a number that does not fit.
    """
    w, of_norm, of_mlp = params
    given = [part._asdict() for part in (of_norm, of_mlp) if part is not None]
    floating(x=x, w=w, **{name: array for part in given for name, array in part.items()})
    if (w is None) != (of_norm is None):
        raise TypeError(f"{'w' if w is None else 'norm'}: expected an array, got None: w and norm come together")
    _, C, H, W = some_pixels(x)
    extent = whole_number("extent", extent, least=0)
    if w is not None:
        shaped("w", w, "C k_h k_v", C=C)
    if of_mlp is not None:
        shaped_params(of_mlp, {"C": C}, w1="R C", b1="R", w2="C R", b2="C")

    gathered: Any
    norm = None
    if w is None or of_norm is None:
        s, gathered = means_forward(x, extent, true_or_false("maximum", maximum))  # GE.1
        n = s  # GE.2
    else:
        stride, around = (2, 1) if extent else (1, padding)
        s, gathered = general_conv.forward(x, general_conv.Params(w[:, None, :, :]), stride, around, groups=C)  # GE.1
        if tuple(s.shape[2:]) == (1, 1):
            batch_norm.several_images(x, running)
        n, norm = batch_norm.forward(s, of_norm, None if running is None else running.norm)  # GE.2
    a, mlp = (n, None) if of_mlp is None else mlp_forward(n, of_mlp)  # GE.3
    g, gate = sigmoid.forward(a)  # GE.4
    r, resized = resize.forward(g, (H, W))  # GE.5
    y = x * r  # GE.6
    return y, Cache(x, r, gathered, norm, mlp, gate, resized)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw, dnorm, dw1, db1, dw2, db2), None where the parameter was.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, r, gathered, norm, mlp, gate, resized = cache
    floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    dw, dnorm = None, None

    # GE.6 was y = x · r: each factor receives dy times the other
    dx_direct = dy * r  # GE.6
    dr = dy * x  # GE.6

    # GE.5 copied a gate to all pixels around it: what comes back from these adds up
    dg = resize.backward(dr, resized)  # GE.5

    # GE.4 was g = sigmoid(a)
    da = sigmoid.backward(dg, gate)  # GE.4

    # GE.3 was a hidden layer, or nothing
    dn, dmlp = (da, None) if mlp is None else mlp_backward(da, mlp)  # GE.3

    # GE.2 was a normalisation, by statistics that all places and images had a hand in, or by constants; or nothing.
    # GE.1 gathered x, by a convolution with one kernel for each channel, or by means
    if norm is None:
        ds = dn  # GE.2
        dx_gather = means_backward(ds, gathered)  # GE.1
    else:
        ds, dnorm = batch_norm.backward(dn, norm)  # GE.2
        dx_gather, (dw, _) = general_conv.backward(ds, gathered)  # GE.1
        dw = dw[:, 0, :, :]

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gather
    return dx, Params(dw, dnorm, dmlp)


def updated(running: Running, cache: Cache, momentum: float = 0.1) -> Running:
    """The running statistics moved towards those of the batch, as `npattn.ops.batch_norm.updated` does."""
    assert cache.norm is not None
    return Running(batch_norm.updated(running.norm, cache.norm, momentum))


class GatherExcite(Block):
    """Gather–excite as a layer: x (N, C, H, W) to x times its gate, the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    extent
        e, at least 0: means are over windows of 2e − 1, e apart; 0 for the whole map.
    gather
        "mean", or "conv": a depthwise convolution and a batch norm. Its kernel is as large as the map with extent 0,
        and 3×3 with stride 2 with extent 2; other extents are not made here.
    hidden
        R ≥ 1 for a hidden layer of so many units, with biases, at every place; None for none.
    height, width, padding
        H, W and zeros around, for a convolution over the whole map; padded, it takes other sizes. No say otherwise.
    maximum
        Whether half the mean and half the maximum are gathered. Equal maxima of a whole map share their gradient.
    momentum
        The share of a batch in the running statistics, in [0, 1].
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        With a convolution "gather.conv1.weight" (C, 1, k_h, k_v), "gather.norm1.weight" and "gather.norm1.bias" (C,);
        with a hidden layer "mlp.fc1.weight" (R, C, 1, 1), "mlp.fc1.bias" (R,), and "mlp.fc2" of (C, R, 1, 1) and (C,).
    buffers
        With a convolution "gather.norm1.running_mean" and "gather.norm1.running_var" (C,); `num_batches_tracked` counts
        their moves.
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, or arguments do not go together.
    """

    input_axes = "N C H W"
    state = (
        Weight("gather.conv1.weight", "w", "C k_h k_v", stored="C 1 k_h k_v"),
        *batch_norm.declared("gather.norm1", "norm", "C"),
        Weight("mlp.fc1.weight", "mlp.w1", "R C", stored="R C 1 1"),
        Weight("mlp.fc1.bias", "mlp.b1", "R", fan_in="C"),
        Weight("mlp.fc2.weight", "mlp.w2", "C R", stored="C R 1 1"),
        Weight("mlp.fc2.bias", "mlp.b2", "C", fan_in="R"),
    )
    gates = {"pixel": ("r", "N C H W")}
    arguments = {"channel": "C", "height": "H", "width": "W"}
    card = Card(
        "gather-excite",
        "gather–excite (GE)",
        asks="what matters, by what is around?",
        gives="x · r",
        source="Hu et al., NeurIPS 2018, sections 2 and 3",
        page="blocks/gather-excite",
        what="gather–excite, the whole map, without parameters",
        size=(3, 2, 2, 3),
        forms=(
            Form("gather-excite-e2", "gather–excite over neighbours, without parameters", {"extent": 2}),
            Form("gather-excite-conv", "gather–excite by a convolution over the whole map", {"gather": "conv"}),
            Form("gather-excite-conv-e2", "gather–excite by a convolution", {"gather": "conv", "extent": 2}),
            Form("gather-excite-mlp", "the same, with a hidden layer", {"gather": "conv", "extent": 2, "hidden": 4}),
        ),
    )

    def __init__(
        self,
        channel: int,
        extent: int = 0,
        *,
        gather: str = "mean",
        hidden: int | None = None,
        height: int | None = None,
        width: int | None = None,
        padding: int = 0,
        maximum: bool = False,
        momentum: float = 0.1,
        **options: Unpack[Options],
    ) -> None:
        sizes = {"C": whole_number("channel", channel), "k_h": 3, "k_v": 3}
        extent, padding = whole_number("extent", extent, least=0), whole_number("padding", padding, least=0)
        conv = one_of("gather", gather, ("mean", "conv")) == "conv"
        if conv and extent not in (0, 2):
            raise ValueError(f'extent: expected 0 or 2 with gather="conv", got {extent}')
        if padding and not (conv and extent == 0):
            raise ValueError(f'padding: expected 0 but with gather="conv" and extent=0, got {padding}')
        if true_or_false("maximum", maximum) and conv:
            raise ValueError('maximum: expected False with gather="conv", got True')
        whole = conv and extent == 0
        lengths: Any = {"height": height, "width": width}  # None is refused where they are needed
        H, W = (whole_number(name, n) if whole or n is not None else 0 for name, n in lengths.items())
        if whole:
            sizes |= {"k_h": H, "k_v": W} | ({} if padding else {"H": H, "W": W})
        without: tuple[str, ...] = () if conv else ("w", "norm")
        if hidden is None:
            without += ("mlp",)
        else:
            sizes["R"] = whole_number("hidden", hidden)
        settings = {"extent": extent, "padding": padding, "maximum": maximum}
        super().__init__(sizes, without=without, settings=settings, momentum=momentum, **options)
