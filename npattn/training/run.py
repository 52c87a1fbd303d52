"""A training run: the loop, and what it writes."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npattn import checkpoint, data, finite, models
from npattn.backend import to_numpy
from npattn.explain.gates import gate_statistics
from npattn.files import alone, sweep
from npattn.fused.threads import blas_held
from npattn.layer import no_grad
from npattn.nested import Sequential, leaves
from npattn.optimizer import AdamW, one_cycle
from npattn.progress import Progress, Silent, for_terminal
from npattn.training.batches import batch, drawn, evaluate, moved, prepared
from npattn.training.folder import (
    CHECKPOINT,
    METRICS,
    State,
    check_position,
    new_folder,
    restored,
    versions,
    write_text,
)
from npattn.training.interrupts import interruptible
from npattn.training.settings import TrainConfig, TrainingError, network
from npattn.training.team import Team, WorkerLost

GATE_DIGITS = 200  # test digits whose gates are looked at after every epoch: a hundredth of what the epoch takes


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
        with Team(config) as self.team:
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
        images, labels = self.digits.train_images[chosen], self.digits.train_labels[chosen]
        moves = drawn(images.shape, config.shift, config.turn, config.zoom, rng)

        try:
            done = self.team.step(self.model, images, labels, moves)
        except WorkerLost as error:
            raise TrainingError(f"{error}; {self.saved}") from None
        with np.errstate(all="ignore"):  # what is no number is looked for, and named
            if not finite.after_backward(done.loss, self.model):
                loss = float(done.loss)
                what = "a number is not finite" if np.isfinite(loss) else f"the loss is {loss}"
                x, t = batch(self.model, moved(images, moves), labels)
                raise self.stop(what, finite.culprit(self.model, x, t, chosen))
            self.optimizer.step(self.model.grads, self.rate())
            if not finite.every(self.model.params):
                raise self.stop(
                    f"a number is not finite after the update, at the rate {self.rate():g}", finite.in_state(self.model)
                )
        self.tested = None

        state.loss += float(done.loss) * len(chosen)
        state.right += done.right
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
