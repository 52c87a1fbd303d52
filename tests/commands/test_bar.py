"""The bar of the commands that take long: on standard error, and only where that is a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from npattn import cli
from npattn.commands.bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_being_checked_stands_beside_the_bar(monkeypatch, capsys):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["gradcheck", "relu", "--points", "1"]) == 0
    assert "checking relu, fused" in err.getvalue()
    assert "3/4" in err.getvalue()
    assert "checking" not in capsys.readouterr().out
    assert cli.main(["bench", "--block", "eca", "--shape", "1 2 2 2", "--runs", "1", "--no-textbook"]) == 0
    assert "eca (1, 2, 2, 2)" in err.getvalue()


def test_of_ones_own_too(monkeypatch):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["gradcheck", "npattn.ops.relu:ReLU", "--shape", "2x3"]) == 0
    assert "checking npattn.ops.relu:ReLU …" in err.getvalue()


@pytest.mark.parametrize("err", [io.StringIO(), None])
def test_nothing_where_there_is_no_terminal(err, monkeypatch):
    monkeypatch.setattr(sys, "stderr", err)
    with Bar(3, "check") as bar:
        bar.now("this")
        bar.done()
        bar.say("a line")
    assert err is None or err.getvalue() == ""


def test_nothing_without_tqdm(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with Bar(3, "check") as bar:
        bar.say("a line")
    assert capsys.readouterr().out == "a line\n"
