"""The fused pairs: the textbook's numbers on every kind of input, the path, and threads that change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import npattn
from npattn.attention import cbam, channel, se, spatial
from npattn.fused import blas, layout, maps, memory, scratch, takes, threads, tiles
from npattn.ops import batch_norm, conv2d
from tests.support.trees import arrays

LIMIT = {"float64": 1e-12, "float32": 1e-5}
BLOCKS = ["se", "channel", "spatial", "cbam"]
SHAPES = [
    (2, 32, 9, 7),
    (1, 4, 1, 1),
    (3, 5, 1, 6),
    (4, 6, 8, 1),
    (5, 16, 28, 28),
    (1, 300, 5, 5),  # more channels than a byte counts
    (2, 255, 2, 3),
    (2, 256, 3, 2),
    (1, 600, 2, 2),
]


@pytest.fixture(autouse=True)
def default_threads() -> Any:
    """Each test starts from the default number of threads and leaves it."""
    npattn.set_num_threads(None)
    yield
    npattn.set_num_threads(None)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut everything small, so that small arrays have many groups, tiles and blocks."""
    for rule in (tiles.images, tiles.pixels, tiles.rows):
        rule.cache_clear()
    monkeypatch.setattr(tiles, "tile_bytes", lambda: 4096)
    yield
    for rule in (tiles.images, tiles.pixels, tiles.rows):
        rule.cache_clear()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    scale = float(np.linalg.norm(b.ravel()))
    return float(np.linalg.norm((a - b).ravel())) / (scale or 1.0)


def draw(kind: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Random numbers: dense, or with ties in several ways."""
    x = rng.standard_normal(shape)
    if kind == "relu":
        x = np.maximum(x, 0)
    elif kind == "rounded":
        x = np.round(x)
    elif kind == "zero":
        x[...] = 0
    return x.astype(dtype)


def params_of(block: str, C: int, dtype: str, rng: np.random.Generator, k: int = 7, R: int = 2) -> Any:
    def some(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    mlp, kernel = channel.Params(some(R, C), some(C, R)), spatial.Params(0.3 * some(1, 2, k, k))
    return {"se": se.Params(*mlp), "channel": mlp, "spatial": kernel, "cbam": cbam.Params(mlp, kernel)}[block]


def both_forms(room: str, name: str) -> tuple[Any, Any]:
    return import_module(f"npattn.{room}.{name}"), import_module(f"npattn.fused.{name}")


def in_both_orders(x: np.ndarray) -> list[np.ndarray]:
    """x, and x with its images side by side."""
    return [x, layout.laid_side_by_side(x)]


def check_pair(room: str, name: str, x: np.ndarray, params: Any, rng: np.random.Generator, dtype: str) -> None:
    """Output, dx and every gradient, fused against textbook; x, and dy, one after another and side by side."""
    textbook, fused = both_forms(room, name)
    y, cache = textbook.forward(x, params)
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected = [y, *arrays(textbook.backward(dy, cache))]
    for laid in in_both_orders(x):
        y_fused, cache_fused = fused.forward(laid, params)
        assert y_fused.shape[2:] == (1, 1) or follows(y_fused, laid)
        for dy_laid in in_both_orders(dy):
            dx, *grads = arrays(fused.backward(dy_laid, cache_fused))
            assert follows(dx, laid)
            for got, want in zip([y_fused, dx, *grads], expected, strict=True):
                assert relative(got, want) <= LIMIT[dtype]


def follows(y: np.ndarray, x: np.ndarray) -> bool:
    """Whether y lies in memory as x does."""
    return (y.transpose(1, 2, 3, 0) if layout.side_by_side(x) else y).flags.c_contiguous


# The same numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "relu", "rounded", "zero"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_gives_the_textbooks_numbers(block, shape, kind, dtype):
    rng = np.random.default_rng(1)
    check_pair("attention", block, draw(kind, shape, dtype, rng), params_of(block, shape[1], dtype, rng), rng, dtype)


@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
@pytest.mark.parametrize("block", ["spatial", "cbam"])
def test_every_kernel_size(block, kernel):
    rng = np.random.default_rng(2)
    for shape in [(2, 8, 4, 3), (1, 3, 11, 2)]:
        x = draw("dense", shape, "float64", rng)
        check_pair("attention", block, x, params_of(block, shape[1], "float64", rng, k=kernel), rng, "float64")


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kind", ["dense", "rounded"])
@pytest.mark.parametrize("block", BLOCKS)
def test_where_a_tile_ends_does_not_matter(block, kind):
    rng = np.random.default_rng(3)
    for shape in [(3, 7, 20, 33), (9, 3, 5, 6), (2, 40, 13, 70)]:
        x = draw(kind, shape, "float64", rng)
        check_pair("attention", block, x, params_of(block, shape[1], "float64", rng), rng, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("shape", "M", "k"),
    [
        *[
            ((5, 3, 7, 7), 4, 3),
            ((2, 3, 1, 1), 2, 3),
            ((2, 3, 1, 5), 2, 5),
            ((3, 2, 5, 1), 2, 7),
            ((4, 4, 6, 9), 3, 1),
            ((3, 4, 1, 1), 1, 3),
        ],
        *[((5, 2, 7, 6), 12, 3), ((2, 1, 1, 1), 6, 3), ((2, 1, 1, 4), 21, 5), ((3, 1, 5, 1), 42, 7)],  # few channels
    ],
    ids=str,
)
def test_convolution_gives_the_textbooks_numbers(shape, M, k, bias, dtype):
    rng = np.random.default_rng(4)
    w = rng.standard_normal((M, shape[1], k, k)).astype(dtype)
    params = conv2d.Params(w, rng.standard_normal(M).astype(dtype) if bias else None)
    check_pair("ops", "conv2d", draw("dense", shape, dtype, rng), params, rng, dtype)


@pytest.mark.usefixtures("small_tiles")
def test_convolution_in_blocks_of_rows():
    rng = np.random.default_rng(5)
    for shape in [(2, 3, 17, 20), (7, 1, 4, 4)]:
        for M in (2, 18):  # 18: few channels
            params = conv2d.Params(rng.standard_normal((M, shape[1], 3, 3)), rng.standard_normal(M))
            check_pair("ops", "conv2d", draw("dense", shape, "float64", rng), params, rng, "float64")


@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("shape", [(8, 3, 5, 4), (1, 2, 3, 7), (40, 16, 28, 28)], ids=str)
def test_batch_norm_gives_the_textbooks_numbers(shape, mean):
    rng = np.random.default_rng(6)
    textbook, fused = both_forms("ops", "batch_norm")
    x, C = rng.standard_normal(shape) + mean, shape[1]
    params = batch_norm.Params(rng.standard_normal(C), rng.standard_normal(C))
    running = batch_norm.Running(rng.standard_normal(C), rng.uniform(0.5, 2, C))
    dy = rng.standard_normal(shape)
    limit = 1e-12 * max(1, mean)
    for mode, extra in (("train", ()), ("eval", (running,))):
        results = []
        for form, laid in ((textbook, x), *((fused, laid) for laid in in_both_orders(x))):
            y, cache = getattr(form, f"{mode}_forward")(laid, params, *extra)
            moved = form.updated(running, cache)
            dx, grads = getattr(form, f"{mode}_backward")(dy, cache)
            assert follows(y, laid)
            assert follows(dx, laid)
            results.append(arrays((y, moved, dx, grads)))
        for results_fused in results[1:]:
            for want, got in zip(results[0], results_fused, strict=True):
                assert relative(got, want) <= limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["dense", "relu", "rounded", "zero", "special"])
@pytest.mark.parametrize("shape", [(4, 3, 8, 6), (3, 2, 5, 7), (1, 1, 2, 3)], ids=str)
def test_relu_and_pooling_give_the_textbooks_bits(shape, kind, dtype):
    rng = np.random.default_rng(7)
    x = draw("dense" if kind == "special" else kind, shape, dtype, rng)
    if kind == "special":
        x.flat[::3], x.flat[1::5], x.flat[2::7], x.flat[3::11] = np.nan, np.inf, -np.nan, -0.0
    textbook, fused = both_forms("ops", "relu")
    dy = rng.standard_normal(shape).astype(dtype)
    dy.flat[0], dy.flat[1], dy.flat[2] = np.inf, np.nan, -np.inf  # times 0 they would be NaN
    y, cache = textbook.forward(x)
    for laid in in_both_orders(x):
        y_fused, cache_fused = fused.forward(laid)
        np.testing.assert_array_equal(y_fused, y)
        for dy_laid in in_both_orders(dy):
            dx = fused.backward(dy_laid, cache_fused)
            np.testing.assert_array_equal(dx, textbook.backward(dy, cache))
            assert follows(y_fused, laid)
            assert follows(dx, laid)

    textbook, fused = both_forms("ops", "max_pool_2x2")
    y, cache = textbook.forward(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    want = textbook.backward(dy, cache)
    for laid in in_both_orders(x):
        y_fused, cache_fused = fused.forward(laid)
        np.testing.assert_array_equal(y_fused, y)
        for dy_laid in in_both_orders(dy):
            dx = fused.backward(dy_laid, cache_fused)
            np.testing.assert_array_equal(dx, want)
            assert follows(y_fused, laid)
            assert follows(dx, laid)


@pytest.mark.parametrize("shape", [(4, 3, 8, 6), (1, 2, 1, 7), (70, 5, 2, 2)], ids=str)
def test_global_average_pooling_gives_the_textbooks_numbers(shape):
    rng = np.random.default_rng(20)
    x, dy = rng.standard_normal(shape), rng.standard_normal(shape[:2])
    textbook, fused = both_forms("ops", "global_avg_pool")
    y, cache = textbook.forward(x)
    for laid in in_both_orders(x):
        y_fused, cache_fused = fused.forward(laid)
        dx = fused.backward(dy, cache_fused)
        assert y_fused.flags.c_contiguous
        assert follows(dx, laid)
        assert relative(y_fused, y) <= 1e-12
        assert relative(dx, textbook.backward(dy, cache)) <= 1e-12


@pytest.mark.parametrize("contiguous", [True, False])  # several channels a row, or one
@pytest.mark.parametrize("C", [1, 4, 6, 255, 256, 700, 7905, 7936, 16384])
def test_the_first_of_equal_channels_wins_and_nan_is_largest(C, contiguous):
    rng = np.random.default_rng(8)
    U = np.round(rng.standard_normal((2, C, 100)))[:, :, :50]
    U = np.ascontiguousarray(U) if contiguous else U
    assert maps.fold(U) == (max(f for f in range(1, 33) if C % f == 0) if contiguous else 1)
    U[0, C // 2, 3] = U[0, C - 1, 3] = np.nan
    U[1, C - 1, 4] = np.nan
    U[:, :, 7] = 0
    U[:, :, 8] = -1
    mean, top, first = np.empty((2, 50)), np.empty((2, 50)), np.empty((2, 50), dtype=np.intp)
    maps.channel_mean_max(U, mean, top, first)
    np.testing.assert_array_equal(first, U.argmax(axis=1))
    np.testing.assert_array_equal(top, U.max(axis=1))
    v = rng.standard_normal((2, 50))
    expected = U * v[:, None]
    maps.each_channel(np.multiply, U, v, out=U)
    np.testing.assert_array_equal(U, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("P", [1, 2, 9, maps.SHORT - 1, maps.SHORT, maps.SHORT + 1])
@pytest.mark.parametrize("what", ["dense", "below 0", "ties", "-0", "nan", "-nan", "inf", "inf and -inf"])
def test_the_pixels_maxima_and_their_places(what, P, dtype):
    """However the largest is found: by number, by bits, or by what equals it."""
    rng = np.random.default_rng(12)
    X = rng.standard_normal((3, 5, P)).astype(dtype)
    place = rng.integers(P, size=(3, 5))
    if what == "below 0":
        X[1, 2] = -np.abs(X[1, 2])
    elif what == "ties":
        X = np.round(X / 2)
    elif what == "-0":
        X = -np.abs(np.round(X / 2))
    elif what != "dense":
        value = np.copysign(np.array(np.nan if "nan" in what else np.inf, dtype), -1 if what == "-nan" else 1)
        np.put_along_axis(X[:2], place[:2, :, None], value, axis=2)
        if what == "inf and -inf":
            X[0, :, -1] = -np.inf
    expected = X.argmax(axis=2)
    flat = np.arange(15).reshape(3, 5) * P + expected
    mean, top = np.empty((2, 3, 5, 1), dtype)
    with np.errstate(invalid="ignore"):
        found = maps.pixel_mean_max(X, 1, mean, top, keep=True)
        np.testing.assert_array_equal(found[:, :, 0], flat)
        np.testing.assert_array_equal(top[:, :, 0], X.max(axis=2))
        top[...] = 7
        assert maps.pixel_mean_max(X, 1, mean, top, keep=False) is None
        np.testing.assert_array_equal(top[:, :, 0], X.max(axis=2))
        strided = np.repeat(X, 2, axis=1)[:, ::2]
        np.testing.assert_array_equal(maps.row_max(strided, mean[:, :, 0]), X.max(axis=2))


@pytest.mark.parametrize("block", BLOCKS)
def test_nan_goes_where_the_textbook_sends_it(block):
    rng = np.random.default_rng(9)
    x = draw("dense", (2, 4, 12, 9), "float64", rng)
    x[0, 1, 5, 4] = np.nan
    params = params_of(block, 4, "float64", rng, k=3)
    textbook, fused = both_forms("attention", block)
    y, cache = textbook.forward(x, params)
    y_fused, cache_fused = fused.forward(x, params)
    np.testing.assert_array_equal(np.isnan(y_fused), np.isnan(y))
    dy = rng.standard_normal(y.shape)
    dx, dx_fused = textbook.backward(dy, cache)[0], fused.backward(dy, cache_fused)[0]
    np.testing.assert_array_equal(np.isnan(dx_fused[1]), np.isnan(dx[1]))  # the other image stays clean


# Purity


@pytest.mark.parametrize("block", BLOCKS)
def test_nothing_is_changed_or_shared(block):
    rng = np.random.default_rng(10)
    x = draw("dense", (3, 6, 10, 11), "float64", rng)
    params = params_of(block, 6, "float64", rng)
    fused = import_module(f"npattn.fused.{block}")
    x.flags.writeable = False
    for leaf in arrays(params):
        leaf.flags.writeable = False
    y, cache = fused.forward(x, params)
    y_before = y.copy()
    dy = rng.standard_normal(y.shape)
    dy.flags.writeable = False
    first = arrays(fused.backward(dy, cache))
    kept = [array.copy() for array in first]
    again = arrays(fused.backward(dy, cache))
    fused.backward(rng.standard_normal(y.shape), fused.forward(x + 1, params)[1])  # works in the same scratch
    np.testing.assert_array_equal(y, y_before)
    for array, before, second in zip(first, kept, again, strict=True):
        np.testing.assert_array_equal(array, before)
        np.testing.assert_array_equal(second, before)
    everything = [x, dy, y, *arrays(params), *first, *again]
    for i, array in enumerate(everything):
        assert not any(np.shares_memory(array, other) for other in everything[:i])


def test_writing_into_outputs_does_not_reach_the_cache():
    rng = np.random.default_rng(11)
    for block in BLOCKS:
        fused = import_module(f"npattn.fused.{block}")
        x = draw("dense", (2, 4, 6, 5), "float64", rng)
        y, cache = fused.forward(x, params_of(block, 4, "float64", rng, k=3))
        dy = rng.standard_normal(y.shape)
        want = arrays(fused.backward(dy, cache))
        y[...] = np.nan
        for got, before in zip(arrays(fused.backward(dy, cache)), want, strict=True):
            np.testing.assert_array_equal(got, before)


def test_large_outputs_take_memory_that_nobody_holds():
    memory.drop()
    shape = (memory.LEAST // 8, 2)
    first = memory.output(shape, np.float32)
    second = memory.output(shape, np.float32)
    assert not np.shares_memory(first, second)
    assert first.shape == shape
    assert first.dtype == np.float32
    assert first.flags.writeable
    first[...] = 1
    view, place = first[5:9, 1], first.ctypes.data
    del first
    third = memory.output(shape, np.float32)  # a view still holds the memory of the first
    third[...] = 3
    assert (view == 1).all()
    del view
    fourth = memory.output(shape, np.float32)
    assert fourth.ctypes.data == place
    assert not any(np.shares_memory(fourth, other) for other in (second, third))
    del second, third, fourth
    assert len(memory.spare) == 2
    assert memory.output((memory.LEAST, 1), np.float64).shape == (memory.LEAST, 1)  # of another size
    memory.drop()
    assert not memory.spare


# The path


def layers(**options: Any) -> list[Any]:
    return [
        npattn.SELayer(4, 2, **options),
        npattn.ChannelAttention(4, 2, **options),
        npattn.SpatialAttention(3, **options),
        npattn.CBAM(4, 2, 3, **options),
        npattn.Conv2d(4, 3, **options),
        npattn.BatchNorm2d(4, **options),
        npattn.ReLU(**options),
        npattn.MaxPool2x2(**options),
        npattn.GlobalAvgPool(**options),
    ]


@pytest.mark.parametrize("index", range(9))
def test_the_layer_says_which_path_ran(index):
    rng = np.random.default_rng(12)
    layer, plain = layers(rng=0)[index], layers(rng=0, fused=False)[index]
    assert layer.path is None
    x = rng.standard_normal((2, 4, 6, 8), dtype=np.float32)
    views = {
        "columns reversed": x[:, :, :, ::-1],
        "every second": np.repeat(x, 2, axis=0)[::2],
        "transposed": np.ascontiguousarray(x.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2),
        "subclass": x.view(type("Mine", (np.ndarray,), {})),
    }
    for name, view in {"contiguous": x, **views}.items():
        expected = "fused" if name == "contiguous" else "textbook"
        y, want = layer(view), plain(view)
        assert layer.path == expected, name
        assert plain.path == "textbook"
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        assert relative(np.asarray(y), np.asarray(want)) <= 1e-5
        assert relative(np.asarray(layer.backward(dy)), np.asarray(plain.backward(dy))) <= 1e-5
        assert list(layer.grads) == list(layer.params)
    assert layer(x[:0]).shape[0] == 0 if index != 5 else True  # an empty batch: batch norm refuses it
    assert index == 5 or layer.path == "textbook"


@pytest.mark.parametrize("index", range(9))
def test_images_side_by_side_are_taken_and_given(index):
    """Also without a cache, and where memory is not aligned; and nothing of the input is changed."""
    rng = np.random.default_rng(21)
    layer, plain = layers(rng=0)[index], layers(rng=0, fused=False)[index]
    for shape in [(5, 4, 6, 8), (3, 4, 2, 2)]:
        x = rng.standard_normal(shape, dtype=np.float32)
        laid = layout.laid_side_by_side(x)
        before = laid.copy()
        with npattn.no_grad():
            y = layer(laid)
            assert layer.path == "fused"
        want = plain(x)
        assert relative(y, np.asarray(want)) <= 1e-5
        if y.ndim == 4 and y.shape[2:] != (1, 1):
            assert layout.side_by_side(y)
        layer(laid)
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        dx = layer.backward(dy)
        assert relative(dx, np.asarray(plain.backward(dy))) <= 1e-5
        for key, gradient in plain.grads.items():
            assert relative(layer.grads[key], gradient) <= 2e-5
        assert layout.side_by_side(dx)
        np.testing.assert_array_equal(laid, before)
        odd = np.frombuffer(b" " + laid.transpose(1, 2, 3, 0).tobytes(), np.uint8)[1:].view(np.float32)
        layer(odd.reshape(*shape[1:], shape[0]).transpose(3, 0, 1, 2))
        assert layer.path == "textbook"


@pytest.mark.parametrize("index", range(9))
def test_an_odd_cotangent_is_taken(index):
    rng = np.random.default_rng(13)
    layer = layers(rng=0, dtype="float64")[index]
    y = layer(rng.standard_normal((2, 4, 6, 8)))
    dy = rng.standard_normal(y.shape)
    want = layer.backward(dy)
    reversed_twice = dy[::-1].copy()[::-1]
    np.testing.assert_array_equal(layer.backward(reversed_twice), want)
    one = np.broadcast_to(np.float64(1.5), y.shape)  # strides of 0
    assert relative(layer.backward(one), layer.backward(np.full(y.shape, 1.5))) == 0


def test_sequential_tells_the_paths_of_its_layers():
    model = npattn.Sequential(npattn.ReLU(), npattn.GlobalAvgPool(), npattn.Linear(4, 2))
    model(np.zeros((1, 4, 2, 2), dtype=np.float32))
    assert model.path == "fused + textbook"


def test_gates_are_told_by_both_paths():
    x = np.random.default_rng(15).standard_normal((2, 4, 5, 6))
    for fused, plain in zip(
        layers(dtype="float64", rng=0)[:4], layers(dtype="float64", rng=0, fused=False)[:4], strict=True
    ):
        y, want = fused(x), plain(x)
        assert list(fused.attention) == list(plain.attention)
        for name, gate in fused.attention.items():
            np.testing.assert_allclose(gate, plain.attention[name], rtol=1e-12)
        y[...] = 0  # the caller's own
        for name, gate in fused.attention.items():
            np.testing.assert_allclose(gate, plain.attention[name], rtol=1e-12)
        assert want.shape == y.shape


def test_what_is_taken():
    x = np.zeros((1, 2, 3, 4))
    assert takes(x)
    assert takes(x, x.astype(np.float32))
    assert not takes(x, x[:, :, ::2])
    many = np.zeros((5, 2, 3, 4))
    assert takes(layout.laid_side_by_side(many))
    assert not takes(many.transpose(1, 0, 2, 3))
    for other in (x.astype(">f8"), x.astype(complex), x.astype(int), x.astype(np.float16), x[:0], [1.0], None):
        assert not takes(other)


@pytest.mark.parametrize("block", BLOCKS)
def test_errors_are_the_textbooks(block):
    rng = np.random.default_rng(16)
    textbook, fused = both_forms("attention", block)
    x, params = rng.standard_normal((2, 4, 5, 6)), params_of(block, 4, "float64", rng)
    bad_weights = params_of(block, 5, "float64", rng, k=7)
    cases = [(x[0], params), (x.astype(np.float32), params), (x.astype(int), params), (x[:, :, :0].copy(), params)]
    if block != "spatial":
        cases.append((x, bad_weights))
    if block in ("spatial", "cbam"):
        even = spatial.Params(np.zeros((1, 2, 4, 4)))
        cases.append((x, even if block == "spatial" else params._replace(sa=even)))
    for case in cases:
        with pytest.raises((TypeError, ValueError)) as want:
            textbook.forward(*case)
        with pytest.raises(want.type) as got:
            fused.forward(*case)
        assert str(got.value) == str(want.value)
    y, cache = fused.forward(x, params)
    _, cache_textbook = textbook.forward(x, params)
    for dy in (y[:1], y[..., :-1] if y.shape[-1] > 1 else y[:, :-1], y.astype(np.float32), y.astype(int)):
        try:
            textbook.backward(dy, cache_textbook)
        except (TypeError, ValueError) as error:
            with pytest.raises(type(error)):
                fused.backward(dy, cache)


def test_the_pair_itself_refuses_what_it_cannot_take():
    x = np.zeros((2, 4, 5, 6))[:, :, ::-1]
    with pytest.raises(TypeError, match=r"x: expected a contiguous NumPy array"):
        import_module("npattn.fused.spatial").forward(x, spatial.Params(np.zeros((1, 2, 3, 3))))


# Threads


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.usefixtures("small_tiles")
def test_results_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(17)
    cases: list[tuple[Any, np.ndarray]] = []
    for shape in [(7, 4, 9, 8), (1, 4, 40, 50)]:
        cases += [(layer, rng.standard_normal(shape, dtype=np.float32)) for layer in layers(rng=0)]
    for layer, x in cases:
        results = []
        for count in (1, 2, 3, 8):
            npattn.set_num_threads(count)
            y = layer(x)
            dx = layer.backward(np.cos(y))
            results.append([y, dx, *(layer.grads[key].copy() for key in layer.grads)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_blas_is_left_as_it_was_found(monkeypatch):
    monkeypatch.setattr(blas.state, "libraries", None)  # other tests may have loaded a library since it was looked up
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = blas_threads()
        seen: list[int] = []
        threads.in_parallel(lambda i: seen.extend(blas_threads()), 3)
        assert set(seen) == {1}
        assert blas_threads() == before

        def fail(i: int) -> None:
            raise RuntimeError(f"task {i}")

        for count in (1, 5):
            with pytest.raises(RuntimeError, match="task"):
                threads.in_parallel(fail, count)
            assert blas_threads() == before
        with pytest.raises(KeyboardInterrupt):
            threads.in_parallel(lambda i: (_ for _ in ()).throw(KeyboardInterrupt), 4)
        assert blas_threads() == before


def test_blas_is_held_from_any_thread():
    """Some versions of threadpoolctl let one thread alone set it, and are silent in the others."""
    before = blas_threads()
    x = layout.laid_side_by_side(np.random.default_rng(13).standard_normal((32, 1, 28, 28)).astype(np.float32))
    w = conv2d.Params(np.random.default_rng(14).standard_normal((16, 1, 3, 3)).astype(np.float32), None)
    fused = import_module("npattn.fused.conv2d")
    seen, found = [], []

    def act() -> None:
        with blas.blas_held:
            seen.append(blas_threads())
        found.append(fused.forward(x, w)[0].tobytes())

    act()
    for _ in range(2):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
        assert blas_threads() == before
    act()
    assert all(set(some) == {1} for some in seen), seen
    assert len(set(found)) == 1, "the same bits in every thread"

    lowered = threading.Thread(target=blas.blas_held.__enter__)  # and put back by another
    lowered.start()
    lowered.join()
    assert set(blas_threads()) == {1}
    blas.blas_held.__exit__()
    assert blas_threads() == before


def test_an_exception_of_a_helper_reaches_the_caller():
    npattn.set_num_threads(3)
    caller, started = threading.get_ident(), threading.Event()

    def task(i: int) -> int:
        if threading.get_ident() == caller:
            assert started.wait(10)
            return i
        started.set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.in_parallel(task, 8)
    assert threads.in_parallel(lambda i: i * i, 5) == [0, 1, 4, 9, 16]


def test_a_spread_within_a_task_stays_on_its_thread():
    npattn.set_num_threads(4)

    def outer(i: int) -> set[int]:
        return {threading.get_ident(), *threads.in_parallel(lambda j: threading.get_ident(), 6)}

    assert all(len(seen) == 1 for seen in threads.in_parallel(outer, 4))


def test_a_lone_task_leaves_the_threads_to_its_parts():
    npattn.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=10)
    assert threads.in_parallel(lambda i: threads.in_parallel(lambda j: meeting.wait() >= 0, 2), 1) == [[True] * 2]


def test_several_threads_at_once():
    rng = np.random.default_rng(18)
    x = rng.standard_normal((6, 8, 20, 20), dtype=np.float32)
    npattn.set_num_threads(2)
    wanted = npattn.CBAM(8, 2, rng=0)
    y = wanted(x)
    dx = wanted.backward(y)
    before, wrong = blas_threads(), []

    def work() -> None:
        layer = npattn.CBAM(8, 2, rng=0)
        for _ in range(10):
            if not np.array_equal(layer(x), y) or not np.array_equal(layer.backward(y), dx):
                wrong.append(threading.get_ident())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert blas_threads() == before


def test_the_number_of_threads_is_set_and_checked(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    assert npattn.get_num_threads() == threads.available_threads()
    if hasattr(os, "sched_getaffinity"):
        assert npattn.get_num_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv(threads.VARIABLE, "3")
    assert npattn.get_num_threads() == 3
    npattn.set_num_threads(5)
    assert npattn.get_num_threads() == 5
    npattn.set_num_threads(None)
    assert npattn.get_num_threads() == 3
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv(threads.VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{threads.VARIABLE}: expected a whole number of at least 1"):
            npattn.get_num_threads()
    for value, error in ((0, ValueError), (-2, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="n: expected a whole number"):
            npattn.set_num_threads(value)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_decides_not_the_machines_count():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "import npattn; assert npattn.get_num_threads() == 1"
    )
    environment = {key: value for key, value in os.environ.items() if key != threads.VARIABLE}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_can_compute():
    code = """
import os, sys, numpy as np, npattn
npattn.set_num_threads(2)
x = np.random.default_rng(0).standard_normal((200, 16, 28, 28), dtype=np.float32)
layer = npattn.ReLU()
y = layer(x)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(layer(x), y) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_npattn_imports_neither_the_blocks_nor_threadpoolctl():
    code = (
        "import sys, npattn; late = {'threadpoolctl', 'concurrent.futures', 'npattn.fused.cbam', 'npattn.bench'}; "
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Tiles


@pytest.mark.parametrize(
    ("total", "most", "multiple"), [(10, 3, 1), (90000, 16384, 64), (5, 0, 1), (1, 9, 64), (7, 7, 1)]
)
def test_slices_cover_everything_once(total, most, multiple):
    parts = tiles.even(total, most, multiple)
    assert [i for part in parts for i in range(total)[part]] == list(range(total))
    assert len({part.stop - part.start for part in parts[:-1]}) <= 1
    assert all(part.stop - part.start <= max(most, multiple) + multiple for part in parts)


def test_cache_sizes_are_read_or_assumed(tmp_path, monkeypatch):
    for index, (level, kind, size) in enumerate(
        [(1, "Instruction", "32K"), (2, "Unified", "1024K"), (3, "Unified", "x")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(tiles, "CACHES", tmp_path)
    tiles.cache_bytes.cache_clear()
    assert tiles.cache_bytes(2, 5) == 1024 * 1024
    assert tiles.cache_bytes(3, 7) == 7
    assert tiles.cache_bytes(1, 9) == 9
    tiles.cache_bytes.cache_clear()


def test_the_callers_errstate_holds_in_all_threads():
    """What NumPy is told to do about an overflow holds for the work that other threads do."""
    layer = npattn.Conv2d(16, 16, rng=0)
    x = np.full((64, 16, 28, 28), 3e38, np.float32)
    with np.errstate(all="ignore"):
        layer(x)
    assert layer.path == "fused"
    with np.errstate(over="raise", invalid="raise"), pytest.raises(FloatingPointError):
        layer(x)


def test_scratch_of_one_name_is_one_piece_of_memory():
    """Whatever shape is asked for, and also those from before it grew; only so many shapes are remembered."""
    scratch.drop()
    small = scratch.get("test", (2, 3), np.float32)
    assert scratch.get("test", (2, 3), np.float32) is small
    large = scratch.get("test", (5, 7), np.float64)
    again = scratch.get("test", (2, 3), np.float32)
    assert np.shares_memory(again, large)
    assert not np.shares_memory(small, large)
    assert (again.shape, again.dtype) == ((2, 3), np.float32)
    assert not np.shares_memory(scratch.get("another", (2, 3), np.float32), again)
    for size in range(1, 3 * scratch.VIEWS):
        scratch.get("test", (size,), np.uint8)
        assert len(scratch.mine.buffers.views["test"]) <= scratch.VIEWS
    assert scratch.nbytes() >= large.nbytes
    scratch.drop()
    assert not scratch.mine.buffers.views


def test_scratch_is_counted_and_can_be_dropped():
    """The scratch of all threads, those of the pool too, is known, and a call after dropping it gives the same."""
    layer = npattn.CBAM(4, ratio=2, rng=0)
    x = np.random.default_rng(0).standard_normal((8, 4, 64, 64)).astype(np.float32)
    first = layer(x)
    assert layer.path == "fused"
    assert scratch.nbytes() > 0
    scratch.drop()
    assert scratch.nbytes() == 0
    assert np.array_equal(layer(x), first)


# Without a backward


@pytest.mark.parametrize("data", ["dense", "rounded", "nan"])
@pytest.mark.parametrize("name", ["attention.cbam", "attention.spatial", "ops.max_pool_2x2"])
def test_a_forward_that_no_backward_will_follow_gives_the_same(name, data):
    """It does not look for places of maxima; a backward then says so, whoever calls it."""
    rng = np.random.default_rng(11)
    x = draw("dense" if data == "nan" else data, (3, 4, 8, 6), "float32", rng)
    if data == "nan":
        x[0, 1, 2, 3] = np.nan
    pair = both_forms(*name.split("."))[1]
    if name == "ops.max_pool_2x2":
        forward, backward = lambda: pair.forward(x), pair.backward
    else:
        w = rng.standard_normal((1, 2, 7, 7), dtype=np.float32)
        sa = spatial.Params(w)
        ca = channel.Params(*(rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 4), (4, 2))))
        params = sa if name == "attention.spatial" else cbam.Params(ca, sa)
        forward, backward = lambda: pair.forward(x, params), pair.backward
    y, cache = forward()
    with npattn.no_grad():
        same, short = forward()
    np.testing.assert_array_equal(same, y)
    backward(y, cache)
    with pytest.raises(RuntimeError, match=r"cache: was made under npattn.no_grad\(\), where a forward"):
        backward(y, short)
