"""Quantisers: kernels against their NumPy twins bit for bit, against a transcription of the paper, conservation, sizes of messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cogkit as C
from cogkit.engine.cpu.native import get_num_threads, set_num_threads
from cogkit.parallel import current_world, simulate
from cogkit.parallel.flat import Flat
from cogkit.parallel.quantize import Columns, column_sizes, pack, pack_reference, unpack, unpack_reference
from cogkit.parallel.quantized import Quantized


def columns(sizes, bits, dtype=np.float32, gap=0):
    begin = np.cumsum([0, *sizes[:-1]]) + gap * np.arange(len(sizes))
    return Columns(zip(begin.tolist(), sizes, strict=True), bits, dtype), int(begin[-1] + sizes[-1]) if sizes else 0


@given(
    sizes=st.lists(st.one_of(st.integers(1, 130), st.sampled_from([512, 1024, 1025, 4095])), min_size=1, max_size=6),
    bits=st.integers(1, 8),
    zero=st.booleans(),
    scale=st.sampled_from([1.0, 1e-20, 1e15, 0.0]),
    seed=st.integers(0, 99),
)
def test_kernels_are_their_twins(sizes, bits, zero, scale, seed):
    c, n = columns(sizes, bits, gap=3)
    r = np.random.RandomState(seed)
    g, e = (scale * (r.randn(n) + 0.1)).astype("f"), (scale * 0.3 * r.randn(n)).astype("f")
    one, two, first, second = e.copy(), e.copy(), c.message(), c.message()
    pack(c, zero, g, one, first)
    pack_reference(c, zero, g, two, second)
    assert first.tobytes() == second.tobytes() and one.tobytes() == two.tobytes()
    for add in (False, True):
        a, b = g.copy(), g.copy()
        unpack(c, first, a, add)
        unpack_reference(c, first, b, add)
        assert a.tobytes() == b.tobytes()


def paper(v, zero):
    """One column as in Seide et al. 2014 and its toolkit: (levels, what is sent)."""
    v = v.astype(np.float64)
    if zero:
        below, above = v[v < 0], v[v >= 0]
        low, high = below.mean() if below.size else 0.0, above.mean() if above.size else 0.0
        return (low, high), np.where(v < 0, low, high)
    mean = v.mean()
    dev = np.abs(v - mean).mean()
    return (mean - dev, mean + dev), np.where(v < mean, mean - dev, mean + dev)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("zero", [False, True])
def test_one_bit_by_the_paper(zero, dtype):
    sizes = [1100, 7, 1, 64, 3000]
    c, n = columns(sizes, 1, dtype)
    r = np.random.RandomState(0)
    g, e = (r.randn(n) - 0.3).astype(dtype), (0.2 * r.randn(n)).astype(dtype)
    v, old, message, sent = g + e, e.copy(), c.message(), np.zeros(n, dtype)
    pack(c, zero, g, e, message)
    unpack(c, message, sent)
    levels, _ = c.parts(message)
    at = 0
    for size, found in zip(sizes, levels, strict=True):
        part = slice(at, at + size)
        want, q = paper(v[part], zero)
        assert found == pytest.approx(want, rel=1e-4, abs=1e-6)
        assert sent[part] == pytest.approx(q, rel=1e-4, abs=1e-6)
        at += size
    assert sent + e == pytest.approx(g + old, rel=1e-5, abs=1e-6)  # conservation
    if zero:
        assert e.sum() == pytest.approx(0, abs=1e-2)  # the means of both sides are sent whole


@pytest.mark.parametrize("bits", range(1, 9))
def test_more_bits_less_error(bits):
    r = np.random.RandomState(3)
    g, errors = r.randn(4096).astype("f"), []
    for b in (bits, bits + 1):
        if b > 8:
            break
        c, n = columns([2048, 2048], b)
        e, message, sent = np.zeros(n, "f"), c.message(), np.zeros(n, "f")
        pack(c, False, g, e, message)
        unpack(c, message, sent)
        assert sent + e == pytest.approx(g, abs=1e-5)
        assert len(np.unique(sent)) <= 2 * 2**b
        errors.append(np.abs(e).mean())
    if bits > 1 and len(errors) == 2:
        assert errors[1] < 0.7 * errors[0]


def test_nothing_is_lost_over_time():
    """With the error kept, the sum of what was sent follows the sum of the gradients."""
    c, n = columns([1500], 1)
    r = np.random.RandomState(0)
    e, message, q, total, told = np.zeros(n, "f"), c.message(), np.zeros(n, "f"), np.zeros(n), np.zeros(n)
    for _ in range(200):
        g = (r.randn(n) + np.linspace(-1, 1, n)).astype("f")
        pack(c, False, g, e, message)
        unpack(c, message, q)
        total += g
        told += q
    assert told + e == pytest.approx(total, rel=1e-3, abs=1e-2)
    assert np.corrcoef(total, told)[0, 1] > 0.99


def test_what_is_not_a_number_is_passed_on():
    c, n = columns([100, 100], 1)
    g = np.ones(n, "f")
    g[5] = np.nan
    e, message, q = np.zeros(n, "f"), c.message(), np.zeros(n, "f")
    pack(c, False, g, e, message)
    unpack(c, message, q)
    assert np.isnan(q[:100]).all() and (q[100:] == 1).all()


def test_threads_do_not_matter():
    before = get_num_threads()
    c, n = columns([2048] * 50, 1)
    g = np.random.RandomState(0).randn(n).astype("f")
    found = []
    for threads in (1, 2):
        set_num_threads(threads)
        e, message = np.zeros(n, "f"), c.message()
        pack(c, False, g, e, message)
        found.append((message.tobytes(), e.tobytes()))
    set_num_threads(before)
    assert found[0] == found[1]


def test_columns_of_shapes():
    assert column_sizes((500, 2048)) == [2048] * 500
    assert column_sizes((3, 64, 3, 3)) == [1728]
    assert (
        column_sizes((4, 600)) == [1200, 1200]
        and column_sizes((2, 600)) == [1200]
        and column_sizes((2, 2, 3, 600)) == [1800, 1800] * 2
    )
    assert column_sizes((5_000,)) == [1667, 1667, 1666] and column_sizes((3,)) == [3] and column_sizes(()) == [1]
    assert column_sizes((0, 4)) == []
    for shape in ((7, 33), (2, 5, 1024), (129, 127), (1, 5000)):
        assert sum(column_sizes(shape)) == np.prod(shape)


def test_messages_are_small():
    """At most 1/28 of the bytes of float32, for a model of ordinary layers."""

    def main():
        world = current_world()
        ps = [C.parameter(s, init=0) for s in ((64, 64, 3, 3), (512, 2048), (2048,), (2048, 512), (512,), (3, 3))]
        flat = Flat(ps)
        world.barrier()
        start = world.meter.bytes
        summing = Quantized(world, flat, 1, False)
        summing.start()
        summing.wait()
        few, start = world.meter.bytes - start, world.meter.bytes
        for b in flat.buffers:
            world.all_reduce(b, "whole")
        return few, world.meter.bytes - start

    for n in (2, 4):
        found = np.array(simulate(main, n), float).sum(0)
        assert found[1] / found[0] >= 28, found


def test_aggregation_by_the_paper():
    """Two exchanges of three ranks against a transcription, with both errors."""
    shape, n = (3, 1024), 3
    draws = [np.random.RandomState(r).randn(*shape).astype("f") for r in range(n)]

    def main():
        world = current_world()
        flat = Flat([C.parameter(shape, init=0)])
        summing = Quantized(world, flat, 1, False)
        told = []
        for _ in range(2):
            flat.buffers[0][...] = draws[world.rank].reshape(-1)
            summing.start()
            summing.wait()
            told.append(flat.buffers[0].copy())
        return told, summing.residual[0].copy(), summing.own_residual[0].copy()

    found = simulate(main, n)
    worker, owner = np.zeros((n, *shape)), np.zeros(shape)
    for step in range(2):
        want = np.zeros(shape)
        for column in range(3):  # owned by the rank of the same number
            s = np.zeros(shape[1])
            for r in range(n):
                v = draws[r][column] + worker[r, column]
                _, q = paper(v, False)
                worker[r, column] = v - q
                s = s + q
            v = s + owner[column]
            _, want[column] = paper(v, False)
            owner[column] = v - want[column]
        for told, *_ in found:
            assert told[step].reshape(shape) == pytest.approx(want, rel=1e-3, abs=1e-4)
    assert len({told[1].tobytes() for told, *_ in found}) == 1
    for r, (_, mine, own) in enumerate(found):
        assert mine.reshape(shape) == pytest.approx(worker[r], rel=1e-3, abs=1e-3)
        assert own.reshape(shape)[r] == pytest.approx(owner[r], rel=1e-3, abs=1e-3)
