"""Arrays in memory as a minibatch source of a training session: rows in their order, sweep after sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.ops.rows import has_steps
from cogkit.variables import Variable

__all__ = ["ArraySource"]


class Rows:
    """A minibatch's part of one array; its fields are those of a reader's minibatch data."""

    lengths = None

    def __init__(self, value: Any, samples: int, ends: bool):
        self.value, self.num_samples, self.end_of_sweep = value, samples, ends

    def asarray(self) -> Any:
        """The rows, or the list of sequences."""
        return self.value


class ArraySource:
    """Arrays, CSR matrices or lists of sequences, in the order of a function's arguments; minibatches never across the end of a sweep.

    Streams are the arguments themselves. A minibatch holds as many rows (sequences) as `size` samples allow, one at least.
    Raises ValueError, or TypeError for what has no rows.
    """

    def __init__(self, arguments: Sequence[Variable], arrays: Sequence[Any], what: str, sweeps: int | None = None):
        if len(arguments) != len(arrays):
            names = ", ".join(v.name or v.uid for v in arguments)
            raise ValueError(
                f"{what}: expected {len(arguments)} arrays, in the order of the criterion's arguments ({names}), got {len(arrays)}"
            )
        self._arrays = [a if hasattr(a, "indptr") or isinstance(a, (list, np.ndarray)) else self._rows(a, what) for a in arrays]
        self._arrays = [a.tocsr() if hasattr(a, "indptr") else a for a in self._arrays]
        counts = [a.shape[0] if hasattr(a, "shape") else len(a) for a in self._arrays]
        if len(set(counts)) > 1:
            raise ValueError(f"{what}: expected arrays of one length, got {', '.join(map(str, counts))}")
        if not counts or not counts[0]:
            raise ValueError(f"{what}: expected data, got no row at all")
        self.arguments, self.count, self.sweeps = list(arguments), counts[0], sweeps
        self.streams = {v: v for v in arguments}
        self._costs = [self._cost(v, a) for v, a in zip(arguments, self._arrays, strict=True)]
        self.samples = int(np.max([np.broadcast_to(c, self.count) for c in self._costs], axis=0).sum())  # in a sweep
        self._at = self._sweep = 0

    @staticmethod
    def _rows(value: Any, what: str) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype == object or array.ndim == 0:
            raise TypeError(f"{what}: expected arrays, CSR matrices or lists of sequences, got {type(value).__name__}")
        return array

    @staticmethod
    def _cost(v: Variable, array: Any) -> np.ndarray:
        """Samples of each row: its steps where the argument has a sequence axis."""
        if isinstance(array, list) and has_steps(v.dynamic_axes):
            return np.array([np.shape(s)[0] for s in array])
        if has_steps(v.dynamic_axes) and isinstance(array, np.ndarray) and array.ndim > len(v.shape) + 1:
            return np.full(len(array), array.shape[1])
        return np.ones(1, np.int64)

    def is_infinite(self) -> bool:
        """Whether it never ends."""
        return self.sweeps is None

    def get_next_minibatch(
        self, size: int, num_data_partitions: int = 1, partition_index: int = 0, device: Any = None
    ) -> dict[Variable, Rows]:
        """The next rows by argument; with partitions every num_data_partitions-th of them from partition_index. {} at the end."""
        if self.sweeps is not None and self._sweep >= self.sweeps:
            return {}
        first, last = self._at, min(self._at + size, self.count)
        cost = np.max([np.broadcast_to(c, self.count)[first:last] for c in self._costs], axis=0)
        last = first + max(1, int(np.searchsorted(np.cumsum(cost), size, side="right")))
        ends = last >= self.count
        self._at, self._sweep = (0, self._sweep + 1) if ends else (last, self._sweep)
        mine = slice(first + partition_index, last, num_data_partitions)
        samples = int(cost[partition_index : last - first : num_data_partitions].sum())
        return {v: Rows(a[mine], samples, ends) for v, a in zip(self.arguments, self._arrays, strict=True)}

    def get_checkpoint_state(self) -> dict[str, int]:
        """Its position."""
        return {"row": self._at, "sweep": self._sweep, "count": self.count}

    def restore_from_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position; ValueError for one of other data."""
        if state.get("count") != self.count or not 0 <= state.get("row", -1) < self.count:
            raise ValueError(f"arrays: expected a position in {self.count} rows, got {dict(state)}; it is of other data")
        self._at, self._sweep = state["row"], state["sweep"]
