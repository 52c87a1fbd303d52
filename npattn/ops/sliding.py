"""Where a window goes that slides over an image: how many outputs there are, and what each place of it reads for them.

For convolutions and pools. There is no formula here; the letters are those of docs/ops/general_conv.md.
"""

from __future__ import annotations

from typing import NamedTuple

from npattn.checks import odd, shown, whole_number


def rows_and_columns(name: str, value: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """`value` as two ints, after checking that it is one whole number for both axes, or one for each.

    Raises
    ------
    TypeError
        If it is neither, or a number is not whole.
    ValueError
        If a number is smaller than `least`.
    """
    if not isinstance(value, tuple | list):
        number = whole_number(name, value, least)
        return number, number
    if len(value) != 2:
        raise ValueError(f"{name}: expected a whole number or two, for rows and columns, got {shown(value)}")
    return whole_number(f"{name}[0]", value[0], least), whole_number(f"{name}[1]", value[1], least)


def half(kernel: tuple[int, int], dilation: int | tuple[int, int]) -> tuple[int, int]:
    """The padding with which height and width stay at stride 1: half of what an odd kernel spans, less its middle.

    Raises TypeError or ValueError if a number of the kernel is even, or dilation none.
    """
    names = ("kernel_size", "kernel_size") if kernel[0] == kernel[1] else ("kernel_size[0]", "kernel_size[1]")
    d_h, d_v = rows_and_columns("dilation", dilation)
    return d_h * (odd(names[0], kernel[0]) // 2), d_v * (odd(names[1], kernel[1]) // 2)


class Slide(NamedTuple):
    """How a window of k_h × k_v places moves: each a number for the rows and one for the columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    def padded(self, H: int, W: int) -> tuple[int, int]:
        """Rows and columns of an image with its padding: H + 2·q_h and W + 2·q_v."""
        return H + 2 * self.padding[0], W + 2 * self.padding[1]

    def outputs(self, H: int, W: int) -> tuple[int, int]:
        """H' and W', how often the window fits into the padded image.

        Raises
        ------
        ValueError
            If it has no place, or spans more than that.
        """
        if 0 in self.kernel:
            raise ValueError(f"w: expected a kernel of at least 1 × 1, got {self.kernel[0]} × {self.kernel[1]}")
        sizes = self.padded(H, W)
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        if sizes[0] < spans[0] or sizes[1] < spans[1]:
            raise ValueError(
                f"x: expected at least as many rows and columns as the window spans, {spans[0]} × {spans[1]}, "
                f"got {sizes[0]} × {sizes[1]} with the padding"
            )
        rows, columns = ((n - span) // s + 1 for n, span, s in zip(sizes, spans, self.stride, strict=True))
        return rows, columns

    def reads(self, H: int, W: int) -> list[tuple[slice, slice]]:
        """For each place (i, j) of the window, what it reads of the padded image: rows s_h·h + d_h·i for all h < H'."""
        rows, columns = (
            [slice(d * i, d * i + s * (count - 1) + 1, s) for i in range(k)]
            for k, s, d, count in zip(self.kernel, self.stride, self.dilation, self.outputs(H, W), strict=True)
        )
        return [(of_rows, of_columns) for of_rows in rows for of_columns in columns]
