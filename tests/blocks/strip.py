"""Strip attention, docs/blocks/strip.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import strip
from npattn.explain.watch import walked, watched
from npattn.ops import general_conv, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, reached, same, same_at
from tests.support.mistakes import image, mistake

MORE = ({"kernel_size": 5, "bias": True},)


def reference(x, w, kernel_size=None, bias=False, convolve=True):
    """As timm has it, with torch's convolutions along one axis."""
    import torch.nn.functional as F

    if not convolve:
        return x * (x.mean(3, keepdim=True) + x.mean(2, keepdim=True)).sigmoid()
    C, k = x.shape[1], w["conv_h.weight"].shape[2]
    a_h = F.conv1d(x.mean(3), w["conv_h.weight"][:, :, :, 0], w.get("conv_h.bias"), padding=k // 2, groups=C)
    a_w = F.conv1d(x.mean(2), w["conv_w.weight"][:, :, 0], w.get("conv_w.bias"), padding=k // 2, groups=C)
    return x * (a_h[..., :, None] + a_w[..., None, :]).sigmoid()


def params_of(C, k=3):
    return strip.Params(random(C, 1, k, 1, seed=1), random(C, 1, 1, k, seed=2), random(C, seed=3), random(C, seed=4))


def derivation():
    x, dy, params = random(2, 3, 4, 5, seed=20), random(2, 3, 4, 5, seed=22), params_of(3)
    (N, C, H, W), k, q = x.shape, 3, 1
    (y, cache), forward = watched(strip.forward, x, params)
    (dx, grads), backward = watched(strip.backward, dy, cache)
    w_h, w_w = params.w_h[:, 0, :, 0], params.w_w[:, 0, 0]

    def at(s, n, c, p):
        return s[n, c, p] if 0 <= p < s.shape[2] else 0

    s_h = filled((N, C, H), lambda n, c, h: sum(x[n, c, h, v] for v in range(W)) / W)
    s_w = filled((N, C, W), lambda n, c, v: sum(x[n, c, h, v] for h in range(H)) / H)
    a_h = filled((N, C, H), lambda n, c, h: sum(w_h[c, i] * at(s_h, n, c, h + i - q) for i in range(k)) + params.b_h[c])
    a_w = filled((N, C, W), lambda n, c, v: sum(w_w[c, j] * at(s_w, n, c, v + j - q) for j in range(k)) + params.b_w[c])
    g = filled(x.shape, lambda n, c, h, v: by_index.sigmoid(a_h[n, c, h] + a_w[n, c, v]))
    same_at(
        list(walked(forward)), s_h=("STRIP.1", s_h), s_w=("STRIP.2", s_w), a_h=("STRIP.3", a_h),
        a_w=("STRIP.4", a_w), g=("STRIP.5", g),
    )  # fmt: skip
    same(y, filled(x.shape, lambda *o: x[o] * g[o]), "STRIP.6")

    da = filled(x.shape, lambda *o: dy[o] * x[o] * g[o] * (1 - g[o]))
    da_h = filled((N, C, H), lambda n, c, h: sum(da[n, c, h, v] for v in range(W)))
    da_w = filled((N, C, W), lambda n, c, v: sum(da[n, c, h, v] for h in range(H)))
    ds_h = filled((N, C, H), lambda n, c, h: sum(w_h[c, i] * at(da_h, n, c, h - i + q) for i in range(k)))
    ds_w = filled((N, C, W), lambda n, c, v: sum(w_w[c, j] * at(da_w, n, c, v - j + q) for j in range(k)))
    same_at(
        list(walked(backward)), da=("STRIP.5", da), da_h=("STRIP.5", da_h), da_w=("STRIP.5", da_w),
        ds_w=("STRIP.4", ds_w), ds_h=("STRIP.3", ds_h), dx_columns=("STRIP.2", ds_w / H), dx_rows=("STRIP.1", ds_h / W),
    )  # fmt: skip
    meet = filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c, h, v] + ds_h[n, c, h] / W + ds_w[n, c, v] / H)
    same(dx, meet, "the three ways meet")

    def kernel(da_s, s):
        L = s.shape[2]
        return filled(
            (C, k), lambda c, i: sum(da_s[n, c, p] * at(s, n, c, p + i - q) for n in range(N) for p in range(L))
        )

    same(grads.w_h[:, 0, :, 0], kernel(da_h, s_h), "dw_h")
    same(grads.w_w[:, 0, 0], kernel(da_w, s_w), "dw_w")
    same(grads.b_h, da_h.sum(axis=(0, 2)), "db_h")
    same(grads.b_w, da_w.sum(axis=(0, 2)), "db_w")


def claim_a_pixel_reaches_a_cross():
    """Three rows and three columns, of its own channel."""
    x = random(1, 2, 6, 7)
    _, cache = strip.forward(x, params_of(2))
    wanted = np.zeros((6, 7), dtype=bool)
    wanted[1:4], wanted[:, 3:6] = True, True
    assert (reached(strip.backward, cache, x.shape, (2, 4)) == wanted).all()
    dy = np.zeros_like(x)
    dy[0, 1, 2, 4] = 1
    assert not strip.backward(dy, cache)[0][0, 0].any()


def claim_a_kernel_of_the_middle_alone_is_a_scale():
    """No neighbour counts: the gate of a pixel is of the means of its row and column."""
    x = random(2, 3, 4, 5)
    w_h, w_w = np.zeros((3, 1, 3, 1)), np.zeros((3, 1, 1, 3))
    w_h[:, 0, 1], w_w[:, 0, 0, 1] = 1, 1
    g = strip.forward(x, strip.Params(w_h, w_w))[1].g
    same(g, by_index.sigmoid(x.mean(axis=3, keepdims=True) + x.mean(axis=2, keepdims=True)), "no neighbour")


def claim_without_kernels_the_strips_are_added_as_they_are():
    """The same, with nothing to learn: and one kernel alone is refused."""
    x, dy = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    middle = np.zeros((3, 1, 3, 1))
    middle[:, 0, 1] = 1
    y, cache = strip.forward(x)
    wanted, as_kernels = strip.forward(x, strip.Params(middle, np.swapaxes(middle, 2, 3)))
    same(y, wanted, "y")
    dx, grads = strip.backward(dy, cache)
    same(dx, strip.backward(dy, as_kernels)[0], "dx")
    assert grads == strip.Params()
    with pytest.raises(ValueError, match="params: expected w_h and w_w both, or neither"):
        strip.forward(x, strip.Params(middle))


def claim_turned_the_kernels_change_places():
    x, params = random(2, 3, 4, 5), params_of(3)
    turned = strip.Params(np.swapaxes(params.w_w, 2, 3), np.swapaxes(params.w_h, 2, 3), params.b_w, params.b_h)
    same(strip.forward(np.swapaxes(x, 2, 3), turned)[0], np.swapaxes(strip.forward(x, params)[0], 2, 3), "turned")


def claim_what_the_layer_says():
    assert npattn.StripAttention(8, 5).count() == 2 * 5 * 8
    assert npattn.StripAttention(8, bias=True, convolve=False).count() == 0
    assert npattn.StripAttention(8, bias=True).count() == 2 * 3 * 8 + 2 * 8
    assert gates_of(npattn.StripAttention(8), random(2, 8, 4, 5)) == {"pixel": (2, 8, 4, 5)}


# Wrong backwards


def inputs(rng):
    return image(rng), strip.Params(rng.standard_normal((4, 1, 3, 1)), rng.standard_normal((4, 1, 1, 3)))


def to_a(dy, cache):
    da = sigmoid.backward(dy * cache.x, cache.gate)
    return da.sum(axis=3, keepdims=True), da.sum(axis=2, keepdims=True)


@mistake(strip.forward, inputs, "x", "direct path")
def strip_direct_path_alone(dy, cache):
    return dy * cache.g, strip.backward(dy, cache)[1]


@mistake(strip.forward, inputs, "x")
def strip_rows_forgotten(dy, cache):
    ds_w, _ = general_conv.backward(to_a(dy, cache)[1], cache.columns)
    return dy * cache.g + ds_w / dy.shape[2], strip.backward(dy, cache)[1]


@mistake(strip.forward, inputs, "x")
def strip_kernels_not_flipped(dy, cache):
    """A convolution of da with the kernel as it lies: undone is it by the kernel flipped."""
    da_h, da_w = to_a(dy, cache)
    ds = [
        general_conv.forward(da, conv.params, padding=conv.slide.padding, groups=4)[0]
        for da, conv in ((da_h, cache.rows), (da_w, cache.columns))
    ]
    return dy * cache.g + ds[0] / dy.shape[3] + ds[1] / dy.shape[2], strip.backward(dy, cache)[1]


@mistake(strip.forward, inputs, "x")
def strip_shares_of_rows_and_columns_swapped(dy, cache):
    da_h, da_w = to_a(dy, cache)
    ds_h, ds_w = general_conv.backward(da_h, cache.rows)[0], general_conv.backward(da_w, cache.columns)[0]
    return dy * cache.g + ds_h / dy.shape[2] + ds_w / dy.shape[3], strip.backward(dy, cache)[1]


@mistake(strip.forward, inputs, "params.w_h", "flipped")
def strip_kernel_gradient_flipped(dy, cache):
    dx, grads = strip.backward(dy, cache)
    return dx, grads._replace(w_h=grads.w_h[:, :, ::-1].copy())
