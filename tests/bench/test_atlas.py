"""`npattn bench --atlas`: each block beside SE, into a file that is gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npattn import cli
from npattn.bench import atlas, beside, measure, pytorch, runs
from npattn.blocks import blocks

LINE = ["--shape", "2,16,5,6", "--runs", "2", "--threads", "1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pytorch, "torch_module", lambda: None)  # nothing of it is timed here
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(measure, "RUN", 1e-4)
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)


@pytest.fixture
def few(monkeypatch) -> dict:
    """Four of the blocks: with a fused form, without, without parameters, one that is for small maps only."""
    chosen = {name: blocks()[name] for name in ("se", "eca", "simam", "psa")}
    monkeypatch.setattr(atlas, "blocks", lambda: chosen)
    return chosen


def run(file: Path, *more: str) -> int:
    return cli.main(["bench", "--atlas", str(file), *LINE, "--allocator", "inherited", *more])


def test_every_block_is_asked_for(tmp_path, monkeypatch, capsys):
    found = {"textbook": {"seconds": [1.5], "beside": [0.5]}, "fused": {"seconds": [9.0], "beside": [0.5]}}
    monkeypatch.setitem(runs.MEASURED, "beside SE", lambda **_: found)
    monkeypatch.setattr("os.fsync", lambda number: None)
    file = tmp_path / "atlas.json"
    assert run(file) == 0
    written = json.loads(file.read_text())["blocks"]
    assert list(written) == list(blocks())
    assert all(one | found == one for one in written.values())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == list(blocks())
    assert all(line.endswith("3.00×, fused 9000.0 ms 18.00×") for line in printed)
    assert max(map(len, printed)) <= 80


def test_they_are_measured(tmp_path, few):
    file = tmp_path / "atlas.json"
    assert run(file) == 0
    written = json.loads(file.read_text())
    assert written["head"].items() >= {"shape": [2, 16, 5, 6], "dtype": "float32", "threads": 1}.items()
    assert list(written["blocks"]) == list(few)
    for found in written["blocks"].values():
        for of in found.values():
            assert len(of["seconds"]) == len(of["beside"]) == 2
            assert min(of["seconds"] + of["beside"]) > 0
    assert {name: list(found) for name, found in written["blocks"].items()} == {
        "se": ["textbook", "fused"], "eca": ["textbook"], "simam": ["textbook"], "psa": ["textbook"],
    }  # fmt: skip


def test_what_the_file_has_is_not_measured_again(tmp_path, few, monkeypatch, capsys):
    file = tmp_path / "atlas.json"
    assert run(file) == 0
    first = json.loads(file.read_text())
    del first["blocks"]["eca"]
    first["blocks"]["simam"] = {"why": "too little memory"}
    file.write_text(json.dumps(first))
    capsys.readouterr()
    calls = []
    monkeypatch.setitem(
        runs.MEASURED,
        "beside SE",
        lambda name, tell, **_: calls.append(name) or {"textbook": {"seconds": [1.0], "beside": [0.5]}},
    )
    assert run(file) == 0
    assert calls == ["eca", "simam"]
    second = json.loads(file.read_text())["blocks"]
    assert second["se"] == first["blocks"]["se"]
    assert "2.00" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("eca "))


def test_a_block_for_small_maps_is_measured_on_such(tmp_path, few, capsys):
    file = tmp_path / "atlas.json"
    line = ["bench", "--atlas", str(file), "--shape", "2,8,8,8", "--runs", "1", "--allocator", "inherited"]
    assert cli.main(line) == 0
    found = json.loads(file.read_text())["blocks"]
    assert found["psa"]["shape"] == [2, 8, 7, 7]
    assert set(found["psa"]) == {"shape", "textbook"}
    assert "shape" not in found["eca"]
    first = capsys.readouterr().out
    assert cli.main(line) == 0
    assert capsys.readouterr().out == first


def test_too_little_memory_is_said_and_the_others_are_measured(tmp_path, few, monkeypatch):
    def check(entry, *_):
        if entry.name == "eca":
            raise MemoryError("shape: eca would take 9 TiB")

    monkeypatch.setattr(atlas, "check_size", check)
    file = tmp_path / "atlas.json"
    assert run(file) == 0
    found = json.loads(file.read_text())["blocks"]
    assert found["eca"] == {"why": "shape: eca would take 9 TiB"}
    assert "textbook" in found["simam"]


def test_what_a_child_tells_ends_it_and_a_killed_one_does_not(tmp_path, few, monkeypatch, capsys):
    def ended(task, allocator, tell):
        if task["settings"]["name"] == "eca":
            raise atlas.ChildEnded(allocator, "was killed by signal 9 (is there too little memory?)", 137)
        return {"textbook": {"seconds": [1.0], "beside": [1.0]}}

    monkeypatch.setattr(atlas, "in_child", ended)
    file = tmp_path / "atlas.json"
    line = ["bench", "--atlas", str(file), *LINE, "--allocator", "as-it-comes"]
    assert cli.main(line) == 0
    assert "signal 9" in json.loads(file.read_text())["blocks"]["eca"]["why"]

    def told(task, allocator, tell):
        raise atlas.ChildEnded(allocator, "something else", 1)

    monkeypatch.setattr(atlas, "in_child", told)
    assert cli.main(line) == 1
    assert "something else" in capsys.readouterr().err


def test_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "blocks", lambda: {"eca": blocks()["eca"]})
    file = tmp_path / "atlas.json"
    assert (
        cli.main(["bench", "--atlas", str(file), "--shape", "1,4,3,3", "--runs", "1", "--allocator", "as-it-comes"])
        == 0
    )
    assert "textbook" in json.loads(file.read_text())["blocks"]["eca"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a file that this command wrote"),
        ("no", "expected a file that this command wrote"),
        ('{"head": 3, "blocks": {}}', "expected a file that this command wrote"),
    ],
)
def test_another_file_is_refused(tmp_path, few, capsys, text, message):
    file = tmp_path / "atlas.json"
    file.write_text(text)
    assert run(file) == 1
    assert message in capsys.readouterr().err
    assert file.read_text() == text


def test_times_of_two_settings_are_not_mixed(tmp_path, few, capsys):
    file = tmp_path / "atlas.json"
    assert run(file) == 0
    capsys.readouterr()
    assert run(file, "--dtype", "float64") == 1
    assert "has dtype float32 and not float64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        ["--block", "se"],
        ["--table"],
        ["--data", "relu"],
        ["--json", "a.json"],
        ["--beside", "eager"],
        ["--device", "cpu"],
        ["--allocator", "best"],
    ],
)
def test_options_that_do_nothing_there_are_refused(tmp_path, few, capsys, line):
    given = [*LINE, *line] if "--allocator" in line else [*LINE, "--allocator", "inherited", *line]
    assert cli.main(["bench", "--atlas", str(tmp_path / "a.json"), *given]) == 2
    assert not (tmp_path / "a.json").exists()
    assert line[0] in capsys.readouterr().err


def test_the_file_is_json_in_a_folder_that_is_there(tmp_path, few):
    for path in (tmp_path / "a.txt", tmp_path / "none" / "a.json", tmp_path):
        assert cli.main(["bench", "--atlas", str(path), *LINE]) == 2


def test_se_is_its_own_measure():
    found = beside.bench_beside("se", (2, 8, 3, 3), runs=1)
    assert set(found) == {"textbook", "fused"}
    with pytest.raises(ValueError, match="name: expected one of"):
        beside.bench_beside("seee", (2, 8, 3, 3), runs=1)
