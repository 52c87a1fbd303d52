"""Gated channel transformation, docs/blocks/gated-channel.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn.attention import gated_channel
from npattn.explain.watch import walked, watched
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"epsilon": 0.5},)


def reference(x, w, epsilon=1e-5):
    """As the authors' code has it, with its mode "l2"."""
    e = (x.pow(2).sum((2, 3), keepdim=True) + epsilon).sqrt() * w["alpha"]
    length = (e.pow(2).mean(1, keepdim=True) + epsilon).sqrt()
    return x * (1 + (w["gamma"] * e / length + w["beta"]).tanh())


def derivation():
    x = by_index.image()
    N, C, H, W = x.shape
    P, eps = H * W, 0.25
    params = gated_channel.Params(random(C, seed=1), random(C, seed=2), random(C, seed=3))
    alpha, gamma, beta = params
    (y, cache), forward = watched(gated_channel.forward, x, params, eps)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(gated_channel.backward, dy, cache)

    q = filled((N, C), lambda n, c: math.sqrt(sum(x[n, c].ravel()[p] ** 2 for p in range(P)) + eps))
    e = filled((N, C), lambda n, c: alpha[c] * q[n, c])
    length = filled((N,), lambda n: math.sqrt(sum(e[n, c] ** 2 for c in range(C)) / C + eps))
    e_hat = filled((N, C), lambda n, c: e[n, c] / length[n])
    a = filled((N, C), lambda n, c: gamma[c] * e_hat[n, c] + beta[c])
    g = filled((N, C), lambda n, c: 1 + math.tanh(a[n, c]))
    same_at(
        list(walked(forward)), q=("GCT.1", q), e=("GCT.2", e), l=("GCT.3", length), e_hat=("GCT.4", e_hat),
        a=("GCT.5", a), g=("GCT.6", g),
    )  # fmt: skip
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "GCT.7")

    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))
    da = filled((N, C), lambda n, c: dg[n, c] * (1 - math.tanh(a[n, c]) ** 2))
    de_hat = filled((N, C), lambda n, c: da[n, c] * gamma[c])
    above = filled((N, C), lambda n, c: de_hat[n, c] / length[n])
    dlength = filled((N,), lambda n: -sum(de_hat[n, c] * e_hat[n, c] for c in range(C)) / length[n])
    below = filled((N, C), lambda n, c: dlength[n] * e[n, c] / (C * length[n]))
    de = above + below
    dq = filled((N, C), lambda n, c: de[n, c] * alpha[c])
    dalpha = filled((C,), lambda c: sum(de[n, c] * q[n, c] for n in range(N)))
    gate = filled(x.shape, lambda n, c, h, v: dq[n, c] * x[n, c, h, v] / q[n, c])
    same_at(
        list(walked(backward)), dg=("GCT.7", dg), da=("GCT.6", da), de_hat=("GCT.5", de_hat),
        de_above=("GCT.4", above), dl=("GCT.4", dlength), de_below=("GCT.3", below), dq=("GCT.2", dq),
        dalpha=("GCT.2", dalpha), dx_gate=("GCT.1", gate),
    )  # fmt: skip
    same(dx, filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c]) + gate, "the two ways meet")
    same(grads.alpha, dalpha, "dalpha")
    same(grads.gamma, filled((C,), lambda c: sum(da[n, c] * e_hat[n, c] for n in range(N))), "dgamma")
    same(grads.beta, filled((C,), lambda c: sum(da[n, c] for n in range(N))), "dbeta")


def claim_at_first_it_is_not_there():
    """gamma and beta 0: y is x, and so dx is dy; but gamma and beta have gradients, and alpha has none."""
    layer = npattn.GatedChannel(4, dtype="float64")
    x, dy = random(2, 4, 3, 5), random(2, 4, 3, 5, seed=1)
    same(layer(x), x, "y")
    same(layer.backward(dy), dy, "dx")
    assert layer.grads["gamma"].all()
    assert layer.grads["beta"].all()
    assert not layer.grads["alpha"].any()


def claim_competition_and_cooperation():
    """A channel grows. With gamma > 0 its own gate opens and those of the others shut, with gamma < 0 the reverse."""
    x, grown = random(1, 3, 2, 4), random(1, 3, 2, 4)
    grown[:, 1] *= 2
    for sign in (1, -1):
        params = gated_channel.Params(np.ones(3), np.full(3, float(sign)), np.zeros(3))
        change = sign * (gated_channel.forward(grown, params)[1].g - gated_channel.forward(x, params)[1].g)[0]
        assert change[1] > 0
        assert change[0] < 0
        assert change[2] < 0


def claim_a_sum_for_the_way_below():
    """Σ e · de: a step along e only makes l longer, and but for ε has no effect."""
    x = random(2, 4, 3, 5)
    params = gated_channel.Params(random(4), random(4, seed=1), random(4, seed=2))
    _, cache = gated_channel.forward(x, params, 1e-12)
    _, grads = gated_channel.backward(random(2, 4, 3, 5, seed=3), cache)
    _, cache_of_one = gated_channel.forward(x[:1], params, 1e-12)
    _, grads = gated_channel.backward(random(1, 4, 3, 5, seed=3), cache_of_one)
    assert abs(np.sum(grads.alpha * params.alpha)) < 1e-9 < np.abs(grads.alpha).max()


def claim_a_dead_channel_is_no_kink():
    """ε stands under the root: an all-zero channel has the length √ε, and dx is finite there."""
    x = random(2, 3, 2, 2)
    x[:, 0] = 0
    params = gated_channel.Params(np.ones(3), np.ones(3), np.zeros(3))
    _, cache = gated_channel.forward(x, params)
    assert np.isfinite(gated_channel.backward(np.ones_like(x), cache)[0]).all()


def claim_what_the_layer_says():
    assert npattn.GatedChannel(8).count() == 3 * 8
    assert gates_of(npattn.GatedChannel(3), random(2, 3, 4, 5)) == {"channel": (2, 3, 1, 1)}
    with pytest.raises(ValueError, match="epsilon: expected a finite number from 1e-30"):
        npattn.GatedChannel(3, epsilon=0)


# Wrong backwards


def inputs(rng):
    return image(rng), gated_channel.Params(*rng.standard_normal((3, 4)))


def to_e_hat(dy, cache):
    dg = np.sum(dy * cache.x, axis=(2, 3))
    return dg * cache.g * (2 - cache.g) * cache.params.gamma


def to_x(dy, de, cache):
    gate = cache.x * (de * cache.params.alpha / cache.q)[:, :, None, None]
    return dy * cache.g[:, :, None, None] + gate, np.sum(de * cache.q, axis=0)


@mistake(gated_channel.forward, inputs, "x", "direct path")
def gct_direct_path_alone(dy, cache):
    return dy * cache.g[:, :, None, None], gated_channel.backward(dy, cache)[1]


@mistake(gated_channel.forward, inputs, "x")
def gct_length_of_all_taken_for_a_constant(dy, cache):
    dx, dalpha = to_x(dy, to_e_hat(dy, cache) / cache.l, cache)
    return dx, gated_channel.backward(dy, cache)[1]._replace(alpha=dalpha)


@mistake(gated_channel.forward, inputs, "params.gamma")
def gct_slope_of_the_sigmoid(dy, cache):
    dx, grads = gated_channel.backward(dy, cache)
    da = np.sum(dy * cache.x, axis=(2, 3)) * cache.g * (1 - cache.g)  # g goes from 0 to 2
    return dx, grads._replace(gamma=np.sum(da * cache.e_hat, axis=0))


@mistake(gated_channel.forward, inputs, "params.alpha")
def gct_alpha_gets_the_gate_of_the_embedding(dy, cache):
    dx, grads = gated_channel.backward(dy, cache)
    return dx, grads._replace(alpha=np.sum(to_e_hat(dy, cache) * cache.q, axis=0))
