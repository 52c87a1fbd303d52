"""How somebody's object is run: which of its methods, with what, and where its results are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from npattn.checker.calls import Call, CallError, asked, fitting_names
from npattn.checker.copying import attributes
from npattn.checker.inputs import Choice, Inputs
from npattn.checker.places import gradient_name, unboxed
from npattn.checker.recipe import BACKWARDS, FORWARDS, Method, Recipe, method
from npattn.checker.repeat import Repeat
from npattn.checker.trees import Outputs

OUTPUT = ("output", "outputs", "out", "y", "activation", "a", "A")
"""Where a forward that returns nothing leaves what it computed."""

INPUT_GRADIENT = ("dinputs", "dinput", "dx", "dX", "d_input", "d_inputs", "grad_input", "input_grad",
                  "input_gradient", "gradInput", "dL_dx", "dvalues")  # fmt: skip
"""Where a backward that returns nothing leaves the gradient of its input."""

FORGETTING = ("zero_grad", "zero_grads", "flush_gradients", "clear_grads", "cleargrads", "clear_grad", "reset_grads",
              "reset_grad", "zero_gradients", "reset_gradients")  # fmt: skip
"""Methods that take back what earlier backwards have added up."""


class Runner:
    """The methods of an object and the inputs; each call says which object, since copies of it are run too."""

    def __init__(self, target: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> None:
        self.forward_method: Method = method(target, recipe.forward, FORWARDS, "forward")
        self.backward_method: Method = method(target, recipe.backward, BACKWARDS, "backward")
        self.call, self.outputs, self.repeat = Call(("dy",)), Outputs(), repeat
        self.kept: Any = None
        self.inputs = Inputs(fitting_names(bound(target, self.forward_method), inputs), inputs, choice)
        self.notes = self.inputs.notes
        self.hook = recipe.before_backward or self._own_hook(target)

    def _own_hook(self, target: Any) -> str | None:
        for name in FORGETTING:
            found = getattr(target, name, None)
            if callable(found) and not asked(found).required:
                self.notes.append(f"{name}() is called before each backward (before_backward= calls something else)")
                return name
        return None

    def run_hook(self, target: Any) -> None:
        """Call what the user wants called before each backward."""
        hook: Any = self.hook
        if isinstance(hook, str):
            getattr(target, hook)()
        elif getattr(hook, "__self__", None) is not None and hasattr(target, getattr(hook, "__name__", "")):
            getattr(target, hook.__name__)()  # a method of the caller's object: that of the copy is meant
        elif hook is not None:
            hook(*([target] if asked(hook).required else []))

    def run(self, target: Any, trees: list[Any]) -> Any:
        """What forward returns, or leaves in an attribute."""
        result = self.repeat.forward(lambda: bound(target, self.forward_method)(*trees))
        self.kept = result  # an autograd's function may know its output by a weak reference only
        if result is None:
            result = next((getattr(target, name) for name in OUTPUT if hasattr(target, name)), None)
            if result is None:
                raise CallError(
                    f"forward: expected it to return y, or to leave it in an attribute ({', '.join(OUTPUT)}), got None"
                )
        return opened(result)

    def undo(self, target: Any, dy: Any, y: Any, cache: Any, trees: list[Any]) -> Any:
        """Gradients of the inputs: what backward returns, or leaves in attributes."""
        known = dict(zip(self.inputs.names, trees, strict=True))
        result = bound(target, self.backward_method)(*self.call.arguments(dy, y, cache, known))
        if result is not None:
            return opened(result)
        held = attributes(target)
        lower = {name.lower(): name for name in held}
        found = {name: gradient_name(name, held, lower) for name in self.inputs.names}
        left = {name: unboxed(held[where]) for name, where in found.items() if where and held[where] is not None}
        if left:
            return left
        return next((unboxed(held[name]) for name in INPUT_GRADIENT if held.get(name) is not None), {})


def bound(target: Any, how: Method) -> Callable[..., Any]:
    """A method of this object, by its name or as a function of it."""
    if isinstance(how, str):
        found: Callable[..., Any] = getattr(target, how)
        return found
    return functools.partial(how, target)


def opened(result: Any) -> Any:
    """Arrays out of the objects that hold them."""
    return type(result)(map(unboxed, result)) if type(result) in (tuple, list) else unboxed(result)
