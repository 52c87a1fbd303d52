"""The simple form of coordinate attention, docs/blocks/simple-coordinate.md."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.attention import coordinate
from npattn.attention import simple_coordinate as simple
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, sigmoid, silu
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, reached, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"hidden": 5}, {"bias": False})


def reference(x, w, hidden=None, bias=True):
    """As timm's SimpleCoordAttn has it: the places turned to the front, so that a Linear takes the channels."""
    import torch.nn.functional as F

    assert ("fc1.bias" in w) == bias
    assert hidden in (None, w["fc1.weight"].shape[0])

    def fc(name, s):
        return F.linear(s, w[f"{name}.weight"], w.get(f"{name}.bias"))

    rows, columns = x.mean(3).transpose(1, 2), x.mean(2).transpose(1, 2)
    a_h = fc("fc_h", F.silu(fc("fc1", rows))).transpose(1, 2)
    a_w = fc("fc_w", F.silu(fc("fc1", columns))).transpose(1, 2)
    return x * (a_h[:, :, :, None] + a_w[:, :, None, :]).sigmoid()


def params_of(C, R, seed=3):
    """Weights of order 1."""
    rng = np.random.default_rng(seed)
    shapes = ((R, C), (C, R), (C, R), (R,), (C,), (C,))
    return simple.Params(*(rng.standard_normal(shape) for shape in shapes))


def derivation():
    x, dy = by_index.image(), random(2, 3, 2, 4, seed=22)
    (N, C, H, W), R = x.shape, 2
    params = params_of(C, R)
    w1, w_h, w_w, b1, b_h, b_w = params
    (y, cache), forward = watched(simple.forward, x, params)
    (dx, grads), backward = watched(simple.backward, dy, cache)

    x_h = filled((N, C, H), lambda n, c, h: sum(x[n, c, h, v] for v in range(W)) / W)
    x_w = filled((N, C, W), lambda n, c, v: sum(x[n, c, h, v] for h in range(H)) / H)
    z_h = filled((N, R, H), lambda n, r, h: sum(w1[r, c] * x_h[n, c, h] for c in range(C)) + b1[r])
    z_w = filled((N, R, W), lambda n, r, v: sum(w1[r, c] * x_w[n, c, v] for c in range(C)) + b1[r])
    f_h, f_w = (filled(z.shape, lambda *at: by_index.ACT["silu"](z[at])) for z in (z_h, z_w))  # noqa: B023
    a_h = filled((N, C, H), lambda n, c, h: sum(w_h[c, r] * f_h[n, r, h] for r in range(R)) + b_h[c])
    a_w = filled((N, C, W), lambda n, c, v: sum(w_w[c, r] * f_w[n, r, v] for r in range(R)) + b_w[c])
    g = filled(x.shape, lambda n, c, h, v: by_index.sigmoid(a_h[n, c, h] + a_w[n, c, v]))
    same_at(
        list(walked(forward)), x_h=("SCOORD.1", x_h), x_w=("SCOORD.2", x_w), z_h=("SCOORD.3", z_h),
        z_w=("SCOORD.3", z_w), f_h=("SCOORD.4", f_h), f_w=("SCOORD.4", f_w), a_h=("SCOORD.5", a_h),
        a_w=("SCOORD.5", a_w), g=("SCOORD.6", g),
    )  # fmt: skip
    same(y, x * g, "SCOORD.7")

    da = filled(x.shape, lambda *at: dy[at] * x[at] * g[at] * (1 - g[at]))
    da_h = filled((N, C, H), lambda n, c, h: sum(da[n, c, h, v] for v in range(W)))
    da_w = filled((N, C, W), lambda n, c, v: sum(da[n, c, h, v] for h in range(H)))
    df_h = filled((N, R, H), lambda n, r, h: sum(da_h[n, c, h] * w_h[c, r] for c in range(C)))
    df_w = filled((N, R, W), lambda n, r, v: sum(da_w[n, c, v] * w_w[c, r] for c in range(C)))
    dz_h = filled(df_h.shape, lambda *at: df_h[at] * by_index.ACT_SLOPE["silu"](z_h[at]))
    dz_w = filled(df_w.shape, lambda *at: df_w[at] * by_index.ACT_SLOPE["silu"](z_w[at]))
    dx_h = filled((N, C, H), lambda n, c, h: sum(dz_h[n, r, h] * w1[r, c] for r in range(R)))
    dx_w = filled((N, C, W), lambda n, c, v: sum(dz_w[n, r, v] * w1[r, c] for r in range(R)))
    same_at(
        list(walked(backward)), dg=("SCOORD.7", dy * x), da=("SCOORD.6", da), da_h=("SCOORD.6", da_h),
        da_w=("SCOORD.6", da_w), df_h=("SCOORD.5", df_h), df_w=("SCOORD.5", df_w), dz_h=("SCOORD.4", dz_h),
        dz_w=("SCOORD.4", dz_w), dx_h=("SCOORD.3", dx_h), dx_w=("SCOORD.3", dx_w),
    )  # fmt: skip
    meet = filled(x.shape, lambda n, c, h, v: dy[n, c, h, v] * g[n, c, h, v] + dx_h[n, c, h] / W + dx_w[n, c, v] / H)
    same(dx, meet, "the three ways meet")

    def of_places(at_rows, at_columns, shape):
        """Σ over all places of all images."""
        rows = filled(shape, lambda *i: sum(at_rows(n, h, *i) for n in range(N) for h in range(H)))
        columns = filled(shape, lambda *i: sum(at_columns(n, v, *i) for n in range(N) for v in range(W)))
        return rows, columns

    dw1 = of_places(lambda n, h, r, c: dz_h[n, r, h] * x_h[n, c, h], lambda n, v, r, c: dz_w[n, r, v] * x_w[n, c, v],
                    (R, C))  # fmt: skip
    db1 = of_places(lambda n, h, r: dz_h[n, r, h], lambda n, v, r: dz_w[n, r, v], (R,))
    same(grads.w1, dw1[0] + dw1[1], "dw1: rows and columns")
    same(grads.b1, db1[0] + db1[1], "db1: rows and columns")
    dw_h, dw_w = of_places(
        lambda n, h, c, r: da_h[n, c, h] * f_h[n, r, h], lambda n, v, c, r: da_w[n, c, v] * f_w[n, r, v], (C, R)
    )
    db_h, db_w = of_places(lambda n, h, c: da_h[n, c, h], lambda n, v, c: da_w[n, c, v], (C,))
    for name, wanted in (("w_h", dw_h), ("w_w", dw_w), ("b_h", db_h), ("b_w", db_w)):
        same(getattr(grads, name), wanted, f"d{name}")


def claim_the_two_biases_have_one_gradient():
    """Only their sum is in a gate: what one gains the other may lose."""
    x, params = by_index.image(), params_of(3, 2)
    y, cache = simple.forward(x, params)
    _, grads = simple.backward(random(*x.shape, seed=5), cache)
    same(grads.b_h, grads.b_w, "one gradient")
    moved = params._replace(b_h=params.b_h + 0.7, b_w=params.b_w - 0.7)
    same(simple.forward(x, moved)[0], y, "one sum")


def claim_a_pixel_sees_its_row_and_its_column():
    """In training as well: no statistic ties the rest to it."""
    x = random(2, 3, 4, 5)
    _, cache = simple.forward(x, params_of(3, 2))
    cross = reached(simple.backward, cache, x.shape, (1, 2))
    assert cross[1, :].all()
    assert cross[:, 2].all()
    assert np.count_nonzero(cross) == 4 + 5 - 1


def claim_no_image_knows_of_another():
    """The simple form gives each image what it would have alone; the full one, in training, does not."""
    x = random(3, 4, 3, 5)
    alone = simple.forward(x[:1], params_of(4, 2))[0]
    same(simple.forward(x, params_of(4, 2))[0][:1], alone, "alone")
    norm = batch_norm.Params(np.ones(2), np.zeros(2))
    full = coordinate.Params(random(2, 4), norm, random(4, 2, seed=1), random(4, 2, seed=2))
    assert np.abs(coordinate.forward(x, full)[0][:1] - coordinate.forward(x[:1], full)[0]).max() > 0.01


def claim_the_odds_are_a_product():
    """g / (1 − g) is eᵃʰ · eᵃʷ: of rank 1 over rows and columns, where the full form's gate itself is."""
    layer = npattn.SimpleCoordinateAttention(4, 2, dtype="float64", rng=1)
    x = random(1, 4, 3, 5)
    by_index.weights(layer, 2)(x)
    g = layer.attention["pixel"][0]
    odds = g / (1 - g)
    for c in range(4):
        assert np.linalg.matrix_rank(odds[c], tol=1e-9 * np.abs(odds[c]).max()) == 1
        assert np.linalg.matrix_rank(g[c], tol=1e-9) > 1
    same(layer(x), x * layer.attention["pixel"], "y is x times the gates")


def claim_a_row_or_a_column_can_be_marked():
    a = np.full(4, -3.0)
    a[1] = 6
    g = by_index.sigmoid(a[:, None] + a[None, :])
    marked = np.zeros((4, 4), bool)
    marked[1, :] = marked[:, 1] = True
    assert g[marked].min() > 0.95
    assert g[~marked].max() < 0.01


def claim_what_the_layer_says():
    layer = npattn.SimpleCoordinateAttention(48)
    assert layer.count() == 3 * 48 * 8 + 8 + 2 * 48
    assert npattn.SimpleCoordinateAttention(48, bias=False).count() == 3 * 48 * 8
    assert gates_of(layer, random(2, 48, 3, 5)) == {"pixel": (2, 48, 3, 5)}


# Wrong backwards


def inputs(rng):
    shapes = ((3, 4), (4, 3), (4, 3), (3,), (4,), (4,))
    return image(rng), simple.Params(*(rng.standard_normal(shape) for shape in shapes))


def to_the_hidden_units(dy, cache):
    """What comes back to z_h and z_w."""
    da = sigmoid.backward(dy * cache.x, cache.gate)
    df_h, df_w = cache.params.w_h.T @ np.sum(da, axis=3), cache.params.w_w.T @ np.sum(da, axis=2)
    return silu.backward(df_h, cache.rows), silu.backward(df_w, cache.columns)


@mistake(simple.forward, inputs, "x", "direct path")
def simple_direct_path_alone(dy, cache):
    return dy * cache.g, simple.backward(dy, cache)[1]


@mistake(simple.forward, inputs, "params.w1")
def simple_shared_matrix_by_the_rows_alone(dy, cache):
    dx, grads = simple.backward(dy, cache)
    dz_h, _ = to_the_hidden_units(dy, cache)
    return dx, grads._replace(w1=np.sum(dz_h @ cache.x_h.mT, axis=0))  # it was used for the columns, too


@mistake(simple.forward, inputs, "x")
def simple_lengths_of_rows_and_columns_swapped(dy, cache):
    _, grads = simple.backward(dy, cache)
    dx_h, dx_w = (cache.params.w1.T @ dz for dz in to_the_hidden_units(dy, cache))
    H, W = dy.shape[2:]
    return dy * cache.g + dx_h[:, :, :, None] / H + dx_w[:, :, None, :] / W, grads  # a row has W pixels


@mistake(simple.forward, inputs, "params.w_w", "or 1/H")
def simple_sum_of_a_broadcast_taken_as_a_mean(dy, cache):
    dx, grads = simple.backward(dy, cache)
    da_w = np.mean(sigmoid.backward(dy * cache.x, cache.gate), axis=2)
    return dx, grads._replace(w_w=np.sum(da_w @ cache.f_w.mT, axis=0))


@mistake(simple.forward, inputs, "params.b1")
def simple_silu_taken_for_a_gate_that_is_given(dy, cache):
    dx, grads = simple.backward(dy, cache)
    da = sigmoid.backward(dy * cache.x, cache.gate)
    db1 = np.sum((cache.params.w_h.T @ np.sum(da, axis=3)) * cache.rows.gate.y, axis=(0, 2))
    db1 += np.sum((cache.params.w_w.T @ np.sum(da, axis=2)) * cache.columns.gate.y, axis=(0, 2))
    return dx, grads._replace(b1=db1)
