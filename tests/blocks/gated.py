"""A gate applied to its own input, docs/blocks/gate.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import gate
from tests.blocks import channel as of_channel
from tests.blocks import spatial as of_spatial
from tests.support.by_index import filled, same, weights
from tests.support.mistakes import mistake_of_layer, only_x


def reference(x, w, attention=npattn.ChannelAttention):
    of_gate = {npattn.ChannelAttention: of_channel, npattn.SpatialAttention: of_spatial}[attention]
    return x * of_gate.reference(x, w)


def derivation():
    rng = np.random.default_rng(6)
    x, dy = rng.standard_normal((2, 3, 2, 4)), rng.standard_normal((2, 3, 2, 4))
    for shape, summed in (((2, 3, 1, 1), "nchv->nc"), ((2, 1, 2, 4), "nchv->nhv")):
        g = rng.standard_normal(shape)
        y, cache = gate.forward(x, g)
        same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c % shape[1], h % shape[2], v % shape[3]]),  # noqa: B023
             "GATE.2")  # fmt: skip
        direct, dg = gate.backward(dy, cache)
        same(direct, dy * g, "GATE.2, the factor x")
        same(dg.ravel(), np.einsum(summed, dy * x).ravel(), "GATE.2, the factor g")

    layer = weights(npattn.Gated(npattn.ChannelAttention(3, 1, dtype="float64")), 1)
    w1, w2 = (layer.params[f"fc{i}.weight"][:, :, 0, 0] for i in (1, 2))
    g = of_channel.by_index(x, w1, w2)[:, :, None, None]
    same(layer(x), x * g, "GATE.1, of a channel")
    dx_gate, dw1, dw2 = of_channel.by_index(x, w1, w2, np.einsum("nchv->nc", dy * x))
    same(layer.backward(dy), dy * g + dx_gate, "the two ways meet")
    same(layer.grads["fc1.weight"][:, :, 0, 0], dw1, "dw1")
    same(layer.grads["fc2.weight"][:, :, 0, 0], dw2, "dw2")

    layer = weights(npattn.Gated(npattn.SpatialAttention(3, dtype="float64")), 2)
    w = layer.params["conv1.weight"]
    g = of_spatial.by_index(x, w)[:, None]
    same(layer(x), x * g, "GATE.1, of a pixel")
    dx_gate, dw = of_spatial.by_index(x, w, np.einsum("nchv->nhv", dy * x))
    same(layer.backward(dy), dy * g + dx_gate, "the two ways meet")
    same(layer.grads["conv1.weight"], dw, "dw")


def channels(rng):
    return weights(npattn.Gated(npattn.ChannelAttention(4, 2, dtype="float64")), 3)


def pixels(rng):
    return weights(npattn.Gated(npattn.SpatialAttention(3, dtype="float64")), 4)


def gate_path(layer, dg):
    """What comes back through the attention, and the gradients."""
    return layer.layers["attention"].backward(dg), dict(layer.layers["attention"].grads)


@mistake_of_layer(channels, only_x, "x", "direct path")
def gated_direct_path_alone(layer, dy, cache):
    dx_direct, dg = gate.backward(dy, cache)
    return dx_direct, gate_path(layer, dg)[1]


@mistake_of_layer(channels, only_x, "fc1.weight")
def gated_gate_of_dy_without_x(layer, dy, cache):
    dx_direct, _ = gate.backward(dy, cache)
    dx_gate, grads = gate_path(layer, np.sum(dy, axis=(2, 3), keepdims=True))
    return dx_direct + dx_gate, grads


@mistake_of_layer(pixels, only_x, "conv1.weight", "a constant factor of 0.25")
def gated_mean_over_the_channels_for_a_sum(layer, dy, cache):
    dx_direct, dg = gate.backward(dy, cache)
    dx_gate, grads = gate_path(layer, dg / 4)
    return dx_direct + dx_gate, grads
