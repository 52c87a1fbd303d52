"""Modules in a whole network: extra keys, halves, near misses, keys that two codebases share, and hostile keys."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npattn
from npattn import cli, dialects
from npattn.commands.dialect import Asked, report
from npattn.dialects import AmbiguousError, UnknownError, write
from npattn.dialects.network import halves, nearest
from npattn.dialects.numbers import converted
from npattn.dialects.table import TABLE
from npattn.dialects.weights_file import Contents


def weights(dialect: str, module: str, **args) -> dict[str, np.ndarray]:
    return dialects.dump(dialects.build(dialect, module, rng=0, **args))


def at(prefix: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{key}": value for key, value in state.items()}


def printed(state: dict[str, np.ndarray]) -> str:
    """What the command prints for a file of this state."""
    return "\n".join(report(Contents(state, "", [], {}, {k: str(v.dtype) for k, v in state.items()}), Asked("w.npz")))


OFFICIAL = weights("official", "CBAM", gate_channels=32)
LUUUYI = weights("luuuyi", "CBAM", in_planes=32)
BIASED = {"fc.0.weight": (4, 64), "fc.0.bias": (4,), "fc.2.weight": (64, 4), "fc.2.bias": (64,)}
NETWORK = {"conv1.weight": np.zeros((32, 3, 3, 3), np.float32), "layer1.0.conv1.weight": np.zeros((32, 32, 3, 3))}


# Entries that are no weights


@pytest.mark.parametrize("extra", ["total_ops", "total_params", "_extra_state", "conv.total_ops"])
def test_what_is_no_weight_hides_nothing(extra: str):
    state = at("layer1.0.cbam", OFFICIAL | {f"ChannelGate.mlp.1.{extra}": np.zeros(1), extra: np.zeros(1)})
    assert list(dialects.inside(state)) == ["layer1.0.cbam"]
    entries = dialects.part(state, "layer1.0.cbam")
    assert dialects.detect(entries) == ("official", "CBAM")
    layer = dialects.load("official", "CBAM", OFFICIAL | {extra: np.zeros(1)}, gate_channels=32)
    assert dialects.dump(layer).keys() == OFFICIAL.keys()
    assert f"No weights, and passed over: 2 entries {extra.rpartition('.')[2]}" in printed(NETWORK | state)


def test_the_counter_of_an_averaged_model():
    state = {"n_averaged": np.array(3)} | at("module", at("layer1.0.cbam", OFFICIAL))
    assert list(dialects.inside(state)) == ["layer1.0.cbam"]
    assert "Every key begins with module., as torch's DataParallel writes it." in printed(state)


@pytest.mark.parametrize(
    "wrapper", ["module", "_orig_mod", "model", "model._orig_mod", "module.model", "_orig_mod.module"]
)
def test_wrappers(wrapper: str):
    state = at(wrapper, at("layer1.0.cbam", OFFICIAL) | NETWORK)
    assert list(dialects.inside(state)) == ["layer1.0.cbam"]
    for prefix in ("layer1.0.cbam", f"{wrapper}.layer1.0.cbam", "layer1.0.cbam."):
        assert dialects.part(state, prefix).keys() == OFFICIAL.keys()
    assert dialects.detect(at(wrapper, OFFICIAL)) == ("official", "CBAM")
    assert printed(state).count("Every key begins with") == wrapper.count(".") + 1


def test_a_model_that_is_named_model_beside_others_is_no_wrapper():
    state = at("model", OFFICIAL) | at("head", {"weight": np.zeros((3, 3))})
    assert list(dialects.inside(state)) == ["model"]


def test_pytorchs_counter_of_batches_is_taken_by_our_layers():
    layer = npattn.variants.CBAM(npattn.ChannelAttention(8, 2), npattn.variants.SpatialAttention(3, norm=True))
    state = layer.state_dict()
    counted = state | {"sa.bn.num_batches_tracked": np.array(7)}
    layer.load_state_dict(counted)
    assert layer.state_dict().keys() == state.keys()
    for odd in ("num_batches_tracked", "ca.num_batches_tracked", "sa.bn.num_batches"):
        with pytest.raises(KeyError, match="unknown"):
            layer.load_state_dict(state | {odd: np.array(7)})


# Among others, halves, near misses


def test_a_cbam_whose_gates_stand_among_others():
    """luuuyi's residual units have `ca` and `sa` beside their convolutions: one module, not two halves."""
    unit = LUUUYI | {"conv1.weight": np.zeros((32, 32, 3, 3)), "bn1.weight": np.ones(32)}
    state = NETWORK | at("layer1.0", unit) | at("layer1.1", unit)
    assert {prefix: [c.row.title for c in found] for prefix, found in dialects.inside(state).items()} == {
        "layer1.0": ["luuuyi.CBAM"],
        "layer1.1": ["luuuyi.CBAM"],
    }
    layer = dialects.load("luuuyi", "CBAM", dialects.part(state, "layer1.0"), in_planes=32)
    assert dialects.dump(layer).keys() == LUUUYI.keys()


def test_a_module_beside_those_that_stand_among_others():
    se = weights("xmu", "CBAMBlock", channel=16, kernel_size=3)
    state = at("layer1.0", LUUUYI | at("block", se) | {"conv1.weight": np.zeros((32, 32, 3, 3))})
    assert list(dialects.inside(state)) == ["layer1.0", "layer1.0.block"]


def test_efficientnets_convolutions_among_others():
    rng = np.random.default_rng(0)
    shapes = {
        "_se_reduce.weight": (2, 8, 1, 1),
        "_se_reduce.bias": (2,),
        "_se_expand.weight": (8, 2, 1, 1),
        "_se_expand.bias": (8,),
    }
    se = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    state = at("_blocks.3", se | {"_project_conv.weight": np.zeros((4, 8, 1, 1)), "_bn2.running_mean": np.zeros(4)})
    assert {prefix: [c.row.title for c in found] for prefix, found in dialects.inside(state).items()} == {
        "_blocks.3": ["lukemelas.SE"]
    }
    assert 'npattn.dialects.load("lukemelas", "SE", state, channels=8, squeezed=2)' in printed(state)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sa.conv1.bias": np.zeros(1)}, "whose other half at layer1.0.cbam.sa does not fit: unknown sa.conv1.bias"),
        ({"sa.conv1.weight": np.zeros((1, 2, 6, 6))}, "does not fit: expected an odd kernel size, got 6"),
        ({"sa.conv1.weight": None}, "changzy00.CBAM or luuuyi.CBAM: nothing is there under layer1.0.cbam.sa"),
    ],
)
def test_half_a_cbam_is_said_to_be_half(change, why):
    state = at("layer1.0.cbam", {key: v for key, v in (LUUUYI | change).items() if v is not None})
    assert "luuuyi.ChannelAttention" in [c.row.title for c in dialects.inside(state)["layer1.0.cbam.ca"]]
    told = halves(state)["layer1.0.cbam.ca"]
    assert told.startswith("half of ")
    assert "luuuyi.CBAM" in told
    assert why in told
    assert f"Perhaps {told}" in printed(NETWORK | state)
    assert halves(at("layer1.0.cbam", OFFICIAL)) == {}


def test_one_key_too_much_or_missing_is_told_with_its_prefix():
    extra = at("layer1.0.cbam", OFFICIAL | {"alpha": np.zeros(1)})
    without = {key: value for key, value in at("layer2.0.cbam", OFFICIAL).items() if not key.endswith("mlp.3.bias")}
    state = NETWORK | extra | without | at("layer3.0.cbam", OFFICIAL)
    out = printed(state)
    assert "\n  layer1.0.cbam is closest to official.CBAM: unknown alpha" in out
    assert "Perhaps half of official.CBAM, whose other half at layer2.0.cbam.ChannelGate does not fit: missing" in out
    assert [(near.prefix, near.row.title, near.why) for near in nearest(state)] == [
        ("layer1.0.cbam", "official.CBAM", "unknown alpha")
    ]
    alone = at("layer2.0.se", {key: np.zeros(shape) for key, shape in BIASED.items() if key != "fc.0.bias"})
    assert [(near.prefix, near.row.title, near.why) for near in nearest(NETWORK | alone)] == [
        ("layer2.0.se", "dli14.SELayer", "missing fc.0.bias")
    ]


def test_an_se_in_a_network_that_no_class_has():
    """Every class was compared with the root, and the one prefix that matters was never mentioned."""
    odd = {"fc.0.weight": (4, 64), "fc.2.weight": (64, 4), "fc.4.weight": (64, 64)}
    state = dict(NETWORK)
    for unit in ("layer1.0", "layer1.1", "layer2.0"):
        state |= at(f"{unit}.se", {key: np.zeros(shape) for key, shape in odd.items()})
    with pytest.raises(
        UnknownError, match=r"layer1.0.se is closest to article.SELayer: unknown fc.4.weight \(and 2 more"
    ):
        dialects.detect(state)
    assert "layer1.0.se is closest to article.SELayer: unknown fc.4.weight (and 2 more like it)" in printed(state)


def test_an_mlp_that_widens_is_no_se():
    """ConvNeXt's MLP of 1 × 1 convolutions has timm's keys."""
    shapes = {"fc1.weight": (256, 64, 1, 1), "fc1.bias": (256,), "fc2.weight": (64, 256, 1, 1), "fc2.bias": (64,)}
    with pytest.raises(UnknownError, match="expected at most as many hidden units as channels, which are 64, got 256"):
        dialects.detect({key: np.zeros(shape) for key, shape in shapes.items()})


# Keys that several share


def test_se_with_torchvisions_keys_is_never_certain():
    """timm's and torchvision's: off by a quarter and more where the wrong one is believed."""
    state = weights("torchvision", "SqueezeExcitation", input_channels=16, squeeze_channels=8)
    with pytest.raises(AmbiguousError) as caught:
        dialects.detect(state)
    assert {candidate.row.title for candidate in caught.value.candidates} == {
        "timm.SEModule",
        "torchvision.SqueezeExcitation",
    }
    for tells in (
        'MobileNetV3 with scale_activation="Hardsigmoid"',
        'EfficientNet and MaxViT with activation="SiLU"',
        "SE-ResNets",
    ):
        assert tells in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "network", "args"),
    [
        ("features.4.block.2", "MobileNetV3", {"scale_activation": "Hardsigmoid"}),
        ("features.1.block.1", "MobileNetV3", {"scale_activation": "Hardsigmoid"}),
        ("features.2.0.block.2", "EfficientNet", {"activation": "SiLU"}),
        ("trunk_output.block1.block1-0.f.se", "RegNet", {}),
        ("blocks.0.layers.1.layers.MBconv.layers.squeeze_excitation", "MaxViT", {"activation": "SiLU"}),
        ("layer1.0.se", None, {}),
        ("backbone.features.4.block.2", None, {}),
        ("backbone.features.0.4.block.2", None, {}),  # SSDlite's MobileNetV3, or an EfficientNet of someone's
    ],
)
def test_the_place_in_torchvisions_networks(prefix: str, network: str | None, args: dict):
    state = at(prefix, weights("torchvision", "SqueezeExcitation", input_channels=16, squeeze_channels=8))
    out = printed(state)
    assert out.count("Ambiguous: timm.SEModule or torchvision.SqueezeExcitation") == 1
    assert (f"{prefix} is where torchvision's {network} has it, and the call is for that" in out) == (
        network is not None
    )
    given = "".join(f", {name}={value!r}" for name, value in args.items())
    assert f"input_channels=16, squeeze_channels=8{given})" in out


def test_rows_with_the_same_keys_are_the_same_or_ambiguous():
    """Of whatever the table holds: where two classes have one set of keys, none is believed without the other."""
    rows = [row for modules in TABLE.values() for row in modules.values()]
    for row in rows:
        if not row.keys:  # nothing to know it by
            continue
        args = {name: 64 for name, given in row.signature.parameters.items() if given.default is given.empty}
        others = dict.fromkeys(("channels", "channel", "in_planes"), 64)
        others |= {"squeeze_channels": 16, "squeezed": 16, "kernel_size": 3, "spatial_kernel_size": 3}
        args |= {name: size for name, size in others.items() if name in row.signature.parameters}
        state = weights(row.dialect, row.name, **args)
        twins = {
            other.title
            for other in rows
            if {(k.theirs, k.axes) for k in other.keys} == {(k.theirs, k.axes) for k in row.keys}
            and other.returns != row.returns
        }
        try:
            found = {".".join(dialects.detect(state))}
        except AmbiguousError as error:
            found = {candidate.row.title for candidate in error.candidates}
        fitting = {candidate.row.title for candidate in dialects.candidates(state)}
        assert (twins & fitting) <= found, row.title


# Keys that are hostile


HOSTILE = [
    'a"]; import os; os.abort()  #',
    "a'\"b",
    "new\nline",
    "\x1b[31mred\x1b[0m",
    "back\\slash",
    "tab\t",
    "ключ",
    "\u202eright",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_printed_lines_run_and_do_only_what_they_say(name: str, tmp_path: Path):
    state = at(name, LUUUYI) | {"other.weight": np.zeros(3, np.float32)}
    out = printed(state)
    assert "\x1b" not in out
    assert "\u202e" not in out
    lines = [line.strip() for line in out.splitlines()]
    line = next(line for line in lines if line.startswith("state = "))
    call = next(line for line in lines if line.startswith("npattn.dialects.load"))
    line = line.replace('npattn.dialects.read("w.npz")', "given")
    names: dict = {"given": state}
    exec(f"import npattn\n{line}\nlayer = {call}", names)
    assert names["state"].keys() >= LUUUYI.keys()
    assert repr(names["layer"]) == "luuuyi.CBAM(in_planes=32)"


@pytest.mark.skipif(sys.platform == "win32", reason="these names are none there")
@pytest.mark.parametrize("name", ['quote".npz', "it's.npz", "new\nline.npz", "\x1b[31m.npz"])
def test_names_of_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "w.npz", LUUUYI)
    (tmp_path / "w.npz").rename(tmp_path / name)
    assert cli.main(["dialect", str(tmp_path / name)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    line = next(line.strip() for line in out.splitlines() if line.strip().startswith("state = "))
    names: dict = {}
    exec(f"import npattn\n{line}", names)
    assert names["state"].keys() == LUUUYI.keys()


def test_many_and_deep_keys_take_no_time():
    """20,000 keys, and one of 5,000 dots: seconds at most, in a process of its own that is ended after a minute."""
    code = (
        "import numpy as np; from npattn.dialects import inside, detect, UnknownError\n"
        "w = np.zeros(1, np.float32); state = {f'l{i}.{j}.fc.0.weight': w for i in range(200) for j in range(100)}\n"
        "state['.'.join('x' * 5000)] = w\n"
        "assert inside(state) == {}\n"
        "try: detect(state)\n"
        "except UnknownError as e: assert len(str(e)) < 10000\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Whatever is printed can be run


ROWS = [row for modules in TABLE.values() for row in modules.values()]
PREFIXES = ["", "a.", "layer1.0.", "layer1.0.cbam.", "module.", "model.x.", "features.1.block.1.", "é\n."]


def random_state(rng: random.Random) -> dict[str, np.ndarray]:
    """Entries of some classes, at some prefixes, now and then one missing, too much, of another shape or dtype."""
    state: dict[str, np.ndarray] = {}
    for _ in range(rng.randint(1, 4)):
        row, prefix = rng.choice(ROWS), rng.choice(PREFIXES)
        sizes: dict[str, int] = {}
        for key in row.keys:
            if rng.random() < 0.02 or (key.only_with and rng.random() < 0.3):
                continue
            shape = [
                int(a) if a.isdigit() else sizes.setdefault(a, rng.choice([1, 2, 3, 5, 8, 16, 32])) for a in key.axes
            ]
            if rng.random() < 0.03:
                shape = rng.choice([shape[:-1], [0] * len(shape), [*shape, 2]])
            dtype = rng.choice([*["float32"] * 20, "float16", "float64", "int64"])
            state[prefix + key.theirs] = np.zeros(shape, dtype) if key.axes else np.array(3)
        if rng.random() < 0.2:
            state[prefix + rng.choice(["total_ops", "alpha", "fc.4.weight"])] = np.zeros(1)
    return state


@pytest.mark.parametrize("seed", range(8))
def test_every_call_that_is_printed_runs(seed: int):
    rng, calls = random.Random(seed), 0
    for _ in range(40):
        state = random_state(rng)
        lines = [line.strip() for line in printed(state).splitlines()]
        for first, second in itertools.pairwise(lines):
            if first.startswith("state = "):
                calls += 1
                read = re.search(r'npattn\.dialects\.read\("w\.npz"(?:, dtype="(\w+)")?\)', first)
                given = {key: converted(value, read[1]) for key, value in state.items()}
                exec(f"{first.replace(read[0], 'given')}\n{second}", {"npattn": npattn, "given": given})
    assert calls > 20


def test_weights_that_are_whole_numbers_get_no_call():
    state = {key: np.zeros(shape, np.int8) for key, shape in BIASED.items()}
    out = printed(state)
    assert "no call loads it: fc.0.weight is int8, and a layer here takes floats" in out
    assert "npattn.dialects.load" not in out


def test_more_hidden_units_than_channels():
    """5 hidden units of 3 channels: no ratio gives that, and the search for one divided by 0."""
    state = {"mlp.1.weight": (5, 3), "mlp.1.bias": (5,), "mlp.3.weight": (3, 5), "mlp.3.bias": (3,)}
    with pytest.raises(UnknownError, match="no whole reduction_ratio makes 5 hidden units of 3 channels"):
        dialects.detect({key: np.zeros(shape) for key, shape in state.items()})
