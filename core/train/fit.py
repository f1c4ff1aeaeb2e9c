"""`Function.train` and `Function.test`: a criterion trained or tested in one call, on arrays or a minibatch source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cogkit import evaluation
from cogkit.functions import Function
from cogkit.ops import combine
from cogkit.train.arrays import ArraySource
from cogkit.train.configs import UNLIMITED, CheckpointConfig, CrossValidationConfig, TestConfig, samples_of, size_of
from cogkit.train.session import TrainingSession, by_input
from cogkit.train.trainer import Evaluator, Trainer
from cogkit.variables import Record

__all__ = ["test", "train"]  # no part of the face: `Function` has them

NONE = float("nan")  # the metric of a criterion without one


class _Collector:
    """A progress writer that keeps averages: of every so many minibatches, of epochs, of the test."""

    def __init__(self, every: int | None):
        self.every = every
        self.updates: list[Record] = []
        self.epochs: list[Record] = []
        self.tests: list[Record] = []
        self._last = [0.0, 0.0, 0]  # sums of loss, metric, samples since the last update
        self._epoch = [0.0, 0.0, 0]
        self._test = [0.0, 0]
        self._minibatches = 0
        self._has_metric = True

    def _average(self, sums: list[Any]) -> Record:
        loss, metric, n = sums
        return Record(loss=loss / n if n else 0.0, metric=metric / n if self._has_metric and n else NONE, samples=n)

    def update_training(self, samples: int, loss: float, metric: float | None) -> None:
        self._has_metric = metric is not None
        for sums in (self._last, self._epoch):
            sums[0] += loss
            sums[1] += metric or 0.0
            sums[2] += samples
        self._minibatches += 1
        if self.every is not None and self._minibatches % self.every == 0:
            self.updates.append(self._average(self._last))
            self._last = [0.0, 0.0, 0]

    def write_training_summary(self, metric: bool = True) -> None:
        self.epochs.append(self._average(self._epoch))
        self._epoch, self._last, self._minibatches = [0.0, 0.0, 0], [0.0, 0.0, 0], 0

    def update_test(self, samples: int, metric: float) -> None:
        self._test = [self._test[0] + metric, self._test[1] + samples]

    def write_test_summary(self) -> None:
        total, n = self._test
        self.tests.append(Record(metric=total / n if n else 0.0, samples=n))
        self._test = [0.0, 0]

    def write(self, key: str, value: Any) -> None:
        """Rates are not kept."""

    def get_checkpoint_state(self) -> dict[str, Any]:
        """The averages so far, as texts where they may be infinite."""
        records = [[[repr(r.loss), repr(r.metric), r.samples] for r in rows] for rows in (self.updates, self.epochs)]
        sums = [[repr(s[0]), repr(s[1]), s[2]] for s in (self._last, self._epoch)]
        return {"records": records, "sums": sums, "minibatches": self._minibatches, "metric": self._has_metric}

    def restore_from_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Takes the averages of the run that goes on."""
        rows = [[Record(loss=float(a), metric=float(b), samples=int(n)) for a, b, n in part] for part in state["records"]]
        self.updates, self.epochs = rows
        self._last, self._epoch = ([float(a), float(b), int(n)] for a, b, n in state["sums"])
        self._minibatches, self._has_metric = int(state["minibatches"]), bool(state["metric"])


def _sorted(callbacks: Any) -> tuple[list[Any], dict[type, Any]]:
    """(progress writers, config by its class) of a list of callbacks, or of one."""
    given = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    writers: list[Any] = []
    configs: dict[type, Any] = {}
    for callback in given:
        kind = next((k for k in (CheckpointConfig, CrossValidationConfig, TestConfig) if isinstance(callback, k)), None)
        if kind is None and not hasattr(callback, "update_training"):
            raise TypeError(
                "Function.train: expected progress writers, CheckpointConfig, CrossValidationConfig or TestConfig as callbacks, "
                f"got {type(callback).__name__}"
            )
        if kind in configs:
            raise ValueError(f"Function.train: expected at most one {kind.__name__} among the callbacks, got two")
        if kind is None:
            writers.append(callback)
        else:
            configs[kind] = callback
    return writers, configs


def _source(
    criterion: Function, given: Any, streams: Any, inputs: Any, what: str, sweeps: int | None
) -> tuple[Any, Mapping[Any, Any]]:
    """(source, {input: stream}) of arrays, or of a minibatch source and its streams in the order of the arguments."""
    if not hasattr(given, "get_next_minibatch"):
        if streams is not None or inputs is not None:
            raise ValueError(f"{what}: expected no streams with arrays, which are in the order of the arguments; leave them out")
        if not isinstance(given, (list, tuple)):
            given = (given,)
        source = ArraySource(criterion.arguments, given, what, sweeps)
        return source, source.streams
    if (streams is None) == (inputs is None):
        got = "neither" if streams is None else "both"
        raise ValueError(f"{what}: expected streams or model_inputs_to_streams with a minibatch source, got {got}")
    if inputs is not None:
        return given, inputs
    arguments = criterion.arguments
    if len(streams) != len(arguments):
        names = ", ".join(v.name or v.uid for v in arguments)
        raise ValueError(
            f"{what}: expected {len(arguments)} streams, in the order of the arguments ({names}), got {len(streams)}"
        )
    return given, dict(zip(arguments, streams, strict=True))


def train(
    criterion: Function,
    minibatch_source: Any,
    minibatch_size: Any = 32,
    streams: Sequence[Any] | None = None,
    model_inputs_to_streams: Mapping[Any, Any] | None = None,
    parameter_learners: Any = (),
    callbacks: Any = (),
    progress_frequency: Any = None,
    max_epochs: int | None = None,
    epoch_size: int | None = None,
    max_samples: int | None = None,
) -> Record:
    """See `Function.train`."""
    what = "Function.train"
    size = size_of(minibatch_size, what)
    if max_samples is not None and max_epochs is not None:
        raise ValueError(f"{what}: expected max_epochs or max_samples, got both; they say the same")
    source, inputs = _source(criterion, minibatch_source, streams, model_inputs_to_streams, what, None)
    if epoch_size is None and isinstance(source, ArraySource) and max_samples is None:
        epoch_size = source.samples
    if epoch_size is not None and samples_of(epoch_size, what) >= UNLIMITED:
        raise ValueError(f"{what}: expected an epoch_size of samples, got {epoch_size}")
    if max_samples is None and epoch_size is not None:
        max_samples = int((1 if max_epochs is None else max_epochs) * epoch_size)
    elif max_samples is None and max_epochs is not None:
        raise ValueError(
            f"{what}: expected epoch_size with max_epochs and a minibatch source, got none; say how many samples it has"
        )
    frequency = epoch_size if progress_frequency is None else progress_frequency
    writers, configs = _sorted(callbacks)
    every = next((w.freq for w in writers if getattr(w, "freq", None)), None)
    if every is None and size.is_constant and isinstance(frequency, int):
        every = max(1, frequency // size[0])
    collector = _Collector(every)
    trainer = Trainer(None, criterion, parameter_learners, [*writers, collector])
    TrainingSession(
        trainer,
        source,
        size,
        inputs,
        max_samples,
        frequency,
        configs.get(CheckpointConfig),
        configs.get(CrossValidationConfig),
        configs.get(TestConfig),
    ).train()
    result = {"updates": collector.updates, "epoch_summaries": collector.epochs}
    return Record(**result, test_summary=collector.tests[-1]) if TestConfig in configs else Record(**result)


def test(
    criterion: Function,
    minibatch_source: Any,
    minibatch_size: Any = 32,
    streams: Sequence[Any] | None = None,
    model_inputs_to_streams: Mapping[Any, Any] | None = None,
    callbacks: Any = None,
) -> Record:
    """See `Function.test`."""
    what = "Function.test"
    size = size_of(minibatch_size, what)
    source, inputs = _source(criterion, minibatch_source, streams, model_inputs_to_streams, what, 1)
    if source.is_infinite():
        raise ValueError(f"{what}: expected a source with a limited number of samples or sweeps, got one without end")
    writers, configs = _sorted(callbacks)
    if configs:
        raise TypeError(f"{what}: expected progress writers as callbacks, got a {next(iter(configs)).__name__}")
    metric = combine([criterion.outputs[min(1, len(criterion.outputs) - 1)]])
    evaluator = Evaluator(metric, writers)
    used = {v: inputs[v] for v in inputs if any(v is a for a in metric.arguments)}
    total, samples = 0.0, 0
    while batch := by_input(source.get_next_minibatch(size[samples]), used):
        found, n = evaluator.test_sums(batch)
        total, samples = total + found, samples + n
    evaluator.summarize_test_progress()
    return Record(metric=total / samples if samples else 0.0, samples=samples)


evaluation.runtime.train, evaluation.runtime.test = train, test
