"""Which form a target has, by what it looks like."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

from npattn.checker.calls import asked
from npattn.checker.contexts import with_context
from npattn.checker.functions import LossWithGradients, Pair
from npattn.checker.inputs import Choice
from npattn.checker.library_autograds import described, is_taped, of_a_library
from npattn.checker.losses import LossBeside, LossOf, has_loss_beside, named_as
from npattn.checker.objects import Stateful
from npattn.checker.ours import OurLayer
from npattn.checker.own_autograd import Tape
from npattn.checker.recipe import BACKWARDS, FORWARDS, Recipe, has_method, keeps, method
from npattn.checker.refusal import pairs_in, refused
from npattn.checker.repeat import Repeat
from npattn.checker.target import Target
from npattn.checks import whole_number
from npattn.layer import Layer


def as_target(
    target: Any,
    inputs: tuple[Any, ...],
    choice: Choice | None = None,
    before_backward: Any = None,
    seed_forward: int | Callable[[], Any] | None = None,
) -> Target:
    """Bring `target` into the one form.

    Parameters
    ----------
    target, inputs
        As `npattn.gradcheck` takes them.
    choice
        Of the tensors to take derivatives by; all float arrays if None.
    before_backward, seed_forward
        As `npattn.gradcheck` takes them.

    Raises
    ------
    TypeError, ValueError
        If it is of no known form, or the inputs do not fit.
    """
    found = recognised(target, inputs, choice or Choice(), before_backward, seed_forward)
    if not found.values:
        raise TypeError("inputs: expected at least one float array to take a derivative by, got none")
    return found


def recognised(target: Any, inputs: tuple[Any, ...], choice: Choice, before_backward: Any, seed_forward: Any) -> Target:
    """The target in the one form.

    Raises
    ------
    TypeError, ValueError
        If it has no form that is known, or the inputs do not fit.
    """
    recipe = target if isinstance(target, Recipe) else Recipe(target)
    if not (before_backward is None or isinstance(before_backward, str) or callable(before_backward)):
        raise TypeError(f"before_backward: expected a method's name or a function, got {before_backward!r}")
    if not (seed_forward is None or callable(seed_forward)):
        seed_forward = whole_number("seed_forward", seed_forward, 0, 2**32 - 1)
    form = recognised_form(recipe, inputs, choice, before_backward, seed_forward)
    if not isinstance(form, Stateful):
        if isinstance(before_backward, str):
            raise TypeError(
                f"before_backward: expected a function of no arguments, since {form.name} is no object with methods "
                f"that the check copies, got {before_backward!r}"
            )
        if recipe.params is not None:
            raise TypeError(f"params: expected none, since {form.name} is no object that keeps parameters, got some")
    return form


def recognised_form(
    recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, before_backward: Any, seed_forward: Any
) -> Target:
    """The target in its form, whatever was asked beside."""
    if before_backward is not None:
        recipe = dataclasses.replace(recipe, before_backward=before_backward)
    what, hook = recipe.target, recipe.before_backward
    repeat = Repeat(seed_forward, hook if callable(hook) else None)
    if recipe.tensor is not None:
        return Tape(recipe, inputs, choice, repeat)
    taped: Target | None = of_a_library(recipe, inputs, choice, repeat)
    if taped is not None:
        return taped
    if isinstance(what, Layer) and not recipe.says_how:
        return OurLayer(what, inputs, choice)
    functions = functions_of(what, recipe)
    if functions is not None:
        forward, backward = functions
        name = recipe.name or (name_of(what) if isinstance(what, ModuleType | type) else name_of(forward))
        return Pair(name, *with_context(forward, backward), inputs, choice, repeat)
    if isinstance(what, ModuleType | type | tuple):
        raise refused(what, inputs)
    if has_one(what, FORWARDS, recipe.forward) and has_one(what, BACKWARDS, recipe.backward):
        return of_object(what, recipe, inputs, choice, Repeat(seed_forward))
    if has_loss_beside(what) and not recipe.says_how:
        recipe = dataclasses.replace(recipe, name=recipe.name or type(what).__name__, forward=named_as(what.loss))
        return Stateful(LossBeside(what), recipe, inputs, choice, Repeat(seed_forward))
    if isinstance(what, MethodType):
        return of_method(what, recipe, inputs, choice, Repeat(seed_forward))
    if callable(what) and not recipe.says_how:
        return LossWithGradients(recipe.name or name_of(what), what, inputs, choice, repeat)
    raise refused(what, inputs)


def functions_of(what: Any, recipe: Recipe) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Forward and backward, where they are functions: a pair, a module's, or static ones of a class."""
    if what is None and callable(recipe.forward) and callable(recipe.backward):
        return recipe.forward, recipe.backward
    if isinstance(what, tuple) and len(what) == 2 and all(map(callable, what)):
        return what
    if isinstance(what, ModuleType):
        names = [(recipe.forward, recipe.backward)] if recipe.says_how else [("forward", "backward"), *pairs_in(what)]
        found = [pair for pair in names if all(callable(getattr(what, str(one), None)) for one in pair)]
        own = [pair for pair in found if pair == ("forward", "backward")] or found
        return (getattr(what, str(own[0][0])), getattr(what, str(own[0][1]))) if len(own) == 1 else None
    if isinstance(what, type) or hasattr(what, "__func__"):
        kind = what if isinstance(what, type) else type(what)
        if all(isinstance(inspect.getattr_static(kind, one, None), staticmethod | classmethod)
               for one in ("forward", "backward")):  # fmt: skip
            return what.forward, what.backward
    return None


def of_object(what: Any, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> Target:
    """An object that keeps what forward saw; or one that keeps nothing, and whose methods are a pair with a cache."""
    forward, backward = getattr(what, "forward", None), getattr(what, "backward", None)
    if not recipe.says_how and callable(forward) and callable(backward):
        wants = [p.name for p in inspect.signature(backward).parameters.values() if p.default is p.empty]
        if not keeps(what, "params") and len(wants) == 2 and "cache" in wants:
            return Pair(getattr(what, "__name__", type(what).__name__), forward, backward, inputs, choice, repeat)
        if wants[:1] == ["ctx"]:
            return Pair(type(what).__name__, *with_context(forward, backward), inputs, choice, repeat)
    return Stateful(what, recipe, inputs, choice, repeat)


def of_method(method: MethodType, recipe: Recipe, inputs: tuple[Any, ...], choice: Choice, repeat: Repeat) -> Target:
    """`net.loss`, a method that gives (loss, gradients): by the object's `params`, if it has them."""
    owner, name = method.__self__, method.__name__
    if not keeps(owner, "params"):
        return LossWithGradients(recipe.name or f"{type(owner).__name__}.{name}", method, inputs, choice, repeat)
    recipe = dataclasses.replace(recipe, name=f"{type(owner).__name__}.{name}", forward=named_as(method))
    return Stateful(LossOf(owner, name), recipe, inputs, choice, repeat)


def has_one(what: Any, names: tuple[str, ...], given: Any) -> bool:
    """Whether an object has a method of such a name, or one was given for it."""
    return given is not None or any(has_method(what, one) for one in names)


def is_target(what: Any) -> bool:
    """Whether `npattn.gradcheck` takes it as it is; of a function that it may give a loss with gradients, too."""
    recipe = what if isinstance(what, Recipe) else Recipe(what)
    if isinstance(what, Recipe | Layer) or functions_of(recipe.target, recipe) is not None or is_taped(what):
        return True
    if isinstance(what, type | ModuleType | tuple):
        return False
    return (has_one(what, FORWARDS, None) and has_one(what, BACKWARDS, None)) or bool(
        callable(what) and asked(what).required
    )


def input_names(target: Any) -> list[str] | None:
    """What the target's forward calls its inputs; None if that is not known."""
    recipe = target if isinstance(target, Recipe) else Recipe(target)
    what = recipe.target
    functions = functions_of(what, recipe)
    if functions is not None:
        forward: Any = with_context(*functions)[0]
    elif is_taped(what):
        forward = described(what) if isinstance(what, type) else getattr(what, "forward", what)
    elif isinstance(recipe.forward, str) or has_one(what, FORWARDS, recipe.forward):
        how = method(what, recipe.forward, FORWARDS, "forward")
        forward = getattr(what, how) if isinstance(how, str) else functools.partial(how, what)
    else:
        forward = what.loss if has_loss_beside(what) else what
    want = asked(forward)
    return None if want.any_number else [*want.required, *want.optional]


def name_of(function: Any) -> str:
    """What to call a function, class or module in a report."""
    if isinstance(function, ModuleType):
        return function.__name__
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if name is None:
        return getattr(function, "__name__", repr(function))
    return name if module in (None, "__main__") else f"{module}.{name}"
