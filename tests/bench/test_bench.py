"""The benchmark: it checks before it times, prints what it measured, and refuses what makes no sense."""

from __future__ import annotations

import argparse
import json
import types

import numpy as np
import pytest

import npattn
from npattn import bench, cli
from npattn.bench import growth, jax, measure, peers, pytorch, report, runs, sides, timm
from npattn.block import Place
from npattn.blocks import block, blocks
from npattn.training.mpiexec import mpiexec

TORCH_MODULE = pytorch.torch_module  # before without_torch puts another in its place


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    return cli.parser()


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """These tests time nothing of PyTorch's or JAX's, which take seconds to compile."""
    monkeypatch.setattr(pytorch, "torch_module", lambda: None)
    monkeypatch.setattr(jax, "jax_module", lambda: None)
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
    arguments = parser.parse_args([*line, "--allocator", "inherited"])
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
    assert ("÷fused" in printed, "÷ours" in printed) == (fused, not fused)


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
    assert {*peers.PEERS, *jax.PEERS, *timm.PEERS} <= {entry.card.name for entry in blocks().values()}
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


@pytest.mark.parametrize("threads", [2, 1])
def test_a_training_step_is_measured(parser, tmp_path, capsys, threads):
    """With two threads also as the demo takes it, in two ranks, where there is MPI; what these need is not seen."""
    names = ["threads", "one thread", "textbook"] if threads == 2 else ["threads", "textbook"]
    if threads == 2 and mpiexec():
        names = ["fused", *names]
    out = tmp_path / "out.json"
    line = ["bench", "--train-step", "--runs", "1", "--threads", str(threads), "--json", str(out)]
    arguments = parser.parse_args([*line, "--allocator", "inherited"])
    assert arguments.run(arguments) == 0
    (result,) = json.loads(out.read_text())["results"]
    assert [side["side"] for side in result["sides"]] == names
    assert all((side["peak"] is None) == (side["side"] == "fused") for side in result["sides"])
    assert all(side["both"]["median"] > 0 for side in result["sides"])
    assert all(0 < side["difference"] < 1e-3 for side in result["sides"][1:])
    assert ("two ranks of MPI share the batch" in capsys.readouterr().out) == ("fused" in names)


SHAPES = {"se": (2, 16, 7, 7), "channel": (2, 16, 7, 7), "spatial": (2, 3, 9, 8), "cbam": (2, 16, 9, 8)}


def layer_and_inputs(name):
    x = sides.inputs(SHAPES[name], "float64", "dense", np.random.default_rng(2))
    layer = block(name).layer(Place(*x.shape[1:]), rng=0, dtype="float64")
    return layer, x, np.random.default_rng(3).standard_normal(layer(x).shape)


def test_every_peer_is_run_in_every_way(with_torch, monkeypatch):
    """Those that are asked for; each with x, dy and the module where and as it has them before it is timed."""
    chosen = []
    monkeypatch.setattr(with_torch, "compile", lambda module, dynamic, options: chosen.append(options) or module)
    monkeypatch.setattr(timm, "layers", lambda: None)
    for name in peers.PEERS:
        layer, x, dy = layer_and_inputs(name)
        found = pytorch.torch_sides(name, layer, x, dy, pytorch.WAYS)
        assert [side.name for side in found] == ["eager", "eager NHWC", "compiled", "compiled NHWC", "autotuned"]
        assert [side.kind for side in found] == ["eager"] * 2 + ["compiled"] * 3
        measure.compare([sides.our_side("fused", layer, x, dy), *found], 1e-12)
        for side in found:
            side.forward()
            side.release()
        assert [side.name for side in pytorch.torch_sides(name, layer, x, dy, ["eager NHWC"])] == ["eager NHWC"]
    assert chosen == [*[None] * 4, *[pytorch.MOST] * 2] * 4  # once with gradients, once without
    layer, x, dy = layer_and_inputs("cbam")
    module, (laid, _) = pytorch.prepared(
        peers.peer(with_torch, "cbam", layer.state_dict()), (x, dy), "eager NHWC", "cpu"
    )
    assert laid.is_contiguous(memory_format=with_torch.channels_last)
    assert module(laid).is_contiguous(memory_format=with_torch.channels_last)


@pytest.mark.parametrize("name", timm.PEERS)
def test_timms_class_is_the_articles(name, with_torch):
    """Gradients come under our names."""
    pytest.importorskip("timm", reason="timm is not installed")
    layer, x, dy = layer_and_inputs(name)
    (side,) = pytorch.torch_sides(name, layer, x, dy, ["timm"])
    measure.compare([sides.our_side("fused", layer, x, dy), side], 1e-12)
    assert side.both().keys() == {"y", "dx", *layer.params}


@pytest.mark.parametrize("name", jax.PEERS)
def test_jax_computes_the_same(name, monkeypatch):
    module = pytest.importorskip("jax", reason="jax is not installed")
    monkeypatch.setattr(jax, "jax_module", lambda: module)
    layer, x, dy = layer_and_inputs(name)
    side = jax.jax_side(name, layer.state_dict(), x, dy)
    side.forward()
    measure.compare([sides.our_side("fused", layer, x, dy), side], 1e-12)
    assert side.both().keys() == {"y", "dx", *layer.params}


class OnNumPy:
    """What jax.py asks of jax, by NumPy and torch: its formulas are tried where JAX is not installed."""

    numpy = np
    nn = types.SimpleNamespace(relu=lambda x: np.maximum(x, 0), sigmoid=lambda x: 1 / (1 + np.exp(-x)))

    class lax:
        @staticmethod
        def conv(x, w, strides, padding):
            assert (strides, padding) == ((1, 1), "SAME")
            torch = pytest.importorskip("torch", reason="torch is not installed")
            x, w = torch.from_numpy(x), torch.from_numpy(w)
            return torch.nn.functional.conv2d(x, w, padding=w.shape[-1] // 2).numpy()


@pytest.mark.parametrize("name", jax.PEERS)
def test_jaxs_formulas_are_the_blocks(name):
    layer, x, _ = layer_and_inputs(name)
    assert measure.relative(jax.PEERS[name](OnNumPy, x, layer.state_dict()), layer(x)) < 1e-14


@pytest.mark.parametrize("data", ["dense", "relu"])
def test_peers_that_share_a_tied_gradient_are_left_out(data, monkeypatch, quick):
    """And it is said."""

    def one(card, state, x, dy):
        layer = block(card).layer(Place(*x.shape[1:]), rng=0, dtype="float32")
        ours = sides.our_side("fused", layer, x, dy)
        return sides.Side("jax", ours.forward, ours.both, kind="compiled")

    monkeypatch.setattr(jax, "jax_module", lambda: object())
    monkeypatch.setattr(jax, "jax_side", one)
    result = runs.bench_block("cbam", (1, 16, 3, 3), runs=1, dtype="float32", data=data, beside=["jax"])
    assert [side["side"] for side in result["sides"]] == ["fused", "jax"][: 2 if data == "dense" else 1]
    assert ("jax left out: equal maxima share" in report.report(result)) == (data == "relu")


def test_a_side_that_does_not_compile_is_left_out():
    """And it is said; any other failure is an error."""

    def fails(error):
        def both():
            raise error

        return both

    right = sides.Side("right", None, lambda: {"y": np.ones(3)})
    told = []
    broken = sides.Side("autotuned", None, fails(RuntimeError("\n  no compiler\nmore")), kind="compiled")
    broken_forward = sides.Side("jax", fails(RuntimeError()), right.both, kind="compiled")
    failed = measure.compare([right, broken, broken_forward, right], 1e-12, told.append)
    assert failed == {"autotuned": "RuntimeError: no compiler", "jax": "RuntimeError: "}
    assert told == ["comparing autotuned", "comparing jax", "comparing right"]
    left, failed = runs.checked([right, broken, right], (), 1e-12, told.append)
    assert (left, list(failed)) == ([right, right], ["autotuned"])
    for error, kind in ((MemoryError(), "compiled"), (bench.BenchError(), "compiled"), (RuntimeError(), "eager")):
        with pytest.raises(type(error)):
            measure.compare([right, sides.Side("other", None, fails(error), kind=kind)], 1e-12)


def test_a_side_is_called_once_before_it_is_compared():
    """A training step moves the weights: the second one's gradients are others."""
    calls = []
    right = sides.Side("right", None, lambda: {"y": np.ones(1)})
    step = sides.Side(
        "compiled", None, lambda: calls.append(1) or {"y": np.full(1, float(len(calls)))}, kind="compiled"
    )
    assert runs.checked([right, step], (), 1e-12, measure.quietly) == ([right, step], {})


def test_a_side_may_be_compared_only(monkeypatch, quick):
    """The textbook as it comes: its memory is seen, its time is not asked."""
    settings = {"runs": 1, "dtype": "float32", "data": "dense"}
    result = runs.bench_block("se", (1, 16, 3, 3), untimed=["textbook"], peaks=False, **settings)
    fused, textbook = result["sides"]
    assert "both" in fused
    assert not {"forward", "both"} & textbook.keys()
    assert 0 < textbook["difference"] < 1e-5
    assert fused["peak"] is textbook["peak"] is None


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
