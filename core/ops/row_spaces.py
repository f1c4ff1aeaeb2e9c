"""Ops from one row space to another: sequences and batches made of static axes and back, values taken over to the axes of others."""

from __future__ import annotations

from typing import Any

from cogkit.axis import Axis
from cogkit.functions import Function, apply, to_variables
from cogkit.op import FREE, Op, Type, row_space, shown
from cogkit.ops.rows import BATCH, has_steps, needs_steps

__all__ = ["reconcile_dynamic_axes", "to_batch", "to_sequence", "to_sequence_like", "unpack_batch"]


def _reconcile_type(types, attrs):
    x, like = types
    if has_steps(x.axes) and not has_steps(like.axes):
        raise ValueError(
            (
                "a value over sequences to take the axes of",
                f"{row_space(like.axes)} for {row_space(x.axes)}",
                "take C.sequence.last or reduce over steps first",
            )
        )
    return [x._replace(axes=like.axes)]


def _reconcile_expand(g, x, attrs, training):
    x, like = x
    if has_steps(x.type.axes) and x.type.axes != like.type.axes:
        return x.node("move_rows", move=("relabel",), axes=like.type.axes)
    return g.in_space(x, like.type.axes)


Op("reconcile_dynamic_axes", "ReconcileDynamicAxis", _reconcile_type, None, "expand", "CNTK v2", expand=_reconcile_expand)


def _pack_type(types, attrs):
    t = types[0]
    if t.axes is not None and (not t.axes or has_steps(t.axes)):
        raise ValueError(("an operand of the batch", str(t), "its first static axis becomes the sequence axis"))
    if not t.shape:
        raise ValueError(
            ("an operand with at least one static axis", shown(t.shape), "its first static axis becomes the sequence axis")
        )
    return t


def _to_sequence_type(types, attrs):
    t = _pack_type(types, attrs)
    return [Type(t.shape[1:], t.dtype, (*BATCH, attrs["axis"]))]


def _to_sequence_expand(g, x, attrs, training):
    t = x[0].type
    lengths = x[1].reshape(()) if len(x) > 1 else None
    axes, _ = g.space((*BATCH, attrs["axis"]), t.axes, ("lengths", t.shape[0]), lengths)
    return x[0].node("move_rows", move=("pack", t.shape[0]), axes=axes, shape=t.shape[1:])


def _to_sequence_like_type(types, attrs):
    t = _pack_type(types, attrs)
    needs_steps(types[1])
    return [Type(t.shape[1:], t.dtype, types[1].axes)]


def _to_sequence_like_expand(g, x, attrs, training):
    t, like = x[0].type, x[1].type
    return x[0].node("move_rows", move=("pack", t.shape[0]), axes=like.axes, shape=t.shape[1:])


Op("to_sequence", "ToSequenceOp", _to_sequence_type, None, "expand", "CNTK v2", expand=_to_sequence_expand)
Op("to_sequence_like", "ToSequenceLikeOp", _to_sequence_like_type, None, "expand", "CNTK v2", expand=_to_sequence_like_expand)


# primitives: the rows of a batch are the entries of a leading static axis, so that nothing moves
Op(
    "rows_to_axis",
    "UnpackBatchAxis",
    lambda types, attrs: [Type((attrs["rows"], *types[0].shape), types[0].dtype, ())],
    lambda n, dy: [dy.node("axis_to_rows", axes=n.inputs[0].type.axes)],
    "view",
    "definition",
)
Op(
    "axis_to_rows",
    "ToBatchAxis",
    lambda types, attrs: [Type(types[0].shape[1:], types[0].dtype, attrs["axes"])],
    lambda n, dy: [dy.node("rows_to_axis", rows=n.inputs[0].type.shape[0])],
    "view",
    "definition",
)


def _to_batch_type(types, attrs):
    t = types[0]
    if t.axes:
        raise ValueError(("an operand without rows", str(t), "C.unpack_batch makes the batch a static axis"))
    if not t.shape:
        raise ValueError(("an operand with an axis to make a batch of", "a number", ""))
    return [Type(t.shape[1:], t.dtype, BATCH)]


def _unpack_batch_type(types, attrs):
    t = types[0]
    if t.axes is not None and (not t.axes or has_steps(t.axes)):
        raise ValueError(
            ("an operand of the batch, without a sequence axis", str(t), "C.sequence.unpack comes first" if t.axes else "")
        )
    return [Type((FREE, *t.shape), t.dtype, ())]


Op(
    "to_batch",
    "ToBatchAxis",
    _to_batch_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0].node("axis_to_rows", axes=g.batch_of(x[0].type.shape[0])),
)
Op(
    "unpack_batch",
    "UnpackBatchAxis",
    _unpack_batch_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0].node("rows_to_axis", rows=g.rows_of(x[0].type.axes)),
)


def to_sequence(x: Any, sequence_lengths: Any = None, sequence_axis_name_prefix: str = "toSequence_", name: str = "") -> Function:
    """Makes the first static axis a sequence axis of its own; of each item the first `sequence_lengths` steps, or all.

    x: (steps, *shape) a batch item; sequence_lengths: one number a batch item. `ValueError` when run, for a length beyond the steps.
    """
    operands = to_variables(x) if sequence_lengths is None else to_variables(x, sequence_lengths)
    axis = Axis(sequence_axis_name_prefix + operands[0].uid)
    return apply("to_sequence", operands, name, axis=axis)


def to_sequence_like(x: Any, dynamic_axes_like: Any, name: str = "") -> Function:
    """Makes the first static axis the sequence axis of another value, with its lengths."""
    return apply("to_sequence_like", to_variables(x, dynamic_axes_like), name)


def reconcile_dynamic_axes(x: Any, dynamic_axes_as: Any, name: str = "") -> Function:
    """x with the row space of another value: sequences of equal lengths are taken to be over its axis; others are repeated over it."""
    return apply("reconcile_dynamic_axes", to_variables(x, dynamic_axes_as), name)


def to_batch(x: Any, name: str = "") -> Function:
    """Makes the first static axis of a value without rows the batch axis: (n, *shape) to n rows of that shape.

    It meets what is fed where that has n rows. Raises `ValueError` for a value that has rows already.
    """
    return apply("to_batch", [x], name)


def unpack_batch(x: Any, name: str = "") -> Function:
    """Makes the batch axis the first static axis, of free size: n rows of a shape to (n, *shape), without rows.

    Raises `ValueError` for a value without rows and for sequences. (A plan is made for each number of rows.)
    """
    return apply("unpack_batch", [x], name)
