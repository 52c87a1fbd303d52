"""A training run: the loop, and what it writes. Every rank goes through it; only rank 0 writes (ranks.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npattn import checkpoint, data, finite, models
from npattn.backend import to_numpy
from npattn.explain.gate_statistics import gate_statistics
from npattn.fused.blas import blas_held
from npattn.fused.threads import at_most, get_num_threads
from npattn.grad_mode import no_grad
from npattn.nested import Sequential, leaves
from npattn.optimizer import AdamW, one_cycle
from npattn.progress import Progress
from npattn.training.batches import batch, drawn, evaluate, moved, prepared
from npattn.training.folder import (
    CHECKPOINT,
    METRICS,
    State,
    versions,
    write_text,
)
from npattn.training.interrupts import interruptible
from npattn.training.ranks import Alone, Ranks
from npattn.training.settings import TrainConfig, TrainingError
from npattn.training.step import share, step
from npattn.training.together import at_first, same

GATE_DIGITS = 200  # test digits whose gates are looked at after every epoch: a hundredth of what the epoch takes


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
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.state, self.model, self.optimizer = config, state, model, optimizer
        self.digits, self.out, self.progress = digits, out, progress
        self.ranks: Ranks = Alone() if ranks is None else ranks
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
        state, config, ranks = self.state, self.config, self.ranks
        with contextlib.ExitStack() as stack:
            if ranks.size > 1:  # as many threads as there are processors, with those of the other ranks here
                stack.enter_context(at_most(max(1, get_num_threads() // ranks.here)))
            with no_grad(), np.errstate(all="ignore"):
                blank = self.model.to_array(np.zeros((min(config.batch_size, self.count), 1, 28, 28)))
                rows = models.table(self.model.eval(), blank)
            self.progress.start(rows, self.digits.source, config, state.epoch)
            self.began = time.perf_counter()
            interrupted = stack.enter_context(interruptible())
            self.save()
            while state.epoch < config.epochs:
                order = np.random.default_rng((config.seed, state.epoch)).permutation(self.count)
                self.progress.epoch(state.epoch, config.epochs, self.steps, state.step)
                while state.step < self.steps:
                    self.step(order)
                    stop = self.anywhere(interrupted.is_set())
                    if stop or (state.step % config.save_every == 0 and state.step < self.steps):
                        self.save()
                    if stop:
                        return False
                self.end_epoch()
                self.save()
                if self.anywhere(interrupted.is_set()):
                    return state.epoch == config.epochs
        return True

    def anywhere(self, here: bool) -> bool:
        """Whether it is so at any rank: all must go the same way."""
        return here if self.ranks.size == 1 else bool(self.ranks.allreduce(np.array([here], np.int64))[0])

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

        done = step(self.model, images, labels, moves, self.ranks)
        with np.errstate(all="ignore"):  # what is no number is looked for, and named
            if not finite.after_backward(done.loss, done.grads, self.model):
                loss = float(done.loss)
                what = "a number is not finite" if np.isfinite(loss) else f"the loss is {loss}"
                x, t = batch(self.model, moved(images, moves), labels)
                raise self.stop(what, finite.culprit(self.model, x, t, chosen))
            self.optimizer.step(done.grads, self.rate())
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
            self.tested = self.test()
            row["test_loss"], row["test_accuracy"], _ = self.tested
            if not np.isfinite(row["test_loss"]):
                raise self.stop(f"after it the loss of the test digits is {row['test_loss']}", self.untestable())
        gates = self.gates()
        if gates:
            row["gates"] = gates
        self.clock()
        row["seconds"] = round(state.epoch_seconds, 3)
        state.history.append(row)
        self.progress.epoch_done(row)
        state.epoch, state.step, state.epoch_seconds = state.epoch + 1, 0, 0.0
        state.loss, state.right, state.seen = 0.0, 0, 0

    def test(self) -> tuple[float, float, np.ndarray]:
        """What `evaluate` says of the test digits, of which each rank takes its share."""
        images, labels = self.digits.test_images, self.digits.test_labels
        if self.ranks.size == 1:
            return evaluate(self.model, images, labels)
        n = share(len(labels), self.ranks.rank, self.ranks.size)
        own = np.zeros(1 + models.CLASSES**2)
        if len(labels[n]):
            loss, _, confusion = evaluate(self.model, images[n], labels[n])
            own[0], own[1:] = loss * len(labels[n]), confusion.ravel()
        total = self.ranks.allreduce(own)
        confusion = total[1:].reshape(models.CLASSES, -1).astype(np.int64)
        return total[0] / len(labels), float(np.trace(confusion)) / len(labels), confusion

    @np.errstate(all="ignore")
    def untestable(self) -> str:
        """Where the first number that is none comes from as the first test digits go through the network."""
        x, t = batch(self.model, self.digits.test_images[:500], self.digits.test_labels[:500])
        return finite.culprit(self.model.eval(), x, t, np.arange(len(t)), which="test")

    @np.errstate(all="ignore")
    def gates(self) -> dict[str, dict[str, float]]:
        """How the gates stand for the first test digits, always the same ones; empty if the network does not attend."""
        with no_grad():
            self.model.eval()(self.model.to_array(prepared(self.digits.test_images[:GATE_DIGITS])))
        if not finite.every(self.model.attention):
            raise self.stop("after it the gates of the test digits are not finite", self.untestable())
        return gate_statistics(self.model.attention)

    def save(self) -> None:
        """Write checkpoint.npz and metrics.json, each whole or not at all. Raises TrainingError if the disk refuses.

        Before that the ranks compare their weights, which must be the same bits: each has taken the same steps.
        """
        self.clock()
        weights = b"".join(to_numpy(value).tobytes() for value in self.model.params.values())
        if not same(self.ranks, weights):
            raise TrainingError(f"the ranks' weights are no longer the same, as they must be; {self.saved}")
        self.saved = at_first(self.ranks, self.write)

    def write(self) -> str:
        """Write the two files. Returns what stands in the folder now, in words."""
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
        return self.saved

    def written(self, name: str, write: Callable[[Path], None]) -> None:
        """Let `write` make a file of the run's folder, or say what is left if the disk refuses."""
        try:
            write(self.out / name)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(f"{self.out / name}: cannot be written: {reason}; {self.saved}") from None
