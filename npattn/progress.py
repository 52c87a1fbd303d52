"""How a run is shown: tqdm's bars on a terminal and in a notebook, a line an epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, Protocol

from npattn import columns
from npattn.columns import counted, wrapped
from npattn.notebook import is_notebook
from npattn.streams import is_terminal, plain, say, width


class Progress(Protocol):
    """What the training tells as it goes."""

    def start(self, rows: list[tuple[str, str, tuple[int, ...], int]], source: str, config: Any, epoch: int) -> None:
        """The network's table, the digits, the config, the epochs already done."""

    def note(self, text: str) -> None:
        """Something to be known before it starts."""

    def epoch(self, epoch: int, epochs: int, steps: int, step: int) -> None:
        """An epoch begins, or goes on at `step`."""

    def step(self, loss: float, accuracy: float) -> None:
        """A step is done; both of the epoch so far."""

    def epoch_done(self, row: dict[str, float]) -> None:
        """An epoch is done and evaluated."""

    def end(self, out: Path, accuracy: float, seconds: float, finished: bool) -> None:
        """The run is over and its files are written."""


class Silent:
    """Shows nothing."""

    def start(self, rows: list[tuple[str, str, tuple[int, ...], int]], source: str, config: Any, epoch: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def epoch(self, epoch: int, epochs: int, steps: int, step: int) -> None:
        pass

    def step(self, loss: float, accuracy: float) -> None:
        pass

    def epoch_done(self, row: dict[str, float]) -> None:
        pass

    def end(self, out: Path, accuracy: float, seconds: float, finished: bool) -> None:
        pass


class Lines(Silent):
    """A line an epoch on standard output."""

    def say(self, text: str) -> None:
        say(text)

    def note(self, text: str) -> None:
        self.say("\n".join(wrapped(text, width(), further="  ")))

    def start(self, rows: list[tuple[str, str, tuple[int, ...], int]], source: str, config: Any, epoch: int) -> None:
        self.say(table(rows))
        if epoch == config.epochs:
            done = f"this run is finished, after {counted(epoch, 'epoch')}"
            self.say("\n".join(wrapped(f"{done}; it goes on with epochs (--epochs N), N > {epoch}", width())))
            return
        about = (
            f"training on the {source} digits, {counted(config.epochs, 'epoch')} of batches of {config.batch_size}, "
            f"seed {config.seed}, {counted(config.processes, 'process', 'processes')}"
            + (f", from epoch {epoch + 1}" if epoch else "")
        )
        self.say("\n".join(wrapped(about, width(), further="  ")))

    def epoch(self, epoch: int, epochs: int, steps: int, step: int) -> None:
        self.epochs = epochs
        if step:
            self.say(f"going on in epoch {epoch + 1}, after step {step} of {steps}")

    def epoch_done(self, row: dict[str, float]) -> None:
        tested = f"  test {row['test_accuracy']:.2%}" if "test_accuracy" in row else ""
        self.say(
            f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}  {row['seconds']:5.1f} s  "
            f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.2%}{tested}"
        )

    def end(self, out: Path, accuracy: float, seconds: float, finished: bool) -> None:
        if not finished:
            self.say(f"interrupted; what was learnt is saved: npattn train --resume {out}")
        self.say(f"test accuracy {accuracy:.2%} after {seconds:.0f} s; results in {out}")


class Bars(Lines):
    """Two bars on a terminal, epochs and steps, with the epochs' lines above them."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.tqdm = tqdm
        self.shown = {"file": plain(sys.stderr, "standard error"), "dynamic_ncols": True}
        self.outer: Any = None
        self.inner: Any = None

    def say(self, text: str) -> None:
        with self.tqdm.external_write_mode(file=self.shown["file"]):  # it takes the bars away meanwhile
            say(text)

    def epoch(self, epoch: int, epochs: int, steps: int, step: int) -> None:
        self.epochs = epochs
        if self.outer is None:
            self.outer = self.tqdm(total=epochs, initial=epoch, desc="epochs", unit="epoch", position=0, **self.shown)
        self.inner = self.tqdm(
            total=steps, initial=step, desc="steps", unit="step", position=1, leave=False, **self.shown
        )

    def step(self, loss: float, accuracy: float) -> None:
        self.inner.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}", refresh=False)
        self.inner.update()

    def epoch_done(self, row: dict[str, float]) -> None:
        self.inner.close()
        super().epoch_done(row)
        if "test_accuracy" in row:
            self.outer.set_postfix_str(f"test {row['test_accuracy']:.2%}", refresh=False)
        self.outer.update()

    def end(self, out: Path, accuracy: float, seconds: float, finished: bool) -> None:
        for bar in (self.inner, self.outer):
            if bar is not None:
                bar.close()
        super().end(out, accuracy, seconds, finished)


class NotebookBar(Lines):
    """One bar in a notebook, for all steps, with the epochs' lines: a cell has no lines to go back to for a second."""

    def __init__(self) -> None:
        with warnings.catch_warnings():  # of widgets that are not installed: the bar is made of text then
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm

            self.tqdm = tqdm
        self.bar: Any = None

    def epoch(self, epoch: int, epochs: int, steps: int, step: int) -> None:
        super().epoch(epoch, epochs, steps, step)
        if self.bar is None:
            self.bar = self.tqdm(total=epochs * steps, initial=epoch * steps + step, unit="step", dynamic_ncols=True)
        self.bar.set_description_str(f"epoch {epoch + 1}/{epochs}", refresh=False)

    def step(self, loss: float, accuracy: float) -> None:
        self.bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}", refresh=False)
        self.bar.update()

    def end(self, out: Path, accuracy: float, seconds: float, finished: bool) -> None:
        if self.bar is not None:
            self.bar.close()
        super().end(out, accuracy, seconds, finished)


def for_terminal() -> Progress:
    """Bars if both outputs are a terminal, one in a notebook, else lines."""
    if is_notebook():
        return NotebookBar()
    return Bars() if is_terminal(sys.stderr) and is_terminal(sys.stdout) else Lines()


def table(rows: list[tuple[str, str, tuple[int, ...], int]]) -> str:
    """The network as a table: layer, what it is, the shape of its output for one digit, parameters, and their sum."""
    head = ("layer", "what it is", "output", "parameters")
    cells = [(name, what, "×".join(map(str, shape[1:])), f"{count:,}") for name, what, shape, count in rows]
    return columns.table(
        head, [*cells, (), ("", "", "together", f"{sum(row[3] for row in rows):,}")], width(), right=(3,)
    )
