"""Matrix products."""

from __future__ import annotations

from typing import Any

from cogkit.errors import sentence
from cogkit.functions import Function, apply, to_variables
from cogkit.op import INFERRED, Op, Type, common_dtype, fits, join_axes, shown, size_of
from cogkit.ops import sequence

__all__ = ["TIMES_NO_INFERRED_INPUT_RANK", "TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK", "times", "times_transpose"]

TIMES_NO_INFERRED_INPUT_RANK = -1
TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK = -2


# the primitive: a (m, k) times b (k, n), ta/tb transpose them; sum_rows sums the products of all rows into one --------------------


def _matmul_type(types, attrs):
    a, b = types
    m, ka = reversed(a.shape) if attrs["ta"] else a.shape
    kb, n = reversed(b.shape) if attrs["tb"] else b.shape
    if ka != kb:
        raise ValueError(("matrices whose inner sizes agree", f"{a.shape} and {b.shape}", ""))
    return [Type((m, n), common_dtype(types), () if attrs["sum_rows"] else join_axes(types))]


def _matmul_gradient(node, dy):
    a, b = node.inputs
    ta, tb = node.attrs["ta"], node.attrs["tb"]

    def product(x, y, tx, ty, like):
        rows = not like.type.axes and bool(x.type.axes or y.type.axes)
        if rows and not (
            x.type.axes and y.type.axes
        ):  # one side is the same for all rows: give it rows, so that they are counted
            if not x.type.axes:
                x = x.expand(Type(x.type.shape, x.type.dtype, y.type.axes))
            else:
                y = y.expand(Type(y.type.shape, y.type.dtype, x.type.axes))
        return x.graph.node("matmul", [x, y], ta=tx, tb=ty, sum_rows=rows)

    da = product(b, dy, tb, True, a) if ta else product(dy, b, False, not tb, a)
    db = product(dy, a, True, ta, b) if tb else product(a, dy, not ta, False, b)
    return [da, db]


Op("matmul", "Times", _matmul_type, _matmul_gradient, "matmul", "definition")


# the op of the graph: contracts the last axes of left with the first axes of right -----------------------------------------------


def _times_bind(types, attrs):
    left, right = types[0].shape, types[1].shape
    out = right[len(right) - attrs["output_rank"] :]
    if INFERRED in right and INFERRED not in left:
        mapped = attrs["map_rank"]
        if mapped >= len(left) > 0:
            raise ValueError(
                (f"fewer than {len(left)} axes to map over in {shown(left)}", str(mapped), "at least one must be summed over")
            )
        if mapped >= 0:  # the parameter contracts every axis of left but the first `map_rank`
            right = left[mapped:] + out
        else:
            k = len(right) - attrs["output_rank"]
            if k <= len(left):
                tail = left[len(left) - k :]
                right = tuple(t if r == INFERRED else r for r, t in zip(right[:k], tail, strict=True)) + out
    elif INFERRED in left and INFERRED not in right:
        k = len(right) - attrs["output_rank"]
        if k <= len(left):
            tail = left[len(left) - k :]
            left = left[: len(left) - k] + tuple(r if t == INFERRED else t for r, t in zip(right[:k], tail, strict=True))
    return [left, right]


def _times_type(types, attrs):
    left, right = types[0].shape, types[1].shape
    r = attrs["output_rank"]
    if not 0 < r <= len(right):
        raise ValueError((f"an output_rank in [1, {len(right)}] for a right operand {shown(right)}", str(r), ""))
    k = len(right) - r
    if k > len(left) or not fits(left[len(left) - k :], right[:k]):
        raise ValueError(
            (
                f"a left operand of shape (..., {shown(right[:k])[1:].replace(',)', ')')}",
                shown(left),
                f"the right operand {shown(right)} is (inputs, outputs)",
            )
        )
    return [Type(left[: len(left) - k] + right[k:], common_dtype(types), join_axes(types))]


def _times_expand(g, x, attrs, training):
    a, b = x
    out = _times_type([a.type, b.type], attrs)[0]
    k = len(b.type.shape) - attrs["output_rank"]
    inner = size_of(b.type.shape[:k])
    m, n = size_of(out.shape[: len(a.type.shape) - k]), size_of(b.type.shape[k:])
    a2, b2 = a.reshape(shape=(m, inner)), b.reshape(shape=(inner, n))
    if n == 1 and b.type.axes and not a.type.axes:  # A b_r for every row r: one product of all rows with A transposed
        y = g.node("matmul", [b2.reshape(shape=(1, inner)), a2], ta=False, tb=True, sum_rows=False)
    else:
        y = g.node("matmul", [a2, b2], ta=False, tb=False, sum_rows=False)
    return y.reshape(shape=out.shape)


def _transposed_type(types, attrs):
    left, right = types[0].shape, types[1].shape
    if not left or not right or not fits(left[-1:], right[-1:]):
        raise ValueError(("last axes of one size", f"{shown(left)} and {shown(right)}", "the right operand is (outputs, inputs)"))
    return [Type(left[:-1] + (right[:-1] or (1,)), common_dtype(types), join_axes(types))]


def _transposed_expand(g, x, attrs, training):
    a, b = x
    k = a.type.shape[-1]
    out = _transposed_type([a.type, b.type], attrs)[0]
    y = g.node(
        "matmul",
        [a.reshape(shape=(size_of(a.type.shape[:-1]), k)), b.reshape(shape=(size_of(b.type.shape[:-1]), k))],
        ta=False,
        tb=True,
        sum_rows=False,
    )
    return y.reshape(shape=out.shape)


Op("times", "Times", _times_type, None, "expand", "CNTK v2", expand=_times_expand, bind=_times_bind)
Op("times_transpose", "TransposeTimes", _transposed_type, None, "expand", "CNTK v2", expand=_transposed_expand)


def times(
    left: Any, right: Any, output_rank: int = 1, infer_input_rank_to_map: int = TIMES_NO_INFERRED_INPUT_RANK, name: str = ""
) -> Function:
    """Matrix product: sums over the last axes of `left` and the first axes of `right`.

    left: (..., inputs), right: (inputs, outputs), result: (..., outputs). output_rank: how many axes of `right` are outputs.
    infer_input_rank_to_map: where inputs of a parameter are inferred, the number of leading axes of `left` that are not summed over;
    `TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK` sums over the steps of sequences too.
    Raises `ValueError` where the summed sizes differ, `NotImplementedError` where several axes of a sparse input are summed over.
    """
    if infer_input_rank_to_map == TIMES_REDUCE_SEQUENCE_AXIS_WITHOUT_INFERRED_INPUT_RANK:
        return sequence.reduce_sum(times(left, right, output_rank), name)
    made = apply("times", [left, right], name, output_rank=int(output_rank), map_rank=int(infer_input_rank_to_map))
    a, b = made.root.operands
    if a.is_sparse and b.type.shape is not None and len(b.type.shape) - int(output_rank) > 1:
        way = "reshape a dense input, or let the last axis alone be summed over"
        fact = f"{shown(a.type.shape)} times {shown(b.type.shape)}"
        raise NotImplementedError(sentence("Times", name, made.root.where, "one summed axis of a sparse operand", fact, way))
    return made


def times_transpose(left: Any, right: Any, name: str = "") -> Function:
    """`left` times `right` transposed: sums over the last axis of both. right: (outputs, inputs), or (inputs,) for one output."""
    return apply("times_transpose", to_variables(left, right), name)
