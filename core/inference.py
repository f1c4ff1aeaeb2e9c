"""The types of a node: inferred by its op's record, or found around a cycle.

In a cycle a delay's type is that of the value it delays, which depends on it: it is guessed from what is known of the other
operands on the way, and must then come out of the inference again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cogkit import variables
from cogkit.errors import Misfit
from cogkit.op import FREE, INFERRED, Op, Type, broadcast, check_types, row_space, shown
from cogkit.variables import Constant, Parameter, Variable
from cogkit.walks import leaves_of, nodes_of, producers

__all__ = ["Typed", "told", "guesses"]


def told(error: ValueError, node: Typed) -> ValueError:
    """What an op's record says of a misfit, (wish, fact, way), as a sentence about the node; other errors as they are."""
    if len(error.args) != 1 or not isinstance(error.args[0], tuple):
        return error
    wish, fact, way, *clash = error.args[0]
    if clash:  # row spaces of two operands: say whose
        a, b = (node.operands[i] for i in clash[0])
        spaces = [row_space(v.type.axes) for v in (a, b)]
        if spaces[0] == spaces[1]:  # batches of other sizes, which is known when they run
            spaces = fact.split(" and ")
        fact = f"{spaces[0]} of '{a.name or a.uid}' and {spaces[1]} of '{b.name or b.uid}'"
    return Misfit(node.label, node.name, node.where, wish, fact, way)


class _Guess(NamedTuple):
    """While the types of a cycle are being found: what is taken to be true, by node; what was in the round before.

    bold: operands that are not known are no larger than those that are.
    """

    known: dict[int, list[Type]]
    before: dict[int, list[Type]]
    bold: bool
    nodes: list[Typed]  # those in `known`, producers first


guesses: list[_Guess] = []
_UNKNOWN = Type(None, None, None)


class Typed:
    """What a node has for its types: `types`, and `forget` after an edit."""

    op: Op
    operands: list[Variable]
    attributes: dict[str, Any]
    outputs: list[Variable]
    name: str
    where: str
    label: str
    composite: Any = None  # the inner graph, for a block
    cyclic = False  # of a delay: whether what it delays depends on it

    def __init__(self):
        self._types: list[Type] | None = None
        self._unknown: tuple[int, list[Type]] = (
            -1,
            [],
        )  # what is known while placeholders are open, and the edit it was found at
        self._hint: tuple[tuple[int, bool], list[Type]] | None = None  # what was guessed last, at which edit and how boldly

    @property
    def types(self) -> list[Type]:
        """The output types; unknown parts are None until placeholders are replaced."""
        if self._types is None:
            if guesses:
                return self._guessed(guesses[-1])
            if self._unknown[0] != variables.edits:
                self._settle_upstream()
        return self._unknown[1] if self._types is None else self._types

    def _settle_upstream(self) -> None:
        """Settles the types of all nodes that this one waits for, producers first, and its own: not by recursion, chains may be long."""
        done: set[int] = set()
        stack: list[tuple[Typed, bool]] = [(self, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                node._settle()
            elif id(node) not in done and node._types is None and node._unknown[0] != variables.edits:
                done.add(id(node))
                stack.append((node, True))
                if node.cyclic:  # what it delays is guessed
                    stack.extend((v.node, False) for v in node.operands[:0:-1] if v.is_output)
                else:
                    stack.extend((n, False) for n in reversed(producers(node)))

    def _settle(self) -> None:
        """Infers the types, or notes what is known of them while placeholders are open."""
        if self.op.delays:
            self._types = self._of_delay()
            types = [_UNKNOWN]
        else:
            types = self._operand_types()
        if self._types is None:
            if any(t.shape is None or t.axes is None for t in types):
                dtype = next((t.dtype for t in types if t.dtype is not None), None)
                self._unknown = variables.edits, [Type(None, dtype, None)] * len(self.outputs)
            else:
                self._types = self._infer(types)

    def _of_delay(self) -> list[Type] | None:
        """The type of a delay, also in a cycle; None while it is not known."""
        if not self.cyclic:
            types = self._operand_types()
            return None if any(t.shape is None or t.axes is None for t in types) else self._infer(types)
        found = self._guess(False)
        for v in self.operands[1:]:
            if isinstance(v, Constant) and v.given is not None and found.dtype is not None:
                v.take_type(found.dtype)
        rest = [v.type for v in self.operands[1:]]
        if found.axes is None or any(t.shape is None or t.axes is None for t in rest):
            return None
        if not any(a.is_sequence_axis for a in found.axes) and any(v.type.axes is None for v in leaves_of(self)):
            return None  # what is still to come may bring the sequence axis
        if found.shape is not None:
            return self._around([found, *rest])
        # nothing on the way says the shape: that of the initial state may fit, else that of values which may stretch
        for shape in [t.shape for t in rest[:1]] + [self._guess(True).shape]:
            if shape is not None:
                try:
                    return self._around([Type(shape, found.dtype or next((t.dtype for t in rest), None), found.axes), *rest])
                except Misfit:
                    self._forget_cycle()
        return None

    def _forget_cycle(self) -> None:
        self._types = None
        for node in nodes_of(self):
            node.forget()

    def _around(self, types: list[Type]) -> list[Type]:
        """The type of a delay that is taken to delay a value of a type, where that type comes out again; raises `Misfit` where it does not."""
        for _ in range(3):
            self._types = self._infer(types)
            again = self.operands[0].type
            if again.shape is None or again == types[0]:
                return self._types
            types = [again, *types[1:]]
            self._forget_cycle()
        raise Misfit(
            self.label, self.name, self.where, "a value of one type around its cycle", f"{self._infer(types)[0]} and {types[0]}",
            "the state of a recurrence keeps its shape from step to step",
        )  # fmt: skip

    def _guess(self, bold: bool) -> Type:
        """The type of the value that this delay delays, as far as the other operands on the way say it."""
        before: dict[int, list[Type]] = {}
        while True:
            guess = _Guess({}, before, bold, [])
            guesses.append(guess)
            try:
                found = self.operands[0].type
            except Misfit:
                if not bold:
                    raise
                return _UNKNOWN
            finally:
                guesses.pop()
            if found.shape is not None and found.axes is not None:
                return found
            if guess.known == before:
                self._keep(guess)
                return found
            before = guess.known

    def _keep(self, guess: _Guess) -> None:
        """Keeps what was guessed of nodes outside of this delay's cycle: they say the same to whatever asks next."""
        ring, size = {id(self)}, 0
        while size < len(ring):
            size = len(ring)
            ring.update(id(n) for n in guess.nodes if any(id(p) in ring for p in producers(n)))
        for node in guess.nodes:
            if id(node) not in ring:
                node._hint = (variables.edits, guess.bold), guess.known[id(node)]

    def _guessed(self, guess: _Guess) -> list[Type]:
        """What can be said of the types; a node that is asked for again meanwhile knows what it did in the round before."""
        if id(self) not in guess.known:
            met: set[int] = set()
            stack: list[tuple[Typed, bool]] = [(self, False)]
            while stack:
                node, leaving = stack.pop()
                if leaving:
                    guess.known[id(node)] = node._guess_here(guess)
                    guess.nodes.append(node)
                elif node._hint is not None and node._hint[0] == (variables.edits, guess.bold):
                    guess.known[id(node)] = node._hint[1]
                elif id(node) not in met and id(node) not in guess.known and node._types is None:
                    met.add(id(node))
                    guess.known[id(node)] = guess.before.get(id(node), [_UNKNOWN] * len(node.outputs))
                    stack.append((node, True))
                    stack.extend((n, False) for n in reversed(producers(node)))
        return guess.known[id(self)]

    def _guess_here(self, guess: _Guess) -> list[Type]:
        """The same, from what was found of the operands."""
        types = [v.type for v in self.operands]
        if self.op.delays:
            return types[:1]
        known = all(t.shape is not None and t.axes is not None for t in types)
        if known and not any(n == INFERRED for t in types for n in t.shape):
            return self._infer(self._operand_types())
        return self._partial(types, guess.bold)

    def _partial(self, types: list[Type], bold: bool) -> list[Type]:
        """A guess from the operands that are known: their row space, and where the op's shape rule allows it a shape."""
        known = [t for t in types if t.axes]
        axes = max((t.axes for t in known), key=len) if known else None
        typed = [t for t, v in zip(types, self.operands, strict=True) if not (isinstance(v, Constant) and v.given is not None)]
        dtype = next((t.dtype for t in typed if t.dtype is not None), None)  # a number has none of its own
        shape = None
        if self.op.kernel == "pointwise":
            shapes = [t for t in types if t.shape is not None]
            try:
                shape = broadcast([t._replace(dtype=None, axes=()) for t in shapes]).shape if shapes else None
            except ValueError:
                shape = None
            if shape is not None and not bold and len(shapes) < len(types) and all(n == 1 for n in shape):
                shape = None  # the operand that is not known may be larger
        elif self.op.name == "times" and types[1].shape is not None:
            shape = types[1].shape[len(types[1].shape) - self.attributes["output_rank"] :]
        return [Type(shape, dtype, axes)] * len(self.outputs)

    def _operand_types(self) -> list[Type]:
        types = [v.type for v in self.operands]
        numbers = [isinstance(v, Constant) and v.given is not None for v in self.operands]
        if len({t.dtype for t in types if t.dtype is not None}) > 1 and any(t.dtype == np.float64 for t in types):
            for i, v in enumerate(self.operands):  # a float32 constant beside float64 operands is widened, as in CNTK
                if v.is_constant and not numbers[i] and not v.assigned and types[i].dtype == np.float32:
                    self.operands[i] = self._widened(v)
                    types[i] = self.operands[i].type
        if any(numbers) and not all(numbers):  # numbers take the element type of the others; unknown until that is known
            dtype = next((t.dtype for t, n in zip(types, numbers, strict=True) if not n and t.dtype is not None), None)
            for i, v in enumerate(self.operands):
                if numbers[i]:
                    if dtype is not None:
                        v.take_type(dtype)
                    types[i] = types[i]._replace(dtype=dtype)
        return types

    def _infer(self, types: list[Type]) -> list[Type]:
        try:
            check_types(self.op, types)
            if self.op.bind is not None and any(n == -1 for t in types for n in t.shape):
                for v, shape in zip(self.operands, self.op.bind(types, self.attributes), strict=True):
                    if isinstance(v, (Parameter, Constant)) and shape != v.shape:
                        if FREE in shape:
                            raise ValueError(
                                (f"a known size for '{v.name or v.uid}' to take", f"{shown(shape)}", "a free size is no size yet")
                            )
                        v.bind_shape(shape)
                types = self._operand_types()
            return self.op.infer(types, self.attributes)
        except ValueError as e:
            raise told(e, self) from None

    def forget(self) -> None:
        """Drops the inferred types after an edit."""
        self._types, self._unknown, self._hint = None, (-1, []), None
