"""Sweeps over many seeds: in pieces, in several processes, from a file, added up."""

from __future__ import annotations

import json

import pytest

from tests.checker import false_alarms, misses
from tests.checker.sweep import AT_ONCE, Found, Piece, arguments, pieces, summed, sweep


def even(piece: Piece) -> Found:
    """Counts even and odd seeds."""
    counts = {"even": sum(seed % 2 == 0 for seed in piece.seeds), "odd": sum(seed % 2 for seed in piece.seeds)}
    return Found(piece, counts, [f"{piece.name} {piece.first}"], 0.5)


def test_all_seeds_of_all_names_are_asked_once():
    asked = pieces(["a", "b"], 7, 60)
    assert [piece.name for piece in asked[:2]] == ["a", "b"]
    for name in ("a", "b"):
        assert [seed for piece in asked if piece.name == name for seed in piece.seeds] == list(range(7, 67))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_later_run_goes_on_from_the_file(tmp_path, capsys, jobs):
    how = arguments("").parse_args(["--out", str(tmp_path / "found.jsonl"), "--jobs", jobs])
    asked = pieces(["a", "b"], 0, 3 * AT_ONCE)
    first = sweep(asked[:3], even, how)
    assert summed(first, asked, "checks") == "75 checks: 38 even, 37 odd; 2 s of a processor; 3 of 6 pieces are left"
    with how.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(even(asked[3]))[:20])  # it was ended there
        file.write("\n")
    capsys.readouterr()
    found = sweep(asked, even, how)
    assert [one.piece for one in found] == asked
    assert summed(found, asked, "checks") == "150 checks: 76 even, 74 odd; 3 s of a processor"
    printed = capsys.readouterr().out
    assert "a 0\n" not in printed  # not asked again
    assert "b: 38 even, 37 odd; 2 s" in printed
    assert sweep(asked, even, how) == found


def test_time_may_be_up(tmp_path):
    how = arguments("").parse_args(["--minutes", "0"])
    asked = pieces(["a"], 0, AT_ONCE)
    assert sweep(asked, even, how) == []


@pytest.mark.parametrize(
    ("sweeping", "words", "told"),
    [
        (misses, ["--seeds", "2", "--only", "pools_taken_back"], "2 checks of wrong backwards: 2 rejected; "),
        (
            misses,
            ["--seeds", "1", "--only", "pools_taken_back", "--causes"],
            "1 checks of wrong backwards: 1 rejected,",
        ),
        (false_alarms, ["2", "--only", "eca-k5"], "2 checks of right backwards: 2 right; "),
    ],
)
def test_the_sweeps_run(monkeypatch, capsys, sweeping, words, told):
    monkeypatch.setattr("sys.argv", ["sweep", *words])
    assert sweeping.main() == 0
    assert told in capsys.readouterr().out


def test_without_causes_the_verdict_is_the_same():
    for mistake in list(misses.every_mistake().values())[::25]:
        answer, _ = misses.outcome_and_cause(mistake, 3)
        assert answer.split(",")[0] == misses.outcome(mistake, 3)


def test_what_is_green_is_counted_and_named(monkeypatch, capsys):
    monkeypatch.setattr(misses, "outcome", lambda mistake, seed: "green" if seed == 1 else "rejected")
    monkeypatch.setattr("sys.argv", ["misses", "--seeds", "2", "--only", "pools_taken_back"])
    assert misses.main() == 1
    printed = capsys.readouterr().out
    assert "pools_taken_back_in_the_other_order at seed 1: green" in printed
    assert "1 green, 1 rejected" in printed
