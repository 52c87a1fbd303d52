"""Squeeze-and-excitation, docs/blocks/se.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import se
from npattn.explain.watch import walked, watched
from tests.support.by_index import filled, same, sigmoid, value
from tests.support.mistakes import image, mistake


def reference(x, w):
    import torch.nn.functional as F

    descriptor = F.adaptive_avg_pool2d(x, 1).flatten(1)
    hidden = F.relu(F.linear(descriptor, w["fc.0.weight"]))
    gate = F.linear(hidden, w["fc.2.weight"]).sigmoid()
    return x * gate[..., None, None]


def derivation():
    rng = np.random.default_rng(5)
    N, C, H, W, R = 2, 3, 2, 4, 2
    P = H * W
    x, w1, w2 = rng.standard_normal((N, C, H, W)), rng.standard_normal((R, C)), rng.standard_normal((C, R))
    (y, cache), forward = watched(se.forward, x, se.Params(w1, w2))
    dy = rng.standard_normal(y.shape)
    (dx, grads), backward = watched(se.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))
    xp, yp, dyp = (array.reshape(N, C, P) for array in (x, y, dy))

    s = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    z = filled((N, R), lambda n, r: sum(s[n, c] * w1[r, c] for c in range(C)))
    h = filled((N, R), lambda n, r: max(z[n, r], 0))
    a = filled((N, C), lambda n, c: sum(h[n, r] * w2[c, r] for r in range(R)))
    g = filled((N, C), lambda n, c: sigmoid(a[n, c]))
    for name, tag, wanted in (("s", "SE.1", s), ("z", "SE.2", z), ("h", "SE.3", h), ("a", "SE.4", a), ("g", "SE.5", g)):
        same(value(there, name, tag), wanted, tag)
    same(yp, filled((N, C, P), lambda n, c, p: xp[n, c, p] * g[n, c]), "SE.6")

    direct = filled((N, C, P), lambda n, c, p: dyp[n, c, p] * g[n, c])
    dg = filled((N, C), lambda n, c: sum(dyp[n, c, p] * xp[n, c, p] for p in range(P)))
    da = filled((N, C), lambda n, c: dg[n, c] * g[n, c] * (1 - g[n, c]))
    dh = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)))
    dw2 = filled((C, R), lambda c, r: sum(da[n, c] * h[n, r] for n in range(N)))
    dz = filled((N, R), lambda n, r: dh[n, r] if z[n, r] > 0 else 0)
    ds = filled((N, C), lambda n, c: sum(dz[n, r] * w1[r, c] for r in range(R)))
    dw1 = filled((R, C), lambda r, c: sum(dz[n, r] * s[n, c] for n in range(N)))
    through = filled((N, C, P), lambda n, c, p: ds[n, c] / P)
    assert np.any(dz == 0), "no unit is blocked: SE.3 is not tried"
    assert np.any(dz != 0), "every unit is blocked: nothing is tried"
    same(value(back, "dx_direct", "SE.6").reshape(N, C, P), direct, "SE.6, the factor x")
    for name, tag, wanted in (
        ("dg", "SE.6", dg), ("da", "SE.5", da), ("dh", "SE.4", dh), ("dw2", "SE.4", dw2), ("dz", "SE.3", dz),
        ("ds", "SE.2", ds), ("dw1", "SE.2", dw1),
    ):  # fmt: skip
        same(value(back, name, tag), wanted, f"{tag}, {name}")
    same(value(back, "dx_gate", "SE.1").reshape(N, C, P), through, "SE.1")
    same(dx.reshape(N, C, P), direct + through, "the two ways meet")
    same(grads.w1, dw1, "dw1")
    same(grads.w2, dw2, "dw2")


def claim_parameters_in_resnet_50():
    """Hu et al. 2018: 2.5 million parameters more, and to the last one 2,514,944."""
    stages = [(256, 3), (512, 4), (1024, 6), (2048, 3)]
    built = sum(blocks * npattn.SELayer(C, reduction=16).count() for C, blocks in stages)
    assert built == sum(blocks * 2 * C * C // 16 for C, blocks in stages) == 2_514_944


def inputs(rng, scale=1.0):
    return image(rng), se.Params(scale * rng.standard_normal((3, 4)), scale * rng.standard_normal((4, 3)))


@mistake(se.forward, inputs, "x", "direct path")
def se_direct_path_alone(dy, cache):
    _, grads = se.backward(dy, cache)
    return dy * cache.g[:, :, None, None], grads


@mistake(se.forward, lambda rng: inputs(rng, 0.01), "x", "direct path")
def se_direct_path_alone_at_small_weights(dy, cache):
    _, grads = se.backward(dy, cache)
    return dy * cache.g[:, :, None, None], grads


@mistake(se.forward, inputs, "x", "same along axes (2, 3)")
def se_gate_path_not_divided_by_the_pixels(dy, cache):
    dx, grads = se.backward(dy, cache)
    direct = dy * cache.g[:, :, None, None]
    return direct + (dx - direct) * 30, grads


@mistake(se.forward, inputs, "params.w1", "transposed")
def se_w1_gradient_of_the_wrong_shape(dy, cache):
    dx, (dw1, dw2) = se.backward(dy, cache)
    return dx, se.Params(dw1.T.copy(), dw2)


@mistake(se.forward, inputs, "params.w2", "got None")
def se_w2_gradient_forgotten(dy, cache):
    dx, (dw1, _) = se.backward(dy, cache)
    return dx, se.Params(dw1, None)


@mistake(se.forward, inputs, "params.w2", "0 everywhere")
def se_w2_gradient_never_filled(dy, cache):
    dx, (dw1, dw2) = se.backward(dy, cache)
    return dx, se.Params(dw1, np.zeros_like(dw2))


# What is not about numbers: memory, state


@mistake(se.forward, inputs, "dy: mutated by backward", house_rule=True)
def se_works_in_place_on_dy(dy, cache):
    dx, grads = se.backward(dy, cache)
    dy *= cache.g[:, :, None, None]
    return dx, grads


@mistake(se.forward, inputs, "params.w1: mutated by backward")
def se_takes_the_step_itself(dy, cache):
    dx, grads = se.backward(dy, cache)
    cache.fc1.params.w[...] -= 0.1 * grads.w1
    return dx, grads
