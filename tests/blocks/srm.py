"""Style recalibration, docs/blocks/srm.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn.attention import srm
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, normal, normal_back, random, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"eps": 0.0}, {"eps": 0.5})


def reference(x, w, eps=1e-5):
    """As the authors' code has it, with torch's variance; there that of a single pixel is NaN."""
    import torch
    import torch.nn.functional as F

    pixels = x.flatten(2)
    var = pixels.var(2) if pixels.shape[2] > 1 else torch.zeros_like(pixels[:, :, 0])
    own = pixels.std(2) if pixels.shape[2] > 1 else var  # its slope is 0 where it is 0, and that of the root is not
    std = (var + eps).sqrt() if eps else own
    z = F.conv1d(torch.stack([pixels.mean(2), std], dim=2), w["cfc.weight"], groups=x.shape[1])
    g = F.batch_norm(z, None, None, w["bn.weight"], w["bn.bias"], training=True).sigmoid()
    return x * g[:, :, :, None]


def params_of(C):
    return srm.Params(random(C, 2, seed=1), batch_norm.Params(random(C, seed=2), random(C, seed=3)))


def running_of(C):
    return srm.Running(batch_norm.Running(random(C, seed=4), 0.2 + random(C, seed=5) ** 2))


def derivation():
    for running in (None, running_of(3)):
        compared(running)


def compared(running):
    x = random(4, 3, 2, 4, seed=20)
    N, C, H, W = x.shape
    P, eps = H * W, 0.25
    params = params_of(C)
    w, (gamma, beta) = params
    (y, cache), forward = watched(srm.forward, x, params, running, eps)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(srm.backward, dy, cache)

    mu = filled((N, C), lambda n, c: sum(x[n, c].ravel()[p] for p in range(P)) / P)
    d = filled(x.shape, lambda n, c, h, v: x[n, c, h, v] - mu[n, c])
    sigma = filled((N, C), lambda n, c: math.sqrt(sum(d[n, c].ravel()[p] ** 2 for p in range(P)) / (P - 1) + eps))
    z = filled((N, C), lambda n, c: w[c, 0] * mu[n, c] + w[c, 1] * sigma[n, c])
    if running is None:
        z_hat, rho = (part.T for part in normal(z.T, 1e-5))  # a channel is a row
    else:
        rho = 1 / np.sqrt(running.norm.var + 1e-5)
        z_hat = filled((N, C), lambda n, c: (z[n, c] - running.norm.mean[c]) * rho[c])
    u = filled((N, C), lambda n, c: gamma[c] * z_hat[n, c] + beta[c])
    g = by_index.sigmoid(u)
    same_at(
        list(walked(forward)), mu=("SRM.1", mu), d=("SRM.2", d), sigma=("SRM.3", sigma), z=("SRM.4", z),
        normed=("SRM.5", u), g=("SRM.6", g),
    )  # fmt: skip
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "SRM.7")

    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))
    du = dg * g * (1 - g)
    dz_hat = filled((N, C), lambda n, c: du[n, c] * gamma[c])
    dz = normal_back(dz_hat.T, z_hat.T, rho).T if running is None else dz_hat * rho
    dmu = filled((N, C), lambda n, c: dz[n, c] * w[c, 0])
    dsigma = filled((N, C), lambda n, c: dz[n, c] * w[c, 1])
    dw = filled((C, 2), lambda c, i: sum(dz[n, c] * (mu, sigma)[i][n, c] for n in range(N)))
    dd = filled(x.shape, lambda n, c, h, v: dsigma[n, c] * d[n, c, h, v] / (sigma[n, c] * (P - 1)))
    same_at(
        list(walked(backward)), dg=("SRM.7", dg), du=("SRM.6", du), dnormed=("SRM.5", dz), dmu=("SRM.4", dmu),
        dsigma=("SRM.4", dsigma), dw=("SRM.4", dw), dd=("SRM.3", dd), dx_spread=("SRM.2", dd),
        dx_mean=("SRM.1", dmu / P),
    )  # fmt: skip
    meet = filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + dd[n, c, h, v] + dmu[n, c] / P)
    same(dx, meet, "the three ways meet")
    same(grads.w, dw, "dw")
    same(grads.norm.gamma, filled((C,), lambda c: sum(du[n, c] * z_hat[n, c] for n in range(N))), "dgamma")
    same(grads.norm.beta, filled((C,), lambda c: sum(du[n, c] for n in range(N))), "dbeta")


def claim_the_way_through_the_mean_is_closed():
    """Σ d is 0, so what SRM.2 would give back to μ is 0, whatever comes."""
    _, cache = srm.forward(random(4, 3, 2, 5), params_of(3))
    np.testing.assert_allclose(cache.d.sum(axis=(2, 3)), 0, atol=1e-14)


def claim_a_flat_channel_takes_no_slope():
    """σ has a kink at 0 where there is no ε: a channel of equal pixels, and a map of one pixel."""
    for x in (random(3, 2, 1, 1), np.broadcast_to(np.rint(4 * random(3, 2, 1, 1)), (3, 2, 2, 3)).copy()):
        _, cache = srm.forward(x, params_of(2), running_of(2), 0)
        assert not cache.sigma.any()
        dx, _ = srm.backward(random(*x.shape, seed=1), cache)
        assert np.isfinite(dx).all()


def claim_channels_do_not_meet_and_images_do():
    """In training an image's gate depends on the others of the batch; in eval on none. Channels never meet."""
    x = random(4, 3, 2, 3)
    dy = np.zeros_like(x)
    dy[1, 2] = 1
    for running, images in ((None, [True] * 4), (running_of(3), [False, True, False, False])):
        _, cache = srm.forward(x, params_of(3), running)
        dx = srm.backward(dy, cache)[0]
        assert list(np.any(dx != 0, axis=(1, 2, 3))) == images
        assert list(np.any(dx != 0, axis=(0, 2, 3))) == [False, False, True]


def claim_one_image_has_no_batch():
    layer = npattn.StyleRecalibration(3)
    x = random(1, 3, 4, 5).astype(np.float32)
    with pytest.raises(ValueError, match="x: expected at least 2 images to normalise over in training, got 1"):
        layer(x)
    assert layer.eval()(x).shape == x.shape


def claim_what_the_layer_says():
    layer = npattn.StyleRecalibration(8)
    assert layer.count() == 2 * 8 + 2 * 8
    assert gates_of(layer, random(2, 8, 4, 5)) == {"channel": (2, 8, 1, 1)}
    assert layer.num_batches_tracked == 1


# Wrong backwards


def inputs(rng):
    norm = batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))
    return image(rng, (4, 4, 5, 6)), srm.Params(rng.standard_normal((4, 2)), norm)


def in_eval(x, params):
    return srm.forward(x, params, running_of(4))


def to_z(dy, cache):
    du = sigmoid.backward(np.sum(dy * cache.x, axis=(2, 3)), cache.gate)
    return batch_norm.backward(du[:, :, None, None], cache.norm)[0][:, :, 0, 0]


@mistake(srm.forward, inputs, "x", "direct path")
def srm_direct_path_alone(dy, cache):
    return dy * cache.g[:, :, None, None], srm.backward(dy, cache)[1]


@mistake(srm.forward, inputs, "x", "the term of a variance over axes (2, 3)")
def srm_spread_taken_for_a_constant(dy, cache):
    dmu = to_z(dy, cache) * cache.w[:, 0]
    P = dy.shape[2] * dy.shape[3]
    return dy * cache.g[:, :, None, None] + dmu[:, :, None, None] / P, srm.backward(dy, cache)[1]


@mistake(srm.forward, inputs, "x", "the term of a variance over axes (2, 3)")
def srm_spread_divided_by_all_pixels(dy, cache):
    dx, grads = srm.backward(dy, cache)
    P = dy.shape[2] * dy.shape[3]
    dsigma = to_z(dy, cache) * cache.w[:, 1]
    dd = cache.d * (dsigma / cache.sigma)[:, :, None, None]
    return dx - dd / (P - 1) + dd / P, grads


@mistake(srm.forward, inputs, "params.w", "in reverse order along axis 1")
def srm_mean_and_spread_swapped(dy, cache):
    dx, grads = srm.backward(dy, cache)
    return dx, grads._replace(w=grads.w[:, ::-1].copy())


@mistake(srm.forward, inputs, "x", "or what comes back to the two is")
def srm_in_training_undone_as_in_eval(dy, cache):
    dx, _ = srm.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))
    return dx, srm.backward(dy, cache)[1]


@mistake(in_eval, inputs, "x", "or what comes back to the two is")
def srm_in_eval_undone_as_in_training(dy, cache):
    dx, _ = srm.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=True)))
    return dx, srm.backward(dy, cache)[1]
