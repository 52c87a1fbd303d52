"""Squeeze-and-excitation with options, docs/variants.md."""

from __future__ import annotations

from itertools import product

import numpy as np

from npattn.variants import channel, se
from npattn.variants.channel import Settings
from tests.blocks import variants_channel
from tests.support.by_index import GATE, filled, random, same
from tests.support.mistakes import image, mistake

MORE = ({"pools": ("avg", "max"), "bias": True, "hidden": 3}, {"pools": ("lse", "max"), "mix": "before"})


def reference(x, w, pools=("avg",), **options):
    renamed = {key.replace("fc.0", "fc1").replace("fc.2", "fc2"): value for key, value in w.items()}
    kernels = {key: value[..., None, None] if value.ndim == 2 else value for key, value in renamed.items()}
    return x * variants_channel.reference(x, kernels, pools=pools, **options)


def derivation():
    x = random(2, 3, 2, 4, seed=7)
    N, C, H, W = x.shape
    for layers, gate, pools in product((1, 2), GATE, (("avg",), ("avg", "max"))):
        rng = np.random.default_rng(layers)
        w1, b1 = rng.standard_normal((C if layers == 1 else 2, C)), rng.standard_normal(C if layers == 1 else 2)
        w2, b2 = (rng.standard_normal((C, 2)), rng.standard_normal(C)) if layers == 2 else (None, None)
        params, settings = se.Params(w1, b1, w2, b2), Settings(pools, gate=gate)
        y, cache = se.forward(x, params, settings)
        g = variants_channel.by_index(x, params, settings)  # VSE.1
        same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "VSE.2")  # noqa: B023
        dy = rng.standard_normal(x.shape)
        dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))  # noqa: B023
        dx_gate, grads_ = variants_channel.by_index(x, params, settings, dg)
        dx, grads = se.backward(dy, cache)
        same(dx, filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c]) + dx_gate, "the two ways meet")  # noqa: B023
        variants_channel.agree(grads, grads_, f"VSE.1, {settings}")


def inputs(rng):
    return image(rng), variants_channel.inputs(rng)[1]


@mistake(se.forward, inputs, "x", "direct path")
def se_with_biases_direct_path_alone(dy, cache):
    return dy * cache.g, se.backward(dy, cache)[1]


@mistake(se.forward, inputs, "params.b1", "sum over the batch")
def se_hidden_bias_not_summed_over_the_batch(dy, cache):
    dx, grads = se.backward(dy, cache)
    dg = np.sum(dy * cache.x, axis=(2, 3), keepdims=True)
    each = [
        channel.backward(np.where(np.arange(len(dy))[:, None, None, None] == n, dg, 0), cache.gate)[1].b1
        for n in range(len(dy))
    ]
    return dx, grads._replace(b1=np.stack(each))


@mistake(se.forward, inputs, "params.w2")
def se_gate_receives_dy_without_x(dy, cache):
    dx, grads = se.backward(dy, cache)
    return dx, grads._replace(w2=channel.backward(np.sum(dy, axis=(2, 3), keepdims=True), cache.gate)[1].w2)


@mistake(se.forward, inputs, "x", "the same along axes (2, 3)")
def se_gate_path_averaged_as_the_squeeze_was(dy, cache):
    _, grads = se.backward(dy, cache)
    dg = np.mean(dy * cache.x, axis=(2, 3), keepdims=True)  # the gate was broadcast: its gradient is a sum
    return dy * cache.g + channel.backward(dg, cache.gate)[0], grads
