"""Starting ranks on this machine, by the mpiexec that `pip install "npattn[mpi]"` brings."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence


def mpiexec() -> str | None:
    """The mpiexec of this Python's environment; None if it has none, or no mpi4py, or is not on a POSIX system."""
    if os.name != "posix" or importlib.util.find_spec("mpi4py") is None:
        return None
    return shutil.which("mpiexec", path=sysconfig.get_path("scripts"))


def in_ranks(count: int, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in so many ranks here: no other machine is asked for anything.

    Raises FileNotFoundError if there is no such mpiexec.
    """
    found = mpiexec()
    if found is None:
        raise FileNotFoundError('no mpiexec in this environment: pip install "npattn[mpi]"')
    return [found, "-launcher", "fork", "-localhost", "127.0.0.1", "-n", str(count), *command]


def surroundings() -> dict[str, str]:
    """The environment in which a Python that is started finds modules where this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
