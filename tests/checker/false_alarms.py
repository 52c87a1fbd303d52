"""How often is what is right rejected? `python -m tests.checker.false_alarms 1000` asks 1,000 times a block.

Weights from 1e-4 to 1e2; inputs with and without ties, after a ReLU, shifted and scaled. It must print 0 alarms. What
is told to be untested is no alarm, and counted: large weights leave gates saturated, at whatever point.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from npattn import gradcheck
from npattn.checker.cases import Case, block_cases
from npattn.samples import Random


def random_point(case: Case, seed: int) -> tuple[Any, ...]:
    """Inputs for the case, all drawn from the seed."""
    rng = np.random.default_rng(seed)
    N, C = rng.integers(1, 3), rng.integers(1, 7)
    H, W = rng.integers(1, 3 if case.name == "psa" else 5, 2)  # its weights grow with the map
    if case.norm and N * H * W < 3:
        N = 3  # two numbers are always at ±1: their x̂ has no slope to check
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    alarms = 0
    for case in block_cases():
        start, wrong, untested = time.perf_counter(), 0, 0
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.cases):
            point = random_point(case, seed)
            report = gradcheck((case.forward, case.backward), *point, strict=True, raise_exception=False)
            untested += report.status == 3
            if not report:
                wrong += 1
                print(f"seed {seed}\n{report}", flush=True)
        print(
            f"{case.name}: {wrong} false alarms in {arguments.cases} cases, {untested} untested in part, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        alarms += wrong
    return min(alarms, 1)


if __name__ == "__main__":
    sys.exit(main())
