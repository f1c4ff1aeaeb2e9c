"""Stacks of recurrent layers whose weights are one tensor, laid out as cuDNN does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cogkit.errors import here
from cogkit.functions import Function, as_block, combine, to_variables
from cogkit.ops import graph, linear, pointwise, sequence, shape
from cogkit.variables import BoundPlaceholder, InferredDimension, Variable

__all__ = ["optimized_rnnstack"]


def _lstm(cell: Callable, dh: Any, dc: Any) -> list[Any]:
    i, f, m, o = cell(dh)
    c = pointwise.sigmoid(f) * dc + pointwise.sigmoid(i) * pointwise.tanh(m)
    return [pointwise.sigmoid(o) * pointwise.tanh(c), c]
