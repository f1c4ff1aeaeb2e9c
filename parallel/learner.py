"""What all distributed learners share: a local learner that they hold, a world that they train in, checkpoints of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.errors import ModelFileError, RankError
from cogkit.learners import Learner
from cogkit.learners.schedules import ScheduleLike
from cogkit.parallel.communicator import Communicator
from cogkit.parallel.world import current_world
from cogkit.train.ranks import Arrivals, MinibatchInfo
from cogkit.variables import Parameter

__all__ = ["DistributedLearner"]


class DistributedLearner(Learner):
    """A learner that trains with other ranks through the local learner that it holds.

    learner: the rule; it must be a local one. distributed_after: samples after which ranks exchange anything; until then each trains on
    all the data as if it were alone, so that all keep the same model. The world is that of the caller. `update` and `train` are for
    those who drive a learner themselves; a trainer calls `train_distributed`.
    Raises TypeError for what is no local learner, ValueError for a negative `distributed_after`.
    """

    kind = "distributed"
    is_distributed = True
    is_metric_aggregator = False

    def __init__(self, learner: Learner, distributed_after: int = 0):
        if not isinstance(learner, Learner):
            raise TypeError(
                f"{self.kind}: expected a learner, got {type(learner).__name__}; make one with C.sgd(model.parameters, lr)"
            )
        if isinstance(learner, DistributedLearner):
            raise TypeError(
                f"{self.kind}: expected a local learner, got a distributed one ({learner.kind}); one exchange is enough"
            )
        if int(distributed_after) != distributed_after or distributed_after < 0:
            raise ValueError(f"{self.kind}: expected distributed_after of 0 samples or more, got {distributed_after!r}")
        self.local = learner
        self.world = current_world()
        self.distributed_after = int(distributed_after)
        self.calls = 0  # of `train_distributed`
        self.joined = False  # whether exchanges have begun
        self.in_step = False  # whether ranks must exchange in the same minibatches, since they do so for other learners too
        self._has_begun = False
        self._has_computed = False
        self._told = self.world.meter.spent()

    # the local learner's -------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """What it trains."""
        return self.local.parameters

    @property
    def minibatch_size(self) -> int:
        """See `Learner.minibatch_size`."""
        return self.local.minibatch_size

    @minibatch_size.setter
    def minibatch_size(self, value: int) -> None:
        self.local.minibatch_size = value

    @property
    def is_minibatch_size_explicitly_specified(self) -> bool:
        """See `Learner`."""
        return self.local.is_minibatch_size_explicitly_specified

    def is_compatible_mode(self) -> bool:
        """See `Learner.is_compatible_mode`."""
        return self.local.is_compatible_mode()

    def total_number_of_samples_seen(self) -> int:
        """Samples of all ranks."""
        return self.local.total_number_of_samples_seen()

    def total_number_of_minibatches_seen(self) -> int:
        """Updates; what all ranks do at once is one."""
        return self.local.total_number_of_minibatches_seen()

    def total_number_of_sweeps_seen(self) -> int:
        """Sweeps over the data that have ended."""
        return self.local.total_number_of_sweeps_seen()

    def learning_rate(self) -> float:
        """See `Learner.learning_rate`."""
        return self.local.learning_rate()

    def reset_learning_rate(self, learning_rate: ScheduleLike) -> None:
        """See `Learner.reset_learning_rate`."""
        self.local.reset_learning_rate(learning_rate)

    def add_progress_writers(self, writers: Sequence[Any]) -> None:
        """See `Learner.add_progress_writers`."""
        self.local.add_progress_writers(writers)

    @property
    def gradients(self) -> dict[Parameter, Any]:
        """See `Learner.gradients`."""
        return self.local.gradients

    def use_buffers(self, gradients: dict[Parameter, Any]) -> None:
        """Alone as the local learner does; else what that reads comes from all ranks."""
        if self.world.size == 1:
            self.local.use_buffers(gradients)

    def takes_rows(self, p: Parameter) -> bool:
        """Alone as the local learner; ranks sum whole gradients."""
        return self.world.size == 1 and self.local.takes_rows(p)

    def reset_smoothed_gradients(self) -> None:
        """See `Learner.reset_smoothed_gradients`."""
        self.local.reset_smoothed_gradients()

    # ranks ---------------------------------------------------------------------------------------------------------

    def communicator(self) -> Communicator:
        """The ranks it trains with."""
        return Communicator(self.world)

    def set_as_metric_aggregator(self) -> None:
        """Of several learners in a trainer, has this one's sums of loss and metric reported."""
        self.is_metric_aggregator = True

    def parallelization_after(self) -> int:
        """Samples after which ranks exchange anything."""
        return self.distributed_after

    @property
    def is_warm(self) -> bool:
        """Whether ranks exchange by now."""
        return self.world.size > 1 and self.total_number_of_samples_seen() >= self.distributed_after

    def train_distributed(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """One minibatch on all ranks; False on all when none has data any more.

        gradient_values: parameter -> gradient summed over this rank's samples, of which there may be none. info: this rank's sums,
        changed to what is to be reported. Raises RankError when ranks do not train alike, or one does not come.
        """
        world = self.world
        if self.is_warm and not self.joined:
            world.meter.lap("compute")
            self.join()  # before the clock of a virtual rank moves: a training that was taken up again has then the same order of events
            world.meter.lap("wait")
        if info.learner == 0:
            self.has_computed(info.samples)
            self._has_computed = False
        self.calls += 1
        last = info.learner == info.learners - 1
        if not self.is_warm:
            more = info.samples > 0 and self.local.train(gradient_values, info.samples, info.is_sweep_end)
        else:
            self._look_around(info.learners)
            more = self.exchange(gradient_values, info)
        if last:
            world.step = self.calls
            world.meter.steps += 1
        return more

    def has_computed(self, samples: int) -> None:
        """Ends the time in which a minibatch is computed; only the first call for a minibatch does something."""
        if not self._has_computed:
            self.world.meter.lap("compute")
            self.world.computed(samples)
            self.world.meter.lap("compute")
        self._has_computed = True

    def lead(self, learners: Sequence[Learner]) -> Arrivals | None:
        """See `cogkit.train.ranks.DistributedLearner`: most algorithms want gradients when all are there."""
        return None

    def exchange_report(self) -> str:
        """Where the time of this rank went since the last call, in a line for progress output; '' on other ranks than the first."""
        now = self.world.meter.spent()
        told, self._told = now.since(self._told), now
        return f"exchanges: {told.report()}" if self.world.size > 1 and self.world.is_main and told.steps else ""

    def exchange(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """What an algorithm does with a minibatch once ranks exchange; see `train_distributed`."""
        raise NotImplementedError

    def join(self) -> None:
        """Begins to exchange, from the same model on all ranks. Raises RankError that names the ranks whose model is another one."""
        self.joined = True
        self.check_alike([p.data for p in self.parameters])

    def _look_around(self, learners: int) -> None:
        """Finds out whether other learners exchange too: of this trainer, or of one that takes turns with it."""
        self.in_step |= learners > 1 or (self._has_begun and self.world.last is not self)
        self.world.last, self._has_begun = self, True

    def check_alike(self, arrays: Sequence[np.ndarray]) -> None:
        """Raises RankError that names the ranks whose learner is another one, or whose arrays have other bytes than rank 0's."""
        what = [self._describe(), [(p.name, p.shape, np.dtype(p.dtype).name) for p in self.parameters]]
        kinds = hashlib.blake2b(json.dumps(what, default=repr).encode(), digest_size=8)
        values = hashlib.blake2b(digest_size=8)
        for array in arrays:
            values.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        digests = np.frombuffer(kinds.digest() + values.digest(), np.uint64)
        found = self.world.all_gather(digests, "comparison of models")
        for column, name, way in (
            (0, "learner", "all ranks must build the same model and learner"),
            (
                1,
                "values",
                "all ranks must set the same seed before they build it, and train on the same data until distributed_after",
            ),
        ):
            others = [r for r in range(self.world.size) if found[r, column] != found[0, column]]
            if others:
                raise RankError(
                    f"{self.kind}: expected the same model on all ranks, got another {name} on rank {', '.join(map(str, others))} than "
                    f"on rank 0; {way}"
                )

    # for those who drive a learner themselves ----------------------------------------------------------------------

    def update(self, gradient_values: Mapping[Parameter, Any], training_sample_count: int, is_sweep_end: bool = False) -> bool:
        """`train_distributed` without loss and metric."""
        values = {p: np.asarray(g.asarray() if hasattr(g, "asarray") else g) for p, g in gradient_values.items()}
        return self.train_distributed(values, MinibatchInfo(training_sample_count, 0.0, None, is_sweep_end))

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "distributed_after": self.distributed_after}

    def _numbers(self) -> dict[str, Any]:
        """Plain numbers of its own for the checkpoint, the same on all ranks."""
        return {}

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        """Takes what `_numbers` gave."""

    def _common(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and live array of what is the same on all ranks."""
        return iter(())

    def _own(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and live array of what belongs to this rank."""
        return iter(())

    def create_checkpoint(self) -> dict[str, Any]:
        """The local learner's state and that of the exchange, of this rank; all ranks must call it."""
        local = self.local.create_checkpoint()
        numbers = {
            "describe": self._describe(),
            "ranks": self.world.size,
            "rank": self.world.rank,
            "calls": self.calls,
            "in_step": self.in_step,
            "begun": self._has_begun,
            "exchange": self._numbers(),
            "local": local["numbers"],
        }
        arrays = {f"local.{name}": array for name, array in local["arrays"].items()}
        arrays |= {name: array.copy() for name, array in (*self._common(), *self._own())}
        return {"numbers": numbers, "arrays": arrays}

    @staticmethod
    def _local_part(state: Mapping[str, Any]) -> dict[str, Any]:
        arrays = {name.removeprefix("local."): a for name, a in state["arrays"].items() if name.startswith("local.")}
        return {"numbers": state["numbers"]["local"], "arrays": arrays}

    def check_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Raises ModelFileError naming the first difference when `state` is of another learner; changes nothing."""
        numbers = state["numbers"]
        if "local" not in numbers:
            raise ModelFileError(f"checkpoint: expected the state of a {self.kind} learner, got that of a local one")
        for key, value in self._describe().items():
            found = numbers["describe"].get(key)
            if found != value:
                raise ModelFileError(
                    f"checkpoint: expected a learner with {key} {value!r}, got {found!r}; it is of another learner"
                )
        self.local.check_checkpoint(self._local_part(state))
        if numbers["ranks"] == self.world.size and numbers["rank"] != self.world.rank:
            raise ModelFileError(
                f"checkpoint: expected the state of rank {self.world.rank}, got that of rank {numbers['rank']}; its file is missing"
            )
        for name, array in self._kept(state):
            found = state["arrays"].get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise ModelFileError(f"checkpoint: expected the state '{name}' of shape {array.shape}, got another or none")

    def _kept(self, state: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
        """The arrays that it takes from a checkpoint: on another number of ranks what is the same on all, where there is some."""
        if state["numbers"]["ranks"] == self.world.size:
            return [*self._common(), *self._own()]
        return [(name, array) for name, array in self._common() if name in state["arrays"]]

    def restore_from_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes the state that `create_checkpoint` gave; ModelFileError when it is of another learner, which changes nothing.

        On the same number of ranks training goes on with the same bits. On another number the local learner's state, counts and what is
        the same on all ranks are taken, and what belongs to one rank (residuals) begins anew.
        """
        self.check_checkpoint(checkpoint)
        numbers = checkpoint["numbers"]
        self.local.restore_from_checkpoint(self._local_part(checkpoint))
        try:
            self.calls = int(numbers["calls"])
            self.in_step, self._has_begun = bool(numbers["in_step"]), bool(numbers["begun"])
            self._restore(numbers["exchange"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"checkpoint: expected the state of a {self.kind} learner, got {error!r}") from None
        for _, array in self._own():
            array[...] = 0
        for name, array in self._kept(checkpoint):
            array[...] = checkpoint["arrays"][name]
        self.joined = False  # models are compared again
        if self._has_begun:
            self.world.last = self
        self.world.step = self.calls
