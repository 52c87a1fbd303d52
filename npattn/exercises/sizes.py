"""How long the axes are that an answer is tried on: what can differ does, and what can be above 1 is.

At C = H whoever divides by H in place of C is right by accident. So a pair is run at a few sizes far apart first. Two
axes, of its inputs, its output, its cache or its gradients, that differ at one of these are two lengths; the sizes
taken are the smallest of `candidates()` at which all such lengths differ, from each other and, if that is soon found,
from the numbers that the pair divides by. No list says which letters a pair has.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from npattn.block import Place
from npattn.samples import Random


class Sizes(NamedTuple):
    """The lengths that can be chosen. The others follow from them."""

    N: int
    C: int
    H: int
    W: int
    r: int  # R = C // r
    k: int

    def draw(self, rng: np.random.Generator) -> Random:
        """Random numbers of these sizes. M and K, which nothing fixes, are the smallest that nothing else is."""
        made = Random(rng, (self.N, self.C, self.H, self.W), self.r, self.k)
        taken = {1, made.sizes["R"], *self}
        for letter in ("M", "K"):
            made.sizes[letter] = min(set(range(2, 12)) - taken)
            taken.add(made.sizes[letter])
        return made


FAR = (Sizes(3, 12, 5, 7, 2, 5), Sizes(5, 14, 8, 4, 2, 3), Sizes(4, 20, 6, 11, 4, 7))
"""Two lengths that are the same at all of these are one length."""


MOST = 20
"""So often, at most, something better is looked for where no lengths are alike."""

FORMULAS: tuple[Callable[[Sizes], int], ...] = (
    lambda s: s.N, lambda s: s.C, lambda s: s.H, lambda s: s.W, lambda s: s.k, lambda s: s.C // s.r,
    lambda s: 2 * s.C, lambda s: s.H * s.W, lambda s: s.H + s.W, lambda s: Place(s.C).G, lambda s: s.C // Place(s.C).G,
    lambda s: s.H // 2, lambda s: s.W // 2, lambda s: (s.H + 1) // 2, lambda s: (s.W + 1) // 2,
    lambda s: (s.H + 2) // 3, lambda s: (s.W + 2) // 3,
)  # fmt: skip
"""What most lengths are. It only saves time: where one of these tells that two are the same, nothing is run."""


@functools.cache
def candidates() -> tuple[Sizes, ...]:
    """Those with the fewest numbers first."""
    found = [
        sizes
        for sizes in map(Sizes._make, product(range(2, 7), range(4, 13), range(3, 12), range(3, 13), (2, 3), (3, 5)))
        if len({sizes.N, sizes.C, sizes.H, sizes.W, sizes.k}) == 5
    ]
    return tuple(sorted(found, key=lambda one: one.N * one.C * one.H * one.W))


def chosen(
    lengths: Callable[[Sizes], tuple[int, ...]], factors: frozenset[int] = frozenset(), others: Sizes | None = None
) -> Sizes:
    """The first candidate with the fewest lengths that are alike or 1 without need; of these, with the fewest factors.

    `lengths` gives those of all axes at some sizes, in an order of its own. `others` are taken if they are as good.
    """
    far = list(zip(*map(lengths, FAR), strict=True))
    foreseen = [formula for formula in FORMULAS if tuple(map(formula, FAR)) in far]
    constants = [there[0] for there in set(far) if len(set(there)) == 1 and there[0] != 1]
    best: tuple[int, int] | None = None
    taken = FAR[0]
    tries = 0  # since no lengths are alike
    for sizes in (*([others] if others else []), *candidates()):
        some = [formula(sizes) for formula in foreseen]
        hopeless = len({*constants, *some}) < len(constants) + len(some) or 1 in some
        if best is not None and (hopeless or (best[0] == 0 and factors & set(some))):
            continue
        try:
            found = lengths(sizes)
        except ValueError:  # a number of channels that falls into no groups, say
            continue
        count = alike(found, far), len(factors & set(found))
        if best is None or count < best:
            best, taken = count, sizes
        tries += best[0] == 0
        if count == (0, 0) or (count[0] == 0 and sizes == others) or tries == MOST:
            break
    return taken


def alike(lengths: tuple[int, ...], far: list[tuple[int, ...]]) -> int:
    """How many lengths are the same as another, or 1, and need not be; 1000 if the axes are not those far off."""
    if len(lengths) != len(far):
        return 1000
    found = {(here, there) for here, there in zip(lengths, far, strict=True) if set(there) != {1}}
    return len(found) - len({here for here, _ in found}) + sum(here == 1 for here, _ in found)


def axes_in(tree: Any) -> Iterator[int]:
    """The lengths of all axes of all arrays in nested tuples."""
    if isinstance(tree, tuple | list):
        for one in tree:
            yield from axes_in(one)
    elif isinstance(tree, np.ndarray):
        yield from tree.shape


def factors_in(source: str, settings: Mapping[str, Any]) -> Iterator[int]:
    """The whole numbers above 1 that a text multiplies or divides by, or may: the settings, and their squares."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mult):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, int) and side.value > 1:
                    yield side.value
    for value in settings.values():
        if isinstance(value, int | float) and value > 1 and value == int(value):
            yield from (int(value), int(value) ** 2)
