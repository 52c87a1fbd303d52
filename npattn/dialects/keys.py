"""The keys of a state_dict as people have them: behind prefixes of wrappers, among entries that are no weights."""

from __future__ import annotations

from collections.abc import Mapping

from npattn.arguments import explained
from npattn.backend import Array

WRAPPERS = {
    "module.": "torch's DataParallel",
    "_orig_mod.": "torch.compile",
    "model.": "Lightning",
}
"""Prefixes that a wrapper puts before every key, and which does."""

NO_WEIGHTS = {
    "total_ops": "thop's count of operations",
    "total_params": "thop's count of parameters",
    "_extra_state": "what a module of torch keeps beside its weights",
    "n_averaged": "the counter of torch's AveragedModel",
}
"""Last names of keys whose entries nobody has learnt, and what left them there."""


def is_no_weight(key: str) -> bool:
    """Whether this is the key of an entry that is known to be no weight."""
    return key.rpartition(".")[2] in NO_WEIGHTS


def weights_of(state: Mapping[str, Array]) -> dict[str, Array]:
    """The state without the entries that are known to be no weights.

    Raises TypeError if it is no mapping with keys of text.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict of arrays by key, got {type(state).__name__}")
    for key in state:
        if not isinstance(key, str):
            raise TypeError(f"state: expected keys that are text, got {key!r}")
    return {key: value for key, value in state.items() if not is_no_weight(key)}


def wrapper_of(state: Mapping[str, Array]) -> str:
    """What wrappers put before every key, "module." say, or several in a row; empty if there is none."""
    if not state:
        return ""
    first, before = next(iter(state)), ""
    while True:
        rest = first.removeprefix(before)
        found = next((before + name for name in WRAPPERS if rest.startswith(name) and rest != name), None)
        if found is None or not all(key.startswith(found) for key in state):
            return before
        before = found


def unwrapped(state: Mapping[str, Array]) -> dict[str, Array]:
    """The weights without what wrappers put before every key.

    Raises TypeError if it is no mapping with keys of text.
    """
    state = weights_of(state)
    before = wrapper_of(state)
    return {key.removeprefix(before): value for key, value in state.items()}


@explained
def part(state: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """One module's entries out of a whole network's: those whose keys begin with `prefix` and a dot, without these.

    What wrappers put before every key (`module.` and the like) may be given or left out.

    Parameters
    ----------
    state
        Key to array.
    prefix
        Up to a dot, "layer1.0.cbam" say; with the dot or without.

    Returns
    -------
    dict of str to array
        At least one entry.

    Raises
    ------
    TypeError
        If state is no dict with keys of text, or prefix no text.
    KeyError
        If there are none.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected the beginning of a key, got {prefix!r}")
    for entries in (weights_of(state), plain := unwrapped(state)):
        for head in (prefix + ".", prefix.rstrip(".") + "."):
            found = {key.removeprefix(head): value for key, value in entries.items() if key.startswith(head)}
            if found:
                return found
    raise KeyError(
        f"prefix: expected the beginning of a key, got {prefix!r}; the first key is {next(iter(plain), None)!r}"
    )


def quoted(text: str) -> str:
    """The text as Python writes it, in double quotes where that needs no more escapes. It ends where it should."""
    plain = repr(text)
    return plain if plain[0] == '"' or '"' in plain or "\\'" in plain else f'"{plain[1:-1]}"'


def shown(key: str, most: int = 200) -> str:
    """A key as it is printed for reading: what a terminal would obey is escaped, and what is very long is cut."""
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= most else f"{text[:most]}…"
