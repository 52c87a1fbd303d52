"""What to say of a target that has no form that is known: what it looks like, what was expected, and what to call."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np

from npattn.checker.calls import asked

EXPECTED = (
    "target: expected a layer, an object with forward and backward, a pair (forward, backward), or a function that "
    "gives (loss, gradients)"
)


def pairs_in(module: ModuleType) -> list[tuple[str, str]]:
    """The functions of a module that belong together by their names: relu_forward and relu_backward."""
    names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
    found = []
    for name in names:
        for one, other in (("forward", "backward"), ("fwd", "bwd"), ("fprop", "bprop")):
            if one in name.split("_") and name.replace(one, other) in names and name != one:
                found.append((name, name.replace(one, other)))
    return found


def refused(what: Any, inputs: tuple[Any, ...]) -> TypeError:
    """The error for it."""
    given = ", ".join(["", *(f"x{i}" if i else "x" for i in range(len(inputs)))])
    return TypeError(f"{EXPECTED}, got {looks(what)}. {advice(what, given)}")


def looks(what: Any) -> str:
    """What it looks like, in a few words."""
    if isinstance(what, ModuleType):
        return f"the module {what.__name__}"
    if isinstance(what, type):
        return f"the class {what.__name__}"
    if isinstance(what, tuple):
        return f"a tuple of {len(what)} ({', '.join(type(one).__name__ for one in what)})"
    if isinstance(what, int | float | str | None):
        return repr(what)
    if isinstance(what, list | dict | set):
        inside = ", ".join(type(one).__name__ for one in [*(what.values() if isinstance(what, dict) else what)][:4])
        return f"a {type(what).__name__} of {len(what)}" + (f" ({inside})" if inside else "")
    if isinstance(what, np.ndarray):
        return f"an array of shape {what.shape}"
    methods = [name for name in dir(what) if not name.startswith("_") and callable(getattr(what, name, None))]
    return f"a {type(what).__name__} with " + (f"the methods {', '.join(methods[:12])}" if methods else "no methods")


def advice(what: Any, given: str) -> str:
    """The call that would work."""
    if isinstance(what, np.ndarray):
        return "An array is an input; before it comes what is to be checked: gradcheck(layer, x)"
    if isinstance(what, str):
        return (
            "A name is for the command, npattn gradcheck cbam; here it is the thing itself: "
            f"gradcheck(npattn.CBAM(8){given or ', x'})"
        )
    if isinstance(what, list) and len(what) == 2 and all(map(callable, what)):
        return f"A pair is a tuple: gradcheck((forward, backward){given})"
    plain = type(what).__module__ in ("builtins", "numpy") and not isinstance(what, tuple | ModuleType)
    if plain and not callable(what):
        return "It can be an input; before the inputs comes what is to be checked: gradcheck(layer, x)"
    if isinstance(what, ModuleType):
        pairs = pairs_in(what)
        if pairs:
            name = what.__name__.rpartition(".")[2]
            listed = "; ".join(f"gradcheck(({name}.{one}, {name}.{other}){given})" for one, other in pairs[:4])
            return f"It has {len(pairs)} pairs, of which one is a target: {listed}"
        return "A module is a target if it has the functions forward and backward"
    if isinstance(what, type):
        required = asked(what).required
        return f"An instance is one: gradcheck({what.__name__}({', '.join(required)}){given})"
    if isinstance(what, tuple) or callable(what):
        return f"Two functions make a pair: gradcheck((forward, backward){given})"
    methods = [name for name in dir(what) if not name.startswith("_") and callable(getattr(what, name, None))]
    if not methods:
        return f"Two functions make a pair: gradcheck((forward, backward){given})"
    return (
        f'If its methods have other names: gradcheck(gradcheck.wrap(layer, forward="{methods[0]}", '
        f'backward="{methods[min(1, len(methods) - 1)]}"){given})'
    )
