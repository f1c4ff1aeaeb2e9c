"""The paper's speed-ups from the cost model, for other bits than it had and for other numbers of GPUs.

Its abstract has a net of 46 million parameters and, on 8 K20X, 27 and 51 thousand frames a second with minibatches of 2,880 and 16k: 3.6 and
6.3 times one GPU. So one GPU has 7.5 and 8.1 thousand, which gives seconds a frame and seconds a minibatch of any size. What 8 GPUs need
for a minibatch of 2,880 beyond computing and sending (quantising, copies, waiting) is taken from its row and held for every minibatch, any
bits and any number of GPUs above one. So the model meets the row of 2,880 by construction and predicts that of 16k.

Assumed: "16k" is 16,384; the network, which its abstract does not name; nothing of an exchange is hidden.
"""

import dataclasses

from cogkit.parallel.cost_model import NETWORKS, Algorithm, Work, predict

__all__ = ["RANKS", "speedups"]

RANKS = (1, 2, 4, 8, 16, 32)
VALUES, GPUS = 46_000_000, 8
PUBLISHED = {2880: (27e3, 3.6), 16384: (51e3, 6.3)}  # minibatch: frames a second of 8 GPUs, times one GPU
NAMES = {2880: "speedup_2880", 16384: "speedup_16k"}


def published_work(samples: int) -> Work:
    """What one GPU of the paper takes for a minibatch, without packing."""
    (a, (rate_a, times_a)), (b, (rate_b, times_b)) = PUBLISHED.items()
    one_a, one_b = a * times_a / rate_a, b * times_b / rate_b  # seconds on one GPU
    c = (one_b - one_a) / (b - a)
    return Work(VALUES, samples, c, one_a - c * a)


def speedups(bits: int, network: str, ranks: int = GPUS) -> dict[str, float]:
    """Speed-ups of so many GPUs by name of the minibatch."""
    small = published_work(2880)
    rest = 2880 / PUBLISHED[2880][0] - predict(small, Algorithm(1), GPUS, NETWORKS[network]).total
    found = {}
    for samples, name in NAMES.items():
        work = dataclasses.replace(small, samples=samples)
        step = predict(work, Algorithm(bits), ranks, NETWORKS[network])
        found[name] = work.compute() / (step.total + (rest if ranks > 1 else 0.0))
    return found
