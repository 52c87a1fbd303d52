"""timm's global context: global_context.py."""

from __future__ import annotations

from typing import Any

from npattn.attention.global_context import GlobalContext as OurGlobalContext
from npattn.checks import true_or_false
from npattn.dialects.table import Misfit, Seen, module
from npattn.dialects.timm.rules import only, width
from npattn.layer import Layer


def context_arguments(seen: Seen) -> dict[str, Any]:
    """What the MLPs that are there, their width and the convolution show. Raises Misfit where there is no MLP."""
    if seen.present.isdisjoint(("add", "scale")):
        raise Misfit("expected mlp_add, mlp_scale or both")
    C, R = seen.sizes["C"], seen.sizes["R"]
    fused = {f"fuse_{name}": name in seen.present for name in ("add", "scale")}
    given = {} if width(C, 1 / 8, None, 1) == R else {"rd_channels": R}
    return {"channels": C, "use_attn": "attn" in seen.present} | fused | given


@module(
    "timm",
    """
    conv_attn.weight                        1 C 1 1    conv.weight         attn
    conv_attn.bias                          1          conv.bias           attn
    mlp_add.fc1.weight                      R C 1 1    add.fc1.weight      add
    mlp_add.fc1.bias                        R          add.fc1.bias        add
    mlp_add.norm.weight                     R          add.norm.weight     add
    mlp_add.norm.bias                       R          add.norm.bias       add
    mlp_add.fc2.weight                      C R 1 1    add.fc2.weight      add
    mlp_add.fc2.bias                        C          add.fc2.bias        add
    mlp_scale.fc1.weight                    R C 1 1    scale.fc1.weight    scale
    mlp_scale.fc1.bias                      R          scale.fc1.bias      scale
    mlp_scale.norm.weight                   R          scale.norm.weight   scale
    mlp_scale.norm.bias                     R          scale.norm.bias     scale
    mlp_scale.fc2.weight                    C R 1 1    scale.fc2.weight    scale
    mlp_scale.fc2.bias                      C          scale.fc2.bias      scale
    """,
    context_arguments,
    returns="x · sigmoid(mlp(s)) + mlp(s), either or both, s = sum of softmax(conv(x)) · x over the pixels, or mean",
)
def GlobalContext(
    channels: int, use_attn: bool = True, fuse_add: bool = False, fuse_scale: bool = True,
    init_last_zero: bool = False, rd_ratio: float = 1 / 8, rd_channels: int | None = None, rd_divisor: int = 1,
    act_layer: str = "relu", gate_layer: str = "sigmoid", **options: Any,
) -> Layer:  # fmt: skip
    only("act_layer", act_layer, "relu")
    only("gate_layer", gate_layer, "sigmoid")
    fused = [name for name, on in (("add", fuse_add), ("scale", fuse_scale)) if true_or_false(f"fuse_{name}", on)]
    if not fused:
        raise ValueError("fuse_add, fuse_scale: expected at least one of them, without both it returns x, got neither")
    return OurGlobalContext(
        channels, hidden=width(channels, rd_ratio, rd_channels, rd_divisor), attend=use_attn, bias=use_attn,
        fuse=fused[0] if len(fused) == 1 else "both", eps=1e-6, **options,
    )  # fmt: skip
