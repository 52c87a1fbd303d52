"""Which class of which codebase does a state_dict belong to? Its keys and shapes say; some things they cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.dialects.table import TABLE, Misfit, Module, fit


class Candidate(NamedTuple):
    """A class that a state_dict fits.

    `args` are the constructor's arguments that its shapes give; `row` is the class in the table.
    """

    row: Module
    args: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.row.title}({self.row.arguments_text(self.args)}): {self.row.returns}"


class UnknownError(ValueError):
    """A state_dict is of no class that is spoken here. The message lists what does not fit, class by class."""


class AmbiguousError(ValueError):
    """A state_dict fits several classes that compute different things. `candidates` has them."""

    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates = candidates
        listing = "\n".join(f"  {candidate}" for candidate in candidates)
        super().__init__(
            f"state: its keys and shapes are those of {len(candidates)} classes that compute different things; "
            f"only whoever made it knows which it is:\n{listing}"
        )


def rows() -> Iterator[Module]:
    """All classes of the table."""
    for modules in TABLE.values():
        yield from modules.values()


def shapes_in(state: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """The shape of every entry."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}


def unwrapped(state: Mapping[str, Array]) -> dict[str, Array]:
    """The state without the prefix `module.` that torch's DataParallel puts before every key, if all have it.

    Raises TypeError if it is no mapping with keys of text.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict of arrays by key, got {type(state).__name__}")
    for key in state:
        if not isinstance(key, str):
            raise TypeError(f"state: expected keys that are text, got {key!r}")
    prefix = "module."
    while state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """One module's entries out of a whole network's: those whose keys begin with `prefix` and a dot, without these.

    A prefix `module.` on all keys is passed over.

    Raises
    ------
    KeyError
        If there are none.
    """
    state = unwrapped(state)
    head = prefix.rstrip(".") + "."
    entries = {key.removeprefix(head): value for key, value in state.items() if key.startswith(head)}
    if not entries:
        raise KeyError(
            f"prefix: expected the beginning of a key, got {prefix!r}; the first key is {next(iter(state), None)!r}"
        )
    return entries


def candidates(state: Mapping[str, Array], *, wrapped: bool = True) -> list[Candidate]:
    """Every class that the keys and shapes of `state` fit, those that compute the same included.

    wrapped: whether a prefix `module.` is passed over.
    """
    shapes = shapes_in(unwrapped(state) if wrapped else state)
    fitting = []
    for row in rows():
        try:
            fitting.append(Candidate(row, row.arguments(fit(row, shapes))))
        except Misfit:
            continue
    return fitting


def different(fitting: list[Candidate]) -> list[Candidate]:
    """The candidates without those that compute the same as another of them."""
    titles = {candidate.row.title for candidate in fitting}
    return [candidate for candidate in fitting if candidate.row.same_as not in titles]


def detect(state_dict: Mapping[str, Array]) -> tuple[str, str]:
    """Say which dialect and which module a state_dict is of.

    Where several classes have the same keys and compute the same (the SE layer of the article, of changzy00 and of
    xmu), the first is the answer: any of them loads it rightly.

    Parameters
    ----------
    state_dict
        Key to array, of any library; only the shapes are looked at. A prefix `module.` on all keys is passed over.

    Returns
    -------
    (dialect, module), the first two arguments of `load`.

    Raises
    ------
    UnknownError
        If it fits none. The message lists what did not fit, for each class.
    AmbiguousError
        If it fits several that compute different things. The message and `candidates` say which.
    """
    fitting = different(candidates(state_dict))
    if not fitting:
        raise UnknownError(f"state: {misfits_text(state_dict)}{inside_text(state_dict)}")
    if len(fitting) > 1:
        raise AmbiguousError(fitting)
    return fitting[0].row.dialect, fitting[0].row.name


def inside_text(state: Mapping[str, Array]) -> str:
    """Where in a whole network there are modules, as the end of an error's message."""
    modules = inside(state)
    if not modules:
        return ""
    first, fitting = next(iter(modules.items()))
    names = " or ".join(candidate.row.title for candidate in fitting)
    return f"\nbut inside of it are {len(modules)}, the first {names}: take part(state, {first!r})"


def misfits_text(state: Mapping[str, Array]) -> str:
    """What does not fit, a line for each class, those first that have most keys in common."""
    shapes = shapes_in(unwrapped(state))
    near, far = [], []
    for row in rows():
        try:
            row.arguments(fit(row, shapes))
        except Misfit as error:
            common = sum(key.theirs in shapes for key in row.keys)
            if common:
                near.append((-common / len(row.keys), f"  {row.title}: {error}"))
            else:
                far.append(row.title)
    lines = [line for _, line in sorted(near, key=lambda line: line[0])]
    if far:
        lines.append(f"  {', '.join(far)}: none of the keys is there")
    return "\n".join([f"its {len(shapes)} keys and shapes are those of no class that is spoken here:", *lines])


DEEPEST = 32  # dots in a prefix: a key of thousands of dots must not cost the square of them


def inside(state: Mapping[str, Array]) -> dict[str, list[Candidate]]:
    """The attention modules in a whole network's state_dict: the prefix of each, and what it can be.

    A prefix is a key up to a dot, "layer1.0.cbam" say; "" is the whole. Below one that fits, none is looked for.
    """
    most = max(len(row.keys) for row in rows())
    below: dict[str, dict[str, Array]] = {}
    for key, value in unwrapped(state).items():
        parts = key.split(".")
        for i in range(min(len(parts), DEEPEST)):
            prefix = ".".join(parts[:i])
            below.setdefault(prefix, {})
            if len(below[prefix]) <= most:  # one more than fits says as much as all
                below[prefix][".".join(parts[i:])] = value
    modules: dict[str, list[Candidate]] = {}
    for prefix, entries in below.items():  # a prefix comes after those above it
        inner = any(prefix.startswith(above + ".") for above in modules if above) or "" in modules
        fitting = [] if inner else different(candidates(entries, wrapped=False))
        if fitting:
            modules[prefix] = fitting
    return modules
