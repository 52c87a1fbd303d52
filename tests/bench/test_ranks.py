"""The ranks of a benchmark, played by another process."""

from __future__ import annotations

import signal
import sys

import pytest

from npattn.bench import ranks
from npattn.bench.sides import BenchError

CHATTER = """
import sys
for line in sys.stdin:
    print("UCX  ERROR scandir(/sys/class/net) failed: No such file or directory", end=sys.argv[1])
    print('{"seconds": 0.25}', flush=True)
"""


def shared(monkeypatch, *text: str) -> ranks.Shared:
    monkeypatch.setattr(ranks, "in_ranks", lambda count, command: [sys.executable, "-c", *text])
    return ranks.Shared("none", 8, 2)


@pytest.mark.parametrize("end", ["\n", " "], ids=["a line of its own", "in front of the answer"])
def test_what_mpi_prints_there_is_passed_over(monkeypatch, end):
    """It was taken for the answer, and the wait for an end that never came had none itself."""
    played = shared(monkeypatch, CHATTER, end)
    try:
        assert [played.seconds(1), played.seconds(2)] == [0.25, 0.25]
    finally:
        played.close()


@pytest.mark.parametrize("text", ["import sys; sys.exit(3)", "import sys; input(); print('no'); sys.exit(3)"])
def test_ranks_that_end(monkeypatch, text):
    played = shared(monkeypatch, text)
    try:
        with pytest.raises(BenchError, match="the ranks ended with status 3"):
            played.seconds(1)
    finally:
        played.close()


def test_ranks_that_do_not_end(monkeypatch):
    """Neither when their input ends nor on SIGTERM."""
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(600)"
    played = shared(monkeypatch, text)
    assert played.process.stdout.readline() == "0\n"
    played.close()
    assert played.process.returncode == -signal.SIGKILL
