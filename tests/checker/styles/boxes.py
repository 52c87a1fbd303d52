"""Objects that hold a parameter and its gradient, and autograds made of such."""

from __future__ import annotations

import weakref

import numpy as np

from npattn import gradcheck
from tests.checker.styles.style import X, normal, style


class Parameter:
    def __init__(self, data):
        self.data, self.grad = data, np.zeros_like(data)


@style("bias", "x weight bias", X)
def parameter_objects_whose_gradients_add_up(wrong):
    class Linear:
        def __init__(self):
            self.weight, self.bias = Parameter(normal(3, 2, seed=1)), Parameter(normal(2, seed=2))

        def parameters(self):
            return [self.weight, self.bias]

        def zero_grad(self):
            for p in self.parameters():
                p.grad = np.zeros_like(p.data)

        def forward(self, x):
            self.x = x
            return x @ self.weight.data + self.bias.data

        def backward(self, dy):
            self.weight.grad += self.x.T @ dy
            self.bias.grad += dy.sum(axis=0) * (3 if wrong else 1)
            return dy @ self.weight.data.T

    return Linear()


@style("layers.1.W", "x layers.0.W layers.1.W", X)
def layers_in_a_list(wrong):
    class Dense:
        def __init__(self, W, factor=1.0):
            self.W, self.factor = W, factor

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dy):
            self.dW = self.factor * self.x.T @ dy
            return dy @ self.W.T

    class Network:
        def __init__(self):
            self.layers = [Dense(normal(3, 4, seed=1)), Dense(normal(4, 2, seed=2), 0.9 if wrong else 1.0)]

        def forward(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def backward(self, dy):
            for layer in reversed(self.layers):
                dy = layer.backward(dy)
            return dy

    return Network()


class Variable:
    def __init__(self, data):
        self.data, self.grad, self.creator = data, None, None

    def backward(self):
        gradients = self.creator.backward(self.grad)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        for one, gradient in zip(self.creator.inputs, gradients, strict=True):
            one.grad = gradient if one.grad is None else one.grad + gradient


class Function:
    def __call__(self, *inputs):
        self.inputs = [one if isinstance(one, Variable) else Variable(one) for one in inputs]
        y = Variable(self.forward(*[one.data for one in self.inputs]))
        y.creator, self.outputs = self, [weakref.ref(y)]
        return y


@style("x0", "x0 x1", X, normal(4, 3, seed=1))
def function_that_is_called(wrong):
    """`f(x)` keeps the inputs; `f.forward(x)` alone does not."""

    class Mul(Function):
        def forward(self, x0, x1):
            return x0 * x1

        def backward(self, gy):
            x0, x1 = self.inputs[0].data, self.inputs[1].data
            return gy * (x0 if wrong else x1), gy * x0

    return Mul()


@style("x", "x", X)
def function_that_looks_at_its_output(wrong):
    class Exp(Function):
        def forward(self, x):
            return np.exp(x)

        def backward(self, gy):
            return gy * (self.inputs if wrong else [self.outputs[0]()])[0].data

    return Exp()


@style("W", "x W", X)
def tape_with_parameters(wrong):
    class Product(Function):
        def forward(self, x, W):
            return x @ W

        def backward(self, gy):
            x, W = (one.data for one in self.inputs)
            return gy @ W.T, x.T @ (np.abs(gy) if wrong else gy)

    class Linear:
        def __init__(self):
            self.W = Variable(normal(3, 2, seed=1))

        def __call__(self, x):
            return Product()(x, self.W)

    return gradcheck.wrap(Linear(), tensor=Variable)


@style("x", "x", X)
def tape_of_somebodys_own(wrong):
    class Exp(Function):
        def forward(self, x):
            return np.exp(x)

        def backward(self, gy):
            return gy * (self.inputs[0].data if wrong else np.exp(self.inputs[0].data))

    return gradcheck.wrap(lambda x: Exp()(x), tensor=Variable, name="exp")


@style("x", "x", X)
def tape_that_starts_from_one(wrong):
    class Value:
        def __init__(self, data, undo=lambda dy: None):
            self.data, self.grad, self.undo = data, np.zeros_like(data), undo

        def __mul__(self, other):
            def undo(dy):
                self.grad = self.grad + dy * other.data
                other.grad = other.grad + dy * self.data
                self.undo(self.grad)

            return Value(self.data * other.data, undo)

        def sin(self):
            def undo(dy):
                self.grad = self.grad + dy * (1 if wrong else np.cos(self.data))

            return Value(np.sin(self.data), undo)

        def backward(self):
            self.grad = np.ones_like(self.data)
            self.undo(self.grad)

    return gradcheck.wrap(lambda x: x.sin(), tensor=Value, name="sin")
