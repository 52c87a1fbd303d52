"""A block or an op, run slowly: each tagged line with its numbers, then each gradient beside its finite difference.

No formula is written again here. The code's own forward and backward run, watched line by line (watch.py). So the
numbers on the screen and in the docs are those of the code that trains networks.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.arguments import explained
from npattn.block import Place
from npattn.blocks import Entry, block, modules
from npattn.capacity import shapes_only
from npattn.checks import one_of, whole_number, whole_numbers
from npattn.explain.trace_text import text
from npattn.explain.watch import Step, walked, watched
from npattn.layer import Layer
from npattn.nested import leaves
from npattn.notebook import html_text
from npattn.packing import fields
from npattn.samples import Round

LARGEST = 4096  # numbers in x: every one of them is moved twice to check its gradient
MOST_PARAMETERS = 2048  # the same; a forward takes the longer, the larger a kernel is
DRAWS = 300  # of an example, until it is away from every kink and no path in it is dead


class Check(NamedTuple):
    """One gradient, twice."""

    name: str
    analytic: np.ndarray  # from the backward
    numeric: np.ndarray  # from the forward alone, by central differences

    @property
    def difference(self) -> float:
        """The largest difference of two entries."""
        return float(np.max(np.abs(self.analytic - self.numeric)))


class Trace(NamedTuple):
    """A worked example."""

    block: str
    x: np.ndarray
    params: dict[str, np.ndarray]
    dy: np.ndarray
    forward: list[Step]
    y: np.ndarray
    backward: list[Step]
    checks: list[Check]
    names: tuple[str, str] = ("x", "y")  # what the page calls the input and the output

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html_text(text(self))

    @property
    def given(self) -> dict[str, np.ndarray]:
        """What the forward takes, by name."""
        return {self.names[0]: self.x} | self.params

    def value(self, name: str, *tags: str) -> np.ndarray:
        """The variable `name` of the first line with one of `tags` (any line if none is given).

        Raises
        ------
        KeyError
            If no such line assigned it.
        """
        for step in walked([*self.forward, *self.backward]):
            if name in step.values and (not tags or step.line.tag in tags):
                return step.values[name]
        raise KeyError(f"{name} at {' or '.join(tags) or 'any line'}")


@explained
def trace(
    name: str,
    shape: Sequence[int] | None = None,
    seed: int | None = None,
    *,
    ratio: int = 1,
    kernel_size: int = 3,
) -> Trace:
    """Run a block forward and backward on a small example, and keep every number.

    The example has round numbers: no two entries of x are the same, so that every maximum is one pixel's; no unit sits
    at the kink of its ReLU, where a finite difference has no meaning; and, if that is possible, no path in it is dead.

    Parameters
    ----------
    name
        "se", "cbam" or any other of `npattn.blocks.blocks()`.
    shape
        (N, C, H, W) of x, at most 4,096 numbers; None takes the one of the block's card.
    seed
        Of the numbers, at least 0; None takes the card's, which the docs' example has.
    ratio
        r: the hidden width is C // r.
    kernel_size
        k of a spatial attention, odd; the block may have 2,048 parameters.

    Returns
    -------
    Trace

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range; the message names it.
    """
    entry = block(name, "name")
    size = whole_numbers("shape", entry.card.size if shape is None else shape, 4)  # N C H W
    if math.prod(size) > LARGEST:
        raise ValueError(f"shape: expected at most {LARGEST} numbers, got {size}: each is moved to check its gradient")
    if whole_number("ratio", ratio) > size[1]:
        raise ValueError(f"ratio: expected at most C = {size[1]}, got {ratio}")
    place = Place(size[1], size[2], size[3], r=ratio, k=whole_number("kernel_size", kernel_size, most=10**6))
    check_count(entry, place)
    layer = entry.layer(place, rng=0, dtype="float64", fused=False)
    rng = np.random.default_rng(entry.card.seed if seed is None else whole_number("seed", seed, least=0, most=None))

    example: tuple[np.ndarray, dict[str, np.ndarray], np.ndarray] | None = None
    for _ in range(DRAWS):
        x, params = drawn(layer, size, rng)
        if not clear_of_kinks(copy.deepcopy(layer), x):
            continue
        dy = cotangent(layer.forward(x).shape, copy.deepcopy(rng))
        _, back = watched(layer.backward, dy)
        alive = all(np.any(value) for step in walked(back) for value in step.values.values())
        if alive or example is None:
            example = x, params, dy
        if alive:
            break
    if example is None:
        raise ValueError(f"seed: expected one that gives an example away from every kink, got {seed}")
    x, params, dy = example
    layer.params.update(params)
    y, forward = watched(layer.forward, x)
    dx, backward = watched(layer.backward, dy)

    given = {"x": x} | layer.by_field(layer.params)
    found = {"x": dx} | layer.by_field(layer.grads)
    checks = [
        Check(f"d{field}", found[field], differences(lambda: layer.forward(x), array, dy))
        for field, array in given.items()
    ]
    names = ("x", "g" if entry.card.gate else "y")
    return Trace(name, x, {f: a for f, a in given.items() if f != "x"}, dy, forward, y, backward, checks, names)


def check_count(entry: Entry, place: Place) -> None:
    """Raise ValueError if the layer has too many parameters, with the argument that they come from."""
    with shapes_only():
        layer = entry.layer(place)
        if layer.count() > MOST_PARAMETERS:
            small = entry.layer(dataclasses.replace(place, k=3)).count() <= MOST_PARAMETERS
            name = "kernel_size: expected a smaller one" if small else "shape, ratio: expected fewer channels, or more"
            raise ValueError(
                f"{name}: {layer!r} has {layer.count():,} parameters; at most {MOST_PARAMETERS:,} are traced, as each "
                "is moved to check its gradient"
            )


def drawn(layer: Layer, size: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Round numbers: x of entries that all differ, and parameters in steps of a half and none of them 0."""
    count = math.prod(size)
    step = 2.0 ** round(math.log2(4 / count))
    middle = count // 2 or -1  # a single number must not be 0: its ReLU would sit at the kink
    x = step * (rng.permutation(count) - middle).reshape(size)
    params = {key: rng.choice([-1.0, -0.5, 0.5, 1.0], w.shape) for key, w in layer.params.items()}
    layer.params.update(params)
    return x, params


def cotangent(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Round numbers of both signs."""
    count = math.prod(shape)
    return rng.permutation(np.resize([1.0, -0.5, 0.75, -1.0, 0.5, -0.25, 0.25, 0.5], count)).reshape(shape)


def clear_of_kinks(layer: Layer, x: np.ndarray) -> bool:
    """Whether no choice is close: which units pass, and which number is a maximum, stay as they are beside x."""
    chosen = choices(layer, x)
    params, rng = dict(layer.params), np.random.default_rng(0)
    for _ in range(4):
        beside = x + 1e-3 * rng.choice([-1, 1], x.shape)
        layer.params.update({key: w + 1e-3 * rng.choice([-1, 1], w.shape) for key, w in params.items()})
        moved = choices(layer, beside)
        layer.params.update(params)
        if not all(np.array_equal(a, b) for a, b in zip(chosen, moved, strict=True)):
            return False
    return True


def choices(layer: Layer, x: np.ndarray) -> list[np.ndarray]:
    """The masks and the places of maxima that a forward of x leaves in the caches."""
    layer.forward(x)
    caches = [each._last.kept and each._last.kept.cache for each in (layer, *leaves(layer))]
    return [array for cache in caches for array in arrays(cache) if array.dtype.kind in "bi"]


def arrays(tree: Any) -> Iterator[np.ndarray]:
    """The arrays in a cache."""
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, tuple | list):
        for part in tree:
            yield from arrays(part)


def ops() -> dict[str, ModuleType]:
    """The ops that have a worked example, by the name of their file."""
    return {module.__name__.rpartition(".")[2]: module for module in modules("ops") if hasattr(module, "PAGE")}


@explained
def trace_op(name: str, seed: int | None = None) -> Trace:
    """Run an op forward and backward on its small example, and keep every number.

    Parameters
    ----------
    name
        A key of `ops()`: "conv2d", say.
    seed
        Of the numbers, at least 0; None takes the one of the docs' example.

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range; the message names it.
    """
    module = ops()[one_of("name", name, tuple(ops()))]
    rng = np.random.default_rng(1 if seed is None else whole_number("seed", seed, least=0, most=None))
    sizes = dict(module.PAGE)
    leading = (sizes.pop("..."),) if "..." in sizes else ()
    case, inputs = next(iter(module.examples(Round(rng, sizes, leading)).items()))
    run = functools.partial(module.forward, **getattr(module, "SETTINGS", {}).get(case, {}))
    arguments = (inputs,) if hasattr(module, "TOGETHER") else inputs
    (y, cache), forward = watched(run, *arguments, module=module)
    y = np.asarray(y)
    dy = np.array(1.0) if y.ndim == 0 else rng.choice([-1.0, -0.5, 0.5, 1.0, 2.0], y.shape)
    gradients, backward = watched(module.backward, dy, cache, module=module)
    if not isinstance(gradients, tuple):
        gradients = (gradients,)

    called = list(inspect.signature(module.forward).parameters)
    if hasattr(module, "TOGETHER"):
        called = [f"{called[0]}[{number}]" for number in range(len(inputs))]
    names = (called[0], "loss" if y.ndim == 0 else "y")
    params: dict[str, Any] = {}
    grads: dict[str, Any] = {names[0]: gradients[0]}
    for argument, given, gradient in zip(called[1:], inputs[1:], (*gradients[1:], None), strict=False):
        params |= dict(fields(given)) if hasattr(given, "_fields") else {argument: given}
        if gradient is not None:  # as that of the right classes is, whole numbers
            grads |= dict(fields(gradient)) if hasattr(gradient, "_fields") else {argument: gradient}
    moved = {names[0]: inputs[0]} | params
    checks = [
        Check(f"d{key}", gradient, differences(lambda: run(*arguments)[0], moved[key], dy))
        for key, gradient in grads.items()
    ]
    return Trace(name, inputs[0], params, dy, forward, y, backward, checks, names)


def differences(forward: Callable[[], np.ndarray], array: np.ndarray, dy: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Σ dy · ∂y/∂array by central differences, (f(v + h) − f(v − h)) / 2h. Moves each entry and puts it back."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        here = array[index]
        array[index] = here + h
        up = forward()
        array[index] = here - h
        down = forward()
        array[index] = here
        gradient[index] = np.sum(dy * (up - down)) / (2 * h)
    return gradient
