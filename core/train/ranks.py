"""What training asks of learners that train together with other ranks. `cogkit.parallel` has such learners; nothing here knows how ranks talk.

All ranks build the same trainer and make the same calls in the same order. A trainer has distributed learners or local ones, not both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["ALONE", "Arrivals", "Communicator", "DistributedLearner", "MinibatchInfo", "communicator_of", "use_communicator"]


class Communicator(Protocol):
    """The ranks that train together, as this rank sees them; every call but the first two is made by all of them."""

    def rank(self) -> int:
        """The number of this rank, from 0."""

    def num_workers(self) -> int:
        """How many ranks there are."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sums of a few float64 numbers over all ranks, the same bits on each of them."""

    def barrier(self) -> None:
        """Returns when all ranks have called it."""


@dataclasses.dataclass
class MinibatchInfo:
    """A minibatch in sums: as this rank computed it, and after `train_distributed` as it is reported."""

    samples: int
    loss: float
    metric: float | None  # None where there is no metric
    is_sweep_end: bool
    learner: int = 0  # which learner of the trainer is told, of how many
    learners: int = 1
    apart: bool = False  # it was no minibatch of all ranks: where it leaves with 0 samples, this rank's own sums may be shown


class Arrivals(Protocol):
    """Takes the gradients of all learners of a trainer, numbered in their order, while others are still computed."""

    def expect(self, first: int, samples: int) -> None:
        """Before each minibatch with samples: gradient 0 is output `first`."""

    def begin(self, order: tuple[tuple[int, ...], ...]) -> Sequence[int]:
        """Told by an engine before it computes: outputs that will be ready together, in the order in which they will.

        Gives the places in this order up to which it wants to be told at once, in rising order.
        """

    def come(self, outputs: Sequence[tuple[int, np.ndarray]], part: float) -> None:
        """Told by an engine that these outputs are ready, when so great a part of the minibatch's work is done."""

    def end(self, gradients: Sequence[Mapping[Any, np.ndarray]], samples: int) -> None:
        """After each minibatch, also one without samples, before the learners' `train_distributed`: all gradients, by learner."""


class DistributedLearner(Protocol):
    """A `Learner` with this beside. Its checkpoint is that of its rank (residuals, blocks); each rank's lies in a file of its own.

    `total_number_of_samples_seen` and its like count all ranks' samples and are equal on all ranks after every `train_distributed`:
    a training session decides by them when to save, to test and to stop.
    """

    is_distributed: bool  # True
    is_metric_aggregator: bool  # whether its sums are what is reported, where a trainer has several; else the first one's are

    def communicator(self) -> Communicator:
        """The ranks it trains with."""

    def parallelization_after(self) -> int:
        """Samples after which it exchanges; until then each rank trains on all the data as if it were alone."""

    def lead(self, learners: Sequence[Any]) -> Arrivals | None:
        """Told to the first learner of a trainer: all that it has. Gives who wants gradients before all are computed; None: nobody."""

    def exchange_report(self) -> str:
        """A line for progress output on what ranks have exchanged since the last call; '' for none."""

    def train_distributed(self, gradient_values: Mapping[Any, np.ndarray], info: MinibatchInfo) -> bool:
        """One update on all ranks; False on all of them when none has data any more, True otherwise.

        gradient_values: parameter -> gradient summed over this rank's samples; zeros where the rank has no samples left.
        info comes with this rank's sums and leaves with what is to be reported: the sums of all ranks (data parallel), or 0 samples between
        two exchanges and at an exchange the sums of all ranks since the last one (block momentum).
        """


class _Alone:
    """One rank."""

    def rank(self) -> int:
        return 0

    def num_workers(self) -> int:
        return 1

    def sum(self, values: np.ndarray) -> np.ndarray:
        return values

    def barrier(self) -> None:
        pass


ALONE: Communicator = _Alone()
_world: list[Communicator] = []


def use_communicator(communicator: Communicator | None) -> None:
    """Says with whom evaluators without learners test (`distributed=True`); None: with nobody."""
    _world[:] = [] if communicator is None else [communicator]


def communicator_of(learners: Sequence[Any] = ()) -> Communicator:
    """The communicator of the first distributed learner; without learners that of the process; ALONE where there is none."""
    for learner in learners:
        if getattr(learner, "is_distributed", False):
            return learner.communicator()
    return _world[0] if _world and not learners else ALONE
