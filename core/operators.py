"""Arithmetic and slicing written as Python writes them."""

from __future__ import annotations

from cogkit.errors import here

__all__ = ["Operators"]


class Operators:
    """Arithmetic on variables and functions, each an op."""

    __array_priority__ = 1000  # NumPy arrays leave the operation to us
    __array_ufunc__ = None

    def __add__(self, other):
        return _ops().plus(self, other)

    def __radd__(self, other):
        return _ops().plus(other, self)

    def __sub__(self, other):
        return _ops().minus(self, other)

    def __rsub__(self, other):
        return _ops().minus(other, self)

    def __mul__(self, other):
        return _ops().element_times(self, other)

    def __rmul__(self, other):
        return _ops().element_times(other, self)

    def __truediv__(self, other):
        return _ops().element_divide(self, other)

    def __rtruediv__(self, other):
        return _ops().element_divide(other, self)

    def __matmul__(self, other):
        return _ops().times(self, other)

    def __rmatmul__(self, other):
        return _ops().times(other, self)

    def __pow__(self, other):
        return _ops().pow(self, other)

    def __rpow__(self, other):
        return _ops().pow(other, self)

    def __neg__(self):
        return _ops().negate(self)

    def __abs__(self):
        return _ops().abs(self)

    def __getitem__(self, key):
        """Slices static axes: an index keeps its axis at size 1, a list picks entries, as in CNTK."""
        return _ops().getitem(self, key)

    def __iter__(self):
        raise TypeError(here(f"iteration: expected an array, got {self!r}; take parts with C.slice or [] and bounds"))


def _ops():
    from cogkit import ops

    return ops
