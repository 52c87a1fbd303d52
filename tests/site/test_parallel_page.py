"""The page on data-parallel training says what its script computes, and the script's formulas count what is sent."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "parallel.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parallel_page", DOCS / "_parallel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def numbers() -> dict:
    return json.loads((DOCS / "parallel.json").read_text(encoding="utf-8"))


def row(start: str) -> list[str]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_tables_are_the_scripts(script, numbers):
    c = [script.alone(numbers, n) for n in script.SIZES]
    assert row("$c(n)$, ms") == [f"{1e3 * seconds:.1f}" for seconds in c]
    ranks, B = script.RANKS[1:], script.BATCH
    for name, link in script.LINKS.items():
        strong = [c[-1] / script.predicted(numbers, p, B, *link) for p in ranks]
        assert row(f"128 digits a step, {name}") == [
            f"{speed:.3g}" if speed > 10 else f"{speed:.2f}" for speed in strong
        ]
        weak = [100 * c[-1] / script.predicted(numbers, p, B * p, *link) for p in ranks]
        assert row(f"128 digits a rank, {name}") == [f"{share:.1f}" for share in weak]


def test_what_the_text_says(script, numbers):
    words = " ".join(PAGE.split())
    seconds = numbers["seconds"]
    one, two, apart = (1e3 * seconds[key] for key in ("alone 128", "shared 128", "side by side 64"))
    assert f"128 digits take {two:.1f} ms in two ranks, {one / two:.2f} times as fast as one" in words
    assert f"side by side on 64 digits each and never speak take {apart:.1f} ms" in words
    assert f"{1e3 * (seconds['side by side 64'] - seconds['alone 64']):.1f} are there without any exchange" in words
    alpha, beta = seconds["message 4"] / 2, seconds[f"message {numbers['gradients']}"] / 2 / numbers["gradients"]
    model = 1e3 * script.predicted(numbers, 2, 128, alpha, beta)
    assert f"The model has {model:.1f}." in words
    assert f"Of the {two - model:.1f} ms between them" in words
    assert f"a message takes {1e6 * alpha:.1f} µs here and a byte {1e9 * beta:.2f} ns" in words
    times = {
        name: [script.predicted(numbers, p, 128, *link) for p in range(1, 200)] for name, link in script.LINKS.items()
    }
    half = [next(p for p in range(2, 200) if t[0] / t[p - 1] < p / 2) for t in times.values()]
    assert f"from {half[0]} ranks on at 10 Gb/s, and from {half[1]} on at 100 Gb/s" in words
    assert [int(np.argmin(t)) + 1 for t in times.values()] == [128, 128]
    assert f"128 of them: {1e3 * min(times['10 Gb/s']):.1f} ms and {1e3 * min(times['100 Gb/s']):.1f} ms" in words
    slow = script.LINKS["10 Gb/s"]
    talk = min(script.allreduce(128, numbers["gradients"], *slow).values()), script.exchanges(128, *slow)
    assert f"takes {1e3 * talk[0]:.1f} ms, and batch norm's small exchanges {1e3 * talk[1]:.1f}" in words


class Counted:
    """Ranks whose arrays are sent in rounds. A round takes as long as its longest message."""

    def __init__(self, p: int, M: int):
        rng = np.random.default_rng(p)
        self.have = rng.integers(0, 100, (p, M)).astype(float)
        self.wanted = self.have.sum(axis=0)
        self.rounds = self.numbers = 0

    def round(self, longest: int) -> None:
        self.rounds += 1
        self.numbers += longest


def ring(p: int, M: int) -> Counted:
    all_of = Counted(p, M)
    part = lambda k: slice(k % p * M // p, (k % p + 1) * M // p)  # noqa: E731
    for turn in range(2 * (p - 1)):
        sent = [all_of.have[r, part(r - turn)].copy() for r in range(p)]
        for r in range(p):
            to, there = (r + 1) % p, part(r - turn)
            all_of.have[to, there] = sent[r] + (all_of.have[to, there] if turn < p - 1 else 0)
        all_of.round(M // p)
    return all_of


def tree(p: int, M: int) -> Counted:
    all_of = Counted(p, M)
    for k in range(int(math.log2(p))):
        before = all_of.have.copy()
        for r in range(p):
            all_of.have[r] += before[r ^ (1 << k)]
        all_of.round(M)
    return all_of


def halving(p: int, M: int) -> Counted:
    all_of = Counted(p, M)
    mine = [(0, M)] * p
    bits = [1 << k for k in reversed(range(int(math.log2(p))))]
    for bit in bits:
        before = all_of.have.copy()
        for r in range(p):
            start, end = mine[r]
            middle = (start + end) // 2
            mine[r] = (middle, end) if r & bit else (start, middle)
            kept = slice(*mine[r])
            all_of.have[r, kept] += before[r ^ bit, kept]
        all_of.round(middle - start)
    for bit in reversed(bits):
        before, old = all_of.have.copy(), list(mine)
        for r in range(p):
            theirs = old[r ^ bit]
            all_of.have[r, slice(*theirs)] = before[r ^ bit, slice(*theirs)]
            mine[r] = (min(old[r][0], theirs[0]), max(old[r][1], theirs[1]))
        all_of.round(theirs[1] - theirs[0])
    return all_of


@pytest.mark.parametrize("p", [2, 4, 8, 16])
@pytest.mark.parametrize("way", [ring, tree, halving])
def test_each_way_sums_and_takes_what_its_formula_says(script, way, p):
    """In rounds and numbers that are really sent: α = 1 counts the ones, β = 1 the others."""
    M = 96 * p
    done = way(p, M)
    assert np.array_equal(done.have, np.tile(done.wanted, (p, 1)))
    assert script.allreduce(p, M, 1, 0)[way.__name__] == done.rounds
    assert script.allreduce(p, M, 0, 1)[way.__name__] == pytest.approx(done.numbers)
