"""The table of the CUDA engine, and what its makers are written with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit.engine.cuda import images
from cogkit.engine.cuda.driver import SLOT_SCRATCH, B, Copy, Launch, Memset
from cogkit.engine.table import KernelTable
from cogkit.lowering.layout import PLAIN
from cogkit.lowering.steps import Step

__all__ = ["CONTEXT", "SCRATCH", "TABLE", "B", "Call", "Copy", "HALF_FORMS", "Host", "Memset", "Table", "blob", "blocks", "choose_formats",
           "f32", "f64", "fits", "i32", "i64", "io", "kernel", "launch", "merged", "space"]  # fmt: skip

TABLE = KernelTable("cuda")
kernel, fits = TABLE.kernel, TABLE.fits
# Kernels that take half precision: they move bytes.
HALF_FORMS = frozenset({"stop", "reshape", "transpose", "take", "concat", "move_rows"})
i64, i32, f32, f64 = np.int64, np.int32, np.float32, np.float64
SCRATCH = B(SLOT_SCRATCH)
MAX_DIMS = 12  # of a Space in common.cuh
MOST_BLOCKS = 132 * 16  # of a grid-stride loop: a few for each multiprocessor of the largest GPUs


def choose_formats(step: Step, formats: Any) -> tuple[list[str], list[str]]:
    """Plain everywhere."""
    return [PLAIN] * len(step.inputs), [PLAIN] * len(step.outputs)


class _Context:
    """Argument of a launch: the address of the run's seed, step and first sample on the device."""

    @property
    def address(self) -> int:
        from cogkit.engine.cuda.device import current

        return current().context_address


CONTEXT = _Context()


class Table:
    """Argument of a launch: an array that is put on the device once and stays as long as the call."""

    def __init__(self, array: Any):
        from cogkit.engine.cuda.device import current

        self.memory = current().constant(np.ascontiguousarray(array))
        self.address = self.memory.address


class Call:
    """The launches of one step, in order. scratch: bytes that they want, at the address of `SCRATCH`."""

    def __init__(self, nbuf: int, launches: Sequence[Any], scratch: int = 0):
        self.nbuf, self.items = nbuf, list(launches)
        self.scratch = scratch or max((getattr(i, "scratch", 0) for i in self.items), default=0)
        self.checks: list[Any] = []  # asked after a run for errors that kernels have noted: `check()` gives one or None
        self.counts: tuple[int, ...] | None = None  # rows that it was made for, where it depends on no more of the row spaces

    @property
    def implementation(self) -> str:
        """What runs, for `explain`."""
        return " ".join(repr(i) if isinstance(i, Launch) else i.name for i in self.items)

    def set_buffers(self, addresses: Sequence[int]) -> None:
        """Binds the buffers, and scratch behind them where it is wanted."""
        found = list(addresses)
        for i in self.items:
            i.set_buffers(found)

    def clone(self) -> Call:
        """Another call of the same with buffers of its own."""
        return Call(self.nbuf, [i.clone() for i in self.items], self.scratch)


class Host:
    """An item of a call that the host runs: f(arrays in, arrays out), copied from and to the device; for functions of the user's.

    inputs, outputs: (shape, element type) of the buffers, inputs first.
    """

    name = "host"

    def __init__(self, f: Any, inputs: Sequence[tuple], outputs: Sequence[tuple]):
        self.f, self.inputs, self.outputs = f, list(inputs), list(outputs)
        self.addresses: list[int] = []

    def set_buffers(self, addresses: Sequence[int]) -> None:
        """Binds the buffers."""
        self.addresses = list(addresses)

    def host(self, stream: int) -> None:
        """Waits for the stream, runs, and puts the results where they go."""
        from cogkit.engine.cuda.device import current

        device = current()
        given = [device.read(a, s, t) for a, (s, t) in zip(self.addresses, self.inputs, strict=False)]
        made = [np.empty(s, t) for s, t in self.outputs]
        self.f(given, made)
        for a, x in zip(self.addresses[len(self.inputs) :], made, strict=False):
            device.write(a, x)


def launch(family: str, name: str, grid: Any, block: Any, args: Sequence[Any], shared: int = 0) -> Launch:
    """One launch of a kernel of a family's file."""
    grid, block = ((x,) if isinstance(x, (int, np.integer)) else tuple(x) for x in (grid, block))
    return Launch(f"{family}.{name}", images.function(family, name), grid, block, args, shared)


def blob(data: Any) -> bytes:
    """A struct by value: bytes as they are, an array's bytes, or 64-bit numbers of a sequence."""
    return data if isinstance(data, bytes) else np.asarray(data, None if isinstance(data, np.ndarray) else np.int64).tobytes()


def blocks(n: int, block: int = 256) -> int:
    """Blocks of a grid-stride loop over n elements."""
    return max(1, min(-(-n // block), MOST_BLOCKS))


def merged(dims: Sequence[int], x: Sequence[int], y: Sequence[int]) -> list[list[int]]:
    """(size, stride, stride) of dims: those of size 1 dropped, neighbours joined where both operands allow it."""
    kept: list[list[int]] = []
    for d, a, b in zip(dims, x, y, strict=True):
        if d == 1:
            continue
        if kept and kept[-1][1] == a * d and kept[-1][2] == b * d:
            kept[-1] = [kept[-1][0] * d, a, b]
        else:
            kept.append([d, a, b])
    return kept


def space(dims: Sequence[int], x: Sequence[int], y: Sequence[int], x0: int = 0, y0: int = 0) -> bytes:
    """A `Space` of common.cuh."""
    kept = merged(dims, x, y)
    if len(kept) > MAX_DIMS:
        raise ValueError(f"cuda engine: expected at most {MAX_DIMS} axes, got {len(kept)}")
    out = np.zeros(2 + 3 * MAX_DIMS + 2, np.int64)
    out[0], out[1] = math.prod(dims), len(kept)
    for i, (d, a, b) in enumerate(kept):
        out[2 + i], out[2 + MAX_DIMS + i], out[2 + 2 * MAX_DIMS + i] = d, a, b
    out[-2:] = x0, y0
    return out.tobytes()


def io(s: Step) -> list[Any]:
    """The buffers of a step: inputs, then outputs."""
    return [(v, s.layouts[v]) for v in (*s.inputs, *s.outputs)]
