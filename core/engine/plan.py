"""A plan: steps with formats and places, bound to an engine's kernels for each number of rows that is met."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.engine.executor import place_buffers
from cogkit.engine.table import KernelTable
from cogkit.engine.user import calls_of
from cogkit.lowering.fuse import fuse
from cogkit.lowering.ir import Graph, Node
from cogkit.lowering.layout import PLAIN, assign_layouts, holder, root_of
from cogkit.lowering.memory import Storage, place
from cogkit.lowering.sparse import CSR
from cogkit.lowering.steps import Step
from cogkit.op import row_space
from cogkit.ops.rows import has_steps

__all__ = ["Binding", "Plan"]

BINDINGS = 8  # numbers of rows whose kernels are kept


class Binding:
    """The calls of a plan for certain numbers of rows.

    Where rows are of sequences, of which each minibatch has others, one binding is taken over from minibatch to minibatch: calls are
    told their rows, and buffers stay where they are while they are large enough.
    """

    def __init__(self, plan: Plan, sizes: dict):
        self.plan = plan
        self.calls: list[Any] = []
        self.slots: list[list[tuple]] = []  # (storage, or with bytes to the first element) of each buffer
        self.steps: list[Step] = []
        self.first: list[tuple[Step, int, int]] = []  # the calls of each step
        if plan.table.prepare is not None:
            plan.table.prepare(plan.steps, sizes)
        for step in plan.steps:
            start = len(self.calls)
            for call, buffers in _listed(plan.table.make(step, sizes)):
                self.calls.append(call)
                self.slots.append([(plan.stores[holder(b[0], b[1])], *b[2:]) for b in buffers])
                self.steps.append(step)
            self.first.append((step, start, len(self.calls)))
        self.own = [b for b in plan.buffers if b.kind == "arena"]
        self.room = [0] * len(self.own)
        self.outputs: dict[int, Any] = {}
        self.executor = plan.executor(self.calls)
        feeds = {id(b) for b in plan.feeds}
        # the calls that read what is fed: their buffers are set again when the fed array is another one
        self.fed = [i for i, slots in enumerate(self.slots) if any(id(b[0]) in feeds for b in slots)]
        self.scratch = 0
        self.places: tuple = ()  # where variables lay when addresses were given, where they may move
        self.fresh: list[int] = []  # calls that have no addresses yet
        self.settle(sizes)

    def settle(self, sizes: dict) -> None:
        """Finds places for all buffers, where those that there are do not do."""
        self.sizes = dict(sizes)
        wanted = [b.bytes(sizes) for b in self.own]
        scratch = max((c.scratch for c in self.calls), default=0)
        if not self.outputs or scratch > self.scratch or any(w > r for w, r in zip(wanted, self.room, strict=True)):
            self.room = [max(w, r) for w, r in zip(wanted, self.room, strict=True)]
            self.scratch = max(scratch, self.scratch)
            offsets, peak = place_buffers(self.room, [b.first for b in self.own], [b.last for b in self.own])
            self.offset = {id(b): o for b, o in zip(self.own, offsets, strict=True)}
            self.scratch_at = peak
            self.bytes = peak + (self.scratch + 63) // 64 * 64
            self.arena: Any = None
            self.at: dict[int, int] = {}
        for b in self.plan.buffers:
            if b.kind == "output":  # gradients and sums have no rows: they lie in one place for all numbers of rows
                made = self.plan.rowless.get(id(b)) if not b.axes else self.outputs.get(id(b))
                if made is None or made.size < b.bytes(sizes):
                    made = self.plan.empty(b.bytes(sizes))
                    self.arena = None
                    if not b.axes:
                        self.plan.rowless[id(b)] = made
                self.outputs[id(b)] = made
        self.kept: list[np.ndarray] | None = None  # the plan's own arrays that `run` gives, made once
        self.coming: list[tuple[int, list[tuple[int, np.ndarray]]]] | None = None  # those of them that come while it runs
        self.coming_order: tuple[tuple[int, ...], ...] = ()

    def fit(self, sizes: dict) -> bool:
        """Takes the calls over to other numbers of rows; False where that needs other calls than there are."""
        fresh = False
        for step, start, end in self.first:
            if all(self.plan.table.fit(self.calls[i], step, sizes) for i in range(start, end)) and end > start:
                continue
            made = _listed(self.plan.table.make(step, sizes))
            if len(made) != end - start:
                return False
            for i, (call, _) in enumerate(made, start):
                self.calls[i] = call
                if self.arena is not None:
                    self.fresh.append(i)
                fresh = True
        if fresh:
            self.executor = self.plan.executor(self.calls)
        self.settle(sizes)
        return True

    def order(self) -> list[tuple[int, list[int]]]:
        """(calls, outputs) in the order in which outputs of the plan's own are ready: once so many calls are done nobody writes them."""
        plan, written = self.plan, {}
        for step, _, end in self.first:
            for v in step.outputs:
                at = step.attrs["target"] if step.kind == "reorder" else step.layouts.get(v, PLAIN)
                written[id(plan.stores.get(holder(v, at)))] = end
        found: dict[int, list[int]] = {}
        for i, v in enumerate(plan.graph.outputs[plan.kept :], plan.kept):
            s = plan.stores[root_of(v), PLAIN]
            if s.kind == "output" and not v.sparse and id(s) in written:
                found.setdefault(written[id(s)], []).append(i)
        return sorted(found.items())

    def bind(self, arena: Any, feeds: dict[Any, int]) -> None:
        """Gives every call its addresses. feeds: variable -> address of what is fed."""
        moved = arena is not self.arena
        if moved:
            self.arena = arena
            base = self.plan.address(arena)
            for b in self.plan.buffers:
                if b.kind == "arena":
                    self.at[id(b)] = base + self.offset[id(b)]
                elif b.kind == "output":
                    self.at[id(b)] = self.plan.address(self.outputs[id(b)])
                elif b.kind == "variable":
                    self.at[id(b)] = self.plan.place(b.leaf)
        changed = moved
        for b in self.plan.feeds:
            address = feeds[b.leaf]
            if self.at.get(id(b)) != address:
                self.at[id(b)] = address
                changed = True
        if changed or self.fresh:
            scratch = self.plan.address(arena) + self.scratch_at
            which: Any = range(len(self.calls)) if moved else {*self.fed, *self.fresh} if changed else self.fresh
            for i in which:
                call = self.calls[i]
                addresses = [self.at[id(b[0])] + sum(b[1:]) for b in self.slots[i]]
                call.set_buffers([*addresses, scratch] if call.scratch else addresses)
            self.fresh = []


def _listed(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [] if made is None else [made]


def written_by(n: Node) -> list[Any]:
    """The parameters and constants that a node writes."""
    if n.name == "assign":
        return [n.inputs[0].producer.leaf]
    leaves = [v.producer.leaf for v in n.inputs if v.producer.op is None]
    return [v for v in leaves if v.kind in ("Parameter", "Constant") and v.shape and not v.row_sparse] if n.op.writes else []


class Plan:
    """What plans of all engines that have kernels share: the steps of a lowered graph and their bindings.

    An engine gives `table` and `choose_formats`, memory (`empty`, `address`, `place`), `executor` and `run`.
    """

    table: KernelTable
    choose_formats: Any
    executor: Any  # calls -> what runs them

    def empty(self, size: int) -> Any:
        """Memory of so many bytes; it has a `size`."""
        raise NotImplementedError

    def address(self, memory: Any) -> int:
        """The address of such memory."""
        raise NotImplementedError

    def place(self, variable: Any) -> int:
        """The address of a parameter's or constant's value."""
        raise NotImplementedError

    def peek(self, address: int, size: int) -> np.ndarray:
        """The bytes that lie in the plan's memory: that memory itself, or a copy where it is a device's."""
        raise NotImplementedError

    def __init__(self, graph: Graph):
        self.graph = graph
        self.fused = fuse(graph)
        self.steps, self.stores = place(assign_layouts(self.fused, graph.outputs, type(self).choose_formats), graph.outputs)
        for v in graph.outputs:
            root = root_of(v)
            if (root, PLAIN) not in self.stores:
                leaf = root.producer.leaf
                kind = "output" if leaf is None else "feed" if leaf.is_input else "variable"
                self.stores[root, PLAIN] = Storage(root, kind, leaf)
        self.buffers: list[Storage] = list({id(b): b for b in self.stores.values()}.values())
        self.feeds = [b for b in self.buffers if b.kind == "feed"]
        self.variables = list(dict.fromkeys(b.leaf for b in self.buffers if b.kind == "variable"))
        self.written = list(dict.fromkeys(v for n in graph.effects for v in written_by(n)))
        self.bindings: OrderedDict[tuple, Binding] = OrderedDict()
        self.arena = self.empty(0)
        # of all values, also of those that are nowhere in memory: a sum over ones counts rows
        self.spaces: list[tuple] = list({v.type.axes: None for n in graph.nodes for v in n.outputs if v.type.axes})
        self.spaces += list({n.attrs["move"]: None for n in graph.nodes if n.attrs.get("move", ("",))[0] in ("pick", "unpick")})
        self.sequences = any(has_steps(a) for a in self.spaces)
        self.kept = len(graph.outputs)  # outputs from this one on are not copied
        self.leave = False
        self.rowless: dict[int, Any] = {}
        self.all_outputs = True
        # variables that are wanted: their values from before the run, which may write them
        self.early = [i for i, v in enumerate(graph.outputs) if self.stores[root_of(v), PLAIN].kind == "variable"]
        self.users = calls_of(graph)
        self.lock = threading.Lock()

    def keep_outputs(self, first: int, leave: bool = False) -> None:
        """From this output on, `run` gives the plan's own arrays, which the next run overwrites.

        leave: on a device their values stay there until `residence.bring`.
        """
        self.kept, self.leave = first, leave
        # what is fed, a variable or CSR is copied afresh at each run
        wanted = self.graph.outputs[first:]
        self.all_outputs = all(self.stores[root_of(v), PLAIN].kind == "output" and v.sparse != CSR for v in wanted)

    def binding(self, sizes: dict) -> Binding:
        """The calls for these numbers of rows; the least recently used are dropped."""
        key = tuple(getattr(sizes[a], "key", sizes[a]) for a in self.spaces)
        found = self.bindings.get(key)
        if found is None:
            if self.sequences and self.bindings:
                found = self.bindings.popitem()[1]
            if found is None or not found.fit(sizes):
                found = Binding(self, sizes)
            while len(self.bindings) >= BINDINGS:
                self.bindings.popitem(last=False)
            self.bindings[key] = found
        else:
            self.bindings.move_to_end(key)
        if self.arena.size < found.bytes:
            self.arena = self.empty(found.bytes)
        return found

    def explain(self, sizes: dict) -> str:
        """What will run: passes, instructions, formats, fused groups, buffers, peak memory."""
        b = self.binding(sizes)
        known = [(row_space(a), getattr(n, "rows", n)) for a, n in sizes.items() if a and isinstance(a[0], Axis)]
        lines = ["rows: " + (", ".join(f"{a} = {n}" for a, n in known) or "none"),
                 f"resolve, gradient: {len(self.graph.nodes)} nodes",
                 *("  " + repr(n) for n in self.graph.nodes),
                 f"fuse: {len(self.fused)} steps",
                 f"layout: {sum(s.kind == 'reorder' for s in self.steps)} reorders",
                 f"plan: {len(b.calls)} instructions"]  # fmt: skip
        for i, (call, step) in enumerate(zip(b.calls, b.steps, strict=True)):
            implementation = getattr(call, "implementation", "")
            lines.append(f"  {i:4d} {step!r}" + (f" <{implementation}>" if implementation else ""))
        lines.append("memory:")
        for s in sorted(self.buffers, key=lambda s: (s.kind, s.first)):
            place_ = f"at {b.offset[id(s)]:>10d}, steps {s.first} to {s.last}" if s.kind == "arena" else s.kind
            lines.append(f"  %{s.value.number:<6} {s.bytes(sizes):>12d} bytes  {place_}")
        held = sum(s.bytes(sizes) for s in self.buffers if s.kind in ("output", "variable"))
        lines.append(f"peak: arena {b.scratch_at} + scratch {b.scratch} + outputs and variables {held} = {b.bytes + held} bytes")
        return "\n".join(lines)
