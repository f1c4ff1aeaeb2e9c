"""Convolutions on the GPU: by cuDNN where it is there, else by our own kernels, which read images through index tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from cogkit.engine.cuda import cudnn_graphs
from cogkit.engine.cuda.driver import Memset
from cogkit.engine.cuda.products import NONE, SIZE, THIN, WAVE, best_tile, counts, split, sum_parts, use_libraries
from cogkit.engine.cuda.rounding import CODES, SHORT, Operands, noted, overflow_of, precision
from cogkit.engine.cuda.table import SCRATCH, B, Call, Table, blob, blocks, kernel, launch
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.table import Made
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__ = ["Images", "gather", "scatter"]

# (results of a group, rows and positions, taps) of the tiles of convolution.cu
TILES = {"f4": [(128, 128, 8), (64, 64, 16), (32, 128, 8), THIN], "f8": [(64, 64, 8), (32, 64, 16), THIN]}
THREADS = {(128, 128): 256, (64, 64): 256, (32, 128): 256, (32, 64): 256, (8, 128): 128}
FEW = 4  # results of a group for which there is no tile


@dataclass(frozen=True)
class Images:
    """Sizes of a convolution: x (channels, *image), w (outputs, channels / groups, *window), y (outputs, *out); three axes, all."""

    rows: int
    channels: int
    outputs: int
    groups: int
    image: tuple[int, ...]
    window: tuple[int, ...]
    out: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]  # rows of zeros before the image

    @classmethod
    def of(cls, count: int, x: Sequence[int], w: Sequence[int], y: Sequence[int], attrs: dict[str, Any]) -> Images:
        """From the shapes of samples and weights and the node's settings; axes that are missing have size 1."""

        def three(sizes: Sequence[int], fill: int = 1) -> tuple[int, ...]:
            return (fill,) * (3 - len(sizes)) + tuple(sizes)

        return cls(count, x[0], w[0], attrs["groups"], three(x[1:]), three(w[2:]), three(y[1:]), three(attrs["strides"]),
                   three(attrs["dilation"]), three([lo for lo, _ in attrs["pads"]], 0))  # fmt: skip


def _lines(at: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Offsets of coordinates (n, 3) in a plane."""
    return (at[:, 0] * sizes[1] + at[:, 1]) * sizes[2] + at[:, 2]


def _grid(*sizes: int) -> np.ndarray:
    """All coordinates below sizes, in order: (n, len(sizes))."""
    return np.indices(sizes).reshape(len(sizes), -1).T


def _places(offsets: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A table of `Place`s. Raises `ValueError` for samples of 2**31 elements or more."""
    if offsets.size and np.abs(offsets).max() >= 1 << 31:
        raise ValueError("cuda engine: expected a convolution's sample of fewer than 2**31 elements, got a larger one")
    return np.column_stack([offsets, at]).astype(np.int32)


@lru_cache(128)
def _forward(g: Images) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """(taps, weights, positions, results, classes) of a convolution, and the taps of each class."""
    taps = _grid(g.channels // g.groups, *g.window)
    shift = taps[:, 1:] * g.dilation
    positions = _grid(*g.out)
    corner = positions * g.strides - np.array(g.before)
    tables = [
        _places(taps[:, 0] * math.prod(g.image) + _lines(shift, g.image), shift),
        np.arange(len(taps), dtype=np.int32),
        _places(_lines(corner, g.image), corner),
        np.arange(len(positions), dtype=np.int32),
        np.array([[0, len(taps), 0, len(positions)]], np.int32),
    ]
    return tables, [(len(taps), len(positions))]


@lru_cache(128)
def _backward(g: Images) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """The same from y to x: pixels of one remainder by the strides meet the same places of the window."""
    per_class: list[list[np.ndarray]] = []
    classes, sizes = [], []
    k = p = 0
    places = _grid(*g.window)
    for first in itertools.product(*(range(min(s, n)) for s, n in zip(g.strides, g.image, strict=True))):
        reach = np.array(first) + g.before - places * g.dilation
        met = (reach % g.strides == 0).all(axis=1)
        shift = reach[met] // np.array(g.strides)
        pixels = _grid(*(-(-(n - f) // s) for n, f, s in zip(g.image, first, g.strides, strict=True)))
        outputs, number = np.arange(g.outputs // g.groups), np.flatnonzero(met)
        offset = outputs[:, None] * math.prod(g.out) + _lines(shift, g.out)
        weight = outputs[:, None] * (g.channels // g.groups * len(places)) + number
        per_class.append([
            _places(offset.ravel(), np.tile(shift, (len(outputs), 1))),
            weight.ravel().astype(np.int32),
            _places(_lines(pixels, g.out), pixels),
            _lines(pixels * g.strides + np.array(first), g.image).astype(np.int32),
        ])  # fmt: skip
        sizes.append((offset.size, len(pixels)))
        classes.append([k, offset.size, p, len(pixels)])
        k, p = k + offset.size, p + len(pixels)
    return [*(np.concatenate(t) for t in zip(*per_class, strict=True)), np.array(classes, np.int32)], sizes


def _tables(arrays: Sequence[np.ndarray]) -> list[Table]:
    """On the device; a table without entries is not read, but has an address."""
    return [Table(a if a.size else np.zeros(4, np.int32)) for a in arrays]


def gather(g: Images, dtype: str, back: bool, x: Any, w: Any, y: B, bias: B | None = None, relu: bool = False) -> Call:
    """y = the convolution of x with w + bias, then relu; back: from y to x, by the same weights.

    y has elements; x or w may have none, and are `NONE` then.
    """
    tables, sizes = (_backward if back else _forward)(replace(g, rows=0))
    a, b = (g.outputs, g.channels) if back else (g.channels, g.outputs)  # channels that are read and made
    read, made = (math.prod(g.out), math.prod(g.image)) if back else (math.prod(g.image), math.prod(g.out))
    window, m = math.prod(g.window), b // g.groups
    most, total = max(p for _, p in sizes), g.rows * b * made
    weights = [g.outputs // g.groups * (g.channels // g.groups) * window, window if back else a // g.groups * window]
    rounding = CODES[precision(dtype)]
    tiles_of = [t for t in TILES[dtype] if not rounding or t[:2] != (128, 128)]  # that one does not round
    tile = best_tile(tiles_of, m, g.rows * most, max(k for k, _ in sizes), g.groups * len(sizes))
    parts, per = 1, 1
    if m < FEW:
        name, grid, block = "direct", blocks(g.rows * g.groups * m * len(sizes) * most), 256
    else:
        tiles = -(-m // tile[0]) * -(-g.rows * most // tile[1]) * g.groups * len(sizes)
        parts, per = split(tiles, max(-(-k // tile[2]) for k, _ in sizes))
        name, grid, block = f"{tile[0]}x{tile[1]}", tiles * parts, THREADS[tile[:2]]
    whole = parts == 1
    strides = [a * read, a // g.groups * read, *weights, b * made, m * made, made]
    numbers = [g.rows, g.groups, m, len(sizes), most, *(g.out if back else g.image), *strides, parts, per, total, relu and whole,
               rounding]  # fmt: skip
    extra = bias or NONE
    x, w = (y if v is NONE else v for v in (x, w))  # whatever lies on the device
    args = [x, w, y if whole else SCRATCH, extra if whole else NONE, *_tables(tables), blob(np.array(numbers, np.int64))]
    launches = [launch("convolution", f"gather_{name}_{dtype}", grid, block, args)]
    if whole:
        return Call(0, launches)
    launches.append(sum_parts(y, dtype, total, 1, parts, b, made, extra, relu=relu))
    return Call(0, launches, parts * total * SIZE[dtype])


def scatter(g: Images, dtype: str, x: B, dy: B, dw: B) -> Call:
    """dw = the sum over rows and positions of dy times what the window sees of x. All sizes are at least 1."""
    tables = _forward(replace(g, rows=0))[0]
    taps, positions = len(tables[0]), len(tables[2])
    m, total = g.outputs // g.groups, g.outputs * len(tables[0])
    parts, per = 1, 1
    if m < FEW and g.groups * taps >= WAVE:
        name, grid, block = "direct", total, 256
    else:
        tile = best_tile(TILES[dtype], m, taps, g.rows * positions, g.groups)
        tiles = -(-m // tile[0]) * -(-taps // tile[1]) * g.groups
        parts, per = split(tiles, -(-g.rows * positions // tile[2]))
        name, grid, block = f"{tile[0]}x{tile[1]}", tiles * parts, THREADS[tile[:2]]
    image = math.prod(g.image)
    strides = [g.channels * image, g.channels // g.groups * image, g.outputs * positions, m * positions]
    numbers = [g.rows, g.groups, m, taps, positions, *g.image, *strides, parts, per, CODES[precision(dtype)]]
    args = [x, dy, dw if parts == 1 else SCRATCH, *_tables([tables[0], tables[2]]), blob(np.array(numbers, np.int64))]
    launches = [launch("convolution", f"scatter_{name}_{dtype}", grid, block, args)]
    if parts == 1:
        return Call(0, launches)
    return Call(0, [*launches, sum_parts(dw, dtype, total, 1, parts)], parts * total * SIZE[dtype])


def _by_library(n: Node, x: Value, w: Value, y: Value, sizes: dict, buffers: list[B], **options: Any) -> list[Any]:
    """A command of cuDNN's, or nothing."""
    lo, hi = ([p[i] for p in n.attrs["pads"]] for i in (0, 1))
    if not 1 <= len(lo) <= 3 or min(*lo, *hi) < 0:
        return []
    count = rows(x.type, sizes)
    kind = {"conv": "forward", "conv_dx": "backward_data", "conv_dw": "backward_weights"}[n.name]
    geometry = (count, *x.type.shape), w.type.shape, (count, *y.type.shape), n.attrs["strides"], n.attrs["dilation"], lo, hi
    found = cudnn_graphs.convolution(kind, *geometry, n.attrs["groups"], buffers=buffers, **options)
    return [] if found is None else [found]


@kernel("conv", "conv_dx", "conv_dw")
def _conv(s: Step, sizes: dict) -> Made:
    n = s.node
    x, w, y = {"conv": (n.inputs[0], n.inputs[1], n.outputs[0]), "conv_dx": (n.outputs[0], n.inputs[1], n.inputs[0]),
               "conv_dw": (n.inputs[0], n.outputs[0], n.inputs[1])}[n.name]  # fmt: skip
    out, last = s.outputs[0], len(s.inputs)
    if math.prod(shape(out, sizes)) == 0:
        return None
    dtype, bias, relu = code(out), "bias" in s.attrs, s.attrs.get("relu", False)
    g = Images.of(rows(x.type, sizes), x.type.shape, w.type.shape, y.type.shape, n.attrs)
    first, second = (B(i) if math.prod(shape(v, sizes)) else NONE for i, v in enumerate(n.inputs))
    name, overflow = precision(dtype), overflow_of(s, dtype)
    room = Operands(name, overflow) if name in SHORT else None
    whole = [math.prod(shape(v, sizes)) for v in n.inputs]
    commands: list[Any] = []
    if use_libraries() and first is not NONE and second is not NONE:
        a, b = (B(i) if room is None else room.take("rounded", B(i), size) for i, size in enumerate(whole))
        # cuDNN's engines (9.19) do not go from two bytes to four; numbers of ten bits, which these are, they may take fast
        command = partial(
            _by_library, n, x, w, y, sizes, dtype=dtype, tf32=name != "float32", scratch_at=room.size if room else 0
        )
        commands = command([a, b, *(B(i) for i in range(2, last + 1))], bias=bias, relu=relu)
        if not commands and (bias or relu):
            commands = command([a, b, B(last)])
            if commands:
                total, plane = math.prod(shape(out, sizes)), math.prod(g.out)
                extra = B(2) if bias else NONE
                commands.append(sum_parts(B(last), dtype, total, 1, 1, g.outputs, plane, extra, relu=relu, source=B(last)))
    if commands:
        call = room.call(commands) if room else Call(0, commands)
    elif n.name != "conv_dw":
        call = gather(g, dtype, n.name == "conv_dx", first, second, B(last), B(2) if bias else None, relu)
    elif first is NONE or second is NONE:
        return Call(1, [Memset(B(0), math.prod(w.type.shape) * SIZE[dtype])]), [(out, PLAIN)]
    else:
        call = scatter(g, dtype, first, second, B(2))
    if overflow is not None and not commands:
        call.items[:0] = [noted(B(i), size, overflow) for i, size in enumerate(whole) if size]
    call.nbuf, call.counts, call.checks = last + 1, counts(s, sizes), [overflow] if overflow else []
    return call, [(v, PLAIN) for v in (*s.inputs, out)]
