"""Every block there is, found in its own file: what commands, tables and checks go through. There is no list to edit.

blocks()    name to Entry: each card of attention/ and variants/, and each of its forms
canonical() the name in blocks() that a class's name, or one in other spelling, stands for
pairs()     the modules of ops/, attention/ and variants/ that say what their forward takes: `examples`
public()    the classes of attention/ by name, which `import npattn` gives
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from npattn.block import Card, Place
from npattn.checks import one_of
from npattn.layer import Layer


class Entry(NamedTuple):
    """A block, or a form of one, by the name that the commands take."""

    name: str
    what: str  # in words
    group: str | None  # of an ablation's rows
    kind: Any  # the class: a Block or a Nested
    arguments: Mapping[str, Any] = {}  # those that the form has chosen
    place: Mapping[str, int] = {}
    times: int = 1  # the channels of a place are so many times those that are asked for

    @property
    def card(self) -> Card:
        """Of the class."""
        return self.kind.card  # type: ignore[no-any-return]

    def layer(self, place: Place, **options: Any) -> Layer:
        """A layer for that place."""
        where = dataclasses.replace(place, C=self.times * place.C, **self.place)
        return self.kind.fitting(where, **{**self.arguments, **options})  # type: ignore[no-any-return]

    def further(self) -> list[Entry]:
        """The block with the other arguments that its card has for checks; none of a form."""
        return [
            self._replace(name=f"{self.name}, {told(one.arguments)}", arguments=one.arguments, times=one.times)
            for one in self.card.further
            if self.name == self.card.name
        ]


def told(arguments: Mapping[str, Any]) -> str:
    """Arguments as they are written in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def modules(package: str) -> Iterator[ModuleType]:
    """The files of a package of npattn, "attention" say."""
    folder = importlib.import_module(f"npattn.{package}")
    for found in pkgutil.iter_modules(folder.__path__):
        yield importlib.import_module(f"{folder.__name__}.{found.name}")


def classes(package: str) -> Iterator[type[Layer]]:
    """The layers that are defined in a package of npattn, in the order of their files."""
    for module in modules(package):
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, Layer) and kind.__module__ == module.__name__:
                yield kind


@functools.cache
def blocks() -> dict[str, Entry]:
    """Every block with a card, and every form of one, by name; those of attention/ first."""
    found: dict[str, Entry] = {}
    for package in ("attention", "variants"):
        for kind in classes(package):
            card: Card | None = getattr(kind, "card", None)
            if card is None:
                continue
            entries = [Entry(card.name, card.what or card.title, card.group, kind)]
            entries += [
                Entry(form.name, form.what, form.group, kind, form.arguments, form.place) for form in card.forms
            ]
            for entry in entries:
                if entry.name in found:
                    raise ValueError(f"{kind.__name__}: {entry.name} is the name of {found[entry.name].kind.__name__}")
                found[entry.name] = entry
    return found


def block(name: str, called: str = "block") -> Entry:
    """The entry of that name. Raises ValueError if there is none; `called` is what the error calls the argument."""
    return blocks()[one_of(called, canonical(name), tuple(blocks()))]


def folded(word: str) -> str:
    """A name without what people write in several ways: capitals, spaces, hyphens, underscores."""
    return "".join(letter for letter in word.lower() if letter not in " -_")


@functools.cache
def spellings() -> dict[str, str]:
    """What a block may be called, folded, and its name: that, its class's, its card's title. The first one has it."""
    found = {folded(name): name for name in blocks()}
    for name, entry in blocks().items():
        room = entry.kind.__module__.split(".")[1]
        for other in (entry.kind.__name__, f"{room}.{entry.kind.__name__}", entry.card.title):
            found.setdefault(folded(other), name)
    return found


def canonical(name: Any) -> Any:
    """The name in `blocks()` that is meant: "cbam" for "CBAM", "se" for "SELayer"; what is none comes back as it is."""
    return spellings().get(folded(name), name) if isinstance(name, str) else name


def pairs() -> Iterator[ModuleType]:
    """The modules whose pair is no layer's alone, and that say what it takes: `examples(draw)`."""
    for package in ("ops", "attention", "variants"):
        yield from (module for module in modules(package) if hasattr(module, "examples"))


def public() -> dict[str, type[Layer]]:
    """The classes of attention/ by name."""
    return {kind.__name__: kind for kind in classes("attention")}
