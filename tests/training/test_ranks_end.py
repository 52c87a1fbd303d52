"""Training in ranks of MPI from outside: killed, interrupted, out of room, started wrongly, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from npattn import checkpoint, training
from npattn.training.mpiexec import in_ranks, mpiexec, surroundings
from tests.training.of_ranks import children, ranks_of

pytestmark = pytest.mark.skipif(mpiexec() is None, reason='no mpi4py and mpiexec here: pip install ".[mpi]"')

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.training.of_ranks"]
FEW = {"NPATTN_NUM_THREADS": "1", "MPLBACKEND": "agg"}
SECONDS = 15  # in which what is killed is to be gone, on a busy machine too


def started(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env={**surroundings(), **FEW, **environment}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def trained(count: int, out: Path, batch: int = 50, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run of 200 digits, two epochs, in so many ranks: begun, or gone on with."""
    process = started(in_ranks(count, [*PROGRAM, "run", str(out), str(batch)]), **environment)
    said, errors = process.communicate(timeout=240)
    return subprocess.CompletedProcess([], process.returncode, said, errors)


def arrays(out: Path) -> dict[str, np.ndarray]:
    assert json.loads((out / training.METRICS).read_text())["finished"]
    assert not list(out.glob(".*")), "no half-written file is left"
    return checkpoint.load(out / training.CHECKPOINT)[0]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[key].tobytes() == other[key].tobytes() for key in other)


def stands(out: Path) -> int:
    """The steps that the checkpoint holds, 0 before there is one."""
    try:
        return int(checkpoint.load(out / training.CHECKPOINT)[1]["optimizer_steps"])
    except checkpoint.CheckpointError:
        return 0


def until_saved(process: subprocess.Popen[str], out: Path, steps: int = 3) -> None:
    """Wait until the checkpoint holds so many steps."""
    end = time.monotonic() + 120
    while stands(out) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(pids: list[int]) -> bool:
    alive = []
    for pid in pids:
        try:
            alive.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z")
        except OSError:
            alive.append(False)
    return not any(alive)


def wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + SECONDS
    while not gone(pids):
        assert time.monotonic() < end, "a rank lives on"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[int, dict[str, np.ndarray]]:
    """What runs that nobody touches end with, by their number of ranks."""
    found = {}
    for count in (2, 3):
        out = tmp_path_factory.mktemp("whole") / str(count)
        done = trained(count, out)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{count} processes" in " ".join(done.stdout.split())
        assert done.stdout.count("epoch 1/2") == 1, "rank 0 speaks for all"
        found[count] = arrays(out)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc")
@pytest.mark.parametrize(("count", "whom"), [(2, [0]), (3, [2]), (2, [0, 1]), (2, [])])
def test_killed_and_gone_on_with(tmp_path, whole, count, whom):
    """A rank, all, or mpiexec itself (no rank): the others end, and the run goes on to the same bits."""
    out = tmp_path / "run"
    process = started(in_ranks(count, [*PROGRAM, "run", str(out), "50"]), PAUSE="0.1")
    until_saved(process, out)
    ranks = ranks_of(process.pid)
    assert len(ranks) == count
    for pid in [ranks[i] for i in whom] or [process.pid]:
        os.kill(pid, signal.SIGKILL)
    wait_until_gone(ranks)
    process.communicate(timeout=SECONDS)
    assert 3 <= stands(out) < 8
    done = trained(count, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert same(arrays(out), whole[count])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_under_mpiexec(tmp_path, whole, number):
    """It is saved after the step, all end with status 130, and the run goes on to the same bits."""
    out = tmp_path / "run"
    process = started(in_ranks(2, [*PROGRAM, "run", str(out), "50"]), PAUSE="0.1")
    until_saved(process, out)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what was learnt is saved: npattn train --resume" in said
    assert 3 <= stands(out) < 8
    assert trained(2, out).returncode == 0
    assert same(arrays(out), whole[2])


def test_in_another_number_of_ranks(tmp_path, whole):
    """To other last bits, which is said; of one epoch on digits they are near."""
    out = tmp_path / "run"
    process = started(in_ranks(2, [*PROGRAM, "run", str(out), "50"]), PAUSE="0.1")
    until_saved(process, out, 4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    done = trained(3, out)
    assert (done.returncode, done.stderr) == (0, "")
    told = "2 processes until now, 3 from here on: the weights end in other last bits"
    assert told in " ".join(done.stdout.split())
    found = arrays(out)
    assert not same(found, whole[2])
    first, other = (json.loads((out / training.METRICS).read_text()), checkpoint.load(out / training.CHECKPOINT)[1])
    assert first["config"]["processes"] == other["config"]["processes"] == 3


def test_more_ranks_than_digits(tmp_path):
    done = trained(3, tmp_path / "run", batch=2)
    assert (done.returncode, done.stderr) == (0, "")
    assert arrays(tmp_path / "run")


def test_no_room(tmp_path, whole):
    """Rank 0 cannot write its third checkpoint: one line, status 1 of all, and the second one is whole."""
    out = tmp_path / "run"
    command = in_ranks(
        2, [sys.executable, "-c", CLI, "train", "--epochs", "2", "--batch-size", "50", "--out", str(out)]
    )
    process = started([*command, "--save-every", "3"], ROOM="3")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines() == [
        f"npattn: {out}/checkpoint.npz: cannot be written: File too large; "
        f"{out}/checkpoint.npz stands before epoch 1, step 4"
    ]
    assert stands(out) == 3
    assert trained(2, out).returncode == 0
    assert same(arrays(out), whole[2])


CLI = """
import os, sys, time
from npattn import cli, training
from tests.training import of_ranks
time.sleep(float(os.environ.get("LATE", "0")) * int(os.environ.get("PMI_RANK", "0")))
if os.environ.get("OTHER") and os.environ["PMI_RANK"] == "1":
    training.start.__version__ = os.environ["OTHER"]
of_ranks.few()
sys.exit(cli.main(sys.argv[1:]))
"""


def typed(*given: str, second: tuple[str, ...] | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`npattn train` on few digits in two ranks; the second one may have got other arguments."""
    program = [sys.executable, "-c", CLI, "train", "--epochs", "1", "--batch-size", "50"]
    command = in_ranks(2, [*program, *given])
    if second is not None:
        command = [*in_ranks(1, [*program, *given]), ":", "-n", "1", *program, *second]
    process = started(command, **environment)
    said, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess([], process.returncode, said, errors)


def test_two_configs(tmp_path):
    out = str(tmp_path / "run")
    done = typed("--out", out, second=("--out", out, "--seed", "3"))
    alike = "all ranks are to be started alike"
    assert (done.returncode, done.stderr) == (
        1, f"npattn: rank 1 of 2: seed: expected 0, as rank 0 has, got 3; {alike}\n",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_one_begins_and_the_other_goes_on(tmp_path):
    done = typed("--out", str(tmp_path / "run"), second=("--out", str(tmp_path / "else")))
    assert done.returncode == 1
    assert "npattn: rank 1 of 2: out: expected" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_line_that_makes_no_sense_at_one_rank(tmp_path):
    """The other one, which waits for it, is ended."""
    out = str(tmp_path / "run")
    done = typed("--out", out, second=("--out", out, "--epochs", "0"))
    assert done.returncode == 2
    assert "npattn: rank 1 of 2 failed: npattn: --epochs: expected a whole number of at least 1, got 0" in done.stderr
    done = typed("--out", out, "--epochs", "none")
    assert done.returncode == 2
    assert done.stderr.count("invalid int value") == 1
    assert not (tmp_path / "run").exists()


def test_another_version_at_one_rank(tmp_path):
    done = typed("--out", str(tmp_path / "run"), OTHER="9.9")
    assert done.returncode == 1
    assert "rank 1 of 2: npattn: expected '" in done.stderr
    assert "got '9.9'; all ranks are to be started alike" in done.stderr


def test_a_rank_that_starts_late(tmp_path):
    done = typed("--out", str(tmp_path / "run"), LATE="4")
    assert (done.returncode, done.stderr) == (0, "")
    assert arrays(tmp_path / "run")


def test_another_number_than_was_asked_for(tmp_path):
    done = typed("--out", str(tmp_path / "run"), "--processes", "3")
    assert done.returncode == 2
    assert done.stderr.count("--processes: expected 2, as many as run here, got 3; mpiexec -n 3 starts so many") == 1


# The command starts them itself


def command(out: Path, *given: str) -> list[str]:
    return [
        sys.executable, "-m", "npattn", "train", "--epochs", "30", "--batch-size", "16", "--save-every", "3",
        "--attention", "none", "--out", str(out), *given,
    ]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc")
def test_a_rank_of_the_command_is_killed(tmp_path):
    process = started(command(tmp_path / "run"))
    until_saved(process, tmp_path / "run")
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors == (
        "npattn: a process of the training was killed by signal 9 (is there too little memory?), and so all ended; "
        "--resume goes on from its last checkpoint\n"
    )
    assert gone(ranks)
    assert "BAD TERMINATION" not in said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc")
def test_the_command_is_killed(tmp_path):
    process = started(command(tmp_path / "run"))
    until_saved(process, tmp_path / "run")
    all_of_it = children(process.pid)
    assert len(all_of_it) >= 4
    process.kill()
    wait_until_gone(all_of_it)
    process.communicate(timeout=SECONDS)


def test_a_second_ctrl_c_ends_the_command_at_once(tmp_path):
    process = started(command(tmp_path / "run"))
    until_saved(process, tmp_path / "run")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors in ("", "npattn: interrupted\n")


def test_ranks_that_do_not_start(tmp_path, monkeypatch, capfd):
    """What mpiexec has to say is said."""
    from npattn.commands import launch

    monkeypatch.setattr(launch, "in_ranks", lambda count, command: [*in_ranks(count, ["/nowhere/python"])])
    assert launch.launched(2, ["train"]) == 1
    assert "npattn: mpiexec ended with status" in (errors := capfd.readouterr().err)
    assert "/nowhere/python" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "said", "interrupted", "expected"),
    [
        (0, "", 0, 0), (0, "", 1, 0), (0, "", 2, 130), (130, "", 1, 130), (2, "", 0, 2), (1, "", 0, 1), (9, "", 0, 1),
        (2, "", 1, 130), (9, "", 2, 130), (1, "cannot start", 0, 1),
    ],
)  # fmt: skip
def test_mpiexecs_status(status: int, said: str, interrupted: int, expected: int):
    """0 means that it is done: after a second Ctrl-C mpiexec says so whatever has become of the ranks."""
    from npattn.commands.launch import told

    assert told(status, said, interrupted) == expected
