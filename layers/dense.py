"""Fully connected layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cogkit import ops
from cogkit.default_options import default_override_or, get_default_override, is_default_override
from cogkit.errors import here
from cogkit.functions import BlockFunction, Function
from cogkit.initializer import glorot_uniform, initializer_with_rank
from cogkit.layers.composition import as_activation, identity, typed
from cogkit.variables import Constant, InferredDimension, Parameter, sanitize_shape

__all__ = ["Dense", "Embedding"]


def Dense(shape: Any, activation: Any = default_override_or(identity), init: Any = default_override_or(glorot_uniform()),
          input_rank: int | None = None, map_rank: int | None = None, bias: Any = default_override_or(True),
          init_bias: Any = default_override_or(0), name: str = "") -> Function:  # fmt: skip
    """activation(x W + b) over all static axes of x, or its last `input_rank`, or all but the first `map_rank`.

    shape: of the output, a number or a tuple. Parameters W (inputs, outputs) and b (outputs). Raises `ValueError` when both ranks are given.
    """
    activation = as_activation(get_default_override(Dense, activation=activation))
    init = get_default_override(Dense, init=init)
    bias = get_default_override(Dense, bias=bias)
    init_bias = get_default_override(Dense, init_bias=init_bias)
    if input_rank is not None and map_rank is not None:
        raise ValueError(here("Dense: expected at most one of input_rank and map_rank, got both"))
    outputs = sanitize_shape(shape)
    if 0 in outputs:
        raise ValueError(here(f"Dense: expected sizes of at least 1, got {shape!r}"))
    inputs = (InferredDimension,) * (1 if input_rank is None else input_rank)
    w = Parameter((*inputs, *outputs), initializer_with_rank(typed(init), output_rank=len(outputs)), name="W")
    b = Parameter(outputs, typed(init_bias), name="b") if bias else None
    mapped = -1 if input_rank is not None else 0 if map_rank is None else map_rank

    @BlockFunction("Dense", name)
    def dense(x):
        r = ops.times(x, w, output_rank=len(outputs), infer_input_rank_to_map=mapped)
        return activation(r + b if bias else r)

    return dense


def Embedding(
    shape: Any = None, init: Any = default_override_or(glorot_uniform()), weights: Any = None, name: str = ""
) -> Function:
    """x E: a vector for each class of a one-hot (or any) input.

    shape: of the vectors; weights: a fixed matrix instead of a learnt one. Raises `ValueError` when both or neither are given.
    """
    if (shape is None) == (weights is None):
        raise ValueError(
            here("Embedding: expected exactly one of shape and weights, got " + ("neither" if shape is None else "both"))
        )
    if weights is not None and not is_default_override(init):
        raise ValueError(here("Embedding: expected init or weights, got both; weights are not learnt"))
    if weights is None:
        init = get_default_override(Embedding, init=init)
        e: Any = Parameter((InferredDimension, *sanitize_shape(shape)), typed(init), name="E")
    else:
        e = Constant(typed(np.asarray(weights)), name="E")

    @BlockFunction("Embedding", name)
    def embed(x):
        return ops.times(x, e, output_rank=len(e._shape) - 1)

    return embed
