"""The parameters of a block as a formula in letters, derived from what it declares: "2CR + C + R".

Each weight is a product of axes. What an axis is, C or C // r or a number, is found by making the layer at several
places that differ in everything, and looking which letter of the place has its length at all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from npattn.block import Place
from npattn.blocks import Entry
from npattn.capacity import shapes_only
from npattn.layer import Layer
from npattn.nested import leaves
from npattn.packing import factors

PLACES = (
    Place(12, 5, 6, r=4, k=3),
    Place(48, 9, 7, r=3, k=5),
    Place(250, 6, 11, r=16, k=7),
    Place(1024, 4, 3, r=8, k=9),
    Place(2048, 8, 10, r=32, k=3),
)
LETTERS: dict[str, Callable[[Place], int]] = {
    "C": lambda place: place.C,
    "R": lambda place: place.C // place["r"],
    "k": lambda place: place.k,
    "G": lambda place: place.G,
    "r": lambda place: place["r"],
    "H": lambda place: place.H,
    "W": lambda place: place.W,
}
POWERS = {1: "", 2: "²", 3: "³", 4: "⁴"}


class Formula(NamedTuple):
    """A sum of products."""

    terms: dict[tuple[str, ...], int]  # a number, by the letters that it is multiplied with
    own: dict[str, str]  # letters that are none of LETTERS, as the block has them; by how they are written
    fixed: Mapping[str, int] = {}  # what the block has at every place: {"r": 2}

    def __str__(self) -> str:
        ordered = sorted(self.terms, key=lambda letters: (-len(letters), letters))
        return " + ".join(product(self.terms[letters], letters) for letters in ordered) or "0"

    def at(self, place: Place, layer: Layer) -> int:
        """The number of parameters there; `layer` says what the block's own letters are."""
        where = dataclasses.replace(place, **self.fixed)
        sizes = {name: length(where) for name, length in LETTERS.items()}
        sizes |= {name: next(s for s in own_sizes(layer) if letter in s)[letter] for name, letter in self.own.items()}
        return sum(times * math.prod(sizes[letter] for letter in letters) for letters, times in self.terms.items())


def product(times: int, letters: tuple[str, ...]) -> str:
    """2 and C, R, R as "2CR²"."""
    powers = Counter(letters)
    text = "".join(f"{letter}{POWERS.get(power, f'^{power}')}" for letter, power in powers.items())
    return text if text and times == 1 else f"{times}{text}"


def own_sizes(layer: Layer) -> list[dict[str, int]]:
    """The letters of each layer that the layer is made of."""
    return [dict(leaf.sizes) for leaf in leaves(layer)]


def axes_of(layer: Layer) -> list[tuple[int, str, int]]:
    """Each axis of each weight, in order: a number, a letter and its length. A weight begins with (0, "", 0)."""
    found = []
    for leaf in leaves(layer):
        for weight in getattr(leaf, "weights", []):
            found.append((0, "", 0))
            found += [(times, letter, leaf.sizes[letter] if letter else 1) for times, letter in factors(weight.axes)]
    return found


def formula(entry: Entry) -> Formula:
    """The parameters of a block as a formula.

    Letters are those of the place, R = C // r, and the block's own where a length is none of these.
    """
    places = [dataclasses.replace(place, **entry.place) for place in PLACES]
    with shapes_only():
        columns = list(zip(*(axes_of(entry.layer(place, rng=0)) for place in PLACES), strict=True))
    terms: Counter[tuple[str, ...]] = Counter()
    own: dict[str, str] = {}
    number = 0
    letters: list[str] = []
    for column in [*columns, ((0, "", 0),) * len(PLACES)]:
        times, letter, _ = column[0]
        if times == 0:
            if number:
                terms[tuple(sorted(letters))] += number
            number, letters = 1, []
            continue
        number *= times
        lengths = [length for _, _, length in column]
        known = next((name for name, of in LETTERS.items() if [of(place) for place in places] == lengths), None)
        if len(set(lengths)) == 1:
            number *= lengths[0]
        elif known:
            letters.append(known)
        else:
            name = letter if letter not in LETTERS else f"{letter}′"
            own[name] = letter
            letters.append(name)
    return Formula({letters: times for letters, times in terms.items() if times}, own, entry.place)
