"""The residual unit, docs/blocks/residual.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import residual, se
from tests.blocks import se as of_se
from tests.support.by_index import same
from tests.support.mistakes import image, mistake, mistake_of_layer
from tests.support.proofs import part


def reference(x, w, change=False):
    import torch.nn.functional as F

    if not change:
        return x + of_se.reference(x, part(w, "branch"))
    b = of_se.reference(F.conv2d(x, w["branch.0.weight"], w["branch.0.bias"], padding=1), part(w, "branch.1"))
    return F.conv2d(x, w["skip.weight"], w["skip.bias"]) + b


def derivation():
    rng = np.random.default_rng(11)
    x, s, b, dy = (rng.standard_normal((2, 3, 2, 4)) for _ in range(4))
    y, cache = residual.forward(s, b)
    same(y, s + b, "RES.3")
    for found, name in zip(residual.backward(dy, cache), ("ds", "db"), strict=True):
        same(found, dy, f"RES.3, {name}: each term receives all")
    w, v = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    for skip, matrix in ((None, np.eye(3)), (npattn.Conv2d(3, 3, 1, bias=False, dtype="float64"), v)):
        layer = npattn.Residual(npattn.Conv2d(3, 3, 1, bias=False, dtype="float64"), skip)
        state = {"branch.weight": w} | ({} if skip is None else {"skip.weight": v})
        layer.load_state_dict({key: kernel[:, :, None, None] for key, kernel in state.items()})
        same(layer(x), np.einsum("mc,nchv->nmhv", w + matrix, x), "RES.1 to RES.3")
        same(layer.backward(dy), np.einsum("mc,nmhv->nchv", w + matrix, dy), "the two ways meet")
        same(layer.grads["branch.weight"][:, :, 0, 0], np.einsum("nmhv,nchv->mc", dy, x), "RES.1")
        if skip is not None:
            same(layer.grads["skip.weight"][:, :, 0, 0], np.einsum("nmhv,nchv->mc", dy, x), "RES.2")


def claim_through_many_units():
    """With branches of slope w the gradient is (1 + w)ᵈ, not wᵈ."""
    depth, w = 20, 0.1
    for residual_units, wanted in ((True, (1 + w) ** depth), (False, w**depth)):
        layers = []
        for _ in range(depth):
            branch = npattn.Conv2d(1, 1, 1, bias=False, dtype="float64")
            branch.load_state_dict({"weight": np.full((1, 1, 1, 1), w)})
            layers.append(npattn.Residual(branch) if residual_units else branch)
        model = npattn.Sequential(*layers)
        one = np.ones((1, 1, 1, 1))
        model(one)
        np.testing.assert_allclose(model.backward(one).item(), wanted, rtol=1e-12)


def forward(x, params):
    """x plus SE of x, and what the two need: a residual unit with a whole branch."""
    b, se_cache = se.forward(x, params)
    y, cache = residual.forward(x, b)
    return y, (cache, se_cache)


@mistake(forward, of_se.inputs, "x", "dy itself")
def residual_skip_path_forgotten(dy, cache):
    _, db = residual.backward(dy, cache[0])
    return se.backward(db, cache[1])


@mistake(forward, of_se.inputs, "x")
def residual_skip_path_counted_twice(dy, cache):
    ds, db = residual.backward(dy, cache[0])
    dx_branch, grads = se.backward(db, cache[1])
    return ds + ds + dx_branch, grads


@mistake(forward, of_se.inputs, "params.w1", "constant factor of 0.5")
def residual_sum_taken_for_a_mean(dy, cache):
    ds, db = residual.backward(dy / 2, cache[0])
    dx_branch, grads = se.backward(db, cache[1])
    return ds + dx_branch, grads


def with_a_skip(rng):
    return npattn.Residual(npattn.SELayer(4, 2, rng=rng), npattn.Conv2d(4, 4, 1, rng=rng))


@mistake_of_layer(with_a_skip, lambda rng: (image(rng),), "x")
def residual_skip_of_its_own_passed_by(layer, dy, cache):
    ds, db = residual.backward(dy, cache)
    layer.layers["skip"].backward(ds)
    return ds + layer.layers["branch"].backward(db), dict(layer.grads)
