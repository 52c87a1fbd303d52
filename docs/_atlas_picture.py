"""The atlas' pictures: the boxes of a block (_atlas_graph.py) on one grid, the same for all blocks.

Down the left goes x itself, to the product at the bottom. To the right of it each branch has a lane. What pools stands
in the first row, a gate in the sixth at the earliest, the product below: so a block that has less between its pool and
its gate has a gap there, and one that attends twice is twice as high. Shape and colour say what a box does.
"""

from __future__ import annotations

from _atlas_graph import Box
from _figures import Drawing

WIDE, TALL, PITCH, ROW, TOP = 70, 34, 80, 47, 14
X0 = WIDE / 2 + 5
FIRST = {"pool": 1, "linear": 2, "norm": 2, "act": 2, "function": 1, "join": 2, "resize": 2, "other": 2,
         "softmax": 5, "gate": 6}  # fmt: skip
"""The first row of a kind, counted from x or from the product before."""
PRODUCT = 7
ROUND = ("product", "sum", "dot")
FULL = "C×H×W"
SHORT = {"batch norm": "batch norm", "side by side": "concat"}


class Layout:
    """Row and lane of each box."""

    def __init__(self, boxes: list[Box]) -> None:
        self.boxes = boxes
        self.users: list[list[int]] = [[] for _ in boxes]
        for i, box in enumerate(boxes):
            for source in box.sources:
                self.users[source].append(i)
        self.trunk = self.trunk_of(len(boxes) - 1)
        self.rows = self.rows_of()
        self.lanes = self.lanes_of()

    def trunk_of(self, last: int) -> set[int]:
        """The boxes on the shortest way from x to y on which all of x's axes stay; x alone, where y is a gate."""
        way: dict[int, list[int]] = {0: [0]}
        for i, box in enumerate(self.boxes[1:], 1):
            ways = [way[s] for s in box.sources if s in way]
            if ways and box.shape.endswith(FULL):
                way[i] = [*min(ways, key=len), i]
        return set(way.get(last, [0]))

    def rows_of(self) -> list[int]:
        rows, base = [0] * len(self.boxes), [0] * len(self.boxes)
        for i, box in enumerate(self.boxes[1:], 1):
            base[i] = max(base[s] for s in box.sources)
            first = FIRST.get(box.kind, 1)
            if i in self.trunk and box.kind == "product":
                first = PRODUCT
            rows[i] = max(max(rows[s] for s in box.sources) + 1, base[i] + first)
            if i in self.trunk and box.kind == "product":
                base[i] = rows[i]
        return rows

    def lanes_of(self) -> list[int]:
        lanes = [0] * len(self.boxes)
        held: list[tuple[int, int, int, int]] = []  # lane, from row, to row, whose
        for i in sorted(range(len(self.boxes)), key=lambda i: (self.rows[i], i)):
            box, row = self.boxes[i], self.rows[i]
            if i not in self.trunk:
                wanted = sorted(lanes[s] for s in box.sources if lanes[s]) or [1]
                lane = next(
                    lane
                    for lane in [*wanted, *range(1, 99)]
                    if not any(
                        at == lane and start <= row <= end and not (whose in box.sources and row == end)
                        for at, start, end, whose in held
                    )
                )
                lanes[i] = lane
                held.append((lane, row, row, i))
            last = max([self.rows[user] for user in self.users[i]], default=row)
            if i not in self.trunk:
                held.append((lanes[i], row, last, i))
        return lanes

    def centre(self, i: int) -> tuple[float, float]:
        return X0 + self.lanes[i] * PITCH, TOP + 8 + self.rows[i] * ROW


def half(box: Box) -> tuple[float, float]:
    """Half the width and half the height of a box."""
    if box.kind in ROUND:
        return (12, 12)
    if box.kind in ("act", "function"):
        return (WIDE / 2 - 5, 13)
    return (WIDE / 2, TALL / 2)


def draw(boxes: list[Box], title: str, output: str = "y") -> str:
    """The picture as SVG, at its natural size; `output` is what the block returns."""
    layout = Layout(boxes)
    lanes, last = max(layout.lanes), len(boxes) - 1
    bottom = layout.centre(max(range(len(boxes)), key=lambda i: layout.rows[i]))[1]
    d = Drawing(int(bottom + 56), f"{title}: {described(boxes)}", width=int(X0 + lanes * PITCH + WIDE / 2 + 6))
    for i, box in enumerate(boxes):
        wires(d, layout, i, box)
    same_weights(d, layout)
    for i, box in enumerate(boxes):
        changed = any(boxes[s].shape != box.shape for s in box.sources)
        glyph(d, *layout.centre(i), box, changed)
    cx, cy = layout.centre(last)
    d.wire((cx, cy + half(boxes[last])[1]), (cx, bottom + 34))
    d.text(cx, bottom + 49, output, "small")
    return d.svg().replace(f'style="max-width:{d.width * 1.15:g}px"', f'width="{d.width}" height="{d.height}"')


def wires(d: Drawing, layout: Layout, i: int, box: Box) -> None:
    """From each source to the box: straight down, by the row above it, or along its row from the right."""
    tx, ty = layout.centre(i)
    wide, tall = half(box)
    from_above = [s for s in box.sources if layout.lanes[s] <= layout.lanes[i]]
    for s in box.sources:
        sx, sy = layout.centre(s)
        start = sy + (half(layout.boxes[s])[1] if s else 6)
        if s not in from_above:
            d.wire((sx, start), (sx, ty), (tx + wide, ty))
            continue
        shift = (from_above.index(s) - (len(from_above) - 1) / 2) * 12
        if layout.lanes[s] == layout.lanes[i]:
            shift = 0 if len(from_above) == 1 or layout.lanes[i] == 0 else abs(shift)
            d.wire((sx + shift, start), (tx + shift, ty - tall + (2 if shift and tall == 12 else 0)))
        else:
            shift = 0 if len(from_above) == 1 else -abs(shift) or -6
            above = ty - TALL / 2 - 7
            d.wire((sx, start), (sx, above), (tx + shift, above), (tx + shift, ty - tall + (2 if tall == 12 else 0)))


def same_weights(d: Drawing, layout: Layout) -> None:
    """A dashed line between boxes of one row that have their weights in common."""
    seen: dict[tuple[int, tuple[str, ...]], int] = {}
    for i, box in enumerate(layout.boxes):
        if box.kind != "linear":
            continue
        key = layout.rows[i], box.weights
        if key in seen:
            (x0, y), (x1, _) = layout.centre(seen[key]), layout.centre(i)
            d.parts.append(f'<path class="shared" d="M {x0 + WIDE / 2:g} {y:g} L {x1 - WIDE / 2:g} {y:g}"/>')
        seen[key] = i


def glyph(d: Drawing, cx: float, cy: float, box: Box, changed: bool) -> None:
    """The shape of its kind, and its words."""
    w, h = half(box)
    gate = " is-gate" if box.gate else ""
    if box.kind == "x":
        d.text(cx, cy + 2, "x", "small")
        return
    if box.kind in ROUND:
        d.parts.append(f'<circle class="glyph {box.kind}{gate}" cx="{cx:g}" cy="{cy:g}" r="12"/>')
        d.text(cx, cy + 5, box.label)
        return
    corners = {
        "pool": [(-w, -h), (w, -h), (w - 10, h), (-w + 10, h)],
        "norm": [(-w, 0), (-w + 6, -h), (w - 6, -h), (w, 0), (w - 6, h), (-w + 6, h)],
        "join": [(-w, -h), (-w + 5, -h + 6), (w - 5, -h + 6), (w, -h), (w, h), (-w, h)],
        "resize": [(-w + 10, -h), (w - 10, -h), (w, h), (-w, h)],
    }.get(box.kind)
    if corners:
        points = " ".join(f"{cx + x:g},{cy + y:g}" for x, y in corners)
        d.parts.append(f'<polygon class="glyph {box.kind}{gate}" points="{points}"/>')
    else:
        r = {"linear": 3, "other": 3}.get(box.kind, h)
        place = f'x="{cx - w:g}" y="{cy - h:g}" width="{2 * w:g}" height="{2 * h:g}" rx="{r:g}"'
        d.parts.append(f'<rect class="glyph {box.kind}{gate}" {place}/>')
    second = box.over.removeprefix("over ")
    if not second and box.kind == "gate":
        second = box.shape
    elif not second and box.kind == "linear" and changed:
        second = f"→ {box.shape}"
    label = SHORT.get(box.label, box.label).replace("hard ", "h-")
    down = 2 if box.kind == "join" else 0
    d.text(cx, cy + (-2 if second else 4) + down, label, "name")
    if second:
        d.text(cx, cy + 12, second, "axes")


def described(boxes: list[Box]) -> str:
    """The boxes in words, for those who do not see the picture."""
    return ", ".join(f"{box.label} {box.over}".strip() for box in boxes[1:])
