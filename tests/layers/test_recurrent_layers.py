"""Recurrent layers: parameters, names and orders are those that CNTK 2.7 gives for the same lines; values are NumPy's for the written formulas."""

import numpy as np
import pytest

import cogkit as C

L = C.layers
F4 = np.float32
LENGTHS = (3, 1, 6, 6)


def told(variables):
    return [(v.name, *v.shape) for v in variables]


def names(variables):
    return [v.name for v in variables]


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(F4)


@pytest.fixture
def x():
    return C.sequence.input_variable(4, name="x", needs_gradient=True)


@pytest.fixture
def fed():
    return [draw((n, 4), n + k) for k, n in enumerate(LENGTHS)]


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


# ------------------------------------------------------------------------------------------------------------ parameters of steps
STEPS = [  # layer, options, parameters as CNTK lists them, arguments
    ("LSTM", {}, [("b", 20), ("W", 4, 20), ("H", 5, 20)], ["dh", "dc", "x"]),
    ("LSTM", {"cell_shape": 6}, [("P", 6, 5), ("b", 24), ("W", 4, 24), ("H", 5, 24)], ["dh", "dc", "x"]),
    ("LSTM", {"use_peepholes": True}, [("b", 20), ("W", 4, 20), ("H", 5, 20), ("Co", 5), ("Cf", 5), ("Ci", 5)], ["dh", "dc", "x"]),
    ("LSTM", {"enable_self_stabilization": True}, [("b", 20), ("W", 4, 20), ("H", 5, 20), ("alpha",)], ["dh", "dc", "x"]),
    (
        "LSTM",
        {"cell_shape": 6, "use_peepholes": True, "enable_self_stabilization": True},
        [("P", 6, 5), ("alpha",), ("b", 24), ("W", 4, 24), ("H", 5, 24), ("alpha",), ("Co", 6), ("alpha",), ("Cf", 6), ("alpha",), ("Ci", 6)],
        ["dh", "dc", "x"],
    ),
    ("GRU", {}, [("b", 15), ("W", 4, 15), ("H", 5, 10), ("H1", 5, 5)], ["dh", "x"]),
    ("GRU", {"enable_self_stabilization": True}, [("b", 15), ("W", 4, 15), ("H", 5, 10), ("alpha",), ("H1", 5, 5)], ["dh", "x"]),
    ("RNNStep", {}, [("W", 4, 5), ("H", 5, 5), ("b", 5)], ["dh", "x"]),
    (
        "RNNStep",
        {"cell_shape": 6, "enable_self_stabilization": True},
        [("P", 6, 5), ("alpha",), ("W", 4, 6), ("H", 5, 6), ("alpha",), ("b", 6)],
        ["dh", "x"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "options", "parameters", "arguments"), STEPS)
def test_parameters(x, layer, options, parameters, arguments):
    step = getattr(L, layer)(5, **options)
    assert names(step.parameters) == [p[0] for p in parameters]
    assert names(step.arguments) == arguments and step.root_function.op_name == layer
    assert step.W.shape[0] == C.InferredDimension
    run = L.Recurrence(step)(x)
    assert told(run.parameters) == parameters
    assert names(run.arguments) == ["x"] and run.shape == (5,) and run.dynamic_axes == x.dynamic_axes
    assert run.root_function.op_name == "Combine"
    # parameters inside blocks come first among inputs, in the order of the parameters
    assert [v.name for v in run.inputs if v.is_parameter] == [p[0] for p in parameters]


def test_names_options_and_sharing(x):
    with C.default_options(init=0.5, init_bias=0.25, activation=C.relu, enable_self_stabilization=True, use_peepholes=True):
        step = L.LSTM(2, name="cell")
        plain = L.GRU(2, activation=C.tanh, init=0.125, enable_self_stabilization=False)
    assert step.name == "cell" and names(step.outputs) == ["cell", "cell"]
    run = L.Recurrence(step, name="run")(x)
    assert run.name == "run" and run.cell.op_name == "LSTM"
    assert names(step.parameters) == ["b", "W", "H", "alpha", "Co", "alpha", "Cf", "alpha", "Ci"]
    assert (run.W.value == 0.5).all() and (run.b.value == 0.25).all() and (run.Ci.value == 0.5).all()
    run_plain = L.Recurrence(plain)(x)
    assert names(plain.parameters) == ["b", "W", "H", "H1"] and (run_plain.H1.value == 0.125).all()
    again = L.Recurrence(step)(x)  # the same parameters
    assert [p.uid for p in again.parameters] == [p.uid for p in run.parameters]
    y = C.sequence.input_variable(4, name="y")
    assert [p.uid for p in again.clone("share", {x: y}).parameters] == [p.uid for p in run.parameters]
    assert not {p.uid for p in again.clone("clone").parameters} & {p.uid for p in run.parameters}
    assert L.RNNUnit is L.RNNStep


def test_copies_begin_with_the_same_values(x):
    step = L.LSTM(3)
    copied = step.clone("clone")  # before any value, even any shape is known
    one, other = L.Recurrence(step)(x), L.Recurrence(copied)(x)
    for p, q in zip(one.parameters, other.parameters, strict=True):
        assert p.uid != q.uid
        np.testing.assert_array_equal(p.value, q.value)
    assert not np.array_equal(L.Recurrence(L.LSTM(3))(x).W.value, one.W.value)


def test_stabilizer(x):
    layer = L.Stabilizer(name="st")
    assert told(layer.parameters) == [("alpha",)] and names(layer.arguments) == ["x"]
    assert layer.root_function.op_name == "Stabilizer"
    np.testing.assert_allclose(layer.alpha.value, np.log(np.exp(4) - 1) / 4, rtol=1e-6)  # the factor is 1 at first
    np.testing.assert_allclose(L.Stabilizer(steepness=2).alpha.value, np.log(np.exp(2) - 1) / 2, rtol=1e-6)
    layer.alpha.value = 0.3
    row = draw((2, 4))
    np.testing.assert_allclose(layer(C.input_variable(4)).eval(row), row * np.log(1 + np.exp(4 * 0.3)) / 4, rtol=1e-6)
    assert not L.Stabilizer(enable_self_stabilization=False).parameters


# ------------------------------------------------------------------------------------------------------------ values
def set_all(function):
    for k, p in enumerate(function.parameters):
        p.value = draw(p.shape, 50 + k) / 2


def lstm_in_numpy(rows, b, w, h, ci=0, cf=0, co=0, p=None, dh=None, dc=None):
    out, cells = [], len(b) // 4
    dh = np.zeros(h.shape[0]) if dh is None else dh
    dc = np.zeros(cells) if dc is None else dc
    for row in rows:
        i, m, f, o = np.split(b + row @ w + dh @ h, 4)
        dc = sigmoid(f + cf * dc) * dc + sigmoid(i + ci * dc) * np.tanh(m)
        dh = sigmoid(o + co * dc) * np.tanh(dc)
        dh = dh if p is None else dh @ p
        out.append(dh)
    return np.array(out), dc


@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_lstm(x, fed, peepholes, projected, backwards):
    run = L.Recurrence(L.LSTM(5, cell_shape=6 if projected else None, use_peepholes=peepholes), go_backwards=backwards)(x)
    set_all(run)
    own = {p.name.lower(): p.value for p in run.parameters}
    for got, rows in zip(run.eval({x: fed}), fed, strict=True):
        way = slice(None, None, -1) if backwards else slice(None)
        np.testing.assert_allclose(got[way], lstm_in_numpy(rows[way], **own)[0], rtol=2e-5, atol=2e-6)


def test_gru_and_plain_step(x, fed):
    gru, plain = L.Recurrence(L.GRU(3), initial_state=0.5)(x), L.Recurrence(L.RNNStep(3, cell_shape=2), initial_state=0.5)(x)
    set_all(gru)
    set_all(plain)
    b, w, h, h1 = (p.value for p in gru.parameters)
    p, v, u, c = (q.value for q in plain.parameters)
    for got, other, rows in zip(gru.eval({x: fed}), plain.eval({x: fed}), fed, strict=True):
        dh, dr = np.full(3, 0.5), np.full(3, 0.5)
        for y, z, row in zip(got, other, rows, strict=True):
            xs, hs = b + row @ w, dh @ h
            update, reset = sigmoid(xs[:3] + hs[:3]), sigmoid(xs[3:6] + hs[3:])
            dh = (1 - update) * np.tanh(xs[6:] + (dh * reset) @ h1) + update * dh
            dr = sigmoid(row @ v + dr @ u + c) @ p
            np.testing.assert_allclose(y, dh, rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(z, dr, rtol=2e-5, atol=2e-6)


def test_ways_to_say_the_initial_state(x, fed):
    step = L.LSTM(3)
    zero = L.Recurrence(step)(x)
    set_all(zero)
    own = {p.name.lower(): p.value for p in zero.parameters}
    h, c = C.input_variable(3, name="h"), C.input_variable(3, name="c")
    states = draw((4, 3), 7), draw((4, 3), 8)
    told_by_data = L.RecurrenceFrom(step)(h, c, x)
    assert names(told_by_data.arguments) == ["h", "c", "x"]
    captured = L.Recurrence(step, initial_state=(h, c))(x)
    got, again = (f.eval({x: fed, h: states[0], c: states[1]}) for f in (told_by_data, captured))
    for k, rows in enumerate(fed):
        want = lstm_in_numpy(rows, **own, dh=states[0][k], dc=states[1][k])[0]
        np.testing.assert_allclose(got[k], want, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(got[k], again[k])
    number = L.Recurrence(step, initial_state=(0.5, np.array([1, 2, 3], F4)))(x)
    want = lstm_in_numpy(fed[2], **own, dh=np.full(3, 0.5), dc=np.array([1, 2, 3]))[0]
    np.testing.assert_allclose(number.eval({x: fed})[2], want, rtol=2e-5, atol=2e-6)
    with C.default_options(initial_state=0.25, go_backwards=True):
        default = L.Recurrence(step)(x)
    want = lstm_in_numpy(fed[2][::-1], **own, dh=np.full(3, 0.25), dc=np.full(3, 0.25))[0][::-1]
    np.testing.assert_allclose(default.eval({x: fed})[2], want, rtol=2e-5, atol=2e-6)
    # a sequence as initial state: its last step, backwards its first
    t = C.sequence.input_variable(3, name="t", sequence_axis=C.Axis("t"))
    several = [np.concatenate([draw((n, 3), n), states[0][k : k + 1]]) for k, n in enumerate((2, 0, 1, 4))]
    by_sequence = L.RecurrenceFrom(step)(t, c, x).eval({x: fed, t: several, c: states[1]})
    for a, b in zip(by_sequence, got, strict=True):
        np.testing.assert_array_equal(a, b)


def test_full_state_and_fold(x, fed):
    step = L.LSTM(3, cell_shape=2)
    every = L.Recurrence(step, return_full_state=True, name="both")(x)
    set_all(every)
    own = {p.name.lower(): p.value for p in every.parameters}
    assert every.name == "both" and [v.shape for v in every.outputs] == [(3,), (2,)]
    last = L.Fold(step, return_full_state=True)(x)
    one = L.Fold(step)(x)
    assert one.dynamic_axes == last.outputs[1].dynamic_axes == (C.Axis.default_batch_axis(),)
    h, c = every.outputs
    values, ends = every.eval({x: fed}), last.eval({x: fed})
    for k, rows in enumerate(fed):
        want, cell = lstm_in_numpy(rows, **own)
        np.testing.assert_allclose(values[h][k], want, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(values[c][k][-1], cell, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(ends[last.outputs[0]][k], values[h][k][-1])
        np.testing.assert_array_equal(ends[last.outputs[1]][k], values[c][k][-1])
    np.testing.assert_array_equal(one.eval({x: fed}), ends[last.outputs[0]])
    totals = L.Fold(C.plus, go_backwards=True, initial_state=1)(x).eval({x: fed})
    np.testing.assert_allclose(totals, [rows.sum(0) + 1 for rows in fed], rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ steps that a user writes
def test_written_steps(x, fed):
    w = C.parameter((4, 4), init=0.1, name="w")

    def two(a, b, x):
        return C.tanh(C.times(a, w) + x), a * b + x

    run = L.Recurrence(two, return_full_state=True)(x)
    value = run.eval({x: fed})
    a = b = np.zeros(4)
    for k, row in enumerate(fed[2]):
        a, b = np.tanh(a @ w.value + row), a * b + row
        for v, want in zip(run.outputs, (a, b), strict=True):
            np.testing.assert_allclose(value[v][2][k], want, rtol=2e-5, atol=2e-6)
    ignoring = L.Recurrence(lambda before, x: x * 2)(x).eval({x: fed})
    np.testing.assert_array_equal(ignoring[0], fed[0] * 2)
    states = [f"s{k}" for k in range(10)]
    ten = L.RecurrenceFrom(
        eval(f"lambda {', '.join(states)}, x: ({', '.join(s + ' + x' for s in states)})"), return_full_state=True
    )
    assert names(ten.arguments) == [*"hcabdefgij", "x"] and len(ten.outputs) == 10


def test_step_around_other_functions(x, fed):
    gate, dense = L.LSTM(3), L.Dense(3)
    step = C.Function(lambda h, c, x: (lambda r: (dense(r[0]), r[1]))(gate(h, c, x).outputs))
    run = L.Recurrence(step)(x)
    assert run.shape == (3,) and len(run.parameters) == 5
    chain = L.GRU(3) >> dense
    assert names(chain.arguments) == ["dh", "x"] and L.Recurrence(chain)(x).shape == (3,)
    # a step may read values from around it: here the mean of another sequence
    y = C.sequence.input_variable(3, name="y", sequence_axis=C.Axis("other"))
    mean = C.sequence.reduce_sum(y)
    gru = L.GRU(3)
    aware = L.Recurrence(C.Function(lambda h, x: gru(h, C.splice(x, C.sequence.broadcast_as(mean, x)))))(x)
    value = aware.eval({x: fed, y: [draw((n, 3), n) for n in (2, 4, 1, 3)]})
    assert [v.shape for v in value] == [(n, 3) for n in LENGTHS]


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: L.Recurrence(3), TypeError, "Recurrence (FILE): expected a step function (states..., x) -> states, got int"),
        (
            lambda: L.Recurrence(C.Function(lambda h, x, y: h + x + y)),
            TypeError,
            "Recurrence (FILE): expected a step of its states and one input, got one of 3 arguments that gives 1; splice inputs into one",
        ),
        (
            lambda: L.Recurrence(lambda h, x: h + x + C.input_variable(2, name="v")),
            TypeError,
            "Recurrence (FILE): expected a step of its arguments alone, got one that also reads v;"
            " splice it into the input, or decorate the step with @C.Function",
        ),
        (
            lambda: L.Recurrence(lambda h, x: h + x + C.parameter(2, init=0, name="p")),
            TypeError,
            "Recurrence (FILE): expected a step that makes no parameters, got one that makes p at each call;"
            " make layers and parameters before it",
        ),
        (
            lambda: L.Recurrence(L.LSTM(3), initial_state=(1, 2, 3)),
            ValueError,
            "Recurrence (FILE): expected one initial_state for all or 2 in a tuple, got 3",
        ),
        (
            lambda: L.Fold(eval(f"lambda {', '.join(f's{k}' for k in range(11))}, x: ({', '.join(f's{k} + x' for k in range(11))})")),
            ValueError,
            "Fold (FILE): expected a step of at most 10 states, got 11; splice states into one",
        ),
        (lambda: L.LSTM((2, 3)), ValueError, "LSTM (FILE): expected shape to be one size, got (2, 3); a state is a vector"),
        (lambda: L.RNNStep(3, cell_shape=0), ValueError, "RNNStep (FILE): expected cell_shape to be one size, got 0; a state is a vector"),
        (
            lambda: L.GRU(3, cell_shape=4),
            ValueError,
            "GRU (FILE): expected cell_shape as shape 3, got 4; the new state is mixed with the one before it",
        ),
    ],
)  # fmt: skip
def test_errors(make, kind, words):
    with pytest.raises(kind) as e:
        make()
    line = make.__code__.co_firstlineno
    head, rest = str(e.value).split(" (", 1)
    place, rest = rest.split(")", 1)
    file, at = place.split(":")
    assert file == "test_recurrent_layers.py" and line <= int(at) <= line + 2
    assert f"{head} (FILE){rest}" == words


def test_no_sequence_is_an_error_that_names_the_way_out():
    with pytest.raises(ValueError, match="expected an operand with a sequence axis.*C.sequence.input_variable"):
        L.Recurrence(L.GRU(3))(C.input_variable(4))


# ------------------------------------------------------------------------------------------------------------ training
def test_a_tagger_learns():
    """The output repeats the input of two steps ago: only a recurrent network can know it."""
    C.set_seed(3)
    rng = np.random.default_rng(0)
    x, y = C.sequence.input_variable(5), C.sequence.input_variable(5)
    z = L.Sequential([L.Recurrence(L.LSTM(24)), L.Dense(5)])(x)
    loss, error = C.cross_entropy_with_softmax(z, y), C.classification_error(z, y)
    trainer = C.Trainer(z, (loss, error), [C.adam(z.parameters, 1.0, 0.9)])
    for _ in range(130):
        tags = [rng.integers(5, size=rng.integers(3, 12)) for _ in range(16)]
        late = [np.concatenate([[0, 0], t[:-2]]) for t in tags]
        one_hot = np.eye(5, dtype=F4)
        trainer.train_minibatch({x: [one_hot[t] for t in tags], y: [one_hot[t] for t in late]})
    assert trainer.previous_minibatch_evaluation_average < 0.1  # 0.8 by chance
