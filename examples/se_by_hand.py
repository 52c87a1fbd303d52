# %% [markdown]
# # Squeeze-and-excitation by hand
#
# Write the block from its equations, forward and backward, with nothing but NumPy. Then let finite differences judge,
# and the library. The equations are {tag}`SE.1` to {tag}`SE.6`.

# %%
import numpy as np

rng = np.random.default_rng(5)
N, C, H, W, R = 2, 4, 3, 5, 2
x = rng.standard_normal((N, C, H, W))
w1, w2 = rng.standard_normal((R, C)), rng.standard_normal((C, R))

# %% [markdown]
# ## Forward

# %%
s = x.mean(axis=(2, 3))  # SE.1
z = s @ w1.T  # SE.2
h = np.maximum(z, 0)  # SE.3
a = h @ w2.T  # SE.4
g = 1 / (1 + np.exp(-a))  # SE.5
y = x * g[:, :, None, None]  # SE.6

print("the gates, one row an image:")
print(g.round(3))

# %% [markdown]
# ## Backward
#
# A random signed cotangent, and the lines in reverse. Each one sends to what it read.

# %%
dy = rng.standard_normal(y.shape)

dx_direct = dy * g[:, :, None, None]  # SE.6, to the factor x
dg = np.sum(dy * x, axis=(2, 3))  # SE.6, to the factor g, which was broadcast: a sum
da = dg * g * (1 - g)  # SE.5
dh = da @ w2  # SE.4
dw2 = da.T @ h  # SE.4
dz = dh * (z > 0)  # SE.3
ds = dz @ w1  # SE.2
dw1 = dz.T @ s  # SE.2
dx_gate = np.broadcast_to(ds[:, :, None, None] / (H * W), x.shape)  # SE.1
dx = dx_direct + dx_gate  # x was used twice

# %% [markdown]
# ## The check
#
# Put the forward into a function, move each entry by ±ε, and watch Σ dy · y.


# %%
def forward(x, w1, w2):
    s = x.mean(axis=(2, 3))
    g = 1 / (1 + np.exp(-np.maximum(s @ w1.T, 0) @ w2.T))
    return x * g[:, :, None, None]


def by_differences(array, step=1e-5):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        here = array[index]
        array[index] = here + step
        up = forward(x, w1, w2)
        array[index] = here - step
        down = forward(x, w1, w2)
        array[index] = here
        gradient[index] = np.sum(dy * (up - down)) / (2 * step)
    return gradient


for name, array, by_hand in (("dx", x, dx), ("dw1", w1, dw1), ("dw2", w2, dw2)):
    difference = np.max(np.abs(by_hand - by_differences(array)))
    print(f"{name:<4} largest difference {difference:.0e}")
    assert difference < 1e-8

# %% [markdown]
# ## And if the gate's path is forgotten?
#
# `dx_direct` alone has the right shape and about the right size.

# %%
share = np.linalg.norm(dx_gate) / np.linalg.norm(dx)
print(f"the gate's path is {share:.1%} of the length of dx")

# %% [markdown]
# With weights a hundred times smaller it would be ten thousand times smaller, and a loose check would not see it:
# [how a check can fool you](#pitfall-small-weights).
#
# ## The library says the same

# %%
from npattn.attention import se

y_library, cache = se.forward(x, se.Params(w1, w2))
dx_library, grads = se.backward(dy, cache)
for name, ours, theirs in (
    ("y", y, y_library),
    ("dx", dx, dx_library),
    ("dw1", dw1, grads.w1),
    ("dw2", dw2, grads.w2),
):
    assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-14), name
print("y, dx, dw1 and dw2 agree")
