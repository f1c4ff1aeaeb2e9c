"""Weighted samples of classes, how often they hold a class, and losses over the order of rows, on the GPU."""

from __future__ import annotations

import math
from typing import Any

from cogkit.engine.cuda.driver import Memset
from cogkit.engine.cuda.indexing import Room, row_grid, sort
from cogkit.engine.cuda.table import CONTEXT, B, Call, blocks, i32, i64, io, kernel, launch
from cogkit.engine.geometry import code, rows
from cogkit.engine.table import Made
from cogkit.lowering.steps import Step

__all__ = ["BLOCK", "SIZE", "Order"]

BLOCK = 512  # threads of kernels that are one block
SIZE = {"f4": 4, "f8": 8}


def _launch(name: str, grid: Any, block: int, *arguments: Any) -> Any:
    return launch("sampling", name, grid, block, arguments)


@kernel("sample_classes")
def _sample_classes(s: Step, sizes: dict) -> Made:
    w, a = s.inputs[0], s.node.attrs
    n, count, form, room = w.type.shape[0], a["count"], code(w), Room()
    if count == 0:
        return None
    purpose = i64(int(a["purpose"]) & 0xFFFFFFFF)
    if a["duplicates"]:
        sums, last = room.take(8 * n), room.take(8)
        launches = [
            _launch(f"weight_sums_{form}", 1, BLOCK, B(0), sums, last, i64(n)),
            _launch(f"draw_{form}", blocks(count), 256, sums, last, B(1), i64(n), i64(count), purpose, CONTEXT),
        ]
        return Call(2, launches, room.size), io(s)
    key, place = room.take(8 * n), room.take(4 * n)
    launches = []
    if n:
        launches.append(_launch(f"race_{form}", blocks(n), 256, B(0), key, place, i64(n), purpose, CONTEXT))
        sorting, key, place = sort(key, place, n, 63, 8, room)  # no time is negative
        launches += sorting
    launches.append(_launch(f"arrived_{form}", 1, BLOCK, B(0), place, B(1), i64(n), i64(count)))
    return Call(2, launches, room.size), io(s)


@kernel("inclusion_frequency")
def _inclusion_frequency(s: Step, sizes: dict) -> Made:
    w, room = s.inputs[0], Room()
    n = w.type.shape[0]
    if n == 0:
        return None
    call = _launch(f"inclusion_{code(w)}", 1, BLOCK, B(0), B(1), room.take(8 * n), i64(n), i64(s.node.attrs["count"]))
    return Call(2, [call], room.size), io(s)


class Order:
    """Rows by query, then score, the best first; of equal scores the one of less gain is thought to come first. Buffers: score, gain, query."""

    def __init__(self, n: int, form: str):
        self.n, self.form, self.room = n, form, Room()
        take = self.room.take
        key, place = take(SIZE[form] * n), take(4 * n)
        self.first, self.last, self.discount, self.bad = take(4 * n), take(4 * n), take(8 * n), take(8)
        self.value = take(8 * n)  # of each query, at its first place
        self.launches: list[Any] = [Memset(self.bad, 8)]
        if n == 0:
            return
        keys = f"number_keys_{form}"
        for i, (x, down) in enumerate(((B(1), 0), (B(0), 1), (B(2), 0))):
            self.launches.append(launch("indexing", keys, blocks(n), 256, [x, key, place, i64(n), i32(down), i32(i == 0)]))
            sorting, key, place = sort(key, place, n, 8 * SIZE[form], SIZE[form], self.room)
            self.launches += sorting
        self.order = place
        self.spans = [place, self.first, self.last]
        self.launches.append(
            _launch(f"spans_{form}", blocks(n), 256, B(0), B(1), B(2), *self.spans, self.discount, self.bad, i64(n))
        )

    def warps(self, name: str, *arguments: Any) -> None:
        """A launch with a warp a row."""
        if self.n:
            self.launches.append(_launch(f"{name}_{self.form}", row_grid(self.n, 32)[0][0], 256, *arguments, i64(self.n)))

    def mean(self, y: B) -> None:
        """A launch y = 100 rows mean(value of queries)."""
        self.launches.append(_launch(f"mean_{self.form}", 1, BLOCK, self.first, self.value, self.bad, y, i64(self.n)))


@kernel("lambda_rank")
def _lambda_rank(s: Step, sizes: dict) -> Made:
    o = Order(rows(s.inputs[0].type, sizes) * math.prod(s.inputs[0].type.shape), code(s.inputs[0]))
    best, ideal = o.room.take(8 * o.n), o.room.take(8 * o.n)
    if o.n:
        o.warps("best", B(1), *o.spans, best)
        o.warps("queries", B(1), *o.spans, o.discount, best, ideal, o.value)
        o.warps("pulls", B(0), B(1), *o.spans, o.discount, ideal, o.bad, B(4))
    o.mean(B(3))
    return Call(5, o.launches, o.room.size), io(s)


@kernel("ndcg_at_1")
def _ndcg_at_1(s: Step, sizes: dict) -> Made:
    o = Order(rows(s.inputs[0].type, sizes) * math.prod(s.inputs[0].type.shape), code(s.inputs[0]))
    if o.n:
        o.warps("firsts", B(1), *o.spans, o.value)
    o.mean(B(3))
    return Call(4, o.launches, o.room.size), io(s)
