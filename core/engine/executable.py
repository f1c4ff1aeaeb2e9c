"""A graph with what is wanted of it, ready to run, and its plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cogkit import variables
from cogkit.collector import paused_collector
from cogkit.engine import compile_graph, current_engine, half_forms
from cogkit.engine.arrays import Lease, NDArrayView
from cogkit.engine.feeds import bind_feeds
from cogkit.engine.precision import ProductPrecision, precision_for, product_precision
from cogkit.engine.seeding import Run, random_state
from cogkit.engine.sequence_plan import PLANS, SequencePlan
from cogkit.engine.sparse import RowSparse
from cogkit.engine.user import Resizing, calls_of
from cogkit.engine.values import Value
from cogkit.errors import sentence
from cogkit.lowering.ir import Graph
from cogkit.lowering.lower import Request, lower, stages
from cogkit.nodes import Block, Primitive
from cogkit.ops.rows import has_steps
from cogkit.variables import Constant, Variable
from cogkit.walks import leaves_of, nodes_of

__all__ = ["Executable"]


class Executable:
    """A graph with what is wanted of it, ready to run; a plan is made for each new kind of feed and kept.

    `run` gives a list of arrays: outputs, then sums (scalars), then gradients. Arrays of gradients and sums belong to the plan when `reuse`
    is set: the next run overwrites them, and on a device their values are brought by `residence.bring`. effects_of: variables that
    are computed for what they write alone. lists: those of wrt whose gradients may come as lists of rows, `RowSparse`. lend: all
    results are `Value`s over the plan's own memory, which tell when the next run has overwritten them.
    """

    def __init__(
        self,
        outputs: Sequence[Variable] = (),
        sums: Sequence[Variable] = (),
        roots: Any = None,
        wrt: Sequence[Variable] = (),
        training: bool = False,
        effects: bool = True,
        effects_of: Sequence[Variable] = (),
        reuse: bool = False,
        engine: str | None = None,
        lend: bool = False,
        lists: Sequence[Variable] = (),
        inside: Sequence[Variable] = (),
        precision: ProductPrecision | None = None,
    ):
        if isinstance(roots, Variable):
            roots = {roots: None}
        self.request = Request(
            tuple(outputs),
            tuple(sums),
            tuple((roots or {}).items()),
            tuple(wrt),
            training,
            effects,
            tuple(effects_of),
            lists=tuple(lists),
            inside=tuple(inside),
        )
        self.reuse, self.lend = reuse, lend
        self.runs = 0
        self.engine = engine or current_engine()
        self.precision = precision or precision_for(self.engine)
        wanted = [*outputs, *sums, *(roots or {}), *effects_of]
        self.roots: list[Primitive] = list({id(v.node): v.node for v in wanted if v.is_output}.values())
        self.arguments: list[Variable] = [v for v in {id(v): v for r in self.roots for v in leaves_of(r)}.values() if v.is_input]
        self.arguments += [v for v in wanted if v.is_input and not any(v is a for a in self.arguments)]
        self.arguments += [v for v in (roots or {}).values() if v is not None]
        self._set = {id(v) for v in self.arguments}
        self._free = [v for v in self.arguments if any(n < 0 for n in v._shape or ())]
        self._plans: dict[Any, Any] = {}
        self.carried: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # last steps of delays in the minibatch before, and which there were
        self._longest: tuple = ()  # row spaces whose longest sequence is the size of a static axis
        self._counted: tuple = ()  # row spaces whose number of rows is
        self._edits = variables.edits
        self._stamp = self._fingerprint()
        self._begun, self.step = random_state.begun, random_state.first - 1  # since when it counts its runs, and the last one

    def _fingerprint(self) -> tuple:
        found: list[Any] = []
        stack = list(self.roots)
        while stack:
            for n in nodes_of(stack.pop()):
                found.append((id(n), tuple(map(id, n.operands)), tuple(sorted((k, str(v)) for k, v in n.attributes.items()))))
                found.extend(v.version for v in n.operands if isinstance(v, Constant) and v.shape == ())
                if isinstance(n, Block):
                    stack.append(n.composite.root)
        return tuple(found)

    def run(self, feeds: dict[Variable, Any], step: int | None = None, sample: int = 0) -> list[Any]:
        """Runs the plan for these feeds. step: what random numbers depend on; None: how often this has run since the seed was set.

        Raises `ValueError` for missing, unknown or ill-shaped feeds.
        """
        arrays, types, sizes = bind_feeds(feeds)
        plan = self.plan(types, sizes)
        if step is None:
            step = self._next_step()
        if not self.lend:
            return plan.run(arrays, sizes, Run(random_state.seed, step, sample))
        for v, data in feeds.items():
            lease = getattr(data, "_lease", None)
            if lease is not None and lease.owner is self:  # what this run writes over
                arrays[v] = arrays[v].copy()
        self.runs += 1
        found = plan.run(arrays, sizes, Run(random_state.seed, step, sample))
        return [self._lent(a) for a in found]

    def _next_step(self) -> int:
        # counted by each for itself, so that equal seeds draw equal numbers in another graph
        if self._begun is not random_state.begun:
            self._begun, self.step = random_state.begun, random_state.first - 1
        random_state.step += 1
        self.step += 1
        return self.step

    def _lent(self, result: Any) -> Value:
        if isinstance(result, RowSparse):
            return Value(NDArrayView._over(result.tocsr(), result.shape))
        if not isinstance(result, Value):
            return Value.of_array(result, Lease(self))
        result._lease = Lease(self)
        return result

    def plan(self, types: dict, sizes: dict | None = None) -> Any:
        """The plan for feeds of these types. sizes: rows of their row spaces, for graphs in which a shape depends on them."""
        if self._edits != variables.edits:
            stamp = self._fingerprint()
            if stamp != self._stamp:
                self._plans.clear()
                self._stamp = stamp
            self._edits = variables.edits
        key: tuple = tuple(types[v].shape for v in self._free if v in types)
        if self._longest:  # a shape depends on the longest sequence
            key += tuple(sizes[a].steps for a in self._longest)  # type: ignore[index]
        if self._counted:  # or on the number of rows
            key += tuple(int(sizes[a]) for a in self._counted)  # type: ignore[index]
        if sizes is not None and len(sizes) > 1:
            key += tuple(k for k in sizes if k[0] == "begins")
        plan = self._plans.get(key)
        if plan is None or len(types) != len(self.arguments):
            self._check(types)
            graph, plan = self._whole(types, sizes)
            if graph.longest and not self._longest:
                self._longest = tuple(graph.longest)
                key += tuple(graph.longest.values())
            if graph.counted and not self._counted:
                self._counted = tuple(graph.counted)
                key += tuple(graph.counted.values())
            if any(any(call.free) for call in calls_of(graph)):
                plan = Resizing(plan, lambda shapes: self._whole(types, {**(sizes or {}), **shapes})[1])
            while len(self._plans) >= PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = plan
        return plan

    @paused_collector()
    def _whole(self, types: dict, sizes: dict | None) -> tuple[Graph, Any]:
        graph, plan = self._lowered(types, sizes)
        made = {i: None if g is None else self._engine(g, False) for i, g in stages(graph).items()}
        if made or graph.carries or any(has_steps(v.type.axes) for v in graph.outputs):
            plan = SequencePlan(plan, graph, made, self.carried, self.lend)
            plan.again = lambda known: self._lowered(types, known)
        return graph, plan

    @paused_collector()
    def _lowered(self, types: dict, sizes: dict | None) -> tuple[Graph, Any]:
        graph = lower(self.request, types, sizes, half_forms(self.engine), self.precision.loss_scale)
        return graph, self._engine(graph, True)

    def _engine(self, graph: Graph, main: bool) -> Any:
        with product_precision(*self.precision):
            plan = compile_graph(self.engine, graph)
        if main and (self.reuse or self.lend) and hasattr(plan, "keep_outputs"):
            plan.keep_outputs(0 if self.lend else len(self.request.outputs), not self.lend)
        return plan

    def _check(self, types: dict) -> None:
        for v in self.arguments:
            if v not in types:
                raise ValueError(sentence("Input", v.name, v.where, "data for this input", "none", "feed it: {variable: array}"))
        for v in types:
            if id(v) not in self._set:  # the calls of `Function` leave such feeds out beforehand
                root = self.roots[0] if self.roots else None
                raise ValueError(
                    sentence(
                        root.label if root else "eval",
                        root.name if root else "",
                        root.where if root else "",
                        "data for its inputs " + ", ".join(a.name or a.uid for a in self.arguments),
                        f"some for {v!r} too",
                        "leave it out",
                    )
                )
