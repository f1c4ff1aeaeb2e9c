"""Where values lie in memory, and the program of a pointwise step: what the makers of kernels of all engines ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step
from cogkit.op import Type

__all__ = [
    "C16",
    "Strided",
    "code",
    "dims_of",
    "joined",
    "lies",
    "moved",
    "program_of",
    "rows",
    "segments_of",
    "shape",
    "strides_in",
    "strides_of",
]

C16 = "c16"  # a format: 16 channels together


def code(v: Value) -> str:
    """'f4' or 'f8'."""
    return "f4" if v.type.dtype == np.float32 else "f8"


def rows(t: Type, sizes: dict) -> int:
    """Number of rows, 1 without a row space."""
    return sizes[t.axes] if t.axes else 1


def shape(v: Value, sizes: dict) -> tuple[int, ...]:
    """Rows, then static axes."""
    return (rows(v.type, sizes), *v.type.shape)


def strides_of(dims: Sequence[int]) -> list[int]:
    """Row-major strides."""
    out, n = [], 1
    for d in reversed(dims):
        out.append(n)
        n *= d
    return out[::-1]


def dims_of(domain: Type, sizes: dict, layout: str) -> list[int]:
    """The iteration shape of a space in a format; the first is the row."""
    s = domain.shape
    if layout == C16:
        return [rows(domain, sizes), s[0] // 16, *s[1:], 16]
    return [rows(domain, sizes), *s]


def strides_in(v: Value, domain: Type, layout: str, of: str) -> list[int]:
    """Strides of a value (in its own format `of`) over the dims of a domain in a format; 0 where it is broadcast or reduced."""
    t = v.type
    if layout == C16 and of == C16:
        return strides_of([1, *dims_of(domain, {}, C16)[1:]] if not t.axes else dims_of(domain._replace(axes=()), {}, C16))
    lead = len(domain.shape) - len(t.shape)
    own, row, _ = lies(v)
    plain = [0] * lead + [0 if n == 1 and d != 1 else k for n, d, k in zip(t.shape, domain.shape[lead:], own, strict=True)]
    if layout == C16:
        return [row, plain[0] * 16, *plain[1:], plain[0]]
    return [row, *plain]


def lies(v: Value) -> tuple[list[int], int, int]:
    """(strides of the static axes, elements from one row to the next, elements to the first) of a plain value in its buffer."""
    if v.inside is None:
        return strides_of(v.type.shape), math.prod(v.type.shape) if v.type.axes else 0, 0
    of, axis, first, stride = v.inside
    strides, row, offset = lies(of)
    offset += first * strides[axis]
    strides[axis] *= stride
    return strides, row, offset


# copies from strides to strides --------------------------------------------------------------------------------------------------


class Strided(NamedTuple):
    """A copy of elements: dims of the elements, strides of source and target over them, and the first element of each."""

    dims: tuple[int, ...]
    xs: list[int]
    ys: list[int]
    x0: int = 0
    y0: int = 0


def moved(s: Step, sizes: dict) -> Strided:
    """The copy that a `transpose`, `take` or `put` is; the rest of what `put` gives is 0."""
    x, y, a = s.inputs[0], s.outputs[0], s.node.attrs
    xs, ys = strides_of(shape(x, sizes)), strides_of(shape(y, sizes))
    if s.node.name == "transpose":
        perm = [0] + [p % len(x.type.shape) + 1 for p in a["perm"]]
        return Strided(shape(y, sizes), [xs[p] for p in perm], ys)
    i = a["axis"] + 1
    strides = xs if s.node.name == "take" else ys
    first = a["first"] * strides[i]
    strides[i] *= a["stride"]
    return Strided(shape(y, sizes), xs, ys, first) if strides is xs else Strided(shape(x, sizes), xs, ys, 0, first)


def joined(s: Step, sizes: dict) -> list[tuple[Value, Strided]]:
    """The copies that a `concat` is, one for each operand that was not written where it goes."""
    y = s.outputs[0]
    i, ys, at = s.node.attrs["axis"] + 1, strides_of(shape(y, sizes)), 0
    found = []
    for v in s.node.inputs:
        d = shape(v, sizes)
        if v.inside is None or v.inside.of is not y:
            found.append((v, Strided(d, strides_of(d), ys, 0, at * ys[i])))
        at += d[i]
    return found


# pointwise programs --------------------------------------------------------------------------------------------------------------

_REDUCTIONS = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod"}


def program_of(s: Step) -> tuple[list[tuple], list[str], list[int], bool]:
    """(instructions, kind of each operand, register of each result, whether it draws random numbers) of a pointwise step.

    Registers 0 .. n-1 are the n inputs of a segment. Instructions: (op, register, operands ...), ('const', register, number), ('rand' or
    'randn', register, purpose). Kinds: 'in', 'out', 'sum', 'max', 'min', 'prod'.
    """
    register = {v: i for i, v in enumerate(s.segment_inputs)}
    program: list[tuple] = []
    kinds = ["in"] * len(register)
    stored = set(s.segment_outputs)
    free = len(register)
    random = False
    for n in s.nodes:
        out = n.outputs[0]
        if n.name in _REDUCTIONS:
            continue
        if n.name == "expand" and out not in stored:
            register[out] = register[n.inputs[0]]
            continue
        register[out] = free
        if n.name == "fill":
            program.append(("const", free, n.attrs["value"]))
        elif n.name in ("rand", "randn"):
            program.append((n.name, free, n.attrs["purpose"]))
            random = True
        else:
            program.append(("copy" if n.name == "expand" else n.name, free, *(register[v] for v in n.inputs)))
        free += 1
    outputs = []
    for v in s.segment_outputs:
        n = v.producer
        kinds.append(_REDUCTIONS.get(n.name, "out"))
        outputs.append(register[n.inputs[0] if n.name in _REDUCTIONS else v])
    return program, kinds, outputs, random


def segments_of(s: Step, sizes: dict) -> tuple[list[tuple], list[Any], list[list[int]], list[int]]:
    """(segments, buffers, index strides, flow) of a pointwise step.

    A segment is (dims, strides of each operand over them in elements, 0 where it is broadcast or reduced). Index strides: of dims 1.. of an
    element's number in its row; flow: how many random numbers a step of a segment without rows has, 0 where there are rows.
    """
    segments, buffers, index, flow = [], [], [], []
    for segment in s.segments:
        values = [*segment.segment_inputs, *segment.segment_outputs]
        layouts = [s.layouts[v] for v in values]
        layout = C16 if C16 in layouts else PLAIN
        dims = dims_of(segment.domain, sizes, layout)
        segments.append((dims, [strides_in(v, segment.domain, layout, of) for v, of in zip(values, layouts, strict=True)]))
        buffers += [(v, of, lies(v)[2] * v.type.dtype.itemsize) for v, of in zip(values, layouts, strict=True)]
        plain = strides_of(segment.domain.shape)
        index.append([plain[0] * 16, *plain[1:], plain[0]] if layout == C16 else plain)
        flow.append(0 if segment.domain.axes else math.prod(segment.domain.shape))
    return segments, buffers, index, flow
