"""Records what CNTK 2.7 learns from sparse inputs: `cntk27 make_sparse_goldens.py` (Python 3.6).

Writes sparse.npz beside itself: `<case>:<learner>:<dtype>`, the parameters after each of five minibatches.
"""

# ruff: noqa: UP031  (Python 3.6 reads this file too)

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import cntk as C  # noqa: E402
import numpy as np  # noqa: E402
from cases import sparse as s  # noqa: E402
from make_goldens import save  # noqa: E402

if __name__ == "__main__":
    arrays = {"about": np.array(json.dumps(dict(cntk=C.__version__, numpy=np.__version__), sort_keys=True))}
    for case in s.CASES:
        for learner in s.CNTK_LEARNERS if case in ("counts", "loop") else ["sgd"]:
            for word, dtype in (("f4", np.float32), ("f8", np.float64)):
                try:
                    found, _ = s.trajectory(C, case, learner, dtype)
                except Exception as error:
                    print("%s %s %s: %s" % (case, learner, word, str(error).split("\n")[0]))
                    continue
                dense, _ = s.trajectory(C, case, learner, dtype, sparse=False)
                if not np.allclose(found, dense, rtol=1e-4, atol=1e-6):
                    print("%s %s %s: dense differs by %g" % (case, learner, word, abs(found - dense).max()))
                arrays["%s:%s:%s" % (case, learner.replace("/", "."), word)] = found
    save(os.path.join(HERE, "sparse.npz"), arrays)
    print("%d arrays, %d bytes" % (len(arrays), os.path.getsize(os.path.join(HERE, "sparse.npz"))))
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
