"""A finished run that is resumed: it says that it is finished, or goes on for more epochs, to the same bits always."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import cli, data
from npattn.optimizer import one_cycle
from npattn.training import TrainConfig, load_model
from npattn.training.run import Run


@pytest.fixture(scope="module")
def few() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:64] for file in files), "embedded 10,000")


@pytest.fixture(autouse=True)
def quick(few, monkeypatch) -> None:
    monkeypatch.setattr(data, "load", lambda *args, **options: few)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda *args: None)


def finished(out: Path, epochs: int = 1) -> Path:
    """The folder of a run of so many epochs."""
    npattn.train(TrainConfig(epochs=epochs, batch_size=16, processes=1, out=str(out)), progress=False)
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_model(folder).state_dict()


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_a_finished_run_says_so(tmp_path, capsys):
    out = finished(tmp_path / "run")
    before = weights(out)
    for more in ([], ["--epochs", "1"]):
        assert cli.main(["train", "--resume", str(out), *more]) == 0
        shown = capsys.readouterr().out
        assert "this run is finished, after 1 epoch; it goes on with epochs (--epochs N), N > 1\n" in shown
        assert "training on" not in shown
        assert same(weights(out), before)


def test_more_epochs_go_on(tmp_path, capsys):
    out = finished(tmp_path / "run")
    assert cli.main(["train", "--resume", str(out), "--epochs", "3"]) == 0
    shown = capsys.readouterr().out
    assert "3 epochs of batches of 16, seed 0, 1 process, from epoch 2" in " ".join(shown.split())
    result = npattn.train(resume=out, progress=False)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert result.history[1]["rate"] == pytest.approx(one_cycle(8, 12, 0.01)), "as in a run of three from the start"


def test_an_interruption_changes_no_bit_of_it(tmp_path, monkeypatch):
    whole, broken = finished(tmp_path / "whole"), finished(tmp_path / "broken")
    npattn.train(resume=whole, epochs=3, progress=False)
    steps, step = [], Run.step

    def few_steps(run: Run, order: np.ndarray) -> None:
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        step(run, order)

    monkeypatch.setattr(Run, "step", few_steps)
    with pytest.raises(KeyboardInterrupt):
        npattn.train(resume=broken, epochs=3, progress=False)
    monkeypatch.setattr(Run, "step", step)
    npattn.train(resume=broken, progress=False)  # its folder knows that there are three
    assert same(weights(whole), weights(broken))


def test_fewer_are_refused(tmp_path, capsys):
    out = finished(tmp_path / "run", epochs=2)
    before = weights(out)
    with pytest.raises(ValueError, match=r"epochs: expected at least 2, which the run in .* has, got 1"):
        npattn.train(resume=out, epochs=1, progress=False)
    assert cli.main(["train", "--resume", str(out), "--epochs", "1"]) == 2
    assert capsys.readouterr().err.startswith("npattn: --epochs: expected at least 2")
    assert cli.main(["train", "--resume", str(out), "--epochs", "0"]) == 2
    assert same(weights(out), before)
    with pytest.raises(TypeError, match="epochs: expected with resume only"):
        npattn.train(TrainConfig(epochs=1), epochs=2)
