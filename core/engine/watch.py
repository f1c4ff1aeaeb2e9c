"""Looking on while plans run. While anybody does, plans of the CPU run call by call; else nothing of this costs anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN, holder
from cogkit.lowering.steps import Step

if TYPE_CHECKING:
    from cogkit.engine.plan import Plan

__all__ = ["Observer", "Running", "observers", "watched_table", "watching"]


class Running(NamedTuple):
    """One run of a plan: its binding, rows of row spaces, and what random numbers depend on."""

    plan: Plan
    binding: Any
    sizes: dict
    run: Any

    def layouts(self, step: Step) -> tuple[list[tuple[Value, str]], list[tuple[Value, str]]]:
        """The values that a step reads and writes, with their formats."""
        if step.kind == "reorder":
            return [(step.inputs[0], step.attrs["source"])], [(step.inputs[0], step.attrs["target"])]
        if step.kind == "assign":
            return [(step.inputs[1], step.layouts[step.inputs[1]])], [(step.inputs[0], PLAIN)]
        if step.kind == "save":
            return [(step.inputs[0], PLAIN)], []
        return [(v, step.layouts[v]) for v in step.inputs], [(v, step.layouts[v]) for v in step.outputs]

    def array(self, v: Value, layout: str = PLAIN) -> np.ndarray | None:
        """The memory of a value, (rows, *shape) where its format is plain, flat where not; None for sparse values and those without memory."""
        storage = self.plan.stores.get(holder(v, layout))
        if v.sparse or storage is None:
            return None
        address, size = self.binding.at[id(storage)], storage.bytes(self.sizes)
        flat = self.plan.peek(address, size).view(v.type.dtype)
        if layout != PLAIN:
            return flat
        from cogkit.engine.geometry import lies  # (whoever imports the face has no need of kernels yet)

        rows = (int(self.sizes[v.type.axes]),) if v.type.axes else ()
        strides, row, first = lies(v)
        step = v.type.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[first:], (*rows, *v.type.shape), (*((row * step,) if rows else ()), *(s * step for s in strides))
        )


class Observer:
    """Whoever looks on: is told of a run, then of each step before and after its calls."""

    def begin(self, running: Running) -> None:
        """Before a run."""

    def before(self, running: Running, step: Step) -> None:
        """Before the calls of a step."""

    def after(self, running: Running, step: Step, number: int, start: float, end: float) -> None:
        """After the calls of a step, the number-th of the plan; start and end by `time.perf_counter`."""

    def end(self, running: Running) -> None:
        """After a run that no error broke off."""

    def table(self) -> str:
        """What it has to say, as text; '' where nothing."""
        return ""


observers: list[Observer] = []


@contextmanager
def watching(observer: Observer) -> Iterator[Observer]:
    """Has an observer look on inside the `with` block."""
    observers.append(observer)
    try:
        yield observer
    finally:
        observers.remove(observer)


def watched_table() -> str:
    """What the observers have to say."""
    return "\n\n".join(filter(None, (o.table() for o in observers)))


def run_watched(running: Running) -> None:
    """Runs a bound plan call by call, telling the observers."""
    run, executor, clock = running.run, running.binding.executor, time.perf_counter
    told = list(observers)
    for o in told:
        o.begin(running)
    for number, (step, first, last) in enumerate(running.binding.first):
        for o in told:
            o.before(running, step)
        start = clock()
        for i in range(first, last):
            executor.run_one(i, run.seed, run.step, run.sample)
        end = clock()
        for o in told:
            o.after(running, step, number, start, end)
    for o in told:
        o.end(running)
