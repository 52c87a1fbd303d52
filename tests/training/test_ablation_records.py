"""What an ablation keeps may come from anybody, too: no number is printed as a result that cannot be one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from npattn import cli, data
from npattn.ablation import AblationError, Settings, ablate, summarised, table
from npattn.ablation import trainings as trainings_module

FEW = Settings(digits=64, epochs=1, batch_size=32, test_digits=50)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def few() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:100] for file in files), "embedded 10,000")


@pytest.fixture(autouse=True)
def tiny(few, monkeypatch) -> None:
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: few)


def record(**changes: Any) -> dict[str, Any]:
    """A finished training of "se" with seed 0; a value that is `...` is left out."""
    gates = {"stage2.attention.channel": dict.fromkeys(("mean", "spread", "over_images", "saturated", "half"), 0.5)}
    whole = {
        "row": "se", "seed": 0, "settings": asdict(FEW), "digits": "embedded 10,000", "parameters": 7, "accuracy": 0.5,
        "test_loss": 1.0, "train_loss": 1.0, "gates": gates, "seconds": 1.0, "versions": {"npattn": "1"},
    }  # fmt: skip
    return {key: value for key, value in {**whole, **changes}.items() if value is not ...}


WRONG = [
    *({"accuracy": bad} for bad in (NAN, INF, -0.1, 1.1, True, "0.5", None, [0.5], ...)),
    *({"parameters": bad} for bad in (-1, 7.0, True, "7", None, 10**30, ...)),
    *({"seconds": bad} for bad in (NAN, INF, -1, 1e300, "1", ...)),
    *({key: NAN} for key in ("test_loss", "train_loss")),
    {"gates": []},
    {"gates": {"a": 1}},
    {"gates": {"a": {"mean": NAN}}},
    {"versions": "1"},
    {"versions": {"npattn": NAN}},
    {"digits": 5},
    {"more": 1},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_record_that_cannot_be(tmp_path, monkeypatch, capsys, changes):
    """In a file it is an error that names the file; in a list, one that names its place."""
    path = tmp_path / "trainings" / "se-seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record(**changes)))
    monkeypatch.setattr(trainings_module, "one_training", lambda *given: pytest.fail("it began to train"))
    with pytest.raises(AblationError) as caught:
        ablate(tmp_path, only=["se"], seeds=1, settings=FEW)
    assert str(caught.value).startswith(f"{path}: holds no finished training (training")
    assert "remove it, and it is run again" in str(caught.value)
    line = ["ablate", "--out", str(tmp_path), "--only", "se", "--seeds", "1", "--digits", "64", "--epochs", "1"]
    assert cli.main([*line, "--batch-size", "32", "--test-digits", "50", "--jobs", "1"]) == 1
    shown = capsys.readouterr()
    assert "%" not in shown.out
    assert shown.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"trainings"}
    (key,) = changes
    with pytest.raises((TypeError, ValueError), match=r"^results\[1\]"):
        summarised([record(row="none"), record(**changes)])
    assert key in str(caught.value)


def test_a_whole_one_is_taken(tmp_path, monkeypatch):
    """What is refused above is refused for its fault alone; and not even versions are asked of an old one."""
    path = tmp_path / "trainings" / "se-seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record(versions=..., test_loss=..., gates=...)))
    monkeypatch.setattr(trainings_module, "one_training", lambda *given: pytest.fail("it began to train"))
    assert ablate(tmp_path, only=["se"], seeds=1, settings=FEW)
    assert "| 7 | 50.00 |" in (tmp_path / "ablation.md").read_text()


def test_a_message_is_short(tmp_path):
    path = tmp_path / "trainings" / "se-seed0.json"
    path.parent.mkdir()
    for changes in ({"settings": {"a": "b" * 10**5}}, {"accuracy": "b" * 10**5}, {"row": "b" * 10**5}):
        path.write_text(json.dumps(record(**changes)))
        with pytest.raises(AblationError) as caught:
            ablate(tmp_path, only=["se"], seeds=1, settings=FEW)
        assert len(str(caught.value)) < 1000


def test_a_table_that_lies_there_is_not_shown_as_a_result(tmp_path, monkeypatch, capsys):
    """Interrupted before anything is finished: what stands in the folder is of other trainings."""
    (tmp_path / "ablation.md").write_text("| all of them | 100.00 |\n")
    monkeypatch.setattr(trainings_module, "one_training", lambda *given: {})
    assert cli.main(["ablate", "--out", str(tmp_path), "--only", "se", "--seeds", "1", "--digits", "64",
                     "--test-digits", "50", "--jobs", "1"]) == 130  # fmt: skip
    assert "100.00" not in capsys.readouterr().out


def test_leftovers_of_a_kill_are_removed(tmp_path):
    folder = tmp_path / "trainings"
    folder.mkdir()
    ours = [tmp_path / ".ablation.md.abcdefgh.npattn.part", folder / ".se-seed0.json.abcdefgh.npattn.part"]
    others = [tmp_path / ".thesis.chapter1.part", folder / ".mine.json.abcdefgh.npattn.part"]
    for path in (*ours, *others):
        path.write_text("half")
    (folder / "se-seed0.json").write_text(json.dumps(record()))
    assert ablate(tmp_path, only=["se"], seeds=1, settings=FEW)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("name", ["ablation.md", "ablation.json", "ablation.png"])
def test_a_folder_where_a_report_is_to_be_put(tmp_path, monkeypatch, name: str):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(trainings_module, "one_training", lambda *given: pytest.fail("it began to train"))
    with pytest.raises(AblationError, match=f"{name}: expected a file, or nothing yet, got a folder"):
        ablate(tmp_path, only=["none"], seeds=1, settings=FEW)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs")
def test_a_record_that_is_a_fifo(tmp_path):
    (tmp_path / "trainings").mkdir()
    os.mkfifo(tmp_path / "trainings" / "se-seed0.json")
    with pytest.raises(AblationError, match=r"se-seed0.json: holds no finished training .*a FIFO"):
        ablate(tmp_path, only=["se"], seeds=1, settings=FEW)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"settings": {}}, TypeError, r"settings: expected a Settings or None, got \{\}"),
        ({"settings": 0}, TypeError, "settings: expected a Settings or None, got 0"),
        ({"settings": ""}, TypeError, "settings: expected a Settings or None, got ''"),
        ({"only": "se"}, TypeError, "only: expected a list of names, or None, got 'se'"),
        ({"only": 0}, TypeError, "only: expected a list of names, or None, got 0"),
        ({"only": []}, AblationError, "only: expected at least one name, or None for all, got none"),
        ({"only": ["se", 5]}, TypeError, r"only\[1\]: expected a name, got 5"),
        ({"seeds": True}, TypeError, "seeds: expected a whole number, got True"),
        ({"seeds": 2.0}, TypeError, "seeds: expected a whole number, got 2.0"),
        ({"seeds": NAN}, TypeError, "seeds: expected a whole number, got nan"),
        ({"seeds": 10**9}, ValueError, "seeds: expected a whole number of at most 1000, got 1000000000"),
        ({"jobs": "2"}, TypeError, "jobs: expected a whole number, got '2'"),
        ({"jobs": 10**6}, ValueError, "jobs: expected a whole number of at most 256, got 1000000"),
        ({"tell": None}, TypeError, "tell: expected a function, got None"),
        ({"out": ""}, ValueError, "out: expected a path"),
        ({"out": 5}, TypeError, "out: expected a path"),
        ({"out": "a\0"}, ValueError, "out: expected a path"),
    ],
)
def test_what_ablate_is_called_with(tmp_path, monkeypatch, arguments, error, message: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainings_module, "one_training", lambda *given: pytest.fail("it began to train"))
    with pytest.raises(error, match=message):
        ablate(**{"out": "a", "only": ["none"], "seeds": 1, "settings": FEW, **arguments})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["digits", "epochs", "batch_size", "test_digits"])
@pytest.mark.parametrize("bad", [0, -1, 10**7, True, 2.0, NAN, INF, "2", None])
def test_settings_that_are_none(name: str, bad):
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected a whole number"):
        Settings(**{name: bad})


def test_settings_are_plain():
    settings = Settings(np.int64(100), np.int32(1), np.uint8(32), np.int64(50))
    assert [type(value) for value in asdict(settings).values()] == [int] * 4
    assert json.loads(json.dumps(asdict(settings))) == {"digits": 100, "epochs": 1, "batch_size": 32, "test_digits": 50}


def test_results_that_are_none():
    for given, message in (
        ({}, r"results: expected a list of dicts, got \{\}"),
        ("se", "results: expected a list of dicts, got 'se'"),
        ([5], r"results\[0\]: expected a dict, got 5"),
        ([{}], r"results\[0\]: expected row, seed, parameters, accuracy, seconds, got none for row, seed"),
        ([record(row="mine")], r"results\[0\]\['row'\]: expected one of .* got 'mine'"),
        ([record(row=5)], r"results\[0\]\['row'\]: expected a string, got 5"),
        ([record(seed=-1)], r"results\[0\]\['seed'\]: expected a whole number of at least 0"),
        (
            [record(), record(row="none"), record()],
            r"results\[2\]: expected each seed of a row once, got se with seed 0",
        ),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            summarised(given)
    assert summarised([]) == []


def test_a_summary_that_is_none():
    good = summarised([record()])
    assert "| 7 | 50.00 |" in table(good)
    assert table([]).count("\n") == 2
    for changes in (
        *({"mean": bad} for bad in (NAN, INF, -1, 2, "0.5", None)),
        *({"spread": bad} for bad in (NAN, "0.5")),
        *({"difference": bad, "uncertain": 0.1} for bad in (NAN, INF)),
        {"difference": 0.1, "uncertain": None},
        {"difference": 0.1, "uncertain": NAN},
        *({"accuracies": bad} for bad in ({}, [], None, {0: NAN})),
        *({"parameters": bad} for bad in (-1, True, NAN, "7")),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"^summary\[0\]\['({'|'.join(changes)})'\]"):
            table([{**good[0], **changes}])
    with pytest.raises(ValueError, match=r"summary\[0\]: expected row, group, .*, got none for mean"):
        table([{key: value for key, value in good[0].items() if key != "mean"}])
    for given in ({}, "row", [5], None):
        with pytest.raises(TypeError, match="summary"):
            table(given)
