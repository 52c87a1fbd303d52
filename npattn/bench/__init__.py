"""`npattn bench`: textbook, fused, PyTorch and the memory floor, side by side.

Every side gets the same weights, x and dy, and its results are compared with the fused ones before anything is timed.
The sides then take turns in one process: one untimed call, so that each finds its own caches and threads as it left
them, and one timed. Figures are medians, with the distance of the quartiles beside them (±).

    sides       the blocks, their shapes and inputs; our own side
    pytorch     PyTorch's sides
    device      what a GPU needs: waiting for it, its memory, its bandwidth
    measure     comparing the results, then times and memory
    report      tables, JSON
    command     the command
"""

from npattn.bench.command import add_parser
from npattn.bench.sides import BenchError

__all__ = ["BenchError", "add_parser"]
