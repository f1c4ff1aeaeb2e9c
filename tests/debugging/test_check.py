"""Planted NaN and infinities are named by node, pass, line and place: alone, in fused groups, in recurrences, in what was there already."""

import inspect

import numpy as np
import pytest

import cogkit as C
from cogkit.debugging import NotFinite, checked, find_nan, set_checked_mode

F4 = np.float32


def line() -> int:
    """The caller's line."""
    return inspect.currentframe().f_back.f_lineno


def told(found: NotFinite, label: str, name: str, where: int | None, backward: bool = False, at: str = "") -> None:
    assert found is not None
    assert (found.label, found.name, found.backward) == (label, name, backward)
    if where is not None:
        assert found.where == f"test_check.py:{where}"
    if at:
        assert found.at == at


def test_forward():
    x = C.input_variable(3)
    h = C.times(x, C.parameter((3, 2), init=1))
    y, at = C.log(h, name="planted"), line()
    f = C.times(y, C.parameter((2, 2), init=1))
    data = np.ones((4, 3), F4)
    assert find_nan(f, {x: data}) is None
    data[2] = -1
    found = find_nan(f, {x: data})
    told(found, "Log", "planted", at, at="sample 2, element (0,)")
    assert np.isnan(found.value)
    assert str(found) == (
        f"Log 'planted' (test_check.py:{at}): expected finite values, got nan at sample 2, element (0,) in the forward pass, from 'log' of"
        " finite operands"
    )


def test_inside_a_fused_group():
    """All of it is one program: the node is found all the same."""
    x = C.input_variable((2, 3))
    a = C.exp(C.sin(x)) * 2 + 1
    b, at = C.sqrt(a - 4, name="planted"), line()
    f = C.reduce_sum(C.tanh(b) * x + C.cos(x))
    assert "pointwise" in f.explain() and f.explain().count("\n") < 80
    data = np.full((3, 2, 3), 1.5, F4)
    assert find_nan(f, {x: data}) is None
    data[1, 1, 2] = -1.5
    told(find_nan(f, {x: data}), "Sqrt", "planted", at, at="sample 1, element (1, 2)")


def test_backward():
    """The value is finite, its gradient is not: sqrt at 0."""
    x = C.input_variable(3, needs_gradient=True)
    y, at = C.sqrt(C.relu(x), name="planted"), line()
    f = C.times(y, C.parameter((3, 2), init=1))
    data = np.ones((4, 3), F4)
    assert find_nan(f, {x: data}) is None
    data[3, 1] = 0
    told(find_nan(f, {x: data}), "Sqrt", "planted", at, True, "sample 3, element (1,)")
    assert find_nan(f, {x: data}, wrt=[]) is None


@pytest.mark.parametrize("ahead", [False, True])
def test_inside_a_recurrence(ahead):
    x = C.sequence.input_variable(3, needs_gradient=True)
    p = C.placeholder(shape=(3,))
    before = (C.sequence.future_value if ahead else C.sequence.past_value)(p)
    h, at = C.log(x - 0.1 * before, name="planted"), line()
    h = h + 0.3 * before
    h.replace_placeholders({p: h.output})
    data = [np.full((n, 3), 5, F4) for n in (4, 6, 2)]
    assert find_nan(h, {x: data}) is None
    data[1][3, 2] = -5
    told(find_nan(h, {x: data}), "Log", "planted", at, at="step 3 of sequence 1, element (2,)")


def test_backward_inside_a_recurrence():
    x = C.sequence.input_variable(2, needs_gradient=True)
    p = C.placeholder(shape=(2,))
    before = C.sequence.past_value(p)
    h, at = C.sqrt(C.relu(x - before, name="zero"), name="planted"), line()
    h.replace_placeholders({p: h.output})
    data = [np.array([[1, 4], [3, 5], [9, 9]], F4), np.array([[1, 1], [1, 4]], F4)]  # sequence 1: 1 - sqrt(1) = 0
    found = find_nan(h, {x: data})
    told(found, "Sqrt", "planted", at, True)
    assert "sequence 1" in found.at


def test_convolutions_in_blocks_of_channels():
    x = C.input_variable((16, 6, 6))
    with C.default_options(pad=True):
        h = C.layers.Convolution2D((3, 3), 32, init=0.1, name="before")(x)
    y, at = C.log(h, name="planted"), line()
    f = C.layers.Convolution2D((3, 3), 16, init=0.1)(y * y)
    data = np.ones((2, 16, 6, 6), F4)
    assert find_nan(f, {x: data}) is None
    data[1, :, 5, 5] = -9
    told(find_nan(f, {x: data}), "Log", "planted", at, at="sample 1, element (0, 4, 4)")


def test_what_was_there_already():
    x, w = C.input_variable(3, name="x"), C.parameter((3, 2), init=1, name="w")
    f = C.times(x, w)
    data = np.ones((4, 3), F4)
    data[1, 2] = np.inf
    found = find_nan(f, {x: data})
    told(found, "Input", "x", None, at="sample 1, element (2,)")
    assert found.held and "Input 'x'" in str(found) and "got inf at sample 1" in str(found)
    w.value = np.array([[1, 1], [1, np.nan], [1, 1]], F4)
    found = find_nan(f, {x: np.ones((4, 3))})
    told(found, "Parameter", "w", None, at="element (1, 1)")


def test_where_a_kernel_makes_a_number_of_it():
    """A rectifier inside a product, and the largest of a window, may be 0 where an operand is NaN."""
    x, w = C.input_variable(16, name="x"), C.parameter((16, 32), init=C.glorot_uniform(), name="w")
    f = C.relu(C.times(x, w) + C.parameter((32,), init=0.1))
    data = np.ones((4, 16), F4)
    assert find_nan(f, {x: data}) is None
    data[1, 2] = np.nan
    told(find_nan(f, {x: data}), "Input", "x", None, at="sample 1, element (2,)")
    w.value = np.where(np.arange(512).reshape(16, 32) == 5, np.nan, w.value)
    told(find_nan(f, {x: np.ones((4, 16), F4)}), "Parameter", "w", None, at="element (0, 5)")
    image = C.input_variable((3, 8, 8), name="image")
    pooled = C.pooling(image, C.MAX_POOLING, (2, 2), strides=(2, 2))
    data = np.ones((2, 3, 8, 8), F4)
    data[0, 1, 3, 3] = np.nan
    told(find_nan(pooled, {image: data}), "Input", "image", None, at="sample 0, element (1, 3, 3)")


def test_infinities_where_they_are_wanted():
    x = C.input_variable(2)
    f, at = C.exp(x, name="planted") * 0.5, line()
    data = np.array([[1, 1000]], F4)
    assert find_nan(f, {x: data}, inf=False) is None
    told(find_nan(f, {x: data}), "Exp", "planted", at)


def test_layers_and_user_functions():
    x = C.input_variable(3, needs_gradient=True)

    class Breaks(C.UserFunction):
        def infer_outputs(self):
            v = self.inputs[0]
            return [C.output_variable(v.shape, v.dtype, v.dynamic_axes)]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return None, np.where(argument > 2, np.nan, argument)

        def backward(self, state, root_gradients):
            return root_gradients * np.inf

    at = line() + 1
    f = C.user_function(Breaks([C.layers.Dense(3, activation=C.relu, name="dense")(x)], name="mine"))
    told(find_nan(f, {x: np.full((1, 3), 0, F4)}), f"{__name__}.Breaks", "mine", at, True)
    for p in f.parameters:
        p.value = np.full(p.shape, 3, F4)
    told(find_nan(f, {x: np.full((1, 3), 9, F4)}), f"{__name__}.Breaks", "mine", at)


def test_nothing_is_written():
    x = C.input_variable(3, needs_gradient=True)
    f = C.layers.BatchNormalization()(C.layers.Dense(4)(x))
    before = [p.value for p in (*f.parameters, *f.constants)]
    assert find_nan(f, {x: np.random.randn(6, 3)}) is None
    for a, p in zip(before, (*f.parameters, *f.constants), strict=True):
        np.testing.assert_array_equal(a, p.value)


def test_checked_mode():
    x, y = C.input_variable(2), C.input_variable(1)
    z = C.times(x, C.parameter((2, 1), init=1, name="w"))
    loss, at = C.reduce_sum(C.log(z, name="planted") - y), line()
    trainer = C.Trainer(z, loss, [C.sgd(z.parameters, 0.001)])
    good, bad = ({x: np.full((4, 2), v, F4), y: np.zeros((4, 1), F4)} for v in (1, -1))
    trainer.train_minibatch(good)
    trainer.train_minibatch(bad)  # nobody looks
    z.parameters[0].value = np.ones((2, 1))
    set_checked_mode(True)
    try:
        trainer.train_minibatch(good)
        with pytest.raises(FloatingPointError, match=rf"Log 'planted' \(test_check.py:{at}\): expected finite values, got nan"):
            trainer.train_minibatch(bad)
        trainer.train_minibatch(good)
    finally:
        set_checked_mode(False)
    set_checked_mode(False)
    with checked(), pytest.raises(FloatingPointError, match="planted"):
        loss.eval(bad)
    with checked(nan=False, inf=True):
        loss.eval(bad)
    loss.eval(bad)


def test_checks_change_no_values():
    C.set_seed(1)
    x = C.sequence.input_variable(3, needs_gradient=True)
    f = C.layers.Sequential([C.layers.Recurrence(C.layers.LSTM(4)), C.layers.Dense(2)])(x)
    data = [np.random.randn(n, 3).astype(F4) for n in (3, 5)]
    plain = [f.eval({x: data}), f.grad({x: data})]
    with checked(inf=True):
        watched = [f.eval({x: data}), f.grad({x: data})]
    for a, b in zip(plain, watched, strict=True):
        for p, q in zip(a, b, strict=True):
            np.testing.assert_array_equal(p, q)
