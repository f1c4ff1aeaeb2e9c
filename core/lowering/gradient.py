"""Pass 2, gradient: nodes that compute wanted gradients, by each op's own rule, last node first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cogkit.lowering.ir import Graph, Node, Value, sum_to

__all__ = ["gradients"]


def gradients(graph: Graph, roots: Mapping[Value, Value], wanted: Sequence[Value]) -> list[Value]:
    """Gradients of the roots with respect to the wanted values; zeros where nothing flows.

    roots: value -> gradient of what is minimised with respect to it, of the same type. Rules may ignore broadcasting: a gradient
    that is larger than its value is summed here.
    """
    graph.backward = True
    nodes = list(graph.nodes)
    useful = ancestors(list(roots))
    varies = {id(v) for v in wanted}
    for n in nodes:  # a user function's backward is called wherever its operands want a gradient, as in CNTK
        if "needs" in n.attrs:
            varies.update(id(v) for v, need in zip(n.inputs, n.attrs["needs"], strict=True) if need)
    changed = True
    while changed:  # which values depend on a wanted one; around cycles until no more are found
        before = len(varies)
        for n in nodes:
            if any(id(v) in varies for v in n.inputs):
                varies.update(id(v) for v in n.outputs)
        changed = bool(graph.cycles) and len(varies) > before
    arrived: dict[int, list[Value]] = {}
    for v, dv in roots.items():
        arrived.setdefault(id(v), []).append(dv)
    # what a delay delays comes after it in the list: its gradient, a delay the other way, is there before what that delays
    turned: dict[int, Node] = {}
    for n in graph.cycles[:]:
        if n.outputs[0] in useful and id(n.inputs[0]) in varies:
            back = graph.delay(n.inputs[0].type, -n.attrs["move"][1])
            turned[id(n)] = back
            arrived.setdefault(id(n.inputs[0]), []).append(back.outputs[0])
    for n in reversed(nodes):
        if id(n) in turned:
            dy = total(arrived.get(id(n.outputs[0])))
            graph.close(turned[id(n)], graph.fill(0.0, n.outputs[0].type) if dy is None else dy.expand(n.outputs[0].type))
            continue
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
    graph.backward = False
    return out


def ancestors(values: Sequence[Value]) -> set[Value]:
    """Everything that the values need, themselves included."""
    found, stack = set(values), list(values)
    while stack:
        for v in stack.pop().producer.inputs:
            if v not in found:
                found.add(v)
                stack.append(v)
    return found


def total(parts: list[Value] | None) -> Value | None:
    """The sum of the gradients that arrived, in the order of arrival."""
    if not parts:
        return None
    parts = spliced(parts)
    dv = parts[0]
    for p in parts[1:]:
        dv = dv + p
    return dv


def spliced(parts: list[Value]) -> list[Value]:
    """The same sum: gradients of slices that do not overlap become one splice, with zeros between them."""
    puts = [v for v in parts if v.producer.name == "put" and v.producer.attrs["stride"] == 1]
    if len(puts) < 2:
        return parts
    graph, axis, t = puts[0].graph, puts[0].producer.attrs["axis"], puts[0].type
    mine = sorted((v for v in puts if v.producer.attrs["axis"] == axis), key=lambda v: v.producer.attrs["first"])
    pieces: list[Value] = []
    at = 0

    def zeros(n: int) -> list[Value]:
        shape = (*t.shape[:axis], n, *t.shape[axis + 1 :])
        return [graph.fill(0.0, t._replace(shape=shape))] if n else []

    for v in mine:
        first, size = v.producer.attrs["first"], v.producer.inputs[0].type.shape[axis]
        if first < at:
            return parts
        pieces += [*zeros(first - at), v.producer.inputs[0]]
        at = first + size
    pieces += zeros(t.shape[axis] - at)
    if len(mine) < 2:
        return parts
    return [graph.node("concat", pieces, axis=axis), *(v for v in parts if v not in mine)]
