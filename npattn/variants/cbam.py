"""CBAM with options: which gate first, both at once, one alone, a residual around them.

    x (N, C, H, W)   a gate is (N, C, 1, 1) from the channel attention, (N, 1, H, W) from the spatial one

    one after the other, in the order asked for, from u = x on
    VCB.1   g = the next attention of u            of what the gate before has left, not of x
    VCB.2   u ← u · g                  (N, C, H, W)

    in parallel
    VCB.3   g_c = channel attention of x           (N, C, 1, 1)
    VCB.4   g_s = spatial attention of x           (N, 1, H, W)   of x, too
    VCB.5   u = x · g_c · g_s          (N, C, H, W)

    VCB.6   y = u + x where a residual is asked for, else y = u

Channel first without a residual is CBAM.1 to CBAM.4. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from npattn.attention.options import CbamForm
from npattn.backend import Array, array_module
from npattn.checks import floating, same_shape
from npattn.ops.batch_norm import Running
from npattn.variants import channel, spatial


class Params(NamedTuple):
    ca: channel.Params | None  # None: no channel gate
    sa: spatial.Params | None  # None: no spatial gate


class Step(NamedTuple):
    u: Array  # (N, C, H, W), before the gate
    g: Array  # (N, C, 1, 1) or (N, 1, H, W)
    attention: Any  # the cache of the gate's own pair


class SeriesCache(NamedTuple):
    steps: tuple[Step, ...]


class ParallelCache(NamedTuple):
    x: Array  # (N, C, H, W)
    g_c: Array  # (N, C, 1, 1)
    g_s: Array  # (N, 1, H, W)
    ca: channel.Cache
    sa: spatial.Cache


class Cache(NamedTuple):
    residual: bool
    gated: SeriesCache | ParallelCache


def step_forward(
    u: Array, params: channel.Params | spatial.Params, form: CbamForm, running: Running | None
) -> tuple[Array, Step]:
    """Scale u by the one gate that the parameters are of."""
    attention: channel.Cache | spatial.Cache
    if isinstance(params, channel.Params):
        g, attention = channel.forward(u, params, form.channel)  # VCB.1
    else:
        g, attention = spatial.forward(u, params, form.spatial, running)  # VCB.1
    return u * g, Step(u, g, attention)  # VCB.2


def step_backward(dy: Array, step: Step) -> tuple[Array, Any]:
    """Return du and the gradients of the one gate."""
    u, g, attention = step
    xp = array_module(u)

    # VCB.2 was u · g: each factor receives dy times the other, and g, where it was broadcast, the sum
    du_direct = dy * g  # VCB.2
    of_channel = isinstance(attention, channel.Cache)
    dg = xp.sum(dy * u, axis=(2, 3) if of_channel else 1, keepdims=True)  # VCB.2

    # VCB.1 made g from u, the second way on which u went on
    du_gate, grads = (channel.backward if of_channel else spatial.backward)(dg, attention)  # VCB.1
    return du_direct + du_gate, grads


def series_forward(x: Array, params: Params, form: CbamForm, running: Running | None) -> tuple[Array, SeriesCache]:
    """The gates one after the other."""
    ordered = params if form.order == "channel-first" else params[::-1]
    u, steps = x, []
    for of_one in ordered:
        if of_one is not None:
            u, step = step_forward(u, of_one, form, running)
            steps.append(step)
    return u, SeriesCache(tuple(steps))


def series_backward(dy: Array, cache: SeriesCache) -> tuple[Array, Params]:
    """Return dx and the gradients. The gate that came last is undone first."""
    du, dca, dsa = dy, None, None
    for step in reversed(cache.steps):
        du, grads = step_backward(du, step)
        if isinstance(step.attention, channel.Cache):
            dca = grads
        else:
            dsa = grads
    return du, Params(dca, dsa)


def parallel_forward(x: Array, params: Params, form: CbamForm, running: Running | None) -> tuple[Array, ParallelCache]:
    """Both gates from the same x."""
    if params.ca is None or params.sa is None:
        raise ValueError(f"params: expected both ca and sa for parallel gates, got {params}")
    g_c, ca = channel.forward(x, params.ca, form.channel)  # VCB.3
    g_s, sa = spatial.forward(x, params.sa, form.spatial, running)  # VCB.4
    u = x * g_c * g_s  # VCB.5
    return u, ParallelCache(x, g_c, g_s, ca, sa)


def parallel_backward(dy: Array, cache: ParallelCache) -> tuple[Array, Params]:
    """Return dx and the gradients."""
    x, g_c, g_s, ca, sa = cache
    xp = array_module(x)

    # VCB.5 was u = x · g_c · g_s: each factor receives dy times the two others, and a gate, broadcast, the sum
    dx_direct = dy * g_c * g_s  # VCB.5
    dg_s = xp.sum(dy * x * g_c, axis=1, keepdims=True)  # VCB.5
    dg_c = xp.sum(dy * x * g_s, axis=(2, 3), keepdims=True)  # VCB.5

    # VCB.4 and VCB.3 each made a gate from x: no way leads through both
    dx_s, dsa = spatial.backward(dg_s, sa)  # VCB.4
    dx_c, dca = channel.backward(dg_c, ca)  # VCB.3
    return dx_direct + dx_s + dx_c, Params(dca, dsa)


def forward(
    x: Array,
    params: Params,
    form: CbamForm = CbamForm(),  # noqa: B008
    running: Running | None = None,
) -> tuple[Array, Cache]:
    """Scale x by its gates.

    Parameters: x (N, C, H, W); params, ca and sa, one of which may be None; form, in what order, with a residual or
    not, and the forms of the two gates; running, the statistics of a normalised spatial gate, None for the batch's.
    Returns: y (N, C, H, W) and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not.
    """
    if params.ca is None and params.sa is None:
        raise ValueError("params: expected ca, sa or both, got None twice: there would be no gate")
    gated: Callable[..., tuple[Array, SeriesCache | ParallelCache]]
    gated = parallel_forward if form.order == "parallel" else series_forward
    u, cache = gated(x, params, form, running)
    y = u + x if form.residual else u  # VCB.6
    return y, Cache(form.residual, cache)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dca, dsa). Raises TypeError or ValueError if dy (N, C, H, W) does not match y."""
    residual, gated = cache
    x = gated.x if isinstance(gated, ParallelCache) else gated.steps[0].u
    floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")

    if isinstance(gated, ParallelCache):
        dx_gated, grads = parallel_backward(dy, gated)
    else:
        dx_gated, grads = series_backward(dy, gated)
    # VCB.6 added x itself: one more way, of slope 1
    dx = dx_gated + dy if residual else dx_gated  # VCB.6
    return dx, grads


# The layer's side: names, shapes, running statistics

FC = ("ca.fc1", "ca.fc2")


def run(layer: Any, x: Array) -> tuple[Array, Cache]:
    """`CBAM.run` with options."""
    ca = channel.params_of(layer.params, FC) if "ca.fc1.weight" in layer.params else None
    sa = spatial.params_of(layer.params, "sa.") if "sa.conv1.weight" in layer.params else None
    y, cache = forward(x, Params(ca, sa), layer.form, spatial.running_of(layer, "sa."))
    gated = cache.gated
    attentions = (gated.ca, gated.sa) if isinstance(gated, ParallelCache) else [step.attention for step in gated.steps]
    layer._gates = {}
    for attention in attentions:
        if isinstance(attention, channel.Cache):
            layer._gates["channel"] = attention.g[:, :, None, None]
        else:
            spatial.track(layer, attention, layer.momentum, "sa.")
            layer._gates["spatial"] = attention.g
    return y, cache


def undo(layer: Any, dy: Array, cache: Cache) -> tuple[Array, MutableMapping[str, Array]]:
    """`CBAM.undo` with options."""
    dx, (dca, dsa) = backward(dy, cache)
    of_channel = {} if dca is None else channel.named(dca, layer.params, FC)
    return dx, of_channel | ({} if dsa is None else spatial.named(dsa, "sa."))
