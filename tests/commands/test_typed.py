"""What is typed: shapes, names, options without an effect, help, exit statuses; and that no line is wider than 80."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

import pytest

from npattn import cli
from npattn.blocks import blocks, canonical, folded, spellings
from npattn.columns import counted, flowed, table
from npattn.commands.gradcheck import forms_of, library
from npattn.commands.names import find, heeds, one, op_words
from npattn.commands.shapes import joined, shape
from npattn.commands.usage import UsageError
from npattn.explain.trace import ops, trace, trace_op
from npattn.explain.trace_text import text
from npattn.models import attention_named
from npattn.training import TrainConfig


def status_of(words: list[str]) -> int:
    """The exit status of a command line, argparse's own included."""
    try:
        return cli.main(words)
    except SystemExit as end:
        return int(end.code or 0)


def parsers() -> Iterator[argparse.ArgumentParser]:
    top = cli.parser()
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


# Help


def test_help_is_no_wider_than_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = list(parsers())
    assert len(found) == 1 + len(cli.COMMANDS)
    for parser in found:
        for line in parser.format_help().splitlines():
            assert len(line) <= 80, f"{parser.prog}: {line}"


def test_every_option_is_explained():
    for parser in parsers():
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), f"{parser.prog} {action.dest}"


def test_without_a_word_the_help_is_printed(capsys):
    assert cli.main([]) == 0
    bare = capsys.readouterr().out
    assert status_of(["--help"]) == 0
    assert capsys.readouterr().out == bare
    assert "exit status:" in bare
    for number in (0, 1, 2, 3, 130):
        assert re.search(rf"^  {number} ", bare, re.MULTILINE)


# Shapes


@pytest.mark.parametrize(
    "typed",
    [
        ["2,8,5,5"],
        ["2x8x5x5"],
        ["2", "8", "5", "5"],
        ["2 8 5 5"],
        ["(2, 8, 5, 5)"],
        ["2×8×5×5"],
        ["2,", "8,", "5,", "5"],
    ],
)
@pytest.mark.parametrize("equals", [True, False])
def test_a_shape_is_typed_in_any_of_the_ways(typed, equals):
    words = [f"--shape={typed[0]}", *typed[1:]] if equals else ["--shape", *typed]
    for before, after in ((["bench"], ["--runs", "1"]), (["trace", "se"], []), (["trace"], ["se"])):
        assert cli.parser().parse_args([*before, *words, *after]).shape == (2, 8, 5, 5)
    found = cli.parser().parse_args(["gradcheck", *words, "mine.py:layer"])
    assert (shape(found.shape), found.target) == ((2, 8, 5, 5), "mine.py:layer")


def test_an_input_s_shape_is_typed_in_the_same_ways():
    line = ["gradcheck", "--input", "x=2", "3", "--input", "w=3x4", "mine.py:f"]
    found = cli.parser().parse_args(line)
    assert ([part.split("=")[0] for part in found.input], found.target) == (["x", "w"], "mine.py:f")
    assert [shape(part.split("=")[1]) for part in found.input] == [(2, 3), (3, 4)]
    assert joined(["cam", "run", "--digits", "1", "2"]) == ["cam", "run", "--digits", "1", "2"]


@pytest.mark.parametrize("bad", ["", "x", "2,,3", "2,-1", "0,2", "2.5", "a,b", "9" * 5000, "٣,2"])
def test_what_is_no_shape_is_told_the_three_ways(bad):
    with pytest.raises(ValueError, match=r"expected a shape, whole numbers from 1 .* 2,8,5,5 or 2x8x5x5 or 2 8 5 5; "):
        shape(bad)


@pytest.mark.parametrize("line", [["trace", "se"], ["bench"]])
def test_a_shape_of_three_is_none_for_an_image(line, capsys):
    assert status_of([*line, "--shape", "2x3x4"]) == 2
    assert "expected a shape, four whole numbers (N, C, H, W)" in capsys.readouterr().err


# Names


def test_every_name_is_found_in_capitals_and_by_its_class():
    assert len(spellings()) > len({folded(name) for name in blocks()}) == len(blocks())
    for name, entry in blocks().items():
        for typed in (name, name.upper(), name.replace("-", "_"), name.replace("-", " ").title()):
            assert canonical(typed) == attention_named(typed) == name
        assert blocks()[canonical(entry.kind.__name__)].kind.__name__ == entry.kind.__name__
    assert attention_named("NONE") == "none"
    assert find("Conv2d", op_words()) == "conv2d"
    assert find("BatchNorm2d", op_words()) == "batch_norm"
    assert set(ops()) <= set(op_words())
    assert TrainConfig(attention="CBAM").attention == "cbam"


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (["train", "--attention"], "attention"),
        (["bench", "--block"], "block"),
        (["trace"], "name"),
        (["count"], "names"),
        (["ablate", "--only"], "only"),
    ],
)
def test_one_set_of_names_in_all_commands(line, option, capsys):
    for typed in ("cbam", "CBAM", "Cbam"):
        found = getattr(cli.parser().parse_args([*line, typed]), option)
        assert found in ("cbam", ["cbam"])
    assert status_of([*line, "cbma"]) == 2
    said = capsys.readouterr().err
    assert "expected a name of --list, got 'cbma'; did you mean cbam?" in said
    assert status_of([*line, "mine.py:layer"]) == 2
    assert "npattn gradcheck takes a layer of your own" in capsys.readouterr().err
    assert status_of([line[0], "--list"]) == 0
    listed = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert any("cbam" in row[:2] for row in listed)


def test_gradcheck_takes_the_same_names(capsys):
    assert status_of(["gradcheck", "ReLU", "--points", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["tensor", "shape", "method", "checked", "error", "verdict"]
    assert re.search(r"^[2-9] checked, 0 wrong", shown, re.MULTILINE)
    assert "conv2d" not in shown
    assert status_of(["gradcheck", "cbma"]) == 2
    assert "did you mean cbam?" in capsys.readouterr().err
    assert status_of(["gradcheck", "--list"]) == 0
    assert {"cbam", "conv2d"} <= {row.split()[0] for row in capsys.readouterr().out.splitlines() if row[:1].strip()}


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        (["trian"], "did you mean train?"),
        (["train", "--atention", "se"], "did you mean --attention?"),
        (["train", "--batch_size=3"], "did you mean --batch-size?"),
        (["train", "--device", "cudda"], "did you mean cuda?"),
        (["count", "--network", "resnet5"], "did you mean resnet50?"),
        (["cam", "run", "--method", "gradcam"], "did you mean grad-cam?"),
    ],
)
def test_a_wrong_word_is_told_the_nearest(line, nearest, capsys):
    assert status_of(line) == 2
    assert nearest in capsys.readouterr().err


def test_a_name_without_a_near_one():
    with pytest.raises(ValueError, match=r"got 'zzzz'$"):
        one("zzzz", blocks())


# Exit statuses


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["trace"], 2, "NAME is missing"),
        (["trace", "se", "--ratio", "99"], 2, "npattn: --ratio: expected at most"),
        (["trace", "spatial", "--kernel-size", "2"], 2, "npattn: --kernel-size: expected an odd"),
        (["trace", "se", "--seed", "-1"], 2, "npattn: --seed: expected"),
        (["count", "--kernel-size", "2"], 2, "npattn: --kernel-size: expected an odd"),
        (["train", "--batch-size", "1"], 2, "npattn: --batch-size: expected"),
        (["train", "--lr", "0"], 2, "npattn: --lr: expected"),
        (["ablate", "--test-digits", "0"], 2, "npattn: --test-digits: expected"),
        (["bench", "--growth", "none.xyz"], 2, "npattn: --growth: expected a file"),
        (["dialect", "nowhere.npz"], 1, "npattn: nowhere.npz"),
        (["cam", "nowhere"], 1, "npattn: nowhere"),
        (["train", "--resume", "nowhere"], 1, "npattn: nowhere"),
    ],
)
def test_one_rule_for_the_status(line, status, said, capsys, tmp_path, monkeypatch):
    """2 where what was typed makes no sense, and the option is named as it was typed; 1 where it failed."""
    monkeypatch.chdir(tmp_path)
    assert status_of(line) == status
    assert said in capsys.readouterr().err


def test_what_was_not_typed_is_a_failure():
    told = cli.parser().parse_args(["count"]).parser.told
    assert told("ratio: expected more") == "--ratio: expected more"
    assert told("ratio, kernel_size: expected more") == "--ratio, --kernel-size: expected more"
    assert told("model: expected another") == "model: expected another"


# Options without an effect


@pytest.mark.parametrize(
    "line",
    [
        "trace relu --ratio 2", "trace relu --kernel-size 3", "trace relu --shape 1,2,3,4", "trace spatial --ratio 1",
        "trace se --kernel-size 3", "trace se-r4 --ratio 2", "trace --list --seed 2", "trace cbam --list",
        "bench --table --shape 1,2,3,4", "bench --train-step --shape 1,2,3,4", "bench --train-step --dtype float64",
        "bench --train-step --data relu", "bench --growth a.svg --shape 1,2,3,4",
        "bench --growth a.svg --json a.json", "bench --atlas a.json --data relu",
        "bench --atlas a.json --device cpu", "bench --list --runs 7", "bench --list --dtype float32",
        "bench --list --threads 1", "ablate --list --seeds 5", "ablate --list --out x", "ablate --list --jobs 1",
        "train --list --seed 0", "train --list --resume x", "count --list --ratio 16", "count cbam --list",
        "count se --kernel-size 7", "count spatial --ratio 16", "gradcheck --list --points 8", "gradcheck cbam --list",
    ],
)  # fmt: skip
def test_an_option_without_an_effect_is_refused(line, capsys):
    assert status_of(line.split()) == 2
    assert re.search(r"--?[a-z-]+ (and .* )?ha(s|ve) no effect (on|with) ", capsys.readouterr().err)


@pytest.mark.parametrize("option", ["--shape 2,3", "--input x=2,3", "--wrt x", "--dtype float32", "--strict"])
def test_gradcheck_of_the_library_takes_no_option_for_ones_own(option, capsys):
    assert status_of(["gradcheck", *option.split()]) == 2
    assert "for a target of your own" in capsys.readouterr().err


def test_which_options_a_block_heeds():
    assert (heeds("cbam", "r"), heeds("cbam", "k")) == (True, True)
    assert (heeds("se", "r"), heeds("se", "k")) == (True, False)
    assert (heeds("spatial", "r"), heeds("spatial", "k")) == (False, True)
    assert not heeds("squeeze", "r")


def test_usage_errors_are_no_value_errors():
    """Else a failure could pass for one, or one for a failure."""
    assert not issubclass(UsageError, ValueError | OSError)


# 80 columns


@pytest.mark.parametrize("name", [*blocks(), *ops()])
def test_a_trace_fits(name):
    """Numbers are never cut: where a line is narrow, only what has no space in it sticks out."""
    found = trace_op(name) if name in ops() else trace(name)
    for width in (80, 40):
        for line in text(found, width).splitlines():
            assert len(line) <= width or (width < 80 and len(line) < 80), line
    assert text(found, 40).split() == text(found, 40).split()
    assert sorted(text(found, 80).split()) == sorted(text(found, 40).split())


@pytest.mark.parametrize("line", [["count"], ["count", "cbam", "--stages", "64x2"], *(
    [name, "--list"] for name in ("train", "trace", "gradcheck", "bench", "count", "ablate")
)], ids=" ".join)  # fmt: skip
def test_a_table_fits_and_has_headings(line, capsys):
    assert cli.main(line) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    head = next(row for row in lines if row.split()[0] in ("name", "block", "group"))
    assert len(re.split(r"  +", head)) >= 2


def test_a_table_wraps_between_words_and_keeps_every_one():
    head, rows = ("name", "what it is", "number"), [("one", "a b c d e f g", "1,000"), ("two-and-more", "word", "2")]
    wide = table(head, rows, right=(2,))
    assert wide.splitlines()[0] == "name          what it is     number"
    assert wide.splitlines()[2].endswith("word                2")
    for width in (80, 30, 24, 10, 1):
        found = table(head, rows, width, right=(2,))
        assert {word for row in rows for cell in row for word in cell.split()} <= set(found.split())
        if width >= 24:
            assert max(map(len, found.splitlines())) <= width
    assert table(head, [*rows, ()]).splitlines()[-1] == "─" * len(wide.splitlines()[0])
    assert flowed("  a b c\nd", 5) == "  a b\n    c\nd"


@pytest.mark.parametrize("line", [["--help"], ["train", "--help"], ["count"], ["trace", "se"], ["bench", "--list"]])
@pytest.mark.parametrize("color", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}])
def test_no_colour_goes_into_a_pipe(line, color, capsys, monkeypatch):
    if "FORCE_COLOR" in color and "--help" in line and sys.version_info >= (3, 14):
        pytest.skip("argparse has colours from 3.14 on, and gives them to who asks for them")
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in color.items():
        monkeypatch.setenv(name, value)
    assert status_of(line) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


def test_every_check_belongs_to_a_name_that_can_be_typed():
    """The pair of a block that is made of layers is that block's, whatever its file is called."""
    checks = list(library(0, points=1))
    names = (*blocks(), *op_words())
    assert {check.of for check in checks} == set(names)
    assert all(find(check.of, names) == check.of for check in checks)
    rows = {name: [check.name for check in checks if check.of == name] for name in ("gated", "cbam", "variants.cbam")}
    assert rows == {
        "gated": ["gate", "gated, textbook", "gated, fused"],
        "cbam": ["cbam", "cbam, fused", "cbam, textbook", "cbam, fused"],
        "variants.cbam": ["two gates at once", "variants.cbam, textbook"],
    }


def test_other_arguments_of_a_block_are_checked_with_it_and_its_forms_are_named():
    checked = [check.name for check in library(0, points=1) if check.of == "lct"]
    assert checked == ["lct", "lct, groups=2", "lct, textbook"]
    assert forms_of("variants.spatial")[:2] == ["spatial-mean", "spatial-max"]
    assert forms_of("spatial-mean") == forms_of("lct") == forms_of("relu") == forms_of(None) == []


def test_the_last_line_says_what_else_can_be_named(capsys):
    assert cli.main(["gradcheck", "gated"]) == 0
    *_, counts, last = capsys.readouterr().out.splitlines()
    assert counts.startswith("3 checked, 0 wrong")
    assert last == "its forms are checked by their own names: gated-spatial"


def test_one_is_no_plural():
    assert [counted(n, "epoch") for n in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_no_table_of_the_library_tells_of_one_entries(capsys):
    assert cli.main(["gradcheck", "spatial-norm", "--points", "1"]) == 0
    shown = capsys.readouterr().out
    assert "complex step  its one  " in shown
    assert "all 1 " not in shown
    assert max(map(len, shown.splitlines())) <= 80
