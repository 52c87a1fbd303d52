"""The demo: it learns, gives the same numbers again, goes on after an interruption, and says what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import npattn
from npattn import cli, data, models
from npattn.checkpoint import CheckpointError
from npattn.explain import figures
from npattn.training import Run, TrainConfig, TrainingError, evaluate, jittered, load_model, prepared


@pytest.fixture(scope="module")
def few() -> data.Digits:
    """A few hundred digits to train on and to test with."""
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:400] for file in files), "embedded 10,000")


@pytest.fixture
def tiny(few, monkeypatch):
    """Training sees the few digits only."""
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: few)
    return few


@pytest.fixture
def no_figures(monkeypatch):
    """Figures are drawn in other tests; here they would only take time."""
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)


def config(tmp_path, **settings) -> TrainConfig:
    """Of a short run in one process, which needs no time to start others; tests/training/test_team.py has those."""
    settings = {"epochs": 2, "batch_size": 64, "processes": 1, "out": str(tmp_path / "run"), **settings}
    return TrainConfig(**settings)


def weights(model) -> dict[str, np.ndarray]:
    return {key: np.array(value) for key, value in model.state_dict().items()}


def same(one, other) -> bool:
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


WHOLE = (
    "none", "se", "channel", "spatial", "cbam", "concat", "psa", "eca", "squeeze", "conv", "conv-gate", "se-parallel",
)  # fmt: skip


@pytest.mark.parametrize("attention", WHOLE)
def test_every_attention_trains_and_writes_its_files(tiny, tmp_path, attention: str):
    result = npattn.train(config(tmp_path, attention=attention, epochs=1), progress=False)
    written = {path.name for path in result.out.iterdir()}
    attends = attention not in ("none", "conv")
    drawn = attends and attention not in ("psa", "conv-gate")  # their weights are no gates of a channel or a pixel
    pictures = {"curves.png", "confusion.png"} | ({"gates.png"} if attends else set())
    pictures |= {"attention.png"} if drawn else set()
    assert written == {"metrics.json", "checkpoint.npz"} | pictures
    for name in pictures:
        assert (result.out / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((result.out / "metrics.json").read_text())
    assert metrics["config"]["attention"] == attention
    assert metrics["finished"] is True
    assert metrics["seed"] == 0
    assert metrics["test_accuracy"] == result.accuracy == result.history[-1]["test_accuracy"]
    assert metrics["parameters"] == result.model.count()
    assert result.model.count() < (110_000 if attention in ("psa", "conv", "conv-gate") else 70_000)
    assert metrics["versions"]["numpy"] == np.__version__
    assert len(metrics["epochs"]) == 1
    assert metrics["epochs"][0].keys() == {
        "epoch", "loss", "accuracy", "test_loss", "test_accuracy", "rate", "seconds",
        *(["gates"] if attends else []),
    }  # fmt: skip
    if attends:
        gates = metrics["epochs"][0]["gates"]
        assert gates.keys() == result.model.attention.keys()
        assert attention in ("psa", "squeeze") or all(0.05 < numbers["mean"] < 0.95 for numbers in gates.values())
    assert result.confusion.sum() == len(tiny.test_labels)
    assert result.confusion.sum(axis=1).tolist() == np.bincount(tiny.test_labels, minlength=10).tolist()
    assert same(load_model(result.out), result.model)


@pytest.mark.parametrize("attention", [None, "none", "cbam"])
def test_the_residual_network_trains_and_goes_on(tiny, tmp_path, monkeypatch, attention):
    settings = {"model": "se-resnet", "attention": attention, "batch_size": 100}
    whole = npattn.train(config(tmp_path, out=str(tmp_path / "whole"), **settings), progress=False)
    metrics = json.loads((whole.out / "metrics.json").read_text())
    assert metrics["config"]["model"] == "se-resnet"
    assert metrics["config"]["attention"] == (attention or "se")
    assert metrics["paths"] == ["fused", "textbook"]  # also those inside of the units
    assert (whole.out / "gates.png").exists() == (attention != "none")
    assert same(load_model(whole.out), whole.model)

    step, done = Run.step, []

    def interrupted_step(run, order):
        step(run, order)
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "step", interrupted_step)
    first = npattn.train(config(tmp_path, **settings), progress=False)
    assert not first.finished
    assert same(npattn.train(resume=first.out, progress=False).model, whole.model)


def test_a_checkpoint_from_before_there_were_models(tiny, no_figures, tmp_path):
    """It has no `model` in its config and no gates in its history: it is of the digits' network, and goes on."""
    from npattn import checkpoint

    whole = npattn.train(config(tmp_path, out=str(tmp_path / "whole")), progress=False)
    old = npattn.train(config(tmp_path, epochs=1), progress=False)
    arrays, meta = checkpoint.load(old.out / "checkpoint.npz")
    del meta["config"]["model"], meta["format"], meta["version"]
    for row in meta["state"]["history"]:
        del row["gates"]
    checkpoint.save(old.out / "checkpoint.npz", arrays, meta)
    assert same(load_model(old.out), old.model)
    assert figures.gates(npattn.train(resume=old.out, progress=False).history, tmp_path / "gates.png") is False
    meta["config"]["epochs"], meta["state"]["epoch"] = 2, 1
    checkpoint.save(old.out / "checkpoint.npz", arrays, meta)
    gone_on = npattn.train(resume=old.out, progress=False)
    assert [("gates" in row) for row in gone_on.history] == [False, True]
    assert figures.gates(gone_on.history, tmp_path / "gates.png") is True
    assert whole.history[1].keys() == gone_on.history[1].keys()


def test_the_names_of_earlier_checkpoints_are_still_there():
    """What a config may say, and the keys of its weights: CBAM's are the article's."""
    assert set(models.attentions()) >= {
        "none", "se", "channel", "spatial", "cbam", "concat", "psa", "squeeze", "conv", "conv-gate", "se-parallel",
        "se-r2", "se-r4", "se-r16", "channel-avg", "channel-max", "spatial-mean", "spatial-max", "spatial-k3",
        "cbam-spatial-first", "cbam-parallel", "cbam-residual",
    }  # fmt: skip
    both = ("ca.fc1.weight", "ca.fc2.weight", "sa.conv1.weight")
    for name in ("cbam", "cbam-spatial-first", "cbam-parallel", "cbam-residual"):
        keys = [key for key in models.digits(name).state_dict() if ".attention." in key]
        assert keys == [f"stage{i}.attention.{key}" for i in (2, 3) for key in both]
    for name in ("channel", "channel-avg", "spatial", "spatial-mean", "concat"):  # Gated keeps the keys of its gate
        keys = {key.rpartition("attention.")[2] for key in models.digits(name).state_dict() if ".attention." in key}
        assert keys == ({"conv1.weight"} if name.startswith("spatial") else {"fc1.weight", "fc2.weight"})


@pytest.mark.parametrize("attention", models.attentions())
@pytest.mark.parametrize("network", models.NETWORKS)
def test_every_attention_takes_a_step(tiny, network: str, attention: str):
    """Every block and form, in both networks: forward, backward, and a gradient for every parameter."""
    model = models.NETWORKS[network].build(attention, rng=0)
    for value in model.params.values():
        if not np.any(value):  # at 0, as some begin, it shuts the way to others
            value += np.float32(0.1)
    scores = model(prepared(tiny.train_images[:8]))
    assert scores.shape == (8, 10)
    model.backward(np.ones_like(scores) - 2 * np.eye(8, 10, dtype=scores.dtype))
    assert model.grads.keys() == model.params.keys()
    assert all(np.any(model.grads[key] != 0) for key in model.params), "a parameter without a gradient"


@pytest.mark.parametrize("network", models.NETWORKS)
def test_what_changes_the_shape_is_refused_by_name(monkeypatch, network: str):
    """Of no block by its name, but an entry of one's own may: the layer behind it would complain of its x."""
    strided = models.blocks()["selective-kernel"]._replace(name="strided", arguments={"stride": 2})
    monkeypatch.setattr(models, "blocks", lambda: {"strided": strided})
    monkeypatch.setattr(models, "canonical", lambda name: name)
    with pytest.raises(ValueError, match=r"^attention: expected a block that gives the shape.*got strided"):
        models.NETWORKS[network].build("strided", rng=0)


@pytest.mark.parametrize("attention", models.attentions())
@pytest.mark.parametrize("network", models.NETWORKS)
def test_the_command_trains_with_every_attention(few, no_figures, tmp_path, monkeypatch, capsys, network, attention):
    """`npattn train --attention NAME`: one step of eight digits, from the arguments to the metrics."""
    eight = data.Digits(*(part[:8] for part in few[:4]), few.source)
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: eight)
    argv = ["train", "--model", network, "--attention", attention, "--epochs", "1", "--batch-size", "8"]
    assert cli.main([*argv, "--processes", "1", "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["finished"] is True
    assert metrics["config"]["attention"] == attention
    assert metrics["parameters"] == models.NETWORKS[network].build(attention).count()


def test_it_learns(tiny, no_figures, tmp_path):
    result = npattn.train(config(tmp_path, epochs=8, batch_size=32, shift=1, turn=0, zoom=0), progress=False)
    assert result.history[0]["loss"] > 2 * result.history[-1]["loss"]
    assert result.accuracy > 0.8
    loss, accuracy, _ = evaluate(load_model(result.out), tiny.test_images, tiny.test_labels)
    assert accuracy == result.accuracy
    assert loss == result.history[-1]["test_loss"]


def test_the_same_seed_gives_the_same_bits(tiny, no_figures, tmp_path):
    one = npattn.train(config(tmp_path, out=str(tmp_path / "one")), progress=False)
    two = npattn.train(config(tmp_path, out=str(tmp_path / "two")), progress=False)
    other = npattn.train(config(tmp_path, out=str(tmp_path / "other"), seed=1), progress=False)
    assert same(one.model, two.model)
    assert not same(one.model, other.model)
    assert ["test_loss" in row for row in one.history] == [False, True]
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history] for run in (one, two)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("after", [1, 7, 9])
def test_resuming_ends_in_the_same_bits(tiny, no_figures, tmp_path, monkeypatch, after: int):
    """Interrupted after 1, 7 (the epoch's last) or 9 steps of 14, and gone on with: as if nothing had happened."""
    whole = npattn.train(config(tmp_path, out=str(tmp_path / "whole")), progress=False)
    step, done = Run.step, []

    def interrupted_step(run, order):
        step(run, order)
        done.append(1)
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "step", interrupted_step)
    first = npattn.train(config(tmp_path), progress=False)
    assert not first.finished
    assert len(done) == after
    assert json.loads((first.out / "metrics.json").read_text())["finished"] is False
    second = npattn.train(resume=first.out, progress=False)
    assert second.finished
    assert len(done) == 14
    assert same(second.model, whole.model)
    assert [row["loss"] for row in second.history] == [row["loss"] for row in whole.history]
    third = npattn.train(resume=first.out, progress=False)  # nothing left to do
    assert len(done) == 14
    assert same(third.model, whole.model)


def test_ctrl_c_in_a_terminal(tmp_path):
    """The command, interrupted as a person would, with all its processes: it ends by itself, saved, with status 130."""
    command = [sys.executable, "-m", "npattn.cli", "train", "--epochs", "50", "--batch-size", "16"]
    run = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    while "training on" not in run.stdout.readline():
        pass
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to all of them
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "interrupted; what was learnt is saved: npattn train --resume" in out
    assert err == ""
    assert (tmp_path / "run" / "checkpoint.npz").exists()
    assert not list((tmp_path / "run").glob(".*")), "no half-written file is left"


def test_command_line(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["train", "--attention", "se", "--epochs", "1", "--batch-size", "100", "--lr", "0.02", "--seed", "3"]
    assert cli.main([*argv, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "SELayer(32, reduction=8)" in shown
    assert "training on the embedded 10,000 digits, 1 epoch of batches of 100, seed 3" in shown
    assert re.search(r"epoch 1/1 +\d+\.\d s  loss \d\.\d{4}  accuracy \d+\.\d\d%  test \d+\.\d\d%", shown)
    settings = json.loads((out / "metrics.json").read_text())["config"]
    assert (settings["attention"], settings["batch_size"], settings["lr"], settings["seed"]) == ("se", 100, 0.02, 3)

    assert cli.main([*argv, "--out", str(out)]) == 1
    assert "holds the results of another run" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(out), "--lr", "0.5", "--textbook"]) == 2
    assert "leave out --lr, --textbook" in capsys.readouterr().err
    assert cli.main(["train", "--resume", str(tmp_path / "none")]) == 1
    assert "checkpoint.npz: cannot be read: No such file" in capsys.readouterr().err
    assert cli.main(["train", "--epochs", "0"]) == 2
    assert "npattn: --epochs: expected a whole number of at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "--attention", "magic"])
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])


def test_a_broken_data_file_is_named(tmp_path, capsys):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnonsense")
    assert cli.main(["train", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "train-images-idx3-ubyte.gz: altered: its gzip stream is broken" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "nothing is begun before the digits are known to be right"


def test_a_new_folder_each_time(tiny, no_figures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20200101-000000")
    outs = [npattn.train(TrainConfig(epochs=1, attention="none"), progress=False).out for _ in range(2)]
    assert [str(out) for out in outs] == [
        "runs/20200101-000000-none-seed0",
        "runs/20200101-000000-none-seed0-2",
    ]


def test_a_loss_that_is_no_number_stops_the_run(tiny, tmp_path):
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"epoch 1, step \d+: the loss is (nan|inf)"):
        npattn.train(config(tmp_path, lr=1e30), progress=False)


def test_a_checkpoint_of_something_else(tiny, tmp_path):
    from npattn import checkpoint

    checkpoint.save(tmp_path / "checkpoint.npz", {"a": np.zeros(3)}, {"config": {"attention": "none"}})
    with pytest.raises(CheckpointError, match="does not hold a run of the demo"):
        load_model(tmp_path)


def test_resuming_asks_for_the_same_digits(tiny, no_figures, tmp_path, monkeypatch):
    result = npattn.train(config(tmp_path, epochs=1), progress=False)
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: tiny._replace(source="full 60,000"))
    with pytest.raises(TrainingError, match="trained on the embedded 10,000 digits, but here are the full 60,000"):
        npattn.train(resume=result.out, progress=False)
    with pytest.raises(TrainingError, match="a run is resumed with its own config"):
        npattn.train(config(tmp_path), resume=result.out)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"attention": "magic"},
            ValueError,
            "attention: expected one of 'none', .*'cbam', .*, 'conv', got 'magic'",
        ),
        ({"model": "vgg"}, ValueError, "model: expected one of 'digits', 'se-resnet', got 'vgg'"),
        ({"epochs": 1.5}, TypeError, "epochs: expected a whole number, got 1.5"),
        ({"batch_size": 1}, ValueError, "batch_size: expected a whole number of at least 2, got 1"),
        ({"lr": 0}, ValueError, "lr: expected a learning rate above 0"),
        ({"lr": float("nan")}, ValueError, "lr: expected a finite number"),
        ({"seed": -1}, ValueError, "seed: expected a whole number of at least 0"),
        ({"shift": 14.5}, ValueError, "shift: expected a finite number from 0 to 14, got 14.5"),
        ({"zoom": 1}, ValueError, "zoom: expected a finite number from 0 to 0.9, got 1.0"),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**settings)


def test_without_matplotlib_it_says_so_at_once(tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    with pytest.raises(TrainingError, match=r'training needs matplotlib: pip install "npattn\[demo\]"'):
        npattn.train(config(tmp_path))
    assert not (tmp_path / "run").exists()


def test_jittered_moves_within_its_bounds():
    """A blob's centre of mass tells where each image went."""
    rows, cols = np.mgrid[:28, :28]
    blob = (200 * np.exp(-((rows - 13.5) ** 2 + (cols - 13.5) ** 2) / 8)).astype(np.uint8)
    moved = jittered(np.stack([blob] * 300), 2, 0, 0, np.random.default_rng(0))
    assert moved.dtype == np.float32
    for axis in (rows, cols):
        centre = (moved * axis).sum(axis=(1, 2)) / moved.sum(axis=(1, 2)) - 13.5
        assert np.abs(centre).max() < 2.05
        assert centre.min() < -1.8
        assert centre.max() > 1.8
    ink = jittered(np.stack([blob] * 300), 0, 0, 0.1, np.random.default_rng(0)).sum(axis=(1, 2)) / blob.sum()
    assert 0.8 < ink.min() < 0.84  # 0.9²
    assert 1.18 < ink.max() < 1.23  # 1.1²


def test_jittered_turns():
    """A bar turned by up to 10 degrees: 10 pixels from the middle it moves by up to 1.74 sideways."""
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 13:15] = 255
    moved = jittered(np.stack([bar] * 300), 0, 10, 0, np.random.default_rng(0))
    sideways = (moved[:, 3:5] * np.arange(28)).sum(axis=(1, 2)) / moved[:, 3:5].sum(axis=(1, 2)) - 13.5
    assert 1.6 < sideways.max() < 1.85
    assert -1.85 < sideways.min() < -1.6


def test_jittered_by_nothing():
    images = data.read(data.EMBEDDED, data.SOME_TRAIN_IMAGES)[:5]
    np.testing.assert_array_equal(jittered(images, 0, 0, 0, np.random.default_rng(0)), images)


def test_prepared_has_mean_0_and_spread_1():
    x = prepared(data.read(data.EMBEDDED, data.SOME_TRAIN_IMAGES))
    assert x.shape == (10000, 1, 28, 28)
    assert x.dtype == np.float32
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
