"""The Gaussian context transformer, docs/blocks/gaussian-context.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import gaussian_context
from npattn.explain.watch import walked, watched
from npattn.ops import global_avg_pool, layer_norm
from tests.support.by_index import filled, gates_of, image, normal, normal_back, random, same, same_at
from tests.support.mistakes import mistake, only_x

SQUARES = True
MORE = ({"c": 0.5}, {"c": 3.0, "eps": 0.5})


def reference(x, w, c=2, eps=1e-5):
    import torch.nn.functional as F

    s = F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]
    return x * (-(F.layer_norm(s, s.shape[1:], eps=eps) ** 2) / (2 * c**2)).exp()[:, :, None, None]


def derivation():
    x = image()
    N, C, H, W = x.shape
    P, width, eps = H * W, 0.75, 0.25
    (y, cache), forward = watched(gaussian_context.forward, x, width, eps)
    dy = random(*x.shape, seed=22)
    dx, backward = watched(gaussian_context.backward, dy, cache)

    s = filled((N, C), lambda n, c: sum(x[n, c].ravel()[p] for p in range(P)) / P)
    s_hat, rho = normal(s, eps)
    g = filled((N, C), lambda n, c: np.exp(-(s_hat[n, c] ** 2) / (2 * width**2)))
    same_at(list(walked(forward)), s=("GAUSS.1", s), s_hat=("GAUSS.2", s_hat), g=("GAUSS.3", g))
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "GAUSS.4")
    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))
    ds_hat = filled((N, C), lambda n, c: -dg[n, c] * g[n, c] * s_hat[n, c] / width**2)
    ds = normal_back(ds_hat, s_hat, rho)
    same_at(list(walked(backward)), dg=("GAUSS.4", dg), ds_hat=("GAUSS.3", ds_hat), ds=("GAUSS.2", ds))
    same(dx, filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + ds[n, c] / P), "the two ways meet")


def claim_what_is_usual_passes():
    """The nearer a channel's mean to that of all, the more of it; at most 1, on both sides alike."""
    x = random(2, 5, 3, 4)
    _, cache = gaussian_context.forward(x)
    far = np.abs(np.mean(x, axis=(2, 3)) - np.mean(x, axis=(1, 2, 3))[:, None])
    assert (np.argsort(far, axis=1) == np.argsort(-cache.g, axis=1)).all()
    assert cache.g.max() <= 1
    same(gaussian_context.forward(-x)[1].g, cache.g, "of −x")


def claim_a_gate_has_a_least():
    """One of C channels against all others, which are alike: ŝ² = C − 1, and g = exp(−(C − 1) / (2 c²))."""
    x = np.zeros((1, 5, 2, 2))
    x[:, 3] = 1
    gates = gaussian_context.forward(x, 2, 1e-12)[1].g[0]
    np.testing.assert_allclose(gates[3], np.exp(-4 / 8))
    np.testing.assert_allclose(gates[0], np.exp(-1 / 4 / 8))


def claim_one_channel_is_as_usual():
    x = random(2, 1, 3, 4)
    y, cache = gaussian_context.forward(x)
    same(y, x, "y")
    same(gaussian_context.backward(x, cache), x, "dx")


def claim_what_the_layer_says():
    assert npattn.GaussianContext().count() == 0
    assert gates_of(npattn.GaussianContext(), random(2, 3, 4, 5)) == {"channel": (2, 3, 1, 1)}
    with pytest.raises(ValueError, match="c: expected a finite number from 1e-15"):
        npattn.GaussianContext(0)


# Wrong backwards


def direct(dy, cache):
    return dy * cache.g[:, :, None, None]


def to_s_hat(dy, cache):
    return -np.sum(dy * cache.x, axis=(2, 3)) * cache.g * cache.s_hat / cache.c**2


@mistake(gaussian_context.forward, only_x, "x", "direct path")
def gaussian_direct_path_alone(dy, cache):
    return direct(dy, cache)


@mistake(gaussian_context.forward, only_x, "x", "the same along axes (2, 3)")
def gaussian_statistics_taken_for_constants(dy, cache):
    return direct(dy, cache) + global_avg_pool.backward(to_s_hat(dy, cache) * cache.norm.rho, cache.squeeze)


@mistake(gaussian_context.forward, only_x, "x", "the same along axes (2, 3)")
def gaussian_slope_without_its_sign(dy, cache):
    ds, _ = layer_norm.backward(-to_s_hat(dy, cache), cache.norm)
    return direct(dy, cache) + global_avg_pool.backward(ds, cache.squeeze)


@mistake(gaussian_context.forward, only_x, "x", "the same along axes (2, 3)")
def gaussian_half_of_the_slope(dy, cache):
    ds, _ = layer_norm.backward(to_s_hat(dy, cache) / 2, cache.norm)  # the 2 of ŝ² and that of 2 c² cancel
    return direct(dy, cache) + global_avg_pool.backward(ds, cache.squeeze)
