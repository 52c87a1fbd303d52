"""Pool-and-concatenate channel attention, docs/blocks/concat.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import channel, concat, se_parallel
from npattn.ops import global_avg_pool, global_max_pool, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, first_pixel, gates_of, random, same
from tests.support.mistakes import image, mistake


def reference(x, w):
    """As the article's English part has it: pooled by windows of the whole map, concatenated, two FC, sigmoid."""
    import torch
    import torch.nn.functional as F

    size = tuple(x.shape[2:])
    pooled = torch.cat([F.avg_pool2d(x, size, stride=1), F.max_pool2d(x, size, stride=1)], dim=1)
    return F.conv2d(F.relu(F.conv2d(pooled, w["fc1.weight"])), w["fc2.weight"]).sigmoid()


def derivation():
    x = by_index.image()
    N, C, H, W = x.shape
    P, R = H * W, 2
    w1, w2 = random(R, 2 * C), random(C, R)
    xp = x.reshape(N, C, P)
    first = first_pixel(xp)
    s_avg = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    s_max = filled((N, C), lambda n, c: xp[n, c, first[n, c]])
    s = filled((N, 2 * C), lambda n, e: s_avg[n, e] if e < C else s_max[n, e - C])
    z = filled((N, R), lambda n, r: sum(s[n, e] * w1[r, e] for e in range(2 * C)))
    h = np.maximum(z, 0)
    g = filled((N, C), lambda n, c: by_index.sigmoid(sum(h[n, r] * w2[c, r] for r in range(R))))
    found, cache = concat.forward(x, concat.Params(w1, w2))
    same(found[:, :, 0, 0], g, "CAT.5")

    dg = random(N, C)
    da = dg * g * (1 - g)
    dz = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)) if z[n, r] > 0 else 0)
    ds = filled((N, 2 * C), lambda n, e: sum(dz[n, r] * w1[r, e] for r in range(R)))
    dx = filled((N, C, P), lambda n, c, p: (ds[n, C + c] if p == first[n, c] else 0) + ds[n, c] / P)
    found_dx, grads = concat.backward(dg[:, :, None, None], cache)
    same(found_dx.reshape(N, C, P), dx, "the two poolings meet")
    same(grads.w1, np.einsum("nr,ne->re", dz, s), "CAT.4, dw1")
    same(grads.w2, np.einsum("nc,nr->cr", da, h), "CAT.4, dw2")


def claim_concatenating_is_two_matrices_added_before_the_relu():
    """[s_avg, s_max] [A, B]ᵀ = s_avg Aᵀ + s_max Bᵀ. With B = 0 it is SE's gate, with A = B one MLP of the sum."""
    x, A, w2 = by_index.image(), random(2, 3), random(3, 2)
    alone = concat.forward(x, concat.Params(np.concatenate([A, np.zeros_like(A)], axis=1), w2))[0]
    same(alone, se_parallel.forward(x, se_parallel.Params(A, w2))[0], "B = 0")
    both = concat.forward(x, concat.Params(np.concatenate([A, A], axis=1), w2))[0]
    s = np.mean(x, axis=(2, 3)) + np.max(x, axis=(2, 3))
    same(both[:, :, 0, 0], by_index.sigmoid(np.maximum(s @ A.T, 0) @ w2.T), "A = B")
    cbam_gate = channel.forward(x, channel.Params(A, w2))[0]
    assert np.max(np.abs(both - cbam_gate)) > 1e-3, "the ReLU stands before the sum in CBAM: not the same"


def claim_the_first_of_tied_maxima():
    tied = np.full((1, 2, 2, 3), 7.0)
    w1, w2 = np.array([[0.0, 0.0, 1.0, 0.5]]), np.ones((2, 1))
    _, cache = concat.forward(tied, concat.Params(w1, w2))
    dx, _ = concat.backward(np.ones((1, 2, 1, 1)), cache)
    assert np.all(dx[:, :, 0, 0] != 0)
    dx[:, :, 0, 0] = 0
    assert np.all(dx == 0)


def claim_what_attention_holds():
    assert gates_of(npattn.ConcatAttention(4, 2), random(2, 4, 3, 5)) == {"channel": (2, 4, 1, 1)}


def inputs(rng):
    return image(rng), concat.Params(rng.standard_normal((3, 8)), rng.standard_normal((4, 3)))


def descriptors(dy, cache):
    """What comes back to [s_avg, s_max]."""
    return channel.mlp_backward(sigmoid.backward(dy[:, :, 0, 0], cache.gate), cache.mlp)[0]


@mistake(concat.forward, inputs, "x")
def concatenated_descriptors_taken_back_in_the_wrong_order(dy, cache):
    _, grads = concat.backward(dy, cache)
    ds = descriptors(dy, cache)
    dx_avg = global_avg_pool.backward(ds[:, 4:].copy(), cache.avg_pool)
    return dx_avg + global_max_pool.backward(ds[:, :4].copy(), cache.max_pool), grads


@mistake(concat.forward, inputs, "x")
def concatenated_maximum_path_forgotten(dy, cache):
    _, grads = concat.backward(dy, cache)
    return global_avg_pool.backward(descriptors(dy, cache)[:, :4].copy(), cache.avg_pool), grads


@mistake(concat.forward, inputs, "params.w1")
def concatenated_halves_taken_for_one_shared_matrix(dy, cache):
    dx, (dw1, dw2) = concat.backward(dy, cache)
    of_both = dw1[:, :4] + dw1[:, 4:]
    return dx, concat.Params(np.concatenate([of_both, of_both], axis=1), dw2)
