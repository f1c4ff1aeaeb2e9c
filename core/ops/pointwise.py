"""Pointwise ops. Kernels of this family are opcodes of the engines' pointwise machines; their names are the same everywhere."""

from __future__ import annotations

import functools
from typing import Any

from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.op import INFERRED, Op, Type, broadcast, constant_gradient
from cogkit.variables import sanitize_dtype

__all__ = [
    "abs",
    "acos",
    "asin",
    "asinh",
    "associative_multi_arg",
    "atan",
    "atanh",
    "cast",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "element_and",
    "element_divide",
    "element_max",
    "element_min",
    "element_not",
    "element_or",
    "element_select",
    "element_times",
    "element_xor",
    "elu",
    "equal",
    "exp",
    "floor",
    "greater",
    "greater_equal",
    "hard_sigmoid",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log_add_exp",
    "mean",
    "minus",
    "negate",
    "not_equal",
    "param_relu",
    "plus",
    "pow",
    "reciprocal",
    "relu",
    "round",
    "selu",
    "sigmoid",
    "sin",
    "sinh",
    "softplus",
    "softsign",
    "sqrt",
    "square",
    "stop_gradient",
    "straight_through_impl",
    "sum",
    "tan",
    "tanh",
]


def _pointwise(types, attrs):
    return [broadcast(types)]


def _cast_type(types, attrs):
    t = types[0]
    return [Type(t.shape, sanitize_dtype(attrs["dtype"]), t.axes)]


def _bind(types, attrs):
    """A parameter's free size is that of the operand beside it, axes aligned at the last one."""
    rank = max(len(t.shape) for t in types)
    sizes = [next((n for t in types for n in t.shape[-i:-i + 1 or None][:1] if len(t.shape) >= i and n != INFERRED), INFERRED)
             for i in range(rank, 0, -1)]  # fmt: skip
    return [tuple(sizes[rank - len(t.shape) + i] if n == INFERRED else n for i, n in enumerate(t.shape)) for t in types]


def _op(name, label, gradient):
    Op(name, label, _pointwise, gradient, "pointwise", "definition; CNTK v2's op of this name", bind=_bind)


def _y(n):
    return n.outputs[0]


# records: name, CNTK's label, gradient as a function of the node and the gradient of its output ---------------------------------

_op("neg", "Negate", lambda n, dy: [-dy])
_op("exp", "Exp", lambda n, dy: [dy * _y(n)])
_op("log", "Log", lambda n, dy: [dy / n.inputs[0]])
_op("sqrt", "Sqrt", lambda n, dy: [dy * 0.5 / _y(n)])
_op("rsqrt", "ReciprocalSqrt", lambda n, dy: [dy * -0.5 * _y(n) * _y(n) * _y(n)])
_op("reciprocal", "Reciprocal", lambda n, dy: [-dy * _y(n) * _y(n)])
_op("abs", "Abs", lambda n, dy: [dy * n.inputs[0].sign()])
_op("sign", "Sign", constant_gradient)
_op("floor", "Floor", constant_gradient)
_op("ceil", "Ceil", constant_gradient)
_op("round", "Round", constant_gradient)
_op("sin", "Sin", lambda n, dy: [dy * n.inputs[0].cos()])
_op("cos", "Cos", lambda n, dy: [-dy * n.inputs[0].sin()])
_op("tan", "Tan", lambda n, dy: [dy * (1 + _y(n) * _y(n))])
_op("asin", "Asin", lambda n, dy: [dy * (1 - n.inputs[0] * n.inputs[0]).rsqrt()])
_op("acos", "Acos", lambda n, dy: [-dy * (1 - n.inputs[0] * n.inputs[0]).rsqrt()])
_op("atan", "Atan", lambda n, dy: [dy / (1 + n.inputs[0] * n.inputs[0])])
_op("sinh", "Sinh", lambda n, dy: [dy * n.inputs[0].cosh()])
_op("cosh", "Cosh", lambda n, dy: [dy * n.inputs[0].sinh()])
_op("asinh", "Asinh", lambda n, dy: [dy * (1 + n.inputs[0] * n.inputs[0]).rsqrt()])
_op("acosh", "Acosh", lambda n, dy: [dy * (n.inputs[0] * n.inputs[0] - 1).rsqrt()])
_op("atanh", "Atanh", lambda n, dy: [dy / (1 - n.inputs[0] * n.inputs[0])])
_op("sigmoid", "Sigmoid", lambda n, dy: [dy * _y(n) * (1 - _y(n))])
_op("tanh", "Tanh", lambda n, dy: [dy * (1 - _y(n) * _y(n))])
_op("relu", "ReLU", lambda n, dy: [dy * (_y(n) > 0)])
_op("softplus", "SoftPlus", lambda n, dy: [dy * n.inputs[0].sigmoid()])
_op("not", "Not", constant_gradient)

_op("add", "Plus", lambda n, dy: [dy, dy])
_op("sub", "Minus", lambda n, dy: [dy, -dy])
_op("mul", "ElementTimes", lambda n, dy: [dy * n.inputs[1], dy * n.inputs[0]])
_op("div", "ElementDivide", lambda n, dy: [dy / n.inputs[1], -dy * _y(n) / n.inputs[1]])


def _pow_gradient(n, dy):
    x, p = n.inputs
    dx = dy * p * x ** (p - 1)
    # d/dp x^p = x^p ln x, taken as 0 where x <= 0
    dp = dy * _y(n) * (x > 0).select((x > 0).select(x, 1.0).log(), 0.0)
    return [dx, dp]


_op("pow", "Pow", _pow_gradient)
_op("max", "ElementMax", lambda n, dy: [dy * (n.inputs[0] > n.inputs[1]), dy * (n.inputs[0] <= n.inputs[1])])
_op("min", "ElementMin", lambda n, dy: [dy * (n.inputs[0] < n.inputs[1]), dy * (n.inputs[0] >= n.inputs[1])])
for _name, _label in [
    ("eq", "Equal"),
    ("ne", "NotEqual"),
    ("lt", "Less"),
    ("le", "LessEqual"),
    ("gt", "Greater"),
    ("ge", "GreaterEqual"),
    ("and", "ElementAnd"),
    ("or", "ElementOr"),
    ("xor", "ElementXor"),
]:
    _op(_name, _label, constant_gradient)
_op("logaddexp", "LogPlus", lambda n, dy: [dy * (n.inputs[0] - _y(n)).exp(), dy * (n.inputs[1] - _y(n)).exp()])
_op("select", "Select", lambda n, dy: [None, n.inputs[0].select(dy, 0.0), n.inputs[0].select(0.0, dy)])
Op("cast", "Cast", _cast_type, lambda n, dy: [dy.cast(dtype=n.inputs[0].type.dtype)], "cast", "definition", whole=True)
_op("half", "Half", lambda n, dy: [dy])  # float32 rounded to what half precision can hold
Op(
    "stop_gradient",
    "StopGradient",
    _pointwise,
    constant_gradient,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0].stop(),
)
Op("stop", "Stop", _pointwise, constant_gradient, "view", "identity whose gradient is zero")


# the public face ---------------------------------------------------------------------------------------------------------------


def _unary(op: str, doc: str):
    def f(x: Any, name: str = "") -> Function:
        return apply(op, [x], name)

    f.__doc__ = doc + " Any shape; the result has the shape of x."
    return f


_BROADCASTS = " Shapes broadcast, aligned at the last axis; raises `ValueError` where they do not."


def _binary(op: str, doc: str):
    def f(left: Any, right: Any, name: str = "") -> Function:
        return apply(op, [left, right], name)

    f.__doc__ = doc + _BROADCASTS
    return f


def _logical(op: str, doc: str):
    def f(x: Any, y: Any, name: str = "") -> Function:
        return apply(op, [x, y], name)

    f.__doc__ = doc + _BROADCASTS
    return f


negate = _unary("neg", "-x.")
exp = _unary("exp", "e to the power of x.")
log = _unary("log", "Natural logarithm; nan below 0 and -inf at 0 (CNTK 2.7 gives -85.1 there).")
sqrt = _unary("sqrt", "Square root; nan below 0 (CNTK 2.7 gives 0 there).")
reciprocal = _unary("reciprocal", "1 / x; inf at 0 (CNTK 2.7 gives 0 there).")
abs = _unary("abs", "Absolute value.")
sin = _unary("sin", "Sine of x in radians.")
cos = _unary("cos", "Cosine of x in radians.")
tan = _unary("tan", "Tangent of x in radians.")
asin = _unary("asin", "Arc sine, in radians.")
acos = _unary("acos", "Arc cosine, in radians.")
atan = _unary("atan", "Arc tangent, in radians.")
sinh = _unary("sinh", "Hyperbolic sine.")
cosh = _unary("cosh", "Hyperbolic cosine.")
asinh = _unary("asinh", "Inverse hyperbolic sine.")
atanh = _unary("atanh", "Inverse hyperbolic tangent.")
sigmoid = _unary("sigmoid", "1 / (1 + e^-x).")
tanh = _unary("tanh", "Hyperbolic tangent.")
relu = _unary("relu", "max(x, 0).")
element_not = _unary("not", "1 where x is 0, else 0.")

minus = _binary("sub", "left - right.")
element_divide = _binary("div", "left / right; inf or nan where right is 0 (CNTK 2.7 gives 0 there).")
equal = _binary("eq", "1 where left == right, else 0.")
not_equal = _binary("ne", "1 where left != right, else 0.")
less = _binary("lt", "1 where left < right, else 0.")
less_equal = _binary("le", "1 where left <= right, else 0.")
greater = _binary("gt", "1 where left > right, else 0.")
greater_equal = _binary("ge", "1 where left >= right, else 0.")
element_and = _logical("and", "1 where both are not 0, else 0.")
element_or = _logical("or", "1 where at least one is not 0, else 0.")
element_xor = _logical("xor", "1 where exactly one is not 0, else 0.")


def floor(arg: Any, name: str = "") -> Function:
    """The largest whole number <= arg, element by element."""
    return apply("floor", [arg], name)


def ceil(arg: Any, name: str = "") -> Function:
    """The smallest whole number >= arg, element by element."""
    return apply("ceil", [arg], name)


def stop_gradient(input: Any, name: str = "") -> Function:
    """The operand, through which no gradient flows."""
    return apply("stop_gradient", [input], name)


def pow(base: Any, exponent: Any, name: str = "") -> Function:
    """base to the power of exponent, element by element; the gradient of the exponent is 0 where the base is not positive.

    Shapes broadcast, aligned at the last axis; raises `ValueError` where they do not.
    """
    return apply("pow", [base, exponent], name)


def associative_multi_arg(f: Any) -> Any:
    """Decorator: an associative binary op takes two or more operands."""

    @functools.wraps(f)
    def wrapped(arg1: Any, arg2: Any, *more: Any, name: str = "") -> Function:
        if more and isinstance(more[-1], str):
            name, more = more[-1], more[:-1]
        operands = to_variables(arg1, arg2, *more)
        left = operands[0]
        for right in operands[1:-1]:
            left = f(left, right)
        return f(left, operands[-1], name=name)

    return wrapped


@associative_multi_arg
def plus(left: Any, right: Any, name: str = "") -> Function:
    """Sum of two or more operands. Shapes broadcast, aligned at the last axis; raises `ValueError` where they do not."""
    return apply("add", [left, right], name)


@associative_multi_arg
def element_times(left: Any, right: Any, name: str = "") -> Function:
    """Product, element by element, of two or more operands. Shapes broadcast; raises `ValueError` where they do not."""
    return apply("mul", [left, right], name)


@associative_multi_arg
def element_max(left: Any, right: Any, name: str = "") -> Function:
    """The larger of two or more operands, element by element. At a tie the gradient goes to the right one."""
    return apply("max", [left, right], name)


@associative_multi_arg
def element_min(left: Any, right: Any, name: str = "") -> Function:
    """The smaller of two or more operands, element by element. At a tie the gradient goes to the right one."""
    return apply("min", [left, right], name)


@associative_multi_arg
def log_add_exp(left: Any, right: Any, name: str = "") -> Function:
    """log(e^left + e^right) of two or more operands, without overflow."""
    return apply("logaddexp", [left, right], name)


def sum(*operands: Any, name: str = "") -> Function:
    """Sum, element by element, of one or more operands. Shapes broadcast; raises `ValueError` where they do not."""
    values = to_variables(*_several("sum", operands))
    return apply("alias", values, name) if len(values) == 1 else plus(*values, name=name)


def mean(*operands: Any, name: str = "") -> Function:
    """Mean, element by element, of one or more operands. Shapes broadcast; raises `ValueError` where they do not."""
    operands = _several("mean", operands)
    return apply("mul", [sum(*operands), 1.0 / len(operands)], name)


def _several(op: str, operands: tuple) -> tuple:
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        raise ValueError(here(f"{op}: expected at least one operand, got none"))
    return operands


def _round_expand(g, x, attrs, training):
    return (x[0] + 0.5).floor()


Op("round_half_up", "Round", _pointwise, constant_gradient, "expand", "CNTK v2: halves go up", expand=_round_expand)


def round(arg: Any, name: str = "") -> Function:
    """The nearest whole number; halves go up, as in CNTK."""
    return apply("round_half_up", [arg], name)


def square(x: Any, name: str = "") -> Function:
    """x * x."""
    (x,) = to_variables(x)
    return apply("mul", [x, x], name)


def softplus(x: Any, steepness: float = 1, name: str = "") -> Function:
    """log(1 + e^(steepness x)) / steepness, without overflow."""
    if steepness == 1:
        return apply("softplus", [x], name)
    return apply("div", [apply("softplus", [apply("mul", [x, steepness])]), steepness], name)


def softsign(x: Any, steepness: float = 1, name: str = "") -> Function:
    """x / (1 + |x|), of steepness * x."""
    (x,) = to_variables(x)
    if steepness != 1:
        x = apply("mul", [x, steepness]).output
    return apply("div", [x, 1 + abs(x)], name)


def _elu_type(types, attrs):
    return [broadcast(types)]


def _block(name, label, expand, source):
    Op(name, label, _elu_type, None, "expand", source, expand=expand)


_block(
    "elu",
    "ELU",
    lambda g, x, a, t: (x[0] >= 0).select(x[0], a["alpha"] * (x[0].min(0.0).exp() - 1)),
    "Clevert et al. 2016, arXiv:1511.07289",
)
_block(
    "selu",
    "SELU",
    lambda g, x, a, t: a["gamma"] * (x[0] >= 0).select(x[0], a["alpha"] * (x[0].min(0.0).exp() - 1)),
    "Klambauer et al. 2017, arXiv:1706.02515",
)
_block("leaky_relu", "LeakyReLU", lambda g, x, a, t: (x[0] >= 0).select(x[0], a["alpha"] * x[0]), "Maas et al. 2013")
_block("param_relu", "PReLU", lambda g, x, a, t: (x[1] >= 0).select(x[1], x[0] * x[1]), "He et al. 2015, arXiv:1502.01852")
_block("hard_sigmoid", "HardSigmoid", lambda g, x, a, t: (x[0] * a["alpha"] + a["beta"]).max(0.0).min(1.0), "CNTK v2")
_block("clip", "Clip", lambda g, x, a, t: g.node("min", [x[2], g.node("max", [x[1], x[0]])]), "definition")


def _straight_expand(g, x, attrs, training):
    c = g.node("min", [1.0, g.node("max", [-1.0, x[0]])])
    return (x[0] > 0) * 2.0 - 1.0 + (c - c.stop())


_block("straight_through", "StraightThrough", _straight_expand, "Hubara et al. 2016, arXiv:1602.02830; CNTK v2")


def straight_through_impl(x: Any, name: str = "") -> Function:
    """1 where x > 0, else -1; the gradient is that of x where |x| <= 1, else 0. Hubara et al. 2016."""
    return apply("straight_through", [x], name)


def elu(x: Any, alpha: float = 1.0, name: str = "") -> Function:
    """x above 0, alpha (e^x - 1) below. Clevert et al. 2016."""
    return apply("elu", [x], name, alpha=float(alpha))


def selu(x: Any, scale: float = 1.0507009873554805, alpha: float = 1.6732632423543772, name: str = "") -> Function:
    """scale times (x above 0, alpha (e^x - 1) below). Klambauer et al. 2017."""
    return apply("selu", [x], name, gamma=float(scale), alpha=float(alpha))


def leaky_relu(x: Any, alpha: float = 0.01, name: str = "") -> Function:
    """x above 0, alpha x below."""
    return apply("leaky_relu", [x], name, alpha=float(alpha))


def param_relu(alpha: Any, x: Any, name: str = "") -> Function:
    """x above 0, alpha x below, where alpha is an operand (learnt). He et al. 2015."""
    return apply("param_relu", [alpha, x], name)


def hard_sigmoid(x: Any, alpha: float, beta: float, name: str = "") -> Function:
    """min(max(alpha x + beta, 0), 1)."""
    return apply("hard_sigmoid", [x], name, alpha=float(alpha), beta=float(beta))


def clip(x: Any, min_value: Any, max_value: Any, name: str = "") -> Function:
    """x limited to [min_value, max_value]; the bounds may be arrays. The gradient of x is 0 outside."""
    return apply("clip", [x, min_value, max_value], name)


def element_select(flag: Any, value_if_true: Any, value_if_false: Any, name: str = "") -> Function:
    """value_if_true where flag is not 0, else value_if_false. No gradient flows to the flag."""
    return apply("select", [flag, value_if_true, value_if_false], name)


def cast(node_input: Any, dtype: Any, name: str = "") -> Function:
    """x as another element type: float16, float32, float64, int8 or int16.

    Floats are rounded to nearest; whole numbers, with which no other op computes, are cut towards 0 and end at the smallest and largest one.
    """
    return apply("cast", to_variables(node_input), name, dtype=sanitize_dtype(dtype).name)
