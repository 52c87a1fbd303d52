"""MNIST: the files, what is checked of them, and the digits that come with the package.

Embedded are the first 10,000 training digits and the whole test set of 10,000. The other 50,000 are read from a folder
or downloaded on request. Every file is checked by the sha256 of its decompressed bytes before a digit of it is used.
MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from npattn import columns
from npattn.arguments import explained
from npattn.checks import shown, true_or_false
from npattn.files import atomic, opened, read_bytes, sweep
from npattn.notebook import html_lines, html_table
from npattn.seems import stranger

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

EMBEDDED = Path(__file__).parent / "mnist"
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
LARGEST_DOWNLOAD = 16 * 2**20  # bytes; the largest of the four has 9.9 million
LARGEST_FILE = 2**26  # bytes; the largest of the four has 47 million unpacked
LONGEST_DOWNLOAD = 3600  # seconds for one of them


class DataError(Exception):
    """A data file is missing, unreadable, truncated or altered. The message names the file and what is wrong."""


class File(NamedTuple):
    name: str
    shape: tuple[int, ...]
    sha256: str  # of the decompressed bytes


TRAIN_IMAGES = File(
    "train-images-idx3-ubyte", (60000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
)
TRAIN_LABELS = File(
    "train-labels-idx1-ubyte", (60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
)
TEST_IMAGES = File(
    "t10k-images-idx3-ubyte", (10000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
)
TEST_LABELS = File(
    "t10k-labels-idx1-ubyte", (10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
)
SOME_TRAIN_IMAGES = File(
    "train-10k-images-idx3-ubyte", (10000, 28, 28), "2889698e6bc3614913e76901316712919d1998fc2b44512451bfe65bc1e668b1"
)
SOME_TRAIN_LABELS = File(
    "train-10k-labels-idx1-ubyte", (10000,), "651e38e2ac0632f5113ec18f1df4977117f953197819034009971a6675a0df78"
)


HEAD = ("array", "shape", "dtype", "what")


class Digits(NamedTuple):
    """Images are uint8, 0 (paper) to 255 (ink); labels are uint8, 0 to 9."""

    train_images: np.ndarray  # (10000 or 60000, 28, 28)
    train_labels: np.ndarray
    test_images: np.ndarray  # (10000, 28, 28)
    test_labels: np.ndarray
    source: str  # "embedded 10,000" or "full 60,000"

    def __repr__(self) -> str:
        return f"MNIST, {self.source}\n{columns.table(HEAD, self.rows())}"

    def _repr_html_(self) -> str:
        return html_lines([f"MNIST, {self.source}"]) + html_table(HEAD, self.rows())

    def rows(self) -> list[tuple[str, ...]]:
        """Each array in words, as cells."""
        what = {"images": "0 (paper) to 255 (ink)", "labels": "the digit, 0 to 9"}
        arrays = zip(self._fields[:4], self[:4], strict=True)
        return [(name, str(array.shape), str(array.dtype), what[name.rpartition("_")[2]]) for name, array in arrays]


@explained
def load(data_dir: str | os.PathLike[str] | None = None, *, download: bool = False) -> Digits:
    """Read and check the digits.

    Parameters
    ----------
    data_dir
        A folder with the four MNIST files, gzipped or not. Without one the environment variable NPATTN_DATA is asked,
        and without that the embedded digits are read.
    download
        Fetch what the folder lacks over https. Without a folder it goes to npattn/mnist in the user's cache folder.

    Returns
    -------
    Digits

    Raises
    ------
    DataError
        If a file is missing, unreadable, truncated or altered, or could not be downloaded.
    TypeError
        If data_dir is no path, or download no bool.
    """
    if data_dir is not None and not isinstance(data_dir, str | os.PathLike):
        raise TypeError(f"data_dir: expected a path or None, got {shown(data_dir)}")
    download = true_or_false("download", download)
    folder = Path(data_dir) if data_dir is not None else None
    if folder is None and os.environ.get("NPATTN_DATA"):
        folder = Path(os.environ["NPATTN_DATA"])
    if folder is None and download:
        folder = downloads()
    if folder is None:
        files, folder, source = (
            (SOME_TRAIN_IMAGES, SOME_TRAIN_LABELS, TEST_IMAGES, TEST_LABELS),
            EMBEDDED,
            "embedded 10,000",
        )
    else:
        files, source = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS), "full 60,000"
    if download and folder is not EMBEDDED:
        for file in files:
            if find(folder, file) is None:
                fetch(folder, file)
    train_images, train_labels, test_images, test_labels = (read(folder, file) for file in files)
    return Digits(train_images, train_labels, test_images, test_labels, source)


def downloads() -> Path:
    """Where digits are downloaded to if no folder is named: in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npattn" / "mnist"


def find(folder: Path, file: File) -> Path | None:
    """The path of `file` in `folder`, gzipped or not, under either of the two names it is known by."""
    dotted = file.name.replace("-idx", ".idx")
    for name in (f"{file.name}.gz", file.name, f"{dotted}.gz", dotted):
        if (folder / name).exists():
            return folder / name
    return None


def read(folder: Path, file: File) -> np.ndarray:
    """The array in `file`, uint8, after checking its size, its sha256 and its header. Raises DataError."""
    path = find(folder, file)
    if path is None:
        raise DataError(f"{folder / file.name}: no such file (nor with .gz at the end)")
    try:
        with opened(path, LARGEST_FILE) as stream:
            raw = decompressed(stream, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return parse_idx(raw, str(path))


def decompressed(stream: BinaryIO, file: File) -> bytes:
    """The bytes of `file` from a stream, gzipped or not, never more than they should be. Raises DataError."""
    size = 4 + 4 * len(file.shape) + math.prod(file.shape)
    zipped = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    try:
        raw = (gzip.GzipFile(fileobj=stream) if zipped else stream).read(size + 1)
    except EOFError:
        raise DataError("truncated: its gzip stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"altered: its gzip stream is broken: {error}") from None
    found = hashlib.sha256(raw).hexdigest()
    if found != file.sha256:
        stream.seek(0)
        reason = stranger(raw, stream.read(LARGEST_FILE) if zipped else b"", file.shape, beginning(file, raw))
        raise DataError(f"{reason} (sha256 {found}, expected {file.sha256})" if len(raw) == size else reason)
    return raw


def beginning(file: File, raw: bytes) -> np.ndarray | None:
    """The first digits or labels of a file of MNIST, as far as they come with the package, to compare with.

    Raises DataError if `raw` is one of the other three.
    """
    known = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
    found = hashlib.sha256(raw).hexdigest()
    for other in known:
        if found == other.sha256:
            raise DataError(f"not the file of that name: it is MNIST's {other.name}")
    ours = {TRAIN_IMAGES.sha256: SOME_TRAIN_IMAGES, TRAIN_LABELS.sha256: SOME_TRAIN_LABELS,
            TEST_IMAGES.sha256: TEST_IMAGES, TEST_LABELS.sha256: TEST_LABELS}  # fmt: skip
    kept = ours.get(file.sha256)
    path = None if kept is None else find(EMBEDDED, kept)
    if kept is None or path is None:
        return None
    try:
        whole = gzip.decompress(read_bytes(path, LARGEST_FILE))
    except (OSError, EOFError, zlib.error):
        return None
    same = hashlib.sha256(whole).hexdigest() == kept.sha256  # else it is the package's own that is broken
    return np.frombuffer(whole, np.uint8, offset=4 + 4 * len(kept.shape)) if same else None


def parse_idx(raw: bytes, name: str) -> np.ndarray:
    """The uint8 array in the bytes of an IDX file: two zeros, the type 8, the number of axes, their sizes, the data.

    Parameters: raw, the decompressed bytes; name, what errors call them. Returns a new array that can be written to.
    Raises DataError if the header is none of a uint8 array or its sizes are not those of the data that follows.
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 3:
        raise DataError(
            f"{name}: expected an IDX header of bytes with 1 to 3 axes (00 00 08 01…03), got {raw[:4].hex(' ')}"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{name}: truncated: its header of {start} bytes ends after {len(raw)}")
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4))
    if math.prod(shape) != len(raw) - start:
        raise DataError(f"{name}: its header says {shape}, {math.prod(shape):,} bytes, but {len(raw) - start:,} follow")
    try:
        return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()
    except ValueError:  # no bytes, as one axis is 0, but the others are too long even for that
        raise DataError(f"{name}: its header says {shape}, which no array can have") from None


def opener() -> OpenerDirector:
    """What opens an address: it knows https alone, so a redirection to anything else is an error before it is asked."""
    from urllib import request

    class Redirected(request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, *rest: Any) -> Any:
            fp.close()  # its page would be read to the end, however long
            return super().redirect_request(req, fp, *rest)

    made = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPDefaultErrorHandler(),
        Redirected(),
        request.HTTPErrorProcessor(),
        request.HTTPSHandler(),
    ):
        made.add_handler(handler)
    return made


def download_bytes(url: str) -> bytes:
    """What the address gives. Raises DataError if that is too much or takes too long, OSError and others if nothing."""
    from urllib.error import HTTPError

    end = time.monotonic() + LONGEST_DOWNLOAD
    got = bytearray()
    try:
        answer = opener().open(url, timeout=60)
    except HTTPError as error:  # an answer, too
        error.close()
        raise
    with answer:
        while chunk := answer.read1(2**16):
            got += chunk
            if len(got) > LARGEST_DOWNLOAD:
                raise DataError(f"more than {LARGEST_DOWNLOAD:,} bytes")
            if time.monotonic() > end:
                raise DataError(f"not whole after {LONGEST_DOWNLOAD} seconds")
    return bytes(got)


def fetch(folder: Path, file: File) -> Path:
    """Download `file` into `folder`, gzipped, from the first mirror that has it right. Returns its path.

    The bytes are checked before they get their name. Raises DataError if no mirror gave them, with each one's reason.
    """
    import io
    from http.client import HTTPException

    reasons = []
    for mirror in MIRRORS:
        url = f"{mirror}{file.name}.gz"
        try:
            packed = download_bytes(url)
            decompressed(io.BytesIO(packed), file)
        except (OSError, HTTPException, ValueError, DataError) as error:  # ValueError: sent on to what is no address
            reasons.append(f"{url}: {error}")
            continue
        path = folder / f"{file.name}.gz"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder, [path.name], older=LONGEST_DOWNLOAD)
            with atomic(path) as out:
                out.write(packed)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
        return path
    raise DataError(f"{file.name}: could not be downloaded:\n  " + "\n  ".join(reasons))
