"""Double attention, docs/blocks/double-attention.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import double_attention as a2
from npattn.explain.watch import walked, watched
from npattn.ops import linear, softmax
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, reached, same, same_at
from tests.support.mistakes import image, mistake

MORE = ({"bias": True, "features": 3, "descriptors": 4}, {"over": "descriptors"})


def reference(x, w, over="pixels", residual=True, bias=False, features=None, descriptors=None):
    """As changzy00's code has it, or xmu's, with x added where the paper does."""
    import torch.nn.functional as F

    def conv(z, name):
        return F.conv2d(z, w[f"{name}.weight"], w.get(f"{name}.bias"))

    a, b, v = (conv(x, name).flatten(2) for name in ("features", "gather", "distribute"))
    z = a @ b.softmax(2 if over == "pixels" else 1).mT @ v.softmax(1)
    out = conv(z.unflatten(2, x.shape[2:]), "out")
    return x + out if residual else out


def params_of(C=3, M=2, K=4, seed=1, bias=True):
    shapes = ((M, C), (M,), (K, C), (K, C), (K,), (C, M), (C,), (K,))
    params = a2.Params(*(random(*shape, seed=seed + i) for i, shape in enumerate(shapes)))
    return params if bias else params._replace(b_b=None)


def derivation():
    for over in a2.AXES:
        for residual in (True, False):
            compared(over, residual)


def shared(scores, axis):
    """Each number's share of what is along the axis, 1 or 2, and a function back from a cotangent."""
    e = np.exp(scores)
    total = filled(scores.shape, lambda *at: sum(e[tuple_with(at, axis, j)] for j in range(scores.shape[axis])))
    y = e / total

    def back(dy):
        mean = filled(dy.shape, lambda *at: sum((dy * y)[tuple_with(at, axis, j)] for j in range(dy.shape[axis])))
        return y * (dy - mean)

    return y, back


def tuple_with(at, axis, j):
    return (*at[:axis], j, *at[axis + 1 :])


def compared(over, residual):
    x = by_index.image()
    N, C, H, W = x.shape
    M, K, P = 2, 4, H * W
    params = params_of(C, M, K)
    w_a, b_a, w_b, w_v, b_v, w_o, b_o, b_b = params
    (y, cache), forward = watched(a2.forward, x, params, over, residual)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(a2.backward, dy, cache)
    t = filled((N, P, C), lambda n, p, c: x[n, c, p // W, p % W])
    dyt = filled((N, P, C), lambda n, p, c: dy[n, c, p // W, p % W])

    def product(w, b, n, p, m):
        return sum(w[m, c] * t[n, p, c] for c in range(C)) + b[m]

    a = filled((N, P, M), lambda n, p, m: product(w_a, b_a, n, p, m))
    beta, gather_back = shared(filled((N, K, P), lambda n, k, p: product(w_b, b_b, n, p, k)), a2.AXES[over])
    nu, distribute_back = shared(filled((N, K, P), lambda n, k, p: product(w_v, b_v, n, p, k)), 1)
    G = filled((N, K, M), lambda n, k, m: sum(beta[n, k, p] * a[n, p, m] for p in range(P)))
    z = filled((N, P, M), lambda n, p, m: sum(nu[n, k, p] * G[n, k, m] for k in range(K)))
    same_at(
        list(walked(forward)), t=("A2.1", t), a=("A2.2", a), beta=("A2.3", beta), nu=("A2.4", nu), G=("A2.5", G),
        z=("A2.6", z),
    )  # fmt: skip
    told = filled((N, P, C), lambda n, p, c: sum(w_o[c, m] * z[n, p, m] for m in range(M)) + b_o[c])
    same(y, filled(x.shape, lambda n, c, h, v: residual * x[n, c, h, v] + told[n, h * W + v, c]), "A2.7")

    dz = filled((N, P, M), lambda n, p, m: sum(w_o[c, m] * dyt[n, p, c] for c in range(C)))
    dG = filled((N, K, M), lambda n, k, m: sum(nu[n, k, p] * dz[n, p, m] for p in range(P)))
    dnu = filled((N, K, P), lambda n, k, p: sum(G[n, k, m] * dz[n, p, m] for m in range(M)))
    da = filled((N, P, M), lambda n, p, m: sum(beta[n, k, p] * dG[n, k, m] for k in range(K)))
    dbeta = filled((N, K, P), lambda n, k, p: sum(dG[n, k, m] * a[n, p, m] for m in range(M)))
    dscores, dneeds = gather_back(dbeta), distribute_back(dnu)

    def down(w, d):
        """What comes back to t from numbers d (N, rows, P) that w (rows, C) made of it."""
        return filled((N, P, C), lambda n, p, c: sum(w[m, c] * d[n, m, p] for m in range(len(w))))

    dt_a, dt_b, dt_v = down(w_a, da.swapaxes(1, 2)), down(w_b, dscores), down(w_v, dneeds)
    same_at(
        list(walked(backward)), dz=("A2.7", dz), dG=("A2.6", dG), dnu=("A2.6", dnu), da=("A2.5", da),
        dbeta=("A2.5", dbeta), dneeds=("A2.4", dneeds.swapaxes(1, 2)), dscores=("A2.3", dscores.swapaxes(1, 2)),
        dt_a=("A2.2", dt_a), dt_b=("A2.3", dt_b), dt_v=("A2.4", dt_v),
    )  # fmt: skip
    dt = residual * dyt + dt_a + dt_b + dt_v
    same(dx, filled(x.shape, lambda n, c, h, v: dt[n, h * W + v, c]), "the ways meet")

    def outer(d, inputs):
        """Σ over images and pixels of d (N, rows, P) and inputs (N, P, columns)."""
        pixels = [(n, p) for n in range(N) for p in range(P)]
        shape = d.shape[1], inputs.shape[2]
        return filled(shape, lambda m, c: sum(d[n, m, p] * inputs[n, p, c] for n, p in pixels))

    ones, out = np.ones((N, P, 1)), dyt.swapaxes(1, 2)
    for name, d, inputs in (("a", da.swapaxes(1, 2), t), ("b", dscores, t), ("v", dneeds, t), ("o", out, z)):
        same(getattr(grads, f"w_{name}"), outer(d, inputs), f"dw_{name}")
        same(getattr(grads, f"b_{name}"), outer(d, ones)[:, 0], f"db_{name}")


def claim_every_pixel_gets_a_mean_of_all():
    """Gathered and distributed is one matrix of shares, P × P, of a rank of K at most, that nobody writes down."""
    x, params = random(2, 3, 4, 5), params_of()
    _, cache = a2.forward(x, params)
    shares = cache.nu.mT @ cache.beta
    same(shares.sum(axis=2), np.ones((2, 20)), "shares")
    assert shares.min() > 0
    assert list(np.linalg.matrix_rank(shares)) == [4, 4]
    same(cache.nu.mT @ cache.G, shares @ cache.a, "the same, the long way round")


def claim_over_the_descriptors_it_grows_with_the_image():
    """The shares of a descriptor over the pixels are none then: twice the image, side by side, gives twice G."""
    x, params = random(1, 3, 4, 5), params_of()
    twice = np.concatenate([x, x], axis=3)
    for over, factor in (("pixels", 1), ("descriptors", 2)):
        one, two = (a2.forward(image, params, over)[1].G for image in (x, twice))
        same(two, factor * one, over)


def claim_the_bias_of_the_gathering_has_no_effect():
    x, params = random(2, 3, 4, 5), params_of()
    y, cache = a2.forward(x, params)
    same(a2.forward(x, params._replace(b_b=None))[0], y, "y")
    assert np.abs(a2.backward(random(*x.shape, seed=7), cache)[1].b_b).max() < 1e-13
    _, cache = a2.forward(x, params, "descriptors")
    assert np.abs(a2.backward(random(*x.shape, seed=7), cache)[1].b_b).min() > 1e-3


def claim_one_descriptor_is_the_same_for_all():
    """K = 1: every pixel takes all of it, and what is added is one vector, as in the global context."""
    x = random(2, 3, 4, 5)
    y, cache = a2.forward(x, params_of(K=1))
    added = y - x
    same(added, np.broadcast_to(added[:, :, :1, :1], x.shape), "added")
    grads = a2.backward(random(*x.shape, seed=7), cache)[1]
    assert not grads.w_v.any()
    assert not grads.b_v.any()


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    for residual in (True, False):
        assert reached(a2.backward, a2.forward(x, params_of(), residual=residual)[1], x.shape, (1, 2)).all()


def claim_what_the_layer_says():
    layer = npattn.DoubleAttention(8, 2)
    assert layer.count() == 4 * 8 * 4 + 4 + 4 + 8
    x = random(2, 8, 4, 5)
    assert gates_of(layer, x) == {"gather": (2, 4, 4, 5), "distribute": (2, 4, 4, 5)}
    same(layer.attention["gather"].sum(axis=(2, 3)).astype(float).round(5), np.ones((2, 4)), "gather")
    same(layer.attention["distribute"].sum(axis=1).astype(float).round(5), np.ones((2, 4, 5)), "distribute")
    wide = npattn.DoubleAttention(2, features=3, descriptors=5, bias=True)
    assert wide.count() == 2 * 2 * 3 + 2 * 2 * 5 + 3 + 2 * 5 + 2
    assert npattn.DoubleAttention(8, 4, features=5).sizes == {"C": 8, "M": 5, "K": 2}
    assert npattn.DoubleAttention(8, 4, descriptors=5).sizes == {"C": 8, "M": 2, "K": 5}
    with pytest.raises(ValueError, match="over: expected one of 'pixels', 'descriptors', got 'channels'"):
        npattn.DoubleAttention(8, 2, over="channels")
    with pytest.raises(ValueError, match="reduction: expected"):
        npattn.DoubleAttention(2, features=3)
    params = params_of(8)
    with pytest.raises(ValueError, match=r"w_o: expected shape \(C=8, M=2\), got \(2, 8\)"):
        a2.forward(x, params._replace(w_o=params.w_o.T))
    with pytest.raises(ValueError, match=r"b_b: expected shape \(K=4\), got \(8,\)"):
        a2.forward(x, params._replace(b_b=random(8)))


# Wrong backwards


def inputs(rng):
    shapes = ((3, 4), (3,), (2, 4), (2, 4), (2,), (4, 3), (4,))
    return image(rng), a2.Params(*(rng.standard_normal(shape) for shape in shapes))


def parts(dy, cache):
    """dy as rows, and what comes back to G."""
    rows = dy.reshape(*dy.shape[:2], -1).mT
    dz, _ = linear.backward(rows, cache.out)
    return rows, dz, cache.nu @ dz


def ways(dy, cache):
    """What comes back to t on its four ways."""
    rows, dz, dG = parts(dy, cache)
    return {
        "self": rows,
        "v": linear.backward(softmax.backward(cache.G @ dz.mT, cache.among).mT, cache.distribute)[0],
        "b": linear.backward(softmax.backward(dG @ cache.a.mT, cache.shares).mT, cache.gather)[0],
        "a": linear.backward(cache.beta.mT @ dG, cache.features)[0],
    }


def image_of(dt, dy):
    return dt.mT.reshape(dy.shape)


@mistake(a2.forward, inputs, "x", "dy itself")
def a2_direct_path_alone(dy, cache):
    return dy.copy(), a2.backward(dy, cache)[1]


@mistake(a2.forward, inputs, "x")
def a2_shares_taken_for_constants(dy, cache):
    there = ways(dy, cache)
    return image_of(there["self"] + there["a"], dy), a2.backward(dy, cache)[1]


@mistake(a2.forward, inputs, "x")
def a2_gathering_forgotten(dy, cache):
    there = ways(dy, cache)
    return image_of(there["self"] + there["a"] + there["v"], dy), a2.backward(dy, cache)[1]


@mistake(a2.forward, inputs, "params.w_b")
def a2_softmax_undone_along_the_other_axis(dy, cache):
    _, _, dG = parts(dy, cache)
    dx, grads = a2.backward(dy, cache)
    along = softmax.backward(dG @ cache.a.mT, cache.shares._replace(axis=1)).mT
    return dx, grads._replace(w_b=linear.backward(along, cache.gather)[1].w)


@mistake(a2.forward, inputs, "params.w_a")
def a2_gathered_and_distributed_by_the_same_maps(dy, cache):
    dx, grads = a2.backward(dy, cache)
    _, dz, _ = parts(dy, cache)
    da = cache.beta.mT @ (cache.beta @ dz)  # for β and ν have one shape
    return dx, grads._replace(w_a=linear.backward(da, cache.features)[1].w)


@mistake(a2.forward, inputs, "params.b_o", "constant factor")
def a2_bias_averaged_over_the_pixels(dy, cache):
    dx, grads = a2.backward(dy, cache)
    return dx, grads._replace(b_o=np.sum(np.mean(dy, axis=(2, 3)), axis=0))


@mistake(a2.forward, inputs, "params.w_v", "the outer product in a softmax's Jacobian")
def a2_softmax_among_the_maps_without_its_outer_product(dy, cache):
    _, dz, _ = parts(dy, cache)
    dx, grads = a2.backward(dy, cache)
    dneeds = ((cache.G @ dz.mT) * cache.among.y).mT
    back, (dw, db) = linear.backward(dneeds, cache.distribute)
    there = ways(dy, cache)
    return dx + image_of(back - there["v"], dy), grads._replace(w_v=dw, b_v=db)
