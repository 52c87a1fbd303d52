"""Wrong backwards, made of the right one by rule: what somebody writes who mistakes one length or one axis for another.

lengths    each use of a length, N, C, H or x.shape[2], by each other one
division   no division, or one by another length
branches   each `if` always, or never
axes       one axis less in a sum or mean, or one more
sums       = for +=
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was done, with its line, and the text of the answer with it."""
    tree = ast.parse(source)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name.endswith("backward"):
            names = sorted(lengths(function))
            shape = f"{function.args.args[0].arg}.shape"
            for node in list(ast.walk(function)):
                for what, other in changes(node, names, shape):
                    yield f"{function.name}, line {getattr(node, 'lineno', '?')}: {what}", replaced(tree, node, other)


def lengths(function: ast.FunctionDef) -> set[str]:
    """The names of lengths: what is unpacked from a shape, or made of such."""
    found: set[str] = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], ast.unparse(node.value)
        if ".shape" in value or (isinstance(target, ast.Tuple) and "shape" in value):
            found |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name) and len(one.id) <= 2}
    return found - {"_", "dx", "dy", "xp", "x", "w"}


def changes(node: ast.AST, names: list[str], shape: str) -> Iterator[tuple[str, ast.AST]]:
    """Other nodes to put in the place of one, in words."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for other in names:
            if other != node.id:
                yield f"{other} for {node.id}", ast.Name(other, ast.Load())
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
        index = ast.unparse(node.slice)
        for other in ("0", "1", "2", "3", "-1"):
            if index.lstrip("-").isdigit() and other != index:
                yield (
                    f"shape[{other}] for shape[{index}]",
                    ast.parse(ast.unparse(node.value) + f"[{other}]").body[0].value,
                )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield f"no / {ast.unparse(node.right)}", node.left
        for other in (*names, *(f"{shape}[{axis}]" for axis in range(4))):
            if other != ast.unparse(node.right):
                changed = copy.copy(node)
                changed.right = ast.parse(other, mode="eval").body
                yield f"/ {other} for / {ast.unparse(node.right)}", changed
    if isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            changed = copy.copy(node)
            changed.test = ast.Constant(value)
            yield f"if {value} for if {ast.unparse(node.test)}", changed
    if isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg == "axis":
                for axes in other_axes(keyword.value):
                    changed = copy.copy(node)
                    changed.keywords = list(node.keywords)
                    changed.keywords[place] = ast.keyword("axis", ast.parse(axes, mode="eval").body)
                    yield f"axis={axes} for {ast.unparse(keyword.value)}", changed
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        yield f"= for += in {ast.unparse(node)}", ast.Assign([node.target], node.value, lineno=node.lineno)


def other_axes(axis: ast.expr) -> list[str]:
    """One axis less, one more, or another one in the place of one."""
    try:
        value = ast.literal_eval(axis)
    except ValueError:
        return []
    here = value if isinstance(value, tuple) else (value,)
    found = [tuple(one for one in here if one != less) for less in here if len(here) > 1]
    found += [(*here, more) for more in range(5) if more not in here]
    found += [(one,) for one in range(5) if len(here) == 1 and one not in here]
    return [str(one) if len(one) > 1 else str(one[0]) for one in found]


def replaced(tree: ast.Module, node: ast.AST, other: ast.AST) -> str:
    """The text of the tree with another node in the place of one."""

    class Replace(ast.NodeTransformer):
        def visit(self, found: ast.AST) -> ast.AST:
            return other if found is marked else super().visit(found)

    memo: dict[int, object] = {}
    copied = copy.deepcopy(tree, memo)
    marked = memo[id(node)]
    return ast.unparse(ast.fix_missing_locations(Replace().visit(copied)))
