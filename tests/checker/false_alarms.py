"""How often is what is right rejected? `python -m tests.checker.false_alarms 1000` asks 1,000 times a block.

Weights from 1e-4 to 1e2; inputs with and without ties, after a ReLU, shifted and scaled. It must print 0 alarms. What
is told to be untested is no alarm, and counted: large weights leave gates saturated, at whatever point.

    python -m tests.checker.false_alarms 1000 --jobs 4 --out alarms.jsonl     goes on from where it was ended
"""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

import numpy as np

from npattn import gradcheck
from npattn.checker.cases import Case, block_cases
from npattn.samples import Random
from tests.checker.sweep import Found, Piece, arguments, pieces, summed, sweep


def random_point(case: Case, seed: int) -> tuple[Any, ...]:
    """Inputs for the case, all drawn from the seed."""
    rng = np.random.default_rng(seed)
    N, C = rng.integers(1, 3), rng.integers(1, 7)
    H, W = rng.integers(1, 3 if case.name == "psa" else 5, 2)  # its weights grow with the map
    if case.norm and N < 3:
        N = 3  # of one number an image, two are always at ±1: their x̂ has no slope to check
    draw = Random(
        rng,
        (int(N), int(C), int(H), int(W)),
        int(rng.integers(1, C + 1)),
        int(rng.choice([1, 3, 5, 7])),
        float(10 ** rng.uniform(-4, 2)),
    )
    x, *rest = case.draw(draw)
    kind = rng.choice(["dense", "dense", "dense", "relu", "ties", "shifted", "zero"])
    if kind == "relu":
        x = np.where(x > 0, x, 0.0)
    elif kind == "ties":
        x = rng.integers(0, 3, x.shape).astype(float)
    elif kind == "shifted":
        x = 10 ** rng.uniform(-3, 2) * x + rng.normal()
    elif kind == "zero":
        x = np.zeros_like(x)
    return (x, *rest)


@functools.cache
def cases() -> dict[str, Case]:
    """Every block, by name."""
    return {case.name: case for case in block_cases()}


def ask(piece: Piece) -> Found:
    """One block at some seeds."""
    case, counts, told, began = cases()[piece.name], dict[str, int](), [], time.process_time()
    for seed in piece.seeds:
        point = random_point(case, seed)
        report = gradcheck((case.forward, case.backward), *point, strict=True, raise_exception=False, progress=False)
        answer = {0: "right", 1: "false alarms", 3: "untested in part"}[report.status]
        counts[answer] = counts.get(answer, 0) + 1
        if report.wrong or report.no_verdict:
            told.append(f"{case.name} at seed {seed}\n{report}")
    return Found(piece, counts, told, time.process_time() - began)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=1000)
    how = parser.parse_args()
    asked = pieces([name for name in cases() if how.only in name], how.first_seed, how.cases)
    found = sweep(asked, ask, how)
    print(summed(found, asked, "checks of right backwards"))
    return int(any("false alarms" in one.counts for one in found))


if __name__ == "__main__":
    sys.exit(main())
