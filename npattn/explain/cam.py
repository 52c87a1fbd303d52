"""Class activation maps: which places of a feature map speak for a class?

    f (N, C, H, W)   the maps   w (M, C), b (M)   the head   y (N, M)   the scores   m (N)   the classes asked about

    CAM.1    cam = Σ_c w_mc f_c                  (N, H, W)      what the head adds up: w_m is row m of w
    GCAM.1   df = ∂y_m / ∂f                      (N, C, H, W)   by backward, from the score y_m to the maps
    GCAM.2   alpha = mean over the pixels of df  (N, C)
    GCAM.3   cam = Σ_c alpha_c f_c               (N, H, W)
    CAM.2    cam = max(cam, 0)                                  if `relu`: only what speaks for the class
    CAM.3    cam, enlarged to the image                         if `upsample`
    CAM.4    cam / max |cam|, 0 where all is 0                  if `normalise`

CAM.1 needs maps that go through global average pooling and one Linear to the scores. Then the mean of cam is y_m − b_m,
and GCAM.3 at the same maps is CAM.1 / (H·W).
Some texts write CAM for CBAM's channel attention. That is another thing: npattn/attention/channel.py.
Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016, equation 2; Selvaraju et al., Grad-CAM,
ICCV 2017, equations 1 and 2. Derivation: docs/cam.md
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np

from npattn.arguments import explained
from npattn.backend import Array, array_module, device, to_numpy
from npattn.checks import floating, one_of, shaped, shown, true_or_false
from npattn.grad_mode import keep_caches
from npattn.layer import Layer
from npattn.nested import Nested, Sequential
from npattn.ops import global_avg_pool
from npattn.ops.global_avg_pool import GlobalAvgPool
from npattn.ops.linear import Linear

METHODS = ("cam", "grad-cam")


@explained
def class_activation_map(
    model: Sequential,
    x: Array,
    class_index: int | Sequence[int] | Array | None,
    *,
    method: str = "cam",
    layer: str | None = None,
    relu: bool = True,
    normalise: bool = True,
    upsample: bool = True,
) -> np.ndarray:
    """How much each place of x speaks for a class, as the model sees it.

    The model is copied and runs in eval mode: its mode, caches, gradients and running statistics stay as they were.

    Parameters
    ----------
    model
        A network that gives scores (N, M), M of them an image.
    x
        Its input (N, C, H, W).
    class_index
        The class, 0 to M−1: one for all images, or one for each. None takes the class with the largest score.
    method
        "cam" for a model that ends in `GlobalAvgPool` and `Linear`; "grad-cam" for any.
    layer
        For Grad-CAM: the name of the layer whose output is looked at, "stage3.relu" say, of four axes; also one inside
        of a `Sequential` or `Residual`. None takes what goes into the last `GlobalAvgPool`, the maps of CAM.
    relu
        Whether to cut off what is negative, that is what speaks against the class.
    normalise
        Whether to divide each image's map by its largest absolute value. A map that is 0 everywhere stays so: with
        `relu` that is one which is nowhere positive. There is no division by 0, and no NaN.
    upsample
        Whether to enlarge the maps to the H × W of x, with straight lines between pixels.

    Returns
    -------
    numpy.ndarray
        (N, H, W), or the height and width of the layer's maps without `upsample`; in the model's dtype. With
        `normalise` from 0 to 1, or −1 to 1 without `relu`; without `normalise`, for "cam", in units of the score.

    Raises
    ------
    TypeError
        If model is no `Sequential`, x no array of its dtype, class_index no whole numbers, layer no name, or one of
        relu, normalise and upsample no bool.
    ValueError
        If method is neither of the two; the model's end does not fit `method="cam"`, or `layer` is given for it; there
        is no layer of that name, or its output has not four axes; a class is out of range; or the map is not finite.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"model: expected a Sequential, got {type(model).__name__}")
    one_of("method", method, METHODS)
    if layer is not None and not isinstance(layer, str):
        raise TypeError(f"layer: expected the name of a layer or None, got {shown(layer)}")
    relu, normalise = true_or_false("relu", relu), true_or_false("normalise", normalise)
    upsample = true_or_false("upsample", upsample)
    floating(x=x)
    N, _, H, W = shaped("x", x, "N C H W")
    if N == 0:
        raise ValueError("x: expected at least one image, got none")
    twin = copy.deepcopy(model).eval()
    if method == "cam":
        if layer is not None:
            raise ValueError(f"layer: CAM looks at what goes into the pooling; got {layer!r}, which asks for grad-cam")
        pool, head = ending(twin)
        watched = watch(twin, pool)
        y = twin.forward(x)
        cam = weighed_by_head(watched.x, classes(y, class_index), head.params["weight"])
    else:
        watched = watch(twin, ending(twin)[0] if layer is None else layer)
        with keep_caches():
            y = twin.forward(x)
        f = watched.x if layer is None else watched.y
        if f.ndim != 4:
            raise ValueError(f"layer: expected one whose output has four axes, got {layer!r} with {tuple(f.shape)}")
        m = classes(y, class_index)
        twin.backward(one_hot(m, y))  # GCAM.1
        cam = weighed_by_gradient(f, watched.dx if layer is None else watched.dy)
    return finished(to_numpy(cam), (H, W), relu, normalise, upsample)


def weighed_by_head(f: Array, m: Array, w: Array) -> Array:
    """The maps f (N, C, H, W), weighed by the rows m (N) of the head's w (M, C): cam (N, H, W)."""
    xp = array_module(f, w)
    w_m = xp.take(w, m, axis=0)
    cam = xp.sum(w_m[:, :, None, None] * f, axis=1)  # CAM.1
    return cam


def weighed_by_gradient(f: Array, df: Array) -> Array:
    """The maps f (N, C, H, W), weighed by the means of df = ∂y_m/∂f, of the same shape: cam (N, H, W)."""
    xp = array_module(f, df)
    alpha, _ = global_avg_pool.forward(df)  # GCAM.2
    cam = xp.sum(alpha[:, :, None, None] * f, axis=1)  # GCAM.3
    return cam


def finished(cam: np.ndarray, size: tuple[int, int], relu: bool, normalise: bool, upsample: bool) -> np.ndarray:
    """A raw map (N, H, W) as it was asked for. Raises ValueError if it is not finite."""
    if not np.all(np.isfinite(cam)):
        raise ValueError("x: expected one for which the model's numbers are finite, got NaN or infinity in the map")
    if relu:
        cam = np.maximum(cam, 0)  # CAM.2
    if upsample and cam.shape[1:] != size:
        from scipy import ndimage

        # pixels are areas here: the new grid begins and ends where the old one does, and its border repeats the last
        zoom = (1, size[0] / cam.shape[1], size[1] / cam.shape[2])
        cam = ndimage.zoom(cam, zoom, order=1, mode="nearest", grid_mode=True)  # CAM.3
    if normalise:
        largest = np.max(np.abs(cam), axis=(1, 2), keepdims=True)
        cam = cam / np.where(largest > 0, largest, 1)  # CAM.4
    return np.array(cam)


def one_hot(m: Array, y: Array) -> Array:
    """The cotangent of the scores y (N, M) that asks for y_m alone: 1 at class m of each image, 0 elsewhere."""
    xp = array_module(y)
    chosen = xp.arange(y.shape[1], dtype=m.dtype, device=device(y)) == m[:, None]
    return xp.astype(chosen, y.dtype)


def classes(y: Array, class_index: int | Sequence[int] | Array | None) -> Array:
    """The class asked about of each image, (N), for scores y (N, M), beside y on its device."""
    xp = array_module(y)
    N, M = shaped("model's output", y, "N M")
    if class_index is None:
        return xp.argmax(y, axis=1)
    try:
        asked = to_numpy(class_index) if hasattr(class_index, "dtype") else np.asarray(class_index)
    except Exception:  # lists of several lengths, a tensor without numbers, …
        asked = np.asarray(None)
    if asked.dtype.kind not in "iu" or asked.shape not in ((), (N,)):
        raise TypeError(
            f"class_index: expected a whole number, or {N} of them, one for each image, got {shown(class_index)}"
        )
    if asked.min() < 0 or asked.max() >= M:
        raise ValueError(f"class_index: expected classes from 0 to {M - 1}, got {shown(class_index)}")
    return xp.asarray(
        np.broadcast_to(asked, (N,)).astype(np.intp), device=device(y)
    )  # an index, of 32 bits in a browser


# Finding a layer, and looking at what passes through it


class Watched(Layer):
    """A layer with a window: it keeps what its layer was given and gave, forward (x, y) and backward (dy, dx)."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(dtype=layer.dtype, xp=layer.xp, fused=layer.fused)
        self.layer = layer
        self.params, self.buffers = layer.params, layer.buffers
        self.x: Any = None
        self.y: Any = None
        self.dy: Any = None
        self.dx: Any = None

    def run(self, x: Array) -> tuple[Array, tuple[()]]:
        self.x, self.y = x, self.layer.forward(x)
        return self.y, ()

    def undo(self, dy: Array, cache: tuple[()]) -> tuple[Array, MutableMapping[str, Array]]:
        self.dy, self.dx = dy, self.layer.backward(dy)
        return self.dx, self.layer.grads


def watch(model: Nested, name: str, within: str = "") -> Watched:
    """Put a window around the layer of that name, in place. Raises ValueError if there is none.

    `within` is what stands before the name in the whole network: "stage3.".
    """
    first, _, rest = name.partition(".")
    if first not in model.layers:
        there = ", ".join(within + each for each in model.layers)
        raise ValueError(f"layer: expected one of {there}, got {within + name!r}")
    inner = model.layers[first]
    if not rest:
        model.layers[first] = watched = Watched(inner)
        return watched
    if not isinstance(inner, Nested):
        raise ValueError(
            f"layer: expected {within}{first}, a {type(inner).__name__} without layers inside, got {within + name!r}"
        )
    return watch(inner, rest, f"{within}{first}.")


def ending(model: Sequential) -> tuple[str, Linear]:
    """The name of the GlobalAvgPool, and the Linear, that the model ends in. Raises ValueError if it does not."""
    (name, pool), (_, head) = (("", None), *steps(model))[-2:]
    if not isinstance(pool, GlobalAvgPool) or not isinstance(head, Linear):
        end = " and ".join(type(layer).__name__ for layer in (pool, head) if layer is not None)
        raise ValueError(
            f"model: expected one that ends in GlobalAvgPool and Linear, got {end}; "
            'use method="grad-cam" with the name of a layer'
        )
    return name, head


def steps(model: Sequential, prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """The layers that the input goes through one after the other, by their dotted names."""
    for name, layer in model.layers.items():
        if isinstance(layer, Sequential):
            yield from steps(layer, f"{prefix}{name}.")
        else:
            yield prefix + name, layer
