"""The repository's own files agree with each other: bounds, versions, commands that a contributor is told to run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import npattn

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name to lowest version, of those that have one."""
    found = (re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", text) for text in requirements)
    return {match[1]: match[2] for match in found if match}


def test_the_lowest_versions_are_those_of_the_project():
    text = (ROOT / "tests/lowest.txt").read_text(encoding="utf-8")
    lowest = dict(re.findall(r"^([\w-]+)==(\S+)", text, re.M))
    extras = PROJECT["optional-dependencies"]
    expected = bounds(PROJECT["dependencies"] + extras["demo"] + extras["weights"] + extras["test"])
    assert expected.keys() <= lowest.keys()
    for name, version in expected.items():
        assert (lowest[name] + ".0.0").startswith(version + "."), (name, lowest[name], version)


def test_the_citation_has_this_version():
    assert f"\nversion: {npattn.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_what_contributing_points_at_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"nox -s (\w+)", text)) <= set(sessions)
    rooms = re.findall(r"`(\w+)`", text.split("`tests/` has a room")[1].split("\n\n")[0])
    there = {folder.name for folder in (ROOT / "tests").iterdir() if (folder / "__init__.py").exists()}
    assert set(rooms) == there - {"support"}, (rooms, there)
    extras = re.findall(r'"\.\[([\w,]+)\]"', text)[0].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()
