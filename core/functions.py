"""Functions: the nodes of a graph, and graphs of nodes seen as one.

A `Primitive` is one op over operands; a `Block` is a primitive whose meaning is a graph of its own; a `Function` is the graph that
ends in a primitive. Ops return functions. Nothing runs here: `runtime`, set by the engine, computes values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from cogkit import variables
from cogkit.axis import Axis
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import Misfit, here, sentence, user_line
from cogkit.op import FREE, INFERRED, OPS, Op, Type, broadcast, row_space, shown
from cogkit.variables import Constant, Input, Operators, Output, Parameter, Placeholder, Variable

__all__ = ["BlockFunction", "CloneMethod", "Function", "apply"]

runtime: Any = None  # set by the engine: evaluates functions; functions never import it


class CloneMethod(Enum):
    """What `clone` does with parameters: share them, copy them, or freeze copies as constants."""

    share = "share"
    clone = "clone"
    freeze = "freeze"


def told(error: ValueError, node: Primitive) -> ValueError:
    """What an op's record says of a misfit, (wish, fact, way), as a sentence about the node; other errors as they are."""
    if len(error.args) != 1 or not isinstance(error.args[0], tuple):
        return error
    wish, fact, way, *clash = error.args[0]
    if clash:  # row spaces of two operands: say whose
        a, b = (node.operands[i] for i in clash[0])
        fact = f"{row_space(a.type.axes)} of '{a.name or a.uid}' and {row_space(b.type.axes)} of '{b.name or b.uid}'"
    return Misfit(node.label, node.name, node.where, wish, fact, way)


class _Guess(NamedTuple):
    """While the types of a cycle are being found: what is taken to be true, by node; what was in the round before.

    bold: operands that are not known are no larger than those that are.
    """

    known: dict[int, list[Type]]
    before: dict[int, list[Type]]
    bold: bool


_guesses: list[_Guess] = []
_UNKNOWN = Type(None, None, None)


class Primitive:
    """One op over operands. `types` and `outputs` follow from the op's record; `attributes` are its settings.

    In a cycle a delay's type is that of the value it delays, which depends on it: it is guessed from what is known of the other
    operands on the way, and must then come out of the inference again.
    """

    composite: Function | None = None  # the inner graph, for a block

    def __init__(
        self, op: Op, operands: Sequence[Variable], attributes: dict[str, Any], name: str = "", outputs: int = 1, where: str = ""
    ):
        self.op = op
        self.operands = list(operands)
        self.attributes = attributes
        self.name = name
        self.where = where or user_line()
        self._types: list[Type] | None = None
        self._unknown: tuple[int, list[Type]] = (
            -1,
            [],
        )  # what is known while placeholders are open, and the edit it was found at
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

    @property
    def types(self) -> list[Type]:
        """The output types; unknown parts are None until placeholders are replaced."""
        if self._types is None:
            if _guesses:
                return self._guessed(_guesses[-1])
            if self._unknown[0] == variables.edits:
                return self._unknown[1]
            if self.op.delays:
                self._types = self._of_delay()
                if self._types is not None:
                    return self._types
                types = [_UNKNOWN]
            else:
                types = self._operand_types()
            if any(t.shape is None or t.axes is None for t in types):
                dtype = next((t.dtype for t in types if t.dtype is not None), None)
                self._unknown = variables.edits, [Type(None, dtype, None)] * len(self.outputs)
                return self._unknown[1]
            self._types = self._infer(types)
        return self._types

    def _of_delay(self) -> list[Type] | None:
        """The type of a delay, also in a cycle; None while it is not known."""
        if not _in_cycle(self):
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
            guess = _Guess({}, before, bold)
            _guesses.append(guess)
            try:
                found = self.operands[0].type
            except Misfit:
                if not bold:
                    raise
                return _UNKNOWN
            finally:
                _guesses.pop()
            if found.shape is not None and found.axes is not None or guess.known == before:
                return found
            before = guess.known

    def _guessed(self, guess: _Guess) -> list[Type]:
        """What can be said of the types; a node that is asked for again meanwhile knows what it did in the round before."""
        known = guess.known
        if id(self) in known:
            return known[id(self)]
        known[id(self)] = guess.before.get(id(self), [_UNKNOWN] * len(self.outputs))
        types = [v.type for v in self.operands]
        if self.op.delays:
            known[id(self)] = types[:1]
        elif all(t.shape is not None and t.axes is not None for t in types) and not any(
            n == INFERRED for t in types for n in t.shape
        ):
            known[id(self)] = self._infer(self._operand_types())
        else:
            known[id(self)] = self._partial(types, guess.bold)
        return known[id(self)]

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
                    self.operands[i] = Primitive(OPS["cast"], [v], {"dtype": "float64"}, "", 1, self.where).outputs[0]
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

    def copy(self, operands: Sequence[Variable], method: CloneMethod, known: dict) -> Primitive:
        """The same op over other operands, made at the same line."""
        return Primitive(self.op, operands, dict(self.attributes), self.name, len(self.outputs), self.where)

    def forget(self) -> None:
        """Drops the inferred types after an edit."""
        self._types, self._unknown = None, (-1, [])


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

    def copy(self, operands, method, known):
        return Combined(operands, self.name)


class Block(Primitive):
    """A node whose meaning is a graph of its own over placeholders, each standing for one operand."""

    def __init__(
        self,
        label: str,
        composite: Function,
        arguments: Sequence[tuple[Placeholder, Variable]],
        name: str = "",
        attributes=None,
        where: str = "",
    ):
        self.composite = composite
        self.inner = [p for p, _ in arguments]
        self._label = label
        for p, v in arguments:
            p.stands_for = v
        if any(
            v.type.shape is not None for _, v in arguments
        ):  # the inner graph was made before its placeholders stood for these
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

    @property
    def types(self) -> list[Type]:
        if self._types is None:
            if _guesses:
                return [v.type for v in self.composite.outputs]
            if self._unknown[0] == variables.edits:
                return self._unknown[1]
            try:
                types = [v.type for v in self.composite.outputs]
            except Misfit as e:
                raise e.inside(self.label, self.name, self.where) from None
            if any(t.shape is None or t.axes is None for t in types):
                self._unknown = variables.edits, types
                return types
            self._types = types
        return self._types

    def copy(self, operands, method, known):
        inner = [_bound_placeholder(p) for p in self.inner]
        composite = _clone(self.composite, method, dict(zip(self.inner, inner, strict=True)), known)
        return Block(
            self._label, composite, list(zip(inner, operands, strict=True)), self.name, dict(self.attributes), self.where
        )

    def forget(self):
        super().forget()
        for node in nodes_of(self.composite.root):
            node.forget()


class BoundPlaceholder(Placeholder):
    """A block's placeholder: its type is that of the operand it stands for."""

    stands_for: Variable | None = None

    @property
    def type(self) -> Type:
        return super().type if self.stands_for is None else self.stands_for.type

    @property
    def needs_gradient(self) -> bool:
        """Whether a gradient can flow through this value."""
        return True if self.stands_for is None else self.stands_for.needs_gradient

    @needs_gradient.setter
    def needs_gradient(self, value):
        pass


def _bound_placeholder(like: Variable | None = None, name: str = "") -> BoundPlaceholder:
    return BoundPlaceholder(None if like is None else like._shape, None, True, False, None, name if like is None else like.name)


def _in_cycle(delay: Primitive) -> bool:
    """Whether the value that a delay delays depends on the delay, through blocks too."""
    stack, seen = [delay.operands[0]], set()
    while stack:
        v = stack.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if isinstance(v, BoundPlaceholder) and v.stands_for is not None:
            stack.append(v.stands_for)
        if not v.is_output:
            continue
        node = v.owner
        if node is delay:
            return True
        stack.extend(node.operands)
        if isinstance(node, Block):
            stack.extend(node.composite.outputs)
    return False


def nodes_of(*roots: Primitive, without: Container[Variable] = ()) -> list[Primitive]:
    """All primitives that the roots need, producers first; blocks are not entered, nor what makes the variables `without`."""
    order: list[Primitive] = []
    done: set[int] = set()
    stack: list[tuple[Primitive, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            order.append(node)
            continue
        if id(node) in done:
            continue
        done.add(id(node))
        stack.append((node, True))
        for v in reversed(node.operands):
            if v.is_output and id(v.owner) not in done and v not in without:
                stack.append((v.owner, False))
    return order


def substitute(nodes: Sequence[Primitive], mapping: dict[int, Variable]) -> None:
    """Puts other variables in the place of some operands, by their id; what was inferred is forgotten."""
    for node in nodes:
        node.operands[:] = [mapping.get(id(v), v) for v in node.operands]
        if isinstance(node, Block):
            for p, v in zip(node.inner, node.operands, strict=True):
                p.stands_for = v
        node.forget()


def leaves_of(root: Primitive, right_first: bool = False) -> list[Variable]:
    """Inputs, parameters, constants and placeholders that the root needs, depth first in the order of operands, as CNTK lists them.

    A block's own parameters come before its operands. right_first: a matrix product's right operand before its left one, as CNTK
    lists parameters and constants, but not inputs and arguments.
    """
    found: dict[int, Variable] = {}
    done: set[int] = set()
    stack: list[Variable | Primitive] = [root]
    while stack:
        item = stack.pop()
        if isinstance(item, Variable) and not item.is_output:
            found.setdefault(id(item), item)
            continue
        node = item.owner if isinstance(item, Variable) else item
        if id(node) in done:
            continue
        done.add(id(node))
        if isinstance(node, Block):
            for v in inner_leaves(node, True):  # so inputs too, as CNTK lists them
                found.setdefault(id(v), v)
        operands = node.operands[::-1] if right_first and node.op.name in ("times", "times_transpose") else node.operands
        stack.extend(operands[::-1])
    return list(found.values())


def inner_leaves(block: Block, right_first: bool = False) -> list[Variable]:
    """The parameters, constants and inputs inside a block."""
    inner = {id(p) for p in block.inner}
    return [v for v in leaves_of(block.composite.root, right_first) if id(v) not in inner]


def refresh(function: Function) -> None:
    """Infers the types of a graph again, producers first."""
    for node in nodes_of(function.root):
        if isinstance(node, Block):
            try:
                refresh(node.composite)
            except Misfit as e:
                raise e.inside(node.label, node.name, node.where) from None
        _ = node.types


def to_variable(value: Any, dtype: Any = None) -> Variable:
    """The variable that an operand stands for: itself, a function's one output, or a constant of a number or array."""
    if isinstance(value, Variable):
        return value
    if isinstance(value, Function):
        return value.output
    if isinstance(value, (str, bytes, dict)) or value is None or callable(value):
        raise TypeError(here(f"operand: expected a variable, a function, a number or an array, got {type(value).__name__}"))
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(here(f"operand: expected an array, got rows of different lengths, {value!r}")) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(here(f"operand: expected numbers, got an array of {array.dtype}"))
    return Constant.of_number(array, dtype)


def to_variables(*values: Any) -> list[Variable]:
    """`to_variable` of several operands; numbers take the element type of the variables beside them."""
    dtype = next(
        (
            v.dtype
            for v in (x.output if isinstance(x, Function) else x for x in values)
            if isinstance(v, Variable) and v.dtype is not None
        ),
        None,
    )
    return [to_variable(v, dtype) for v in values]


def apply(op: str, operands: Sequence[Any], name: str = "", outputs: int = 1, **attributes: Any) -> Function:
    """The function of one op over operands; how every op of the public face makes its node."""
    return Function(Primitive(OPS[op], to_variables(*operands), attributes, name, outputs))


AUTO_SEED = 18446744073709551613  # `SentinelValueForAutoSelectRandomSeed` of the random ops
_ATTRIBUTES = {"dropoutRate": "dropout_rate", "rngSeed": "seed"}  # CNTK's names of settings that may be changed


def _values(found: Any, as_numpy: bool) -> Any:
    """Results as they are, or as `Value`s."""
    if as_numpy:
        return found
    return {v: runtime.wrapped(a) for v, a in found.items()} if isinstance(found, dict) else runtime.wrapped(found)


class Function(Operators):
    """A graph of nodes seen as one function of its free inputs.

    Calling it with variables or functions applies it (parameters are shared); calling it with arrays evaluates it.
    `Function(f)` of a Python function, also as a decorator, makes its arguments placeholders and its result the graph.
    """

    def __init__(self, root: Primitive | Callable, signature: Sequence[Variable] | None = None, **kwargs: Any):
        if not isinstance(root, Primitive):
            made = _from_python(root, **kwargs)
            self.root, self._signature = made.root, made._signature
        else:
            self.root = root
            self._signature = signature

    # what it is ----------------------------------------------------------------------------------------------------

    @property
    def root_function(self) -> Function:
        """The last node as a function of its own operands."""
        return Node(self.root)

    @property
    def name(self) -> str:
        """The name given by the user, or ''."""
        return self.root.name

    @name.setter
    def name(self, value: str) -> None:
        if self.root.name and self.root.name != value:
            raise ValueError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    "a function without a name",
                    f"a new name {value!r}",
                    "names are given once; use C.alias(x, name)",
                )
            )
        self.root.name = value
        for v in self.root.outputs:
            if v.owner is self.root:
                v._name = value

    op_name = property(lambda self: self.root.label, doc="CNTK's name of the last node's op.")
    uid = property(lambda self: "Composite" + self.root.uid, doc="A name that is unique in this process.")
    is_primitive = property(lambda self: False, doc="Whether this is one node.")
    is_composite = property(lambda self: True, doc="Whether this is a graph seen as one function.")
    is_block = property(lambda self: False, doc="Whether this is a node with a graph of its own.")

    @property
    def attributes(self) -> dict[str, Any]:
        """The last node's settings; those of dropout under CNTK's names too."""
        own = self.root.attributes
        found = {**own, **{theirs: own[ours] for theirs, ours in _ATTRIBUTES.items() if ours in own}}
        if found.get("rngSeed") == AUTO_SEED:
            found["rngSeed"] = own["purpose"]  # the number that stands for an automatic seed
        return found

    @property
    def outputs(self) -> tuple[Variable, ...]:
        """The values it computes."""
        return tuple(self.root.outputs)

    @property
    def output(self) -> Variable:
        """The one value it computes; `ValueError` when there are several."""
        if len(self.root.outputs) != 1:
            raise ValueError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    "a function with one output",
                    f"{len(self.root.outputs)} outputs",
                    "name one of .outputs",
                )
            )
        return self.root.outputs[0]

    def _leaves(self, right_first: bool = False) -> list[Variable]:
        return leaves_of(self.root, right_first)

    def _graph(self) -> Function:
        """This, or for a node the whole graph that ends in it."""
        return self

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """Everything it needs from outside: arguments, parameters and constants."""
        return tuple(self._leaves())

    @property
    def arguments(self) -> tuple[Variable, ...]:
        """The variables to be fed or replaced: inputs and placeholders; of a node also the outputs of others that it reads."""
        found = [v for v in self._leaves() if not (v.is_parameter or v.is_constant)]
        if self._signature:
            first = [v for v in self._signature if any(v is f for f in found)]
            found = first + [v for v in found if not any(v is f for f in first)]
        return tuple(found)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What learners change."""
        return tuple(v for v in self._leaves(True) if v.is_parameter)

    @property
    def constants(self) -> tuple[Constant, ...]:
        """Fixed values."""
        return tuple(v for v in self._leaves(True) if v.is_constant)

    @property
    def placeholders(self) -> tuple[Variable, ...]:
        """What stands for variables given later."""
        return tuple(v for v in self._leaves() if v.is_placeholder)

    @property
    def signature(self) -> tuple[Variable, ...]:
        """The arguments in the order of a call."""
        return self.arguments

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key in ("root", "_signature"):
            raise AttributeError(key)
        outputs = self.root.outputs
        if len(outputs) == 1 and key in (
            "shape",
            "dtype",
            "dynamic_axes",
            "needs_gradient",
            "is_sparse",
            "type",
            "owner",
            "is_output",
            "is_parameter",
            "is_constant",
            "is_input",
            "is_placeholder",
        ):
            return getattr(outputs[0], key)
        if len(outputs) > 1:
            for v in outputs:
                if v.name == key:
                    return v
        named = [v for v in self._leaves() if v.name == key]
        if named:
            if len(named) > 1:
                raise ValueError(
                    sentence(
                        self.op_name,
                        self.name,
                        self.root.where,
                        f"one variable named {key!r}",
                        str(len(named)),
                        "use find_all_with_name",
                    )
                )
            return named[0]
        inner = self.find_by_name(key, depth=1)
        if inner is not None:
            return inner
        raise AttributeError(f"Function '{self.name or self.op_name}' has no attribute, parameter or node named {key!r}")

    def __repr__(self) -> str:
        arguments = ", ".join(map(repr, self.arguments))
        outputs = ", ".join(repr(v) for v in self.root.outputs)
        return f"{self.op_name}{'(' + repr(self.name) + ')' if self.name else ''}: {arguments} -> {outputs}"

    # making others of it -------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Applied to variables or functions, a new function; to arrays, values.

        Inputs and placeholders that a Python function captured need not be given: they stay what they are.
        """
        mapping = self.argument_map(*args, **kwargs)
        if (
            mapping
            and not any(isinstance(v, (Variable, Function)) for v in mapping.values())
            and not any(p.is_placeholder for p in mapping)
        ):
            return self.eval(mapping)
        captured: dict[Variable, Variable] = {p: p for p in self.placeholders if p not in mapping}
        return self._substituted(CloneMethod.share, {p: to_variables(v)[0] for p, v in mapping.items()}, captured)

    def argument_map(self, *args: Any, **kwargs: Any) -> dict[Variable, Any]:
        """Pairs the arguments with the values of a call; `TypeError` when they do not match."""
        used = self.arguments
        own = list(self._signature or ())
        parameters = own + [p for p in used if not any(p is q for q in own)]
        if len(args) > len(parameters):
            raise TypeError(
                sentence(self.op_name, self.name, self.root.where, f"at most {len(parameters)} arguments", str(len(args)))
            )
        mapping = dict(zip(parameters, args, strict=False))
        for key, value in kwargs.items():
            found = [p for p in parameters if p.name == key]
            if len(found) != 1 or found[0] in mapping:
                raise TypeError(
                    sentence(
                        self.op_name,
                        self.name,
                        self.root.where,
                        "arguments named " + ", ".join(p.name or p.uid for p in parameters),
                        repr(key),
                    )
                )
            mapping[found[0]] = value
        wanted = [p for p in own or parameters if any(p is q for q in used)]
        missing = [p.name or p.uid for p in wanted if p not in mapping]
        if missing:
            raise TypeError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    f"{len(wanted)} arguments",
                    str(len(mapping)),
                    "missing: " + ", ".join(missing),
                )
            )
        return {p: v for p, v in mapping.items() if any(p is q for q in used)}

    def clone(self, method: CloneMethod | str = CloneMethod.clone, substitutions: dict | None = None) -> Function:
        """A copy of the graph with parameters shared, copied or frozen, and some variables replaced.

        substitutions: variable -> variable or function. Inputs that are not replaced are new ones of the same name and type.
        Raises `ValueError` for a variable that is not in the graph.
        """
        if not isinstance(method, CloneMethod):
            if method not in CloneMethod.__members__:
                raise ValueError(here(f"clone: expected 'share', 'clone' or 'freeze', got {method!r}"))
            method = CloneMethod[method]
        mapping: dict[Variable, Variable] = {}
        for k, v in (substitutions or {}).items():
            mapping[k.output if isinstance(k, Function) else k] = to_variables(v)[0]
        leaves = leaves_of(self.root)
        reachable = {id(v) for v in leaves} | {id(v) for n in nodes_of(self.root) for v in n.outputs}
        for k in mapping:
            if id(k) not in reachable:
                raise ValueError(
                    sentence(self.op_name, self.name, self.root.where, "a variable of this function to replace", repr(k))
                )
        fresh: dict[Variable, Variable] = {
            v: Input(v._shape, v._dtype, v.needs_gradient, v.is_sparse, v._axes, v.name) for v in leaves if v.is_input
        }
        return self._substituted(method, mapping, fresh)

    def _substituted(self, method: CloneMethod, mapping: dict[Variable, Variable], known: dict[Variable, Variable]) -> Function:
        known.update((k, v) for k, v in mapping.items() if not k.is_output)  # inside blocks too
        made = _clone(self, method, mapping, known)
        refresh(made)
        return made

    def update_signature(self, *arg_types: Any, **kwarg_types: Any) -> None:
        """Makes inputs of the placeholders, by position or by name: of shapes (with a batch axis), or of `cogkit.layers.typing`'s types."""
        self.replace_placeholders({p: _typed_input(t, p.name) for p, t in self.argument_map(*arg_types, **kwarg_types).items()})

    @staticmethod
    def with_signature(*types: Any, **named: Any) -> Callable[[Callable], Function]:
        """Decorator: `Function` of a Python function whose arguments are inputs of these types; see `update_signature`."""

        def typed(f: Callable) -> Function:
            made = Function(f)
            made.update_signature(*types, **named)
            return made

        return typed

    def replace_placeholders(self, substitutions: dict) -> Function:
        """Puts variables in the place of placeholders, in this very graph; plans of it are dropped."""
        mapping = {}
        for k, v in substitutions.items():
            k = k.output if isinstance(k, Function) else k
            if not k.is_placeholder:
                raise ValueError(
                    sentence(
                        self.op_name,
                        self.name,
                        self.root.where,
                        "a placeholder to replace",
                        repr(k),
                        "use clone with substitutions for other variables",
                    )
                )
            mapping[id(k)] = to_variables(v)[0]
        known = {id(v) for v in self._leaves()}
        for k in substitutions:
            if id(k) not in known:
                raise ValueError(sentence(self.op_name, self.name, self.root.where, "a placeholder of this function", repr(k)))
        substitute(nodes_of(self.root), mapping)
        if self._signature:
            self._signature = [mapping.get(id(v), v) for v in self._signature]
        variables.edits += 1
        try:
            refresh(self)
        except RecursionError:
            raise ValueError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    "a delay in every cycle",
                    "a value that depends on itself",
                    "put C.sequence.past_value or C.sequence.future_value on the way",
                )  # fmt: skip
            ) from None
        return self

    def replace_placeholder(self, substitution: Any) -> Function:
        """Replaces the one placeholder; `ValueError` when there is none or more than one."""
        found = self.placeholders
        if len(found) != 1:
            raise ValueError(sentence(self.op_name, self.name, self.root.where, "exactly one placeholder", str(len(found))))
        return self.replace_placeholders({found[0]: substitution})

    def find_all_with_name(self, name: str, depth: int = 0) -> list[Any]:
        """All nodes and variables of that name; depth: how many levels of blocks to enter, -1 for all."""
        found: dict[int, Any] = {}
        self._find(name, depth, found)
        return list(found.values())

    def _find(self, name: str, depth: int, found: dict[int, Any]) -> None:
        for node in reversed(nodes_of(self.root)):
            if node.name == name:
                found.setdefault(id(node), Node(node))
            inside = inner_leaves(node) if isinstance(node, Block) else ()
            for v in (*node.operands, *inside, *node.outputs):
                if v.name == name and not (v.is_output and v.owner.name == name):
                    found.setdefault(id(v), v)
            if depth != 0 and isinstance(node, Block):
                node.composite._find(name, depth - 1, found)

    def find_by_name(self, name: str, depth: int = 0) -> Any:
        """The one node or variable of that name, or None; `ValueError` when there are several."""
        found = self.find_all_with_name(name, depth)
        if len(found) > 1:
            raise ValueError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    f"one node named {name!r}",
                    f"{len(found)}",
                    "use find_all_with_name",
                )
            )
        return found[0] if found else None

    def __getitem__(self, key: Any) -> Any:
        """One of several outputs; of one output, a part (see `Variable`)."""
        return self.outputs[key] if len(self.outputs) > 1 else super().__getitem__(key)

    def __rshift__(self, other: Any) -> Function:
        """`f >> g`: g of the outputs of f; a tuple of functions gives all their results."""
        if isinstance(other, tuple):
            return combine(*(self >> f for f in other))
        return other(*self.outputs) if len(self.outputs) > 1 else other(self)

    def __lshift__(self, other: Any) -> Function:
        return self(other)

    # values --------------------------------------------------------------------------------------------------------

    def eval(self, arguments: Any = None, outputs: Any = None, device=None, as_numpy: bool = True) -> Any:
        """The value of the outputs for fed arguments; an array for one output, else a dict variable -> array.

        arguments: {variable: data}, or the data of the only argument. Raises `ValueError` for missing or ill-shaped feeds.
        """
        values = _values(runtime.evaluate(self._graph(), arguments, outputs, training=False), as_numpy)
        return next(iter(values.values())) if len(values) == 1 else values

    def forward(
        self, arguments: Any, outputs: Any = None, keep_for_backward: Any = None, device=None, as_numpy: bool = True
    ) -> tuple[Any, dict]:
        """Computes outputs and keeps what `backward` needs: (state, {output: array}); state is None when nothing is kept."""
        state, values = runtime.forward(self._graph(), arguments, outputs, keep_for_backward)
        return state, _values(values, as_numpy)

    def backward(self, state: Any, root_gradients: Any, variables: Any, as_numpy: bool = True) -> dict:
        """Gradients of the kept outputs with respect to `variables`, as {variable: array}."""
        return _values(runtime.backward(self._graph(), state, root_gradients, variables), as_numpy)

    def grad(
        self, at: Any, wrt: Any = None, outputs: Any = None, device=None, as_numpy: bool = True, grad_root: Any = None
    ) -> Any:
        """Gradient of the (one) output, summed over its elements, with respect to `wrt` (default: all arguments that need one, as in CNTK).

        Returns an array for one variable, else {variable: array}; with `outputs`, a pair (gradients, {output: value}).
        """
        found = runtime.grad(self._graph(), at, wrt, outputs, grad_root)
        return tuple(_values(v, as_numpy) for v in found) if isinstance(found, tuple) else _values(found, as_numpy)

    def explain(self, feed: Any = None) -> str:
        """What will run: each pass, instructions, formats, fused groups, buffers, peak memory."""
        return runtime.explain(self._graph(), feed)

    def save(self, filename: str, format: Any = None, use_external_files_to_store_parameters: bool = False) -> None:
        """Writes the model as one file; see `cogkit.store`."""
        runtime.save(self, filename, format)

    @staticmethod
    def load(model: Any, device=None, format: Any = None) -> Function:
        """Reads a model that `save` wrote."""
        return runtime.load(model, format)

    def restore(self, filename: str) -> None:
        """Takes the parameter values from a file that `save` wrote for the same graph."""
        runtime.restore(self, filename)

    def set_attribute(self, name: str, value: Any) -> None:
        """Changes a setting of the last node, e.g. `dropoutRate` or `rngSeed`; plans are dropped. Raises `ValueError` for one it has not."""
        key = _ATTRIBUTES.get(name, name)
        settable = [k for k in self.root.attributes if k not in ("purpose", "type")]
        if key not in settable:
            have = ", ".join(sorted(settable)) or "none"
            raise ValueError(sentence(self.op_name, self.name, self.root.where, f"an attribute it has ({have})", repr(name)))
        before = dict(self.root.attributes)
        self.root.attributes[key] = type(before[key])(value)
        if key == "seed":
            self.root.attributes["purpose"] = runtime.purpose(int(value))
        types = self.root.types
        self.root.forget()
        if self.root.types != types:
            self.root.attributes.update(before)
            self.root.forget()
            raise ValueError(
                sentence(
                    self.op_name,
                    self.name,
                    self.root.where,
                    f"a {name} that keeps its type {types[0]}",
                    repr(value),
                    "make another node",
                )
            )
        variables.edits += 1


class Node(Function):
    """One node seen as a function of its own operands."""

    is_primitive = property(lambda self: True, doc="Whether this is one node; a block is one too.")
    is_composite = property(lambda self: False, doc="Whether this is a graph seen as one function.")
    is_block = property(lambda self: isinstance(self.root, Block), doc="Whether this is a node with a graph of its own.")
    uid = property(lambda self: self.root.uid, doc="A name that is unique in this process.")
    root_function = property(lambda self: self, doc="Itself.")

    def __init__(self, root: Primitive):
        super().__init__(root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other.root is self.root

    def __hash__(self) -> int:
        return hash(id(self.root))

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """Its operands; for a block first the parameters inside."""
        return tuple(self._leaves())

    def _leaves(self, right_first: bool = False) -> list[Variable]:
        operands = self.root.operands
        if right_first and self.root.op.name in ("times", "times_transpose"):
            operands = operands[::-1]
        inner = inner_leaves(self.root, True) if isinstance(self.root, Block) else ()
        return list({id(v): v for v in (*inner, *operands)}.values())

    def _graph(self) -> Function:
        return Function(self.root)

    @property
    def block_root(self) -> Function:
        """The last node of a block's inner graph."""
        if not isinstance(self.root, Block):
            raise ValueError(sentence(self.op_name, self.name, self.root.where, "a block", "a primitive"))
        return Node(self.root.composite.root)

    @property
    def block_composite(self) -> Function:
        """A block's inner graph."""
        return self.root.composite

    @property
    def block_arguments_mapping(self) -> list[tuple[Variable, Variable]]:
        """Pairs (placeholder of the inner graph, operand it stands for)."""
        return list(zip(self.root.inner, self.root.operands, strict=True))


def _clone(function: Function, method: CloneMethod, mapping: dict[Variable, Variable], known: dict) -> Function:
    """Copies a graph; `mapping` is of this level only, `known` pairs old leaves with new ones on all levels."""

    def leaf(v: Variable) -> Variable:
        if v in mapping:
            return mapping[v]
        if v in known:
            return known[v]
        new = v
        if isinstance(v, Parameter) and method is not CloneMethod.share:
            if v._data is None and hasattr(v._init, "pinned"):
                v._init = v._init.pinned()
            if method is CloneMethod.freeze:
                new = Constant(v.data, dtype=v.dtype, name=v.name)
            else:
                new = Parameter(v.shape, v._init if v._data is None else v.data, v.dtype, name=v.name)
        elif isinstance(v, Constant) and v.given is not None:
            new = Constant.of_number(v.given)
        elif isinstance(v, Constant) and method is not CloneMethod.share:
            new = Constant(v._init if v._data is None else v.data, v._shape, v.dtype, name=v.name)
            new.assigned = v.assigned
        elif v.is_placeholder:
            new = type(v)(v._shape, v._dtype, True, v.is_sparse, v._axes, v.name)
        known[v] = new
        return new

    made: dict[Variable, Variable] = {}
    root = function.root
    nodes = nodes_of(function.root, without=mapping)
    mine = {id(node) for node in nodes}
    later: dict[Variable, Variable] = {}  # what a cycle reads before it is made: old value -> what stands for it meanwhile

    def operand(v: Variable) -> Variable:
        if v in mapping:
            return mapping[v]
        if v in made:
            return made[v]
        if v.is_output and id(v.owner) in mine:
            return later.setdefault(v, Placeholder(name=v.name))
        return leaf(v)

    copies = []
    for node in nodes:
        copy = node.copy([operand(v) for v in node.operands], method, known)
        copies.append(copy)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            if old.owner is node:
                made[old] = new
        if node is function.root:
            root = copy
    if later:
        substitute(copies, {id(p): made[v] for v, p in later.items()})
    signature = None
    if function._signature:
        signature = [mapping.get(v, known.get(v, v)) for v in function._signature]
        signature = [v for v in signature if v.is_placeholder or v.is_input]
    return Function(root, signature)


def _from_python(f: Callable, name: str = "", label: str | None = None, attributes: dict | None = None) -> Function:
    """The graph of a Python function over placeholders named as its arguments; a block where `label` is given."""
    if isinstance(f, Function):
        return f
    if not callable(f):
        raise TypeError(here(f"Function: expected a Python function, got {type(f).__name__}"))
    taken = [p for p in _signature(f) if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    types = [p.annotation if isinstance(p.annotation, variables.Record) else None for p in taken]
    arguments = [_bound_placeholder(name=p.name) for p in taken]
    result = f(*arguments)
    if isinstance(result, (tuple, list)):
        result = combine(result)
    if isinstance(result, Variable):
        result = Function(Primitive(OPS["alias"], [result], {}, ""))
    if not isinstance(result, Function):
        raise TypeError(
            here(
                f"Function: expected {getattr(f, '__name__', 'the body')} to return a function or variable, got {type(result).__name__}"
            )
        )
    if label is not None:
        outer = [_bound_placeholder(p) for p in arguments]
        made = as_block(result, list(zip(arguments, outer, strict=True)), label, name, attributes)
    else:
        if name and len(result.outputs) > 1:
            result = combine(result.outputs, name=name)
        elif name:
            result = Function(Primitive(OPS["alias"], [result.output], {}, name))
        outer, made = arguments, Function(result.root, arguments)
    inputs = {p: _typed_input(t, p.name) for p, t in zip(outer, types, strict=True) if t is not None and t.shape is not None}
    return made.replace_placeholders(inputs) if inputs else made


def _signature(f: Callable) -> Iterable[inspect.Parameter]:
    """The parameters of a Python function, with the annotations that are text evaluated where they can be."""
    try:
        return inspect.signature(f, eval_str=True).parameters.values()
    except (NameError, SyntaxError, TypeError, AttributeError):
        return inspect.signature(f).parameters.values()


def _typed_input(kind: Any, name: str) -> Input:
    """The input that a shape, or a record of an input's settings, describes."""
    dtype = get_default_override(Parameter, dtype=default_override_or(np.float32))
    if not isinstance(kind, variables.Record):
        return Input(kind, dtype, False, False, (Axis.default_batch_axis(),), name)
    return Input(kind.shape, kind.get("dtype", dtype), False, kind.is_sparse, kind.dynamic_axes, name)


def BlockFunction(op_name: str, name: str = "", attributes: dict | None = None) -> Callable[[Callable], Function]:
    """Decorator: a Python function becomes a block named `op_name` whose arguments are placeholders."""
    return lambda f: _from_python(f, name, op_name, attributes)


def as_block(
    composite: Function,
    block_arguments_map: Iterable[tuple[Any, Any]],
    block_op_name: str,
    block_instance_name: str = "",
    attributes: dict | None = None,
) -> Function:
    """One node that stands for the whole graph; the map pairs each of its placeholders with the operand that it stands for."""
    pairs = []
    own = list(block_arguments_map)
    swap: dict[Variable, Variable] = {}
    for p, v in own:
        bound = p if isinstance(p, BoundPlaceholder) else _bound_placeholder(p)
        if bound is not p:
            swap[p] = bound
        pairs.append((bound, to_variables(v)[0]))
    if swap:
        composite = _clone(composite, CloneMethod.share, swap, {})
    node = Block(block_op_name, composite, pairs, block_instance_name, attributes)
    signature = [v for _, v in pairs if v.is_placeholder or v.is_input]
    return Function(node, signature)


def combine(*operands: Any, name: str = "") -> Function:
    """Several functions seen as one with all their outputs, in order."""
    flat: list[Variable] = []
    for item in _flatten(operands):
        if isinstance(item, Function):
            flat.extend(item.outputs)
        else:
            flat.append(to_variable(item))
    if not flat:
        raise ValueError(here("combine: expected at least one function or variable, got none"))
    return Function(Combined(flat, name))


def _flatten(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from _flatten(item)
        else:
            yield item
