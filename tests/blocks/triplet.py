"""Triplet attention, docs/blocks/triplet.md."""

from __future__ import annotations

from itertools import product

import numpy as np

import npattn
from npattn.attention import triplet
from npattn.ops import batch_norm
from tests.support import by_index
from tests.support.by_index import at, filled, gates_of, normal, normal_back, random, same
from tests.support.mistakes import image, mistake

MORE = ({"kernel_size": 3, "bias": True}, {"kernel_size": 5, "bias": True, "rectify": True})
AXES = {"ch": "vch", "cw": "hcv", "hw": "chv"}  # the axes of a branch: what is pooled over, then its map's two


def reference(x, w, kernel_size=None, bias=False, rectify=False):
    """As the authors' code has it, with changzy00's ReLU where that is asked for."""
    import torch
    import torch.nn.functional as F

    found = []
    for name in ("ch", "cw", "hw"):
        order = {"ch": (0, 3, 1, 2), "cw": (0, 2, 1, 3), "hw": (0, 1, 2, 3)}[name]
        v = x.permute(*order)
        maps = torch.cat([v.mean(1, keepdim=True), v.max(1, keepdim=True)[0]], dim=1)
        kernel = w[f"{name}.conv.weight"]
        z = F.conv2d(maps, kernel, w.get(f"{name}.conv.bias"), padding=kernel.shape[-1] // 2)
        u = F.batch_norm(z, None, None, w[f"{name}.bn.weight"], w[f"{name}.bn.bias"], training=True)
        g = (u.relu() if rectify else u).sigmoid()
        found.append((v * g).permute(*(order.index(i) for i in range(4))))
    return sum(found) / 3


def branch_of(seed, k=3, bias=True):
    norm = batch_norm.Params(random(1, seed=seed), random(1, seed=seed + 1))
    return triplet.Branch(random(1, 2, k, k, seed=seed + 2), norm, random(1, seed=seed + 3) if bias else None)


def params_of(bias=True, k=3):
    return triplet.Params(*(branch_of(seed, k, bias) for seed in (1, 11, 21)))


def running_of():
    return triplet.Running(
        *(
            triplet.BranchRunning(batch_norm.Running(random(1, seed=seed), 0.2 + random(1, seed=seed + 1) ** 2))
            for seed in (31, 41, 51)
        )
    )


def one_branch(x, dt, params, running, rectify):
    """A branch in which x (N, A, B, D) is pooled over A: its t, what comes back, and the gradients."""
    w, (gamma, beta), b = params
    N, A, B, D = x.shape
    k = w.shape[-1]
    q = k // 2
    first = filled((N, B, D), lambda n, i, j: int(np.argmax(x[n, :, i, j]))).astype(int)
    m = filled(
        (N, 2, B, D), lambda n, y, i, j: x[n, first[n, i, j], i, j] if y else sum(x[n, e, i, j] for e in range(A)) / A
    )
    taps = list(product((0, 1), range(k), range(k)))
    z = filled(
        (N, B, D),
        lambda n, i, j: sum(w[0, y, p, r] * at(m[n, y], i + p - q, j + r - q) for y, p, r in taps) + b[0],
    )
    if running is None:
        z_hat, rho = normal(z.reshape(1, -1), 1e-5)
    else:
        rho = 1 / np.sqrt(running.norm.var + 1e-5)
        z_hat = (z.reshape(1, -1) - running.norm.mean[0]) * rho[0]
    u = gamma[0] * z_hat.reshape(z.shape) + beta[0]
    g = by_index.sigmoid(np.maximum(u, 0) if rectify else u)
    t = filled(x.shape, lambda n, e, i, j: x[n, e, i, j] * g[n, i, j])

    dg = filled((N, B, D), lambda n, i, j: sum(dt[n, e, i, j] * x[n, e, i, j] for e in range(A)))
    du = dg * g * (1 - g) * ((u > 0) if rectify else 1)
    dz_hat = gamma[0] * du.reshape(1, -1)
    dz = (normal_back(dz_hat, z_hat, rho) if running is None else dz_hat * rho[0]).reshape(z.shape)
    dm = filled(
        m.shape,
        lambda n, y, i, j: sum(w[0, y, p, r] * at(dz[n], i - p + q, j - r + q) for p in range(k) for r in range(k)),
    )
    places = list(product(range(N), range(B), range(D)))
    dw = filled(w.shape, lambda _, y, p, r: sum(dz[n, i, j] * at(m[n, y], i + p - q, j + r - q) for n, i, j in places))
    back = filled(
        x.shape,
        lambda n, e, i, j: dt[n, e, i, j] * g[n, i, j] + dm[n, 1, i, j] * (e == first[n, i, j]) + dm[n, 0, i, j] / A,
    )
    grads = triplet.Branch(dw, batch_norm.Params(np.array([np.sum(du.ravel() * z_hat)]), np.array([np.sum(du)])))
    return t, back, grads._replace(b=np.array([np.sum(dz)]))


def derivation():
    x, dy = random(2, 3, 2, 4, seed=20), random(2, 3, 2, 4, seed=22)
    params = params_of()
    for running, rectify in product((None, running_of()), (False, True)):
        y, cache = triplet.forward(x, params, running, rectify)
        dx, grads = triplet.backward(dy, cache)
        ys, dxs = [], []
        for name, axes in AXES.items():
            turn = f"nchv->n{axes}", f"n{axes}->nchv"
            of_branch = None if running is None else getattr(running, name)
            t, back, wanted = one_branch(
                np.einsum(turn[0], x), np.einsum(turn[0], dy) / 3, getattr(params, name), of_branch, rectify
            )
            ys.append(np.einsum(turn[1], t))
            dxs.append(np.einsum(turn[1], back))
            found = getattr(grads, name)
            same(found.w, wanted.w, f"TRI.3, dw of {name}")
            same(found.norm.gamma, wanted.norm.gamma, f"TRI.4, dgamma of {name}")
            same(found.norm.beta, wanted.norm.beta, f"TRI.4, dbeta of {name}")
            np.testing.assert_allclose(found.b, wanted.b, atol=1e-13, err_msg=f"TRI.3, db of {name}")
        same(y, sum(ys) / 3, "TRI.8")
        same(dx, sum(dxs), "the three branches meet")


def claim_a_branch_is_a_turned_one():
    """Channels and columns of x change places: so do the branches hw and ch, up to the order of their maps' axes."""
    x, params = random(2, 3, 4, 5), params_of()
    flipped = {
        name: getattr(params, name)._replace(w=np.swapaxes(getattr(params, name).w, 2, 3))
        for name in ("ch", "hw", "cw")
    }
    turned = triplet.Params(ch=flipped["hw"], cw=flipped["cw"], hw=flipped["ch"])
    y, _ = triplet.forward(x, params)
    found, _ = triplet.forward(np.ascontiguousarray(np.swapaxes(x, 1, 3)), turned)
    same(np.swapaxes(found, 1, 3), y, "turned")


def claim_a_bias_before_the_norm_does_nothing_in_training():
    x, dy = random(2, 3, 2, 4), random(2, 3, 2, 4, seed=1)
    with_one, cache = triplet.forward(x, params_of())
    same(with_one, triplet.forward(x, params_of(bias=False))[0], "y")
    _, grads = triplet.backward(dy, cache)
    assert all(abs(part.b[0]) < 1e-14 for part in grads)
    _, cache = triplet.forward(x, params_of(), running_of())
    assert all(part.b.any() for part in triplet.backward(dy, cache)[1])


def claim_with_the_relu_no_gate_is_below_a_half():
    for rectify in (False, True):
        _, cache = triplet.forward(random(2, 3, 4, 5), params_of(), None, rectify)
        assert (min(part.g.min() for part in cache) >= 0.5) == rectify


def claim_what_the_layer_says():
    layer = npattn.TripletAttention(5)
    assert layer.count() == 3 * (2 * 5 * 5 + 2)
    shapes = {"channel_rows": (2, 3, 4), "channel_columns": (2, 3, 5), "spatial": (2, 1, 4, 5)}
    assert gates_of(layer, random(2, 3, 4, 5)) == shapes
    assert layer.num_batches_tracked == 1


# Wrong backwards


def inputs(rng):
    branches = []
    for _ in range(3):
        norm = batch_norm.Params(rng.standard_normal(1), rng.standard_normal(1))
        branches.append(triplet.Branch(rng.standard_normal((1, 2, 3, 3)), norm))
    return image(rng), triplet.Params(*branches)


def in_eval(x, params):
    return triplet.forward(x, params, running_of())


def parts(dy, cache):
    return {name: triplet.branch_backward(dy / 3, getattr(cache, name), name)[0] for name in ("ch", "cw", "hw")}


@mistake(triplet.forward, inputs, "x")
def triplet_one_branch_forgotten(dy, cache):
    found = parts(dy, cache)
    return found["ch"] + found["hw"], triplet.backward(dy, cache)[1]


@mistake(triplet.forward, inputs, "x")
def triplet_turned_the_same_way_again(dy, cache):
    """N, W, C, H is turned back by (0, 2, 3, 1), and not by (0, 3, 1, 2) once more."""
    found = parts(dy, cache)
    there = np.transpose(found["ch"], triplet.TURNS["ch"])
    again = np.transpose(there, triplet.TURNS["ch"]).reshape(dy.shape)
    return again + found["cw"] + found["hw"], triplet.backward(dy, cache)[1]


@mistake(triplet.forward, inputs, "x", "constant factor")
def triplet_mean_of_three_not_divided(dy, cache):
    return 3 * sum(parts(dy, cache).values()), triplet.backward(dy, cache)[1]


@mistake(triplet.forward, inputs, "params.ch.w", "right with its last two axes swapped")
def triplet_kernel_gradient_with_its_sides_swapped(dy, cache):
    dx, grads = triplet.backward(dy, cache)  # as from a map of rows and channels, and not of channels and rows
    return dx, grads._replace(ch=grads.ch._replace(w=np.swapaxes(grads.ch.w, 2, 3).copy()))


@mistake(triplet.forward, inputs, "x")
def triplet_in_training_undone_as_in_eval(dy, cache):
    still = triplet.Cache(*(part._replace(norm=part.norm._replace(of_batch=False)) for part in cache))
    return triplet.backward(dy, still)[0], triplet.backward(dy, cache)[1]


@mistake(in_eval, inputs, "x")
def triplet_in_eval_undone_as_in_training(dy, cache):
    moved = triplet.Cache(*(part._replace(norm=part.norm._replace(of_batch=True)) for part in cache))
    return triplet.backward(dy, moved)[0], triplet.backward(dy, cache)[1]
