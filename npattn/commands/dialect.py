"""`npattn dialect FILE`: which one have I got?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from npattn.backend import Array
from npattn.columns import counted, flowed, table
from npattn.dialects.candidates import Candidate, misfits_text
from npattn.dialects.detect import near_lines
from npattn.dialects.keys import NO_WEIGHTS, WRAPPERS, part, quoted, shown, unwrapped, weights_of, wrapper_of
from npattn.dialects.network import halves, inside
from npattn.dialects.numbers import HALF
from npattn.dialects.weights_file import Contents, contents
from npattn.streams import width

FLOATS = ("float32", "float64", *HALF)


def add_parser(subparsers: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    parser = subparsers.add_parser(
        "dialect",
        help="say which codebase's attention a file of weights is of",
        description="Find the SE and CBAM modules in a file of weights: which codebase they are from, their shapes, "
        "what the file cannot say, and the call that loads them. The exit status is 1 if there are none.",
    )
    parser.add_argument("file", metavar="FILE", help="an .npz, a .safetensors, or what torch.save wrote, by any name")
    parser.add_argument(
        "--under", metavar="NAME", help="which weights, of a file that holds several: model_ema, or model.state_dict"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), help="what the printed calls convert the weights to (default: as is)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the file holds. Returns the exit status: 0 if a module was found, 1 if none."""
    found = contents(
        args.file, under=args.under, dtype=args.dtype or "float64"
    )  # which holds all; found.dtypes are the file's
    lines = report(found, Asked(args.file, args.under, args.dtype))
    print("\n".join(line if to_copy(line) else flowed(line, width()) for line in lines))
    return 0 if inside(found.state) else 1


def to_copy(line: str) -> bool:
    """Whether a line is a call, which is for copying and so stays whole."""
    return line.lstrip().startswith(("state = ", "npattn.dialects."))


def report(found: Contents, asked: Asked) -> list[str]:
    """The lines that the command prints for a file's contents. Modules of one class are listed together."""
    plain = unwrapped(found.state)
    numbers = sum(math.prod(value.shape) for value in found.state.values())
    held = f"{counted(len(found.state), 'entry', 'entries')}, {counted(numbers, 'number')}"
    lines = [f"{shown(asked.path)}: {held}", *remarks(found, asked.dtype)]
    modules, partly = inside(plain), halves(plain)
    alike: dict[tuple[str, ...], list[str]] = {}
    for prefix, fitting in modules.items():
        alike.setdefault((*(candidate.row.title for candidate in fitting), partly.get(prefix, "")[:60]), []).append(
            prefix
        )
    for prefixes in alike.values():
        lines += ["", *module_lines(prefixes, modules, found, asked), *half_lines(prefixes, partly)]
    near = near_lines(plain)
    if not modules:
        reasons = misfits_text(plain)
        lines += [reasons[0].upper() + reasons[1:]]
    if near:
        lines += ["", "Nearly:", *(f"  {line}" for line in near)]
    return lines


def remarks(found: Contents, dtype: str | None) -> list[str]:
    """What was passed over, taken or left, a line for each."""
    lines = []
    if found.under or found.others:
        what = f"under {shown(found.under)}" if found.under else "at the top"
        lines.append(f"The weights are {what}.")
    for name in found.others:
        lines.append(f"There are others, which --under {quoted(name)} takes instead.")
    if found.left_out:
        listed = ", ".join(f"{shown(key)} ({kind})" for key, kind in list(found.left_out.items())[:6])
        more = f" and {len(found.left_out) - 6} more" if len(found.left_out) > 6 else ""
        lines.append(f"No arrays, and left out: {listed}{more}.")
    weights = weights_of(found.state)
    for last, what in NO_WEIGHTS.items():
        count = sum(key.rpartition(".")[2] == last for key in found.state)
        if count:
            many = "entry" if count == 1 else "entries"
            lines.append(f"No weights, and passed over: {count} {many} {last}, {what}.")
    before = wrapper_of(weights)
    for name in before.replace(".", ". ").split():
        lines.append(f"Every key begins with {name}, as {WRAPPERS[name]} writes it. It is passed over.")
    coarse = [key for key in weights if found.dtypes[key] in HALF]
    if coarse and dtype is None:
        more = f" and {len(coarse) - 1} more" if len(coarse) > 1 else ""
        what = f"{shown(coarse[0])} is {found.dtypes[coarse[0]]}{more}"
        lines.append(f'{what}. A layer here computes in float32 or float64: dtype="float32" converts it on reading.')
    return lines


class Asked(NamedTuple):
    """What the command was asked for."""

    path: str
    under: str | None = None
    dtype: str | None = None


def read_call(found: Contents, asked: Asked, names: set[str]) -> str:
    """The call that reads the file as it was read here, so that a module of these dtypes can be loaded from it."""
    wanted = asked.dtype
    if wanted is None and (len(names) > 1 or names & set(HALF)):
        wanted = "float64" if "float64" in names else "float32"
    chosen = found.under if asked.under is not None or found.others else None
    arguments = [quoted(asked.path)]
    arguments += [f"under={quoted(chosen)}"] if chosen is not None else []
    arguments += [f"dtype={quoted(wanted)}"] if wanted is not None else []
    return f"npattn.dialects.read({', '.join(arguments)})"


def module_lines(prefixes: list[str], modules: dict[str, list[Candidate]], found: Contents, asked: Asked) -> list[str]:
    """What there is to say of the modules at these prefixes, which are of one class. The first is the example."""
    first, fitting = prefixes[0], modules[prefixes[0]]
    names = " or ".join(candidate.row.title for candidate in fitting)
    lines = [names if len(fitting) == 1 else f"Ambiguous: {names}"]
    for prefix in prefixes if first else []:
        lines.append(
            f"  at {shown(prefix)}: {counted(parameters(found.state, prefix, modules[prefix][0]), 'parameter')}"
        )
    lines += [f"  {line}" for line in entries(found, first, fitting[0])]
    lines += [] if first else [f"  {counted(parameters(found.state, first, fitting[0]), 'parameter')}"]
    if len(fitting) > 1:
        lines.append(
            "  One set of keys and shapes, but not one function. Only whoever made the file knows which it is:"
        )
    for candidate in fitting:
        lines += [f"  {line}" for line in candidate_lines(candidate, first, found, asked)]
    return lines


def candidate_lines(candidate: Candidate, prefix: str, found: Contents, asked: Asked) -> list[str]:
    """What one class that fits computes, what the file cannot say of it, where it is used, and the call."""
    row, place = candidate.row, candidate.row.place(prefix)
    lines = [f"{row.title} returns {row.returns}"]
    if row.unseen:
        lines.append(f"  the file cannot show {', '.join(row.unseen)}: give what is not the default")
    if row.used:
        lines.append(f"  it is used {row.used}")
    dtypes = below(found.dtypes, prefix)
    names = {key.theirs: dtypes[key.theirs] for key in row.keys if key.axes and key.theirs in dtypes}
    whole = [f"{key} is {name}" for key, name in names.items() if name not in FLOATS]
    if whole:
        return [*lines, f"  no call loads it: {whole[0]}, and a layer here takes floats"]
    if place is not None:
        lines.append(f"  {shown(prefix)} is where {row.dialect}'s {place.network} has it, and the call is for that")
    read = read_call(found, asked, set(names.values()))
    lines.append(f"  state = {read}" if not prefix else f"  state = npattn.dialects.part({read}, {quoted(prefix)})")
    lines.append(f"  {row.call(candidate.placed(prefix).args)}")
    return lines


def half_lines(prefixes: list[str], partly: Mapping[str, str]) -> list[str]:
    """What is the matter with the other half, where these are one half of something."""
    first = partly.get(prefixes[0])
    return [f"  Perhaps {first}"] if first else []


def entries(found: Contents, prefix: str, candidate: Candidate) -> list[str]:
    """A heading, and a line for each entry of a module, in the order of the class, with the dtype that the file has."""
    mine, dtypes = below(found.state, prefix), below(found.dtypes, prefix)
    keys = [key.theirs for key in candidate.row.keys if key.theirs in mine]
    rows = [(key, str(dtypes[key]), str(tuple(mine[key].shape))) for key in keys]
    return table(("key", "dtype", "shape"), rows, 10**6).split("\n")  # a key is never cut


def parameters(state: Mapping[str, Array], prefix: str, candidate: Candidate) -> int:
    """How many numbers a module has to learn."""
    mine = below(state, prefix)
    learnt = [key.theirs for key in candidate.row.keys if "running_" not in key.theirs and key.axes]
    return sum(math.prod(mine[key].shape) for key in learnt if key in mine)


def below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What is at a prefix; all of it at ""."""
    return part(state, prefix) if prefix else unwrapped(state)
