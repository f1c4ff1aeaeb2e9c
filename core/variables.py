"""Variables: the values of a graph's nodes - inputs, parameters, constants, placeholders and outputs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from cogkit.axis import Axis
from cogkit.csr import CsrRows
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here, sentence, user_line
from cogkit.op import FLOATS, FREE, HALF, INFERRED, Type, row_space, shown
from cogkit.operators import Operators
from cogkit.residence import bring, replacing

edits = 0  # counts edits of graphs and of constants: a plan is checked again after one
function_of: Any = None  # set by functions, which import this: a node as a function
renaming = False  # whether a named function or variable may be given another name

__all__ = ["Constant", "FreeDimension", "InferredDimension", "Parameter", "Record", "Variable"]

InferredDimension = INFERRED
FreeDimension = FREE
_serial = itertools.count()
_NAMES = {"float": np.float32, "double": np.float64}
_WHOLE = (np.dtype(np.int8), np.dtype(np.int16))  # held, and handed to functions of the user, but not computed with


def sanitize_dtype(dtype: Any) -> np.dtype | None:
    """A NumPy element type from CNTK's or NumPy's ways to name one; `TypeError` for one that no value has.

    As in CNTK 'float' has 32 bits, Python's float 64, and Python's int is float32.
    """
    if dtype is None:
        return None
    try:
        found = np.dtype(np.float32 if dtype is int else _NAMES.get(dtype, dtype) if isinstance(dtype, str) else dtype)
    except TypeError:
        raise TypeError(here(f"dtype: expected float16, float32, float64, int8 or int16, got {dtype!r}")) from None
    if found not in FLOATS and found not in _WHOLE:
        raise TypeError(here(f"dtype: expected float16, float32, float64, int8 or int16, got {found.name}"))
    return found


def sanitize_shape(shape: Any) -> tuple[int, ...]:
    """A shape from a number, a sequence of numbers or the memory of an array; `ValueError` for sizes that make no sense."""
    if isinstance(shape, memoryview):  # `x.data` where `x.shape` was meant, which CNTK lets pass
        shape = shape.shape
    sizes = (shape,) if np.isscalar(shape) else tuple(shape)
    out = []
    for n in sizes:
        if isinstance(n, (float, np.floating)) and n.is_integer():  # a size that was divided
            n = int(n)
        if not isinstance(n, (int, np.integer)) or isinstance(n, (bool, np.bool_)) or n < FREE or n == -2:
            raise ValueError(here(f"shape: expected sizes >= 0 (or C.InferredDimension, C.FreeDimension), got {shape!r}"))
        out.append(int(n))
    return tuple(out)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array whose data start on a cache line (64 bytes)."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


class Variable(Operators):
    """A value in a graph. Made by `input_variable`, `parameter`, `constant`, `placeholder`, or as an output of a function.

    shape: of one sample, without dynamic axes. dynamic_axes: its row space. `uid` is unique in the process.
    """

    kind = "Variable"
    node: Any = None  # what computes it

    def __init__(
        self, shape=None, dtype=None, needs_gradient: bool = False, is_sparse: bool = False, dynamic_axes=None, name: str = ""
    ):
        self._shape = None if shape is None else sanitize_shape(shape)
        self._dtype = sanitize_dtype(dtype)
        if is_sparse and self._dtype == HALF:
            way = "cast what is computed of them"
            raise TypeError(sentence(self.kind, name, user_line(), "float32 or float64 for sparse values", "float16", way))
        self._axes = None if dynamic_axes is None else tuple(dynamic_axes)
        self.needs_gradient = needs_gradient
        self.is_sparse = is_sparse
        self._name = name
        self.serial = next(_serial)
        self.where = user_line()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample; () while a placeholder's is not known."""
        t = self.type
        return () if t.shape is None else t.shape

    @property
    def dtype(self) -> type | None:
        """Element type, as a NumPy type; None while it is not known."""
        t = self.type
        return None if t.dtype is None else t.dtype.type

    @property
    def dynamic_axes(self) -> tuple[Axis, ...]:
        """Batch axis and sequence axis of the value."""
        t = self.type
        return Axis.unknown_dynamic_axes() if t.axes is None else t.axes

    @property
    def type(self) -> Type:
        """Shape, element type and row space in one record."""
        return Type(self._shape, self._dtype, self._axes)

    @property
    def name(self) -> str:
        """The name given by the user, or ''."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        if self._name and value != self._name and not renaming:
            raise ValueError(
                sentence(
                    self.kind,
                    self._name,
                    self.where,
                    "a variable without a name",
                    f"a new name {value!r}",
                    "names are given once; use C.alias(x, name)",
                )
            )
        self._name = value

    @property
    def uid(self) -> str:
        """A name that is unique in this process."""
        return f"{self.kind}{self.serial}"

    @property
    def owner(self) -> Any:
        """The function whose output this is, or None."""
        return None if self.node is None else function_of(self.node)

    def has_batch_axis(self) -> bool:
        """Whether it has one value for each sample of a minibatch."""
        return any(a.is_batch_axis for a in self.dynamic_axes)

    def has_sequence_axis(self) -> bool:
        """Whether it has one value for each step of sequences."""
        return any(a.is_sequence_axis for a in self.dynamic_axes)

    is_input = property(lambda self: self.kind == "Input", doc="Whether the value is fed.")
    is_output = property(lambda self: self.kind == "Output", doc="Whether the value is computed.")
    is_parameter = property(lambda self: self.kind == "Parameter", doc="Whether the value is learned.")
    is_constant = property(lambda self: self.kind == "Constant", doc="Whether the value is fixed.")
    is_placeholder = property(lambda self: self.kind == "Placeholder", doc="Whether the value stands for one given later.")

    def as_parameter(self) -> Any:
        """This variable as a `Parameter`; `TypeError` if it is none."""
        if not self.is_parameter:
            raise TypeError(sentence(self.kind, self.name, self.where, "a parameter", self.kind.lower()))
        return self

    def as_constant(self) -> Any:
        """This variable as a `Constant`; `TypeError` if it is none."""
        if not self.is_constant:
            raise TypeError(sentence(self.kind, self.name, self.where, "a constant", self.kind.lower()))
        return self

    def __repr__(self) -> str:
        t = self.type
        shape = "[???]" if t.shape is None else "[" + " x ".join({FREE: "*", INFERRED: "?"}.get(n, str(n)) for n in t.shape) + "]"
        axes = "[???]" if t.axes is None else row_space(t.axes) or "[]"
        return f"{self.kind}('{self.name or self.uid}', {axes}, {shape})"


def kind_of(v: Variable) -> str:
    """What a value is, as CNTK writes types: `Sequence[Tensor[5]]`, `np.float32` for a number, `Sequence[tensor]` while it is not known."""
    t = v.type
    if t.shape is None:
        return "Sequence[tensor]"
    dtype = np.dtype(t.dtype or np.float32)
    sizes = [str(n) for n in t.shape]
    if not sizes:
        kind = f"np.{dtype.name}"
    else:
        sizes = sizes if dtype == np.float32 else [f"np.{dtype.name}", *sizes]
        kind = f"{'Sparse' * v.is_sparse}{'' if t.axes or t.axes is None else 'Parameter'}Tensor[{','.join(sizes)}]"
    return f"Sequence[{kind}]" if t.axes is None or any(a.is_sequence_axis for a in t.axes) else kind


class Input(Variable):
    """A value fed at each call."""

    kind = "Input"


class Placeholder(Variable):
    """Stands for a variable that `replace_placeholders` or a call gives later."""

    kind = "Placeholder"


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

    @classmethod
    def like(cls, v: Variable) -> BoundPlaceholder:
        """One of the name and shape of a variable."""
        return cls(v._shape, None, True, False, None, v.name)


def standing_for(v: Variable) -> Variable:
    """The variable itself, or what a block's placeholder stands for in the end."""
    while isinstance(v, BoundPlaceholder) and v.stands_for is not None:
        v = v.stands_for
    return v


class Output(Variable):
    """An output of a function; its type follows from the function's inputs."""

    kind = "Output"
    flows = True  # whether gradients may come through, if anything before it wants them

    def __init__(self, node, index: int, name: str):
        self.node = node
        self.index = index
        self._name = name
        self.is_sparse = False
        self.serial = next(_serial)
        self.where = node.where

    @property
    def uid(self) -> str:
        """A name that is unique in this process."""
        return f"{self.node.uid}_Output_{self.index}"

    @property
    def type(self) -> Type:
        return self.node.types[self.index]

    @property
    def needs_gradient(self) -> bool:
        """Whether a gradient can flow through this value."""
        stack, seen = [self.node], set()
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            inside = node.composite.outputs if node.composite is not None else ()  # a block has parameters of its own
            for v in (*node.operands, *inside):
                v = standing_for(v)
                if not v.is_output:
                    if v.needs_gradient:
                        return True
                elif v.flows:
                    stack.append(v.node)
        return False


class _Valued(Variable):
    """A variable that holds its value: an aligned array that stays where it is, so that plans may point at it."""

    def __init__(self, shape, init, dtype, needs_gradient, name):
        super().__init__(shape, dtype, needs_gradient=needs_gradient, dynamic_axes=(), name=name)
        self._init = init
        self._data: Any = None  # an array; of a sparse constant `CsrRows`
        self.version = 0  # counts the writes from outside of plans
        self.assigned = False  # whether an op writes it
        self.row_sparse = False  # whether the data are a list of rows, as those of a gradient
        self.lags: list[Any] = []  # updates that have rows of the data still to bring up to date: `settle`
        self.behind: Any = None  # the state of such an update that is to go on where a checkpoint was
        if isinstance(init, (str, bytes, dict)):
            raise TypeError(
                sentence(
                    self.kind, name, self.where, "a number, an array or an initialiser such as C.glorot_uniform()", repr(init)
                )
            )
        if self._known():
            self._settle()

    def _known(self) -> bool:
        return self._shape is not None and all(n >= 0 for n in self._shape)

    def _settle(self) -> None:
        """Now that the shape is known: takes an initial value, or asks the initialiser whether it can make one."""
        if not callable(self._init):
            self._fill()
        elif hasattr(self._init, "check"):
            try:
                self._init.check(self._shape)
            except ValueError as e:
                raise ValueError(sentence(self.kind, self._name, self.where, *e.args[0])) from None

    def _fill(self) -> None:
        init = self._init
        data = aligned_empty(self._shape, self._dtype)
        if callable(init):  # half precision is drawn in single, so that the numbers are the same but for rounding
            init = init(self._shape, np.dtype(np.float32) if self._dtype == HALF else self._dtype)
        lead = len(self._shape) - np.ndim(init)
        if np.ndim(init) and (lead < 0 or (1,) * lead + np.shape(init) != self._shape):
            raise ValueError(
                sentence(self.kind, self._name, self.where, f"an initial value of shape {self._shape}", f"{np.shape(init)}")
            )
        data[...] = init
        self._data = data
        self._init = None

    def bind_shape(self, shape: tuple[int, ...]) -> None:
        """Fills in inferred dimensions; `ValueError` where a known one differs."""
        old, shape = self._shape, tuple(shape)
        if old is not None and old != shape:
            # a free leading size may stand for several axes
            tail = old[1:] if len(old) != len(shape) and old[:1] == (INFERRED,) else old
            if INFERRED not in old or any(a not in (INFERRED, b) for a, b in zip(tail[::-1], shape[::-1], strict=False)):
                raise ValueError(sentence(self.kind, self._name, self.where, f"a shape that fits {shown(old)}", shown(shape)))
        self._shape = tuple(shape)
        if self._data is None and self._known():
            self._settle()

    @property
    def data(self) -> np.ndarray:
        """The live array that plans read and write, all of its rows up to date; initialised at first use."""
        place = self.place
        for lag in self.lags:
            lag.settle()
        return bring(place, True)

    @property
    def settled(self) -> np.ndarray:
        """The same array, all of its rows up to date, for whoever only reads it."""
        for lag in self.lags:
            lag.settle()
        return bring(self.place)

    @property
    def place(self) -> np.ndarray:
        """The same array, whatever its rows are: for its address."""
        if self._data is None:
            if not self._known():
                raise ValueError(
                    sentence(
                        self.kind,
                        self._name,
                        self.where,
                        "a known shape",
                        shown(self._shape),
                        "apply the function to an input first, so that the shape is inferred",
                    )
                )
            self._fill()
        return self._data

    @property
    def value(self) -> np.ndarray:
        """The value, as a copy; a CSR matrix where it is sparse."""
        return self.settled.matrix() if self.is_sparse else self.settled.copy()

    @value.setter
    def value(self, new: Any) -> None:
        if self.is_sparse:
            raise TypeError(
                sentence(self.kind, self._name, self.where, "no other value of a sparse constant", "one", "make another")
            )
        new = np.asarray(new.asarray() if hasattr(new, "asarray") else new)
        if self._data is None and self._known():
            self._data = aligned_empty(self._shape, self._dtype)
        elif self._data is None:
            self.bind_shape(new.shape)
            self._data = aligned_empty(self._shape, self._dtype)
        if new.shape != self._shape and new.ndim:
            raise ValueError(sentence(self.kind, self._name, self.where, f"a value of shape {self._shape}", f"{new.shape}"))
        with replacing():
            self.data[...] = new
        self.version += 1
        if self.kind == "Constant":
            global edits
            edits += 1  # plans may have folded a scalar constant

    def set_value(self, value: Any) -> None:
        """Takes a number, an array, a view or a value: the same as `value = ...`."""
        self.value = value

    def asarray(self) -> np.ndarray:
        """The value, as a copy."""
        return self.value


class Parameter(_Valued):
    """A value that learners change.

    shape: sizes; `C.InferredDimension` for those that the first use decides. init: a number, an array, or an initialiser
    (`C.glorot_uniform()`), called once the shape is known. Raises `ValueError` when neither shape nor an array is given.
    """

    kind = "Parameter"

    def __init__(self, shape=None, init=None, dtype=default_override_or(np.float32), device=None, name: str = ""):
        given = dtype
        dtype = get_default_override(Parameter, dtype=dtype)
        init = init.asarray() if hasattr(init, "asarray") else init
        if (
            (given is None or isinstance(given, default_override_or))
            and isinstance(init, np.ndarray)
            and init.dtype in (np.float16, np.float64)
        ):
            dtype = init.dtype
        if shape is None:
            if init is None:
                raise ValueError(here("Parameter: expected a shape or an initial array, got neither"))
            init = np.asarray(init)
            shape = init.shape
        super().__init__(shape, 0 if init is None else init, np.float32 if dtype is None else dtype, True, name)


def _nothing(shape: tuple[int, ...], dtype: Any) -> float:
    return 0.0


class Constant(_Valued):
    """A value that no learner changes; ops such as `assign` and batch normalisation may.

    value: a number (0 where only a shape is given), an array, a SciPy CSR matrix, which stays one, or an initialiser. shape: of the constant,
    where `value` is a number. Raises `ValueError` where they do not fit.
    """

    kind = "Constant"
    given: np.ndarray | None = None  # the number as written beside other operands, whose element type it takes

    def __init__(self, value=None, shape=None, dtype=default_override_or(np.float32), device=None, name: str = ""):
        given = dtype
        dtype = get_default_override(Constant, dtype=dtype)
        value = value.asarray() if hasattr(value, "asarray") else value
        rows = None
        if value is None:
            if shape is None:
                raise ValueError(here("Constant: expected a value or a shape, got neither"))
            value = 0
        if not callable(value):
            own = getattr(value, "dtype", None)
            if hasattr(value, "tocsr"):
                rows, shape = value.tocsr(), value.shape if shape is None else sanitize_shape(shape)
                rows.check_format()
            if (given is None or isinstance(given, default_override_or)) and own in (np.float16, np.float64):
                dtype = own
            value = np.asarray(value) if rows is None else _nothing
        if shape is None:
            if callable(value):
                raise ValueError(here("Constant: expected a shape beside an initialiser, got none"))
            shape = value.shape
        super().__init__(shape, value, np.float32 if dtype is None else dtype, False, name)
        if rows is not None:
            if math.prod(self._shape[:-1]) != rows.shape[0] or self._shape[-1:] != rows.shape[1:]:
                raise ValueError(
                    sentence("Constant", name, self.where, f"a shape of {rows.shape} rows and columns", shown(self._shape))
                )
            self.is_sparse, self._data = True, CsrRows(rows, self._dtype)

    @classmethod
    def of_number(cls, value: np.ndarray, dtype: Any = None) -> Constant:
        """A number or array that a user wrote as an operand; without a type it takes that of the operands beside it, once it is known."""
        made = cls(value, dtype=np.float32 if dtype is None else dtype)
        if dtype is None:
            made.given = value
        return made

    def take_type(self, dtype: np.dtype) -> None:
        """Changes the element type of a number that has none of its own."""
        if dtype != self._dtype:
            self._dtype, self._init = dtype, self.given
            self._fill()


class Record(dict):
    """Named values whose items are attributes; cannot be changed. `r.updated_with(name=value)` makes another."""

    def __init__(self, **args: Any):
        super().__init__(args)

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"Record has no item {key!r}; it has {', '.join(self)}") from None

    def __setitem__(self, key, value):
        raise TypeError(here("Record: expected no change, got an assignment; use updated_with"))

    def updated_with(self, **kwargs: Any) -> Record:
        """A copy with some items replaced."""
        return Record(**{**self, **kwargs})
