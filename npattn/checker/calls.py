"""How a backward wants to be called: with dy, with one for each output, with the cache, with inputs by their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from npattn.checker.trees import is_array

CACHES = ("cache", "caches", "ctx", "context", "saved", "memory", "tape", "cached", "residuals", "res")
RATES = ("learning_rate", "lr", "rate", "eta", "alpha", "step_size")
RATE = 2.0**40  # what is handed to a backward that takes the step itself
OUTPUTS = ("y", "out", "output", "outputs")


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CallError(TypeError):
    """What a forward gives and what a backward asks for do not fit together."""


def argument_names(forward: Callable[..., Any], inputs: Sequence[Any]) -> list[str]:
    """What the forward calls its arguments."""
    try:
        known = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in POSITIONAL]
    except (TypeError, ValueError):
        known = []
    return [known[i] if i < len(known) else f"inputs[{i}]" for i in range(len(inputs))]


def fitting_names(forward: Callable[..., Any], inputs: Sequence[Any]) -> list[str]:
    """The same, of a forward that takes these inputs.

    Raises
    ------
    CallError
        If it takes more or fewer.
    """
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):
        return argument_names(forward, inputs)
    try:
        signature.bind(*inputs)
    except TypeError as error:
        if inputs:
            raise CallError(f"inputs: expected what forward{signature} takes, got {len(inputs)} ({error})") from None
    return argument_names(forward, inputs)


class Asked(NamedTuple):
    """The arguments of a backward, by position."""

    required: list[str]
    optional: list[str]
    any_number: bool  # *args, or a signature that Python does not know

    def takes(self, count: int) -> bool:
        most = len(self.required) + len(self.optional)
        return len(self.required) <= count and (self.any_number or count <= most)


def asked(backward: Callable[..., Any]) -> Asked:
    """What a function asks for, by position."""
    try:
        parameters = inspect.signature(backward).parameters.values()
    except (TypeError, ValueError):
        return Asked([], [], any_number=True)
    positional = [p for p in parameters if p.kind in POSITIONAL]
    return Asked(
        [p.name for p in positional if p.default is p.empty],
        [p.name for p in positional if p.default is not p.empty],
        any(p.kind == p.VAR_POSITIONAL for p in parameters),
    )


class Call(NamedTuple):
    """What to hand to a backward, each word one argument: "dy", "dy.0", "cache", "y", "rate", or "in " and an input."""

    words: tuple[str, ...]
    outputs: int | None = None  # how many of the values that forward returned are outputs; None if it is one thing
    alone: bool = False  # one output that came in a tuple with the cache

    @property
    def takes_dy(self) -> bool:
        return any(word == "dy" or word.startswith("dy.") for word in self.words)

    @property
    def steps(self) -> bool:
        """Whether the backward is handed a learning rate, and so takes the step itself."""
        return "rate" in self.words

    def split(self, result: Any) -> tuple[Any, Any]:
        """What forward returned, as y and cache."""
        if self.outputs is None:
            return result, None
        y = result[0] if self.alone else tuple(result[: self.outputs])
        return y, result[self.outputs] if len(result) > self.outputs else None

    def arguments(self, dy: Any, y: Any, cache: Any, inputs: Mapping[str, Any]) -> list[Any]:
        known = {"dy": dy, "y": y, "cache": cache, "rate": RATE}
        return [
            dy[int(word[3:])] if word.startswith("dy.") else inputs[word[3:]] if word.startswith("in ") else known[word]
            for word in self.words
        ]


def call_of_pair(backward: Callable[..., Any], result: Any, names: Sequence[str]) -> Call:
    """The call of a backward that keeps nothing: its forward returned y and, most often, a cache.

    Raises
    ------
    CallError
        If they do not fit.
    """
    want = asked(backward)
    count = len(result) if isinstance(result, tuple) else 0
    first = want.required[0] if want.required else ""
    if count >= 2 and want.takes(count):
        grads = ["dy"] if count == 2 else [f"dy.{i}" for i in range(count - 1)]
        words = ["cache", *grads] if first in CACHES else [*grads, "cache"]
        return Call(tuple(words), outputs=count - 1, alone=count == 2)
    if count >= 3 and want.takes(2):
        return Call(("cache", "dy") if first in CACHES else ("dy", "cache"), outputs=count - 1)
    found = by_name(want, result, names)
    if found is None:
        takes = ", ".join(want.required) or "nothing"
        if not count:
            raise CallError(
                f"forward: expected it to return (y, cache), got {type(result).__name__}; backward({takes}) asks for "
                "what forward's arguments do not name. With no cache, let backward take forward's own arguments beside "
                "dy: backward(dy, x)"
            )
        raise CallError(
            f"backward: expected (dy, cache), or arguments that forward has too beside dy, got ({takes}) for a "
            f"forward that returns {count} values"
        )
    return found


def call_of_object(backward: Callable[..., Any], result: Any, names: Sequence[str]) -> Call:
    """The call of a method: what forward saw is kept in the object, so dy is all that is needed.

    Raises
    ------
    CallError
        If they do not fit.
    """
    want = asked(backward)
    count = len(result) if isinstance(result, tuple | list) else 0
    if count >= 2 and len(want.required) == count:
        if isinstance(result, tuple) and keeps_a_cache(want.required[-1], result[-1]):
            return call_of_pair(backward, result, names)
        return Call(tuple(f"dy.{i}" for i in range(count)), outputs=count)
    if want.any_number and not want.required and count >= 2:
        return Call(tuple(f"dy.{i}" for i in range(count)), outputs=count)
    if len(want.required) == 1 and want.optional[:1] and want.optional[0] in RATES and want.optional[0] not in names:
        return Call(("dy", "rate"))
    if len(want.required) == 1 or (not want.required and (want.optional or want.any_number)):
        return Call(("dy",))
    if not want.required:
        return Call(())
    found = by_name(want, result, names)
    if found is None:
        raise CallError(
            f"backward: expected one argument dy, or dy and arguments that forward has too ({', '.join(names)}), got "
            f"({', '.join(want.required)})"
        )
    return found


def keeps_a_cache(name: str, value: Any) -> bool:
    """Whether the last of two values is a cache and no second output."""
    return name in CACHES or not (is_array(value) or hasattr(value, "dtype"))


def by_name(want: Asked, result: Any, names: Sequence[str]) -> Call | None:
    """Arguments that forward has too, or the cache, or y; the one that is left is dy, and none is left for a loss."""
    count = len(result) if isinstance(result, tuple) else 0
    has_cache = count >= 2 and any(name in CACHES for name in want.required)
    words, left = [], 0
    for name in want.required:
        if has_cache and name in CACHES:
            words.append("cache")
        elif name in names:
            words.append(f"in {name}")
        elif name in RATES:
            words.append("rate")
        elif name in OUTPUTS and name not in names:
            words.append("y")
        else:
            words.append("dy")
            left += 1
    if left > 1 or (any(name in CACHES for name in want.required) and not has_cache):
        return None
    if has_cache:
        return Call(tuple(words), outputs=count - 1, alone=count == 2)
    return Call(tuple(words))
