"""The spatial gate with every option: which maps in which order, laid side by side or averaged, normalised or not.

    x (N, C, H, W)   n maps   w (1, n, k, k), for "mean" (1, 1, k, k), k odd   b (1) or none   norm: gamma, beta (1)

    VSA.1   m_i = mean or maximum over the channels of x       (N, 1, H, W)   for i = 1 … n, in the order asked for
    VSA.2   m = the maps together:
            "concat"   m = [m_1, …, m_n]                       (N, n, H, W)
            "mean"     m = (m_1 + … + m_n) / n                 (N, 1, H, W)
    VSA.3   c = w ∗ m + b                                      (N, 1, H, W)
    VSA.4   a = batch norm of c, where there is one, else c    (N, 1, H, W)
    VSA.5   g = gate(a)                                        (N, 1, H, W)

With the mean, then the maximum, no bias, no norm and the sigmoid these are SA.1 to SA.5. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from npattn.attention.options import SpatialForm
from npattn.backend import Array, array_module
from npattn.checks import floating, odd_kernel, same_shape
from npattn.ops import batch_norm, conv2d, pooling
from npattn.variants.gates import GATES, Pair
from npattn.variants.pooling import channel_even_max_backward, channel_even_max_forward

MAPS = {
    "mean": Pair(pooling.channel_mean_forward, pooling.channel_mean_backward),
    "max, first": Pair(pooling.channel_max_forward, pooling.channel_max_backward),
    "max, even": Pair(channel_even_max_forward, channel_even_max_backward),
}


class Params(NamedTuple):
    w: Array  # (1, n, k, k), for "mean" (1, 1, k, k)
    b: Array | None = None  # (1)
    norm: batch_norm.Params | None = None


class Cache(NamedTuple):
    form: SpatialForm
    maps: tuple[Any, ...]  # one cache a map
    conv: conv2d.Cache
    norm: batch_norm.Cache | None
    by_batch: bool  # whether the norm took the batch's own statistics
    gate: Any
    g: Array  # (N, 1, H, W)


def maps_of(form: SpatialForm) -> list[Pair]:
    """The pairs that make the maps of the form, in its order."""
    return [MAPS[f"max, {form.max_tie}" if name == "max" else name] for name in form.maps]


def forward(
    x: Array,
    params: Params,
    form: SpatialForm = SpatialForm(),  # noqa: B008
    running: batch_norm.Running | None = None,
) -> tuple[Array, Cache]:
    """The spatial gate of x.

    Parameters: x (N, C, H, W); params, w and, if there are, b and norm; form, which maps, mixed and gated how; running,
    the statistics to normalise by, mean and variance (1), or None for those of the batch.
    Returns: g (N, 1, H, W), in [0, 1], and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not or an even k.
    """
    w, b, norm = params
    floating(x=x, w=w, b=b, **({} if norm is None else norm._asdict()))
    n = len(form.maps) if form.mix == "concat" else 1
    odd_kernel("w", w, "1 n k k", **{"1": 1, "n": n})

    m, maps = zip(*(pair.forward(x) for pair in maps_of(form)), strict=True)  # VSA.1
    mixed = array_module(x).concat(m, axis=1) if form.mix == "concat" else reduce(add, m) / len(m)  # VSA.2
    c, conv = conv2d.forward(mixed, conv2d.Params(w, b))  # VSA.3
    a, kept = normalised(c, norm, running)  # VSA.4
    g, gate = GATES[form.gate].forward(a)  # VSA.5
    return g, Cache(form, maps, conv, kept, running is None, gate, g + 0)


def normalised(
    c: Array, norm: batch_norm.Params | None, running: batch_norm.Running | None
) -> tuple[Array, batch_norm.Cache | None]:
    """c normalised by the batch's statistics, by the running ones, or not at all."""
    if norm is None:
        return c, None
    return batch_norm.train_forward(c, norm) if running is None else batch_norm.eval_forward(c, norm, running)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients, None where there is no parameter.

    Raises TypeError or ValueError if dg (N, 1, H, W) does not match the gate.
    """
    form, maps, conv, norm, by_batch, gate, g = cache
    floating(dg=dg)
    same_shape("dg", dg, tuple(g.shape), "the output gate")

    # VSA.5 was g = gate(a)
    da = GATES[form.gate].backward(dg, gate)  # VSA.5

    # VSA.4 was a normalisation, by statistics that x had a hand in or by constants
    dc, dnorm = da, None
    if norm is not None:
        dc, dnorm = (batch_norm.train_backward if by_batch else batch_norm.eval_backward)(da, norm)  # VSA.4

    # VSA.3 was c = w ∗ m + b
    dmixed, (dw, db) = conv2d.backward(dc, conv)  # VSA.3

    # VSA.2 laid the maps on each other, and each takes its own back; or took their mean, and each has the same share
    n = len(form.maps)
    dm = [dmixed[:, i : i + 1, :, :] if form.mix == "concat" else dmixed / n for i in range(n)]  # VSA.2

    # VSA.1 made n maps of x: its gradient comes back from all of them
    dx = [pair.backward(dm_i, kept) for pair, dm_i, kept in zip(maps_of(form), dm, maps, strict=True)]  # VSA.1
    return reduce(add, dx), Params(dw, db, dnorm)


# The layer's side: names, shapes, running statistics


def params_of(params: Mapping[str, Array], prefix: str = "") -> Params:
    """The pair's parameters, from a layer's by name."""
    gamma = params.get(f"{prefix}bn.weight")
    norm = None if gamma is None else batch_norm.Params(gamma, params[f"{prefix}bn.bias"])
    return Params(params[f"{prefix}conv1.weight"], params.get(f"{prefix}conv1.bias"), norm)


def named(grads: Params, prefix: str = "") -> dict[str, Array]:
    """The gradients by a layer's names."""
    gamma, beta = grads.norm or (None, None)
    names = {"conv1.weight": grads.w, "conv1.bias": grads.b, "bn.weight": gamma, "bn.bias": beta}
    return {prefix + name: grad for name, grad in names.items() if grad is not None}


def running_of(layer: Any, prefix: str = "") -> batch_norm.Running | None:
    """The running statistics of a layer in eval mode; None in training, where the batch's own count."""
    mean = layer.buffers.get(f"{prefix}bn.running_mean")
    return (
        None if layer.training or mean is None else batch_norm.Running(mean, layer.buffers[f"{prefix}bn.running_var"])
    )


def track(layer: Any, cache: Cache, momentum: float, prefix: str = "") -> None:
    """Move the layer's running statistics towards the batch's, after a forward in training mode."""
    mean, var = f"{prefix}bn.running_mean", f"{prefix}bn.running_var"
    if cache.norm is not None and cache.by_batch:
        running = batch_norm.Running(layer.buffers[mean], layer.buffers[var])
        layer.buffers[mean], layer.buffers[var] = batch_norm.updated(running, cache.norm, momentum)
        layer.num_batches_tracked += 1


def run(layer: Any, x: Array) -> tuple[Array, Cache]:
    """`SpatialAttention.run` with options."""
    g, cache = forward(x, params_of(layer.params), layer.form, running_of(layer))
    track(layer, cache, layer.momentum)
    layer._gates = {"spatial": cache.g}
    return g, cache


def undo(layer: Any, dg: Array, cache: Cache) -> tuple[Array, MutableMapping[str, Array]]:
    """`SpatialAttention.undo` with options."""
    dx, grads = backward(dg, cache)
    return dx, named(grads)
