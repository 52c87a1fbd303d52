"""The zoo's wrong backwards of windows, resizing and concatenation."""

from __future__ import annotations

import numpy as np

from npattn.ops import concatenate, resize, window_avg_pool, window_max_pool
from npattn.ops.window import padded
from tests.support.mistakes import image, mistake, only_x


def averaged(x):
    return window_avg_pool.forward(x, 3, 2, 1)


def averaged_within(x):
    return window_avg_pool.forward(x, 3, 2, 1, count_padding=False)


def largest(x):
    return window_max_pool.forward(x, 3, 1, 1)


def resized(x):
    return resize.forward(x, (8, 9))


def of_two(x, z):
    return concatenate.forward((x, z), 1)


def reads(on):
    """What each place of the windows reads of the padded image."""
    return [(..., rows, columns) for rows, columns in on.slide.reads(*on.shape[2:])]


def two_images(rng):
    return image(rng, (2, 3, 4, 5)), image(rng, (2, 3, 4, 5))


@mistake(averaged, only_x, "x", "= where += belongs")
def overlapping_windows_overwrite_each_other(dy, cache):
    dx_bar = padded(np.zeros(cache.on.shape), cache.on, 0)
    for shift in reads(cache.on):
        dx_bar[shift] = dy / cache.m  # = where += belongs
    return dx_bar[:, :, 1:-1, 1:-1].copy()


@mistake(averaged_within, only_x, "x")
def padding_counted_on_the_way_back_alone(dy, cache):
    return window_avg_pool.backward(dy, cache._replace(m=np.full_like(cache.m, 9)))


@mistake(averaged, only_x, "x")
def padding_not_cut_off(dy, cache):
    H, W = cache.on.shape[2:]
    dx_bar = padded(np.zeros(cache.on.shape), cache.on, 0)
    for shift in reads(cache.on):
        dx_bar[shift] += dy / cache.m
    return dx_bar[:, :, :H, :W].copy()  # the corner, and not the middle


@mistake(largest, only_x, "x", "= where += belongs")
def one_window_alone_sends_to_a_maximum(dy, cache):
    on = cache.on
    dx_bar = padded(np.zeros(on.shape), on, 0)
    for place, shift in enumerate(reads(on)):
        won = cache.i[..., 0] == place
        dx_bar[shift] = np.where(won, dy, dx_bar[shift])
    return dx_bar[:, :, 1:-1, 1:-1].copy()


@mistake(largest, only_x, "x")
def a_maximum_shared_by_its_window(dy, cache):
    mean = window_avg_pool.Cache(cache.on, np.full((1, 1, 1, 1), 9.0))
    return window_avg_pool.backward(dy, mean)


@mistake(resized, only_x, "x", "= where += belongs")
def a_copy_alone_sends_back(dy, cache):
    dx = np.zeros(cache.shape)
    dx[:, :, cache.rows[:, None], cache.columns] = dy  # of several writes to a pixel the last one stays
    return dx


@mistake(resized, only_x, "x")
def copies_averaged(dy, cache):
    dx = resize.backward(dy, cache)
    return dx / resize.backward(np.ones_like(dy), cache)  # a mean of the copies in place of their sum


@mistake(of_two, two_images, "x", "it is the gradient of z: the two are exchanged")
def parts_taken_in_the_wrong_order(dy, cache):
    return concatenate.backward(dy, cache)[::-1]
