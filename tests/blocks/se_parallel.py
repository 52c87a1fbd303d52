"""SE beside a transformation, docs/blocks/wrong.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import gate
from npattn.ops import conv2d
from tests.blocks import se_gate
from tests.support.by_index import filled, gates_of, image, random, same, sigmoid, weights
from tests.support.mistakes import mistake_of_layer, only_x
from tests.support.proofs import part


def reference(x, w):
    import torch.nn.functional as F

    return F.conv2d(x, w["transform.weight"], w["transform.bias"], padding=1) * se_gate.reference(x, part(w, "gate"))


def parallel(B, C, reduction):
    F = weights(npattn.Conv2d(B, C, 3, dtype="float64"), 1)
    return npattn.ParallelSE(F, weights(npattn.SEGate(B, C, reduction, dtype="float64"), 2))


def derivation():
    """The gate itself is se_gate's. Here: u = F(x), y = u · g, and the two ways that meet at x."""
    x, C = image(), 4
    N, B, H, W = x.shape
    layer = parallel(B, C, 2)
    dy = random(N, C, H, W)
    y = layer(x)
    F, w1, w2 = layer.layers["transform"], layer.params["gate.fc.0.weight"], layer.params["gate.fc.2.weight"]
    u, conv = conv2d.forward(x, conv2d.Params(*F.params.values()))
    s = filled((N, B), lambda n, b: np.sum(x[n, b]) / (H * W))
    z = filled((N, len(w1)), lambda n, r: sum(s[n, b] * w1[r, b] for b in range(B)))
    h = np.maximum(z, 0)
    g = filled((N, C), lambda n, c: sigmoid(sum(h[n, r] * w2[c, r] for r in range(len(w1)))))
    same(y, filled(y.shape, lambda n, c, i, j: u[n, c, i, j] * g[n, c]), "PAR.5")

    dg = filled((N, C), lambda n, c: np.sum(dy[n, c] * u[n, c]))
    da = dg * g * (1 - g)
    dz = filled(z.shape, lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)) if z[n, r] > 0 else 0)
    ds = filled((N, B), lambda n, b: sum(dz[n, r] * w1[r, b] for r in range(len(w1))))
    dx_transform, grads = conv2d.backward(dy * g[:, :, None, None], conv)  # PAR.1
    dx = layer.backward(dy)
    assert np.any(dz != 0)
    same(dx, dx_transform + ds[:, :, None, None] / (H * W), "the two ways meet")
    same(layer.grads["transform.weight"], grads.w, "PAR.1, w")
    same(layer.grads["transform.bias"], grads.b, "PAR.1, b")
    same(layer.grads["gate.fc.0.weight"], np.einsum("nr,nb->rb", dz, s), "PAR.3, dw1")
    same(layer.grads["gate.fc.2.weight"], np.einsum("nc,nr->cr", da, h), "PAR.3, dw2")


def claim_what_the_gate_tells_the_transformation():
    """Behind F the gate's gradient goes into F's weights; beside F it does not: there du is dy · g and nothing more."""
    x = image()
    layer = parallel(3, 4, 2)
    F, gate_alone = layer.layers["transform"], layer.layers["gate"]
    dy = random(2, 4, 2, 4)
    y = layer(x)
    same(y, F(x) * gate_alone(x), "PAR.5")
    layer.backward(dy)
    _, alone = conv2d.backward(dy * gate_alone(x), conv2d.forward(x, conv2d.Params(*F.params.values()))[1])
    same(layer.grads["transform.weight"], alone.w, "F's weights hear of the direct path only")

    behind = npattn.Sequential(F, weights(npattn.SELayer(4, 2, dtype="float64"), 3))
    g = behind.layers["1"](F(x)) / F(x)
    behind(x)
    behind.backward(dy)
    _, direct = conv2d.backward(dy * g, conv2d.forward(x, conv2d.Params(*F.params.values()))[1])
    through_gate = behind.grads["0.weight"] - direct.w
    assert np.linalg.norm(through_gate) > 1e-3 * np.linalg.norm(direct.w)


def claim_with_the_identity_for_f_it_is_se():
    """F = 1: then beside and behind are one, and the parallel structure is SE, gradients and all."""
    x = image()
    identity = npattn.Conv2d(3, 3, 1, bias=False, dtype="float64")
    identity.load_state_dict({"weight": np.eye(3)[:, :, None, None]})
    of_gate = weights(npattn.SEGate(3, 3, 1, dtype="float64"), 4)
    layer, twin = npattn.ParallelSE(identity, of_gate), npattn.SELayer(3, 1, dtype="float64")
    twin.load_state_dict(of_gate.state_dict())
    dy = random(*x.shape)
    same(layer(x), twin(x), "y")
    same(layer.backward(dy), twin.backward(dy), "dx")
    for key, gradient in twin.grads.items():
        same(layer.grads[f"gate.{key}"], gradient, key)


def claim_what_attention_holds():
    layer = npattn.ParallelSE(npattn.Conv2d(4, 6), npattn.SEGate(4, 6, 2))
    assert gates_of(layer, random(2, 4, 3, 5)) == {"gate.channel": (2, 6, 1, 1)}


def square(rng):
    return parallel(4, 4, 2)


@mistake_of_layer(square, only_x, "x", "the same along axes (2, 3)")
def parallel_gate_path_forgotten(layer, dy, cache):
    du, dg = gate.backward(dy, cache)
    layer.layers["gate"].backward(dg)
    return layer.layers["transform"].backward(du), dict(layer.grads)


@mistake_of_layer(square, only_x, "transform.weight")
def parallel_undone_as_se_behind(layer, dy, cache):
    du, dg = gate.backward(dy, cache)
    du = du + layer.layers["gate"].backward(dg)  # the gate looked at x, not at u
    return layer.layers["transform"].backward(du), dict(layer.grads)


@mistake_of_layer(square, only_x, "transform.bias")
def parallel_transformation_hears_of_dy_without_the_gate(layer, dy, cache):
    _, dg = gate.backward(dy, cache)
    dx_gate = layer.layers["gate"].backward(dg)
    return layer.layers["transform"].backward(dy) + dx_gate, dict(layer.grads)
