"""Types of a function's arguments: `def f(x: Sequence[Tensor[3]])`, `@Signature(Tensor[3, 2])`, `f.update_signature(Tensor[5])`.

A type is a record of an input's settings, so that `C.input_variable(**Sequence[Tensor[3]])` makes one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from cogkit.axis import Axis
from cogkit.errors import here
from cogkit.variables import Record, sanitize_shape

__all__ = ["ParameterTensor", "Sequence", "SequenceOver", "Signature", "SparseTensor", "Tensor", "tensor"]

_BATCH = Axis.default_batch_axis()
tensor = Record(shape=None, is_sparse=False, dynamic_axes=(_BATCH,))  # of any shape


class Tensor:
    """`Tensor[3, 2]`: a value of that shape for each batch item; `Tensor[()]` a number."""

    def __class_getitem__(cls, shape: Any) -> Record:
        return tensor.updated_with(shape=sanitize_shape(shape))


class SparseTensor:
    """`SparseTensor[9000]`: as `Tensor`, fed sparse."""

    def __class_getitem__(cls, shape: Any) -> Record:
        return Tensor[shape].updated_with(is_sparse=True)


class ParameterTensor:
    """`ParameterTensor[3, 2]`: a value of that shape that is the same for all batch items."""

    def __class_getitem__(cls, shape: Any) -> Record:
        return Tensor[shape].updated_with(dynamic_axes=())


class _SequencesOver:
    """Makes types of sequences over one axis."""

    def __init__(self, axis: Axis):
        if not isinstance(axis, Axis) or not axis.is_sequence_axis:
            raise TypeError(here(f"SequenceOver: expected a sequence axis such as C.Axis('t'), got {axis!r}"))
        self.axis = axis

    def __getitem__(self, item: Record) -> Record:
        if not isinstance(item, Record) or tuple(item.dynamic_axes) != (_BATCH,):
            raise TypeError(here(f"Sequence: expected a type such as Tensor[3] for its steps, got {item!r}"))
        return item.updated_with(dynamic_axes=(_BATCH, self.axis))


class SequenceOver:
    """`SequenceOver[axis][Tensor[3]]`: a sequence of such values over an axis of its own."""

    def __class_getitem__(cls, axis: Axis) -> _SequencesOver:
        return _SequencesOver(axis)


class Sequence:
    """`Sequence[Tensor[3]]`: a sequence of such values over the default axis. Raises `TypeError` for sequences of sequences."""

    def __class_getitem__(cls, item: Record) -> Record:
        return _SequencesOver(Axis.default_dynamic_axis())[item]


def Signature(*types: Any, **named: Any) -> Callable[[Callable], Callable]:
    """Decorator: gives the arguments of a Python function their types, by position or name. `TypeError` for another number or name."""

    def annotate(f: Callable) -> Callable:
        signature = inspect.signature(f)
        names = [p.name for p in signature.parameters.values() if p.default is p.empty]
        given = dict(zip(names, types, strict=False))
        wrong = [n for n in named if n not in names or n in given]
        if wrong or len(types) + len(named) != len(names):
            fact = ", ".join(wrong) if wrong else str(len(types) + len(named))
            raise TypeError(here(f"Signature: expected types of {', '.join(names)}, got {fact}"))
        given.update(named)

        @functools.wraps(f)
        def annotated(*args):
            return f(*args)

        kept = [p.replace(annotation=given[p.name]) for p in signature.parameters.values() if p.name in given]
        annotated.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return annotated

    return annotate
