"""More of the zoo: wrong backwards of the blocks with options. Importing this file puts them there."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from npattn.attention.options import CbamForm, ChannelForm, SpatialForm
from npattn.ops import batch_norm
from npattn.variants import cbam, channel, eca, pooling, spatial
from tests.zoo import image, mistake, only_x


def formed(forward: Any, form: Any) -> Any:
    """A forward in one of its forms."""
    return functools.wraps(forward)(lambda x, params: forward(x, params, form))


def gate_weights(rng, bias=False):
    b1, b2 = (rng.standard_normal(3), rng.standard_normal(4)) if bias else (None, None)
    return channel.Params(rng.standard_normal((3, 4)), b1, rng.standard_normal((4, 3)), b2)


def kernel(rng, norm=False):
    of_norm = batch_norm.Params(rng.standard_normal(1), rng.standard_normal(1)) if norm else None
    return spatial.Params(rng.standard_normal((1, 2, 3, 3)), None, of_norm)


def for_gate(rng):
    return image(rng), gate_weights(rng, bias=True)


def for_kernel(rng):
    return image(rng), kernel(rng)


def for_both(rng):
    return image(rng), cbam.Params(gate_weights(rng), kernel(rng))


@mistake(formed(cbam.forward, CbamForm("parallel")), for_both, "x")
def parallel_gates_that_forget_each_other(dy, cache):
    x, g_c, g_s, ca, sa = cache.gated
    dx_s, dsa = spatial.backward(np.sum(dy * x, axis=1, keepdims=True), sa)
    dx_c, dca = channel.backward(np.sum(dy * x, axis=(2, 3), keepdims=True), ca)
    return dy * g_c * g_s + dx_s + dx_c, cbam.Params(dca, dsa)


@mistake(formed(cbam.forward, CbamForm("parallel")), for_both, "x")
def parallel_undone_as_a_sequence(dy, cache):
    x, g_c, g_s, ca, sa = cache.gated
    du = x * g_c
    du_gate, dsa = spatial.backward(np.sum(dy * du, axis=1, keepdims=True), sa)
    du = dy * g_s + du_gate
    dx_gate, dca = channel.backward(np.sum(du * x, axis=(2, 3), keepdims=True), ca)
    return du * g_c + dx_gate, cbam.Params(dca, dsa)


@mistake(formed(cbam.forward, CbamForm(residual=True)), for_both, "x")
def residual_without_its_dy(dy, cache):
    return cbam.backward(dy, cache._replace(residual=False))


@mistake(formed(cbam.forward, CbamForm("spatial-first")), for_both, "x")
def spatial_first_undone_first_step_first(dy, cache):
    (one, two), grads = cache.gated.steps, {}
    for step in (one, two):
        dy, grads[type(step.attention)] = cbam.step_backward(dy, step)
    return dy, cbam.Params(grads[channel.Cache], grads[spatial.Cache])


@mistake(formed(channel.forward, ChannelForm()), for_gate, "params.b2", "a constant factor of 0.5")
def bias_counted_once_in_two_runs(dy, cache):
    dx, grads = channel.backward(dy, cache)
    return dx, grads._replace(b2=grads.b2 / 2)


@mistake(formed(channel.forward, ChannelForm(mix="before")), for_gate, "x")
def mean_of_descriptors_that_gives_each_all(dy, cache):
    after = cache._replace(form=cache.form._replace(mix="after"), runs=cache.runs * 2)
    dx, _ = channel.backward(dy, after)
    return dx, channel.backward(dy, cache)[1]


@mistake(formed(spatial.forward, SpatialForm()), for_kernel, "x")
def maps_taken_back_in_the_other_order(dy, cache):
    form = cache.form._replace(maps=cache.form.maps[::-1])
    return spatial.backward(dy, cache._replace(form=form, maps=cache.maps[::-1]))


@mistake(formed(spatial.forward, SpatialForm()), lambda rng: (image(rng), kernel(rng, norm=True)), "x")
def norm_in_training_undone_as_in_eval(dy, cache):
    return spatial.backward(dy, cache._replace(by_batch=False))


@mistake(pooling.lse_pool_forward, only_x, "x")
def lse_without_its_sum(dy, cache):
    return dy[:, :, None, None] * cache.e


@mistake(pooling.lp_pool_forward, only_x, "x")
def lp_without_its_root(dy, cache):
    return 2 * cache.x * dy[:, :, None, None]


@mistake(eca.forward, lambda rng: (image(rng), eca.Params(rng.standard_normal(3))), "x")
def eca_with_the_kernel_not_flipped(dy, cache):
    dx, _ = eca.backward(dy, cache._replace(w=cache.w[::-1]))
    return dx, eca.backward(dy, cache)[1]
