"""The figures on a slide, on a phone and in grey: what they say, what they name, and whether it can be read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.colors import to_hex

from npattn import data, models
from npattn.explain import figures, sheet, style
from npattn.explain.style import contrast
from npattn.training import prepared

PHONE = 390  # pixels of a phone's width
RNG = np.random.default_rng(70)
NUMBERS = {"mean": 0.5, "spread": 0.2, "over_images": 0.1, "saturated": 0.05, "half": 0.2}
GATES = {f"stage{i}.attention.{kind}": NUMBERS for i in (2, 3) for kind in ("channel", "spatial")}
HISTORY = [
    {"epoch": i, "loss": 1 / i, "accuracy": 1 - 0.2 / i, "test_loss": 1.2 / i, "test_accuracy": 1 - 0.25 / i,
     "gates": GATES}
    for i in range(1, 11)
]  # fmt: skip
COUNTS = np.diag(np.arange(900, 1000, 10)) + RNG.integers(0, 40, (10, 10)) * (1 - np.eye(10, dtype=int))
CURVES, CONFUSION, BARS, OPEN, SHEET = "curves", "confusion", "gates", "attention", "sheet"


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = (data.read(data.EMBEDDED, file)[:100] for file in (data.TEST_IMAGES, data.TEST_LABELS))
    return images, labels


def picture_of(name: str, digits, attention: str = "cbam", history=HISTORY, counts=COUNTS, pictures=None):
    """The figure of that name, not written to a file."""
    kept = []
    patch = pytest.MonkeyPatch()
    for module in (figures, sheet):
        patch.setattr(module, "save", lambda figure, path: kept.append(figure))
    try:
        if name == CURVES:
            figures.curves(history, Path("none"))
        elif name == CONFUSION:
            figures.confusion(counts, Path("none"))
        elif name == BARS:
            figures.gates(history, Path("none"))
        else:
            model = models.digits(attention, rng=0).eval()
            if name == OPEN:
                figures.attention(model, *digits, prepared, Path("none"))
            else:
                pictures = pictures or sheet.from_test_set(*digits, None)
                seen = sheet.look(model, prepared(np.stack([picture.image for picture in pictures])))
                sheet.draw(pictures, seen, Path("none"))
    finally:
        patch.undo()
    (figure,) = kept
    figure.canvas.draw()
    return figure


@pytest.fixture(scope="module")
def drawn(digits):
    return {name: picture_of(name, digits) for name in (CURVES, CONFUSION, BARS, OPEN, SHEET)}


def texts(figure) -> list:
    """The texts that one sees; a tick beyond the end of its axis has a label that nobody does."""
    from matplotlib.text import Text

    unseen = set()
    for axes in figure.findobj(lambda artist: hasattr(artist, "xaxis")):
        for axis in (axes.xaxis, axes.yaxis):
            least, most = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not least - 1e-9 <= tick.get_loc() <= most + 1e-9:
                    unseen |= {tick.label1, tick.label2}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


EACH = pytest.mark.parametrize("name", [CURVES, CONFUSION, BARS, OPEN, SHEET])


# What is said


@EACH
def test_every_figure_says_what_is_seen(drawn, name: str):
    assert len(drawn[name].get_suptitle().split()) >= 6


@pytest.mark.parametrize("name", [CURVES, CONFUSION, BARS])
def test_every_axis_is_named(drawn, name: str):
    for axes in drawn[name].axes:
        colour_bar = hasattr(axes, "_colorbar")
        column = axes.get_subplotspec().colspan.start if not colour_bar else 0
        if axes.get_xticklabels() and any(label.get_visible() and label.get_text() for label in axes.get_xticklabels()):
            assert axes.get_xlabel() or colour_bar, axes
        if column == 0 and any(label.get_visible() and label.get_text() for label in axes.get_yticklabels()):
            assert axes.get_ylabel(), axes


def test_the_gates_columns_are_named(drawn):
    """Digits' rows and the gates' columns; the first bars of each row and the last row name their axes."""
    axes = drawn[OPEN].axes
    titles = [one.get_title().replace("\n", " ") for one in axes if one.get_title()]
    assert titles == ["digit", "stage 2, spatial", "stage 3, spatial", "stage 2, channel", "stage 3, channel"]
    assert [one.get_xlabel() for one in axes].count("channel") == 2
    assert [one.get_ylabel() for one in axes].count("gate") == 4
    assert sum(one.get_ylabel().startswith("read\nas ") for one in axes) == 4
    (key,) = drawn[OPEN].legends
    assert [text.get_text() for text in key.get_texts()] == ["this digit", "mean of the digits shown"]
    assert key.get_title().get_text() == "channel gate: 0 shut, 1 open"


@pytest.mark.parametrize(
    ("name", "words"),
    [(CONFUSION, ["read wrongly"]), (OPEN, ["spatial gate: 0 shut, 1 open"]), (SHEET, ["against", "0 shut, 1 open"])],
)
def test_every_colour_bar_is_named(drawn, name: str, words: list[str]):
    labels = [label for axes in drawn[name].axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    assert all(any(word in label for label in labels) for word in words)


def test_the_curves_show_accuracy_as_the_table_does(drawn):
    left, right = drawn[CURVES].axes
    assert (left.get_title(), right.get_title()) == ("Loss", "Accuracy")
    assert right.get_ylabel().startswith("accuracy (%)")
    training, test = right.lines
    np.testing.assert_allclose(training.get_ydata(), [100 * row["accuracy"] for row in HISTORY])
    np.testing.assert_allclose(test.get_ydata(), [100 * row["test_accuracy"] for row in HISTORY])
    assert drawn[CURVES].get_suptitle() == "97.50% of the test digits read rightly after 10 epochs"
    lower, upper = right.get_ylim()
    assert lower < 75 < 98 < upper < 100  # better is higher, and all of it is seen
    height = [right.transData.transform((1, accuracy))[1] for accuracy in (80, 90, 98)]
    assert height[0] < height[1] < height[2]
    for axes in (left, right):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training (moved digits)", "test"]
        assert not any("10^" in label.get_text() for label in axes.get_yticklabels())


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([{"epoch": 1, "loss": 1.0, "accuracy": 0.5}], "50.00% of the training digits read rightly after 1 epoch"),
        (
            [{**HISTORY[0], "accuracy": 1.0, "test_accuracy": 1.0}],
            "100.00% of the test digits read rightly after 1 epoch",
        ),
    ],
)
def test_curves_without_a_test_or_with_every_digit_right(digits, rows, title: str):
    figure = picture_of(CURVES, digits, history=rows)
    assert figure.get_suptitle() == title
    assert figure.axes[1].get_yscale() == ("linear" if rows[0]["accuracy"] == 1 else "function")
    assert len(figure.axes[1].lines) == (2 if "test_loss" in rows[0] else 1)


@pytest.mark.parametrize("name", [CURVES, BARS])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_after_few_epochs_no_tick_is_half_an_epoch(digits, name: str, epochs: int):
    for axes in picture_of(name, digits, history=HISTORY[:epochs]).axes:
        lower, upper = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if lower <= tick <= upper]
        assert shown == list(range(1, epochs + 1))


def test_the_worst_mistake_is_named(digits):
    counts = np.diag([5, 5, 5])
    assert picture_of(CONFUSION, digits, counts=counts).get_suptitle() == "15 of 15 test digits read rightly: 100.00%"
    counts[2, 0] = 1
    assert picture_of(CONFUSION, digits, counts=counts).get_suptitle() == (
        "15 of 16 test digits read rightly: 93.75%\nmost often wrong: 2 read as 0, 1 time"
    )


def test_what_was_read_wrongly_is_marked(digits):
    images, labels = digits
    pictures = sheet.from_test_set(images, labels, [0, 1, 2])
    seen = sheet.look(models.digits("cbam", rng=0).eval(), prepared(images[:3]))
    right = [picture._replace(right=int(answer)) for picture, answer in zip(pictures, seen.classes[:, 0], strict=True)]
    assert sheet.headline(right, seen).startswith("3 of 3 test digits read rightly, and")
    assert sheet.WRONG not in sheet.answer(right[0], seen, 0, 0)
    wrong = [right[0]._replace(right=(right[0].right + 1) % 10), *right[1:]]
    assert sheet.headline(wrong, seen).startswith("2 of 3 test digits read rightly (✗: wrong)")
    assert sheet.answer(wrong[0], seen, 0, 0).startswith(f"✗{seen.classes[0, 0]} ")
    assert sheet.WRONG not in sheet.answer(wrong[0], seen, 0, 1)
    unknown = [picture._replace(right=None) for picture in pictures]
    assert sheet.headline(unknown, seen) == "What speaks for the network's answer, and for its runner-up"
    assert sheet.headline(wrong[:1], seen).startswith("A test digit read wrongly (✗: wrong)")


# Whether it can be read


@EACH
def test_no_text_is_too_small_for_a_phone(drawn, name: str):
    width, _ = drawn[name].get_size_inches()
    for text in texts(drawn[name]):
        assert text.get_fontsize() / 72 * PHONE / width >= 7, text.get_text()


def overlapping(figure) -> list[tuple[str, str]]:
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer).padded(-0.5)) for text in texts(figure)]
    return [(one, other) for (one, a), (other, b) in itertools.combinations(boxes, 2)
            if a.width > 0 and b.width > 0 and a.overlaps(b)]  # fmt: skip


@EACH
def test_no_text_lies_on_another_or_outside(drawn, name: str):
    figure = drawn[name]
    assert overlapping(figure) == []
    for text in texts(figure):
        box = text.get_window_extent(figure.canvas.get_renderer())
        assert figure.bbox.x0 <= box.x0, text.get_text()
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert figure.bbox.y0 <= box.y0 + 1, text.get_text()
        assert box.y1 <= figure.bbox.y1 + 1, text.get_text()


@pytest.mark.parametrize("name", [OPEN, SHEET])
def test_no_text_lies_on_a_picture(drawn, name: str):
    renderer = drawn[name].canvas.get_renderer()
    for text in texts(drawn[name]):
        box = text.get_window_extent(renderer).padded(-1)
        assert not any(box.overlaps(axes.bbox) for axes in drawn[name].axes), text.get_text()


def test_overlapping_texts_are_found(drawn):
    figure = style.new_figure()
    figure.text(0.5, 0.5, "one word")
    figure.text(0.52, 0.5, "and another")
    assert len(overlapping(figure)) == 1


@pytest.mark.parametrize("count", [1, 2, 5, 10, 30, sheet.MOST])
@pytest.mark.parametrize("parts", [3, 4, 5])
def test_a_sheet_has_the_proportions_of_a_slide(count: int, parts: int):
    grid = sheet.arranged(count, parts, *style.SLIDE)
    places = {grid.at(i, part) for i in range(count) for part in range(parts)}
    assert len(places) == count * parts
    size = 1.0
    while sheet.arranged(count, parts, size * style.SLIDE[0], size * style.SLIDE[1]).tile < sheet.LEAST:
        size *= 1.05
    assert size < 2.6
    width, height = (size * side for side in style.SLIDE)
    grid = sheet.arranged(count, parts, width, height)
    left, top, across, down = sheet.corner(grid, width, height)
    rows, columns = (1 + max(place[i] for place in places_of(grid, count, parts)) for i in (0, 1))
    between = 0 if grid.down else (grid.along - 1) * sheet.BETWEEN
    assert left >= 0
    assert left + (columns - 1) * across + between + grid.tile <= width
    assert top + rows * down <= height - sheet.KEYS + 1e-9


def places_of(grid, count: int, parts: int) -> set[tuple[int, int]]:
    return {grid.at(i, part) for i in range(count) for part in range(parts)}


@pytest.mark.parametrize("name", [CURVES, BARS, OPEN, SHEET])
def test_what_goes_onto_a_slide_is_16_to_9(drawn, name: str):
    width, height = drawn[name].get_size_inches()
    assert width / height == pytest.approx(16 / 9)


@pytest.mark.parametrize("attention", ["se", "coordinate", "spatial"])
def test_other_gates_fit_too(digits, attention: str):
    for name in (OPEN, SHEET):
        figure = picture_of(name, digits, attention)
        width, height = figure.get_size_inches()
        assert width / height == pytest.approx(16 / 9)
        assert overlapping(figure) == []


def test_a_picture_beside_digits(digits):
    images, labels = digits
    photo = sheet.Picture("a_photo_with_$a_long^name.png", images[0], None, np.full((90, 160), 200, np.uint8),
                          (10, 60, 40, 90))  # fmt: skip
    doubted = photo._replace(doubted=True)
    figure = picture_of(SHEET, digits, pictures=[photo, doubted, *sheet.from_test_set(images, labels, [3])])
    assert overlapping(figure) == []
    said = [text.get_text() for text in texts(figure)]
    assert any(words.startswith("a_photo") and words.endswith("…") for words in said)
    assert any(words.startswith("no digit?") for words in said)
    assert "#3" in said  # its place; 3 alone would be a digit


# Colours


def test_no_count_vanishes_on_its_ground(drawn):
    axes = drawn[CONFUSION].axes[0]
    (image,) = axes.images
    numbers = {(round(text.get_position()[1]), round(text.get_position()[0])): text for text in axes.texts}
    assert len(numbers) == np.count_nonzero(COUNTS)
    for (row, col), text in numbers.items():
        assert text.get_text() == str(COUNTS[row, col])
        ground = "white" if row == col else image.to_rgba(COUNTS[row, col])
        assert contrast(text.get_color(), ground) >= 4.5, (row, col)
    assert len(axes.patches) == 10  # and what is right is framed: grey shows it


def test_no_colour_has_two_meanings(drawn):
    """In a figure, what is named differently has another colour; and lines differ in grey by dash or marker, too."""
    for name in (CURVES, BARS):
        meant: dict[str, set[str]] = {}
        styles: dict[str, set[tuple]] = {}
        for axes in drawn[name].axes:
            for line in axes.lines:
                meant.setdefault(to_hex(line.get_color()), set()).add(line.get_label())
                styles.setdefault(line.get_label(), set()).add(
                    (line.get_linestyle(), line.get_marker(), to_hex(line.get_markerfacecolor()))
                )
            for band in axes.collections:
                meant.setdefault(to_hex(band.get_facecolor()[0]), set()).add(band.get_label())
        assert all(len(labels) == 1 for labels in meant.values()), meant
        assert len(set(map(frozenset, styles.values()))) == len(styles)


# The figures of the ablation and of the benchmark


def test_the_ablation_is_drawn_by_accuracy(monkeypatch):
    from npattn.ablation import report

    kept = []
    monkeypatch.setattr(report, "save", lambda figure, path: kept.append(figure))
    accuracies = {"none": {0: 0.96, 1: 0.97}, "se": {0: 0.95, 1: 0.97}}
    report.figure(
        [{"row": name, "group": "blocks", "accuracies": each, "mean": sum(each.values()) / 2}
         for name, each in accuracies.items()],
        Path("none"),
    )  # fmt: skip
    (figure,) = kept
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_xlabel().startswith("accuracy")
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [96, 97])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a training, one seed", "mean of a baseline", "mean of a row", "no attention's mean"]
    assert overlapping(figure) == []


def test_the_growth_names_its_axes(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    from npattn.bench import growth

    kept = []
    monkeypatch.setattr(growth, "bench_block", lambda *_, **__: {"sides": [{"both": {"median": 2e-3}}]})
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: kept.append(figure))
    growth.growth("none", 1, lambda line: None)
    (figure,) = kept
    assert [axes.get_ylabel() for axes in figure.axes] == ["time (ms)"] * 3
    assert all(axes.get_xlabel() and axes.get_title() for axes in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["in proportion to the size", "measured"]
