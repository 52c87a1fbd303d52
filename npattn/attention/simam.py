"""SimAM, attention without parameters: a pixel matters as far as it stands out from the others of its channel.

    x (N, C, H, W)   P = H·W pixels   lam > 0

    SIM.1   d = x − mean over the pixels of x          (N, C, H, W)   how far a pixel stands out
    SIM.2   v = Σ_pixels d² / (P − 1)                  (N, C)         the variance; 0 for a single pixel
    SIM.3   u = d² / (4 (v + lam)) + 1/2               (N, C, H, W)   one over the pixel's energy
    SIM.4   g = sigmoid(u)                             (N, C, H, W)   the gate, at least sigmoid(1/2)
    SIM.5   y = x · g                                  (N, C, H, W)

Nothing is learnt. x is used twice, in SIM.1 and in SIM.5, and d twice, in SIM.2 and in SIM.3.
Yang et al., SimAM, ICML 2021, section 3.3.
Derivation: docs/blocks/simam.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card
from npattn.checks import floating, real_number, same_shape
from npattn.layer import Options
from npattn.ops import sigmoid
from npattn.ops.pooling import some_pixels

SMALLEST = 1e-30  # lam is a divisor where all pixels are equal


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    d: Array  # (N, C, H, W)
    v: Array  # (N, C, 1, 1)
    g: Array  # (N, C, H, W)
    gate: sigmoid.Cache
    lam: float


def forward(x: Array, lam: float = 1e-4) -> tuple[Array, Cache]:
    """Scale every pixel of every channel by a gate that says how far it stands out.

    Parameters
    ----------
    x : (N, C, H, W)
    lam
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        If x is no float array.
    ValueError
        If it has another shape, or no pixel.
    """
    xp = floating(x=x)
    lam = real_number("lam", lam, least=SMALLEST)
    _, _, H, W = some_pixels(x)
    others = max(H * W - 1, 1)

    d = x - xp.mean(x, axis=(2, 3), keepdims=True)  # SIM.1
    v = xp.sum(d * d, axis=(2, 3), keepdims=True) / others  # SIM.2
    u = d * d / (4 * (v + lam)) + 0.5  # SIM.3
    g, gate = sigmoid.forward(u)  # SIM.4
    y = x * g  # SIM.5
    return y, Cache(x, d, v, g, gate, lam)


def backward(dy: Array, cache: Cache) -> Array:
    """Return dx.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, d, v, g, gate, lam = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    others = max(x.shape[2] * x.shape[3] - 1, 1)

    # SIM.5 was y = x · g: each factor receives dy times the other. Nothing was broadcast, so nothing is summed
    dx_direct = dy * g  # SIM.5
    dg = dy * x  # SIM.5

    # SIM.4 was g = sigmoid(u)
    du = sigmoid.backward(dg, gate)  # SIM.4

    # SIM.3 was a quotient of d² and of v + lam, and one v was for all pixels of its channel
    dd_above = du * d / (2 * (v + lam))  # SIM.3
    dv = -xp.sum(du * d * d, axis=(2, 3), keepdims=True) / (4 * (v + lam) * (v + lam))  # SIM.3

    # SIM.2 was a sum of squares
    dd_below = dv * 2 * d / others  # SIM.2

    # SIM.1 was d = x − mean: what all pixels of a channel receive alike moves the mean as well, and has no effect
    dd = dd_above + dd_below
    dx_gate = dd - xp.mean(dd, axis=(2, 3), keepdims=True)  # SIM.1

    # x went two ways, so its gradient comes back from both
    dx = dx_direct + dx_gate
    return dx


class SimAM(Block):
    """SimAM as a layer: x (N, C, H, W), any C, to x times a gate for each of its numbers, the same shape.

    It has no parameters.

    Parameters
    ----------
    e_lambda
        λ, above 0: what keeps a channel of equal pixels from dividing by 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    attention
        "pixel" (N, C, H, W).

    Raises
    ------
    TypeError, ValueError
        If e_lambda is no number above 0.
    """

    input_axes = "N C H W"
    gates = {"pixel": ("g", "N C H W")}
    card = Card(
        "simam",
        "SimAM, attention without parameters",
        asks="where does a channel stand out?",
        gives="x · g",
        source="Yang et al., ICML 2021, section 3.3",
        page="blocks/simam",
        what="attention without parameters (SimAM)",
        size=(1, 1, 2, 3),
        seed=1,
    )

    def __init__(self, e_lambda: float = 1e-4, **options: Unpack[Options]) -> None:
        super().__init__(settings={"lam": real_number("e_lambda", e_lambda, least=SMALLEST)}, **options)
