"""Gradient checks find wrong gradients, and say where."""

import numpy as np
import pytest

import cogkit as C
from cogkit.debugging import gradcheck

F4 = np.float32


class Cube(C.UserFunction):
    """x^3 with a gradient that is wrong where x is above a limit."""

    def __init__(self, x, limit=np.inf, name=""):
        self.limit = limit
        super().__init__([x], name=name)

    def clone(self, cloned_inputs):
        return Cube(cloned_inputs[0], self.limit, self.name)

    def infer_outputs(self):
        x = self.inputs[0]
        return [C.output_variable(x.shape, x.dtype, x.dynamic_axes)]

    def forward(self, argument, device=None, outputs_to_retain=None):
        return argument, argument**3

    def backward(self, x, root_gradients):
        return root_gradients * np.where(x > self.limit, 2, 3) * x**2


def test_a_right_and_a_wrong_gradient():
    x = C.input_variable((2, 2), needs_gradient=True)
    data = np.array([[[0.5, -0.25], [0.75, 0.1]]], F4)
    right = gradcheck(C.user_function(Cube(x)), {x: data})
    assert right.error < 1e-8 and right.count == 4
    wrong = gradcheck(C.user_function(Cube(x, 0.6)), {x: data})
    assert wrong.error > 0.1 and wrong.variable is x and wrong.index == (0, 1, 0)
    assert wrong.gradient / wrong.slope == pytest.approx(2 / 3)
    assert "error" in str(wrong) and "(0, 1, 0)" in str(wrong) and "(4 checked)" in str(wrong)
    along = gradcheck(C.user_function(Cube(x, 0.6)), {x: data}, directions=3)
    assert along.error > 0.01 and along.count == 3 and along.index == ()


def test_layers_in_float32():
    """The check is in float64 on a copy: the model stays as it is."""
    x, y = C.input_variable((3, 6, 6)), C.input_variable(4)
    with C.default_options(activation=C.tanh):
        z = C.layers.Sequential(
            [
                C.layers.Convolution2D((3, 3), 5),
                C.layers.BatchNormalization(),
                C.layers.Dropout(0.3),
                C.layers.Dense(4, activation=None),
            ]
        )(x)
    loss = C.cross_entropy_with_softmax(z, y)
    before = [p.value for p in (*loss.parameters, *loss.constants)]
    found = gradcheck(loss, {x: np.random.randn(4, 3, 6, 6).astype(F4), y: np.eye(4, dtype=F4)}, limit=20)
    assert found.error < 1e-6 and found.count > 60
    for a, p in zip(before, (*loss.parameters, *loss.constants), strict=True):
        assert p.dtype == F4
        np.testing.assert_array_equal(a, p.value)


def test_sequences():
    x = C.sequence.input_variable(3, needs_gradient=True)
    f = C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(4)), C.layers.Dense(2)])(x)
    data = [np.random.randn(n, 3).astype(F4) for n in (3, 1, 4)]
    found = gradcheck(f, {x: data}, limit=30)
    assert found.error < 1e-7
    only = gradcheck(f, {x: data}, [x], limit=1000)
    assert only.count == 24 and len(only.index) == 3 and only.variable is x


def test_what_is_asked_for():
    x, w = C.input_variable(2), C.parameter((2, 2), init=1)
    f = C.times(x, w)
    data = np.ones((3, 2), F4)
    assert gradcheck(f, {x: data}).count == 4
    assert gradcheck(f, data, [x]).count == 6
    assert gradcheck(f, {x: data}, [f.parameters[0], x], limit=2).count == 4
    with pytest.raises(ValueError, match="gradcheck.*: expected parameters and inputs of the function, got Parameter"):
        gradcheck(f, {x: data}, [C.parameter(2)])
    assert str(gradcheck(x + 1, {x: data})) == "nothing to check"
