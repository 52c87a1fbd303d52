"""Gather–excite, docs/blocks/gather-excite.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import gather_excite as ge
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, resize, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, normal, normal_back, random, same, same_at
from tests.support.mistakes import image, mistake

MORE = (
    {"hidden": 3, "maximum": True},
    {"extent": 3, "maximum": True},
    {"extent": 2, "hidden": 2},
    {"gather": "conv", "hidden": 2},
)


def reference(x, w, extent=0, gather="mean", maximum=False, hidden=None, height=None, width=None, padding=0):
    """As timm has it, which resizes before the sigmoid."""
    import torch.nn.functional as F

    if gather == "conv":
        moves = {"stride": 2, "padding": 1} if extent else {"padding": padding}
        s = F.conv2d(x, w["gather.conv1.weight"], groups=x.shape[1], **moves)
        s = F.batch_norm(s, None, None, w["gather.norm1.weight"], w["gather.norm1.bias"], training=True)
    elif extent:
        around = (2 * extent - 1, extent, extent - 1)
        s = F.avg_pool2d(x, *around, count_include_pad=False)
        s = (s + F.max_pool2d(x, *around)) / 2 if maximum else s
    else:
        s = x.mean(dim=(2, 3), keepdim=True)
        s = (s + x.amax(dim=(2, 3), keepdim=True)) / 2 if maximum else s
    if hidden:
        s = F.conv2d(s, w["mlp.fc1.weight"], w["mlp.fc1.bias"]).relu()
        s = F.conv2d(s, w["mlp.fc2.weight"], w["mlp.fc2.bias"])
    return x * F.interpolate(s, size=x.shape[2:]).sigmoid()


def norm_of(C):
    return batch_norm.Params(random(C, seed=5), random(C, seed=6))


def running_of(C):
    return ge.Running(batch_norm.Running(random(C, seed=7), np.random.default_rng(8).uniform(0.5, 2, C)))


def params_of(C, conv=None, R=None):
    w = {} if conv is None else {"w": random(C, *conv, seed=4), "norm": norm_of(C)}
    shapes = {} if R is None else {"w1": (R, C), "b1": (R,), "w2": (C, R), "b2": (C,)}
    hidden = {name: random(*shape, seed=9 + i) for i, (name, shape) in enumerate(shapes.items())}
    return ge.Params(**w, mlp=ge.Mlp(**hidden) if hidden else None)


def derivation():
    for extent in (0, 2, 3):
        for R in (None, 2):
            compared(extent, params_of(2, R=R))
    for extent, kernel in ((0, (5, 4)), (2, (3, 3))):
        for running in (None, running_of(2)):
            compared(extent, params_of(2, kernel), running)
            compared(extent, params_of(2, kernel, 3), running)


def seen(extent, size, kernel):
    """For each place of what is gathered the pixels (row, column) that it sees, and at which place of the kernel."""
    if extent == 0:
        return {(0, 0): [(e, f, e, f) for e in range(size[0]) for f in range(size[1])]}
    k, q = (2 * extent - 1, extent - 1) if kernel is None else (3, 1)
    places = [(h, v) for h in range((size[0] - 1) // extent + 1) for v in range((size[1] - 1) // extent + 1)]
    return {
        (h, v): [
            (extent * h + i - q, extent * v + j - q, i, j)
            for i in range(k)
            for j in range(k)
            if 0 <= extent * h + i - q < size[0] and 0 <= extent * v + j - q < size[1]
        ]
        for h, v in places
    }


def compared(extent, params, running=None):
    x = random(3, 2, 5, 4, seed=20)
    N, C, H, W = x.shape
    w, of_norm, mlp = params
    (y, cache), forward = watched(ge.forward, x, params, running, extent)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(ge.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))

    sees = seen(extent, (H, W), w)
    places = list(sees)
    P = len(places)
    A, B = (n + 1 for n in places[-1])

    def weight(c, at, i, j):
        return 1 / len(sees[at]) if w is None else w[c, i, j]

    def gathered(n, c, p):
        return sum(weight(c, places[p], i, j) * x[n, c, e, f] for e, f, i, j in sees[places[p]])

    s = filled((N, C, P), gathered)
    flat = np.moveaxis(s, 1, 0).reshape(C, -1)  # a channel is a row
    if w is None:
        normed = s
    else:
        if running is None:
            s_hat, rho = normal(flat, 1e-5)
        else:
            rho = 1 / np.sqrt(running.norm.var + 1e-5)
            s_hat = filled(flat.shape, lambda c, k: (flat[c, k] - running.norm.mean[c]) * rho[c])
        normed = filled((N, C, P), lambda n, c, p: of_norm.gamma[c] * s_hat[c, n * P + p] + of_norm.beta[c])
    a = normed
    if mlp is not None:
        w1, b1, w2, b2 = mlp
        R = len(w1)
        z = filled((N, R, P), lambda n, r, p: sum(w1[r, c] * normed[n, c, p] for c in range(C)) + b1[r])
        h = np.maximum(z, 0)
        a = filled((N, C, P), lambda n, c, p: sum(w2[c, r] * h[n, r, p] for r in range(R)) + b2[c])
    g = by_index.sigmoid(a)

    def place_of(e, f):
        return places.index((e * A // H, f * B // W))

    same_at(there, n=("GE.2", normed.reshape(N, C, A, B)), g=("GE.4", g.reshape(N, C, A, B)))
    same(y, filled(x.shape, lambda n, c, e, f: x[n, c, e, f] * g[n, c, place_of(e, f)]), "GE.6")

    dg = np.zeros((N, C, P))
    for n, c, e, f in np.ndindex(x.shape):
        dg[n, c, place_of(e, f)] += dy[n, c, e, f] * x[n, c, e, f]
    da = dg * g * (1 - g)
    dn = da
    if mlp is not None:
        dz = filled((N, R, P), lambda n, r, p: sum(w2[c, r] * da[n, c, p] for c in range(C)) * (z[n, r, p] > 0))
        dn = filled((N, C, P), lambda n, c, p: sum(w1[r, c] * dz[n, r, p] for r in range(R)))
        same(grads.mlp.w1, filled((R, C), lambda r, c: np.sum(dz[:, r] * normed[:, c])), "dw1")
        same(grads.mlp.b1, filled((R,), lambda r: np.sum(dz[:, r])), "db1")
        same(grads.mlp.w2, filled((C, R), lambda c, r: np.sum(da[:, c] * h[:, r])), "dw2")
        same(grads.mlp.b2, filled((C,), lambda c: np.sum(da[:, c])), "db2")
    ds = dn
    if w is not None:
        dflat = np.moveaxis(dn, 1, 0).reshape(C, -1)
        same(grads.norm.gamma, filled((C,), lambda c: np.sum(dflat[c] * s_hat[c])), "dgamma")
        same(grads.norm.beta, filled((C,), lambda c: np.sum(dflat[c])), "dbeta")
        dhat = filled(dflat.shape, lambda c, k: dflat[c, k] * of_norm.gamma[c])
        dflat = normal_back(dhat, s_hat, rho) if running is None else dhat * rho[:, None]
        ds = np.moveaxis(dflat.reshape(C, N, P), 0, 1)
        dw = np.zeros(w.shape)
        for n, c, p in np.ndindex(ds.shape):
            for e, f, i, j in sees[places[p]]:
                dw[c, i, j] += ds[n, c, p] * x[n, c, e, f]
        same(grads.w, dw, "dw")
    same_at(back, dg=("GE.5", dg.reshape(N, C, A, B)), da=("GE.4", da.reshape(N, C, A, B)))
    meet = filled(x.shape, lambda n, c, e, f: dy[n, c, e, f] * g[n, c, place_of(e, f)])
    for n, c, p in np.ndindex(ds.shape):
        for e, f, i, j in sees[places[p]]:
            meet[n, c, e, f] += ds[n, c, p] * weight(c, places[p], i, j)
    same(dx, meet, "the two ways meet")


def claim_the_whole_map_with_a_hidden_layer_is_se():
    """What timm makes by default has no part that SE with biases has not."""
    x, params = random(2, 4, 3, 5), params_of(4, R=2)
    y, _ = ge.forward(x, params)
    se = npattn.variants.SELayer(4, hidden=2, bias=True, dtype="float64")
    se.load_state_dict(dict(zip(("fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"), params.mlp, strict=True)))
    same(y, se(x), "SE")


def claim_where_the_gate_is_resized_does_not_matter():
    """The sigmoid of copies is copies of the sigmoid: the paper has it behind the resizing."""
    a = random(2, 3, 2, 3)
    first = resize.forward(sigmoid.forward(a)[0], (5, 7))[0]
    np.testing.assert_array_equal(first, sigmoid.forward(resize.forward(a, (5, 7))[0])[0])


def claim_without_parameters_channels_and_far_places_do_not_meet():
    """With extent 2 a pixel reaches the blocks of the windows that see it, and no other channel."""
    x = random(1, 2, 8, 8)
    _, cache = ge.forward(x, extent=2)
    dy = np.zeros_like(x)
    dy[0, 1, 0, 0] = 1
    dx, grads = ge.backward(dy, cache)
    assert np.argwhere(dx[0, 1]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert not dx[0, 0].any()
    assert set(grads) == {None}


def claim_one_number_an_image_needs_images():
    with pytest.raises(ValueError, match="x: expected at least 2 images to normalise over in training, got 1"):
        ge.forward(random(1, 2, 5, 4), params_of(2, (5, 4)))
    ge.forward(random(1, 2, 5, 4), params_of(2, (5, 4)), running_of(2))
    ge.forward(random(1, 2, 5, 4), params_of(2, (3, 3)), extent=2)


def claim_what_the_layer_says():
    layer = npattn.GatherExcite(8, 2, gather="conv", hidden=2)
    assert layer.count() == 9 * 8 + 2 * 8 + 2 * (2 * 8) + 2 + 8
    assert gates_of(layer, random(2, 8, 4, 5)) == {"pixel": (2, 8, 4, 5)}
    assert layer.num_batches_tracked == 1
    assert npattn.GatherExcite(8).count() == 0
    padded = npattn.GatherExcite(4, gather="conv", height=4, width=4, padding=1, dtype="float64")
    assert padded(random(2, 4, 6, 5)).shape == (2, 4, 6, 5)
    for arguments, message in (
        ({"extent": 4, "gather": "conv"}, 'extent: expected 0 or 2 with gather="conv", got 4'),
        ({"extent": 2, "padding": 1}, 'padding: expected 0 but with gather="conv" and extent=0, got 1'),
        ({"gather": "conv", "extent": 2, "maximum": True}, 'maximum: expected False with gather="conv"'),
        ({"gather": "max"}, "gather: expected one of 'mean', 'conv', got 'max'"),
        ({"extent": -1}, "extent: expected a whole number of at least 0, got -1"),
        ({"hidden": 0}, "hidden: expected a whole number of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            npattn.GatherExcite(8, **arguments)
    with pytest.raises(TypeError, match="norm: expected an array, got None: w and norm come together"):
        ge.forward(random(2, 2, 3, 3), params_of(2, (3, 3))._replace(norm=None))
    with pytest.raises(TypeError, match="height: expected a whole number, got None"):
        npattn.GatherExcite(8, gather="conv")
    with pytest.raises(ValueError, match=r"b2: expected shape \(C=2\), got \(3,\)"):
        ge.forward(random(2, 2, 3, 3), ge.Params(mlp=params_of(2, R=2).mlp._replace(b2=random(3))))


# Wrong backwards


def around(x):
    return ge.forward(x, extent=2)


def only_x(rng):
    return (image(rng),)


def convolved(x, params):
    return ge.forward(x, params, extent=2)


def with_kernel(rng):
    norm = batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))
    return image(rng), ge.Params(rng.standard_normal((4, 3, 3)), norm)


def with_hidden(rng):
    shapes = ((3, 4), (3,), (4, 3), (4,))
    return image(rng), ge.Params(mlp=ge.Mlp(*(rng.standard_normal(shape) for shape in shapes)))


@mistake(around, only_x, "x", "direct path")
def gather_excite_direct_path_alone(dy, cache):
    return dy * cache.r


@mistake(around, only_x, "x")
def gather_excite_gradient_of_the_first_copy_alone(dy, cache):
    """dg taken from one pixel of each block, in place of the sum over all that it was copied to."""
    dr = dy * cache.x
    first = np.zeros_like(dr)
    rows, columns = (np.unique(np.asarray(places), return_index=True)[1] for places in cache.resized[:2])
    first[:, :, rows[:, None], columns] = dr[:, :, rows[:, None], columns]
    da = sigmoid.backward(resize.backward(first, cache.resized), cache.gate)
    return dy * cache.r + ge.means_backward(da, cache.gathered)


@mistake(around, only_x, "x")
def gather_excite_windows_that_do_not_overlap(dy, cache):
    """Each pixel given to the one window whose block it is in."""
    da = sigmoid.backward(resize.backward(dy * cache.x, cache.resized), cache.gate)
    count = cache.gathered.caches[0].m
    return dy * cache.r + resize.forward(da / count, cache.x.shape[2:])[0]


@mistake(convolved, with_kernel, "x")
def gather_excite_norm_taken_for_constants(dy, cache):
    dx, _ = ge.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))
    return dx, ge.backward(dy, cache)[1]


@mistake(convolved, with_kernel, "params.w")
def gather_excite_kernel_gradient_before_the_norm(dy, cache):
    dx, grads = ge.backward(dy, cache)
    ones = cache.norm._replace(of_batch=False)
    return dx, grads._replace(w=ge.backward(dy, cache._replace(norm=ones))[1].w)


@mistake(ge.forward, with_hidden, "params.mlp.b1", "a constant factor of 0.5")
def gather_excite_bias_averaged_over_the_images(dy, cache):
    dx, grads = ge.backward(dy, cache)
    return dx, grads._replace(mlp=grads.mlp._replace(b1=grads.mlp.b1 / dy.shape[0]))
