"""What a training run depends on, and the error that ends one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from npattn import models
from npattn.arguments import explained
from npattn.capacity import need
from npattn.checks import one_of, real_number, shown, true_or_false, whole_number
from npattn.fused import twin
from npattn.nested import Sequential, leaves

HELD = {True: 600_000, False: 1_100_000}  # bytes that a step holds for each digit, at most, with and without `fused`
MOST_PROCESSES = 4096
LONGEST_PATH = 4096  # bytes; no system that we know takes a longer one


class TrainingError(Exception):
    """Training cannot start or go on. The message says why, and what is left on the disk."""


@explained
@dataclass(frozen=True)
class TrainConfig:
    """What a run depends on. The same config on the same machine gives the same weights, bit for bit.

    Attributes
    ----------
    attention
        "none", "se", "channel", "spatial", "cbam" or any other of `npattn.models.attentions()`, in capitals or not, or
        the name of its class. None takes the model's own: cbam for digits, se for se-resnet.
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
        The test digits are classified after every so many epochs, 1 to 10⁹, and after the last one.
    save_every
        A checkpoint is written before the first step, after every so many steps of an epoch, 1 to 10⁹, and after each
        epoch. It plays no part in the weights.
    data_dir, download
        Where the digits come from: see `npattn.data.load`.
    out
        The folder for results; None makes a new one under runs/.
    fused
        Whether layers may take their fused path.
    processes
        How many processes share a batch, 1 to 4096, each with as many of its digits, or one more. Part of what the
        weights depend on: sums are added up share by share, which decides their last bits. They are started by
        `mpiexec -n 8`, or by `npattn train --processes 8`; None takes as many as there are, which without mpiexec is
        1. More than 1 need the fused path on the CPU, and an attention without running statistics of its own.
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
    processes: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", one_of("model", plain_text("model", self.model), tuple(models.NETWORKS)))
        attention = models.NETWORKS[self.model].attention if self.attention is None else self.attention
        attention = models.attention_named(plain_text("attention", attention))
        object.__setattr__(self, "attention", attention)
        object.__setattr__(self, "device", plain_text("device", self.device))
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected 'cpu' or 'cuda', got {shown(self.device)}")
        values: dict[str, Any] = {  # as plain numbers and strings, which a checkpoint can hold
            "epochs": whole_number("epochs", self.epochs, most=10**6),
            "batch_size": whole_number("batch_size", self.batch_size, least=2, most=60_000),
            "seed": whole_number("seed", self.seed, least=0, most=2**63 - 1),
            "test_every": whole_number("test_every", self.test_every, most=10**9),
            "save_every": whole_number("save_every", self.save_every, most=10**9),
            "shift": real_number("shift", self.shift, least=0, most=14),
            "turn": real_number("turn", self.turn, least=0, most=180),
            "zoom": real_number("zoom", self.zoom, least=0, most=0.9),
            "lr": real_number("lr", self.lr, least=0),
            "decay": real_number("decay", self.decay, least=0),
        }
        if values["lr"] == 0:
            raise ValueError("lr: expected a learning rate above 0, got 0")
        for name in ("download", "fused"):
            object.__setattr__(self, name, true_or_false(name, getattr(self, name)))
        if self.processes is not None:
            values["processes"] = whole_number("processes", self.processes, most=MOST_PROCESSES)
            if values["processes"] > 1 and (why := self.unshared()):
                raise ValueError(f"processes: expected 1 {why}, got {self.processes}")
        for name in ("data_dir", "out"):
            if getattr(self, name) is not None:
                values[name] = path_text(name, getattr(self, name))
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def unshared(self) -> str:
        """Why processes cannot share a batch of this run, as the end of a clause; empty where they can."""
        if self.device == "cuda":
            return "on a GPU"
        if not self.fused:
            return "without the fused path"
        if not shareable(network(self)):
            return f"with attention {self.attention}, whose own running statistics are not shared between processes"
        return ""


def plain_text(name: str, value: str) -> str:
    """`value` as a plain string, which a checkpoint can hold. Raises TypeError if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a name, got {shown(value)}")
    return str(value)


def path_text(name: str, value: str | os.PathLike[str]) -> str:
    """`value` as a string, after checking that it can be a path. Raises TypeError, ValueError."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a path or None, got {shown(value)}")
    try:
        length = len(os.fsencode(text))
    except ValueError:  # half of a character
        length = 0
    if not 0 < length <= LONGEST_PATH or "\0" in text:
        raise ValueError(f"{name}: expected a path, of at most {LONGEST_PATH} bytes, got {text!a:.80}")
    return text


def check_batch(config: TrainConfig, digits: int, runs: int = 1) -> None:
    """Raise MemoryError if a step of so many runs side by side, on so many digits at most, takes more than there is."""
    batch = min(config.batch_size, digits)
    several = f" in {runs} trainings side by side" if runs > 1 else ""
    need(runs * batch * HELD[config.fused], lambda: f"batch_size: {batch:,} digits a step{several}")


def shareable(model: Sequential) -> bool:
    """Whether processes can share a batch: every layer with running statistics has a fused form, which gathers them."""
    return all(layer.textbook and twin(layer.textbook) for layer in leaves(model) if layer.buffers)


def network(config: TrainConfig) -> Sequential:
    """The network that a config asks for, with its initial weights."""
    return models.NETWORKS[config.model].build(config.attention, rng=config.seed, fused=config.fused)
