"""`npattn gradcheck`: every op and block of the library, or a layer of one's own."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from npattn.blocks import blocks
from npattn.checker import GradcheckReport, gradcheck
from npattn.checker.cases import Case, block_cases, fused_cases, makers, op_cases
from npattn.checker.recognise import input_names
from npattn.columns import flowed, laid
from npattn.commands.bar import Bar
from npattn.commands.names import find, listing, op_words, what_blocks_are
from npattn.commands.usage import UsageError, given, refuse
from npattn.commands.users_target import drawn, image, in_a_line, in_order, load, value
from npattn.samples import Random
from npattn.streams import width

OF_ONES_OWN = ("shape", "input", "wrt", "constants", "seed_forward", "before_backward", "strict", "dtype")


def add_parser(subparsers: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    parser = subparsers.add_parser(
        "gradcheck",
        help="check backwards against their forwards",
        description="Check the gradients of every op, block and layer of the library, textbook and fused; or of one "
        "layer of your own.",
        epilog="The exit status is 0 if all is right, remarks included; 1 if a gradient is wrong; 2 if the check could "
        "not be run; 3 if nothing is wrong and something was left untested.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="a block or an op of --list, to check that alone; or file.py:name or package.module:name, a layer, a "
        "pair (forward, backward), or a function of no arguments that makes one and may return its inputs too: "
        "target, x, w. Of a file alone, its function make",
    )
    parser.add_argument("--list", action="store_true", help="say which blocks and ops there are, and check nothing")
    parser.add_argument("--shape", help="of the one input of a layer of your own, such as 2,8,5,5")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE",
        help="an input of your own target, by forward's name for it: x=2,3 is random numbers, labels=4:0..9 whole "
        "numbers from 0 to 9, rate=0.5 and train=True are handed on. Once for each",
    )
    parser.add_argument("--wrt", metavar="NAMES", help="take derivatives by these only, such as x,W")
    parser.add_argument("--constants", metavar="NAMES", help="take none by these, such as mask,labels")
    parser.add_argument("--seed-forward", type=int, metavar="N", help="of the random numbers that the forward draws")
    parser.add_argument("--before-backward", metavar="METHOD", help="called before each backward, such as zero_grad")
    parser.add_argument("--points", type=int, metavar="N", help="at how many points a check is made (8)")
    parser.add_argument("--strict", action="store_true", help="the house's rules count as wrong, too")
    parser.add_argument("--dtype", metavar="NAME", help="float64, or float32 with its tolerance (float64)")
    parser.add_argument("--seed", type=int, metavar="N", help="of inputs, cotangents and directions (0)")
    parser.add_argument("--ties", action="store_true", help="small whole numbers for inputs, so that maxima are tied")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print a table, and return the exit status."""
    try:
        if args.list:
            refuse(args, ("target", *OF_ONES_OWN, "points", "seed", "ties"), "with --list")
            sys.stdout.write(listing(what_blocks_are() | op_words()))
            return 0
        only = None if args.target is None else find(args.target, (*blocks(), *op_words()))
        args.points, args.seed = (8 if args.points is None else args.points), (0 if args.seed is None else args.seed)
        return of_the_library(args, only) if args.target is None or only else of_ones_own(args)
    except (UsageError, ValueError) as error:
        print(f"npattn gradcheck: {error}", file=sys.stderr)
        return 2


def of_the_library(args: argparse.Namespace, only: str | None) -> int:
    """Check all that npattn has, or one block or op of it."""
    start = time.perf_counter()
    if found := given(args, OF_ONES_OWN):
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in found)
        raise UsageError(f"{flags} {'is' if len(found) == 1 else 'are'} for a target of your own")
    checks = [check for check in library(args.seed, args.ties, args.points) if only in (None, check.of)]
    reports: list[GradcheckReport] = []
    with Bar(len(checks), "check") as bar:
        for check in checks:
            bar.now(f"checking {check.name}")
            report = check.run()
            if not reports:
                bar.say("\n".join(laid(HEAD, WIDTHS, margin="  ")))
            reports.append(report)
            bar.say(summary(check.name, report))
            bar.done()
    wrong, untested = sum(not report for report in reports), sum(report.status == 3 for report in reports)
    told = f", {untested} untested in part" if untested else ""
    print(f"{len(reports)} checked, {wrong} wrong{told}, {time.perf_counter() - start:.1f} s")
    if others := forms_of(only):
        print(flowed(f"its forms are checked by their own names: {', '.join(others)}", width()))
    return 1 if wrong else 3 if untested else 0


def of_ones_own(args: argparse.Namespace) -> int:
    """Check what the user names. Whatever their code raises is told in one line, with the line that it comes from."""
    try:
        target, inputs = load(args.target)
        rng = np.random.default_rng(args.seed)
        if args.input or args.shape is not None:
            given = drawn(args.input, rng, args.ties)
            first = [] if args.shape is None else [value(args.shape, rng, args.ties)]
            inputs = [*first, *in_order(target, given)] if first else in_order(target, given)
        elif isinstance(inputs, dict):
            inputs = in_order(target, inputs)
        if inputs is None:
            names = input_names(target) or ["x"]
            raise UsageError(f"{args.target}: --input or --shape is missing, such as --input {names[0]}=2,3")
        if not (args.input or args.shape is not None):
            refuse(args, ("ties",), f"on {args.target}, which brings its own inputs")
        with Bar(None, "check") as bar:
            bar.now(f"checking {args.target}")
            report = gradcheck(
                target,
                *inputs,
                seed=args.seed,
                raise_exception=False,
                wrt=args.wrt.split(",") if args.wrt else None,
                constants=args.constants.split(",") if args.constants else (),
                points=args.points,
                strict=args.strict,
                dtype="float64" if args.dtype is None else args.dtype,
                seed_forward=args.seed_forward,
                before_backward=args.before_backward,
            )
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{args.target}: {in_a_line(error)}") from error
    print(flowed(str(report), width()))
    crashed = [problem for problem in report.problems if problem.startswith("backward: raised")]
    return 2 if crashed else report.status


def forms_of(name: str | None) -> list[str]:
    """The forms of a block, each a name of its own; none of a form, nor of an op."""
    if name not in blocks() or blocks()[name].card.name != name:
        return []
    return [form.name for form in blocks()[name].card.forms]


class Check(NamedTuple):
    """One of the library's: of which block or op, what it is called in the table, and what makes its report."""

    of: str
    name: str
    run: Callable[[], GradcheckReport]


def library(seed: int, ties: bool = False, points: int = 8) -> Iterator[Check]:
    """A check of every pair, and of every layer in each form it has, by the house's rules."""
    size = (2, 8, 4, 3)
    how: dict[str, Any] = {"seed": seed, "points": points, "strict": True, "raise_exception": False, "progress": False}

    def of_pair(case: Case) -> GradcheckReport:
        inputs = case.draw(Random(np.random.default_rng(seed), size))
        if ties and len(inputs[0].shape) == 4:
            inputs = (image(np.random.default_rng(seed), inputs[0].shape, ties), *inputs[1:])
        return gradcheck((case.forward, case.backward), *inputs, **how)

    made_of_layers = {entry.kind.__module__: entry.card.name for entry in blocks().values()}
    for case in (*op_cases(), *block_cases(), *fused_cases()):
        module = case.module.__name__
        of = made_of_layers.get(module, module.rpartition(".")[2]) if case.is_op else case.name.split(",")[0]
        yield Check(of, case.name, functools.partial(of_pair, case))
    for make in makers():
        name = make.name.split(",")[0]
        of = name if name in blocks() else str(find(name, op_words()))
        for fused in (False, True):
            tried, layer = (make(fused).to(dtype="float64") for _ in range(2))
            x = image(np.random.default_rng(seed), size, ties)
            tried.forward(x)
            if fused and tried.path == "textbook":
                continue  # it has no fused form
            yield Check(of, f"{make.name}, {tried.path}", functools.partial(gradcheck, layer, x, **how))


HEAD = ("tensor", "shape", "method", "checked", "error", "verdict")
WIDTHS = (17, 12, 12, 12, 7, 8)  # with the gaps and the margin, 80


def summary(name: str, report: GradcheckReport) -> str:
    """The name on a line of its own, and the report's rows below it."""
    lines = [name]
    for row in report.rows:
        kinks = f", {row.kinks + row.meeting} at kinks" if row.kinks + row.meeting else ""
        error = "" if row.error is None else f"{row.error:.1e}"
        checked = row.checked.removesuffix(" entries").removesuffix(" entry") + kinks
        lines += laid((row.name, str(row.shape), row.method, checked, error, row.verdict), WIDTHS, margin="  ")
    return "\n".join(lines + ([] if report else [flowed(report.message(), width())]))
