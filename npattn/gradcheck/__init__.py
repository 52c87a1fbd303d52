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
    noise is measured: 100 · 2⁻²⁹ · |backward in float32 − backward in float64|, since float32 rounds 2²⁹ times as
    coarsely. So a saturated gate, whose gradient is rounding and nothing else, raises no alarm.
 4. Kinks. Both methods give the derivative to the right and to the left, for every output. Where they differ, θ lies
    on a kink: a ReLU at 0, a tie of a maximum. There the analytic value must lie between them, and is counted apart.
    Beside a kink the ladder goes down until it no longer reaches it; the complex step never does.
    All entries at kinks are then moved together: a tied maximum moves smoothly, and a gradient that was given to
    every tied entry is now k times too large.
    Where several kinks meet, one-sided derivatives bound nothing (a ReLU whose input is a tie). Then the derivatives
    at twelve points beside this one are the bound, widened once by their range if they are of more than two kinds,
    and the report counts that apart.
 5. Besides: nothing is mutated, nothing shares memory, backward is linear in dy, gives 0 for 0 and the same again,
    uses this forward's numbers and not an older one's, and its gradients have the shape, the dtype and finite values.

What it cannot see: an error smaller than that tolerance, one that shows at other inputs only (check several, ties
among them), and a forward that is not the function you meant. A golden vector sees the last.
"""

from npattn.gradcheck.check import gradcheck
from npattn.gradcheck.report import GradcheckError, GradcheckReport, Row

__all__ = ["GradcheckError", "GradcheckReport", "Row", "gradcheck"]
