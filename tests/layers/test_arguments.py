"""Arguments that do not fit: who was called, which name was meant, what there is; and values, by the caller's name."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import npattn
from npattn import ablation, data, dialects, explain, models, training, variants
from npattn.arguments import ELSEWHERE, OPTIONS, SYNONYMS, did_you_mean, explained, nearest
from npattn.bench import runs
from npattn.blocks import classes
from npattn.dialects.table import TABLE
from npattn.explain import counts, gate_maps, trace
from npattn.layer import Layer, Options

X = np.ones((1, 8, 4, 4), np.float32)
CBAM = "Its arguments: in_planes, ratio=16, kernel_size=7, dtype, rng, xp, fused"
RELU = npattn.ReLU()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: npattn.CBAM(32, reduction=16), f"CBAM: unknown argument reduction; did you mean ratio? {CBAM}"),
        (lambda: npattn.CBAM(channels=32), f"CBAM: unknown argument channels; did you mean in_planes? {CBAM}"),
        (lambda: npattn.CBAM(32, kernel=7), f"CBAM: unknown argument kernel; did you mean kernel_size? {CBAM}"),
        (lambda: npattn.CBAM(32, seed=7), f"CBAM: unknown argument seed; did you mean rng? {CBAM}"),
        (lambda: npattn.CBAM(32, rato=7), f"CBAM: unknown argument rato; did you mean ratio? {CBAM}"),
        (lambda: npattn.CBAM(32, zzz=7), f"CBAM: unknown argument zzz. {CBAM}"),
        (
            lambda: npattn.CBAM(32, device="cuda"),
            f'CBAM: unknown argument device: a layer is moved by layer.to("cuda"). {CBAM}',
        ),
        (
            lambda: npattn.CBAM(32, ks=3, seed=1),
            f"CBAM: unknown argument ks; did you mean kernel_size? unknown argument seed; did you mean rng? {CBAM}",
        ),
        (lambda: npattn.CBAM(), f"CBAM: missing in_planes. {CBAM}"),
        (lambda: npattn.CBAM(32, 16, 7, 1), f"CBAM: expected at most 3 without a name, got 4. {CBAM}"),
        (lambda: npattn.CBAM(32, in_planes=3), f"CBAM: in_planes is given twice, by its place and by its name. {CBAM}"),
        (lambda: npattn.ReLU(True), "ReLU: expected none without a name, got 1. Its arguments: dtype, rng, xp, fused"),
        (
            lambda: npattn.ReLU(inplace=True),
            "ReLU: unknown argument inplace: nothing here is done in place. Its arguments: dtype, rng, xp, fused",
        ),
        (lambda: npattn.Gated(), "Gated: missing attention. Its arguments: attention"),
        (
            lambda: npattn.Residual(RELU, shortcut=RELU),
            "Residual: unknown argument shortcut; did you mean skip? Its arguments: branch, skip=None",
        ),
        (
            lambda: variants.CBAM(None),
            "CBAM: missing spatial. Its arguments: channel, spatial, order='channel-first', residual=False",
        ),
        (lambda: npattn.Sequential(RELU, 3), "layers[1]: expected a layer, got int"),
        (
            lambda: npattn.Sequential([RELU]),
            "layers[0]: expected a layer, got list; the layers in a list are given as Sequential(*layers)",
        ),
        (
            lambda: npattn.Sequential({"a": RELU}),
            "layers[0]: expected a layer, got dict; the layers in a dict are given as Sequential(**layers)",
        ),
        (
            lambda: npattn.Sequential(RELU, fused=False),
            "fused: expected a layer, got bool; what is named here is a layer, and each layer takes fused itself",
        ),
        (
            lambda: npattn.Sequential(relu=npattn.ReLU),
            "relu: expected a layer, got type, the class ReLU; an object is made by ReLU(…)",
        ),
        (
            lambda: RELU.load_state_dict({}, strict=False),
            "load_state_dict: unknown argument strict: all keys must be there and no others. Its arguments: state",
        ),
        (lambda: RELU.to(1, 2), "to: expected at most 1 without a name, got 2. Its arguments: device=None, "),
        (lambda: npattn.SGD({}, 0.1, weight_decay=1), "SGD: unknown argument weight_decay; did you mean decay? Its"),
        (lambda: npattn.AdamW({}, betas=(0, 0)), "AdamW: unknown argument betas; did you mean beta1 or beta2? Its "),
        (lambda: npattn.SGD({}), "SGD: missing lr. Its arguments: params, lr, momentum=0.0, decay=0.0"),
        (lambda: npattn.TrainConfig(epoch=3), "TrainConfig: unknown argument epoch; did you mean epochs? Its "),
        (
            lambda: dataclasses.replace(npattn.TrainConfig(), rotation=3),
            "TrainConfig: unknown argument rotation; did you mean turn? Its ",
        ),
        (
            lambda: npattn.train(batch=3),
            "train: unknown argument batch; did you mean config=TrainConfig(batch_size=…)? Its arguments: config",
        ),
        (lambda: npattn.load_model(path="."), "load_model: unknown argument path; did you mean folder? Its "),
        (
            lambda: ablation.ablate("out", epochs=3),
            "ablate: unknown argument epochs; did you mean settings=Settings(epochs=…)? Its arguments: out, ",
        ),
        (lambda: ablation.Settings(batch=3), "Settings: unknown argument batch; did you mean batch_size? Its "),
        (
            lambda: dialects.build("timm", "CbamModule", chanels=8),
            "timm.CbamModule: unknown argument chanels; did you mean channels? Its arguments: channels, rd_",
        ),
        (
            lambda: dialects.load("timm", "CbamModule", {}, reduction=8),
            "timm.CbamModule: unknown argument reduction; did you mean rd_ratio? Its arguments: channels, ",
        ),
        (
            lambda: npattn.gradcheck(RELU, X, tol=1),
            "gradcheck: unknown argument tol; did you mean rtol or atol? Its arguments: target, *inputs, seed=0, ",
        ),
        (lambda: npattn.gradcheck.wrap(RELU, grad=1), "wrap: unknown argument grad; did you mean grads? Its "),
        (lambda: models.digits(atention="se"), "digits: unknown argument atention; did you mean attention? Its "),
        (
            lambda: explain.class_activation_map(None, X, target=3),
            "class_activation_map: unknown argument target; did you mean class_index? Its arguments: model, x, ",
        ),
        (lambda: npattn.CrossEntropy(weight=1), "CrossEntropy: unknown argument weight. Its arguments: none"),
    ],
)  # fmt: skip
def test_what_is_said(call: Callable[[], Any], message: str):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).startswith(message)
    assert ".__init__()" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.digits("cbma"), "got 'cbma'; did you mean cbam?"),
        (lambda: npattn.TrainConfig(model="digit"), "got 'digit'; did you mean digits?"),
        (lambda: variants.ChannelAttention(8, 2, act="silou"), "got 'silou'; did you mean silu?"),
        (lambda: variants.ChannelAttention(8, 2, pools=("average",)), "got ('average',); did you mean avg?"),
        (lambda: dialects.build("tim", "SEModule"), "got 'tim'; did you mean timm?"),
        (lambda: dialects.build("timm", "CBAM"), "got 'CBAM'; did you mean CbamModule or LightCbamModule?"),
        (lambda: explain.class_activation_map(npattn.Sequential(RELU), X, 0, method="gradcam"), "mean grad-cam?"),
    ],
)  # fmt: skip
def test_a_value_that_is_a_name(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=r"expected one of|expected at least one of") as caught:
        call()
    assert str(caught.value).endswith(message)


# Every door


def functions(module: ModuleType, names: Iterator[str] | list[str]) -> Iterator[Any]:
    """Those of a module's names that are functions or classes of ours with arguments by name."""
    for name in names:
        thing = getattr(module, name)
        private = isinstance(thing, type) and (issubclass(thing, tuple | Exception) or thing.__name__ == "Run")
        if callable(thing) and not private:
            yield pytest.param(thing, id=f"{module.__name__}.{name}")


NO_NAMES = {"array_module", "get_num_threads", "no_grad"}  # they take none
RESULTS = {"GradcheckReport", "TrainResult"}  # which nobody makes by hand
DOORS = [
    *functions(npattn, [name for name in npattn.__all__ if name not in NO_NAMES | RESULTS]),
    *functions(variants, variants.__all__),
    *functions(explain, explain.__all__),
    *functions(ablation, ["ablate", "summarised", "table", "Settings"]),
    *functions(training, ["TrainConfig", "evaluate", "jittered", "load_model", "prepared", "train"]),
    *functions(dialects, ["build", "detect", "dump", "load", "read", "write", "contents", "part", "inside"]),
    *functions(models, ["digits", "se_resnet"]),
    *functions(runs, ["bench_block", "bench_train_step", "bench_beside"]),
    *functions(trace, ["trace", "trace_op"]),
    *functions(gate_maps, ["gate_maps", "channel_bars"]),
    *functions(counts, ["added"]),
    *functions(data, ["load"]),
]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_says_what_it_takes(door: Any):
    """All but `Sequential`, where every name is a layer's."""
    if door is npattn.Sequential:
        return
    with pytest.raises(TypeError, match=r"unknown argument zzz\. Its arguments: "):
        door(zzz=1)


@pytest.mark.parametrize("row", [row for rows in TABLE.values() for row in rows.values()], ids=lambda row: row.title)
def test_every_class_of_every_dialect(row: Any):
    with pytest.raises(TypeError, match=rf"^{row.title}: unknown argument zzz\. Its arguments: "):
        dialects.build(row.dialect, row.name, zzz=1)


@pytest.mark.parametrize("kind", [*classes("ops"), *classes("attention"), *classes("variants")])
def test_every_layer_has_a_signature_to_show(kind: type[Layer]):
    """`help`, a notebook's tooltip and a type checker's users see the options by name, and nothing internal."""
    shown = inspect.signature(kind).parameters
    assert "options" not in shown
    assert "without" not in shown
    if "dtype" in shown:
        assert {name: shown[name].default for name in OPTIONS} == OPTIONS


def test_the_options_are_those_of_a_layer():
    own = inspect.signature(Layer.__init__).parameters
    assert {name: p.default for name, p in own.items() if name != "self"} == OPTIONS
    assert tuple(Options.__annotations__) == tuple(OPTIONS)


def test_an_object_has_no_signature_of_its_class():
    assert list(inspect.signature(RELU).parameters) == ["x"]


# One's own


class Scaled(Layer):
    def __init__(self, by: float, *, offset: float = 0.0) -> None:
        super().__init__()
        self.by, self.offset = by, offset


class Free(Layer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.given = args, kwargs


class Smaller(npattn.CBAM):
    pass


def test_ones_own_layers():
    with pytest.raises(TypeError, match=r"^Scaled: unknown argument ofset; did you mean offset\? Its arguments: by"):
        Scaled(2, ofset=1)
    assert Free(1, z=2).given == ((1,), {"z": 2})
    with pytest.raises(TypeError, match=r"^Smaller: unknown argument reduction; did you mean ratio\?"):
        Smaller(8, reduction=2)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_need_no_arguments(make: Callable[[Any], Any]):
    """They are made without the constructor, whose arguments would be missing."""
    twin = make(Scaled(2, offset=3))
    assert (type(twin), twin.by, twin.offset) == (Scaled, 2, 3)
    model = npattn.Sequential(npattn.CBAM(8, ratio=2), gate=npattn.Gated(npattn.SpatialAttention(3)))
    assert repr(make(model)) == repr(model)
    assert make(model)(X).shape == X.shape


class Reduced(Scaled):
    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (7,)


def test_ones_own_way_to_be_copied_stays():
    assert copy.copy(Reduced(2)).by == 7


def test_of_torch():
    pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^module: unknown argument device\. Its arguments: layer$"):
        npattn.torch.module(RELU, device="cuda")


def test_explained_keeps_what_it_wraps():
    @explained
    def scale(x: float, by: float = 2) -> float:
        """Scale x."""
        return x * by

    assert (scale(2), scale(2, by=3), scale.__name__, scale.__doc__) == (4, 6, "scale", "Scale x.")
    assert list(inspect.signature(scale).parameters) == ["x", "by"]
    with pytest.raises(TypeError, match=r"^scale: missing x\. Its arguments: x, by=2$"):
        scale()


def test_only_the_options_of_layers_are_told_without_a_default():
    with pytest.raises(TypeError, match="strict=False, dtype='float64', "):
        npattn.gradcheck(RELU, X, zzz=1)


def test_an_error_within_is_its_own():
    """A TypeError of what the function does is not taken for one of its arguments."""

    @explained
    def breaks(x: float) -> float:
        return len(x)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"^object of type 'int' has no len"):
        breaks(1)


# The nearest name


@pytest.mark.parametrize(
    ("word", "accepted", "meant"),
    [
        ("reduction", ("in_planes", "ratio"), ["ratio"]),
        ("ratio", ("channel", "reduction"), ["reduction"]),
        ("Kernel_Size", ("kernel_size",), ["kernel_size"]),
        ("batch-size", ("batch_size", "epochs"), ["batch_size"]),
        ("se_resnet", ("digits", "se-resnet"), ["se-resnet"]),
        ("tol", ("rtol", "atol"), ["rtol", "atol"]),
        ("trian", ("train", "trace"), ["train"]),
        ("", ("train", "trace"), []),
        ("qqq", ("train", "trace"), []),
        ("anything", (), []),
        ("reducton", ("in_planes", "ratio"), ["ratio"]),
        ("batch", ("data_dir", "resume"), []),
    ],
)
def test_nearest(word: str, accepted: tuple[str, ...], meant: list[str]):
    assert nearest(word, accepted) == meant


def test_a_name_that_is_there_is_before_its_synonyms():
    for group in SYNONYMS:
        for word in group:
            assert nearest(word, group) == [word]


def test_no_word_is_no_name():
    assert did_you_mean(None, ("none",)) == ""
    assert did_you_mean(3, ("3",)) == ""
    assert set(ELSEWHERE).isdisjoint(OPTIONS)


# A bad value, by the name that the caller gave it


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: npattn.CrossEntropy()(np.ones((2, 3)), [0, 1]), "t"),
        (lambda: npattn.CrossEntropy()([1.0], np.zeros(2, int)), "z"),
        (lambda: npattn.AdamW({"w": 3}), "params['w']"),
        (lambda: npattn.SGD({"w": np.zeros(2, int)}, 0.1), "params['w']"),
        (lambda: training.evaluate(models.digits(), [1], np.zeros(2, int)), "images"),
        (lambda: training.evaluate(models.digits(), np.ones((2, 28, 28)), [0, 1]), "labels"),
        (lambda: training.prepared([1]), "images"),
        (lambda: explain.overlay([1], np.ones((1, 2, 2))), "images"),
        (lambda: explain.overlay(np.ones((1, 2, 2)), [1]), "maps"),
        (lambda: explain.gate_statistics({"g": [1]}), "gates['g']"),
        (lambda: gate_maps.gate_maps({"g": [1]}), "gates['g']"),
        (lambda: explain.class_activation_map(models.digits(), [1], 0), "x"),
        (lambda: npattn.CBAM(8, 2)([1]), "x"),
    ],
)
def test_a_value_goes_by_the_callers_name(call: Callable[[], Any], name: str):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).startswith(f"{name}: expected ")
