"""Alignments of two sequences on the GPU: connectionist temporal classification, edit distance. A block of threads has one pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cogkit.engine.cuda.indexing import Room, row_grid
from cogkit.engine.cuda.table import B, Call, Table, f64, i64, io, kernel, launch
from cogkit.engine.geometry import code, rows
from cogkit.engine.table import Made
from cogkit.lowering.steps import Step

__all__ = ["KEPT", "pairs_of"]

KEPT = 256 << 20  # bytes of forward variables up to which all are kept; from there on the way back computes most of them again


def pairs_of(first: Any, second: Any, size: Callable) -> tuple[Any, int]:
    """(the pairs of two spaces as the structs of alignment.cu, bytes of scratch), the longest of the second first.

    size(lengths, lengths, room) gives bytes of scratch and frames of a block of each. Raises `ValueError` for other numbers of sequences.
    """
    if len(first.lengths) != len(second.lengths):
        raise ValueError(f"expected as many sequences in both operands, got {len(first.lengths)} and {len(second.lengths)}")
    order = second.order
    m, n = first.lengths[order], second.lengths[order]
    bytes_, block = size(m, n)
    ends = np.cumsum(bytes_)
    return Table(np.stack([m, first.rank[order], n, second.rank[order], order, ends - bytes_, block], 1)), int(ends[-1])


def _lines(n: Any) -> Any:
    return (n + 63) // 64 * 64


def _threads(most: int) -> int:
    return min(256, max(32, 1 << max(most - 1, 0).bit_length()))


def _symbols(x: Any, symbol: B, count: int, classes: int, form: str, two: bool) -> Any:
    grid, _ = row_grid(count, 32)
    return launch("alignment", f"symbols_{form}", grid[0], 256, [x, symbol, i64(count), i64(classes), i64(two)])


def _ctc_size(m: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    most = 2 * np.minimum(m, n) + 1
    row = (most + 4) * 8
    block = np.maximum(n, 1)
    if (block * row).sum() > KEPT:
        block = np.maximum(np.ceil(np.sqrt(n)).astype(np.int64), 1)
    pool = (block + -(-n // block)) * row
    return _lines(pool) + 5 * _lines(row) + 2 * _lines(most * 8) + 2 * _lines(most * 4), block


@kernel("ctc")
def _ctc(s: Step, sizes: dict) -> Made:
    labels, x = s.inputs
    first, second = sizes[labels.type.axes], sizes[x.type.axes]
    if len(second.lengths) == 0:
        return None
    classes, count, form = math.prod(x.type.shape), rows(x.type, sizes), code(x)
    table, scratch = pairs_of(first, second, _ctc_size)
    room = Room()
    symbol, log_sum, slots = room.take(4 * int(first)), room.take(8 * count), room.take(scratch)
    launches: list[Any] = []
    if int(first):
        launches.append(_symbols(B(0), symbol, int(first), classes, form, True))
    if count:
        grid, _ = row_grid(count, 32)
        launches.append(launch("alignment", f"softmax_{form}", grid[0], 256, [B(1), B(3), log_sum, i64(count), i64(classes)]))
    most = 2 * min(first.steps, second.steps) + 1
    arguments = [symbol, B(1), log_sum, B(2), B(3), table, slots, Table(first.offset), Table(second.offset), i64(classes),
                 i64(s.node.attrs["blank"]), i64(s.node.attrs["delay"])]  # fmt: skip
    launches.append(launch("alignment", f"ctc_{form}", len(second.lengths), _threads(most), arguments))
    return Call(4, launches, room.size), io(s)


def _edit_size(m: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _lines(4 * m) + _lines(4 * n) + _lines(24 * (n + 1)) + _lines(12 * (n + 1)), np.zeros_like(n)


@kernel("edit_distance")
def _edit_distance(s: Step, sizes: dict) -> Made:
    a, b = s.inputs
    first, second = sizes[a.type.axes], sizes[b.type.axes]
    if len(second.lengths) == 0:
        return None
    classes, form, attrs = math.prod(a.type.shape), code(a), s.node.attrs
    table, scratch = pairs_of(first, second, _edit_size)
    room, launches = Room(), []
    symbols = [room.take(4 * int(space)) for space in (first, second)]
    slots = room.take(scratch)
    for i, space in enumerate((first, second)):
        if int(space):
            launches.append(_symbols(B(i), symbols[i], int(space), classes, form, False))
    ignored = np.zeros(classes, np.uint8)
    ignored[[c for c in attrs["ignored"] if 0 <= c < classes]] = 1
    arguments = [*symbols, B(2), B(3), table, slots, Table(first.offset), Table(second.offset), Table(ignored),
                 *map(f64, attrs["penalties"]), i64(attrs["squash"])]  # fmt: skip
    launches.append(launch("alignment", f"edits_{form}", len(second.lengths), _threads(second.steps + 1), arguments))
    return Call(4, launches, room.size), io(s)
