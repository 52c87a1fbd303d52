"""`npattn.torch.module`: a layer within PyTorch, forward and backward ours."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import npattn
from npattn.checker.cases import Maker
from tests.support.cases import MAKERS, ident, image_for

torch = pytest.importorskip("torch", reason="torch is not installed")

from npattn.torch import module  # noqa: E402


@pytest.fixture(params=MAKERS, ids=ident)
def make(request) -> Maker:
    return request.param


def image(layer: npattn.Layer, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(image_for(layer, (2, 8, 4, 3)), generator=torch.Generator().manual_seed(0)).to(dtype)


def test_it_computes_what_the_layer_does(make: Maker):
    layer = make()
    here = module(layer).train(layer.training)
    x = image(layer).requires_grad_()
    y = here(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(dy)
    wanted = layer(x.detach().numpy())
    np.testing.assert_array_equal(y.detach().numpy(), wanted)
    np.testing.assert_array_equal(x.grad.numpy(), layer.backward(dy.numpy()))
    assert list(dict(here.named_parameters())) == list(layer.params)
    for key, parameter in here.named_parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), layer.grads[key], err_msg=key)
    for key, buffer in here.named_buffers():
        np.testing.assert_array_equal(buffer.numpy(), layer.buffers[key], err_msg=key)
    assert list(here.attention) == list(layer.attention)


@pytest.mark.parametrize("name", ["SELayer", "ChannelAttention", "SpatialAttention", "CBAM"])
def test_torchs_own_gradcheck_passes(name: str):
    arguments = {"SELayer": (4, 2), "ChannelAttention": (4, 2), "SpatialAttention": (3,), "CBAM": (4, 2, 3)}[name]
    here = module(getattr(npattn, name)(*arguments, rng=0, dtype="float64"))
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    params = list(here.parameters())

    def run(x, *_):
        return here(x)

    assert torch.autograd.gradcheck(run, (x, *params))


def test_a_model_trains_with_it():
    torch.manual_seed(0)
    nn = torch.nn
    attention = module(npattn.CBAM(4, ratio=2, kernel_size=3, rng=0))
    net = nn.Sequential(nn.Conv2d(1, 4, 3), attention, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x, t = torch.randn(16, 1, 6, 6), torch.arange(16) % 2
    x[t == 1] *= 2
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), t)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    assert all(not torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_one_module_may_stand_at_two_places():
    """Autograd keeps a forward for each; so does this."""
    here = module(npattn.Sigmoid(dtype="float64"))
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).requires_grad_()
    here(here(x)).sum().backward()
    found = x.grad.clone()
    x.grad = None
    torch.sigmoid(torch.sigmoid(x)).sum().backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-12, atol=0)


def test_gradients_add_up_and_stop_where_they_are_not_wanted():
    here = module(npattn.Conv2d(2, 3, rng=0))
    x = torch.randn(1, 2, 4, 4)
    here(x).sum().backward()
    once = here.weight.grad.clone()
    here(x).sum().backward()
    torch.testing.assert_close(here.weight.grad, 2 * once)
    with torch.no_grad():
        y = here(x)
    assert not y.requires_grad
    here.requires_grad_(False)
    x.requires_grad_()
    here(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(here.weight.grad, 2 * once)


def test_layouts_dtypes_and_modes():
    layer = npattn.Sequential(npattn.Conv2d(2, 3, rng=0), npattn.BatchNorm2d(3))
    here = module(layer).double()
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    y = here(x.to(memory_format=torch.channels_last))
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, copy.deepcopy(module(layer)).double()(x))
    mean = here.get_buffer("1.running_mean").clone()
    here.eval()(x)
    assert torch.equal(here.get_buffer("1.running_mean"), mean)
    here.train()(x)
    assert not torch.equal(here.get_buffer("1.running_mean"), mean)


def test_state_copies_and_pickles():
    here = module(npattn.CBAM(8, 4, 3, rng=0))
    state = here.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: value.shape for key, value in npattn.CBAM(8, 4, 3).state_dict().items()
    }
    other = module(npattn.CBAM(8, 4, 3, rng=1))
    other.load_state_dict(state)
    x = torch.randn(1, 8, 3, 3)
    twin, thawed = copy.deepcopy(here), pickle.loads(pickle.dumps(here))
    for each in (other, twin, thawed):
        torch.testing.assert_close(each(x), here(x), rtol=0, atol=0)
    assert "CBAM(8, ratio=4, kernel_size=3)" in repr(here)


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"layer: expected a layer of npattn, got ReLU"):
        module(torch.nn.ReLU())
    here = module(npattn.CBAM(8, 4, 3))
    with pytest.raises(TypeError, match=r"x: expected torch\.float32 on cpu, as the parameter .*, got torch\.float64"):
        here(torch.randn(1, 8, 3, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match="x: expected a tensor of torch, got ndarray"):
        here(np.zeros((1, 8, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"x: expected shape \(N, C=8, H, W\)"):
        here(torch.randn(1, 7, 3, 3))
    with pytest.raises(TypeError, match="on the CPU or on CUDA, got one on meta"):
        module(npattn.ReLU())(torch.empty(1, 8, 3, 3, device="meta"))


def test_a_change_in_place_before_the_backward_is_noticed():
    here = module(npattn.Conv2d(1, 1, rng=0))
    x = torch.randn(1, 1, 3, 3, requires_grad=True)
    inner = x * 1
    y = here(inner)
    inner.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_derivative_is_refused():
    here = module(npattn.Sigmoid())
    x = torch.randn(3, requires_grad=True)
    (dx,) = torch.autograd.grad(here(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        dx.sum().backward()
