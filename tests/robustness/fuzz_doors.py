"""More that fuzz.py asks: what is no file, dicts within dicts, streams that fail."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

with contextlib.suppress(ImportError):  # what weights_file imports when it is first asked
    import safetensors as _  # noqa: F401

from npattn import checkpoint, data, files
from npattn.ablation import trainings
from npattn.dialects import containers, weights_file
from npattn.explain import images
from npattn.streams import LostOutput, Plain
from tests.robustness.fuzz_inputs import NUMBERS, PICTURES, mutated, text, value
from tests.support.nested_weights import CONTAINERS, contained

# What is no regular file, or a huge one

FOLDER = Path(tempfile.mkdtemp(prefix="npattn-fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
KINDS = ("fifo", "directory", "socket", "null", "zero", "full", "sparse", "loop", "missing", "link to a fifo")


def special(rng: random.Random) -> tuple[str, str]:
    """The name of a door and a path, at which there is no file that it could take. Made here, before it is watched."""
    kind, door = rng.choice(KINDS), rng.choice(list(DOORS))
    path = FOLDER / (door if door in ("checkpoint.npz", data.TEST_LABELS.name) else "a file")
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case "null" | "zero" | "full":
            path.symlink_to(f"/dev/{kind}")
        case "sparse":
            sparse(path, rng)
        case "loop":
            path.symlink_to(path)
        case "link to a fifo":
            if not (FOLDER / "pipe").exists():
                os.mkfifo(FOLDER / "pipe")
            path.symlink_to(FOLDER / "pipe")
    return door, str(path)


def sparse(path: Path, rng: random.Random) -> None:
    """A file of some gigabytes, nearly all of it a hole, that begins and ends as a zip or another file may."""
    size = rng.choice((2**31, 2**34 - 1, 2**35, 2**40, 2**42))
    starts = (
        b"PK\3\4",
        (2**33).to_bytes(8, "little") + b"{",
        b"\x80\2}q\0.",
        b"\x93NUMPY\1\0",
        PICTURES[0],
        b"\0\0\x08\3",
    )
    end = b"PK\5\6" + bytes(4) + b"\1\0\1\0" + rng.choice((2**31, 2**32 - 2, 100)).to_bytes(4, "little") + bytes(6)
    with path.open("wb") as file:
        file.write(rng.choice(starts))
        file.truncate(size)
        if rng.random() < 0.7:
            file.seek(size)
            file.write(end)


def kept(path: str) -> None:
    trainings.file_of = lambda *given: Path(path)  # type: ignore[assignment]
    row = trainings.chosen(None)[0]
    if trainings.stored(Path(), row, 0, trainings.Settings()) is None:
        raise FileNotFoundError(path)


DOORS: dict[str, Callable[[str], Any]] = {
    "checkpoint.npz": lambda path: checkpoint.load(Path(path)),
    data.TEST_LABELS.name: lambda path: data.read(Path(path).parent, data.TEST_LABELS),
    "image": images.read_digit,
    "weights": weights_file.contents,
    "ablation": kept,
    "bytes": lambda path: files.read_bytes(path, 2**20),
}
REFUSED = (
    checkpoint.CheckpointError, data.DataError, images.ImageError, weights_file.FileError, trainings.AblationError,
    OSError,
)  # fmt: skip


def parse_special(given: tuple[str, str]) -> None:
    door, path = given
    DOORS[door](path)
    raise AssertionError(f"{door} took {path}, at which there is no file")


# Dicts within dicts, as weights come


def container(rng: random.Random) -> tuple[Any, str | None]:
    """What a file of weights may hold, and what is asked for in it."""
    if rng.random() < 0.3:
        return value(rng), None
    arrays = {
        f"{text(rng)}.weight": np.zeros(rng.choice(((2, 3), (), (0,), (4, 4, 1, 1))), np.float32) for _ in range(3)
    }
    content: Any = contained(arrays, rng.choice(CONTAINERS))
    for _ in range(rng.randrange(4)):
        match rng.randrange(4):
            case 0:
                content = {text(rng): content, **({"": content} if rng.random() < 0.2 else {})}
            case 1:
                content[rng.choice((text(rng), 5, None, ("a",), 2.5, True))] = rng.choice((content, value(rng)))
            case 2:
                content = {**content, text(rng): np.zeros((2, 2)), text(rng): np.array([None])}
            case _:
                for _ in range(rng.choice((1, 12))):
                    content = {"model": content}
    return content, rng.choice((None, None, text(rng), "model", "state_dict", "model.state_dict"))


def parse_container(given: tuple[Any, str | None]) -> None:
    place, others = containers.chosen(*given)
    assert any(containers.is_array(entry) for entry in place.entries.values())
    assert given[1] in (None, place.name)
    assert place.name not in others or others.count(place.name) < len(others) + 1


# What torch.save writes


def saved() -> list[bytes]:
    """A layer's weights in each container, in both forms that torch writes; none where torch is not installed."""
    try:
        import torch
    except ImportError:
        return []
    state = {"fc.0.weight": np.ones((2, 4), np.float32), "fc.2.weight": np.ones((4, 2), np.float32)}
    found = []
    for name in CONTAINERS:
        for as_zip in (True, False):
            out = io.BytesIO()
            torch.save(contained(state, name, tensor=torch.as_tensor), out, _use_new_zipfile_serialization=as_zip)
            found.append(out.getvalue())
    return found


SAVED = saved()


def pickled(rng: random.Random) -> bytes:
    """A file of torch.save, changed a little. torch reads it, and so must make nothing of it but tensors."""
    return mutated(rng.choice(SAVED), rng)


# Streams


class Failing(io.TextIOBase):
    """A stream of an encoding that takes so many letters, and then fails."""

    def __init__(self, encoding: str | None, takes: int, error: Exception) -> None:
        self.kept, self.coding, self.takes, self.error = "", encoding, takes, error

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self.coding

    @property
    def errors(self) -> Any:  # type: ignore[override]
        return "strict"

    def write(self, text: str) -> int:
        if self.takes < len(text):
            raise self.error
        if self.coding is not None and self.coding != "no such":
            text.encode(self.coding)
        self.takes -= len(text)
        self.kept += text
        return len(text)


ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252", "cp932", "gbk", "utf-16", "idna", None, "no such")


def stream(rng: random.Random) -> tuple[Any, bool, list[str]]:
    """A stream, whether its text is needed, and what is printed."""
    fails = rng.choice((OSError(28, "No space left on device"), ValueError("I/O operation on closed file"),
                        BrokenPipeError(32, "Broken pipe")))  # fmt: skip
    letters = "abc ×·÷−²–─…→≤√∞Σ∂ᵀσμ\ud800\0\n\r\x1b漢é😀"
    texts = ["".join(rng.choices(letters, k=rng.choice((0, 1, 9, 200)))) for _ in range(3)]
    made = None if rng.random() < 0.1 else Failing(rng.choice(ENCODINGS), rng.choice((0, 5, 10**6)), fails)
    return made, rng.random() < 0.3, texts


def parse_stream(given: tuple[Any, bool, list[str]]) -> None:
    made, needed, texts = given
    out = Plain(made, "standard output", needed=needed)
    try:
        for each in texts:
            assert out.write(each) == len(each)
        out.flush()
    except LostOutput:
        assert needed
        if isinstance(out.lost, BrokenPipeError):  # a reader who has had enough: nothing is said
            return
        raise
    out.reason()
    if made is not None and made.coding == "utf-8" and out.lost is None:
        assert made.kept.count("a") == "".join(texts).count("a"), "what an encoding has is printed as it is"


LOST = (LostOutput,)


def safetensors(rng: random.Random) -> bytes:
    """A .safetensors file whose header may lie."""
    names = ("F32", "F32", "F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL", "I64", "X9", "f32", None, 5)
    header: dict[str, Any] = (
        {} if rng.random() < 0.7 else {"__metadata__": rng.choice(({"a": "b"}, {"a": 1}, [], None))}
    )
    at = 0
    for _ in range(rng.randrange(4)):
        shape, width = rng.choice(([2, 3], [], [0], [1], [-1], [2.5], [2**40, 2**40], "x")), rng.choice((1, 2, 4, 8))
        size = width * rng.choice((0, 1, 6)) if rng.random() < 0.5 else rng.choice(NUMBERS)
        header[text(rng)] = {"dtype": rng.choice(names), "shape": shape, "data_offsets": [at, at + size]}
        at += min(size, 100)
    raw = json.dumps(header).encode()
    length = len(raw) if rng.random() < 0.9 else rng.choice(NUMBERS)
    whole = (length % 2**64).to_bytes(8, "little") + raw + bytes(at)
    return mutated(whole, rng) if rng.random() < 0.5 else whole
