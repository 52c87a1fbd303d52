"""Every peer at its best: the allocators' environments, the processes that measure, and several results made one."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from npattn import cli
from npattn.bench import BenchError, allocators, best, children, report, runs, winners
from npattn.bench.allocators import ALLOCATORS
from npattn.commands import bench as command

needs_glibc = pytest.mark.skipif(not allocators.glibc(), reason="an allocator is chosen on glibc only")
TINY = {"name": "se", "shape": [1, 2, 2, 2], "dtype": "float32", "data": "dense", "runs": 1, "beside": []}


def nobody(doing: str) -> None:
    pass


def task(**settings):
    return {"what": "block", "threads": 1, "settings": TINY | settings}


def side(name, kind="", both=None, forward=None, peak=None, difference=0.0):
    """A side's summary, with these medians in milliseconds."""
    times = {"forward": forward, "both": both}
    timed = {key: {"median": ms / 1e3, "spread": ms / 1e4, "times": [ms / 1e3]} for key, ms in times.items() if ms}
    return {"side": name, "kind": kind, "peak": peak, "difference": difference, **timed}


def result(*sides, bandwidth=1e9, **more):
    floor = {"forward": 0.02 / bandwidth * 1e9, "both": 0.05 / bandwidth * 1e9}
    what = {"block": "cbam", "name": "CBAM", "shape": [8, 32, 300, 300], "dtype": "float32", "data": "dense"}
    measured = {"bandwidth": bandwidth, "best_bandwidth": 2 * bandwidth, "floor": floor}
    return {**what, **measured, "sides": list(sides), "left_out": {}, **more}


@pytest.fixture
def three():
    return {
        "kept": result(side("fused", both=10, forward=5), side("eager", "eager", both=40, forward=9)),
        "tcmalloc": result(side("fused", both=12, forward=4), side("eager", "eager", both=30, forward=12)),
        "as-it-comes": result(
            side("fused", both=9, forward=3, peak=1e6), side("eager", "eager", both=90, forward=2, peak=2e6)
        ),
    }


# Environments


def test_an_environment_has_its_own_allocator_and_no_other():
    before = {
        "PATH": "p",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_CONF": "c",
        "GLIBC_TUNABLES": "t",
        "THP_MEM_ALLOC_ENABLE": "1",
        "LD_PRELOAD": "/a/libjemalloc.so.2 /a/libother.so:libtcmalloc.so.4",
    }
    usual = allocators.environment(ALLOCATORS["as-it-comes"], before)
    assert usual == {"PATH": "p", "LD_PRELOAD": "/a/libother.so"}
    kept = allocators.environment(ALLOCATORS["kept"], before)
    assert kept == usual | allocators.KEPT
    assert int(kept["MALLOC_TRIM_THRESHOLD_"]) > 2**31
    huge = allocators.environment(ALLOCATORS["huge"], {})
    assert huge == {**allocators.KEPT, "THP_MEM_ALLOC_ENABLE": "1"}


def test_an_allocator_of_a_library_is_loaded_first(monkeypatch):
    monkeypatch.setattr(allocators.ctypes.util, "find_library", {"tcmalloc": "libtcmalloc.so.4"}.get)
    found = allocators.environment(ALLOCATORS["tcmalloc"], {"LD_PRELOAD": "libother.so"})
    assert found["LD_PRELOAD"] == "libtcmalloc.so.4:libother.so"
    assert not found.keys() & allocators.KEPT.keys()


@needs_glibc
def test_only_what_is_installed_is_chosen(monkeypatch):
    monkeypatch.setattr(allocators.ctypes.util, "find_library", lambda name: None)
    assert [allocator.name for allocator in allocators.chosen("best")] == ["kept", "huge", "as-it-comes"]
    with pytest.raises(BenchError, match="--allocator tcmalloc: no libtcmalloc_minimal nor libtcmalloc is installed"):
        allocators.chosen("tcmalloc")
    monkeypatch.setattr(allocators.ctypes.util, "find_library", {"tcmalloc_minimal": "t.so"}.get)
    assert "tcmalloc" in [allocator.name for allocator in allocators.chosen("best")]
    assert [allocator.name for allocator in allocators.chosen("tcmalloc")] == ["tcmalloc"]


def test_without_glibc_there_is_nothing_to_choose(monkeypatch):
    monkeypatch.setattr(allocators.platform, "libc_ver", lambda: ("", ""))
    assert allocators.usual("cpu") == "inherited"
    assert allocators.chosen("inherited") == []
    with pytest.raises(BenchError, match="--allocator kept needs glibc"):
        allocators.chosen("kept")
    monkeypatch.setattr(allocators.platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert (allocators.usual("cpu"), allocators.usual("cuda")) == ("best", "inherited")


@pytest.mark.parametrize("line", [["--growth", "g.svg"], ["--device", "cuda"]])
def test_an_allocator_that_would_do_nothing_is_refused(line, capsys, monkeypatch):
    monkeypatch.setattr(command, "placed", lambda on, xp: (None, None))
    monkeypatch.setattr(command.device, "name", lambda xp: "a device")
    assert cli.main(["bench", "--allocator", "kept", *line]) == 2
    assert "--allocator kept: expected inherited" in capsys.readouterr().err


# Processes


@needs_glibc
def test_a_child_measures_under_its_environment():
    """A real one: what it is told arrives, its progress is heard, and its result is what this process would have."""
    told = []
    found = children.in_children(task(), [ALLOCATORS["kept"]], told.append)
    assert found["sides"][0]["both"]["allocator"] == "kept"
    assert found["sides"][0]["peak"] is None  # of memory that is kept nothing can be seen
    assert found["shape"] == [1, 2, 2, 2]
    assert [one["side"] for one in found["sides"]] == ["fused"]
    assert told[0] == "kept: forward, turn 1 of 1: fused"
    assert "kept: both, turn 1 of 1: fused" in told


@needs_glibc
def test_a_child_tells_its_error():
    with pytest.raises(children.ChildEnded, match=r"allocator kept: .*none") as caught:
        children.in_child(task(name="none"), ALLOCATORS["kept"], nobody)
    assert caught.value.status == 1


def fake(monkeypatch, source):
    """Children that run this in place of child.py, with the pipe's number as N."""
    monkeypatch.setattr(children, "COMMAND", [sys.executable, "-c", f"import sys, os\nN = int(sys.argv[1])\n{source}"])


FAILING = {
    "print('lost', file=sys.stderr); sys.exit(3)": ("ended with status 3; its error is on standard error", 3),
    "os.kill(os.getpid(), 9)": ("was killed by signal 9", 137),
    'os.write(N, b\'{"error": "too large"}\\n\'); sys.exit(1)': ("too large", 1),
    "sys.exit(0)": ("ended with status 0", 1),
}


@pytest.mark.skipif(os.name != "posix", reason="a pipe by its number")
@pytest.mark.parametrize("source", FAILING)
def test_a_child_that_fails_is_told_in_one_line(source, monkeypatch, capsys, tmp_path):
    """With its status; and what was measured before is written."""
    message, status = FAILING[source]
    out = tmp_path / "out.json"
    fake(monkeypatch, source)
    monkeypatch.setattr(command, "chosen", lambda name: [ALLOCATORS["kept"]])
    assert cli.main(["bench", "--block", "eca", "--shape", "1,2,2,2", "--json", str(out)]) == status
    assert f"npattn: allocator kept: {message}" in capsys.readouterr().err
    assert not out.exists()
    measured = iter([result(side("fused", both=1, forward=1))])

    def once(task, chosen, tell):
        for one in measured:
            return one
        raise children.ChildEnded(chosen[0], "gone", 7)

    monkeypatch.setattr(command, "in_children", once)
    assert cli.main(["bench", "--table", "--json", str(out)]) == 7
    assert len(json.loads(out.read_text())["results"]) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_the_child(monkeypatch):
    """And does not reach it by itself: the terminal's Ctrl-C is for a whole group of processes."""
    fake(monkeypatch, 'import time\nos.write(N, b\'{"doing": "%d"}\\n\' % os.getpid()); time.sleep(60)')
    numbers = []

    def tell(doing):
        numbers.append(int(doing.removeprefix("kept: ")))
        assert os.getsid(numbers[0]) == numbers[0] != os.getsid(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        children.in_child(task(), ALLOCATORS["kept"], tell)
    with pytest.raises(ProcessLookupError):
        os.kill(numbers[0], 0)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_does_not_hear_is_killed(monkeypatch):
    source = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout=None: wait(timeout and 0.1))
    children.end(process)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


@needs_glibc
def test_a_child_ends_when_nobody_reads_it():
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([*children.COMMAND, str(writing)], stdin=subprocess.PIPE, pass_fds=(writing,), text=True)
    os.close(writing)
    process.communicate(json.dumps(task()))
    assert process.returncode == 1


def test_children_get_threads_and_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "/some/place"])
    found = children.surroundings(ALLOCATORS["kept"], 3)
    assert found["NPROC"] == "3"
    assert found["PYTHONPATH"] == os.pathsep.join([os.getcwd(), "/some/place"])
    assert found.items() >= allocators.KEPT.items()


def test_what_each_child_is_asked_for(monkeypatch):
    """As it comes the textbook is not timed, and only there memory is seen."""
    asked = {}

    def in_child(task, allocator, tell):
        asked[allocator.name] = task["settings"]
        return result(side("fused", both=1, forward=1))

    monkeypatch.setattr(children, "in_child", in_child)
    children.in_children(task(), list(ALLOCATORS.values()), nobody)
    assert {name: settings["peaks"] for name, settings in asked.items()} == {
        name: name == "as-it-comes" for name in ALLOCATORS
    }
    assert [name for name, settings in asked.items() if "textbook" in settings.get("untimed", ())] == ["as-it-comes"]
    children.in_children(task(), [ALLOCATORS["as-it-comes"]], nobody)
    assert "untimed" not in asked["as-it-comes"]


# Several results made one


def test_a_side_is_taken_at_its_best(three):
    """Each kind of time for itself, never with memory as it comes; the memory from there alone."""
    before = copy.deepcopy(three)
    found = best.merged(three, {"kept", "tcmalloc"})
    ours, eager = found["sides"]
    assert (ours["both"]["median"], ours["both"]["allocator"]) == (0.010, "kept")
    assert (ours["forward"]["median"], ours["forward"]["allocator"]) == (0.004, "tcmalloc")
    assert (eager["both"]["median"], eager["both"]["allocator"]) == (0.030, "tcmalloc")
    assert (eager["forward"]["median"], eager["forward"]["allocator"]) == (0.009, "kept")
    assert (ours["peak"], eager["peak"]) == (1e6, 2e6)
    assert best.ratio(found, "eager", "both") == pytest.approx(3.0)
    assert best.ratio(best.as_it_comes(found), "eager", "both") == pytest.approx(10.0)
    assert found["allocators"] == before


def test_the_floor_is_the_quickest_copys(three):
    three["tcmalloc"] |= result(bandwidth=2e9) | {"sides": three["tcmalloc"]["sides"]}
    three["as-it-comes"]["bandwidth"] = 9e9
    found = best.merged(three, {"kept", "tcmalloc"})
    assert (found["bandwidth"], found["floor"]["both"]) == (2e9, 0.025)
    assert found["best_bandwidth"] == 4e9


def test_one_allocator_alone(three):
    for name in three:
        found = best.merged({name: three[name]}, set())
        assert best.ratio(found, "eager", "both") == best.ratio(three[name], "eager", "both")
        assert best.as_it_comes(found) is None


def test_a_side_that_only_some_have(three):
    """It failed to compile once; the textbook is not timed as it comes."""
    three["tcmalloc"]["sides"].append(side("compiled", "compiled", both=20, forward=2))
    three["kept"]["left_out"] = {"compiled": "no compiler"}
    three["kept"]["sides"].append(side("textbook", both=99, forward=98))
    three["as-it-comes"]["sides"].append(side("textbook", peak=3e6, difference=1e-6))
    found = best.merged(three, {"kept", "tcmalloc"})
    assert best.ratio(found, "compiled", "both") == 2.0
    textbook = best.by_name(found, "textbook")
    assert (textbook["peak"], textbook["difference"], textbook["both"]["median"]) == (3e6, 1e-6, 0.099)
    assert found["left_out"] == {"compiled": "no compiler"}
    assert best.quickest(found, "compiled", "forward") == ("compiled", pytest.approx(0.5))
    assert best.quickest(three["kept"], "compiled", "forward") is None


# What is printed


def test_a_report_of_80_columns(three):
    """With the longest names and numbers that there are; left out is what does not fit."""
    long = {"both": 12345.678, "forward": 98765.4, "peak": 99999e6, "difference": 1.23e-5}
    for one in three.values():
        one["sides"] += [side("compiled NHWC", "compiled", **long), side("timm compiled", "compiled", **long)]
        one["name"] = "variants.CoordinateAttention, coordinate-something"
    three["kept"]["left_out"] = {"autotuned": "InductorError: " + "x" * 100}
    found = best.merged(three, {"kept", "tcmalloc"})
    lines = report.report(found).splitlines()
    assert max(map(len, lines)) == 80
    assert any(line.startswith("  autotuned left out: InductorError: xxx") and line.endswith("…") for line in lines)
    eager = next(line for line in lines if line.startswith("  eager ")).split()
    assert eager == ["eager", "9.00", "0.90", "2.25", "30.00", "3.00", "3.00", "10.0", "2", "0e+00"]
    assert "  best eager ÷fused: forward 2.25 (eager), both 3.00 (eager)" in lines
    for line in lines[4:8]:  # columns do not run into each other
        assert len(line[15:].split()) == (8 if line.startswith("  fused") else 9)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.004, "0.00"), (9.996, "10.00"), (123.456, "123.46"), (1730.88, "1730.9"),
                        (12345.6, "12346"), (999.999, "1000.00"), (99999.9, "100000")],
)  # fmt: skip
def test_figures_keep_to_their_columns(value, text):
    assert report.figure(value) == text
    assert len(text) <= 7


def test_ratios_keep_to_their_columns():
    assert [report.times(value) for value in (0.496, 9.994, 9.996, 99.94, 99.96, 4321.0)] == [
        "0.50", "9.99", "10.0", "99.9", "100", "4321",
    ]  # fmt: skip


def test_the_closing_table_says_who_wins_where(three):
    three["kept"]["sides"].append(side("jax", "compiled", both=8, forward=40))
    three["tcmalloc"]["sides"].append(side("jax", "compiled", both=9, forward=40))
    step = result(side("fused", both=2), side("eager", "eager", both=4), block="train step", name="training step, cbam")
    lines = winners.winners([best.merged(three, {"kept", "tcmalloc"}), step]).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("CBAM (8,32,300,300)"))
    assert row.split()[2:] == ["2.25", "10.0", "3.00", "0.80", "0.67", "·", "10.0", "·"]
    assert next(line for line in lines if line.startswith("training")).split()[3:] == ["·", "·", "2.00", *"·····"]
    assert lines[-4:] == [
        "ahead of us at best:",
        "  CBAM (8,32,300,300): fwd+bwd 0.80 (jax)",
        "ahead of us as it comes:",
        "  CBAM (8,32,300,300): forward 0.67 (eager)",
    ]
    assert winners.winners([step]).splitlines()[-2:] == ["ahead of us at best: none", "ahead of us as it comes: none"]


def test_the_table_ends_with_the_training_step_and_who_wins(monkeypatch, capsys):
    asked = []

    def in_children(task, chosen, tell):
        asked.append(task)
        return result(side("fused", both=1, forward=1), side("eager", "eager", both=2, forward=2))

    monkeypatch.setattr(command, "in_children", in_children)
    monkeypatch.setattr(command, "chosen", lambda name: [ALLOCATORS["kept"]])
    assert cli.main(["bench", "--table", "--beside", "eager"]) == 0
    assert [task["what"] for task in asked] == ["block"] * (len(asked) - 1) + ["train step"]
    assert {tuple(task["settings"]["shape"]) for task in asked[:-1]} >= {(32, 512, 7, 7), (1, 512, 7, 7)}
    assert all(task["settings"]["beside"] == ["eager"] for task in asked)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert printed[-1].startswith("ahead of us")


def test_a_table_that_is_interrupted_leaves_its_rows(monkeypatch, tmp_path, capsys):
    def in_children(task, chosen, tell):
        if task["settings"]["name"] == "se":
            raise KeyboardInterrupt
        return best.merged({"kept": result(side("fused", both=1, forward=1))}, {"kept"})

    monkeypatch.setattr(command, "in_children", in_children)
    monkeypatch.setattr(command, "chosen", lambda name: [ALLOCATORS["kept"]])
    out = tmp_path / "out.json"
    assert cli.main(["bench", "--table", "--json", str(out)]) == 130
    assert "npattn: interrupted" in capsys.readouterr().err
    (row,) = json.loads(out.read_text())["results"]
    assert row["allocators"]["kept"]["sides"][0]["both"]["times"] == [0.001]


def test_the_page_tells_of_every_allocator_and_side():
    page = (Path(__file__).parents[2] / "docs" / "fused.md").read_text(encoding="utf-8")
    table = page.partition("### Every peer at its best")[2]
    for allocator in ALLOCATORS.values():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{allocator.name}`"))
        if allocator.name == "huge":
            assert "the same" in row
        else:
            assert all(f"`{key}={value}`" in row for key, value in allocator.variables.items())
        assert all(f"lib{name}.so" in row for name in allocator.libraries[:1])
    peers = table.partition("| side | |")[2]
    assert all(f"`{name}`" in peers for name in runs.BESIDE if name != "textbook")
