"""Learners: what changes parameters from their gradients, with schedules, state and counts.

A `GraphLearner` writes its rule as a graph over (parameter, gradient, state, 0-d numbers) for every parameter, combines them
and runs them as one plan: nothing of a rule is baked in that changes from minibatch to minibatch.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from cogkit import ops
from cogkit.engine.executable import Executable
from cogkit.engine.sparse import RowSparse
from cogkit.errors import ModelFileError
from cogkit.functions import Function, apply
from cogkit.learners.schedules import IGNORE, ScheduleLike, TrainingParameterSchedule, learning_parameter_schedule
from cogkit.op import FLOATS
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed, purpose_of
from cogkit.residence import bring, replacing
from cogkit.variables import Constant, Parameter

__all__ = ["Learner"]


@dataclasses.dataclass
class Options:
    """What all rules share: regularisation, noise, clipping."""

    l1_regularization_weight: float = 0.0
    l2_regularization_weight: float = 0.0
    gaussian_noise_injection_std_dev: Any = 0.0  # as given; a schedule of the learner's own after `among`
    gradient_clipping_threshold_per_sample: float = math.inf
    gradient_clipping_with_truncation: bool = True

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> Options:
        """The options among a function's arguments; ValueError for a negative weight or a threshold that is not above 0."""
        made = cls(**{f.name: arguments[f.name] for f in dataclasses.fields(cls)})
        for name in ("l1_regularization_weight", "l2_regularization_weight"):
            if not 0 <= getattr(made, name) < math.inf:
                raise ValueError(f"learner: expected {name} of 0 or more, got {getattr(made, name)!r}")
        if not made.gradient_clipping_threshold_per_sample > 0:
            raise ValueError(
                "learner: expected gradient_clipping_threshold_per_sample above 0, got "
                f"{made.gradient_clipping_threshold_per_sample!r}; leave it out for no clipping"
            )
        noise = learning_parameter_schedule(made.gaussian_noise_injection_std_dev)
        made.gaussian_noise_injection_std_dev = noise.copy()
        return made


def schedule_for(value: ScheduleLike, minibatch_size: int | None, epoch_size: int | None, what: str) -> TrainingParameterSchedule:
    """A learner's own copy of a schedule; its reference size is its own where given, else the learner's.

    Departure: CNTK writes the learner's size into the shared schedule, so that a second learner with it would see the first's.
    """
    if not isinstance(value, (TrainingParameterSchedule, int, float, np.integer, np.floating, list)) or isinstance(value, bool):
        raise ValueError(f"learner: expected a number, a list or a schedule as {what}, got {type(value).__name__}")
    made = learning_parameter_schedule(value, None, epoch_size if isinstance(value, list) else None).copy()
    if not made.is_minibatch_size_explicitly_specified and minibatch_size is not None:
        made.minibatch_size = minibatch_size
    return made


class Learner:
    """Base of all learners: parameters, the schedule of the learning rate, counts of what was seen."""

    ignored_minibatch_size = IGNORE
    kind = "learner"

    def __init__(self, parameters: Sequence[Parameter], lr_schedule: ScheduleLike, minibatch_size: int | None = None):
        if isinstance(parameters, Parameter):
            raise TypeError(f"{self.kind}: expected a list of parameters, got one parameter; wrap it in a list")
        self.parameters: tuple[Parameter, ...] = tuple(parameters)
        if not self.parameters:
            raise ValueError(f"{self.kind}: expected at least one parameter, got an empty list; pass model.parameters")
        for p in self.parameters:
            if not isinstance(p, Parameter):
                raise TypeError(f"{self.kind}: expected parameters, got {p!r}; pass model.parameters")
            if np.dtype(p.dtype) not in FLOATS:
                raise TypeError(
                    f"{self.kind}: expected parameters of float16, float32 or float64, got {p!r} of {np.dtype(p.dtype).name};"
                    " whole numbers are not learned"
                )
        if len({id(p) for p in self.parameters}) != len(self.parameters):
            raise ValueError(f"{self.kind}: expected each parameter once, got one twice")
        if minibatch_size is not None and (int(minibatch_size) != minibatch_size or minibatch_size < 0):
            raise ValueError(f"{self.kind}: expected minibatch_size of at least 1, or IGNORE, got {minibatch_size!r}")
        self._minibatch_size = minibatch_size
        self._learning_rate_schedule = schedule_for(lr_schedule, minibatch_size, None, "learning rate")
        self._samples = self._minibatches = self._sweeps = 0
        self._writers: list[Any] = []
        self._written: dict[str, float] = {}
        self._gradients: dict[Parameter, Any] | None = None
        self._gradient_constants: dict[Parameter, Constant] = {}

    # what it is ----------------------------------------------------------------------------------------------------

    @property
    def minibatch_size(self) -> int:
        """The minibatch size that its numbers are meant for; IGNORE when it was not said."""
        return IGNORE if self._minibatch_size is None else self._minibatch_size

    @minibatch_size.setter
    def minibatch_size(self, value: int) -> None:
        self._minibatch_size = int(value)
        self._recompile()

    @property
    def is_minibatch_size_explicitly_specified(self) -> bool:
        """Whether the learner was told a minibatch size (IGNORE counts)."""
        return self._minibatch_size is not None

    def is_compatible_mode(self) -> bool:
        """Whether it takes mean gradients and scales nothing: it was told the minibatch size IGNORE."""
        return self._minibatch_size == IGNORE

    def _recompile(self) -> None:
        pass

    def total_number_of_samples_seen(self) -> int:
        """Samples in all updates."""
        return self._samples

    def samples_begun(self) -> int:
        """Samples in all updates, and about those that ranks have trained on since they last told each other."""
        return self.total_number_of_samples_seen()

    def total_number_of_minibatches_seen(self) -> int:
        """Updates."""
        return self._minibatches

    def total_number_of_sweeps_seen(self) -> int:
        """Sweeps over the data that have ended."""
        return self._sweeps

    # schedules -----------------------------------------------------------------------------------------------------

    def _now(self, schedule: TrainingParameterSchedule) -> float:
        return schedule[self._sweeps if schedule.epoch_size is None else self._samples]

    def learning_rate(self) -> float:
        """The value of the learning rate's schedule for the next minibatch."""
        return self._now(self._learning_rate_schedule)

    def reset_learning_rate(self, learning_rate: ScheduleLike) -> None:
        """A new schedule whose count begins at the present position."""
        new = schedule_for(learning_rate, self._minibatch_size or None, None, "learning rate")
        self._learning_rate_schedule = new.shifted(self._sweeps if new.is_sweep_based else self._samples)

    def add_progress_writers(self, writers: Sequence[Any]) -> None:
        """Progress writers that are told when a rate or momentum changes."""
        self._writers.extend(writers)

    def _report(self, key: str, value: float) -> None:
        if self._writers and self._written.get(key) != value:
            self._written[key] = value
            for writer in self._writers:
                writer.write(key, value)

    # updates -------------------------------------------------------------------------------------------------------

    @property
    def gradients(self) -> dict[Parameter, Any]:
        """Its buffers for gradients, one a parameter; `update` reads them in place when it is given this very dict."""
        if self._gradients is None:
            self._gradients = {p: c.data for p, c in self._constants().items()}
        return self._gradients

    def _constants(self) -> dict[Parameter, Constant]:
        """What stands for the gradients in graphs; their arrays are made when one is asked for."""
        if not self._gradient_constants:
            for p in self.parameters:
                if any(n < 0 for n in p.shape):
                    raise ValueError(
                        f"{self.kind}: expected parameters of known shapes, got {p!r}; apply the model to an input first"
                    )
            # constants, so that plans read them where they lie; named, so that none is taken for a number of the graph's text
            self._gradient_constants = {p: Constant(_zeros, p.shape, p.dtype, name="grad") for p in self.parameters}
        return self._gradient_constants

    def takes_rows(self, p: Parameter) -> bool:
        """Whether the gradient of a parameter may come as a list of its rows, `RowSparse`, its other rows being 0."""
        return False

    def _take(self, gradient_values: Mapping[Parameter, Any]) -> None:
        """Copies gradients into the buffers, except those that are the buffers."""
        own = self.gradients
        if gradient_values is own:
            return
        for p, buffer in own.items():
            if p not in gradient_values:
                raise ValueError(f"{self.kind}: expected a gradient for every parameter, got none for {p!r}")
            g = gradient_values[p]
            if isinstance(buffer, RowSparse):
                buffer.point_to(g)
            elif g is not buffer:
                g = np.asarray(g.asarray() if hasattr(g, "asarray") else g)
                if g.size != buffer.size:
                    raise ValueError(f"{self.kind}: expected a gradient of shape {p.shape} for {p!r}, got {g.shape}")
                bring(buffer, True)[...] = bring(g).reshape(buffer.shape)

    def update(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool = False) -> bool:
        """Changes the parameters; returns False when learning has come to its end.

        gradient_values: parameter -> gradient summed over the minibatch; training_sample_count: its samples, at least 1.
        """
        raise NotImplementedError

    def train(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool) -> bool:
        """What a trainer calls: `update`, with the counts kept."""
        return self.update(gradient_values, training_sample_count, is_sweep_end)

    def use_buffers(self, gradients: dict[Parameter, Any]) -> None:
        """Takes arrays that gradients will always come in, so that they are read in place; `update` still copies others.

        gradients: aligned, contiguous arrays of each parameter's own shape and type, or lists of rows where `takes_rows`.
        """
        self._recompile()
        for p, constant in self._constants().items():
            constant._data = gradients[p]
            constant.row_sparse = isinstance(gradients[p], RowSparse)
        self._gradients = gradients  # this very dict: `update` knows it by identity

    def _count(self, n: int, is_sweep_end: bool) -> None:
        self._samples += n
        self._minibatches += 1
        if is_sweep_end:
            self._sweeps += 1

    def count_as(self, samples: int, minibatches: int, sweeps: int) -> None:
        """Sets its counts, by which its schedules go: to what all ranks have seen that train together."""
        self._samples, self._minibatches, self._sweeps = samples, minibatches, sweeps

    def settle(self) -> None:
        """Called by all ranks before they do something together, a checkpoint or a test: brings those that train apart to one model."""

    def reset_smoothed_gradients(self) -> None:
        """Puts the state of the rule back to its beginning."""

    # checkpoints ---------------------------------------------------------------------------------------------------

    def behind(self) -> list[tuple[int, Any, tuple]]:
        """(parameter, update, its state) where rows are still to be brought up to date: writing a checkpoint must change no later bit."""
        return [(i, p.lags[-1], p.lags[-1].state()) for i, p in enumerate(self.parameters) if p.lags]

    def put_back(self, behind: list[tuple[int, Any, tuple]]) -> None:
        """Undoes what reading parameters has brought up to date since `behind`."""
        for _, lag, state in behind:
            lag.take(*state)

    def _describe(self) -> dict[str, Any]:
        """What must be the same in a checkpoint and in the learner that takes it."""
        return {"kind": self.kind}

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        """Name and live array of each state tensor."""
        return []

    def create_checkpoint(self) -> dict[str, Any]:
        """Its state: plain numbers under "numbers", copies of its arrays under "arrays"."""
        numbers = {
            "describe": self._describe(),
            "parameters": [{"name": p.name, "shape": list(p.shape), "dtype": np.dtype(p.dtype).name} for p in self.parameters],
            "samples": self._samples,
            "minibatches": self._minibatches,
            "sweeps": self._sweeps,
            "minibatch_size": self._minibatch_size,
            "learning_rate": self._learning_rate_schedule.to_dict(),
        }
        arrays = {}
        for i, _, (states, last, updates) in self.behind():
            arrays |= {f"behind{i}/{k}": a for k, a in enumerate(states)} | {
                f"behind{i}/last": last.astype(np.float64),
                f"behind{i}/updates": updates,
            }
        return {"numbers": numbers, "arrays": arrays | {name: array.copy() for name, array in self._arrays()}}

    def check_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Raises ModelFileError naming the first difference when `state` is of another learner; changes nothing."""
        numbers, arrays = state["numbers"], state["arrays"]
        for key, value in self._describe().items():
            found = numbers["describe"].get(key)
            if found != value:
                raise ModelFileError(
                    f"checkpoint: expected a learner with {key} {value!r}, got {found!r}; it is of another learner"
                )
        stored = numbers["parameters"]
        if len(stored) != len(self.parameters):
            raise ModelFileError(f"checkpoint: expected {len(self.parameters)} parameters of the {self.kind}, got {len(stored)}")
        for p, s in zip(self.parameters, stored, strict=True):
            found = (s["name"], tuple(s["shape"]), s["dtype"])
            if found != (p.name, p.shape, np.dtype(p.dtype).name):
                raise ModelFileError(f"checkpoint: expected the state of {p!r}, got that of {found}; it is of another model")
        for name, array in self._arrays():
            if name not in arrays or arrays[name].shape != array.shape or arrays[name].dtype != array.dtype:
                raise ModelFileError(
                    f"checkpoint: expected the learner's state '{name}' of shape {array.shape}, got another or none"
                )
        for i, p in enumerate(self.parameters):
            behind = self._behind_of(i, arrays)
            if behind is None:
                continue
            states, last, updates = behind
            right = last.shape == p.shape[:1] and updates.ndim == 1 and updates.size % 15 == 6 and len(states) > 1
            if (
                not right
                or any(a.shape != p.shape for a in states)
                or not 0 <= last.min(initial=0) <= last.max(initial=0) <= updates.size // 15
            ):
                raise ModelFileError(f"checkpoint: expected rows of {p!r} that are behind, got those of another parameter")

    def restore_from_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes the state that `create_checkpoint` gave; ModelFileError when it is of another learner, which changes nothing."""
        try:
            self.check_checkpoint(checkpoint)
            numbers = checkpoint["numbers"]
            rate = TrainingParameterSchedule.from_dict(numbers["learning_rate"])
            counts = [int(numbers[key]) for key in ("samples", "minibatches", "sweeps")]
            size = numbers["minibatch_size"]
            self._restore(numbers)
        except ModelFileError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"checkpoint: expected the state of a learner, got {type(error).__name__}: {error}") from None
        self._samples, self._minibatches, self._sweeps = counts
        self._learning_rate_schedule = rate
        if size != self._minibatch_size:
            self._minibatch_size = size
            self._recompile()
        with replacing():
            for name, array in self._arrays():
                array[...] = checkpoint["arrays"][name]
        for i, p in enumerate(self.parameters):
            p.behind = self._behind_of(i, checkpoint["arrays"])

    @staticmethod
    def _behind_of(i: int, arrays: Mapping[str, np.ndarray]) -> tuple | None:
        """What `behind` was of a parameter."""
        if f"behind{i}/last" not in arrays:
            return None
        states = [arrays[f"behind{i}/{k}"] for k in range(3) if f"behind{i}/{k}" in arrays]
        return states, arrays[f"behind{i}/last"], arrays[f"behind{i}/updates"]

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        """Takes the numbers of a derived class."""


def _zeros(shape: tuple[int, ...], dtype: Any) -> float:
    return 0.0


def _working(p: Parameter) -> type:
    """The element type in which the update of a parameter is computed."""
    return np.float32 if p.dtype == np.float16 else p.dtype


def program(updates: Sequence[Function]) -> Executable:
    """The assignments of these functions as one executable without feeds."""
    return Executable(effects_of=[v for f in updates for v in f.outputs], training=True)


class Rule:
    """How one parameter changes. `step` writes it as a graph; `numbers` computes what changes with the minibatch."""

    states: dict[str, float] = {}  # state tensors of the parameter's shape, with what they begin with
    momenta: tuple[str, ...] = ()  # schedules beside the learning rate
    counters: dict[str, Any] = {}  # numbers that go on from update to update
    of_rows = ""  # the rule of `update_rows` that does the same by a list of rows, where there is one
    row_numbers: tuple[str, ...] = ("eta",)  # its numbers
    average = False  # whether the multipliers of all rows count
    epsilon = rho = 0.0

    def __init__(self, unit_gain: bool = True):
        self.unit_gain = unit_gain
        self.counted = dict(self.counters)

    def gain(self, m: float) -> float:
        """u of the formulas."""
        return 1 - m if self.unit_gain else 1.0

    def numbers(self, n: int, eta: float, *momenta: float) -> dict[str, float]:
        """The 0-d inputs of `step` for a minibatch of n samples."""
        return {"eta": eta}

    def step(self, w: Any, g: Any, s: SimpleNamespace, x: SimpleNamespace) -> tuple[Any, dict[str, Any]]:
        """(new w, {state: new state}) as functions; s has the states, x the numbers."""
        raise NotImplementedError


class GraphLearner(Learner):
    """A learner whose rule is a graph, lowered once for all its parameters.

    Parameters of half precision are updated in float32. master_weights: whether their unrounded values are kept; to be set before the
    first update.
    """

    master_weights = True

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Parameter],
        lr: TrainingParameterSchedule,
        momenta: Sequence[TrainingParameterSchedule],
        options: Options,
        minibatch_size: int | None,
    ):
        self.kind = type(rule).__name__.lower()
        super().__init__(parameters, lr, minibatch_size)
        self.rule, self.options = rule, options
        self._momenta = list(momenta)
        for schedule, name in zip(self._momenta, rule.momenta, strict=True):
            if not all(0 <= value <= 1 for value in schedule.to_dict()["values"]):
                raise ValueError(f"{self.kind}: expected {name} within 0 and 1, got {schedule}")
        self._seed = purpose_of(SentinelValueForAutoSelectRandomSeed)  # two learners inject different noise
        self._states: dict[Parameter, dict[str, Constant]] | None = None
        self._masters: dict[Parameter, Constant] | None = None
        self._program: Executable | None = None

    def over(self, parameters: Sequence[Parameter]) -> GraphLearner:
        """A learner of other parameters with this one's rule, schedules and options, and with state and counts from the beginning."""
        options = dataclasses.replace(
            self.options, gaussian_noise_injection_std_dev=self.options.gaussian_noise_injection_std_dev.copy()
        )
        momenta = [schedule.copy() for schedule in self._momenta]
        rule = copy.deepcopy(self.rule)
        rule.counted = dict(rule.counters)
        return GraphLearner(rule, parameters, self._learning_rate_schedule.copy(), momenta, options, self._minibatch_size)

    @property
    def states(self) -> dict[Parameter, dict[str, Constant]]:
        """The state tensors of each parameter, made at first use; float32 for one of half precision."""
        if self._states is None:
            self._states = {
                p: {name: self._tensor(p, name, begin) for name, begin in self.rule.states.items()} for p in self._constants()
            }
        return self._states

    def _tensor(self, p: Parameter, name: str, begin: float) -> Constant:
        return Constant(np.full(p.shape, begin, _working(p)), p.shape, _working(p), name=f"{p.name or 'w'}.{name}")

    @property
    def masters(self) -> dict[Parameter, Constant]:
        """With `master_weights`, what parameters of half precision would be in float32: small changes add up there."""
        if self._masters is None:
            kept = [p for p in self._constants() if self.master_weights and p.dtype == np.float16]
            self._masters = {p: self._tensor(p, "master", 0.0) for p in kept}
        return self._masters

    def takes_rows(self, p: Parameter) -> bool:
        """Where there is such a rule, and no option changes rows whose gradient is 0: weight decay, shrinkage, noise."""
        o = self.options
        all_rows = o.l1_regularization_weight or o.l2_regularization_weight or not o.gaussian_noise_injection_std_dev.is_over(0)
        return bool(self.rule.of_rows) and not all_rows and len(p.shape) > 0 and p.dtype != np.float16

    # updates -------------------------------------------------------------------------------------------------------

    def _rate(self, n: int) -> float:
        """eta: the learning rate for the gradient of a minibatch of n samples."""
        value, size = self.learning_rate(), self._learning_rate_schedule.minibatch_size
        if self.is_compatible_mode():
            return value * n / size if size else value
        return value / (size or n)

    def _momentum(self, schedule: TrainingParameterSchedule, n: int) -> float:
        value = self._now(schedule)
        return value ** (n / schedule.minibatch_size) if schedule.minibatch_size else value

    def _numbers(self, n: int) -> dict[str, float]:
        """All 0-d inputs of the update graph for a minibatch of n samples."""
        o, eta = self.options, self._rate(n)
        each = 1 if self.is_compatible_mode() else n  # what is "per sample" is so for the whole minibatch's sum
        x = self.rule.numbers(n, eta, *[self._momentum(s, n) for s in self._momenta])
        if self.is_compatible_mode():
            x["scale"] = 1 / n
        if o.gradient_clipping_threshold_per_sample < math.inf:
            x["limit"] = o.gradient_clipping_threshold_per_sample * each
        if o.l2_regularization_weight:
            x["decay"] = o.l2_regularization_weight * each
        if o.l1_regularization_weight:
            x["shrink"] = eta * o.l1_regularization_weight * each
        if not o.gaussian_noise_injection_std_dev.is_over(0):
            x["noise"] = self._now(o.gaussian_noise_injection_std_dev)
        return x

    def _graph(self, i: int, p: Parameter, g: Any, x: SimpleNamespace) -> list[Function]:
        """The assignments that update one parameter."""
        has = vars(x)
        if g.row_sparse:
            limit = has.get("limit", Constant(math.inf, (), p.dtype))
            norm = "limit" in has and not self.options.gradient_clipping_with_truncation
            r = self.rule
            numbers = [*(has[name] for name in r.row_numbers), has.get("scale", Constant(1.0, (), p.dtype)), limit]
            settings: dict[str, Any] = {
                "rule": r.of_rows,
                "average": r.average,
                "norm": norm,
                "epsilon": r.epsilon,
                "decay": r.rho,
            }
            return [apply("update_rows", [p, g, *self.states[p].values(), *numbers], **settings)]
        w: Any = p
        if p.dtype == np.float16:
            g, w = ops.cast(g, np.float32), ops.cast(p, np.float32)
            if p in self.masters:  # unless the parameter has been set meanwhile
                master = self.masters[p]
                w = ops.element_select(ops.equal(ops.cast(ops.cast(master, np.float16), np.float32), w), master, w)
        if "scale" in has:
            g = g * x.scale
        if "limit" in has:
            if self.options.gradient_clipping_with_truncation:
                g = ops.element_max(ops.element_min(g, x.limit), -x.limit)
            else:
                norm = ops.sqrt(ops.reduce_sum(g * g)) if p.shape else ops.abs(g)
                g = g * ops.element_min(x.limit / norm, 1.0)  # a norm of 0 gives infinity, then 1
        if "decay" in has:
            g = g + x.decay * w
        states = self.states[p]
        new, changed = self.rule.step(w, g, SimpleNamespace(**states), x)
        if "noise" in has:
            new = new + x.noise * ops.random_normal(p.shape, _working(p), seed=self._seed << 16 | i)
        if "shrink" in has:
            sign = ops.greater(new, 0.0) - ops.less(new, 0.0)
            new = sign * ops.element_max(ops.abs(new) - x.shrink, 0.0)
        assigned = [ops.assign(states[name], value) for name, value in changed.items()]
        if p in self.masters:
            assigned.append(ops.assign(self.masters[p], new))
        return [*assigned, ops.assign(p, ops.cast(new, np.float16) if p.dtype == np.float16 else new)]

    def _lower(self, names: Sequence[str]) -> None:
        """Builds and lowers the update of all parameters; only 0-d numbers of these names will change."""
        self._scalars: dict[str, list[np.ndarray]] = {name: [] for name in names}
        x_of: dict[Any, SimpleNamespace] = {}
        for dtype in dict.fromkeys(map(_working, self.parameters)):
            x_of[dtype] = x = SimpleNamespace()
            for name in names:
                number = Constant(0.0, (), dtype, name=name)
                setattr(x, name, number)
                self._scalars[name].append(number.data)
        updates = []
        for i, (p, g) in enumerate(self._constants().items()):
            updates += self._graph(i, p, g, x_of[_working(p)])
        self._program = program(updates)

    def _recompile(self) -> None:
        self._program = None

    def update(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool = False) -> bool:
        """One step of the rule on every parameter; see `Learner.update`.

        Departure: at a learning rate of 0 CNTK stops counting samples, so that later values of the schedule never come; here the
        samples count, and False is returned only when all later values are 0 too.
        """
        n = training_sample_count
        if n < 1:
            raise ValueError(f"{self.kind}: expected a minibatch of at least 1 sample, got {n}")
        rate = self.learning_rate()
        self._report("learning rate", rate)
        if rate == 0.0:
            over = self._learning_rate_schedule.is_over(
                self._sweeps if self._learning_rate_schedule.is_sweep_based else self._samples
            )
            self._count(n, is_sweep_end)
            return not over
        if self._writers:
            for name, schedule in zip(self.rule.momenta, self._momenta, strict=True):
                self._report(name, self._now(schedule))
        if gradient_values is not self._gradients:
            self._take(gradient_values)
        numbers = self._numbers(n)
        if self._program is None:
            self._lower(list(numbers))
        for name, value in numbers.items():
            for cell in self._scalars[name]:
                cell[...] = value
        self._program.run({}, step=self._minibatches)
        self._count(n, is_sweep_end)
        return True

    def reset_smoothed_gradients(self) -> None:
        """Puts the state tensors and counters back to their beginning."""
        self.rule.counted = dict(self.rule.counters)
        if any(g.row_sparse for g in self._gradient_constants.values()):
            self._recompile()
        for states in self.states.values():
            for name, tensor in states.items():
                if tensor.shape:
                    tensor.data[...] = self.rule.states[name]  # in place: no plan is looked at again
                else:
                    tensor.value = np.full((), self.rule.states[name], tensor.dtype)

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        settings = {k: v for k, v in vars(self.rule).items() if k != "counted"}
        options = {k: v for k, v in vars(self.options).items() if not isinstance(v, TrainingParameterSchedule)}
        options["gradient_clipping_threshold_per_sample"] = repr(options["gradient_clipping_threshold_per_sample"])
        return {"kind": self.kind, **settings, **options}

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        own = [(f"{i}.{name}", tensor.data) for i, s in enumerate(self.states.values()) for name, tensor in s.items()]
        return own + [(f"{self.parameters.index(p)}.master", tensor.data) for p, tensor in self.masters.items()]

    def create_checkpoint(self) -> dict[str, Any]:
        """Its state: plain numbers under "numbers", copies of its arrays under "arrays"."""
        made = super().create_checkpoint()
        made["numbers"]["momenta"] = [schedule.to_dict() for schedule in self._momenta]
        made["numbers"]["noise"] = self.options.gaussian_noise_injection_std_dev.to_dict()
        made["numbers"]["counted"] = dict(self.rule.counted)
        made["numbers"]["seed"] = self._seed
        return made

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        momenta = [TrainingParameterSchedule.from_dict(s) for s in numbers["momenta"]]
        noise = TrainingParameterSchedule.from_dict(numbers["noise"])
        if len(momenta) != len(self._momenta) or set(numbers["counted"]) != set(self.rule.counted):
            raise ModelFileError("checkpoint: expected the schedules and counters of this learner, got others")
        self._seed = int(numbers["seed"])
        self._momenta, self.options.gaussian_noise_injection_std_dev = momenta, noise
        self.rule.counted = {k: type(self.rule.counters[k])(v) for k, v in numbers["counted"].items()}
        self._recompile()
