"""Losses: composites over the ops, one value a sample."""

from __future__ import annotations

from typing import Any

from cogkit.axis import Axis
from cogkit.functions import Function, apply, to_variables
from cogkit.op import Op, Type, broadcast, common_dtype, join_axes
from cogkit.ops.reduction import static_axis

__all__ = [
    "binary_cross_entropy",
    "cosine_distance",
    "cross_entropy_with_softmax",
    "squared_error",
    "weighted_binary_cross_entropy",
]


def _over(axis: Any) -> int:
    return -1 if axis is None else axis.static_axis_index() if isinstance(axis, Axis) else int(axis)


def _cross_entropy_type(types, attrs):
    z, y = types
    both = broadcast(types)
    if z.shape != y.shape:
        raise ValueError(
            ("outputs and targets of one shape", f"{z.shape} and {y.shape}", "class labels are one-hot: C.one_hot(labels, n)")
        )
    if not z.shape:
        return [both]
    a = static_axis(attrs["axis"], len(z.shape))
    return [Type(tuple(1 if i == a else n for i, n in enumerate(z.shape)), both.dtype, both.axes)]


def _cross_entropy(g, x, attrs, training):
    z, y = x
    over = (static_axis(attrs["axis"], len(z.type.shape)),) if z.type.shape else ()
    # sum of y (logsumexp(z) - z): targets need not sum to one
    lse = z.node("reduce_logsumexp", axes=over, rows=False)
    return (y * (lse - z)).node("reduce_sum", axes=over, rows=False)


Op(
    "cross_entropy_with_softmax",
    "CrossEntropyWithSoftmax",
    _cross_entropy_type,
    None,
    "expand",
    "definition",
    expand=_cross_entropy,
)


def cross_entropy_with_softmax(output_vector: Any, target_vector: Any, axis: Any = -1, name: str = "") -> Function:
    """Cross-entropy of softmax(outputs) against a target distribution, one value a sample: sum of y (log sum e^z - z).

    Both of the same shape; the result has size 1 at `axis`. Raises `ValueError` for shapes that differ.
    """
    return apply("cross_entropy_with_softmax", [output_vector, target_vector], name, axis=_over(axis))


def _squared_type(types, attrs):
    both = broadcast(types)
    return [Type((), both.dtype, both.axes)]


def _squared(g, x, attrs, training):
    d = x[0] - x[1]
    return (d * d).node("reduce_sum", axes=tuple(range(len(d.type.shape))), rows=False).reshape(())


Op("squared_error", "SquaredError", _squared_type, None, "expand", "definition", expand=_squared)


def squared_error(output: Any, target: Any, name: str = "") -> Function:
    """Sum of squared differences, one value a sample. Shapes broadcast; the result has shape ()."""
    return apply("squared_error", [output, target], name)


def _binary_type(types, attrs):
    if common_dtype(types) is None:
        raise ValueError(("typed operands", "none", ""))
    return [Type((), common_dtype(types), join_axes(types))]


def _binary(g, x, attrs, training):
    p, y = x[:2]
    e = -(y * p.log() + (1.0 - y) * (1.0 - p).log())
    e = e * x[2] if len(x) > 2 else e
    return e.node("reduce_sum", axes=tuple(range(len(e.type.shape))), rows=False).reshape(())


Op("binary_cross_entropy", "Logistic", _binary_type, None, "expand", "definition", expand=_binary)


def binary_cross_entropy(output: Any, target: Any, name: str = "") -> Function:
    """-sum(y log p + (1 - y) log(1 - p)), one value a sample; outputs are probabilities."""
    return apply("binary_cross_entropy", [output, target], name)


def weighted_binary_cross_entropy(output: Any, target: Any, weight: Any, name: str = "") -> Function:
    """`binary_cross_entropy` with a weight for each element."""
    return apply("binary_cross_entropy", [output, target, weight], name)


def _cosine_type(types, attrs):
    both = broadcast(types)
    return [Type((1,), both.dtype, both.axes)]


def _cosine(g, x, attrs, training):
    def total(v):
        return v.node("reduce_sum", axes=tuple(range(len(v.type.shape))), rows=False).reshape((1,))

    a, b = x
    return total(a * b) / (total(a * a).sqrt() * total(b * b).sqrt()).max(1e-12)


Op("cosine_distance", "CosDistance", _cosine_type, None, "expand", "definition", expand=_cosine)


def cosine_distance(x: Any, y: Any, name: str = "") -> Function:
    """The cosine of the angle between two vectors, one value a sample."""
    return apply("cosine_distance", to_variables(x, y), name)
