"""The zoo's wrong backwards of ops: sums, factors, axes, maxima, memory. Those of a block stand with its proofs."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.ops import (
    avg_pool_2x2,
    batch_norm,
    conv2d,
    dot_product_attention,
    general_conv,
    global_avg_pool,
    group_norm,
    layer_norm,
    linear,
    loss,
    lp_pool,
    lse_pool,
    relu,
    sigmoid,
    softmax,
)
from tests.support.mistakes import image, mistake, only_x, tied_x


def for_conv(rng):
    return image(rng), conv2d.Params(rng.standard_normal((3, 4, 3, 3)), rng.standard_normal(3))


def for_strided(rng):
    return image(rng), general_conv.Params(rng.standard_normal((6, 2, 3, 3)), rng.standard_normal(6))


def strided(x, params):
    return general_conv.forward(x, params, stride=2, padding=1, groups=2)


def dilated(x, params):
    return general_conv.forward(x, params, padding=2, dilation=2, groups=2)


def for_linear(rng):
    return rng.standard_normal((5, 4)), linear.Params(rng.standard_normal((4, 4)), rng.standard_normal(4))


def for_batch_norm(rng):
    return image(rng), batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))


def for_layer_norm(rng):
    return rng.standard_normal((2, 3, 5)), layer_norm.Params(rng.standard_normal(5), rng.standard_normal(5))


def for_group_norm(rng):
    return image(rng), group_norm.Params(rng.standard_normal(4), rng.standard_normal(4))


def in_two_groups(x, params):
    return group_norm.forward(x, params, 2)


def rows(rng):
    return (rng.standard_normal((3, 4, 5)),)


def queries_keys_values(rng):
    return tuple(rng.standard_normal(shape) for shape in ((2, 4, 3), (2, 4, 3), (2, 4, 5)))


def over_the_first(x):
    return softmax.forward(x, 0)


def for_loss(rng):
    return 2 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)


# Factors


@mistake(global_avg_pool.forward, only_x, "x", "which is H·W")
def average_not_divided_by_the_pixels(dy, cache):
    return global_avg_pool.backward(dy, cache) * 30


@mistake(avg_pool_2x2.forward, only_x, "x", "constant factor of 2")
def window_average_divided_by_its_side(dy, cache):
    return 2 * avg_pool_2x2.backward(dy, cache)


@mistake(loss.forward, for_loss, "z", "axis 0 of z")
def loss_not_averaged_over_the_batch(dy, cache):
    return loss.backward(dy, cache) * cache.p.shape[0]


@mistake(loss.forward, for_loss, "z", "wrong sign")
def loss_sign(dy, cache):
    return -loss.backward(dy, cache)


@mistake(loss.forward, for_loss, "z", "the one-hot labels")
def loss_without_the_one_hot(dy, cache):
    return dy * cache.p / cache.p.shape[0]


@mistake(loss.forward, for_loss, "gradient of z", "not linear in dy")
def loss_ignores_its_cotangent(dy, cache):
    return loss.backward(np.ones_like(dy), cache)


# Sums, shapes, axes


@mistake(linear.forward, for_linear, "params.b", "sum over the batch")
def bias_not_summed_over_the_batch(dy, cache):
    dx, (dw, _) = linear.backward(dy, cache)
    return dx, linear.Params(dw, dy.copy())


@mistake(linear.forward, for_linear, "params.b", "constant factor of 0.2")
def bias_averaged_over_the_batch(dy, cache):
    dx, (dw, db) = linear.backward(dy, cache)
    return dx, linear.Params(dw, db / len(dy))


@mistake(conv2d.forward, for_conv, "params.w", "image 1 alone")
def kernel_gradient_of_the_last_image(dy, cache):
    dx, (_, db) = conv2d.backward(dy, cache)
    N, M = dy.shape[:2]
    for n in range(N):  # assigned where it should be added
        dw = (dy[n].reshape(M, -1) @ cache.u[n].T).reshape(cache.params.w.shape)
    return dx, conv2d.Params(dw, db)


@mistake(linear.forward, for_linear, "x")
def linear_w_not_transposed_back(dy, cache):
    _, grads = linear.backward(dy, cache)
    return dy @ cache.params.w.T, grads


@mistake(linear.forward, for_linear, "params.w", "transposed")
def linear_w_gradient_transposed(dy, cache):
    dx, (dw, db) = linear.backward(dy, cache)
    return dx, linear.Params(dw.T.copy(), db)


# Convolution


@mistake(conv2d.forward, for_conv, "x")
def convolution_kernel_not_flipped(dy, cache):
    _, grads = conv2d.backward(dy, cache)
    turned = conv2d.Params(
        cache.params.w.swapaxes(0, 1)
    )  # dx is a convolution of dy with the kernel flipped: it is not
    return conv2d.forward(dy, turned)[0], grads


@mistake(conv2d.forward, for_conv, "params.w", "flipped")
def convolution_kernel_gradient_flipped(dy, cache):
    dx, (dw, db) = conv2d.backward(dy, cache)
    return dx, conv2d.Params(dw[:, :, ::-1, ::-1].copy(), db)


@mistake(conv2d.forward, for_conv, "x", "off by one")
def convolution_padding_off_by_one(dy, cache):
    dx, grads = conv2d.backward(dy, cache)
    return np.roll(dx, 1, axis=3), grads


@mistake(conv2d.forward, for_conv, "x", "border")
def convolution_border_forgotten(dy, cache):
    dx, grads = conv2d.backward(dy, cache)
    dx[:, :, 0], dx[:, :, -1], dx[:, :, :, 0], dx[:, :, :, -1] = 0, 0, 0, 0
    return dx, grads


@mistake(strided, for_strided, "x")
def strided_convolution_scattered_side_by_side(dy, cache):
    """The outputs' windows begin at 0, 1, 2 … as those of a stride of 1 do."""
    _, grads = general_conv.backward(dy, cache)
    near = cache._replace(slide=cache.slide._replace(stride=(1, 1)))
    here = np.zeros((*dy.shape[:2], *cache.shape[2:]))
    here[:, :, : dy.shape[2], : dy.shape[3]] = dy
    return scattered(here, near), grads


def scattered(dy, cache):
    """GCONV.3 to GCONV.1 for x alone, of a cache whose steps have been changed."""
    (N, C, H, W), (M, D, k_h, k_v), slide = cache.shape, cache.params.w.shape, cache.slide
    G, (q_h, q_v) = C // D, slide.padding
    w = cache.params.w.reshape(G, M // G, -1)
    du = (w.mT @ dy.reshape(N, G, M // G, -1)).reshape(N, C, k_h * k_v, *slide.outputs(H, W))
    dpadded = np.zeros((N, C, *slide.padded(H, W)))
    for place, (rows, columns) in enumerate(slide.reads(H, W)):
        dpadded[:, :, rows, columns] += du[:, :, place]
    return dpadded[:, :, q_h : q_h + H, q_v : q_v + W].copy()


@mistake(dilated, for_strided, "x")
def dilation_forgotten_on_the_way_back(dy, cache):
    _, grads = general_conv.backward(dy, cache)
    return scattered(dy, cache._replace(slide=cache.slide._replace(dilation=(1, 1), padding=(1, 1)))), grads


@mistake(strided, for_strided, "x")
def groups_read_the_weights_of_the_other_one(dy, cache):
    _, grads = general_conv.backward(dy, cache)
    w = np.concatenate((cache.params.w[3:], cache.params.w[:3]))
    return scattered(dy, cache._replace(params=general_conv.Params(w))), grads


@mistake(strided, for_strided, "params.w")
def kernel_gradient_of_the_first_group_for_all(dy, cache):
    dx, grads = general_conv.backward(dy, cache)
    return dx, grads._replace(w=np.concatenate((grads.w[:3], grads.w[:3])))


# Activations: the right slope at the wrong place


def sigmoid_of_x(x):
    return sigmoid.forward(x)[0], x


@mistake(sigmoid_of_x, only_x, "x")
def sigmoid_slope_of_the_input(dy, x):
    return dy * x * (1 - x)


@mistake(sigmoid_of_x, only_x, "x", "it is dy itself")
def sigmoid_slope_forgotten(dy, x):
    return dy.copy()


def relu_of_x(x):
    return np.where(x > 0, x, 0 * x), x


@mistake(relu_of_x, only_x, "x", "a mask")
def relu_mask_from_dy(dy, x):
    return np.where(dy > 0, dy, 0)


@mistake(relu_of_x, only_x, "x", "a mask")
def relu_lets_everything_back(dy, x):
    return dy.copy()


@mistake(relu_of_x, lambda rng: (np.where(image(rng) > 0, image(rng), 0),), "x")
def relu_at_zero_invents_a_slope(dy, x):
    return np.where(x > 0, dy, np.where(x == 0, 2 * dy, 0))


# Maxima and ties


def max_of_pixels(x):
    y = x.reshape(*x.shape[:2], -1).max(axis=2)
    return y, (x, y)


@mistake(max_of_pixels, tied_x, "x", "all ties")
def maximum_to_all_ties(dy, cache):
    x, y = cache
    return np.where(x == y[:, :, None, None], dy[:, :, None, None], 0)


def max_of_channels(x):
    y = x.max(axis=1, keepdims=True)
    return y, (x, y)


@mistake(max_of_channels, tied_x, "x", "all ties")
def channel_maximum_to_all_ties(dy, cache):
    x, y = cache
    return np.where(x == y, dy, 0)


@mistake(max_of_pixels, only_x, "x", "a mask or an index")
def maximum_to_the_first_pixel(dy, cache):
    dx = np.zeros_like(cache[0])
    dx[:, :, 0, 0] = dy
    return dx


@mistake(max_of_pixels, only_x, "x")
def maximum_shared_like_a_mean(dy, cache):
    x, _ = cache
    return np.broadcast_to(dy[:, :, None, None] / (x.shape[2] * x.shape[3]), x.shape).copy()


@mistake(lse_pool.forward, only_x, "x")
def lse_without_its_sum(dy, cache):
    return dy[:, :, None, None] * cache.e


@mistake(lp_pool.forward, only_x, "x")
def lp_without_its_root(dy, cache):
    return 2 * cache.x * dy[:, :, None, None]


# Batch normalisation


@mistake(batch_norm.train_forward, for_batch_norm, "x", "a mean and a variance over axes (0, 2, 3)")
def batch_norm_statistics_taken_for_constants(dy, cache):
    _, grads = batch_norm.train_backward(dy, cache)
    return batch_norm.eval_backward(dy, cache)[0], grads


@mistake(batch_norm.train_forward, for_batch_norm, "x", "the term of a variance over axes (0, 2, 3)")
def batch_norm_without_the_path_of_the_variance(dy, cache):
    _, grads = batch_norm.train_backward(dy, cache)
    dx_hat = dy * cache.gamma[:, None, None]
    return (dx_hat - dx_hat.mean(axis=(0, 2, 3), keepdims=True)) * cache.rho[:, None, None], grads


@mistake(softmax.forward, rows, "x", "a softmax of whose Jacobian only the diagonal is there")
def softmax_as_if_each_share_were_alone(dy, cache):
    return dy * cache.y * (1 - cache.y)  # the diagonal of the matrix


@mistake(softmax.forward, rows, "x", "a softmax without the outer product of its Jacobian")
def softmax_without_what_the_others_lose(dy, cache):
    return dy * cache.y


@mistake(softmax.forward, rows, "x", "the outer product in a softmax's Jacobian")
def softmax_by_the_plain_mean_of_dy(dy, cache):
    return cache.y * (dy - dy.mean(axis=-1, keepdims=True))  # the shares are the weights


@mistake(over_the_first, rows, "x", "adds up to 0 along axis 0, the analytic one does not")
def softmax_along_another_axis_than_forward(dy, cache):
    return softmax.backward(dy, cache._replace(axis=-1))


@mistake(dot_product_attention.forward, queries_keys_values, "q")
def attention_by_the_diagonal_of_the_softmax(dy, cache):
    q, k, v, (a, _), scale = cache
    ds = a * (1 - a) * (dy @ v.mT)
    return scale * (ds @ k), scale * (ds.mT @ q), a.mT @ dy


@mistake(dot_product_attention.forward, queries_keys_values, "k", "it is the gradient of q: the two are exchanged")
def attention_gradients_of_queries_and_keys_exchanged(dy, cache):
    dq, dk, dv = dot_product_attention.backward(dy, cache)
    return dk, dq, dv


@mistake(dot_product_attention.forward, queries_keys_values, "v")
def attention_values_collect_by_rows(dy, cache):
    dq, dk, _ = dot_product_attention.backward(dy, cache)
    return dq, dk, cache.shares.y @ dy  # as many queries as keys: no shape complains


@mistake(dot_product_attention.forward, queries_keys_values, "q", "which is √(axis 2 of q)")
def attention_without_the_scale(dy, cache):
    dq, dk, dv = dot_product_attention.backward(dy, cache)
    return dq / cache.scale, dk / cache.scale, dv


@mistake(layer_norm.forward, for_layer_norm, "x", "the term of a variance over axes (2,)")
def layer_norm_without_the_path_of_the_variance(dy, cache):
    _, grads = layer_norm.backward(dy, cache)
    dx_hat = dy * cache.gamma
    return (dx_hat - dx_hat.mean(axis=-1, keepdims=True)) * cache.rho, grads


@mistake(layer_norm.forward, for_layer_norm, "x", "a normalisation's mean")
def layer_norm_by_the_rows_and_not_along_them(dy, cache):
    _, grads = layer_norm.backward(dy, cache)
    dx_hat = dy * cache.gamma
    along = cache.x_hat * (dx_hat * cache.x_hat).mean(axis=(0, 1))  # the axes of a batch norm
    return (dx_hat - along - dx_hat.mean(axis=(0, 1))) * cache.rho, grads


@mistake(layer_norm.forward, for_layer_norm, "params.beta", "sum over the batch")
def layer_norm_beta_of_one_image(dy, cache):
    dx, grads = layer_norm.backward(dy, cache)
    return dx, grads._replace(beta=np.sum(dy[:1], axis=(0, 1)))


@mistake(
    in_two_groups,
    for_group_norm,
    "x",
    "a mean and a variance over axes (2, 3) are missing, as if they were constants, or wrong",
)
def group_norm_by_channels_and_not_by_groups(dy, cache):
    _, grads = group_norm.backward(dy, cache)
    dx_hat, x_hat = dy * cache.gamma[:, None, None], cache.x_hat
    along = x_hat * (dx_hat * x_hat).mean(axis=(2, 3), keepdims=True)  # the axes of an instance norm
    rho = np.repeat(cache.norm.rho, 2, axis=1)[..., None]
    return (dx_hat - along - dx_hat.mean(axis=(2, 3), keepdims=True)) * rho, grads


@mistake(in_two_groups, for_group_norm, "x", "a mean and a variance over the pixels and channels of each of 2 groups")
def group_norm_statistics_taken_for_constants(dy, cache):
    _, grads = group_norm.backward(dy, cache)
    return dy * cache.gamma[:, None, None] * np.repeat(cache.norm.rho, 2, axis=1)[..., None], grads


@mistake(in_two_groups, for_group_norm, "x", "the term of a variance over the pixels and channels of each of 2 groups")
def group_norm_without_the_path_of_the_variance(dy, cache):
    _, grads = group_norm.backward(dy, cache)
    drows = np.reshape(dy * cache.gamma[:, None, None], cache.norm.x_hat.shape)
    dx = (drows - drows.mean(axis=-1, keepdims=True)) * cache.norm.rho
    return dx.reshape(dy.shape), grads


@mistake(in_two_groups, for_group_norm, "x")
def group_norm_without_gamma_on_the_way_back(dy, cache):
    _, grads = group_norm.backward(dy, cache)
    return group_norm.backward(dy, cache._replace(gamma=np.ones_like(cache.gamma)))[0], grads


@mistake(in_two_groups, for_group_norm, "params.gamma", "sum over the batch")
def group_norm_gamma_of_one_image(dy, cache):
    dx, grads = group_norm.backward(dy, cache)
    return dx, grads._replace(gamma=np.sum((dy * cache.x_hat)[:1], axis=(0, 2, 3)))


@mistake(batch_norm.train_forward, for_batch_norm, "params.gamma")
def batch_norm_gamma_from_x_not_normalised(dy, cache):
    dx, (_, dbeta) = batch_norm.train_backward(dy, cache)
    x = cache.x_hat / cache.rho[:, None, None] + cache.mean[:, None, None]
    return dx, batch_norm.Params(np.sum(dy * x, axis=(0, 2, 3)), dbeta)


# What is not about numbers: memory, state, dtype


_kept: dict[Any, Any] = {}  # what the next three keep where nothing should be kept


def forward_with_an_accumulator(x):
    y, cache = sigmoid.forward(x)
    return y, (cache, np.zeros_like(x))


@mistake(forward_with_an_accumulator, only_x, "gradient of x: another one the second time")
def gradients_add_up_from_call_to_call(dy, cache):
    cache, total = cache
    total += sigmoid.backward(dy, cache)
    return total.copy()


def stale_forward(x):
    """Keeps the first x it sees of a shape, and never another."""
    y, cache = sigmoid.forward(x)
    return y, _kept.setdefault(("stale", x.shape, x.dtype), cache)


@mistake(stale_forward, only_x, "x", "stale cache")
def cache_of_the_first_forward(dy, cache):
    return sigmoid.backward(dy, cache)


def global_forward(x):
    y, _kept["last"] = sigmoid.forward(x)
    return y, None


@mistake(global_forward, only_x, "gradient of x: changed by a later forward")
def cache_outside_of_the_cache(dy, cache):
    return sigmoid.backward(dy, _kept["last"])


@mistake(relu.forward, only_x, "x: expected a gradient of dtype float64, got float32", house_rule=True)
def gradient_in_float32(dy, cache):
    return relu.backward(dy, cache).astype(np.float32)


@mistake(sigmoid.forward, lambda rng: (1e3 * image(rng),), "x", "NaN or infinite")
def sigmoid_slope_by_a_quotient_that_overflows(dy, cache):
    x = np.log(cache.y / (1 - cache.y))
    return dy * np.exp(x) / (1 + np.exp(x)) ** 2


@mistake(lambda x: (x + 0.0, None), only_x, "gradient of x: shares memory with dy", house_rule=True)
def identity_hands_dy_on(dy, cache):
    return dy


@mistake(sigmoid.forward, only_x, "gradient of x: not linear in dy")
def gradient_clipped(dy, cache):
    return np.clip(sigmoid.backward(dy, cache), -0.1, 0.1)


@mistake(sigmoid.forward, only_x, "gradient of x: not 0 for dy = 0")
def gradient_with_weight_decay_in_it(dy, cache):
    return sigmoid.backward(dy, cache) + 1e-4
