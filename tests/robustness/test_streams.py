"""Every command where the terminal has other letters, where a stream is closed, full or has lost its reader."""

from __future__ import annotations

import argparse
import ast
import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import npattn
from npattn import cli, data, progress, streams
from npattn.streams import SPELLED, Plain
from npattn.training import TrainConfig
from npattn.training.mpiexec import mpiexec

PACKAGE = Path(npattn.__file__).parent
COMMANDS = ("train", "gradcheck", "trace", "cam", "bench", "count", "ablate", "dialect", "exercise", "list",
            "ablate --list")  # fmt: skip
LEAVE_FILES = ("train", "cam", "ablate", "bench --json")
ENCODINGS = ("ascii", "latin-1", "cp1252", "cp932", "gbk", "utf-8")


class Stream(io.TextIOWrapper):
    """A stream of that encoding, which raises where it lacks a letter."""

    def __init__(self, encoding: str = "utf-8", terminal: int | None = None) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal is not None

    def fileno(self) -> int:
        return super().fileno() if self.terminal is None else self.terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


class Failing(io.StringIO):
    """A stream that takes nothing, for that reason."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")


def full() -> Failing:
    return Failing(errno.ENOSPC)


def broken() -> Failing:
    return Failing(errno.EPIPE)


def closed() -> Stream:
    stream = Stream()
    stream.close()
    return stream


LOST = {"none": lambda: None, "closed": closed, "full": full, "broken": broken}


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    files = (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
    return data.Digits(*(data.read(data.EMBEDDED, file)[:64] for file in files), "embedded 10,000")


@pytest.fixture(scope="module", autouse=True)
def quick(digits) -> Iterator[None]:
    """64 digits, and nothing is drawn, which would only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *args, **options: digits)
        patch.setattr("npattn.training.start.write_figures", lambda *args: None)
        patch.setattr("npattn.commands.cam.draw", lambda *args: None)
        patch.setattr("npattn.ablation.report.figure", lambda *args: None)
        patch.setattr("npattn.bench.measure.RUN", 0.0)
        patch.setattr("npattn.bench.measure.gc", SimpleNamespace(collect=lambda: 0))
        yield


@pytest.fixture(scope="module")
def folder(quick, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    npattn.train(TrainConfig(epochs=1, batch_size=32, processes=1, out=str(out)), progress=False)
    np.savez(out / "weights.npz", **npattn.CBAM(16, rng=0).state_dict())
    return out


def line(command: str, folder: Path, out: Path) -> list[str]:
    """What is typed for a command, with the smallest settings."""
    few = ["--digits", "32", "--epochs", "1", "--batch-size", "16", "--test-digits", "32", "--jobs", "1"]
    here = ["--allocator", "inherited"]
    return {
        "train": ["train", "--epochs", "1", "--batch-size", "32", "--processes", "1", "--out", str(out)],
        "gradcheck": ["gradcheck", "tests.checker.targets:make_layer", "--shape", "2,8,3,3"],
        "trace": ["trace", "coordinate"],
        "cam": ["cam", str(folder), "--digits", "1", "--out", str(out)],
        "bench": ["bench", "--block", "eca", "--shape", "1,2,2,2", "--runs", "1", *here],
        "bench --json": ["bench", "--block", "eca", "--shape", "1,2,2,2", "--runs", "1", *here, "--json", str(out)],
        "count": ["count", "--stages", "16x3", "32x4"],
        "ablate": ["ablate", "--only", "none", "--seeds", "2", *few, "--out", str(out)],
        "dialect": ["dialect", str(folder / "weights.npz")],
        "exercise": ["exercise"],
        "list": ["bench", "--list"],
        "ablate --list": ["ablate", "--list"],
    }[command]


def driven(monkeypatch, arguments: list[str], out: Any, err: Any) -> int:
    """The status of the command, with these streams for its own."""
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        assert (sys.stdout, sys.stderr) == (out, err), "the streams are handed back"
        monkeypatch.undo()


# Letters


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_every_encoding(command, encoding, folder, tmp_path, monkeypatch):
    """It does its work, and no letter becomes a question mark or a number."""
    out, err = Stream(encoding), Stream(encoding)
    assert driven(monkeypatch, line(command, folder, tmp_path / "out"), out, err) == 0
    assert err.text() == ""
    assert out.text().strip()
    assert "\\" not in out.text()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train", "16x14x14"),
        ("count", "3 x 16, 4 x 32"),
        ("list", "a 3x3 convolution"),
        ("ablate", "lowest - highest"),
    ],
)
def test_what_stands_for_a_letter(command, said, folder, tmp_path, monkeypatch):
    out = Stream("ascii")
    assert driven(monkeypatch, line(command, folder, tmp_path / "out"), out, Stream()) == 0
    assert said in out.text()


def test_errors_are_told_in_any_encoding(tmp_path, monkeypatch):
    """A name that the encoding lacks is escaped, so that it can still be told apart."""
    for encoding, name in (("ascii", "\\u4e2d.npz"), ("utf-8", "中.npz")):
        err = Stream(encoding)
        assert driven(monkeypatch, ["dialect", str(tmp_path / "中.npz")], Stream(encoding), err) == 1
        assert name in err.text()


def test_a_name_that_is_no_text(tmp_path, monkeypatch):
    """A file's name may be any bytes; Python shows those that are no UTF-8 as lone surrogates."""
    name = os.fsdecode(b"\xff.npz")
    err = Stream("utf-8")
    assert driven(monkeypatch, ["dialect", str(tmp_path / name)], Stream("utf-8"), err) == 1
    assert "\\udcff.npz" in err.text()


def test_a_letter_that_a_stream_would_replace_is_spelled():
    for errors in ("replace", "ignore", "backslashreplace", "xmlcharrefreplace"):
        inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
        Plain(inner, "it").write("2 × 3 ± 0")
        inner.flush()
        assert inner.buffer.getvalue() == b"2 x 3 +- 0"  # type: ignore[attr-defined]


def test_columns_stay_in_line():
    """A spelling that is longer than the letter takes the place of spaces before it, where there are some."""
    assert streams.spelled("mean      ±  n", "ascii") == "mean     +-  n"
    assert streams.spelled("0.98 ± 0.01 …", "ascii") == "0.98 +- 0.01 ..."


def test_bytes_of_a_name_stay_where_the_stream_keeps_them():
    inner = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape")
    Plain(inner, "it").write(os.fsdecode(b"\xff") + " ×")
    inner.flush()
    assert inner.buffer.getvalue() == b"\xff x"  # type: ignore[attr-defined]


def test_a_stream_that_does_not_tell_its_encoding():
    import codecs

    inner = io.BytesIO()
    Plain(codecs.getwriter("ascii")(inner), "it").write("a · b")
    assert inner.getvalue() == b"a * b"


def test_every_letter_that_we_print_has_a_spelling():
    """Those in texts of the package's code; docstrings and comments are not printed."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
                unknown = [char for char in node.value if not char.isascii() and char not in SPELLED]
                assert not unknown, f"{path.name}:{node.lineno}: {unknown}"
    assert all(text.isascii() for text in SPELLED.values())


# Streams that are not there


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("command", [*COMMANDS, "bench --json"])
def test_standard_output_is_lost(command, kind, folder, tmp_path, monkeypatch):
    """What leaves files leaves them; what only prints has failed, and says so. A reader who had enough is no fault."""
    err = Stream()
    status = driven(monkeypatch, line(command, folder, tmp_path / "out"), LOST[kind](), err)
    assert status == int(command not in LEAVE_FILES)
    if kind == "broken" or (kind == "none" and command in LEAVE_FILES):
        assert err.text() == ""
    else:
        assert err.text().startswith("npattn: standard output: ")
        assert err.text().count("\n") == 1
    if command == "train":
        assert {"checkpoint.npz", "metrics.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    if command == "bench --json":
        assert (tmp_path / "out").stat().st_size


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("command", COMMANDS)
def test_standard_error_is_lost(command, kind, folder, tmp_path, monkeypatch):
    """Nothing is to be said there, and nothing goes wrong."""
    out = Stream()
    assert driven(monkeypatch, line(command, folder, tmp_path / "out"), out, LOST[kind]()) == 0
    assert out.text().strip()


@pytest.mark.parametrize("kind", LOST)
def test_an_error_with_nowhere_to_tell_it(kind, tmp_path, monkeypatch):
    """The status is what is left, and the message does not go among the results."""
    for arguments, status in ((["dialect", str(tmp_path / "none.npz")], 1), (["count", "--what"], 2)):
        out = Stream()
        assert driven(monkeypatch, arguments, out, LOST[kind]()) == status
        assert out.text() == ""
        assert driven(monkeypatch, arguments, LOST[kind](), LOST[kind]()) == status


@pytest.mark.parametrize("kind", LOST)
def test_help_and_version(kind, monkeypatch):
    for arguments in (["--help"], ["--version"], ["count", "--help"]):
        assert driven(monkeypatch, arguments, Stream("ascii"), LOST[kind]()) == 0
        assert driven(monkeypatch, arguments, LOST[kind](), Stream()) == 1


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("terminal", [False, True])
def test_training_from_python(kind, terminal, tmp_path, monkeypatch):
    """npattn.train prints by itself. Without a stream, or with one of few letters, it trains all the same."""
    config = TrainConfig(epochs=1, batch_size=32, processes=1, out=str(tmp_path / "a"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", LOST[kind]())
        patch.setattr(sys, "stderr", LOST[kind]())
        if terminal:
            patch.setattr(progress, "is_terminal", lambda stream: True)
        assert npattn.train(config).finished
        out = Stream("cp1252")
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", Stream("cp1252"))
        assert npattn.train(TrainConfig(epochs=1, batch_size=32, processes=1, out=str(tmp_path / "b"))).finished
    assert "-----" in out.text()
    assert "epoch 1/1" in out.text()


@pytest.mark.parametrize("files", [False, True])
def test_work_goes_on_for_files_only(files, monkeypatch):
    """Minutes of work whose text is lost end at the first line of it, unless there are files to come."""
    done = []

    def run(arguments: argparse.Namespace) -> int:
        for i in range(3):
            sys.stdout.write(f"{i}\n")
            sys.stdout.flush()
            done.append(i)
        return 0

    monkeypatch.setattr("npattn.commands.trace.run", run)
    monkeypatch.setattr("npattn.commands.cam.run", run)
    typed = ["cam", "folder"] if files else ["trace", "se"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full())
        patch.setattr(sys, "stderr", Stream())
        assert cli.main(typed) == int(not files)
    assert done == ([0, 1, 2] if files else [])


def test_the_command_keeps_the_numbers_of_streams(monkeypatch):
    called = []
    monkeypatch.setattr("npattn.cli.keep_numbers", lambda: called.append(True))
    assert cli.main(["ablate", "--list"]) == 0
    assert called == [True]


def test_standard_input_and_the_numbers_of_streams():
    """Where 0, 1 and 2 are closed the next files would get these numbers, and be printed into."""
    code = "import os; from npattn.streams import keep_numbers; keep_numbers(); os._exit(os.open(os.devnull, 0))"
    done = subprocess.run(f'"{sys.executable}" -c "{code}" <&- >&- 2>&-', shell=True, timeout=60)
    assert done.returncode == 3


# The command itself

needs_shell = pytest.mark.skipif(os.name != "posix", reason="a shell")
TRAIN = """
import sys
from npattn import cli, data
parts = [data.read(data.EMBEDDED, file)[:64] for file in (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS)]
data.load = lambda *args, **options: data.Digits(*parts, *parts, "embedded 10,000")
import npattn.training.start as start
start.write_figures = lambda *args: None
sys.exit(cli.main(["train", "--epochs", "1", "--batch-size", "16", "--processes", "1", "--out", *sys.argv[1:]]))
"""


def shell(text: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line in a real shell; "$@" stands for `python` and the arguments. Buffered, unless it is said."""
    return subprocess.run(
        ["sh", "-c", text, "sh", sys.executable, *arguments],
        capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONUNBUFFERED": "", **environment}, timeout=300,
    )  # fmt: skip


@needs_shell
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        ("> /dev/full", 1, "npattn: standard output: No space left on device\n"),
        (">&-", 1, "npattn: standard output: is closed\n"),
        ("> /dev/full 2>&-", 1, ""),
        (">&- 2> /dev/full", 1, ""),
        ("<&-", 0, ""),
    ],
)
def test_streams_of_a_process(redirection, status, message):
    """No traceback, and none of Python's own complaints as it ends either."""
    done = shell(f'"$@" {redirection}', "-m", "npattn", "count", "--stages", "16x2")
    assert (done.returncode, done.stderr) == (status, message)


@needs_shell
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_enough(unbuffered):
    done = shell('"$@" | head -n 1', "-m", "npattn", "trace", "cbam", PYTHONUNBUFFERED=unbuffered)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@needs_shell
@pytest.mark.skipif(mpiexec() is None, reason='no mpi4py and mpiexec here: pip install ".[mpi]"')
@pytest.mark.parametrize("redirection", [">&- 2>&- <&-", "> /dev/full 2> /dev/full", "| head -n 1"])
def test_training_of_a_process(redirection, tmp_path):
    """Two ranks, whose pipes must not get the numbers of streams that are closed; they print where the command does."""
    done = shell(f'"$@" {redirection}', "-c", TRAIN, str(tmp_path / "run"), "--processes", "2")
    assert done.returncode == 0
    assert done.stderr == ""
    assert {"checkpoint.npz", "metrics.json"} <= {path.name for path in (tmp_path / "run").iterdir()}


@needs_shell
def test_a_locale_of_another_time(tmp_path):
    """The files that are read and written are UTF-8 whatever the locale says."""
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}
    others = r"\S*/(numpy|scipy|matplotlib)/\S* EncodingWarning: .*\n  .*\n"  # NumPy 2.0 has one
    done = shell('"$@"', "-c", TRAIN, str(tmp_path / "run"), **old)
    assert (done.returncode, re.sub(others, "", done.stderr)) == (0, "")
    done = shell('"$@"', "-m", "npattn", "ablate", "--list", PYTHONIOENCODING="ascii", **old)
    assert (done.returncode, re.sub(others, "", done.stderr)) == (0, "")


@pytest.mark.parametrize("kind", LOST)
def test_a_stream_that_nobody_holds_any_more_says_nothing(kind):
    """Python closes it then, and from 3.14 on tells what goes wrong."""
    out = Plain(LOST[kind](), "standard output", needed=True)
    out.close()
    assert out.closed


# Narrow and wide


def parsers(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of the commands."""
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


@pytest.mark.parametrize("columns", ["1", "20", "80"])
def test_help_in_few_columns(columns, monkeypatch):
    """Every word is there, in lines that fit if a word does."""
    monkeypatch.setenv("COLUMNS", "500")
    wide = [parser.format_help() for parser in parsers(cli.parser())]
    monkeypatch.setenv("COLUMNS", columns)
    narrow = [parser.format_help() for parser in parsers(cli.parser())]
    for whole, cut in zip(wide, narrow, strict=True):
        assert "".join(cut.split()) == "".join(whole.split())


@pytest.mark.parametrize("columns", ["20", "80"])
@pytest.mark.parametrize("command", COMMANDS)
def test_tables_do_not_depend_on_the_columns(command, columns, folder, tmp_path, monkeypatch):
    """A table that is cut or wrapped in the middle of a number can be read by nobody: what is printed is the same."""
    texts = []
    for i, width in enumerate((columns, "200")):
        monkeypatch.setenv("COLUMNS", width)
        out = Stream()
        monkeypatch.setenv("COLUMNS", width)
        assert driven(monkeypatch, line(command, folder, tmp_path / str(i)), out, Stream()) == 0
        texts.append(out.text())
    if command not in ("bench", "train", "ablate", "cam", "gradcheck"):  # these tell times, and where the files are
        assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == len(texts[1].splitlines())


@needs_shell
@pytest.mark.parametrize("columns", [20, 80])
def test_bars_in_few_columns(columns, tmp_path, monkeypatch):
    """A bar that is longer than the line would leave a line behind at each step; tqdm before 4.68 fills it."""
    import fcntl
    import struct
    import termios

    ends = os.openpty()
    try:
        fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        out, err = Stream("ascii", terminal=ends[1]), Stream("ascii", terminal=ends[1])
        assert driven(monkeypatch, [*line("train", tmp_path, tmp_path), "--batch-size", "16"], out, err) == 0
    finally:
        for end in ends:
            os.close(end)
    assert "epoch 1/1" in out.text()
    shown = [part.replace("\x1b[A", "") for part in err.text().replace("\n", "\r").split("\r")]
    assert any("epochs" in part for part in shown)
    assert max(map(len, shown)) <= columns


# Files


def test_every_text_file_is_opened_with_its_encoding():
    """Else it is that of the machine, and a file of one machine is not read on another."""
    found = []
    for path in (*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "examples").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or any(keyword.arg == "encoding" for keyword in call.keywords):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            mode = "".join(str(arg.value) for arg in call.args if isinstance(arg, ast.Constant))
            if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
                found.append(f"{path.name}:{call.lineno}")
            if name in ("open", "fdopen") and isinstance(call.func, ast.Name) and "b" not in mode:
                found.append(f"{path.name}:{call.lineno}")
    assert not found


def test_streams_are_the_one_place():
    """Nothing else writes to a stream of the process but the commands, whose streams are ours."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "commands" or path.name in ("cli.py", "streams.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert getattr(called, "id", "") != "print", f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]
            assert ast.unparse(called) not in ("sys.stdout.write", "sys.stderr.write") if called else True


def test_what_is_no_stream_at_all():
    assert not streams.is_terminal(None)
    assert not streams.is_terminal(closed())
    with pytest.raises(io.UnsupportedOperation):
        Plain(None, "it").fileno()
