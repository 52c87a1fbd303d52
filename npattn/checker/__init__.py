"""The gradient checker: is this backward the derivative of this forward? For our layers and for anyone's.

    forward y = f(θ), θ all inputs and parameters; backward g = Jᵀ dy. For every direction v:   ⟨g, v⟩ = ⟨dy, J v⟩
    The left side is the backward's (analytic). The right side comes from the forward alone (numeric).

How it decides, in float64, with a random signed dy, one tensor of θ after the other:

 1. Numeric. The complex step Im f(θ + ihv) / h with h = 1e-30 has no error to speak of. It is used if f takes complex
    numbers, gives the same values on them, and agrees with differences along random v. Else differences: central,
    of sixth order, on a ladder of halved steps that goes on until two estimates agree; what is left is their error.
 2. Which v. Every entry of a tensor of at most `entries` numbers. Of a larger one, random directions: an error of
    the gradient hides from a Gaussian v only if they are nearly orthogonal, and the report says how improbable that is.
    If a direction fails, entries follow, so that the message can say where.
 3. Wrong is |analytic − numeric| > atol + rtol · (largest numeric entry) + noise + 3 · (error of the differences).
    noise is 100 roundings of the loss, and no more than a millionth of the gradient. Nothing is called wrong before it
    has been measured: by how much the gradient, and the numeric one, jump between points that are the same but for the
    last digits; and 100 · 2⁻²⁹ · |backward in float32 − backward in float64|, since float32 rounds 2²⁹ times as
    coarsely, as far as the gradient is seen to jump so much beside the point. So a saturated gate, whose gradient is
    rounding and nothing else, raises no alarm. Nor is everything right then: what could be compared only to within
    more than 10⁻⁴ of the gradient is untested, and so is a whole gradient below the rounding of the loss.
 4. Kinks. Both methods give the derivative to the right and to the left, for every output. Where they differ, θ lies
    on a kink: a ReLU at 0, a tie of a maximum. There the analytic value must lie between them, and is counted apart.
    Beside a kink the ladder goes down until it no longer reaches it; the complex step never does.
    All entries at kinks are then moved together: a tied maximum moves smoothly, and a gradient that was given to
    every tied entry is now k times too large. That is asked output by output, and for several dy.
    Where several kinks meet, one-sided derivatives bound nothing (a ReLU whose input is a tie). Then the derivatives
    at twelve points beside this one are the bound, widened once by their range if they are of more than two kinds,
    and the report counts that apart.
 5. Besides: backward is linear in dy, gives 0 for 0 and the same again, uses this forward's numbers and not an older
    one's, and its gradients have the shape and finite values. The house's rules (nothing is mutated or overwritten,
    nothing shares memory, float64 stays float64) are remarks, and mistakes only if `strict`.
 6. Several points. A path that is dead at one point hides what is wrong on it. So the check is made again where inputs
    and weights are drawn anew, at their own scale and with their own signs and bounds, along a random direction each,
    with another dy; by entries where that fails. What was 0 on both sides at all points is untested, if it is a
    whole tensor or a slice of one, and the first line says so; or, if y stays the same when it is changed by up to
    10,000 times its size, it is right and a remark says that no influence was seen. A gradient of another shape, or
    with NaN in it, is wrong at such a point too, where y has a derivative.
 7. A forward that rounds inside, to float32 say, moves in steps; one whose inputs lie so far from 0 that float64 has
    no digits left jumps everywhere. Both are given no verdict, with the reason: nothing can be measured.

What it cannot see: an error smaller than that tolerance, ties at the given point that other inputs would have, and a
forward that is not the function you meant. A golden vector sees the last.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from npattn.arguments import explained
from npattn.checker.helpers import with_helpers
from npattn.checker.report import GradcheckError, GradcheckReport, Row, UntestedWarning

__all__ = ["GradcheckError", "GradcheckReport", "Row", "UntestedWarning", "gradcheck"]


@with_helpers
@explained
def gradcheck(
    target: Any,
    *inputs: Any,
    seed: int = 0,
    rtol: float = 1e-9,
    atol: float = 0.0,
    raise_exception: bool = True,
    entries: int = 2000,
    directions: int = 8,
    points: int = 8,
    strict: bool = False,
    dtype: Any = "float64",
    allow_sharing: bool = False,
    wrt: str | Sequence[str] | None = None,
    constants: str | Sequence[str] = (),
    before_backward: str | Callable[..., Any] | None = None,
    seed_forward: int | Callable[[], Any] | None = None,
    progress: bool = True,
) -> GradcheckReport:
    """Check a backward against its forward, at several points, in float64.

    Parameters
    ----------
    target
        An `npattn.Layer`; an object with `forward(*inputs) -> y`, `backward(dy) -> dx`, and its parameters and their
        gradients in `params` and `grads`, in attributes such as `W` and `dW`, or in objects with `data` and `grad`;
        or a pair of functions `(forward, backward)`, or a module that has the two: `forward(*inputs) -> (y, cache)`,
        and `backward(dy, cache)` giving one gradient, or a tuple aligned with the inputs (None where there is none);
        or a function that gives `(loss, gradients)`; or what an autograd of PyTorch's or JAX's differentiates.
        `npattn.gradcheck.wrap` says how to run any other. Layers and objects are copied: the caller's stay as they are.
    *inputs
        Arrays, or NamedTuples, dicts and tuples of arrays. Float arrays are converted to float64 and get a gradient;
        integers, numbers and None are passed on as they are.
    seed
        Of the random dy, directions and points.
    rtol, atol
        What an entry may be off by, relative to its tensor's largest numeric entry, and absolutely; above what
        rounding and the numeric derivative's own error already account for. Finite, from 0 on, rtol up to 0.5.
    raise_exception
        Whether a failure raises, and what is untested warns.
    entries
        Tensors of more numbers than this are checked along random directions; of more than a tenth of it where
        differences are needed, which take longer.
    directions
        How many of them, up to 10,000.
    points
        At how many points: the given one, and others of the same shapes, drawn anew at the scale of the given numbers.
        Up to eight times as many where something was always 0, as long as they show more of it. 1 is the given one.
    strict
        Whether the house's rules count: nothing mutated, nothing overwritten by a later call, no shared memory,
        gradients of float64. Otherwise the report remarks on them.
    dtype
        "float64", or "float32" for what computes in float32: compared to float32's tolerance then.
    allow_sharing
        Accept an output or a gradient that shares memory, as a reshape's does, without a remark.
    wrt
        Names of the inputs and parameters to take derivatives by, as the report names them; all float arrays if None.
    constants
        Names of those without a derivative: one-hot labels, masks, running statistics. They are handed on.
    before_backward
        A method's name or a function, called before each backward, as `zero_grad` must be where gradients add up. Each
        backward then has a forward of its own before it, for graphs that serve only once.
    seed_forward
        Of the random numbers that forward draws, from NumPy's, Python's or PyTorch's global generators or from those
        that the object keeps: they are set before each forward. A function of no arguments is called instead.

    progress
        Whether a check of more than three seconds shows a bar, where there is a terminal or a notebook.

    Returns
    -------
    GradcheckReport
        True if nothing is wrong; `print` shows a table. `status` is 0 if all is right, remarks included, 1 if something
        is wrong, 3 if something was left untested.

    Raises
    ------
    GradcheckError
        If something is wrong, or there can be no verdict. It names the tensor, the worst index, both values, and where
        it can tell the cause.
    TypeError, ValueError
        If target or inputs are not of this form, or another argument is not of its type or range.

    Warns
    -----
    UntestedWarning
        If nothing is wrong, and something was left untested.
    """
    from npattn.checker.arguments import names_of, passed_on, refuse_strange, settings
    from npattn.checker.check import report_on  # when it is used: npattn imports about as fast as NumPy
    from npattn.checker.inputs import Choice
    from npattn.checker.recognise import as_target
    from npattn.checks import true_or_false

    how = settings(
        seed=seed,
        rtol=rtol,
        atol=atol,
        entries=entries,
        directions=directions,
        points=points,
        strict=strict,
        allow_sharing=allow_sharing,
        dtype=dtype,
        progress=progress,
    )
    raising = true_or_false("raise_exception", raise_exception)
    names = names_of(target, inputs)
    for name, tree in zip(names, inputs, strict=True):
        refuse_strange(name, tree)
    form = as_target(target, inputs, Choice.of(wrt, constants), before_backward, seed_forward)
    unseen = [text for name, tree in zip(names, inputs, strict=True) for text in passed_on(name, tree, form.values)]
    if unseen:
        form.notes.append(f"passed on, and not checked: {', '.join(unseen)}")
    report = report_on(form, how)
    if raising and not report:
        raise GradcheckError(report)
    if raising and report.untested:
        warnings.warn(UntestedWarning(f"{report.target}: {report.summary}"), stacklevel=3)  # 3: `explained` is between
    return report
