"""Global context, docs/blocks/global-context.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import global_context as gc
from npattn.explain.watch import walked, watched
from npattn.ops import linear, relu, softmax
from tests.support import by_index
from tests.support.by_index import filled, gates_of, normal, normal_back, random, reached, same, same_at
from tests.support.mistakes import image, mistake

ROOTS = True
MORE = ({"bias": True}, {"attend": False, "hidden": 3}, {"fuse": "both", "eps": 0.5})


def reference(x, w, fuse="add", attend=True, bias=False, hidden=None, eps=1e-5):
    """As the authors' code has it: weights by a convolution, two MLPs of 1×1 convolutions, scale before add."""
    import torch.nn.functional as F

    def mlp(name):
        part = {key.partition(".")[2]: value for key, value in w.items() if key.startswith(f"{name}.")}
        z = F.conv2d(s, part["fc1.weight"], part["fc1.bias"])
        gamma, beta = part["norm.weight"][:, None, None], part["norm.bias"][:, None, None]
        normed = F.layer_norm(z, z.shape[1:], gamma, beta, eps)
        u = normed if z.shape[1] > 1 else gamma * (z - z) + beta  # of one number torch's is rounding times 1 / √ε
        return F.conv2d(u.relu(), part["fc2.weight"], part["fc2.bias"])

    N, C = x.shape[:2]
    if attend:
        shares = F.conv2d(x, w["conv.weight"], w.get("conv.bias")).flatten(2).softmax(2)
        s = (x.flatten(2) * shares).sum(2).reshape(N, C, 1, 1)
    else:
        s = F.adaptive_avg_pool2d(x, 1)
    scaled = x * mlp("scale").sigmoid() if fuse != "add" else x
    return scaled + mlp("add") if fuse != "scale" else scaled


def mlp_of(C, R, seed):
    shapes = ((R, C), (R,), (R,), (R,), (C, R), (C,))
    return gc.Mlp(*(random(*shape, seed=seed + i) for i, shape in enumerate(shapes)))


def params_of(C=3, R=3, seed=4):
    return gc.Params(random(C, seed=seed), random(1, seed=seed + 1), mlp_of(C, R, seed + 2), mlp_of(C, R, seed + 20))


def derivation():
    everything = params_of()
    for params in (
        everything,
        everything._replace(scale=None, b_a=None),
        everything._replace(add=None),
        everything._replace(w_a=None, b_a=None),
    ):
        compared(params)


def one_mlp(s, mlp, eps):
    """GCM.1 to GCM.4 for a context s (N, C), and a function from dt to ds and the gradients."""
    w1, b1, gamma, beta, w2, b2 = mlp
    (N, C), R = s.shape, w1.shape[0]
    z = filled((N, R), lambda n, r: sum(s[n, c] * w1[r, c] for c in range(C)) + b1[r])
    z_hat, rho = normal(z, eps)
    u = filled((N, R), lambda n, r: gamma[r] * z_hat[n, r] + beta[r])
    h = filled((N, R), lambda n, r: max(u[n, r], 0))
    assert 0 < np.count_nonzero(h) < h.size, "a unit passes and one does not"
    t = filled((N, C), lambda n, c: sum(h[n, r] * w2[c, r] for r in range(R)) + b2[c])

    def back(dt):
        dh = filled((N, R), lambda n, r: sum(dt[n, c] * w2[c, r] for c in range(C)))
        du = filled((N, R), lambda n, r: dh[n, r] if u[n, r] > 0 else 0)
        dz = normal_back(filled((N, R), lambda n, r: du[n, r] * gamma[r]), z_hat, rho)
        ds = filled((N, C), lambda n, c: sum(dz[n, r] * w1[r, c] for r in range(R)))
        return ds, gc.Mlp(
            filled((R, C), lambda r, c: sum(dz[n, r] * s[n, c] for n in range(N))),
            filled((R,), lambda r: sum(dz[n, r] for n in range(N))),
            filled((R,), lambda r: sum(du[n, r] * z_hat[n, r] for n in range(N))),
            filled((R,), lambda r: sum(du[n, r] for n in range(N))),
            filled((C, R), lambda c, r: sum(dt[n, c] * h[n, r] for n in range(N))),
            filled((C,), lambda c: sum(dt[n, c] for n in range(N))),
        )  # fmt: skip

    return t, back


def compared(params):
    x, eps = by_index.image(), 0.25
    N, C, H, W = x.shape
    P = H * W
    w_a, b_a, add, scale = params
    (y, cache), forward = watched(gc.forward, x, params, eps)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(gc.backward, dy, cache)
    xp, dyp = x.reshape(N, C, P), dy.reshape(N, C, P)

    alpha = np.full((N, P), 1 / P)
    if w_a is not None:
        b = 0 if b_a is None else b_a[0]
        e = filled((N, P), lambda n, p: np.exp(sum(w_a[c] * xp[n, c, p] for c in range(C)) + b))
        alpha = filled((N, P), lambda n, p: e[n, p] / sum(e[n, j] for j in range(P)))
    s = filled((N, C), lambda n, c: sum(alpha[n, p] * xp[n, c, p] for p in range(P)))
    same_at(list(walked(forward)), s=("GC.3", s), **({} if w_a is None else {"alpha": ("GC.2", alpha)}))
    same(cache.alpha, alpha, "shares")
    ds = np.zeros((N, C))
    g = np.ones((N, C))
    if scale is not None:
        t, back = one_mlp(s, scale, eps)
        g = by_index.sigmoid(t)
        dg = filled((N, C), lambda n, c: sum(dyp[n, c, p] * xp[n, c, p] for p in range(P)))
        back_ds, back_grads = back(dg * g * (1 - g))
        same_at(list(walked(forward)), g=("GC.5", g), t_scale=("GC.4", t))
        same_at(list(walked(backward)), dg=("GC.5", dg), ds_scale=("GC.4", back_ds))
        same_all(grads.scale, back_grads)
        ds = ds + back_ds
    wanted = filled(xp.shape, lambda n, c, p: xp[n, c, p] * g[n, c])
    dx_direct = filled(xp.shape, lambda n, c, p: dyp[n, c, p] * g[n, c])
    if add is not None:
        t, back = one_mlp(s, add, eps)
        wanted = filled(xp.shape, lambda n, c, p: wanted[n, c, p] + t[n, c])
        dt = filled((N, C), lambda n, c: sum(dyp[n, c, p] for p in range(P)))
        back_ds, back_grads = back(dt)
        same_at(list(walked(backward)), dt=("GC.5", dt), ds_add=("GC.4", back_ds))
        same_all(grads.add, back_grads)
        ds = ds + back_ds
    same(y.reshape(N, C, P), wanted, "GC.5")

    context = filled(xp.shape, lambda n, c, p: ds[n, c] * alpha[n, p])
    dalpha = filled((N, P), lambda n, p: sum(ds[n, c] * xp[n, c, p] for c in range(C)))
    same_at(list(walked(backward)), dalpha=("GC.3", dalpha))
    total = dx_direct + context
    if w_a is not None:
        da = filled((N, P), lambda n, p: alpha[n, p] * sum(ds[n, c] * (xp[n, c, p] - s[n, c]) for c in range(C)))
        same_at(list(walked(backward)), da=("GC.2", da))
        total = total + filled(xp.shape, lambda n, c, p: da[n, p] * w_a[c])
        dw_a = filled((C,), lambda c: sum(da[n, p] * xp[n, c, p] for n in range(N) for p in range(P)))
        same(grads.w_a, dw_a, "dw_a")
    assert (grads.w_a is None, grads.add is None, grads.scale is None) == (w_a is None, add is None, scale is None)
    assert (grads.b_a is None) == (b_a is None)
    same(dx.reshape(N, C, P), total, "the three ways meet")


def same_all(found, wanted):
    for name, one, other in zip(gc.Mlp._fields, found, wanted, strict=True):
        same(one, other, f"d{name}")


def claim_the_bias_has_no_effect():
    """A softmax does not see what all pixels have in common: b_a moves nothing, and its gradient is 0."""
    x, params = random(2, 3, 4, 5), params_of()
    y, cache = gc.forward(x, params)
    same(gc.forward(x, params._replace(b_a=params.b_a + 3))[0], y, "y")
    assert abs(gc.backward(random(*x.shape, seed=7), cache)[1].b_a[0]) < 1e-14


def claim_no_weight_is_the_mean():
    """w_a = 0 gives all pixels the same share: the context is the mean, as without w_a."""
    x, params = random(2, 3, 4, 5), params_of()
    y, _ = gc.forward(x, params._replace(w_a=0 * params.w_a))
    same(y, gc.forward(x, params._replace(w_a=None, b_a=None))[0], "y")


def claim_all_pixels_get_the_same():
    """What is added is one vector for the image: the differences between its pixels stay."""
    x, params = random(2, 3, 4, 5), params_of()._replace(scale=None)
    added = gc.forward(x, params)[0] - x
    same(added, np.broadcast_to(added[:, :, :1, :1], x.shape), "t")


def claim_it_does_not_matter_where_a_pixel_is():
    """Pixels in another order: the same y in that order."""
    x, params = random(2, 3, 4, 5), params_of()
    order = np.random.default_rng(3).permutation(20)
    turned = x.reshape(2, 3, 20)[:, :, order].reshape(x.shape)
    same(gc.forward(turned, params)[0].reshape(2, 3, 20), gc.forward(x, params)[0].reshape(2, 3, 20)[:, :, order], "y")


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    assert reached(gc.backward, gc.forward(x, params_of())[1], x.shape, (1, 2)).all()


def claim_it_begins_as_nothing():
    """The last FC of the sum is 0 at first: y is x, and its own gradients alone are not 0."""
    layer, x = npattn.GlobalContext(8, 2, dtype="float64", rng=0), random(2, 8, 4, 5)
    same(layer(x), x, "y")
    same(layer.backward(x), x, "dx")
    assert {key for key, gradient in layer.grads.items() if gradient.any()} == {"add.fc2.weight", "add.fc2.bias"}


def claim_what_the_layer_says():
    layer = npattn.GlobalContext(8, 2)
    assert layer.count() == 8 + 2 * 8 * 4 + 4 + 2 * 4 + 8
    x = random(2, 8, 4, 5)
    assert gates_of(layer, x) == {"shares": (2, 4, 5)}
    same(layer.attention["shares"].sum(axis=(1, 2)).astype(float).round(5), np.ones(2), "shares")
    gate = npattn.GlobalContext(8, hidden=3, attend=False, fuse="scale")
    assert gate.count() == 2 * 8 * 3 + 3 + 2 * 3 + 8
    assert gates_of(gate, x) == {"shares": (2, 4, 5), "channel": (2, 8, 1, 1)}
    with pytest.raises(ValueError, match="fuse: expected one of 'add', 'scale', 'both', got 'sum'"):
        npattn.GlobalContext(8, 2, fuse="sum")
    with pytest.raises(ValueError, match="eps: expected a finite number from 1e-30"):
        npattn.GlobalContext(8, 2, eps=0)
    with pytest.raises(ValueError, match="params: expected an MLP to add by, one to scale by, or both"):
        gc.forward(x, gc.Params(random(8)))
    params = params_of(8)
    with pytest.raises(ValueError, match=r"scale.w2: expected shape \(C=8, R=3\), got \(3, 8\)"):
        gc.forward(x, params._replace(scale=params.scale._replace(w2=params.scale.w2.T)))
    with pytest.raises(ValueError, match=r"w_a: expected shape \(C=8\), got \(3,\)"):
        gc.forward(x, params._replace(w_a=random(3)))
    with pytest.raises(ValueError, match=r"b_a: expected shape \(1\), got \(8,\)"):
        gc.forward(x, params._replace(b_a=random(8)))


# Wrong backwards


def inputs(rng):
    shapes = ((3, 4), (3,), (3,), (3,), (4, 3), (4,))
    return image(rng), gc.Params(rng.standard_normal(4), None, gc.Mlp(*(rng.standard_normal(size) for size in shapes)))


def to_context(dy, cache):
    return gc.mlp_backward(np.sum(dy, axis=(2, 3)), cache.added)[0]


def gathered(dy, cache):
    return to_context(dy, cache)[:, :, None, None] * cache.alpha.reshape(dy.shape[0], 1, *dy.shape[2:])


def by_shares(da, cache):
    """What comes back to x from the numbers before the softmax."""
    return cache.attended.w_a[:, None, None] * da.reshape(len(da), 1, *cache.x.shape[2:])


def to_shares(dy, cache):
    return np.einsum("nc,nchv->nhv", to_context(dy, cache), cache.x).reshape(cache.alpha.shape)


@mistake(gc.forward, inputs, "x", "dy itself")
def gc_direct_path_alone(dy, cache):
    return dy.copy(), gc.backward(dy, cache)[1]


def as_a_gate(x, params):
    return gc.forward(x, params._replace(add=None, scale=params.add))


def swapped(answer):
    dx, grads = answer
    return dx, grads._replace(add=grads.scale, scale=None)


@mistake(as_a_gate, inputs, "x", "direct path")
def gc_direct_path_of_the_gate_alone(dy, cache):
    return dy * cache.g[:, :, None, None], swapped(gc.backward(dy, cache))[1]


@mistake(as_a_gate, inputs, "params.add.b2")
def gc_gate_undone_as_a_summand(dy, cache):
    dx, grads = swapped(gc.backward(dy, cache))
    return dx, grads._replace(add=gc.mlp_backward(np.sum(dy, axis=(2, 3)), cache.scaled.mlp)[1])


@mistake(gc.forward, inputs, "x")
def gc_shares_taken_for_constants(dy, cache):
    return dy + gathered(dy, cache), gc.backward(dy, cache)[1]


@mistake(gc.forward, inputs, "x")
def gc_softmax_undone_by_its_diagonal(dy, cache):
    da = to_shares(dy, cache) * cache.alpha * (1 - cache.alpha)
    return dy + gathered(dy, cache) + by_shares(da, cache), gc.backward(dy, cache)[1]


@mistake(gc.forward, inputs, "x")
def gc_context_shared_out_evenly(dy, cache):
    even = to_context(dy, cache)[:, :, None, None] / cache.alpha.shape[1]
    da = softmax.backward(to_shares(dy, cache), cache.attended.softmax)
    return dy + even + by_shares(da, cache), gc.backward(dy, cache)[1]


@mistake(gc.forward, inputs, "params.add.b2", "constant factor")
def gc_summand_averaged_over_the_pixels(dy, cache):
    dx, grads = gc.backward(dy, cache)
    return dx, grads._replace(add=gc.mlp_backward(np.mean(dy, axis=(2, 3)), cache.added)[1])


@mistake(gc.forward, inputs, "params.add.w1", "a normalisation's mean")
def gc_norm_undone_as_a_factor(dy, cache):
    fc1, norm, hidden, fc2 = cache.added
    du = relu.backward(linear.backward(np.sum(dy, axis=(2, 3)), fc2)[0], hidden)
    dx, grads = gc.backward(dy, cache)
    dw1, db1 = linear.backward(du * norm.gamma * norm.rho, fc1)[1]
    return dx, grads._replace(add=grads.add._replace(w1=dw1, b1=db1))


def with_bias(rng):
    x, params = inputs(rng)
    return x, params._replace(b_a=rng.standard_normal(1))


def undone_by(da, dy, cache):
    """The right backward, but for what comes back to the numbers before the softmax, which is da."""
    _, grads = gc.backward(dy, cache)
    dw_a = np.einsum("np,ncp->c", da, cache.x.reshape(*cache.x.shape[:2], -1))
    return dy + gathered(dy, cache) + by_shares(da, cache), grads._replace(w_a=dw_a, b_a=np.array([da.sum()]))


@mistake(gc.forward, with_bias, "params.b_a", "the outer product in a softmax's Jacobian")
def gc_softmax_without_its_outer_product(dy, cache):
    return undone_by(to_shares(dy, cache) * cache.alpha, dy, cache)


@mistake(gc.forward, with_bias, "params.b_a", "the outer product in a softmax's Jacobian")
def gc_outer_product_with_the_wrong_sign(dy, cache):
    dalpha = to_shares(dy, cache)
    return undone_by(cache.alpha * (dalpha + np.sum(dalpha * cache.alpha, axis=1, keepdims=True)), dy, cache)


@mistake(gc.forward, inputs, "params.w_a")
def gc_softmax_without_its_outer_product_nor_a_bias(dy, cache):
    """Nothing is there whose gradient must be 0."""
    dx, grads = undone_by(to_shares(dy, cache) * cache.alpha, dy, cache)
    return dx, grads._replace(b_a=None)
