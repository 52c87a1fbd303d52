"""Tables as text: a row of headings, cells below each other, nothing wider than a line.

A cell that is too long goes on in the next line, between two words: no name and no number is ever cut. Where a line is
too narrow for that, each row becomes a list of its cells.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80  # of a line, unless a terminal is narrower
GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[str]], width: int = WIDTH, right: Sequence[int] = ()) -> str:
    """Rows below a row of headings.

    Parameters
    ----------
    head
        A heading for each column.
    rows
        Cells. Those of a shorter row are its first ones; a row of none is a rule.
    width
        How wide a line may be.
    right
        The columns of numbers, which end below each other.
    """
    found = [[*row, *[""] * (len(head) - len(row))] if row else [] for row in rows]
    cells = [list(head), *filter(None, found)]
    widths = fitted(cells, width)
    if widths is None:
        return "\n".join(line for row in found for line in listed(head, row, width))
    lines = [*laid(head, widths, right)]
    for row in found:
        lines += laid(row, widths, right) if row else ["─" * (sum(widths) + len(GAP) * (len(widths) - 1))]
    return "\n".join(lines)


def fitted(cells: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """How wide each column is, so that all of them fit: the widest ones give way. None if no way is left."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        able = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not able:
            return None
        widest = max(able, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def laid(cells: Sequence[str], widths: Sequence[int], right: Sequence[int] = (), margin: str = "") -> list[str]:
    """One row, in as many lines as its longest cell needs."""
    parts = [wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for i in range(max(map(len, parts))):
        here = [part[i] if i < len(part) else "" for part in parts]
        aligned = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(here, widths, strict=True))
        ]
        lines.append((margin + GAP.join(aligned)).rstrip())
    return lines


def listed(head: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """One row as a list: its first cell, and each other one below it behind its heading."""
    if not row:
        return ["─" * width]
    lines = wrapped(row[0], width)
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell:
            lines += wrapped(f"{name}: {cell}" if name else cell, width, "  ")
    return lines


def wrapped(text: str, width: int, margin: str = "", further: str | None = None) -> list[str]:
    """`text` in lines of at most so many letters, cut between words; `further` is the margin of all but the first."""
    return textwrap.wrap(
        text, max(1, width), break_long_words=False, break_on_hyphens=False, initial_indent=margin,
        subsequent_indent=margin if further is None else further,
    ) or [""]  # fmt: skip


def flowed(text: str, width: int) -> str:
    """Text whose long lines go on below themselves, a little to the right."""
    lines = []
    for line in text.split("\n"):
        margin = line[: len(line) - len(line.lstrip())] + "  "
        lines += [line] if len(line) <= width else wrapped(line, width, further=margin)
    return "\n".join(lines)


def counted(number: int, what: str, many: str = "") -> str:
    """ "1 epoch", "2 epochs"; `many` is the plural where an s does not make it."""
    return f"{number:,} {what if number == 1 else many or what + 's'}"
