"""Arrays outside of a graph: `NDArrayView`, dense or sparse memory with a shape of its own, and what it shares with `Value`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cogkit.engine.device import DeviceDescriptor, all_devices, cpu
from cogkit.errors import DeviceError, here
from cogkit.variables import aligned_empty, sanitize_dtype, sanitize_shape

__all__ = ["ArrayMixin", "Lease", "NDArrayView"]


class Runner(Protocol):
    """What lends its own memory: its number of runs so far says which values still stand there."""

    runs: int


class Lease:
    """Until when memory that belongs to a plan may be read: until the plan runs again."""

    __slots__ = ("number", "owner")

    def __init__(self, owner: Runner):
        self.owner, self.number = owner, owner.runs

    @property
    def valid(self) -> bool:
        """Whether the memory still holds what was lent."""
        return self.owner.runs == self.number


class ArrayMixin:
    """What arrays outside of a graph have in common. A class says in `_held` what holds its numbers, in `_whole` how they look."""

    __slots__ = ()
    _read_only: bool
    _lease: Lease | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""
        raise NotImplementedError

    def _held(self) -> Any:
        """The NumPy array or CSR matrix that holds the numbers, without asking whether they are still there."""
        raise NotImplementedError

    def _whole(self) -> Any:
        """The numbers in their shape: an array, not a copy where that can be, or a CSR matrix where there are two axes."""
        raise NotImplementedError

    def _check(self) -> None:
        """Raises `RuntimeError` where the numbers are gone."""
        if self._lease is not None and not self._lease.valid:
            raise RuntimeError(
                here(
                    f"{type(self).__name__}: expected the result of the last run, got one of a run before, whose memory is in use again;"
                    " keep a deep_clone() or use as_numpy=True"
                )
            )

    def _writable(self) -> None:
        if self._read_only:
            raise ValueError(
                here(f"{type(self).__name__}: expected one that may be written, got a read-only one; write to a deep_clone()")
            )

    @property
    def dtype(self) -> type:
        """Element type, as a NumPy type."""
        return self._held().dtype.type

    @property
    def is_sparse(self) -> bool:
        """Whether the numbers are held as a CSR matrix."""
        return hasattr(self._held(), "toarray")

    @property
    def is_read_only(self) -> bool:
        """Whether `copy_from` and `set_value` are refused."""
        return self._read_only

    @property
    def is_valid(self) -> bool:
        """Whether it can be read: a result with as_numpy=False can until the same call runs again."""
        return self._lease is None or self._lease.valid

    @property
    def device(self) -> DeviceDescriptor:
        """Where the numbers are."""
        return cpu()

    def asarray(self, dtype: Any = None) -> Any:
        """A copy, as a NumPy array; a sparse one of two axes as a CSR matrix."""
        found = self._whole()
        return found.astype(found.dtype if dtype is None else dtype)

    def get_data_type(self) -> type:
        """CNTK's other name of `dtype`."""
        return self.dtype

    def get_storage_format(self) -> str:
        """'dense' or 'sparse_csr'."""
        return "sparse_csr" if self.is_sparse else "dense"

    def as_string(self) -> str:
        """Class, shape and device in one line."""
        return f"{type(self).__name__}([{' x '.join(map(str, self.shape))}], {self.device})"

    def __repr__(self) -> str:
        return self.as_string() if self.is_valid else f"{type(self).__name__}(of a run before)"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self._whole()
        return np.array(found.toarray() if hasattr(found, "toarray") else found, dtype)


class NDArrayView(ArrayMixin):
    """Memory with a shape: NumPy's, row by row, or a CSR matrix whose columns are the last axis. Feeds, values and parameters take it.

    shape: sizes; data_type: of the elements, all 0 at first. Made of data by `from_dense`, `from_csr`, `from_data`. Raises `DeviceError`
    for a device that there is not.
    """

    __slots__ = ("_array", "_lease", "_read_only", "_shape", "_slice")

    def __init__(self, shape: Any, data_type: Any = np.float32, device: Any = None):
        sizes = sanitize_shape(shape)
        array = aligned_empty(sizes, np.dtype(sanitize_dtype(data_type)))
        array[...] = 0
        _check_device(device)
        self._array: Any = array
        self._shape, self._read_only, self._slice, self._lease = sizes, False, False, None

    @classmethod
    def _over(
        cls, array: Any, shape: Sequence[int], read_only: bool = False, part: bool = False, lease: Lease | None = None
    ) -> NDArrayView:
        """A view of memory that there is. part: whether it is a slice of another view."""
        made = cls.__new__(cls)
        made._array, made._shape, made._read_only, made._slice, made._lease = array, tuple(shape), read_only, part, lease
        return made

    @staticmethod
    def from_dense(np_array: np.ndarray, device: Any = None, read_only: bool = False, borrow: bool = False) -> NDArrayView:
        """Of a NumPy array: a copy, or with `borrow` its own memory. Raises `TypeError` for another kind, `ValueError` if it cannot be borrowed."""
        _check_device(device)
        if not isinstance(np_array, np.ndarray):
            raise TypeError(here(f"NDArrayView.from_dense: expected a NumPy array, got {type(np_array).__name__}"))
        sanitize_dtype(np_array.dtype)
        if borrow and not np_array.flags.c_contiguous:
            raise ValueError(
                here(
                    "NDArrayView.from_dense: expected an array row by row to borrow, got strides; np.ascontiguousarray copies it"
                )
            )
        return NDArrayView._over(np_array if borrow else np.array(np_array, order="C"), np_array.shape, read_only)

    @staticmethod
    def from_csr(
        csr_array: Any, device: Any = None, read_only: bool = False, borrow: bool = False, shape: Any = None
    ) -> NDArrayView:
        """Of a SciPy CSR matrix. shape: of more axes than two, the last one being the columns. Raises `ValueError` where it does not fit."""
        import scipy.sparse

        _check_device(device)
        if not scipy.sparse.issparse(csr_array) or csr_array.format != "csr":
            raise TypeError(
                here(f"NDArrayView.from_csr: expected a CSR matrix, got {type(csr_array).__name__}; convert it with .tocsr()")
            )
        sanitize_dtype(csr_array.dtype)
        sizes = tuple(csr_array.shape) if shape is None else sanitize_shape(shape)
        rows, columns = csr_array.shape
        if not sizes or sizes[-1] != columns or math.prod(sizes[:-1]) != rows:
            raise ValueError(
                here(f"NDArrayView.from_csr: expected a shape of {rows} rows with {columns} in the last axis, got {sizes}")
            )
        return NDArrayView._over(csr_array if borrow else csr_array.copy(), sizes, read_only)

    @staticmethod
    def from_data(data: Any, device: Any = None, read_only: bool = False, borrow: bool = False) -> NDArrayView:
        """Of a NumPy array or a CSR matrix."""
        f = NDArrayView.from_csr if hasattr(data, "tocsr") else NDArrayView.from_dense
        return f(data, device, read_only, borrow)

    @staticmethod
    def random_uniform(
        shape: Any, range_begin: float, range_end: float, seed: int, device: Any = None, dtype: Any = np.float32
    ) -> NDArrayView:
        """Uniform numbers in [range_begin, range_end), the same for the same seed."""
        from cogkit.engine import philox

        made = NDArrayView(shape, dtype, device)
        drawn = philox.uniform(int(seed), 0, 0, 0, 1, made._array.size).reshape(made._shape)
        made._array[...] = range_begin + (range_end - range_begin) * drawn
        return made

    @staticmethod
    def random_uniform_float(shape: Any, range_begin: float, range_end: float, seed: int = 0, device: Any = None) -> NDArrayView:
        """`random_uniform` of float32."""
        return NDArrayView.random_uniform(shape, range_begin, range_end, seed, device, np.float32)

    @staticmethod
    def random_uniform_double(shape: Any, range_begin: float, range_end: float, seed: int = 0, device: Any = None) -> NDArrayView:
        """`random_uniform` of float64."""
        return NDArrayView.random_uniform(shape, range_begin, range_end, seed, device, np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""
        return self._shape

    def _held(self) -> Any:
        return self._array

    def _stored(self) -> Any:
        """The array or matrix itself. Raises `RuntimeError` where its numbers are gone."""
        self._check()
        return self._array

    def _whole(self) -> Any:
        array = self._stored()
        if not hasattr(array, "toarray"):
            return array.reshape(self._shape)
        return array if len(self._shape) == 2 else array.toarray().reshape(self._shape)

    def is_slice_view(self) -> bool:
        """Whether it is a part of another view."""
        return self._slice

    def slice_view(self, start_offset: Sequence[int], extent: Sequence[int], read_only: bool = True) -> NDArrayView:
        """A part of the same memory, not a copy.

        start_offset: the first index in every axis; extent: sizes of the last axes, the axes before being left out. Raises `ValueError` for a
        part that is outside or does not lie in one piece.
        """
        start, sizes = [int(i) for i in start_offset], sanitize_shape(extent)
        rank = len(self._shape)
        if len(start) != rank or len(sizes) > rank:
            raise ValueError(here(f"slice_view: expected {rank} offsets and at most as many sizes, got {start} and {sizes}"))
        full = (1,) * (rank - len(sizes)) + sizes
        if any(i < 0 or i + n > size for i, n, size in zip(start, full, self._shape, strict=True)):
            raise ValueError(here(f"slice_view: expected a part of {self._shape}, got {list(full)} from {start} on"))
        # in one piece: after the first axis that holds more than one, each axis is whole
        wide = [i for i, n in enumerate(full) if n > 1]
        if wide and any(full[i] != self._shape[i] for i in range(wide[0] + 1, rank)):
            raise ValueError(here(f"slice_view: expected a part of {self._shape} in one piece, got {list(full)} from {start} on"))
        first, size = 0, math.prod(full)
        for i, n in zip(start, self._shape, strict=True):
            first = first * n + i
        return NDArrayView._over(self._cut(first, size), sizes, read_only or self._read_only, True, self._lease)

    def _cut(self, first: int, size: int) -> Any:
        """Elements first to first + size, sharing memory."""
        array = self._stored()
        if not hasattr(array, "toarray"):
            return array.reshape(-1)[first : first + size]
        columns = array.shape[1]
        if first % columns or size % columns:
            raise ValueError(here(f"slice_view: expected whole rows of {columns} of a sparse array, got a part of one"))
        lo, hi = first // columns, (first + size) // columns
        a, b = array.indptr[lo], array.indptr[hi]
        return type(array)((array.data[a:b], array.indices[a:b], array.indptr[lo : hi + 1] - a), (hi - lo, columns), copy=False)

    def as_shape(self, shape: Any) -> NDArrayView:
        """The same memory in another shape of as many elements. Raises `ValueError` where that is not so."""
        sizes = sanitize_shape(shape)
        kept = not self.is_sparse or (sizes and sizes[-1] == self._shape[-1])
        if math.prod(sizes) != math.prod(self._shape) or not kept:
            what = "shape" if kept else "shape with the same last axis, as sparse arrays keep it,"
            raise ValueError(here(f"as_shape: expected a {what} of {math.prod(self._shape)} elements, got {sizes}"))
        return NDArrayView._over(self._array, sizes, self._read_only, self._slice, self._lease)

    def alias(self, read_only: bool = False) -> NDArrayView:
        """The same memory and shape."""
        return NDArrayView._over(self._stored(), self._shape, read_only or self._read_only, self._slice, self._lease)

    def deep_clone(self, read_only: bool = False) -> NDArrayView:
        """A copy in memory of its own."""
        return NDArrayView._over(self._stored().copy(), self._shape, read_only)

    def copy_from(self, source: NDArrayView) -> None:
        """Takes the numbers of another view of the same shape and type. Raises `ValueError` or `TypeError` where they differ."""
        self._writable()
        mine, other = self._stored(), source._stored()
        if source._shape != self._shape:
            raise ValueError(here(f"copy_from: expected a view of shape {self._shape}, got {source._shape}"))
        if other.dtype != mine.dtype:
            raise TypeError(here(f"copy_from: expected {mine.dtype}, got {other.dtype}"))
        if hasattr(mine, "toarray"):
            self._array = other.copy() if hasattr(other, "toarray") else type(mine)(other.reshape(mine.shape))
        else:
            mine.reshape(self._shape)[...] = (other.toarray() if hasattr(other, "toarray") else other).reshape(self._shape)

    def set_value(self, value: float) -> None:
        """Sets every element to a number."""
        self._writable()
        array = self._stored()
        if hasattr(array, "toarray"):
            raise TypeError(here("set_value: expected a dense array, got a sparse one"))
        array[...] = value

    def change_device(self, device: DeviceDescriptor) -> None:
        """Moves to another device. Raises `DeviceError` where there is none."""
        _check_device(device)


def _check_device(device: Any) -> None:
    if device is not None and device != cpu() and device not in all_devices():
        have = ", ".join(map(str, all_devices()))
        raise DeviceError(f"NDArrayView: expected a device that is there ({have}), got {device}")
