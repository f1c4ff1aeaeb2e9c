"""Sparse values on the GPU: the kernels of products, moves and gradients of sparse values, and of learners' updates of listed rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.csr import HEAD
from cogkit.engine.cuda.driver import B, Memset
from cogkit.engine.cuda.indexing import Room, checked, sort, wrong_of
from cogkit.engine.cuda.table import Call, Table, blocks, f64, fits, i64, kernel, launch
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.spaces import row_table
from cogkit.engine.table import Made
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN, root_of
from cogkit.lowering.sparse import CSR, list_room
from cogkit.lowering.steps import Step

__all__ = ["move_table", "take_table"]

# as in sparsity.cu
TILE, ROWS_TILE = 2048, 1024
NARROW = 8  # columns up to which a warp shares a row's entries
NULL = i64(0)


def _plain(s: Step) -> list[Any]:
    return [(v, PLAIN) for v in (*s.inputs, *s.outputs)]


def _power(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _lines(n: int, most: int = 256) -> tuple[int, int]:
    """A block whose lines of threads have n elements each."""
    x = min(_power(max(n, 1)), most)
    return x, 256 // x


# products and moves ------------------------------------------------------------------------------------------------------------


def _csr_rows(v: Value, sizes: dict) -> int:
    return math.prod(shape(v, sizes)[:-1])


def _counts(s: Step, sizes: dict) -> tuple[int, ...]:
    """What grids and scratch are for, in powers of two: CSR rows, entries of a list. How many there are the kernels read."""
    most = tuple(sizes[k] for k in (("list", v) for v in s.outputs) if k in sizes)
    return tuple(_power(_csr_rows(v, sizes)) for v in s.inputs if v.sparse == CSR) + most


@fits("csr_times")
@fits("csr_transposed")
@fits("rows_add")
def _as_it_is(call: Call, s: Step, sizes: dict) -> bool:
    return call.counts == _counts(s, sizes) and math.prod(shape(s.outputs[0], sizes)) > 0


def _made(s: Step, sizes: dict, launches: list[Any], scratch: int = 0) -> Made:
    call = Call(len(s.inputs) + len(s.outputs), launches, scratch)
    call.counts = _counts(s, sizes)
    return call, _plain(s)


@kernel("csr_times")
def _csr_times(s: Step, sizes: dict) -> Made:
    (a, b), tb = s.node.inputs, s.node.attrs["tb"]
    if math.prod(shape(s.outputs[0], sizes)) == 0:
        return None
    n, count = b.type.shape[0 if tb else 1], _power(_csr_rows(a, sizes))
    args = [B(0), B(1), B(2), i64(a.type.shape[-1]), i64(n), i64(tb)]
    if n <= NARROW:
        return _made(s, sizes, [launch("sparsity", f"csr_times_narrow_{code(b)}", blocks(32 * count), 256, args)])
    block = _lines(n)
    return _made(s, sizes, [launch("sparsity", f"csr_times_{code(b)}", blocks(count, block[1]), block, args)])


@kernel("densify")
def _densify(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    size = math.prod(shape(y, sizes))
    if size == 0:
        return None
    t = code(x)
    if x.sparse == CSR:
        call = launch("sparsity", f"csr_dense_{t}", blocks(32 * _csr_rows(x, sizes)), 256, [B(0), B(1), i64(x.type.shape[-1])])
    else:
        call = launch("sparsity", f"list_dense_{t}", blocks(size), 256, [B(0), B(1), i64(math.prod(x.type.shape[1:]))])
    return Call(2, [Memset(B(1), size * y.type.dtype.itemsize), call]), _plain(s)


def move_table(n: Any, sizes: dict) -> np.ndarray:
    """The CSR row of the operand that each CSR row of a moved value is; -1: none."""
    each = math.prod(n.inputs[0].type.shape[:-1])  # CSR rows of a row
    index = row_table(n, sizes)
    return index if each == 1 else np.where(index[:, None] < 0, -1, index[:, None] * each + np.arange(each)).reshape(-1)


def take_table(n: Any, sizes: dict) -> np.ndarray:
    """The CSR row of the operand that each CSR row of a part of it is."""
    x, a = n.inputs[0], n.attrs
    lead = (rows(x.type, sizes), *x.type.shape[:-1])
    kept = a["first"] + a["stride"] * np.arange(n.outputs[0].type.shape[a["axis"]])
    return np.take(np.arange(math.prod(lead)).reshape(lead), kept, axis=a["axis"] + 1).reshape(-1)


@kernel("csr move_rows", "csr take")
def _choose(s: Step, sizes: dict) -> Made:
    index = (move_table if s.node.name == "move_rows" else take_table)(s.node, sizes)
    table = Table(index.astype(np.int64)) if len(index) else NULL
    return Call(2, [launch("sparsity", "csr_move", blocks(len(index)), 256, [B(0), B(1), i64(len(index)), table])]), _plain(s)


@kernel("csr one_hot")
def _one_hot(s: Step, sizes: dict) -> Made:
    x = s.inputs[0]
    n = math.prod(shape(x, sizes))
    args = [B(0), B(1), i64(n), i64(s.node.attrs["classes"])]
    return Call(2, [launch("sparsity", f"csr_one_hot_{code(x)}", blocks(n), 256, args)]), _plain(s)


# lists of rows -----------------------------------------------------------------------------------------------------------------


class _List:
    """The launches that make a list of the rows of `width` from up to `most` entries. out: the buffer of its head, rows and values."""

    def __init__(self, most: int, width: int, out: B, room: Room):
        self.most, self.width, self.out, self.room = most, width, out, room
        self.key, self.place = room.take(4 * most), room.take(4 * most)
        self.row, self.value = out + HEAD, out + HEAD + 8 * list_room(most, width)
        self.start = room.take(8 * (most + 1))

    def finish(self) -> tuple[list[Any], Any]:
        """(the launches from the entries' keys to the rows of the list, the order of the entries)."""
        launches, key, order = sort(self.key, self.place, self.most, self.width.bit_length(), 4, self.room)
        tiles, n = -(-self.most // TILE), i64(self.most)
        sums, total = self.room.take(8 * tiles), self.room.take(8)
        launches += [
            launch("sparsity", "list_count", tiles, 256, [key, n, sums]),
            launch("sparsity", "scan_sums", 1, 256, [sums, i64(tiles), total, n]),
            launch(
                "sparsity", "list_rows", tiles, 256, [key, n, sums, i64(self.width), self.out, self.row, self.value, self.start]
            ),
        ]
        return launches, order

    def add(self, x: B, n: int, t: str, order: Any, source: Any = NULL, factor: Any = NULL) -> list[Any]:
        """The launches that add the entries of each row up."""
        args = [self.out, self.start, order, source, factor, x, self.value, i64(n)]
        some, many = _lines(n), _lines(n, 32)
        count = list_room(self.most, self.width)
        launches = [launch("sparsity", f"list_add_{t}", blocks(count, some[1]), some, args)]
        if self.most > 32:
            launches.append(launch("sparsity", f"list_add_many_{t}", blocks(min(count, self.most // 32), 1), many, args))
        return launches


@kernel("rows csr_transposed")
def _csr_transposed(s: Step, sizes: dict) -> Made:
    a, dy = s.node.inputs
    most, width, t, room = sizes["list", s.outputs[0]], a.type.shape[-1], code(dy), Room()
    made = _List(most, width, B(2), room)
    tiles = -(-_power(_csr_rows(a, sizes)) // ROWS_TILE)
    sums, source, factor = room.take(8 * tiles), room.take(4 * most), room.take(most * dy.type.dtype.itemsize)
    whole = room.take(8)
    finish, order = made.finish()
    launches = [
        launch("sparsity", "csr_count", tiles, 256, [B(0), sums]),
        launch("sparsity", "scan_sums", 1, 256, [sums, i64(tiles), whole, i64(most)]),
        launch("sparsity", f"csr_entries_{t}", tiles, 256, [B(0), sums, i64(most), made.key, source, factor]),
        launch("sparsity", "pad_entries", blocks(most), 256, [made.key, made.place, whole, i64(most), i64(width)]),
        *finish,
        *made.add(B(1), dy.type.shape[-1], t, order, source, factor),
    ]
    return _made(s, sizes, launches, room.size)


@kernel("rows scatter_rows")
def _scatter_rows(s: Step, sizes: dict) -> Made:
    index, table, t, room = s.inputs[0], s.node.attrs["shape"], code(s.outputs[0]), Room()
    n = math.prod(shape(index, sizes))
    made = _List(sizes["list", s.outputs[0]], table[0], B(2), room)
    finish, order = made.finish()
    wrong = wrong_of(s, table[0])
    first = launch("sparsity", f"index_entries_{t}", blocks(made.most), 256,
                   [B(0), i64(n), i64(made.most), i64(table[0]), made.key, made.place, wrong])  # fmt: skip
    call, buffers = _made(s, sizes, [first, *finish, *made.add(B(1), math.prod(table[1:]), t, order)], room.size)
    return checked(call, wrong), buffers


@kernel("rows rows_add")
def _rows_add(s: Step, sizes: dict) -> Made:
    y, room = s.outputs[0], Room()
    most, (width, *rest) = sizes["list", y], y.type.shape
    n = math.prod(rest)
    made = _List(most, width, B(2), room)
    finish, order = made.finish()
    first = launch("sparsity", "list_entries", blocks(most), 256, [B(0), B(1), i64(most), i64(width), made.key, made.place])
    block = _lines(n)
    add = launch("sparsity", f"list_add_lists_{code(y)}", blocks(list_room(most, width), block[1]), block,
                 [B(2), made.start, order, B(0), B(1), made.value, i64(n)])  # fmt: skip
    return _made(s, sizes, [first, *finish, add], room.size)


# updates -----------------------------------------------------------------------------------------------------------------------

# rule -> (states, its numbers in their order)
_RULES = {
    "momentum": (1, ("m", "u")),
    "nesterov": (1, ("m", "u")),
    "adam": (2, ("m", "u", "v", "rate", "v1")),
    "adamax": (2, ("m", "u", "v", "rate")),
    "fsadagrad": (2, ("m", "u", "v", "rate", "v1", "root")),
    "adadelta": (2, ("rate",)),
}


@kernel("update_rows")
def _update_rows(s: Step, sizes: dict) -> Made:
    w, a, room = s.inputs[0], s.node.attrs, Room()
    t, (width, *rest), rule, size = code(w), w.type.shape, a["rule"], w.type.dtype.itemsize
    n = math.prod(rest)
    if width * n == 0:
        return None
    last = len(s.inputs) - 2
    scale, limit = B(last), B(last + 1)
    every = blocks(_most_rows(s.inputs[1], sizes, width) * n)
    launches: list[Any] = []
    if a["norm"]:  # the threshold is of the whole gradient: rows that are not listed add nothing to its norm
        parts, bounds = room.take(8 * every), room.take(2 * size)
        launches = [
            launch("sparsity", f"list_squares_{t}", every, 256, [B(1), i64(n), parts]),
            launch("sparsity", f"norm_bounds_{t}", 1, 256, [parts, i64(every), scale, limit, bounds]),
        ]
        scale, limit = bounds, bounds + size
    if rule == "sgd":
        launches.append(launch("sparsity", f"update_sgd_{t}", every, 256, [B(0), B(1), B(2), scale, limit, i64(n)]))
    elif rule == "adagrad":
        state, eta, given = B(2), B(3), [scale, limit, i64(n)]
        if a["average"]:
            whole = blocks(width * n)
            parts, rate = room.take(8 * whole), room.take(size)
            launches += [
                launch("sparsity", f"update_adagrad_{t}", every, 256, [NULL, B(1), state, state, eta, *given]),
                launch("sparsity", f"multipliers_{t}", whole, 256, [state, i64(width * n), parts]),
                launch("sparsity", f"mean_rate_{t}", 1, 256, [parts, i64(whole), eta, i64(width * n), rate]),
                launch("sparsity", f"update_adagrad_{t}", every, 256, [B(0), B(1), state, NULL, rate, *given]),
            ]
        else:
            launches.append(launch("sparsity", f"update_adagrad_{t}", every, 256, [B(0), B(1), state, state, eta, *given]))
    else:
        _catch_up(s)
        states, names = _RULES[rule]
        where = room.take(4 * width)
        numbers = {name: B(2 + states + i) for i, name in enumerate(names)}
        of = [numbers.get(name, NULL) for name in ("m", "u", "v", "rate", "v1", "root")]
        launches += [
            Memset(where, 4 * width, 0xFFFFFFFF),
            launch("sparsity", "list_where", blocks(width), 256, [B(1), where]),
            launch("sparsity", f"update_{rule}_{t}", blocks(width * n), 256,
                   [B(0), B(1), B(2), B(3) if states == 2 else NULL, where, *of, scale, limit, f64(a["epsilon"]), f64(a["decay"]),
                    i64(width), i64(n)]),
        ]  # fmt: skip
    return Call(len(s.inputs), launches, room.size), _plain(s)[:-1]


def _most_rows(g: Value, sizes: dict, width: int) -> int:
    """The most rows that a gradient's list may have, as far as is known when its update is bound."""
    most = sizes.get(("list", root_of(g)))
    return width if most is None else list_room(most, width)


def _catch_up(s: Step) -> None:
    """Does to the host's arrays what a checkpoint of the CPU engine, which leaves rows that are not listed for later, has still to do."""
    a, leaves = s.node.attrs, [v.producer.leaf for v in s.inputs[: 2 + _RULES[s.node.attrs["rule"]][0]]]
    parameter, _, *states = leaves
    if parameter.behind is None:
        return
    from cogkit.engine.cpu.sparse import LaggingRows

    w = s.inputs[0]
    arrays = [v.data for v in (parameter, *states)]
    lag = LaggingRows(
        a["rule"], a["norm"], a["epsilon"], a["decay"], w.type.shape[0], math.prod(w.type.shape[1:]), code(w), arrays
    )
    at = [x.ctypes.data for x in arrays]
    lag.set_buffers([at[0], at[0], *at[1:], *at[:1] * (len(s.inputs) - 2 - len(states))])  # it reads nothing but the arrays
    lag.take(*parameter.behind)
    lag.settle()
    parameter.behind = None
