"""A block's picture, drawn from its own file: a box for each tagged line, and a wire from where a variable is made to
where it is used. Any block that has a card has one, as soon as it has a forward.

The words in the boxes are the formula list that opens the file; what leads where is read from the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

from _figures import Drawing

from npattn import checks

TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
FORMULA = re.compile(r"^ {4}(?P<tag>[A-Z]+\d?\.\d+) +(?P<words>.+?)(?: {2,}(?P<shape>\([^()]*\)(?:, \([^()]*\))*).*)?$")
ASKS = {*vars(checks), "array_module", "device", "some_pixels"}
WIDE, TALL, GAP = 300, 40, 34  # how large the boxes are, and how far apart
LANE = 32  # from wire to wire beside them


class Row(NamedTuple):
    """A box: a line of the forward."""

    tag: str
    words: str
    shape: str
    makes: tuple[str, ...]
    uses: frozenset[str]


def formulas(module: ModuleType) -> dict[str, tuple[str, str]]:
    """The words and the shape of each tag, from the formula list that opens the file."""
    found = {}
    for line in (module.__doc__ or "").splitlines():
        match = FORMULA.match(line)
        if match:
            found[match["tag"]] = match["words"].strip(), match["shape"] or ""
    return found


def used_by(node: ast.AST) -> Iterator[str]:
    """The names whose numbers an expression takes; who asks for a shape or a library takes none."""
    if isinstance(node, ast.Name):
        yield node.id
    asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKS
    if not asks and not (isinstance(node, ast.Attribute) and node.attr == "shape"):
        for part in ast.iter_child_nodes(node):
            yield from used_by(part)


def rows(module: ModuleType, function: object) -> list[Row]:
    """A row for each tag of a forward, in their order; the lines of one tag together."""
    source = textwrap.dedent(inspect.getsource(function))  # type: ignore[arg-type]
    texts, words = source.splitlines(), formulas(module)
    found: dict[str, Row] = {}
    helpers: dict[str, set[str]] = {}  # what a line without a tag makes stands for what it was made of
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        tags = TAG.findall(texts[node.lineno - 1].partition("  # ")[2])
        makes = tuple(name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        uses = set(used_by(node.value))
        if not tags:
            for name in makes:
                helpers.setdefault(name, set()).update(uses)
            continue
        before = found.get(tags[0], Row(tags[0], *words.get(tags[0], ("", "")), (), frozenset()))
        found[tags[0]] = before._replace(makes=before.makes + makes, uses=before.uses | uses)

    def behind(names: frozenset[str], seen: frozenset[str] = frozenset()) -> frozenset[str]:
        new = frozenset(inner for name in names - seen for inner in helpers.get(name, ()))
        return names | (behind(new, seen | names) if new - seen - names else new)

    steps = [row._replace(uses=behind(row.uses)) for row in found.values()]
    return sorted(steps, key=lambda row: (row.tag.rpartition(".")[0], int(row.tag.rpartition(".")[2])))


def returned(function: object) -> str:
    """The name of what a forward returns first."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    (last,) = [node for node in ast.walk(tree) if isinstance(node, ast.Return)][-1:]
    names = [node.id for node in ast.walk(last) if isinstance(node, ast.Name)]
    return names[0] if names[0] != "forward" else "y"


def drawn(module: ModuleType, function: object, label: str) -> str:
    """The picture as SVG: x at the top, the output at the bottom, each use of a variable a wire."""
    steps = rows(module, function)
    places = [64 + i * (TALL + GAP) for i in range(len(steps))]
    made = {"x": -1} | {name: i for i, step in enumerate(steps) for name in step.makes}
    used = {name: [i for i, step in enumerate(steps) if name in step.uses and i > made[name]] for name in made}
    far = {name: [i for i in where if i > made[name] + 1] for name, where in used.items()}
    by_reach = sorted((name for name in far if far[name]), key=lambda name: max(far[name]) - made[name])
    left = 16 + LANE * (len(by_reach) + 1)
    d = Drawing(places[-1] + TALL + 34, label, width=left + WIDE + 10)
    middle = left + WIDE / 2
    d.text(middle, 18, "x  (N, C, H, W)")
    for i in range(len(steps)):  # from the line before: straight down
        names = [name for name in made if made[name] == i - 1 and i in used[name]]
        if names:
            start = 26 if i == 0 else places[i - 1] + TALL
            d.wire((middle, start), (middle, places[i]))
            d.names(middle, (start + places[i]) / 2, ", ".join(names), ", ".join(f"d{name}" for name in names))
    for lane, name in enumerate(by_reach):  # past other lines: beside them, the far ones farther out
        x, start = left - LANE * (lane + 1), made[name]
        y = 30 if start < 0 else places[start] + TALL / 2
        for i in far[name]:
            d.wire((middle if start < 0 else left, y), (x, y), (x, places[i] + TALL / 2), (left, places[i] + TALL / 2))
        d.text(x + 4, places[far[name][0]] + TALL / 2 - 6, name, "fwd", "start")
    for step, y in zip(steps, places, strict=True):
        d.box(middle, y + TALL / 2, fitted(step.words), f"{step.tag}   {step.shape}".strip(), WIDE, TALL)
    end, output = places[-1] + TALL, returned(function)
    d.wire((middle, end), (middle, end + 26))
    d.names(middle, end + 12, output, f"d{output}")
    return d.svg()


def fitted(words: str, most: int = 44) -> str:
    """Words that fit into a box."""
    return words if len(words) <= most else words[: most - 1] + "…"


def of_block(name: str) -> str:
    """The picture of the block of that name."""
    import sys

    from npattn.blocks import block

    entry = block(name)
    module = sys.modules[entry.kind.__module__]
    function = getattr(module, "forward", None) if entry.kind.textbook else entry.kind.run
    return drawn(module, function, f"{entry.card.title}, line by line")
