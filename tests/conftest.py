"""Hypothesis profiles, and the fixture that runs a test on every array library at hand."""

from __future__ import annotations

import os
import sys
from socket import gethostname
from typing import Any, NamedTuple

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one test a processor at a time: BLAS need not share it out

import array_api_strict
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from npattn.backend import DeviceError, as_module, from_numpy, gpu_module, to_numpy
from tests.support.trees import mapped

quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=15, **quiet)
settings.register_profile("ci", max_examples=25, derandomize=True, **quiet)
settings.register_profile("thorough", max_examples=10_000, **quiet)
settings.load_profile(os.environ.get("NPATTN_HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


HERE = (None, "", "127.0.0.1", "::1", "localhost", gethostname())


def offline(event: str, arguments: Any) -> None:
    """An audit hook: no test asks another machine for anything. A browser on this one is driven over a socket."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in HERE:
        raise RuntimeError(f"a test connects to {arguments[1][0]}")
    if event == "socket.getaddrinfo" and arguments[0] not in HERE:
        raise RuntimeError(f"a test looks up {arguments[0]}")


sys.addaudithook(offline)


@pytest.fixture(autouse=True)
def trains_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a test calls as a function trains in the test's process, where the test's stand-ins are."""
    if "npattn.commands.train" in sys.modules:
        monkeypatch.setattr("npattn.commands.train.mpiexec", lambda: None)


class Library(NamedTuple):
    """An array library and a device of it."""

    name: str
    xp: Any
    device: Any

    def array(self, values: Any) -> Any:
        """A tree of NumPy arrays as this library's, on its device."""
        if self.name == "numpy":
            return values
        return mapped(lambda value: from_numpy(np.array(value), self.xp, self.device), values)

    def numpy(self, values: Any) -> Any:
        """The way back."""
        return mapped(to_numpy, values)


@pytest.fixture(params=["numpy", "array-api-strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request: pytest.FixtureRequest) -> Library:
    """NumPy; array-api-strict on its second device, where no NumPy function works; torch and CuPy if they are there."""
    if request.param == "numpy":
        return Library("numpy", np, None)
    if request.param == "array-api-strict":
        return Library("array-api-strict", array_api_strict, array_api_strict.Device("device1"))
    if request.param == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        return Library("torch", as_module(torch), torch.device("cpu"))
    try:
        return Library("cupy", gpu_module(), None)
    except DeviceError as error:
        pytest.skip(f"no GPU: {error}")
