"""Switches of the process that CNTK has under `debugging`."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from cogkit.debugging.profiler import Profiler
from cogkit.engine.seeding import set_seed
from cogkit.engine.watch import Observer, Running, observers
from cogkit.errors import here
from cogkit.functions import Function
from cogkit.lowering.steps import Step

__all__ = ["force_deterministic", "save_as_legacy_model", "set_computation_network_trace_level", "set_node_timing"]


def force_deterministic(seed: int) -> None:
    """Sets the one seed. Kernels are deterministic anyway, recurrences too: departure from CNTK, where those are not."""
    set_seed(seed)


def save_as_legacy_model(root_op: Function, filename: str | os.PathLike) -> None:
    """Writes a model, in the one form that cogkit has: departure from CNTK, which has an older one."""
    root_op.save(os.fspath(filename))


class _Tracer(Observer):
    """Prints what plans are made of, and with a higher level what they compute."""

    def __init__(self, level: int):
        self.level = level
        self.seen: dict[int, Any] = {}

    def begin(self, running: Running) -> None:
        """Prints a plan that is new."""
        if id(running.plan) not in self.seen:
            self.seen[id(running.plan)] = running.plan
            for step in running.plan.steps:
                print(f"{_title(step)}: {', '.join(str(v.type) for v in step.outputs)}", file=sys.stderr)

    def after(self, running: Running, step: Step, number: int, start: float, end: float) -> None:
        """Prints sums of magnitudes, or whole values."""
        if self.level < 1000:
            return
        for v, layout in running.layouts(step)[1]:
            a = running.array(v, layout)
            if a is not None:
                text = f"\n{a}" if self.level >= 1_000_000 else f" sum of magnitudes {np.abs(a.astype(np.float64)).sum():.9g}"
                print(f"{_title(step)} %{v.number}:{text}", file=sys.stderr)


def _title(step: Step) -> str:
    o = step.node.origin
    place = step.node.name if o is None else o.label + (f" '{o.name}'" if o.name else "") + (f" ({o.where})" if o.where else "")
    return f"{place} {'backward' if step.node.backward else 'forward'}"


_tracers: list[_Tracer] = []


def set_computation_network_trace_level(level: int) -> None:
    """What is printed, to stderr, of everything that runs.

    level: 0 nothing; from 1 the instructions of each new plan; from 1000 also the sum of magnitudes of all that each writes, in every run; from
    1000000 the values themselves.
    """
    if level < 0:
        raise ValueError(here(f"set_computation_network_trace_level: expected a level of 0 or more, got {level}"))
    while _tracers:
        observers.remove(_tracers.pop())
    if level:
        _tracers.append(_Tracer(level))
        observers.append(_tracers[0])


_timers: list[Profiler] = []


def set_node_timing(enable: bool) -> None:
    """Measures each instruction of all that runs; `Trainer.print_node_timing` then prints the table."""
    if enable and not _timers:
        _timers.append(Profiler(0))
        observers.append(_timers[0])
    elif not enable and _timers:
        observers.remove(_timers.pop())
