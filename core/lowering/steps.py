"""Steps: what a plan will run, one kernel call each, once nodes are fused; before they have formats and places."""

from __future__ import annotations

from typing import Any

from cogkit.lowering.ir import Node, Value
from cogkit.op import Type

__all__ = ["Step"]


class Step:
    """One kernel call to come.

    kind: 'pointwise' or the kernel's name. nodes: the node, or the program of a pointwise step in order. inputs, outputs: values read and stored.
    domain: the iteration space of a pointwise step. layouts: format of each input and output, set by the layout pass.
    segments: steps of the same program that this call runs, itself first; segment_inputs/outputs are those of one segment.
    attrs: settings of the kernel beyond the node's own: fused bias and activation.
    """

    __slots__ = (
        "attrs",
        "domain",
        "inputs",
        "kind",
        "layouts",
        "level",
        "nodes",
        "outputs",
        "segment_inputs",
        "segment_outputs",
        "segments",
    )

    def __init__(
        self, kind: str, nodes: list[Node], inputs: list[Value], outputs: list[Value], domain: Type | None = None, level: int = 0
    ):
        self.kind, self.nodes, self.inputs, self.outputs = kind, nodes, inputs, outputs
        self.domain, self.level = domain, level
        self.attrs: dict[str, Any] = {}
        self.layouts: dict[Value, str] = {}
        self.segments: list[Step] = [self]  # equal programs that run in this call, the first one being this
        self.segment_inputs, self.segment_outputs = inputs, outputs

    @property
    def node(self) -> Node:
        """The only node, or the last one of a program."""
        return self.nodes[-1]

    def __repr__(self) -> str:
        def show(v: Value) -> str:
            layout = self.layouts.get(v, "plain")
            return f"%{v.number}:{v.type}" + ("" if layout == "plain" else "@" + layout)

        extra = "".join(f" {k}={v if not isinstance(v, Value) else show(v)}" for k, v in self.attrs.items())
        body = " [" + " ".join(n.name for n in self.nodes) + "]" if self.kind == "pointwise" else ""
        name = self.kind if self.kind == "pointwise" else self.node.name
        return f"{', '.join(map(show, self.outputs))} = {name}({', '.join(map(show, self.inputs))}){body}{extra}"
