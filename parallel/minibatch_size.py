"""Automatic minibatch size: the largest that still learns, found by trial training on a part of the data that come next.

Source: F. Seide, H. Fu, J. Droppo, G. Li, D. Yu: On Parallelizability of Stochastic Gradient Descent for Speech DNNs, ICASSP 2014. The
grid of candidates and how they are judged are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cogkit.parallel.learner import DistributedLearner
from cogkit.train import Trainer
from cogkit.train.configs import MinibatchSizeSchedule
from cogkit.train.ranks import communicator_of
from cogkit.train.session import by_input

__all__ = ["AutomaticMinibatchSize", "automatic_minibatch_size"]


class AutomaticMinibatchSize(MinibatchSizeSchedule):
    """See `automatic_minibatch_size`. `trials` lists what was tried: {"samples", "size", "criterion", "taken"}."""

    __slots__ = (
        "_at",
        "_rate",
        "_size",
        "frequency",
        "growth",
        "largest",
        "margin",
        "samples",
        "source",
        "streams",
        "trainer",
        "trials",
    )

    def __init__(
        self,
        trainer: Trainer,
        source: Any,
        streams: Mapping[Any, Any],
        first: int,
        largest: int,
        growth: float,
        samples: int,
        margin: float,
        frequency: int | None,
    ):
        super().__init__([(1, first)], 1)
        self.trainer, self.source, self.streams = trainer, source, dict(streams)
        self.largest, self.growth, self.samples, self.margin = int(largest), float(growth), int(samples), float(margin)
        self.frequency = frequency
        self.trials: list[dict[str, Any]] = []
        self._size, self._at = int(first), -1
        self._rate: float | None = None

    def __getitem__(self, count: int) -> int:
        """The size after `count` samples: searched for where that is due. All ranks ask at the same counts."""
        rate = self.trainer.parameter_learners[0].learning_rate()
        due = self._rate is None or (rate != self._rate if self.frequency is None else count - self._at >= self.frequency)
        if due and count != self._at:
            self._at, self._rate = count, rate
            self._search(count)
        return self._size

    def _search(self, count: int) -> None:
        """Grows the size while the criterion of a trial stays within the margin of that of the present size."""
        position = self.source.get_checkpoint_state()
        back = self.trainer.snapshot()
        writers, self.trainer.progress_writers = self.trainer.progress_writers, []
        try:
            bound = None
            size = self._size
            while size <= self.largest:
                criterion = self._trial(size)
                back()
                self.source.restore_from_checkpoint(position)
                bound = criterion + abs(criterion) * self.margin / 100 if bound is None else bound
                taken = criterion <= bound  # also refuses what is not a number
                self.trials.append({"samples": count, "size": size, "criterion": criterion, "taken": taken})
                if not taken:
                    break
                self._size, size = size, max(size + 1, int(size * self.growth))
        finally:
            self.trainer.progress_writers = writers

    def _trial(self, size: int) -> float:
        """The loss a sample of a training on `samples` samples with minibatches of this size; infinite where it is not finite."""
        trainer, loss, seen = self.trainer, 0.0, 0
        ranks = communicator_of(trainer.parameter_learners)
        begin = last = trainer.total_number_of_samples_seen
        more = True
        while more and last - begin < self.samples:
            share = (1, 0)
            if last >= getattr(trainer.parameter_learners[0], "parallelization_after", lambda: 0)():
                share = ranks.num_workers(), ranks.rank()
            batch = by_input(self.source.get_next_minibatch(size, *share), self.streams)
            more = trainer.train_minibatch(batch) and bool(batch or ranks.num_workers() > 1)
            now = trainer.total_number_of_samples_seen
            if now != last:
                loss += trainer.previous_minibatch_loss_average * trainer.previous_minibatch_sample_count
                seen += trainer.previous_minibatch_sample_count
                last = now
        criterion = loss / seen if seen else math.inf
        return criterion if math.isfinite(criterion) else math.inf

    def get_checkpoint_state(self) -> dict[str, Any]:
        """The size, and when it was searched for."""
        return {"size": self._size, "at": self._at, "rate": None if self._rate is None else repr(self._rate)}

    def restore_from_checkpoint(self, state: Any) -> None:
        """Takes what `get_checkpoint_state` gave."""
        if state is not None:
            self._size, self._at = int(state["size"]), int(state["at"])
            self._rate = None if state["rate"] is None else float(state["rate"])


def automatic_minibatch_size(
    trainer: Trainer,
    source: Any,
    streams: Mapping[Any, Any],
    first: int,
    largest: int = 1 << 20,
    growth: float = 2.0,
    samples: int | None = None,
    margin: float = 1.0,
    frequency: int | None = None,
) -> AutomaticMinibatchSize:
    """A minibatch size for `training_session` that grows by itself: the largest with which the model still learns as well.

    Now and then training goes on for `samples` samples with the present size, then, from the same model and on the same data, with sizes
    that are `growth` times larger each, up to `largest`; the last one is kept whose loss a sample is at most `margin` percent above that of
    the present size. Nothing else is changed by the trials.

    trainer, source, streams: those of the session. first: the size that is begun with. samples: of one trial; None: 500 minibatches of
    the first size. frequency: samples between two searches; None: at the beginning and at each change of the learning rate. Rates must be
    told for a number of samples (`learning_parameter_schedule(rate, minibatch_size=n)`), as must momenta, so that they mean the same for
    every size; ValueError where they are not. Source: see the module.
    """
    if int(first) != first or first < 1 or largest < first:
        raise ValueError(f"automatic_minibatch_size: expected 1 <= first <= largest, got first {first!r}, largest {largest!r}")
    if not growth > 1:
        raise ValueError(f"automatic_minibatch_size: expected a growth above 1, got {growth!r}")
    if not margin >= 0:
        raise ValueError(f"automatic_minibatch_size: expected a margin of 0 percent or more, got {margin!r}")
    if not source.get_checkpoint_state():
        raise ValueError("automatic_minibatch_size: expected a source whose position can be restored, got one without")
    for learner in trainer.parameter_learners:
        local = learner.local if isinstance(learner, DistributedLearner) else learner
        for schedule, name in (
            (local._learning_rate_schedule, "rate"),
            *((m, "momentum") for m in getattr(local, "_momenta", ())),
        ):
            if not schedule.minibatch_size and not schedule.is_over(0):
                raise ValueError(
                    f"automatic_minibatch_size: expected a {name} for a number of samples, got one for a minibatch, which would mean "
                    "another with every size; give its schedule a minibatch_size"
                )
    samples = 500 * first if samples is None else samples
    return AutomaticMinibatchSize(trainer, source, streams, first, largest, growth, samples, margin, frequency)
