"""What training with these minibatches would take on the paper's GPUs: the cost model with published inputs.

Inputs: a net of 46 million parameters (abstract); one K20X trains 7.5 thousand frames a second with minibatches of 2,880 and 8.1 thousand
with 16k (derived from the abstract of Seide et al., Interspeech 2014: 27 and 51 thousand on 8 GPUs, 3.6 and 6.3 times one). So a frame takes
about 0.12 ms, and a minibatch of any size 34 ms beside.

Assumed: both abstracts mean the same net and GPU; "16k" is 16,384; the network, which they do not name; gradients are packed and summed in no
time, and nothing of an exchange is hidden.
"""

from cogkit.parallel.cost_model import NETWORKS, Algorithm, Work, break_even, predict

__all__ = ["RANKS", "break_even_of", "pays_from", "speedup_of", "work_of"]

RANKS = (1, 2, 4, 8, 16, 32, 64)
VALUES = 46_000_000
PUBLISHED = {2880: (27e3, 3.6), 16384: (51e3, 6.3)}  # minibatch: frames a second of 8 GPUs, times one GPU
BASE = 1024  # the minibatch of the paper's claim


def work_of(samples: int) -> Work:
    """A minibatch of so many frames."""
    (a, (rate_a, times_a)), (b, (rate_b, times_b)) = PUBLISHED.items()
    one_a, one_b = a * times_a / rate_a, b * times_b / rate_b  # seconds on one GPU
    c = (one_b - one_a) / (b - a)
    return Work(VALUES, samples, c, one_a - c * a)


def speedup_of(sizes: dict[int, int], bits: int, ranks: int, network: str) -> float:
    """Times one GPU with minibatches of BASE; sizes: minibatch -> frames that are trained with it."""
    base = work_of(BASE).compute() / BASE * sum(sizes.values())
    return base / sum(
        n / size * predict(work_of(size), Algorithm(bits), ranks, NETWORKS[network]).total for size, n in sizes.items()
    )


def pays_from(size: float, bits: int) -> float:
    """Gbit/s, each way, from which two GPUs are faster than one with minibatches of this size; no latency."""
    work = work_of(round(size))
    return 8e-9 * Algorithm(bits).message(VALUES) / (work.compute() - work.compute(2))


def break_even_of(size: float, bits: int, network: str) -> float:
    """GPUs for whom an exchange takes as long as computation; below two it pays for none."""
    return break_even(work_of(round(size)), Algorithm(bits), NETWORKS[network])
