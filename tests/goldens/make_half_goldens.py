"""Records what CNTK 2.7 computes in half precision on the CPU: `cntk27 make_half_goldens.py` (its own Python 3.6).

Writes half.npz beside itself: outputs (y0, ...) and gradients (d0, ...) of the cases of the op table for operands rounded to half
precision, as far as CNTK can: all numbers one after the other, and their shapes in that order.
"""

# ruff: noqa: UP031  (Python 3.6 reads this file too)

import json
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import cntk as C  # noqa: E402
import numpy as np  # noqa: E402
from cases import Built, values  # noqa: E402
from cases.ops import CASES  # noqa: E402
from make_goldens import save  # noqa: E402


def outputs(built):
    return {"y%d" % i: y for i, y in enumerate(built.forward())}


def gradients(built):
    return built.backward()[1]


def in_child(case, part, path):
    """Records a part of a case in a process of its own: CNTK sometimes ends the interpreter where it has no kernel."""
    child = os.fork()
    if child == 0:
        try:
            operands = [v.astype(np.float16).astype(np.float64) for v in values(case, case.rows)]
            np.savez(path, **part(Built(C, case, np.float16, case.rows, operands)))
        except Exception:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main():
    shapes, numbers, done, failed = {}, [], 0, 0
    path = os.path.join(tempfile.mkdtemp(), "part.npz")
    for case in CASES:
        if not case.golden or case.departs or case.mode == "train":
            continue
        for part in (outputs, gradients) if case.diff else (outputs,):
            if not in_child(case, part, path):
                failed += 1
                break
            done += 1
            with np.load(path) as found:
                for key in sorted(found.files):
                    if found[key].dtype == np.float16:
                        shapes["%s/%s" % (case.name.replace("/", ":"), key)] = found[key].shape
                        numbers.append(found[key].reshape(-1))
    about = dict(cntk=C.__version__, numpy=np.__version__, python=sys.version.split()[0], shapes=shapes)
    save(os.path.join(HERE, "half.npz"), {"about": np.array(json.dumps(about)), "numbers": np.concatenate(numbers)})
    print("%d arrays; %d parts recorded, %d that CNTK cannot do" % (len(shapes), done, failed))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
