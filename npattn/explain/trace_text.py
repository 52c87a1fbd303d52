"""A trace as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.explain.watch import Step


def text(found: Any) -> str:
    """A `Trace` as lines of text."""
    output = found.names[1]
    parts = [f"{found.block}: the example", ""]
    parts += [shown(name, value) for name, value in found.given.items()]
    parts += ["", "forward", "", *rows(found.forward)]
    parts += ["backward", "", shown(f"d{output}", found.dy) + "   the cotangent, given", "", *rows(found.backward)]
    parts += ["each gradient beside its finite difference", ""]
    for check in found.checks:
        for index in np.ndindex(check.analytic.shape):
            entry = f"{check.name}[{', '.join(map(str, index))}]"
            parts.append(f"  {entry:<22} {check.analytic[index]:>14.9f} {check.numeric[index]:>14.9f}")
        parts += [f"  {'largest difference':<22} {check.difference:>14.1e}", ""]
    return "\n".join(parts)


def rows(steps: list[Step], depth: int = 0) -> Iterator[str]:
    """Each step: tag and line of code, then what it assigned."""
    margin = "    " * depth
    for step in steps:
        yield f"{margin}{step.line.tag:<8} {step.line.code}"
        yield from rows(step.inside, depth + 1)
        for name, value in step.values.items():
            yield shown(name, value, margin + " " * 9)
        yield from (f"{margin}         {note}" for note in step.notes)
        if depth == 0:
            yield ""


def shown(name: str, value: np.ndarray, margin: str = "  ") -> str:
    """One array with its name and shape; leading axes of length 1 are left out of the brackets."""
    lead = next((i for i, n in enumerate(value.shape[:-1]) if n > 1), max(value.ndim - 1, 0))
    core = value.reshape(value.shape[lead:])
    style: Any = {"float_kind": number}
    numbers = np.array2string(core, separator=" ", formatter=style, max_line_width=110)
    head = f"{margin}{name} {value.shape} = "
    lines = numbers.splitlines()
    return "\n".join([head + lines[0], *(f"{' ' * len(head)}{line}".rstrip() for line in lines[1:])])


def number(value: float) -> str:
    """At most four places, and no zeros at the end, aligned: "0.5", "-0.0123"."""
    short = f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{'0' if short == '-0' else short:>7}"
