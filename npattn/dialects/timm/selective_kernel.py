"""timm's selective kernel: selective_kernel.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npattn.attention.selective_kernel import SelectiveKernel as OurSelectiveKernel
from npattn.checks import real_number, true_or_false, whole_number, whole_numbers
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import divisible, only
from npattn.layer import Layer


def hidden_of(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """The hidden width: rd_channels if given (and not 0), else channels · rd_ratio, rounded: 0.9 of it at least."""
    if rd_channels:
        return whole_number("rd_channels", rd_channels)
    wanted = whole_number("out_channels", channels) * real_number("rd_ratio", rd_ratio, least=0)
    return divisible(wanted, whole_number("rd_divisor", rd_divisor), 0.9)


def kernels_of(kernel_size: int | Sequence[int] | None, dilation: int, keep_3x3: bool) -> dict[str, Any]:
    """Kernel sizes and dilations of two paths: a kernel size there is how far it reaches, where 3×3 is kept."""
    if isinstance(kernel_size, (list, tuple)) and len(kernel_size) != 2:
        raise ValueError(f"kernel_size: expected two of them, as there are two paths here, got {kernel_size!r}")
    sizes = (3, 5) if kernel_size is None or kernel_size == [] else kernel_size
    both = whole_numbers("kernel_size", sizes if isinstance(sizes, Sequence) else [sizes] * 2, 2)
    if min(both) < 3 or any(k % 2 == 0 for k in both):
        raise ValueError(f"kernel_size: expected odd ones of at least 3, which is asserted there, got {kernel_size!r}")
    d = whole_number("dilation", dilation)
    if not true_or_false("keep_3x3", keep_3x3):
        return {"kernel_sizes": both, "dilations": (d, d)}
    return {"kernel_sizes": (3, 3), "dilations": tuple(d * (k - 1) // 2 for k in both)}


def selective_arguments(seen: Seen) -> dict[str, Any]:
    """One group and a split input, which are the defaults: of others nothing is seen."""
    D, M, R, V, near, far = (seen.sizes[letter] for letter in ("D", "M", "R", "V", "k", "l"))
    if V != 2 * M:
        raise Misfit(f"expected 2 · {M} numbers from fc_select, as many as two paths have channels, got {V}")
    given: dict[str, Any] = {"in_channels": 2 * D}
    given |= {} if M == 2 * D else {"out_channels": M}
    given |= {} if (near, far) == (3, 3) else {"kernel_size": [near, far], "keep_3x3": False}
    return given | ({} if hidden_of(M, 1 / 16, None, 8) == R else {"rd_channels": R})


@module(
    "timm",
    """
    paths.0.conv.weight               M D k k       paths.0.conv.weight
    paths.0.bn.weight                 M             paths.0.bn.weight
    paths.0.bn.bias                   M             paths.0.bn.bias
    paths.0.bn.running_mean           M             paths.0.bn.running_mean
    paths.0.bn.running_var            M             paths.0.bn.running_var
    paths.0.bn.num_batches_tracked    -             batches
    paths.1.conv.weight               M D l l       paths.1.conv.weight
    paths.1.bn.weight                 M             paths.1.bn.weight
    paths.1.bn.bias                   M             paths.1.bn.bias
    paths.1.bn.running_mean           M             paths.1.bn.running_mean
    paths.1.bn.running_var            M             paths.1.bn.running_var
    paths.1.bn.num_batches_tracked    -             batches
    attn.fc_reduce.weight             R M 1 1       attn.fc_reduce.weight
    attn.bn.weight                    R             attn.bn.weight
    attn.bn.bias                      R             attn.bn.bias
    attn.bn.running_mean              R             attn.bn.running_mean
    attn.bn.running_var               R             attn.bn.running_var
    attn.bn.num_batches_tracked       -             batches
    attn.fc_select.weight             V R 1 1       attn.fc_select.weight
    """,
    selective_arguments,
    returns="Σ v · gate over two paths v = relu(norm(conv(x))), gate = softmax over them of mlp(mean(Σ v))",
    unseen=("in_channels", "kernel_size", "stride", "dilation", "groups", "split_input"),
    used="in SKNets as layerN.M.conv2, in SK-ResNets of basic blocks as layerN.M.conv1",
)
def SelectiveKernel(
    in_channels: int, out_channels: int | None = None, kernel_size: int | list[int] | None = None, stride: int = 1,
    dilation: int = 1, groups: int = 1, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 8,
    keep_3x3: bool = True, split_input: bool = True, act_layer: str = "relu", norm_layer: str = "batchnorm2d",
    aa_layer: None = None, drop_layer: None = None, **options: Any,
) -> Layer:  # fmt: skip
    only("act_layer", act_layer, "relu")
    only("norm_layer", norm_layer, "batchnorm2d")
    only("aa_layer", aa_layer, None)
    only("drop_layer", drop_layer, None)
    if whole_number("stride", stride) > 2:
        raise ValueError(f"stride: expected 1 or 2, got {stride}: beyond these more zeros are put around x there")
    M = whole_number("out_channels", out_channels or whole_number("in_channels", in_channels))
    kernels = kernels_of(kernel_size, dilation, keep_3x3)
    return OurSelectiveKernel(
        in_channels, M, stride=stride, groups=min(M, whole_number("groups", groups)), split_input=split_input,
        hidden=hidden_of(M, rd_ratio, rd_channels, rd_divisor), **kernels, **options,
    )  # fmt: skip
