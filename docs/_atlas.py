"""The rows of the atlas, one for each block and each form of one: all of it read from where it is known.

parameters       npattn.explain.formula and counts, from what the block declares
work             npattn.explain.recorded, from what its textbook does
time             docs/atlas.json, written by `npattn bench --atlas docs/atlas.json`
accuracy         docs/ablation-table.txt and docs/ablation.md, tables that `npattn ablate` wrote
codebases        npattn.dialects, which of their classes are built of ours
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.bench.sides import moves
from npattn.block import Place
from npattn.blocks import Entry, blocks
from npattn.capacity import shapes_only
from npattn.dialects import DIALECTS
from npattn.dialects.table import TABLE, Module
from npattn.explain.counts import IMAGE, NETWORKS, added
from npattn.explain.formula import Formula, formula
from npattn.explain.recorded import recorded
from npattn.layer import Layer

DOCS = Path(__file__).resolve().parent
TIMES = DOCS / "atlas.json"
ABLATIONS = (DOCS / "ablation-table.txt", DOCS / "ablation.md")
STAGES = tuple((C, max(1, IMAGE // 4 >> i)) for i, (C, _) in enumerate(NETWORKS["resnet50"].stages))
DIFFERS = "What others call it, and how theirs differ"
MEASURED = re.compile(
    r"^\| (?P<name>[\w.-]+): [^|]* \| [\d,]+ \| (?P<mean>[\d.]+) \| (?P<spread>[\d.]+) \| [^|]* "
    r"\| (?:(?P<less>[+-][\d.]+) ± (?P<half>[\d.]+))? *\| (?P<seeds>\d+) \|$",
    re.MULTILINE,
)


class Trained(NamedTuple):
    """What `npattn ablate` found, in per cent."""

    mean: float
    spread: float
    less: float  # its accuracy less that of no attention, seed by seed
    half: float  # half the width of that one's 95 % interval
    seeds: int


class Cost(NamedTuple):
    """What one forward and backward of the textbook take, at the first stage where it may stand."""

    C: int
    side: int
    multiplications: int  # forward, an image
    a_number: float  # the same, for each number of x
    forward: float  # bytes moved, in units of x
    backward: float
    least: tuple[int, int]  # of any that computes this: forward, and both


class Row(NamedTuple):
    """A block, or a form of one."""

    entry: Entry
    formula: Formula
    counts: tuple[int, ...]  # at each stage
    added: int  # in a whole ResNet-50
    cost: Cost
    time: dict[str, Any] | None  # of the file; None where it has none
    trained: Trained | None
    codebases: dict[str, list[str]]  # their classes, by dialect

    @property
    def is_form(self) -> bool:
        return self.entry.name != self.entry.card.name


def places() -> list[Place]:
    """ResNet-50's stages, with the usual ratio and kernel."""
    return [Place(C, side, side) for C, side in STAGES]


def cost(entry: Entry) -> Cost:
    """The work at the first stage, or where the block is for few pixels, at the first that has no more."""
    most = entry.card.most_pixels or STAGES[0][1] ** 2
    C, side = next((C, side) for C, side in STAGES if side**2 <= most)
    layer = entry.layer(Place(C, side, side), rng=0, fused=False)
    x = np.random.default_rng(0).standard_normal((2, C, side, side), dtype=np.float32)  # two: a norm needs several
    found = recorded(layer, x)
    each = found.forward.multiplications / x.size
    both = found.forward.moved / x.nbytes, found.backward.moved / x.nbytes
    return Cost(C, side, found.forward.multiplications // 2, each, *both, moves(entry))


@functools.cache
def times() -> dict[str, Any]:
    """What `npattn bench --atlas` wrote; empty where it did not."""
    if not TIMES.exists():
        return {"head": {}, "blocks": {}}
    found: dict[str, Any] = json.loads(TIMES.read_text(encoding="utf-8"))
    return found


def trained() -> dict[str, Trained]:
    """The rows of the ablations' tables that have a baseline, by name; of two, the later one."""
    found = {}
    for file in ABLATIONS:
        for row in MEASURED.finditer(file.read_text(encoding="utf-8")):
            if row["less"]:
                numbers = (float(row[key]) for key in ("mean", "spread", "less", "half"))
                found[row["name"]] = Trained(*numbers, int(row["seeds"]))
    return found


def built_of(function: Any, seen: set[Any] | None = None) -> Iterator[type[Layer]]:
    """The layers of ours that a function of a dialect names, also by way of functions that it calls."""
    seen = set() if seen is None else seen
    code = getattr(function, "__code__", None)
    if code is None or function in seen:
        return
    seen.add(function)
    for name in code.co_names:
        thing = function.__globals__.get(name)
        inside = [thing]
        if isinstance(thing, ModuleType) and thing.__name__.startswith("npattn."):
            inside = [getattr(thing, other, None) for other in code.co_names]
        for one in inside:
            if inspect.isclass(one) and issubclass(one, Layer):
                yield one
            elif inspect.isfunction(one) and one.__module__.startswith("npattn.dialects"):
                yield from built_of(one, seen)


@functools.cache
def codebases() -> dict[str, dict[str, list[str]]]:
    """Dialects and their classes, by the name of our card; what is built of variants/ is its twin's as well."""
    cards = {entry.kind: entry.card.name for entry in blocks().values()}
    stems = {stem_of(kind): name for kind, name in cards.items() if ".attention." in kind.__module__}
    found: dict[str, dict[str, list[str]]] = {}
    for dialect in DIALECTS:
        for row in TABLE.get(dialect, {}).values():
            for name in whose(row, cards, stems):
                found.setdefault(name, {}).setdefault(dialect, []).append(row.name)
    return found


def stem_of(kind: type[Layer]) -> str:
    """ "se" of npattn.variants.se and of npattn.attention.se: files of one name are of one block."""
    return f"{kind.__module__.rpartition('.')[2]} {kind.__name__}"


def whose(row: Module, cards: dict[Any, str], stems: dict[str, str]) -> list[str]:
    """The names of our cards that a class there is."""
    kinds = [kind for kind in dict.fromkeys(built_of(row.build)) if kind in cards and not is_around(kind)]
    kinds = [kind for kind in kinds if not any(is_part(kind, other) for other in kinds)]  # of CBAM not its two gates
    names = [cards[kind] for kind in kinds]
    return list(dict.fromkeys([*names, *(stems[stem_of(kind)] for kind in kinds if stem_of(kind) in stems)]))


def is_around(kind: type[Layer]) -> bool:
    """Whether it is made of layers that it is given, as a gated layer is."""
    first = list(inspect.signature(kind).parameters.values())[:1]
    return bool(first) and first[0].annotation in ("Layer", Layer)


def is_part(kind: type[Layer], whole: type[Layer]) -> bool:
    """Whether another class's file takes it, or its twin, as CBAM's takes its two gates."""
    taken = set()
    for thing in vars(sys.modules[whole.__module__]).values():
        for one in vars(thing).values() if isinstance(thing, ModuleType) else [thing]:
            if inspect.isclass(one) and issubclass(one, Layer):
                taken.add(stem_of(one))
    return stem_of(kind) != stem_of(whole) and stem_of(kind) in taken


def in_order() -> list[Entry]:
    """All blocks, as the start page lists their pages, those with options last, and each followed by its forms."""
    listed = re.findall(r"^[\w/*]+$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)

    def rank(entry: Entry) -> tuple[bool, int, str, bool]:
        page = next((i for i, page in enumerate(listed) if fnmatch(entry.card.page, page)), len(listed))
        return ".variants." in entry.kind.__module__, page, entry.card.title.lower(), entry.name != entry.card.name

    return sorted(blocks().values(), key=rank)


def rows() -> list[Row]:
    """A row for each name that the commands take, in that order."""
    by_name, measured, spoken = trained(), times()["blocks"], codebases()
    made = []
    for entry in in_order():
        name = entry.name
        with shapes_only():
            counts = tuple(entry.layer(place, rng=0).count() for place in places())
        found = {} if name != entry.card.name else spoken.get(name, {})
        row = Row(entry, formula(entry), counts, added(name), cost(entry), measured.get(name), by_name.get(name), found)
        made.append(row)
    return made


def differs(entry: Entry) -> str:
    """Where it is said how codebases differ in a block: "blocks/eca#what-others-…", or the dialects' page."""
    text = (DOCS / f"{entry.card.page}.md").read_text(encoding="utf-8")
    if f"\n## {DIFFERS}\n" in text:
        return f"{entry.card.page}#{DIFFERS.lower().replace(',', '').replace(' ', '-')}"
    return "dialects#what-differs"
