"""Where the digit is in a picture: paper, shadows and specks told from ink.

A photograph has more in it than a digit. Its light falls off, a hand throws a shadow, the table shows at an edge, and
there are specks. What counts as ink here is thinner than a third of the picture and stands out from what is around it;
of that, the largest connected part that does not run out of the picture, and what is near enough to be of its strokes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LONGEST = 1024  # pixels a side that are looked at; a larger picture is reduced first
THICKEST = 0.3  # of the longer side: a wider dark or light patch is paper in another light
FAINTEST = 24  # of 255: ink that stands out less from its paper is none
BORDER = 0.1  # of a part that runs out of the picture: one within it is the digit if it has as much ink
EIGHT = np.ones((3, 3))  # neighbours, corners among them, are of one mark
AGREES = 1.25  # times its contrast, for what the border lets one expect
DIM = 32  # of 255: in less light a share says nothing
PART = 0.03  # of the digit's largest part: a smaller one is a speck
PARTS = 3  # times that a part may be near only to another part: no digit is a chain of many
NEAR = 0.2  # of the digit's longer side: a part that is further off belongs to something else


class Ink(NamedTuple):
    """A digit found in a picture."""

    ink: np.ndarray  # (h, w), float64, 0 to 255, light on dark; 0 where nothing of the digit is
    box: tuple[int, int, int, int]  # top, bottom, left, right of it in the picture, the ends not included
    inverted: bool  # whether it was dark on light
    specks: int  # how many other marks were left out
    doubts: list[str]  # why it may be no digit


def find(grey: np.ndarray) -> Ink | None:
    """The digit in a picture of greys (H, W), 0 to 255; None if nothing stands out from its paper.

    It is looked for as light on dark and as dark on light. What stands out more from what is around it is taken, sooner
    the one that agrees with the border, which is mostly paper.
    """
    spread = max(1, round(max(grey.shape) / 300))
    likely = is_dark_on_light(grey)
    found = [
        (marks.contrast * (AGREES if inverted == likely else 1), inverted, marks)
        for inverted in (likely, not likely)
        if (marks := marked(grey, inverted, spread)) is not None
    ]
    if not found:
        return None
    _, inverted, best = max(found, key=lambda each: each[0])
    return cut_out(best, inverted, spread)


def is_dark_on_light(grey: np.ndarray) -> bool:
    """Whether the ink seems darker than its paper: what differs most from a plane through the border is darker."""
    H, W = grey.shape
    ring = np.ones((H, W), bool)
    rim = max(1, min(H, W) // 30)
    ring[rim:-rim, rim:-rim] = False
    rows, cols = np.mgrid[:H, :W]
    plane = np.stack([np.ones((H, W)), rows / H, cols / W], axis=-1)
    weights, at = np.ones(int(ring.sum())), plane[ring]
    for _ in range(5):  # each time with less weight for what is off it: marks and shadows at the edge
        fit = np.linalg.lstsq(at * weights[:, None], grey[ring] * weights, rcond=None)[0]
        weights = 1 / np.sqrt(1 + ((grey[ring] - at @ fit) / 8) ** 2)
    low, high = np.percentile(grey - plane @ fit, (0.2, 99.8))
    return bool(-low > high)


class Marks(NamedTuple):
    """What stands out in a picture, light on dark."""

    light: np.ndarray  # (H, W), the picture
    paper: np.ndarray  # (H, W), what it would be without ink
    above: np.ndarray  # (H, W), 0 to 255, how much of what it could be lighter it is, smoothed
    labels: np.ndarray  # (H, W), 0 or the number of a mark, from 1
    amounts: np.ndarray  # of ink in each
    main: int  # which is the largest part of the digit, from 0
    mine: np.ndarray  # (H, W), the pixels of the digit
    contrast: float  # 0 to 1: the share of the light that is lost between the digit and what is around it


def marked(grey: np.ndarray, inverted: bool, spread: int) -> Marks | None:
    """The marks that are lighter than their paper, and which of them are the digit; None if there are none."""
    from scipy import ndimage

    light = 255 - grey if inverted else grey
    smooth = light if min(light.shape) <= 28 else ndimage.gaussian_filter(ndimage.median_filter(light, 3), spread / 2)
    # what is left of the picture without all that is narrow: also shadows, with their edges, and light that falls off
    paper = ndimage.grey_opening(smooth, size=2 * int(THICKEST * max(light.shape) / 2) + 1, mode="nearest")
    above = darkening(smooth, paper)
    threshold = otsu(above)
    labels, count = ndimage.label(above > threshold, structure=EIGHT)
    if count == 0:
        return None
    amounts, boxes, main = sized(above, labels, count)
    for _ in range(3):  # what runs out of the picture may be a shadow with the digit in it: the digit is darker still
        if not runs_out(boxes[main], light.shape):
            break
        threshold = otsu(above[labels == main + 1])
        finer, count = ndimage.label(above > threshold, structure=EIGHT)
        more = sized(above, finer, count) if count else None
        if more is None or runs_out(more[1][more[2]], light.shape) or more[0][more[2]] < BORDER * amounts[main]:
            break
        labels, (amounts, boxes, main) = finer, more
    mine = together(labels, main, amounts, boxes, light.shape)
    rows, cols = (slice(max(0, part.start - margin), part.stop + margin) for part, margin in around(boxes[main]))
    beside = smooth[rows, cols][labels[rows, cols] == 0]
    if beside.size == 0:
        return None
    ends = np.percentile(smooth[mine], 75), np.median(beside)
    dark, bright = sorted(255 - end for end in ends) if inverted else sorted(ends)
    contrast = float((bright - dark) / max(bright, DIM)) if ends[0] > ends[1] else 0.0
    return Marks(light, paper, above, labels, amounts, main, mine, contrast)


def darkening(light: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """How much of the way from its paper to the brightest there is each pixel goes, 0 to 255.

    Of dark ink on light paper, inverted, that is the share of the paper's light that it takes away. It is the same in a
    shadow as beside it, where the difference of two greys is not.
    """
    return np.asarray(255 * (light - paper) / np.maximum(255 - paper, DIM))


def around(box: tuple[slice, slice]) -> list[tuple[slice, int]]:
    """The rows and the columns of a box, each with how far one looks beyond them."""
    margin = 2 + max(part.stop - part.start for part in box) * 3 // 4  # past a ring, if it is what a ring encloses
    return [(part, margin) for part in box]


def sized(above: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, list[tuple[slice, slice]], int]:
    """The ink of each mark, its rows and columns, and which one is the largest part of the digit."""
    from scipy import ndimage

    amounts = np.asarray(ndimage.sum_labels(above, labels, np.arange(1, count + 1)))
    boxes = ndimage.find_objects(labels)
    return amounts, boxes, largest(amounts, boxes, above.shape)


def cut_out(marks: Marks, inverted: bool, spread: int) -> Ink | None:
    """The digit alone, stretched to 255, and whether it is likely one."""
    from scipy import ndimage

    above, labels, mine = marks.above, marks.labels, marks.mine
    ground = above[labels == 0]
    beside = ndimage.binary_dilation(mine, iterations=4 * spread + 2) & (labels == 0)
    level = float(np.median(above[beside])) if beside.any() else 0.0
    high = float(np.percentile(above[mine], 90)) - level
    if min(high, float(np.percentile((marks.light - marks.paper)[mine], 90))) < FAINTEST:
        return None
    near = ndimage.binary_dilation(mine, iterations=1 + spread) & ((labels == 0) | mine)  # the soft edge of its strokes
    ink = np.where(near, np.clip((darkening(marks.light, marks.paper) - level) * (255 / high), 0, 255), 0)
    rows, cols = (np.flatnonzero(np.max(np.where(mine, 255, ink), axis=axis) > 64) for axis in (1, 0))
    top, bottom, left, right = box = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
    own = set(np.unique(labels[mine]).tolist())
    boxes = ndimage.find_objects(labels)
    specks = [i for i in range(len(marks.amounts)) if i + 1 not in own]
    others = np.array([marks.amounts[i] for i in specks if not runs_out(boxes[i], labels.shape)])
    noise = float(np.percentile(np.abs(ground - np.median(ground)), 75)) if ground.size else 0.0
    shape = mine[top:bottom, left:right]
    why = doubts(shape, others / marks.amounts[marks.main], high, noise)
    return Ink(ink[top:bottom, left:right], box, inverted, len(specks), why)


def otsu(values: np.ndarray) -> float:
    """The threshold that parts the numbers into two groups as far from each other as possible (Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    beyond = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * beyond * (sums / below - (sums[-1] - sums) / beyond) ** 2
    apart = np.nan_to_num(apart)
    best = np.flatnonzero(apart >= apart.max() * (1 - 1e-9))  # all the way from one group to the other
    return float(edges[1:][best].mean())


def largest(amounts: np.ndarray, boxes: list[tuple[slice, slice]], shape: tuple[int, ...]) -> int:
    """Which mark is the digit's largest part: the one with most ink, sooner one that is wholly in the picture."""
    within = np.array([not runs_out(box, shape) for box in boxes])
    main = int(np.argmax(amounts))
    inner = int(np.argmax(np.where(within, amounts, -1)))
    return inner if within[inner] and amounts[inner] >= BORDER * amounts[main] else main


def runs_out(box: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    """Whether a mark touches the edge of the picture."""
    return any(side.start == 0 or side.stop == length for side, length in zip(box, shape, strict=True))


def together(
    marks: np.ndarray, main: int, amounts: np.ndarray, boxes: list[tuple[slice, slice]], shape: tuple[int, ...]
) -> np.ndarray:
    """The pixels of the digit: its largest part, and those near it, as of a stroke that was interrupted."""
    from scipy import ndimage

    mine = marks == main + 1
    reach = NEAR * max(side.stop - side.start for side in boxes[main])
    wanted = [
        i
        for i, amount in enumerate(amounts)
        if i != main
        and amount >= PART * amounts[main]
        and (runs_out(boxes[main], shape) or not runs_out(boxes[i], shape))
    ]
    for _ in range(PARTS):
        distance = ndimage.distance_transform_edt(~mine)
        near = [i for i in wanted if distance[boxes[i]][marks[boxes[i]] == i + 1].min() <= reach]
        if not near:
            break
        mine |= np.isin(marks, [i + 1 for i in near])
        wanted = [i for i in wanted if i not in near]
    return np.asarray(mine)


def doubts(mask: np.ndarray, others: np.ndarray, contrast: float, noise: float) -> list[str]:
    """Why what was found may be no digit, in words: its shape `mask`, and the other marks' ink as shares of its own."""
    from scipy import ndimage

    h, w = mask.shape
    found = []
    if max(h, w) < 8:
        found.append(f"it has only {w} × {h} pixels")
    if w > 1.5 * h:
        found.append(f"it is {w / h:.1f} times as wide as high: more than one digit, or one that lies on its side")
    if h > 8 * w and max(h, w) >= 8:
        found.append(f"it is {h / w:.0f} times as high as wide: an edge or a rule")
    if mask.mean() > 0.8 and h < 3 * w and max(h, w) >= 8:
        found.append("it is a filled patch, without strokes")
    holes = ndimage.label(np.pad(~mask, 1, constant_values=True))[0]
    sizes = np.bincount(holes.ravel())[1:]
    if np.sum(sizes >= max(4, 0.005 * mask.size)) > 4:  # one of them is the outside
        found.append(f"it has {np.sum(sizes >= max(4, 0.005 * mask.size)) - 1} holes, and no digit has more than two")
    if np.sum(others > 0.5) >= 1:
        found.append(f"there is as much ink elsewhere: {np.sum(others > 0.5)} more marks of its size")
    if contrast < 4 * noise:
        found.append("it hardly stands out from the grain of its paper")
    return found
