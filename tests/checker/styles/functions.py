"""Functions with and without a cache, in a module, with a context."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from tests.checker.styles.style import X, normal, style


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
