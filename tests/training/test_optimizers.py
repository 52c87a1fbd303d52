"""The public optimisers and the loss as an object: PyTorch's numbers, and a loop of one's own."""

from __future__ import annotations

import numpy as np
import pytest

import npattn

rng = np.random.default_rng(7)
VALUES = {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal(3)}
GRADS = [{key: rng.standard_normal(value.shape) for key, value in VALUES.items()} for _ in range(5)]


def ran(optimizer) -> dict[str, np.ndarray]:
    for grads in GRADS:
        optimizer.step(grads)
    return dict(optimizer.params)


def torch_ran(make) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    params = {key: torch.tensor(value, requires_grad=True) for key, value in VALUES.items()}
    optimizer = make(torch.optim, params)
    for grads in GRADS:
        for key, parameter in params.items():
            parameter.grad = torch.tensor(grads[key])
        optimizer.step()
    return {key: parameter.detach().numpy() for key, parameter in params.items()}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_pytorchs(momentum: float, decay: float):
    found = ran(npattn.SGD(dict(VALUES), lr=0.1, momentum=momentum, decay=decay))
    wanted = torch_ran(lambda optim, params: optim.SGD(params.values(), lr=0.1, momentum=momentum, weight_decay=decay))
    for key in VALUES:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-13)
        assert not np.allclose(found[key], VALUES[key])


def test_adamw_is_pytorchs_with_decay_of_weights_only():
    found = ran(npattn.AdamW(dict(VALUES), lr=0.01, decay=0.1))

    def make(optim, params):
        groups = [{"params": [params["w"]], "weight_decay": 0.1}, {"params": [params["b"]], "weight_decay": 0.0}]
        return optim.AdamW(groups, lr=0.01)

    wanted = torch_ran(make)
    for key in VALUES:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-12)


@pytest.mark.parametrize(
    "make", [lambda p: npattn.SGD(p, lr=0.3, momentum=0.5), lambda p: npattn.AdamW(p, lr=0.02)], ids=["SGD", "AdamW"]
)
def test_a_loop_of_ones_own(make):
    net = npattn.Sequential(
        conv=npattn.Conv2d(1, 4, rng=0),
        relu=npattn.ReLU(),
        attention=npattn.CBAM(4, ratio=2, kernel_size=3, rng=1),
        pool=npattn.GlobalAvgPool(),
        head=npattn.Linear(4, 2, rng=2),
    )
    own = np.random.default_rng(0)
    t = np.arange(16) % 2
    x = own.standard_normal((16, 1, 6, 6)).astype(np.float32) * (1 + t)[:, None, None, None].astype(np.float32)
    loss, optimizer, losses = npattn.CrossEntropy(), make(net.parameters()), []
    for _ in range(25):
        losses.append(float(loss(net(x), t)))
        net.backward(loss.backward())
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05


def test_parameters_are_a_view():
    layer = npattn.Linear(2, 3, rng=0)
    parameters = layer.parameters()
    assert list(parameters) == list(layer.params)
    assert len(parameters) == 2
    parameters["bias"] = np.ones(3, np.float32)
    assert layer.params["bias"].sum() == 3
    with pytest.raises(KeyError):
        parameters["other"] = 1
    with pytest.raises(TypeError, match="bias: a layer's names are fixed"):
        del parameters["bias"]
    assert repr(parameters) == "weight (3, 2)\nbias (3,)"
    layer.backward(np.ones_like(layer(np.ones((1, 2), np.float32))))
    assert parameters.grads is layer.grads


def test_what_is_refused():
    layer = npattn.Linear(2, 3)
    with pytest.raises(RuntimeError, match="step before backward"):
        npattn.SGD(layer.parameters(), lr=0.1).step()
    with pytest.raises(TypeError, match="grads: expected a dict of gradients, got None"):
        npattn.SGD(layer.params, lr=0.1).step()
    with pytest.raises(TypeError, match=r"params: expected a dict of arrays, or a layer's parameters\(\), got Linear"):
        npattn.SGD(layer, lr=0.1)
    with pytest.raises(ValueError, match="momentum: expected a finite number from 0 to 1"):
        npattn.SGD(layer.params, lr=0.1, momentum=1)
    with pytest.raises(ValueError, match="lr: expected a finite number"):
        npattn.SGD(layer.params, lr=float("nan"))


def test_the_loss_as_an_object():
    loss = npattn.CrossEntropy()
    with pytest.raises(RuntimeError, match="CrossEntropy: backward before forward"):
        loss.backward()
    z, t = np.random.default_rng(1).standard_normal((4, 3)), np.array([0, 2, 1, 1])
    value = loss(z, t)
    dz = loss.backward()
    np.testing.assert_array_equal(2 * dz, loss.backward(np.asarray(2.0)))
    step = 1e-6 * np.random.default_rng(2).standard_normal(z.shape)
    difference = (float(loss(z + step, t)) - float(loss(z - step, t))) / 2
    np.testing.assert_allclose(np.sum(dz * step), difference, rtol=1e-7)
    assert value.shape == ()
    assert repr(loss) == "CrossEntropy()"
