"""Shapes as they are typed, the same in every command: 2,8,5,5 or 2x8x5x5 or 2 8 5 5.

shape(text)       the lengths, or a ValueError that shows the three ways
lengths(count)    the same as a `type` of argparse, for so many axes
joined(words)     the words of a command line, with a shape in several of them as one
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

HOW = "as in 2,8,5,5 or 2x8x5x5 or 2 8 5 5"
MOST = 10**9  # no axis that this is for is so long, and a number of a thousand digits is no length
NUMBER = re.compile(r"\d[\d,x×*]*")
TAKES_A_SHAPE = ("--shape", "--input")


def shape(text: str, count: int | None = None) -> tuple[int, ...]:
    """The lengths that a text names, `count` of them if that is given.

    Brackets, as Python prints a shape, may stand around it. Raises ValueError if it is no shape.
    """
    inner = text.strip().removeprefix("(").removesuffix(")").removeprefix("[").removesuffix("]").strip().rstrip(",")
    parts = [part.strip() for part in re.split(r"\s*[,x×*]\s*|\s+", inner)]
    plain = all(part.isascii() and part.isdigit() and len(part) < 11 for part in parts)
    found = tuple(int(part) for part in parts) if plain else ()
    if not found or not 1 <= min(found) <= max(found) <= MOST or (count is not None and len(found) != count):
        many = {None: "whole numbers", 2: "two whole numbers", 4: "four whole numbers (N, C, H, W)"}[count]
        how = "as in 64x2 or 64,2" if count == 2 else HOW
        raise ValueError(f"expected a shape, {many} from 1 to {MOST:,}, {how}; got {text!r:.80}")
    return found


def lengths(count: int) -> Callable[[str], tuple[int, ...]]:
    """A `type` of argparse: a shape of so many axes."""

    def taken(text: str) -> tuple[int, ...]:
        try:
            return shape(text, count)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return taken


def joined(words: Sequence[str]) -> list[str]:
    """The words, where `--shape 2 8 5 5` is one of them: numbers behind an option for a shape are its lengths."""
    found: list[str] = []
    waits = takes = False  # whether the shape comes now, and whether a number belongs to the word before it
    for word in words:
        if takes and NUMBER.fullmatch(word):
            found[-1] = f"{found[-1].rstrip(',')},{word}"
            continue
        option, equals, _ = word.partition("=")
        is_one = len(option) > 3 and any(one.startswith(option) for one in TAKES_A_SHAPE)
        waits, takes = is_one and not equals, (is_one and bool(equals)) or (waits and not is_one)
        found.append(word)
    return found
