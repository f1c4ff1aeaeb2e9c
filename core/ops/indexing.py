"""Ops that look entries up by index: one-hot, gather, the k largest."""

from __future__ import annotations

from typing import Any

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply, to_variables
from cogkit.op import Op, Type, constant_gradient, shown
from cogkit.ops.reduction import static_axis
from cogkit.ops.shape import axis_index

__all__ = ["gather", "one_hot", "top_k"]


def _one_hot_type(types, attrs):
    t = types[0]
    at = static_axis(attrs["axis"], len(t.shape), 1)
    return [Type(t.shape[:at] + (attrs["num_class"],) + t.shape[at:], t.dtype, t.axes)]


def _one_hot_expand(g, x, attrs, training):
    x = x[0]
    shape = x.type.shape
    at = static_axis(attrs["axis"], len(shape), 1)
    form = {"sparse": True} if attrs.get("sparse") and at == len(shape) else {}  # rows of the last axis
    return x.reshape(shape=shape[:at] + (1,) + shape[at:]).node("one_hot", classes=attrs["num_class"], axis=at, **form)


def _one_hot_primitive(types, attrs):
    t = types[0]
    at = attrs["axis"]
    return [Type(t.shape[:at] + (attrs["classes"],) + t.shape[at + 1 :], t.dtype, t.axes)]


Op("one_hot_op", "OneHotOp", _one_hot_type, constant_gradient, "expand", "CNTK v2", expand=_one_hot_expand)
Op(
    "one_hot",
    "OneHotOp",
    _one_hot_primitive,
    constant_gradient,
    "one_hot",
    "classes in place of an axis of size 1 that holds indices",
)


def _gather_type(types, attrs):
    ref, idx = types
    if ref.axes:
        raise ValueError(("a reference without rows (a parameter or constant)", str(ref), ""))
    if not ref.shape:
        raise ValueError(("a reference with an axis to take entries of", "a number", ""))
    at = 0 if attrs["axis"] is None else static_axis(attrs["axis"], len(ref.shape))
    return [Type(ref.shape[:at] + idx.shape + ref.shape[at + 1 :], ref.dtype, idx.axes)]


def _gather_expand(g, x, attrs, training):
    ref, idx = x
    at = 0 if attrs["axis"] is None else static_axis(attrs["axis"], len(ref.type.shape))
    if not at:
        return g.node("gather", [ref, idx])
    rank, k = len(ref.type.shape), len(idx.type.shape)
    y = g.node("gather", [ref.node("transpose", perm=(at, *(i for i in range(rank) if i != at))), idx])
    # the axes of the indices come where the axis was
    return y.node("transpose", perm=(*range(k, k + at), *range(k), *range(k + at, k + rank - 1)))


def _gather_primitive(types, attrs):
    return [Type(types[1].shape + types[0].shape[1:], types[0].dtype, types[1].axes)]


def _scatter_type(types, attrs):
    return [Type(attrs["shape"], types[1].dtype, ())]


Op("gather_op", "GatherOp", _gather_type, None, "expand", "CNTK v2", expand=_gather_expand)
Op(
    "gather",
    "GatherOp",
    _gather_primitive,
    lambda n, dy: [dy.graph.node("scatter_rows", [n.inputs[1], dy], shape=n.inputs[0].type.shape, **n.attrs), None],
    "gather",
    "entries of the first axis; zeros: those at no index are 0, else they are an error while running",
)
Op(
    "scatter_add",
    "ScatterAdd",
    _scatter_type,
    lambda n, dy: [None, dy.graph.node("gather", [dy, n.inputs[0]])],
    "scatter_add",
    "the transpose of gather: sums into the first axis",
)


def _top_k_type(types, attrs):
    t = types[0]
    if not t.shape:
        raise ValueError(("an operand with an axis to look along", "a number", ""))
    at, k = static_axis(attrs["axis"], len(t.shape)), attrs["k"]
    if 0 <= t.shape[at] < k:
        raise ValueError((f"k of at most {t.shape[at]}, the size of axis {at} of {shown(t.shape)}", str(k), ""))
    out = Type(t.shape[:at] + (k,) + t.shape[at + 1 :], t.dtype, t.axes)
    return [out, out]


def _along_type(types, attrs):
    v, index = types
    at = attrs["axis"]
    return [v._replace(shape=v.shape[:at] + (attrs.get("size", index.shape[at]),) + v.shape[at + 1 :])]


def _top_k_gradient(n, dy, dindex):
    size = n.inputs[0].type.shape[n.attrs["axis"]]
    return [None if dy is None else dy.graph.node("put_along", [dy, n.outputs[1]], axis=n.attrs["axis"], size=size)]


Op(
    "top_k",
    "TopK",
    _top_k_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0].node(
        "top_k_axis", k=attrs["k"], axis=static_axis(attrs["axis"], len(x[0].type.shape))
    ),
)
Op("top_k_axis", "TopK", _top_k_type, _top_k_gradient, "top_k", "definition; of equal values the first comes first")
Op(
    "take_along",
    "TakeAlong",
    _along_type,
    lambda n, dy: [
        dy.graph.node("put_along", [dy, n.inputs[1]], axis=n.attrs["axis"], size=n.inputs[0].type.shape[n.attrs["axis"]]),
        None,
    ],
    "take_along",
    "y[i, k, j] = x[i, index[i, k, j], j]",
)
Op(
    "put_along",
    "PutAlong",
    _along_type,
    lambda n, dy: [dy.graph.node("take_along", [dy, n.inputs[1]], axis=n.attrs["axis"]), None],
    "put_along",
    "the transpose of take_along: sums into an axis of `size`",
)


# the public face -----------------------------------------------------------------------------------------------------------------


def one_hot(x: Any, num_classes: int, sparse_output: bool = False, axis: Any = -1, name: str = "") -> Function:
    """Indices as vectors with one 1, along a new static axis. Indices outside [0, num_classes) give zeros.

    sparse_output: as CSR rows, where the new axis is the last one; products with such a value take rows of the other operand.
    """
    if num_classes < 1:
        raise ValueError(here(f"OneHotOp: expected at least one class, got {num_classes}"))
    form = {"sparse": True} if sparse_output else {}
    return apply("one_hot_op", [x], name, num_class=int(num_classes), axis=axis_index(axis), **form)


def gather(reference: Any, indices: Any, axis: Any = None, name: str = "") -> Function:
    """Entries of `reference` (a parameter or constant) along a static axis (the first) at `indices`, whose shape takes the axis' place.

    An index that names no entry is a `ValueError` while running (CNTK reads what lies there).
    """
    return apply("gather_op", to_variables(reference, indices), name, axis=axis_index(axis))


def top_k(x: Any, k: int, axis: Any = -1, name: str = "") -> Function:
    """The k largest values along a static axis, largest first, and their indices: two outputs of k entries along that axis.

    Of equal values the first one comes first, as in `argmax` (CNTK says nothing about them). Raises `ValueError` where the axis has fewer
    than k entries.
    """
    if k < 1:
        raise ValueError(here(f"TopK: expected k of at least 1, got {k!r}"))
    if axis is None or axis == Axis.all_static_axes():
        raise ValueError(
            here("TopK: expected one static axis, got all; flatten the operand first: C.reshape(x, (C.InferredDimension,))")
        )
    return apply("top_k", [x], name, 2, k=int(k), axis=axis_index(axis))
