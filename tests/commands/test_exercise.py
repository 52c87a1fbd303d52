"""`npattn exercise` and `npattn docs`: what they print, write and leave alone; what the server serves."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from npattn import files
from npattn.cli import main
from npattn.commands import docs
from npattn.commands import exercise as command_exercise
from npattn.exercises import exercises
from npattn.exercises.verdict import UNTESTED, Verdict


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
        (["exercise", "relu", "--limit", "3"], "--limit has no effect without --check"),
        (["exercise", "--check", "none.py", "--limit", "0"], "--limit: expected seconds above 0"),
        (["exercise", "--check", "none.py", "--limit", "nan"], "--limit: expected seconds above 0"),
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


def edited(name: str, right: str, wrong: str) -> str:
    """An answer with an edit, in a file of its own."""
    one = exercises()[name]
    assert right in one.answer
    Path("mine.py").write_text(one.file(one.answer.replace(right, wrong)), encoding="utf-8")
    return "mine.py"


def test_a_bug_is_to_be_found_and_mended(capsys):
    assert main(["exercise", "bug-9"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("bug-9.py: find the mistake in its backward and mend it, then:")
    assert "Find the mistake in its backward, and mend it." in Path("bug-9.py").read_text(encoding="utf-8")


def test_an_endless_loop_is_ended_at_the_limit(capsys):
    file = edited("product", "da = dy * b", "\n    while True:\n        pass")
    for limit in (4, 40):  # a busy machine may not have come to the loop after 4 s
        assert main(["exercise", "--check", file, "--limit", str(limit)]) == 2
        out = " ".join(capsys.readouterr().out.split())
        if "at line" in out:
            break
    assert f"no verdict after {limit} s, at line" in out
    assert "--limit sets another time" in out


def test_a_call_that_never_comes_back_is_ended_too(capsys):
    file = edited("product", "da = dy * b", "import re; re.match('(a+)+b', 'a' * 60)")
    assert main(["exercise", "--check", file, "--limit", "3"]) == 2
    assert "no verdict after 3 s" in capsys.readouterr().out


def test_ctrl_c_ends_an_answer_and_says_where_it_was(here: Path):
    file = edited("product", "da = dy * b", "\n    open('begun', 'w').close()\n    while True:\n        pass")
    command = [sys.executable, "-m", "npattn", "exercise", "--check", file]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    try:
        for _ in range(600):
            if Path("begun").exists():
                break
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130
    assert re.search(r"^npattn: interrupted after .* s, at line \d+: (while True|pass\b.*)\n$", said), said


def test_an_answer_that_ends_its_process_has_not_passed(capsys):
    file = edited("product", "da = dy * b", "import os; os._exit(0)")
    assert main(["exercise", "--check", file]) == 2
    assert "ended its process, with status 0" in " ".join(capsys.readouterr().out.split())


def test_another_exercise_than_the_file_says(capsys):
    file = edited("product", "da = dy * b", "da = dy * b")
    assert main(["exercise", "relu", "--check", file]) == 2
    assert "says that it is of product, got relu" in capsys.readouterr().err
    assert main(["exercise", "Product", "--check", file]) == 0


def test_the_status_for_what_is_left_untested(monkeypatch, capsys):
    """3, as the help says."""
    verdict = Verdict("product", UNTESTED, "nothing is wrong, but untested in a")
    monkeypatch.setattr(command_exercise, "judge_apart", lambda *_: verdict)
    assert main(["exercise", "--check", edited("product", "da", "da")]) == 3
    assert "untested in a" in capsys.readouterr().out


def test_a_folder_that_is_not_there(capsys):
    assert main(["exercise", "relu", "--out", "nowhere/relu.py"]) == 2
    assert "--out: expected a file in a folder that is there" in capsys.readouterr().err


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
