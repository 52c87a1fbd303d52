# %% [markdown]
# # Check a layer of your own, by hand
#
# You have derived a backward. Is it the derivative of the forward? Here is a block that is not in the library, with a
# mistake in it, and a check of fifteen lines that finds it. So you see what a check is made of. To check in earnest use
# [npattn.gradcheck](../checking.md), which comes last here.
#
# The block is a *residual gate*: $y = x + x \cdot g(x)$ with one gate an image, $g_n = \sigma(\text{mean of } x_n)$.

# %%
import numpy as np


def forward(x):
    s = x.mean(axis=(1, 2, 3), keepdims=True)
    g = 1 / (1 + np.exp(-s))
    return x + x * g, (x, g)


def backward(dy, cache):
    x, g = cache
    dx_direct = dy * g
    dg = np.sum(dy * x, axis=(1, 2, 3), keepdims=True)
    ds = dg * g * (1 - g)
    dx_gate = ds / x[0].size
    return dx_direct + dx_gate


# %% [markdown]
# ## A check by hand
#
# float64, height and width that differ, more than one image, numbers of size 1, and a random signed cotangent. Why each
# of these: [how a check can fool you](../checking-pitfalls.md).


# %%
def check(forward, backward, x, rng, step=1e-5):
    """The largest difference between the backward and central differences, relative to the largest entry."""
    y, cache = forward(x)
    dy = rng.standard_normal(y.shape)
    by_hand = backward(dy, cache)
    numeric = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        here = x[index]
        x[index] = here + step
        up = forward(x)[0]
        x[index] = here - step
        down = forward(x)[0]
        x[index] = here
        numeric[index] = np.sum(dy * (up - down)) / (2 * step)
    return np.max(np.abs(by_hand - numeric)) / np.max(np.abs(numeric))


rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 4, 5))
error = check(forward, backward, x, rng)
print(f"off by {error:.1%}")
assert error > 0.1

# %% [markdown]
# Red. In $y = x + x \cdot g$ the input is read *three* times: as the first term, as the factor, and by the gate. The
# backward above has two of the three. The first term's gradient is $\mathrm{d}y$ itself.


# %%
def repaired(dy, cache):
    return dy + backward(dy, cache)


error = check(forward, repaired, x, rng)
print(f"off by {error:.0e}")
assert error < 1e-8

# %% [markdown]
# Green. And does this check *turn* red for a small mistake? Break the repaired one on purpose: a mean over the wrong
# number of pixels.


# %%
def broken(dy, cache):
    x, g = cache
    dg = np.sum(dy * x, axis=(1, 2, 3), keepdims=True)
    return dy + dy * g + dg * g * (1 - g) / x[0, 0].size  # the mean was over channels too


error = check(forward, broken, x, rng)
print(f"off by {error:.1%}")
assert error > 1e-3

# %% [markdown]
# ## The same with npattn.gradcheck
#
# The library's checker does all of this, and more: complex steps where they are possible, kinks and ties treated as
# what they are, every input, and a guess at the cause. It takes a pair of functions.

# %%
import npattn

print(npattn.gradcheck((forward, repaired), x))

# %%
report = npattn.gradcheck((forward, backward), x, raise_exception=False)
print(report)
assert not report

# %% [markdown]
# ## CBAM's backward, written by you
#
# It takes parameters too, arrays or tuples of them, and asks for a gradient of each. Here the library's own pair:

# %%
from npattn.attention import cbam, channel, spatial

R, C, k = 2, 3, 3
params = cbam.Params(
    channel.Params(rng.standard_normal((R, C)), rng.standard_normal((C, R))),
    spatial.Params(rng.standard_normal((1, 2, k, k))),
)
print(npattn.gradcheck((cbam.forward, cbam.backward), x, params))

# %% [markdown]
# Put your own function in the place of `cbam.backward`, and let it judge.
