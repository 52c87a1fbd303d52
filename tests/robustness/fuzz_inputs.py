"""Inputs for tests/robustness/fuzz.py: right ones, changed a little, and ones built of parts that lie."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import random
import zlib
from typing import Any

import numpy as np
from PIL import Image

from npattn import data

NUMBERS = (0, 1, 2, 3, 4, 6, 28, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """`raw` with a few bytes changed, cut, doubled, taken out or put in."""
    out = bytearray(raw)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 32))
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + length] = rng.randbytes(length)
            case 2:
                del out[at:]
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length]
            case 5:
                out[at:at] = rng.randbytes(length)
            case _:
                size = rng.choice((2, 4, 8))
                number = rng.choice(NUMBERS) % 2 ** (8 * size)
                out[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
    return bytes(out)


def idx(rng: random.Random) -> bytes:
    """An IDX file; its header may lie."""
    axes = rng.choice((0, 1, 1, 2, 3, 3, 4, 255))
    sizes = [rng.choice(NUMBERS[:8] if rng.random() < 0.7 else NUMBERS) % 2**32 for _ in range(min(axes, 5))]
    total = math.prod(sizes)
    content = bytes(min(max(total + rng.choice((0, 0, 0, 0, 1, -1)), 0), 4096))
    magic = b"\0\0" + bytes([rng.choice((8, 8, 8, 8, 9, 13)), axes])
    raw = magic + b"".join(size.to_bytes(4, "big") for size in sizes) + content
    return mutated(raw, rng) if rng.random() < 0.4 else raw


WHOLE = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 4, 3)) + bytes(range(24))
FILE = data.File("a file", (2, 4, 3), hashlib.sha256(WHOLE).hexdigest())


BOMBS = [gzip.compress(bytes(size), 9, mtime=0) for size in (10, 10**4, 10**7)]


def idx_gz(rng: random.Random) -> bytes:
    """The one right file, gzipped in one of the ways there are, or another one, or a bomb; then changed."""
    raw = WHOLE if rng.random() < 0.7 else idx(rng)
    match rng.randrange(6):
        case 0:
            at = rng.randrange(len(raw) + 1)
            packed = gzip.compress(raw[:at], mtime=0) + gzip.compress(raw[at:], mtime=0)
        case 1:
            packed = rng.choice(BOMBS)
        case 2:
            packed = raw
        case 3:  # with a name and extra fields in its header
            plain = gzip.compress(raw, mtime=0)
            extra = rng.choice((b"", b"\x02\x00ab", b"\xff\xffab"))
            packed = plain[:3] + bytes([rng.randrange(32)]) + plain[4:10] + extra + b"name\0" * 2 + plain[10:]
        case _:
            packed = gzip.compress(raw, rng.choice((0, 1, 9)), mtime=0)
    return mutated(packed, rng) if rng.random() < 0.8 else packed


# JSON: configs and states


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can hold, and what Python's json reads beyond it."""
    kind = rng.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice((None, True, False, whole(rng), whole(rng), real(rng), text(rng)))


def whole(rng: random.Random) -> int:
    return rng.choice((1, 1, -1)) * rng.choice((*NUMBERS, 10**40, 10**400))


def real(rng: random.Random) -> float:
    return rng.choice(
        (0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), rng.gauss(0, 9))
    )


def text(rng: random.Random) -> str:
    return rng.choice(("", "cbam", "none", "\0", "a\0b", "\ud800", "é", "1", "nan", "x" * 500, "../../x", "epochs"))


def copied(tree: Any) -> Any:
    """The same dicts and lists again, and the same values in them."""
    if isinstance(tree, list):
        return [copied(node) for node in tree]
    return {key: copied(node) for key, node in tree.items()} if isinstance(tree, dict) else tree


def changed(tree: Any, rng: random.Random) -> Any:
    """A copy of a dict in which some values are others, missing, or new; also those of dicts and lists within."""
    tree = copied(tree)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        node = tree
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
                node = node[key]
                continue
            match rng.randrange(8):
                case 0:
                    del node[key]
                case 1 if isinstance(node, dict):
                    node[text(rng)] = value(rng)
                case 2 if isinstance(node[key], int | float):
                    node[key] = rng.choice((whole, real))(rng)
                case _:
                    node[key] = value(rng)
            break
    return tree


NAMES = ("a.npy", "model.a.npy", "meta.npy", "../x.npy", "/x", "b", "é.npy", "a/", "x" * 300)


def entry(array: np.ndarray) -> bytes:
    """An .npy entry as it should be."""
    np.lib.format.write_array(out := io.BytesIO(), array)
    return out.getvalue()


ENTRIES = [entry(a) for a in (np.arange(6, dtype=np.float32).reshape(2, 3), np.array(2.0), np.zeros(0, np.int64))]


def npy(rng: random.Random) -> bytes:
    """An .npy entry; its header may lie, or be no header."""
    size = rng.choice((0, 1, 2, 6))
    descr = rng.choice(
        ("'<f4'", "'<f4'", "'<f4'", "'>f8'", "'|u1'", "'|O'", "'<M8[s]'", "[('a', '<f4')]", "('<f4', (2,))", "'<f16'",
         "'<U9999999'", "3", "'\\q'", "''", "'<f0'", "'|V0'", "'|S0'", "None", "b'<f4'", "'f4, O'", "'<c8'", "'?'")
    )  # fmt: skip
    shape = rng.choice(
        (f"({size},)", f"({size},)", "()", "(2, 3)", "(-1,)", "(0, -1)", "(True, 2)", "(1.0,)", "[2]", "5", "(2L,)",
         f"({rng.choice(NUMBERS)}, {rng.choice(NUMBERS)})", "(" * 150 + ")" * 150, "(1," * 40 + ")" * 40, "(None,)",
         "(" + "1, " * 70 + ")", "(-2, -3)", "('a',)", "(" + "9" * 5000 + ",)", "(0, 18446744073709551616)")
    )  # fmt: skip
    order = rng.choice(("False", "False", "True", "1", "None", "x"))
    end = rng.choice(("}", "}", ", }", ", }", "", ", 'a': 1}", "} # \\", "}}", "}'''"))
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}{end}".encode()
    header = rng.choice((b"", b"", b"", b"", b" " * 64, b"\n", b"\xff")) + header + b" " * rng.randrange(64) + b"\n"
    if rng.random() < 0.2:
        header = mutated(header, rng)
    version = rng.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length = max(len(header) + rng.choice((0, 0, 0, 0, 1, -1, 10**4)), 0)
    prefix = b"\x93NUMPY" + bytes(version) + length.to_bytes(2 if version == (1, 0) else 4, "little")
    width = rng.choice((1, 4, 4, 4, 8))
    return prefix + header + rng.randbytes(size * width)


@np.errstate(all="ignore")  # numbers too large for a dtype are meant
def wrong_arrays(arrays: dict[str, Any], rng: random.Random) -> dict[Any, Any]:
    """A copy of a state_dict with one or two arrays that are others, missing or new."""
    arrays = dict(arrays)
    for _ in range(rng.choice((1, 1, 2))):
        key, old = rng.choice(list(arrays.items()))
        match rng.randrange(5):
            case 0:
                del arrays[key]
            case 1:
                arrays[rng.choice((text(rng), 5, None, ("a",)))] = old
            case 2 if isinstance(old, np.ndarray):
                dtype = rng.choice((old.dtype, np.dtype(np.float64)))
                number = rng.choice((np.nan, np.inf, -1, 1e30, 1e300 if dtype == np.float64 else 0))
                arrays[key] = np.full(old.shape, number, dtype if dtype.kind == "f" else np.float64)
            case 3 if isinstance(old, np.ndarray):
                arrays[key] = rng.choice((
                    np.zeros(()), np.zeros((1,) * 64, np.float32), np.array(["a"]), np.array([None]),
                    np.zeros(3, "M8[s]"),
                    np.zeros(old.shape, ">f4"), np.zeros(old.shape, np.int8), old.T, np.zeros((1, *old.shape[:8])),
                    np.zeros(old.shape, np.float16), np.ones(old.shape, complex), np.zeros((0, 2**40)),
                ))  # fmt: skip
            case _:
                arrays[key] = value(rng)
        if not arrays:
            break
    return arrays


def pictures() -> list[bytes]:
    """A dark stroke on light paper, in many formats and modes."""
    ink = np.full((20, 30), 230, np.uint8)
    ink[5:15, 10:13] = 20
    found = []
    for kind, mode, options in (
        ("PNG", "L", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
        ("JPEG", "L", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}),
        ("BMP", "L", {}), ("BMP", "RGB", {}), ("GIF", "L", {}), ("TIFF", "L", {}),
    ):  # fmt: skip
        Image.fromarray(ink).convert(mode).save(out := io.BytesIO(), kind, **options)
        found.append(out.getvalue())
    return found


PICTURES = pictures()


def image(rng: random.Random) -> bytes:
    """A picture, or what is left of one; in a PNG the checksums are mended, so that it is read on."""
    raw = mutated(rng.choice(PICTURES), rng)
    if raw[:8] != PICTURES[0][:8] or rng.random() < 0.3:
        return raw
    out, at = bytearray(raw), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big") if end + 4 <= len(out) else b""
        at = end + 4
    return bytes(out)
