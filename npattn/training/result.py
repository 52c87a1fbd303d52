"""What a training run gave, and how a prompt and a notebook show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npattn import columns
from npattn.files import read_bytes
from npattn.nested import Sequential
from npattn.notebook import html_lines, html_picture, html_table

FIGURES = {
    "curves.png": "loss and error by epoch",
    "attention.png": "where the gates look, and what speaks for the answer",
    "gates.png": "how the gates stood after each epoch",
    "confusion.png": "which digits are taken for which",
}
LARGEST = 2**23  # bytes of a figure, which takes some hundred thousand
MOST = 12  # epochs that are shown one by one


@dataclass(frozen=True, repr=False)
class TrainResult:
    """What a run gave. `print` shows a summary; a notebook shows its figures too.

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

    HEAD = ("epoch", "seconds", "loss", "accuracy", "test accuracy")

    @property
    def summary(self) -> str:
        """The outcome in a line."""
        count, epochs = int(self.confusion.sum()), len(self.history)
        ended = "" if self.finished else f"; interrupted: npattn.train(resume={str(self.out)!r}) goes on"
        return (
            f"TrainResult: {self.accuracy:.2%} of {count:,} test digits right, after {epochs} epoch"
            f"{'' if epochs == 1 else 's'}, {self.model.count():,} parameters{ended}"
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The last epochs, as cells."""
        for row in self.history[-MOST:]:
            tested = f"{row['test_accuracy']:.2%}" if "test_accuracy" in row else ""
            yield (
                str(row["epoch"]), f"{row['seconds']:.1f}", f"{row['loss']:.4f}", f"{row['accuracy']:.2%}", tested,
            )  # fmt: skip

    def __repr__(self) -> str:
        table = [columns.table(self.HEAD, self.rows(), right=range(5))] if self.history else []
        return "\n".join([self.summary, *table, f"results in {self.out}"])

    def _repr_html_(self) -> str:
        table = html_table(self.HEAD, self.rows()) if self.history else ""
        return html_lines([self.summary]) + table + html_lines([f"results in {self.out}"]) + "".join(self.pictures())

    def pictures(self) -> Iterator[str]:
        """The figures that the run wrote, as far as they are still there."""
        for name, words in FIGURES.items():
            try:
                yield html_picture(read_bytes(self.out / name, LARGEST), words)
            except (OSError, ValueError):  # moved, or removed: a result is shown without it
                continue
