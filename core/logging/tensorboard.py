"""Progress as event files that TensorBoard shows: scalars, images, the graph."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from cogkit.functions import Function
from cogkit.logging.events import chars, double, event, image, integer, record, scalar
from cogkit.logging.progress import ProgressWriter, mean
from cogkit.nodes import Block
from cogkit.variables import Variable
from cogkit.walks import nodes_of

__all__ = ["TensorBoardProgressWriter"]


def _graph(model: Function) -> bytes:
    """A GraphDef: parameters, inputs and nodes; the nodes inside a block lie in the block's scope. Edges that close a cycle are left out."""
    names: dict[Variable, str] = {}
    messages: list[bytes] = []

    def put(name: str, op: str, inputs: list[str], v: Variable) -> None:
        """Attributes of a node: its shape as text, which TensorBoard shows."""
        attribute = chars(5, chars(1, "shape") + chars(2, chars(2, str(v.shape))))
        messages.append(chars(1, chars(1, name) + chars(2, op) + b"".join(chars(3, i) for i in inputs) + attribute))

    def free(scope: str, wish: str) -> str:
        taken = set(names.values())
        wish = "".join(c if c.isalnum() or c in "_.-" else "_" for c in wish).lstrip("_-") or "node"
        return next(n for n in (scope + wish + (f"_{i}" if i else "") for i in range(len(taken) + 1)) if n not in taken)

    def leaf(v: Variable, scope: str) -> str:
        if v not in names:
            names[v] = free(scope, v.name or v.uid)
            put(names[v], "Parameter" if v.is_parameter else "Constant" if v.is_constant else "Input", [], v)
        return names[v]

    def walk(root: Any, scope: str) -> None:
        for node in nodes_of(root):
            name = free(scope, node.name or node.uid)
            if isinstance(node, Block):
                for inner, outer in zip(node.inner, node.operands, strict=True):
                    names[inner] = names.get(outer) or leaf(outer, scope)
                walk(node.composite.root, name + "/")
                for mine, inside in zip(node.outputs, node.composite.outputs, strict=True):
                    names[mine] = names.get(inside) or leaf(inside, scope)
                continue
            for v in node.outputs:
                names[v] = name
            later = [v for v in node.operands if v.is_output and v not in names]  # what a recurrence reads before it is made
            inputs = [names[v] if v in names else leaf(v, scope) for v in node.operands if v not in later]
            put(name, node.label, inputs, node.outputs[0])

    walk(model.root, "")
    return b"".join([*messages, chars(4, integer(1, 22))])


class TensorBoardProgressWriter(ProgressWriter):
    """Writes progress to an event file in `log_dir`, under CNTK's names, and the graph of `model`.

    `minibatch/avg_loss`, `minibatch/avg_metric` over minibatches; `summary/avg_loss`, `summary/avg_metric` over epochs;
    `minibatch/test_avg_metric` over a test, at the minibatch of training that it came after. Beside CNTK's: learning rates, momenta,
    `summary/samples_per_second`. freq: as of `ProgressPrinter`. rank: ranks other than 0 write nothing. The file is flushed at each
    summary, by `flush` and by `close`. Raises TypeError for a model that is none, OSError from the disk.
    """

    def __init__(self, freq: int | None = None, log_dir: str | os.PathLike = ".", rank: int | None = None, model: Any = None):
        if model is not None and not isinstance(model, (Function, Variable)):
            raise TypeError(f"TensorBoardProgressWriter: expected a function as model, got {type(model).__name__}")
        super().__init__(freq)
        self._file: Any = None
        if rank:
            return
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        stamp, number = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}", 0
        while (folder / f"{stamp}.{number}").exists():
            number += 1
        self._file = open(folder / f"{stamp}.{number}", "wb")  # noqa: SIM115 (closed by close)
        self._put(double(1, time.time()) + chars(3, "brain.Event:2"))
        if model is not None:
            root = model.owner if isinstance(model, Variable) else model
            self._put(event(0, chars(4, _graph(root))))
        self.flush()

    def _put(self, message: bytes) -> None:
        if self._file is not None:
            self._file.write(record(message))

    def write_value(self, name: str, value: float, step: int) -> None:
        """A number of the user's, such as a norm, at a step."""
        self._put(event(int(step), scalar(name, float(value))))

    def write_image(self, name: str, data: Any, step: int) -> None:
        """The first images of a minibatch: {input: array (N, channels, height, width)}, as `name/0`, `name/1`, `name/2`.

        Of 1, 3 or 4 channels; float values are scaled from their least to their greatest, bytes are taken as they are. ValueError for others.
        """
        values = data.values() if hasattr(data, "values") else [data]
        for value in values:
            batch = np.asarray(value.asarray() if hasattr(value, "asarray") else value)
            if batch.ndim != 4 or batch.shape[1] not in (1, 3, 4) or not batch.size:
                raise ValueError(
                    f"write_image: expected an array (N, 1, 3 or 4 channels, height, width), got one of shape {batch.shape}"
                )
            for i, pixels in enumerate(batch[:3]):
                self._put(event(int(step), image(f"{name}/{i}", _pixels(pixels))))

    def flush(self) -> None:
        """Writes out what is still held back."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file; nothing is written afterwards."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_write_training_update(self, samples: Any, updates: Any, aggregate_loss: Any, aggregate_metric: Any) -> None:
        step = self.total_training_updates
        self.write_value("minibatch/avg_loss", mean(aggregate_loss, samples), step)
        if aggregate_metric is not None:
            self.write_value("minibatch/avg_metric", mean(aggregate_metric, samples), step)

    def on_write_training_summary(
        self,
        samples: int,
        updates: int,
        summaries: int,
        aggregate_loss: float,
        aggregate_metric: Any,
        elapsed_milliseconds: float,
    ) -> None:
        self.write_value("summary/avg_loss", mean(aggregate_loss, samples), summaries)
        if aggregate_metric is not None:
            self.write_value("summary/avg_metric", mean(aggregate_metric, samples), summaries)
        if elapsed_milliseconds > 0:
            self.write_value("summary/samples_per_second", 1000 * samples / elapsed_milliseconds, summaries)
        self.flush()

    def on_write_test_summary(
        self, samples: int, updates: int, summaries: int, aggregate_metric: float, elapsed_milliseconds: float
    ) -> None:
        self.write_value("minibatch/test_avg_metric", mean(aggregate_metric, samples), self.total_training_updates)
        self.flush()

    def write(self, key: str, value: Any) -> None:
        """A learning rate or momentum that has changed."""
        self.write_value(key, value, self.total_training_updates)


def _pixels(image: np.ndarray) -> np.ndarray:
    """(channels, height, width) as (height, width, channels) bytes."""
    image = image.transpose(1, 2, 0)
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    image = np.nan_to_num(image.astype(np.float64))
    low, high = image.min(), image.max()
    return np.rint((image - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
