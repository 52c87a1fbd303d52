"""Class activation maps: what ties them to the scores, their gradients taken without a backward, and the edges."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import npattn
from npattn import models
from npattn.explain import cam, class_activation_map, overlay

RAW = {"relu": False, "normalise": False, "upsample": False}
RNG = np.random.default_rng(60)
X = RNG.standard_normal((3, 1, 28, 28))


def network(build=models.digits, seed: int = 61, **options) -> npattn.Sequential:
    """A network with O(1) numbers everywhere, running statistics too: nothing is 0 or 1 by its initial value."""
    model = build(rng=0, dtype="float64", **options)
    rng = np.random.default_rng(seed)
    state = {key: 0.4 * rng.standard_normal(value.shape) for key, value in model.state_dict().items()}
    state |= {key: rng.uniform(0.5, 2, value.shape) for key, value in state.items() if key.endswith("running_var")}
    return model.load_state_dict(state)


@pytest.fixture(params=[models.digits, models.se_resnet], ids=["digits", "se-resnet"])
def model(request) -> npattn.Sequential:
    return network(request.param)


# Identities


def test_the_mean_of_the_map_plus_the_bias_is_the_score(model):
    scores = model.eval()(X)
    for m in range(10):
        maps = class_activation_map(model, X, m, **RAW)
        assert maps.shape == (3, 7, 7)
        assert maps.dtype == np.float64
        assert np.ptp(maps, axis=(1, 2)).min() > 1e-3, "a flat map proves nothing"
        np.testing.assert_allclose(maps.mean(axis=(1, 2)) + model.params["head.bias"][m], scores[:, m], rtol=1e-12)


def test_grad_cam_is_cam_divided_by_the_pixels(model):
    before_the_pool = "stage4.relu" if "stage4" in model.layers else "relu3"
    for m in (0, 7, [9, 4, 4]):
        one = class_activation_map(model, X, m, **RAW)
        for layer in (None, before_the_pool):
            other = class_activation_map(model, X, m, method="grad-cam", layer=layer, **RAW)
            np.testing.assert_allclose(other, one / 49, rtol=1e-12, atol=1e-15)
        # and finished, where a factor does not matter, they are one picture
        np.testing.assert_allclose(
            class_activation_map(model, X, m, method="grad-cam"), class_activation_map(model, X, m), atol=1e-12
        )


def test_at_an_earlier_layer_they_differ():
    model = network()
    one = class_activation_map(model, X, 3)
    other = class_activation_map(model, X, 3, method="grad-cam", layer="stage3.relu")
    assert np.abs(one - other).max() > 0.1


# Grad-CAM's gradient, taken without any backward


class Nudged(npattn.Layer):
    """A layer whose output is moved by a given array."""

    def __init__(self, layer: npattn.Layer, by: np.ndarray) -> None:
        super().__init__(dtype=layer.dtype)
        self.layer, self.by = layer, by
        self.params, self.buffers = layer.params, layer.buffers

    def run(self, x):
        return self.layer.forward(x) + self.by, ()


def by_differences(model: npattn.Sequential, x: np.ndarray, m: int, name: str) -> np.ndarray:
    """Grad-CAM at the layer of that name by central differences of the score alone."""
    *outer, last = name.split(".")

    def nudged(by) -> tuple[np.ndarray, np.ndarray]:
        twin = copy.deepcopy(model).eval()
        parent = twin
        for part in outer:
            parent = parent.layers[part]
        inner, moved = parent.layers[last], Nudged(parent.layers[last], by)
        parent.layers[last] = moved
        seen = []
        run = inner.run
        inner.run = lambda x: seen.append(run(x)) or seen[-1]
        with npattn.no_grad():
            y = twin(x)
        return y[:, m], seen[-1][0]

    f = nudged(np.zeros(()))[1]
    slope, h = np.zeros_like(f), 1e-6
    for index in np.ndindex(f.shape[1:]):
        by = np.zeros(f.shape)
        by[(slice(None), *index)] = h
        slope[(slice(None), *index)] = (nudged(by)[0] - nudged(-by)[0]) / (2 * h)
    return np.einsum("nc,nchv->nhv", slope.mean(axis=(2, 3)), f)


SMALL = npattn.Sequential(
    first=npattn.Sequential(
        conv=npattn.Conv2d(1, 3, 3, rng=1, dtype="float64"), bn=npattn.BatchNorm2d(3, dtype="float64")
    ),
    relu=npattn.ReLU(dtype="float64"),
    unit=npattn.Residual(
        npattn.Sequential(
            conv=npattn.Conv2d(3, 4, 3, rng=2, dtype="float64"),
            attention=npattn.CBAM(4, 2, 3, rng=3, dtype="float64"),
        ),
        npattn.Conv2d(3, 4, 1, rng=4, dtype="float64"),
    ),
    pool=npattn.GlobalMaxPool(dtype="float64"),
    fc=npattn.Linear(4, 5, rng=5, dtype="float64"),
    sigmoid=npattn.Sigmoid(dtype="float64"),
)


@pytest.mark.parametrize(
    "name", ["first", "first.conv", "relu", "unit", "unit.branch.conv", "unit.branch", "unit.skip"]
)
def test_grad_cam_by_finite_differences(name: str):
    """Any layer, also inside of a residual unit, for a network that ends otherwise than CAM asks for."""
    x = np.random.default_rng(62).standard_normal((2, 1, 3, 2))
    found = class_activation_map(SMALL, x, 2, method="grad-cam", layer=name, **RAW)
    wanted = by_differences(SMALL, x, 2, name)
    assert np.linalg.norm(wanted) > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


def test_grad_cam_by_autograd():
    """The same as PyTorch says, for CBAM's output in a small network."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.blocks.cbam import reference

    rng = np.random.default_rng(63)
    cbam, head = npattn.CBAM(6, 2, 3, dtype="float64", rng=1), npattn.Linear(6, 4, dtype="float64", rng=2)
    relu = npattn.ReLU(dtype="float64")
    model = npattn.Sequential(a=cbam, b=copy.deepcopy(cbam), relu=relu, p=npattn.GlobalAvgPool(dtype="float64"), h=head)
    x = rng.standard_normal((2, 6, 5, 4))
    weights = {key: torch.tensor(value) for key, value in cbam.params.items()}
    f = reference(torch.tensor(x), weights).requires_grad_()
    y = torch.relu(reference(f, weights)).mean(dim=(2, 3)) @ torch.tensor(head.params["weight"]).T
    y[:, 1].sum().backward()
    wanted = (f.grad.mean(dim=(2, 3), keepdim=True) * f).sum(dim=1).detach().numpy()
    found = class_activation_map(model, x, 1, method="grad-cam", layer="a", **RAW)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-14)


# The model is left alone


@pytest.mark.parametrize("method", cam.METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(model, method: str, training: bool):
    """Called between a forward and its backward, it changes nothing: not the cache, the gradients, the statistics."""
    model.train(training)
    y = model(X)
    dy = np.random.default_rng(64).standard_normal(y.shape)
    model.backward(dy)
    state = {key: value.copy() for key, value in model.state_dict().items()}
    grads = {key: np.array(value) for key, value in model.grads.items()}
    gates = model.attention
    with npattn.no_grad():  # where the model keeps no cache, and Grad-CAM needs one all the same
        class_activation_map(model, 2 * X, 3, method=method)
    class_activation_map(model, 2 * X, 3, method=method)
    assert model.training is training
    assert all(np.array_equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(np.array_equal(value, grads[key]) for key, value in model.grads.items())
    assert all(np.array_equal(value, gates[key]) for key, value in model.attention.items())
    model.backward(dy)
    assert all(np.array_equal(value, grads[key]) for key, value in model.grads.items())


def test_it_runs_in_eval_mode_whatever_the_mode_was(model):
    for method in cam.METHODS:
        one = class_activation_map(model.eval(), X, 3, method=method)
        np.testing.assert_array_equal(class_activation_map(model.train(), X, 3, method=method), one)


def test_textbook_and_fused_agree():
    for method, layer in (("cam", None), ("grad-cam", "stage2.attention")):
        maps = [
            class_activation_map(network(fused=fused), X, 5, method=method, layer=layer, **RAW)
            for fused in (True, False)
        ]
        np.testing.assert_allclose(*maps, rtol=1e-10, atol=1e-13)


def test_on_another_library():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = network(fused=False)
    x = torch.tensor(X)
    for method in cam.METHODS:
        here = class_activation_map(model, X, [1, 2, 3], method=method)
        there = class_activation_map(copy.deepcopy(model).to(xp=torch), x, [1, 2, 3], method=method)
        assert isinstance(there, np.ndarray)
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-12)


# What is done to the raw map


def ending_in(maps: np.ndarray, weight: float) -> tuple[npattn.Sequential, np.ndarray]:
    """A network that is nothing but an ending, and the maps as its input: CAM is weight · maps."""
    head = npattn.Linear(1, 1, dtype="float64")
    head.load_state_dict({"weight": np.array([[float(weight)]]), "bias": np.zeros(1)})
    return npattn.Sequential(npattn.GlobalAvgPool(dtype="float64"), head), maps[:, None].astype(np.float64)


def test_a_map_that_is_nowhere_positive_is_empty():
    model, x = ending_in(np.array([[[1.0, 2.0], [0.5, 3.0]], [[0, 0], [0, 0]]]), weight=-1)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(class_activation_map(model, x, 0), np.zeros((2, 2, 2)))
        signed = class_activation_map(model, x, 0, relu=False)
    np.testing.assert_allclose(signed[0], [[-1 / 3, -2 / 3], [-1 / 6, -1]])
    np.testing.assert_array_equal(signed[1], np.zeros((2, 2)))


def test_tiny_maps_are_normalised_too():
    model, x = ending_in(np.array([[[5e-324, 0.0], [0.0, 1e-323]]]), weight=1)
    found = class_activation_map(model, x, 0)
    assert found.max() == 1
    np.testing.assert_array_equal(found[0, 0, 1], 0)


def test_each_image_is_normalised_by_itself():
    model, x = ending_in(np.array([[[1.0, 2.0]], [[100.0, 50.0]]]), weight=2)
    np.testing.assert_allclose(class_activation_map(model, x, 0), [[[0.5, 1]], [[1, 0.5]]])
    np.testing.assert_allclose(class_activation_map(model, x, 0, normalise=False), [[[2, 4]], [[200, 100]]])
    np.testing.assert_allclose(class_activation_map(model, -x, 0, normalise=False, relu=False), -2 * x[:, 0])
    np.testing.assert_allclose(class_activation_map(model, -x, 0, normalise=False), 0 * x[:, 0])


@pytest.mark.parametrize("size", [(6, 6), (9, 12), (7, 11), (3, 30)], ids=str)
def test_upsampling(size: tuple[int, int]):
    """Straight lines between the middles of pixels, and the border's value outside of them: by a formula of its own."""
    small = np.random.default_rng(65).standard_normal((2, 3, 4))
    found = cam.finished(small, size, relu=False, normalise=False, upsample=True)
    assert found.shape == (2, *size)
    for axis, length in zip((1, 2), size, strict=True):
        at = (np.arange(length) + 0.5) * small.shape[axis] / length - 0.5  # where a new pixel's middle lies
        at = np.clip(at, 0, small.shape[axis] - 1)
        low = np.minimum(at.astype(int), small.shape[axis] - 2)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        small = np.take(small, low, axis) * (1 - share) + np.take(small, low + 1, axis) * share
    np.testing.assert_allclose(found, small, rtol=1e-9, atol=1e-12)


def test_the_maps_are_as_large_as_the_image():
    for method, layer in (("cam", None), ("grad-cam", "stage1.conv"), ("grad-cam", "stage3")):
        maps = class_activation_map(network(), X, None, method=method, layer=layer)
        assert maps.shape == (3, 28, 28)
        assert maps.min() >= 0
        assert set(maps.max(axis=(1, 2))) <= {0.0, 1.0}


def test_float32_stays_float32():
    model = models.digits("se", rng=0)
    maps = class_activation_map(model, X.astype(np.float32), 1)
    assert maps.dtype == np.float32


def test_none_takes_the_models_answer(model):
    answers = np.argmax(model.eval()(X), axis=1)
    for method in cam.METHODS:
        one = class_activation_map(model, X, None, method=method, **RAW)
        np.testing.assert_array_equal(one, class_activation_map(model, X, answers, method=method, **RAW))
        np.testing.assert_array_equal(one, class_activation_map(model, X, answers.tolist(), method=method, **RAW))


# What is refused

HEADLESS = npattn.Sequential(npattn.Conv2d(1, 2, rng=0, dtype="float64"), npattn.ReLU(dtype="float64"))
DIGITS = network()


@pytest.mark.parametrize(
    ("model", "class_index", "options", "error", "message"),
    [
        (npattn.ReLU(), 0, {}, TypeError, "model: expected a Sequential, got ReLU"),
        (HEADLESS, 0, {}, ValueError, "ends in GlobalAvgPool and Linear, got Conv2d and ReLU; use method="),
        (npattn.Sequential(npattn.ReLU(dtype="float64")), 0, {}, ValueError, "GlobalAvgPool and Linear, got ReLU;"),
        (HEADLESS, 0, {"method": "grad-cam"}, ValueError, "ends in GlobalAvgPool and Linear, got Conv2d and ReLU"),
        (HEADLESS, 0, {"method": "grad-cam", "layer": "1"}, ValueError, r"output: expected shape \(N, M\), got \(3, 2"),
        (DIGITS, 0, {"method": "lime"}, ValueError, "method: expected one of 'cam', 'grad-cam', got 'lime'"),
        (DIGITS, 0, {"layer": "stage2"}, ValueError, "layer: CAM looks at what goes into the pooling; got 'stage2'"),
        (DIGITS, 0, {"method": "grad-cam", "layer": "head"}, ValueError, r"four axes, got 'head' with \(3, 10\)"),
        (DIGITS, 10, {}, ValueError, "class_index: expected classes from 0 to 9, got 10"),
        (DIGITS, -1, {}, ValueError, "class_index: expected classes from 0 to 9, got -1"),
        (DIGITS, [0, 1, 10], {}, ValueError, r"class_index: expected classes from 0 to 9, got \[0, 1, 10\]"),
        (DIGITS, [0, 1], {}, TypeError, r"a whole number, or 3 of them, one for each image, got \[0, 1\]"),
        (DIGITS, 1.0, {}, TypeError, "class_index: expected a whole number, .* got 1.0"),
        (DIGITS, True, {}, TypeError, "class_index: expected a whole number, .* got True"),
        (DIGITS, "3", {}, TypeError, "class_index: expected a whole number, .* got '3'"),
    ],
)  # fmt: skip
def test_bad_arguments(model, class_index, options, error, message):
    with pytest.raises(error, match=message):
        class_activation_map(model, X, class_index, **options)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("stage9", "layer: expected one of stage1, .*, head, got 'stage9'"),
        ("stage9.relu", r"layer: expected one of stage1, .*, head, got 'stage9\.relu'"),
        ("stage2.x", r"layer: expected one of stage2\.conv, stage2\.bn, .* got 'stage2\.x'"),
        ("head.a", r"layer: expected head, a Linear without layers inside, got 'head\.a'"),
        ("stage2.relu.a", r"layer: expected stage2\.relu, a ReLU without layers inside, got 'stage2\.relu\.a'"),
    ],
)
def test_a_layer_that_is_not_there_is_named_as_it_was_typed(layer: str, message: str):
    with pytest.raises(ValueError, match=message):
        class_activation_map(DIGITS, X, 0, method="grad-cam", layer=layer)


def test_bad_images():
    for x, error, message in (
        (X[0], ValueError, r"x: expected shape \(N, C, H, W\)"),
        (X[:0], ValueError, "x: expected at least one image, got none"),
        (X.astype(np.float32), TypeError, "x: expected dtype float64|expected dtype float32"),
        (X.tolist(), TypeError, "x: expected an array"),
        (np.full_like(X, np.nan), ValueError, "x: expected one for which the model's numbers are finite"),
    ):
        for method in cam.METHODS:
            with pytest.raises(error, match=message), np.errstate(all="ignore"):
                class_activation_map(DIGITS, x, 0, method=method)


# Overlays


def test_overlay():
    grey = np.array([[[0, 255, 51]]], np.uint8)
    maps = np.array([[[0.0, 1.0, -0.5]]])
    found = overlay(grey, maps, strength=0.8, positive=(1, 0, 0), negative=(0, 0, 1))
    np.testing.assert_allclose(found[0, 0], [[0, 0, 0], [1.0, 0.2, 0.2], [0.12, 0.12, 0.52]])
    np.testing.assert_allclose(overlay(grey / 255, maps, strength=0.8), overlay(grey, maps, strength=0.8))
    for images, bad, message in (
        (grey, maps[0], r"maps: expected shape \(1, 1, 3\), that of images, got \(1, 3\)"),
        (grey, 2 * maps, "maps: expected numbers from −1 to 1"),
        (grey, np.nan * maps, "maps: expected numbers from −1 to 1"),
        (grey.astype(float), maps, "images: expected numbers from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            overlay(images, bad)
    with pytest.raises(ValueError, match="strength: expected a finite number from 0 to 1, got 2"):
        overlay(grey, maps, strength=2)
