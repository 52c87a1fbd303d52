"""PyTorch's and JAX's functions and modules as targets: their autograd is asked for the gradients.

No library is imported here. Whoever hands in a target of PyTorch's or JAX's has loaded it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.backend import Array
from npattn.checker.contexts import without_first
from npattn.checker.copying import copied
from npattn.checker.inputs import Choice
from npattn.checker.recipe import Recipe
from npattn.checker.repeat import Repeat
from npattn.checker.taped import Taped, flattened, mapped
from npattn.checker.trees import Values, float64


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


def of_a_library(recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> Taped | None:
    """The target if it is one of these; None if not."""
    what = recipe.target
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
