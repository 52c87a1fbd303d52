"""What a file that is not one of MNIST's seems to be: a web page, or another data set under the same name."""

from __future__ import annotations

import hashlib
import math

import numpy as np

BEGINNINGS = (
    (b"\x1f\x8b", "it was gzipped twice"),
    (b"PK\x03\x04", "a zip archive (or an .npz file); what is in it is to be unpacked"),
    (b"version https://git-lfs", "a pointer of Git LFS in the place of the file; `git lfs pull` fetches it"),
    (b"\x93NUMPY", "an .npy file of NumPy"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"PAR1", "a Parquet file"),
    (b"BZh", "packed with bzip2, not with gzip"),
    (b"\xfd7zXZ", "packed with xz, not with gzip"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x28\xb5\x2f\xfd", "packed with zstandard, not with gzip"),
    (b"%PDF", "a PDF file"),
)
PACKED = {
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "Fashion-MNIST",
    "25c81989df183df01b3e8a0aad5dffbe": "Fashion-MNIST",
    "bef4ecab320f06d8554ea6380940ec79": "Fashion-MNIST",
    "bb300cfdad3c16e7a12a480ee83cd310": "Fashion-MNIST",
    "bdb82020997e1d708af4cf47b453dcf7": "KMNIST",
    "e144d726b3acfaa3e44228e80efcd344": "KMNIST",
    "5c965bf0a639b31b8f53240b1b52f4d7": "KMNIST",
    "7320c461ea6c1c855c0b718fb2a4b134": "KMNIST",
}
"""Data sets whose files have the same names and sizes: md5 of the four gzipped ones, as it is published."""
BRIGHTNESS = (("Fashion-MNIST", 0.286), ("KMNIST", 0.191))  # means of the training pixels, 0 to 1; MNIST has 0.131
ALTERED = 0.01  # the share of bytes up to which a file with others is an altered one, and no other


def seems(raw: bytes) -> str:
    """What bytes that are no IDX file seem to be, by how they begin."""
    start = raw[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not raw:
        return "it is empty"
    if not any(raw[:4096]) and len(raw) > 64:
        return "it begins with zeros: space that was set aside for a download, which did not come"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")):
        return "a web page or another answer of a server in the place of the file"
    for beginning, words in BEGINNINGS:
        if raw.startswith(beginning):
            return words
    if start.startswith((b"{", b"[")):
        return "JSON: the answer of a server, perhaps, in the place of the file"
    if is_text(raw[:512]):
        return f"a text: {raw[:512].decode(errors='replace')[:60]!r}"
    return f"no IDX file: it begins with {raw[:4].hex(' ')}"


def is_text(raw: bytes) -> bool:
    """Whether bytes can be read, as ASCII."""
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in raw)


def shape_of(raw: bytes) -> tuple[int, ...] | None:
    """The shape that an IDX header of bytes claims; None if there is no such header."""
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 4 or len(raw) < 4 + 4 * raw[3]:
        return None
    return tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, 4 + 4 * raw[3], 4))


def stranger(raw: bytes, packed: bytes, shape: tuple[int, ...], first: np.ndarray | None) -> str:
    """Why the bytes of a file are not those of the MNIST file whose array has that shape.

    Parameters
    ----------
    raw
        The file, unpacked, up to one byte more than it should have.
    packed
        The same before it was unpacked; empty where it was not packed.
    shape
        Of the array that it should hold.
    first
        The first entries of that array, as far as we have them.
    """
    start = 4 + 4 * len(shape)
    found = shape_of(raw)
    if found is None:
        return f"not the MNIST file: {seems(raw)}"
    name = PACKED.get(hashlib.md5(packed, usedforsecurity=False).hexdigest()) if packed else None
    if name is not None:
        return f"not the MNIST file: it is {name}'s, which has the same name"
    if found != shape:
        return f"not the MNIST file: an IDX file of shape {found}, where {shape} belongs"
    size = start + math.prod(shape)
    if len(raw) < size:
        return f"truncated: expected {size:,} bytes after decompression, got {len(raw):,}"
    if len(raw) > size:
        return f"altered: expected {size:,} bytes after decompression, got more"
    data = np.frombuffer(raw, np.uint8, offset=start)
    if first is not None:
        others = int(np.count_nonzero(data[: first.size] != first.ravel()))
        if others <= ALTERED * first.size:
            where = (
                f"{others:,} of its first {first.size:,} bytes are others" if others else "some of its bytes are others"
            )
            return f"altered: {where} than MNIST's"
    sort = "images" if len(shape) > 1 else "labels"
    likely = "Fashion-MNIST and KMNIST come in files of the same names"
    for name, mean in BRIGHTNESS if len(shape) > 1 else ():
        if abs(float(data.mean()) / 255 - mean) < 0.005:
            likely = f"by their brightness {name}'s"
    return f"not the MNIST file: an IDX file of as many other {sort}; {likely}"
