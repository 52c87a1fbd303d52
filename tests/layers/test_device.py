"""Layers, training and benchmark on a device: up to the GPU itself here, with another library standing in for CuPy.

The stand-in is array-api-strict on its second device, on which no NumPy function works: what would fail on a GPU for
want of a copy to or from it fails there.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
import types
from typing import Any

import array_api_strict
import numpy as np
import pytest

import npattn
from npattn import backend, cli, commands, data, state, training
from npattn.backend import DeviceError, device, gpu_module, placed, to_numpy
from npattn.bench import device as bench_device
from npattn.bench import measure, peers, pytorch, runs, sides
from npattn.block import Place
from npattn.blocks import block
from npattn.checker.cases import makers

SECOND = array_api_strict.Device("device1")


@pytest.fixture
def stand_in(monkeypatch):
    """ "cuda" means array-api-strict's second device."""

    def elsewhere(name: str, xp: Any) -> tuple[Any, Any]:
        return (backend.as_module(array_api_strict), SECOND) if name == "cuda" else (backend.as_module(None), None)

    for module in (state, commands.bench):
        monkeypatch.setattr(module, "placed", elsewhere)


# What a GPU-less machine says


def fake_cupy(available: Any) -> types.ModuleType:
    """A module that looks like CuPy to whoever imports it."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.0.0"
    cupy.ndarray, cupy.generic = type("ndarray", (), {}), type("generic", (), {})
    cupy.cuda = types.SimpleNamespace(is_available=available)
    return cupy


@pytest.fixture
def cupy_without_gpu(monkeypatch):
    """CuPy is installed, and finds no GPU. What needs one raises, as CuPy's functions do."""
    cupy = fake_cupy(lambda: False)

    def no_driver(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.zeros = cupy.asarray = no_driver
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def works_on_the_cpu() -> None:
    net = npattn.CBAM(8, 2, 3, rng=0)
    y = net(np.ones((1, 8, 3, 4), np.float32))
    net.backward(y)
    net.to("cpu")


NO_GPU = r"^device: CuPy \d+\.\d+\.\d+ finds no GPU here: cupy\.cuda\.is_available\(\) is False"


def test_cupy_without_a_gpu_is_as_if_it_were_not_there(cupy_without_gpu, tmp_path, capsys, monkeypatch):
    works_on_the_cpu()
    net = npattn.CBAM(8, 2, 3, rng=0)
    for ask in (gpu_module, lambda: net.to("cuda"), lambda: npattn.ReLU(xp=cupy_without_gpu)):
        with pytest.raises(DeviceError, match=NO_GPU):
            ask()
    assert isinstance(net.params["ca.fc1.weight"], np.ndarray)
    monkeypatch.setattr(pytorch, "torch_module", lambda: None)
    out = str(tmp_path / "run")
    for line in (["train", "--device", "cuda", "--out", out], ["bench", "--device", "cuda"]):
        assert cli.main(line) == 1
        assert "finds no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="cupy is installed")
def test_without_cupy():
    with pytest.raises(DeviceError, match=r'^device: a GPU needs CuPy, which is not installed: pip install "npattn'):
        npattn.ReLU().to("cuda")


def test_cupy_that_cannot_be_imported(monkeypatch):
    """As where a library of CUDA's is missing."""

    def broken(name: str) -> Any:
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(backend.importlib, "import_module", broken)
    with pytest.raises(DeviceError, match=r"which cannot be imported here \(libcuda"):
        gpu_module()


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="cupy is not installed")
def test_the_installed_cupy_decides_by_its_gpu():
    import cupy

    if cupy.cuda.is_available():
        assert npattn.ReLU().to("cuda").xp is npattn.array_module(cupy.zeros(1))
        return
    works_on_the_cpu()
    for ask in (lambda: npattn.ReLU().to("cuda"), lambda: npattn.ReLU(xp=cupy)):
        with pytest.raises(DeviceError, match=NO_GPU):
            ask()


def test_devices_that_are_none():
    for bad in ("tpu", "cuda:0", "", 3):
        with pytest.raises(ValueError, match=r"^device: expected 'cpu' or 'cuda', got "):
            npattn.ReLU().to(bad)
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        training.TrainConfig(device="gpu")
    with pytest.raises(DeviceError, match="device: array_api_strict has no GPU"):
        npattn.ReLU(xp=array_api_strict).to("cuda")


def test_torch_keeps_its_arrays():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = npattn.CBAM(8, 2, 3, rng=0, xp=torch).to("cpu")
    assert net.xp is backend.as_module(torch)
    assert net.device == "cpu"
    y = net(torch.ones(1, 8, 3, 4))
    assert net.backward(y).shape == y.shape
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="device: torch finds no GPU here"):
            net.to("cuda")
        assert net.device == "cpu"


# With a stand-in


@pytest.mark.parametrize("make", makers(), ids=lambda make: make.name)
def test_layers_on_a_device(make, stand_in):
    twin, net = make(False).to(dtype="float64"), make(False).to("cuda", dtype="float64")
    net.load_state_dict(twin.state_dict())
    rng = np.random.default_rng(50)
    x = rng.standard_normal((2, 8, 4, 3))
    y = twin(x)
    dy = rng.standard_normal(y.shape)
    dx = twin.backward(dy)
    x_moved, dy_moved = (backend.from_numpy(array, net.xp, net.device) for array in (x, dy))
    found = {"y": net(x_moved), "dx": net.backward(dy_moved), **net.grads, **net.buffers, **net.state_dict()}
    wanted = {"y": y, "dx": dx, **twin.grads, **twin.buffers, **twin.state_dict()}
    assert found.keys() == wanted.keys()
    for key, value in found.items():
        assert device(value) == SECOND, key
        np.testing.assert_allclose(to_numpy(value), wanted[key], rtol=1e-11, atol=1e-11, err_msg=key)
    for gate in net.attention.values():
        assert device(gate) == SECOND
    copied = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    assert copied.xp is net.xp
    np.testing.assert_allclose(to_numpy(copied(x_moved)), to_numpy(net(x_moved)), rtol=1e-12)
    back = net.to("cpu")
    assert back is net
    np.testing.assert_allclose(net(x), twin(x), rtol=1e-11, atol=1e-12)
    assert all(isinstance(value, np.ndarray) for value in net.state_dict().values())


def test_a_sequential_is_on_one_device(stand_in):
    plain, moved = npattn.ReLU(), npattn.ReLU().to("cuda")
    with pytest.raises(TypeError, match=r"layers\[1\]: expected a layer of numpy and float32, as the first one, got"):
        npattn.Sequential(plain, moved)
    assert npattn.Sequential(moved).device == SECOND


@pytest.fixture
def few(monkeypatch):
    """Training sees a few digits only, and draws nothing."""
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    digits = data.Digits(*(data.read(data.EMBEDDED, file)[:24] for file in files), "embedded 10,000")
    monkeypatch.setattr(data, "load", lambda data_dir=None, download=False: digits)
    return digits


def test_training_on_a_device(stand_in, few, tmp_path):
    """The whole way, figures included: only what goes to the disk leaves the device."""
    settings = {"attention": "cbam", "epochs": 1, "batch_size": 12, "fused": False}
    results = {
        name: training.train(training.TrainConfig(**settings, device=name, out=str(tmp_path / name)), progress=False)
        for name in ("cpu", "cuda")
    }
    moved = results["cuda"].model
    assert all(device(value) == SECOND for value in (*moved.params.values(), *moved.buffers.values()))
    for key, value in results["cpu"].model.state_dict().items():
        np.testing.assert_allclose(to_numpy(moved.state_dict()[key]), value, rtol=2e-3, atol=2e-3, err_msg=key)
    assert results["cuda"].history[0]["loss"] == pytest.approx(results["cpu"].history[0]["loss"], rel=1e-3)
    assert {path.name for path in (tmp_path / "cuda").iterdir()} == {path.name for path in (tmp_path / "cpu").iterdir()}
    loaded = training.load_model(tmp_path / "cuda")
    assert all(isinstance(value, np.ndarray) for value in loaded.state_dict().values())
    again = training.train(resume=tmp_path / "cuda", progress=False)
    assert again.accuracy == results["cuda"].accuracy


def test_a_run_on_a_gpu_is_not_resumed_without_one(few, tmp_path, monkeypatch):
    monkeypatch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)
    with monkeypatch.context() as patch:
        patch.setattr(state, "placed", lambda name, xp: placed("cpu", xp))
        training.train(training.TrainConfig(epochs=1, device="cuda", out=str(tmp_path / "run")), progress=False)
    assert training.load_model(tmp_path / "run").params
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(lambda: False))
    with pytest.raises(DeviceError, match=NO_GPU):
        training.train(resume=tmp_path / "run", progress=False)


@pytest.mark.parametrize("line", [
    ["--block", "cbam", "--shape", "2,4,5,6"], ["--block", "eca", "--shape", "2,4,5,6"], ["--train-step"],
], ids=" ".join)  # fmt: skip
def test_the_benchmark_on_a_device(stand_in, monkeypatch, capsys, line):
    """Our side on the stand-in, PyTorch's left out."""
    monkeypatch.setattr(pytorch, "torch_on", lambda device: None)
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(runs, "BATCH", 8)
    small = bench_device.copy_bandwidth
    monkeypatch.setattr(bench_device, "copy_bandwidth", lambda xp, target, nbytes: small(xp, target, 4096, 1))
    assert cli.main(["bench", "--device", "cuda", "--runs", "2", *line]) == 0
    printed = capsys.readouterr().out
    assert "array_api_strict as the device" in printed
    assert "textbook" in printed
    assert "fused" not in printed.replace("textbook takes", "").partition("runs in turns")[2]
    if "--train-step" not in line:
        assert "textbook takes" in printed
        assert "floors" in printed


def test_growth_is_the_cpus(stand_in, capsys):
    assert cli.main(["bench", "--device", "cuda", "--growth", "x.svg"]) == 2
    assert "which is the CPU's" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["se", "channel", "spatial", "cbam", "eca", "cbam-official"])
def test_the_sides_agree_on_torch(name):
    """PyTorch's sides as they run on a GPU, and ours on torch's arrays in CuPy's place."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(51)
    x = rng.standard_normal((2, 4, 5, 6))
    layer, ours = (block(name).layer(Place(4, 5, 6), rng=0, dtype="float64") for _ in range(2))
    dy = rng.standard_normal(layer(x).shape)
    ours.to(xp=torch).to("cpu")
    eager = (
        pytorch.torch_side("eager", peers.peer(torch, name, layer.state_dict()), x, dy, "cpu")
        if name in peers.PEERS
        else pytorch.autograd_side(layer, x, dy, "cpu")
    )
    compared = [sides.our_side("textbook", ours, x, dy), eager]
    measure.compare(compared, 1e-12)
    assert eager.difference < 1e-12
    for side in compared:
        bench_device.wait(side.xp)
        if not torch.cuda.is_available():
            assert bench_device.peak_memory(side.xp, side.both, side.release) is None
    assert bench_device.copy_bandwidth(ours.xp, ours.device, 1 << 16, 1) > 0
