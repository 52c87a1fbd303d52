"""The pages' drawings, as SVG made of a few boxes and wires.

Forward runs down the page and its names are blue; every wire also carries, in red, the gradient that comes back up.
Blue and red are alike in grey, so the gradients' names are slanted, too, and their own wires dashed.
Colours are classes that docs/_static/npattn.css sets for light and dark. Text is never below 12 units in 400 across,
so that it can be read on a telephone.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

WIDTH = 400

Said = Callable[[str], str]
"""Gives words in the language of the page: each figure takes one, and says its own by it."""


class Drawing:
    """A list of SVG elements that grows downwards."""

    def __init__(self, height: int, label: str, width: int = WIDTH) -> None:
        self.width, self.height, self.label = width, height, label
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, cx: float, cy: float, title: str, tag: str = "", width: float = 150, height: float = 42) -> None:
        x, y = cx - width / 2, cy - height / 2
        self.parts.append(f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')
        self.text(cx, cy - 2 if tag else cy + 5, title)
        if tag:
            self.text(cx, cy + 14, tag, "small")

    def dot(self, cx: float, cy: float, sign: str) -> None:
        self.parts.append(f'<circle class="dot" cx="{cx:g}" cy="{cy:g}" r="13"/>')
        self.text(cx, cy + 5, sign)

    def wire(self, *points: tuple[float, float], head: bool = True, kind: str = "") -> None:
        """A line through the points, with an arrow's head at the last one."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="wire {kind}" d="M {path}"/>')
        if head:
            (x0, y0), (x, y) = points[-2:]
            dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
            corners = [(x, y), (x - 8 * dx - 4 * dy, y - 8 * dy - 4 * dx), (x - 8 * dx + 4 * dy, y - 8 * dy + 4 * dx)]
            listed = " ".join(f"{a:g},{b:g}" for a, b in corners)
            self.parts.append(f'<polygon class="head {kind}" points="{listed}"/>')

    def names(self, x: float, y: float, forward: str, backward: str) -> None:
        """The name of what goes down a wire to its right, and of the gradient that comes up to its left."""
        if forward:
            self.text(x + 8, y + 4, forward, "fwd", "start")
        if backward:
            self.text(x - 8, y + 4, backward, "bwd", "end")

    def chain(self, cx: float, y: float, steps: list[tuple[str, str, str, str]], width: float = 150) -> float:
        """Boxes below each other from y down, (title, tag, what comes out, its gradient). Returns where it ends."""
        for title, tag, out, back in steps:
            self.box(cx, y + 21, title, tag, width)
            self.wire((cx, y + 42), (cx, y + 74))
            self.names(cx, y + 56, out, back)
            y += 74
        return y

    def svg(self) -> str:
        # no blank lines, no indentation: the page's parser must not see Markdown in it
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.label)}" '
            f'style="max-width:{self.width * 1.15:g}px" xmlns="http://www.w3.org/2000/svg">{"".join(self.parts)}</svg>'
        )


def se(said: Said) -> str:
    d = Drawing(556, said("Squeeze-and-excitation: x goes straight to the product, and through the gate"))
    left, right = 105, 290
    d.text(left, 20, "x  (N, C, H, W)")
    d.text(left + 70, 20, "dx = dx_direct + dx_gate", "bwd", "start")
    d.wire((left, 28), (left, 478))
    d.names(left, 250, "", "dx_direct")
    d.text(left + 8, 254, "x", "fwd", "start")
    d.wire((left, 50), (right, 50), (right, 76))
    d.text(200, 44, "dx_gate", "bwd")
    end = d.chain(
        right,
        76,
        [
            (said("mean over pixels"), "SE.1 " + said("squeeze"), "s (N, C)", "ds"),
            ("FC, w1", "SE.2", "z (N, R)", "dz"),
            ("ReLU", "SE.3", "h (N, R)", "dh"),
            ("FC, w2", "SE.4", "a (N, C)", "da"),
        ],
    )
    d.box(right, end + 21, "sigmoid", "SE.5")
    d.wire((right, end + 42), (right, 491), (left + 13, 491))
    d.text(200, 485, "g", "fwd")
    d.text(200, 507, "dg", "bwd")
    d.dot(left, 491, "×")
    d.text(left - 20, 496, "SE.6", "small", "end")
    d.wire((left, 504), (left, 532))
    d.text(left, 549, "y  (N, C, H, W)")
    d.names(left, 520, "y", "dy")
    return d.svg()


def channel(said: Said) -> str:
    d = Drawing(412, said("Channel attention: two poolings, one shared MLP, a sum, a sigmoid"))
    left, right, middle = 105, 295, 200
    d.text(middle, 18, "x  (N, C, H, W)")
    d.text(middle, 38, "dx = dx_max + dx_avg", "bwd")
    d.wire((middle, 44), (middle, 58), head=False)
    for cx, pool, tag, mlp_tag, name in (
        (left, said("mean over pixels"), "CA.1", "CA.3", "avg"),
        (right, said("max over pixels"), "CA.2", "CA.4", "max"),
    ):
        d.wire((middle, 58), (cx, 58), (cx, 90))
        d.names(cx, 76, "x", f"dx_{name}")
        end = d.chain(cx, 90, [(pool, tag, f"s_{name}", f"ds_{name}"), ("MLP: w1, ReLU, w2", mlp_tag, "", "")])
        d.wire((cx, end), (cx, end + 24), (middle + (14 if cx > middle else -14), end + 24))
        d.names(cx, end - 6, f"a_{name}", f"da_{name}")
    d.wire((left + 75, 185), (right - 75, 185), head=False)
    d.text(middle, 180, said("same"), "small")
    d.text(middle, 200, "w1, w2", "small")
    d.dot(middle, end + 24, "+")
    d.text(middle, end + 2, "CA.5", "small")
    d.wire((middle, end + 37), (middle, end + 72))
    d.names(middle, end + 54, "a (N, C)", "da")
    end = d.chain(middle, end + 72, [("sigmoid", "CA.6", "g (N, C)", "dg")])
    d.text(middle, end + 18, said("the gate") + "  (N, C, 1, 1)")
    return d.svg()


def spatial(said: Said) -> str:
    d = Drawing(414, said("Spatial attention: mean and maximum over the channels, a convolution, a sigmoid"))
    left, right, middle = 105, 295, 200
    d.text(middle, 18, "x  (N, C, H, W)")
    d.text(middle, 38, "dx = dx_max + dx_avg", "bwd")
    d.wire((middle, 44), (middle, 58), head=False)
    for cx, pool, tag, name in (
        (left, said("mean over channels"), "SA.1", "avg"),
        (right, said("max over channels"), "SA.2", "max"),
    ):
        d.wire((middle, 58), (cx, 58), (cx, 90))
        d.names(cx, 76, "x", f"dx_{name}")
        d.chain(cx, 90, [(pool, tag, f"m_{name}", f"dm_{name}")])
    d.box(middle, 185, said("lay the two maps on each other"), "SA.3", width=340)
    d.wire((middle, 206), (middle, 238))
    d.names(middle, 220, "m (N, 2, H, W)", "dm")
    end = d.chain(
        middle,
        238,
        [
            (said("convolution, k×k"), "SA.4", "a (N, 1, H, W)", "da"),
            ("sigmoid", "SA.5", "g (N, 1, H, W)", "dg"),
        ],
    )
    d.text(middle, end + 18, said("the gate") + "  (N, 1, H, W)")
    return d.svg()


def product(
    d: Drawing, y: float, left: float, right: float, source: str, attention: str, tags: tuple[str, str], gate: str
) -> float:
    """x straight down, and x through an attention; the two meet in a product. Returns the product's y."""
    d.wire((left, y), (left, y + 131))
    d.text(left - 8, y + 84, f"d{source}_direct", "bwd", "end")
    d.text(left + 8, y + 84, source, "fwd", "start")
    d.wire((left, y + 22), (right, y + 22), (right, y + 48))
    d.text((left + right) / 2, y + 16, f"d{source}_gate", "bwd")
    d.box(right, y + 69, attention, tags[0])
    d.wire((right, y + 90), (right, y + 144), (left + 13, y + 144))
    d.text((left + right) / 2, y + 138, gate, "fwd")
    d.text((left + right) / 2, y + 160, f"d{gate}", "bwd")
    d.dot(left, y + 144, "×")
    d.text(left - 20, y + 149, tags[1], "small", "end")
    return y + 157


def cbam(said: Said) -> str:
    d = Drawing(456, said("CBAM: x times its channel gate is u, u times its spatial gate is y"))
    left, right = 110, 300
    d.text(left, 20, "x  (N, C, H, W)")
    d.text(left + 66, 20, "dx = dx_direct + dx_gate", "bwd", "start")
    y = product(d, 28, left, right, "x", said("channel attention"), ("CBAM.1", "CBAM.2"), "g_c")
    d.wire((left, y), (left, y + 34))
    d.text(left, y + 52, "u  (N, C, H, W)")
    d.text(left + 66, y + 52, "du = du_direct + du_gate", "bwd", "start")
    y = product(d, y + 60, left, right, "u", said("spatial attention"), ("CBAM.3", "CBAM.4"), "g_s")
    d.wire((left, y), (left, y + 30))
    d.names(left, y + 14, "y", "dy")
    d.text(left, y + 47, "y  (N, C, H, W)")
    return d.svg()


def gate(said: Said) -> str:
    d = Drawing(238, said("A gated layer: x times the gate that an attention makes from x"))
    left, right = 110, 300
    d.text(left, 20, "x  (N, C, H, W)")
    d.text(left + 66, 20, "dx = dx_direct + dx_gate", "bwd", "start")
    y = product(d, 28, left, right, "x", said("an attention"), ("GATE.1", "GATE.2"), "g")
    d.wire((left, y), (left, y + 30))
    d.names(left, y + 14, "y", "dy")
    d.text(left, y + 48, "y  (N, C, H, W)")
    return d.svg()


def residual(said: Said) -> str:
    d = Drawing(238, said("A residual unit: x plus what a branch makes of x"))
    left, right = 110, 300
    d.text(left, 20, "x  (N, C, H, W)")
    d.text(left + 66, 20, "dx = dx_skip + dx_branch", "bwd", "start")
    d.wire((left, 28), (left, 159))
    d.names(left, 112, "s", "ds")
    d.text(left - 34, 112, "RES.2", "small", "end")
    d.wire((left, 50), (right, 50), (right, 76))
    d.text((left + right) / 2, 44, "dx_branch", "bwd")
    d.box(right, 97, said("a branch"), "RES.1")
    d.wire((right, 118), (right, 172), (left + 13, 172))
    d.text((left + right) / 2, 166, "b", "fwd")
    d.text((left + right) / 2, 188, "db", "bwd")
    d.dot(left, 172, "+")
    d.text(left - 20, 177, "RES.3", "small", "end")
    d.wire((left, 185), (left, 215))
    d.names(left, 199, "y", "dy")
    d.text(left, 233, "y  (N, C, H, W)")
    return d.svg()


def concat(said: Said) -> str:
    d = Drawing(460, said("Pool-and-concatenate: two poolings side by side, one MLP, a sigmoid"))
    left, right, middle = 105, 295, 200
    d.text(middle, 18, "x  (N, C, H, W)")
    d.text(middle, 38, "dx = dx_max + dx_avg", "bwd")
    d.wire((middle, 44), (middle, 58), head=False)
    for cx, pool, tag, name in (
        (left, said("mean over pixels"), "CAT.1", "avg"),
        (right, said("max over pixels"), "CAT.2", "max"),
    ):
        d.wire((middle, 58), (cx, 58), (cx, 90))
        d.names(cx, 76, "x", f"dx_{name}")
        d.chain(cx, 90, [(pool, tag, f"s_{name}", f"ds_{name}")])
    d.box(middle, 185, said("lay the two side by side"), "CAT.3", width=340)
    d.wire((middle, 206), (middle, 238))
    d.names(middle, 220, "s (N, 2C)", "ds")
    end = d.chain(
        middle,
        238,
        [("MLP: w1, ReLU, w2", "CAT.4", "a (N, C)", "da"), ("sigmoid", "CAT.5", "g (N, C)", "dg")],
    )
    d.text(middle, end + 18, said("the gate") + "  (N, C, 1, 1)")
    return d.svg()


def parallel(said: Said) -> str:
    d = Drawing(300, said("SE in parallel: x goes through F, and beside F through the gate"))
    left, right = 110, 300
    d.text(left, 20, "x  (N, B, H, W)")
    d.text(left + 66, 20, "dx = dx_F + dx_gate", "bwd", "start")
    d.wire((left, 28), (left, 76))
    d.names(left, 66, "x", "dx_F")
    d.box(left, 97, "F", "PAR.1", width=110)
    d.wire((left, 118), (left, 208))
    d.names(left, 166, "u", "du")
    d.wire((left, 46), (right, 46), (right, 76))
    d.text((left + right) / 2 + 20, 40, "dx_gate", "bwd")
    d.box(right, 97, said("mean, MLP, sigmoid"), "PAR.2 – PAR.4", width=170)
    d.wire((right, 118), (right, 221), (left + 13, 221))
    d.text((left + right) / 2, 215, "g", "fwd")
    d.text((left + right) / 2, 237, "dg", "bwd")
    d.dot(left, 221, "×")
    d.text(left - 20, 226, "PAR.5", "small", "end")
    d.wire((left, 234), (left, 270))
    d.names(left, 250, "y", "dy")
    d.text(left, 290, "y  (N, C, H', W')")
    return d.svg()


def psa(said: Said) -> str:
    d = Drawing(470, said("Point-wise spatial attention: two maps, two sums over all pixels, and the pixel itself"))
    left, right, middle = 90, 310, 200
    d.text(middle, 18, "t  (N, P, C), " + said("x with a pixel a row"))
    d.text(middle, 38, "dt = dt_self + dt_c + dt_d + dt_mc + dt_md", "bwd")
    d.wire((middle, 46), (middle, 330))
    d.names(middle, 224, "t", "dt_self")
    for cx, branch, tags in ((left, "c", ("PSA.3", "PSA.5")), (right, "d", ("PSA.4", "PSA.6"))):
        d.wire((middle, 60), (cx, 60), (cx, 90))
        d.names(cx, 78, "t", f"dt_m{branch}")
        d.box(cx, 111, f"FC, w_{branch}", "PSA.2", width=110)
        d.wire((cx, 132), (cx, 164))
        d.names(cx, 146, f"m_{branch}", f"dm_{branch}")
        d.box(cx, 185, said("read the map"), tags[0], width=110)
        d.wire((cx, 206), (cx, 238))
        d.names(cx, 220, f"a_{branch}", f"da_{branch}")
        d.box(cx, 259, said("sum over pixels"), tags[1], width=126)
        inner = cx + 63 if cx < middle else cx - 63
        d.wire((middle, 259), (inner, 259))
        d.text((middle + inner) / 2, 253, f"dt_{branch}", "bwd")
        d.wire((cx, 280), (cx, 330))
        d.names(cx, 306, f"z_{branch}", f"dz_{branch}")
    d.box(middle, 351, said("lay the three side by side"), "PSA.7", width=340)
    d.wire((middle, 372), (middle, 398))
    d.names(middle, 384, "v (N, P, 3C)", "dv")
    d.box(middle, 419, "FC, w", "PSA.8")
    d.wire((middle, 440), (middle, 456))
    d.names(middle, 450, "y", "dy")
    return d.svg()


def used_twice(said: Said) -> str:
    d = Drawing(200, said("A value that is used twice: its two gradients add"))
    d.text(200, 20, "x")
    d.text(214, 20, "dx = dx₁ + dx₂", "bwd", "start")
    for cx, index in ((105, "₁"), (295, "₂")):
        d.wire((200, 28), (200, 46), (cx, 46), (cx, 76))
        d.names(cx, 64, "x", f"dx{index}")
        d.chain(cx, 76, [(f"f{index}", "", f"y{index}", f"dy{index}")], width=90)
    d.text(200, 178, said("to the loss, by two ways"), "small")
    return d.svg()


def flip(said: Said) -> str:
    """One row of pixels, a kernel of three: what an output reads, and who reads an input."""
    d = Drawing(
        330,
        said("A kernel of three on a row: output p reads p−1, p and p+1; backward the weights stand in reverse"),
    )
    step, first, top = 56, 60, 60

    def row(y: float, names: list[str], kind: str) -> None:
        for i, name in enumerate(names):
            x = first + i * step
            d.parts.append(f'<rect class="box" x="{x - 22:g}" y="{y - 17:g}" width="44" height="34" rx="4"/>')
            d.text(x, y + 5, name, kind)

    columns = ["p−2", "p−1", "p", "p+1", "p+2"]
    d.text(8, 18, said("forward: output p reads three pixels"), "", "start")
    row(top, [f"x {c}" for c in columns], "small")
    row(top + 84, [f"y {c}" for c in columns], "small")
    centre = first + 2 * step
    for offset, weight in ((-1, "w₀"), (0, "w₁"), (1, "w₂")):
        x = first + (2 + offset) * step
        d.parts.append(f'<path class="wire fwd" d="M {x} {top + 17} L {centre + offset * 12} {top + 67}"/>')
        d.text(x + (offset - 0.2) * 16 - (10 if offset == 0 else 0), top + 42, weight, "fwd")
    d.text(8, 190, said("backward: pixel p was read by three outputs"), "", "start")
    row(222, [f"dx {c}" for c in columns], "small")
    row(306, [f"dy {c}" for c in columns], "small")
    for offset, weight in ((-1, "w₂"), (0, "w₁"), (1, "w₀")):
        x = first + (2 + offset) * step
        d.parts.append(f'<path class="wire bwd" d="M {x} {306 - 17} L {centre + offset * 12} {222 + 17}"/>')
        d.text(x + (offset - 0.2) * 16 - (10 if offset == 0 else 0), 270, weight, "bwd")
    return d.svg()


FIGURES: dict[str, Callable[[Said], str]] = {
    "se": se,
    "channel": channel,
    "spatial": spatial,
    "cbam": cbam,
    "gate": gate,
    "residual": residual,
    "concat": concat,
    "parallel": parallel,
    "psa": psa,
    "used-twice": used_twice,
    "flip": flip,
}
