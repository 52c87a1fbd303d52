"""Files as people save them: weights within dicts, beside what is none. For torch.save, and for fuzzing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CONTAINERS = (
    "bare", "state_dict", "model_state_dict", "model", "net", "params", "weights", "nested", "deep", "lightning",
    "data_parallel", "compiled", "basicsr", "timm", "averaged",
)  # fmt: skip


def contained(state: Mapping[str, Any], container: str, *, tensor: Any = np.asarray) -> dict[str, Any]:
    """The state in one of CONTAINERS, with what else is usual there.

    `tensor` makes what an array of the library is that writes the file: `torch.as_tensor`.
    """
    entries = {key: tensor(np.asarray(value)) for key, value in state.items()}
    optimizer = {"state": {0: {"step": 3, "exp_avg": tensor(np.zeros(10_000))}}, "param_groups": [{"lr": 0.1}]}
    beside = {"epoch": 3, "best_acc": 0.9, "optimizer": optimizer, "note": "text", "nothing": None}
    averages = {key: value + 1 if value.ndim else value for key, value in entries.items()}
    if container == "bare":
        return entries
    if container == "nested":
        return {"model": {"state_dict": entries, "name": "net"}, **beside}
    if container == "deep":
        return {"a": {"b": {"c": {"d": {"weights": entries}}}}, **beside}
    if container == "lightning":
        return {"state_dict": with_prefix("model.", entries), "pytorch-lightning_version": "2.0", **beside}
    if container == "data_parallel":
        return {"state_dict": with_prefix("module.", entries), **beside}
    if container == "compiled":
        return {"model": with_prefix("_orig_mod.", entries), **beside}
    if container == "basicsr":
        return {"params": entries, "params_ema": averages}
    if container == "timm":
        return {"state_dict_ema": averages, "state_dict": entries, "arch": "net", **beside}
    if container == "averaged":
        counted = {"n_averaged": tensor(np.array(7)), **with_prefix("module.", averages)}
        return {"model_ema": counted, "model": entries, **beside}
    return {container: entries, **beside}


def with_prefix(prefix: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries with this before every key."""
    return {prefix + key: value for key, value in entries.items()}
