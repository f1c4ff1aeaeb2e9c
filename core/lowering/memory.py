"""Pass 6, memory: where each value lives, and from which step to which. Sizes come later, with the number of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cogkit.lowering.ir import Value
from cogkit.lowering.layout import PLAIN, holder, root_of
from cogkit.lowering.sparse import CSR, csr_bytes, list_bytes
from cogkit.lowering.steps import Step

__all__ = ["SAVED", "Storage", "place"]

SAVED = "saved"  # the format of a variable's value from before this run, put aside


class Storage:
    """A buffer of a plan. kind: 'feed', 'variable', 'output' (kept between runs) or 'arena'. first, last: steps that write and last read it."""

    __slots__ = ("axes", "first", "itemsize", "kind", "last", "leaf", "per_row", "value")

    def __init__(self, value: Value, kind: str, leaf: Any = None):
        t = value.type
        self.value, self.kind, self.leaf = value, kind, leaf
        self.axes, self.per_row, self.itemsize = t.axes, math.prod(t.shape), t.dtype.itemsize
        self.first, self.last = 1 << 60, -1

    def bytes(self, sizes: dict) -> int:
        """Its size for given numbers of rows; of a list of rows for sizes["list", value] entries."""
        shape = self.value.type.shape
        if self.value.sparse == CSR:
            return csr_bytes(math.prod(shape[:-1]) * (sizes[self.axes] if self.axes else 1), self.itemsize)
        if self.value.sparse:
            return list_bytes(sizes.get(("list", self.value), 0), shape, self.itemsize)
        return self.per_row * self.itemsize * (sizes[self.axes] if self.axes else 1)


def place(steps: list[Step], outputs: Sequence[Value]) -> tuple[list[Step], dict[tuple[Value, str], Storage]]:
    """The steps that remain, and the storage of each (value, format).

    An assignment whose value a program computes is done by that program, in place, when nobody reads the variable later; the others are copies
    at the end. A program writes over an input that dies with it. Of several assignments to one variable the last one counts.
    """
    assigns = sorted((s for s in steps if s.kind == "assign"), key=lambda s: s.node.serial)
    last = {root_of(s.inputs[0]): s for s in assigns}
    assigns = [s for s in assigns if last[root_of(s.inputs[0])] is s]
    # a variable that another one is set to, and that is set itself: what it held before is put aside
    held = {root_of(a.inputs[1]): a for a in assigns if root_of(a.inputs[1]) in last}
    steps = [Step("save", [a.node], [v], [v]) for v, a in held.items()] + [s for s in steps if s.kind != "assign"]
    stores: dict[tuple[Value, str], Storage] = {}
    wanted = {root_of(v) for v in outputs}

    def storage(v: Value, layout: str) -> Storage:
        k = holder(v, layout)
        if k not in stores:
            root = k[0]
            if root.producer.op is None:
                kind = ("feed" if root.producer.leaf.is_input else "variable") if layout == PLAIN else "arena"
                stores[k] = Storage(root, kind, root.producer.leaf)
            else:
                stores[k] = Storage(root, "output" if root in wanted and layout == PLAIN else "arena")
        return stores[k]

    def layouts(s: Step) -> tuple[list[tuple[Value, str]], list[tuple[Value, str]]]:
        if s.kind == "reorder":
            v = s.inputs[0]
            return [(v, s.attrs["source"])], [(v, s.attrs["target"])]
        if s.kind == "save":
            return [(s.inputs[0], PLAIN)], [(s.inputs[0], SAVED)]
        return [(v, s.layouts[v]) for v in s.inputs], [(v, s.layouts[v]) for v in s.outputs]

    reads: dict[Storage, list[tuple[int, Step]]] = {}
    writer: dict[Value, tuple[int, Step]] = {}
    for i, s in enumerate(steps):
        ins, outs = layouts(s)
        for v, layout in ins:
            reads.setdefault(storage(v, layout), []).append((i, s))
        for v, layout in outs:
            storage(v, layout)
            if s.kind not in ("reorder", "save"):
                writer[v] = (i, s)
    # assignments
    found: dict[Step, dict[Value, list[tuple[Step, Value]]]] = {}

    def read_in(s: Step) -> dict[Value, list[tuple[Step, Value]]]:
        if s not in found:
            found[s] = {}
            for segment in s.segments:
                for v in segment.segment_inputs:
                    found[s].setdefault(root_of(v), []).append((segment, v))
        return found[s]

    copies: list[Step] = []
    for a in assigns:
        target, value = a.inputs
        home, root = storage(target, PLAIN), root_of(value)
        at = writer.get(root)
        mine = stores.get((root, PLAIN))
        if (at is not None and mine is not None and mine.kind == "arena" and at[1].kind == "pointwise" and not root.type.axes
                and all(i <= at[0] for i, _ in reads.get(home, ()))
                and aligned_read(at[1], root, read_in(at[1]).get(root_of(target), ()))):  # fmt: skip
            stores[root, PLAIN] = home
            continue
        if root in held:
            value, a.inputs = root, [target, root]
        a.layouts = {target: PLAIN, a.outputs[0]: PLAIN, value: SAVED if root in held else PLAIN}
        copies.append(a)
        reads.setdefault(storage(value, a.layouts[value]), []).append((len(steps) + len(copies) - 1, a))
    # lifetimes and in-place outputs
    everything = [*steps, *copies]
    for i, s in enumerate(everything):
        ins, outs = layouts(s) if s.kind != "assign" else ([(s.inputs[1], s.layouts[s.inputs[1]])], [])
        for v, layout in ins:
            storage(v, layout).last = i
        for v, layout in outs:
            b = storage(v, layout)
            b.first = min(b.first, i)
            b.last = max(b.last, i)
    keys: dict[Storage, list[tuple[Value, str]]] = {}
    for k, b in stores.items():
        keys.setdefault(b, []).append(k)
    for i, s in enumerate(steps):
        if s.kind == "pointwise":
            for segment in s.segments:
                take_over(s, segment, i, stores, keys, read_in(s))
    return everything, stores


def aligned_read(s: Step, value: Value, reads: Sequence[tuple[Step, Value]]) -> bool:
    """Whether a program that will write to a variable reads it, if at all, element by element and in the segment that writes.

    reads: (segment, value) wherever the program reads the variable.
    """
    busy = summed(s)
    return not any(v.inside for _, v in reads) and (
        not reads
        or value.producer.op.kernel == "pointwise"
        and all(
            value in segment.segment_outputs and value.type.shape == v.type.shape == segment.domain.shape and v not in busy
            for segment, v in reads
        )
    )


def summed(s: Step) -> set[Value]:
    """What a program's sums may read after its results are written: their operands, and the factors of one that is a product."""
    found: set[Value] = set()
    for n in s.nodes:
        if n.name.startswith("reduce_"):
            v = n.inputs[0]
            found.update((v, *v.producer.inputs) if v.producer.name in ("mul", "pow") else (v,))
    return found


def take_over(s: Step, segment: Step, i: int, stores: dict, keys: dict[Storage, list], reads: dict[Value, list]) -> None:
    """Lets outputs of a program lie upon inputs that nobody else reads then or afterwards. keys: what lies in each storage."""
    taken: set[int] = set()
    busy = summed(s)
    for o in segment.segment_outputs:
        b = stores[holder(o, s.layouts[o])]
        if b.kind != "arena" or o.type != segment.domain or b.first != i or o.inside:
            continue
        for v in segment.segment_inputs:
            c = stores[holder(v, s.layouts[v])]
            if (c.kind == "arena" and not v.inside and c.last == i and id(c) not in taken and v not in busy and v.type == o.type
                    and s.layouts[v] == s.layouts[o] and len(reads[root_of(v)]) == 1):  # fmt: skip
                taken.add(id(c))
                c.last = max(c.last, b.last)
                for k in keys[b]:
                    stores[k] = c
                keys[c] += keys.pop(b)
                break
