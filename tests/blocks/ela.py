"""Efficient local attention, docs/blocks/ela.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import ela
from npattn.explain.watch import walked, watched
from npattn.ops import general_conv, group_norm, sigmoid, silu
from tests.support import by_index
from tests.support.by_index import filled, gates_of, normal, normal_back, random, reached, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"groups": 1}, {"act": "silu"})


def reference(x, w, groups=None, act=None):
    """By a Conv1d for the rows and one for the columns. Unless told the groups are those of the place."""
    import torch.nn.functional as F

    N, C, H, W = x.shape
    G = groups or next(G for G in range(max(1, C // 3), 0, -1) if C % G == 0)

    def gates(s, name):
        kernel = w[f"conv_{name}.weight"].flatten(2)
        z = F.conv1d(s, kernel, padding=kernel.shape[-1] // 2, groups=C)
        u = F.group_norm(z, G, w[f"norm_{name}.weight"], w[f"norm_{name}.bias"])
        return (F.silu(u) if act == "silu" else u).sigmoid()

    return x * gates(x.mean(3), "h").view(N, C, H, 1) * gates(x.mean(2), "w").view(N, C, 1, W)


def norm_of(rng, C):
    return group_norm.Params(*rng.standard_normal((2, C)))


def params_of(C, k, seed=3):
    """Weights of order 1."""
    rng = np.random.default_rng(seed)

    w_h, w_w = rng.standard_normal((C, 1, k, 1)), rng.standard_normal((C, 1, 1, k))
    return ela.Params(w_h, norm_of(rng, C), w_w, norm_of(rng, C))


def way_by_index(s, kernel, gamma, beta, G, act):
    """ELA.2 to ELA.5 of s (N, C, E), and how to go back from dg to (ds, dw, dgamma, dbeta)."""
    (N, C, E), k = s.shape, len(kernel[0])
    q, D = k // 2, C // G
    z = filled(s.shape, lambda n, c, e: sum(
        kernel[c, i] * s[n, c, e + i - q] for i in range(k) if 0 <= e + i - q < E))  # fmt: skip
    rows, rho = normal(z.reshape(N * G, D * E), 1e-5)
    z_hat = rows.reshape(z.shape)
    u = filled(z.shape, lambda n, c, e: gamma[c] * z_hat[n, c, e] + beta[c])
    f = filled(u.shape, lambda *at: by_index.ACT["silu"](u[at])) if act else u
    g = by_index.sigmoid(f)

    def back(dg):
        df = dg * g * (1 - g)
        du = filled(u.shape, lambda *at: df[at] * by_index.ACT_SLOPE["silu"](u[at])) if act else df
        dgamma = filled((C,), lambda c: sum(du[n, c, e] * z_hat[n, c, e] for n in range(N) for e in range(E)))
        dbeta = filled((C,), lambda c: sum(du[n, c, e] for n in range(N) for e in range(E)))
        dz_hat = filled(u.shape, lambda n, c, e: gamma[c] * du[n, c, e])
        dz = normal_back(dz_hat.reshape(N * G, D * E), rows, rho).reshape(z.shape)
        ds = filled(s.shape, lambda n, c, e: sum(
            kernel[c, i] * dz[n, c, e - i + q] for i in range(k) if 0 <= e - i + q < E))  # fmt: skip
        dw = filled((C, k), lambda c, i: sum(
            dz[n, c, e] * s[n, c, e + i - q] for n in range(N) for e in range(E) if 0 <= e + i - q < E))  # fmt: skip
        return {"df": df, "du": du, "dz": dz, "dx": ds}, dw, dgamma, dbeta

    return {"x": s, "z": z, "u": u, "f": f, "g": g}, back


TAGS = {"x": 1, "z": 2, "u": 3, "f": 4, "g": 5, "df": 5, "du": 4, "dz": 3, "dx": 2}


def derivation():
    for G, act in ((2, None), (1, "silu"), (4, None)):
        x, dy = random(2, 4, 2, 5, seed=20), random(2, 4, 2, 5, seed=22)
        (N, C, H, W), params = x.shape, params_of(4, 3)
        (y, cache), forward = watched(ela.forward, x, params, G, act)
        (dx, grads), backward = watched(ela.backward, dy, cache)
        s_h = filled((N, C, H), lambda n, c, h: sum(x[n, c, h, v] for v in range(W)) / W)  # noqa: B023
        s_w = filled((N, C, W), lambda n, c, v: sum(x[n, c, h, v] for h in range(H)) / H)  # noqa: B023
        rows, back_h = way_by_index(s_h, params.w_h.reshape(C, -1), *params.norm_h, G, act)
        columns, back_w = way_by_index(s_w, params.w_w.reshape(C, -1), *params.norm_w, G, act)
        g_h, g_w = rows["g"], columns["g"]
        same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g_h[n, c, h] * g_w[n, c, v]), "ELA.6")  # noqa: B023

        dg_h = filled(g_h.shape, lambda n, c, h: sum(
            dy[n, c, h, v] * x[n, c, h, v] * g_w[n, c, v] for v in range(W)))  # noqa: B023 # fmt: skip
        dg_w = filled(g_w.shape, lambda n, c, v: sum(
            dy[n, c, h, v] * x[n, c, h, v] * g_h[n, c, h] for h in range(H)))  # noqa: B023 # fmt: skip
        (numbers_h, *wanted_h), (numbers_w, *wanted_w) = back_h(dg_h), back_w(dg_w)
        for steps, *ways in ((forward, rows, columns), (backward, numbers_h, numbers_w)):
            for letter, numbers in zip("hw", ways, strict=True):
                for name, wanted in numbers.items():
                    same_at(list(walked(steps)), **{f"{name}_{letter}": (f"ELA.{TAGS[name]}", wanted)})
        same_at(list(walked(backward)), dg_h=("ELA.6", dg_h), dg_w=("ELA.6", dg_w))
        from_h, from_w = numbers_h["dx"], numbers_w["dx"]
        meet = filled(x.shape, lambda n, c, h, v: (
            dy[n, c, h, v] * g_h[n, c, h] * g_w[n, c, v] + from_h[n, c, h] / W + from_w[n, c, v] / H))  # noqa: B023 # fmt: skip
        same(dx, meet, "the three ways meet")
        for w, norm, (dw, dgamma, dbeta) in ((*grads[:2], wanted_h), (*grads[2:], wanted_w)):
            same(w.reshape(C, -1), dw, "dw")
            same(norm.gamma, dgamma, "dgamma")
            same(norm.beta, dbeta, "dbeta")


def claim_groups_and_images_do_not_meet():
    """A gradient of one group's channels comes back to that group alone, and to its image."""
    x = random(2, 6, 3, 4)
    _, cache = ela.forward(x, params_of(6, 3), 3)
    dy = np.zeros_like(x)
    dy[0, 2] = 1
    came = np.any(ela.backward(dy, cache)[0] != 0, axis=(2, 3))
    assert came.tolist() == [[False, False, True, True, False, False], [False] * 6]


def claim_a_pixel_sees_the_whole_image_by_the_norm_alone():
    """Without the norm it would see the k rows around its own and the k columns."""
    x, params = random(1, 2, 7, 8), params_of(2, 3)
    _, cache = ela.forward(x, params)
    assert reached(ela.backward, cache, x.shape, (3, 4)).all()

    def without_the_norm(dy, cache):
        dg_h, dg_w = dgates(dy, cache)
        return dy + general_conv.backward(dg_h, cache.conv_h)[0] + general_conv.backward(dg_w, cache.conv_w)[0], None

    cross = reached(without_the_norm, cache, x.shape, (3, 4))
    assert cross.any(axis=1).tolist() == [True] * 7
    assert cross[:, :3].any(axis=1).tolist() == cross[:, 6:].any(axis=1).tolist()
    assert cross[:, 0].tolist() == [False, False, True, True, True, False, False]
    assert cross[0].tolist() == [False] * 3 + [True] * 3 + [False] * 2


def claim_a_bias_before_the_norm():
    """Of a group for each channel it does nothing; of one group it does what no beta can."""
    z, bias = random(1, 4, 5, 1), np.arange(4.0)[:, None, None]
    norm = norm_of(np.random.default_rng(4), 4)
    same(group_norm.forward(z + bias, norm, 4)[0], group_norm.forward(z, norm, 4)[0], "taken away")
    more = group_norm.forward(z + bias, norm)[0] - group_norm.forward(z, norm)[0]
    assert np.abs(more).max() > 0.1
    assert np.ptp(more, axis=2).max() > 0.1  # not a number a channel


def claim_with_a_silu_no_gate_is_below_0_43():
    """The SiLU is never below −0.2785, so the sigmoid behind it never below 0.4308, and y never below 0.18 of x."""
    u = np.linspace(-20, 5, 100_001)
    lowest = silu.forward(u)[0].min()
    assert abs(lowest + 0.27846) < 1e-5
    assert abs(by_index.sigmoid(lowest) - 0.43083) < 1e-5
    assert abs(by_index.sigmoid(lowest) ** 2 - 0.18561) < 1e-5
    layer = npattn.EfficientLocalAttention(4, 3, groups=1, act="silu", dtype="float64")
    by_index.weights(layer, 3)(30 * random(2, 4, 5, 6))
    assert min(layer.attention["rows"].min(), layer.attention["columns"].min()) > 0.4308


def claim_turned_copies_multiply_rows_by_the_gates_of_columns():
    """(N, C, W, 1) in place of (N, C, 1, W): an error unless H = W, and then other numbers."""
    x = random(1, 2, 4, 4)
    y, cache = ela.forward(x, params_of(2, 3))
    turned = x * cache.g_h * np.swapaxes(cache.g_w, 2, 3)
    assert np.abs(turned - y).max() > 0.05
    with pytest.raises(ValueError, match="broadcast"):
        _ = random(1, 2, 4, 5) * np.swapaxes(random(1, 2, 1, 5), 2, 3)


def claim_what_the_layer_says():
    layer = npattn.EfficientLocalAttention(64)
    assert layer.count() == 64 * (2 * 7 + 4)
    assert gates_of(layer, random(2, 64, 3, 5)) == {"rows": (2, 64, 3, 1), "columns": (2, 64, 1, 5)}
    with pytest.raises(ValueError, match="channel: expected a multiple of groups = 16, got 40"):
        npattn.EfficientLocalAttention(40)
    with pytest.raises(ValueError, match="kernel_size: expected an odd kernel size"):
        npattn.EfficientLocalAttention(32, 4)
    with pytest.raises(ValueError, match="act: expected one of 'silu', got 'relu'"):
        npattn.EfficientLocalAttention(32, act="relu")
    x, params = random(1, 2, 3, 4), params_of(2, 3)
    for wrong, said in (
        (params._replace(w_w=params.w_h), r"w_w: expected shape \(C=2, 1, 1, k=3\), got \(2, 1, 3, 1\)"),
        (params_of(2, 4), r"w_h \(its third axis\): expected an odd kernel size"),
        (params_of(4, 3), r"x: expected shape \(N, C=4, H, W\), got \(1, 2, 3, 4\)"),
    ):
        with pytest.raises(ValueError, match=said):
            ela.forward(x, wrong)


# Wrong backwards


def inputs(rng):
    w_h, w_w = rng.standard_normal((4, 1, 3, 1)), rng.standard_normal((4, 1, 1, 3))
    return image(rng), ela.Params(w_h, norm_of(rng, 4), w_w, norm_of(rng, 4))


def in_two(x, params):
    return ela.forward(x, params, 2)


def direct(dy, cache):
    return dy * cache.g_h * cache.g_w


def dgates(dy, cache):
    dg_h = np.sum(dy * cache.x * cache.g_w, axis=3, keepdims=True)
    return dg_h, np.sum(dy * cache.x * cache.g_h, axis=2, keepdims=True)


def to_z(dy, cache):
    """What comes back to z_h and z_w."""
    dg_h, dg_w = dgates(dy, cache)
    dz_h, _ = group_norm.backward(sigmoid.backward(dg_h, cache.gate_h), cache.norm_h)
    return dz_h, group_norm.backward(sigmoid.backward(dg_w, cache.gate_w), cache.norm_w)[0]


@mistake(in_two, inputs, "x", "direct path")
def ela_direct_path_alone(dy, cache):
    return direct(dy, cache), ela.backward(dy, cache)[1]


@mistake(in_two, inputs, "x")
def ela_kernel_not_turned_round(dy, cache):
    (dz_h, dz_w), (H, W) = to_z(dy, cache), dy.shape[2:]
    dx_h, _ = general_conv.forward(dz_h, cache.conv_h.params, padding=(1, 0), groups=4)  # a backward has it from behind
    dx_w, _ = general_conv.forward(dz_w, cache.conv_w.params, padding=(0, 1), groups=4)
    return direct(dy, cache) + dx_h / W + dx_w / H, ela.backward(dy, cache)[1]


@mistake(in_two, inputs, "x")
def ela_lengths_of_rows_and_columns_swapped(dy, cache):
    (dz_h, dz_w), (H, W) = to_z(dy, cache), dy.shape[2:]
    dx_h, dx_w = general_conv.backward(dz_h, cache.conv_h)[0], general_conv.backward(dz_w, cache.conv_w)[0]
    return direct(dy, cache) + dx_h / H + dx_w / W, ela.backward(dy, cache)[1]  # a row has W pixels


@mistake(in_two, inputs, "params.norm_h.gamma")
def ela_other_gate_forgotten(dy, cache):
    dx, grads = ela.backward(dy, cache)
    du = sigmoid.backward(np.sum(dy * cache.x, axis=3, keepdims=True), cache.gate_h)  # as with one gate
    return dx, grads._replace(norm_h=group_norm.backward(du, cache.norm_h)[1])


@mistake(in_two, inputs, "params.w_w")
def ela_statistics_taken_for_constants(dy, cache):
    dx, grads = ela.backward(dy, cache)
    du = sigmoid.backward(dgates(dy, cache)[1], cache.gate_w)
    dz = du * cache.norm_w.gamma[:, None, None] * np.repeat(cache.norm_w.norm.rho, 2, axis=1)[..., None]
    return dx, grads._replace(w_w=general_conv.backward(dz, cache.conv_w)[1].w)


@mistake(in_two, inputs, "params.w_h")
def ela_one_norm_over_all_channels(dy, cache):
    dx, grads = ela.backward(dy, cache)
    x_h, of_norm = np.mean(cache.x, axis=3, keepdims=True), group_norm.Params(cache.norm_h.gamma, np.zeros(4))
    z_h, _ = general_conv.forward(x_h, cache.conv_h.params, padding=(1, 0), groups=4)
    du = sigmoid.backward(dgates(dy, cache)[0], cache.gate_h)
    dz, _ = group_norm.backward(du, group_norm.forward(z_h, of_norm)[1])
    return dx, grads._replace(w_h=general_conv.backward(dz, cache.conv_h)[1].w)
