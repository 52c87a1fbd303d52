"""How often is what is wrong let pass? `python -m tests.checker.misses --seeds 1000` asks each wrong backward so often.

With default settings, at inputs and weights of that seed. Each must be rejected, or told to be untested; it must print
0 green. A check ends at the first tensor that is wrong, which is all that counts here. With `--causes` the whole report
is asked for, and how its cause was named: a mistake says what its cause is called, and "another cause" is to be looked
at; where it says nothing there is only "a cause".

    python -m tests.checker.misses --seeds 1000 --jobs 4 --out misses.jsonl     goes on from where it was ended
"""

from __future__ import annotations

import functools
import sys
import time
import warnings

import numpy as np

from npattn import gradcheck
from npattn.checker.arguments import Settings
from npattn.checker.check import report_on
from npattn.checker.recognise import as_target
from tests.checker import zoo_found, zoo_ops, zoo_states, zoo_windows
from tests.checker.sweep import Found, Piece, arguments, pieces, summed, sweep
from tests.support import proofs
from tests.support.mistakes import MISTAKES, Mistake

ZOOS = (zoo_ops.__name__, zoo_windows.__name__, zoo_found.__name__, zoo_states.__name__)


def outcome(mistake: Mistake, seed: int) -> str:
    """ "rejected", "untested" or "green"."""
    target, *inputs = mistake.asked(np.random.default_rng(seed))
    how = Settings(seed=seed, strict=mistake.house_rule, progress=False, causes=False)
    report = report_on(as_target(target, tuple(inputs)), how)
    return {0: "green", 1: "rejected", 3: "untested"}[report.status]


def outcome_and_cause(mistake: Mistake, seed: int) -> tuple[str, str]:
    """The same, and how the cause was named: "rejected, cause named"; and what was said where it is another one."""
    report = gradcheck(
        *mistake.asked(np.random.default_rng(seed)), seed=seed, strict=mistake.house_rule, raise_exception=False,
        progress=False,
    )  # fmt: skip
    answer = {0: "green", 1: "rejected", 3: "untested"}[report.status]
    for row in report.rows:
        if row.name == mistake.blames and row.wrong and not report.problems:
            if not row.cause:
                return f"{answer}, no cause", ""
            if not mistake.says:
                return f"{answer}, a cause", ""
            known = mistake.says in row.cause + row.wrong
            return f"{answer}, {'cause named' if known else 'another cause'}", "" if known else row.cause
    return answer, ""


@functools.cache
def every_mistake() -> dict[str, Mistake]:
    """Those of this folder and those of the blocks, by name."""
    found = [
        *(wrong for wrong in MISTAKES if wrong.module in ZOOS),
        *(wrong for file in proofs.files().values() for wrong in proofs.mistakes_of(file)),
    ]
    return {repr(mistake): mistake for mistake in found}


def ask(piece: Piece, causes: bool = False) -> Found:
    """One mistake at some seeds."""
    warnings.simplefilter("ignore")
    mistake, counts, told, began = every_mistake()[piece.name], dict[str, int](), [], time.process_time()
    for seed in piece.seeds:
        answer, cause = outcome_and_cause(mistake, seed) if causes else (outcome(mistake, seed), "")
        counts[answer] = counts.get(answer, 0) + 1
        if answer == "green" or cause:
            told.append(f"{mistake} at seed {seed}: {answer}" + (f": {cause}" if cause else ""))
    return Found(piece, counts, told, time.process_time() - began)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--causes", action="store_true", help="ask for the causes, too")
    how = parser.parse_args()
    names = [name for name in every_mistake() if how.only in name]
    asked = pieces(names, how.first_seed, how.seeds)
    found = sweep(asked, functools.partial(ask, causes=how.causes), how)
    print(summed(found, asked, "checks of wrong backwards"))
    return int(any(what == "green" or "another cause" in what for one in found for what in one.counts))


if __name__ == "__main__":
    sys.exit(main())
