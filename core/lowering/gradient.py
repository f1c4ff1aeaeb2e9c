"""Pass 2, gradient: nodes that compute wanted gradients, by each op's own rule, last node first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cogkit.lowering.ir import Graph, Value, sum_to

__all__ = ["gradients"]


def gradients(graph: Graph, roots: Mapping[Value, Value], wanted: Sequence[Value]) -> list[Value]:
    """Gradients of the roots with respect to the wanted values; zeros where nothing flows.

    roots: value -> gradient of what is minimised with respect to it, of the same type. Rules may ignore broadcasting: a gradient
    that is larger than its value is summed here.
    """
    nodes = list(graph.nodes)
    varies = {id(v) for v in wanted}
    for n in nodes:  # which values depend on a wanted one
        if any(id(v) in varies for v in n.inputs):
            varies.update(id(v) for v in n.outputs)
    arrived: dict[int, list[Value]] = {}
    for v, dv in roots.items():
        arrived.setdefault(id(v), []).append(dv)
    for n in reversed(nodes):
        if n.op is None or not any(id(v) in varies for v in n.inputs) or not any(id(v) in arrived for v in n.outputs):
            continue
        graph.origin = n.origin
        dy = [total(arrived.get(id(v))) for v in n.outputs]
        for v, dx in zip(n.inputs, n.op.gradient(n, *dy), strict=True):
            if dx is not None and id(v) in varies:
                arrived.setdefault(id(v), []).append(sum_to(dx, v.type))
    graph.origin = None
    out = []
    for v in wanted:
        dv = total(arrived.get(id(v)))
        out.append(graph.fill(0.0, v.type) if dv is None else dv.expand(v.type))
    return out


def total(parts: list[Value] | None) -> Value | None:
    """The sum of the gradients that arrived, in the order of arrival."""
    if not parts:
        return None
    dv = parts[0]
    for p in parts[1:]:
        dv = dv + p
    return dv
