"""Recurrences on the CPU: the step body of a loop as a small plan, whose calls are made once for each number of rows that a step has."""

from __future__ import annotations

from typing import Any

from cogkit.engine.cpu.kernels import choose_formats, fits, kernel, make
from cogkit.engine.cpu.rows import Pack, RowProduct, packed_bytes
from cogkit.engine.cpu.steps import Loop
from cogkit.engine.executor import place_buffers
from cogkit.engine.geometry import code, rows
from cogkit.engine.table import Buffers
from cogkit.lowering.fuse import fuse
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.layout import PLAIN, assign_layouts, holder
from cogkit.lowering.memory import place
from cogkit.lowering.steps import Step

__all__ = ["LoopPlan"]


class LoopPlan:
    """The step body of one loop node: its steps, where their values lie, and its calls by number of rows."""

    def __init__(self, node: Node):
        self.body = body = node.attrs["body"]
        outputs = body.graph.outputs
        self.steps, self.stores = place(assign_layouts(fuse(body.graph), outputs, choose_formats), outputs)
        self.buffers = len(node.inputs) + len(outputs)
        self.number = {v.producer.leaf: i for i, v in enumerate(body.inputs)}
        self.output = {id(self.stores[v, PLAIN]): len(node.inputs) + j for j, v in enumerate(outputs)}
        # places in scratch: what was at other steps, the body's own values, packed weights
        carried = [v.producer.leaf for v, _, _ in body.carried]
        own = list({id(s): s for s in self.stores.values() if s.kind == "arena" and id(s) not in self.output}.values())
        self.own = own
        self.place = {leaf: self.buffers + i for i, leaf in enumerate(carried)}
        self.place |= {s: self.buffers + len(carried) + i for i, s in enumerate(own)}
        first = self.buffers + len(carried) + len(own)
        weights = dict.fromkeys(w for w in map(self.weights, self.steps) if w is not None)
        self.packed = {w: first + i for i, w in enumerate(weights)}
        self.calls: dict[int, list[tuple[Any, list[tuple[int, int, int]]]]] = {}
        self.bound: dict[int, int] = {}

    def sliced(self, v: Value) -> bool:
        """Whether a value is read at the rows of a step."""
        return v.type.axes == self.body.axes

    def weights(self, s: Step) -> tuple[Value, bool] | None:
        """The matrix that a product of a step's rows has on its right, and whether it lies transposed; None for other steps."""
        if s.node.name != "matmul":
            return None
        a, b = s.node.inputs
        fits = self.sliced(a) and not s.node.attrs["ta"] and not b.type.axes and b.producer.leaf in self.number
        return (b, s.node.attrs["tb"]) if fits else None

    def slot(self, v: Value, layout: str) -> tuple[int, int]:
        """(base, bytes to the next row) of a value in a format."""
        s = self.stores[holder(v, layout)]
        step = s.per_row * s.itemsize if self.sliced(s.value) else 0
        if id(s) in self.output:
            return self.output[id(s)], step
        if s.kind == "arena":
            return self.place[s], 0
        if s.leaf in self.place:
            return self.place[s.leaf], 0
        return self.number[s.leaf], step

    def slot_of(self, v: Value, at: Any, offset: int = 0) -> tuple[int, int, int]:
        """(base, bytes to the next row, bytes to the first element) of a call's buffer: a value in a format, or a base itself."""
        return (*self.slot(v, at), offset) if isinstance(at, str) else (at, 0, 0)

    def program(self, n: int, sizes: dict) -> list[tuple[Any, list[tuple[int, int, int]]]]:
        """The calls of a step of n rows with their slots, made once."""
        if n not in self.calls:
            inside = {**sizes, self.body.axes: n}
            found = []
            for s in self.steps:
                made = self.product(s, n) if self.weights(s) else make(s, inside)
                for call, buffers in made if isinstance(made, list) else [] if made is None else [made]:
                    found.append((call, [self.slot_of(*b) for b in buffers]))
            self.calls[n] = found
        return self.calls[n]

    def product(self, s: Step, n: int) -> Any:
        """The product of a step's rows with packed weights."""
        a, b = s.node.inputs
        m, k = a.type.shape
        call = RowProduct(
            n * m,
            k,
            s.node.outputs[0].type.shape[1],
            code(a),
            bias="bias" in s.attrs,
            relu=s.attrs.get("relu", False),
            add="added" in s.attrs,
        )
        buffers: list[tuple[Value, Any]] = [(a, PLAIN), (b, self.packed[b, s.node.attrs["tb"]])]
        return call, [*buffers, *((v, PLAIN) for v in s.inputs[2:]), (s.outputs[0], PLAIN)]

    def bind(self, sizes: dict) -> Loop:
        """The call of the loop over a row space."""
        space = sizes[self.body.axes]
        most = int(space.alive[0]) if space.steps else 0
        inside = {**sizes, self.body.axes: most}
        programs = {n: self.program(n, sizes) for n in set(map(int, space.alive))}
        at = 0
        places = []
        for v, _, _ in self.body.carried:
            places.append(at)
            at += _lines(most * self.row_bytes(v))
        offsets, peak = place_buffers(
            [s.bytes(inside) for s in self.own], [s.first for s in self.own], [s.last for s in self.own]
        )
        places += [at + o for o in offsets]
        at += _lines(peak)
        before = []
        for (b, turned), base in self.packed.items():
            k, n = reversed(b.type.shape) if turned else b.type.shape
            places.append(at)
            at += _lines(packed_bytes(k, n, code(b)))
            before.append((Pack(k, n, turned, code(b)), [self.number[b.producer.leaf], base]))
        places.append(at)
        room = max((c.scratch for calls in [*programs.values(), before] for c, _ in calls), default=0)
        carries = []
        for leaf, v, shift in self.body.carried:
            source, step = self.slot(v, PLAIN)
            carries.append((source, self.place[leaf.producer.leaf], step, 0, shift, self.row_bytes(v)))
        loop = Loop(self.buffers, places, max(at + room, 1), before, carries, self.bound)
        loop.most, loop.room = most, room
        for n, calls in programs.items():
            loop.program(n, calls)
        loop.layout(space.alive.tolist(), space.offset.tolist(), self.body.forward)
        return loop

    def fit(self, loop: Loop, sizes: dict) -> bool:
        """Takes a loop over to other sequences; False where it has no place for them."""
        space = sizes[self.body.axes]
        programs = {n: self.program(n, sizes) for n in set(map(int, space.alive)) if not loop.has(n)}
        if max(space.alive) > loop.most or any(c.scratch > loop.room for calls in programs.values() for c, _ in calls):
            return False
        for n, calls in programs.items():
            loop.program(n, calls)
        loop.layout(space.alive.tolist(), space.offset.tolist(), self.body.forward)
        return True

    @staticmethod
    def row_bytes(v: Value) -> int:
        """Bytes of one row of a value."""
        n = v.type.dtype.itemsize
        for d in v.type.shape:
            n *= d
        return n


def _lines(n: int) -> int:
    return (n + 63) // 64 * 64


@fits("loop")
def _fit_loop(call: Any, s: Step, sizes: dict) -> bool:
    return bool(s.attrs["plan"].fit(call, sizes))


@kernel("loop")
def _loop(s: Step, sizes: dict) -> tuple[Any, Buffers] | None:
    if "plan" not in s.attrs:
        s.attrs["plan"] = LoopPlan(s.node)
    if rows(s.node.outputs[0].type, sizes) == 0:
        return None
    return s.attrs["plan"].bind(sizes), [(v, s.layouts[v]) for v in (*s.inputs, *s.outputs)]
