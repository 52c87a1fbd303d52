"""Point-wise spatial attention, docs/blocks/psa.md."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn.attention import psa
from npattn.ops import linear
from tests.support.by_index import gates_of, random, reached, same
from tests.support.mistakes import image, mistake

SQUARES = True


def reference(x, w):
    """PSANet's module pixel by pixel: a map of weights around every pixel, and the window of it over the image."""
    import torch
    import torch.nn.functional as F

    N, _, H, W = x.shape
    maps = {
        branch: F.conv2d(x, w[f"{branch}.weight"]).reshape(N, 2 * H - 1, 2 * W - 1, H, W)
        for branch in ("collect", "distribute")
    }
    collected = torch.zeros_like(x)
    distributed = torch.zeros_like(x)
    for h in range(H):
        for v in range(W):
            # the map has its own pixel in the middle, at (H-1, W-1); the image begins h rows above it, v columns left
            window = {b: m[:, H - 1 - h : 2 * H - 1 - h, W - 1 - v : 2 * W - 1 - v, h, v] for b, m in maps.items()}
            here = torch.zeros_like(x)
            here[:, :, h, v] = 1
            collected = collected + here * (window["collect"][:, None] * x).sum(dim=(2, 3), keepdim=True) / (H * W)
            distributed = distributed + window["distribute"][:, None] * x[:, :, h : h + 1, v : v + 1] / (H * W)
    return F.conv2d(torch.cat([x, collected, distributed], dim=1), w["fuse.weight"])


def derivation():
    N, C, H, W = 2, 3, 2, 4
    x, dy = random(N, C, H, W), random(N, C, H, W, seed=22)
    D = (2 * H - 1) * (2 * W - 1)
    w_c, w_d, w = random(D, C, seed=1), random(D, C, seed=2), random(C, 3 * C, seed=3)
    pixels = list(product(range(H), range(W)))

    def place(i, j):
        """Δ(i, j): rows down and columns right from i to j, from the top left corner of the over-completed map."""
        return (j[0] - i[0] + H - 1) * (2 * W - 1) + (j[1] - i[1] + W - 1)

    P = H * W
    y, dx = np.zeros_like(x), np.zeros_like(x)
    dw_c, dw_d, dw = np.zeros_like(w_c), np.zeros_like(w_d), np.zeros_like(w)
    for n in range(N):
        t = {p: x[n, :, p[0], p[1]] for p in pixels}
        a_c = {(i, j): w_c[place(i, j)] @ t[i] for i in pixels for j in pixels}
        a_d = {(i, j): w_d[place(j, i)] @ t[j] for i in pixels for j in pixels}
        z_c = {i: sum(a_c[i, j] * t[j] for j in pixels) / P for i in pixels}
        z_d = {i: sum(a_d[i, j] * t[j] for j in pixels) / P for i in pixels}
        dt = {p: np.zeros(C) for p in pixels}
        for i in pixels:
            v = np.concatenate([t[i], z_c[i], z_d[i]])
            y[n, :, i[0], i[1]] = w @ v
            d = dy[n, :, i[0], i[1]]
            dw += np.outer(d, v)
            self_, dz_c, dz_d = np.split(w.T @ d, 3)
            dt[i] += self_
            for j in pixels:
                dt[j] += a_c[i, j] * dz_c / P + a_d[i, j] * dz_d / P
                da_c, da_d = dz_c @ t[j] / P, dz_d @ t[j] / P
                dt[i] += da_c * w_c[place(i, j)]
                dw_c[place(i, j)] += da_c * t[i]
                dt[j] += da_d * w_d[place(j, i)]
                dw_d[place(j, i)] += da_d * t[j]
        for p in pixels:
            dx[n, :, p[0], p[1]] = dt[p]
    found, cache = psa.forward(x, psa.Params(w_c, w_d, w))
    same(found, y, "PSA.8")
    found_dx, grads = psa.backward(dy, cache)
    same(found_dx, dx, "five ways meet")
    for one, other, name in zip(grads, (dw_c, dw_d, dw), ("dw_c", "dw_d", "dw"), strict=True):
        same(one, other, name)


def claim_every_number_of_the_map_is_read_once_at_most():
    """D numbers a pixel, H·W of them read, none twice; unread is read's transpose."""
    for H, W in ((1, 1), (1, 5), (3, 2), (4, 4)):
        D, P = (2 * H - 1) * (2 * W - 1), H * W
        index = psa.places(H, W, np.zeros(1))
        assert index.min() >= 0
        assert index.max() < D
        assert all(len(set(row)) == P for row in index.tolist())
        m, a = random(2, P, D), random(2, P, P)
        assert np.sum(psa.read(m, H, W) * a) == pytest.approx(np.sum(m * psa.unread(a, H, W)))
        assert np.count_nonzero(psa.unread(np.ones((1, P, P)), H, W)) == P * P


def claim_collect_and_distribute_are_each_others_transpose():
    """With the same weights in both branches, what i collects from j is what i distributes to j: a_d = a_cᵀ."""
    w = random(15, 3)
    _, cache = psa.forward(random(1, 3, 2, 3), psa.Params(w, w, random(3, 9)))
    same(cache.a_d, np.swapaxes(cache.a_c, 1, 2), "transposed")


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    _, cache = psa.forward(x, psa.Params(random(63, 3), random(63, 3, seed=1), random(3, 9)))
    assert reached(psa.backward, cache, x.shape, (0, 4)).all()


def claim_maps_of_another_size_are_refused():
    layer = npattn.PSA(4, 3, 5)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, C=4, H=3, W=5\), got \(2, 4, 5, 3\)"):
        layer(np.zeros((2, 4, 5, 3), np.float32))
    with pytest.raises(ValueError, match=r"w_c: expected shape \(\(2H-1\)\(2W-1\)=45, C=2\), got \(44, 2\)"):
        psa.forward(np.zeros((1, 2, 3, 5)), psa.Params(np.zeros((44, 2)), np.zeros((45, 2)), np.zeros((2, 6))))


def claim_what_attention_holds():
    shapes = {"collect": (2, 3, 5, 3, 5), "distribute": (2, 3, 5, 3, 5)}
    assert gates_of(npattn.PSA(4, 3, 5), random(2, 4, 3, 5)) == shapes


def inputs(rng):
    D, C = 15, 4
    weights = (rng.standard_normal((D, C)), rng.standard_normal((D, C)), rng.standard_normal((C, 3 * C)))
    return image(rng, (2, C, 2, 3)), psa.Params(*weights)


@mistake(psa.forward, inputs, "x")
def psa_weights_taken_for_constants(dy, cache):
    _, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dt, dz_c, dz_d = np.split(rows @ cache.fuse.params.w, 3, axis=2)
    dt = dt + (cache.a_c.swapaxes(1, 2) @ dz_c + cache.a_d.swapaxes(1, 2) @ dz_d) / rows.shape[1]
    return dt.swapaxes(1, 2).reshape(dy.shape).copy(), grads


@mistake(psa.forward, inputs, "params.w_d")
def psa_distribute_not_turned_round(dy, cache):
    dx, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dz_d = np.split(rows @ cache.fuse.params.w, 3, axis=2)[2]
    da_d = dz_d @ cache.t.swapaxes(1, 2) / rows.shape[1]
    _, (dw_d, _) = linear.backward(psa.unread(da_d, 2, 3), cache.distribute)
    return dx, grads._replace(w_d=dw_d)


@mistake(psa.forward, inputs, "params.w_c")
def psa_outside_of_the_image_not_masked(dy, cache):
    dx, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dz_c = np.split(rows @ cache.fuse.params.w, 3, axis=2)[1]
    da_c = dz_c @ cache.t.swapaxes(1, 2) / rows.shape[1]
    inside = psa.unread(np.ones_like(da_c), 2, 3)
    dm_c = psa.unread(da_c, 2, 3) + (1 - inside) * da_c[:, :, :1]  # an index out of range, set to 0 and then read
    _, (dw_c, _) = linear.backward(dm_c, cache.collect)
    return dx, grads._replace(w_c=dw_c)
