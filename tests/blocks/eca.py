"""Efficient channel attention, docs/variants.md."""

from __future__ import annotations

import numpy as np

from npattn.attention import eca
from npattn.ops import global_avg_pool
from npattn.ops.gate_functions import GATES
from tests.support import by_index
from tests.support.by_index import GATE, filled, random, same
from tests.support.mistakes import image, mistake
from tests.support.torch_gates import gate_function

MORE = (  # the kernel that few channels have is one number
    {"kernel_size": 3},
    {"kernel_size": 5, "gate": "hard_sigmoid"},
    {"kernel_size": 3, "gate": "torch_hard_sigmoid"},
)


def reference(x, w, kernel_size=None, gate="sigmoid"):
    """As the authors' code has it: a convolution of one channel along the C means."""
    import torch.nn.functional as F

    kernel = w["conv.weight"]
    s = F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]
    a = F.conv1d(s[:, None], kernel, padding=kernel.shape[-1] // 2)[:, 0]
    return x * gate_function(gate)(a)[..., None, None]


def derivation():
    X = by_index.image()
    N, C, H, W = X.shape
    k, q, P = 3, 1, H * W
    w, dy = random(k), random(*X.shape, seed=22)
    s = filled((N, C), lambda n, c: sum(X[n, c].ravel()[p] for p in range(P)) / P)
    s_bar = filled((N, C + 2 * q), lambda n, c: s[n, c - q] if 0 <= c - q < C else 0)
    a = filled((N, C), lambda n, c: sum(w[j] * s_bar[n, c + j] for j in range(k)))
    for name, slope in (("sigmoid", lambda g: g * (1 - g)), ("hard_sigmoid", lambda g: 1 / 6 if 0 < g < 1 else 0)):
        y, cache = eca.forward(X, eca.Params(w), name)
        dx, (dw,) = eca.backward(dy, cache)
        g = filled((N, C), lambda n, c: GATE[name](a[n, c]))  # noqa: B023
        same(y, filled(X.shape, lambda n, c, h, v: X[n, c, h, v] * g[n, c]), "ECA.5")  # noqa: B023
        dg = filled((N, C), lambda n, c: sum(dy[n, c, h, v] * X[n, c, h, v] for h in range(H) for v in range(W)))
        da = filled((N, C), lambda n, c: dg[n, c] * slope(g[n, c]))  # noqa: B023
        dw_ = filled((k,), lambda j: sum(da[n, c] * s_bar[n, c + j] for n in range(N) for c in range(C)))  # noqa: B023
        same(dw, dw_, "ECA.3, dw")
        ds_bar = filled(s_bar.shape, lambda n, c: sum(w[j] * da[n, c - j] for j in range(k) if 0 <= c - j < C))  # noqa: B023
        dx_ = filled(X.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c] + ds_bar[n, c + q] / P)  # noqa: B023
        same(dx, dx_, "ECA.1")


def inputs(rng):
    return image(rng), eca.Params(rng.standard_normal(3))


@mistake(eca.forward, inputs, "x")
def eca_with_the_kernel_not_flipped(dy, cache):
    dx, _ = eca.backward(dy, cache._replace(w=cache.w[::-1]))
    return dx, eca.backward(dy, cache)[1]


@mistake(eca.forward, inputs, "x", "direct path")
def eca_direct_path_alone(dy, cache):
    return dy * cache.g[:, :, None, None], eca.backward(dy, cache)[1]


@mistake(eca.forward, inputs, "x")
def eca_ends_joined_into_a_ring(dy, cache):
    _, grads = eca.backward(dy, cache)
    da = GATES[cache.gate].backward(np.sum(dy * cache.x, axis=(2, 3)), cache.gated)
    ds = sum(np.roll(da * w, j - 1, axis=1) for j, w in enumerate(cache.w))  # beyond the ends there are zeros
    return dy * cache.g[:, :, None, None] + global_avg_pool.backward(ds, cache.squeeze), grads


@mistake(eca.forward, inputs, "params.w", "reverse order along axis 0")
def eca_kernel_gradient_flipped(dy, cache):
    dx, (dw,) = eca.backward(dy, cache)
    return dx, eca.Params(dw[::-1].copy())
