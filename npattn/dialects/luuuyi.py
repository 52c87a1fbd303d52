"""luuuyi/CBAM.PyTorch, model/resnet_cbam.py.

`ratio` is a parameter there and is not read: the hidden width is always C // 16. There is no class CBAM: a residual
unit has `ca` and `sa` and multiplies by both. `CBAM` here stands for these two, as they are in a unit's state_dict.
An earlier version of that file has the keys fc1 and fc2; it is the article's code, and "article" reads its files.
"""

from __future__ import annotations

from typing import Any

from npattn.attention.cbam import CBAM as OurCBAM
from npattn.attention.channel import ChannelAttention as OurChannelAttention
from npattn.attention.spatial import SpatialAttention as OurSpatialAttention
from npattn.dialects.table import Misfit, Seen, module
from npattn.layer import Layer


def sixteenth(seen: Seen) -> dict[str, int]:
    C, R = seen.sizes["C"], seen.sizes["R"]
    if C // 16 != R:
        raise Misfit(f"expected in_planes // 16 = {C} // 16 = {C // 16} hidden units, whatever ratio is, got {R}")
    return {"in_planes": C}


@module(
    "luuuyi",
    """
    fc.0.weight           R C 1 1    fc1.weight
    fc.2.weight           C R 1 1    fc2.weight
    """,
    sixteenth,
    returns="gate = sigmoid(mlp(mean) + mlp(max))",
)
def ChannelAttention(in_planes: int, ratio: int = 16, **options: Any) -> Layer:
    return OurChannelAttention(in_planes, 16, **options)


@module(
    "luuuyi",
    """
    conv1.weight          1 2 k k    conv1.weight
    """,
    lambda seen: {"kernel_size": seen.sizes["k"]},
    returns="gate = sigmoid(conv([mean, max]))",
    same_as="article.SpatialAttention",
)
def SpatialAttention(kernel_size: int = 7, **options: Any) -> Layer:
    return OurSpatialAttention(kernel_size, **options)


@module(
    "luuuyi",
    """
    ca.fc.0.weight        R C 1 1    ca.fc1.weight
    ca.fc.2.weight        C R 1 1    ca.fc2.weight
    sa.conv1.weight       1 2 k k    sa.conv1.weight
    """,
    lambda seen: sixteenth(seen) | {"kernel_size": seen.sizes["k"]},
    returns="u · sigmoid(conv([mean, max] of u)), u = x · sigmoid(mlp(mean) + mlp(max))",
    among=True,
)
def CBAM(in_planes: int, kernel_size: int = 7, **options: Any) -> Layer:
    return OurCBAM(in_planes, 16, kernel_size, **options)
