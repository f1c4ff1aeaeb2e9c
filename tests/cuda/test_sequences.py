"""Rows of sequences on the CUDA engine: moved, summed, numbered, folded; the ops and trainings over sequences, against the reference."""

import numpy as np
import pytest
from cases.sequence_training import STORIES
from cases.sequences import CASES, record
from cuda.lowered import BATCH, OTHER, STEPS, agree, spaces

import cogkit as C
from cogkit.engine.executable import Executable

F2, F4, F8 = np.float16, np.float32, np.float64
LENGTHS = {"mixed": [3, 1, 5, 2], "equal": [4, 4], "alone": [6], "empty": [2, 0, 3, 0], "none": [0, 0]}
SHAPES = pytest.mark.parametrize("shape", [(), (3,), (4, 2), (0,)], ids=str)
EACH = pytest.mark.parametrize("lengths", LENGTHS)


def normal(*shape, dtype=F4):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


MOVES = [("shift", 1), ("shift", 2), ("shift", -1), ("shift", -9), ("relabel",), ("roll", 1), ("roll", -2)]


@EACH
@SHAPES
@pytest.mark.parametrize("dtype", [F2, F4, F8])
def test_rows_that_move_within_sequences(lengths, shape, dtype):
    sizes = spaces(LENGTHS[lengths], LENGTHS[lengths])
    x = normal(int(sizes[STEPS]), *shape, dtype=dtype)
    for move in MOVES:
        axes = OTHER if move[0] == "relabel" else STEPS
        agree(lambda g, x, move=move, axes=axes: g.node("move_rows", [x], move=move, axes=axes), [(x, STEPS)], sizes)


@EACH
@SHAPES
def test_rows_that_move_between_sequences_and_the_batch(lengths, shape):
    lengths = LENGTHS[lengths]
    sizes, n, most = spaces(lengths), len(lengths), max(lengths)
    x, b = normal(int(sizes[STEPS]), *shape), normal(n, *shape)
    packed = normal(n, most, *shape)
    for move in (("at", 0), ("at", -1), ("at", 2)):
        agree(lambda g, x, move=move: g.node("move_rows", [x], move=move, axes=BATCH), [(x, STEPS)], sizes)
    for move in (("broadcast",), ("spread", 0), ("spread", -1)):
        agree(lambda g, b, move=move: g.node("move_rows", [b], move=move, axes=STEPS), [(b, BATCH)], sizes)
    for move in (("unpack", most), ("tail", most)) if most else ():
        agree(lambda g, x, m=move: g.node("move_rows", [x], move=m, axes=BATCH, shape=(most, *shape)), [(x, STEPS)], sizes)
    for move in (("pack", most), ("head", most)) if most else ():
        agree(lambda g, b, m=move: g.node("move_rows", [b], move=m, axes=STEPS, shape=shape), [(packed, BATCH)], sizes)


@SHAPES
@pytest.mark.parametrize("dtype", [F4, F8])
def test_rows_that_come_from_several_are_summed_in_order(shape, dtype):
    """The gradient of a first state that all steps of other sequences read."""
    sizes = spaces([3, 1, 5, 2], [1, 4, 1, 3])
    x = normal(int(sizes[STEPS]), *shape, dtype=dtype)
    for steps in (2, -2, 1):
        node = {"move": ("initial", steps), "axes": OTHER}
        agree(lambda g, x, node=node: g.node("add_rows", [x], **node), [(x, STEPS)], sizes)
        y = normal(int(sizes[OTHER]), *shape, dtype=dtype)
        move = {**node, "axes": STEPS}
        agree(lambda g, y, move=move: g.node("move_rows", [y], **move), [(y, OTHER)], sizes)


@pytest.mark.parametrize("dtype", [F4, F8])
def test_rows_that_are_picked(dtype):
    sizes = spaces([3, 1, 5, 2])
    picked = sizes[STEPS].pick(np.array([1, 0, 2, 0, 0, 3, 1, 1, 0, 1, 1]))
    sizes |= {OTHER: picked, ("pick", 0): picked}
    x, y = normal(11, 3, dtype=dtype), normal(int(picked), 3, dtype=dtype)
    agree(lambda g, x: g.node("move_rows", [x], move=("pick", 0), axes=OTHER), [(x, STEPS)], sizes)
    agree(lambda g, y: g.node("add_rows", [y], move=("pick", 0), axes=STEPS), [(y, OTHER)], sizes)


@EACH
@SHAPES
@pytest.mark.parametrize("dtype", [F4, F8])
def test_folds_and_numbers_of_rows(lengths, shape, dtype):
    sizes = spaces(LENGTHS[lengths])
    x = normal(int(sizes[STEPS]), *shape, dtype=dtype)
    if x.size > 4:
        x.flat[4] = np.nan
    for kind in ("sum", "max", "min"):
        agree(lambda g, x, kind=kind: g.node("fold_steps", [x], kind=kind), [(x, STEPS)], sizes)

    def numbers(g, x):
        return [g.node("row_info", [], what=what, type=x.type) for what in (("step",), ("length",), ("below", 2), ("last", 1))]

    agree(numbers, [(x, STEPS)], sizes)


def close(got, want, tight, what):
    assert got.keys() == want.keys()
    for key, w in want.items():
        scale = max(1.0, float(np.max(np.abs(w), initial=0, where=np.isfinite(w))))
        np.testing.assert_allclose(got[key], w, rtol=tight, atol=tight * scale, err_msg=f"{what} {key}")


SOME = [pytest.param(c, id=c.name, marks=() if i % 8 == 0 else pytest.mark.heavy) for i, c in enumerate(CASES)]


@pytest.mark.parametrize("case", SOME)
def test_sequence_cases(case):
    """The cases that are held to CNTK's values: values and gradients."""
    found = []
    for engine in ("cuda", "reference"):
        with C.device.use_engine(engine):
            found.append(record(C, case, F4))
    close(*found, max(case.rtol, 2e-5), case.name)


@pytest.mark.parametrize("name", sorted(STORIES))
def test_trainings_over_sequences(name):
    found = []
    for engine in ("cuda", "reference"):
        with C.device.use_engine(engine):
            found.append({k: np.asarray(v) for k, v in STORIES[name](C, "f4").items()})
    close(*found, 2e-4, name)


def test_tables_of_minibatches_travel_without_waiting(fake):
    """Where streams run late, tables are there when kernels are; memory of tables that are gone is taken again."""
    fake.set(LAZY=1)
    rng, x = np.random.default_rng(0), C.sequence.input_variable(2)
    e = Executable([C.sequence.past_value(x, time_step=2).output], engine="cuda")
    live = []
    for _ in range(40):
        xs = [normal(n, 2) for n in rng.integers(1, 6, 4)]
        (found,) = e.run({x: xs})
        for y, given in zip(found, xs, strict=True):
            np.testing.assert_array_equal(y, np.concatenate([np.zeros((2, 2), F4), given])[: len(given)])
        live.append(fake.counts()["live"])
    assert live[39] == live[20]
