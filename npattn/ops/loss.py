"""Softmax cross-entropy: how surprised the scores are by the right answer, averaged over the batch.

    z (N, K) scores ("logits")   t (N) right classes, integers in [0, K)   ℓ () the loss, in nats

    CE.1   a = z − max_k z                      shifting all scores alike changes nothing, and exp cannot overflow
    CE.2   q = log Σ_k exp(a)                   (N, 1)
    CE.3   log p = a − q                        (N, K)   log softmax
    CE.4   ℓ = −(1/N) Σ_n log p[n, t[n]]

Backward, the whole of it is (p − onehot(t)) / N. Derivation: docs/ops/loss.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

from npattn.arguments import explained
from npattn.backend import Array, array_module, device, named_module
from npattn.checks import floating, same_shape, shaped
from npattn.grad_mode import keeps_cache
from npattn.last_forward import LastForward
from npattn.samples import Draw


class Cache(NamedTuple):
    p: Array  # (N, K) softmax
    right: Array  # (N, K) bool, onehot(t)


def forward(z: Array, t: Array) -> tuple[Array, Cache]:
    """Mean cross-entropy of the softmax of z against the classes t.

    Parameters
    ----------
    z : (N, K)
        N and K at least 1.
    t : (N)
        Integers in [0, K).

    Returns
    -------
    loss : ()
        At least 0.
    cache : Cache

    Raises
    ------
    TypeError
        If z is no float array, t no integer array, or they belong to different libraries.
    ValueError
        If a shape does not match or a class is out of range.
    """
    xp = floating(z=z)
    N, K = shaped("z", z, "N K")
    if t is None:
        raise TypeError("t: expected an array of whole numbers, got None")
    if named_module({"z": z, "t": t}) is xp and not xp.isdtype(t.dtype, "integral"):
        raise TypeError(f"t: expected integer classes, got dtype {t.dtype}")
    shaped("t", t, "N", N=N)
    if N == 0 or K == 0:
        raise ValueError(f"z: expected at least one row and one class, got shape {(N, K)}")
    if bool(xp.any(t < 0)) or bool(xp.any(t >= K)):
        raise ValueError(f"t: expected classes in [0, {K}), got values from {int(xp.min(t))} to {int(xp.max(t))}")

    a = z - xp.max(z, axis=1, keepdims=True)  # CE.1
    q = xp.log(xp.sum(xp.exp(a), axis=1, keepdims=True))  # CE.2
    log_p = a - q  # CE.3
    right = xp.arange(K, dtype=t.dtype, device=device(z)) == t[:, None]
    loss = -xp.sum(xp.where(right, log_p, xp.zeros_like(log_p))) / N  # CE.4
    return xp.reshape(loss, ()), Cache(xp.exp(log_p), right)  # a 0-d array: NumPy's sum gives a scalar


def backward(dloss: Array, cache: Cache) -> Array:
    """Return dz (N, K) for the 0-d cotangent dloss.

    Parameters
    ----------
    dloss : ()
    cache : Cache

    Returns
    -------
    dz : (N, K)

    Raises
    ------
    TypeError, ValueError
        If dloss does not match the loss.
    """
    p, right = cache
    xp = floating(dloss=dloss, p=p)
    same_shape("dloss", dloss, (), "the loss")
    N = p.shape[0]

    # CE.4 read −(1/N) log p at the right class
    dlog_p = xp.where(right, -dloss / N, xp.zeros_like(p))  # CE.4
    # CE.3 was log p = a − q, with q broadcast over the classes
    dq = -xp.sum(dlog_p, axis=1, keepdims=True)  # CE.3
    # CE.2 was q = log Σ exp(a): its slope is the softmax
    da = dlog_p + dq * p  # CE.3, CE.2
    # CE.1 took the same number from every score: since p sums to 1, da sums to 0 and nothing is owed to the maximum
    dz = da  # CE.1
    return dz


@explained
class CrossEntropy:
    """The loss as an object that keeps its last forward, as a layer does: `forward(z, t)`, then `backward()`.

    Where it went forward twice and `backward` may be meant for the first, it refuses, as a layer does.
    """

    def __init__(self) -> None:
        self._last = LastForward("CrossEntropy: backward before forward: call it on scores and classes first")

    def __call__(self, z: Array, t: Array) -> Array:
        """The same as `forward`."""
        return self.forward(z, t)

    def forward(self, z: Array, t: Array) -> Array:
        """The mean loss, 0-d, of scores z (N, K) and right classes t (N), integers in [0, K).

        Raises
        ------
        TypeError, ValueError
            If z is no float array, t no integer array, a shape does not match or a class is out of range.
        """
        with self._last.turn:
            self._last.forget("CrossEntropy: backward after a forward that failed")
            value, cache = forward(z, t)
            if keeps_cache():
                self._last.keep(z, value, cache, array_module(z), None)
            else:
                self._last.without_cache("CrossEntropy: backward after a forward under npattn.no_grad()")
        return value

    def backward(self, dloss: Array | None = None) -> Array:
        """dz (N, K), of the last forward. `dloss` is the loss's own cotangent, 0-d: 1 if it is left out.

        Raises
        ------
        RuntimeError
            Before a forward, or where an earlier one was replaced before its backward, as of a layer.
        TypeError, ValueError
            If dloss is not as the loss is.
        """
        with self._last.turn:
            cache: Cache = self._last.to_undo().cache
            self._last.warn_if_skipped("CrossEntropy")
            if dloss is None:
                dloss = array_module(cache.p).ones((), dtype=cache.p.dtype, device=device(cache.p))
            dz = backward(dloss, cache)
            self._last.undone()
        return dz

    def __repr__(self) -> str:
        return "CrossEntropy()"


def examples(draw: Draw) -> dict[str, tuple[Any, ...]]:
    """Inputs of `forward`, by the name of the case."""
    return {"cross-entropy": (draw.x("N K"), draw.classes("N", "K"))}


PAGE = {"N": 2, "K": 3}  # the sizes of the docs' worked example
