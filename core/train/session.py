"""Training sessions: minibatches from a source through a trainer, with what happens every so often: summaries, tests, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors

from cogkit.engine.device import on_device
from cogkit.errors import ModelFileError
from cogkit.train.checkpoint import clear_leftovers
from cogkit.train.configs import (
    UNLIMITED,
    CheckpointConfig,
    CrossValidationConfig,
    DataUnit,
    TestConfig,
    frequency_of,
    samples_of,
    size_of,
)
from cogkit.train.ranks import communicator_of
from cogkit.train.trainer import Trainer

__all__ = ["TrainingSession", "training_session"]

PLACE = "training_session"


@dataclasses.dataclass
class _Action:
    """Something that happens whenever `count` more units have been trained on, and at the end where units are left."""

    count: int
    unit: DataUnit
    act: Callable[[int], bool]  # of the number of times that the count was reached before; False ends the training
    index: int = 0
    units: int = 0  # trained on when it last happened


class TrainingSession:
    """One training as a whole; `training_session` makes it, `train` runs it.

    A derived class may give the `on_...` methods. At one count first the progress is summarized, then there is a cross-validation,
    then a checkpoint, so that what goes on from the checkpoint repeats neither. With distributed learners each rank has a session: it
    takes its share of each minibatch, tests its share, and the first writes what is shared.
    """

    def __init__(
        self,
        trainer: Trainer,
        mb_source: Any,
        mb_size: Any,
        model_inputs_to_streams: Mapping[Any, Any],
        max_samples: int | None = None,
        progress_frequency: Any = None,
        checkpoint_config: CheckpointConfig | None = None,
        cv_config: CrossValidationConfig | None = None,
        test_config: TestConfig | None = None,
    ):
        if not isinstance(trainer, Trainer):
            raise TypeError(f"{PLACE}: expected a trainer, got {type(trainer).__name__}; make one with C.Trainer(...)")
        if not hasattr(mb_source, "get_next_minibatch"):
            raise TypeError(
                f"{PLACE}: expected a minibatch source as mb_source, got {type(mb_source).__name__}; arrays go to Function.train"
            )
        if not isinstance(model_inputs_to_streams, Mapping) or not model_inputs_to_streams:
            got = "an empty one" if isinstance(model_inputs_to_streams, Mapping) else type(model_inputs_to_streams).__name__
            raise ValueError(f"{PLACE}: expected a dict from inputs to streams of the source, got {got}")
        for config, kind in (
            (checkpoint_config, CheckpointConfig),
            (cv_config, CrossValidationConfig),
            (test_config, TestConfig),
        ):
            if config is not None and not isinstance(config, kind):
                raise TypeError(f"{PLACE}: expected a {kind.__name__}, got {type(config).__name__}")
        self.trainer, self.source, self.streams = trainer, mb_source, dict(model_inputs_to_streams)
        self.minibatch_size = size_of(mb_size, PLACE)
        self.max_samples = samples_of(max_samples, PLACE)
        self.checkpoint = CheckpointConfig(None) if checkpoint_config is None else checkpoint_config
        self.cross_validation, self.test = cv_config, test_config
        self._check_sources()
        self._ranks = communicator_of(trainer.parameter_learners)
        self._stopped = False
        self._saved = 0  # samples trained on at the last checkpoint
        self._actions: list[_Action] = []
        frequencies: list[tuple[tuple[int, DataUnit] | None, Callable[[int], bool]]] = [
            (frequency_of(progress_frequency, PLACE), self._summarize),
            (None if cv_config is None else cv_config.frequency, self._validate),
            (self.checkpoint.frequency, self._save),
        ]
        for frequency, act in frequencies:
            if frequency is not None:
                self._actions.append(_Action(*frequency, act))

    def _check_sources(self) -> None:
        """Raises ValueError where training or a test would not end, or has nothing to test."""

        def check(source: Any, limit: int, what: str, out: str) -> None:
            if limit >= UNLIMITED and source.is_infinite():
                raise ValueError(
                    f"{what}: expected a source with a limited number of samples or sweeps, got one without end; {out}"
                )

        check(self.source, self.max_samples, PLACE, "give max_samples here or to the source")
        for config in (self.cross_validation, self.test):
            if config is not None and config.source is not None:
                check(config.source, config.max_samples, type(config).__name__, "give max_samples or max_sweeps to the source")
                if self.trainer.evaluation_function is None:
                    raise ValueError(
                        f"{type(config).__name__}: expected a trainer with a metric, got one without; give it criterion=(loss, metric)"
                    )
        name = self.checkpoint.filename
        if name is not None and not pathlib.Path(name).absolute().parent.is_dir():
            raise FileNotFoundError(f"CheckpointConfig: expected a folder {pathlib.Path(name).parent}, got none; make it first")

    # what a derived class may give ---------------------------------------------------------------------------------

    def on_minibatch_start(self) -> None:
        """Called before each minibatch is trained on."""

    def on_minibatch_end(self) -> bool:
        """Called after each minibatch; False ends the training."""
        return True

    def on_checkpoint_start(self, index: int) -> None:
        """Called before checkpoint number `index` is written."""

    def on_checkpoint_end(self, index: int) -> None:
        """Called when checkpoint number `index` is on disk."""

    def on_cross_validation_start(self, index: int) -> None:
        """Called before cross-validation number `index`."""

    def on_cross_validation_end(self, index: int, average_error: float, num_samples: int, num_minibatches: int) -> bool:
        """Called with the result of cross-validation number `index`: the config's callback; False ends the training."""
        callback = None if self.cross_validation is None else self.cross_validation.callback
        return callback is None or _goes_on(callback(index, average_error, num_samples, num_minibatches))

    def get_minibatch_size(self) -> int:
        """The size of the next minibatch, of all ranks together, in samples."""
        return self.minibatch_size[self.trainer.total_number_of_samples_seen]

    # training ------------------------------------------------------------------------------------------------------

    def train(self, device: Any = None) -> None:
        """Trains until max_samples, the end of the source or a False of a callback; then tests.

        Goes on at the newest checkpoint where the config says so; a training that a callback has ended stays ended.
        device: where it runs (None: the default device).
        """
        with on_device(device):
            self._train()

    def _train(self) -> None:
        begun = self._restore()
        more = not self._stopped
        while more:
            left = 0 if self._stopped else self.max_samples - self.trainer.parameter_learners[0].samples_begun()
            batch = self._next(left) if left > 0 else {}
            if not batch and self._ranks.num_workers() == 1:
                break
            self.on_minibatch_start()
            more = self.trainer.train_minibatch(batch)  # False: no rank has data, or no learner learns any more
            self._stopped = not _goes_on(self.on_minibatch_end()) or self._stopped
            for action in self._actions:
                index = self._units(action.unit) // action.count
                if index != action.index:
                    self._run(action)
                    action.index = index
        seen = self._seen()
        if seen != begun:
            for action in self._actions:
                if action.units != self._units(action.unit):
                    self._run(action)
            # departure: CNTK leaves what comes after the last whole sweep out of a checkpoint that is made once a sweep
            if self.checkpoint.frequency and (self.checkpoint.preserve_all or self._saved != seen):
                self.save_checkpoint(self.checkpoint.filename)
        if self.test is not None:
            self._measure(self.test)

    def _run(self, action: _Action) -> None:
        action.units = self._units(action.unit)
        self._stopped = not action.act(action.index) or self._stopped

    def _seen(self) -> int:
        return self.trainer.total_number_of_samples_seen

    def _units(self, unit: DataUnit) -> int:
        return self.trainer.total_number_of_units_seen(unit)

    def _share(self) -> tuple[int, int]:
        """(ranks that share a minibatch now, this rank's number among them)."""
        if self._ranks.num_workers() > 1 and self._seen() >= self.trainer.parameter_learners[0].parallelization_after():
            return self._ranks.num_workers(), self._ranks.rank()
        return 1, 0

    def _next(self, left: int) -> dict[Any, Any]:
        """The next minibatch of training by input, of at most `left` samples; {} at the end of the source."""
        return _read(self.source, min(self.get_minibatch_size(), left), self.streams, *self._share())

    def _summarize(self, index: int) -> bool:
        self.trainer.summarize_training_progress()
        return True

    def _validate(self, index: int) -> bool:
        self.on_cross_validation_start(index)
        found = (0.0, 0, 0) if self.cross_validation.source is None else self._measure(self.cross_validation)
        more = _goes_on(self.on_cross_validation_end(index, *found))
        if self._ranks.num_workers() > 1:  # what one rank's callback says holds for all
            more = not self._ranks.sum(np.array([float(not more)]))[0]
        return more

    def _measure(self, config: CrossValidationConfig | TestConfig) -> tuple[float, int, int]:
        """(average of the metric, samples, minibatches) over a config's source, which is then put back to where it was."""
        streams = self.streams if config.streams is None else config.streams
        workers, rank = self._ranks.num_workers(), self._ranks.rank()
        position = config.source.get_checkpoint_state()
        total, samples, minibatches = 0.0, 0, 0
        while samples < config.max_samples:
            size = min(config.minibatch_size[samples], config.max_samples - samples)
            batch = _read(config.source, size, streams, workers, rank)
            if not self._ranks.sum(np.array([float(bool(batch))]))[0]:  # no rank has data any more
                break
            found, n = self.trainer.test_sums(batch, distributed=workers > 1)
            total, samples, minibatches = total + found, samples + n, minibatches + 1
        if position:  # a source of the user's that says nothing cannot be put back
            config.source.restore_from_checkpoint(position)
        self.trainer.summarize_test_progress()
        return (total / samples if samples else 0.0), samples, minibatches

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self, index: int) -> bool:
        self.on_checkpoint_start(index)
        number = str(index) if self.checkpoint.preserve_all else ""
        self.save_checkpoint(f"{self.checkpoint.filename}{number}")
        self._saved = self._seen()
        self.on_checkpoint_end(index)
        return True

    def save_checkpoint(self, filename: str | os.PathLike, external_state: Mapping[str, Any] | None = None) -> None:
        """Writes everything that the session needs to go on bit for bit, and the caller's own state; see `Trainer.save_checkpoint`.

        That is the trainer with its learners, the position of the source, the sums of the progress writers, and the state of a callback
        that has one.
        """
        self.trainer.save_checkpoint(
            filename,
            {
                "source": self.source.get_checkpoint_state(),
                "writers": [
                    w.get_checkpoint_state() if hasattr(w, "get_checkpoint_state") else None
                    for w in self.trainer.progress_writers
                ],
                "callback": self._callback().get_checkpoint_state() if self._callback() is not None else None,
                "minibatch_size": self.minibatch_size.get_checkpoint_state(),
                "stopped": self._stopped,
                "samples": self._seen(),
                "external": dict(external_state or {}),
            },
        )

    def _callback(self) -> Any:
        """The config's callback where it has a state."""
        callback = None if self.cross_validation is None else self.cross_validation.callback
        return callback if hasattr(callback, "get_checkpoint_state") else None

    def restore_from_checkpoint(self, filename: str | os.PathLike) -> dict[str, Any]:
        """Goes to where `save_checkpoint` was called; returns the caller's own state.

        Raises FileNotFoundError for no checkpoint, ModelFileError for one of another training, ValueError for one that no session wrote.
        """
        state = self.trainer.restore_from_checkpoint(filename)
        if "source" not in state or "stopped" not in state:
            raise ValueError(
                f"{filename}: expected a checkpoint of a session, got one of a trainer alone; its source has no position"
            )
        if not state["source"]:
            raise ValueError(
                f"{PLACE}: expected a source whose position can be restored, got {type(self.source).__name__} without one; "
                "give it get_checkpoint_state and restore_from_checkpoint"
            )
        self.source.restore_from_checkpoint(state["source"])
        try:
            for writer, sums in zip(self.trainer.progress_writers, state["writers"], strict=False):
                if sums is not None and hasattr(writer, "restore_from_checkpoint"):
                    writer.restore_from_checkpoint(sums)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"{filename}: expected the sums of progress writers, got {type(error).__name__}: {str(error)[:200]}; "
                "it is damaged, or of other writers"
            ) from None
        if self._callback() is not None and state.get("callback") is not None:
            self._callback().restore_from_checkpoint(state["callback"])
        self.minibatch_size.restore_from_checkpoint(state.get("minibatch_size"))
        self._stopped = bool(state["stopped"])
        for action in self._actions:
            action.units = self._units(action.unit)
            action.index = action.units // action.count
        return state.get("external", {})

    def _restore(self) -> int:
        """Goes to the newest checkpoint where there is one and the config says so; samples trained on in the checkpoint, else 0."""
        name = self.checkpoint.filename
        if name is None or not self.checkpoint.restore:
            return 0
        found = newest_checkpoint(name)
        if found is None:
            return 0
        self.restore_from_checkpoint(found)
        if self._ranks.rank() == 0:
            clear_leftovers(found)
        return self._seen()


def by_input(batch: Mapping[Any, Any], streams: Mapping[Any, Any]) -> dict[Any, Any]:
    """A source's minibatch by the inputs that its streams feed; ValueError for a stream that it has not."""
    if not batch:
        return {}
    try:
        return {v: batch[stream] for v, stream in streams.items()}
    except (KeyError, TypeError):
        names = ", ".join(str(getattr(s, "name", s)) for s in batch)
        lost = next(str(getattr(s, "name", s)) for s in streams.values() if s not in list(batch))
        raise ValueError(f"{PLACE}: expected streams of the source ({names}), got '{lost}'") from None


def _read(source: Any, size: int, streams: Mapping[Any, Any], workers: int, rank: int) -> dict[Any, Any]:
    """The next minibatch by input; {} at the end. One rank alone passes over minibatches all of whose sequences were left out."""
    while True:
        batch = by_input(source.get_next_minibatch(size, workers, rank), streams)
        if workers > 1 or not batch or any(getattr(data, "num_samples", 1) for data in batch.values()):
            return batch


def _goes_on(result: Any) -> bool:
    """What a callback says: one without a result does not end the training."""
    return result is None or bool(result)


def newest_checkpoint(filename: str | os.PathLike) -> pathlib.Path | None:
    """Of filename, filename0, filename1, ... the checkpoint with most samples; None where there is none."""
    path = pathlib.Path(filename)
    best: tuple[int, int] | None = None
    found = None
    for file in [path, *(path.parent.iterdir() if path.parent.is_dir() else ())]:
        number = file.name[len(path.name) :] if file.name.startswith(path.name) else "x"
        if (number and not number.isdigit()) or not file.is_file():
            continue
        key = (_samples(file), -1 if number else 0)  # of two with as many the one without a number
        if best is None or key > best:
            best, found = key, file
    return found


def _samples(path: pathlib.Path) -> int:
    """Samples that a checkpoint was trained on; -1 for a file that cannot be read, which is left to `restore_from_checkpoint`."""
    try:
        with safetensors.safe_open(path.with_name(f"{path.name}.ckp"), "np") as file:
            return int(json.loads(file.metadata()["state"])["external"]["samples"])
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return -1


def training_session(
    trainer: Trainer,
    mb_source: Any,
    mb_size: Any,
    model_inputs_to_streams: Mapping[Any, Any],
    progress_frequency: Any = None,
    max_samples: int | None = None,
    checkpoint_config: CheckpointConfig | None = None,
    cv_config: CrossValidationConfig | None = None,
    test_config: TestConfig | None = None,
) -> TrainingSession:
    """A session that trains `trainer` on `mb_source`; run it with `.train()`.

    mb_size: samples of a minibatch, or minibatch_size_schedule(...). model_inputs_to_streams: {input: stream of the source}.
    progress_frequency: samples, or (count, DataUnit), between two summaries by the progress writers; None: one at the end, 0: none.
    max_samples: when to end; None: at the end of the source. Raises ValueError, TypeError, FileNotFoundError.
    """
    return TrainingSession(
        trainer,
        mb_source,
        mb_size,
        model_inputs_to_streams,
        max_samples,
        progress_frequency,
        checkpoint_config,
        cv_config,
        test_config,
    )
