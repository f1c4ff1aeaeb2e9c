"""Pass 1, resolve: the user's graph becomes primitives with every shape, type and row space known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from cogkit.components import components
from cogkit.errors import Misfit, sentence
from cogkit.inference import told
from cogkit.lowering.ir import Graph, Node, Value
from cogkit.nodes import Block, Primitive
from cogkit.op import Type
from cogkit.ops.sequence import delayed as delayed_value
from cogkit.variables import Constant, Variable

__all__ = ["resolve"]

ROUNDS = 8  # of taking shapes around cycles to be what came out


def resolve(
    wanted: Sequence[Variable],
    feeds: Mapping[Variable, Type],
    training: bool,
    sizes: Mapping[Any, int] | None = None,
    inside: Sequence[Variable] = (),
) -> tuple[Graph, list[Value]]:
    """The primitives that compute the wanted variables; their values, and those of variables anywhere inside the same graph.

    feeds: the type of each fed variable, without free dimensions. training: whether dropout drops and statistics move. sizes: rows of the
    fed row spaces. Raises `ValueError` for inputs that are not fed, shapes that do not fit and cycles without a delay.
    """
    assumed: dict[int, tuple[int, ...]] = {}  # sizes around cycles that only the feed says
    for left in reversed(range(ROUNDS)):
        graph = Graph(sizes)
        try:
            resolver = _Resolver(graph, feeds, training, assumed, {id(_maker(v)) for v in inside})
            return graph, resolver.run(wanted) + [resolver.inside(v) for v in inside]
        except _Assumed as e:
            if not left or assumed.get(e.node) == e.shape:  # a state that grows from step to step
                raise e.error from None
            assumed[e.node] = e.shape
    raise AssertionError


def _maker(v: Variable) -> Any:
    """The node that computes an output: of a block the one inside."""
    while isinstance(v.node, Block):
        v = v.node.composite.outputs[v.index]
    return v.node


class _Assumed(Exception):
    """The shape around a cycle is another one than was taken for true."""

    def __init__(self, node: int, shape: tuple[int, ...], error: ValueError):
        self.node, self.shape, self.error = node, shape, error


def no_delay(node: Primitive) -> Misfit:
    """The error of a cycle that no delay cuts."""
    return Misfit(
        node.label,
        node.name,
        node.where,
        "a delay in every cycle",
        "a value that depends on itself",
        "put C.sequence.past_value or C.sequence.future_value on the way",
    )


class _Frame(NamedTuple):
    """Where a variable is seen from: the user's graph, or the inside of one block of the frame outside."""

    block: Block | None
    outside: _Frame | None


def _outside(error: Misfit, frame: _Frame) -> Misfit:
    """The same error, told of the blocks around it."""
    while frame.block is not None:
        error = error.inside(frame.block.label, frame.block.name, frame.block.where)
        frame = frame.outside  # type: ignore[assignment]
    return error


class _Resolver:
    """Blocks are entered, so that a cycle through several of them is one of primitives. A node is known by itself and its frame."""

    def __init__(
        self,
        graph: Graph,
        feeds: Mapping[Variable, Type],
        training: bool,
        assumed: Mapping[int, tuple[int, ...]],
        held: Set[int] = frozenset(),
    ):
        self.graph, self.feeds, self.training, self.assumed = graph, feeds, training, assumed
        self.held = held  # nodes whose values' gradients are wanted
        self.made: dict[tuple[int, int], list[Value]] = {}
        self.frames: dict[tuple[int, int], _Frame] = {}
        self.bound: dict[int, dict[int, Variable]] = {}  # block -> its placeholder -> the operand
        self.top = _Frame(None, None)

    def run(self, wanted: Sequence[Variable]) -> list[Value]:
        sources = [self.source(v, self.top) for v in wanted]
        delayed: list[tuple[Node, Primitive, _Frame]] = []
        for node, frame, cyclic in self.order([s for s in sources if s is not None]):
            self.graph.origin = node
            try:
                if cyclic:
                    values = self.lower_delay(node, frame, delayed)
                else:
                    values = self.lower(node, [self.value(v, frame) for v in node.operands])
            except Misfit as e:
                raise _outside(e, frame) from None
            self.made[id(node), id(frame)] = list(values) if isinstance(values, (list, tuple)) else [values]
            if id(node) in self.held:
                self.graph.held.update(self.made[id(node), id(frame)])
        for delay, node, frame in delayed:
            self.close(delay, self.value(node.operands[0], frame), node)
        self.graph.origin = None
        return [self.value(v, self.top) for v in wanted]

    def inside(self, v: Variable) -> Value:
        """The value of an output of a node, wherever that stands. Raises `ValueError` for one that was not computed."""
        while v.is_output and isinstance(v.node, Block):
            v = v.node.composite.outputs[v.index]
        for (node, _), values in self.made.items():
            if v.is_output and node == id(v.node):
                return values[v.index]
        raise ValueError(f"expected an output of a node that is computed, got {v!r}")

    # where a variable comes from ---------------------------------------------------------------------------------------

    def seen(self, v: Variable, frame: _Frame) -> tuple[Variable, _Frame]:
        """The variable that v is: placeholders of blocks are their operands, outputs of blocks those of the graph inside."""
        while v not in self.feeds:
            if v.is_output and isinstance(v.node, Block):
                key = (id(v.node), id(frame))
                if key not in self.frames:
                    self.frames[key] = _Frame(v.node, frame)
                v, frame = v.node.composite.outputs[v.index], self.frames[key]
            elif frame.block is not None and not v.is_output:
                around: _Frame | None = frame  # a graph inside may read placeholders of the blocks around it
                while around is not None and around.block is not None and id(v) not in self.bound_in(around.block):
                    around = around.outside
                if around is None or around.block is None:
                    break
                v, frame = self.bound_in(around.block)[id(v)], around.outside  # type: ignore[assignment]
            else:
                break
        return v, frame

    def bound_in(self, block: Block) -> dict[int, Variable]:
        """The operands of a block by its placeholders."""
        found = self.bound.get(id(block))
        if found is None:
            found = self.bound[id(block)] = {id(p): v for p, v in zip(block.inner, block.operands, strict=True)}
        return found

    def source(self, v: Variable, frame: _Frame) -> tuple[Primitive, _Frame] | None:
        """The primitive that makes a variable; None for leaves and what is fed."""
        v, frame = self.seen(v, frame)
        return (v.node, frame) if v.is_output and v not in self.feeds else None

    def order(self, roots: Sequence[tuple[Primitive, _Frame]]) -> list[tuple[Primitive, _Frame, bool]]:
        """All primitives, producers first, and whether each is a delay that cuts a cycle: it comes before what it delays."""
        known: dict[tuple[int, int], tuple[Primitive, _Frame]] = {(id(n), id(f)): (n, f) for n, f in roots}

        def key(v: Variable, frame: _Frame) -> tuple[int, int] | None:
            found = self.source(v, frame)
            if found is None:
                return None
            known.setdefault((id(found[0]), id(found[1])), found)
            return id(found[0]), id(found[1])

        def inputs(k: tuple[int, int]) -> list[tuple[int, int]]:
            node, frame = known[k]
            return [m for m in (key(v, frame) for v in node.operands) if m is not None]

        out = []
        for part in components(list(known), inputs):
            mine, cuts = set(part), set()
            for k in part:
                node, frame = known[k]
                if node.op.delays and key(node.operands[0], frame) in mine:
                    cuts.add(k)

            def uncut(k: tuple[int, int], mine: set = mine, cuts: set = cuts) -> list[tuple[int, int]]:
                node, frame = known[k]
                operands = node.operands[1:] if k in cuts else node.operands
                return [m for m in (key(v, frame) for v in operands) if m in mine]  # type: ignore[misc]

            for single in components(part, uncut) if len(part) > 1 or cuts else [part]:
                node, frame = known[single[0]]
                if len(single) > 1:
                    raise _outside(no_delay(node), frame)
                out.append((node, frame, single[0] in cuts))
        return out

    # nodes of the lowered graph ----------------------------------------------------------------------------------------

    def lower_delay(self, node: Primitive, frame: _Frame, delayed: list) -> Value:
        """A delay whose operand is still to come: its type is known from the user's graph."""
        x = node.operands[0]
        t = x.type
        if t.shape is None or t.axes is None:
            raise Misfit(
                node.label,
                node.name,
                node.where,
                "a value of known shape around its cycle",
                str(t),
                "say the shape of the placeholder",
            )
        t = t._replace(shape=self.assumed.get(id(node), tuple(max(n, 1) for n in t.shape)))
        start = self.value(node.operands[1], frame)
        steps = node.attributes["steps"]
        delay = self.graph.delay(t, steps)
        delayed.append((delay, node, frame))
        return delayed_value(self.graph, t, delay.outputs[0], start, steps)

    def close(self, delay: Node, v: Value, node: Primitive) -> None:
        t = delay.outputs[0].type
        if v.type.shape != t.shape or v.type.dtype != t.dtype:
            error = Misfit(node.label, node.name, node.where, f"a value of type {t} around its cycle", str(v.type))
            raise _Assumed(id(node), v.type.shape, error) if v.type.dtype == t.dtype else error
        self.graph.close(delay, self.graph.in_space(v, t.axes))

    def lower(self, node: Primitive, inputs: list[Value]) -> Any:
        op = node.op
        try:
            if op.kernel == "expand":
                return op.expand(self.graph, inputs, node.attributes, self.training)
            return self.graph.node(op.name, inputs, **node.attributes)
        except ValueError as e:
            raise told(e, node) from None

    def value(self, v: Variable, frame: _Frame) -> Value:
        v, frame = self.seen(v, frame)
        if v in self.feeds:
            return self.graph.leaf(v, self.feeds[v])
        if v.is_output:
            return self.made[id(v.node), id(frame)][v.index]
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
