"""An exercise's text, drawn from the file that has the pair: what is given, what is to be written, hints, the answer.

There is no second copy of a backward. A block's or op's own file is read; what its pair needs stays, in its order. The
house's checks of arguments are taken out, which say nothing about the mathematics. The answer is that text. The start
is the same without the tagged lines of each backward. The comments between them are the hints, in their order.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
CHECKS = {
    "absent", "floating", "keyword_only", "odd", "odd_kernel", "one_of", "real_number", "same_shape", "shaped",
    "shaped_params", "some_pixels", "true_or_false", "whole_number", "hidden_width", "multiple_of",
}  # fmt: skip
"""Functions that look at an argument and refuse it, or hand it on."""
OF_SHAPE = {"shaped": 1, "odd_kernel": 1, "some_pixels": 0}
"""Those that return the shape of one of their arguments, and of which."""


class Drawn(NamedTuple):
    """The texts of an exercise."""

    title: str
    statement: str  # the formula, as it stands at the top of the file
    page: str  # under docs/, without its ending
    start: str
    answer: str
    hints: tuple[str, ...]


def drawn(module: ModuleType) -> Drawn | None:
    """The exercise of the pair in a module, or None where there is none to be drawn.

    That is, where its backward has no tagged line to take out, or is written in a way that cannot be taken apart here.
    """
    head = inspect.getdoc(module) or ""
    hints: list[str] = []
    try:
        answer = given(module)
        start = without_backwards(answer, hints)
        ast.parse(start)
    except SyntaxError:
        return None
    if start == answer:
        return None
    page = re.search(r"Derivation: docs/([\w/-]+)\.md", head)
    return Drawn(title(head), formula(head), page[1] if page else "", start, answer, tuple(hints))


def title(head: str) -> str:
    """What the pair is, in words: how the text at the top of its file begins."""
    return re.split("[:,.]", head)[0]


def formula(head: str) -> str:
    """The indented lines at the top of a file; its prose may tell the backward."""
    lines = head.split("\n")[1:]
    kept = [line for line in lines if not line.strip() or line.startswith("    ")]
    return textwrap.dedent(re.sub(r"\n{3,}", "\n\n", "\n".join(kept))).strip("\n")


# The answer: what the pair needs, without checks


def given(module: ModuleType) -> str:
    """The module's text as far as its pair needs it."""
    source = inspect.getsource(module)
    tree = ast.parse(source)
    needed = reachable(tree)
    lines = source.split("\n")
    parts, imports = [], []
    for node in tree.body:
        text = "\n".join(lines[first_line(node) - 1 : node.end_lineno])
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.FunctionDef) and node.name in needed:
            parts.append(function(text))
        elif isinstance(node, ast.ClassDef | ast.Assign | ast.AnnAssign) and names_of(node) & needed:
            parts.append(text)
    body = "\n\n\n".join(parts)
    used = {name.id for name in ast.walk(ast.parse(body)) if isinstance(name, ast.Name)}
    wanted = list(filter(None, (imported(node, used) for node in imports)))
    array = "import numpy as np"
    if "xp" in used:
        array += "\n\nxp = np  # the array library, by the name that this library's files give it"
    found = "\n".join(line for line in wanted if not line.startswith("import numpy"))
    return f"from __future__ import annotations\n\n{found}\n\n{array}\n\n\n{body}\n".replace("\n\n\n\n", "\n\n\n")


def first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return int(min([node.lineno, *(one.lineno for one in decorators)]))


def names_of(node: ast.stmt) -> set[str]:
    """What a statement at the top level binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def reachable(tree: ast.Module) -> set[str]:
    """The names at the top level that forward and backward use, and what these use."""
    bound = {name: node for node in tree.body for name in names_of(node)}
    found: set[str] = set()
    left = ["forward", "backward"]
    while left:
        name = left.pop()
        if name in found or name not in bound:
            continue
        found.add(name)
        left += [one.id for one in ast.walk(bound[name]) if isinstance(one, ast.Name)]
    return found


def imported(node: ast.Import | ast.ImportFrom, used: set[str]) -> str:
    """An import of what is used, in a line; "" if nothing is."""
    names = [one for one in node.names if (one.asname or one.name.split(".")[0]) in used]
    if not names or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
        return ""
    told = ", ".join(f"{one.name} as {one.asname}" if one.asname else one.name for one in names)
    return f"from {node.module} import {told}" if isinstance(node, ast.ImportFrom) else f"import {told}"


def function(text: str) -> str:
    """A function without checks, and with the first sentence of its docstring; a backward without any."""
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    lines = text.split("\n")
    replaced: dict[int, tuple[int, list[str]]] = {}  # from line, up to line: by these
    doc = ast.get_docstring(node)
    if doc is not None:
        first = node.body[0]
        kept = [] if node.name.endswith("backward") else [f'    """{sentence(doc)}"""']
        replaced[first.lineno] = (first.end_lineno or first.lineno, kept)
    used = [
        name.id
        for statement in statements(node)
        if not all_checks(statement) and not (isinstance(statement, ast.Assign) and called(statement.value))
        for name in ast.walk(statement)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load) and not inside_a_check(name, statement)
    ]
    for statement in statements(node):
        for block in (getattr(statement, "body", []), getattr(statement, "orelse", [])):
            if block and not all_checks(statement) and all(without_check(one, used) == [] for one in block):
                replaced[block[0].lineno] = (block[0].end_lineno, [f"{' ' * block[0].col_offset}pass"])
        instead = None if statement.lineno in replaced else without_check(statement, used)
        if instead is not None:
            indent = " " * statement.col_offset
            replaced[statement.lineno] = (
                statement.end_lineno or statement.lineno, [f"{indent}{line}" for line in instead],
            )  # fmt: skip
    result, number = [], 1
    while number <= len(lines):
        if number in replaced:
            end, instead = replaced[number]
            result += instead
            number = end + 1
        else:
            result.append(lines[number - 1])
            number += 1
    told = "\n".join(result)
    return re.sub(r"(:\n)\n+(    )", r"\1\2", re.sub(r"\n{3,}", "\n\n", told))  # no gap where checks have been


def sentence(doc: str) -> str:
    """The first paragraph of a docstring, without what is refused."""
    return re.split(r"\s*(?:Raises|Parameters) ", " ".join(doc.split("\n\n")[0].split()))[0]


def statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """All statements in a function, those within others too; not those of one that will go as a whole."""
    for field in ("body", "orelse"):
        for one in getattr(node, field, []):
            yield one
            if not all_checks(one):
                yield from statements(one)


def inside_a_check(name: ast.Name, statement: ast.stmt) -> bool:
    """Whether a name is read by a check that stands within a statement."""
    within = [one for one in ast.walk(statement) if isinstance(one, ast.stmt) and all_checks(one)]
    return any(name is one for check in within for one in ast.walk(check))


def called(node: ast.expr) -> str:
    """The name of the check that an expression calls, or ""."""
    if isinstance(node, ast.Subscript):
        node = node.value
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return name if name in CHECKS else ""


def all_checks(node: ast.stmt) -> bool:
    """Whether a statement does nothing but refuse."""
    if isinstance(node, ast.If):
        return all(isinstance(one, ast.Raise) or all_checks(one) for one in [*node.body, *node.orelse])
    if isinstance(node, ast.For):
        return all(all_checks(one) for one in node.body)
    return isinstance(node, ast.Expr) and bool(called(node.value))


def without_check(node: ast.stmt, used: list[str]) -> list[str] | None:
    """What stands in the place of a check: nothing, or what it returned. None for any other statement."""
    if all_checks(node):
        return []
    if not isinstance(node, ast.Assign) or not called(node.value):
        return None
    name = called(node.value)
    bound = names_of(node) - {"_"}
    if not bound & set(used):
        return []
    value = node.value
    if name not in OF_SHAPE:
        return renamed(node)
    index = f"[{ast.unparse(value.slice)}]" if isinstance(value, ast.Subscript) else ""
    call = value.value if isinstance(value, ast.Subscript) else value
    assert isinstance(call, ast.Call)
    targets = ast.unparse(node.targets[0]).removeprefix("(").removesuffix(")")
    return [f"{targets} = {ast.unparse(call.args[OF_SHAPE[name]])}.shape{index}"]


def renamed(node: ast.Assign) -> list[str]:
    """What stays of a check that hands its argument on: nothing, or another name for it, as in G = groups."""
    if not isinstance(node.value, ast.Call) or len(node.value.args) < 2:
        return []
    (target,), given = node.targets, node.value.args[1]
    same = ast.unparse(target) == ast.unparse(given)
    return [] if same or not isinstance(target, ast.Name) else [f"{target.id} = {ast.unparse(given)}"]


# The start: without the lines that are to be written


def without_backwards(text: str, hints: list[str]) -> str:
    """The text with the tagged lines of every backward taken out. What comments said there is added to `hints`."""
    lines = text.split("\n")
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef) and node.name.endswith("backward"):
            cut = to_write(node, lines)
            if cut is None:
                continue
            first, last = cut
            taken = lines[first - 1 : last]
            hints[:0] = comments(taken)
            lines[first - 1 : last] = asked(node.name, taken)
    return "\n".join(lines)


def to_write(node: ast.FunctionDef, lines: list[str]) -> tuple[int, int] | None:
    """From the first comment or tagged line of a backward to the last line before its return."""
    body = node.body
    ends = body[-1].lineno - 1 if isinstance(body[-1], ast.Return) else body[-1].end_lineno or body[-1].lineno
    tagged = [one.lineno for one in body if TAG.search("\n".join(lines[one.lineno - 1 : one.end_lineno]))]
    if not tagged or tagged[0] > ends:
        return None
    said = [number for number in range(node.body[0].lineno, ends) if lines[number - 1].strip().startswith("#")]
    before = [number for number in range(node.lineno + 1, body[0].lineno) if lines[number - 1].strip().startswith("#")]
    return min([tagged[0], *before, *said]), ends


def comments(taken: list[str]) -> list[str]:
    """The comments that stand on lines of their own, those of neighbouring lines in one."""
    found: list[str] = []
    before = False
    for line in taken:
        here = line.strip().startswith("#")
        if here:
            said = line.strip().removeprefix("#").strip()
            if before:
                found[-1] += f" {said}"
            else:
                found.append(said)
        before = here
    return found


def asked(name: str, taken: list[str]) -> list[str]:
    """What the start says in the place of the lines that were taken out."""
    tags = list(dict.fromkeys(tag for line in taken for tag in TAG.findall(line.partition("  # ")[2])))
    undo = f"    # Yours to write. To be undone, in this order: {', '.join(tags)}"
    wrapped = textwrap.wrap(undo, 88, subsequent_indent="    # ")
    return [*wrapped, f'    raise NotImplementedError("{name} is still to be written")']
