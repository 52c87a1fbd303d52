"""The ablation: nothing is trained twice, nothing half is kept, and the table says what the trainings gave."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from npattn import ablation, cli, data, models
from npattn.ablation import AblationError, Row, Settings, ablate, rows, summarised, table
from npattn.ablation import trainings as trainings_module
from npattn.ablation.report import TABLE, write
from npattn.ablation.rows import BASELINES
from npattn.blocks import blocks

FEW = Settings(digits=64, epochs=1, batch_size=32, test_digits=50)


@pytest.fixture(scope="module")
def few() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:100] for file in files), "embedded 10,000")


@pytest.fixture
def tiny(few, monkeypatch):
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: few)
    return few


@pytest.fixture
def counted(monkeypatch) -> list[tuple[str, int]]:
    """Which trainings are really run."""
    run: list[tuple[str, int]] = []
    real = trainings_module.one_training

    def noted(row, seed, *rest):
        run.append((row.name, seed))
        return real(row, seed, *rest)

    monkeypatch.setattr(trainings_module, "one_training", noted)
    return run


def row_of(name: str) -> Row:
    (found,) = [row for row in rows() if row.name == name]
    return found


def test_rows_are_known_and_named_once():
    names = [row.name.lower() for row in rows()]
    assert len(set(names)) == len(names)
    assert len({trainings_module.file_of(Path(), row, 0) for row in rows()}) == len(names)
    assert not set(names) & {row.group.lower() for row in rows()}
    for row in rows():
        assert row.attention in models.attentions()
        assert row.model in models.NETWORKS
        assert row.what
    groups = [row.group for row in rows()]
    assert sum(one != other for one, other in itertools.pairwise(groups)) == len(set(groups)) - 1, "apart"


def test_every_block_and_form_in_a_group_is_a_row_under_its_own_name():
    """And nothing else is, but what they are compared with."""
    in_a_group = {entry.name: entry for entry in blocks().values() if entry.group}
    digits = {row.name: row for row in rows() if row.model == "digits"}
    assert digits.keys() == in_a_group.keys() | {"none", "conv"}
    assert digits.keys() >= {
        "none", "conv", "se", "channel", "spatial", "cbam", "concat", "psa", "eca", "squeeze", "conv-gate",
        "se-parallel", "cbam-spatial-first", "cbam-parallel", "cbam-residual", "channel-avg", "channel-max",
        "spatial-mean", "spatial-max", "se-r2", "se-r4", "se-r16", "spatial-k3",
    }  # fmt: skip
    for name, entry in in_a_group.items():
        assert digits[name] == Row(name, entry.group, entry.what, name)
    assert {row.name: row.attention for row in rows() if row.model == "se-resnet"} == {
        "resnet": "none",
        "se-resnet": "se",
    }
    assert {model: (row_of(name).model, row_of(name).attention) for model, name in BASELINES.items()} == {
        "digits": ("digits", "none"),
        "se-resnet": ("se-resnet", "none"),
    }


def test_it_trains_what_is_missing_and_nothing_else(tiny, counted, tmp_path):
    said = []
    assert ablate(
        tmp_path, only=["none", "se"], seeds=1, settings=FEW, tell=lambda done, line: said.append((done, line))
    )
    assert counted == [("none", 0), ("se", 0)]
    assert [done for done, _ in said] == [1, 2]
    counted.clear()
    assert ablate(tmp_path, only=["none", "se"], seeds=2, settings=FEW)
    assert counted == [("none", 1), ("se", 1)]
    counted.clear()
    os.remove(tmp_path / "trainings" / "se-seed0.json")
    assert ablate(tmp_path, only=["none", "se"], seeds=2, settings=FEW)
    assert counted == [("se", 0)]
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"trainings", "ablation.md", "ablation.json", "ablation.png"}
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert found["settings"] == {"digits": 64, "epochs": 1, "batch_size": 32, "test_digits": 50}
    assert [row["row"] for row in found["rows"]] == ["none", "se"]
    assert found["rows"][1]["parameters"] == models.digits("se").count()
    assert found["rows"][0]["gates"] == {"0": {}, "1": {}}
    statistics_of = found["rows"][1]["gates"]["1"]
    assert statistics_of.keys() == {"stage2.attention.channel", "stage3.attention.channel"}
    assert all(0 < gate["mean"] < 1 for gate in statistics_of.values())


def test_a_training_is_a_function_of_row_seed_and_settings(tiny, few):
    row = row_of("se")
    one, again, other = (ablation.trainings.one_training(row, seed, FEW, few) for seed in (0, 0, 1))
    assert one["test_loss"] == again["test_loss"] != other["test_loss"]
    shorter = ablation.trainings.one_training(row, 0, Settings(32, 1, 32, 50), few)
    assert shorter["test_loss"] != one["test_loss"]


def test_side_by_side_is_the_same(tmp_path):
    """Two processes, which read the digits themselves: the same numbers as here."""
    settings = Settings(16, 1, 16, 100)
    assert ablate(tmp_path / "two", only=["none", "se"], seeds=1, settings=settings, jobs=2)
    for name in ("none", "se"):
        found = json.loads((tmp_path / "two" / "trainings" / f"{name}-seed0.json").read_text())
        alone = trainings_module.one_training(row_of(name), 0, settings)
        assert found["accuracy"] == pytest.approx(alone["accuracy"], abs=0.011)  # threads may round otherwise


def test_interrupted_between_and_within(tiny, counted, tmp_path, monkeypatch):
    """What is finished stays; what is not leaves nothing; the files tell what is there."""
    real = trainings_module.one_training
    monkeypatch.setattr(
        trainings_module, "one_training", lambda row, seed, *rest: {} if row.name == "cbam" else real(row, seed, *rest)
    )
    assert not ablate(tmp_path, only=["none", "se", "cbam"], seeds=1, settings=FEW)
    assert [path.name for path in (tmp_path / "trainings").iterdir()] == ["none-seed0.json"]
    assert "no attention" in (tmp_path / "ablation.md").read_text(encoding="utf-8")
    monkeypatch.setattr(trainings_module, "one_training", real)
    assert ablate(tmp_path, only=["none", "se", "cbam"], seeds=1, settings=FEW)
    assert counted == [("none", 0), ("cbam", 0), ("se", 0)]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_at_the_end_of_a_training(tiny, counted, tmp_path, monkeypatch):
    """It comes while the last epoch is tested, when that run has nothing left to stop: the next one must not begin."""
    real = trainings_module.Quiet.end_epoch

    def late(self):
        signal.raise_signal(signal.SIGINT)
        real(self)

    monkeypatch.setattr(trainings_module.Quiet, "end_epoch", late)
    assert not ablate(tmp_path, only=["none", "se"], seeds=1, settings=FEW)
    assert counted == [("none", 0)]
    assert [path.name for path in (tmp_path / "trainings").iterdir()] == ["none-seed0.json"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c(tmp_path):
    """The command itself: Ctrl-C ends it with 130, and given again it goes on."""
    command = [sys.executable, "-m", "npattn", "ablate", "--out", str(tmp_path), "--only", "none", "--digits", "32",
               "--epochs", "1", "--batch-size", "16", "--test-digits", "100", "--jobs", "1",
               "--seeds", "50"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("trainings/*.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted; the same command goes on" in out
    done = len(list(tmp_path.glob("trainings/*.json")))
    assert 1 <= done < 50
    assert not list(tmp_path.glob("trainings/.*")), "half a file"
    assert cli.main([*command[3:-1], str(done)]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "holds no finished training"),
        ("[]", "holds no finished training"),
        ('{"settings": {}}', "holds no finished training"),
        ('{"settings": {}, "accuracy": 0.5, "row": "none", "seed": 0}', "was trained with {}, not with"),
        (json.dumps({"settings": asdict(FEW), "accuracy": 0.5, "row": "se", "seed": 0}),
         "holds no finished training of none"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(tiny, counted, tmp_path, text: str, message: str):
    path = tmp_path / "trainings" / "none-seed0.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(AblationError) as caught:
        ablate(tmp_path, only=["none"], seeds=1, settings=FEW)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert not counted
    assert path.read_text() == text


def test_misuse(tiny, tmp_path, capsys):
    with pytest.raises(AblationError, match=r"only: expected rows or groups of them \(blocks; .*\), got what"):
        ablate(tmp_path / "a", only=["what"])
    with pytest.raises(AblationError, match="digits: expected at most 100, got 101"):
        ablate(tmp_path / "a", only=["none"], settings=Settings(101, test_digits=50))
    with pytest.raises(AblationError, match="test_digits: expected at most 100, got 10,000"):
        ablate(tmp_path / "a", only=["none"], settings=Settings(50))
    assert not (tmp_path / "a").exists()
    for bad, message in ((["--digits", "1"], "digits: expected"), (["--seeds", "0"], "seeds: expected"),
                         (["--epochs", "0"], "epochs: expected"), (["--jobs", "0"], "jobs: expected"),
                         (["--test-digits", "0"], "--test-digits: expected")):  # fmt: skip
        assert cli.main(["ablate", "--out", str(tmp_path / "a"), *bad]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["ablate", "--list", "--only", "poolings"]) == 0
    assert capsys.readouterr().out.count("\n") == 1 + sum(row.group == "poolings" for row in rows())


def results(accuracies: dict[str, list[float]]) -> list[dict]:
    return [
        {"row": name, "seed": seed, "accuracy": value, "parameters": 7, "seconds": 1.0}
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_the_table_says_what_the_trainings_gave():
    rng = np.random.default_rng(0)
    none, se = rng.uniform(0.9, 1, 5).tolist(), rng.uniform(0.9, 1, 5).tolist()
    told = {row["row"]: row for row in summarised(results({"se": se, "none": none, "se-resnet": se}))}
    assert list(told) == ["none", "se", "se-resnet"]
    assert told["se"]["mean"] == pytest.approx(np.mean(se))
    assert told["se"]["spread"] == pytest.approx(np.std(se, ddof=1))
    from scipy.stats import ttest_rel

    test = ttest_rel(se, none)
    low, high = test.confidence_interval(0.95)
    assert told["se"]["difference"] == pytest.approx(np.mean(se) - np.mean(none))
    assert told["se"]["difference"] - told["se"]["uncertain"] == pytest.approx(low)
    assert told["se"]["difference"] + told["se"]["uncertain"] == pytest.approx(high)
    assert told["none"]["difference"] is None
    assert told["se-resnet"]["difference"] is None, "its baseline is not there"

    printed = table(list(told.values()))
    assert f"| {100 * statistics.fmean(se):.2f} | {100 * statistics.stdev(se):.2f} |" in printed
    assert f"{100 * min(none):.2f} – {100 * max(none):.2f}" in printed
    assert all(line.count("|") == 8 for line in printed.splitlines())


def test_the_numbers_are_explained_beneath_the_table(tmp_path):
    from scipy.stats import t

    assert t.ppf(0.975, 1) == pytest.approx(12.7, abs=0.01)
    assert t.ppf(0.975, 1000) == pytest.approx(2, abs=0.04)
    for seeds, words, others in (
        ([0.5], ["One seed"], ["±", "Spread"]),
        ([0.5, 0.6], ["Spread", "±", "From two seeds"], ["One seed"]),
        ([0.5, 0.6, 0.7], ["Spread", "±"], ["One seed", "From two seeds"]),
    ):
        write(tmp_path, results({"none": seeds, "se": seeds}), Settings())
        text = (tmp_path / TABLE).read_text(encoding="utf-8")
        assert all(word in text.rsplit("|", 1)[1] for word in words)
        assert not any(word in text.rsplit("|", 1)[1] for word in others)


def test_one_seed_has_no_spread():
    (row,) = summarised(results({"none": [0.5]}))
    assert row["spread"] is None
    assert "| 50.00 |  | 50.00 – 50.00 |" in table([row])


def test_pairs_are_by_seed():
    """A row with fewer seeds is compared with the baseline's same seeds only."""
    given = results({"none": [0.1, 0.2, 0.3]}) + [
        {"row": "se", "seed": seed, "accuracy": 0.5, "parameters": 7, "seconds": 1.0} for seed in (1, 2, 9)
    ]
    told = summarised(given)[1]
    assert told["difference"] == pytest.approx((0.3 + 0.2) / 2)
    assert list(told["accuracies"]) == [1, 2, 9]
