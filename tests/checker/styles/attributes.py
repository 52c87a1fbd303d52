"""Objects that keep W and dW, and leave their results in attributes."""

from __future__ import annotations

import numpy as np

from tests.checker.styles.style import X, normal, style


@style("b", "x W b", X)
def attributes_beside_their_gradients(wrong):
    class Affine:
        def __init__(self, W, b):
            self.W, self.b = W, b
            self.x, self.dW, self.db = None, None, None

        def forward(self, x):
            self.x = x
            return np.dot(x, self.W) + self.b

        def backward(self, dout):
            self.dW = np.dot(self.x.T, dout)
            self.db = np.mean(dout, axis=0) if wrong else np.sum(dout, axis=0)
            return np.dot(dout, self.W.T)

    return Affine(normal(3, 2, seed=1), normal(2, seed=2))


@style("weights", "inputs weights biases", X)
def results_in_attributes(wrong):
    """forward leaves .output, backward leaves .dinputs, and both return nothing."""

    class Dense:
        def __init__(self, n_inputs, n_neurons):
            self.weights = 0.1 * normal(n_inputs, n_neurons, seed=1)
            self.biases = np.zeros((1, n_neurons))

        def forward(self, inputs):
            self.inputs = inputs
            self.output = np.dot(inputs, self.weights) + self.biases

        def backward(self, dvalues):
            self.dweights = np.dot(self.inputs.T, dvalues) * (-1 if wrong else 1)
            self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
            self.dinputs = np.dot(dvalues, self.weights.T)

    return Dense(3, 2)


@style("inputs", "inputs", X)
def activation_that_leaves_its_results(wrong):
    class ReLU:
        def forward(self, inputs):
            self.inputs = inputs
            self.output = np.maximum(0, inputs)

        def backward(self, dvalues):
            self.dinputs = dvalues.copy()
            if not wrong:
                self.dinputs[self.inputs <= 0] = 0

    return ReLU()


@style("gamma", "x gamma beta", X)
def batch_norm_with_running_statistics(wrong):
    class BatchNorm:
        def __init__(self, n):
            self.gamma, self.beta = normal(n, seed=1), normal(n, seed=2)
            self.running_mean, self.running_var = np.zeros(n), np.ones(n)
            self.dgamma = self.dbeta = None

        def forward(self, x, train_flg=True):
            mean, var = x.mean(axis=0), x.var(axis=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.std = np.sqrt(var + 1e-7)
            self.xn = (x - mean) / self.std
            return self.gamma * self.xn + self.beta

        def backward(self, dout):
            self.dbeta = dout.sum(axis=0)
            self.dgamma = dout.sum(axis=0) if wrong else np.sum(self.xn * dout, axis=0)
            d = self.gamma * dout
            return (d - d.mean(axis=0) - self.xn * (d * self.xn).mean(axis=0)) / self.std

    return BatchNorm(3)


@style("_bias", "x _weight _bias", X)
def private_names_and_slots(wrong):
    class Linear:
        __slots__ = ("_bias", "_grad_bias", "_grad_weight", "_seen", "_weight")

        def __init__(self):
            self._weight, self._bias = normal(3, 2, seed=1), normal(2, seed=2)
            self._grad_weight, self._grad_bias = np.zeros((3, 2)), np.zeros(2)

        def __call__(self, x):
            self._seen = x
            return x @ self._weight + self._bias

        def backward(self, grad):
            self._grad_weight = self._seen.T @ grad
            self._grad_bias = grad.sum(0) * (0 if wrong else 1)
            return grad @ self._weight.T

    return Linear()
