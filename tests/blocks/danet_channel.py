"""DANet's channel attention, docs/blocks/danet.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn import capacity
from npattn.attention import danet_channel
from npattn.explain.watch import walked, watched
from npattn.ops import dot_product_attention
from tests.support.by_index import filled, gates_of, random, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
BETA = danet_channel.Params(np.array([0.7]))


def reference(x, w, unlike=False):
    """Of what is alike as the paper has it, of what is unlike as the authors' code: the largest score less each."""
    t = x.flatten(2)
    scores = t @ t.transpose(1, 2)
    if unlike:
        scores = scores.max(dim=2, keepdim=True).values - scores
    return x + w["gamma"] * (scores.softmax(2) @ t).view_as(x)


def derivation():
    for unlike in (False, True):
        compared(unlike)


def compared(unlike):
    N, C, H, W = 2, 3, 2, 3
    x, dy, P = 0.5 * random(N, C, H, W, seed=20), random(N, C, H, W, seed=22), H * W
    (beta,), sign = BETA.beta, -1 if unlike else 1
    (y, cache), forward = watched(danet_channel.forward, x, BETA, unlike)
    (dx, grads), backward = watched(danet_channel.backward, dy, cache)

    t = filled((N, C, P), lambda n, c, p: x[n, c, p // W, p % W])
    fit = filled((N, C, C), lambda n, c, m: math.exp(sign * sum(t[n, c, p] * t[n, m, p] for p in range(P))))
    a = filled((N, C, C), lambda n, c, m: fit[n, c, m] / sum(fit[n, c, j] for j in range(C)))
    z = filled((N, C, P), lambda n, c, p: sum(a[n, c, m] * t[n, m, p] for m in range(C)))
    same_at(list(walked(forward)), t=("DAC.1", t), z=("DAC.2", z))
    same(cache.attended.shares.y, a, "the shares")
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] + beta * z[n, c, h * W + v]), "DAC.3")

    dz = filled((N, C, P), lambda n, c, p: beta * dy[n, c].ravel()[p])
    ds = filled((N, C, C), lambda n, c, m: a[n, c, m] * sum(dz[n, c, p] * (t[n, m, p] - z[n, c, p]) for p in range(P)))
    dt_v = filled((N, C, P), lambda n, m, p: sum(a[n, c, m] * dz[n, c, p] for c in range(C)))
    dt_q = filled((N, C, P), lambda n, c, p: sign * sum(ds[n, c, m] * t[n, m, p] for m in range(C)))
    dt_k = filled((N, C, P), lambda n, m, p: sign * sum(ds[n, c, m] * t[n, c, p] for c in range(C)))
    dbeta = np.array([sum(dy[n, c].ravel()[p] * z[n, c, p] for n, c, p in np.ndindex(N, C, P))])
    same_at(
        list(walked(backward)), dz=("DAC.3", dz), dbeta=("DAC.3", dbeta), dt_q=("DAC.2", dt_q), dt_k=("DAC.2", dt_k),
        dt_v=("DAC.2", dt_v), dx_channels=("DAC.1", (dt_q + dt_k + dt_v).reshape(x.shape)),
    )  # fmt: skip
    same(dx, dy + (dt_q + dt_k + dt_v).reshape(x.shape), "four ways meet")
    same(grads.beta, dbeta, "dbeta")


def claim_a_channel_is_most_like_itself_and_least_unlike():
    """The score of a channel with itself is the square of its length: the longest one has a row's largest share."""
    x = random(2, 5, 3, 4)
    for unlike, pick in ((False, np.argmax), (True, np.argmin)):
        a = danet_channel.forward(x, BETA, unlike)[1].attended.shares.y
        longest = np.argmax((x * x).sum(axis=(2, 3)), axis=1)
        for n, c in enumerate(longest):
            assert pick(a[n, c]) == c


def claim_images_do_not_meet_and_pixels_do_not_count():
    """Only the products of maps count: turn the pixels in all channels alike, and y is turned."""
    x, order = random(2, 3, 1, 6), np.random.default_rng(1).permutation(6)
    y, cache = danet_channel.forward(x, BETA)
    same(danet_channel.forward(x[..., order], BETA)[0], y[..., order], "shuffled")
    dy = np.zeros_like(x)
    dy[1, 2] = 1
    assert list(np.any(danet_channel.backward(dy, cache)[0] != 0, axis=(1, 2, 3))) == [False, True]


def claim_one_channel_has_itself_alone():
    """C = 1: the share is 1, y = (1 + β) x, whatever the sign."""
    x = random(2, 1, 3, 4)
    for unlike in (False, True):
        y, cache = danet_channel.forward(x, BETA, unlike)
        same(y, 1.7 * x, "y")
        same(danet_channel.backward(x, cache)[0], 1.7 * x, "dx")


def claim_ties_share_alike():
    """Equal channels have equal shares and equal gradients: there is no maximum to choose."""
    x = np.repeat(random(2, 1, 3, 4), 3, axis=1)
    _, cache = danet_channel.forward(x, BETA)
    same(cache.attended.shares.y, np.full((2, 3, 3), 1 / 3), "shares")


def claim_it_begins_as_nothing():
    layer = npattn.DANetChannel(dtype="float64")
    x = random(2, 3, 3, 5)
    same(layer(x), x, "beta is 0")


def claim_what_the_layer_says():
    layer = npattn.DANetChannel()
    assert layer.count() == 1
    assert gates_of(layer, random(2, 8, 4, 5)) == {"pairs": (2, 8, 8)}
    np.testing.assert_allclose(layer.attention["pairs"].sum(axis=2), 1, rtol=1e-6)
    with pytest.raises(TypeError, match="unlike: expected True or False, got 1"):
        npattn.DANetChannel(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capacity, "capacity", lambda: 2**30)
        with pytest.raises(MemoryError, match=r"^x: 4 arrays of all pairs, 1 of 16,384 × 16,384: 8 GiB of memory"):
            danet_channel.forward(np.zeros((1, 16384, 1, 1)), BETA)
    with pytest.raises(ValueError, match=r"beta: expected shape \(1\), got \(3,\)"):
        danet_channel.forward(random(2, 3, 4, 5), danet_channel.Params(random(3)))


# Wrong backwards


def inputs(rng):
    return image(rng, (2, 4, 2, 3)) / 2, BETA


def of_unlike(x, params):
    return danet_channel.forward(x, params, True)


def three(dy, cache):
    """What comes back to queries, keys and values."""
    dz = cache.beta * dy.reshape(*dy.shape[:2], -1)
    return [d.reshape(dy.shape) for d in dot_product_attention.backward(dz, cache.attended)]


@mistake(danet_channel.forward, inputs, "x")
def danet_channel_shares_taken_for_constants(dy, cache):
    return dy + three(dy, cache)[2], danet_channel.backward(dy, cache)[1]


@mistake(danet_channel.forward, inputs, "x")
def danet_channel_keys_forgotten(dy, cache):
    """t tᵀ is symmetric, and its gradient is not: one of the two ways is not the half of it."""
    dt_q, _, dt_v = three(dy, cache)
    return dy + 2 * dt_q + dt_v, danet_channel.backward(dy, cache)[1]


@mistake(of_unlike, inputs, "x")
def danet_channel_sign_forgotten(dy, cache):
    dt_q, dt_k, dt_v = three(dy, cache)
    return dy - dt_q - dt_k + dt_v, danet_channel.backward(dy, cache)[1]


@mistake(danet_channel.forward, inputs, "x")
def danet_channel_beta_forgotten(dy, cache):
    dx, grads = danet_channel.backward(dy, cache)
    return dy + (dx - dy) / cache.beta, grads


@mistake(danet_channel.forward, inputs, "params.beta", "a constant factor of 0.5")
def danet_channel_beta_averaged_over_the_batch(dy, cache):
    dx, grads = danet_channel.backward(dy, cache)
    return dx, danet_channel.Params(grads.beta / dy.shape[0])
