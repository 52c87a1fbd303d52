"""A block is known in its own file: nobody lists the blocks, so that a new one needs no line anywhere else."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

import pytest

from npattn.blocks import blocks, classes
from npattn.layer import Layer
from tests.support.imports import FILES, imported, parsed, room_of

CARDS: list[type[Layer]] = [kind for kind in classes("attention") if getattr(kind, "card", None) is not None]
ARTICLES = ("SELayer", "ChannelAttention", "SpatialAttention", "CBAM")
MADE_OF_THEM = {kind.__module__ for room in ("attention", "variants") for kind in classes(room)}

NETWORKS = {"npattn.models": ("Gated", "Residual")}
"""The demo's networks are made of these two as of a convolution: one applies a gate, one adds the way past it."""

HAND_MADE = {
    "npattn.bench.jax": "JAX's form of the article's four, to be timed beside ours",
    "npattn.bench.peers": "PyTorch's own form of the article's four, to be timed beside ours",
    "npattn.bench.timm": "which of them timm has, and its names for their weights",
    "npattn.bench.sides": "which blocks of which sizes the printed table times",
    "npattn.exercises.bugs": "into which answers a mistake is put, and which",
    "npattn.models": "the attention that each network has unless another is asked for",
}
"""Files that name several blocks as the commands do, and why no card can say it."""


def scope_of(module: str, tree: ast.AST) -> dict[str, str]:
    """What the names in a file stand for: imports and its own classes, by dotted name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname}
            found |= {top: top for alias in node.names if not alias.asname for top in [alias.name.split(".")[0]]}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = f"{module}.{node.name}"
    return found


def strings(tree: ast.AST) -> Iterator[str]:
    """The strings of a file but for those that stand alone, its documentation."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def mentioned(module: str, tree: ast.AST) -> set[str]:
    """Dotted names of all that a file imports, defines, reaches through a module, or spells in a string."""
    scope = scope_of(module, tree)
    found = {*imported(tree), *scope.values()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            found.add(f"{scope.get(first, first)}.{rest}")
    for text in strings(tree):
        last = text.rpartition(".")[2]
        found.add(scope.get(last, f"npattn.{last}"))
    return found


def names(found: set[str], kind: type[Layer]) -> bool:
    """Whether what a file mentions has that class: of its own file, or as `import npattn` gives it."""
    return bool(found & {f"{kind.__module__}.{kind.__name__}", f"npattn.{kind.__name__}"})


@functools.cache
def mentioned_in(module: str) -> set[str]:
    """`mentioned` of a file of the package."""
    return mentioned(module, parsed(FILES[module]))


def may_name(module: str, kind: type[Layer]) -> bool:
    """Its own file, and blocks made of it; the article's four in the table of contents; dialects, which load some."""
    return (
        module in MADE_OF_THEM
        or (module == "npattn" and kind.__name__ in ARTICLES)
        or room_of(module) == "dialects"
        or kind.__name__ in NETWORKS.get(module, ())
    )


@pytest.mark.parametrize("kind", CARDS, ids=lambda kind: kind.__name__)
def test_no_file_lists_the_class(kind: type[Layer]):
    found = {module for module in FILES if names(mentioned_in(module), kind)}
    assert kind.__module__ in found
    assert [module for module in sorted(found) if not may_name(module, kind)] == []


def listed(tree: ast.AST) -> set[str]:
    """The blocks and forms that a file names as the commands do."""
    return set(strings(tree)) & set(blocks())


@pytest.mark.parametrize("module", [module for module in FILES if module not in MADE_OF_THEM])
def test_no_file_lists_the_names(module: str):
    """One name is a default; two are a list. In a block's own file "channel" and "spatial" are its gates."""
    assert (len(listed(parsed(FILES[module]))) > 1) == (module in HAND_MADE)


REGISTERS = (
    "from npattn.attention.se import SELayer\nBLOCKS = {'se': SELayer}",
    "def block():\n    from npattn.attention import se\n    return se.SELayer",
    "import npattn\nBLOCKS = [npattn.SELayer, npattn.ECA]",
    "import npattn.attention.se\nBLOCKS = [npattn.attention.se.SELayer]",
    "BLOCKS = {'squeeze': 'npattn.attention.se.SELayer'}",
    "NAMES = ('SELayer',)",
)


@pytest.mark.parametrize("source", REGISTERS)
def test_a_register_would_be_seen(source: str):
    (kind,) = (kind for kind in CARDS if kind.__name__ == "SELayer")
    assert names(mentioned("npattn.register", ast.parse(source)), kind)
    assert not may_name("npattn.register", kind)
    assert listed(ast.parse("BLOCKS = {'se': 1, 'eca': 2}")) == {"se", "eca"}


def test_a_namesake_is_not_taken_for_it():
    (kind,) = (kind for kind in CARDS if kind.__name__ == "CBAM")
    for source in ("from npattn.variants.cbam import CBAM\n__all__ = ['CBAM']", '"""CBAM"""',
                   "from npattn import variants\nvariants.CBAM"):  # fmt: skip
        assert not names(mentioned("npattn.register", ast.parse(source)), kind)
