"""Wrong backwards: mistakes that people really make, each beside the right forward. The checker must reject every one.

A mistake names what the check must blame, and, where its pattern is plain, a part of the likely cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.attention import cbam, channel, concat, psa, residual, se, spatial, wrong
from npattn.ops import activation, batch_norm, conv2d, linear, loss, pooling


@dataclass(frozen=True)
class Mistake:
    """A right forward, a wrong backward, inputs that show it, and what the message has to say."""

    backward: Callable[..., Any]
    forward: Callable[..., Any]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    blames: str
    says: str

    def __repr__(self) -> str:
        return self.backward.__name__


ZOO: list[Mistake] = []


def mistake(
    forward: Callable[..., Any], draw: Callable[[np.random.Generator], tuple[Any, ...]], blames: str, says: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the decorated backward into the zoo."""

    def add(backward: Callable[..., Any]) -> Callable[..., Any]:
        ZOO.append(Mistake(backward, forward, draw, blames, says))
        return backward

    return add


def image(rng, shape=(2, 4, 5, 6)):
    return rng.standard_normal(shape)


def only_x(rng):
    return (image(rng),)


def tied_x(rng):
    return (rng.integers(0, 3, (2, 4, 4, 6)).astype(float),)


def for_channel(rng, scale=1.0):
    return image(rng), channel.Params(scale * rng.standard_normal((3, 4)), scale * rng.standard_normal((4, 3)))


def for_se(rng, scale=1.0):
    x, params = for_channel(rng, scale)
    return x, se.Params(*params)


def for_spatial(rng):
    return image(rng), spatial.Params(rng.standard_normal((1, 2, 3, 3)))


def for_cbam(rng):
    x, ca = for_channel(rng)
    return x, cbam.Params(ca, for_spatial(rng)[1])


def for_concat(rng):
    return image(rng), concat.Params(rng.standard_normal((3, 8)), rng.standard_normal((4, 3)))


def for_psa(rng):
    D, C = 15, 4
    weights = (rng.standard_normal((D, C)), rng.standard_normal((D, C)), rng.standard_normal((C, 3 * C)))
    return image(rng, (2, C, 2, 3)), psa.Params(*weights)


def for_conv(rng):
    return image(rng), conv2d.Params(rng.standard_normal((3, 4, 3, 3)), rng.standard_normal(3))


def for_linear(rng):
    return rng.standard_normal((5, 4)), linear.Params(rng.standard_normal((4, 4)), rng.standard_normal(4))


def for_batch_norm(rng):
    return image(rng), batch_norm.Params(rng.standard_normal(4), rng.standard_normal(4))


def for_loss(rng):
    return 2 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)


# Paths that are forgotten, or walked twice


@mistake(se.forward, for_se, "x", "direct path")
def se_direct_path_alone(dy, cache):
    _, grads = se.backward(dy, cache)
    return dy * cache.g[:, :, None, None], grads


@mistake(se.forward, lambda rng: for_se(rng, 0.01), "x", "direct path")
def se_direct_path_alone_at_small_weights(dy, cache):
    _, grads = se.backward(dy, cache)
    return dy * cache.g[:, :, None, None], grads


@mistake(se.forward, for_se, "x", "same along axes (2, 3)")
def se_gate_path_not_divided_by_the_pixels(dy, cache):
    dx, grads = se.backward(dy, cache)
    direct = dy * cache.g[:, :, None, None]
    return direct + (dx - direct) * 30, grads


@mistake(cbam.forward, for_cbam, "x", "direct path")
def cbam_direct_path_alone(dy, cache):
    _, grads = cbam.backward(dy, cache)
    return dy * cache.g_c * cache.g_s, grads


@mistake(cbam.forward, for_cbam, "x")
def cbam_spatial_gate_looked_at_x(dy, cache):
    dx, grads = cbam.backward(dy, cache)
    wrong, _ = spatial.backward(np.sum(dy * cache.u, axis=1, keepdims=True), cache.sa)
    return dx + wrong - wrong * cache.g_c, grads


@mistake(cbam.forward, for_cbam, "params.ca.w1")
def cbam_channel_gate_misses_the_spatial_path(dy, cache):
    dx, (_, dsa) = cbam.backward(dy, cache)
    dg_c = np.sum(dy * cache.g_s * cache.x, axis=(2, 3), keepdims=True)
    return dx, cbam.Params(channel.backward(dg_c, cache.ca)[1], dsa)


@mistake(channel.forward, for_channel, "x", "same along axes (2, 3)")
def channel_average_path_counted_twice(dy, cache):
    dx, grads = channel.backward(dy, cache)
    da = activation.sigmoid_backward(dy[:, :, 0, 0], cache.sigmoid)
    ds_avg, _ = channel.mlp_backward(da, cache.avg_mlp)
    return dx + pooling.global_avg_pool_backward(ds_avg, cache.avg_pool), grads


@mistake(channel.forward, for_channel, "x")
def channel_maximum_path_forgotten(dy, cache):
    _, grads = channel.backward(dy, cache)
    da = activation.sigmoid_backward(dy[:, :, 0, 0], cache.sigmoid)
    ds_avg, _ = channel.mlp_backward(da, cache.avg_mlp)
    return pooling.global_avg_pool_backward(ds_avg, cache.avg_pool), grads


@mistake(channel.forward, for_channel, "params.w1")
def channel_shared_weights_used_once(dy, cache):
    dx, _ = channel.backward(dy, cache)
    da = activation.sigmoid_backward(dy[:, :, 0, 0], cache.sigmoid)
    return dx, channel.mlp_backward(da, cache.avg_mlp)[1]


@mistake(spatial.forward, for_spatial, "params.w", "reverse order along axis 1")
def spatial_maps_swapped(dy, cache):
    dx, (dw,) = spatial.backward(dy, cache)
    return dx, spatial.Params(dw[:, ::-1].copy())


@mistake(spatial.forward, for_spatial, "x", "same along axes (1,)")
def spatial_mean_not_divided(dy, cache):
    dx, grads = spatial.backward(dy, cache)
    da = activation.sigmoid_backward(dy, cache.sigmoid)
    dm, _ = conv2d.backward(da, cache.conv)
    return dx + dm[:, :1] * (1 - 1 / dx.shape[1]), grads


def residual_se_forward(x, params):
    """x plus SE of x, and what the two need: a residual unit with a whole branch."""
    b, se_cache = se.forward(x, params)
    y, cache = residual.forward(x, b)
    return y, (cache, se_cache)


@mistake(residual_se_forward, for_se, "x")
def residual_skip_path_forgotten(dy, cache):
    _, db = residual.backward(dy, cache[0])
    return se.backward(db, cache[1])


@mistake(residual_se_forward, for_se, "x")
def residual_skip_path_counted_twice(dy, cache):
    ds, db = residual.backward(dy, cache[0])
    dx_branch, grads = se.backward(db, cache[1])
    return ds + ds + dx_branch, grads


@mistake(residual_se_forward, for_se, "params.w1", "constant factor of 0.5")
def residual_sum_taken_for_a_mean(dy, cache):
    ds, db = residual.backward(dy / 2, cache[0])
    dx_branch, grads = se.backward(db, cache[1])
    return ds + dx_branch, grads


@mistake(wrong.squeeze_forward, only_x, "x", "direct path")
def squeeze_taken_for_a_constant(dy, cache):
    return dy * cache.s[:, :, None, None]


@mistake(
    wrong.conv_forward,
    lambda rng: (image(rng), wrong.ConvParams(rng.standard_normal((4, 4, 3, 3)))),
    "x",
    "direct path",
)
def convolution_gate_direct_path_alone(dy, cache):
    _, grads = wrong.conv_backward(dy, cache)
    return dy * cache.g, grads


@mistake(concat.forward, for_concat, "x")
def concatenated_descriptors_taken_back_in_the_wrong_order(dy, cache):
    _, grads = concat.backward(dy, cache)
    ds, _ = channel.mlp_backward(activation.sigmoid_backward(dy[:, :, 0, 0], cache.sigmoid), cache.mlp)
    dx_avg = pooling.global_avg_pool_backward(ds[:, 4:].copy(), cache.avg_pool)
    return dx_avg + pooling.global_max_pool_backward(ds[:, :4].copy(), cache.max_pool), grads


@mistake(psa.forward, for_psa, "x")
def psa_weights_taken_for_constants(dy, cache):
    _, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dt, dz_c, dz_d = np.split(rows @ cache.fuse.params.w, 3, axis=2)
    dt = dt + (cache.a_c.swapaxes(1, 2) @ dz_c + cache.a_d.swapaxes(1, 2) @ dz_d) / rows.shape[1]
    return dt.swapaxes(1, 2).reshape(dy.shape).copy(), grads


@mistake(psa.forward, for_psa, "params.w_d")
def psa_distribute_not_turned_round(dy, cache):
    dx, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dz_d = np.split(rows @ cache.fuse.params.w, 3, axis=2)[2]
    da_d = dz_d @ cache.t.swapaxes(1, 2) / rows.shape[1]
    _, (dw_d, _) = linear.backward(psa.unread(da_d, 2, 3), cache.distribute)
    return dx, grads._replace(w_d=dw_d)


@mistake(psa.forward, for_psa, "params.w_c")
def psa_outside_of_the_image_not_masked(dy, cache):
    dx, grads = psa.backward(dy, cache)
    rows = dy.reshape(*dy.shape[:2], -1).swapaxes(1, 2)
    dz_c = np.split(rows @ cache.fuse.params.w, 3, axis=2)[1]
    da_c = dz_c @ cache.t.swapaxes(1, 2) / rows.shape[1]
    inside = psa.unread(np.ones_like(da_c), 2, 3)
    dm_c = psa.unread(da_c, 2, 3) + (1 - inside) * da_c[:, :, :1]  # an index out of range, set to 0 and then read
    _, (dw_c, _) = linear.backward(dm_c, cache.collect)
    return dx, grads._replace(w_c=dw_c)


# Factors


@mistake(pooling.global_avg_pool_forward, only_x, "x", "which is H·W")
def average_not_divided_by_the_pixels(dy, cache):
    return pooling.global_avg_pool_backward(dy, cache) * 30


@mistake(pooling.avg_pool_2x2_forward, only_x, "x", "constant factor of 2")
def window_average_divided_by_its_side(dy, cache):
    return 2 * pooling.avg_pool_2x2_backward(dy, cache)


@mistake(loss.forward, for_loss, "z", "axis 0 of z")
def loss_not_averaged_over_the_batch(dy, cache):
    return loss.backward(dy, cache) * cache.p.shape[0]


@mistake(loss.forward, for_loss, "z", "wrong sign")
def loss_sign(dy, cache):
    return -loss.backward(dy, cache)


@mistake(loss.forward, for_loss, "z")
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


@mistake(se.forward, for_se, "params.w1", "transposed")
def se_w1_gradient_of_the_wrong_shape(dy, cache):
    dx, (dw1, dw2) = se.backward(dy, cache)
    return dx, se.Params(dw1.T.copy(), dw2)


@mistake(se.forward, for_se, "params.w2", "got None")
def se_w2_gradient_forgotten(dy, cache):
    dx, (dw1, _) = se.backward(dy, cache)
    return dx, se.Params(dw1, None)


@mistake(se.forward, for_se, "params.w2", "0 everywhere")
def se_w2_gradient_never_filled(dy, cache):
    dx, (dw1, dw2) = se.backward(dy, cache)
    return dx, se.Params(dw1, np.zeros_like(dw2))


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


# Activations: the right slope at the wrong place


def sigmoid_of_x(x):
    return activation.sigmoid_forward(x)[0], x


@mistake(sigmoid_of_x, only_x, "x")
def sigmoid_slope_of_the_input(dy, x):
    return dy * x * (1 - x)


@mistake(sigmoid_of_x, only_x, "x")
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


@mistake(max_of_pixels, only_x, "x")
def maximum_to_the_first_pixel(dy, cache):
    dx = np.zeros_like(cache[0])
    dx[:, :, 0, 0] = dy
    return dx


@mistake(max_of_pixels, only_x, "x")
def maximum_shared_like_a_mean(dy, cache):
    x, _ = cache
    return np.broadcast_to(dy[:, :, None, None] / (x.shape[2] * x.shape[3]), x.shape).copy()


# Batch normalisation


@mistake(batch_norm.train_forward, for_batch_norm, "x")
def batch_norm_statistics_taken_for_constants(dy, cache):
    _, grads = batch_norm.train_backward(dy, cache)
    return batch_norm.eval_backward(dy, cache)[0], grads


@mistake(batch_norm.train_forward, for_batch_norm, "x")
def batch_norm_without_the_path_of_the_variance(dy, cache):
    _, grads = batch_norm.train_backward(dy, cache)
    dx_hat = dy * cache.gamma[:, None, None]
    return (dx_hat - dx_hat.mean(axis=(0, 2, 3), keepdims=True)) * cache.rho[:, None, None], grads


@mistake(batch_norm.train_forward, for_batch_norm, "params.gamma")
def batch_norm_gamma_from_x_not_normalised(dy, cache):
    dx, (_, dbeta) = batch_norm.train_backward(dy, cache)
    x = cache.x_hat / cache.rho[:, None, None] + cache.mean[:, None, None]
    return dx, batch_norm.Params(np.sum(dy * x, axis=(0, 2, 3)), dbeta)


# What is not about numbers: memory, state, dtype


@mistake(se.forward, for_se, "dy: mutated by backward")
def se_works_in_place_on_dy(dy, cache):
    dx, grads = se.backward(dy, cache)
    dy *= cache.g[:, :, None, None]
    return dx, grads


@mistake(se.forward, for_se, "params.w1: mutated by backward")
def se_takes_the_step_itself(dy, cache):
    dx, grads = se.backward(dy, cache)
    cache.fc1.params.w[...] -= 0.1 * grads.w1
    return dx, grads


_kept: dict[Any, Any] = {}  # what the next three keep where nothing should be kept


def forward_with_an_accumulator(x):
    y, cache = activation.sigmoid_forward(x)
    return y, (cache, np.zeros_like(x))


@mistake(forward_with_an_accumulator, only_x, "gradient of x: another one the second time")
def gradients_add_up_from_call_to_call(dy, cache):
    cache, total = cache
    total += activation.sigmoid_backward(dy, cache)
    return total.copy()


def stale_forward(x):
    """Keeps the first x it sees of a shape, and never another."""
    y, cache = activation.sigmoid_forward(x)
    return y, _kept.setdefault(("stale", x.shape, x.dtype), cache)


@mistake(stale_forward, only_x, "x", "stale cache")
def cache_of_the_first_forward(dy, cache):
    return activation.sigmoid_backward(dy, cache)


def global_forward(x):
    y, _kept["last"] = activation.sigmoid_forward(x)
    return y, None


@mistake(global_forward, only_x, "gradient of x: changed by a later forward")
def cache_outside_of_the_cache(dy, cache):
    return activation.sigmoid_backward(dy, _kept["last"])


@mistake(activation.relu_forward, only_x, "x: expected a gradient of dtype float64, got float32")
def gradient_in_float32(dy, cache):
    return activation.relu_backward(dy, cache).astype(np.float32)


@mistake(activation.sigmoid_forward, lambda rng: (1e3 * image(rng),), "x", "NaN or infinite")
def sigmoid_slope_by_a_quotient_that_overflows(dy, cache):
    x = np.log(cache.y / (1 - cache.y))
    return dy * np.exp(x) / (1 + np.exp(x)) ** 2


@mistake(lambda x: (x + 0.0, None), only_x, "gradient of x: shares memory with dy")
def identity_hands_dy_on(dy, cache):
    return dy


@mistake(activation.sigmoid_forward, only_x, "gradient of x: not linear in dy")
def gradient_clipped(dy, cache):
    return np.clip(activation.sigmoid_backward(dy, cache), -0.1, 0.1)


@mistake(activation.sigmoid_forward, only_x, "gradient of x: not 0 for dy = 0")
def gradient_with_weight_decay_in_it(dy, cache):
    return activation.sigmoid_backward(dy, cache) + 1e-4
