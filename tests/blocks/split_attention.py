"""Split attention, docs/blocks/split-attention.md."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn import dialects, variants
from npattn.attention import split_attention
from npattn.explain.watch import walked, watched
from npattn.ops import general_conv, relu, sigmoid, softmax
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, same, same_at
from tests.support.by_index_conv import convolved, convolved_back
from tests.support.mistakes import image, mistake

MORE = (
    {"out_channels": 6, "kernel_size": 5, "stride": 2, "bias": True, "hidden": 4},
    {"groups": 2, "radix": 1, "hidden": 6, "dilation": 2, "padding": 1, "kernel_size": 1},
)


def reference(
    x, w, kernel_size=3, stride=1, padding=None, dilation=1, groups=1, radix=2, **of_shapes
):  # fmt: skip
    """As the authors' code has it, without its norms."""
    import torch
    import torch.nn.functional as F

    q = dilation * (kernel_size // 2) if padding is None else padding
    z = F.conv2d(x, w["conv.weight"], w.get("conv.bias"), stride, q, dilation, groups * radix).relu()
    branches = z.chunk(radix, dim=1)
    s = sum(branches).mean((2, 3), keepdim=True)
    h = F.conv2d(s, w["fc1.weight"], w["fc1.bias"], groups=groups).relu()
    a = F.conv2d(h, w["fc2.weight"], w["fc2.bias"], groups=groups)[:, :, 0, 0]
    if radix == 1:
        return z * a.sigmoid()[:, :, None, None]
    of_groups = [part.unflatten(1, (radix, -1)).softmax(dim=1) for part in a.chunk(groups, dim=1)]
    g = torch.cat(of_groups, dim=2)
    return sum(branch * g[:, j, :, None, None] for j, branch in enumerate(branches))


def params_of(C=8, M=4, J=2, G=2, R=6, k=3, bias=True):
    return split_attention.Params(
        random(J * M, C // (J * G), k, k, seed=1), random(R, M // G, seed=2), random(R, seed=3) + 0.5,
        random(J * M, R // G, seed=4), random(J * M, seed=5), random(J * M, seed=6) if bias else None,
    )  # fmt: skip


def derivation():
    compared(C=8, M=4, J=2, G=2, R=6, stride=2, dilation=1)
    compared(C=4, M=3, J=2, G=1, R=5, stride=1, dilation=2)
    compared(C=4, M=4, J=1, G=2, R=4, stride=1, dilation=1)


def compared(C, M, J, G, R, stride, dilation):
    x = random(2, C, 4, 5, seed=20)
    params = params_of(C, M, J, G, R)
    w, w1, b1, w2, b2, b = params
    how = {"stride": stride, "padding": 1, "dilation": dilation}
    (y, cache), forward = watched(split_attention.forward, x, params, stride, 1, dilation, G)
    dy = random(*y.shape, seed=22)
    (dx, grads), backward = watched(split_attention.backward, dy, cache)
    N, _, H, W = y.shape
    pixels = list(product(range(H), range(W)))
    E, F = M // G, R // G

    z = convolved(x, w, groups=J * G, **how) + b[:, None, None]
    v = filled((N, J, M, H, W), lambda n, j, m, h, i: max(z[n, j * M + m, h, i], 0))
    u = filled((N, M, H, W), lambda n, m, h, i: sum(v[n, j, m, h, i] for j in range(J)))
    s = filled((N, M), lambda n, m: sum(u[n, m, h, i] for h, i in pixels) / len(pixels))
    q = filled((N, R), lambda n, r: sum(w1[r, e] * s[n, r // F * E + e] for e in range(E)) + b1[r])
    h_ = np.maximum(q, 0)
    a = filled((N, J * M), lambda n, m: sum(w2[m, f] * h_[n, m // (J * E) * F + f] for f in range(F)) + b2[m])
    t = filled((N, J, M), lambda n, j, m: a[n, (m // E * J + j) * E + m % E])
    total = filled((N, M), lambda n, m: sum(np.exp(t[n, j, m]) for j in range(J)))
    g = by_index.sigmoid(t) if J == 1 else filled((N, J, M), lambda n, j, m: np.exp(t[n, j, m]) / total[n, m])
    same_at(
        list(walked(forward)), z=("SPLIT.1", z), v=("SPLIT.2", v), u=("SPLIT.3", u), s=("SPLIT.4", s), q=("SPLIT.5", q),
        h=("SPLIT.6", h_), a=("SPLIT.7", a), t=("SPLIT.8", t), g=("SPLIT.9", g),
    )  # fmt: skip
    wanted = filled(y.shape, lambda n, m, h, i: sum(v[n, j, m, h, i] * g[n, j, m] for j in range(J)))
    same(y, wanted, "SPLIT.10")

    dg = filled(g.shape, lambda n, j, m: sum(dy[n, m, h, i] * v[n, j, m, h, i] for h, i in pixels))
    mean = filled((N, M), lambda n, m: sum(g[n, j, m] * dg[n, j, m] for j in range(J)))
    dt = dg * g * (1 - g) if J == 1 else filled(g.shape, lambda n, j, m: g[n, j, m] * (dg[n, j, m] - mean[n, m]))
    da = np.zeros_like(a)
    for n, j, m in np.ndindex(dt.shape):
        da[n, (m // E * J + j) * E + m % E] = dt[n, j, m]
    of_hidden = [[m for m in range(J * M) if m // (J * E) == r // F] for r in range(R)]
    dh = filled(q.shape, lambda n, r: sum(w2[m, r % F] * da[n, m] for m in of_hidden[r]))
    dq = dh * (q > 0)
    of_channel = [[r for r in range(R) if r // F == m // E] for m in range(M)]
    ds = filled(s.shape, lambda n, m: sum(w1[r, m % E] * dq[n, r] for r in of_channel[m]))
    du = filled(u.shape, lambda n, m, h, i: ds[n, m] / len(pixels))
    dv = filled(v.shape, lambda n, j, m, h, i: dy[n, m, h, i] * g[n, j, m] + du[n, m, h, i])
    dz = dv.reshape(z.shape) * (z > 0)
    same_at(
        list(walked(backward)), dg=("SPLIT.10", dg), dt=("SPLIT.9", dt), da=("SPLIT.8", da), dh=("SPLIT.7", dh),
        dq=("SPLIT.6", dq), ds=("SPLIT.5", ds), du=("SPLIT.4", du), dz=("SPLIT.2", dz),
    )  # fmt: skip
    dx_wanted, dw = convolved_back(dz, x, w, groups=J * G, **how)
    same(dx, dx_wanted, "SPLIT.1, dx")
    same(grads.w, dw, "SPLIT.1, dw")
    same(grads.b, filled(b.shape, lambda m: dz[:, m].sum()), "SPLIT.1, db")
    same(grads.w2, filled(w2.shape, lambda m, f: sum(da[:, m] * h_[:, m // (J * E) * F + f])), "SPLIT.7, dw2")
    same(grads.b2, filled(b2.shape, lambda m: sum(da[:, m])), "SPLIT.7, db2")
    same(grads.w1, filled(w1.shape, lambda r, e: sum(dq[:, r] * s[:, r // F * E + e])), "SPLIT.5, dw1")
    same(grads.b1, filled(b1.shape, lambda r: sum(dq[:, r])), "SPLIT.5, db1")


def claim_one_branch_is_se_behind_a_convolution():
    x, params = random(3, 4, 4, 5), params_of(C=4, M=4, J=1, G=1, R=3)
    y, _ = split_attention.forward(x, params)
    z, _ = general_conv.forward(x, general_conv.Params(params.w, params.b), padding=1)
    se = variants.SELayer(4, hidden=3, bias=True, dtype="float64")
    names = {"fc.0.weight": params.w1, "fc.0.bias": params.b1, "fc.2.weight": params.w2, "fc.2.bias": params.b2}
    se.load_state_dict({key: w.reshape(se.params[key].shape) for key, w in names.items()})
    same(y, se(relu.forward(z)[0]), "y")


def claim_a_group_is_split_attention_by_itself():
    """The channels of x lie branch by branch, and within a branch group by group."""
    G, J, x = 2, 2, random(3, 8, 4, 5)
    params = params_of()
    y, _ = split_attention.forward(x, params, groups=G)
    for group in range(G):

        def own(array, G=G, J=J, group=group):
            parts = np.split(array, J * G)  # of the branches, in each of the groups
            return np.concatenate([parts[j * G + group] for j in range(J)])

        def of_group(array, G=G, group=group):
            return np.split(array, G)[group]

        part = split_attention.Params(
            own(params.w), of_group(params.w1), of_group(params.b1), of_group(params.w2), of_group(params.b2),
            own(params.b),
        )  # fmt: skip
        alone, _ = split_attention.forward(np.moveaxis(own(np.moveaxis(x, 1, 0)), 0, 1), part)
        same(np.split(y, G, axis=1)[group], alone, f"group {group}")


def claim_a_branch_sees_its_own_part_of_the_channels():
    x, other, params = random(2, 4, 3, 3), random(2, 4, 3, 3, seed=9), params_of(C=4, M=4, G=1)
    other[:, :2] = x[:, :2]
    (_, one), (_, two) = (split_attention.forward(each, params) for each in (x, other))
    np.testing.assert_array_equal(one.v[:, 0], two.v[:, 0])
    assert not np.array_equal(one.v[:, 1], two.v[:, 1])


def claim_the_shares_add_up_and_their_gradients_cancel():
    x, params = random(3, 4, 3, 3), params_of(C=4, M=4, G=1)
    y, cache = split_attention.forward(x, params)
    same(cache.g.sum(axis=1), np.ones((3, 4)), "SPLIT.9")
    assert np.all(y >= cache.v.min(axis=1) - 1e-15)
    assert np.all(y <= cache.v.max(axis=1) + 1e-15)
    _, grads = split_attention.backward(random(*y.shape, seed=1), cache)
    assert np.abs(grads.b2).max() > 0.1
    same(grads.b2.reshape(2, 4).sum(axis=0), np.zeros(4), "db2 over the branches")
    shifted = params._replace(b2=params.b2 + np.tile(random(4, seed=8), 2))
    same(split_attention.forward(x, shifted)[0], y, "both branches' a raised alike")


def claim_what_the_layer_says():
    layer = npattn.SplitAttention(8, 12, stride=2, rng=0)
    assert layer(random(2, 8, 5, 6).astype(np.float32)).shape == (2, 12, 3, 3)
    assert gates_of(layer, random(2, 8, 5, 6)) == {"branches": (2, 2, 12)}
    assert layer.count() == 24 * 4 * 9 + 4 * 12 + 4 + 24 * 4 + 24  # C · J // 4 = 4 hidden units
    for wrong, says in (
        ({"channel": 5}, "channel: expected a multiple of radix · groups = 2, got 5"),
        ({"channel": 4, "out_channels": 3, "groups": 2}, "out_channels: expected a multiple of groups = 2, got 3"),
        ({"channel": 4, "groups": 2, "hidden": 3}, "hidden: expected a multiple of groups = 2, got 3"),
        ({"channel": 2, "reduction": 8}, "reduction: expected at most channel · radix = 4, got 8"),
        ({"channel": 2, "kernel_size": 2}, "kernel_size: expected an odd kernel size"),
        ({"channel": 2, "padding": -1}, "padding: expected a whole number of at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=says):
            npattn.SplitAttention(**wrong)


def claim_the_pair_says_what_does_not_fit():
    x, good = random(2, 8, 4, 4), params_of()
    for wrong, says in (
        ({"w": random(7, 2, 3, 3)}, r"w \(its first axis\): expected a multiple of M = 4, got 7"),
        ({"w1": random(6, 3)}, r"w \(its first axis\): expected a multiple of M = 6, got 8"),
        ({"w1": random(5, 2)}, r"w1 \(its first axis\): expected a multiple of groups = 2, got 5"),
        ({"b1": random(5)}, r"b1: expected shape \(R=6\), got \(5,\)"),
        ({"w2": random(8, 2)}, r"w2: expected shape \(JM=8, R/G=3\), got \(8, 2\)"),
        ({"b2": random(7)}, r"b2: expected shape \(JM=8\), got \(7,\)"),
    ):
        with pytest.raises(ValueError, match=says):
            split_attention.forward(x, good._replace(**wrong), groups=2)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, C=8, H, W\), got \(2, 6, 4, 4\)"):
        split_attention.forward(x[:, :6], good, groups=2)


def claim_what_timms_arguments_mean():
    for args, padding, hidden in (
        ({}, 1, 32),
        ({"dilation": 2, "kernel_size": 5}, 2, 32),
        ({"padding": 0, "rd_channels": 10}, 0, 20),
        ({"rd_ratio": 3, "rd_divisor": 12}, 1, 96),
        ({"rd_ratio": 2.96875, "rd_divisor": 64}, 1, 128),  # 64 is less than nine tenths of 95
        ({"radix": 1, "rd_ratio": 2.25}, 1, 40),
    ):
        layer = dialects.build("timm", "SplitAttn", in_channels=16, **args).layer
        assert layer.settings["padding"] == padding
        assert layer.sizes["R"] == hidden
        found = dialects.candidates(dialects.dump(dialects.build("timm", "SplitAttn", in_channels=16, **args)))
        assert [candidate.row.title for candidate in found] == ["timm.SplitAttn"]
    for args in ({"norm_layer": "batchnorm2d"}, {"act_layer": "silu"}, {"drop_layer": "block"}):
        with pytest.raises(ValueError, match=f"{next(iter(args))}: expected"):
            dialects.build("timm", "SplitAttn", in_channels=16, **args)
    state = dialects.dump(dialects.build("timm", "SplitAttn", in_channels=16, groups=2, radix=4))
    layer = dialects.load("timm", "SplitAttn", state, in_channels=16, groups=2, radix=4)
    assert dialects.candidates(state)[0].args == {"in_channels": 16, "groups": 2, "radix": 4}
    assert layer(random(2, 16, 3, 3).astype(np.float32)).shape == (2, 16, 3, 3)
    for key, shape, says in (
        ("fc2.weight", (64, 5, 1, 1), "no groups and no radix make 64 channels of fc1's 8 and fc2's 5"),
        ("fc1.weight", (32, 7, 1, 1), "no groups and no radix make 64 channels of fc1's 7 and fc2's 16"),
    ):
        with pytest.raises(dialects.UnknownError, match=says):
            dialects.detect(wrong_state(state, key, shape))


def wrong_state(state, key, shape):
    """The state with one entry of another shape."""
    return state | {key: np.zeros(shape, np.float32)}


# Wrong backwards


def inputs(rng):
    shapes = (8, 2, 3, 3), (6, 4), (6,), (8, 6), (8,)
    return image(rng, (2, 4, 5, 6)), split_attention.Params(*(rng.standard_normal(shape) for shape in shapes))


def in_groups(x, params):
    return split_attention.forward(x, params, groups=2)


def grouped_inputs(rng):
    shapes = (8, 2, 3, 3), (6, 2), (6,), (8, 3), (8,)
    return image(rng, (2, 8, 5, 6)), split_attention.Params(*(rng.standard_normal(shape) for shape in shapes))


def to_branches(dy, cache):
    """dg, and what the branches get from the product alone."""
    v, g = cache.v, cache.g
    return np.sum(dy[:, None] * v, axis=(3, 4)), dy[:, None] * g[:, :, :, None, None]


def from_gates(dt, dv_direct, cache, share=1):
    """All of the backward below SPLIT.9."""
    N, J, M, H, W = cache.v.shape
    G = cache.groups
    da = np.swapaxes(dt.reshape(N, J, G, M // G), 1, 2).reshape(N, J * M)
    dh, dw2, db2 = split_attention.fc_backward(da, cache.fc2)
    ds, dw1, db1 = split_attention.fc_backward(relu.backward(dh, cache.hidden), cache.fc1)
    du = np.broadcast_to(ds[:, :, None, None], (N, M, H, W)) / (H * W)
    dv = dv_direct + share * du[:, None]
    dx, (dw, db) = general_conv.backward(relu.backward(dv.reshape(N, J * M, H, W), cache.rectified), cache.conv)
    return dx, split_attention.Params(dw, dw1, db1, dw2, db2, db)


@mistake(split_attention.forward, inputs, "x")
def split_gates_taken_for_constants_on_the_way_to_x(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    return from_gates(softmax.backward(dg, cache.gate), dv_direct, cache, share=0)


@mistake(split_attention.forward, inputs, "params.w2", "the outer product in a softmax's Jacobian")
def split_softmax_undone_as_one_sigmoid_a_branch(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    return from_gates(dg * cache.g * (1 - cache.g), dv_direct, cache)


@mistake(split_attention.forward, inputs, "params.w2", "the outer product in a softmax's Jacobian")
def split_softmax_over_the_channels(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    return from_gates(softmax.backward(dg, cache.gate._replace(axis=2)), dv_direct, cache)


@mistake(split_attention.forward, inputs, "x")
def split_sum_of_branches_undone_as_a_mean(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    return from_gates(softmax.backward(dg, cache.gate), dv_direct, cache, share=0.5)


@mistake(in_groups, grouped_inputs, "params.w2", "another order")
def split_groups_not_turned_back(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    dt = softmax.backward(dg, cache.gate)
    N, J, M = dt.shape
    mixed = np.swapaxes(dt.reshape(N, J, cache.groups, -1), 1, 2).reshape(N, J, M)
    return from_gates(mixed, dv_direct, cache)


@mistake(split_attention.forward, inputs, "x")
def split_first_relu_forgotten(dy, cache):
    open_ = cache._replace(rectified=relu.Cache(np.zeros_like(cache.rectified.blocked)))
    return split_attention.backward(dy, open_)


def inputs_of_one(rng):
    shapes = (4, 4, 3, 3), (6, 4), (6,), (4, 6), (4,)
    return image(rng, (2, 4, 5, 6)), split_attention.Params(*(rng.standard_normal(shape) for shape in shapes))


@mistake(split_attention.forward, inputs_of_one, "params.w2")
def split_sigmoid_of_one_branch_without_its_slope(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    assert isinstance(cache.gate, sigmoid.Cache)
    return from_gates(dg, dv_direct, cache)


@mistake(in_groups, grouped_inputs, "params.b2", "the outer product in a softmax's Jacobian")
def split_softmax_without_its_outer_product(dy, cache):
    dg, dv_direct = to_branches(dy, cache)
    return from_gates(dg * cache.g, dv_direct, cache)
