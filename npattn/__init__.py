"""npattn: attention for convolutional networks in NumPy, every gradient derived and written by hand.

The table of contents. A block is a pair of functions, forward and backward, in a file that reads as its formula; a
layer is a thin object around a pair. A file of attention/ says everything about its block; the class is here by name.

    npattn.attention.se        squeeze-and-excitation                SELayer
    npattn.attention.channel   CBAM's channel attention (a gate)     ChannelAttention
    npattn.attention.spatial   CBAM's spatial attention (a gate)     SpatialAttention
    npattn.attention.cbam      both, one after the other             CBAM
    npattn.attention           and more, a block a file: npattn.blocks.blocks() names them all
    npattn.variants            the article's four with options, as other codebases build them
    npattn.ops                 what they are made of, one operation a file
    npattn.block               what a block says of itself
    npattn.fused               the same pairs in fewer passes over memory; set_num_threads
    npattn.layer, nested       Layer, no_grad; Sequential
    npattn.checker             gradcheck: is a backward the derivative of its forward? Ours, or one of your own
    npattn.bench               `npattn bench`: timed against PyTorch and the memory floor
    npattn.models, data, training   the tiny demo on MNIST: train, TrainConfig, load_model
    npattn.explain             seeing what a network does: class_activation_map, gate_statistics
    npattn.dialects            weights from timm and other codebases, with equal outputs and gradients
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from npattn import blocks
from npattn.attention.cbam import CBAM
from npattn.attention.channel import ChannelAttention
from npattn.attention.se import SELayer
from npattn.attention.spatial import SpatialAttention
from npattn.backend import array_module
from npattn.checker import GradcheckError, GradcheckReport, gradcheck
from npattn.fused.threads import get_num_threads, set_num_threads
from npattn.grad_mode import no_grad
from npattn.layer import Layer
from npattn.nested import Sequential
from npattn.ops.avg_pool_2x2 import AvgPool2x2
from npattn.ops.batch_norm import BatchNorm2d
from npattn.ops.conv2d import Conv2d
from npattn.ops.global_avg_pool import GlobalAvgPool
from npattn.ops.global_max_pool import GlobalMaxPool
from npattn.ops.linear import Linear
from npattn.ops.loss import CrossEntropy
from npattn.ops.max_pool_2x2 import MaxPool2x2
from npattn.ops.relu import ReLU
from npattn.ops.sigmoid import Sigmoid
from npattn.optimizer import SGD, AdamW
from npattn.version import __version__ as __version__

if TYPE_CHECKING:
    from npattn import ablation, data, dialects, explain, models, ops, training, variants  # noqa: F401
    from npattn.training import TrainConfig, TrainResult, load_model, train

globals().update(blocks.public())  # the classes of attention/ by name

__all__ = [
    "CBAM",
    "SGD",
    "AdamW",
    "AvgPool2x2",
    "BatchNorm2d",
    "ChannelAttention",
    "Conv2d",
    "CrossEntropy",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GradcheckError",
    "GradcheckReport",
    "Layer",
    "Linear",
    "MaxPool2x2",
    "ReLU",
    "SELayer",
    "Sequential",
    "Sigmoid",
    "SpatialAttention",
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
__all__ += [name for name in blocks.public() if name not in __all__]


MODULES = ("ablation", "blocks", "data", "dialects", "explain", "models", "ops", "torch", "training", "variants")
OF_TRAINING = ("TrainConfig", "TrainResult", "load_model", "train")


def __getattr__(name: str) -> Any:
    """Import a module of `MODULES`, or what training has, when it is asked for: most programs need none of them."""
    if name in MODULES:
        return importlib.import_module(f"npattn.{name}")  # binds the name here, so that this is not asked again
    if name in OF_TRAINING:
        return getattr(importlib.import_module("npattn.training"), name)
    raise AttributeError(f"module 'npattn' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, also what is not imported yet; npattn.torch only where torch is installed."""
    there = [name for name in MODULES if name != "torch" or importlib.util.find_spec("torch")]
    return sorted([*__all__, *there, "__doc__", "__file__", "__name__", "__path__", "__version__"])
