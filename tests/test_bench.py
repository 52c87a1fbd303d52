"""The benchmark: it checks before it times, prints what it measured, and refuses what makes no sense."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

import npattn
from npattn import bench
from npattn.bench import measure, pytorch, sides


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser()
    bench.add_parser(top.add_subparsers(required=True))
    return top


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """These tests time nothing of PyTorch's: it takes seconds to compile."""
    monkeypatch.setattr(pytorch, "torch_module", lambda: None)
    monkeypatch.setattr(measure, "PAUSE", 0)


@pytest.mark.parametrize("block", list(sides.BLOCKS))
def test_a_block_is_measured_and_written(parser, tmp_path, capsys, block):
    out = tmp_path / "out.json"
    line = ["bench", "--block", block, "--shape", "2,4,6,5", "--runs", "3", "--threads", "1", "--json", str(out)]
    arguments = parser.parse_args(line)
    assert arguments.run(arguments) == 0
    written = json.loads(out.read_text())
    assert written["machine"]["threads"] == 1
    assert written["machine"]["numpy"] == np.__version__
    (result,) = written["results"]
    assert result["shape"] == [2, 4, 6, 5]
    assert [side["side"] for side in result["sides"]] == ["fused", "textbook"]
    for side in result["sides"]:
        assert len(side["both"]["times"]) == len(side["forward"]["times"]) == 3
        assert side["both"]["median"] > 0
    printed = capsys.readouterr().out
    assert sides.BLOCKS[block].name in printed
    assert "floor" in printed
    assert 0 < result["bandwidth"] <= result["best_bandwidth"]
    floors = result["sides"][0]["both"]["median"] / result["floor"]["both"]
    assert f"takes {floors:.1f} floors" in printed
    assert f"{result['sides'][0]['both']['median'] * 1e3:.2f}" in printed
    assert npattn.get_num_threads() != 0


@pytest.mark.parametrize(("threads", "names"), [(2, ["fused", "threads", "textbook"]), (1, ["threads", "textbook"])])
def test_a_training_step_is_measured(parser, tmp_path, capsys, threads, names):
    """With two threads also as the demo takes it, in two processes; what the other one needs of memory is not seen."""
    out = tmp_path / "out.json"
    line = ["bench", "--train-step", "--runs", "1", "--threads", str(threads), "--json", str(out)]
    arguments = parser.parse_args(line)
    assert arguments.run(arguments) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert [side["side"] for side in result["sides"]] == names
    assert all((side["peak"] is None) == (side["side"] == "fused") for side in result["sides"])
    assert all(side["both"]["median"] > 0 for side in result["sides"])
    assert all(0 < side["difference"] < 1e-3 for side in result["sides"][1:])
    assert ("two processes share the batch" in capsys.readouterr().out) == ("fused" in names)


def test_sides_that_disagree_are_not_timed():
    right = sides.Side("right", None, lambda: {"y": np.ones(3)})
    wrong = sides.Side("wrong", None, lambda: {"y": np.ones(3) * 1.01})
    measure.compare([right, right], 1e-12)
    with pytest.raises(bench.BenchError, match=r"wrong: y differs from right's by 1.0e-02"):
        measure.compare([right, wrong], 1e-3)
    nan = sides.Side("nan", None, lambda: {"y": np.full(3, np.nan)})
    with pytest.raises(bench.BenchError, match="nan: y differs"):
        measure.compare([right, nan], 1e-3)


def test_a_side_on_another_path_is_refused():
    layer = npattn.ReLU(fused=False)
    x = np.ones((1, 2, 3, 4), dtype=np.float32)
    with pytest.raises(bench.BenchError, match="the fused side took the textbook path"):
        sides.our_side("fused", layer, x, x).both()


@pytest.mark.parametrize("shape", ["8,32,300", "a,b,c,d", "0,1,1,1", "1,2,3,-4", ""])
def test_a_shape_that_makes_no_sense(parser, shape, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["bench", "--shape", shape])
    assert "expected four whole numbers N,C,H,W of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--threads", "--runs"])
def test_a_count_that_makes_no_sense(parser, flag, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["bench", flag, "0"])
    assert "expected a whole number of at least 1" in capsys.readouterr().err


def test_data_with_ties():
    rng = np.random.default_rng(0)
    assert (sides.inputs((2, 3, 4, 5), "float32", "relu", rng) >= 0).all()
    assert not sides.inputs((2, 3, 4, 5), "float64", "zero", rng).any()
    assert sides.inputs((2, 3, 4, 5), "float64", "dense", rng).dtype == np.float64


def test_peak_memory_sees_what_a_call_takes():
    peak = measure.peak_memory(lambda: np.ones(30_000_000))
    assert peak is None or 200e6 < peak < 400e6
