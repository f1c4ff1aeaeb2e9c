"""A live view of a training in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from cogkit.logging.progress import ProgressWriter

__all__ = ["LiveProgress"]


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

    def get_checkpoint_state(self) -> dict[str, Any]:
        """The samples that it has counted."""
        return {"samples": self._count}

    def restore_from_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Goes on from the samples of a checkpoint."""
        self.skip(int(state["samples"]) - self._count)

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
