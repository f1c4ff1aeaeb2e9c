"""Data-parallel training: each rank computes the gradient of its share of a minibatch, all update with the sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.learners import Learner
from cogkit.parallel.flat import Flat
from cogkit.parallel.learner import DistributedLearner
from cogkit.parallel.overlap import Overlap
from cogkit.parallel.quantized import Quantized
from cogkit.parallel.world import Pending, World
from cogkit.train.ranks import Arrivals, MinibatchInfo
from cogkit.variables import Parameter

__all__ = ["DataParallelLearner", "data_parallel_distributed_learner"]


class FullPrecision:
    """Sums as they are."""

    def __init__(self, world: World, flat: Flat):
        self.world, self.flat = world, flat
        self.pending: list[Pending] = []

    def start(self) -> None:
        """Begins to sum what is in the flat buffers over all ranks."""
        self.pending = [self.world.start_all_reduce(b, f"gradients {i}") for i, b in enumerate(self.flat.buffers)]

    def wait(self) -> None:
        """Returns when the flat buffers hold the sums."""
        for pending in self.pending:
            pending.wait()
        self.pending = []

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """It keeps nothing from minibatch to minibatch."""
        return iter(())


class DataParallelLearner(DistributedLearner):
    """See `data_parallel_distributed_learner`."""

    kind = "data parallel"

    def __init__(
        self,
        learner: Learner,
        distributed_after: int,
        bits: int,
        buffered: bool,
        zero_threshold: bool,
        error_feedback: bool,
        overlap: bool = True,
    ):
        super().__init__(learner, distributed_after)
        if bits != 32 and bits not in range(1, 9):
            raise ValueError(f"{self.kind}: expected num_quantization_bits of 32, or 1 to 8, got {bits!r}")
        self.bits, self.buffered, self.zero_threshold = int(bits), bool(buffered), bool(zero_threshold)
        self.error_feedback = bool(error_feedback)
        self.overlaps = bool(overlap) and self.bits == 32 and not self.buffered
        self.early: Overlap | None = None  # has summed the gradients of this minibatch already
        self._flat: Flat | None = None
        self._sum: FullPrecision | Quantized | None = None
        self._before = np.zeros(4)  # with `buffered`: the sums of the minibatch whose gradients are under way

    def _make(self) -> tuple[Flat, FullPrecision | Quantized]:
        """Where gradients of all ranks are summed, which the local learner reads in place, and what sums them; made once."""
        if self._flat is None or self._sum is None:
            self._flat = flat = Flat(self.parameters, self.bits != 32)
            if not flat.is_wide:
                self.local.use_buffers(flat.views)
            if self.bits == 32:
                self._sum = FullPrecision(self.world, flat)
            else:
                self._sum = Quantized(self.world, flat, self.bits, self.zero_threshold, self.error_feedback)
        return self._flat, self._sum

    def lead(self, learners: Sequence[Learner]) -> Arrivals | None:
        """Sums of gradients begin while others are computed, for all learners of the trainer that do as this one does."""
        if not self.overlaps or self.world.size == 1:
            return None
        alike = [learner for learner in learners if isinstance(learner, DataParallelLearner) and learner.overlaps]
        return Overlap([learner for learner in alike if learner.distributed_after == self.distributed_after], learners)  # type: ignore[arg-type]

    def exchange(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """Sums samples, loss, metric and gradients over all ranks and updates with them; see `train_distributed`."""
        meter, early = self.world.meter, self.early
        mine = np.array([info.samples, info.loss, info.metric or 0.0, info.is_sweep_end], np.float64)
        self.world.all_reduce(mine, "samples, loss, metric")
        meter.lap("wait")
        now, more = mine, bool(mine[0])
        if early is not None:
            self.early = None
            early.wait()
            meter.lap("send")
            if more:
                more = self.local.train(early.views(self), int(mine[0]), bool(mine[3]))
            _tell(info, mine)
            return more
        flat, summing = self._make()
        if self.buffered:
            now, self._before = self._before, mine
            more = self._update(now) and more if now[0] else more
        if mine[0]:
            flat.take(gradient_values)
            meter.lap("pack")
            summing.start()
            if not self.buffered:
                more = self._update(now)
        _tell(info, now)
        return more

    def _update(self, sums: np.ndarray) -> bool:
        """Waits for the gradients' sums and updates with them."""
        flat, summing = self._make()
        summing.wait()
        self.world.meter.lap("send")
        return self.local.train(flat.views, int(sums[0]), bool(sums[3]))

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        own = {"num_quantization_bits": self.bits, "use_async_buffered_parameter_update": self.buffered}
        own |= {"zero_threshold": self.zero_threshold, "error_feedback": self.error_feedback}
        return {**super()._describe(), **own}

    def _numbers(self) -> dict[str, Any]:
        return {"before": [repr(float(v)) for v in self._before]}

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        self._before = np.array([float(v) for v in numbers["before"]])

    def _common(self) -> Iterator[tuple[str, np.ndarray]]:
        if self.buffered and self.world.size > 1:
            flat, summing = self._make()
            summing.wait()
            yield from flat.arrays("under_way")

    def _own(self) -> Iterator[tuple[str, np.ndarray]]:
        return self._make()[1].arrays() if self.world.size > 1 else iter(())


def _tell(info: MinibatchInfo, sums: np.ndarray) -> None:
    """Has sums over all ranks reported."""
    info.samples, info.loss, info.is_sweep_end = int(sums[0]), float(sums[1]), bool(sums[3])
    info.metric = None if info.metric is None else float(sums[2])


def data_parallel_distributed_learner(
    learner: Learner,
    distributed_after: int = 0,
    num_quantization_bits: int = 32,
    use_async_buffered_parameter_update: bool = False,
    zero_threshold: bool = True,
    error_feedback: bool = True,
    overlap: bool = True,
) -> DataParallelLearner:
    """A learner that updates with the sum of the gradients of all ranks: what `learner` would do with all their samples as one minibatch.

    distributed_after: samples of a warm start, in which each rank trains on all the data alone. num_quantization_bits: 32 sends
    gradients as they are, 1 to 8 in so many bits a value, with the errors kept for the next minibatch (`quantized`); a warm start of a
    part of the first sweep is of use then. use_async_buffered_parameter_update: gradients travel while the next minibatch is computed, so
    that each update uses gradients that are one minibatch old. zero_threshold: 1 bit is a value's sign, as CNTK has it; False: its side of
    the column's mean.
    error_feedback: False forgets the errors of quantisation, only to see what they are good for. overlap: gradients of full precision travel
    while others are still computed (`overlap`); the sums have the same bits without.

    Loss, metric and samples that a trainer reports are those of all ranks; a rank without data adds nothing and goes on until none has
    any. Raises ValueError for other numbers of bits, TypeError for a learner that is distributed already.
    Source: Seide et al. 2014, see `quantize`.
    """
    bits, buffered = num_quantization_bits, use_async_buffered_parameter_update
    return DataParallelLearner(learner, distributed_after, bits, buffered, zero_threshold, error_feedback, overlap)
