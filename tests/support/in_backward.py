"""Which functions have a part in a backward: what it calls, directly or through others. tests/mutation.py asks.

Read from the source: a function counts if it is a pair's backward, or a layer's method that calls one, or if such a
function names it. Functions that only a forward calls count where they find what a backward needs: FOUND_FORWARD.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

FOUND_FORWARD = {
    "npattn/ops/pooling.py": {"winners"},  # which of several numbers is the maximum
    "npattn/attention/psa.py": {"places"},
    "npattn/fused/max_pool_2x2.py": {"larger", "of_the_left", "in_places"},
    "npattn/fused/conv2d.py": {"columns"},
    "npattn/fused/layout.py": {"laid_side_by_side"},
    "npattn/fused/shares.py": {"gathering"},
}
WITHOUT_NUMBERS = {  # how work is cut and shared, where memory comes from: no number depends on it
    f"npattn/fused/{name}.py" for name in ("threads", "blas", "scratch", "memory", "tiles")
}


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function of a file, and each method as "Class.method"."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            yield from ((f"{node.name}.{method.name}", method) for method in methods)


def imported(tree: ast.Module) -> dict[str, str]:
    """What a file's names stand for: "maps" is "npattn.fused.maps", "add_up" is "npattn.fused.threads.add_up"."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("npattn"):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_backward(name: str) -> bool:
    """Whether that is what a pair calls its backward, or a layer the method that calls it."""
    last = name.rpartition(".")[2]
    return last in ("backward", "backward_params", "undo", "undo_params") or last.endswith("_backward")


def in_backward(root: Path, paths: list[str]) -> dict[str, set[str]]:
    """By file, the functions that have a part in a backward."""
    trees = {path: ast.parse((root / path).read_text(encoding="utf-8")) for path in paths}
    bodies = {(path, name): node for path, tree in trees.items() for name, node in functions(tree)}
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in paths}
    names = {path: imported(tree) for path, tree in trees.items()}

    def named(path: str, node: ast.AST, kind: str) -> Iterator[tuple[str, str]]:
        """The functions that a function names: its file's own, its class's, and those of other files."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                yield path, part.id
                module, _, name = names[path].get(part.id, "").rpartition(".")
                yield modules.get(module, ""), name
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                yield modules.get(names[path].get(part.value.id, ""), ""), part.attr
                if part.value.id == "self":
                    yield path, f"{kind}.{part.attr}"

    found: set[tuple[str, str]] = set()
    waiting = [key for key in bodies if is_backward(key[1])]
    waiting += [(path, name) for path, some in FOUND_FORWARD.items() for name in some if (path, name) in bodies]
    while waiting:
        key = waiting.pop()
        if key in bodies and key not in found and key[0] not in WITHOUT_NUMBERS:
            found.add(key)
            waiting += named(key[0], bodies[key], key[1].partition(".")[0])
    return {path: {name for file, name in found if file == path} for path in paths}
