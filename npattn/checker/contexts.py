"""Functions in the style of PyTorch's, without PyTorch: forward(ctx, x) saves for backward(ctx, dy)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from npattn.checker.calls import asked

CONTEXTS = ("ctx", "context")


class Context:
    """What forward saves for backward: by `save_for_backward`, or as attributes of any name."""

    saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *arrays: Any) -> None:
        """Keep them, as `saved_tensors`."""
        self.saved_tensors = arrays

    @property
    def saved_values(self) -> tuple[Any, ...]:
        """The same, under another of its names."""
        return self.saved_tensors


def with_context(
    forward: Callable[..., Any], backward: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A pair whose cache is the context; the pair itself if it has none."""
    first = asked(forward).required[:1]
    if not first or first[0] not in CONTEXTS or asked(backward).required[:1] != first:
        return forward, backward

    def run(*inputs: Any) -> tuple[Any, Context]:
        context = Context()
        y = forward(context, *inputs)
        return tuple(y) if isinstance(y, list) else y, context

    def undo(dy: Any, cache: Context) -> Any:
        return backward(cache, *dy) if isinstance(dy, tuple) else backward(cache, dy)

    run.__signature__ = without_first(forward)  # type: ignore[attr-defined]
    run.__module__, run.__qualname__ = forward.__module__, forward.__qualname__
    return run, undo


def without_first(forward: Callable[..., Any]) -> Any:
    """The signature of a function for those who do not hand it its first argument."""
    signature = inspect.signature(forward)
    return signature.replace(parameters=list(signature.parameters.values())[1:])
