"""Spatial group-wise enhance, docs/blocks/sge.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn.attention import sge
from npattn.explain.watch import walked, watched
from npattn.ops import sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, same, value
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"groups": 1}, {"groups": 2, "eps": 0.5})


def reference(x, w, groups=None, eps=1e-5):
    """As the authors' code has it, with torch's standard deviation; there that of a single pixel is NaN."""
    weight, bias = w["weight"], w["bias"]
    N, C, H, W = x.shape
    G = weight.shape[1]
    grouped = x.reshape(N * G, C // G, H, W)
    like = (grouped * grouped.mean(dim=(2, 3), keepdim=True)).sum(dim=1).reshape(N * G, H * W)
    t = like - like.mean(dim=1, keepdim=True)
    t = t / ((t.std(dim=1, keepdim=True) if H * W > 1 else 0) + eps)
    gate = (t.reshape(N, G, H, W) * weight + bias).sigmoid()
    return (grouped * gate.reshape(N * G, 1, H, W)).reshape(x.shape)


def derivation():
    N, G, D, H, W = 2, 2, 3, 2, 4
    P, C, eps = H * W, G * D, 0.25
    x, dy = random(N, C, H, W, seed=20), random(N, C, H, W, seed=22)
    gamma, beta = random(G, seed=1), random(G, seed=2)
    (y, cache), forward = watched(sge.forward, x, sge.Params(gamma, beta), eps)
    (dx, grads), backward = watched(sge.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))
    at, dyp = x.reshape(N, G, D, P), dy.reshape(N, G, D, P)  # channel D·q + e is the e-th of group q

    s = filled((N, G, D), lambda n, q, e: sum(at[n, q, e, p] for p in range(P)) / P)
    c = filled((N, G, P), lambda n, q, p: sum(at[n, q, e, p] * s[n, q, e] for e in range(D)))
    m = filled((N, G, P), lambda n, q, p: c[n, q, p] - sum(c[n, q, j] for j in range(P)) / P)
    sigma = filled((N, G), lambda n, q: math.sqrt(sum(m[n, q, p] ** 2 for p in range(P)) / (P - 1)))
    t = filled((N, G, P), lambda n, q, p: m[n, q, p] / (sigma[n, q] + eps))
    a = filled((N, G, P), lambda n, q, p: gamma[q] * t[n, q, p] + beta[q])
    g = by_index.sigmoid(a)
    direct = filled((N, G, D, P), lambda n, q, e, p: dyp[n, q, e, p] * g[n, q, p])
    dg = filled((N, G, P), lambda n, q, p: sum(dyp[n, q, e, p] * at[n, q, e, p] for e in range(D)))
    da = dg * g * (1 - g)
    dt = filled((N, G, P), lambda n, q, p: da[n, q, p] * gamma[q])
    dgamma = filled((G,), lambda q: sum(da[n, q, p] * t[n, q, p] for n in range(N) for p in range(P)))
    dbeta = filled((G,), lambda q: sum(da[n, q, p] for n in range(N) for p in range(P)))
    above = filled((N, G, P), lambda n, q, p: dt[n, q, p] / (sigma[n, q] + eps))
    dsigma = filled((N, G), lambda n, q: -sum(dt[n, q, p] * t[n, q, p] for p in range(P)) / (sigma[n, q] + eps))
    below = filled((N, G, P), lambda n, q, p: dsigma[n, q] * m[n, q, p] / (sigma[n, q] * (P - 1)))
    dm = above + below
    dc = filled((N, G, P), lambda n, q, p: dm[n, q, p] - sum(dm[n, q, j] for j in range(P)) / P)
    like = filled((N, G, D, P), lambda n, q, e, p: dc[n, q, p] * s[n, q, e])
    ds = filled((N, G, D), lambda n, q, e: sum(dc[n, q, p] * at[n, q, e, p] for p in range(P)))
    for steps, name, tag, wanted in (
        (there, "s", "SGE.1", s), (there, "c", "SGE.2", c), (there, "m", "SGE.3", m), (there, "sigma", "SGE.4", sigma),
        (there, "t", "SGE.5", t), (there, "a", "SGE.6", a), (there, "g", "SGE.7", g),
        (back, "dx_direct", "SGE.8", direct), (back, "dg", "SGE.8", dg), (back, "da", "SGE.7", da),
        (back, "dt", "SGE.6", dt), (back, "dgamma", "SGE.6", dgamma), (back, "dbeta", "SGE.6", dbeta),
        (back, "dm_above", "SGE.5", above), (back, "dsigma", "SGE.5", dsigma), (back, "dm_below", "SGE.4", below),
        (back, "dc", "SGE.3", dc), (back, "dx_like", "SGE.2", like), (back, "ds", "SGE.2", ds),
        (back, "dx_mean", "SGE.1", ds / P),
    ):  # fmt: skip
        same(value(steps, name, tag).reshape(wanted.shape), wanted, f"{tag}, {name}")
    same(y.reshape(at.shape), filled(at.shape, lambda n, q, e, p: at[n, q, e, p] * g[n, q, p]), "SGE.8")
    same(dx.reshape(at.shape), direct + like + ds[..., None] / P, "the three ways meet")
    same(grads.gamma, dgamma, "dgamma")
    same(grads.beta, dbeta, "dbeta")


def claim_pixels_alike_have_no_gradient_through_their_spread():
    """σ has a kink at 0, as a length has. Both the maps of one pixel and constant ones are there."""
    params = sge.Params(random(2), random(2, seed=2))
    for x in (random(2, 4, 1, 1), np.ones((2, 4, 3, 2))):
        y, cache = sge.forward(x, params)
        gates = by_index.sigmoid(params.beta)[None, :, None, None, None]
        same(y.reshape(2, 2, 2, *x.shape[2:]), x.reshape(2, 2, 2, *x.shape[2:]) * gates, "only the bias is left")
        dx, grads = sge.backward(random(*x.shape, seed=3), cache)
        assert np.isfinite(dx).all()
        assert not grads.gamma.any()
        assert grads.beta.all()


def claim_the_last_pixel_is_told_by_the_others():
    """Of a group's t the sum is 0, and the sum of squares, but for ε, P − 1: as many gates open as shut."""
    _, cache = sge.forward(random(2, 6, 4, 5), sge.Params(random(3), random(3)), 1e-12)
    np.testing.assert_allclose(cache.t.sum(axis=(2, 3, 4)), 0, atol=1e-12)
    np.testing.assert_allclose((cache.t**2).sum(axis=(2, 3, 4)), 4 * 5 - 1, rtol=1e-9)


def claim_twice_the_group_is_the_same_gate():
    """x scaled by 2 makes c four times as large, and σ as well."""
    x, params = random(1, 4, 3, 5), sge.Params(random(2), random(2, seed=1))
    gates = sge.forward(x, params, 1e-12)[1].g
    for other in (2 * x, -x):
        np.testing.assert_allclose(sge.forward(other, params, 1e-12)[1].g, gates, rtol=1e-9)


def claim_what_the_layer_says():
    layer = npattn.SpatialGroupEnhance(4)
    assert layer.count() == 2 * 4
    assert gates_of(layer, random(2, 8, 4, 5)) == {"groups": (2, 4, 4, 5)}
    np.testing.assert_allclose(layer.attention["groups"], by_index.sigmoid(1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"x \(its channels\): expected a multiple of gamma \(its length\) = 4, got 6"):
        layer(np.zeros((1, 6, 2, 2), np.float32))
    with pytest.raises(ValueError, match="eps: expected a finite number from 1e-30"):
        npattn.SpatialGroupEnhance(4, eps=0)


# Wrong backwards


def inputs(rng):
    return image(rng), sge.Params(rng.standard_normal(2), rng.standard_normal(2))


def by_groups(dy, cache):
    return dy.reshape(cache.x.shape)


def to_t(dy, cache):
    dg = np.sum(by_groups(dy, cache) * cache.x, axis=2, keepdims=True)
    return sigmoid.backward(dg, cache.gate) * cache.gamma


def centred(dm):
    return dm - dm.mean(axis=(3, 4), keepdims=True)


def to_x(dy, dc, cache, like=1, mean=1):
    """The three ways to x, of which some are left out."""
    ds = np.sum(dc * cache.x, axis=(3, 4), keepdims=True)
    dx = by_groups(dy, cache) * cache.g + like * dc * cache.s + mean * ds / (dy.shape[2] * dy.shape[3])
    return dx.reshape(dy.shape)


def to_c(dy, cache, below=1):
    dt, divisor = to_t(dy, cache), cache.sigma + cache.eps
    dsigma = -np.sum(dt * cache.t, axis=(3, 4), keepdims=True) / divisor
    unit = cache.t * divisor / cache.sigma
    return centred(dt / divisor + below * dsigma * unit / (dy.shape[2] * dy.shape[3] - 1))


@mistake(sge.forward, inputs, "x", "direct path")
def sge_direct_path_alone(dy, cache):
    return (by_groups(dy, cache) * cache.g).reshape(dy.shape), sge.backward(dy, cache)[1]


@mistake(sge.forward, inputs, "x", "the same along axes (2, 3)")
def sge_mean_of_the_group_taken_for_a_constant(dy, cache):
    return to_x(dy, to_c(dy, cache), cache, mean=0), sge.backward(dy, cache)[1]


@mistake(sge.forward, inputs, "x")
def sge_pixels_only_read_by_the_mean(dy, cache):
    return to_x(dy, to_c(dy, cache), cache, like=0), sge.backward(dy, cache)[1]


@mistake(sge.forward, inputs, "x")
def sge_spread_taken_for_a_constant(dy, cache):
    return to_x(dy, to_c(dy, cache, below=0), cache), sge.backward(dy, cache)[1]


@mistake(sge.forward, inputs, "x")
def sge_one_gate_for_all_channels(dy, cache):
    """Right where there is one group: the tests of the checks' inputs ask it there too."""
    dg = np.sum(by_groups(dy, cache) * cache.x, axis=(1, 2), keepdims=True) + np.zeros_like(cache.g)
    dt, divisor = sigmoid.backward(dg, cache.gate) * cache.gamma, cache.sigma + cache.eps
    dsigma = -np.sum(dt * cache.t, axis=(3, 4), keepdims=True) / divisor
    others = max(dy.shape[2] * dy.shape[3] - 1, 1)
    dc = centred(dt / divisor + dsigma * cache.t * divisor / cache.sigma / others)
    return to_x(dy, dc, cache), sge.backward(dy, cache)[1]


@mistake(sge.forward, inputs, "params.gamma")
def sge_gate_of_one_channel_taken_for_that_of_the_group(dy, cache):
    dx, grads = sge.backward(dy, cache)
    dg = (by_groups(dy, cache) * cache.x)[:, :, :1]
    return dx, grads._replace(gamma=np.sum(sigmoid.backward(dg, cache.gate) * cache.t, axis=(0, 2, 3, 4)))
