"""Linear context transform, docs/blocks/lct.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import linear_context as lct
from npattn.explain.watch import walked, watched
from npattn.ops import global_avg_pool, layer_norm, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, normal, normal_back, random, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"groups": 1}, {"groups": 2, "eps": 0.5})


def reference(x, w, groups=None, eps=1e-5):
    """As a group norm of the means. The groups are those of the place: as many as leave three channels in each."""
    import torch.nn.functional as F

    C = x.shape[1]
    G = groups or next(G for G in range(max(1, C // 3), 0, -1) if C % G == 0)
    s = F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]
    return x * F.group_norm(s, G, w["w"], w["b"], eps).sigmoid()[:, :, None, None]


def derivation():
    N, C, H, W = 3, 6, 2, 4
    G, D, P, eps = 2, 3, H * W, 0.25
    x, dy = random(N, C, H, W, seed=20), random(N, C, H, W, seed=22)
    w, b = random(C, seed=1), random(C, seed=2)
    (y, cache), forward = watched(lct.forward, x, lct.Params(w, b), G, eps)
    (dx, grads), backward = watched(lct.backward, dy, cache)

    s = filled((N, C), lambda n, c: sum(x[n, c].ravel()[p] for p in range(P)) / P)
    rows, rho = normal(s.reshape(N * G, D), eps)
    s_hat = rows.reshape(N, C)
    a = filled((N, C), lambda n, c: w[c] * s_hat[n, c] + b[c])
    g = by_index.sigmoid(a)
    same_at(
        list(walked(forward)), s=("LCT.1", s), grouped=("LCT.2", rows.reshape(N, G, D)), a=("LCT.3", a), g=("LCT.4", g)
    )
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "LCT.5")

    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))
    da = dg * g * (1 - g)
    ds_hat = filled((N, C), lambda n, c: da[n, c] * w[c])
    dw = filled((C,), lambda c: sum(da[n, c] * s_hat[n, c] for n in range(N)))
    db = filled((C,), lambda c: sum(da[n, c] for n in range(N)))
    ds = normal_back(ds_hat.reshape(N * G, D), rows, rho).reshape(N, C)
    same_at(
        list(walked(backward)), dg=("LCT.5", dg), da=("LCT.4", da), ds_hat=("LCT.3", ds_hat), dw=("LCT.3", dw),
        db=("LCT.3", db), ds=("LCT.2", ds.reshape(N, G, D)),
    )  # fmt: skip
    same(dx, filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + ds[n, c] / P), "the two ways meet")
    same(grads.w, dw, "dw")
    same(grads.b, db, "db")


def claim_groups_do_not_meet():
    """A gradient of one group's channels comes back to that group alone."""
    x = random(1, 6, 2, 3)
    _, cache = lct.forward(x, lct.Params(random(6), random(6, seed=1)), 3)
    dy = np.zeros_like(x)
    dy[:, 2] = 1
    reached = np.any(lct.backward(dy, cache)[0] != 0, axis=(0, 2, 3))
    assert list(reached) == [False, False, True, True, False, False]


def claim_a_group_of_one_says_nothing():
    x, params = random(2, 4, 2, 3), lct.Params(random(4), random(4, seed=1))
    _, cache = lct.forward(x, params, 4)
    same(cache.g, np.broadcast_to(by_index.sigmoid(params.b), (2, 4)), "the bias alone")
    assert not lct.backward(x, cache)[1].w.any()


def claim_lighter_images_have_the_same_gates():
    """Add 7 to x, or double it: a mean is seen against those of its group."""
    x, params = random(2, 4, 2, 3), lct.Params(random(4), random(4, seed=1))
    gates = lct.forward(x, params, 2, 1e-12)[1].g
    for other in (x + 7, 2 * x):
        np.testing.assert_allclose(lct.forward(other, params, 2, 1e-12)[1].g, gates, rtol=1e-9)


def claim_what_the_layer_says():
    layer = npattn.LinearContext(8, 4)
    assert layer.count() == 2 * 8
    assert gates_of(layer, random(2, 8, 4, 5)) == {"channel": (2, 8, 1, 1)}
    with pytest.raises(ValueError, match="channels: expected a multiple of groups = 3, got 8"):
        npattn.LinearContext(8, 3)
    with pytest.raises(ValueError, match="eps: expected a finite number from 1e-30"):
        npattn.LinearContext(8, 4, eps=0)


# Wrong backwards


def inputs(rng):
    return image(rng), lct.Params(rng.standard_normal(4), rng.standard_normal(4))


def in_two(x, params):
    return lct.forward(x, params, 2)


def direct(dy, cache):
    return dy * cache.g[:, :, None, None]


def to_s_hat(dy, cache):
    return sigmoid.backward(np.sum(dy * cache.x, axis=(2, 3)), cache.gate) * cache.w


@mistake(in_two, inputs, "x", "direct path")
def lct_direct_path_alone(dy, cache):
    return direct(dy, cache), lct.backward(dy, cache)[1]


@mistake(in_two, inputs, "x", "the same along axes (2, 3)")
def lct_statistics_taken_for_constants(dy, cache):
    ds = to_s_hat(dy, cache).reshape(cache.norm.x_hat.shape) * cache.norm.rho
    back = global_avg_pool.backward(ds.reshape(cache.g.shape), cache.squeeze)
    return direct(dy, cache) + back, lct.backward(dy, cache)[1]


@mistake(in_two, inputs, "x", "the same along axes (2, 3)")
def lct_one_norm_over_all_channels(dy, cache):
    of_all = layer_norm.forward(np.mean(cache.x, axis=(2, 3)))[1]
    back = global_avg_pool.backward(layer_norm.backward(to_s_hat(dy, cache), of_all)[0], cache.squeeze)
    return direct(dy, cache) + back, lct.backward(dy, cache)[1]


@mistake(in_two, inputs, "params.b", "a constant factor of 0.5")
def lct_bias_averaged_over_the_batch(dy, cache):
    dx, grads = lct.backward(dy, cache)
    return dx, grads._replace(b=grads.b / dy.shape[0])
