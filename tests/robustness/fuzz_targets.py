"""The parsers that fuzz.py asks, and what their answers must fulfil. A new parser is one more row of TARGETS."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage  # noqa: F401 what looks for a digit imports it when it is first asked

import npattn
from npattn import checkpoint, data, models, training
from npattn.ablation import rows, trainings
from npattn.dialects import weights_file
from npattn.explain import images
from npattn.optimizer import AdamW
from npattn.training import folder
from tests.robustness.fuzz_doors import (
    LOST,
    REFUSED,
    SAVED,
    container,
    parse_container,
    parse_special,
    parse_stream,
    pickled,
    safetensors,
    special,
    stream,
)
from tests.robustness.fuzz_inputs import (
    ENTRIES,
    FILE,
    NAMES,
    NUMBERS,
    WHOLE,
    changed,
    entry,
    idx,
    idx_gz,
    image,
    mutated,
    npy,
    value,
    wrong_arrays,
)  # fmt: skip


class Target(NamedTuple):
    name: str
    make: Callable[[random.Random], Any]  # an input: bytes, or what a file's reader hands on
    parse: Callable[[Any], object]  # takes it, or refuses it with one of the
    errors: tuple[type[Exception], ...]
    share: int  # of the inputs
    memory: int = 0  # bytes that a good input needs
    bytes: bool = False  # whether an input is bytes


@contextlib.contextmanager
def held(raw: bytes) -> Iterator[Path]:
    """A file with these bytes, in memory: what reads it goes through the same door as for one on a disk."""
    descriptor = os.memfd_create("an input")
    try:
        written = 0
        while written < len(raw):
            written += os.write(descriptor, raw[written:])
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


# IDX


def parse_idx(raw: bytes) -> None:
    array = data.parse_idx(raw, "the file")
    assert array.dtype == np.uint8
    assert raw == raw[: 4 + 4 * array.ndim] + array.tobytes()


def parse_idx_gz(packed: bytes) -> None:
    raw = data.decompressed(io.BytesIO(packed), FILE)
    assert raw == WHOLE
    parse_idx(raw)


CONFIG = dataclasses.asdict(training.TrainConfig(attention="none"))


def parse_config(given: Any) -> None:
    config = training.TrainConfig(**given)
    again = json.loads(json.dumps(dataclasses.asdict(config)))
    assert training.TrainConfig(**again) == config, "a config is not the same once it has been written and read"


# Checkpoints


GATE = dict.fromkeys(("mean", "spread", "over_images", "saturated", "half"), 0.5)


def seed_run() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the meta of a run that stands in its second epoch."""
    config = training.TrainConfig(attention="se", batch_size=1000)
    row = {"epoch": 1, "loss": 2.0, "accuracy": 0.2, "rate": 0.01, "seconds": 1.0}
    row["gates"] = {f"stage{i}.attention.channel": GATE for i in (2, 3)}
    state = training.State(epoch=1, step=3, loss=6000.0, right=900, seen=3000, seconds=2.0, history=[row])
    model = models.digits("se", rng=0)
    optimizer = AdamW(model.params)
    arrays = {f"model.{key}": array for key, array in model.state_dict().items()}
    arrays |= {f"optimizer.{name}.{key}": a for name in "mv" for key, a in getattr(optimizer, name).items()}
    meta = {
        "config": dataclasses.asdict(config),
        "state": dataclasses.asdict(state),
        "optimizer_steps": 13,
        "source": "embedded 10,000",
    }
    return arrays, meta


ARRAYS, META = seed_run()


def npz(rng: random.Random) -> bytes:
    """A checkpoint with entries of every kind, whose checksums are right; then perhaps changed."""
    out = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w") as archive:  # two of one name are meant
        if rng.random() < 0.9:
            known = {"format": "npattn checkpoint", "version": checkpoint.VERSION, **META}
            content = json.dumps(changed(known, rng)).encode()
            if rng.random() < 0.1:
                content = rng.choice((b"[" * 10**4, b"9" * 5000, b"\xff", b"[]", b"null", mutated(content, rng)))
            archive.writestr("meta.npy", entry(np.frombuffer(content, np.uint8)))
        for name in rng.sample(NAMES, rng.choice((0, 1, 1, 2))):
            kind = zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), rng.choice(ENTRIES) if rng.random() < 0.5 else npy(rng), kind)
        for member in archive.filelist:
            match rng.randrange(30):
                case 0:
                    member.file_size = rng.choice(NUMBERS) % 2**31
                case 1:
                    member.compress_size = rng.choice(NUMBERS) % 2**31
                case 2:
                    member.header_offset = rng.choice(NUMBERS) % 2**31
                case 3:
                    member.flag_bits ^= 1 << rng.randrange(16)
                case 4:
                    member.compress_type = rng.choice((8, 12, 14, 93, 99))
    return mutated(out.getvalue(), rng) if rng.random() < 0.3 else out.getvalue()


def parse_npz(raw: bytes) -> None:
    arrays, meta = checkpoint.read(io.BytesIO(raw), "the file")
    assert isinstance(meta, dict)
    assert sum(array.nbytes for array in arrays.values()) <= len(raw)
    assert all(array.dtype.kind in "fiub" and array.flags.writeable for array in arrays.values())


def run(rng: random.Random) -> tuple[dict[str, np.ndarray], Any]:
    """What `checkpoint.load` hands on: arrays and meta that are nearly those of a run."""
    arrays = ARRAYS if rng.random() < 0.6 else wrong_arrays(ARRAYS, rng)
    arrays = {key: a for key, a in arrays.items() if isinstance(a, np.ndarray) and a.dtype.kind in "fiub"}
    return {key: a for key, a in arrays.items() if isinstance(key, str)}, changed(META, rng)


def parse_run(given: tuple[dict[str, np.ndarray], Any]) -> None:
    arrays, meta = given
    config, state, model, optimizer, source = folder.rebuilt(arrays, meta)
    json.dumps([dataclasses.asdict(config), dataclasses.asdict(state), source], allow_nan=False)
    assert all(np.isfinite(array).all() for array in model.state_dict().values())
    assert all(array.min() >= 0 for array in optimizer.v.values())
    for row in state.history:
        gates = row.get("gates", META["state"]["history"][0]["gates"])
        assert gates.keys() == META["state"]["history"][0]["gates"].keys()
        assert all(numbers.keys() == GATE.keys() for numbers in gates.values())


# state_dicts

LAYER = npattn.Sequential(attention=npattn.CBAM(4, ratio=2, kernel_size=3, rng=0), bn=npattn.BatchNorm2d(4))
STATE = LAYER.state_dict()


def state_dict(rng: random.Random) -> Any:
    return value(rng) if rng.random() < 0.05 else wrong_arrays(STATE, rng)


def parse_state_dict(given: Any) -> None:
    before = {**LAYER.params, **LAYER.buffers}
    try:
        LAYER.load_state_dict(given)
    except Exception:
        assert all(array is before[key] for key, array in {**LAYER.params, **LAYER.buffers}.items())
        raise
    assert all(array.shape == STATE[key].shape for key, array in {**LAYER.params, **LAYER.buffers}.items())


def weights(rng: random.Random) -> bytes:
    """A file of weights of one of the kinds that are read without torch, or of another kind."""
    kind = rng.randrange(20)
    return image(rng) if kind == 0 else idx_gz(rng) if kind == 1 else safetensors(rng) if kind < 9 else npz(rng)


def parse_weights(raw: bytes) -> None:
    with held(raw) as path:
        found = weights_file.contents(path)
    assert all(isinstance(key, str) and array.dtype.kind in "fiub" for key, array in found.state.items())


# Images


def parse_image(raw: bytes) -> None:
    with held(raw) as path:
        found = images.read_digit(path)
    assert found.image.shape == (28, 28)
    assert found.image.dtype == np.uint8
    assert found.notes
    top, bottom, left, right = found.box
    assert 0 <= top < bottom <= found.picture.shape[0]
    assert 0 <= left < right <= found.picture.shape[1]


# What `npattn ablate` keeps

ROW = rows()[0]
SETTINGS = trainings.Settings()
KEPT = {
    "row": ROW.name,
    "seed": 0,
    "settings": dataclasses.asdict(SETTINGS),
    "parameters": 7,
    "accuracy": 0.9,
    "test_loss": 0.3,
    "gates": {"stage2.attention.channel": GATE},
    "seconds": 1.0,
}


def finished(rng: random.Random) -> bytes:
    """A finished training, or one that is nearly it."""
    if rng.random() < 0.02:
        return rng.choice((b"[" * 10**5, b"9" * 5000, b"\xff", b"null"))
    raw = json.dumps(changed(KEPT, rng)).encode()
    return mutated(raw, rng) if rng.random() < 0.3 else raw


def parse_finished(raw: bytes) -> None:
    with held(raw) as path:
        trainings.file_of = lambda *given: path  # type: ignore[assignment]
        found = trainings.stored(Path(), ROW, 0, SETTINGS)
    assert found is not None
    assert found["settings"] == KEPT["settings"]
    assert 0 <= found["accuracy"] <= 1
    json.dumps(found, allow_nan=False)


WRONG = (KeyError, TypeError, ValueError)

TARGETS = (
    Target("idx", idx, parse_idx, (data.DataError,), 30, bytes=True),
    Target("idx.gz", idx_gz, parse_idx_gz, (data.DataError,), 20, bytes=True),
    Target("checkpoint", npz, parse_npz, (checkpoint.CheckpointError,), 20, bytes=True),
    Target("weights", weights, parse_weights, (weights_file.FileError,), 5, memory=16 << 20, bytes=True),
    Target("container", container, parse_container, (ValueError,), 5),
    Target("special", special, parse_special, REFUSED, 3, memory=4 << 20),
    Target("stream", stream, parse_stream, LOST, 5),
    Target("config", lambda rng: changed(CONFIG, rng), parse_config, (TypeError, ValueError), 13),
    Target("run", run, parse_run, WRONG, 1, memory=4 << 20),
    Target("image", image, parse_image, (images.ImageError,), 2, memory=512 << 20, bytes=True),
    Target("ablation", finished, parse_finished, (trainings.AblationError,), 3, bytes=True),
    Target("state_dict", state_dict, parse_state_dict, WRONG, 15),
)
if SAVED:
    TARGETS += (Target("torch", pickled, parse_weights, (weights_file.FileError,), 2, memory=64 << 20, bytes=True),)
