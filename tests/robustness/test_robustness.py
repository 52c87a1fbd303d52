"""A run that is killed, fills the disk, or meets NaN; and the commands that ask thousands of times, asked briefly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import checkpoint, cli, data, files, training
from npattn.checkpoint import CheckpointError
from npattn.training import Run, TrainConfig, TrainingError


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    parts = [data.read(data.EMBEDDED, file)[:64] for file in (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)]
    return data.Digits(*parts, *parts, "embedded 10,000")


@pytest.fixture
def few(digits, monkeypatch) -> data.Digits:
    """Training sees 64 digits, four steps an epoch, and draws no figures."""
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: digits)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    return digits


def config(out: Path, **settings) -> TrainConfig:
    few = {"epochs": 2, "batch_size": 16, "save_every": 1, "attention": "se", "processes": 1, "out": out}
    return TrainConfig(**{**few, **settings})


def stands(out: Path) -> tuple[int, int]:
    """Epoch and step of a run's checkpoint, which must be whole."""
    _, state, _, _, _ = training.restored(out)
    return state.epoch, state.step


# Killed


def test_killed_and_resumed():
    done = command("-m", "tests.training.kill_and_resume", "--kills", "3")
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"3 kills of (\d) runs \(1 moment, 1 seen, 1 inside; seed 0\)\n(.*\n)*\1 of \1 runs ended in the same bits",
        done.stdout,
    )


def test_a_checkpoint_before_the_first_step_and_within_an_epoch(few, tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save

    def noted(path, arrays, meta):
        save(path, arrays, meta)
        saved.append(stands(path.parent))

    monkeypatch.setattr(checkpoint, "save", noted)
    npattn.train(config(tmp_path / "run", save_every=3), progress=False)
    assert saved == [(0, 0), (0, 3), (1, 0), (1, 3), (2, 0)]


def test_it_plays_no_part_how_often_one_saves(few, tmp_path):
    runs = [npattn.train(config(tmp_path / str(n), epochs=1, save_every=n), progress=False) for n in (1, 100)]
    one, other = (run.model.state_dict() for run in runs)
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def test_metrics_that_a_kill_left_behind_are_written_again(few, tmp_path):
    """Killed between the last checkpoint and its metrics: resuming has nothing to train, but puts them right."""
    out = npattn.train(config(tmp_path / "run", epochs=1), progress=False).out
    (out / training.METRICS).unlink()
    (out / ".checkpoint.npz.abcdefgh.npattn.part").write_bytes(b"half a che")
    npattn.train(resume=out, progress=False)
    assert {path.name for path in out.iterdir()} == {"checkpoint.npz", "metrics.json"}


def test_resuming_says_where_it_goes_on(few, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 3, set_weight("head.bias", np.nan))
    with pytest.raises(TrainingError):
        npattn.train(config(tmp_path / "run", epochs=1), progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: few)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    assert cli.main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "going on in epoch 1, after step 3 of 4\nepoch 1/1 " in capsys.readouterr().out


def test_one_process_at_a_time_in_a_folder(few, tmp_path):
    out = npattn.train(config(tmp_path / "run", epochs=1), progress=False).out
    with files.alone(out), pytest.raises(TrainingError, match="another process is training in this folder"):
        npattn.train(resume=out, progress=False)
    npattn.train(resume=out, progress=False)


def test_a_position_that_cannot_be(few, tmp_path):
    out = npattn.train(config(tmp_path / "run", epochs=1), progress=False).out
    arrays, meta = checkpoint.load(out / training.CHECKPOINT)
    meta = {key: value for key, value in meta.items() if key not in ("format", "version")}
    checkpoint.save(out / training.CHECKPOINT, arrays, {**meta, "optimizer_steps": 3})
    with pytest.raises(CheckpointError, match="epoch 2, step 1, 0 digits and 3 updates do not go together"):
        npattn.train(resume=out, progress=False)
    for wrong in ({"epoch": -1}, {"loss": float("nan")}, {"history": {}}, {"step": True}, {"more": 1}):
        checkpoint.save(out / training.CHECKPOINT, arrays, {**meta, "state": meta["state"] | wrong})
        with pytest.raises(CheckpointError, match="does not hold a run of the demo"):
            npattn.train(resume=out, progress=False)
    poisoned = dict(arrays, **{"model.head.bias": arrays["model.head.bias"] * np.float32(np.nan)})
    checkpoint.save(out / training.CHECKPOINT, poisoned, meta)
    with pytest.raises(CheckpointError, match=r"model.head.bias: 10 of its 10 numbers are nan"):
        npattn.load_model(out)


# No space


LIMITED = """
import resource, sys
from npattn import checkpoint, cli
save, left = checkpoint.save, [3]
def limited(path, arrays, meta):
    left[0] -= 1
    if not left[0]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    save(path, arrays, meta)
checkpoint.save = limited
sys.exit(cli.main(["train", "--attention", "none", "--epochs", "1", "--save-every", "1", "--processes", "1",
                   "--out", sys.argv[1]]))
"""


def test_a_file_that_may_not_grow(tmp_path):
    """The third checkpoint finds no room: one line, status 1, and the second one is whole."""
    done = command("-c", LIMITED, str(tmp_path / "run"))
    assert done.returncode == 1
    assert done.stderr == (
        f"npattn: {tmp_path}/run/checkpoint.npz: cannot be written: File too large; "
        f"{tmp_path}/run/checkpoint.npz stands before epoch 1, step 2\n"
    )
    assert stands(tmp_path / "run") == (0, 1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.npz", "metrics.json"}


def test_no_room_for_the_metrics(few, tmp_path, monkeypatch, capsys):
    """The checkpoint is whole, the metrics are those of before."""

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("npattn.training.run.write_text", full)
    with pytest.raises(
        TrainingError, match=r"metrics.json: cannot be written: No space left on device; .* before epoch 1, step 1"
    ):
        npattn.train(config(tmp_path / "run"), progress=False)
    assert stands(tmp_path / "run") == (0, 0)


# NaN and infinity


def poison(monkeypatch, at: int, how) -> None:
    """Let `how(run)` do its harm before step `at`, from 0, is done."""
    step = Run.step

    def poisoned(run, order):
        if run.optimizer.steps == at:
            how(run)
        step(run, order)

    monkeypatch.setattr(Run, "step", poisoned)


def set_weight(name: str, number: float):
    def how(run):
        weight = run.model.params[name].copy()
        weight.reshape(-1)[3] = number
        run.model.params[name] = weight

    return how


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["stage1.conv.weight", "stage2.attention.fc.2.weight", "stage3.bn.bias", "head.weight"]
)
def test_a_poisoned_weight(few, tmp_path, monkeypatch, name: str, number: float):
    poison(monkeypatch, 5, set_weight(name, number))
    kind = "nan" if np.isnan(number) else "inf"
    with pytest.raises(TrainingError) as caught:
        npattn.train(config(tmp_path / "run"), progress=False)
    message = str(caught.value)
    assert message.startswith("epoch 2, step 2: ")
    assert f"it began in the parameter {name} of " in message
    assert f"numbers are {kind}" in message
    assert message.endswith("checkpoint.npz stands before epoch 2, step 2; a smaller lr may help")
    assert stands(tmp_path / "run") == (1, 1)


def test_a_poisoned_digit(few, tmp_path, monkeypatch):
    def spoilt(images):
        x = prepared(images)
        if len(x) == 16:
            x[5, 0, 7, 7:9] = np.nan
        return x

    prepared = training.prepared
    monkeypatch.setattr("npattn.training.batches.prepared", spoilt)
    with pytest.raises(TrainingError) as caught:
        npattn.train(config(tmp_path / "run"), progress=False)
    digit = np.random.default_rng((0, 0)).permutation(64)[5]
    assert f"epoch 1, step 1: the loss is nan; it began in training digit {digit}: 2 of its 784" in str(caught.value)


def test_a_loss_that_is_finite_hides_nothing(few, tmp_path, monkeypatch):
    """Batch norm makes numbers of 1e25 those of size 1 again: the loss is fine, its running variance is infinite."""
    scale = lambda run: run.model.params.update({"stage1.bn.weight": np.full(16, 1e25, np.float32)})  # noqa: E731
    poison(monkeypatch, 2, scale)
    with pytest.raises(
        TrainingError, match=r"it began in the forward of stage2.bn, BatchNorm2d\(32\): of its running_var"
    ):
        npattn.train(config(tmp_path / "run", attention="none"), progress=False)


def test_a_gradient_that_is_not_finite(few, tmp_path, monkeypatch):
    from npattn.ops.linear import Linear

    undo = Linear.undo

    def spoilt(layer, dy, cache):
        dx, grads = undo(layer, dy, cache)
        return dx, dict(grads, bias=grads["bias"] * np.float32(1e20) * np.float32(1e20))

    monkeypatch.setattr(Linear, "undo", spoilt)
    with pytest.raises(
        TrainingError, match=r"epoch 1, step 1: a number is not finite; it began in the backward of head, Linear"
    ):
        npattn.train(config(tmp_path / "run"), progress=False)
    assert stands(tmp_path / "run") == (0, 0)


def test_an_exploding_rate(few, tmp_path, capfd):
    """From the command: status 1, one line, no warnings, and a checkpoint from before."""
    assert (
        cli.main(["train", "--lr", "1e30", "--batch-size", "16", "--save-every", "1", "--out", str(tmp_path / "run")])
        == 1
    )
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("npattn: epoch 1, step 2: ")
    assert "it began in the forward of stage1.bn, BatchNorm2d(16): of its running_var 16 of its 16 numbers" in message
    assert stands(tmp_path / "run") == (0, 1)


def test_a_test_loss_that_is_not_finite(few, tmp_path, monkeypatch):
    monkeypatch.setattr("npattn.training.run.evaluate", lambda *rest: (float("nan"), 0.1, np.zeros((10, 10), int)))
    with pytest.raises(TrainingError, match="the loss of the test digits is nan"):
        npattn.train(config(tmp_path / "run"), progress=False)


# Threads

THREADS = """
import sys, npattn, numpy as np
from npattn import data, training
parts = [data.read(data.EMBEDDED, file)[:512] for file in (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)]
data.load = lambda *args, **options: data.Digits(*parts, *parts, "embedded 10,000")
training.start.write_figures = lambda run, confusion: None
fused = sys.argv[2] == "fused"
npattn.train(training.TrainConfig(epochs=1, batch_size=256, fused=fused, out=sys.argv[1]), progress=False)
"""


@pytest.mark.parametrize("path", ["fused", "textbook"])
def test_any_number_of_threads_gives_the_same_bits(tmp_path, path: str):
    """Ours and BLAS's, one and two of them."""
    runs = []
    for ours, blas in ((1, 1), (2, 2)):
        out = tmp_path / f"{ours}{blas}"
        threads = {"NPATTN_NUM_THREADS": str(ours), "OPENBLAS_NUM_THREADS": str(blas), "MKL_NUM_THREADS": str(blas)}
        done = command("-c", THREADS, str(out), path, **threads)
        assert done.returncode == 0, done.stderr
        runs.append(checkpoint.load(out / training.CHECKPOINT)[0])
    assert all(runs[0][key].tobytes() == runs[1][key].tobytes() for key in runs[0])


# Hostile bytes


def test_thousands_of_inputs():
    done = command("-m", "tests.robustness.fuzz", "--inputs", "3000", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" taken ") >= 12  # one more where torch is installed
    assert re.search(r"3,\d{3} inputs in one piece, seed 7: no finding\n$", done.stdout)


def test_a_header_that_claims_two_billion_images_allocates_nothing():
    import tracemalloc

    raw = b"\0\0\x08\x03" + (2**31).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2 + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(data.DataError, match=r"its header says \(2147483648, 28, 28\), 1,683,627,180,032 bytes"):
            data.parse_idx(raw, "a file")
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_an_empty_array_that_no_array_can_be():
    with pytest.raises(data.DataError, match="which no array can have"):
        data.parse_idx(b"\0\0\x08\x03" + bytes(4) + b"\xff" * 8, "a file")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": 10**400}, ValueError, "lr: expected a finite number"),
        ({"lr": "0.1"}, TypeError, "lr: expected a number, got '0.1'"),
        ({"decay": True}, TypeError, "decay: expected a number, got True"),
        ({"epochs": 10**400}, ValueError, "epochs: expected a whole number of at most 1000000"),
        ({"batch_size": 10**9}, ValueError, "batch_size: expected a whole number of at most 60000"),
        ({"seed": 2**63}, ValueError, "seed: expected a whole number of at most"),
        ({"save_every": 0}, ValueError, "save_every: expected a whole number of at least 1"),
        ({"fused": "no"}, TypeError, "fused: expected True or False, got 'no'"),
        ({"out": 5}, TypeError, "out: expected a path or None, got 5"),
        ({"data_dir": "a\0b"}, ValueError, "data_dir: expected a path"),
    ],
)
def test_settings_that_a_checkpoint_may_claim(settings, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**settings)


def test_a_config_is_plain(tmp_path):
    """Paths and NumPy's numbers are welcome, and a checkpoint can hold what becomes of them."""
    plain = TrainConfig(out=tmp_path, epochs=np.int64(3), lr=np.float32(0.5))
    assert (plain.out, plain.epochs, plain.lr) == (str(tmp_path), 3, 0.5)
    assert [type(value) for value in (plain.out, plain.epochs, plain.lr)] == [str, int, float]


def test_values_that_a_layer_cannot_hold():
    layer = npattn.Linear(2, 1, bias=False)
    with pytest.raises(ValueError, match=r"state\['weight'\]: expected numbers that float32 can hold, got 1e\+300"):
        layer.load_state_dict({"weight": np.array([[1.0, 1e300]])})
    with pytest.raises(TypeError, match=r"state\['weight'\]: expected dtype float32 or float64, got complex128"):
        layer.load_state_dict({"weight": np.array([[1.0, 1j]])})
    layer.load_state_dict({"weight": np.array([[1.0, np.inf]])})  # what is infinite already stays so


def test_nothing_is_connected_to_at_import():
    code = """
import sys
sys.addaudithook(lambda event, args: event.startswith("socket.") and sys.exit(f"{event} {args}"))
import npattn, importlib.util, pkgutil
for module in pkgutil.walk_packages(npattn.__path__, "npattn."):
    if not module.name.endswith("__main__") and (module.name != "npattn.torch" or importlib.util.find_spec("torch")):
        importlib.import_module(module.name)
npattn.data.load()
print("all imported")
"""
    done = command("-c", code, NPATTN_DATA="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all imported\n"
