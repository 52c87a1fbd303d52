"""Efficient channel attention, docs/blocks/eca.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import eca
from npattn.explain.watch import walked, watched
from npattn.ops import global_avg_pool, relu
from npattn.ops.gate_functions import GATES
from tests.support.by_index import GATE, filled, random, same, value
from tests.support.mistakes import image, mistake
from tests.support.torch_gates import gate_function

MORE = (  # the kernel that few channels have is one number
    {"kernel_size": 3},
    {"kernel_size": 5, "gate": "hard_sigmoid"},
    {"kernel_size": 3, "gate": "torch_hard_sigmoid"},
    {"kernel_size": 5, "hidden": 3},
    {"kernel_size": 3, "ends": "ring"},
    {"kernel_size": 5, "ends": "ring", "hidden": 2, "gate": "hard_sigmoid"},
)


def reference(x, w, kernel_size=None, gate="sigmoid", hidden=None, ends="zeros"):
    """As the authors' code and timm's have it: convolutions along the C means, with one channel or R."""
    import torch.nn.functional as F

    kernel = w["conv.weight"]
    q = kernel.shape[-1] // 2
    f = F.adaptive_avg_pool2d(x, 1)[:, None, :, 0, 0]
    if hidden:
        f = F.conv1d(f, w["fc.weight"][:, None, None], w["fc.bias"]).relu()
    f = F.pad(f, (q, q), mode="circular" if ends == "ring" else "constant")
    a = F.conv1d(f, kernel, w.get("conv.bias"))[:, 0]
    return x * gate_function(gate)(a)[..., None, None]


def derivation():
    for gate in ("sigmoid", "hard_sigmoid"):
        for ends in ("zeros", "ring"):
            for R in (None, 2):
                compared(gate, ends, R)


def params_of(R, k):
    if R is None:
        return eca.Params(random(1, k))
    return eca.Params(random(R, k), random(1, seed=1), random(R, seed=2), random(R, seed=3))


def compared(gate, ends, hidden):
    x = random(2, 4, 2, 4, seed=20)
    N, C, H, W = x.shape
    R, k, q, P = hidden or 1, 3, 1, H * W
    params = params_of(hidden, k)
    w, b, w1, b1 = params
    (y, cache), forward = watched(eca.forward, x, params, gate, ends)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(eca.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))

    def source(c):
        """The channel that stands at place c of f̄; None for a zero."""
        return (c - q) % C if ends == "ring" else c - q if 0 <= c - q < C else None

    slope = (lambda g: g * (1 - g)) if gate == "sigmoid" else (lambda g: 1 / 6 if 0 < g < 1 else 0)
    s = filled((N, C), lambda n, c: sum(x[n, c].ravel()[p] for p in range(P)) / P)
    z = filled((N, R, C), lambda n, r, c: w1[r] * s[n, c] + b1[r] if hidden else s[n, c])
    f = np.maximum(z, 0) if hidden else z
    padded = filled((N, R, C + 2 * q), lambda n, r, c: 0 if source(c) is None else f[n, r, source(c)])
    a = filled(
        (N, C), lambda n, c: sum(w[r, j] * padded[n, r, c + j] for r in range(R) for j in range(k)) + (b or [0])[0]
    )
    g = filled((N, C), lambda n, c: GATE[gate](a[n, c]))
    dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * x[n, c, h, v] for h in range(H) for v in range(W)))
    da = filled((N, C), lambda n, c: dg[n, c] * slope(g[n, c]))
    dw = filled((R, k), lambda r, j: sum(da[n, c] * padded[n, r, c + j] for n in range(N) for c in range(C)))
    dpadded = filled(padded.shape, lambda n, r, c: sum(w[r, j] * da[n, c - j] for j in range(k) if 0 <= c - j < C))
    df = filled((N, R, C), lambda n, r, c: sum(dpadded[n, r, e] for e in range(C + 2 * q) if source(e) == c))
    dz = np.where(z > 0, df, 0) if hidden else df
    ds = filled((N, C), lambda n, c: sum(dz[n, r, c] * (w1[r] if hidden else 1) for r in range(R)))
    for steps, name, tag, wanted in (
        (there, "s", "ECA.1", s), (there, "f", "ECA.2", f), (there, "padded", "ECA.3", padded),
        (there, "g", "ECA.5", g), (back, "dg", "ECA.6", dg), (back, "da", "ECA.5", da), (back, "dw", "ECA.4", dw),
        (back, "ds", "ECA.2", ds),
    ):  # fmt: skip
        same(value(steps, name, tag), wanted, f"{tag}, {name}")
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g[n, c]), "ECA.6")
    same(dx, filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + ds[n, c] / P), "the two ways meet")
    same(grads.w, dw, "dw")
    if hidden:
        same(grads.b, np.sum(da)[None], "db")
        same(grads.w1, filled((R,), lambda r: sum(dz[n, r, c] * s[n, c] for n in range(N) for c in range(C))), "dw1")
        same(grads.b1, filled((R,), lambda r: sum(dz[n, r, c] for n in range(N) for c in range(C))), "db1")
    else:
        assert grads[1:] == (None, None, None)


def claim_a_ring_has_no_first_channel():
    """Turn the channels on by one: the ring's output turns with them, that with zeros at its ends does not."""
    x, params = random(2, 6, 2, 3), params_of(None, 3)
    for ends, turns in (("ring", True), ("zeros", False)):
        y, _ = eca.forward(x, params, ends=ends)
        turned, _ = eca.forward(np.roll(x, 1, axis=1), params, ends=ends)
        assert np.allclose(turned, np.roll(y, 1, axis=1), atol=1e-12) == turns


def claim_two_hidden_units_can_be_none():
    """relu(s) − relu(−s) is s: w1 = (1, −1) and the kernel with both signs are the plain form."""
    x, w = random(2, 5, 2, 3), random(1, 3)
    zeros = np.zeros(2)
    hidden = eca.Params(np.concatenate([w, -w]), np.zeros(1), np.array([1.0, -1.0]), zeros)
    same(eca.forward(x, hidden)[0], eca.forward(x, eca.Params(w))[0], "the plain form")


def claim_the_widest_ring():
    x = random(2, 2, 1, 3)
    eca.forward(x, params_of(None, 5), ends="ring")
    with pytest.raises(ValueError, match=r"expected at most 2 C \+ 1 = 5 for a ring of C = 2, got 7"):
        eca.forward(x, params_of(None, 7), ends="ring")


def claim_what_is_refused():
    x = random(2, 4, 2, 3)
    with pytest.raises(ValueError, match=r"w: expected shape \(R=1, k\), got \(2, 3\)"):
        eca.forward(x, eca.Params(random(2, 3)))
    with pytest.raises(ValueError, match=r"b1: expected shape \(R=2\), got \(3,\)"):
        eca.forward(x, eca.Params(random(2, 3), random(1), random(2), random(3)))
    with pytest.raises(ValueError, match="ends: expected one of 'zeros', 'ring', got 'circle'"):
        npattn.ECA(8, ends="circle")
    assert npattn.ECA(8, hidden=4).count() == 4 * 3 + 1 + 4 + 4


# Wrong backwards


def inputs(rng):
    return image(rng), eca.Params(rng.standard_normal((1, 3)))


def with_hidden(rng):
    return image(rng), eca.Params(*(rng.standard_normal(shape) for shape in ((2, 3), (1,), (2,), (2,))))


def in_a_ring(x, params):
    return eca.forward(x, params, ends="ring")


def to_a(dy, cache):
    return GATES[cache.gate].backward(np.sum(dy * cache.x, axis=(2, 3)), cache.gated)


def direct(dy, cache):
    return dy * cache.g[:, :, None, None]


@mistake(eca.forward, inputs, "x", "the same along axes (2, 3)")
def eca_with_the_kernel_not_flipped(dy, cache):
    dx, _ = eca.backward(dy, cache._replace(params=cache.params._replace(w=cache.params.w[:, ::-1])))
    return dx, eca.backward(dy, cache)[1]


@mistake(eca.forward, inputs, "x", "direct path")
def eca_direct_path_alone(dy, cache):
    return direct(dy, cache), eca.backward(dy, cache)[1]


@mistake(eca.forward, inputs, "x", "the same along axes (2, 3)")
def eca_ends_joined_into_a_ring(dy, cache):
    dx, _ = eca.backward(dy, cache._replace(ends="ring"))  # beyond the ends there are zeros
    return dx, eca.backward(dy, cache)[1]


@mistake(in_a_ring, inputs, "x", "the same along axes (2, 3)")
def ceca_ends_taken_for_constants(dy, cache):
    dx, _ = eca.backward(dy, cache._replace(ends="zeros"))
    return dx, eca.backward(dy, cache)[1]


@mistake(in_a_ring, inputs, "x", "the same along axes (2, 3)")
def ceca_ends_given_back_to_the_wrong_side(dy, cache):
    da, (w,), C = to_a(dy, cache), cache.params.w, dy.shape[1]
    dpadded = sum(np.pad(da * w[j], ((0, 0), (j, 2 - j))) for j in range(3))
    ds = dpadded[:, 1:-1].copy()
    ds[:, 0] += dpadded[:, 0]  # what stands before the first is the last
    ds[:, C - 1] += dpadded[:, C + 1]
    return direct(dy, cache) + global_avg_pool.backward(ds, cache.squeeze), eca.backward(dy, cache)[1]


@mistake(eca.forward, inputs, "params.w", "flipped along its last two axes")
def eca_kernel_gradient_flipped(dy, cache):
    dx, grads = eca.backward(dy, cache)
    return dx, grads._replace(w=grads.w[:, ::-1].copy())


@mistake(eca.forward, with_hidden, "params.w1", "a mask")
def eca_mlp_relu_forgotten(dy, cache):
    dx, grads = eca.backward(dy, cache)
    open_ = relu.Cache(np.zeros_like(cache.hidden.blocked))
    return dx, grads._replace(w1=eca.backward(dy, cache._replace(hidden=open_))[1].w1)


@mistake(eca.forward, with_hidden, "params.b1", "a constant factor of 0.25")
def eca_mlp_bias_of_one_channel(dy, cache):
    dx, grads = eca.backward(dy, cache)
    return dx, grads._replace(b1=grads.b1 / dy.shape[1])  # a mean over the channels in place of the sum
