"""The demo's training: configuration, loop, checkpoints, metrics. From Python `npattn.train(TrainConfig())`.

Nothing random is kept: the order of an epoch and how a batch is moved are drawn from (seed, epoch, step) alone. So a
run that goes on from a checkpoint draws what it would have drawn, and ends in the same weights, bit for bit. What is
promised of a run that is killed, fills the disk or meets NaN: docs/robustness.md
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npattn import checkpoint, data, finite, models
from npattn.backend import Array, from_numpy, to_numpy
from npattn.checks import real_number, whole_number
from npattn.explain.gates import gate_statistics
from npattn.files import alone, atomic, sweep
from npattn.fused.threads import blas_held
from npattn.layer import Layer, Nested, Sequential, no_grad
from npattn.ops import loss
from npattn.optimizer import AdamW, one_cycle
from npattn.progress import Progress, Silent, for_terminal

MEAN, SPREAD = 0.1307, 0.3081  # of all pixels of the 60,000 training digits, ink = 1
CHECKPOINT = "checkpoint.npz"
METRICS = "metrics.json"
GATE_DIGITS = 200  # test digits whose gates are looked at after every epoch: a hundredth of what the epoch takes


class TrainingError(Exception):
    """Training cannot start or go on. The message says why, and what is left on the disk."""


@dataclass(frozen=True)
class TrainConfig:
    """What a run depends on. The same config on the same machine gives the same weights, bit for bit.

    Attributes
    ----------
    attention
        "none", "se", "channel", "spatial" or "cbam". None takes the model's own: cbam for digits, se for se-resnet.
    model
        "digits", four stages, or "se-resnet", residual units: see `npattn.models`.
    epochs
        Passes over the training digits, 1 to 1,000,000.
    batch_size
        Digits a step, 2 to 60,000.
    lr
        The peak of the one-cycle learning rate, above 0.
    decay
        AdamW's weight decay, at least 0.
    shift, turn, zoom
        Training digits are shifted by up to `shift` pixels (0 to 14), turned by up to `turn` degrees (0 to 180) and
        scaled by up to 1 ± `zoom` (0 to 0.9), each by its own random amounts.
    seed
        Of the initial weights, the order and these amounts; 0 to 2⁶³ − 1.
    test_every
        The test digits are classified after every so many epochs, at least 1, and after the last one.
    save_every
        A checkpoint is written before the first step, after every so many steps of an epoch, at least 1, and after
        each epoch. It plays no part in the weights.
    data_dir, download
        Where the digits come from: see `npattn.data.load`.
    out
        The folder for results; None makes a new one under runs/.
    fused
        Whether layers may take their fused path.
    device
        "cpu", or "cuda": network, loss and optimiser on the GPU, by CuPy; digits are moved and scaled on the CPU.

    Raises
    ------
    TypeError, ValueError
        If a value is outside its range; the message names it.
    """

    attention: str | None = None
    model: str = "digits"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.01
    decay: float = 0.02
    shift: float = 2
    turn: float = 10
    zoom: float = 0.1
    seed: int = 0
    test_every: int = 3
    save_every: int = 50
    data_dir: str | os.PathLike[str] | None = None
    download: bool = False
    out: str | os.PathLike[str] | None = None
    fused: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        models.known("model", self.model, models.NETWORKS)
        if self.attention is None:
            object.__setattr__(self, "attention", models.NETWORKS[self.model].attention)
        models.known("attention", str(self.attention), models.ATTENTIONS)
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected 'cpu' or 'cuda', got {self.device!r}")
        values: dict[str, Any] = {  # as plain numbers and strings, which a checkpoint can hold
            "epochs": whole_number("epochs", self.epochs, most=10**6),
            "batch_size": whole_number("batch_size", self.batch_size, least=2, most=60_000),
            "seed": whole_number("seed", self.seed, least=0, most=2**63 - 1),
            "test_every": whole_number("test_every", self.test_every),
            "save_every": whole_number("save_every", self.save_every),
            "shift": real_number("shift", self.shift, least=0, most=14),
            "turn": real_number("turn", self.turn, least=0, most=180),
            "zoom": real_number("zoom", self.zoom, least=0, most=0.9),
            "lr": real_number("lr", self.lr, least=0),
            "decay": real_number("decay", self.decay, least=0),
        }
        if values["lr"] == 0:
            raise ValueError("lr: expected a learning rate above 0, got 0")
        for name in ("download", "fused"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name in ("data_dir", "out"):
            if getattr(self, name) is not None:
                values[name] = path_text(name, getattr(self, name))
        for name, value in values.items():
            object.__setattr__(self, name, value)


def path_text(name: str, value: str | os.PathLike[str]) -> str:
    """`value` as a string, after checking that it can be a path. Raises TypeError, ValueError."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a path or None, got {value!r}")
    if not text or "\0" in text:
        raise ValueError(f"{name}: expected a path, got {text!r}")
    return text


@dataclass
class State:
    """Where a run stands: enough, beside weights and optimiser, to go on."""

    epoch: int = 0  # of the next step
    step: int = 0  # the next step in that epoch
    loss: float = 0.0  # summed over the digits of the epoch so far
    right: int = 0  # digits of the epoch so far that were classified rightly
    seen: int = 0
    seconds: float = 0.0  # of the whole run
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch_seconds: float = 0.0  # of the epoch so far

    def __post_init__(self) -> None:
        """Check what may come from a file. Raises TypeError, ValueError."""
        for name in ("epoch", "step", "right", "seen"):
            whole_number(f"state.{name}", getattr(self, name), least=0, most=2**63 - 1)
        for name in ("loss", "seconds", "epoch_seconds"):
            real_number(f"state.{name}", getattr(self, name), least=0)
        if not isinstance(self.history, list) or len(self.history) != self.epoch:
            raise ValueError(f"state.history: expected a list of {self.epoch} epochs")
        for row in self.history:
            if not isinstance(row, dict) or not {"epoch", "loss", "accuracy", "rate", "seconds"} <= row.keys():
                raise ValueError(f"state.history: expected a dict for each epoch, got {row!r:.80}")
            gates = row.get("gates", {})
            if not isinstance(gates, dict) or not all(isinstance(gate, dict) for gate in gates.values()):
                raise ValueError("state.history: expected a dict of dicts for the gates")
            for part in ({key: value for key, value in row.items() if key != "gates"}, *gates.values()):
                for key, value in part.items():
                    real_number(f"state.history: {key!r:.80}", value)


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes
    ----------
    model
        The trained network, in eval mode.
    accuracy
        The share of the 10,000 test digits that it classifies rightly, 0 to 1; right now.
    history
        One dict an epoch: epoch, loss (nats), accuracy, rate, seconds; test_loss and test_accuracy where it was tested;
        gates, if the network attends: by each gate's name what `npattn.explain.gate_statistics` says of it.
    confusion
        (10, 10) counts of test digits: row the right class, column the answer.
    out
        The folder with the run's files.
    finished
        False if it was interrupted; `resume` goes on.
    """

    model: Sequential
    accuracy: float
    history: list[dict[str, Any]]
    confusion: np.ndarray
    out: Path
    finished: bool


def train(
    config: TrainConfig | None = None, *, resume: str | os.PathLike[str] | None = None, progress: bool = True
) -> TrainResult:
    """Train the demo's network on MNIST and write the results into a folder.

    The folder gets metrics.json, checkpoint.npz and the figures curves.png, confusion.png and, if the network attends,
    attention.png and gates.png. Ctrl-C ends the run after the current step, with everything so far saved.

    Parameters
    ----------
    config
        The run's settings; None takes the defaults. With `resume` it must be None.
    resume
        The folder of an earlier run to go on with, under its own config.
    progress
        Whether to show bars on a terminal, or lines elsewhere; False is silent.

    Returns
    -------
    TrainResult

    Raises
    ------
    TrainingError
        If there is no figure library, the folder holds another run's results or another process trains in it, the
        results cannot be written (a full disk, say), or a number became NaN or infinite: the message then names the
        step and the layer, parameter or digit where it began. What was saved before stays whole.
    npattn.data.DataError
        If the digits cannot be read.
    npattn.checkpoint.CheckpointError
        If there is nothing to resume from.
    OSError
        If the folder or the figures cannot be written.
    npattn.backend.DeviceError
        If the GPU is asked for and there is none.
    """
    need_matplotlib()
    if resume is not None:
        if config is not None:
            raise TrainingError("config: a run is resumed with its own config, so give none with resume")
        out = Path(resume)
        config, state, model, optimizer, source = restored(out)
        digits = data.load(config.data_dir, download=config.download)
        if digits.source != source:
            raise TrainingError(f"{out}: was trained on the {source} digits, but here are the {digits.source}")
        check_position(out / CHECKPOINT, config, state, optimizer, len(digits.train_labels))
    else:
        config = config or TrainConfig()
        model = network(config).to(config.device)
        digits = data.load(config.data_dir, download=config.download)
        out = new_folder(config)
        state, optimizer = State(), AdamW(model.params, decay=config.decay)

    shown: Progress = for_terminal() if progress else Silent()
    run = Run(config, state, model, optimizer, digits, out, shown)
    try:
        with alone(out):
            sweep(out)
            finished = run.go()
            _, accuracy, confusion = run.tested or evaluate(model, digits.test_images, digits.test_labels)
            write_figures(run, confusion)
    except BlockingIOError:
        raise TrainingError(f"{out}: another process is training in this folder") from None
    shown.end(out, accuracy, state.seconds, finished)
    return TrainResult(model.eval(), accuracy, state.history, confusion, out, finished)


def network(config: TrainConfig) -> Sequential:
    """The network that a config asks for, with its initial weights."""
    return models.NETWORKS[config.model].build(config.attention, rng=config.seed, fused=config.fused)


class Run:
    """One training run, from where its state says."""

    def __init__(
        self,
        config: TrainConfig,
        state: State,
        model: Sequential,
        optimizer: AdamW,
        digits: data.Digits,
        out: Path,
        progress: Progress,
    ) -> None:
        self.config, self.state, self.model, self.optimizer = config, state, model, optimizer
        self.digits, self.out, self.progress = digits, out, progress
        self.count = len(digits.train_labels)
        self.steps = -(-self.count // config.batch_size)  # an epoch's, the last one shorter
        self.tested: tuple[float, float, np.ndarray] | None = None  # what `evaluate` said of the weights as they are
        self.saved = "nothing was saved before"
        self.began = time.perf_counter()

    @blas_held  # its products are cut among its threads, and where they are cut decides the last bits
    def go(self) -> bool:
        """Train to the end. Returns False if it was interrupted.

        Saves at the beginning, every `save_every` steps, after every epoch and at an interruption.
        """
        state, config = self.state, self.config
        with no_grad(), np.errstate(all="ignore"):
            blank = self.model.own(np.zeros((min(config.batch_size, self.count), 1, 28, 28)))
            rows = models.table(self.model.eval(), blank)
        self.progress.start(rows, self.digits.source, config, state.epoch)
        self.began = time.perf_counter()
        with interruptible() as interrupted:
            self.save()
            while state.epoch < config.epochs:
                order = np.random.default_rng((config.seed, state.epoch)).permutation(self.count)
                self.progress.epoch(state.epoch, config.epochs, self.steps, state.step)
                while state.step < self.steps:
                    self.step(order)
                    if interrupted.is_set() or (state.step % config.save_every == 0 and state.step < self.steps):
                        self.save()
                    if interrupted.is_set():
                        return False
                self.end_epoch()
                self.save()
                if interrupted.is_set():
                    return state.epoch == config.epochs
        return True

    def clock(self) -> None:
        """Add the time since the last call to the run's and the epoch's."""
        now = time.perf_counter()
        self.state.seconds += now - self.began
        self.state.epoch_seconds += now - self.began
        self.began = now

    def rate(self) -> float:
        """The learning rate of the next step."""
        done = self.state.epoch * self.steps + self.state.step
        return one_cycle(done, self.config.epochs * self.steps, self.config.lr)

    def step(self, order: np.ndarray) -> None:
        """One batch: forward, loss, backward, update."""
        state, config = self.state, self.config
        chosen = order[state.step * config.batch_size : (state.step + 1) * config.batch_size]
        rng = np.random.default_rng((config.seed, state.epoch, state.step))
        moved = jittered(self.digits.train_images[chosen], config.shift, config.turn, config.zoom, rng)
        x, t = batch(self.model, moved, self.digits.train_labels[chosen])

        with np.errstate(all="ignore"):  # what is no number is looked for, and named
            scores = self.model.train()(x)
            value, cache = loss.forward(scores, t)
            self.model.backward_params(loss.backward(self.model.xp.ones_like(value), cache))
            if not finite.after_backward(value, self.model):
                what = "a number is not finite" if np.isfinite(float(value)) else f"the loss is {float(value)}"
                raise self.stop(what, finite.culprit(self.model, x, t, chosen))
            self.optimizer.step(self.model.grads, self.rate())
            if not finite.every(self.model.params):
                raise self.stop(
                    f"a number is not finite after the update, at the rate {self.rate():g}", finite.in_state(self.model)
                )
        self.tested = None

        state.loss += float(value) * len(chosen)
        state.right += int(np.sum(np.argmax(to_numpy(scores), axis=1) == self.digits.train_labels[chosen]))
        state.seen += len(chosen)
        state.step += 1
        self.progress.step(state.loss / state.seen, state.right / state.seen)

    def stop(self, what: str, culprit: str) -> TrainingError:
        """The error that ends a run which met a number that is none."""
        where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        return TrainingError(f"{where}: {what}; {culprit}. {self.saved}; a smaller lr may help")

    def end_epoch(self) -> None:
        """Evaluate if it is time to, note the epoch in the history, and turn to the next."""
        state, done = self.state, self.state.epoch + 1
        row: dict[str, Any] = {
            "epoch": done,
            "loss": state.loss / state.seen,
            "accuracy": state.right / state.seen,
            "rate": self.rate(),
        }
        if done % self.config.test_every == 0 or done == self.config.epochs:
            self.tested = evaluate(self.model, self.digits.test_images, self.digits.test_labels)
            row["test_loss"], row["test_accuracy"], _ = self.tested
            if not np.isfinite(row["test_loss"]):
                raise self.stop(f"after it the loss of the test digits is {row['test_loss']}", self.untestable())
        gates = self.gates()
        if gates:
            row["gates"] = gates
        if not all(np.isfinite(list(statistics.values())).all() for statistics in gates.values()):
            raise self.stop("after it the gates of the test digits are not finite", self.untestable())
        self.clock()
        row["seconds"] = round(state.epoch_seconds, 3)
        state.history.append(row)
        self.progress.epoch_done(row)
        state.epoch, state.step, state.epoch_seconds = state.epoch + 1, 0, 0.0
        state.loss, state.right, state.seen = 0.0, 0, 0

    @np.errstate(all="ignore")
    def untestable(self) -> str:
        """Where the first number that is none comes from as the first test digits go through the network."""
        x, t = batch(self.model, self.digits.test_images[:500], self.digits.test_labels[:500])
        return finite.culprit(self.model.eval(), x, t, np.arange(len(t)), which="test")

    @np.errstate(all="ignore")
    def gates(self) -> dict[str, dict[str, float]]:
        """How the gates stand for the first test digits, always the same ones; empty if the network does not attend."""
        with no_grad():
            self.model.eval()(self.model.own(prepared(self.digits.test_images[:GATE_DIGITS])))
        return gate_statistics(self.model.attention)

    def save(self) -> None:
        """Write checkpoint.npz and metrics.json, each whole or not at all. Raises TrainingError if the disk refuses."""
        self.clock()
        arrays = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        arrays |= {f"optimizer.m.{key}": value for key, value in self.optimizer.m.items()}
        arrays |= {f"optimizer.v.{key}": value for key, value in self.optimizer.v.items()}
        meta = {
            "config": dataclasses.asdict(self.config),
            "state": dataclasses.asdict(self.state),
            "optimizer_steps": self.optimizer.steps,
            "source": self.digits.source,
        }
        host = {key: to_numpy(value) for key, value in arrays.items()}
        self.written(CHECKPOINT, lambda path: checkpoint.save(path, host, meta))
        self.saved = f"{self.out / CHECKPOINT} stands before epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        metrics = {
            "config": meta["config"],
            "seed": self.config.seed,
            "digits": self.digits.source,
            "parameters": self.model.count(),
            "paths": sorted({str(layer.path) for layer in leaves(self.model)}),
            "versions": versions(),
            "finished": self.state.epoch == self.config.epochs,
            "seconds": round(self.state.seconds, 3),
            "test_accuracy": next((r["test_accuracy"] for r in self.state.history[::-1] if "test_accuracy" in r), None),
            "epochs": self.state.history,
        }
        self.written(METRICS, lambda path: write_text(path, json.dumps(metrics, indent=2) + "\n"))

    def written(self, name: str, write: Callable[[Path], None]) -> None:
        """Let `write` make a file of the run's folder, or say what is left if the disk refuses."""
        try:
            write(self.out / name)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(f"{self.out / name}: cannot be written: {reason}; {self.saved}") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises OSError."""
    with atomic(path) as file:
        file.write(text.encode())


def batch(model: Sequential, images: np.ndarray, labels: np.ndarray) -> tuple[Array, Array]:
    """Digits (N, 28, 28), 0 to 255, and their classes as the network's x and t, on its device."""
    return model.own(prepared(images)), from_numpy(labels.astype(np.int64), model.xp, model.device)


def prepared(images: np.ndarray) -> np.ndarray:
    """Digits (N, 28, 28), 0 to 255, as the network's input: (N, 1, 28, 28), float32, of mean 0 and spread 1."""
    scale = np.float32(1 / (255 * SPREAD))
    return (images.astype(np.float32) * scale - np.float32(MEAN / SPREAD))[:, None]


def jittered(images: np.ndarray, shift: float, turn: float, zoom: float, rng: np.random.Generator) -> np.ndarray:
    """Each image (N, H, W) turned, scaled and shifted a little, by its own random amounts; paper comes in at the edges.

    Parameters: shift in pixels, turn in degrees, each −most to most; zoom as a share, 0.1 for 0.9 to 1.1 times.
    Returns (N, H, W), float32, interpolated between pixels.
    """
    from scipy import ndimage

    N, H, W = images.shape
    angle = rng.uniform(-np.pi, np.pi, (N,)) * (turn / 180)
    scale = rng.uniform(1 - zoom, 1 + zoom, (N,))
    shifts = rng.uniform(-shift, shift, (N, 2))
    middle = np.array([(H - 1) / 2, (W - 1) / 2])
    moved = np.empty(images.shape, np.float32)
    for n in range(N):
        c, s = np.cos(angle[n]) / scale[n], np.sin(angle[n]) / scale[n]
        back = np.array([[c, -s], [s, c]])  # from a pixel of the new image to where it was
        ndimage.affine_transform(images[n], back, middle - back @ (middle + shifts[n]), output=moved[n], order=1)
    return moved


@blas_held
def evaluate(
    model: Sequential, images: np.ndarray, labels: np.ndarray, batch_size: int = 500
) -> tuple[float, float, np.ndarray]:
    """Mean loss (nats), accuracy (0 to 1) and confusion (10, 10), rows the right class, of a model in eval mode."""
    was_training = model.training
    model.eval()
    total, confusion = 0.0, np.zeros((models.CLASSES, models.CLASSES), np.int64)
    with no_grad(), np.errstate(all="ignore"):  # whether the loss is a number can be seen
        for start in range(0, len(labels), batch_size):
            right = labels[start : start + batch_size]
            x, t = batch(model, images[start : start + batch_size], right)
            scores = model(x)
            total += float(loss.forward(scores, t)[0]) * len(right)
            np.add.at(confusion, (right, np.argmax(to_numpy(scores), axis=1)), 1)
    model.train(was_training)
    return total / len(labels), float(np.trace(confusion)) / len(labels), confusion


def load_model(folder: str | os.PathLike[str]) -> Sequential:
    """The network of a run, in eval mode, on the CPU. `prepared` makes its input from images.

    Parameters
    ----------
    folder
        The run's folder.

    Raises
    ------
    npattn.checkpoint.CheckpointError
        If there is no checkpoint in it, or a broken one.
    """
    return restored(Path(folder), "cpu")[2].eval()


def restored(out: Path, device: str | None = None) -> tuple[TrainConfig, State, Sequential, AdamW, str]:
    """Config, state, model, optimiser and the digits' source, as `Run.save` left them; None is the run's own device.

    Raises CheckpointError, or DeviceError if there is no such device.
    """
    path = out / CHECKPOINT
    arrays, meta = checkpoint.load(path)
    try:
        config, state, model, optimizer, source = rebuilt(arrays, meta)
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: does not hold a run of the demo: {error}") from None
    model.to(device or config.device)
    for moment in (optimizer.m, optimizer.v):
        moment.update({key: model.own(value) for key, value in moment.items()})
    return config, state, model, optimizer, source


def rebuilt(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> tuple[TrainConfig, State, Sequential, AdamW, str]:
    """The same on the CPU, from arrays and meta. Raises KeyError, TypeError, ValueError if they are not a run's."""
    config = TrainConfig(**meta["config"])
    state = State(**meta["state"])
    if state.epoch > config.epochs:
        raise ValueError(f"state.epoch: expected at most {config.epochs}, got {state.epoch}")
    model = network(config)
    optimizer = AdamW(model.params, decay=config.decay)
    expected = {f"model.{key}": value for key, value in model.state_dict().items()}
    expected |= {f"optimizer.{name}.{key}": value for name in ("m", "v") for key, value in optimizer.m.items()}
    if odd := expected.keys() ^ arrays.keys():
        raise KeyError(f"missing or unknown: {', '.join(sorted(odd))}"[:200])
    for key, value in arrays.items():
        if value.shape != expected[key].shape or value.dtype != expected[key].dtype:
            like = f"{expected[key].shape} {expected[key].dtype}"
            raise ValueError(f"{key}: expected {like}, got {value.shape} {value.dtype}")
        if finite.bad(value):
            raise ValueError(f"{key}: {finite.bad(value)}")
        if key.startswith("optimizer.v.") or key.endswith("running_var"):
            real_number(f"{key}: its smallest", value.min(), least=0)
    model.load_state_dict({k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")})
    for moment, name in ((optimizer.m, "m"), (optimizer.v, "v")):
        for key in moment:
            moment[key] = arrays[f"optimizer.{name}.{key}"]
    optimizer.steps = whole_number("optimizer_steps", meta["optimizer_steps"], least=0)
    if not isinstance(meta["source"], str):
        raise TypeError(f"source: expected a string, got {meta['source']!r}")
    return config, state, model, optimizer, meta["source"]


def check_position(path: Path, config: TrainConfig, state: State, optimizer: AdamW, count: int) -> None:
    """Raise CheckpointError if a run on `count` digits cannot stand where the checkpoint says."""
    steps = -(-count // config.batch_size)
    seen = min(state.step * config.batch_size, count)
    fits = state.step <= steps and state.right <= state.seen == seen and (state.epoch < config.epochs or not state.step)
    if not fits or optimizer.steps != state.epoch * steps + state.step:
        raise checkpoint.CheckpointError(
            f"{path}: does not hold a run of the demo: epoch {state.epoch + 1}, step {state.step + 1}, "
            f"{state.seen:,} digits and {optimizer.steps:,} updates do not go together"
        )


def new_folder(config: TrainConfig) -> Path:
    """The folder for results, made now: `config.out`, or a new one under runs/. Raises TrainingError if it is taken."""
    if config.out is not None:
        out = Path(config.out)
        if (out / CHECKPOINT).exists() or (out / METRICS).exists():
            raise TrainingError(f"{out}: holds the results of another run; resume that one, or choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        return out
    name = "" if config.model == "digits" else f"{config.model}-"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}{config.attention}-seed{config.seed}"
    for number in range(1, 1000):
        out = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            out.mkdir(parents=True)
        except FileExistsError:
            continue
        return out
    raise TrainingError(f"runs/{stem}: a thousand runs in one second")


_listening: list[threading.Event] = []  # of the blocks that the main thread is in


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C (or SIGTERM) sets the event instead of raising; the second one raises.

    A block around it hears the first one too: a run that is at its end must not swallow what was meant for all.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread hears signals
        return

    def note(number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        for event in _listening:
            event.set()

    _listening.append(interrupted)
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _listening.remove(interrupted)


def leaves(model: Nested) -> Iterator[Layer]:
    """Every layer of the network that is not made of layers itself."""
    for layer in model.layers.values():
        if isinstance(layer, Nested):
            yield from leaves(layer)
        else:
            yield layer


def versions() -> dict[str, Any]:
    """What the numbers may depend on: versions, BLAS with its threads, processor."""
    from threadpoolctl import threadpool_info

    from npattn import __version__

    blas = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
        if pool.get("user_api") == "blas"
    ]
    return {
        "npattn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "blas": blas,
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def need_matplotlib(what: str = "training") -> None:
    """Raise TrainingError now rather than after the training if the figures cannot be drawn."""
    import importlib.util

    missing = [name for name in ("matplotlib", "tqdm") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(f'{what} needs {" and ".join(missing)}: pip install "npattn[demo]"')


def write_figures(run: Run, confusion: np.ndarray) -> None:
    """curves.png, confusion.png and, if the network attends, attention.png and gates.png."""
    from npattn.explain import figures

    figures.confusion(confusion, run.out / "confusion.png")
    if run.state.history:
        figures.curves(run.state.history, run.out / "curves.png")
        figures.gates(run.state.history, run.out / "gates.png")
    figures.attention(run.model, run.digits.test_images, run.digits.test_labels, prepared, run.out / "attention.png")
