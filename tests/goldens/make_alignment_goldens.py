"""Records what CNTK 2.7 computes for CTC and edit distance: `cntk27 make_alignment_goldens.py` (Python 3.6).

Writes alignment.npz beside itself: `<case>/<dtype>/y`, the loss, `<case>/<dtype>/d`, its gradient, sequences one after the other, and `edits`.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import cntk as C  # noqa: E402
import numpy as np  # noqa: E402
from cases.alignment import CTC, EDITS  # noqa: E402
from make_goldens import save  # noqa: E402


def ctc(case, dtype):
    x = C.sequence.input_variable(case.shape, dtype=dtype, needs_gradient=True)
    y = C.sequence.input_variable(case.shape, dtype=dtype)
    f = C.forward_backward(C.labels_to_graph(y), x, case.blank, case.delay)
    logits, labels = case.feed(dtype)
    found = []
    for _ in range(2):
        state, values = f.forward({x: logits, y: labels}, [f.output], {f.output})
        loss = np.asarray(list(values.values())[0])
        grad = f.backward(state, {f.output: np.ones_like(loss)}, {x})[x]
        found.append((loss, np.concatenate([np.asarray(g) for g in grad])))
    np.testing.assert_array_equal(found[0][1], found[1][1])
    return found[0]


def edit(case):
    a, b = (C.sequence.input_variable(4) for _ in range(2))
    f = C.edit_distance_error(a, b, *case.arguments)
    return float(f.eval({v: [np.ascontiguousarray(s, np.float32) for s in x] for v, x in ((a, case.a), (b, case.b))}))


if __name__ == "__main__":
    arrays = {"about": np.array(json.dumps(dict(cntk=C.__version__, numpy=np.__version__), sort_keys=True))}
    for case in CTC:
        for word, dtype in (("f4", np.float32), ("f8", np.float64)):
            arrays["%s/%s/y" % (case.name, word)], arrays["%s/%s/d" % (case.name, word)] = ctc(case, dtype)
    arrays["edits"] = np.array([edit(case) for case in EDITS])
    save(os.path.join(HERE, "alignment.npz"), arrays)
    print("%d arrays, %d bytes" % (len(arrays), os.path.getsize(os.path.join(HERE, "alignment.npz"))))
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
