"""What an object keeps: parameters wherever they are, states, statistics, buffers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from npattn import gradcheck
from tests.checker.small_targets import Scale, X, normal, verdicts


def test_parameters_that_are_views_of_one_vector():
    class Flat:
        def __init__(self, dtype):
            self.all = np.arange(8, dtype=dtype) / 8
            self.params = {"W": self.all[:6].reshape(3, 2), "b": self.all[6:]}
            self.grads = {}

        def forward(self, x):
            self.x = x
            return x @ self.all[:6].reshape(3, 2) + self.all[6:]

        def backward(self, dy):
            self.grads = {"W": self.x.T @ dy, "b": dy.sum(0)}
            return dy @ self.params["W"].T

    for dtype in (np.float32, np.float64):
        assert verdicts(gradcheck(Flat(dtype), X)) == {"x": "ok", "W": "ok", "b": "ok"}


def test_an_array_that_has_no_gradient_is_named():
    class Forgetful(Scale):
        def __init__(self):
            super().__init__()
            self.shift, self.momentum = normal(3), normal(3)

        def forward(self, x):
            return super().forward(x) + self.shift

    report = gradcheck(Forgetful(), X)
    assert verdicts(report) == {"x": "ok", "w": "ok"}
    assert any(note.startswith("shift: not checked, since no gradient of it was found") for note in report.notes)
    assert sum("not checked" in note for note in report.notes) == 1  # y does not depend on the other
    assert not any("not checked" in note for note in gradcheck(Scale(), X).notes)


def test_a_state_that_forward_sets_anew_is_no_parameter():
    class Recurrent(Scale):
        def __init__(self):
            super().__init__()
            self.h, self.dh = np.ones(3), None

        def forward(self, x):
            self.h = np.zeros(3)
            return super().forward(x) + self.h

        def backward(self, dy):
            self.dh = dy.sum(axis=0)
            return super().backward(dy)

    assert verdicts(gradcheck(Recurrent(), X)) == {"x": "ok", "w": "ok"}


def test_a_parameter_without_influence_is_not_left_out():
    class Forgotten(Scale):
        def __init__(self):
            super().__init__()
            self.b, self.db = np.ones(3), None

        def backward(self, dy):
            self.db = dy.sum(axis=0)
            return super().backward(dy)

    report = gradcheck(Forgotten(), X, raise_exception=False)
    assert [row.name for row in report.rows if row.wrong] == ["b"]


def test_a_number_is_a_parameter_too():
    class Slope:
        def __init__(self):
            self.alpha, self.dalpha = 0.25, 0.0

        def forward(self, x):
            self.x = x
            return np.where(x > 0, x, self.alpha * x)

        def backward(self, dy):
            self.dalpha = np.sum(dy * self.x * (self.x < 0))
            return dy * np.where(self.x > 0, 1, self.alpha)

    assert verdicts(gradcheck(Slope(), X)) == {"x": "ok", "alpha": "ok"}


def test_two_numbers_of_which_one_seems_to_be_the_others_gradient():
    class Decay(Scale):
        def __init__(self):
            super().__init__()
            self.t, self.dt = 2.0, 0.5

        def forward(self, x):
            return super().forward(x) * self.t

        def backward(self, dy):
            return super().backward(dy * self.t)

    assert verdicts(gradcheck(Decay(), X)) == {"x": "ok", "w": "ok"}


def test_names_that_stand_for_something_else():
    class Base(Scale):
        @property
        def params(self):
            raise NotImplementedError("of each class that is derived")

        def parameters(self, trainable):
            return []

        def gradients(self):
            raise RuntimeError("not yet")

    assert verdicts(gradcheck(Base(), X)) == {"x": "ok", "w": "ok"}


def test_objects_that_know_each_other():
    class Inner(Scale):
        def __init__(self, outer):
            super().__init__()
            self.outer = outer

    class Outer:
        def __init__(self):
            self.inner = Inner(self)
            self.all = [self.inner, [self.inner]]

        def forward(self, x):
            return self.inner.forward(x)

        def backward(self, dy):
            return self.inner.backward(dy)

    assert verdicts(gradcheck(Outer(), X)) == {"x": "ok", "inner.w": "ok"}


def test_statistics_that_are_among_the_parameters():
    class Norm:
        def __init__(self):
            self.parameters = {"scaler": normal(3, seed=1), "running_mean": np.zeros(3), "seen": np.zeros(3)}
            self.gradients = {"scaler": np.zeros(3)}

        def forward(self, X):
            self.X = X
            self.parameters["seen"] = self.parameters["seen"] + X.mean(axis=0)
            return (X - X.mean(axis=0)) * self.parameters["scaler"]

        def backward(self, dy):
            self.gradients["scaler"] = (dy * (self.X - self.X.mean(axis=0))).sum(axis=0)
            dX = dy * self.parameters["scaler"]
            return dX - dX.mean(axis=0)

    assert verdicts(gradcheck(Norm(), X)) == {"X": "ok", "scaler": "ok"}


def test_an_object_that_cannot_be_copied():
    class Locked(Scale):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match=r"expected an object that copy.deepcopy copies.*wrap\(target, copy="):
        gradcheck(Locked(), X)
    assert gradcheck(gradcheck.wrap(Locked(), copy=lambda old: Scale(old.w)), X)


def test_the_callers_object_stays_as_it_is():
    layer = Scale(normal(3).astype(np.float32))
    w, dw = layer.w.copy(), layer.dw
    gradcheck(layer, X)
    assert layer.w.dtype == np.float32
    assert np.array_equal(layer.w, w)
    assert layer.dw is dw
    assert not hasattr(layer, "x")


def test_a_layer_with_buffers_in_float64_is_checked_by_differences_and_never_sees_a_complex_number():
    class Buffered(Scale):
        def __init__(self):
            super().__init__()
            self.out, self.mean = np.empty((4, 3)), np.zeros(3)

        def forward(self, x):
            self.x, self.mean = x, 0.9 * self.mean + 0.1 * x.mean(axis=0)
            self.out[...] = x * self.w
            assert np.iscomplexobj(x) or self.mean.dtype == np.float64
            return self.out.copy()

    report = gradcheck(Buffered(), X)
    assert {row.method for row in report.rows} == {"differences"}
    assert any("writes complex numbers into a real array (test_objects.py, line " in note for note in report.notes)


def test_a_layer_whose_arrays_are_in_several_places_is_checked_by_the_complex_step():
    class Twice(Scale):
        def __init__(self):
            super().__init__()
            self.params, self.grads, self.also = {"w": self.w}, {}, [self.w]

        def forward(self, x):
            self.x = x
            return x * self.w * self.also[0]

        def backward(self, dy):
            self.grads["w"] = 2 * (self.x * dy * self.w).sum(axis=0)
            return dy * self.w**2

    assert {row.method for row in gradcheck(Twice(), X).rows} == {"complex step"}


def test_a_second_output_that_backward_takes_no_dy_of():
    class Attention:
        def forward(self, x):
            self.x, self.weights = x, np.tanh(x)
            return self.weights * x, self.weights

        def backward(self, dy):
            return dy * (np.tanh(self.x) + self.x * (1 - np.tanh(self.x) ** 2))

    report = gradcheck(Attention(), X)
    assert "forward gives several values, and backward takes the dy of the first: the others are left" in report.notes
