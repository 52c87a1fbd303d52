"""The layers with options: what they are called and hold, which pair they run, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import npattn
from npattn import variants
from npattn.attention import eca
from npattn.block import Place
from npattn.variants import cbam as any_cbam
from npattn.variants import channel as any_channel
from npattn.variants import spatial as any_spatial

PLACE = Place(8, r=4, k=3)


def options_of(layer: npattn.Layer) -> set[str]:
    return set(layer.params) | set(layer.buffers)


def test_keys_and_shapes():
    layer = variants.ChannelAttention(8, 4, bias=True, pools=("avg", "max", "lp"), mix="before")
    assert {key: w.shape for key, w in layer.params.items()} == {
        "fc1.weight": (2, 8, 1, 1), "fc1.bias": (2,), "fc2.weight": (8, 2, 1, 1), "fc2.bias": (8,),
    }  # fmt: skip
    layer = variants.SELayer(8, layers=1, bias=True)  # the ratio of 16 has no say
    assert {key: w.shape for key, w in layer.params.items()} == {"fc.0.weight": (8, 8), "fc.0.bias": (8,)}
    layer = variants.SELayer(8, bias=True, hidden=3)
    assert {key: w.shape for key, w in layer.params.items()} == {
        "fc.0.weight": (3, 8), "fc.0.bias": (3,), "fc.2.weight": (8, 3), "fc.2.bias": (8,),
    }  # fmt: skip
    layer = variants.SpatialAttention(5, mix="mean", bias=True, norm=True)
    assert {key: w.shape for key, w in {**layer.params, **layer.buffers}.items()} == {
        "conv1.weight": (1, 1, 5, 5), "conv1.bias": (1,), "bn.weight": (1,), "bn.bias": (1,),
        "bn.running_mean": (1,), "bn.running_var": (1,),
    }  # fmt: skip
    layer = variants.CBAM(
        variants.ChannelAttention(8, hidden=5), variants.SpatialAttention(3, maps=("max",), norm=True)
    )
    assert options_of(layer) == {
        "ca.fc1.weight", "ca.fc2.weight", "sa.conv1.weight", "sa.bn.weight", "sa.bn.bias", "sa.bn.running_mean",
        "sa.bn.running_var",
    }  # fmt: skip
    assert layer.params["ca.fc1.weight"].shape == (5, 8, 1, 1)
    assert options_of(variants.CBAM(npattn.ChannelAttention(8, 4), None)) == {"ca.fc1.weight", "ca.fc2.weight"}
    assert options_of(variants.CBAM(None, npattn.SpatialAttention())) == {"sa.conv1.weight"}
    assert npattn.ECA(8).params["conv.weight"].shape == (1, 1, 3)


def test_initial_weights():
    """Within ±1/√fan_in, biases too, as PyTorch's; a norm begins as the identity, its statistics at 0 and 1."""
    layer = variants.CBAM(
        variants.ChannelAttention(64, 4, bias=True, rng=0), variants.SpatialAttention(7, norm=True, bias=True, rng=0)
    )
    fan_in = {"ca.fc1": 64, "ca.fc2": 16, "sa.conv1": 98}
    for key, w in layer.params.items():
        bound = fan_in.get(key.rpartition(".")[0])
        if bound is not None:
            assert 0 < np.abs(w).max() <= bound**-0.5, key
            assert w.size < 30 or np.abs(w).max() > 0.9 * bound**-0.5, key
    assert [
        float(layer.state_dict()[f"sa.bn.{name}"][0]) for name in ("weight", "bias", "running_mean", "running_var")
    ] == [1, 0, 0, 1]
    plain, general = npattn.CBAM.fitting(PLACE, rng=5), variants.CBAM.fitting(PLACE, residual=True, rng=5)
    assert list(plain.params) == list(general.params)
    assert all(np.array_equal(w, general.params[key]) for key, w in plain.params.items())


def cbam(options: dict, channel: dict | None = None, spatial: dict | None = None, **how) -> npattn.Layer:
    return variants.CBAM(
        variants.ChannelAttention(8, 4, **(channel or {}), **options),
        variants.SpatialAttention(3, **(spatial or {}), **options),
        **how,
    )


LAYERS = [
    (lambda **o: variants.SELayer(8, 4, bias=True, **o), "SELayer(8, reduction=4, bias=True)"),
    (lambda **o: variants.ChannelAttention(8, 4, pools=["lp"], **o), "ChannelAttention(8, ratio=4, pools=('lp',))"),
    (lambda **o: variants.SpatialAttention(3, norm=True, momentum=0.01, **o),
     "SpatialAttention(kernel_size=3, norm=True, momentum=0.01)"),
    (lambda **o: cbam(o, {"gate": "hard_sigmoid"}, order="parallel", residual=True),
     "CBAM(ChannelAttention(8, ratio=4, gate='hard_sigmoid'), SpatialAttention(kernel_size=3), order='parallel', "
     "residual=True)"),
    (lambda **o: variants.CBAM(None, variants.SpatialAttention(3, norm=True, **o)),
     "CBAM(None, SpatialAttention(kernel_size=3, norm=True))"),
    (lambda **o: npattn.ECA(8, gate="hard_sigmoid", **o), "ECA(channel=8, gate='hard_sigmoid')"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), LAYERS, ids=[text for _, text in LAYERS])
def test_a_layer_with_options(make, text: str):
    """It says what it is, runs the textbook form, survives a copy and a pickle, and moves to float64."""
    layer = make(rng=0)
    assert repr(layer) == text
    assert layer.fused
    x = np.random.default_rng(8).standard_normal((2, 8, 4, 5)).astype(np.float32)
    y = layer(x)
    assert layer.path == "textbook"
    assert y.dtype == np.float32
    assert layer.backward(y).dtype == np.float32
    gates_of = layer.attention
    assert {"channel": (2, 8, 1, 1), "spatial": (2, 1, 4, 5)}.items() >= {
        k: g.shape for k, g in gates_of.items()
    }.items()
    assert gates_of
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin.eval()(x), layer.eval()(x))
    again = make(rng=1).load_state_dict(layer.state_dict()).eval()
    np.testing.assert_array_equal(again(x), layer(x))
    assert layer.to(dtype="float64")(x.astype(np.float64)).dtype == np.float64


def test_the_article_keeps_the_fused_path():
    """Its classes do, and so do they as gates of a CBAM with options; those of npattn.variants take the textbook."""
    x = np.ones((2, 8, 4, 5), np.float32)
    gates = npattn.ChannelAttention(8, 4), npattn.SpatialAttention(3)
    layers = (npattn.CBAM(8, 4, 3), npattn.SELayer(8, 4), *gates, npattn.Gated(gates[0]), variants.CBAM(*gates))
    for layer in (*layers, variants.CBAM(*gates, order="parallel", residual=True), variants.CBAM(None, gates[1])):
        layer(x)
        assert layer.path == "fused", layer
    for layer in (variants.SELayer(8, 4), variants.ChannelAttention(8, 4), variants.SpatialAttention(3), cbam({})):
        layer(x)
        assert layer.path == "textbook", layer
    mixed = variants.CBAM(gates[0], variants.SpatialAttention(3))
    mixed(x)
    assert mixed.path == "fused + textbook"


@pytest.mark.parametrize("make", [
    lambda gate: gate,
    lambda gate: variants.CBAM(npattn.ChannelAttention(4, 2, dtype="float64", rng=0), gate),
    lambda gate: variants.CBAM(npattn.ChannelAttention(4, 2, dtype="float64", rng=0), gate, order="parallel"),
    lambda gate: npattn.Gated(gate),
])  # fmt: skip
def test_running_statistics(make):
    """Training moves them by momentum, eval uses them and leaves them, and a gated layer passes the mode on."""
    counted = variants.SpatialAttention(3, norm=True, momentum=0.25, dtype="float64", rng=0)
    layer = make(counted)
    rng = np.random.default_rng(9)
    x = rng.standard_normal((3, 4, 2, 5))
    key = next(key for key in layer.buffers if key.endswith("running_mean"))
    trained = layer(x)
    first = layer.buffers[key].copy()
    assert first != 0
    assert counted.num_batches_tracked == 1
    np.testing.assert_array_equal(layer(x), trained)  # the batch's own statistics
    np.testing.assert_allclose(layer.buffers[key], first * 1.75, rtol=1e-13)  # 0.25 m, then 0.75 · 0.25 m + 0.25 m
    state = layer.state_dict()
    evaluated = layer.eval()(x)
    assert not np.allclose(evaluated, trained)
    assert all(np.array_equal(value, state[k]) for k, value in layer.buffers.items())
    assert counted.num_batches_tracked == 2
    np.testing.assert_allclose(evaluated[:1], layer(x[:1]), rtol=1e-13)  # no image depends on another
    np.testing.assert_array_equal(layer.train()(x), trained)


CHANNEL, SPATIAL = npattn.ChannelAttention(8, 4), npattn.SpatialAttention(3)


@pytest.mark.parametrize(("make", "kind", "message"), [
    (lambda: variants.SELayer(8, pools=()), ValueError, r"pools: expected at least one of 'avg', .*, got \(\)"),
    (lambda: variants.SELayer(8, pools="avg"), TypeError, "pools: expected a tuple of names .*, got 'avg'"),
    (lambda: variants.SELayer(8, pools=("avg", "avg")), ValueError, "pools: .*none of them twice"),
    (lambda: variants.SELayer(8, pools=("mean",)), ValueError, r"pools: .*got \('mean',\)"),
    (lambda: variants.SELayer(8, mix="mean"), ValueError, "mix: expected one of 'after', 'before', got 'mean'"),
    (lambda: variants.SELayer(8, layers=3), ValueError, "layers: expected 1 .* or 2 .*, got 3"),
    (lambda: variants.SELayer(8, layers=0), ValueError, "layers: expected a whole number of at least 1, got 0"),
    (lambda: variants.SELayer(8, layers=1, hidden=2), ValueError, "hidden: expected None where layers=1.*got 2"),
    (lambda: variants.SELayer(8, hidden=0), ValueError, "hidden: expected a whole number of at least 1, got 0"),
    (lambda: variants.SELayer(8, gate="relu"), ValueError, "gate: expected one of .*, got 'relu'"),
    (lambda: variants.ChannelAttention(8, 4, max_tie="last"), ValueError, "max_tie: expected one of 'first', 'even'"),
    (lambda: variants.ChannelAttention(8, bias=True), ValueError, "ratio: expected at most in_planes = 8, got 16"),
    (lambda: variants.ChannelAttention(8, 0, layers=1), ValueError, "ratio: expected a whole number"),
    (lambda: variants.SpatialAttention(3, maps=("min",)), ValueError, "maps: expected at least one of 'mean', 'max'"),
    (lambda: variants.SpatialAttention(3, mix="x"), ValueError, "mix: expected one of 'concat', 'mean', got 'x'"),
    (lambda: variants.SpatialAttention(3, momentum=0.5), ValueError, "momentum: expected norm=True"),
    (lambda: variants.SpatialAttention(3, norm=True, momentum=2), ValueError, "momentum: .* from 0 to 1, got 2"),
    (lambda: variants.SpatialAttention(4, norm=True), ValueError, "kernel_size: expected an odd"),
    (lambda: variants.SELayer(8, mix="concat"), ValueError, "mix: expected one of 'after', 'before', got 'concat'"),
    (lambda: variants.ChannelAttention(0, 1), ValueError, "in_planes: expected a whole number of at least 1, got 0"),
    (lambda: cbam({}, order="both"), ValueError, "order: expected one of .*, got 'both'"),
    (lambda: variants.CBAM(None, SPATIAL, order="parallel"), ValueError, "order: expected two gates"),
    (lambda: variants.CBAM(CHANNEL, None, order="spatial-first"), ValueError, "order: expected two gates"),
    (lambda: variants.CBAM(None, None), ValueError, "channel, spatial: expected at most one"),
    (lambda: variants.CBAM(True, SPATIAL), TypeError, "channel: expected a layer or None, got bool"),
    (lambda: variants.CBAM(CHANNEL, {"norm": True}), TypeError, "spatial: expected a layer or None, got dict"),
    (lambda: variants.CBAM(CHANNEL, npattn.SpatialAttention(3, dtype="float64")), TypeError,
     "sa: expected a layer of numpy and float32, as the first one, got numpy and float64"),
    (lambda: variants.CBAM.fitting(PLACE, channel={"mix": "x"}), ValueError, "mix: expected one of"),
    (lambda: variants.CBAM.fitting(PLACE, spatial={"momentum": 0.5}), ValueError, "momentum: expected norm=True"),
    (lambda: variants.CBAM.fitting(PLACE, spatial={"pools": ("avg",)}), TypeError,
     "SpatialAttention: unknown argument pools.*maps="),
    (lambda: npattn.ECA(), ValueError, "channel, kernel_size: expected at least one"),
    (lambda: npattn.ECA(8, 4), ValueError, "kernel_size: expected an odd"),
    (lambda: npattn.ECA(8, gamma=0), ValueError, "gamma: expected"),
    (lambda: npattn.ECA(8, gate="x"), ValueError, "gate: expected one of"),
])  # fmt: skip
def test_wrong_options_are_refused(make, kind, message: str):
    with pytest.raises(kind, match=rf"^{message}"):
        make()


def test_wrong_inputs_are_refused():
    x = np.ones((2, 4, 3, 3))
    w1, w2 = np.ones((2, 4)), np.ones((4, 2))
    with pytest.raises(ValueError, match=r"^w1: expected shape \(R, C=4\), got \(4, 2\)"):
        any_channel.forward(x, any_channel.Params(w2, None, w2))
    with pytest.raises(ValueError, match=r"^w1: expected shape \(C=4, C=4\), got \(2, 4\)"):
        any_channel.forward(x, any_channel.Params(w1))
    with pytest.raises(ValueError, match=r"^w2: expected shape"):
        any_channel.forward(x, any_channel.Params(w1, None, w1))
    with pytest.raises(TypeError, match=r"^b1: expected dtype float64, the same as x, got float32"):
        any_channel.forward(x, any_channel.Params(w1, np.ones(2, np.float32), w2))
    with pytest.raises(ValueError, match=r"^w: expected shape"):
        any_spatial.forward(x, any_spatial.Params(np.ones((1, 2, 3, 3))), any_spatial.Settings(mix="mean"))
    channel_gate, spatial_gate = np.ones((2, 4, 1, 1)), np.ones((2, 1, 3, 3))
    with pytest.raises(ValueError, match=r"^g_c: expected shape \(2, 4, 1, 1\), that of a gate for each channel of x"):
        any_cbam.forward(x, spatial_gate, channel_gate)
    with pytest.raises(ValueError, match=r"^g_s: expected shape \(2, 1, 3, 3\), that of a gate for each pixel of x"):
        any_cbam.forward(x, channel_gate, channel_gate)
    with pytest.raises(TypeError, match=r"^g_s: expected dtype float64, the same as x, got float32"):
        any_cbam.forward(x, channel_gate, spatial_gate.astype(np.float32))
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, C=8, H, W\)"):
        variants.CBAM(CHANNEL, SPATIAL)(x.astype(np.float32))
    with pytest.raises(ValueError, match=r"^w \(its last axis\): expected an odd"):
        eca.forward(x, eca.Params(np.ones((1, 2))))
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, C=8, H, W\)"):
        npattn.ECA(8, dtype="float64")(x)
