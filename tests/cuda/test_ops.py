"""The op case table on the CUDA engine against the reference: values and gradients, two orders of threads, a second run, random numbers."""

import numpy as np
import pytest
from cases import Built, as_array, record
from cases.graphs import GRAPHS
from cases.ops import CASES as OPS
from test_ops import agree, random_graphs_agree
from test_ops import each as each_of

import cogkit as C

F4, F8 = np.float32, np.float64
CASES = OPS + GRAPHS
# gradients of convolutions over many positions, and the like, are sums in another order
LOOSE = 3.0


def on(engine, case, dtype, rows=None):
    with C.device.use_engine(engine):
        return record(C, case, dtype, rows)


@each_of(CASES)
def test_engine_equals_reference(case):
    for dtype in (F4, F8):
        agree(on("cuda", case, dtype), on("reference", case, dtype), case, np.dtype(dtype).name, LOOSE)


@each_of([c for c in CASES if c.batched and all(s.value is None for s in c.specs if s.role == "batch")])
def test_no_rows_and_many(case):
    for rows in (1, 7) if case.mixes_rows else (0, 7):
        if case.mode == "train" and rows == 1:
            continue  # the variance of one row is 0: every rounding is blown up
        agree(on("cuda", case, F4, rows), on("reference", case, F4, rows), case, f"{rows} rows", 4.0)


@each_of(CASES)
def test_threads_in_reverse_give_the_same_bits(case, monkeypatch):
    """What two threads both write, or one reads before the other wrote, would show."""
    found = []
    for order in ("fwd", "rev"):
        monkeypatch.setenv("CUDACPU_ORDER", order)
        found.append(on("cuda", case, F4))
    for key, value in found[0].items():
        assert np.asarray(value).tobytes() == np.asarray(found[1][key]).tobytes(), key


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed):
    random_graphs_agree(seed, "cuda")


def test_replayed_graphs_give_the_bits_of_the_first_run():
    """The third run with feeds in the same place is a captured graph."""
    case = next(c for c in GRAPHS if c.name == "layout/residual")
    with C.device.use_engine("cuda"):
        built = Built(C, case, F4, 3)
        runs = [built.forward()[0].tobytes() for _ in range(6)]
    assert len(set(runs)) == 1


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("kind", ["uniform", "normal", "gumbel", "bernoulli"])
def test_random_values_are_those_of_the_cpu(kind, dtype):
    made = []
    for engine in ("cuda", "cpu"):
        with C.device.use_engine(engine):
            C.set_seed(5)
            x = C.input_variable((4, 5), dtype=dtype)
            like = getattr(C.random, kind + "_like")(x, seed=3)
            alone = getattr(C.random, kind)((10, 7), dtype=dtype, seed=4)
            made.append([as_array(v) for v in (like.eval({x: np.zeros((3, 4, 5), dtype)}), alone.eval(), alone.eval())])
    for a, b in zip(*made, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_dropout_masks_are_those_of_the_cpu():
    masks = []
    for engine in ("cuda", "cpu"):
        with C.device.use_engine(engine):
            C.set_seed(11)
            x = C.input_variable(20)
            y = C.dropout(x, 0.5)
            found = [y.forward({x: np.ones((7, 20), F4)}, [y.output], {y.output})[1][y.output] for _ in range(3)]
            masks.append([as_array(f) for f in found])
    for a, b in zip(*masks, strict=True):
        np.testing.assert_array_equal(a, b)
