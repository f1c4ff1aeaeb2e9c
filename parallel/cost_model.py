"""What a step takes on N ranks: measured computation and a named network, for each algorithm.

    compute  C = c n / N + f                      c: seconds a sample, n: samples of all ranks, f: seconds a minibatch of any size
    pack     P = v (1 + 1 / N) pack + 2 v unpack                       v: values of the gradient; in few bits alone
    send     S = time of the topology for m bytes, m = v bits / 8 and two levels a column
    step     C + P + S - min(hides S, window C)   hides: part of S that can run beside the part `window` of C

    stripes  2 (L + (N - 1) / N m / B)            each rank owns a stripe, takes it from all others at once, sends all its sum (cogkit's)
    ring     2 (N - 1) (L + m / N / B)
    server   2 (L + (N - 1) m / B)                one rank takes and gives everything
                                                  L: latency, B: bandwidth, each way
Beside it there is one small exchange: 32 bytes a minibatch (samples, loss, metric, end of sweep), or 56 where ranks meet once a block.

Taken for granted: equal ranks and equal shares, full bandwidth to and from each rank at once, nothing else on the network, no
contention at the owners of stripes. So a real speed-up is at most what is said here, unless small minibatches suit a cache better.
Source: the form is that of Seide, Fu, Droppo, Li, Yu: On parallelizability of stochastic gradient descent for speech DNNs, ICASSP 2014
(concurrent computation and exchange, break-even where both take equally long); the formulas above are cogkit's own.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy import optimize

from cogkit.parallel.delays import Network
from cogkit.parallel.quantize import SHORTEST, Columns, pack, unpack
from cogkit.parallel.world import World

__all__ = [
    "ALGORITHMS",
    "NETWORKS",
    "TOPOLOGIES",
    "Algorithm",
    "Step",
    "Work",
    "break_even",
    "measure_network",
    "measure_packing",
    "measure_work",
    "predict",
    "speedup",
    "speedup_curve",
]

COLUMN = 2048  # values that share two levels, where a column has 1024 to 4096 of them
HEADER, MEETING = 32, 56  # bytes of the small exchanges: 4 and 7 float64
FRAMES = 1448 / 1538  # of Ethernet's bits that are TCP's: packets of 1500 bytes, headers, preamble and gap between frames

# Line rates, each way: what remains of them after the line's coding. Latencies are round figures for a small message between two
# processes (Ethernet: through kernel and switch; PCIe: a copy that a driver starts; InfiniBand: what vendors give for MPI) and matter little.
NETWORKS: Mapping[str, Network] = {
    n.name: n
    for n in (
        Network(50e-6, 125e6 * FRAMES, "1 GbE"),  # IEEE 802.3ab
        Network(20e-6, 1.25e9 * FRAMES, "10 GbE"),  # IEEE 802.3ae
        Network(10e-6, 3.125e9 * FRAMES, "25 GbE"),  # IEEE 802.3by
        Network(10e-6, 5e9 * 16 / 8 * 8 / 10, "PCIe 2 x16"),  # 5 GT/s a lane, 8b/10b
        Network(10e-6, 8e9 * 16 / 8 * 128 / 130, "PCIe 3 x16"),  # 8 GT/s a lane, 128b/130b
        Network(2e-6, 10e9 * 4 / 8 * 8 / 10, "InfiniBand QDR"),  # 4 lanes of 10 GBd, 8b/10b
        Network(1e-6, 14.0625e9 * 4 / 8 * 64 / 66, "InfiniBand FDR"),  # 4 lanes of 14.0625 GBd, 64b/66b
        Network(1e-6, 25.78125e9 * 4 / 8 * 64 / 66, "InfiniBand EDR"),  # 4 lanes of 25.78125 GBd, 64b/66b
        Network(),
    )
}


def _stripes(n: float, ranks: float, network: Network) -> float:
    return 2 * network.seconds((ranks - 1) / ranks * n)


def _ring(n: float, ranks: float, network: Network) -> float:
    return 2 * (ranks - 1) * network.seconds(n / ranks)


def _server(n: float, ranks: float, network: Network) -> float:
    return 2 * network.seconds((ranks - 1) * n)


# name -> seconds to sum so many bytes over so many ranks
TOPOLOGIES: Mapping[str, Callable[[float, float, Network], float]] = {"stripes": _stripes, "ring": _ring, "server": _server}


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained.

    values: of the gradient. samples: of a minibatch, all ranks together. per_sample, fixed: seconds of one rank, a sample and a minibatch.
    pack, unpack: seconds to put a value into few bits and back.
    """

    values: int
    samples: int
    per_sample: float
    fixed: float = 0.0
    pack: float = 0.0
    unpack: float = 0.0

    def compute(self, ranks: float = 1) -> float:
        """Seconds of a minibatch on each of so many ranks."""
        return self.per_sample * self.samples / ranks + self.fixed


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """How ranks exchange.

    bits: a value. hides: the part of an exchange that can run beside computation, window: beside which part of that. block: samples of all
    ranks after which they exchange models; 0: gradients, each minibatch. asynchronous: gradients to the owners of stripes, models back,
    without a barrier.
    """

    bits: int = 32
    hides: float = 0.0
    window: float = 0.0
    block: int = 0
    asynchronous: bool = False

    def __post_init__(self) -> None:
        if self.bits != 32 and self.bits not in range(1, 9):
            raise ValueError(f"Algorithm: expected bits of 32, or 1 to 8, got {self.bits!r}")
        if not (0 <= self.hides <= 1 and 0 <= self.window <= 1):
            raise ValueError(f"Algorithm: expected hides and window within 0 and 1, got {self.hides!r} and {self.window!r}")
        if self.bits != 32 and (self.block or self.asynchronous):
            raise ValueError(f"Algorithm: expected 32 bits where models travel, got {self.bits}")

    def message(self, values: float) -> float:
        """Bytes of so many values."""
        return 4 * values if self.bits == 32 else values * (self.bits / 8 + 8 / COLUMN)


# Backward is about two thirds of a step: it computes two products where forward computes one.
ALGORITHMS: Mapping[str, Algorithm] = {
    "synchronous": Algorithm(),
    "synchronous, overlapped": Algorithm(hides=1.0, window=2 / 3),  # buckets travel while backward still runs
    "synchronous, buffered": Algorithm(hides=0.5, window=1.0),  # stripes travel beside the next minibatch, their sums do not
    "1 bit": Algorithm(1),
    "2 bits": Algorithm(2),
    "4 bits": Algorithm(4),
    "1 bit, buffered": Algorithm(1, hides=0.5, window=1.0),
    "1 bit, concurrent": Algorithm(
        1, hides=1.0, window=1.0
    ),  # CNTK's double buffering: all of the exchange beside the next minibatch
    "block momentum": Algorithm(block=120_000),
    "asgd": Algorithm(asynchronous=True),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of one minibatch, mean over a block where there are blocks; hidden: of `send`, what computation covers. bytes: sent by a rank."""

    compute: float
    pack: float
    send: float
    hidden: float
    bytes: float

    @property
    def total(self) -> float:
        """Seconds of a minibatch."""
        return self.compute + self.pack + self.send - self.hidden


def predict(work: Work, algorithm: Algorithm, ranks: float, network: Network, topology: str = "stripes") -> Step:
    """What a minibatch takes. Raises ValueError for less than one rank, an unknown topology, or few bits in a ring."""
    if topology not in TOPOLOGIES:
        raise ValueError(f"cost model: expected a topology of {', '.join(TOPOLOGIES)}, got '{topology}'")
    if ranks < 1:
        raise ValueError(f"cost model: expected one rank or more, got {ranks!r}")
    if topology == "ring" and algorithm.bits != 32:
        raise ValueError("cost model: expected 32 bits in a ring, which would quantise again at each rank; use stripes")
    C = work.compute(ranks)
    if ranks == 1:
        return Step(C, 0.0, 0.0, 0.0, 0.0)
    m, P = algorithm.message(work.values), 0.0
    if algorithm.bits != 32:
        P = work.values * ((1 + 1 / ranks) * work.pack + 2 * work.unpack)
    small = 0.0 if algorithm.asynchronous else (ranks - 1) * (MEETING if algorithm.block else HEADER)
    per_step = work.samples / algorithm.block if algorithm.block else 1.0
    S = TOPOLOGIES[topology](m, ranks, network) * per_step
    wait = network.seconds(small) * per_step if small else 0.0
    sent = (2 * (ranks - 1) / ranks * m + small) * per_step
    return Step(C, P, S + wait, min(algorithm.hides * S, algorithm.window * C), sent)


def speedup(
    work: Work, algorithm: Algorithm, ranks: float, network: Network, topology: str = "stripes", weak: bool = False
) -> float:
    """Samples a second of so many ranks, one rank's = 1, with the same minibatch; weak: with one that grows with the ranks."""
    whole = dataclasses.replace(work, samples=int(work.samples * ranks)) if weak else work
    alone = work.samples / work.compute()
    return whole.samples / predict(whole, algorithm, ranks, network, topology).total / alone


def speedup_curve(
    work: Work,
    algorithm: Algorithm,
    ranks: Iterable[int],
    network: Network,
    topology: str = "stripes",
    weak: bool = False,
) -> list[tuple[int, float]]:
    """(ranks, speed-up) of each number of ranks."""
    return [(n, speedup(work, algorithm, n, network, topology, weak)) for n in ranks]


def break_even(work: Work, algorithm: Algorithm, network: Network, topology: str = "stripes", most: float = 1e6) -> float:
    """The ranks, as a real number, on which an exchange takes as long as computation: the last that an exchange can hide behind.

    1: the exchange of two ranks already takes longer than one rank computes; infinite: not below `most`. On stripes without
    latency it is 1 + c n B / (2 m): it grows as the minibatch does, and as bits shrink.
    """

    def excess(ranks: float) -> float:
        step = predict(work, algorithm, ranks, network, topology)
        return step.pack + step.send - step.compute

    low = 1 + 1e-9
    if excess(low) >= 0:
        return 1.0
    if excess(most) <= 0:
        return math.inf
    return float(optimize.brentq(excess, low, most, xtol=1e-9))


# measured inputs -----------------------------------------------------------------------------------------------------------


def measure_work(
    train: Callable[[int], object],
    values: int,
    samples: int,
    sizes: Sequence[int],
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Work:
    """Work whose seconds are measured: `train(n)` trains a minibatch of n samples; the shortest time of each size counts.

    sizes: two or more; they should cover what the ranks get. A line is fitted, neither of whose numbers is below 0.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"measure_work: expected two sizes of minibatches or more, got {list(sizes)}")
    best = dict.fromkeys(sizes, math.inf)
    for n in best:
        train(n)  # plans, buffers
    for _ in range(repeats):
        for n in best:
            begin = clock()
            train(n)
            best[n] = min(best[n], clock() - begin)
    each, seconds = np.array(list(best), float), np.array(list(best.values()))
    weights = 1 / seconds  # relative errors
    found, _ = optimize.nnls(np.stack([each, np.ones_like(each)], axis=1) * weights[:, None], seconds * weights)
    return Work(values, samples, float(found[0]), float(found[1]))


def measure_packing(work: Work, bits: int = 1, repeats: int = 5) -> Work:
    """The same work with measured seconds of `quantize.pack` and `unpack`; of 4 million values at most."""
    n = max(SHORTEST, min(work.values, 1 << 22) // SHORTEST * SHORTEST)
    columns = Columns([(i, SHORTEST) for i in range(0, n, SHORTEST)], bits, np.dtype(np.float32))
    values = np.random.default_rng(1).standard_normal(n, np.float32)
    residual, message = np.zeros_like(values), columns.message()
    best = [math.inf, math.inf]
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        pack(columns, False, values, residual, message)
        middle = time.perf_counter()
        unpack(columns, message, values, add=True)
        end = time.perf_counter()
        best = [min(best[0], middle - begin), min(best[1], end - middle)]
    return dataclasses.replace(work, pack=best[0] / n, unpack=best[1] / n)


def measure_network(world: World, nbytes: int = 1 << 22, repeats: int = 20) -> Network:
    """The network between the ranks of a world, as an exchange of all with all sees it; all ranks must call it.

    Medians; that of the slowest rank counts, so that all get the same numbers.
    """

    def seconds(n: int) -> float:
        pieces = [np.zeros(n, np.uint8) for _ in range(world.size)]
        into = [np.zeros(n, np.uint8) for _ in range(world.size)]
        found = []
        for _ in range(repeats + 2):
            begin = world.clock()
            world.start_exchange(pieces, into, "measurement of the network").wait()
            found.append(world.clock() - begin)
        return float(world.all_gather(np.array([np.median(found[2:])]), "median of a measurement").max())

    if world.size == 1:
        return Network()
    latency = seconds(1)
    each = max(1, nbytes // (world.size - 1))
    longer = seconds(each) - latency
    return Network(latency, each * (world.size - 1) / longer if longer > 0 else math.inf, "measured")
