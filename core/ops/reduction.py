"""Reductions over static axes, over all of them, or over the batch as well; and the softmax family, which is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.op import Op, Type, constant_gradient, shown

__all__ = [
    "argmax",
    "argmin",
    "hardmax",
    "log_softmax",
    "reduce_l1",
    "reduce_l2",
    "reduce_log_sum_exp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_sum_square",
    "softmax",
]


def static_axis(axis: int, rank: int, extra: int = 0) -> int:
    """A static axis counted from the front; `ValueError` when the value has no such axis."""
    n = axis + rank + extra if axis < 0 else axis
    if not 0 <= n < rank + extra:
        raise ValueError((f"an axis in [{-rank - extra}, {rank + extra})", str(axis), "axes count static dimensions only"))
    return n


# primitives: attrs axes (static, sorted), rows (the whole row space too); reduced static axes stay with size 1 -------------------


def _reduced(types, attrs):
    t = types[0]
    shape = tuple(1 if i in attrs["axes"] else n for i, n in enumerate(t.shape))
    return [Type(shape, t.dtype, () if attrs.get("rows") else t.axes)]


def _sum_gradient(n, dy):
    return [dy.expand(n.inputs[0].type)]


def _extreme_gradient(n, dy):
    return [dy * n.inputs[0].eq(n.outputs[0])]


def _product_gradient(n, dy):
    # the product of the others, also where one of them is 0: zeros among the others = all zeros less my own
    x = n.inputs[0]
    zero = x.eq(0.0)
    others, own = zero.select(1.0, x), zero.select(x, 0.0)
    zeros = zero.node("reduce_sum", **n.attrs) - zero
    one = own.node("reduce_sum", **n.attrs) - own  # the other zero itself: its value is 0, but not its derivative
    factor = zeros.eq(0.0).select(1.0, zeros.eq(1.0).select(one, 0.0))
    return [dy * others.node("reduce_prod", **n.attrs) / others * factor]


for _name, _gradient in [
    ("sum", _sum_gradient),
    ("max", _extreme_gradient),
    ("min", _extreme_gradient),
    ("prod", _product_gradient),
    ("logsumexp", lambda n, dy: [dy * (n.inputs[0] - n.outputs[0]).exp()]),
]:
    Op("reduce_" + _name, "ReduceElements", _reduced, _gradient, "reduce", "definition")
Op(
    "row_count",
    "RowCount",
    lambda types, attrs: [Type((), types[0].dtype, ())],
    constant_gradient,
    "row_count",
    "rows of the operand",
)
Op("expand", "Expand", lambda types, attrs: [attrs["type"]], lambda n, dy: [dy], "pointwise", "broadcast to a type")


def _arg_type(types, attrs):
    t = types[0]
    axis = attrs["axis"]
    at = range(len(t.shape)) if axis is None else (static_axis(axis, len(t.shape)),)
    if any(t.shape[i] == 0 for i in at):
        raise ValueError(("at least one entry to find an index among", shown(t.shape), ""))
    return [Type(() if axis is None else tuple(1 if i in at else n for i, n in enumerate(t.shape)), t.dtype, t.axes)]


def _arg_expand(kind):
    def expand(g, x, attrs, training):
        x = x[0]
        shape = x.type.shape
        if attrs["axis"] is None:
            size = 1
            for n in shape:
                size *= n
            return x.reshape(shape=(size,)).node(f"arg{kind}_axis", axis=0).reshape(shape=())
        return x.node(f"arg{kind}_axis", axis=static_axis(attrs["axis"], len(shape)))

    return expand


for _kind, _label in [("max", "Argmax"), ("min", "Argmin")]:
    Op("arg" + _kind, _label, _arg_type, constant_gradient, "expand", "definition", expand=_arg_expand(_kind))
    Op(f"arg{_kind}_axis", _label, _arg_type, constant_gradient, "arg", "definition")


# the op of the graph: attrs reduction, axis ('static', 'all', 'batch' or a tuple of axes), keepdims ------------------------------


def _user_type(types, attrs):
    t = types[0]
    axis = attrs["axis"]
    if axis in ("static", "all"):
        return [Type((), t.dtype, t.axes if axis == "static" else ())]
    static, rows = _split(axis, len(t.shape))
    steps = _steps(axis)
    if steps or rows:
        _dynamic(t, attrs["reduction"], steps, rows)
    if attrs["keepdims"]:
        shape = tuple(1 if i in static else n for i, n in enumerate(t.shape))
    else:
        shape = tuple(n for i, n in enumerate(t.shape) if i not in static)
    return [Type(shape, t.dtype, () if rows else t.axes and t.axes[:1] if steps else t.axes)]


def _split(axis: tuple, rank: int) -> tuple[tuple[int, ...], bool]:
    static = tuple(sorted({static_axis(a, rank) for a in axis if isinstance(a, int)}))
    return static, "batch" in axis


def _steps(axis: tuple) -> bool:
    """Whether the steps of sequences are reduced: an axis is named that is not the batch axis."""
    return any(isinstance(a, str) and a != "batch" for a in axis)


def _dynamic(t: Type, kind: str, steps: bool, rows: bool) -> None:
    sequences = t.axes is not None and len(t.axes) > 1
    if steps and not sequences:
        raise ValueError(("an operand with a sequence axis", str(t), "reduce over the batch axis or static axes"))
    if steps and kind not in ("sum", "mean", "max", "min"):
        raise ValueError(("sum, mean, max or min over a sequence axis", kind, ""))
    if rows and sequences and not steps:
        raise ValueError(
            ("an operand without a sequence axis", str(t), "reduce over C.Axis.all_axes(), or first over the sequence axis")
        )


def _user_expand(g, x, attrs, training):
    x = x[0]
    rank = len(x.type.shape)
    axis = attrs["axis"]
    static, rows = (tuple(range(rank)), axis == "all") if isinstance(axis, str) else _split(axis, rank)
    rows = rows and bool(x.type.axes)
    kind = attrs["reduction"]
    if isinstance(axis, tuple) and _steps(axis):
        y = x.node("fold_steps", kind="sum" if kind == "mean" else kind)
        if kind == "mean":
            ones = g.fill(1.0, x.type._replace(shape=()))
            y = y / ones.node("fold_steps", kind="sum")
        rest = tuple(a for a in axis if isinstance(a, int) or a == "batch")
        return _user_expand(g, [y], {**attrs, "axis": rest}, training) if rest else y
    if kind == "mean":
        count = 1.0
        for i in static:
            count *= x.type.shape[i]
        y = x.node("reduce_sum", axes=static, rows=rows)
        y = y / (x.node("row_count") * count) if rows else y / count if count else y * float("nan")
    elif kind == "l1":
        y = x.abs().node("reduce_sum", axes=static, rows=rows)
    elif kind in ("l2", "sum_square"):
        y = (x * x).node("reduce_sum", axes=static, rows=rows)
        y = y.sqrt() if kind == "l2" else y
    else:
        y = x.node("reduce_" + kind, axes=static, rows=rows)
    return y.reshape(shape=_user_type([x.type], attrs)[0].shape)


Op("reduce", "ReduceElements", _user_type, None, "expand", "CNTK v2", expand=_user_expand)


def _reduce(kind: str, x: Any, axis: Any, keepdims: bool, name: str) -> Function:
    return apply("reduce", [x], name, reduction=kind, axis=_axis_spec(axis), keepdims=bool(keepdims))


def _axis_spec(axis: Any) -> Any:
    """The axes as plain data: 'static', 'all', or a tuple of static indices and 'batch'."""
    if axis is None:
        return "static"
    if isinstance(axis, Axis):
        if axis == Axis.all_static_axes():
            return "static"
        if axis == Axis.all_axes():
            return "all"
        return (axis.static_axis_index(),) if axis.is_static_axis else ("batch",) if axis.is_batch_axis else (axis.name,)
    if isinstance(axis, (list, tuple)):
        if not axis:
            raise ValueError(here("ReduceElements: expected at least one axis to reduce over, got none; None is all static axes"))
        specs = [_axis_spec(a) for a in axis]
        for s in specs:
            if isinstance(s, str):
                return s
        return tuple(a for s in specs for a in s)
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(here(f"ReduceElements: expected an axis as a number or C.Axis, got {axis!r}"))
    return (int(axis),)


def _reduction(kind: str, doc: str):
    def f(x: Any, axis: Any = None, keepdims: bool = True, name: str = "") -> Function:
        return _reduce(kind, x, axis, keepdims, name)

    f.__doc__ = (
        doc + "\n\n    axis: a static axis, one or more, None or `Axis.all_static_axes()` (result of shape ()), "
        "`Axis.default_batch_axis()` (result without rows), a sequence axis (of sum, mean, max, min: one value a sequence), "
        "`Axis.all_axes()`.\n"
        "    keepdims: reduced static axes stay with size 1. Raises `ValueError` for an axis that is not there.\n    "
    )
    return f


reduce_sum = _reduction("sum", "Sum over axes.")
reduce_mean = _reduction("mean", "Mean over axes.")
reduce_max = _reduction("max", "Largest value over axes; the gradient goes to every largest value.")
reduce_min = _reduction("min", "Smallest value over axes; the gradient goes to every smallest value.")
reduce_prod = _reduction("prod", "Product over axes.")
reduce_log_sum_exp = _reduction("logsumexp", "log of the sum of e^x over axes, without overflow.")
reduce_l1 = _reduction("l1", "Sum of absolute values over axes.")
reduce_l2 = _reduction("l2", "Square root of the sum of squares over axes.")
reduce_sum_square = _reduction("sum_square", "Sum of squares over axes.")


def argmax(x: Any, axis: int | Axis | None = None, name: str = "") -> Function:
    """Index of the first largest value along a static axis (None: of the flattened sample), as a number."""
    return apply("argmax", [x], name, axis=_index(axis))


def argmin(x: Any, axis: int | Axis | None = None, name: str = "") -> Function:
    """Index of the first smallest value along a static axis (None: of the flattened sample), as a number."""
    return apply("argmin", [x], name, axis=_index(axis))


def _index(axis: int | Axis | None) -> int | None:
    if axis is None or (isinstance(axis, Axis) and axis == Axis.all_static_axes()):
        return None
    return axis.static_axis_index() if isinstance(axis, Axis) else int(axis)


# softmax family ------------------------------------------------------------------------------------------------------------------


def _same(types, attrs):
    t = types[0]
    if attrs.get("axis") is not None and (t.shape or attrs["axis"] != -1):
        static_axis(attrs["axis"], len(t.shape))
    return [t]


def _over(x, attrs):
    """The static axes that the family normalises over: one, or all; none of a number."""
    rank = len(x.type.shape)
    if rank == 0:
        return ()
    return tuple(range(rank)) if attrs.get("axis") is None else (static_axis(attrs["axis"], rank),)


def _softmax(g, x, attrs, training):
    over = _over(x[0], attrs)
    # the largest is taken away first: x - log sum e^x would lose the digits that large values have not
    e = (x[0] - x[0].node("reduce_max", axes=over, rows=False).stop()).exp()
    return e / e.node("reduce_sum", axes=over, rows=False)


def _log_softmax(g, x, attrs, training):
    over = _over(x[0], attrs)
    d = x[0] - x[0].node("reduce_max", axes=over, rows=False).stop()
    return d - d.node("reduce_logsumexp", axes=over, rows=False)


def _hardmax_type(types, attrs):
    _arg_type(types, {"axis": None})
    return [types[0]]


def _hardmax(g, x, attrs, training):
    x = x[0]
    shape = x.type.shape
    size = 1
    for n in shape:
        size *= n
    flat = x.reshape(shape=(size,))
    return flat.node("argmax_axis", axis=0).node("one_hot", classes=size, axis=0).reshape(shape=shape)


Op("softmax", "Softmax", _same, None, "expand", "definition", expand=_softmax)
Op("log_softmax", "LogSoftmax", _same, None, "expand", "definition", expand=_log_softmax)
Op("hardmax", "Hardmax", _hardmax_type, None, "expand", "definition", expand=_hardmax)


def softmax(x: Any, axis: int | Axis | None = None, name: str = "") -> Function:
    """e^x / sum(e^x) over a static axis (None: over all of them), without overflow."""
    return apply("softmax", [x], name, axis=_index(axis))


def log_softmax(x: Any, axis: int | Axis | None = None, name: str = "") -> Function:
    """x - log(sum(e^x)) over a static axis (None: over the last one, unlike `softmax`, as in CNTK), without overflow."""
    return apply("log_softmax", [x], name, axis=-1 if axis is None else _index(axis))


def hardmax(x: Any, name: str = "") -> Function:
    """1 at the first largest value of the sample, 0 elsewhere."""
    return apply("hardmax", [x], name)
