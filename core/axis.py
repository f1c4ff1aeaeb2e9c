"""Axes: static ones are dimensions of one sample, dynamic ones say which samples there are."""

from __future__ import annotations

import itertools

__all__ = ["Axis"]

_NO_INDEX = 1 << 30
_counter = itertools.count()


class Axis:
    """A static axis (by index) or a dynamic axis (by name).

    Static indices count as NumPy's do; negative ones count from the end. Two axes are equal when kind and index (or name) are.
    """

    __slots__ = ("_index", "is_ordered", "name")

    def __init__(self, index: int | str | Axis, name: str = "", is_ordered: bool = True):
        if isinstance(index, Axis):
            index, name, is_ordered = index._index, index.name, index.is_ordered
        if isinstance(index, str):
            name, index = index, _NO_INDEX
        self._index: int = index  # type: ignore[assignment]
        self.is_ordered = is_ordered
        self.name = name or f"staticAxisIdx={index}"

    @property
    def is_static_axis(self) -> bool:
        """Whether this is a dimension of one sample."""
        return abs(self._index) < _NO_INDEX - 8

    @property
    def is_dynamic_axis(self) -> bool:
        """Whether this is the batch axis or a sequence axis."""
        return not self.is_static_axis and self not in (_ALL, _ALL_STATIC, _UNKNOWN, _LEADING)

    @property
    def is_batch_axis(self) -> bool:
        """Whether this is the batch axis."""
        return self.name == _BATCH.name or self._index > _NO_INDEX

    @property
    def is_sequence_axis(self) -> bool:
        """Whether this is a sequence axis."""
        return self.is_dynamic_axis and not self.is_batch_axis

    def static_axis_index(self, checked: bool = True) -> int:
        """The index of a static axis; `ValueError` for a dynamic one when `checked`."""
        if checked and not self.is_static_axis:
            raise ValueError(f"Axis '{self.name}': expected a static axis, got a dynamic one; it has no index")
        return self._index

    @staticmethod
    def default_batch_axis() -> Axis:
        """The batch axis."""
        return _BATCH

    @staticmethod
    def batch_of(rows: int) -> Axis:
        """A batch axis of its own, of so many rows: of a batch made of a static axis that is not as long as the one that is fed."""
        return Axis(_NO_INDEX + 1, f"batchOf_{rows}")

    @staticmethod
    def default_dynamic_axis() -> Axis:
        """The default sequence axis."""
        return _SEQUENCE

    @staticmethod
    def default_input_variable_dynamic_axes() -> tuple[Axis, ...]:
        """The dynamic axes of a variable over sequences: the batch axis and the default sequence axis."""
        return (_BATCH, _SEQUENCE)

    @staticmethod
    def all_axes() -> Axis:
        """Every static axis and every dynamic one, for reductions."""
        return _ALL

    @staticmethod
    def all_static_axes() -> Axis:
        """Every static axis, for reductions."""
        return _ALL_STATIC

    @staticmethod
    def new_leading_axis() -> Axis:
        """An axis in front of all others, for `splice` and `expand_dims`."""
        return _LEADING

    @staticmethod
    def unknown_dynamic_axes() -> tuple[Axis, ...]:
        """The axes of a placeholder whose row space is not known yet."""
        return (_UNKNOWN,)

    @staticmethod
    def new_unique_dynamic_axis(name: str) -> Axis:
        """A sequence axis equal to no other; its name starts with `name`."""
        return Axis(f"{name}_{next(_counter)}" if name else f"axis_{next(_counter)}")

    @staticmethod
    def end_static_axis() -> Axis:
        """The position after the last static axis."""
        return Axis(0, "endStaticAxis")

    def __eq__(self, other) -> bool:
        return isinstance(other, Axis) and (self._index, self.name) == (other._index, other.name)

    def __hash__(self) -> int:
        return hash((self._index, self.name))

    def __repr__(self) -> str:
        return f"Axis('{self.name}')"

    __str__ = __repr__


_BATCH = Axis("defaultBatchAxis", is_ordered=False)
_SEQUENCE = Axis("defaultDynamicAxis")
_ALL = Axis(_NO_INDEX - 1, "AllAxes")
_ALL_STATIC = Axis(_NO_INDEX - 2, "AllStaticAxes")
_UNKNOWN = Axis(_NO_INDEX - 3, "UnknownAxes")
_LEADING = Axis(_NO_INDEX - 4, "NewLeadingAxis")
