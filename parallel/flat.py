"""Arrays of all parameters in one flat buffer a type: what is sent is one contiguous piece, what a learner reads are views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cogkit.variables import Parameter, aligned_empty

__all__ = ["Flat"]

LINE = 64  # bytes: each parameter begins on a cache line, as learners want their gradients


class Flat:
    """Zeros for each parameter: `views` of each parameter's shape, in `buffers`, one a type, with zeros between them.

    wide: float32 for parameters of float16, where small changes must add up.
    """

    def __init__(self, parameters: Sequence[Parameter], wide: bool = False):
        self.views: dict[Parameter, np.ndarray] = {}
        self.buffers: list[np.ndarray] = []
        self.places: list[list[tuple[int, tuple[int, ...]]]] = []  # of each buffer: where each parameter begins, and its shape
        types = {p: np.dtype(np.float32 if wide and p.dtype == np.float16 else p.dtype) for p in parameters}
        self.is_wide = any(types[p] != p.dtype for p in parameters)
        for dtype in dict.fromkeys(types.values()):
            own = [p for p in parameters if types[p] == dtype]
            width = LINE // np.dtype(dtype).itemsize
            room = [-(-p.data.size // width) * width for p in own]
            buffer = aligned_empty((sum(room),), np.dtype(dtype))
            buffer[...] = 0
            starts = np.cumsum([0, *room])[:-1].tolist()
            for p, at in zip(own, starts, strict=True):
                self.views[p] = buffer[at : at + p.data.size].reshape(p.shape)
            self.buffers.append(buffer)
            self.places.append([(at, p.shape) for at, p in zip(starts, own, strict=True)])
        self.views = {p: self.views[p] for p in parameters}

    def take(self, arrays: Mapping[Parameter, np.ndarray]) -> None:
        """Copies an array for each parameter."""
        for p, view in self.views.items():
            view[...] = np.asarray(arrays[p]).reshape(view.shape)

    def take_values(self) -> None:
        """Copies the parameters' values."""
        for p, view in self.views.items():
            view[...] = p.data

    def keep_values(self) -> None:
        """Takes the parameters' values where they are others than what is here in the parameters' own precision."""
        for p, view in self.views.items():
            np.copyto(view, p.data, where=view.astype(p.dtype) != p.data)

    def give_values(self) -> None:
        """Sets the parameters to what is here."""
        for p, view in self.views.items():
            p.data[...] = view

    def arrays(self, name: str) -> Iterator[tuple[str, np.ndarray]]:
        """(name.i, view) of each parameter, for checkpoints."""
        for i, view in enumerate(self.views.values()):
            yield f"{name}.{i}", view
