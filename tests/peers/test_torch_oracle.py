"""What PyTorch computes, where torch is installed: our numbers against its modules, and its autograd on our forward.

The blocks against their references in torch: tests/blocks/test_proofs.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.ops import channel_max, conv2d, global_max_pool, loss, max_pool_2x2, relu, sigmoid
from npattn.ops.group_norm import GroupNorm
from tests.support.cases import CASES, Case
from tests.support.numerical import distance
from tests.support.trees import leaves, mapped

torch = pytest.importorskip("torch", reason="torch is not installed")
F = torch.nn.functional


def tensor(array: np.ndarray, grad: bool = True):
    return torch.tensor(array, requires_grad=grad and array.dtype.kind == "f")


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 4, 1, 1), (3, 2, 1, 7)], ids=str)
def test_a_gate_beside_a_transformation(shape: tuple[int, ...]):
    """SE in parallel around a convolution that also pools: the gate's map and the scaled map differ in size."""
    rng = np.random.default_rng(35)
    B, C = shape[1], 5
    pools = min(shape[2:]) > 1
    pool = {"pool": npattn.MaxPool2x2(dtype="float64")} if pools else {}
    transform = npattn.Sequential(conv=npattn.Conv2d(B, C, 3, dtype="float64"), **pool)
    layer = npattn.ParallelSE(transform, npattn.SEGate(B, C, 2, dtype="float64"))
    assert list(layer.params) == [
        "transform.conv.weight", "transform.conv.bias", "gate.fc.0.weight", "gate.fc.2.weight",
    ]  # fmt: skip
    layer.load_state_dict({key: rng.standard_normal(w.shape) for key, w in layer.params.items()})
    x = rng.standard_normal(shape)
    weights = {key: tensor(w) for key, w in layer.params.items()}
    x_there = tensor(x)
    u = F.conv2d(x_there, weights["transform.conv.weight"], weights["transform.conv.bias"], padding=1)
    u = F.max_pool2d(u, 2) if pools else u
    hidden = F.relu(x_there.mean(dim=(2, 3)) @ weights["gate.fc.0.weight"].T)
    y_there = u * torch.sigmoid(hidden @ weights["gate.fc.2.weight"].T)[..., None, None]
    dy = rng.standard_normal(tuple(y_there.shape))
    y_there.backward(torch.tensor(dy))

    assert distance(layer(x), y_there.detach().numpy()) < 1e-13
    assert distance(layer.backward(dy), x_there.grad.numpy()) < 1e-12
    for key, gradient in layer.grads.items():
        assert distance(gradient, weights[key].grad.numpy()) < 1e-12, key


@pytest.mark.parametrize("ties", [False, True], ids=["dense", "ties"])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_autograd_differentiates_our_forward(case: Case, ties: bool):
    """Our forward runs on torch tensors, so autograd can take its derivative, and our backward must agree."""
    rng = np.random.default_rng(31)
    inputs = case.draw(rng, (2, 4, 4, 6), 2, 3)
    if ties and case.name != "relu":  # at 0 autograd splits `where` as we do, but ReLU's 0 is asked for by itself
        inputs = (np.round(inputs[0]), *inputs[1:])
    there = mapped(tensor, inputs)
    y, _ = case.forward(*there)
    dy = np.asarray(rng.standard_normal(tuple(y.shape)))
    y.backward(torch.tensor(dy))

    found = case.gradients(dy, case.forward(*inputs)[1])
    wanted = {name: leaf.grad.numpy() for name, leaf in leaves(there) if leaf.grad is not None}
    compared = 0
    largest = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
    for name, gradient in leaves(found):
        off = np.linalg.norm(gradient - wanted[name])  # a norm of two numbers cancels nearly all, and leaves rounding
        assert off <= 1e-12 * np.linalg.norm(wanted[name]) + 1e-15 * largest, name
        compared += 1
    statistics = [name for name in wanted if name.startswith("2.")]  # autograd sees tensors, the pair sees constants
    assert len(statistics) % 2 == 0  # a mean and a variance of each norm
    assert compared == len(wanted) - len(statistics)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_batch_norm(training: bool):
    rng = np.random.default_rng(32)
    x, dy = 3 + 2 * rng.standard_normal((2, 4, 3, 5, 6)).reshape(2, 4, 3, 5, 6)
    ours, theirs = npattn.BatchNorm2d(3, dtype="float64"), torch.nn.BatchNorm2d(3).double()
    state = {"weight": rng.standard_normal(3), "bias": rng.standard_normal(3)}
    state |= {"running_mean": rng.standard_normal(3), "running_var": rng.uniform(1, 2, 3)}
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()}, strict=False)
    ours.train(training)
    theirs.train(training)
    for _ in range(3):
        x_there = tensor(x)
        theirs.zero_grad()
        y_there = theirs(x_there)
        y_there.backward(torch.tensor(dy))
        assert distance(ours(x), y_there.detach().numpy()) < 1e-12
        assert distance(ours.backward(dy), x_there.grad.numpy()) < 1e-12
        assert distance(ours.grads["weight"], theirs.weight.grad.numpy()) < 1e-12
        assert distance(ours.grads["bias"], theirs.bias.grad.numpy()) < 1e-12
    assert distance(ours.buffers["running_mean"], theirs.running_mean.numpy()) < 1e-12
    assert distance(ours.buffers["running_var"], theirs.running_var.numpy()) < 1e-12


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 6, 1, 3)], ids=str)
def test_group_norm(groups: int, shape: tuple[int, ...]):
    rng = np.random.default_rng(37)
    x, dy = 3 + 2 * rng.standard_normal((2, *shape))
    ours, theirs = GroupNorm(groups, 6, eps=1e-3, dtype="float64"), torch.nn.GroupNorm(groups, 6, eps=1e-3).double()
    assert {key: value.tolist() for key, value in ours.params.items()} == {"weight": [1] * 6, "bias": [0] * 6}
    state = {"weight": rng.standard_normal(6), "bias": rng.standard_normal(6)}
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    x_there = tensor(x)
    y_there = theirs(x_there)
    y_there.backward(torch.tensor(dy))
    assert distance(ours(x), y_there.detach().numpy()) < 1e-12
    assert distance(ours.backward(dy), x_there.grad.numpy()) < 1e-12
    assert distance(ours.grads["weight"], theirs.weight.grad.numpy()) < 1e-12
    assert distance(ours.grads["bias"], theirs.bias.grad.numpy()) < 1e-12


@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 1, 1, 1), (2, 4, 2, 3)], ids=str)
def test_conv2d(k: int, shape: tuple[int, ...]):
    rng = np.random.default_rng(33)
    x, w, b = rng.standard_normal(shape), rng.standard_normal((5, shape[1], k, k)), rng.standard_normal(5)
    y, cache = conv2d.forward(x, conv2d.Params(w, b))
    x_there, w_there, b_there = tensor(x), tensor(w), tensor(b)
    y_there = F.conv2d(x_there, w_there, b_there, padding=k // 2)
    dy = rng.standard_normal(y.shape)
    y_there.backward(torch.tensor(dy))
    dx, (dw, db) = conv2d.backward(dy, cache)
    for ours, theirs in ((y, y_there.detach()), (dx, x_there.grad), (dw, w_there.grad), (db, b_there.grad)):
        assert distance(ours, theirs.numpy()) < 1e-12


def test_cross_entropy():
    rng = np.random.default_rng(34)
    z, t = 50 * rng.standard_normal((6, 10)), rng.integers(0, 10, 6)
    value, cache = loss.forward(z, t)
    z_there = tensor(z)
    theirs = F.cross_entropy(z_there, torch.tensor(t))
    theirs.backward()
    assert abs(float(value) - theirs.item()) < 1e-12
    assert distance(loss.backward(np.ones(()), cache), z_there.grad.numpy()) < 1e-12


def test_nan_goes_where_pytorch_lets_it_go():
    """NaN through ReLU, sigmoid and the three maxima, forward and backward."""
    x = np.array([np.nan, np.inf, -np.inf, 1.0, -1.0, 0.0, np.nan, 2.0]).reshape(1, 2, 2, 2)
    pairs = [
        (relu.forward, relu.backward, F.relu),
        (sigmoid.forward, sigmoid.backward, torch.sigmoid),
        (
            global_max_pool.forward,
            global_max_pool.backward,
            lambda v: F.adaptive_max_pool2d(v, 1)[..., 0, 0],
        ),
        (channel_max.forward, channel_max.backward, lambda v: v.max(dim=1, keepdim=True).values),
        (max_pool_2x2.forward, max_pool_2x2.backward, lambda v: F.max_pool2d(v, 2)),
    ]
    for forward, backward, theirs in pairs:
        x_there = tensor(x)
        y_there = theirs(x_there)
        y, cache = forward(x)
        np.testing.assert_allclose(y, y_there.detach().numpy(), err_msg=forward.__name__)
        y_there.backward(torch.ones_like(y_there))
        np.testing.assert_allclose(backward(np.ones_like(y), cache), x_there.grad.numpy(), err_msg=backward.__name__)


@pytest.mark.parametrize(
    ("kernel", "options", "path"),
    [
        (3, {}, "fused"),
        (5, {"padding": 2, "stride": (1, 1)}, "fused"),
        (3, {"padding": 0}, "textbook"),
        (4, {"padding": (3, 2), "stride": (2, 1)}, "textbook"),
        ((7, 1), {"padding": (3, 0), "groups": 4}, "textbook"),
        (3, {"padding": 4, "dilation": 4, "bias": False}, "textbook"),
        (3, {"padding": 1, "groups": 2}, "textbook"),
    ],
)
def test_the_convolution_layer_as_pytorchs(kernel, options: dict, path: str):
    """With the same arguments: y, the gradients and the state_dict; and `path` is true."""
    theirs = torch.nn.Conv2d(4, 8, kernel, **{"padding": 1, **options}).double()
    ours = npattn.Conv2d(4, 8, kernel, dtype="float64", **options)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = np.random.default_rng(17).standard_normal((2, 4, 9, 6))
    x_there = tensor(x)
    y_there, y = theirs(x_there), ours(x)
    assert distance(y, y_there.detach().numpy()) < 1e-12
    dy = np.random.default_rng(18).standard_normal(y.shape)
    y_there.backward(torch.tensor(dy))
    assert distance(ours.backward(dy), x_there.grad.numpy()) < 1e-12
    for key, weight in theirs.named_parameters():
        assert distance(ours.grads[key], weight.grad.numpy()) < 1e-12, key
    assert ours.path == path


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (npattn.Linear(50, 40, rng=0), lambda: torch.nn.Linear(50, 40)),
        (npattn.Conv2d(8, 30, 5, rng=0), lambda: torch.nn.Conv2d(8, 30, 5)),
        (npattn.Conv2d(8, 64, (7, 1), groups=8, rng=0), lambda: torch.nn.Conv2d(8, 64, (7, 1), groups=8)),
        (npattn.SpatialAttention(7, rng=0), lambda: torch.nn.Conv2d(2, 1, 7, bias=False)),
    ],
    ids=["Linear", "Conv2d", "Conv2d, depthwise", "SpatialAttention"],
)
def test_initial_weights_have_pytorchs_distribution(ours: npattn.Layer, theirs):
    """Same bounds, and the two samples could be of one distribution (Kolmogorov–Smirnov, far from rejecting)."""
    from scipy.stats import ks_2samp

    torch.manual_seed(0)
    many = [theirs() for _ in range(20)]
    for key, value in zip(ours.params, ours.params.values(), strict=True):
        name = key.rpartition(".")[2]
        sample = np.concatenate([getattr(module, name).detach().numpy().ravel() for module in many])
        bound = float(np.abs(sample).max())
        assert float(np.abs(value).max()) <= bound * 1.05
        assert ks_2samp(value.ravel(), sample).pvalue > 1e-3
