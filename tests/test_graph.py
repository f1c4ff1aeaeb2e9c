"""Laws of the graph's interface. Orders, names and counts are those that CNTK 2.7 gives for the same lines, unless a test says otherwise."""

import numpy as np
import pytest

import cogkit as C
from cogkit.engine.executable import Executable
from cogkit.functions import CloneMethod

L = C.layers
F4 = np.float32


def names(variables):
    return [v.name or "?" for v in variables]


@pytest.fixture
def x():
    return C.input_variable(3, name="x", needs_gradient=True)


@pytest.fixture
def y():
    return C.input_variable(3, name="y", needs_gradient=True)


@pytest.fixture
def v():
    return C.input_variable(3, name="v")


def parameter(name, *shape):
    return C.parameter(shape, init=1, name=name)


ROW = np.array([[1, -2, 3]], F4)
TWO = np.array([[1, 2, 3], [4, 5, 6]], F4)


# ------------------------------------------------------------------------------------------------------------ what a function is
def test_orders_of_inputs_and_parameters(x, y, v):
    a, b, c, d = parameter("a", 3, 3), parameter("b", 3, 3), parameter("c", 3), parameter("d", 3)
    k, m = (C.constant(np.ones((3, 3), F4), name=n) for n in "km")

    def said(f):
        return names(f.inputs), names(f.parameters), names(f.constants), names(f.arguments)

    assert said(C.times(x, a) + c) == (["x", "a", "c"], ["a", "c"], [], ["x"])
    assert said(c + C.times(x, a)) == (["c", "x", "a"], ["c", "a"], [], ["x"])
    assert said(C.times(a, b)) == (["a", "b"], ["b", "a"], [], [])  # parameters: a product's right operand first
    assert said(C.times(C.times(x, a), b)) == (["x", "a", "b"], ["b", "a"], [], ["x"])
    assert said(C.times(k, m)) == (["k", "m"], [], ["m", "k"], [])
    assert said((c + d) * (d - c)) == (["c", "d"], ["c", "d"], [], [])
    nest = C.times(x * c, a * d) + C.times(v, b)
    assert said(nest) == (["x", "c", "a", "d", "v", "b"], ["a", "d", "c", "b"], [], ["x", "v"])
    assert said(C.splice(x, c, v, d)) == (["x", "c", "v", "d"], ["c", "d"], [], ["x", "v"])
    assert said(C.element_select(x, c, d)) == (["x", "c", "d"], ["c", "d"], [], ["x"])
    assert names(((y - x) * c + C.times(x, a)).arguments) == ["y", "x"]


def test_orders_in_layers(x, v):
    model = L.Sequential([L.Dense(4, name="d1"), L.Dense(2, name="d2")])(x)
    assert [(p.name, p.shape) for p in model.parameters] == [("W", (4, 2)), ("b", (2,)), ("W", (3, 4)), ("b", (4,))]
    assert names(L.Dense(3)(x).inputs) == ["W", "b", "x"]
    image = L.Sequential([L.Convolution2D((3, 3), 4), L.BatchNormalization(map_rank=1)])(C.input_variable((3, 8, 8)))
    assert names(image.parameters) == ["scale", "bias", "W", "b"]
    assert names(image.constants) == ["aggregate_mean", "aggregate_variance", "aggregate_count"]
    assert names(L.LayerNormalization()(x).parameters) == ["scale", "bias"]
    loss = C.cross_entropy_with_softmax(L.Dense(3)(x), v)
    assert names(loss.arguments) == ["x", "v"] and names(loss.inputs) == ["W", "b", "x", "v"]


def test_one_node_of_a_graph(x):
    model = L.Sequential([L.Dense(4, name="d1"), L.Dense(2, name="d2")])(x)
    root = model.root_function
    assert (root.op_name, root.is_block, root.is_primitive, root.is_composite) == ("Dense", True, True, False)
    assert (model.is_block, model.is_primitive, model.is_composite) == (False, False, True)
    assert names(root.inputs) == ["W", "b", "d1"] and names(root.parameters) == ["W", "b"]
    assert [q.is_output for q in root.arguments] == [True]
    assert root == model.root_function and len({root, model.root_function}) == 1
    whole = C.as_composite(root)
    assert whole.is_composite and names(whole.arguments) == ["x"] and len(whole.parameters) == 4
    np.testing.assert_array_equal(whole.eval(ROW), model.eval(ROW))
    np.testing.assert_array_equal(root.eval({x: ROW}), model.eval(ROW))
    head = model.d2(C.input_variable(4, name="h"))  # what is above the node is left behind
    assert names(head.arguments) == ["h"] and len(head.parameters) == 2


def test_names_and_attributes_of_python(x, y):
    f = C.plus(x, y, name="sum")
    g = C.relu(f, name="rel")
    assert (f.name, f.output.name, f.root_function.name) == ("sum", "sum", "sum")
    assert g.sum.op_name == "Plus" and g.x is x and g.rel.uid == g.root_function.uid
    with pytest.raises(AttributeError):
        _ = g.nothing
    assert not hasattr(g, "nothing")
    late = x + y
    late.name = "late"
    assert late.name == late.output.name == "late"
    assert (f.shape, f.dtype, f.dynamic_axes, f.needs_gradient) == ((3,), np.float32, (C.Axis.default_batch_axis(),), True)
    assert len({x.uid, y.uid, f.uid, f.output.uid, f.root_function.uid}) == 5
    assert f.output.owner == f.root_function and f.output.owner.op_name == "Plus" and x.owner is None
    assert x == x and x != y and x in [y, x]
    assert x.is_input and f.output.is_output and C.placeholder().is_placeholder and parameter("p", 1).is_parameter
    assert [str(q) for q in (x, parameter("a", 3, 3), C.placeholder(name="p"))] == [
        "Input('x', [#], [3])",
        "Parameter('a', [], [3 x 3])",
        "Placeholder('p', [???], [???])",
    ]


def test_sizes_that_were_divided():
    assert C.parameter((6 / 2, np.float32(2))).shape == (3, 2) and C.input_variable(4.0).shape == (4,)
    for n in (1.5, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="expected sizes >= 0"):
            C.parameter(n)


def test_blocks_say_what_is_in_them(x, y):
    f = L.Dense(2, name="d")(x)
    block = f.root_function
    ((p, v),) = block.block_arguments_mapping
    assert p.is_placeholder and v is x and block.block_root.op_name == "Plus" and f.op_name == "Dense"
    assert x.has_batch_axis() and not x.has_sequence_axis() and f.output.uid == f"{block.uid}_Output_0"
    for g in (f, (x + y).root_function):
        with pytest.raises(ValueError, match="expected a block, got a"):
            _ = g.block_arguments_mapping
    assert repr(block).startswith("Dense: ") and repr(f).startswith("Composite(Dense): ")


def test_a_composite_of_a_name(x):
    f = C.plus(x, 1, name="sum")
    assert C.as_composite(f.root_function).name == "sum" and C.as_composite(f.root_function, "whole").name == "whole"
    np.testing.assert_array_equal(C.as_composite(f.root_function, "whole").eval({x: TWO}), TWO + 1)


def test_clone_says_what_it_wants(x, y):
    f = x * y
    for wrong in ({x: 5}, {x: None}, {None: y}, {x: np.ones(3)}):
        with pytest.raises(TypeError, match="expected a variable"):
            f.clone("share", wrong)


def test_find_by_name(x, y):
    f = C.relu(C.plus(x, y, name="sum"), name="rel")
    assert f.find_by_name("sum").op_name == "Plus" and f.find_by_name("x") is x and f.find_by_name("rel").op_name == "ReLU"
    assert f.find_by_name("none") is None and f.find_all_with_name("none") == []
    assert len((x + y * x).find_all_with_name("x")) == 1
    model = L.Sequential([L.Dense(4, name="d1"), L.Dense(2, name="d2")])(x)
    assert model.find_by_name("d1").op_name == "Dense" and model.d1.W.shape == (3, 4)
    assert [len(model.find_all_with_name("W", depth=n)) for n in (0, 1, -1)] == [2, 2, 2]
    with pytest.raises(ValueError, match="find_all_with_name"):
        model.find_by_name("W")
    with pytest.raises(ValueError, match="find_all_with_name"):
        _ = model.W

    @C.BlockFunction("Outer", "outer")
    def outer(q):
        return C.sigmoid(L.Dense(2, name="inner")(q), name="gate")

    applied = outer(x)
    assert applied.find_by_name("gate") is None and applied.find_by_name("gate", depth=1).op_name == "Sigmoid"
    assert applied.find_by_name("inner", 1).op_name == "Dense" and applied.find_by_name("inner", depth=-1) is not None
    labelled = L.Sequential([L.Dense(2), L.Label("here"), C.relu])(x)
    assert labelled.here.shape == (2,)
    assert L.Sequential([L.Dense(2)], name="all")(x).find_by_name("all") is not None


def test_operators(x):
    a = parameter("a", 3, 3)
    made = [x + x, 1 + x, x - x, x * x, x / x, -x, abs(x), x @ a, x**2, 2**x]
    labels = ["Plus", "Plus", "Minus", "ElementTimes", "ElementDivide", "Negate", "Abs", "Times", "Pow", "Pow"]
    assert [f.op_name for f in made] == labels
    np.testing.assert_array_equal((2 - x * 3 / 2 + np.float32(1)).eval(ROW), 3 - 1.5 * ROW)
    np.testing.assert_array_equal((np.ones(3, F4) + x).eval(ROW), 1 + ROW)  # NumPy leaves the operation to us
    m = C.input_variable((3, 4))
    assert [f.shape for f in (x[0], x[0:2], x[-1], m[1], m[1, 2], m[:, 1:3], m[..., 0], m[[0, 2]], m[::2])] == [
        (1,),
        (2,),
        (1,),
        (1, 4),
        (1, 1),
        (3, 2),
        (3, 1),
        (2, 4),
        (2, 4),
    ]
    with pytest.raises(TypeError):
        list(x)
    with pytest.raises(TypeError):
        len(x + 1)
    assert bool(x)


def test_attributes(x):
    f = C.dropout(x, 0.3)
    assert f.attributes["dropoutRate"] == 0.3 and "rngSeed" in f.attributes
    f.set_attribute("dropoutRate", 0.1)
    f.set_attribute("rngSeed", 5)
    assert (f.attributes["dropoutRate"], f.root_function.attributes["rngSeed"]) == (0.1, 5)
    with pytest.raises(ValueError, match="that keeps its type"):
        C.reshape(x, (3, 1)).set_attribute("shape", (1, 3))
    assert C.reduce_sum(x, 0).attributes["axisVec"] == [("ordered", "static", -1)]


# ------------------------------------------------------------------------------------------------------------------ combine, alias
def test_combine(x, y):
    s, p = x + y, x * y
    both = C.combine([s, p])
    assert (
        both.outputs == (s.output, p.output) and names(both.arguments) == ["x", "y"] and both.root_function.op_name == "Combine"
    )
    found = both.eval({x: TWO, y: TWO})
    assert set(found) == {s.output, p.output}
    np.testing.assert_array_equal(found[p.output], TWO * TWO)
    assert C.combine(s, p).outputs == both.outputs and len(C.combine([both, x + 1]).outputs) == 3
    one = C.combine([s])
    assert one.output == s.output and one.shape == (3,)
    np.testing.assert_array_equal(both.eval({x: TWO, y: TWO}, outputs=[p.output]), TWO * TWO)
    named = C.combine([C.alias(x, "first"), C.alias(y, "second")])
    assert named.first.shape == (3,) and named.second == named.outputs[1]
    pair = C.Function(lambda q: (q + 1, q * 2))(x)
    assert [np.asarray(a).tolist() for a in pair.eval(ROW).values()] == [[[2, -1, 4]], [[2, -4, 6]]]
    assert both[0] == s.output and both[-1] == p.output
    with pytest.raises(ValueError, match="one output"):
        _ = both.output


def test_alias(x):
    f = C.alias(x, "z")
    assert (f.name, f.output.name, names(f.inputs), f.shape) == ("z", "z", ["x"], (3,))
    np.testing.assert_array_equal(f.eval(ROW), ROW)
    np.testing.assert_array_equal(L.identity(x).eval(ROW), ROW)


def test_as_block(x, y):
    p, q = C.placeholder(name="p"), C.placeholder(name="q")
    f = C.as_block(p * q + p, [(p, x), (q, y)], "MyOp", "mine")
    assert (f.name, f.op_name, f.root_function.is_block, names(f.arguments)) == ("mine", "MyOp", True, ["x", "y"])
    np.testing.assert_array_equal(f.eval({x: [[1, 2, 3]], y: [[2, 2, 2]]}), [[3, 6, 9]])
    root = f.root_function
    assert root.block_root.op_name == "Plus" and names(root.block_composite.arguments) == ["p", "q"]
    assert [(a.name, b.name) for a, b in root.block_arguments_mapping] == [("p", "x"), ("q", "y")]
    with pytest.raises(ValueError, match="a block"):
        _ = (x + y).root_function.block_root


# -------------------------------------------------------------------------------------------------------------------------- clone
@pytest.mark.parametrize("method", ["share", "clone", "freeze"])
def test_clone(x, method):
    a, b = parameter("a", 3, 3), parameter("b", 3)
    f = C.times(x, a) + b
    g = f.clone(method)
    assert g.clone(CloneMethod[method]) is not g
    assert names(g.parameters) == ([] if method == "freeze" else ["a", "b"])
    assert names(g.constants) == (["a", "b"] if method == "freeze" else [])
    assert [p is q for p, q in zip(g.parameters, f.parameters, strict=False)] == [method == "share"] * len(g.parameters)
    (u,) = g.arguments
    assert u.name == "x" and u != x and u.shape == (3,)  # a new input
    np.testing.assert_array_equal(g.eval({u: ROW}), f.eval({x: ROW}))
    a.value = np.zeros((3, 3))
    changed = np.array_equal(g.eval({u: ROW}), f.eval({x: ROW}))
    assert changed == (method == "share")


def test_clone_of_constants(x):
    model = L.BatchNormalization()(x)
    for method, same in (("share", True), ("clone", False), ("freeze", False)):
        copies = model.clone(method).constants[-3:]
        assert [p is q for p, q in zip(copies, model.constants, strict=True)] == [same] * 3
        assert names(copies) == names(model.constants)


def test_substitutions(x, y):
    z = C.input_variable(3, name="z")
    inner = C.plus(x, y, name="inner")
    f = C.relu(inner, name="outer")
    assert names(f.clone("share", {x: z}).arguments) == ["z", "y"]
    assert f.clone("share", {x: z}).arguments[0] is z
    assert f.clone("share", {x: z + y}).arguments == (z, y)  # what is put in reads y too: it stays
    assert names(f.clone("share", {inner: z}).arguments) == names(f.clone("share", {inner.output: z}).arguments) == ["z"]
    g = f.clone("share", {x: z + 1, y: z})
    assert names(g.arguments) == ["z"] and (g.name, g.inner.name) == ("outer", "inner")
    np.testing.assert_array_equal(g.eval(TWO), 2 * TWO + 1)
    assert names(f.clone("share", {x: C.placeholder(name="p")}).placeholders) == ["p"]
    assert names(C.combine([x + 1, y + 1]).clone("share", {x: z}).arguments) == ["z", "y"]


def test_features_of_a_model_are_frozen_and_used_again(x, v):
    model = L.Sequential([L.Dense(4, activation=C.tanh, name="h"), L.Dense(2)])(x)
    base = C.combine([model.find_by_name("h")]).clone(CloneMethod.freeze, {x: C.placeholder(name="features")})
    again = L.Dense(5)(base(v))
    assert names(again.arguments) == ["v"] and [p.shape for p in again.parameters] == [(4, 5), (5,)]
    np.testing.assert_array_equal(base(v).eval(ROW), C.combine([model.h]).eval({x: ROW}))


def test_clone_before_shapes_are_known():
    layer = L.Dense(3)
    copy = layer.clone("clone")
    assert [p.shape for p in copy.parameters] == [(-1, 3), (3,)]
    assert copy(C.input_variable(2)).parameters[0].shape == (2, 3)
    assert layer(C.input_variable(5)).parameters[0].shape == (5, 3)


# ------------------------------------------------------------------------------------------------------------------- placeholders
def test_placeholders(x, y):
    p, q = C.placeholder(name="p"), C.placeholder(name="q")
    f = q - p
    assert names(f.arguments) == names(f.placeholders) == ["q", "p"]
    np.testing.assert_array_equal(f(x, y).eval({x: TWO, y: ROW.repeat(2, 0)}), TWO - ROW)
    assert names(f.arguments) == ["q", "p"]  # a call leaves it as it was
    g = C.relu(p) + q
    assert g.replace_placeholders({p: x, q: y}) is g and names(g.arguments) == ["x", "y"] and g.shape == (3,)
    assert names(C.relu(p).replace_placeholder(x + y).arguments) == ["x", "y"]
    typed = C.placeholder(shape=(3,), dynamic_axes=[C.Axis.default_batch_axis()])
    assert (typed + x).shape == (3,)


def test_python_functions(x, y):
    @C.Function
    def minus(u, w):
        return w - u

    assert names(minus.arguments) == names(minus.signature) == ["u", "w"]
    feed = {x: TWO, y: ROW.repeat(2, 0)}
    for f in (minus(x, y), minus(x, w=y), minus(w=y, u=x)):
        np.testing.assert_array_equal(f.eval(feed), ROW - TWO)
    with pytest.raises(TypeError, match="missing: u"):
        minus(w=x)
    assert C.Function(lambda q: q + 1, name="named").name == "named"
    chain = C.relu(C.placeholder(name="q")) >> C.sigmoid
    assert names(chain(x).arguments) == ["x"]
    with_input = C.Function(lambda q: q * x)  # an input of outside stays what it is (CNTK refuses this)
    np.testing.assert_array_equal(with_input(y).eval({x: TWO, y: TWO}), TWO * TWO)
    block = C.BlockFunction("Scaled", "s")(lambda q: q * x)
    np.testing.assert_array_equal(block(y).eval({x: TWO, y: TWO}), TWO * TWO)
    assert names(block(y, y).arguments) == ["y"]


def test_calls_with_numbers_and_arrays(x, y):
    f = x + y
    np.testing.assert_array_equal(f(x, 2.0).eval(ROW), ROW + 2)
    np.testing.assert_array_equal(f(TWO, TWO), 2 * TWO)
    np.testing.assert_array_equal(C.relu(x)(ROW), [[1, 0, 3]])


def test_numbers_take_the_type_beside_them(x):
    double = C.input_variable(3, dtype=np.float64)
    f = C.Function(lambda q: q * 0.1 + 1)
    assert f(double).dtype == np.float64 and f(x).dtype == np.float32
    np.testing.assert_array_equal(f(double).eval(ROW.astype(np.float64)), ROW.astype(np.float64) * 0.1 + 1)
    assert C.plus([1, 2], [3, 4]).dtype == np.float32


def test_update_signature():
    layer = L.Dense(2)
    layer.update_signature(3)
    assert layer.shape == (2,) and layer.arguments[0].shape == (3,) and layer.eval(TWO).shape == (2, 2)


# ------------------------------------------------------------------------------------------------------------------------ shapes
def test_inferred_dimensions(x):
    w = C.parameter((C.InferredDimension, 2), init=C.glorot_uniform())
    assert w.shape == (-1, 2)
    assert C.times(x, w).shape == (2,) and w.shape == (3, 2) and w.value.shape == (3, 2)
    assert L.Dense(3).parameters[0].shape == (-1, 3) and L.Convolution2D((3, 3), 2).W.shape == (2, -1, 3, 3)
    with pytest.raises(ValueError, match="shape is inferred"):
        _ = L.Dense(3).W.value
    layer = L.Dense(3)
    first, second = layer(x), layer(C.input_variable(3))
    assert first.W is second.W
    with pytest.raises(ValueError, match="left operand"):
        layer(C.input_variable(5))
    both = C.times(C.input_variable((2, 3)), C.parameter((C.InferredDimension, 4)), infer_input_rank_to_map=0)
    assert both.parameters[0].shape == (2, 3, 4)
    both.parameters[0].value = np.zeros((2, 3, 4))


def test_free_dimensions():
    x = C.input_variable(C.FreeDimension)
    f = x * 2
    assert x.shape == f.shape == (C.FreeDimension,)
    for n in (5, 2, 5):
        np.testing.assert_array_equal(f.eval(np.ones((2, n), F4)), 2 * np.ones((2, n)))
    image = C.input_variable((3, C.FreeDimension, C.FreeDimension))
    net = L.Sequential([L.Convolution2D((3, 3), 4, pad=True, strides=2), L.GlobalAveragePooling(), L.Dense(2)])(image)
    for size in ((6, 7), (9, 8), (6, 7)):
        assert net.eval(np.ones((2, 3, *size), F4)).shape == (2, 2)


def test_forms_of_constants_and_parameters():
    f4, f8 = np.float32, np.float64
    assert [C.constant(k).dtype for k in (2, [1.0, 2.0], np.arange(3.0), np.arange(3, dtype=f4))] == [f4, f4, f8, f4]
    assert C.constant(np.arange(3.0), dtype=f4).dtype == f4 and C.constant(5, shape=(2,)).value.tolist() == [5, 5]
    made = [C.parameter(3), C.parameter((3,), init=2), C.parameter(init=np.ones((2, 2))), C.parameter(init=3)]
    assert [(p.shape, p.dtype) for p in made] == [((3,), f4), ((3,), f4), ((2, 2), f8), ((), f4)]
    assert made[0].value.tolist() == [0, 0, 0] and made[1].value.tolist() == [2, 2, 2]
    p = made[0]
    p.value = [1, 2, 3]
    copy = p.value
    copy[0] = 7
    assert p.value.tolist() == p.asarray().tolist() == [1, 2, 3]
    with C.default_options(dtype=f8):
        assert C.parameter(3).dtype == C.input_variable(3).dtype == C.constant(1).dtype == f8


# ------------------------------------------------------------------------------------------------------------- values, gradients
def test_forms_of_eval(x, y):
    f = C.relu(x)
    for feed in (ROW, {x: ROW}, {"x": ROW}, ROW.tolist(), [ROW[0]], ROW.astype(int), ROW.reshape(1, 1, 3), ROW[0]):
        np.testing.assert_array_equal(f.eval(feed), [[1, 0, 3]])
    number = C.input_variable(())
    np.testing.assert_array_equal((number + 1).eval(np.arange(3, dtype=F4)), [1, 2, 3])
    alone = C.input_variable(3, dynamic_axes=[])
    for feed in (ROW[0], ROW):
        np.testing.assert_array_equal(np.ravel((alone * 2).eval(feed)), 2 * ROW[0])
    assert (x + y).eval({x: np.zeros((0, 3)), y: np.zeros((0, 3))}).shape == (0, 3)
    np.testing.assert_array_equal(f.eval({x: ROW, y: ROW}), [[1, 0, 3]])  # one dict may serve several functions
    s = x + y
    np.testing.assert_array_equal(C.relu(s).eval({x: ROW, y: ROW}, outputs=s), 2 * ROW)
    with pytest.raises(ValueError, match="outputs of nodes of this function"):
        f.eval({x: ROW, y: ROW}, outputs=[s])
    with pytest.raises(TypeError):
        f.eval({x: ROW}, outputs=[f.outputs])
    constant = C.constant(np.ones(3, F4)) * 2
    assert constant.eval().tolist() == constant.eval({}).tolist() == [2, 2, 2]


def test_forms_of_grad(x, y):
    b = C.parameter(init=np.array([1, 2, 3], F4), name="b")
    f = C.reduce_sum(x * y * b)
    feed = {x: TWO, y: np.ones((2, 3), F4)}
    every = f.grad(feed)
    assert set(every) == {x, y}  # arguments that need one, not parameters
    np.testing.assert_array_equal(every[y], TWO * [1, 2, 3])
    np.testing.assert_array_equal(f.grad(feed, wrt=[b]), TWO.sum(0))
    assert set(f.grad(feed, wrt=[x, b])) == {x, b}
    gradient, value = f.grad(feed, wrt=[x], outputs=[f.output])
    np.testing.assert_array_equal(value, (TWO * [1, 2, 3]).sum(1))
    np.testing.assert_array_equal(gradient, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal((x * y).grad(feed, wrt=[x]), np.ones((2, 3)))
    two = C.combine([x * y, x + y])
    np.testing.assert_array_equal(two.grad(feed, wrt=[x], grad_root=two.outputs[1]), np.ones((2, 3)))
    with pytest.raises(ValueError, match="one output"):
        two.grad(feed, wrt=[x])


def test_forward_and_backward(x, y):
    b = C.parameter(init=np.array([1, 2, 3], F4), name="b")
    f = C.reduce_sum(x * y * b)
    feed = {x: TWO, y: np.ones((2, 3), F4)}
    state, values = f.forward(feed, [f.output], {f.output})
    assert state is not None and set(values) == {f.output}
    for root in ({f.output: np.array([1, 2], F4)}, np.array([1, 2], F4), np.array([[1], [2]], F4)):
        found = f.backward(state, root, {x, b})
        np.testing.assert_array_equal(found[b], TWO[0] + 2 * TWO[1])
        np.testing.assert_array_equal(found[x], [[1, 2, 3], [2, 4, 6]])
    assert f.forward(feed, [f.output])[0] is None and f.forward(feed, [f.output], set())[0] is None


def test_backward_drops_what_forward_dropped(x):
    f = C.dropout(x, 0.5)
    for _ in range(4):
        feed = {x: np.ones((8, 3), F4)}
        state, values = f.forward(feed, [f.output], {f.output})
        found = f.backward(state, np.ones((8, 3), F4), {x})
        np.testing.assert_array_equal(found[x], values[f.output])
    np.testing.assert_array_equal(f.eval(feed), feed[x])


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_statistics_move_in_training_alone_and_not_for_nobody(engine):
    with C.device.use_engine(engine):
        x = C.input_variable((2, 4), needs_gradient=True)
        f = L.BatchNormalization(map_rank=1, normalization_time_constant=8)(x)
        r = np.random.RandomState(0)
        state = {k.name: k for k in f.constants}

        def run(rows):
            f.grad({x: r.randn(rows, 2, 4).astype(F4) + 3})
            return [state[k].value.copy() for k in ("aggregate_mean", "aggregate_variance", "aggregate_count")]

        first = run(0)
        assert [a.tolist() for a in first] == [[0, 0], [0, 0], 0]
        before = run(5)
        assert (before[0] > 1).all() and before[2] == 5
        for a, b in zip(run(0), before, strict=True):
            np.testing.assert_array_equal(a, b)
        f.eval(np.ones((4, 2, 4), F4))
        np.testing.assert_array_equal(state["aggregate_mean"].value, before[0])
        assert run(3)[2] == 8


def test_assign():
    p = C.parameter(init=np.zeros(3, F4))
    step = C.assign(p, p + 1)
    assert [step.eval().tolist(), step.eval().tolist(), p.value.tolist()] == [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    both = C.combine([step, p * 2])
    values = list(both.eval().values())
    assert values[0].tolist() == [3, 3, 3] and values[1].tolist() == [4, 4, 4]  # readers see the value from before


# ------------------------------------------------------------------------------------------------------------------- edits, plans
def test_a_value_that_is_set_is_seen(x):
    p, k, n = C.parameter(init=np.ones(3, F4)), C.constant(2.0), C.constant(np.ones(3, F4))
    f = x * p * k + n
    assert f.eval(ROW).tolist() == (2 * ROW + 1).tolist()
    p.value = np.full(3, 3)
    k.value = 5.0
    n.value = np.zeros(3)
    assert f.eval(ROW).tolist() == (15 * ROW).tolist()


def test_an_edit_drops_plans(x, y):
    f = C.leaky_relu(x, 0.5)
    assert f.eval(ROW).tolist() == [[1, -1, 3]]
    f.set_attribute("alpha", 0.25)
    assert f.eval(ROW).tolist() == [[1, -0.5, 3]]
    p = C.placeholder(name="p")
    g = C.relu(x) + p
    g.replace_placeholders({p: y})
    assert g.eval({x: ROW, y: ROW}).tolist() == [[2, -2, 6]]


def test_plans_are_kept(x):
    f = C.tanh(x)
    e = Executable([f.output])
    kept = None
    for rows in (1, 3, 1, 7):
        e.run({x: np.ones((rows, 3), F4)})
        plans = list(e._plans.values())
        assert len(plans) == 1 and (kept is None or plans[0] is kept)
        kept = plans[0]
    C.constant(1.0).value = 2.0  # an edit elsewhere
    e.run({x: ROW})
    assert list(e._plans.values()) == [kept]


def test_explain(x):
    model = L.Dense(2, activation=C.relu)(x)
    text = model.explain()
    for word in ("resolve", "fuse", "layout", "memory", "peak"):
        assert word in text
    with C.device.use_engine("reference"):
        assert "matmul" in model.explain({x: ROW})


def test_activations(x):
    assert L.Dense(2, activation=None)(x).shape == (2,)
    W = np.eye(3, dtype=F4)
    twice = L.Dense(3, init=W, activation=[C.negate, C.relu])(x)
    np.testing.assert_array_equal(twice.eval(ROW), [[0, 2, 0]])
    image = C.input_variable((1, 3, 3))
    assert L.Convolution2D((3, 3), 2, activation=[C.relu, C.tanh])(image).shape == (2, 1, 1)
    assert L.Activation(None)(x).shape == L.Activation([C.relu])(x).shape == (3,)
    with C.default_options(activation=C.relu):
        np.testing.assert_array_equal(L.Dense(3, init=W)(x).eval(ROW), [[1, 0, 3]])


def test_the_graph_can_be_drawn(x, tmp_path):
    model = L.Sequential([L.Dense(4, activation=C.relu), L.Dense(2)])(x)
    assert C.logging.graph.plot(model)
    assert [n.op_name for n in C.logging.graph.depth_first_search(model.root_function, lambda n: hasattr(n, "op_name"))][
        0
    ] == "Dense"
