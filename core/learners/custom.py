"""Learners of the user's own: a graph (`universal`), or a class in Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit import ops
from cogkit.engine.arrays import NDArrayView
from cogkit.engine.executable import Executable
from cogkit.functions import Function
from cogkit.learners.learner import Learner, program
from cogkit.learners.schedules import ScheduleLike
from cogkit.ops.randomness import SentinelValueForAutoSelectRandomSeed, purpose_of
from cogkit.variables import Parameter

__all__ = ["UserLearner"]


class UniversalLearner(Learner):
    """A learner whose whole update is the user's graph."""

    kind = "universal"

    def __init__(self, update_func: Callable[[list[Parameter], list[Any]], Any], parameters: Sequence[Parameter]):
        super().__init__(parameters, 1.0)
        names = [p for p in inspect.signature(update_func).parameters.values() if p.default is p.empty and p.kind in (0, 1)]
        if len(names) != 2:
            raise ValueError(f"universal: expected a function of (parameters, gradients), got one of {len(names)} arguments")
        made = update_func(list(self.parameters), list(self._constants().values()))
        self._function = made if isinstance(made, Function) else ops.combine(made)
        self._seed = purpose_of(SentinelValueForAutoSelectRandomSeed)  # two learners inject different noise
        self._program: Executable | None = None

    def update(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool = False) -> bool:
        """Runs the user's graph on these gradients; see `Learner.update`."""
        self._take(gradient_values)
        if self._program is None:
            self._program = program([self._function])
        self._program.run({}, step=self._minibatches)
        self._count(training_sample_count, is_sweep_end)
        return True

    def _state_variables(self) -> list[Any]:
        own = {id(v) for v in (*self.parameters, *self._gradient_constants.values())}
        leaves = [v for v in self._function.inputs if v.is_constant or v.is_parameter]
        return [v for v in leaves if v.assigned and id(v) not in own]

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        return [(f"{i}.{v.name}", v.data) for i, v in enumerate(self._state_variables())]

    def create_checkpoint(self) -> dict[str, Any]:
        """Its counts, and the values of whatever its graph reads beside the parameters."""
        made = super().create_checkpoint()
        made["numbers"]["seed"] = self._seed
        return made

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        self._seed = int(numbers["seed"])


class UserLearner(Learner):
    """Base of learners written in Python: a class gives `update(gradient_values, training_sample_count, sweep_end)`.

    as_numpy: gradients come as arrays, else as `NDArrayView`s; copies, which may be kept. What belongs to the learner besides the counts and
    the learning rate is stored in checkpoints where `state` names it. Departure: samples, minibatches and sweeps are counted, so that a
    schedule of the learning rate goes on; in CNTK such a learner stays at the beginning of it.
    """

    kind = "user learner"

    def __init__(self, parameters: Sequence[Parameter], lr_schedule: ScheduleLike, as_numpy: bool = True):
        super().__init__(parameters, lr_schedule)
        self.as_numpy = as_numpy

    def train(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool) -> bool:
        """What a trainer calls: the class's `update`, with the counts kept."""
        self._report("learning rate", self.learning_rate())
        given: dict[Parameter, Any] = {p: np.array(gradient_values[p]).reshape(p.shape) for p in self.parameters}
        if not self.as_numpy:
            given = {p: NDArrayView.from_dense(g) for p, g in given.items()}
        more = self.update(given, training_sample_count, is_sweep_end)
        if not isinstance(more, (bool, np.bool_)):
            raise TypeError(f"{type(self).__name__}: expected update to give whether learning goes on, got {more!r}")
        self._count(training_sample_count, is_sweep_end)
        return bool(more)

    def update(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, sweep_end: bool = False) -> bool:
        """Changes the parameters; gives False when learning has come to its end.

        gradient_values: parameter -> gradient summed over the minibatch.
        """
        raise NotImplementedError("UserLearner: expected a class of yours that has update(gradients, samples, sweep_end)")

    def state(self) -> dict[str, np.ndarray]:
        """Arrays of its own that belong into checkpoints, by name; they are read and written in place."""
        return {}

    def _describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "class": type(self).__name__}

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        return list(self.state().items())
