"""What CNTK keeps in `cntk.internal` and its own tests call."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import cogkit as C
from cntk_compat.dictionaries import DictionaryValue
from cogkit.functions import Function
from cogkit.variables import Variable

# `float` and `int` as NumPy and CNTK read them: Python's float has 64 bits, its int is single precision
_TYPES = {
    "float": np.float32,
    "float32": np.float32,
    "double": np.float64,
    "float64": np.float64,
    float: np.float64,
    int: np.float32,
}
_TYPES |= {"float16": np.float16, "int8": np.int8, "int16": np.int16}


def sanitize_dtype_numpy(dtype: Any) -> type:
    """The NumPy type that CNTK takes a name or type for."""
    try:
        found = _TYPES[dtype]
    except (KeyError, TypeError):
        found = np.dtype(dtype).type
    return found


sanitize_dtype_cntk = sanitize_dtype_numpy  # CNTK has numbers for types; here a type stands for itself


def sanitize_input(arg: Any, fallback_dtype: Any = np.float32, reshape: Any = None) -> Variable:
    """The variable that an operand stands for; a constant of `fallback_dtype` for numbers and arrays."""
    if isinstance(arg, (Variable, Function)):
        return arg.output if isinstance(arg, Function) else arg
    value = np.asarray(arg, sanitize_dtype_numpy(fallback_dtype))
    return C.constant(value if reshape is None else value.reshape(reshape), dtype=value.dtype)


def sanitize_value(shape: Any, value: Any, dtype: Any, device: Any) -> C.NDArrayView:
    """A view: of zeros of the given shape, of one filled with a number, or of an array."""
    dtype = np.float32 if dtype is None else sanitize_dtype_numpy(dtype)
    if value is not None and not np.isscalar(value):
        return C.NDArrayView.from_dense(np.array(value, dtype), device)
    made = C.NDArrayView(shape, dtype, device)
    made.set_value(0 if value is None else value)
    return made


def _to_cntk_dict_value(value: Any) -> DictionaryValue:
    """An array as custom attributes hold it: CNTK has a class for values of dictionaries."""
    return np.asarray(value).view(DictionaryValue)


def sanitize_batch(var: Variable, batch: Any, seq_starts: Any = None, device: Any = None) -> Any:
    """The value of a minibatch for a variable; `ValueError` where a value is given flags of new sequences, as it has its own."""
    if isinstance(batch, C.Value):
        if seq_starts is not None:
            raise ValueError("sanitize_batch: expected flags of new sequences beside arrays, got them beside a Value")
        return batch
    if isinstance(batch, list) and any(isinstance(a, np.ndarray) and not a.flags.c_contiguous for a in batch):
        warnings.warn("sanitize_batch: an array that does not lie row by row is copied", RuntimeWarning, stacklevel=2)
    return C.Value.create(var, batch, seq_starts, device)


def sanitize_permutation(perm: Any) -> list[int]:
    """A permutation of axes as seen when axes are counted from the last to the first."""
    n = len(perm)
    return [n - 1 - int(perm[n - 1 - i]) for i in range(n)]


def sanitize_dynamic_axes(axes: Any) -> tuple:
    """Dynamic axes, the last one first."""
    return tuple(reversed(axes)) if isinstance(axes, (list, tuple)) else (axes,)


def get_data_type(*args: Any) -> type | None:
    """The element type of operands: that of variables where one has it, else the widest of the data."""
    variables = [a.dtype for a in args if isinstance(a, (Variable, Function)) and a.dtype is not None]
    others = [a for a in args if not isinstance(a, (Variable, Function))]
    data = [np.float64 if getattr(a, "dtype", None) == np.float64 else np.float32 for a in others]
    found = variables or data
    return (np.float64 if np.float64 in found else np.float32) if found else None


def typemap(f):
    """CNTK turns what its C++ half returns into Python's classes here; there is one half only."""
    return f


def _ones_like(batch: Any, precision: Any) -> Any:
    dtype = sanitize_dtype_numpy(precision)
    return [np.ones_like(sample, dtype) for sample in batch] if isinstance(batch, list) else np.ones_like(batch, dtype)


def eval(
    op: Function,
    arguments: Any = None,
    precision: Any = None,
    device: Any = None,
    backward_pass: bool = False,
    expected_backward: Any = None,
):
    """Values of all outputs and, if wanted, gradients with respect to the keys of `expected_backward` for a root gradient of ones."""
    state, values = op.forward(arguments, op.outputs, op.outputs if backward_pass else None, device=device)
    if not backward_pass:
        return values, None
    wanted = arguments if expected_backward is None else expected_backward
    return values, op.backward(state, {v: _ones_like(y, precision) for v, y in values.items()}, wanted)


def _value_as_sequence_or_array(value: Any, variable: Any) -> Any:
    """A list of sequences where the variable has a sequence axis, else an array."""
    return value.as_sequences(variable) if len(variable.dynamic_axes) > 1 else value.asarray()
