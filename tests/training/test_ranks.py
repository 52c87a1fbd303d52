"""A batch in shares: that ranks together find what one process finds, to the last digits, and how they fail."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import cli, data, models
from npattn.fused import layout, threads
from npattn.fused.shares import gathering
from npattn.nested import leaves
from npattn.training import Run, TrainConfig, TrainingError, network, ranks, together
from npattn.training.batches import batch, prepared
from npattn.training.mpiexec import in_ranks, mpiexec, surroundings
from npattn.training.ranks import Alone, world
from npattn.training.step import Task, forward_backward, share, step, work
from tests.training import of_ranks

ROOT = Path(__file__).parents[2]
needs_mpi = pytest.mark.skipif(mpiexec() is None, reason='no mpi4py and mpiexec here: pip install ".[mpi]"')
PROGRAM = [sys.executable, "-m", "tests.training.of_ranks"]


def launch(count: int, *arguments: str, seconds: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """What mpiexec makes of `tests.training.of_ranks` with these arguments."""
    return subprocess.run(
        in_ranks(count, [*PROGRAM, *arguments]),
        env={**surroundings(), "NPATTN_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, cwd=ROOT, timeout=seconds,
    )  # fmt: skip


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0))


# The same numbers


@needs_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_collectives(tmp_path, count):
    done = launch(count, "collectives", str(tmp_path / "found"))
    assert done.returncode == 0, done.stderr
    first = (np.arange(6.0).reshape(2, 3)[:, ::2] * sum(10**r for r in range(count))).tolist()
    rows = [[float(r)] * 2 for r in range(count) for _ in range(r)]
    for r in range(count):
        found = json.loads((tmp_path / f"found.{r}.json").read_text())
        assert (found["rank"], found["size"], found["here"]) == (r, count, count)
        assert (found["sum"], found["rows"], found["told"]) == (first, rows, {"rank": 0})
        parts = [[r, size, [[i] for i in range(size)]] for size in (1, 2, 1) if r < size]
        assert found["first"] == parts
        assert (found["read"], found["refused"]) == ("by 0", "/nowhere/0")
        assert found["odd"].startswith(f"rank 1 of {count}: odder: expected 0, as rank 0 has, got 1; all ranks")


CASES = [
    ("digits", "cbam", "digits", 48),
    ("digits", "cbam", "noise", 50),  # shares of unequal size on three ranks
    ("digits", "cbam", "noise", 2),  # and ranks with no digit at all
    ("se-resnet", "se", "noise", 31),
]


@needs_mpi
@pytest.mark.parametrize(("model", "attention", "kind", "size"), CASES)
def test_twenty_steps_end_where_one_process_ends(tmp_path, model, attention, kind, size):
    """In float64: weights, running statistics, AdamW's moments, losses and hits; at every rank the same bits."""
    how = (model, attention, kind, str(size), "float64")
    alone = of_ranks.trained(Alone(), model, attention, kind, size, "float64")
    for count in (2, 3):
        done = launch(count, "steps", str(tmp_path / f"of{count}"), *how)
        assert done.returncode == 0, done.stderr
        each = [dict(np.load(tmp_path / f"of{count}.{rank}.npz")) for rank in range(count)]
        assert each[0].keys() == alone.keys()
        for key, value in alone.items():
            assert relative(each[0][key], value) < 1e-12, (count, key)
            assert all(found[key].tobytes() == each[0][key].tobytes() for found in each), (count, key)
        assert np.array_equal(each[0]["rights"], alone["rights"])


@needs_mpi
def test_the_same_ranks_end_in_the_same_bits(tmp_path):
    """float32, as a run has it, where another number of ranks would end in quite other bits."""
    found = []
    for name in ("one", "two"):
        assert launch(3, "steps", str(tmp_path / name), "digits", "cbam", "digits", "16", "float32").returncode == 0
        found.append(dict(np.load(tmp_path / f"{name}.0.npz")))
    assert all(found[0][key].tobytes() == found[1][key].tobytes() for key in found[0])


def test_shares_differ_by_one_digit_at_most():
    for N, size, wanted in ((128, 2, [64, 64]), (7, 2, [3, 4]), (16, 3, [5, 5, 6]), (2, 2, [1, 1]), (1, 1, [1])):
        parts = [share(N, rank, size) for rank in range(size)]
        assert sorted(part.stop - part.start for part in parts) == wanted
        assert [n for part in parts for n in range(N)[part]] == list(range(N))


def test_a_process_alone_is_a_rank_of_one():
    alone = Alone()
    x = np.arange(3.0)[None]
    assert alone.allreduce(x) is x
    assert alone.allgather(x) is x
    assert alone.broadcast(x) is x
    assert alone.first(1) is alone
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), rng.integers(0, 10, 4)
    one, other = network(TrainConfig()), network(TrainConfig())
    done, worked = step(one, images, labels), work(other, Task(images, labels, None, 1.0), alone)
    assert all(np.array_equal(done.grads[key], worked.grads[key]) for key in one.params)


# A norm that does not gather

OWN_NORM = ("spatial-norm", "cbam-official")  # attentions with running statistics of their own, textbook only


def in_two_shares(model: npattn.Sequential, task: Task) -> dict[str, np.ndarray]:
    """The gradients of a batch that two threads share, as two ranks do; nobody looks at the layers first."""
    both = threading.Barrier(2, timeout=60)
    rows: list[np.ndarray | None] = [None, None]

    def one(i: int) -> dict[str, np.ndarray]:
        def gather(mine: np.ndarray) -> np.ndarray:
            rows[i] = mine.copy()
            both.wait()
            whole = np.concatenate(rows)
            both.wait()
            return whole

        mine = copy.deepcopy(model)
        part = share(len(task.labels), i, 2)
        x, t = batch(mine, task.images[part], task.labels[part])
        with gathering(gather):
            forward_backward(mine, x, t, len(t) / len(task.labels))
        return dict(mine.grads)

    with ThreadPoolExecutor(2) as pool:
        first, other = pool.map(one, range(2))
    return {key: gradient + other[key] for key, gradient in first.items()}


@pytest.mark.parametrize(
    ("attention", "agree"), [("cbam", True), ("spatial", True), *((name, False) for name in OWN_NORM)]
)
def test_why_an_attention_with_a_norm_of_its_own_is_refused(attention: str, agree: bool):
    """Two shares of noise without the guard. Batch norm's own layers ask for the rows of both, and the sums are one
    process's to the last digits. The norm inside of an attention has the textbook form only, which asks nobody: each
    share is normalised by itself, and gradients are off by 6 % (spatial-norm) and by 180 % (cbam-official).
    """
    rng = np.random.default_rng(2)
    task = Task(rng.integers(0, 256, (48, 28, 28), dtype=np.uint8), rng.integers(0, 10, 48), None, 1.0)
    model = network(TrainConfig(attention=attention))
    shared = in_two_shares(model, task)
    wanted = work(model, task, Alone()).grads
    apart = max(relative(shared[key], gradient) for key, gradient in wanted.items())
    assert apart < 2e-5 if agree else apart > 0.02


@pytest.mark.parametrize("model", ["digits", "se-resnet"])
def test_an_attention_with_a_norm_of_its_own_has_one_process(model):
    for name in models.attentions():
        attention = models.NETWORKS[model].build(name, rng=0)
        own = [layer for layer in leaves(attention) if layer.buffers and not isinstance(layer, npattn.BatchNorm2d)]
        assert own or name not in OWN_NORM, name
        assert bool(TrainConfig(model=model, attention=name).unshared()) == bool(own), name
        assert TrainConfig(model=model, attention=name, processes=1).processes == 1
        if own:
            with pytest.raises(ValueError, match=f"processes: expected 1 with attention {name}, .*, got 2"):
                TrainConfig(model=model, attention=name, processes=2)
        else:
            assert TrainConfig(model=model, attention=name, processes=2).processes == 2


class Centred(npattn.Layer):
    """A layer of nobody's table, with a running statistic: it subtracts the mean over the batch."""

    def __init__(self):
        super().__init__()
        self.buffers["mean"] = self.to_array(0.0)

    def run(self, x):
        return x - np.mean(x), ()

    def undo(self, dy, cache):
        return dy - np.mean(dy), {}


class Two(Alone):
    """Ranks that say they are two, of which the other one has no rows."""

    size = 2


@pytest.mark.parametrize(
    ("attention", "fused", "named"),
    [
        ("cbam", False, r"BatchNorm2d\(16\)"),
        ("spatial-norm", True, r"SpatialAttention\(kernel_size=7, norm=True\)"),
        ("cbam-official", True, r"SpatialAttention\(kernel_size=7, maps=\('max', 'mean'\), norm=True, momentum=0.01\)"),
        (None, True, r"Centred\(\)"),
    ],
)
def test_a_norm_that_cannot_gather_is_told(attention, fused, named):
    """Whatever its class, where a config did not keep it out."""
    rng = np.random.default_rng(3)
    model = network(TrainConfig(attention=attention or "none", fused=fused))
    if attention is None:
        model = npattn.Sequential(centred=Centred(), **model.layers)
    task = Task(rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), rng.integers(0, 10, 4), None, 0.5)
    work(model, task, Alone())
    with pytest.raises(RuntimeError, match=f"{named}: expected the fused path in a shared batch, took the textbook"):
        work(model, task, Two())


def test_digits_lie_side_by_side_where_all_layers_take_them():
    images, labels = of_ranks.images_of("digits", 9)
    for settings, expected in (
        ({}, True),
        ({"model": "se-resnet"}, True),
        ({"attention": "none"}, True),
        ({"attention": "psa"}, False),
        ({"attention": "spatial-mean"}, False),
        ({"fused": False}, False),
    ):
        model = network(TrainConfig(**settings))
        x, t = batch(model, images, labels)
        assert layout.side_by_side(x) == expected, settings
        np.testing.assert_array_equal(x, prepared(images))
        np.testing.assert_array_equal(t, labels)
        seen = {}
        for layer in leaves(model):
            layer.run = lambda x, seen=seen, layer=layer, run=layer.run: (seen.setdefault(layer, x), run(x))[1]
        model(x)
        if expected:
            for layer, x in seen.items():
                assert x.ndim == 2 or layout.side_by_side(x), layer


# Threads


def test_each_rank_takes_its_part_of_the_threads(monkeypatch):
    """Of those on one machine: six threads, three ranks here of four in all."""
    seen: list[int] = []

    class Four(Alone):
        size, here = 4, 3

    digits = data.Digits(*(part[:8] for part in data.load()[:4]), "embedded 10,000")
    run = Run(
        TrainConfig(epochs=1, batch_size=8), npattn.training.State(), network(TrainConfig()), None, digits, Path(),
        npattn.progress.Silent(), Four(),
    )  # fmt: skip
    monkeypatch.setattr(run, "save", lambda: seen.append(threads.inside.most))
    monkeypatch.setattr(run, "step", lambda order: setattr(run.state, "step", 1))
    monkeypatch.setattr(run, "end_epoch", lambda: setattr(run.state, "epoch", 1))
    npattn.set_num_threads(6)
    try:
        assert run.go()
        run.state.epoch = run.state.step = 0
        run.ranks = Alone()
        assert run.go()
    finally:
        npattn.set_num_threads(None)
    assert seen == [2, 2, None, None]


def test_at_most():
    seen: set[int] = set()

    def task(i: int) -> None:
        seen.add(threading.get_ident())
        time.sleep(0.01)

    npattn.set_num_threads(3)
    try:
        with threads.at_most(1):
            threads.in_parallel(task, 6)
            assert seen == {threading.get_ident()}
            with threads.at_most(2):
                threads.in_parallel(task, 6)
            assert seen == {threading.get_ident()}, "what is one task stays one"
        with threads.at_most(8):
            threads.in_parallel(task, 12)
        assert 1 < len(seen) <= 3
        seen.clear()
        with pytest.raises(KeyError), threads.at_most(1):
            raise KeyError
        threads.in_parallel(task, 12)
        assert len(seen) > 1, "the block before it has ended"
    finally:
        npattn.set_num_threads(None)


# Failing


@needs_mpi
@pytest.mark.parametrize(
    ("who", "line"),
    [("1", "npattn: rank 1 of 3: of no use"), ("0", "npattn: rank 0 of 3: too little")],
)
def test_one_that_fails_ends_all_and_says_so(tmp_path, who, line):
    began = time.monotonic()
    done = launch(3, "failing", str(tmp_path), who)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [line]
    assert time.monotonic() - began < 15


@needs_mpi
def test_all_that_fail_alike_raise(tmp_path):
    """Nobody is ended from outside: each has its own exception, and its own way to tell it."""
    done = launch(2, "failing", str(tmp_path), "0,1")
    assert done.returncode != 0
    assert "MemoryError: too little" in done.stderr
    assert "TrainingError: of no use" in done.stderr
    assert "npattn: rank" not in done.stderr


def test_what_mpiexec_has_started_needs_its_mpi(monkeypatch):
    """Else each would take itself for the only one, and train."""
    monkeypatch.setattr(ranks, "started", lambda: 3)
    for module, wanted in (
        (None, "mpiexec has started 3 processes, which need mpi4py .*pip install"),
        ("alone", "sees 1"),
    ):
        fake = None if module is None else type(sys)("mpi4py")
        if fake is not None:
            fake.MPI = type("MPI", (), {"COMM_WORLD": type("Comm", (), {"size": 1})})
        monkeypatch.setitem(sys.modules, "mpi4py", fake)
        with pytest.raises(TrainingError, match=wanted):
            world.__wrapped__()
    monkeypatch.setattr(ranks, "started", lambda: None)
    assert isinstance(world.__wrapped__(), Alone)


def test_what_mpiexec_says(monkeypatch):
    for name in (*ranks.STARTED, *ranks.NUMBERED):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.started(), ranks.place()) == (None, 0)
    for size, rank in zip(ranks.STARTED, ranks.NUMBERED, strict=True):
        monkeypatch.setenv(size, "5")
        monkeypatch.setenv(rank, "3")
        assert (ranks.started(), ranks.place()) == (5, 3)
        monkeypatch.setitem(sys.modules, "mpi4py.futures", type(sys)("mpi4py.futures"))
        assert ranks.started() is None, "the others wait for work there"
        monkeypatch.delitem(sys.modules, "mpi4py.futures")
        monkeypatch.delenv(size)
        monkeypatch.delenv(rank)


def test_weights_that_have_come_apart_end_the_run(tmp_path, monkeypatch):
    class Apart(Alone):
        size = 2

        def allgather(self, rows):
            return np.concatenate([rows, rows + 1])

    config = TrainConfig(epochs=1)
    run = Run(
        config, npattn.training.State(), network(config), None, data.load(), tmp_path, npattn.progress.Silent(), Apart()
    )
    with pytest.raises(TrainingError, match="the ranks' weights are no longer the same"):
        run.save()
    assert not list(tmp_path.iterdir())


# Arguments


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"processes": 0}, ValueError, "processes: expected a whole number of at least 1, got 0"),
        ({"processes": 5000}, ValueError, "processes: expected a whole number of at most 4096"),
        ({"processes": "2"}, TypeError, "processes: expected"),
        ({"processes": 2, "device": "cuda"}, ValueError, "processes: expected 1 on a GPU, got 2"),
        ({"processes": 2, "fused": False}, ValueError, "processes: expected 1 without the fused path, got 2"),
    ],
)
def test_wrong_numbers_of_processes(settings, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**settings)


def test_more_processes_than_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"processes: expected 1, as many as run here, got 2; mpiexec -n 2 starts"):
        npattn.train(TrainConfig(processes=2, out=str(tmp_path / "run")), progress=False)
    assert not (tmp_path / "run").exists()


def test_processes_without_mpi(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("npattn.commands.train.mpiexec", lambda: None)
    assert cli.main(["train", "--processes", "2", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == 'npattn: --processes 2 needs MPI: pip install "npattn[mpi]"\n'


def test_mpi_is_where_it_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert mpiexec() is None
    with pytest.raises(FileNotFoundError, match="no mpiexec"):
        in_ranks(2, ["true"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert mpiexec() is None
    (tmp_path / "mpiexec").write_text("#!/bin/sh\n")
    os.chmod(tmp_path / "mpiexec", 0o755)
    assert mpiexec() == str(tmp_path / "mpiexec")
    assert together.same(Alone(), b"anything")
