"""The table of op cases: a row states its operands and the call; tests and golden values derive the rest."""

# ruff: noqa: UP031, B905, E501  (Python 3.6 reads this file too; one case a line)

import numpy as np

from cases import Case, K, W, X

CASES = []
FAMILY = [""]


def row(name, build, *specs, **options):
    CASES.append(Case(FAMILY[0], name, build, specs, **options))


def family(name):
    FAMILY[0] = name


def named(op, *args, **kw):
    """A build that calls C.<op>(operands..., *args, **kw)."""
    return lambda C, *operands: getattr(C, op)(*(operands + args), **kw)


# ---------------------------------------------------------------------------------------------------------- pointwise
family("pointwise")
UNARY = {
    "abs": "nonzero",
    "acos": "unit",
    "asin": "unit",
    "asinh": "any",
    "atan": "any",
    "atanh": "unit",
    "ceil": "between",
    "cos": "any",
    "cosh": "any",
    "elu": "nonzero",
    "exp": "any",
    "floor": "between",
    "leaky_relu": "nonzero",
    "log": "positive",
    "negate": "any",
    "reciprocal": "nonzero",
    "relu": "nonzero",
    "round": "between",
    "selu": "nonzero",
    "sigmoid": "any",
    "sin": "any",
    "sinh": "any",
    "softplus": "any",
    "softsign": "nonzero",
    "sqrt": "positive",
    "square": "any",
    "tan": "unit",
    "tanh": "any",
}
for op, domain in sorted(UNARY.items()):
    wrong = dict(departs="CNTK's derivative of tan is wrong", where=("d0",)) if op == "tan" else {}
    row(op, named(op), X(2, 3, domain=domain), f8=True, **wrong)
    row(op + "/param", named(op), W(2, 3, domain=domain), golden=op in ("relu", "exp"))
for op in ("sigmoid", "tanh", "softplus", "relu", "elu", "selu", "softsign"):
    row(op + "/wide", named(op), X(8, domain="wide"), fd=False)
row("elu/alpha", named("elu", 0.5), X(4, domain="nonzero"))
row("leaky_relu/alpha", named("leaky_relu", 0.3), X(4, domain="nonzero"))
row("selu/constants", named("selu", 1.3, 0.7), X(4, domain="nonzero"))
row("softplus/steepness", named("softplus", 3), X(4))
row("softsign/steepness", named("softsign", 3), X(4, domain="nonzero"), departs="CNTK forgets the steepness")
row("hard_sigmoid", named("hard_sigmoid", 0.2, 0.5), X(6, domain="nonzero"))
row("hard_sigmoid/wide", named("hard_sigmoid", 0.3, 0.4), X(12, domain="wide"))
row("param_relu", lambda C, x, a: C.param_relu(a, x), X(2, 3, domain="nonzero"), W(2, 3, domain="positive"))
row("param_relu/scalar", lambda C, x, a: C.param_relu(a, x), X(2, 3, domain="nonzero"), W(1, domain="positive"))
row("straight_through_impl", named("straight_through_impl"), X(2, 3, domain="nonzero"), fd=False)
row("alias", named("alias"), X(2, 3))
row("stop_gradient", lambda C, x: C.stop_gradient(C.square(x)) * x, X(2, 3), fd=False)
row("stop_gradient/one_side", lambda C, x, y: C.stop_gradient(x) * y + x, X(2, 3), X(2, 3), fd=False)
row("zeros_like", lambda C, x: C.zeros_like(x) + x, X(2, 3))
row("ones_like", lambda C, x: C.ones_like(x) + x, X(2, 3))
row("zeros_like/alone", named("zeros_like"), X(2, 3), diff=False)
row("ones_like/alone", named("ones_like"), X(2, 3), diff=False)
row("clip", named("clip", -0.9, 1.1), X(3, 4, domain="between"))
row("clip/tensors", lambda C, x, a, b: C.clip(x, a, b), X(3, 4, domain="between"), K(4, value=[-1, -0.5, -2, 0]), K(4, value=[0, 0.5, 2, 1]))
row("clip/gradient_of_bounds", lambda C, x, a, b: C.clip(x, a, b), X(4, domain="distinct"), W(4, value=[-0.33] * 4), W(4, value=[0.13] * 4), departs="CNTK gives the bounds no gradient", where=("d1", "d2"))
row("cast/same", lambda C, x: C.cast(x, np.float64), X(3), later=True, diff=False)

# values where a formula must choose; what CNTK chooses is recorded
EDGES = [0.0, -1.0, 1.0, 88.0, -88.0, 100.0, -100.0, 1e-30]
IEEE = "CNTK never gives nan or inf: log(<=0) = -85.1, sqrt(<0) = 0, 1/0 = 0; cogkit says what IEEE 754 says"
for op in ("log", "sqrt", "reciprocal", "exp", "sigmoid", "tanh", "softplus", "abs", "relu", "elu", "round", "floor", "ceil"):
    own = IEEE if op in ("log", "sqrt", "reciprocal") else ""
    row(op + "/edges", named(op), X(8, value=[EDGES]), rows=1, diff=False, fd=False, departs=own)
row("round/halves", named("round"), X(8, value=[[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5, 0.0]]), rows=1, diff=False)
row("element_divide/zero", named("element_divide"), X(4, value=[[1, -1, 0, 2]]), X(4, value=[[0, 0, 0, 4]]), rows=1, diff=False, departs=IEEE)
row("pow/edges", named("pow"), X(6, value=[[0, 2, -2, -2, 0, 1]]), X(6, value=[[0, 0, 3, 2, 2, 9]]), rows=1, diff=False)
row("relu/at_zero", named("relu"), X(3, value=[[0, 1, -1]]), rows=1, fd=False)
row("abs/at_zero", named("abs"), X(3, value=[[0, 1, -1]]), rows=1, fd=False)
row("clip/at_bounds", named("clip", -1.0, 1.0), X(4, value=[[-1, 1, 0, 2]]), rows=1, fd=False)
row("element_max/ties", named("element_max"), X(3, value=[[0, 1, -1]]), X(3, value=[[0, 1, 2]]), rows=1, fd=False)
row("element_min/ties", named("element_min"), X(3, value=[[0, 1, -1]]), X(3, value=[[0, 1, 2]]), rows=1, fd=False)

BINARY = {
    "plus": ("any", "any"),
    "minus": ("any", "any"),
    "element_times": ("any", "any"),
    "element_divide": ("any", "nonzero"),
    "element_max": ("any", "any"),
    "element_min": ("any", "any"),
    "log_add_exp": ("any", "any"),
    "pow": ("positive", "any"),
}
for op, (a, b) in sorted(BINARY.items()):
    call = named(op)
    row(op, call, X(2, 3, domain=a), X(2, 3, domain=b), f8=True)
    row(op + "/row", call, X(2, 3, domain=a), X(3, domain=b))
    row(op + "/row_left", call, X(3, domain=a), X(2, 3, domain=b))
    row(op + "/column", call, X(2, 3, domain=a), X(2, 1, domain=b))
    row(op + "/outer", call, X(2, 1, domain=a), X(1, 3, domain=b))
    row(op + "/scalar", call, X(2, 3, domain=a), X(1, domain=b))
    row(op + "/param", call, X(2, 3, domain=a), W(2, 3, domain=b))
    row(op + "/param_row", call, X(2, 3, domain=a), W(3, domain=b))
    row(op + "/param_left", call, W(2, 1, domain=a), X(2, 3, domain=b))
    row(op + "/params", call, W(2, 3, domain=a), W(2, 3, domain=b))
    row(op + "/const", call, X(2, 3, domain=a), K(2, 3, domain=b))
    row(op + "/number", lambda C, x, op=op: getattr(C, op)(x, 1.5), X(2, 3, domain=a))
row("plus/rank0", named("plus"), X(domain="any"), X(2, 3))
row("plus/same", lambda C, x: C.plus(x, x), X(2, 3))
row("plus/many", lambda C, a, b, c, d: C.plus(a, b, c, d), X(2, 3), X(3), W(2, 1), X(2, 3))
row("element_times/many", lambda C, a, b, c: C.element_times(a, b, c), X(2, 3), X(3), W(2, 1))
row("element_max/many", lambda C, a, b, c: C.element_max(a, b, c), X(2, 3), X(3), W(2, 1))
row("log_add_exp/many", lambda C, a, b, c: C.log_add_exp(a, b, c), X(2, 3), X(3), W(2, 1))
row("log_add_exp/wide", named("log_add_exp"), X(6, domain="wide"), X(6, domain="wide"), fd=False)
row("sum", lambda C, a, b, c: C.sum(a, b, c), X(2, 3), X(2, 3), W(2, 3))
row("mean", lambda C, a, b, c: C.mean(a, b, c), X(2, 3), X(2, 3), W(2, 3))
row("pow/whole", named("pow", 3.0), X(4, domain="nonzero"))
row("pow/of_number", lambda C, x: C.pow(2.0, x), X(4))
row("operators/arithmetic", lambda C, x, y: (2 - x) * y / (1.5 + C.square(x)) - (-y) + 3 * x, X(2, 3), X(3))
row("operators/power", lambda C, x: x**2, X(2, 3, domain="positive"), golden=False)
row("operators/abs", lambda C, x: abs(x), X(2, 3, domain="nonzero"))
row("chain/long", lambda C, x, w: C.tanh(C.sigmoid(x * w + 0.5) * C.exp(-C.square(x)) - w) * C.log(C.abs(x) + 1.0) + x, X(3, 4, domain="nonzero"), W(4))
row("chain/shared", lambda C, x: (lambda t: t * C.exp(t) + C.sqrt(C.square(t) + 1.0))(C.sin(x)), X(3, 4))

family("compare")
for op in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
    row(op, named(op), X(3, 4, domain="whole:3"), X(3, 4, domain="whole:3"), diff=False, exact=True)
    row(op + "/row", named(op), X(3, 4, domain="whole:3"), X(4, domain="whole:3"), diff=False, exact=True)
    row(op + "/number", named(op, 1.0), X(3, 4, domain="whole:3"), diff=False, exact=True)
for op in ("element_and", "element_or", "element_xor"):
    row(op, named(op), X(3, 4, domain="binary"), X(3, 4, domain="binary"), diff=False, exact=True)
row("element_not", named("element_not"), X(3, 4, domain="binary"), diff=False, exact=True)
row("element_select", named("element_select"), X(3, 4, domain="binary", grad=False), X(3, 4), X(3, 4))
row("element_select/broadcast", named("element_select"), X(3, 1, domain="binary", grad=False), X(3, 4), W(4))
row("element_select/param_flag", named("element_select"), K(4, domain="binary"), X(3, 4), X(3, 4))
row("element_select/number", lambda C, f, x: C.element_select(f, x, 2.0), X(3, 4, domain="binary", grad=False), X(3, 4))
row("element_select/counts", named("element_select"), X(3, 4, domain="whole:3", grad=False), X(3, 4), X(3, 4))

# -------------------------------------------------------------------------------------------------------------- times
family("times")
T = named("times")
row("times", T, X(3), W(3, 4), f8=True)
row("times/matrix", T, X(2, 3), W(3, 4), f8=True)
row("times/all_axes", T, X(2, 3), W(2, 3, 4))
row("times/output_rank2", named("times", output_rank=2), X(3), W(3, 2, 4))
row("times/all_axes_output_rank2", named("times", output_rank=2), X(2, 3), W(2, 3, 2, 4))
row("times/param_left", T, W(4, 3), X(3, 1))
row("times/param_left_outer", T, W(4, 3), X(2))
row("times/param_left_matrix", T, W(4, 3), X(3, 2))
row("times/param_left_rank3", T, W(5, 4, 3), X(3, 2))
row("times/param_left_output_rank2", named("times", output_rank=2), W(4, 3), X(3, 2, 2))
row("times/batch_batch", T, X(2, 3), X(3, 4))
row("times/batch_batch_rank3", T, X(2, 3, 2), X(3, 2, 4))
row("times/outer", T, X(3), X(2))
row("times/dot", T, X(3), X(3, 1), departs="CNTK is wrong where both operands have rows and the result one column")
row("times/vector_matrix", T, X(3), X(3, 2))
row("times/const", T, X(2, 3), K(3, 4))
row("times/params", T, W(2, 3), W(3, 4))
row("times/scalar_out", T, X(3), W(3, 1))
row("times/one_in", T, X(1), W(1, 3))
row("times/keep_first", named("times", infer_input_rank_to_map=1), X(2, 3), W(3, 4))
row("times/keep_first_of3", named("times", infer_input_rank_to_map=1), X(2, 3, 2), W(3, 2, 4))
row("times/map_none", named("times", infer_input_rank_to_map=0), X(2, 3), W(2, 3, 4))
row("times/inferred", lambda C, x: C.times(x, C.parameter((C.InferredDimension, 4), name="W")), X(3))
row("times/inferred_rank2", lambda C, x: C.times(x, C.parameter((C.InferredDimension, 4), name="W"), infer_input_rank_to_map=0), X(2, 3))
row("times/inferred_keep_first", lambda C, x: C.times(x, C.parameter((C.InferredDimension, 4), name="W"), infer_input_rank_to_map=1), X(2, 3, 2))
row("times/operator", lambda C, x, w: x @ w, X(2, 3), W(3, 4))
row("times/shared", lambda C, x, w: C.times(C.times(x, w), w), X(3), W(3, 3))
row("times/larger", T, X(33), W(33, 17), rows=5, rtol=2e-5, atol=1e-5)
row("times/of_nothing", lambda C, x, w, b: C.times(x, w) + b, X(0), W(0, 3), W(3), golden=False)
row("times_transpose", named("times_transpose"), X(3), W(4, 3))
row("times_transpose/matrix", named("times_transpose"), X(2, 3), W(4, 3))
row("times_transpose/batch", named("times_transpose"), X(2, 3), X(4, 3))
row("times_transpose/param_left", named("times_transpose"), W(4, 3), X(2, 3))

# ---------------------------------------------------------------------------------------------------------- reductions
family("reduce")
REDUCTIONS = {
    "reduce_sum": "any",
    "reduce_mean": "any",
    "reduce_max": "distinct",
    "reduce_min": "distinct",
    "reduce_prod": "nonzero",
    "reduce_log_sum_exp": "any",
    "reduce_l1": "nonzero",
    "reduce_l2": "nonzero",
    "reduce_sum_square": "any",
}
for op, domain in sorted(REDUCTIONS.items()):
    x3, x2 = X(2, 3, 4, domain=domain), X(2, 3, domain=domain)
    row(op, named(op), x2, f8=True)
    row(op + "/all_static", lambda C, x, op=op: getattr(C, op)(x, C.Axis.all_static_axes()), x3)
    for axis in (0, 1, 2, -1):
        row("%s/axis%d" % (op, axis), named(op, axis), x3)
    row(op + "/axis0_drop", named(op, 0, keepdims=False), x3)
    row(op + "/axis1_drop", named(op, 1, keepdims=False), x3)
    row(op + "/axes02", named(op, (0, 2)), x3)
    row(op + "/axes12_drop", named(op, (1, 2), keepdims=False), x3)
    row(op + "/all_drop", named(op, (0, 1, 2), keepdims=False), x3)
    row(op + "/param", named(op, 0), W(2, 3, domain=domain))
    row(op + "/vector", named(op, 0), X(5, domain=domain))
for op in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_log_sum_exp", "reduce_prod"):
    domain = REDUCTIONS[op]
    row(op + "/batch", lambda C, x, op=op: getattr(C, op)(x, C.Axis.default_batch_axis()), X(2, 3, domain=domain), mixes_rows=True)
    row(op + "/all_axes", lambda C, x, op=op: getattr(C, op)(x, C.Axis.all_axes()), X(2, 3, domain=domain), mixes_rows=True)
row("reduce_log_sum_exp/wide", named("reduce_log_sum_exp"), X(6, domain="wide"), fd=False)
row("reduce_prod/zero", named("reduce_prod"), X(4, value=[[1, 0, 2, 3], [0, 0, 1, 2]]), rows=2, departs="CNTK gives the one value 0 no gradient", where=("d0",))
row("reduce_max/ties", named("reduce_max"), X(4, value=[[1, 3, 3, 2]]), rows=1, fd=False)
row("reduce_min/ties", named("reduce_min"), X(4, value=[[1, 3, 1, 2]]), rows=1, fd=False)
row("reduce_l2/zero", named("reduce_l2"), X(4, value=[[0, 0, 0, 0], [3, 4, 0, 0]]), rows=2, fd=False, diff=False)
for op in ("argmax", "argmin"):
    x3 = X(2, 3, 4, domain="distinct", grad=False)
    row(op, named(op), X(5, domain="distinct", grad=False), diff=False, exact=True)
    row(op + "/all", named(op), x3, diff=False, exact=True)
    for axis in (0, 1, -1):
        row("%s/axis%d" % (op, axis), named(op, axis), x3, diff=False, exact=True)
    row(op + "/ties", named(op, 0), X(4, value=[[1, 3, 3, 1]], grad=False), rows=1, diff=False, exact=True)
row("hardmax", named("hardmax"), X(5, domain="distinct"), diff=False, exact=True)
row("hardmax/matrix", named("hardmax"), X(2, 3, domain="distinct"), diff=False, exact=True)
row("hardmax/ties", named("hardmax"), X(4, value=[[1, 3, 3, 1]]), rows=1, diff=False, exact=True)
row("top_k", named("top_k", 2), X(5, domain="distinct"), f8=True)
row("top_k/axis0", named("top_k", 2, 0), X(4, 3, domain="distinct"))
row("top_k/middle", named("top_k", 2, 1), X(2, 4, 3, domain="distinct"))
row("top_k/all", named("top_k", 4), X(2, 4, domain="distinct"))
row("top_k/one", named("top_k", 1, -2), X(3, 2, domain="distinct"))
row("top_k/param", named("top_k", 3), W(2, 5, domain="distinct"))
row("top_k/values", lambda C, x: C.square(C.top_k(x, 2).outputs[0]), X(5, domain="distinct"))
row("top_k/ties", named("top_k", 2), X(4, value=[[1, 3, 3, 1]]), rows=1, fd=False, departs="CNTK takes equal values in no certain order; cogkit the first one first", where=("y1", "d0"))
row("top_k/edges", named("top_k", 4), X(6, value=[[1, np.nan, 3, -np.inf, np.inf, 2], [np.nan] * 6, [np.inf, np.nan, np.inf, 0, np.nan, -1]]), golden=False, diff=False)
# a single entry, and none: CNTK has no empty axes; of none a sum is 0, a product 1, a largest -inf, a smallest inf, a mean nan
for op, domain in sorted(REDUCTIONS.items()):
    row(op + "/single", named(op, 1), X(2, 1, domain=domain))
    row(op + "/single_all", named(op), X(1, domain=domain))
    row(op + "/number", named(op), X(domain=domain))
    row(op + "/numbers", lambda C, x, op=op: getattr(C, op)(x, C.Axis.all_axes()), X(domain=domain), mixes_rows=True, rtol=3e-5)
    row(op + "/one_row", lambda C, x, op=op: getattr(C, op)(x, C.Axis.default_batch_axis()), X(3, domain=domain), rows=1, mixes_rows=True, rtol=3e-5)
    row(op + "/empty", named(op, 0), X(0, 3), golden=False, fd=False)
    row(op + "/empty_all", named(op), X(2, 0), golden=False, fd=False)
    row(op + "/beside_empty", named(op, 1), X(0, 3), golden=False, fd=False)

# --------------------------------------------------------------------------------------------------------------- shape
family("shape")
row("reshape", named("reshape", (3, 2)), X(2, 3))
row("reshape/inferred", lambda C, x: C.reshape(x, (4, C.InferredDimension)), X(2, 3, 4))
row("reshape/flat", named("reshape", 6), X(2, 3))
row("reshape/rank0", named("reshape", ()), X(1))
row("reshape/middle", named("reshape", (3, 1, 2), 1, 3), X(2, 3, 2, 4))
row("reshape/begin", named("reshape", (2, 2), 1), X(3, 4))
row("reshape/negative", named("reshape", (2, 2), -1), X(3, 4))
row("reshape/end", named("reshape", (6,), 0, 2), X(2, 3, 4))
row("reshape/end_negative", named("reshape", (6,), 0, -1), X(2, 3, 4))
row("reshape/insert", named("reshape", (1,), 1, 1), X(2, 3))
row("reshape/param", named("reshape", (6,)), W(2, 3))
row("flatten", named("flatten"), X(2, 3, 4))
row("flatten/axis1", named("flatten", 1), X(2, 3, 4))
row("flatten/axis2", named("flatten", 2), X(2, 3, 4))
row("expand_dims", named("expand_dims", 0), X(2, 3))
row("expand_dims/middle", named("expand_dims", 1), X(2, 3))
row("expand_dims/last", named("expand_dims", -1), X(2, 3))
row("squeeze", named("squeeze"), X(1, 3, 1))
row("squeeze/axis", named("squeeze", 0), X(1, 3, 1))
row("squeeze/axes", named("squeeze", (0, 2)), X(1, 3, 1))
row("slice", named("slice", 0, 1, 3), X(4, 3), f8=True)
row("slice/axis1", named("slice", 1, 0, 2), X(4, 3))
row("slice/last", named("slice", -1, 1, 3), X(4, 3))
row("slice/negative", named("slice", 0, -3, -1), X(4, 3))
row("slice/to_end", named("slice", 0, 1, 0), X(4, 3))
row("slice/several", named("slice", [0, 1], [1, 0], [3, 2]), X(4, 3))
row("slice/stride", named("slice", 0, 0, 5, 2), X(6, 3))
row("slice/strides", named("slice", [0, 1], [1, 0], [6, 3], [2, 2]), X(6, 3))
row("slice/backwards", named("slice", 0, 0, 4, -1), X(4, 3))
row("slice/param", named("slice", 0, 0, 2), W(4, 3))
row("slice/twice", lambda C, x: C.slice(x, 0, 0, 2) * C.slice(x, 0, 1, 3), X(3, 4))
row("index/first", lambda C, x: x[0], X(4, 3))
row("index/column", lambda C, x: x[:, 1], X(4, 3))
row("index/range", lambda C, x: x[1:3], X(4, 3))
row("index/mixed", lambda C, x: x[1:3, 2], X(4, 3))
row("index/list", lambda C, x: x[[0, 2]], X(4, 3))
row("index/negative", lambda C, x: x[-1], X(4, 3))
row("splice", lambda C, x, y: C.splice(x, y, axis=0), X(2, 3), X(1, 3), f8=True)
row("splice/default", lambda C, x, y: C.splice(x, y), X(2, 3), X(2, 1))
row("splice/axis1", lambda C, x, y, z: C.splice(x, y, z, axis=1), X(2, 3), X(2, 1), X(2, 2))
row("splice/new_axis_front", lambda C, x, y: C.splice(x, y, axis=C.Axis.new_leading_axis()), X(2, 3), X(2, 3))
row("splice/vectors", lambda C, x, y: C.splice(x, y), X(3), X(2))
row("splice/param", lambda C, x, w: C.splice(x, w, axis=0), X(2, 3), W(2, 3))
row("splice/stretched", lambda C, x, y: C.splice(x, y, axis=1), X(3, 2), X(1, 4))
row("splice/stretched_param", lambda C, x, w: C.splice(x, w, axis=0), X(2, 1, 3), W(1, 4, 1))
row("splice/stretched_new_axis", lambda C, x, w: C.splice(x, w, axis=C.Axis.new_leading_axis()), X(2, 3), W(1, 3))
row("splice/same", lambda C, x: C.splice(x, x, axis=0), X(2, 3))
row("splice/const", lambda C, x, k: C.splice(x, k, axis=1), X(2, 3), K(2, 2))
row("transpose", named("transpose", (1, 0)), X(2, 3), f8=True)
row("transpose/rank3", named("transpose", (2, 0, 1)), X(2, 3, 4))
row("transpose/rank4", named("transpose", (0, 3, 1, 2)), X(2, 3, 4, 2))
row("transpose/same", named("transpose", (0, 1)), X(2, 3))
row("transpose/param", named("transpose", (1, 0)), W(2, 3))
row("swapaxes", named("swapaxes"), X(2, 3))
row("swapaxes/axes", named("swapaxes", 0, 2), X(2, 3, 4))
row("swapaxes/negative", named("swapaxes", -1, 0), X(2, 3, 4))
row("pad/constant", named("pad", [(1, 2), (0, 1)], 0, 0.5), X(2, 3))
row("pad/zero", named("pad", [(1, 1), (2, 0)]), X(2, 3))
row("pad/reflect", named("pad", [(1, 1), (2, 0)], 1), X(2, 3))
row("pad/symmetric", named("pad", [(1, 1), (2, 0)], 2), X(2, 3))
row("pad/image", named("pad", [(0, 0), (1, 1), (2, 2)]), X(2, 3, 4))
row("one_hot", named("one_hot", 4), X(3, domain="whole:4", grad=False), diff=False, exact=True)
row("one_hot/scalar", named("one_hot", 4), X(domain="whole:4", grad=False), diff=False, exact=True)
row("one_hot/axis0", named("one_hot", 4, False, 0), X(3, domain="whole:4", grad=False), diff=False, exact=True)
row("one_hot/matrix_axis1", named("one_hot", 4, False, 1), X(2, 3, domain="whole:4", grad=False), diff=False, exact=True)
row("one_hot/out_of_range", named("one_hot", 3), X(4, value=[[0, 1, 2, 3]], grad=False), rows=1, diff=False, exact=True)
row("gather", lambda C, i, w: C.gather(w, i), X(2, domain="whole:5", grad=False), W(5, 3))
row("gather/scalar_index", lambda C, i, w: C.gather(w, i), X(1, domain="whole:5", grad=False), W(5, 3))
row("gather/repeated", lambda C, i, w: C.gather(w, i), X(3, value=[[1, 1, 0], [1, 2, 1]], grad=False), W(5, 2), rows=2)
row("gather/axis", lambda C, i, w: C.gather(w, i, axis=1), X(2, domain="whole:3", grad=False), W(4, 3))
row("gather/axis_last", lambda C, i, w: C.gather(w, i, axis=-1), X(3, domain="whole:2", grad=False), W(4, 3, 2))
row("gather/axis0", lambda C, i, w: C.gather(w, i, axis=0), X(2, 2, domain="whole:4", grad=False), W(4, 3))
row("gather/axis_matrix", lambda C, i, w: C.gather(w, i, axis=1), X(1, 2, domain="whole:3", grad=False), W(4, 3), departs="CNTK puts the axes of the indices apart; cogkit where the axis was")
row("gather/const_index", lambda C, k, w: C.gather(w, k, axis=1), K(3, value=[2, 0, 2]), W(4, 3))
row("pad/param", named("pad", [(1, 0), (0, 2)]), W(2, 3))
row("pad/reflect_most", named("pad", [(2, 2)], 1), X(3))
row("pad/symmetric_most", named("pad", [(3, 3)], 2), X(3))
row("pad/none", named("pad", [(0, 0), (0, 0)], 1), X(2, 3))
row("slice/backwards_by_two", named("slice", 0, 0, 5, -2), X(6, 3))
row("slice/backwards_part", named("slice", 1, 1, 4, -1), X(2, 5))
row("slice/negative_by_two", named("slice", 0, -5, -1, 2), X(6, 3))
row("to_batch", lambda C, w: C.square(C.to_batch(w)), W(4, 3))
row("to_batch/meets", lambda C, x, w: x * C.to_batch(w), X(3, value=np.arange(12).reshape(4, 3) / 8.0), W(4, 3), rows=4)
row("to_batch/static", lambda C, x: C.to_batch(x) * 2.0, X(4, 2, role="static"))
row("unpack_batch", named("unpack_batch"), X(2, 3), mixes_rows=True)
row("unpack_batch/sum", lambda C, x: C.reduce_sum(C.square(C.unpack_batch(x)), axis=0), X(2, 3), mixes_rows=True)
row("unpack_batch/times", lambda C, x, y: C.times(C.transpose(C.unpack_batch(x), (1, 0)), C.unpack_batch(y)), X(2), X(3), mixes_rows=True)
row("unpack_batch/to_batch", lambda C, x: C.sigmoid(C.to_batch(C.reshape(C.unpack_batch(x), (C.InferredDimension, 3)))), X(2, 3), mixes_rows=True)
row("unpack_batch/softmax", lambda C, x: C.softmax(C.unpack_batch(x), axis=0), X(3), mixes_rows=True)
row("depth_to_space", named("depth_to_space", 2), X(8, 2, 3))
row("space_to_depth", named("space_to_depth", 2), X(2, 4, 6))
row("eye_like/square", lambda C, x: C.eye_like(x, sparse_output=False) * x, W(3, 3))
row("eye_like/tall", lambda C, x: C.eye_like(x, sparse_output=False), K(4, 2), diff=False)
row("eye_like/batch", lambda C, x: C.eye_like(x, sparse_output=False), X(4, grad=False), diff=False, mixes_rows=True)
row("eye_like", lambda C, x: C.eye_like(x, sparse_output=False), K(3, 4), diff=False)
row("combine", lambda C, x, y: C.combine(x + y, x * y), X(2, 3), X(2, 3))

# --------------------------------------------------------------------------------------------------------- convolution
family("convolution")


def conv(**kw):
    return lambda C, x, w: C.convolution(w, x, **kw)


P = lambda *spatial: [False] + list(spatial)  # noqa: E731 - the channel axis is never padded
row("convolution", conv(auto_padding=P(True, True)), X(2, 5, 6), W(3, 2, 3, 3), f8=True)
row("convolution/default", conv(), X(2, 5, 6), W(3, 2, 3, 3), golden=False)  # CNTK: pads channels, cannot run
row("convolution/valid", conv(auto_padding=P(False, False)), X(2, 5, 6), W(3, 2, 3, 3), f8=True)
row("convolution/pad_one_axis", conv(auto_padding=P(True, False)), X(2, 5, 6), W(3, 2, 3, 3))
row("convolution/1x1", conv(auto_padding=P(False, False)), X(3, 4, 4), W(5, 3, 1, 1))
row("convolution/1x1_stride2", conv(strides=(1, 2, 2), auto_padding=P(False, False)), X(3, 5, 4), W(5, 3, 1, 1))
for k in (1, 2, 3, 4, 5):
    for s in (1, 2, 3):
        for n in (6, 7):
            row("convolution/k%ds%dn%d" % (k, s, n), conv(strides=(1, s, s), auto_padding=P(True, True)), X(2, n, n), W(2, 2, k, k), golden=True)
for k, s, n in ((2, 2, 7), (3, 2, 6), (3, 2, 7), (3, 3, 7), (4, 2, 7)):
    row("convolution/valid_k%ds%dn%d" % (k, s, n), conv(strides=(1, s, s), auto_padding=P(False, False)), X(2, n, n), W(2, 2, k, k))
row("convolution/rectangular", conv(strides=(1, 2, 1), auto_padding=P(True, True)), X(2, 6, 5), W(3, 2, 2, 3))
row("convolution/dilated", conv(auto_padding=P(True, True), dilation=(1, 2, 2)), X(2, 7, 7), W(3, 2, 3, 3), golden=False)
row("convolution/dilated_valid", conv(auto_padding=P(False, False), dilation=(1, 2, 3)), X(2, 7, 8), W(3, 2, 3, 3), golden=False)
row("convolution/groups", conv(auto_padding=P(True, True), groups=2), X(4, 5, 5), W(6, 2, 3, 3))
row("convolution/groups_stride", conv(strides=(1, 2, 2), auto_padding=P(True, True), groups=2), X(4, 5, 5), W(2, 2, 3, 3))
row("convolution/depthwise", conv(auto_padding=P(True, True), groups=4), X(4, 5, 5), W(4, 1, 3, 3))
row("convolution/1d", conv(auto_padding=P(True)), X(2, 7), W(3, 2, 3), f8=True)
row("convolution/1d_valid_stride", conv(strides=(1, 2), auto_padding=P(False)), X(2, 7), W(3, 2, 3))
row("convolution/1d_even", conv(auto_padding=P(True)), X(2, 7), W(3, 2, 4))
row("convolution/3d", conv(auto_padding=P(True, True, True)), X(2, 3, 4, 4), W(2, 2, 3, 3, 3))
row("convolution/3d_valid_stride", conv(strides=(1, 1, 2, 2), auto_padding=P(False, False, False)), X(2, 3, 5, 4), W(2, 2, 2, 3, 2))
row("convolution/no_channels", lambda C, x, w: C.convolution(w, x, auto_padding=[True, True], reduction_rank=0), X(5, 6), W(3, 3))
row("convolution/const_filter", conv(auto_padding=P(True, True)), X(2, 5, 5), K(3, 2, 3, 3))
row("convolution/batch_one", conv(auto_padding=P(True, True)), X(2, 5, 5), W(3, 2, 3, 3), rows=1)
row("convolution/channels16", conv(auto_padding=P(True, True)), X(16, 5, 5), W(16, 16, 3, 3), rows=2, golden=False, rtol=2e-5, atol=1e-5)
row("convolution/channels16_stride", conv(strides=(1, 2, 2), auto_padding=P(True, True)), X(16, 6, 6), W(32, 16, 3, 3), rows=2, golden=False, rtol=2e-5, atol=1e-5)
row(
    "convolution/chain16",
    lambda C, x, v, w: C.convolution(w, C.relu(C.convolution(v, x, auto_padding=P(True, True))), auto_padding=P(True, True)),
    X(3, 6, 6),
    W(16, 3, 3, 3),
    W(16, 16, 3, 3),
    rows=2,
    golden=False,
    fd=False,
    rtol=2e-5,
    atol=1e-5,
)


def deconv(**kw):
    return lambda C, x, w: C.convolution_transpose(w, x, **kw)


row("convolution_transpose", deconv(strides=(1, 2, 2), auto_padding=P(True, True)), X(3, 3, 4), W(3, 2, 3, 3), f8=True)
row("convolution_transpose/valid", deconv(strides=(1, 2, 2), auto_padding=P(False, False)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/stride1", deconv(auto_padding=P(True, True)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/stride1_valid", deconv(auto_padding=P(False, False)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/k4", deconv(strides=(1, 2, 2), auto_padding=P(True, True)), X(2, 3, 4), W(2, 2, 4, 4))
row("convolution_transpose/k2", deconv(strides=(1, 2, 2), auto_padding=P(True, True)), X(2, 3, 4), W(2, 2, 2, 2))
row("convolution_transpose/k2_valid", deconv(strides=(1, 2, 2), auto_padding=P(False, False)), X(2, 3, 4), W(2, 2, 2, 2))
row("convolution_transpose/s3", deconv(strides=(1, 3, 3), auto_padding=P(True, True)), X(2, 3, 3), W(2, 2, 3, 3))
row("convolution_transpose/output_shape", deconv(strides=(1, 2, 2), auto_padding=P(True, True), output_shape=(2, 6, 8)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/output_shape_odd", deconv(strides=(1, 2, 2), auto_padding=P(True, True), output_shape=(2, 5, 7)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/output_shape_valid", deconv(strides=(1, 2, 2), auto_padding=P(False, False), output_shape=(2, 8, 10)), X(3, 3, 4), W(3, 2, 3, 3))
row("convolution_transpose/1d", deconv(strides=(1, 2), auto_padding=P(True)), X(3, 4), W(3, 2, 3))
row("convolution_transpose/dilated", deconv(strides=(1, 1, 1), auto_padding=P(False, False), dilation=(1, 2, 2)), X(2, 3, 3), W(2, 2, 3, 3), golden=False)

# ------------------------------------------------------------------------------------------------------------- pooling
family("pooling")


def pool(kind, window, **kw):
    return lambda C, x: C.pooling(x, getattr(C, kind), window, **kw)


for kind, domain in (("MAX_POOLING", "distinct"), ("AVG_POOLING", "any")):
    op = "pooling/" + kind[:3].lower()
    x = X(2, 6, 7, domain=domain)
    row(op, pool(kind, (2, 2), strides=(2, 2)), x, f8=True)
    for k in (2, 3, 4):
        for s in (1, 2, 3):
            row(op + "_k%ds%d" % (k, s), pool(kind, (k, k), strides=(s, s)), x)
            row(op + "_k%ds%d_pad" % (k, s), pool(kind, (k, k), strides=(s, s), auto_padding=[True, True]), x)
    row(op + "_default_strides", pool(kind, (2, 2)), x)
    row(op + "_ceil", pool(kind, (3, 3), strides=(2, 2), ceil_out_dim=True), x)
    row(op + "_ceil_k2s2", pool(kind, (2, 2), strides=(2, 2), ceil_out_dim=True), X(2, 5, 7, domain=domain))
    # CNTK writes outside its memory where the last window holds no value: a window must begin inside (here: 2, 3 windows)
    row(op + "_ceil_k2s3", pool(kind, (2, 2), strides=(3, 3), ceil_out_dim=True), x, golden=False)
    row(op + "_rectangular", pool(kind, (3, 2), strides=(1, 2), auto_padding=[True, False]), x)
    row(op + "_whole", pool(kind, (6, 7)), x)
    row(op + "_1d", pool(kind, (3,), strides=(2,), auto_padding=[True]), X(2, 7, domain=domain))
    row(op + "_3d", pool(kind, (2, 2, 2), strides=(2, 2, 2)), X(2, 4, 4, 5, domain=domain))
    row(op + "_channel_window", pool(kind, (2, 2, 2), strides=(2, 2, 2)), X(4, 4, 4, domain=domain))
    row(op + "_16", pool(kind, (3, 3), strides=(2, 2), auto_padding=[True, True]), X(16, 5, 5, domain=domain), rows=2, golden=False)
row("global_pooling/max", lambda C, x: C.global_pooling(x, C.MAX_POOLING), X(2, 5, 6, domain="distinct"), golden=False)
row("global_pooling/avg", lambda C, x: C.global_pooling(x, C.AVG_POOLING), X(16, 5, 6), golden=False)
row("pooling/avg_include_pad", pool("AVG_POOLING", (3, 3), strides=(2, 2), auto_padding=[True, True], include_pad=True), X(2, 6, 7))
row("pooling/avg_include_pad_s1", pool("AVG_POOLING", (3, 3), strides=(1, 1), auto_padding=[True, True], include_pad=True), X(2, 5, 5))
row("pooling/avg_ceil_include_pad", pool("AVG_POOLING", (3, 3), strides=(2, 2), ceil_out_dim=True, include_pad=True), X(2, 6, 7))
row("pooling/max_ties", pool("MAX_POOLING", (2, 2), strides=(2, 2)), X(1, 2, 4, value=[[[[1, 3, 2, 2], [3, 3, 2, 2]]]]), rows=1, fd=False)
row(
    "unpooling",
    lambda C, x: C.unpooling(C.pooling(x, C.MAX_POOLING, (2, 2), strides=(2, 2)), x, C.MAX_UNPOOLING, (2, 2), strides=(2, 2)),
    X(2, 4, 6, domain="distinct"),
    departs="CNTK's gradient is not the slope",
    where=("d0",),
)

# ------------------------------------------------------------------------------------------------------------- spatial
family("spatial")
row("depth_to_space/three", named("depth_to_space", 3), X(18, 2, 2))
row("depth_to_space/one", named("depth_to_space", 1), X(3, 2, 2))
row("depth_to_space/param", named("depth_to_space", 2), W(4, 2, 3))
row("space_to_depth/three", named("space_to_depth", 3), X(2, 3, 6))
row("space_to_depth/back", lambda C, x: C.depth_to_space(C.space_to_depth(x, 2), 2) * x, X(2, 4, 2))
row("image_scaler", named("image_scaler", 0.5, [1.0, -2.0]), X(2, 3, 4))
row("crop_manual", named("crop_manual", 2, 1), X(2, 6, 7), X(3, 4, 5, grad=False))
row("crop_manual/matrix", named("crop_manual", 0, 3), X(6, 7), X(3, 7, grad=False))
row("crop_manual/same", named("crop_manual", 0, 0), X(2, 3, 4), X(2, 3, 4, grad=False))


def crops(upper, lower, **kw):
    """Crops what `upper` makes of an image to what `lower` makes of it; w is a kernel of one filter."""
    return lambda C, x, w: C.crop_automatic(upper(C, x, w), lower(C, x, w), **kw)


def shrink(pad, size=1):
    return lambda C, x, w: C.convolution(w, x, strides=(size, size), auto_padding=[False, pad, pad])


def grow(k, size, pad=False):
    return lambda C, x: C.convolution_transpose(C.constant(np.ones((1, 1, k, k), x.dtype)), x, strides=(size, size), auto_padding=[False, pad, pad])


def same(C, x, w):
    return x


LARGEST = "CNTK takes the largest gradient of a window for that of its largest value"
row("unpooling/overlap", lambda C, v, x: C.unpooling(v, x, C.MAX_UNPOOLING, (3, 3), auto_padding=[True, True]), X(2, 4, 5), X(2, 4, 5, domain="distinct"), departs="a place that is the largest of several windows: cogkit gives their mean, CNTK one of them")
row("unpooling/other", lambda C, v, x: C.unpooling(v, x, C.MAX_UNPOOLING, (2, 2), strides=(2, 2)), X(2, 2, 3), X(2, 4, 6, domain="distinct", grad=False), departs=LARGEST, where=("d0",))
row("unpooling/pad", lambda C, v, x: C.unpooling(v, x, C.MAX_UNPOOLING, (2, 2), strides=(2, 2), auto_padding=[True, True]), X(2, 3, 3), X(2, 5, 6, domain="distinct", grad=False), departs=LARGEST, where=("d0",))
row("unpooling/1d", lambda C, v, x: C.unpooling(v, x, C.MAX_UNPOOLING, (2,), strides=(2,)), X(2, 3), X(2, 6, domain="distinct", grad=False), departs=LARGEST, where=("d0",))
CROPPED = (X(1, 9, 9), W(1, 1, 3, 3))
row("crop_automatic", crops(same, shrink(False)), *CROPPED)
row("crop_automatic/same", crops(lambda C, x, w: C.sigmoid(x), same), *CROPPED)
row("crop_automatic/up", crops(lambda C, x, w: grow(4, 2)(C, shrink(True, 2)(C, x, w)), same), *CROPPED)
row("crop_automatic/up3", crops(lambda C, x, w: grow(4, 3)(C, shrink(False, 3)(C, x, w)), lambda C, x, w: shrink(False)(C, shrink(False)(C, x, w), w)), *CROPPED)
row("crop_automatic/up_pad", crops(lambda C, x, w: grow(3, 2, True)(C, shrink(True, 2)(C, x, w)), shrink(True)), *CROPPED)
row("crop_automatic/pool", crops(lambda C, x, w: grow(4, 2)(C, C.pooling(x, C.AVG_POOLING, (3, 3), strides=(2, 2))), shrink(False)), *CROPPED)
row("crop_automatic/pool_pad", crops(lambda C, x, w: grow(4, 2)(C, C.pooling(x, C.AVG_POOLING, (2, 2), strides=(2, 2), auto_padding=[True, True])), shrink(False)), *CROPPED)
row("crop_automatic/even_windows", crops(lambda C, x, w: grow(2, 3, True)(C, x), lambda C, x, w: shrink(False)(C, grow(3, 3)(C, x), w)), *CROPPED)
row("crop_automatic/half_before", crops(lambda C, x, w: C.pooling(x, C.AVG_POOLING, (4, 4), strides=(1, 1), auto_padding=[True, True]), same), *CROPPED)
row("crop_automatic/thin", crops(lambda C, x, w: C.pooling(x, C.AVG_POOLING, (1, 2)), lambda C, x, w: C.pooling(x, C.AVG_POOLING, (1, 3))), *CROPPED)
row("crop_automatic/two_ways", crops(lambda C, x, w: C.tanh(x) * C.sigmoid(x), shrink(False)), *CROPPED)
row("crop_automatic/cropped", crops(lambda C, x, w: C.crop_manual(x, shrink(False)(C, x, w), 1, 1), lambda C, x, w: shrink(False)(C, shrink(False)(C, x, w), w)), *CROPPED)
row("crop_automatic/sliced", crops(lambda C, x, w: C.slice(x, 1, 1, 9), shrink(False)), *CROPPED, golden=False)  # CNTK: convolutions, pools and pointwise ops
row("crop_automatic/splice", crops(lambda C, x, w: C.splice(x, x, axis=0), shrink(False)), *CROPPED, golden=False)
row("crop_automatic/layer", lambda C, x: C.crop_automatic(x, C.layers.Sequential([C.layers.Convolution2D((3, 3), 2), C.layers.MaxPooling((2, 2))])(x)), X(1, 9, 9), fd=False)
row("crop_automatic_with_ancestors", lambda C, x, y, w: C.crop_automatic_with_ancestors(grow(4, 2)(C, shrink(True, 2)(C, x, w)), shrink(False)(C, y, w), x, y), X(1, 9, 9), X(1, 8, 7, grad=False), W(1, 1, 3, 3))
UNSIGNED = "CNTK counts cells from below 0, and sizes of regions that end before they begin, in unsigned numbers"
ROIS = [[0, 0, 6, 5], [1, 1, 3, 3], [2, 0, 2, 5]]


def roi(kind="MAX_POOLING", bins=(3, 3), scale=1.0):
    return lambda C, x, r: C.roipooling(x, r, getattr(C, kind), bins, scale)


row("roipooling", roi(), X(2, 6, 7, domain="distinct"), X(3, 4, value=[ROIS, ROIS[::-1], [[0.5, 1.5, 2.5, 3.5], [0.4, 0.6, 3.49, 3.51], [3, 1, 5.2, 4.9]]], grad=False), f8=True)
row("roipooling/wide", roi(bins=(2, 3)), X(2, 6, 7, domain="distinct"), X(3, 4, value=[ROIS] * 3, grad=False))
row("roipooling/outside", roi(bins=(3, 2)), X(2, 6, 7, domain="distinct"), X(3, 4, value=[[[-2, -2, 9, 9], [5, 5, 9, 9], [8, 8, 9, 9]]], grad=False), rows=1, departs=UNSIGNED)
row("roipooling/turned", roi(bins=(3, 2)), X(2, 6, 7, domain="distinct"), X(3, 4, value=[[[5, 5, 1, 1], [6, 0, 0, 5], [3, 3, 3, 3]]], grad=False), rows=1, departs=UNSIGNED)
row("roipooling/scaled", roi(scale=0.5), X(2, 6, 7, domain="distinct"), X(2, 4, value=[[[0, 0, 12, 10], [1, 3, 7, 9]]], grad=False), rows=1)
row("roipooling/regions_of_all", roi(), X(2, 6, 7, domain="distinct"), K(3, 4, value=ROIS), golden=False)
row("roipooling/image_of_all", roi(), W(2, 6, 7, domain="distinct"), X(3, 4, value=[ROIS] * 2, grad=False), rows=2, golden=False)
row("roipooling/average", roi("AVG_POOLING", (2, 3)), X(2, 6, 7), X(3, 4, value=[ROIS] * 3, grad=False), golden=False)
row("roipooling/average_outside", roi("AVG_POOLING", (3, 2)), X(2, 6, 7), X(3, 4, value=[[[-2, -2, 9, 9], [5, 5, 9, 9], [8, 8, 9, 9]]], grad=False), rows=1, golden=False)
row("roipooling/ties", roi(bins=(1, 1)), X(1, 2, 2, value=[[[[1, 1], [1, 1]]]]), X(1, 4, value=[[[0, 0, 1, 1]]], grad=False), rows=1, fd=False)

# the same behind a convolution of 16 channels, whose format is another one
BLOCKED = dict(rows=2, golden=False, fd=False, rtol=3e-5, atol=1e-5)


def blocked(f):
    return lambda C, x, w, *more: f(C, C.convolution(w, x, auto_padding=P(True, True)), *more)


for op, f in (
    ("crop_manual", lambda C, y: C.crop_manual(y, y[:, :3, :4], 1, 2)),
    ("depth_to_space", lambda C, y: C.depth_to_space(y, 2)),
    ("space_to_depth", lambda C, y: C.space_to_depth(y, 2)),
    ("unpooling", lambda C, y: C.unpooling(C.pooling(y, C.MAX_POOLING, (2, 2), strides=(2, 2)), y, C.MAX_UNPOOLING, (2, 2), strides=(2, 2))),
    ("local_response_normalization", named("local_response_normalization", 2, 1.0, 0.5, 0.75)),
    ("mean_variance_normalization", named("mean_variance_normalization")),
    ("image_scaler", lambda C, y: C.image_scaler(y, 0.5, list(range(16)))),
    ("top_k", lambda C, y: C.top_k(y, 3, axis=0)),
    ("unpack_batch", lambda C, y: C.to_batch(C.unpack_batch(y) * 2.0)),
):
    row(op + "/16", blocked(f), X(16, 6, 6), W(16, 16, 3, 3), mixes_rows=op == "unpack_batch", **BLOCKED)
row("roipooling/16", blocked(lambda C, y, r: C.roipooling(y, r, C.MAX_POOLING, (2, 2), 1.0)), X(16, 6, 7), W(16, 16, 3, 3), K(3, 4, value=ROIS), **BLOCKED)

# ------------------------------------------------------------------------------------------------------- normalisation
family("normalisation")


def batch_norm(spatial, **kw):
    def build(C, x, scale, bias):
        shape = (x.shape[0],) if spatial else x.shape
        kw.setdefault("epsilon", 1e-5)
        mean = C.constant(0.25, shape=shape, dtype=x.dtype)
        var = C.constant(1.5, shape=shape, dtype=x.dtype)
        count = C.constant(0, shape=(), dtype=x.dtype)
        return C.batch_normalization(x, scale, bias, mean, var, spatial, running_count=count, use_cudnn_engine=False, **kw)

    return build


NORM = dict(mode="train", mixes_rows=True, rtol=3e-5, atol=3e-6)
row("batch_normalization", batch_norm(True), X(2, 3, 3), W(2, domain="positive"), W(2), f8=True, **NORM)
row("batch_normalization/vector", batch_norm(False), X(4), W(4, domain="positive"), W(4), f8=True, rows=5, **NORM)
row("batch_normalization/per_value", batch_norm(False), X(2, 3), W(2, 3, domain="positive"), W(2, 3), rows=4, **NORM)
row("batch_normalization/epsilon", batch_norm(True, epsilon=0.1), X(2, 3, 3), W(2, domain="positive"), W(2), **NORM)
row("batch_normalization/spatial_vector", batch_norm(True), X(3), W(3, domain="positive"), W(3), rows=5, **NORM)
row("batch_normalization/time_constant", batch_norm(True, normalization_time_constant=7), X(2, 4), W(2, domain="positive"), W(2), **NORM)
row("batch_normalization/16", batch_norm(True), X(16, 4, 4), W(16, domain="positive"), W(16), rows=2, golden=False, **NORM)
row("mean_variance_normalization", named("mean_variance_normalization"), X(2, 3, 4), rtol=3e-5)
row("mean_variance_normalization/across", named("mean_variance_normalization", 1e-5, True), X(2, 3, 4), rtol=3e-5)
row("local_response_normalization", named("local_response_normalization", 2, 1.0, 0.5, 0.75), X(6, 3, 3), rtol=3e-5)
row("mean_variance_normalization/centre", named("mean_variance_normalization", 1e-5, False, False), X(2, 3, 4), rtol=3e-5)
row("mean_variance_normalization/centre_across", named("mean_variance_normalization", 1e-5, True, False), X(2, 3, 4), rtol=3e-5)
row("mean_variance_normalization/epsilon", named("mean_variance_normalization", 0.5), X(2, 3, 4), rtol=3e-5)
row("mean_variance_normalization/vector", named("mean_variance_normalization"), X(5), rtol=3e-5)
row("mean_variance_normalization/matrix", named("mean_variance_normalization"), X(2, 4), rtol=3e-5)
row("mean_variance_normalization/flat", named("mean_variance_normalization", 0.25), X(2, 3, value=np.ones((1, 2, 3))), rows=1, diff=False)
row("per_dim_mean_variance_normalize", named("per_dim_mean_variance_normalize"), X(2, 3), K(2, 3), K(2, 3))
row("per_dim_mean_variance_normalize/row", named("per_dim_mean_variance_normalize"), X(2, 3), K(3), K(3))
row("per_dim_mean_variance_normalize/params", named("per_dim_mean_variance_normalize"), X(3), W(3, grad=False), W(3, grad=False))
row("local_response_normalization/radius0", named("local_response_normalization", 0, 2.0, 0.5, 0.75), X(4, 2, 3), rtol=3e-5)
row("local_response_normalization/wide", named("local_response_normalization", 3, 1.5, 0.5, 0.5), X(4, 3, 2), rtol=3e-5, departs="CNTK cuts a window of more than the channels, off its centre")
row("local_response_normalization/1d", named("local_response_normalization", 1, 1.0, 0.5, 0.75), X(5, 3), golden=False, rtol=3e-5)
row("local_response_normalization/3d", named("local_response_normalization", 1, 1.0, 0.5, 0.75), X(5, 2, 2, 3), golden=False, rtol=3e-5)
row("dropout/eval", named("dropout", 0.5), X(4, 3), diff=False, exact=True)
row("dropout/zero", named("dropout", 0.0), X(4, 3), mode="train")

# -------------------------------------------------------------------------------------------------- softmax and losses
family("loss")
row("softmax", named("softmax"), X(5), f8=True)
row("softmax/all", named("softmax"), X(2, 3))
for axis in (0, 1, -1):
    row("softmax/axis%d" % axis, named("softmax", axis), X(2, 3))
    row("log_softmax/axis%d" % axis, named("log_softmax", axis), X(2, 3))
row("softmax/wide", named("softmax"), X(6, domain="wide"), fd=False)
row("softmax/param", named("softmax"), W(5))
row("log_softmax", named("log_softmax"), X(5), f8=True)
row("log_softmax/all", named("log_softmax"), X(2, 3))
row("log_softmax/wide", named("log_softmax"), X(6, domain="wide"), fd=False)
CROSSED = "CNTK multiplies every row of the matrix with every row; cogkit works along the last axis"
CE = named("cross_entropy_with_softmax")
row("cross_entropy_with_softmax", CE, X(5), X(5, domain="onehot", grad=False), f8=True)
row("cross_entropy_with_softmax/soft", CE, X(5), X(5, domain="soft", grad=False), f8=True)
row("cross_entropy_with_softmax/gradient_of_labels", CE, X(5), X(5, domain="soft"))
row("cross_entropy_with_softmax/not_normalised", CE, X(5), X(5, domain="positive", grad=False))
row("cross_entropy_with_softmax/matrix", CE, X(2, 3), X(2, 3, domain="soft", grad=False), departs=CROSSED)
row("cross_entropy_with_softmax/axis0", named("cross_entropy_with_softmax", axis=0), X(2, 3), X(2, 3, domain="soft", grad=False))
row("cross_entropy_with_softmax/axis1", named("cross_entropy_with_softmax", axis=1), X(2, 3), X(2, 3, domain="soft", grad=False))
row("cross_entropy_with_softmax/wide", CE, X(6, domain="wide"), X(6, domain="onehot", grad=False), fd=False)
row("cross_entropy_with_softmax/param", CE, W(5), X(5, domain="onehot", grad=False))
row("cross_entropy_with_softmax/mean", lambda C, x, y: C.reduce_mean(C.cross_entropy_with_softmax(x, y), C.Axis.all_axes()), X(5), X(5, domain="onehot", grad=False), mixes_rows=True)
row("cross_entropy_with_softmax/dense", lambda C, x, w, b, y: C.cross_entropy_with_softmax(C.times(x, w) + b, y), X(3), W(3, 4), W(4), X(4, domain="onehot", grad=False))
row("squared_error", named("squared_error"), X(4), X(4), f8=True)
row("squared_error/matrix", named("squared_error"), X(2, 3), X(2, 3))
row("squared_error/param", named("squared_error"), X(4), W(4))
row("binary_cross_entropy", named("binary_cross_entropy"), X(4, domain="probability"), X(4, domain="binary", grad=False), f8=True)
row("binary_cross_entropy/soft", named("binary_cross_entropy"), X(4, domain="probability"), X(4, domain="probability", grad=False))
row("weighted_binary_cross_entropy", named("weighted_binary_cross_entropy"), X(1, domain="probability"), X(1, domain="binary", grad=False), X(1, domain="positive", grad=False), later=True, mixes_rows=True, departs="CNTK's gradient lacks the factor n / sum(w)", where=("d0",))
ERR = dict(diff=False, exact=True)
row("classification_error", named("classification_error"), X(5, domain="distinct"), X(5, domain="onehot"), rows=8, **ERR)
row(
    "classification_error/top2",
    named("classification_error", topN=2),
    X(5, domain="distinct"),
    X(5, domain="onehot"),
    rows=8,
    departs="CNTK gives one sum for the minibatch; cogkit a value per sample, as for topN=1",
    **ERR,
)
row("classification_error/matrix", named("classification_error"), X(3, 4, domain="distinct"), X(3, 4, domain="onehot"), rows=5, departs=CROSSED, **ERR)
row("classification_error/axis0", named("classification_error", axis=0), X(3, 4, domain="distinct"), X(3, 4, domain="onehot"), rows=5, **ERR)
row("classification_error/ties", named("classification_error"), X(4, value=[[1, 3, 3, 1], [1, 3, 3, 1]]), X(4, value=[[0, 1, 0, 0], [0, 0, 1, 0]]), rows=2, **ERR)
row("classification_error/soft", named("classification_error"), X(5, domain="distinct"), X(5, domain="soft"), rows=8, **ERR)
row("cosine_distance", named("cosine_distance"), X(4), X(4), later=True)

# ------------------------------------------------------------------------------- samples, ranks and losses over many classes
family("sampled")
RANKED = dict(rows=6, mixes_rows=True, fd=False)  # the gradient of LambdaRank is no slope; CNTK takes rows of a query as sorted by gain
GAIN, QUERY = X(1, value=[[7], [3], [1], [2], [1], [0]], grad=False), X(1, value=[[1], [1], [1], [4], [4], [4]], grad=False)
UNSCALED = "CNTK does not multiply the gradient by the one that comes from above"
row("lambda_rank", named("lambda_rank"), X(1, domain="distinct"), GAIN, QUERY, departs=UNSCALED, where=("d0",), **RANKED)
row("lambda_rank/one", named("lambda_rank"), X(1, domain="distinct"), X(1, value=[[9], [7], [3], [2], [1], [0]], grad=False), X(1, value=[[2]] * 6, grad=False), departs=UNSCALED, where=("d0",), **RANKED)
row("lambda_rank/numbers", named("lambda_rank"), X(domain="distinct"), X(value=[5, 2, 1], grad=False), X(value=[1, 1, 1], grad=False), rows=3, mixes_rows=True, fd=False, departs=UNSCALED, where=("d0",))
row("ndcg_at_1", named("ndcg_at_1"), X(1, domain="distinct", grad=False), GAIN, QUERY, rows=6, mixes_rows=True, diff=False)
row("ndcg_at_1/shuffled", named("ndcg_at_1"), X(1, domain="distinct", grad=False), X(1, domain="whole:4", grad=False), X(1, value=[[1], [1], [2], [2], [2], [2]], grad=False), rows=6, mixes_rows=True, diff=False)
NEGATIVES = named("cosine_distance_with_negative_samples", 1, 2)
row("cosine_distance_with_negative_samples", NEGATIVES, X(4), X(4), rows=5, mixes_rows=True, f8=True)
row("cosine_distance_with_negative_samples/far", named("cosine_distance_with_negative_samples", 2, 5), X(4), X(4), rows=4, mixes_rows=True)
row("fmeasure", named("fmeasure"), X(2, 3, 4, domain="probability"), X(2, 3, 4, domain="binary", grad=False))
row("fmeasure/beta", named("fmeasure", 2), X(3, 4, domain="probability"), X(3, 4, domain="probability"), f8=True)
row("fmeasure/vector", named("fmeasure"), X(5, domain="probability"), X(5, domain="probability"))
row("focal_loss", named("focal_loss"), X(5), X(5, domain="onehot", grad=False), golden=False)
row("focal_loss/soft", named("focal_loss", 1.5, 0.25, 0), X(3, 4), X(3, 4, domain="soft"), golden=False)
row("focal_loss/each", lambda C, x, y, a: C.focal_loss(x, y, 0.5, a), X(4), X(4, domain="onehot", grad=False), W(4, domain="positive"), golden=False)
row("focal_loss/none", named("focal_loss", 0), X(4), X(4, domain="onehot", grad=False), golden=False)
ONE = K(4, value=[0, 0, 2, 0])  # a class that is certain to be drawn
row("random_sample/certain", lambda C, w, x: C.times(C.random_sample(w, 3, True), x), ONE, W(4, 2), diff=False)
row("random_sample_inclusion_frequency", named("random_sample_inclusion_frequency", 5, True), K(4, value=[1, 3, 0, 4]), diff=False)
row("random_sample_inclusion_frequency/once", named("random_sample_inclusion_frequency", 2, False), K(5, value=[1, 3, 0, 4, 2]), diff=False, golden=False)
row("random_sample_inclusion_frequency/all", named("random_sample_inclusion_frequency", 4, False), K(5, value=[1, 3, 0, 4, 2]), diff=False, golden=False)
NCE = lambda C, x, y, w, b, q: C.nce_loss(w, b, x, y, q, num_samples=3)  # noqa: E731
THIRD = X(4, value=[[0, 0, 1, 0]] * 3, grad=False)
row("nce_loss/certain", NCE, X(3), THIRD, W(4, 3), W(4, 1), ONE, f8=True)
row("nce_loss/vector", NCE, X(3), THIRD, W(4, 3), W(4), ONE, golden=False)
row("sampled_softmax_loss/all", lambda C, x, y, w, b, q: C.sampled_softmax_loss(w, b, x, y, q, 4, False, seed=1), X(3), X(4, domain="onehot", grad=False), W(4, 3), W(4, 1), K(4, domain="positive"), golden=False)
row("hierarchical_softmax_layer", lambda C, x, y: C.hierarchical_softmax_layer(x, y, 10)[0], X(3), X(1, domain="whole:10", grad=False), rows=5)
row("hierarchical_softmax_layer/groups", lambda C, x, y: C.hierarchical_softmax_layer(x, y, 7, 3)[0], X(3), X(1, domain="whole:7", grad=False), rows=5)
row("hierarchical_softmax_layer/every", lambda C, x, y: C.combine(C.hierarchical_softmax_layer(x, y, 7, 3)[2]), X(3), X(1, domain="whole:7", grad=False), rows=2)

# -------------------------------------------------------------------------------------------------------------- layers
family("layer")


def layer(make):
    """A build that applies a layer; `make(L, C)` gives it. Its parameters get values by name and shape."""
    return lambda C, x: make(C.layers, C)(x)


row("Dense", layer(lambda L, C: L.Dense(4)), X(3), f8=True)
row("Dense/activation", layer(lambda L, C: L.Dense(4, activation=C.tanh)), X(3))
row("Dense/no_bias", layer(lambda L, C: L.Dense(4, bias=False)), X(3))
row("Dense/tuple", layer(lambda L, C: L.Dense((2, 4))), X(3))
row("Dense/image", layer(lambda L, C: L.Dense(4)), X(2, 3, 2))
row("Dense/image_tuple", layer(lambda L, C: L.Dense((2, 4))), X(2, 3))
row("Dense/map_rank1", layer(lambda L, C: L.Dense(4, map_rank=1)), X(2, 3, 2))
row("Dense/map_rank2", layer(lambda L, C: L.Dense(4, map_rank=2)), X(2, 3, 2))
row("Dense/input_rank1", layer(lambda L, C: L.Dense(4, input_rank=1)), X(2, 3))
row("Dense/input_rank2", layer(lambda L, C: L.Dense(4, input_rank=2)), X(2, 3, 2))
row("Dense/init_values", layer(lambda L, C: L.Dense(2, init=np.arange(6.0, dtype="float32").reshape(3, 2), init_bias=1.0)), X(3), golden=False)
row("Embedding", layer(lambda L, C: L.Embedding(4)), X(5, domain="onehot", grad=False))
row("Convolution", layer(lambda L, C: L.Convolution((3, 3), 4)), X(2, 5, 6), f8=True)
row("Convolution/pad", layer(lambda L, C: L.Convolution((3, 3), 4, pad=True, activation=C.tanh)), X(2, 5, 6))
row("Convolution/stride", layer(lambda L, C: L.Convolution((3, 3), 4, strides=2, pad=True)), X(2, 5, 6))
row("Convolution/no_bias", layer(lambda L, C: L.Convolution((3, 3), 4, bias=False)), X(2, 5, 6))
row("Convolution/rank1", layer(lambda L, C: L.Convolution(3, 4, pad=True)), X(2, 7))
row("Convolution/no_filters", layer(lambda L, C: L.Convolution((3, 3), pad=True)), X(2, 5, 6))
row("Convolution/no_reduction", layer(lambda L, C: L.Convolution((3, 3), 4, reduction_rank=0, pad=True)), X(5, 6))
row("Convolution/dilated", layer(lambda L, C: L.Convolution((3, 3), 4, dilation=2, pad=True)), X(2, 7, 7), golden=False)
row("Convolution1D", layer(lambda L, C: L.Convolution1D(3, 4)), X(2, 7))
row("Convolution2D", layer(lambda L, C: L.Convolution2D((3, 3), 4, pad=True, strides=(2, 1))), X(2, 5, 6))
row("Convolution2D/number", layer(lambda L, C: L.Convolution2D((2, 2), 4, pad=(True, False))), X(2, 5, 6))
row("Convolution3D", layer(lambda L, C: L.Convolution3D((2, 2, 2), 3)), X(2, 3, 4, 4))
row("ConvolutionTranspose", layer(lambda L, C: L.ConvolutionTranspose((3, 3), 2, strides=2, pad=True)), X(3, 3, 4))
row("ConvolutionTranspose/output_shape", layer(lambda L, C: L.ConvolutionTranspose((3, 3), 2, strides=2, pad=True, output_shape=(6, 8))), X(3, 3, 4))
row("ConvolutionTranspose1D", layer(lambda L, C: L.ConvolutionTranspose1D(3, 2, strides=2)), X(3, 4))
row("ConvolutionTranspose2D", layer(lambda L, C: L.ConvolutionTranspose2D((3, 3), 2, strides=(2, 1))), X(3, 3, 4))
row("ConvolutionTranspose3D", layer(lambda L, C: L.ConvolutionTranspose3D((2, 2, 2), 2)), X(2, 2, 3, 3))
row("MaxPooling", layer(lambda L, C: L.MaxPooling((2, 2), strides=2)), X(2, 5, 6, domain="distinct"))
row("ConvolutionTranspose/no_bias", layer(lambda L, C: L.ConvolutionTranspose((3, 3), 2, bias=False, activation=C.tanh)), X(3, 3, 4))
row("ConvolutionTranspose/init_bias", layer(lambda L, C: L.ConvolutionTranspose((3, 3), 2, init_bias=np.ones(2))), X(3, 3, 4), golden=False)
row("Convolution/init_bias", layer(lambda L, C: L.Convolution((3, 3), 2, init_bias=np.ones(2))), X(2, 5, 6), golden=False)
row("Convolution2D/groups", layer(lambda L, C: L.Convolution2D((3, 3), 4, groups=2, pad=True)), X(2, 5, 6), golden=False)
row("LocalResponseNormalization", layer(lambda L, C: L.LocalResponseNormalization(1, 1.0, 0.5, 0.75)), X(4, 3, 3), golden=False, rtol=3e-5)
row("MaxPooling/pad", layer(lambda L, C: L.MaxPooling((3, 3), strides=(2, 2), pad=True)), X(2, 5, 6, domain="distinct"))
row("AveragePooling", layer(lambda L, C: L.AveragePooling((2, 2), strides=2)), X(2, 5, 6))
row("AveragePooling/pad", layer(lambda L, C: L.AveragePooling((3, 3), strides=2, pad=True)), X(2, 5, 6))
row("GlobalMaxPooling", layer(lambda L, C: L.GlobalMaxPooling()), X(2, 5, 6, domain="distinct"))
row("GlobalAveragePooling", layer(lambda L, C: L.GlobalAveragePooling()), X(2, 5, 6))
row("MaxUnpooling", lambda C, x: C.layers.MaxUnpooling((2, 2), strides=2)(C.layers.MaxPooling((2, 2), strides=2)(x), x), X(2, 4, 6, domain="distinct"), departs="CNTK's gradient is not the slope", where=("d0",))
row("BatchNormalization", layer(lambda L, C: L.BatchNormalization(map_rank=1)), X(3, 4, 4), **NORM)
row("BatchNormalization/vector", layer(lambda L, C: L.BatchNormalization()), X(5), rows=6, **NORM)
row("BatchNormalization/flat", layer(lambda L, C: L.BatchNormalization()), X(2, 3), rows=6, **NORM)
row("LayerNormalization", layer(lambda L, C: L.LayerNormalization()), X(6), f8=True, rtol=3e-5)
row("LayerNormalization/image", layer(lambda L, C: L.LayerNormalization(epsilon=0.01)), X(2, 3, 4), rtol=3e-5)
row("Dropout/eval", layer(lambda L, C: L.Dropout(0.5)), X(6), diff=False)
row("Activation", layer(lambda L, C: L.Activation(C.relu)), X(6, domain="nonzero"))
row("Label", layer(lambda L, C: L.Label("here")), X(6))
row("Sequential", layer(lambda L, C: L.Sequential([L.Dense(4, activation=C.tanh), L.Dense(2)])), X(3))
row("Sequential/functions", layer(lambda L, C: L.Sequential([L.Dense(4), C.sigmoid, lambda x: x * 2.0])), X(3))
row("Sequential/nested", layer(lambda L, C: L.Sequential([L.Dense(4), [L.Dense(5), C.tanh], L.Dense(2)])), X(3))
row("For", layer(lambda L, C: L.Sequential([L.For(range(3), lambda i: L.Dense(3 + i, activation=C.sigmoid)), L.Dense(2)])), X(3))
row("For/no_argument", layer(lambda L, C: L.For(range(2), lambda: [L.LayerNormalization(), C.tanh])), X(4), golden=False, rtol=3e-5)
row("default_options", lambda C, x: _with_defaults(C, x), X(2, 5, 6))
row("ResNetBlock", layer(lambda L, C: L.ResNetBlock(L.Sequential([L.Dense(3, activation=C.tanh)]))), X(3))
row("SequentialClique", layer(lambda L, C: L.SequentialClique([L.Dense(3), C.tanh])), X(3))
row("Stabilizer", layer(lambda L, C: L.Stabilizer()), X(3))
row("network/mlp", lambda C, x, y: C.cross_entropy_with_softmax(C.layers.Sequential([C.layers.Dense(5, activation=C.relu), C.layers.Dense(4)])(x), y), X(6), X(4, domain="onehot", grad=False), fd=False)


def _with_defaults(C, x):
    with C.default_options(activation=C.tanh, pad=True), C.default_options_for(C.layers.Convolution2D, bias=False):
        body = C.layers.Sequential([C.layers.Convolution2D((3, 3), 3), C.layers.Dense(2)])
    return body(x)


def _residual(C, x):
    L = C.layers

    def unit(x, n, strides):
        c = L.BatchNormalization(map_rank=1)(L.Convolution2D((3, 3), n, pad=True, strides=strides, bias=False, name="a%d" % n)(x))
        c = L.BatchNormalization(map_rank=1)(L.Convolution2D((3, 3), n, pad=True, bias=False, name="b%d" % n)(C.relu(c)))
        s = L.BatchNormalization(map_rank=1)(L.Convolution2D((1, 1), n, strides=strides, bias=False, name="s%d" % n)(x))
        return C.relu(c + s)

    r = unit(L.Convolution2D((3, 3), 16, pad=True, bias=False)(x), 32, 2)
    return L.Dense(10)(L.GlobalAveragePooling()(r))


row("network/residual", lambda C, x: _residual(C, x), X(3, 8, 8), mode="train", mixes_rows=True, golden=False, fd=False, rtol=1e-3, atol=1e-4)

NAMES = [c.name for c in CASES]
TWICE = sorted(set(n for n in NAMES if NAMES.count(n) > 1))
if TWICE:
    raise ValueError("two cases have the name " + ", ".join(TWICE))
