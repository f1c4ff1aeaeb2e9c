"""Pooling of images and of regions on the GPU, by our own kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.engine.cuda.products import NONE, counts
from cogkit.engine.cuda.table import SCRATCH, B, Call, blob, blocks, kernel, launch
from cogkit.engine.geometry import code, rows, shape
from cogkit.engine.table import Made
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__ = ["pooling"]


def pooling(x: Sequence[int], y: Sequence[int], attrs: dict[str, Any]) -> bytes:
    """A `Pooling` of pooling.cu; x, y: (rows, channels, image). Raises `ValueError` for images of more than three axes."""

    def three(sizes: Sequence[int], fill: int = 1) -> list[int]:
        return [fill] * (3 - len(sizes)) + list(sizes)

    if len(x) > 5:
        raise ValueError(f"cuda engine: expected pooling over at most three axes, got {len(x) - 2}")
    before = three([lo for lo, _ in attrs["pads"]], 0)
    include = attrs.get("mode") == "avg_include_pad"
    numbers = [x[0] * x[1], *three(x[2:]), *three(y[2:]), *three(attrs["window"]), *three(attrs["strides"]), *before, include]
    return blob(np.array(numbers, np.int64))


def _run(name: str, n: int, args: Sequence[Any]) -> Any:
    return launch("pooling", name, blocks(n), 256, args)


@kernel("pool", "max_pool_dx", "avg_pool_dx", "max_pool_pick")
def _pool(s: Step, sizes: dict) -> Made:
    n, out = s.node, s.outputs[0]
    made = math.prod(shape(out, sizes))
    if made == 0:
        return None
    first, second = n.inputs[0], n.inputs[min(1, len(n.inputs) - 1)]
    x, y = {"pool": (first, out), "max_pool_dx": (second, first), "avg_pool_dx": (out, first), "max_pool_pick": (second, out)}[
        n.name
    ]
    sizes_of = pooling(shape(x, sizes), shape(y, sizes), n.attrs)
    type_, results = code(out), math.prod(shape(y, sizes))
    read: list[Value] = list(n.inputs[:2])  # what is largest is found in x, not by the result of pooling
    if n.name == "pool":
        launches = [_run(f"pool_{n.attrs['mode'][:3]}_{type_}", made, [B(0), B(1), sizes_of])]
    elif n.name == "max_pool_pick":
        launches = [_run(f"pool_pick_{type_}", made, [B(0), B(1), B(2), sizes_of])]
    elif n.name == "avg_pool_dx":
        launches = [_run(f"pool_avg_back_{type_}", made, [B(0), B(1), sizes_of])]
    else:
        launches = [_run(f"pool_places_{type_}", results, [B(1), SCRATCH, sizes_of])]
        launches.append(_run(f"pool_max_back_{type_}", made, [B(0), SCRATCH, B(2), sizes_of]))
    scratch = results * 4 if n.name == "max_pool_dx" else 0
    call = Call(len(read) + 1, launches, scratch)
    call.counts = counts(s, sizes)
    return call, [(v, PLAIN) for v in (*read, out)]


@kernel("roi_pool", "roi_pool_dx", "roi_pool_pick")
def _roi_pool(s: Step, sizes: dict) -> Made:
    n, out = s.node, s.outputs[0]
    x, regions = n.inputs[-2:]
    first = n.inputs[0]
    if math.prod(shape(out, sizes)) == 0:
        return None
    count, (channels, *image), bins = rows(out.type, sizes), x.type.shape, n.attrs["bins"]
    apart = [math.prod(v.type.shape) if v.type.axes else 0 for v in (x, regions, first)]
    numbers = [count, regions.type.shape[0], channels, *image, *bins, *apart]
    sizes_of = blob(np.array(numbers, np.int64)) + np.float64(n.attrs["scale"]).tobytes()
    type_, results = code(out), count * regions.type.shape[0] * channels * math.prod(bins)
    largest = n.attrs["mode"] == "max"
    scratch = 0
    if n.name == "roi_pool":
        launches = [_run(f"regions_{n.attrs['mode']}_{type_}", results, [B(0), B(1), B(2), sizes_of])]
    elif n.name == "roi_pool_pick":
        launches = [_run(f"regions_pick_{type_}", results, [B(0), B(1), B(2), B(3), sizes_of])]
    else:
        launches = []
        if largest and results:
            scratch = results * 4
            launches.append(_run(f"regions_cells_{type_}", results, [B(1), B(2), SCRATCH, sizes_of]))
        given = [B(0), B(2), SCRATCH if scratch else NONE, B(3), sizes_of]
        launches.append(_run(f"regions_back_{type_}", math.prod(shape(out, sizes)), given))
    call = Call(len(n.inputs) + 1, launches, scratch)
    call.counts = counts(s, sizes)
    return call, [(v, PLAIN) for v in (*n.inputs, out)]
