"""Cases of distributed learners on two ranks. Python 3.6 must read it: CNTK 2.7 runs the same rows."""

import numpy as np

ROWS, WIDTH = 4, 1100  # a column of the paper is a row of this matrix: it lies in one piece
SAMPLES, STEPS, KEPT = 5, 6, 11


def start():
    return 0.1 * np.random.RandomState(9).randn(ROWS, WIDTH).astype(np.float32)


def data(i, rank):
    """Minibatch i of a rank."""
    r = np.random.RandomState(100 * i + rank)
    x = r.randn(SAMPLES, ROWS).astype(np.float32)
    return x, (0.3 * r.randn(SAMPLES, WIDTH) + x[:, :1]).astype(np.float32)


def sgd(C, ps):
    return C.sgd(ps, C.learning_parameter_schedule_per_sample(0.002))


def momentum(C, ps):
    rate, m = C.learning_parameter_schedule_per_sample(0.002), C.momentum_schedule_per_sample(0.98)
    return C.momentum_sgd(ps, rate, m)


def parallel(**options):
    return lambda C, l: C.data_parallel_distributed_learner(l, **options)


def block(size, *rest, **options):
    return lambda C, l: C.block_momentum_distributed_learner(l, size, *rest, **options)


AFTER = {"one_bit_late": 10}  # samples of a warm start, in which all ranks see the same data
CASES = {
    "full": (parallel(), momentum),
    "one_bit": (parallel(num_quantization_bits=1), sgd),
    "one_bit_late": (parallel(num_quantization_bits=1, distributed_after=AFTER["one_bit_late"]), momentum),
    "block": (block(20), sgd),
    "block_classic": (block(20, None, False), sgd),
    "block_constant": (block(20, 50), sgd),
    "block_rate": (block(20, 50, False, True, 0.5), sgd),
    "block_momentum": (block(20), momentum),
    "block_momentum_kept": (block(20, None, True, False), momentum),
    "block_no_momentum": (block(20, 0), sgd),
}
