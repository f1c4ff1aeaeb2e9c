"""Values of nodes and gradients that reach them."""

import numpy as np
import pytest

import cogkit as C
from cogkit.debugging import dump, dump_function, dump_signature

F4 = np.float32


def test_values_and_gradients():
    x, w = C.input_variable(3, name="x"), C.parameter((3, 2), init=C.glorot_uniform(), name="w")
    a = C.times(x, w, name="a")
    b = C.tanh(a, name="b")
    f = C.reduce_sum(b * b, name="f")
    data = np.random.randn(4, 3).astype(F4)
    found = {d.name: d for d in dump(f, {x: data}) if d.name}
    value = data @ w.value
    np.testing.assert_allclose(found["a"].value, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["b"].value, np.tanh(value), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["b"].gradient, 2 * np.tanh(value), rtol=1e-5, atol=1e-6)
    slope = 2 * np.tanh(value) * (1 - np.tanh(value) ** 2)
    np.testing.assert_allclose(found["a"].gradient, slope, rtol=1e-4, atol=1e-5)
    assert (found["f"].gradient == 1).all()
    assert found["b"].where.startswith("test_dump.py:") and found["b"].label == "Tanh"
    assert "Tanh 'b' (test_dump.py:" in str(found["b"]) and "gradient: min" in str(found["b"])


def test_chosen_nodes_inside_blocks_and_sequences():
    x = C.sequence.input_variable(3)
    f = C.layers.Sequential(
        [C.layers.Dense(4, activation=C.relu, name="first"), C.layers.Recurrence(C.layers.LSTM(2), name="second")]
    )(x)
    data = [np.random.randn(n, 3).astype(F4) for n in (3, 1, 2)]
    everything = dump(f, data)
    inner = [d for d in everything if d.path == "first"]
    assert [d.label for d in inner] == ["Times", "Plus", "ReLU"]
    relu, whole = inner[-1], next(d for d in everything if d.name == "first")
    assert [s.shape for s in relu.value] == [(3, 4), (1, 4), (2, 4)] == [s.shape for s in relu.gradient]
    for a, b in zip(relu.value, whole.value, strict=True):
        np.testing.assert_array_equal(a, b)
    (one,) = dump(f, data, ["first"], gradients=False)
    assert one.gradient is None and one.name == "first"
    (same,) = dump(f, data, [f.find_by_name("first")])
    for a, b in zip(one.value, same.value, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="dump.*: expected nodes of the function or their names, got 'third'"):
        dump(f, data, ["third"])


def test_what_is_in_memory_in_another_shape():
    """A product's value is a view, and what reads it reads the memory below; its gradient counts all the same, and only its own."""
    x, w, v = C.input_variable(3), C.parameter((3, 4), init=C.glorot_uniform()), C.parameter((4, 2), init=C.glorot_uniform())
    a = C.times(x, w, name="a")
    r = C.reshape(a, (2, 2), name="r")
    f = C.reduce_sum(C.times(C.reshape(r, 4), v)) + 5 * C.reduce_sum(a)
    data = np.random.randn(2, 3).astype(F4)
    found = {d.name: d.gradient for d in dump(f, {x: data}) if d.name}
    through = np.tile(v.value.sum(1), (2, 1))
    np.testing.assert_allclose(found["r"].reshape(2, 4), through, rtol=1e-5)
    np.testing.assert_allclose(found["a"], through + 5, rtol=1e-5)
    s = C.sequence.input_variable(5)
    e = C.times(s, C.parameter((5, 6), init=C.glorot_uniform()), name="e")
    m = C.layers.Recurrence(C.layers.LSTM(3))(e)
    steps = [np.random.randn(n, 5).astype(F4) for n in (3, 2)]
    (d,) = dump(m, {s: steps}, ["e"])
    cut = C.sequence.input_variable(6, needs_gradient=True)
    slopes = m.clone("share", {e: cut}).grad({cut: d.value}, [cut])
    for g, h in zip(d.gradient, slopes, strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-4, atol=1e-6)


def test_gradients_inside_a_recurrence():
    """Those of the state are those of an input that is added to it."""
    x = C.sequence.input_variable(2, needs_gradient=True)
    p = C.placeholder(shape=(2,))
    h = C.tanh(C.sequence.past_value(p) * 0.5 + x, name="state")
    h.replace_placeholders({p: h.output})
    data = [np.random.randn(n, 2).astype(F4) for n in (4, 2)]
    (state,) = dump(h, {x: data}, ["state"])
    slope = h.grad({x: data})
    for g, y, dx in zip(state.gradient, state.value, slope, strict=True):
        np.testing.assert_allclose(g * (1 - y * y), dx, rtol=1e-4, atol=1e-6)


def test_nothing_is_written():
    x = C.input_variable(3)
    f = C.layers.BatchNormalization()(x)
    before = [p.value for p in f.constants]
    dump(f, {x: np.random.randn(6, 3)})
    for a, p in zip(before, f.constants, strict=True):
        np.testing.assert_array_equal(a, p.value)


def test_a_graph_as_text(capsys):
    x = C.input_variable(3, name="x")
    f = C.layers.Dense(2, name="dense")(x) + 1
    dump_signature(f, "mine")
    assert capsys.readouterr().out.startswith("mine: Plus(x:")
    dump_function(f)
    text = capsys.readouterr().out
    assert "dense/Times" in text and "x: [#](3,)" in text and "W: (3, 2)" in text
    assert text.splitlines()[-1].split()[0] == "Plus"
