"""Non-local attention, docs/blocks/non-local.md."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import npattn
from npattn import capacity
from npattn.attention import non_local
from npattn.explain.watch import walked, watched
from npattn.ops import batch_norm, dot_product_attention, linear, softmax
from tests.support.by_index import filled, gates_of, normal, normal_back, random, reached, same, same_at
from tests.support.mistakes import image, mistake

SQUARES = True
MORE = ({"scale": 1.0}, {"hidden": 5, "scale": -0.5})


def reference(x, w, hidden=None, scale=None, buffers=None):
    """With torch's own attention, and its norm; with buffers in eval."""
    import torch.nn.functional as F

    def pixels(name):
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias")).flatten(2).transpose(1, 2)

    z = F.scaled_dot_product_attention(pixels("theta"), pixels("phi"), pixels("g"), scale=scale)
    rows = F.linear(z, w["out.weight"][:, :, 0, 0], w.get("out.bias"))
    o = rows.transpose(1, 2).unflatten(2, x.shape[2:])
    running = (None, None) if buffers is None else (buffers["bn.running_mean"], buffers["bn.running_var"])
    return x + F.batch_norm(o, *running, w["bn.weight"], w["bn.bias"], training=buffers is None)


def params_of(C, R, biases=True):
    rng = np.random.default_rng(7)
    maps = [rng.standard_normal((R, C)) for _ in range(3)] + [rng.standard_normal((C, R))]
    norm = batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))
    return non_local.Params(*maps, norm, *([rng.standard_normal(n) for n in (R, R, R, C)] if biases else ()))


def running_of(C):
    return non_local.Running(batch_norm.Running(random(C, seed=4), 0.2 + random(C, seed=5) ** 2))


def derivation():
    for running in (None, running_of(3)):
        compared(running)


def compared(running):
    N, C, H, W, R = 2, 3, 2, 3, 2
    x, dy = random(N, C, H, W, seed=20), random(N, C, H, W, seed=22)
    P, scale = H * W, 0.6
    params = params_of(C, R)
    w_q, w_k, w_v, w_o, (gamma, beta), b_q, b_k, b_v, b_o = params
    (y, cache), forward = watched(non_local.forward, x, params, running, scale)
    (dx, grads), backward = watched(non_local.backward, dy, cache)

    t = filled((N, P, C), lambda n, i, c: x[n, c, i // W, i % W])
    q, k, v = (
        filled((N, P, R), lambda n, i, r, w=w, b=b: sum(w[r, c] * t[n, i, c] for c in range(C)) + b[r])
        for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v))
    )
    fit = filled((N, P, P), lambda n, i, j: math.exp(scale * sum(q[n, i, r] * k[n, j, r] for r in range(R))))
    a = filled((N, P, P), lambda n, i, j: fit[n, i, j] / sum(fit[n, i, m] for m in range(P)))
    z = filled((N, P, R), lambda n, i, r: sum(a[n, i, j] * v[n, j, r] for j in range(P)))
    o = filled((N, C, P), lambda n, c, i: sum(w_o[c, r] * z[n, i, r] for r in range(R)) + b_o[c])
    by_channel = np.swapaxes(o, 0, 1).reshape(C, N * P)
    if running is None:
        o_hat, rho = normal(by_channel, 1e-5)
    else:
        rho = 1 / np.sqrt(running.norm.var + 1e-5)
        o_hat = filled((C, N * P), lambda c, m: (by_channel[c, m] - running.norm.mean[c]) * rho[c])
    u = filled(x.shape, lambda n, c, h, col: gamma[c] * o_hat[c, n * P + h * W + col] + beta[c])
    same_at(
        list(walked(forward)), t=("NL.1", t), q=("NL.2", q), k=("NL.2", k), v=("NL.2", v), z=("NL.3", z),
        o=("NL.4", o.reshape(x.shape)), u=("NL.5", u),
    )  # fmt: skip
    same(cache.attended.shares.y, a, "the shares")
    same(y, x + u, "NL.6")

    do_hat = filled((C, N * P), lambda c, m: gamma[c] * dy[m // P, c].ravel()[m % P])
    by_norm = normal_back(do_hat, o_hat, rho) if running is None else do_hat * rho[:, None]
    do = np.swapaxes(by_norm.reshape(C, N, P), 0, 1)
    dz = filled((N, P, R), lambda n, i, r: sum(w_o[c, r] * do[n, c, i] for c in range(C)))
    da = filled((N, P, P), lambda n, i, j: sum(dz[n, i, r] * v[n, j, r] for r in range(R)))
    mean = filled((N, P), lambda n, i: sum(dz[n, i, r] * z[n, i, r] for r in range(R)))  # dz · z is the mean of da
    ds = filled((N, P, P), lambda n, i, j: a[n, i, j] * (da[n, i, j] - mean[n, i]))
    dv = filled((N, P, R), lambda n, j, r: sum(a[n, i, j] * dz[n, i, r] for i in range(P)))
    dq = filled((N, P, R), lambda n, i, r: scale * sum(ds[n, i, j] * k[n, j, r] for j in range(P)))
    dk = filled((N, P, R), lambda n, j, r: scale * sum(ds[n, i, j] * q[n, i, r] for i in range(P)))
    same_at(
        list(walked(backward)), do=("NL.5", do.reshape(x.shape)), dz=("NL.4", dz), dq=("NL.3", dq), dk=("NL.3", dk),
        dv=("NL.3", dv),
    )  # fmt: skip
    ways = ((dq, w_q), (dk, w_k), (dv, w_v))
    dt = filled((N, P, C), lambda n, i, c: sum(d[n, i, r] * w[r, c] for d, w in ways for r in range(R)))
    same(dx, dy + np.swapaxes(dt, 1, 2).reshape(x.shape), "four ways meet")
    for name, d in (("q", dq), ("k", dk), ("v", dv)):
        wanted = filled((R, C), lambda r, c, d=d: sum(d[n, i, r] * t[n, i, c] for n in range(N) for i in range(P)))
        same(getattr(grads, f"w_{name}"), wanted, f"dw_{name}")
        same(getattr(grads, f"b_{name}"), d.sum(axis=(0, 1)), f"db_{name}")
    same(grads.w_o, filled((C, R), lambda c, r: np.sum(do[:, c] * z[:, :, r])), "dw_o")
    same(grads.b_o, do.sum(axis=(0, 2)), "db_o")
    same(grads.norm.gamma, filled((C,), lambda c: np.sum(dy[:, c].ravel() * o_hat[c])), "dgamma")
    same(grads.norm.beta, dy.sum(axis=(0, 2, 3)), "dbeta")


def claim_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    _, cache = non_local.forward(x, params_of(3, 2), running_of(3))
    assert reached(non_local.backward, cache, x.shape, (0, 4)).all()


def claim_places_do_not_count():
    """Pixels in another order come out in that order: nothing knows where a pixel stands."""
    x, order = random(2, 3, 1, 7), np.random.default_rng(1).permutation(7)
    y, _ = non_local.forward(x, params_of(3, 2))
    same(non_local.forward(x[:, :, :, order], params_of(3, 2))[0], y[:, :, :, order], "shuffled")


def claim_three_of_the_four_biases_do_nothing_in_training():
    """That of the keys shifts a row of scores; the other two shift what the norm shifts back."""
    x, dy, params = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1), params_of(3, 2)
    y, cache = non_local.forward(x, params)
    without = params._replace(b_k=np.zeros(2), b_v=np.zeros(2), b_o=np.zeros(3))
    same(non_local.forward(x, without)[0], y, "without three of them")
    grads = non_local.backward(dy, cache)[1]
    assert max(np.abs(g).max() for g in (grads.b_k, grads.b_v, grads.b_o)) < 1e-12 < np.abs(grads.b_q).min()
    grads = non_local.backward(dy, non_local.forward(x, params, running_of(3))[1])[1]
    assert np.abs(grads.b_k).max() < 1e-12 < min(np.abs(grads.b_v).min(), np.abs(grads.b_o).min())


def claim_biases_in_eval_are_as_torch_has_them():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layer = npattn.NonLocal(6, 3, bias=True, dtype="float64", rng=0).eval()
    rng = np.random.default_rng(8)
    layer.load_state_dict(
        {key: rng.standard_normal(w.shape) for key, w in layer.params.items()}
        | {"bn.running_mean": rng.standard_normal(6), "bn.running_var": rng.uniform(0.5, 2, 6)}
    )
    x, dy = random(2, 6, 3, 5), random(2, 6, 3, 5, seed=1)
    weights = {key: torch.tensor(w, requires_grad=True) for key, w in layer.params.items()}
    y = reference(torch.tensor(x), weights, buffers={key: torch.tensor(b) for key, b in layer.buffers.items()})
    y.backward(torch.tensor(dy))
    same(layer(x), y.detach().numpy(), "y")
    layer.backward(dy)
    for key, gradient in layer.grads.items():
        same(gradient, weights[key].grad.numpy(), key)


def claim_a_single_pixel_gives_itself_all():
    """H = W = 1: the share is 1, z is v, and nothing comes back to queries and keys."""
    x = random(3, 4, 1, 1)
    _, cache = non_local.forward(x, params_of(4, 2))
    assert (cache.attended.shares.y == 1).all()
    same(cache.outward.x, linear.forward(cache.values.x, cache.values.params)[0], "z is v")
    grads = non_local.backward(random(3, 4, 1, 1, seed=1), cache)[1]
    assert not grads.w_q.any()
    assert not grads.w_k.any()


def claim_it_begins_as_nothing():
    layer = npattn.NonLocal(4, dtype="float64", rng=0)
    x = random(2, 4, 3, 5)
    same(layer(x), x, "gamma is 0")
    layer.backward(random(2, 4, 3, 5, seed=1))
    assert [key for key, gradient in layer.grads.items() if gradient.any()] == ["bn.weight", "bn.bias"]


def claim_all_pairs_are_kept_once_and_asked_for_first():
    """N P² numbers stay in the cache, and where their arrays do not fit they are refused by name."""
    x, params = random(2, 3, 4, 5), params_of(3, 2)
    _, cache = non_local.forward(x, params)
    assert [part.shape for part in arrays(cache) if part.size >= 2 * 20 * 20] == [(2, 20, 20)]
    q, dy = random(1, 400, 1), random(1, 400, 1, seed=1)
    tracemalloc.start()
    try:
        _, cache = dot_product_attention.forward(q, q, q)
        dot_product_attention.backward(dy, cache)
        assert 3.9 < tracemalloc.get_traced_memory()[1] / (400 * 400 * 8) < 4.2
    finally:
        tracemalloc.stop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capacity, "capacity", lambda: 2**30)
        with pytest.raises(MemoryError, match=r"^x: 4 arrays of all pairs, 1 of 16,384 × 16,384: 8 GiB of memory"):
            non_local.forward(np.zeros((1, 3, 128, 128)), params)
        with pytest.raises(MemoryError, match=r"^q, k: 4 arrays of all pairs, 2 of 16,384 × 16,384: 8 GiB of memory"):
            dot_product_attention.forward(*[np.zeros((2, 16384, 1), np.float32)] * 3)


def arrays(tree):
    """The arrays of a cache."""
    for part in tree:
        if isinstance(part, np.ndarray):
            yield part
        elif isinstance(part, tuple):
            yield from arrays(part)


def claim_what_the_layer_says():
    layer = npattn.NonLocal(8)
    assert layer.count() == 4 * 8 * 4 + 2 * 8
    assert npattn.NonLocal(8, bias=True).count() == 4 * 8 * 4 + 3 * 4 + 8 + 2 * 8
    assert gates_of(layer, random(2, 8, 4, 5)) == {"pairs": (2, 4, 5, 4, 5)}
    pairs = layer.attention["pairs"]
    np.testing.assert_allclose(pairs.sum(axis=(3, 4)), 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"ratio: expected at most in_channels = 4, got 8: 4 // 8 = 0 would leave no"):
        npattn.NonLocal(4, ratio=8)
    with pytest.raises(ValueError, match=r"w_k: expected shape \(R=2, C=3\), got \(1, 3\)"):
        non_local.forward(random(2, 3, 4, 5), params_of(3, 2)._replace(w_k=random(1, 3)))
    with pytest.raises(ValueError, match=r"b_v: expected shape \(R=2\), got \(3,\)"):
        non_local.forward(random(2, 3, 4, 5), params_of(3, 2)._replace(b_v=random(3)))
    with pytest.raises(ValueError, match=r"b_o: expected shape \(C=3\), got \(2,\)"):
        non_local.forward(random(2, 3, 4, 5), params_of(3, 2)._replace(b_o=random(2)))


# Wrong backwards

RIGHT = dot_product_attention.backward


def inputs(rng):
    maps = [rng.standard_normal((5, 4)) for _ in range(3)] + [rng.standard_normal((4, 5))]
    norm = batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))
    return image(rng, (2, 4, 2, 3)), non_local.Params(*maps, norm)


def in_eval(x, params):
    return non_local.forward(x, params, running_of(4))


def with_attention_undone_by(undo, dy, cache):
    """The right backward, but for the attention's, which `undo` is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dot_product_attention, "backward", undo)
        return non_local.backward(dy, cache)


@mistake(non_local.forward, inputs, "x")
def non_local_shares_taken_for_constants(dy, cache):
    def undo(dz, attended):
        dq, dk, dv = RIGHT(dz, attended)
        return 0 * dq, 0 * dk, dv

    return with_attention_undone_by(undo, dy, cache)[0], non_local.backward(dy, cache)[1]


@mistake(non_local.forward, inputs, "x", "a missing term: dy itself, which a skip connection hands on")
def non_local_without_the_way_past_it(dy, cache):
    dx, grads = non_local.backward(dy, cache)
    return dx - dy, grads


@mistake(non_local.forward, inputs, "params.w_k")
def non_local_keys_not_transposed(dy, cache):
    def undo(dz, attended):
        dq, _, dv = RIGHT(dz, attended)
        q, _, v, shares, scale = attended
        da = dz @ v.mT
        ds = shares.y * (da - (da * shares.y).sum(axis=2, keepdims=True))
        return dq, scale * (ds @ q), dv  # P × P either way, so no shape complains

    return with_attention_undone_by(undo, dy, cache)


@mistake(non_local.forward, inputs, "params.w_q")
def non_local_softmax_over_the_wrong_axis(dy, cache):
    def undo(dz, attended):
        _, dk, dv = RIGHT(dz, attended)
        _, k, v, shares, scale = attended
        da = dz @ v.mT
        ds = shares.y * (da - (da * shares.y).sum(axis=1, keepdims=True))
        return scale * (ds @ k), dk, dv

    return with_attention_undone_by(undo, dy, cache)


@mistake(in_eval, inputs, "params.w_q")
def non_local_scale_forgotten_on_the_way_back(dy, cache):
    def undo(dz, attended):
        dq, dk, dv = RIGHT(dz, attended)
        return dq / attended.scale, dk / attended.scale, dv

    return with_attention_undone_by(undo, dy, cache)


@mistake(non_local.forward, inputs, "x")
def non_local_in_training_undone_as_in_eval(dy, cache):
    return non_local.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))


def with_biases(rng):
    x, params = inputs(rng)
    biases = (rng.standard_normal(size) for size in (5, 5, 5, 4))
    return x, non_local.Params(*params[:5], *biases)


@mistake(non_local.forward, with_biases, "params.b_k", "the outer product in a softmax's Jacobian")
def non_local_softmax_without_its_outer_product(dy, cache):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(softmax, "backward", lambda da, shares: shares.y * da)
        return non_local.backward(dy, cache)


@mistake(non_local.forward, with_biases, "params.b_o", "a normalisation's mean")
def non_local_norm_undone_as_a_factor_before_its_bias(dy, cache):
    return non_local.backward(dy, cache._replace(norm=cache.norm._replace(of_batch=False)))
