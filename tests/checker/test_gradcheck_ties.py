"""Blocks at ties: where several meet, no choice among the tied is called wrong, and a backward that makes none is."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import gradcheck
from npattn.attention import cbam, channel, spatial


def forward(x, w1, w2, w):
    return cbam.forward(x, cbam.Params(channel.Params(w1, w2), spatial.Params(w)))


def backward(dy, cache):
    dx, grads = cbam.backward(dy, cache)
    return dx, grads.ca.w1, grads.ca.w2, grads.sa.w


def turned(x):
    return x[:, ::-1, ::-1, ::-1]


def last_forward(x, w1, w2, w):
    """CBAM where the last of each tie wins: the same, seen in a mirror."""
    y, cache = forward(turned(x), w1[:, ::-1], w2[::-1], w[..., ::-1, ::-1])
    return turned(y), cache


def last_backward(dy, cache):
    dx, dw1, dw2, dw = backward(turned(dy), cache)
    return turned(dx), dw1[:, ::-1], dw2[::-1], dw[..., ::-1, ::-1]


def without_complex(forward):
    def real(*inputs):
        if any(np.iscomplexobj(value) for value in inputs):
            raise TypeError("real numbers only")
        return forward(*inputs)

    return real


def tied(seed, C=4, R=3, k=3):
    """Whole numbers: channels that are 0 in places, of gates of any size."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((1, C, 3, 4)))
    return x, rng.standard_normal((R, C)), rng.standard_normal((C, R)), rng.standard_normal((1, 2, k, k))


FIRST, LAST = (forward, backward), (last_forward, last_backward)


@pytest.mark.parametrize(("pair", "seed"), [(FIRST, 4), (FIRST, 27), (LAST, 4), (LAST, 29)])
def test_where_ties_meet_no_choice_is_called_wrong(pair, seed):
    """The complex step goes one way at each tie and calls that smooth: differences have to be asked."""
    report = gradcheck(pair, *tied(seed), points=1, raise_exception=False)
    assert not report.wrong, str(report)
    real = (without_complex(pair[0]), pair[1])
    assert not gradcheck(real, *tied(seed), points=1, raise_exception=False).wrong


@pytest.mark.parametrize("seed", [4, 27])
def test_what_is_given_to_all_of_them_is_still_seen(seed):
    def to_all(dy, cache):
        """The channel maximum's gradient to each of the tied channels."""
        dx, *rest = backward(dy, cache)
        dy_u = spatial.backward(np.sum(dy * cache.u, axis=1, keepdims=True), cache.sa)[0]
        most = cache.u == np.max(cache.u, axis=1, keepdims=True)
        first = np.cumsum(most, axis=1) == 1
        extra = np.sum(dy_u * (most & first), axis=1, keepdims=True) * (most & ~first)
        return dx + extra * cache.g_c, *rest

    assert gradcheck((forward, to_all), *tied(seed), points=1, raise_exception=False).wrong


def test_many_ties_at_once_are_broken_in_order_too():
    """Drawn at random, points beside 30 tied pixels hardly ever break them all in favour of the last."""
    rng = np.random.default_rng(0)
    x = np.round(rng.standard_normal((3, 6, 5, 6)))[1:2]
    weights = rng.standard_normal((4, 6)), rng.standard_normal((6, 4)), rng.standard_normal((1, 2, 7, 7))
    pair = (lambda x: last_forward(x, *weights), lambda dy, cache: last_backward(dy, cache)[0])
    assert not gradcheck(pair, x, points=1, raise_exception=False).wrong
