"""What the files of the package import, read from their source: at the top, inside functions, for type checking."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import npattn

PACKAGE = Path(npattn.__file__).parent


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = ("npattn", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
"""Every file of the package by its dotted name."""


def room_of(module: str) -> str:
    """The package or file, right under npattn, that a module is in."""
    return module.split(".")[1] if "." in module else "__init__"


def parsed(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def file_of(name: str) -> str:
    """The longest beginning of a dotted name that is a file: "npattn.ops.relu" of "npattn.ops.relu.forward"."""
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported anywhere in the tree, "npattn.ops.relu.forward"; `import_module` aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class Named(NamedTuple):
    """A call of import_module: with a name that stands there, or with one that only a run can know."""

    name: str | None
    source: str  # of the argument


def by_name(tree: ast.AST) -> Iterator[Named]:
    """The calls of importlib.import_module and __import__."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            (argument,) = node.args
            name = argument.value if isinstance(argument, ast.Constant) else None
            yield Named(name, ast.unparse(argument))


def ours(tree: ast.AST) -> set[str]:
    """The files of the package that a tree imports, by a statement or by a name that stands there."""
    names = [*imported(tree), *(call.name for call in by_name(tree) if call.name is not None)]
    return {file_of(name) for name in names if name.split(".")[0] == "npattn"}


GRAPH = {module: ours(parsed(path)) - {module} for module, path in FILES.items()}
"""The files that each file imports."""


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A way round through the graph, or nothing."""
    done: set[str] = set()

    def search(start: str, way: list[str]) -> list[str]:
        if start in way:
            return [*way[way.index(start) :], start]
        if start in done:
            return []
        for following in sorted(graph.get(start, ())):
            found = search(following, [*way, start])
            if found:
                return found
        done.add(start)
        return []

    return next((found for start in graph if (found := search(start, []))), [])
