"""Coordinate attention, docs/blocks/coordinate.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import npattn
from npattn.attention import coordinate
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, hard_swish, sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, reached, same, value
from tests.support.mistakes import image, mistake

MORE = ({"hidden": 5},)


def reference(x, w, hidden=None):
    """As timm's CoordAttn has it: the means of the columns turned upright, below those of the rows."""
    import torch
    import torch.nn.functional as F

    H, W = x.shape[2:]
    places = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], dim=2)
    z = F.conv2d(places, w["conv1.weight"])
    f = F.hardswish(F.batch_norm(z, None, None, w["bn1.weight"], w["bn1.bias"], training=True))
    rows, columns = torch.split(f, [H, W], dim=2)
    g_h = F.conv2d(rows, w["conv_h.weight"]).sigmoid()
    g_w = F.conv2d(columns.transpose(2, 3), w["conv_w.weight"]).sigmoid()
    assert hidden in (None, f.shape[1])
    return x * g_h * g_w


def params_of(C, R, seed=3):
    """Weights of order 1; units of the hard swish go beyond both of its ends."""
    rng = np.random.default_rng(seed)
    norm = batch_norm.Params(3 + rng.standard_normal(R), rng.standard_normal(R))
    return coordinate.Params(rng.standard_normal((R, C)), norm, *rng.standard_normal((2, C, R)))


def running_of(R):
    return coordinate.Running(batch_norm.Running(random(R, seed=4), 0.2 + random(R, seed=5) ** 2))


def derivation():
    for running in (None, running_of(2)):
        compared(running)


def compared(running):
    """In training by the statistics of the batch, in eval by those given."""
    x = by_index.image()
    N, C, H, W = x.shape
    R, E = 2, H + W  # E places, the rows first
    params = params_of(C, R)
    w1, (gamma, beta), w_h, w_w = params
    (y, cache), forward = watched(coordinate.forward, x, params, running)
    dy = random(*x.shape, seed=22)
    (dx, grads), backward = watched(coordinate.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))

    x_h = filled((N, C, H), lambda n, c, h: sum(x[n, c, h, v] for v in range(W)) / W)
    x_w = filled((N, C, W), lambda n, c, v: sum(x[n, c, h, v] for h in range(H)) / H)
    s = filled((N, C, E), lambda n, c, e: x_h[n, c, e] if e < H else x_w[n, c, e - H])
    z = filled((N, R, E), lambda n, r, e: sum(w1[r, c] * s[n, c, e] for c in range(C)))
    count = N * E
    mean, var = running.norm if running else (z.mean(axis=(0, 2)), z.var(axis=(0, 2)))
    rho = filled((R,), lambda r: 1 / math.sqrt(var[r] + 1e-5))
    z_hat = filled((N, R, E), lambda n, r, e: (z[n, r, e] - mean[r]) * rho[r])
    u = filled((N, R, E), lambda n, r, e: gamma[r] * z_hat[n, r, e] + beta[r])
    f = filled((N, R, E), lambda n, r, e: u[n, r, e] * min(max(u[n, r, e] / 6 + 1 / 2, 0), 1))
    f_h = filled((N, R, H), lambda n, r, h: f[n, r, h])
    f_w = filled((N, R, W), lambda n, r, v: f[n, r, H + v])
    a_h = filled((N, C, H), lambda n, c, h: sum(w_h[c, r] * f_h[n, r, h] for r in range(R)))
    a_w = filled((N, C, W), lambda n, c, v: sum(w_w[c, r] * f_w[n, r, v] for r in range(R)))
    g_h, g_w = by_index.sigmoid(a_h), by_index.sigmoid(a_w)
    for name, tag, wanted in (
        ("x_h", "COORD.1", x_h), ("x_w", "COORD.2", x_w), ("s", "COORD.3", s), ("z", "COORD.4", z[..., None]),
        ("u", "COORD.5", u[..., None]), ("f", "COORD.6", f[..., None]), ("f_h", "COORD.7", f_h),
        ("f_w", "COORD.7", f_w), ("a_h", "COORD.8", a_h), ("a_w", "COORD.8", a_w), ("g_h", "COORD.9", g_h),
        ("g_w", "COORD.9", g_w),
    ):  # fmt: skip
        same(value(there, name, tag), wanted, f"{tag}, {name}")
    same(y, filled(x.shape, lambda n, c, h, v: x[n, c, h, v] * g_h[n, c, h] * g_w[n, c, v]), "COORD.10")

    direct = filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g_h[n, c, h] * g_w[n, c, v])
    dg_h = filled((N, C, H), lambda n, c, h: sum(dy[n, c, h, v] * x[n, c, h, v] * g_w[n, c, v] for v in range(W)))
    dg_w = filled((N, C, W), lambda n, c, v: sum(dy[n, c, h, v] * x[n, c, h, v] * g_h[n, c, h] for h in range(H)))
    da_h, da_w = dg_h * g_h * (1 - g_h), dg_w * g_w * (1 - g_w)
    df_h = filled((N, R, H), lambda n, r, h: sum(da_h[n, c, h] * w_h[c, r] for c in range(C)))
    df_w = filled((N, R, W), lambda n, r, v: sum(da_w[n, c, v] * w_w[c, r] for c in range(C)))
    dw_h = filled((C, R), lambda c, r: sum(da_h[n, c, h] * f_h[n, r, h] for n in range(N) for h in range(H)))
    dw_w = filled((C, R), lambda c, r: sum(da_w[n, c, v] * f_w[n, r, v] for n in range(N) for v in range(W)))
    df = filled((N, R, E), lambda n, r, e: df_h[n, r, e] if e < H else df_w[n, r, e - H])
    slope = filled((N, R, E), lambda n, r, e: u[n, r, e] / 3 + 1 / 2 if abs(u[n, r, e]) < 3 else u[n, r, e] > 0)
    assert {0.0, 1.0} < set(slope.ravel()), "an end of the hard swish is not tried"
    du = df * slope
    dgamma = filled((R,), lambda r: sum(du[n, r, e] * z_hat[n, r, e] for n in range(N) for e in range(E)))
    dbeta = filled((R,), lambda r: sum(du[n, r, e] for n in range(N) for e in range(E)))
    along = filled((R,), lambda r: gamma[r] * dgamma[r] / count if running is None else 0)
    level = filled((R,), lambda r: gamma[r] * dbeta[r] / count if running is None else 0)
    dz = filled((N, R, E), lambda n, r, e: rho[r] * (gamma[r] * du[n, r, e] - z_hat[n, r, e] * along[r] - level[r]))
    ds = filled((N, C, E), lambda n, c, e: sum(dz[n, r, e] * w1[r, c] for r in range(R)))
    dw1 = filled((R, C), lambda r, c: sum(dz[n, r, e] * s[n, c, e] for n in range(N) for e in range(E)))
    for name, tag, wanted in (
        ("dx_direct", "COORD.10", direct), ("dg_h", "COORD.10", dg_h), ("dg_w", "COORD.10", dg_w),
        ("da_h", "COORD.9", da_h), ("da_w", "COORD.9", da_w), ("df_h", "COORD.8", df_h), ("df_w", "COORD.8", df_w),
        ("dw_h", "COORD.8", dw_h), ("dw_w", "COORD.8", dw_w), ("df", "COORD.7", df[..., None]),
        ("du", "COORD.6", du[..., None]), ("dz", "COORD.5", dz[..., None]), ("ds", "COORD.4", ds),
        ("dw1", "COORD.4", dw1), ("dx_h", "COORD.3", ds[:, :, :H]), ("dx_w", "COORD.3", ds[:, :, H:]),
        ("dx_columns", "COORD.2", ds[:, :, None, H:] / H), ("dx_rows", "COORD.1", ds[:, :, :H, None] / W),
    ):  # fmt: skip
        same(value(back, name, tag), wanted, f"{tag}, {name}")
    meet = filled(x.shape, lambda n, c, h, v: direct[n, c, h, v] + ds[n, c, h] / W + ds[n, c, H + v] / H)
    same(dx, meet, "the three ways meet")
    for name, wanted in (("w1", dw1), ("w_h", dw_h), ("w_w", dw_w)):
        same(getattr(grads, name), wanted, f"d{name}")
    same(grads.norm.gamma, dgamma, "dgamma")
    same(grads.norm.beta, dbeta, "dbeta")


def claim_a_pixel_sees_its_row_and_its_column():
    """In eval. In training it sees the whole batch, by the statistics."""
    x = random(2, 3, 4, 5)
    for running, in_sight in ((running_of(2), 4 + 5 - 1), (None, 4 * 5)):
        _, cache = coordinate.forward(x, params_of(3, 2), running)
        cross = reached(coordinate.backward, cache, x.shape, (1, 2))
        assert cross[1, :].all()
        assert cross[:, 2].all()
        assert np.count_nonzero(cross) == in_sight


def claim_an_image_on_its_side_needs_the_other_matrix():
    """Rows and columns change places: so must w_h and w_w, and nothing else."""
    x, params = by_index.image(), params_of(3, 2)
    turned = params._replace(w_h=params.w_w, w_w=params.w_h)
    y, _ = coordinate.forward(x, params)
    same(np.swapaxes(coordinate.forward(np.swapaxes(x, 2, 3), turned)[0], 2, 3), y, "turned")


def claim_a_bias_before_the_norm_does_nothing_in_training():
    """The authors' conv1 has one. The mean takes it away; only the running mean keeps it."""
    z = random(2, 3, 6, 1)
    norm = batch_norm.Params(random(3), random(3, seed=2))
    bias = random(3, seed=3)[:, None, None]
    (y, _), (biased, cache) = batch_norm.forward(z, norm), batch_norm.forward(z + bias, norm)
    same(biased, y, "y")
    dz, _ = batch_norm.backward(random(*z.shape, seed=4), cache)
    same(np.sum(dz, axis=(0, 2, 3)), 0, "the bias' gradient")


def claim_what_attention_holds():
    layer = npattn.CoordinateAttention(4, 2)
    assert gates_of(layer, random(2, 4, 3, 5)) == {"rows": (2, 4, 3, 1), "columns": (2, 4, 1, 5)}
    layer = npattn.CoordinateAttention(4, 2, dtype="float64")
    x = random(2, 4, 3, 5)
    same(layer(x), x * layer.attention["rows"] * layer.attention["columns"], "y is x times the gates")


def claim_a_hidden_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="reduction: expected at most channel = 16, got 32"):
        npattn.CoordinateAttention(16)
    assert npattn.CoordinateAttention(16, hidden=8).params["conv1.weight"].shape == (8, 16, 1, 1)


# Wrong backwards


def inputs(rng):
    norm = batch_norm.Params(rng.standard_normal(3), rng.standard_normal(3))
    return image(rng), coordinate.Params(rng.standard_normal((3, 4)), norm, *rng.standard_normal((2, 4, 3)))


def in_eval(x, params):
    return coordinate.forward(x, params, running_of(3))


def to_the_hidden_units(dy, cache):
    """What comes back to f_h and f_w."""
    da_h = sigmoid.backward(np.sum(dy * cache.x * cache.g_w[:, :, None, :], axis=3), cache.rows)
    da_w = sigmoid.backward(np.sum(dy * cache.x * cache.g_h[:, :, :, None], axis=2), cache.columns)
    return cache.params.w_h.T @ da_h, cache.params.w_w.T @ da_w


def to_the_places(df, cache):
    """What comes back to s, and the gradient of w1."""
    dz, _ = batch_norm.backward(hard_swish.backward(df[:, :, :, None], cache.hidden), cache.norm)
    return cache.params.w1.T @ dz[:, :, :, 0], np.sum(dz[:, :, :, 0] @ cache.s.mT, axis=0)


def direct(dy, cache):
    return dy * cache.g_h[:, :, :, None] * cache.g_w[:, :, None, :]


@mistake(coordinate.forward, inputs, "x", "direct path")
def coordinate_direct_path_alone(dy, cache):
    return direct(dy, cache), coordinate.backward(dy, cache)[1]


@mistake(coordinate.forward, inputs, "x")
def coordinate_path_of_the_columns_forgotten(dy, cache):
    _, grads = coordinate.backward(dy, cache)
    ds, _ = to_the_places(np.concatenate(to_the_hidden_units(dy, cache), axis=2), cache)
    H, W = dy.shape[2:]
    return direct(dy, cache) + ds[:, :, :H, None] / W, grads


@mistake(coordinate.forward, inputs, "x")
def coordinate_lengths_of_rows_and_columns_swapped(dy, cache):
    _, grads = coordinate.backward(dy, cache)
    ds, _ = to_the_places(np.concatenate(to_the_hidden_units(dy, cache), axis=2), cache)
    H, W = dy.shape[2:]
    return direct(dy, cache) + ds[:, :, :H, None] / H + ds[:, :, None, H:] / W, grads  # a row has W pixels


@mistake(coordinate.forward, inputs, "params.w1")
def coordinate_halves_laid_together_in_the_wrong_order(dy, cache):
    dx, grads = coordinate.backward(dy, cache)
    _, dw1 = to_the_places(np.concatenate(to_the_hidden_units(dy, cache)[::-1], axis=2), cache)
    return dx, grads._replace(w1=dw1)


@mistake(coordinate.forward, inputs, "params.w_h")
def coordinate_other_gate_forgotten(dy, cache):
    dx, grads = coordinate.backward(dy, cache)
    dg_h = np.sum(dy * cache.x, axis=3)  # as SE's would be: but y has three factors
    return dx, grads._replace(w_h=np.sum(sigmoid.backward(dg_h, cache.rows) @ cache.f_h.mT, axis=0))


@mistake(coordinate.forward, inputs, "params.w_w")
def coordinate_one_gradient_for_both_matrices(dy, cache):
    dx, grads = coordinate.backward(dy, cache)
    of_both = grads.w_h + grads.w_w
    return dx, grads._replace(w_h=of_both, w_w=of_both.copy())


@mistake(coordinate.forward, inputs, "params.norm.gamma")
def coordinate_hard_swish_taken_for_a_gate_that_is_given(dy, cache):
    dx, grads = coordinate.backward(dy, cache)
    du = np.concatenate(to_the_hidden_units(dy, cache), axis=2)[:, :, :, None] * cache.hidden.g
    return dx, grads._replace(norm=batch_norm.backward(du, cache.norm)[1])


@mistake(coordinate.forward, inputs, "params.w1")
def coordinate_rows_and_columns_normalised_apart(dy, cache):
    dx, grads = coordinate.backward(dy, cache)
    df = np.concatenate(to_the_hidden_units(dy, cache), axis=2)[:, :, :, None]
    du, H = hard_swish.backward(df, cache.hidden), dy.shape[2]
    parts = [
        batch_norm.backward(du[:, :, half], cache.norm._replace(x_hat=cache.norm.x_hat[:, :, half]))[0]
        for half in (slice(None, H), slice(H, None))
    ]
    dz = np.concatenate(parts, axis=2)[:, :, :, 0]
    return dx, grads._replace(w1=np.sum(dz @ cache.s.mT, axis=0))


@mistake(coordinate.forward, inputs, "x")
def coordinate_in_training_undone_as_in_eval(dy, cache):
    dx, _ = coordinate.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))
    return dx, coordinate.backward(dy, cache)[1]


@mistake(in_eval, inputs, "x")
def coordinate_in_eval_undone_as_in_training(dy, cache):
    dx, _ = coordinate.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=True)))
    return dx, coordinate.backward(dy, cache)[1]
