"""The hand-made proofs of the blocks, found in tests/blocks/ by the names of their cards. There is no list to edit.

A file of proofs is called as its block's card is ("variants.se": variants_se.py), and has

    reference(x, w, **arguments)   the layer's output by torch's own functions; w by the keys of the state_dict,
                                   arguments as the form has chosen them; batch norm by the batch's statistics
    derivation()                   the docs' formulas, evaluated index by index, against what the pair gives
    claim_…()                      what else the page says: none, or several
    @mistake                       wrong backwards, at least one (tests/support/mistakes.py)
    MORE                           further arguments for the reference to be tried with, beside those of the forms
    SQUARES                        True if it squares x, or multiplies x by numbers as large as x: what it computes
                                   then leaves the dtype's range before x does
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from npattn.blocks import Entry, blocks
from tests import blocks as room
from tests.support.mistakes import MISTAKES, Mistake


def file_of(card: str) -> str:
    """The name of the file with the proofs of a card."""
    return re.sub(r"\W", "_", card)


@functools.cache
def files() -> dict[str, ModuleType]:
    """Every file of proofs, by its name."""
    names = [found.name for found in pkgutil.iter_modules(room.__path__) if not found.name.startswith("test_")]
    return {name: importlib.import_module(f"{room.__name__}.{name}") for name in names}


def proofs_of(entry: Entry) -> ModuleType:
    """The file with a block's proofs. Raises FileNotFoundError if there is none."""
    name = file_of(entry.card.name)
    if name not in files():
        raise FileNotFoundError(f"{entry.card.name} has no proofs: tests/blocks/{name}.py is missing")
    return files()[name]


def mistakes_of(proofs: ModuleType) -> list[Mistake]:
    """The wrong backwards that stand in a file."""
    return [wrong for wrong in MISTAKES if wrong.module == proofs.__name__]


def missing_of(proofs: ModuleType | None) -> list[str]:
    """Which of the three that a block must have are not there."""
    if proofs is None:
        return ["reference", "derivation", "a wrong backward"]
    absent = [name for name in ("reference", "derivation") if not callable(getattr(proofs, name, None))]
    return absent + ([] if mistakes_of(proofs) else ["a wrong backward"])


def cards() -> dict[str, Entry]:
    """Every block that has a card, by the name of the file with its proofs."""
    return {file_of(entry.name): entry for entry in blocks().values() if entry.name == entry.card.name}


def entries() -> list[Entry]:
    """Every block and form, and a block once more for each of the further arguments that its proofs have."""
    found = list(blocks().values())
    own = cards()
    for name, proofs in files().items():
        for arguments in getattr(proofs, "MORE", ()) if name in own else ():
            chosen = ", ".join(f"{key}={value}" for key, value in arguments.items())
            found.append(own[name]._replace(name=f"{own[name].name} with {chosen}", arguments=arguments))
    return found


def reference(entry: Entry, x: Any, w: Mapping[str, Any]) -> Any:
    """What torch gives for the block: tensors in, a tensor out."""
    return proofs_of(entry).reference(x, w, **entry.arguments)


def part(w: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The weights of the layer `name` of one that is made of layers: "ca.fc1.weight" is "fc1.weight" of "ca"."""
    return {key.removeprefix(f"{name}."): value for key, value in w.items() if key.startswith(f"{name}.")}


def leaves_early(entry: Entry | None, small: bool = False) -> bool:
    """Whether a block's proofs say that what it computes leaves the dtype's range before x does.

    SQUARES is for numbers that are too large, ROOTS for those that are too small as well: a root of squares.
    """
    if entry is None:
        return False
    file = proofs_of(entry)
    return getattr(file, "ROOTS", False) or (not small and getattr(file, "SQUARES", False))
