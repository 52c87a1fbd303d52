"""Bottleneck attention, docs/blocks/bam.md."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn.attention import bam
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, general_conv, sigmoid
from tests.support import by_index
from tests.support.by_index import at, filled, gates_of, normal, normal_back, random, reached, same, same_at
from tests.support.mistakes import image, mistake

MORE = ({"dilation": 2, "bias": True},)
STAGES = ("channel", "reduce", "first", "second")


def reference(x, w, dilation=4, joined="product", bias=False):
    """As the authors' code has it, and with their paper's sum where that is asked for."""
    import torch.nn.functional as F

    def stage(v, name, **options):
        p = F.conv2d(v, w[f"{name}.conv.weight"], w.get(f"{name}.conv.bias"), **options)
        return F.batch_norm(p, None, None, w[f"{name}.bn.weight"], w[f"{name}.bn.bias"], training=True).relu()

    h = stage(x.mean((2, 3), keepdim=True), "channel")
    f = stage(x, "reduce")
    for name in ("first", "second"):
        f = stage(f, name, padding=dilation, dilation=dilation)
    a_c = F.conv2d(h, w["channel_out.weight"], w["channel_out.bias"])
    a_s = F.conv2d(f, w["spatial_out.weight"], w["spatial_out.bias"])
    return x * (1 + (a_c * a_s if joined == "product" else a_c + a_s).sigmoid())


def stage_of(R, A, k, seed):
    norm = batch_norm.Params(random(R, seed=seed), random(R, seed=seed + 1))
    return bam.Stage(random(R, A, k, k, seed=seed + 2), norm, random(R, seed=seed + 3))


def params_of(C=3, R=2):
    return bam.Params(
        channel=stage_of(R, C, 1, 30), w_c=random(C, R, 1, 1, seed=34), b_c=random(C, seed=35),
        reduce=stage_of(R, C, 1, 40), first=stage_of(R, R, 3, 50), second=stage_of(R, R, 3, 60),
        w_s=random(1, R, 1, 1, seed=64), b_s=random(1, seed=65),
    )  # fmt: skip


def running_of(R=2):
    return bam.Running(
        *(
            bam.StageRunning(batch_norm.Running(random(R, seed=seed), 0.2 + random(R, seed=seed + 1) ** 2))
            for seed in (31, 41, 51, 61)
        )
    )


def rows_of(p):
    """(N, R, H, W) as R rows of all numbers of a channel."""
    return np.moveaxis(p, 1, 0).reshape(p.shape[1], -1)


def back_to(rows, shape):
    N, R, H, W = shape
    return np.moveaxis(rows.reshape(R, N, H, W), 0, 1)


def one_stage(v, params, running, d):
    """f of a stage, and a function from df to dv and the gradients."""
    w, (gamma, beta), b = params
    N, A, H, W = v.shape
    R, _, k, _ = w.shape
    q, shape = d * (k // 2), (N, R, H, W)
    taps = list(product(range(A), range(k), range(k)))
    p = filled(
        shape,
        lambda n, r, h, c: b[r] + sum(w[r, e, i, j] * at(v[n, e], h + d * i - q, c + d * j - q) for e, i, j in taps),
    )
    if running is None:
        p_hat, rho = normal(rows_of(p), 1e-5)
    else:
        rho = 1 / np.sqrt(running.norm.var + 1e-5)
        p_hat = (rows_of(p) - running.norm.mean[:, None]) * rho[:, None]
    u = back_to(gamma[:, None] * p_hat + beta[:, None], shape)

    def undone(df):
        du = rows_of(filled(shape, lambda *o: df[o] if u[o] > 0 else 0))
        dp_hat = gamma[:, None] * du
        dp = back_to(normal_back(dp_hat, p_hat, rho) if running is None else dp_hat * rho[:, None], shape)
        dv = filled(
            v.shape,
            lambda n, e, h, c: sum(
                w[r, e, i, j] * at(dp[n, r], h - d * i + q, c - d * j + q)
                for r, i, j in product(range(R), range(k), range(k))
            ),
        )
        dw = filled(
            w.shape,
            lambda r, e, i, j: sum(
                dp[n, r, h, c] * at(v[n, e], h + d * i - q, c + d * j - q)
                for n, h, c in product(range(N), range(H), range(W))
            ),
        )
        norm = batch_norm.Params(np.sum(du * p_hat, axis=1), np.sum(du, axis=1))
        return dv, bam.Stage(dw, norm, np.sum(dp, axis=(0, 2, 3)))

    return filled(shape, lambda *o: max(u[o], 0)), undone


def derivation():
    for running, (d, joined) in product((None, running_of()), ((1, "product"), (2, "sum"))):
        by_hand(running, d, joined)


def by_hand(running, d, joined):
    x, dy, params = random(3, 3, 2, 3, seed=20), random(3, 3, 2, 3, seed=22), params_of()
    (N, C, H, W), R = x.shape, 2
    (y, cache), forward = watched(bam.forward, x, params, running, d, joined)
    (dx, grads), backward = watched(bam.backward, dy, cache)
    of = dict.fromkeys(STAGES) if running is None else running._asdict()

    s = filled((N, C, 1, 1), lambda n, c, *_: sum(x[n, c].ravel()) / (H * W))
    h, undo_channel = one_stage(s, params.channel, of["channel"], 1)
    a_c = filled((N, C), lambda n, c: sum(params.w_c[c, r, 0, 0] * h[n, r, 0, 0] for r in range(R)) + params.b_c[c])
    f_0, undo_reduce = one_stage(x, params.reduce, of["reduce"], 1)
    f_1, undo_first = one_stage(f_0, params.first, of["first"], d)
    f_2, undo_second = one_stage(f_1, params.second, of["second"], d)
    a_s = filled(
        (N, H, W), lambda n, i, j: sum(params.w_s[0, r, 0, 0] * f_2[n, r, i, j] for r in range(R)) + params.b_s[0]
    )
    times = joined == "product"
    a = filled(x.shape, lambda n, c, i, j: a_c[n, c] * a_s[n, i, j] if times else a_c[n, c] + a_s[n, i, j])
    g = by_index.sigmoid(a)
    same_at(
        list(walked(forward)), s=("BAM.4", s), h=("BAM.5", h), a_c=("BAM.6", a_c), f_0=("BAM.7", f_0),
        f_1=("BAM.8", f_1), f_2=("BAM.9", f_2), a_s=("BAM.10", a_s), a=("BAM.11", a), g=("BAM.12", g),
    )  # fmt: skip
    same(y, filled(x.shape, lambda *o: x[o] * (1 + g[o])), "BAM.13")

    da = filled(x.shape, lambda *o: dy[o] * x[o] * g[o] * (1 - g[o]))
    da_c = filled(
        (N, C, 1, 1),
        lambda n, c, *_: sum(da[n, c, i, j] * (a_s[n, i, j] if times else 1) for i in range(H) for j in range(W)),
    )
    da_s = filled((N, 1, H, W), lambda n, _, i, j: sum(da[n, c, i, j] * (a_c[n, c] if times else 1) for c in range(C)))
    df_2 = filled(f_2.shape, lambda n, r, i, j: params.w_s[0, r, 0, 0] * da_s[n, 0, i, j])
    df_1, second = undo_second(df_2)
    df_0, first = undo_first(df_1)
    dx_spatial, reduce = undo_reduce(df_0)
    dh = filled(h.shape, lambda n, r, *_: sum(params.w_c[c, r, 0, 0] * da_c[n, c, 0, 0] for c in range(C)))
    ds, channel = undo_channel(dh)
    same_at(
        list(walked(backward)), da=("BAM.12", da), da_c=("BAM.11", da_c), da_s=("BAM.11", da_s),
        df_2=("BAM.10", df_2), df_1=("BAM.9", df_1), df_0=("BAM.8", df_0), dx_spatial=("BAM.7", dx_spatial),
        dh=("BAM.6", dh), ds=("BAM.5", ds), dx_channel=("BAM.4", ds / (H * W)),
    )  # fmt: skip
    meet = filled(
        x.shape,
        lambda n, c, i, j: dy[n, c, i, j] * (1 + g[n, c, i, j]) + dx_spatial[n, c, i, j] + ds[n, c, 0, 0] / (H * W),
    )
    same(dx, meet, "the three ways meet")
    for name, wanted in zip(STAGES, (channel, reduce, first, second), strict=True):
        found = getattr(grads, name)
        same(found.w, wanted.w, f"BAM.1, dw of {name}")
        same(found.norm.gamma, wanted.norm.gamma, f"BAM.2, dgamma of {name}")
        same(found.norm.beta, wanted.norm.beta, f"BAM.2, dbeta of {name}")
        np.testing.assert_allclose(found.b, wanted.b, rtol=1e-12, atol=1e-12, err_msg=f"BAM.1, db of {name}")
    same(grads.w_c[:, :, 0, 0], np.einsum("nc,nr->cr", da_c[:, :, 0, 0], h[:, :, 0, 0]), "dw_c")
    same(grads.b_c, da_c.sum(axis=(0, 2, 3)), "db_c")
    same(grads.w_s[0, :, 0, 0], np.einsum("nij,nrij->r", da_s[:, 0], f_2), "dw_s")
    same(grads.b_s, da_s.sum(axis=(0, 2, 3)), "db_s")


def claim_a_pixel_reaches_a_grid_of_25_places_in_eval():
    """Two dilated kernels of 3×3 see 5×5 places, 4 apart: rows −8, −4, 0, 4 and 8 off."""
    x = random(3, 3, 19, 19)
    params = params_of()
    params = params._replace(w_c=0 * params.w_c, b_c=np.ones(3))  # the channel branch says 1, whatever comes
    norm = batch_norm.Params(np.ones(2), 20 * np.ones(2))  # no ReLU is shut
    stages = {name: getattr(params, name)._replace(norm=norm) for name in ("reduce", "first", "second")}
    _, cache = bam.forward(x, params._replace(**stages), running_of())
    found = reached(bam.backward, cache, x.shape, (9, 9))
    wanted = np.zeros((19, 19), dtype=bool)
    wanted[1:18:4, 1:18:4] = True
    assert (found == wanted).all()


def claim_where_the_paper_adds_both_signs_differ():
    """Two branches that both say no: their sum says no, and their product says yes."""
    x, params = random(3, 2, 1, 1), params_of(2)
    quiet = params._replace(w_c=0 * params.w_c, b_c=-3 * np.ones(2), w_s=0 * params.w_s, b_s=-3 * np.ones(1))
    for joined, gate in (("product", by_index.sigmoid(9)), ("sum", by_index.sigmoid(-6))):
        same(bam.forward(x, quiet, running_of(), 4, joined)[1].g, np.full(x.shape, gate), joined)


def claim_it_never_shuts():
    """y is between x and 2 x."""
    x = random(3, 3, 4, 5)
    ratio = bam.forward(x, params_of())[0] / x
    assert ratio.min() > 1
    assert ratio.max() < 2


def claim_a_bias_before_the_norm_does_nothing_in_training():
    x, params = random(4, 3, 3, 4), params_of()
    y, cache = bam.forward(x, params)
    moved = params._replace(first=params.first._replace(b=params.first.b + 1))
    same(bam.forward(x, moved)[0], y, "y")
    grads = bam.backward(random(4, 3, 3, 4, seed=1), cache)[1]
    assert all(np.abs(getattr(grads, name).b).max() < 1e-13 for name in STAGES)


def claim_one_image_has_no_batch():
    layer = npattn.BAM(4, 2)
    x = random(1, 4, 5, 5).astype(np.float32)
    with pytest.raises(ValueError, match="x: expected at least 2 images to normalise over in training, got 1"):
        layer(x)
    assert layer.eval()(x).shape == x.shape


def claim_what_the_layer_says():
    layer = npattn.BAM(32)
    R, C = 2, 32
    assert layer.count() == 3 * R * C + 18 * R * R + C + 9 * R + 1
    assert npattn.BAM(32, bias=True).count() == layer.count() + 4 * R
    assert npattn.BAM(32, joined="sum").count() == layer.count()
    assert gates_of(layer, random(2, 32, 4, 5)) == {"pixel": (2, 32, 4, 5)}
    assert layer.num_batches_tracked == 1


# Wrong backwards


def inputs(rng):
    def stage(R, A, k):
        norm = batch_norm.Params(rng.standard_normal(R), rng.standard_normal(R))
        return bam.Stage(rng.standard_normal((R, A, k, k)), norm)

    draw = rng.standard_normal
    return image(rng, (4, 2, 3, 4)), bam.Params(
        stage(2, 2, 1), draw((2, 2, 1, 1)), draw(2), stage(2, 2, 1), stage(2, 2, 3), stage(2, 2, 3),
        draw((1, 2, 1, 1)), draw(1),
    )  # fmt: skip


def near(x, params):
    return bam.forward(x, params, None, 2)


def to_a(dy, cache):
    return sigmoid.backward(dy * cache.x, cache.gate)


def through_the_pixels(da_s, cache):
    df, _ = general_conv.backward(da_s, cache.out_s)
    for stage in (cache.second, cache.first, cache.reduce):
        df, _ = bam.stage_backward(df, stage)
    return df


@mistake(near, inputs, "x", "direct path")
def bam_direct_path_alone(dy, cache):
    return dy * (1 + cache.g), bam.backward(dy, cache)[1]


@mistake(near, inputs, "x", "dy itself")
def bam_without_the_one(dy, cache):
    dx, grads = bam.backward(dy, cache)
    return dx - dy, grads


@mistake(near, inputs, "x")
def bam_product_undone_as_a_sum(dy, cache):
    return bam.backward(dy, cache._replace(joined="sum"))[0], bam.backward(dy, cache)[1]


@mistake(near, inputs, "x", "the same along axes (2, 3)")
def bam_channel_branch_forgotten(dy, cache):
    da_s = np.sum(to_a(dy, cache) * cache.a_c, axis=1, keepdims=True)
    return dy * (1 + cache.g) + through_the_pixels(da_s, cache), bam.backward(dy, cache)[1]


@mistake(near, inputs, "x")
def bam_without_the_dilation_on_the_way_back(dy, cache):
    stage = cache.second
    slide = stage.conv.slide._replace(dilation=(1, 1), padding=(1, 1))
    wrong = cache._replace(second=stage._replace(conv=stage.conv._replace(slide=slide)))
    return bam.backward(dy, wrong)[0], bam.backward(dy, cache)[1]


@mistake(near, inputs, "x")
def bam_in_training_undone_as_in_eval(dy, cache):
    still = {
        name: getattr(cache, name)._replace(norm=getattr(cache, name).norm._replace(of_batch=False)) for name in STAGES
    }
    return bam.backward(dy, cache._replace(**still))[0], bam.backward(dy, cache)[1]
