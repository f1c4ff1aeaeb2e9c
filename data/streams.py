"""What a source says of its streams, and what it hands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cogkit.engine.values import Value
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

    def __hash__(self) -> int:
        return hash(self.name)  # it is looked up in every minibatch

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """CNTK's name of the shape."""
        return self.shape

    def __str__(self) -> str:
        return f"{self.name}({list(self.shape)})"


class MinibatchData:
    """One stream of one minibatch. `value`: the rows of all its sequences, one after the other, (num_samples, *shape) or CSR; or a `Value`.

    `lengths` (num_sequences,) int64: samples of each sequence; None where the stream has no sequence axis: one row a sequence.
    `sequences`: their numbers in the first deserialiser. With truncation_length, `slots` and `begins`: sequence i goes on where the
    sequence of the same slot in the minibatch before stopped, unless begins[i]. The rows may be kept as long as you like: a buffer is
    used again only after the last array on it is gone.
    """

    __slots__ = ("value", "num_sequences", "num_samples", "end_of_sweep", "lengths", "sequences", "slots", "begins")

    def __init__(
        self,
        value: Any,
        num_sequences: int,
        num_samples: int,
        sweep_end: bool,
        *,
        lengths: np.ndarray | None = None,
        sequences: np.ndarray | None = None,
        slots: np.ndarray | None = None,
        begins: np.ndarray | None = None,
    ):
        if isinstance(value, Value):
            lengths, slots, begins, value = value.lengths, value.slots, value.begins, value.value
        self.value, self.num_sequences, self.num_samples, self.end_of_sweep = value, num_sequences, num_samples, sweep_end
        self.lengths, self.sequences, self.slots, self.begins = lengths, sequences, slots, begins

    def asarray(self) -> Any:
        """Without a sequence axis the rows, not a copy; else CNTK's array (num_sequences, longest, *shape), zeros after short sequences.

        A sparse stream's rows stay CSR where there is no sequence axis; with one they become dense.
        """
        if self.lengths is None:
            return self.value
        n, longest = len(self.lengths), self._longest()
        rows = self.value.toarray() if self.is_sparse else self.value
        if (self.lengths == longest).all():
            return rows.reshape(n, longest, *rows.shape[1:])
        out = np.zeros((n, longest, *rows.shape[1:]), rows.dtype)
        out[self.mask != 0] = rows
        return out

    def _longest(self) -> int:
        return int(self.lengths.max()) if len(self.lengths) else 0  # type: ignore[arg-type]

    @property
    def mask(self) -> np.ndarray:
        """CNTK's mask (num_sequences, longest) int8: 2 where a sequence begins, 1 where it goes on, 0 after its end."""
        lengths = np.ones(self.num_sequences, np.int64) if self.lengths is None else self.lengths
        t = np.arange(int(lengths.max()) if len(lengths) else 0)
        mask = (t < lengths[:, None]).astype(np.int8)
        mask[:, :1] *= np.int8(2) if self.begins is None else np.where(self.begins, 2, 1).astype(np.int8)[:, None]
        return mask

    @property
    def data(self) -> MinibatchData:
        """CNTK's Value, which is this object: it has `asarray`, `as_sequences`, `mask` and `shape`."""
        return self

    def as_sequences(self, variable: Any = None) -> list[Any]:
        """One array (length, *shape), or CSR (length, dim), a sequence; not copies of dense rows."""
        if self.lengths is None:
            return [self.value[i : i + 1] for i in range(self.num_samples)]
        ends = np.cumsum(self.lengths).tolist()
        return [self.value[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.asarray()
        return np.array(value.toarray() if not isinstance(value, np.ndarray) else value, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """(num_samples, *shape of a sample), or (num_sequences, longest, *shape) where there is a sequence axis."""
        if self.lengths is None:
            return self.value.shape
        return len(self.lengths), self._longest(), *self.value.shape[1:]

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
