"""Extremes of form, size and magnitude: every pair and layer is right or says what is wrong, and nothing warns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from npattn.layer import Layer
from tests.support import extremes
from tests.support.extremes import (
    FORMS,
    FUSED,
    LAYER_TARGETS,
    MAGNITUDES,
    PAIRS,
    SIZES,
    TARGETS,
    Form,
    Magnitude,
    Size,
    Target,
)
from tests.support.trees import arrays, cast, floats_mapped

SHAPE = (2, 4, 4, 6)
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)


@pytest.fixture(autouse=True)
def strict():
    """What NumPy would warn of is an error here, in the fused path's threads too."""
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


WITHOUT = ("strip", "strip-bias")  # pairs that have a form without any parameter, so that None is no mistake


def alike(found: dict, wanted: dict, within: float = 1e-11, least: float = 64 * SMALLEST) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert np.shape(value) == np.shape(wanted[name]), name
        scale = float(np.abs(wanted[name]).max(initial=0))
        atol = within * scale + least
        np.testing.assert_allclose(value, wanted[name], rtol=within, atol=atol, err_msg=name)


@pytest.mark.parametrize("where", ["x", "dy", "parameters"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms(form: Form, where: str):
    """Strides, byte orders, dtypes, classes: of x, of dy, and of all parameters."""
    for target in TARGETS:
        rng = np.random.default_rng(3)
        x, params = target.draw(rng, SHAPE, 3)
        wanted = target.run(x, params)
        dy = extremes.cotangent(wanted["y"])
        if where == "x":
            given = (form.make(x), params, dy)
        elif where == "dy":
            if dy.ndim == 0:  # the loss's: no strides to speak of
                continue
            given = (x, params, form.make(dy))
        else:
            if not any(a.dtype.kind == "f" for a in arrays(params)):
                continue
            if form.name == "None" and (target.layer or target.pair in WITHOUT):
                continue  # a layer's params hold arrays: it is not asked again and again
            given = (x, floats_mapped(form.make, params), dy)
        error, message = form.error or (None, "")
        if target.fused and not target.layer and where == "x" and not form.plain:
            error, message = error or TypeError, message or "expected a contiguous NumPy array of float32 or float64"
        if error is None:
            alike(target.run(*given), wanted, least=1e-13)  # what cancels is left with rounding
            continue
        with pytest.raises(error, match=rf"^[\w.\[\]' ()]+: {re.escape(message)}") as caught:
            target.run(*given)
        assert not isinstance(caught.value, UnicodeError), target.name


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_wrong_axes(target: Target):
    """0-d, three and five axes: what works on any shape does, the others say which axes they want."""
    x, params = target.draw(np.random.default_rng(4), SHAPE, 3)
    for bad in (x.reshape(-1)[:1].reshape(()), x[0], x[None]):
        along_one = bool(params) or target.row.lower() == "softmax"  # it needs an axis to go along
        if target.any_axes and (bad.ndim or not along_one):
            found = target.run(bad, params)
            assert found["y"].shape[:-1] == bad.shape[:-1]
            continue
        with pytest.raises(ValueError, match=r"^([xzbq]|parts\[\d\]): expected shape \("):
            target.run(bad, params)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_cotangent_of_another_shape(target: Target):
    x, params = target.draw(np.random.default_rng(5), SHAPE, 3)
    dy = extremes.cotangent(target.run(x, params)["y"])
    for bad in (dy[None], dy.reshape(-1)[:1] if dy.size > 1 else dy[None, None]):
        with pytest.raises(ValueError, match=r"^d\w+: expected shape \("):
            target.run(x, params, bad)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
def test_sizes(size: Size):
    """Empty batches, single rows, large kernels, many channels: PyTorch's answer, or an error that says why not."""
    for target in PAIRS + FUSED + (LAYER_TARGETS if size.size[1] < 100 else []):
        if target.fused and not target.layer and 0 in size.size:
            x, params = target.draw(np.random.default_rng(6), size.size, size.k)
            if extremes.refused(next(plain for plain in PAIRS if plain.name == target.pair), size):
                continue
            with pytest.raises(TypeError, match=r"^x: expected a contiguous NumPy array .* that is not empty"):
                target.run(x, params)
            continue
        if extremes.refused(target, size):  # with a message that is allowed for this shape
            continue
        x, params = target.draw(np.random.default_rng(6), extremes.room_for(target, size), size.k)
        found = target.run(x, params)
        for name, value in found.items():
            assert np.isfinite(value).all(), f"{target.name}: {name}"
            assert value.dtype == np.float64
        textbook = next((plain for plain in PAIRS if plain.name == target.pair), None)
        if target.fused and textbook is not None:
            alike(found, textbook.run(x, params))
        else:
            alike_torch(target, x, params, found)


def alike_torch(target: Target, x: np.ndarray, params, found: dict, within: float = 1e-11) -> None:
    """The results against PyTorch's, where it is installed and has the same."""
    torch_pairs = pytest.importorskip("tests.support.torch_pairs")
    pytest.importorskip("torch", reason="torch is not installed")
    if target.pair not in torch_pairs.TWINS or x.size == 0:
        return
    try:
        y, gradients = torch_pairs.run(target.pair, (x, *params), extremes.cotangent(found["y"]))
    except ValueError as error:  # a group of one number, which its group norm refuses
        if str(error).startswith("Expected more than 1 value per channel"):
            return
        raise
    wanted = {"y": y} | {f"d{name}": value for name, value in gradients.items()}
    wanted = {name: value for name, value in wanted.items() if name in found}
    least = 1e-15 if x.size == 1 else 64 * SMALLEST  # what a norm of one number cancels is left with rounding
    alike({name: value for name, value in found.items() if name in wanted}, wanted, within, least)


@pytest.mark.parametrize("magnitude", MAGNITUDES, ids=lambda m: f"{m.name} {m.dtype}")
def test_magnitudes(magnitude: Magnitude):
    """Tiny, denormal and huge numbers. What fits is right and raises no flag; the rest is inf or NaN, in silence."""
    for target in TARGETS:
        x, params = target.draw(np.random.default_rng(8), (2, 4, 3, 5), 3)
        x = (x.clip(-1, 1) * magnitude.scale).astype(magnitude.dtype)
        params = cast(params, magnitude.dtype)
        fits = magnitude.fits and not extremes.squares(target, magnitude)
        if fits and not (target.norm and magnitude.scale > 1):
            found = target.run(x, params)
            assert all(np.isfinite(value).all() for value in found.values()), target.name
        elif target.layer:  # in silence, though the flags are there
            with np.errstate(all="warn"):
                found = target.run(x, params)
        else:
            with np.errstate(all="ignore"):
                found = target.run(x, params)
        for name, value in found.items():
            assert value.dtype == magnitude.dtype, f"{target.name}: {name}"
        if fits and not target.norm and not target.layer:
            if "denormal" in magnitude.name:  # few bits are left of x: a ReLU's sign is a matter of rounding
                found = {"y": found["y"]}
            close_to_double(target, x, params, found)


EVEN = {"double-attention": ("d1.b_v",), "double-attention-alone": ("d1.b_v",)}
"""What is 0 where x is next to nothing, by cancelling numbers of size 1: all descriptors are alike there."""


def close_to_double(target: Target, x: np.ndarray, params, found: dict) -> None:
    """float32's results against the same computed in float64, and float64's against PyTorch's."""
    if x.dtype == np.float64:
        alike_torch(target, x, params, found, 1e-9)
        return
    dy = extremes.cotangent(found["y"]).astype(np.float64)
    textbook = next(plain for plain in PAIRS if plain.name == target.pair)
    wanted = textbook.run(*cast((x, params), np.float64), dy)
    for name, value in found.items():
        scale = float(np.abs(wanted[name]).max(initial=0))
        around = 1.0 if name in EVEN.get(target.name, ()) else 0.0
        atol = 1e-5 * scale + 1e-6 * around + 64 * float(np.finfo(np.float32).smallest_subnormal)
        np.testing.assert_allclose(value, wanted[name], rtol=1e-5, atol=atol, err_msg=f"{target.name}: {name}")


def test_layers_are_silent_but_for_who_asks():
    """An overflow in a layer warns nobody; numpy.errstate can make an error of it."""
    huge = np.full((1, 8, 2, 2), 3e38, np.float32)

    class Doubled(Layer):
        def run(self, x):
            return x + x, x

        def undo(self, dy, cache):
            return dy * cache * cache, {}

    layer = Doubled()
    with np.errstate(all="warn"):
        assert np.isinf(layer(huge)).all()
        assert np.isinf(layer.backward(huge)).all()
    with pytest.raises(FloatingPointError):  # the fixture's errstate
        layer.backward(huge)
    with pytest.raises(FloatingPointError):
        layer(huge)


def test_the_page_shows_these_tables():
    """They are made where the docs are built, so that no page lists what there is."""
    page = (Path(extremes.__file__).parents[2] / "docs" / "extremes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^:::\{extremes\} (\w+)$", page, re.MULTILINE)) == set(extremes.TABLES)
    for make in extremes.TABLES.values():
        head, rule, *rows = make().splitlines()
        assert len(rows) > 5
        assert {row.count(" | ") for row in (head, rule, *rows)} == {head.count(" | ")}
