"""A trace as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.columns import WIDTH, wrapped
from npattn.explain.watch import Step

NARROWEST = 24  # of the numbers of an array


def text(found: Any, width: int = WIDTH) -> str:
    """A `Trace` as lines of text, none of them wider than `width` unless a word or a number is."""
    output = found.names[1]
    parts = [f"{found.block}: the example", ""]
    parts += [shown(name, value, width=width) for name, value in found.given.items()]
    parts += ["", "forward", "", heading(width), "", *rows(found.forward, width)]
    given = shown(f"d{output}, the cotangent", found.dy, width=width)
    parts += ["backward", "", given, "", heading(width), "", *rows(found.backward, width)]
    parts += [f"gradients{'':<15} {'by backward':>14} {'by differences':>14}", ""]
    for check in found.checks:
        for index in np.ndindex(check.analytic.shape):
            entry = f"{check.name}[{', '.join(map(str, index))}]"
            parts.append(f"  {entry:<22} {check.analytic[index]:>14.9f} {check.numeric[index]:>14.9f}")
        parts += [f"  {'largest difference':<22} {check.difference:>14.1e}", ""]
    return "\n".join(parts)


def heading(width: int) -> str:
    """What stands in the lines below it."""
    return "\n".join(wrapped("tag      the line of code, and below it what it gives: name (shape) = numbers", width))


def rows(steps: list[Step], width: int, depth: int = 0) -> Iterator[str]:
    """Each step: tag and line of code, then what it assigned."""
    margin = "    " * depth
    for step in steps:
        yield from wrapped(f"{margin}{step.line.tag:<8} {step.line.code}", width, further=f"{margin}{'':<13}")
        yield from rows(step.inside, width, depth + 1)
        for name, value in step.values.items():
            yield shown(name, value, margin + " " * 9, width)
        for note in step.notes:
            yield from wrapped(note, width, f"{margin}{'':<9}", f"{margin}{'':<11}")
        if depth == 0:
            yield ""


def shown(name: str, value: np.ndarray, margin: str = "  ", width: int = WIDTH) -> str:
    """One array with its name and shape; leading axes of length 1 are left out of the brackets."""
    lead = next((i for i, n in enumerate(value.shape[:-1]) if n > 1), max(value.ndim - 1, 0))
    core = value.reshape(value.shape[lead:])
    style: Any = {"float_kind": number}
    head = f"{margin}{name} {value.shape} = "

    def numbers(before: int) -> list[str]:
        most = max(NARROWEST, width - before)
        return np.array2string(core, separator=" ", formatter=style, max_line_width=most).splitlines()

    lines, indent = numbers(len(head)), len(head)
    if any(indent + len(line) > width for line in lines) or broken(core, lines):
        lines, indent = ["", *numbers(len(margin) + 4)], len(margin) + 4
    return "\n".join([(head + lines[0]).rstrip(), *(f"{' ' * indent}{line}".rstrip() for line in lines[1:])])


def broken(array: np.ndarray, lines: list[str]) -> bool:
    """Whether an innermost row of an array goes over more than one line."""
    return array.ndim > 0 and len([line for line in lines if line.strip()]) > array.size // max(1, array.shape[-1])


def number(value: float) -> str:
    """At most four places, and no zeros at the end, aligned: "0.5", "-0.0123"."""
    short = f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{'0' if short == '-0' else short:>7}"
