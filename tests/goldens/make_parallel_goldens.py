"""Values of CNTK 2.7's distributed learners on two ranks. usage: mpirun -n 2 PYTHON36 make_parallel_goldens.py OUT.npz (Python 3.6)

One matrix, squared error, five samples a minibatch on each rank; a warm start sees the first rank's. Of the matrix after each minibatch
some columns are kept. Of more than one bit CNTK's values are not recorded: most of what it sends is 0.
"""

import os
import sys

import numpy as np

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from cases.ranks import AFTER, CASES, KEPT, ROWS, SAMPLES, STEPS, WIDTH, data, start  # noqa: E402


def main():
    import cntk as C

    rank = C.Communicator.rank()
    found = {}
    for name, (make, local) in sorted(CASES.items()):
        x, y = C.input_variable(ROWS), C.input_variable(WIDTH)
        w = C.parameter((ROWS, WIDTH), init=start())
        z = C.times(x, w)
        loss = C.squared_error(z, y)
        trainer = C.Trainer(z, (loss, loss), [make(C, local(C, [w]))])
        values = []
        for i in range(STEPS):
            a, b = data(i, rank if trainer.total_number_of_samples_seen >= AFTER.get(name, 0) else 0)
            trainer.train_minibatch({x: a, y: b})
            values.append(w.value[:, ::KEPT])
        assert len(a) == SAMPLES
        found[name] = np.array(values)
    if rank == 0:
        np.savez_compressed(sys.argv[1], **found)
    C.Communicator.finalize()


if __name__ == "__main__":
    main()
