"""Spatial attention with options, docs/variants.md."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from npattn.ops import batch_norm
from npattn.ops.gate_functions import GATES
from npattn.variants import spatial
from npattn.variants.spatial import Settings
from tests.support.by_index import GATE, at, filled, random, same
from tests.support.mistakes import image, mistake
from tests.support.torch_gates import channel_map, gate_function

MORE = (
    {"gate": "hard_sigmoid", "bias": True},
    {"gate": "torch_hard_sigmoid", "mix": "mean", "bias": True},
    {"max_tie": "even", "norm": True, "momentum": 0.5},  # with a bias too, the norm would take it away again
)


def reference(x, w, maps=("mean", "max"), mix="concat", bias=False, norm=False, momentum=0.1, gate="sigmoid",
              max_tie="first"):  # fmt: skip
    import torch
    import torch.nn.functional as F

    assert {"conv1.bias": bias, "bn.weight": norm} == {key: key in w for key in ("conv1.bias", "bn.weight")}
    kernel = w["conv1.weight"]
    found = [channel_map(name, max_tie, x) for name in maps]
    m = sum(found) / len(found) if mix == "mean" else torch.cat(found, dim=1)
    a = F.conv2d(m, kernel, w.get("conv1.bias"), padding=kernel.shape[-1] // 2)
    if norm:
        a = F.batch_norm(a, None, None, w["bn.weight"], w["bn.bias"], training=True)
    return gate_function(gate)(a)


def by_index(x, params, settings, running=None, dg=None):
    """The spatial gate as docs/variants.md has it. Returns g (N, H, W), or dx and the gradients for a cotangent."""
    N, C, H, W = x.shape
    w, b, norm = params
    k = w.shape[-1]
    q, names, places = k // 2, settings.maps, list(product(range(k), range(k)))
    first = filled((N, H, W), lambda n, h, v: next(c for c in range(C) if x[n, c, h, v] == max(x[n, :, h, v]))).astype(
        int
    )
    mapped = {
        "mean": filled((N, H, W), lambda n, h, v: sum(x[n, c, h, v] for c in range(C)) / C),
        "max": filled((N, H, W), lambda n, h, v: max(x[n, c, h, v] for c in range(C))),
    }
    slopes = {"mean": lambda n, c, h, v: 1 / C, "max": lambda n, c, h, v: 1 if c == first[n, h, v] else 0}
    m = [mapped[name] for name in names]
    if settings.mix == "mean":
        m = [filled((N, H, W), lambda n, h, v: sum(mapped[name][n, h, v] for name in names) / len(names))]

    def under_the_kernel(n, h, v):
        total = 0 if b is None else b[0]
        for one, (i, j) in product(range(len(m)), places):
            total += w[0, one, i, j] * at(m[one][n], h + i - q, v + j - q)
        return total

    a = c = filled((N, H, W), under_the_kernel)
    if norm is not None:
        mean, var = (c.mean(), c.var()) if running is None else running
        rho = 1 / math.sqrt(var + 1e-5)
        c_hat = filled((N, H, W), lambda n, h, v: (c[n, h, v] - mean) * rho)
        a = filled((N, H, W), lambda n, h, v: norm.gamma[0] * c_hat[n, h, v] + norm.beta[0])
    g = filled((N, H, W), lambda n, h, v: GATE[settings.gate](a[n, h, v]))
    if dg is None:
        return g

    slope = {"sigmoid": lambda u: u * (1 - u), "hard_sigmoid": lambda u: 1 / 6 if 0 < u < 1 else 0}[settings.gate]
    da = filled((N, H, W), lambda n, h, v: dg[n, h, v] * slope(g[n, h, v]))  # VSA.5
    dc, dnorm = da, None
    if norm is not None:  # VSA.4: ρ (dĉ − ĉ ⟨ĉ dĉ⟩ − ⟨dĉ⟩), means over all pixels; in eval the direct path alone
        dnorm = batch_norm.Params(np.sum(da * c_hat, keepdims=True).ravel(), np.sum(da, keepdims=True).ravel())
        dc_hat = da * norm.gamma[0]
        along, level = (np.mean(dc_hat * c_hat), np.mean(dc_hat)) if running is None else (0, 0)
        dc = filled((N, H, W), lambda n, h, v: rho * (dc_hat[n, h, v] - c_hat[n, h, v] * along - level))
    pixels = list(product(range(N), range(H), range(W)))
    dw = filled(
        w.shape,
        lambda _, one, i, j: sum(dc[n, h, v] * at(m[one][n], h + i - q, v + j - q) for n, h, v in pixels),
    )  # VSA.3
    dm = [
        filled(
            (N, H, W),
            lambda n, h, v, one=one: sum(w[0, one, i, j] * at(dc[n], h - i + q, v - j + q) for i, j in places),
        )
        for one in range(len(m))
    ]
    parts = [dm[0] / len(names)] * len(names) if settings.mix == "mean" else dm  # VSA.2
    of_map = list(zip(names, parts, strict=True))
    dx = filled(
        x.shape, lambda n, c, h, v: sum(dm_i[n, h, v] * slopes[name](n, c, h, v) for name, dm_i in of_map)
    )  # VSA.1
    return dx, spatial.Params(dw, np.sum(dc, keepdims=True).ravel(), dnorm)


def agree(found, wanted, what):
    """The gradients of the parameters that there are. All of a bias that a norm takes away again is rounding."""
    same(found.w, wanted.w, f"{what}, dw")
    if found.b is not None:
        same(found.b, wanted.b, f"{what}, db")
    if found.norm is not None:
        same(found.norm.gamma, wanted.norm.gamma, f"{what}, dgamma")
        same(found.norm.beta, wanted.norm.beta, f"{what}, dbeta")


def derivation():
    x = random(2, 3, 2, 4, seed=6)
    orders = [("mean", "max"), ("max", "mean"), ("max",)]
    for number, (maps, mix, norm, statistics, gate) in enumerate(
        product(orders, ("concat", "mean"), (False, True), (None, (0.3, 1.7)), GATE)
    ):
        rng = np.random.default_rng(number)
        settings = Settings(maps, mix, gate)
        w, b = rng.standard_normal((1, settings.n, 3, 3)), rng.standard_normal(1)
        gamma, beta = rng.standard_normal(1), rng.standard_normal(1)
        params = spatial.Params(w, b, batch_norm.Params(gamma, beta) if norm else None)
        running = None
        if statistics is not None:
            running = spatial.Running(batch_norm.Running(*map(np.atleast_1d, statistics)))
        what = f"{settings}, norm {norm} by {statistics}"
        g, cache = spatial.forward(x, params, settings, running)
        same(g[:, 0], by_index(x, params, settings, statistics), f"VSA.5, {what}")
        dg = rng.standard_normal(g.shape)
        dx, grads = spatial.backward(dg, cache)
        dx_, grads_ = by_index(x, params, settings, statistics, dg[:, 0])
        same(dx, dx_, f"VSA.1, {what}")
        agree(grads, grads_, f"VSA.3 and VSA.4, {what}")


def formed(**settings):
    """The forward with these settings."""

    def forward(x, params):
        return spatial.forward(x, params, Settings(**settings))

    return forward


def inputs(rng, norm=False):
    of_norm = batch_norm.Params(rng.standard_normal(1), rng.standard_normal(1)) if norm else None
    return image(rng), spatial.Params(rng.standard_normal((1, 2, 3, 3)), None, of_norm)


@mistake(formed(), inputs, "x")
def maps_taken_back_in_the_other_order(dy, cache):
    settings = cache.settings._replace(maps=cache.settings.maps[::-1])
    return spatial.backward(dy, cache._replace(settings=settings, maps=cache.maps[::-1]))


@mistake(formed(), lambda rng: inputs(rng, norm=True), "x")
def norm_in_training_undone_as_in_eval(dy, cache):
    return spatial.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))


@mistake(formed(), lambda rng: inputs(rng, norm=True), "params.norm.beta", "0 everywhere")
def norm_shift_taken_for_a_constant(dy, cache):
    dx, grads = spatial.backward(dy, cache)
    return dx, grads._replace(norm=grads.norm._replace(beta=np.zeros(1)))


@mistake(formed(), lambda rng: inputs(rng, norm=True), "params.w")
def norm_not_undone_on_the_way_to_the_kernel(dy, cache):
    dx, grads = spatial.backward(dy, cache)
    da = GATES[cache.settings.gate].backward(dy, cache.gate)
    return dx, grads._replace(w=spatial.conv2d.backward(da, cache.conv)[1].w)


def one_kernel(rng):
    return image(rng), spatial.Params(rng.standard_normal((1, 1, 3, 3)))


@mistake(formed(mix="mean"), one_kernel, "x", "a constant factor of 2")
def mean_of_maps_that_gives_each_all(dy, cache):
    dx, grads = spatial.backward(dy, cache)
    return 2 * dx, grads
