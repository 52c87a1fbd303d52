"""The closing table: against the best eager and the best compiled peer of each row, and where one of them is ahead."""

from __future__ import annotations

from typing import Any

from npattn.bench.best import as_it_comes, quickest
from npattn.bench.report import times

GROUPS = ("eager", "compiled")
KINDS = {"forward": "forward", "both": "fwd+bwd"}
COLUMNS = [(kind, group) for kind in KINDS for group in GROUPS]
NAME = 32
"""The width of a row's name; the rest of 80 columns is two by four ratios."""


def called(result: dict[str, Any]) -> str:
    """What a row is called: the class and the shape."""
    if result["block"] == "train step":
        return str(result["name"])
    return f"{result['name']} ({','.join(map(str, result['shape']))})"


def winners(results: list[dict[str, Any]]) -> str:
    """How many times as long as ours the best peers took, row by row, at best and as it comes; then who is ahead.

    Below 1 a peer is ahead of us. A dot stands for what was not measured.
    """
    lines = [
        "how many times as long as ours the quickest peer took, of all eager ones and",
        "of all compiled ones (c); below 1 it is ahead of us",
        f"{'':{NAME}}{'at best':>24}{'as it comes':>24}",
        f"{'':{NAME}}" + f"{'forward':>12}{'fwd+bwd':>12}" * 2,
        f"{'':{NAME}}" + f"{'eager':>6}{'c':>6}" * 4,
    ]
    ahead = []
    for result in results:
        row = f"{called(result):<{NAME}.{NAME}}"
        for where, of in (("at best", result), ("as it comes", as_it_comes(result))):
            for kind, group in COLUMNS:
                pair = quickest(of, group, kind) if of else None
                row += f"{times(pair[1]) if pair else '·':>6}"
                if pair and pair[1] < 1:
                    ahead.append((where, f"{called(result)}: {KINDS[kind]} {times(pair[1])} ({pair[0]})"))
        lines.append(row)
    for where in ("at best", "as it comes"):
        found = [line for place, line in ahead if place == where]
        lines.append(f"ahead of us {where}:" + ("" if found else " none"))
        lines += [f"  {line}" for line in found]
    return "\n".join(lines)
