"""The options of the blocks: every form against derivatives, the article's forms against the article's pairs, edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npattn
from npattn.attention import cbam, channel, se, spatial
from npattn.attention.options import CbamForm, ChannelForm, SpatialForm
from npattn.ops import batch_norm
from npattn.variants import cbam as any_cbam
from npattn.variants import channel as any_channel
from npattn.variants import eca, gates, pooling
from npattn.variants import se as any_se
from npattn.variants import spatial as any_spatial
from tests.cases import leaves, mapped
from tests.numerical import complex_step, distance

channel_forms = st.builds(
    ChannelForm,
    st.lists(st.sampled_from(["avg", "max", "lp", "lse"]), min_size=1, max_size=4, unique=True).map(tuple),
    st.sampled_from(["after", "before", "concat"]),
    st.sampled_from(["sigmoid", "hard_sigmoid"]),
    st.sampled_from(["first", "even"]),
)
spatial_forms = st.builds(
    SpatialForm,
    st.sampled_from([("mean", "max"), ("max", "mean"), ("mean",), ("max",)]),
    st.sampled_from(["concat", "mean"]),
    st.sampled_from(["sigmoid", "hard_sigmoid"]),
    st.sampled_from(["first", "even"]),
)
orders = st.sampled_from(["channel-first", "spatial-first", "parallel"])
cbam_forms = st.builds(CbamForm, orders, st.booleans(), channel_forms, spatial_forms)


def channel_params(rng, C: int, form: ChannelForm, *, R: int = 2, bias: bool, layers: int) -> any_channel.Params:
    K = C * len(form.pools) if form.mix == "concat" else C
    one = C if layers == 1 else R
    b1, b2 = (rng.standard_normal(one), rng.standard_normal(C)) if bias else (None, None)
    w1 = rng.standard_normal((one, K))
    return any_channel.Params(w1, b1) if layers == 1 else any_channel.Params(w1, b1, rng.standard_normal((C, R)), b2)


def spatial_params(rng, form: SpatialForm, *, k: int, bias: bool, norm: bool) -> any_spatial.Params:
    n = len(form.maps) if form.mix == "concat" else 1
    of_norm = batch_norm.Params(rng.standard_normal(1), rng.standard_normal(1)) if norm else None
    return any_spatial.Params(rng.standard_normal((1, n, k, k)), rng.standard_normal(1) if bias else None, of_norm)


def forms_and_inputs(form: CbamForm, seed: int, left_out: str | None, more: tuple[bool, bool, bool, bool, bool]):
    """Random inputs for a CBAM of the form: x, params, running statistics or None."""
    rng = np.random.default_rng(seed)
    bias, one_layer, bias_s, norm, by_batch = more
    N, C, H, W = (int(n) for n in rng.integers((2, 1, 1, 2), (4, 5, 4, 4)))
    ca = channel_params(rng, C, form.channel, bias=bias, layers=1 if one_layer else 2)
    sa = spatial_params(rng, form.spatial, k=int(rng.choice([1, 3, 5])), bias=bias_s, norm=norm)
    params = any_cbam.Params(None if left_out == "channel" else ca, None if left_out == "spatial" else sa)
    running = batch_norm.Running(rng.standard_normal(1), rng.uniform(0.5, 2, 1)) if norm and not by_batch else None
    return rng, rng.standard_normal((N, C, H, W)), params, running


flags = st.tuples(*[st.booleans()] * 5)


@given(form=cbam_forms, seed=st.integers(0, 2**32 - 1), left_out=st.sampled_from([None, None, "channel", "spatial"]),
       more=flags)  # fmt: skip
@settings(max_examples=60)
def test_backward_is_the_derivative_in_every_form(form, seed, left_out, more):
    """CBAM holds both gates, so its forms are all forms there are."""
    if left_out and form.order == "parallel":
        form = form._replace(order="channel-first")
    rng, x, params, running = forms_and_inputs(form, seed, left_out, more)

    def forward(x, params):
        kept = None if running is None else mapped(lambda a: a.astype(x.dtype), running)
        return any_cbam.forward(x, params, form, kept)

    y, cache = forward(x, params)
    dy = rng.standard_normal(y.shape)
    wanted = complex_step(forward, (x, params), dy)
    found = dict(leaves(any_cbam.backward(dy, cache)))
    assert found.keys() == wanted.keys()
    scale = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
    for name, gradient in found.items():
        assert gradient.shape == wanted[name].shape, name
        error = float(np.linalg.norm(gradient - wanted[name]))
        assert error <= 1e-9 * max(float(np.linalg.norm(wanted[name])), 1e-3 * scale), f"{name}: off by {error}"


@given(form=cbam_forms, seed=st.integers(0, 2**32 - 1), more=flags)
@settings(max_examples=40)
def test_float32_follows_float64_in_every_form(form, seed, more):
    rng, x, params, running = forms_and_inputs(form, seed, None, more)
    small = mapped(lambda a: a.astype(np.float32), (x, params, running))
    large = mapped(lambda a: a.astype(np.float64), small)
    y, cache = any_cbam.forward(small[0], small[1], form, small[2])
    exact, exact_cache = any_cbam.forward(large[0], large[1], form, large[2])
    dy = rng.standard_normal(y.shape).astype(np.float32)
    found, wanted = any_cbam.backward(dy, cache), any_cbam.backward(dy.astype(np.float64), exact_cache)
    assert y.dtype == np.float32
    # a batch norm over a handful of numbers multiplies rounding by up to 1/√ε
    within = 1e-2 if params.sa.norm is not None else 1e-3
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
    pairs = [
        (se, se.Params(w1, w2), any_se, of_channel),
        (channel, channel.Params(w1, w2), any_channel, of_channel),
        (spatial, spatial.Params(w), any_spatial, any_spatial.Params(w)),
        (cbam, cbam.Params(channel.Params(w1, w2), spatial.Params(w)), any_cbam,
         any_cbam.Params(of_channel, any_spatial.Params(w))),
    ]  # fmt: skip
    for plain, plain_params, general, params in pairs:
        wanted, plain_cache = plain.forward(x, plain_params)
        y, cache = general.forward(x, params)
        np.testing.assert_allclose(y, wanted, rtol=1e-14, atol=1e-14)
        dy = rng.standard_normal(y.shape)
        for (name, found), (_, exact) in zip(
            leaves(general.backward(dy, cache)), leaves(plain.backward(dy, plain_cache)), strict=True
        ):
            np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-13, err_msg=f"{general.__name__}: {name}")


def test_parallel_is_the_product_of_two_gated_layers_divided_by_x():
    """What "parallel" means: each gate is what its own layer makes of x."""
    x = np.random.default_rng(1).standard_normal((2, 8, 4, 5))
    layer = npattn.CBAM(8, 4, 3, order="parallel", dtype="float64", rng=0)
    ca, sa = npattn.ChannelAttention(8, 4, dtype="float64"), npattn.SpatialAttention(3, dtype="float64")
    for part, name in ((ca, "ca."), (sa, "sa.")):
        part.load_state_dict({k.removeprefix(name): v for k, v in layer.state_dict().items() if k.startswith(name)})
    np.testing.assert_allclose(layer(x), x * ca(x) * sa(x), rtol=1e-14)
    np.testing.assert_allclose(layer.attention["spatial"], sa(x), rtol=1e-14)
    series = npattn.CBAM(8, 4, 3, dtype="float64", rng=0)
    assert distance(series(x), layer(x)) > 1e-3, "the two arrangements must differ"


# Ties


@pytest.mark.parametrize(
    ("forward", "backward", "axis"),
    [
        (pooling.global_even_max_forward, pooling.global_even_max_backward, (2, 3)),
        (pooling.channel_even_max_forward, pooling.channel_even_max_backward, (1,)),
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
    for make in (lambda tie: npattn.ChannelAttention(6, layers=1, max_tie=tie, dtype="float64", rng=0),
                 lambda tie: npattn.SpatialAttention(3, max_tie=tie, bias=True, dtype="float64", rng=0)):  # fmt: skip
        first, even = make("first"), make("even")
        for x, same in ((dense, True), (tied, False)):
            y = first(x)
            np.testing.assert_array_equal(y, even(x))
            dy = rng.standard_normal(y.shape)
            assert np.allclose(first.backward(dy), even.backward(dy), rtol=1e-12) is same


def test_a_nan_wins_the_even_maximum():
    x = np.zeros((1, 2, 2, 2))
    x[0, 0, 1, 1] = np.nan
    for forward, backward in ((pooling.global_even_max_forward, pooling.global_even_max_backward),
                              (pooling.channel_even_max_forward, pooling.channel_even_max_backward)):  # fmt: skip
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
        y, cache = pooling.lp_pool_forward(x)
        dx = pooling.lp_pool_backward(np.ones_like(y), cache)
    assert y[0, 1] == 0
    assert np.all(dx[0, 1] == 0)
    np.testing.assert_allclose(np.sum(dx * dx, axis=(2, 3)), y > 0, rtol=1e-14)  # elsewhere a unit vector


@pytest.mark.parametrize("scale", [1e-300, 1.0, 745.0, 1e4, 1e300])
def test_lse_at_any_magnitude(scale: float):
    """No overflow and no warning, and what comes back is a softmax: positive, with sum dy."""
    from scipy.special import logsumexp, softmax

    x = scale * np.random.default_rng(5).uniform(-1, 1, (2, 3, 4, 5))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = pooling.lse_pool_forward(x)
        dx = pooling.lse_pool_backward(np.full(y.shape, -2.0), cache)
    np.testing.assert_allclose(y, logsumexp(x, axis=(2, 3)), rtol=1e-13)
    np.testing.assert_allclose(dx, -2 * softmax(x, axis=(2, 3)), rtol=1e-11, atol=1e-300)


def test_lse_does_not_divide_and_lp_does_not_either():
    x = np.full((1, 1, 2, 3), 2.0)
    np.testing.assert_allclose(pooling.lse_pool_forward(x)[0], 2 + np.log(6), rtol=1e-15)
    np.testing.assert_allclose(pooling.lp_pool_forward(x)[0], np.sqrt(24), rtol=1e-15)


def test_hard_sigmoid_and_its_ends():
    x = np.array([-np.inf, -4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 4.0, np.inf, np.nan])
    with np.errstate(all="raise"):
        y, cache = gates.hard_sigmoid_forward(x)
    np.testing.assert_allclose(y, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, np.nan], rtol=1e-15)
    slopes = gates.hard_sigmoid_backward(np.full(10, 6.0), cache)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1])


def test_torchs_hard_sigmoid_has_the_slope_of_float32():
    layer = npattn.SELayer(4, 2, gate="torch_hard_sigmoid", dtype="float64", rng=0)
    exact = npattn.SELayer(4, 2, gate="hard_sigmoid", dtype="float64", rng=0)
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
        (pooling.lp_pool_forward, pooling.lp_pool_backward, lambda t: F.lp_pool2d(t, 2, size, stride=size)[:, :, 0, 0]),
        (pooling.lse_pool_forward, pooling.lse_pool_backward, lambda t: torch.logsumexp(t, dim=(2, 3))),
        (pooling.global_even_max_forward, pooling.global_even_max_backward, lambda t: t.amax((2, 3))),
        (pooling.channel_even_max_forward, pooling.channel_even_max_backward, lambda t: t.amax(1, keepdim=True)),
        (gates.hard_sigmoid_forward, gates.torch_hard_sigmoid_backward, lambda t: F.hardsigmoid(3 * t) ),
    ]  # fmt: skip
    for forward, backward, theirs in pairs:
        there = torch.tensor(x, requires_grad=True)
        y_there = theirs(there)
        scale = 3 if forward is gates.hard_sigmoid_forward else 1
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
    y, cache = eca.forward(x, eca.Params(w))
    a = correlate1d(x.mean(axis=(2, 3)), w, axis=1, mode="constant")
    np.testing.assert_allclose(y, x / (1 + np.exp(-a))[:, :, None, None], rtol=1e-13)
    layer = npattn.ECA(kernel_size=5, dtype="float64")
    layer.load_state_dict({"conv.weight": w[None, None]})
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_array_equal(layer.backward(y), eca.backward(y, cache)[0])
    assert layer(x[:, :3]).shape == (2, 3, 3, 4)  # without a channel it takes any C
