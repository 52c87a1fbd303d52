"""The history of a run, a dict an epoch, and what is asked of one that comes from a file.

The figures are drawn from it after the training. What they cannot draw is found before the first step.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from npattn.checks import real_number, shown, whole_number
from npattn.explain.gate_statistics import checked_statistics

LARGEST = 1e60  # more than the losses of a million epochs can add up to in float32, and not too much to draw
EVERY = ("epoch", "loss", "accuracy", "rate", "seconds")  # what each row has
SOME = ("test_loss", "test_accuracy", "gates")  # the first two, both or none, where the epoch was tested


def checked_history(name: str, history: Any, epochs: int) -> list[dict[str, Any]]:
    """The history of so many epochs, with its numbers as plain ones.

    Raises
    ------
    TypeError
        If a part of it, or a number, is of another type.
    ValueError
        If there are more or fewer rows, something is missing or unknown in one, or a number is out of range.
    """
    if not isinstance(history, list):
        raise TypeError(f"{name}: expected a list with a dict for each epoch, got {shown(history)}")
    if len(history) != epochs:
        raise ValueError(f"{name}: expected a list of {epochs} epochs, got {len(history)}")
    return [checked_row(f"{name}[{i}]", row, i + 1) for i, row in enumerate(history)]


def checked_row(name: str, row: Any, epoch: int) -> dict[str, Any]:
    """One epoch's row, which must say that it is that epoch's. Raises as `checked_history`."""
    if not isinstance(row, dict):
        raise TypeError(f"{name}: expected a dict, got {shown(row)}")
    tested = [key for key in ("test_loss", "test_accuracy") if key in row]
    unknown = [key for key in row if key not in (*EVERY, *SOME)]
    missing = [key for key in EVERY if key not in row]
    if unknown or missing or len(tested) == 1:
        listed = f"{', '.join(EVERY)}, and perhaps test_loss with test_accuracy, and gates"
        raise ValueError(f"{name}: expected {listed}, got {list(row)!r:.200}")
    found: dict[str, Any] = {}
    for key, value in row.items():
        where = f"{name}[{key!r}]"
        if key == "epoch":
            found[key] = whole_number(where, value, least=epoch, most=epoch)
        elif key == "gates":
            found[key] = checked_gates(where, value)
        else:
            found[key] = real_number(where, value, least=0, most=1 if key.endswith("accuracy") else LARGEST)
    if found.get("gates") == {}:
        raise ValueError(f"{name}['gates']: expected at least one gate, got none")
    return found


def checked_gates(name: str, gates: Any) -> dict[str, dict[str, float]]:
    """What `npattn.explain.gate_statistics` says of each gate. Raises as `checked_history`."""
    if not isinstance(gates, dict):
        raise TypeError(f"{name}: expected a dict with the numbers of each gate, got {shown(gates)}")
    return {key: checked_statistics(f"{name}[{shown(key)}]", numbers) for key, numbers in gates.items()}


def check_gate_names(name: str, history: list[dict[str, Any]], gates: Collection[str]) -> None:
    """Raise ValueError if a row tells of other gates than those that the network has."""
    for i, row in enumerate(history):
        if "gates" in row and row["gates"].keys() != set(gates):
            listed = ", ".join(map(repr, gates)) or "none"
            raise ValueError(
                f"{name}[{i}]['gates']: expected the network's gates, {listed}, got {list(row['gates'])!r:.200}"
            )
