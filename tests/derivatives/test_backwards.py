"""Every backward in one file of tests that is quick and sharp: what the mutation run asks for every mutant.

The derivatives at a dense and at a tied point, the library's rule for ties, and what a backward says to a dy that does
not match. What is asked here at one point others ask at many.
"""

from __future__ import annotations

import contextlib
import itertools
import threading

import numpy as np
import pytest

from npattn import gradcheck, variants
from npattn.attention import cbam, channel, simple_coordinate, spatial
from npattn.attention.bam import BAM
from npattn.attention.danet_position import DANetPosition
from npattn.attention.non_local import NonLocal
from npattn.backend import from_numpy, to_numpy
from npattn.blocks import blocks
from npattn.checker.cases import PLACE
from npattn.fused import batch_norm as fused_batch_norm
from npattn.fused import cbam as fused_cbam
from npattn.fused import conv2d as fused_conv2d
from npattn.fused import global_avg_pool as fused_global_avg_pool
from npattn.fused import layout, maps, shares, tiles
from npattn.fused import max_pool_2x2 as fused_max_pool_2x2
from npattn.fused import spatial as fused_spatial
from npattn.grad_mode import no_grad
from npattn.ops import batch_norm, channel_max, conv2d, global_max_pool, hard_sigmoid, linear, lp_pool, max_pool_2x2
from tests.support.cases import CASES, FUSED, MAKERS, TEXTBOOK, Case, ident
from tests.support.proofs import entries
from tests.support.trees import arrays, arrays_mapped, cast

PAIRS = CASES + FUSED


def drawn(case: Case, size=(2, 3, 5, 4), seed=0, k=3):
    return case.draw(np.random.default_rng(seed), size, k=k)


@pytest.mark.parametrize("case", PAIRS, ids=ident)
def test_derivative(case: Case):
    assert gradcheck((case.forward, case.backward), *drawn(case), strict=True)


IMAGES = [case for case in PAIRS if case.name != "cross-entropy"]


@pytest.mark.parametrize("case", IMAGES, ids=ident)
def test_derivative_at_ties(case: Case):
    x, *rest = drawn(case)
    x = np.random.default_rng(2).integers(0, 3, x.shape).astype(float)
    assert gradcheck((case.forward, case.backward), x, *rest, strict=True)


@pytest.mark.parametrize("case", IMAGES, ids=ident)
def test_derivative_with_a_large_kernel(case: Case):
    assert gradcheck((case.forward, case.backward), *drawn(case, (1, 2, 3, 4), k=5), strict=True)


@pytest.mark.parametrize("case", IMAGES, ids=ident)
def test_derivative_for_one_image_of_one_channel(case: Case):
    assert gradcheck((case.forward, case.backward), *drawn(case, (1, 1, 3, 2), k=1), strict=True)


@pytest.mark.parametrize("make", MAKERS, ids=ident)
@pytest.mark.parametrize("fused", [False, True], ids=["textbook", "fused"])
def test_derivative_of_the_layer(make, fused):
    assert gradcheck(make(fused), np.random.default_rng(3).standard_normal((2, 8, 4, 3)), strict=True)


OF_NO_FORM = [
    entry
    for entry in entries()
    if entry.name not in blocks()
    and entry.kind.__module__.startswith("npattn.attention.")  # the variants in all their forms: test_variants.py
    and entry.arguments.get("gate") != "torch_hard_sigmoid"  # whose slope is PyTorch's, and not the derivative
]


@pytest.mark.parametrize("entry", OF_NO_FORM, ids=lambda entry: entry.name)
def test_derivative_with_arguments_of_no_form(entry):
    """Those with which the block's proofs hold it to torch, too."""
    layer = entry.layer(PLACE, rng=0)
    assert gradcheck(layer, np.random.default_rng(3).standard_normal((2, 8, 4, 3)), strict=True)


def absent(tree, name: str = "params"):
    """The fields of Params, or of gradients, that are None."""
    if tree is None:
        yield name
    for field in getattr(tree, "_fields", ()):
        yield from absent(getattr(tree, field), f"{name}.{field}")


@pytest.mark.parametrize("case", PAIRS, ids=ident)
def test_no_parameter_no_gradient(case: Case):
    x, *rest = drawn(case)
    y, cache = case.forward(x, *rest)
    found = case.gradients(np.ones_like(y), cache)[1:]
    for params, grads in zip(rest, found, strict=False):
        if grads is not None:  # as it is of running statistics
            assert list(absent(grads)) == list(absent(params))


def test_no_bias_no_gradient():
    rng = np.random.default_rng(4)
    for module, w in ((linear, rng.standard_normal((3, 4))), (conv2d, rng.standard_normal((3, 2, 3, 3)))):
        x = rng.standard_normal((2, 2, 3, 4))
        y, cache = module.forward(x, module.Params(w))
        assert module.backward(y, cache)[1].b is None
        assert gradcheck(module, x, module.Params(w, None), strict=True)


def test_no_biases_no_gradients_of_a_block():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 2, 4))
    params = simple_coordinate.Params(*(rng.standard_normal(shape) for shape in ((2, 3), (3, 2), (3, 2))))
    grads = simple_coordinate.backward(*simple_coordinate.forward(x, params))[1]
    assert grads[3:] == (None, None, None)


def test_biases_of_an_attention():
    """Those that a layer leaves out by default; by running statistics, since a batch's take the effect of two away."""
    for kind in (NonLocal, DANetPosition, BAM):
        layer, rng = kind(4, 2, bias=True, dtype="float64", rng=0).eval(), np.random.default_rng(6)
        layer.params.update({key: rng.standard_normal(w.shape) / 2 for key, w in layer.params.items()})
        assert gradcheck(layer, rng.standard_normal((2, 4, 2, 3)))
        assert all(gradient.shape == layer.params[key].shape for key, gradient in layer.grads.items())


OUTPUTS = {"dy": "the output y", "dg": "the output gate", "du": "the output u", "dloss": "the loss"}


@pytest.mark.parametrize("case", PAIRS, ids=ident)
def test_dy_that_does_not_match(case: Case):
    """A TypeError or ValueError that names dy, what was expected, and what came."""
    y, cache = case.forward(*drawn(case))
    y = np.asarray(y)
    name = case.dy
    assert (name == "dg") == case.gate
    expected = rf"^{name}: expected shape {shape(y)}, that of {OUTPUTS[name]}, got {shape(y, 2)}$"
    with pytest.raises(ValueError, match=expected):
        case.backward(np.zeros((*y.shape, 2)), cache)
    with pytest.raises(TypeError, match=rf"^{name}: expected dtype float32 or float64, got int64$"):
        case.backward(np.zeros(y.shape, dtype=np.int64), cache)
    with pytest.raises(TypeError, match=rf"^{name}: expected an array .*, got (list|float)$"):
        case.backward(y.tolist(), cache)


def shape(y: np.ndarray, *more: int) -> str:
    return str((*y.shape, *more)).replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize("case", PAIRS, ids=ident)
def test_dy_of_another_float_dtype_or_library(case: Case):
    """Where the cache holds numbers, a dy unlike them is refused. A maximum's holds places, a sum's a shape."""
    y, cache = case.forward(*drawn(case))
    dy = np.asarray(y, dtype=np.float32)
    if any(array.dtype.kind == "f" for array in arrays(cache)):
        with pytest.raises(TypeError, match="expected dtype float"):
            case.backward(dy, cache)
        foreign = pytest.importorskip("array_api_strict").asarray(np.asarray(y))
        same = r"expected an array of the same library as \w+ \(array_api_strict\), got numpy"
        with pytest.raises(TypeError, match=same):
            case.backward(foreign, cache)
    else:
        assert all(gradient.dtype == np.float32 for gradient in arrays(case.backward(dy, cache)))


@pytest.mark.parametrize("order_of", ["NCHW", "CHWN"])
@pytest.mark.parametrize("case", PAIRS, ids=ident)
def test_float32_stays_float32(case: Case, order_of: str):
    x, *rest = cast(drawn(case), np.float32)
    y, cache = case.forward(laid(x, order_of), *rest)
    assert np.asarray(y).dtype == np.float32
    assert {gradient.dtype for gradient in arrays(case.backward(np.asarray(y), cache))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_on_another_device(case: Case):
    """array-api-strict's second device, where what is made for another one cannot be mixed in."""
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    inputs = drawn(case)
    y, cache = case.forward(*inputs)
    expected = arrays(case.backward(np.asarray(y), cache))
    y, cache = case.forward(*arrays_mapped(lambda array: from_numpy(array, strict, device), inputs))
    found = arrays(case.backward(y, cache))
    for one, other in zip(found, expected, strict=True):
        assert one.device == device
        np.testing.assert_allclose(to_numpy(one), other, rtol=1e-12, atol=1e-12)


ORDERS = pytest.mark.parametrize("order_of", ["NCHW", "CHWN"])


def laid(x: np.ndarray, order_of: str) -> np.ndarray:
    """Images as they are, or side by side in memory."""
    return layout.laid_side_by_side(x) if order_of == "CHWN" and x.ndim == 4 else x


def lies(y: np.ndarray, order_of: str) -> bool:
    """Whether images lie so. What has one pixel or one image may lie both ways."""
    return (y.transpose(1, 2, 3, 0) if order_of == "CHWN" else y).flags.c_contiguous


@ORDERS
@pytest.mark.parametrize("kind", ["dense", "ties", "zeros", "one pixel"])
@pytest.mark.parametrize("case", FUSED, ids=ident)
def test_fused_is_textbook(case: Case, kind: str, order_of: str):
    """The same numbers, and the same winners of ties, which a gradient check would leave open."""
    twin = TEXTBOOK[case.textbook]
    x, *rest = drawn(case, (2, 3, 1, 1) if kind == "one pixel" and "2×2" not in case.name else (2, 3, 5, 4))
    if kind == "ties":
        x = np.random.default_rng(6).integers(0, 3, x.shape).astype(float)
    if kind == "zeros":
        x = np.zeros_like(x)
    y, cache = case.forward(laid(x, order_of), *rest)
    expected_y, textbook_cache = twin.forward(x, *rest)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    dy = np.random.default_rng(7).standard_normal(y.shape)
    expected = arrays(twin.backward(dy, textbook_cache))
    for dy_laid in (laid(dy, order_of), dy):
        found = arrays(case.backward(dy_laid, cache))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11 * max(1, np.abs(other).max()))
        assert found[0].ndim != 4 or lies(found[0], order_of)
    assert y.ndim != 4 or y.shape[2:] == (1, 1) or lies(y, order_of)


@pytest.fixture
def small_tiles(monkeypatch):
    """Everything cut small: groups of one image, tiles of 64 pixels, blocks of a row."""
    for rule in (tiles.images, tiles.pixels, tiles.rows):
        rule.cache_clear()
    monkeypatch.setattr(tiles, "tile_bytes", lambda: 256)
    yield
    for rule in (tiles.images, tiles.pixels, tiles.rows):
        rule.cache_clear()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("k", [1, 3, 5])
@ORDERS
@pytest.mark.parametrize("case", [case for case in FUSED if case.name != "cross-entropy, fused"], ids=ident)
def test_fused_is_textbook_where_tiles_end(case: Case, k: int, order_of: str):
    twin = TEXTBOOK[case.textbook]
    x, *rest = drawn(case, (3, 2, 7, 22), k=k)
    y, cache = case.forward(laid(x, order_of), *rest)
    expected_y, textbook_cache = twin.forward(x, *rest)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    dy = np.random.default_rng(8).standard_normal(np.shape(y))
    expected = arrays(twin.backward(dy, textbook_cache))
    for dy_laid in (laid(dy, order_of), dy):
        for one, other in zip(arrays(case.backward(dy_laid, cache)), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11 * max(1, np.abs(other).max()))


@ORDERS
def test_the_first_nan_of_a_window_is_its_maximum(order_of: str):
    """As in the textbook, wherever NaNs are among the four, and in rows and columns of odd number."""
    rng = np.random.default_rng(9)
    x = np.where(rng.random((3, 2, 7, 11)) < 0.4, np.nan, rng.integers(0, 2, (3, 2, 7, 11)).astype(float))
    y, cache = fused_max_pool_2x2.forward(laid(x, order_of))
    expected, textbook = max_pool_2x2.forward(x)
    np.testing.assert_array_equal(y, expected)
    dy = rng.standard_normal(y.shape)
    dx = fused_max_pool_2x2.backward(dy, cache)
    np.testing.assert_array_equal(dx, max_pool_2x2.backward(dy, textbook))


def test_pytorch_s_hard_sigmoid():
    """Its slope is the float32 next to 1/6, in float64 too: no derivative, so no case of the checker's."""
    x = np.array([-4.0, -1.0, 0.0, 2.0, 5.0])
    dy = np.array([1.0, -2.0, 3.0, 0.5, 7.0])
    _, cache = hard_sigmoid.forward(x)
    slope = np.array([0, 1, 1, 1, 0]) * float(np.float32(1) / np.float32(6))
    np.testing.assert_allclose(hard_sigmoid.torch_backward(dy, cache), dy * slope, rtol=1e-15, atol=0)
    with pytest.raises(ValueError, match=r"^dy: expected shape \(5,\)"):
        hard_sigmoid.torch_backward(dy[:2], cache)


def test_a_channel_of_zeros_or_of_length_one():
    """The length of a channel has no slope at 0: there it is taken as 0, and only there."""
    x = np.zeros((1, 3, 2, 2))
    x[0, 1, 0, 1], x[0, 2] = 1, 3
    y, cache = lp_pool.forward(x)
    assert y.tolist() == [[0, 1, 6]]
    dx = lp_pool.backward(np.array([[5.0, 7.0, 2.0]]), cache)
    assert dx.tolist() == [[[[0, 0], [0, 0]], [[0, 7], [0, 0]], [[1, 1], [1, 1]]]]


@pytest.mark.parametrize("without", ["channel", "spatial"])
def test_cbam_with_one_gate(without):
    ca = None if without == "channel" else channel.ChannelAttention(8, 4, rng=0)
    sa = None if without == "spatial" else spatial.SpatialAttention(3, rng=0)
    layer = variants.CBAM(ca, sa)
    assert gradcheck(layer, np.random.default_rng(3).standard_normal((2, 8, 4, 3)), strict=True)
    layer.backward(layer.forward(np.ones((2, 8, 4, 3), dtype=np.float32)))
    assert list(layer.grads) == list(layer.params)


@pytest.mark.parametrize("make", MAKERS, ids=ident)
def test_a_layer_has_a_gradient_for_each_parameter_and_no_other(make):
    layer = make(True)
    layer.backward(layer.forward(np.ones((2, 8, 4, 3), dtype=np.float32)))
    assert list(layer.grads) == list(layer.params)
    assert all(layer.grads[key].shape == value.shape for key, value in layer.params.items())


@pytest.mark.parametrize(
    ("forward", "backward", "winners"),
    [
        (global_max_pool.forward, global_max_pool.backward, (slice(None), slice(None), 0, 0)),
        (channel_max.forward, channel_max.backward, (slice(None), 0)),
        (max_pool_2x2.forward, max_pool_2x2.backward,
         (slice(None), slice(None), slice(0, 4, 2), slice(0, 4, 2))),
    ],
)  # fmt: skip
def test_the_first_maximum_of_a_tie_gets_it_all(forward, backward, winners):
    """A gradient check accepts any way to share at a tie. This is ours, and PyTorch's."""
    x = np.full((2, 3, 4, 5), 7.0)
    y, cache = forward(x)
    dy = np.random.default_rng(5).standard_normal(y.shape)
    expected = np.zeros_like(x)
    expected[winners] = dy[:, 0] if dy.shape[1] == 1 else dy
    np.testing.assert_array_equal(backward(dy, cache), expected)


@pytest.mark.parametrize(
    ("M", "C"),
    [
        *[(7, 3), (8, 3), (9, 9), (8, 12), (3, 8), (17, 3), (18, 3), (40, 2), (20, 1)],
        *[(1, 2), (2, 1), (1, 1), (7, 2), (8, 2), (1, 3), (7, 9)],  # row by row, one way or the other
    ],
)
@ORDERS
@pytest.mark.parametrize(("k", "bias", "N"), [(3, True, 3), (5, False, 1), (1, True, 2)])
def test_fused_convolution_for_few_and_many_channels(M: int, C: int, k: int, bias: bool, N: int, order_of: str):
    """The products are arranged by M and C; each way gives the textbook's numbers, with and without dx."""
    rng = np.random.default_rng(M)
    x, w, dy = (rng.standard_normal(shape) for shape in ((N, C, 6, 5), (M, C, k, k), (N, M, 6, 5)))
    params = conv2d.Params(w, rng.standard_normal(M) if bias else None)
    y, cache = fused_conv2d.forward(laid(x, order_of), params)
    (dx, grads), alone = fused_conv2d.backward(dy, cache), fused_conv2d.backward_params(dy, cache)
    y_wanted, cache_wanted = conv2d.forward(x, params)
    dx_wanted, wanted = conv2d.backward(dy, cache_wanted)
    for found, value in (
        (y, y_wanted),
        (dx, dx_wanted),
        *zip(grads, wanted, strict=True),
        *zip(alone, wanted, strict=True),
    ):
        if value is None:
            assert found is None
        else:
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="dy: expected shape"):
        fused_conv2d.backward_params(np.concatenate((dy, dy)), cache)
    with pytest.raises(TypeError, match="dtype float32"):
        fused_conv2d.backward_params(dy.astype(np.float32), cache)


@pytest.mark.parametrize("where", [(0, 0, 0, 0), (0, 1, 5, 4), (1, 0, 3, 0), (1, 1, 2, 2)])
@pytest.mark.parametrize("what", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("M", "C", "N"), [(1, 2, 1), (1, 2, 2), (3, 5, 2), (9, 9, 2), (9, 12, 2), (40, 2, 2)])
@ORDERS
def test_what_is_not_finite_reaches_the_places_that_see_it(M, C, N, what, where, order_of):
    """x at a border is not seen from all places of the kernel: the zeros beside it do not make NaN of the others."""
    rng = np.random.default_rng(M)
    x, w, dy = (rng.standard_normal(shape) for shape in ((N, C, 6, 5), (M, C, 3, 3), (N, M, 6, 5)))
    x[where[0] % N, *where[1:]] = what
    with np.errstate(invalid="ignore"):
        (y_wanted, cache), (y, fused_cache) = (
            conv2d.forward(x, (w, None)),
            fused_conv2d.forward(laid(x, order_of), (w, None)),
        )
        (dx_wanted, wanted), (dx, grads) = conv2d.backward(dy, cache), fused_conv2d.backward(dy, fused_cache)
        alone = fused_conv2d.backward_params(dy, fused_cache)
    assert not np.isfinite(wanted.w).all()
    for found, value in ((y, y_wanted), (dx, dx_wanted), (grads.w, wanted.w), (alone.w, wanted.w)):
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-11)


def test_when_a_fused_convolution_takes_columns():
    """Where k·k·C rows are no more than k·C + M, nor than an image has pixels; never for k = 1."""
    chosen = {(1, 16, 3, 784), (3, 18, 3, 27), (3, 64, 3, 784), (1, 42, 7, 49)}
    refused = {(3, 17, 3, 784), (3, 18, 3, 26), (16, 32, 3, 196), (1, 1, 1, 9), (512, 512, 1, 1), (2, 1, 7, 90000)}
    for C, M, k, P in chosen | refused:
        assert fused_conv2d.few(C, M, k, P) == ((C, M, k, P) in chosen), (C, M, k, P)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("k", "M"), [(1, 3), (3, 12), (5, 40)])
@ORDERS
def test_fused_convolution_of_so_few_channels_where_tiles_end(k: int, M: int, order_of: str):
    """A block of rows, and a group of images, at a time: each sees the rows above and below it."""
    rng = np.random.default_rng(k)
    x, w, dy = (rng.standard_normal(shape) for shape in ((3, 2, 7, 9), (M, 2, k, k), (3, M, 7, 9)))
    params = conv2d.Params(w, rng.standard_normal(M))
    (y, cache), (y_wanted, cache_wanted) = fused_conv2d.forward(laid(x, order_of), params), conv2d.forward(x, params)
    (dx, grads), (dx_wanted, wanted) = fused_conv2d.backward(dy, cache), conv2d.backward(dy, cache_wanted)
    for found, value in ((y, y_wanted), (dx, dx_wanted), *zip(grads, wanted, strict=True)):
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_layer_without_dx(bias: bool):
    """What `backward_params` sets is what `backward` does, key by key, in both forms."""
    for path in ("textbook", "fused"):
        layer = conv2d.Conv2d(2, 3, 3, bias=bias, rng=0, fused=path == "fused", dtype="float64")
        dy = np.cos(layer(np.random.default_rng(1).standard_normal((2, 2, 5, 4))))
        assert layer.path == path
        layer.backward(dy)
        wanted = dict(layer.grads)
        layer.backward_params(dy)
        assert list(layer.grads) == list(wanted) == (["weight", "bias"] if bias else ["weight"])
        for key, value in wanted.items():
            assert layer.grads[key] is not value
            np.testing.assert_array_equal(layer.grads[key], value)


@pytest.mark.parametrize("order", ["channel-first", "spatial-first"])
def test_the_gate_that_is_asked_for_goes_first(order: str):
    """A gradient check holds for any order that forward and backward agree on; this is the one that was asked for."""
    options = {"rng": 0, "dtype": "float64"}
    gates = variants.ChannelAttention(4, 2, **options), variants.SpatialAttention(3, **options)
    x = np.random.default_rng(2).standard_normal((2, 4, 5, 3))
    wanted = x
    for gate in gates if order == "channel-first" else gates[::-1]:
        wanted = wanted * gate(wanted)
    np.testing.assert_allclose(variants.CBAM(*gates, order=order)(x), wanted, rtol=1e-14)


def test_a_layer_leaves_dx_out_where_its_pair_can(monkeypatch):
    """The fused convolution has a backward for the parameters alone, and the layer takes that one."""
    layer = conv2d.Conv2d(2, 3, 3, rng=0, dtype="float64")
    dy = np.cos(layer(np.random.default_rng(1).standard_normal((2, 2, 5, 4))))
    with monkeypatch.context() as patch:
        patch.setattr(fused_conv2d, "backward", lambda *_: pytest.fail("dx was asked for"))
        layer.backward_params(dy)
    assert list(layer.grads) == ["weight", "bias"]


@pytest.mark.parametrize("P", [7, 1023, 1024, 1537, 5000])
@pytest.mark.parametrize(("n", "C"), [(1, 3), (2, 300), (4, 1)])
def test_fused_long_sums_in_pieces(n: int, C: int, P: int):
    """A sum over pixels is the same in however many pieces it is made, and with one row of factors or several."""
    rng = np.random.default_rng(P)
    X, D, d = (rng.standard_normal(shape) for shape in ((n, C, P), (n, C, P), (n, 1, P)))
    np.testing.assert_allclose(maps.pixel_dot(X, D), (X * D).sum(axis=2), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(maps.pixel_dot(X, d), (X * d).sum(axis=2), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(maps.pixel_sum(X), X.sum(axis=2), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("P", "b"), [(7, 2), (1030, 3), (256, 1), (300, 5)])
def test_fused_sums_of_images_side_by_side(P: int, b: int):
    """Each image has a sum of its own, in however many pieces it is made."""
    rng = np.random.default_rng(P)
    X, D, d, g = (rng.standard_normal(shape) for shape in ((1, 4, P, b), (1, 4, P, b), (1, 1, P, b), (1, 4, b)))
    planes, factors, shared = (a.reshape(1, -1, P * b) for a in (X, D, d))
    np.testing.assert_allclose(maps.image_sum(planes, b), X.sum(axis=2), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(maps.image_dot(planes, factors, b), (X * D).sum(axis=2), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(maps.image_dot(planes, shared, b), (X * d).sum(axis=2), rtol=1e-9, atol=1e-11)
    out = np.empty((1, P * b))
    maps.channel_dot(planes, g, b, out)
    np.testing.assert_allclose(out.reshape(1, P, b), (X * g[:, :, None]).sum(axis=1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 4, 5, 6), (7, 1, 1, 1), (2, 3, 1, 1), (2, 1, 3, 1)], ids=str)
def test_fused_orders_of_memory(shape):
    """What lies both ways counts as NCHW; views stay views, and what comes back has the axes N C H W."""
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    N, C, H, W = shape
    for one in (x, layout.laid_side_by_side(x)):
        b = layout.beside(one)
        assert b == (N if layout.side_by_side(one) else 1)
        assert layout.side_by_side(one) == (not one.flags.c_contiguous)
        np.testing.assert_array_equal(one, x)
        planes = layout.planes(one)
        assert planes.shape == (N // b, C, H * W * b)
        assert np.shares_memory(planes, one)
        assert np.shares_memory(layout.flat(one), one)
        np.testing.assert_array_equal(layout.images(layout.flat(one), shape, b), x)
        np.testing.assert_array_equal(layout.by_image(layout.pixels(planes, b)[:, :, 0]), x[:, :, 0, 0])
        np.testing.assert_array_equal(layout.by_plane(x[:, :, 0, 0], b), layout.pixels(planes, b)[:, :, 0])
        for other in (x, layout.laid_side_by_side(x)):
            np.testing.assert_array_equal(layout.flat(layout.alike(other, b)), layout.flat(one))
        made = layout.output(shape, x.dtype, b)
        assert made.shape == shape
        assert made.dtype == x.dtype
        assert lies(made, "NCHW" if b == 1 else "CHWN")


def test_fused_cotangents_that_lie_oddly():
    """A dy that lies in neither order, or on odd addresses, is copied into the one of x."""
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 6))
    bytes_side_by_side = b" " + x.transpose(1, 2, 3, 0).tobytes()
    odd = np.frombuffer(bytes_side_by_side, np.uint8)[1:].view(np.float64).reshape(4, 5, 6, 3).transpose(3, 0, 1, 2)
    for dy in (x[:, :, ::-1], odd, np.asfortranarray(x)):
        for b, order_of in ((1, "NCHW"), (3, "CHWN")):
            found = layout.alike(dy, b)
            np.testing.assert_array_equal(found, dy)
            assert lies(found, order_of)
            assert found.flags.aligned
    for dy, b in ((x, 1), (layout.laid_side_by_side(x), 3)):
        assert np.shares_memory(layout.alike(dy, b), dy)


@pytest.mark.parametrize("shape", [(120, 4, 28, 28), (3, 4, 150, 151)], ids=str)
def test_fused_sums_keep_their_digits_in_float32(shape: tuple[int, ...]):
    """Sums of a hundred thousand numbers beside a large mean, in either order of memory, against float64."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(shape) + 1000).astype(np.float32)
    dy = rng.standard_normal(shape).astype(np.float32)
    ones = batch_norm.Params(np.ones(4), np.zeros(4))
    y, cache = batch_norm.train_forward(x.astype(np.float64), ones)
    dx, _ = batch_norm.train_backward(dy.astype(np.float64), cache)
    average = x.mean(axis=(2, 3), dtype=np.float64)
    for order_of in ("NCHW", "CHWN"):
        one = laid(x, order_of)
        found, cache = fused_batch_norm.train_forward(one, batch_norm.Params(*(v.astype(np.float32) for v in ones)))
        assert relative(found, y) < 6e-5, order_of
        assert relative(fused_batch_norm.train_backward(dy, cache)[0], dx) < 5e-7, order_of
        assert relative(fused_global_avg_pool.forward(one)[0], average) < 1e-7, order_of
        planes, b = layout.planes(one), layout.beside(one)
        products = maps.image_dot(planes, layout.planes(laid(dy, order_of)), b)
        exact = (x.astype(np.float64) * dy).sum(axis=(2, 3))
        assert relative(layout.by_image(products), exact) < 5e-6, order_of


def test_fused_long_rows_make_the_buffer_shorter():
    """Within, not after, also when an exception passes."""
    before = np.getbufsize()
    for P, size in ((1, 1024), (511, 1024), (512, 512), (90000, 512)):
        with maps.long_rows(P):
            assert np.getbufsize() == size
        assert np.getbufsize() == before
    with maps.long_rows(90000, 2):
        assert np.getbufsize() == before
    with contextlib.suppress(KeyError), maps.long_rows(512):
        raise KeyError
    assert np.getbufsize() == before


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """‖one − other‖ / ‖other‖."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def side_by_side(parts: list, task) -> list:
    """`task(part)` in a thread for each part, with the rows of all of them gathered."""
    rows: list = [None] * len(parts)
    results: list = [None] * len(parts)
    barrier = threading.Barrier(len(parts), timeout=30)

    def one(rank: int) -> None:
        def gather(mine: np.ndarray) -> np.ndarray:
            rows[rank] = mine
            barrier.wait()
            whole = np.concatenate(rows)
            barrier.wait()
            return whole

        with shares.gathering(gather):
            results[rank] = task(parts[rank])

    all_threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(parts))]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    return results


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("cuts", [(5,), (1, 2), (3, 6)], ids=str)
@ORDERS
@pytest.mark.parametrize("mean", [0, 1000])
def test_fused_batch_norm_in_shares_is_that_of_the_batch(cuts, mean, order_of):
    """Output, dx and running statistics are those of the textbook on all images; dgamma and dbeta add up to them."""
    rng = np.random.default_rng(0)
    N, C = 8, 3
    x, dy = rng.standard_normal((N, C, 5, 4)) + mean, rng.standard_normal((N, C, 5, 4))
    params = batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))
    running = batch_norm.Running(rng.standard_normal(C), rng.uniform(0.5, 2, C))
    y, cache = batch_norm.train_forward(x, params)
    dx, grads = batch_norm.train_backward(dy, cache)
    moved = batch_norm.updated(running, cache)

    edges = [0, *cuts, N]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]

    def task(n: slice) -> tuple:
        y, cache = fused_batch_norm.train_forward(laid(x[n], order_of), params)
        return (y, *fused_batch_norm.train_backward(dy[n], cache), fused_batch_norm.updated(running, cache))

    found = side_by_side(parts, task)
    limit = 1e-12 * max(1, mean)
    assert relative(np.concatenate([part[0] for part in found]), y) < limit
    assert relative(np.concatenate([part[1] for part in found]), dx) < limit
    for key in ("gamma", "beta"):
        assert relative(sum(getattr(part[2], key) for part in found), getattr(grads, key)) < limit
    for part in found:
        for key in ("mean", "var"):
            assert relative(getattr(part[3], key), getattr(moved, key)) < limit


def test_fused_batch_norm_in_eval_asks_nobody():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 3, 5, 4))
    params = batch_norm.Params(rng.standard_normal(3), rng.standard_normal(3))
    running = batch_norm.Running(rng.standard_normal(3), rng.uniform(0.5, 2, 3))

    def nobody(rows: np.ndarray) -> np.ndarray:
        raise AssertionError("the running statistics need no other images")

    with shares.gathering(nobody):
        y, cache = fused_batch_norm.eval_forward(x, params, running)
        dx, _ = fused_batch_norm.eval_backward(y, cache)
    assert relative(dx, batch_norm.eval_backward(y, batch_norm.eval_forward(x, params, running)[1])[0]) < 1e-12


def test_fused_backward_of_a_forward_that_kept_nothing():
    """Under no_grad a forward leaves out where the maxima are; a backward of its cache says so."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 4, 6, 5))
    ca = channel.Params(rng.standard_normal((2, 4)), rng.standard_normal((4, 2)))
    sa = spatial.Params(rng.standard_normal((1, 2, 3, 3)))
    with no_grad():
        caches = [
            (fused_cbam, *fused_cbam.forward(x, cbam.Params(ca, sa))),
            (fused_spatial, *fused_spatial.forward(x, sa)),
        ]
        pooled = fused_max_pool_2x2.forward(x)
    for pair, y, cache in caches:
        with pytest.raises(RuntimeError, match=r"cache: was made under npattn.no_grad\(\), where a forward leaves out"):
            pair.backward(y, cache)
    with pytest.raises(RuntimeError, match=r"only backward needs: run forward outside of it$"):
        fused_max_pool_2x2.backward(*pooled)
