"""Sparse values on the CPU: the kernels of products, moves and gradients of sparse values, and of learners' updates of listed rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.engine.cpu import sparse
from cogkit.engine.cpu.kernels import fits, kernel, wrong
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.spaces import row_table
from cogkit.engine.table import Made
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.sparse import CSR
from cogkit.lowering.steps import Step

__all__: list[str] = []


def _plain(s: Step) -> list[Any]:
    return [(v, PLAIN) for v in (*s.inputs, *s.outputs)]


@kernel("csr_times")
def _csr_times(s: Step, sizes: dict) -> Made:
    (a, b), tb = s.node.inputs, s.node.attrs["tb"]
    if math.prod(shape(s.outputs[0], sizes)) == 0:
        return None
    return sparse.CsrTimes(a.type.shape[-1], b.type.shape[0 if tb else 1], code(b), tb), _plain(s)


@kernel("rows csr_transposed")
def _csr_transposed(s: Step, sizes: dict) -> Made:
    a, dy = s.node.inputs
    return sparse.CsrTransposed(a.type.shape[-1], dy.type.shape[-1], code(dy)), _plain(s)


@kernel("rows scatter_rows")
def _scatter_rows(s: Step, sizes: dict) -> Made:
    size, *row = s.node.attrs["shape"]
    n = math.prod(shape(s.inputs[0], sizes))
    return sparse.ScatterRows(n, math.prod(row), size, code(s.outputs[0]), wrong(s, size)), _plain(s)


@kernel("rows rows_add")
def _rows_add(s: Step, sizes: dict) -> Made:
    v = s.outputs[0]
    return sparse.RowsAdd(math.prod(v.type.shape[1:]), code(v)), _plain(s)


@kernel("densify")
def _densify(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    if math.prod(shape(y, sizes)) == 0:
        return None
    if x.sparse == CSR:
        return sparse.CsrDense(x.type.shape[-1], code(x)), _plain(s)
    return sparse.RowsDense(x.type.shape[0], math.prod(x.type.shape[1:]), code(x)), _plain(s)


@kernel("csr move_rows")
def _move(s: Step, sizes: dict) -> Made:
    each = math.prod(s.node.inputs[0].type.shape[:-1])  # CSR rows of a row
    index = row_table(s.node, sizes)
    if each != 1:
        index = np.where(index[:, None] < 0, -1, index[:, None] * each + np.arange(each)).reshape(-1)
    return sparse.CsrMove(index), _plain(s)


@kernel("csr take")
def _take(s: Step, sizes: dict) -> Made:
    x, a = s.inputs[0], s.node.attrs
    lead = (rows(x.type, sizes), *x.type.shape[:-1])
    kept = a["first"] + a["stride"] * np.arange(s.outputs[0].type.shape[a["axis"]])
    return sparse.CsrMove(np.take(np.arange(math.prod(lead)).reshape(lead), kept, axis=a["axis"] + 1).reshape(-1)), _plain(s)


@kernel("csr one_hot")
def _one_hot(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    return sparse.CsrOneHot(math.prod(shape(x, sizes)), s.node.attrs["classes"], code(x)), _plain(s)


@kernel("update_rows")
def _update_rows(s: Step, sizes: dict) -> Made:
    w, a = s.inputs[0], s.node.attrs
    sizes_of = w.type.shape[0], math.prod(w.type.shape[1:]), code(w)
    if a["rule"] in ("sgd", "adagrad"):
        return sparse.UpdateRows(a["rule"], a["average"], a["norm"], *sizes_of), _plain(s)[:-1]
    parameter, _, *states = [v.producer.leaf for v in s.inputs[: 3 if a["rule"] in ("momentum", "nesterov") else 4]]
    arrays = [v.data for v in (parameter, *states)]
    call = sparse.LaggingRows(a["rule"], a["norm"], a["epsilon"], a["decay"], *sizes_of, arrays)
    parameter.lags = [lag for lag in parameter.lags if lag not in states[0].lags] + [call]  # another learner's stay
    for v in states:
        v.lags = [call]
    if parameter.behind is not None:  # of a checkpoint
        call.take(*parameter.behind)
        parameter.behind = None
    return call, _plain(s)[:-1]


# the number of rows stands with the operands: what a kernel has grown is kept from minibatch to minibatch
@fits("csr_times")
@fits("csr_transposed")
@fits("rows_add")
def _as_it_is(call: Any, s: Step, sizes: dict) -> bool:
    return math.prod(shape(s.outputs[0], sizes)) > 0


@fits("scatter_rows")
def _fit_scatter(call: Any, s: Step, sizes: dict) -> bool:
    call.set_rows(math.prod(shape(s.inputs[0], sizes)))
    return True
