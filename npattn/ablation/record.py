"""What is kept of a finished training, and what is asked of one that comes from a file: a table is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from npattn.checks import real_number, shown, whole_number
from npattn.training import checked_gates

LARGEST = 1e60  # of a loss or of seconds: more than any, and it can still be averaged
RANGES = {"accuracy": (0.0, 1.0), "seconds": (0.0, LARGEST), "test_loss": (0.0, LARGEST), "train_loss": (0.0, LARGEST)}
NEEDED = ("row", "seed", "parameters", "accuracy", "seconds")
SOME = ("settings", "digits", "test_loss", "train_loss", "gates", "versions")


def checked_record(name: str, found: Any) -> dict[str, Any]:
    """A finished training's record, with its numbers as plain ones.

    Raises
    ------
    TypeError
        If it is no dict, or a part of it is of another type.
    ValueError
        If something is missing or unknown, or a number is out of range.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"{name}: expected a dict, got {shown(found)}")
    if missing := [key for key in NEEDED if key not in found]:
        raise ValueError(f"{name}: expected {', '.join(NEEDED)}, got none for {', '.join(missing)}")
    if unknown := [key for key in found if key not in (*NEEDED, *SOME)]:
        raise ValueError(f"{name}: expected {', '.join((*NEEDED, *SOME))}, got {unknown!r:.200}")
    record = dict(found)
    if not isinstance(record["row"], str):
        raise TypeError(f"{name}['row']: expected a string, got {shown(record['row'])}")
    for key in ("seed", "parameters"):
        record[key] = whole_number(f"{name}[{key!r}]", record[key], least=0, most=2**63 - 1)
    for key, (least, most) in RANGES.items():
        if key in record:
            record[key] = real_number(f"{name}[{key!r}]", record[key], least, most)
    record["gates"] = checked_gates(f"{name}['gates']", record.get("gates", {}))
    for key, kind in (("settings", dict), ("versions", dict), ("digits", str)):
        if not isinstance(record.get(key, kind()), kind):
            raise TypeError(f"{name}[{key!r}]: expected {kind.__name__}, got {shown(record[key])}")
    try:
        json.dumps(record.get("versions"), allow_nan=False)  # they are passed on as they are
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}['versions']: expected what a file can hold, got {error}") from None
    return record
