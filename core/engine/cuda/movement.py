"""Movement of values on the GPU: copies, splices, slices, conversions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cogkit.engine.cuda.driver import Copy, Memset
from cogkit.engine.cuda.table import B, Call, blob, blocks, f64, i64, kernel, launch, merged, space
from cogkit.engine.geometry import code, rows, shape, strides_of
from cogkit.engine.table import Made
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.memory import SAVED
from cogkit.lowering.steps import Step

__all__ = ["copied", "filled"]

TILE, LEAST = 32, 8  # of a turned matrix in movement.cu; rows and columns from which it is worth its tiles


def copied(x: B, y: B, dims: Sequence[int], xs: Sequence[int], ys: Sequence[int], size: int, x0: int = 0, y0: int = 0) -> Any:
    """A launch that copies elements of `size` bytes from strides to strides; the first dim is that of rows."""
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


def _move(x: Value, y: Value, dims: Sequence[int], xs: Sequence[int], ys: Sequence[int], x0: int = 0, y0: int = 0) -> Made:
    if math.prod(dims) == 0:
        return None
    return Call(2, [copied(B(0), B(1), dims, xs, ys, x.type.dtype.itemsize, x0, y0)]), [(x, PLAIN), (y, PLAIN)]


@kernel("transpose")
def _transpose(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    perm = [0] + [p % len(x.type.shape) + 1 for p in s.node.attrs["perm"]]
    xs = strides_of(shape(x, sizes))
    return _move(x, y, shape(y, sizes), [xs[p] for p in perm], strides_of(shape(y, sizes)))


@kernel("take")
def _take(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    i, stride = s.node.attrs["axis"] + 1, s.node.attrs["stride"]
    xs = strides_of(shape(x, sizes))
    start = s.node.attrs["first"] * xs[i]
    xs[i] *= stride
    return _move(x, y, shape(y, sizes), xs, strides_of(shape(y, sizes)), x0=start)


@kernel("put")
def _put(s: Step, sizes: dict) -> Made:
    x, y = s.inputs[0], s.outputs[0]
    i, stride, first = s.node.attrs["axis"] + 1, s.node.attrs["stride"], s.node.attrs["first"]
    d, ys, size = shape(x, sizes), strides_of(shape(y, sizes)), x.type.dtype.itemsize
    inner = list(ys)
    inner[i] *= stride
    if math.prod(shape(y, sizes)) == 0:
        return None
    launches: list[Any] = [] if math.prod(d) == math.prod(shape(y, sizes)) else [Memset(B(1), math.prod(shape(y, sizes)) * size)]
    if math.prod(d):
        launches.append(copied(B(0), B(1), d, strides_of(d), inner, size, 0, first * ys[i]))
    return Call(2, launches), [(x, PLAIN), (y, PLAIN)]


@kernel("concat")
def _concat(s: Step, sizes: dict) -> Made:
    y = s.outputs[0]
    i = s.node.attrs["axis"] + 1
    ys = strides_of(shape(y, sizes))
    launches: list[Any] = []
    parts: list[Value] = []
    at = 0
    for v in s.node.inputs:
        d = shape(v, sizes)
        if v.inside is None or v.inside.of is not y:  # else it was written there
            parts.append(v)
            if math.prod(d):
                launches.append((len(parts) - 1, d, at * ys[i]))
        at += d[i]
    size, last = y.type.dtype.itemsize, len(parts)
    if not launches:
        return None
    copies = [copied(B(k), B(last), d, strides_of(d), ys, size, 0, first) for k, d, first in launches]
    return Call(last + 1, copies), [(v, PLAIN) for v in (*parts, y)]


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
