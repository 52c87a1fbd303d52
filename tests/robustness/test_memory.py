"""What is too large is refused by name before memory is taken for it; what fails all the same ends in one line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import npattn
from npattn import capacity, training
from npattn.bench.size import held
from npattn.block import Place
from npattn.blocks import blocks
from npattn.cli import main
from npattn.dialects import weights_file
from npattn.dialects.weights_file import FileError
from npattn.explain.counts import added
from npattn.explain.trace import trace
from npattn.fused import memory, threads
from npattn.ops.batch_norm import BatchNorm2d
from npattn.ops.linear import Linear
from npattn.training.settings import HELD, TrainConfig

TERABYTE = 2**40


@pytest.fixture
def small(monkeypatch):
    """A machine of 64 MiB."""
    monkeypatch.setattr(capacity, "capacity", lambda: 2**26)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: npattn.SELayer(10**9), r"SELayer\(1000000000, reduction=16\): fc\.0\.weight of shape \(62500000, 10"),
        (
            lambda: npattn.SpatialAttention(kernel_size=10**6 + 1),
            r"SpatialAttention\(kernel_size=1000001\): conv1\.wei",
        ),
        (lambda: npattn.CBAM(10**7), r"CBAM\(10000000, ratio=16, kernel_size=7\): ca\.fc1\.weight .*: 45\.5 TiB"),
        (lambda: Linear(10**7, 10**6), r"Linear\(10000000, 1000000\): weight of shape \(1000000, 10000000\)"),
        (lambda: BatchNorm2d(10**12), r"BatchNorm2d\(1000000000000\): weight of shape \(1000000000000,\)"),
        (lambda: npattn.SELayer(10**18), r"fc\.0\.weight .* PiB of memory; this process may have"),
    ],
)
def test_layers_that_no_machine_can_hold(make, message: str):
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=message):
            make()
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench --shape 9999,9999,999,999", "shape: x of (9999, 9999, 999, 999) in float32, y and their gradients: "),
        (
            "bench --block conv-gate --shape 1,32,200,200",
            "shape: conv-gate on x of (1, 32, 200, 200) in float32, forwa",
        ),
        ("bench --shape 1,2,1000,1000", "shape: cbam on x of (1, 2, 1000, 1000) in float32, forward and backward: "),
        ("bench --shape 1,100000,1,1", "CBAM(100000, ratio=16, kernel_size=7): ca.fc1.weight of shape (6250, 100000, "),
        ("trace cbam --shape 1 999999999 9 9", "--shape: expected at most 4096 numbers, got (1, 999999999, 9, 9)"),
        ("count --stages 99999999x3", "--stages (channels): expected a whole number of at most 1000000, got 99999999"),
        ("count --stages 64x999999999", "--stages (blocks): expected a whole number of at most 1000000, got 999999999"),
        ("trace spatial --kernel-size 1000001", "--kernel-size: expected a whole number of at most 1000000, got 100"),
        (
            "trace spatial --kernel-size 999999",
            "--kernel-size: expected a smaller one: SpatialAttention(kernel_size=9999",
        ),
        (
            "trace se --shape 1 4096 1 1",
            "--shape, --ratio: expected fewer channels, or more: SELayer(4096, reduction=1) ha",
        ),
        ("count --kernel-size 1000001", "--kernel-size: expected a whole number of at most 1000000, got 1000001"),
        ("train --batch-size 1000000000", "--batch-size: expected a whole number of at most 60000, got 1000000000"),
        ("train --batch-size 60000", "batch_size: 10,000 digits a step: "),
        ("ablate --batch-size 60000 --epochs 1", "batch_size: "),
    ],
)
def test_sizes_on_the_command_line(small, capsys, tmp_path, arguments: str, message: str):
    words = arguments.split()
    if words[0] in ("train", "ablate"):
        words += ["--out", str(tmp_path / "out")]
    assert main(words) == (2 if message.startswith("--") else 1)
    said = capsys.readouterr().err
    assert said.startswith(f"npattn: {message}"), said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    ["bench --shape 1,999999999999999999999,1,1", "trace cbam --shape 1 9999999999 9 9", "count --stages 9999999999x3"],
)
def test_a_length_that_no_axis_has(small, capsys, arguments: str):
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert "whole numbers" in capsys.readouterr().err


def test_layers_of_any_width_can_be_counted():
    tracemalloc.start()
    try:
        assert added("se", [(10**6, 10**6)]) == 2 * 10**12 // 16 * 10**6
        assert added("spatial", [(64, 1)], kernel_size=999_999) == 2 * 999_999**2
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    with capacity.shapes_only():
        layer = npattn.CBAM(10**6)
    assert layer.count() == 2 * 10**12 // 16 + 98
    assert npattn.CBAM(32).params["sa.conv1.weight"].any(), "afterwards layers have weights again"


def test_what_is_traced_as_before():
    assert trace("se", (1, 32, 1, 1)).checks[0].difference < 1e-8  # 2,048 parameters, and no more


@pytest.mark.parametrize("name", ["cbam", "se", "conv-gate", "spatial"])
@pytest.mark.parametrize("fused", [True, False])
def test_what_a_benchmark_will_hold(name: str, fused: bool):
    """Foretold from small maps, and measured: never much too much, or what would fit were refused."""
    N, C, H, W = 2, 8, 40, 48
    layer = blocks()[name].layer(Place(C, H, W), rng=0, fused=fused)
    x = np.ones((N, C, H, W), np.float32)
    with npattn.no_grad():
        dy = np.ones_like(layer(x))
    memory.drop()
    tracemalloc.start()
    try:
        y = layer(x)
        dx = layer.backward(dy)
        measured = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert y.nbytes + dx.nbytes < measured, "both are kept, or dx takes the memory that y leaves"
    assert 0.2 * measured < held(blocks()[name], x.shape, "float32", fused) + 2 * x.nbytes < 2 * measured


# How much there is


def test_the_least_limit_counts(monkeypatch, tmp_path):
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < capacity.capacity() <= there
    monkeypatch.setattr(capacity, "group", lambda: iter([5 * 2**20]))
    assert capacity.capacity() == 5 * 2**20
    monkeypatch.setattr(capacity, "group", lambda: iter(()))
    monkeypatch.setattr(capacity, "machine", lambda: iter(()))
    monkeypatch.setattr(capacity, "process", lambda: iter([-3]))
    assert capacity.capacity() == 0
    monkeypatch.setattr(capacity, "process", lambda: iter(()))
    assert capacity.capacity() == sys.maxsize, "a system that tells nothing"


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/a/b", {"a/memory.max": "1000", "a/b/memory.max": "max"}, [1000]),
        ("0::/a/b", {"memory.max": "500"}, [500]),
        ("4:memory:/x", {"memory/memory.limit_in_bytes": "700", "memory/x/memory.limit_in_bytes": "600"}, [600, 700]),
        ("3:cpu:/x", {"cpu/memory.limit_in_bytes": "1"}, []),
        ("0::/../..", {}, []),
        ("nonsense", {}, []),
    ],
)
def test_the_limits_of_a_container(monkeypatch, tmp_path, line: str, files: dict[str, str], expected: list[int]):
    for name, text in {**files, "cgroup": line}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    real = capacity.Path
    where = {"/proc/self/cgroup": tmp_path / "cgroup", "/sys/fs/cgroup": tmp_path}
    monkeypatch.setattr(capacity, "Path", lambda path: where.get(path) or real(path))
    assert list(capacity.group()) == expected


def test_amounts():
    assert [capacity.amount(size) for size in (12, 2**20, 7.25 * TERABYTE, 2**60)] == [
        "12 bytes", "1 MiB", "7.25 TiB", "1,02e+03 PiB".replace(",", "."),
    ]  # fmt: skip


def limited(code: str, more: int) -> subprocess.CompletedProcess[str]:
    """Run Python code under a limit of the address space: so many bytes beyond what it has after the imports."""
    start = (
        "import resource, sys, numpy, npattn.cli\n"
        "numpy.ones((300, 300)) @ numpy.ones((300, 300))  # BLAS ends the process where it gets no memory at first\n"
        "npattn.bench.runs.pytorch.torch_on = lambda on: None\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {more}, resource.RLIM_INFINITY))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("more", [30 << 20, 70 << 20])
@pytest.mark.parametrize("command", ["bench --shape 8,32,300,300", "bench --shape 2,32,100,100 --runs 1 --threads 64"])
def test_a_limit_on_the_address_space(command: str, more: int):
    done = limited(f"sys.exit(npattn.cli.main({command.split()!r}))", more)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert done.stderr.startswith("npattn: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", [250_000, 300_000, 350_000])  # in KiB, as `ulimit -v` counts
def test_too_little_to_begin_with_ends_at_once(limit: int, tmp_path):
    """Where OpenBLAS gets no buffer it may end the process, or spin for ever."""
    command = f"ulimit -v {limit}; {sys.executable} -m npattn train --epochs 1 --out {tmp_path / 'run'}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("npattn: ulimit: ")
    assert done.stderr.count("\n") == 1


def test_the_limit_is_known():
    done = limited("from npattn import capacity; print(capacity.capacity())", 50 << 20)
    assert 40 << 20 < int(done.stdout) <= 50 << 20
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_threads_that_cannot_be_started(monkeypatch):
    """The work is done by those that there are."""
    monkeypatch.setattr(threads, "state", threads.State())
    started = []

    def start() -> None:
        started.append(1)
        if len(started) > 2:
            raise RuntimeError("can't start new thread")

    real = threads.threading.Thread
    monkeypatch.setattr(
        threads,
        "threading",
        SimpleNamespace(
            Thread=lambda **given: SimpleNamespace(start=lambda: (start(), real(**given).start())),
            Lock=threads.threading.Lock,
        ),
    )
    threads.set_num_threads(8)
    try:
        assert threads.in_parallel(lambda i: i * i, 20) == [i * i for i in range(20)]
        assert threads.in_parallel(lambda i: i + 1, 20) == list(range(1, 21))
    finally:
        threads.set_num_threads(None)
    assert len(started) > 2


def test_more_threads_than_any_machine_has(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--threads", "100000"])
    assert "--threads: expected at most 1024, got 100000" in capsys.readouterr().err


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("model", "attention"), [("digits", "cbam"), ("se-resnet", "conv"), ("digits", "psa")])
def test_what_a_step_holds_for_each_digit(model: str, attention: str, fused: bool):
    """The number that a batch is judged by: no step takes more, and CBAM's nearly that."""
    model = training.network(TrainConfig(model=model, attention=attention, fused=fused, processes=1))
    x = training.prepared(np.zeros((64, 28, 28), np.uint8))
    memory.drop()
    tracemalloc.start()
    try:
        y = model(x)
        model.backward_params(np.ones_like(y))
        measured = tracemalloc.get_traced_memory()[1] / 64
    finally:
        tracemalloc.stop()
    assert 0.4 * HELD[fused] < measured < 1.2 * HELD[fused]


def test_a_file_of_weights_that_is_a_hole(tmp_path, monkeypatch):
    """Some gigabytes of nothing, whose header may be right: refused before it is read."""
    path = tmp_path / "holes.safetensors"
    with path.open("wb") as file:
        file.write((2**20).to_bytes(8, "little") + b"{")
        file.truncate(2**33)
    monkeypatch.setattr(capacity, "capacity", lambda: 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"holes\.safetensors: does not fit into the memory"):
            weights_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_shape_for_a_target_of_ones_own(small, capsys):
    for words in (["--shape", "9,999,999,999"], ["--input", "x=9,999,999,999:0..3"]):
        assert main(["gradcheck", "npattn.ops.relu:ReLU", *words]) == 2
        said = capsys.readouterr().err
        assert (
            "--shape or --input 9,999,999,999: 6 arrays of that shape: 401 GiB of memory; this process may have" in said
        )
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory; this process may have "),
        (MemoryError("Unable to allocate 3 GiB"), "Unable to allocate 3 GiB"),
        (ImportError("libx.so: failed to map segment from shared object"), "out of memory, or of threads: libx.so: "),
        (RuntimeError("can't start new thread"), "out of memory, or of threads: can't start new thread"),
        (OSError(12, "Cannot allocate memory"), "out of memory, or of threads: [Errno 12] Cannot allocate memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_want_of_memory_is_told_in_a_line(monkeypatch, capsys, error, words: str):
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr("npattn.commands.count.run", fail)
    assert main(["count"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"npattn: {words}")
    assert said.count("\n") == 1


def test_another_error_is_not_taken_for_one(monkeypatch):
    for error in (ImportError("no module named x"), RuntimeError("a mistake")):
        assert not capacity.shortage(error)
        monkeypatch.setattr("npattn.commands.count.run", lambda arguments, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error), match=str(error)):
            main(["count"])
