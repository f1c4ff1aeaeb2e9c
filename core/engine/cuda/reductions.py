"""Reductions on the GPU that are no plain sum or extreme: mean and variance, log of a sum of exponentials, places of extremes, the k largest."""

from __future__ import annotations

import math
from typing import Any

from cogkit.engine.cuda.pointwise import VECTOR
from cogkit.engine.cuda.space import plan, power_above
from cogkit.engine.cuda.table import SCRATCH, B, Call, blocks, i64, io, kernel, launch
from cogkit.engine.geometry import code, dims_of, shape, strides_in
from cogkit.engine.table import Made
from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__ = ["reduction"]

_ROOM = 80  # words of the kernels' parameters


def reduction(name: str, x: Value, outputs: list[Value], sizes: dict, partial: int) -> Call | None:
    """The launches of a reduction of x to outputs of one shape. partial: bytes of what a block hands on."""
    dims = dims_of(x.type, sizes, PLAIN)
    operands = 1 + len(outputs)
    space = plan(
        dims, [strides_in(v, x.type, PLAIN, PLAIN) for v in (x, *outputs)], [], list(range(1, operands)), VECTOR[code(x)]
    )
    if not space.elements:
        return None
    words = space.words.tobytes()
    parameters = [*(B(i) for i in range(operands)), words + bytes(8 * (_ROOM - operands) - len(words))]
    end = f"{code(x)}_{space.vector}"
    launches: list[Any] = [launch("reductions", f"{name}_{end}", space.blocks, space.threads, [SCRATCH, *parameters])]
    if space.parts == 1:
        launches[0] = launch("reductions", f"{name}_{end}", space.blocks, space.threads, [i64(0), *parameters])
        return Call(operands, launches)
    results = min(32, power_above(space.elements))
    args = [SCRATCH, i64(results), *parameters]
    launches.append(launch("reductions", f"{name}_combine_{end}", -(-space.elements // results), space.threads, args))
    return Call(operands, launches, partial * space.parts * space.elements)


def _made(name: str, s: Step, sizes: dict, partial: int) -> Made:
    call = reduction(name, s.inputs[0], s.outputs, sizes, partial)
    return None if call is None else (call, io(s))


@kernel("moments")
def _moments(s: Step, sizes: dict) -> Made:
    return _made("moments", s, sizes, 24)


@kernel("reduce_logsumexp")
def _logsumexp(s: Step, sizes: dict) -> Made:
    return _made("logsumexp", s, sizes, 2 * s.inputs[0].type.dtype.itemsize)


@kernel("argmax_axis", "argmin_axis")
def _arg(s: Step, sizes: dict) -> Made:
    return _made(s.node.name[:6], s, sizes, 16)


def ranked(rows: int, n: int, k: int) -> bool:
    """Whether to compare all n numbers of a row with each other rather than to look k times for the next one; by a guess at cycles."""
    compared = rows * n * n * 8 / (132 * 128)
    looked = k * (n * 20 / 128 + 1000) * max(1, rows / (132 * 8))
    return compared < looked


@kernel("top_k_axis")
def _top_k(s: Step, sizes: dict) -> Made:
    x, k = s.inputs[0], s.node.attrs["k"]
    d, axis = shape(x, sizes), s.node.attrs["axis"] + 1
    outer, n, inner = math.prod(d[:axis]), d[axis], math.prod(d[axis + 1 :])
    if outer * inner * k == 0:
        return None
    args = [B(0), B(1), B(2), i64(n), i64(inner), i64(k)]
    if ranked(outer * inner, n, k):
        return Call(3, [launch("reductions", f"rank_{code(x)}", blocks(outer * n * inner), 256, [*args, i64(outer)])]), io(s)
    return Call(3, [launch("reductions", f"top_k_{code(x)}", outer * inner, 128, args)]), io(s)
