"""The options of the blocks: every form against derivatives, the article's forms against the article's pairs, edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn import variants
from npattn.attention import cbam, channel, eca, se, spatial
from npattn.ops import batch_norm, channel_even_max, global_even_max, hard_sigmoid, lp_pool, lse_pool, silu
from npattn.variants import channel as any_channel
from npattn.variants import se as any_se
from npattn.variants import spatial as any_spatial
from tests.support.cases import as_pair
from tests.support.numerical import complex_step, distance
from tests.support.trees import cast, leaves

channel_forms = st.builds(
    any_channel.Settings,
    st.lists(st.sampled_from(["avg", "max", "lp", "lse"]), min_size=1, max_size=4, unique=True).map(tuple),
    st.sampled_from(["after", "before"]),
    st.sampled_from(["sigmoid", "hard_sigmoid"]),
    st.sampled_from(["first", "even"]),
    st.sampled_from(["relu", "silu"]),
)
spatial_forms = st.builds(
    any_spatial.Settings,
    st.sampled_from([("mean", "max"), ("max", "mean"), ("mean",), ("max",)]),
    st.sampled_from(["concat", "mean"]),
    st.sampled_from(["sigmoid", "hard_sigmoid"]),
    st.sampled_from(["first", "even"]),
)
orders = st.sampled_from(["channel-first", "spatial-first", "parallel"])


class CbamForm(NamedTuple):
    """The options of CBAM and of its two gates."""

    order: str
    residual: bool
    channel: any_channel.Settings
    spatial: any_spatial.Settings


class Flags(NamedTuple):
    """What the parameters show of a form, and the mode."""

    bias: bool
    one_layer: bool
    bias_s: bool
    norm: bool
    by_batch: bool


cbam_forms = st.builds(CbamForm, orders, st.booleans(), channel_forms, spatial_forms)
flags = st.builds(Flags, *[st.booleans()] * 5)
seeds = st.integers(0, 2**32 - 1)


def sizes_of(rng) -> tuple[int, ...]:
    """N, C, H and W."""
    return tuple(int(n) for n in rng.integers((2, 1, 1, 2), (4, 5, 4, 4)))


def channel_params(rng, C: int, more: Flags) -> any_channel.Params:
    R = C if more.one_layer else 2
    b1, b2 = (rng.standard_normal(R), rng.standard_normal(C)) if more.bias else (None, None)
    w1 = rng.standard_normal((R, C))
    return any_channel.Params(w1, b1) if more.one_layer else any_channel.Params(w1, b1, rng.standard_normal((C, R)), b2)


def spatial_params(rng, form: any_spatial.Settings, more: Flags) -> any_spatial.Params:
    k = int(rng.choice([1, 3, 5]))
    of_norm = batch_norm.Params(rng.standard_normal(1), rng.standard_normal(1)) if more.norm else None
    w = rng.standard_normal((1, form.n, k, k))
    return any_spatial.Params(w, rng.standard_normal(1) if more.bias_s else None, of_norm)


def random_statistics(rng) -> batch_norm.Running:
    return batch_norm.Running(rng.standard_normal(1), rng.uniform(0.5, 2, 1))


def layer_and_inputs(form: CbamForm, seed: int, left_out: str | None, more: Flags):
    """A CBAM of the form, and random x and parameters by key."""
    rng = np.random.default_rng(seed)
    N, C, H, W = sizes_of(rng)
    hidden = None if more.one_layer else 2
    layers = {"bias": more.bias, "layers": 1 if more.one_layer else 2, "hidden": hidden}
    ca = variants.ChannelAttention(C, 1, **layers, **form.channel._asdict(), dtype="float64", rng=rng)
    options = {"bias": more.bias_s, "norm": more.norm}
    k = int(rng.choice([1, 3, 5]))
    sa = variants.SpatialAttention(k, **options, **form.spatial._asdict(), dtype="float64", rng=rng)
    if more.norm:
        mean, var = cast(cast(random_statistics(rng), np.float32), np.float64)  # the same numbers in both dtypes
        sa.buffers.update({"bn.running_mean": mean, "bn.running_var": var})
    layer = variants.CBAM(
        None if left_out == "channel" else ca,
        None if left_out == "spatial" else sa,
        order=form.order,
        residual=form.residual,
    ).train(more.by_batch)
    params = {key: rng.standard_normal(value.shape) for key, value in layer.params.items()}
    return rng, layer, rng.standard_normal((N, C, H, W)), params


def check_gradients(rng, forward, backward, inputs: tuple) -> None:
    """Compare all gradients with complex steps, for a random cotangent: the same paths, shapes and numbers."""
    y, cache = forward(*inputs)
    dy = rng.standard_normal(y.shape)
    wanted = complex_step(forward, inputs, dy)
    found = dict(leaves(backward(dy, cache)))
    assert found.keys() == wanted.keys()
    scale = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
    for name, gradient in found.items():
        assert gradient.shape == wanted[name].shape, name
        error = float(np.linalg.norm(gradient - wanted[name]))
        assert error <= 1e-9 * max(float(np.linalg.norm(wanted[name])), 1e-3 * scale), f"{name}: off by {error}"


@given(form=cbam_forms, seed=seeds, left_out=st.sampled_from([None, None, "channel", "spatial"]), more=flags)
@settings(max_examples=60)
def test_backward_is_the_derivative_in_every_form(form, seed, left_out, more):
    """CBAM holds both gates, so its forms are all forms there are."""
    if left_out and form.order != "channel-first":
        form = form._replace(order="channel-first")
    rng, layer, x, params = layer_and_inputs(form, seed, left_out, more)
    check_gradients(rng, *as_pair(layer), (x, params))


@pytest.mark.parametrize("pair", [any_channel, any_se], ids=["channel", "SE"])
@given(form=channel_forms, seed=seeds, more=flags)
@settings(max_examples=30)
def test_backward_of_the_channel_pairs_is_the_derivative(pair, form, seed, more):
    rng = np.random.default_rng(seed)
    N, C, H, W = sizes_of(rng)
    inputs = rng.standard_normal((N, C, H, W)), channel_params(rng, C, more)
    check_gradients(rng, lambda x, params: pair.forward(x, params, form), pair.backward, inputs)


@given(form=spatial_forms, seed=seeds, more=flags)
@settings(max_examples=30)
def test_backward_of_the_spatial_pair_is_the_derivative(form, seed, more):
    rng = np.random.default_rng(seed)
    running = any_spatial.Running(random_statistics(rng)) if more.norm and not more.by_batch else None

    def forward(x, params):
        return any_spatial.forward(x, params, form, cast(running, x.dtype))

    inputs = rng.standard_normal(sizes_of(rng)), spatial_params(rng, form, more)
    check_gradients(rng, forward, any_spatial.backward, inputs)


@given(form=cbam_forms, seed=seeds, more=flags)
@settings(max_examples=40)
def test_float32_follows_float64_in_every_form(form, seed, more):
    rng, layer, *inputs = layer_and_inputs(form, seed, None, more)
    forward, backward = as_pair(layer)
    small = cast(tuple(inputs), np.float32)
    y, cache = forward(*small)
    exact, exact_cache = forward(*cast(small, np.float64))
    dy = rng.standard_normal(y.shape).astype(np.float32)
    found, wanted = backward(dy, cache), backward(dy.astype(np.float64), exact_cache)
    assert y.dtype == np.float32
    # a batch norm over a handful of numbers multiplies rounding by up to 1/√ε
    within = 1e-2 if more.norm else 1e-3
    assert distance(y, exact) < within
    scale = max(float(np.linalg.norm(gradient)) for _, gradient in leaves(wanted))
    for (name, gradient), (_, other) in zip(leaves(found), leaves(wanted), strict=True):
        assert gradient.dtype == np.float32, name
        assert np.linalg.norm(gradient - other) <= 50 * within * max(float(np.linalg.norm(other)), 1e-2 * scale), name


@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (3, 1, 1, 1), (1, 6, 1, 4)], ids=str)
@pytest.mark.parametrize("ties", [False, True], ids=["dense", "ties"])
def test_the_default_forms_are_the_article(shape: tuple[int, ...], ties: bool):
    """The general pair without an option is the textbook pair, to the last digits: two derivations of one thing."""
    rng = np.random.default_rng(0)
    C = shape[1]
    x = rng.integers(0, 3, shape).astype(float) if ties else rng.standard_normal(shape)
    w1, w2, w = rng.standard_normal((2, C)), rng.standard_normal((C, 2)), rng.standard_normal((1, 2, 3, 3))
    of_channel = any_channel.Params(w1, None, w2)
    both = variants.CBAM(
        variants.ChannelAttention(C, 1, hidden=2, dtype="float64"), variants.SpatialAttention(3, dtype="float64")
    )
    by_key = {"ca.fc1.weight": w1[:, :, None, None], "ca.fc2.weight": w2[:, :, None, None], "sa.conv1.weight": w}
    both_forward, both_backward = as_pair(both)

    def by_field(dy, cache):
        dx, grads = both_backward(dy, cache)
        return dx, both.by_field(grads)

    pairs = [
        (se, se.Params(w1, w2), any_se.forward, any_se.backward, of_channel),
        (channel, channel.Params(w1, w2), any_channel.forward, any_channel.backward, of_channel),
        (spatial, spatial.Params(w), any_spatial.forward, any_spatial.backward, any_spatial.Params(w)),
        (cbam, cbam.Params(channel.Params(w1, w2), spatial.Params(w)), both_forward, by_field, by_key),
    ]
    for plain, plain_params, forward, backward, params in pairs:
        wanted, plain_cache = plain.forward(x, plain_params)
        y, cache = forward(x, params)
        np.testing.assert_allclose(y, wanted, rtol=1e-14, atol=1e-14)
        dy = rng.standard_normal(y.shape)
        found, exact = (dict(leaves(grads)) for grads in (backward(dy, cache), plain.backward(dy, plain_cache)))
        assert found.keys() == exact.keys()
        for name, gradient in found.items():
            np.testing.assert_allclose(
                gradient, exact[name], rtol=1e-12, atol=1e-13, err_msg=f"{plain.__name__}: {name}"
            )


def test_parallel_is_the_product_of_two_gated_layers_divided_by_x():
    """What "parallel" means: each gate is what its own layer makes of x."""
    x = np.random.default_rng(1).standard_normal((2, 8, 4, 5))
    gates = npattn.ChannelAttention(8, 4, dtype="float64", rng=0), npattn.SpatialAttention(3, dtype="float64", rng=1)
    layer = variants.CBAM(*gates, order="parallel")
    ca, sa = npattn.ChannelAttention(8, 4, dtype="float64"), npattn.SpatialAttention(3, dtype="float64")
    for part, name in ((ca, "ca."), (sa, "sa.")):
        part.load_state_dict({k.removeprefix(name): v for k, v in layer.state_dict().items() if k.startswith(name)})
    np.testing.assert_allclose(layer(x), x * ca(x) * sa(x), rtol=1e-14)
    np.testing.assert_allclose(layer.attention["spatial"], sa(x), rtol=1e-14)
    series = npattn.CBAM(8, 4, 3, dtype="float64").load_state_dict(layer.state_dict())
    assert distance(series(x), layer(x)) > 1e-3, "the two arrangements must differ"


# Ties


@pytest.mark.parametrize(
    ("forward", "backward", "axis"),
    [
        (global_even_max.forward, global_even_max.backward, (2, 3)),
        (channel_even_max.forward, channel_even_max.backward, (1,)),
    ],
)
def test_even_ties_share(forward, backward, axis):
    """All maxima receive the same, nothing else receives anything, and together they receive dy."""
    rng = np.random.default_rng(2)
    x = rng.integers(0, 3, (3, 4, 2, 5)).astype(float)
    y, cache = forward(x)
    dy = rng.standard_normal(y.shape)
    dx = backward(dy, cache)
    top = x == x.max(axis=axis, keepdims=True)
    assert top.sum() > dy.size, "nothing is tied"
    assert np.all(dx[~top] == 0)
    np.testing.assert_allclose(dx.sum(axis=axis), dy.reshape(dx.sum(axis=axis).shape), rtol=1e-14)
    share = dy.reshape(top.sum(axis=axis, keepdims=True).shape) / top.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(dx[top], np.broadcast_to(share, x.shape)[top], rtol=1e-15)


def test_even_and_first_differ_on_ties_alone():
    rng = np.random.default_rng(3)
    dense, tied = rng.standard_normal((2, 6, 3, 4)), np.zeros((2, 6, 3, 4))
    for make in (lambda tie: variants.ChannelAttention(6, layers=1, max_tie=tie, dtype="float64", rng=0),
                 lambda tie: variants.SpatialAttention(3, max_tie=tie, bias=True, dtype="float64", rng=0)):  # fmt: skip
        first, even = make("first"), make("even")
        for x, same in ((dense, True), (tied, False)):
            y = first(x)
            np.testing.assert_array_equal(y, even(x))
            dy = rng.standard_normal(y.shape)
            assert np.allclose(first.backward(dy), even.backward(dy), rtol=1e-12) is same


def test_a_nan_wins_the_even_maximum():
    x = np.zeros((1, 2, 2, 2))
    x[0, 0, 1, 1] = np.nan
    for forward, backward in ((global_even_max.forward, global_even_max.backward),
                              (channel_even_max.forward, channel_even_max.backward)):  # fmt: skip
        y, cache = forward(x)
        assert np.isnan(y).sum() == 1
        with np.errstate(all="raise"):
            dx = backward(np.ones_like(y), cache)
        assert dx[0, 0, 1, 1] == 1


# lp, lse, the hard sigmoid


def test_lp_of_an_all_zero_channel_has_gradient_0():
    """A length has no slope at 0. PyTorch's lp_pool2d gives 0 there, and not NaN; so do we."""
    x = np.random.default_rng(4).standard_normal((2, 3, 4, 5))
    x[0, 1] = 0
    with np.errstate(all="raise"):
        y, cache = lp_pool.forward(x)
        dx = lp_pool.backward(np.ones_like(y), cache)
    assert y[0, 1] == 0
    assert np.all(dx[0, 1] == 0)
    np.testing.assert_allclose(np.sum(dx * dx, axis=(2, 3)), y > 0, rtol=1e-14)  # elsewhere a unit vector


@pytest.mark.parametrize("scale", [1e-300, 1.0, 745.0, 1e4, 1e300])
def test_lse_at_any_magnitude(scale: float):
    """No overflow and no warning, and what comes back is a softmax: positive, with sum dy."""
    from scipy.special import logsumexp, softmax

    x = scale * np.random.default_rng(5).uniform(-1, 1, (2, 3, 4, 5))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = lse_pool.forward(x)
        dx = lse_pool.backward(np.full(y.shape, -2.0), cache)
    np.testing.assert_allclose(y, logsumexp(x, axis=(2, 3)), rtol=1e-13)
    np.testing.assert_allclose(dx, -2 * softmax(x, axis=(2, 3)), rtol=1e-11, atol=1e-300)


def test_lse_does_not_divide_and_lp_does_not_either():
    x = np.full((1, 1, 2, 3), 2.0)
    np.testing.assert_allclose(lse_pool.forward(x)[0], 2 + np.log(6), rtol=1e-15)
    np.testing.assert_allclose(lp_pool.forward(x)[0], np.sqrt(24), rtol=1e-15)


def test_hard_sigmoid_and_its_ends():
    x = np.array([-np.inf, -4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 4.0, np.inf, np.nan])
    with np.errstate(all="raise"):
        y, cache = hard_sigmoid.forward(x)
    np.testing.assert_allclose(y, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, np.nan], rtol=1e-15)
    slopes = hard_sigmoid.backward(np.full(10, 6.0), cache)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1])


def test_silu_far_out_and_where_it_turns():
    """Far out it is x or 0 and its slope 1 or 0, without a warning; it turns at −1.2785, where its slope is 0."""
    x = np.array([-1e300, -800.0, -1.278464542761074, 0.0, 800.0, 1e300, np.nan])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = silu.forward(x)
        slope = silu.backward(np.ones(7), cache)
    np.testing.assert_allclose(y, [0, 0, -0.2784645427610738, 0, 800, 1e300, np.nan], rtol=1e-15, atol=1e-300)
    np.testing.assert_allclose(slope, [0, 0, 0, 0.5, 1, 1, np.nan], rtol=1e-15, atol=1e-15)


def test_torchs_hard_sigmoid_has_the_slope_of_float32():
    layer = variants.SELayer(4, 2, gate="torch_hard_sigmoid", dtype="float64", rng=0)
    exact = variants.SELayer(4, 2, gate="hard_sigmoid", dtype="float64", rng=0)
    x = np.random.default_rng(6).standard_normal((2, 4, 3, 3))
    y = layer(x)
    np.testing.assert_array_equal(y, exact(x))
    layer.backward(y), exact.backward(y)
    for key, gradient in layer.grads.items():
        np.testing.assert_allclose(gradient, exact.grads[key] * 6 * float(np.float32(1 / 6)), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_gives_the_same_at_edges(dtype):
    """lp at 0, lse and even maxima on ties, the hard sigmoid at its ends: PyTorch's own functions."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    F = torch.nn.functional
    rng = np.random.default_rng(7)
    x = np.maximum(np.round(rng.standard_normal((2, 3, 4, 5))), 0).astype(dtype)
    x[1, 2] = 0
    size = (4, 5)
    pairs = [
        (lp_pool.forward, lp_pool.backward, lambda t: F.lp_pool2d(t, 2, size, stride=size)[:, :, 0, 0]),
        (lse_pool.forward, lse_pool.backward, lambda t: torch.logsumexp(t, dim=(2, 3))),
        (global_even_max.forward, global_even_max.backward, lambda t: t.amax((2, 3))),
        (channel_even_max.forward, channel_even_max.backward, lambda t: t.amax(1, keepdim=True)),
        (hard_sigmoid.forward, hard_sigmoid.torch_backward, lambda t: F.hardsigmoid(3 * t) ),
    ]  # fmt: skip
    for forward, backward, theirs in pairs:
        there = torch.tensor(x, requires_grad=True)
        y_there = theirs(there)
        scale = 3 if forward is hard_sigmoid.forward else 1
        y, cache = forward(scale * x)
        dy = rng.standard_normal(y.shape).astype(dtype)
        y_there.backward(torch.tensor(dy))
        assert distance(y, y_there.detach().numpy()) < 4 * np.finfo(dtype).eps
        assert distance(scale * backward(dy, cache), there.grad.numpy()) < 4 * np.finfo(dtype).eps


# ECA


@pytest.mark.parametrize(
    ("C", "k"), [(1, 1), (2, 1), (8, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_eca_kernel_sizes(C: int, k: int):
    """int(|log2 C + 1| / 2), made odd by adding 1."""
    assert eca.adaptive_kernel(C) == k
    assert npattn.ECA(C).params["conv.weight"].shape == (1, 1, k)


def test_eca_is_a_convolution_over_channels():
    from scipy.ndimage import correlate1d

    rng = np.random.default_rng(10)
    x, w = rng.standard_normal((2, 7, 3, 4)), rng.standard_normal(5)
    y, cache = eca.forward(x, eca.Params(w[None]))
    a = correlate1d(x.mean(axis=(2, 3)), w, axis=1, mode="constant")
    np.testing.assert_allclose(y, x / (1 + np.exp(-a))[:, :, None, None], rtol=1e-13)
    layer = npattn.ECA(kernel_size=5, dtype="float64")
    layer.load_state_dict({"conv.weight": w[None, None]})
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_array_equal(layer.backward(y), eca.backward(y, cache)[0])
    assert layer(x[:, :3]).shape == (2, 3, 3, 4)  # without a channel it takes any C
