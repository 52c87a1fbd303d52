"""The channel gate with every option: which poolings, mixed where, how many FC, with biases or not, which gate.

    x (N, C, H, W)   n poolings   R hidden units
    w1 (R, C), for "concat" (R, n·C)   b1 (R) or none   w2 (C, R)   b2 (C) or none
    one FC only: w1 (C, C) or (C, n·C), b1 (C) or none

    VCA.1   s_i = pooling i of x                   (N, C)   for i = 1 … n
    VCA.2   t = what the MLP reads:
            "after"    t_i = s_i                   (N, C)   n of them: the MLP runs n times
            "before"   t = (s_1 + … + s_n) / n     (N, C)   one
            "concat"   t = [s_1, …, s_n]           (N, n·C) one
    VCA.3   a_j = mlp(t_j)                         (N, C)   the same weights for every j
    VCA.4   a = a_1 + a_2 + …                      (N, C)
    VCA.5   g = gate(a)                            (N, C)   returned as (N, C, 1, 1)

    the MLP, for a descriptor t
    VMLP.1  z = t w1ᵀ + b1                         (N, R)   with one FC this is a already
    VMLP.2  h = relu(z)                            (N, R)
    VMLP.3  a = h w2ᵀ + b2                         (N, C)

With average and maximum, "after", two FC, no bias and the sigmoid these are CA.1 to CA.6. Derivation: docs/variants.md
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from npattn.attention.options import ChannelForm
from npattn.backend import Array, array_module
from npattn.checks import floating, same_shape, shaped
from npattn.ops import linear, pooling
from npattn.ops.activation import ReluCache, relu_backward, relu_forward
from npattn.variants.gates import GATES, Pair
from npattn.variants.pooling import (
    global_even_max_backward,
    global_even_max_forward,
    lp_pool_backward,
    lp_pool_forward,
    lse_pool_backward,
    lse_pool_forward,
)

POOLS = {
    "avg": Pair(pooling.global_avg_pool_forward, pooling.global_avg_pool_backward),
    "max, first": Pair(pooling.global_max_pool_forward, pooling.global_max_pool_backward),
    "max, even": Pair(global_even_max_forward, global_even_max_backward),
    "lp": Pair(lp_pool_forward, lp_pool_backward),
    "lse": Pair(lse_pool_forward, lse_pool_backward),
}


class Params(NamedTuple):
    w1: Array  # (R, C), (R, n·C), or with one FC (C, C), (C, n·C)
    b1: Array | None = None  # (R), with one FC (C)
    w2: Array | None = None  # (C, R); None: there is one FC
    b2: Array | None = None  # (C)


class MlpCache(NamedTuple):
    fc1: linear.Cache
    relu: ReluCache | None = None
    fc2: linear.Cache | None = None


class Cache(NamedTuple):
    form: ChannelForm
    pools: tuple[Any, ...]  # one cache a pooling
    runs: tuple[MlpCache, ...]  # one a run of the MLP
    gate: Any
    g: Array  # (N, C)


def pools_of(form: ChannelForm) -> list[Pair]:
    """The pooling pairs of the form, in its order."""
    return [POOLS[f"max, {form.max_tie}" if name == "max" else name] for name in form.pools]


def mlp_forward(t: Array, params: Params) -> tuple[Array, MlpCache]:
    """Two FC with a ReLU between, or one FC: t (N, K) to a (N, C)."""
    w1, b1, w2, b2 = params
    z, fc1 = linear.forward(t, linear.Params(w1, b1))  # VMLP.1
    if w2 is None:
        return z, MlpCache(fc1)
    h, relu = relu_forward(z)  # VMLP.2
    a, fc2 = linear.forward(h, linear.Params(w2, b2))  # VMLP.3
    return a, MlpCache(fc1, relu, fc2)


def mlp_backward(da: Array, cache: MlpCache) -> tuple[Array, Params]:
    """Return dt (N, K) and the gradients of this one use of the weights."""
    dz, dw2, db2 = da, None, None
    if cache.fc2 is not None and cache.relu is not None:
        # VMLP.3 was a = h w2ᵀ + b2
        dh, (dw2, db2) = linear.backward(da, cache.fc2)  # VMLP.3
        # VMLP.2 let through what was positive
        dz = relu_backward(dh, cache.relu)  # VMLP.2
    # VMLP.1 was z = t w1ᵀ + b1
    dt, (dw1, db1) = linear.backward(dz, cache.fc1)  # VMLP.1
    return dt, Params(dw1, db1, dw2, db2)


def mixed(s: list[Array], mix: str) -> list[Array]:
    """What the MLP reads of the descriptors: all of them one after the other, their mean, or all side by side."""
    if mix == "before":
        return [reduce(add, s) / len(s)]
    return [array_module(*s).concat(s, axis=1)] if mix == "concat" else s


def unmixed(dt: list[Array], mix: str, n: int) -> list[Array]:
    """The gradients of the n descriptors, from those of what the MLP read."""
    if mix == "before":
        return [dt[0] / n] * n
    C = dt[0].shape[1] // n
    return [dt[0][:, i * C : (i + 1) * C] for i in range(n)] if mix == "concat" else dt


def forward(x: Array, params: Params, form: ChannelForm = ChannelForm()) -> tuple[Array, Cache]:  # noqa: B008
    """The channel gate of x.

    Parameters: x (N, C, H, W); params, w1 and, if there are, b1, w2, b2; form, what is pooled, mixed and gated how.
    Returns: g (N, C, 1, 1), in [0, 1], and the cache.
    Raises TypeError for a dtype or library that does not match, ValueError for a shape that does not.
    """
    w1, b1, w2, b2 = params
    floating(x=x, w1=w1, b1=b1, w2=w2, b2=b2)
    _, C, _, _ = shaped("x", x, "N C H W")
    K = C * len(form.pools) if form.mix == "concat" else C
    R, _ = shaped("w1", w1, "R K", K=K) if w2 is not None else shaped("w1", w1, "C K", C=C, K=K)
    if w2 is not None:
        shaped("w2", w2, "C R", C=C, R=R)

    s, pools = zip(*(pool.forward(x) for pool in pools_of(form)), strict=True)  # VCA.1
    t = mixed(list(s), form.mix)  # VCA.2
    runs = [mlp_forward(t_j, params) for t_j in t]  # VCA.3
    a = reduce(add, [a_j for a_j, _ in runs])  # VCA.4
    g, gate = GATES[form.gate].forward(a)  # VCA.5
    return g[:, :, None, None], Cache(form, pools, tuple(mlp for _, mlp in runs), gate, g + 0)


def backward(dg: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients, None where there is no parameter.

    Raises TypeError or ValueError if dg (N, C, 1, 1) does not match the gate.
    """
    form = cache.form
    floating(dg=dg)
    same_shape("dg", dg, (*cache.g.shape, 1, 1), "the output gate")

    # VCA.5 was g = gate(a)
    da = GATES[form.gate].backward(dg[:, :, 0, 0], cache.gate)  # VCA.5

    # VCA.4 was a sum: each of its terms receives all of da
    da_runs = [da for _ in cache.runs]  # VCA.4

    # VCA.3 used the same weights in every run: a gradient from each use, and their sum
    runs = [mlp_backward(da_j, run) for da_j, run in zip(da_runs, cache.runs, strict=True)]  # VCA.3
    grads = reduce(added, [from_run for _, from_run in runs])

    # VCA.2 gave the descriptors as they are, their mean, or all in one row
    ds = unmixed([dt for dt, _ in runs], form.mix, len(form.pools))  # VCA.2

    # VCA.1 pooled x n times: its gradient comes back from all of them
    dx = [pool.backward(ds_i, kept) for pool, ds_i, kept in zip(pools_of(form), ds, cache.pools, strict=True)]  # VCA.1
    return reduce(add, dx), grads


def added(one: Params, other: Params) -> Params:
    """The gradients of two uses of the same weights, together."""
    return Params(*(None if p is None else p + q for p, q in zip(one, other, strict=True)))


# The layer's side: names and shapes

FC = ("fc1", "fc2")


def params_of(params: Mapping[str, Array], fc: tuple[str, str] = FC) -> Params:
    """The pair's parameters, from a layer's by name. A 1×1 kernel (R, C, 1, 1) is an FC's matrix (R, C)."""
    matrices = {key: w[:, :, 0, 0] if w.ndim == 4 else w for key, w in params.items()}
    return Params(*(matrices.get(f"{name}.{kind}") for name in fc for kind in ("weight", "bias")))


def named(grads: Params, params: Mapping[str, Array], fc: tuple[str, str] = FC) -> dict[str, Array]:
    """The gradients by a layer's names, in the shapes of its parameters."""
    names = [f"{name}.{kind}" for name in fc for kind in ("weight", "bias")]
    found = {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}
    return {name: grad[:, :, None, None] if params[name].ndim == 4 else grad for name, grad in found.items()}


def run(layer: Any, x: Array) -> tuple[Array, Cache]:
    """`ChannelAttention.run` with options."""
    g, cache = forward(x, params_of(layer.params), layer.form)
    layer._gates = {"channel": cache.g[:, :, None, None]}
    return g, cache


def undo(layer: Any, dg: Array, cache: Cache) -> tuple[Array, MutableMapping[str, Array]]:
    """`ChannelAttention.undo` with options."""
    dx, grads = backward(dg, cache)
    return dx, named(grads, layer.params)
