"""timm's split attention: split_attn.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.split_attention import SplitAttention
from npattn.checks import real_number, whole_number
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import only
from npattn.layer import Layer


def hidden_of(in_channels: int, radix: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """The hidden width: rd_channels for each branch, or C · radix · rd_ratio, rounded, and 32 at least."""
    if rd_channels is not None:
        return whole_number("rd_channels", rd_channels) * radix
    wanted = whole_number("in_channels", in_channels) * radix * real_number("rd_ratio", rd_ratio, least=0)
    divisor = whole_number("rd_divisor", rd_divisor)
    nearest = max(32, int(wanted + divisor / 2) // divisor * divisor)
    return nearest + divisor * (nearest < 0.9 * wanted)


def split_arguments(seen: Seen) -> dict[str, Any]:
    """One group, if the shapes allow for it: G is M over what fc1 takes, and J the rows of the convolution over M."""
    sizes = seen.sizes
    G, J, M, C = numbers_of(sizes)
    given: dict[str, Any] = {"in_channels": C}
    given |= {} if M == C else {"out_channels": M}
    given |= {} if sizes["k"] == 3 else {"kernel_size": sizes["k"]}
    given |= {} if G == 1 else {"groups": G}
    given |= {} if J == 2 else {"radix": J}
    given |= {"bias": True} if "bias" in seen.present else {}
    if hidden_of(C, J, 0.25, None, 8) != sizes["R"]:
        if sizes["R"] % J:
            raise Misfit(f"no rd_channels makes {sizes['R']} hidden units of {J} branches")
        given |= {"rd_channels": sizes["R"] // J}
    return given


def numbers_of(sizes: Any) -> tuple[int, int, int, int]:
    """Groups, branches, channels out and channels in. Raises Misfit if none fit."""
    rows, E, D, R, F = (sizes[letter] for letter in ("V", "E", "D", "R", "F"))
    if R % F or rows % (E * (R // F)):
        raise Misfit(f"no groups and no radix make {rows} channels of fc1's {E} and fc2's {F}")
    G = R // F
    M = E * G
    J = rows // M
    return G, J, M, D * J * G


@module(
    "timm",
    """
    conv.weight          V D k k     conv.weight
    conv.bias            V           conv.bias        bias
    fc1.weight           R E 1 1     fc1.weight
    fc1.bias             R           fc1.bias
    fc2.weight           V F 1 1     fc2.weight
    fc2.bias             V           fc2.bias
    """,
    split_arguments,
    returns="Σ v · gate over the branches v of relu(conv(x)), gate = softmax over them of mlp(mean(Σ v))",
    unseen=("stride", "padding", "dilation"),
    used="in ResNeSts as layerN.M.conv2, there with norm_layer, which has entries bn0 and bn1 and is not spoken here",
)
def SplitAttn(
    in_channels: int, out_channels: int | None = None, kernel_size: int = 3, stride: int = 1,
    padding: int | None = None, dilation: int = 1, groups: int = 1, bias: bool = False, radix: int = 2,
    rd_ratio: float = 0.25, rd_channels: int | None = None, rd_divisor: int = 8, act_layer: str = "relu",
    norm_layer: None = None, drop_layer: None = None, **options: Any,
) -> Layer:  # fmt: skip
    only("act_layer", act_layer, "relu")
    only("norm_layer", norm_layer, None)
    only("drop_layer", drop_layer, None)
    k = whole_number("kernel_size", kernel_size)
    J = whole_number("radix", radix)
    return SplitAttention(
        in_channels, out_channels or None, k, stride=stride, padding=k // 2 if padding is None else padding,
        dilation=dilation, groups=groups, radix=J, bias=bias,
        hidden=hidden_of(in_channels, J, rd_ratio, rd_channels, rd_divisor), **options,
    )  # fmt: skip
