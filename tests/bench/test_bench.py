"""The benchmark: it checks before it times, prints what it measured, and refuses what makes no sense."""

from __future__ import annotations

import argparse
import json
import types

import numpy as np
import pytest

import npattn
from npattn import bench, cli
from npattn.bench import growth, measure, pytorch, report, runs, sides
from npattn.block import Place
from npattn.blocks import block, blocks

TORCH_MODULE = pytorch.torch_module  # before without_torch puts another in its place


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    return cli.parser()


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """These tests time nothing of PyTorch's: it takes seconds to compile."""
    monkeypatch.setattr(pytorch, "torch_module", lambda: None)
    monkeypatch.setattr(measure, "PAUSE", 0)


@pytest.fixture
def quick(monkeypatch):
    """A run takes no longer than a call or two, little is copied, and nothing collected: torch has many objects."""
    monkeypatch.setattr(measure, "gc", types.SimpleNamespace(collect=lambda: 0))
    monkeypatch.setattr(measure, "RUN", 1e-4)
    monkeypatch.setattr(runs, "COPIED", 4096)


@pytest.fixture
def with_torch(monkeypatch, without_torch):
    """All the same: autograd compiles nothing."""
    monkeypatch.setattr(pytorch, "torch_module", TORCH_MODULE)
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.mark.parametrize("name", ["cbam", "se", "channel", "spatial"])
def test_a_block_is_measured_and_written(parser, tmp_path, capsys, name):
    out = tmp_path / "out.json"
    line = ["bench", "--block", name, "--shape", "2,4,6,5", "--runs", "3", "--threads", "1", "--json", str(out)]
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
    assert sides.title(block(name)) in printed
    assert "floor" in printed
    assert 0 < result["bandwidth"] <= result["best_bandwidth"]
    floors = result["sides"][0]["both"]["median"] / result["floor"]["both"]
    assert f"takes {floors:.1f} floors" in printed
    assert f"{result['sides'][0]['both']['median'] * 1e3:.2f}" in printed
    assert npattn.get_num_threads() != 0


@pytest.mark.parametrize("name", blocks())
def test_every_block_can_be_measured(name, quick):
    """Fused where it has such a form, with the textbook beside it; else the textbook as ours."""
    shape = (2, 8, 7, 7)
    result = runs.bench_block(name, shape, runs=1, dtype="float32", data="dense")
    layer, x = block(name).layer(Place(*shape[1:]), rng=0), np.ones(shape, np.float32)
    alone, fused = layer(x).shape != shape, layer.path == "fused"
    assert [side["side"] for side in result["sides"]] == (["fused", "textbook"] if fused else ["textbook"])
    assert all(side["forward"]["median"] > 0 and side["both"]["median"] > 0 for side in result["sides"])
    moved = {kind: seconds * result["bandwidth"] / x.nbytes for kind, seconds in result["floor"].items()}
    assert moved == pytest.approx({"forward": 1, "both": 2} if alone else {"forward": 2, "both": 5})
    printed = report.report(result)
    assert printed.startswith(f"{sides.title(block(name))} (2,8,7,7) float32, dense data\n")
    assert ("÷ fused" in printed, "÷ ours" in printed) == (fused, not fused)


@pytest.mark.parametrize("name", blocks())
def test_autograd_on_our_forward_agrees(name, with_torch):
    """All gradients by key, twice: nothing of the first call, no running statistics, goes into the second."""
    rng = np.random.default_rng(1)
    x = sides.inputs((2, 8, 7, 7), "float64", "dense", rng)
    layer = block(name).layer(Place(8, 7, 7), rng=0, dtype="float64", fused=False)
    dy = rng.standard_normal(layer(x).shape)
    ours, autograd = sides.our_side("textbook", layer, x, dy), pytorch.autograd_side(layer, x, dy)
    for _ in range(2):
        measure.compare([ours, autograd], 1e-12)
        autograd.forward()
        autograd.release()
    assert autograd.both().keys() == {"y", "dx", *layer.params}


def test_autograd_is_a_side_of_its_own(with_torch, quick):
    """Where no peer is written: beside the textbook, which is ours there and never left out."""
    settings = {"runs": 1, "dtype": "float32", "data": "dense"}
    for beside, names in ((runs.BESIDE, ["textbook", "autograd"]), ((), ["textbook"])):
        result = runs.bench_block("psa", (2, 8, 7, 7), beside=beside, **settings)
        assert [side["side"] for side in result["sides"]] == names
    result = runs.bench_block("gated", (2, 8, 7, 7), beside={"autograd"}, **settings)
    assert [side["side"] for side in result["sides"]] == ["fused", "autograd"]
    assert 0 < result["sides"][1]["difference"] < 1e-5


def test_peers_and_rows_are_of_blocks_that_there_are():
    assert set(pytorch.PEERS) <= {entry.card.name for entry in blocks().values()}
    assert {name for name, _ in sides.TABLE + sides.GPU_TABLE} <= set(blocks())


def test_the_list_of_blocks(parser, capsys):
    assert cli.main(["bench", "--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:] if line[:1] != " "] == list(blocks())
    with pytest.raises(SystemExit):
        parser.parse_args(["bench", "--block", "none"])


def test_growth_is_drawn(monkeypatch, quick, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setattr(growth, "SERIES", {key: [(n, (n, 2, 3, 3)) for n in (1, 2)] for key in "NPC"})
    told = []
    growth.growth(str(tmp_path / "growth.svg"), 1, told.append)
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
    assert len(told) == 7


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
    assert "expected a shape, four whole numbers (N, C, H, W) from 1" in capsys.readouterr().err


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
