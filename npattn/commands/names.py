"""The names of blocks and ops as they are typed: CBAM, Cbam and cbam are one; a wrong one is told the nearest.

one(word, accepted)   the name that is meant, or a ValueError
name_of(...)          the same as a `type` of argparse
heeds(name, letter)   whether a ratio or a kernel's size changes a block at all
listing(names)        what `--list` prints
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from npattn.arguments import did_you_mean
from npattn.block import Place
from npattn.blocks import blocks, canonical, folded, modules
from npattn.columns import table
from npattn.layer import Layer
from npattn.streams import width

OTHERS = {"none": "no attention", "conv": "a 3×3 convolution, to compare with"}
"""What a network's stages may have in the place of a block."""


@functools.cache
def op_words() -> dict[str, str]:
    """The ops, by the names of their files, and what each is in words: how the text at the top of the file begins."""
    return {
        module.__name__.rpartition(".")[2]: re.split("[:,.]", inspect.getdoc(module) or "")[0]
        for module in modules("ops")
        if hasattr(module, "backward")
    }


@functools.cache
def op_spellings() -> dict[str, str]:
    """What an op may be called, folded, and its name: that name, or its class's."""
    found = {folded(name): name for name in op_words()}
    for module in modules("ops"):
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, Layer) and kind.__module__ == module.__name__:
                found.setdefault(folded(kind.__name__), module.__name__.rpartition(".")[2])
    return found


def find(word: str, accepted: Iterable[str]) -> str | None:
    """The one of the accepted names that is meant by a word in any spelling, or None.

    As it is spelt, it is that one: channel-max is a form of a block, channel_max an op.
    """
    accepted = list(accepted)
    if word in accepted:
        return word
    names = {folded(name): name for name in accepted}
    for meant in (word, canonical(word), op_spellings().get(folded(word), word)):
        if folded(meant) in names:
            return names[folded(meant)]
    return None


def one(word: str, accepted: Iterable[str]) -> str:
    """The same, or a ValueError with the nearest ones, and where all are."""
    accepted = list(accepted)
    found = find(word, accepted)
    if found is None:
        if ".py" in word or ":" in word:
            raise ValueError(f"expected a name of --list, got {word!r:.80}; npattn gradcheck takes a layer of your own")
        raise ValueError(f"expected a name of --list, got {word!r:.80}{did_you_mean(word, accepted)}")
    return found


def name_of(*accepted: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """A `type` of argparse: a name out of what these functions give."""

    def taken(word: str) -> str:
        try:
            return one(word, [name for names in accepted for name in names()])
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return taken


def what_blocks_are() -> dict[str, str]:
    """Each block's name, and what it is in words."""
    return {name: entry.what for name, entry in blocks().items()}


@functools.cache
def heeds(name: str, letter: str) -> bool:
    """Whether a block is another one where r, the ratio, or k, the kernel's size, is another one."""
    small, entry = Place(8, 6, 6, r=2, k=3), blocks()[name]
    other_place = dataclasses.replace(small, **{letter: {"r": 4, "k": 5}[letter]})
    made = [entry.layer(place, rng=0) for place in (small, other_place)]
    one, other = ([repr(layer), *((key, value.shape) for key, value in layer.state_dict().items())] for layer in made)
    return one != other


def listing(names: Mapping[str, Any], head: tuple[str, ...] = ("name", "what it is")) -> str:
    """The table that `--list` prints."""
    rows = [(name, what) if isinstance(what, str) else (name, *what) for name, what in names.items()]
    return table(head, rows, width()) + "\n"
