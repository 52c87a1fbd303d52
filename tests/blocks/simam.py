"""SimAM, docs/blocks/simam.md."""

from __future__ import annotations

import numpy as np
import pytest

import npattn
from npattn.attention import simam
from npattn.explain.watch import walked, watched
from npattn.ops import sigmoid
from tests.support import by_index
from tests.support.by_index import filled, gates_of, random, same, value
from tests.support.mistakes import mistake, only_x

SQUARES = True
MORE = ({"e_lambda": 0.5},)


def reference(x, w, e_lambda=1e-4):
    """As the authors' code has it; there a single pixel is 0/0."""
    others = max(x.shape[2] * x.shape[3] - 1, 1)
    square = (x - x.mean(dim=(2, 3), keepdim=True)).pow(2)
    return x * (square / (4 * (square.sum(dim=(2, 3), keepdim=True) / others + e_lambda)) + 0.5).sigmoid()


def derivation():
    x = by_index.image()
    N, C, H, W = x.shape
    P, lam = H * W, 0.25
    (y, cache), forward = watched(simam.forward, x, lam)
    dy = random(*x.shape, seed=22)
    dx, backward = watched(simam.backward, dy, cache)
    there, back = list(walked(forward)), list(walked(backward))
    at, dyp = x.reshape(N, C, P), dy.reshape(N, C, P)

    mean = filled((N, C), lambda n, c: sum(at[n, c, p] for p in range(P)) / P)
    d = filled((N, C, P), lambda n, c, p: at[n, c, p] - mean[n, c])
    v = filled((N, C), lambda n, c: sum(d[n, c, p] ** 2 for p in range(P)) / (P - 1))
    u = filled((N, C, P), lambda n, c, p: d[n, c, p] ** 2 / (4 * (v[n, c] + lam)) + 1 / 2)
    g = by_index.sigmoid(u)
    dg = filled((N, C, P), lambda n, c, p: dyp[n, c, p] * at[n, c, p])
    du = dg * g * (1 - g)
    above = filled((N, C, P), lambda n, c, p: du[n, c, p] * d[n, c, p] / (2 * (v[n, c] + lam)))
    dv = filled((N, C), lambda n, c: -sum(du[n, c, p] * d[n, c, p] ** 2 for p in range(P)) / (4 * (v[n, c] + lam) ** 2))
    below = filled((N, C, P), lambda n, c, p: 2 * d[n, c, p] * dv[n, c] / (P - 1))
    dd = above + below
    gate = filled((N, C, P), lambda n, c, p: dd[n, c, p] - sum(dd[n, c, j] for j in range(P)) / P)
    for steps, name, tag, wanted in (
        (there, "d", "SIM.1", d), (there, "v", "SIM.2", v), (there, "u", "SIM.3", u), (there, "g", "SIM.4", g),
        (back, "dx_direct", "SIM.5", dyp * g), (back, "dg", "SIM.5", dg), (back, "du", "SIM.4", du),
        (back, "dd_above", "SIM.3", above), (back, "dv", "SIM.3", dv), (back, "dd_below", "SIM.2", below),
        (back, "dx_gate", "SIM.1", gate),
    ):  # fmt: skip
        same(value(steps, name, tag).reshape(wanted.shape), wanted, f"{tag}, {name}")
    same(y.reshape(N, C, P), at * g, "SIM.5")
    same(dx.reshape(N, C, P), dyp * g + gate, "the two ways meet")


def energy(w, b, t, others, lam):
    """Of the neuron t: how far t is from 1 and the others are from −1 under the line with slope w through b."""
    return np.mean((-1 - (w * others + b)) ** 2) + (1 - (w * t + b)) ** 2 + lam * w * w


def claim_the_least_energy_has_a_closed_form():
    """Against least squares: the energy is a sum of squares of numbers that are linear in w and b."""
    pixels, lam = random(7), 0.3
    for k, t in enumerate(pixels):
        others = np.delete(pixels, k)
        mu, d, s = others.mean(), t - others.mean(), others.var() + lam
        share = 1 / np.sqrt(len(others))
        rows = np.array([[share * o, share] for o in others] + [[t, 1], [np.sqrt(lam), 0]])
        wanted = np.array([-share] * len(others) + [1, 0])
        (w, b), *_ = np.linalg.lstsq(rows, wanted)
        assert w == pytest.approx(2 * d / (d * d + 2 * s), rel=1e-11)
        assert b == pytest.approx(-w * (t + mu) / 2, rel=1e-11)
        least = energy(w, b, t, others, lam)
        assert least == pytest.approx(4 * s / (d * d + 2 * s), rel=1e-11)
        assert 1 / least == pytest.approx(d * d / (4 * s) + 1 / 2, rel=1e-11)
        for step in (-1e-3, 1e-3):
            assert energy(w + step, b, t, others, lam) > least
            assert energy(w, b + step, t, others, lam) > least


def claim_a_gate_lies_between_two_numbers():
    """From sigmoid(1/2), at the mean, to sigmoid(1/2 + (P − 1)²/4P): one pixel alone, and λ small beside it."""
    x = np.zeros((1, 1, 3, 4))
    x[0, 0, 1, 2] = 5
    P = 12
    _, cache = simam.forward(x, 1e-12)
    assert cache.g.max() == pytest.approx(by_index.sigmoid(1 / 2 + (P - 1) ** 2 / (4 * P)))
    _, cache = simam.forward(random(2, 3, 4, 5))
    assert cache.g.min() >= by_index.sigmoid(0.5)


def claim_level_and_sign_and_size():
    """The gates do not see what is added to a channel, nor its sign, nor, but for λ, its size."""
    x = random(2, 3, 4, 5)
    gates = simam.forward(x, 1e-12)[1].g
    for other in (x + 7, -x, 3 * x):
        np.testing.assert_allclose(simam.forward(other, 1e-12)[1].g, gates, rtol=1e-9)


def claim_a_single_pixel_stands_out_from_nothing():
    x = random(2, 3, 1, 1)
    y, cache = simam.forward(x)
    same(y, x * by_index.sigmoid(0.5), "y")
    same(simam.backward(np.ones_like(x), cache), np.full_like(x, by_index.sigmoid(0.5)), "dx")


def claim_what_the_layer_says():
    assert npattn.SimAM().count() == 0
    assert gates_of(npattn.SimAM(), random(2, 3, 4, 5)) == {"pixel": (2, 3, 4, 5)}
    with pytest.raises(ValueError, match="e_lambda: expected a finite number from 1e-30"):
        npattn.SimAM(0)


# Wrong backwards


def parts(dy, cache):
    """The direct path, and what comes back to d on its two ways."""
    x, d, v, g, gate, lam = cache
    du = sigmoid.backward(dy * x, gate)
    dv = -np.sum(du * d * d, axis=(2, 3), keepdims=True) / (4 * (v + lam) ** 2)
    return dy * g, du * d / (2 * (v + lam)), 2 * d * dv / (x.shape[2] * x.shape[3] - 1)


def centred(dd):
    return dd - dd.mean(axis=(2, 3), keepdims=True)


@mistake(simam.forward, only_x, "x", "direct path")
def simam_direct_path_alone(dy, cache):
    return dy * cache.g


@mistake(simam.forward, only_x, "x", "the term of a variance over axes (2, 3)")
def simam_variance_taken_for_a_constant(dy, cache):
    direct, above, _ = parts(dy, cache)
    return direct + centred(above)


@mistake(simam.forward, only_x, "x", "the same along axes (2, 3)")
def simam_mean_taken_for_a_constant(dy, cache):
    direct, above, below = parts(dy, cache)
    return direct + above + below


@mistake(simam.forward, only_x, "x", "the term of a variance over axes (2, 3)")
def simam_variance_divided_by_all_pixels(dy, cache):
    direct, above, below = parts(dy, cache)
    P = dy.shape[2] * dy.shape[3]
    return direct + centred(above + below * (P - 1) / P)
