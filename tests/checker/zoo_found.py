"""Wrong backwards of the kinds that published code has, and that were planted to try the checker. In our own words.

Recurrent steps, attention, norms, embeddings, windows that overlap, slopes. What hangs on dead units, on ties or on
what an object keeps is in zoo_states.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.support.mistakes import mistake


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


# Towards 0 it explodes: no rounding measured there may hide what is wrong here


def exp_of_the_inverse(x):
    return np.exp(1 / x), x


def near_zero(rng):
    return (rng.permutation([0.2, 0.3, 0.45]),)


@mistake(exp_of_the_inverse, near_zero, "x", "wrong sign")
def exploding_with_the_wrong_sign(dy, x):
    return dy * np.exp(1 / x) / x**2


@mistake(exp_of_the_inverse, near_zero, "x", "a constant factor of 100")
def exploding_a_hundred_times_too_large(dy, x):
    return -100 * dy * np.exp(1 / x) / x**2


@mistake(lambda x: (x**-8.0, x), near_zero, "x", "a constant factor of 8")
def power_law_with_the_exponent_twice(dy, x):
    return -64 * dy * x**-9.0


# An epsilon or a constant on one side only


def layer_norm(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    x_hat = (x - mean) / np.sqrt(var + eps)
    return gamma * x_hat + beta, (x, x_hat, gamma, var)


def layer_norm_backward(dy, cache, eps=1e-5, mean=True, variance=True):
    _, x_hat, gamma, var = cache
    dx_hat = dy * gamma
    dx = dx_hat - (dx_hat.mean(axis=-1, keepdims=True) if mean else 0)
    dx -= x_hat * (dx_hat * x_hat).mean(axis=-1, keepdims=True) if variance else 0
    return dx / np.sqrt(var + eps), (dy * x_hat).sum(axis=0), dy.sum(axis=0)


FOR_LAYER_NORM = normal((4, 6), (6,), (6,))


@mistake(layer_norm, FOR_LAYER_NORM, "x", "an epsilon or a rounded constant")
def layer_norm_without_its_epsilon(dy, cache):
    return layer_norm_backward(dy, cache, eps=0)


@mistake(
    lambda x: (0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3))), x), normal((4, 5)), "x",
    "an epsilon or a rounded constant",
)  # fmt: skip
def gelu_with_a_rounded_constant(dy, x):
    t = np.tanh(0.79788 * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * 0.79788 * (1 + 3 * 0.044715 * x**2))


@mistake(lambda p: (-np.log(p + 1e-6), p), lambda rng: (rng.uniform(0.1, 1, (4, 5)),), "p", "an epsilon")
def log_without_its_epsilon(dy, p):
    return -dy / p


@mistake(lambda x: (np.tanh(x), np.tanh(x).astype(np.float32)), normal((4, 5)), "x", "kept in float32")
def tanh_kept_in_float32(dy, y):
    return dy * (1 - y.astype(np.float64) ** 2)


# Norms


@mistake(layer_norm, FOR_LAYER_NORM, "x", "the term of a variance over axes (1,)")
def layer_norm_without_the_variance(dy, cache):
    return layer_norm_backward(dy, cache, variance=False)


@mistake(layer_norm, FOR_LAYER_NORM, "x", "the terms of a mean and a variance over axes (1,)")
def layer_norm_statistics_taken_for_constants(dy, cache):
    return layer_norm_backward(dy, cache, mean=False, variance=False)


@mistake(layer_norm, FOR_LAYER_NORM, "gamma")
def layer_norm_gamma_from_x(dy, cache):
    dx, _, dbeta = layer_norm_backward(dy, cache)
    return dx, (dy * cache[0]).sum(axis=0), dbeta


# Softmax and attention


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True), e / e.sum(axis=-1, keepdims=True)


@mistake(softmax, normal((4, 5)), "x", "without the outer product")
def softmax_without_the_outer_product(dy, p):
    return dy * p


@mistake(softmax, normal((4, 5)), "x", "outer product has the wrong sign")
def softmax_with_the_outer_product_added(dy, p):
    return p * (dy + (dy * p).sum(axis=-1, keepdims=True))


@mistake(softmax, normal((4, 5)), "x", "only the diagonal")
def softmax_as_if_it_were_a_sigmoid(dy, p):
    return dy * p * (1 - p)


def attention(q, k, v):
    p, _ = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return p @ v, (q, k, v, p)


def attention_backward(dy, cache):
    q, k, v, p = cache
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy


FOR_ATTENTION = normal((2, 5, 3), (2, 5, 3), (2, 5, 3))


@mistake(attention, FOR_ATTENTION, "q", "√(axis 2 of q)")
def attention_scale_forgotten(dy, cache):
    dq, dk, dv = attention_backward(dy, cache)
    return dq * np.sqrt(3), dk, dv


@mistake(attention, FOR_ATTENTION, "k", "gradient of q: the two are exchanged")
def attention_queries_and_keys_exchanged(dy, cache):
    dq, dk, dv = attention_backward(dy, cache)
    return dk, dq, dv


@mistake(attention, FOR_ATTENTION, "k", "the outer product in a softmax's Jacobian")
def attention_without_the_softmax_sum(dy, cache):
    q, k, v, p = cache
    ds = p * (dy @ v.swapaxes(-1, -2)) / np.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, attention_backward(dy, cache)[2]


def two_heads(x, w1, w2):
    return np.concatenate([np.tanh(x @ w1), np.tanh(x @ w2)], axis=1), (x, w1, w2)


@mistake(
    two_heads, normal((6, 5), (5, 2), (5, 3)), "x", "another path's share is missing: what comes back from indices 2"
)
def share_of_the_second_head_missing(dy, cache):
    x, w1, w2 = cache
    d1, d2 = dy[:, :2] * (1 - np.tanh(x @ w1) ** 2), dy[:, 2:] * (1 - np.tanh(x @ w2) ** 2)
    return d1 @ w1.T, x.T @ d1, x.T @ d2


@mistake(lambda x, w: (x + np.tanh(x @ w), (x, w)), normal((4, 5), (5, 5)), "x", "a skip connection")
def skip_connection_forgotten(dy, cache):
    x, w = cache
    d = dy * (1 - np.tanh(x @ w) ** 2)
    return d @ w.T, x.T @ d


# Steps in time


def recurrent(x, w, u):
    h, hidden = np.zeros((x.shape[0], u.shape[0])), []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w + h @ u)
        hidden.append(h)
    return np.stack(hidden, axis=1), (x, w, u, hidden)


def recurrent_backward(dy, cache, carried=1.0):
    x, w, u, hidden = cache
    dx, dw, du, dh = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u), 0.0
    for t in reversed(range(x.shape[1])):
        da = (dy[:, t] + carried * dh) * (1 - hidden[t] ** 2)
        before = hidden[t - 1] if t else np.zeros_like(hidden[0])
        dx[:, t], dh = da @ w.T, da @ u.T
        dw, du = dw + x[:, t].T @ da, du + before.T @ da
    return dx, dw, du


@mistake(recurrent, normal((2, 4, 3), (3, 5), (5, 5)), "x", "right at the last step along axis 1 only")
def recurrent_without_what_later_steps_send_back(dy, cache):
    return recurrent_backward(dy, cache, carried=0.0)


@mistake(lambda x: (np.cumsum(x, axis=1), x), normal((3, 6)), "x")
def running_sum_undone_in_its_own_direction(dy, x):
    return np.cumsum(dy, axis=1)


# = where += belongs


def windows(x):
    return np.stack([x[:, i : i + 3].sum(axis=1) ** 2 for i in range(x.shape[1] - 2)], axis=1), x


@mistake(windows, normal((3, 6)), "x", "= where += belongs")
def overlapping_windows_assigned(dy, x):
    dx = np.zeros_like(x)
    for i in range(dy.shape[1]):
        dx[:, i : i + 3] = (2 * dy[:, i] * x[:, i : i + 3].sum(axis=1))[:, None]
    return dx


WORDS = np.array([0, 2, 1, 2, 3, 0])


@mistake(lambda table: (table[WORDS], table.shape), normal((4, 3)), "table", "= where += belongs")
def embedding_assigned_where_a_word_comes_up_twice(dy, shape):
    dtable = np.zeros(shape)
    dtable[WORDS] = dy
    return dtable


# Slopes and masks


@mistake(lambda x: (np.where(x > 0, x, 0.1 * x), x), normal((4, 5)), "x", "a mask")
def leaky_slope_forgotten(dy, x):
    return dy * (x > 0)


@mistake(lambda x: (np.tanh(x), x), normal((4, 5)), "x")
def tanh_slope_of_the_input(dy, x):
    return dy * (1 - x**2)


@mistake(lambda x: (np.clip(x, -0.5, 0.5), x), normal((4, 5)), "x", "a mask")
def clip_lets_everything_back(dy, x):
    return dy.copy()


@mistake(lambda x: (np.clip(x, 0, 6), x), normal((6, 5)), "x", "a mask")
def relu6_without_its_upper_bound(dy, x):
    return dy * (x > 0)


@mistake(lambda x: (x * np.clip(x / 6 + 0.5, 0, 1), x), normal((6, 5)), "x")
def hard_swish_without_its_bounds(dy, x):
    return dy * (x / 3 + 0.5)


@mistake(lambda x: (np.sum(x**2, axis=1), x), normal((4, 5)), "x", "a constant factor of 0.5")
def square_without_its_two(dy, x):
    return dy[:, None] * x


@mistake(lambda x: (np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), x), normal((4, 5)), "x", "√(2π)")
def density_without_its_constant(dy, x):
    return -dy * x * np.exp(-(x**2) / 2)


@mistake(lambda x, w: (x @ w, (x, w)), normal((6, 4), (4, 3)), "w", "1/(axis 0 of x)")
def weights_averaged_over_the_batch(dy, cache):
    x, w = cache
    return dy @ w.T, x.T @ dy / len(x)
