"""A block as a few boxes, for the atlas: read from what its forward does on an input, by npattn.explain.recorded.

The steps that were recorded are small: a norm that a block writes out is seven. They are put together by rules that
know nothing of any block:

    w · a + b, Σ w · a, a matrix of weights       one box, linear
    c · a, a + c with numbers c                    none: they change no picture, but for 1 + a gate
    a · a, √a, exp a                               one box, a function
    a − mean of a, over the root of its squares    one box, a norm
    Σ a · b, of two things made of x               one box, a scalar product
    a + b + c, a · b · c                           one dot

What a box stands for is decided by the op's name ("pool", "conv", "norm", …), so that a new op of a usual name needs no
line here; an op of another name is shown by what it does.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace

import numpy as np

from npattn.block import Place
from npattn.blocks import Entry
from npattn.explain.recorded import Recording, Step, recorded

PLACE = Place(24, 5, 9, r=4)
IMAGES = 11  # all of these sizes differ, and so do their products that can meet
KINDS = {
    r"soft_?max": "softmax",
    r"pool|mean|max|min|std|var": "pool",
    r"norm": "norm",
    r"conv|linear|fc": "linear",
    r"sigmoid|tanh": "gate",
    r"relu|silu|swish|gelu": "act",
    r"concat|stack|split": "join",
    r"resize|interpol": "resize",
}
"""What a name says of an op; the first that fits."""

FUNCTIONS = {
    "sqrt": "√", "exp": "exp", "log": "log", "tanh": "tanh", "absolute": "| |", "square": "( )²", "power": "( )ᵖ",
    "where": "if", "maximum": "max", "minimum": "min", "reciprocal": "1/( )",
}  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A box of the picture."""

    kind: str  # x, pool, linear, norm, act, function, gate, softmax, join, resize, product, sum, dot, other
    label: str
    sources: tuple[int, ...]
    shape: str  # the axes that are left, in letters: "C", "H×W"
    over: str = ""  # a second line: the axes that it runs over, or the widths that it maps
    weights: tuple[str, ...] = ()
    gate: bool = False


def recording_of(entry: Entry) -> Recording:
    """The block on a small input whose sizes all differ."""
    layer = entry.layer(PLACE, rng=0, dtype="float64", fused=False)
    x = np.random.default_rng(0).standard_normal((IMAGES, PLACE.C, PLACE.H, PLACE.W))
    return recorded(layer, x, whole=lambda op: kind_of(op) != "other")


class Letters:
    """Sizes as letters."""

    def __init__(self, sizes: dict[str, int]) -> None:
        C, H, W = PLACE.C, PLACE.H, PLACE.W
        self.of = {C: "C", H: "H", W: "W", H * W: "HW", H + W: "H+W"}
        own = {size: letter for letter, size in sizes.items() if size > 1 and size % C}
        self.of = own | {C // PLACE["r"]: "R", PLACE.G: "G", C // PLACE.G: "C/G"} | self.of

    def axes(self, shape: tuple[int, ...]) -> list[str]:
        """The axes of more than one number, but the images; several that make one of x's are that one."""
        left = list(shape[1:] if shape and shape[0] == IMAGES else shape)
        for i, (a, b) in enumerate(itertools.pairwise(left)):
            if a * b == PLACE.C and a > 1 and b > 1:  # groups of channels
                left[i : i + 2] = [PLACE.C]
                break
        C = PLACE.C
        return [self.of.get(n, f"{n // C}C" if n % C == 0 else str(n)) for n in left if n > 1]

    def text(self, shape: tuple[int, ...]) -> str:
        found = ["H×W" if axis == "HW" else axis for axis in self.axes(shape)]
        return "×".join(sorted(found, key=lambda axis: ("C" not in axis and axis != "R", axis)))


def kind_of(name: str) -> str:
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, name)), "other")


def boxes(entry: Entry) -> list[Box]:
    """The boxes in the order in which they are computed, x first, without what leads nowhere; the last makes y."""
    made = recording_of(entry)
    layer = entry.layer(PLACE, rng=0, fused=False)
    return Reader(made, Letters(dict(layer.sizes))).boxes()


class Reader:
    """Makes boxes of steps."""

    def __init__(self, made: Recording, letters: Letters) -> None:
        self.steps, self.letters = made.steps, letters
        self.found: dict[int, Box] = {}
        self.stands: dict[int, int] = {}  # a step, and the one whose box shows it
        self.raw: dict[int, Step] = dict(enumerate(made.steps))
        self.same: dict[tuple[object, ...], int] = {}
        for i, step in enumerate(made.steps):
            self.read(i, step)
        self.last = max(self.at(i) for i in made.last if isinstance(i, int))
        self.mark_gates({self.at(i) for i in made.gates})

    def at(self, i: int) -> int:
        while i in self.stands:
            i = self.stands[i]
        return i

    def read(self, i: int, step: Step) -> None:
        each = [tuple(dict.fromkeys(self.at(one) for one in sources)) for sources in step.sources]
        sources = tuple(dict.fromkeys(one for part in each for one in part))
        key = (step.name, step.op, tuple(each), step.weights, step.shape)
        if step.weights == () and step.name != "x" and key in self.same:
            self.stands[i] = self.same[key]
            return
        self.same[key] = i
        box = self.box(i, step, each, sources)
        if box is None:
            self.stands[i] = sources[0]
        else:
            self.found[i] = box

    def box(self, i: int, step: Step, each: list[tuple[int, ...]], sources: tuple[int, ...]) -> Box | None:
        """The box of a step, or None if it is shown by that of its only source."""
        shape = self.letters.text(step.shape)
        if step.name == "x":
            return Box("x", "x", (), "C×H×W")
        if step.op:
            return self.op(step, sources, shape)
        data = [part for part in each if part]
        if step.name in ("multiply", "divide", "add", "subtract", "negative", "positive"):
            return self.arithmetic(step, data, sources, shape)
        if step.name in ("matmul", "vecdot", "matvec", "vecmat"):
            if step.weights:
                return Box("linear", "FC", sources, shape, weights=step.weights)
            if len(data) < 2:  # with numbers
                return Box("pool", "Σ", sources, shape, over(self.gone(step)))
            return Box("dot", "Σ×", sources, shape)
        if step.name in ("mean", "sum", "max", "min", "std", "var", "argmax", "reduce"):
            return self.reduction(step, sources, shape)
        if kind_of(step.name) == "join":
            return None if len(sources) == 1 else Box("join", "side by side", sources, shape)
        if len(sources) == 1 and step.name not in FUNCTIONS:
            return None
        length = self.length(sources[0], shape) if step.name == "sqrt" and len(sources) == 1 else None
        return length or Box("function", FUNCTIONS.get(step.name, step.name), sources, shape)

    def length(self, i: int, shape: str) -> Box | None:
        """The root of a sum of squares, which is a length; of squares of what is left without a mean, a spread."""
        pool = self.found[i]
        square = self.found[pool.sources[0]] if pool.kind == "pool" else pool
        if square.label != "( )²" or pool.label not in ("Σ", "mean"):
            return None
        of = square.sources[0]
        whole = self.centred(of)
        if whole is not None:
            return Box("pool", "spread", (whole,), shape, pool.over)
        return Box("pool", "length", (of,), shape, pool.over)

    def centred(self, i: int) -> int | None:
        """What a box is, less its mean; None if it is no such thing."""
        box = self.found[i]
        if (box.kind, box.label) != ("sum", "−"):
            return None
        whole, mean = box.sources
        pooled = self.found[mean]
        return whole if (pooled.kind, pooled.label, pooled.sources) == ("pool", "mean", (whole,)) else None

    def op(self, step: Step, sources: tuple[int, ...], shape: str) -> Box | None:
        kind = kind_of(step.name)
        words = step.name.replace("_", " ")
        if kind == "pool":
            label = next((name for name in ("max", "avg", "mean", "lse", "lp") if name in step.name), words)
            return Box(
                "pool",
                {"avg": "mean", "lse": "LSE", "lp": "Lp"}.get(label, label),
                sources,
                shape,
                over(self.gone(step)),
            )
        if kind == "norm":
            return Box("norm", words, sources, shape, weights=step.weights)
        if kind == "linear":
            label, second = self.linear(step)
            return Box("linear", label, sources, shape, second, step.weights)
        if kind == "join" and len(sources) == 1:
            return None
        label = {"join": "side by side", "act": words.replace("relu", "ReLU").replace("silu", "SiLU")}.get(kind, words)
        axis = ""
        if kind == "softmax":
            length = step.shape[step.told.get("axis", -1)]
            axis = over([a for a in self.letters.axes(step.shape) if a in self.letters.axes((length,))][-1:])
        return Box(kind, label, sources, shape, axis)

    def gone(self, step: Step) -> list[str]:
        """The axes of what a step takes that what it makes has not."""
        left = self.letters.axes(step.shape)
        taken = [axis for shape in step.shapes for axis in self.letters.axes(shape)]
        return [axis for axis in dict.fromkeys(taken) if axis not in left]

    def linear(self, step: Step) -> tuple[str, str]:
        """FC, or a convolution and of which size; label and the second line, by name."""
        w = next((shape for shape in step.shapes[1:] if len(shape) == 4), None)
        if w is None or "conv" not in step.name:
            return ("FC", "")
        groups, dilation = step.shapes[0][1] // w[1], step.told.get("dilation", 1)
        label = f"conv {w[2]}×{w[3]}"
        if groups > 1:
            return label, "depthwise" if w[1] == 1 else f"{groups} groups"
        return label, f"dilation {dilation}" if dilation > 1 else ""

    def arithmetic(self, step: Step, data: list[tuple[int, ...]], sources: tuple[int, ...], shape: str) -> Box | None:
        """Of one thing and numbers, of one thing and weights, of two things."""
        if len(data) == 1 and step.weights:  # w · a, a + b
            before = self.found[sources[0]]
            if before.kind == "linear" and set(before.sources) and step.name in ("add", "subtract"):
                self.found[sources[0]] = replace(before, weights=before.weights + step.weights)
                return None
            label = "w · a" if step.name in ("multiply", "divide") else "a + b"
            return Box("linear", label, sources, shape, weights=step.weights)
        if len(data) < 2:
            before = self.found[sources[0]]
            if before.kind == "gate" and step.name == "add" and step.told.get("number") == 1:
                self.found[sources[0]] = replace(before, label=f"1 + {before.label}")  # the gate can only strengthen
            return None
        if len(sources) == 1:
            return Box("function", "( )²", sources, shape) if step.name == "multiply" else None
        if step.name == "divide":
            return self.norm(sources, shape) or Box("product", "÷", sources, shape)
        return Box(
            *{"multiply": ("product", "×"), "add": ("sum", "+"), "subtract": ("sum", "−")}[step.name], sources, shape
        )

    def norm(self, sources: tuple[int, ...], shape: str) -> Box | None:
        """a / b, where b is made of a alone by pools and functions: a norm of what a was, less its mean or not."""
        top, bottom = sources
        whole = self.centred(top)
        front, seen = {bottom}, set()
        while front:
            i = front.pop()
            if i in (top, whole):
                continue
            if self.found[i].kind not in ("pool", "function"):
                return None
            seen.add(i)
            front |= set(self.found[i].sources)
        pools = [self.found[i] for i in sorted(seen) if self.found[i].kind == "pool"]
        if not pools:
            return None
        if whole is not None:
            return Box("norm", "norm", (whole,), shape, pools[0].over)
        root = any(box.label in ("√", "length") for box in map(self.found.__getitem__, seen))
        return Box("norm", "÷ length" if root else "÷ mean", (top,), shape, pools[0].over)

    def reduction(self, step: Step, sources: tuple[int, ...], shape: str) -> Box | None:
        if math.prod(step.shapes[0]) == math.prod(step.shape):  # over one number
            return None
        gone = self.gone(step)
        before = self.found[sources[0]]
        if step.name == "sum" and before.kind == "linear" and before.label == "w · a":
            label = "conv 1×1" if gone == ["C"] else "conv 1-D"
            return Box("linear", label, before.sources, shape, "" if gone == ["C"] else "over C", before.weights)
        if step.name == "sum" and before.kind == "product" and before.label == "×":
            return Box("dot", "Σ×", before.sources, shape, over(gone))
        label = {"sum": "Σ", "reduce": "Σ"}.get(step.name, step.name)
        if not gone and math.prod(step.shapes[0]) != math.prod(step.shape):
            gone = ["C/G"]
        return Box("pool", label, sources, shape, over(gone))

    def mark_gates(self, gates: set[int]) -> None:
        for i in gates & set(self.found):
            box = self.found[i]
            kind = "gate" if box.kind in ("function", "other", "act", "gate") else box.kind
            self.found[i] = replace(box, kind=kind, gate=True)

    def boxes(self) -> list[Box]:
        """Those that lead to y, numbered anew, sums of sums and products of products as one."""
        users: dict[int, list[int]] = {}
        needed, front = set(), [self.last]
        while front:
            i = front.pop()
            if i not in needed:
                needed.add(i)
                front += self.found[i].sources
        for i in needed:
            for source in self.found[i].sources:
                users.setdefault(source, []).append(i)
        merged: dict[int, tuple[int, ...]] = {}
        for i in sorted(needed):
            box = self.found[i]
            sources: list[int] = []
            for source in box.sources:
                inner = self.found[source]
                if (inner.kind, inner.label) == (box.kind, box.label) and box.label in "+×" and users[source] == [i]:
                    sources += merged[source]
                    needed = needed - {source}
                else:
                    sources.append(source)
            merged[i] = tuple(dict.fromkeys(sources))
        order = sorted(needed)
        number = {i: n for n, i in enumerate(order)}
        return [replace(self.found[i], sources=tuple(number[s] for s in merged[i])) for i in order]


def over(axes: list[str]) -> str:
    """What a step runs over, in words for its second line."""
    if sorted(axes) == ["H", "W"]:
        return "over H×W"
    return f"over {'×'.join(axes)}".replace("HW", "H×W") if axes else ""
