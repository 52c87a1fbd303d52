"""A digit from an image file, brought into the form of MNIST's: 28×28, light ink on dark paper.

The file is not trusted: its size and its picture's are bounded before anything is decoded, three formats are read, and
whatever is wrong with it comes out as an ImageError.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npattn.explain import ink
from npattn.files import FileRefused, read_bytes

LARGEST_FILE = 2**25  # bytes
LARGEST_PICTURE = 2**24  # pixels, 4096×4096
FORMATS = ("PNG", "JPEG", "BMP")
SIDE, BOX = 28, 20  # MNIST's: a picture of 28×28, in which the digit fits a box of 20×20


class ImageError(ValueError):
    """An image cannot be read as a digit. The message names the file and says what is wrong."""


class Reading(NamedTuple):
    """A digit as it was read from a file."""

    image: np.ndarray  # (28, 28), uint8, light on dark: what a network is given
    notes: list[str]  # what was done with the picture, in words
    picture: np.ndarray  # (H, W), uint8: the greys of the file, reduced if it was large
    box: tuple[int, int, int, int]  # the part of it that was used: top, bottom, left, right, the ends not included
    doubts: list[str]  # why it may be no digit; mostly empty


def read_digit(path: str | os.PathLike[str]) -> Reading:
    """A digit from a PNG, JPEG or BMP file, as MNIST has them.

    A picture of 28×28 is taken as it is. In another one the digit is looked for (npattn/explain/ink.py): shadows,
    specks and what runs in from the edges are left out. It is scaled to fit 20×20 and put into 28×28 with its centre of
    mass in the middle, as MNIST's digits were. Both are turned to light ink on dark paper.

    Parameters
    ----------
    path
        The file, at most 32 MiB, of at most 16,777,216 pixels.

    Returns
    -------
    Reading

    Raises
    ------
    ImageError
        If it is no regular file, too large, no such image, broken, or nothing in it stands out from the paper.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    grey, notes = decoded(path)
    if grey.shape == (SIDE, SIDE):
        return taken_whole(path, grey, notes)
    picture = reduced(grey, ink.LONGEST)
    if picture.shape != grey.shape:
        notes.append(f"reduced to {picture.shape[1]} × {picture.shape[0]}")
    found = ink.find(picture)
    if found is None:
        flat = np.ptp(picture) < ink.FAINTEST
        what = "of nearly one grey all over" if flat else "without strokes that stand out from their paper"
        raise ImageError(f"{path}: expected a digit, got a picture {what}")
    if found.inverted:
        notes.append("inverted: it is dark on light, and MNIST is white on black")
    top, bottom, left, right = found.box
    notes.append(
        f"paper taken off and ink stretched to 255; cropped to the digit, {right - left} × {bottom - top} from pixel "
        f"({left}, {top})"
    )
    if found.specks:
        notes.append(f"{found.specks} other mark{'s' if found.specks > 1 else ''} left out")
    digit = centred(scaled(found.ink, BOX))
    notes.append(f"scaled to fit {BOX} × {BOX}, its centre of mass put into the middle of {SIDE} × {SIDE}")
    return Reading(digit, notes, np.round(picture).astype(np.uint8), found.box, found.doubts)


def taken_whole(path: Path, grey: np.ndarray, notes: list[str]) -> Reading:
    """A picture of MNIST's size, inverted where its border is light."""
    picture = np.round(grey).astype(np.uint8)
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if paper > 127.5:
        grey, paper = 255 - grey, 255 - paper
        notes.append("inverted: its border is light, and MNIST is white on black")
    if float(grey.max()) - paper < ink.FAINTEST:
        raise ImageError(f"{path}: expected a digit, got a picture of nearly one grey all over")
    notes.append(f"{SIDE} × {SIDE} already: not moved, not scaled")
    return Reading(np.round(grey).astype(np.uint8), notes, picture, (0, SIDE, 0, SIDE), [])


def decoded(path: Path) -> tuple[np.ndarray, list[str]]:
    """The picture as greys (H, W), float64, 0 to 255, and what it was. Raises as `read_digit`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        data = read_bytes(path, LARGEST_FILE)
    except FileRefused as error:
        raise ImageError(str(error)) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                W, H = image.size
                if W * H > LARGEST_PICTURE:
                    raise ImageError(f"{path}: expected at most {LARGEST_PICTURE:,} pixels, got {W} × {H}")
                notes = [f"{W} × {H}, {image.format} of mode {image.mode}"]
                return greys(ImageOps.exif_transpose(image), notes), notes
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: expected an image, {', '.join(FORMATS)}; it is none of these") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: expected at most {LARGEST_PICTURE:,} pixels, got far more") from None
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
            NotImplementedError, struct.error, zlib.error) as error:  # fmt: skip
        raise ImageError(f"{path}: a broken image: {error}") from None


def greys(image: Any, notes: list[str]) -> np.ndarray:
    """A Pillow image as (H, W), float64, 0 to 255."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own way to grey would cut off all above 255
        notes.append("16 bits a pixel scaled to 8")
        return np.asarray(image, np.float64) / 257
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
        notes.append("laid on white where it is transparent")
    if image.mode not in ("L", "1"):
        notes.append("turned to grey")
    return np.asarray(image.convert("L"), np.float64)


def reduced(grey: np.ndarray, longest: int) -> np.ndarray:
    """The picture (H, W), with its longer side at most `longest`."""
    return scaled(grey, longest) if max(grey.shape) > longest else grey


def scaled(grey: np.ndarray, longest: int) -> np.ndarray:
    """The picture (H, W), 0 to 255, with its longer side `longest`, its shape kept as well as whole pixels can."""
    from PIL import Image

    H, W = grey.shape
    size = tuple(max(1, round(side * longest / max(H, W))) for side in (W, H))
    small = Image.fromarray(grey.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)  # averages when it shrinks
    return np.clip(np.asarray(small, np.float64), 0, 255)


def centred(grey: np.ndarray) -> np.ndarray:
    """The picture in 28×28, uint8, its centre of mass at pixel (14, 14), as MNIST's are, as far as it stays inside."""
    corner = []
    for axis in (0, 1):
        mass = grey.sum(axis=1 - axis)
        middle = float(np.sum(mass * np.arange(len(mass))) / np.sum(mass))
        corner.append(min(max(round(SIDE / 2 - middle), 0), SIDE - grey.shape[axis]))
    digit = np.zeros((SIDE, SIDE), np.uint8)
    top, left = corner
    digit[top : top + grey.shape[0], left : left + grey.shape[1]] = np.round(grey).astype(np.uint8)
    return digit
