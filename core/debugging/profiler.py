"""Where time goes: a table with one row an instruction of a plan, and a trace in the JSON form that trace viewers of browsers open."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cogkit.engine.watch import Observer, Running, observers
from cogkit.errors import here
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.layout import holder
from cogkit.lowering.steps import Step
from cogkit.store.files import write_file_aside

__all__ = ["Profiler", "disable_profiler", "enable_profiler", "profile", "start_profiler", "stop_profiler"]

EVENT = 200  # bytes that an event takes, about
_COLUMNS = ("name", "op", "pass", "kernel", "place", "calls", "ms", "share", "MB", "GFLOP/s")


class _Row:
    """One instruction: its description, and what was measured."""

    def __init__(self, running: Running, step: Step):
        binding = running.binding
        nodes = [n for s in step.segments for n in s.nodes]
        o = step.node.origin
        self.name, self.op, self.where = (o.name, o.label, o.where) if o is not None else ("", step.node.name, "")
        self.backward = step.node.backward
        self.kernel = f"{step.kind} of {len(nodes)}" if step.kind == "pointwise" and len(nodes) > 1 else step.kind
        first = next((a for s, a, b in binding.first if s is step and b > a), None)
        implementation = "" if first is None else getattr(binding.calls[first], "implementation", "")
        if implementation:
            self.kernel += f" ({implementation})"
        self.calls, self.seconds, self.bytes, self.flops = 0, 0.0, 0, 0

    def add(self, seconds: float, size: int, flops: int) -> None:
        self.calls, self.seconds = self.calls + 1, self.seconds + seconds
        self.bytes, self.flops = self.bytes + size, self.flops + flops

    def record(self, whole: float) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            "pass": "backward" if self.backward else "forward",
            "kernel": self.kernel,
            "place": self.where,
            "calls": self.calls,
            "ms": self.seconds * 1e3,
            "share": self.seconds / whole if whole else 0.0,
            "MB": self.bytes / 1e6,
            "GFLOP/s": self.flops / self.seconds / 1e9 if self.flops and self.seconds else None,
        }


def flops_of(nodes: list[Node], sizes: dict) -> int:
    """Multiplications and additions of matrix products and convolutions, as a direct algorithm does them; in loops over all rows."""
    total = 0
    for n in nodes:
        if "body" in n.attrs:
            total += flops_of(n.attrs["body"].graph.nodes, sizes)
        elif n.name == "matmul":
            a, b = n.inputs
            m, k = reversed(a.type.shape) if n.attrs["ta"] else a.type.shape
            total += 2 * max(_rows(a, sizes), _rows(b, sizes)) * m * k * n.outputs[0].type.shape[1]
        elif n.name in ("conv", "conv_dx", "conv_dw"):
            y = {"conv": n.outputs[0], "conv_dx": n.inputs[0], "conv_dw": n.inputs[1]}[n.name]
            w = n.outputs[0] if n.name == "conv_dw" else n.inputs[1]
            total += 2 * _rows(y, sizes) * math.prod(y.type.shape) * math.prod(w.type.shape[1:])
    return total


def _rows(v: Value, sizes: dict) -> int:
    return int(sizes[v.type.axes]) if v.type.axes else 1


class Profiler(Observer):
    """Measures each instruction of each plan that runs while it looks on.

    events: how many the trace keeps; those beyond are counted in the table alone.
    """

    def __init__(self, events: int = 160_000):
        self.most = events
        self.kept: dict[tuple[int, int], tuple[Any, _Row]] = {}  # the plan is kept, so that its id is its own
        self.events: list[tuple[str, str, float, float, dict[str, Any]]] = []
        self.zero = time.perf_counter()
        self.runs = 0
        self._start = 0.0

    def begin(self, running: Running) -> None:
        """Before a run."""
        self._start = time.perf_counter()

    def after(self, running: Running, step: Step, number: int, start: float, end: float) -> None:
        """After the calls of a step."""
        key = id(running.plan), number
        found = self.kept.get(key)
        if found is None:
            found = self.kept[key] = running.plan, _Row(running, step)
        ins, outs = running.layouts(step)
        buffers = {id(s): s for s in (running.plan.stores.get(holder(v, layout)) for v, layout in (*ins, *outs)) if s is not None}
        size = sum(s.bytes(running.sizes) for s in buffers.values() if not s.value.sparse)
        row = found[1]
        row.add(end - start, size, flops_of([n for s in step.segments for n in s.nodes], running.sizes))
        self._event(
            row.name or row.op,
            "backward" if row.backward else "forward",
            start,
            end,
            {"kernel": row.kernel, "op": row.op, "place": row.where},
        )

    def end(self, running: Running) -> None:
        """After a run."""
        self.runs += 1
        self._event("plan", "plan", self._start, time.perf_counter(), {"instructions": len(running.binding.calls)})

    def _event(self, name: str, kind: str, start: float, end: float, facts: dict[str, Any]) -> None:
        if len(self.events) < self.most:
            self.events.append((name, kind, start, end, facts))

    # what it found -----------------------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """One record an instruction, the slowest first: name, op, pass, kernel, place, calls, ms, share, MB, GFLOP/s (None where not known)."""
        rows = [row for _, row in self.kept.values()]
        whole = sum(row.seconds for row in rows)
        return [row.record(whole) for row in sorted(rows, key=lambda row: -row.seconds)]

    def table(self) -> str:
        """The rows as text; MB read and written, GFLOP/s of matrix products and convolutions."""
        lines: list[tuple[str, ...]] = [_COLUMNS]
        for r in self.rows():
            rate = "" if r["GFLOP/s"] is None else f"{r['GFLOP/s']:.1f}"
            texts = [str(r[c]) for c in ("name", "op", "pass", "kernel", "place", "calls")]
            lines.append((*texts, f"{r['ms']:.3f}", f"{r['share']:.1%}", f"{r['MB']:.2f}", rate))
        widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
        return "\n".join(
            "  ".join(t.ljust(w) if i < 5 else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in lines
        )

    def trace(self) -> dict[str, Any]:
        """The trace: complete events with times in microseconds."""
        made = [
            {
                "name": name,
                "cat": kind,
                "ph": "X",
                "ts": round((start - self.zero) * 1e6, 3),
                "dur": round((end - start) * 1e6, 3),
                "pid": os.getpid(),
                "tid": 0,
                "args": facts,
            }
            for name, kind, start, end, facts in sorted(self.events, key=lambda e: (e[2], -e[3]))
        ]
        names = [{"name": "process_name", "ph": "M", "pid": os.getpid(), "tid": 0, "args": {"name": "cogkit"}}]
        return {"traceEvents": [*names, *made], "displayTimeUnit": "ms"}

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `profile.txt`, the table, and `trace.json`, the trace, into a folder."""
        os.makedirs(folder, exist_ok=True)
        for name, text in (("profile.txt", self.table() + "\n"), ("trace.json", json.dumps(self.trace(), separators=(",", ":")))):
            with write_file_aside(os.path.join(folder, name)) as file:
                file.write(text.encode())


@contextmanager
def profile(events: int = 160_000) -> Iterator[Profiler]:
    """Measures what runs inside the `with` block: `with profile() as p: ...; print(p.table()); p.save("folder")`."""
    made = Profiler(events)
    observers.append(made)
    try:
        yield made
    finally:
        observers.remove(made)


# CNTK's four calls: one profiler of the process, which looks on while it is enabled -------------------------------------------------

_active: list[tuple[Profiler, str]] = []


def start_profiler(dir: str = "profiler", sync_gpu: bool = True, reserve_mem: int = 32 * 1024 * 1024) -> None:
    """Makes the process' profiler, which looks on once enabled. dir: folder for its files; reserve_mem: bytes for events of the trace.

    Raises `ValueError` where one is there already.
    """
    if _active:
        raise ValueError(here("start_profiler: expected no profiler, got a second start; use stop_profiler first"))
    _active.append((Profiler(max(reserve_mem // EVENT, 1)), dir))


def enable_profiler() -> None:
    """Has the profiler look on. Raises `ValueError` where none was started."""
    if not _active:
        raise ValueError(here("enable_profiler: expected a profiler, got none; use start_profiler first"))
    if _active[0][0] not in observers:
        observers.append(_active[0][0])


def disable_profiler() -> None:
    """Has the profiler look away."""
    if _active and _active[0][0] in observers:
        observers.remove(_active[0][0])


def stop_profiler() -> None:
    """Writes what the profiler found to its folder, and ends it."""
    disable_profiler()
    if _active:
        made, folder = _active.pop()
        made.save(folder)
