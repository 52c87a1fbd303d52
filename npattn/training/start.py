"""A training run from its settings to its result: `train`. The loop itself is in run.py."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from npattn import data
from npattn.arguments import explained_within
from npattn.checks import shown, true_or_false
from npattn.files import sweep
from npattn.optimizer import AdamW
from npattn.progress import Progress, Silent, for_terminal
from npattn.training.batches import prepared
from npattn.training.folder import FILES, State, check_free, check_places, held, new_folder
from npattn.training.ranks import Ranks, world
from npattn.training.result import TrainResult
from npattn.training.resume import Position, resumed
from npattn.training.run import Run
from npattn.training.settings import TrainConfig, TrainingError, check_batch, network, path_text
from npattn.training.together import at_first, check_alike, together
from npattn.version import __version__


@explained_within(config=TrainConfig)
def train(
    config: TrainConfig | None = None,
    *,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool | None = None,
    device: str | None = None,
    processes: int | None = None,
    epochs: int | None = None,
) -> TrainResult:
    """Train the demo's network on MNIST and write the results into a folder.

    The folder gets metrics.json, checkpoint.npz and the figures curves.png, confusion.png and, if the network attends,
    attention.png and gates.png. Ctrl-C ends the run after the current step, with everything so far saved.

    In a program that `mpiexec -n 8` has started all its processes call this, and share every batch; the first of them
    reads and writes all files. Without mpiexec there is one process, which has threads for its layers.

    Parameters
    ----------
    config
        The run's settings; None takes the defaults. With `resume` it must be None.
    resume
        The folder of an earlier run to go on with, under its own config.
    progress
        Whether to show bars on a terminal, or lines elsewhere; False is silent.
    data_dir, download, device, processes
        With `resume` only, in the place of the run's own, since they are a matter of the machine; None keeps these.
        A run goes on without a network unless `download` is True. It goes on in as many processes as there are, which
        `processes` has to be if it is given. With another number of them than before, or on another device, the
        weights end in other last bits.
    epochs
        With `resume` only: as many as the run has, or more, and then each further step has the learning rate that it
        has in a run of so many epochs from the start. A run that is finished is not trained again without it.

    Returns
    -------
    TrainResult

    Raises
    ------
    TrainingError
        If there is no figure library, the folder holds another run's results or another process trains in it, the
        run to go on with asks for what this call has to ask for, the results cannot be written (a full disk, say), or
        a number became NaN or infinite: the message then names the step and the layer, parameter or digit where it
        began. What was saved before stays whole.
    npattn.data.DataError
        If the digits cannot be read.
    npattn.checkpoint.CheckpointError
        If there is nothing to resume from.
    OSError
        If the folder or the figures cannot be written.
    npattn.backend.DeviceError
        If the GPU is asked for and there is none.
    TypeError, ValueError
        If an argument is of the wrong type or out of range; the message names it.
    MemoryError
        If a step takes more memory than this process may have.
    """
    if config is not None and not isinstance(config, TrainConfig):
        raise TypeError(f"config: expected a TrainConfig or None, got {shown(config)}")
    true_or_false("progress", progress)
    here = {
        "data_dir": data_dir, "download": download, "device": device, "processes": processes, "epochs": epochs,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in here.items() if value is not None}
    ranks = world()
    with together(ranks), contextlib.ExitStack() as stack:
        need_matplotlib()
        facts = {} if config is None else asdict(config)
        check_alike(ranks, {"npattn": __version__, "resume": resume, "progress": progress, **given, **facts})
        if resume is not None:
            if config is not None:
                raise TrainingError("config: a run is resumed with its own config, so give none with resume")
            out = Path(path_text("resume", resume))
            check_size(TrainConfig(**given), ranks)  # says what is wrong with them before anything is read
            position, told = at_first(ranks, lambda: reopened(out, given, ranks, stack))
            lines = shown_by(progress, ranks)
            if told:
                lines.note(told)
            return finished(Run(*position, out, lines, ranks))
        if given:
            raise TypeError(f"{', '.join(given)}: expected with resume only; a new run takes them from its config")
        new = check_size(TrainConfig() if config is None else config, ranks)
        model = network(new).to(new.device)
        digits, out = at_first(ranks, lambda: begun(new, stack))
        optimizer = AdamW(model.params, decay=new.decay)
        return finished(Run(new, State(), model, optimizer, digits, out, shown_by(progress, ranks), ranks))


def check_size(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """The config for as many processes as there are. Raises ValueError if it is for another number, or cannot be."""
    if config.processes not in (None, ranks.size):
        raise ValueError(
            f"processes: expected {ranks.size}, as many as run here, got {config.processes}; "
            f"mpiexec -n {config.processes} starts so many"
        )
    return replace(config, processes=ranks.size)


def begun(config: TrainConfig, stack: contextlib.ExitStack) -> tuple[data.Digits, Path]:
    """The digits of a new run, and its folder, held until the stack is left."""
    digits = data.load(config.data_dir, download=config.download)
    check_batch(config, len(digits.train_labels))
    out = new_folder(config)
    stack.enter_context(held(out))
    check_free(out)
    check_places(out)
    return digits, out


def reopened(out: Path, given: dict[str, Any], ranks: Ranks, stack: contextlib.ExitStack) -> tuple[Position, str]:
    """What `resumed` finds in a folder, which is held until the stack is left."""
    stack.enter_context(held(out))
    check_places(out)
    return resumed(out, given, ranks.size)


def shown_by(progress: bool, ranks: Ranks) -> Progress:
    """How a run is shown, by rank 0."""
    return for_terminal() if progress and ranks.rank == 0 else Silent()


def finished(run: Run) -> TrainResult:
    """Train to the end, or to Ctrl-C, in a folder that is held; test, and draw the figures."""
    at_first(run.ranks, lambda: sweep(run.out, FILES))
    whole = run.go()
    loss, accuracy, confusion = run.tested or run.test()
    if not math.isfinite(loss):  # of weights that are finite, as those of a file may be, and yet too large
        raise run.stop(f"before it the loss of the test digits is {loss}", run.untestable())
    at_first(run.ranks, lambda: write_figures(run, confusion))
    run.progress.end(run.out, accuracy, run.state.seconds, whole)
    return TrainResult(run.model.eval(), accuracy, run.state.history, confusion, run.out, whole)


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
