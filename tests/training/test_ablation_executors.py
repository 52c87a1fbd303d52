"""An ablation whose trainings others run: any executor from Python, and ranks of MPI under the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from npattn import data
from npattn.ablation import AblationError, Settings, ablate
from npattn.ablation import trainings as trainings_module
from npattn.fused.threads import get_num_threads, state
from npattn.training.mpiexec import in_ranks, mpiexec, surroundings
from tests.training.of_ranks import ranks_of

FEW = Settings(digits=64, epochs=1, batch_size=32, test_digits=50)
NAMES = ["none", "se", "channel"]
needs_mpi = pytest.mark.skipif(mpiexec() is None, reason='no mpi4py and mpiexec here: pip install ".[mpi]"')


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    few = data.Digits(*(data.read(data.EMBEDDED, file)[:100] for file in files), "embedded 10,000")
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: few)


def kept(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "trainings").iterdir())


class Scripted(Executor):
    """It trains at once, but the rows of the script come to another end."""

    def __init__(self, **ends: BaseException | None):
        self.ends, self.given = ends, []

    def submit(self, function, row, seed, settings):
        self.given.append(row.name)
        future: Future = Future()
        end = self.ends.get(row.name)
        if row.name not in self.ends:
            future.set_result(function(row, seed, settings))
        elif end is None:
            pass  # never begun
        elif isinstance(end, RuntimeError) and "submit" in str(end):
            raise end
        else:
            future.set_exception(end)
        return future


def test_any_executor(tmp_path):
    """Threads, here: they find what this one finds, but for rounding, and what they change stays theirs."""
    before, threads = state.chosen, get_num_threads()
    with ThreadPoolExecutor(2) as pool:
        assert ablate(tmp_path / "pool", only=NAMES, seeds=1, settings=FEW, executor=pool)
        assert pool.submit(int, 7).result() == 7, "it is left open"
    assert ablate(tmp_path / "here", only=NAMES, seeds=1, settings=FEW)
    assert kept(tmp_path / "pool") == kept(tmp_path / "here") == sorted(f"{name}-seed0.json" for name in NAMES)
    for name in kept(tmp_path / "pool"):
        found, wanted = (json.loads((tmp_path / at / "trainings" / name).read_text()) for at in ("pool", "here"))
        for key in ("row", "seed", "settings", "digits", "parameters"):
            assert found[key] == wanted[key]
        for key in ("train_loss", "test_loss"):
            assert found[key] == pytest.approx(wanted[key], rel=1e-4)
    assert (state.chosen, get_num_threads()) == (before, threads)


def test_so_many_at_a_time(tmp_path, monkeypatch):
    pool = Scripted(none=None, se=None, channel=None)

    class Impatient(Exception):
        pass

    def waited(running, **how):
        raise Impatient(len(running))

    monkeypatch.setattr(trainings_module, "wait", waited)
    for jobs, most in ((None, 3), (2, 2), (9, 3)):
        with pytest.raises(Impatient) as caught:
            ablate(tmp_path, only=NAMES, seeds=1, settings=FEW, executor=pool, jobs=jobs)
        assert caught.value.args == (most,)


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        (BrokenProcessPool("a process has ended"), AblationError, "was ended from outside"),
        (MemoryError("too little"), MemoryError, "too little"),
        (RuntimeError("cannot submit after shutdown"), RuntimeError, "after shutdown"),
    ],
)
def test_what_is_finished_is_kept_when_a_worker_dies(tmp_path, end, error, message):
    """Even if both are told at once: here `none` fails first and the others have their results already."""
    pool = Scripted(none=end)
    with pytest.raises(error, match=message):
        ablate(tmp_path, only=NAMES, seeds=1, settings=FEW, executor=pool)
    done = [name for name in pool.given if name != "none"]
    assert kept(tmp_path) == sorted(f"{name}-seed0.json" for name in done)
    again = Scripted()
    assert ablate(tmp_path, only=NAMES, seeds=1, settings=FEW, executor=again)
    assert sorted(again.given) == sorted(set(NAMES) - set(done))


def test_ctrl_c_in_a_worker(tmp_path):
    """Those that were not begun are taken back, what is finished is kept, and the table is written."""
    pool = Scripted(none=KeyboardInterrupt(), channel=None)
    assert not ablate(tmp_path, only=NAMES, seeds=1, settings=FEW, executor=pool)
    assert kept(tmp_path) == ["se-seed0.json"]
    assert "squeeze-and-excitation" in (tmp_path / "ablation.md").read_text(encoding="utf-8")


def test_what_is_no_executor(tmp_path):
    with pytest.raises(TypeError, match=r"executor: expected a concurrent.futures.Executor or None, got 4"):
        ablate(tmp_path / "out", executor=4)
    assert not (tmp_path / "out").exists()


# Ranks of MPI

ABLATE = ["-m", "npattn", "ablate", "--only", *NAMES, "--seeds", "2", "--epochs", "1", "--test-digits", "100"]


def started(count: int, out: Path, *command: str, digits: int = 100) -> subprocess.Popen[str]:
    return subprocess.Popen(
        in_ranks(count, [sys.executable, *command, *ABLATE, "--digits", str(digits), "--out", str(out)]),
        env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@needs_mpi
def test_on_ranks(tmp_path):
    process = started(3, tmp_path, "-m", "mpi4py.futures")
    said, errors = process.communicate(timeout=180)
    assert (process.returncode, errors) == (0, "")
    assert len(kept(tmp_path)) == 6
    assert said.count("written:") == 1


@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_on_ranks_that_are_stopped(tmp_path, number):
    """By Ctrl-C, or since one is killed, and MPI ends the others: the same command goes on."""
    process = started(3, tmp_path, "-m", "mpi4py.futures", digits=600)
    end = time.monotonic() + 120
    while not (tmp_path / "trainings").exists() or not kept(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.05)
    if number == signal.SIGINT:
        process.send_signal(number)
    else:
        os.kill(ranks_of(process.pid)[-1], number)
    process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 9)
    before = [name for name in kept(tmp_path) if name.endswith(".json")]
    assert 1 <= len(before) < 6
    said, errors = started(3, tmp_path, "-m", "mpi4py.futures", digits=600).communicate(timeout=180)
    assert f"{len(before)} of 6 trainings" in said
    assert errors == ""
    assert len(kept(tmp_path)) == 6


@needs_mpi
def test_ranks_that_would_each_train_everything(tmp_path):
    process = started(2, tmp_path / "out")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    told = "their work is shared out by mpiexec -n 2 python -m mpi4py.futures -m npattn ablate"
    assert set(errors.splitlines()) == {f"npattn: mpiexec has started 2 processes; {told}"}
    assert not (tmp_path / "out").exists()
