"""How many small errors in the backwards does the test suite notice? `python tests/mutation.py` counts them.

mutmut makes every small change that it knows of (a + to a -, a 2 to a 3, an argument left out …) in every function of
ops/, attention/, variants/, fused/ and block.py that has a part in a backward (tests/support/in_backward.py), and runs
tests/derivatives/test_backwards.py on each. A mutant that passes has survived, and so has one that no test runs. Each
survivor must stand in tests/mutation_equivalent.toml with the reason why no test can tell it from the original, one by
one or by a rule; the exit status is 1 for one that does not, and for an entry there that is killed after all.

    python tests/mutation.py                   everything
    python tests/mutation.py --changed main    the files that differ from the branch or commit `main`
    python tests/mutation.py --sample 40       40 mutants, drawn with --seed
    python tests/mutation.py --file npattn/ops/linear.py

mutmut works in a folder of its own, mutants/, which git ignores. `pip install mutmut` (3.8 or newer).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script
from tests.support.in_backward import in_backward

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("npattn/ops", "npattn/attention", "npattn/variants", "npattn/fused")
NAMES = ("npattn/block.py", "npattn/packing.py")  # where a layer's gradients get their names
SURVIVED = {0, 5, 33}  # exit codes that mutmut keeps: the tests passed, or none of them runs the mutant's function


def mutmut(*arguments: str, tests: str = "") -> str:
    """Run mutmut in the project's root and return what it printed. pytest's -k selects `tests`; all if empty."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if tests:
        environment["PYTEST_ADDOPTS"] = f"-k '{tests}'"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    return done.stdout + done.stderr


def mutants(path: str) -> dict[str, int | None]:
    """The mutants of a file's backwards, and the exit code of the tests for each, None if they were not run."""
    meta = ROOT / "mutants" / f"{path}.meta"
    if not meta.exists():
        return {}
    codes = json.loads(meta.read_text())["exit_code_by_key"]
    chosen = parts_of_backwards()[path]
    return {name: code for name, code in codes.items() if function_of(name) in chosen}


@functools.cache
def parts_of_backwards() -> dict[str, set[str]]:
    """By file, the functions that have a part in a backward."""
    return in_backward(ROOT, all_files())


def all_files() -> list[str]:
    """The files whose functions are changed."""
    return [*NAMES, *sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).glob("*.py"))]


def function_of(mutant: str) -> str:
    """ "backward" for "npattn.ops.linear.x_backward__mutmut_3"; a method as "Linear.undo"."""
    name = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    return name.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def change(mutant: str) -> str:
    """What the mutant changed: the lines of its diff, without their place."""
    lines = mutmut("show", mutant).splitlines()
    return "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def differs_in(pattern: str, diff: str) -> bool:
    """Whether the two sides of a diff are the same but for what matches the pattern, and a comma before it."""

    def side(sign: str) -> str:
        lines = "\n".join(line[1:] for line in diff.splitlines() if line.startswith(sign))
        return re.sub(r",\s*\)", ")", re.sub(pattern, "", lines))

    return side("-") == side("+")


def changed_since(base: str) -> set[str]:
    """The files that git says differ from `base`."""
    done = subprocess.run(
        ["git", "diff", "--name-only", base, "--", *NAMES, *ROOMS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changed", metavar="BASE", help="only files that differ from this branch or commit")
    parser.add_argument("--file", action="append", help="only this file; may be given several times")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    arguments = parser.parse_args()

    files = all_files()
    wanted = set(arguments.file or files)
    if arguments.changed:
        wanted &= changed_since(arguments.changed)
    files = [path for path in files if path in wanted]
    if not files:
        print("no file to mutate")
        return 0

    # mutmut runs all tests twice before the first mutant: where nothing fused is asked for, leave those tests out
    tests = "" if any(path.startswith("npattn/fused/") for path in files) else "not fused"
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)  # mutmut would keep verdicts of older tests
    # A run of one mutant writes all; then those that take part in a backward are named
    jobs = ("--max-children", str(arguments.jobs))
    written = mutmut("run", "npattn.ops.linear.x_backward__mutmut_1", *jobs, tests=tests)
    chosen = [name for path in files for name in mutants(path)]
    if not chosen:
        print(written)
        print("mutmut wrote no mutants")
        return 1
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
    said = mutmut("run", *chosen, *jobs, tests=tests)

    known = tomllib.loads((ROOT / "tests" / "mutation_equivalent.toml").read_text())
    equivalent = {(entry["file"], entry["function"], entry["change"].strip()) for entry in known["equivalent"]}
    rules = [rule["differs_in"] for rule in known["rule"]]
    total: Counter[str] = Counter()
    unexplained, not_run, seen = [], [], set()
    print(f"{'file':<32}{'mutants':>8}{'killed':>8}{'survived':>10}{'equivalent':>12}")
    for path in files:
        count: Counter[str] = Counter()
        for name, code in mutants(path).items():
            if name not in chosen:
                continue
            count["mutants"] += 1
            if code in SURVIVED:
                key = (path, function_of(name), change(name).strip())
                explained = key in equivalent or any(differs_in(rule, key[2]) for rule in rules)
                seen.add(key)
                count["equivalent" if explained else "survived"] += 1
                if not explained:
                    unexplained.append((name, key))
            elif code is None:
                not_run.append(name)
            else:
                count["killed"] += 1  # also a mutant that never ends, or that crashes the interpreter
        total += count
        row = (count[what] for what in ("mutants", "killed", "survived", "equivalent"))
        print("{:<32}{:>8}{:>8}{:>10}{:>12}".format(path, *row))
    row = (total[what] for what in ("mutants", "killed", "survived", "equivalent"))
    print("{:<32}{:>8}{:>8}{:>10}{:>12}".format("all", *row))

    for name, (path, function, diff) in unexplained:
        print(f"\nsurvived: {name}\n[[equivalent]]\nfile = {path!r}\nfunction = {function!r}\nchange = '''\n{diff}'''")
    complete = arguments.sample is None
    stale = [key for key in equivalent if complete and key[0] in files and key not in seen]
    for path, function, diff in stale:
        print(f"\nlisted as equivalent, but no survivor: {path} {function}\n{diff}")
    if not_run:
        print(f"\n{len(not_run)} mutants were not run; mutmut said at last:\n{said[-2000:]}")
    return 1 if unexplained or stale or not_run else 0


if __name__ == "__main__":
    sys.exit(main())
