"""Records what CNTK 2.7 computes for the table of op cases: `cntk27 make_goldens.py [family ...]` (its own Python 3.6).

Writes ops_<family>.npz beside itself. For each case its operands (i0, ...), outputs (y0, ...; t0 while training) and gradients
(d0: of operand 0; dp0_W: of a layer's parameter) for a fixed root gradient, as float32, and as float64 where the case says so.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import io
import json
import os
import sys
import traceback
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import cntk as C  # noqa: E402
import numpy as np  # noqa: E402
from cases import record, values  # noqa: E402
from cases.ops import CASES  # noqa: E402


def save(path, arrays):
    """An .npz with fixed time stamps, so that the same numbers give the same file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for key in sorted(arrays):
            buffer = io.BytesIO()
            np.save(buffer, arrays[key], allow_pickle=False)
            z.writestr(zipfile.ZipInfo(key + ".npy", (2020, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def steady(case, dtype):
    """CNTK's average pooling now and then gives other values on two threads: a record counts when it comes twice."""
    before = record(C, case, dtype)
    for _ in range(9):
        found = record(C, case, dtype)
        if all(np.array_equal(before[k], found[k], equal_nan=True) for k in found):
            return found
        before = found
        print("unsteady:", case.name)
    raise RuntimeError("ten runs, never twice the same values")


def main(families):
    files, failed = {}, []
    for case in CASES:
        if not case.golden or families and case.family not in families:
            continue
        for dtype in ("f4", "f8") if case.f8 else ("f4",):
            try:
                found = steady(case, np.dtype(dtype).type)
            except Exception as e:
                failed.append((case.name, dtype, str(e).strip().split("\n")[0][:160]))
                if "-v" in sys.argv:
                    traceback.print_exc()
                continue
            arrays = files.setdefault(case.family, {})
            for i, v in enumerate(values(case, case.rows)):
                found["i%d" % i] = v.astype(dtype)
            for key, v in found.items():
                arrays["%s/%s/%s" % (case.name.replace("/", ":"), dtype, key)] = v
    for name, arrays in files.items():
        about = dict(cntk=C.__version__, numpy=np.__version__, python=sys.version.split()[0])
        arrays["about"] = np.array(json.dumps(about, sort_keys=True))
        save(os.path.join(HERE, "ops_%s.npz" % name), arrays)
        print("%-14s %4d arrays" % (name, len(arrays)))
    for f in failed:
        print("FAILED %s %s: %s" % f)


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if not a.startswith("-")])
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
