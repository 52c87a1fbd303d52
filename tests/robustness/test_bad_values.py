"""What is no number, no bool, no dtype and no array: refused by name at every door, and never taken for something."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import npattn
from npattn import backend, cli, data, dialects, models
from npattn.bench.runs import bench_block, bench_train_step
from npattn.block import Block, Place
from npattn.blocks import blocks
from npattn.checker.cases import Case, block_cases
from npattn.checks import real_number, shaped, shaped_params, shown, true_or_false, whole_number, whole_numbers
from npattn.dialects.table import TABLE
from npattn.explain import class_activation_map, gate_statistics, overlay
from npattn.explain.counts import added
from npattn.explain.gate_maps import channel_bars, gate_maps
from npattn.explain.trace import trace, trace_op
from npattn.ops import batch_norm, hard_sigmoid, relu
from npattn.samples import Random
from npattn.state import dtype_name, generator
from npattn.variants import channel as vca
from npattn.variants import spatial as vsa
from tests.support.cases import MAKERS, ident, image_for

X = np.random.default_rng(0).standard_normal((2, 8, 4, 4)).astype(np.float32)

# Shapes


class Weights(NamedTuple):
    w: np.ndarray
    v: np.ndarray
    b: np.ndarray | None = None


WEIGHTS = Weights(np.zeros((3, 4)), np.zeros((4, 6, 1)), np.zeros(3))


@pytest.mark.parametrize(
    ("axes", "known", "says"),
    [
        ("C 2R 1", {}, None),
        ("C 2R 1", {"R": 3}, None),
        ("... 2R 1", {"R": 3}, None),
        ("C 2R 1", {"C": 5, "R": 3}, r"\(C=5, 2R=6, 1\)"),
        ("C 2R 1", {"R": 4}, r"\(C, 2R=8, 1\)"),
        ("C R 2", {}, r"\(C, R, 2\)"),
        ("... 2", {}, r"\(\.\.\., 2\)"),
        ("C R", {"C": 4}, r"\(C=4, R\)"),
    ],
)
def test_an_axis_is_a_letter_a_multiple_or_a_number(axes, known, says):
    if says is None:
        assert shaped("v", WEIGHTS.v, axes, **known) == (4, 6, 1)
    else:
        with pytest.raises(ValueError, match=rf"^v: expected shape {says}, got \(4, 6, 1\)$"):
            shaped("v", WEIGHTS.v, axes, **known)


def test_arrays_of_one_params_fit_each_other():
    axes = {"w": "R C", "v": "C 2R 1", "b": "R"}
    assert shaped_params(WEIGHTS, **axes) == {"R": 3, "C": 4}
    assert shaped_params(WEIGHTS._replace(b=None), {"C": 4, "N": 2}, **axes) == {"R": 3, "C": 4, "N": 2}
    for bad, error, says in (
        ({"b": np.zeros(4)}, ValueError, r"b: expected shape \(R=3\), got \(4,\)"),
        ({"v": np.zeros((4, 5, 1))}, ValueError, r"v: expected shape \(C=4, 2R=6, 1\), got \(4, 5, 1\)"),
        ({"v": None}, TypeError, "v: expected an array, got None"),
    ):
        with pytest.raises(error, match=f"^{says}$"):
            shaped_params(WEIGHTS._replace(**bad), **axes)
        with pytest.raises(error, match=rf"^add\.{says}$"):
            shaped_params(WEIGHTS._replace(**bad), None, "add", **axes)
    with pytest.raises(ValueError, match=r"^w: expected shape \(R, C=5\), got \(3, 4\)$"):
        shaped_params(WEIGHTS, {"C": 5}, **axes)


# Bools

NO_BOOLS = ("False", "no", "", 0, 1, None, 1.0, np.array(True), [], np.int8(1))


def flags(kind: type) -> list[str]:
    """The arguments of a constructor that are True or False by default."""
    return [name for name, p in inspect.signature(kind).parameters.items() if isinstance(p.default, bool)]


KINDS = sorted(
    {entry.kind for entry in blocks().values() if issubclass(entry.kind, Block)}
    | {npattn.Conv2d, npattn.Linear, npattn.BatchNorm2d, npattn.ReLU, npattn.MaxPool2x2, npattn.GlobalAvgPool},
    key=lambda kind: (kind.__module__, kind.__name__),
)
PLACE = Place(8, 4, 4, r=4, k=3)


def test_the_check_itself():
    for value in (True, False, np.True_, np.False_):
        assert true_or_false("it", value) is bool(value)
    for value in NO_BOOLS:
        with pytest.raises(TypeError, match=r"^it: expected True or False, got "):
            true_or_false("it", value)


def plain(value: object) -> str:
    """A name for a test, without the address that an object has in this process only."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__[7:]}.{kind.__name__}")
def test_every_flag_of_every_layer(kind: type[Block]):
    """Those that the constructor names, and the one that every layer has."""
    for flag in {*flags(kind), "fused"}:
        for value in NO_BOOLS:
            with pytest.raises(TypeError, match=rf"^{flag}: expected True or False, got "):
                kind.fitting(PLACE, **{flag: value})
        kind.fitting(PLACE, **{flag: np.True_})


@pytest.mark.parametrize("value", NO_BOOLS)
def test_flags_elsewhere(value, tmp_path):
    gate = npattn.ChannelAttention(8, 4)
    model = npattn.Sequential(npattn.Conv2d(1, 2), npattn.GlobalAvgPool(), npattn.Linear(2, 3))
    x = np.ones((1, 1, 4, 4), np.float32)
    calls: list[tuple[str, Callable[..., Any]]] = [
        ("mode", npattn.ReLU().train),
        ("mode", model.train),
        ("residual", lambda value: npattn.variants.CBAM(gate, None, residual=value)),
        ("download", lambda value: data.load(download=value)),
        ("relu", lambda value: class_activation_map(model, x, 0, relu=value)),
        ("normalise", lambda value: class_activation_map(model, x, 0, normalise=value)),
        ("upsample", lambda value: class_activation_map(model, x, 0, upsample=value)),
        ("fused", lambda value: models.digits("none", fused=value)),
    ]
    for name, call in calls:
        with pytest.raises(TypeError, match=rf"^{name}: expected True or False, got "):
            call(value)
    assert model.training


FLAGS = [
    (row, name)
    for rows in TABLE.values()
    for row in rows.values()
    for name, parameter in row.signature.parameters.items()
    if isinstance(parameter.default, bool)
]


@pytest.mark.parametrize(("row", "flag"), FLAGS, ids=[f"{row.title}-{flag}" for row, flag in FLAGS])
def test_every_flag_of_every_dialect(row, flag):
    parameters = row.signature.parameters
    first = next(iter(parameters))  # how many channels there are
    numbers = {name: 16 for name, given in parameters.items() if name == first or given.default is given.empty}
    for value in NO_BOOLS:
        with pytest.raises(TypeError, match=rf"^{flag}: expected True or False, got "):
            dialects.build(row.dialect, row.name, **numbers | {flag: value})
    dialects.build(row.dialect, row.name, **numbers | {flag: np.bool_(parameters[flag].default)})


def test_a_flag_of_three_values():
    for value in (1, 0, "yes", None, np.array([True])):
        with pytest.raises(ValueError, match=r"^bias: expected True, False or 'auto', got "):
            dialects.build("mmpretrain", "SELayer", channels=16, bias=value)
    with pytest.raises(TypeError, match=r"^wrapped: expected True or False, got 'no'"):
        dialects.candidates({}, wrapped="no")


# Numbers

NO_NUMBERS = (True, np.True_, "3", b"3", bytearray(b"3"), None, [3], {}, 3j, np.complex64(3), np.array([3]),
              np.timedelta64(3, "s"), np.array(True), object())  # fmt: skip


@pytest.mark.parametrize("value", NO_NUMBERS, ids=plain)
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^it: expected a whole number, got "):
        whole_number("it", value)
    with pytest.raises(TypeError, match=r"^it: expected a number, got "):
        real_number("it", value)


def test_what_is_a_number():
    for value in (3, np.int8(3), np.uint64(3), np.array(3)):
        assert whole_number("it", value) == 3
    for real in (3, 3.0, np.float32(3), Fraction(3), np.array(3.0)):
        assert real_number("it", real) == 3.0
    for wrong in (3.0, 7.5, np.float64(7)):
        with pytest.raises(TypeError, match=r"^it: expected a whole number, got "):
            whole_number("it", wrong)
    for bad in (float("nan"), float("inf"), -float("inf"), 10**400, np.float32("nan")):
        with pytest.raises(ValueError, match=r"^it: expected a finite number"):
            real_number("it", bad)


def test_tensors_for_numbers():
    torch = pytest.importorskip("torch")
    assert whole_number("it", torch.tensor(3)) == 3
    assert real_number("it", torch.tensor(3.0)) == 3.0
    for wrong in (torch.tensor(True), torch.tensor([3]), torch.tensor(3, device="meta"), torch.tensor(3j)):
        with pytest.raises(TypeError, match=r"^it: expected a whole number"):
            whole_number("it", wrong)
        with pytest.raises(TypeError, match=r"^it: expected a number"):
            real_number("it", wrong)


def test_a_message_is_short_and_comes():
    """Python itself refuses to write out a number of thousands of digits."""
    with pytest.raises(ValueError, match=r"^it: expected a whole number of at most 9, got a value of type int$"):
        whole_number("it", 10**5000, most=9)
    with pytest.raises(ValueError, match=r"^it: expected a whole number of at least 1, got "):
        whole_number("it", -(10**5000))

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Mute()) == "a value of type Mute"
    assert len(shown("a" * 1000)) == 80


def test_whole_numbers():
    assert whole_numbers("it", np.array([1, 2]), 2) == (1, 2)
    for value, error in ((5, TypeError), ("12", TypeError), (None, TypeError), ((1,), ValueError), ((1, 0), ValueError),
                         ((1, 2.0), TypeError), ((1, True), TypeError)):  # fmt: skip
        with pytest.raises(error, match=r"^it: expected "):
            whole_numbers("it", value, 2)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__[7:]}.{kind.__name__}")
def test_every_number_of_every_layer(kind: type[Block]):
    """Whatever stands where a number belongs: an error that names the argument, or one of its own limits."""
    for name, letter in kind.arguments.items():
        for value in (7.0, "8", True, [8], 3j, -1, 0, 10**5000, float("nan")):
            with pytest.raises(
                (TypeError, ValueError, MemoryError), match=rf"^{name}\b|^[a-z_]+: expected at most {name}"
            ):
                kind.fitting(PLACE, **{name: value})
        assert letter


@pytest.mark.parametrize(
    "make",
    [
        lambda value: npattn.BatchNorm2d(4, momentum=value),
        lambda value: npattn.variants.SpatialAttention(3, norm=True, momentum=value),
        lambda value: npattn.CoordinateAttention(8, 4, momentum=value),
        lambda value: batch_norm.updated(*_running(), value),
    ],
)
def test_momentum(make):
    for value in (float("nan"), float("inf"), -0.1, 1.1):
        with pytest.raises(ValueError, match=r"^momentum: expected a finite number from 0 to 1"):
            make(value)
    for value in ("0.1", True, None, [0.1]):
        with pytest.raises(TypeError, match=r"^momentum: expected a number"):
            make(value)


def _running():
    params = batch_norm.Params(np.ones(8, np.float32), np.zeros(8, np.float32))
    _, cache = batch_norm.forward(X, params)
    return batch_norm.Running(params.beta, params.gamma), cache


@pytest.mark.parametrize("eps", [float("nan"), -1.0, "1e-5", True, float("inf")])
def test_eps_of_the_pairs(eps):
    from npattn.fused import batch_norm as fused

    params = batch_norm.Params(np.ones(8, np.float32), np.zeros(8, np.float32))
    running = batch_norm.Running(params.beta, params.gamma)
    for pair in (batch_norm, fused):
        for of in (None, running):
            with pytest.raises((TypeError, ValueError), match=r"^eps: expected a"):
                pair.forward(X, params, of, eps)


def test_options_of_the_pairs():
    """Names that the functions take, as the layers do."""
    with pytest.raises(ValueError, match=r"^gate: expected one of 'sigmoid', "):
        npattn.attention.eca.forward(X, npattn.attention.eca.Params(np.ones((1, 3), np.float32)), "junk")
    w = np.ones((8, 8), np.float32)
    for settings, name in ((vca.Settings(gate="junk"), "gate"), (vca.Settings(("sum",)), "pools"),
                           (vca.Settings(mix="x"), "mix"), (vca.Settings(max_tie="x"), "max_tie"),
                           (vca.Settings(pools=(["avg"],)), "pools")):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
            vca.forward(X, vca.Params(w), settings)
    for settings, name in ((vsa.Settings(gate="junk"), "gate"), (vsa.Settings(("sum",)), "maps")):
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected"):
            vsa.forward(X, vsa.Params(np.ones((1, 2, 3, 3), np.float32)), settings)
    for d in (0, -6, float("nan"), "6"):
        with pytest.raises((TypeError, ValueError), match=r"^d: expected a"):
            hard_sigmoid.forward(X, d)
    for order in (None, 3, ["channel-first"], np.array(["a", "b"])):
        with pytest.raises(ValueError, match=r"^order: expected one of"):
            npattn.variants.CBAM(npattn.ChannelAttention(8, 4), npattn.SpatialAttention(), order=order)


# dtype, rng, xp, device


class Sly:
    """Says that it is a dtype of torch's."""

    def __str__(self) -> str:
        return "torch.float32"


NO_DTYPES = (
    *(None, "junk.float32", "torch.float32", "float16", ">f4", np.dtype(">f8"), "f4,", "junk,,", "", "float32 ", b""),
    *(0, 1.0, True, {}, [], ..., object(), Sly(), int, np.int64, np.complex64, "(2,)f4", np.zeros(2, "f4")),
)


@pytest.mark.parametrize("dtype", NO_DTYPES, ids=plain)
def test_what_is_no_dtype(dtype):
    if dtype is not None:  # to `to` it says that the dtype stays
        with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got "):
            npattn.ReLU().to(dtype=dtype)
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got "):
        npattn.SELayer(8, 4, dtype=dtype)


def test_what_is_a_dtype():
    strict = pytest.importorskip("array_api_strict")
    for dtype in ("float64", "f8", "d", float, np.float64, np.dtype("float64"), np.dtype("=f8"), strict.float64):
        assert dtype_name(dtype) == "float64"
    torch = pytest.importorskip("torch")
    assert dtype_name(torch.float32) == "float32"
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got torch\.bfloat16"):
        npattn.ReLU(dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "rng",
    [True, np.True_, -1, 1.5, "7", b"7", {}, {1}, float("nan"), [-1], [1.5], np.array([1.0]), np.random, object()],
    ids=plain,
)
def test_what_is_no_seed(rng):
    with pytest.raises((TypeError, ValueError), match=r"^rng: expected a numpy.random.Generator, a seed \("):
        npattn.SELayer(8, 4, rng=rng)


def test_what_is_a_seed():
    for rng in (None, 0, 2**70, np.int8(3), [1, 2], np.random.SeedSequence(3), np.random.default_rng(3)):
        assert isinstance(generator(rng), np.random.Generator)


@pytest.mark.parametrize(
    "xp", ["numpy", 5, {}, np.ma, SimpleNamespace(zeros=5), SimpleNamespace(zeros=list), os], ids=plain
)
def test_what_is_no_array_module(xp):
    with pytest.raises(TypeError, match=r"^xp: expected an array module such as numpy, cupy or torch, got "):
        npattn.ReLU(xp=xp)
    layer = npattn.SELayer(8, 4)
    with pytest.raises(TypeError, match=r"^xp: expected an array module"):
        layer.to(xp=xp)
    layer(X)


@pytest.mark.parametrize("device", ["tpu", 5, True, ["cpu"], np.float64, np.array(["cpu", "cuda"]), b"cpu"], ids=plain)
def test_what_is_no_device(device):
    layer = npattn.SELayer(8, 4)
    with pytest.raises(ValueError, match=r"^device: expected 'cpu' or 'cuda', got "):
        layer.to(device)
    layer(X)


@pytest.mark.parametrize("state", [None, 5, "fc.0.weight", [("a", 1)], object()], ids=plain)
def test_what_is_no_state(state):
    with pytest.raises(TypeError, match=r"^state: expected a dict of arrays by key, got "):
        npattn.SELayer(8, 4).load_state_dict(state)


# no_grad


def test_no_grad_is_entered_again_and_again():
    layer = npattn.SELayer(8, 4)
    off = npattn.no_grad()
    for _ in range(2):
        with off, off:
            layer(X)
            with pytest.raises(RuntimeError, match="no_grad"):
                layer.backward(X)
        layer.backward(np.ones_like(layer(X)))

    with off:
        with off:
            pass
        layer(X)
        with pytest.raises(RuntimeError, match="no_grad"):
            layer.backward(X)

    @npattn.no_grad()
    def twice(depth: int) -> None:
        layer(X)
        if depth:
            twice(depth - 1)
        with pytest.raises(RuntimeError, match="no_grad"):
            layer.backward(X)

    twice(2)
    with pytest.raises(ZeroDivisionError), off:
        _ = 1 / 0
    layer.backward(np.ones_like(layer(X)))


def test_no_grad_without_its_brackets():
    with pytest.raises(TypeError):
        npattn.no_grad(lambda x: x)
    with pytest.raises(TypeError), npattn.no_grad:  # type: ignore[attr-defined]
        pass


# Arrays that are none, or none of those that are meant


class Units(np.ndarray):
    """Numbers with a unit: products have another one."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        raise NotImplementedError("units")


class Resembling:
    """An object of another library that follows the array API, or says so."""

    shape, dtype, ndim, size = (2, 8, 4, 4), np.dtype("float32"), 4, 256

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np


def odd_arrays(x: np.ndarray = X) -> dict[str, Any]:
    """Inputs that no layer can take, by what they are, with the numbers of x."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are old, some new
        return odd(x)


def odd(x: np.ndarray) -> dict[str, Any]:
    named = np.zeros(x.shape, dtype=[("a", "f4")])
    found = {
        "masked": np.ma.masked_array(x, x > 1),
        "masked, no mask": np.ma.masked_array(x),
        "matrix": np.matrix(x.reshape(len(x), -1)),
        "units": x.view(Units),
        "objects": x.astype(object),
        "structured": named,
        "record": named.view(np.recarray),
        "other byte order": x.astype(">f4"),
        "text": np.full(x.shape, "a"),
        "dates": np.zeros(x.shape, "M8[s]"),
        "whole numbers": x.astype(int),
        "bools": x > 0,
        "float16": x.astype(np.float16),
        "long double": x.astype(np.longdouble),
        "no axes": np.array(1.0, np.float32),
        "a number": np.float32(1),
        "five axes": x[None],
        "list": x.tolist(),
        "resembling": Resembling(),
        "buffer": memoryview(x),
        "none": None,
        "text itself": "x",
        "class": np.ndarray,
    }
    try:
        import torch
    except ImportError:
        return found
    t = torch.from_numpy(x)
    return found | {
        "torch": t,
        "meta": t.to("meta"),
        "sparse": t.to_sparse(),
        "torch, bfloat16": t.to(torch.bfloat16),
        "quantized": torch.quantize_per_tensor(t, 0.1, 0, torch.quint8),
        "nested": torch.nested.nested_tensor([t[0], t[1]]),
        "parameter on meta": torch.nn.Parameter(t.to("meta")),
    }


EVERY_RANK = ("no axes", "a number", "five axes")  # a function of each number takes them, and gives the right result


@pytest.mark.parametrize("make", MAKERS, ids=ident)
def test_no_layer_takes_it(make):
    """As x, and as dy. The message says which of the two it is."""
    layer = make()
    x = np.random.default_rng(0).standard_normal(image_for(layer, X.shape)).astype(np.float32)
    y = layer(x)
    for kind, array in odd_arrays(x).items():
        if (layer.input_axes is None and kind in (*EVERY_RANK, "matrix")) or (kind == "torch" and not layer.params):
            continue
        with pytest.raises((TypeError, ValueError), match=r"\bx\b.*expected|expected.*\bx\b"):
            pytest.fail(f"{kind}: {type(layer(array))}")
    layer(x)
    for kind, array in odd_arrays(y).items():
        if y.ndim == 4 or kind not in (*EVERY_RANK, "matrix"):
            with pytest.raises((TypeError, ValueError), match=r"^dy: expected"):
                pytest.fail(f"{kind}: {type(layer.backward(array))}")
    assert layer.backward(y).shape == x.shape


@pytest.mark.parametrize("kind", ["meta", "sparse", "nested"])
def test_layers_of_torch_do_not_take_it(kind):
    torch = pytest.importorskip("torch")
    layer = npattn.CBAM(8, 4, 3, xp=torch)
    x = odd_arrays()[kind]
    with pytest.raises(TypeError, match=rf"^x: expected an array with a number at each place, got .*{kind}"):
        layer(x)
    layer(torch.from_numpy(X))
    with pytest.raises(TypeError, match=r"^dy: expected an array with a number at each place"):
        layer.backward(x)
    with pytest.raises(TypeError, match=r"^state\['weight'\]: expected an array with a number at each place"):
        npattn.Linear(8, 2, bias=False, xp=torch).load_state_dict({"weight": x})


def test_arrays_that_are_as_good(tmp_path):
    """Of a subclass that only stores elsewhere, read-only, with strides, side by side in memory: the same numbers."""
    layer = npattn.CBAM(8, 4, 3, rng=0)
    dy = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    y = layer(X)
    dx = layer.backward(dy)
    stored = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    stored[...] = X
    locked = X.copy()
    locked.flags.writeable = False
    for x in (stored, locked, np.asfortranarray(X), np.repeat(X, 2, axis=3)[..., ::2], X[::-1].copy()[::-1]):
        np.testing.assert_allclose(layer(x), y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(X, locked)


def test_which_arrays_are_known():
    assert backend.array_module(X) is backend.numpy_module()
    for wrong in (Resembling(), X.view(Units), np.ma.masked_array(X), odd_arrays()["matrix"]):
        with pytest.raises(TypeError, match=r"^arrays\[0\]: expected "):
            backend.array_module(wrong)
    with pytest.raises(TypeError, match=r"^x: expected an array"):
        relu.forward(Resembling())


# What explains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_index": [[0], [1, 2]]}, "class_index: expected a whole number"),
        ({"class_index": 1.0}, "class_index: expected a whole number"),
        ({"class_index": np.array([0, 1, 2])}, "class_index: expected a whole number"),
        ({"class_index": {}}, "class_index: expected a whole number"),
        ({"class_index": 3}, "class_index: expected classes from 0 to 2"),
        ({"class_index": -1}, "class_index: expected classes from 0 to 2"),
        ({"class_index": 2**70}, "class_index: expected "),
        ({"method": None}, "method: expected one of 'cam', 'grad-cam'"),
        ({"method": ["cam"]}, "method: expected one of"),
        ({"layer": 5}, "layer: expected the name of a layer or None, got 5"),
        ({"layer": "5", "method": "grad-cam"}, "layer: expected one of 0, 1, 2"),
        ({"x": None}, "x: expected an array"),
        ({"x": np.ones((1, 1, 4, 4))}, "x: expected|weight: expected|0.weight: expected"),
        ({"model": 5}, "model: expected a Sequential"),
    ],
)
def test_class_activation_maps(arguments, message):
    model = npattn.Sequential(npattn.Conv2d(1, 2), npattn.GlobalAvgPool(), npattn.Linear(2, 3))
    given = {"model": model, "x": np.ones((1, 1, 4, 4), np.float32), "class_index": 0} | arguments
    with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
        class_activation_map(**given)


@pytest.mark.parametrize("tell", [gate_statistics, gate_maps, channel_bars])
def test_gates(tell):
    for gates in (5, None, [np.ones((1, 1, 2, 2))], "gates"):
        with pytest.raises(TypeError, match=r"^gates: expected a dict of arrays, got "):
            tell(gates)
    for gate in ([1.0], None, np.ma.masked_array([0.5]), np.array(["a"]), np.array([None]), Resembling()):
        with pytest.raises(TypeError, match=r"^gates\['a'\]: expected "):
            tell({"a": gate})


@pytest.mark.parametrize("gate", [np.zeros((0, 1, 2, 2)), np.array(0.5), np.array([0.5, np.nan]), np.array([np.inf])])
def test_gates_without_numbers(gate):
    with pytest.raises(ValueError, match=r"^gates\['a'\]: expected finite numbers with the images first"):
        gate_statistics({"a": gate})


GREY = np.full((1, 2, 2), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": float("nan")}, "strength: expected a finite number from 0 to 1"),
        ({"strength": 1.5}, "strength: expected a finite number from 0 to 1"),
        ({"strength": True}, "strength: expected a number"),
        ({"positive": "red"}, "positive: expected three numbers"),
        ({"positive": (1, 0)}, "positive: expected three numbers"),
        ({"negative": (0, 0, 2)}, "negative: expected a finite number from 0 to 1"),
        ({"negative": 5}, "negative: expected three numbers"),
        ({"negative": (0, 0, "1")}, "negative: expected a number"),
        ({"images": GREY.astype(object)}, "images: expected dtype"),
        ({"images": None}, "images: expected an array"),
        ({"images": np.ma.masked_array(GREY)}, "images: expected a plain array"),
        ({"maps": GREY.astype(int)}, "maps: expected dtype"),
        ({"maps": GREY[0]}, "maps: expected shape"),
        ({"images": GREY[0], "maps": GREY[0]}, "images: expected shape"),
        ({"maps": GREY * np.nan}, "maps: expected numbers"),
        ({"images": GREY * 3}, "images: expected numbers"),
    ],
)
def test_overlays(arguments, message):
    with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
        overlay(**({"images": GREY, "maps": GREY} | arguments))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trace("se", 5), "shape: expected 4 whole numbers"),
        (lambda: trace("se", "1223"), "shape: expected 4 whole numbers"),
        (lambda: trace("se", (1, 2, 2)), "shape: expected 4 whole numbers"),
        (lambda: trace("se", (1, 2, 2.0, 2)), "shape: expected a whole number"),
        (lambda: trace("se", (1, 2, 0, 2)), "shape: expected a whole number of at least 1"),
        (lambda: trace(["se"]), "name: expected one of"),
        (lambda: trace("se", seed=-1), "seed: expected a whole number of at least 0"),
        (lambda: trace("se", seed=True), "seed: expected a whole number"),
        (lambda: trace("se", ratio=1.0), "ratio: expected a whole number"),
        (lambda: trace("spatial", kernel_size=2), "kernel_size: expected an odd"),
        (lambda: trace_op(None), "name: expected one of"),
        (lambda: trace_op("relu", "1"), "seed: expected a whole number"),
        (lambda: added(None), "block: expected one of"),
        (lambda: added("se", 5), "stages: expected"),
        (lambda: added("se", [(64,)]), r"stages: expected \(channels, blocks\) of each stage, got \(64,\)"),
        (lambda: added("se", [("64", 2)]), r"stages \(channels\): expected a whole number, got '64'"),
        (lambda: added("se", [64, 2]), r"stages: expected \(channels, blocks\) of each stage, got 64"),
        (lambda: added("se", "resnet"), "stages: expected one of"),
        (lambda: added("se", ratio="16"), "ratio: expected a whole number"),
        (lambda: added("spatial", kernel_size=None), "kernel_size: expected a whole number"),
        (lambda: block_bench(runs=0), "runs: expected a whole number of at least 1"),
        (lambda: block_bench(runs="3"), "runs: expected a whole number"),
        (lambda: block_bench(dtype=None), "dtype: expected float32 or float64"),
        (lambda: block_bench(dtype="int8"), "dtype: expected float32 or float64"),
        (lambda: block_bench(data="sparse"), "data: expected one of 'dense', 'relu', 'zero'"),
        (lambda: block_bench(shape=(1, 2)), "shape: expected 4 whole numbers"),
        (lambda: block_bench(shape=8), "shape: expected 4 whole numbers"),
        (lambda: block_bench(name="best"), "name: expected one of"),
        (lambda: block_bench(on="tpu"), "device: expected 'cpu' or 'cuda'"),
        (lambda: bench_train_step(runs=0), "runs: expected a whole number"),
        (lambda: bench_train_step(runs=1, batch=1), "batch: expected a whole number of at least 2"),
        (lambda: npattn.set_num_threads("2"), "n: expected a whole number"),
        (lambda: data.load(5), "data_dir: expected a path or None, got 5"),
        (lambda: data.load(b"folder"), "data_dir: expected a path or None, got b'folder'"),
    ],
)
def test_calls(call, message):
    with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
        call()


def block_bench(**given: Any) -> Any:
    usual = {"name": "se", "shape": (1, 16, 2, 2), "runs": 1, "dtype": "float32", "data": "dense"}
    named = usual | given
    return bench_block(named.pop("name"), named.pop("shape"), **named)


# The command line


@pytest.mark.parametrize("option", ["--json", "--growth"])
def test_bench_asks_for_its_file_before_it_measures(option, tmp_path, capsys, monkeypatch):
    for name in ("in_children", "growth"):
        monkeypatch.setattr(f"npattn.commands.bench.{name}", lambda *args, **options: pytest.fail("it measures"))
    for path in (tmp_path, tmp_path / "none" / "a.svg", tmp_path / "a.xyz") if option == "--growth" else (
        tmp_path, tmp_path / "none" / "a.json"
    ):  # fmt: skip
        assert cli.main(["bench", option, str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"npattn: {option}: expected a file ")


NUMBERS = ("0", "-1", "1e3", "nan", "", "9" * 5000, "9999999999999999999999", "٣", "1_0", "0x10", " 3", "３")


@pytest.mark.parametrize(
    "words",
    [
        ["trace", "se", "--seed"],
        ["trace", "se", "--ratio"],
        ["trace", "spatial", "--kernel-size"],
        ["trace", "se", "--shape", "1", "2", "2"],
        ["trace"],
        ["count", "--ratio"],
        ["count", "--kernel-size"],
        ["count", "--stages"],
        ["count", "--network"],
        ["bench", "--shape"],
        ["bench", "--threads", "1", "--block"],
        ["bench", "--block", "se", "--shape", "1,16,1,1", "--runs", "1", "--threads"],
        ["gradcheck", "tests.checker.targets:make_layer", "--shape"],
        ["gradcheck", "tests.checker.targets:make_layer", "--shape", "2,8,3,3", "--seed"],
        ["gradcheck", "tests.checker.targets:make_layer"],
        ["gradcheck", "--shape", "2,8,3,3"],
        ["cam", "nowhere", "--digits"],
        ["cam"],
        ["dialect"],
        ["ablate", "--list", "--only"],
        ["ablate", "--only", "none", "--out", "nowhere/at/all", "--seeds"],
        ["ablate", "--only", "none", "--out", "nowhere/at/all", "--jobs"],
    ],
    ids=" ".join,
)
def test_no_traceback_for_what_is_typed(words, capsys, monkeypatch, tmp_path):
    """A line, and status 1 or 2; or the work is done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("npattn.commands.ablate.ablate", lambda *args, **options: True)
    monkeypatch.setattr("npattn.commands.bench.in_children", lambda *args, **options: {})
    monkeypatch.setattr("npattn.commands.bench.report", lambda result: "measured")
    for value in (*NUMBERS, "a\0b", "-", "--", "*", os.fsdecode(b"\xff"), "x" * 5000):
        try:
            status = cli.main([*words, value])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr().err
        assert status in (0, 1, 2)
        assert "Traceback" not in said
        assert bool(said) == (status != 0)
        assert len(said.splitlines()) <= 40


# Parameters that a form has not

ABSENT = [
    pytest.param(case, place, name, id=f"{case.name}-{name}")
    for case in block_cases()
    for place, params in enumerate(case.draw(Random(np.random.default_rng(0), (2, 4, 3, 2), 2, 3, 1.0)))
    for name in getattr(params, "_fields", ())
    if getattr(params, name) is None and "Array" in str(type(params).__annotations__[name])
]


@pytest.mark.parametrize(("case", "place", "name"), ABSENT)
def test_a_parameter_that_a_form_has_not_is_used_or_refused(case: Case, place: int, name: str):
    """Never passed over, and never spread over numbers that it does not fit."""
    rng = np.random.default_rng(1)
    arguments, refusals = list(case.draw(Random(rng, (2, 4, 3, 2), 2, 3, 1.0))), []
    for shape in [(), (1,), (2,), (3,), (4,), (2, 4), (4, 2), (4, 4), (1, 4)]:
        given = [*arguments]
        given[place] = arguments[place]._replace(**{name: rng.normal(size=shape)})
        try:
            y, cache = case.forward(*given)
        except (TypeError, ValueError) as error:
            refusals.append(str(error))
            continue
        grads = case.backward(rng.normal(size=y.shape), cache)[place]
        assert getattr(grads, name).shape == shape
    assert all(re.match(r"\w+.*: expected ", one) for one in refusals), refusals  # of w1 without b names b
