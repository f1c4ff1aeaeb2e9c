"""Matrix products on the GPU: by cuBLASLt where it is there, else by our own kernels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.engine.cuda import cublaslt
from cogkit.engine.cuda.rounding import CODES, SHORT, Operands, Overflow, noted, overflow_of, precision
from cogkit.engine.cuda.table import SCRATCH, B, Call, blob, blocks, fits, i64, kernel, launch
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.table import Made
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__ = ["NONE", "SIZE", "best_tile", "counts", "own_product", "product", "split", "sum_parts", "use_libraries"]

NONE = i64(0)  # argument of a launch: no such operand
SIZE = {"f4": 4, "f8": 8}
WAVE = 132  # multiprocessors of the GPUs that sizes are chosen for; the same on all, so that all sum in the same order
THIN = (8, 128, 16)  # a tile for few rows
# (rows, columns, inner) of the tiles of products.cu
TILES = {"f4": [(128, 128, 8), (64, 64, 16), (32, 32, 16), THIN], "f8": [(64, 64, 8), (32, 32, 16), THIN]}
THREADS = {(128, 128): 256, (64, 64): 256, (32, 32): 256, (8, 128): 128}
LEAST_SLICES = 8  # of a part of a sum


def use_libraries() -> bool:
    """Whether NVIDIA's libraries may be used: not where COGKIT_CUDA_LIBRARIES is 0."""
    return os.environ.get("COGKIT_CUDA_LIBRARIES", "1") != "0"


def split(tiles: int, slices: int) -> tuple[int, int]:
    """(parts, slices of each) of a sum over so many slices, so that few tiles occupy the GPU."""
    parts = max(1, min(-(-2 * WAVE // tiles), slices // LEAST_SLICES))
    per = max(1, -(-slices // parts))
    return max(1, -(-slices // per)), per


def sum_parts(
    out: B,
    dtype: str,
    n: int,
    batch: int,
    parts: int,
    width: int = 1,
    plane: int = 1,
    bias: Any = NONE,
    added: Any = NONE,
    relu: bool = False,
    source: B = SCRATCH,
) -> Any:
    """A launch that sums the parts of each of `batch` results of n numbers, which lie one after the other, and finishes them.

    Number i has entry i // plane % width of the bias.
    """
    args = [source, out, bias, added, i64(n), i64(batch), i64(parts), i64(plane), i64(width), i64(relu)]
    return launch("products", f"sum_parts_{dtype}", blocks(n * batch), 256, args)


def best_tile(
    tiles: Sequence[tuple[int, int, int]], m: int, n: int, terms: int, copies: int, turns: int = 1
) -> tuple[int, int, int]:
    """The tile that is likely the fastest for `copies` results of m x n, sums of turns * terms."""

    def cost(tile: tuple[int, int, int]) -> float:
        down, across, inner = tile
        count = -(-m // down) * -(-n // across) * copies
        parts = split(count, turns * -(-terms // inner))[0]
        reuse = down * across / (down + across)  # how often what is fetched is used
        return count * down * across * (1 + 16 / reuse) / min(1, count * parts / WAVE)

    return min(tiles, key=cost)


def tile_of(m: int, n: int, k: int, turns: int, batch: int, dtype: str) -> Any:
    """The tile of a product, or which kernel without tiles: 'direct' (a thread an element), 'dots' (a warp an element)."""
    terms = k * turns
    if terms <= 8 or (max(m, n) <= 16 and (terms < 32 or (m * n > 64 and batch >= WAVE))):
        return "direct"
    if m * n <= 64 and (batch * m * n >= 4 * WAVE or terms <= 4096):
        return "dots"
    return best_tile(TILES[dtype], min(m, n), max(m, n), k, batch, turns)


def own_product(
    a: Any,
    b: Any,
    out: B,
    m: int,
    n: int,
    k: int,
    *,
    dtype: str = "f4",
    batch: int = 1,
    transpose_a: bool = False,
    transpose_b: bool = False,
    batch_a: int | None = None,
    batch_b: int | None = None,
    bias: B | None = None,
    added: B | None = None,
    relu: bool = False,
    turns: int = 1,
    turn_a: int | None = None,
    turn_b: int | None = None,
) -> Call:
    """out = a b + bias + added, then relu, by our own kernels.

    a: (m, k), transposed (k, m); b: (k, n), transposed (n, k); out: (m, n); `batch` of them, batch_a and batch_b elements apart (None:
    dense, 0: the same for all). bias: (n,); added: as out. turns: each result is the sum of so many products, whose operands lie turn_a
    and turn_b elements apart. Sizes may be 0: a and b are not read then.
    """
    turn_a, turn_b = (m * k if turn_a is None else turn_a), (k * n if turn_b is None else turn_b)
    batch_a, batch_b = (turns * m * k if batch_a is None else batch_a), (turns * k * n if batch_b is None else batch_b)
    # elements from one to the next: along the result, along the sum, from matrix to matrix, from turn to turn
    mine = (*((1, m) if transpose_a else (k, 1)), batch_a, turn_a)
    other = (*((k, 1) if transpose_b else (1, n)), batch_b, turn_b)
    to, slopes = (n, 1, m * n), (0, 1)
    tile = tile_of(m, n, k, turns, batch, dtype)
    extra = [bias or NONE, added or NONE]
    if k * turns == 0:
        a, b = out, out  # whatever lies on the device
    if tile == THIN and n < m:  # out' = b' a'
        a, b, m, n = b, a, n, m
        mine, other, to, slopes = other, mine, (1, m, m * n), (1, 0)
    parts, per, grid, block = 1, 1, 0, 256
    if isinstance(tile, str):
        grid = blocks(batch * m * n * (32 if tile == "dots" else 1))
    else:
        tiles = -(-m // tile[0]) * -(-n // tile[1]) * batch
        parts, per = split(tiles, turns * -(-k // tile[2]))
        grid, block, tile = tiles * parts, THREADS[tile[:2]], f"{tile[0]}x{tile[1]}"
    whole = parts == 1
    numbers = [m, n, k, batch, turns, *mine, *other[1::-1], *other[2:], *to, *slopes, parts, per, relu and whole,
               CODES[precision(dtype)]]  # fmt: skip
    args = [a, b, out if whole else SCRATCH, *(extra if whole else [NONE, NONE]), blob(np.array(numbers, np.int64))]
    launches = [launch("products", f"product_{tile}_{dtype}", grid, block, args)]
    if whole:
        return Call(0, launches)
    launches.append(sum_parts(out, dtype, m * n, batch, parts, n if slopes[1] else m, 1, *extra, relu=relu))
    return Call(0, launches, parts * batch * m * n * SIZE[dtype])


def _spans(m: int, n: int, k: int, options: dict[str, Any]) -> tuple[int, int]:
    """From the first to the last element of each operand of `own_product`."""
    batch, turns = options.get("batch", 1), options.get("turns", 1)
    found = []
    for side, size in (("a", m * k), ("b", k * n)):
        turn = size if options.get(f"turn_{side}") is None else options[f"turn_{side}"]
        apart = turns * size if options.get(f"batch_{side}") is None else options[f"batch_{side}"]
        found.append((batch - 1) * apart + (turns - 1) * turn + size)
    return found[0], found[1]


def _by_library(a: B, b: B, out: B, m: int, n: int, k: int, **options: Any) -> list[Any]:
    """The commands of a product by cuBLASLt, or nothing where it does not compute it."""
    found = cublaslt.matmul(a, b, out, m, n, k, **options)
    if found is not None:
        return [found]
    rest = {name: options.pop(name) for name in ("bias", "added", "relu") if options.get(name)}
    found = cublaslt.matmul(a, b, out, m, n, k, **options) if rest else None
    if found is None:
        return []
    total = options.get("batch", 1) * m * n
    return [found, sum_parts(out, options.get("result") or options.get("dtype", "f4"), total, 1, 1, n, **rest, source=out)]


def product(a: Any, b: Any, out: B, m: int, n: int, k: int, *, overflow: Overflow | None = None, **options: Any) -> Call:
    """out = a b + bias + added, then relu, as `own_product`, in the precision that is set; by cuBLASLt where it does it.

    overflow: where operands beyond the range of half precision are noted.
    """
    name = precision(options.get("dtype", "f4"))
    spans = _spans(m, n, k, options)
    if use_libraries() and min(m, n, k, options.get("batch", 1)) > 0 and options.get("turns", 1) == 1:
        given = {name: v for name, v in options.items() if not name.startswith("turn")}
        for kernel in ("narrowed", "rounded") if name in SHORT else ():
            room = Operands(name, overflow)
            x, y = (room.take(kernel, v, span) for v, span in zip((a, b), spans, strict=True))
            # numbers of ten bits are those of either type: the library's second way
            how: dict[str, Any] = {"dtype": SHORT[name], "result": "f4"} if kernel == "narrowed" else {"tf32": True}
            found = _by_library(x, y, out, m, n, k, **{**given, **how, "scratch_at": room.size})
            if found:
                return room.call(found)
        if name not in SHORT:
            found = _by_library(a, b, out, m, n, k, **given, tf32=name == "tf32")
            if found:
                return Call(0, found)
    call = own_product(a, b, out, m, n, k, **options)
    if overflow is not None:
        call.items[:0] = [noted(v, span, overflow) for v, span in zip((a, b), spans, strict=True) if k * options.get("turns", 1)]
    return call


def counts(s: Step, sizes: dict) -> tuple[int, ...]:
    """Rows of what a step reads and makes, of which its call depends."""
    return tuple(rows(v.type, sizes) for v in (*s.inputs, *s.outputs))


@fits("matmul")
@fits("conv")
@fits("pool")
@fits("roi_pool")
def _same_rows(call: Call, s: Step, sizes: dict) -> bool:
    return call.counts == counts(s, sizes)


@kernel("matmul")
def _matmul(s: Step, sizes: dict) -> Made:
    node = s.node
    a, b = node.inputs
    ta, tb = node.attrs["ta"], node.attrs["tb"]
    m, k = reversed(a.type.shape) if ta else a.type.shape
    n = node.outputs[0].type.shape[1]
    ra, rb = bool(a.type.axes), bool(b.type.axes)
    count = rows(a.type if ra else b.type, sizes)
    out = s.outputs[0]
    if math.prod(shape(out, sizes)) == 0:
        return None
    options: dict[str, Any] = {"dtype": code(out), "relu": s.attrs.get("relu", False)}
    options.update({name: B(2) for name in ("bias", "added") if name in s.attrs})
    x, y = B(0), B(1)
    # a vector lies alike either way: as whatever makes one matrix of all rows
    free_a, free_b = m == 1 or k == 1, n == 1 or k == 1
    if node.attrs["sum_rows"] and (ra or rb):
        if (ta or free_a) and (not tb or free_b) and ra and rb:  # the inner dimension runs over the rows too
            k, ta, tb = count * k, True, False
        else:
            options.update({"turns": count, "turn_a": None if ra else 0, "turn_b": None if rb else 0})
    elif ra and not rb and (not ta or free_a):
        m, ta = count * m, False
    elif rb and not ra and m == 1 and (tb or free_b) and "bias" not in options:  # out' = b a'
        x, y, m, n, ta, tb = y, x, count * n, 1, False, False
    elif ra or rb:
        options.update({"batch": count, "batch_a": None if ra else 0, "batch_b": None if rb else 0})
    overflow = overflow_of(s, options["dtype"])
    call = product(x, y, B(len(s.inputs)), m, n, k, transpose_a=ta, transpose_b=tb, overflow=overflow, **options)
    call.nbuf, call.counts, call.checks = len(s.inputs) + 1, counts(s, sizes), [overflow] if overflow else []
    return call, [(v, PLAIN) for v in (*s.inputs, out)]
