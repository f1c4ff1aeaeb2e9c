"""Learners whose ranks train apart and meet from time to time: when to meet, what is counted and reported then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cogkit.learners import Learner
from cogkit.parallel.learner import DistributedLearner
from cogkit.train.ranks import MinibatchInfo
from cogkit.variables import Parameter

__all__ = ["ApartLearner"]


class ApartLearner(DistributedLearner):
    """Base of learners whose ranks meet after a number of minibatches, which a derived class decides.

    Counts and reports change when ranks meet, on all of them at once. A rank without data goes to the meeting at once and waits there
    for the others; when none has had data since the last one, training is over. Where ranks train several distributed learners, they meet
    in the same minibatches.
    """

    def __init__(self, learner: Learner, distributed_after: int):
        super().__init__(learner, distributed_after)
        self._counts = [0, 0, 0]  # samples, minibatches, sweeps of all ranks at the last meeting
        self._since = np.zeros(5)  # samples, loss, metric, minibatches, sweeps of this rank since then
        self._owed = np.zeros(3)  # samples, loss, metric that have not been reported
        self._more = True  # whether the rule goes on learning

    # what a derived class gives ------------------------------------------------------------------------------------

    def step(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """What a minibatch with samples does between meetings; whether learning goes on."""
        raise NotImplementedError

    def done(self) -> float:
        """The part of the way to the next meeting that this rank has gone; 1 or more: it is there."""
        raise NotImplementedError

    def join_models(self) -> None:
        """Gives all ranks one model; called at a meeting by all of them, where some had data."""
        raise NotImplementedError

    # counts --------------------------------------------------------------------------------------------------------

    def total_number_of_samples_seen(self) -> int:
        """Samples of all ranks, up to the last meeting."""
        return self._counts[0] if self.joined else super().total_number_of_samples_seen()

    def samples_begun(self) -> int:
        """Samples up to the last meeting, and since then as many on each rank as on this one."""
        return self.total_number_of_samples_seen() + self.world.size * int(self._since[0])

    def total_number_of_minibatches_seen(self) -> int:
        """Minibatches of the rank that had most, up to the last meeting."""
        return self._counts[1] if self.joined else super().total_number_of_minibatches_seen()

    def total_number_of_sweeps_seen(self) -> int:
        """Sweeps over the data that had ended at the last meeting."""
        return self._counts[2] if self.joined else super().total_number_of_sweeps_seen()

    def join(self) -> None:
        """Begins to train apart."""
        local = self.local
        self._counts = [
            local.total_number_of_samples_seen(),
            local.total_number_of_minibatches_seen(),
            local.total_number_of_sweeps_seen(),
        ]
        super().join()

    # meetings ------------------------------------------------------------------------------------------------------

    def exchange(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """A step of this rank, and a meeting when it is due. See `train_distributed`."""
        if info.samples:
            self._more = self.step(gradient_values, info)
            self._since += [info.samples, info.loss, info.metric or 0.0, 1, info.is_sweep_end]
            # schedules go by the samples of all ranks: until these are known, as many on each
            samples, minibatches, sweeps = (c + int(n) for c, n in zip(self._counts, self._since[[0, 3, 4]], strict=True))
            self.local.count_as(samples + (self.world.size - 1) * int(self._since[0]), minibatches, sweeps)
        more = True
        if self._is_due(info.samples):
            more, _ = self.meet(False)
        told, self._owed, info.apart = self._owed, np.zeros(3), True
        info.samples, info.loss = int(told[0]), float(told[1])
        info.metric = None if info.metric is None else float(told[2])
        return more

    def _is_due(self, samples: int) -> bool:
        """Whether this rank meets the others after a minibatch of so many samples."""
        if not self.in_step:
            return not samples or self.done() >= 1
        rows = self.world.all_gather(np.array([self.done(), samples]), f"way of the {self.kind} learner")
        self.world.meter.lap("wait")
        return not rows[:, 1].any() or rows[:, 0].mean() >= 1

    def meet(self, settles: bool) -> tuple[bool, bool]:
        """Makes one model of all ranks' models; (whether any rank goes on, whether all of them wanted to settle)."""
        rows = self.world.all_gather(np.array([*self._since, self._more, settles]), f"meeting of the {self.kind} learner")
        self.world.meter.lap("wait")
        total = rows[0].copy()
        for row in rows[1:]:
            total += row
        if total[0]:
            new = (total[0], rows[:, 3].max(), rows[:, 4].max())
            self._counts = [c + int(n) for c, n in zip(self._counts, new, strict=True)]
            self.local.count_as(*self._counts)
            self._owed += total[:3]
            self.join_models()
        self._since = np.zeros(5)
        return bool(total[0]) and bool(total[5]), bool(rows[:, 6].all())

    def settle(self) -> None:
        """Meets until all ranks are here, with one model; all must call it."""
        if self.joined and self.world.size > 1:
            while not self.meet(True)[1]:
                pass

    # checkpoints ---------------------------------------------------------------------------------------------------

    def create_checkpoint(self) -> dict[str, Any]:
        """See `DistributedLearner.create_checkpoint`; ranks meet before."""
        self.settle()
        return super().create_checkpoint()

    def _numbers(self) -> dict[str, Any]:
        return {"owed": [repr(float(v)) for v in self._owed], "more": self._more}

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        self._owed, self._more = np.array([float(v) for v in numbers["owed"]]), bool(numbers["more"])
        self._since = np.zeros(5)
