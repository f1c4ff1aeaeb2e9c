"""Asynchronous SGD, plain and with compensation of the delay: ranks own stripes of the model and send each other gradients.

Each rank is a worker and the owner of one stripe. A worker sends the stripes of its gradient g to their owners, each of which updates
its stripe at once, in order of arrival, and answers with it; so a worker computes with a model that others may have changed since.

    ASGD:      w <- rule(w, g)
    DC-ASGD:   w <- rule(w, g + c g g (w - w_m)),  w_m <- w     w_m: the stripe as it was last sent to worker m
    constant:  c = l;   adaptive: c = l / sqrt(s_m + 1e-7),  s_m <- m s_m + (1 - m) g g

where g of the compensation is the mean over the minibatch, and the rule is that of the local learner.
Source: S. Zheng, Q. Meng, T. Wang, W. Chen, N. Yu, Z.-M. Ma, T.-Y. Liu: Asynchronous Stochastic Gradient Descent with Delay
Compensation, ICML 2017; root, epsilon and one mean square a worker as in the authors' Multiverso.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cogkit.learners import Learner
from cogkit.learners.learner import GraphLearner
from cogkit.learners.schedules import ScheduleLike
from cogkit.parallel.apart import ApartLearner
from cogkit.parallel.flat import Flat
from cogkit.parallel.world import cut
from cogkit.train.ranks import MinibatchInfo
from cogkit.variables import Parameter

__all__ = ["AsgdLearner", "asgd_distributed_learner", "dc_asgd_distributed_learner"]

EPSILON = 1e-7


def wide(array: Any) -> np.dtype:
    """The type in which squares of these numbers are held."""
    return np.promote_types(array.dtype, np.float32)


class Stripe:
    """This rank's part of the model, with the rule that updates it and what it remembers of each worker.

    parts: of each flat buffer of the model, the part that is owned here.
    """

    def __init__(self, learner: GraphLearner, parts: Sequence[np.ndarray], workers: int, lambda0: float, decay: float | None):
        self.lambda0, self.decay = lambda0, decay
        self.masters = [Parameter((part.size,), init=0.0, dtype=part.dtype, name=f"stripe{i}") for i, part in enumerate(parts)]
        self.masters = [p for p in self.masters if p.data.size]
        self.learner = learner.over(self.masters) if self.masters else None
        self.sent = [[np.zeros_like(p.data) for p in self.masters] for _ in range(workers)] if lambda0 else []
        self.squares = [[np.zeros(p.shape, wide(p)) for p in self.masters] for _ in range(workers)] if decay is not None else []
        self.order: list[int] = []  # whom it has answered

    def begin(self, parts: Sequence[np.ndarray]) -> None:
        """Starts from these values, as if every worker had them."""
        for p, part in zip(self.masters, [part for part in parts if part.size], strict=True):
            p.data[...] = part
        for worker in self.sent:
            for sent, p in zip(worker, self.masters, strict=True):
                sent[...] = p.data

    def answer(self, worker: int, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Updates with a worker's gradient of (samples, end of sweep) and gives the stripe; no samples: only gives it."""
        (samples, sweep), *gradients = arrays
        self.order.append(worker)
        if samples and self.learner is not None:
            taken = {}
            for i, (p, g) in enumerate(zip(self.masters, gradients, strict=True)):
                taken[p] = self._compensated(worker, i, g, samples) if self.lambda0 else g
            self.learner.train(taken, int(samples), bool(sweep) and worker == 0)  # each worker ends its share of a sweep
        if self.sent:
            for sent, p in zip(self.sent[worker], self.masters, strict=True):
                sent[...] = p.data
        return [p.data for p in self.masters]

    def _compensated(self, worker: int, i: int, g: np.ndarray, samples: float) -> np.ndarray:
        """The gradient, summed over the minibatch, as it would about be at the present model."""
        dtype, g = g.dtype, g.astype(wide(g), copy=False)
        mean = g / g.dtype.type(samples)
        square = mean * mean
        if self.decay is None:
            strength: Any = g.dtype.type(self.lambda0)
        else:
            s = self.squares[worker][i]
            s *= self.decay
            s += (1 - self.decay) * square
            strength = g.dtype.type(self.lambda0) / np.sqrt(s + g.dtype.type(EPSILON))
        square *= strength * (self.masters[i].data - self.sent[worker][i])
        return (g + g.dtype.type(samples) * square).astype(dtype, copy=False)


class AsgdLearner(ApartLearner):
    """See `asgd_distributed_learner` and `dc_asgd_distributed_learner`. A checkpoint has all ranks meet."""

    kind = "asgd"

    def __init__(
        self,
        learner: Learner,
        lambda0: float,
        decay: float | None,
        meet_every: int,
        distributed_after: int,
        order: Sequence[Sequence[int]] | None,
    ):
        super().__init__(learner, distributed_after)
        _check_rule(learner)
        if not 0 <= lambda0 < math.inf:
            raise ValueError(f"{self.kind}: expected lambda0 of 0 or more, got {lambda0!r}")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"{self.kind}: expected a decay of mean squares within 0 and 1, got {decay!r}")
        if int(meet_every) != meet_every or meet_every < 1:
            raise ValueError(f"{self.kind}: expected ranks to meet every 1 or more minibatches, got {meet_every!r}")
        if order is not None and len(order) != self.world.size:
            raise ValueError(f"{self.kind}: expected the order of {self.world.size} ranks, got that of {len(order)}")
        self.lambda0, self.decay, self.meet_every = float(lambda0), decay, int(meet_every)
        self._order = None if order is None else [int(r) for r in order[self.world.rank]]
        self._flat: Flat | None = None
        self._stripe: Stripe | None = None

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "lambda0": self.lambda0, "decay": self.decay, "meet_every": self.meet_every}

    def reset_learning_rate(self, learning_rate: ScheduleLike) -> None:
        """See `Learner.reset_learning_rate`; all ranks must call it, after a meeting."""
        super().reset_learning_rate(learning_rate)
        if self._stripe is not None and self._stripe.learner is not None:
            self._stripe.learner.reset_learning_rate(learning_rate)

    # stripes -------------------------------------------------------------------------------------------------------

    def _parts(self, flat: Flat, rank: int) -> list[np.ndarray]:
        """Of each flat buffer, the part that a rank owns."""
        return [b[cut(b.size, self.world.size)[rank]] for b in flat.buffers]

    @property
    def stripe(self) -> Stripe:
        """The part of the model that this rank owns."""
        if self._stripe is None:
            self._flat = Flat(self.parameters)
            parts = self._parts(self._flat, self.world.rank)
            self._stripe = Stripe(self.local, parts, self.world.size, self.lambda0, self.decay)  # type: ignore[arg-type]
        return self._stripe

    def join(self) -> None:
        """Begins to answer the other ranks."""
        super().join()
        stripe, flat = self.stripe, self._flat
        assert flat is not None
        flat.take_values()
        stripe.begin(self._parts(flat, self.world.rank))
        if stripe.learner is not None:
            stripe.learner.count_as(*self._counts)
        self.world.serve(stripe.answer, self._order)
        self.world.barrier("begin of asgd")

    def _ask(self, samples: int, ends: bool) -> None:
        """Sends what is in the flat buffers to the owners; their stripes become the model of this rank."""
        flat, world = self._flat, self.world
        assert flat is not None
        head = np.array([samples, ends], np.float64)
        parts = [[a for a in self._parts(flat, r) if a.size] for r in range(world.size)]
        world.meter.lap("pack")
        world.request([[head, *(part if samples else ())] for part in parts], parts, "gradients" if samples else "model")
        world.meter.lap("send")
        flat.give_values()
        world.meter.lap("unpack")

    def step(self, gradient_values: Mapping[Parameter, np.ndarray], info: MinibatchInfo) -> bool:
        """Sends a gradient, takes the model."""
        if self.world.handler != self.stripe.answer:
            raise ValueError(
                f"{self.kind}: expected one such learner at a time, got another that began after it; have one train all"
            )
        assert self._flat is not None
        self._flat.take(gradient_values)
        self._ask(info.samples, info.is_sweep_end)
        return True

    def done(self) -> float:
        """The part of the minibatches before the next meeting."""
        return self._since[3] / self.meet_every

    def join_models(self) -> None:
        """Takes the model as it is when nobody changes it."""
        self._ask(0, False)
        if self.stripe.learner is not None:
            self.stripe.learner.count_as(*self._counts)
        self.world.barrier("end of a meeting")

    def recorded_order(self) -> list[list[int]]:
        """Of each rank the order in which it answered the others, which `order` takes to repeat the run; all ranks must ask."""
        told = self.world.all_gather_bytes(json.dumps(self.stripe.order).encode(), "recorded order")
        return [json.loads(text) for text in told]

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _numbers(self) -> dict[str, Any]:
        learner = None if self.world.size == 1 else self.stripe.learner
        return {**super()._numbers(), "stripe": None if learner is None else learner.create_checkpoint()["numbers"]}

    def _own(self) -> Iterator[tuple[str, np.ndarray]]:
        if self.world.size > 1:
            for name, array in () if self.stripe.learner is None else self.stripe.learner._arrays():
                yield f"stripe.{name}", array
            for worker, squares in enumerate(self.stripe.squares):
                for i, array in enumerate(squares):
                    yield f"squares.{worker}.{i}", array

    def _restore(self, numbers: Mapping[str, Any]) -> None:
        super()._restore(numbers)
        told, learner = numbers["stripe"], None if self.world.size == 1 else self.stripe.learner
        if told is None or learner is None:
            return
        if [tuple(p["shape"]) for p in told["parameters"]] == [p.shape for p in learner.parameters]:
            learner.restore_from_checkpoint({"numbers": told, "arrays": dict(learner._arrays())})


def _check_rule(learner: Learner) -> None:
    """Raises TypeError or ValueError for a rule that cannot be cut into stripes."""
    if not isinstance(learner, GraphLearner):
        raise TypeError(
            f"asgd: expected a learner of cogkit (C.sgd, C.momentum_sgd ...), got {learner.kind}: its rule cannot be cut"
        )
    o = learner.options
    if o.gradient_clipping_threshold_per_sample < math.inf and not o.gradient_clipping_with_truncation:
        raise ValueError("asgd: expected a rule that treats each value alone, got clipping by norm; clip with truncation")
    if getattr(learner.rule, "average", False):
        raise ValueError(
            f"asgd: expected a rule that treats each value alone, got {learner.kind} with the mean of its multipliers"
        )


def asgd_distributed_learner(
    learner: Learner,
    distributed_after: int = 0,
    meet_every: int = 100,
    order: Sequence[Sequence[int]] | None = None,
) -> AsgdLearner:
    """Ranks send each other gradients without waiting for one another: each owns a stripe of the model and updates it by `learner`'s rule.

    learner: one of cogkit whose rule treats each value alone; the owners have its state. distributed_after: samples of a warm start, in
    which each rank trains on all the data alone; a rule's state begins anew after it. meet_every: minibatches of a rank after which ranks
    meet, to count samples and to take the same model: a session can save, test and stop only then. order: `recorded_order()` of another
    run with as many ranks, which is then repeated bit for bit. Raises TypeError or ValueError for a rule that cannot be cut into stripes.
    Source: see the module.
    """
    return AsgdLearner(learner, 0.0, None, meet_every, distributed_after, order)


def dc_asgd_distributed_learner(
    learner: Learner,
    lambda0: float | None = None,
    adaptive: bool = False,
    decay: float = 0.95,
    distributed_after: int = 0,
    meet_every: int = 100,
    order: Sequence[Sequence[int]] | None = None,
) -> AsgdLearner:
    """`asgd_distributed_learner` with compensation of the delay: gradients are corrected by how far the stripe has moved meanwhile.

    lambda0: strength, of mean gradients; None: 0.04, or 2 if adaptive. adaptive: the strength is divided by the root mean square of the
    worker's gradients, whose memory is `decay`. Source and formulas: see the module.
    """
    strength = (2.0 if adaptive else 0.04) if lambda0 is None else lambda0
    return AsgdLearner(learner, strength, decay if adaptive else None, meet_every, distributed_after, order)
