"""What goes in and what comes out of each block, at the size that PyTorch tutorials like to print."""

import numpy as np

import npattn

x = np.random.default_rng(0).standard_normal((8, 32, 300, 300), dtype=np.float32)
for block in (npattn.ChannelAttention(32), npattn.SpatialAttention(7), npattn.CBAM(32, 16, 7), npattn.SELayer(32)):
    with npattn.no_grad():
        print(f"{type(block).__name__:>16}: {x.shape} -> {block(x).shape}")
