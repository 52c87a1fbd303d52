"""What a run leaves on the disk: its folder, where it stands, and the way back from there."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npattn import checkpoint, finite, models
from npattn.arguments import explained
from npattn.checks import real_number, shown, whole_number
from npattn.files import alone, atomic
from npattn.fused.threads import available_threads
from npattn.grad_mode import no_grad
from npattn.nested import Sequential
from npattn.optimizer import AdamW
from npattn.training.history import LARGEST, check_gate_names, checked_history
from npattn.training.settings import TrainConfig, TrainingError, network, path_text
from npattn.version import __version__

CHECKPOINT = "checkpoint.npz"
METRICS = "metrics.json"  # written for people, and never read
FILES = (CHECKPOINT, METRICS, "curves.png", "confusion.png", "attention.png", "gates.png")


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
            setattr(self, name, whole_number(f"state.{name}", getattr(self, name), least=0, most=2**63 - 1))
        for name in ("loss", "seconds", "epoch_seconds"):
            setattr(self, name, real_number(f"state.{name}", getattr(self, name), least=0, most=LARGEST))
        self.history = checked_history("state.history", self.history, self.epoch)


@explained
def load_model(folder: str | os.PathLike[str]) -> Sequential:
    """The network of a run, in eval mode, on the CPU. `prepared` makes its input from images.

    Parameters
    ----------
    folder
        The run's folder.

    Returns
    -------
    Sequential
        Images (N, 1, 28, 28) to scores (N, 10).

    Raises
    ------
    npattn.checkpoint.CheckpointError
        If there is no checkpoint in it, or a broken one.
    TypeError, ValueError
        If `folder` is no path.
    """
    return restored(path_text("folder", folder), "cpu")[2].eval()


def restored(
    out: str | os.PathLike[str], device: str | None = None
) -> tuple[TrainConfig, State, Sequential, AdamW, str]:
    """Config, state, model, optimiser and the digits' source, as `Run.save` left them; None is the run's own device.

    Raises CheckpointError, DeviceError if there is no such device, or TypeError or ValueError if `out` is no path.
    """
    path = Path(path_text("out", out)) / CHECKPOINT
    arrays, meta = checkpoint.load(path)
    try:
        config, state, model, optimizer, source = rebuilt(arrays, meta)
    except (KeyError, TypeError, ValueError) as error:  # of which a file may have made a long one
        raise checkpoint.CheckpointError(f"{path}: does not hold a run of the demo: {error!s:.500}") from None
    move(model, optimizer, device or config.device)
    return config, state, model, optimizer, source


def move(model: Sequential, optimizer: AdamW, device: str) -> None:
    """Move the network and the optimiser's moments to a device. Raises DeviceError if there is none."""
    model.to(device)
    for moment in (optimizer.m, optimizer.v):
        moment.update({key: model.to_array(value) for key, value in moment.items()})


def rebuilt(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> tuple[TrainConfig, State, Sequential, AdamW, str]:
    """The same on the CPU, from arrays and meta. Raises KeyError, TypeError, ValueError if they are not a run's."""
    config = TrainConfig(**{"processes": 1, **named("config", meta["config"])})  # 1: from before batches were shared
    state = State(**named("state", meta["state"]))
    if state.epoch > config.epochs:
        raise ValueError(f"state.epoch: expected at most {config.epochs}, got {state.epoch}")
    model = network(config)
    if any("gates" in row for row in state.history):
        check_gate_names("state.history", state.history, gate_names(config.model, str(config.attention)))
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
    optimizer.steps = whole_number("optimizer_steps", meta["optimizer_steps"], least=0, most=2**63 - 1)
    if not isinstance(meta["source"], str) or not meta["source"].isprintable() or len(meta["source"]) > 100:
        raise TypeError(f"source: expected which digits, in a few words, got {shown(meta['source'])}")
    return config, state, model, optimizer, meta["source"]


def named(name: str, settings: Any) -> dict[str, Any]:
    """A dict of a checkpoint, to be taken as arguments. Raises TypeError if it is none."""
    if not isinstance(settings, dict):
        raise TypeError(f"{name}: expected a dict, got {shown(settings)}")
    return settings


@functools.cache
def gate_names(network: str, attention: str) -> tuple[str, ...]:
    """The names of a network's gates, which only a forward tells: here of one digit, on the textbook path."""
    model = models.NETWORKS[network].build(attention, rng=0, fused=False).eval()
    with no_grad():
        model(model.to_array(np.zeros((1, 1, 28, 28))))
    return tuple(model.attention)


def check_position(path: Path, config: TrainConfig, state: State, optimizer: AdamW, count: int) -> None:
    """Raise CheckpointError if a run on `count` digits cannot stand where the checkpoint says."""
    steps = -(-count // config.batch_size)
    seen = min(state.step * config.batch_size, count)
    fits = state.step <= steps and state.right <= state.seen == seen and (state.epoch < config.epochs or not state.step)
    wrong = []
    if not fits or optimizer.steps != state.epoch * steps + state.step:
        wrong = [f"{state.seen:,} digits", f"{optimizer.steps:,} updates"]
    elif state.loss and not state.step:
        wrong = [f"a loss of {state.loss:g}"]
    if wrong:
        position = f"epoch {state.epoch + 1}, step {state.step + 1}, {' and '.join(wrong)} do not go together"
        raise checkpoint.CheckpointError(f"{path}: does not hold a run of the demo: {position}")


@contextlib.contextmanager
def held(out: Path, error: type[Exception] = TrainingError) -> Iterator[None]:
    """Within the block no other process trains in the folder. What decides there is to be read within, not before.

    Raises `error` if another process is within.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(out))
        except BlockingIOError:
            raise error(f"{out}: another process is training in this folder") from None
        yield


def new_folder(config: TrainConfig) -> Path:
    """The folder for results, made now: `config.out`, or a new one under runs/. Nobody has looked into it yet."""
    if config.out is not None:
        out = Path(config.out)
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


def check_free(out: Path) -> None:
    """Raise TrainingError if the folder, which is held, has another run's results in it."""
    if os.path.lexists(out / CHECKPOINT) or os.path.lexists(out / METRICS):
        raise TrainingError(f"{out}: holds the results of another run; resume that one, or choose another folder")


def check_places(out: Path, names: Iterable[str] = FILES, error: type[Exception] = TrainingError) -> None:
    """Raise `error` if a folder stands where a file is to be put: better now than at the end."""
    for name in names:
        if (out / name).is_dir():
            raise error(f"{out / name}: expected a file, or nothing yet, got a folder")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises OSError."""
    with atomic(path) as file:
        file.write(text.encode())


def versions() -> dict[str, Any]:
    """What the numbers may depend on: versions, BLAS with its threads, processor."""
    from threadpoolctl import threadpool_info

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
        "processors": available_threads(),
    }
