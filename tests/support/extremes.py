"""The extremes that every pair and every layer must take, as tables: how numbers are given, how many, and how large.

tests/robustness/test_extremes.py runs them, and docs/extremes.md shows them: the build of the docs asks `TABLES`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npattn.checker.cases import Maker
from npattn.fused import layout
from npattn.layer import Layer
from npattn.samples import Random
from tests.support import cases
from tests.support.cases import CASES, MAKERS, Case, entry_of, image_for
from tests.support.trees import Tree, leaves

# What is run


DRAWN = object()


class Target(NamedTuple):
    """A pair or a layer behind one face: `run(x, params, dy)` gives all results by name; without dy it draws one."""

    name: str
    layer: bool
    fused: bool
    draw: Callable[[np.random.Generator, tuple[int, int, int, int], int], tuple[np.ndarray, Tree]]
    run: Callable[..., dict[str, Any]]
    norm: bool  # whether it normalises, by the batch or by running statistics
    any_axes: bool  # whether x may have any number of axes

    @property
    def pair(self) -> str:
        """The pair's name without its form."""
        return self.name.removesuffix(", fused")

    @property
    def row(self) -> str:
        """The op, block or form that it is of, whichever pair, layer or mode."""
        pair = self.pair.removeprefix("layer ") if self.layer else self.pair
        return pair.removesuffix(", eval").removesuffix(", train")


def cotangent(y: Any) -> np.ndarray:
    """A random dy for y."""
    return np.asarray(np.random.default_rng(7).standard_normal(np.shape(y)), y.dtype)


def pair_target(case: Case) -> Target:
    def draw(rng: np.random.Generator, size: tuple[int, int, int, int], k: int) -> tuple[np.ndarray, Tree]:
        x, *rest = case.inputs(Random(rng, size, min(2 if size[1] < 100 else 1000, size[1]), k))
        return x, tuple(rest)

    def run(x: Any, params: Tree, dy: Any = DRAWN) -> dict[str, Any]:
        y, cache = case.forward(x, *params)
        gradients = case.gradients(cotangent(y) if dy is DRAWN else dy, cache)
        return {"y": y} | {f"d{name}": gradient for name, gradient in leaves(gradients)}

    norm = case.textbook.endswith((", train", ", eval"))
    return Target(case.name, False, case.name.endswith("fused"), draw, run, norm, axes_of_x(case).startswith("..."))


class Asked(Random):
    """A draw that notes which axes it was asked for."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0), (2, 4, 4, 6))
        self.axes: list[str] = []

    def x(self, axes: str = "N C H W") -> np.ndarray:
        self.axes.append(axes)
        return super().x(axes)


def axes_of_x(case: Case) -> str:
    """The axes of a pair's x: what an op's example asks for, and images for a block."""
    asked = Asked()
    case.inputs(asked)
    return asked.axes[0] if asked.axes else "N C H W"


def layer_target(make: Maker, fused: bool) -> Target:
    def fresh(dtype: Any) -> Layer:
        return make(fused).to(dtype=dtype)

    def draw(rng: np.random.Generator, size: tuple[int, int, int, int], k: int) -> tuple[np.ndarray, Tree]:
        net = fresh("float64")
        return rng.standard_normal(image_for(net, (size[0], 8, *size[2:]))), tuple(net.params.values())

    def run(x: Any, params: Tree, dy: Any = DRAWN) -> dict[str, Any]:
        dtype = next((str(p.dtype) for p in params if isinstance(p, np.ndarray)), "float64")
        layer = fresh(dtype if dtype in ("float32", "float64") else "float64")
        layer.params.update(zip(layer.params, params, strict=True))
        y = layer(x)
        dx = layer.backward(cotangent(y) if dy is DRAWN else dy)
        return {"y": y, "dx": dx, **layer.grads}

    name = f"layer {make.name}" + (", fused" if fused else "")
    layer = make(fused)
    return Target(name, True, fused, draw, run, bool(layer.buffers), not layer.input_axes)


PAIRS = [pair_target(case) for case in CASES]
FUSED = [pair_target(case) for case in cases.FUSED]
LAYER_TARGETS = [layer_target(make, fused) for make in MAKERS for fused in (False, True)]
TARGETS = PAIRS + FUSED + LAYER_TARGETS

# How the numbers are given


def strided(a: np.ndarray) -> np.ndarray:
    """Every second number of a row that has NaN between."""
    wide = np.full((*a.shape, 2), np.nan, a.dtype)
    wide[..., 0] = a
    return wide[..., 0]


def side_by_side(a: np.ndarray) -> np.ndarray:
    """Images of which the same pixel of all follow one another; what has other axes as it is."""
    return layout.laid_side_by_side(a) if a.ndim == 4 else a


def backwards(a: np.ndarray) -> np.ndarray:
    """The same numbers, stored from the last to the first."""
    turned = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[turned])[turned]


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.setflags(write=False)
    return a


def memory_mapped(a: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # the map keeps it open
        mapped_file = np.memmap(file, a.dtype, "w+", shape=a.shape)
    mapped_file[...] = a
    return mapped_file


def unaligned(a: np.ndarray) -> np.ndarray:
    """Numbers that start at an odd address."""
    b = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


class Form(NamedTuple):
    """A way to hand over the same numbers. Right means: the results that plain arrays give."""

    name: str
    make: Callable[[np.ndarray], Any]
    error: tuple[type[Exception], str] | None = None  # None: the right answer
    plain: bool = False  # whether a fused pair, called by itself, takes it as x; a layer then takes the textbook

    def refused(self) -> str:
        """The error, as the documentation says it."""
        if self.error is None:
            return "right"
        kind, message = self.error
        return f"{kind.__name__}: {message}"


ARRAY = "expected an array (NumPy, CuPy, torch or array-api-strict), got "
DTYPE = "expected dtype float32 or float64, got "

FORMS = (
    Form("not contiguous", strided),
    Form("images side by side (CHWN)", side_by_side, plain=True),
    Form("negative strides", backwards),
    Form("Fortran order", np.asfortranarray),
    Form("read-only", read_only, plain=True),
    Form("memory-mapped", memory_mapped),
    Form("not aligned", unaligned),
    Form("big-endian", lambda a: a.astype(a.dtype.newbyteorder()),
         (TypeError, DTYPE + ">f8, which is not this machine's byte order")),
    Form("float16", lambda a: a.astype(np.float16), (TypeError, DTYPE + "float16")),
    Form("integers", lambda a: a.astype(np.int64), (TypeError, DTYPE + "int64")),
    Form("booleans", lambda a: a > 0, (TypeError, DTYPE + "bool")),
    Form("objects", lambda a: a.astype(object), (TypeError, DTYPE + "object")),
    Form("text", lambda a: a.astype(str), (TypeError, DTYPE + "<U32")),
    Form("a list", lambda a: a.tolist() if a.ndim else [1.0], (TypeError, ARRAY + "list")),
    Form("None", lambda a: None, (TypeError, "expected an array, got None")),
    Form("numpy.matrix", lambda a: a.reshape(-1, 1).view(np.matrix),
         (TypeError, "expected a plain array, got matrix")),
    Form("a masked array", np.ma.masked_array, (TypeError, "expected a plain array, got MaskedArray")),
    Form("another subclass", lambda a: a.view(np.recarray)),
)  # fmt: skip

# How many


class Size(NamedTuple):
    """x of an unusual size (N, C, H, W), and a kernel. A layer of the table has C = 8 and a kernel of 3."""

    name: str
    size: tuple[int, int, int, int]
    k: int = 3


SIZES = (
    Size("batch of 0", (0, 4, 3, 5)),
    Size("H = 1", (2, 4, 1, 5)),
    Size("W = 1", (2, 4, 5, 1)),
    Size("H = W = 1", (2, 4, 1, 1)),
    Size("one number in all", (1, 1, 1, 1)),
    Size("H = 0", (2, 4, 0, 5)),
    Size("W = 0", (2, 4, 5, 0)),
    Size("kernel larger than the image", (2, 4, 2, 3), k=9),
    Size("10,000 channels", (1, 10_000, 2, 2)),
)


def takes_roots(row: str) -> bool:
    """Whether it squares and takes a root, as the lp pool does. Where x is tiny, all squares are 0."""
    entry = entry_of(row)
    pools = () if entry is None else entry.arguments.get("pools", ())
    return row in ("lp pool", "layer norm", "LayerNorm", "group norm", "GroupNorm") or "lp" in pools


def squares(target: Target, magnitude: Magnitude) -> bool:
    """Whether what it computes on the way leaves the dtype though x does not."""
    from tests.support.proofs import leaves_early  # needs pytest, which a build of the docs has not

    if magnitude.scale < 1:
        return (takes_roots(target.row) or leaves_early(entry_of(target.row), small=True)) and not target.layer
    return takes_roots(target.row) or leaves_early(entry_of(target.row))


def room_for(target: Target, size: Size) -> tuple[int, int, int, int]:
    """The shape of x: with 1,000 channels at most where the weights grow with C²."""
    N, C, H, W = size.size
    if C <= 1000 or target.layer:
        return size.size
    small, large = (
        sum(w.size for _, w in leaves(target.draw(np.random.default_rng(0), (N, c, H, W), size.k)[1])) for c in (40, 80)
    )
    return (N, 1000, H, W) if large > 3 * small > 0 else size.size


REFUSALS: dict[str, Callable[..., bool]] = {
    "expected C, H and W of at least 1": lambda N, C, H, W: 0 in (C, H, W),
    "expected H and W of at least 2 for a 2×2 window": lambda N, C, H, W: min(H, W) < 2,
    "expected at least 2 numbers a channel to take a variance of": lambda N, C, H, W: N * H * W < 2,
    "expected at least 2 images to normalise over": lambda N, C, H, W: N < 2,
    "expected at least one number along axis": lambda *shape: shape[-1] == 0,
    "expected a last axis of at least 1": lambda *shape: shape[-1] == 0,
    "expected at least as many rows and columns as the window spans": lambda N, C, H, W: min(H, W) < 3,
    "expected at least one row and one class": lambda N, K: 0 in (N, K),
}
"""What is said to an x that leaves nothing to compute, and of which shapes it may be said."""


def refused(target: Target, size: Size) -> str | None:
    """What `target` says to x of that size, if it does not take it; None if it does."""
    try:
        x, params = target.draw(np.random.default_rng(6), room_for(target, size), size.k)
    except ValueError:  # weights for each pixel, of an image that has none
        return "no such pair"
    try:
        target.run(x, params)
    except ValueError as error:
        for message, fits in REFUSALS.items():
            if re.match(rf"[xz]: {re.escape(message)}", str(error)) and fits(*x.shape):
                return message
        raise
    return None


# How large


class Magnitude(NamedTuple):
    """x of that size: O(1) numbers times `scale`. `fits` says that no sum of some of them leaves the dtype's range."""

    name: str
    dtype: str
    scale: float
    fits: bool = True


MAGNITUDES = (
    Magnitude("1e-38", "float32", 1e-38),
    Magnitude("denormal, 1e-44", "float32", 1e-44),
    Magnitude("1e30", "float32", 1e30),
    Magnitude("1e38", "float32", 1e38, fits=False),
    Magnitude("1e-300", "float64", 1e-300),
    Magnitude("denormal, 1e-322", "float64", 1e-322),
    Magnitude("1e300", "float64", 1e300),
    Magnitude("1e308", "float64", 1e308, fits=False),
)

# NaN and infinities


def spots(*values: float) -> Callable[[np.ndarray], np.ndarray]:
    """The array with these values in it, the first one at its beginning, and no two next to each other."""

    def put(a: np.ndarray) -> np.ndarray:
        a = a.copy()
        places = a.reshape(-1)[: 3 * len(values) : 3]
        places[...] = values[: places.size]
        return a

    return put


SPECIALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "NaN": spots(np.nan),
    "+inf": spots(np.inf),
    "-inf": spots(-np.inf),
    "NaN twice": spots(np.nan, np.nan),
    "+inf twice": spots(np.inf, np.inf),
    "+inf and -inf": spots(np.inf, -np.inf),
    "nothing but -inf": lambda a: np.full_like(a, -np.inf),
    "nothing but NaN": lambda a: np.full_like(a, np.nan),
}


def special_run(target: Target, special: str, where: str) -> tuple[tuple[Any, ...], np.ndarray, dict[str, Any]]:
    """The inputs, dy and results of a pair with a special value in "x" or "dy"."""
    rng = np.random.default_rng(40)
    x, params = target.draw(rng, (2, 4, 4, 6), 3)
    with np.errstate(all="ignore"):
        dy = cotangent(target.run(x, params)["y"])
        if where == "x":
            x = SPECIALS[special](x)
        else:
            dy = SPECIALS[special](dy)
        return (x, *params), dy, target.run(x, params, dy)


# The tables of docs/extremes.md


def extent(found: np.ndarray) -> str:
    """Which entries of an array are marked, in words, seen from the entry at its beginning."""
    if not found.any():
        return "finite"
    if found.all():
        return "all"
    patterns = {"there": (0,) * found.ndim}
    if found.ndim == 4:
        patterns |= {"its channel": (0, 0), "its image": (0,), "its channel in every image": (slice(None), 0)}
        patterns |= {"its pixel, all channels": (0, slice(None), 0, 0), "its row of outputs": (0, 0, 0)}
        for reach, words in ((2, "around it"), (3, "farther around it")):
            patterns[words] = (0, slice(None), slice(reach), slice(reach))
    elif found.ndim == 2:
        patterns |= {"its row": (0,)}
    for words, index in patterns.items():
        here = np.zeros_like(found)
        here[index] = True
        if (here == found).all():
            return words
    return f"{int(found.sum())} of {found.size}"


def described(value: np.ndarray) -> str:
    """Where an array is NaN, and where infinite."""
    value = np.asarray(value)
    parts = [
        (f"{word} {extent(found)}", found.any()) for word, found in (("NaN", np.isnan(value)), ("∞", np.isinf(value)))
    ]
    return ", ".join(text for text, there in parts if there) or "finite"


def rows(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))


def forms_table() -> str:
    body = [
        [form.name, form.refused().replace(">f8", "`>f8`"), "the textbook" if form.error is None and not form.plain else
         "fused" if form.error is None else ""]
        for form in FORMS
    ]  # fmt: skip
    return rows(["x, dy or a parameter is …", "answer", "a layer takes"], body)


def sizes_table() -> str:
    body = []
    for size in SIZES:
        told: dict[str, list[str]] = {}
        for target in PAIRS if size.size[1] < 100 else ():
            message = refused(target, size)
            if message in REFUSALS:
                told.setdefault(message, []).append(target.name)
        said = "; ".join(f"ValueError “{message}”: {', '.join(names)}" for message, names in told.items())
        shape = str(size.size) + (f", k = {size.k}" if size.k != 3 else "")
        body.append([size.name, shape, f"right, but {said}" if said else "right"])
    return rows(["x has …", "(N, C, H, W)", "answer"], body)


def specials_table() -> str:
    body = []
    for target in PAIRS:
        row = [target.name]
        for special, where in (("NaN", "x"), ("+inf", "x"), ("-inf", "x")):
            _, _, found = special_run(target, special, where)
            row += [described(found["y"]), described(found["d0"])]
        body.append(row)
    head = ["pair", "x NaN: y", "dx", "x +∞: y", "dx", "x −∞: y", "dx"]
    return rows(head, body)


TABLES: dict[str, Callable[[], str]] = {"forms": forms_table, "sizes": sizes_table, "specials": specials_table}
