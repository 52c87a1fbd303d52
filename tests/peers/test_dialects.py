"""The dialects: what codebases compute was recorded, and a layer that was loaded from their weights must agree.

A file CODEBASE_CLASS…_{train,eval}.npz of tests/peers/dialects/, and for the atlas' blocks of tests/peers/atlas/, holds
meta (JSON: dialect or source, module, args, mode), x, dy, y, dx, state.KEY before the forward, grad.KEY, and after.KEY,
the buffers after it. All of it is float64.
"""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import npattn
from npattn import dialects, variants
from npattn.dialects import AmbiguousError, UnknownError
from npattn.dialects.table import TABLE
from tests.support.numerical import distance

ROOMS = [Path(__file__).parent / room for room in ("dialects", "atlas")]
PATHS = {path.stem: path for room in ROOMS for path in sorted(room.glob("*.npz"))}
FILES = list(PATHS.values())
WITHIN = 1e-12


class Recorded(NamedTuple):
    dialect: str
    module: str
    args: dict[str, Any]
    training: bool
    arrays: dict[str, np.ndarray]

    def kind(self, name: str) -> dict[str, np.ndarray]:
        """The arrays "name.KEY", by KEY."""
        return {key.partition(".")[2]: value for key, value in self.arrays.items() if key.startswith(f"{name}.")}

    def load(self, **options: Any) -> dialects.Spoken:
        layer = dialects.load(self.dialect, self.module, self.kind("state"), **self.args)
        return layer.train(self.training)


def recorded(stem: str) -> Recorded:
    with np.load(PATHS[stem]) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    dialect = meta.get("dialect", meta.get("source"))
    return Recorded(dialect, meta["module"], meta["args"], meta["mode"] == "train", arrays)


@pytest.fixture(params=[path.stem for path in FILES])
def file(request: pytest.FixtureRequest) -> Recorded:
    return recorded(request.param)


def test_all_files_are_here():
    for room in ROOMS:  # a file that is listed and not there, or there and not listed, is one that nobody looks at
        assert sorted(path.stem for path in FILES if path.parent == room) == (room / "files.txt").read_text().split()
    recorded_ones = {path.stem.partition("_")[0] for path in FILES}
    assert recorded_ones == {
        "timm", "torchvision", "official", "luuuyi", "xmu", "changzy00", "ultralytics", "paper",
    }  # fmt: skip
    assert recorded_ones < set(dialects.DIALECTS)


def test_agrees_with_the_codebase(file: Recorded):
    layer = file.load()
    y = layer(file.arrays["x"])
    dx = layer.backward(file.arrays["dy"])
    assert distance(y, file.arrays["y"]) < WITHIN
    assert distance(dx, file.arrays["dx"]) < WITHIN

    gradients, wanted = dialects.dump(layer, "grads"), file.kind("grad")
    assert list(gradients) == list(wanted) == list(layer.params)
    largest = max(float(np.linalg.norm(gradient)) for gradient in (dx, *wanted.values()))
    for key, gradient in gradients.items():
        assert gradient.shape == wanted[key].shape == layer.params[key].shape
        off = np.linalg.norm(gradient - wanted[key])  # of a bias before a norm there is rounding, and nothing else
        near = WITHIN * np.linalg.norm(wanted[key]) + 1e-15 * largest
        assert off <= near or off <= 2 * moved_by_rounding(file, key), key

    after = dialects.dump(layer)
    for key, buffer in file.kind("after").items():
        assert after[key].dtype == buffer.dtype
        assert after[key].shape == buffer.shape
        assert distance(after[key], buffer) < WITHIN, key


def moved_by_rounding(file: Recorded, key: str) -> float:
    """How far a gradient goes when x changes in its last place: nobody knows it better than to that.

    A norm of one number each of two images gives ±1 whatever they are, and takes all but rounding from a gradient.
    """
    rng = np.random.default_rng(5)
    x, found = file.arrays["x"], []
    for step in (0, *rng.choice([-1, 1], (4, *x.shape))):
        layer = file.load()
        layer(x * (1 + step * np.finfo(x.dtype).eps))
        layer.backward(file.arrays["dy"])
        found.append(dialects.dump(layer, "grads")[key])
    return max(float(np.linalg.norm(gradient - found[0])) for gradient in found)


def test_dump_gives_the_same_bytes(file: Recorded):
    state = file.kind("state")
    dumped = dialects.dump(file.load())
    assert list(dumped) == list(state)
    for key, value in state.items():
        assert (dumped[key].dtype, dumped[key].shape) == (value.dtype, value.shape)
        assert dumped[key].tobytes() == value.tobytes(), key
        assert not np.shares_memory(dumped[key], value)


@pytest.mark.parametrize("wrapped", ["", "module.", "module.module."])
def test_detect(file: Recorded, wrapped: str):
    """It finds the class, one that is the same by another name, or says that it is among several."""
    state = {wrapped + key: value for key, value in file.kind("state").items()}
    row = TABLE[file.dialect][file.module]
    if not state:  # nothing tells it from others that have none
        with pytest.raises(UnknownError, match=f"^state: it is empty.*{row.title}"):
            dialects.detect(state)
        return
    try:
        found = ".".join(dialects.detect(state))
    except AmbiguousError as error:
        titles, message = [candidate.row.title for candidate in error.candidates], str(error)
    else:
        titles, message = [found], found
    assert row.title in titles or row.same_as in titles
    assert all(title in message for title in titles)
    # the arguments that the shapes give load it, and those that they cannot give are named
    candidate = next(candidate for candidate in dialects.candidates(state) if candidate.row is row)
    unseen = {name: value for name, value in file.args.items() if name in row.unseen}
    layer = dialects.load(file.dialect, file.module, state, **(candidate.args | unseen)).train(file.training)
    assert distance(layer(file.arrays["x"]), file.arrays["y"]) < WITHIN


def test_what_is_ambiguous():
    """Of the recorded files these: their keys and shapes belong to two classes, with different functions."""
    found = {}
    for path in FILES:
        state = recorded(path.stem).kind("state")
        try:
            _ = state and dialects.detect(state)
        except AmbiguousError as error:
            found[path.stem] = {candidate.row.title for candidate in error.candidates}
    one_fc = {"timm.EffectiveSEModule", "ultralytics.ChannelAttention"}
    two_fc = {"timm.SEModule", "torchvision.SqueezeExcitation"}
    squeeze_excite = {"timm.SqueezeExcite", "ghostnet.SqueezeExcite"}
    along_channels = {"timm.EcaModule", "timm.CecaModule"}
    assert found == {
        **{path.stem: two_fc for path in FILES if path.stem.startswith("torchvision_")},
        **{path.stem: squeeze_excite for path in FILES if path.stem.startswith("timm_SqueezeExcite")},
        "timm_EcaModule_train": along_channels,
        "timm_CecaModule_train": along_channels,
        "timm_SEModule_train": two_fc,
        "timm_SEModule_addmax_train": two_fc,
        "timm_SEModule_silu_train": two_fc,
        "timm_EffectiveSEModule_train": one_fc,
        "ultralytics_ChannelAttention_train": one_fc,
        "timm_SEModule_nobias_train": {"article.ChannelAttention", "timm.SEModule"},
    }


def test_same_as_is_the_same():
    """Where the table says that two classes compute the same, they do, and their keys and shapes are the same."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 32, 5, 4)), rng.standard_normal((2, 32, 5, 4))
    pairs = [(row, TABLE[row.same_as.split(".")[0]][row.same_as.split(".")[1]]) for row in rows() if row.same_as]
    assert len(pairs) == 3
    for row, other in pairs:
        assert row.keys == other.keys
        assert row.returns == other.returns
        channels = {} if row.name == "SpatialAttention" else {next(iter(row.signature.parameters)): 32}
        one = dialects.build(row.dialect, row.name, dtype="float64", rng=1, **channels)
        two = dialects.load(other.dialect, other.name, dialects.dump(one), **channels)
        y, y_other = one(x), two(x)
        np.testing.assert_array_equal(y, y_other)
        np.testing.assert_array_equal(one.backward(dy[:, : y.shape[1]]), two.backward(dy[:, : y.shape[1]]))


def rows():
    return [row for modules in TABLE.values() for row in modules.values()]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_every_class_of_the_table(row):
    """It can be built, dumped, found and loaded, its gradients are right, and it can be copied and pickled."""
    args = {name: 16 for name, given in row.signature.parameters.items() if given.default is given.empty}
    others = dict.fromkeys(("channels", "channel", "in_planes"), 16)
    others |= {"squeeze_channels": 4, "squeezed": 4, "inp": 8, "groups": 4}
    others |= dict.fromkeys(("kernel_size", "spatial_kernel_size"), 3)
    args |= {name: size for name, size in others.items() if name in row.signature.parameters}
    layer = dialects.build(row.dialect, row.name, dtype="float64", rng=3, **args)
    assert repr(layer).startswith(f"{row.title}(")
    state = dialects.dump(layer)
    assert not state or any(candidate.row is row for candidate in dialects.candidates(state))
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert {key: value.tobytes() for key, value in dialects.dump(copied).items()} == {
            key: value.tobytes() for key, value in state.items()
        }
    rng = np.random.default_rng(4)
    for key, value in state.items():
        if value.ndim:  # weights of size one: at initial ones a wrong gradient hides
            state[key] = rng.uniform(0.5, 1.5, value.shape) * (1 if "running_var" in key else rng.choice([-1, 1]))
    loaded = dialects.load(row.dialect, row.name, state, **args)
    x = rng.standard_normal((3, 16, 2, 3))
    gate = (3, 1, 2, 3) if row.name.startswith("Spatial") else (3, 16, 1, 1)
    assert loaded(x).shape == (gate if row.returns.startswith("gate") else x.shape)
    if not [path for path in FILES if path.stem.startswith(f"{row.dialect}_{row.name}_")]:
        npattn.gradcheck(loaded, x)  # no file tells of it


def test_pytorchs_hard_sigmoid_is_off_by_three_parts_in_a_hundred_million():
    """Its slope is 1/6 rounded to float32, in float64 too: aten/src/ATen/native/cpu/Activation.cpp.

    The checker sees it. The layer that is loaded as timm's has that slope, so as to have timm's gradients; our own
    hard sigmoid has the right one.
    """
    file = recorded("timm_EffectiveSEModule_train")
    theirs, x = file.load(), file.arrays["x"]
    exact = {"layers": 1, "bias": True, "gate": "hard_sigmoid", "dtype": "float64"}
    right = variants.SELayer(32, **exact).load_state_dict(theirs.layer.state_dict())
    np.testing.assert_array_equal(right(x), theirs(x))
    right.backward(file.arrays["dy"])
    error = file.kind("grad")["fc.bias"] / right.grads["fc.0.bias"] - 1
    np.testing.assert_allclose(error, float(np.float32(1) / np.float32(6)) * 6 - 1, rtol=1e-4)  # 2.98e-8
    small = x[:1, :4, :2, :2]
    assert npattn.gradcheck(variants.SELayer(4, 1, **exact, rng=0), small)
    theirs = dialects.build("timm", "EffectiveSEModule", channels=4, dtype="float64", rng=0)
    assert not npattn.gradcheck(theirs, small, raise_exception=False)


# Counting


def test_batches_are_counted_in_training_only():
    file = recorded("official_SpatialGate_train")
    key = "spatial.bn.num_batches_tracked"
    layer = dialects.load("official", "SpatialGate", file.kind("state") | {key: np.array(41)})
    x = file.arrays["x"]
    layer(x)
    layer.eval()
    layer(x)
    assert layer.batches == 42
    dumped = dialects.dump(layer)[key]
    assert (dumped.dtype, dumped.shape, dumped.item()) == (np.int64, (), 42)


def test_a_file_from_before_batches_were_counted():
    state = recorded("official_CBAM_train").kind("state")
    key = "SpatialGate.spatial.bn.num_batches_tracked"
    del state[key]
    layer = dialects.load("official", "CBAM", state, gate_channels=32, reduction_ratio=8)
    assert dialects.dump(layer)[key] == 0
    assert dialects.detect(state) == ("official", "CBAM")


@pytest.mark.parametrize(
    ("value", "error"), [(np.array(1.0), TypeError), (np.array(-1), ValueError), (np.array([1, 2]), TypeError)]
)
def test_a_count_that_is_none(value, error):
    state = recorded("official_SpatialGate_train").kind("state")
    with pytest.raises(error, match="num_batches_tracked"):
        dialects.load("official", "SpatialGate", state | {"spatial.bn.num_batches_tracked": value})


def test_luuuyis_ratio_is_not_read():
    state = recorded("luuuyi_CBAM_train").kind("state")
    layer = dialects.load("luuuyi", "ChannelAttention", dialects.part(state, "ca"), in_planes=32, ratio=4)
    assert layer.params["fc.0.weight"].shape == (2, 32, 1, 1)


# The order of the maps


def test_a_wrong_order_of_the_maps_is_silent():
    """[max, mean] and [mean, max]: the shapes are the same, so a renamed key loads, and the numbers are others."""
    file = recorded("xmu_CBAMBlock_k7_train")
    x, weight = file.arrays["x"], file.kind("state")["sa.conv.weight"]
    bias = np.zeros(1)
    theirs = dialects.load("xmu", "SpatialAttention", {"conv.weight": weight, "conv.bias": bias})(x)

    renamed = dialects.load("article", "SpatialAttention", {"conv1.weight": weight})  # no error
    assert distance(renamed(x), theirs) > 0.05

    swapped = dialects.load("article", "SpatialAttention", {"conv1.weight": weight[:, ::-1]})
    assert distance(swapped(x), theirs) < WITHIN


def test_what_detect_can_say_of_the_order():
    """It goes by the keys. With their own keys it knows; of renamed ones it cannot."""
    weight = recorded("xmu_CBAMBlock_k7_train").kind("state")["sa.conv.weight"]
    assert dialects.detect({"conv.weight": weight, "conv.bias": np.zeros(1)}) == (
        "xmu",
        "SpatialAttention",
    )  # max first
    assert dialects.detect({"conv.weight": weight}) == ("changzy00", "SpatialAttention")  # mean first, and so believed
    assert dialects.detect({"conv1.weight": weight}) == ("article", "SpatialAttention")


# Errors


def timm_state() -> dict[str, np.ndarray]:
    return recorded("timm_CbamModule_train").kind("state")


def test_missing_and_unknown_keys():
    state = timm_state()
    state["channel.fc3.weight"] = state.pop("channel.fc1.weight")
    with pytest.raises(KeyError, match=r"missing: \['channel.fc1.weight'\]; unknown: \['channel.fc3.weight'\]"):
        dialects.load("timm", "CbamModule", state, channels=32)


def test_wrong_shapes_are_all_told_and_the_arguments_that_fit():
    with pytest.raises(ValueError, match="this state fits") as caught:
        dialects.load("timm", "CbamModule", timm_state(), channels=64, spatial_kernel_size=3)
    for key, shape in {"channel.fc1.weight": (4, 64, 1, 1), "spatial.conv.conv.weight": (1, 2, 3, 3)}.items():
        assert f"state['{key}']: expected shape {shape}" in str(caught.value)
    assert str(caught.value).endswith("this state fits timm.CbamModule(channels=32)")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "missing channels.*this state fits timm.CbamModule.channels=32"),
        ({"channels": 32, "ratio": 16}, r"unknown argument ratio; did you mean rd_ratio\?.*rd_ratio=0.0625"),
    ],
)
def test_wrong_arguments(args, message):
    with pytest.raises(TypeError, match=message):
        dialects.load("timm", "CbamModule", timm_state(), **args)


@pytest.mark.parametrize(
    ("dialect", "module", "args", "message"),
    [
        ("keras", "CBAM", {}, "dialect: expected one of article, timm.*got 'keras'"),
        ("timm", "CBAM", {}, "module: expected one of SEModule.*in timm, got 'CBAM'"),
        ("timm", "CbamModule", {"channels": 32, "act_layer": "gelu"}, "act_layer: expected one of relu, silu"),
        ("timm", "SqueezeExcite", {"in_chs": 32, "rd_round_fn": round}, "rd_round_fn: expected None"),
        (
            "torchvision",
            "SqueezeExcitation",
            {"input_channels": 32, "squeeze_channels": 0},
            "squeeze_channels: expected",
        ),
        (
            "torchvision",
            "SqueezeExcitation",
            {"input_channels": 32, "squeeze_channels": 8, "activation": "GELU"},
            "activation: expected one of 'ReLU', 'SiLU', got 'GELU'",
        ),
        ("mmpretrain", "SELayer", {"channels": 32, "bias": "no"}, "bias: expected True, False or 'auto', got 'no'"),
        ("mmpretrain", "SELayer", {"channels": 32, "act_cfg": "ReLU"}, "act_cfg: expected two dicts"),
        (
            "mmpretrain",
            "SELayer",
            {"channels": 32, "act_cfg": ({"type": "ReLU"}, {"type": "HSigmoid", "bias": 1.0, "divisor": 2.0})},
            "act_cfg: expected two dicts",
        ),
        ("paddleclas", "SEModule", {"channel": 32, "slope": 0.3}, "slope: expected one of 0.1666667, 0.2, got 0.3"),
        ("ghostnet", "SqueezeExcite", {"in_chs": 32, "divisor": 0}, "divisor: expected a whole number"),
        ("timm", "CbamModule", {"channels": 32, "gate_layer": "tanh"}, "gate_layer: expected one of sigmoid"),
        ("timm", "EcaModule", {"use_mlp": True}, "channels: expected a number, which is asserted there"),
        ("timm", "EcaModule", {"channels": 32, "act_layer": "relu"}, "act_layer: expected None"),
        ("timm", "EcaModule", {"channels": 32, "use_mlp": True, "act_layer": "silu"}, "act_layer: expected 'relu'"),
        ("timm", "EcaModule", {"channels": 0}, "channels: expected a whole number of at least 1, got 0"),
        ("timm", "SEModule", {"channels": 32.5}, "channels: expected a whole number, got 32.5"),
        ("timm", "SEModule", {"channels": 32, "rd_divisor": 0}, "rd_divisor: expected a whole number of at least 1"),
        ("timm", "SEModule", {"channels": 32, "rd_ratio": -1}, "rd_ratio: expected a finite number from 0"),
        ("official", "CBAM", {"gate_channels": 32, "pool_types": ["avg", "mean"]}, "pool_types: expected"),
        ("official", "ChannelGate", {"gate_channels": 32, "pool_types": "avg"}, "pool_types: expected"),
        ("ultralytics", "CBAM", {"c1": 32, "kernel_size": 5}, "kernel_size: expected 3 or 7"),
        ("article", "CBAM", {"in_planes": 32, "kernel_size": 5}, "kernel_size: expected 3 or 7"),
        ("luuuyi", "CBAM", {"in_planes": 8}, "ratio: expected at most"),
    ],
)
def test_what_is_not_spoken(dialect, module, args, message):
    with pytest.raises((ValueError, TypeError), match=message):
        dialects.load(dialect, module, timm_state(), **args)


def test_no_floats_and_no_dict():
    state = timm_state()
    with pytest.raises(TypeError, match=r"channel.fc1.weight: expected dtype float32 or float64, got float16"):
        dialects.load("timm", "CbamModule", {k: v.astype(np.float16) for k, v in state.items()}, channels=32)
    with pytest.raises(TypeError, match=r'dtype="float32" converts it'):
        dialects.load("timm", "CbamModule", {k: v.astype(np.float16) for k, v in state.items()}, channels=32)
    odd = state | {"spatial.conv.bn.bias": np.zeros(1, np.float32)}
    with pytest.raises(TypeError, match=r"spatial.conv.bn.bias: expected dtype float64, the same as"):
        dialects.load("timm", "CbamModule", odd, channels=32)
    with pytest.raises(TypeError, match="state: expected a dict of arrays by key, got list"):
        dialects.load("timm", "CbamModule", list(state), channels=32)
    with pytest.raises(TypeError, match="state: expected keys that are text, got 1"):
        dialects.detect({1: np.zeros(3)})
    with pytest.raises(KeyError, match=r"missing: \['conv.weight'\]"):
        dialects.load("timm", "EcaModule", {})


def test_dump_says_what_it_cannot():
    layer = dialects.build("xmu", "CBAMBlock", channel=16)
    with pytest.raises(RuntimeError, match="grads before backward"):
        dialects.dump(layer, "grads")
    with pytest.raises(ValueError, match="what: expected 'state' or 'grads', got 'weights'"):
        dialects.dump(layer, "weights")
    with pytest.raises(TypeError, match=r"layer: expected one that npattn.dialects.load returned, got CBAM"):
        dialects.dump(npattn.CBAM(16))


def test_detect_lists_what_did_not_fit():
    state = timm_state()
    del state["channel.fc2.weight"]
    state["extra"] = np.zeros(3)
    with pytest.raises(UnknownError) as caught:
        dialects.detect(state)
    lines = str(caught.value).splitlines()
    assert lines[1].strip() == "timm.CbamModule: missing channel.fc2.weight; unknown extra"
    assert all(row.title in str(caught.value) for row in rows())


def test_detect_gives_the_reason_beyond_shapes():
    keys = {"ca.fc.0.weight": (4, 32, 1, 1), "ca.fc.2.weight": (32, 4, 1, 1), "sa.conv1.weight": (1, 2, 7, 7)}
    with pytest.raises(UnknownError, match=r"luuuyi.CBAM: expected in_planes // 16 = 32 // 16 = 2 hidden units"):
        dialects.detect({key: np.zeros(shape) for key, shape in keys.items()})
    with pytest.raises(UnknownError, match="no whole reduction makes 12 hidden units of 33 channels"):
        dialects.detect({"fc.0.weight": np.zeros((12, 33)), "fc.2.weight": np.zeros((33, 12))})


def test_a_module_inside_of_a_network():
    state = {
        f"module.layer1.0.cbam.{key}": value for key, value in recorded("official_CBAM_train").kind("state").items()
    }
    state["module.layer1.0.conv1.weight"] = np.zeros((4, 4, 3, 3))
    with pytest.raises(UnknownError, match=r"inside of it are 1, the first official.CBAM: take part.*'layer1.0.cbam'"):
        dialects.detect(state)
    assert list(dialects.inside(state)) == ["layer1.0.cbam"]
    assert dialects.detect(dialects.part(state, "layer1.0.cbam")) == ("official", "CBAM")
    with pytest.raises(KeyError, match="expected the beginning of a key, got 'layer2'"):
        dialects.part(state, "layer2")


def test_float32_stays():
    file = recorded("official_CBAM_train")
    state = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in file.kind("state").items()}
    layer = file._replace(arrays={f"state.{k}": v for k, v in state.items()}).load()
    y = layer(file.arrays["x"].astype(np.float32))
    assert y.dtype == np.float32
    assert distance(y, file.arrays["y"]) < 1e-5


@pytest.mark.parametrize("stem", ["official_SpatialGate_train", "timm_CbamModule_train"])
def test_to_another_library_and_back(stem: str):
    """On array-api-strict no NumPy function works; the layer keeps its names, and what it computes."""
    strict = pytest.importorskip("array_api_strict")
    file = recorded(stem)
    layer = file.load().to(xp=strict)
    y = layer(strict.asarray(file.arrays["x"]))
    dx = layer.backward(strict.asarray(file.arrays["dy"]))
    assert distance(np.asarray(y), file.arrays["y"]) < WITHIN
    assert distance(np.asarray(dx), file.arrays["dx"]) < WITHIN
    after = dialects.dump(layer.to(xp=np))
    assert list(after) == list(file.kind("state"))
    for key, buffer in file.kind("after").items():
        assert distance(after[key], buffer) < WITHIN, key


def test_timms_rounding():
    """Of 1/16 of the channels to a multiple of 8, at least 8, halves upwards; rd_channels=0 means none is given."""
    from npattn.dialects.timm.eca import eca_kernel
    from npattn.dialects.timm.rules import divisible, width

    assert [width(C, 1 / 16, None, 8) for C in (8, 32, 128, 191, 192, 256, 320)] == [8, 8, 8, 8, 16, 16, 24]
    assert [width(C, 1 / 16, None, 1) for C in (4, 8, 23, 24, 40)] == [1, 1, 1, 2, 3]
    assert width(64, 1 / 16, 0, 8) == 8
    assert [divisible(C / 8, 8, 0.9) for C in (32, 64, 88, 96, 128)] == [8, 8, 16, 16, 16]
    assert [eca_kernel(C, 2, 1) for C in (1, 8, 32, 64, 256, 1024)] == [3, 3, 3, 3, 5, 5]
