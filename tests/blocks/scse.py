"""scSE, docs/blocks/scse.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import scse, se
from npattn.explain.watch import walked, watched
from npattn.ops import global_avg_pool, linear, relu, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, reached, same, same_at
from tests.support.mistakes import image, mistake

MORE = ({"reduction": 1},)


def reference(x, w, reduction=None):
    import torch.nn.functional as F

    h = F.conv2d(x.mean((2, 3), keepdim=True), w["fc1.weight"], w["fc1.bias"]).relu()
    g_c = F.conv2d(h, w["fc2.weight"], w["fc2.bias"]).sigmoid()
    return x * g_c + x * F.conv2d(x, w["conv.weight"], w["conv.bias"]).sigmoid()


def params_of(C, R, seed=1):
    shapes = ((R, C), (R,), (C, R), (C,), (C,), (1,))
    return scse.Params(*(random(*shape, seed=seed + i) for i, shape in enumerate(shapes)))


def derivation():
    x = by_index.image()
    N, C, H, W = x.shape
    R, P = 2, H * W
    params = params_of(C, R, seed=3)
    w1, b1, w2, b2, w_s, b_s = params
    (y, cache), forward = watched(scse.forward, x, params)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(scse.backward, dy, cache)

    s = filled((N, C), lambda n, c: sum(x[n, c].ravel()[p] for p in range(P)) / P)
    z = filled((N, R), lambda n, r: sum(s[n, c] * w1[r, c] for c in range(C)) + b1[r])
    h = np.maximum(z, 0)
    assert 0 < np.count_nonzero(h) < h.size, "a unit passes and one does not"
    a_c = filled((N, C), lambda n, c: sum(h[n, r] * w2[c, r] for r in range(R)) + b2[c])
    a_s = filled((N, H, W), lambda n, i, v: sum(w_s[c] * x[n, c, i, v] for c in range(C)) + b_s[0])
    g_c, g_s = by_index.sigmoid(a_c), by_index.sigmoid(a_s)
    same_at(
        list(walked(forward)), s=("SCSE.1", s), z=("SCSE.2", z), h=("SCSE.3", h), a_c=("SCSE.4", a_c),
        g_c=("SCSE.5", g_c), a_s=("SCSE.6", a_s), g_s=("SCSE.7", g_s),
    )  # fmt: skip
    both = filled(x.shape, lambda n, c, i, v: g_c[n, c] + g_s[n, i, v])
    same(y, x * both, "SCSE.8")

    dg_c = filled((N, C), lambda n, c: sum(dy[n, c, i, v] * x[n, c, i, v] for i in range(H) for v in range(W)))
    dg_s = filled((N, H, W), lambda n, i, v: sum(dy[n, c, i, v] * x[n, c, i, v] for c in range(C)))
    da_s, da_c = dg_s * g_s * (1 - g_s), dg_c * g_c * (1 - g_c)
    spatial = filled(x.shape, lambda n, c, i, v: da_s[n, i, v] * w_s[c])
    places = [(n, i, v) for n in range(N) for i in range(H) for v in range(W)]
    dw_s = filled((C,), lambda c: sum(da_s[n, i, v] * x[n, c, i, v] for n, i, v in places))
    dh = filled((N, R), lambda n, r: sum(da_c[n, c] * w2[c, r] for c in range(C)))
    dz = np.where(z > 0, dh, 0)
    ds = filled((N, C), lambda n, c: sum(dz[n, r] * w1[r, c] for r in range(R)))
    same_at(
        list(walked(backward)), dg_c=("SCSE.8", dg_c), dg_s=("SCSE.8", dg_s), dx_direct=("SCSE.8", dy * both),
        da_s=("SCSE.7", da_s), dx_spatial=("SCSE.6", spatial), dw_s=("SCSE.6", dw_s), da_c=("SCSE.5", da_c),
        dh=("SCSE.4", dh), dz=("SCSE.3", dz), ds=("SCSE.2", ds),
    )  # fmt: skip
    same(dx, dy * both + spatial + ds[:, :, None, None] / P, "the three ways meet")
    same(grads.w1, filled((R, C), lambda r, c: sum(dz[n, r] * s[n, c] for n in range(N))), "dw1")
    same(grads.b1, filled((R,), lambda r: sum(dz[n, r] for n in range(N))), "db1")
    same(grads.w2, filled((C, R), lambda c, r: sum(da_c[n, c] * h[n, r] for n in range(N))), "dw2")
    same(grads.b2, filled((C,), lambda c: sum(da_c[n, c] for n in range(N))), "db2")
    same(grads.w_s, dw_s, "dw_s")
    same(grads.b_s, np.array([sum(da_s[place] for place in places)]), "db_s")


def claim_it_is_se_and_a_spatial_gate():
    """With no biases the first summand is SE's output; with the spatial gate shut it is all."""
    x = by_index.image()
    w1, _, w2, _, w_s, _ = params_of(3, 2)
    zeros = np.zeros(2), np.zeros(3)
    shut = scse.Params(w1, zeros[0], w2, zeros[1], 0 * w_s, np.array([-800.0]))
    same(scse.forward(x, shut)[0], se.forward(x, se.Params(w1, w2))[0], "SE")


def claim_twice_a_half_is_the_input():
    """All weights 0: both gates are ½, and y is x."""
    x = by_index.image()
    same(scse.forward(x, scse.Params(*(0 * w for w in params_of(3, 2))))[0], x, "y")


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    assert reached(scse.backward, scse.forward(x, params_of(3, 2))[1], x.shape, (1, 2)).all()


def claim_what_the_layer_says():
    layer = npattn.ScSE(8, 4)
    assert layer.count() == 2 * 8 * 2 + 2 + 8 + 8 + 1
    assert gates_of(layer, random(2, 8, 4, 5)) == {"channel": (2, 8, 1, 1), "spatial": (2, 1, 4, 5)}


# Wrong backwards


def inputs(rng):
    shapes = ((2, 4), (2,), (4, 2), (4,), (4,), (1,))
    return image(rng), scse.Params(*(rng.standard_normal(shape) for shape in shapes))


def by_channel(dy, cache):
    da = sigmoid.backward(np.sum(dy * cache.x, axis=(2, 3)), cache.channel)
    dz = relu.backward(linear.backward(da, cache.fc2)[0], cache.hidden)
    return global_avg_pool.backward(linear.backward(dz, cache.fc1)[0], cache.squeeze)


def by_pixel(dy, cache):
    dg = np.sum(dy * cache.x, axis=1, keepdims=True)
    return sigmoid.backward(dg, cache.spatial) * cache.w_s[:, None, None]


def direct(dy, cache):
    return dy * (cache.g_c[:, :, None, None] + cache.g_s)


@mistake(scse.forward, inputs, "x", "direct path")
def scse_direct_path_alone(dy, cache):
    return direct(dy, cache), scse.backward(dy, cache)[1]


@mistake(scse.forward, inputs, "x")
def scse_path_of_the_pixels_forgotten(dy, cache):
    return direct(dy, cache) + by_channel(dy, cache), scse.backward(dy, cache)[1]


@mistake(scse.forward, inputs, "x")
def scse_gates_multiplied_as_in_cbam(dy, cache):
    product = dy * cache.g_c[:, :, None, None] * cache.g_s
    return product + by_channel(dy, cache) + by_pixel(dy, cache), scse.backward(dy, cache)[1]


@mistake(scse.forward, inputs, "params.w_s")
def scse_spatial_gate_of_one_channel(dy, cache):
    dx, grads = scse.backward(dy, cache)
    da = sigmoid.backward((dy * cache.x)[:, :1], cache.spatial)  # one g_s was for all channels
    return dx, grads._replace(w_s=np.sum(da * cache.x, axis=(0, 2, 3)))
