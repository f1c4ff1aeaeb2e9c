"""Functions: graphs of nodes seen as one.

A `Function` is the graph that ends in a node (`nodes.py`). Ops return functions. Nothing runs here: see `evaluation.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cogkit import evaluation, variables
from cogkit.attributes import settable
from cogkit.axis import Axis
from cogkit.cloning import CloneMethod, clone
from cogkit.collector import paused_collector
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.evaluation import Evaluated
from cogkit.inspection import Inspected
from cogkit.nodes import Block, Combined, Primitive, refresh, substitute
from cogkit.op import OPS
from cogkit.operators import Operators
from cogkit.variables import BoundPlaceholder, Constant, Input, Parameter, Variable
from cogkit.walks import inner_leaves, leaves_of, nodes_of

__all__ = ["BlockFunction", "CloneMethod", "Function", "apply"]


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


class Function(Inspected, Evaluated, Operators):
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

    def _graph(self) -> Function:
        """This, or for a node the whole graph that ends in it."""
        return self

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
        given = {p: to_variable(v) for p, v in mapping.items()}
        same = given.get(self.root.operands[0]) if self.root.op.name == "alias" and not self.name else None
        if same is not None and same.is_output and len(same.node.outputs) == 1:
            return Function(same.node)  # the identity of a function is that function
        captured: dict[Variable, Variable] = {p: p for p in self.placeholders if p not in mapping}
        return self._substituted(CloneMethod.share, given, captured)

    def argument_map(self, *args: Any, **kwargs: Any) -> dict[Variable, Any]:
        """Pairs the arguments with the values of a call; `TypeError` when they do not match."""
        used = {id(p): p for p in self.arguments}
        own = {id(p): p for p in self._signature or ()}
        parameters = list({**own, **used}.values())
        if len(args) > len(parameters):
            raise TypeError(self._says(f"at most {len(parameters)} arguments", str(len(args))))
        mapping = dict(zip(parameters, args, strict=False))
        for key, value in kwargs.items():
            found = [p for p in parameters if p.name == key]
            if len(found) != 1 or found[0] in mapping:
                raise TypeError(
                    self._says(
                        "arguments named " + ", ".join(p.name or p.uid for p in parameters),
                        repr(key),
                    )
                )
            mapping[found[0]] = value
        wanted = [p for p in (own.values() or parameters) if id(p) in used]
        missing = [p.name or p.uid for p in wanted if p not in mapping]
        if missing:
            raise TypeError(
                self._says(
                    f"{len(wanted)} arguments",
                    str(len(mapping)),
                    "missing: " + ", ".join(missing),
                )
            )
        return {p: v for p, v in mapping.items() if id(p) in used}

    def clone(self, method: CloneMethod | str = CloneMethod.clone, substitutions: dict | None = None) -> Function:
        """A copy of the graph with parameters shared, copied or frozen, and some variables replaced.

        substitutions: variable -> variable or function. Inputs that are not replaced are new ones of the same name and type, unless
        what is put in their place reads them too.
        Raises `ValueError` for a variable that is not in the graph, `TypeError` for what is neither variable nor function.
        """
        if not isinstance(method, CloneMethod):
            if method not in CloneMethod.__members__:
                raise ValueError(here(f"clone: expected 'share', 'clone' or 'freeze', got {method!r}"))
            method = CloneMethod[method]
        mapping: dict[Variable, Variable] = {}
        for k, v in (substitutions or {}).items():
            for side, given in ("a variable to replace", k), ("a variable or function to put in its place", v):
                if not isinstance(given, (Variable, Function)):
                    raise TypeError(self._says(side, f"{given!r}", "clone(method, {variable: variable or function})"))
            mapping[to_variable(k)] = to_variable(v)
        leaves = leaves_of(self.root)
        reachable = {id(v) for v in leaves} | {id(v) for n in nodes_of(self.root) for v in n.outputs}
        for k in mapping:
            if id(k) not in reachable:
                raise ValueError(self._says("a variable of this function to replace", repr(k)))
        read = {id(u) for v in mapping.values() if v.is_output for u in leaves_of(v.node)}
        fresh: dict[Variable, Variable] = {
            v: Input(v._shape, v._dtype, v.needs_gradient, v.is_sparse, v._axes, v.name)
            for v in leaves
            if v.is_input and id(v) not in read
        }
        return self._substituted(method, mapping, fresh)

    @paused_collector()
    def _substituted(self, method: CloneMethod, mapping: dict[Variable, Variable], known: dict[Variable, Variable]) -> Function:
        known.update((k, v) for k, v in mapping.items() if not k.is_output)  # inside blocks too
        made = Function(*clone(self.root, self._signature, method, mapping, known))
        refresh(made, set(mapping.values()))
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

    @paused_collector()
    def replace_placeholders(self, substitutions: dict) -> Function:
        """Puts variables in the place of placeholders, in this very graph; plans of it are dropped."""
        mapping = {}
        for k, v in substitutions.items():
            k = k.output if isinstance(k, Function) else k
            if not k.is_placeholder:
                raise ValueError(
                    self._says(
                        "a placeholder to replace",
                        repr(k),
                        "use clone with substitutions for other variables",
                    )
                )
            mapping[id(k)] = to_variables(v)[0]
        known = {id(v) for v in self._leaves()}
        for k in substitutions:
            if id(k) not in known:
                raise ValueError(self._says("a placeholder of this function", repr(k)))
        substitute(nodes_of(self.root), mapping)
        if self._signature:
            self._signature = [mapping.get(id(v), v) for v in self._signature]
        variables.edits += 1
        try:
            refresh(self)
        except RecursionError:
            raise ValueError(
                self._says(
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
            raise ValueError(self._says("exactly one placeholder", str(len(found))))
        return self.replace_placeholders({found[0]: substitution})

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

    def set_attribute(self, name: str, value: Any) -> None:
        """Changes a setting of the last node, e.g. `dropoutRate` or `rngSeed`; plans are dropped. Raises `ValueError` for one it has not."""
        names = settable(self.root)
        key = names.get(name, name)
        if key not in names.values():
            have = ", ".join(sorted(names)) or "none"
            raise ValueError(self._says(f"an attribute it has ({have})", repr(name)))
        before = dict(self.root.attributes)
        self.root.attributes[key] = type(before[key])(value)
        if key == "seed":
            self.root.attributes["purpose"] = evaluation.runtime.purpose(int(value))
        types = self.root.types
        self.root.forget()
        if self.root.types != types:
            self.root.attributes.update(before)
            self.root.forget()
            raise ValueError(
                self._says(
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

    def _title(self) -> str:
        return self.op_name

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


variables.function_of = Node


def _from_python(f: Callable, name: str = "", label: str | None = None, attributes: dict | None = None) -> Function:
    """The graph of a Python function over placeholders named as its arguments; a block where `label` is given."""
    if isinstance(f, Function):
        return f
    if not callable(f):
        raise TypeError(here(f"Function: expected a Python function, got {type(f).__name__}"))
    taken = [p for p in _signature(f) if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    types = [p.annotation if isinstance(p.annotation, variables.Record) else None for p in taken]
    arguments = [BoundPlaceholder(needs_gradient=True, name=p.name) for p in taken]
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
        outer = [BoundPlaceholder.like(p) for p in arguments]
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
        bound = p if isinstance(p, BoundPlaceholder) else BoundPlaceholder.like(p)
        if bound is not p:
            swap[p] = bound
        pairs.append((bound, to_variables(v)[0]))
    if swap:
        composite = Function(*clone(composite.root, composite._signature, CloneMethod.share, swap, {}))
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
