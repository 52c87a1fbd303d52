"""On an NVIDIA GPU, by CuPy. Skipped where there is none; test_device.py goes as far as one gets without."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from npattn import cli, training
from npattn.backend import DeviceError, from_numpy, gpu_module, to_numpy
from tests.support.cases import MAKERS, ident, image_for

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy() -> Any:
    try:
        return gpu_module()
    except DeviceError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", MAKERS, ids=ident)
def test_layers(make, dtype, cupy):
    twin, net = make(False).to(dtype=dtype), make(False).to("cuda", dtype=dtype)
    net.load_state_dict(twin.state_dict())
    assert net.xp is cupy
    rng = np.random.default_rng(50)
    x = rng.standard_normal(image_for(net, (2, 8, 14, 10))).astype(dtype)
    y = twin(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    wanted = {"y": y, "dx": twin.backward(dy), **twin.grads, **twin.buffers}
    found = {
        "y": net(from_numpy(x, net.xp)),
        "dx": net.backward(from_numpy(dy, net.xp)),
        **net.grads,
        **net.buffers,
    }
    assert net.path == "textbook"
    within = 1e-11 if dtype == "float64" else 1e-4
    for key, value in wanted.items():
        np.testing.assert_allclose(to_numpy(found[key]), value, rtol=within, atol=within, err_msg=key)
    np.testing.assert_allclose(net.to("cpu")(x), twin(x), rtol=within, atol=within)


def test_training_learns_and_goes_on(tmp_path):
    config = training.TrainConfig(epochs=2, device="cuda", out=str(tmp_path / "run"), test_every=2)
    result = training.train(config, progress=False)
    assert result.accuracy > 0.95
    assert training.load_model(tmp_path / "run").xp is not result.model.xp
    assert training.train(resume=tmp_path / "run", progress=False).accuracy == result.accuracy


@pytest.mark.parametrize("line", [["--shape", "64,256,56,56"], ["--train-step"]], ids=["CBAM", "train step"])
def test_the_benchmark(line, tmp_path):
    out = tmp_path / "bench.json"
    assert cli.main(["bench", "--device", "cuda", "--runs", "3", "--json", str(out), *line]) == 0
    written = json.loads(out.read_text())
    assert "CUDA" in written["machine"]["gpu"]
    assert written["results"][0]["sides"][0]["peak"] > 0
