"""DANet's channel attention: every channel receives a mean over all channels, weighted by how alike they look.

    x (N, C, H, W)   P = H·W pixels   beta (1)   sign: 1, or −1 where what is unlike is to count

    DAC.1   t = x, a channel a row                 (N, C, P)
    DAC.2   z = softmax(sign · t tᵀ) t             (N, C, P)      all channels against all
    DAC.3   y = x + beta z, in rows and columns    (N, C, H, W)

Nothing is learnt but beta, which begins at 0, so that at first y is x. x is used four times: for queries, keys and
values, which are all t, and by itself.
Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, equations 3 and 4. Derivation: docs/blocks/danet.md
"""

from __future__ import annotations

from typing import NamedTuple, Unpack

from npattn.backend import Array
from npattn.block import Block, Card, Form, Weight
from npattn.checks import floating, same_shape, shaped, true_or_false
from npattn.layer import Options
from npattn.ops import dot_product_attention
from npattn.ops.pooling import some_pixels


class Params(NamedTuple):
    beta: Array  # (1)


class Cache(NamedTuple):
    attended: dot_product_attention.Cache
    z: Array  # (N, C, P)
    beta: Array  # (1)
    shape: tuple[int, int, int, int]  # of x


def forward(x: Array, params: Params, unlike: bool = False) -> tuple[Array, Cache]:
    """Add to every channel a mean over all channels.

    Parameters
    ----------
    x : (N, C, H, W)
    params
        beta (1).
    unlike
        Whether the channels that differ most count most.

    Returns
    -------
    y : (N, C, H, W)
    cache : Cache
        It holds the shares of all pairs of channels: N C² numbers.

    Raises
    ------
    TypeError
        For a dtype or library that does not match.
    ValueError
        For a shape that does not match.
    MemoryError
        If the pairs take more memory than there is.
    """
    (beta,) = params
    xp = floating(x=x, beta=beta)
    N, C, H, W = some_pixels(x)
    shaped("beta", beta, "1")
    sign = -1 if true_or_false("unlike", unlike) else 1
    dot_product_attention.room_for_pairs("x", x, N, C, C)

    t = xp.reshape(x, (N, C, H * W))  # DAC.1
    z, attended = dot_product_attention.forward(t, t, t, scale=sign)  # DAC.2
    y = x + xp.reshape(beta * z, (N, C, H, W))  # DAC.3
    return y, Cache(attended, z, beta, (N, C, H, W))


def backward(dy: Array, cache: Cache) -> tuple[Array, Params]:
    """Return dx and dbeta.

    Parameters
    ----------
    dy : (N, C, H, W)
    cache : Cache

    Returns
    -------
    dx : (N, C, H, W)
    grads : Params
        dbeta.

    Raises
    ------
    TypeError, ValueError
        If dy does not match y.
    """
    attended, z, beta, (N, C, H, W) = cache
    xp = floating(dy=dy, z=z)
    same_shape("dy", dy, (N, C, H, W), "the output y")

    # DAC.3 was y = x + beta z: x receives dy, z beta times that, and beta, one number for all, what all say of it
    dx_direct = dy  # DAC.3
    dy_rows = xp.reshape(dy, (N, C, H * W))
    dz = beta * dy_rows  # DAC.3
    dbeta = xp.reshape(xp.sum(dy_rows * z), (1,))  # DAC.3

    # DAC.2 was an attention whose queries, keys and values were one t
    dt_q, dt_k, dt_v = dot_product_attention.backward(dz, attended)  # DAC.2

    # DAC.1 only moved numbers. t was used three times, and x once more: its gradient comes back four ways
    dx_channels = xp.reshape(dt_q + dt_k + dt_v, (N, C, H, W))  # DAC.1
    dx = dx_direct + dx_channels
    return dx, Params(dbeta)


class DANetChannel(Block):
    """DANet's channel attention as a layer: x (N, C, H, W), any C, to x and a mean of its channels, the same shape.

    Parameters
    ----------
    unlike
        False as in the paper: channels that look alike count. True as in the authors' code, which makes shares of the
        largest score less the score: channels that look unlike count.
    dtype, rng, xp, fused
        As in `npattn.Layer`. There is no fused form.

    Attributes
    ----------
    params
        "gamma" (1,), 0 at first, the paper's β.
    attention
        "pairs" (N, C, C): the share that the first channel gives to the second one; of each first channel they add up
        to 1.

    Raises
    ------
    TypeError
        If unlike is no bool.
    """

    input_axes = "N C H W"
    state = (Weight("gamma", "beta", "1", start=0),)
    gates = {"pairs": ("attended.shares.y", "N C C")}
    card = Card(
        "danet-channel",
        "DANet's channel attention",
        asks="which channel matters to which?",
        gives="x + β z, z = softmax(t tᵀ) t",
        source="Fu et al., CVPR 2019, equations 3 and 4",
        page="blocks/danet",
        size=(1, 3, 1, 2),
        seed=95,
        forms=(Form("danet-channel-unlike", "DANet's channel attention, what is unlike", {"unlike": True}),),
    )

    def __init__(self, unlike: bool = False, **options: Unpack[Options]) -> None:
        super().__init__(settings={"unlike": true_or_false("unlike", unlike)}, **options)
