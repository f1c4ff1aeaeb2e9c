"""Copies, slices, splices and transposes on the CUDA engine, against the reference."""

import itertools

import numpy as np
import pytest
from cuda.lowered import BATCH, agree
from engine import test_sequences as graphs

import cogkit as C
from cogkit.engine.cuda.driver import launched

F2, F4, F8 = np.float16, np.float32, np.float64
S = C.sequence


def normal(*shape, dtype=F4):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [F2, F4, F8])
@pytest.mark.parametrize(
    "shape", [(3, 5), (33, 70), (2, 9, 40), (8, 2, 8), (64, 3), (1, 40), (5, 1, 12), (2, 3, 4, 5), (0, 4)], ids=str
)
def test_transpose(shape, dtype):
    for rows in (0, 1, 3):
        x = normal(rows, *shape, dtype=dtype)
        for perm in list(itertools.permutations(range(len(shape))))[:8]:
            agree(lambda g, x, p=perm: g.node("transpose", [x], perm=p), [(x, BATCH)], {BATCH: rows})
    agree(lambda g, x: g.node("transpose", [x], perm=tuple(range(len(shape)))[::-1]), [(x[0] if rows else x, ())])


def test_large_matrices_are_turned_by_tiles():
    x = normal(2, 40, 33)
    before = set(launched)
    launched.clear()
    agree(lambda g, x: g.node("transpose", [x], perm=(1, 0)), [(x, BATCH)], {BATCH: 2})
    turned = any(name.endswith("turn_4") for name in launched)
    launched.update(before)  # another test asks which there were at all
    assert turned


@pytest.mark.parametrize("dtype", [F2, F4, F8])
@pytest.mark.parametrize("shape", [(8,), (12, 4), (6, 16), (5, 3), (4, 2, 8), (24,)], ids=str)
def test_slices_and_pads(shape, dtype):
    for rows, axis in itertools.product((0, 1, 3), range(len(shape))):
        x, n, sizes = normal(rows, *shape, dtype=dtype), shape[axis], {BATCH: rows}

        def check(op, axis=axis, x=x, sizes=sizes, **how):
            agree(lambda g, x: g.node(op, [x], axis=axis, **how), [(x, BATCH)], sizes)

        for first, stride, count in (
            (0, 1, n),
            (0, 1, n // 2),
            (n // 2, 1, n - n // 2),
            (1, 2, n // 2),
            (n - 1, -1, n),
            (1, 1, 0),
        ):
            check("take", first=first, stride=stride, count=count)
        for first, stride, size in ((0, 1, n), (0, 1, n + 4), (4, 1, n + 8), (1, 1, n + 1), (0, 2, 2 * n), (n - 1, -1, n)):
            check("put", first=first, stride=stride, size=size)


@pytest.mark.parametrize("dtype", [F2, F4, F8])
@pytest.mark.parametrize("sizes", [(4, 4), (8, 4, 12), (1, 2, 3), (5, 0, 3), (16,)], ids=str)
def test_splices(sizes, dtype):
    for rows, (before, behind) in itertools.product((0, 1, 3), (((), ()), ((2,), ()), ((), (4,)), ((3,), (5,)))):
        parts, axis = [(normal(rows, *before, n, *behind, dtype=dtype), BATCH) for n in sizes], len(before)
        agree(lambda g, *x, axis=axis: g.node("concat", list(x), axis=axis), parts, {BATCH: rows})


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
def test_splices_and_slices_at_each_step(width):
    """Rows of a step begin where those before end: words are as large as rows allow."""
    x, delay = S.input_variable(width + 1, needs_gradient=True), S.future_value if width % 2 else S.past_value
    f = graphs.closed(lambda h: x + C.splice(C.slice(C.tanh(delay(h)), 0, 1, width + 1), C.slice(x, 0, 0, 1)))
    xs = [normal(n, width + 1) for n in (3, 1, 4)]
    found = []
    for engine in ("reference", "cuda"):
        with C.device.use_engine(engine):
            found.append(graphs.flat([f.eval({x: xs}), f.grad({x: xs}, wrt=[x])]))
    for w, g in zip(*found, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)
