# %% [markdown]
# # Train, and look at the attention
#
# The demo's network with CBAM in it, a few steps on the digits that come with the package, and its gates before and
# after. `npattn train` does the whole of it, with more digits, epochs and figures.

# %%
import matplotlib.pyplot as plt
import numpy as np

from npattn import data, models, no_grad
from npattn.ops import loss
from npattn.optimizer import AdamW, one_cycle
from npattn.training import prepared

digits = data.load()
model = models.digits("cbam", rng=0)
print(f"{len(digits.train_labels):,} digits to train on, {model.count():,} parameters")

shown = [int(np.argmax(digits.test_labels == digit)) for digit in (1, 4, 7)]  # all below 500


def gates():
    """The spatial and channel gates of every stage for the digits that we look at."""
    with no_grad():
        model(prepared(digits.test_images[:500]))
    return {name: gate[shown] for name, gate in model.attention.items()}


model.train()  # batch normalisation by the batch, as the first step will see it
before = gates()

# %% [markdown]
# ## The loop
#
# Forward, loss, backward, update: four lines. The gradient of the loss is where the backward starts,
# $\mathrm{d}\ell = 1$.

# %%
steps, batch = 40, 24
order = np.random.default_rng(0).permutation(len(digits.train_labels))
optimizer = AdamW(model.params, decay=0.02)
losses = []
for step in range(steps):
    chosen = order[step * batch : (step + 1) * batch]
    scores = model.train()(prepared(digits.train_images[chosen]))
    value, cache = loss.forward(scores, digits.train_labels[chosen].astype(np.int64))
    model.backward(loss.backward(np.ones_like(value), cache))
    optimizer.step(model.grads, one_cycle(step, steps, 0.01))
    losses.append(float(value))

print(f"loss {losses[0]:.2f} at the start, {np.mean(losses[-10:]):.2f} at the end")
assert np.mean(losses[-10:]) < 1.6

# %%
with no_grad():
    answers = np.argmax(model.eval()(prepared(digits.test_images[:500])), axis=1)
accuracy = np.mean(answers == digits.test_labels[:500])
print(f"{accuracy:.1%} of 500 test digits right, after {steps * batch:,} training digits seen once")

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(losses, color="#b5223f")
axes.set(xlabel="step", ylabel="cross-entropy (nats)")
axes.set_title(f"Loss: {losses[0]:.2f} at the start, {np.mean(losses[-10:]):.2f} over the last ten steps")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## What the gates do
#
# Above each other: the digit, the spatial gate of stage 2 before training and after it. Bright is open. Before, it is
# near one half at every pixel; a few steps have moved it. What a whole training makes of the gates, and what can be
# read from them and what not, is told [with the demo](../demo.md#what-the-gates-look-like).

# %%
after = gates()
name = "stage2.attention.spatial"
figure, grid = plt.subplots(3, len(shown), figsize=(5, 5), layout="constrained")
for column, index in enumerate(shown):
    grid[0, column].imshow(digits.test_images[index], cmap="gray_r")
    for row, found in ((1, before), (2, after)):
        picture = grid[row, column].imshow(found[name][column, 0], cmap="magma", vmin=0, vmax=1)
for axes, title in zip(grid[:, 0], ("digit", "before", "after"), strict=True):
    axes.set_ylabel(title)
for axes in grid.flat:
    axes.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=grid, shrink=0.5, label="spatial gate: 0 shut, 1 open")
figure.suptitle("Spatial gate of stage 2, before and after")
plt.show()

# %% [markdown]
# And the channel gates of stage 3, one line a digit. Before, the three lines nearly lie on each other: the gates differ
# from channel to channel, by chance, and hardly from digit to digit. How far the lines are apart is what this attention
# has learnt to tell.

# %%
name = "stage3.attention.channel"
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
for axes, found, title in ((left, before, "before"), (right, after, "after")):
    styles = ("#1b1b3a", "-"), ("#b5223f", "--"), ("#8793a9", "-")  # dark, middling, light: apart in grey, too
    for row, digit, (colour, dashes) in zip(found[name][:, :, 0, 0], (1, 4, 7), styles, strict=True):
        axes.plot(row, dashes, lw=0.9, color=colour, label=str(digit))
    axes.set(title=f"stage 3, {title}", xlabel="channel", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
left.set_ylabel("channel gate")
figure.legend(*right.get_legend_handles_labels(), title="digit", loc="outside right upper", frameon=False)
plt.show()

spread = {when: float(np.std(found[name], axis=0).mean()) for when, found in (("before", before), ("after", after))}
print(f"mean spread of a gate over the three digits: {spread['before']:.3f} before, {spread['after']:.3f} after")
