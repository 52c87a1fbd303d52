"""Going on with a run: what its folder says, and what only this call can say.

A folder may have been made by anybody. What the weights depend on is the run's own and is taken from it, checked. It
starts nothing that was not asked for: it fetches no digits, and it looks at no other machine's disk. For these the call
has to say so itself. How many processes share the batches is what mpiexec has started, and not the folder's to say.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from npattn import data
from npattn.backend import DeviceError
from npattn.columns import counted
from npattn.nested import Sequential
from npattn.optimizer import AdamW
from npattn.training.folder import CHECKPOINT, State, check_position, move, restored
from npattn.training.settings import TrainConfig, TrainingError, check_batch

OF_THIS_CALL = ("data_dir", "download", "device", "processes", "epochs")
"""The settings that a call may give when it goes on with a run: a matter of the machine; and more epochs than it had.

Each step then has the learning rate that it has in a run of so many epochs from the start. Nothing else has to be kept:
an interrupted one goes on as any other, to the same bits.
"""


class Position(NamedTuple):
    """Where a run stands, and what it goes on with."""

    config: TrainConfig
    state: State
    model: Sequential
    optimizer: AdamW
    digits: data.Digits


def resumed(out: Path, given: dict[str, Any], size: int = 1) -> tuple[Position, str]:
    """Where the run in a folder stands. The folder must be held: see `npattn.training.folder.held`.

    Parameters
    ----------
    out
        The folder.
    given
        Those of `OF_THIS_CALL` that were given. They take the place of the run's own.
    size
        How many processes share the batches from here on.

    Returns
    -------
    tuple
        Where it stands; and what is to be told, empty if nothing is.

    Raises
    ------
    npattn.checkpoint.CheckpointError
        If there is nothing to go on from.
    TrainingError
        If the folder asks for something that this call would have to ask for, or the digits are others.
    TypeError, ValueError
        If what was given is not right; the message names it.
    npattn.data.DataError
        If the digits cannot be read.
    npattn.backend.DeviceError
        If the run is on a GPU, and there is none.
    MemoryError
        If a step takes more memory than this process may have.
    """
    config, state, model, optimizer, source = restored(out, "cpu")
    before = config.processes or 1
    config = continued(out, config, given, size)
    digits = read_digits(config, given)
    if digits.source != source:
        raise TrainingError(f"{out}: was trained on the {source} digits, but here are the {digits.source}")
    check_position(out / CHECKPOINT, config, state, optimizer, len(digits.train_labels))
    check_batch(config, len(digits.train_labels))
    try:
        move(model, optimizer, config.device)
    except DeviceError as error:
        if "device" in given:
            raise
        raise DeviceError(
            f"{error}; the run was on a GPU, and goes on without one with device cpu (--device cpu)"
        ) from None
    several = counted(before, "process", "processes")
    told = "" if before == size else f"{several} until now, {size} from here on: the weights end in other last bits"
    return Position(config, state, model, optimizer, digits), told


def continued(out: Path, config: TrainConfig, given: dict[str, Any], size: int) -> TrainConfig:
    """The config to go on with. Raises TrainingError if the folder asks for too much, and as TrainConfig."""
    if "data_dir" not in given and str(config.data_dir or "").replace("\\", "/").startswith("//"):
        raise TrainingError(
            f"{out}: asks for digits from {config.data_dir!a:.80}, which may be another machine; give data_dir "
            f"(--data-dir) too"
        )
    if given.get("epochs", config.epochs) < config.epochs:
        raise ValueError(
            f"epochs: expected at least {config.epochs}, which the run in {out} has, got {given['epochs']}"
        )
    changes = {**given, "out": str(out), "download": config.download or given.get("download", False)}
    return dataclasses.replace(config, **{**changes, "processes": size})


def read_digits(config: TrainConfig, given: dict[str, Any]) -> data.Digits:
    """The run's digits, from where they were, downloaded only if this call says so. Raises DataError."""
    download, folder = given.get("download", False), config.data_dir
    if config.download and folder is None and not os.environ.get("NPATTN_DATA"):
        folder = str(data.downloads())
    try:
        return data.load(folder, download=download)
    except data.DataError as error:
        if download or not config.download:
            raise
        again = "the run downloaded its digits; they are fetched again only with download (--download)"
        raise data.DataError(f"{error}; {again}") from None
