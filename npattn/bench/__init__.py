"""`npattn bench`: textbook, fused, PyTorch and the memory floor, side by side.

Every side gets the same weights, x and dy, and its results are compared with the first one's, ours, before anything is
timed. The sides then take turns in one process: one untimed call, so that each finds its own caches and threads as it
left them, and one timed. Figures are medians, with the distance of the quartiles beside them (±).

    sides       the documentation's shapes, the inputs; our own side
    pytorch     PyTorch's sides: modules as the article writes them, or autograd on our own textbook
    device      what a GPU needs: waiting for it, its memory, its bandwidth
    size        what will be held, before it is
    measure     comparing the results, then times and memory
    runs        a block, a training step: compared and timed
    growth      the time against N, H·W and C, drawn
    report      tables, JSON

Any block of npattn.blocks can be timed. No list of them is here: the layer and what it must move follow from its card.
"""

from npattn.bench.sides import BenchError

__all__ = ["BenchError"]
