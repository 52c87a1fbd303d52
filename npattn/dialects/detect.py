"""Which class of which codebase does a state_dict belong to? Its keys and shapes say; some things they cannot say."""

from __future__ import annotations

from collections.abc import Mapping

from npattn.arguments import explained
from npattn.backend import Array
from npattn.dialects.candidates import Candidate, candidates, different, misfits_text
from npattn.dialects.keys import shown
from npattn.dialects.network import inside, nearest


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


@explained
def detect(state_dict: Mapping[str, Array]) -> tuple[str, str]:
    """Say which dialect and which module a state_dict is of.

    Where several classes have the same keys and compute the same (the SE layer of the article, of changzy00 and of
    xmu), the first is the answer: any of them loads it rightly.

    Parameters
    ----------
    state_dict
        Key to array, of any library; only the shapes are looked at. What wrappers put before all keys (`module.` and
        the like) is passed over, and so is what is known to be no weight, such as a profiler's `total_ops`.

    Returns
    -------
    dialect, module
        The first two arguments of `load`.

    Raises
    ------
    UnknownError
        If it fits none. The message lists what did not fit, for each class, and where inside of it there is a module,
        or nearly one.
    AmbiguousError
        If it fits several that compute different things. The message and `candidates` say which; the message also
        says where each is used.
    """
    fitting = different(candidates(state_dict))
    if not fitting:
        raise UnknownError(f"state: {misfits_text(state_dict)}{inside_text(state_dict)}")
    if len(fitting) > 1:
        raise AmbiguousError(fitting)
    return fitting[0].row.dialect, fitting[0].row.name


def inside_text(state: Mapping[str, Array]) -> str:
    """Where in a whole network there are modules, or nearly are, as the end of an error's message."""
    modules = inside(state)
    if modules:
        first, fitting = next(iter(modules.items()))
        names = " or ".join(candidate.row.title for candidate in fitting)
        return f"\nbut inside of it are {len(modules)}, the first {names}: take part(state, {first!r})"
    return "".join(f"\n{line}" for line in near_lines(state) if line)


def near_lines(state: Mapping[str, Array], most: int = 3) -> list[str]:
    """Where below the whole there nearly is a module: a line for each class and reason, with the first such place."""
    alike: dict[tuple[str, str], list[str]] = {}
    for near in nearest(state):
        if near.prefix:
            alike.setdefault((near.row.title, near.why), []).append(near.prefix)
    lines = []
    for (title, why), prefixes in list(alike.items())[:most]:
        more = f" (and {len(prefixes) - 1} more like it)" if len(prefixes) > 1 else ""
        lines.append(f"{shown(prefixes[0])} is closest to {title}: {why}{more}")
    return lines
