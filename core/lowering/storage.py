"""Half precision is storage: what kernels have no form for it compute is computed in float32 and rounded.

Each value of half precision is held in one of two ways: as it is (fed arrays, parameters, and what kernels that take half precision make of
them), or as float32. A node of the user's graph rounds its results once: values between the primitives of one node stay as they were
computed, others are rounded by the pointwise op `half`, which programs take in; none is needed where a value is one of half precision
anyway, as the maximum of two. So sums of any length are made in float32, on every engine alike.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from cogkit.lowering.ir import Graph, Node, Value
from cogkit.op import HALF, OPS, Type

__all__ = ["hold_half_as_single"]

SINGLE = np.dtype(np.float32)
# of numbers that half precision has these give numbers that it has too
_EXACT = {"neg", "abs", "sign", "floor", "ceil", "round", "relu", "not", "max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor",
          "select", "expand", "reshape", "rows_to_axis", "axis_to_rows", "stop", "transpose", "take", "put", "concat", "move_rows", "gather",
          "one_hot", "reduce_max", "reduce_min", "half", "max_pool_pick"}  # fmt: skip
_OWN = ("assign", "user_forward", "user_backward")  # these read and write memory of its own type


def hold_half_as_single(graph: Graph, forms: Collection[str]) -> None:
    """Rewrites a graph, in place, so that nodes whose op is not in `forms` compute in float32 where they would in half precision.

    forms: the ops whose kernels, or views, take half precision as it is.
    """
    if any(v.type.dtype == HALF for n in graph.nodes for v in n.outputs):
        _Pass(graph, forms).run()


def _fits(number: float) -> bool:
    """Whether half precision has a number."""
    return abs(number) <= 65504 and float(np.float16(number)) == number


class _Pass:
    def __init__(self, graph: Graph, forms: Collection[str]):
        self.graph, self.forms = graph, forms
        self.half = {v for n in graph.nodes for v in n.outputs if v.type.dtype == HALF}
        self.cycles = set(graph.cycles)
        self.held: set[Value] = set()  # as half precision
        self.single: dict[Value, Value] = {}  # the same number as float32
        self.stored: dict[Value, Value] = {}  # and as half precision
        self.exact: set[Value] = set()  # float32, but one of the numbers of half precision
        self.same: dict[Value, Value] = {}  # what casts to float32 give that is there already
        self.nodes: list[Node] = []

    def run(self) -> None:
        g = self.graph
        for n in g.nodes:
            self.choose(n)
        for n in g.nodes:
            g.origin = n.origin
            inputs = n.inputs
            if n.op is not None:
                n.inputs = [self.store(v) for v in inputs] if self.keeps(n) else [self.read(v, n) for v in inputs]
            if n.name == "cast" and inputs[0] in self.half and n.outputs[0].type.dtype == SINGLE:
                self.same[n.outputs[0]] = n.inputs[0]
                continue
            self.nodes.append(n)
            for v in n.outputs:
                self.offer(v)
        for n in self.cycles:  # what a delay in a cycle delays comes after it
            n.inputs = [self.read(v, n) for v in n.inputs]
        g.outputs = [self.store(v) for v in g.outputs]
        g.spaces = [d if d.value is None else d._replace(value=self.read(d.value)) for d in g.spaces]
        g.origin = None
        g.nodes = self.nodes
        for i, n in enumerate(g.nodes):
            n.serial = i
        g.count = len(g.nodes)
        g._known, g._rows = {}, {}  # types have changed

    def keeps(self, n: Node) -> bool:
        """Whether a node's results, or what it writes to, are of half precision as they are."""
        return n.name in _OWN or any(v in self.held for v in n.outputs)

    def choose(self, n: Node) -> None:
        """How the results of a node are held."""
        mine = [v for v in n.outputs if v in self.half]
        if n.op is None or n.name in _OWN:
            self.held.update(mine)
            return
        inputs = [v for v in n.inputs if v in self.half]
        if not mine:
            return
        moved = n.name in self.forms and n not in self.cycles and bool(inputs) and all(v in self.held for v in n.inputs)
        # in one step: by way of float32 it would be rounded twice
        narrowed = n.name == "cast" and n.inputs[0].type.dtype == np.float64
        if moved or narrowed:
            self.held.update(mine)
        else:
            self.widen(n)

    def widen(self, n: Node) -> None:
        """A node's results as float32."""
        attrs = {k: self.widened(a) for k, a in n.attrs.items()}
        if n.name == "cast":
            if n.inputs[0].type.dtype.kind == "f":
                n.op, attrs = OPS["half"], {}
            else:
                attrs["dtype"] = SINGLE.name
        n.attrs = attrs
        for v in n.outputs:
            if v in self.half:
                v.type = v.type._replace(dtype=SINGLE)

    def widened(self, a: Any) -> Any:
        """A setting with the types in it widened."""
        if isinstance(a, Type):
            return a._replace(dtype=SINGLE) if a.dtype == HALF else a
        return tuple(map(self.widened, a)) if type(a) is tuple and any(isinstance(x, Type) for x in a) else a

    def make(self, op: str, v: Value, dtype: np.dtype) -> Value:
        attrs = {"dtype": dtype.name} if op == "cast" else {}
        n = Node(self.graph, OPS[op], [v], attrs, [v.type._replace(dtype=dtype)])
        self.nodes.append(n)
        return n.outputs[0]

    def offer(self, v: Value) -> None:
        """Makes the other forms of a value; those that nobody reads are pruned."""
        if v not in self.half:
            return
        if v.sparse:  # sparse values are float32 throughout; their dense results are rounded
            self.single[v] = v
            return
        if v in self.held:
            self.single[v], self.stored[v] = self.make("cast", v, SINGLE), v
            return
        n = v.producer
        # numbers of the user's are rounded when they are taken for half precision, those inside an op keep their bits
        if n.name in ("half", "fill") or n in self.cycles or (n.name in _EXACT and all(self.is_half(w) for w in n.inputs)):
            if n.name != "fill" or _fits(n.attrs["value"]):
                self.exact.add(v)
            self.single[v] = v
        else:
            self.single[v] = self.make("half", v, SINGLE)
            self.exact.add(self.single[v])
        self.stored[v] = self.make("cast", v, HALF)

    def is_half(self, v: Value) -> bool:
        """Whether a float32 value, as a node reads it now, is one of the numbers of half precision."""
        return v in self.exact or (v.producer.name == "cast" and v.producer.inputs[0] in self.held)

    def read(self, v: Value, reader: Node | None = None) -> Value:
        """The value as a node that computes in float32 reads it: as it was computed where both are of one node of the user's graph."""
        if v not in self.half:
            return self.same.get(v, v)
        own = reader is not None and reader.origin is not None and v.producer.origin is reader.origin
        if own and v not in self.held and reader not in self.cycles:
            return v
        return self.single.get(v, v)

    def store(self, v: Value) -> Value:
        """The value in half precision."""
        return self.stored[v] if v in self.half else self.same.get(v, v)
