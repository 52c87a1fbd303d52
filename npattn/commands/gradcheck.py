"""`npattn gradcheck`: every op and block of the library, or a layer of one's own."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.checker import GradcheckReport, gradcheck
from npattn.checker.cases import block_cases, fused_cases, makers, op_cases
from npattn.checker.recognise import input_names
from npattn.commands.users_target import UsageError, drawn, image, in_a_line, in_order, load, value
from npattn.samples import Random


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
        help="file.py:name or package.module:name, a layer, a pair (forward, backward), or a function of no arguments "
        "that makes one and may return its inputs too: target, x, w. Of a file alone, its function make",
    )
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
    parser.add_argument("--points", type=int, default=8, help="at how many points a check is made (default 8)")
    parser.add_argument("--strict", action="store_true", help="the house's rules count as wrong, too")
    parser.add_argument("--dtype", default="float64", help="float64 (the default), or float32 with its tolerance")
    parser.add_argument("--seed", type=int, default=0, help="of inputs, cotangents and directions (default 0)")
    parser.add_argument("--ties", action="store_true", help="small whole numbers for inputs, so that maxima are tied")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print a table, and return the exit status."""
    try:
        return of_the_library(args) if args.target is None else of_ones_own(args)
    except (UsageError, ValueError) as error:
        print(f"npattn gradcheck: {error}", file=sys.stderr)
        return 2


def of_the_library(args: argparse.Namespace) -> int:
    """Check all that npattn has."""
    start = time.perf_counter()
    for option in ("shape", "input", "wrt", "constants", "seed_forward", "before_backward"):
        if getattr(args, option) not in (None, []):
            raise UsageError(f"--{option.replace('_', '-')} is for a target of your own")
    reports = []
    for name, report in library(args.seed, args.ties, args.points):
        reports.append(report)
        print(summary(name, report), flush=True)
    wrong, untested = sum(not report for report in reports), sum(report.status == 3 for report in reports)
    told = f", {untested} untested in part" if untested else ""
    print(f"{len(reports)} checked, {wrong} wrong{told}, {time.perf_counter() - start:.1f} s")
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
        report = gradcheck(
            target,
            *inputs,
            seed=args.seed,
            raise_exception=False,
            wrt=args.wrt.split(",") if args.wrt else None,
            constants=args.constants.split(",") if args.constants else (),
            points=args.points,
            strict=args.strict,
            dtype=args.dtype,
            seed_forward=args.seed_forward,
            before_backward=args.before_backward,
        )
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{args.target}: {in_a_line(error)}") from error
    print(report)
    crashed = [problem for problem in report.problems if problem.startswith("backward: raised")]
    return 2 if crashed else report.status


def library(seed: int, ties: bool = False, points: int = 8) -> Iterator[tuple[str, GradcheckReport]]:
    """A report for every pair, and for every layer in each form it has, by the house's rules."""
    size = (2, 8, 4, 3)
    how: dict[str, Any] = {"seed": seed, "points": points, "strict": True, "raise_exception": False}
    for case in (*op_cases(), *block_cases(), *fused_cases()):
        inputs = case.draw(Random(np.random.default_rng(seed), size))
        if ties and len(inputs[0].shape) == 4:
            inputs = (image(np.random.default_rng(seed), inputs[0].shape, ties), *inputs[1:])
        yield case.name, gradcheck((case.forward, case.backward), *inputs, **how)
    for make in makers():
        for fused in (False, True):
            tried, layer = (make(fused).to(dtype="float64") for _ in range(2))
            x = image(np.random.default_rng(seed), size, ties)
            tried.forward(x)
            if fused and tried.path == "textbook":
                continue  # it has no fused form
            yield f"{make.name}, {tried.path}", gradcheck(layer, x, **how)


def summary(name: str, report: GradcheckReport) -> str:
    """The report's rows on one line each, the name before the first."""
    lines = []
    for i, row in enumerate(report.rows):
        error = "" if row.error is None else f"{row.error:.1e}"
        first = name if i == 0 else ""
        kinks = f", {row.kinks + row.meeting} at kinks" if row.kinks + row.meeting else ""
        lines.append(
            f"{first:<54}  {row.name:<16}  {row.shape!s:<13}  {row.method:<12}  {row.checked + kinks:<30}  "
            f"{error:<7}  {row.verdict}"
        )
    return "\n".join(lines + ([] if report else [report.message()]))
