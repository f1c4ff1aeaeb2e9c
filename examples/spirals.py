"""Two spirals, told apart by a small net; on any number of ranks.

python examples/spirals.py
mpiexec -n 2 python -m mpi4py examples/spirals.py       after one more line: see below
"""

import sys

import numpy as np

import cogkit as C
import cogkit.layers as L
from cogkit.data import ArrayDeserializer, MinibatchSource

samples = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000

rng = np.random.default_rng(1)
turn = np.sqrt(rng.random(4096)) * 3 * np.pi
which = rng.integers(0, 2, 4096)
points = np.stack([np.cos(turn + np.pi * which), np.sin(turn + np.pi * which)], 1) * turn[:, None] / 5
arrays = {"points": points.astype(np.float32), "labels": np.eye(2, dtype=np.float32)[which]}

C.set_seed(1)
x, y = C.input_variable(2), C.input_variable(2)
model = L.Sequential([L.For(range(3), lambda: L.Dense(32, activation=C.tanh)), L.Dense(2)])(x)
loss, error = C.cross_entropy_with_softmax(model, y), C.classification_error(model, y)
rate = C.learning_parameter_schedule(0.1)
learner = C.momentum_sgd(model.parameters, rate, C.momentum_schedule(0.9))
# On many ranks: wrap it, in
#   C.data_parallel_distributed_learner(learner)                                 sums of gradients
#   C.data_parallel_distributed_learner(learner, num_quantization_bits=1)        ... in one bit a value
#   C.block_momentum_distributed_learner(learner, block_size=8192)               models, once a block
#   C.parallel.model_averaging_distributed_learner(learner, block_size=8192)     their mean
#   C.parallel.asgd_distributed_learner(learner)                                 without waiting
#   C.parallel.dc_asgd_distributed_learner(learner, lambda0=0.04)                ... corrected for the delay

source = MinibatchSource(ArrayDeserializer(arrays))
streams = {x: source.streams.points, y: source.streams.labels}
printers = [C.logging.ProgressPrinter(tag="spirals")] if C.Communicator.rank() == 0 else []
trainer = C.Trainer(model, (loss, error), [learner], printers)
C.training_session(trainer, source, 64, streams, max_samples=samples, progress_frequency=samples // 4).train()

wrong = np.mean(model.eval({x: arrays["points"]}).argmax(1) != which)
if C.Communicator.rank() == 0:
    print(f"{C.Communicator.num_workers()} ranks: {100 * wrong:.1f} % wrong")
C.Communicator.finalize()
