"""PyTorch's and JAX's own backwards as targets: differences on their forward against what their autograd gives."""

from __future__ import annotations

import numpy as np
import pytest

from npattn import GradcheckError, gradcheck

X = np.random.default_rng(0).standard_normal((4, 3))
W = np.random.default_rng(1).standard_normal((3, 2))


def torch_function(torch, wrong):
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, power):
            ctx.save_for_backward(x, w)
            ctx.power = power
            return x**power @ w

        @staticmethod
        def backward(ctx, dy):
            x, w = ctx.saved_tensors
            slope = ctx.power * x ** (ctx.power - 1)
            return dy @ w.T * (1 if wrong else slope), (x**ctx.power).T @ dy, None

    return Scaled


def test_a_torch_function():
    torch = pytest.importorskip("torch")
    report = gradcheck(torch_function(torch, False), X, W, 3)
    assert [row.name for row in report.rows] == ["x", "w"]
    wrong = gradcheck(torch_function(torch, True), X.astype("float32"), torch.from_numpy(W), 3, raise_exception=False)
    assert [row.name for row in wrong.rows if row.wrong] == ["x"]
    through_apply = gradcheck(torch_function(torch, False).apply, torch.from_numpy(X), torch.from_numpy(W), 2)
    assert [row.verdict for row in through_apply.rows] == ["ok", "ok"]


def test_a_torch_function_that_sets_up_its_context_apart():
    torch = pytest.importorskip("torch")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(number):
            return number**2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, dy):
            return 2 * ctx.saved_tensors[0] * dy

    assert [row.name for row in gradcheck(Square, X).rows] == ["number"]


def test_a_torch_module_with_a_wrong_function_inside():
    torch = pytest.importorskip("torch")

    class Gate(torch.nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.w, self.function = torch.nn.Parameter(torch.from_numpy(W).float()), torch_function(torch, wrong)
            self.norm = torch.nn.BatchNorm1d(2)
            self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
            self.unused = torch.nn.Parameter(torch.ones(2))

        def forward(self, x, labels):
            h = self.norm(self.function.apply(x, self.w, 2)) * self.frozen
            return torch.log_softmax(h, 1)[torch.arange(len(h)), labels], h.sum()

    labels, module = np.array([0, 1, 1, 0]), Gate(False)
    report = gradcheck(module, X, labels, raise_exception=False)
    assert not report.wrong, str(report)
    assert [row.name for row in report.rows] == ["x", "w", "unused", "norm.weight", "norm.bias"]
    assert module.w.dtype == torch.float32
    assert torch.equal(module.norm.running_mean, torch.zeros(2))
    wrong = gradcheck(Gate(True), X, labels, raise_exception=False)
    assert [row.name for row in wrong.rows if row.wrong] == ["x"]


def test_dropout_of_torch_with_a_seed():
    torch = pytest.importorskip("torch")
    assert not gradcheck(torch.nn.Dropout(), X, seed_forward=3, raise_exception=False).wrong


def test_a_function_of_torch_tensors():
    torch = pytest.importorskip("torch")
    assert gradcheck(lambda x, w: torch.tanh(x @ w), torch.from_numpy(X), W)


def test_a_jax_custom_vjp():
    jax = pytest.importorskip("jax", reason="JAX is not installed")

    def made(factor):
        @jax.custom_vjp
        def product(x, w):
            return jax.numpy.sin(x) @ w

        def forward(x, w):
            return product(x, w), (x, w)

        def backward(kept, dy):
            x, w = kept
            return factor * (dy @ w.T) * jax.numpy.cos(x), jax.numpy.sin(x).T @ dy

        product.defvjp(forward, backward)
        return product

    assert [row.name for row in gradcheck(made(1), X, W).rows] == ["x", "w"]
    with pytest.raises(GradcheckError, match="x: 12 of 12 entries are wrong"):
        gradcheck(made(2), X, W)
    assert gradcheck(jax.jit(lambda x: x**2), jax.numpy.asarray(X))
