"""The passes that no engine changes, in order: resolve, gradient, prune, recurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cogkit.lowering.gradient import gradients
from cogkit.lowering.ir import Graph, Node, Value, sum_to
from cogkit.lowering.recurrence import recurrence
from cogkit.lowering.resolve import resolve
from cogkit.lowering.sparse import dense
from cogkit.lowering.storage import hold_half_as_single
from cogkit.op import HALF, Type
from cogkit.variables import Variable

__all__ = ["Request", "lower", "stages"]


class Request(NamedTuple):
    """What is wanted of a graph.

    outputs: values as they are. sums: values summed over rows and elements. roots: variable -> variable fed with its gradient, or None
    for ones. wrt: variables whose gradients are wanted. training: dropout drops, statistics are of the minibatch. effects: assignments
    are done. effects_of: variables computed for their assignments. lists: those of wrt whose gradients may be lists of rows.
    inside: outputs of nodes anywhere in the graph of the others, in blocks too: their values and, where there is a wrt, their gradients.
    """

    outputs: tuple[Variable, ...] = ()
    sums: tuple[Variable, ...] = ()
    roots: tuple[tuple[Variable, Variable | None], ...] = ()
    wrt: tuple[Variable, ...] = ()
    training: bool = False
    effects: bool = True
    effects_of: tuple[Variable, ...] = ()
    lists: tuple[Variable, ...] = ()
    inside: tuple[Variable, ...] = ()


def lower(
    request: Request,
    feeds: Mapping[Variable, Type],
    sizes: Mapping[Any, int] | None = None,
    half_forms: frozenset[str] = frozenset(),
    loss_scale: float = 1.0,
) -> Graph:
    """The lowered graph; its outputs are the request's outputs, sums, values inside, gradients and gradients inside, in this order.

    sizes: rows of the fed row spaces. half_forms: the ops that the engine runs on half precision as it is. loss_scale: gradients are
    computed of so many times the roots, and divided by it at the end.
    """
    roots = [v for v, _ in request.roots]
    wanted: Sequence[Variable] = [*request.outputs, *request.sums, *roots, *request.effects_of]
    graph, values = resolve(wanted, feeds, request.training, sizes, request.inside)
    n, m = len(request.outputs), len(request.sums)
    inside = values[len(wanted) :]
    outputs = values[:n] + [_total(v) for v in values[n : n + m]] + inside
    if request.wrt:
        starts = {}
        for v, (_, fed) in zip(values[n + m :], request.roots, strict=False):
            if fed is None:
                starts[v] = graph.fill(loss_scale, v.type)
            else:
                starts[v] = _times(graph.leaf(fed, v.type), loss_scale)
        wrt = [
            graph.leaf(v, feeds[v] if v in feeds else v.type) if not v.is_output else _value_of(graph, v, feeds)
            for v in request.wrt
        ]
        lists = {v for v in request.lists if v.type.dtype != HALF}  # lists of rows are float32 or float64
        if loss_scale != 1:
            lists = set()  # nothing divides them
        found = gradients(graph, starts, [*wrt, *inside])
        outputs += [
            g if v in lists else _times(dense(g), 1 / loss_scale)
            for v, g in zip((*request.wrt, *request.inside), found, strict=True)
        ]
    graph.outputs = outputs + graph.carried()
    if not request.effects:
        _unwrite(graph)
    if not graph.cycles:
        graph.effects += [n for n in graph.nodes if n.name == "user_backward"]
    hold_half_as_single(graph, half_forms)
    graph.prune()
    return recurrence(graph)


def _total(v: Value) -> Value:
    """The sum over rows and elements; of half precision, which ends at 65504, in float32."""
    v = v.cast(np.float32) if v.type.dtype == HALF else v
    return sum_to(v, Type((), v.type.dtype, ()))


def _times(v: Value, scale: float) -> Value:
    return v if scale == 1 else v * scale


def _unwrite(graph: Graph) -> None:
    """Writes nothing: what reads the value of an assignment reads what would have been assigned."""

    def value(v: Value) -> Value:
        return value(v.producer.inputs[1]) if v.producer.name == "assign" else v

    graph.effects = []
    graph.outputs = [value(v) for v in graph.outputs]
    for n in graph.nodes:
        n.inputs = [value(v) for v in n.inputs]


def stages(graph: Graph) -> dict[int, Graph | None]:
    """The row spaces that a graph makes while running, by number: the graph of the value that one depends on, None for one of lengths alone.

    In an order in which they can be made.
    """
    needed: dict[int, Graph | None] = {}

    def need(nodes: Sequence[Node]) -> None:
        for n in nodes:
            for axes in {v.type.axes for v in (*n.inputs, *n.outputs)} | {n.attrs.get("axes")}:
                for i, made in enumerate(graph.spaces):
                    if made.axes == axes or n.attrs.get("move") in (("pick", i), ("unpick", i)):
                        add(i)
            if "body" in n.attrs:
                need(n.attrs["body"].graph.nodes)

    def add(i: int) -> None:
        if i in needed:
            return
        made = graph.spaces[i]
        for k, other in enumerate(graph.spaces[:i]):
            if other.axes == made.parent:
                add(k)
        stage = None
        if made.value is not None:
            stage = Graph(graph.sizes)
            stage.spaces, stage.longest = graph.spaces, graph.longest
            whole = made.value.graph
            stage.nodes, stage.cycles = whole.whole
            stage.outputs = [made.value]
            stage.prune()
            stage = recurrence(stage)
            need(stage.nodes)
        needed[i] = stage

    if graph.spaces:
        need(graph.nodes)
    return needed


def _value_of(graph: Graph, v: Variable, feeds: Mapping[Variable, Type]):
    raise ValueError(
        f"gradient: expected inputs and parameters to differentiate by, got {v!r}; cut the graph there with an input"
    )
