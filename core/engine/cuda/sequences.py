"""Rows of sequences on the GPU: moved by tables, summed by tables, numbers a row, reductions over steps.

A table depends on the lengths of a minibatch alone: it is made on the host and put on the device once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.engine.cuda.driver import Copy, Memset
from cogkit.engine.cuda.indexing import gathered, summed
from cogkit.engine.cuda.table import B, Call, Table, blocks, i64, io, kernel, launch
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.spaces import row_info, row_table
from cogkit.engine.table import Made
from cogkit.lowering.steps import Step

__all__: list[str] = []


@kernel("move_rows")
def _move_rows(s: Step, sizes: dict) -> Made:
    n = s.node
    x, move = n.inputs[0], n.attrs["move"]
    index = row_table(n, sizes)
    width = math.prod(x.type.shape)
    if move[0] in ("pack", "head"):
        width //= max(move[1], 1)
    size = width * x.type.dtype.itemsize
    if len(index) * size == 0:
        return None
    source = rows(x.type, sizes) * math.prod(x.type.shape) // width
    if move[0] == "relabel":
        return Call(2, [Copy(B(1), B(0), len(index) * size)]), io(s)
    return Call(2, [gathered(B(0), Table(index.astype(np.int32)), B(1), "i4", len(index), size, source)]), io(s)


@kernel("add_rows")
def _add_rows(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    index, width = row_table(s.node, sizes), math.prod(x.type.shape)
    target, size = rows(y.type, sizes), math.prod(shape(y, sizes)) * y.type.dtype.itemsize
    if size == 0:
        return None
    launches: list[Any] = [Memset(B(1), size)]
    used = np.flatnonzero(index >= 0)
    if len(used):
        place = used[np.argsort(index[used], kind="stable")]
        tables = Table(index[place].astype(np.uint32)), Table(place.astype(np.int32))
        launches.append(summed(*tables, B(0), B(1), code(x), len(place), width, target))
    return Call(2, launches), io(s)


@kernel("row_info")
def _row_info(s: Step, sizes: dict) -> Made:
    t, y = s.node.attrs["type"], s.outputs[0]
    n = math.prod(shape(y, sizes))
    if n == 0:
        return None
    values = Table(row_info(s.node.attrs["what"], sizes[t.axes]).astype(t.dtype))
    return Call(
        1, [launch("sequences", f"row_values_{code(y)}", blocks(n), 256, [values, B(0), i64(n), i64(math.prod(t.shape))])]
    ), io(s)


@kernel("fold_steps")
def _fold_steps(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    space, width = sizes[x.type.axes], math.prod(x.type.shape)
    n = len(space.lengths) * width
    if n == 0:
        return None
    arguments = [B(0), B(1), Table(space.offset), Table(space.order), i64(space.steps), i64(len(space.lengths)), i64(width)]
    return Call(2, [launch("sequences", f"fold_{s.node.attrs['kind']}_{code(x)}", blocks(n), 256, arguments)]), io(s)
