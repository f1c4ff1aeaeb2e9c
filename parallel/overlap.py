"""Sums of gradients over ranks that begin while other gradients are still computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cogkit.errors import RankError
from cogkit.parallel.flat import Flat
from cogkit.parallel.world import AllReduce
from cogkit.variables import Parameter

if TYPE_CHECKING:
    from cogkit.parallel.data_parallel import DataParallelLearner
    from cogkit.parallel.learner import DistributedLearner

__all__ = ["Overlap"]

LEAST = 1 << 18  # bytes of a bucket, where there are as many; an exchange costs its latency, twice
MOST = 16  # buckets, about: of a large model they are larger


class Bucket:
    """Parameters whose gradients lie side by side and travel together; last: when the last of them is computed, as a place in the order."""

    def __init__(self, array: np.ndarray, parameters: Sequence[Parameter], last: int):
        self.array, self.parameters, self.last, self.missing = array, list(parameters), last, 0


def fill_buckets(flat: Flat, order: Sequence[Parameter]) -> list[Bucket]:
    """The parameters of flat buffers in buckets, by when they are complete."""
    least = max(LEAST, sum(b.nbytes for b in flat.buffers) // MOST)
    place = {p: i for i, p in enumerate(order)}
    made = []
    for buffer, places in zip(flat.buffers, flat.places, strict=True):
        own = [p for p in order if p.dtype == buffer.dtype]
        ends = [at for at, _ in places[1:]] + [buffer.size]
        begin, inside = 0, []
        for p, end in zip(own, ends, strict=True):
            inside.append(p)
            if (end - begin) * buffer.itemsize >= least or end == buffer.size:
                made.append(Bucket(buffer[begin:end], inside, place[p]))
                begin, inside = end, []
    return sorted(made, key=lambda bucket: bucket.last)


class Overlap:
    """Sums gradients of a trainer's learners over all ranks, in buckets that travel as soon as what is in them is computed.

    members: the learners whose gradients these are, the trainer's first one among them; everyone: all learners of the trainer. Buckets and
    their order are the same on all ranks: the order in which the first rank that knows one computes. A rank without data, or with an
    engine that does not tell, sends at the end of its minibatch. It is what `cogkit.train.ranks.Arrivals` says.
    """

    def __init__(self, members: Sequence[DataParallelLearner], everyone: Sequence[DistributedLearner]):
        self.members, self.world = list(members), members[0].world
        listed = [p if learner in self.members else None for learner in everyone for p in learner.parameters]
        self.parameters = {i: p for i, p in enumerate(listed) if p is not None}
        self.flat: Flat | None = None
        self.buckets: list[Bucket] = []
        self.home: dict[Parameter, Bucket] = {}
        self.first = self.samples = 0
        self.has_begun = False
        self.known: tuple[Any, int] = ((), 0)  # the last order that an engine told, and the first gradient's number in it
        self.stops: list[int] = []  # where a bucket is complete in it
        self.there: set[Parameter] = set()  # of this minibatch
        self.under_way: list[AllReduce] = []

    # what a trainer and an engine tell -----------------------------------------------------------------------------

    def expect(self, first: int, samples: int) -> None:
        """See `Arrivals`."""
        self.first, self.samples = first, samples

    def begin(self, order: tuple[tuple[int, ...], ...]) -> Sequence[int]:
        """See `Arrivals`. Raises RankError where an error broke off the minibatch before in the middle of its exchange."""
        if self.under_way:
            raise RankError(
                "data parallel: expected the minibatch before to have ended, got an error in it while its gradients were under way; "
                "other ranks have them already: start again from a checkpoint"
            )
        self.has_begun = all(learner.is_warm for learner in self.members)
        if not self.has_begun:
            return ()
        lead, meter = self.members[0], self.world.meter
        if not lead.joined or self.flat is None:
            meter.lap("compute")
            if not lead.joined:
                lead.join()
            if self.flat is None:
                self._agree([i - self.first for together in order for i in together])
            meter.lap("wait")
        self.there.clear()
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)
        if (order, self.first) != self.known:
            self.known, self.stops = (order, self.first), self._stops(order)
        return self.stops

    def come(self, outputs: Sequence[tuple[int, np.ndarray]], part: float) -> None:
        """See `Arrivals`."""
        if not self.has_begun:
            return
        meter = self.world.meter
        self.world.computing(self.samples, part)
        meter.lap("compute")
        for i, array in outputs:
            p = self.parameters.get(i - self.first)
            if p is not None:
                self._put(p, array)
        meter.lap("pack")
        self._start()
        self.world.go_on()
        meter.lap("send")

    def end(self, gradients: Sequence[Mapping[Parameter, np.ndarray]], samples: int) -> None:
        """See `Arrivals`."""
        if not self.has_begun:
            self.begin(())
        if not self.has_begun:
            return
        self.members[0].has_computed(samples)
        for mine in gradients:
            for p, array in mine.items():
                if p in self.home and p not in self.there:
                    self._put(p, array)
        self.world.meter.lap("pack")
        self._start()
        for learner in self.members:
            learner.early = self

    # the rest ------------------------------------------------------------------------------------------------------

    def _agree(self, order: Sequence[int]) -> None:
        """Lays out the buckets, as the first rank that knows an order has it; what nobody knows comes last, from the end of the net."""
        told = self.world.all_gather_bytes(json.dumps(list(order)).encode(), "order of gradients")
        known = [i for i in next(filter(None, map(json.loads, told)), []) if i in self.parameters]
        ordered = [self.parameters[i] for i in dict.fromkeys([*known, *reversed(self.parameters)])]
        self.flat = Flat(ordered)
        self.buckets = fill_buckets(self.flat, ordered)
        self.home = {p: bucket for bucket in self.buckets for p in bucket.parameters}
        self._views = {id(learner): {p: self.flat.views[p] for p in learner.parameters} for learner in self.members}
        for learner in self.members:
            learner.local.use_buffers(self.views(learner))

    def _stops(self, order: Sequence[Sequence[int]]) -> list[int]:
        """The places of an engine's order at which a bucket is complete."""
        place = {
            self.parameters[i - self.first]: k
            for k, those in enumerate(order)
            for i in those
            if i - self.first in self.parameters
        }
        last = [[place.get(p, -1) for p in bucket.parameters] for bucket in self.buckets]
        return sorted({max(places) for places in last if min(places) >= 0})

    def views(self, learner: DataParallelLearner) -> dict[Parameter, np.ndarray]:
        """The sums of a learner's gradients."""
        return self._views[id(learner)]

    def _put(self, p: Parameter, array: np.ndarray) -> None:
        assert self.flat is not None
        view = self.flat.views[p]
        view[...] = np.asarray(array).reshape(view.shape)
        self.there.add(p)
        self.home[p].missing -= 1

    def _start(self) -> None:
        """Starts the buckets that are complete, those before them first."""
        while len(self.under_way) < len(self.buckets) and not self.buckets[len(self.under_way)].missing:
            i = len(self.under_way)
            self.under_way.append(self.world.start_all_reduce(self.buckets[i].array, f"gradients {i}"))
            self.world.under_way.append(self.under_way[-1])

    def wait(self) -> None:
        """Returns when all sums are there."""
        for pending in self.under_way:
            pending.turn()
        for pending in self.under_way:
            pending.wait()
        self.under_way, self.world.under_way, self.has_begun = [], [], False
