"""One source for every array library: what it gives elsewhere is what it gives on NumPy."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import backend
from tests.cases import CASES, Case, leaves

PACKAGE = Path(npattn.__file__).parent


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_the_same_numbers(case: Case, library, dtype: str):
    rng = np.random.default_rng(20)
    drawn = case.draw(rng, (2, 4, 3, 5), 2, 3)
    cast = tuple(_cast(part, dtype) for part in drawn)
    y, cache = case.forward(*cast)
    dy = np.asarray(rng.standard_normal(np.shape(y)), dtype)
    wanted = case.gradients(dy, cache)

    y_there, cache = case.forward(*library.array(cast))
    found = case.gradients(library.array(dy), cache)
    within = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(library.numpy(y_there), y, rtol=within, atol=within)
    for (name, gradient), (_, exact) in zip(leaves(found), leaves(wanted), strict=True):
        assert backend.array_module(gradient) is backend.array_module(y_there)
        assert backend.device(gradient) == backend.device(y_there)
        assert library.numpy(gradient).dtype == dtype
        np.testing.assert_allclose(library.numpy(gradient), exact, rtol=within, atol=within, err_msg=name)


def _cast(tree, dtype):
    from tests.cases import mapped

    return mapped(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, tree)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: npattn.SELayer(8, 2, **o),
        lambda **o: npattn.ChannelAttention(8, 2, **o),
        lambda **o: npattn.SpatialAttention(3, **o),
        lambda **o: npattn.CBAM(8, 2, 3, **o),
        lambda **o: npattn.Sequential(npattn.Conv2d(8, 4, **o), npattn.BatchNorm2d(4, **o), npattn.ReLU(**o)),
        lambda **o: npattn.Residual(npattn.SELayer(8, 2, **o), npattn.Conv2d(8, 8, 1, **o)),
    ],
    ids=["SE", "channel", "spatial", "CBAM", "Sequential", "Residual"],
)
def test_layers_move(make, library):
    """A layer made on NumPy and moved with `to`, and its twin that stayed, agree."""
    if library.name == "array-api-strict":
        library = library._replace(device=library.xp.Device("CPU_DEVICE"))  # `to` chooses the library, not the device
    layer, twin = make(rng=1, dtype="float64"), make(rng=1, dtype="float64")
    rng = np.random.default_rng(22)
    x = rng.standard_normal((2, 8, 5, 4))
    y = twin(x)
    dy = rng.standard_normal(y.shape)
    dx = twin.backward(dy)
    layer.to(xp=library.xp)
    np.testing.assert_allclose(library.numpy(layer(library.array(x))), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(library.numpy(layer.backward(library.array(dy))), dx, rtol=1e-11, atol=1e-11)
    for key, gradient in layer.grads.items():
        np.testing.assert_allclose(library.numpy(gradient), twin.grads[key], rtol=1e-11, atol=1e-11)
    layer.load_state_dict({key: backend.to_numpy(value) for key, value in layer.state_dict().items()})
    assert backend.array_module(*layer.state_dict().values()) is backend.as_module(library.xp)


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


def imports(path: Path) -> set[str]:
    """The modules that a file imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


LEVELS = ["backend", "checks", "layer", "ops", "attention", "variants", "models", "training", "cli"]
"""From the ground up: a file imports from its own level and those before it."""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room not in LEVELS:
        return
    above = LEVELS[LEVELS.index(room) + 1 :]
    for module in imports(path):
        assert not any(module.startswith(f"npattn.{level}") for level in above), f"{path} imports {module}"
    if room in ("ops", "attention", "variants"):
        assert not any(module.split(".")[0] == "numpy" for module in imports(path)), f"{path} knows NumPy"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_backend_names_array_libraries(path: Path):
    if path.name == "backend.py":
        return
    libraries = {"cupy", "torch", "array_api_compat"}
    assert not {module.split(".")[0] for module in imports(path)} & libraries
