"""Targets whose backward is run by an autograd: PyTorch's, JAX's, or one of somebody's own.

No library is imported here. Whoever hands in a target of PyTorch's or JAX's has loaded it.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.calls import CallError, argument_names, asked
from npattn.checker.contexts import without_first
from npattn.checker.copying import copied, is_object
from npattn.checker.inputs import Choice, Inputs
from npattn.checker.places import at, places, put, unboxed
from npattn.checker.recipe import Recipe
from npattn.checker.repeat import Repeat
from npattn.checker.running import bound
from npattn.checker.trees import Outputs, Values, float64, is_array

SEED = re.compile(r"d|dy|dout|g|gy|grad|grads|gradient|grad_output|upstream\w*")
"""What an autograd calls the gradient of y that its backward takes."""


class Taped:
    """What all of them have: inputs by name, a seeded run, outputs as one array."""

    stateful = False
    dtypes: tuple[str, ...] = ()
    path: str | None = None

    def __init__(
        self, name: Any, signature: Callable[..., Any], inputs: tuple[Any, ...], choice: Choice, repeat: Repeat
    ) -> None:
        self.name: str = name
        self._repeat, self._outputs = repeat, Outputs()
        self._inputs = Inputs(argument_names(signature, inputs), inputs, choice)
        self.values, self.notes = dict(self._inputs.values), self._inputs.notes

    def forward(self, values: Values) -> tuple[Array, Any]:
        raise NotImplementedError

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        raise NotImplementedError


class Tape(Taped):
    """A function of somebody's own tensors: `y.backward()` leaves `x.grad`."""

    def __init__(self, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        what = recipe.target
        name = recipe.name or getattr(what, "__name__", type(what).__name__)
        super().__init__(name, getattr(what, "forward", what), inputs, choice, repeat)
        self._tensor: Any = recipe.tensor
        self._owner = copied(what, recipe.copy) if is_object(what) and not inspect.isroutine(what) else what
        self._function = bound(self._owner, recipe.forward) if recipe.forward is not None else self._owner
        found = places(self._owner) if self._owner is not what else []
        self._places = {p.name: p for p in found if choice.takes(p.name)}
        choice.must_name([*self._inputs.known, *self._places])
        self.values |= {name: float64(at(self._owner, place.value)) for name, place in self._places.items()}
        self._fresh = {name: at(self._owner, place.gradients[0]) for name, place in self._places.items()}
        self._wrapped = False  # whether y.grad wants to be a tensor, as x.grad is

    def _run(self, values: Values) -> tuple[Any, dict[str, Any]]:
        for name, place in self._places.items():
            put(self._owner, place.value, values[name])
        tensors = {name: self._tensor(values[name]) for name in self._inputs.values}
        trees = self._inputs.at(tensors)
        trees = [self._tensor(tree) if isinstance(tree, np.ndarray) and tree.dtype.kind == "f" else tree
                 for tree in trees]  # fmt: skip
        return self._repeat.forward(lambda: self._function(*trees)), tensors

    def forward(self, values: Values) -> tuple[Array, Any]:
        y, _ = self._run(values)
        if not isinstance(unboxed(y), np.ndarray | np.generic | float):
            raise CallError(f"target: expected a function that gives one tensor with .data, got {type(y).__name__}")
        return np.array(unboxed(y)), values

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        try:
            tensors = self._undo(dy, cache)
        except (AttributeError, TypeError):
            self._wrapped = not self._wrapped
            tensors = self._undo(dy, cache)
        found = {name: unboxed(getattr(one, "grad", None)) for name, one in tensors.items()}
        grads = {name: unboxed(at(self._owner, place.gradients[0])) for name, place in self._places.items()}
        return {**found, **grads}

    def _undo(self, dy: Array, values: Values) -> dict[str, Any]:
        for name, place in self._places.items():  # as they were before anything was added to them
            owner = at(self._owner, place.value[:-1])
            setattr(owner, place.gradients[0][-1][1], copy.deepcopy(self._fresh[name]))
        self._repeat.before_backward()
        y, tensors = self._run(values)
        given = self._tensor(dy) if self._wrapped else dy
        want = asked(y.backward)
        if any(SEED.fullmatch(name) for name in (*want.required, *want.optional)[:1]):
            y.backward(given)
        else:
            y.grad = given
            y.backward()
        return tensors


class Torch(Taped):
    """PyTorch's: a Module, a Function with a backward of its own, or a function of tensors. Its autograd is asked."""

    def __init__(self, torch: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        self._torch, what = torch, recipe.target
        self._module: Any = None
        is_function = isinstance(what, type)
        name = recipe.name or (what.__name__ if is_function else type(what).__name__)
        if is_function:
            self._function: Callable[..., Any] = what.apply
            super().__init__(name, described(what), inputs, choice, repeat)
        elif isinstance(what, torch.nn.Module):
            self._module = copied(what, recipe.copy).double()
            self._function = self._module
            super().__init__(name, what.forward, inputs, choice, repeat)
        else:
            self._function = what
            super().__init__(recipe.name or getattr(what, "__name__", name), what, inputs, choice, repeat)
        parameters = dict(self._module.named_parameters()) if self._module is not None else {}
        self._parameters = {key: p for key, p in parameters.items() if p.requires_grad and choice.takes(key)}
        self._buffers = [(b, b.clone()) for b in self._module.buffers()] if self._module is not None else []
        choice.must_name([*self._inputs.known, *parameters])
        self.values |= {key: float64(p) for key, p in self._parameters.items()}

    def _run(self, values: Values, grad: bool) -> tuple[Any, dict[str, Any]]:
        torch = self._torch
        with torch.no_grad():
            for key, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(np.array(values[key])))
            for buffer, before in self._buffers:
                buffer.copy_(before)
        given = {key: torch.from_numpy(np.array(values[key])).requires_grad_(grad) for key in self._inputs.values}
        trees = [mapped(tree, self._as_tensor) for tree in self._inputs.at(given)]
        with torch.set_grad_enabled(grad):
            return self._repeat.forward(lambda: self._function(*trees)), given

    def _as_tensor(self, array: Any) -> Any:
        return self._torch.from_numpy(array.copy()) if isinstance(array, np.ndarray) else array

    def forward(self, values: Values) -> tuple[Array, Any]:
        y, _ = self._run(values, grad=False)
        return self._outputs.flat(mapped(y, lambda one: one.detach().clone().numpy())), values

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        torch = self._torch
        self._repeat.before_backward()
        y, given = self._run(cache, grad=True)
        outputs, seeds = flattened(y), [np.array(one) for one in flattened(self._outputs.like(dy))]
        pairs = [(one, torch.from_numpy(seed)) for one, seed in zip(outputs, seeds, strict=True) if one.requires_grad]
        wanted = {**given, **self._parameters}
        if not pairs:
            return dict.fromkeys(wanted)
        gradients = torch.autograd.grad(
            [one for one, _ in pairs], list(wanted.values()), [seed for _, seed in pairs], allow_unused=True
        )
        found = {}
        for (key, leaf), gradient in zip(wanted.items(), gradients, strict=True):
            if gradient is not None:
                found[key] = gradient.detach().clone().numpy()
            elif key in self._parameters:  # it has no part in y; an input without one has none by its Function
                found[key] = np.zeros(tuple(leaf.shape))
        return found


class Jax(Taped):
    """JAX's: a function with a `custom_vjp`, or any other. `jax.vjp` is asked, in float64."""

    def __init__(self, jax: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        self._jax, self._function = jax, recipe.target
        name = recipe.name or getattr(recipe.target, "__name__", type(recipe.target).__name__)
        super().__init__(name, recipe.target, inputs, choice, repeat)
        choice.must_name(self._inputs.known)

    def _in_float64(self) -> Any:
        enable = getattr(self._jax, "enable_x64", None)
        if enable is None:
            enable = importlib.import_module("jax.experimental").enable_x64
        return enable(True)

    def _of_arrays(self, *arrays: Any) -> Any:
        given = dict(zip(self._inputs.values, arrays, strict=True))
        trees = [mapped(tree, self._jax.numpy.asarray) for tree in self._inputs.at(given)]
        return self._function(*trees)

    def forward(self, values: Values) -> tuple[Array, Any]:
        with self._in_float64():
            arrays = [self._jax.numpy.asarray(values[key]) for key in self._inputs.values]
            y = self._repeat.forward(lambda: self._of_arrays(*arrays))
        return self._outputs.flat(mapped(y, np.array)), values

    def backward(self, dy: Array, cache: Any) -> dict[str, Array]:
        jax = self._jax
        self._repeat.before_backward()
        with self._in_float64():
            arrays = [jax.numpy.asarray(cache[key]) for key in self._inputs.values]
            _, undo = jax.vjp(self._of_arrays, *arrays)
            gradients = undo(mapped(self._outputs.like(dy), jax.numpy.asarray))
        return {key: np.array(g) for key, g in zip(self._inputs.values, gradients, strict=True)}


def tape_of(recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> Taped | None:
    """The target if it is one of these; None if not."""
    what = recipe.target
    if recipe.tensor is not None:
        return Tape(recipe, inputs, choice, repeat)
    torch, jax = (loaded(name) for name in ("torch", "jax"))
    plain = callable(what) and not callable(getattr(what, "backward", None))
    if torch is not None:
        of_torch = isinstance(what, torch.nn.Module) and not callable(getattr(what, "backward", None))
        function = isinstance(what, type) and issubclass(what, torch.autograd.Function)
        handed = plain and not isinstance(what, type) and any(torch.is_tensor(one) for one in flattened(inputs))
        if of_torch or function or handed:
            return Torch(torch, recipe, inputs, choice, repeat)
    if jax is not None and plain:
        of_jax = type(what).__module__.split(".")[0] in ("jax", "jaxlib")
        if of_jax or any(isinstance(one, jax.Array) for one in flattened(inputs)):
            return Jax(jax, recipe, inputs, choice, repeat)
    return None


def is_taped(what: Any) -> bool:
    """Whether it is a Module or a Function of PyTorch's, or a function that JAX has made."""
    torch = loaded("torch")
    if torch is not None and (
        isinstance(what, torch.nn.Module) or (isinstance(what, type) and issubclass(what, torch.autograd.Function))
    ):
        return True
    return loaded("jax") is not None and type(what).__module__.split(".")[0] in ("jax", "jaxlib")


def loaded(name: str) -> Any:
    """A library, if somebody has loaded it whole."""
    module = sys.modules.get(name)
    return module if hasattr(module, "Array" if name == "jax" else "nn") else None


def described(function: Any) -> Callable[..., Any]:
    """A function with the arguments of a Function's forward, without the context."""

    def stand_in(*inputs: Any) -> None:
        """Never called."""

    signature = inspect.signature(function.forward)
    apart = any("setup_context" in vars(kind) and not kind.__module__.startswith("torch.") for kind in function.__mro__)
    stand_in.__signature__ = signature if apart else without_first(function.forward)  # type: ignore[attr-defined]
    return stand_in


def mapped(tree: Any, f: Callable[[Any], Any]) -> Any:
    """A tree with f of each array; what is no array stays."""
    if isinstance(tree, dict):
        return {key: mapped(value, f) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        built = [mapped(value, f) for value in tree]
        return type(tree)(*built) if hasattr(tree, "_fields") else type(tree)(built)
    return f(tree) if is_array(tree) else tree


def flattened(tree: Any) -> list[Any]:
    """The arrays of a tree."""
    if isinstance(tree, dict):
        return [one for value in tree.values() for one in flattened(value)]
    if isinstance(tree, tuple | list):
        return [one for value in tree for one in flattened(value)]
    return [tree] if is_array(tree) or isinstance(tree, np.generic) else []
