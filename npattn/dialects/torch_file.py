"""What torch.save wrote, read by torch itself with weights_only=True: it makes tensors and plain containers alone."""

from __future__ import annotations

import io
import re
import warnings
from types import ModuleType
from typing import Any

from npattn.dialects.keys import shown

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
REFUSED = (
    re.compile(r"Unsupported global: GLOBAL (\S+)"),
    re.compile(r"function GLOBAL (\S+)|Unsupported class (\S+)|but got <class '([^']+)'>"),
)


class Unreadable(ValueError):
    """torch does not read it as weights alone. The message says why, and what to do."""


def content_of(data: bytes, path: str, torch: ModuleType) -> Any:
    """What the bytes of the file hold. Raises Unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its storages are of an old kind is no concern of who reads it
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, of pickle, zipfile and its own
        raise Unreadable(why(error, path, data)) from None


def why(error: Exception, path: str, data: bytes) -> str:
    """torch's message in a sentence: the class that it refused and what to do, or its own reason."""
    text = COLOURS.sub("", str(error))
    for pattern in REFUSED:
        match = pattern.search(text)
        if match:
            name = next(group for group in match.groups() if group).rstrip(".,")
            return (
                f"is more than weights: it needs the class or function {shown(name)}, which torch does not run with "
                f"weights_only=True, and nothing else unpickles here. If you trust the file, load it where that is, "
                f"found = torch.load({path!r}, weights_only=False), and save the weights alone: "
                'torch.save(found.state_dict(), "weights.pth") of a model, '
                'torch.save(found["state_dict"], "weights.pth") of a dict'
            )
    if data[:1] == b"\x80" and data[1] > 2:
        return (
            f"a plain pickle of protocol {data[1]}, as pickle.dump and Paddle write it; torch reads none but those of "
            "torch.save as weights alone. If you trust the file, save its arrays without pickle: "
            f"found = pickle.load(open({path!r}, 'rb')), then numpy.savez('weights.npz', **found) of a dict of arrays"
        )
    reason = text.partition("WeightsUnpickler error:")[2] or text
    first = next((line.strip() for line in reason.splitlines() if line.strip()), type(error).__name__)
    return f"torch cannot read it as weights alone: {first[:300]}"
