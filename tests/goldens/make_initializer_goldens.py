"""Records what CNTK 2.7's initialisers draw: `cntk27 make_initializer_goldens.py` (its own Python 3.6) writes initializers.json beside itself.

For each kind, shape and ranks: standard deviation and largest magnitude of the values, or null where CNTK refuses; and the values of `bilinear`.
"""

# ruff: noqa: UP031, B905  (Python 3.6 reads this file too)

import json
import os
import sys

import cntk as C
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = [(40, 50), (500,), (3, 40, 50), (16, 8, 3, 3), (8, 16, 3, 3), (6, 5, 2, 3, 4), (4, 9, 15)]
RANKS = [(None, None), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (-1, 2), (-1, 1), (-2, 1), (0, 0), (0, 2), (1, 3), (3, 0)]
KINDS = ["glorot_uniform", "glorot_normal", "xavier", "he_uniform", "he_normal", "normal"]


def drawn(shape, make, *arguments, **options):
    try:
        values = C.parameter(shape, init=make(*arguments, **options)).value.astype(np.float64)
    except Exception:
        return None
    return [float(values.std()), float(np.abs(values).max())]


def main():
    I = C.initializer  # noqa: E741
    rows = []
    for kind in KINDS:
        for shape in SHAPES:
            for output, filters in RANKS:
                ranks = {k: v for k, v in (("output_rank", output), ("filter_rank", filters)) if v is not None}
                rows.append([kind, list(shape), output, filters, drawn(shape, getattr(I, kind), 0.7, seed=1, **ranks)])
    plain = []
    for shape in SHAPES:
        plain.append(["uniform", list(shape), drawn(shape, I.uniform, 0.7, seed=1)])
        plain.append(["truncated_normal", list(shape), drawn(shape, I.truncated_normal, 0.7, seed=1)])
    kernels = []
    for shape in [(1, 1, 3, 3), (2, 2, 4, 4), (2, 3, 4, 4), (3, 2, 2, 2), (5, 5), (2, 4, 4), (1, 1, 1, 1)]:
        try:
            value = C.parameter(shape, init=I.bilinear(shape[-1], shape[-2])).value.tolist()
        except Exception as error:
            print("bilinear", shape, str(error).strip().split("\n")[0])
            value = None
        kernels.append([list(shape), value])
    ranked = []
    for output, filters in [(None, None), (1, 2), (2, None), (None, 1)]:
        made = drawn((16, 8, 3, 3), I.initializer_with_rank, I.glorot_uniform(0.7, seed=1), output, filters)
        ranked.append([output, filters, made])
    found = {"cntk": C.__version__, "ranks": rows, "plain": plain, "bilinear": kernels, "with_rank": ranked}
    with open(os.path.join(HERE, "initializers.json"), "w") as f:
        json.dump(found, f)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # CNTK 2.7 aborts while it takes itself down
