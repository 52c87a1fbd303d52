"""DANet's position attention, docs/blocks/danet.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn import capacity
from npattn.attention import danet_position, non_local
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, dot_product_attention, softmax
from tests.support.by_index import filled, gates_of, random, reached, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"ratio": 1},)


def reference(x, w, ratio=None):
    """With torch's own attention."""
    import torch.nn.functional as F

    def pixels(name):
        return F.conv2d(x, w[f"{name}_conv.weight"], w.get(f"{name}_conv.bias")).flatten(2).transpose(1, 2)

    z = F.scaled_dot_product_attention(pixels("query"), pixels("key"), pixels("value"), scale=1.0)
    return x + w["gamma"] * z.transpose(1, 2).unflatten(2, x.shape[2:])


def params_of(C, R, size=1.0, biases=True):
    """Weights of that size: with large ones each query has one key that takes all."""
    rng = np.random.default_rng(7)
    w_q, w_k = size * rng.standard_normal((R, C)), size * rng.standard_normal((R, C))
    w_v, alpha = rng.standard_normal((C, C)), np.array([0.7])
    given = [size * rng.standard_normal(n) for n in (R, R, C)] if biases else ()
    return danet_position.Params(w_q, w_k, w_v, alpha, *given)


def derivation():
    N, C, H, W, R = 2, 3, 2, 3, 2
    x, dy, P = random(N, C, H, W, seed=20), random(N, C, H, W, seed=22), H * W
    params = params_of(C, R, 0.5)
    w_q, w_k, w_v, (alpha,), b_q, b_k, b_v = params
    (y, cache), forward = watched(danet_position.forward, x, params)
    (dx, grads), backward = watched(danet_position.backward, dy, cache)

    t = filled((N, P, C), lambda n, i, c: x[n, c, i // W, i % W])
    q, k, v = (
        filled((N, P, len(b)), lambda n, i, r, w=w, b=b: sum(w[r, c] * t[n, i, c] for c in range(C)) + b[r])
        for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v))
    )
    fit = filled((N, P, P), lambda n, i, j: math.exp(sum(q[n, i, r] * k[n, j, r] for r in range(R))))
    a = filled((N, P, P), lambda n, i, j: fit[n, i, j] / sum(fit[n, i, m] for m in range(P)))
    z = filled((N, P, C), lambda n, i, c: sum(a[n, i, j] * v[n, j, c] for j in range(P)))
    same_at(list(walked(forward)), t=("DAP.1", t), q=("DAP.2", q), k=("DAP.2", k), v=("DAP.2", v), z=("DAP.3", z))
    same(cache.attended.shares.y, a, "the shares")
    same(y, filled(x.shape, lambda n, c, h, col: x[n, c, h, col] + alpha * z[n, h * W + col, c]), "DAP.4")

    dz = filled((N, P, C), lambda n, i, c: alpha * dy[n, c].ravel()[i])
    dalpha = sum(dy[n, c].ravel()[i] * z[n, i, c] for n, i, c in np.ndindex(N, P, C))
    ds = filled((N, P, P), lambda n, i, j: a[n, i, j] * sum(dz[n, i, c] * (v[n, j, c] - z[n, i, c]) for c in range(C)))
    dv = filled((N, P, C), lambda n, j, c: sum(a[n, i, j] * dz[n, i, c] for i in range(P)))
    dq = filled((N, P, R), lambda n, i, r: sum(ds[n, i, j] * k[n, j, r] for j in range(P)))
    dk = filled((N, P, R), lambda n, j, r: sum(ds[n, i, j] * q[n, i, r] for i in range(P)))
    same_at(
        list(walked(backward)), dz=("DAP.4", dz), dalpha=("DAP.4", np.array([dalpha])), dq=("DAP.3", dq),
        dk=("DAP.3", dk), dv=("DAP.3", dv),
    )  # fmt: skip
    ways = [(d[:, :, r], w[r]) for d, w in ((dq, w_q), (dk, w_k), (dv, w_v)) for r in range(len(w))]
    dt = filled((N, P, C), lambda n, i, c: sum(d[n, i] * w[c] for d, w in ways))
    same(dx, dy + np.swapaxes(dt, 1, 2).reshape(x.shape), "four ways meet")
    for name, d in (("q", dq), ("k", dk), ("v", dv)):
        wanted = filled((d.shape[2], C), lambda r, c, d=d: np.sum(d[:, :, r] * t[:, :, c]))
        same(getattr(grads, f"w_{name}"), wanted, f"dw_{name}")
        same(getattr(grads, f"b_{name}"), d.sum(axis=(0, 1)), f"db_{name}")
    same(grads.alpha, np.array([dalpha]), "dalpha")


def claim_it_is_non_local_attention_with_less():
    """No fourth map, no norm: with w_o = 1 and a norm that does nothing but multiply by alpha, the same numbers."""
    C, params = 3, params_of(3, 3)
    x, dy = random(2, C, 4, 5), random(2, C, 4, 5, seed=1)
    alpha = np.full(C, params.alpha[0])
    norm = batch_norm.Params(alpha * math.sqrt(1 + 1e-5), np.zeros(C))
    still = non_local.Running(batch_norm.Running(np.zeros(C), np.ones(C)))
    other = non_local.Params(params.w_q, params.w_k, params.w_v, np.eye(C), norm, *params[4:])
    y, cache = danet_position.forward(x, params)
    y_there, there = non_local.forward(x, other, still, scale=1)
    same(y, y_there, "y")
    same(danet_position.backward(dy, cache)[0], non_local.backward(dy, there)[0], "dx")


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    _, cache = danet_position.forward(x, params_of(3, 2, 0.3))
    assert reached(danet_position.backward, cache, x.shape, (0, 4)).all()


def claim_the_bias_of_the_keys_does_nothing():
    x, dy, params = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1), params_of(3, 2, 0.5)
    y, cache = danet_position.forward(x, params)
    same(danet_position.forward(x, params._replace(b_k=np.zeros(2)))[0], y, "without it")
    grads = danet_position.backward(dy, cache)[1]
    assert np.abs(grads.b_k).max() < 1e-13 < min(np.abs(grads.b_q).min(), np.abs(grads.b_v).min())


def claim_a_single_pixel_gives_itself_all():
    """H = W = 1: the share is 1, z is v, and nothing comes back to queries and keys."""
    x, params = random(3, 4, 1, 1), params_of(4, 2)
    y, cache = danet_position.forward(x, params)
    v = x[:, :, 0, 0] @ params.w_v.T + params.b_v
    same(y[:, :, 0, 0], x[:, :, 0, 0] + 0.7 * v, "z is v")
    grads = danet_position.backward(random(3, 4, 1, 1, seed=1), cache)[1]
    assert not any(g.any() for g in (grads.w_q, grads.w_k, grads.b_q, grads.b_k))


def claim_it_begins_as_nothing():
    layer = npattn.DANetPosition(8, dtype="float64", rng=0)
    x = random(2, 8, 3, 5)
    same(layer(x), x, "alpha is 0")
    layer.backward(random(2, 8, 3, 5, seed=1))
    assert [key for key, gradient in layer.grads.items() if gradient.any()] == ["gamma"]


def claim_what_the_layer_says():
    layer = npattn.DANetPosition(8)
    assert layer.count() == 2 * 8 + 8 * 8 + 1
    assert npattn.DANetPosition(8, bias=True).count() == layer.count() + 1 + 1 + 8
    assert gates_of(layer, random(2, 8, 4, 5)) == {"pairs": (2, 4, 5, 4, 5)}
    np.testing.assert_allclose(layer.attention["pairs"].sum(axis=(3, 4)), 1, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"ratio: expected at most in_dim = 4, got 8: 4 // 8 = 0 would leave no hidden"
    ):
        npattn.DANetPosition(4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capacity, "capacity", lambda: 2**30)
        with pytest.raises(MemoryError, match=r"^x: 4 arrays of all pairs, 1 of 16,384 × 16,384: 8 GiB of memory"):
            danet_position.forward(np.zeros((1, 3, 128, 128)), params_of(3, 2))
    for field, wrong, message in (
        ("w_k", random(1, 3), r"w_k: expected shape \(R=2, C=3\), got \(1, 3\)"),
        ("w_v", random(3, 2), r"w_v: expected shape \(C=3, C=3\), got \(3, 2\)"),
        ("alpha", random(3), r"alpha: expected shape \(1\), got \(3,\)"),
        ("b_q", random(3), r"b_q: expected shape \(R=2\), got \(3,\)"),
        ("b_v", random(2), r"b_v: expected shape \(C=3\), got \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            danet_position.forward(random(2, 3, 4, 5), params_of(3, 2)._replace(**{field: wrong}))


# Wrong backwards


def inputs(rng):
    w_q, w_k, w_v = (0.5 * rng.standard_normal(shape) for shape in ((5, 4), (5, 4), (4, 4)))
    return image(rng, (2, 4, 2, 3)), danet_position.Params(w_q, w_k, w_v, np.array([0.7]))


def rows_of(a):
    return a.reshape(*a.shape[:2], -1).swapaxes(1, 2)


def image_of(rows, shape):
    return rows.swapaxes(1, 2).reshape(shape)


@mistake(danet_position.forward, inputs, "x")
def danet_position_shares_taken_for_constants(dy, cache):
    dv = cache.alpha * dot_product_attention.backward(rows_of(dy), cache.attended)[2]
    return dy + image_of(dv @ cache.values.params.w, dy.shape), danet_position.backward(dy, cache)[1]


@mistake(danet_position.forward, inputs, "x", "a missing term: dy itself, which a skip connection hands on")
def danet_position_without_the_way_past_it(dy, cache):
    dx, grads = danet_position.backward(dy, cache)
    return dx - dy, grads


@mistake(danet_position.forward, inputs, "params.w_v")
def danet_position_values_collect_by_rows(dy, cache):
    dx, grads = danet_position.backward(dy, cache)
    dv = cache.attended.shares.y @ (cache.alpha * rows_of(dy))  # its transpose is meant; no shape complains
    return dx, grads._replace(w_v=np.einsum("npm,npc->mc", dv, cache.values.x))


@mistake(danet_position.forward, inputs, "params.alpha")
def danet_position_alpha_by_what_it_multiplied_and_itself(dy, cache):
    dx, grads = danet_position.backward(dy, cache)
    return dx, grads._replace(alpha=grads.alpha * cache.alpha)


@mistake(danet_position.forward, inputs, "params.w_q")
def danet_position_alpha_forgotten_for_the_scores(dy, cache):
    dx, grads = danet_position.backward(dy, cache)
    return dx, grads._replace(w_q=grads.w_q / cache.alpha, w_k=grads.w_k / cache.alpha)


def with_biases(rng):
    x, params = inputs(rng)
    return x, params._replace(b_q=rng.standard_normal(5), b_k=rng.standard_normal(5), b_v=rng.standard_normal(4))


@mistake(danet_position.forward, with_biases, "params.b_k", "the outer product in a softmax's Jacobian")
def danet_position_softmax_without_its_outer_product(dy, cache):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(softmax, "backward", lambda da, shares: shares.y * da)
        return danet_position.backward(dy, cache)
