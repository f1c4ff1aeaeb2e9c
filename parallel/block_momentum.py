"""Block momentum: ranks train apart for a block of samples, then their changes are filtered into one model for all.

    G = mean over ranks of (w_r - w),   D' = b D + z G,   w' = w + D'                        classic
                                                          w' = w - b D + (1 + b) D'          Nesterov, the paper's
                                                          w' = w + (1 + b) D'                Nesterov, CNTK's
    w: the model that the block began with, w': that of the next; b: block momentum, z: block learning rate

Source: K. Chen, Q. Huo: Scalable training of deep learning machines by incremental block training with intra-block parallel
optimization and blockwise model-update filtering, ICASSP 2016.
CNTK takes (1 - b) z times the *sum* of the changes, which is z times their mean where b = 1 - 1 / ranks, its default. Its Nesterov form
does not take the previous look-ahead back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cogkit.learners import Learner
from cogkit.parallel.apart import ApartLearner
from cogkit.parallel.flat import Flat
from cogkit.parallel.world import current_world
from cogkit.train.ranks import MinibatchInfo
from cogkit.variables import Parameter

__all__ = [
    "BlockMomentumLearner",
    "block_momentum_distributed_learner",
    "block_momentum_distributed_learner_as_time_constant",
    "bmuf_distributed_learner",
    "model_averaging_distributed_learner",
]


class BlockMomentumLearner(ApartLearner):
    """See `block_momentum_distributed_learner` and `bmuf_distributed_learner`. A checkpoint ends the block that it falls into."""

    kind = "block momentum"

    def __init__(
        self,
        learner: Learner,
        block_size: int,
        momentum: float,
        rate: float,
        nesterov: bool,
        reset: bool,
        distributed_after: int,
        summed: bool,
    ):
        super().__init__(learner, distributed_after)
        if int(block_size) != block_size or block_size < 1:
            raise ValueError(
                f"{self.kind}: expected a block_size of at least 1 sample, of all ranks together, got {block_size!r}"
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"{self.kind}: expected a block momentum within 0 and 1, got {momentum!r}")
        if not rate > 0:
            raise ValueError(f"{self.kind}: expected a block learning rate above 0, got {rate!r}")
        self.block_size, self.nesterov, self.reset, self.summed = int(block_size), bool(nesterov), bool(reset), bool(summed)
        self.momentum, self.rate = float(momentum), float(rate)
        self._begin: Flat | None = None  # w
        self._change: Flat | None = None  # G
        self._smoothed: Flat | None = None  # D

    def _describe(self) -> dict[str, Any]:
        names = ("block_size", "momentum", "rate", "nesterov", "reset", "summed")
        return {**super()._describe(), **{name: getattr(self, name) for name in names}}

    def use_buffers(self, gradients: dict[Parameter, Any]) -> None:
        """As the local learner: it reads what this rank has computed."""
        self.local.use_buffers(gradients)

    def takes_rows(self, p: Parameter) -> bool:
        """As the local learner."""
        return self.local.takes_rows(p)

    def join(self) -> None:
        """Begins the first block."""
        super().join()
        self.begin.keep_values()

    def step(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """A local update."""
        return self.local.train(gradient_values, info.samples, info.is_sweep_end)

    def done(self) -> float:
        """The part of the block that is over, if the other ranks have had as many samples."""
        return self._since[0] * self.world.size / self.block_size

    @property
    def begin(self) -> Flat:
        """The model with which the block began."""
        if self._begin is None:
            self._begin, self._change = Flat(self.parameters, True), Flat(self.parameters, True)
        return self._begin

    @property
    def smoothed(self) -> Flat:
        """The last change of the model, which block momentum carries on."""
        if self._smoothed is None:
            self._smoothed = Flat(self.parameters, True)
        return self._smoothed

    def join_models(self) -> None:
        """Filters the ranks' changes into the model of the next block."""
        assert self._begin is not None and self._change is not None
        world, b = self.world, self.momentum
        z = self.rate * (1 - b if self.summed else 1 / world.size)
        self._change.take_values()
        for g, w, d in zip(self._change.buffers, self._begin.buffers, self.smoothed.buffers, strict=True):
            g -= w
            world.meter.lap("pack")
            world.all_reduce(g, "changes of a block")
            world.meter.lap("send")
            if self.nesterov and not self.summed:
                w -= b * d
            d *= b
            d += z * g
            w += (1 + b) * d if self.nesterov else d
        self._begin.give_values()
        if self.reset:
            self.local.reset_smoothed_gradients()
        world.meter.lap("unpack")

    def _common(self) -> Iterator[tuple[str, np.ndarray]]:
        if self.world.size > 1:
            yield from self.smoothed.arrays("smoothed")
            if self.begin.is_wide:  # it is more than what the model says
                yield from self.begin.arrays("begin")


def _own_momentum() -> float:
    """1 - 1 / ranks: then a block changes the model as much as one rank would."""
    return 1 - 1 / current_world().size


def block_momentum_distributed_learner(
    learner: Learner,
    block_size: int,
    block_momentum_as_time_constant: float | None = None,
    use_nestrov_momentum: bool = True,
    reset_sgd_momentum_after_aggregation: bool = True,
    block_learning_rate: float = 1.0,
    distributed_after: int = 0,
) -> BlockMomentumLearner:
    """Ranks train apart with `learner` and exchange models once a block, filtered by block momentum, as CNTK computes it.

    block_size: samples of all ranks together. block_momentum_as_time_constant: in samples, b = exp(-block_size / time constant), 0 for no
    momentum; None: b = 1 - 1 / ranks. use_nestrov_momentum: CNTK's form of Nesterov's. reset_sgd_momentum_after_aggregation: the local
    learner forgets its momentum at the end of a block, without which training may diverge. distributed_after: samples of a warm
    start, in which each rank trains on all the data alone. Raises ValueError for sizes, momenta and rates out of range.
    Source and formulas: see the module. Of `bmuf_distributed_learner` it differs in Nesterov's form, and where b is not 1 - 1 / ranks.
    """
    constant = block_momentum_as_time_constant
    if constant is None:
        momentum = _own_momentum()
    elif constant < 0:
        raise ValueError(f"block momentum: expected a time constant of 0 samples or more, got {constant!r}")
    else:
        momentum = float(np.exp(-block_size / constant)) if constant else 0.0
    nesterov, reset = use_nestrov_momentum, reset_sgd_momentum_after_aggregation
    return BlockMomentumLearner(learner, block_size, momentum, block_learning_rate, nesterov, reset, distributed_after, True)


def block_momentum_distributed_learner_as_time_constant(
    learner: Learner,
    block_size: int,
    block_momentum_as_time_constant: float,
    use_nestrov_momentum: bool = True,
    reset_sgd_momentum_after_aggregation: bool = True,
    block_learning_rate: float = 1.0,
    distributed_after: int = 0,
) -> BlockMomentumLearner:
    """`block_momentum_distributed_learner` with a time constant that must be given."""
    nesterov, reset = use_nestrov_momentum, reset_sgd_momentum_after_aggregation
    return block_momentum_distributed_learner(
        learner, block_size, block_momentum_as_time_constant, nesterov, reset, block_learning_rate, distributed_after
    )


def bmuf_distributed_learner(
    learner: Learner,
    block_size: int,
    block_momentum: float | None = None,
    block_learning_rate: float = 1.0,
    nesterov: bool = True,
    reset_momentum: bool = True,
    distributed_after: int = 0,
) -> BlockMomentumLearner:
    """Ranks train apart with `learner` and exchange models once a block, filtered by block momentum, as the paper has it.

    block_size: samples of all ranks together. block_momentum: b, None for 1 - 1 / ranks; block_learning_rate: z. nesterov: the model
    that a block begins with looks ahead. reset_momentum: the local learner forgets its momentum at the end of a block.
    distributed_after: samples of a warm start. Raises ValueError for sizes, momenta and rates out of range.
    Source and formulas: see the module.
    """
    momentum = _own_momentum() if block_momentum is None else block_momentum
    return BlockMomentumLearner(
        learner, block_size, momentum, block_learning_rate, nesterov, reset_momentum, distributed_after, False
    )


def model_averaging_distributed_learner(
    learner: Learner, block_size: int, reset_momentum: bool = False, distributed_after: int = 0
) -> BlockMomentumLearner:
    """Ranks train apart with `learner`, and after each block all go on from the mean of their models.

    block_size: samples of all ranks together; else as `bmuf_distributed_learner`, of which this is the case without block momentum.
    """
    return BlockMomentumLearner(learner, block_size, 0.0, 1.0, False, reset_momentum, distributed_after, False)
