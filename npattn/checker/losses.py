"""Networks that give a loss and the gradients of their parameters, as objects with a forward and a backward."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from npattn.checker.recipe import has_method, keeps

GRADIENTS = ("gradient", "gradients")
"""What the method is called that gives the gradients of `loss`, where that gives the loss alone."""


class LossOf:
    """An object whose method gives (loss, gradients): net.loss(X, labels), with the parameters in net.params."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self._name = owner, name
        self.grads: Any = {}
        self._dx: Any = None

    @property
    def params(self) -> Any:
        return self.owner.params

    def forward(self, *inputs: Any) -> Any:
        loss, gradients, *more = getattr(self.owner, self._name)(*inputs)
        self.grads, self._dx = (gradients, None) if isinstance(gradients, dict | list) else (more[0], gradients)
        return loss

    def backward(self) -> Any:
        return self._dx


class LossBeside:
    """An object with two methods: net.loss(x, t) gives the loss, net.gradient(x, t) a dict of gradients."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.grads: Any = {}
        self._inputs: tuple[Any, ...] = ()

    @property
    def params(self) -> Any:
        return self.owner.params

    def forward(self, *inputs: Any) -> Any:
        self._inputs = inputs
        return self.owner.loss(*inputs)

    def backward(self) -> Any:
        name = next(one for one in GRADIENTS if hasattr(self.owner, one))
        self.grads = getattr(self.owner, name)(*self._inputs)
        return {}


def has_loss_beside(what: Any) -> bool:
    """Whether it is such an object."""
    return has_method(what, "loss") and any(has_method(what, one) for one in GRADIENTS) and keeps(what, "params")


def named_as(method: Callable[..., Any]) -> Callable[..., Any]:
    """A forward for `Recipe`, whose inputs have the names of this method's."""

    def forward(made: Any, *given: Any) -> Any:
        return made.forward(*given)

    arguments = list(inspect.signature(method).parameters.values())
    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("made", inspect.Parameter.POSITIONAL_ONLY), *arguments]
    )
    return forward
