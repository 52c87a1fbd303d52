"""CBAM, docs/blocks/cbam.md."""

from __future__ import annotations

import numpy as np

from npattn.attention import cbam, channel, spatial
from npattn.explain.watch import walked, watched
from tests.blocks import channel as of_channel
from tests.blocks import spatial as of_spatial
from tests.support.by_index import same, value
from tests.support.mistakes import image, mistake
from tests.support.proofs import part


def reference(x, w):
    refined = x * of_channel.reference(x, part(w, "ca"))
    return refined * of_spatial.reference(refined, part(w, "sa"))


def derivation():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 2, 4))
    w1, w2, w = rng.standard_normal((2, 3)), rng.standard_normal((3, 2)), rng.standard_normal((1, 2, 3, 3))
    y, cache = cbam.forward(x, cbam.Params(channel.Params(w1, w2), spatial.Params(w)))
    dy = rng.standard_normal(y.shape)
    (dx, grads), backward = watched(cbam.backward, dy, cache)
    back = list(walked(backward))

    g_c = of_channel.by_index(x, w1, w2)[:, :, None, None]  # CBAM.1
    u = x * g_c  # CBAM.2
    g_s = of_spatial.by_index(u, w)[:, None]  # CBAM.3
    same(y, u * g_s, "CBAM.4")

    dg_s = np.sum(dy * u, axis=1)
    du_gate, dw = of_spatial.by_index(u, w, dg_s)
    du = dy * g_s + du_gate
    dg_c = np.sum(du * x, axis=(2, 3))
    dx_gate, dw1, dw2 = of_channel.by_index(x, w1, w2, dg_c)
    same(value(back, "du_gate", "CBAM.3"), du_gate, "CBAM.3")
    same(value(back, "du", "+"), du, "the first meeting")
    same(value(back, "dg_c", "CBAM.2")[:, :, 0, 0], dg_c, "CBAM.2")
    same(dx, du * g_c + dx_gate, "the second meeting")
    same(grads.sa.w, dw, "dw")
    same(grads.ca.w1, dw1, "dw1")
    same(grads.ca.w2, dw2, "dw2")

    def ca_back(cotangent):
        return of_channel.by_index(x, w1, w2, np.sum(cotangent * x, axis=(2, 3)))[0]

    ways = [dy * g_s * g_c, du_gate * g_c, ca_back(dy * g_s), ca_back(du_gate)]
    same(dx, sum(ways), "four ways")
    assert all(np.linalg.norm(way) > 1e-3 * np.linalg.norm(dx) for way in ways), "a way that is nothing proves nothing"


def inputs(rng):
    ca = channel.Params(rng.standard_normal((3, 4)), rng.standard_normal((4, 3)))
    return image(rng), cbam.Params(ca, spatial.Params(rng.standard_normal((1, 2, 3, 3))))


@mistake(cbam.forward, inputs, "x", "direct path")
def cbam_direct_path_alone(dy, cache):
    _, grads = cbam.backward(dy, cache)
    return dy * cache.g_c * cache.g_s, grads


@mistake(cbam.forward, inputs, "x")
def cbam_spatial_gate_looked_at_x(dy, cache):
    dx, grads = cbam.backward(dy, cache)
    wrong, _ = spatial.backward(np.sum(dy * cache.u, axis=1, keepdims=True), cache.sa)
    return dx + wrong - wrong * cache.g_c, grads


@mistake(cbam.forward, inputs, "params.ca.w1")
def cbam_channel_gate_misses_the_spatial_path(dy, cache):
    dx, (_, dsa) = cbam.backward(dy, cache)
    dg_c = np.sum(dy * cache.g_s * cache.x, axis=(2, 3), keepdims=True)
    return dx, cbam.Params(channel.backward(dg_c, cache.ca)[1], dsa)
