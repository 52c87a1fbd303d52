"""A digit in a photograph: found beside specks, in shadows, on a table; and what is likely none is said to be."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import ndimage

from npattn import data
from npattn.explain import images, ink

SIZE = (360, 280)
ROWS, COLS = np.mgrid[: SIZE[0], : SIZE[1]]
CORNER = ndimage.gaussian_filter((COLS * 0.7 + ROWS > 270).astype(float), 1)  # a shadow with an edge
SIDE = ndimage.gaussian_filter((COLS > 170).astype(float), 15)  # one without


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Ink in a rectangle, counted from the end where negative."""
    mask = np.zeros(SIZE)
    mask[top : bottom or None, left : right or None] = 1
    return mask


PAPERS = {
    "plain": np.full(SIZE, 220.0),
    "dim": np.full(SIZE, 120.0),
    "gradient": 110 + 120 * (0.6 * COLS / SIZE[1] + 0.4 * ROWS / SIZE[0]),
    "vignette": 230 - 220 * ((ROWS / SIZE[0] - 0.5) ** 2 + (COLS / SIZE[1] - 0.5) ** 2),
    "shadow": 220 * (1 - 0.45 * CORNER),
    "soft shadow": 220 * (1 - 0.5 * SIDE),
    "table": np.where((ROWS > 335) | (COLS < 20), 35.0, 220.0),
}
MARKS = {
    "none": np.zeros(SIZE),
    "a speck at the edge": box(3, 9, 5, 11),
    "specks in the corners": np.maximum(box(2, 12, 2, 12), box(-14, -3, -16, -2)),
    "a line at the edge": box(0, 0, 0, 3),
}


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return data.read(data.EMBEDDED, data.TEST_IMAGES)[:10]


def placed(digit: np.ndarray, at: tuple[int, int] = (90, 50), by: int = 7) -> np.ndarray:
    """Where the ink of an enlarged digit is, 0 to 1."""
    mask, large = np.zeros(SIZE), np.clip(ndimage.zoom(digit / 255, by, order=1), 0, 1)
    mask[at[0] : at[0] + large.shape[0], at[1] : at[1] + large.shape[1]] = large
    return mask


def photo(mask: np.ndarray, paper: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Greys: ink takes 85 % of the paper's light."""
    grey = paper * (1 - 0.85 * mask) + np.random.default_rng(seed).normal(0, 1, SIZE) * noise
    return np.clip(grey, 0, 255).round()


def mnist(found: ink.Ink | None) -> np.ndarray:
    assert found is not None
    return images.centred(images.scaled(found.ink, images.BOX))


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("noise", [0, 12])
@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("mark", MARKS)
def test_a_digit_is_found_and_looks_as_it_does_alone(digits, paper: str, mark: str, noise: float):
    place = int(np.random.default_rng(len(paper) + len(mark)).integers(10))
    mask = np.maximum(placed(digits[place]), MARKS[mark])
    found = ink.find(photo(mask, PAPERS[paper], noise))
    assert alike(mnist(found), digits[place]) > 0.6
    alone = ink.find(photo(placed(digits[place]), PAPERS["plain"]))
    assert max(abs(here - there) for here, there in zip(found.box, alone.box, strict=True)) <= 3
    assert alike(mnist(found), mnist(alone)) > 0.7  # a thin stroke that is moved by a pixel is hardly like itself
    assert found.inverted
    assert not found.doubts


@pytest.mark.parametrize("paper", ["plain", "dim", "gradient", "vignette", "table"])
@pytest.mark.parametrize("mark", MARKS)
def test_light_on_dark(digits, paper: str, mark: str):
    found = ink.find(255 - photo(np.maximum(placed(digits[4]), MARKS[mark]), PAPERS[paper], 5))
    assert alike(mnist(found), digits[4]) > 0.8
    assert not found.inverted


def test_the_crop_is_the_digits(digits):
    top, bottom, left, right = ink.find(photo(placed(digits[0]), PAPERS["plain"])).box
    rows, cols = (np.flatnonzero(placed(digits[0]).max(axis=axis) > 0.25) for axis in (1, 0))
    assert abs(top - rows[0]) <= 2
    assert abs(bottom - 1 - rows[-1]) <= 2
    assert abs(left - cols[0]) <= 2
    assert abs(right - 1 - cols[-1]) <= 2


def test_a_broken_stroke_is_one_digit(digits):
    whole = placed(digits[0])  # a seven; a gap of nine pixels goes through it
    broken = whole.copy()
    broken[180:189] = 0
    found = ink.find(photo(broken, PAPERS["plain"]))
    assert found.box == ink.find(photo(whole, PAPERS["plain"])).box
    assert found.specks == 0
    far = np.maximum(whole, box(20, 32, 240, 252))  # as large as a stroke's part, but far off
    assert ink.find(photo(far, PAPERS["plain"])).box == found.box


def test_a_digit_that_touches_the_edge(digits):
    """Cut out by hand, close: what runs out of the picture is the digit where there is nothing else."""
    grey = photo(placed(digits[3]), PAPERS["plain"])
    top, bottom, left, right = ink.find(grey).box
    close = grey[top + 3 : bottom - 3, left + 3 : right - 3]
    assert alike(mnist(ink.find(close)), digits[3]) > 0.8


NONE = {
    "two digits": (lambda digits: np.maximum(placed(digits[0], (90, 20), 4), placed(digits[2], (90, 130), 4)),
                   "as much ink elsewhere|times as wide as high"),
    "a patch": (lambda digits: box(100, 200, 80, 170), "a filled patch"),
    "a rule": (lambda digits: box(20, 330, 140, 146), "times as high as wide"),
    "a grid": (lambda digits: np.where((ROWS > 60) & (ROWS < 300) & (COLS > 40) & (COLS < 240)
                                       & ((ROWS % 40 < 5) | (COLS % 40 < 5)), 1.0, 0.0), "holes"),
    "a dot": (lambda digits: box(100, 104, 80, 84), "only 4 × 4 pixels"),
    "a dash": (lambda digits: box(100, 120, 40, 200), "as wide as high"),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_may_be_no_digit(digits, name: str):
    make, words = NONE[name]
    found = ink.find(photo(make(digits), PAPERS["plain"]))
    assert any(re.search(words, doubt) for doubt in found.doubts), found.doubts


def test_no_digit_of_mnists_is_doubted(digits):
    """Of the first hundred, on paper: no more than two, which have gaps, or lie."""
    some = data.read(data.EMBEDDED, data.TEST_IMAGES)[:100]
    doubted = [i for i, digit in enumerate(some) if ink.find(photo(placed(digit, by=5), PAPERS["plain"])).doubts]
    assert len(doubted) <= 2


@pytest.mark.parametrize("grey", [np.zeros(SIZE), np.full(SIZE, 200.0), PAPERS["gradient"]], ids=["0", "200", "shade"])
def test_a_picture_of_nothing(grey):
    assert ink.find(grey) is None


def test_noise_alone_is_refused_or_doubted():
    found = ink.find(photo(np.zeros(SIZE), PAPERS["plain"], 15))
    assert found is None or found.doubts


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2), (3, 1000), (29, 27)], ids=str)
def test_odd_shapes(shape):
    for seed in range(5):
        found = ink.find(np.random.default_rng(seed).integers(0, 256, shape).astype(float))
        assert found is None or found.ink.size


def test_otsu():
    values = np.concatenate([np.random.default_rng(0).normal(10, 2, 5000), np.full(300, 90.0)])
    assert 18 < ink.otsu(values) < 90
