"""Metrics: composites over the ops, one value a sample; no gradient flows through them."""

from __future__ import annotations

from typing import Any

from cogkit.axis import Axis
from cogkit.functions import Function, apply
from cogkit.op import Op, Type, broadcast, constant_gradient
from cogkit.ops.reduction import static_axis

__all__ = ["classification_error"]


def _type(types, attrs):
    z, y = types
    both = broadcast(types)
    if z.shape != y.shape:
        raise ValueError(
            ("outputs and targets of one shape", f"{z.shape} and {y.shape}", "class labels are one-hot: C.one_hot(labels, n)")
        )
    if attrs["axis"] is None:
        return [Type((), both.dtype, both.axes)]
    a = static_axis(attrs["axis"], len(z.shape))
    return [Type(tuple(1 if i == a else n for i, n in enumerate(z.shape)), both.dtype, both.axes)]


def _expand(g, x, attrs, training):
    z, y = (v.stop() for v in x)
    out = _type([z.type, y.type], attrs)[0]
    if attrs["axis"] is None:
        n = 1
        for k in z.type.shape:
            n *= k
        z, y, a = z.reshape((n,)), y.reshape((n,)), 0
    else:
        a = static_axis(attrs["axis"], len(z.type.shape))
    label = y.node("argmax_axis", axis=a)
    if attrs["top"] == 1:
        return z.node("argmax_axis", axis=a).ne(label).reshape(out.shape)
    # the label is among the best when fewer than `top` outputs beat it
    hot = label.node("one_hot", classes=z.type.shape[a], axis=a)
    score = (z * hot).node("reduce_sum", axes=(a,), rows=False)
    better = (z > score).node("reduce_sum", axes=(a,), rows=False)
    return (better >= float(attrs["top"])).reshape(out.shape)


Op("classification_error", "ClassificationError", _type, constant_gradient, "expand", "definition", expand=_expand)


def classification_error(output_vector: Any, target_vector: Any, axis: Any = -1, topN: int = 1, name: str = "") -> Function:
    """1 where the target class is not among the `topN` largest outputs, else 0, one value a sample. Raises `ValueError` for shapes that differ."""
    if topN < 1:
        raise ValueError(f"ClassificationError: expected topN >= 1, got {topN}")
    axis = None if axis is None else axis.static_axis_index() if isinstance(axis, Axis) else int(axis)
    return apply("classification_error", [output_vector, target_vector], name, axis=axis, top=int(topN))
