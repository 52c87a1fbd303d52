"""The formulas of docs/blocks/wrong.md, concat.md and psa.md, written out index by index, against the pairs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import npattn
from npattn.attention import channel, concat, psa, se, wrong
from npattn.ops import conv2d
from tests.test_derivations import filled, same, sigmoid


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(20).standard_normal((2, 3, 2, 4))


def random(*shape: int, seed: int = 21) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# SE without FC


def test_squeeze_as_scale(x):
    N, C, H, W = x.shape
    P = H * W
    xp, dyp = x.reshape(N, C, P), random(N, C, P)
    y, cache = wrong.squeeze_forward(x)
    s = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    same(y.reshape(N, C, P), filled((N, C, P), lambda n, c, p: xp[n, c, p] * s[n, c]), "NOFC.2")
    ds = filled((N, C), lambda n, c: sum(dyp[n, c, p] * xp[n, c, p] for p in range(P)))
    dx = filled((N, C, P), lambda n, c, p: dyp[n, c, p] * s[n, c] + ds[n, c] / P)
    same(wrong.squeeze_backward(dyp.reshape(x.shape), cache).reshape(N, C, P), dx, "the two ways meet")


def test_squeeze_as_scale_is_of_degree_two(x):
    """Twice the input gives four times the output: no gate does that. And Euler: Σ x · dx = 2 Σ y · dy."""
    y, cache = wrong.squeeze_forward(x)
    same(wrong.squeeze_forward(2 * x)[0], 4 * y, "degree two")
    dy = random(*x.shape)
    assert np.sum(x * wrong.squeeze_backward(dy, cache)) == pytest.approx(2 * np.sum(y * dy))
    assert np.all(wrong.squeeze_forward(-x)[0] == y)  # even: the sign is lost


def test_squeeze_as_scale_keeps_to_its_channel(x):
    """What a channel's factor is, no other channel has a say in: dx of the others is exactly 0."""
    dy = np.zeros_like(x)
    dy[:, 1] = random(2, 2, 4)
    dx = wrong.squeeze_backward(dy, wrong.squeeze_forward(x)[1])
    assert np.any(dx[:, 1] != 0)
    assert np.all(np.delete(dx, 1, axis=1) == 0)
    w1, w2 = random(2, 3), random(3, 2, seed=22)
    through_fc = se.backward(dy, se.forward(x, se.Params(w1, w2))[1])[0]
    assert np.any(np.delete(through_fc, 1, axis=1) != 0), "SE's FC must mix the channels, or the comparison is empty"


def test_squeeze_as_scale_has_nothing_to_learn():
    layer = npattn.SqueezeScale()
    layer.backward(layer(np.ones((1, 2, 3, 3), np.float32)))
    assert layer.params == layer.grads == {}
    assert layer.count() == 0


# SE by convolution


def test_gate_by_convolution(x):
    N, C, H, W = x.shape
    w = random(C, C, 3, 3)
    q = 1

    def at(array, h, v):
        return array[h, v] if 0 <= h < H and 0 <= v < W else 0.0

    around = [(c, i, j) for c in range(C) for i in range(3) for j in range(3)]
    a = filled(
        x.shape,
        lambda n, m, h, v: sum(w[m, c, i, j] * at(x[n, c], h + i - q, v + j - q) for c, i, j in around),
    )
    g = sigmoid(a)
    y, cache = wrong.conv_forward(x, wrong.ConvParams(w))
    same(y, x * g, "CG.3")
    dy = random(*x.shape)
    da = dy * x * g * (1 - g)
    dx_gate = filled(
        x.shape,
        lambda n, c, h, v: sum(w[m, c, i, j] * at(da[n, m], h - i + q, v - j + q) for m, i, j in around),
    )
    dw = filled(
        w.shape,
        lambda m, c, i, j: sum(
            da[n, m, h, v] * at(x[n, c], h + i - q, v + j - q) for n, h, v in product(range(N), range(H), range(W))
        ),
    )
    dx, grads = wrong.conv_backward(dy, cache)
    same(dx, dy * g + dx_gate, "the two ways meet")
    same(grads.w, dw, "CG.1")


def reached(backward, cache, shape, pixel) -> np.ndarray:
    """Which pixels (H, W) the gradient of one output pixel comes back to."""
    dy = np.zeros(shape)
    dy[:, :, pixel[0], pixel[1]] = 1
    return np.any(backward(dy, cache)[0] != 0, axis=(0, 1))


def test_how_far_a_pixel_sees():
    """A convolution's gate sees its k×k neighbours, SE's sees the image: read off from where gradients come back."""
    x = random(2, 3, 9, 8)
    local = reached(
        wrong.conv_backward, wrong.conv_forward(x, wrong.ConvParams(random(3, 3, 3, 3)))[1], x.shape, (4, 5)
    )
    expected = np.zeros((9, 8), bool)
    expected[3:6, 4:7] = True
    np.testing.assert_array_equal(local, expected)
    assert reached(se.backward, se.forward(x, se.Params(random(2, 3), random(3, 2)))[1], x.shape, (4, 5)).all()


def test_convolution_after_the_squeeze_is_fc(x):
    """On one pixel a k×k convolution is FC: only the kernel's middle meets it, every other weight has gradient 0."""
    s = np.mean(x, axis=(2, 3), keepdims=True)
    w = random(4, 3, 3, 3)
    y, cache = conv2d.forward(s, conv2d.Params(w))
    same(y[:, :, 0, 0], s[:, :, 0, 0] @ w[:, :, 1, 1].T, "FC")
    dw = conv2d.backward(random(*y.shape), cache)[1].w
    assert np.any(dw[:, :, 1, 1] != 0)
    dw[:, :, 1, 1] = 0
    assert np.all(dw == 0)


def test_a_convolution_contains_a_scale(x):
    """With g in the middle of its diagonal a plain convolution scales each channel, by the same for all images."""
    g = random(3)
    w = np.zeros((3, 3, 3, 3))
    w[range(3), range(3), 1, 1] = g
    same(conv2d.forward(x, conv2d.Params(w))[0], x * g[:, None, None], "a scale")


# In parallel


def test_gate_in_parallel(x):
    N, B, H, W = x.shape
    P, R, C = H * W, 2, 4
    w1, w2 = random(R, B), random(C, R)
    g, cache = wrong.gate_forward(x, channel.Params(w1, w2))
    s = filled((N, B), lambda n, b: sum(x.reshape(N, B, P)[n, b]) / P)
    z = filled((N, R), lambda n, r: sum(s[n, b] * w1[r, b] for b in range(B)))
    h = np.maximum(z, 0)
    wanted = filled((N, C), lambda n, c: sigmoid(sum(h[n, r] * w2[c, r] for r in range(R))))
    same(g[:, :, 0, 0], wanted, "PAR.4")
    dg = random(N, C)
    da = dg * wanted * (1 - wanted)
    dz = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)) if z[n, r] > 0 else 0)
    ds = filled((N, B), lambda n, b: sum(dz[n, r] * w1[r, b] for r in range(R)))
    dx, grads = wrong.gate_backward(dg[:, :, None, None], cache)
    assert np.any(dz == 0)
    assert np.any(dz != 0)
    same(dx, np.broadcast_to(ds[:, :, None, None] / P, x.shape), "PAR.2")
    same(grads.w1, np.einsum("nr,nb->rb", dz, s), "PAR.3, dw1")
    same(grads.w2, np.einsum("nc,nr->cr", da, h), "PAR.3, dw2")


def weights(layer: npattn.Layer, seed: int) -> npattn.Layer:
    """The layer with O(1) weights."""
    rng = np.random.default_rng(seed)
    return layer.load_state_dict({key: rng.standard_normal(w.shape) for key, w in layer.params.items()})


def test_what_the_gate_in_parallel_tells_the_transformation(x):
    """Behind F the gate's gradient goes into F's weights; beside F it does not: there du is dy · g and nothing more."""
    F = weights(npattn.Conv2d(3, 4, 3, dtype="float64"), 1)
    gate = weights(npattn.SEGate(3, 4, 2, dtype="float64"), 2)
    parallel = npattn.ParallelSE(F, gate)
    dy = random(2, 4, 2, 4)
    y = parallel(x)
    same(y, F(x) * gate(x), "PAR.5")
    parallel.backward(dy)
    _, alone = conv2d.backward(dy * gate(x), conv2d.forward(x, conv2d.Params(*F.params.values()))[1])
    same(parallel.grads["transform.weight"], alone.w, "F's weights hear of the direct path only")

    behind = npattn.Sequential(F, weights(npattn.SELayer(4, 2, dtype="float64"), 3))
    g = behind.layers["1"](F(x)) / F(x)
    behind(x)
    behind.backward(dy)
    _, direct = conv2d.backward(dy * g, conv2d.forward(x, conv2d.Params(*F.params.values()))[1])
    through_gate = behind.grads["0.weight"] - direct.w
    assert np.linalg.norm(through_gate) > 1e-3 * np.linalg.norm(direct.w)


def test_a_gate_with_the_identity_for_f_is_se(x):
    """F = 1: then beside and behind are one, and the parallel structure is SE, gradients and all."""
    identity = npattn.Conv2d(3, 3, 1, bias=False, dtype="float64")
    identity.load_state_dict({"weight": np.eye(3)[:, :, None, None]})
    gate = weights(npattn.SEGate(3, 3, 1, dtype="float64"), 4)
    layer, twin = npattn.ParallelSE(identity, gate), npattn.SELayer(3, 1, dtype="float64")
    twin.load_state_dict(gate.state_dict())
    dy = random(*x.shape)
    same(layer(x), twin(x), "y")
    same(layer.backward(dy), twin.backward(dy), "dx")
    for key, gradient in twin.grads.items():
        same(layer.grads[f"gate.{key}"], gradient, key)


# Pool-and-concatenate


def test_concatenated_descriptors(x):
    N, C, H, W = x.shape
    P, R = H * W, 2
    w1, w2 = random(R, 2 * C), random(C, R)
    xp = x.reshape(N, C, P)
    first = filled((N, C), lambda n, c: next(p for p in range(P) if xp[n, c, p] == max(xp[n, c]))).astype(int)
    s_avg = filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P)
    s_max = filled((N, C), lambda n, c: xp[n, c, first[n, c]])
    s = filled((N, 2 * C), lambda n, e: s_avg[n, e] if e < C else s_max[n, e - C])
    z = filled((N, R), lambda n, r: sum(s[n, e] * w1[r, e] for e in range(2 * C)))
    h = np.maximum(z, 0)
    g = filled((N, C), lambda n, c: sigmoid(sum(h[n, r] * w2[c, r] for r in range(R))))
    found, cache = concat.forward(x, concat.Params(w1, w2))
    same(found[:, :, 0, 0], g, "CAT.5")

    dg = random(N, C)
    da = dg * g * (1 - g)
    dz = filled((N, R), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)) if z[n, r] > 0 else 0)
    ds = filled((N, 2 * C), lambda n, e: sum(dz[n, r] * w1[r, e] for r in range(R)))
    dx = filled((N, C, P), lambda n, c, p: (ds[n, C + c] if p == first[n, c] else 0) + ds[n, c] / P)
    found_dx, grads = concat.backward(dg[:, :, None, None], cache)
    same(found_dx.reshape(N, C, P), dx, "the two poolings meet")
    same(grads.w1, np.einsum("nr,ne->re", dz, s), "CAT.4, dw1")
    same(grads.w2, np.einsum("nc,nr->cr", da, h), "CAT.4, dw2")


def test_concatenating_is_two_matrices_added_before_the_relu(x):
    """[s_avg, s_max] [A, B]ᵀ = s_avg Aᵀ + s_max Bᵀ. With B = 0 it is SE's gate, with A = B one MLP of the sum."""
    A, w2 = random(2, 3), random(3, 2)
    alone = concat.forward(x, concat.Params(np.concatenate([A, np.zeros_like(A)], axis=1), w2))[0]
    same(alone, wrong.gate_forward(x, channel.Params(A, w2))[0], "B = 0")
    both = concat.forward(x, concat.Params(np.concatenate([A, A], axis=1), w2))[0]
    s = np.mean(x, axis=(2, 3)) + np.max(x, axis=(2, 3))
    same(both[:, :, 0, 0], sigmoid(np.maximum(s @ A.T, 0) @ w2.T), "A = B")
    cbam_gate = channel.forward(x, channel.Params(A, w2))[0]
    assert np.max(np.abs(both - cbam_gate)) > 1e-3, "the ReLU stands before the sum in CBAM: not the same"


def test_first_of_tied_maxima(x):
    tied = np.full((1, 2, 2, 3), 7.0)
    w1, w2 = np.array([[0.0, 0.0, 1.0, 0.5]]), np.ones((2, 1))
    _, cache = concat.forward(tied, concat.Params(w1, w2))
    dx, _ = concat.backward(np.ones((1, 2, 1, 1)), cache)
    assert np.all(dx[:, :, 0, 0] != 0)
    dx[:, :, 0, 0] = 0
    assert np.all(dx == 0)


# Point-wise spatial attention


def test_point_wise_attention_pixel_by_pixel():
    N, C, H, W = 2, 3, 2, 4
    x, dy = random(N, C, H, W), random(N, C, H, W, seed=22)
    D = (2 * H - 1) * (2 * W - 1)
    w_c, w_d, w = random(D, C, seed=1), random(D, C, seed=2), random(C, 3 * C, seed=3)
    pixels = list(product(range(H), range(W)))

    def place(i, j):
        """Δ(i, j): rows down and columns right from i to j, from the top left corner of the over-completed map."""
        return (j[0] - i[0] + H - 1) * (2 * W - 1) + (j[1] - i[1] + W - 1)

    P = H * W
    y, dx = np.zeros_like(x), np.zeros_like(x)
    dw_c, dw_d, dw = np.zeros_like(w_c), np.zeros_like(w_d), np.zeros_like(w)
    for n in range(N):
        t = {p: x[n, :, p[0], p[1]] for p in pixels}
        a_c = {(i, j): w_c[place(i, j)] @ t[i] for i in pixels for j in pixels}
        a_d = {(i, j): w_d[place(j, i)] @ t[j] for i in pixels for j in pixels}
        z_c = {i: sum(a_c[i, j] * t[j] for j in pixels) / P for i in pixels}
        z_d = {i: sum(a_d[i, j] * t[j] for j in pixels) / P for i in pixels}
        dt = {p: np.zeros(C) for p in pixels}
        for i in pixels:
            v = np.concatenate([t[i], z_c[i], z_d[i]])
            y[n, :, i[0], i[1]] = w @ v
            d = dy[n, :, i[0], i[1]]
            dw += np.outer(d, v)
            self_, dz_c, dz_d = np.split(w.T @ d, 3)
            dt[i] += self_
            for j in pixels:
                dt[j] += a_c[i, j] * dz_c / P + a_d[i, j] * dz_d / P
                da_c, da_d = dz_c @ t[j] / P, dz_d @ t[j] / P
                dt[i] += da_c * w_c[place(i, j)]
                dw_c[place(i, j)] += da_c * t[i]
                dt[j] += da_d * w_d[place(j, i)]
                dw_d[place(j, i)] += da_d * t[j]
        for p in pixels:
            dx[n, :, p[0], p[1]] = dt[p]
    found, cache = psa.forward(x, psa.Params(w_c, w_d, w))
    same(found, y, "PSA.8")
    found_dx, grads = psa.backward(dy, cache)
    same(found_dx, dx, "five ways meet")
    for one, other, name in zip(grads, (dw_c, dw_d, dw), ("dw_c", "dw_d", "dw"), strict=True):
        same(one, other, name)


@pytest.mark.parametrize(("H", "W"), [(1, 1), (1, 5), (3, 2), (4, 4)])
def test_every_number_of_the_map_is_read_once_at_most(H: int, W: int):
    """D numbers a pixel, H·W of them read, none twice; unread is read's transpose."""
    D, P = (2 * H - 1) * (2 * W - 1), H * W
    index = psa.places(H, W, np.zeros(1))
    assert index.min() >= 0
    assert index.max() < D
    assert all(len(set(row)) == P for row in index.tolist())
    m, a = random(2, P, D), random(2, P, P)
    assert np.sum(psa.read(m, H, W) * a) == pytest.approx(np.sum(m * psa.unread(a, H, W)))
    assert np.count_nonzero(psa.unread(np.ones((1, P, P)), H, W)) == P * P


def test_collect_and_distribute_are_each_others_transpose():
    """With the same weights in both branches, what i collects from j is what i distributes to j: a_d = a_cᵀ."""
    w = random(15, 3)
    _, cache = psa.forward(random(1, 3, 2, 3), psa.Params(w, w, random(3, 9)))
    same(cache.a_d, np.swapaxes(cache.a_c, 1, 2), "transposed")


def test_a_pixel_sees_the_whole_image():
    x = random(2, 3, 4, 5)
    _, cache = psa.forward(x, psa.Params(random(63, 3), random(63, 3, seed=1), random(3, 9)))
    assert reached(psa.backward, cache, x.shape, (0, 4)).all()


def test_maps_of_another_size_are_refused():
    layer = npattn.PSA(4, 3, 5)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, C, H=3, W=5\), got \(2, 4, 5, 3\)"):
        layer(np.zeros((2, 4, 5, 3), np.float32))
    with pytest.raises(ValueError, match=r"w_c: expected shape \(\(2H-1\)\(2W-1\)=45, C=2\), got \(44, 2\)"):
        psa.forward(np.zeros((1, 2, 3, 5)), psa.Params(np.zeros((44, 2)), np.zeros((45, 2)), np.zeros((2, 6))))


def test_attention_of_the_compared_blocks():
    """Names and shapes as documented."""
    x = random(2, 4, 3, 5).astype(np.float32)
    for layer, shapes in (
        (npattn.SqueezeScale(), {"channel": (2, 4, 1, 1)}),
        (npattn.ConvGate(4), {"pixel": (2, 4, 3, 5)}),
        (npattn.ConcatAttention(4, 2), {"channel": (2, 4, 1, 1)}),
        (npattn.ParallelSE(npattn.Conv2d(4, 6), npattn.SEGate(4, 6, 2)), {"gate.channel": (2, 6, 1, 1)}),
        (npattn.PSA(4, 3, 5), {"collect": (2, 3, 5, 3, 5), "distribute": (2, 3, 5, 3, 5)}),
    ):
        layer(x)
        assert {name: gate.shape for name, gate in layer.attention.items()} == shapes
