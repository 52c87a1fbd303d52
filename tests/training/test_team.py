"""A batch in shares: that processes together find what one finds, and how they end."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import checkpoint, data, models, training
from npattn.fused import layout, threads
from npattn.fused.shares import gathering
from npattn.nested import leaves
from npattn.training import TrainConfig, TrainingError, network
from npattn.training.batches import batch, drawn, prepared
from npattn.training.team import Board, Done, Task, Team, WorkerLost, forward_backward, put, shared_file, work

pytestmark = pytest.mark.skipif(os.name != "posix", reason="workers need POSIX")


@pytest.fixture(scope="module")
def some() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:200] for file in files), "embedded 10,000")


@pytest.fixture
def tiny(some, monkeypatch) -> data.Digits:
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: some)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    return some


def config(out: Path, **settings) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "batch_size": 64, "processes": 2, "out": str(out), **settings})


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0))


# A step


@pytest.mark.parametrize("model", ["digits", "se-resnet"])
@pytest.mark.parametrize(("processes", "count"), [(2, 64), (2, 7), (3, 32), (3, 4), (3, 1)])
def test_a_step_finds_what_one_process_finds(some, model, processes, count):
    """Also where the shares are not equal, or fewer than the processes. Twice: nothing is left from the first step."""
    images, labels = some.train_images[:count], some.train_labels[:count]
    moves = drawn(images.shape, 2, 10, 0.1, np.random.default_rng(0))
    alone, together = (network(TrainConfig(model=model, processes=n)) for n in (1, processes))
    with (
        Team(TrainConfig(model=model, processes=1)) as one,
        Team(TrainConfig(model=model, processes=processes)) as team,
    ):
        for _ in range(2):
            wanted, found = one.step(alone, images, labels, moves), team.step(together, images, labels, moves)
            assert found.right == wanted.right
            assert abs(found.loss - wanted.loss) < 1e-5
            assert found.grads.keys() == wanted.grads.keys() == together.grads.keys()
            for key, gradient in wanted.grads.items():
                # a share's sums round otherwise, and where two maxima are nearly equal rounding decides
                assert relative(found.grads[key], gradient) < 2e-2, key
                assert np.array_equal(found.grads[key], together.grads[key])
            for key, value in alone.buffers.items():
                assert relative(together.buffers[key], value) < 1e-4, key
            for one_model in (alone, together):
                for key, value in one_model.params.items():
                    one_model.params[key] = value - np.float32(0.01) * wanted.grads[key]


def test_a_step_on_noise_finds_it_to_the_last_digits():
    """On noise no two neighbours are nearly equal."""
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (48, 28, 28), dtype=np.uint8), rng.integers(0, 10, 48)
    results = []
    for processes in (1, 2):
        model = network(TrainConfig(processes=processes))
        with Team(TrainConfig(processes=processes)) as team:
            results.append(team.step(model, images, labels))
    for key, gradient in results[0].grads.items():
        assert relative(results[1].grads[key], gradient) < 2e-5, key


# A norm that does not gather

OWN_NORM = ("spatial-norm", "cbam-official")  # attentions with running statistics of their own, textbook only


def in_two_shares(model: npattn.Sequential, task: Task) -> dict[str, np.ndarray]:
    """The gradients of a batch that two threads share, as two processes do; nobody looks at the layers first."""
    both = threading.Barrier(2, timeout=60)
    rows: list[np.ndarray | None] = [None, None]

    def share(i: int) -> dict[str, np.ndarray]:
        def gather(mine: np.ndarray) -> np.ndarray:
            rows[i] = mine.copy()
            both.wait()
            whole = np.concatenate(rows)
            both.wait()
            return whole

        mine = copy.deepcopy(model)
        part = slice(i * len(task.labels) // 2, (i + 1) * len(task.labels) // 2)
        x, t = batch(mine, task.images[part], task.labels[part])
        with gathering(gather):
            forward_backward(mine, x, t, len(t) / len(task.labels))
        return dict(mine.grads)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(share, range(2))
    return {key: gradient + other[key] for key, gradient in one.items()}


@pytest.mark.parametrize(
    ("attention", "agree"), [("cbam", True), ("spatial", True), *((name, False) for name in OWN_NORM)]
)
def test_why_an_attention_with_a_norm_of_its_own_is_refused(attention: str, agree: bool):
    """Two shares of noise without the guard. Batch norm's own layers ask for the rows of both, and the sums are one
    process's to the last digits. The norm inside of an attention has the textbook form only, which asks nobody: each
    share is normalised by itself, and gradients are off by 6 % (spatial-norm) and by 180 % (cbam-official). Seen as
    well in two real processes, with `shareable` saying yes to all and `work` not looking: the same wrong digits.
    """
    rng = np.random.default_rng(2)
    task = Task(rng.integers(0, 256, (48, 28, 28), dtype=np.uint8), rng.integers(0, 10, 48), None, 1.0)
    model = network(TrainConfig(attention=attention, processes=1))
    shared = in_two_shares(model, task)
    wanted = work(model, task).grads
    apart = max(relative(shared[key], gradient) for key, gradient in wanted.items())
    assert apart < 2e-5 if agree else apart > 0.02


@pytest.mark.parametrize("model", ["digits", "se-resnet"])
def test_an_attention_with_a_norm_of_its_own_has_one_process(model):
    for name in models.attentions():
        attention = models.NETWORKS[model].build(name, rng=0)
        own = [layer for layer in leaves(attention) if layer.buffers and not isinstance(layer, npattn.BatchNorm2d)]
        assert own or name not in OWN_NORM, name
        config = TrainConfig(model=model, attention=name)
        assert config.processes == (1 if own else 2), name
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
    model = network(TrainConfig(attention=attention or "none", fused=fused, processes=1))
    if attention is None:
        model = npattn.Sequential(centred=Centred(), **model.layers)
    task = Task(rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), rng.integers(0, 10, 4), None, 0.5)
    work(model, task)
    with pytest.raises(RuntimeError, match=f"{named}: expected the fused path in a shared batch, took the textbook"):
        work(model, task, lambda rows: rows)


def test_each_process_takes_its_part_of_the_threads(monkeypatch):
    npattn.set_num_threads(6)
    try:
        with Team(TrainConfig(processes=1)) as team:
            assert team.threads == 6
        monkeypatch.setattr("npattn.training.team.Worker", lambda config, count: None)
        assert Team(TrainConfig(processes=4)).threads == 1
        assert Team(TrainConfig(processes=3)).threads == 2
        npattn.set_num_threads(1)
        assert Team(TrainConfig(processes=2)).threads == 1
    finally:
        npattn.set_num_threads(None)


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


def test_digits_lie_side_by_side_where_all_layers_take_them(some):
    images, labels = some.train_images[:9], some.train_labels[:9]
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


def test_two_boards_on_one_file():
    params = network(TrainConfig()).params
    with shared_file(params) as file:
        one, other = Board(params, file), Board(params, file)
    put(params, one.params)
    assert all(np.array_equal(other.params[key], value) for key, value in params.items())
    assert not any(gradient.any() for gradient in other.grads.values())
    put({key: value + 1 for key, value in params.items()}, other.grads)
    assert all(np.array_equal(one.grads[key], value + 1) for key, value in params.items())
    assert all(np.array_equal(one.params[key], value) for key, value in params.items())


def test_memory_that_has_no_name_may_be_on_disk(monkeypatch):
    """Where the system has no files that are in memory alone."""

    def refused(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    test_two_boards_on_one_file()
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), rng.integers(0, 10, 4)
    with Team(TrainConfig(processes=2)) as team:
        assert np.isfinite(team.step(network(TrainConfig()), images, labels).loss)


# A run


def test_two_processes_learn_the_same_bits_each_time(tiny, tmp_path):
    runs = [npattn.train(config(tmp_path / name), progress=False) for name in ("one", "two")]
    one, two = (run.model.state_dict() for run in runs)
    assert all(one[key].tobytes() == two[key].tobytes() for key in one)
    assert json.loads((runs[0].out / "metrics.json").read_text())["config"]["processes"] == 2
    alone = npattn.train(config(tmp_path / "alone", processes=1), progress=False)
    assert abs(alone.history[0]["loss"] - runs[0].history[0]["loss"]) < 0.02


def test_going_on_ends_in_the_same_bits(tiny, tmp_path, monkeypatch):
    whole = npattn.train(config(tmp_path / "whole"), progress=False).model.state_dict()
    step, done = training.Run.step, []

    def interrupted_step(run, order):
        step(run, order)
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training.Run, "step", interrupted_step)
    first = npattn.train(config(tmp_path / "run"), progress=False)
    assert not first.finished
    second = npattn.train(resume=first.out, progress=False).model.state_dict()
    assert all(second[key].tobytes() == whole[key].tobytes() for key in whole)


def test_a_run_from_before_goes_on_in_one_process(tiny, tmp_path):
    out = npattn.train(config(tmp_path / "run", processes=1, epochs=1), progress=False).out
    arrays, meta = checkpoint.load(out / training.CHECKPOINT)
    del meta["config"]["processes"], meta["format"], meta["version"]
    checkpoint.save(out / training.CHECKPOINT, arrays, meta)
    assert training.restored(out)[0].processes == 1


def test_no_worker_is_left(tiny, tmp_path, monkeypatch):
    teams = []
    make = Team.__init__

    def noted(team, config):
        make(team, config)
        teams.append([worker.process for worker in team.workers])

    monkeypatch.setattr(Team, "__init__", noted)
    npattn.train(config(tmp_path / "run", epochs=1, processes=3), progress=False)
    (workers,) = teams
    assert [worker.poll() for worker in workers] == [0, 0]


def test_a_number_that_is_none_is_named(tiny, tmp_path):
    with pytest.raises(TrainingError, match=r"epoch 1, step \d: (a number is not finite|the loss is).*it began in"):
        npattn.train(config(tmp_path / "run", lr=1e30), progress=False)


def test_a_worker_that_is_killed_ends_the_run(tiny, tmp_path, monkeypatch):
    step = training.Run.step

    def kill_first(run, order):
        if run.state.step == 2:
            run.team.workers[0].process.kill()
        step(run, order)

    monkeypatch.setattr(training.Run, "step", kill_first)
    with pytest.raises(TrainingError, match=r"a worker process was killed by signal 9 .* stands before epoch 1, step"):
        npattn.train(config(tmp_path / "run", save_every=1), progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: tiny)
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    whole = npattn.train(config(tmp_path / "whole"), progress=False).model.state_dict()
    gone_on = npattn.train(resume=tmp_path / "run", progress=False).model.state_dict()
    assert all(gone_on[key].tobytes() == whole[key].tobytes() for key in whole)


def test_a_worker_that_cannot_start(tmp_path, monkeypatch, capfd):
    """Another npattn is found first, and is none."""
    (tmp_path / "npattn").mkdir()
    (tmp_path / "npattn" / "__init__.py").write_text("raise ImportError('not this one')\n")
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(4)
    images, labels = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), rng.integers(0, 10, 4)
    with (
        pytest.raises(WorkerLost, match="ended with status 1; its error is on standard error"),
        Team(TrainConfig(processes=2)) as team,
    ):
        team.step(network(TrainConfig()), images, labels)
    assert "not this one" in capfd.readouterr().err


def test_shares_differ_by_one_digit_at_most(monkeypatch):
    sizes = []

    def noted(model, task, gather=None):
        sizes.append(len(task.labels))
        return Done(np.float32(0), 0, {})

    class Paper:
        """A worker that only reads what it is sent."""

        def __init__(self, config, threads): ...

        close = staticmethod(lambda: None)

        def give(self, task, params):
            noted(None, task)

        def done(self):
            return Done(np.float32(0), 0, {})

    monkeypatch.setattr("npattn.training.team.Worker", Paper)
    monkeypatch.setattr("npattn.training.team.work", noted)
    for count, processes, wanted in (
        (128, 2, [64, 64]),
        (7, 2, [3, 4]),
        (16, 3, [5, 5, 6]),
        (2, 3, [1, 1]),
        (1, 3, [1]),
    ):
        sizes.clear()
        with Team(TrainConfig(processes=processes)) as team:
            team.step(network(TrainConfig()), np.zeros((count, 28, 28)), np.zeros(count, int))
        assert sorted(sizes) == wanted


ENDLESS = """
import numpy as np
from npattn.training import TrainConfig, network
from npattn.training.team import Team
images, labels = np.zeros((8, 28, 28), np.uint8), np.zeros(8, int)
with Team(TrainConfig(processes=2)) as team:
    model = network(TrainConfig())
    while True:
        team.step(model, images, labels)
        print(team.workers[0].process.pid, flush=True)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_ends_with_its_run(seed):
    """In the middle of steps a signal to the worker changes nothing; SIGKILL to the run ends both, without a word."""
    run = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        worker = int(run.stdout.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
        for _ in range(3):
            assert int(run.stdout.readline()) == worker
        time.sleep(np.random.default_rng(seed).uniform(0, 0.1))
    finally:
        run.kill()
    until = time.monotonic() + 20
    while not gone(worker):
        assert time.monotonic() < until, "the worker lives on"
        time.sleep(0.01)
    assert run.communicate()[1] == ""


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"processes": 0}, ValueError, "processes: expected a whole number of at least 1, got 0"),
        ({"processes": 65}, ValueError, "processes: expected a whole number of at most 64"),
        ({"processes": "2"}, TypeError, "processes: expected"),
        ({"processes": 2, "device": "cuda"}, ValueError, "processes: expected 1 on a GPU, got 2"),
        ({"processes": 2, "fused": False}, ValueError, "processes: expected 1 without the fused path, got 2"),
    ],
)
def test_bad_settings(settings, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**settings)


def test_usual_settings(monkeypatch):
    assert TrainConfig().processes == 2
    assert TrainConfig(device="cuda").processes == TrainConfig(fused=False).processes == 1
    monkeypatch.setattr("npattn.training.settings.os.name", "nt")
    assert TrainConfig().processes == 1
    assert TrainConfig(processes=2).processes == 2  # as a checkpoint from elsewhere may have it
    with pytest.raises(TrainingError, match="processes: expected 1 on this system, got 2"):
        Team(TrainConfig(processes=2))
