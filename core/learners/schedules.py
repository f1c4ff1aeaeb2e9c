"""Training parameters that change while training goes on: rates, momenta, noise.

A schedule is a list of values, each holding for a number of units. A unit is `epoch_size` samples, or one sweep over the
data where no epoch size is given. `minibatch_size` is the reference size that the values were tuned for: IGNORE (0)
means "for whatever minibatch comes", 1 means "per sample".
"""

from __future__ import annotations

import enum
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Union

__all__ = [
    "IGNORE",
    "TrainingParameterSchedule",
    "UnitType",
    "learning_parameter_schedule",
    "learning_parameter_schedule_per_sample",
    "learning_rate_schedule",
    "momentum_as_time_constant_schedule",
    "momentum_schedule",
    "momentum_schedule_per_sample",
    "training_parameter_schedule",
]

IGNORE = 0
"""Reference minibatch size of a value that is meant for a whole minibatch, however large it is."""

ScheduleLike = Union[float, Sequence[Any], "TrainingParameterSchedule"]


class UnitType(enum.Enum):
    """What the values of an older schedule are per: a sample or a minibatch."""

    sample = "sample"
    minibatch = "minibatch"


class TrainingParameterSchedule:
    """Values over a count of samples (or sweeps): `schedule[count]` is the value that holds there.

    steps: (units, value) pairs, units >= 1; epoch_size: samples in a unit, None for one sweep a unit.
    Raises ValueError for an empty list, a unit count below 1 or an epoch size below 1.
    Departure: CNTK takes a unit count of 0 (the value then never holds) and an epoch size of 0 (read as one sweep).
    """

    __slots__ = ("_ends", "_values", "epoch_size", "is_minibatch_size_explicitly_specified", "minibatch_size")

    full_data_sweep = None
    ignored_minibatch_size = IGNORE

    def __init__(self, steps: Sequence[tuple[int, float]], epoch_size: int | None = None, minibatch_size: int | None = None):
        if not steps:
            raise ValueError("schedule: expected at least one value, got an empty list; give a number or a list of values")
        if epoch_size is not None and (isinstance(epoch_size, bool) or int(epoch_size) != epoch_size or epoch_size < 1):
            raise ValueError(
                f"schedule: expected epoch_size of at least 1 sample, got {epoch_size!r}; leave it out to count sweeps"
            )
        if minibatch_size is not None and (int(minibatch_size) != minibatch_size or minibatch_size < 0):
            raise ValueError(f"schedule: expected minibatch_size of at least 1, or IGNORE, got {minibatch_size!r}")
        unit = 1 if epoch_size is None else int(epoch_size)
        self._ends, self._values, total = [], [], 0
        for units, value in steps:
            if int(units) != units or units < 1:
                raise ValueError(f"schedule: expected a count of at least 1 for value {value!r}, got {units!r}; drop that pair")
            total += int(units) * unit
            self._ends.append(total)
            self._values.append(float(value))
        self.epoch_size = None if epoch_size is None else unit
        self.minibatch_size = IGNORE if minibatch_size is None else int(minibatch_size)
        self.is_minibatch_size_explicitly_specified = minibatch_size is not None

    @property
    def is_sweep_based(self) -> bool:
        """Whether the units are sweeps over the data, not samples."""
        return self.epoch_size is None

    @property
    def is_constant(self) -> bool:
        """Whether there is one value only."""
        return len(self._values) == 1

    def __getitem__(self, count: int) -> float:
        """The value after `count` samples (or sweeps); the last value holds for ever."""
        if count < 0:
            raise ValueError(f"schedule: expected a count of samples or sweeps from 0 up, got {count}")
        for end, value in zip(self._ends, self._values, strict=True):
            if count < end:
                return value
        return self._values[-1]

    def is_over(self, count: int) -> bool:
        """Whether every value from `count` on is 0."""
        later = [value for end, value in zip(self._ends, self._values, strict=True) if end > count]
        return not any(later or self._values[-1:])

    def copy(self) -> TrainingParameterSchedule:
        """The same schedule as an object of its own."""
        return self.shifted(0)

    def shifted(self, count: int) -> TrainingParameterSchedule:
        """This schedule begun `count` samples (or sweeps) later: its first value holds until then too."""
        new = object.__new__(TrainingParameterSchedule)
        new._ends = [end + count for end in self._ends]
        new._values = list(self._values)
        new.epoch_size, new.minibatch_size = self.epoch_size, self.minibatch_size
        new.is_minibatch_size_explicitly_specified = self.is_minibatch_size_explicitly_specified
        return new

    def mapped(self, function: Callable[[float], float]) -> TrainingParameterSchedule:
        """The schedule whose values are `function` of these."""
        new = self.copy()
        new._values = [float(function(value)) for value in self._values]
        return new

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a checkpoint."""
        return {
            "ends": list(self._ends),
            "values": list(self._values),
            "epoch_size": self.epoch_size,
            "minibatch_size": self.minibatch_size,
            "explicit": self.is_minibatch_size_explicitly_specified,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TrainingParameterSchedule:
        """What `to_dict` wrote; ValueError where it is not of that form."""
        ends, values, epoch_size = state["ends"], state["values"], state["epoch_size"]
        whole = [*ends, state["minibatch_size"], *([] if epoch_size is None else [epoch_size])]
        if not ends or len(ends) != len(values) or not all(type(n) is int and n >= 0 for n in whole):
            raise ValueError("schedule: its stored form is damaged")
        if sorted(set(ends)) != ends or not all(type(value) in (int, float) for value in values):
            raise ValueError("schedule: its stored form is damaged")
        new = object.__new__(cls)
        new._ends, new._values = list(ends), [float(value) for value in values]
        new.epoch_size, new.minibatch_size = epoch_size, state["minibatch_size"]
        new.is_minibatch_size_explicitly_specified = bool(state["explicit"])
        return new

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainingParameterSchedule) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a learner may set the minibatch size of its own copy

    def __repr__(self) -> str:
        unit = "sweeps" if self.is_sweep_based else "samples"
        pairs = ", ".join(f"{value:g} to {end}" for end, value in zip(self._ends, self._values, strict=True))
        size = "any minibatch" if self.minibatch_size == IGNORE else f"minibatch of {self.minibatch_size}"
        return f"Schedule({pairs if len(self._values) > 1 else format(self._values[0], 'g')}; {unit}; for {size})"


def _build(schedule: ScheduleLike, minibatch_size: int | None, epoch_size: int | None, what: str) -> TrainingParameterSchedule:
    if isinstance(schedule, TrainingParameterSchedule):
        return schedule
    if isinstance(schedule, numbers.Real) and not isinstance(schedule, bool):
        if epoch_size is not None:
            warnings.warn(f"{what}: epoch_size means nothing for a single number and is ignored", RuntimeWarning, stacklevel=3)
        return TrainingParameterSchedule([(1, float(schedule))], None, minibatch_size)
    if isinstance(schedule, list):
        steps = []
        for step in schedule:
            if isinstance(step, numbers.Real):
                steps.append((1, float(step)))
            elif isinstance(step, (tuple, list)) and len(step) == 2 and all(isinstance(part, numbers.Real) for part in step):
                steps.append((step[0], float(step[1])))
            else:
                raise ValueError(f"{what}: expected numbers or (count, value) pairs in the list, got {step!r}")
        return TrainingParameterSchedule(steps, epoch_size, minibatch_size)
    raise ValueError(f"{what}: expected a number or a list of values, got {type(schedule).__name__}; wrap it as a list")


def learning_parameter_schedule(
    schedule: ScheduleLike, minibatch_size: int | None = None, epoch_size: int | None = None
) -> TrainingParameterSchedule:
    """A schedule from a number, a list, or a list of (count, value); a schedule is returned as it is.

    minibatch_size: the size that the values were tuned for, IGNORE when None; epoch_size: samples a unit, a sweep when None.
    """
    return _build(schedule, minibatch_size, epoch_size, "learning_parameter_schedule")


def learning_parameter_schedule_per_sample(schedule: ScheduleLike, epoch_size: int | None = None) -> TrainingParameterSchedule:
    """`learning_parameter_schedule` with values per sample (reference minibatch size 1)."""
    return learning_parameter_schedule(schedule, 1, epoch_size)


def training_parameter_schedule(
    schedule: ScheduleLike, unit: UnitType | str = UnitType.minibatch, epoch_size: int | None = None
) -> TrainingParameterSchedule:
    """The older form: `unit` says whether the values are per sample or per minibatch. ValueError for another unit.

    Departure: CNTK takes the string "sample" as "minibatch"; here it means what it says.
    """
    try:
        unit = UnitType(unit)
    except ValueError:
        raise ValueError(
            f"training_parameter_schedule: expected unit 'sample' or 'minibatch', got {unit!r}; use a member of UnitType"
        ) from None
    built = _build(schedule, 1 if unit is UnitType.sample else IGNORE, epoch_size, "training_parameter_schedule")
    built.is_minibatch_size_explicitly_specified = True
    return built


def learning_rate_schedule(
    lr: ScheduleLike, unit: UnitType | str | None = None, epoch_size: int | None = None, minibatch_size: int | None = None
) -> TrainingParameterSchedule:
    """The older name: with `unit` as `training_parameter_schedule`, with `minibatch_size` as `learning_parameter_schedule`."""
    if unit is not None and minibatch_size is not None:
        raise ValueError("learning_rate_schedule: expected unit or minibatch_size, got both; leave unit out")
    if unit is None:
        return learning_parameter_schedule(lr, minibatch_size, epoch_size)
    return training_parameter_schedule(lr, unit, epoch_size)


def momentum_schedule(
    momentum: ScheduleLike, epoch_size: int | None = None, minibatch_size: int | None = None
) -> TrainingParameterSchedule:
    """A momentum for each `minibatch_size` samples, or for each minibatch whatever its size when None."""
    return learning_parameter_schedule(momentum, minibatch_size, epoch_size)


def momentum_schedule_per_sample(momentum: ScheduleLike, epoch_size: int | None = None) -> TrainingParameterSchedule:
    """A momentum for each sample."""
    return momentum_schedule(momentum, epoch_size, 1)


def momentum_as_time_constant_schedule(momentum: ScheduleLike, epoch_size: int | None = None) -> TrainingParameterSchedule:
    """A momentum as the number of samples after which a gradient counts 1/e: exp(-1 / time constant) for each sample."""
    if isinstance(momentum, TrainingParameterSchedule):
        momentum.is_minibatch_size_explicitly_specified = True
        return momentum
    built = _build(momentum, 1, epoch_size, "momentum_as_time_constant_schedule")
    return built.mapped(lambda t: 0.0 if t == 0 else math.exp(-1.0 / t))
