"""How a batch is cut: the one rule, from the sizes of the caches and the shape of x.

A pass over memory is cheap while what one step writes is still in a cache when the next step reads it. So the work is
done tile by tile, and a tile is `tile_bytes()` of x:

    sixteen times a core's L2, but no more than a quarter of L3

Smaller tiles fit L2 itself, but each NumPy call has a fixed cost, each row of a tile too, and two threads that make
many short calls wait for each other at the interpreter's lock. L3 is fast enough.

    images(N, …)    small images: as many in one group as fill half a tile. A group is worked on by one thread, so
                    there is an even number of groups, where N can be cut so, unless all images together are less than
                    a quarter of a tile. Of images side by side (layout.py) it cuts the channels in this way
    pixels(P, …)    large images: one image a group, cut along its pixels into tiles of equal width. In CBAM's passes
                    the arrays that take part share a tile

The number of threads plays no part, so that results do not depend on it.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

L2, L3 = 512 * 1024, 16 * 1024 * 1024  # where the system does not tell
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@functools.cache
def cache_bytes(level: int, otherwise: int) -> int:
    """The size of the cache of that level which the first processor uses, as the system (Linux) tells it."""
    for index in sorted(CACHES.glob("index*")):
        try:
            if int(text(index / "level")) == level and "Instruction" not in text(index / "type"):
                return int(text(index / "size").strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return otherwise


def text(path: Path) -> str:
    """What is in a file of the system's."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tile_bytes() -> int:
    """How much of x one tile holds."""
    return max(min(16 * cache_bytes(2, L2), cache_bytes(3, L3) // 4), 64 * 1024)


def even(total: int, most: int, multiple: int = 1) -> list[slice]:
    """Cut range(total) into slices of equal length, a multiple of `multiple`; the last one may be shorter.

    The length is at most `most`, rounded up to a multiple.
    """
    parts = math.ceil(total / max(most, multiple))
    length = math.ceil(total / parts / multiple) * multiple
    return [slice(start, min(start + length, total)) for start in range(0, total, length)]


@functools.lru_cache(maxsize=256)
def images(N: int, image_bytes: int) -> list[slice]:
    """Groups of images: one large image, or as many small ones as fill half a tile."""
    parts = math.ceil(N / max(tile_bytes() // 2 // image_bytes, 1))
    if parts > 1 or N * image_bytes >= tile_bytes() // 4:  # two threads take longer than one for what is less
        parts += parts % 2
    return even(N, math.ceil(N / max(parts, 1)))


@functools.lru_cache(maxsize=256)
def pixels(P: int, column_bytes: int, multiple: int = 64) -> list[slice]:
    """Tiles of an image of P pixels, `column_bytes` of which belong to one pixel; all of it if it is small."""
    return even(P, tile_bytes() // column_bytes, multiple)


@functools.lru_cache(maxsize=256)
def rows(count: int, row_bytes: int) -> list[slice]:
    """Blocks of whole rows: the channels of an image, for what is summed over its pixels."""
    return even(count, tile_bytes() // row_bytes)
