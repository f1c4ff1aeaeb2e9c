"""Metrics: composites over the ops, one value a sample; no gradient flows through them."""

from __future__ import annotations

import math
from typing import Any

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.losses import one_shape
from cogkit.op import Op, Type, constant_gradient
from cogkit.ops.alignment import edit_distance_error
from cogkit.ops.ranking import ndcg_at_1
from cogkit.ops.reduction import static_axis

__all__ = ["classification_error", "edit_distance_error", "ndcg_at_1"]


def _type(types, attrs):
    z, both = types[0], one_shape(types)
    a, last = _axis(z.shape, attrs)
    return [Type(tuple(1 if i == a else n for i, n in enumerate(z.shape)) if last else (), both.dtype, both.axes)]


def _axis(shape, attrs):
    """The axis of the classes, and whether it was left at the last one."""
    if not shape:
        raise ValueError(("outputs with an axis of classes", "a number", ""))
    return static_axis(attrs["axis"], len(shape)), attrs["axis"] == -1


def _expand(g, x, attrs, training):
    z, y = (v.stop() for v in x)
    a, last = _axis(z.type.shape, attrs)
    classes = z.type.shape[a]
    if attrs["top"] == 1:
        best = z.node("argmax_axis", axis=a).node("one_hot", classes=classes, axis=a)
        if last:
            return 1.0 - (y * best).node("reduce_sum", axes=(a,), rows=False)
        wrong = y.ne(best).node("reduce_max", axes=(a,), rows=False)
    else:
        label = y.node("argmax_axis", axis=a)
        # the label is among the best when fewer than `top` outputs beat it
        score = (z * label.node("one_hot", classes=classes, axis=a)).node("reduce_sum", axes=(a,), rows=False)
        wrong = (z > score).node("reduce_sum", axes=(a,), rows=False) >= float(attrs["top"])
    if last:
        return wrong
    places = float(math.prod(wrong.type.shape))
    return (wrong.node("reduce_sum", axes=tuple(range(len(wrong.type.shape))), rows=False) / places).reshape(())


Op("classification_error", "ClassificationError", _type, constant_gradient, "expand", "definition", expand=_expand)


def classification_error(output_vector: Any, target_vector: Any, axis: Any = -1, topN: int = 1, name: str = "") -> Function:
    """1 where the target class is not among the `topN` largest outputs, else 0; no gradient.

    axis left out: classes along the last axis, which stays with size 1; 1 - sum(targets * hardmax(outputs)), so that soft targets count in
    part. An axis named: the share of all places where targets differ from hardmax(outputs), shape (). CNTK 2.7 gives one sum for the
    minibatch where topN > 1; here it is a value a
    sample. Raises `ValueError` for shapes that differ.
    """
    if topN < 1:
        raise ValueError(here(f"ClassificationError: expected topN >= 1, got {topN}"))
    axis = -1 if axis is None else axis.static_axis_index() if isinstance(axis, Axis) else int(axis)
    return apply("classification_error", [output_vector, target_vector], name, axis=axis, top=int(topN))
