"""`npattn cam`: digits from image files, hostile ones too, and the sheet."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import cli, data, models
from npattn.explain import images, sheet
from npattn.explain.images import ImageError
from npattn.training import prepared

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture(scope="module")
def digit() -> np.ndarray:
    """A seven of MNIST's, (28, 28), light on dark."""
    return data.read(data.EMBEDDED, data.TEST_IMAGES)[0]


def large(digit: np.ndarray, by: int = 10) -> np.ndarray:
    """The digit enlarged, dark on light, and off the middle: as somebody would write it."""
    ink = np.kron(digit, np.ones((by, by), np.uint8))
    return np.pad(255 - ink, ((3 * by, 0), (0, 9 * by)), constant_values=255)


def read_digit(path: Path) -> tuple[np.ndarray, list[str]]:
    """The digit, and what was done."""
    reading = images.read_digit(path)
    return reading.image, reading.notes


def saved(array: np.ndarray, path: Path, mode: str | None = None, **options) -> Path:
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


# Reading


def test_a_picture_of_mnists_size_is_taken_as_it_is(digit, tmp_path):
    found, notes = read_digit(saved(digit, tmp_path / "seven.png"))
    np.testing.assert_array_equal(found, digit)
    assert found.dtype == np.uint8
    assert notes == ["28 × 28, PNG of mode L", "28 × 28 already: not moved, not scaled"]


def test_dark_on_light_is_inverted(digit, tmp_path):
    found, notes = read_digit(saved(255 - digit, tmp_path / "seven.bmp"))
    np.testing.assert_array_equal(found, digit)
    assert notes[1] == "inverted: its border is light, and MNIST is white on black"


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_picture_becomes_a_digit_like_mnists(digit, tmp_path, kind: str, mode: str):
    found, notes = read_digit(saved(large(digit), tmp_path / f"seven.{kind}", mode))
    assert found.shape == (28, 28)
    assert np.corrcoef(found.ravel(), digit.ravel())[0, 1] > 0.97, "MNIST's own way gives nearly MNIST's own digit"
    assert abs(float(found.mean()) - float(digit.mean())) < 4
    assert f"370 × 310, {'JPEG' if kind == 'jpg' else kind.upper()} of mode {mode}" == notes[0]
    assert ("turned to grey" in notes) == (mode == "RGB")
    assert any("scaled to fit 20 × 20" in note for note in notes)


@pytest.mark.parametrize("shape", [(5, 200), (200, 5), (1, 40), (300, 300), (29, 28)], ids=str)
def test_any_shape_fits(tmp_path, shape):
    picture = np.zeros(shape, np.uint8)
    side = 2 if min(shape) < 100 else 8  # two pixels of 300 would be a speck
    picture[shape[0] // 3 : shape[0] // 3 + side, shape[1] // 3 : shape[1] // 3 + side] = 200
    found, _ = read_digit(saved(picture, tmp_path / "dot.png"))
    assert found.shape == (28, 28)
    assert found.max() > 200
    rows, cols = np.mgrid[:28, :28]
    for axis in (rows, cols):
        assert abs((found * axis).sum() / found.sum() - 14) <= 0.75


def test_grey_paper_is_taken_off(digit, tmp_path):
    paper = (60 + digit.astype(float) * 0.5).astype(np.uint8)
    found, _ = read_digit(saved(np.kron(paper, np.ones((4, 4), np.uint8)), tmp_path / "grey.png"))
    assert np.median(found) == 0
    assert found.max() > 230


def test_transparent_sixteen_bit_and_palette(digit, tmp_path):
    ink = large(digit)
    clear = np.dstack([np.zeros_like(ink)] * 3 + [255 - ink])  # black ink, and nothing at all beside it
    wanted, _ = read_digit(saved(ink, tmp_path / "plain.png"))
    found, notes = read_digit(saved(clear, tmp_path / "clear.png"))
    np.testing.assert_allclose(found, wanted, atol=2)
    assert "laid on white where it is transparent" in notes
    found, notes = read_digit(saved(ink.astype(np.uint16) * 257, tmp_path / "deep.png"))
    np.testing.assert_allclose(found, wanted, atol=1)
    assert "16 bits a pixel scaled to 8" in notes
    found, _ = read_digit(saved(ink, tmp_path / "palette.png", "P"))
    np.testing.assert_allclose(found, wanted, atol=2)
    found, _ = read_digit(saved(ink, tmp_path / "bits.png", "1"))
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9


def test_a_photograph_lying_on_its_side_is_turned(digit, tmp_path):
    picture = Image.fromarray(np.rot90(large(digit)))
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: to be turned clockwise
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    found, _ = read_digit(tmp_path / "turned.jpg")
    assert np.corrcoef(found.ravel(), digit.ravel())[0, 1] > 0.97
    upright, _ = read_digit(saved(large(digit), tmp_path / "upright.jpg", quality=95))
    np.testing.assert_allclose(found, upright, atol=3)


# Hostile files


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that claims to be so large, with these chunks in it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(b"IDAT", body) for body in chunks) + chunk(b"IEND", b"")


HOSTILE = {
    "empty": (b"", "expected an image, PNG, JPEG, BMP; it is none of these"),
    "text": (b"not an image at all", "expected an image, PNG, JPEG, BMP"),
    "gif": (b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff", "expected an image, PNG, JPEG, BMP"),
    "a bomb": (png(60_000, 60_000), r"expected at most 16,777,216 pixels, got (60000 × 60000|far more)"),
    "too large": (png(5_000, 5_000), "expected at most 16,777,216 pixels, got 5000 × 5000"),
    "no pixels": (png(40, 40), "a broken image"),
    "cut off": (png(400, 400, zlib.compress(b"\0" * 1000)), "a broken image"),
    "bad stream": (png(40, 40, b"garbage"), "a broken image"),
    "no width": (png(0, 40, zlib.compress(b"")), "a broken image|expected an image"),
    "flat": (png(40, 40, zlib.compress(b"\0" * 41 * 40)), "expected a digit, got a picture of nearly one grey"),
}


def test_a_picture_without_strokes(tmp_path):
    picture = np.full((100, 100), 255, np.uint8)
    picture[20:80, 20:80] = 0
    with pytest.raises(ImageError, match=r"square\.png: expected a digit, got a picture without strokes"):
        read_digit(saved(picture, tmp_path / "square.png"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(tmp_path, name: str):
    content, message = HOSTILE[name]
    path = tmp_path / "hostile.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"hostile\.png: ({message})"):
        read_digit(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(images.LARGEST_FILE + 1)  # sparse: takes no disk
    with pytest.raises(ImageError, match=r"large\.png: expected at most 33,554,432 bytes, got 33,554,433"):
        read_digit(path)
    with pytest.raises(FileNotFoundError):
        read_digit(tmp_path / "none.png")
    with pytest.raises(ImageError, match="expected a regular file, got a directory"):
        read_digit(tmp_path)


def test_altered_files_give_a_digit_or_an_image_error(digit, tmp_path):
    """Bytes flipped, cut out and put in, at random: nothing but an ImageError comes out of a broken file."""
    rng = np.random.default_rng(70)
    originals = []
    for kind, options in (("PNG", {}), ("JPEG", {}), ("BMP", {}), ("PNG", {"transparency": 3})):
        stream = io.BytesIO()
        Image.fromarray(large(digit, 2)).convert("P" if options else "L").save(stream, kind, **options)
        originals.append(np.frombuffer(stream.getvalue(), np.uint8))
    path, refused = tmp_path / "altered", 0
    for n in range(400):
        content = originals[n % len(originals)].copy()
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(0, min(len(content), 200 if n % 2 else len(content))))
            content[place] = rng.integers(0, 256)
        if n % 5 == 0:
            content = content[: int(rng.integers(0, len(content)))]
        path.write_bytes(content.tobytes())
        try:
            found, _ = read_digit(path)
        except ImageError:
            refused += 1
        else:
            assert found.shape == (28, 28)
            assert found.dtype == np.uint8
    assert 50 < refused < 400


# The sheet


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run's folder, of a network that was hardly trained."""
    digits = data.Digits(
        *(
            data.read(data.EMBEDDED, file)[:300]
            for file in (data.SOME_TRAIN_IMAGES, data.SOME_TRAIN_LABELS, data.TEST_IMAGES, data.TEST_LABELS)
        ),
        "embedded 10,000",
    )
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *a, **k: digits)
        patch.setattr("npattn.training.start.write_figures", lambda run, confusion: None)  # they would only take time
        npattn.train(npattn.TrainConfig(epochs=1, batch_size=100, out=str(out)), progress=False)
    return out


def test_the_sheet(folder, tmp_path, capsys, digit):
    assert cli.main(["cam", str(folder)]) == 0
    shown = capsys.readouterr().out
    labels = data.read(data.EMBEDDED, data.TEST_LABELS)
    assert shown.count("test image #") == 10
    assert f"maps by cam; the sheet is {folder / 'cam.png'}" in shown
    with Image.open(folder / "cam.png") as picture:
        assert picture.size[0] > 800
        assert picture.size[0] / picture.size[1] == pytest.approx(16 / 9, rel=0.01)  # a slide
    saved(large(digit), tmp_path / "seven.png")
    argv = ["cam", str(folder), "--digits", "0", "8", "--image", str(tmp_path / "seven.png")]
    assert cli.main([*argv, "--layer", "stage3.relu", "--out", str(tmp_path / "sheet.png")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{tmp_path / 'seven.png'}: 370 × 310, PNG of mode L; inverted: it is dark on light")
    assert "maps by grad-cam at stage3.relu" in shown
    assert [line.split("  ")[0].strip() for line in shown.splitlines()[1:4]] == [
        "seven.png",
        "test image #0",
        "test image #8",
    ]
    assert labels[0] == 7
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_sheet_shows():
    """The maps of a digit keep their proportion and their sign; the classes are the two largest scores."""
    model = models.digits("cbam", rng=3)
    x = prepared(data.read(data.EMBEDDED, data.TEST_IMAGES)[:5])
    seen = sheet.look(model, x)
    y = model.eval()(x)
    np.testing.assert_array_equal(seen.classes[:, 0], np.argmax(y, axis=1))
    np.testing.assert_array_equal(np.sort(y, axis=1)[:, -2], np.take_along_axis(y, seen.classes, 1)[:, 1])
    assert np.all(seen.shares[:, 0] >= seen.shares[:, 1])
    np.testing.assert_allclose(np.abs(seen.maps).max(axis=(1, 2, 3)), 1, rtol=1e-6)
    raw = [npattn.explain.class_activation_map(model, x, m, relu=False, normalise=False) for m in seen.classes.T]
    ratio = seen.maps / np.stack(raw, axis=1)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1, :1], ratio.shape), rtol=1e-5)
    assert seen.gate.shape == (5, 7, 7)
    assert seen.gate_name == "stage3.attention.spatial"
    assert sheet.look(models.se_resnet(rng=0), x).gate is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--digits", "10000"], "digits: expected places in the test set, 0 to 9999, got 10000"),
        (["--digits", "-1"], "digits: expected places in the test set, 0 to 9999, got -1"),
        (["--digits", *["0"] * 61], "digits: expected at most 60 on a sheet, got 61"),
        (["--method", "cam", "--layer", "stage2"], "layer: CAM looks at what goes into the pooling"),
        (["--layer", "stage7"], "layer: expected one of stage1, stage2"),
        (["--image", "nowhere.png"], "nowhere.png"),
    ],
)
def test_bad_options(folder, tmp_path, capsys, options, message):
    out = tmp_path / "sheet.png"
    assert cli.main(["cam", str(folder), "--out", str(out), *options]) == (1 if "--image" in options else 2)
    error = capsys.readouterr().err
    assert error.startswith("npattn: ")
    assert message in error
    assert not out.exists()


def test_a_folder_without_a_run(tmp_path, capsys):
    assert cli.main(["cam", str(tmp_path)]) == 1
    assert "checkpoint.npz: cannot be read" in capsys.readouterr().err


def test_without_a_spatial_gate(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("npattn.commands.cam.load_model", lambda path: models.se_resnet(rng=0).eval())
    assert cli.main(["cam", str(folder), "--digits", "5", "--out", str(tmp_path / "sheet.png")]) == 0
    assert "no spatial gate, so the sheet has no column for it" in capsys.readouterr().out


# Photographs


def test_the_crop_and_the_doubts_are_shown(folder, tmp_path, capsys, digit):
    """A speck at the edge plays no part; what may be no digit is said to be, in words and on the sheet."""
    photo = large(digit)
    photo[2:8, 3:9] = 0
    saved(photo, tmp_path / "speck.png")
    saved(np.pad(np.zeros((40, 40), np.uint8), 60, constant_values=255), tmp_path / "patch.png")
    out = tmp_path / "sheet.png"
    files = [str(tmp_path / name) for name in ("speck.png", "patch.png")]
    assert cli.main(["cam", str(folder), "--image", *files, "--out", str(out)]) == 0
    shown = capsys.readouterr().out.splitlines()
    top, bottom, left, right = images.read_digit(tmp_path / "speck.png").box
    assert f"cropped to the digit, {right - left} × {bottom - top} from pixel ({left}, {top}); 1 other mark" in shown[0]
    assert shown[2].startswith(f"{files[1]}: it may be no digit, and then the answer means nothing: it is a filled pat")
    np.testing.assert_allclose(read_digit(tmp_path / "speck.png")[0], read_digit(saved(large(digit), out))[0], atol=30)


def test_the_sheet_has_a_column_for_the_picture(folder, tmp_path, digit, monkeypatch):
    saved(large(digit), tmp_path / "seven.png")
    drawn = []
    monkeypatch.setattr("npattn.explain.sheet.save", lambda figure, path: drawn.append(figure))
    for argv in (["--digits", "0"], ["--digits", "0", "--image", str(tmp_path / "seven.png")]):
        assert cli.main(["cam", str(folder), *argv]) == 0
    without, with_picture = ([axes.get_title().replace("\n", " ") for axes in figure.axes] for figure in drawn)
    assert without[:3] == ["test digit", "for the answer", "for the runner-up"]
    assert with_picture[:4] == ["picture", "input", "for the answer", "for the runner-up"]
    (frame,) = drawn[1].axes[0].patches
    top, bottom, left, right = images.read_digit(tmp_path / "seven.png").box
    assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (left, top)
    assert (frame.get_width(), frame.get_height()) == (right - left, bottom - top)
