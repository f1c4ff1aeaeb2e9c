"""Losses: composites over the ops, one value a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.op import Op, Type, broadcast, fits, join_axes, shown
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed
from cogkit.ops.ranking import lambda_rank
from cogkit.ops.reduction import static_axis
from cogkit.sampled_losses import hierarchical_softmax_layer, nce_loss, sampled_softmax_loss

__all__ = [
    "binary_cross_entropy",
    "cosine_distance",
    "cosine_distance_with_negative_samples",
    "cross_entropy_with_softmax",
    "fmeasure",
    "focal_loss",
    "hierarchical_softmax_layer",
    "lambda_rank",
    "nce_loss",
    "sampled_softmax_loss",
    "squared_error",
    "weighted_binary_cross_entropy",
]

auto_select = SentinelValueForAutoSelectRandomSeed


def _over(axis: Any) -> int:
    return -1 if axis is None else axis.static_axis_index() if isinstance(axis, Axis) else int(axis)


def one_shape(types: Sequence[Type]) -> Type:
    """The type of outputs and targets together; `ValueError` where their shapes differ. Targets may lack leading axes, as in CNTK."""
    z, y = (t.shape for t in types)
    if not (fits(z, y) or 0 < len(y) < len(z) and fits(z[-len(y) :], y)):
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


def _total(v):
    return v.node("reduce_sum", axes=tuple(range(len(v.type.shape))), rows=False).reshape(())


def _cosine(g, x, attrs, training):
    a, b = x
    return _total(a * b) / (_total(a * a).sqrt() * _total(b * b).sqrt()).max(1e-12)


Op("cosine_distance", "CosDistance", _cosine_type, None, "expand", "definition", expand=_cosine)


def cosine_distance(x: Any, y: Any, name: str = "") -> Function:
    """The cosine of the angle between two vectors, one value of shape () a sample."""
    return apply("cosine_distance", to_variables(x, y), name)


def _negatives_type(types, attrs):
    if not join_axes(types):
        raise ValueError(("vectors with rows", "none", "the other rows of a minibatch are the negative samples"))
    return [Type((attrs["negatives"] + 1,), one_shape(types).dtype, join_axes(types))]


def _negatives(g, x, attrs, training):
    axes = join_axes([v.type for v in x])
    x, y = (g.in_space(v, axes) for v in x)
    x, y = (v / _total(v * v).sqrt().max(1e-12) for v in (x, y))
    others = [y.node("move_rows", move=("roll", attrs["shift"] + k), axes=axes) for k in range(attrs["negatives"])]
    return g.node("concat", [_total(x * v).reshape((1,)) for v in (y, *others)], axis=0)


Op(
    "cosine_distance_with_negative_samples",
    "CosDistanceWithNegativeSamples",
    _negatives_type,
    None,
    "expand",
    "Huang 2013",
    expand=_negatives,
)


def cosine_distance_with_negative_samples(x: Any, y: Any, shift: int, num_negative_samples: int, name: str = "") -> Function:
    """Cosines of the angles between x and y of its own row, then of the rows shift, shift + 1, ... further on in the minibatch.

    The result has shape (num_negative_samples + 1,). Rows are counted round; of sequences as they lie: step by step, the longest sequence
    first. CNTK counts the padding too, and gives 0 for it. Raises `ValueError` for shapes that differ and for no negative samples.
    """
    if shift < 0 or num_negative_samples < 1:
        fact = f"shift {shift!r} and num_negative_samples {num_negative_samples!r}"
        raise ValueError(
            here(
                f"CosDistanceWithNegativeSamples: expected a shift of 0 or more and num_negative_samples of 1 or more, got {fact}"
            )
        )
    how = {"shift": int(shift), "negatives": int(num_negative_samples)}
    return apply("cosine_distance_with_negative_samples", to_variables(x, y), name, **how)


def _fmeasure_type(types, attrs):
    both = one_shape(types)
    return [Type((*both.shape[:-2], 1, 1) if len(both.shape) > 2 else (), both.dtype, both.axes)]


def _fmeasure(g, x, attrs, training):
    o, t = x
    out = _fmeasure_type([o.type, t.type], attrs)[0]
    rank = len(o.type.shape)
    o, t, both = (v.node("reduce_sum", axes=tuple(range(max(rank - 2, 0), rank)), rows=False) for v in (o, t, o * t))
    square = attrs["beta"] ** 2
    return (1.0 - (both * (1 + square)) / (t * square + o)).reshape(out.shape)


Op("fmeasure", "FMeasure", _fmeasure_type, None, "expand", "van Rijsbergen 1979", expand=_fmeasure)


def fmeasure(output: Any, target: Any, beta: float = 1) -> Function:
    """1 - F over the last two axes, which stay with size 1 (shape () where there are no others): 0 is best.

    F = (1 + beta^2) sum(o t) / (beta^2 sum(t) + sum(o)); outputs o and targets t are shares in [0, 1] of one shape. beta: how many times
    recall counts as precision. NaN where there is nothing in either. Raises `ValueError` for shapes that differ and a negative beta.
    """
    if not 0 <= beta < math.inf:
        raise ValueError(here(f"FMeasure: expected a beta of 0 or more, got {beta!r}"))
    return apply("fmeasure", to_variables(output, target), beta=float(beta))


def _focal_type(types, attrs):
    out = _cross_entropy_type(types[:2], attrs)
    z = types[0].shape
    classes = z[static_axis(attrs["axis"], len(z))]
    for alpha in types[2:]:
        if alpha.axes or alpha.shape != (classes,):
            raise ValueError((f"alpha as a number or of shape ({classes},)", shown(alpha.shape), ""))
    return out


def _focal(g, x, attrs, training):
    z, y = x[:2]
    axis = static_axis(attrs["axis"], len(z.type.shape))
    log_p = z - z.node("reduce_logsumexp", axes=(axis,), rows=False)
    loss = y * log_p
    if attrs["gamma"]:  # the floor keeps the slope of a power below 1 finite where p is 1
        loss = loss * (1.0 - log_p.exp()).max(1e-7) ** attrs["gamma"]
    if attrs["alpha"] is not None:
        loss = loss * attrs["alpha"]
    for alpha in x[2:]:
        loss = loss * alpha.reshape(tuple(n if i == axis else 1 for i, n in enumerate(z.type.shape)))
    return -loss.node("reduce_sum", axes=(axis,), rows=False)


Op("focal_loss", "FocalLoss", _focal_type, None, "expand", "Lin 2017, focal loss for dense object detection", expand=_focal)


def focal_loss(
    output_vector: Any, target_vector: Any, gamma: float = 2.0, alpha: Any = None, axis: Any = -1, name: str = ""
) -> Function:
    """Cross-entropy of softmax(outputs) in which what is classified well counts less: - sum of alpha y (1 - p)^gamma log p along an axis.

    alpha: a number, or one a class; 1 where left out. gamma 0 is the cross-entropy. Shapes as `cross_entropy_with_softmax`.
    Raises `ValueError` for shapes that differ and a negative gamma.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(here(f"FocalLoss: expected a gamma of 0 or more, got {gamma!r}"))
    number = isinstance(alpha, (int, float, np.number))
    operands = [output_vector, target_vector] + ([] if alpha is None or number else [alpha])
    how: dict[str, Any] = {"gamma": float(gamma), "alpha": float(alpha) if number else None, "axis": _over(axis)}
    return apply("focal_loss", operands, name, **how)
