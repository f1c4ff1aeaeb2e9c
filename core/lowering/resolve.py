"""Pass 1, resolve: the user's graph becomes primitives with every shape, type and row space known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cogkit.errors import Misfit, sentence
from cogkit.functions import Block, Combined, Primitive, nodes_of, told
from cogkit.lowering.ir import Graph, Value
from cogkit.op import Type
from cogkit.variables import Constant, Variable

__all__ = ["resolve"]


def resolve(
    wanted: Sequence[Variable], feeds: Mapping[Variable, Type], training: bool, graph: Graph | None = None
) -> tuple[Graph, list[Value]]:
    """The primitives that compute the wanted variables.

    feeds: the type of each fed variable, without free dimensions. training: whether dropout drops and statistics move.
    Raises `ValueError` for inputs that are not fed and shapes that do not fit.
    """
    graph = graph or Graph()
    pass_ = _Resolver(graph, feeds, training)
    roots = [v.owner for v in wanted if v.is_output and v not in feeds]
    pass_.enter(roots, {})
    values = [pass_.value(v, {}) for v in wanted]
    graph.origin = None
    return graph, values


class _Resolver:
    def __init__(self, graph: Graph, feeds: Mapping[Variable, Type], training: bool):
        self.graph, self.feeds, self.training = graph, feeds, training
        self.made: dict[Variable, Value] = {}

    def enter(self, roots: Sequence[Primitive], bound: dict[Variable, Value]) -> None:
        """Lowers a graph; `bound` holds the values of a block's placeholders."""
        for node in nodes_of(*roots):
            if isinstance(node, Combined) or (node.outputs and all(v in self.feeds for v in node.outputs)):
                continue
            self.graph.origin = node
            inputs = [self.value(v, bound) for v in node.operands]
            if isinstance(node, Block):
                inner = _Resolver(self.graph, self.feeds, self.training)
                inside = dict(zip(node.inner, inputs, strict=True))
                try:
                    inner.enter([node.composite.root], inside)
                except Misfit as e:
                    raise e.inside(node.label, node.name, node.where) from None
                values: Any = [inner.value(v, inside) for v in node.composite.outputs]
            else:
                values = self.lower(node, inputs)
            for v, value in zip(node.outputs, values if isinstance(values, (list, tuple)) else [values], strict=True):
                self.made[v] = value

    def lower(self, node: Primitive, inputs: list[Value]) -> Any:
        op = node.op
        try:
            if op.kernel == "expand":
                return op.expand(self.graph, inputs, node.attributes, self.training)
            return self.graph.node(op.name, inputs, **node.attributes)
        except ValueError as e:
            raise told(e, node) from None

    def value(self, v: Variable, bound: dict[Variable, Value]) -> Value:
        if v in self.feeds:
            return self.graph.leaf(v, self.feeds[v])
        if v in bound:
            return bound[v]
        if v.is_output:
            return self.made[v]
        if v.is_placeholder:
            raise ValueError(
                sentence(
                    "Placeholder",
                    v.name,
                    v.where,
                    "a variable in its place",
                    "none",
                    "call the function with an input or use replace_placeholders",
                )
            )
        if v.is_input:
            raise ValueError(sentence("Input", v.name, v.where, "data for this input", "none", "feed it: {variable: array}"))
        t = v.type
        if any(n < 0 for n in t.shape):
            raise ValueError(
                sentence(
                    v.kind,
                    v.name,
                    v.where,
                    "a known shape",
                    str(t.shape),
                    "apply the function to an input first, so that the shape is inferred",
                )
            )
        if isinstance(v, Constant) and t.shape == () and not v.name and not v.assigned:
            return self.graph.fill(float(v.data), t)
        return self.graph.leaf(v, t)
