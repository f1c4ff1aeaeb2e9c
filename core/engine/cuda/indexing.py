"""Gathers, sums by index and one-hot rows on the GPU, and the sort that they and others stand on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.engine.cuda.device import current
from cogkit.engine.cuda.driver import Memset
from cogkit.engine.cuda.table import SCRATCH, B, Call, blocks, i32, i64, io, kernel, launch
from cogkit.engine.geometry import code, shape
from cogkit.engine.indices import bad_index
from cogkit.engine.table import Made
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.steps import Step

__all__ = ["Room", "checked", "gathered", "sort", "summed", "wrong_of"]

TILE, DIGITS = 2048, 32  # of the sort in indexing.cu
DIGIT = 5  # bits
NOBODY = i64(0)  # asks for indices that name no row
NONE = np.array([(1 << 64) - 1], np.uint64)  # of no index that names no row


class Room:
    """Places in the scratch of a call, one after the other."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, n: int) -> B:
        """A place for n bytes."""
        at = self.size
        self.size += (n + 255) // 256 * 256
        return SCRATCH + at


def row_grid(rows: int, width: int) -> tuple[tuple[int, int], Any]:
    """The grid of a kernel that shares rows of `width` words out among groups of threads, and the shift that says how large those are."""
    shift = min(max(width - 1, 0).bit_length(), 8)
    columns = min(-(-width // 4096), 65535) if shift == 8 else 1
    return (blocks(rows << shift), columns), i32(shift)


def word_of(n: int, least: int = 1) -> int:
    """The largest word that rows of n bytes are made of."""
    return next(w for w in (16, 8, 4, 2, 1) if n % w == 0 or w == least)


def gathered(x: B, index: Any, y: B, form: str, rows: int, row_bytes: int, source_rows: int, wrong: Any = NOBODY) -> Any:
    """A launch y[r] = x[index[r]], zeros where there is no such row. form: the type of the index, 'f4', 'f8' or 'i4'."""
    word = word_of(row_bytes)
    grid, shift = row_grid(rows, row_bytes // word)
    arguments = [x, index, y, i64(rows), i64(row_bytes // word), i64(source_rows), shift, wrong]
    return launch("indexing", f"gather_{form}_{word}", grid, 256, arguments)


def summed(key: Any, place: Any, x: B, y: B, form: str, n: int, width: int, rows: int) -> Any:
    """A launch y[key[p]] += x[place[p]] in the order of p onto zeros, for sorted keys below `rows`."""
    grid, shift = row_grid(n, width)
    return launch("indexing", f"sum_rows_{form}", grid, 256, [key, place, x, y, i64(n), i64(width), i64(rows), shift])


def sort(key: B, place: B, n: int, bits: int, word: int, room: Room) -> tuple[list[Any], B, B]:
    """(launches, keys, places): n keys of `word` bytes sorted by their low bits with their places, equal ones in the order that they had."""
    if n <= TILE:
        return [launch("indexing", f"sort_tile_{word}", 1, 256, [key, place, i64(n), i32(bits)])], key, place
    tiles = -(-n // TILE)
    counts, to_key, to_place = room.take(DIGITS * tiles * 4), room.take(n * word), room.take(n * 4)
    launches = []
    for shift in range(0, bits, DIGIT):
        launches += [
            launch("indexing", f"sort_count_{word}", tiles, 256, [key, counts, i64(n), i32(shift), i32(tiles)]),
            launch("indexing", "sort_scan", 1, 1024, [counts, i64(DIGITS * tiles)]),
            launch("indexing", f"sort_place_{word}", tiles, 256, [key, place, to_key, to_place, counts, i64(n), i32(shift), i32(tiles)]),
        ]  # fmt: skip
        key, to_key, place, to_place = to_key, key, to_place, place
    return launches, key, place


class Wrong:
    """Where the kernels of a step note the first index that names no row of a table of `size` rows: one of the checks of a call."""

    def __init__(self, node: Node, size: int):
        self.node, self.size, self.device = node, size, current()
        self.memory = self.device.alloc(8)
        self.address = self.memory.address
        self.device.write(self.address, NONE)

    def __repr__(self) -> str:
        return "noted"

    def check(self) -> Exception | None:
        """The error of such an index, told once."""
        found = self.device.read(self.address, (1,), np.uint64)
        if found == NONE:
            return None
        self.device.write(self.address, NONE)
        return bad_index(self.node, self.size, float(found.astype(np.uint32).view(np.float32)[0]))


def wrong_of(s: Step, size: int) -> Any:
    """Argument of a launch: the place for an index that names no row; none where that stands for a row of zeros."""
    if s.node.attrs.get("zeros"):
        return NOBODY
    if "wrong" not in s.attrs:
        s.attrs["wrong"] = Wrong(s.node, size)
    return s.attrs["wrong"]


def checked(call: Call, wrong: Any) -> Call:
    """The call, of which a plan asks afterwards whether all indices were good."""
    call.checks = [wrong] if isinstance(wrong, Wrong) else []
    return call


def around(v: Value, sizes: dict, axis: int) -> tuple[int, int, int]:
    """Elements before an axis, along it and behind it."""
    d = shape(v, sizes)
    return math.prod(d[: axis + 1]), d[axis + 1], math.prod(d[axis + 2 :])


@kernel("one_hot")
def _one_hot(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    n, size = math.prod(shape(x, sizes)), math.prod(shape(y, sizes)) * y.type.dtype.itemsize
    if size == 0:
        return None
    inner = around(x, sizes, s.node.attrs["axis"])[2]
    arguments = [B(0), B(1), i64(n), i64(s.node.attrs["classes"]), i64(inner)]
    return Call(2, [Memset(B(1), size), launch("indexing", f"one_hot_{code(x)}", blocks(n), 256, arguments)]), io(s)


@kernel("gather")
def _gather(s: Step, sizes: dict) -> Made:
    table, index = s.inputs
    n, row = math.prod(shape(index, sizes)), math.prod(table.type.shape[1:]) * table.type.dtype.itemsize
    if n * row == 0:
        return None
    wrong = wrong_of(s, table.type.shape[0])
    call = Call(3, [gathered(B(0), B(1), B(2), code(index), n, row, table.type.shape[0], wrong)])
    return checked(call, wrong), io(s)


@kernel("scatter_add")
def _scatter_add(s: Step, sizes: dict) -> Made:
    index, y = s.inputs[0], s.outputs[0]
    rows, n = s.node.attrs["shape"][0], math.prod(shape(index, sizes))
    width = math.prod(s.node.attrs["shape"][1:])
    if rows * width == 0:
        return None
    room, form, wrong = Room(), code(y), wrong_of(s, rows)
    launches: list[Any] = [Memset(B(2), rows * width * y.type.dtype.itemsize)]
    if n:
        key, place = room.take(n * 4), room.take(n * 4)
        arguments = [B(0), key, place, i64(n), i64(rows), wrong]
        launches.append(launch("indexing", f"index_keys_{code(index)}", blocks(n), 256, arguments))
        sorting, key, place = sort(key, place, n, rows.bit_length(), 4, room)
        launches += [*sorting, summed(key, place, B(1), B(2), form, n, width, rows)]
    return checked(Call(3, launches, room.size), wrong), io(s)


@kernel("take_along")
def _take_along(s: Step, sizes: dict) -> Made:
    x, index = s.inputs
    n = math.prod(shape(index, sizes))
    if n == 0:
        return None
    _, size, inner = around(x, sizes, s.node.attrs["axis"])
    arguments = [B(0), B(1), B(2), i64(n), i64(size), i64(inner), i64(index.type.shape[s.node.attrs["axis"]])]
    return Call(3, [launch("indexing", f"take_along_{code(x)}", blocks(n), 256, arguments)]), io(s)


@kernel("put_along")
def _put_along(s: Step, sizes: dict) -> Made:
    x, index = s.inputs
    outer, size, inner = around(s.outputs[0], sizes, s.node.attrs["axis"])
    if outer * size * inner == 0:
        return None
    launches: list[Any] = [Memset(B(2), outer * size * inner * x.type.dtype.itemsize)]
    k = index.type.shape[s.node.attrs["axis"]]
    if k:
        arguments = [B(0), B(1), B(2), i64(outer), i64(size), i64(inner), i64(k)]
        launches.append(launch("indexing", f"put_along_{code(x)}", blocks(outer * inner), 256, arguments))
    return Call(3, launches), io(s)
