"""Files by their first bytes, weights in any nesting, halves on request, and what is no file of weights at all."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npattn import cli, dialects
from npattn.dialects import FileError, contents, read, write
from npattn.dialects.containers import chosen
from npattn.dialects.torch_file import why
from tests.support.nested_weights import CONTAINERS, contained

STATE = {
    "ca.fc.0.weight": np.arange(64, dtype=np.float32).reshape(2, 32, 1, 1) / 64,
    "ca.fc.2.weight": np.arange(64, dtype=np.float32).reshape(32, 2, 1, 1) / 64,
    "sa.conv1.weight": np.ones((1, 2, 7, 7), np.float32),
}


def torch_or_skip():
    return pytest.importorskip("torch", reason="torch is not installed")


def same(found: dict[str, np.ndarray]) -> bool:
    plain = {
        key.removeprefix("model.").removeprefix("module.").removeprefix("_orig_mod."): v for key, v in found.items()
    }
    return plain.keys() == STATE.keys() and all(np.array_equal(plain[key], STATE[key]) for key in STATE)


# By first bytes


@pytest.mark.parametrize("name", ["w.pth.tar", "w.pkl", "w.ckpt", "w.bin", "w", "w.npz", "w.h5", "w.txt"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torchs_files_by_any_name(tmp_path: Path, name: str, zipped: bool):
    torch = torch_or_skip()
    tensors = {key: torch.as_tensor(value) for key, value in STATE.items()}
    torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert same(read(tmp_path / name))


@pytest.mark.parametrize("name", ["w.pt", "w", "w.weights"])
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_the_others_by_any_name(tmp_path: Path, name: str, ending: str):
    pytest.importorskip("safetensors")
    write(tmp_path / f"known{ending}", STATE)
    os.rename(tmp_path / f"known{ending}", tmp_path / name)
    assert same(read(tmp_path / name))


def test_a_header_that_begins_like_a_pickle(tmp_path: Path):
    """A header of 640 bytes has the first two bytes of a pickle of protocol 2."""
    pytest.importorskip("safetensors")
    text = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).ljust(640)
    (tmp_path / "w").write_bytes(struct.pack("<Q", 640) + text.encode() + struct.pack("<f", 2.5))
    assert (tmp_path / "w").read_bytes()[:2] == b"\x80\x02"
    np.testing.assert_array_equal(read(tmp_path / "w")["w"], [2.5])


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__)


def zipped(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"1")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda p: p.write_bytes(b""), "it is empty"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html><html>404"), "a web page"),
        (lambda p: p.write_bytes(b"\n <html>"), "a web page"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(9)), "an HDF5 file, as Keras"),
        (lambda p: p.write_bytes(gzip.compress(b"weights")), "gzip: unpack it first"),
        (lambda p: p.write_bytes(b"GGUF\x03"), "a GGUF file"),
        (lambda p: p.write_bytes(b"\x00\x01\x02"), r"it begins with b'\\x00\\x01\\x02'"),
        (lambda p: p.write_bytes(pickle.dumps({"w": [1.0]}, protocol=4)), "a plain pickle of protocol 4.*numpy.savez"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00" + bytes(9)), "one array of NumPy without a name"),
        (tar, "a tar archive: unpack it first"),
        (lambda p: zipped(p, "model/constants.pkl"), "a program of TorchScript.*torch.jit.load"),
        (lambda p: zipped(p, "config.json"), "a zip, but none of NumPy's or torch's: it holds 'config.json'"),
        (lambda p: p.write_bytes(b"PK\x03\x04 not one"), "a broken zip"),
    ],
)  # fmt: skip
def test_what_it_is_instead(tmp_path: Path, make, what: str):
    if "pickle" in what:
        torch_or_skip()
    make(tmp_path / "w.pt")
    with pytest.raises(FileError, match=what):
        read(tmp_path / "w.pt")


# What must be refused at once


def test_special_files(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo.pt")
    for path in (tmp_path / "fifo.pt", Path("/dev/zero"), tmp_path):
        with pytest.raises(FileError, match="cannot be read: expected a regular file, got a"):
            read(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.pt"])
def test_a_sparse_file_of_a_terabyte(tmp_path: Path, name: str):
    with (tmp_path / name).open("wb") as file:
        file.write(struct.pack("<Q", 2**39) + b"{")
        file.truncate(2**40)
    with pytest.raises(FileError, match=r"expected at most 17,179,869,184 bytes, got 1,099,511,627,776"):
        read(tmp_path / name)


def test_a_directory_that_claims_gigabytes(tmp_path: Path):
    path = tmp_path / "w.npz"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2**32 - 2**20)
        file.seek(0, 2)
        size = file.tell() - 4
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, size, 4, 0))
    with pytest.raises(FileError, match=r"a directory of 4,29\d,\d+,\d+ bytes; expected at most"):
        read(path)


def test_a_tensor_that_claims_more_than_the_file_has(tmp_path: Path):
    """One number in the file, a tensor of 10¹² of them by a step of 0: a copy would take 4 terabytes."""
    torch = torch_or_skip()
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match="its tensors claim more bytes than it has"):
        read(tmp_path / "w.pt")


def test_an_entry_that_claims_more_than_the_file_has(tmp_path: Path):
    torch = torch_or_skip()
    torch.save({"w": torch.zeros(1000)}, tmp_path / "w.pt")
    data = (tmp_path / "w.pt").read_bytes()
    size, directory = struct.pack("<I", 4000), data.index(b"PK\x01\x02")
    assert size in data[directory:]
    (tmp_path / "w.pt").write_bytes(data[:directory] + data[directory:].replace(size, struct.pack("<I", 2**31)))
    with pytest.raises(FileError, match="claims more bytes than"):
        read(tmp_path / "w.pt")


# Containers


@pytest.mark.parametrize("container", CONTAINERS)
def test_weights_in_any_nesting(tmp_path: Path, container: str, capsys: pytest.CaptureFixture[str]):
    torch = torch_or_skip()
    path = tmp_path / "w.pth"
    torch.save(contained(STATE, container, tensor=torch.as_tensor), path)
    assert same(read(path))
    assert cli.main(["dialect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\nluuuyi.CBAM\n" in out
    names: dict = {}
    lines = [line.strip() for line in out.splitlines()]
    state, call = (
        next(line for line in lines if line.startswith(begin)) for begin in ("state = ", "npattn.dialects.load")
    )
    exec(f"import npattn\n{state}\nlayer = {call}", names)
    assert repr(names["layer"]) == "luuuyi.CBAM(in_planes=32)"


@pytest.mark.parametrize(
    ("container", "taken", "other"),
    [("basicsr", "params", "params_ema"), ("timm", "state_dict", "state_dict_ema"), ("averaged", "model", "model_ema")],
)
def test_weights_and_their_averages(tmp_path: Path, container: str, taken: str, other: str, capsys):
    torch = torch_or_skip()
    path = tmp_path / "w.pth"
    torch.save(contained(STATE, container, tensor=torch.as_tensor), path)
    found = contents(path)
    assert (found.under, found.others) == (taken, [other])
    averages = dialects.part({f"x.{k.removeprefix('module.')}": v for k, v in read(path, under=other).items()}, "x")
    np.testing.assert_array_equal(averages["sa.conv1.weight"], STATE["sa.conv1.weight"] + 1)
    assert cli.main(["dialect", str(path), "--under", other]) == 0
    out = capsys.readouterr().out
    assert f"The weights are under {other}." in out
    assert f'--under "{taken}"' in out
    assert f'under="{other}"' in out
    with pytest.raises(FileError, match=f"under: expected a name of what holds weights, '.*{taken}'.*, got 'nowhere'"):
        read(path, under="nowhere")


def test_averages_where_there_is_nothing_else(tmp_path: Path):
    torch = torch_or_skip()
    torch.save({"model_ema": {key: torch.as_tensor(v) for key, v in STATE.items()}, "epoch": 3}, tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt"))


def test_what_is_no_tensor_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch = torch_or_skip()
    entries = {key: torch.as_tensor(value) for key, value in STATE.items()}
    torch.save({**entries, "epoch": 3, "_extra_state": {"a": 1}, "note\x1b[31m": "red"}, tmp_path / "w.pt")
    assert contents(tmp_path / "w.pt").left_out == {"epoch": "int", "_extra_state": "dict", "note\x1b[31m": "str"}
    assert cli.main(["dialect", str(tmp_path / "w.pt")]) == 0
    out = capsys.readouterr().out
    assert r"No arrays, and left out: epoch (int), _extra_state (dict), note\x1b[31m (str)." in out
    assert "\x1b" not in out


def test_where_there_are_none(tmp_path: Path):
    torch = torch_or_skip()
    for content, what in (
        ({"epoch": 3, "args": {"lr": 0.1}}, r"its top-level keys are epoch \(int\), args \(dict\)"),
        ({}, "it is an empty dict"),
        ([torch.zeros(3)], "expected a dict of tensors, got list"),
        (torch.zeros(3), "expected a dict of tensors, got Tensor"),
        ({"state": {0: {"exp_avg": torch.zeros(3)}}}, r"its top-level keys are state \(dict\)"),
    ):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(FileError, match=what):
            read(tmp_path / "w.pt")


def test_dicts_that_hold_themselves_and_very_deep_ones():
    loop: dict = {"epoch": 3}
    loop["again"] = loop
    deep: dict = {"w": np.zeros(3)}
    for _ in range(200):
        deep = {"in": deep}
    for content in (loop, deep):
        with pytest.raises(ValueError, match="no weights were found"):
            chosen(content, None)
    loop["w"] = np.zeros(3)
    assert chosen(loop, None)[0].name == ""


# Halves


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_halves_are_converted_on_request(tmp_path: Path, half: str, kind: str, capsys: pytest.CaptureFixture[str]):
    torch = torch_or_skip()
    tensors = {key: torch.as_tensor(value).to(getattr(torch, half)) for key, value in STATE.items()}
    tensors["steps"] = torch.tensor(3)
    path = tmp_path / "w"
    if kind == "torch":
        torch.save(tensors, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(tensors, path)
    wanted = {key: tensor.double().numpy() for key, tensor in tensors.items()}
    for dtype in ("float32", "float64"):
        found = read(path, dtype=dtype)
        assert found.pop("steps").dtype == np.int64
        for key, value in found.items():
            assert value.dtype == dtype
            np.testing.assert_array_equal(value, wanted[key])
    if half == "float16":
        assert read(path)["sa.conv1.weight"].dtype == np.float16  # as it is
        with pytest.raises(TypeError, match=r'got float16; dtype="float32" converts it'):
            dialects.load("luuuyi", "CBAM", {k: v for k, v in read(path).items() if k != "steps"}, in_planes=32)
    else:
        with pytest.raises(FileError, match=r'\w+.weight: bfloat16, which NumPy has not: give dtype="float32"'):
            read(path)
    state = {key: tensor for key, tensor in tensors.items() if key != "steps"}
    layer = dialects.load("luuuyi", "CBAM", state, dtype="float64", in_planes=32)
    np.testing.assert_array_equal(layer.params["ca.fc.0.weight"], wanted["ca.fc.0.weight"])

    assert cli.main(["dialect", str(path)]) == 0  # luuuyi's stand among other entries
    out = capsys.readouterr().out
    assert f"ca.fc.0.weight is {half} and 2 more." in out
    assert f"ca.fc.0.weight   {half}" in out
    assert 'dtype="float32")\n' in out


@pytest.mark.parametrize("dtype", ["float16", "int32", "junk", 3, True])
def test_a_dtype_that_is_none(tmp_path: Path, dtype):
    write(tmp_path / "w.npz", STATE)
    with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
        read(tmp_path / "w.npz", dtype=dtype)


def test_numbers_that_are_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "w.npz", {"conv1.weight": np.array([[[[1e300]], [[np.inf]]]])})
    with pytest.raises(FileError, match=r"conv1.weight: numbers that float32 cannot hold, up to 1e\+300"):
        read(tmp_path / "w.npz", dtype="float32")
    assert read(tmp_path / "w.npz", dtype="float64")["conv1.weight"][0, 0, 0, 0] == 1e300
    assert cli.main(["dialect", str(tmp_path / "w.npz")]) == 0
    assert cli.main(["dialect", str(tmp_path / "w.npz"), "--dtype", "float32"]) == 1
    assert "cannot hold" in capsys.readouterr().err


def test_tensors_that_are_views_with_a_sign_or_a_conjugate(tmp_path: Path):
    torch = torch_or_skip()
    z = torch.tensor([1 + 2j])
    for view, wanted in ((z.conj(), 1 - 2j), (z.conj().imag, -2)):
        torch.save({"w": view}, tmp_path / "w.pt")
        assert read(tmp_path / "w.pt")["w"][0] == wanted


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2"])
def test_eight_bits(tmp_path: Path, name: str):
    pytest.importorskip("safetensors")
    text = json.dumps({"w\n": {"dtype": name, "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    for dtype in (None, "float32"):
        with pytest.raises(FileError, match=rf"w\\n: {name}, which NumPy has not: convert it where it was made"):
            read(tmp_path / "w", dtype=dtype)


def test_tensors_without_numbers_or_in_other_layouts(tmp_path: Path):
    torch = torch_or_skip()
    for tensor, what in (
        (torch.zeros(3, device="meta"), "w: a tensor without numbers, on torch's device meta"),
        (torch.eye(3).to_sparse(), "w: a tensor of layout sparse_coo: save its to_dense"),
        (torch.zeros(4, dtype=torch.float8_e4m3fn), "w: float8_e4m3fn, which NumPy has not"),
    ):
        torch.save({"w": tensor}, tmp_path / "w.pt")
        with pytest.raises(FileError, match=what):
            read(tmp_path / "w.pt")
        assert cli.main(["dialect", str(tmp_path / "w.pt")]) == 1
    with pytest.raises(TypeError, match=r"fc1\.weight: a tensor without numbers"):
        dialects.load(
            "timm", "SEModule", {"fc1.weight": torch.zeros(8, 8, 1, 1, device="meta")}, dtype="float32", channels=8
        )


def test_a_counter_without_a_number():
    torch = torch_or_skip()
    state = dialects.dump(dialects.build("official", "SpatialGate"))
    counter = "spatial.bn.num_batches_tracked"
    with pytest.raises(TypeError, match=f"{counter}'\\]: expected one whole number, got a tensor without one"):
        dialects.load("official", "SpatialGate", state | {counter: torch.zeros((), device="meta", dtype=torch.int64)})


@pytest.mark.parametrize("value", [None, 3, "x", [1.0], np.zeros(64, object)])
def test_what_is_no_array(value):
    """Each was another error, or none: None stands for an absent array elsewhere."""
    state = dialects.dump(dialects.build("moskomule", "SELayer", channel=64))
    for dtype in (None, "float32"):
        with pytest.raises(TypeError, match=r"fc\.2\.bias: expected an array|fc\.2\.bias: .*object"):
            dialects.load("moskomule", "SELayer", state | {"fc.2.bias": value}, dtype=dtype, channel=64)


# Classes that torch refuses


class Net:
    """A class of a user's."""


@pytest.mark.parametrize("content", [Net, lambda: {"state_dict": {}, "args": Net()}], ids=["whole", "beside"])
def test_a_refused_class_is_named_and_what_to_do(tmp_path: Path, content, capsys: pytest.CaptureFixture[str]):
    torch = torch_or_skip()
    path = tmp_path / "w.pt"
    torch.save(content(), path)
    with pytest.raises(FileError) as caught:
        read(path)
    message = str(caught.value)
    assert f"{__name__}.Net" in message
    for piece in (
        "If you trust the file",
        "torch.save(found.state_dict()",
        'torch.save(found["state_dict"]',
        f"{path}",
    ):
        assert piece in message
    assert "\x1b" not in message
    assert "two options" not in message
    assert cli.main(["dialect", str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_torchs_own_reason_without_its_colours_and_preface():
    preface = "Weights only load failed. You have two options, \x1b[1mdo those only if you trust it\x1b[0m.\n"
    error = RuntimeError(f"{preface}\tWeightsUnpickler error: \x1b[1munexpected end\x1b[0m of it\n\nRead the manual.")
    assert why(error, "w.pt", b"\x80\x02") == "torch cannot read it as weights alone: unexpected end of it"
    assert why(RuntimeError("\x1b[31mno\x1b[0m"), "w.pt", b"PK") == "torch cannot read it as weights alone: no"
    assert why(EOFError(), "w.pt", b"PK") == "torch cannot read it as weights alone: EOFError"
