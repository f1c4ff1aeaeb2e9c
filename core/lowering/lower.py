"""The passes that no engine changes, in order: resolve, gradient, prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cogkit.lowering.gradient import gradients
from cogkit.lowering.ir import Graph, sum_to
from cogkit.lowering.resolve import resolve
from cogkit.op import Type
from cogkit.variables import Variable

__all__ = ["Request", "lower"]


class Request(NamedTuple):
    """What is wanted of a graph.

    outputs: values as they are. sums: values summed over rows and elements. roots: variable -> variable fed with its gradient, or None
    for ones. wrt: variables whose gradients are wanted. training: dropout drops, statistics are of the minibatch. effects: assignments
    are done. effects_of: variables computed for their assignments.
    """

    outputs: tuple[Variable, ...] = ()
    sums: tuple[Variable, ...] = ()
    roots: tuple[tuple[Variable, Variable | None], ...] = ()
    wrt: tuple[Variable, ...] = ()
    training: bool = False
    effects: bool = True
    effects_of: tuple[Variable, ...] = ()


def lower(request: Request, feeds: Mapping[Variable, Type]) -> Graph:
    """The lowered graph; its outputs are the request's outputs, sums and gradients, in this order."""
    roots = [v for v, _ in request.roots]
    wanted: Sequence[Variable] = [*request.outputs, *request.sums, *roots, *request.effects_of]
    graph, values = resolve(wanted, feeds, request.training)
    n, m = len(request.outputs), len(request.sums)
    outputs = values[:n] + [sum_to(v, Type((), v.type.dtype, ())) for v in values[n : n + m]]
    if request.wrt:
        starts = {}
        for v, (_, fed) in zip(values[n + m :], request.roots, strict=False):
            starts[v] = graph.fill(1.0, v.type) if fed is None else graph.leaf(fed, v.type)
        wrt = [
            graph.leaf(v, feeds[v] if v in feeds else v.type) if not v.is_output else _value_of(graph, v, feeds)
            for v in request.wrt
        ]
        outputs += gradients(graph, starts, wrt)
    graph.outputs = outputs
    if not request.effects:
        graph.effects = []
    graph.prune()
    return graph


def _value_of(graph: Graph, v: Variable, feeds: Mapping[Variable, Type]):
    raise ValueError(
        f"gradient: expected inputs and parameters to differentiate by, got {v!r}; cut the graph there with an input"
    )
