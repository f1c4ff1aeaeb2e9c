"""Losses: composites over the ops, one value a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.functions import Function, apply, to_variables
from cogkit.op import Op, Type, broadcast, fits, shown
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


def one_shape(types: Sequence[Type]) -> Type:
    """The type of outputs and targets together; `ValueError` where their shapes differ."""
    z, y = (t.shape for t in types)
    if not fits(z, y):
        raise ValueError(
            ("outputs and targets of one shape", f"{shown(z)} and {shown(y)}", "class labels are one-hot: C.one_hot(labels, n)")
        )
    return broadcast(types)


def _cross_entropy_type(types, attrs):
    z, both = types[0], one_shape(types)
    if not z.shape:
        return [both]
    a = static_axis(attrs["axis"], len(z.shape))
    return [Type(tuple(1 if i == a else n for i, n in enumerate(z.shape)), both.dtype, both.axes)]


def _cross_entropy(g, x, attrs, training):
    z, y = x
    over = (static_axis(attrs["axis"], len(z.type.shape)),) if z.type.shape else ()
    return z.node("reduce_logsumexp", axes=over, rows=False) - (y * z).node("reduce_sum", axes=over, rows=False)


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
    """Cross-entropy of softmax(outputs) against a target distribution along an axis: log sum e^z - sum of y z.

    Targets y should sum to one along `axis`. Both of the same shape; the result has size 1 at `axis`. CNTK 2.7 multiplies all rows of a
    matrix with each other where `axis` is left out; here that is the last axis. Raises `ValueError` for shapes that differ.
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


_TINY, _ONE = float(np.float32(1e-6)), float(np.float32(1 + 1e-6))  # as CNTK's float32 holds them


def _binary(g, x, attrs, training):
    p, y = x
    return -(y * (p + _TINY).log() + (1.0 - y) * (_ONE - p).log())


def _weighted_type(types, attrs):
    return [Type((), broadcast(types).dtype, ())]


def _weighted(g, x, attrs, training):
    e, w = _binary(g, x[:2], attrs, training), x[2]
    both = broadcast([e.type, w.type])
    e = e.expand(both)
    values = e.node("row_count") * float(math.prod(both.shape))

    def total(v):
        return v.node("reduce_sum", axes=tuple(range(len(both.shape))), rows=bool(both.axes)).reshape(())

    return values * total(e * w) / total(w.expand(both))


Op("binary_cross_entropy", "Logistic", lambda types, attrs: [broadcast(types)], None, "expand", "definition", expand=_binary)
Op("weighted_binary_cross_entropy", "Logistic", _weighted_type, None, "expand", "CNTK v2", expand=_weighted)


def binary_cross_entropy(output: Any, target: Any, name: str = "") -> Function:
    """-(y log p + (1 - y) log(1 - p)), element by element; outputs p are probabilities, targets y are in [0, 1]. Shapes broadcast.

    As in CNTK 1e-6 is added inside the logarithms, so that the loss stays finite.
    """
    return apply("binary_cross_entropy", [output, target], name)


def weighted_binary_cross_entropy(output: Any, target: Any, weight: Any, name: str = "") -> Function:
    """The weighted mean of `binary_cross_entropy` over the whole minibatch, times the number of its values: n sum(w e) / sum(w).

    One number without rows, as in CNTK (which takes one value a sample only). Weights broadcast.
    """
    return apply("weighted_binary_cross_entropy", [output, target, weight], name)


def _cosine_type(types, attrs):
    both = broadcast(types)
    return [Type((), both.dtype, both.axes)]


def _cosine(g, x, attrs, training):
    def total(v):
        return v.node("reduce_sum", axes=tuple(range(len(v.type.shape))), rows=False).reshape(())

    a, b = x
    return total(a * b) / (total(a * a).sqrt() * total(b * b).sqrt()).max(1e-12)


Op("cosine_distance", "CosDistance", _cosine_type, None, "expand", "definition", expand=_cosine)


def cosine_distance(x: Any, y: Any, name: str = "") -> Function:
    """The cosine of the angle between two vectors, one value of shape () a sample."""
    return apply("cosine_distance", to_variables(x, y), name)
