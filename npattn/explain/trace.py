"""A block, run slowly: each tagged line with its shape and numbers, then each gradient beside its finite difference.

No formula is written again here. The block's own forward and backward run, and Python's line hook reads what each
tagged line assigned. So the numbers on the screen and in the docs are those of the code that trains networks.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn.attention import cbam, channel, se, spatial
from npattn.checks import hidden_width, odd, whole_number
from npattn.ops.pooling import MaxCache

TAG = re.compile(r"\b[A-Z]+\d?\.\d+\b")
LARGEST = 4096  # numbers in x: every one of them is moved twice to check its gradient


class Line(NamedTuple):
    """A line of source that the trace stops at."""

    tag: str  # "SE.1"; "+" where two gradients meet, which is a line without a tag of its own
    names: tuple[str, ...]  # the variables that it assigns
    code: str  # the line, without its tag


class Step(NamedTuple):
    """What one line assigned."""

    line: Line
    values: dict[str, np.ndarray]
    notes: list[str]  # in words, what is no array: where a maximum was found
    inside: list[Step]  # the tagged lines of the block that this line called


class Check(NamedTuple):
    """One gradient, twice."""

    name: str
    analytic: np.ndarray  # from the backward
    numeric: np.ndarray  # from the forward alone, by central differences

    @property
    def difference(self) -> float:
        """The largest difference of two entries."""
        return float(np.max(np.abs(self.analytic - self.numeric)))


class Trace(NamedTuple):
    """A worked example."""

    block: str
    x: np.ndarray
    params: dict[str, np.ndarray]
    dy: np.ndarray
    forward: list[Step]
    y: np.ndarray
    backward: list[Step]
    checks: list[Check]
    names: tuple[str, str] = ("x", "y")  # what the page calls the input and the output

    @property
    def given(self) -> dict[str, np.ndarray]:
        """What the forward takes, by name."""
        return {self.names[0]: self.x} | self.params

    def value(self, name: str, *tags: str) -> np.ndarray:
        """The variable `name` of the first line with one of `tags` (any line if none is given).

        Raises
        ------
        KeyError
            If no such line assigned it.
        """
        for step in walked([*self.forward, *self.backward]):
            if name in step.values and (not tags or step.line.tag in tags):
                return step.values[name]
        raise KeyError(f"{name} at {' or '.join(tags) or 'any line'}")


class Block(NamedTuple):
    """What can be traced: a pair, what its output is called, and the example that the docs work through."""

    module: ModuleType
    output: str
    shape: tuple[int, int, int, int]
    seed: int  # one that opens and shuts units, leaves no gate near 0 or 1, and shows a transposed matrix


BLOCKS = {
    "se": Block(se, "y", (1, 2, 2, 2), seed=4),
    "channel": Block(channel, "g", (1, 2, 2, 2), seed=4),
    "spatial": Block(spatial, "g", (1, 2, 3, 3), seed=56),
    "cbam": Block(cbam, "y", (1, 2, 3, 3), seed=930),
}


def tagged_lines(module: ModuleType) -> dict[int, Line]:
    """The assignments with a tag, and the sums without one, of every function in the module, by line number."""
    source = inspect.getsource(module)
    texts = source.splitlines()
    lines = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign | ast.AugAssign):
            continue
        code, _, comment = texts[node.lineno - 1].strip().partition("  # ")
        tags = TAG.findall(comment)
        meets = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add)
        if tags or meets:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            lines[node.lineno] = Line(", ".join(tags) or "+", tuple(names), code)
    return lines


def trace(
    block: str,
    shape: Sequence[int] | None = None,
    seed: int | None = None,
    *,
    ratio: int = 1,
    kernel_size: int = 3,
) -> Trace:
    """Run a block forward and backward on a small example, and keep every number.

    The example has round numbers: no two entries of x are the same, so that every maximum is one pixel's, and no unit
    sits at the kink of the ReLU, where a finite difference has no meaning.

    Parameters
    ----------
    block
        "se", "channel", "spatial" or "cbam".
    shape
        (N, C, H, W) of x, at most 4,096 numbers; None takes (1, 2, 2, 2), or (1, 2, 3, 3) where there is a kernel.
    seed
        Of the numbers, at least 0; None takes the one of the docs' example.
    ratio
        r: the hidden width is C // r.
    kernel_size
        k of the spatial attention, odd.

    Returns
    -------
    Trace

    Raises
    ------
    TypeError, ValueError
        If an argument is outside its range; the message names it.
    """
    if block not in BLOCKS:
        raise ValueError(f"block: expected one of {', '.join(BLOCKS)}, got {block!r}")
    module, _, usual, usual_seed = BLOCKS[block]
    size = tuple(whole_number("shape", n) for n in (usual if shape is None else shape))
    if len(size) != 4:
        raise ValueError(f"shape: expected four numbers N C H W, got {size}")
    if math.prod(size) > LARGEST:
        raise ValueError(f"shape: expected at most {LARGEST} numbers, got {size}: each is moved to check its gradient")
    rng = np.random.default_rng(usual_seed if seed is None else whole_number("seed", seed, least=0))

    for _ in range(1000):
        x, params = example(module, size, rng, ratio, kernel_size)
        (y, cache), steps = watched(module.forward, x, params)
        if clear_of_kinks(x, steps):
            break
    else:
        raise ValueError(f"seed: expected one that gives an example away from every kink, got {seed}")
    dy = rng.permutation(np.resize([1.0, -0.5, 0.75, -1.0, 0.5, -0.25, 0.25, 0.5], y.size)).reshape(y.shape)
    (dx, grads), back = watched(module.backward, dy, cache)

    inputs = {"x": x} | dict(flat(params))
    found = {"x": dx} | dict(flat(grads))
    checks = [
        Check(f"d{name}", found[name], differences(lambda: module.forward(x, params)[0], array, dy))
        for name, array in inputs.items()
    ]
    return Trace(block, x, dict(flat(params)), dy, steps, y, back, checks, ("x", BLOCKS[block].output))


def example(
    module: ModuleType, size: tuple[int, ...], rng: np.random.Generator, ratio: int, kernel_size: int
) -> tuple[np.ndarray, Any]:
    """Round numbers: x of entries that all differ, weights in steps of a half and none of them 0."""
    count = math.prod(size)
    step = 2.0 ** round(math.log2(4 / count))
    middle = count // 2 or -1  # a single number must not be 0: its ReLU would sit at the kink
    x = step * (rng.permutation(count) - middle).reshape(size)
    C = size[1]
    R = hidden_width("C", C, "ratio", ratio)
    k = odd("kernel_size", kernel_size)

    def weights(*shape: int) -> np.ndarray:
        return rng.choice([-1.0, -0.5, 0.5, 1.0], shape)

    if module is se:
        return x, se.Params(weights(R, C), weights(C, R))
    ca = channel.Params(weights(R, C), weights(C, R))
    if module is channel:
        return x, ca
    sa = spatial.Params(weights(1, 2, k, k))
    return x, sa if module is spatial else cbam.Params(ca, sa)


def clear_of_kinks(x: np.ndarray, steps: list[Step]) -> bool:
    """Whether the ReLUs are away from 0, one of them passes something, and no two channels nearly share a maximum."""
    values = [(name, value) for step in walked(steps) for name, value in step.values.items()]
    units = [value for name, value in values if name == "z"]
    if units and (min(np.min(np.abs(z)) for z in units) < 0.01 or max(np.max(z) for z in units) < 0):
        return False
    maps = [x] + [value for name, value in values if name == "u"]
    return all(u.shape[1] == 1 or np.min(np.diff(np.sort(u, axis=1), axis=1)) > 0.01 for u in maps)


def watched(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Step]]:
    """Call the function and read each tagged line's variables, also in the blocks that it calls, as it runs."""
    modules = [module for module, *_ in BLOCKS.values()]
    own = inspect.getmodule(function)
    if own is not None and own not in modules:
        modules = [own]  # an op, by itself
    by_file = {inspect.getfile(module): tagged_lines(module) for module in modules}
    open_frames: list[list[Step]] = [[]]
    returned: list[Step] = []

    def enter(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        lines = by_file.get(frame.f_code.co_filename)
        if lines is None or "<" in frame.f_code.co_name:  # an op, a check, a comprehension
            return None
        open_frames.append([])
        last: int | None = None

        def follow(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
            nonlocal last, returned
            if last in lines:  # the line before this event has run: its variables are there
                step = read(lines[last], frame.f_locals, returned)
                if open_frames[-1] and open_frames[-1][-1].line is step.line:
                    open_frames[-1].pop()  # a line of a loop: what it has come to
                open_frames[-1].append(step)
                returned = []
            last = frame.f_lineno if event == "line" else None
            if event == "return":
                returned = open_frames.pop()
            return follow

        return follow

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        result = function(*arguments)
    finally:
        sys.settrace(before)
    return result, returned


def read(line: Line, variables: dict[str, Any], inside: list[Step]) -> Step:
    """The arrays among the line's variables, and where a maximum was found."""
    values, notes = {}, []
    for name in line.names:
        value = variables.get(name)
        if isinstance(value, np.ndarray | np.floating):
            values[name] = np.array(value)
        elif isinstance(value, MaxCache):
            notes.append(places(value))
        elif type(value).__name__ == "Params":
            values |= {f"{name}.{field}": array.copy() for field, array in flat(value)}
    return Step(line, values, notes, inside)


def places(cache: MaxCache) -> str:
    """In words, where the first maxima are: a pixel of each channel, or a channel of each pixel."""
    if cache.i.ndim == 3:  # over space: (N, C, 1), an index into the H·W pixels
        width = cache.shape[3]
        spots = ", ".join(f"({i // width}, {i % width})" for i in cache.i.ravel())
        return f"first maximum at pixel {spots}"
    return f"first maximum in channel {', '.join(str(i) for i in cache.i.ravel())}"


def flat(params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a Params by name, "w1" or "ca.w1"."""
    for name, value in params._asdict().items():
        if hasattr(value, "_asdict"):
            yield from ((f"{name}.{inner}", array) for inner, array in flat(value))
        else:
            yield name, value


def walked(steps: list[Step]) -> Iterator[Step]:
    """All steps in the order in which they ended: what is inside of one comes before it."""
    for step in steps:
        yield from walked(step.inside)
        yield step


def differences(forward: Callable[[], np.ndarray], array: np.ndarray, dy: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Σ dy · ∂y/∂array by central differences, (f(v + h) − f(v − h)) / 2h. Moves each entry and puts it back."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        here = array[index]
        array[index] = here + h
        up = forward()
        array[index] = here - h
        down = forward()
        array[index] = here
        gradient[index] = np.sum(dy * (up - down)) / (2 * h)
    return gradient


# On the terminal


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`npattn trace`."""
    from npattn.explain.trace_ops import OPS

    sub = commands.add_parser(
        "trace",
        help="print a block or an op step by step, forward and backward",
        description="Print a block's or an op's forward and backward on a small example: each tagged line with its "
        "shape and numbers, then each gradient beside its finite difference.",
    )
    names = f"a block: {', '.join(BLOCKS)}; or an op: {', '.join(OPS)}"
    sub.add_argument("block", choices=[*BLOCKS, *OPS], metavar="NAME", help=names)
    sub.add_argument(
        "--shape", type=int, nargs=4, metavar=("N", "C", "H", "W"), help="of a block's x (1 2 2 2, or 1 2 3 3)"
    )
    sub.add_argument("--seed", type=int, metavar="S", help="of the numbers (that of the docs)")
    sub.add_argument("--ratio", type=int, default=1, metavar="R", help="the hidden width is C // R (%(default)s)")
    sub.add_argument("--kernel-size", type=int, default=3, metavar="K", help="of the spatial attention (%(default)s)")
    sub.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the trace that the arguments ask for. Returns 0."""
    from npattn.explain.trace_ops import OPS, trace_op

    if args.block in OPS:
        if args.shape is not None:
            raise ValueError(f"--shape: is for a block; the example of {args.block} has its own shape")
        found = trace_op(args.block, args.seed)
    else:
        found = trace(args.block, args.shape, args.seed, ratio=args.ratio, kernel_size=args.kernel_size)
    sys.stdout.write(text(found))
    return 0


def text(found: Trace) -> str:
    """The trace as lines of text."""
    output = found.names[1]
    parts = [f"{found.block}: the example", ""]
    parts += [shown(name, value) for name, value in found.given.items()]
    parts += ["", "forward", "", *rows(found.forward)]
    parts += ["backward", "", shown(f"d{output}", found.dy) + "   the cotangent, given", "", *rows(found.backward)]
    parts += ["each gradient beside its finite difference", ""]
    for check in found.checks:
        for index in np.ndindex(check.analytic.shape):
            entry = f"{check.name}[{', '.join(map(str, index))}]"
            parts.append(f"  {entry:<22} {check.analytic[index]:>14.9f} {check.numeric[index]:>14.9f}")
        parts += [f"  {'largest difference':<22} {check.difference:>14.1e}", ""]
    return "\n".join(parts)


def rows(steps: list[Step], depth: int = 0) -> Iterator[str]:
    """Each step: tag and line of code, then what it assigned."""
    margin = "    " * depth
    for step in steps:
        yield f"{margin}{step.line.tag:<8} {step.line.code}"
        yield from rows(step.inside, depth + 1)
        for name, value in step.values.items():
            yield shown(name, value, margin + " " * 9)
        yield from (f"{margin}         {note}" for note in step.notes)
        if depth == 0:
            yield ""


def shown(name: str, value: np.ndarray, margin: str = "  ") -> str:
    """One array with its name and shape; leading axes of length 1 are left out of the brackets."""
    lead = next((i for i, n in enumerate(value.shape[:-1]) if n > 1), max(value.ndim - 1, 0))
    core = value.reshape(value.shape[lead:])
    style: Any = {"float_kind": number}
    numbers = np.array2string(core, separator=" ", formatter=style, max_line_width=110)
    head = f"{margin}{name} {value.shape} = "
    lines = numbers.splitlines()
    return "\n".join([head + lines[0], *(f"{' ' * len(head)}{line}".rstrip() for line in lines[1:])])


def number(value: float) -> str:
    """At most four places, and no zeros at the end, aligned: "0.5", "-0.0123"."""
    short = f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{'0' if short == '-0' else short:>7}"
