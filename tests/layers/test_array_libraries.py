"""One source for every array library: what it gives elsewhere is what it gives on NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn import backend
from npattn.checker.cases import Maker
from tests.support.cases import CASES, MAKERS, Case, ident, image_for
from tests.support.imports import FILES, imported, parsed, room_of
from tests.support.trees import cast, leaves


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_the_same_numbers(case: Case, library, dtype: str):
    rng = np.random.default_rng(20)
    inputs = cast(case.draw(rng, (2, 4, 3, 5), 2, 3), dtype)
    y, cache = case.forward(*inputs)
    dy = np.asarray(rng.standard_normal(np.shape(y)), dtype)
    wanted = case.gradients(dy, cache)

    y_there, cache = case.forward(*library.array(inputs))
    found = case.gradients(library.array(dy), cache)
    within = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(library.numpy(y_there), y, rtol=within, atol=within)
    for (name, gradient), (_, exact) in zip(leaves(found), leaves(wanted), strict=True):
        assert backend.array_module(gradient) is backend.array_module(y_there)
        assert backend.device(gradient) == backend.device(y_there)
        assert library.numpy(gradient).dtype == dtype
        np.testing.assert_allclose(library.numpy(gradient), exact, rtol=within, atol=within, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_ties_are_the_same(case: Case, library):
    """Halves of the input zero, as after a ReLU: the first maximum, in every library."""
    rng = np.random.default_rng(21)
    x, *rest = case.draw(rng, (2, 4, 4, 6), 2, 3)
    inputs = (np.maximum(np.round(x), 0), *rest)
    y, cache = case.forward(*inputs)
    dy = np.asarray(rng.standard_normal(np.shape(y)))
    _, cache_there = case.forward(*library.array(inputs))
    found = case.gradients(library.array(dy), cache_there)
    for (name, gradient), (_, exact) in zip(leaves(found), leaves(case.gradients(dy, cache)), strict=True):
        np.testing.assert_allclose(library.numpy(gradient), exact, rtol=1e-11, atol=1e-11, err_msg=name)


NORMED = Maker("Sequential", lambda place, **options: npattn.Sequential(
    npattn.Conv2d(place.C, 4, **options), npattn.BatchNorm2d(4, **options), npattn.ReLU(**options)
))  # fmt: skip


@pytest.mark.parametrize("make", [*MAKERS, NORMED], ids=ident)
def test_layers_move(make: Maker, library):
    """A layer made on NumPy and moved with `to`, and its twin that stayed, agree: the textbook there, fused here."""
    if library.name == "array-api-strict":
        library = library._replace(device=library.xp.Device("CPU_DEVICE"))  # `to` chooses the library, not the device
    layer, twin = make(fused=False).to(dtype="float64"), make(fused=True).to(dtype="float64")
    rng = np.random.default_rng(22)
    x = rng.standard_normal(image_for(twin, (2, 8, 5, 4)))
    y = twin(x)
    dy = rng.standard_normal(y.shape)
    dx = twin.backward(dy)
    layer.to(xp=library.xp)
    np.testing.assert_allclose(library.numpy(layer(library.array(x))), y, rtol=1e-12, atol=1e-12)
    assert layer.path == "textbook"
    np.testing.assert_allclose(library.numpy(layer.backward(library.array(dy))), dx, rtol=1e-11, atol=1e-11)
    assert list(layer.grads) == list(twin.grads)
    assert list(layer.attention) == list(twin.attention)
    for kind, within in (("grads", 1e-11), ("buffers", 1e-12), ("attention", 1e-12)):
        for key, value in getattr(layer, kind).items():
            assert backend.array_module(value) is backend.as_module(library.xp)
            np.testing.assert_allclose(
                library.numpy(value), getattr(twin, kind)[key], rtol=within, atol=within, err_msg=f"{kind}: {key}"
            )
    layer.load_state_dict({key: backend.to_numpy(value) for key, value in layer.state_dict().items()})
    state = layer.state_dict().values()
    assert not state or backend.array_module(*state) is backend.as_module(library.xp)


def test_array_module_refuses_a_mix(library):
    here = np.zeros(3)
    there = library.array(here)
    if library.name == "numpy":
        assert npattn.array_module(here, None, here) is npattn.array_module(here)
        return
    with pytest.raises(TypeError, match=r"arrays\[1\]: expected an array of the same library as arrays\[0\] \(numpy\)"):
        npattn.array_module(here, there)


@pytest.mark.parametrize("bad", [[1.0, 2.0], 3.0, "x"])
def test_array_module_refuses_what_is_no_array(bad):
    with pytest.raises(TypeError, match=r"arrays\[0\]: expected an array"):
        npattn.array_module(bad)


EACH = pytest.mark.parametrize("module", FILES)


@EACH
def test_the_textbook_knows_no_numpy(module: str):
    if room_of(module) in ("ops", "attention", "variants"):
        assert "numpy" not in libraries_of(module)


@EACH
def test_only_the_backend_names_array_libraries(module: str):
    if module not in ("npattn.backend", "npattn.torch"):  # the second makes modules of torch's
        assert not libraries_of(module) & {"cupy", "torch", "array_api_compat"}


def libraries_of(module: str) -> set[str]:
    """What a file imports by a statement, wherever that stands."""
    return {name.split(".")[0] for name in imported(parsed(FILES[module]))}
