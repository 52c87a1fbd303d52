"""`npattn bench`: textbook, fused, every peer at its best, and the memory floor, side by side.

Every side gets the same weights, x and dy, and its results are compared with the first one's, ours, before anything is
timed. The sides then take turns in one process: one untimed call, so that each finds its own caches and threads as it
left them, and one timed. Figures are medians, with the distance of the quartiles beside them (±). All that is done once
under each allocator that keeps freed memory, and once with memory as it comes, in processes of their own; a side's time
is its best.

    sides       the documentation's shapes, the inputs; our own side
    peers       the article's classes as modules of PyTorch
    pytorch     PyTorch's sides: these modules in every way it runs them, or autograd on our own textbook
    torch_step  PyTorch's sides for the training step
    ranks       our side of it that two processes share
    timm, jax   the peers from these two
    device      what a GPU needs: waiting for it, its memory, its bandwidth
    size        what will be held, before it is
    measure     comparing the results, then times and memory
    runs        a block, a training step: compared and timed
    beside      a block and SE, in turns
    atlas       that for every block, into a file
    growth      the time against N, H·W and C, drawn
    allocators  which there are, and how a process gets one
    children    a task under several allocators, in processes of their own
    child       such a process
    best        several allocators' results as one
    report      a block's table, JSON
    winners     the closing table: who wins where

Any block of npattn.blocks can be timed. No list of them is here: the layer and what it must move follow from its card.
"""

from npattn.bench.sides import BenchError

__all__ = ["BenchError"]
