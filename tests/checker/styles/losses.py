"""Losses, which come with their gradient, and networks with a loss."""

from __future__ import annotations

import numpy as np

from tests.checker.styles.style import LABELS, ONE_HOT, X, normal, softmax, style


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
