"""Find the bug: ten right backwards with one mistake each. What is right stands in the library."""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """A mistake that people really make."""

    of: str  # the exercise whose answer it is put into
    right: str  # what stands there, once
    wrong: str  # what stands in its place
    says: str  # a part of what the checker names as the likely cause, or the tensor that it blames
    hints: tuple[str, ...]


BUGS = (
    Bug(
        "se", "dx = dx_direct + dx_gate", "dx = dx_direct", "direct path",
        ("The gradients of the weights are right. So all is right as far as w1.", "How often is x used in forward?"),
    ),
    Bug(
        "relu", "xp.where(cache.blocked,", "xp.where(dy <= 0,", "a mask",
        ("Half of the entries are right.", "Whose sign decided in forward whether a number passes?"),
    ),
    Bug(
        "linear", "xp.sum(dy_rows, axis=0)", "xp.mean(dy_rows, axis=0)", "params.b",
        ("Only the bias is wrong, by a constant factor.", "What undoes a broadcast?"),
    ),
    Bug(
        "global_avg_pool", "dx = share", "dx = H * W * share", "H·W",
        ("It is wrong by a constant factor.", "What share of the mean is one pixel's?"),
    ),
    Bug(
        "loss", "-dloss / N", "-dloss", "axis 0 of z",
        ("It is wrong by a constant factor, the batch's size.", "The loss is the mean over the batch."),
    ),
    Bug(
        "conv2d", "] += du[", "] = du[", "where += belongs",
        ("The weights are right: it is on the way to x.", "How often did the unfolding copy one pixel?"),
    ),
    Bug(
        "batch_norm", "dx_hat - along - level", "dx_hat - level", "the term of a variance",
        ("In eval mode it is right.", "Which statistics of the batch does x go into?"),
    ),
    Bug(
        "channel", "dw1 = from_max.w1 + from_avg.w1", "dw1 = from_avg.w1", "params.w1",
        ("x and w2 are right.", "How often does forward use w1?"),
    ),
    Bug(
        "spatial", "dm_avg, dm_max = dm[:, 0:1, :, :], dm[:, 1:2, :, :]",
        "dm_max, dm_avg = dm[:, 0:1, :, :], dm[:, 1:2, :, :]", "x: ",
        ("The kernel is right: it is behind the convolution.", "In which order did forward lay the two maps?"),
    ),
    Bug(
        "cbam", "dg_c = xp.sum(du * x,", "dg_c = xp.sum(du_direct * x,", "params.ca.w1",
        ("The spatial gate's weights are right.", "The channel gate scales x for both readers of u."),
    ),
)  # fmt: skip
