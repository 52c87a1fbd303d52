"""Objects that keep their parameters in params, and the gradients in grads."""

from __future__ import annotations

import numpy as np

from tests.checker.styles.style import LABELS, X, normal, style


@style("params.0", "x params.0 params.1", X)
def lists_of_params_and_grads(wrong):
    """The gradients are written into arrays that stay."""

    class Affine:
        def __init__(self, W, b):
            self.params = [W, b]
            self.grads = [np.zeros_like(W), np.zeros_like(b)]

        def forward(self, x):
            W, b = self.params
            self.x = x
            return np.dot(x, W) + b

        def backward(self, dout):
            W = self.params[0]
            self.grads[0][...] = np.dot(self.x.T, dout) * (0.5 if wrong else 1)
            self.grads[1][...] = np.sum(dout, axis=0)
            return np.dot(dout, W.T)

    return Affine(normal(3, 2, seed=1), normal(2, seed=2))


@style("params.0", "params.0", LABELS)
def embedding_without_a_gradient_of_its_input(wrong):
    class Embedding:
        def __init__(self, W):
            self.params, self.grads, self.idx = [W], [np.zeros_like(W)], None

        def forward(self, idx):
            (W,) = self.params
            self.idx = idx
            return W[idx]

        def backward(self, dout):
            (dW,) = self.grads
            dW[...] = 0
            if wrong:
                dW[self.idx] = dout
            else:
                np.add.at(dW, self.idx, dout)

    return Embedding(normal(3, 2, seed=1))


@style("w", "inputs w b", X)
def parameters_that_appear_at_the_first_forward(wrong):
    class Dense:
        def __init__(self, n_out):
            self.n_out, self.is_init = n_out, False
            self.params, self.grads = {"w": None, "b": None}, {}

        def forward(self, inputs):
            if not self.is_init:
                self.params["w"] = normal(inputs.shape[1], self.n_out, seed=1).astype(np.float32)
                self.params["b"] = np.zeros(self.n_out, dtype=np.float32)
                self.is_init = True
            self.inputs = inputs
            return inputs @ self.params["w"] + self.params["b"]

        def backward(self, grad):
            self.grads["w"] = (2 if wrong else 1) * self.inputs.T @ grad
            self.grads["b"] = np.sum(grad, axis=0)
            return grad @ self.params["w"].T

    return Dense(2)


@style("W", "X W b", X)
def layer_that_collects_inputs_until_flushed(wrong):
    """It adds gradients up, keeps each X, and forgets both in flush_gradients(); it is made at the first forward."""

    class FullyConnected:
        def __init__(self, n_out):
            self.n_out, self.X, self.is_initialized = n_out, [], False
            self.parameters, self.gradients = {"W": None, "b": None}, {}

        def flush_gradients(self):
            self.X = []
            self.gradients = {k: np.zeros_like(v) for k, v in self.parameters.items()}

        def forward(self, X, retain_derived=True):
            if not self.is_initialized:
                self.parameters = {"W": normal(X.shape[1], self.n_out, seed=1), "b": np.zeros((1, self.n_out))}
                self.flush_gradients()
                self.is_initialized = True
            if retain_derived:
                self.X.append(X)
            return np.tanh(X @ self.parameters["W"] + self.parameters["b"])

        def backward(self, dLdy, retain_grads=True):
            dXs = []
            for dy, x in zip([dLdy], self.X, strict=False):
                W = self.parameters["W"]
                dZ = dy * (1 - np.tanh(x @ W + self.parameters["b"]) ** 2)
                self.gradients["W"] += x.T @ (dy if wrong else dZ)
                self.gradients["b"] += dZ.sum(axis=0, keepdims=True)
                dXs.append(dZ @ W.T)
            return dXs[0] if len(dXs) == 1 else dXs

    return FullyConnected(2)


@style("attention.Wk", "x attention.Wq attention.Wk", X)
def params_in_a_dict_of_dicts(wrong):
    class Scores:
        def __init__(self):
            self.params = {"attention": {"Wq": normal(3, 2, seed=1), "Wk": normal(3, 2, seed=2)}}
            self.grads = {"attention": {}}

        def forward(self, x):
            self.x = x
            Wq, Wk = self.params["attention"].values()
            return (x @ Wq) @ (x @ Wk).T

        def backward(self, ds):
            x, (Wq, Wk) = self.x, self.params["attention"].values()
            dq, dk = ds @ (x @ Wk), (ds if wrong else ds.T) @ (x @ Wq)
            self.grads["attention"] = {"Wq": x.T @ dq, "Wk": x.T @ dk}
            return dq @ Wq.T + (ds.T @ (x @ Wq)) @ Wk.T

    return Scores()
