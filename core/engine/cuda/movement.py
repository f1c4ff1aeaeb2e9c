"""Movement of values on the GPU: copies, splices, slices, conversions."""

from __future__ import annotations

import math
from typing import Any

from cogkit.engine.cuda.driver import Copy, Memset
from cogkit.engine.cuda.table import B, Call, blob, blocks, f64, i64, io, kernel, launch, merged, space
from cogkit.engine.geometry import Strided, code, joined, moved, rows, shape
from cogkit.engine.table import Made
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.memory import SAVED
from cogkit.lowering.steps import Step

__all__ = ["copied", "filled"]

TILE, LEAST = 32, 8  # of a turned matrix in movement.cu; rows and columns from which it is worth its tiles


def copied(x: B, y: B, c: Strided, size: int) -> Any:
    """A launch that copies elements of `size` bytes from strides to strides; the first dim is that of rows."""
    dims, xs, ys, x0, y0 = c
    kept = merged(dims, xs, ys)
    inner, outer = next((d for d in kept if d[1] == 1), None), next((d for d in kept if d[2] == 1), None)
    if inner is not None and outer is not None and inner is not outer and len(kept) <= 3 and min(inner[0], outer[0]) >= LEAST:
        (batch,) = [d for d in kept if d is not inner and d is not outer] or [[1, 0, 0]]
        tiles = -(-inner[0] // TILE) * -(-outer[0] // TILE) * batch[0]
        numbers = [inner[0], outer[0], batch[0], outer[1], inner[2], *batch[1:], x0, y0]
        return launch("movement", f"turn_{size}", blocks(tiles, 1), (TILE, 8), [x, y, blob(numbers)])
    n = math.prod(dims)
    if kept and kept[-1][1:] == [1, 1]:  # larger words, where all of them lie at their places, in each row too
        apart = [xs[0], ys[0], x0, y0, kept[-1][0], *(v for d in kept[:-1] for v in d[1:])]
        word = next((w for w in (16, 8, 4, 2) if w > size and all(v * size % w == 0 for v in apart)), size)
        f, size = word // size, word
        kept = [*([d, a // f, b // f] for d, a, b in kept[:-1]), [kept[-1][0] // f, 1, 1]]
        dims, xs, ys = zip(*kept, strict=True)
        n, x0, y0 = n // f, x0 // f, y0 // f
    return launch("movement", f"copy_{size}", blocks(n), 256, [x, y, space(dims, xs, ys, x0, y0)])


def filled(y: B, n: int, dtype: str, value: float) -> Any:
    """A launch that fills n numbers."""
    return launch("movement", f"fill_{dtype}", blocks(n), 256, [y, i64(n), f64(value)])


@kernel("transpose", "take")
def _move(s: Step, sizes: dict) -> Made:
    c = moved(s, sizes)
    if math.prod(c.dims) == 0:
        return None
    return Call(2, [copied(B(0), B(1), c, s.outputs[0].type.dtype.itemsize)]), io(s)


@kernel("put")
def _put(s: Step, sizes: dict) -> Made:
    c, n, size = moved(s, sizes), math.prod(shape(s.outputs[0], sizes)), s.outputs[0].type.dtype.itemsize
    if n == 0:
        return None
    launches: list[Any] = [] if math.prod(c.dims) == n else [Memset(B(1), n * size)]
    if math.prod(c.dims):
        launches.append(copied(B(0), B(1), c, size))
    return Call(2, launches), io(s)


@kernel("concat")
def _concat(s: Step, sizes: dict) -> Made:
    y, parts = s.outputs[0], joined(s, sizes)
    last = B(len(parts))
    copies = [copied(B(k), last, c, y.type.dtype.itemsize) for k, (_, c) in enumerate(parts) if math.prod(c.dims)]
    return (Call(len(parts) + 1, copies), [(v, PLAIN) for v in (*(v for v, _ in parts), y)]) if copies else None


@kernel("assign")
def _assign(s: Step, sizes: dict) -> Made:
    target, value = s.inputs
    n = math.prod(target.type.shape) * target.type.dtype.itemsize
    return (Call(2, [Copy(B(1), B(0), n)]), [(value, s.layouts[value]), (target, PLAIN)]) if n else None


@kernel("save")
def _save(s: Step, sizes: dict) -> Made:
    v = s.inputs[0]
    n = math.prod(v.type.shape) * v.type.dtype.itemsize
    return (Call(2, [Copy(B(1), B(0), n)]), [(v, PLAIN), (v, SAVED)]) if n else None


@kernel("row_count")
def _row_count(s: Step, sizes: dict) -> Made:
    v = s.outputs[0]
    return Call(1, [filled(B(0), 1, code(v), float(rows(s.node.inputs[0].type, sizes)))]), [(v, PLAIN)]


@kernel("cast")
def _cast(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    n = math.prod(shape(x, sizes))
    name = f"cast_{x.type.dtype.str[1:]}_{y.type.dtype.str[1:]}"
    return (Call(2, [launch("movement", name, blocks(n), 256, [B(0), B(1), i64(n)])]), [(x, PLAIN), (y, PLAIN)]) if n else None
