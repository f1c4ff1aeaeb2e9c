"""Plans of the CPU engine."""

from __future__ import annotations

import ctypes
import time
from functools import partial
from typing import Any

import numpy as np

from cogkit.engine.cpu import loops, sparsity, users  # noqa: F401  (the kernels of recurrences, sparse values, user functions)
from cogkit.engine.cpu.kernels import TABLE, choose_formats
from cogkit.engine.executor import Executor
from cogkit.engine.plan import Binding, Plan
from cogkit.engine.sparse import RowSparse, csr_matrix_at
from cogkit.engine.watch import Running, observers, run_watched
from cogkit.lowering.ir import Graph, Value
from cogkit.lowering.layout import PLAIN, root_of
from cogkit.lowering.sparse import ROWS
from cogkit.lowering.steps import Step
from cogkit.residence import bring, elsewhere
from cogkit.variables import aligned_empty

__all__ = ["CpuPlan"]


def rows_read(graph: Graph) -> list[tuple[Any, list[Any]]]:
    """The variables that a graph reads, each with the sparse inputs that name the rows that it reads; none where it may read any.

    An update of rows itself knows what it reads.
    """
    readers: dict[Value, list[Any]] = {v: [None] for v in graph.outputs}
    for n in graph.nodes:
        for v in n.inputs:
            readers.setdefault(v, []).append(n)

    def naming(v: Value) -> list[Any]:
        """The leaves that name the rows which the readers of a value want; None among them for all rows."""
        found: list[Any] = []
        for n in readers.get(v, ()):
            if n is not None and n.op.kernel == "view":
                found += naming(n.outputs[0])
            elif n is not None and n.name == "csr_times" and not n.attrs["tb"] and n.inputs[1] is v:
                a = n.inputs[0].producer
                while a.inputs and a.inputs[0].sparse:  # rows of a are some of those
                    a = a.inputs[0].producer
                found.append(a.leaf)
            else:
                found.append(None)
        return found

    out = []
    for n in graph.nodes:
        v = n.outputs[0]
        if n.op is None and (n.leaf.kind in ("Parameter", "Constant")) and v.type.shape and not v.sparse:
            if all(r is not None and r.name == "update_rows" for r in readers.get(v, ())):
                continue
            leaves = naming(v)
            out.append((n.leaf, [] if None in leaves else list(dict.fromkeys(leaves))))
    return out


class CpuPlan(Plan):
    """Runs a lowered graph with the kernels of the CPU engine."""

    table = TABLE
    choose_formats = staticmethod(choose_formats)
    executor = Executor

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.rows_read = rows_read(graph)

    def empty(self, size: int) -> np.ndarray:
        """Memory of so many bytes."""
        return aligned_empty((size,), np.dtype(np.uint8))

    def address(self, memory: np.ndarray) -> int:
        """The address of such memory."""
        return memory.ctypes.data

    def peek(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address."""
        return np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8) if size else np.empty(0, np.uint8)

    def place(self, variable: Any) -> int:
        """The address of a parameter's or constant's value."""
        return variable.place.ctypes.data

    def run(self, feeds: dict[Any, np.ndarray], sizes: dict, run: Any) -> list[np.ndarray]:
        """The arrays of the graph's outputs. feeds: variable -> array; sizes: row space -> rows; run: seed, step, sample."""
        with self.lock:
            if elsewhere:  # values that another engine has newer
                for v in self.variables:
                    bring(v.place, v in self.written)
            b = self.binding(sizes)
            self._bind(b, feeds)
            for call in self.users:
                call.begin()
            for variable, fed in self.rows_read:
                for lag in variable.lags:
                    for rows in [feeds[v].indices for v in fed] or [None]:
                        lag.settle(rows)
            early = [self.fetch(b, self.graph.outputs[i], feeds, sizes, False) for i in self.early]
            if observers:
                run_watched(Running(self, b, sizes, run))
            else:
                told = () if run.arrivals is None else self.announced(b, run.arrivals, sizes)
                b.executor.run(run.seed, run.step, run.sample, told)
            found = [self.fetch(b, v, feeds, sizes, False) for v in self.graph.outputs[: self.kept]]
            if b.kept is None or not self.all_outputs:
                b.kept = [self.fetch(b, v, feeds, sizes, True) for v in self.graph.outputs[self.kept :]]
            found += b.kept
            for i, array in zip(self.early, early, strict=True):
                found[i] = array
            return found

    def announced(self, b: Binding, arrivals: Any, sizes: dict) -> list[tuple[int, Any]]:
        """What the executor calls when outputs are ready, for whoever wants to be told; see `Run.arrivals`."""
        if b.coming is None:
            b.coming = [
                (calls, [(i, self.fetch(b, self.graph.outputs[i], {}, sizes, True)) for i in those]) for calls, those in b.order()
            ]
            b.coming_order = tuple(tuple(i for i, _ in those) for _, those in b.coming)
        told, begin = [], 0
        for k in arrivals.begin(b.coming_order):
            calls = b.coming[k][0]
            those = [one for _, ones in b.coming[begin : k + 1] for one in ones]
            told.append((calls, partial(arrivals.come, those, calls / len(b.calls))))
            begin = k + 1
        return told

    def fetch(self, b: Binding, v: Value, feeds: dict, sizes: dict, own: bool) -> np.ndarray:
        """The array of an output."""
        s = self.stores[root_of(v), PLAIN]
        shape = ((sizes[v.type.axes],) if v.type.axes else ()) + v.type.shape
        if v.sparse == ROWS:
            made = RowSparse.of_plan(b.outputs[id(s)], v.type.shape, v.type.dtype, b)
            return made if own else made.copy()
        if v.sparse:
            if s.kind == "output":
                found = csr_matrix_at(b.outputs[id(s)], v.type.shape[-1], v.type.dtype)
            else:
                found = (feeds[s.leaf] if s.kind == "feed" else s.leaf.data).matrix()
            return found if len(shape) == 2 else found.toarray().reshape(shape)
        if s.kind == "feed":
            return feeds[s.leaf].reshape(shape).copy()
        if s.kind == "variable":
            return s.leaf.data.reshape(shape).copy()
        array = b.outputs[id(s)][: s.bytes(sizes)].view(v.type.dtype).reshape(shape)
        return array if own else array.copy()

    def profile(
        self, feeds: dict[Any, np.ndarray], sizes: dict, run: Any, clock: Any = time.perf_counter
    ) -> list[tuple[float, Step]]:
        """Runs once and gives the seconds of each call with its step."""
        b = self.binding(sizes)
        self._bind(b, feeds)
        return list(zip(b.executor.profile(run.seed, run.step, run.sample, clock), b.steps, strict=True))

    def _bind(self, b: Binding, feeds: dict[Any, Any]) -> None:
        b.bind(self.arena, {f.leaf: feeds[f.leaf].__array_interface__["data"][0] for f in self.feeds})
