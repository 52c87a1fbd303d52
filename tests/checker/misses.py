"""How often is what is wrong let pass? `python -m tests.checker.misses --seeds 1000` asks each wrong backward so often.

With default settings, at inputs and weights of that seed. Each must be rejected, or told to be untested; it must print
0 green. `--only name` asks a single one.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
import warnings

import numpy as np

from npattn import gradcheck
from tests.checker import zoo_found, zoo_ops, zoo_states
from tests.support import proofs
from tests.support.mistakes import MISTAKES, Mistake

ZOOS = (zoo_ops.__name__, zoo_found.__name__, zoo_states.__name__)


def outcome(mistake: Mistake, seed: int) -> str:
    """ "rejected", "untested" or "green"."""
    report = gradcheck(
        *mistake.asked(np.random.default_rng(seed)), seed=seed, strict=mistake.house_rule, raise_exception=False
    )
    return {0: "green", 1: "rejected", 3: "untested"}[report.status]


def every_mistake() -> list[Mistake]:
    """Those of this folder and those of the blocks."""
    return [
        *(wrong for wrong in MISTAKES if wrong.module in ZOOS),
        *(wrong for file in proofs.files().values() for wrong in proofs.mistakes_of(file)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of a name")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    total: collections.Counter[str] = collections.Counter()
    start = time.perf_counter()
    for mistake in every_mistake():
        if arguments.only not in repr(mistake):
            continue
        found: collections.Counter[str] = collections.Counter()
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            answer = outcome(mistake, seed)
            found[answer] += 1
            if answer == "green":
                print(f"{mistake} at seed {seed}: green", flush=True)
        total += found
        print(f"{mistake}: {', '.join(f'{count} {answer}' for answer, count in sorted(found.items()))}", flush=True)
    told = ", ".join(f"{total[answer]} {answer}" for answer in ("rejected", "untested", "green"))
    print(f"{total.total()} checks of wrong backwards: {told}; {time.perf_counter() - start:.0f} s")
    return min(total["green"], 1)


if __name__ == "__main__":
    sys.exit(main())
