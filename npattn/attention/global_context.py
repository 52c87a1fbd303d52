"""Global context: all pixels of an image are gathered into one vector, and every pixel is told of it.

    x (N, C, H, W)   P = H·W pixels   w_a (C)   b_a (1)   R hidden units   ε > 0   add, scale: two MLPs, one or both
    an MLP: w1 (R, C)   b1 (R)   gamma, beta (R)   w2 (C, R)   b2 (C)

    GC.1   a = Σ_c w_a x + b_a                   (N, P)         a number a pixel
    GC.2   α = softmax of a over the pixels      (N, P)         its share; without w_a all have 1/P
    GC.3   s = Σ_p α x                           (N, C)         the context: a weighted mean
    GC.4   t = mlp(s)                            (N, C)         of each MLP that there is
    GC.5   y = x + t                             (N, C, H, W)   as in the paper, with the MLP "add"
           y = x · sigmoid(t)                                   with "scale"; and with both first this, then + t

    the MLP, for a context s (N, C)
    GCM.1  z = s w1ᵀ + b1                        (N, R)
    GCM.2  u = layer norm of z                   (N, R)         over the hidden units
    GCM.3  h = relu(u)                           (N, R)
    GCM.4  t = h w2ᵀ + b2                        (N, C)

x is used three times, in GC.1, GC.3 and GC.5.
Cao et al., GCNet, ICCV workshops 2019, section "Global Context Block".
Derivation: docs/blocks/global-context.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array, device
from npattn.block import Block, Card, Form, Weight
from npattn.checks import (
    absent,
    floating,
    hidden_width,
    one_of,
    real_number,
    same_shape,
    shaped_params,
    true_or_false,
    whole_number,
)
from npattn.layer import Options
from npattn.ops import layer_norm, linear, relu, sigmoid, softmax
from npattn.ops.pooling import some_pixels
from npattn.packing import fields

FUSE = ("add", "scale", "both")


class Mlp(NamedTuple):
    w1: Array  # (R, C)
    b1: Array  # (R)
    gamma: Array  # (R)
    beta: Array  # (R)
    w2: Array  # (C, R)
    b2: Array  # (C)


class Params(NamedTuple):
    w_a: Array | None = None  # (C)
    b_a: Array | None = None  # (1)
    add: Mlp | None = None
    scale: Mlp | None = None


class MlpCache(NamedTuple):
    fc1: linear.Cache
    norm: layer_norm.Cache
    hidden: relu.Cache
    fc2: linear.Cache


class AttendCache(NamedTuple):
    w_a: Array  # (C)
    b_a: Array | None  # (1)
    softmax: softmax.Cache


class ScaleCache(NamedTuple):
    g: Array  # (N, C)
    mlp: MlpCache
    gate: sigmoid.Cache


class Cache(NamedTuple):
    x: Array  # (N, C, H, W)
    alpha: Array  # (N, P)
    g: Array | None  # (N, C)
    attended: AttendCache | None
    scaled: ScaleCache | None
    added: MlpCache | None


def mlp_forward(s: Array, params: Mlp, eps: float = 1e-5) -> tuple[Array, MlpCache]:
    """Two FC with a layer norm and a ReLU between: s (N, C) to t (N, C)."""
    w1, b1, gamma, beta, w2, b2 = params
    z, fc1 = linear.forward(s, linear.Params(w1, b1))  # GCM.1
    u, norm = layer_norm.forward(z, layer_norm.Params(gamma, beta), eps)  # GCM.2
    h, hidden = relu.forward(u)  # GCM.3
    t, fc2 = linear.forward(h, linear.Params(w2, b2))  # GCM.4
    return t, MlpCache(fc1, norm, hidden, fc2)


def mlp_backward(dt: Array, cache: MlpCache) -> tuple[Array, Mlp]:
    """Return ds (N, C) and the gradients of the weights."""
    # GCM.4 was t = h w2ᵀ + b2
    dh, (dw2, db2) = linear.backward(dt, cache.fc2)  # GCM.4
    # GCM.3 let through what was positive
    du = relu.backward(dh, cache.hidden)  # GCM.3
    # GCM.2 was a normalisation of each image's hidden units
    dz, (dgamma, dbeta) = layer_norm.backward(du, cache.norm)  # type: ignore[misc]  # GCM.2
    # GCM.1 was z = s w1ᵀ + b1
    ds, (dw1, db1) = linear.backward(dz, cache.fc1)  # GCM.1
    return ds, Mlp(dw1, db1, dgamma, dbeta, dw2, db2)


def forward(x: Array, params: Params, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Tell every pixel of the context: add what one MLP makes of it, or scale by what another does, or both.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        w_a (C) with b_a (1) or without, or neither, and one MLP or two.
    eps
        Above 0.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match, or if there is no MLP.
    """
    w_a, b_a, add, scale = params
    xp = floating(x=x, **dict(fields(params)))
    N, C, H, W = some_pixels(x)
    if w_a is None:
        absent("b_a", b_a, "without w_a")
    shaped_params(params, {"C": C}, w_a="C", b_a="1")
    for name, mlp in (("add", add), ("scale", scale)):
        if mlp is not None:
            shaped_params(mlp, {"C": C}, name, b1="R", w1="R C", gamma="R", beta="R", w2="C R", b2="C")
    if add is None and scale is None:
        raise ValueError("params: expected an MLP to add by, one to scale by, or both, got None twice")
    P = H * W
    pixels = xp.reshape(x, (N, C, P))
    g = attended = scaled = added = None

    if w_a is not None:
        a = w_a @ pixels if b_a is None else w_a @ pixels + b_a  # GC.1
        alpha, shares = softmax.forward(a)  # GC.2
        attended = AttendCache(w_a, b_a, shares)
    else:
        alpha = xp.full((N, P), 1 / P, dtype=x.dtype, device=device(x))
    s = (pixels @ alpha[:, :, None])[:, :, 0]  # GC.3
    y = x
    if scale is not None:
        t_scale, of_mlp = mlp_forward(s, scale, eps)  # GC.4
        g, gate = sigmoid.forward(t_scale)  # GC.5
        scaled = ScaleCache(g, of_mlp, gate)
        y = x * g[:, :, None, None]  # GC.5
    if add is not None:
        t, added = mlp_forward(s, add, eps)  # GC.4
        y = y + t[:, :, None, None]  # GC.5
    return y, Cache(x, alpha, g, attended, scaled, added)


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and the gradients (dw_a, db_a, dadd, dscale), None where the parameter was.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dw_a, db_a, dadd and dscale.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    x, alpha, _, attended, scaled, added = cache
    xp = floating(dy=dy, x=x)
    same_shape("dy", dy, tuple(x.shape), "the output y")
    N, C, H, W = x.shape
    pixels = xp.reshape(x, (N, C, H * W))
    dx_direct, ds = dy, xp.zeros((N, C), dtype=dy.dtype, device=device(dy))
    dw_a = db_a = dadd = dscale = None

    # GC.5 was a sum: what was added to all pixels alike receives the sum of theirs. GC.4 made it of the context
    if added is not None:
        dt = xp.sum(dy, axis=(2, 3))  # GC.5
        ds_add, dadd = mlp_backward(dt, added)  # GC.4
        ds = ds + ds_add

    # or it was a product: each factor receives dy times the other, and g, broadcast over the pixels, their sum
    if scaled is not None:
        g, of_mlp, gate = scaled
        dx_direct = dy * g[:, :, None, None]  # GC.5
        dg = xp.sum(dy * x, axis=(2, 3))  # GC.5
        dt_scale = sigmoid.backward(dg, gate)  # GC.5
        ds_scale, dscale = mlp_backward(dt_scale, of_mlp)  # GC.4
        ds = ds + ds_scale

    # GC.3 was s = Σ_p α x: each factor receives ds times the other, and α, one for all channels, their sum
    dpixels = ds[:, :, None] * alpha[:, None, :]  # GC.3
    dalpha = (ds[:, None, :] @ pixels)[:, 0, :]  # GC.3

    # GC.2 was a softmax over the pixels, and GC.1 a product with one w_a for all pixels and images, or α was a constant
    if attended is not None:
        w_a, b_a, shares = attended
        da = softmax.backward(dalpha, shares)  # GC.2
        dpixels = dpixels + da[:, None, :] * w_a[:, None]  # GC.1
        dw_a = xp.sum(da[:, None, :] * pixels, axis=(0, 2))  # GC.1
        if b_a is not None:
            db_a = xp.reshape(xp.sum(da), (1,))  # GC.1

    # x went three ways, so its gradient comes back from three
    dx = dx_direct + xp.reshape(dpixels, (N, C, H, W))
    return dx, Params(dw_a, db_a, dadd, dscale)


def declared(name: str, start: float | None = None) -> tuple[Weight, ...]:
    """What one MLP declares; `start` is for the last FC."""
    return (
        Weight(f"{name}.fc1.weight", f"{name}.w1", "R C", stored="R C 1 1"),
        Weight(f"{name}.fc1.bias", f"{name}.b1", "R", fan_in="C"),
        Weight(f"{name}.norm.weight", f"{name}.gamma", "R", start=1),
        Weight(f"{name}.norm.bias", f"{name}.beta", "R", start=0),
        Weight(f"{name}.fc2.weight", f"{name}.w2", "C R", stored="C R 1 1", start=start),
        Weight(f"{name}.fc2.bias", f"{name}.b2", "C", fan_in="R", start=start),
    )


class GlobalContext(Block):
    """The global context block as a layer: x (N, C, H, W) to the same shape.

    Parameters
    ----------
    channel
        C, at least 1.
    reduction
        r: the hidden width is C // r, so 1 ≤ r ≤ C. 16 in the paper.
    hidden
        The hidden width itself. The ratio has no say then.
    attend
        Whether a pixel's share in the context is learnt; if not, the context is the mean.
    fuse
        What is done with the context: "add", the paper's, "scale", or "both", first scale and then add.
    bias
        Whether there is a b_a. It has no effect.
    eps
        ε of the layer norm, above 0.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "conv.weight" (1, C, 1, 1), "conv.bias" (1,) if asked for. Of the MLP "add": "add.fc1.weight" (R, C, 1, 1),
        "add.fc1.bias", "add.norm.weight", "add.norm.bias" (R,), "add.fc2.weight" (C, R, 1, 1), "add.fc2.bias" (C,), the
        last two 0 at first, so that y is x. The same of the MLP "scale", where none is.
    attention
        "shares" (N, H, W), which add up to 1, and with the MLP "scale" "channel" (N, C, 1, 1).

    Raises
    ------
    TypeError, ValueError
        If a number is outside its range, reduction > channel, fuse not among those named, or an option no bool.
    """

    input_axes = "N C H W"
    state = (
        Weight("conv.weight", "w_a", "C", stored="1 C 1 1"),
        Weight("conv.bias", "b_a", "1", fan_in="C"),
        *declared("add", start=0),
        *declared("scale"),
    )
    gates = {"shares": ("alpha", "N H W"), "channel": ("g", "N C 1 1")}
    arguments = {"channel": "C", "reduction": "r"}
    card = Card(
        "global-context",
        "global context (GC)",
        asks="which pixels speak for the image?",
        gives="x + t",
        source="Cao et al., ICCV workshops 2019, the global context block",
        page="blocks/global-context",
        what="global context (GC)",
        size=(1, 3, 1, 3),
        seed=0,
        forms=(
            Form("global-context-scale", "global context as a gate", {"fuse": "scale"}, "blocks"),
            Form("global-context-mean", "the mean as the global context", {"attend": False, "fuse": "scale"}, "blocks"),
        ),
    )

    def __init__(
        self,
        channel: int,
        reduction: int = 16,
        *,
        hidden: int | None = None,
        attend: bool = True,
        fuse: str = "add",
        bias: bool = False,
        eps: float = 1e-5,
        **options: Unpack[Options],
    ) -> None:
        C = whole_number("channel", channel)
        R = hidden_width("channel", C, "reduction", reduction) if hidden is None else whole_number("hidden", hidden)
        one_of("fuse", fuse, FUSE)
        without = [name for name in ("add", "scale") if fuse not in (name, "both")]
        if not true_or_false("attend", attend):
            without.append("w_a")
        if not true_or_false("bias", bias) or not attend:
            without.append("b_a")
        settings = {"eps": real_number("eps", eps, least=layer_norm.SMALLEST)}
        super().__init__({"C": C, "R": R}, without=tuple(without), settings=settings, **options)
