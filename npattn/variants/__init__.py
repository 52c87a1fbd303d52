"""The article's blocks with options: what other codebases build under the same names, each derived and checked.

Each class has its options in its own file, beside the pair that computes them. There is no fused form of these pairs.

    SELayer            npattn.variants.se        squeeze-and-excitation of any channel gate
    ChannelAttention   npattn.variants.channel   which poolings, mixed where, how many FC, biases, act, gate
    SpatialAttention   npattn.variants.spatial   which maps, side by side or averaged, bias, batch norm, which gate
    CBAM               npattn.variants.cbam      of two gates: order, parallel, residual, one gate alone

For those who load other people's weights:
    gate="torch_hard_sigmoid"  the hard sigmoid with PyTorch's slope, 1/6 rounded to float32 even in float64
    gate="hard_sigmoid_5"      the slope 1/5, as Keras 2 has it, and PaddleClas in its MobileNetV3
    gate="paddle_hard_sigmoid" the slope 0.1666667, as PaddlePaddle has it unless told
    mix="before"               the mean of the descriptors; no codebase that we know sums them there
    momentum                   the batch's share in the running statistics, 0.1 as PyTorch's default
    num_batches_tracked        of every layer with running statistics, a plain int attribute: how many forwards in
                               training mode moved those. PyTorch has it among its buffers; here it is in no state_dict
"""

from __future__ import annotations

from npattn.variants.cbam import CBAM
from npattn.variants.channel import ChannelAttention
from npattn.variants.se import SELayer
from npattn.variants.spatial import SpatialAttention

__all__ = ["CBAM", "ChannelAttention", "SELayer", "SpatialAttention"]
