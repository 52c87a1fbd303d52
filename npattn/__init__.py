"""npattn: attention for convolutional networks in NumPy, every gradient derived and written by hand.

The table of contents. A block is a pair of functions, forward and backward, in a file that reads as its formula;
a layer is a thin object around a pair.

    npattn.attention.se        squeeze-and-excitation                SELayer
    npattn.attention.channel   CBAM's channel attention (a gate)     ChannelAttention
    npattn.attention.spatial   CBAM's spatial attention (a gate)     SpatialAttention
    npattn.attention.cbam      both, one after the other             CBAM
    npattn.attention.concat    average and maximum side by side      ConcatAttention
    npattn.attention.psa       every pixel looks at every pixel      PSA
    npattn.attention.wrong     what SE is compared with              SqueezeScale, ConvGate, SEGate, ParallelSE
    npattn.attention.residual  x plus what a branch makes of it      Residual
    npattn.variants            the same with options, as other codebases build them; ECA
    npattn.ops                 what they are made of: activation, linear, conv2d, pooling, batch_norm, loss
    npattn.fused               the same pairs in fewer passes over memory; set_num_threads
    npattn.layer               Layer, no_grad
    npattn.nested              Sequential
    npattn.gradcheck           is a backward the derivative of its forward? Ours, or one of your own
    npattn.bench               `npattn bench`: timed against PyTorch and the memory floor
    npattn.models, data, training   the tiny demo on MNIST: train, TrainConfig, load_model
    npattn.explain             seeing what a network does: class_activation_map, gate_statistics
    npattn.dialects            weights from timm and other codebases, with equal outputs and gradients
"""

from typing import TYPE_CHECKING, Any

from npattn.attention.cbam import CBAM
from npattn.attention.channel import ChannelAttention
from npattn.attention.concat import ConcatAttention
from npattn.attention.gate import Gated
from npattn.attention.psa import PSA
from npattn.attention.residual import Residual
from npattn.attention.se import SELayer
from npattn.attention.spatial import SpatialAttention
from npattn.attention.wrong import ConvGate, ParallelSE, SEGate, SqueezeScale
from npattn.backend import array_module
from npattn.fused.threads import get_num_threads, set_num_threads
from npattn.gradcheck import GradcheckError, GradcheckReport, gradcheck
from npattn.layer import Layer, no_grad
from npattn.nested import Sequential
from npattn.ops.activation import ReLU, Sigmoid
from npattn.ops.batch_norm import BatchNorm2d
from npattn.ops.conv2d import Conv2d
from npattn.ops.linear import Linear
from npattn.ops.pooling import AvgPool2x2, GlobalAvgPool, GlobalMaxPool, MaxPool2x2

if TYPE_CHECKING:
    from npattn.training import TrainConfig, TrainResult, load_model, train
    from npattn.variants.eca import ECA

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "ECA",
    "PSA",
    "AvgPool2x2",
    "BatchNorm2d",
    "ChannelAttention",
    "ConcatAttention",
    "Conv2d",
    "ConvGate",
    "Gated",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GradcheckError",
    "GradcheckReport",
    "Layer",
    "Linear",
    "MaxPool2x2",
    "ParallelSE",
    "ReLU",
    "Residual",
    "SEGate",
    "SELayer",
    "Sequential",
    "Sigmoid",
    "SpatialAttention",
    "SqueezeScale",
    "TrainConfig",
    "TrainResult",
    "array_module",
    "get_num_threads",
    "gradcheck",
    "load_model",
    "no_grad",
    "set_num_threads",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import training, variants and dialects when they are asked for: most programs need none of them."""
    if name == "explain":
        import npattn.explain as explain  # binds the name here, so that this function is not asked again

        return explain
    if name == "dialects":
        import npattn.dialects as dialects

        return dialects
    if name in ("TrainConfig", "TrainResult", "load_model", "train"):
        from npattn import training

        return getattr(training, name)
    if name == "ECA":
        from npattn.variants.eca import ECA

        return ECA
    raise AttributeError(f"module 'npattn' has no attribute {name!r}")
