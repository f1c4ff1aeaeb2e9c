"""Progress as lines, on the screen or in a file; how much is said; how many parameters there are."""

from __future__ import annotations

import enum
import os
import time
from typing import Any

from cogkit.logging.progress import ProgressWriter, mean

__all__ = ["ProgressPrinter", "TraceLevel", "get_trace_level", "log_number_of_parameters", "set_trace_level"]

_trace = None


class TraceLevel(enum.IntEnum):
    """How much is said: errors only, warnings too, everything."""

    Error = 0
    Warning = 1
    Info = 2


def get_trace_level() -> TraceLevel:
    """The present trace level."""
    return TraceLevel.Warning if _trace is None else _trace


def set_trace_level(value: TraceLevel | int) -> None:
    """Sets the trace level; ValueError for one that does not exist."""
    global _trace
    _trace = TraceLevel(value)


class ProgressPrinter(ProgressWriter):
    """Prints progress as lines, to the screen or to a file.

    freq, first, test_freq, test_first, distributed_freq, distributed_first: as `ProgressWriter`. tag: begins every line.
    log_to_file: a path; with `rank` its file is path + "rank" + rank. gen_heartbeat: a sign of life every 10 s.
    num_epochs: shown in summaries. metric_is_pct: the metric is a share, shown in per cent.
    """

    def __init__(
        self,
        freq: int | None = None,
        first: int = 0,
        tag: str = "",
        log_to_file: str | os.PathLike | None = None,
        rank: int | None = None,
        gen_heartbeat: bool = False,
        num_epochs: int | None = None,
        test_freq: int | None = None,
        test_first: int = 0,
        metric_is_pct: bool = True,
        distributed_freq: int | None = None,
        distributed_first: int = 0,
    ):
        super().__init__(freq, first, test_freq, test_first, distributed_freq, distributed_first)
        self.freq, self.test_freq, self.num_epochs, self.metric_is_pct = freq, test_freq, num_epochs, metric_is_pct
        self.tag = f"[{tag}] " if tag else ""
        self.logfilename = None
        self._heartbeat = time.monotonic() if gen_heartbeat else None
        self._manual_metric = False
        if log_to_file is not None:
            self.logfilename = os.fspath(log_to_file) + ("" if rank is None else f"rank{rank}")
            with open(self.logfilename, "w", encoding="utf-8"):
                pass
            print(f"progress is written to {self.logfilename}")
        if freq == 0:
            self._line(f"{'samples':>12} {'loss':>12} {'since last':>12} {'metric':>12} {'since last':>12}")

    def _line(self, text: str) -> None:
        if self.logfilename is None:
            print(self.tag + text, flush=True)
        else:
            with open(self.logfilename, "a", encoding="utf-8") as file:
                file.write(self.tag + text + "\n")

    def _metric(self, value: float) -> str:
        return f"{100 * value:.2f}%" if self.metric_is_pct else f"{value:.6f}"

    def _update(self, what: str, freq: int | None, samples: Any, updates: Any, loss: Any, metric: Any) -> None:
        if freq == 0:
            cells = [f"{samples[1]:12d}"]
            cells += ["", ""] if loss is None else [f"{mean(loss[1], samples[1]):.5g}", f"{mean(loss, samples):.5g}"]
            if metric is not None:
                cells += [self._metric(mean(metric[1], samples[1])), self._metric(mean(metric, samples))]
            self._line(" ".join(cell.rjust(12) for cell in cells).rstrip())
            return
        parts = [] if loss is None else [f"loss {mean(loss, samples):.6f}"]
        parts += [] if metric is None else [f"metric {self._metric(mean(metric, samples))}"]
        numbers = f"{updates[0] + 1}-{updates[1]}" if updates[1] - updates[0] > 1 else f"{updates[1]}"
        self._line(f"{what} {numbers}: {', '.join(parts)} over {samples[1] - samples[0]} samples")

    def on_write_training_update(self, samples: Any, updates: Any, aggregate_loss: Any, aggregate_metric: Any) -> None:
        self._update("minibatch", self.freq, samples, updates, aggregate_loss, aggregate_metric)

    def on_write_test_update(self, samples: Any, updates: Any, aggregate_metric: Any) -> None:
        self._update("test minibatch", self.test_freq, samples, updates, None, aggregate_metric)

    def on_write_distributed_sync_update(self, samples: Any, updates: Any, aggregate_metric: Any) -> None:
        self._line(f"exchange {updates[0] + 1}-{updates[1]}: {samples[1] - samples[0]} samples")

    def on_training_update_end(self) -> None:
        if self._heartbeat is not None and time.monotonic() - self._heartbeat > 10:
            self._heartbeat = time.monotonic()
            print(f"{self.tag}at work: {self._training.samples} samples in this epoch", flush=True)

    def on_write_training_summary(
        self,
        samples: int,
        updates: int,
        summaries: int,
        aggregate_loss: float,
        aggregate_metric: Any,
        elapsed_milliseconds: float,
    ) -> None:
        metric = "" if aggregate_metric is None else f", metric {self._metric(mean(aggregate_metric, samples))}"
        of = "" if self.num_epochs is None else f" of {self.num_epochs}"
        seconds = elapsed_milliseconds / 1000
        self._line(
            f"epoch {summaries}{of}: loss {mean(aggregate_loss, samples):.6f}{metric} over {samples} samples "
            f"in {seconds:.3f} s ({mean(samples, seconds):.1f} samples/s)"
        )

    def on_write_test_summary(
        self, samples: int, updates: int, summaries: int, aggregate_metric: float, elapsed_milliseconds: float
    ) -> None:
        self._line(
            f"test {summaries}: metric {self._metric(mean(aggregate_metric, samples))} over {samples} samples "
            f"in {updates} minibatches, {elapsed_milliseconds / 1000:.3f} s"
        )

    def write(self, key: str, value: Any) -> None:
        self._line(f"{key}: {value}")

    def log(self, message: str) -> None:
        """Writes a line of the user's."""
        self._line(str(message))

    def end_progress_print(self, msg: str = "") -> None:
        """Writes the last line of a training."""
        self._line(f"end of training{': ' + msg if msg else ''}")

    # the older way: a script that feeds the printer itself
    def update(self, loss: float, minibatch_size: int, metric: float | None = None) -> None:
        """Counts one minibatch with its *average* loss and metric."""
        self._manual_metric = self._manual_metric or metric is not None
        self.update_training(minibatch_size, loss * minibatch_size, None if metric is None else metric * minibatch_size)

    def update_with_trainer(self, trainer: Any, with_metric: bool = False) -> None:
        """Counts the last minibatch of a trainer."""
        if trainer.previous_minibatch_sample_count:
            self.update(
                trainer.previous_minibatch_loss_average,
                trainer.previous_minibatch_sample_count,
                trainer.previous_minibatch_evaluation_average if with_metric else None,
            )

    def epoch_summary(self, with_metric: bool = False) -> tuple[float, float, int]:
        """Ends an epoch counted by `update`; (average loss, average metric, samples)."""
        result = (self.avg_loss_since_start(), self.avg_metric_since_start(), self._training.samples)
        self.write_training_summary(with_metric)
        return result

    def avg_loss_since_start(self) -> float:
        """Average loss of this epoch."""
        return mean(self._training.loss, self._training.samples)

    def avg_metric_since_start(self) -> float:
        """Average metric of this epoch."""
        return mean(self._training.metric, self._training.samples)

    def avg_loss_since_last(self) -> float:
        """Average loss since the last line."""
        s = self._training
        return mean((s.last[2], s.loss), (s.last[0], s.samples))

    def avg_metric_since_last(self) -> float:
        """Average metric since the last line."""
        s = self._training
        return mean((s.last[3], s.metric), (s.last[0], s.samples))

    def reset_start(self) -> tuple[float, float, int]:
        """Starts the sums of an epoch anew; returns what they came to."""
        result = (self.avg_loss_since_start(), self.avg_metric_since_start(), self._training.samples)
        self._training.clear()
        return result

    def reset_last(self) -> tuple[float, float, int]:
        """Starts the sums since the last line anew; returns what they came to."""
        s = self._training
        result = (self.avg_loss_since_last(), self.avg_metric_since_last(), s.samples - s.last[0])
        s.last = (s.samples, s.updates, s.loss, s.metric)
        return result


def log_number_of_parameters(model: Any, trace_level: int = 0) -> None:
    """Prints how many parameters a model has; with trace_level > 0 each of them."""
    parameters = model.parameters
    for p in parameters:
        if any(n < 0 for n in p.shape):
            raise ValueError(f"log_number_of_parameters: expected known shapes, got {p!r}; apply the model to an input first")
    total = 0
    for p in parameters:
        n = 1
        for size in p.shape:
            n *= size
        total += n
    print(f"{total:,} parameters in {len(parameters)} tensor{'' if len(parameters) == 1 else 's'}")
    if trace_level > 0:
        for p in parameters:
            print(f"  {p.name or p.uid}: {' x '.join(map(str, p.shape)) or 'scalar'}")
