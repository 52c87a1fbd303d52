"""Files of weights: read as they were written, nothing hostile gets in, and no library is needed that is not used."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npattn import cli
from npattn.dialects import FileError, load, read, write
from tests.support.absent import absent

STATE = {
    "channel.fc1.weight": np.arange(64, dtype=np.float32).reshape(2, 32, 1, 1),
    "file": np.arange(6.0).reshape(2, 3),  # a name that numpy.savez cannot take
    "spatial.conv.bn.num_batches_tracked": np.array(7),
    "half": np.linspace(0, 1, 5, dtype=np.float16),
}
ENDINGS = [".npz", ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pth.tar"]


def needs(ending: str) -> None:
    pytest.importorskip({".npz": "numpy", ".safetensors": "safetensors"}.get(ending, "torch"))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        (one[key].dtype, one[key].shape, one[key].tobytes()) == (value.dtype, value.shape, value.tobytes())
        for key, value in other.items()
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(tmp_path: Path, ending: str):
    needs(ending)
    path = tmp_path / f"weights{ending}"
    write(path, STATE)
    found = read(str(path))
    assert same(found, STATE)
    for value in found.values():
        value[...] = 0  # writable
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS[:3])
@pytest.mark.parametrize("view", ["transposed", "reversed", "every other", "broadcast", "Fortran"])
def test_arrays_that_are_not_contiguous(tmp_path: Path, ending: str, view: str):
    """safetensors 0.8.0 writes the memory of such an array in its own order, under the shape of the view."""
    needs(ending)
    a = np.arange(24.0).reshape(4, 6)
    array = {
        "transposed": a.T, "reversed": a[::-1], "every other": a[:, ::2], "broadcast": np.broadcast_to(a[0], (3, 6)),
        "Fortran": np.asfortranarray(a),
    }[view]  # fmt: skip
    path = tmp_path / f"weights{ending}"
    write(path, {"w": array})
    np.testing.assert_array_equal(read(path)["w"], array)


def test_numpy_and_the_library_read_what_we_write(tmp_path: Path):
    write(tmp_path / "w.npz", STATE)
    with np.load(tmp_path / "w.npz", allow_pickle=False) as file:
        assert same({key: file[key] for key in file.files}, STATE)
    library = pytest.importorskip("safetensors.numpy")
    write(tmp_path / "w.safetensors", STATE)
    assert same(library.load_file(tmp_path / "w.safetensors"), STATE)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "w.npz"
    write(path, STATE)
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"w.npz: b: expected a dtype out of float16, .*, got complex64"):
        write(path, {"a": np.zeros(3), "b": np.zeros(3, np.complex64)})
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, STATE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# What must not get in


def member(name: str, content: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def header(text: str) -> bytes:
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


class Hostile:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_no_pickle_is_run(tmp_path: Path):
    """An array of objects is a pickle inside of an .npz."""
    np.savez(tmp_path / "w.npz", w=np.array([Hostile(tmp_path / "ran")], dtype=object))
    with pytest.raises(FileError, match=r"w.npz: no .npz of numbers"):
        read(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


def test_no_pickle_is_run_by_torch(tmp_path: Path):
    """A .pt file is a pickle as a whole, bare or in a zip."""
    torch = pytest.importorskip("torch")
    hostile = {"w": Hostile(tmp_path / "ran")}
    (tmp_path / "w.pt").write_bytes(pickle.dumps(hostile))
    torch.save(hostile, tmp_path / "w.pth")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(hostile, protocol=2))
    refused = r"it needs the class or function \S+, which torch does not run"
    for name, what in {"w.pt": r"a plain pickle of protocol \d", "w.pth": refused, "w.pkl": refused}.items():
        with pytest.raises(FileError, match=what):
            read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -1), }",
        "{'descr': '<U9', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,), }",
        "__import__('os').abort()",
        "(" * 5000,
    ],
)
def test_headers_that_lie(tmp_path: Path, text: str):
    with pytest.raises(FileError, match=r"no .npz of numbers, or a broken one"):
        read(member("w.npy", header(text) + bytes(16), tmp_path / "w.npz"))


def test_a_bomb(tmp_path: Path):
    """Five claims of a gigabyte each, in a file of no size: refused before any of it is read."""
    path = tmp_path / "w.npz"
    write(path, {f"w{i}": np.zeros(4) for i in range(5)})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = struct.pack("<I", archive.infolist()[0].file_size)
    start = data.index(b"PK\x01\x02")  # the directory at the end, where the sizes are claimed
    path.write_bytes(data[:start] + data[start:].replace(size, struct.pack("<I", 2**30)))
    with pytest.raises(FileError, match="claims more bytes than it has"):
        read(path)


def test_two_of_one_name(tmp_path: Path):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.zeros(2))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("w.npy", content.getvalue())
        archive.writestr("w", content.getvalue())
    with pytest.raises(FileError, match="two arrays of one name"):
        read(tmp_path / "w.npz")


@pytest.mark.parametrize("ending", ENDINGS[:3])
@given(data=st.data())
def test_bytes_changed_or_cut_off_anywhere(tmp_path_factory, ending: str, data):
    """A broken file is told in one way, or its arrays are told as they stand: never another error."""
    needs(ending)
    path = tmp_path_factory.mktemp("changed") / f"w{ending}"
    write(path, STATE)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found, message = read(path), str(path)
    except FileError as error:
        found, message = {}, str(error)
    assert str(path) in message
    assert all(isinstance(value, np.ndarray) for value in found.values())


def test_a_dtype_that_numpy_has_not(tmp_path: Path):
    text = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    needs(".safetensors")
    wanted = r'w: bfloat16, which NumPy has not: give dtype="float32"'
    with pytest.raises(FileError, match=wanted):
        read(path)
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match=wanted):
        read(tmp_path / "w.pt")


def test_a_checkpoint_with_the_weights_inside(tmp_path: Path):
    torch = pytest.importorskip("torch")
    weights = {key: torch.from_numpy(value) for key, value in STATE.items()}
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt"), STATE)
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(FileError, match=r"no weights were found in it: its top-level keys are epoch \(int\)"):
        read(tmp_path / "w.pt")


# What is not there


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_missing(tmp_path: Path, ending: str):
    needs(ending)
    with pytest.raises(FileError, match=f"w{ending}: cannot be read: No such file"):
        read(tmp_path / f"w{ending}")


@pytest.mark.parametrize(("ending", "library"), [(".safetensors", "safetensors"), (".pt", "torch")])
def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, library: str):
    absent(monkeypatch, library)
    path = tmp_path / f"w{ending}"
    path.write_bytes({".pt": b"\x80\x02}.", ".safetensors": struct.pack("<Q", 2) + b"{}"}[ending])
    for attempt in (lambda: read(path), lambda: write(path, STATE)):
        with pytest.raises(FileError, match=f"w{ending}: needs {library}, which is not installed"):
            attempt()


def test_another_ending(tmp_path: Path):
    with pytest.raises(FileError, match=r"w.h5: expected a file that ends in .npz, .safetensors, .pt"):
        write(tmp_path / "w.h5", STATE)


# The command


def luuuyi() -> dict[str, np.ndarray]:
    shapes = {"ca.fc.0.weight": (2, 32, 1, 1), "ca.fc.2.weight": (32, 2, 1, 1), "sa.conv1.weight": (1, 2, 7, 7)}
    return {key: np.ones(shape, np.float32) for key, shape in shapes.items()}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "w.npz"
    write(path, luuuyi())
    assert cli.main(["dialect", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: 3 entries, 226 numbers" in " ".join(out.split())
    assert "\nluuuyi.CBAM\n" in out
    # the call that it prints is one that runs
    lines = [line.strip() for line in out.splitlines()]
    state = next(line for line in lines if line.startswith("state = "))
    call = next(line for line in lines if line.startswith("npattn.dialects.load"))
    names: dict = {}
    exec(f"import npattn\n{state}\nlayer = {call}", names)
    assert repr(names["layer"]) == "luuuyi.CBAM(in_planes=32)"


def test_the_command_inside_of_a_wrapped_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "w.npz"
    state = {
        f"module.{unit}.{key}": value for unit in ("layer1.0.cbam", "layer1.1.cbam") for key, value in luuuyi().items()
    }
    write(path, state | {"module.conv1.weight": np.zeros((4, 3, 3, 3), np.float32)})
    assert cli.main(["dialect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Every key begins with module." in out
    assert out.count("\n  at layer1.") == 2
    lines = [line.strip() for line in out.splitlines()]
    names: dict = {}
    exec(f"import npattn\n{next(line for line in lines if line.startswith('state = '))}", names)
    assert repr(load("luuuyi", "CBAM", names["state"], in_planes=32)) == "luuuyi.CBAM(in_planes=32)"


def test_the_command_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "w.npz"
    write(path, {"conv1.weight": np.zeros((4, 3, 3, 3))})
    assert cli.main(["dialect", str(path)]) == 1
    assert "article.SpatialAttention: conv1.weight: expected (1, 2, k, k), got (4, 3, 3, 3)" in " ".join(
        capsys.readouterr().out.split()
    )
    assert cli.main(["dialect", str(tmp_path / "missing.npz")]) == 1
    assert "missing.npz: cannot be read" in capsys.readouterr().err
