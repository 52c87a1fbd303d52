"""Layers as other people write them: each is accepted as it is, right and with one mistake. The code is ours.

A style is a function that makes the target, right or wrong, and the inputs. `at` is the tensor that the mistake is in.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npattn import gradcheck


class Style(NamedTuple):
    """One way to write a layer."""

    name: str
    make: Callable[[bool], Any]  # True for the wrong one
    inputs: tuple[Any, ...]
    at: str  # where the wrong one is wrong
    tensors: tuple[str, ...]  # what is checked
    options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return self.name


STYLES: list[Style] = []


def style(at: str, tensors: str, *inputs: Any, **options: Any) -> Callable[..., Any]:
    """Put what makes the target into the list."""

    def keep(make: Callable[[bool], Any]) -> Callable[[bool], Any]:
        STYLES.append(Style(make.__name__, make, inputs, at, tuple(tensors.split()), options))
        return make

    return keep


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


X = normal(4, 3)
IMAGE = normal(2, 3, 4, 4)
LABELS = np.array([0, 2, 1, 2])
ONE_HOT = np.eye(3)[LABELS]


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# Functions with a cache


@style("w", "x w b", X, normal(3, 2, seed=1), normal(2, seed=2))
def pair_with_cache(wrong):
    """out, cache = affine_forward(x, w, b); dx, dw, db = affine_backward(dout, cache)."""

    def affine_forward(x, w, b):
        return x @ w + b, (x, w)

    def affine_backward(dout, cache):
        x, w = cache
        return dout @ w.T, x.T @ dout / (len(x) if wrong else 1), dout.sum(axis=0)

    return affine_forward, affine_backward


RUNNING = {"mode": "train", "eps": 1e-5, "momentum": 0.9, "running_mean": np.zeros(3), "running_var": np.ones(3)}


@style("gamma", "x gamma beta", X, normal(3, seed=1), normal(3, seed=2), RUNNING)
def pair_with_statistics(wrong):
    """A dict of settings and running statistics as the last input; three gradients for four inputs."""

    def batchnorm_forward(x, gamma, beta, bn_param):
        mean, var = x.mean(axis=0), x.var(axis=0)
        bn_param["running_mean"] = 0.9 * bn_param["running_mean"] + 0.1 * mean
        std = np.sqrt(var + bn_param["eps"])
        xhat = (x - mean) / std
        return gamma * xhat + beta, (xhat, std, gamma)

    def batchnorm_backward(dout, cache):
        xhat, std, gamma = cache
        dxhat = dout * gamma
        dx = (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0)) / std
        return dx, (dout if wrong else dout * xhat).sum(axis=0), dout.sum(axis=0)

    return batchnorm_forward, batchnorm_backward


@style("prev_c", "x prev_h prev_c Wx Wh", X, normal(4, 2, seed=1), normal(4, 2, seed=2), normal(3, 8, seed=3),
       normal(2, 8, seed=4))  # fmt: skip
def pair_with_two_outputs(wrong):
    """next_h, next_c, cache = step_forward(…); … = step_backward(dnext_h, dnext_c, cache)."""

    def step_forward(x, prev_h, prev_c, Wx, Wh):
        a = x @ Wx + prev_h @ Wh
        i, f, o = (1 / (1 + np.exp(-a[:, k : k + 2])) for k in (0, 2, 4))
        g = np.tanh(a[:, 6:])
        next_c = f * prev_c + i * g
        next_h = o * np.tanh(next_c)
        return next_h, next_c, (x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c)

    def step_backward(dnext_h, dnext_c, cache):
        x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c = cache
        t = np.tanh(next_c)
        dc = dnext_h * o * (1 - t**2) + dnext_c
        parts = dc * g * i * (1 - i), dc * prev_c * f * (1 - f), dnext_h * t * o * (1 - o), dc * i * (1 - g**2)
        da = np.concatenate(parts, axis=1)
        dprev_c = (dc - dnext_c if wrong else dc) * f
        return da @ Wx.T, da @ Wh.T, dprev_c, x.T @ da, prev_h.T @ da

    return step_forward, step_backward


@style("W", "A_prev W b", X, normal(3, 2, seed=1), normal(1, 2, seed=2), "tanh")
def pair_with_a_setting(wrong):
    """backward(dA, cache, activation): the last argument is one of forward's."""

    def activation_forward(A_prev, W, b, activation):
        Z = A_prev @ W + b
        return {"tanh": np.tanh, "exp": np.exp}[activation](Z), (A_prev, W, Z)

    def activation_backward(dA, cache, activation):
        A_prev, W, Z = cache
        dZ = dA * (1 - np.tanh(Z) ** 2) if activation == "tanh" else dA * np.exp(Z)
        return dZ @ W.T, A_prev.T @ (dA if wrong else dZ), dZ.sum(axis=0, keepdims=True)

    return activation_forward, activation_backward


@style("x", "x", X)
def pair_without_cache(wrong):
    """relu(x), relu_backward(dout, x): backward takes the input again."""

    def relu(x):
        return np.maximum(x, 0)

    def relu_backward(dout, x):
        return dout * (x < 0 if wrong else x > 0)

    return relu, relu_backward


@style("x", "x", X)
def pair_from_the_output(wrong):
    """tanh_backward(y, grad): what it takes is y, not x."""

    def tanh(x):
        return np.tanh(x)

    def tanh_backward(y, grad):
        return grad * (1 - y if wrong else 1 - y**2)

    return tanh, tanh_backward


@style(
    "params.mine.b", "x params.mine.W params.mine.b", X, {"mine": {"W": normal(3, 2, seed=1), "b": normal(2, seed=2)}}
)
def pair_with_parameters_in_a_dict(wrong):
    """The parameters are a dict of dicts, and so are their gradients."""

    def forward(x, params):
        return np.tanh(x @ params["mine"]["W"] + params["mine"]["b"]), (x, params)

    def backward(dy, cache):
        x, params = cache
        W, b = params["mine"].values()
        dz = dy * (1 - np.tanh(x @ W + b) ** 2)
        return dz @ W.T, {"mine": {"W": x.T @ dz, "b": dz.sum(0) * (2 if wrong else 1)}}

    return forward, backward


@style("x", "x", X)
def module_of_two_functions(wrong):
    module = ModuleType("cube")
    module.forward = lambda x: (x**3, x)
    module.backward = lambda dy, x: dy * (2 if wrong else 3) * x**2
    return module


@style("a", "a b", X, normal(3, 2, seed=1))
def static_functions_with_a_context(wrong):
    class MatMul:
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        def backward(ctx, grad_output):
            a, b = ctx.saved_tensors
            return grad_output @ (-b.T if wrong else b.T), a.T @ grad_output

    return MatMul


# Losses


@style("x", "x", X, LABELS)
def loss_with_its_gradient(wrong):
    """loss, dx = softmax_loss(x, y)."""

    def softmax_loss(x, y):
        p = softmax(x)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        dx = p.copy()
        dx[np.arange(len(y)), y] -= 1
        return loss, dx if wrong else dx / len(y)

    return softmax_loss


@style("W2", "W1 W2", X, LABELS)
def network_with_a_loss(wrong):
    """loss, grads = net.loss(X, y), with the parameters in net.params."""

    class TwoLayers:
        def __init__(self):
            self.params = {"W1": normal(3, 5, seed=1), "W2": normal(5, 3, seed=2)}

        def loss(self, X, y):
            W1, W2 = self.params["W1"], self.params["W2"]
            h = np.maximum(X @ W1, 0)
            p = softmax(h @ W2)
            dz = (p - np.eye(3)[y]) / len(y)
            grads = {"W2": (h + 0.1 if wrong else h).T @ dz, "W1": X.T @ (dz @ W2.T * (h > 0))}
            return -np.log(p[np.arange(len(y)), y]).mean(), grads

    return TwoLayers().loss


@style("W1", "W1 W2", X, ONE_HOT, constants=["x", "t"])
def network_with_a_loss_and_its_gradient(wrong):
    """loss = net.loss(x, t); grads = net.gradient(x, t)."""

    class TwoLayers:
        def __init__(self):
            self.params = {"W1": normal(3, 5, seed=1), "W2": normal(5, 3, seed=2)}

        def loss(self, x, t):
            h = np.tanh(x @ self.params["W1"])
            return -np.sum(t * np.log(softmax(h @ self.params["W2"]))) / len(x)

        def gradient(self, x, t):
            h = np.tanh(x @ self.params["W1"])
            dz = (softmax(h @ self.params["W2"]) - t) / len(x)
            da = dz @ self.params["W2"].T * (1 if wrong else 1 - h**2)
            return {"W1": x.T @ da, "W2": h.T @ dz}

    return TwoLayers()


@style("x", "x", X, ONE_HOT, constants="t")
def loss_with_one_hot_labels(wrong):
    """backward(dout=1), which leaves dout aside; the labels are floats, and are constants."""

    class SoftmaxWithLoss:
        def forward(self, x, t):
            self.t, self.y = t, softmax(x)
            return -np.sum(t * np.log(self.y)) / len(t)

        def backward(self, dout=1):
            return (self.y - (0 if wrong else self.t)) / len(self.t)

    return SoftmaxWithLoss()


@style("pred", "pred", X, ONE_HOT, wrt="pred")
def loss_whose_backward_takes_nothing(wrong):
    class MSE:
        def __call__(self, pred, target):
            self.diff = pred - target
            return np.mean(self.diff**2)

        def backward(self):
            return (1 if wrong else 2) * self.diff / self.diff.size

    return MSE()


# Objects that keep W and dW


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


# Objects with params and grads


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


# Objects that hold Parameter(data, grad)


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


# Several inputs, several outputs, randomness, other names


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
