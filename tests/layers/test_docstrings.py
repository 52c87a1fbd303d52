"""The docstring of each public thing has numpydoc's sections, with every parameter under the name that it has."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import npattn
import npattn.attention
import npattn.ops
import npattn.variants
from npattn.block import Block

numpydoc = pytest.importorskip("numpydoc.validate")

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

LEFT = {
    "SA01": "not everything has something to see also",
    "EX01": "the examples stand on the pages",
    "ES01": "one sentence may be enough",
    "PR04": "types stand in the signature",
    "PR07": "where the shape says all, there is nothing to add",
    "RT03": "likewise",
    "PR08": "arrays have small letters, also where a sentence begins with one",
    "RT04": "likewise",
    "RT02": "what comes back has a letter in the formula, and is called by it",
}


def files(room):
    found = pkgutil.iter_modules(room.__path__, room.__name__ + ".")
    return [importlib.import_module(module.name) for module in found]


def public():
    """What is public, by its full name: what is offered at the top, and what the reference names."""
    names = {f"npattn.{name}" for name in npattn.__all__}
    for page in REFERENCE.glob("*.md"):
        names |= set(re.findall(r"^\.\. auto(?:function|class):: (\S+)", page.read_text("utf-8"), re.MULTILINE))
    for file in [*files(npattn.attention), *files(npattn.ops), *files(npattn.variants)]:
        for name, value in vars(file).items():
            layer = inspect.isclass(value) and issubclass(value, Block)
            pair = inspect.isfunction(value) and name in ("forward", "backward")
            if getattr(value, "__module__", "") == file.__name__ and (layer or pair):
                names.add(f"{file.__name__}.{name}")
    return sorted(names)


def named(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def faults(name):
    """What numpydoc finds, without what is left to each, and without a dataclass's fields that are its attributes."""
    value = named(name)
    found = numpydoc.validate(f"{value.__module__}.{value.__qualname__}")  # a module may have the name of its function
    told = [(code, text) for code, text in found["errors"] if code not in LEFT]
    if inspect.isclass(value) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields")):
        told = [(code, text) for code, text in told if code != "PR01"]
        attributes = str(found["docstring"]).partition("Attributes\n")[2]
        fields = value._fields if hasattr(value, "_fields") else [field.name for field in dataclasses.fields(value)]
        told += [("PR01", f"{field} not documented") for field in fields if field not in attributes]
    return told


@pytest.mark.parametrize("name", public())
def test_has_numpydocs_sections(name):
    assert not faults(name)


def test_what_is_asked_for_is_seen(monkeypatch):
    """Without one of its parameters, or with one too many, a docstring does not pass."""
    whole = inspect.getdoc(npattn.SELayer)
    monkeypatch.setattr(npattn.SELayer, "__doc__", whole.replace("reduction\n", "reductions\n"))
    assert {code for code, _ in faults("npattn.SELayer")} >= {"PR01", "PR02"}


def test_nothing_is_left_out():
    assert len(public()) > 150
    assert {"npattn.attention.se.forward", "npattn.ops.conv2d.backward", "npattn.dialects.load"} <= set(public())
