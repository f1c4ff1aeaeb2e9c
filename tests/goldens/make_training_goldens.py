"""Records what CNTK 2.7 does with learners, schedules, initialisers and running statistics: `cntk27 make_training_goldens.py`.

Writes learners.npz, statistics.npz and training.json (schedules; moments of drawn parameters) beside itself.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import cntk as C  # noqa: E402
import numpy as np  # noqa: E402
from cases import training as t  # noqa: E402
from make_goldens import save  # noqa: E402


def main():
    about = dict(cntk=C.__version__, numpy=np.__version__, python=sys.version.split()[0])
    arrays = {"about": np.array(json.dumps(about, sort_keys=True))}
    for name in t.LEARNERS:
        arrays[name.replace("/", ":")] = t.trajectory(C, name, np.float64)
    save(os.path.join(HERE, "learners.npz"), arrays)
    arrays = {"about": arrays["about"]}
    for name in t.STATISTICS:
        for key, value in t.statistics(C, name, np.float32).items():
            arrays["%s/%s" % (name.replace("/", ":"), key)] = value
    for k in t.BILINEAR:
        arrays["bilinear/%d" % k] = t.bilinear(C, k)
    save(os.path.join(HERE, "statistics.npz"), arrays)
    C.cntk_py.set_fixed_random_seed(1)
    rounded = lambda m: [int(m[0])] + [float("%.6g" % v) for v in m[1:]]  # noqa: E731
    text = dict(
        about=about,
        schedules={name: t.schedule_values(C, name) for name in t.SCHEDULES},
        draws={name: rounded(t.draw_moments(C, name)) for name in t.DRAWS},
        layers={name: rounded(t.layer_moments(C, name)) for name in t.LAYERS},
    )
    groups = []
    for group, rows in sorted(text.items()):
        lines = ["  %s: %s" % (json.dumps(n), json.dumps(v)) for n, v in sorted(rows.items())]
        groups.append(" %s: {\n%s\n }" % (json.dumps(group), ",\n".join(lines)))
    with open(os.path.join(HERE, "training.json"), "w") as f:
        f.write("{\n" + ",\n".join(groups) + "\n}\n")
    sys.stdout.flush()
    os._exit(0)


main()
