"""What a step takes on a number of ranks: measured compute, and a network of known latency and bandwidth.

    compute:  t(n / K)                                       n samples in all, K ranks
    sum of v values of b bytes: 2 l + 2 (K - 1) / K v b / B  l: latency, B: bandwidth, of each direction; two rounds of messages
    full, k bits: compute + sum each minibatch; their maximum where gradients travel while the next minibatch is computed
    blocks:       compute + sum / (minibatches of a block)
    asgd:         compute + a gradient to the owners and the model back, which are as many bytes; nobody waits for others

The model is ours: that of the ICASSP 2014 paper of Seide et al. (fixed parts, concurrency) could not be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from cogkit.parallel.delays import Network

__all__ = ["NETWORKS", "Cost", "break_even", "cost_of_step"]

NETWORKS = {
    n.name: n
    for n in (
        Network(0.0, float("inf"), "free"),
        Network(5e-6, 5e9, "shared memory"),
        Network(3e-5, 1.18e8, "1 Gb Ethernet"),
        Network(2e-5, 1.15e9, "10 Gb Ethernet"),
        Network(1.5e-6, 6e9, "FDR InfiniBand"),
        Network(1e-5, 1e10, "PCIe 3.0 x16"),
    )
}
LEVELS = 8 / 2048  # bytes a value that two levels a column add to the bits


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a step: computing, and communicating as far as it is not hidden behind that."""

    ranks: int
    compute: float
    communicate: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.compute + self.communicate

    def speed_up(self, alone: float) -> float:
        """How many times faster than one rank that takes so many seconds for the whole minibatch."""
        return alone / self.total


def _sum(ranks: int, values: float, bits: int, network: Network) -> float:
    each = 4.0 if bits == 32 else bits / 8 + LEVELS
    return 0.0 if ranks == 1 else network.seconds(2 * (ranks - 1) / ranks * values * each, 2)


def cost_of_step(
    algorithm: str,
    ranks: int,
    samples: float,
    values: float,
    compute: Callable[[float], float],
    network: Network,
    bits: int = 32,
    buffered: bool = False,
    block: float = 1,
) -> Cost:
    """What a minibatch of `samples` samples of all ranks together takes.

    algorithm: "data_parallel", "block" or "asgd". values: parameters of the model. compute: seconds for a number of samples on one rank, as
    measured. bits: of a value sent; buffered: whether gradients travel while the next minibatch is computed; block: minibatches of a block.
    Raises ValueError for another algorithm.
    """
    t = compute(samples / ranks)
    talk = _sum(ranks, values, bits, network)
    if algorithm == "data_parallel":
        return Cost(ranks, t, max(0.0, talk - t) if buffered else talk)
    if algorithm == "block":
        return Cost(ranks, t, talk / block)
    if algorithm == "asgd":
        return Cost(ranks, t, _sum(ranks, values, 32, network))
    raise ValueError(f"cost_of_step: expected 'data_parallel', 'block' or 'asgd' as algorithm, got {algorithm!r}")


def break_even(samples: float, values: float, compute: Callable[[float], float], network: Network, bits: int = 32) -> int:
    """The number of ranks from which on data-parallel training spends more time on exchanges than on computing."""
    for ranks in range(2, 1 << 16):
        made = cost_of_step("data_parallel", ranks, samples, values, compute, network, bits)
        if made.communicate > made.compute:
            return ranks
    return 1 << 16
