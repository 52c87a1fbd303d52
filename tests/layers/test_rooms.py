"""The rooms of the package, and what may know what: imports go down, wherever in a file they stand."""

from __future__ import annotations

import ast

import pytest

from tests.support.imports import FILES, GRAPH, PACKAGE, by_name, cycle, module_of, ours, parsed, room_of

FLOORS = (
    ("arguments", "backend", "capacity", "columns", "files", "grad_mode", "notebook", "seems", "streams", "version"),
    ("checks", "checkpoint", "packing", "parameters", "progress"),
    ("saved",),
    ("data", "last_forward", "optimizer", "state"),
    ("layer",),
    ("block",),
    ("nested", "samples"),
    ("ops",),
    ("attention",),
    ("fused", "variants"),
    ("blocks",),
    ("checker", "dialects", "explain", "finite", "models", "torch"),
    ("exercises", "training"),
    ("ablation", "bench"),
    ("commands",),
    ("cli",),
    ("__main__",),
    ("__init__",),
)
"""From the ground up. A room knows those below its floor, and none beside it."""

FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

AT_RUN_TIME = {
    ("npattn", "f'npattn.{name}'"): "a module of MODULES when it is asked for: most programs need none",
    ("npattn.blocks", "f'npattn.{package}'"): "`modules` finds the blocks in their files, so that no list names them",
    ("npattn.blocks", "f'{folder.__name__}.{found.name}'"): "the same, a file of that package",
    ("npattn.fused", "f'{__name__}.{name}'"): "`twin`: a file of the package itself, when a layer first needs it",
    ("npattn.explain.watch", "f'npattn.{path.parent.name}.{path.stem}'"): "a file of WATCHED that runs: floors below",
    ("npattn.commands.users_target", "name"): "a module of the user's, named on the command line",
    ("npattn.dialects.weights_file", "name"): "a library that reads weights: torch, safetensors",
    ("npattn.dialects.timm", "f'{__name__}.{found.name}'"): "a file of the package itself: each is found, none listed",
    ("npattn.state", "state['xp']"): "the array library of a layer that is unpickled",
}
"""File and argument of an import_module whose name only a run can know: why it does not break the floors."""

EACH = pytest.mark.parametrize("module", FILES)


def test_every_room_has_a_floor():
    rooms = sorted(room_of(module) for module in FILES)
    assert sorted(FLOOR) == sorted(set(rooms))
    assert len(FLOOR) == sum(len(rooms) for rooms in FLOORS)


@EACH
def test_imports_go_down(module: str):
    """Those inside functions, under `if TYPE_CHECKING`, and by name, too."""
    here = room_of(module)
    for other in GRAPH[module]:
        there = room_of(other)
        assert there == here or FLOOR[there] < FLOOR[here], f"{module} imports {other}"


@EACH
def test_a_name_that_only_a_run_knows_is_a_known_one(module: str):
    for call in by_name(parsed(FILES[module])):
        assert call.name is not None or (module, call.source) in AT_RUN_TIME, f"{module}: import_module({call.source})"


def test_the_known_ones_are_there():
    found = {(module, call.source) for module, path in FILES.items() for call in by_name(parsed(path))}
    assert set(AT_RUN_TIME) <= found


def test_what_explain_watches_is_below_it():
    from npattn.explain.watch import WATCHED

    assert all(FLOOR[room] < FLOOR["explain"] for room in WATCHED)


def test_no_two_rooms_know_each_other():
    rooms: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        rooms.setdefault(room_of(module), set()).update(room_of(other) for other in others)
    for room, others in rooms.items():
        others.discard(room)
        assert not [other for other in others if room in rooms[other]], room
    assert cycle(rooms) == []


@pytest.mark.parametrize("room", sorted({room_of(module) for module in FILES}))
def test_no_circle_of_files(room: str):
    files = {module for module in FILES if room_of(module) == room}
    assert cycle({module: GRAPH[module] & files for module in files}) == []


def test_these_checks_see_every_import():
    source = """
import npattn.ops.relu as r
from npattn import fused
from npattn.layer import Layer, Options
if TYPE_CHECKING:
    from npattn import training, CBAM
def f():
    from npattn.ops import linear
    import numpy, npattn.bench.runs
    importlib.import_module("npattn.explain.cam")
    import_module("torch")
    import_module(f"npattn.{room}")
"""
    tree = ast.parse(source)
    assert ours(tree) == {
        "npattn.ops.relu", "npattn.fused", "npattn.layer", "npattn.training", "npattn", "npattn.ops.linear",
        "npattn.bench.runs", "npattn.explain.cam",
    }  # fmt: skip
    assert [call.name for call in by_name(tree)] == ["npattn.explain.cam", "torch", None]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert room_of(module_of(PACKAGE / "ops" / "relu.py")) == "ops"
    assert room_of(module_of(PACKAGE / "__init__.py")) == "__init__"
