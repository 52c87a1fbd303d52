"""A folder is locked first and read then: what decides there cannot be out of date by the time it is acted on.

A process is stopped at the critical moment, and another one tries the same folder meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import npattn
from npattn import ablation, checkpoint, data, files, training
from npattn.ablation import AblationError, trainings
from npattn.training import Run, TrainConfig, TrainingError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of files")

SETTINGS = {"epochs": 1, "batch_size": 16, "processes": 1, "attention": "none"}
PROGRAM = f"""
import os, signal, sys
import npattn
from npattn import checkpoint, data, training
from npattn.training import start
parts = [data.read(data.EMBEDDED, file)[:64] for file in (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)]
data.load = lambda data_dir=None, download=False: data.Digits(*parts, *parts, "embedded 10,000")
start.write_figures = lambda run, confusion: None
where, what, out = sys.argv[1:]
owner = checkpoint if where == "load" else start
real = getattr(owner, where)
def and_stop(*given, **options):
    found = real(*given, **options)
    os.kill(os.getpid(), signal.SIGSTOP)
    return found
setattr(owner, where, and_stop)
try:
    if what == "resume":
        npattn.train(resume=out, progress=False)
    else:
        npattn.train(training.TrainConfig(**{SETTINGS}, out=out), progress=False)
except training.TrainingError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)
    parts = [data.read(data.EMBEDDED, file)[:64] for file in files]
    return data.Digits(*parts, *parts, "embedded 10,000")


@pytest.fixture(autouse=True)
def few(digits, monkeypatch) -> None:
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: digits)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)


@contextmanager
def stopped(where: str, what: str, out: Path, told: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that trains in the folder and stands still behind its call of `where`; it goes on after the block.

    What it then says on standard error must be `told`.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where, what, str(out)], stderr=subprocess.PIPE, text=True
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        yield process
        process.send_signal(signal.SIGCONT)
        _, error = process.communicate(timeout=120)
        assert error == told
    finally:
        process.kill()
        process.wait()


def interrupted(out: Path, monkeypatch) -> Path:
    """A run that was interrupted after its first step."""
    step = Run.step

    def once(run, order):
        step(run, order)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", once)
        assert not npattn.train(TrainConfig(**SETTINGS, out=out), progress=False).finished
    return out


def steps(out: Path) -> int:
    """How many the checkpoint has done."""
    return training.restored(out)[3].steps


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_while_a_run_is_read_nobody_else_goes_on_with_it(tmp_path, monkeypatch):
    """Else the other one came to its end, and this one then put the folder back to where it had read it."""
    out = interrupted(tmp_path / "run", monkeypatch)
    with stopped("load", "resume", out) as process:
        before = contents(out)
        with pytest.raises(TrainingError, match="another process is training in this folder"):
            npattn.train(resume=out, progress=False)
        assert contents(out) == before
    assert process.returncode == 0
    assert steps(out) == 4


def test_what_is_read_is_what_the_last_one_left(tmp_path, monkeypatch):
    """Stopped before it has looked into the folder: it goes on from where the other one came to."""
    out = interrupted(tmp_path / "run", monkeypatch)
    with stopped("need_matplotlib", "resume", out) as process:
        assert npattn.train(resume=out, progress=False).finished
        weights = checkpoint.load(out / training.CHECKPOINT)[0]
    assert process.returncode == 0
    assert steps(out) == 4
    again = checkpoint.load(out / training.CHECKPOINT)[0]
    assert all(again[key].tobytes() == weights[key].tobytes() for key in weights)


def test_a_folder_that_was_found_free_is_not_taken_meanwhile(tmp_path):
    out = tmp_path / "run"
    with stopped("State", "new", out) as process:
        with pytest.raises(TrainingError, match="another process is training in this folder"):
            npattn.train(TrainConfig(**SETTINGS, out=out), progress=False)
        assert contents(out) == {}
    assert process.returncode == 0
    assert steps(out) == 4


def test_a_folder_that_was_taken_before_the_lock(tmp_path):
    """Stopped when it has made the folder: it must not write over what another one has trained there since."""
    out = tmp_path / "run"
    told = f"{out}: holds the results of another run; resume that one, or choose another folder\n"
    with stopped("new_folder", "new", out, told) as process:
        npattn.train(TrainConfig(**SETTINGS, out=out, seed=5), progress=False)
        before = contents(out)
    assert process.returncode == 1
    assert contents(out) == before


def test_all_of_a_run_is_within_the_lock(tmp_path, monkeypatch):
    """Reading, deciding, every write, and the figures."""
    seen: list[str] = []

    def watch(owner, name: str) -> None:
        real = getattr(owner, name)

        def within(*given, **options):
            with pytest.raises(BlockingIOError), files.alone(out):
                pass
            seen.append(name)
            return real(*given, **options)

        monkeypatch.setattr(owner, name, within)

    out = tmp_path / "run"
    start = sys.modules["npattn.training.start"]
    for name in ("check_free", "check_places", "sweep", "write_figures", "resumed"):
        watch(start, name)
    watch(sys.modules["npattn.training.run"], "evaluate")
    for name in ("save", "load"):
        watch(checkpoint, name)
    npattn.train(TrainConfig(**SETTINGS, out=out), progress=False)
    npattn.train(resume=out, progress=False)
    new = ["check_free", "check_places", "sweep", "save", "evaluate", "save", "write_figures"]
    assert seen == [*new, "check_places", "resumed", "load", "sweep", "save", "evaluate", "write_figures"]
    with files.alone(out):
        pass


def test_an_ablation_is_alone_in_its_folder(tmp_path, monkeypatch):
    """Two with other settings would each find the folder empty, and mix their trainings."""
    few = ablation.Settings(64, 1, 32, 50)
    monkeypatch.setattr(trainings, "one_training", lambda *given: pytest.fail("it began to train"))
    with files.alone(tmp_path), pytest.raises(AblationError, match="another process is training in this folder"):
        ablation.ablate(tmp_path, only=["none"], seeds=1, settings=few)

    def within(*given):
        with pytest.raises(BlockingIOError), files.alone(tmp_path):
            pass
        raise AblationError("within the lock")

    monkeypatch.setattr(trainings, "stored", within)
    with pytest.raises(AblationError, match="within the lock"):
        ablation.ablate(tmp_path, only=["none"], seeds=1, settings=few)
