"""A run's folder may come from anybody: what it says is checked before the first step, and starts nothing unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npattn
from npattn import checkpoint, cli, data, models, training
from npattn.backend import DeviceError
from npattn.checkpoint import CheckpointError
from npattn.commands import train as commands
from npattn.data import DataError
from npattn.layer import Layer
from npattn.training import Run, TrainConfig, TrainingError, folder, resume
from tests.support.absent import absent


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)
    parts = [data.read(data.EMBEDDED, file)[:64] for file in files]
    return data.Digits(*parts, *parts, "embedded 10,000")


@pytest.fixture
def asked(digits, monkeypatch) -> list[tuple[Any, bool]]:
    """Which digits are asked for, (data_dir, download); all get the same 64. No figures are drawn."""
    calls: list[tuple[Any, bool]] = []

    def load(data_dir=None, download=False):
        calls.append((data_dir, download))
        return digits

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    monkeypatch.delenv("NPATTN_DATA", raising=False)
    return calls


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory) -> Path:
    """The folder of a run of two epochs of four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda data_dir=None, download=False: digits)
        patch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
        out = tmp_path_factory.mktemp("finished") / "run"
        npattn.train(TrainConfig(epochs=2, batch_size=16, processes=1, test_every=1, out=out), progress=False)
    return out


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """A copy of it, to do harm to."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed(out: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> Path:
    """Let `change` have its way with meta and arrays of the checkpoint."""
    arrays, meta = checkpoint.load(out / folder.CHECKPOINT)
    change(meta, arrays)
    checkpoint.save(out / folder.CHECKPOINT, arrays, {k: v for k, v in meta.items() if k not in ("format", "version")})
    return out


def at(*keys: Any, value: Any) -> Callable[[dict[str, Any], Any], None]:
    """A change that sets one place of meta."""

    def change(meta: dict[str, Any], arrays: Any) -> None:
        inside: Any = meta
        for key in keys[:-1]:
            inside = inside[key]
        inside[keys[-1]] = value

    return change


NAN, INF = float("nan"), float("inf")
GATE = "stage2.attention.channel"
ROW = ("state", "history", 0)

WRONG = {
    "config: a list": at("config", value=[]),
    "config: null": at("config", value=None),
    "config: an unknown setting": at("config", "colour", value="red"),
    "config: an attention that is no text": at("config", "attention", value=["se"]),
    "config: a model that is a number": at("config", "model", value=5),
    "config: a rate that is nan": at("config", "lr", value=NAN),
    "config: a rate that is true": at("config", "lr", value=True),
    "config: fused is a text": at("config", "fused", value="no"),
    "config: download is a number": at("config", "download", value=1),
    "config: a device that there is not": at("config", "device", value="cuda:0"),
    "config: a device that is a list": at("config", "device", value=[]),
    "config: a hundred thousand processes": at("config", "processes", value=100_000),
    "config: processes are true": at("config", "processes", value=True),
    "config: epochs of before": at("config", "epochs", value=1),
    "config: epochs are infinite": at("config", "epochs", value=INF),
    "config: data_dir is a number": at("config", "data_dir", value=1),
    "config: data_dir is too long": at("config", "data_dir", value="a" * 10**6),
    "config: data_dir is half a character": at("config", "data_dir", value="\ud800"),
    "config: out is a list": at("config", "out", value=["a"]),
    "config: out is nothing": at("config", "out", value=""),
    "config: out has a null": at("config", "out", value="a\0"),
    "state: a list": at("state", value=[1]),
    "state: null": at("state", value=None),
    "state: a step that is a text": at("state", "step", value="1"),
    "state: a step that is huge": at("state", "step", value=10**30),
    "state: seconds are infinite": at("state", "seconds", value=INF),
    "state: seconds are negative": at("state", "seconds", value=-1),
    "state: a loss that is too large to add to": at("state", "loss", value=1e300),
    "history: null": at("state", "history", value=None),
    "history: numbers": at("state", "history", value=[1, 2]),
    "history: an epoch too many": lambda meta, _: meta["state"]["history"].append(meta["state"]["history"][0]),
    "history: epochs in another order": lambda meta, _: meta["state"]["history"].reverse(),
    "history: a row without its loss": lambda meta, _: meta["state"]["history"][0].pop("loss"),
    "history: a row tested by half": lambda meta, _: meta["state"]["history"][0].pop("test_loss"),
    "history: a row with more": at(*ROW, "more", value=1),
    "history: an epoch that is a text": at(*ROW, "epoch", value="1"),
    "history: a loss that is nan": at(*ROW, "loss", value=NAN),
    "history: a loss that is negative": at(*ROW, "loss", value=-1.0),
    "history: a loss that no figure can show": at(*ROW, "loss", value=1e308),
    "history: an accuracy above 1": at(*ROW, "accuracy", value=1.5),
    "history: a test accuracy that is nan": at(*ROW, "test_accuracy", value=NAN),
    "history: a test loss that is a text": at(*ROW, "test_loss", value="0.1"),
    "history: a rate that is a list": at(*ROW, "rate", value=[]),
    "gates: a list": at(*ROW, "gates", value=[]),
    "gates: none": at(*ROW, "gates", value={}),
    "gates: a formula": lambda meta, _: [row["gates"].update({"$\\frac{": row["gates"][GATE]})
                                         for row in meta["state"]["history"]],
    "gates: a name of another network": lambda meta, _: [row["gates"].update({"unit1.x": row["gates"].pop(GATE)})
                                                         for row in meta["state"]["history"]],
    "gates: one is missing": lambda meta, _: meta["state"]["history"][1]["gates"].pop(GATE),
    "gates: a hundred thousand": at(*ROW, "gates", value={str(i): {} for i in range(1000)}),
    "gates: no spread": lambda meta, _: [row["gates"][GATE].pop("spread") for row in meta["state"]["history"]],
    "gates: a spread that is nan": at(*ROW, "gates", GATE, "spread", value=NAN),
    "gates: a spread that is negative": at(*ROW, "gates", GATE, "spread", value=-0.1),
    "gates: a spread that is null": at(*ROW, "gates", GATE, "spread", value=None),
    "gates: a share above 1": at(*ROW, "gates", GATE, "half", value=2),
    "gates: one number more": at(*ROW, "gates", GATE, "more", value=0.5),
    "gates: numbers are a list": at(*ROW, "gates", GATE, value=[0.5]),
    "source: null": at("source", value=None),
    "source: a terminal's orders": at("source", value="\x1b[2J"),
    "source: a long one": at("source", value="a" * 10**6),
    "steps: a text": at("optimizer_steps", value="8"),
    "steps: true": at("optimizer_steps", value=True),
    "steps: none": lambda meta, _: meta.pop("optimizer_steps"),
    "arrays: a weight that is infinite": lambda _, arrays: arrays["model.head.weight"].fill(np.inf),
    "arrays: a moment that is negative": lambda _, arrays: arrays["optimizer.v.head.weight"].fill(-1),
    "arrays: one is of integers": lambda _, arrays: arrays.update({"model.head.bias": np.zeros(10, np.int64)}),
    "arrays: one is missing": lambda _, arrays: arrays.pop("optimizer.m.head.bias"),
    "arrays: one more": lambda _, arrays: arrays.update({"x\x1b[2J": np.zeros(3)}),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG)
def test_nothing_wrong_is_taken_over(asked, out, monkeypatch, capsys, how: str):
    """By Python and by the command: one line that names the file, and not a step, a process or a written file."""
    changed(out, WRONG[how])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(Run, "go", lambda run: pytest.fail("it began to train"))
    for door in (lambda: npattn.train(resume=out, progress=False), lambda: npattn.load_model(out)):
        with pytest.raises(CheckpointError) as caught:
            door()
        message = str(caught.value)
        assert message.startswith(f"{out / folder.CHECKPOINT}: does not hold a run of the demo: ")
        assert len(message) < 1000
        assert message.isprintable()
    for line in (["train", "--resume", str(out)], ["cam", str(out)]):
        assert cli.main(line) == 1
        shown = capsys.readouterr().err
        assert shown.startswith(f"npattn: {out}")
        assert shown.count("\n") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not asked


def test_untouched_it_goes_on(asked, out):
    """What is refused above is refused for its fault alone."""
    assert npattn.train(resume=changed(out, lambda meta, arrays: None), progress=False).finished
    assert npattn.load_model(out).params


@pytest.mark.parametrize("attention", models.attentions())
def test_the_gates_of_every_network_are_its_own(digits, attention: str):
    """The names that one digit tells on the textbook path are those that an epoch notes."""
    for name, network in models.NETWORKS.items():
        model = network.build(attention, rng=0).eval()
        with npattn.no_grad():
            model(training.prepared(digits.test_images[:3]))
        assert folder.gate_names(name, attention) == tuple(model.attention)
        assert bool(model.attention) == (attention not in ("none", "conv"))


# Positions


@pytest.mark.parametrize(
    "change",
    [
        at("state", "loss", value=3.0),
        at("state", "right", value=1),
        at("state", "seen", value=5),
        at("optimizer_steps", value=7),
        at("state", "step", value=1),
    ],
)
def test_a_position_that_cannot_be(asked, out, monkeypatch, change):
    changed(out, change)
    monkeypatch.setattr(Run, "go", lambda run: pytest.fail("it began to train"))
    with pytest.raises(CheckpointError, match="do not go together"):
        npattn.train(resume=out, progress=False)


def test_weights_that_are_finite_and_too_large(asked, out, capsys, recwarn):
    """They pass as numbers; what comes of them is none, and is not shown as a result."""
    changed(out, lambda meta, arrays: [arrays[f"model.{key}.weight"].fill(3e38) for key in ("head", "stage4.bn")])
    with pytest.raises(TrainingError, match=r"the loss of the test digits is (nan|inf); it began in"):
        npattn.train(resume=out, progress=False)
    assert cli.main(["cam", str(out), "--digits", "0"]) == 1
    shown = capsys.readouterr()
    assert "nan" not in shown.out
    assert shown.err.count("\n") == 1
    assert not recwarn.list


def test_gates_that_are_not_finite(asked, tmp_path, monkeypatch):
    """They would be a history that cannot be read again."""
    monkeypatch.setattr(Layer, "attention", property(lambda layer: {"a.b": np.full((2, 3), np.nan)}))
    settings = {"epochs": 2, "batch_size": 16, "processes": 1, "test_every": 2}
    with pytest.raises(TrainingError, match="epoch 1, step 5: after it the gates of the test digits are not finite"):
        npattn.train(TrainConfig(**settings, out=tmp_path / "run"), progress=False)
    assert training.restored(tmp_path / "run")[3].steps == 0


# What only this call can say


def test_it_fetches_nothing_unasked(asked, out, monkeypatch, tmp_path):
    """A checkpoint says download: it is read from where downloads are, and nothing is fetched but on request."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changed(out, at("config", "download", value=True))
    npattn.train(resume=out, progress=False)
    assert asked == [(str(tmp_path / "cache" / "npattn" / "mnist"), False)]
    assert training.restored(out)[0].download is True, "it still knows where its digits are"
    asked.clear()
    npattn.train(resume=out, progress=False, download=False)
    assert asked == [(str(tmp_path / "cache" / "npattn" / "mnist"), False)]
    asked.clear()
    assert cli.main(["train", "--resume", str(out), "--download"]) == 0
    assert [download for _, download in asked] == [True]


def test_the_network_is_not_reached(digits, out, monkeypatch, tmp_path, capsys):
    """The same with the real reader: it says what is missing, and how to ask for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NPATTN_DATA", raising=False)
    monkeypatch.setattr(data, "opener", lambda: pytest.fail("it reached for the network"))
    changed(out, at("config", "download", value=True))
    with pytest.raises(DataError, match=r"no such file .*; the run downloaded its digits; .* with download \(--down"):
        npattn.train(resume=out, progress=False)
    changed(out, at("config", "data_dir", value=str(tmp_path / "elsewhere")))
    assert cli.main(["train", "--resume", str(out)]) == 1
    assert f"{tmp_path}/elsewhere/train-images-idx3-ubyte: no such file" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("place", ["//server/share", r"\\server\share", "/\\server/share"])
def test_another_machines_disk_is_not_asked(asked, out, place: str, tmp_path):
    changed(out, at("config", "data_dir", value=place))
    with pytest.raises(TrainingError, match=r"asks for digits from .*; give data_dir \(--data-dir\) too"):
        npattn.train(resume=out, progress=False)
    assert not asked
    npattn.train(resume=out, progress=False, data_dir=tmp_path)
    assert asked == [(str(tmp_path), False)]
    assert training.restored(out)[0].data_dir == str(tmp_path), "it goes on from there the next time"


def test_no_more_processes_than_there_are_processors(asked, out, monkeypatch, capsys):
    """Where nobody asks for them: the run goes on in fewer, and says that its last bits will be others."""
    started: list[int] = []
    monkeypatch.setattr(commands, "available_threads", lambda: 4)
    monkeypatch.setattr(commands, "mpiexec", lambda: "mpiexec")
    monkeypatch.setattr(commands, "launched", lambda count, argv: started.append(count) or 0)
    changed(out, at("config", "processes", value=64))
    assert cli.main(["train", "--resume", str(out)]) == 0
    assert cli.main(["train", "--resume", str(out), "--processes", "64"]) == 0
    monkeypatch.setattr(commands, "available_threads", lambda: 1)
    assert cli.main(["train", "--resume", str(out)]) == 0
    assert started == [4, 64, 2], "2 is what a new run takes on one processor, too"
    assert cli.main(["train", "--resume", str(out), "--processes", "1"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "64 processes until now, 1 from here on: the weights end in other last bits" in words
    assert training.restored(out)[0].processes == 1, "they are the run's own from then on"
    npattn.train(resume=out)
    assert "until now" not in capsys.readouterr().out
    assert len(started) == 3


def test_a_run_of_a_gpu_goes_on_without_one_on_request(asked, out, monkeypatch):
    absent(monkeypatch, "cupy")
    changed(out, at("config", "device", value="cuda"))
    with pytest.raises(DeviceError, match=r"goes on without one with device cpu \(--device cpu\)"):
        npattn.train(resume=out, progress=False)
    with pytest.raises(DeviceError) as caught:
        npattn.train(resume=out, progress=False, device="cuda")
    assert "--device cpu" not in str(caught.value)
    assert cli.main(["train", "--resume", str(out), "--device", "cpu"]) == 0
    assert training.restored(out)[0].device == "cpu"
    assert resume.continued(out, TrainConfig(processes=2), {"device": "cuda"}, 1).processes == 1


def test_a_run_that_was_moved_writes_where_it_is(asked, out, tmp_path):
    changed(out, at("config", "out", value=str(tmp_path / "elsewhere")))
    npattn.train(resume=out, progress=False)
    assert json.loads((out / folder.METRICS).read_text())["config"]["out"] == str(out)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", folder.FILES[1:])
def test_a_folder_where_a_file_is_to_be_put(asked, tmp_path, monkeypatch, out, name: str):
    """It would break the last write, after all the training."""
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    monkeypatch.setattr(Run, "go", lambda run: pytest.fail("it began to train"))
    with pytest.raises(TrainingError, match=f"{name}: expected a file, or nothing yet, got a folder"):
        npattn.train(resume=out, progress=False)
    if name != folder.METRICS:
        (tmp_path / "new" / name).mkdir(parents=True)
        with pytest.raises(TrainingError, match=f"{name}: expected a file, or nothing yet, got a folder"):
            npattn.train(TrainConfig(out=tmp_path / "new"), progress=False)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"config": {}}, TypeError, r"config: expected a TrainConfig or None, got \{\}"),
        ({"config": 0}, TypeError, "config: expected a TrainConfig or None, got 0"),
        ({"config": ""}, TypeError, "config: expected a TrainConfig or None, got ''"),
        ({"config": False}, TypeError, "config: expected a TrainConfig or None, got False"),
        ({"config": {"epochs": 1}}, TypeError, "config: expected a TrainConfig or None"),
        ({"progress": "no"}, TypeError, "progress: expected True or False, got 'no'"),
        ({"progress": 0}, TypeError, "progress: expected True or False, got 0"),
        ({"resume": 0}, TypeError, "resume: expected a path or None, got 0"),
        ({"resume": False}, TypeError, "resume: expected a path or None, got False"),
        ({"resume": b"run"}, TypeError, "resume: expected a path or None, got b'run'"),
        ({"resume": ""}, ValueError, "resume: expected a path, of at most 4096 bytes, got ''"),
        ({"resume": "a\0b"}, ValueError, r"resume: expected a path, of at most 4096 bytes, got 'a\\x00b'"),
        ({"processes": 2}, TypeError, "processes: expected with resume only"),
        ({"download": True, "data_dir": "a"}, TypeError, "data_dir, download: expected with resume only"),
        ({"resume": "run", "processes": 0}, ValueError, "processes: expected a whole number of at least 1, got 0"),
        ({"resume": "run", "processes": True}, TypeError, "processes: expected a whole number, got True"),
        ({"resume": "run", "download": "no"}, TypeError, "download: expected True or False, got 'no'"),
        ({"resume": "run", "device": "gpu"}, ValueError, "device: expected 'cpu' or 'cuda', got 'gpu'"),
        ({"resume": "run", "data_dir": 5}, TypeError, "data_dir: expected a path or None, got 5"),
    ],
)
def test_what_train_is_called_with(monkeypatch, tmp_path, arguments, error, message: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "go", lambda run: pytest.fail("it began to train"))
    with pytest.raises(error, match=message):
        npattn.train(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [0, None, b"run", "", "a\0b", "a" * 10**5])
def test_what_load_model_is_called_with(folder):
    with pytest.raises((TypeError, ValueError), match="folder: expected a path"):
        npattn.load_model(folder)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"attention": Path("se")}, TypeError),
        ({"attention": 0}, TypeError),
        ({"attention": ""}, ValueError),
        ({"model": None}, TypeError),
        ({"model": ["digits"]}, TypeError),
        ({"device": None}, TypeError),
        ({"device": np.array(["cpu", "cuda"])}, TypeError),
        ({"fused": "no"}, TypeError),
        ({"fused": 0}, TypeError),
        ({"fused": None}, TypeError),
        ({"download": "no"}, TypeError),
        ({"data_dir": "a" * 5000}, ValueError),
        ({"save_every": 10**5000}, ValueError),
        ({"test_every": 10**5000}, ValueError),
        ({"out": "\ud800"}, ValueError),
        *(({name: True}, TypeError) for name in ("epochs", "batch_size", "seed", "test_every", "save_every", "lr")),
        *(({name: bad}, ValueError) for name in ("lr", "decay", "shift", "turn", "zoom") for bad in (NAN, INF, -1.0)),
        *(({name: "1"}, TypeError) for name in ("epochs", "processes", "lr", "decay", "shift", "turn", "zoom")),
    ],
)
def test_settings_that_are_none(settings, error):
    (name,) = settings
    with pytest.raises(error, match=f"^{name}: expected"):
        TrainConfig(**settings)


def test_settings_are_plain():
    config = TrainConfig(fused=np.True_, attention=np.str_("se"), download=np.False_)
    assert [type(value) for value in (config.fused, config.attention, config.download)] == [bool, str, bool]
