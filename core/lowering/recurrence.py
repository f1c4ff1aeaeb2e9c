"""Pass 3, recurrence: each cycle becomes one loop node with a step body. What does not depend on the cycle stays outside, over all rows at once:
products of inputs before the loop, gradients of weights after it.
"""

from __future__ import annotations

from cogkit.components import components
from cogkit.errors import Misfit
from cogkit.lowering.fuse import COSTLY
from cogkit.lowering.ir import Graph, Node, Value
from cogkit.op import OPS, Op, constant_gradient, row_space

__all__ = ["Body", "BodyLeaf", "recurrence"]

_ACROSS_ROWS = {"move_rows", "fold_steps", "row_count", "moments", "assign", "loop", "rand", "randn"}


class BodyLeaf:
    """What a step body reads from outside itself: an input of the loop, or what a value of the body was at another step."""

    kind = "Input"
    is_input = True

    def __init__(self, name: str):
        self.name = self.uid = name


class Body:
    """The step of a loop: a graph over the rows of one step.

    inputs: leaves, one an input of the loop; those with the loop's row space are read at the step's rows, the others whole. carried: (leaf, value
    of the body, steps): the leaf is what the value was `steps` steps before (after, where negative), 0 where there was none.
    The graph's outputs are the loop's, over all rows; every carried value is one of them. steps run forward where `forward` is set.
    """

    def __init__(self, axes: tuple, forward: bool):
        self.axes, self.forward = axes, forward
        self.graph = Graph()
        self.inputs: list[Value] = []
        self.carried: list[tuple[Value, Value, int]] = []

    def __repr__(self) -> str:
        return f"<{'forward' if self.forward else 'backward'} loop over {row_space(self.axes)} of {len(self.graph.nodes)} nodes>"


Op("loop", "Recurrence", lambda types, attrs: list(attrs["types"]), constant_gradient, "loop", "one step body for all steps")


def recurrence(graph: Graph) -> Graph:
    """The graph without cycles: a copy where there are any."""
    if not graph.cycles:
        return graph
    roots = [v.producer for v in graph.outputs] + list(graph.effects)
    parts = components(roots, lambda n: [v.producer for v in n.inputs])
    readers: dict[Value, list[Node]] = {}
    for part in parts:
        for n in part:
            for v in n.inputs:
                readers.setdefault(v, []).append(n)
    loop_of: dict[Node, int] = {}
    for i, part in enumerate(parts):
        if len(part) > 1 or any(v.producer is part[0] for v in part[0].inputs):
            loop_of.update((n, i) for n in part)
    wanted = set(graph.outputs)
    members: dict[int, list[Node]] = {}
    for part in parts[::-1]:  # readers first: a cheap value that one loop alone reads is computed in it
        for n in part:
            if n not in loop_of and _may_sink(n, loop_of):
                homes = {loop_of.get(r) for r in readers.get(n.outputs[0], ())}
                if len(homes) == 1 and None not in homes and n.outputs[0] not in wanted:
                    loop_of[n] = homes.pop()  # type: ignore[assignment]
            if n in loop_of:
                members.setdefault(loop_of[n], []).append(n)
    made = Graph(graph.sizes)
    made.spaces, made.longest, made.bounded, made.carries = graph.spaces, graph.longest, graph.bounded, graph.carries
    new: dict[Value, Value] = {}
    last = {i: max(k for k, part in enumerate(parts) if part[0] in loop_of and loop_of[part[0]] == i) for i in members}
    for k, part in enumerate(parts):
        i = loop_of.get(part[0])
        if i is None:
            for n in part:
                _copy(made, n, new)
        elif last[i] == k:
            _loop(made, members[i], readers, wanted, loop_of, new)
    made.outputs = [new[v] for v in graph.outputs]
    effects = set(graph.effects)
    made.effects = [new[n.outputs[0]].producer for n in graph.nodes if n in effects]
    made.prune()
    return made


def _may_sink(n: Node, loop_of: dict[Node, int]) -> bool:
    """Whether a node is as well computed step by step: cheap and pointwise, over values that are in memory anyway."""
    if n.op is None or n.op.kernel != "pointwise" or n.name in COSTLY or n.name in ("rand", "randn", "fill", "expand"):
        return False
    return bool(n.outputs[0].type.axes) and all(
        v.producer.op is None
        or v.producer in loop_of
        or not v.type.axes
        or v.producer.name == "row_info"
        or _may_sink(v.producer, loop_of)
        for v in n.inputs
    )


def _copy(graph: Graph, n: Node, new: dict[Value, Value]) -> Node:
    graph.origin, graph.backward = n.origin, n.backward
    if n.op is None and n.leaf is not None and not isinstance(n.leaf, BodyLeaf):
        new[n.outputs[0]] = graph.leaf(n.leaf, n.outputs[0].type)
        return new[n.outputs[0]].producer
    made = Node(graph, n.op, [new[v] for v in n.inputs], n.attrs, [v.type for v in n.outputs], n.leaf)
    graph.nodes.append(made)
    new.update(zip(n.outputs, made.outputs, strict=True))
    return made


def _misfit(n: Node, fact: str, way: str) -> Misfit:
    return n.misfit("a recurrence whose step depends on the rows of that step alone", fact, way)


def _loop(
    graph: Graph, nodes: list[Node], readers: dict, wanted: set[Value], loop_of: dict[Node, int], new: dict[Value, Value]
) -> None:
    """Adds the loop node of some nodes, and what others read of delays inside."""
    mine = set(nodes)
    delays = [n for n in nodes if n.name == "move_rows" and n.attrs["move"][0] == "shift" and n.inputs[0].producer in mine]
    axes = delays[0].outputs[0].type.axes
    for n in nodes:
        if n not in delays and (n.name in _ACROSS_ROWS or n.attrs.get("rows") or n.attrs.get("sum_rows")):
            raise _misfit(n, f"{n.op.label} over other rows", "take it out of the cycle, or delay what it reads")
        apart = [v for v in n.inputs if v.type.axes not in ((), axes)] if n.op is not None and n.op.own_rows else []
        if apart:
            way = "repeat it at every step with C.sequence.broadcast_as"
            raise _misfit(n, f"an operand over {row_space(apart[0].type.axes)} in a cycle over {row_space(axes)}", way)
        if any(v.type.axes != axes for v in n.outputs) and n.name != "fill":
            raise _misfit(n, f"a value of {row_space(n.outputs[0].type.axes)} in a cycle over {row_space(axes)}", "")
    signs = {n.attrs["move"][1] > 0 for n in delays}
    if len(signs) > 1:
        raise _misfit(delays[0], "past and future values in one cycle", "a recurrence runs one way; use two for both directions")
    body = Body(axes, signs.pop())
    inner: dict[Value, Value] = {}
    outside: list[Value] = []

    def leaf(v: Value, name: str) -> Value:
        node = Node(body.graph, None, [], {}, [v.type], BodyLeaf(name))
        body.graph.nodes.append(node)
        return node.outputs[0]

    for n in delays:
        inner[n.outputs[0]] = leaf(n.outputs[0], f"step {-n.attrs['move'][1]:+d} of %{n.inputs[0].number}")
    uncut = set(delays)
    for (n,) in components(nodes, lambda n: [v.producer for v in n.inputs if v.producer in mine] if n not in uncut else []):
        if n in uncut:
            continue
        for v in n.inputs:
            if v not in inner:
                if v.producer.name == "fill":
                    _copy(body.graph, v.producer, inner)
                    continue
                inner[v] = leaf(v, f"%{new[v].number}")
                body.inputs.append(inner[v])
                outside.append(new[v])
        _copy(body.graph, n, inner)

    def stored(v: Value) -> Value:
        """The value of the body whose rows are v's: views are taken off; what the body only reads is copied."""
        while v.producer.op is not None and v.producer.op.kernel == "view":
            v = v.producer.inputs[0]
        if v.producer.op is None:
            copy = Node(body.graph, OPS["expand"], [v], {"type": v.type}, [v.type])
            body.graph.nodes.append(copy)
            v = copy.outputs[0]
        return v

    # read by others: what the body computes is a result of the loop; delays and views of results are computed after it
    old = {inner[v]: v for n in nodes if n not in uncut for v in n.outputs}
    given: dict[Value, None] = {}
    after: list[Node] = []
    for n in delays:
        v = stored(inner[n.inputs[0]])
        given[v] = None
        body.carried.append((inner[n.outputs[0]], v, n.attrs["move"][1]))
    for n in nodes:
        for v in n.outputs:
            if v in wanted or any(loop_of.get(r) != loop_of[n] for r in readers.get(v, ())):
                if n in uncut or n.op.kernel == "view":
                    after.append(n)
                else:
                    given[inner[v]] = None
    for n in after:  # what these read is a result too
        v = n.inputs[0]
        while v.producer in mine and (v.producer in uncut or v.producer.op.kernel == "view"):
            v = v.producer.inputs[0]
        if v.producer in mine:
            given[inner[v]] = None
    body.graph.outputs = list(given)
    graph.origin, graph.backward = delays[0].origin, delays[0].backward
    types = [v.type for v in given]  # (a copy of what the body only reads has no value outside)
    made = Node(graph, OPS["loop"], outside, {"body": body, "types": tuple(types)}, types)
    graph.nodes.append(made)
    new.update((old[v], w) for v, w in zip(given, made.outputs, strict=True) if v in old)

    def outside_of(v: Value) -> Value:
        if v not in new:
            n = v.producer
            graph.origin, graph.backward = n.origin, n.backward
            new[v] = graph.node(n.name, [outside_of(n.inputs[0])], **n.attrs)
        return new[v]

    for n in after:
        outside_of(n.outputs[0])
