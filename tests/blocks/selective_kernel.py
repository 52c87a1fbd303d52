"""Selective kernel, docs/blocks/selective-kernel.md."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn import dialects
from npattn.attention import selective_kernel
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, linear, relu, softmax
from tests.support.by_index import filled, gates_of, normal, normal_back, random, same, same_at
from tests.support.by_index_conv import convolved, convolved_back
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = (
    {"out_channels": 6, "kernel_sizes": (3, 5), "dilations": (2, 1), "stride": 2, "hidden": 3},
    {"split_input": True, "dilations": (1, 1)},
    {"groups": 2, "kernel_sizes": (5, 1)},
)


def reference(x, w, kernel_sizes=(3, 3), dilations=(1, 2), stride=1, groups=1, split_input=False, **of_shapes):
    """The authors' three steps, split, fuse and select, by torch's functions."""
    import torch
    import torch.nn.functional as F

    def norm(z, name):
        return F.batch_norm(z, None, None, w[f"{name}.weight"], w[f"{name}.bias"], training=True)

    paths = []
    parts = x.chunk(2, 1) if split_input else (x, x)
    for j, (part, k, d) in enumerate(zip(parts, kernel_sizes, dilations, strict=True)):
        z = F.conv2d(part, w[f"paths.{j}.conv.weight"], None, stride, d * (k // 2), d, groups)
        paths.append(norm(z, f"paths.{j}.bn").relu())
    s = sum(paths).mean((2, 3), keepdim=True)
    h = norm(F.conv2d(s, w["attn.fc_reduce.weight"]), "attn.bn").relu()
    a = F.conv2d(h, w["attn.fc_select.weight"])
    g = torch.stack(a.chunk(2, dim=1)).softmax(dim=0)
    return paths[0] * g[0] + paths[1] * g[1]


def norm_of(C, seed):
    return batch_norm.Params(random(C, seed=seed), random(C, seed=seed + 1))


def params_of(D=4, M=3, R=2, near=3, far=3):
    return selective_kernel.Params(
        random(M, D, near, near, seed=1), norm_of(M, 2), random(M, D, far, far, seed=4), norm_of(M, 5),
        random(R, M, seed=7), norm_of(R, 8), random(2 * M, R, seed=10),
    )  # fmt: skip


def running_of(M=3, R=2):
    def statistics(C, seed):
        return batch_norm.Running(random(C, seed=seed), 0.2 + random(C, seed=seed + 1) ** 2)

    return selective_kernel.Running(statistics(M, 31), statistics(M, 33), statistics(R, 35))


def derivation():
    compared(params_of(), None)
    compared(params_of(far=1), running_of())
    compared(params_of(D=1, M=4), None, stride=2, groups=2, split=True)
    compared(params_of(D=2, M=4), running_of(M=4), stride=2, dilations=(1, 1), groups=2)


def normed(z, params, running):
    """A batch norm of rows (channel, all of its numbers): what comes out, and what leads back."""
    gamma, beta = params
    if running is None:
        z_hat, rho = normal(z, 1e-5)
    else:
        rho = 1 / np.sqrt(running.var + 1e-5)
        z_hat = (z - running.mean[:, None]) * rho[:, None]

    def back(dn):
        dz_hat = dn * gamma[:, None]
        dz = normal_back(dz_hat, z_hat, rho) if running is None else dz_hat * rho[:, None]
        return dz, (dn * z_hat).sum(axis=1), dn.sum(axis=1)

    return gamma[:, None] * z_hat + beta[:, None], back


def compared(params, running, stride=1, dilations=(1, 2), groups=1, split=False):
    x = random(3, 4, 4, 5, seed=20)
    kernels, norms = (params.w_near, params.w_far), (params.norm_near, params.norm_far, params.norm)
    w1, w2 = params.w1, params.w2
    R, M = w1.shape
    (y, cache), forward = watched(selective_kernel.forward, x, params, running, stride, dilations, groups, split)
    dy = random(*y.shape, seed=22)
    (dx, grads), backward = watched(selective_kernel.backward, dy, cache)
    N, _, H, W = y.shape
    pixels = list(product(range(H), range(W)))
    forth, back = list(walked(forward)), list(walked(backward))

    def rows(a):
        return np.moveaxis(a, 1, 0).reshape(a.shape[1], -1)

    def maps(a):
        return np.moveaxis(a.reshape(M, N, H, W), 0, 1)

    parts = (x[:, :2], x[:, 2:]) if split else (x, x)
    how, v, ways = [], [], []
    for j, (w, d) in enumerate(zip(kernels, dilations, strict=True)):
        how.append({"stride": stride, "padding": d * (w.shape[-1] // 2), "dilation": d, "groups": groups})
        z = convolved(parts[j], w, **how[j])
        n, way = normed(rows(z), norms[j], None if running is None else running[j])
        v.append(np.maximum(maps(n), 0))
        ways.append(way)
    v = np.stack(v, axis=1)
    u = filled((N, M, H, W), lambda n, m, h, i: v[n, 0, m, h, i] + v[n, 1, m, h, i])
    s = filled((N, M), lambda n, m: sum(u[n, m, h, i] for h, i in pixels) / len(pixels))
    q = filled((N, R), lambda n, r: sum(w1[r, m] * s[n, m] for m in range(M)))
    n_rows, way = normed(q.T, norms[2], None if running is None else running.norm)
    h_ = np.maximum(n_rows.T, 0)
    a = filled((N, 2 * M), lambda n, m: sum(w2[m, r] * h_[n, r] for r in range(R)))
    e = np.exp(a.reshape(N, 2, M))
    g = filled((N, 2, M), lambda n, j, m: e[n, j, m] / (e[n, 0, m] + e[n, 1, m]))
    same_at(
        forth, v=("SK.4", v[:, 0]), u=("SK.5", u), s=("SK.6", s), q=("SK.7", q), normed=("SK.8", n_rows.T),
        h=("SK.9", h_), a=("SK.10", a), g=("SK.11", g),
    )  # fmt: skip
    same(y, filled(y.shape, lambda n, m, h, i: sum(v[n, j, m, h, i] * g[n, j, m] for j in (0, 1))), "SK.12")

    dg = filled(g.shape, lambda n, j, m: sum(dy[n, m, h, i] * v[n, j, m, h, i] for h, i in pixels))
    da = filled(g.shape, lambda n, j, m: g[n, 0, m] * g[n, 1, m] * (dg[n, j, m] - dg[n, 1 - j, m])).reshape(N, -1)
    dh = filled((N, R), lambda n, r: sum(w2[m, r] * da[n, m] for m in range(2 * M)))
    dn = dh * (n_rows.T > 0)
    dq, dgamma, dbeta = way(dn.T)
    dq = dq.T
    ds = filled((N, M), lambda n, m: sum(w1[r, m] * dq[n, r] for r in range(R)))
    du = filled(u.shape, lambda n, m, h, i: ds[n, m] / len(pixels))
    dv = filled(v.shape, lambda n, j, m, h, i: dy[n, m, h, i] * g[n, j, m] + du[n, m, h, i])
    same_at(
        back, dg=("SK.12", dg), da=("SK.11", da), dh=("SK.10", dh), dq=("SK.8", dq), ds=("SK.7", ds), du=("SK.6", du),
    )  # fmt: skip
    found = []
    for j, (dw_j, dnorm_j) in enumerate(((grads.w_near, grads.norm_near), (grads.w_far, grads.norm_far))):
        dz, of_gamma, of_beta = ways[j](rows(dv[:, j] * (v[:, j] > 0)))
        dx_j, dw = convolved_back(maps(dz), parts[j], kernels[j], **how[j])
        found.append(dx_j)
        same(dw_j, dw, f"SK.2, dw of path {j}")
        same(dnorm_j.gamma, of_gamma, f"SK.3, dgamma of path {j}")
        same(dnorm_j.beta, of_beta, f"SK.3, dbeta of path {j}")
    same(dx, np.concatenate(found, axis=1) if split else found[0] + found[1], "SK.1")
    same(grads.w2, filled(w2.shape, lambda m, r: sum(da[n, m] * h_[n, r] for n in range(N))), "SK.10, dw2")
    same(grads.w1, filled(w1.shape, lambda r, m: sum(dq[n, r] * s[n, m] for n in range(N))), "SK.7, dw1")
    same(grads.norm.gamma, dgamma, "SK.8, dgamma")
    same(grads.norm.beta, dbeta, "SK.8, dbeta")


def claim_a_dilated_kernel_is_a_larger_one_with_holes():
    x, params = random(3, 4, 6, 7), params_of()
    large = np.zeros((3, 4, 5, 5))
    large[:, :, ::2, ::2] = params.w_far
    wide = params._replace(w_far=large)
    same(selective_kernel.forward(x, wide, dilations=(1, 1))[0], selective_kernel.forward(x, params)[0], "y")


def claim_split_input_is_half_of_each_kernel_at_zero():
    x, params = random(3, 4, 4, 5), params_of(D=2)
    near, far = np.zeros((3, 4, 3, 3)), np.zeros((3, 4, 3, 3))
    near[:, :2], far[:, 2:] = params.w_near, params.w_far
    whole = params._replace(w_near=near, w_far=far)
    y, cache = selective_kernel.forward(x, params, split=True)
    there, cache_there = selective_kernel.forward(x, whole)
    same(y, there, "y")
    dy = random(*y.shape, seed=1)
    same(selective_kernel.backward(dy, cache)[0], selective_kernel.backward(dy, cache_there)[0], "dx")


def claim_the_shares_add_up():
    y, cache = selective_kernel.forward(random(3, 4, 4, 5), params_of())
    same(cache.g.sum(axis=1), np.ones((3, 3)), "SK.11")
    _, grads = selective_kernel.backward(random(*y.shape, seed=1), cache)
    assert np.abs(grads.w2).max() > 0.1
    np.testing.assert_allclose(grads.w2[:3], -grads.w2[3:], rtol=1e-12, atol=1e-14)


def claim_with_stride_and_other_channels():
    """The shape changes, and layer, state, check and a chain of layers take it as it is."""
    options = {"dtype": "float64", "rng": 0}
    layer = npattn.SelectiveKernel(4, 6, stride=2, split_input=True, groups=2, reduction=2, **options)
    x = random(3, 4, 5, 7)
    assert layer(x).shape == (3, 6, 3, 4)
    assert layer.backward(random(3, 6, 3, 4)).shape == x.shape
    assert layer.attention["paths"].shape == (3, 2, 6)
    with pytest.raises(ValueError, match=r"dy: expected shape \(3, 6, 3, 4\), that of the output y, got"):
        layer.backward(x)
    npattn.gradcheck(layer, x[:, :, :3, :3])
    npattn.gradcheck(npattn.Sequential(layer, npattn.SELayer(6, 2, **options)).eval(), x[:, :, :3, :3])


def claim_one_image_has_no_batch():
    layer = npattn.SelectiveKernel(4, reduction=2)
    x = random(1, 4, 4, 5).astype(np.float32)
    with pytest.raises(ValueError, match="x: expected at least 2 images to normalise over in training, got 1"):
        layer(x)
    assert layer.eval()(x).shape == x.shape


def claim_what_the_layer_says():
    layer = npattn.SelectiveKernel(8, reduction=2)
    assert layer.count() == 2 * (8 * 8 * 9 + 16) + 8 * 4 + 8 + 16 * 4
    assert gates_of(layer, random(2, 8, 4, 5)) == {"paths": (2, 2, 8)}
    assert layer.num_batches_tracked == 1
    for wrong, says in (
        ({"channel": 3, "groups": 2}, "channel: expected a multiple of groups = 2, got 3"),
        ({"channel": 3, "split_input": True}, "channel: expected a multiple of paths · groups = 2, got 3"),
        ({"channel": 4, "out_channels": 3, "groups": 2}, "out_channels: expected a multiple of groups = 2, got 3"),
        ({"channel": 4}, "reduction: expected at most out_channels = 4, got 16"),
        ({"channel": 4, "hidden": 0}, "hidden: expected a whole number of at least 1, got 0"),
        ({"channel": 4, "kernel_sizes": (3, 4)}, "kernel_sizes: expected an odd kernel size"),
        ({"channel": 4, "kernel_sizes": (3, 5, 7)}, "kernel_sizes: expected 2 whole numbers"),
        ({"channel": 4, "reduction": 2, "dilations": (0, 1)}, "dilations: expected a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            npattn.SelectiveKernel(**wrong)


def claim_the_pair_says_what_does_not_fit():
    x, good = random(3, 4, 4, 5), params_of()
    for wrong, says in (
        ({"w_near": random(3, 4, 2, 2)}, r"w_near \(its last axis\): expected an odd kernel size"),
        ({"w_far": random(3, 4, 3, 2)}, r"w_far \(its last axis\): expected an odd kernel size"),
        ({"w_far": random(2, 4, 3, 3)}, r"w_far: expected shape \(M=3, D=4, k, k\), got \(2, 4, 3, 3\)"),
        ({"w_far": random(3, 3, 3, 3)}, r"w_far: expected shape \(M=3, D=4, k, k\), got \(3, 3, 3, 3\)"),
        ({"norm_near": norm_of(2, 1)}, r"norm_near.gamma: expected shape \(M=3\), got \(2,\)"),
        ({"norm_far": good.norm_far._replace(beta=random(4))}, r"norm_far.beta: expected shape \(M=3\), got \(4,\)"),
        ({"w1": random(2, 4)}, r"w1: expected shape \(R, M=3\), got \(2, 4\)"),
        ({"norm": norm_of(3, 1)}, r"norm.gamma: expected shape \(R=2\), got \(3,\)"),
        ({"w2": random(3, 2)}, r"w2: expected shape \(2M=6, R=2\), got \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=says):
            selective_kernel.forward(x, good._replace(**wrong))
    for split, C in ((False, 4), (True, 8)):
        with pytest.raises(ValueError, match=rf"x: expected shape \(N, C={C}, H, W\), got \(3, 3, 4, 5\)"):
            selective_kernel.forward(x[:, :3], good, split=split)


def claim_what_timms_arguments_mean():
    """A kernel size is how far it reaches, as long as 3×3 are kept; a width that is none is a sixteenth, rounded."""
    for args, kernels, dilations, groups, hidden in (
        ({}, (3, 3), (1, 2), 1, 8),
        ({"kernel_size": [5, 7], "groups": 2}, (3, 3), (2, 3), 2, 8),
        ({"kernel_size": 7, "keep_3x3": False, "dilation": 2}, (7, 7), (2, 2), 1, 8),
        ({"dilation": 3, "rd_channels": 5}, (3, 3), (3, 6), 1, 5),
        ({"out_channels": 2, "groups": 8, "rd_divisor": 1, "rd_ratio": 0.75}, (3, 3), (1, 2), 2, 2),
        ({"out_channels": 200}, (3, 3), (1, 2), 1, 16),
    ):
        layer = dialects.build("timm", "SelectiveKernel", in_channels=16, **args).layer
        assert (layer.sizes["k"], layer.sizes["l"]) == kernels
        assert layer.settings == {"dilations": dilations, "stride": 1, "groups": groups, "split": True}
        assert layer.sizes["R"] == hidden
    for args, says in (
        ({"kernel_size": [3, 5, 7]}, "kernel_size: expected two of them, as there are two paths here"),
        ({"kernel_size": 4}, "kernel_size: expected odd ones of at least 3, which is asserted there, got 4"),
        ({"kernel_size": 1}, "kernel_size: expected odd ones of at least 3, which is asserted there, got 1"),
        ({"stride": 3}, "stride: expected 1 or 2, got 3"),
        ({"act_layer": "silu"}, "act_layer: expected 'relu'"),
        ({"norm_layer": None}, "norm_layer: expected 'batchnorm2d'"),
        ({"aa_layer": "blur"}, "aa_layer: expected None"),
        ({"drop_layer": "block"}, "drop_layer: expected None"),
        ({"rd_ratio": -1}, "rd_ratio: expected a finite number from 0"),
    ):
        with pytest.raises(ValueError, match=says):
            dialects.build("timm", "SelectiveKernel", in_channels=16, **args)
    state = dialects.dump(dialects.build("timm", "SelectiveKernel", in_channels=16))
    state["attn.fc_select.weight"] = np.zeros((48, 8, 1, 1), np.float32)
    with pytest.raises(dialects.UnknownError, match=r"expected 2 · 16 numbers from fc_select"):
        dialects.detect(state)


# Wrong backwards


def inputs(rng, C=2):
    def norm(C):
        return batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))

    paths = (kernel for _ in range(2) for kernel in (rng.standard_normal((3, 2, 3, 3)), norm(3)))
    ends = rng.standard_normal((2, 3)), norm(2), rng.standard_normal((6, 2))
    return image(rng, (4, C, 3, 4)), selective_kernel.Params(*paths, *ends)


def inputs_split(rng):
    return inputs(rng, C=4)


def in_eval(x, params):
    return selective_kernel.forward(x, params, running_of())


def in_halves(x, params):
    return selective_kernel.forward(x, params, split=True)


def to_gates(dy, cache):
    """dg, and what the paths get from the product alone."""
    return np.sum(dy[:, None] * cache.v, axis=(3, 4)), dy[:, None] * cache.g[:, :, :, None, None]


def from_gates(da, dv_direct, cache, share=1):
    """All of the backward below SK.11, but the meeting of the two paths."""
    N, J, M, H, W = cache.v.shape
    dh, (dw2, _) = linear.backward(da.reshape(N, J * M), cache.fc2)
    dn = relu.backward(dh, cache.hidden)
    dq, dnorm = batch_norm.backward(dn[:, :, None, None], cache.norm)
    ds, (dw1, _) = linear.backward(dq[:, :, 0, 0], cache.fc1)
    dv = dv_direct + share * ds[:, None, :, None, None] / (H * W)
    dx_near, *near = selective_kernel.path_backward(dv[:, 0].copy(), cache.near)
    dx_far, *far = selective_kernel.path_backward(dv[:, 1].copy(), cache.far)
    return dx_near, dx_far, selective_kernel.Params(*near, *far, dw1, dnorm, dw2)


@mistake(selective_kernel.forward, inputs, "x")
def sk_gates_taken_for_constants_on_the_way_to_x(dy, cache):
    dg, dv_direct = to_gates(dy, cache)
    near, far, grads = from_gates(softmax.backward(dg, cache.gate), dv_direct, cache, share=0)
    return near + far, grads


@mistake(selective_kernel.forward, inputs, "params.w2", "the outer product in a softmax's Jacobian")
def sk_softmax_undone_as_two_sigmoids(dy, cache):
    dg, dv_direct = to_gates(dy, cache)
    near, far, grads = from_gates(dg * cache.g * (1 - cache.g), dv_direct, cache)
    return near + far, grads


@mistake(selective_kernel.forward, inputs, "x")
def sk_one_path_forgotten(dy, cache):
    dg, dv_direct = to_gates(dy, cache)
    near, _, grads = from_gates(softmax.backward(dg, cache.gate), dv_direct, cache)
    return near, grads


@mistake(in_halves, inputs_split, "x", "another order")
def sk_halves_swapped(dy, cache):
    dx, grads = selective_kernel.backward(dy, cache)
    return np.concatenate([dx[:, 2:], dx[:, :2]], axis=1), grads


@mistake(selective_kernel.forward, inputs, "params.w_far", "flipped along its last two axes")
def sk_kernel_gradient_turned_round(dy, cache):
    """That of a convolution that flips its kernel."""
    dx, grads = selective_kernel.backward(dy, cache)
    return dx, grads._replace(w_far=grads.w_far[:, :, ::-1, ::-1].copy())


@mistake(selective_kernel.forward, inputs, "params.w1")
def sk_norm_of_the_gate_in_training_undone_as_in_eval(dy, cache):
    return selective_kernel.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))


@mistake(in_eval, inputs, "x")
def sk_norms_of_the_paths_in_eval_undone_as_in_training(dy, cache):
    moved = {name: getattr(cache, name)._replace(norm=getattr(cache, name).norm._replace(of_batch=True))
             for name in ("near", "far")}  # fmt: skip
    return selective_kernel.backward(dy, cache._replace(**moved))


@mistake(selective_kernel.forward, inputs, "x")
def sk_sum_of_paths_undone_as_a_mean(dy, cache):
    dg, dv_direct = to_gates(dy, cache)
    near, far, grads = from_gates(softmax.backward(dg, cache.gate), dv_direct, cache, share=0.5)
    return near + far, grads


@mistake(selective_kernel.forward, inputs, "params.w2", "the outer product in a softmax's Jacobian")
def sk_softmax_without_its_outer_product(dy, cache):
    dg, dv_direct = to_gates(dy, cache)
    near, far, grads = from_gates(dg * cache.g, dv_direct, cache)
    return near + far, grads
