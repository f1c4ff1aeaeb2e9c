"""What a minibatch of a row's model takes on one rank here: the sheet's fixed_us and frame_us, which virtual clocks go by.

OMP_NUM_THREADS=1 python -m cogkit.papers.bmuf.measure quick sgd-1-s1 build/data/speech.quick.d
"""

import sys
from pathlib import Path

import numpy as np

from cogkit.papers.bmuf.train import System
from cogkit.papers.running import Out, Row
from cogkit.papers.sheets import read_paper
from cogkit.parallel.cost_model import Work, measure_work

__all__ = ["measure"]


def measure(row, path: Path, sizes: tuple[int, ...] = (1, 2, 4, 8), repeats: int = 20) -> Work:
    """Seconds of minibatches of so many times the row's size, on real data; the shortest of all repeats count."""
    system = System(row, path)
    session = system.session(Out(Path("build/measure")), system.local_learner(system.rates), system.samples)
    batches = {}
    for n in sizes:
        batch = session.source.next_minibatch(n * row.batch)
        fed = {variable: batch[stream] for variable, stream in session.streams.items()}
        batches[fed[system.x].num_samples] = fed
    values = sum(int(np.prod(p.shape)) for p in system.z.parameters)
    return measure_work(lambda n: session.trainer.train_minibatch(batches[n]), values, row.batch, list(batches), repeats)


if __name__ == "__main__":
    profile, run, data = sys.argv[1:]
    work = measure(Row(read_paper(Path(__file__).parent).find(profile, run)), Path(data))
    print(f"fixed_us {1e6 * work.fixed:.0f}, frame_us {1e6 * work.per_sample:.2f}; {work.values} values")
