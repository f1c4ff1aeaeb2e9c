"""Sparse values in the lowered graph: which nodes take and give them. Whatever else reads one reads it dense.

Two forms. CSR: rows of (column, value) pairs over the last static axis, of what is fed sparse, sparse constants and one-hot values. ROWS:
a gradient of a parameter that lists the rows of its first axis that are not 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cogkit.csr import HEAD
from cogkit.op import OPS

__all__ = ["CSR", "LISTS", "ROWS", "accept", "csr_bytes", "dense", "form_of", "is_fed_sparse", "list_bytes", "list_room"]

CSR, ROWS = "csr", "rows"
LISTS = {"csr_transposed", "scatter_rows", "rows_add"}  # what gives a list of rows
_TAKE = {
    "densify",
    "row_count",
    "csr_times",
    "csr_transposed",
    "rows_add",
    "update_rows",
}  # what takes sparse operands as they are
_CHOICES = {"shift", "broadcast", "at", "spread", "pick", "unpick", "relabel", "initial", "unpack"}  # moves of whole rows


def csr_bytes(rows: int, itemsize: int) -> int:
    """Bytes of CSR rows in a plan's memory: the head, where each row begins and ends, and room for one entry a row."""
    return HEAD + rows * (16 + 8 + max(itemsize, 8))


def list_room(entries: int, width: int) -> int:
    """Rows that a list of so many entries may have, of `width` in all; a multiple of eight, so that what follows their numbers is aligned."""
    return -(-min(entries, width) // 8) * 8


def list_bytes(entries: int, shape: Sequence[int], itemsize: int) -> int:
    """Bytes of a list of rows: its head, and numbers and values of the rows where an engine keeps them behind it (entries is not 0)."""
    return HEAD + list_room(entries, shape[0]) * (8 + math.prod(shape[1:]) * itemsize)


def is_fed_sparse(v: Any) -> bool:
    """Whether a variable is fed as CSR rows: an input said to be sparse that has an axis for the columns, of a type that kernels take."""
    return bool(getattr(v, "is_sparse", False)) and v.kind == "Input" and len(v._shape) > 0 and v._dtype.itemsize >= 4


def form_of(op: Any, inputs: Sequence[Any], attrs: dict[str, Any], leaf: Any) -> str:
    """The form of a node's outputs: '' (dense), CSR or ROWS."""
    if op is None:
        if is_fed_sparse(leaf) or leaf.kind == "Constant" and leaf.is_sparse:
            return CSR
        return ROWS if getattr(leaf, "row_sparse", False) else ""
    if op.name == "one_hot":
        return CSR if attrs.get("sparse") else ""
    if op.name in LISTS:
        return ROWS
    keeps = op.name in ("move_rows", "take") or op.kernel == "view"
    return inputs[0].sparse if keeps and inputs else ""


def dense(v: Any) -> Any:
    """A value that is held dense."""
    if not v.sparse:
        return v
    p = v.producer
    if p.op is not None and p.op.kernel == "view":
        return dense(p.inputs[0]).reshape(v.type.shape)
    if p.name == "one_hot":
        return v.graph.node("one_hot", p.inputs, **{k: a for k, a in p.attrs.items() if k != "sparse"})
    return v.graph.node("densify", [v])


def accept(g: Any, op: str, x: list[Any], attrs: dict[str, Any]) -> tuple[list[Any], Any]:
    """(operands, value) of a node of which an operand is sparse: operands that it takes, or a value that is made of other nodes."""
    record = OPS[op]
    if op in _TAKE or op == "alias":
        return x, None
    a = x[0]
    if op == "add" and all(v.sparse == ROWS for v in x) and x[0].type == x[1].type:
        return x, g.node("rows_add", x)
    if op == "matmul":
        made = _product(g, *x, **attrs)
        if made is not None:
            return x, made
    elif a.sparse == CSR and (
        op == "move_rows" and attrs["move"][0] in _CHOICES or op == "take" and attrs["axis"] != len(a.type.shape) - 1
    ):
        return x, None
    elif record.kernel == "view":
        shape = record.infer([a.type], attrs)[0].shape
        same = slice(-1, None) if a.sparse == CSR else slice(0, 1)
        if shape[same] == a.type.shape[same]:
            return x, None
    return [dense(v) for v in x], None


def _product(g: Any, a: Any, b: Any, ta: bool, tb: bool, sum_rows: bool) -> Any:
    """A matrix product with a sparse operand, where there is a sparse way to it."""
    if a.sparse == CSR and ta and not tb and not b.sparse and sum_rows == bool(a.type.axes) and a.type.axes == b.type.axes:
        return g.node("csr_transposed", [a, b])
    if sum_rows or (a.sparse and b.sparse):
        return None
    if a.sparse == CSR and not ta and not b.type.axes:
        p = a.producer
        while p.op is not None and p.op.kernel == "view":
            p = p.inputs[0].producer
        if p.name == "one_hot" and not tb:  # entries of b: no sparse value is needed
            return g.node("gather", [b, p.inputs[0].reshape(shape=a.type.shape[:1])], zeros=True)
        return g.node("csr_times", [a, b], tb=tb)
    if b.sparse == CSR and tb and not a.type.axes and not ta:  # a b' = (b a')'
        return g.node("csr_times", [b, a], tb=True).node("transpose", perm=(1, 0))
    return None
