"""Progress writers: what a trainer tells of every minibatch, summed, and when a line is due."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ProgressWriter", "TrainingSummaryProgressCallback"]

NEVER = sys.maxsize


def mean(total: Any, samples: Any) -> float:
    """A sum over samples as their average, 0 for none; either may be a pair (before, now)."""
    if isinstance(total, tuple):
        total = total[1] - total[0]
    if isinstance(samples, tuple):
        samples = samples[1] - samples[0]
    return total / samples if samples else 0.0


class _Sums:
    """Sums of one kind of minibatch (training or test), in all and since the last line."""

    __slots__ = ("first", "frequency", "last", "loss", "metric", "samples", "start", "summaries", "updates")

    def __init__(self, frequency: int, first: int):
        self.frequency, self.first, self.summaries = frequency, first, 0
        self.clear()

    def clear(self) -> None:
        self.samples = self.updates = 0
        self.loss = self.metric = 0.0
        self.last = (0, 0, 0.0, 0.0)
        self.start = time.perf_counter()

    def state(self) -> list[Any]:
        """Plain texts and numbers, for a checkpoint; a text for what may be infinite."""
        return [
            self.summaries,
            self.samples,
            self.updates,
            repr(self.loss),
            repr(self.metric),
            [*self.last[:2], *map(repr, self.last[2:])],
        ]

    def take(self, state: Any) -> None:
        """The sums that `state` gave."""
        summaries, samples, updates, loss, metric, last = state
        before = (int(last[0]), int(last[1]), float(last[2]), float(last[3]))
        self.summaries, self.samples, self.updates = int(summaries), int(samples), int(updates)
        self.loss, self.metric, self.last = float(loss), float(metric), before

    def due(self) -> bool:
        n = self.updates
        if self.frequency == 0:
            return n & (n + 1) == 0
        return n % self.frequency == 0 or n <= self.first


class ProgressWriter:
    """Base of all progress writers: sums what the trainer reports and calls the `on_...` methods when a line is due.

    freq: None never, 0 after 1, 3, 7, 15 ... minibatches, n after every n; first: that many first minibatches in any case.
    """

    def __init__(
        self,
        freq: int | None = None,
        first: int = 0,
        test_freq: int | None = None,
        test_first: int = 0,
        distributed_freq: int | None = None,
        distributed_first: int = 0,
    ):
        for name, value in (("freq", freq), ("test_freq", test_freq), ("distributed_freq", distributed_freq)):
            if value is not None and (int(value) != value or value < 0):
                raise ValueError(f"{type(self).__name__}: expected {name} of 0 or more minibatches, or None, got {value!r}")
        self._training = _Sums(NEVER if freq is None else int(freq), first)
        self._test = _Sums(NEVER if test_freq is None else int(test_freq), test_first)
        self._distributed = _Sums(NEVER if distributed_freq is None else int(distributed_freq), distributed_first)
        self.total_training_updates = 0
        self.total_test_updates = 0

    def update_training(self, samples: int, loss: float, metric: float | None) -> None:
        """Called after each training minibatch with the *sums* of loss and metric over its samples."""
        if samples == 0:
            return
        self.total_training_updates += 1
        s = self._training
        s.updates += 1
        s.samples += samples
        s.loss += loss
        if metric is not None:
            s.metric += metric
        if s.due():
            n, updates, old_loss, old_metric = s.last
            self.on_write_training_update(
                (n, s.samples),
                (updates, s.updates),
                (old_loss, s.loss),
                None if metric is None else (old_metric, s.metric),
            )
            s.last = (s.samples, s.updates, s.loss, s.metric)
        self.on_training_update_end()

    def update_test(self, samples: int, metric: float) -> None:
        """Called after each test minibatch with the sum of the metric."""
        if samples == 0:
            return
        self.total_test_updates += 1
        s = self._test
        s.updates += 1
        s.samples += samples
        s.metric += metric
        if s.due():
            n, updates, _, old = s.last
            self.on_write_test_update((n, s.samples), (updates, s.updates), (old, s.metric))
            s.last = (s.samples, s.updates, 0.0, s.metric)

    def update_distributed_sync(self, samples: int, metric: float) -> None:
        """Called after each exchange between ranks."""
        s = self._distributed
        s.updates += 1
        s.samples += samples
        s.metric += metric
        if s.due():
            n, updates, _, old = s.last
            self.on_write_distributed_sync_update((n, s.samples), (updates, s.updates), (old, s.metric))
            s.last = (s.samples, s.updates, 0.0, s.metric)

    def write_training_summary(self, metric: bool = True) -> None:
        """Called at the end of an epoch: reports the sums and starts new ones."""
        s = self._training
        s.summaries += 1
        elapsed = 1000.0 * (time.perf_counter() - s.start)
        self.on_write_training_summary(s.samples, s.updates, s.summaries, s.loss, s.metric if metric else None, elapsed)
        s.clear()

    def write_test_summary(self) -> None:
        """Called at the end of a test: reports the sums and starts new ones."""
        s = self._test
        s.summaries += 1
        elapsed = 1000.0 * (time.perf_counter() - s.start)
        self.on_write_test_summary(s.samples, s.updates, s.summaries, s.metric, elapsed)
        s.clear()

    # a training session keeps these in its checkpoints, so that an epoch that was interrupted is summarized whole
    def get_checkpoint_state(self) -> dict[str, Any]:
        """Its sums and counts."""
        sums = {"training": self._training.state(), "test": self._test.state(), "distributed": self._distributed.state()}
        return {**sums, "updates": [self.total_training_updates, self.total_test_updates]}

    def restore_from_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Takes the sums of a checkpoint."""
        self._training.take(state["training"])
        self._test.take(state["test"])
        self._distributed.take(state["distributed"])
        self.total_training_updates, self.total_test_updates = (int(n) for n in state["updates"])

    # what a writer may override; pairs are (before, now)
    def on_write_training_update(self, samples: Any, updates: Any, aggregate_loss: Any, aggregate_metric: Any) -> None:
        """A line on training is due."""

    def on_training_update_end(self) -> None:
        """A training minibatch has ended."""

    def on_write_test_update(self, samples: Any, updates: Any, aggregate_metric: Any) -> None:
        """A line on a test is due."""

    def on_write_distributed_sync_update(self, samples: Any, updates: Any, aggregate_metric: Any) -> None:
        """A line on exchanges between ranks is due."""

    def on_write_training_summary(
        self,
        samples: int,
        updates: int,
        summaries: int,
        aggregate_loss: float,
        aggregate_metric: Any,
        elapsed_milliseconds: float,
    ) -> None:
        """An epoch has ended."""

    def on_write_test_summary(
        self, samples: int, updates: int, summaries: int, aggregate_metric: float, elapsed_milliseconds: float
    ) -> None:
        """A test has ended."""

    def write(self, key: str, value: Any) -> None:
        """A value has changed: a learning rate, a momentum."""


class TrainingSummaryProgressCallback(ProgressWriter):
    """Calls `callback(epoch, average loss, average metric or None, samples)` at the end of each epoch; the first epoch is 0, as in CNTK.

    epoch_size: samples of an epoch; 0 leaves the end of an epoch to `summarize_training_progress`. Raises ValueError below 0.
    """

    def __init__(self, epoch_size: int, callback: Callable[..., Any]):
        super().__init__()
        self.epoch_size, self.callback = epoch_size, callback

    def update_training(self, samples: int, loss: float, metric: float | None) -> None:
        super().update_training(samples, loss, metric)
        if self.epoch_size and self._training.samples >= self.epoch_size:
            self.write_training_summary(metric is not None)

    def on_write_training_summary(
        self,
        samples: int,
        updates: int,
        summaries: int,
        aggregate_loss: float,
        aggregate_metric: Any,
        elapsed_milliseconds: float,
    ) -> None:
        metric = None if aggregate_metric is None else mean(aggregate_metric, samples)
        self.callback(summaries - 1, mean(aggregate_loss, samples), metric, samples)
