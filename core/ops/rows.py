"""Row spaces: what every op over sequences is made of.

`move_rows` copies rows between spaces by a table that depends on the lengths alone, `row_info` says a row's step, `fold_steps` reduces each
sequence to one row; what no row is moved to is 0.
"""

from __future__ import annotations

from typing import Any

from cogkit.axis import Axis
from cogkit.op import Op, Type, constant_gradient

__all__ = ["BATCH", "has_steps", "needs_steps", "spread"]

BATCH = (Axis.default_batch_axis(),)


def has_steps(axes: Any) -> bool:
    """Whether a row space is one of sequences."""
    return bool(axes) and any(a.is_sequence_axis for a in axes)


def needs_steps(t: Type, way: str = "") -> None:
    """Raises `ValueError` for a value that is not one of sequences; `way` is the way out."""
    if not has_steps(t.axes):
        raise ValueError(
            (
                "an operand with a sequence axis",
                str(t),
                way or "make its input with C.sequence.input_variable, or use broadcast_as",
            )
        )


# primitives ----------------------------------------------------------------------------------------------------------------------


def _moved_type(types, attrs):
    t = types[0]
    return [Type(attrs.get("shape", t.shape), t.dtype, attrs["axes"])]


_TRANSPOSES = {"at": "spread", "spread": "at", "pick": "unpick", "unpick": "pick", "unpack": "pack", "pack": "unpack"}


def _moved_gradient(n, dy):
    x, (kind, *rest) = n.inputs[0], n.attrs["move"]
    if kind == "broadcast":
        return [dy.node("fold_steps", kind="sum")]
    if kind == "initial" or (kind == "pick" and dy.graph.spaces[rest[0]].kind[0] == "where"):  # a row may go to several
        return [dy.node("add_rows", move=n.attrs["move"], axes=x.type.axes)]
    if kind == "shift":
        move = ("shift", -rest[0])
    elif kind == "roll":
        move = ("roll", -rest[0])
    else:
        move = (_TRANSPOSES.get(kind, kind), *rest)
    return [dy.node("move_rows", move=move, axes=x.type.axes, shape=x.type.shape)]


# attrs move: see engine.spaces.index_of; axes: of the result; shape: of its samples, where it is another one
Op("move_rows", "MoveRows", _moved_type, _moved_gradient, "move_rows", "definition", delays=False)
# the transpose of a move that gives a row to several: attrs move, and axes of what was moved
Op(
    "add_rows",
    "AddRows",
    lambda types, attrs: [types[0]._replace(axes=attrs["axes"])],
    lambda n, dy: [dy.node("move_rows", move=n.attrs["move"], axes=n.inputs[0].type.axes)],
    "add_rows",
    "definition",
)
# attrs what: see engine.spaces.row_info; type
Op("row_info", "RowInfo", lambda types, attrs: [attrs["type"]], constant_gradient, "row_info", "definition")


def _steps_type(types, attrs):
    return [types[0]._replace(axes=BATCH)]


def _steps_gradient(n, dy):
    x, y = n.inputs[0], n.outputs[0]
    dx = spread(dy, x)
    if n.attrs["kind"] != "sum":
        dx = dx * x.eq(spread(y, x))
    return [dx]


def spread(v: Any, like: Any) -> Any:
    """A lowered value of the batch, repeated at every step of another one."""
    return v.node("move_rows", move=("broadcast",), axes=like.type.axes)


# attrs kind: sum, max or min of all steps of each sequence; of no step at all it is 0
Op("fold_steps", "ReduceSteps", _steps_type, _steps_gradient, "fold_steps", "definition")
