"""Graphs lowered by hand, pass by pass, for the tests of the passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit.engine.cpu.kernels import choose_formats
from cogkit.lowering.fuse import fuse, is_slice, is_view
from cogkit.lowering.layout import assign_layouts, root_of
from cogkit.lowering.lower import Request, lower
from cogkit.lowering.memory import place
from cogkit.lowering.steps import Step
from cogkit.op import Type

__all__ = ["check_order", "graph_of", "placed", "programs", "steps_of"]


def graph_of(*outputs: Any, root: Any = None, wrt: Any = (), effects: Any = (), training: bool = True) -> Any:
    """The lowered graph of what is wanted; inputs are fed with their own types."""
    wanted = tuple(v.output if hasattr(v, "output") else v for v in outputs)
    roots = () if root is None else ((root.output, None),)
    everything = [*wanted, *(v for v, _ in roots), *(f.output for f in effects)]
    feeds: dict = {}
    stack = list(everything)
    seen = set()
    while stack:
        v = stack.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if v.is_input:
            feeds[v] = Type(v.shape, np.dtype(v.dtype), tuple(v.dynamic_axes))
        elif v.is_output:
            stack.extend(v.node.operands)
    return lower(
        Request(wanted, roots=roots, wrt=tuple(wrt), training=training, effects_of=tuple(f.output for f in effects)), feeds
    )


def steps_of(*outputs: Any, **more: Any) -> list[Step]:
    """The steps after fusion."""
    return fuse(graph_of(*outputs, **more))


def placed(*outputs: Any, **more: Any) -> tuple[list[Step], dict]:
    """Steps and storages after all passes."""
    g = graph_of(*outputs, **more)
    return place(assign_layouts(fuse(g), g.outputs, choose_formats), g.outputs)


def programs(steps: list[Step]) -> list[list[str]]:
    """The ops of each pointwise step, numbers left out."""
    return [[n.name for n in s.nodes if n.name != "fill"] for s in steps if s.kind == "pointwise"]


def check_order(steps: list[Step], outputs: Any) -> None:
    """What a list of steps must obey: made once, before it is read; programs whole; all that is wanted made."""
    made: set = set()
    written = [v for s in steps for v in s.outputs]
    assert len(written) == len(set(written)), "a value is made twice"

    def there(v: Any) -> bool:
        while (is_view(v.producer) or is_slice(v.producer)) or v.producer.name == "assign":
            v = v.producer.inputs[1 if v.producer.name == "assign" else 0]
        return v.producer.op is None or v in made

    for s in steps:
        for v in s.inputs:
            assert there(v), f"{v!r} is read before it is made, by {s!r}"
        for segment in s.segments:
            if s.kind == "pointwise":
                known = set(segment.segment_inputs)
                for n in segment.nodes:
                    assert all(v in known for v in n.inputs), f"{n!r} lacks an operand in {s!r}"
                    known.update(n.outputs)
                assert set(segment.segment_outputs) <= known
        made.update(s.outputs)
    for v in outputs:
        assert there(root_of(v)), f"{v!r} is wanted and never made"
