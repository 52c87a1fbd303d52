"""MNIST's files: what is right is read, and what is missing, truncated or altered is refused by name."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import signal
import struct
import urllib.request
from http.client import BadStatusLine, HTTPResponse
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npattn import data, seems
from npattn.data import DataError


@pytest.fixture(scope="module")
def raw() -> dict[str, bytes]:
    """Four tiny files, as MNIST's are made."""
    rng = np.random.default_rng(50)
    images = rng.integers(0, 256, (12, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 12, np.uint8)
    files = {}
    for name, array in (
        ("train-images", images),
        ("train-labels", labels),
        ("t10k-images", images),
        ("t10k-labels", labels),
    ):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        files[f"{name}-idx{array.ndim}-ubyte"] = header + array.tobytes()
    return files


@pytest.fixture
def tiny(raw, monkeypatch) -> dict[str, bytes]:
    """The tiny files take the place of the real four."""
    monkeypatch.delenv("NPATTN_DATA", raising=False)
    for constant in ("TRAIN_IMAGES", "TRAIN_LABELS", "TEST_IMAGES", "TEST_LABELS"):
        name = getattr(data, constant).name
        shape = (12, 28, 28) if "images" in name else (12,)
        monkeypatch.setattr(data, constant, data.File(name, shape, hashlib.sha256(raw[name]).hexdigest()))
    return raw


def test_embedded_digits(monkeypatch):
    monkeypatch.delenv("NPATTN_DATA", raising=False)
    digits = data.load()
    assert digits.source == "embedded 10,000"
    assert digits.train_images.shape == digits.test_images.shape == (10000, 28, 28)
    assert digits.train_images.dtype == digits.train_labels.dtype == np.uint8
    assert digits.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST's well-known beginnings
    assert digits.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert set(digits.train_labels) == set(range(10))
    assert 0.13 < digits.train_images.mean() / 255 < 0.132
    digits.train_images[0] = 0  # the caller's own


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_a_folder_with_the_four_files(tiny, tmp_path, monkeypatch, zipped: bool, dotted: bool):
    for name, content in tiny.items():
        name = name.replace("-idx", ".idx") if dotted else name
        (tmp_path / f"{name}.gz" if zipped else tmp_path / name).write_bytes(
            gzip.compress(content) if zipped else content
        )
    digits = data.load(tmp_path)
    assert digits.source == "full 60,000"
    assert digits.train_images.shape == (12, 28, 28)
    assert digits.train_images.tobytes() == tiny["train-images-idx3-ubyte"][16:]
    monkeypatch.setenv("NPATTN_DATA", str(tmp_path))
    np.testing.assert_array_equal(data.load().test_labels, digits.test_labels)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: None, "no such file"),
        (lambda raw: raw[:-1], r"truncated: expected 9,424 bytes after decompression, got 9,423"),
        (lambda raw: b"", "not the MNIST file: it is empty"),
        (lambda raw: raw + b"x", "altered: expected 9,424 bytes after decompression, got more"),
        (
            lambda raw: raw[:999] + bytes([raw[999] ^ 1]) + raw[1000:],
            r"an IDX file of as many other images; .* \(sha256 [0-9a-f]{64}, expected [0-9a-f]{64}\)",
        ),
        (lambda raw: gzip.compress(raw)[:-100], "truncated: its gzip stream ends too early"),
        (lambda raw: gzip.compress(raw)[:5], "truncated: its gzip stream ends too early"),
        (lambda raw: b"\x1f\x8b" + bytes(100), "altered: its gzip stream is broken"),
        (
            lambda raw: gzip.compress(raw)[:200] + b"\xff" * 50 + gzip.compress(raw)[250:],
            "altered: its gzip stream is broken",
        ),
        (lambda raw: gzip.compress(raw + bytes(10**8)), "altered: expected 9,424 bytes after decompression, got more"),
    ],
    ids=["missing", "short", "empty", "long", "one bit", "gz short", "gz header", "gz nonsense", "gz broken", "bomb"],
)
def test_a_damaged_file(tiny, tmp_path, damage, message: str):
    for name, content in tiny.items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "t10k-images-idx3-ubyte"
    broken = damage(path.read_bytes())
    path.unlink() if broken is None else path.write_bytes(broken)
    with pytest.raises(DataError, match=message) as caught:
        data.load(tmp_path)
    assert str(path) in str(caught.value)


def test_a_folder_in_a_files_place(tiny, tmp_path):
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte: cannot be read: expected a regular file, got a directory"
    ):
        data.load(tmp_path)


@given(st.binary(max_size=64))
@example(b"\x00\x00\x08\x03" + b"\x7f\xff\xff\xff" * 3)  # claims 2**93 images
@example(b"\x00\x00\x08\x01\x80\x00\x00\x00")  # claims 2**31 labels
@example(b"\x00\x00\x08\x01\x00\x00\x00\x00")  # none at all, and right
@example(b"\x00\x00\x08\x02\x00\x00\x00\x02\x00\x00\x00\x01ab")
@example(b"\x00\x00\x08\x00")
@example(b"\x00\x00\x0d\x01\x00\x00\x00\x00")
def test_any_bytes_are_an_array_or_an_error(raw: bytes):
    with contextlib.suppress(DataError):
        array = data.parse_idx(raw, "a file")
        assert raw.endswith(array.tobytes())
        assert len(raw) == 4 + 4 * array.ndim + array.size


def answered(content: bytes, status: int = 200, **headers: str) -> HTTPResponse:
    """What a server gives: a real response, from bytes instead of a socket. `location` sends elsewhere."""
    lines = [f"HTTP/1.1 {status} .", *(f"{key}: {value}" for key, value in headers.items())]
    stream = io.BytesIO("\r\n".join([*lines, "", ""]).encode() + content)
    response = HTTPResponse(SimpleNamespace(makefile=lambda mode: stream))  # type: ignore[arg-type]
    response.begin()
    response.msg = "."  # as urllib's handlers set it
    return response


def serve(monkeypatch, answers) -> list[str]:
    """Let `answers(url)` take the place of every server, and note what was asked for."""
    asked = []

    class Server(urllib.request.BaseHandler):
        def https_open(self, request):
            asked.append(request.full_url)
            answer = answers(request.full_url)
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(urllib.request, "HTTPSHandler", Server)
    return asked


def test_tests_have_no_network(tiny, tmp_path):
    with pytest.raises(RuntimeError, match=r"a test (looks up|connects to)"):
        data.load(tmp_path, download=True)


def test_download(tiny, tmp_path, monkeypatch):
    def answers(url):
        if "storage" not in url:
            return OSError("mirror is away")
        return answered(gzip.compress(tiny[url.rpartition("/")[2].removesuffix(".gz")]))

    asked = serve(monkeypatch, answers)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits = data.load(download=True)
    assert digits.train_images.tobytes() == tiny["train-images-idx3-ubyte"][16:]
    assert len(asked) == 8
    assert all(url.startswith("https://") for url in asked)
    assert len(list((tmp_path / "npattn" / "mnist").iterdir())) == 4
    data.load(download=True)
    assert len(asked) == 8, "what is there is not fetched again"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda raw: answered(raw[:-1]), "truncated"),
        (lambda raw: answered(raw[:-1], **{"content-length": str(len(raw))}), "truncated"),
        (lambda raw: answered(raw[:-9] + b"123456789"), "altered"),
        (lambda raw: answered(b"<html>no</html>"), "not the MNIST file: a web page"),
        (lambda raw: answered(b"", 404), "HTTP Error 404"),
        (lambda raw: answered(b"", 302, location="http://elsewhere.example/"), "unknown url type: http"),
        (lambda raw: answered(b"", 302, location="ftp://elsewhere.example/"), "unknown url type: ftp"),
        (lambda raw: answered(b"", 302, location="file:///etc/passwd"), "HTTP Error 302"),
        (lambda raw: answered(b"", 301, location=f"https://x.example/{data.TRAIN_IMAGES.name}.gz"), "infinite loop"),
        (lambda raw: answered(b"", 301, location="https://[elsewhere"), "Invalid IPv6 URL"),
        (lambda raw: answered(bytes(data.LARGEST_DOWNLOAD + 5)), "more than 16,777,216 bytes"),
        (lambda raw: answered(b"-5\r\n", **{"transfer-encoding": "chunked"}), "IncompleteRead"),
        (lambda raw: BadStatusLine("x"), "x"),
        (lambda raw: TimeoutError("timed out"), "timed out"),
    ],
    ids=[
        "short", "cut off", "altered", "page", "missing", "http", "ftp", "file", "loop", "no address", "huge",
        "nonsense", "no http", "timeout",
    ],
)  # fmt: skip
def test_a_download_that_goes_wrong_leaves_nothing(tiny, tmp_path, monkeypatch, answer, message: str):
    asked = serve(monkeypatch, lambda url: answer(gzip.compress(tiny[url.rpartition("/")[2].removesuffix(".gz")])))
    with pytest.raises(DataError, match=rf"(?s)could not be downloaded.*{re.escape(message)}"):
        data.load(tmp_path / "new", download=True)
    assert not list(tmp_path.rglob("*-ubyte*"))
    assert asked
    assert all(url.startswith("https://") for url in asked), "nothing else is even asked"


def test_a_download_that_never_ends(tiny, tmp_path, monkeypatch):
    """A byte now and then, as long as one waits: given up after an hour by the clock."""

    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            clock[0] += 59
            buffer[:1] = b"x"
            return 1

    clock = [0.0]

    def answer(url):
        response = answered(b"")
        response.fp = io.BufferedReader(Endless())
        return response

    monkeypatch.setattr(data, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    serve(monkeypatch, answer)
    with pytest.raises(DataError, match="not whole after 3600 seconds"):
        data.load(tmp_path / "new", download=True)


def test_a_download_that_is_killed_leaves_no_file_by_that_name(tiny, tmp_path, monkeypatch):
    """Killed in the middle of the write: what is there has a name that is never read, and goes at the next download."""
    serve(monkeypatch, lambda url: answered(gzip.compress(tiny[url.rpartition("/")[2].removesuffix(".gz")])))
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)  # all is written, but nothing renamed
        data.load(tmp_path, download=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".part")
    with pytest.raises(DataError, match="no such file"):
        data.load(tmp_path)
    os.utime(left, (0, 0))
    assert data.load(tmp_path, download=True).source == "full 60,000"
    assert not left.exists()


# What is not MNIST's


def images_of(mean: float, N: int = 60000) -> bytes:
    """As many pictures as the training digits, of that brightness."""
    pixels = np.random.default_rng(0).integers(0, round(510 * mean), (N // 100, 28, 28), np.uint8)
    return struct.pack(">HBB3I", 0, 8, 3, N, 28, 28) + np.tile(pixels, (100, 1, 1)).tobytes()


OTHERS = {
    "a page": (b"\n<!DOCTYPE html><html>404", "a web page or another answer of a server"),
    "a page with a mark": (b"\xef\xbb\xbf<HTML>", "a web page"),
    "json": (b'{"message": "no"}', "JSON: the answer of a server"),
    "text": (b"Access denied\n", "a text: 'Access denied"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a pointer of Git LFS"),
    "a zip": (b"PK\3\4" + bytes(50), "a zip archive"),
    "an array": (b"\x93NUMPY\1\0", "an .npy file of NumPy"),
    "bzip2": (b"BZh91AY", "packed with bzip2"),
    "zeros": (bytes(10**6), "it begins with zeros"),
    "bytes": (b"\x07\x08\x09\xff", "no IDX file: it begins with 07 08 09 ff"),
    "nothing": (b"", "it is empty"),
    "fewer": (images_of(0.2, 10000), r"an IDX file of shape \(10000, 28, 28\), where \(60000, 28, 28\) belongs"),
    "colours": (b"\0\0\x08\4" + struct.pack(">4I", 2, 3, 4, 5), r"an IDX file of shape \(2, 3, 4, 5\)"),
    "clothes": (images_of(0.286), "an IDX file of as many other images; by their brightness Fashion-MNIST's"),
    "letters": (images_of(0.191), "an IDX file of as many other images; by their brightness KMNIST's"),
    "pictures": (images_of(0.4), "an IDX file of as many other images; Fashion-MNIST and KMNIST come in files of the same names"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_mnists_is_called_what_it_seems_to_be(tmp_path, name: str, zipped: bool):
    content, words = OTHERS[name]
    path = tmp_path / (data.TRAIN_IMAGES.name + ".gz" * zipped)
    path.write_bytes(gzip.compress(content, 1) if zipped else content)
    with pytest.raises(DataError, match=f"not the MNIST file: {words}") as caught:
        data.load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "truncated" not in str(caught.value)


def test_gzipped_twice(tmp_path):
    (tmp_path / data.TRAIN_IMAGES.name).write_bytes(gzip.compress(gzip.compress(b"x")))
    with pytest.raises(DataError, match="not the MNIST file: it was gzipped twice"):
        data.load(tmp_path)


def test_the_gzipped_files_of_others_are_known_by_their_md5(tmp_path, monkeypatch):
    packed = gzip.compress(images_of(0.286), 1, mtime=0)
    monkeypatch.setitem(seems.PACKED, hashlib.md5(packed).hexdigest(), "Letter-MNIST")
    (tmp_path / f"{data.TRAIN_IMAGES.name}.gz").write_bytes(packed)
    with pytest.raises(DataError, match="not the MNIST file: it is Letter-MNIST's, which has the same name"):
        data.load(tmp_path)


def test_another_of_the_four(tmp_path):
    (tmp_path / data.TRAIN_IMAGES.name).write_bytes(
        gzip.decompress((data.EMBEDDED / f"{data.TEST_IMAGES.name}.gz").read_bytes())
    )
    with pytest.raises(DataError, match="not the file of that name: it is MNIST's t10k-images-idx3-ubyte"):
        data.load(tmp_path)


def test_what_is_altered_is_called_altered(tmp_path):
    """A bit that is another, in the real file: no other data set."""
    raw = bytearray(gzip.decompress((data.EMBEDDED / f"{data.TEST_LABELS.name}.gz").read_bytes()))
    path = tmp_path / data.TEST_LABELS.name
    raw[900] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"altered: 1 of its first 10,000 bytes are others than MNIST's \(sha256 "):
        data.read(tmp_path, data.TEST_LABELS)
    raw[8:] = bytes(10000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="an IDX file of as many other labels; Fashion-MNIST and KMNIST come in files"):
        data.read(tmp_path, data.TEST_LABELS)
    raw[8:] = raw[8:5000]
    path.write_bytes(raw)
    with pytest.raises(DataError, match="truncated: expected 10,008 bytes after decompression, got 5,000"):
        data.read(tmp_path, data.TEST_LABELS)
