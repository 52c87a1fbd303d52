"""SE without its FC, docs/blocks/wrong.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import se, squeeze_scale
from tests.support.by_index import filled, gates_of, image, random, same
from tests.support.mistakes import mistake, only_x

SQUARES = True


def reference(x, w):
    return x * x.mean(dim=(2, 3), keepdim=True)


def derivation():
    x = image()
    N, C, H, W = x.shape
    P = H * W
    xp, dyp = x.reshape(N, C, P), random(N, C, P)
    y, cache = squeeze_scale.forward(x)
    s = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    same(y.reshape(N, C, P), filled((N, C, P), lambda n, c, p: xp[n, c, p] * s[n, c]), "NOFC.2")
    ds = filled((N, C), lambda n, c: sum(dyp[n, c, p] * xp[n, c, p] for p in range(P)))
    dx = filled((N, C, P), lambda n, c, p: dyp[n, c, p] * s[n, c] + ds[n, c] / P)
    same(squeeze_scale.backward(dyp.reshape(x.shape), cache).reshape(N, C, P), dx, "the two ways meet")


def claim_of_degree_two():
    """Twice the input gives four times the output: no gate does that. And Euler: Σ x · dx = 2 Σ y · dy."""
    x = image()
    y, cache = squeeze_scale.forward(x)
    same(squeeze_scale.forward(2 * x)[0], 4 * y, "degree two")
    dy = random(*x.shape)
    assert np.sum(x * squeeze_scale.backward(dy, cache)) == pytest.approx(2 * np.sum(y * dy))
    assert np.all(squeeze_scale.forward(-x)[0] == y)  # even: the sign is lost


def claim_it_keeps_to_its_channel():
    """What a channel's factor is, no other channel has a say in: dx of the others is exactly 0."""
    x = image()
    dy = np.zeros_like(x)
    dy[:, 1] = random(2, 2, 4)
    dx = squeeze_scale.backward(dy, squeeze_scale.forward(x)[1])
    assert np.any(dx[:, 1] != 0)
    assert np.all(np.delete(dx, 1, axis=1) == 0)
    w1, w2 = random(2, 3), random(3, 2, seed=22)
    through_fc = se.backward(dy, se.forward(x, se.Params(w1, w2))[1])[0]
    assert np.any(np.delete(through_fc, 1, axis=1) != 0), "SE's FC must mix the channels, or the comparison is empty"


def claim_nothing_to_learn():
    layer = npattn.SqueezeScale()
    layer.backward(layer(np.ones((1, 2, 3, 3), np.float32)))
    assert layer.params == layer.grads == {}
    assert layer.count() == 0


def claim_what_attention_holds():
    assert gates_of(npattn.SqueezeScale(), random(2, 4, 3, 5)) == {"channel": (2, 4, 1, 1)}


@mistake(squeeze_scale.forward, only_x, "x", "direct path")
def squeeze_taken_for_a_constant(dy, cache):
    return dy * cache.s[:, :, None, None]


@mistake(squeeze_scale.forward, only_x, "x", "same along axes (2, 3)")
def squeeze_path_not_divided_by_the_pixels(dy, cache):
    return dy * cache.s[:, :, None, None] + np.sum(dy * cache.x, axis=(2, 3), keepdims=True)


@mistake(squeeze_scale.forward, only_x, "x", "the same along axes (2, 3)")
def squeeze_taken_for_one_of_the_whole_image(dy, cache):
    ds = np.mean(dy * cache.x, axis=(1, 2, 3), keepdims=True)  # the sum runs over the pixels, not over the channels
    return dy * cache.s[:, :, None, None] + ds
