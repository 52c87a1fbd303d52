"""A training run from its settings to its result: `train`. The loop itself is in run.py."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npattn import data
from npattn.files import alone, sweep
from npattn.nested import Sequential
from npattn.optimizer import AdamW
from npattn.progress import Progress, Silent, for_terminal
from npattn.training.batches import evaluate, prepared
from npattn.training.folder import CHECKPOINT, METRICS, State, check_position, new_folder, restored
from npattn.training.run import Run
from npattn.training.settings import TrainConfig, TrainingError, network

FILES = (CHECKPOINT, METRICS, "curves.png", "confusion.png", "attention.png", "gates.png")


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
            sweep(out, FILES)
            finished = run.go()
            _, accuracy, confusion = run.tested or evaluate(model, digits.test_images, digits.test_labels)
            write_figures(run, confusion)
    except BlockingIOError:
        raise TrainingError(f"{out}: another process is training in this folder") from None
    shown.end(out, accuracy, state.seconds, finished)
    return TrainResult(model.eval(), accuracy, state.history, confusion, out, finished)


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
