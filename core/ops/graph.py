"""Ops that make, name and group variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit import functions
from cogkit.axis import Axis
from cogkit.default_options import default_override_or, get_default_override
from cogkit.errors import here
from cogkit.functions import Function, apply
from cogkit.op import Op, Type, constant_gradient, fits, join_axes
from cogkit.variables import Constant, Input, Parameter, Placeholder, Variable, sanitize_dtype, sanitize_shape

__all__ = [
    "alias",
    "as_block",
    "as_composite",
    "assign",
    "combine",
    "constant",
    "custom_proxy_op",
    "eye_like",
    "input",
    "input_variable",
    "ones_like",
    "output_variable",
    "parameter",
    "placeholder",
    "zeros_like",
]

as_block = functions.as_block


def _same(types, attrs):
    return [types[0]]


def _none(types, attrs):
    raise TypeError("a block or combination has no types of its own")


def _assign_type(types, attrs):
    target, value = types
    if not fits(target.shape, value.shape) or target.dtype != value.dtype or value.axes:
        raise ValueError(
            (f"a value of its target's type {target}", str(value), "reduce over the batch first" if value.axes else "")
        )
    return [target]


Op("alias", "Alias", _same, lambda n, dy: [dy], "view", "identity")
Op("combine", "Combine", _none, None, "expand", "CNTK v2", expand=lambda g, x, attrs, training: x)
Op("block", "Block", _none, None, "expand", "CNTK v2", expand=lambda g, x, attrs, training: x)
Op("assign", "Assign", _assign_type, lambda n, dy: [None, dy], "assign", "CNTK v2")
Op("fill", "Fill", lambda types, attrs: [attrs["type"]], constant_gradient, "pointwise", "a number everywhere")


def input_variable(
    shape: Any,
    dtype: Any = default_override_or(np.float32),
    needs_gradient: bool = False,
    is_sparse: bool = False,
    dynamic_axes: Any = (Axis.default_batch_axis(),),
    name: str = "",
) -> Variable:
    """A value fed at each call.

    shape: of one sample (number or tuple; `C.FreeDimension` for sizes that differ from feed to feed). dynamic_axes: the batch axis
    unless said otherwise. Raises `ValueError` or `TypeError` for a shape or type that makes no sense.
    """
    axes = (dynamic_axes,) if isinstance(dynamic_axes, Axis) else tuple(dynamic_axes)
    return Input(sanitize_shape(shape), get_default_override(input_variable, dtype=dtype), needs_gradient, is_sparse, axes, name)


input = input_variable


def output_variable(shape: Any, dtype: Any, dynamic_axes: Any, needs_gradient: bool = True, name: str = "") -> Variable:
    """Describes an output of a user function."""
    return Variable(shape, dtype, needs_gradient, False, dynamic_axes, name)


def placeholder(shape: Any = None, dynamic_axes: Any = None, name: str = "") -> Variable:
    """Stands for a variable given later by `replace_placeholders` or by a call. A text as `shape` is taken for the name."""
    if isinstance(shape, str):
        shape, name = None, name or shape
    return Placeholder(shape, None, True, False, dynamic_axes, name)


def parameter(shape: Any = None, init: Any = None, dtype: Any = None, device=None, name: str = "") -> Parameter:
    """A value that learners change; see `Parameter`."""
    return Parameter(shape, init, default_override_or(np.float32) if dtype is None else dtype, device, name)


def constant(value: Any = None, shape: Any = None, dtype: Any = None, device=None, name: str = "") -> Constant:
    """A value that no learner changes; see `Constant`."""
    return Constant(value, shape, default_override_or(np.float32) if dtype is None else dtype, device, name)


def alias(x: Any, name: str = "") -> Function:
    """x under another name."""
    return apply("alias", [x], name)


def combine(*operands: Any, name: str = "") -> Function:
    """Several functions seen as one with all their outputs, in order."""
    return functions.combine(*operands, name=name)


def as_composite(root_function: Function, name: str = "") -> Function:
    """The graph that ends in a node, as a function of its free inputs; of that name, where one is given."""
    graph = Function(root_function.root)
    return apply("alias", [graph], name) if name and name != graph.name else graph


def assign(ref: Any, input: Any, name: str = "") -> Function:
    """Writes `input` into the parameter or constant `ref` when run; its value is `input`.

    Everything else in the graph that reads `ref` sees the value from before. Raises `TypeError` for another kind of target.
    """
    if not isinstance(ref, (Parameter, Constant)):
        raise TypeError(here(f"assign: expected a parameter or constant as target, got {ref!r}"))
    ref.assigned = True
    return apply("assign", [ref, input], name)


def _proxy_type(types, attrs):
    return [Type(attrs["output_shape"], np.dtype(attrs["dtype"]), join_axes(types))]


def _proxy_expand(g, x, attrs, training):
    way = "replace it: model.clone('share', {proxy.output: ...})"
    raise ValueError(("nodes that compute something", f"a proxy of '{attrs['custom_op']}'", way))


Op("custom_proxy", "CustomProxyOp", _proxy_type, None, "expand", "CNTK v2", expand=_proxy_expand, whole=True)


def custom_proxy_op(custom_op: str, output_shape: Any, output_data_type: Any, *operands: Any, name: str = "") -> Function:
    """A node that stands for a computation that is not here: a model with it can be saved, loaded and changed, but not run.

    custom_op: what it stands for; operands of any type, whole numbers included. output_shape, output_data_type: of its result.
    """
    shape, dtype = sanitize_shape(output_shape), sanitize_dtype(output_data_type)
    return apply("custom_proxy", list(operands), name, custom_op=str(custom_op), output_shape=shape, dtype=np.dtype(dtype).name)


def _like(value: float):
    def expand(g, x, attrs, training):
        return g.fill(value, x[0].type)

    return expand


Op("zeros_like", "ZerosLike", _same, constant_gradient, "expand", "CNTK v2", expand=_like(0.0))
Op("ones_like", "OnesLike", _same, constant_gradient, "expand", "CNTK v2", expand=_like(1.0))


def _eye_type(types, attrs):
    t = types[0]
    if t.axes and any(a.is_sequence_axis for a in t.axes) or len(t.shape) + bool(t.axes) != 2:
        raise ValueError(("two axes, the batch axis counted, and no sequence axis", str(t), ""))
    return [t]


def _eye_expand(g, x, attrs, training):
    t = x[0].type
    shape = (g.rows_of(t.axes), *t.shape) if t.axes else t.shape
    eye = Constant(np.eye(*shape, dtype=t.dtype), dtype=t.dtype)
    v = g.leaf(eye, eye.type)
    return v.node("axis_to_rows", axes=t.axes) if t.axes else v


Op("eye_like", "EyeLikeOp", _eye_type, constant_gradient, "expand", "CNTK v2", expand=_eye_expand)


def zeros_like(x: Any, name: str = "") -> Function:
    """0 in the shape and row space of x."""
    return apply("zeros_like", [x], name)


def ones_like(x: Any, name: str = "") -> Function:
    """1 in the shape and row space of x."""
    return apply("ones_like", [x], name)


def eye_like(x: Any, sparse_output: bool = True, name: str = "") -> Function:
    """1 on the diagonal and 0 elsewhere, in the shape of a matrix x; a batch of vectors is a matrix too. The result is dense.

    Raises `ValueError` for other than two axes, the batch axis counted, and for sequences.
    """
    return apply("eye_like", [x], name)
