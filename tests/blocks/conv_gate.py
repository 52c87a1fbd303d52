"""SE by a convolution, docs/blocks/wrong.md."""

from __future__ import annotations

from itertools import product

import numpy as np

import npattn
from npattn.attention import conv_gate, se
from npattn.ops import conv2d, sigmoid
from tests.support import by_index
from tests.support.by_index import at, filled, gates_of, random, reached, same
from tests.support.mistakes import image, mistake

MORE = ({"kernel_size": 5},)


def reference(x, w, kernel_size=3):
    import torch.nn.functional as F

    return x * F.conv2d(x, w["conv.weight"], padding="same").sigmoid()


def derivation():
    x = by_index.image()
    N, C, H, W = x.shape
    w = random(C, C, 3, 3)
    q = 1
    around = [(c, i, j) for c in range(C) for i in range(3) for j in range(3)]
    a = filled(
        x.shape,
        lambda n, m, h, v: sum(w[m, c, i, j] * at(x[n, c], h + i - q, v + j - q) for c, i, j in around),
    )
    g = by_index.sigmoid(a)
    y, cache = conv_gate.forward(x, conv_gate.Params(w))
    same(y, x * g, "CG.3")
    dy = random(*x.shape)
    da = dy * x * g * (1 - g)
    dx_gate = filled(
        x.shape,
        lambda n, c, h, v: sum(w[m, c, i, j] * at(da[n, m], h - i + q, v - j + q) for m, i, j in around),
    )
    dw = filled(
        w.shape,
        lambda m, c, i, j: sum(
            da[n, m, h, v] * at(x[n, c], h + i - q, v + j - q) for n, h, v in product(range(N), range(H), range(W))
        ),
    )
    dx, grads = conv_gate.backward(dy, cache)
    same(dx, dy * g + dx_gate, "the two ways meet")
    same(grads.w, dw, "CG.1")


def claim_how_far_a_pixel_sees():
    """A convolution's gate sees its k×k neighbours, SE's sees the image: read off from where gradients come back."""
    x = random(2, 3, 9, 8)
    _, cache = conv_gate.forward(x, conv_gate.Params(random(3, 3, 3, 3)))
    expected = np.zeros((9, 8), bool)
    expected[3:6, 4:7] = True
    np.testing.assert_array_equal(reached(conv_gate.backward, cache, x.shape, (4, 5)), expected)
    assert reached(se.backward, se.forward(x, se.Params(random(2, 3), random(3, 2)))[1], x.shape, (4, 5)).all()


def claim_a_convolution_after_the_squeeze_is_fc():
    """On one pixel a k×k convolution is FC: only the kernel's middle meets it, every other weight has gradient 0."""
    s = np.mean(by_index.image(), axis=(2, 3), keepdims=True)
    w = random(4, 3, 3, 3)
    y, cache = conv2d.forward(s, conv2d.Params(w))
    same(y[:, :, 0, 0], s[:, :, 0, 0] @ w[:, :, 1, 1].T, "FC")
    dw = conv2d.backward(random(*y.shape), cache)[1].w
    assert np.any(dw[:, :, 1, 1] != 0)
    dw[:, :, 1, 1] = 0
    assert np.all(dw == 0)


def claim_a_convolution_contains_a_scale():
    """With g in the middle of its diagonal a plain convolution scales each channel, by the same for all images."""
    x, g = by_index.image(), random(3)
    w = np.zeros((3, 3, 3, 3))
    w[range(3), range(3), 1, 1] = g
    same(conv2d.forward(x, conv2d.Params(w))[0], x * g[:, None, None], "a scale")


def claim_what_attention_holds():
    assert gates_of(npattn.ConvGate(4), random(2, 4, 3, 5)) == {"pixel": (2, 4, 3, 5)}


def inputs(rng):
    return image(rng), conv_gate.Params(rng.standard_normal((4, 4, 3, 3)))


@mistake(conv_gate.forward, inputs, "x", "direct path")
def convolution_gate_direct_path_alone(dy, cache):
    _, grads = conv_gate.backward(dy, cache)
    return dy * cache.g, grads


@mistake(conv_gate.forward, inputs, "x")
def convolution_gate_summed_as_one_of_a_channel(dy, cache):
    _, grads = conv_gate.backward(dy, cache)
    dg = np.sum(dy * cache.x, axis=(2, 3), keepdims=True)  # nothing was broadcast: there is nothing to sum over
    da = sigmoid.backward(np.broadcast_to(dg, dy.shape).copy(), cache.gate)
    return dy * cache.g + conv2d.backward(da, cache.conv)[0], grads


@mistake(conv_gate.forward, inputs, "params.w")
def convolution_gate_of_dy_without_x(dy, cache):
    dx, _ = conv_gate.backward(dy, cache)
    return dx, conv_gate.Params(conv2d.backward(sigmoid.backward(dy, cache.gate), cache.conv)[1].w)
