"""SE's gate alone, for other maps, docs/blocks/wrong.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import channel, se_parallel
from npattn.ops import linear, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, same
from tests.support.mistakes import image, mistake


def reference(x, w):
    import torch.nn.functional as F

    hidden = F.relu(F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), w["fc.0.weight"]))
    return F.linear(hidden, w["fc.2.weight"]).sigmoid()[..., None, None]


def derivation():
    x = by_index.image()
    N, B, H, W = x.shape
    P, R, C = H * W, 2, 4
    w1, w2 = random(R, B), random(C, R)
    g, cache = se_parallel.forward(x, se_parallel.Params(w1, w2))
    s = filled((N, B), lambda n, b: sum(x.reshape(N, B, P)[n, b]) / P)
    z = filled((N, R), lambda n, r: sum(s[n, b] * w1[r, b] for b in range(B)))
    h = np.maximum(z, 0)
    wanted = filled((N, C), lambda n, c: by_index.sigmoid(sum(h[n, r] * w2[c, r] for r in range(R))))
    same(g[:, :, 0, 0], wanted, "PAR.4")
    dg = random(N, C)
    da = dg * wanted * (1 - wanted)
    dz = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)) if z[n, r] > 0 else 0)
    ds = filled((N, B), lambda n, b: sum(dz[n, r] * w1[r, b] for r in range(R)))
    dx, grads = se_parallel.backward(dg[:, :, None, None], cache)
    assert np.any(dz == 0)
    assert np.any(dz != 0)
    same(dx, np.broadcast_to(ds[:, :, None, None] / P, x.shape), "PAR.2")
    same(grads.w1, np.einsum("nr,nb->rb", dz, s), "PAR.3, dw1")
    same(grads.w2, np.einsum("nc,nr->cr", da, h), "PAR.3, dw2")


def claim_what_attention_holds():
    assert gates_of(npattn.SEGate(4, 6, 2), random(2, 4, 3, 5)) == {"channel": (2, 6, 1, 1)}


def inputs(rng):
    return image(rng), se_parallel.Params(rng.standard_normal((3, 4)), rng.standard_normal((6, 3)))


@mistake(se_parallel.forward, inputs, "x", "which is H·W")
def se_gate_mean_not_divided_by_the_pixels(dy, cache):
    dx, grads = se_parallel.backward(dy, cache)
    return dx * 30, grads


@mistake(se_parallel.forward, inputs, "params.w1")
def se_gate_relu_lets_everything_back(dy, cache):
    dx, (_, dw2) = se_parallel.backward(dy, cache)
    dh, _ = linear.backward(sigmoid.backward(dy[:, :, 0, 0], cache.gate), cache.mlp.fc2)
    return dx, se_parallel.Params(linear.backward(dh, cache.mlp.fc1)[1].w, dw2)


@mistake(se_parallel.forward, inputs, "params.w2")
def se_gate_slope_of_the_sigmoid_forgotten(dy, cache):
    dx, (dw1, _) = se_parallel.backward(dy, cache)
    return dx, se_parallel.Params(dw1, channel.mlp_backward(dy[:, :, 0, 0], cache.mlp)[1].w2)
