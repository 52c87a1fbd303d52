"""Several inputs, several outputs, randomness, steps that backward takes, names of its own."""

from __future__ import annotations

import numpy as np

from npattn import gradcheck
from tests.checker.styles.style import IMAGE, X, normal, style


@style("w", "x w", X, (X > 0).astype(float), normal(3, seed=1))
def fewer_gradients_than_inputs(wrong):
    """x, mask, w come in; dx and dw come back."""

    class Masked:
        def forward(self, x, mask, w):
            self.kept = x, mask, w
            return x * mask * w

        def backward(self, dy):
            x, mask, w = self.kept
            return dy * mask * w, (dy * x * (1 if wrong else mask)).sum(axis=0)

    return Masked()


@style("Wh", "xs h Wx Wh", normal(2, 4, 3), normal(2, 5, seed=1))
def two_outputs_and_two_dy(wrong):
    class TimeRNN:
        def __init__(self):
            self.Wx, self.Wh = normal(3, 5, seed=2), 0.5 * normal(5, 5, seed=3)

        def forward(self, xs, h):
            self.xs, self.hs = xs, [h]
            for t in range(xs.shape[1]):
                self.hs.append(np.tanh(xs[:, t] @ self.Wx + self.hs[-1] @ self.Wh))
            return np.stack(self.hs[1:], axis=1), self.hs[-1] * 1.0

        def backward(self, dhs, dh):
            self.dWx, self.dWh, dxs = np.zeros_like(self.Wx), np.zeros_like(self.Wh), np.zeros_like(self.xs)
            for t in reversed(range(self.xs.shape[1])):
                dz = (dh + dhs[:, t]) * (1 - self.hs[t + 1] ** 2)
                self.dWx += self.xs[:, t].T @ dz
                self.dWh += self.hs[t + 1 if wrong else t].T @ dz
                dxs[:, t], dh = dz @ self.Wx.T, dz @ self.Wh.T
            return dxs, dh

    return TimeRNN()


@style("x", "x", IMAGE, seed_forward=0)
def dropout_that_draws_its_mask(wrong):
    class Dropout:
        def forward(self, x, train=True):
            self.mask = np.random.rand(*x.shape) > 0.5  # noqa: NPY002 - the way of most
            return x * self.mask

        def backward(self, dout):
            return dout * (1 if wrong else self.mask)

    return Dropout()


@style("x", "x", IMAGE, seed_forward=0)
def dropout_with_a_generator_of_its_own(wrong):
    class Dropout:
        def __init__(self):
            self.rng = np.random.default_rng(7)

        def forward(self, x):
            self.mask = (self.rng.random(x.shape) > 0.5) / 0.5
            return x * self.mask

        def backward(self, dout):
            return dout * self.mask * (0.5 if wrong else 1)

    return Dropout()


@style("weights", "input weights bias", X.T)
def backward_that_takes_the_step(wrong):
    class Dense:
        def __init__(self):
            self.weights, self.bias = normal(2, 3, seed=1), normal(2, 1, seed=2)

        def forward(self, input):
            self.input = input
            return np.dot(self.weights, input) + self.bias

        def backward(self, output_gradient, learning_rate):
            input_gradient = np.dot(self.weights.T, output_gradient)
            self.weights -= learning_rate * np.dot(output_gradient, self.input.T) / (4 if wrong else 1)
            self.bias -= learning_rate * output_gradient.sum(axis=1, keepdims=True)
            return input_gradient

    return Dense()


@style("x", "x layers.0.W layers.1.W", X)
def network_that_takes_the_step(wrong):
    """The gradient of the input must not be taken from weights that have moved already."""

    class Dense:
        def __init__(self, W):
            self.W, self.dW = W, None

        def forward(self, x):
            self.x = x
            return np.tanh(x @ self.W)

        def backward(self, dy, lr=0.01):
            dz = dy * (1 - np.tanh(self.x @ self.W) ** 2)
            W = self.W
            self.dW = self.x.T @ dz
            self.W = self.W - lr * self.dW
            return dz @ (self.W if wrong and len(W) == 3 else W).T

    class Network:
        def __init__(self):
            self.layers = [Dense(normal(3, 4, seed=1)), Dense(normal(4, 2, seed=2))]

        def forward(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def backward(self, dy, lr=0.01):
            for layer in reversed(self.layers):
                dy = layer.backward(dy, lr)
            return dy

    return Network()


@style("theta", "x theta", X)
def names_that_must_be_said(wrong):
    class Odd:
        def __init__(self):
            self.store = {"theta": normal(3, seed=1)}
            self.slopes = {}

        def run(self, x):
            self.seen = x
            return x * self.store["theta"]

        def unrun(self, g):
            self.slopes["theta"] = (self.seen * g).sum(axis=None if wrong else 0) * np.ones(3)
            return g * self.store["theta"]

    return gradcheck.wrap(Odd(), forward="run", backward="unrun", params=lambda o: o.store, grads=lambda o: o.slopes)


@style("W", "x W", X)
def bprop_and_fprop(wrong):
    class Layer:
        def __init__(self):
            self.W, self.dW = normal(3, 2, seed=1), np.zeros((3, 2))

        def fprop(self, x):
            self.x = x
            return x @ self.W

        def bprop(self, dy):
            np.dot(self.x.T, dy if not wrong else dy**2, out=self.dW)
            return dy @ self.W.T

    return Layer()
