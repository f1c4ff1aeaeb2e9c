"""The nodes of a graph: a `Primitive` is one op over operands, a `Block` one whose meaning is a graph of its own."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cogkit import variables
from cogkit.errors import Misfit, user_line
from cogkit.inference import Typed
from cogkit.op import OPS, Op, Type
from cogkit.variables import BoundPlaceholder, Output, Variable
from cogkit.walks import cyclic, nodes_of

if TYPE_CHECKING:
    from cogkit.functions import Function

__all__ = ["Block", "Combined", "Primitive", "refresh", "substitute"]


class Primitive(Typed):
    """One op over operands. `types` and `outputs` follow from the op's record; `attributes` are its settings."""

    def __init__(
        self, op: Op, operands: Sequence[Variable], attributes: dict[str, Any], name: str = "", outputs: int = 1, where: str = ""
    ):
        super().__init__()
        self.op = op
        self.operands = list(operands)
        self.attributes = attributes
        self.name = name
        self.where = where or user_line()
        self.custom: dict[str, Any] = {}  # what a user notes about it
        self.outputs: list[Variable] = [Output(self, i, name) for i in range(outputs)]
        _ = self.types  # infer now, so that an error shows where the node is made

    @property
    def label(self) -> str:
        """CNTK's name of the op."""
        return self.op.label

    @property
    def uid(self) -> str:
        """A name that is unique in this process."""
        return f"{self.label}{self.outputs[0].serial}"

    def _widened(self, v: Variable) -> Variable:
        return Primitive(OPS["cast"], [v], {"dtype": "float64"}, "", 1, self.where).outputs[0]

    def over(self, operands: Sequence[Variable]) -> Primitive:
        """The same op over other operands, made at the same line."""
        return Primitive(self.op, operands, dict(self.attributes), self.name, len(self.outputs), self.where)

    def stored(self) -> dict[str, Any]:
        """What a model file holds of it beside its operands."""
        return {"op": self.op.name, "name": self.name, "attributes": dict(self.attributes)}


class Combined(Primitive):
    """Several values seen as the outputs of one function: the outputs are the operands themselves."""

    def __init__(self, operands: Sequence[Variable], name: str = ""):
        super().__init__(OPS["combine"], operands, {}, name, 0)
        self.outputs = self.operands

    @property
    def uid(self) -> str:
        return f"Combine{self.operands[0].serial}"

    @property
    def types(self) -> list[Type]:
        return [v.type for v in self.operands]

    def over(self, operands: Sequence[Variable]) -> Combined:
        """The other operands as outputs, under the same name."""
        return Combined(operands, self.name)


class Block(Primitive):
    """A node whose meaning is a graph of its own over placeholders, each standing for one operand."""

    def __init__(
        self,
        label: str,
        composite: Function,
        arguments: Sequence[tuple[BoundPlaceholder, Variable]],
        name: str = "",
        attributes=None,
        where: str = "",
    ):
        self.composite = composite
        self.inner = [p for p, _ in arguments]
        self._label = label
        for p, v in arguments:
            p.stands_for = v
        if any(v.type.shape is not None for _, v in arguments):
            # the inner graph was made before its placeholders stood for these
            for node in nodes_of(composite.root):
                node.forget()
            try:
                refresh(composite)
            except Misfit as e:
                raise e.inside(label, name, where or user_line()) from None
        super().__init__(OPS["block"], [v for _, v in arguments], attributes or {}, name, len(composite.outputs), where)

    @property
    def label(self) -> str:
        return self._label

    def _settle(self) -> None:
        try:
            types = [v.type for v in self.composite.outputs]
        except Misfit as e:
            raise e.inside(self.label, self.name, self.where) from None
        if any(t.shape is None or t.axes is None for t in types):
            self._unknown = variables.edits, types
        else:
            self._types = types

    def _guess_here(self, guess: Any) -> list[Type]:
        return [v.type for v in self.composite.outputs]

    def forget(self) -> None:
        super().forget()
        for node in nodes_of(self.composite.root):
            node.forget()


def substitute(nodes: Sequence[Primitive], mapping: dict[int, Variable]) -> None:
    """Puts other variables in the place of some operands, by their id; what was inferred is forgotten, and cycles that this closes are found."""
    for node in nodes:
        node.operands[:] = [mapping.get(id(v), v) for v in node.operands]
        if isinstance(node, Block):
            for p, v in zip(node.inner, node.operands, strict=True):
                p.stands_for = v
        node.forget()
    own = {id(node): node for node in _with_inner(nodes)}
    delays = [node for node in own.values() if node.op.delays]
    if delays:
        # a cycle that leaves these nodes closes by what was put in
        apart = all(not v.is_output or id(v.node) in own for v in mapping.values())
        around = cyclic(nodes, own if apart else None)
        for node in delays:
            node.cyclic = node.cyclic or node in around


def _with_inner(nodes: Iterable[Primitive]) -> Iterator[Primitive]:
    """The nodes, and those inside of blocks."""
    for node in nodes:
        yield node
        if isinstance(node, Block):
            yield from _with_inner(nodes_of(node.composite.root))


def refresh(function: Function, without: Container[Variable] = ()) -> None:
    """Infers the types of a graph again, producers first. without: values whose producers are left as they are."""
    for node in nodes_of(function.root, without=without):
        if isinstance(node, Block):
            try:
                refresh(node.composite)
            except Misfit as e:
                raise e.inside(node.label, node.name, node.where) from None
        _ = node.types
