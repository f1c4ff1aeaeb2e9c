"""Ops over sequences: delays, steps picked out of sequences, reductions over steps, and ways from one row space to another.

All are made of the primitives of `rows` and pointwise ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.default_options import default_override_or
from cogkit.errors import here
from cogkit.functions import Function, apply, to_variable, to_variables
from cogkit.op import FREE, Op, Type, broadcast, common_dtype, constant_gradient, fits, row_space, shown
from cogkit.ops import graph as graph_ops
from cogkit.ops.rows import BATCH, has_steps, needs_steps, spread
from cogkit.variables import Variable

__all__ = [
    "broadcast_as",
    "delay",
    "first",
    "future_value",
    "gather",
    "input",
    "input_variable",
    "is_first",
    "is_last",
    "last",
    "past_value",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "scatter",
    "slice",
    "softmax",
    "unpack",
    "where",
]

# delays --------------------------------------------------------------------------------------------------------------------------


def _delay_type(types, attrs):
    x, start = types
    needs_steps(x)
    try:
        both = broadcast([x, start._replace(axes=())])
    except ValueError:
        both = None
    if both is None or not fits(both.shape, x.shape):
        raise ValueError((f"an initial state that broadcasts to {shown(x.shape)}", shown(start.shape), ""))
    return [Type(x.shape, common_dtype(types), x.axes)]


def delayed(g: Any, x_type: Type, moved: Any, start: Any, steps: int) -> Any:
    """What a delay gives, of the moved rows: the initial state where there was no such step.

    Where sequences go on from minibatch to minibatch, what the last steps of the one before gave comes first.
    """
    if has_steps(start.type.axes):
        start = start.node("move_rows", move=("initial", steps), axes=x_type.axes)
    if g.goes_on(x_type.axes) and steps > 0:
        start = g.carry(moved, steps, start)
    elif start.producer.name == "fill" and start.producer.attrs["value"] == 0.0:
        return moved
    what = ("below", steps) if steps > 0 else ("last", -steps)
    missing = g.node("row_info", [], what=what, type=Type((1,) * len(x_type.shape), x_type.dtype, x_type.axes))
    return missing.select(start, moved)


def _delay_expand(g, x, attrs, training):
    x, start = x
    moved = x.node("move_rows", move=("shift", attrs["steps"]), axes=x.type.axes)
    return delayed(g, x.type, moved, start, attrs["steps"])


for _name, _label in [("past_value", "PastValue"), ("future_value", "FutureValue")]:
    Op(_name, _label, _delay_type, None, "expand", "CNTK v2", expand=_delay_expand, delays=True)


def _delay(op: str, x: Any, initial_state: Any, steps: int, name: str, sign: int) -> Function:
    if not isinstance(steps, (int, np.integer)) or steps <= 0:
        raise ValueError(
            here(f"{op}: expected a time_step of at least 1, got {steps!r}; 0 is the value itself, the other way is the other op")
        )
    start = 0 if initial_state is None else initial_state
    return apply(op, to_variables(x, start), name, steps=sign * int(steps))


def past_value(x: Any, initial_state: Any = None, time_step: int = 1, name: str = "") -> Function:
    """The value of `time_step` steps ago; the initial state where there was none (default 0).

    x: a value over sequences, or a placeholder that stands for one computed from this (a recurrence). initial_state: a number, an array
    that broadcasts to the sample, a value a batch item, or sequences whose last `time_step` steps come before x (of one step: which
    is repeated). Raises `ValueError` where x has no sequence axis or shapes differ.
    """
    return _delay("past_value", x, initial_state, time_step, name, 1)


def future_value(x: Any, initial_state: Any = None, time_step: int = 1, name: str = "") -> Function:
    """The value `time_step` steps ahead; the initial state where there is none (default 0). See `past_value`."""
    return _delay("future_value", x, initial_state, time_step, name, -1)


def delay(x: Any, initial_state: Any = None, time_step: int = 1, name: str = "") -> Any:
    """`past_value` for a positive time_step, `future_value` for a negative one, x for 0."""
    if time_step > 0:
        return past_value(x, initial_state, time_step, name)
    if time_step < 0:
        return future_value(x, initial_state, -time_step, name)
    return graph_ops.alias(x, name)


# steps of sequences --------------------------------------------------------------------------------------------------------------


def _like_sequence(types, attrs):
    needs_steps(types[0])
    return [Type((), types[0].dtype, types[0].axes)]


def _flag(what):
    return lambda g, x, attrs, training: g.node("row_info", [], what=what, type=Type((), x[0].type.dtype, x[0].type.axes))


Op("is_first", "Sequence::IsFirst", _like_sequence, constant_gradient, "expand", "CNTK v2", expand=_flag(("below", 1)))
Op("is_last", "Sequence::IsLast", _like_sequence, constant_gradient, "expand", "CNTK v2", expand=_flag(("last", 1)))


def is_first(seq: Any, name: str = "") -> Function:
    """1 at the first step of each sequence, 0 at the others; shape ()."""
    return apply("is_first", [seq], name)


def is_last(seq: Any, name: str = "") -> Function:
    """1 at the last step of each sequence, 0 at the others; shape ()."""
    return apply("is_last", [seq], name)


def _slice_type(types, attrs):
    t = types[0]
    needs_steps(t)
    begin, end = attrs["begin"], attrs["end"]
    if _one_step(begin, end):
        return [t._replace(axes=BATCH)]
    axis = next(a for a in t.axes if a.is_sequence_axis)
    if end > begin and (begin >= 0) == (end > 0):
        name = f"{axis.name}_fixedSliceOf_{end - begin}"
    else:
        name = f"{axis.name}_from_{begin}_to_{end}"
    return [t._replace(axes=(*BATCH, Axis(name)))]


def _one_step(begin: int, end: int) -> bool:
    return end - begin == 1 and (begin >= 0) == (end > 0) or (begin == -1 and end == 0)


def _slice_expand(g, x, attrs, training):
    x = x[0]
    out = _slice_type([x.type], attrs)[0]
    begin, end = attrs["begin"], attrs["end"]
    if _one_step(begin, end):
        return x.node("move_rows", move=("at", begin), axes=out.axes)
    axes, i = g.space(out.axes, x.type.axes, ("cut", begin, end), None)
    return x.node("move_rows", move=("pick", i), axes=axes)


Op("sequence_slice", "Sequence::Slice", _slice_type, None, "expand", "CNTK v2", expand=_slice_expand)


def slice(seq: Any, begin_index: int, end_index: int, name: str = "") -> Function:
    """Steps begin to end of each sequence; negative bounds count from its end, an end of 0 is its end.

    One step alone gives a value without sequence axis. A sequence that has no such step gives none (0 where one step is asked for); CNTK
    refuses it. Raises `ValueError` for bounds that leave nothing of any sequence.
    """
    begin, end = int(begin_index), int(end_index)
    if (begin >= 0) == (end > 0) and end <= begin and not (begin < 0 and end == 0) and end != 0:
        raise ValueError(here(f"sequence.slice: expected begin_index < end_index, got [{begin}:{end}]"))
    return apply("sequence_slice", [seq], name, begin=begin, end=end)


def first(seq: Any, name: str = "") -> Function:
    """The first step of each sequence, without sequence axis."""
    return slice(seq, 0, 1, name)


def last(seq: Any, name: str = "") -> Function:
    """The last step of each sequence, without sequence axis."""
    return slice(seq, -1, 0, name)


def _condition(t: Type) -> None:
    needs_steps(t)
    if t.shape is not None and any(n != 1 for n in t.shape):
        raise ValueError(("a condition of one number a step", shown(t.shape), ""))


def _where_type(types, attrs):
    _condition(types[0])
    return [Type((), types[0].dtype, (*BATCH, attrs["axis"]))]


def _where_expand(g, x, attrs, training):
    c = x[0]
    axes, i = g.space((*BATCH, attrs["axis"]), c.type.axes, ("where",), c)
    step = g.node("row_info", [], what=("step",), type=Type((), c.type.dtype, c.type.axes))
    return step.node("move_rows", move=("pick", i), axes=axes)


def _gather_type(types, attrs):
    seq, c = types
    needs_steps(seq)
    _condition(c)
    _one_space(seq, c)
    return [seq._replace(axes=(*BATCH, attrs["axis"]) if attrs["axis"] is not None else BATCH)]


def _one_space(seq: Type, c: Type) -> None:
    if seq.axes != c.axes:
        raise ValueError(
            (
                "a sequence and a condition of one row space",
                f"{row_space(seq.axes)} and {row_space(c.axes)}",
                "reconcile them with C.reconcile_dynamic_axes",
                (0, 1),
            )
        )


def _gather_expand(g, x, attrs, training):
    seq, c = x
    if attrs["axis"] is None:  # one step of each sequence
        axes, i = g.space((*BATCH, Axis("one step")), c.type.axes, ("where",), c)
        return seq.node("move_rows", move=("pick", i), axes=axes).node("move_rows", move=("at", 0), axes=BATCH)
    if (*BATCH, attrs["axis"]) == c.type.axes:  # all steps of each
        axes, i = g.space((*BATCH, Axis("all steps")), c.type.axes, ("where",), c)
        return seq.node("move_rows", move=("pick", i), axes=axes).node("move_rows", move=("relabel",), axes=c.type.axes)
    axes, i = g.space((*BATCH, attrs["axis"]), c.type.axes, ("where",), c)
    return seq.node("move_rows", move=("pick", i), axes=axes)


def _scatter_type(types, attrs):
    seq, c = types
    _condition(c)
    if not seq.axes:
        raise ValueError(("a value over sequences or of the batch", str(seq), ""))
    return [seq._replace(axes=c.axes)]


def _scatter_expand(g, x, attrs, training):
    seq, c = x
    axes, i = g.space((*BATCH, attrs["axis"]), c.type.axes, ("where",), c)
    if not has_steps(seq.type.axes):  # one step a sequence
        shape = seq.type.shape
        seq = seq.reshape((1, *shape)).node("move_rows", move=("pack", 1), axes=axes, shape=shape)
    elif seq.type.axes != axes:
        seq = seq.node("move_rows", move=("relabel",), axes=axes)
    return seq.node("move_rows", move=("unpick", i), axes=c.type.axes)


Op("where", "Where", _where_type, constant_gradient, "expand", "CNTK v2", expand=_where_expand)
Op("sequence_gather", "Sequence::Gather", _gather_type, None, "expand", "CNTK v2", expand=_gather_expand)
Op("sequence_scatter", "Sequence::Scatter", _scatter_type, None, "expand", "CNTK v2", expand=_scatter_expand)


def _where_axis(condition: Variable) -> Axis:
    """The axis of the steps at which a condition holds: equal for everything that is picked by one condition."""
    return Axis(f"whereNodeDynamicAxis_conditionVar_{condition.uid}")


def where(condition: Any, name: str = "") -> Function:
    """The steps (0, 1, ...) at which a condition is not 0, as a sequence of numbers over an axis of its own.

    A step is there as many times as the sum of the condition up to it, rounded up, has grown: so a condition of 1.5 everywhere makes
    sequences half as long again.
    """
    c = to_variable(condition)
    return apply("where", [c], name, axis=_where_axis(c))


def gather(seq: Any, condition: Any, new_sequence_axis_typeinfo: Any = None, name: str = "") -> Function:
    """The steps of `seq` at which `condition` is not 0, over an axis of their own (the same for the same condition).

    new_sequence_axis_typeinfo: (a, b) where a sequence of n steps keeps a n + b of them: whatever keeps as many shares an axis, (0, 1)
    leaves none, and (1, 0) that of the condition. `ValueError` when run, where two that share an axis differ in lengths.
    """
    c = to_variable(condition)
    axis: Axis | None = _where_axis(c)
    if new_sequence_axis_typeinfo is not None:
        times, more = new_sequence_axis_typeinfo
        of = next((a.name for a in c.dynamic_axes if a.is_sequence_axis), "")
        if (times, more) == (0, 1):
            axis = None
        elif (times, more) == (1, 0):
            axis = Axis(of)
        else:
            axis = Axis(f"{of}_fixedSliceOf_{more}" if times == 0 else f"{of}_times_{times}_plus_{more}")
    return apply("sequence_gather", [seq, c], name, axis=axis)


def scatter(seq: Any, condition: Any, new_sequence_axis_typeinfo: Any = None, name: str = "") -> Function:
    """The opposite of `gather`: the steps of `seq` at those places of the condition's sequences at which it is not 0, 0 at the others.

    Each sequence of `seq` must have as many steps as its condition holds (a value of the batch is one step); `ValueError` when run, where
    it has not.
    """
    c = to_variable(condition)
    return apply("sequence_scatter", [seq, c], name, axis=_where_axis(c))


# between row spaces --------------------------------------------------------------------------------------------------------------


def _broadcast_as_type(types, attrs):
    x, like = types
    if has_steps(x.axes) and x.axes != like.axes:
        raise ValueError(
            (
                "an operand without a sequence axis",
                f"{row_space(x.axes)} to broadcast as {row_space(like.axes)}",
                "sequences of equal lengths are reconciled with C.reconcile_dynamic_axes",
            )
        )
    return [x._replace(axes=like.axes)]


def _broadcast_as_expand(g, x, attrs, training):
    return g.in_space(x[0], x[1].type.axes)


Op("broadcast_as", "Sequence::BroadcastAs", _broadcast_as_type, None, "expand", "CNTK v2", expand=_broadcast_as_expand)


def broadcast_as(operand: Any, broadcast_as_operand: Any, name: str = "") -> Function:
    """A value a batch item, repeated at every step of the sequences of another value."""
    return apply("broadcast_as", to_variables(operand, broadcast_as_operand), name)


def _unpack_type(types, attrs):
    t = types[0]
    needs_steps(t)
    out = Type((FREE, *t.shape), t.dtype, BATCH)
    return [out] if attrs["no_mask"] else [out, Type((FREE,), t.dtype, BATCH)]


def _unpack_expand(g, x, attrs, training):
    x = x[0]
    longest = g.longest_of(x.type.axes)
    move = ("unpack", longest)
    y = x.node("move_rows", move=move, axes=BATCH, shape=(longest, *x.type.shape))
    pad = attrs["padding"]
    if attrs["no_mask"] and pad == 0.0:
        return y
    ones = g.node("row_info", [], what=("below", 1 << 40), type=Type((), x.type.dtype, x.type.axes))
    mask = ones.node("move_rows", move=move, axes=BATCH, shape=(longest,))
    if pad != 0.0:
        y = mask.reshape((longest, *(1,) * len(x.type.shape))).select(y, pad)
    return y if attrs["no_mask"] else [y, mask]


Op("unpack_sequence", "UnpackSequenceOp", _unpack_type, None, "expand", "CNTK v2", expand=_unpack_expand)


def unpack(x: Any, padding_value: float, no_mask_output: bool = False, name: str = "") -> Function:
    """Sequences as one array a batch item, (longest, *shape), padded; and a mask (longest,) of 1 where there is a step, unless left out."""
    return apply(
        "unpack_sequence", [x], name, 1 if no_mask_output else 2, padding=float(padding_value), no_mask=bool(no_mask_output)
    )


# reductions over the steps of a sequence -----------------------------------------------------------------------------------------


def _over_steps_type(types, attrs):
    needs_steps(types[0])
    return [types[0]._replace(axes=BATCH)]


Op(
    "reduce_sequence",
    "Sequence::ReduceElements",
    _over_steps_type,
    None,
    "expand",
    "CNTK v2",
    expand=lambda g, x, attrs, training: x[0].node("fold_steps", kind=attrs["kind"]),
)


def reduce_sum(seq: Any, name: str = "") -> Function:
    """The sum of all steps of each sequence, without sequence axis."""
    return apply("reduce_sequence", [seq], name, kind="sum")


def reduce_max(seq: Any, name: str = "") -> Function:
    """The largest value, element by element, over the steps of each sequence; the gradient goes to every largest value."""
    return apply("reduce_sequence", [seq], name, kind="max")


def reduce_min(seq: Any, name: str = "") -> Function:
    """The smallest value, element by element, over the steps of each sequence; the gradient goes to every smallest value."""
    return apply("reduce_sequence", [seq], name, kind="min")


def _softmax_type(types, attrs):
    needs_steps(types[0])
    return [types[0]]


def _softmax_expand(g, x, attrs, training):
    x = x[0]
    e = (x - spread(x.node("fold_steps", kind="max"), x).stop()).exp()
    return e / spread(e.node("fold_steps", kind="sum"), x)


Op("sequence_softmax", "Sequence::Softmax", _softmax_type, None, "expand", "CNTK v2", expand=_softmax_expand)


def softmax(seq: Any, name: str = "") -> Function:
    """e^x / sum of e^x over the steps of each sequence, element by element, without overflow."""
    return apply("sequence_softmax", [seq], name)


# inputs --------------------------------------------------------------------------------------------------------------------------


def input_variable(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    needs_gradient: bool = False,
    is_sparse: bool = False,
    sequence_axis: Axis = Axis.default_dynamic_axis(),  # noqa: B008
    name: str = "",
) -> Variable:
    """A value over sequences, fed as a list of arrays (steps, *shape) at each call. `sequence_axis`: its own where lengths are its own.

    Raises `ValueError` or `TypeError` for a shape, type or axis that makes no sense.
    """
    if not isinstance(sequence_axis, Axis) or not sequence_axis.is_sequence_axis:
        raise TypeError(here(f"sequence_axis: expected a sequence axis such as C.Axis('t'), got {sequence_axis!r}"))
    return graph_ops.input_variable(shape, dtype, needs_gradient, is_sparse, (*BATCH, sequence_axis), name)


input = input_variable
