"""Walking trees of arrays: Params, caches and gradients are (named) tuples of arrays and of more such.

What a layer holds by name, `params` and `grads`, is a tree too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tree = Any  # an array, None, or a (named) tuple, list or dict of trees


def leaves(tree: Tree, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in the tree that is no tuple, with its path; None and the names of options are passed over."""
    if isinstance(tree, Mapping):
        parts = list(tree.items())
    elif isinstance(tree, tuple | list):
        parts = list(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))
    else:
        if tree is not None and not isinstance(tree, str):
            yield name, tree
        return
    for key, part in parts:
        yield from leaves(part, f"{name}.{key}" if name else str(key))


def arrays_of(tree: Tree) -> list[tuple[str, Any]]:
    """The arrays in a tree, with their paths: a cache holds shapes and flags too."""
    return [(name, leaf) for name, leaf in leaves(tree) if hasattr(leaf, "dtype")]


def arrays(tree: Tree) -> list[Any]:
    """The arrays in a tree."""
    return [array for _, array in arrays_of(tree)]


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with the function applied to everything in it that is no tuple; None stays."""
    if isinstance(tree, Mapping):
        return {key: mapped(function, part) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [mapped(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return None if tree is None else function(tree)


def arrays_mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with the function applied to its arrays, of any library; all else stays."""
    return mapped(lambda leaf: function(leaf) if hasattr(leaf, "dtype") else leaf, tree)


def floats_mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with the function applied to NumPy's arrays of floats; classes and all else stay."""
    return arrays_mapped(lambda leaf: function(leaf) if getattr(leaf.dtype, "kind", "") == "f" else leaf, tree)


def cast(tree: Tree, dtype: Any) -> Tree:
    """The tree with NumPy's arrays of floats in another dtype; classes stay as they are."""
    return floats_mapped(lambda array: array.astype(dtype), tree)
