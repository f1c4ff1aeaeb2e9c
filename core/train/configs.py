"""What a training session is told besides trainer and data: how often things happen, where checkpoints lie, what is tested."""

from __future__ import annotations

import enum
import numbers
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from cogkit.learners.schedules import TrainingParameterSchedule
from cogkit.train.arrays import ArraySource

__all__ = [
    "CheckpointConfig",
    "CrossValidationConfig",
    "DataUnit",
    "MinibatchSizeSchedule",
    "TestConfig",
    "minibatch_size_schedule",
]

UNLIMITED = 2**64 - 1  # samples


class DataUnit(enum.Enum):
    """What a frequency counts."""

    sweep = 0
    sample = 1
    minibatch = 2


class MinibatchSizeSchedule(TrainingParameterSchedule):
    """Minibatch sizes, in samples, over a count of samples."""

    __slots__ = ()

    def __getitem__(self, count: int) -> int:
        """The size after `count` samples; the last one holds for ever."""
        return int(super().__getitem__(count))

    def get_checkpoint_state(self) -> Any:
        """What a session keeps of it: nothing, where sizes depend on the count alone."""
        return None

    def restore_from_checkpoint(self, state: Any) -> None:
        """Takes what `get_checkpoint_state` gave."""


def minibatch_size_schedule(schedule: Any, epoch_size: int = 1) -> MinibatchSizeSchedule:
    """A minibatch size, or a list of sizes or (count, size) pairs, each for `epoch_size` samples or count times that; the last one stays.

    Raises ValueError for an empty list, a size below 1 or one that is not whole.
    """
    if isinstance(schedule, MinibatchSizeSchedule):
        return schedule
    steps = schedule if isinstance(schedule, (list, tuple)) else [schedule]
    pairs = [step if isinstance(step, (list, tuple)) else (1, step) for step in steps]
    for pair in pairs:
        if len(pair) != 2 or not all(_is_whole(part) and part >= 1 for part in pair):
            raise ValueError(f"minibatch_size_schedule: expected sizes, or (count, size) pairs, of at least 1, got {schedule!r}")
    return MinibatchSizeSchedule([(int(count), int(size)) for count, size in pairs], epoch_size)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def frequency_of(value: Any, what: str) -> tuple[int, DataUnit] | None:
    """(count, unit) of a frequency: samples, or a pair; None: at the end alone (UNLIMITED); 0: never (None)."""
    if value is None:
        return UNLIMITED, DataUnit.sample
    count, unit = value if isinstance(value, tuple) and len(value) == 2 else (value, DataUnit.sample)
    if not _is_whole(count) or count < 0 or not isinstance(unit, DataUnit):
        raise ValueError(
            f"{what}: expected a frequency of 0 or more samples, or (count, DataUnit), got {value!r}; "
            "write C.train.DataUnit.minibatch or sweep for other units"
        )
    return (int(count), unit) if count else None


def samples_of(value: Any, what: str) -> int:
    """A limit of samples, UNLIMITED for None; ValueError below 1."""
    if value is None:
        return UNLIMITED
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: expected a whole number of samples as max_samples, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{what}: expected max_samples of at least 1, got {value!r}; leave it out for no limit")
    return number


def source_of(value: Any, criterion: Any, streams: Any, what: str) -> tuple[Any, Any]:
    """(source, {variable: stream}) of a minibatch source, or of a tuple of arrays in the order of the criterion's arguments."""
    if hasattr(value, "get_next_minibatch"):
        return value, streams
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{what}: expected a minibatch source, or a tuple of arrays, got {type(value).__name__}")
    if criterion is None:
        raise ValueError(f"{what}: expected a criterion with arrays, got none; pass criterion=(the function that is trained)")
    if streams is not None:
        raise ValueError(
            f"{what}: expected no streams with arrays, which are in the order of the criterion's arguments; leave them out"
        )
    source = ArraySource(criterion.arguments, value, what, sweeps=1)
    return source, source.streams


def size_of(value: Any, what: str) -> MinibatchSizeSchedule:
    """A schedule of minibatch sizes; TypeError for another thing, ValueError for a size below 1."""
    if isinstance(value, MinibatchSizeSchedule):
        return value
    if not _is_whole(value):
        raise TypeError(
            f"{what}: expected a whole number or C.minibatch_size_schedule(...) as minibatch size, got {type(value).__name__}"
        )
    return minibatch_size_schedule(value)


class CheckpointConfig:
    """Where and how often a session saves everything that it needs to go on.

    filename: the model of the checkpoint, its state beside it as filename.ckp (`cogkit.train.checkpoint`). frequency: samples, or
    (count, DataUnit); None: at the end alone, 0: never. restore: whether training goes on at the newest checkpoint that is there.
    preserve_all: whether each is kept, as filename0, filename1, ..., and the last one as filename; else one is, filename.
    Raises ValueError for a frequency without a filename.
    """

    def __init__(
        self, filename: str | os.PathLike | None, frequency: Any = None, restore: bool = True, preserve_all: bool = False
    ):
        if filename is None or not os.fspath(filename):
            if frequency is not None:
                raise ValueError("CheckpointConfig: expected a filename with a frequency, got none; say where checkpoints lie")
            self.filename: str | None = None
        else:
            self.filename = os.fspath(filename)
        self.frequency = frequency_of(frequency, "CheckpointConfig") if self.filename else None
        self.restore, self.preserve_all = bool(restore), bool(preserve_all)


class CrossValidationConfig:
    """What is tested while training goes on, and who is told.

    minibatch_source: a source, or a tuple of arrays in the order of the arguments of `criterion`; None: the callback alone is called.
    frequency: samples, or (count, DataUnit); None: at the end alone, 0: never. callback(index, average_error, samples, minibatches):
    False ends the training. A callback that has `get_checkpoint_state` and `restore_from_checkpoint` is part of checkpoints.
    max_samples: samples of each test. source, mb_size: CNTK's older names.
    """

    def __init__(
        self,
        minibatch_source: Any = None,
        frequency: Any = None,
        minibatch_size: Any = 32,
        callback: Callable[[int, float, int, int], bool] | None = None,
        max_samples: int | None = None,
        model_inputs_to_streams: Mapping[Any, Any] | None = None,
        criterion: Any = None,
        source: Any = None,
        mb_size: Any = None,
    ):
        what = "CrossValidationConfig"
        given = minibatch_source if source is None else source
        self.frequency = frequency_of(frequency, what)
        if callback is not None and not callable(callback):
            raise TypeError(f"{what}: expected a function as callback, got {type(callback).__name__}")
        self.callback = callback
        self.minibatch_size = size_of(minibatch_size if mb_size is None else mb_size, what)
        self.max_samples = samples_of(max_samples, what)
        self.source, self.streams = None, model_inputs_to_streams
        if given is not None:
            self.source, self.streams = source_of(given, criterion, model_inputs_to_streams, what)


class TestConfig:
    """What is tested when training has ended; arguments as those of `CrossValidationConfig`."""

    __test__ = False  # no test of pytest's

    def __init__(
        self,
        minibatch_source: Any = None,
        minibatch_size: Any = 32,
        model_inputs_to_streams: Mapping[Any, Any] | None = None,
        criterion: Any = None,
        source: Any = None,
        mb_size: Any = None,
    ):
        what = "TestConfig"
        given = minibatch_source if source is None else source
        if given is None:
            raise ValueError(f"{what}: expected a minibatch source, got none; leave the config out for no test")
        self.minibatch_size = size_of(minibatch_size if mb_size is None else mb_size, what)
        self.max_samples = UNLIMITED
        self.source, self.streams = source_of(given, criterion, model_inputs_to_streams, what)
