"""Laws of graphs over sequences: engines agree, gradients are slopes, a sequence does not know its neighbours."""

import re

import numpy as np
import pytest
from engine.kernels import threads

import cogkit as C
from cogkit.engine import use_engine
from cogkit.engine.executable import Executable
from cogkit.layers import GRU, LSTM, Dense, Recurrence, RNNStep

S = C.sequence
BATCHES = {"mixed": [3, 1, 5, 2], "equal": [4, 4, 4], "alone": [6], "long": [2, 40, 1]}


def weights(shape, seed, dtype):
    return C.parameter(init=(np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(dtype))


def closed(build):
    """A recurrence: build(h) with h the value itself."""
    h = C.placeholder()
    f = build(h)
    return f.replace_placeholders({h: f.output})


def hand_written(x, b, d):
    w, r = weights((2, 3), 0, d), weights((3, 3), 1, d)
    return closed(lambda h: C.tanh(C.times(x, w) + C.times(S.past_value(h), r)))


def backwards(x, b, d):
    w, r = weights((2, 3), 0, d), weights((3, 3), 1, d)
    return closed(lambda h: C.sigmoid(C.times(x, w) + C.times(S.future_value(h, 0.3), r)))


def both_ways(x, b, d):
    return C.splice(hand_written(x, b, d), backwards(x, b, d))


def delay_of_two(x, b, d):
    r = weights((2, 2), 1, d)
    return closed(lambda h: x + C.times(C.tanh(S.past_value(h, C.constant(np.array([0.1, -0.2], d)), 2)), r))


def fibonacci(x, b, d):
    return closed(lambda h: C.tanh(x + 0.5 * S.past_value(h) + 0.25 * S.past_value(S.past_value(h, 1.0))))


def two_states(x, b, d):
    r, q = weights((2, 2), 1, d), weights((2, 2), 2, d)
    h, c = C.placeholder(), C.placeholder()
    new_c = C.sigmoid(x + C.times(S.past_value(h), r)) * S.past_value(c, 0.5) + x
    new_h = C.tanh(C.times(new_c, q)) * x
    f = C.combine([new_h, new_c])
    f.replace_placeholders({h: new_h.output, c: new_c.output})
    return C.splice(f.outputs[0], f.outputs[1])


def state_of_the_batch(x, b, d):
    return closed(lambda h: C.tanh(x + S.past_value(h, b) * 0.7))


def loop_over_loop(x, b, d):
    return closed(lambda h: C.tanh(hand_written(x, b, d) * 0.5 + S.past_value(h) * S.past_value(hand_written(x, b, d), 0.2, 3)))


def image_state(x, b, d):
    w = weights((1, 1, 3), 3, d)
    y = C.reshape(x, (1, 2))
    return closed(lambda h: C.tanh(y + C.convolution(w, S.past_value(h), auto_padding=[False, True])))


def reshaped_state(x, b, d):
    return closed(lambda h: C.reshape(C.tanh(C.reshape(x + S.past_value(h), (2, 1))), (2,)))


def steps_picked(x, b, d):
    c = C.greater(C.slice(x, 0, 0, 1), 0)
    return S.scatter(S.gather(x, c) * S.gather(x, c), c) + S.past_value(x) * S.is_last(x) + S.softmax(x)


def sums_and_cuts(x, b, d):
    return (
        S.reduce_sum(x) * b + S.reduce_max(x * x) + S.first(S.slice(x, 0, 2)) + S.last(S.future_value(x, b, 2)) + S.reduce_min(x)
    )


def repeated(x, b, d):
    return C.times(x, weights((2, 2), 0, d)) * S.broadcast_as(S.last(x) + b, x)


def attention(x, b, d):
    values, valid = S.unpack(x, 0).outputs
    w = C.exp(C.reduce_sum(values * b, axis=1)) * C.reshape(valid, (-1, 1))
    return C.reduce_sum(values * w / C.reduce_sum(w, axis=0), axis=0)


def unpacked_and_back(x, b, d):
    return C.to_sequence_like(C.tanh(S.unpack(x, 0, True)), x) * x


def lstm(x, b, d):
    with C.default_options(dtype=d):
        return Dense(2)(Recurrence(LSTM(3, use_peepholes=True, enable_self_stabilization=True))(x))


def deep(x, b, d):
    with C.default_options(dtype=d):
        return Recurrence(RNNStep(2), go_backwards=True)(Recurrence(GRU(3))(x))


GRAPHS = [hand_written, backwards, both_ways, delay_of_two, fibonacci, two_states, state_of_the_batch, loop_over_loop, image_state,
          reshaped_state, steps_picked, sums_and_cuts, repeated, attention, unpacked_and_back, lstm, deep]  # fmt: skip
DTYPES = {"f4": np.float32, "f8": np.float64}


def made(build, dtype):
    C.set_seed(7)
    x = S.input_variable(2, dtype=dtype, needs_gradient=True, name="x")
    b = C.input_variable(2, dtype=dtype, needs_gradient=True, name="b")
    f = build(x, b, dtype)
    return f, x, b


def data(lengths, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, 2)).astype(dtype) for n in lengths], rng.standard_normal((len(lengths), 2)).astype(dtype)


def fed(f, x, b, xs, bs):
    return {v: a for v, a in ((x, xs), (b, bs)) if v in f.arguments}


def flat(values):
    return [np.concatenate([a.ravel() for a in v]) if isinstance(v, list) else np.asarray(v) for v in values]


def results(f, x, b, feed, engine="cpu"):
    """Values and gradients of the sum of their sines."""
    loss = C.reduce_sum(C.sin(f), axis=C.Axis.all_axes())
    wrt = [v for v in (x, b) if v in f.arguments] + list(f.parameters)
    return Executable([f.output, loss.output], roots=loss.output, wrt=wrt, training=True, engine=engine).run(feed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("build", GRAPHS, ids=lambda g: g.__name__)
def test_engines_agree(build, lengths, dtype):
    f, x, b = made(build, DTYPES[dtype])
    feed = fed(f, x, b, *data(BATCHES[lengths], DTYPES[dtype]))
    want, got = results(f, x, b, feed, "reference"), results(f, x, b, feed)
    tight = 2e-5 if dtype == "f4" else 1e-11
    for w, g in zip(flat(want), flat(got), strict=True):
        np.testing.assert_allclose(g, w, rtol=tight, atol=tight * max(1, np.abs(w).max(initial=0)))


@pytest.mark.parametrize("build", GRAPHS, ids=lambda g: g.__name__)
def test_gradients_are_slopes(build):
    f, x, b = made(build, np.float64)
    xs, bs = data([3, 1, 4], np.float64)
    names = [v for v in (x, b) if v in f.arguments]
    _, _, *gradients = results(f, x, b, fed(f, x, b, xs, bs))
    e = 1e-6

    def loss():
        return float(results(f, x, b, fed(f, x, b, xs, bs))[1])

    places = [(s, g) for v, gs in zip(names, gradients, strict=False) for s, g in zip(xs if v is x else bs, gs, strict=True)]
    places += [(p.data, g) for p, g in zip(f.parameters, gradients[len(names) :], strict=True)]
    for array, gradient in places:
        at = tuple(n // 2 for n in array.shape)
        before = array[at]
        array[at] = before + e
        up = loss()
        array[at] = before - e
        down = loss()
        array[at] = before
        np.testing.assert_allclose(gradient[at], (up - down) / (2 * e), rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda g: g.__name__)
def test_a_sequence_does_not_know_its_neighbours(build):
    """The value of a sequence in a minibatch is its value alone, wherever it stands; parameters' gradients are the sums."""
    f, x, b = made(build, np.float64)
    lengths = [3, 1, 5, 2, 5]
    xs, bs = data(lengths, np.float64)
    together = results(f, x, b, fed(f, x, b, xs, bs))
    order = [4, 2, 0, 3, 1]
    moved = results(f, x, b, fed(f, x, b, [xs[i] for i in order], bs[order]))
    alone = [results(f, x, b, fed(f, x, b, [xs[i]], bs[i : i + 1])) for i in range(len(xs))]
    inputs = 2 + sum(v in f.arguments for v in (x, b))
    for k, value in enumerate(together):
        if k != 1 and k < inputs:  # one a sequence
            for i in range(len(xs)):
                np.testing.assert_allclose(value[i], alone[i][k][0], rtol=1e-10, atol=1e-12)
            for place, i in enumerate(order):
                np.testing.assert_allclose(moved[k][place], value[i], rtol=1e-10, atol=1e-12)
        else:
            np.testing.assert_allclose(value, sum(a[k] for a in alone), rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(moved[k], value, rtol=1e-10, atol=1e-12)


# the gradient of oneDNN's convolution weights depends on the number of threads
@pytest.mark.parametrize("build", [g for g in GRAPHS if g is not image_state], ids=lambda g: g.__name__)
def test_same_bits_for_any_number_of_threads(build):
    f, x, b = made(build, np.float32)
    feed = fed(f, x, b, *data([30, 1, 70, 20, 70, 44, 3], np.float32))
    with threads(1):
        one = results(f, x, b, feed)
    with threads(2):
        two = results(f, x, b, feed)
    assert all((p == q).all() for p, q in zip(flat(one), flat(two), strict=True))


@pytest.mark.parametrize("build", [g for g in GRAPHS if g not in (attention, unpacked_and_back)], ids=lambda g: g.__name__)
def test_other_lengths_are_not_lowered_again(build):
    f, x, b = made(build, np.float32)
    loss = C.reduce_sum(f, axis=C.Axis.all_axes())
    e = Executable(roots=loss.output, wrt=list(f.parameters) or [x], training=True)
    for n in range(1, 12):
        e.run(fed(f, x, b, *data([n, 1, 2 * n], np.float32)))
    assert len(e._plans) == 1


def test_plans_of_shapes_that_follow_the_longest_sequence_are_kept_by_it():
    f, x, b = made(attention, np.float32)
    e = Executable([f.output])
    for lengths in ([3, 1], [3, 3], [5], [5, 2], [3, 2]):
        e.run(fed(f, x, b, *data(lengths, np.float32)))
    assert len(e._plans) == 2


@pytest.mark.parametrize("engine", ["cpu", "reference"])
@pytest.mark.parametrize("build", [hand_written, delay_of_two, two_states, lstm, deep], ids=lambda g: g.__name__)
def test_sequences_in_pieces_are_the_whole(build, engine):
    """Pieces that go on where the ones before ended give what the whole sequences do (forward recurrences)."""
    C.set_seed(7)
    x, b = S.input_variable(2, needs_gradient=True), C.input_variable(2)
    with C.default_options(go_backwards=False):
        f = Recurrence(GRU(3))(x) if build is deep else build(x, b, np.float32)
    xs, _ = data([9, 7], np.float32)
    with use_engine(engine):
        whole = f.eval({x: xs})
        at, found = [0, 0], [[], []]
        for n in (2, 1, 3, 1):
            piece = [s[i : i + n] for s, i in zip(xs, at, strict=True)]
            for k, y in enumerate(f.eval({x: (piece, [i == 0 for i in at])})):
                found[k].append(y)
            at = [i + n for i in at]
        again = f.eval({x: ([s[:2] for s in xs], [True, True])})
    for k in range(2):
        np.testing.assert_allclose(np.concatenate(found[k]), whole[k][: at[k]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(again[k], whole[k][:2], rtol=1e-5, atol=1e-6)


def test_a_sequence_goes_on_only_where_there_was_one():
    x = S.input_variable(2)
    f = S.past_value(x)
    with pytest.raises(ValueError, match="expected as many as before where one goes on, got 1, and none before"):
        f.eval({x: ([np.ones((2, 2), np.float32)], [False])})


def test_explain_of_row_spaces_that_are_made_while_it_runs():
    x = C.sequence.input_variable(3)
    f = C.sequence.reduce_sum(C.sequence.slice(x, 1, 3))
    assert "fold_steps" in f.explain()
    text = f.explain({x: [np.ones((4, 3), np.float32), np.ones((2, 3), np.float32)]})
    assert re.search(r"\[#, \*\] = 6, .*fixedSliceOf_\d+\] = 3", text.splitlines()[0])
