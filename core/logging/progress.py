"""Progress of training and testing: writers that a trainer calls, lines in a log, and a live view in a terminal."""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

__all__ = [
    "LiveProgress",
    "ProgressPrinter",
    "ProgressWriter",
    "TraceLevel",
    "TrainingSummaryProgressCallback",
    "get_trace_level",
    "log_number_of_parameters",
    "set_trace_level",
]

NEVER = sys.maxsize
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


def _mean(total: Any, samples: Any) -> float:
    if isinstance(total, tuple):
        total = total[1] - total[0]
    if isinstance(samples, tuple):
        samples = samples[1] - samples[0]
    return total / samples if samples else 0.0


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
            cells += ["", ""] if loss is None else [f"{_mean(loss[1], samples[1]):.5g}", f"{_mean(loss, samples):.5g}"]
            if metric is not None:
                cells += [self._metric(_mean(metric[1], samples[1])), self._metric(_mean(metric, samples))]
            self._line(" ".join(cell.rjust(12) for cell in cells).rstrip())
            return
        parts = [] if loss is None else [f"loss {_mean(loss, samples):.6f}"]
        parts += [] if metric is None else [f"metric {self._metric(_mean(metric, samples))}"]
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
        metric = "" if aggregate_metric is None else f", metric {self._metric(_mean(aggregate_metric, samples))}"
        of = "" if self.num_epochs is None else f" of {self.num_epochs}"
        seconds = elapsed_milliseconds / 1000
        self._line(
            f"epoch {summaries}{of}: loss {_mean(aggregate_loss, samples):.6f}{metric} over {samples} samples "
            f"in {seconds:.3f} s ({_mean(samples, seconds):.1f} samples/s)"
        )

    def on_write_test_summary(
        self, samples: int, updates: int, summaries: int, aggregate_metric: float, elapsed_milliseconds: float
    ) -> None:
        self._line(
            f"test {summaries}: metric {self._metric(_mean(aggregate_metric, samples))} over {samples} samples "
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
        return _mean(self._training.loss, self._training.samples)

    def avg_metric_since_start(self) -> float:
        """Average metric of this epoch."""
        return _mean(self._training.metric, self._training.samples)

    def avg_loss_since_last(self) -> float:
        """Average loss since the last line."""
        s = self._training
        return _mean((s.last[2], s.loss), (s.last[0], s.samples))

    def avg_metric_since_last(self) -> float:
        """Average metric since the last line."""
        s = self._training
        return _mean((s.last[3], s.metric), (s.last[0], s.samples))

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


class TrainingSummaryProgressCallback(ProgressWriter):
    """Calls `callback(epoch, average loss, average metric or None, samples)` at the end of each epoch.

    epoch_size: samples of an epoch; 0 leaves the end of an epoch to `summarize_training_progress`.
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
        metric = None if aggregate_metric is None else _mean(aggregate_metric, samples)
        self.callback(summaries, _mean(aggregate_loss, samples), metric, samples)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03` of a number of seconds."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class LiveProgress(ProgressWriter):
    """One live line in a terminal: samples, samples/s, loss, metric, time left, share of time spent waiting for data.

    total: samples in the whole training (None: unknown, no time left). source: anything with a `wait_seconds` number that grows
    (a minibatch source). Where the stream is no terminal a plain line is written every `interval` seconds instead.
    Use it as a context, or call `close()`, so that the terminal is left in order.
    """

    def __init__(
        self,
        total: int | None = None,
        source: Any = None,
        label: str = "training",
        metric_is_pct: bool = True,
        interval: float = 10.0,
        file: TextIO | None = None,
    ):
        super().__init__()
        self.total, self.source, self.label, self.metric_is_pct = total, source, label, metric_is_pct
        self.file = sys.stderr if file is None else file
        self._live = bool(getattr(self.file, "isatty", lambda: False)())
        self._interval = 0.1 if self._live else interval
        self._begin = self._mark = time.perf_counter()
        self._next = self._mark + self._interval
        self._wait_begin = self._wait_mark = self._waited()
        self._count = self._mark_count = self._skipped = 0
        self._loss = self._metric = 0.0  # sums since the mark
        self._has_metric = False
        self._shown: list[float] | None = None  # samples a second, loss, metric, wait share: smoothed where the line is live
        self._progress: Any = None
        self._open = True

    def _waited(self) -> float:
        return float(getattr(self.source, "wait_seconds", 0.0) or 0.0)

    def update_training(self, samples: int, loss: float, metric: float | None) -> None:
        self._count += samples
        self._loss += loss
        if metric is not None:
            self._metric += metric
            self._has_metric = True
        now = time.perf_counter()
        if now >= self._next and self._open and self._count > self._mark_count:
            self._show(now)

    def skip(self, samples: int) -> None:
        """Counts samples that an earlier run has trained, so that time left is right after a resume."""
        self._count += samples
        self._mark_count += samples
        self._skipped += samples

    def _text(self, now: float) -> str:
        n, seconds, waited = self._count - self._mark_count, max(now - self._mark, 1e-9), self._waited()
        fresh = [n / seconds, self._loss / n, self._metric / n, min(1.0, (waited - self._wait_mark) / seconds)]
        if self._shown is not None and self._live:
            fresh = [0.9 * old + 0.1 * new for old, new in zip(self._shown, fresh, strict=True)]
        self._shown = fresh
        self._mark, self._mark_count, self._wait_mark, self._loss, self._metric = now, self._count, waited, 0.0, 0.0
        speed, loss, metric, wait = fresh
        parts = [f"{speed:,.0f} samples/s", f"loss {loss:.4f}"]
        if self._has_metric:
            parts.append(f"metric {100 * metric:.2f}%" if self.metric_is_pct else f"metric {metric:.4f}")
        if self.source is not None:
            parts.append(f"wait {100 * wait:.0f}%")
        if self.total:
            parts.append(f"left {duration(max(0, self.total - self._count) / speed)}")
        return ", ".join(parts)

    def _show(self, now: float) -> None:
        text = self._text(now)
        if self._live:
            self._draw(text)
        else:
            share = f"{100 * self._count / self.total:.0f}% " if self.total else ""
            print(f"{self.label}: {share}{self._count:,} samples, {text}", file=self.file, flush=True)
        self._next = now + self._interval

    def _draw(self, text: str) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            text_column = TextColumn("{task.fields[text]}")
            columns = [TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), text_column]
            self._progress = Progress(*columns, console=Console(file=self.file), auto_refresh=False, transient=False)
            self._task = self._progress.add_task(self.label, total=self.total, text=text)
            self._progress.start()
        self._progress.update(self._task, completed=self._count, text=text, refresh=True)

    def on_write_training_summary(self, *args: Any) -> None:
        """Epochs need no line of their own here."""

    def write(self, key: str, value: Any) -> None:
        """Shows a change above the live line."""
        if self._progress is not None:
            self._progress.console.print(f"{key}: {value}")
        elif self._live is False:
            print(f"{self.label}: {key}: {value}", file=self.file, flush=True)

    def close(self) -> None:
        """Writes a last line with the whole training's throughput and wait share, and gives the terminal back."""
        if not self._open:
            return
        self._open = False
        now = time.perf_counter()
        seconds = max(now - self._begin, 1e-9)
        trained = self._count - self._skipped
        wait = "" if self.source is None else f", wait {100 * (self._waited() - self._wait_begin) / seconds:.0f}%"
        if self._progress is not None:
            self._progress.update(self._task, completed=self._count, refresh=True)
            self._progress.stop()
        rate = trained / seconds
        print(
            f"{self.label}: {trained:,} samples in {duration(seconds)}, {rate:,.0f} samples/s{wait}", file=self.file, flush=True
        )

    def __enter__(self) -> LiveProgress:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


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
