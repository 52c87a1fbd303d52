"""The inputs of a forward: which of them have a gradient, and which gradient of a backward belongs to which."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from npattn.backend import Array
from npattn.checker.trees import Values, belongs, float64, leaves, matched, rebuilt

GENERATORS = (np.random.Generator, np.random.RandomState)


class GradientCountError(ValueError):
    """A backward gives more gradients than there are inputs, or not those that were asked for."""


class Choice(NamedTuple):
    """What to take derivatives by: the names of inputs and parameters, or of what lies inside them."""

    wrt: tuple[str, ...] | None = None
    constants: tuple[str, ...] = ()

    @classmethod
    def of(cls, wrt: str | Sequence[str] | None, constants: str | Sequence[str]) -> Choice:
        """From the arguments `wrt` and `constants`; one name may stand alone.

        Raises
        ------
        TypeError
            If they are no names.
        """
        for argument, given in (("wrt", wrt), ("constants", constants)):
            if not (given is None or isinstance(given, str | list | tuple | set)) or any(
                not isinstance(one, str) for one in given or ()
            ):
                raise TypeError(f"{argument}: expected a name or several, got {given!r}")
        one = (wrt,) if isinstance(wrt, str) else wrt
        return cls(
            None if one is None else tuple(one), (constants,) if isinstance(constants, str) else tuple(constants)
        )

    def takes(self, name: str) -> bool:
        """Whether a derivative by this tensor is wanted."""
        return (self.wrt is None or belongs(name, self.wrt)) and not belongs(name, self.constants)

    def must_name(self, known: Sequence[str]) -> None:
        """Refuse a name that stands for nothing.

        Raises
        ------
        ValueError
            If `wrt` or `constants` names what is neither an input nor a parameter.
        """
        for argument, names in (("wrt", self.wrt or ()), ("constants", self.constants)):
            for name in names:
                if not any(belongs(one, [name]) or belongs(name, [one]) for one in known):
                    raise ValueError(f"{argument}: expected names among {', '.join(known)}, got {name!r}")


class Inputs:
    """Inputs by name. Those that are constants are handed on as they came, float arrays in the dtype of the others."""

    def __init__(self, names: list[str], trees: tuple[Any, ...], choice: Choice) -> None:
        self.names, self.trees, self._choice = names, trees, choice
        found = {key: array for name, tree in zip(names, trees, strict=True) for key, array in leaves(name, tree)}
        self.known = list(found)
        self.values = {key: float64(array) for key, array in found.items() if choice.takes(key)}
        self._constants = {key: float64(array) for key, array in found.items() if key not in self.values}
        self.notes: list[str] = []

    def at(self, values: Values) -> list[Any]:
        """The inputs with these values. Constants are copies, and a generator starts from where it was."""
        single = any(getattr(value, "dtype", None) == np.float32 for value in values.values())
        kind = np.float32 if single else np.float64
        given = {**{key: value.astype(kind) for key, value in self._constants.items()}, **values}
        return [
            copy.deepcopy(tree) if isinstance(tree, GENERATORS) else rebuilt(name, tree, given)
            for name, tree in zip(self.names, self.trees, strict=True)
        ]

    def by_name(self, gradients: Any) -> dict[str, Array]:
        """Gradients by name, from what a backward returned. An input without one, None, is left out."""
        aligned = self._aligned(gradients)
        given = {i: tree for i, tree in enumerate(self.trees) if aligned.get(i) is not None}
        found = {key: g for i, tree in given.items() for key, g in matched(self.names[i], tree, aligned[i])}
        return {key: g for key, g in found.items() if key in self.values}

    def _aligned(self, gradients: Any) -> Mapping[int, Any]:
        """The gradient of each input, by its place."""
        if isinstance(gradients, Mapping) and set(gradients) & set(self.names) and not self._is_an_input(gradients):
            return {i: gradients.get(name) for i, name in enumerate(self.names)}
        several = type(gradients) is tuple or isinstance(gradients, list)
        given = list(gradients) if several else [gradients]
        floats = [i for i, tree in enumerate(self.trees) if any(leaves(self.names[i], tree))]
        chosen = [i for i in floats if any(key in self.values for key, _ in leaves(self.names[i], self.trees[i]))]
        if several and len(given) == len(self.trees):
            return dict(enumerate(given))
        for places in (floats, chosen):
            if len(given) == len(places):
                return dict(zip(places, given, strict=True))
        if several and len(floats) == 1 and isinstance(self.trees[floats[0]], type(gradients)):
            return {floats[0]: gradients}
        if len(given) > len(self.trees) or not given:
            raise self._miscounted(given, several)
        if len(given) > len(floats):  # with None for what is no float, up to the last that is one
            return dict(enumerate(given))
        return self._fewer(given, chosen if len(chosen) >= len(given) else floats)

    def _is_an_input(self, gradients: Mapping[Any, Any]) -> bool:
        """Whether a dict is the gradient of one input that is a dict, not one gradient for each input."""
        return any(isinstance(tree, Mapping) and set(tree) == set(gradients) for tree in self.trees)

    def _fewer(self, given: list[Any], places: list[int]) -> Mapping[int, Any]:
        """Fewer gradients than inputs: they belong to the first inputs, or to the only ones of such shapes."""
        fits = [some for some in combinations(places, len(given)) if all(map(self._alike, some, given))]
        chosen = list(fits[0] if fits else places[: len(given)])
        left = [self.names[i] for i in places if i not in chosen]
        note = (
            f"backward gives {len(given)} gradient{'s' * (len(given) > 1)} for {len(places)} inputs, taken for "
            f"{', '.join(self.names[i] for i in chosen)}; not checked: {', '.join(left)} (wrt= or constants= says "
            "which are meant)"
        )
        if note not in self.notes:
            self.notes.append(note)
        return dict(zip(chosen, given, strict=True))

    def _alike(self, place: int, gradient: Any) -> bool:
        tree = self.trees[place]
        return gradient is None or not hasattr(tree, "shape") or np.shape(gradient) == tuple(tree.shape)

    def _miscounted(self, given: list[Any], several: bool) -> GradientCountError:
        got = f"{len(given)} gradients" if several else "one gradient"
        return GradientCountError(
            f"backward: expected a gradient for each of the {len(self.names)} inputs ({', '.join(self.names)}), None "
            f"where there is none, got {got}"
        )

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self.names, self.trees, strict=True))
