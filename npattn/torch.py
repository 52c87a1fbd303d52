"""Our layers within PyTorch: `npattn.torch.module(layer)` is an `nn.Module` whose forward *and* backward are ours.

Autograd hands it dy and takes dx and the parameters' gradients, as from any other module; in between nothing of
PyTorch's computes. So a backward of this library, or one of your own, can be put into a model that exists, trained
there, and compared with PyTorch's.

    on the CPU     NumPy works on the tensors' own memory
    on CUDA        CuPy does, through DLPack; not yet seen on a GPU
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from torch.autograd.function import once_differentiable

from npattn.arguments import explained
from npattn.backend import Array, as_module, gpu_module
from npattn.grad_mode import no_grad
from npattn.layer import Layer

__all__ = ["LayerModule", "module"]


@explained
def module(layer: Layer) -> LayerModule:
    """A layer as a module of PyTorch's.

    Parameters
    ----------
    layer
        A layer of this library, of NumPy's arrays. It is copied: the module has weights of its own.

    Returns
    -------
    LayerModule
        An `nn.Module`. Its parameters and buffers have the layer's keys and shapes, its input and output are tensors.

    Raises
    ------
    TypeError
        If it is no layer.

    Examples
    --------
    >>> import npattn.torch, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), npattn.torch.module(npattn.CBAM(8, ratio=4)))
    >>> net(torch.randn(2, 1, 9, 9)).sum().backward()
    >>> net[1].ca.fc1.weight.grad.shape
    torch.Size([2, 8, 1, 1])
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer of npattn, got {type(layer).__name__}")
    return LayerModule(layer)


class LayerModule(torch.nn.Module):
    """What `module` returns.

    Attributes
    ----------
    layer
        A copy of the layer; the module's parameters take the place of its own in every forward.
    attention
        The gates of the last forward, name to tensor.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer).to(xp=as_module(None))
        self.attention: dict[str, torch.Tensor] = {}
        for key, value in self.layer.params.items():
            self._place(key).register_parameter(last(key), torch.nn.Parameter(torch.from_numpy(value.copy())))
        for key, value in self.layer.buffers.items():
            self._place(key).register_buffer(last(key), torch.from_numpy(value.copy()))

    def _place(self, key: str) -> torch.nn.Module:
        """The module that holds "weight", for the key "ca.fc1.weight": one within one for each part of the name."""
        here: torch.nn.Module = self
        for name in key.split(".")[:-1]:
            if not hasattr(here, name):
                here.add_module(name, torch.nn.Module())
            here = getattr(here, name)
        return here

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output for x, on x's device and of its dtype, which must be the parameters'."""
        return Run.apply(self, x, *(self.get_parameter(key) for key in self.layer.params))

    def extra_repr(self) -> str:
        return repr(self.layer).replace("\n", " ")


class Run(torch.autograd.Function):
    """One forward and its backward, by a copy of the layer that keeps this forward's cache, and by no other."""

    @staticmethod
    def forward(ctx: Any, owner: LayerModule, x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"x: expected a tensor of torch, got {type(x).__name__}")
        for key, parameter in zip(owner.layer.params, params, strict=True):
            if parameter.dtype != x.dtype or parameter.device != x.device:
                raise TypeError(
                    f"x: expected {parameter.dtype} on {parameter.device}, as the parameter {key}, got {x.dtype} on "
                    f"{x.device}: convert x, or the module by its to()"
                )
        buffers = {key: owner.get_buffer(key) for key in owner.layer.buffers}
        layer = working_copy(owner, x, params, buffers)
        if any(ctx.needs_input_grad):
            y = layer.forward(as_array(x))
        else:
            with no_grad():
                y = layer.forward(as_array(x))
        for key, buffer in buffers.items():
            buffer.copy_(as_tensor(layer.buffers[key]))
        owner.attention = {name: as_tensor(gate) for name, gate in layer.attention.items()}
        ctx.layer = layer
        ctx.save_for_backward(x, *params)  # so that autograd notices if one is changed before the backward
        return as_tensor(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *_ = ctx.saved_tensors
        _, wanted, *_ = ctx.needs_input_grad
        layer: Layer = ctx.layer
        if wanted:
            dx = as_tensor(layer.backward(as_array(dy))).reshape(x.shape)
        else:
            layer.backward_params(as_array(dy))
            dx = None
        return None, dx, *(as_tensor(layer.grads[key]) for key in layer.params)


def working_copy(owner: LayerModule, x: torch.Tensor, params: Any, buffers: dict[str, torch.Tensor]) -> Layer:
    """A copy of the layer for one forward: it works on the module's parameters, and keeps its own cache."""
    there = {id(array): array for array in (*owner.layer.params.values(), *owner.layer.buffers.values())}
    layer = copy.deepcopy(owner.layer, memo=dict(there)).train(owner.training)  # the arrays themselves are not copied
    for key, parameter in zip(owner.layer.params, params, strict=True):
        layer.params[key] = as_array(parameter)
    for key, buffer in buffers.items():
        layer.buffers[key] = as_array(buffer.to(x.dtype)).copy()
    return layer


def as_array(tensor: torch.Tensor) -> Array:
    """The tensor's own memory as an array: NumPy's on the CPU, CuPy's on CUDA; in the order of its axes."""
    tensor = tensor.detach().contiguous()
    if tensor.device.type == "cpu":
        return tensor.numpy()
    if tensor.device.type == "cuda":
        return gpu_module().from_dlpack(tensor)
    raise TypeError(f"x: expected a tensor on the CPU or on CUDA, got one on {tensor.device}")


def as_tensor(array: Array) -> torch.Tensor:
    """An array as a tensor of the same memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.utils.dlpack.from_dlpack(array)


def last(key: str) -> str:
    return key.rpartition(".")[2]
