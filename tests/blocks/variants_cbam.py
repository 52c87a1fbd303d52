"""CBAM of any two gates, docs/variants.md."""

from __future__ import annotations

from itertools import product

import numpy as np

from npattn import variants
from npattn.attention import gate
from npattn.variants import cbam, channel, spatial
from tests.blocks import variants_channel as of_channel
from tests.blocks import variants_spatial as of_spatial
from tests.support.by_index import filled, random, same, weights
from tests.support.mistakes import image, mistake, mistake_of_layer, only_x
from tests.support.proofs import part

MORE = (
    {"order": "parallel", "residual": True},
    {"order": "spatial-first", "residual": True, "spatial": {"mix": "mean"}},
    {"spatial": None, "residual": True},
    {"order": "parallel", "channel": {"pools": ("lp", "lse"), "bias": True}, "spatial": {"norm": True}},
)


def reference(x, w, channel={}, spatial={}, order="channel-first", residual=False):  # noqa: B006
    gates = {
        "ca": lambda u: of_channel.reference(u, part(w, "ca"), **channel),
        "sa": lambda u: of_spatial.reference(u, part(w, "sa"), **spatial),
    }
    if order == "parallel":
        u = x * gates["ca"](x) * gates["sa"](x)
    else:
        u = x
        for name in ("ca", "sa") if order == "channel-first" else ("sa", "ca"):
            if {"ca": channel, "sa": spatial}[name] is not None:
                u = u * gates[name](u)
    return u + x if residual else u


def gate_by_index(name, layer, u, dg=None):
    """The gate "ca" or "sa" of u as an array that broadcasts; or du and the gradients by key for a cotangent."""
    fields = dict(layer.layers[name].by_field(layer.layers[name].params))
    if name == "ca":
        params, settings = channel.Params(**fields), channel.Settings()
        if dg is None:
            return of_channel.by_index(u, params, settings)[:, :, None, None]
        du, grads = of_channel.by_index(u, params, settings, np.sum(dg, axis=(2, 3)))
        return du, {"ca.fc1.weight": grads.w1, "ca.fc2.weight": grads.w2}
    params, settings = spatial.Params(**fields), spatial.Settings()
    if dg is None:
        return of_spatial.by_index(u, params, settings)[:, None]
    du, grads = of_spatial.by_index(u, params, settings, dg=np.sum(dg, axis=1))
    return du, {"sa.conv1.weight": grads.w}


def derivation():
    x, dy = random(2, 3, 2, 4, seed=8), random(2, 3, 2, 4, seed=9)
    rng = np.random.default_rng(10)
    g_c, g_s = rng.standard_normal((2, 3, 1, 1)), rng.standard_normal((2, 1, 2, 4))
    u, cache = cbam.forward(x, g_c, g_s)
    same(u, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g_c[n, c, 0, 0] * g_s[n, 0, h, v]), "VCB.5")
    direct, dg_c, dg_s = cbam.backward(dy, cache)
    same(direct, dy * g_c * g_s, "VCB.5, the factor x")
    same(dg_c[:, :, 0, 0], np.einsum("nchv,nchv,nhv->nc", dy, x, g_s[:, 0]), "VCB.5, the factor g_c")
    same(dg_s[:, 0], np.einsum("nchv,nchv,nc->nhv", dy, x, g_c[:, :, 0, 0]), "VCB.5, the factor g_s")

    for order, residual in product(("channel-first", "spatial-first", "parallel", "ca", "sa"), (False, True)):
        alone = order in ("ca", "sa")
        layer = make(order="channel-first" if alone else order, residual=residual, alone=order if alone else None)
        y, dx = layer(x), layer.backward(dy)
        if order == "parallel":
            g = {name: gate_by_index(name, layer, x) for name in ("ca", "sa")}  # VCB.3, VCB.4
            y_, dx_ = x * g["ca"] * g["sa"], dy * g["ca"] * g["sa"]
            dx_c, grads_c = gate_by_index("ca", layer, x, dy * x * g["sa"])
            dx_s, grads_s = gate_by_index("sa", layer, x, dy * x * g["ca"])
            dx_, grads_ = dx_ + dx_c + dx_s, grads_c | grads_s
        else:
            names = [order] if alone else ["ca", "sa"] if order == "channel-first" else ["sa", "ca"]
            y_, grads_, seen = x, {}, []
            for name in names:
                seen.append((name, y_, gate_by_index(name, layer, y_)))  # VCB.1
                y_ = y_ * seen[-1][2]  # VCB.2
            dx_ = dy
            for name, before, factor in reversed(seen):
                through, grads = gate_by_index(name, layer, before, dx_ * before)
                dx_, grads_ = dx_ * factor + through, grads_ | grads
        same(y, y_ + x if residual else y_, f"VCB.6, {order}, residual {residual}")
        same(dx, dx_ + dy if residual else dx_, f"all ways meet, {order}, residual {residual}")
        assert grads_.keys() == layer.grads.keys()
        for key, gradient in grads_.items():
            same(layer.grads[key].reshape(gradient.shape), gradient, f"{key}, {order}")


def make(C=3, order="channel-first", residual=False, alone=None):
    ca = variants.ChannelAttention(C, 1, dtype="float64") if alone != "sa" else None
    sa = variants.SpatialAttention(3, dtype="float64") if alone != "ca" else None
    return weights(variants.CBAM(ca, sa, order=order, residual=residual), 11)


def made(**arguments):
    return lambda rng: make(4, **arguments)


@mistake_of_layer(made(order="parallel"), only_x, "x")
def parallel_gates_that_forget_each_other(layer, dy, cache):
    x, g_c, g_s = cache
    dx_s = layer.layers["sa"].backward(np.sum(dy * x, axis=1, keepdims=True))
    dx_c = layer.layers["ca"].backward(np.sum(dy * x, axis=(2, 3), keepdims=True))
    return dy * g_c * g_s + dx_s + dx_c, dict(layer.grads)


@mistake_of_layer(made(order="parallel"), only_x, "x")
def parallel_undone_as_a_sequence(layer, dy, cache):
    x, g_c, g_s = cache
    du = x * g_c
    du_gate = layer.layers["sa"].backward(np.sum(dy * du, axis=1, keepdims=True))
    du = dy * g_s + du_gate
    dx_gate = layer.layers["ca"].backward(np.sum(du * x, axis=(2, 3), keepdims=True))
    return du * g_c + dx_gate, dict(layer.grads)


@mistake_of_layer(made(residual=True), only_x, "x", "dy itself")
def residual_without_its_dy(layer, dy, cache):
    layer.residual = False
    try:
        return variants.CBAM.undo(layer, dy, cache)
    finally:
        layer.residual = True


@mistake_of_layer(made(order="spatial-first"), only_x, "x")
def spatial_first_undone_first_step_first(layer, dy, cache):
    for attention, step in zip(layer.in_order(), cache, strict=True):
        direct, dg = gate.backward(dy, step)
        dy = direct + attention.backward(dg)
    return dy, dict(layer.grads)


def gates(rng):
    return image(rng), rng.standard_normal((2, 4, 1, 1)), rng.standard_normal((2, 1, 5, 6))


@mistake(cbam.forward, gates, "g_c")
def product_of_three_taken_for_two_of_two(du, cache):
    dx_direct, _, dg_s = cbam.backward(du, cache)
    return dx_direct, np.sum(du * cache.x, axis=(2, 3), keepdims=True), dg_s
