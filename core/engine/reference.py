"""What every kernel means, in NumPy: slow, obvious, permanent. Every other engine is compared with this one.

A kernel takes the node and the arrays of its inputs (rows first where the value has a row space) and gives the array of its output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cogkit.csr import CsrRows
from cogkit.engine import philox, sampling
from cogkit.engine.indices import checked
from cogkit.engine.reference_sparse import SPARSE_KERNELS
from cogkit.engine.spaces import row_info, row_table
from cogkit.engine.user import calls_of, run_backward, run_forward, run_native
from cogkit.lowering.ir import Graph, Node, Value
from cogkit.lowering.sparse import ROWS
from cogkit.op import OPS

__all__ = ["KERNELS", "ReferencePlan", "POINTWISE"]

KERNELS: dict[str, Callable[..., Any]] = {}
HALF_FORMS = frozenset(
    {"alias", "stop", "reshape", "transpose", "take", "concat", "move_rows"}
)  # that take half precision as it is


def kernel(*names: str) -> Callable:
    """Registers a kernel under its op's name."""

    def register(f):
        for n in names:
            KERNELS[n] = f
        return f

    return register


def _truth(f):
    return lambda *x: f(*x).astype(x[0].dtype)


def _logical(f):
    return lambda *x: f(*(v != 0 for v in x)).astype(x[0].dtype)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


POINTWISE: dict[str, Callable[..., np.ndarray]] = {
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "not": lambda x: (x == 0).astype(x.dtype),
    "half": lambda x: x.astype(np.float16).astype(x.dtype),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "eq": _truth(np.equal),
    "ne": _truth(np.not_equal),
    "lt": _truth(np.less),
    "le": _truth(np.less_equal),
    "gt": _truth(np.greater),
    "ge": _truth(np.greater_equal),
    "and": _logical(np.logical_and),
    "or": _logical(np.logical_or),
    "xor": _logical(np.logical_xor),
    "logaddexp": np.logaddexp,
    "select": lambda c, a, b: np.where(c != 0, a, b),
}


def rows_of(v: Value, sizes: dict) -> tuple[int, ...]:
    """The leading dimension of a value's array: its number of rows, or nothing."""
    return (sizes[v.type.axes],) if v.type.axes else ()


def aligned(arrays: list[np.ndarray], node: Node) -> list[np.ndarray]:
    """The inputs with static axes aligned at the last one, rows first."""
    out = node.outputs[0].type
    rank = len(out.shape)
    found = []
    for v, a in zip(node.inputs, arrays, strict=True):
        lead = a.shape[:1] if v.type.axes else (1,) if out.axes else ()
        found.append(a.reshape(lead + (1,) * (rank - len(v.type.shape)) + v.type.shape))
    return found


def _pointwise(name: str) -> Callable:
    f = POINTWISE[name]
    return lambda n, sizes, run, *x: f(*aligned(list(x), n)).astype(n.outputs[0].type.dtype, copy=False)


for _name in POINTWISE:
    KERNELS[_name] = _pointwise(_name)


@kernel("alias", "stop")
def _identity(n, sizes, run, x):
    return x


@kernel("reshape", "expand_dims", "squeeze", "flatten", "rows_to_axis", "axis_to_rows")
def _reshape(n, sizes, run, x):
    return x.reshape(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape)


@kernel("expand")
def _expand(n, sizes, run, x):
    t = n.outputs[0].type
    return np.broadcast_to(aligned([x], n)[0], rows_of(n.outputs[0], sizes) + t.shape).copy()


@kernel("fill")
def _fill(n, sizes, run):
    return np.full(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape, n.attrs["value"], n.outputs[0].type.dtype)


@kernel("cast")
def _cast(n, sizes, run, x):
    to = np.dtype(n.attrs["dtype"])
    if to.kind == "i":
        x = np.clip(np.trunc(np.nan_to_num(x.astype(np.float64), nan=0)), np.iinfo(to).min, np.iinfo(to).max)
    return x.astype(to)


@kernel("rand", "randn")
def _random(n, sizes, run):
    t = n.outputs[0].type
    if not t.axes:
        f = philox.stream_uniform if n.name == "rand" else philox.stream_normal
        return f(run.seed, run.step, n.attrs["purpose"], math.prod(t.shape)).astype(t.dtype).reshape(t.shape)
    f = philox.uniform if n.name == "rand" else philox.normal
    u = f(run.seed, run.step, n.attrs["purpose"], run.sample, sizes[t.axes], math.prod(t.shape)).astype(t.dtype)
    return u.reshape(rows_of(n.outputs[0], sizes) + t.shape)


@kernel("row_count")
def _row_count(n, sizes, run, x):
    return np.asarray(x.shape[0] if n.inputs[0].type.axes else 1, n.outputs[0].type.dtype)


def _reduce_axes(n: Node) -> tuple[int, ...]:
    shift = 1 if n.inputs[0].type.axes else 0
    return tuple(a + shift for a in n.attrs["axes"]) + ((0,) if n.attrs["rows"] and shift else ())


def _logsumexp(x, axis, keepdims):
    return np.logaddexp.reduce(x, axis=axis, keepdims=keepdims) if not isinstance(axis, tuple) else _logsumexp_many(x, axis)


def _logsumexp_many(x, axis):
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift


@kernel("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_logsumexp")
def _reduce(n, sizes, run, x):
    axis = _reduce_axes(n)
    f = {
        "reduce_sum": np.sum,
        "reduce_prod": np.prod,
        "reduce_logsumexp": _logsumexp,
        "reduce_max": lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims, initial=-np.inf),
        "reduce_min": lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims, initial=np.inf),
    }[n.name]
    return f(x, axis=axis, keepdims=True).reshape(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape)


@kernel("argmax_axis", "argmin_axis")
def _arg(n, sizes, run, x):
    axis = n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0)
    f = np.argmax if n.name == "argmax_axis" else np.argmin
    return f(x, axis=axis, keepdims=True).astype(x.dtype)


@kernel("moments")
def _moments(n, sizes, run, x):
    axis = tuple(a + 1 for a in n.attrs["axes"]) + (0,) if n.inputs[0].type.axes else n.attrs["axes"]
    shape = n.outputs[0].type.shape
    if x.size == 0:  # 0, so that an empty minibatch spoils no running statistic
        return np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    return x.mean(axis=axis).reshape(shape), x.var(axis=axis).reshape(shape)


@kernel("transpose")
def _transpose(n, sizes, run, x):
    shift = 1 if n.inputs[0].type.axes else 0
    rank = len(n.attrs["perm"])
    return np.transpose(x, tuple(range(shift)) + tuple(a % rank + shift for a in n.attrs["perm"])).copy()


def _taken(n: Node, size: int) -> tuple[slice, ...]:
    shift = 1 if n.inputs[0].type.axes else 0
    first, stride = n.attrs["first"], n.attrs["stride"]
    count = n.attrs["count"] if "count" in n.attrs else size
    stop: int | None = first + stride * count
    if stop < 0:
        stop = None
    return (slice(None),) * (n.attrs["axis"] + shift) + (slice(first, stop, stride) if count else slice(0, 0),)


@kernel("take")
def _take(n, sizes, run, x):
    return x[_taken(n, 0)].copy()


@kernel("put")
def _put(n, sizes, run, x):
    y = np.zeros(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape, x.dtype)
    y[_taken(n, n.inputs[0].type.shape[n.attrs["axis"]])] = x
    return y


@kernel("concat")
def _concat(n, sizes, run, *x):
    return np.concatenate(x, axis=n.attrs["axis"] + (1 if n.outputs[0].type.axes else 0))


@kernel("one_hot")
def _one_hot(n, sizes, run, x):
    axis = n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0)
    classes = np.arange(n.attrs["classes"]).reshape((-1,) + (1,) * (x.ndim - axis - 1))
    return (np.floor(x) == classes).astype(x.dtype)


@kernel("gather")
def _gather(n, sizes, run, ref, idx):
    i = checked(n, idx, ref.shape[0])
    y = np.zeros((*i.shape, *ref.shape[1:]), ref.dtype)
    y[i >= 0] = ref[i[i >= 0]]
    return y


@kernel("scatter_add")
def _scatter_add(n, sizes, run, idx, dy):
    out = np.zeros(n.attrs["shape"], dy.dtype)
    rows = checked(n, idx, out.shape[0]).reshape(-1)
    np.add.at(out, rows, np.broadcast_to(dy, idx.shape + out.shape[1:]).reshape((-1,) + out.shape[1:]))
    return out


@kernel("top_k_axis")
def _top_k(n, sizes, run, x):
    axis, k = n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0), n.attrs["k"]
    index = np.lexsort((-x, ~np.isnan(x)), axis=axis).take(range(k), axis=axis)  # NaN is above everything
    return np.take_along_axis(x, index, axis), index.astype(x.dtype)


@kernel("take_along")
def _take_along(n, sizes, run, x, index):
    return np.take_along_axis(x, index.astype(np.int64), n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0))


@kernel("put_along")
def _put_along(n, sizes, run, dy, index):
    axis = n.attrs["axis"] + (1 if n.inputs[0].type.axes else 0)
    out = np.zeros(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape, dy.dtype)
    place = list(np.indices(dy.shape, sparse=True))
    place[axis] = index.astype(np.int64)
    np.add.at(out, tuple(place), dy)
    return out


@kernel("matmul")
def _matmul(n, sizes, run, a, b):
    a = np.swapaxes(a, -1, -2) if n.attrs["ta"] else a
    b = np.swapaxes(b, -1, -2) if n.attrs["tb"] else b
    y = np.matmul(a, b)
    return y.sum(axis=0) if n.attrs["sum_rows"] and y.ndim == 3 else y


@kernel("assign")
def _assign(n, sizes, run, target, value):
    return value


# sequences ---------------------------------------------------------------------------------------------------------------------


@kernel("move_rows")
def _move_rows(n, sizes, run, x):
    index = row_table(n, sizes)
    t = n.inputs[0].type
    width = math.prod(t.shape)
    if n.attrs["move"][0] in ("pack", "head"):
        width //= max(n.attrs["move"][1], 1)
    y = np.zeros((len(index), width), x.dtype)
    if width:
        y[index >= 0] = x.reshape(-1, width)[index[index >= 0]]
    return y.reshape(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape)


@kernel("add_rows")
def _add_rows(n, sizes, run, x):
    index = row_table(n, sizes)
    y = np.zeros(rows_of(n.outputs[0], sizes) + x.shape[1:], x.dtype)
    np.add.at(y, index[index >= 0], x[index >= 0])
    return y


@kernel("row_info")
def _row_info(n, sizes, run):
    t = n.attrs["type"]
    values = row_info(n.attrs["what"], sizes[t.axes]).astype(t.dtype)
    return np.broadcast_to(values.reshape((-1,) + (1,) * len(t.shape)), (len(values), *t.shape)).copy()


@kernel("fold_steps")
def _fold_steps(n, sizes, run, x):
    space = sizes[n.inputs[0].type.axes]
    y = np.zeros((len(space.lengths), *x.shape[1:]), x.dtype)
    for b, length in enumerate(space.lengths):
        rows = x[space.at(np.full(length, b), np.arange(length))]
        if length:
            y[b] = {"sum": np.sum, "max": np.max, "min": np.min}[n.attrs["kind"]](rows, axis=0)
    return y


@kernel("loop")
def _loop(n, sizes, run, *inputs):
    return run_loop(n, sizes, run, inputs)


def run_loop(
    n: Node, sizes: dict, run: Any, inputs: Sequence[Any], look: Callable[[Node, int, dict], None] | None = None
) -> tuple:
    """The results of a recurrence; look(node, step, values) is called after each node of each step."""
    body = n.attrs["body"]
    space = sizes[body.axes]
    out = {v: np.zeros((int(space), *v.type.shape), v.type.dtype) for v in body.graph.outputs}
    for t in range(space.steps) if body.forward else range(space.steps - 1, -1, -1):
        rows = slice(space.offset[t], space.offset[t + 1])
        alive = int(space.alive[t])
        values = {v: x[rows] if v.type.axes == body.axes else x for v, x in zip(body.inputs, inputs, strict=True)}
        for leaf, v, steps in body.carried:
            values[leaf] = np.zeros((alive, *leaf.type.shape), v.type.dtype)
            if 0 <= t - steps < space.steps:
                same = min(alive, int(space.alive[t - steps]))
                start = space.offset[t - steps]
                values[leaf][:same] = out[v][start : start + same].reshape(same, *leaf.type.shape)
        for m in body.graph.nodes:
            if m.op is not None:
                y = KERNELS[m.name](m, {**sizes, body.axes: alive}, run, *(values[v] for v in m.inputs))
                values.update(zip(m.outputs, y if isinstance(y, tuple) else (y,), strict=True))
                if look is not None:
                    look(m, t, values)
        for v, x in out.items():
            x[rows] = values[v]
    return tuple(out.values())


# user functions -------------------------------------------------------------------------------------------------------------------


@kernel("native_forward", "native_backward")
def _native(n, sizes, run, *x):
    return tuple(run_native(n, sizes, *x))


@kernel("user_forward", "user_backward")
def _user(n, sizes, run, *x):
    return tuple((run_forward if n.name == "user_forward" else run_backward)(n, sizes, *x))


# alignments of two sequences -----------------------------------------------------------------------------------------------------


def _sequences(space: Any) -> list[np.ndarray]:
    """The rows of each sequence, in the caller's order."""
    return [space.at(np.full(length, b), np.arange(length)) for b, length in enumerate(space.lengths)]


@kernel("ctc")
def _ctc(n, sizes, run, labels, logits):
    classes, blank, delay = math.prod(n.inputs[1].type.shape), n.attrs["blank"], n.attrs["delay"]
    x, y = logits.astype(np.float64).reshape(-1, classes), labels.reshape(-1, classes)
    each = _sequences(sizes[n.inputs[1].type.axes])
    loss, slope = np.zeros(len(each)), np.zeros(x.shape)
    for b, (rows, label_rows) in enumerate(zip(each, _sequences(sizes[n.inputs[0].type.axes]), strict=True)):
        starts = [t for t, r in enumerate(label_rows) if y[r].max() == 2]
        symbols = [int(y[label_rows[t]].argmax()) for t in starts]
        log_p = x[rows] - _logsumexp_many(x[rows], (1,))
        loss[b], posterior = ctc(log_p, symbols, starts, blank, delay)
        if not np.isnan(log_p).any():
            slope[rows] = np.exp(log_p) - posterior if np.isfinite(loss[b]) else 0
        else:
            loss[b], slope[rows] = np.nan, np.nan
    return loss, slope.reshape(logits.shape)


def ctc(log_p: np.ndarray, symbols: list[int], starts: list[int], blank: int, delay: int) -> tuple[float, np.ndarray]:
    """-log of the summed probability of all alignments of labels with frames, and the posterior probability of each class (frames, classes).

    log_p: (frames, classes). starts: the frame at which each label began when it was written down.
    """
    frames = len(log_p)
    states = [blank] + [k for c in symbols for k in (c, blank)]
    count = len(states)
    allowed = np.ones((frames, count), bool)
    for i, begin in enumerate(
        starts[1:] if delay >= 0 else []
    ):  # label i ends soon after the next one began, the blank before it earlier
        allowed[max(0, begin + delay + 1) :, 2 * i + 1] = False
        allowed[max(0, begin + delay) :, 2 * i] = False
    emitted = np.where(allowed, log_p[:, states], -np.inf)

    def before(row):
        """Log-probability of coming to each state from the same, the one before, or the one two before."""
        reached = np.logaddexp(row, np.concatenate([[-np.inf], row[:-1]]))
        for s in range(3, count, 2):
            if states[s] not in (blank, states[s - 2]):
                reached[s] = np.logaddexp(reached[s], row[s - 2])
        return reached

    def after(row):
        """The same of going on."""
        left = np.logaddexp(row, np.concatenate([row[1:], [-np.inf]]))
        for s in range(3, count, 2):
            if states[s] not in (blank, states[s - 2]):
                left[s - 2] = np.logaddexp(left[s - 2], row[s])
        return left

    alpha, beta = np.full((frames, count), -np.inf), np.full((frames, count), -np.inf)
    for t in range(frames):
        alpha[t] = (before(alpha[t - 1]) if t else np.where(np.arange(count) < 2, 0, -np.inf)) + emitted[t]
    for t in range(frames - 1, -1, -1):
        beta[t] = after(beta[t + 1] + emitted[t + 1]) if t + 1 < frames else np.where(np.arange(count) >= count - 2, 0, -np.inf)
    total = np.logaddexp.reduce(alpha[-1, -2:]) if frames else -np.inf if symbols else 0.0
    posterior = np.zeros(log_p.shape)
    if np.isfinite(total):
        for s, c in enumerate(states):
            posterior[:, c] += np.exp(alpha[:, s] + beta[:, s] - total)
    return -total, posterior


@kernel("edit_distance")
def _edit_distance(n, sizes, run, a, b):
    found = []
    for x, v in zip((a, b), n.inputs, strict=True):
        symbols = x.reshape(len(x), -1).argmax(axis=1)
        each = [[int(symbols[r]) for r in rows] for rows in _sequences(sizes[v.type.axes])]
        if n.attrs["squash"]:
            each = [[c for c, _ in itertools.groupby(s)] for s in each]
        found.append([[c for c in s if c not in n.attrs["ignored"]] for s in each])
    edits = [edit_distance(u, v, *n.attrs["penalties"]) for u, v in zip(*found, strict=True)]
    return np.array(edits, a.dtype), np.array([len(v) for v in found[1]], a.dtype)


def edit_distance(u: list[int], v: list[int], substitution: float, deletion: float, insertion: float) -> int:
    """Edits on the cheapest way from u to v; of equally cheap ones substitution goes before insertion before deletion."""
    best = {(0, 0): (0.0, 0)}  # length of a beginning of u, of v -> penalty, edits
    for i, j in itertools.product(range(len(u) + 1), range(len(v) + 1)):
        ways = []
        if i and j:
            cost, edits = best[i - 1, j - 1]
            ways.append((cost, edits) if u[i - 1] == v[j - 1] else (cost + substitution, edits + 1))
        if j and not (i and u[i - 1] == v[j - 1]):
            ways.append((best[i, j - 1][0] + insertion, best[i, j - 1][1] + 1))
        if i and not (j and u[i - 1] == v[j - 1]):
            ways.append((best[i - 1, j][0] + deletion, best[i - 1, j][1] + 1))
        if ways:
            best[i, j] = min(ways, key=lambda w: w[0])
    return best[len(u), len(v)][1]


# samples and ranks ---------------------------------------------------------------------------------------------------------------


@kernel("sample_classes")
def _sample_classes(n, sizes, run, w):
    a = n.attrs
    return sampling.sample_classes(w, a["count"], a["duplicates"], run.seed, run.step, a["purpose"]).astype(w.dtype)


@kernel("inclusion_frequency")
def _inclusion_frequency(n, sizes, run, w):
    return sampling.inclusion_frequency(w, n.attrs["count"]).astype(w.dtype)


@kernel("lambda_rank")
def _lambda_rank(n, sizes, run, *x):
    loss, slope = sampling.lambda_rank(*(v.reshape(-1) for v in x))
    return np.asarray(loss, x[0].dtype), slope.astype(x[0].dtype).reshape(x[0].shape)


@kernel("ndcg_at_1")
def _ndcg_at_1(n, sizes, run, *x):
    return np.asarray(sampling.ndcg_at_1(*(v.reshape(-1) for v in x)), x[0].dtype)


# convolution and pooling: windows by stride tricks ---------------------------------------------------------------------------


def _with_rows(x: np.ndarray, has: bool) -> np.ndarray:
    return x if has else x[None]


def _offsets(kernel_shape, strides, dilation, spatial):
    """For each place in the kernel: the slices of the padded input that it meets."""
    for place in itertools.product(*map(range, kernel_shape)):
        yield (
            place,
            tuple(slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, s, n in zip(place, dilation, strides, spatial, strict=True)),
        )


def _padded(x, pads, value=0.0):
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def _cut(x, pads):
    return x[(slice(None), slice(None)) + tuple(slice(lo, x.shape[i + 2] - hi) for i, (lo, hi) in enumerate(pads))]


@kernel("conv")
def _conv(n, sizes, run, x, w):
    has = bool(n.outputs[0].type.axes)
    x = _padded(_with_rows(x, has), n.attrs["pads"])
    g, (o, c) = n.attrs["groups"], w.shape[:2]
    spatial = n.outputs[0].type.shape[1:]
    y = np.zeros((x.shape[0], g, o // g, *spatial), x.dtype)
    for place, cut in _offsets(w.shape[2:], n.attrs["strides"], n.attrs["dilation"], spatial):
        part = x[(slice(None), slice(None), *cut)].reshape((x.shape[0], g, c, *spatial))
        y += np.einsum("ngc...,goc->ngo...", part, w[(slice(None), slice(None), *place)].reshape(g, o // g, c))
    y = y.reshape((x.shape[0], o, *spatial))
    return y if has else y[0]


@kernel("conv_dx")
def _conv_dx(n, sizes, run, dy, w):
    has = bool(n.outputs[0].type.axes)
    dy = _with_rows(dy, has)
    g, (o, c) = n.attrs["groups"], w.shape[:2]
    spatial = dy.shape[2:]
    shape = n.attrs["shape"]
    dx = np.zeros(
        (dy.shape[0], shape[0], *(k + lo + hi for k, (lo, hi) in zip(shape[1:], n.attrs["pads"], strict=True))), dy.dtype
    )
    dyg = dy.reshape((dy.shape[0], g, o // g, *spatial))
    for place, cut in _offsets(w.shape[2:], n.attrs["strides"], n.attrs["dilation"], spatial):
        part = np.einsum("ngo...,goc->ngc...", dyg, w[(slice(None), slice(None), *place)].reshape(g, o // g, c))
        dx[(slice(None), slice(None), *cut)] += part.reshape((dy.shape[0], shape[0], *spatial))
    dx = _cut(dx, n.attrs["pads"])
    return dx if has else dx[0]


@kernel("conv_dw")
def _conv_dw(n, sizes, run, x, dy):
    has = bool(n.inputs[0].type.axes)
    x, dy = _padded(_with_rows(x, has), n.attrs["pads"]), _with_rows(dy, has)
    g, (o, c) = n.attrs["groups"], n.attrs["shape"][:2]
    spatial = dy.shape[2:]
    dw = np.zeros(n.attrs["shape"], x.dtype)
    size = math.prod(spatial)
    dyg = dy.reshape((dy.shape[0], g, o // g, size))
    for place, cut in _offsets(dw.shape[2:], n.attrs["strides"], n.attrs["dilation"], spatial):
        part = x[(slice(None), slice(None), *cut)].reshape((x.shape[0], g, c, size))
        dw[(slice(None), slice(None), *place)] = np.einsum("ngcs,ngos->goc", part, dyg).reshape(o, c)
    return dw


def _windows(x, n, value):
    """All windows as (rows, channels, places, spatial), padded with a value."""
    spatial = [
        (k + lo + hi - w) // s + 1
        for k, w, s, (lo, hi) in zip(x.shape[2:], n.attrs["window"], n.attrs["strides"], n.attrs["pads"], strict=True)
    ]
    p = _padded(x, n.attrs["pads"], value)
    ones = (1,) * len(spatial)
    return np.stack(
        [p[(slice(None), slice(None), *cut)] for _, cut in _offsets(n.attrs["window"], n.attrs["strides"], ones, spatial)], axis=2
    )


def _counts(x, n):
    """How many places of each window count in a mean."""
    if n.attrs["mode"] == "avg_include_pad":
        return float(math.prod(n.attrs["window"]))
    return np.maximum(_windows(np.ones((1, 1, *x.shape[2:]), x.dtype), n, 0.0).sum(axis=2), 1)


@kernel("pool")
def _pool(n, sizes, run, x):
    has = bool(n.outputs[0].type.axes)
    x = _with_rows(x, has)
    y = _windows(x, n, -np.inf).max(axis=2) if n.attrs["mode"] == "max" else _windows(x, n, 0.0).sum(axis=2) / _counts(x, n)
    y = y.astype(x.dtype, copy=False)
    return y if has else y[0]


def _unwindow(parts, shape, n):
    """The transpose of _windows."""
    spatial = parts.shape[3:]
    p = np.zeros(
        (parts.shape[0], shape[0], *(k + lo + hi for k, (lo, hi) in zip(shape[1:], n.attrs["pads"], strict=True))), parts.dtype
    )
    for i, (_, cut) in enumerate(_offsets(n.attrs["window"], n.attrs["strides"], (1,) * len(spatial), spatial)):
        p[(slice(None), slice(None), *cut)] += parts[:, :, i]
    return _cut(p, n.attrs["pads"])


@kernel("max_pool_dx")
def _max_pool_dx(n, sizes, run, dy, x, y):
    has = bool(n.outputs[0].type.axes)
    dy, x = _with_rows(dy, has), _with_rows(x, has)
    w = _windows(x, n, -np.inf)
    first = np.arange(w.shape[2]).reshape((1, 1, -1) + (1,) * (w.ndim - 3)) == w.argmax(axis=2)[:, :, None]
    dx = _unwindow(first * dy[:, :, None], x.shape[1:], n).astype(dy.dtype, copy=False)
    return dx if has else dx[0]


@kernel("max_pool_pick")
def _max_pool_pick(n, sizes, run, v, x, y):
    has = bool(n.outputs[0].type.axes)
    v, x = _with_rows(v, has), _with_rows(x, has)
    at = _windows(x, n, -np.inf).argmax(axis=2)[:, :, None]
    out = np.take_along_axis(_windows(v, n, 0.0), at, axis=2)[:, :, 0]
    return out if has else out[0]


@kernel("avg_pool_dx")
def _avg_pool_dx(n, sizes, run, dy):
    has = bool(n.outputs[0].type.axes)
    dy = _with_rows(dy, has)
    shape = n.attrs["shape"]
    part = (dy / _counts(np.empty((1, 1, *shape[1:]), dy.dtype), n)).astype(dy.dtype)
    dx = _unwindow(np.repeat(part[:, :, None], math.prod(n.attrs["window"]), axis=2), shape, n)
    return dx if has else dx[0]


def _bins(n: Node, roi: np.ndarray, image: tuple[int, ...]):
    """((row, column) of the bin, the slice of the image that it covers) for each bin of a region."""
    with np.errstate(invalid="ignore"):
        scaled = np.nan_to_num(np.clip(roi.astype(np.float64) * n.attrs["scale"], -(1 << 30), 1 << 30))
    x1, y1, x2, y2 = (int(np.sign(v) * np.floor(np.abs(v) + 0.5)) for v in scaled)
    for bin_ in itertools.product(*map(range, n.attrs["bins"])):
        cut = []
        for k, count, first, last, size in zip(bin_, n.attrs["bins"], (y1, x1), (y2, x2), image, strict=True):
            cells = max(last - first + 1, 1)
            lo, hi = first + k * cells // count, first - (-(k + 1) * cells // count)
            cut.append(slice(min(max(lo, 0), size), min(max(hi, 0), size)))
        yield bin_, tuple(cut)


@kernel("roi_pool", "roi_pool_dx", "roi_pool_pick")
def _roi_pool(n, sizes, run, *inputs):
    *first, x, rois = inputs
    out = np.zeros(rows_of(n.outputs[0], sizes) + n.outputs[0].type.shape, x.dtype)
    rows = out.shape[0] if n.outputs[0].type.axes else 1

    def row(i, a, v):
        return a[i] if v.type.axes else a

    for i in range(rows):
        y, image = (out[i] if n.outputs[0].type.axes else out), row(i, x, n.inputs[-2])
        for r, roi in enumerate(row(i, rois, n.inputs[-1])):
            for bin_, cut in _bins(n, roi, image.shape[1:]):
                for c, plane in enumerate(image):
                    cells = plane[cut]
                    if not cells.size:
                        continue
                    at = np.unravel_index(cells.argmax(), cells.shape)
                    a = row(i, first[0], n.inputs[0]) if first else None
                    if n.name == "roi_pool":
                        y[(r, c, *bin_)] = cells[at] if n.attrs["mode"] == "max" else cells.mean()
                    elif n.name == "roi_pool_pick":
                        y[(r, c, *bin_)] = a[c][cut][at]
                    elif n.attrs["mode"] == "max":
                        y[c][cut][at] += a[(r, c, *bin_)]
                    else:
                        y[c][cut] += a[(r, c, *bin_)] / cells.size
    return out


# running -------------------------------------------------------------------------------------------------------------------------


def meaning(n: Node) -> Callable[..., Any]:
    """The kernel of a node, by the form of its result."""
    form = n.outputs[0].sparse
    if form and n.op.kernel == "view":
        return lambda n, sizes, run, x: x.reshape(n.outputs[0].type.shape) if form == ROWS else x
    return SPARSE_KERNELS[f"{form} {n.name}"] if form else KERNELS[n.name]


def result(v: Value, found: Any, sizes: dict) -> Any:
    """The array of an output, a copy; CSR where a sample is one row of it."""
    shape = rows_of(v, sizes) + v.type.shape
    if v.sparse:
        return found.copy() if v.sparse == ROWS or len(shape) == 2 else found.toarray().reshape(shape)
    return np.array(found)


class ReferencePlan:
    """Runs a lowered graph node by node."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.last_use = {id(v): i for i, n in enumerate(graph.nodes) for v in n.inputs}
        self.keep = {id(v) for v in graph.outputs}
        self.calls = calls_of(graph)

    def run(self, feeds: dict[Any, np.ndarray], sizes: dict, run: Any) -> list[np.ndarray]:
        """The arrays of the graph's outputs. feeds: variable -> array; sizes: row space -> rows; run: seed, step, sample."""
        values: dict[int, np.ndarray] = {}
        writes = []
        for call in self.calls:
            call.begin()
        with np.errstate(all="ignore"):
            for i, n in enumerate(self.graph.nodes):
                if n.op is None:
                    fed = feeds[n.leaf] if n.leaf in feeds else n.leaf.data
                    values[id(n.outputs[0])] = fed.matrix() if isinstance(fed, CsrRows) else fed
                    continue
                made = meaning(n)(n, sizes, run, *(values[id(v)] for v in n.inputs))
                for v, a in zip(n.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                    values[id(v)] = a if v.sparse else np.asarray(a, v.type.dtype)
                if n.name == "assign":
                    writes.append((n.inputs[0].producer.leaf, np.array(values[id(n.inputs[1])])))
                for v in n.inputs:
                    if self.last_use[id(v)] == i and id(v) not in self.keep and not writes:
                        values.pop(id(v), None)
        results = [result(v, values[id(v)], sizes) for v in self.graph.outputs]
        for leaf, value in writes:
            leaf.data[...] = value
        return results

    def explain(self, sizes: dict) -> str:
        """The nodes in order."""
        return str(self.graph)


KERNELS.update({name: f for name, f in SPARSE_KERNELS.items() if " " not in name})
_missing = [
    name for name, op in OPS.items() if op.kernel != "expand" and not {name, "rows " + name} & {*KERNELS, *SPARSE_KERNELS}
]
if _missing:
    raise TypeError(f"reference engine: no meaning of {', '.join(_missing)}")
