"""Row spaces of sequences: the order of their rows, and that each way between two spaces has its transpose."""

import numpy as np
import pytest

from cogkit.engine.spaces import Space, index_of, row_info

LENGTHS = [[3], [1, 1, 1], [4, 1, 7, 4, 2], [0, 3, 0, 5], [0, 0], [200, 1, 3], []]


def spaces():
    return [Space.of(np.array(lengths, np.int64)) for lengths in LENGTHS]


@pytest.mark.parametrize("space", spaces(), ids=str)
def test_rows_go_step_by_step_longest_first(space):
    steps = [[b, t] for t in range(space.steps) for b in space.order if space.lengths[b] > t]
    assert [[b, t] for b, t in zip(space.item, space.step, strict=True)] == steps
    assert int(space) == sum(space.lengths) == space.offset[-1]
    assert [int(n) for n in space.alive] == [sum(space.lengths > t) for t in range(space.steps)]
    ordered = space.lengths[space.order]
    assert (np.diff(ordered) <= 0).all()


@pytest.mark.parametrize("space", spaces(), ids=str)
def test_flat_and_row_are_inverse(space):
    assert (space.flat[space.row] == np.arange(int(space))).all()
    starts = np.cumsum(space.lengths) - space.lengths
    for b, n in enumerate(space.lengths):
        for t in range(n):
            assert space.flat[space.at(np.array([b]), np.array([t]))[0]] == starts[b] + t
        assert space.at(np.array([b]), np.array([n]))[0] == space.at(np.array([b]), np.array([-1]))[0] == -1


def test_equal_lengths_give_one_space_and_few_are_kept():
    assert Space.of([3, 1]) is Space.of(np.array([3, 1]))
    first = Space.of([3, 1])
    for n in range(200):
        Space.of([n])
    assert Space.of([3, 1]) is not first


def moves(space):
    """(move, transpose, source, target) for every kind; the transpose gives back what the move took."""
    n = len(space.lengths)
    keep = space.step % 2 == 0
    picked = space.pick(keep)
    cut = space.cut(1, 3)
    longest = space.steps
    yield from ((("shift", d), ("shift", -d), space, space) for d in (1, -1, 3, -3))
    yield from ((("at", i), ("spread", i), space, n) for i in (0, -1, 2))
    yield from ((("pick", 0), ("unpick", 0), space, p, p) for p in (picked, cut))  # type: ignore[misc]
    yield ("unpack", longest), ("pack", longest), space, n


def apply(index, x):
    y = np.zeros((len(index), x.shape[1]))
    y[index >= 0] = x[index[index >= 0]]
    return y


@pytest.mark.parametrize("space", spaces(), ids=str)
def test_every_move_and_its_transpose(space):
    """<move x, y> = <x, transpose y>."""
    rng = np.random.default_rng(0)
    for move, back, source, target, *_ in moves(space):
        there, again = index_of((move[0], *move[1:]), source, target), index_of((back[0], *back[1:]), target, source)
        x = rng.standard_normal((len(again), 2))
        y = rng.standard_normal((len(there), 2))
        np.testing.assert_allclose((apply(there, x) * y).sum(), (x * apply(again, y)).sum(), atol=1e-9)


@pytest.mark.parametrize("space", spaces(), ids=str)
def test_what_a_row_is_told(space):
    assert (row_info(("step",), space) == space.step).all()
    assert (row_info(("length",), space) == space.lengths[space.item]).all()
    for d in (1, 2):
        assert (row_info(("below", d), space) == (space.step < d)).all()
        assert (row_info(("last", d), space) == (space.lengths[space.item] - space.step <= d)).all()


@pytest.mark.parametrize(("begin", "end"), [(0, 2), (1, 0), (-2, 0), (1, -1), (-3, -1), (0, 0)])
def test_cut_is_a_slice(begin, end):
    space = Space.of([4, 1, 7, 4, 2])
    cut = space.cut(begin, end)
    for b, n in enumerate(space.lengths):
        steps = np.arange(n)[begin : end if end else None]
        assert cut.lengths[b] == len(steps)
        rows = cut.at(np.full(len(steps), b), np.arange(len(steps)))
        assert (space.step[cut.parent[rows]] == steps).all() and (space.item[cut.parent[rows]] == b).all()
