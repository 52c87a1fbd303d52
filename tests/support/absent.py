"""Libraries that are installed, made as if they were not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import Any

import pytest


class Missing(MetaPathFinder):
    """Answers for some libraries that there are none."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Until the test is over, none of these can be imported.

    A None in sys.modules does not do: array-api-compat before 1.12 takes whatever stands there for imported.
    """
    for module in [one for one in sys.modules if one.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Missing(names), *sys.meta_path])
