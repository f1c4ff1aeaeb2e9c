"""Deserialisers: what is behind a source. One says how many sequences it has, and reads any of them.

A source asks for sequences by number, in any order and from its own thread; what comes back is a function of (number, sweep,
seed). Several deserialisers of a source are joined by key (sequences.py), or by number where they have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cogkit.data.format import Split
from cogkit.data.native import image_batch
from cogkit.data.streams import StreamDef, StreamInformation
from cogkit.data.transforms import Draw, Transform, compile_list, normalize, one_hot, pad_crop_flip
from cogkit.errors import DataError

__all__ = ["ArrayDeserializer", "Deserializer"]

Take = Callable[[tuple[int, ...], Any], np.ndarray]  # (shape, dtype) -> an array of the ring, its contents undefined


class Deserializer:
    """The contract. `count` sequences, each one sample long; those of sequences.py are longer."""

    streams: dict[str, StreamInformation]
    count: int
    identity: str  # of the data: a checkpoint of a source on other data is refused
    concurrent = False  # whether several threads may read at once

    @cached_property
    def parts(self) -> Sequence[Deserializer]:
        """What a source reads and joins: itself, or others that it stands for."""
        return [self]

    def read(self, sample: np.ndarray, sweep: np.ndarray, seed: int, take: Take) -> dict[str, np.ndarray]:
        """Rows of all streams for sequences `sample` as they appear in `sweep`, both int64 (n,), in arrays made by `take`."""
        raise NotImplementedError


class ArrayDeserializer(Deserializer):
    """Reads arrays (count, *shape): a split of a prepared data set, or name -> array. They are not copied.

    `streams`: StreamDefs; without it every array is a stream of its own name, with labels that have `classes` as one-hot rows.
    Numbers come out as `dtype`. Raises ValueError, TypeError, DataError.

    Example:
        data = open_dataset('fashion_c32.cgd')
        ArrayDeserializer(data['train'], StreamDefs(
            features=StreamDef(field='features', transforms=[transforms.normalize(128, 1 / 64), transforms.pad_crop_flip(4)]),
            labels=StreamDef(field='labels', shape=10)))
    """

    def __init__(
        self, arrays: Split | Mapping[str, Any], streams: Mapping[str, StreamDef] | None = None, dtype: Any = np.float32
    ):
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"ArrayDeserializer: expected dtype float32 or float64, got {dtype.name}")
        if not len(arrays):
            raise ValueError("ArrayDeserializer: expected one array or more, got none")
        classes = {name: len(s.classes) for name, s in arrays.streams.items() if s.classes} if isinstance(arrays, Split) else {}
        fields = {name: np.asarray(a) for name, a in arrays.items()}
        if streams is None:
            streams = {name: StreamDef(field=name) for name in fields}
        self.streams, self._readers = {}, []
        used: dict[str, int] = {}
        for i, (name, spec) in enumerate(streams.items()):
            field = spec.field or name
            if field not in fields:
                raise ValueError(f"ArrayDeserializer: stream '{name}': expected one of {', '.join(fields)}, got {field!r}")
            for key, plain in (("is_sparse", False), ("context", None), ("scp", None), ("mlf", None), ("broadcast", None)):
                if getattr(spec, key) != plain:
                    raise ValueError(f"ArrayDeserializer: stream '{name}': {key} is not for arrays, got {getattr(spec, key)!r}")
            reader = _Reader(name, fields[field], spec, classes.get(field, 0), dtype, purpose=i << 8)
            used[field] = len(fields[field])
            self.streams[name] = StreamInformation(name, i, "dense", dtype.type, reader.shape, spec.defines_mb_size)
            self._readers.append(reader)
        if len(set(used.values())) > 1:
            raise DataError(
                "ArrayDeserializer: expected arrays of one length, got " + ", ".join(f"{k} of {n}" for k, n in used.items())
            )
        self.count = next(iter(used.values()))
        self.identity = f"{arrays.dataset.hash}:{arrays.name}" if isinstance(arrays, Split) else f"arrays:{self.count}"

    def read(self, sample: np.ndarray, sweep: np.ndarray, seed: int, take: Take) -> dict[str, np.ndarray]:
        return {r.name: r.read(sample, sweep, seed, take) for r in self._readers}


class _Reader:
    """One stream of arrays: what of its transforms runs in the native loop, and what after it."""

    def __init__(self, name: str, array: np.ndarray, spec: StreamDef, classes: int, dtype: np.dtype, purpose: int):
        if array.ndim == 0 or array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
            raise TypeError(
                f"ArrayDeserializer: stream '{name}': expected an array of numbers with rows first, "
                f"got {array.dtype} of shape {array.shape}"
            )
        wanted: tuple[int, ...] | None = None
        if spec.shape is not None:
            wanted = (int(spec.shape),) if np.isscalar(spec.shape) else tuple(spec.shape)  # type: ignore[arg-type]
        listed = list(spec.transforms or ())
        sample = array.shape[1:]
        if sample in ((), (1,)) and array.dtype.kind in "ui" and not listed:
            if wanted is None and classes:
                listed = [one_hot(classes)]
            elif wanted not in (None, (), (1,)) and len(wanted) == 1:
                listed = [one_hot(wanted[0])]
        self.name, self.array, self.dtype = name, array, dtype
        self.transforms: list[tuple[int, Transform]] = list(enumerate(compile_list(listed), purpose))
        self.shape = sample
        try:
            for _, t in self.transforms:
                self.shape = t.shape_of(self.shape)
        except ValueError as e:
            raise type(e)(f"stream '{name}': {e}") from None
        self.native: dict[str, Any] | None = None
        if array.ndim == 4 and array.dtype in (np.uint8, np.float32) and array.size:
            self._fuse()
        self.middle = self.shape  # of what the transforms leave, before it takes the shape that was asked for
        if wanted is not None and wanted != self.shape:
            if int(np.prod(wanted)) != int(np.prod(self.shape)):
                raise ValueError(f"ArrayDeserializer: stream '{name}': expected shape {wanted}, got samples of {self.shape}")
            self.shape = tuple(int(d) for d in wanted)

    def _fuse(self) -> None:
        """Takes a leading normalize and pad_crop_flip, in any order, off the list and into one native call."""
        channels = self.array.shape[1]
        mean, scale, fill = np.zeros(channels, np.float32), np.ones(channels, np.float32), np.zeros(channels, np.float32)
        cropped, normalized = None, False
        shape = self.array.shape[1:]
        self.array = np.ascontiguousarray(self.array)
        while self.transforms:
            purpose, t = self.transforms[0]
            if isinstance(t, normalize) and not normalized:
                m, s = t.over("mean", shape), t.over("scale", shape)
                if s.ndim and s.size != channels or (m.ndim and m.size != channels and cropped):
                    break
                mean = np.ascontiguousarray(m.reshape(-1) if m.size > channels else np.broadcast_to(m.reshape(-1), channels))
                scale = np.ascontiguousarray(np.broadcast_to(s.reshape(-1), channels))
                if cropped:
                    fill = (fill - mean) * scale
                normalized = True
            elif isinstance(t, pad_crop_flip) and not cropped:
                cropped = (purpose, t)
                fill = np.full(channels, t.fill, np.float32)
                shape = t.shape_of(shape)
            else:
                break
            self.transforms.pop(0)
        self.native = {"mean": mean, "scale": scale, "fill": fill}
        if cropped:
            self.native |= {"pad": cropped[1].pad, "random_crop": True, "random_flip": cropped[1].flip, "purpose": cropped[0]}
        self.native_shape = shape

    def read(self, sample: np.ndarray, sweep: np.ndarray, seed: int, take: Take) -> np.ndarray:
        n = len(sample)
        out = take((n, *self.shape), self.dtype)
        direct = not self.transforms and self.dtype == np.float32
        if self.native is not None:
            x = out.reshape(n, *self.native_shape) if direct else np.empty((n, *self.native_shape), np.float32)
            image_batch(self.array, sample, sweep, x, seed=seed, **self.native)
            if direct:
                return out
        elif direct and self.array.dtype == np.float32:
            np.take(self.array, sample, axis=0, out=out.reshape(n, *self.array.shape[1:]), mode="clip")
            return out
        else:
            x = self.array[sample]
            # Labels and doubles keep their exact values until a transform wants float32.
            if self.transforms and not isinstance(self.transforms[0][1], one_hot):
                x = x.astype(np.float32)
        for purpose, t in self.transforms:
            x = t.apply(x, Draw(seed, purpose, sample, sweep))
        out[...] = x.reshape(out.shape)
        return out
