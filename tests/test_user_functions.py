"""Ops of the user's own, in Python: what they are given and give, where they stand, what goes wrong, files."""

import gc
import weakref

import numpy as np
import pytest

import cogkit as C
from cogkit.errors import ModelFileError, UserFunctionError

ENGINES = ["cpu", "reference"]
F4, F8 = np.float32, np.float64


def like(x, **changes):
    """An output like an input."""
    return C.output_variable(
        changes.get("shape", x.shape), x.dtype, changes.get("axes", x.dynamic_axes), **changes.get("more", {})
    )


def each(f, *values):
    """f of arrays, or of each sequence."""
    if isinstance(values[0], list):
        return [f(*v) for v in zip(*values, strict=True)]
    return f(*values)


class Unary(C.UserFunction):
    """Base of ops of one input and one output of the same type; notes its calls."""

    def __init__(self, x, name=""):
        super().__init__([x], name=name)
        self.calls = []

    def infer_outputs(self):
        return [like(self.inputs[0])]


class Sigmoid(Unary):
    def forward(self, argument, device=None, outputs_to_retain=None):
        self.calls.append(("forward", argument))
        y = each(lambda v: 1 / (1 + np.exp(-v)), argument)
        return y, y

    def backward(self, state, root_gradients):
        self.calls.append(("backward", root_gradients))
        return each(lambda y, g: g * y * (1 - y), state, root_gradients)


class Blend(C.UserFunction):
    """a + 2 b, 2 a + b, of two inputs."""

    def __init__(self, a, b, name=""):
        super().__init__([a, b], name=name)

    def infer_outputs(self):
        return [like(self.inputs[0], more={"name": "first"}), like(self.inputs[0], more={"name": "second"})]

    def forward(self, arguments, outputs, device=None, outputs_to_retain=None):
        a, b = arguments
        outputs[self.outputs[0]] = each(lambda p, q: p + 2 * q, a, b)
        outputs[self.outputs[1]] = each(lambda p, q: 2 * p + q, a, b)

    def backward(self, state, root_gradients, variables):
        g, h = (root_gradients[v] for v in self.outputs)
        a, b = self.inputs

        def sums(i, j):
            if g is None or h is None:
                only, k = (g, i) if h is None else (h, j)
                return each(lambda p: k * p, only)
            return each(lambda p, q: i * p + j * q, g, h)

        if a in variables:
            variables[a] = sums(1, 2)
        if b in variables:
            variables[b] = sums(2, 1)


class Plus(C.UserFunction):
    """x + w, w being the same for all samples."""

    def __init__(self, x, w, name=""):
        super().__init__([x, w], name=name)

    def infer_outputs(self):
        return [like(self.inputs[0])]

    def forward(self, arguments, device=None, outputs_to_retain=None):
        x, w = arguments
        return None, each(lambda v: v + w, x)

    def backward(self, state, root_gradients, variables):
        x, w = self.inputs
        if x in variables:
            variables[x] = root_gradients
        if w in variables:
            whole = root_gradients if isinstance(root_gradients, np.ndarray) else np.concatenate(root_gradients)
            variables[w] = whole.sum(0)


def feeds(x):
    """Data for an input, by its row space."""
    rng = np.random.RandomState(1)
    if not x.dynamic_axes:
        return rng.randn(*x.shape).astype(x.dtype)
    if len(x.dynamic_axes) == 1:
        return rng.randn(5, *x.shape).astype(x.dtype)
    return [rng.randn(n, *x.shape).astype(x.dtype) for n in (3, 1, 4, 2)]


def close(a, b, tolerance=1e-5):
    if isinstance(a, list):
        assert len(a) == len(b)
        for p, q in zip(a, b, strict=True):
            close(p, q, tolerance)
        return
    assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


INPUTS = {
    "none": lambda dtype: C.input_variable(3, dtype=dtype, dynamic_axes=[], needs_gradient=True),
    "batch": lambda dtype: C.input_variable((3, 2), dtype=dtype, needs_gradient=True),
    "number": lambda dtype: C.input_variable((), dtype=dtype, needs_gradient=True),
    "sequence": lambda dtype: C.sequence.input_variable(3, dtype=dtype, needs_gradient=True),
}


# --------------------------------------------------------------------------------------------------- values and gradients
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_one_input(kind, dtype, engine):
    with C.device.use_engine(engine):
        x = INPUTS[kind](dtype)
        data = feeds(x)
        mine, theirs = (C.element_times(f * 2, x) for f in (C.user_function(Sigmoid(C.tanh(x))), C.sigmoid(C.tanh(x))))
        assert mine.dtype == dtype
        close(mine.eval({x: data}), theirs.eval({x: data}))
        close(mine.grad({x: data}), theirs.grad({x: data}))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["batch", "sequence"])
def test_several_outputs(kind, engine):
    with C.device.use_engine(engine):
        x, y = INPUTS[kind](F4), INPUTS[kind](F4)
        data = {x: feeds(x), y: each(lambda v: v * 3, feeds(y))}
        f = C.user_function(Blend(x, y))
        assert [v.name for v in f.outputs] == ["first", "second"]
        found = f.eval(data)
        close(found[f.outputs[0]], each(lambda a, b: a + 2 * b, data[x], data[y]))
        for parts, i, j in (((0, 1), 3 + 4, 6 + 2), ((0,), 3, 6), ((1,), 4 * 1, 2)):
            total = sum(w * f.outputs[k] for k, w in ((0, 3.0), (1, 2.0)) if k in parts)
            slopes = total.grad(data, [x, y])
            close(slopes[x], each(lambda v, i=i: np.full_like(v, i), data[x]))
            close(slopes[y], each(lambda v, j=j: np.full_like(v, j), data[y]))


def test_an_operand_without_rows():
    x, w = INPUTS["sequence"](F4), C.parameter(3, init=[1, 2, 3])
    data = feeds(x)
    f, g = C.user_function(Plus(x, w)), x + w
    close(f.eval({x: data}), g.eval({x: data}))
    for mine, theirs in zip(f.grad({x: data}, [x, w]).values(), g.grad({x: data}, [x, w]).values(), strict=True):
        close(mine, theirs)


def test_what_it_is_given():
    x = INPUTS["sequence"](F4)
    op = Sigmoid(x)
    C.user_function(op).grad({x: feeds(x)})
    (_, argument), (_, root) = op.calls
    for given in (argument, root):
        assert [s.shape for s in given] == [(3, 3), (1, 3), (4, 3), (2, 3)]
    close(argument, feeds(x))
    retained = []

    class Noting(Sigmoid):
        def forward(self, argument, device, outputs_to_retain):
            retained.append(list(outputs_to_retain))
            return super().forward(argument)

    f = C.user_function(Noting(x))
    f.eval({x: feeds(x)})
    f.grad({x: feeds(x)})
    assert retained == [[], [f.output]]  # what is kept for the backward pass


def test_arguments_are_the_functions_own():
    """They may be kept: no later run changes them."""
    x = INPUTS["batch"](F4)
    op = Sigmoid(x)
    f = C.user_function(op) + 1
    f.eval({x: np.zeros((5, 3, 2), F4)})
    f.eval({x: np.ones((5, 3, 2), F4)})
    assert not op.calls[0][1].any() and op.calls[1][1].all()


@pytest.mark.parametrize("state", [None, 7, ("a", 2), (), {"k": [1]}, np.ones(3)])
def test_the_state_comes_back_as_it_is(state):
    class Keeps(Unary):
        def forward(self, argument, device=None, outputs_to_retain=None):
            return state, argument

        def backward(self, given, root_gradients):
            assert given is state
            return root_gradients

    x = INPUTS["batch"](F4)
    close(C.user_function(Keeps(x)).grad({x: feeds(x)}), np.ones((5, 3, 2)))


def test_states_are_let_go():
    kept = []

    class Keeps(Unary):
        def forward(self, argument, device=None, outputs_to_retain=None):
            class State:
                pass

            state = State()
            kept.append(weakref.ref(state))
            return state, argument

        def backward(self, state, root_gradients):
            return root_gradients

    x = INPUTS["batch"](F4)
    f = C.user_function(Keeps(x))
    f.eval({x: feeds(x)})
    f.grad({x: feeds(x)})
    gc.collect()
    assert [r() for r in kept] == [None, None]


def test_no_gradient_through_an_output_that_wants_none():
    class Closed(Sigmoid):
        def infer_outputs(self):
            return [like(self.inputs[0], more={"needs_gradient": False})]

        def backward(self, state, root_gradients):
            raise AssertionError("not to be called")

    x = INPUTS["batch"](F4)
    f = C.user_function(Closed(x))
    assert not f.output.needs_gradient
    close((f + x).grad({x: feeds(x)}), np.ones((5, 3, 2)))


def test_gradients_that_are_left_out_are_zeros():
    class Half(Plus):
        def backward(self, state, root_gradients, variables):
            variables[self.inputs[0]] = root_gradients

    x, y = INPUTS["batch"](F4), INPUTS["batch"](F4)

    class Sum(Half):
        def forward(self, arguments, device=None, outputs_to_retain=None):
            return None, arguments[0] + arguments[1]

    slopes = C.user_function(Sum(x, y)).grad({x: feeds(x), y: feeds(y)}, [x, y])
    assert slopes[x].all() and not slopes[y].any()


def test_one_row_space_to_another():
    """Sequences to one row a sequence, and to none."""

    class Last(Unary):
        def infer_outputs(self):
            return [like(self.inputs[0], axes=[C.Axis.default_batch_axis()])]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return [len(s) for s in argument], [s[-1] for s in argument]

        def backward(self, lengths, root_gradients):
            return [np.concatenate([np.zeros((n - 1, 3), F4), g[None]]) for n, g in zip(lengths, root_gradients, strict=True)]

    class Total(Unary):
        def infer_outputs(self):
            return [like(self.inputs[0], axes=[])]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return argument.shape[0], argument.sum(0)

        def backward(self, n, root_gradients):
            return np.tile(root_gradients, (n, 1))

    x = INPUTS["sequence"](F4)
    mine, theirs = (f * [1, 2, 3] for f in (C.user_function(Last(x)), C.sequence.last(x)))
    close(mine.eval({x: feeds(x)}), theirs.eval({x: feeds(x)}))
    close(mine.grad({x: feeds(x)}), theirs.grad({x: feeds(x)}))
    b = C.input_variable(3, needs_gradient=True)
    f = C.user_function(Total(b)) * [1, 2, 3]
    assert not f.dynamic_axes
    close(f.eval({b: np.ones((4, 3), F4)}), np.array([4, 8, 12], F4))
    close(f.grad({b: np.ones((4, 3), F4)}), np.tile(np.array([1, 2, 3], F4), (4, 1)))


def test_values_instead_of_arrays():
    inner = C.sequence.input_variable(3)
    graph = inner * 2

    class Twice(C.UserFunction):
        def __init__(self, x, name=""):
            super().__init__([x], as_numpy=False, name=name)

        def infer_outputs(self):
            return [like(self.inputs[0])]

        def forward(self, argument, device=None, outputs_to_retain=None):
            assert isinstance(argument, C.Value)
            return None, graph.eval({inner: argument}, as_numpy=False)

        def backward(self, state, root_gradients):
            assert isinstance(root_gradients, C.Value)
            return graph.eval({inner: root_gradients}, as_numpy=False)

    x = INPUTS["sequence"](F4)
    f = C.user_function(Twice(x))
    close(f.eval({x: feeds(x)}), [2 * s for s in feeds(x)])
    close(f.grad({x: feeds(x)}), [np.full_like(s, 2) for s in feeds(x)])


# ----------------------------------------------------------------------------------------------------------- free sizes
class Repeat(Unary):
    """Each row as often as its first number says; the shape follows from the data."""

    def infer_outputs(self):
        return [like(self.inputs[0], shape=(C.FreeDimension,))]

    def forward(self, argument, device=None, outputs_to_retain=None):
        n = int(argument[0, 0])
        return n, np.tile(argument, (1, n))

    def backward(self, n, root_gradients):
        return root_gradients.reshape(len(root_gradients), n, -1).sum(1)


def test_sizes_that_only_a_run_says():
    x = C.input_variable(2, needs_gradient=True)
    f = C.user_function(Repeat(x)) * 3
    assert f.shape == (C.FreeDimension,)
    for n in (2, 1, 3, 2, 3):
        data = np.array([[n, 5], [7, 8]], F4)
        close(f.eval({x: data}), 3 * np.tile(data, (1, n)))
        close(f.grad({x: data}), np.full((2, 2), 3 * n, F4))


def test_a_run_that_is_broken_off_writes_nothing():
    x, seen = C.input_variable(2), C.constant(0.0, (), name="seen")
    counted = C.assign(seen, seen + 1)
    f = C.combine(counted, C.user_function(Repeat(x)))
    for n in (1, 3, 2):
        f.eval({x: np.array([[n, 5]], F4)})
    assert seen.value == 3


def test_no_size_at_all():
    x = C.input_variable(2, needs_gradient=True)
    f = C.reduce_sum(C.user_function(Repeat(x)))
    assert f.eval({x: np.array([[0, 5], [7, 8]], F4)}).tolist() == [0, 0]
    assert f.eval({x: np.array([[1, 5], [7, 8]], F4)}).tolist() == [6, 15]


def test_training_with_free_sizes():
    x, w = C.input_variable(2), C.parameter((2,), init=1)
    z = C.reduce_sum(C.user_function(Repeat(x * w + 0.5)))
    trainer = C.Trainer(z, z, [C.sgd(z.parameters, 1e-6)])
    for n in (2, 1, 3):
        trainer.train_minibatch({x: np.array([[n, 5], [7, 8]], F4)})
        assert trainer.previous_minibatch_loss_average == pytest.approx(n * (n + 5 + 7 + 8 + 2) / 2, rel=1e-4)


def test_a_size_that_never_stays():
    class Grows(Repeat):
        def forward(self, argument, device=None, outputs_to_retain=None):
            self.calls.append(None)
            return 1, np.zeros((len(argument), 1 + len(self.calls)))

    f = C.user_function(Grows(C.input_variable(2), "grows"))
    with pytest.raises(ValueError, match="'grows' .*: expected a result of the same shape for the same inputs, got 8 others"):
        f.eval(np.ones((1, 2)))


def test_free_sizes_of_inputs():
    x = C.input_variable((C.FreeDimension, 2), needs_gradient=True)
    f = C.user_function(Sigmoid(x))
    for n in (3, 1, 4):
        data = np.random.randn(2, n, 2).astype(F4)
        close(f.eval({x: data}), C.sigmoid(x).eval({x: data}))
        close(f.grad({x: data}), C.sigmoid(x).grad({x: data}))


# -------------------------------------------------------------------------------------------------------------- in loops
def recurrence(x, op, back=False):
    """h(t) = 0.5 op(h(t-1) + x(t)) + x(t)"""
    p = C.placeholder(shape=x.shape)
    before = (C.sequence.future_value if back else C.sequence.past_value)(p)
    h = 0.5 * op(before + x) + x
    h.replace_placeholders({p: h.output})
    return h


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("back", [False, True])
def test_in_a_recurrence(back, engine):
    with C.device.use_engine(engine):
        x = INPUTS["sequence"](F4)
        mine, theirs = (recurrence(x, op, back) for op in (lambda v: C.user_function(Sigmoid(v)), C.sigmoid))
        for data in (feeds(x), feeds(x)[:2], feeds(x)[1:2]):
            close(mine.eval({x: data}), theirs.eval({x: data}))
            close(mine.grad({x: data}), theirs.grad({x: data}))


def test_a_step_of_a_recurrence_is_a_step_of_each_sequence():
    x = INPUTS["sequence"](F4)
    op = []

    def made(v):
        op.append(Sigmoid(v))
        return C.user_function(op[0])

    recurrence(x, made).grad({x: feeds(x)})
    names = [name for name, _ in op[0].calls]
    assert names == ["forward"] * 4 + ["backward"] * 4  # the longest sequence has four steps
    assert [[s.shape for s in v] for _, v in op[0].calls] == [[(1, 3)] * n for n in (4, 3, 2, 1, 1, 2, 3, 4)]


def test_an_operand_of_other_rows_in_a_recurrence():
    class Sum(Plus):
        def forward(self, arguments, device=None, outputs_to_retain=None):
            return None, [a + b for a, b in zip(*arguments, strict=True)]

        def backward(self, state, root_gradients, variables):
            for v in variables:
                variables[v] = root_gradients

    x, b = INPUTS["sequence"](F4), C.input_variable(3)
    data = {x: feeds(x), b: np.random.RandomState(5).randn(4, 3).astype(F4)}
    with pytest.raises(
        ValueError, match=r"an operand over \[#\] in a cycle over \[#, \*\]; repeat it at every step with C.sequence"
    ):
        recurrence(x, lambda v: C.user_function(Sum(v, b))).eval(data)
    spread = C.sequence.broadcast_as(b, x)
    mine, theirs = (recurrence(x, op) for op in (lambda v: C.user_function(Sum(v, spread)), lambda v: v + spread))
    close(mine.eval(data), theirs.eval(data))
    close(mine.grad(data, [x]), theirs.grad(data, [x]))


def test_two_threads():
    """Each waits for the other's plan, none for the other's interpreter."""
    import threading

    x = INPUTS["batch"](F4)
    f = C.user_function(Sigmoid(x)) * 2
    want, found = f.eval({x: feeds(x)}), []

    def work():
        for _ in range(50):
            found.append(f.eval({x: feeds(x)}))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not any(t.is_alive() for t in threads) and len(found) == 150
    for y in found:
        np.testing.assert_array_equal(y, want)


def test_an_error_in_a_recurrence():
    class Breaks(Sigmoid):
        def forward(self, argument, *rest):
            if len(argument) == 2:
                raise KeyError("two")
            return super().forward(argument)

    x = INPUTS["sequence"](F4)
    f = recurrence(x, lambda v: C.user_function(Breaks(v, "broken")))
    with pytest.raises(UserFunctionError, match="'broken'.*got KeyError: 'two'"):
        f.eval({x: feeds(x)})
    close(f.eval({x: feeds(x)[:1]}), recurrence(x, C.sigmoid).eval({x: feeds(x)[:1]}))  # the plan is as good as before


# ------------------------------------------------------------------------------------------------- where it stands in a graph
def test_placeholders_clones_blocks_and_names():
    x, p = C.input_variable(3, needs_gradient=True, name="x"), C.placeholder()
    f = C.user_function(Sigmoid(p, "mine")) + 1
    f.replace_placeholder(x)
    data = np.random.randn(4, 3).astype(F4)
    close(f.eval({x: data}), C.sigmoid(x).eval({x: data}) + 1)
    g = f.clone("clone")
    close(g.eval(data), f.eval({x: data}))
    assert g.find_by_name("mine") is not None and g.find_by_name("mine").root.function is not f.find_by_name("mine").root.function

    @C.Function
    def twice(a):
        return C.user_function(Sigmoid(a)) * 2

    y = C.input_variable(3)
    close(twice(y).eval(data), 2 * C.sigmoid(y).eval(data))
    block = C.layers.BlockFunction("mine", "outer")(lambda a: C.user_function(Sigmoid(a)))
    close(block(y).eval(data), C.sigmoid(y).eval(data))


def test_a_class_without_a_constructor():
    class Bare(C.UserFunction):
        def infer_outputs(self):
            return [like(self.inputs[0])]

        def forward(self, argument, device=None, outputs_to_retain=None):
            return None, 2 * argument

    x = C.input_variable(3)
    f = C.user_function(Bare([x], attributes={"a": 1}, name="bare"))
    g = f.clone("share")
    assert g.root_function.attributes == {"a": 1} and g.name == "bare"
    close(g.eval(np.ones((2, 3))), np.full((2, 3), 2, F4))

    class Odd(Sigmoid):
        def __init__(self, settings, x):
            super().__init__(x, "odd")

    with pytest.raises(UserFunctionError, match=r"'odd' \(test_user_functions.py:.*: expected clone to return, got TypeError"):
        C.user_function(Odd(1, x)).clone("share")


def test_attributes():
    class Settings(Sigmoid):
        def __init__(self, x, name=""):
            C.UserFunction.__init__(self, [x], attributes={"rate": 0.5, "words": ["a"]}, name=name)
            self.calls = []

    f = C.user_function(Settings(C.input_variable(2)))
    assert f.root_function.attributes == {"rate": 0.5, "words": ["a"]}
    assert f.op_name == f"{__name__}.Settings" == f.root_function.op_name


def test_calls_while_training():
    """One forward and one backward a minibatch, also where only an input wants the gradient, as in CNTK."""
    x, w = INPUTS["batch"](F4), C.parameter((3, 2), init=1)
    op = Sigmoid(x)
    z = C.user_function(op) + w
    trainer = C.Trainer(z, (C.reduce_sum(z), C.reduce_sum(z)), [C.sgd(z.parameters, 0.1)])
    for _ in range(3):
        trainer.train_minibatch({x: feeds(x)})
    assert [name for name, _ in op.calls] == ["forward", "backward"] * 3


@pytest.mark.parametrize("kind", ["batch", "sequence"])
@pytest.mark.parametrize("engine", ENGINES)
def test_backward_calls_no_forward_again(engine, kind):
    """As in CNTK; a state serves several backward calls, and what the user's own code evaluates is no part of the run."""

    class Counting(Sigmoid):
        def forward(self, argument, device=None, outputs_to_retain=None):
            inner.eval({v: np.ones((1, 3), np.float32)})
            state, y = super().forward(argument, device, outputs_to_retain)
            self.given.append(len(outputs_to_retain))
            return state, y

    v = C.input_variable(3)
    inner = C.user_function(Sigmoid(v))
    x = INPUTS[kind](F4)
    with C.device.use_engine(engine):
        op = Counting(x)
        op.given = []
        y = C.user_function(op) * 2
        built_in = C.sigmoid(x) * 2
        for _ in range(2):
            op.calls, op.given = [], []
            state, values = y.forward({x: feeds(x)}, [y.output], {y.output})
            roots = {
                y.output: [np.ones_like(a) for a in values[y.output]] if kind == "sequence" else np.ones_like(values[y.output])
            }
            found = [y.backward(state, roots, {x})[x] for _ in range(2)]
            assert [name for name, _ in op.calls] == ["forward", "backward", "backward"] and op.given == [1]
            for dx in found:
                close(dx, built_in.grad({x: feeds(x)}, [x]))


@pytest.mark.parametrize("engine", ENGINES)
def test_backward_of_a_result_of_a_shape_that_a_run_says(engine):
    class Longer(Unary):
        def infer_outputs(self):
            return [like(self.inputs[0], shape=(C.FreeDimension,))]

        def forward(self, argument, device=None, outputs_to_retain=None):
            self.calls.append("forward")
            return argument.shape, np.concatenate([argument] * n, axis=1)

        def backward(self, state, root_gradients):
            return root_gradients.reshape(state[0], -1, state[1]).sum(axis=1)

    x = C.input_variable(2, needs_gradient=True)
    with C.device.use_engine(engine):
        op = Longer(x)
        y = C.user_function(op)
        data = np.ones((3, 2), np.float32)
        for n in (2, 2, 4):
            state, values = y.forward({x: data}, [y.output], {y.output})
            op.calls.clear()
            found = y.backward(state, {y.output: np.ones_like(values[y.output])}, {x})
            close(found[x], n * data)
            assert not op.calls


def test_it_learns_as_the_built_in_op_does():
    found = []
    for op in (lambda v: C.user_function(Sigmoid(v)), C.sigmoid):
        C.set_seed(4)
        x, y = C.input_variable(4), C.input_variable(2)
        z = C.layers.Dense(2)(op(C.layers.Dense(5)(x)))
        trainer = C.Trainer(z, C.squared_error(z, y), [C.momentum_sgd(z.parameters, 0.01, 0.9)])
        rng = np.random.RandomState(0)
        for _ in range(20):
            trainer.train_minibatch({x: rng.randn(8, 4).astype(F4), y: rng.randn(8, 2).astype(F4)})
        found.append([p.value for p in z.parameters])
    for a, b in zip(*found, strict=True):
        close(a, b)


# ------------------------------------------------------------------------------------------------------------- errors
def misuse(**methods):
    return type("Misuse", (Sigmoid,), methods)


def here_is(x):
    return len(x), np.ones((len(x), 9), F4)


ERRORS = {
    "raises": (dict(forward=lambda self, *a: 1 / 0), UserFunctionError, "forward to return, got ZeroDivisionError"),
    "backward raises": (dict(backward=lambda self, *a: 1 / 0), UserFunctionError, "backward to return, got ZeroDivisionError"),
    "no pair": (dict(forward=lambda self, x, *a: x), UserFunctionError, "a pair \\(state, result\\) is wanted, not ndarray"),
    "no result": (
        dict(forward=lambda self, x, *a: (None, None)),
        ValueError,
        "forward to give all outputs, got None for output 0",
    ),
    "shape": (dict(forward=lambda self, x, *a: here_is(x)), ValueError, r"output 0 of shape \(5, 3, 2\), got \(5, 9\)"),
    "rows": (dict(forward=lambda self, x, *a: (None, x[:2])), ValueError, r"output 0 of shape \(5, 3, 2\), got \(2, 3, 2\)"),
    "no numbers": (dict(forward=lambda self, x, *a: (None, "text")), ValueError, "output 0, numbers of shape"),
    "gradient": (dict(backward=lambda self, s, g: g[:1]), ValueError, r"a gradient of shape \(5, 3, 2\), got \(1, 3, 2\)"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_name_the_node_and_the_line(name, engine):
    methods, kind, words = ERRORS[name]
    x = INPUTS["batch"](F4)
    with C.device.use_engine(engine):
        f = C.user_function(misuse(**methods)(x, "culprit"))  # this line
        with pytest.raises(kind, match=words) as e:
            f.grad({x: feeds(x)})
    line = test_errors_name_the_node_and_the_line.__code__.co_firstlineno
    assert "'culprit' (test_user_functions.py:" in str(e.value)
    assert 0 < int(str(e.value).split("test_user_functions.py:")[1].split(")")[0]) - line < 12
    if kind is UserFunctionError and "raises" in name:
        assert isinstance(e.value.__cause__, ZeroDivisionError)


def test_errors_of_sequences():
    x = INPUTS["sequence"](F4)
    f = C.user_function(misuse(forward=lambda self, x, *a: (None, x[:2]))(x))
    with pytest.raises(ValueError, match=r"output 0 for sequences of lengths \[3, 1, 4, 2\], got \[3, 1\]"):
        f.eval({x: feeds(x)})


def test_errors_when_it_is_made():
    x = INPUTS["batch"](F4)
    with pytest.raises(UserFunctionError, match="infer_outputs to return, got AttributeError"):
        C.user_function(misuse(infer_outputs=lambda self: [like(self.nothing)])(x))
    with pytest.raises(ValueError, match="infer_outputs to give a list of C.output_variable"):
        C.user_function(misuse(infer_outputs=lambda self: 3)(x))
    with pytest.raises(ValueError, match=r"outputs over the row spaces of its inputs \(\[#\], none\), got \[#, \*\]"):
        C.user_function(
            misuse(infer_outputs=lambda self: [like(self.inputs[0], axes=C.sequence.input_variable(2).dynamic_axes)])(x)
        )
    with pytest.raises(ValueError, match="at least one input"):
        C.UserFunction([])
    with pytest.raises(TypeError, match="expected a UserFunction, got int"):
        C.user_function(3)
    with pytest.raises(UserFunctionError, match="got NotImplementedError: UserFunction: expected a method infer_outputs"):
        C.user_function(C.UserFunction([x]))


# -------------------------------------------------------------------------------------------------------------- files
class Stored(Sigmoid):
    """Counts its calls; the count is kept in files."""

    def __init__(self, x, name="", count=0):
        super().__init__(x, name)
        self.count = count

    def forward(self, argument, device=None, outputs_to_retain=None):
        self.count += 1
        return super().forward(argument)

    def serialize(self):
        return {"count": self.count, "weights": np.arange(3, dtype=F4), "nested": [1, "a", None, {"k": 2.5}]}

    @staticmethod
    def deserialize(inputs, name, state):
        assert state["nested"] == [1, "a", None, {"k": 2.5}] and state["weights"].tolist() == [0, 1, 2]
        return Stored(inputs[0], name, state["count"])


def test_files(tmp_path):
    x = C.input_variable(3, name="x")
    f = C.layers.Dense(2)(C.user_function(Stored(x, "kept")) * 2)
    data = np.random.randn(4, 3).astype(F4)
    before = f.eval({x: data})
    f.save(tmp_path / "model")
    g = C.load_model(tmp_path / "model")
    close(g.eval({g.arguments[0]: data}), before)
    node = g.find_by_name("kept")
    assert node.serialize()["state"]["count"] == 2 and node.root.function.count == 2
    g.restore(tmp_path / "model")


def test_files_of_what_is_not_registered(tmp_path):
    C.user_function(Sigmoid(C.input_variable(3))).save(tmp_path / "model")
    with pytest.raises(ModelFileError, match=f"user functions that are registered, got '{__name__}.Sigmoid'; import the module"):
        C.load_model(tmp_path / "model")


def test_a_callback_makes_it(tmp_path):
    class Named(Sigmoid):
        op_name = "test.named.op"

    x = C.input_variable(3)
    f = C.user_function(Named(x, "n"))
    f.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="got 'test.named.op'"):
        C.load_model(tmp_path / "model")
    C.Function.register_udf_deserialize_callback("test.named.op", lambda inputs, name, state: Named(inputs[0], name))
    data = np.random.randn(4, 3).astype(F4)
    close(C.load_model(tmp_path / "model").eval(data), f.eval(data))
    with pytest.raises(ValueError, match="an op name that has no callback"):
        C.Function.register_udf_deserialize_callback("test.named.op", lambda *a: None)


def test_files_whose_function_fails(tmp_path):
    class Fails(Sigmoid):
        @staticmethod
        def deserialize(inputs, name, state):
            raise KeyError("lost")

    C.user_function(Fails(C.input_variable(3), "f")).save(tmp_path / "model")
    with pytest.raises(UserFunctionError, match="'f': expected deserialize to return, got KeyError: 'lost'"):
        C.load_model(tmp_path / "model")

    class Unstorable(Sigmoid):
        def serialize(self):
            return {"what": object()}

    with pytest.raises(ModelFileError, match="got a object; it cannot be stored"):
        C.user_function(Unstorable(C.input_variable(3))).save(tmp_path / "other")


def test_nothing_is_imported_for_a_file(tmp_path):
    """A file that names a class which is nowhere, or one that is not a user function, makes nothing."""
    import json

    from safetensors import safe_open
    from safetensors.numpy import save_file

    C.user_function(Stored(C.input_variable(3))).save(tmp_path / "model")
    with safe_open(tmp_path / "model", "numpy") as file:
        tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata())  # noqa: SIM118
    graph = json.loads(metadata["graph"])
    for name in ("os.system", "subprocess.Popen", f"{__name__}.Unary", "cogkit.UserFunction", ""):
        (node,) = (n for n in graph["nodes"] if n["op"] == "user_function")
        node["user"] = name
        save_file(tensors, tmp_path / "forged", {**metadata, "graph": json.dumps(graph)})
        with pytest.raises(ModelFileError, match="user functions that are registered"):
            C.load_model(tmp_path / "forged")
