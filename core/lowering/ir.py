"""The lowered graph: a flat list of primitive nodes over typed values, producers first.

Nodes are made through `Graph.node`, which infers types, shares equal nodes and folds what is known; gradient rules and expansions of ops
write ordinary arithmetic on values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cogkit.axis import Axis
from cogkit.errors import Misfit
from cogkit.lowering.sparse import accept, dense, form_of
from cogkit.op import OPS, Op, Type, join_axes
from cogkit.variables import Input, Variable

__all__ = ["Graph", "Inside", "Node", "SpaceDef", "Value"]


class Node:
    """One primitive: an op, the values it reads, its settings, the values it makes. backward: it is of the gradient pass."""

    __slots__ = ("attrs", "backward", "graph", "inputs", "leaf", "op", "origin", "outputs", "serial")

    def __init__(
        self, graph: Graph, op: Op | None, inputs: Sequence[Value], attrs: dict[str, Any], types: Sequence[Type], leaf: Any = None
    ):
        self.graph, self.op, self.inputs, self.attrs, self.leaf = graph, op, list(inputs), attrs, leaf
        form = form_of(op, inputs, attrs, leaf)
        self.outputs = [Value(self, i, t, form) for i, t in enumerate(types)]
        self.origin, self.backward = graph.origin, graph.backward
        self.serial = graph.count
        graph.count += 1

    @property
    def name(self) -> str:
        """Name of the op, or the kind of leaf."""
        return self.op.name if self.op is not None else self.leaf.kind.lower()

    def misfit(self, wish: str, fact: str, way: str = "") -> Misfit:
        """An error that names the user's node that this one is of."""
        o = self.origin
        return Misfit(*((o.label, o.name, o.where) if o is not None else (self.name, "", "")), wish, fact, way)

    def __repr__(self) -> str:
        inputs = ", ".join(f"%{v.number}" for v in self.inputs)
        settings = "".join(f" {k}={v}" for k, v in self.attrs.items() if k != "type")
        outputs = ", ".join(f"%{v.number}:{v.type}" for v in self.outputs)
        name = f" '{self.leaf.name or self.leaf.uid}'" if self.leaf is not None else ""
        return f"{outputs} = {self.name}{name}({inputs}){settings}"


def _unary(op):
    return lambda self: self.graph.node(op, [self])


def _binary(op):
    return lambda self, other: self.graph.node(op, [self, other])


def _reverse(op):
    return lambda self, other: self.graph.node(op, [other, self])


class Inside(NamedTuple):
    """Where a value lies in another one's buffer: entry i of an axis is entry first + stride i of that."""

    of: Value
    axis: int
    first: int
    stride: int


class Value:
    """One typed result of a node; arithmetic on it makes nodes.

    inside: set while a graph is fused, where the value has no buffer of its own. sparse: the form in which it is held, '' for dense.
    """

    __slots__ = ("index", "inside", "producer", "sparse", "type")
    __hash__ = object.__hash__

    def __init__(self, producer: Node, index: int, type_: Type, sparse: str = ""):
        self.producer, self.index, self.type, self.sparse = producer, index, type_, sparse
        self.inside: Inside | None = None

    graph = property(lambda self: self.producer.graph)
    number = property(lambda self: f"{self.producer.serial}" + (f".{self.index}" if self.index else ""))

    def node(self, op: str, **attrs: Any) -> Any:
        """A node of this one input."""
        return self.graph.node(op, [self], **attrs)

    def reshape(self, shape: Sequence[int]) -> Value:
        """The same elements in another static shape."""
        return self.graph.node("reshape", [self], shape=tuple(shape), begin=None, end=None)

    def expand(self, type_: Type) -> Value:
        """Broadcast to a type."""
        v = self.graph.in_space(self, type_.axes) if self.type.axes else self
        return v if v.type == type_ else self.graph.node("expand", [v], type=type_)

    def cast(self, dtype: Any) -> Value:
        """The same numbers in another element type."""
        return self if np.dtype(dtype) == self.type.dtype else self.graph.node("cast", [self], dtype=np.dtype(dtype).name)

    def select(self, a: Any, b: Any) -> Value:
        """a where this is not 0, else b."""
        return self.graph.node("select", [self, a, b])

    for _n in (
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "abs",
        "sign",
        "floor",
        "ceil",
        "sin",
        "cos",
        "sinh",
        "cosh",
        "sigmoid",
        "tanh",
        "relu",
        "stop",
    ):
        locals()[_n] = _unary(_n)
    for _n in ("eq", "ne", "min", "max", "logaddexp"):
        locals()[_n] = _binary(_n)
    __neg__ = _unary("neg")
    __add__, __radd__ = _binary("add"), _reverse("add")
    __sub__, __rsub__ = _binary("sub"), _reverse("sub")
    __mul__, __rmul__ = _binary("mul"), _reverse("mul")
    __truediv__, __rtruediv__ = _binary("div"), _reverse("div")
    __pow__ = _binary("pow")
    __gt__, __lt__, __ge__, __le__ = _binary("gt"), _binary("lt"), _binary("ge"), _binary("le")

    def __repr__(self) -> str:
        return f"%{self.number}:{self.type}"


class SpaceDef(NamedTuple):
    """A row space that is made while running: of the rows of another one, or of lengths.

    kind: ('where',): the rows at which `value` is not 0; ('cut', begin, end): some steps of each sequence; ('every', stride,
    begin, end): each stride-th of them; ('lengths', most): as many steps of each batch item as `value` says, or all; ('rows', n): a batch.
    """

    axes: tuple
    parent: tuple
    kind: tuple
    value: Value | None


class Carry(NamedTuple):
    """What a delay needs of the minibatch before: two inputs, fed with its last steps and with 1 where there were any, 0 where not."""

    moved: Value
    steps: int
    last: Any
    valid: Any


class Graph:
    """The program being lowered. `outputs` are wanted values, `effects` nodes that write parameters or constants.

    A cycle is cut at its delays: those of `cycles` are there before the value that they delay. sizes: rows of the fed row spaces.
    """

    def __init__(self, sizes: Mapping[Any, int] | None = None):
        self.sizes = sizes or {}
        self.spaces: list[SpaceDef] = []
        self.carries: list[Carry] = []  # their next values are the last outputs
        self.bounded: dict[tuple, int] = {}  # the same of row spaces that are made while running: at most so many
        self.longest: dict[tuple, int] = {}  # steps of the longest sequence, where a shape depends on it
        self.counted: dict[tuple, int] = {}  # rows of what is fed, where a shape depends on them
        self.cycles: list[Node] = []
        self.whole: tuple[list[Node], list[Node]] = [], []  # nodes and cycles before they were pruned
        self.nodes: list[Node] = []
        self.leaves: dict[Any, Value] = {}  # variable -> value
        self.outputs: list[Value] = []
        self.effects: list[Node] = []
        self.origin: Any = None  # the user's node being lowered, for messages and explain
        self.backward = False  # whether its gradient is
        # values whose own gradients are wanted: what reads them is not to read what they are views of
        self.held: set[Value] = set()
        self.count = 0
        self._known: dict[tuple, list[Value]] = {}
        self._rows: dict[tuple, Value] = {}

    def leaf(self, variable: Any, type_: Type) -> Value:
        """The value of an input, parameter or constant."""
        if variable not in self.leaves:
            node = Node(self, None, [], {}, [type_], variable)
            self.nodes.append(node)
            self.leaves[variable] = node.outputs[0]
        return self.leaves[variable]

    def fill(self, number: float, type_: Type) -> Value:
        """A number everywhere."""
        return self.node("fill", [], value=float(number), type=type_)

    def random(self, op: str, type_: Type, purpose: int) -> Value:
        """Random numbers of a type."""
        return self.node(op, [], purpose=int(purpose), type=type_)

    def node(self, op: str, inputs: Sequence[Any], **attrs: Any) -> Any:
        """The value (or list of values) of an op; an equal node that is there already is taken."""
        record = OPS[op]
        values = self._values(inputs)
        if op == "row_count":  # one for each row space
            values = [self._rows.setdefault((values[0].type.axes, values[0].type.dtype), values[0])]
        if record.kernel == "expand":
            return record.expand(self, values, attrs, False)
        if any(v.sparse for v in values):
            values, made = accept(self, op, values, attrs)
            if made is not None:
                return made
        if len(values) > 1 and op != "assign" and not record.own_rows and len({v.type.axes for v in values}) > 1:
            joined = join_axes([v.type for v in values])
            values = [self.in_space(v, joined) if v.type.axes else v for v in values]
        short = simplify(self, op, values, attrs)
        if short is not None:
            return short
        key = (op, tuple(id(v) for v in values), tuple(sorted(attrs.items(), key=lambda kv: kv[0])))
        effect = op == "assign" or record.writes
        known = self._known.get(key) if not effect else None
        if known is None:
            types = record.infer([v.type for v in values], attrs)
            node = Node(self, record, values, attrs, types)
            self.nodes.append(node)
            if effect:
                self.effects.append(node)
            known = node.outputs
            self._known[key] = known
        return known[0] if len(known) == 1 else known

    def in_space(self, v: Value, axes: tuple) -> Value:
        """The value over a larger row space: repeated at every step, or over all rows."""
        if v.type.axes == axes:
            return v
        if not v.type.axes:
            return self.node("expand", [v], type=v.type._replace(axes=axes))
        return self.node("move_rows", [v], move=("broadcast",), axes=axes)

    def space(self, axes: tuple, parent: tuple, kind: tuple, value: Value | None) -> tuple[tuple, int]:
        """(axes, number) of a row space made while running; steps cut out of sequences may share axes, others get some of their own."""
        found = SpaceDef(axes, parent, kind, value)
        for i, known in enumerate(self.spaces):
            if known[1:] == found[1:]:
                return known.axes, i
        own = axes[-1].name.startswith(("whereNode", "toSequence", "one step", "all steps"))  # lengths of its own
        if own and any(d.axes == axes for d in self.spaces):
            found = found._replace(axes=(*axes[:-1], Axis(f"{axes[-1].name} {len(self.spaces)}")))
        self.spaces.append(found)
        return found.axes, len(self.spaces) - 1

    def longest_of(self, axes: tuple) -> int:
        """Steps of the longest sequence of a row space, or as many as it may have. The graph then holds for that alone."""
        space = self.sizes.get(axes)
        if space is None:
            made = next(d for d in self.spaces if d.axes == axes)
            most = made.kind[1] if made.kind[0] == "lengths" else self.longest_of(made.parent)
            if made.kind[0] in ("cut", "every") and made.parent in self.sizes:
                most = getattr(self.sizes[made.parent], made.kind[0])(*made.kind[1:]).steps
            self.bounded[axes] = most
            return most
        if not any(d.axes == axes for d in self.spaces):
            self.longest[axes] = space.steps
        return space.steps

    def rows_of(self, axes: tuple) -> int:
        """Rows of a row space that are the size of a static axis. The graph then holds for that number alone."""
        if axes not in self.sizes:
            return next(d.kind[1] for d in self.spaces if d.axes == axes)
        self.counted[axes] = int(self.sizes[axes])
        return self.counted[axes]

    def batch_of(self, rows: int) -> tuple:
        """A row space of so many rows: the batch where it has as many or nothing is fed of it, else one of its own."""
        axes = (Axis.default_batch_axis(),)
        if axes in self.sizes:
            if self.rows_of(axes) == rows:
                return axes
        elif all(d.axes != axes or d.kind[1] == rows for d in self.spaces):
            return self.space(axes, (), ("rows", rows), None)[0]
        return self.space((Axis.batch_of(rows),), (), ("rows", rows), None)[0]

    def goes_on(self, axes: tuple) -> bool:
        """Whether sequences of a row space may go on from the minibatch before."""
        return ("begins", axes) in self.sizes

    def carry(self, moved: Value, steps: int, start: Value) -> Value:
        """The initial state of a delay, and where its sequence goes on what the last `steps` steps before were."""
        t = moved.type
        batch = t.axes[:1]
        last = Input((steps, *t.shape), t.dtype, False, False, batch, "last steps")
        valid = Input((steps,), t.dtype, False, False, batch, "steps before")
        self.carries.append(Carry(moved, steps, last, valid))

        def rows(v: Variable, shape: tuple) -> Value:
            return self.leaf(v, v.type).node("move_rows", move=("head", steps), axes=t.axes, shape=shape)

        return rows(valid, ()).reshape((1,) * len(t.shape)).select(rows(last, t.shape), start)

    def carried(self) -> list[Value]:
        """The last steps of what each such delay delays."""
        return [
            c.moved.producer.inputs[0].node(
                "move_rows", move=("tail", c.steps), axes=c.moved.type.axes[:1], shape=(c.steps, *c.moved.type.shape)
            )
            for c in self.carries
        ]

    def delay(self, type_: Type, steps: int) -> Node:
        """A delay of a value that is still to come: `close` gives it."""
        node = Node(self, OPS["move_rows"], [], {"move": ("shift", steps), "axes": type_.axes}, [type_])
        self.nodes.append(node)
        self.cycles.append(node)
        return node

    def close(self, delay: Node, v: Value) -> None:
        """Says what a delay delays."""
        delay.inputs = [dense(v)]

    def _values(self, inputs: Sequence[Any]) -> list[Value]:
        dtype = next((v.type.dtype for v in inputs if isinstance(v, Value)), None)
        return [v if isinstance(v, Value) else self.fill(v, Type((), dtype, ())) for v in inputs]

    def prune(self) -> None:
        """Drops what neither an output nor an effect needs."""
        stack = [v.producer for v in self.outputs] + list(self.effects)
        needed = set(map(id, stack))
        while stack:
            n = stack.pop()
            for v in n.inputs:
                if id(v.producer) not in needed:
                    needed.add(id(v.producer))
                    stack.append(v.producer)
        self.whole = self.nodes, self.cycles
        self.nodes = [n for n in self.nodes if id(n) in needed]
        self.cycles = [n for n in self.cycles if id(n) in needed]

    def __str__(self) -> str:
        lines = [repr(n) for n in self.nodes]
        lines.append("outputs " + ", ".join(f"%{v.number}" for v in self.outputs))
        return "\n".join(lines)


def _number(v: Value) -> float | None:
    return v.producer.attrs["value"] if v.producer.name == "fill" else None


def _same(v: Value, w: Value) -> bool:
    """Whether an op on both has v's type."""
    s, t = v.type, w.type
    if len(t.shape) > len(s.shape) or (t.axes and t.axes != s.axes):
        return False
    return all(b in (1, a) for a, b in zip(s.shape[len(s.shape) - len(t.shape) :], t.shape, strict=True))


_FOLD = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "div": lambda a, b: a / b if b else math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b),
}


def simplify(g: Graph, op: str, x: list[Value], attrs: dict[str, Any]) -> Value | None:
    """A shorter way to the same value, or None."""
    if op in _FOLD:
        numbers = [_number(v) for v in x]
        if all(n is not None for n in numbers) and len({v.type for v in x}) == 1:
            return g.fill(_FOLD[op](*numbers), x[0].type)
        if op in ("add", "mul"):
            neutral = 0.0 if op == "add" else 1.0
            if numbers[1] == neutral and _same(x[0], x[1]):
                return x[0]
            if numbers[0] == neutral and _same(x[1], x[0]):
                return x[1]
        elif op in ("sub", "div") and numbers[1] == (0.0 if op == "sub" else 1.0) and _same(x[0], x[1]):
            return x[0]
        elif op == "neg" and x[0].producer.name == "neg":
            return x[0].producer.inputs[0]
    elif op == "alias":
        return x[0]
    elif op == "reshape":
        shape = OPS["reshape"].infer([x[0].type], attrs)[0].shape
        if shape == x[0].type.shape:
            return x[0]
        if x[0].producer.name == "reshape" and x[0] not in g.held:
            return x[0].producer.inputs[0].reshape(shape)
        if _number(x[0]) is not None:
            return g.fill(_number(x[0]), x[0].type._replace(shape=shape))
    elif op == "expand":
        if x[0].type == attrs["type"]:
            return x[0]
        if _number(x[0]) is not None:
            return g.fill(_number(x[0]), attrs["type"])
    elif op.startswith("reduce_") and not attrs["rows"] and all(x[0].type.shape[a] == 1 for a in attrs["axes"]):
        return x[0]
    return None


def sum_to(v: Value, type_: Type) -> Value:
    """The sum of v over all that a broadcast from `type_` repeats: the transpose of broadcasting.

    Factors that do not vary over what is summed are taken out of the sum, so that equal sums are shared and passes over data saved.
    """
    if v.type.axes and type_.axes and v.type.axes != type_.axes:
        v = v.node("fold_steps", kind="sum")
    if v.type.shape == type_.shape and v.type.axes == type_.axes:
        return v
    rows = bool(v.type.axes) and not type_.axes
    lead = len(v.type.shape) - len(type_.shape)
    axes = tuple(i for i, n in enumerate(v.type.shape) if i < lead or (type_.shape[i - lead] == 1 and n != 1))
    return _sum(v, axes, rows).reshape(type_.shape)


def _sum(v: Value, axes: tuple[int, ...], rows: bool) -> Value:
    g, rank, p = v.graph, len(v.type.shape), v.producer

    def fixed(u: Value) -> bool:
        lead = rank - len(u.type.shape)
        return not (rows and u.type.axes) and all(a < lead or u.type.shape[a - lead] == 1 for a in axes)

    def whole(u: Value) -> bool:
        return u.type.shape == v.type.shape and u.type.axes == v.type.axes

    if p.name == "neg":
        return -_sum(p.inputs[0], axes, rows)
    if p.name in ("mul", "div") and whole(p.inputs[0]) and fixed(p.inputs[1]):
        return g.node(p.name, [_sum(p.inputs[0], axes, rows), p.inputs[1]])
    if p.name == "mul" and whole(p.inputs[1]) and fixed(p.inputs[0]):
        return _sum(p.inputs[1], axes, rows) * p.inputs[0]
    return g.node("reduce_sum", [v], axes=axes, rows=rows)
