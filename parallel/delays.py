"""Models of time for virtual ranks: how long a minibatch takes on each, and a message between two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Delay", "Network", "constant", "heavy_tailed", "measured", "straggler"]

Delay = Callable[[int, int, int], float]  # (rank, minibatch of that rank, samples) -> seconds


@dataclasses.dataclass(frozen=True)
class Network:
    """latency: seconds a message; bandwidth: bytes a second that a rank can send (and, at the same time, receive)."""

    latency: float = 0.0
    bandwidth: float = float("inf")
    name: str = "free"

    def seconds(self, nbytes: float, messages: int = 1) -> float:
        """What it takes to send so many bytes in so many messages, one after another."""
        return messages * self.latency + nbytes / self.bandwidth


def _uniform(seed: int, *place: int) -> float:
    """A number in (0, 1) that depends on seed and place alone."""
    return float(np.random.Generator(np.random.Philox(key=seed, counter=[*place, *[0] * (4 - len(place))])).random())


def constant(seconds: float, per_sample: float = 0.0) -> Delay:
    """The same for every minibatch, and so much for each of its samples."""
    return lambda rank, minibatch, samples: seconds + per_sample * samples


def measured(seconds: Sequence[float], seed: int = 0) -> Delay:
    """Drawn from times that were measured."""
    times = [float(s) for s in seconds]
    return lambda rank, minibatch, samples: times[int(_uniform(seed, rank, minibatch) * len(times))]


def heavy_tailed(median: float, shape: float = 2.0, seed: int = 0) -> Delay:
    """Pareto: most are near the median (seconds), few are very long; the smaller the shape, the longer. Above 1 there is a mean."""
    least = median / 2 ** (1 / shape)
    return lambda rank, minibatch, samples: least * (1 - _uniform(seed, rank, minibatch)) ** (-1 / shape)


def straggler(seconds: float, slow: int = 0, factor: float = 4.0) -> Delay:
    """One rank is slower than the others by a factor."""
    return lambda rank, minibatch, samples: seconds * (factor if rank == slow else 1.0)
