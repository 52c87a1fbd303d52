"""timm's gather–excite: gather_excite.py, as timm 1.0.15 has it; 1.0.31's cannot be built with an MLP or parameters."""

from __future__ import annotations

from typing import Any

from npattn.attention.gather_excite import GatherExcite as OurGatherExcite
from npattn.checks import true_or_false, whole_number
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import only, width
from npattn.layer import Layer


def gather_arguments(seen: Seen) -> dict[str, Any]:
    """A kernel of 3×3 is taken for extent 2, not for a map of 3×3; without one nothing is seen of the extent."""
    if not seen.present:
        raise Misfit("expected weights: a form without any cannot be told from others")
    given: dict[str, Any] = {"channels": seen.sizes["C"]}
    if "params" in seen.present:
        rows, columns = seen.sizes["A"], seen.sizes["B"]
        if rows != columns:
            raise Misfit(f"gather.conv1.weight: expected as many rows as columns, got {rows} and {columns}")
        given |= {"extra_params": True} | ({"extent": 2} if rows == 3 else {"feat_size": rows})
    if "mlp" not in seen.present:
        return given | {"use_mlp": False}
    R = seen.sizes["R"]
    return given | ({} if width(given["channels"], 1 / 16, None, 1) == R else {"rd_channels": R})


@module(
    "timm",
    """
    gather.conv1.weight                 C 1 A B    gather.conv1.weight         params
    gather.norm1.weight                 C          gather.norm1.weight         params
    gather.norm1.bias                   C          gather.norm1.bias           params
    gather.norm1.running_mean           C          gather.norm1.running_mean   params
    gather.norm1.running_var            C          gather.norm1.running_var    params
    gather.norm1.num_batches_tracked    -          batches                     params
    mlp.fc1.weight                      R C 1 1    mlp.fc1.weight              mlp
    mlp.fc1.bias                        R          mlp.fc1.bias                mlp
    mlp.fc2.weight                      C R 1 1    mlp.fc2.weight              mlp
    mlp.fc2.bias                        C          mlp.fc2.bias                mlp
    """,
    gather_arguments,
    returns="x · sigmoid(mlp(means over windows, or a depthwise convolution and a norm), resized)",
    unseen=("extent", "add_maxpool"),
)
def GatherExcite(
    channels: int, feat_size: int | None = None, extra_params: bool = False, extent: int = 0, use_mlp: bool = True,
    rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 1, add_maxpool: bool = False,
    act_layer: str = "relu", norm_layer: str = "batchnorm2d", gate_layer: str = "sigmoid", **options: Any,
) -> Layer:  # fmt: skip
    for name, given, spoken in (
        ("act_layer", act_layer, "relu"), ("norm_layer", norm_layer, "batchnorm2d"),
        ("gate_layer", gate_layer, "sigmoid"),
    ):  # fmt: skip
        only(name, given, spoken)
    if whole_number("extent", extent, least=0) % 2:
        raise ValueError(f"extent: expected an even number, which is asserted there, got {extent}")
    if true_or_false("use_mlp", use_mlp):
        options["hidden"] = width(channels, rd_ratio, rd_channels, rd_divisor)
    if not true_or_false("extra_params", extra_params):
        return OurGatherExcite(channels, extent, maximum=add_maxpool, **options)
    if extent not in (0, 2):
        raise ValueError(f"extent: expected 0 or 2 with extra_params, the only ones spoken here, got {extent}")
    k = 3 if extent else whole_number("feat_size", 0 if feat_size is None else feat_size)
    padding = 0 if extent else (k - 1) // 2  # add_maxpool has no effect there with extra_params
    return OurGatherExcite(channels, extent, gather="conv", height=k, width=k, padding=padding, **options)
