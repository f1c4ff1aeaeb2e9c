"""Recurrences on the GPU: the step body of a loop as a small plan, whose commands are made once for each number of rows that a step has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cogkit.engine.cuda.driver import Commands
from cogkit.engine.cuda.loop_steps import Body, Steps
from cogkit.engine.cuda.table import SCRATCH, TABLE, B, Call, Table, blocks, choose_formats, i64, io, kernel, launch
from cogkit.engine.executor import place_buffers
from cogkit.engine.geometry import rows
from cogkit.engine.table import Made
from cogkit.lowering.fuse import fuse
from cogkit.lowering.ir import Node, Value
from cogkit.lowering.layout import PLAIN, assign_layouts, holder
from cogkit.lowering.memory import place
from cogkit.lowering.steps import Step

__all__ = ["LoopPlan"]

Slot = tuple[int, int, int]  # (base, bytes to the next row, bytes to the first element) of a buffer


class LoopPlan:
    """The step body of one loop node: its steps, where their values lie, and its commands by number of rows.

    Bases are the buffers of the loop, the body's own values, scratch of its commands, and places for values of other steps; -1 - i is what
    the i-th value of another step was.
    """

    def __init__(self, node: Node):
        self.body = body = node.attrs["body"]
        outputs = body.graph.outputs
        self.steps, self.stores = place(assign_layouts(fuse(body.graph), outputs, choose_formats), outputs)
        self.buffers = len(node.inputs) + len(outputs)
        self.number = {v.producer.leaf: i for i, v in enumerate(body.inputs)}
        self.number |= {leaf.producer.leaf: -1 - i for i, (leaf, _, _) in enumerate(body.carried)}
        self.output = {id(self.stores[v, PLAIN]): len(node.inputs) + j for j, v in enumerate(outputs)}
        self.own = list({id(s): s for s in self.stores.values() if s.kind == "arena" and id(s) not in self.output}.values())
        self.place = {s: self.buffers + i for i, s in enumerate(self.own)}
        self.scratch = self.buffers + len(self.own)
        self.commands = Body()
        self.room: dict[int, int] = {}  # bytes of scratch that the commands of a step of so many rows want
        self.hosts: dict[int, list[tuple[Any, list[Slot]]]] = {}  # where the host has a part in it
        self.checks: dict[Any, None] = {}

    def sliced(self, v: Value) -> bool:
        """Whether a value is read at the rows of a step."""
        return v.type.axes == self.body.axes

    def slot(self, v: Value, layout: str, offset: int = 0) -> Slot:
        """Where a value lies."""
        s = self.stores[holder(v, layout)]
        step = s.per_row * s.itemsize if self.sliced(s.value) else 0
        if id(s) in self.output:
            return self.output[id(s)], step, offset
        if s.kind == "arena":
            return self.place[s], 0, offset
        base = self.number[s.leaf]
        return base, step if base >= 0 else 0, offset

    def program(self, n: int, sizes: dict) -> None:
        """Makes the commands of a step of n rows, once."""
        if n in self.room:
            return
        inside = {**sizes, self.body.axes: n}
        items, room = [], 0
        for s in self.steps:
            made = TABLE.make(s, inside)
            for call, buffers in made if isinstance(made, list) else [] if made is None else [made]:
                slots = [*(self.slot(*b) for b in buffers), (self.scratch, 0, 0)]
                settle(call, slots)
                items += [(item, slots) for item in call.items]
                self.checks |= dict.fromkeys(call.checks)
                room = max(room, call.scratch)
        hosted = any(hasattr(item, "host") for item, _ in items)
        if hosted:
            self.hosts[n] = items
        self.commands.add(n, [] if hosted else items)
        self.room[n] = room

    def bind(self, sizes: dict) -> Call:
        """The call of the loop over a row space."""
        space, body = sizes[self.body.axes], self.body
        alive = space.alive.tolist()
        most = alive[0]
        for n in dict.fromkeys(alive):
            self.program(n, sizes)
        inside = {**sizes, body.axes: most}
        offsets, peak = place_buffers(
            [s.bytes(inside) for s in self.own], [s.first for s in self.own], [s.last for s in self.own]
        )
        scratch = _lines(peak) + _lines(max(self.room[n] for n in set(alive)))
        bases = [(i, 0) for i in range(self.buffers)] + [(SCRATCH.slot, at) for at in [*offsets, _lines(peak)]]
        carries = []
        for _, v, shift in body.carried:
            source, row_bytes, _ = self.slot(v, PLAIN)
            apart = any(0 <= t - shift < len(alive) and alive[t - shift] < n for t, n in enumerate(alive))
            words = most * row_bytes // 4
            copy = launch("sequences", "carry", blocks(words), 256, [B(0), B(1), i64(0), i64(0)])
            carries.append((source, shift, row_bytes, len(bases) if apart else -1, copy))
            if apart:
                bases.append((SCRATCH.slot, scratch))
                scratch += _lines(most * row_bytes)
        zeros = Table(np.zeros(_power(max((c[2] for c in carries), default=0) * most), np.uint8))
        steps = Steps(self.commands, alive, space.offset.tolist(), body.forward, bases, carries, zeros)
        call = Call(self.buffers, [HostedSteps(self, steps, alive)] if self.hosts else [steps], scratch)
        call.checks = list(self.checks)
        return call


class HostedSteps:
    """The steps of a loop in which the host has a part: it puts them on the stream one by one."""

    name = "host's loop"

    def __init__(self, plan: LoopPlan, steps: Steps, alive: list[int]):
        self.plan, self.steps, self.alive = plan, steps, alive

    def set_buffers(self, addresses: list[int]) -> None:
        """Binds the buffers of the loop, scratch last."""
        self.steps.set_buffers(addresses)

    def clone(self) -> HostedSteps:
        """Another one with buffers of its own."""
        return HostedSteps(self.plan, self.steps.clone(), self.alive)

    def host(self, stream: int) -> None:
        """Runs all steps."""
        for t in range(len(self.alive)) if self.plan.body.forward else range(len(self.alive) - 1, -1, -1):
            self.steps.carry(t, stream)
            for item, slots in self.plan.hosts[self.alive[t]]:
                item.set_buffers([self.steps.at(t, *slot) for slot in slots])
                Commands([item]).run(stream)


def settle(call: Call, slots: list[Slot]) -> None:
    """Gives a call addresses that are aligned no better than any it will get, so that libraries choose ways which suit all steps."""
    somewhere = 1 << 40
    call.set_buffers([somewhere + math.gcd(64, row_bytes) + offset for _, row_bytes, offset in slots])


def _lines(n: int) -> int:
    return (n + 63) // 64 * 64


def _power(n: int) -> int:
    return 1 << max(n - 1, 255).bit_length()


@kernel("loop")
def _loop(s: Step, sizes: dict) -> Made:
    if rows(s.node.outputs[0].type, sizes) == 0:
        return None
    if "plan" not in s.attrs:
        s.attrs["plan"] = LoopPlan(s.node)
    return s.attrs["plan"].bind(sizes), io(s)
