"""CBAM's channel attention, docs/blocks/channel.md."""

from __future__ import annotations

import numpy as np

from npattn.attention import channel
from npattn.explain.watch import walked, watched
from npattn.ops import global_avg_pool, sigmoid
from tests.support.by_index import filled, first_pixel, same, value
from tests.support.by_index import sigmoid as sigmoid_of
from tests.support.mistakes import image, mistake


def reference(x, w):
    import torch.nn.functional as F

    def mlp(descriptor):
        return F.conv2d(F.relu(F.conv2d(descriptor, w["fc1.weight"])), w["fc2.weight"])

    return (mlp(F.adaptive_avg_pool2d(x, 1)) + mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()


def by_index(x, w1, w2, dg=None):
    """Channel attention as docs/blocks/channel.md has it. Returns g, or (dx, dw1, dw2) for a cotangent dg (N, C)."""
    N, C, H, W = x.shape
    R, P = len(w1), H * W
    xp = x.reshape(N, C, P)
    first = first_pixel(xp)
    s = {
        "avg": filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P),
        "max": filled((N, C), lambda n, c: xp[n, c, first[n, c]]),
    }
    z = {u: filled((N, R), lambda n, r, u=u: sum(s[u][n, c] * w1[r, c] for c in range(C))) for u in s}
    h = {u: np.maximum(z[u], 0) for u in s}
    a = {u: filled((N, C), lambda n, c, u=u: sum(h[u][n, r] * w2[c, r] for r in range(R))) for u in s}
    g = filled((N, C), lambda n, c: sigmoid_of(a["avg"][n, c] + a["max"][n, c]))
    if dg is None:
        return g
    da = dg * g * (1 - g)  # CA.6; by CA.5 each of the two terms receives all of it
    ds, dw1, dw2 = {}, np.zeros_like(w1), np.zeros_like(w2)
    for u in s:  # CA.4 and CA.3, each by MLP.3 to MLP.1; the weights' gradients add
        dh = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)))
        dz = filled((N, R), lambda n, r, u=u, dh=dh: dh[n, r] if z[u][n, r] > 0 else 0)
        ds[u] = filled((N, C), lambda n, c, dz=dz: sum(dz[n, r] * w1[r, c] for r in range(R)))
        dw2 += filled((C, R), lambda c, r, u=u: sum(da[n, c] * h[u][n, r] for n in range(N)))
        dw1 += filled((R, C), lambda r, c, u=u, dz=dz: sum(dz[n, r] * s[u][n, c] for n in range(N)))
    dx = filled(
        (N, C, P), lambda n, c, p: (ds["max"][n, c] if p == first[n, c] else 0) + ds["avg"][n, c] / P
    )  # CA.2 and CA.1
    return dx.reshape(x.shape), dw1, dw2


def derivation():
    rng = np.random.default_rng(5)
    x, w1, w2 = rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((2, 3)), rng.standard_normal((3, 2))
    g, cache = channel.forward(x, channel.Params(w1, w2))
    dg = rng.standard_normal(g.shape)
    (dx, grads), backward = watched(channel.backward, dg, cache)
    same(g[:, :, 0, 0], by_index(x, w1, w2), "CA.6")
    wanted = by_index(x, w1, w2, dg[:, :, 0, 0])
    for found, expected, name in zip((dx, *grads), wanted, ("dx", "dw1", "dw2"), strict=True):
        same(found, expected, name)
    # CA.5: a sum is no budget, both terms receive all
    back = list(walked(backward))
    same(value(back, "da_avg", "CA.5"), value(back, "da_max", "CA.5"), "CA.5")


def inputs(rng):
    return image(rng), channel.Params(rng.standard_normal((3, 4)), rng.standard_normal((4, 3)))


@mistake(channel.forward, inputs, "x", "same along axes (2, 3)")
def channel_average_path_counted_twice(dy, cache):
    dx, grads = channel.backward(dy, cache)
    da = sigmoid.backward(dy[:, :, 0, 0], cache.gate)
    ds_avg, _ = channel.mlp_backward(da, cache.avg_mlp)
    return dx + global_avg_pool.backward(ds_avg, cache.avg_pool), grads


@mistake(channel.forward, inputs, "x")
def channel_maximum_path_forgotten(dy, cache):
    _, grads = channel.backward(dy, cache)
    da = sigmoid.backward(dy[:, :, 0, 0], cache.gate)
    ds_avg, _ = channel.mlp_backward(da, cache.avg_mlp)
    return global_avg_pool.backward(ds_avg, cache.avg_pool), grads


@mistake(channel.forward, inputs, "params.w1")
def channel_shared_weights_used_once(dy, cache):
    dx, _ = channel.backward(dy, cache)
    da = sigmoid.backward(dy[:, :, 0, 0], cache.gate)
    return dx, channel.mlp_backward(da, cache.avg_mlp)[1]
