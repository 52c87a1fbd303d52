"""`npattn exercise` and `npattn docs`: what they print, write and leave alone; what the server serves."""

from __future__ import annotations

import http.client
import os
import threading
from pathlib import Path

import pytest

from npattn import files
from npattn.cli import main
from npattn.commands import docs
from npattn.exercises import exercises


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list(capsys):
    assert main(["exercise"]) == 0
    out = capsys.readouterr().out
    for name, one in exercises().items():
        assert name in out
        assert one.kind in out


@pytest.mark.parametrize("word", ["cbam", "CBAM"])
def test_a_file_to_fill_in_is_judged(word: str, here: Path, capsys):
    assert main(["exercise", word]) == 0
    assert capsys.readouterr().out == "cbam.py: fill in its backward, then: npattn exercise --check cbam.py\n"
    assert os.listdir(here) == ["cbam.py"]
    assert main(["exercise", "--check", "cbam.py"]) == 2
    assert "still to be written" in capsys.readouterr().out
    assert main(["exercise", "cbam", "--answer"]) == 0
    answer = capsys.readouterr().out
    Path("cbam.py").write_text(answer, encoding="utf-8")
    assert main(["exercise", "--check", "cbam.py"]) == 0
    assert "cbam: solved" in capsys.readouterr().out
    Path("cbam.py").write_text(answer.replace("dx = dx_direct + dx_gate", "dx = dx_direct"), encoding="utf-8")
    assert main(["exercise", "--check", "cbam.py"]) == 1
    out = capsys.readouterr().out
    assert "wrong in x; right in params.ca.w1" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_somebodys_work_is_never_overwritten(here: Path, capsys):
    Path("se.py").write_text("mine", encoding="utf-8")
    assert main(["exercise", "se"]) == 1
    assert Path("se.py").read_text(encoding="utf-8") == "mine"
    assert "is there already" in capsys.readouterr().err
    assert main(["exercise", "se", "--out", "other.py"]) == 0
    assert sorted(os.listdir(here)) == ["other.py", "se.py"]


def test_nor_where_files_have_one_name_only(here: Path, monkeypatch):
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", link)
    Path("se.py").write_text("mine", encoding="utf-8")
    assert main(["exercise", "se"]) == 1
    assert Path("se.py").read_text(encoding="utf-8") == "mine"
    assert main(["exercise", "relu"]) == 0
    assert Path("relu.py").read_text(encoding="utf-8") == exercises()["relu"].file()
    assert sorted(os.listdir(here)) == ["relu.py", "se.py"]


def test_hints_one_at_a_time(capsys):
    count = len(exercises()["se"].hints)
    for number in range(1, count + 1):
        assert main(["exercise", "se", "--hint", str(number)]) == 0
        assert f"Hint {number} of {count}" in capsys.readouterr().out
    assert main(["exercise", "se", "--hint", str(count + 1)]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["exercise", "cbma"], "did you mean cbam"),
        (["exercise", "--check", "none.py"], "no such file"),
        (["exercise", "--answer"], "--answer has no effect"),
        (["exercise", "--check", "."], "regular file"),
        (["docs", "nowhere"], "expected a built site"),
    ],
)
def test_what_makes_no_sense(words: list[str], says: str, capsys):
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_a_file_of_no_exercise(capsys):
    Path("mine.py").write_text("x = 1\n", encoding="utf-8")
    assert main(["exercise", "--check", "mine.py"]) == 2
    assert "# exercise: NAME" in capsys.readouterr().err
    assert main(["exercise", "relu", "--check", "mine.py"]) == 2
    assert "expected a function forward" in capsys.readouterr().out
    Path("mine.py").write_bytes(b"\xff\xfe")
    assert main(["exercise", "--check", "mine.py"]) == 2


def test_a_site_is_served_on_this_machine_alone(here: Path):
    Path("index.html").write_text("<p>here", encoding="utf-8")
    Path("a.wasm").write_bytes(b"\0asm")
    with docs.server(here) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        assert serving.server_address[0] == "127.0.0.1"
        for path, status, kind in (
            ("/", 200, "text/html"), ("/a.wasm", 200, "application/wasm"),
            ("/../secret", 404, "text/html;charset=utf-8"),
        ):  # fmt: skip
            asked = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=10)
            asked.request("GET", path)
            answer = asked.getresponse()
            assert (answer.status, answer.getheader("Content-Type")) == (status, kind)
            asked.close()
        serving.shutdown()


def test_the_command_opens_the_browser_and_ends_with_ctrl_c(here: Path, monkeypatch, capsys):
    Path("index.html").write_text("<p>here", encoding="utf-8")
    opened: list[str] = []
    monkeypatch.setattr(docs.webbrowser, "open", opened.append)

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(docs.http.server.ThreadingHTTPServer, "serve_forever", interrupted)
    assert main(["docs", "."]) == 0
    assert opened[0].startswith("http://127.0.0.1:")
    assert opened[0] in capsys.readouterr().out
    assert main(["docs", ".", "--no-browser"]) == 0
    assert len(opened) == 1
