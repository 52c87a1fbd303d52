"""`npattn dialect FILE`: which one have I got?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from npattn.backend import Array
from npattn.dialects.detect import Candidate, inside, misfits_text, part, unwrapped
from npattn.dialects.weights_file import read


def add_parser(subparsers: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    parser = subparsers.add_parser(
        "dialect",
        help="say which codebase's attention a file of weights is of",
        description="Find the SE and CBAM modules in a file of weights: which codebase they are from, their shapes, "
        "what the file cannot say, and the call that loads them. The exit status is 1 if there are none.",
    )
    parser.add_argument("file", metavar="FILE", help="a .npz, .safetensors, .pt, .pth or .bin file of weights")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the file holds. Returns the exit status: 0 if a module was found, 1 if none."""
    state = read(args.file)
    print("\n".join(report(state, args.file)))
    return 0 if inside(state) else 1


def report(state: Mapping[str, Array], path: str) -> list[str]:
    """The lines that the command prints for a file's state. Modules of one class are listed together."""
    plain = unwrapped(state)
    lines = [f"{path}: {len(plain)} entries, {sum(math.prod(value.shape) for value in plain.values()):,} numbers"]
    if plain.keys() != state.keys():
        lines.append("Every key begins with module., as torch's DataParallel writes it. It is passed over.")
    modules = inside(plain)
    alike: dict[tuple[str, ...], list[str]] = {}
    for prefix, fitting in modules.items():
        alike.setdefault(tuple(candidate.row.title for candidate in fitting), []).append(prefix)
    for prefixes in alike.values():
        lines += ["", *module_lines(prefixes, modules, plain, path)]
    if not modules:
        reasons = misfits_text(plain)
        lines.append(reasons[0].upper() + reasons[1:])
    return lines


def module_lines(
    prefixes: list[str], modules: dict[str, list[Candidate]], state: Mapping[str, Array], path: str
) -> list[str]:
    """What there is to say of the modules at these prefixes, which are of one class. The first is the example."""
    first, fitting = prefixes[0], modules[prefixes[0]]
    names = " or ".join(candidate.row.title for candidate in fitting)
    lines = [names if len(fitting) == 1 else f"Ambiguous: {names}"]
    for prefix in prefixes if first else []:
        lines.append(f"  at {prefix}: {entries(state, prefix, modules[prefix][0])[1]:,} parameters")
    shown, count = entries(state, first, fitting[0])
    lines += [f"  {line}" for line in shown] + ([] if first else [f"  {count:,} parameters"])
    if len(fitting) > 1:
        lines.append(
            "  One set of keys and shapes, but not one function. Only whoever made the file knows which it is:"
        )
    for candidate in fitting:
        lines.append(f"  {candidate.row.title} returns {candidate.row.returns}")
        if candidate.row.unseen:
            lines.append(f"    the file cannot show {', '.join(candidate.row.unseen)}: give what is not the default")
        where = f'npattn.dialects.read("{path}")'
        lines.append(f"    state = {where}" if not first else f'    state = npattn.dialects.part({where}, "{first}")')
        lines.append(f"    {candidate.row.call(candidate.args)}")
    return lines


def entries(state: Mapping[str, Array], prefix: str, candidate: Candidate) -> tuple[list[str], int]:
    """A line for each entry of a module, in the order of the class, and how many parameters it has."""
    mine = part(state, prefix) if prefix else state
    keys = [key for key in candidate.row.keys if key.theirs in mine]
    width = max(len(key.theirs) for key in keys)
    lines = [f"{k.theirs:<{width}}  {mine[k.theirs].dtype!s:<8} {tuple(mine[k.theirs].shape)}" for k in keys]
    learnt = [key for key in keys if "running_" not in key.theirs and key.axes]
    return lines, sum(math.prod(mine[key.theirs].shape) for key in learnt)
