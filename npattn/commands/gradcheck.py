"""`npattn gradcheck`: every op and block of the library, or a layer of one's own."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npattn.checker import GradcheckReport, gradcheck
from npattn.checker.cases import block_cases, fused_cases, makers, op_cases
from npattn.samples import Random


def add_parser(subparsers: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    parser = subparsers.add_parser(
        "gradcheck",
        help="check backwards against their forwards",
        description="Check the gradients of every op, block and layer of the library, textbook and fused; or of one "
        "layer of your own. The exit status is 1 if one is wrong.",
    )
    parser.add_argument(
        "target",
        nargs="?",
        help="package.module:name, a layer, a pair (forward, backward), or a function of no arguments that makes one",
    )
    parser.add_argument("--shape", help="of the input of a layer of your own, such as 2,8,5,5")
    parser.add_argument("--seed", type=int, default=0, help="of inputs, cotangents and directions (default 0)")
    parser.add_argument("--ties", action="store_true", help="small whole numbers for inputs, so that maxima are tied")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print a table, and return the exit status: 0 if all is right, 1 if a gradient is wrong, 2 for misuse."""
    start = time.perf_counter()
    if args.target is None:
        if args.shape is not None:
            print("npattn gradcheck: --shape is for a target of your own", file=sys.stderr)
            return 2
        reports = []
        for name, report in library(args.seed, args.ties):
            reports.append((name, report))
            print(summary(name, report), flush=True)
        wrong = sum(not report for _, report in reports)
        print(f"{len(reports)} checked, {wrong} wrong, {time.perf_counter() - start:.1f} s")
        return min(wrong, 1)
    try:
        target = found(args.target)
        shape = tuple(int(length) for length in (args.shape or "").split(","))
    except (ImportError, AttributeError, ValueError) as error:
        print(f"npattn gradcheck: {args.target} --shape {args.shape}: {error}", file=sys.stderr)
        return 2
    try:
        report = gradcheck(target, image(np.random.default_rng(args.seed), shape, args.ties), seed=args.seed,
                           raise_exception=False)  # fmt: skip
    except (TypeError, ValueError) as error:
        print(f"npattn gradcheck: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report else 1


def image(rng: np.random.Generator, shape: tuple[int, ...], ties: bool) -> np.ndarray:
    """A random input."""
    return rng.integers(0, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape)


def found(name: str) -> Any:
    """What `package.module:name` names, called if it is a function of no arguments that makes the target."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError("expected package.module:name")
    sys.path.insert(0, str(Path.cwd()))  # a module of one's own, as `python -m` finds it
    target = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    has_pair = callable(getattr(target, "forward", None)) and callable(getattr(target, "backward", None))
    return target() if callable(target) and (isinstance(target, type) or not has_pair) else target


def library(seed: int, ties: bool = False) -> Iterator[tuple[str, GradcheckReport]]:
    """A report for every pair, and for every layer in each form it has."""
    size = (2, 8, 4, 3)
    for case in (*op_cases(), *block_cases(), *fused_cases()):
        inputs = case.draw(Random(np.random.default_rng(seed), size))
        if ties and len(inputs[0].shape) == 4:
            inputs = (image(np.random.default_rng(seed), inputs[0].shape, ties), *inputs[1:])
        yield case.name, gradcheck((case.forward, case.backward), *inputs, seed=seed, raise_exception=False)
    for make in makers():
        for fused in (False, True):
            tried, layer = (make(fused).to(dtype="float64") for _ in range(2))
            x = image(np.random.default_rng(seed), size, ties)
            tried.forward(x)
            if fused and tried.path == "textbook":
                continue  # it has no fused form
            yield f"{make.name}, {tried.path}", gradcheck(layer, x, seed=seed, raise_exception=False)


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
