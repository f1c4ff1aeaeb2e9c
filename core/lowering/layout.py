"""Pass 5, layout: the memory format of each value. Products of images choose, what is between them follows, copies stand at the borders only.

A value may exist in more than one format; a storage is a (value, format) pair. Views see plain values only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cogkit.lowering.fuse import is_view
from cogkit.lowering.ir import Value
from cogkit.lowering.steps import Step

__all__ = ["PLAIN", "assign_layouts", "holder", "root_of"]

PLAIN = "plain"
Chooser = Callable[[Step, Callable[[Value], Sequence[str]]], tuple[list[str], list[str]]]


def root_of(v: Value) -> Value:
    """The value whose buffer a view (or an assignment's result, or a part of another value) is."""
    while True:
        n = v.producer
        if v.inside is not None:
            v = v.inside.of
        elif is_view(n):
            v = n.inputs[0]
        elif n.name == "assign":
            v = n.inputs[1]
        else:
            return v


def holder(v: Value, layout: str) -> tuple[Value, str]:
    """The key of the storage in which a value is held in a format: that of its root, but a view of another shape has formats of its own."""
    root = root_of(v)
    return (root if layout == PLAIN or root.type.shape == v.type.shape else v), layout


def assign_layouts(steps: list[Step], outputs: Sequence[Value], choose: Chooser) -> list[Step]:
    """The steps with formats, and reorder steps between them.

    choose(step, formats) asks the engine: given the formats that each input exists in, the formats of inputs and outputs.
    """
    have: dict[Value, list[str]] = {}
    out: list[Step] = []

    def formats(v: Value) -> Sequence[str]:
        return have.get(holder(v, "")[0], [PLAIN])

    def provide(v: Value, layout: str) -> None:
        root = holder(v, layout)[0]
        if root is not root_of(v):  # a view of another shape is taken from the plain form
            provide(v, PLAIN)
            have.setdefault(root, [PLAIN])
        known = have.setdefault(root, [PLAIN] if root.producer.op is None else [])
        if layout in known:
            return
        step = Step("reorder", [root.producer], [root], [root])
        step.attrs.update(source=known[0], target=layout)
        known.append(layout)
        out.append(step)

    for s in steps:
        ins, outs = choose(s, formats)
        for v, layout in zip(s.inputs, ins, strict=True):
            layout = normal(v, layout)
            provide(v, layout)
            s.layouts[v] = layout
        for v, layout in zip(s.outputs, outs, strict=True):
            s.layouts[v] = normal(v, layout)
            have[v] = [s.layouts[v]]
            if v.inside is not None:
                have[root_of(v)] = [PLAIN]
        out.append(s)
    for v in outputs:
        provide(v, PLAIN)
    return out


def normal(v: Value, layout: str) -> str:
    """Plain where the format is the same bytes: channels without extent."""
    return PLAIN if math.prod(v.type.shape[1:]) == 1 else layout
