"""The table of the CPU engine: which kernel runs a step, in which formats, with which buffers.

A maker takes a step and the numbers of rows and gives a bound call and the (value, format) pairs of its buffers in order; None where there is
nothing to do. Nothing here runs in the training loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from cogkit.engine.cpu import alignment, casting, movement, native, reduce, sampling, steps
from cogkit.engine.cpu.pointwise import Pointwise
from cogkit.engine.cpu.rows import SumProduct, WholeProduct
from cogkit.engine.geometry import C16, code, dims_of, joined, moved, program_of, rows, segments_of, shape, strides_in, strides_of
from cogkit.engine.indices import bad_index
from cogkit.engine.spaces import row_info, row_table
from cogkit.engine.table import Buffers, KernelTable, Made
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.memory import SAVED
from cogkit.lowering.steps import Step
from cogkit.ops.rows import has_steps

try:
    from cogkit.engine.cpu import onednn
except ImportError:  # a machine without a oneDNN wheel
    onednn = None  # type: ignore[assignment]

__all__ = ["HALF_FORMS", "TABLE", "choose_formats", "fit", "fits", "kernel", "make", "wrong"]

TABLE = KernelTable("cpu")
kernel, fits, fit, make = TABLE.kernel, TABLE.fits, TABLE.fit, TABLE.make
# Kernels that take half precision: they move bytes.
HALF_FORMS = frozenset({"stop", "reshape", "transpose", "take", "concat", "move_rows"})


# formats -------------------------------------------------------------------------------------------------------------------------


def choose_formats(step: Step, formats: Callable[[Value], Sequence[str]]) -> tuple[list[str], list[str]]:
    """The formats that a step's kernel takes and gives: 16 channels together for images where oneDNN wants them, and for what follows."""
    ins, outs = [PLAIN] * len(step.inputs), [PLAIN] * len(step.outputs)
    if onednn is None or step.node.outputs[0].type.dtype != np.float32:
        return ins, outs

    def blocks(v: Value) -> bool:
        return (
            v.inside is None
            and len(v.type.shape) >= 2
            and len(v.type.shape) <= 4
            and v.type.shape[0] % 16 == 0
            and math.prod(v.type.shape[1:]) > 1
        )

    name = step.node.name if step.kind != "pointwise" else "pointwise"
    if name in ("conv", "conv_dx", "conv_dw"):
        n = step.node
        images = {"conv": (n.inputs[0], n.outputs[0]), "conv_dx": (n.inputs[0], n.outputs[0]), "conv_dw": tuple(n.inputs)}[name]
        g = n.attrs["groups"]
        for i, v in enumerate(step.inputs):
            if v in images and blocks(v) and (g == 1 or v.type.shape[0] // g % 16 == 0):
                ins[i] = C16
        for i, v in enumerate(step.outputs):
            if name != "conv_dw" and blocks(v) and (g == 1 or v.type.shape[0] // g % 16 == 0):
                outs[i] = C16
    elif name == "pointwise":
        chosen: dict[Value, str] = {}
        for segment in step.segments:
            d = segment.domain
            if any(v.type == d and blocks(v) and C16 in formats(v) for v in segment.segment_inputs):
                chosen.update(
                    (v, C16) for v in (*segment.segment_inputs, *segment.segment_outputs) if v.type == d and not v.inside
                )
        ins = [chosen.get(v, PLAIN) for v in step.inputs]
        outs = [chosen.get(v, PLAIN) for v in step.outputs]
    elif name == "moments":
        if blocks(step.inputs[0]) and C16 in formats(step.inputs[0]):
            ins = [C16]
    elif name in ("pool", "avg_pool_dx") or (name == "max_pool_dx" and hasattr(native, "POOL_C16")):
        big = [v for v in step.inputs if blocks(v)]
        if len(big) == len(step.inputs) and all(blocks(v) for v in step.outputs) and any(C16 in formats(v) for v in big):
            ins, outs = [C16] * len(ins), [C16] * len(outs)
    return ins, outs


# pointwise programs --------------------------------------------------------------------------------------------------------------


@kernel("pointwise")
def _program(s: Step, sizes: dict) -> Made:
    program, kinds, outputs, random = program_of(s)
    segments, buffers, index, flow = segments_of(s, sizes)
    numbered = {"index_strides": index, "flow": flow} if random else {}
    return Pointwise(code(s.segment_outputs[0]), kinds, outputs, program, segments, **numbered), buffers


@fits("pointwise")
def _fit_program(call: Pointwise, s: Step, sizes: dict) -> bool:
    call.resize([sizes[d.axes] if d.axes else -1 for d in (segment.domain for segment in s.segments)])
    return True


# matrix products and images ------------------------------------------------------------------------------------------------------


def _fill(v: Value, sizes: dict, value: float = 0.0) -> Made:
    return movement.Fill(math.prod(shape(v, sizes)), code(v), value), [(v, PLAIN)]


def _io(s: Step) -> Buffers:
    return [(v, s.layouts[v]) for v in (*s.inputs, *s.outputs)]


@kernel("matmul")
def _matmul(s: Step, sizes: dict) -> Made:
    n = s.node
    a, b = n.inputs
    ta, tb, total = n.attrs["ta"], n.attrs["tb"], n.attrs["sum_rows"]
    m, k = reversed(a.type.shape) if ta else a.type.shape
    width = n.outputs[0].type.shape[1]
    ra, rb = bool(a.type.axes), bool(b.type.axes)
    count = rows(a.type, sizes) if ra else rows(b.type, sizes)
    out = s.outputs[0]
    if math.prod(shape(out, sizes)) == 0:
        return None
    if k == 0 or (total and count == 0):
        return _fill(out, sizes)
    batch = 1
    sequences = has_steps(a.type.axes)
    if sequences and not ta and ra and not rb and not total:  # the rows of sequences are others in each minibatch
        call = WholeProduct(count * m, k, width, code(a), tb, "bias" in s.attrs, s.attrs.get("relu", False), "added" in s.attrs)
        return call, _io(s)
    if sequences and total and ra and rb and (ta or k == 1) and (not tb or k == 1):
        return SumProduct(count * k, m, width, code(a)), _io(s)
    if total:
        # the sum over rows of a' b is one product whose inner dimension runs over the rows too
        if (ta or k == 1) and (not tb or k == 1):
            k, ta, tb = count * k, True, False
        else:
            call = native.MatMul(code(a), count, m, width, k, ta, tb, m * k, k * width, 0, sum_batch=True)
            return call, _io(s)
    elif ra and not rb and not ta:
        m *= count
    elif ra or rb:
        batch = count
    if code(a) == "f4" and onednn is not None:
        call = onednn.MatMul(m, width, k, batch=batch, transpose_a=ta, transpose_b=tb, batch_a=None if ra else 0, batch_b=None if rb else 0,
                             bias="bias" in s.attrs, relu=s.attrs.get("relu", False))  # fmt: skip
        return call, _io(s)
    call = native.MatMul(code(a), batch, m, width, k, ta, tb, m * k if ra else 0, k * width if rb else 0, m * width,
                         bias="bias" in s.attrs, relu=s.attrs.get("relu", False))  # fmt: skip
    return call, _io(s)


@fits("matmul")
def _fit_matmul(call: Any, s: Step, sizes: dict) -> bool:
    a = s.node.inputs[0]
    if not isinstance(call, (WholeProduct, SumProduct)):
        return False
    turned = isinstance(call, SumProduct) and not s.node.attrs["ta"]
    call.set_rows(rows(a.type, sizes) * a.type.shape[1 if turned else 0])
    return True


@kernel("conv", "conv_dx", "conv_dw")
def _conv(s: Step, sizes: dict) -> Made:
    n = s.node
    kind = {"conv": "forward", "conv_dx": "backward_data", "conv_dw": "backward_weights"}[n.name]
    x, w, y = {"conv": (n.inputs[0], n.inputs[1], n.outputs[0]), "conv_dx": (n.outputs[0], n.inputs[1], n.inputs[0]),
               "conv_dw": (n.inputs[0], n.outputs[0], n.inputs[1])}[n.name]  # fmt: skip
    out = s.outputs[0]
    if math.prod(shape(out, sizes)) == 0:
        return None
    if rows(x.type, sizes) == 0 or math.prod(x.type.shape) == 0 or math.prod(y.type.shape) == 0:
        return _fill(out, sizes)
    lo, hi = ([p[i] for p in n.attrs["pads"]] for i in (0, 1))
    args = (shape(x, sizes), w.type.shape, (rows(y.type, sizes), *y.type.shape), list(n.attrs["strides"]), list(n.attrs["dilation"]), lo, hi,
            n.attrs["groups"])  # fmt: skip
    if code(x) == "f4" and onednn is not None:
        y_layout = s.layouts.get(y, PLAIN) if y is not n.outputs[0] else s.layouts[out]
        call = onednn.Convolution(kind, *args, x_layout=s.layouts.get(x, PLAIN), y_layout=y_layout, bias="bias" in s.attrs,
                                  relu=s.attrs.get("relu", False))  # fmt: skip
    else:
        call = native.Convolution(kind, code(x), *args, bias="bias" in s.attrs, relu=s.attrs.get("relu", False))
    return call, _io(s)


@kernel("pool", "max_pool_dx", "avg_pool_dx", "max_pool_pick")
def _pool(s: Step, sizes: dict) -> Made:
    n = s.node
    a = n.attrs
    lo, hi = ([p[i] for p in a["pads"]] for i in (0, 1))
    if n.name == "max_pool_pick":
        v, x, out = n.inputs[0], n.inputs[1], s.outputs[0]
        if math.prod(shape(out, sizes)) == 0:
            return None
        geometry = (shape(x, sizes), shape(out, sizes), list(a["window"]), list(a["strides"]), lo, hi)
        return native.Pooling("pick", "max", code(x), *geometry), [(v, PLAIN), (x, PLAIN), (out, PLAIN)]
    back = n.name != "pool"
    x, y = (s.inputs[0], s.outputs[0]) if not back else (n.inputs[1] if n.name == "max_pool_dx" else n.outputs[0], n.inputs[0])
    if math.prod(shape(s.outputs[0], sizes)) == 0:
        return None
    geometry = (shape(x, sizes), shape(y, sizes), list(a["window"]), list(a["strides"]), lo, hi)
    layout = s.layouts[s.outputs[0]]
    if n.name == "max_pool_dx":
        extra = {"layout": layout} if layout != PLAIN else {}
        call = native.Pooling("backward", "max", code(x), *geometry, **extra)
        return call, [(n.inputs[0], layout), (x, layout), (s.outputs[0], layout)]
    if code(x) == "f4" and onednn is not None:
        call = onednn.Pooling("backward" if back else "forward", a["mode"], *geometry, layout=layout)
    else:
        call = native.Pooling("backward" if back else "forward", a["mode"], code(x), *geometry)
    return call, _io(s)


@kernel("roi_pool", "roi_pool_dx", "roi_pool_pick")
def _roi_pool(s: Step, sizes: dict) -> Made:
    n = s.node
    x, rois = n.inputs[-2:]
    kind = {"roi_pool": "forward", "roi_pool_dx": "backward", "roi_pool_pick": "pick"}[n.name]
    call = native.RoiPooling(kind, n.attrs["mode"], code(x), rows(n.outputs[0].type, sizes), rois.type.shape[0], x.type.shape, n.attrs["bins"],
                             n.attrs["scale"], bool(x.type.axes), bool(rois.type.axes), bool(n.inputs[0].type.axes))  # fmt: skip
    return call, _io(s)


# reductions ----------------------------------------------------------------------------------------------------------------------


@kernel("moments")
def _moments(s: Step, sizes: dict) -> Made:
    x, mean = s.inputs[0], s.outputs[0]
    layout = s.layouts[x]
    dims = dims_of(x.type, sizes, layout)
    call = reduce.Moments(dims, strides_in(x, x.type, layout, layout), strides_in(mean, x.type, layout, PLAIN), code(x))
    return call, _io(s)


@kernel("reduce_logsumexp")
def _logsumexp(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    dims = dims_of(x.type, sizes, PLAIN)
    return reduce.LogSumExp(dims, strides_in(x, x.type, PLAIN, PLAIN), strides_in(y, x.type, PLAIN, PLAIN), code(x)), _io(s)


@kernel("argmax_axis", "argmin_axis")
def _arg(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    d, i = shape(x, sizes), s.node.attrs["axis"] + 1
    return reduce.ArgReduce(s.node.name[3:6], math.prod(d[:i]), d[i], math.prod(d[i + 1 :]), code(x)), _io(s)


@kernel("row_count")
def _row_count(s: Step, sizes: dict) -> Made:
    call, _ = _fill(s.outputs[0], sizes, float(rows(s.node.inputs[0].type, sizes)))  # type: ignore[misc]
    return call, [(s.outputs[0], PLAIN)]


# movement ------------------------------------------------------------------------------------------------------------------------


@kernel("transpose", "take")
def _move(s: Step, sizes: dict) -> Made:
    c = moved(s, sizes)
    return movement.Copy(list(c.dims), c.xs, c.ys, s.outputs[0].type.dtype.itemsize, c.x0, c.y0), _io(s)


@kernel("put")
def _put(s: Step, sizes: dict) -> Made:
    y, c = s.outputs[0], moved(s, sizes)
    placed = movement.Copies([(0, 0, list(c.dims), c.xs, c.ys, 0, c.y0)], 1, 1, y.type.dtype.itemsize)
    if math.prod(c.dims) == math.prod(shape(y, sizes)):
        return placed, _io(s)
    zeros, _ = _fill(y, sizes)  # type: ignore[misc]
    return [(zeros, [(y, PLAIN)]), (placed, _io(s))]


@kernel("concat")
def _concat(s: Step, sizes: dict) -> Made:
    y, parts = s.outputs[0], joined(s, sizes)
    if not parts:
        return None
    pieces = [(k, 0, list(c.dims), c.xs, c.ys, 0, c.y0) for k, (_, c) in enumerate(parts)]
    return movement.Copies(pieces, len(pieces), 1, y.type.dtype.itemsize), [(v, PLAIN) for v in (*(v for v, _ in parts), y)]


@kernel("one_hot")
def _one_hot(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    d, i = shape(x, sizes), s.node.attrs["axis"] + 1
    return movement.OneHot(math.prod(d[:i]), s.node.attrs["classes"], math.prod(d[i + 1 :]), code(x)), _io(s)


def wrong(s: Step, size: int) -> Callable[[float], Exception] | None:
    """What a call raises for an index that names no row of a table; None where it stands for a row of zeros."""
    return None if s.node.attrs.get("zeros") else partial(bad_index, s.node, size)


@kernel("gather")
def _gather(s: Step, sizes: dict) -> Made:
    table, index = s.inputs
    size, *row = table.type.shape
    return movement.Gather(math.prod(shape(index, sizes)), math.prod(row), size, code(table), wrong(s, size)), _io(s)


@kernel("scatter_add")
def _scatter_add(s: Step, sizes: dict) -> Made:
    index = s.inputs[0]
    size, *row = s.node.attrs["shape"]
    n = math.prod(shape(index, sizes))
    return movement.ScatterAdd(n, math.prod(row), size, code(s.outputs[0]), wrong=wrong(s, size)), _io(s)


def _around(v: Value, sizes: dict, axis: int) -> tuple[int, int, int]:
    """Elements before an axis, along it and behind it."""
    d = shape(v, sizes)
    return math.prod(d[: axis + 1]), d[axis + 1], math.prod(d[axis + 2 :])


@kernel("top_k_axis")
def _top_k(s: Step, sizes: dict) -> Made:
    outer, n, inner = _around(s.inputs[0], sizes, s.node.attrs["axis"])
    return reduce.TopK(outer, n, inner, s.node.attrs["k"], code(s.inputs[0])), _io(s)


@kernel("take_along", "put_along")
def _along(s: Step, sizes: dict) -> Made:
    n = s.node
    put = n.name == "put_along"
    outer, size, inner = _around(n.outputs[0] if put else n.inputs[0], sizes, n.attrs["axis"])
    return movement.Along(put, outer, size, inner, n.inputs[1].type.shape[n.attrs["axis"]], code(n.outputs[0])), _io(s)


# sequences -----------------------------------------------------------------------------------------------------------------------


@kernel("move_rows")
def _move_rows(s: Step, sizes: dict) -> Made:
    n = s.node
    index = row_table(n, sizes)
    width = math.prod(n.inputs[0].type.shape)
    if n.attrs["move"][0] in ("pack", "head"):
        width //= max(n.attrs["move"][1], 1)
    return steps.MoveRows(index, width * n.inputs[0].type.dtype.itemsize), _io(s)


@kernel("add_rows")
def _add_rows(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    return steps.AddRows(row_table(s.node, sizes), rows(y.type, sizes), math.prod(x.type.shape), code(x)), _io(s)


@kernel("row_info")
def _row_info(s: Step, sizes: dict) -> Made:
    t = s.node.attrs["type"]
    return steps.RowValues(row_info(s.node.attrs["what"], sizes[t.axes]), math.prod(t.shape), code(s.outputs[0])), _io(s)


@kernel("fold_steps")
def _fold_steps(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    space = sizes[x.type.axes]
    return steps.FoldSteps(s.node.attrs["kind"], space.alive, space.offset, space.order, math.prod(x.type.shape), code(x)), _io(s)


@kernel("ctc")
def _ctc(s: Step, sizes: dict) -> Made:
    labels, x = s.inputs
    a = s.node.attrs
    call = alignment.Ctc(sizes[labels.type.axes], sizes[x.type.axes], math.prod(x.type.shape), a["blank"], a["delay"], code(x))
    return call, _io(s)


@kernel("edit_distance")
def _edit_distance(s: Step, sizes: dict) -> Made:
    a, b = s.inputs
    n = s.node.attrs
    spaces = sizes[a.type.axes], sizes[b.type.axes]
    call = alignment.EditDistance(*spaces, math.prod(a.type.shape), n["penalties"], n["squash"], n["ignored"], code(a))
    return call, _io(s)


@kernel("sample_classes")
def _sample_classes(s: Step, sizes: dict) -> Made:
    w, a = s.inputs[0], s.node.attrs
    return sampling.SampleClasses(w.type.shape[0], a["count"], a["duplicates"], a["purpose"], code(w)), _io(s)


@kernel("inclusion_frequency")
def _inclusion_frequency(s: Step, sizes: dict) -> Made:
    w = s.inputs[0]
    return sampling.InclusionFrequency(w.type.shape[0], s.node.attrs["count"], code(w)), _io(s)


@kernel("lambda_rank")
def _lambda_rank(s: Step, sizes: dict) -> Made:
    return sampling.LambdaRank(rows(s.inputs[0].type, sizes), code(s.inputs[0])), _io(s)


@kernel("ndcg_at_1")
def _ndcg_at_1(s: Step, sizes: dict) -> Made:
    return sampling.NdcgAt1(rows(s.inputs[0].type, sizes), code(s.inputs[0])), _io(s)


@kernel("assign")
def _assign(s: Step, sizes: dict) -> Made:
    target, value = s.inputs
    n = math.prod(target.type.shape)
    return movement.Copy([n], [1], [1], target.type.dtype.itemsize), [(value, s.layouts[value]), (target, PLAIN)]


@kernel("save")
def _save(s: Step, sizes: dict) -> Made:
    v = s.inputs[0]
    return movement.Copy([math.prod(v.type.shape)], [1], [1], v.type.dtype.itemsize), [(v, PLAIN), (v, SAVED)]


@kernel("cast")
def _cast(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    return casting.Cast(math.prod(shape(x, sizes)), x.type.dtype.str[1:], y.type.dtype.str[1:]), _io(s)


@kernel("reorder")
def _reorder(s: Step, sizes: dict) -> Made:
    v = s.inputs[0]
    a, b = s.attrs["source"], s.attrs["target"]
    dims = dims_of(v.type, sizes, C16)
    full = strides_of(dims)
    plain = strides_in(v, v.type, C16, PLAIN)
    if not v.type.axes:
        plain[0] = 0
    call = movement.Copy(dims, plain if a == PLAIN else full, full if a == PLAIN else plain, v.type.dtype.itemsize)
    return call, [(v, a), (v, b)]
