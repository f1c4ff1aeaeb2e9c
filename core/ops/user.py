"""Ops that a user writes in Python: `UserFunction`. Ops written in C are in `native.py`.

In a lowered graph one is a node `user_forward`, whose last output, the token, says which call it came from, and a node
`user_backward` that finds what that call put aside by the token. An engine runs them through `engine/user.py`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from cogkit.errors import Misfit, ModelFileError, UserFunctionError, here, user_line
from cogkit.functions import Function, Node, to_variables
from cogkit.inference import Typed
from cogkit.nodes import Primitive
from cogkit.op import OPS, Op, Type, constant_gradient, row_space
from cogkit.ops.rows import BATCH, has_steps
from cogkit.variables import Output, Variable

__all__ = ["UserFunction", "user_function"]

Deserializer = Callable[[list[Variable], str, Any], Any]
_registered: dict[str, Deserializer] = {}  # classes that say how they are made from a file
_callbacks: dict[str, Deserializer] = {}
_number = itertools.count()


class _Unknown(Exception):
    """`infer_outputs` asked for what is not known of an operand yet."""


class _Operand(Variable):
    """What `infer_outputs` sees of an operand: its type as it stands."""

    def __init__(self, of: Variable, known: Type):
        super().__init__(known.shape, known.dtype, of.needs_gradient, of.is_sparse, known.axes, of.name)

    def _sure(self, part: Any) -> Any:
        if part is None:
            raise _Unknown
        return part

    shape = property(lambda self: self._sure(self._shape))
    dtype = property(lambda self: self._sure(self._dtype).type)
    dynamic_axes = property(lambda self: self._sure(self._axes))


class UserOutput(Output):
    """An output of a user function, which may say that no gradient flows through it."""

    def __init__(self, owner: UserNode, index: int, name: str, flows: bool):
        super().__init__(owner, index, name)
        self.flows = flows

    @property
    def needs_gradient(self) -> bool:
        """Whether a gradient can flow through this value."""
        return self.flows and super().needs_gradient


class UserNode(Primitive):
    """The node of a user function. Its outputs are found when first asked for: by then the class's constructor has run."""

    record = "user_function"  # its op

    def __init__(self, function: UserFunction, operands: Sequence[Variable], attributes: dict[str, Any], name: str, where: str):
        Typed.__init__(self)
        self.function = function
        self.op = OPS[self.record]
        self.operands = list(operands)
        self.attributes = attributes
        self.custom: dict[str, Any] = {}
        self.name = name
        self.number = next(_number)
        self.where = where
        self.seen: list[Variable] | None = None  # what `infer_outputs` sees as `inputs`
        self.asked = 0  # calls of `infer_outputs` that are going on
        self._outputs: list[Variable] | None = None

    @property
    def label(self) -> str:
        """The class, or what it calls itself."""
        return self.function.op_name

    @property
    def uid(self) -> str:
        """A name that is unique in this process."""
        return f"UserDefinedFunction{self.number}"

    @property  # type: ignore[override]
    def outputs(self) -> list[Variable]:
        """What `infer_outputs` says, or one where it cannot say anything yet."""
        if self._outputs is None:
            if self.asked:
                raise AttributeError("infer_outputs asks for its own outputs")
            try:
                found = self._described([v.type for v in self.operands])
            except _Unknown:
                try:
                    found = self._described(None)
                except UserFunctionError:
                    found = [Variable()]
            self._outputs = [UserOutput(self, i, v.name or self.name, v.needs_gradient) for i, v in enumerate(found)]
        return self._outputs

    @property
    def place(self) -> str:
        """What an error calls it: op, name and the user's line."""
        return self.label + (f" '{self.name}'" if self.name else "") + (f" ({self.where})" if self.where else "")

    def _described(self, types: Sequence[Type] | None) -> list[Variable]:
        """What `infer_outputs` gives for operands of these types, or for the operands as they are."""
        before = self.seen
        self.seen = None if types is None else [_Operand(v, t) for v, t in zip(self.operands, types, strict=True)]
        self.asked += 1
        try:
            found = self.function.infer_outputs()
        except (_Unknown, Misfit):
            raise
        except Exception as e:
            raise failure(self, "infer_outputs", e) from e
        finally:
            self.seen = before
            self.asked -= 1
        if not isinstance(found, (list, tuple)) or not found or not all(isinstance(v, Variable) for v in found):
            raise self.misfit("infer_outputs to give a list of C.output_variable(shape, dtype, dynamic_axes)", repr(found))
        return list(found)

    def misfit(self, wish: str, fact: str, way: str = "") -> Misfit:
        """An error that names this node."""
        return Misfit(self.label, self.name, self.where, wish, fact, way)

    def _infer(self, types: list[Type]) -> list[Type]:
        found = self._described(types)
        if len(found) != len(self.outputs):
            raise self.misfit(f"infer_outputs to give {len(self.outputs)} outputs as before", str(len(found)))
        return [self._type_of(v, types) for v in found]

    def _type_of(self, v: Variable, types: Sequence[Type]) -> Type:
        axes = v._axes
        if axes is not None and row_space(axes) == "[?]":
            axes = None
        spaces = {t.axes for t in types} | {()} | {BATCH for t in types if has_steps(t.axes)}
        if axes is not None and axes not in spaces and all(t.axes is not None for t in types):
            have = ", ".join(sorted(row_space(a) or "none" for a in spaces if a is not None))
            raise self.misfit(f"outputs over the row spaces of its inputs ({have})", row_space(axes))
        dtype = v._dtype if v._dtype is not None else next((t.dtype for t in types if t.dtype is not None), None)
        return Type(v._shape, dtype, axes)

    def _partial(self, types: list[Type], bold: bool) -> list[Type]:
        try:
            return [self._type_of(v, types) for v in self._described(types)]
        except _Unknown:
            return super()._partial(types, bold)

    def concrete(self, types: Sequence[Type], assumed: Sequence[tuple[int, ...]] | None) -> tuple[list[Type], tuple[bool, ...]]:
        """Output types without free sizes, and which had some that only a run can say. assumed: shapes that a run has said."""
        out, free = [], []
        found = self.types
        if any(n < 0 for t in found for n in t.shape or ()):
            found = self._infer(list(types))
        for i, t in enumerate(found):
            shape = t.shape or ()
            free.append(any(n < 0 for n in shape))
            if free[-1] and assumed is not None:
                shape = assumed[i]
            out.append(t._replace(shape=tuple(1 if n < 0 else n for n in shape)))
        return out, tuple(free)

    def over(self, operands: Sequence[Variable]) -> Primitive:
        """What the class's `clone` makes of other operands."""
        try:
            made = self.function.clone(list(operands))
        except Exception as e:
            raise failure(self, "clone", e) from e
        if not isinstance(made, Function) or not isinstance(made.root, UserNode):
            raise self.misfit("clone to give a user function", repr(made))
        made.root.where = self.where
        _ = made.root.types
        return made.root

    def lowered(self, g: Any, x: list[Any], types: list[Type], free: tuple[bool, ...]) -> list[Any]:
        """Its values in a lowered graph."""
        call = UserCall(self, free)
        token = Type((1,), np.dtype(np.float32), types[0].axes)
        return g.node("user_forward", x, call=call, needs=call.needs, types=(*types, token))[:-1]

    def stored(self) -> dict[str, Any]:
        """What a model file holds of it beside its operands."""
        try:
            state = self.function.serialize()
        except Exception as e:
            raise failure(self, "serialize", e) from e
        return {**super().stored(), "user": self.label, "state": state}


class UserFunction(Node):
    """Base of ops written in Python. A class gives `infer_outputs`, `forward` and, where gradients flow, `backward`.

    inputs: its operands. as_numpy: data come as arrays (a list of arrays, one a sequence, where there is a sequence axis; in a
    recurrence one step a sequence), else as `Value`s. attributes: settings that are stored in files. One input: `forward(argument,
    device, outputs_to_retain)` gives (state, result) and `backward(state, root_gradients)` the gradient. Several inputs: forward's first
    argument is their tuple, and `backward(state, root_gradients, variables)` fills in the dict {input: None}; None counts as 0.
    Several outputs: `forward(arguments, outputs, device, outputs_to_retain)` fills in {output: None} and gives the state, and
    root_gradients is a dict {output: gradient, or None where none arrives}. The state is whatever is wanted again. Where `infer_outputs`
    leaves a size free (`C.FreeDimension`), forward says it; it is called again for a size that is not that of the run before.

    An exception comes out as `UserFunctionError` with the place where the function was made. A class that has a `deserialize` of its own
    can be read from model files under its `op_name`; nothing is ever imported because a file names it.
    Departure: in a recurrence the state of each step is kept; CNTK keeps the last one.
    """

    node: ClassVar[type[UserNode]] = UserNode

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "deserialize" in vars(cls):
            _registered[cls._op_name()] = cls.deserialize

    def __init__(self, inputs: Sequence[Any], as_numpy: bool = True, attributes: dict[str, Any] | None = None, name: str = ""):
        operands = to_variables(*inputs)
        if not operands:
            raise ValueError(here(f"{type(self).__name__}: expected at least one input, got none"))
        self.as_numpy = as_numpy
        super().__init__(self.node(self, operands, dict(attributes or {}), name, _line_of(self)))

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """Its operands, in order."""
        return tuple(self.root.seen or self.root.operands)  # type: ignore[attr-defined]

    @property
    def op_name(self) -> str:  # type: ignore[override]
        """The name of the op, in model files too: module and class, unless the class says otherwise."""
        return self._op_name()

    @classmethod
    def _op_name(cls) -> str:
        return cls.__module__ + "." + cls.__name__

    def infer_outputs(self) -> list[Variable]:
        """The outputs, made by `C.output_variable` of what `inputs` are."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method infer_outputs, got none")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See the class."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward, got none")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """See the class."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method backward, got none")

    def clone(self, cloned_inputs: Any) -> Any:  # type: ignore[override]
        """The same function of other inputs. A class with a constructor that does not take them one by one, then `name`, has a clone too."""
        if type(self).__init__ is UserFunction.__init__:
            return type(self)(cloned_inputs, self.as_numpy, dict(self.root.attributes), self.name)
        return type(self)(*cloned_inputs, name=self.name)

    def serialize(self) -> Any:
        """The state that a model file keeps: numbers, texts, arrays, lists and dicts."""
        return {}

    @staticmethod
    def deserialize(inputs: list[Variable], name: str, state: Any) -> Any:
        """Makes the function from what `serialize` gave; a class that gives it can be read from files."""
        raise NotImplementedError("UserFunction: expected a class with a deserialize of its own, got none")


def _line_of(function: UserFunction) -> str:
    """Where a user function is made: the line that calls its constructor, not one inside."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_argcount or frame.f_locals.get(frame.f_code.co_varnames[0]) is not function:
            break
        frame = frame.f_back
    return user_line(frame)


def user_function(user_func: Any) -> Function:
    """The graph that ends in a user function, as a function of its free inputs. Raises `UserFunctionError` where its outputs cannot be inferred."""
    if not isinstance(user_func, Function):
        raise TypeError(here(f"user_function: expected a UserFunction, got {type(user_func).__name__}"))
    _ = user_func.root.types
    return Function(user_func.root)


def register_callback(op_name: str, callback: Deserializer) -> None:
    """Says how user functions that files call `op_name` are made: callback(inputs, name, state). Raises `ValueError` for a second one."""
    if op_name in _callbacks:
        raise ValueError(here(f"register_udf_deserialize_callback: expected an op name that has no callback, got {op_name!r}"))
    _callbacks[op_name] = callback


def read_user(op: str, user: str, inputs: list[Variable], name: str, attributes: dict[str, Any], state: Any) -> Primitive:
    """The node of a user function that a file names. Raises `ModelFileError` where nothing of that name is registered."""
    make = USER_OPS[op](user, attributes)
    if make is None:
        raise ModelFileError(
            f"expected user functions that are registered, got {user[:100]!r}; import the module of its class, which needs a deserialize of "
            "its own, or use C.Function.register_udf_deserialize_callback or C.register_native_user_function before loading"
        )
    try:
        made = make(inputs, name, state)
        if not isinstance(made, Function) or not isinstance(made.root, UserNode):
            raise TypeError(f"a UserFunction is wanted, not {type(made).__name__}")
    except Exception as e:
        raise UserFunctionError(f"{user} '{name}': expected deserialize to return, got {type(e).__name__}: {e}") from e
    made.root.attributes.update(attributes)
    return made.root


def _python_maker(user: str, attributes: dict[str, Any]) -> Deserializer | None:
    return _callbacks.get(user) or _registered.get(user)


USER_OPS: dict[str, Callable[[str, dict[str, Any]], Deserializer | None]] = {
    "user_function": _python_maker
}  # op -> what makes it again


# what runs -----------------------------------------------------------------------------------------------------------------------


def failure(node: UserNode, what: str, error: BaseException) -> UserFunctionError:
    """An exception of a user's own as an error that names the node."""
    return UserFunctionError(f"{node.place}: expected {what} to return, got {type(error).__name__}: {error}")


class UserCall:
    """One user function in one lowered graph.

    needs: of each operand whether it wants a gradient; free: of each output whether only a run says its shape; keep: whether a backward
    call will come. states: what forward calls put aside, by token.
    """

    __slots__ = ("count", "free", "keep", "needs", "node", "states")

    def __init__(self, node: UserNode, free: tuple[bool, ...]):
        self.node, self.free = node, free
        known: set[int] = set()
        needs = []
        for v in node.operands:  # an operand that stands twice is one key of `variables`
            needs.append(v.needs_gradient and id(v) not in known)
            known.add(id(v))
        self.needs = tuple(needs)
        self.keep = False
        self.begin()

    def begin(self) -> None:
        """Before a run."""
        self.count = 0
        self.states: dict[int, Any] = {}

    def put(self, state: Any) -> int:
        """Puts the state of a forward call aside; its token."""
        token = self.count
        self.count += 1
        if self.keep:
            self.states[token] = state
        return token

    def take(self, token: np.ndarray) -> Any:
        """The state of the call that gave these tokens. Raises `ValueError` where several did."""
        found = np.unique(token).astype(int).tolist() if token.size else [self.count - 1]
        states = [self.states.pop(t, None) for t in found]
        if len(states) > 1 and any(s is not None for s in states):
            raise ValueError(
                f"one forward call for each backward call, got {len(states)} steps of a recurrence together; give None as state"
            )
        return states[0]


def _expand(g: Any, x: list[Any], attrs: dict[str, Any], training: bool) -> list[Any]:
    node = g.origin
    types, free = node.concrete([v.type for v in x], g.sizes.get(("user", node.number)))
    return node.lowered(g, x, types, free)


def _forward_gradient(n: Any, *dy: Any) -> list[Any]:
    call, outputs = n.attrs["call"], n.attrs["call"].node.outputs
    given = tuple(i for i, d in enumerate(dy[:-1]) if d is not None and outputs[i].flows)
    wanted = [v for v, need in zip(n.inputs, call.needs, strict=True) if need]
    if not given or not wanted:
        return [None] * len(n.inputs)
    call.keep = True
    whole = [dy[i].expand(n.outputs[i].type) for i in given]
    made = n.graph.node("user_backward", [n.outputs[-1], *whole], call=call, given=given, types=tuple(v.type for v in wanted))
    found = iter(made if isinstance(made, list) else [made])
    return [next(found) if need else None for need in call.needs]


def typed(types: Any, attrs: dict[str, Any]) -> list[Type]:
    """The types that a lowered node was given."""
    return list(attrs["types"])


def untyped(types: Any, attrs: dict[str, Any]) -> list[Type]:
    """User functions infer their types themselves."""
    raise TypeError("a user function has no types but those that it infers")


Op("user_function", "UserDefinedFunction", untyped, None, "expand", "CNTK v2", expand=_expand)
# attrs call: a `UserCall`; needs: its needs; types: of the outputs and the token
Op("user_forward", "UserDefinedFunction", typed, _forward_gradient, "user_forward", "the user's", own_rows=True)
# inputs: the token, gradients of the outputs `given`; outputs: gradients of the operands that need one
Op("user_backward", "UserDefinedFunction", typed, constant_gradient, "user_backward", "the user's", own_rows=True)
