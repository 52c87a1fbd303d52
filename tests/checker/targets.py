"""What the gradcheck command is pointed at: `npattn gradcheck tests.checker.targets:make_layer --shape 2,8,5,5`."""

from __future__ import annotations

import npattn
from npattn.ops import sigmoid


def make_layer():
    return npattn.ChannelAttention(8, ratio=4, rng=0)


def make_wrong():
    return sigmoid.forward, lambda dy, cache: -sigmoid.backward(dy, cache)
