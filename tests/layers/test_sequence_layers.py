"""Layers over sequences beside recurrences: generated sequences, delays, windows, attention, convolution over steps, layers side by side."""

import numpy as np
import pytest

import cogkit as C

L = C.layers
F4 = np.float32
LENGTHS = (3, 1, 6, 6)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(F4)


def names(variables):
    return [v.name for v in variables]


@pytest.fixture
def x():
    return C.sequence.input_variable(4, name="x", needs_gradient=True)


@pytest.fixture
def fed():
    return [draw((n, 4), n + k) for k, n in enumerate(LENGTHS)]


def lists(value):
    return [np.asarray(v).tolist() for v in value]


# ------------------------------------------------------------------------------------------------------------ generated sequences
def test_unfold(x, fed):
    double = C.Function(lambda s: s * 2)
    unfold = L.UnfoldFrom(double)
    assert names(unfold.arguments) == ["initial_state", "dynamic_axes_like"] and unfold.name == "unfold_output"
    made = unfold(C.constant(1), x)
    assert made.shape == () and made.dynamic_axes == x.dynamic_axes
    assert lists(made.eval({x: fed})) == [[2, 4, 8], [2], [2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32, 64]]
    pair = L.UnfoldFrom(lambda s: (s + 10, s * 2))(C.constant(1), x)  # output and next state
    assert lists(pair.eval({x: fed}))[0] == [11, 12, 14]
    until = L.UnfoldFrom(double, until_predicate=lambda s: C.greater(s, 7))(C.constant(1), x)
    assert lists(until.eval({x: fed})) == [[2, 4, 8], [2], [2, 4, 8], [2, 4, 8]]
    longer = L.UnfoldFrom(double, length_increase=1.6)(C.constant(1), x)  # rounded up
    assert [len(v) for v in longer.eval({x: fed})] == [5, 2, 10, 10]
    both = L.UnfoldFrom(double, until_predicate=lambda s: C.greater(s, 63), length_increase=1.6, name="both")(C.constant(1), x)
    assert both.name == "both"
    assert lists(both.eval({x: fed})) == [[2, 4, 8, 16, 32], [2, 4], [2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32, 64]]


def test_unfold_from_data(x, fed):
    h = C.input_variable(3, name="h")
    dense = L.Dense(3, activation=C.tanh)
    made = L.UnfoldFrom(dense)(h, x)
    start = draw((4, 3), 9)
    state = start
    value = made.eval({x: fed, h: start})
    for k in range(6):
        state = np.tanh(state @ dense.W.value + dense.b.value)
        for item, n in enumerate(LENGTHS):
            if k < n:
                np.testing.assert_allclose(value[item][k], state[item], rtol=2e-5, atol=2e-6)
    with pytest.raises(
        TypeError, match="expected a generator state -> output or .output, next state., got one of 1 arguments and 3"
    ):
        L.UnfoldFrom(lambda s: (s, s, s))
    with pytest.raises(TypeError, match="got one of 2 arguments and 1 outputs"):
        L.UnfoldFrom(lambda s, t: s + t)


def test_delays(x, fed):
    late = L.Delay(2, name="late")
    assert late.name == "late" and late.root_function.op_name == "Delay" and names(late.arguments) == ["x"]
    early, none = L.Delay(-1, initial_state=0.5), L.Delay(0)
    for rows, a, b, c in zip(fed, *(f(x).eval({x: fed}) for f in (late, early, none)), strict=True):
        np.testing.assert_array_equal(a, np.concatenate([np.zeros((2, 4)), rows])[: len(rows)])
        np.testing.assert_array_equal(b, np.concatenate([rows[1:], np.full((1, 4), 0.5)]))
        np.testing.assert_array_equal(c, rows)
    trigram = L.Sequential([tuple(L.Delay(t) for t in (-1, 0, 1)), C.splice])(x)
    assert trigram.shape == (12,)
    np.testing.assert_array_equal(trigram.eval({x: fed})[0][1], np.concatenate([fed[0][2], fed[0][1], fed[0][0]]))


@pytest.mark.parametrize("back", [False, True])
def test_past_value_window(x, fed, back):
    window = L.PastValueWindow(3, axis=-2, go_backwards=back)
    assert window.root_function.op_name == "PastValueWindow" and len(window.outputs) == 2
    made = window(x)
    assert [v.shape for v in made.outputs] == [(3, 4), (3, 1)]
    value = made.eval({x: fed})
    for k, rows in enumerate(fed):
        seen = rows[:3] if back else rows[::-1][:3]
        want = np.concatenate([seen, np.zeros((3 - len(seen), 4))])
        np.testing.assert_array_equal(value[made.outputs[0]][k], want)
        assert value[made.outputs[1]][k].ravel().tolist() == [1] * len(seen) + [0] * (3 - len(seen))
    # CNTK's shapes for other axes
    shapes = [[v.shape for v in L.PastValueWindow(3, axis)(x).outputs] for axis in (-1, 0, -3)]
    assert shapes == [[(12,), (3,)], [(12,), (3,)], [(3, 1, 4), (3, 1, 1)]]
    with pytest.raises(ValueError, match="expected a window_size of at least 1, got 0"):
        L.PastValueWindow(0, -2)


# ------------------------------------------------------------------------------------------------------------ attention
@pytest.mark.parametrize("stable", [False, True])
def test_attention(x, fed, stable):
    e = C.sequence.input_variable(5, name="e", sequence_axis=C.Axis("e"), needs_gradient=True)
    attend = L.AttentionModel(7, enable_self_stabilization=stable, name="att")
    assert names(attend.arguments) == ["encoder_hidden_state", "decoder_hidden_state"] and attend.name == "att"
    made = attend(e, x)
    assert made.shape == (5,) and made.dynamic_axes == x.dynamic_axes
    order = ["alpha", "W", "alpha", "W", "alpha", "W", "alpha"] if stable else ["W", "W", "W"]
    assert names(made.parameters) == order
    v, of_decoder, of_encoder = (p for p in made.parameters if p.name == "W")
    assert [p.shape for p in (v, of_decoder, of_encoder)] == [(7, 1), (4, 7), (5, 7)]
    encoded = [draw((n, 5), 20 + n) for n in (2, 5, 1, 4)]
    value = made.eval({e: encoded, x: fed})
    for got, rows, states in zip(value, fed, encoded, strict=True):
        for y, row in zip(got, rows, strict=True):  # stabilisers are 1 at first
            scores = np.tanh(row @ of_decoder.value + states @ of_encoder.value) @ v.value
            weights = np.exp(scores - scores.max())
            np.testing.assert_allclose(y, (weights / weights.sum() * states).sum(0), rtol=2e-5, atol=2e-6)
    assert made.attention_weights.shape == (C.FreeDimension, 1)
    gradient = made.grad({e: encoded, x: fed}, wrt=[e, x])
    assert [g.shape for g in gradient[e]] == [(n, 5) for n in (2, 5, 1, 4)]


def test_attention_over_a_window(x, fed):
    e = C.sequence.input_variable(5, name="e", sequence_axis=C.Axis("e"))
    made = L.AttentionModel(7, attention_span=3, attention_axis=-3)(e, x)
    assert made.shape == (1, 1, 5)
    v, of_decoder, of_encoder = (p.value for p in made.parameters if p.name == "W")
    encoded = [draw((n, 5), 20 + n) for n in (2, 5, 1, 4)]
    for got, rows, states in zip(made.eval({e: encoded, x: fed}), fed, encoded, strict=True):
        seen = states[::-1][:3]
        scores = np.tanh(rows[0] @ of_decoder + seen @ of_encoder) @ v
        weights = np.exp(scores - scores.max())
        np.testing.assert_allclose(got[0, 0, 0], (weights / weights.sum() * seen).sum(0), rtol=2e-5, atol=2e-6)
    with pytest.raises(ValueError, match="expected attention_span and attention_axis or neither, got no attention_axis"):
        L.AttentionModel(7, attention_span=3)


def test_attention_inside_a_recurrence(x, fed):
    e = C.sequence.input_variable(5, name="e", sequence_axis=C.Axis("e"))
    attend, cell = L.AttentionModel(7), L.GRU(6)
    decoder = L.Recurrence(C.Function(lambda h, x: cell(h, C.splice(x, attend(e, h)))))(x)
    assert decoder.shape == (6,)
    encoded = [draw((n, 5), 20 + n) for n in (2, 5, 1, 4)]
    together = decoder.eval({e: encoded, x: fed})
    for k in range(4):  # each sequence by itself gives the same
        np.testing.assert_allclose(decoder.eval({e: encoded[k : k + 1], x: fed[k : k + 1]})[0], together[k], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ convolution
def convolved(rows, w, b, pad, stride, dilation=1):
    """One sequence (steps, channels): at each place the window's sum; zeros outside. w (filters, channels, steps)."""
    n, size = len(rows), w.shape[2]
    before = (size - 1) * dilation // 2
    if pad:
        count = -(-n // stride)
        centres = (n - (count - 1) * stride - 1) // 2 + np.arange(count) * stride
    else:
        centres = np.arange(before, n - ((size - 1) * dilation - before), stride)
    out = np.zeros((len(centres), len(w)))
    for i, c in enumerate(centres):
        for k in range(size):
            at = c - before + k * dilation
            if 0 <= at < n:
                out[i] += w[:, :, k] @ rows[at]
    return out + b


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("pad", [False, True])
def test_convolution_over_steps(x, fed, pad, size, stride):
    layer = L.SequentialConvolution(size, 5, pad=pad, strides=stride, init_bias=draw((5,), 3))
    made = layer(x)
    assert made.root_function.op_name == "Convolution" and made.W.shape == (5, 4, size) and made.b.shape == (5,)
    assert made.shape == (5,) and (made.dynamic_axes == x.dynamic_axes) == (stride == 1 and (pad or size == 1))
    for got, rows in zip(made.eval({x: fed}), fed, strict=True):
        want = convolved(rows, made.W.value, made.b.value, pad, stride)
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=2e-5, atol=5e-6)


def test_convolution_over_steps_and_space():
    image = C.sequence.input_variable((2, 5), name="image", needs_gradient=True)
    layer = L.SequentialConvolution((3, 2), 4, pad=True, strides=(1, 2), dilation=(2, 1), bias=False)
    made = layer(image)
    assert made.W.shape == (4, 2, 3, 2) and made.shape == (4, 3)
    rows = draw((6, 2, 5), 1)
    flat = C.input_variable((2, 6, 5))
    w = C.constant(made.W.value)
    want = C.convolution(w, flat, strides=(1, 2), dilation=(2, 1), auto_padding=(True, True)).eval(rows.transpose(1, 0, 2)[None])[
        0
    ]
    np.testing.assert_allclose(made.eval({image: [rows]})[0], want.transpose(1, 0, 2), rtol=2e-5, atol=5e-6)
    gradient = made.grad({image: [rows, rows[:2]]}, wrt=[image, made.W])
    assert [g.shape for g in gradient[image]] == [(6, 2, 5), (2, 2, 5)] and gradient[made.W].shape == (4, 2, 3, 2)


def test_forms_of_sequential_convolution(x, fed):
    number = C.sequence.input_variable(())
    rows = [np.array([2, 6, 4, 8, 6], F4)]
    window = np.array([4, 2, 1], F4)
    plain = L.SequentialConvolution(3, init=window, reduction_rank=0, bias=False)(number)
    np.testing.assert_array_equal(plain.eval({number: rows})[0], [24, 40, 38])
    vector = C.sequence.input_variable(2)  # each element by itself
    mapped = L.Convolution(3, sequential=True, init=window, reduction_rank=0, bias=False)(vector)
    np.testing.assert_array_equal(mapped.eval({vector: [np.stack([rows[0], rows[0] * 2], 1)]})[0], [[24, 48], [40, 80], [38, 76]])
    one_map = L.SequentialConvolution(3, pad=True, name="one")(x)
    assert one_map.shape == () and one_map.W.shape == (1, 4, 3) and one_map.b.shape == (1,) and one_map.name == "one"
    with C.default_options(pad=True, bias=False):
        kept = L.SequentialConvolution(3, 4)(x)
    assert len((x + kept).eval({x: fed})) == 4  # of the same axis: it can be added
    short = L.SequentialConvolution(3, 4)(x).eval({x: fed})
    assert [len(v) for v in short] == [1, 0, 4, 4]
    with pytest.raises(ValueError, match="expected an operand with a sequence axis"):
        L.SequentialConvolution(3, 4)(C.input_variable(4))
    with pytest.raises(ValueError, match=r"expected a kernel \(filters, channels, steps, spatial...\) for steps \(4,\)"):
        L.SequentialConvolution((3, 3, 3), 4)(x)


# ------------------------------------------------------------------------------------------------------------ composition
def test_layers_side_by_side(x, fed):
    forward, backward = L.Recurrence(L.GRU(3)), L.Recurrence(L.GRU(2), go_backwards=True)
    both = L.Sequential([(forward, backward), C.splice])
    assert names(both.arguments) == ["x"]
    made = both(x)
    assert made.shape == (5,)
    parts = forward(x).eval({x: fed}), backward(x).eval({x: fed})
    for got, a, b in zip(made.eval({x: fed}), *parts, strict=True):
        np.testing.assert_array_equal(got, np.concatenate([a, b], 1))
    pair = L.Sequential([(L.Dense(3), L.Dense(2))])(x)
    assert [v.shape for v in pair.outputs] == [(3,), (2,)]
    piped = (L.Dense(3) >> (L.Dense(3), L.Dense(2)) >> C.splice)(x)
    assert piped.shape == (5,)
    stack = L.For(range(2), lambda: [(L.Dense(3), L.Dense(2)), C.splice])(x)
    assert stack.shape == (5,) and len(stack.parameters) == 8
    of_two = L.Sequential([C.plus, L.Dense(2)])  # the first layer's arguments are those of the whole
    assert len(of_two.arguments) == 2 and of_two(x, x).shape == (2,)
    states = L.Sequential([L.Recurrence(L.LSTM(3), return_full_state=True), C.minus])(x)
    assert states.shape == (3,)


def test_forward_declaration(x, fed):
    later = L.ForwardDeclaration("sum")
    total = C.sequence.past_value(later) + x
    later.resolve_to(total)
    for got, rows in zip(total.eval({x: fed}), fed, strict=True):
        np.testing.assert_allclose(got, rows.cumsum(0), rtol=1e-5, atol=1e-6)


def test_functions_inside_functions_keep_what_they_capture(x, fed):
    e = C.sequence.input_variable(5, name="e", sequence_axis=C.Axis("e"))
    attend, cell = L.AttentionModel(7), L.GRU(6)

    @C.Function
    def decoder(encoded, x):  # the step captures a placeholder of the function around it
        return L.Recurrence(C.Function(lambda h, x: cell(h, C.splice(x, attend(encoded, h)))))(x)

    assert sorted(names(decoder.arguments)) == ["encoded", "x"]
    made = decoder(e, x)
    assert {v.uid for v in made.arguments} == {e.uid, x.uid} and made.shape == (6,)
    encoded = [draw((n, 5), 20 + n) for n in (2, 5, 1, 4)]
    direct = L.Recurrence(C.Function(lambda h, x: cell(h, C.splice(x, attend(e, h)))))(x)
    for a, b in zip(made.eval({e: encoded, x: fed}), direct.eval({e: encoded, x: fed}), strict=True):
        np.testing.assert_array_equal(a, b)
