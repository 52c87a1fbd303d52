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
from typing import Any

import numpy as np

from npattn.files import FileRefused, read_bytes

LARGEST_FILE = 2**25  # bytes
LARGEST_PICTURE = 2**24  # pixels, 4096×4096
FORMATS = ("PNG", "JPEG", "BMP")
SIDE, BOX = 28, 20  # MNIST's: a picture of 28×28, in which the digit fits a box of 20×20
FAINTEST = 24  # of 255: less contrast than this between ink and paper is no digit


class ImageError(ValueError):
    """An image cannot be read as a digit. The message names the file and says what is wrong."""


def read_digit(path: str | os.PathLike[str]) -> tuple[np.ndarray, list[str]]:
    """A digit from a PNG, JPEG or BMP file, as MNIST has them.

    A picture of 28×28 is taken as it is. Another one is cropped to its ink, scaled to fit 20×20 and put into 28×28 with
    its centre of mass in the middle, as MNIST's digits were. Both are turned to light ink on dark paper if their border
    is light.

    Parameters
    ----------
    path
        The file, at most 32 MiB, of at most 16,777,216 pixels.

    Returns
    -------
    (image, notes)
        The digit (28, 28), uint8, and in words what was done with it.

    Raises
    ------
    ImageError
        If it is no regular file, too large, no such image, broken, or of one grey all over.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    grey, notes = decoded(path)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = float(np.median(border))
    if paper > 127.5:
        grey, paper = 255 - grey, 255 - paper
        notes.append("inverted: its border is light, and MNIST is white on black")
    if float(grey.max()) - paper < FAINTEST:
        raise ImageError(f"{path}: expected a digit, got a picture of nearly one grey all over")
    if grey.shape == (SIDE, SIDE):
        notes.append(f"{SIDE} × {SIDE} already: not moved, not scaled")
        return np.round(grey).astype(np.uint8), notes

    ink = np.clip((grey - paper) * (255 / (float(grey.max()) - paper)), 0, 255)
    rows, cols = (np.flatnonzero(np.max(ink, axis=axis) > 64) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    notes.append(f"paper taken off and ink stretched to 255; cropped to the ink, {ink.shape[1]} × {ink.shape[0]}")
    digit = centred(scaled(ink, BOX))
    notes.append(f"scaled to fit {BOX} × {BOX}, its centre of mass put into the middle of {SIDE} × {SIDE}")
    return digit, notes


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


def scaled(ink: np.ndarray, longest: int) -> np.ndarray:
    """The picture (H, W), 0 to 255, with its longer side `longest`, its shape kept as well as whole pixels can."""
    from PIL import Image

    H, W = ink.shape
    size = tuple(max(1, round(side * longest / max(H, W))) for side in (W, H))
    small = Image.fromarray(ink.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)  # averages when it shrinks
    return np.clip(np.asarray(small, np.float64), 0, 255)


def centred(ink: np.ndarray) -> np.ndarray:
    """The picture in 28×28, uint8, its centre of mass at pixel (14, 14), as MNIST's are, as far as it stays inside."""
    corner = []
    for axis in (0, 1):
        mass = ink.sum(axis=1 - axis)
        middle = float(np.sum(mass * np.arange(len(mass))) / np.sum(mass))
        corner.append(min(max(round(SIDE / 2 - middle), 0), SIDE - ink.shape[axis]))
    digit = np.zeros((SIDE, SIDE), np.uint8)
    top, left = corner
    digit[top : top + ink.shape[0], left : left + ink.shape[1]] = np.round(ink).astype(np.uint8)
    return digit
