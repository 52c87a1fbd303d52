"""The layers with options: what they are called and hold, which pair they run, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import npattn
from npattn.attention.options import CbamForm, ChannelForm, SpatialForm
from npattn.variants import cbam as any_cbam
from npattn.variants import channel as any_channel
from npattn.variants import eca
from npattn.variants import spatial as any_spatial


def options_of(layer: npattn.Layer) -> set[str]:
    return set(layer.params) | set(layer.buffers)


def test_keys_and_shapes():
    layer = npattn.ChannelAttention(8, 4, bias=True, pools=("avg", "max", "lp"), mix="concat")
    assert {key: w.shape for key, w in layer.params.items()} == {
        "fc1.weight": (2, 24, 1, 1), "fc1.bias": (2,), "fc2.weight": (8, 2, 1, 1), "fc2.bias": (8,),
    }  # fmt: skip
    layer = npattn.SELayer(8, layers=1, bias=True)  # the ratio of 16 has no say
    assert {key: w.shape for key, w in layer.params.items()} == {"fc.0.weight": (8, 8), "fc.0.bias": (8,)}
    layer = npattn.SELayer(8, bias=True, hidden=3)
    assert {key: w.shape for key, w in layer.params.items()} == {
        "fc.0.weight": (3, 8), "fc.0.bias": (3,), "fc.2.weight": (8, 3), "fc.2.bias": (8,),
    }  # fmt: skip
    layer = npattn.SpatialAttention(5, mix="mean", bias=True, norm=True)
    assert {key: w.shape for key, w in {**layer.params, **layer.buffers}.items()} == {
        "conv1.weight": (1, 1, 5, 5), "conv1.bias": (1,), "bn.weight": (1,), "bn.bias": (1,),
        "bn.running_mean": (1,), "bn.running_var": (1,),
    }  # fmt: skip
    layer = npattn.CBAM(8, 4, 3, channel={"hidden": 5}, spatial={"maps": ("max",), "norm": True})
    assert options_of(layer) == {
        "ca.fc1.weight", "ca.fc2.weight", "sa.conv1.weight", "sa.bn.weight", "sa.bn.bias", "sa.bn.running_mean",
        "sa.bn.running_var",
    }  # fmt: skip
    assert layer.params["ca.fc1.weight"].shape == (5, 8, 1, 1)
    assert options_of(npattn.CBAM(8, spatial=False, channel={"hidden": 2})) == {"ca.fc1.weight", "ca.fc2.weight"}
    assert options_of(npattn.CBAM(8, channel=False)) == {"sa.conv1.weight"}
    assert npattn.ECA(8).params["conv.weight"].shape == (1, 1, 3)


def test_initial_weights():
    """Within ±1/√fan_in, biases too, as PyTorch's; a norm begins as the identity, its statistics at 0 and 1."""
    layer = npattn.CBAM(64, 4, 7, channel={"bias": True, "mix": "concat"}, spatial={"norm": True, "bias": True}, rng=0)
    fan_in = {"ca.fc1": 128, "ca.fc2": 16, "sa.conv1": 98}
    for key, w in layer.params.items():
        bound = fan_in.get(key.rpartition(".")[0])
        if bound is not None:
            assert 0 < np.abs(w).max() <= bound**-0.5, key
            assert w.size < 30 or np.abs(w).max() > 0.9 * bound**-0.5, key
    assert [
        float(layer.state_dict()[f"sa.bn.{name}"][0]) for name in ("weight", "bias", "running_mean", "running_var")
    ] == [1, 0, 0, 1]
    plain, general = npattn.CBAM(8, 4, 3, rng=5), npattn.CBAM(8, 4, 3, residual=True, rng=5)
    assert all(np.array_equal(w, general.params[key]) for key, w in plain.params.items())


LAYERS = [
    (lambda **o: npattn.SELayer(8, 4, bias=True, **o), "SELayer(8, reduction=4, bias=True)"),
    (lambda **o: npattn.ChannelAttention(8, 4, pools=["lp"], **o), "ChannelAttention(8, ratio=4, pools=('lp',))"),
    (lambda **o: npattn.SpatialAttention(3, norm=True, momentum=0.01, **o),
     "SpatialAttention(kernel_size=3, norm=True, momentum=0.01)"),
    (lambda **o: npattn.CBAM(8, 4, 3, order="parallel", residual=True, channel={"gate": "hard_sigmoid"}, **o),
     "CBAM(8, ratio=4, kernel_size=3, order='parallel', residual=True, channel={'gate': 'hard_sigmoid'})"),
    (lambda **o: npattn.CBAM(8, 4, 3, channel=False, spatial={"norm": True}, **o),
     "CBAM(8, ratio=4, kernel_size=3, channel=False, spatial={'norm': True})"),
    (lambda **o: npattn.ECA(8, gate="hard_sigmoid", **o), "ECA(8, kernel_size=3, gate='hard_sigmoid')"),
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
    x = np.ones((2, 8, 4, 5), np.float32)
    for layer in (npattn.CBAM(8, 4, 3), npattn.CBAM(8, 4, 3, channel={}, spatial={"maps": ["mean", "max"]}),
                  npattn.CBAM(8, channel={"hidden": 3}), npattn.SELayer(8, hidden=3),
                  npattn.ChannelAttention(8, 4, pools=["avg", "max"]),
                  npattn.SpatialAttention(3, norm=False)):  # fmt: skip
        layer(x)
        assert layer.path == "fused", layer


@pytest.mark.parametrize("make", [
    lambda: npattn.SpatialAttention(3, norm=True, momentum=0.25, dtype="float64", rng=0),
    lambda: npattn.CBAM(4, 2, 3, spatial={"norm": True, "momentum": 0.25}, dtype="float64", rng=0),
    lambda: npattn.CBAM(4, 2, 3, order="parallel", spatial={"norm": True, "momentum": 0.25}, dtype="float64", rng=0),
    lambda: npattn.Gated(npattn.SpatialAttention(3, norm=True, momentum=0.25, dtype="float64", rng=0)),
])  # fmt: skip
def test_running_statistics(make):
    """Training moves them by momentum, eval uses them and leaves them, and a gated layer passes the mode on."""
    layer = make()
    counted = getattr(layer, "layer", layer)
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


@pytest.mark.parametrize(("make", "kind", "message"), [
    (lambda: npattn.SELayer(8, pools=()), ValueError, r"pools: expected at least one of 'avg', .*, got \(\)"),
    (lambda: npattn.SELayer(8, pools="avg"), TypeError, "pools: expected a tuple of names .*, got 'avg'"),
    (lambda: npattn.SELayer(8, pools=("avg", "avg")), ValueError, "pools: .*none of them twice"),
    (lambda: npattn.SELayer(8, pools=("mean",)), ValueError, r"pools: .*got \('mean',\)"),
    (lambda: npattn.SELayer(8, mix="mean"), ValueError, "mix: expected one of 'after', 'before', 'concat', got 'mean'"),
    (lambda: npattn.SELayer(8, layers=3), ValueError, "layers: expected 1 .* or 2 .*, got 3"),
    (lambda: npattn.SELayer(8, layers=0), ValueError, "layers: expected a whole number of at least 1, got 0"),
    (lambda: npattn.SELayer(8, layers=1, hidden=2), ValueError, "hidden: expected None where layers=1.*got 2"),
    (lambda: npattn.SELayer(8, hidden=0), ValueError, "hidden: expected a whole number of at least 1, got 0"),
    (lambda: npattn.SELayer(8, gate="relu"), ValueError, "gate: expected one of .*, got 'relu'"),
    (lambda: npattn.ChannelAttention(8, 4, max_tie="last"), ValueError, "max_tie: expected one of 'first', 'even'"),
    (lambda: npattn.ChannelAttention(8, bias=True), ValueError, "ratio: expected at most in_planes = 8, got 16"),
    (lambda: npattn.ChannelAttention(8, 0, layers=1), ValueError, "ratio: expected a whole number"),
    (lambda: npattn.SpatialAttention(3, maps=("min",)), ValueError, "maps: expected at least one of 'mean', 'max'"),
    (lambda: npattn.SpatialAttention(3, mix="after"), ValueError, "mix: expected one of 'concat', 'mean', got 'after'"),
    (lambda: npattn.SpatialAttention(3, momentum=0.5), ValueError, "momentum: expected norm=True"),
    (lambda: npattn.SpatialAttention(3, norm=True, momentum=2), ValueError, "momentum: expected .* from 0 to 1, got 2"),
    (lambda: npattn.SpatialAttention(4, norm=True), ValueError, "kernel_size: expected an odd"),
    (lambda: npattn.CBAM(8, 4, order="both"), ValueError, "order: expected one of .*, got 'both'"),
    (lambda: npattn.CBAM(8, 4, order="parallel", channel=False), ValueError, "order: expected two gates"),
    (lambda: npattn.CBAM(8, 4, order="spatial-first", spatial=False), ValueError, "order: expected two gates"),
    (lambda: npattn.CBAM(8, 4, channel=False, spatial=False), ValueError, "channel, spatial: expected at most one"),
    (lambda: npattn.CBAM(8, 4, channel=True), TypeError, "channel: expected None, False or a dict .*, got True"),
    (lambda: npattn.CBAM(8, 4, spatial={"pools": ("avg",)}), ValueError, "spatial: expected only the options .*pools"),
    (lambda: npattn.CBAM(8, 4, channel={"mix": "x"}), ValueError, r"channel\['mix'\]: expected one of"),
    (lambda: npattn.CBAM(8, 4, spatial={"momentum": 0.5}), ValueError, r"spatial\['momentum'\]: expected norm=True"),
    (lambda: npattn.CBAM(0, 1, channel=False), ValueError, "in_planes: expected a whole number of at least 1, got 0"),
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
    with pytest.raises(ValueError, match=r"^w1: expected shape \(R, K=8\), got \(2, 4\)"):
        any_channel.forward(x, any_channel.Params(w1, None, w2), ChannelForm(mix="concat"))
    with pytest.raises(ValueError, match=r"^w1: expected shape \(C=4, K=4\), got \(2, 4\)"):
        any_channel.forward(x, any_channel.Params(w1))
    with pytest.raises(ValueError, match=r"^w2: expected shape"):
        any_channel.forward(x, any_channel.Params(w1, None, w1))
    with pytest.raises(TypeError, match=r"^b1: expected dtype float64, the same as x, got float32"):
        any_channel.forward(x, any_channel.Params(w1, np.ones(2, np.float32), w2))
    with pytest.raises(ValueError, match=r"^w: expected shape"):
        any_spatial.forward(x, any_spatial.Params(np.ones((1, 2, 3, 3))), SpatialForm(mix="mean"))
    with pytest.raises(ValueError, match=r"^params: expected ca, sa or both"):
        any_cbam.forward(x, any_cbam.Params(None, None))
    with pytest.raises(ValueError, match=r"^params: expected both ca and sa"):
        any_cbam.forward(x, any_cbam.Params(any_channel.Params(w1, None, w2), None), CbamForm("parallel"))
    with pytest.raises(ValueError, match=r"^w \(its length\): expected an odd"):
        eca.forward(x, eca.Params(np.ones(2)))
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, C=8, H, W\)"):
        npattn.ECA(8, dtype="float64")(x)
