"""What a source says of its streams, and what it hands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cogkit.variables import Record

__all__ = [
    "DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS",
    "FULL_DATA_SWEEP",
    "INFINITELY_REPEAT",
    "MinibatchData",
    "StreamConfiguration",
    "StreamDef",
    "StreamDefs",
    "StreamInformation",
]

INFINITELY_REPEAT = 2**64 - 1
FULL_DATA_SWEEP = 2**64 - 2
DEFAULT_RANDOMIZATION_WINDOW_IN_CHUNKS = 128

StreamDefs = Record  # StreamDefs(features=StreamDef(...), labels=StreamDef(...))


@dataclass(frozen=True)
class StreamDef:
    """Where a stream comes from: `field` of the deserialiser, sample `shape`, `transforms` in the order in which they act.

    A field of whole numbers read with shape (k,) becomes one-hot rows of k classes, as CNTK's image reader does with labels.
    """

    field: str | None = None
    shape: int | Sequence[int] | None = None
    is_sparse: bool = False
    transforms: Sequence[Any] | None = None
    context: tuple[int, int] | None = None
    scp: str | None = None
    mlf: str | None = None
    broadcast: bool | None = None
    defines_mb_size: bool = False
    max_sequence_length: int = 65535


@dataclass(frozen=True)
class StreamConfiguration:
    """CNTK's older way to say what `StreamDef` says."""

    name: str
    dim: int
    is_sparse: bool = False
    stream_alias: str = ""
    defines_mb_size: bool = False


@dataclass(frozen=True)
class StreamInformation:
    """A stream of a source: the key of its data in a minibatch. `storage_format` is 'dense' or 'sparse'."""

    name: str
    stream_id: int
    storage_format: str
    dtype: Any
    shape: tuple[int, ...]
    defines_mb_size: bool = False

    def __str__(self) -> str:
        return f"{self.name}({list(self.shape)})"


class MinibatchData:
    """One stream of one minibatch; any NumPy function takes it. Rows first: (num_samples, *shape).

    CNTK's readers put an axis of 1 between rows and shape where there are no sequences; here there is none. The rows may be
    kept as long as you like: a buffer is used again only after the last array on it is gone.
    """

    __slots__ = ("value", "num_sequences", "num_samples", "end_of_sweep")

    def __init__(self, value: Any, num_sequences: int, num_samples: int, sweep_end: bool):
        self.value, self.num_sequences, self.num_samples, self.end_of_sweep = value, num_sequences, num_samples, sweep_end

    def asarray(self) -> Any:
        """The rows; not a copy."""
        return self.value

    @property
    def data(self) -> MinibatchData:
        """CNTK's Value, which is this object: it has `asarray`, `as_sequences` and `shape`."""
        return self

    def as_sequences(self, variable: Any = None) -> list[Any]:
        """One array (1, *shape) a row."""
        return [self.value[i : i + 1] for i in range(self.num_samples)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.value.toarray() if self.is_sparse else self.value
        return np.array(value, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_samples, *shape of a sample)."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of one number."""
        return self.value.dtype

    @property
    def is_sparse(self) -> bool:
        """Whether `value` is a SciPy CSR matrix."""
        return not isinstance(self.value, np.ndarray)

    # CNTK's C++ names of the same numbers.
    number_of_samples = property(lambda self: self.num_samples)
    number_of_sequences = property(lambda self: self.num_sequences)
    sweep_end = property(lambda self: self.end_of_sweep)

    def __len__(self) -> int:
        return self.num_sequences

    def __repr__(self) -> str:
        return f"MinibatchData({list(self.shape)}, samples={self.num_samples}, seqs={self.num_sequences})"


def by_stream(
    infos: Mapping[str, StreamInformation], data: Mapping[str, MinibatchData], input_map: Mapping[Any, Any] | None
) -> dict[Any, Any]:
    """A minibatch keyed by stream, or by the variables of `input_map` (variable -> stream or its name)."""
    if not input_map:
        return {info: data[name] for name, info in infos.items()}
    out = {}
    for variable, stream in input_map.items():
        name = getattr(stream, "name", stream)
        if name not in data:
            raise ValueError(f"input_map: expected streams of this source ({', '.join(infos)}), got {name!r} for {variable!r}")
        out[variable] = data[name]
    return out
