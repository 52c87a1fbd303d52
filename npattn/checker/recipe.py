"""How to run somebody's object, where its names do not tell: what `npattn.gradcheck.wrap` makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from npattn.checker.calls import CallError
from npattn.checker.named_places import Grads, Params

FORWARDS = ("forward", "__call__", "fprop", "forward_pass", "forward_propagation", "feedforward", "call")
BACKWARDS = ("backward", "bprop", "backward_pass", "backprop", "backward_propagation", "backpropagate", "grad")
"""What people call the two methods."""

Method = str | Callable[..., Any]
"""A method by its name; or a function whose first argument is the object."""


@dataclass(frozen=True)
class Recipe:
    """A target, and what is not to be guessed about it. None stands for what is looked for."""

    target: Any = None
    forward: Method | None = None
    backward: Method | None = None
    params: Params | None = None
    grads: Grads | None = None
    name: str | None = None
    tensor: Callable[..., Any] | None = None
    copy: Callable[[Any], Any] | None = None
    before_backward: Any = None

    @property
    def says_how(self) -> bool:
        """Whether it says more than what the target is."""
        return any(one is not None for one in (self.forward, self.backward, self.params, self.tensor))


def keeps(target: Any, name: str) -> bool:
    """Whether an object has something of that name; a property that raises is nothing."""
    try:
        return getattr(target, name, None) is not None
    except Exception:
        return False


def has_method(target: Any, name: str) -> bool:
    """Whether an object has a method of that name; `__call__` of its class, for classes have one too."""
    if name == "__call__":
        return any(name in vars(kind) for kind in type(target).__mro__)
    return keeps(target, name) and callable(getattr(target, name))


def method(target: Any, given: Method | None, names: tuple[str, ...], what: str) -> Method:
    """The name of a method of the target, or the function that was given for it.

    Raises
    ------
    CallError
        If there is none.
    """
    if callable(given):
        return given
    for name in (given,) if given else names:
        if has_method(target, name):
            return name
    raise CallError(f"{what}: expected a method of {type(target).__name__}, got {given or 'none of ' + str(names)}")
