"""Targets whose backward is made by an autograd: PyTorch's, JAX's, or one of somebody's own."""

from __future__ import annotations

from typing import Any


def tape_of(recipe: Any, inputs: tuple[Any, ...], choice: Any, repeat: Any) -> Any:
    """The target if it is one of these; None if not."""
    return None
